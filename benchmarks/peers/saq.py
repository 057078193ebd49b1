"""saq: `queue.enqueue`, and its worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

from saq import Worker
from saq.queue.redis import RedisQueue

from benchmarks.peers.contract import MODE, URL, each, main, record_async, setting


async def handle(context: Any, *, item: int) -> None:  # noqa: ARG001
    """Handle a job."""
    await record_async(item)


def push(items: Iterator[int]) -> float:
    """Enqueue one job each."""
    options = {"ttl": -1} if "no results" in MODE else {}

    async def pushing() -> float:
        queue = RedisQueue.from_url(URL)
        await queue.connect()
        await queue.redis.ping()
        start = time.perf_counter()
        await each(items, lambda item: queue.enqueue("handle", item=item, **options))
        return time.perf_counter() - start

    return asyncio.run(pushing())


def work() -> None:
    """Run the worker; by default 10 jobs at a time."""

    async def working() -> None:
        queue = RedisQueue.from_url(URL)
        await queue.connect()
        await Worker(queue, [("handle", handle)], concurrency=setting("concurrency", 10)).start()

    asyncio.run(working())


if __name__ == "__main__":
    main(push, work)
