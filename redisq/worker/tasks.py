"""The asyncio worker: one task fetches, one keeps leases, and up to `concurrency` tasks run the handler."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Generic, TypeVar, cast

from ..aio.batch import Batch
from ..aio.buffer import Buffer
from ..aio.priority import PriorityQueue
from ..errors import CodecError, LeaseLost
from ..ops import Buried, Op, Reserved, describe
from .policy import (
    AWAY,
    NOT_BEGUN,
    STOPPED,
    Hunger,
    Policy,
    Settlement,
    away,
    each,
    exponential,
    given_up,
    logger,
    lost,
    must_wait,
    pauses,
)

T = TypeVar("T")


class Worker(Generic[T]):
    """Work a queue off: reserve, call `await handler(batch)`, ack; on an exception release, with backoff.

    - `size`: items of a batch (default: the queue's own); `max_bytes`: of its encoded items and payloads together;
      `concurrency`: batches at a time, each in a task.
    - The lease is extended while the handler runs. One that is lost all the same is logged, and nothing is acked.
    - `Batch.fail` in the handler gives those items back, with backoff, and acks the others. A handler may also settle
      the batch itself.
    - In the handler, `raise Retry(delay)` has the batch retried, with `count=False` without counting this attempt, and
      `raise Bury(reason)` makes it a dead letter at once.
    - `backoff(attempts)` gives the seconds until what failed is due again (default: `exponential()`).
    - `reason(exception)` gives the text that is kept with what failed (default: its class and message, 1,000 bytes at
      most). Give your own where messages may hold secrets.
    - SIGTERM and SIGINT, or `stop()`: no new batch; running handlers have `grace` seconds, then they are cancelled and
      their batches given back; what nobody began on is given back at once, and that hand-over does not count. A second
      signal ends it now.
    - A Redis that goes away is waited for. Idle, it sends less than one command a second, and a push wakes it.
    - Hooks: `on_ack(batch)`, `on_release(batch, error)`, `on_dead(list of Buried)`, called in the worker's loop.

    What happens is logged to `redisq.worker`. Raises `InvalidArgument` for settings that cannot be used.
    """

    def __init__(
        self,
        queue: Buffer[T] | PriorityQueue[T],
        handler: Callable[[Batch[T]], Awaitable[object]],
        *,
        size: int | None = None,
        max_bytes: int | None = None,
        concurrency: int = 1,
        backoff: Callable[[int], float] | None = None,
        reason: Callable[[BaseException], str | None] = describe,
        grace: float = 25.0,
        on_ack: Callable[[Batch[T]], object] | None = None,
        on_release: Callable[[Batch[T], BaseException | None], object] | None = None,
        on_dead: Callable[[list[Buried]], object] | None = None,
    ) -> None:
        self.policy = Policy(
            size, max_bytes, concurrency, backoff or exponential(), reason, grace, on_ack, on_release, on_dead
        )
        self.queue = queue
        self.handler = handler
        self._reserve()  # a size that the queue does not take is refused here
        self._stopping = asyncio.Event()  # no new batch
        self._ending = asyncio.Event()  # not even those that run
        self._free = asyncio.Semaphore(self.policy.concurrency)
        self._held: dict[asyncio.Task[None], Batch[T]] = {}  # from the reserve until it is settled
        self._kept: dict[str, Batch[T]] = {}  # those whose lease is kept: until the handler ends

    async def run(self) -> None:
        """Work until `stop` is called or, in the main thread, SIGTERM or SIGINT comes; then end as the class says.

        Raises what makes work impossible, such as `WrongOrder`, after the same orderly end. Cancelled, it cancels the
        handlers and gives their batches back.
        """
        fetcher, keeper = asyncio.create_task(self._fetch()), asyncio.create_task(self._keep())
        try:
            with self._signals():
                await _first(fetcher, self._stopping.wait())
                self._stopping.set()
                logger.info("stopping: %d batches are in hand", len(self._held))
                await _first(fetcher, self._ending.wait())
                if running := list(self._held):  # a copy: they may all have ended before the wait begins
                    await _first(asyncio.wait(running), self._ending.wait(), timeout=self.policy.grace)
        finally:
            self._stopping.set()
            self._ending.set()
            for task in (fetcher, keeper, *self._held):
                task.cancel()
            # A handler that is cancelled gives its batch back, so these are waited for.
            await asyncio.gather(fetcher, keeper, *self._held, return_exceptions=True)
            # A task that is cancelled before its first step never runs: nobody began on its batch.
            for batch in list(self._held.values()):
                await self._settle(batch, NOT_BEGUN)
        if not fetcher.cancelled() and (error := fetcher.exception()):
            raise error

    def stop(self) -> None:
        """Ask the worker to end, from its loop's thread; a second time: to end now."""
        if self._stopping.is_set():
            self._ending.set()
        self._stopping.set()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        for number in before:
            loop.add_signal_handler(number, self.stop)
        try:
            yield
        finally:
            for number, handler in before.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)

    def _reserve(self) -> Op[Reserved[T]]:
        return self.queue.ops.reserve_once(**self.policy.reserving())

    async def _fetch(self) -> None:
        hunger = Hunger()
        while True:
            await _first(self._free.acquire(), self._stopping.wait())
            if self._stopping.is_set():
                return
            count = 1
            while count < hunger.most and not self._free.locked():
                await self._free.acquire()
                count += 1
            taken = await self._fetch_some(count)
            hunger.fed(count, taken)
            for _ in range(count - taken):
                self._free.release()

    async def _fetch_some(self, count: int) -> int:
        """Take up to so many batches in one round trip, or wait for one, and return how many came."""
        ops, runner = [self._reserve() for _ in range(count)], self.queue.runner
        for pause in pauses():
            if self._stopping.is_set():
                break
            try:
                answers = await runner.talk(each(ops))  # the same each time: their lease ids make a lost reply harmless
                taken = 0
                for answer in answers:
                    taken += await self._receive(answer)
                if taken == 0 and (wait := must_wait(answers)) is not None:
                    await _first(runner.wait(self.queue.ops.waiting(wait)), self._stopping.wait())
                return taken
            except AWAY as error:
                away(error, pause)
                await _first(self._stopping.wait(), timeout=pause)
        return 0

    async def _receive(self, answer: Reserved[T] | CodecError) -> bool:
        if isinstance(answer, CodecError):
            logger.error("a batch cannot be decoded", exc_info=answer)
            batch = Batch(self.queue, answer.raw)
            await self._settle(
                batch, Settlement("release", self.policy.delay(batch), reason=self.policy.why(answer)), answer
            )
            return False
        self.policy.buried(answer.buried)
        if answer.lease:
            self._take(Batch(self.queue, answer.lease))
        return answer.lease is not None

    def _take(self, batch: Batch[T]) -> None:
        self._kept[batch.id] = batch
        task = asyncio.create_task(self._work(batch))
        self._held[task] = batch

    async def _work(self, batch: Batch[T]) -> None:
        try:
            begin = not self._stopping.is_set()
            error = await self._handle(batch) if begin else None
            # From here on the keeper leaves it alone: extending what is just being acked would look like a lost lease.
            self._kept.pop(batch.id, None)
            if not begin:
                await self._settle(batch, NOT_BEGUN)
            elif isinstance(error, asyncio.CancelledError) and self._ending.is_set() and not batch.settled:
                logger.warning("giving back batch %s, whose handler was cancelled", batch.id)
                await self._settle(batch, Settlement("release", reason=STOPPED), error)
            elif how := self.policy.settlement(batch, error, self.queue.ops.max_attempts):
                await self._settle(batch, how, error)
        finally:
            self._held.pop(cast("asyncio.Task[None]", asyncio.current_task()), None)
            self._free.release()

    async def _handle(self, batch: Batch[T]) -> BaseException | None:
        try:
            await self.handler(batch)
        except BaseException as error:  # whatever it is, it is the handler's, and the worker goes on
            return error
        return None

    async def _settle(self, batch: Batch[T], how: Settlement, error: BaseException | None = None) -> None:
        ops, runner = self.queue.ops, self.queue.runner
        for pause in pauses():
            try:
                if how.verb == "ack":
                    await runner.talk(ops.ack([batch], how.delay))
                elif how.verb == "bury":
                    await runner.talk(ops.bury([batch], how.reason))
                else:
                    await runner.talk(ops.release([batch], how.delay, count=how.count, reason=how.reason))
                self.policy.settled(how, batch, error)
            except LeaseLost:
                lost(batch, how.verb)
            except AWAY as reason:
                # Sent again it counts once, so it is sent until it is answered, or the worker has to end.
                if not self._ending.is_set():
                    away(reason, pause)
                    await _first(self._ending.wait(), timeout=pause)
                    continue
                given_up(batch, how.verb, reason)
            return

    async def _keep(self) -> None:
        # A third of the lease: two extensions may be lost before the lease is.
        every = self.queue.ops.lease / 3000
        while True:
            await asyncio.sleep(every)
            kept = list(self._kept.values())
            try:
                await self.queue.extend(*kept)
            except LeaseLost as error:
                for batch in kept:
                    # One that is no longer kept has been settled meanwhile: that is no loss.
                    if batch.id in error.ids and batch.id in self._kept:
                        self._kept.pop(batch.id, None)
                        lost(batch, "its handler ended")
            except AWAY as reason:
                away(reason, every)


async def _first(*those: Awaitable[object], timeout: float | None = None) -> None:
    """Wait for the first of them, or the timeout, and cancel the others; an error of the first is raised."""
    tasks = [asyncio.ensure_future(one) for one in those]
    own = [task for task, one in zip(tasks, those, strict=True) if task is not one]  # the others are the caller's
    try:
        done, _ = await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        while pending := [task for task in own if not task.done()]:
            for task in pending:
                task.cancel()
            # redis-py writes in a wait_for, which before Python 3.12 may swallow this: then once more.
            await asyncio.wait(pending, timeout=0.05)
        await asyncio.gather(*own, return_exceptions=True)
    for task in done:
        if task in own:
            task.result()
