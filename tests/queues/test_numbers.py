"""Numbers of every type are accepted: enums, NumPy scalars, and anything with `__index__` or `__float__`."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import redisq
from redisq import BYTES, BatchData, InvalidArgument, Item, Nothing, Rate, Replicas, Retry, exponential
from redisq.core.buffer import BufferCalls
from redisq.core.calls import Call
from redisq.core.flow import Block, Pipeline
from redisq.core.limiter import LimiterCalls
from redisq.core.priority import PriorityCalls
from redisq.core.worker import Ending, Settings, WorkLoop
from tests.queues.flavours import Flavour


class Small(IntEnum):
    TWO = 2


class Index:
    """A number with `__index__` only."""

    def __index__(self) -> int:
        return 2


class Real:
    """A number with `__float__` only."""

    def __float__(self) -> float:
        return 2.0


class MisleadingInt(int):
    """An int with a misleading repr."""

    def __repr__(self) -> str:
        return "two"

    __str__ = __repr__


INTEGERS: list[Any] = [
    2,
    Small.TWO,
    Index(),
    MisleadingInt(2),
    np.int8(2),
    np.int64(2),
    np.uint64(2),
    np.intp(2),
    np.array(2),
]
REALS: list[Any] = [
    *INTEGERS,
    2.0,
    Real(),
    Decimal(2),
    Fraction(2),
    np.float16(2),
    np.float32(2),
    np.float64(2),
    np.longdouble(2),
    np.array(2.0),
]
NOT_NUMBERS: list[Any] = [
    True,
    np.True_,
    np.array(True),
    "2",
    b"2",
    np.str_("2"),
    np.bytes_(b"2"),
    2j,
    np.complex128(2),
    np.clongdouble(2),
    np.timedelta64(2, "s"),
    [2],
    (2,),
    {2},
    np.array([2]),
    np.array([2.0]),
    np.array([1, 2]),
    float("nan"),
    np.float64("nan"),
    np.float32("inf"),
    Decimal("nan"),
    Decimal("snan"),
    object(),
]
ONLY_REALS: list[Any] = [2.0, Real(), Decimal(2), Fraction(2), np.float32(2), np.float64(2), np.array(2.0)]


def kind(number: Any) -> str:
    """Return a test id for a number."""
    return f"{type(number).__name__} {repr(number).partition(' at 0x')[0]}"[:40]


def comparable(made: Any) -> Any:
    """Return what can be compared of a call: the arguments that it sends, or those of its first step."""
    step = made if isinstance(made, Call) else next(made)
    calls = step.calls if isinstance(step, Pipeline) else [step]
    return [(call.script.name, call.keys, call.args) for call in calls]


def buffer(**options: Any) -> BufferCalls[bytes]:
    return BufferCalls("q", codec=BYTES, **options)


def queue(**options: Any) -> PriorityCalls[bytes]:
    return PriorityCalls("q", codec=BYTES, **options)


def score(**options: Any) -> PriorityCalls[bytes]:
    return queue(order="score", **options)


HELD: BatchData[Any] = BatchData("l", "g", [b"a", b"b", b"c"], 1, 0, [b"a", b"b", b"c"])
FIXED: Any = {"lease_id": "l", "holder": "h"}
A_RATE = Rate(1, 1)


def failed_place(place: Any) -> dict[int, str]:
    """Mark an item by its place, and return which items are marked."""
    held: BatchData[Any] = BatchData("l", "g", [b"a", b"b", b"c"], 1, 0, [])
    held.fail_at(place)
    assert all(type(place) is int for place in held.failed)
    return held.failed


def backoff_of(backoff: Any) -> float:
    """Return the seconds for which a worker with this backoff delays a batch."""
    settings = Settings(backoff=lambda _: backoff)
    loop: WorkLoop[bytes] = WorkLoop(buffer(), settings, lambda batch: batch, Ending(settings.grace))
    return loop._delay(HELD)


def wait_of(flow: Any, reply: Any) -> float:
    """Return the seconds for which a call waits on an empty queue, rounded down to tenths."""
    next(flow)
    step = flow.send(reply)
    assert isinstance(step, Block)
    return math.ceil(step.seconds * 10) / 10


def cost_of(flow: Any) -> Any:
    """Return the cost that the limiter's wait asks for first."""
    return next(flow).args


def paused_for(call: Any, reply: Any) -> float:
    """Return the seconds for which the limiter's wait pauses before it asks again."""
    next(call)
    try:
        return call.send(reply).seconds  # type: ignore[no-any-return]
    except StopIteration as stop:
        return -stop.value.granted  # type: ignore[no-any-return]


EMPTY = [Nothing()]
Make = Callable[[Any], Any]

INTEGER_CALLS: dict[str, Make] = {
    "Buffer(min_size)": lambda n: comparable(buffer(min_size=n).reserve(**FIXED)),
    "Buffer(max_attempts)": lambda n: comparable(buffer(max_attempts=n).reserve(**FIXED)),
    "Buffer(max_attempts) for the worker": lambda n: buffer(max_attempts=n).max_attempts,
    "Buffer(max_dead)": lambda n: comparable(buffer(max_dead=n).bury(HELD)),
    "Buffer(rates)": lambda n: comparable(buffer(rates=[Rate(n, 1)]).reserve(**FIXED)),
    "Buffer.pop": lambda n: comparable(buffer().pop(size=n)),
    "Buffer.groups(limit)": lambda n: comparable(buffer().groups(n)),
    "Buffer.groups(after)": lambda n: comparable(buffer().groups(after=n)),
    "Buffer.pop_longest(groups)": lambda n: comparable(buffer().pop_longest(n)),
    "Buffer.pop_longest(size)": lambda n: comparable(buffer().pop_longest(size=n)),
    "Buffer.reserve": lambda n: comparable(buffer().reserve(n, **FIXED)),
    "Buffer.reserve(max_bytes)": lambda n: comparable(buffer().reserve(max_bytes=n, **FIXED)),
    "Buffer.reserve_many(count)": lambda n: comparable(buffer().reserve_many(n, **FIXED)),
    "Buffer.reserve_many(size)": lambda n: comparable(buffer().reserve_many(1, n, **FIXED)),
    "Buffer.reserve_many(max_bytes)": lambda n: comparable(buffer().reserve_many(1, max_bytes=n, **FIXED)),
    "Buffer.peek(count)": lambda n: comparable(buffer().peek(count=n)),
    "Buffer.peek(after)": lambda n: comparable(buffer().peek(after=n)),
    "Buffer.leased": lambda n: comparable(buffer().leased(n)),
    "Buffer.delayed": lambda n: comparable(buffer().delayed(n)),
    "Buffer.dead": lambda n: comparable(buffer().dead(n)),
    "PriorityQueue(max_attempts)": lambda n: comparable(queue(max_attempts=n).reserve(**FIXED)),
    "PriorityQueue(max_dead)": lambda n: comparable(queue(max_dead=n).bury(HELD)),
    "PriorityQueue(rates)": lambda n: comparable(queue(rates=[Rate(n, 1)]).reserve(**FIXED)),
    "PriorityQueue.pop_many": lambda n: comparable(queue().pop_many(n)),
    "PriorityQueue.reserve": lambda n: comparable(queue().reserve(n, **FIXED)),
    "PriorityQueue.reserve(max_bytes)": lambda n: comparable(queue().reserve(max_bytes=n, **FIXED)),
    "PriorityQueue.reserve_many(count)": lambda n: comparable(queue().reserve_many(n, **FIXED)),
    "PriorityQueue.reserve_many(size)": lambda n: comparable(queue().reserve_many(1, n, **FIXED)),
    "PriorityQueue.reserve_many(max_bytes)": lambda n: comparable(queue().reserve_many(1, max_bytes=n, **FIXED)),
    "PriorityQueue.peek(count)": lambda n: comparable(queue().peek(n)),
    "PriorityQueue.peek(after)": lambda n: comparable(queue().peek(after=n)),
    "PriorityQueue.leased": lambda n: comparable(queue().leased(n)),
    "PriorityQueue.delayed": lambda n: comparable(queue().delayed(n)),
    "PriorityQueue.dead": lambda n: comparable(queue().dead(n)),
    "Batch.fail_at": failed_place,
    "Rate(limit)": lambda n: Rate(n, 1),
    "RateLimiter(limit)": lambda n: comparable(LimiterCalls("q", (Rate(n, 1),)).acquire(token="t")),
    "RateLimiter.acquire": lambda n: comparable(LimiterCalls("q", (A_RATE,)).acquire(n, "t")),
    "RateLimiter.wait": lambda n: cost_of(LimiterCalls("q", (A_RATE,)).wait(n)),
    "Replicas(count)": lambda n: Replicas(n),
    "Worker(concurrency)": lambda n: Settings(concurrency=n).concurrency,
}
REAL_CALLS: dict[str, Make] = {
    "Buffer(lease)": lambda n: comparable(buffer(lease=n).reserve(**FIXED)),
    "Buffer(lease) of extend": lambda n: comparable(buffer(lease=n).extend(HELD)),
    "Buffer(max_wait)": lambda n: comparable(buffer(max_wait=n).pop_longest()),
    "Buffer(dedup_window)": lambda n: comparable(buffer(dedup_window=n).push([b"a"], token="t")),
    "Buffer.reserve(lease)": lambda n: comparable(buffer().reserve(lease=n, **FIXED)),
    "Buffer.reserve(timeout)": lambda n: wait_of(buffer().reserve_flow(timeout=n), EMPTY),
    "Buffer.reserve_many(lease)": lambda n: comparable(buffer().reserve_many(1, lease=n, **FIXED)),
    "Buffer.ack": lambda n: comparable(buffer().ack(HELD, n)),
    "Buffer.release": lambda n: comparable(buffer().release(HELD, n)),
    "Buffer.extend": lambda n: comparable(buffer().extend(HELD, n)),
    "Buffer.pause": lambda n: comparable(buffer().pause(n, token="t")),
    "Buffer.pause_group": lambda n: comparable(buffer().pause_group("g", n, "t")),
    "Buffer.audit": lambda n: comparable(buffer().audit(max_lease=n)),
    "PriorityQueue(lease)": lambda n: comparable(queue(lease=n).reserve(**FIXED)),
    "PriorityQueue(dedup_window)": lambda n: comparable(queue(dedup_window=n).push(b"a", token="t")),
    "PriorityQueue.push(delay)": lambda n: comparable(queue().push(b"a", delay=n, token="t")),
    "PriorityQueue.push_many(delay)": lambda n: comparable(queue().push_many({b"a": 1}, delay=n, token="t")),
    "PriorityQueue.pop": lambda n: wait_of(queue().pop(n), (-1, [])),
    "PriorityQueue.reserve(lease)": lambda n: comparable(queue().reserve(lease=n, **FIXED)),
    "PriorityQueue.reserve(timeout)": lambda n: wait_of(queue().reserve_flow(timeout=n), EMPTY),
    "PriorityQueue.reserve_many(lease)": lambda n: comparable(queue().reserve_many(1, lease=n, **FIXED)),
    "PriorityQueue.ack": lambda n: comparable(queue().ack(HELD, n)),
    "PriorityQueue.release": lambda n: comparable(queue().release(HELD, n)),
    "PriorityQueue.extend": lambda n: comparable(queue().extend(HELD, n)),
    "PriorityQueue.pause": lambda n: comparable(queue().pause(n, token="t")),
    "PriorityQueue.audit": lambda n: comparable(queue().audit(max_lease=n)),
    "Rate(per)": lambda n: comparable(LimiterCalls("q", (Rate(1, n),)).acquire(token="t")),
    "RateLimiter(dedup_window)": lambda n: comparable(LimiterCalls("q", (A_RATE,), dedup_window=n).acquire(token="t")),
    "RateLimiter.wait(timeout)": lambda n: paused_for(LimiterCalls("q", (A_RATE,)).wait(5, n), redisq.Grant(1, 1.5)),
    "RateLimiter.wait(a shorter timeout)": lambda n: paused_for(
        LimiterCalls("q", (A_RATE,)).wait(5, n), redisq.Grant(1, 2.5)
    ),
    "Replicas(timeout)": lambda n: Replicas(timeout=n),
    "Retry": lambda n: Retry(n).delay,
    "Worker(grace)": lambda n: Settings(grace=n).grace,
    "Worker(backoff)": lambda n: backoff_of(n),
}
PRIORITIES: dict[str, Make] = {
    "push": lambda n: comparable(queue().push(b"a", n, token="t")),
    "push in score order": lambda n: comparable(score().push(b"a", n, token="t")),
    "push_many of a mapping": lambda n: comparable(queue().push_many({b"a": n}, token="t")),
    "push_many of a mapping in score order": lambda n: comparable(score().push_many({b"a": n}, token="t")),
    "push_many of pairs": lambda n: comparable(queue().push_many([(b"a", n)], token="t")),
    "push_many of triples in score order": lambda n: comparable(score().push_many([(b"a", n, 1)], token="t")),
}


@pytest.mark.parametrize("call", [pytest.param(call, id=name) for name, call in INTEGER_CALLS.items()])
def test_integers_of_any_type_are_equivalent(call: Make) -> None:
    """The calls send the same."""
    expected = call(2)
    for number in INTEGERS:
        assert call(number) == expected, kind(number)


@pytest.mark.parametrize("call", [pytest.param(call, id=name) for name, call in (REAL_CALLS | PRIORITIES).items()])
def test_numbers_of_any_type_are_equivalent(call: Make) -> None:
    """As seconds and as a priority, in fifo order only if it is whole."""
    expected = call(2)
    for number in REALS:
        assert call(number) == expected, kind(number)


@pytest.mark.parametrize("call", [pytest.param(call, id=name) for name, call in INTEGER_CALLS.items()])
def test_values_that_are_not_integers_are_refused(call: Make) -> None:
    """Bools of Python and NumPy, text, arrays, and fractions, even whole ones."""
    for bad in NOT_NUMBERS + ONLY_REALS:
        with pytest.raises(InvalidArgument):
            call(bad)


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(call, id=name)
        for name, call in (REAL_CALLS | PRIORITIES).items()
        if name != "Worker(backoff)"  # an invalid backoff is replaced by the default
    ],
)
def test_values_that_are_not_numbers_are_refused(call: Make) -> None:
    for bad in NOT_NUMBERS:
        with pytest.raises(InvalidArgument):
            call(bad)


@pytest.mark.parametrize("bad", [*NOT_NUMBERS, np.array([2.0, 3.0]), -1, np.float64(-1)], ids=kind)
def test_a_backoff_that_is_not_a_number_is_replaced_by_the_default(bad: Any) -> None:
    """The worker must not end because of it."""
    assert 0.5 <= backoff_of(bad) <= 1


@pytest.mark.parametrize("number", REALS, ids=kind)
def test_the_default_backoff_accepts_numbers_of_any_type(number: Any) -> None:
    """2 seconds at first, doubled each time, 2 seconds at most."""
    for backoff, most in (
        (exponential(number, 100, number), 16),
        (exponential(1, number, 2), 2),
        (exponential(first=number, most=number, factor=number), 2),
    ):
        assert all(most / 2 <= backoff(4) <= most for _ in range(20))
        assert type(backoff(10**6)) is float


@pytest.mark.parametrize("bad", [*NOT_NUMBERS, -1, 10**400], ids=kind)
def test_a_default_backoff_with_invalid_arguments_is_refused(bad: Any) -> None:
    """When it is created, not when a handler fails."""
    for options in ({"first": bad}, {"most": bad}, {"factor": bad}):
        with pytest.raises(InvalidArgument, match=next(iter(options))):
            exponential(**options)
    with pytest.raises(InvalidArgument, match="factor"):
        exponential(factor=10**6)


@pytest.mark.parametrize("flag", [True, False, np.True_, np.False_, np.array(True)], ids=kind)
def test_a_numpy_bool_is_a_bool(flag: Any) -> None:
    plain = bool(flag)
    calls: list[Make] = [
        lambda yes: comparable(buffer(ordered=yes).reserve(**FIXED)),
        lambda yes: comparable(buffer(isolate=yes).reserve(**FIXED)),
        lambda yes: comparable(buffer().release(HELD, count=yes)),
        lambda yes: comparable(queue().release(HELD, count=yes)),
        lambda yes: comparable(queue().push(b"a", replace=yes, token="t")),
    ]
    for call in calls:
        assert call(flag) == call(plain)
    assert Retry(count=bool(flag)).count is plain


@pytest.mark.parametrize("flag", [np.True_, np.False_], ids=kind)
def test_a_retry_accepts_a_numpy_bool(flag: Any) -> None:
    assert Retry(count=flag).count is bool(flag)


@pytest.mark.parametrize("bad", [0, 1, 1.0, np.int64(1), np.float64(1), "True", None, np.array([True])], ids=kind)
def test_a_number_is_not_a_bool(bad: Any) -> None:
    for call in (
        lambda no: buffer(ordered=no),
        lambda no: buffer(isolate=no),
        lambda no: buffer().release(HELD, count=no),
        lambda no: queue().release(HELD, count=no),
        lambda no: queue().push(b"a", replace=no),
        lambda no: Retry(count=no),
    ):
        with pytest.raises(InvalidArgument):
            call(bad)


@pytest.mark.parametrize("number", [0.1, 1.5, 1e-3, 1e300, -0.5, 2**53 + 1, 1 / 3], ids=str)
def test_a_score_keeps_its_exact_value(flavour: Flavour, number: float) -> None:
    """The nearest double, also of a NumPy number."""
    do, one = flavour.do, flavour.queue(order="score")
    for priority in (number, np.float64(number), Decimal(number)):
        do(one.push("a", priority))
        assert do(one.pop()) == Item("a", float(number), 1)
    do(one.push("a", np.float32(0.1)))
    assert do(one.pop()).priority == float(np.float32(0.1)) != 0.1


def test_numpy_numbers_end_to_end(flavour: Flavour) -> None:
    """With a server, from the settings to the results."""
    numbers: tuple[Any, Any, Any] = np.int64(2), np.uint8(3), np.float32(1000)
    two, three, thousand = numbers
    do = flavour.do
    made = flavour.buffer("b", min_size=two, max_wait=thousand, max_attempts=two, max_dead=three, lease=thousand)
    do(made.push(*np.arange(8), group="g"))
    first, second = do(made.reserve_many(two, three, max_bytes=np.int32(5)))
    assert (first.items, second.items) == ([0, 1, 2], [3, 4, 5])
    first.fail_at(two)
    first.fail(np.int64(1))
    assert do(first.ack(delay=thousand)) == 1
    do(second.extend(np.float64(2000)))
    assert do(second.release(delay=np.float16(0), count=np.False_)) == 3
    assert do(made.pop("g", two)) == [6, 7]
    assert [batch.items for batch in do(made.delayed(np.int16(5)))] == [[3, 4, 5], [1, 2]]
    do(made.pause(thousand))
    assert do(made.reserve(timeout=np.float32(0.01))) is None
    assert do(made.resume())

    one = flavour.queue("p")
    do(one.push_many({"a": np.int64(3), "b": np.float64(1), "c": Small.TWO}))
    do(one.push("d", np.int8(-5), payload={"n": np.float64(0.5), "m": [np.int64(1)]}))
    assert do(one.peek(np.int64(9), after=np.int64(1)))[0] == Item("b", 1, 0)
    assert do(one.pop_many(np.int64(1))) == [Item("d", -5, 1, {"n": 0.5, "m": [1]})]
    assert do(flavour.library.RateLimiter(flavour.client, "l", Rate(three, per=thousand)).acquire(np.int64(5))) == (
        3,
        pytest.approx(1000, abs=5),
    )
