"""The asyncio worker: one loop talks to Redis, and up to `concurrency` tasks run the handler."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, Generic, TypeVar

from ..core.batch import BatchData, Buried
from ..core.queue import describe
from ..core.signals import listening
from ..core.worker import Held, Settings, WorkLoop, exponential
from .batch import Batch
from .buffer import Buffer
from .priority import PriorityQueue

T = TypeVar("T")


class Worker(Generic[T]):
    """A worker: reserves batches, calls `await handler(batch)`, and acks; on an exception it releases, with backoff.

    - `size`: items of a batch (default: the queue's own); `max_bytes`: of its encoded items and payloads together;
      `concurrency`: batches at a time, each in a task.
    - The lease is extended while the handler runs. One that is lost all the same is logged, and nothing is acked.
    - `Batch.fail` in the handler gives those items back, with backoff, and acks the others. `raise Retry(delay)` has
      the whole batch retried, with `count=False` without counting this attempt; `raise Bury(reason)` makes it a dead
      letter. A handler may also settle the batch itself.
    - `backoff(attempts)` gives the seconds until what failed is due again (default: `exponential()`).
    - `reason(exception)` gives the text that is kept with what failed (default: its class and message, 1,000 bytes at
      most). Give your own where messages may hold secrets.
    - `handler_timeout`: seconds for a handler. One that takes longer is cancelled, and its batch released as after an
      exception.
    - `max_batches`: the run ends after so many, so that a process can be replaced by a fresh one.
    - SIGTERM and SIGINT (unless `signals=False`), or `stop()`: no new batch; running handlers have `grace` seconds,
      then they are cancelled and their batches given back. A later signal ends the grace period; two within a
      second are one. A handler that the application had set before is called as well. Outside the main thread signals
      are left alone.
    - A Redis that is unavailable is waited for. Idle, the worker sends less than one command a second, and a push wakes
      it. It uses two connections at most, whatever `concurrency` is.
    - Hooks: `on_ack(batch)`, `on_release(batch, error)`, `on_dead(list of Buried)`, called in the worker's event loop.

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
        handler_timeout: float | None = None,
        max_batches: int | None = None,
        signals: bool = True,
        on_ack: Callable[[Batch[T]], object] | None = None,
        on_release: Callable[[Batch[T], BaseException | None], object] | None = None,
        on_dead: Callable[[list[Buried]], object] | None = None,
    ) -> None:
        self.settings = Settings(
            size=size,
            max_bytes=max_bytes,
            concurrency=concurrency,
            backoff=backoff or exponential(),
            reason=reason,
            grace=grace,
            handler_timeout=handler_timeout,
            max_batches=max_batches,
            on_ack=on_ack,
            on_release=on_release,
            on_dead=on_dead,
        )
        self.queue = queue
        self.handler = handler
        self.signals = signals
        queue.calls.reserve(**self.settings.reserving())  # a size that the queue does not take is refused here
        self._stops = 0
        self._signals = 0
        self._changed = asyncio.Event()
        self._run: asyncio.Task[None] | None = None
        self._running = False

    async def run(self, burst: bool = False) -> None:
        """Work until `stop` is called or SIGTERM or SIGINT comes; then end as the class says.

        With `burst` it returns when nothing can be reserved any more and its own handlers have ended; it does not wait
        for backoffs, rates, or the leases of others. Raises what makes work impossible, such as `WrongOrder` or a wrong
        password, after the same orderly end. Cancelled, it cancels the handlers and gives their batches back. It may be
        called again when it has returned; while it runs, that raises RuntimeError.
        """
        loop = asyncio.get_running_loop()

        def on_signal() -> None:
            loop.call_soon_threadsafe(self._signalled)

        with listening(on_signal) if self.signals else contextlib.nullcontext():
            await self._work(burst)

    def stop(self) -> None:
        """Ask the worker to end, from its loop's thread; a second time: to end now."""
        self._stops += 1
        self._changed.set()

    def _signalled(self) -> None:
        self._signals += 1
        self._changed.set()

    async def __aenter__(self) -> Worker[T]:
        """Begin to work in a task of this loop; signals are left alone."""
        self._run = asyncio.create_task(self._work(False))
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop, and wait for the end; raises what made work impossible."""
        assert self._run is not None
        if not self._run.done():
            self.stop()
        await self._run

    # -- the loop

    async def _work(self, burst: bool) -> None:
        if self._running:
            raise RuntimeError("this worker runs already: make another one to run beside it")
        self._running = True
        state: WorkLoop[T] = WorkLoop(self.queue.calls, self.settings, self._batch, burst)
        tasks: dict[asyncio.Task[None], Held[T]] = {}
        waiter: asyncio.Task[None] | None = None
        try:
            while not state.finished(self._now(state)):
                steps = state.turn(monotonic())
                if steps:
                    try:
                        results = await self.queue.send(*(step.call for step in steps))
                    except Exception as error:
                        state.failed(steps, error, monotonic())
                    else:
                        for held in state.replied(steps, results, monotonic()):
                            task = asyncio.create_task(self._handle(state, held))
                            tasks[task] = held
                            task.add_done_callback(tasks.pop)
                        # Handlers that end at once do so now, and are settled in the next turn together: else those
                        # of two turns would go on taking turns, each with half of them.
                        await asyncio.sleep(0)
                    continue
                if waiter is not None and waiter.done():
                    _hear(state, waiter)
                    waiter = None
                    continue
                seconds = state.wake_up_seconds(monotonic())
                if waiter is None and seconds is not None:
                    waiter = asyncio.create_task(self.queue.wait(seconds))
                    waiter.add_done_callback(lambda _: self._changed.set())
                await self._sleep(state.next_time(monotonic()) - monotonic())
        finally:
            self._running = False
            self._stops = self._signals = 0
            for task in (*tasks, *([waiter] if waiter else [])):
                task.cancel()
            # A handler that is cancelled may still clean up, or end well, so it is waited for.
            await asyncio.gather(*tasks, *([waiter] if waiter else []), return_exceptions=True)
            await self._end(state)
        if state.failure:
            raise state.failure

    def _batch(self, data: BatchData[T]) -> Batch[T]:
        return Batch(self.queue, data)

    def _now(self, state: WorkLoop[T]) -> float:
        """Pass on what was asked for meanwhile, and return the time."""
        self._changed.clear()
        now = monotonic()
        for _ in range(self._stops):
            state.stop(now)
        for _ in range(self._signals):
            state.signalled(now)
        self._stops = self._signals = 0
        return now

    async def _sleep(self, seconds: float) -> None:
        """Wait until something has changed, or for some seconds."""
        if self._changed.is_set() or seconds <= 0:
            return
        # Not wait_for, which makes a task: this is done once or twice for each batch.
        timer = asyncio.get_running_loop().call_later(min(seconds, 3600), self._changed.set)
        try:
            await self._changed.wait()
        finally:
            timer.cancel()

    async def _handle(self, state: WorkLoop[T], held: Held[T]) -> None:
        error: BaseException | None = None
        try:
            await self._call(state, held)
        except BaseException as raised:  # whatever it is, it is the handler's, and the worker goes on
            error = raised
        if not (isinstance(error, asyncio.CancelledError) and not self._running):  # else it is given back at the end
            state.ended(held, error)
        self._changed.set()

    async def _call(self, state: WorkLoop[T], held: Held[T]) -> None:
        batch: Any = held.batch
        timeout = self.settings.handler_timeout
        if timeout is None:
            await self.handler(batch)
            return
        task = asyncio.ensure_future(self.handler(batch))
        try:
            await asyncio.wait([task], timeout=timeout)
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task])
            raise
        if task.done():
            task.result()
            return
        task.cancel()
        await asyncio.wait([task])
        raise state.timeout_error()

    async def _end(self, state: WorkLoop[T]) -> None:
        steps = state.last_turn()
        try:
            state.replied(steps, await self.queue.send(*(step.call for step in steps)), monotonic())
        except Exception as error:
            state.abandoned(steps, error)


def _hear(state: WorkLoop[Any], waiter: asyncio.Task[None]) -> None:
    state.woken()
    if (error := waiter.exception()) is not None:
        if not isinstance(error, Exception):
            raise error
        state.unavailable(error, monotonic())
