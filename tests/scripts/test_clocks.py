"""The server's clock is ahead for hours and then corrected, or set back; and the times in replies are right.

Each call is given its time, so that hours pass at once.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from itertools import count
from typing import Any

import pytest

from redisq import BYTES, BatchData, Nothing, Rate
from redisq.core.batch import batch_of
from redisq.core.buffer import BufferCalls
from redisq.core.limiter import Grant, LimiterCalls
from redisq.core.priority import PriorityCalls
from tests.queues.structures import STRUCTURES
from tests.scripts.backends import Backend

NOW = 1_700_000_000_000
HOUR = 3_600_000
RATES = (Rate(3, per=1), Rate(5, per=60), Rate(7, per=300))
LONGEST = 300_000
JUMPS = [1, 1000, 30_000, LONGEST, HOUR, 5 * HOUR, 24 * HOUR * 365]


@pytest.fixture
def server(backend: str) -> Iterator[Backend]:
    """Return a server whose calls are given their time."""
    made = Backend(backend, "blocking")
    yield made
    made.close()


class Limiter:
    """A limiter, or a queue with the same rates: how much is granted, and when there is more."""

    def __init__(self, server: Backend, kind: str) -> None:
        self.server = server
        self.kind = kind
        self.numbers = count()
        self.limiter = LimiterCalls("q", RATES)
        self.buffer = BufferCalls("q", codec=BYTES, rates=RATES, lease=10**6, max_wait=None)
        self.queue = PriorityCalls("q", codec=BYTES, rates=RATES, lease=10**6)

    def acquire(self, now: int, cost: int = 1) -> tuple[int, int]:
        """Return how much is granted, and in how many ms more can be had."""
        if self.kind == "limiter":
            grant: Grant = self.server.run(self.limiter.acquire(cost), now)
            return grant.granted, round(grant.retry_after * 1000)
        item = b"%d" % next(self.numbers)  # there is always something to hand out
        if self.kind == "buffer":
            self.server.run(self.buffer.push([item]), now)
            (event,) = self.server.run(self.buffer.reserve(1), now)
        else:
            self.server.run(self.queue.push(item), now)
            (event,) = self.server.run(self.queue.reserve(1), now)
        if isinstance(event, Nothing):
            return 0, round((event.retry or 0) * 1000)
        assert isinstance(event, BatchData)
        return 1, 0

    def use_up(self, now: int) -> int:
        """Acquire until nothing is left, and return in how many ms there is more."""
        while True:
            granted, retry = self.acquire(now)
            if not granted:
                return retry

    def check_retry_time(self, now: int) -> int:
        """Check that a refusal's time is right: a ms earlier there is nothing, then something. Return that time."""
        granted, retry = self.acquire(now)
        if granted:
            return now
        assert 0 < retry <= LONGEST + 1
        assert self.acquire(now + retry - 1) == (0, 1)
        assert self.acquire(now + retry)[0] > 0
        return now + retry


@pytest.fixture(params=["limiter", "buffer", "priority queue"])
def limiter(request: pytest.FixtureRequest, server: Backend) -> Limiter:
    return Limiter(server, request.param)


@pytest.mark.parametrize("jump", JUMPS)
def test_a_clock_that_was_ahead_blocks_no_longer_than_the_longest_span(limiter: Limiter, jump: int) -> None:
    """Everything is used up while the clock is ahead; once it is corrected, more is granted within the longest span."""
    limiter.use_up(NOW)
    limiter.use_up(NOW + jump)
    assert limiter.use_up(NOW + 5) <= LONGEST + 1
    now = limiter.check_retry_time(NOW + 5)
    assert now <= NOW + 5 + LONGEST + 1
    for _ in range(10):  # and it works as before
        limiter.use_up(now)
        later = limiter.check_retry_time(now)
        assert later - now <= LONGEST + 1
        now = later


def test_the_retry_time_is_right_whatever_the_clock_does(limiter: Limiter) -> None:
    """The clock jumps forward and back at random, and each refusal is checked in between."""
    some, now = random.Random(1), NOW
    for _ in range(60):
        now += some.choice([0, 1, 500, 1001, 20_000, -5, -800, -40_000, 2 * HOUR, -3 * HOUR])
        for _ in range(some.randint(0, 4)):
            limiter.acquire(now, some.randint(1, 4))
        now = limiter.check_retry_time(now)


def test_a_partial_grant_has_a_retry_time(server: Backend) -> None:
    """A part of the cost is granted at once: the time is that of the next unit."""
    limiter = Limiter(server, "limiter")
    assert limiter.acquire(NOW, 2) == (2, 0)
    granted, retry = limiter.acquire(NOW + 400, 5)
    assert (granted, retry) == (1, 601)
    assert limiter.acquire(NOW + 400 + 600) == (0, 1)
    assert limiter.acquire(NOW + 400 + 601, 5)[0] == 2


def test_the_retry_time_is_right_after_a_limit_was_lowered(server: Backend) -> None:
    """As many grants have to leave the span as the new limit does not allow."""
    limiter = Limiter(server, "limiter")
    limiter.limiter = LimiterCalls("q", (Rate(100, 300),))
    for i in range(40):
        assert limiter.acquire(NOW + i * 1000) == (1, 0)
    limiter.limiter = LimiterCalls("q", (Rate(7, 300), Rate(3, 1)))
    assert limiter.check_retry_time(NOW + 60_000) == NOW + 33_000 + LONGEST + 1


def test_no_span_exceeds_its_limit_while_the_clock_is_not_changed(limiter: Limiter) -> None:
    """Both ends of a span count."""
    some, now, granted = random.Random(2), NOW, list[tuple[int, int]]()
    for _ in range(300):
        now += some.choice([0, 1, 100, 333, 1000, 12_000, 61_000])
        amount, _ = limiter.acquire(now, some.randint(1, 3))
        granted.append((now, amount))
        for rate in RATES:
            assert sum(n for at, n in granted if at >= now - rate.per * 1000) <= rate.limit
    assert sum(n for _, n in granted) > 50


def calls_of(structure: str, **settings: Any) -> Any:
    kind: Any = BufferCalls if structure == "buffer" else PriorityCalls
    return kind("q", codec=BYTES, **settings)


def push(server: Backend, calls: Any, *items: bytes) -> None:
    for item in items:
        server.run(calls.push([item]) if isinstance(calls, BufferCalls) else calls.push(item), NOW)


@STRUCTURES
def test_a_lease_from_a_clock_that_was_ahead_is_reported_and_repaired(server: Backend, structure: str) -> None:
    """An audit finds a deadline that no setting explains; repaired, the batch comes back in time."""
    calls = calls_of(structure, lease=30)
    push(server, calls, b"a", b"b")
    wrong = batch_of(server.run(calls.reserve(1), NOW + 5 * HOUR))
    right = batch_of(server.run(calls.reserve(1), NOW))
    assert right
    assert wrong
    report = server.run(calls.audit(), NOW)
    assert [(finding.kind, finding.name) for finding in report.findings] == [("far", wrong.id)]
    assert report.findings[0].expected == str(NOW + HOUR)  # an hour at least, twice the queue's lease
    assert server.run(calls.audit(max_lease=6 * 3600), NOW).ok
    assert not server.run(calls.audit(repair=True), NOW).ok
    assert server.run(calls.audit(), NOW).ok
    server.run(calls.ack(right), NOW)
    assert batch_of(server.run(calls.reserve(1), NOW + HOUR - 1)) is None
    events = server.run(calls.reserve(1), NOW + HOUR)
    if not batch_of(events):  # that call ended it, and the next one hands it out
        assert events == [Nothing(0)]
        events = server.run(calls.reserve(1), NOW + HOUR)
    again = batch_of(events)
    assert again
    assert again.items == wrong.items == [b"a"]


@STRUCTURES
def test_a_long_lease_within_twice_the_setting_is_not_reported(server: Backend, structure: str) -> None:
    """Another worker may have a longer lease, or have extended it."""
    calls = calls_of(structure, lease=4 * 3600)
    push(server, calls, b"a")
    assert batch_of(server.run(calls.reserve(1, lease=8 * 3600), NOW))
    assert server.run(calls.audit(), NOW).ok
    assert not server.run(calls_of(structure, lease=30).audit(), NOW).ok


@STRUCTURES
def test_a_delay_longer_than_allowed_is_reported_and_repaired(server: Backend, structure: str) -> None:
    """Three years are the longest; a delay from a clock that was further ahead is repaired to that."""
    calls, years = calls_of(structure), 99_999_999_000
    push(server, calls, b"a", b"b")
    for now in (NOW, NOW + 2 * years):
        held = batch_of(server.run(calls.reserve(1), now))
        assert held
        server.run(calls.release(held, delay=99_999_999), now)
    report = server.run(calls.audit(repair=True), NOW)
    assert [(finding.kind, finding.expected) for finding in report.findings] == [("far", str(NOW + years))]
    assert server.run(calls.audit(), NOW).ok
    assert server.run(calls.stats(), NOW).due == 0
    for _ in range(2):
        assert batch_of(server.run(calls.reserve(1), NOW + years))


@STRUCTURES
def test_the_retry_time_of_an_empty_reply_is_right(server: Backend, structure: str) -> None:
    """What comes back then is handed out, and not a ms earlier; the time is at most one lease ahead."""
    calls = calls_of(structure, lease=30, **({"max_wait": 10, "min_size": 5} if structure == "buffer" else {}))
    now, some, ends = NOW, random.Random(3), 0
    push(server, calls, b"a")
    reserve = partial(calls.reserve, 9)
    for _ in range(40):
        (event,) = server.run(reserve(), now)
        if isinstance(event, BatchData):
            if some.random() < 0.5:
                server.run(calls.release(event, delay=some.choice([0.0, 0.001, 7.5, 90.0])), now)
            continue
        if event.retry == 0:
            continue
        retry = round(event.retry * 1000)
        assert 0 < retry <= 30_000
        assert batch_of(server.run(reserve(), now + retry - 1)) is None
        now += retry
        if retry < 30_000:
            (due,) = server.run(reserve(), now)
            assert isinstance(due, BatchData) or due.retry == 0  # 0: something was done, and the next call continues
            ends += isinstance(due, BatchData)
    assert ends > 3


def test_waiting_times_from_a_clock_that_was_set_back(server: Backend) -> None:
    """A group that began to wait in the future has waited 0 ms; a lease from the future does not expire."""
    buffer = BufferCalls("q", codec=BYTES, max_wait=10)
    server.run(buffer.push([b"a"], "g"), NOW + HOUR)
    server.run(buffer.push([b"b", b"c"], "h"), NOW + HOUR)
    assert server.run(buffer.stats(), NOW).oldest_wait == 0
    taken = server.run(buffer.pop_longest(2, 5), NOW)
    assert taken == {"h": [b"b", b"c"], "g": [b"a"]}
