"""A queue of either structure: stocked with items, a batch of it, and how many items are in which state."""

from __future__ import annotations

from time import monotonic
from typing import Any

import pytest
import redis
import redis.asyncio

import redisq.asyncio
from redisq import Batch, Buffer, PriorityQueue

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
