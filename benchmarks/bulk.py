"""Throughput in bulk: 1 to 3,000 items a call, against the raw commands with the same bytes; many tasks on one client.

`push` and `pop` stand beside RPUSH and LPOP with a count, `reserve and ack` beside what a careful hand would write:
take a batch, keep a copy aside, delete the copy. Raw commands keep no counters, remember nothing and wake nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import redis
import redis.asyncio

import redisq.asyncio
from redisq import BYTES, JSON, Buffer, PriorityQueue

from .measure import Claim, Effort, environment, interleave, private_server, significant, spread

SIZES = (1, 10, 100, 1_000, 3_000)
CODECS: dict[str, Any] = {"bytes": BYTES, "JSON": JSON, "msgspec": msgspec.json}
ITEM = {"id": 123456, "kind": "like", "tags": ["a", "b"]}
TASKS = 1_000


@dataclass(frozen=True)
class Case:
    """One thing to measure."""

    operation: str
    contender: str
    size: int


def _items(codec: str, size: int) -> list[Any]:
    return [JSON.encode(ITEM) if codec == "bytes" else ITEM] * size


def _buffer_calls(client: redis.Redis, codec: str, size: int) -> dict[str, Callable[[], Any]]:
    buffer: Buffer[Any] = Buffer(client, "bulk", codec=CODECS[codec])
    items = _items(codec, size)

    def reserve_and_ack() -> None:
        batch = buffer.reserve(size)
        assert batch
        batch.ack()

    return {
        "push": lambda: buffer.push(*items),
        "pop": lambda: buffer.pop(size=size),
        "reserve and ack": reserve_and_ack,
    }


def _raw_calls(client: redis.Redis, size: int) -> dict[str, Callable[[], Any]]:
    items = _items("bytes", size)

    def move_and_delete() -> None:
        with client.pipeline() as pipe:
            pipe.lrange("raw", 0, size - 1)
            pipe.ltrim("raw", size, -1)
            batch: Any = pipe.execute()[0]
        client.rpush("raw:held", *batch)
        client.delete("raw:held")

    return {
        "push": lambda: client.rpush("raw", *items),
        "pop": lambda: client.lpop("raw", size),
        "reserve and ack": move_and_delete,
    }


def _priority_calls(client: redis.Redis, size: int) -> dict[str, Callable[[], Any]]:
    queue = PriorityQueue(client, "bulk")
    members = [(f"member-{i}", i % 1000) for i in range(size)]

    def reserve_and_ack() -> None:
        batch = queue.reserve(size)
        assert batch
        batch.ack()

    return {
        "push": lambda: queue.push_many(members),
        "pop": lambda: queue.pop_many(size),
        "reserve and ack": reserve_and_ack,
    }


def _zset_calls(client: redis.Redis, size: int) -> dict[str, Callable[[], Any]]:
    members: Any = {f"member-{i}": i % 1000 for i in range(size)}

    def move_and_delete() -> None:
        with client.pipeline() as pipe:
            pipe.zpopmin("rawz", size)
            popped: Any = pipe.execute()[0]
        client.zadd("rawz:held", dict(popped))
        client.delete("rawz:held")

    return {
        "push": lambda: client.zadd("rawz", members, lt=True),
        "pop": lambda: client.zpopmin("rawz", size),
        "reserve and ack": move_and_delete,
    }


CONTENDERS: dict[str, Callable[[redis.Redis, int], dict[str, Callable[[], Any]]]] = {
    "buffer, bytes": lambda client, size: _buffer_calls(client, "bytes", size),
    "buffer, JSON": lambda client, size: _buffer_calls(client, "JSON", size),
    "buffer, msgspec": lambda client, size: _buffer_calls(client, "msgspec", size),
    "raw list": _raw_calls,
    "priority": _priority_calls,
    "raw sorted set": _zset_calls,
}
RAW = {"priority": "raw sorted set"}
MOST = {"push": 1_000, "pop": 1_000, "reserve and ack": 100}
"""Members of a sorted set that a call takes, of the sizes here."""


def _measure(case: Case, client: redis.Redis, seconds: float) -> float:
    """Repeat the call on what is there for it, and give items a second; only the call itself is on the clock."""
    calls = CONTENDERS[case.contender](client, case.size)
    client.flushdb()
    spent, done = 0.0, 0
    start = time.perf_counter()
    while time.perf_counter() < start + seconds or done < 3:
        if case.operation != "push":
            calls["push"]()
        before = time.perf_counter()
        calls[case.operation]()
        spent += time.perf_counter() - before
        done += 1
        if case.operation == "push":
            client.unlink("raw", "rawz", "redisq:{bulk}:items:default", "redisq:{bulk}:ready")
    return done * case.size / spent


def _tasks(socket: str, loop: asyncio.AbstractEventLoop, contender: str) -> float:
    """Push from many tasks on one client, or the same from one pipeline by hand; give items a second."""

    async def work() -> float:
        async with redis.asyncio.Redis(unix_socket_path=socket, max_connections=50) as client:
            pool: Any = redis.asyncio.BlockingConnectionPool.from_url(f"unix://{socket}", max_connections=20)
            async with redis.asyncio.Redis(connection_pool=pool) as shared:
                buffer = redisq.asyncio.Buffer(shared, "tasks", codec=BYTES)
                await client.flushdb()
                await buffer.push(b"x")
                start = time.perf_counter()
                if contender == "tasks":
                    await asyncio.gather(*[buffer.push(b"x" * 20) for _ in range(TASKS)])
                elif contender == "pipeline, redisq":
                    pipe = client.pipeline(transaction=False)
                    for _ in range(TASKS):
                        pipe.execute_command(*buffer.calls.push([b"x" * 20]).evalsha())
                    await pipe.execute()
                elif contender == "push_many":
                    await buffer.push_many([b"x" * 20] * TASKS)
                else:
                    pipe = client.pipeline(transaction=False)
                    for _ in range(TASKS):
                        pipe.rpush("raw", b"x" * 20)
                    await pipe.execute()
                elapsed = time.perf_counter() - start
            await pool.aclose()
        return TASKS / elapsed

    return loop.run_until_complete(work())


MANY = ("tasks", "pipeline, redisq", "push_many", "pipeline by hand, RPUSH")


def run(effort: Effort) -> dict[str, Any]:
    """Measure each operation of each contender at each size."""
    sizes = effort.of((1_000,), SIZES)
    contenders = effort.of(("buffer, bytes", "raw list"), tuple(CONTENDERS))
    cases = [
        Case(operation, contender, size)
        for operation in ("push", "pop", "reserve and ack")
        for contender in contenders
        for size in sizes
        if size <= MOST[operation] or contender not in ("priority", "raw sorted set")
    ]
    rounds, seconds = effort.of(5, 7), effort.of(0.05, 0.15)
    with private_server() as server, server.client() as client:
        facts = environment(server)
        found = interleave(cases, rounds, lambda case: _measure(case, client, seconds), "bulk")
        with contextlib.closing(asyncio.new_event_loop()) as loop:
            many = interleave(MANY, rounds, lambda name: _tasks(server.socket, loop, name), "many tasks")
    rows: list[dict[str, Any]] = []
    for case, rates in found.items():
        raw = (
            found[Case(case.operation, RAW.get(case.contender, "raw list"), case.size)]
            if "raw" not in case.contender
            else rates
        )
        rows.append(
            {
                "operation": case.operation,
                "contender": case.contender,
                "size": case.size,
                "items_per_second": spread(rates),
                "of_raw": spread([mine / other for mine, other in zip(rates, raw, strict=True)]),
                "rounds_per_second": [significant(rate) for rate in rates],
            }
        )
    tasks = [{"contender": name, "items_per_second": spread(rates)} for name, rates in many.items()]
    return {"environment": facts, "rounds": rounds, "seconds": seconds, "results": rows, "tasks": tasks}


def claims(result: dict[str, Any]) -> list[Claim]:
    """Say what the documentation says of this part: 1,000 items a call against the raw commands."""
    rates = {(r["operation"], r["contender"], r["size"]): r["rounds_per_second"] for r in result["results"]}
    return [
        Claim.ratio(
            f"{operation} of 1,000 items: buffer / raw list",
            rates[operation, "buffer, bytes", 1_000],
            rates[operation, "raw list", 1_000],
            None,
        )
        for operation in ("push", "pop", "reserve and ack")
    ]
