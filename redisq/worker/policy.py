"""What a worker decides, whichever way it runs: sizes and times, what follows a handler's end, what is told to whom."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from redis.exceptions import RedisError

from ..errors import Bury, CodecError, InvalidArgument, NotDurable, Retry
from ..ops import Buried, Lease, Many, Op, Reserved, Talk, check, reason_bytes, reason_of

logger = logging.getLogger("redisq.worker")

T = TypeVar("T")

Verb = Literal["ack", "release", "bury"]


@dataclass(frozen=True)
class Settlement:
    """What becomes of a batch."""

    verb: Verb
    delay: float = 0.0
    """Seconds until what is given back is due again."""
    count: bool = True
    """Whether a release counts as an attempt."""
    reason: str | None = None


STOPPED = "the worker was stopped before the handler had ended"
NOT_BEGUN = Settlement("release", count=False)
"""What becomes of a batch that no handler has seen."""

AWAY = (RedisError, NotDurable)
"""What is answered by the same call again, later: the server does not answer, or its replicas do not."""


def pauses() -> Iterator[float]:
    """Yield the seconds to wait for a Redis that is away: 0.1, then twice as long, up to 5, without end."""
    pause = 0.1
    while True:
        yield pause
        pause = min(5.0, 2 * pause)


class Hunger:
    """Decide how many batches to ask for at a time: many while there are many, one where there are few.

    Without it a worker with a hundred idle handlers would ask a hundred times for each batch that comes.
    """

    LIMIT = 64

    def __init__(self) -> None:
        self.most = 1

    def fed(self, asked: int, taken: int) -> None:
        """Learn from an answer: all that was asked for came, or less."""
        self.most = min(2 * asked, self.LIMIT) if taken == asked else 1


def each(ops: Sequence[Op[Reserved[T]]]) -> Talk[list[Reserved[T] | CodecError]]:
    """Ask for several batches in one round trip; one that cannot be decoded costs no other."""
    answers: list[Reserved[T] | CodecError] = yield Many(list[Op[Any]](ops))
    return answers


def exponential(first: float = 1.0, most: float = 300.0, factor: float = 2.0) -> Callable[[int], float]:
    """Return a backoff: `first` seconds after the first attempt, `factor` times as long after each more, up to `most`.

    Each is drawn at random between half of that and all of it, so that what failed together does not return together.
    Raises `InvalidArgument` for what are no seconds, or a factor that is not from 0 to 1,000.
    """
    for name, seconds in (("first", first), ("most", most)):
        check.milliseconds(name, seconds)
    first, most, factor = check.number("first", first), check.number("most", most), check.number("factor", factor)
    if not 0 <= factor <= 1000:  # else a float could overflow
        raise InvalidArgument(f"factor is {factor!r}: give a number from 0 to 1000")

    def backoff(attempts: int) -> float:
        # The exponent is bounded before it is used: a batch that came back a thousand times must not overflow a float.
        return random.uniform(0.5, 1.0) * min(most, first * factor ** min(max(attempts, 1) - 1, 64))

    return backoff


@dataclass(frozen=True)
class Policy:
    """Hold a worker's settings, checked."""

    size: int | None
    max_bytes: int | None
    concurrency: int
    backoff: Callable[[int], float]
    reason: Callable[[BaseException], str | None]
    grace: float
    on_ack: Callable[[Any], object] | None
    on_release: Callable[[Any, BaseException | None], object] | None
    on_dead: Callable[[list[Buried]], object] | None

    def __post_init__(self) -> None:
        # An int and a float, whatever kinds of numbers were given.
        object.__setattr__(self, "concurrency", check.whole("concurrency", self.concurrency, 1, 10_000))
        object.__setattr__(self, "grace", check.milliseconds("grace", self.grace) / 1000)
        for name in ("backoff", "reason", "on_ack", "on_release", "on_dead"):
            hook = getattr(self, name)
            if hook is not None and not callable(hook):
                raise InvalidArgument(f"{name} is {hook!r}: give a function")

    def reserving(self) -> dict[str, Any]:
        """Return the arguments of a reserve."""
        return {"max_bytes": self.max_bytes} | ({} if self.size is None else {"size": self.size})

    def settlement(self, batch: Lease[Any], error: BaseException | None, max_attempts: int) -> Settlement | None:
        """Say what becomes of a batch when its handler has ended; None if it is settled."""
        if batch.settled:
            if error is not None:
                logger.error("handler failed after it had settled batch %s", batch.id, exc_info=error)
            return None
        if error is None:
            return Settlement("ack", self.delay(batch) if batch.failed else 0.0)
        if isinstance(error, Bury):
            return Settlement("bury", reason=self.why(error))
        asked = error if isinstance(error, Retry) else Retry()
        if asked.count and used_up(batch, max_attempts):
            delay = 0.0
        else:
            delay = self.delay(batch) if asked.delay is None else asked.delay
        how = "asked for a retry of" if asked is error else "failed on"
        logger.warning(
            f"handler {how} batch %s, attempt %d, due again in %.1f s",
            batch.id,
            batch.attempts,
            delay,
            exc_info=None if asked is error else error,
            extra=facts(batch),
        )
        return Settlement("release", delay, asked.count, self.why(error))

    def why(self, error: BaseException) -> str | None:
        """Return the reason that is kept of an exception; if the function for it fails, the exception's class."""
        try:
            reason = reason_of(error, self.reason)
            if reason is not None and not isinstance(reason, str):
                raise InvalidArgument(f"reason returned {reason!r}: give a str or None")
        except Exception:
            logger.exception("reason failed")
            return type(error).__name__
        return None if reason is None else reason_bytes(reason).decode()  # as it is kept, for hooks too

    def delay(self, batch: Lease[Any]) -> float:
        """Return the backoff of a batch; one that cannot be used becomes the default's, and is logged."""
        try:
            delay = check.milliseconds("backoff", self.backoff(batch.attempts)) / 1000
        except Exception:
            logger.exception("backoff failed for batch %s", batch.id)
            return exponential()(batch.attempts)
        return delay

    def settled(self, how: Settlement, batch: Lease[Any], error: BaseException | None) -> None:
        """Tell the hooks what became of a batch."""
        if how.verb == "ack":
            _tell(self.on_ack, batch)
        elif how.verb == "release":
            _tell(self.on_release, batch, error)
        elif batch.group is not None:
            self.buried([Buried(batch.id, batch.group, batch.attempts, how.reason or batch.reason)])
        else:
            self.buried([Buried(member, None, None, how.reason or batch.reason) for member in batch.items])

    def buried(self, buried: list[Buried]) -> None:
        """Tell the hook, and the log, who died."""
        if buried:
            for one in buried:
                logger.error("dead letter: %r", one.name, extra={"group": one.group, "attempts": one.attempts})
            _tell(self.on_dead, buried)


def used_up(batch: Lease[Any], max_attempts: int) -> bool:
    """Return whether this was the last attempt of the whole batch: then its death need not wait for a backoff."""
    one = batch.group is not None or len(batch.items) == 1  # members have attempts of their own
    return 0 < max_attempts <= batch.attempts and one


def must_wait(answers: Sequence[Reserved[Any] | CodecError]) -> float | None:
    """Return how long to wait after answers without a batch, in seconds; None: ask again at once."""
    retries = [answer.retry for answer in answers if isinstance(answer, Reserved) and answer.retry is not None]
    return None if not retries or min(retries) <= 0 else min(retries)


def facts(batch: Lease[Any]) -> dict[str, Any]:
    """Return what a log record of a batch carries."""
    return {"batch": batch.id, "group": batch.group, "attempts": batch.attempts, "items": len(batch.items)}


def lost(batch: Lease[Any], what: str) -> None:
    """Log that a batch is somebody else's now."""
    logger.warning("lease of batch %s lost before %s: it is handed out again", batch.id, what, extra=facts(batch))


def given_up(batch: Lease[Any], what: str, error: Exception) -> None:
    """Log that a batch is left to its lease, because Redis is away and the worker has to end."""
    logger.error("could not %s batch %s, its lease will run out: %s", what, batch.id, error, extra=facts(batch))


def away(error: Exception, pause: float) -> None:
    """Log that Redis is away."""
    logger.warning("Redis is away, again in %.1f s: %s", pause, error)


def _tell(hook: Callable[..., object] | None, *what: object) -> None:
    if hook is not None:
        try:
            hook(*what)
        except Exception:
            logger.exception("hook %r failed", hook)
