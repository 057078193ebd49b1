"""An empty queue leaves nothing behind: it has no key without a TTL, whichever call took its last item.

Its mark and its counters stay for seven days, and the next push keeps them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import redis

from redisq import Batch, Buffer, PriorityQueue, Rate, RateLimiter, WrongOrder
from redisq.blocking.runner import Runner
from redisq.core.batch import batch_of
from redisq.embedded import Server
from tests.scripts.backends import at, reserve_at

LATE = 4_000_000_000_000  # by then every lease has expired, and every delay is over
WEEK = 604_800_000
Q = "redisq:{q}:"


def persistent_keys(client: redis.Redis) -> set[str]:
    """Return the keys without a TTL."""
    found: Any = client.keys()
    return {name.decode() for name in found if client.pttl(name) == -1}


def take(queue: Any, *args: Any, **options: Any) -> Batch[Any]:
    """Reserve a batch that must be there."""
    batch: Batch[Any] | None = queue.reserve(*args, **options)
    assert batch
    return batch


def take_late(client: redis.Redis, queue: Any, *args: Any) -> Batch[Any]:
    """Reserve a batch that must be there when everything is due."""
    batch = batch_of(reserve_at(client, LATE, partial(queue.calls.reserve, *args)))
    assert batch
    return Batch(queue, batch)


Drain = Callable[[redis.Redis], object]

# -- the buffer ------------------------------------------------------------------------------------------------------


def buffer(client: redis.Redis, *items: int, group: str = "g", **settings: Any) -> Buffer[int]:
    """Return a buffer with some items."""
    made: Buffer[int] = Buffer(client, "q", **settings)
    if items:
        made.push(*items, group=group)
    return made


def popped(client: redis.Redis) -> None:
    queue = buffer(client, 1, 2, 3)
    queue.pop("g", 2)
    queue.pop("g", 2)


def popped_group_by_group(client: redis.Redis) -> None:
    queue = buffer(client, 1, 2)
    queue.push(3, group="h")
    queue.pop("g", 2)
    assert persistent_keys(client) >= {f"{Q}meta"}
    queue.pop("h", 1)


def popped_longest(client: redis.Redis) -> None:
    queue = buffer(client, 1, 2, 3)
    queue.push(1, group="h")
    queue.pop_longest(1, 10)
    queue.pop_longest(5, 10)


def acked(client: redis.Redis) -> None:
    queue = buffer(client, 1, 2)
    for _ in range(2):
        take(queue, 1).ack()


def acked_in_one_call(client: redis.Redis) -> None:
    queue = buffer(client, 1, 2, 3)
    queue.ack(*queue.reserve_many(3, 1))


def acked_after_failures(client: redis.Redis) -> None:
    queue = buffer(client, 1, 2)
    batch = take(queue)
    batch.fail(2, reason="why")
    batch.ack(delay=1000)
    take_late(client, queue).ack()


def acked_after_a_release(client: redis.Redis) -> None:
    queue = buffer(client, 1)
    take(queue).release(reason="why")
    take(queue).ack()


def acked_after_the_lease_expired(client: redis.Redis) -> None:
    queue = buffer(client, 1, 2)
    take(queue)
    take_late(client, queue).ack()


def acked_in_order(client: redis.Redis) -> None:
    queue = buffer(client, 1, 2, 3, ordered=True)
    batch = take(queue, 2)
    batch.fail(2)
    batch.ack()
    take(queue).ack()
    take(queue).ack()


def acked_in_halves(client: redis.Redis) -> None:
    queue = buffer(client, 1, 2, 3, isolate=True, max_attempts=1)
    take(queue).release()
    while batch := queue.reserve():
        batch.ack()


def buried_and_discarded(client: redis.Redis) -> None:
    queue = buffer(client, 1)
    batch = take(queue)
    batch.bury("why")
    assert persistent_keys(client) >= {f"{Q}meta", f"{Q}dead", f"{Q}batch:{batch.id}"}
    queue.discard(batch.id)


def buried_by_attempts_and_discarded(client: redis.Redis) -> None:
    queue = buffer(client, 1, max_attempts=1)
    take(queue).release()
    assert queue.reserve() is None
    queue.discard(*(batch.id for batch in queue.dead()))


def buried_beyond_max_dead(client: redis.Redis) -> None:
    queue = buffer(client, 1, 2, 3, max_dead=1)
    queue.bury(*queue.reserve_many(3, 1))
    queue.discard(*(batch.id for batch in queue.dead()))


def redriven_and_popped(client: redis.Redis) -> None:
    queue = buffer(client, 1, 2)
    batch = take(queue)
    batch.bury()
    queue.redrive(batch.id)
    queue.pop("g")


def items_evicted(client: redis.Redis) -> None:
    queue = buffer(client, 1)
    client.delete(f"{Q}items:g")
    assert queue.reserve() is None


def batch_evicted(client: redis.Redis) -> None:
    queue = buffer(client, 1)
    batch = take(queue)
    client.delete(f"{Q}batch:{batch.id}")
    assert batch_of(reserve_at(client, LATE, queue.calls.reserve)) is None


def with_a_paused_group(client: redis.Redis) -> Buffer[int]:
    """Take the last item while another group is paused, which keeps the queue."""
    queue = buffer(client, 1)
    queue.pause_group("other", 60)
    queue.pop("g")
    assert f"{Q}meta" in persistent_keys(client)
    return queue


def last_group_pause_ended_at_reserve(client: redis.Redis) -> None:
    assert batch_of(reserve_at(client, LATE, with_a_paused_group(client).calls.reserve)) is None


def last_group_pause_ended_at_pop(client: redis.Redis) -> None:
    assert Runner(client).run(at(with_a_paused_group(client).calls.pop("other", 1), LATE)) == []


def last_group_pause_ended_at_pop_longest(client: redis.Redis) -> None:
    assert Runner(client).run(at(with_a_paused_group(client).calls.pop_longest(1, 1), LATE)) == {}


def last_paused_group_resumed(client: redis.Redis) -> None:
    assert with_a_paused_group(client).resume_group("other")


def popped_after_a_pause(client: redis.Redis) -> None:
    queue = buffer(client, 1)
    queue.pause(60, "why")
    queue.resume()
    queue.pop("g")


def paused_and_resumed_when_drained(client: redis.Redis) -> None:
    popped(client)
    queue = buffer(client)
    queue.pause(reason="why")
    assert persistent_keys(client) == {f"{Q}paused"}
    queue.pause(60)
    assert persistent_keys(client) == set()
    assert queue.resume()


def groups_dropped(client: redis.Redis) -> None:
    queue = buffer(client, 1, 2, 3, ordered=True)
    take(queue, 1).release(delay=1000)
    other = take(buffer(client, 4, group="h"))
    other.bury("why")
    assert queue.drop_group("g") == 3
    assert persistent_keys(client) >= {f"{Q}meta", f"{Q}dead", f"{Q}batch:{other.id}"}
    assert queue.drop_group("h") == 1


def last_batch_evicted_and_audited(client: redis.Redis) -> None:
    queue = buffer(client, 1)
    client.delete(f"{Q}batch:{take(queue).id}")
    assert not queue.audit().ok
    assert persistent_keys(client) == {f"{Q}{name}" for name in ("meta", "leases", "wake")}
    queue.audit(repair=True)


BUFFER: list[Drain] = [
    popped,
    popped_group_by_group,
    popped_longest,
    acked,
    acked_in_one_call,
    acked_after_failures,
    acked_after_a_release,
    acked_after_the_lease_expired,
    acked_in_order,
    acked_in_halves,
    buried_and_discarded,
    buried_by_attempts_and_discarded,
    buried_beyond_max_dead,
    redriven_and_popped,
    items_evicted,
    batch_evicted,
    last_group_pause_ended_at_reserve,
    last_group_pause_ended_at_pop,
    last_group_pause_ended_at_pop_longest,
    last_paused_group_resumed,
    popped_after_a_pause,
    paused_and_resumed_when_drained,
    groups_dropped,
    last_batch_evicted_and_audited,
]


@pytest.mark.parametrize("drain", BUFFER, ids=lambda drain: drain.__name__)
def test_an_emptied_buffer_leaves_nothing(client: redis.Redis, drain: Drain) -> None:
    """Its mark and counters stay for a week, or without a limit after another push."""
    drain(client)
    assert persistent_keys(client) == set()
    assert not client.exists(f"{Q}wake")
    assert WEEK - 60_000 < client.pttl(f"{Q}meta") <= WEEK
    before = client.hgetall(f"{Q}meta")
    queue = buffer(client, 7, group="new")
    assert client.pttl(f"{Q}meta") == -1
    assert client.hgetall(f"{Q}meta") == before
    assert persistent_keys(client) == {f"{Q}{name}" for name in ("meta", "groups", "since", "items:new", "wake")}
    take(queue).ack()
    assert persistent_keys(client) == set()


# -- the priority queue ----------------------------------------------------------------------------------------------


def queue_of(client: redis.Redis, *members: str, **settings: Any) -> PriorityQueue[str]:
    """Return a queue with some members, each with a payload."""
    made = PriorityQueue(client, "q", **settings)
    made.push_many((member, i, "payload") for i, member in enumerate(members))
    return made


def members_popped(client: redis.Redis) -> None:
    queue = queue_of(client, "a", "b")
    queue.pop()
    queue.pop()


def members_popped_in_one_call(client: redis.Redis) -> None:
    queue_of(client, "a", "b").pop_many(9)


def members_popped_when_due(client: redis.Redis) -> None:
    queue = PriorityQueue(client, "q")
    queue.push("a", delay=1000, payload="p")
    assert Runner(client).run(at(queue.calls.pop_once(), LATE))


def members_acked(client: redis.Redis) -> None:
    queue = queue_of(client, "a", "b", "c")
    queue.ack(*queue.reserve_many(2), take(queue))


def members_acked_after_failures(client: redis.Redis) -> None:
    queue = queue_of(client, "a", "b")
    batch = take(queue, 2)
    batch.fail("b", reason="why")
    batch.ack(delay=1000)
    take_late(client, queue).ack()


def members_acked_after_a_release(client: redis.Redis) -> None:
    queue = queue_of(client, "a", "b")
    take(queue, 2).release(reason="why")
    take(queue, 2).ack()


def members_acked_after_the_lease_expired(client: redis.Redis) -> None:
    queue = queue_of(client, "a", "b")
    take(queue, 2)
    take_late(client, queue, 2).ack()


def members_pushed_meanwhile(client: redis.Redis) -> None:
    queue = queue_of(client, "a", "b")
    batch = take(queue, 2)
    queue.push_many([("a", 5, "other"), ("b", 5, "other")], delay=1000)
    batch.ack()
    take_late(client, queue, 2).ack()


def members_removed(client: redis.Redis) -> None:
    queue = queue_of(client, "a", "b")
    queue.push("c", delay=1000, payload="p")
    queue.remove("a", "c")
    queue.remove("b")


def dead_members_removed(client: redis.Redis) -> None:
    queue = queue_of(client, "a", "b")
    take(queue, 2).bury("why")
    queue.remove("a", "b")


def leased_members_removed_and_acked(client: redis.Redis) -> None:
    queue = queue_of(client, "a", "b")
    batch = take(queue, 2)
    queue.remove("a", "b")
    batch.ack()


def leased_members_removed_and_released(client: redis.Redis) -> None:
    queue = queue_of(client, "a", "b")
    batch = take(queue, 2)
    queue.remove("a", "b")
    batch.release(delay=1000, reason="why")


def leased_members_removed_and_buried(client: redis.Redis) -> None:
    queue = queue_of(client, "a")
    batch = take(queue)
    queue.remove("a")
    batch.bury("why")


def leased_members_removed_and_their_lease_expired(client: redis.Redis) -> None:
    queue = queue_of(client, "a", "b")
    take(queue, 2)
    queue.remove("a", "b")
    assert batch_of(reserve_at(client, LATE, queue.calls.reserve)) is None


def members_buried_and_discarded(client: redis.Redis) -> None:
    queue = queue_of(client, "a", "b")
    take(queue, 2).bury("why")
    queue.discard("a", "b", "nobody")


def members_buried_by_attempts_and_discarded(client: redis.Redis) -> None:
    queue = queue_of(client, "a", max_attempts=1)
    take(queue).release(reason="why")
    assert queue.reserve() is None
    queue.discard("a")


def members_buried_beyond_max_dead(client: redis.Redis) -> None:
    queue = queue_of(client, "a", "b", "c", max_dead=1)
    take(queue, 3).bury("why")
    queue.discard(*(item.member for item in queue.dead()))


def members_redriven_and_popped(client: redis.Redis) -> None:
    queue = queue_of(client, "a", "b")
    take(queue, 2).bury("why")
    queue.redrive("a", "b")
    queue.pop_many(2)


def members_paused_and_resumed_when_drained(client: redis.Redis) -> None:
    queue = queue_of(client, "a")
    queue.pop()
    queue.pause(reason="why")
    assert persistent_keys(client) == {f"{Q}paused"}
    queue.pause(60)
    assert persistent_keys(client) == set()
    assert queue.resume()


def last_lease_list_evicted_and_audited(client: redis.Redis) -> None:
    queue = PriorityQueue(client, "q")
    queue.push("a")
    client.delete(f"{Q}lease:{take(queue).id}")
    client.delete(f"{Q}held")
    assert not queue.audit().ok
    assert persistent_keys(client) == {f"{Q}{name}" for name in ("meta", "leases", "wake")}
    queue.audit(repair=True)


PRIORITY: list[Drain] = [
    members_popped,
    members_popped_in_one_call,
    members_popped_when_due,
    members_acked,
    members_acked_after_failures,
    members_acked_after_a_release,
    members_acked_after_the_lease_expired,
    members_pushed_meanwhile,
    members_removed,
    dead_members_removed,
    leased_members_removed_and_acked,
    leased_members_removed_and_released,
    leased_members_removed_and_buried,
    leased_members_removed_and_their_lease_expired,
    members_buried_and_discarded,
    members_buried_by_attempts_and_discarded,
    members_buried_beyond_max_dead,
    members_redriven_and_popped,
    members_paused_and_resumed_when_drained,
    last_lease_list_evicted_and_audited,
]


@pytest.mark.parametrize("drain", PRIORITY, ids=lambda drain: drain.__name__)
def test_an_emptied_priority_queue_leaves_nothing(client: redis.Redis, drain: Drain) -> None:
    """No row, payload or note is left; places start at 0 again."""
    drain(client)
    assert persistent_keys(client) == set()
    assert not client.exists(f"{Q}wake")
    assert WEEK - 60_000 < client.pttl(f"{Q}meta") <= WEEK
    before: Any = client.hgetall(f"{Q}meta")
    assert b"sequence" not in before
    with pytest.raises(WrongOrder):  # it still has its mark
        PriorityQueue(client, "q", order="score").push("new")
    queue = PriorityQueue(client, "q")
    queue.push("new")
    assert client.pttl(f"{Q}meta") == -1
    assert client.hgetall(f"{Q}meta") == {**before, b"sequence": b"1"}
    assert persistent_keys(client) == {f"{Q}{name}" for name in ("meta", "ready", "wake")}
    take(queue).ack()
    assert persistent_keys(client) == set()


@pytest.mark.parametrize("structure", ["buffer", "queue"])
def test_a_purged_queue_leaves_nothing_at_all(client: redis.Redis, structure: str) -> None:
    """Except its pauses; its name can be used for any structure."""
    queue: Any = buffer(client, 1, 2, 3) if structure == "buffer" else queue_of(client, "a", "b", "c")
    take(queue, 1).bury()
    take(queue, 1).release(delay=1000)
    take(queue, 1)
    queue.push(*(4,) if structure == "buffer" else ("d",))
    queue.pause(reason="why")
    assert queue.purge() == 4
    assert persistent_keys(client) == {f"{Q}paused"}
    assert not client.exists(f"{Q}meta")
    assert queue.resume()
    assert persistent_keys(client) == set()
    other: Any = queue_of(client, "x") if structure == "buffer" else buffer(client, 1)
    assert other.stats().waiting == 1


def test_a_plain_sorted_set_that_is_emptied_leaves_nothing(client: redis.Redis) -> None:
    """Nothing at all if it is popped, and what any queue leaves if it is reserved."""
    queue = PriorityQueue(client, "q", order="score")
    client.zadd(f"{Q}ready", {"a": 1, "b": 2})
    assert len(queue.pop_many(5)) == 2
    assert client.dbsize() == 0
    client.zadd(f"{Q}ready", {"a": 1, "b": 2})
    assert take(queue, 2).ack() == 2
    assert persistent_keys(client) == set()
    client.zadd(f"{Q}ready", {"a": 1})
    assert queue.remove("a") == 1
    assert persistent_keys(client) == set()


def test_a_pause_keeps_nothing_else(client: redis.Redis) -> None:
    """A paused queue that is emptied by settlements has only its pause, and keys that expire."""
    queue = buffer(client, 1)
    batch = take(queue)
    queue.pause(reason="why")
    batch.ack()
    assert persistent_keys(client) == {f"{Q}paused"}


@pytest.mark.server
def test_thousands_of_queues_leave_nothing_that_stays(server: Server) -> None:
    """As with a queue for each job: everything expires."""
    with server.client() as client:
        for i in range(2000):
            one: Any = Buffer(client, f"b{i}") if i % 2 else PriorityQueue(client, f"p{i}")
            one.push(str(i))
            if i % 3 == 0:
                take(one).ack()
            elif i % 3 == 1:
                one.pop()
            else:
                batch = take(one)
                batch.release(reason="why")
                take(one).bury()
                one.discard(*(dead.id if i % 2 else dead.member for dead in one.dead()))
            RateLimiter(client, f"l{i}", Rate(5, per=60)).acquire()
        assert persistent_keys(client) == set()
        assert client.info("keyspace")["db0"]["expires"] == client.dbsize()
