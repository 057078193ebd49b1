"""The workers of layout 1, as they fetched and settled: the control of this benchmark.

One task (or thread) fetched, each handler's task (or thread) settled its own batch in a round trip of its own, and one
more kept the leases. What no measurement needs is left out: signals, hooks, backoff, logging, outages.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from queue import SimpleQueue
from typing import Any, cast

import redis
import redis.asyncio
from redis.client import NEVER_DECODE

from redisq import Batch, Nothing, PriorityQueue
from redisq.asyncio import Batch as AsyncBatch
from redisq.asyncio import PriorityQueue as AsyncPriorityQueue
from redisq.core.batch import batch_of
from redisq.core.calls import Call
from redisq.core.flow import Flow, Pipeline, block_seconds
from redisq.core.worker import Prefetch


def _wait(answers: Sequence[list[Any]]) -> float:
    """Return how long to wait after replies without a batch."""
    return min((event.retry or 0.0) for events in answers for event in events if isinstance(event, Nothing))


class AsyncWorker:
    """The asyncio worker."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        queue: AsyncPriorityQueue[Any],
        handler: Callable[[AsyncBatch[Any]], Awaitable[object]],
        concurrency: int,
    ) -> None:
        self.client = client
        self.queue = queue
        self.handler = handler
        self._stopping = asyncio.Event()
        self._free = asyncio.Semaphore(concurrency)
        self._held: dict[asyncio.Task[None], AsyncBatch[Any]] = {}
        self._kept: dict[str, AsyncBatch[Any]] = {}

    async def run(self) -> None:
        """Work until `stop` is called."""
        fetcher, keeper = asyncio.create_task(self._fetch()), asyncio.create_task(self._keep())
        await _first(fetcher, self._stopping.wait())
        while self._held:
            await asyncio.wait(list(self._held))
        for task in (fetcher, keeper):
            task.cancel()
        await asyncio.gather(fetcher, keeper, return_exceptions=True)

    def stop(self) -> None:
        """End the worker."""
        self._stopping.set()

    async def _run(self, flow: Flow[Any]) -> Any:
        """Perform an operation, without sharing round trips."""
        result: Any = None
        while True:
            try:
                step = flow.send(result)
            except StopIteration as stop:
                return stop.value
            assert isinstance(step, Pipeline)
            result = await self._send(step.calls)

    async def _send(self, calls: Sequence[Call[Any]]) -> list[Any]:
        if len(calls) == 1:
            reply: Any = await self.client.execute_command(*calls[0].evalsha(), **{NEVER_DECODE: []})  # type: ignore[no-untyped-call]
            return [calls[0].decode(reply)]
        async with self.client.pipeline(transaction=False) as pipe:
            for call in calls:
                pipe.execute_command(*call.evalsha(), **{NEVER_DECODE: []})
            replies = await pipe.execute()
        return [call.decode(reply) for call, reply in zip(calls, replies, strict=True)]

    async def _fetch(self) -> None:
        prefetch = Prefetch()
        while True:
            await _first(self._free.acquire(), self._stopping.wait())
            if self._stopping.is_set():
                return
            count = 1
            while count < prefetch.most and not self._free.locked():
                await self._free.acquire()
                count += 1
            answers = await self._send([self.queue.calls.reserve() for _ in range(count)])
            batches = [batch for batch in map(batch_of, answers) if batch]
            for batch in batches:
                held = self._kept[batch.id] = AsyncBatch(self.queue, batch)
                task = asyncio.create_task(self._work(held))
                self._held[task] = held
            if not batches:
                seconds = block_seconds(_wait(answers), 5)
                wake = self.queue.calls.wake_up(1).key
                await _first(self.client.execute_command("BLPOP", wake, seconds), self._stopping.wait())  # type: ignore[no-untyped-call]
            prefetch.record(count, len(batches))
            for _ in range(count - len(batches)):
                self._free.release()

    async def _work(self, batch: AsyncBatch[Any]) -> None:
        try:
            error = await self._handle(batch)
            self._kept.pop(batch.id, None)
            if error is None and not batch.settled:
                await self._run(self.queue.calls.ack_all([batch]))
        finally:
            self._held.pop(cast("asyncio.Task[None]", asyncio.current_task()), None)
            self._free.release()

    async def _handle(self, batch: AsyncBatch[Any]) -> BaseException | None:
        try:
            await self.handler(batch)
        except BaseException as error:
            return error
        return None

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self.queue.calls.lease / 3000)
            await self._run(self.queue.calls.extend_all(list(self._kept.values())))


async def _first(*those: Awaitable[object]) -> None:
    """Wait for the first of them, and cancel the others."""
    tasks = [asyncio.ensure_future(one) for one in those]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task, one in zip(tasks, those, strict=True):
            if task is not one:
                task.cancel()
        await asyncio.gather(*(t for t, one in zip(tasks, those, strict=True) if t is not one), return_exceptions=True)


class Worker:
    """The blocking worker."""

    def __init__(
        self,
        client: redis.Redis,
        queue: PriorityQueue[Any],
        handler: Callable[[Batch[Any]], object],
        concurrency: int,
    ) -> None:
        self.client = client
        self.queue = queue
        self.handler = handler
        self.concurrency = concurrency
        self._stopping = threading.Event()
        self._free = threading.Semaphore(concurrency)
        self._taken: SimpleQueue[Batch[Any] | None] = SimpleQueue()
        self._held: dict[str, Batch[Any]] = {}
        self._kept: dict[str, Batch[Any]] = {}
        self._changed = threading.Condition()

    def run(self) -> None:
        """Work until `stop` is called."""
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(self.concurrency)]
        fetcher = threading.Thread(target=self._fetch, daemon=True)
        for thread in (fetcher, *threads):
            thread.start()
        self._stopping.wait()
        for _ in threads:
            self._taken.put(None)
        for thread in threads:
            thread.join()
        # The fetcher must not take an item of the next measurement.
        self._free.release(self.concurrency)
        self.client.rpush(self.queue.calls.wake_up(1).key, 1)
        fetcher.join()

    def stop(self) -> None:
        """End the worker."""
        self._stopping.set()

    def _run(self, flow: Flow[Any]) -> Any:
        result: Any = None
        while True:
            try:
                step = flow.send(result)
            except StopIteration as stop:
                return stop.value
            assert isinstance(step, Pipeline)
            result = self._send(step.calls)

    def _send(self, calls: Sequence[Call[Any]]) -> list[Any]:
        if len(calls) == 1:
            reply: Any = self.client.execute_command(*calls[0].evalsha(), **{NEVER_DECODE: []})  # type: ignore[no-untyped-call]
            return [calls[0].decode(reply)]
        with self.client.pipeline(transaction=False) as pipe:
            for call in calls:
                pipe.execute_command(*call.evalsha(), **{NEVER_DECODE: []})  # type: ignore[no-untyped-call]
            replies = pipe.execute()
        return [call.decode(reply) for call, reply in zip(calls, replies, strict=True)]

    def _fetch(self) -> None:
        prefetch = Prefetch()
        while not self._stopping.is_set():
            self._free.acquire()
            if self._stopping.is_set():
                return
            count = 1
            while count < prefetch.most and self._free.acquire(blocking=False):
                count += 1
            answers = self._send([self.queue.calls.reserve() for _ in range(count)])
            batches = [batch for batch in map(batch_of, answers) if batch]
            for batch in batches:
                held = Batch(self.queue, batch)
                with self._changed:
                    self._held[held.id] = self._kept[held.id] = held
                self._taken.put(held)
            if not batches:
                wake, seconds = self.queue.calls.wake_up(1).key, block_seconds(_wait(answers), 5)
                self.client.execute_command("BLPOP", wake, seconds)  # type: ignore[no-untyped-call]
            prefetch.record(count, len(batches))
            for _ in range(count - len(batches)):
                self._free.release()

    def _work(self) -> None:
        while (batch := self._taken.get()) is not None:
            error = self._handle(batch)
            self._kept.pop(batch.id, None)
            if error is None and not batch.settled:
                self._run(self.queue.calls.ack_all([batch]))
            with self._changed:
                self._held.pop(batch.id, None)
                self._changed.notify()
            self._free.release()

    def _handle(self, batch: Batch[Any]) -> BaseException | None:
        try:
            self.handler(batch)
        except BaseException as error:
            return error
        return None
