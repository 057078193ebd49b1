"""Calls with a timeout: what ends the wait, and that nothing is missed meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest
import redis
import redis.asyncio

import redisq.asyncio
from redisq import Buffer, Item, PriorityQueue, Pushed, Rate
from redisq.core.flow import block_seconds
from redisq.embedded import Server
from tests.queues.structures import STRUCTURES, stocked, take

R = TypeVar("R")


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
