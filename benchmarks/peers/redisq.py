"""redisq, single items and batches of 100, with its workers and by hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import redis
import redis.asyncio

import redisq.asyncio
from benchmarks.peers.contract import MODE, URL, each, hundreds, main, record, record_async
from redisq import Buffer, PriorityQueue, Worker


def push(items: Iterator[int]) -> float:
    """Push with the client of the mode."""
    if MODE.startswith("asyncio"):
        return asyncio.run(push_async(items))
    client = redis.Redis.from_url(URL)
    client.ping()
    queue, buffer = PriorityQueue(client, "bench"), Buffer[int](client, "bench")
    start = time.perf_counter()
    if MODE.startswith("PriorityQueue, batches"):
        for piece in hundreds(items):
            queue.push_many((str(item), 0) for item in piece)
    elif MODE.startswith("Buffer, batches"):
        for piece in hundreds(items):
            buffer.push(*piece)
    elif MODE.startswith("Buffer"):
        for item in items:
            buffer.push(item)
    else:
        for item in items:
            queue.push(str(item))
    return time.perf_counter() - start


async def push_async(items: Iterator[int]) -> float:
    """Push one after the other, awaited."""
    async with redis.asyncio.Redis.from_url(URL) as client:
        await client.ping()
        queue = redisq.asyncio.PriorityQueue(client, "bench")
        start = time.perf_counter()
        await each(items, lambda item: queue.push(str(item)))
        return time.perf_counter() - start


def handle(batch: Any) -> None:
    """Handle a batch of either structure."""
    record(*map(int, batch.items))


async def handle_async(batch: Any) -> None:
    """Handle a batch, on asyncio."""
    await record_async(*map(int, batch.items))


def waited(queue: PriorityQueue[str]) -> list[Any]:
    """Wait for a batch to come."""
    batch = queue.reserve(timeout=1)
    return [batch] if batch else []


def work() -> None:
    """Be the worker of the mode."""
    client = redis.Redis.from_url(URL)
    queue, buffer = PriorityQueue(client, "bench"), Buffer[int](client, "bench")
    if MODE == "PriorityQueue, for batch in batches":
        while True:
            for one in queue.batches(timeout=1):
                handle(one)
    elif MODE == "Buffer, for batch in batches":
        while True:
            for first in buffer.batches(1, timeout=1):
                handle(first)
    elif MODE == "PriorityQueue, Worker":
        Worker(queue, handle).run()
    elif MODE == "PriorityQueue, Worker, concurrency 8":
        Worker(queue, handle, concurrency=8).run()
    elif MODE == "Buffer, Worker":
        Worker(buffer, handle, size=1).run()
    elif MODE == "PriorityQueue, batches of 100, Worker":
        Worker(queue, handle, size=100).run()
    elif MODE == "Buffer, batches of 100, Worker":
        Worker(buffer, handle, size=100).run()
    elif MODE == "PriorityQueue, reserve and ack":
        while True:
            if batch := queue.reserve(timeout=1):
                with batch:
                    handle(batch)
    elif MODE == "Buffer, reserve and ack":
        while True:
            if found := buffer.reserve(size=1, timeout=1):
                with found:
                    handle(found)
    elif MODE == "PriorityQueue, reserve_many(100) and ack each":
        while True:
            for single in queue.reserve_many(100) or waited(queue):
                with single:
                    handle(single)
    elif MODE == "PriorityQueue, batches of 100, pop":
        while True:
            if many := queue.pop_many(100):
                record(*(int(one.member) for one in many))
            else:
                time.sleep(0.1)
    elif MODE == "Buffer, batches of 100, pop":
        while True:
            if found_items := buffer.pop(size=100):
                record(*found_items)
            else:
                time.sleep(0.1)
    elif MODE == "PriorityQueue, pop":
        while True:
            if item := queue.pop(timeout=1):
                record(int(item.member))
    elif MODE == "Buffer, pop":
        while True:
            if popped := buffer.pop(size=1):
                record(*popped)
            else:
                time.sleep(0.1)
    elif MODE.startswith("asyncio, PriorityQueue, pop by 50 tasks"):
        asyncio.run(pop_async(50))
    elif MODE == "asyncio, PriorityQueue, Worker":
        asyncio.run(work_async(1))
    elif MODE == "asyncio, PriorityQueue, Worker, concurrency 10":
        asyncio.run(work_async(10))
    elif MODE.startswith("asyncio, PriorityQueue, Worker, concurrency 50"):
        asyncio.run(work_async(50))
    else:
        raise ValueError(MODE)


async def work_async(concurrency: int) -> None:
    """Be the asyncio worker."""
    async with redis.asyncio.Redis.from_url(URL) as client:
        queue = redisq.asyncio.PriorityQueue(client, "bench")
        await redisq.asyncio.Worker(queue, handle_async, concurrency=concurrency).run()


async def pop_async(tasks: int) -> None:
    """Pop in a loop, in so many tasks."""

    async def task() -> None:
        while True:
            if item := await queue.pop(timeout=1):
                await record_async(int(item.member))

    async with redis.asyncio.Redis.from_url(URL) as client:
        queue = redisq.asyncio.PriorityQueue(client, "bench")
        await asyncio.gather(*(task() for _ in range(tasks)))


if __name__ == "__main__":
    main(push, work)
