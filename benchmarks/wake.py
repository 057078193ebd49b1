"""How long a push takes to wake a sleeping worker: from before the push to the first line of the handler.

A worker is asleep when it blocks in BLPOP, which the server is asked before each push.
"""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from typing import Any

import redis.asyncio

import redisq.asyncio
from redisq import PriorityQueue, Worker
from redisq.embedded import Server

from .measure import Claim, Effort, environment, percentile, private_server, significant


def asleep(client: redis.Redis) -> bool:
    """Say whether somebody blocks on the server."""
    return bool(client.info("clients")["blocked_clients"])


def push_to_sleepers(client: redis.Redis, woken: list[float], pushes: int) -> None:
    """Push, each time when the worker is asleep again."""
    queue = PriorityQueue(client, "wake")
    for number in range(pushes):
        while len(woken) < number or not asleep(client):
            time.sleep(0.001)
        queue.push(str(time.monotonic()))
    while len(woken) < pushes:
        time.sleep(0.001)


def threads(server: Server, pushes: int) -> list[float]:
    """Measure the blocking worker."""
    woken: list[float] = []
    with server.client() as client, server.client() as other:
        queue = PriorityQueue(other, "wake")
        worker = Worker(queue, lambda batch: woken.append(time.monotonic() - float(batch.items[0])))
        runner = threading.Thread(target=worker.run)
        runner.start()
        push_to_sleepers(client, woken, pushes)
        worker.stop()
        runner.join()
    return woken


def tasks(server: Server, pushes: int) -> list[float]:
    """Measure the asyncio worker."""
    woken: list[float] = []

    async def handle(batch: redisq.asyncio.Batch[str]) -> None:
        woken.append(time.monotonic() - float(batch.items[0]))

    async def run() -> None:
        async with redis.asyncio.Redis(unix_socket_path=server.socket) as client:
            worker = redisq.asyncio.Worker(redisq.asyncio.PriorityQueue(client, "wake"), handle)
            work = asyncio.create_task(worker.run())
            with server.client() as pusher:
                await asyncio.to_thread(push_to_sleepers, pusher, woken, pushes)
            worker.stop()
            await work

    asyncio.run(run())
    return woken


def run(effort: Effort) -> dict[str, Any]:
    """Measure both kinds of worker."""
    pushes = effort.of(30, 200)
    results: dict[str, Any] = {}
    with private_server() as server:
        facts = environment(server)
        for name, measure in (("threads", threads), ("asyncio", tasks)):
            ms = sorted(seconds * 1000 for seconds in measure(server, pushes))
            figures = {"median": statistics.median(ms), "p99": percentile(ms, 99), "max": ms[-1]}
            results[name] = {figure: significant(value) for figure, value in figures.items()}
    return {"environment": facts, "pushes": pushes, "ms": results}


def claims(result: dict[str, Any]) -> list[Claim]:
    """Say what the documentation says of this part: milliseconds, not seconds."""
    return [
        Claim(f"ms from a push to a sleeping worker's handler, {name}", [figures["median"]], 10, at_most=True)
        for name, figures in result["ms"].items()
    ]
