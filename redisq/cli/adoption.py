"""How lists and sorted sets that belong to no queue are moved into one, while others still push to them.

A piece at a time is taken from its source and laid aside in one step, beside it, then pushed, then dropped. It has an
id by which a push of it counts once; so whatever has happened when the process dies, the next one finds the piece, or
does not, and goes on. The source and the queue need not be on the same node of a cluster: no step touches both.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any, Literal

import redis

from ..blocking import Buffer
from ..core import validate
from ..core.calls import Call, as_text
from ..core.queue import nothing
from ..core.scripts import load
from .connection import Client, Queue, nodes, server_time
from .exit import NO, Failure
from .output import line
from .steps import step

Kind = Literal["left", "right", "zset"]

ITEMS, MEMBERS = 1_000, 500  # in a step
TOGETHER, BYTES = 100, 1 << 19  # sources in a round trip, and what is read of them all: a step takes less than 5 ms
_DONE = 86_400_000  # ms that a push is remembered when its piece is dropped, for who had read it before and was slow
_LATE = _DONE // 2  # ms after which a piece that was read is not pushed any more: so no clock need be exact
_YEAR = 31_536_000_000  # ms
_TAG = re.compile(rb"^[^{]*\{[^}]+\}")


@dataclass(frozen=True)
class Source:
    """A list or sorted set, and the group that its items go to."""

    key: bytes
    kind: Kind
    group: bytes = b""


@dataclass
class Count:
    """What came of one source."""

    items: int = 0
    left: int = 0
    """What was pushed to a source meanwhile, and is left for the next time."""


class Adoption:
    """The adoption of sources into one queue."""

    moved = 0
    """How many items have been moved."""

    def __init__(self, client: Client, queue: Queue, prefix: str, progress: Callable[[int], object] = nothing) -> None:
        self._progress = progress
        self._client, self._queue = client, queue
        self._target = queue.calls.queue + queue.calls.structure.encode()
        self._width = 1 if isinstance(queue, Buffer) else 2
        self._prefix = _aside(prefix)
        self._cluster = isinstance(client, redis.RedisCluster)

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

    def remember(self, sources: bytes) -> None:
        """Remember for a year that what these words name was found: it is gone once all is adopted."""
        self._client.set(self._found(sources), b"1", px=_YEAR)

    def remembers(self, sources: bytes) -> bool:
        """Say whether this or an earlier adoption into the queue has found what these words name."""
        return bool(self._client.exists(self._found(sources)))

    def _found(self, sources: bytes) -> bytes:
        return self._queue.calls.queue + b"once:adopted-" + hashlib.sha256(sources).hexdigest()[:32].encode()

    def take(self, sources: Mapping[Source, int]) -> dict[Source, Count]:
        """Move all that is in some sources into the queue, oldest or lowest first; give few enough for a round trip.

        It stops after about so many values of each: so one that is pushed to faster than it is emptied does not keep
        us from the next.
        """
        counts = {source: Count() for source in sources}
        rest = [*sources]
        while rest:
            asides = [self.aside(source.key) for source in rest]
            replies = self._queue.send(*map(self._take, rest, asides, repeat(max(1, BYTES // len(rest)))))
            pieces = [(aside, piece) for aside, (_, piece, _) in zip(asides, replies, strict=True)]
            moved = self._move(pieces, min(time for _, _, time in replies))
            for source, items, (left, _, _) in zip(rest, moved, replies, strict=True):
                counts[source].items += items
                counts[source].left = left
            rest = [
                source
                for source, items in zip(rest, moved, strict=True)
                if items and counts[source].left and counts[source].items < sources[source]
            ]
        return counts

    def _take(self, source: Source, aside: bytes, size: int) -> Call[Any]:
        most = MEMBERS if source.kind == "zset" else ITEMS
        arguments = (validate.new_id(), self._target, source.group, source.kind, most, size)
        return Call(step("take"), (source.key, aside), arguments, tuple)

    def resume(self, keys: Iterable[bytes] | None = None) -> int:
        """Push the pieces that interrupted adoptions into this queue have laid aside: in these keys, or in all."""
        count, now = 0, int(server_time(self._client) * 1000)
        for aside in self._all() if keys is None else keys:
            piece: Any = self._client.lrange(aside, 0, -1)
            if piece and piece[1] == self._target:
                count += sum(self._move([(aside, piece)], now))
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

    def _move(self, pieces: list[tuple[bytes, list[bytes]]], read: int) -> list[int]:
        """Push pieces that were read then, in ms, and drop them; return how many items each had."""
        pushes: list[Call[Any]] = []
        drops: list[Call[None]] = []
        for aside, piece in pieces:
            if not piece:
                continue
            name, target, group, *values = piece
            if target != self._target:
                queue, _, kind = target.rpartition(b":")
                raise Failure(
                    f"an interrupted adoption into the {kind.decode()} {line(queue)} has left items in {line(aside)}: "
                    "run that one again first",
                    NO,
                )
            call = self._push(as_text(name), group, values)
            pushes.append(replace(call, script=step("keep", call.script.name), args=(read + _LATE, *call.args)))
            drops.append(Call(step("drop"), (aside,), (name,), nothing))
        if pushes:
            once = [slot.name for slot in load(f"{self._queue.calls.structure}/push").keys].index("once")
            self._queue.send(*pushes)
            self._queue.send(*drops)  # not before all pushes are answered
            self._queue.runner.commands([("PEXPIRE", call.keys[once], _DONE) for call in pushes])
        counts = [max(0, len(piece) - 3) // self._width for _, piece in pieces]
        self.moved += sum(counts)
        self._progress(self.moved)
        return counts

    def _push(self, name: str, group: bytes, values: list[bytes]) -> Call[Any]:
        token = f"adopt-{name}"
        if isinstance(self._queue, Buffer):
            return self._queue.calls.push(values, as_text(group), token)
        pairs = zip(values[::2], map(float, values[1::2]), strict=True)
        calls: Iterator[Any] = self._queue.calls.push_many(pairs, token=token)
        return next(calls)  # all of a piece go in one call


def unfinished(client: Client, prefix: str) -> dict[tuple[str, str], int]:
    """Count the items that adoptions have laid aside and not pushed, by the queue's structure and name."""
    counts: Counter[tuple[str, str]] = Counter()
    pieces = {piece: length for page in matching(client, escaped(_aside(prefix)) + b"*") for piece, _, length in page}
    for aside, length in pieces.items():
        target: Any = client.lindex(aside, 1) if length else None
        if target:  # else it has been pushed meanwhile
            queue, _, structure = as_text(target).rpartition(":")
            counts[structure, queue.partition("{")[2][:-1]] += (length - 3) // (1 if structure == "buffer" else 2)
    return counts


def _aside(prefix: str) -> bytes:
    """Return what the keys of all pieces begin with."""
    return validate.prefix(prefix) + b":adopting:"


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
