"""One call of a script as a value, and the error that a refusal by the script becomes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from .errors import InvalidArgument, LeaseLost, RedisqError, ScriptError, WrongLayout, WrongOrder
from .scripts import Script

R = TypeVar("R")

_CLASSES: dict[str, type[RedisqError]] = {
    "BADARG": InvalidArgument,
    "LEASELOST": LeaseLost,
    "LAYOUT": WrongLayout,
    "WRONGORDER": WrongOrder,
}
_MARKED = re.compile(r"this queue is marked (\d+) (buffer|fifo|score), the \w+ is for (\d+) ")
_OPEN = {
    "buffer": "it is a buffer: open it as a Buffer",
    "fifo": "it is a priority queue in fifo order: open it as a PriorityQueue with order='fifo'",
    "score": "it is a priority queue in score order: open it as a PriorityQueue with order='score'",
}


def _remedy(message: str) -> str:
    """Return what helps where a queue is marked as one of another layout, structure or order."""
    marked = _MARKED.match(message)
    if not marked:
        return ""
    if marked[1] != marked[3]:
        return "; let the version that wrote it work it off, then purge it, or use that version everywhere"
    return f"; {_OPEN[marked[2]]}, or use another name"


class AnyPipeline(Protocol):
    """Any pipeline of redis-py or valkey-py: blocking, asyncio or cluster."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Queue a command."""
        ...


@dataclass(slots=True)
class Call(Generic[R]):
    """One call of a script: its keys and arguments, and how the reply is read.

    Made by the `calls` of a queue, for example `buffer.calls.push(["a"], group="g")`. Performed by the queue itself, or
    by `queue` in a pipeline of your own. Safe to send again wherever the script's header says so: the dedup id is part
    of the value.
    """

    script: Script
    """The script that is called."""
    keys: tuple[bytes, ...]
    """Its keys, in the order of its header."""
    args: tuple[bytes | str | int, ...]
    """Its arguments, in the order of its header."""
    read: Callable[[Any], R]
    """Reads a reply that is not an error."""
    writes: bool = True
    """Whether there is anything that replicas could confirm."""
    token: str | None = None
    """The token with which the queue's own call is made again."""
    lease_id: str | None = None
    """The lease id with which the queue's own call is made again."""

    def queue(self, pipeline: AnyPipeline) -> None:
        """Queue this call in a pipeline or MULTI.

        It is sent as EVAL, with the script's text: in a MULTI an EVALSHA that the server does not know cannot be
        retried. Pass the call's place in the list that `execute()` returns to `decode`. For payloads that are not UTF-8
        the pipeline's client needs `decode_responses=False`, because redis-py decodes the replies of a MULTI before
        anyone can stop it.
        """
        pipeline.execute_command(*self.eval())

    def evalsha(self) -> tuple[Any, ...]:
        """Return the command for a server that knows the script."""
        return ("EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.args)

    def eval(self) -> tuple[Any, ...]:
        """Return the command for any server."""
        return ("EVAL", self.script.text, len(self.keys), *self.keys, *self.args)

    def decode(self, reply: Any) -> R:
        """Read a reply, as `pipeline.execute()` returns it, into what the queue's own call returns.

        Raises redisq's error for a refusal of the script, and any other error as it is.
        """
        if isinstance(reply, Exception):
            refusal = self.refusal(str(reply))
            if refusal is None:
                raise reply
            raise refusal from reply
        return self.read(reply)

    def refusal(self, message: str) -> RedisqError | None:
        """Return the error of redisq that a server's message stands for, or None if it is not redisq's to explain."""
        code, _, text = message.partition(" ")
        if code in _CLASSES:
            return _CLASSES[code](f"{self.script.name}: {text}{_remedy(text)}")
        if "WRONGTYPE" in message:
            keys = ", ".join(key.decode("utf-8", "backslashreplace") for key in self.keys)
            return ScriptError(
                f"{self.script.name}: a key of the queue holds another type; nothing was written. Its keys are "
                f"{keys}: audit() names the one, and what is in it is yours to move or delete"
            )
        return None


def as_bytes(value: bytes | str) -> bytes:
    """Return a reply as bytes, where a client has decoded it."""
    return value.encode() if isinstance(value, str) else value


def all_bytes(values: list[Any]) -> list[bytes]:
    """Return the values of a list as bytes, where a client has decoded them: then it has decoded all."""
    return [as_bytes(value) for value in values] if values and isinstance(values[0], str) else values


def as_text(value: bytes | str) -> str:
    """Read a name: UTF-8, other bytes kept as surrogates so that they go back unchanged."""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
