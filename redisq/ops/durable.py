"""What it takes for a call to count as done: the server's own word, or that of replicas too."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from ..errors import InvalidArgument, LeaseLost, NotDurable
from . import check
from .op import Call, Op, Talk

R = TypeVar("R")
S = TypeVar("S")

_FENCE_MS = 1000


@dataclass(frozen=True)
class Replicas:
    """Say how many replicas are to have a call's writes, and for how many seconds to wait for them.

    `durability="replica"` is `Replicas()`: one of them, within a second.
    """

    count: int = 1
    timeout: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "count", check.whole("count", self.count, 1, 1000))  # whatever was given
        object.__setattr__(self, "timeout", check.milliseconds("timeout", self.timeout, 0.001, 3600) / 1000)


Durability = Literal["server", "replica"] | Replicas


class Confirm:
    """Ask for the replicas' word in the round trip of the calls themselves, and on their connection."""

    def __init__(self, replicas: Replicas, queue: bytes) -> None:
        self.replicas = replicas
        self._fence = queue + b"once:"  # no call's: an id is not empty

    def commands(self) -> list[tuple[Any, ...]]:
        """Give the commands that follow the calls.

        WAIT waits for what its own connection has written. A call that is sent again, over another connection, finds
        that it has been done and writes nothing, and there WAIT is content at once: newer servers (seen on Valkey 9)
        then say that all replicas have it while none does. So there is always a write, which the replicas get after
        whatever the calls wrote, and whenever.
        """
        milliseconds = check.milliseconds("timeout", self.replicas.timeout)
        return [("SET", self._fence, b"", "PX", _FENCE_MS), ("WAIT", self.replicas.count, milliseconds)]

    def check(self, cluster: bool, socket_timeout: Any) -> None:
        """Refuse a client that cannot do it."""
        if cluster:
            raise InvalidArgument(
                "durability is not 'server' and client is a RedisCluster, which cannot keep a call and its WAIT on one "
                "connection: leave it out, and set min-replicas-to-write on the nodes"
            )
        if isinstance(socket_timeout, (int, float)) and socket_timeout <= self.replicas.timeout:
            raise InvalidArgument(
                f"durability waits {self.replicas.timeout:g} s for replicas, and the client no longer than its "
                f"socket_timeout of {socket_timeout:g} s for any reply: make that longer, or give "
                "Replicas(count, timeout) a shorter one"
            )

    def shortage(self, ops: Sequence[Op[Any]], words: Sequence[Any], result: Any) -> NotDurable | None:
        """Read the replies to these commands, once or twice: None if enough replicas have what the calls wrote."""
        asked, timeout, op = self.replicas.count, self.replicas.timeout, ops[0]
        reached, cause = asked, None
        for fence, word in zip(words[::2], words[1::2], strict=True):
            if isinstance(word, Exception):
                raise word
            if isinstance(fence, Exception):
                reached, cause = 0, fence  # a full server, say: what WAIT says then means nothing
            reached = min(reached, word)
        if reached >= asked:
            return None
        again = f" with token={op.token!r}" if op.token else f" with lease_id={op.lease_id!r}" if op.lease_id else ""
        short = NotDurable(
            f"{op.script.name}: {reached} of {asked} replicas confirmed it within {timeout:g} s. It has been done, but "
            f"a failover may undo it; make the same call again{again}",
            reached=reached,
            asked=asked,
            token=op.token,
            lease_id=op.lease_id,
            result=result,
        )
        short.__cause__ = cause
        return short


def confirm(durability: Any, queue: bytes) -> Confirm | None:
    """Return what a queue's durability asks for."""
    if durability == "server":
        return None
    if durability == "replica":
        return Confirm(Replicas(), queue)
    if isinstance(durability, Replicas):
        return Confirm(durability, queue)
    raise InvalidArgument(
        f"durability is {reprlib.repr(durability)}: give 'server', 'replica' or Replicas(count, timeout)"
    )


def whole(talk: Talk[R]) -> Talk[R]:
    """Go through with a conversation of which some calls are not confirmed, and then say so.

    So `NotDurable` always means that all of it has been done. The runner gives it as the answer of such a call.
    """
    answer: Any = None
    short: NotDurable | None = None
    while True:
        try:
            step = talk.send(answer)
        except StopIteration as stop:
            if short:
                short.result = stop.value
                raise short from short.__cause__
            return stop.value  # type: ignore[no-any-return]
        except LeaseLost as lost:
            if short:
                raise short from lost  # made again, the call finds the lost one lost again
            raise
        answer = yield step
        if isinstance(answer, NotDurable):
            short, answer = answer, answer.result


def finish(call: Call[R], read: Callable[[R], S]) -> Talk[S]:
    """Make of an operation's result what the queue's own call returns."""
    result: R = (yield call) if isinstance(call, Op) else (yield from call)
    return read(result)
