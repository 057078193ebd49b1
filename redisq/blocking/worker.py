"""The blocking worker: one thread talks to Redis, one waits for wake-ups, the others run the handler.

With one handler at a time its thread talks to Redis too, while the other sleeps: handing each batch from thread to
thread would take a quarter of the time of one whose handler does nothing (`python -m benchmarks worker`).
"""

from __future__ import annotations

import contextlib
import inspect
import math
import threading
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue
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

_MOMENT = 0.0005
"""seconds that handlers have to end at once"""


class Worker(Generic[T]):
    """A worker: reserves batches, calls `handler(batch)`, and acks; on an exception it releases, with backoff.

    - `size`: items of a batch (default: the queue's own); `max_bytes`: of its encoded items and payloads together;
      `concurrency`: batches at a time, each in a thread.
    - The lease is extended while the handler runs. One that is lost all the same is logged, `batch.lost` tells the
      handler, and nothing is acked.
    - `Batch.fail` in the handler gives those items back, with backoff, and acks the others. `raise Retry(delay)` has
      the whole batch retried, with `count=False` without counting this attempt; `raise Bury(reason)` makes it a dead
      letter. A handler may also settle the batch itself.
    - `backoff(attempts)` gives the seconds until what failed is due again (default: `exponential()`).
    - `reason(exception)` gives the text that is kept with what failed (default: its class and message, 1,000 bytes at
      most). Give your own where messages may hold secrets.
    - `handler_timeout`: seconds for a handler. A thread cannot be stopped: the batch of one that takes longer is
      released as after an exception, its place stays taken until it ends, and when every place is taken so the run
      ends with an error.
    - `max_batches`: the run ends after so many, so that a process can be replaced by a fresh one.
    - SIGTERM and SIGINT (unless `signals=False`), or `stop()`: no new batch; running handlers have `grace` seconds,
      then their batches are given back. A second `stop()`, or a signal more than a second after the first, ends the
      grace. A handler that the application had set before is called as well. Outside the main thread signals are left
      alone.
    - A Redis that is unavailable is waited for; to stop meanwhile may take some seconds more, until the client's own
      retries are over. Idle, the worker sends less than one command a second, and a push wakes it. It uses two
      connections at most, whatever `concurrency` is.
    - Hooks: `on_ack(batch)`, `on_release(batch, error)`, `on_dead(list of Buried)`, called in the thread that talks to
      Redis, one at a time, so they should be short. With `concurrency=1` that is now a thread of the worker's own, now
      the handler's.

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
            raise InvalidArgument(f"queue is {queue!r}: give a redisq.Buffer or a redisq.PriorityQueue")
        if inspect.iscoroutinefunction(handler):
            raise InvalidArgument(f"handler is {handler!r}, an async function: use redisq.asyncio.Worker")
        validate.handler(handler)
        self.queue = queue
        self.handler = handler
        self.signals = signals
        self.observers: list[Observer] = []
        """What watches the next run."""
        queue.calls.reserve(**self.settings.reserving())  # a size that the queue does not take is refused here
        self._ending = Ending(self.settings.grace)
        self._run: _Run[T] | None = None
        self._running = threading.Lock()

    def __repr__(self) -> str:
        return f"Worker({self.queue!r}, {getattr(self.handler, '__qualname__', self.handler)})"

    def run(self, burst: bool = False) -> None:
        """Work until `stop` is called or, in the main thread, SIGTERM or SIGINT comes; then end as the class says.

        With `burst` it returns when nothing can be reserved any more and its own handlers have ended; it does not wait
        for backoffs, rates, or the leases of others. Raises what makes work impossible, such as `WrongOrder` or a wrong
        password, after the same orderly end. When it has returned it may be called again; while it runs, that raises
        RuntimeError.
        """
        with listening(self._on_signal) if self.signals else contextlib.nullcontext():
            self._begin(burst).start(wait=True)

    def stop(self) -> None:
        """Ask the worker to end, from any thread, a handler or a signal handler; a second time: to end at once.

        A worker that does not run yet ends as soon as it does.
        """
        self._ending.stop(monotonic())
        self._wake()

    def __enter__(self) -> Worker[T]:
        """Begin to work in a thread of its own; signals are left alone."""
        self._begin(False).start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Stop, and wait for the end; raises what made work impossible, if the block has not raised."""
        if (run := self._run) is None:
            return
        run.ending.ask(monotonic())
        self._wake()
        try:
            run.join()
        except Exception:
            if kind is None:
                raise  # else it was logged, and the block's own error goes on

    def _begin(self, burst: bool) -> _Run[T]:
        if not self._running.acquire(blocking=False):
            raise RuntimeError("this worker runs already: make another one to run beside it")
        self._run = _Run(self, self._ending, burst)
        return self._run

    def _ended(self) -> None:
        """Let the worker run again; what was asked of this run is not asked of the next."""
        self._ending = Ending(self.settings.grace)
        self._running.release()

    def _on_signal(self) -> None:
        self._ending.signal(monotonic())
        self._wake()

    def _wake(self) -> None:
        if (run := self._run) is not None:
            run.inbox.put(_look)


class _Run(Generic[T]):
    """One run of a worker, in a thread of its own, so that a Redis that hangs cannot keep `join` from its end."""

    def __init__(self, worker: Worker[T], ending: Ending, burst: bool) -> None:
        self.ending = ending
        # What is to be done in the thread. SimpleQueue alone may be used in a signal handler.
        self.inbox: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self.thread = threading.Thread(target=self._work, name="redisq-worker", daemon=True)
        self._worker = worker
        self._queue = worker.queue
        self._state: WorkLoop[T] = WorkLoop(
            self._queue.calls, worker.settings, self._batch, ending, observers=worker.observers, burst=burst
        )
        # Held by the thread that uses the state and talks to Redis. No signal handler and no caller takes it.
        self._turn = threading.Lock()
        self._wakes_at = 0.0  # when the loop goes on, if nothing comes before
        self._handlers = _Threads("redisq-handler", self.inbox)
        self._waiter = _Threads("redisq-wake-up", self.inbox)
        self._met_redis = False
        self._raised: BaseException | None = None
        self._done = threading.Event()

    def start(self, *, wait: bool = False) -> None:
        """Start the thread; with `wait`, wait for the end as `join` does."""
        try:
            try:
                self.thread.start()
            except Exception:  # the process may have no more threads
                self._worker._ended()
                raise
            if wait:
                self.join()
        except Exception:
            raise
        except BaseException:  # KeyboardInterrupt: the thread may have a batch before `Thread.start` has returned
            self._end_now()
            raise

    def join(self) -> None:
        """Wait for the end, and raise what made work impossible."""
        try:
            self._join()
        except BaseException:  # KeyboardInterrupt, where signals are left to Python
            self._end_now()
            raise
        if not self._done.is_set():
            self._state.abandoned(TimeoutError("Redis does not answer"))
        elif self._raised:
            raise self._raised

    def _end_now(self) -> None:
        self.ending.end(monotonic())
        self.inbox.put(_look)
        self._join()

    def _join(self) -> None:
        # Not Thread.join: interrupted by an exception, it may take the thread for dead. In pieces, because the time of
        # the end may change, and because no signal ends a wait on Windows.
        while not self._done.is_set() and monotonic() < self.ending.at + 2 * CLOSE_SECONDS:
            self._done.wait(1.0)

    # -- in the thread

    def _work(self) -> None:
        try:
            self._loop()
        except BaseException as error:
            self._raised = error
        finally:
            self._worker._ended()
            self._done.set()

    def _loop(self) -> None:
        state = self._state
        self._turn.acquire()  # for good: a handler that ends later than this run must not go on
        try:
            while not state.finished(monotonic()):
                state.alive(ALIVE)
                state.overdue(monotonic())
                steps = state.turn(monotonic())
                if steps:
                    self._let_end(self._begin(self._send(steps)))
                elif (seconds := state.wait_seconds(monotonic())) is not None:
                    state.waiting = True
                    self._waiter.call(partial(self._wait, seconds))
                self._wakes_at = min(monotonic() + BEAT, state.next_time(monotonic()))
                self._hear(0.0 if steps else self._wakes_at - monotonic())
        finally:
            state.close()
            try:
                self._hear(0.0)
            finally:
                self._handlers.end()
                self._waiter.end()
                self._give_back()
        if state.failure:
            raise state.failure

    def _batch(self, data: BatchData[T]) -> Batch[T]:
        return Batch(self._queue, data)

    def _send(self, steps: list[Step]) -> list[Held[T]]:
        """Make the round trip of a turn, and return the batches whose handlers are to begin."""
        self._state.alive(math.inf)
        try:
            results = self._queue.send(*(step.call for step in steps))
        except Exception as error:
            self._state.failed(steps, error, monotonic())
            return []
        finally:
            self._state.alive(ALIVE)
        begin = self._state.replied(steps, results, monotonic())
        if not self._met_redis:
            self._met_redis = True
            client: Any = self._queue.client
            with contextlib.suppress(Exception):  # not every user may ask
                log_eviction(client.info("memory"))
        return begin

    def _begin(self, begin: list[Held[T]]) -> int:
        handle = self._handle_and_go_on if self._worker.settings.concurrency == 1 else self._handle
        for held in begin:
            self._handlers.call(partial(handle, held))
        return len(begin)

    def _let_end(self, begun: int) -> None:
        """Give handlers that have just begun a moment to end, so that those that do are settled together.

        Else those of two turns would go on taking turns, each with half of them.
        """
        end = monotonic() + _MOMENT
        while begun > 0 and (left := end - monotonic()) > 0:
            begun -= self._hear(left)

    def _handle(self, held: Held[T]) -> Callable[[], object]:
        """Run the handler, in a thread of its own, and return what then is to be done in the loop."""
        try:
            if not self._state.closing:
                held.begun = True
                batch: Any = held.batch
                if inspect.iscoroutine(result := self._worker.handler(batch)):
                    result.close()
                    raise TypeError(
                        "the handler returned a coroutine, of which nothing has run: use redisq.asyncio.Worker"
                    )
        except BaseException as error:  # whatever it is, it is the handler's, and the thread goes on
            return partial(self._state.ended, held, error, monotonic())
        return partial(self._state.ended, held, None, monotonic())

    def _handle_and_go_on(self, held: Held[T]) -> Callable[[], object]:
        """Run the handler, and as long as the loop sleeps, settle its batch, reserve the next one and handle that."""
        following: Held[T] | None = held
        del held  # while a handler runs, what was before is not kept in memory
        while following:
            ended = self._handle(following)
            try:
                # In a fork, which a handler may have made, the loop's thread is not alive: there nothing goes on.
                if not (self.thread.is_alive() and self._turn.acquire(blocking=False)):
                    return ended
                try:
                    following = self._go_on(ended)
                finally:
                    self._turn.release()
            finally:
                del ended  # the traceback of an error in it leads to this frame: they would keep each other
        return _look

    def _go_on(self, ended: Callable[[], object]) -> Held[T] | None:
        ended()
        steps = self._state.turn(monotonic())
        begin = self._send(steps) if steps else []
        if not begin:
            return None
        # The loop wakes up for the lease of the first batch, before that of a later one is due. Only where that one was
        # settled by its handler, or lost, it may sleep for longer.
        if self._state.next_time(monotonic()) < self._wakes_at:
            self.inbox.put(_look)
        return begin[0]

    def _wait(self, seconds: float) -> Callable[[], object]:
        """Wait for a wake-up, in a thread of its own, and return what then is to be done in the loop."""
        try:
            self._queue.wait(seconds)
        except Exception as error:
            return partial(self._state.wait_ended, error, monotonic())
        return partial(self._state.wait_ended, None, monotonic())

    def _hear(self, seconds: float) -> int:
        """Do what has come, waiting for the first of it so many seconds, and return how much that was."""
        count = 0
        with contextlib.suppress(Empty):
            if seconds > 0:
                self._turn.release()
                try:
                    first = self.inbox.get(timeout=seconds)
                finally:
                    self._turn.acquire()
                first()
                count += 1
            while True:
                self.inbox.get_nowait()()
                count += 1
        return count

    def _give_back(self) -> None:
        steps = self._state.last_turn(monotonic())
        if steps:
            try:
                results = self._queue.send(*(step.call for step in steps))
            except Exception as error:
                self._state.abandoned(error)
            else:
                self._state.replied(steps, results, monotonic())


class _Threads:
    """Daemon threads that do what takes long, as many as are needed at a time; what follows goes to an inbox."""

    def __init__(self, name: str, inbox: SimpleQueue[Callable[[], object]]) -> None:
        self._name = name
        self._inbox = inbox
        self._work: SimpleQueue[Callable[[], Callable[[], object]] | None] = SimpleQueue()
        self._busy = self._count = 0

    def call(self, function: Callable[[], Callable[[], object]]) -> None:
        """Call a function in a thread, then put what it returns into the inbox, or what it raises."""
        if self._busy == self._count:
            threading.Thread(target=self._run, name=f"{self._name}-{self._count + 1}", daemon=True).start()
            self._count += 1
        self._busy += 1
        self._work.put(function)

    def _run(self) -> None:
        while function := self._work.get():
            try:
                then = function()
            except BaseException as error:
                then = partial(_raise, error)
            self._inbox.put(partial(self._done, then))
            del function, then  # an idle thread keeps no batch in memory

    def _done(self, then: Callable[[], object]) -> None:
        self._busy -= 1
        then()

    def end(self) -> None:
        """Let each thread end when it has nothing to do any more."""
        for _ in range(self._count):
            self._work.put(None)


def _raise(error: BaseException) -> None:
    raise error


def _look() -> None:
    """Do nothing, but have the loop look at what has changed."""
