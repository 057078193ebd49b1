"""Dead letters: listed page by page, redriven, discarded, and dropped beyond `max_dead`."""

from __future__ import annotations

from typing import Any

import pytest
import redis
import redis.asyncio

import redisq.asyncio
from redisq import Buffer, Item, LeaseLost, PriorityQueue, Pushed, State
from redisq.core.scripts import load
from tests.queues.structures import STRUCTURES, counts, stocked, take


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


@STRUCTURES
def test_the_oldest_dead_letters_beyond_max_dead_are_dropped(client: redis.Redis, structure: str) -> None:
    queue: Any = stocked(client, structure, *"abcdef", max_dead=2)
    for batch in queue.reserve_many(6, 1):
        batch.bury()
    assert [getattr(one, "member", None) or one.items[0] for one in queue.dead()] == ["e", "f"]
    stats = queue.stats()
    assert (stats.dead, stats.buried, stats.trimmed) == (2, 6, 4)
