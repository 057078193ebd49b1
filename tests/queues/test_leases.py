"""Leases: their ids and holders, how they are extended and lost, and what happens to members meanwhile."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest
import redis

from redisq import InvalidArgument, LeaseLost, PriorityQueue, Pushed, State
from tests.queues.structures import STRUCTURES, counts, stocked, take


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
