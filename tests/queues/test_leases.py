"""Batches in Python: from reserve to ack, errors, waiting, round trips, dead letters."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any, TypeVar

import pytest
import redis
import redis.asyncio

import redisq.asyncio
from redisq import (
    BYTES,
    Batch,
    BatchData,
    Buffer,
    BufferStats,
    CodecError,
    InvalidArgument,
    Item,
    LeaseLost,
    PriorityQueue,
    PriorityStats,
    Pushed,
    Rate,
    State,
)
from redisq.core.buffer import MAX_ITEMS
from redisq.core.flow import block_seconds
from redisq.core.priority import MAX_LEASED
from redisq.core.scripts import load
from redisq.embedded import Server
from tests.conftest import MakeClient

R = TypeVar("R")

Queue = Buffer[str] | PriorityQueue[str]
AsyncQueue = redisq.asyncio.Buffer[str] | redisq.asyncio.PriorityQueue[str]
STRUCTURES = pytest.mark.parametrize("structure", ["buffer", "priority"])


def stocked(client: redis.Redis, structure: str, *names: str, **options: Any) -> Queue:
    """Return a queue with these items, in this order; a buffer has them in one group."""
    if structure == "buffer":
        buffer = Buffer[str](client, "q", **options)
        buffer.push(*names, group="g")
        return buffer
    queue = PriorityQueue[str](client, "q", **options)
    queue.push_many((name, 0) for name in names)
    return queue


async def async_stocked(client: redis.asyncio.Redis, structure: str, *names: str, **options: Any) -> AsyncQueue:
    """Return the same for asyncio."""
    if structure == "buffer":
        buffer = redisq.asyncio.Buffer[str](client, "q", **options)
        await buffer.push(*names, group="g")
        return buffer
    queue = redisq.asyncio.PriorityQueue[str](client, "q", **options)
    await queue.push_many((name, 0) for name in names)
    return queue


def take(queue: Any, size: int = 10, timeout: float = 0.0, **options: Any) -> Batch[Any]:
    """Reserve a batch that must be there, or must arrive within the timeout."""
    start = monotonic()
    batch = queue.reserve(size, timeout=timeout, **options)
    assert batch
    assert not timeout or monotonic() - start < timeout  # the last reserve, at the timeout, would find it anyway
    return batch  # type: ignore[no-any-return]


def counts(queue: Buffer[Any] | PriorityQueue[Any]) -> tuple[int, int, int, int]:
    """Return how many are waiting, leased, delayed and dead."""
    stats = queue.stats()
    return stats.waiting, stats.leased, stats.delayed, stats.dead


# -- a batch as a context manager ------------------------------------------------------------------------------------


@STRUCTURES
def test_a_normal_exit_acks(client: redis.Redis, structure: str) -> None:
    queue = stocked(client, structure, "a", "b")
    with take(queue) as batch:
        assert batch.items == ["a", "b"]
        assert not batch.settled
    assert batch.settled
    assert counts(queue) == (0, 0, 0, 0)


@STRUCTURES
def test_a_normal_exit_releases_failed_items(client: redis.Redis, structure: str) -> None:
    queue = stocked(client, structure, "a", "b", "c")
    with take(queue) as batch:
        batch.fail("b")
    assert take(queue).items == ["b"]


@STRUCTURES
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_releases_and_propagates(client: redis.Redis, structure: str, error: type[BaseException]) -> None:
    queue = stocked(client, structure, "a", "b")
    with pytest.raises(error), take(queue) as batch:
        raise error
    assert batch.settled
    again = take(queue)
    assert (again.items, again.attempts, again.reason) == (["a", "b"], 2, error.__name__)


class LongMessage(Exception):
    """An exception with a message longer than a reason may be."""


@STRUCTURES
def test_the_reason_of_a_release_is_the_exception(client: redis.Redis, structure: str) -> None:
    """Class and message, cut at a character boundary to at most a thousand bytes."""
    queue = stocked(client, structure, "a")
    with pytest.raises(LongMessage), take(queue):
        raise LongMessage("é" * 2000)
    reason = take(queue).reason
    assert reason.startswith("LongMessage: éé")
    assert 998 <= len(reason.encode()) <= 1000


@STRUCTURES
@pytest.mark.parametrize("library", ["redis", "valkey"])
def test_the_exception_takes_precedence_over_an_error_of_redis(
    make_client: MakeClient,
    structure: str,
    library: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A failing release is logged, and the caller's own exception propagates."""
    errors = importlib.import_module(f"{library}.exceptions")
    client = make_client()
    queue = stocked(client, structure, "a")

    def broken(*_: object, **__: object) -> None:
        raise errors.ConnectionError("gone")

    batch = take(queue)
    monkeypatch.setattr(queue.runner, "_exchange", broken)
    with caplog.at_level(logging.WARNING, "redisq"), pytest.raises(ZeroDivisionError), batch:
        assert 1 / 0
    assert not batch.settled
    assert "gone" in caplog.text


@STRUCTURES
def test_a_settled_batch_is_not_settled_again(client: redis.Redis, structure: str) -> None:
    queue = stocked(client, structure, "a")
    with take(queue) as batch:
        batch.release(delay=1000)
    assert counts(queue) == (0, 0, 1, 0)
    queue.purge()
    queue = stocked(client, structure, "a")
    with pytest.raises(ZeroDivisionError), take(queue) as batch:
        assert batch.ack() / 0
    assert counts(queue) == (0, 0, 0, 0)


@STRUCTURES
def test_a_lost_lease_is_raised_from_a_normal_exit_only(
    client: redis.Redis, structure: str, caplog: pytest.LogCaptureFixture
) -> None:
    queue = stocked(client, structure, "a")
    with pytest.raises(LeaseLost) as caught, take(queue) as batch:
        queue.purge()
    assert caught.value.ids == [batch.id]
    assert batch.settled
    queue = stocked(client, structure, "a")
    with caplog.at_level(logging.WARNING, "redisq"), pytest.raises(ZeroDivisionError), take(queue) as batch:
        assert queue.purge() / 0
    assert batch.id in caplog.text


@STRUCTURES
def test_a_lost_lease_that_was_already_raised_is_not_raised_again(client: redis.Redis, structure: str) -> None:
    queue = stocked(client, structure, "a")
    with take(queue) as batch:
        assert not batch.lost
        queue.purge()
        with pytest.raises(LeaseLost):
            batch.extend()
        assert batch.lost
        assert batch.settled


@pytest.mark.parametrize("structure", ["buffer", "priority"])
async def test_an_asyncio_batch_is_a_context_manager(
    aclient: redis.asyncio.Redis, structure: str, caplog: pytest.LogCaptureFixture
) -> None:
    queue = await async_stocked(aclient, structure, "a", "b")
    batch: Any = await queue.reserve(10)
    with pytest.raises(ValueError, match="mine"):
        async with batch:
            raise ValueError("mine")
    assert batch.settled
    batch = await queue.reserve(10)
    async with batch:
        assert (batch.items, batch.attempts) == (["a", "b"], 2)
        batch.fail("b")
    batch = await queue.reserve(10)
    async with batch:
        assert batch.items == ["b"]
        assert await batch.release() == 1
    batch = await queue.reserve(10)
    with pytest.raises(LeaseLost):
        async with batch:
            await queue.purge()
    queue = await async_stocked(aclient, structure, "c")
    batch = await queue.reserve(10)
    with caplog.at_level(logging.WARNING, "redisq"), pytest.raises(ZeroDivisionError):
        async with batch:
            assert await queue.purge() / 0
    assert batch.id in caplog.text


# -- failed items ----------------------------------------------------------------------------------------------------


def test_equal_items_fail_one_by_one(client: redis.Redis) -> None:
    buffer = Buffer[Any](client, "q")
    buffer.push(1, {"a": 1}, 1, [2], {"a": 1}, True, group="g")
    batch = take(buffer)
    batch.fail(1)
    assert batch.failed == {0: ""}
    batch.fail({"a": 1}, 1, reason="too odd")
    assert batch.failed == {0: "", 1: "too odd", 2: "too odd"}
    with pytest.raises(InvalidArgument, match="1 is not in the batch, or has been marked as often"):
        batch.fail([2], 1)
    with pytest.raises(InvalidArgument, match="'none'"):
        batch.fail("none")
    assert set(batch.failed) == {0, 1, 2}  # the whole call is refused
    assert batch.ack() == 3
    again = take(buffer)
    assert (again.group, again.items, again.attempts, again.reason) == ("g", [1, {"a": 1}, 1], 2, "too odd")
    again.fail(*again.items)
    assert again.ack(delay=1000) == 0
    assert buffer.stats().delayed == 1


@STRUCTURES
def test_items_fail_by_their_places(client: redis.Redis, structure: str) -> None:
    queue = stocked(client, structure, "a", "b", "c")
    batch = take(queue)
    for places in ([3], [0, -1], [True], ["0"], [1.0]):
        with pytest.raises(InvalidArgument, match="index is"):
            batch.fail_at(*places)
    assert not batch.failed
    batch.fail_at(2, 0, reason="odd")
    batch.fail_at(2)  # again, without a reason
    assert batch.ack() == 1
    again = take(queue)
    assert (again.items, again.reason) == (["a", "c"], "odd")
    again.fail_at()
    assert again.ack() == 2


def test_members_fail_with_their_own_reasons(client: redis.Redis) -> None:
    queue = PriorityQueue(client, "q", max_attempts=1)
    queue.push_many({"a": 0, "b": 1, "d": 2})
    batch = take(queue)
    with pytest.raises(InvalidArgument, match="'c'"):
        batch.fail("c")
    batch.fail("b", reason="odd")
    batch.fail("d")
    assert batch.ack(delay=1000) == 1
    assert [(item.member, item.attempts, item.reason) for item in queue.delayed()] == [("b", 1, "odd"), ("d", 1, "")]


def test_a_member_that_fails_at_its_last_attempt_is_buried(client: redis.Redis) -> None:
    """When it would be handed out again."""
    queue = PriorityQueue(client, "q", max_attempts=1)
    queue.push_many({"a": 0, "b": 1})
    batch = take(queue)
    batch.fail("b", reason="odd")
    assert batch.ack() == 1
    assert queue.state("b") is State.DELAYED
    assert queue.reserve() is None
    (dead,) = queue.dead()
    assert (dead.member, dead.priority, dead.attempts, dead.reason) == ("b", 1, 1, "odd")
    assert dead.time is not None


# -- many batches at once --------------------------------------------------------------------------------------------


@pytest.fixture
def round_trips(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], list[int]]:
    """Return a function that counts a client's round trips from then on: one entry for each."""

    def count(client: Any) -> list[int]:
        connection = client.connection_pool.connection_class
        send, sent = connection.send_packed_command, []

        def send_packed_command(self: Any, command: Any, *args: Any, **options: Any) -> Any:
            sent.append(1)
            return send(self, command, *args, **options)

        monkeypatch.setattr(connection, "send_packed_command", send_packed_command)
        return sent

    return count


@STRUCTURES
def test_many_are_settled_in_one_round_trip(
    server: Server, structure: str, round_trips: Callable[[Any], list[int]]
) -> None:
    with server.client() as client:
        queue: Any = stocked(client, structure, *map(str, range(40)))
        for batch in queue.reserve_many(4, 1):  # so that all scripts are loaded
            queue.extend(batch)
            queue.release(batch, delay=1000)
        queue.ack(*queue.reserve_many(1, 1))
        sent = round_trips(client)
        batches = queue.reserve_many(20, 1)
        assert len(sent) == 1
        assert len(batches) == len({batch.id for batch in batches}) == 20
        assert sorted(int(item) for batch in batches for item in batch.items) == list(range(5, 25))
        queue.extend(*batches, lease=1000)
        assert len(sent) == 2
        assert queue.release(*batches[:10], delay=1000) == 10
        assert len(sent) == 3
        batches[15].fail(*batches[15].items)
        assert queue.ack(*batches[10:]) == 9
        assert len(sent) == 4
        assert all(batch.settled for batch in batches)
        assert queue.ack() == queue.release() == 0
        assert queue.extend() is None
        assert len(sent) == 4  # nothing to settle, nothing to send


@STRUCTURES
async def test_many_are_settled_in_one_asyncio_round_trip(
    server: Server, structure: str, round_trips: Callable[[Any], list[int]]
) -> None:
    async with redis.asyncio.Redis(unix_socket_path=server.socket) as client:
        queue: Any = await async_stocked(client, structure, *map(str, range(20)))
        for warm in await queue.reserve_many(2, 1):
            await queue.extend(warm)
            await queue.release(warm, delay=1000)
        await queue.ack(*await queue.reserve_many(1, 1))
        sent = round_trips(client)
        batches = await queue.reserve_many(10, 1)
        await queue.extend(*batches, lease=1000)
        assert await queue.release(*batches[:4], delay=1000) == 4
        assert await queue.ack(*batches[4:]) == 6
        assert len(sent) == 4


@STRUCTURES
def test_lost_leases_are_raised_after_all_batches_were_tried(client: redis.Redis, structure: str) -> None:
    queue: Any = stocked(client, structure, *map(str, range(9)))
    batches = queue.reserve_many(9, 1)
    for done in (batches[2], batches[5]):
        queue.ack(done)
    lost = [batches[2].id, batches[5].id]
    for batch in batches:
        batch.settled = False
    with pytest.raises(LeaseLost, match=lost[0]) as caught:
        queue.extend(*batches[:6])
    assert caught.value.ids == lost
    assert [batch.settled for batch in batches[:6]] == [False, False, True, False, False, True]
    with pytest.raises(LeaseLost) as caught:
        queue.release(*batches[:6], delay=1000)
    assert caught.value.ids == lost
    assert counts(queue) == (0, 3, 4, 0)  # the other four of the call are released
    with pytest.raises(LeaseLost) as caught:
        queue.ack(batches[0], *batches[6:])
    assert caught.value.ids == [batches[0].id]
    assert counts(queue) == (0, 0, 4, 0)


def test_members_that_are_removed_meanwhile_do_not_count(client: redis.Redis) -> None:
    queue = PriorityQueue(client, "q")
    queue.push_many({"a": 0, "b": 1, "c": 2})
    batch = take(queue)
    assert queue.remove("b", "b") == 1
    assert queue.state("b") is State.ABSENT
    assert queue.stats().leased == 3  # the holder still has it until the lease ends
    batch.extend(1000)
    assert batch.ack() == 2
    queue.push_many({"a": 0, "b": 1})
    batch = take(queue)
    queue.remove("a")
    queue.push("b", 5)
    assert batch.release(reason="later") == 1
    assert [(item.member, item.attempts, item.reason) for item in queue.delayed()] == [("b", 0, "later")]
    queue.purge()
    queue.push("a")
    batch = take(queue)
    queue.remove("a")
    assert queue.push("a", 3) is Pushed.ADDED  # only a push after the removal counts
    assert batch.ack() == 1
    assert take(queue).priorities == [3]
    assert counts(queue) == (0, 1, 0, 0)


@STRUCTURES
def test_a_lease_is_lost_as_a_whole(client: redis.Redis, structure: str) -> None:
    queue: Any = stocked(client, structure, "a", "b", "c", lease=0.001)
    batch = take(queue)
    other = take(queue, 1, timeout=30, lease=30)  # the first lease has expired by then
    assert other.attempts == 2
    assert other.reason.startswith("lease ran out: ")
    for act in (batch.extend, batch.ack, batch.release, batch.bury):
        with pytest.raises(LeaseLost) as caught:
            act()
        assert caught.value.ids == [batch.id]
    assert batch.lost


@STRUCTURES
def test_settling_again_returns_the_first_answer_and_another_verb_is_lost(client: redis.Redis, structure: str) -> None:
    queue: Any = stocked(client, structure, "a", "b", "c")
    batch = take(queue, 2)
    assert batch.ack() == batch.ack() == 2
    with pytest.raises(LeaseLost):
        batch.release()
    with pytest.raises(LeaseLost):
        batch.extend()
    batch = take(queue, 2)
    assert batch.release(delay=1000) == batch.release() == 1
    for act in (batch.ack, batch.bury, batch.extend):
        with pytest.raises(LeaseLost):
            act()
    queue.push(*("d",))
    batch = take(queue, 2)
    assert batch.bury("odd") == batch.bury("another") == 1
    for act in (batch.ack, batch.release, batch.extend):
        with pytest.raises(LeaseLost):
            act()
    (dead,) = queue.dead()
    assert dead.reason == "odd"


@STRUCTURES
def test_a_batch_given_twice_counts_once(client: redis.Redis, structure: str) -> None:
    queue: Any = stocked(client, structure, "a", "b")
    batch = take(queue)
    assert queue.ack(batch, batch) == 2


@STRUCTURES
def test_reserve_many_takes_distinct_batches(client: redis.Redis, structure: str) -> None:
    queue: Any = stocked(client, structure, "a", "b", "c")
    batches = queue.reserve_many(10, 2, lease_id="mine")
    assert [batch.items for batch in batches] == [["a", "b"], ["c"]]
    assert all(batch.id.startswith("mine") for batch in batches)
    again = queue.reserve_many(10, 2, lease_id="mine")  # sent again: the same batches
    assert [(batch.id, batch.items) for batch in again] == [(batch.id, batch.items) for batch in batches]
    if isinstance(queue, Buffer):
        for group, length in (("x", 3), ("y", 2), ("z", 4)):
            queue.push(*["item"] * length, group=group)
        assert [batch.group for batch in queue.reserve_many(3)] == ["z", "x", "y"]
    assert queue.reserve_many(3) == []


# -- leases ----------------------------------------------------------------------------------------------------------


@STRUCTURES
def test_a_lease_id_belongs_to_one_batch_forever(client: redis.Redis, structure: str) -> None:
    queue: Any = stocked(client, structure, "a", "b", "c")
    batch = take(queue, 1, lease_id="mine")
    again = take(queue, 2, lease_id="mine")
    assert (again.id, again.items, again.attempts, again.deadline) == ("mine", ["a"], 1, batch.deadline)
    assert batch.ack() == 1
    assert queue.reserve(lease_id="mine") is None
    assert take(queue, 1, lease_id="other").items == ["b"]


@STRUCTURES
def test_an_extended_lease_is_still_one_batch(client: redis.Redis, structure: str) -> None:
    queue: Any = stocked(client, structure, "a", "b")
    batch = take(queue, 1, lease_id="mine", lease=100)
    batch.extend(2000)
    assert take(queue, 1, lease_id="mine").items == ["a"]


@STRUCTURES
def test_a_batch_names_its_holder(client: redis.Redis, structure: str) -> None:
    """Host and process by default, or a custom name; the listing shows it."""
    queue: Any = stocked(client, structure, "a", "b")
    first, second = take(queue, 1), take(queue, 1, holder="it's me: é\udcff")
    assert first.holder == f"{socket.gethostname()}:{os.getpid()}"
    assert second.holder == "it's me: é\udcff"
    assert {(batch.id, batch.holder) for batch in queue.leased()} == {(b.id, b.holder) for b in (first, second)}
    with pytest.raises(InvalidArgument, match="holder"):
        queue.reserve(holder="")
    assert queue.reserve_many(1, holder="x") == []


@STRUCTURES
def test_a_release_without_count_is_not_an_attempt(client: redis.Redis, structure: str) -> None:
    queue: Any = stocked(client, structure, "a", max_attempts=1)
    for _ in range(3):
        batch = take(queue)
        assert batch.attempts == 1
        assert batch.release(count=False, reason="429") == 1
    assert queue.stats().failed == 0
    assert take(queue).reason == "429"


@STRUCTURES
def test_max_bytes_limits_a_batch(client: redis.Redis, structure: str) -> None:
    """At least one item is handed out, and a batch that comes back is not limited."""
    queue: Any = stocked(client, structure, "aaaa", "bbbb", "cccc", "d", "e")
    batches = queue.reserve_many(5, 10, max_bytes=12)
    assert [len(batch.items) for batch in batches] == ([2, 3] if structure == "buffer" else [3, 2])  # JSON and text
    queue.release(*batches)
    if structure == "buffer":
        assert [len(batch.items) for batch in queue.reserve_many(5, 1, max_bytes=1)] == [2, 3]
    else:
        assert [len(batch.items) for batch in queue.reserve_many(9, 10, max_bytes=1)] == [1] * 5


def test_payloads_count_towards_max_bytes(client: redis.Redis) -> None:
    queue = PriorityQueue(client, "q", payload_codec=BYTES)
    queue.push_many([("a", 0, b"x" * 5), ("b", 1, b"x" * 5), ("c", 2, b"")])
    assert [batch.items for batch in queue.reserve_many(5, 9, max_bytes=12)] == [["a", "b"], ["c"]]


# -- payloads and priorities -----------------------------------------------------------------------------------------


def test_a_payload_comes_with_its_member(client: redis.Redis) -> None:
    """The newest wins, a push without one keeps the stored one, and the holder keeps its copy."""
    queue = PriorityQueue(client, "q")
    assert queue.push("a", payload={"v": 1}) is Pushed.ADDED
    assert queue.push("a", 5, payload={"v": 2}) is Pushed.KEPT
    assert queue.push("a") is Pushed.KEPT
    queue.push("b", 1)
    assert queue.peek(2) == [Item("a", 0, 0, {"v": 2}), Item("b", 1, 0)]
    batch = take(queue)
    assert (batch.items, batch.payloads) == (["a", "b"], [{"v": 2}, None])
    queue.push("a", payload=[3])
    assert batch.payloads == [{"v": 2}, None]
    assert take(queue, lease_id=batch.id).payloads == [[3], None]  # sent again: as it is stored now
    assert batch.ack() == 2
    assert queue.pop() == Item("a", 0, 1, [3])
    queue.push("a")
    assert queue.pop() == Item("a", 0, 1)


@pytest.mark.parametrize("state", ["delayed", "dead"])
def test_a_payload_belongs_to_the_member_in_every_state(client: redis.Redis, state: str) -> None:
    queue = PriorityQueue(client, "q")
    queue.push("m", 7, payload="p")
    batch = take(queue)
    if state == "dead":
        batch.bury("why")
    else:
        batch.release(delay=1000, reason="why")
    (item,) = getattr(queue, state)()
    assert item == Item("m", 7, 1, "p", "why", item.time)
    assert queue.push("m", 9) is (Pushed.ADDED if state == "dead" else Pushed.RAISED)
    assert queue.pop() == Item("m", 9 if state == "dead" else 7, 1, "p")


def test_replace_sets_priority_and_time_exactly(client: redis.Redis) -> None:
    """To debounce and to demote; for a leased member, it applies when it comes back."""
    queue = PriorityQueue(client, "q")
    assert queue.push("a", 1, delay=1000) is Pushed.ADDED
    assert queue.push("a", 1, delay=2000) is Pushed.KEPT
    assert queue.push("a", 1, delay=3000, replace=True) is Pushed.CHANGED
    assert queue.push("a", 1, delay=3000, replace=True) is not Pushed.ADDED
    assert queue.push("a", 0, delay=10, replace=True) is Pushed.RAISED
    assert queue.push("b", 1) is Pushed.ADDED
    assert queue.push("b", 5, replace=True) is Pushed.CHANGED
    assert queue.push_many({"b": 6, "c": 2}, replace=True) == {Pushed.CHANGED: 1, Pushed.ADDED: 1}
    batch = take(queue, 1)
    assert batch.items == ["c"]
    assert queue.push("c", 9, replace=True) is Pushed.ADDED
    assert queue.push("c", 8) is Pushed.RAISED
    assert batch.release() == 1
    assert [(item.member, item.priority) for item in queue.pop_many(3)] == [("b", 6), ("c", 8)]


# -- ordered groups --------------------------------------------------------------------------------------------------


def test_an_ordered_group_has_one_batch_at_a_time(client: redis.Redis) -> None:
    """With failures and other groups in between, until the batch is done or dead."""
    buffer = Buffer[int](client, "q", ordered=True)
    buffer.push(1, 2, 3, 4, group="g")
    buffer.push(9, group="h")
    first, other = take(buffer, 2), take(buffer, 2)
    assert (first.items, other.items) == ([1, 2], [9])
    assert buffer.reserve() is None
    assert buffer.pop("g") == []
    assert buffer.pop_longest() == {}
    assert buffer.groups(state="busy") == {"g": 2, "h": 0}
    assert buffer.stats().busy_groups == 2
    buffer.push(5, group="g")
    first.fail(2)
    assert first.ack() == 1
    again = take(buffer, 9)
    assert again.items == [2]
    again.release()
    again = take(buffer, 9)
    assert again.ack() == 1
    assert take(buffer, 9).items == [3, 4, 5]
    assert other.bury() == 1
    assert buffer.groups(state="busy") == {"g": 0}


def test_an_isolated_batch_is_split_until_only_the_failing_item_is_dead(client: redis.Redis) -> None:
    buffer = Buffer[int](client, "q", isolate=True, max_attempts=2)
    buffer.push(*range(8), group="g")
    done: list[int] = []
    sizes = []
    while batch := buffer.reserve():
        sizes.append(len(batch.items))
        if 5 in batch.items:
            batch.release(reason="five")
        else:
            done += batch.items
            batch.ack()
    assert sizes[:4] == [8, 8, 4, 4]
    assert sorted(done) == [0, 1, 2, 3, 4, 6, 7]
    (dead,) = buffer.dead()
    assert (dead.items, dead.reason) == ([5], "five")


@STRUCTURES
def test_the_oldest_dead_letters_beyond_max_dead_are_dropped(client: redis.Redis, structure: str) -> None:
    queue: Any = stocked(client, structure, *"abcdef", max_dead=2)
    for batch in queue.reserve_many(6, 1):
        batch.bury()
    assert [getattr(one, "member", None) or one.items[0] for one in queue.dead()] == ["e", "f"]
    stats = queue.stats()
    assert (stats.dead, stats.buried, stats.trimmed) == (2, 6, 4)


@STRUCTURES
def test_a_lease_is_extended_and_never_shortened(client: redis.Redis, structure: str) -> None:
    queue: Any = stocked(client, structure, "a", lease=500)
    batch = take(queue)
    first = batch.deadline
    batch.extend(1)
    assert batch.deadline == first == queue.stats().next_expiry
    batch.extend(1000)
    assert first + 499 < batch.deadline == queue.stats().next_expiry
    assert take(queue, lease_id=batch.id).deadline == batch.deadline
    assert take(stocked(client, structure, "b"), lease=2).deadline < first  # the call's own lease


# -- waiting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.0, 0.0001, 0.001, 0.0014])
def test_no_wait_is_so_short_that_a_server_blocks_forever(seconds: float) -> None:
    """BLPOP with a timeout of 0.001 never ends on Redis 6.2."""
    assert block_seconds(seconds, None) >= 0.002
    assert block_seconds(seconds, 0.001) >= 0.002


@pytest.mark.usefixtures("no_polling")
def test_nothing_arrives_within_the_timeout(client: redis.Redis) -> None:
    assert Buffer[int](client, "b").reserve(timeout=0.05) is None
    assert PriorityQueue(client, "p").reserve(timeout=0.05) is None
    assert PriorityQueue(client, "p").pop(timeout=0.05) is None


@pytest.mark.usefixtures("no_polling")
def test_a_due_time_ends_the_wait(client: redis.Redis) -> None:
    """Of a delay, a backoff, a lease, or a group's max_wait: at the time that the reply names."""
    queue = PriorityQueue(client, "p")
    queue.push("a", delay=0.2)
    assert queue.pop(timeout=30) == Item("a", 0, 1)
    queue.push("b", delay=0.2)
    batch = take(queue, timeout=30)
    batch.release(delay=0.2)
    again = take(queue, timeout=30, lease=0.2)
    assert (again.items, again.attempts) == (["b"], 2)
    assert take(queue, timeout=30).attempts == 3

    buffer = Buffer[int](client, "b", min_size=5, max_wait=0.2)
    buffer.push(1)
    waited = take(buffer, timeout=30)
    assert waited.items == [1]
    waited.release(delay=0.2)
    assert take(buffer, timeout=30, lease=0.2).attempts == 2
    assert take(buffer, timeout=30).attempts == 3


@pytest.mark.usefixtures("no_polling")
@STRUCTURES
def test_the_wait_ends_when_a_rate_allows_more(client: redis.Redis, structure: str) -> None:
    queue: Any = stocked(client, structure, "a", "b", "c", rates=[Rate(1, 0.3), Rate(100, 60)])
    batches = [take(queue, 1, timeout=30) for _ in range(3)]
    assert [batch.items for batch in batches] == [["a"], ["b"], ["c"]]
    deadlines = [batch.deadline for batch in batches]
    assert deadlines[1] - deadlines[0] > 0.3
    assert deadlines[2] - deadlines[1] > 0.3


@pytest.mark.usefixtures("no_polling")
@pytest.mark.server
def test_one_push_wakes_as_many_clients_as_it_has_work_for(server: Server) -> None:
    """Three clients wait on each structure; one that takes a part of the items wakes the next."""
    with server.client(socket_timeout=None) as client, ThreadPoolExecutor(9) as pool:
        buffer, queue, popped = Buffer[int](client, "b"), PriorityQueue(client, "p"), PriorityQueue(client, "o")
        reserving: list[Any] = [pool.submit(buffer.reserve, 1, timeout=30) for _ in range(3)]
        taking: list[Any] = [pool.submit(queue.reserve, 1, timeout=30) for _ in range(3)]
        popping: list[Any] = [pool.submit(popped.pop, timeout=30) for _ in range(3)]
        while client.info("clients")["blocked_clients"] < 9:
            assert not any(each.done() for each in reserving + taking + popping)
        buffer.push(1, 2, 3)
        queue.push_many({"a": 0, "b": 0, "c": 0})
        popped.push_many({"a": 0, "b": 0, "c": 0})
        assert sorted(each.result(20).items for each in reserving) == [[1], [2], [3]]
        assert sorted(each.result(20).items for each in taking) == [["a"], ["b"], ["c"]]
        assert sorted(each.result(20).member for each in popping) == ["a", "b", "c"]


async def ends_soon(call: Awaitable[R]) -> R:
    """Wait for a call that must end well before its own timeout of 30 seconds."""
    return await asyncio.wait_for(call, 20)


@pytest.mark.usefixtures("no_polling")
async def test_asyncio_waits_for_a_time_and_a_rate(aclient: redis.asyncio.Redis) -> None:
    queue = redisq.asyncio.PriorityQueue(aclient, "p", rates=[Rate(1, 0.3)])
    await queue.push("a", delay=0.2)
    assert await ends_soon(queue.pop(timeout=30)) == Item("a", 0, 1)
    await queue.push_many({"b": 0, "c": 0}, delay=0.2)
    first, second = await ends_soon(queue.reserve(timeout=30)), await ends_soon(queue.reserve(timeout=30))
    assert first
    assert second
    assert second.deadline - first.deadline > 0.3
    buffer = redisq.asyncio.Buffer[int](aclient, "b", min_size=5, max_wait=0.2)
    assert await buffer.reserve(timeout=0.05) is None
    await buffer.push(1)
    batch = await ends_soon(buffer.reserve(timeout=30))
    assert batch
    await batch.release(delay=0.2)
    batch = await ends_soon(buffer.reserve(timeout=30))
    assert batch
    assert (batch.items, batch.attempts) == ([1], 2)


@pytest.mark.usefixtures("no_polling")
@pytest.mark.server
async def test_a_push_wakes_asyncio(server: Server) -> None:
    async with redis.asyncio.Redis(unix_socket_path=server.socket, socket_timeout=None) as client:
        buffer, queue = redisq.asyncio.Buffer[int](client, "b"), redisq.asyncio.PriorityQueue(client, "p")
        other = redisq.asyncio.PriorityQueue(client, "o")
        waits: tuple[Any, ...] = (buffer.reserve(timeout=30), queue.reserve(timeout=30), other.pop(timeout=30))
        waiting = [asyncio.ensure_future(ends_soon(each)) for each in waits]
        while (await client.info("clients"))["blocked_clients"] < 3:
            assert not any(each.done() for each in waiting)
        await buffer.push(1)
        assert await queue.push("a") is Pushed.ADDED
        await other.push("b", 2)
        batch, members, item = await asyncio.gather(*waiting)
        assert (batch.items, members.items, item) == ([1], ["a"], Item("b", 2, 1))


# -- bad arguments ---------------------------------------------------------------------------------------------------

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


# -- bytes that cannot be decoded ------------------------------------------------------------------------------------


def test_a_batch_that_cannot_be_decoded_is_in_the_error_and_leased(client: redis.Redis) -> None:
    Buffer[bytes](client, "b", codec=BYTES).push(b"1", b"\xff", group="g")
    PriorityQueue[bytes](client, "p", codec=BYTES).push_many([(b"a", 0), (b"\xff", 1)])
    queues: list[tuple[Any, str | None, list[bytes]]] = [
        (Buffer[int](client, "b"), "g", [b"1", b"\xff"]),
        (PriorityQueue(client, "p"), None, [b"a", b"\xff"]),
    ]
    for queue, group, raw in queues:
        with pytest.raises(CodecError) as caught:
            queue.reserve(10)
        batch = caught.value.raw
        assert isinstance(batch, BatchData)
        assert (batch.group, batch.items, batch.raw, batch.attempts) == (group, raw, raw, 1)
        assert batch.deadline == queue.stats().next_expiry
        assert counts(queue) in [(0, 1, 0, 0), (0, 2, 0, 0)]
        queue.extend(batch, lease=1000)
        assert queue.release(batch) == 2
        with pytest.raises(CodecError) as caught:
            queue.reserve_many(1, 10)
        batch = caught.value.raw
        assert batch.attempts == 2
        batch.fail(b"\xff")
        assert queue.ack(batch) == 1
    assert take(Buffer[bytes](client, "b", codec=BYTES)).items == [b"\xff"]
    assert take(PriorityQueue[bytes](client, "p", codec=BYTES)).items == [b"\xff"]


async def test_a_batch_that_asyncio_cannot_decode_is_in_the_error(aclient: redis.asyncio.Redis) -> None:
    await redisq.asyncio.Buffer[bytes](aclient, "b", codec=BYTES).push(b"\xff", group="g")
    buffer = redisq.asyncio.Buffer[int](aclient, "b")
    with pytest.raises(CodecError) as caught:
        await buffer.reserve()
    assert caught.value.raw.items == [b"\xff"]
    assert (await buffer.stats()).leased == 1
    assert await buffer.ack(caught.value.raw) == 1


# -- dead letters and counts -----------------------------------------------------------------------------------------


def test_dead_batches_are_listed_page_by_page(client: redis.Redis) -> None:
    buffer = Buffer[int](client, "q", max_attempts=2)
    for group in ("a", "b", "c"):
        buffer.push(1, 2, group=group)
    for attempt in range(2):
        buffer.release(*buffer.reserve_many(3), reason=f"attempt {attempt}")
    assert buffer.reserve() is None
    dead = buffer.dead()
    assert {batch.group for batch in dead} == {"a", "b", "c"}
    assert all((batch.items, batch.attempts, batch.reason) == ([1, 2], 2, "attempt 1") for batch in dead)
    assert [batch.deadline for batch in dead] == sorted(batch.deadline for batch in dead)
    ids = [batch.id for batch in dead]
    assert [batch.id for batch in buffer.dead(2)] == ids[:2]
    assert [batch.id for batch in buffer.dead(2, after=ids[1])] == ids[2:]
    assert buffer.dead(after=ids[2]) == []
    assert [batch.id for batch in buffer.dead(1, after="nobody")] == ids[:1]
    with pytest.raises(LeaseLost):
        dead[0].ack()

    assert buffer.redrive(ids[0], "nobody", ids[0], token="once") == 1
    again = take(buffer)
    assert (again.group, again.items, again.attempts, again.reason) == (dead[0].group, [1, 2], 1, "")
    again.release()
    assert buffer.redrive(ids[0], "nobody", ids[0], token="once") == 1  # sent again: no further effect
    assert buffer.discard(ids[1], ids[1], "nobody") == 1
    assert counts(buffer) == (0, 0, 1, 1)
    assert [batch.id for batch in buffer.dead()] == ids[2:]
    assert buffer.redrive() == buffer.discard() == 0


def test_redriven_items_come_first_in_the_order_of_their_ids(client: redis.Redis) -> None:
    """In front of waiting items; more batches than fit into one call."""
    buffer = Buffer[int](client, "q")
    buffer.push(*range(600), group="g")
    batches = buffer.reserve_many(600, 1)
    assert buffer.bury(*batches) == 600
    buffer.push(600, group="g")
    ids = [batch.id for batch in reversed(batches)]
    assert buffer.redrive(*ids) == 600
    assert buffer.pop("g", 1000) == [*reversed(range(600)), 600]


def test_an_interrupted_redrive_can_be_repeated(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same token: only the rest is done, and the result is the total."""
    buffer = Buffer[int](client, "q")
    buffer.push(*range(600), group="g")
    batches = buffer.reserve_many(600, 1)
    buffer.bury(*batches)
    ids = [batch.id for batch in batches]
    exchange: Any = buffer.runner._exchange
    calls = 0

    def stop_at_the_third(*commands: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise redis.ConnectionError("gone")
        return exchange(*commands, **options)

    client.script_load(load("buffer/redrive").text)
    monkeypatch.setattr(buffer.runner, "_exchange", stop_at_the_third)
    with pytest.raises(redis.ConnectionError):
        buffer.redrive(*ids, token="t")
    assert buffer.stats().dead == 600 - 2 * load("buffer/redrive").limit("id")[1]
    assert buffer.redrive(*ids, token="t") == 600
    assert buffer.pop("g", 1000) == list(range(600))


@STRUCTURES
def test_leased_and_delayed_batches_are_listed_page_by_page(client: redis.Redis, structure: str) -> None:
    queue: Any = stocked(client, structure, *"abcde")
    leased = [take(queue, 1, lease=1000 + i) for i in range(3)]
    assert [batch.id for batch in queue.leased(2)] == [batch.id for batch in leased[:2]]
    (last,) = queue.leased(after=leased[1].id)
    assert (last.id, last.items, last.deadline, last.holder) == (
        leased[2].id,
        leased[2].items,
        leased[2].deadline,
        leased[2].holder,
    )
    assert last.ack() == 1  # a batch like any other
    for i, batch in enumerate(leased[:2]):
        batch.release(delay=1000 + i, reason=f"number {i}")
    first, second = queue.delayed()
    assert [first.reason, second.reason] == ["number 0", "number 1"]
    name = first.id if structure == "buffer" else first.member
    assert [one.reason for one in queue.delayed(1, after=name)] == ["number 1"]
    due = [one.deadline if structure == "buffer" else one.time for one in (first, second)]
    assert due[0] < due[1]


def test_dead_members_are_listed_in_the_order_of_their_burial(client: redis.Redis) -> None:
    queue = PriorityQueue(client, "q")
    queue.push_many({"c": 1, "a": 2, "b": 3})
    for batch in queue.reserve_many(3):
        batch.bury(f"not {batch.items[0]}")
    found = queue.dead()
    assert [(item.priority, item.attempts, item.reason) for item in found] == [
        (item.priority, 1, f"not {item.member}") for item in found
    ]
    times = [item.time or 0 for item in found]
    assert times == sorted(times)
    names = [item.member for item in found]
    assert set(names) == {"a", "b", "c"}
    assert [item.member for item in queue.dead(2)] == names[:2]
    assert [item.member for item in queue.dead(2, after=names[1])] == names[2:]
    assert queue.dead(after=names[2]) == []
    assert [item.member for item in queue.dead(1, after="nobody")] == names[:1]
    assert queue.reserve() is None
    assert queue.pop() is None
    assert queue.state("a") is State.DEAD

    assert queue.redrive("c", "nobody", "c") == 1
    assert queue.pop() == Item("c", 1, 1)
    assert queue.discard("a", "a", "nobody") == 1
    assert queue.state("a") is State.ABSENT
    assert queue.push("b", 5) is Pushed.ADDED  # pushed again, it starts afresh
    assert queue.pop() == Item("b", 5, 1)
    assert counts(queue) == (0, 0, 0, 0)
    assert queue.redrive() == queue.discard() == 0


async def test_dead_letters_by_asyncio(aclient: redis.asyncio.Redis) -> None:
    buffer = redisq.asyncio.Buffer[int](aclient, "b", max_attempts=1)
    await buffer.push(1, group="g")
    await buffer.release(*await buffer.reserve_many(1))
    assert await buffer.reserve() is None
    (dead,) = await buffer.dead()
    assert (dead.group, dead.items, dead.attempts) == ("g", [1], 1)
    assert await buffer.redrive(dead.id) == 1
    queue = redisq.asyncio.PriorityQueue(aclient, "p")
    await queue.push("m", 3)
    batch = await queue.reserve()
    assert batch
    assert await batch.bury("odd") == 1
    (item,) = await queue.dead()
    assert item == Item("m", 3, 1, None, "odd", item.time)
    assert await queue.discard("m") == 1


def test_stats_of_a_buffer(client: redis.Redis) -> None:
    buffer = Buffer[int](client, "q", max_attempts=1)
    empty = BufferStats(0, 0, 0, 0, None, 0, 0, 0, 0, None, 0, 0, 0, 0, False, "", None)
    assert buffer.stats() == empty
    for group in "abcd":
        buffer.push(1, group=group)
    a, b, c = buffer.reserve_many(3)
    assert [batch.group for batch in (a, b, c)] == ["d", "c", "b"]
    buffer.release(a)
    assert buffer.stats().due == 1
    assert buffer.reserve()  # a is buried on the way
    b.release(delay=1000)
    c.extend(1000)
    buffer.push(1, 2, 3, group="e")
    buffer.push(1, group="f")
    stats = buffer.stats()
    assert (stats.waiting, stats.groups, stats.leased, stats.delayed, stats.dead, stats.due) == (4, 2, 2, 1, 1, 0)
    assert (stats.done, stats.failed, stats.buried, stats.trimmed) == (0, 2, 1, 0)
    assert stats.oldest_wait is not None
    assert stats.oldest_wait >= 0
    assert stats.next_expiry is not None
    assert stats.next_expiry < c.deadline  # that of another lease
    assert c.ack() == 1
    assert buffer.stats().done == 1


def test_stats_of_a_priority_queue(client: redis.Redis) -> None:
    queue = PriorityQueue(client, "q", max_attempts=1)
    assert queue.stats() == PriorityStats(0, 0, 0, 0, 0, 0, None, 0, 0, 0, 0, False, "", None)
    queue.push_many((f"{i:04}", 0) for i in range(1300))
    queue.push_many(((f"later {i}", 0) for i in range(20)), delay=1000)
    queue.release(take(queue, 7))
    assert queue.stats().due == 7
    batch = take(queue, 3)  # the seven are buried on the way
    take(queue, 500, lease=1000)
    expected = PriorityStats(790, 20, 503, 7, 2, 0, batch.deadline, 0, 7, 7, 0, False, "", None)
    assert queue.stats() == expected
    assert batch.ack() == 3
    assert queue.stats().done == 3


@STRUCTURES
def test_a_paused_queue_hands_out_nothing(client: redis.Redis, structure: str) -> None:
    """Pushes and settlements go on; stats say why it is paused, and until when."""
    queue: Any = stocked(client, structure, "a", "b")
    batch = take(queue, 1)
    client.set("redisq:{q}:paused", "0 the API is down")
    assert queue.reserve() is None
    assert (queue.pop() or None) is None
    queue.push(*("c",))
    assert batch.ack() == 1
    stats = queue.stats()
    assert (stats.paused, stats.pause_reason, stats.paused_until) == (True, "the API is down", None)
    client.set("redisq:{q}:paused", "4000000000000 ", px=100_000)
    assert queue.stats().paused_until == 4_000_000_000
    assert queue.reserve(timeout=0.01) is None
    client.set("redisq:{q}:paused", "1000 long ago")
    assert not queue.stats().paused
    take(queue)


# -- clients ---------------------------------------------------------------------------------------------------------

SETTINGS: list[dict[str, Any]] = [
    {},
    {"decode_responses": True},
    {"protocol": 3},
    {"protocol": 3, "decode_responses": True},
    {"decode_responses": True, "encoding": "latin-1"},
]


@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_results_do_not_depend_on_the_clients_settings(make_client: MakeClient, options: dict[str, Any]) -> None:
    """Payloads, groups and lease ids are unchanged, from reserve to the dead letters."""
    client = make_client(**options)
    items = [b"\xff\xfe", b"", b"\0", b"plain"]
    buffer = Buffer[bytes](client, "b é", codec=BYTES, max_attempts=2)
    buffer.push(*items, group="g\udcff")
    batch = take(buffer, lease_id="l\udcff", holder="h\udcff")
    (shown,) = buffer.leased()
    assert (shown.id, shown.items, shown.holder) == (batch.id, items, "h\udcff")
    assert (batch.id, batch.group, batch.items) == ("l\udcff", "g\udcff", items)
    assert isinstance(batch.deadline, float)
    batch.extend()
    batch.fail(b"\0")
    assert batch.ack() == 3
    assert take(buffer).release(reason="why: é") == 1
    assert buffer.reserve(timeout=0.01) is None
    (dead,) = buffer.dead()
    assert (dead.group, dead.items, dead.attempts, dead.reason) == ("g\udcff", [b"\0"], 2, "why: é")
    assert buffer.redrive(dead.id) == 1
    assert buffer.ack(*buffer.reserve_many(2)) == 1

    queue = PriorityQueue[bytes](client, "p é", codec=BYTES, payload_codec=BYTES, max_attempts=2)
    queue.push_many((item, i, item[::-1]) for i, item in enumerate(items))
    members = take(queue, lease_id="l\udcff")
    assert (members.id, members.group, members.items) == ("l\udcff", None, items)
    assert members.payloads == [item[::-1] for item in items]
    (held,) = queue.leased()
    assert (held.items, held.payloads, held.priorities) == (items, members.payloads, [0, 1, 2, 3])
    members.extend()
    members.fail(b"\0")
    assert members.ack() == 3
    assert take(queue).release(reason="why: é") == 1
    assert queue.reserve(timeout=0.01) is None
    (gone,) = queue.dead()
    assert gone == Item(b"\0", 2, 2, b"\0", "why: é", gone.time)
    assert queue.dead(after=b"\0") == []
    assert queue.redrive(b"\0") == 1
    assert queue.ack(*queue.reserve_many(2)) == 1
    assert buffer.audit().ok
    assert queue.audit().ok
