"""How lists and sorted sets that belong to no queue are moved into one, while others still push to them.

A piece at a time is taken from its source and laid aside in one step, beside it, then pushed, then dropped. It has an
id by which a push of it counts once; so whatever has happened when the process dies, the next one finds the piece, or
does not, and goes on. The source and the queue need not be on the same node of a cluster: no step touches both.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import redis

from ..blocking import Buffer
from ..core import validate
from ..core.calls import Call, as_text
from ..core.queue import nothing
from .connection import Client, Queue, nodes
from .exit import NO, Failure
from .output import line
from .steps import step

R = TypeVar("R")
Kind = Literal["left", "right", "zset"]

ITEMS, MEMBERS, BYTES = 1_000, 500, 1 << 20  # in a step
_DONE = 86_400_000  # ms that a push is remembered when its piece is dropped, for who had read it before and was slow
_TAG = re.compile(rb"^[^{]*\{[^}]+\}")


@dataclass(frozen=True)
class Source:
    """A list or sorted set, and the group that its items go to."""

    key: bytes
    kind: Kind
    group: bytes = b""


@dataclass
class Count:
    """What an adoption came to."""

    sources: int = 0
    """Lists or sorted sets of which something was taken."""
    items: int = 0
    left: int = 0
    """What was pushed to a source meanwhile, and is left for the next time."""


class Adoption:
    """The adoption of sources into one queue."""

    moved = 0
    """How many items have been moved."""

    def __init__(self, client: Client, queue: Queue, prefix: str, tell: Callable[[int], object] = nothing) -> None:
        self._tell = tell
        self._client, self._queue = client, queue
        self._target = queue.calls.queue + queue.calls.structure.encode()
        self._width = 1 if isinstance(queue, Buffer) else 2
        self._prefix = validate.prefix(prefix) + b":adopting:"
        self._cluster = not hasattr(client, "connection_pool")

    def aside(self, source: bytes) -> bytes:
        """Return the key where a piece of a source lies until it is pushed; it is in the same slot of a cluster."""
        if _TAG.match(source):
            return self._prefix + b":" + source
        if self._cluster and b"}" in source:
            raise Failure(
                f"{line(source)} has a brace but no hash tag, so no other key can be in its slot of the cluster: "
                "rename it",
                NO,
            )
        return self._prefix + b"{" + source + b"}"

    def owns(self, key: bytes) -> bool:
        """Say whether a key is one of these, or of a queue."""
        return key.startswith((self._prefix, self._prefix.removesuffix(b"adopting:") + b"{"))

    def take(self, source: Source, most: int) -> Count:
        """Move everything in a source into the queue, oldest or lowest first, and stop after about `most`.

        So a source that is pushed to faster than it is emptied does not keep us from the next.
        """
        aside, count = self.aside(source.key), Count()
        step_size = MEMBERS if source.kind == "zset" else ITEMS
        while True:
            arguments = (self._target, source.group, source.kind, step_size, BYTES)
            left, piece = self._send("take", (source.key, aside), (validate.new_id(), *arguments), tuple)
            count.items += self._move(aside, piece)
            count.sources, count.left = int(count.items > 0), left
            if not piece or not left or count.items >= most:
                return count

    def resume(self, keys: Iterable[bytes] | None = None) -> Count:
        """Push the pieces that interrupted adoptions into this queue have laid aside: in these keys, or in all."""
        count = Count()
        for aside in self._all() if keys is None else keys:
            piece: Any = self._client.lrange(aside, 0, -1)
            if piece and piece[1] == self._target:
                count.items += self._move(aside, piece)
        return count

    def laid_aside(self, keys: Iterable[bytes] | None = None) -> int:
        """Return how many items `resume` would push."""
        found: int = 0
        for aside in self._all() if keys is None else keys:
            head: Any = self._client.lrange(aside, 0, 1)
            if head and head[1] == self._target:
                length: Any = self._client.llen(aside)
                found += (length - 3) // self._width
        return found

    def _all(self) -> list[bytes]:
        return self._queue.runner.scan(escaped(self._prefix) + b"*", "list")

    def _move(self, aside: bytes, piece: list[bytes]) -> int:
        """Push a piece and drop it; return how many items it had."""
        if not piece:
            return 0
        name, target, group, *values = piece
        if target != self._target:
            queue, _, kind = target.rpartition(b":")
            raise Failure(
                f"an interrupted adoption into the {kind.decode()} {line(queue)} has left items in {line(aside)}: "
                "run that one again first",
                NO,
            )
        call = self._push(as_text(name), group, values)
        self._queue.send(replace(call, script=step("keep", call.script.name)))
        self._send("drop", (aside,), (name,), nothing)
        once = call.keys[[slot.name for slot in call.script.keys].index("once")]
        self._client.pexpire(once, _DONE)
        count = len(values) // self._width
        self.moved += count
        self._tell(self.moved)
        return count

    def _push(self, name: str, group: bytes, values: list[bytes]) -> Call[Any]:
        token = f"adopt-{name}"
        if isinstance(self._queue, Buffer):
            return self._queue.calls.push(values, as_text(group), token)
        pairs = zip(values[::2], map(float, values[1::2]), strict=True)
        calls: Iterator[Any] = self._queue.calls.push_many(pairs, token=token)
        return next(calls)  # all of a piece go in one call

    def _send(self, name: str, keys: tuple[bytes, ...], arguments: tuple[bytes | str | int, ...], read: Any) -> Any:
        (result,) = self._queue.send(Call(step(name), keys, arguments, read))
        return result


def escaped(literal: bytes) -> bytes:
    """Return a pattern that these bytes alone match."""
    return re.sub(rb"([*?\[\]\\])", rb"\\\1", literal)


def matching(client: Client, pattern: bytes) -> Iterator[list[tuple[bytes, bytes, int]]]:
    """Yield the keys that match, a page at a time, each with its type and, of a list, its length."""
    for _, node in nodes(client):
        cursor = 0
        while True:
            page: Any = node.scan(cursor, match=pattern, count=1_000)
            cursor, keys = page
            types = _asked(client, node, "TYPE", keys)
            lists = [key for key, kind in zip(keys, types, strict=True) if kind == b"list"]
            lengths = dict(zip(lists, _asked(client, node, "LLEN", lists), strict=True))
            yield [(key, kind, lengths.get(key, 0)) for key, kind in zip(keys, types, strict=True)]
            if not cursor:
                break


def _asked(client: Client, node: redis.Redis, command: str, keys: list[bytes]) -> list[Any]:
    """Return the replies for all keys; one that a cluster has just moved to another node is asked for there."""
    with node.pipeline(transaction=False) as pipe:
        queued: Any = pipe
        for key in keys:
            queued.execute_command(command, key)
        replies = pipe.execute(raise_on_error=False)
    again: Any = client
    return [
        again.execute_command(command, key) if isinstance(reply, redis.ResponseError) else reply
        for key, reply in zip(keys, replies, strict=True)
    ]
