"""Every error that redisq raises by itself; those of redis-py (connection, OOM, read-only, ACL) pass through.

Whose fault it is decides the class: the caller's (`InvalidArgument`, `CodecError`, `WrongOrder`), time's
(`LeaseLost`), or the server's data (`ScriptError`).
"""

from __future__ import annotations

from collections.abc import Sequence


class RedisqError(Exception):
    """Be the base of every error of redisq."""


class InvalidArgument(RedisqError, ValueError):
    """Say that an argument cannot be used: what was given, and what may be. Nothing was written."""


class WrongOrder(RedisqError):
    """Say that a priority queue is kept in another order than this one was made with. Nothing was written."""


class LeaseLost(RedisqError):
    """Say that a lease is no longer held: its batch was handed out again, buried, settled or purged."""


class CodecError(RedisqError):
    """Say that an item cannot be encoded, or that stored bytes cannot be decoded.

    `raw` holds the bytes that were already taken from the queue when decoding failed, all of the call's, oldest
    first, so that none is lost; it is empty when nothing was taken.
    """

    def __init__(self, message: str, raw: Sequence[bytes] = ()) -> None:
        super().__init__(message)
        self.raw = list(raw)


class ScriptError(RedisqError):
    """Say that a script could not run on what it found, such as a key of the queue that holds another type."""
