"""Workers at one item a batch, and asyncio pushes by many tasks; side by side in one run.

The control of the workers is how layout 1's fetched and settled (`previous`), on today's scripts. The control of the
pushes is the same EVALSHA by hand, one call at a time a task, and a pipeline by hand.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import redis
import redis.asyncio
from redis.client import NEVER_DECODE

from redisq import PriorityQueue, Worker
from redisq.asyncio import Buffer as AsyncBuffer
from redisq.asyncio import PriorityQueue as AsyncPriorityQueue
from redisq.asyncio import Worker as AsyncWorker
from redisq.core.scripts import load, names
from redisq.embedded import Server

from ..latency_proxy import delayed
from ..measure import Claim, Effort, environment, interleave, private_server, significant, spread
from . import previous

DELAY = 0.001  # seconds that the proxy adds to a round trip
CONCURRENCY = (1, 10, 50)
TASKS = (1, 10, 100)
PIPELINE = 200  # calls in a pipeline by hand
TARGETS = {"1 ms away": {1: 1.8, 10: 2.2, 50: 2.0}, "loopback": {1: 1.7, 10: 1.8, 50: 2.0}}


@dataclass(frozen=True)
class Case:
    """One thing to measure."""

    what: str
    """worker or push"""
    flavour: str
    contender: str
    count: int
    """handlers or tasks at a time"""
    line: str


def _items(case: Case, effort: Effort) -> int:
    full = {1: 800, 10: 3000, 50: 4000, 100: 6000}[case.count]
    return full // effort.of(4, 1)


async def _work_asyncio(case: Case, client: redis.asyncio.Redis, items: int) -> float:
    queue: AsyncPriorityQueue[str] = AsyncPriorityQueue(client, "bench")
    done, began = 0, 0.0

    async def handle(_: Any) -> None:
        nonlocal done, began
        began = began or time.perf_counter()
        done += 1
        if done == items:
            worker.stop()

    worker: Any
    if case.contender == "redisq":
        worker = AsyncWorker(queue, handle, concurrency=case.count, signals=False)
    else:
        worker = previous.AsyncWorker(client, queue, handle, case.count)
    await worker.run()
    return items / (time.perf_counter() - began)


def _work_threads(case: Case, client: redis.Redis, items: int) -> float:
    queue: PriorityQueue[str] = PriorityQueue(client, "bench")
    done, began = 0, 0.0

    def handle(_: Any) -> None:
        nonlocal done, began
        began = began or time.perf_counter()
        done += 1  # handlers run under one interpreter lock: at most the last few are counted late
        if done == items:
            worker.stop()

    worker: Any
    if case.contender == "redisq":
        worker = Worker(queue, handle, concurrency=case.count, signals=False)
    else:
        worker = previous.Worker(client, queue, handle, case.count)
    worker.run()
    return items / (time.perf_counter() - began)


async def _push(case: Case, client: redis.asyncio.Redis, items: int) -> float:
    buffer: AsyncBuffer[Any] = AsyncBuffer(client, "bench")
    item = {"a": "user-000123"}
    await buffer.push(item)  # the server knows the script

    async def by_queue() -> None:
        await buffer.push(item, group="g")

    async def by_hand() -> None:
        command = buffer.calls.push([item], "g").evalsha()
        await client.execute_command(*command, **{NEVER_DECODE: []})  # type: ignore[no-untyped-call]

    async def by_pipeline() -> None:
        async with client.pipeline(transaction=False) as pipe:
            for _ in range(PIPELINE):
                pipe.execute_command(*buffer.calls.push([item], "g").evalsha(), **{NEVER_DECODE: []})
            await pipe.execute()

    ways: dict[str, tuple[Callable[[], Awaitable[None]], int]] = {
        "redisq": (by_queue, 1),
        "by hand": (by_hand, 1),
        "pipeline by hand": (by_pipeline, PIPELINE),
    }
    way, each = ways[case.contender]
    rounds = items // case.count // each if each == 1 else items // each

    async def task() -> None:
        for _ in range(rounds):
            await way()

    tasks = case.count if each == 1 else 1
    began = time.perf_counter()
    await asyncio.gather(*(task() for _ in range(tasks)))
    return tasks * rounds * each / (time.perf_counter() - began)


def _measure(case: Case, server: Server, socket: str, effort: Effort) -> float:
    items = _items(case, effort)
    with server.client() as filler:
        filler.flushdb()
        for script in names():  # what is measured is not how each contender finds that the server does not know one
            filler.script_load(load(script).text)
        if case.what == "worker":
            PriorityQueue(filler, "bench").push_many({f"m{number}": 1 for number in range(items)})
    if case.flavour == "blocking":
        with redis.Redis(unix_socket_path=socket) as client:
            return _work_threads(case, client, items)

    async def run() -> float:
        async with redis.asyncio.Redis(unix_socket_path=socket) as client:
            return await (_work_asyncio if case.what == "worker" else _push)(case, client, items)

    return asyncio.run(run())


def _hand_over(_: str) -> float:
    """Give the microseconds that it takes to hand something to another thread, and to get it back."""
    there: SimpleQueue[int | None] = SimpleQueue()
    back: SimpleQueue[int] = SimpleQueue()

    def other() -> None:
        while (one := there.get()) is not None:
            back.put(one)

    thread = threading.Thread(target=other)
    thread.start()
    count = 5_000
    began = time.perf_counter()
    for number in range(count):
        there.put(number)
        back.get(timeout=1)
    elapsed = time.perf_counter() - began
    there.put(None)
    thread.join()
    return elapsed / count * 1e6


def _line(server: Server, effort: Effort, line: str, socket: str) -> list[dict[str, Any]]:
    cases = [
        Case("worker", flavour, contender, count, line)
        for flavour in ("asyncio", "blocking")
        for contender in ("redisq", "previous")
        for count in CONCURRENCY
    ]
    if line == "loopback":
        cases += [
            Case("push", "asyncio", contender, count, line) for contender in ("redisq", "by hand") for count in TASKS
        ]
        cases.append(Case("push", "asyncio", "pipeline by hand", TASKS[-1], line))
    found = interleave(cases, effort.of(2, 5), lambda case: _measure(case, server, socket, effort), f"worker, {line}")
    return [
        {
            "what": case.what,
            "flavour": case.flavour,
            "contender": case.contender,
            "count": case.count,
            "line": case.line,
            "per_second": spread(rates),
            "rounds_per_second": [significant(rate, 4) for rate in rates],
        }
        for case, rates in found.items()
    ]


def run(effort: Effort) -> dict[str, Any]:
    """Measure on a unix socket, and through a proxy that adds a ms."""
    with private_server() as server:
        facts = environment(server)
        rows = _line(server, effort, "loopback", server.socket)
        with delayed(server.socket, DELAY) as socket:
            rows += _line(server, effort, "1 ms away", socket)
    handed_over = interleave(("there and back",), effort.of(2, 5), _hand_over, "two threads")["there and back"]
    return {"environment": facts, "results": rows, "hand_over_us": [significant(one) for one in handed_over]}


def claims(result: dict[str, Any]) -> list[Claim]:
    """Say what the documentation says of this part."""
    rates = {
        (row["what"], row["flavour"], row["contender"], row["count"], row["line"]): row["rounds_per_second"]
        for row in result["results"]
    }
    found = []
    for line, targets in TARGETS.items():
        for flavour in ("asyncio", "blocking"):
            for count, target in targets.items():
                ours, theirs = (rates["worker", flavour, who, count, line] for who in ("redisq", "previous"))
                found.append(
                    Claim.ratio(f"{flavour} worker, {line}, concurrency {count}: now / before", ours, theirs, target)
                )
    for count, target in ((1, 0.92), (10, 1.5), (100, 2.5)):
        ours, theirs = (rates["push", "asyncio", who, count, "loopback"] for who in ("redisq", "by hand"))
        found.append(Claim.ratio(f"asyncio pushes by {count} tasks: redisq / EVALSHA by hand", ours, theirs, target))
    ours = rates["push", "asyncio", "redisq", TASKS[-1], "loopback"]
    theirs = rates["push", "asyncio", "pipeline by hand", TASKS[-1], "loopback"]
    found.append(Claim.ratio("asyncio pushes by 100 tasks: redisq / a pipeline by hand", ours, theirs, 0.8))
    found.append(Claim("µs from one thread to another and back, as in a blocking worker", result["hand_over_us"], None))
    return found
