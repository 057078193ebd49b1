"""streaq: a task's `enqueue`, and its worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

from streaq import Worker

from benchmarks.peers.contract import MODE, URL, each, hundreds, main, record_async, setting

worker = Worker(redis_url=URL, concurrency=setting("concurrency", 16))
options: dict[str, Any] = {"ttl": 0} if "no results" in MODE else {}
handle = worker.task(**options)(record_async)


async def enqueue(item: int) -> None:
    """Enqueue one task."""
    await handle.enqueue(item)


def push(items: Iterator[int]) -> float:
    """Enqueue one task each, or 100 at a time."""

    async def pushing() -> float:
        async with worker:
            await worker.redis.ping()
            start = time.perf_counter()
            if "enqueue_many" in MODE:
                for piece in hundreds(items):
                    await worker.enqueue_many([handle.enqueue(item) for item in piece])
            else:
                await each(items, enqueue)
            return time.perf_counter() - start

    return asyncio.run(pushing())


def work() -> None:
    """Run the worker; by default 16 tasks at a time."""
    worker.run_sync()


if __name__ == "__main__":
    main(push, work)
