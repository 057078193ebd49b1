"""Calls on their way to the server: what is sent for them, and what is sent again, until each has its reply. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import Any

from .calls import Call
from .clients import ErrorClasses
from .replication import ReplicaWait

MIGRATION_TIMEOUT = 30.0
"""seconds for which a cluster's slot may be on the move"""
RETRY_AFTER = 0.05
"""seconds until the next try meanwhile"""


class Request:
    """The calls that one caller sends together, until each has its reply.

    In each round trip its `commands` are sent, and their replies given to `replied`; then it is `done`, or they are to
    be sent again after `pause` seconds. What is sent again has not run: the server did not know the script, the slot is
    on the move, or a replica has answered.
    """

    pause = 0.0
    renew = False
    """Whether to send on a connection made anew: that of a master that was demoted behind its name answers READONLY for
    as long as it lasts."""
    _until: float | None = None

    def __init__(self, calls: Sequence[Call[Any]], errors: ErrorClasses, cluster: bool) -> None:
        self.calls = calls
        self.replies: list[Any] = []
        """A reply or an error for each call, once it is done."""
        self.waits: list[Sequence[Any]] = []
        """What was said of replicas in the round trip of each call that writes; empty where nobody was asked."""
        self.again: Sequence[int] = range(len(calls))
        """The places of the calls without a reply."""
        self._commands = [call.evalsha() for call in calls]  # now, so that anything but a call fails where it was given
        self._errors = errors
        self._cluster = cluster

    @property
    def done(self) -> bool:
        """Whether each call has its reply."""
        return not self.again

    def commands(self) -> list[tuple[Any, ...]]:
        """Return what to send now."""
        return self._commands if len(self.again) == len(self._commands) else [self._commands[i] for i in self.again]

    @property
    def writes(self) -> bool:
        """Whether one of the calls to be sent now writes."""
        return any(self.calls[i].writes for i in self.again)

    def replied(self, replies: list[Any], waits: Sequence[Any] = ()) -> None:
        """Take in the replies to `commands`, and to those that waited for replicas after them."""
        if not self.replies:
            if not waits and not has_error(replies):  # the usual case
                self.replies, self.again = replies, ()
                return
            self.replies, self.waits = [None] * len(self.calls), [()] * len(self.calls)
        again: list[int] = []
        renewed, self.renew, self.pause = self.renew, False, 0.0
        for i, reply in zip(self.again, replies, strict=True):
            if isinstance(reply, Exception) and self._is_sent_again(i, reply, renewed):
                again.append(i)
            else:
                self.replies[i] = reply
                if self.calls[i].writes:
                    self.waits[i] = waits
        self.again = again

    def _is_sent_again(self, i: int, reply: Exception, renewed: bool) -> bool:
        if isinstance(reply, self._errors.no_script):
            # Not SCRIPT LOAD and EVALSHA again: between the two the server may forget once more.
            before, self._commands[i] = self._commands[i], self.calls[i].eval()
            return before != self._commands[i]
        if self._cluster:
            return self._errors.is_migrating(reply) and self._is_waited_for()
        if self._errors.is_read_only(reply) and not renewed:
            self.renew = True
            return True
        return False

    def _is_waited_for(self) -> bool:
        now = monotonic()
        if self._until is None:
            self._until = now + MIGRATION_TIMEOUT
        self.pause = RETRY_AFTER
        return now < self._until


def has_error(replies: Sequence[Any]) -> bool:
    """Say whether one of the replies is an error."""
    for reply in replies:  # noqa: SIM110  (any() and a generator take half as long as all the rest of a call)
        if isinstance(reply, Exception):
            return True
    return False


def commands_of(
    requests: Sequence[Request], replica_wait: ReplicaWait | None
) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Return the commands of one round trip: those of the requests, and those that wait for replicas after them."""
    commands = [command for request in requests for command in request.commands()]
    waits = replica_wait is not None and any(request.writes for request in requests)
    return commands, replica_wait.commands() if replica_wait is not None and waits else []
