"""Every error that redisq raises by itself; those of redis-py (connection, OOM, read-only, ACL) pass through.

`Retry` and `Bury` are not errors: a handler raises them to say what becomes of its batch.

The class says what to look at: the call (`InvalidArgument`, `CodecError`, `WrongOrder`, `WrongLayout`), how long the
work took (`LeaseLost`), the replicas (`NotDurable`), or what is stored (`ScriptError`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .codecs import plain


class RedisqError(Exception):
    """Base class of every error of redisq."""


class InvalidArgument(RedisqError, ValueError):
    """Raised when an argument cannot be used: what was given, and what may be. Nothing was written."""


class WrongOrder(RedisqError):
    """Raised when a priority queue is kept in another order than this one was made with. Nothing was written."""


class WrongLayout(RedisqError):
    """Raised when the keys of a queue are of another layout, or of the other structure. Nothing was written.

    Another version of redisq keeps it: let that one work on it until it is empty, and `purge` it, or use that version
    everywhere. Or a priority queue is opened as a buffer, or the other way round: use another name.
    """


class LeaseLost(RedisqError):
    """Raised when a lease is no longer held: its batch was handed out again, buried, settled or purged.

    `ids` names the leases that are lost; what was done for the others of the call is done.
    """

    def __init__(self, message: str, ids: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.ids = list(ids)


class NotDurable(RedisqError):
    """Raised when a call has been done, but too few replicas confirmed it in time: a failover may undo it.

    Make the same call again, with `token` or `lease_id` as it is here (None: the call takes none, the batch names it);
    it takes effect once, and waits for the replicas anew. `result` is what the call would have returned. A `pop` cannot
    be made again: what it took stands there and nowhere else.
    """

    def __init__(
        self,
        message: str,
        *,
        reached: int = 0,
        asked: int = 1,
        token: str | None = None,
        lease_id: str | None = None,
        result: Any = None,
    ) -> None:
        super().__init__(message)
        self.reached = reached
        self.asked = asked
        self.token = token
        self.lease_id = lease_id
        self.result = result


class CodecError(RedisqError):
    """Raised when an item cannot be encoded, or stored bytes cannot be decoded.

    `raw` holds what was already taken from the queue when decoding failed: the call's whole result, in its own shape,
    with bytes for items, so that nothing is lost. It is None when nothing was taken.
    """

    def __init__(self, message: str, raw: Any = None) -> None:
        super().__init__(message)
        self.raw = raw


class ScriptError(RedisqError):
    """Raised when a script cannot run on what it found, such as a key of the queue that holds another type."""


class Retry(Exception):
    """Raised by a handler, or inside `with batch:`, to have the batch retried.

    It comes back in `delay` seconds; None: after the Worker's backoff, or at once inside `with batch:`. With
    `count=False` this hand-over is not an attempt, as for an answer of 429. `reason` is kept with the batch; None: the
    class and message of the exception that this one was raised from. Inside `with batch:` it ends the block and goes no
    further.
    """

    def __init__(self, delay: float | None = None, count: bool = True, reason: str | None = None) -> None:
        super().__init__(delay, count, reason)  # what a copy in another process is made with
        self.delay = None if delay is None else _seconds(delay)
        if not isinstance(plain(count), bool):
            raise InvalidArgument(f"count is {count!r}: give True or False")
        self.count = bool(count)
        self.reason = None if reason is None else str(reason)

    def __str__(self) -> str:
        return self.reason or ""


class Bury(Exception):
    """Raised by a handler, or inside `with batch:`, to make the batch a dead letter, whatever its attempts.

    For what can never succeed, as an answer of 400. `reason` is kept with it; None: class and message of the exception
    that this one was raised from. Inside `with batch:` it ends the block and goes no further.
    """

    def __init__(self, reason: str | None = None) -> None:
        super().__init__(reason)
        self.reason = None if reason is None else str(reason)

    def __str__(self) -> str:
        return self.reason or ""


def _seconds(delay: Any) -> float:
    delay = plain(delay)
    try:
        seconds = math.nan if isinstance(delay, (bool, str, bytes)) or hasattr(delay, "shape") else float(delay)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not 0 <= seconds <= 99_999_999:  # what release takes: a handler is to hear of it here, not its worker there
        raise InvalidArgument(f"delay is {delay!r}: give seconds from 0 to 99999999, or None")
    return seconds
