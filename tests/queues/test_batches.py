"""`for batch in queue.batches(...)`: what happens to a batch at the end of its turn, and when the loop is left."""

from __future__ import annotations

import contextlib
import gc
import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import redis
import redis.asyncio

import redisq.asyncio
from redisq import Batch, Buffer, Bury, CodecError, InvalidArgument, LeaseLost, PriorityQueue, Retry
from redisq.core.scripts import load
from redisq.embedded import Server

pytestmark = pytest.mark.server


@pytest.fixture
def client(server: Server) -> Iterator[redis.Redis]:
    with server.client() as made:
        yield made


@pytest.fixture
async def aclient(server: Server) -> AsyncIterator[redis.asyncio.Redis]:
    async with redis.asyncio.Redis(unix_socket_path=server.socket) as made:
        yield made


def filled(client: redis.Redis, count: int = 3) -> Buffer[int]:
    buffer: Buffer[int] = Buffer(client, "q", max_wait=None)
    for number in range(count):
        buffer.push(number, group=str(number))
    return buffer


def states(buffer: Buffer[Any]) -> dict[str, int]:
    stats = buffer.stats()
    found = {"waiting": stats.waiting, "leased": stats.leased, "delayed": stats.delayed, "done": stats.done}
    return {state: count for state, count in found.items() if count}


def test_each_batch_is_acked_at_the_end_of_its_turn(client: redis.Redis) -> None:
    """One batch is held at a time, and none after the last."""
    buffer, seen = filled(client), []
    for batch in buffer.batches():
        seen += batch.items
        assert states(buffer) == {
            state: count
            for state, count in {"waiting": 3 - len(seen), "leased": 1, "done": len(seen) - 1}.items()
            if count
        }
    assert sorted(seen) == [0, 1, 2]
    assert states(buffer) == {"done": 3}


def test_batches_of_a_priority_queue(client: redis.Redis) -> None:
    """In order, several members at a time."""
    queue: PriorityQueue[str] = PriorityQueue(client, "q")
    queue.push_many({"c": 3, "a": 1, "b": 2})
    assert [batch.items for batch in queue.batches(2)] == [["a", "b"], ["c"]]
    assert queue.stats().done == 3


def test_it_waits_for_delayed_batches(client: redis.Redis) -> None:
    """That become due within the timeout."""
    buffer = filled(client, 1)
    attempts = []
    for batch in buffer.batches(timeout=5):
        attempts.append(batch.attempts)
        if batch.attempts == 1:
            batch.release(delay=0.2)
        else:
            break
    assert attempts == [1, 2]


def test_a_batch_that_was_settled_is_not_acked(client: redis.Redis) -> None:
    """In whatever way it was settled."""
    buffer = filled(client)
    for batch, settle in zip(buffer.batches(), (Batch.ack, Batch.bury, None), strict=False):
        if settle:
            settle(batch)
    stats = buffer.stats()
    assert (stats.done, stats.dead) == (2, 1)


def test_failed_items_come_back(client: redis.Redis) -> None:
    """As with any ack."""
    buffer: Buffer[str] = Buffer(client, "q")
    buffer.push("a", "b")
    seen = []
    for batch in buffer.batches():
        seen.append(batch.items)
        if batch.attempts == 1:
            batch.fail("b")
    assert seen == [["a", "b"], ["b"]]


@pytest.mark.parametrize("way", ["break", "return", "exception", "close"])
def test_leaving_the_loop_releases_the_batch(client: redis.Redis, way: str) -> None:
    """At once, and with a reason that says so; a generator cannot know how the loop was left."""
    buffer = filled(client, 2)

    def loop() -> None:
        batches = buffer.batches()
        for _ in batches:
            if way == "break":
                break
            if way == "return":
                return
            if way == "close":
                batches.close()
            if way == "exception":
                raise ZeroDivisionError
        gc.collect()

    with pytest.raises(ZeroDivisionError) if way == "exception" else contextlib.nullcontext():
        loop()
    gc.collect()
    assert states(buffer) == {"waiting": 1, "delayed": 1}
    batch = buffer.reserve()
    assert batch
    assert (batch.attempts, batch.reason) == (2, "the loop was left")


def test_an_exception_thrown_into_the_generator_is_the_reason(client: redis.Redis) -> None:
    """When the generator is driven by hand."""
    buffer = filled(client, 1)
    batches = buffer.batches()
    next(batches)
    with pytest.raises(ValueError, match="bad"):
        batches.throw(ValueError("bad"))
    batch = buffer.reserve()
    assert batch
    assert batch.reason == "ValueError: bad"


@pytest.mark.parametrize("way", ["break", "return", "exception", "retry", "bury"])
def test_with_the_batch_as_a_context_manager(client: redis.Redis, way: str) -> None:
    """Break and return ack, an exception becomes the reason, and after Retry and Bury the loop goes on."""
    buffer = filled(client, 2)
    turns = []

    def loop() -> None:
        for batch in buffer.batches():
            turns.append(batch.items)
            with batch:
                if way == "break":
                    break
                if way == "return":
                    return
                if way == "exception":
                    raise ZeroDivisionError("bad")
                raise Retry(3600, reason="later") if way == "retry" else Bury("never")

    with pytest.raises(ZeroDivisionError) if way == "exception" else contextlib.nullcontext():
        loop()
    assert len(turns) == (2 if way in ("retry", "bury") else 1)
    stats = buffer.stats()
    assert (stats.done, stats.delayed, stats.dead, stats.leased) == {
        "break": (1, 0, 0, 0),
        "return": (1, 0, 0, 0),
        "exception": (0, 1, 0, 0),
        "retry": (0, 2, 0, 0),
        "bury": (0, 0, 2, 0),
    }[way]
    reasons = {batch.reason for batch in [*buffer.delayed(), *buffer.dead()]}
    assert reasons == {"exception": {"ZeroDivisionError: bad"}, "retry": {"later"}, "bury": {"never"}}.get(way, set())


def test_a_lost_lease(client: redis.Redis) -> None:
    """It is raised where the next turn would begin."""
    buffer = filled(client, 1)
    turns = []

    def loop() -> None:
        for batch in buffer.batches():
            turns.append(batch.items)
            client.zadd("redisq:{q}:leases", {batch.id: 1})
            assert buffer.reserve()

    with pytest.raises(LeaseLost):
        loop()
    assert len(turns) == 1


def round_trips(monkeypatch: pytest.MonkeyPatch, queue: Any) -> list[list[str]]:
    """Note the operations of each round trip that a queue makes."""
    made: list[list[str]] = []

    def noted(method: Any) -> Any:
        def call(calls: Any, *more: Any) -> Any:
            made.append([one.script.name.split("/")[1] for one in (calls if isinstance(calls, list) else [calls])])
            return method(calls, *more)

        return call

    for name in ("_call", "send"):
        monkeypatch.setattr(queue.runner, name, noted(getattr(queue.runner, name)))
    return made


def test_an_ack_and_the_next_reserve_are_one_round_trip(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last ack too, which goes with the reserve that finds nothing; what was settled is not acked again."""
    buffer = filled(client)
    made = round_trips(monkeypatch, buffer)
    for turn, batch in enumerate(buffer.batches()):
        if turn == 1:
            batch.release(3600)
    assert made == [["reserve"], ["ack", "reserve"], ["release"], ["reserve"], ["ack", "reserve"], ["reserve"]]
    assert states(buffer) == {"done": 2, "delayed": 1}


def test_the_ack_comes_before_the_reserve(client: redis.Redis) -> None:
    """An ordered buffer hands the next batch of the same group out in that round trip."""
    buffer: Buffer[int] = Buffer(client, "q", ordered=True)
    buffer.push(1, 2)
    first = buffer.reserve(1)
    assert buffer.reserve(1) is None
    second = buffer.reserve(1, ack=first)
    assert second
    assert (first.settled, second.items) == (True, [2])  # type: ignore[union-attr]
    second.fail(2)
    again = buffer.reserve(1, ack=second)
    assert again
    assert (again.items, again.attempts) == ([2], 2)


def test_an_ack_whose_script_is_unknown_is_done_after_the_reserve(client: redis.Redis) -> None:
    """The reserve found the group busy; it looks again."""
    buffer: Buffer[int] = Buffer(client, "q", ordered=True)
    buffer.push(1, 2, 3)
    for batch in buffer.batches(1):
        client.script_flush()
        client.script_load(load("buffer/reserve").text)
        assert batch.items == [3 - buffer.stats().waiting]
    assert states(buffer) == {"done": 3}


@pytest.mark.parametrize("structure", ["buffer", "priority"])
def test_a_reserve_that_finds_the_ack_lost_takes_nothing(client: redis.Redis, structure: str) -> None:
    """What it took goes back at once, as if it had not been handed out."""
    queue: Any = Buffer(client, "q") if structure == "buffer" else PriorityQueue(client, "q")
    queue.push("a")
    lost = queue.reserve(lease=60)
    queue.bury(lost)
    queue.push("b")
    with pytest.raises(LeaseLost) as raised:
        queue.reserve(ack=lost)
    assert raised.value.ids == [lost.id]
    assert lost.lost
    assert queue.stats().leased == 0
    batch = queue.reserve()
    assert batch
    assert (batch.items, batch.attempts) == (["b"], 1)


def test_a_reserve_that_cannot_be_decoded_has_acked(client: redis.Redis) -> None:
    """The error is that of the reserve, and the other batch is done."""
    Buffer(client, "q", codec=redisq.BYTES).push(b"1", b"{")
    buffer: Buffer[int] = Buffer(client, "q")
    first = buffer.reserve(1)
    with pytest.raises(CodecError):
        buffer.reserve(1, ack=first)
    assert first
    assert first.settled
    assert states(buffer) == {"leased": 1, "done": 1}


def test_what_was_thrown_in_is_not_acked_though_it_could_not_be_released(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retry goes no further, so the loop goes on; the batch comes back when its lease runs out."""
    buffer = filled(client, 2)
    batches = buffer.batches()
    first = next(batches)
    with monkeypatch.context() as patch:
        patch.setattr(buffer, "release", lambda *_, **__: 1 / 0)
        second = batches.throw(Retry())
    assert second.id != first.id
    assert states(buffer) == {"leased": 2}


def test_arguments_are_those_of_reserve(client: redis.Redis) -> None:
    """Except the lease id, which is new each time; invalid arguments are refused when the loop begins."""
    for kind in (Buffer, PriorityQueue):
        own = inspect.signature(kind.batches).parameters
        assert own == {
            name: parameter
            for name, parameter in inspect.signature(kind.reserve).parameters.items()
            if name not in ("lease_id", "ack")
        }
    buffer = filled(client, 1)
    (batch,) = [(batch.holder, batch.items) for batch in buffer.batches(1, max_bytes=5, lease=60, holder="me")]
    assert batch == ("me", [0])
    with pytest.raises(InvalidArgument, match="size is 0"):
        next(buffer.batches(0))


def test_a_batch_that_cannot_be_decoded(client: redis.Redis) -> None:
    """The error is that of reserve."""
    Buffer(client, "q", codec=redisq.BYTES).push(b"{")
    with pytest.raises(CodecError):
        next(Buffer(client, "q").batches())


# -- asyncio


async def test_asyncio_acks_each_batch_at_the_end_of_its_turn(
    client: redis.Redis, aclient: redis.asyncio.Redis
) -> None:
    buffer = filled(client)
    seen: list[int] = []
    async for batch in redisq.asyncio.Buffer(aclient, "q", max_wait=None).batches():
        seen += batch.items
        assert states(buffer).get("done", 0) == len(seen) - 1
    assert sorted(seen) == [0, 1, 2]
    assert states(buffer) == {"done": 3}
    queue = redisq.asyncio.PriorityQueue(aclient, "p")
    await queue.push_many({"b": 2, "a": 1})
    assert [batch.items async for batch in queue.batches()] == [["a"], ["b"]]


async def test_asyncio_releases_when_the_loop_is_left(client: redis.Redis, aclient: redis.asyncio.Redis) -> None:
    """At once with aclosing, else a moment later, by the event loop."""
    buffer = filled(client, 1)
    queue: redisq.asyncio.Buffer[int] = redisq.asyncio.Buffer(aclient, "q", max_wait=None)
    async with contextlib.aclosing(queue.batches()) as batches:
        async for _ in batches:
            break
    assert states(buffer) == {"delayed": 1}
    async for batch in queue.batches():
        assert (batch.attempts, batch.reason) == (2, "the loop was left")
        break
    again = await queue.reserve(timeout=20)
    assert again
    assert again.attempts == 3


async def test_asyncio_with_the_batch_as_a_context_manager(client: redis.Redis, aclient: redis.asyncio.Redis) -> None:
    """Like the blocking one."""
    buffer = filled(client)
    queue: redisq.asyncio.Buffer[int] = redisq.asyncio.Buffer(aclient, "q", max_wait=None)
    turns = 0
    async for batch in queue.batches():
        turns += 1
        async with batch:
            if turns == 1:
                raise Retry(3600)
            if turns == 2:
                raise Bury("never")
            break
    stats = buffer.stats()
    assert (stats.delayed, stats.dead, stats.done, stats.leased) == (1, 1, 1, 0)
