"""The fake's clock: what the scripts and keys go by moves, and nothing has to be slept for."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import fakeredis
import pytest

import redisq.asyncio
from redisq import Buffer, InvalidArgument, PriorityQueue, Rate, RateLimiter, Worker
from redisq.embedded import NoServer
from redisq.testing import Fake, drain


def test_a_lease_runs_out(redisq_fake: Fake) -> None:
    buffer = Buffer(redisq_fake.client(), "q", lease=30)
    buffer.push("item")
    redisq_fake.freeze()
    batch = buffer.reserve()
    assert batch is not None
    assert batch.deadline == pytest.approx(redisq_fake.time() + 30, abs=0.002)
    redisq_fake.advance(29.9)
    assert buffer.reserve() is None
    redisq_fake.advance(0.2)
    again = buffer.reserve()
    assert again is not None
    assert (again.items, again.attempts) == (["item"], 2)


def test_a_delay_comes_due(redisq_fake: Fake) -> None:
    queue = PriorityQueue(redisq_fake.client(), "q")
    queue.push("member", delay=3600)
    assert queue.pop() is None
    redisq_fake.advance(3600)
    item = queue.pop()
    assert item is not None
    assert item.member == "member"


def test_a_small_group_waits_for_max_wait(redisq_fake: Fake) -> None:
    buffer = Buffer(redisq_fake.client(), "q", min_size=10, max_wait=60)
    buffer.push("item")
    assert buffer.reserve() is None
    redisq_fake.advance(60)
    assert buffer.reserve() is not None


def test_rates_allow_more_exactly_when_their_span_is_over(redisq_fake: Fake) -> None:
    client = redisq_fake.client()
    redisq_fake.freeze()
    buffer, limiter = Buffer(client, "q", rates=[Rate(1, per=10)]), RateLimiter(client, "l", Rate(1, per=10))
    buffer.push("a", "b")
    assert buffer.reserve(1) is not None
    assert limiter.acquire().granted == 1
    redisq_fake.advance(10)
    assert buffer.reserve(1) is None
    assert limiter.acquire().granted == 0
    redisq_fake.advance(0.001)
    assert buffer.reserve(1) is not None
    assert limiter.acquire().granted == 1


def test_a_push_is_forgotten_after_the_dedup_window(redisq_fake: Fake) -> None:
    """The expiry of keys goes by the same clock."""
    buffer = Buffer(redisq_fake.client(), "q", dedup_window=60)
    assert [buffer.push("item", token="one"), buffer.push("item", token="one")] == [1, 1]
    redisq_fake.advance(61)
    assert buffer.push("item", token="one") == 2


def test_the_clock_runs_until_it_is_frozen(redisq_fake: Fake) -> None:
    before = redisq_fake.time()
    while redisq_fake.time() == before:
        pass
    redisq_fake.freeze()
    frozen = redisq_fake.time()
    end = time.monotonic() + 0.01
    while time.monotonic() < end:
        assert redisq_fake.time() == frozen
    redisq_fake.freeze()
    redisq_fake.advance(1)
    assert redisq_fake.time() == frozen + 1


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), "soon"])
def test_the_clock_only_moves_forward(redisq_fake: Fake, seconds: Any) -> None:
    with pytest.raises(InvalidArgument, match="give"):
        redisq_fake.advance(seconds)


def test_who_waits_sees_that_the_clock_was_moved(redisq_fake: Fake) -> None:
    """A blocked reserve and a running worker look again; an hour is not waited for."""
    client = redisq_fake.client()
    queue, other = PriorityQueue(client, "q"), PriorityQueue(client, "other")
    queue.push("member", delay=3600)
    other.push("member", delay=3600)
    handled = threading.Event()
    timer = threading.Timer(0.1, redisq_fake.advance, [3600])
    with Worker(other, lambda _: handled.set()):
        timer.start()
        assert queue.reserve(timeout=60) is not None
        assert handled.wait(60)
    timer.join()


async def test_asyncio_clients_share_the_clock_and_the_data(redisq_fake: Fake) -> None:
    queue = redisq.asyncio.PriorityQueue(redisq_fake.async_client(), "q")
    await queue.push("member", delay=3600)
    assert PriorityQueue(redisq_fake.client(), "q").stats().delayed == 1
    assert await queue.reserve() is None
    asyncio.get_running_loop().call_later(0.1, redisq_fake.advance, 3600)
    assert await queue.reserve(timeout=60) is not None


def test_a_wait_for_a_wake_up_is_short(redisq_fake: Fake) -> None:
    """However long it asks for: so that who waits looks again soon after the clock was moved."""
    client = redisq_fake.client(socket_timeout=30)
    assert client.blpop(["redisq:{q}:wake"], timeout=3600) is None
    assert client.blpop(["redisq:{q}:wake"], timeout=0) is None


def test_other_blocking_reads_wait_as_long_as_they_ask(redisq_fake: Fake) -> None:
    client: Any = redisq_fake.client(decode_responses=True)
    timer = threading.Timer(0.2, lambda: redisq_fake.client().lpush("mine", "here"))
    timer.start()
    assert tuple(client.blpop("mine", timeout=60)) == ("mine", "here")
    timer.join()


def test_fakes_have_nothing_in_common() -> None:
    one, other = Fake(), Fake()
    one.client().set("key", "value")
    one.advance(1000)
    assert other.client().get("key") is None
    assert other.time() < one.time() - 900
    assert fakeredis.FakeRedis().time()[0] < one.time() - 900  # nor has one of fakeredis itself
    one.close()
    other.close()


def test_retries_are_worked_off_by_moving_the_clock(redisq_fake: Fake) -> None:
    queue = PriorityQueue(redisq_fake.client(), "q", max_attempts=3)
    queue.push("member")
    worker = Worker(queue, lambda _: 1 / 0)
    for _ in range(2):
        assert drain(worker, raise_errors=False).released == 1
        redisq_fake.advance(300)
    assert [buried.name for buried in drain(worker, raise_errors=False).dead] == ["member"]


def test_a_fakeredis_whose_clock_cannot_be_moved_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("redisq.testing.fake._socket_class", lambda base: base)
    with pytest.raises(NoServer, match=r"the clock of fakeredis .* cannot be moved"):
        Fake()
