"""A process that dies after a command: the server has executed it, and nobody has seen the reply."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from redisq.cli import main


class Killed(BaseException):
    """The end of the process; nothing in it may catch this."""


@contextlib.contextmanager
def dying(patch: pytest.MonkeyPatch, after: int) -> Iterator[list[int]]:
    """Die when the `after`th reply of any client has come; yields how many have."""
    replies = [0]
    read = redis.connection.AbstractConnection.read_response

    def counted(self: Any, *args: Any, **options: Any) -> Any:
        reply: Any = None
        try:
            reply = read(self, *args, **options)
        finally:
            replies[0] += 1
            if replies[0] == after:
                raise Killed
        return reply

    with patch.context() as inner:
        inner.setattr(redis.connection.AbstractConnection, "read_response", counted)
        yield replies


def killed(patch: pytest.MonkeyPatch, arguments: tuple[str, ...], after: int) -> bool:
    """Run a command that dies after a reply; return whether it did, or else had ended before."""
    with dying(patch, after):
        try:
            assert main(arguments) == 0
        except Killed:
            return True
    return False
