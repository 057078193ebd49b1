"""The blocking worker: the thread that runs it talks to Redis, one waits for wake-ups, the others run the handler."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, Generic, Literal, TypeVar

from ..core.batch import BatchData, Buried
from ..core.queue import describe
from ..core.signals import listening
from ..core.worker import Held, Settings, WorkLoop, exponential
from .batch import Batch
from .buffer import Buffer
from .priority import PriorityQueue

T = TypeVar("T")


class Worker(Generic[T]):
    """A worker: reserves batches, calls `handler(batch)`, and acks; on an exception it releases, with backoff.

    - `size`: items of a batch (default: the queue's own); `max_bytes`: of its encoded items and payloads together;
      `concurrency`: batches at a time, each in a thread.
    - The lease is extended while the handler runs. One that is lost all the same is logged, and nothing is acked.
    - `Batch.fail` in the handler gives those items back, with backoff, and acks the others. `raise Retry(delay)` has
      the whole batch retried, with `count=False` without counting this attempt; `raise Bury(reason)` makes it a dead
      letter. A handler may also settle the batch itself.
    - `backoff(attempts)` gives the seconds until what failed is due again (default: `exponential()`).
    - `reason(exception)` gives the text that is kept with what failed (default: its class and message, 1,000 bytes at
      most). Give your own where messages may hold secrets.
    - `handler_timeout`: seconds for a handler. A thread cannot be stopped: the batch of one that takes longer is
      released, its place stays taken until it ends, and when every place is taken so the worker ends with an error.
    - `max_batches`: the run ends after so many, so that a process can be replaced by a fresh one.
    - SIGTERM and SIGINT (unless `signals=False`), or `stop()`: no new batch; running handlers have `grace` seconds,
      then their batches are given back. A later signal ends the grace period; two within a
      second are one. A handler that the application had set before is called as well. Outside the main thread signals
      are left alone.
    - A Redis that is unavailable is waited for. Idle, the worker sends less than one command a second, and a push wakes
      it. It uses two connections at most, whatever `concurrency` is.
    - Hooks: `on_ack(batch)`, `on_release(batch, error)`, `on_dead(list of Buried)`, called in the worker's thread.

    What happens is logged to `redisq.worker`. Raises `InvalidArgument` for settings that cannot be used.
    """

    def __init__(
        self,
        queue: Buffer[T] | PriorityQueue[T],
        handler: Callable[[Batch[T]], object],
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
        # Everything that the loop must hear comes through here. SimpleQueue alone may be used in a signal handler.
        self._inbox: SimpleQueue[_Message] = SimpleQueue()
        self._running = threading.Lock()
        self._thread: threading.Thread | None = None
        self._raised: BaseException | None = None

    def run(self, burst: bool = False) -> None:
        """Work until `stop` is called or, in the main thread, SIGTERM or SIGINT comes; then end as the class says.

        With `burst` it returns when nothing can be reserved any more and its own handlers have ended; it does not wait
        for backoffs, rates, or the leases of others. Raises what makes work impossible, such as `WrongOrder` or a wrong
        password, after the same orderly end. It may be called again when it has returned; while it runs, that raises
        RuntimeError.
        """
        with listening(lambda: self._inbox.put("signal")) if self.signals else contextlib.nullcontext():
            self._work(burst)

    def stop(self) -> None:
        """Ask the worker to end, from any thread, a handler or a signal handler; a second time: to end now."""
        self._inbox.put("stop")

    def __enter__(self) -> Worker[T]:
        """Begin to work in a thread of its own; signals are left alone."""

        def work() -> None:
            try:
                self._work(False)
            except BaseException as error:
                self._raised = error

        self._raised = None
        self._thread = threading.Thread(target=work, name="redisq-worker", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, and wait for the end; raises what made work impossible."""
        assert self._thread is not None
        if self._thread.is_alive():
            self.stop()
        self._thread.join()
        if self._raised:
            raise self._raised

    # -- the loop

    def _work(self, burst: bool) -> None:
        if not self._running.acquire(blocking=False):
            raise RuntimeError("this worker runs already: make another one to run beside it")
        state: WorkLoop[T] = WorkLoop(self.queue.calls, self.settings, self._batch, burst)
        threads = _Threads(self._handle)
        waits: SimpleQueue[float | None] = SimpleQueue()
        waiting = started = False
        try:
            while not state.finished(monotonic()):
                steps = state.turn(monotonic())
                if steps:
                    try:
                        results = self.queue.send(*(step.call for step in steps))
                    except Exception as error:
                        state.failed(steps, error, monotonic())
                    else:
                        for held in state.replied(steps, results, monotonic()):
                            threads.begin(held)
                seconds = None if waiting or steps else state.wake_up_seconds(monotonic())
                if seconds is not None:
                    if not started:
                        threading.Thread(target=self._wait, args=(waits,), name="redisq-wake-up", daemon=True).start()
                    waits.put(seconds)
                    waiting = started = True
                for message in self._messages(0.0 if steps else state.next_time(monotonic()) - monotonic()):
                    waiting = self._hear(state, message, waiting)
                for held in state.overdue(monotonic()):
                    state.abandon(held)
        finally:
            threads.end()
            waits.put(None)
            self._end(state)
            # What was asked of this run is not meant for the next.
            while not self._inbox.empty():
                self._inbox.get()
            self._running.release()
        if state.failure:
            raise state.failure

    def _batch(self, data: BatchData[T]) -> Batch[T]:
        return Batch(self.queue, data)

    def _messages(self, seconds: float) -> list[_Message]:
        """Return what has come, waiting for the first of it so many seconds."""
        found: list[_Message] = []
        with contextlib.suppress(Empty):
            if seconds > 0:
                found.append(self._inbox.get(timeout=None if math.isinf(seconds) else min(seconds, 3600)))
            while True:
                found.append(self._inbox.get_nowait())
        return found

    def _hear(self, state: WorkLoop[T], message: _Message, waiting: bool) -> bool:
        """Take a message in, and return whether a wake-up is still waited for."""
        match message:
            case "stop":
                state.stop(monotonic())
            case "signal":
                state.signalled(monotonic())
            case "woken":
                state.woken()
                return False
            case Exception():
                state.woken()
                state.unavailable(message, monotonic())
                return False
            case (held, error):
                state.ended(held, error)
        return waiting

    def _handle(self, held: Held[T]) -> None:
        error: BaseException | None = None
        batch: Any = held.batch
        try:
            self.handler(batch)
        except BaseException as raised:  # whatever it is, it is the handler's, and the thread goes on
            error = raised
        self._inbox.put((held, error))

    def _wait(self, waits: SimpleQueue[float | None]) -> None:
        while (seconds := waits.get()) is not None:
            try:
                self.queue.wait(seconds)
            except Exception as error:
                self._inbox.put(error)
            else:
                self._inbox.put("woken")

    def _end(self, state: WorkLoop[T]) -> None:
        for message in self._messages(0.0):
            self._hear(state, message, False)
        steps = state.last_turn()
        try:
            state.replied(steps, self.queue.send(*(step.call for step in steps)), monotonic())
        except Exception as error:
            state.abandoned(steps, error)


_Message = Literal["stop", "signal", "woken"] | Exception | tuple[Held[Any], BaseException | None]
"""what the loop hears: a request, the end of a wait or its error, or the end of a handler"""


class _Threads:
    """The threads that run handlers: as many as were ever needed at a time."""

    def __init__(self, handle: Callable[[Held[Any]], None]) -> None:
        self._handle = handle
        self._work: SimpleQueue[Held[Any] | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._count = 0

    def begin(self, held: Held[Any]) -> None:
        """Run a handler."""
        if not self._idle.acquire(blocking=False):
            self._count += 1
            threading.Thread(target=self._run, name=f"redisq-handler-{self._count}", daemon=True).start()
        self._work.put(held)

    def _run(self) -> None:
        while (held := self._work.get()) is not None:
            self._handle(held)
            self._idle.release()

    def end(self) -> None:
        """Let the threads end when their handlers have."""
        for _ in range(self._count):
            self._work.put(None)
