"""The blocking worker: one thread fetches, one keeps leases, and `concurrency` threads run the handler."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from time import monotonic
from types import FrameType
from typing import Generic, TypeVar

from ..errors import CodecError, LeaseLost
from ..ops import Buried, Op, Reserved, describe
from ..sync.batch import Batch
from ..sync.buffer import Buffer
from ..sync.priority import PriorityQueue
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
    """Work a queue off: reserve, call `handler(batch)`, ack; on an exception release, with backoff.

    - `size`: items of a batch (default: the queue's own); `max_bytes`: of its encoded items and payloads together;
      `concurrency`: batches at a time, each in a thread.
    - The lease is extended while the handler runs. One that is lost all the same is logged, and nothing is acked.
    - `Batch.fail` in the handler gives those items back, with backoff, and acks the others. A handler may also settle
      the batch itself.
    - In the handler, `raise Retry(delay)` has the batch retried, with `count=False` without counting this attempt, and
      `raise Bury(reason)` makes it a dead letter at once.
    - `backoff(attempts)` gives the seconds until what failed is due again (default: `exponential()`).
    - `reason(exception)` gives the text that is kept with what failed (default: its class and message, 1,000 bytes at
      most). Give your own where messages may hold secrets.
    - SIGTERM and SIGINT, or `stop()`: no new batch; running handlers have `grace` seconds, then their batches are given
      back; what nobody began on is given back at once, and that hand-over does not count. A second signal ends it now.
    - A Redis that goes away is waited for. Idle, it sends less than one command a second, and a push wakes it.
    - Hooks: `on_ack(batch)`, `on_release(batch, error)`, `on_dead(list of Buried)`, called in the worker's threads.

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
        self._stopping = threading.Event()  # no new batch
        self._ending = threading.Event()  # not even those that run
        self._free = threading.Semaphore(self.policy.concurrency)
        self._taken: SimpleQueue[Batch[T]] = SimpleQueue()
        self._held: dict[str, Batch[T]] = {}  # from the reserve until it is settled
        self._kept: dict[str, Batch[T]] = {}  # those of them whose lease is kept: until the handler ends
        self._changed = threading.Condition()
        self._begun: set[str] = set()  # those of them that a handler has seen
        self._asleep = False  # whether the fetcher waits for a token, and so has no reserve under way
        self._failure: BaseException | None = None

    def run(self) -> None:
        """Work until `stop` is called or, in the main thread, SIGTERM or SIGINT comes; then end as the class says.

        Raises what makes work impossible, such as `WrongOrder`, after the same orderly end.
        """
        fetcher = threading.Thread(target=self._fetch, daemon=True)
        others = [threading.Thread(target=self._work, daemon=True) for _ in range(self.policy.concurrency)]
        with self._signals():
            for thread in (fetcher, *others, threading.Thread(target=self._keep, daemon=True)):
                thread.start()
            self._stopping.wait()
            logger.info("stopping: %d batches are in hand", len(self._held))
            end = monotonic() + self.policy.grace
            with self._changed:
                # In short pieces, because a second signal can set an event but not take this lock.
                while not self._done(fetcher) and not self._ending.is_set() and monotonic() < end:
                    self._changed.wait(0.05)
            self._ending.set()
            self._give_back()
        if self._failure:
            raise self._failure

    def stop(self) -> None:
        """Ask the worker to end, from any thread, a handler or a signal handler; a second time: to end now."""
        if self._stopping.is_set():
            self._ending.set()
        self._stopping.set()

    def _done(self, fetcher: threading.Thread) -> bool:
        # A fetcher that sleeps need not be waited for: it looks whether to stop before it reserves again.
        return not self._held and (self._asleep or not fetcher.is_alive())

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def on_signal(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
            self.stop()

        before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _reserve(self) -> Op[Reserved[T]]:
        return self.queue.ops.reserve_once(**self.policy.reserving())

    def _fetch(self) -> None:
        try:
            hunger = Hunger()
            while not self._stopping.is_set():
                self._free.acquire()
                count = 1
                while count < hunger.most and self._free.acquire(blocking=False):
                    count += 1
                taken = self._fetch_some(count)
                hunger.fed(count, taken)
                for _ in range(count - taken):
                    self._free.release()
        except BaseException as error:
            logger.exception("cannot go on")
            self._failure = error
            self._stopping.set()

    def _fetch_some(self, count: int) -> int:
        """Take up to so many batches in one round trip, or wait for one, and return how many came."""
        ops, runner = [self._reserve() for _ in range(count)], self.queue.runner
        for pause in pauses():
            if self._stopping.is_set():
                break
            try:
                answers = runner.talk(each(ops))  # the same each time: their lease ids make a lost reply harmless
                taken = sum(self._receive(answer) for answer in answers)
                if taken == 0 and (wait := must_wait(answers)) is not None:
                    self._asleep = True
                    runner.wait(self.queue.ops.waiting(wait))
                return taken
            except AWAY as error:
                if not self._stopping.is_set():
                    away(error, pause)
                    self._stopping.wait(pause)
            finally:
                self._asleep = False
        return 0

    def _receive(self, answer: Reserved[T] | CodecError) -> bool:
        if isinstance(answer, CodecError):
            logger.error("a batch cannot be decoded", exc_info=answer)
            batch = Batch(self.queue, answer.raw)
            self._settle(batch, Settlement("release", self.policy.delay(batch), reason=self.policy.why(answer)), answer)
            return False
        self.policy.buried(answer.buried)
        if answer.lease:
            self._take(Batch(self.queue, answer.lease))
        return answer.lease is not None

    def _take(self, batch: Batch[T]) -> None:
        with self._changed:
            self._held[batch.id] = self._kept[batch.id] = batch
        self._taken.put(batch)

    def _work(self) -> None:
        while True:
            batch = self._taken.get()
            begin = not self._stopping.is_set()
            if begin:
                self._begun.add(batch.id)
            error = self._handle(batch) if begin else None
            # From here on the keeper leaves it alone: extending what is just being acked would look like a lost lease.
            self._kept.pop(batch.id, None)
            if not begin:
                self._settle(batch, NOT_BEGUN)
            elif how := self.policy.settlement(batch, error, self.queue.ops.max_attempts):
                self._settle(batch, how, error)
            with self._changed:
                self._held.pop(batch.id, None)
                self._begun.discard(batch.id)
                self._changed.notify()
            self._free.release()

    def _handle(self, batch: Batch[T]) -> BaseException | None:
        try:
            self.handler(batch)
        except BaseException as error:  # whatever it is, it is the handler's, and the thread goes on
            return error
        return None

    def _settle(self, batch: Batch[T], how: Settlement, error: BaseException | None = None) -> None:
        ops, runner = self.queue.ops, self.queue.runner
        for pause in pauses():
            try:
                if how.verb == "ack":
                    runner.talk(ops.ack([batch], how.delay))
                elif how.verb == "bury":
                    runner.talk(ops.bury([batch], how.reason))
                else:
                    runner.talk(ops.release([batch], how.delay, count=how.count, reason=how.reason))
                self.policy.settled(how, batch, error)
            except LeaseLost:
                lost(batch, how.verb)
            except AWAY as reason:
                # Sent again it counts once, so it is sent until it is answered, or the worker has to end.
                if not self._ending.is_set():
                    away(reason, pause)
                    self._ending.wait(pause)
                    continue
                given_up(batch, how.verb, reason)
            return

    def _keep(self) -> None:
        # A third of the lease: two extensions may be lost before the lease is.
        while not self._ending.wait(self.queue.ops.lease / 3000):
            kept = list(self._kept.values())
            try:
                self.queue.extend(*kept)
            except LeaseLost as error:
                for batch in kept:
                    # One that is no longer kept has been settled meanwhile: that is no loss.
                    if batch.id in error.ids and batch.id in self._kept:
                        self._kept.pop(batch.id, None)
                        lost(batch, "its handler ended")
            except AWAY as reason:
                away(reason, self.queue.ops.lease / 3000)

    def _give_back(self) -> None:
        self._kept.clear()
        for batch in list(self._held.values()):
            if not batch.settled:
                logger.warning("giving back batch %s, whose handler has not ended", batch.id)
                self._settle(batch, Settlement("release", reason=STOPPED) if batch.id in self._begun else NOT_BEGUN)
