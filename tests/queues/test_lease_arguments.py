"""Invalid arguments of the calls that reserve, settle and list: named in the error, and nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis
import redis.asyncio

import redisq.asyncio
from redisq import BatchData, Buffer, InvalidArgument, PriorityQueue, Rate
from redisq.core.buffer import MAX_ITEMS
from redisq.core.priority import MAX_LEASED

NAN, INF = float("nan"), float("inf")
NOT_INTEGERS = [0, -1, 1.0, 1.5, "1", None, True, NAN, 10**12]
NOT_SECONDS = [-1, NAN, INF, "1", True, 10**9]
NO_SECONDS = [0, 0.0004, None, *NOT_SECONDS]
NOT_RATES = [Rate(1, 1), 5, None, "1/s", [5], [(1, 1)], {Rate(1, 1)}]
SOME_NUMBER = [x for x in NOT_INTEGERS if x is not None]
HELD: BatchData[Any] = BatchData("l", "g", ["a"], 1, 0, [b"a"])
NOT_NAMED: BatchData[Any] = BatchData("", "g", ["a"], 1, 0, [b"a"])
Call = Callable[[Any, Any], object]
BOTH: list[tuple[str, list[Any], Call]] = [
    ("size", NOT_INTEGERS, lambda q, bad: q.reserve(bad)),
    ("size of many", NOT_INTEGERS, lambda q, bad: q.reserve_many(2, bad)),
    ("count", NOT_INTEGERS, lambda q, bad: q.reserve_many(bad)),
    ("lease", [0, 0.0004, *NOT_SECONDS], lambda q, bad: q.reserve(lease=bad)),
    ("lease of many", [0, 0.0004, *NOT_SECONDS], lambda q, bad: q.reserve_many(2, lease=bad)),
    ("timeout", [None, *NOT_SECONDS], lambda q, bad: q.reserve(timeout=bad)),
    ("lease_id", ["", "\ud800", 5, b"l"], lambda q, bad: q.reserve(lease_id=bad)),
    ("lease_id of many", ["", "\ud800", 5, b"l"], lambda q, bad: q.reserve_many(2, lease_id=bad)),
    ("delay of ack", [None, *NOT_SECONDS], lambda q, bad: q.ack(HELD, delay=bad)),
    ("delay of release", [None, *NOT_SECONDS], lambda q, bad: q.release(HELD, delay=bad)),
    ("lease of extend", [0, 0.0004, *NOT_SECONDS], lambda q, bad: q.extend(HELD, lease=bad)),
    ("id of ack", [""], lambda q, _: q.ack(NOT_NAMED)),
    ("id of release", [""], lambda q, _: q.release(NOT_NAMED)),
    ("id of extend", [""], lambda q, _: q.extend(NOT_NAMED)),
    ("id of bury", [""], lambda q, _: q.bury(NOT_NAMED)),
    ("max_bytes", SOME_NUMBER, lambda q, bad: q.reserve(max_bytes=bad)),
    ("max_bytes of many", SOME_NUMBER, lambda q, bad: q.reserve_many(2, max_bytes=bad)),
    ("holder", ["", "\ud800", 5, b"h"], lambda q, bad: q.reserve(holder=bad)),
    ("holder of many", ["", "\ud800", 5, b"h"], lambda q, bad: q.reserve_many(2, holder=bad)),
    ("limit of leased", NOT_INTEGERS, lambda q, bad: q.leased(bad)),
    ("limit of delayed", NOT_INTEGERS, lambda q, bad: q.delayed(bad)),
    ("limit of dead", NOT_INTEGERS, lambda q, bad: q.dead(bad)),
    ("after of leased", ["", "\ud800", 5, b"l"], lambda q, bad: q.leased(after=bad)),
]
MAKING: list[tuple[str, list[Any], Call]] = [
    ("lease", NO_SECONDS, lambda make, bad: make(lease=bad)),
    ("max_attempts", SOME_NUMBER, lambda make, bad: make(max_attempts=bad)),
    ("rates", NOT_RATES, lambda make, bad: make(rates=bad)),
]
BUFFER: list[tuple[str, list[Any], Call]] = [
    ("size", [MAX_ITEMS + 1], lambda c, bad: Buffer(c, "q").reserve(bad)),
    ("min_size", NOT_INTEGERS, lambda c, bad: Buffer(c, "q", min_size=bad)),
    ("max_wait", [x for x in NO_SECONDS if x is not None], lambda c, bad: Buffer(c, "q", max_wait=bad)),
    ("max_wait with min_size", [None], lambda c, bad: Buffer(c, "q", min_size=2, max_wait=bad)),
    ("after", ["", 5, b"l"], lambda c, bad: Buffer(c, "q").dead(after=bad)),
    ("redrive", ["", 5, None], lambda c, bad: Buffer(c, "q").redrive("a", bad)),
    ("discard", ["", 5, None], lambda c, bad: Buffer(c, "q").discard("a", bad)),
    ("redrive of many", [1001], lambda c, bad: Buffer(c, "q").redrive(*["a"] * bad)),
    ("discard of many", [1001], lambda c, bad: Buffer(c, "q").discard(*["a"] * bad)),
]
PRIORITY: list[tuple[str, list[Any], Call]] = [
    ("size", [MAX_LEASED + 1], lambda c, bad: PriorityQueue(c, "q").reserve(bad)),
    ("timeout of pop", [None, *NOT_SECONDS], lambda c, bad: PriorityQueue(c, "q").pop(bad)),
    ("redrive of many", [1001], lambda c, bad: PriorityQueue(c, "q").redrive(*["a"] * bad)),
    ("discard of many", [1001], lambda c, bad: PriorityQueue(c, "q").discard(*["a"] * bad)),
]


def on_queue(kind: Any, call: Call) -> Call:
    """Return a function that makes a call on a queue of a given client."""
    return lambda client, bad: call(kind(client, "q"), bad)


def on_constructor(kind: Any, call: Call) -> Call:
    """Return a function that constructs a queue on a given client."""
    return lambda client, bad: call(lambda **options: kind(client, "q", **options), bad)


CASES = [
    pytest.param(call, bad, id=f"{kind.__name__} {what}-{bad!r}")
    for kind, own in ((Buffer, BUFFER), (PriorityQueue, PRIORITY))
    for what, values, call in (
        *((what, values, on_queue(kind, call)) for what, values, call in BOTH),
        *((f"made with {what}", values, on_constructor(kind, call)) for what, values, call in MAKING),
        *own,
    )
    for bad in values
]


@pytest.mark.parametrize(("call", "bad"), CASES)
def test_an_invalid_argument_is_named_and_nothing_is_written(client: redis.Redis, call: Call, bad: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        call(client, bad)
    assert repr(bad) in str(caught.value)
    assert client.dbsize() == 0


async def test_an_invalid_argument_is_named_by_asyncio(aclient: redis.asyncio.Redis) -> None:
    for queue in (redisq.asyncio.Buffer[str](aclient, "q"), redisq.asyncio.PriorityQueue[str](aclient, "q")):
        calls: dict[str, Any] = {
            "size is 0": queue.reserve(0),
            "lease is nan": queue.reserve(lease=NAN),
            "timeout is -1": queue.reserve(timeout=-1),
            "count is True": queue.reserve_many(True),
            "lease_id is ''": queue.reserve(lease_id=""),
            "delay is -2": queue.release(HELD, delay=-2),
            "limit is 0": queue.dead(0),
        }
        for message, call in calls.items():
            with pytest.raises(InvalidArgument, match=message):
                await call
    assert await aclient.dbsize() == 0
