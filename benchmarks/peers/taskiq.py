"""taskiq with taskiq-redis: `kiq`, and the `taskiq worker` program, on a stream (acknowledged) or a list (not)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from taskiq_redis import ListQueueBroker, RedisStreamBroker

from benchmarks.peers.contract import MODE, URL, command, each, main, record_async

broker = (ListQueueBroker if MODE.startswith("list") else RedisStreamBroker)(url=URL)
handle = broker.task(task_name="handle")(record_async)


def push(items: Iterator[int]) -> float:
    """Kick one task each."""

    async def pushing() -> float:
        await broker.startup()
        start = time.perf_counter()
        await each(items, handle.kiq)
        return time.perf_counter() - start

    return asyncio.run(pushing())


def work() -> None:
    """Run one worker process, with one task at a time or with the default 100."""
    tasks = "1" if ", 1 task" in MODE else "100"
    options = ("--workers", "1", "--max-async-tasks", tasks, "--log-level", "WARNING")
    command("taskiq", "worker", "benchmarks.peers.taskiq:broker", *options)


if __name__ == "__main__":
    main(push, work)
