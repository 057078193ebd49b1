"""Overhead: one call of each operation against the same EVALSHA sent by hand, against PING, and on the server.

`by hand` is `client.execute_command` with the command ready made, so the difference is all that redisq's Python does:
checking, building, reading the reply. The server's own time stands beside that of the native commands which an
operation replaces, and which do less.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import redis
import redis.asyncio
from redis.client import NEVER_DECODE

import redisq
import redisq.asyncio
from redisq import BYTES, Rate
from redisq.core.calls import Call
from redisq.core.flow import Pipeline
from redisq.core.scripts import load, names

from .measure import Claim, Effort, environment, interleave, private_server, significant, spread, usec_per_call


@dataclass(frozen=True)
class Queues:
    """One of each structure, on a blocking or an asyncio client."""

    buffer: Any
    priority: Any
    limiter: Any


@dataclass(frozen=True)
class Operation:
    """How an operation is called, how it is built as a value, and which native commands it replaces."""

    given: tuple[Any, ...]
    native: str
    """Commands, set apart by a semicolon."""
    built: str = ""
    """The name under which `calls` builds it, where that is another one."""
    at_once: bool = True
    """Whether `calls` takes what is given as one sequence."""


HELD, NEW, OLD = "<a batch that is held>", "<a new member>", "<a member that is there>"
ITEM = b"x" * 20
OPERATIONS = {
    "buffer.push": Operation((ITEM,), "RPUSH l xxxxxxxxxxxxxxxxxxxx"),
    "buffer.pop": Operation(("default", 1), "LPOP l 1", at_once=False),
    "buffer.pop_longest": Operation((1, 1), "ZREVRANGE z 0 0; LPOP l 1", at_once=False),
    "buffer.reserve": Operation((1,), "LMOVE l m LEFT RIGHT", at_once=False),
    "buffer.ack": Operation((HELD,), "LREM m 1 xxxxxxxxxxxxxxxxxxxx", at_once=False),
    "buffer.release": Operation((HELD,), "LMOVE m l RIGHT LEFT", at_once=False),
    "buffer.extend": Operation((HELD,), "ZADD z XX 1 m1", at_once=False),
    "priority.push": Operation((NEW, 1), "ZADD z LT 1 m1", at_once=False),
    "priority.pop": Operation((), "ZPOPMIN z", "pop_once", at_once=False),
    "priority.reserve": Operation((1,), "ZPOPMIN z; ZADD y 1 m1", at_once=False),
    "priority.ack": Operation((HELD,), "ZREM z m1", at_once=False),
    "priority.release": Operation((HELD,), "ZREM y m1; ZADD z 1 m1", at_once=False),
    "priority.extend": Operation((HELD,), "ZADD z XX 1 m1", at_once=False),
    "priority.peek": Operation((1,), "ZRANGE z 0 0 WITHSCORES", at_once=False),
    "priority.state": Operation((OLD,), "ZSCORE z m1", at_once=False),
    "priority.remove": Operation((OLD,), "ZREM z m1"),
    "limiter.acquire": Operation((1,), "INCR n; EXPIRE n 60", at_once=False),
}


def _given(name: str, about: Any) -> tuple[Any, ...]:
    fill = {HELD: about, NEW: f"new-{about}", OLD: f"m{about}"}
    return tuple(fill.get(one, one) for one in OPERATIONS[name].given)


def _build(queues: Queues, name: str, about: Any) -> Call[Any]:
    """Give the one call that an operation sends."""
    structure, _, method = name.partition(".")
    operation, given = OPERATIONS[name], _given(name, about)
    build = getattr(getattr(queues, structure).calls, operation.built or method)
    made = build(given) if operation.at_once else build(*given)
    if isinstance(made, Call):
        return made
    step = next(made)
    return step.calls[0] if isinstance(step, Pipeline) else step


def _fill(client: redis.Redis, blocking: Queues, name: str, calls: int) -> list[Any]:
    """Begin anew, and give what the calls are about: batches that are held, or numbers."""
    client.flushdb()
    pipe = client.pipeline(transaction=False)
    for script in names():
        pipe.script_load(load(script).text)
    pipe.execute()
    structure = name.partition(".")[0]
    if structure == "buffer":
        blocking.buffer.push_many([ITEM] * (2 * calls))
    elif structure == "priority":
        blocking.priority.push_many({f"m{i}": i % 1000 for i in range(2 * calls)})
    if name not in OPERATIONS or HELD not in OPERATIONS[name].given:
        return list(range(calls))
    held: list[Any] = getattr(blocking, structure).reserve_many(calls, 1, lease=3600)
    return held


@dataclass(frozen=True)
class Case:
    """One thing to measure."""

    operation: str
    flavour: str
    """blocking or asyncio"""
    by_hand: bool


@dataclass(frozen=True)
class Measurement:
    """The time of one call, in microseconds, for the caller and on the server."""

    caller: float
    server: float


def _clock(calls: list[Callable[[], Any]]) -> float:
    # The median of the calls, not their sum: one interruption of 5 ms weighs as much as fifty calls.
    times = []
    for call in calls:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


async def _clock_awaited(calls: list[Callable[[], Awaitable[Any]]]) -> float:
    times = []
    for call in calls:
        start = time.perf_counter()
        await call()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def _queues(client: Any, module: Any) -> Queues:
    return Queues(
        module.Buffer(client, "b", codec=BYTES),
        module.PriorityQueue(client, "p"),
        module.RateLimiter(client, "r", Rate(1_000_000, per=60)),
    )


def _calls(case: Case, queues: Queues, about: list[Any], client: Any) -> list[Callable[[], Any]]:
    if case.operation == "PING":
        return [client.ping for _ in about]
    if case.by_hand:
        made = [_build(queues, case.operation, one).evalsha() for one in about]
        return [partial(client.execute_command, *command, **{NEVER_DECODE: []}) for command in made]
    structure, _, method = case.operation.partition(".")
    call = getattr(getattr(queues, structure), method)
    return [partial(call, *_given(case.operation, one)) for one in about]


def _native_time(client: Any, commands: str, calls: int) -> float:
    """Give the server's time for native commands, sent one by one as the scripts are; the least of some rounds."""
    times = []
    for _ in range(10):
        client.flushdb()
        for key in ("l", "m"):
            client.rpush(key, *[ITEM] * calls)
        client.zadd("z", {f"m{i}": i for i in range(calls)})
        total = 0.0
        for command in commands.split("; "):
            client.config_resetstat()
            for _ in range(calls):
                client.execute_command(*command.split())
            total += usec_per_call(client, command.split()[0].lower())
        times.append(total)
    return min(times)


def run(effort: Effort) -> dict[str, Any]:
    """Measure every operation, blocking and asyncio."""
    calls, rounds = effort.of(60, 200), effort.of(5, 15)
    chosen = effort.of(["buffer.push", "priority.pop", "buffer.reserve"], list(OPERATIONS))
    flavours = ("blocking", "asyncio")
    cases = [Case(name, flavour, hand) for name in chosen for flavour in flavours for hand in (False, True)]
    cases += [Case("PING", flavour, True) for flavour in flavours]
    with private_server() as server, server.client() as client, contextlib.closing(asyncio.new_event_loop()) as loop:
        facts = environment(server)
        awaited_client = redis.asyncio.Redis(unix_socket_path=server.socket)
        blocking, awaited = _queues(client, redisq), _queues(awaited_client, redisq.asyncio)

        def measure(case: Case) -> Measurement:
            about = _fill(client, blocking, case.operation, calls)
            if case.flavour == "blocking":
                todo = _calls(case, blocking, about, client)
                client.config_resetstat()
                caller = _clock(todo)
            else:
                todo = _calls(case, awaited, about, awaited_client)
                client.config_resetstat()
                caller = loop.run_until_complete(_clock_awaited(todo))
            return Measurement(caller, usec_per_call(client, "ping" if case.operation == "PING" else "evalsha"))

        found = interleave(cases, rounds, measure, "overhead")
        loop.run_until_complete(awaited_client.aclose())
        native = {name: _native_time(client, OPERATIONS[name].native, calls) for name in chosen}
    rows: list[dict[str, Any]] = []
    for flavour in flavours:
        ping = found[Case("PING", flavour, True)]
        rows.append({"operation": "PING", "flavour": flavour, "us": spread([one.caller for one in ping])})
        for name in chosen:
            ours, hand = found[Case(name, flavour, False)], found[Case(name, flavour, True)]
            ratios = [a.caller / b.caller for a, b in zip(ours, hand, strict=True)]
            rows.append(
                {
                    "operation": name,
                    "flavour": flavour,
                    "us": spread([one.caller for one in ours]),
                    "by_hand_us": spread([one.caller for one in hand]),
                    "ratio": spread(ratios),
                    "ratios": [significant(ratio) for ratio in ratios],
                    "server_us": significant(min(one.server for one in [*ours, *hand])),
                    "native": OPERATIONS[name].native,
                    "native_us": significant(native[name]),
                }
            )
    return {"environment": facts, "rounds": rounds, "calls": calls, "results": rows}


def claims(result: dict[str, Any]) -> list[Claim]:
    """Say what the documentation says of this part: what redisq's Python adds to one call, at the worst operation."""
    found = []
    for flavour in ("blocking", "asyncio"):
        rows = [row for row in result["results"] if row["flavour"] == flavour and "ratio" in row]
        over_all = [statistics.median(ratios) for ratios in zip(*(row["ratios"] for row in rows), strict=True)]
        found.append(Claim(f"{flavour} call / EVALSHA by hand, median of all operations", over_all, 1.08, at_most=True))
    return found
