"""Many batches in one call: reserved, extended and settled in one round trip."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis
import redis.asyncio

from redisq import Buffer, LeaseLost
from redisq.embedded import Server
from tests.queues.structures import STRUCTURES, async_stocked, counts, stocked, take


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
