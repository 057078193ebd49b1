"""BullMQ's Python package: `queue.add`, and its worker."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from typing import Any

from bullmq import Queue, Worker

from benchmarks.peers.contract import MODE, URL, each, hundreds, main, record_async, setting

CONNECTION = {"unix_socket_path": URL.removeprefix("unix://")}


async def handle(job: Any, token: str) -> None:  # noqa: ARG001
    """Handle a job."""
    await record_async(job.data["item"])


def push(items: Iterator[int]) -> float:
    """Add one job each, or 100 at a time."""
    options = {"removeOnComplete": True} if "removeOnComplete" in MODE else {}

    async def pushing() -> float:
        queue = Queue("bench", {"connection": CONNECTION})
        await queue.getJobCounts("waiting")
        start = time.perf_counter()
        if "addBulk" in MODE:
            for piece in hundreds(items):
                await queue.addBulk([{"name": "handle", "data": {"item": item}, "opts": options} for item in piece])
        else:
            await each(items, lambda item: queue.add("handle", {"item": item}, options))
        seconds = time.perf_counter() - start
        await queue.close()
        return seconds

    return asyncio.run(pushing())


def work() -> None:
    """Run the worker, by default one job at a time, as its documentation shows: until a signal comes."""

    async def working() -> None:
        stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        worker = Worker("bench", handle, {"connection": CONNECTION, "concurrency": setting("concurrency", 1)})
        await stopped.wait()
        await worker.close()

    asyncio.run(working())


if __name__ == "__main__":
    main(push, work)
