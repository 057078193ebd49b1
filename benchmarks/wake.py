"""How long a push takes to wake a sleeping worker: from before the push to the first line of the handler.

`python -m benchmarks.wake` prints the median and spread of the blocking and the asyncio worker, and writes
`benchmarks/results/wake.json`. A worker is asleep when it blocks in BLPOP, which the server is asked before each push.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import threading
import time
from pathlib import Path
from typing import Any

import redis.asyncio

import redisq.asyncio
from redisq import PriorityQueue, Worker
from redisq.embedded import Server, binaries

from .measure import environment

RESULTS = Path(__file__).parent / "results" / "wake.json"
PUSHES = 200


def asleep(client: redis.Redis) -> bool:
    """Say whether somebody blocks on the server."""
    return bool(client.info("clients")["blocked_clients"])


def push_to_sleepers(client: redis.Redis, woken: list[float]) -> None:
    """Push, each time when the worker is asleep again."""
    queue = PriorityQueue(client, "wake")
    for number in range(PUSHES):
        while len(woken) < number or not asleep(client):
            time.sleep(0.001)
        queue.push(str(time.monotonic()))
    while len(woken) < PUSHES:
        time.sleep(0.001)


def threads(server: Server) -> list[float]:
    """Measure the blocking worker."""
    woken: list[float] = []
    with server.client() as client, server.client() as other:
        queue = PriorityQueue(other, "wake")
        worker = Worker(queue, lambda batch: woken.append(time.monotonic() - float(batch.items[0])))
        runner = threading.Thread(target=worker.run)
        runner.start()
        push_to_sleepers(client, woken)
        worker.stop()
        runner.join()
    return woken


def tasks(server: Server) -> list[float]:
    """Measure the asyncio worker."""
    woken: list[float] = []

    async def handle(batch: redisq.asyncio.Batch[str]) -> None:
        woken.append(time.monotonic() - float(batch.items[0]))

    async def run() -> None:
        async with redis.asyncio.Redis(unix_socket_path=server.socket) as client:
            worker = redisq.asyncio.Worker(redisq.asyncio.PriorityQueue(client, "wake"), handle)
            work = asyncio.create_task(worker.run())
            with server.client() as pusher:
                await asyncio.to_thread(push_to_sleepers, pusher, woken)
            worker.stop()
            await work

    asyncio.run(run())
    return woken


def main() -> None:
    """Measure, print, and write the result."""
    results: dict[str, Any] = {}
    with Server(binaries()[0]) as server:
        facts = environment(server)
        for name, measure in (("threads", threads), ("asyncio", tasks)):
            ms = sorted(seconds * 1000 for seconds in measure(server))
            figures = {"median": statistics.median(ms), "p99": ms[int(0.99 * len(ms))], "max": ms[-1]}
            results[name] = {figure: round(value, 2) for figure, value in figures.items()}
            print(f"{name}: {PUSHES} pushes, ms until the handler runs: {results[name]}")
    RESULTS.write_text(json.dumps({"environment": facts, "pushes": PUSHES, "ms": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
