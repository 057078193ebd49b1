"""One sampler for all viewers: what it asks for, how often, and what it makes of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import pytest
import redis
import redis.asyncio

from redisq import Buffer, PriorityQueue, Rate
from redisq.core.buffer import BufferStats
from redisq.core.queues import QueueInfo, QueueOverview
from redisq.web import sampler
from redisq.web.sampler import BUDGET, Sample, Sampler


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(Sample, "age", property(lambda one: made.now - one.at))
    return made


@pytest.fixture
async def found(aclient: redis.asyncio.Redis, clock: Clock) -> AsyncIterator[Sampler]:
    made = Sampler(aclient, "redisq", None, clock)
    yield made
    made.stop()


def commands(client: redis.Redis) -> int:
    """Count what the server has been asked, but for this question."""
    stats = client.info("commandstats")
    return sum(one["calls"] for name, one in stats.items() if name != "cmdstat_info")


async def test_rates_come_from_the_counters(client: redis.Redis, found: Sampler, clock: Clock) -> None:
    buffer: Buffer[int] = Buffer(client, "b")
    buffer.push(*range(50))
    await found.refresh()
    assert found.samples["b"].rates.done is None
    batch = buffer.reserve(20)
    assert batch
    batch.ack()
    clock.now += 4
    await found.refresh()
    sample = found.samples["b"]
    assert (sample.rates.done, sample.rates.change) == (5, -5)
    assert [point.waiting for point in sample.history] == [50, 30]
    assert found.total_done == 5


async def test_nothing_is_asked_before_it_is_due(client: redis.Redis, found: Sampler, clock: Clock) -> None:
    PriorityQueue(client, "p").push("a")
    await found.refresh()
    before = commands(client)
    await asyncio.gather(*(found.refresh() for _ in range(20)))
    assert commands(client) == before
    clock.now += sampler.TICK
    await asyncio.gather(*(found.refresh() for _ in range(20)))
    # One EVALSHA with what it calls, whoever asks meanwhile.
    once = commands(client) - before
    assert 0 < once < 20


class _Passes:
    """What lets a sampler count so many times, and no more."""

    def __init__(self, made: Sampler, most: int) -> None:
        self.ended = asyncio.Event()
        self._count, self._left = made._count, most

    async def count(self, due: Sequence[QueueInfo]) -> None:
        await self._count(due)
        self._left -= 1
        if not self._left:
            self.ended.set()
            await asyncio.Event().wait()


async def test_two_viewers_cost_no_more_than_one(
    client: redis.Redis, aclient: redis.asyncio.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(5):
        PriorityQueue(client, f"p{i}").push("a")
    await aclient.ping()  # the commands of a new connection are no sampler's
    asked = {}
    for viewers in (1, 5):
        made = Sampler(aclient, "redisq", None)
        passes = _Passes(made, 4)
        monkeypatch.setattr(sampler, "TICK", 0.01)
        monkeypatch.setattr(made, "_count", passes.count)
        before = commands(client)
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(viewers):
                await stack.enter_async_context(made.watching())
            await passes.ended.wait()
        asked[viewers] = commands(client) - before
        made.stop()
    assert asked[1] == asked[5] > 0


async def test_it_stops_when_nobody_looks(
    client: redis.Redis, aclient: redis.asyncio.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampler, "TICK", 0.01)
    PriorityQueue(client, "p").push("a")
    made = Sampler(aclient, "redisq", None)
    async with made.watching() as changed:
        await changed.wait()
    assert made._task
    await asyncio.wait_for(made._task, 30)
    before = commands(client)
    await asyncio.sleep(0.1)
    assert commands(client) == before


async def test_new_queues_are_found_by_a_scan_now_and_then(client: redis.Redis, found: Sampler, clock: Clock) -> None:
    PriorityQueue(client, "a").push("x")
    await found.refresh()
    PriorityQueue(client, "b").push("x")
    clock.now += sampler.FIND_EVERY - 1
    await found.refresh()
    assert list(found.samples) == ["a"]
    clock.now += sampler.TICK + 1
    await found.refresh()
    while len(found.samples) < 2:  # the scan goes on beside the counting
        await asyncio.sleep(0.01)
    PriorityQueue(client, "b").purge()


async def test_a_queue_that_no_scan_has_found_yet(client: redis.Redis, found: Sampler) -> None:
    PriorityQueue(client, "a").push("x")
    sample = await found.sample(QueueInfo("a", "fifo", 2))
    assert sample.stats
    assert sample.stats.waiting == 1
    PriorityQueue(client, "b").push("x")
    await found.refresh()
    assert sorted(found.samples) == ["a", "b"]


def _overview(name: str, groups: int) -> QueueOverview:
    none = dict.fromkeys(BufferStats.__dataclass_fields__, 0)
    return QueueOverview(QueueInfo(name, "buffer", 2), BufferStats(**{**none, "groups": groups}))  # type: ignore[arg-type]


@pytest.mark.parametrize("large", [0, 3])
@pytest.mark.parametrize("small", [1, 200, 2_000])
def test_all_samples_together_stay_within_the_budget(
    aclient: redis.asyncio.Redis, clock: Clock, small: int, large: int
) -> None:
    """Of the server's time a second, by what a call was measured to cost."""
    made = Sampler(aclient, "redisq", None, clock)
    views = [_overview(f"s{i}", 50) for i in range(small)] + [_overview(f"l{i}", 100_000) for i in range(large)]
    made.samples = {one.info.name: Sample(one) for one in views}
    made._plan(clock.now, set(made.samples))
    spent = 0.0
    for one in views:
        period = made._due[one.info.name] - clock.now
        assert period >= sampler.TICK
        spent += sampler._cost(one) / period
    assert spent <= BUDGET * 1.001
    if small == 1 and not large:
        assert made._due["s0"] == clock.now + sampler.TICK


async def test_standing_still_is_noticed(client: redis.Redis, found: Sampler, clock: Clock) -> None:
    buffer: Buffer[int] = Buffer(client, "b")
    buffer.push(*range(10))
    await found.refresh()

    async def later(seconds: float) -> list[str]:
        clock.now += seconds
        await found.refresh()
        return found.samples["b"].warnings

    assert await later(59) == []
    (warning,) = await later(2)
    assert "Nothing was acked for 1m, while" in warning
    batch = buffer.reserve(1)
    assert batch
    batch.ack()
    assert await later(5) == []
    assert await later(61)
    buffer.pause()
    assert await later(61) == []
    buffer.resume()
    await later(3)
    assert await later(61)
    buffer.pause_group("default")
    await later(3)
    assert await later(61) == []  # all that waits is paused
    buffer.resume_group("default")
    await later(3)
    assert await later(61)
    buffer.pop(size=3)
    assert await later(2) == []  # something takes them, and counts nothing as done


async def test_what_was_granted_in_the_longest_span(client: redis.Redis, found: Sampler, clock: Clock) -> None:
    buffer: Buffer[int] = Buffer(client, "b", rates=[Rate(100, 1), Rate(1000, 3600)])
    buffer.push(*range(10))
    for _ in range(4):
        buffer.reserve(1)
    PriorityQueue(client, "none").push("a")
    await found.refresh()
    clock.now += 60
    await found.refresh()
    while "b" not in found._rated:
        await asyncio.sleep(0.01)
    clock.now += 3
    await found.refresh()
    used = found.samples["b"].used
    assert used
    assert used.granted == 4
    assert used.seconds == pytest.approx(3600, abs=0.2)
    assert found.samples["none"].used is None


async def test_what_the_server_is_set_to(client: redis.Redis, found: Sampler, clock: Clock) -> None:
    client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        await found.refresh()
        subjects = [one.subject for one in found.condition.findings]
        assert subjects == ["maxmemory-policy allkeys-lru", 'appendonly no, save ""']
        client.config_set("maxmemory-policy", "noeviction")
        clock.now += sampler.CONDITION_EVERY
        await found.refresh()
        assert [one.subject for one in found.condition.findings] == ['appendonly no, save ""']
    finally:
        client.config_set("maxmemory-policy", "noeviction")


@pytest.mark.parametrize(("rules", "unread"), [("-info", "INFO"), ("-config|get", "CONFIG")])
async def test_a_user_who_may_not_read_that(
    client: redis.Redis, aclient: redis.asyncio.Redis, clock: Clock, rules: str, unread: str
) -> None:
    PriorityQueue(client, "p").push("a")
    client.acl_setuser("narrow", enabled=True, nopass=True, keys="*", commands=["+@all", rules])
    narrow = redis.asyncio.Redis(
        unix_socket_path=aclient.connection_pool.connection_kwargs["path"], username="narrow", password="x"
    )
    try:
        made = Sampler(narrow, "redisq", None, clock)
        await made.refresh()
        assert made.outage == ""
        assert made.condition.unread == unread
        assert "p" in made.samples
    finally:
        await narrow.aclose()
        client.acl_deluser("narrow")


async def test_a_refusal_is_not_called_an_outage(aclient: redis.asyncio.Redis) -> None:
    wrong = redis.asyncio.Redis(
        unix_socket_path=aclient.connection_pool.connection_kwargs["path"], username="nobody", password="x"
    )
    made = Sampler(wrong, "redisq", None)
    await made.refresh()
    assert made.refused
    assert "password" in made.outage
    await wrong.aclose()


async def test_an_outage_ends(
    client: redis.Redis, found: Sampler, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    PriorityQueue(client, "p").push("a")
    await found.refresh()
    with monkeypatch.context() as patch:

        async def lost(_: object) -> None:
            raise redis.ConnectionError("gone")

        patch.setattr(found, "_count", lost)
        clock.now += 5
        await found.refresh()
        assert found.outage == "gone"
        assert found.silence == 5
        assert found.samples["p"].stats
    clock.now += 5
    await found.refresh()
    assert found.outage == ""
