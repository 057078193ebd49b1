"""What a queue shows of itself: leased and delayed batches page by page, and its stats."""

from __future__ import annotations

from typing import Any

import redis

from redisq import Buffer, BufferStats, PriorityQueue, PriorityStats
from tests.queues.structures import STRUCTURES, stocked, take


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
