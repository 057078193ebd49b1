"""The asyncio worker: one task talks to Redis, one waits for wake-ups, the others run the handler."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, Generic, TypeVar

from ..core import validate
from ..core.batch import BatchData, Buried
from ..core.errors import InvalidArgument
from ..core.observer import ALIVE, BEAT, Observer
from ..core.queue import describe
from ..core.signals import listening
from ..core.worker import CLOSE_SECONDS, Ending, Held, Settings, Step, WorkLoop, exponential, log_eviction
from .batch import Batch
from .buffer import Buffer
from .priority import PriorityQueue

T = TypeVar("T")

_CANCEL_AGAIN = 0.1
"""seconds after which a wait for a wake-up that has not ended is cancelled again"""


class Worker(Generic[T]):
    """A worker: reserves batches, calls `await handler(batch)`, and acks; on an exception it releases, with backoff.

    - `size`: items of a batch (default: the queue's own); `max_bytes`: of its encoded items and payloads together;
      `concurrency`: batches at a time, each in a task.
    - The lease is extended while the handler runs. One that is lost all the same is logged, `batch.lost` tells the
      handler, and nothing is acked.
    - `Batch.fail` in the handler gives those items back, with backoff, and acks the others. `raise Retry(delay)` has
      the whole batch retried, with `count=False` without counting this attempt; `raise Bury(reason)` makes it a dead
      letter. A handler may also settle the batch itself.
    - `backoff(attempts)` gives the seconds until what failed is due again (default: `exponential()`).
    - `reason(exception)` gives the text that is kept with what failed (default: its class and message, 1,000 bytes at
      most). Give your own where messages may hold secrets.
    - `handler_timeout`: seconds for a handler. One that takes longer is cancelled, and its batch released as after an
      exception. The place of one that does not end within two seconds of that stays taken; when every place is taken so
      the run ends with an error.
    - `max_batches`: the run ends after so many, so that a process can be replaced by a fresh one.
    - SIGTERM and SIGINT (unless `signals=False`), or `stop()`: no new batch; running handlers have `grace` seconds,
      then they are cancelled, may clean up for two seconds, and their batches are given back. A second `stop()`, or a
      signal more than a second after the first, ends the grace. A handler that the application had set before is called
      as well. Outside the main thread signals are left alone.
    - A Redis that is unavailable is waited for; to stop meanwhile may take some seconds more, until the client's own
      retries are over. Idle, the worker sends less than one command a second, and a push wakes it. It uses two
      connections at most, whatever `concurrency` is.
    - Hooks: `on_ack(batch)`, `on_release(batch, error)`, `on_dead(list of Buried)`, called in the worker's event loop,
      so they should be short.

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
        reason: Callable[[BaseException], str | None] | None = None,
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
            reason=reason or describe,
            grace=grace,
            handler_timeout=handler_timeout,
            max_batches=max_batches,
            on_ack=on_ack,
            on_release=on_release,
            on_dead=on_dead,
        )
        if not isinstance(queue, (Buffer, PriorityQueue)):
            raise InvalidArgument(f"queue is {queue!r}: give a Buffer or a PriorityQueue of redisq.asyncio")
        validate.handler(handler)
        self.queue = queue
        self.handler = handler
        self.signals = signals
        self.observers: list[Observer] = []
        """What watches the next run."""
        queue.calls.reserve(**self.settings.reserving())  # a size that the queue does not take is refused here
        self._ending = Ending(self.settings.grace)
        self._run: _Run[T] | None = None

    def __repr__(self) -> str:
        return f"Worker({self.queue!r}, {getattr(self.handler, '__qualname__', self.handler)})"

    async def run(self, burst: bool = False) -> None:
        """Work until `stop` is called or, in the main thread, SIGTERM or SIGINT comes; then end as the class says.

        With `burst` it returns when nothing can be reserved any more and its own handlers have ended; it does not wait
        for backoffs, rates, or the leases of others. Raises what makes work impossible, such as `WrongOrder` or a wrong
        password, after the same orderly end. Cancelled, it cancels the handlers and gives their batches back. When it
        has returned it may be called again; while it runs, that raises RuntimeError.
        """
        with listening(self._on_signal) if self.signals else contextlib.nullcontext():
            await self._start(burst).join()

    def stop(self) -> None:
        """Ask the worker to end, from any thread, a handler or a signal handler; a second time: to end at once.

        A worker that does not run yet ends as soon as it does.
        """
        self._ending.stop(monotonic())
        self._wake()

    async def __aenter__(self) -> Worker[T]:
        """Begin to work in a task of this event loop; signals are left alone."""
        self._start(False)
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        """Stop, and wait for the end; raises what made work impossible, if the block has not raised."""
        if (run := self._run) is None:
            return
        run.ending.ask(monotonic())
        run.look()
        try:
            await run.join()
        except Exception:
            if kind is None:
                raise  # else it was logged, and the block's own error goes on

    def _start(self, burst: bool) -> _Run[T]:
        if self._run is not None and not self._run.task.done():
            raise RuntimeError("this worker runs already: make another one to run beside it")
        self._run = _Run(self, self._ending, burst)
        return self._run

    def _ended(self) -> None:
        """Let what was asked of this run not be asked of the next."""
        self._ending = Ending(self.settings.grace)

    def _on_signal(self) -> None:
        self._ending.signal(monotonic())
        self._wake()

    def _wake(self) -> None:
        if (run := self._run) is not None and not run.task.done():
            with contextlib.suppress(RuntimeError):  # its loop may be closed
                run.loop.call_soon_threadsafe(run.look)


class _Run(Generic[T]):
    """One run of a worker, in a task of its own, so that it ends in order when whoever waits for it is cancelled."""

    def __init__(self, worker: Worker[T], ending: Ending, burst: bool) -> None:
        self.ending = ending
        self.loop = asyncio.get_running_loop()
        self._worker = worker
        self._queue = worker.queue
        self._state: WorkLoop[T] = WorkLoop(
            self._queue.calls,
            worker.settings,
            self._batch,
            ending,
            observers=worker.observers,
            burst=burst,
            can_cancel=True,
        )
        self._handlers: dict[Held[T], asyncio.Task[None]] = {}
        self._waiter: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._sending = self._interrupted = self._met_redis = False
        self._timer: asyncio.TimerHandle | None = None
        self._heartbeat: asyncio.TimerHandle | None = None
        self.task = self.loop.create_task(self._work())

    async def join(self) -> None:
        """Wait for the end, and raise what made work impossible; cancelled, end at once, and wait for that."""
        try:
            await asyncio.wait([self.task])
        except asyncio.CancelledError:
            self.ending.end(monotonic())
            self.look()
            await asyncio.gather(asyncio.shield(self.task), return_exceptions=True)
            raise
        self.task.result()

    def look(self) -> None:
        """Have the loop look at what has changed."""
        self._changed.set()
        if self.ending.asked and not self.task.done():
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = self.loop.call_later(self.ending.at + CLOSE_SECONDS - monotonic(), self._interrupt)

    def _interrupt(self) -> None:
        """End a call to a Redis that hangs."""
        if self._sending:
            self._interrupted = True
            self.task.cancel()

    def _beat(self) -> None:
        """Say that the event loop is alive, whatever this run waits for."""
        self._state.alive(ALIVE)
        self._heartbeat = self.loop.call_later(BEAT, self._beat)

    # -- in the task

    async def _work(self) -> None:
        state = self._state
        if self._worker.observers:
            self._beat()
        try:
            while not state.finished(monotonic()):
                self._changed.clear()
                for held in state.overdue(monotonic()):
                    self._handlers[held].cancel()
                if steps := state.turn(monotonic()):
                    await self._send(steps)
                    continue
                if (seconds := state.wait_seconds(monotonic())) is not None:
                    state.waiting = True
                    self._waiter = self.loop.create_task(self._wait(seconds))
                await self._sleep(state.next_time(monotonic()) - monotonic())
        finally:
            state.close()
            try:
                await self._close()
            finally:
                if self._heartbeat:
                    self._heartbeat.cancel()
                self._worker._ended()
        if state.failure:
            raise state.failure

    def _batch(self, data: BatchData[T]) -> Batch[T]:
        return Batch(self._queue, data)

    async def _send(self, steps: list[Step]) -> None:
        if self.ending.asked:
            self._set_timer()
        self._sending = True
        try:
            results = await self._queue.send(*(step.call for step in steps))
        except asyncio.CancelledError:
            if not self._interrupted:
                raise
            self._state.failed(steps, TimeoutError("Redis does not answer"), monotonic())
            return
        except Exception as error:
            self._state.failed(steps, error, monotonic())
            return
        finally:
            self._sending = False
        begin = self._state.replied(steps, results, monotonic())
        for held in begin:
            self._handlers[held] = self.loop.create_task(self._handle(held))
        if not self._met_redis:
            self._met_redis = True
            client: Any = self._queue.client
            with contextlib.suppress(Exception):  # not every user may ask
                log_eviction(await asyncio.wait_for(client.info("memory"), CLOSE_SECONDS))
        if begin:
            # Handlers that end at once do so now, and are settled in the next turn together: else those of two turns
            # would go on taking turns, each with half of them.
            await asyncio.sleep(0)

    async def _handle(self, held: Held[T]) -> None:
        held.begun = True
        error: BaseException | None = None
        batch: Any = held.batch
        try:
            await self._worker.handler(batch)
        except asyncio.CancelledError as cancelled:
            if self._state.closing:
                return  # it is given back with what else is held
            error = self._state.timeout_error() if held.cancelled else cancelled
        except BaseException as raised:  # whatever it is, it is the handler's, and the worker goes on
            error = raised
        self._state.ended(held, error, monotonic())
        self._handlers.pop(held, None)
        self._changed.set()
        if isinstance(error, KeyboardInterrupt):  # but this is meant for the process
            raise error

    async def _wait(self, seconds: float) -> None:
        error: Exception | None = None
        try:
            await self._queue.wait(seconds)
        except Exception as raised:
            error = raised
        self._waiter = None
        self._state.wait_ended(error, monotonic())
        self._changed.set()

    async def _sleep(self, seconds: float) -> None:
        """Wait until something has changed, or for some seconds."""
        if self._changed.is_set() or seconds <= 0:
            return
        # Not wait_for, which makes a task: this is done once or twice for each batch.
        timer = self.loop.call_later(min(seconds, 3600), self._changed.set)
        try:
            await self._changed.wait()
        finally:
            timer.cancel()

    async def _close(self) -> None:
        """Cancel what runs, and give back what is held."""
        if self._timer:
            self._timer.cancel()
        pending = {*self._handlers.values(), *([self._waiter] if self._waiter else [])}
        for task in pending:
            task.cancel()
        end = monotonic() + CLOSE_SECONDS
        while pending and (left := end - monotonic()) > 0:
            # A handler that is cancelled may still clean up, or end well, so it is waited for.
            _, pending = await asyncio.wait(pending, timeout=min(left, _CANCEL_AGAIN))
            if self._waiter and self._waiter in pending:
                self._waiter.cancel()  # `asyncio.wait_for`, in redis-py, may lose a cancellation: see one_timer.py
        steps = self._state.last_turn(monotonic())
        if steps:
            try:
                results = await asyncio.wait_for(self._queue.send(*(step.call for step in steps)), CLOSE_SECONDS)
            except asyncio.TimeoutError:
                self._state.abandoned(TimeoutError("Redis does not answer"))
            except Exception as error:
                self._state.abandoned(error)
            else:
                self._state.replied(steps, results, monotonic())
