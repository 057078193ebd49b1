"""huey: a task of `RedisHuey` or `PriorityRedisHuey`, and `huey_consumer`."""

from __future__ import annotations

import time
from collections.abc import Iterator

from huey import PriorityRedisHuey, RedisHuey

from benchmarks.peers.contract import MODE, URL, command, main, record, setting

huey = (PriorityRedisHuey if MODE.startswith("PriorityRedisHuey") else RedisHuey)("bench", url=URL)
handle = huey.task()(record)


def push(items: Iterator[int]) -> float:
    """Call the task, which enqueues it."""
    huey.storage.conn.ping()
    start = time.perf_counter()
    for item in items:
        handle(item)
    return time.perf_counter() - start


def work() -> None:
    """Run the consumer: by default one worker thread, beside its scheduler's."""
    command("huey.bin.huey_consumer", "benchmarks.peers.huey.huey", "--quiet", "--workers", str(setting("workers", 1)))


if __name__ == "__main__":
    main(push, work)
