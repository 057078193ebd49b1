"""arq: `enqueue_job`, and its worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

from arq import create_pool, func
from arq.connections import RedisSettings
from arq.worker import Worker

from benchmarks.peers.contract import MODE, URL, each, main, record_async, setting

SETTINGS = RedisSettings.from_dsn(URL)


async def handle(context: Any, item: int) -> None:  # noqa: ARG001
    """Handle a job."""
    await record_async(item)


def push(items: Iterator[int]) -> float:
    """Enqueue one job each."""

    async def pushing() -> float:
        pool = await create_pool(SETTINGS)
        start = time.perf_counter()
        await each(items, lambda item: pool.enqueue_job("handle", item))
        return time.perf_counter() - start

    return asyncio.run(pushing())


def work() -> None:
    """Run the worker; by default 10 jobs at a time, and a look at the queue each half second."""
    options: dict[str, Any] = {"max_jobs": setting("max_jobs", 10)}
    if "poll_delay=0.001" in MODE:
        options["poll_delay"] = 0.001
    if "no results" in MODE:
        options["keep_result"] = 0
    asyncio.set_event_loop(asyncio.new_event_loop())
    Worker([func(handle, name="handle")], redis_settings=SETTINGS, **options).run()


if __name__ == "__main__":
    main(push, work)
