"""What a reserve hands out: as many bytes as asked for, ordered groups one at a time, and what cannot be decoded."""

from __future__ import annotations

from typing import Any

import pytest
import redis
import redis.asyncio

import redisq.asyncio
from redisq import BYTES, BatchData, Buffer, CodecError, PriorityQueue
from tests.queues.structures import STRUCTURES, counts, stocked, take


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
