"""RQ: `queue.enqueue`, and the worker in a script of its own, which its documentation recommends for speed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from redis import Redis
from rq import Queue, SimpleWorker, Worker

from benchmarks.peers.contract import MODE, URL, hundreds, main, record


def push(items: Iterator[int]) -> float:
    """Enqueue one call each, or 100 at a time."""
    queue = Queue(connection=Redis.from_url(URL))
    queue.connection.ping()
    options: dict[str, Any] = {"result_ttl": 0} if "no results" in MODE else {}
    start = time.perf_counter()
    if "enqueue_many" in MODE:
        for piece in hundreds(items):
            queue.enqueue_many([Queue.prepare_data(record, (item,), **options) for item in piece])
    else:
        for item in items:
            queue.enqueue(record, item, **options)
    return time.perf_counter() - start


def work() -> None:
    """Run the worker, which forks for each job, or the one that does not."""
    kind = SimpleWorker if MODE.startswith("SimpleWorker") else Worker
    kind(["default"], connection=Redis.from_url(URL)).work(logging_level="WARNING")


if __name__ == "__main__":
    main(push, work)
