"""When a call counts as done: when the server says so, or when replicas have it too."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from . import validate
from .calls import Call
from .errors import InvalidArgument, LeaseLost, NotDurable
from .flow import Flow

R = TypeVar("R")

_FENCE_MS = 1000


@dataclass(frozen=True)
class Replicas:
    """How many replicas must have a call's writes, and for how many seconds to wait for them.

    `durability="replica"` is `Replicas()`: one of them, within a second.
    """

    count: int = 1
    """How many replicas."""
    timeout: float = 1.0
    """Seconds to wait for them, in each call."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "count", validate.integer("count", self.count, 1, 1000))  # whatever was given
        object.__setattr__(self, "timeout", validate.milliseconds("timeout", self.timeout, 0.001, 3600) / 1000)


Durability = Literal["server", "replica"] | Replicas


class ReplicaWait:
    """The commands that wait for replicas, sent in the round trip of the calls themselves and on their connection."""

    def __init__(self, replicas: Replicas, queue: bytes) -> None:
        self.replicas = replicas
        self._fence = queue + b"once:"  # no call's: an id is not empty

    def commands(self) -> list[tuple[Any, ...]]:
        """Return the commands that follow the calls.

        WAIT waits for what its own connection has written. A call that is sent again, over another connection, finds
        that it has been done and writes nothing, and there WAIT is content at once: newer servers (seen on Valkey 9)
        then say that all replicas have it while none does. So there is always a write, which the replicas get after
        whatever the calls wrote, and whenever.
        """
        milliseconds = validate.milliseconds("timeout", self.replicas.timeout)
        return [("SET", self._fence, b"", "PX", _FENCE_MS), ("WAIT", self.replicas.count, milliseconds)]

    def check_client(self, cluster: bool, socket_timeout: Any) -> None:
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

    def check(self, call: Call[Any], wait_replies: Sequence[Any], result: Any) -> NotDurable | None:
        """Read the replies to these commands, sent once or twice: None if enough replicas have what the call wrote."""
        asked, timeout = self.replicas.count, self.replicas.timeout
        reached, cause = asked, None
        for fence, confirmed in zip(wait_replies[::2], wait_replies[1::2], strict=True):
            if isinstance(confirmed, Exception):
                raise confirmed
            if isinstance(fence, Exception):
                reached, cause = 0, fence  # a full server, say: what WAIT says then means nothing
            reached = min(reached, confirmed)
        if reached >= asked:
            return None
        again = f" with token={call.token!r}" if call.token else ""
        again = again or (f" with lease_id={call.lease_id!r}" if call.lease_id else "")
        short = NotDurable(
            f"{call.script.name}: {reached} of {asked} replicas confirmed it within {timeout:g} s. It has been done, "
            f"but a failover may undo it; make the same call again{again}",
            reached=reached,
            asked=asked,
            token=call.token,
            lease_id=call.lease_id,
            result=result,
        )
        short.__cause__ = cause
        return short


def replica_wait(durability: Any, queue: bytes) -> ReplicaWait | None:
    """Return what a queue's durability asks for."""
    if durability == "server":
        return None
    if durability == "replica":
        return ReplicaWait(Replicas(), queue)
    if isinstance(durability, Replicas):
        return ReplicaWait(durability, queue)
    raise InvalidArgument(
        f"durability is {reprlib.repr(durability)}: give 'server', 'replica' or Replicas(count, timeout)"
    )


def finish_unconfirmed(flow: Flow[R]) -> Flow[R]:
    """Go through with a flow of which some calls are not confirmed by replicas, and then say so.

    So `NotDurable` always means that all of it has been done. The runner gives it as the result of such a call.
    """
    result: Any = None
    short: NotDurable | None = None
    while True:
        try:
            step = flow.send(result)
        except StopIteration as stop:
            if short:
                short.result = stop.value
                raise short from short.__cause__
            return stop.value  # type: ignore[no-any-return]
        except LeaseLost as lost:
            if short:
                raise short from lost  # made again, the call finds the lost one lost again
            raise
        result = yield step
        if isinstance(result, NotDurable):
            short, result = result, result.result
