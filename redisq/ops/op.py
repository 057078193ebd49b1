"""One script call as a value, and the error that a refusal by the script becomes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from ..errors import CodecError, InvalidArgument, LeaseLost, RedisqError, ScriptError, WrongLayout, WrongOrder
from ..scripts import Script

R = TypeVar("R")
Arg = bytes | str | int

_CLASSES: dict[str, type[RedisqError]] = {
    "BADARG": InvalidArgument,
    "LEASELOST": LeaseLost,
    "LAYOUT": WrongLayout,
    "WRONGORDER": WrongOrder,
}


class Pipeline(Protocol):
    """Stand for any pipeline of redis-py, blocking, asyncio or cluster."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Queue a command."""
        ...


@dataclass(slots=True)
class Op(Generic[R]):
    """Hold one script call: the script, its keys and arguments, and how the reply is read.

    Made by the `ops` of a queue, for example `buffer.ops.push("a", group="g")`. Run by the queue itself, or by
    `queue` in a pipeline of your own. Safe to send again wherever the script's header says so: the once-id is part of
    the value.
    """

    script: Script
    keys: tuple[bytes, ...]
    args: tuple[Arg, ...]
    decode: Callable[[Any], R]
    """Read the raw reply, as `pipeline.execute()` returns it, into what the queue's own call would return."""
    writes: bool = True
    """Whether there is anything that replicas could confirm."""
    token: str | None = None
    """The token with which the queue's own call is made again."""
    lease_id: str | None = None
    """The lease id with which the queue's own call is made again."""

    def queue(self, pipeline: Pipeline) -> None:
        """Queue this call in a pipeline or MULTI.

        It goes as EVAL, text and all: in a MULTI an EVALSHA that the server does not know cannot be tried again. Pass
        the call's place in the list that `execute()` returns to `decode`. For payloads that are not UTF-8 the
        pipeline's client needs `decode_responses=False`, because redis-py decodes the replies of a MULTI before
        anyone can stop it.
        """
        pipeline.execute_command(*self.by_text())

    def by_sha(self) -> tuple[Any, ...]:
        """Give the command for a server that knows the script."""
        return ("EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.args)

    def by_text(self) -> tuple[Any, ...]:
        """Give the command for any server."""
        return ("EVAL", self.script.text, len(self.keys), *self.keys, *self.args)

    def read(self, reply: Any) -> R:
        """Read a reply, or raise what a server's error stands for."""
        if isinstance(reply, Exception):
            refusal = self.refusal(str(reply))
            if refusal is None:
                raise reply
            raise refusal from reply
        return self.decode(reply)

    def refusal(self, message: str) -> RedisqError | None:
        """Give the error of redisq that a server's message stands for, or None if it is not redisq's to explain."""
        code, _, text = message.partition(" ")
        if code in _CLASSES:
            return _CLASSES[code](f"{self.script.name}: {text}")
        if "WRONGTYPE" in message:
            keys = ", ".join(key.decode("utf-8", "backslashreplace") for key in self.keys)
            return ScriptError(
                f"{self.script.name}: a key of the queue holds another type; nothing was written. Its keys are "
                f"{keys}: audit() names the one, and what is in it is yours to move or delete"
            )
        return None


@dataclass(slots=True)
class Pause:
    """Ask the runner to wait, in seconds."""

    seconds: float


@dataclass(slots=True)
class Wait:
    """Ask the runner to wait for a token in a list, some seconds at most; it may come back earlier."""

    key: bytes
    seconds: float


def piece(seconds: float, socket_timeout: Any) -> float:
    """Return how long to block in one read: well under the socket timeout, at which redis-py gives the read up.

    At most 2.5 seconds even without one, so that what no token tells of, such as a lease that another worker let run
    out, is seen soon; with the ask that follows, that is less than one command a second. At least 2 ms: Redis 6.2 cuts
    what it reads to whole ms, and 0.001 may become 0, which means for ever.
    """
    limit = socket_timeout / 2 if isinstance(socket_timeout, (int, float)) and socket_timeout > 0 else 2.5
    return max(0.002, min(seconds, limit, 2.5))


@dataclass(slots=True)
class Many:
    """Ask the runner for several calls in one round trip; it is sent the results, with `LeaseLost` in place of some."""

    ops: list[Op[Any]]


def answers(ops: Sequence[Op[Any]], replies: Sequence[Any]) -> list[Any]:
    """Read the replies to several calls; what is wrong with one is an answer like any other, for the others count."""

    def answer(op: Op[Any], reply: Any) -> Any:
        try:
            return op.read(reply)
        except (LeaseLost, CodecError) as error:
            return error

    return [answer(op, reply) for op, reply in zip(ops, replies, strict=True)]


Talk = Generator[Op[Any] | Pause | Wait | Many, Any, R]
"""An operation in several calls: yields what to do, is sent the decoded reply, returns the result."""

Call = Op[R] | Talk[R]
"""An operation, in one call or in several."""


def as_bytes(value: bytes | str) -> bytes:
    """Give a reply's bytes back where a client has decoded them."""
    return value.encode() if isinstance(value, str) else value


def all_bytes(values: list[Any]) -> list[bytes]:
    """Give the bytes of a list back where a client has decoded them: then it decoded all."""
    return [as_bytes(value) for value in values] if values and isinstance(values[0], str) else values


def as_text(value: bytes | str) -> str:
    """Read a name: UTF-8, other bytes kept as surrogates so that they go back unchanged."""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
