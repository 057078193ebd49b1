"""What a worker decides, in either flavour: what to send in each turn, and what follows the replies. No I/O.

A worker asks for a `turn`, sends its calls in one round trip, and gives the results back to `replied`, or the error to
`failed`. Handlers run elsewhere, and it tells when one has `ended`. Every call may be sent twice, so a turn that failed
is simply repeated.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from . import validate
from .batch import BatchData, Buried, Event, Nothing, record
from .buffer import BufferCalls
from .calls import Call
from .clients import kind_of, remedy_for
from .errors import Bury, CodecError, InvalidArgument, LeaseLost, RedisqError, Retry
from .priority import PriorityCalls
from .queue import describe, reason_of

logger = logging.getLogger("redisq.worker")

T = TypeVar("T")

Verb = Literal["ack", "release", "bury"]
Calls = BufferCalls[Any] | PriorityCalls[Any]
SAME_SIGNAL = 1.0
"""seconds within which a second signal is the same request: `timeout`, for one, sends two at once"""
STOPPED = "the worker was stopped before the handler had ended"


def exponential(first: float = 1.0, most: float = 300.0, factor: float = 2.0) -> Callable[[int], float]:
    """Return a backoff: `first` seconds after the first attempt, `factor` times as long after each more, up to `most`.

    Each is drawn at random between half of that and all of it, so that what failed together does not return together.
    """

    def backoff(attempts: int) -> float:
        # The exponent is bounded before it is used: a batch that came back a thousand times must not overflow a float.
        return random.uniform(0.5, 1.0) * min(most, first * factor ** min(max(attempts, 1) - 1, 64))

    return backoff


@dataclass(frozen=True)
class Settings:
    """A worker's settings, checked."""

    size: int | None = None
    max_bytes: int | None = None
    concurrency: int = 1
    backoff: Callable[[int], float] = field(default_factory=exponential)
    reason: Callable[[BaseException], str | None] = describe
    grace: float = 25.0
    handler_timeout: float | None = None
    max_batches: int | None = None
    on_ack: Callable[[Any], object] | None = None
    on_release: Callable[[Any, BaseException | None], object] | None = None
    on_dead: Callable[[list[Buried]], object] | None = None

    def __post_init__(self) -> None:
        validate.integer("concurrency", self.concurrency, 1, 10_000)
        validate.milliseconds("grace", self.grace)
        if self.handler_timeout is not None:
            validate.milliseconds("handler_timeout", self.handler_timeout, 0.001)
        if self.max_batches is not None:
            validate.integer("max_batches", self.max_batches, 1, 10**12, ", or None")
        for name in ("backoff", "reason", "on_ack", "on_release", "on_dead"):
            hook = getattr(self, name)
            if hook is not None and not callable(hook):
                raise InvalidArgument(f"{name} is {hook!r}: give a function")

    def reserving(self) -> dict[str, Any]:
        """Return the arguments of a reserve."""
        return {"max_bytes": self.max_bytes} | ({} if self.size is None else {"size": self.size})


@dataclass(frozen=True)
class Settlement:
    """What becomes of a batch."""

    verb: Verb
    delay: float = 0.0
    """Seconds until what is given back is due again."""
    count: bool = True
    """Whether a release counts as an attempt."""
    reason: str | None = None


class Prefetch:
    """How many batches to ask for at a time: many while there are many, one where there are few.

    Without it a worker with a hundred idle places would ask a hundred times for each batch that comes.
    """

    LIMIT = 64

    def __init__(self) -> None:
        self.most = 1

    def record(self, asked: int, taken: int) -> None:
        """Learn from a reply: all that was asked for came, or less."""
        self.most = min(2 * asked, self.LIMIT) if taken == asked else 1


@dataclass(eq=False)
class Held(Generic[T]):
    """A batch that this worker holds."""

    batch: BatchData[T]
    begun: bool = False
    """Whether a handler has seen it."""
    extend_at: float = math.inf
    """When its lease is to be extended."""
    ends_at: float = math.inf
    """When its handler's time is over."""
    overdue: bool = False
    """Whether its handler ran longer than it may; the batch was given back, and the handler's end changes nothing."""


@dataclass(eq=False)
class Step:
    """One call of a turn, and what it is for."""

    call: Call[Any]
    held: Held[Any] | None = None
    """None: a reserve"""
    settlement: Settlement | None = None
    """None: a reserve, or an extension"""
    error: BaseException | None = None


class WorkLoop(Generic[T]):
    """The state of one run of a worker. Times are those of one monotonic clock, in seconds."""

    def __init__(
        self, calls: Calls, settings: Settings, make_batch: Callable[[BatchData[T]], BatchData[T]], burst: bool = False
    ) -> None:
        self.calls = calls
        self.settings = settings
        self.burst = burst
        self._make_batch = make_batch
        self._extend_every = calls.lease / 3000  # a third of the lease: two extensions may be lost before it is
        self._running: dict[str, Held[T]] = {}  # a handler has them, or had them too long: each takes a place
        self._held: dict[str, Held[T]] = {}  # until they are settled
        self._outbox: list[Step] = []
        self._reserves: list[Call[list[Event[T]]]] = []  # not answered yet: sent again as they are
        self._prefetch = Prefetch()
        self._ask_at = -math.inf  # when to reserve again, where there was nothing
        self._taken = 0
        self._pauses = _pauses()
        self._resume_at = -math.inf  # when to send again, after an error
        self.stopping = False
        self._signalled_at = -math.inf
        self._end_at = math.inf
        self.failure: BaseException | None = None

    # -- what to do

    def turn(self, now: float) -> list[Step]:
        """Return the calls to send now: settlements, then extensions, then reserves for the free places."""
        if now < self._resume_at:
            return []
        steps, self._outbox = self._outbox, []
        for held in self._running.values():
            if held.extend_at <= now and not held.batch.settled:
                steps.append(Step(self.calls.extend(held.batch), held))
        wanted = self._wanted(now)
        while len(self._reserves) < wanted:
            self._reserves.append(self.calls.reserve(**self.settings.reserving()))
        return steps + [Step(call) for call in self._reserves[:wanted]]

    def _wanted(self, now: float) -> int:
        """Return how many batches to ask for now."""
        if self.stopping or now < self._ask_at:
            return 0
        left = math.inf if self.settings.max_batches is None else self.settings.max_batches - self._taken
        return int(min(self.free, self._prefetch.most, left))

    @property
    def free(self) -> int:
        """How many handlers could begin."""
        return self.settings.concurrency - len(self._running)

    def wake_up_seconds(self, now: float) -> float | None:
        """Return how long to wait for a wake-up, or None where none is wanted."""
        if self.stopping or self.burst or self.free == 0 or self._ask_at <= now:
            return None
        return self._ask_at - now

    def woken(self) -> None:
        """Note that something was pushed or has come back, or that the time for it is over."""
        self._ask_at = -math.inf

    def next_time(self, now: float) -> float:
        """Return when the next turn is due at the latest."""
        times = [self._end_at, *(held.ends_at for held in self._running.values())]
        if now < self._resume_at:
            return min([*times, self._resume_at])
        times += [held.extend_at for held in self._running.values() if not held.batch.settled]
        if not self.stopping and self.free:
            times.append(self._ask_at)
        return min(times)

    # -- what came of it

    def replied(self, steps: Sequence[Step], results: Sequence[Any], now: float) -> list[Held[T]]:
        """Take in the results of a turn, and return the batches whose handlers are to begin."""
        self._pauses = _pauses()
        begin: list[Held[T]] = []
        retries: list[float] = []
        asked = 0
        for step, result in zip(steps, results, strict=True):
            if step.held is None:
                asked += 1
                self._reserves.remove(step.call)
                begin += self._reserved(result, now, retries)
            elif step.settlement is None:
                self._extended(step.held, result, now)
            else:
                self._settled(step.held, step.settlement, result, step.error)
        if asked:
            self._prefetch.record(asked, len(begin))
            if retries and min(retries) > 0:
                self._ask_at = now + min(retries)
        return begin

    def _reserved(self, result: Any, now: float, retries: list[float]) -> list[Held[T]]:
        if isinstance(result, CodecError):
            logger.error("a batch cannot be decoded", exc_info=result)
            held: Held[T] = Held(self._make_batch(result.raw))
            how = Settlement("release", self._delay(held.batch), reason=self._why(result))
            self._outbox.append(self._settle(held, how, result))
            return []
        self._died([event for event in result if isinstance(event, Buried)])
        last = result[-1]
        if isinstance(last, Nothing):
            # Sent again after its reply was lost, it may find that the lease has run out: then a new one is asked for.
            retries.append(0.0 if last.ended else math.inf if last.retry is None else last.retry)
        if not isinstance(last, BatchData):
            return []
        self._taken += 1
        held = Held(self._make_batch(last), extend_at=now + self._extend_every)
        self._held[last.id] = held
        if self.stopping:
            self._outbox.append(self._settle(held, Settlement("release", count=False)))
            return []
        held.begun = True
        held.ends_at = now + (self.settings.handler_timeout or math.inf)
        self._running[last.id] = held
        return [held]

    def _extended(self, held: Held[T], result: Any, now: float) -> None:
        if isinstance(result, LeaseLost):
            held.extend_at = math.inf
            if not held.batch.settled and held.batch.id in self._running:
                record(held.batch, result, ends=False)
                log_lease_lost(held.batch, "its handler ended")
        else:
            held.batch.deadline = result / 1000
            held.extend_at = now + self._extend_every

    def _settled(self, held: Held[T], how: Settlement, result: Any, error: BaseException | None) -> None:
        self._held.pop(held.batch.id, None)
        record(held.batch, result)
        if isinstance(result, LeaseLost):
            log_lease_lost(held.batch, how.verb)
        elif how.verb == "ack":
            call_hook(self.settings.on_ack, held.batch)
        elif how.verb == "release":
            call_hook(self.settings.on_release, held.batch, error)
        elif held.batch.group is not None:
            batch = held.batch
            self._died([Buried(batch.id, batch.group, batch.attempts, how.reason or batch.reason)])
        else:
            self._died([Buried(member, None, None, how.reason or "") for member in held.batch.items])

    def _died(self, buried: list[Buried]) -> None:
        for one in buried:
            logger.error("dead letter: %r", one.name, extra={"group": one.group, "attempts": one.attempts})
        if buried:
            call_hook(self.settings.on_dead, buried)

    def failed(self, steps: Sequence[Step], error: Exception, now: float) -> None:
        """Take in that a turn could not be sent, or that nobody knows what became of it.

        What passes is waited for; any other error ends the worker.
        """
        self._outbox = [step for step in steps if step.settlement is not None] + self._outbox
        self.unavailable(error, now)

    def unavailable(self, error: Exception, now: float) -> None:
        """Wait a while after an error that passes by itself; end the worker for any other."""
        kind = kind_of(error)
        if kind not in ("unavailable", "shortage"):
            if remedy := remedy_for(error):
                add_note(error, f"Remedy: {remedy}.")
            logger.error("cannot go on: %s", error)
            self.failure = error
            self.stop(now)
            self._resume_at = now
            return
        pause = next(self._pauses)
        self._resume_at = now + pause
        if kind == "shortage":
            logger.warning("the client has no free connection, retrying in %.1f s: %s", pause, error)
        else:
            log_unavailable(error, pause)

    # -- handlers

    def ended(self, held: Held[T], error: BaseException | None) -> None:
        """Take in that a handler has ended."""
        self._running.pop(held.batch.id, None)
        if held.overdue:
            return
        held.extend_at = math.inf
        if self.burst:
            self.woken()  # what it released may be due at once
        if how := self._settlement(held.batch, error):
            self._outbox.append(self._settle(held, how, error))
        else:
            self._held.pop(held.batch.id, None)

    def overdue(self, now: float) -> list[Held[T]]:
        """Return the batches whose handlers have run longer than they may."""
        return [held for held in self._running.values() if held.ends_at <= now]

    def abandon(self, held: Held[T]) -> None:
        """Give back the batch of a handler that cannot be stopped; its place stays taken until it ends."""
        held.overdue, held.ends_at, held.extend_at = True, math.inf, math.inf
        error = self.timeout_error()
        if how := self._settlement(held.batch, error):
            self._outbox.append(self._settle(held, how, error))
        if all(one.overdue for one in self._running.values()) and self.free == 0:
            self.failure = RedisqError(
                f"every handler has run longer than handler_timeout={self.settings.handler_timeout:g} s, and a thread "
                "cannot be stopped: start this process again"
            )

    def timeout_error(self) -> TimeoutError:
        """Return the error of a handler that ran longer than it may."""
        return TimeoutError(f"the handler ran longer than handler_timeout={self.settings.handler_timeout:g} s")

    def _settle(self, held: Held[T], how: Settlement, error: BaseException | None = None) -> Step:
        batch = held.batch
        if how.verb == "ack":
            call = self.calls.ack(batch, how.delay)
        elif how.verb == "bury":
            call = self.calls.bury(batch, how.reason)
        else:
            call = self.calls.release(batch, how.delay, count=how.count, reason=how.reason)
        return Step(call, held, how, error)

    def _settlement(self, batch: BatchData[T], error: BaseException | None) -> Settlement | None:
        """Say what becomes of a batch when its handler has ended; None if it is settled."""
        if batch.settled:
            if error is not None:
                how = "lost" if batch.lost else "settled"
                logger.error("handler failed after it had %s batch %s", how, batch.id, exc_info=error)
            return None
        if error is None:
            return Settlement("ack", self._delay(batch) if batch.failed else 0.0)
        if isinstance(error, Bury):
            return Settlement("bury", reason=self._why(error))
        asked = error if isinstance(error, Retry) else Retry()
        if asked.count and used_up(batch, self.calls.max_attempts):
            delay = 0.0
        else:
            delay = self._delay(batch) if asked.delay is None else asked.delay
        logger.warning(
            "handler %s batch %s, attempt %d, due again in %.1f s",
            "asked for a retry of" if asked is error else "failed on",
            batch.id,
            batch.attempts,
            delay,
            exc_info=None if asked is error else error,
            extra=log_extra(batch),
        )
        return Settlement("release", delay, asked.count, self._why(error))

    def _delay(self, batch: BatchData[Any]) -> float:
        """Return the backoff of a batch; one that cannot be used becomes the default's, and is logged."""
        try:
            delay = self.settings.backoff(batch.attempts)
            validate.milliseconds("backoff", delay)
        except Exception:
            logger.exception("backoff failed for batch %s", batch.id)
            return exponential()(batch.attempts)
        return delay

    def _why(self, error: BaseException) -> str | None:
        """Return the reason that is kept of an exception; if the function for it fails, the exception's class."""
        try:
            reason = reason_of(error, self.settings.reason)
            if reason is not None and not isinstance(reason, str):
                raise InvalidArgument(f"reason returned {reason!r}: give a str or None")
        except Exception:
            logger.exception("reason failed")
            return type(error).__name__
        return reason

    # -- the end

    def stop(self, now: float) -> None:
        """Reserve nothing more, and end when the handlers have, or after `grace`; the second time: end now."""
        if self.stopping:
            self._end_at = now
            return
        self.stopping = True
        self._end_at = now + self.settings.grace
        logger.info("stopping: %d batches in progress", len(self._running))

    def signalled(self, now: float) -> None:
        """Take in a signal: as `stop`, but two within a second are one request."""
        if now - self._signalled_at >= SAME_SIGNAL:
            self._signalled_at = now
            self.stop(now)

    def finished(self, now: float) -> bool:
        """Say whether the run is over: nothing is left to do, or the grace is over."""
        if now >= self._end_at:
            return True
        # A handler that cannot be stopped is not waited for; an error of all of them ends the run.
        waited_for = any(not held.overdue for held in self._running.values())
        if waited_for or self._outbox:
            return False
        if self.stopping or self.failure:
            return True
        if self.settings.max_batches is not None and self._taken >= self.settings.max_batches:
            return True
        return self.burst and now < self._ask_at

    def last_turn(self) -> list[Step]:
        """Return the calls that end the run: what is still held is given back, for others to do."""
        self.stopping = True
        settling = {step.held.batch.id for step in self._outbox if step.held}
        for held in self._held.values():
            if not (held.batch.settled or held.batch.id in settling or held.overdue):
                logger.warning("giving back batch %s, whose handler has not ended", held.batch.id)
                self._outbox.append(self._settle(held, Settlement("release", reason=STOPPED)))
        steps, self._outbox = self._outbox, []
        return steps

    def abandoned(self, steps: Sequence[Step], error: Exception) -> None:
        """Log what could not even be given back: its leases will run out."""
        for step in steps:
            if step.held and step.settlement:
                log_abandoned(step.held.batch, step.settlement.verb, error)


def used_up(batch: BatchData[Any], max_attempts: int) -> bool:
    """Return whether this was the last attempt of the whole batch: then its death need not wait for a backoff."""
    one = batch.group is not None or len(batch.items) == 1  # members have attempts of their own
    return 0 < max_attempts <= batch.attempts and one


def _pauses() -> Iterator[float]:
    """Yield the seconds to wait for a Redis that is unavailable: 0.1, then twice as long, up to 5, without end."""
    pause = 0.1
    while True:
        yield pause
        pause = min(5.0, 2 * pause)


def add_note(error: BaseException, note: str) -> None:
    """Add a note to an error, which tracebacks show from Python 3.11 on."""
    if hasattr(error, "add_note"):
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
    else:
        logger.error(note)


def log_extra(batch: BatchData[Any]) -> dict[str, Any]:
    """Return what a log record of a batch carries."""
    return {"batch": batch.id, "group": batch.group, "attempts": batch.attempts, "items": len(batch.items)}


def log_lease_lost(batch: BatchData[Any], what: str) -> None:
    """Log that another worker holds a batch now."""
    logger.warning("lease of batch %s lost before %s: it is handed out again", batch.id, what, extra=log_extra(batch))


def log_abandoned(batch: BatchData[Any], verb: str, error: Exception) -> None:
    """Log that a batch is left to its lease, because Redis is unavailable and the worker has to end."""
    logger.error("could not %s batch %s, its lease will run out: %s", verb, batch.id, error, extra=log_extra(batch))


def log_unavailable(error: Exception, pause: float) -> None:
    """Log that Redis is unavailable."""
    logger.warning("Redis is unavailable, retrying in %.1f s: %s", pause, error)


def call_hook(hook: Callable[..., object] | None, *what: object) -> None:
    """Call a hook of the user's, whose errors are logged and change nothing."""
    if hook is not None:
        try:
            hook(*what)
        except Exception:
            logger.exception("hook %r failed", hook)
