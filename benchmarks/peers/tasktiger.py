"""TaskTiger: `tiger.delay`, and its worker, which forks for each task unless it is told not to."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

import structlog
from redis import Redis
from tasktiger import TaskTiger
from tasktiger.executor import ForkExecutor, SyncExecutor

from benchmarks.peers.contract import MODE, URL, main, record

# As TaskTiger's own setup, but for its level: unconfigured, structlog prints each step in colour.
structlog.configure(
    processors=[structlog.stdlib.filter_by_level, structlog.processors.JSONRenderer()],
    logger_factory=structlog.stdlib.LoggerFactory(),
    wrapper_class=structlog.stdlib.BoundLogger,
)
logging.getLogger("tasktiger").setLevel(logging.WARNING)
tiger = TaskTiger(connection=Redis.from_url(URL, decode_responses=True), config={"BATCH_QUEUES": {"batch": 100}})


def record_batch(params: list[dict[str, Any]]) -> None:
    """Handle a batch of tasks."""
    record(*(one["args"][0] for one in params))


handle_batch = tiger.task(queue="batch", batch=True)(record_batch)


def push(items: Iterator[int]) -> float:
    """Queue one task each; it has no call for more."""
    from benchmarks.peers.tasktiger import handle_batch  # as the worker will import it

    tiger.connection.ping()
    start = time.perf_counter()
    for item in items:
        if "batches" in MODE:
            tiger.delay(handle_batch, args=[item])
        else:
            tiger.delay(record, args=[item])
    return time.perf_counter() - start


def work() -> None:
    """Run the worker with the executor of the mode."""
    tiger.run_worker(executor_class=ForkExecutor if MODE.startswith("fork") else SyncExecutor)


if __name__ == "__main__":
    main(push, work)
