"""Attempts: what counts as one, and what happens after the last."""

from __future__ import annotations

from typing import Any

import redis

from redisq import Buffer, PriorityQueue, State
from tests.queues.structures import STRUCTURES, stocked, take


@STRUCTURES
def test_a_release_without_count_is_not_an_attempt(client: redis.Redis, structure: str) -> None:
    queue: Any = stocked(client, structure, "a", max_attempts=1)
    for _ in range(3):
        batch = take(queue)
        assert batch.attempts == 1
        assert batch.release(count=False, reason="429") == 1
    assert queue.stats().failed == 0
    assert take(queue).reason == "429"


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
