"""streaq: a task's `enqueue`, and its worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

from streaq import Worker

from benchmarks.peers.contract import MODE, URL, hundreds, main, record_async

options: dict[str, Any] = {"concurrency": 1} if "concurrency=1" in MODE.split(", ") else {}
worker = Worker(redis_url=URL, **options)
handle = worker.task(record_async)


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
                for item in items:
                    await handle.enqueue(item)
            return time.perf_counter() - start

    return asyncio.run(pushing())


def work() -> None:
    """Run the worker; by default 16 tasks at a time."""
    worker.run_sync()


if __name__ == "__main__":
    main(push, work)
