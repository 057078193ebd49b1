"""What a worker decides, in either flavour: what to send in each turn, and what follows the replies. No I/O.

A worker asks for a `turn`, sends its calls in one round trip, and gives the results to `replied`, or the error to
`failed`. Every call may be sent twice, so what has not been answered is part of the next turn. Handlers run elsewhere;
`ended` takes in the end of one. All of it belongs to one thread or task, but for `Ending`.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import iscoroutinefunction
from typing import Any, Generic, Literal, TypeVar

from . import validate
from .batch import BatchData, Buried, Event, Nothing, record
from .buffer import BufferCalls
from .calls import Call
from .clients import errors, kind_of, remedy_for
from .doctor import evicting
from .errors import Bury, CodecError, InvalidArgument, LeaseLost, RedisqError, Retry
from .observer import Observer, Outcome
from .priority import PriorityCalls
from .queue import describe, reason_bytes, reason_of

logger = logging.getLogger("redisq.worker")

T = TypeVar("T")

Verb = Literal["ack", "release", "bury"]
Calls = BufferCalls[Any] | PriorityCalls[Any]

SAME_SIGNAL = 1.0
"""seconds within which a second signal is the same request: `timeout`, for one, sends two at once"""
CLOSE_SECONDS = 2.0
"""seconds for each of the last things: a call under way, handlers that were cancelled, giving back what is held"""
_POLL = 1.0  # seconds between two reserves of a burst whose handlers still run
_SECOND_LOOK = 1.0
STOPPED = "the worker was stopped before the handler had ended"


def exponential(first: float = 1.0, most: float = 300.0, factor: float = 2.0) -> Callable[[int], float]:
    """Return a backoff: `first` seconds after the first attempt, `factor` times as long after each more, up to `most`.

    Each is drawn at random between half of that and all of it, so that what failed together does not return together.
    Raises `InvalidArgument` for seconds that are not a number, or a factor that is not from 0 to 1,000.
    """
    for name, seconds in (("first", first), ("most", most)):
        validate.milliseconds(name, seconds)
    first, most, factor = (
        validate.number("first", first),
        validate.number("most", most),
        validate.number("factor", factor),
    )
    if not 0 <= factor <= 1000:  # else a float could overflow
        raise InvalidArgument(f"factor is {factor!r}: give a number from 0 to 1000")

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
        # An int and floats, whatever kinds of numbers were given.
        checked: dict[str, Any] = {
            "concurrency": validate.integer("concurrency", self.concurrency, 1, 10_000),
            "grace": validate.milliseconds("grace", self.grace) / 1000,
        }
        if self.handler_timeout is not None:
            checked["handler_timeout"] = validate.milliseconds("handler_timeout", self.handler_timeout, 0.001) / 1000
        if self.max_batches is not None:
            checked["max_batches"] = validate.integer("max_batches", self.max_batches, 1, 10**12, ", or None")
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        for name in ("backoff", "reason", "on_ack", "on_release", "on_dead"):
            hook = getattr(self, name)
            if hook is not None and (not callable(hook) or iscoroutinefunction(hook)):
                raise InvalidArgument(f"{name} is {hook!r}: give a function, not an async one")

    def reserving(self) -> dict[str, Any]:
        """Return the arguments of a reserve."""
        return {"max_bytes": self.max_bytes} | ({} if self.size is None else {"size": self.size})


class Ending:
    """When a run is to end. It is told from any thread and from signal handlers, so it takes no lock."""

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._stopped = False
        self._signalled_at = -math.inf
        self.asked = False
        """Whether nothing new is to begin."""
        self.at = math.inf
        """When the handlers that still run have had their grace."""

    def stop(self, now: float) -> None:
        """Ask for the end; the second time: at once.

        A signal before it does not count: a web server that has had the signal too calls `stop` in its own time.
        """
        if self._stopped:
            self.end(now)
        self._stopped = True
        self.ask(now)

    def signal(self, now: float) -> None:
        """Ask for the end as `stop` does; signals within a second of each other are one request."""
        if now - self._signalled_at < SAME_SIGNAL:
            return
        if self._signalled_at > -math.inf:
            self.end(now)
        self._signalled_at = now
        self.ask(now)

    def ask(self, now: float) -> None:
        """Ask for the end, if nobody has."""
        if not self.asked:
            self.asked, self.at = True, min(self.at, now + self._grace)

    def end(self, now: float) -> None:
        """Ask for the end at once."""
        self.asked, self.at = True, min(self.at, now)


@dataclass(frozen=True)
class Settlement:
    """What becomes of a batch."""

    verb: Verb
    delay: float = 0.0
    """Seconds until what is given back is due again."""
    count: bool = True
    """Whether a release counts as an attempt."""
    reason: str | None = None


_OUTCOMES: dict[Verb, Outcome] = {"ack": "acked", "release": "released", "bury": "buried"}
_NOT_BEGUN = Settlement("release", count=False)


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


class _Pauses:
    """The seconds to wait for a Redis that is unavailable: 0.1, then twice as long each time, up to 5."""

    def __init__(self) -> None:
        self._seconds = 0.1

    def next(self) -> float:
        seconds = self._seconds
        self._seconds = min(5.0, 2 * seconds)
        return seconds


@dataclass(eq=False, slots=True)
class Held(Generic[T]):
    """A batch that takes a place: a handler has it, or is about to."""

    batch: BatchData[T]
    taken_at: float = 0.0
    begun: bool = False
    """Whether the handler has seen it."""
    told: bool = False
    """Whether observers were told that the handler has ended."""
    extend_at: float = math.inf
    """When its lease is to be extended."""
    ends_at: float = math.inf
    """When its handler's time is over."""
    doubted: bool = False
    """Whether its last extension found the lease lost."""
    cancelled: bool = False
    """Whether the handler was cancelled because its time was over."""
    abandoned: bool = False
    """Whether the handler did not end in its time, and the batch was given back: the end of it changes nothing."""


@dataclass(eq=False, slots=True)
class Step:
    """One call of a turn, and what it is for: a settlement, an extension (of what is held), or a reserve."""

    call: Call[Any]
    held: Held[Any] | None = None
    settlement: Settlement | None = None
    error: BaseException | None = None
    """What the handler raised."""


class WorkLoop(Generic[T]):
    """The state of one run of a worker. Times are those of one monotonic clock, in seconds."""

    def __init__(
        self,
        calls: Calls,
        settings: Settings,
        make_batch: Callable[[BatchData[T]], BatchData[T]],
        ending: Ending,
        *,
        observers: Sequence[Observer] = (),
        burst: bool = False,
        can_cancel: bool = False,
    ) -> None:
        self._calls = calls
        self._settings = settings
        self._make_batch = make_batch
        self._ending = ending
        self._observers = tuple(observers)
        self._burst = burst
        self._can_cancel = can_cancel
        self._extend_every = calls.lease / 3000  # a third of the lease: two extensions may be lost before it is
        self._running: dict[str, Held[T]] = {}
        self._outbox: dict[str, Step] = {}  # settlements, until they are answered
        self._reserves: list[Call[list[Event[T]]]] = []  # until they are answered
        # The earliest of all, or something before it: so that not every turn looks at every batch.
        self._extend_at = self._ends_at = math.inf
        self._prefetch = Prefetch()
        self._left = math.inf if settings.max_batches is None else settings.max_batches
        self._ask_at = -math.inf  # when to reserve again, where there was nothing
        self._nothing = False  # was the last answer to a reserve
        self.waiting = False
        """Whether a wake-up is waited for. Nothing is reserved meanwhile: it would be taken from others for nothing."""
        self._wait_failed = False
        self._pauses, self._wait_pauses = _Pauses(), _Pauses()
        self._resume_at = -math.inf  # when to send again, after an error
        self._alone = 0
        self._logged_stop = False
        self.closing = False
        self.failure: BaseException | None = None

    # -- what to do

    def turn(self, now: float) -> list[Step]:
        """Return the calls to send now: settlements, then extensions, then reserves for the free places."""
        if now < self._resume_at:
            return []
        steps = list(self._outbox.values())
        if now >= self._extend_at:
            steps += self._extensions(now)
        wanted = self._wanted(now)
        while len(self._reserves) < wanted:
            self._reserves.append(self._calls.reserve(**self._settings.reserving()))
        steps += [Step(call) for call in self._reserves[:wanted]]
        return steps[:1] if self._alone else steps

    def _extensions(self, now: float) -> list[Step]:
        held = [one for one in self._running.values() if not (one.batch.settled or one.abandoned)]
        self._extend_at = min((one.extend_at for one in held), default=math.inf)
        return [Step(self._calls.extend(one.batch), one) for one in held if one.extend_at <= now]

    def _places(self) -> float:
        """Return how many handlers could begin, if there was something for them."""
        return 0 if self._ending.asked else min(self._settings.concurrency - len(self._running), self._left)

    def _wanted(self, now: float) -> int:
        return 0 if self.waiting or now < self._ask_at else int(min(self._places(), self._prefetch.most))

    def wait_seconds(self, now: float) -> float | None:
        """Return how long to wait for a wake-up, or None where that is not to begin now."""
        idle = now < self._ask_at and self._places() > 0 and now >= self._resume_at
        if not idle or self._burst or self.waiting or self._wait_failed:
            return None
        return self._ask_at - now

    def next_time(self, now: float) -> float:
        """Return when the next turn is due, if nothing happens before."""
        times = [self._ending.at, self._ends_at]
        if now < self._resume_at:
            times.append(self._resume_at)
        else:
            times.append(now if self._outbox else self._extend_at)
            if self._places() > 0 and not self.waiting:
                times.append(self._ask_at)
        return min(times)

    def finished(self, now: float) -> bool:
        """Say whether the run is over: nothing is left to do, or the grace is over."""
        if self._ending.asked and not self._logged_stop:
            self._logged_stop = True
            logger.info("stopping: %d batches in progress", len(self._running))
        if now >= self._ending.at:
            return True
        if self._outbox or not all(held.abandoned for held in self._running.values()):
            return False
        return self._ending.asked or self._left == 0 or (self._burst and self._nothing)

    # -- what came of it

    def replied(self, steps: Sequence[Step], results: Sequence[Any], now: float) -> list[Held[T]]:
        """Take in the results of a turn, and return the batches whose handlers are to begin."""
        self._pauses = _Pauses()
        self._alone = max(0, self._alone - 1)
        self._notify("answered")
        begin: list[Held[T]] = []
        retries: list[float] = []
        asked = 0
        for step, result in zip(steps, results, strict=True):
            if step.settlement:
                if step.held:  # else it ended the lease of a reserve that was not answered
                    self._settled(step.held, step.settlement, result, step.error)
            elif step.held:
                self._extended(step.held, result, now)
            else:
                asked += 1
                self._reserved(result, now, begin, retries)
        if asked:
            del self._reserves[:asked]
            self._prefetch.record(asked, len(begin))
            retry = min(retries, default=0.0)
            if self._burst and any(step.settlement for step in steps):
                # A settlement whose script the server did not know was sent again, after the reserve had looked.
                retry = 0.0
            self._nothing = retry > 0
            self._wait_failed = False
            # One that bursts is not woken, so it looks from time to time while its own handlers may push.
            self._ask_at = now + (min(retry, _POLL) if self._burst else retry)
        return begin

    def _reserved(self, result: Any, now: float, begin: list[Held[T]], retries: list[float]) -> None:
        if isinstance(result, CodecError):
            logger.error("a batch cannot be decoded", exc_info=result)
            held: Held[T] = Held(self._make_batch(result.raw))
            self._settle(held, Settlement("release", self._delay(held.batch), reason=self._why(result)), result)
            return
        self._died([event for event in result if isinstance(event, Buried)])
        last = result[-1]
        if isinstance(last, BatchData):
            self._left -= 1
            held = Held(self._make_batch(last))
            if self._ending.asked:
                self._settle(held, _NOT_BEGUN)
            else:
                self._take(held, now)
                begin.append(held)
        elif isinstance(last, Nothing):
            # Sent again after its reply was lost, it may find that the lease has run out: then a new one is asked for.
            retries.append(0.0 if last.ended else math.inf if last.retry is None else last.retry)

    def _take(self, held: Held[T], now: float) -> None:
        self._running[held.batch.id] = held
        held.taken_at = now
        self._notify("began", held.batch)
        held.extend_at = now + self._extend_every
        self._extend_at = min(self._extend_at, held.extend_at)
        if self._settings.handler_timeout is not None:
            held.ends_at = now + self._settings.handler_timeout
            self._ends_at = min(self._ends_at, held.ends_at)

    def _extended(self, held: Held[T], result: Any, now: float) -> None:
        if not isinstance(result, LeaseLost):
            held.batch.deadline = result / 1000
            held.doubted, held.extend_at = False, now + self._extend_every
        elif not held.doubted:
            # The handler may be settling it just now, in another thread: look once more before it is called lost.
            held.doubted, held.extend_at = True, now + min(_SECOND_LOOK, self._extend_every)
        elif not held.batch.settled and held.batch.id in self._running:
            record(held.batch, result, ends=False)
            log_lease_lost(held.batch, "its handler ended")
        self._extend_at = min(self._extend_at, held.extend_at)

    def _settled(self, held: Held[T], how: Settlement, result: Any, error: BaseException | None) -> None:
        batch = held.batch
        self._outbox.pop(batch.id, None)
        record(batch, result)
        self._notify("settled", batch, "lost" if isinstance(result, LeaseLost) else _OUTCOMES[how.verb])
        if isinstance(result, LeaseLost):
            log_lease_lost(batch, how.verb)
        elif how.verb == "ack":
            call_hook(self._settings.on_ack, batch)
        elif how.verb == "release":
            call_hook(self._settings.on_release, batch, error)
        elif batch.group is not None:
            self._died([Buried(batch.id, batch.group, batch.attempts, how.reason or batch.reason)])
        else:
            self._died([Buried(member, None, None, how.reason or batch.reason) for member in batch.items])

    def _died(self, buried: list[Buried]) -> None:
        for one in buried:
            after = "" if one.attempts is None else f", attempt {one.attempts}"
            name = f"{one.name!r}" if one.group is None else f"batch {one.name} of group {one.group!r}"
            extra = {"group": one.group, "attempts": one.attempts}
            why = f": {' '.join(one.reason.split())}" if one.reason else ""
            logger.error("dead letter in %s: %s%s%s", self._calls.name, name, after, why, extra=extra)
        if buried:
            self._notify("buried", buried)
            call_hook(self._settings.on_dead, buried)

    def failed(self, steps: Sequence[Step], error: Exception, now: float) -> None:
        """Take in that a turn could not be sent, or that nobody knows what became of it: it is repeated.

        What passes is waited for; any other error ends the run.
        """
        if isinstance(error, errors("ResponseError")):
            # One call was refused, and that must not keep the others from their answers: for as many turns each goes
            # alone, and what is refused alone goes after the others.
            self._alone = max(self._alone, len(steps))
            if len(steps) == 1 and (held := steps[0].held):
                if step := self._outbox.pop(held.batch.id, None):
                    self._outbox[held.batch.id] = step
                else:
                    held.extend_at = now + min(_SECOND_LOOK, self._extend_every)
        pause = self._pauses.next()
        self._resume_at = now + pause
        self._explain(error, pause, now)

    def wait_ended(self, error: Exception | None, now: float) -> None:
        """Take in the end of a wait: something was pushed or has come back, its time is over, or it failed."""
        self.waiting = False
        if error is None:
            self._ask_at = -math.inf
            self._wait_pauses = _Pauses()
        else:
            pause = self._wait_pauses.next()
            self._ask_at, self._wait_failed = now + pause, True
            self._explain(error, pause, now)

    def _explain(self, error: Exception, pause: float, now: float) -> None:
        """Log an error that passes by itself; end the run for any other."""
        kind = kind_of(error)
        self._notify("failed", error, kind)
        if kind == "shortage":
            logger.warning("the client has no free connection, retrying in %.1f s: %s", pause, error)
        elif kind == "unavailable":
            log_unavailable(error, pause)
        else:
            self._fail(error, now)

    def _fail(self, error: Exception, now: float) -> None:
        if self.failure is None:
            self.failure = error
            if remedy := remedy_for(error):
                _add_note(error, f"Remedy: {remedy}.")
            logger.error("cannot go on: %s", error)
            self._ending.ask(now)

    # -- handlers

    def ended(self, held: Held[T], error: BaseException | None, now: float) -> None:
        """Take in that a handler has ended."""
        if not held.begun:  # it is given back at the end
            return
        self._running.pop(held.batch.id, None)
        if self._burst:
            self._ask_at, self._nothing = -math.inf, False  # what it releases, or has pushed, may be due at once
        if not held.abandoned:
            self._handled(held, error, now)

    def _handled(self, held: Held[T], error: BaseException | None, now: float) -> None:
        self._notify_handled(held, error, now)
        if how := self._settlement(held.batch, error):
            self._settle(held, how, error)
        else:
            self._notify("settled", held.batch, "lost" if held.batch.lost else "settled")

    def _notify_handled(self, held: Held[T], error: BaseException | None, now: float) -> None:
        if not held.told:  # a handler that is given up may end later
            held.told = True
            self._notify("handled", held.batch, now - held.taken_at, error)

    def overdue(self, now: float) -> list[Held[T]]:
        """Give back the batches of handlers that have run longer than they may; their places stay taken.

        Returns those whose handlers are to be cancelled instead, which have a little time to end.
        """
        if now < self._ends_at:
            return []
        cancel: list[Held[T]] = []
        for held in self._running.values():
            if held.ends_at > now:
                continue
            if self._can_cancel and not held.cancelled:
                held.cancelled, held.ends_at = True, now + CLOSE_SECONDS
                cancel.append(held)
            else:
                self._abandon(held, now)
        self._ends_at = min((held.ends_at for held in self._running.values()), default=math.inf)
        return cancel

    def timeout_error(self) -> TimeoutError:
        """Return the error of a handler that ran longer than it may."""
        return TimeoutError(f"the handler ran longer than handler_timeout={self._settings.handler_timeout:g} s")

    def _abandon(self, held: Held[T], now: float) -> None:
        held.abandoned, held.ends_at = True, math.inf
        self._handled(held, self.timeout_error(), now)
        if sum(one.abandoned for one in self._running.values()) == self._settings.concurrency:
            self._fail(
                RedisqError(
                    f"every place is taken by a handler that ran longer than {self._settings.handler_timeout:g} s, its "
                    "handler_timeout, and does not end: start this process again"
                ),
                now,
            )

    def _settle(self, held: Held[T], how: Settlement, error: BaseException | None = None) -> None:
        batch = held.batch
        if how.verb == "ack":
            call = self._calls.ack(batch, how.delay)
        elif how.verb == "bury":
            call = self._calls.bury(batch, how.reason)
        else:
            call = self._calls.release(batch, how.delay, count=how.count, reason=how.reason)
        self._outbox[batch.id] = Step(call, held, how, error)

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
        last = asked.count and used_up(batch, self._calls.max_attempts)
        delay = 0.0 if last else self._delay(batch, asked.delay)
        logger.warning(
            "handler %s batch %s, attempt %d, %s",
            "asked for a retry of" if asked is error else "failed on",
            batch.id,
            batch.attempts,
            "the last" if last else f"due again in {delay:.1f} s",
            exc_info=None if asked is error else error,
            extra=log_extra(batch),
        )
        return Settlement("release", delay, asked.count, self._why(error))

    def _delay(self, batch: BatchData[Any], asked: float | None = None) -> float:
        """Return how long a batch rests; seconds that cannot be used become the default's, and are logged."""
        try:
            delay = self._settings.backoff(batch.attempts) if asked is None else asked
            return validate.milliseconds("delay", delay) / 1000
        except Exception:
            logger.exception("%s failed for batch %s", "backoff" if asked is None else "Retry", batch.id)
            return exponential()(batch.attempts)

    def _why(self, error: BaseException) -> str | None:
        """Return the reason that is kept of an exception; if the function for it fails, the exception's class."""
        try:
            reason = reason_of(error, self._settings.reason)
            if reason is not None and not isinstance(reason, str):
                raise InvalidArgument(f"reason returned {reason!r}: give a str or None")
        except Exception:
            logger.exception("reason failed")
            return type(error).__name__
        return None if reason is None else reason_bytes(reason).decode()  # as it is kept, for hooks too

    # -- the end

    def close(self) -> None:
        """Let no handler begin any more."""
        self.closing = True

    def last_turn(self, now: float) -> list[Step]:
        """Return the calls that end the run: what is still held is given back, for others to do."""
        for held in self._running.values():
            if not (held.batch.settled or held.abandoned):
                logger.warning("giving back batch %s, whose handler has not ended", held.batch.id)
                self._notify_handled(held, TimeoutError(STOPPED), now)
                self._settle(held, Settlement("release", reason=STOPPED) if held.begun else _NOT_BEGUN)
        steps = list(self._outbox.values())
        # A reserve whose reply was lost may have taken a batch; its lease's id is known all the same.
        for call in self._reserves:
            unknown: BatchData[Any] = BatchData(str(call.lease_id), None, [], 1, 0.0, [])
            steps.append(Step(self._calls.release(unknown, count=False), None, _NOT_BEGUN))
        return steps

    def abandoned(self, error: BaseException) -> None:
        """Log what could not even be given back: its leases will run out. Nobody is told of anything after it.

        It may be called while the loop's thread hangs in a call: what comes of that is ignored.
        """
        observers, self._observers = self._observers, ()
        running = list(self._running.items())
        verbs = {name: "release" for name, held in running if not held.batch.settled}
        batches = {name: held.batch for name, held in running}
        for name, step in list(self._outbox.items()):
            if step.held and step.settlement:
                verbs[name], batches[name] = step.settlement.verb, step.held.batch
        for name, verb in verbs.items():
            log_abandoned(batches[name], verb, error)
            for observer in observers:
                call_hook(observer.settled, batches[name], "abandoned")

    # -- who watches

    def alive(self, seconds: float) -> None:
        """Tell who watches that the loop is alive, and will say so again within so many seconds."""
        self._notify("alive", seconds)

    def _notify(self, what: str, *about: object) -> None:
        for observer in self._observers:
            call_hook(getattr(observer, what), *about)


def used_up(batch: BatchData[Any], max_attempts: int) -> bool:
    """Return whether this was the last attempt of the whole batch: then its death need not wait for a backoff."""
    one = batch.group is not None or len(batch.items) == 1  # members have attempts of their own
    return 0 < max_attempts <= batch.attempts and one


def _add_note(error: BaseException, note: str) -> None:
    """Add a note to an error, which tracebacks show from Python 3.11 on; before, it is logged."""
    if not hasattr(error, "add_note"):
        logger.error(note)
    elif note not in getattr(error, "__notes__", ()):
        error.add_note(note)


def log_eviction(memory: Mapping[str, Any]) -> None:
    """Log a policy under which the server may throw keys of the queue away, as INFO memory tells it."""
    if finding := evicting(memory):
        logger.warning("%s: %s; remedy: %s", finding.subject, finding.problem, finding.remedy)


def log_extra(batch: BatchData[Any]) -> dict[str, Any]:
    """Return what a log record of a batch carries."""
    return {"batch": batch.id, "group": batch.group, "attempts": batch.attempts, "items": len(batch.items)}


def log_lease_lost(batch: BatchData[Any], what: str) -> None:
    """Log that another worker holds a batch now."""
    logger.warning("lease of batch %s lost before %s: it is handed out again", batch.id, what, extra=log_extra(batch))


def log_abandoned(batch: BatchData[Any], verb: str, error: BaseException) -> None:
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
