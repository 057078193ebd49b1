"""What the pages show of one queue, read with plain commands a page at a time. Keys: `lua/README.md`.

The queues' own `dead` and `leased` bring every item of a batch; a page shows the first few of each, and may begin with
the newest.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from ..asyncio import Buffer, PriorityQueue
from ..asyncio.runner import Client, Runner
from ..core import validate
from ..core.calls import as_text
from ..core.codecs import BYTES
from ..core.errors import WrongLayout
from ..core.priority import priority_of, read_row
from ..core.queues import LAYOUT, QueueInfo, found, meta_key
from .payloads import PAGE_BYTES, fitting

T = TypeVar("T")

ListState = Literal["leased", "delayed", "dead"]
Direction = Literal["oldest", "newest"]
_INDEX = {"leased": b"leases", "delayed": b"delayed", "dead": b"dead"}
_HEADER = 4  # what stands in a buffer's batch before its items: group, attempts, holder, reason
ITEMS = 50
"""of a batch that a list of batches shows"""


@dataclass(frozen=True)
class Entry:
    """A member of a priority queue, or an item of a batch."""

    data: bytes
    priority: float | None = None
    attempts: int = 0
    reason: str = ""
    payload: bytes | None = None


@dataclass(frozen=True)
class Batch:
    """A batch that is leased, delayed or dead, or a member that is delayed or dead."""

    id: bytes
    """What acts take: the batch's id, or the member."""
    time: float
    """Its deadline, due time or death, in unix seconds by the server's clock."""
    entries: Sequence[Entry]
    """The first of its items or members."""
    size: int
    """How many it has."""
    group: bytes | None = None
    attempts: int = 0
    holder: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Page:
    """A page of a list."""

    entries: Sequence[Batch] = ()
    total: int = 0
    first: int = 0
    """The place of its first entry, from 0."""
    following: bytes | None = None
    """The id after which the next page begins; None on the last one."""
    restarted: bool = False
    """Whether the entry to go on after had left, so that this is the first page."""


@dataclass(frozen=True)
class Group:
    """A group of a buffer."""

    name: bytes
    length: int
    state: Literal["waiting", "busy", "paused", "empty"]
    since: float | None = None
    """Unix time since when it may be chosen, or was last served."""
    paused_until: float | None = None
    """Unix time; infinity: until resumed."""
    batch: bytes | None = None
    """The batch that a busy group waits for."""


@dataclass(frozen=True)
class Member:
    """A member of a priority queue, wherever it is."""

    name: bytes
    state: Literal["absent", "ready", "leased", "delayed", "dead"]
    priority: float | None = None
    rank: int | None = None
    """How many leave before it, if it is ready."""
    time: float | None = None
    attempts: int = 0
    reason: str = ""
    payload: bytes | None = None
    again: str = ""
    """What was asked for while it was leased: `pushed` or `removed`."""


@dataclass(frozen=True)
class Items:
    """A page of what stands in a list of items."""

    entries: Sequence[Entry]
    total: int
    first: int
    following: int | None


class Reader:
    """What reads one queue."""

    def __init__(self, client: Client, info: QueueInfo, prefix: str) -> None:
        self.info = info
        self.queue: Buffer[bytes] | PriorityQueue[bytes]
        if info.kind == "buffer":
            self.queue = Buffer(client, info.name, codec=BYTES, prefix=prefix)
        else:
            self.queue = PriorityQueue(
                client, info.name, codec=BYTES, payload_codec=BYTES, order=info.kind, prefix=prefix
            )
        self._runner = self.queue.runner
        self._keys = validate.key_prefix(prefix, info.name)

    @property
    def buffer(self) -> Buffer[bytes] | None:
        """The queue, if it is a buffer."""
        return self.queue if isinstance(self.queue, Buffer) else None

    async def _ask(self, *commands: tuple[Any, ...]) -> list[Any]:
        return await ask(self._runner, *commands)

    # -- batches, and members that are delayed or dead

    async def listing(
        self, state: ListState, limit: int, after: bytes | None = None, direction: Direction = "oldest"
    ) -> Page:
        """Read a page of what is leased, delayed or dead."""
        index, newest = self._keys + _INDEX[state], direction == "newest"
        total, rank = await self._ask(
            ("ZCARD", index), ("ZREVRANK" if newest else "ZRANK", index, b"" if after is None else after)
        )
        first = 0 if after is None or rank is None else int(rank) + 1
        (flat,) = await self._ask(("ZREVRANGE" if newest else "ZRANGE", index, first, first + limit - 1, "WITHSCORES"))
        ids = [(name, float(score) / 1000) for name, score in pairs(flat)]
        members = state != "leased" and self.buffer is None
        read = self._as_members if members else self._as_batches
        entries, reached = await _growing(
            len(ids), lambda start, end: read(ids[start:end]), lambda one: _bytes_of(one.entries)
        )
        shown = fitting(entries, [_bytes_of(one.entries) for one in entries])
        more = first + reached < total or len(shown) < len(entries)
        following = (shown[-1].id if shown else ids[reached - 1][0]) if more and ids else None
        return Page(shown, total, first, following, after is not None and rank is None)

    async def _as_members(self, ids: Sequence[tuple[bytes, float]]) -> list[Batch]:
        entries = await self._members([name for name, _ in ids])
        return [
            Batch(name, time, [one], 1, attempts=one.attempts, reason=one.reason)
            for (name, time), one in zip(ids, entries, strict=True)
        ]

    async def _members(self, names: Sequence[bytes]) -> list[Entry]:
        """Read what is known of members."""
        if not names:
            return []
        rows, payloads = await self._ask(
            ("HMGET", self._keys + b"rows", *names), ("HMGET", self._keys + b"payloads", *names)
        )
        found = []
        for name, row, payload in zip(names, rows, payloads, strict=True):
            score, attempts, reason = read_row(row)
            priority = None if score is None else self._priority(score)
            found.append(Entry(name, priority, attempts, reason, payload))
        return found

    def _priority(self, score: float) -> float:
        return priority_of(score, self.info.kind)

    async def _as_batches(self, ids: Sequence[tuple[bytes, float]]) -> list[Batch]:
        parts: list[list[Batch]] = []
        commands = [command for name, _ in ids for command in self._batch_commands(name, 0, ITEMS)]
        replies = await self._ask(*commands)
        for place, (name, time) in enumerate(ids):
            parts.append(await self._batch(name, time, replies[place * 3 : place * 3 + 3]))
        return [batch for part in parts for batch in part]

    def _batch_commands(self, name: bytes, start: int, count: int) -> list[tuple[Any, ...]]:
        buffer = self.buffer is not None
        key = self._keys + (b"batch:" if buffer else b"lease:") + name
        header, width = (_HEADER, 1) if buffer else (1, 2)  # a lease: holder, then member and score of each
        first = header + start * width
        return [
            ("LLEN", key),
            ("LRANGE", key, 0, header - 1),
            ("LRANGE", key, first, first + count * width - 1),
        ]

    async def _batch(self, name: bytes, time: float, replies: Sequence[Any]) -> list[Batch]:
        """Return a batch in a list, which is empty if it has ended since it was listed."""
        length, header, flat = replies
        if not header:
            return []
        if self.buffer is not None:
            group, attempts, holder, reason = (*header, b"", b"", b"", b"")[:4]
            entries = [Entry(item) for item in flat]
            size = length - _HEADER
            return [Batch(name, time, entries, size, group, int(attempts or 0), as_text(holder), as_text(reason))]
        known = await self._members(flat[::2])
        entries = [
            Entry(one.data, self._priority(float(score)), one.attempts + 1, one.reason, one.payload)
            for one, score in zip(known, flat[1::2], strict=True)
        ]
        attempts = max((one.attempts for one in entries), default=1)
        reason = next((one.reason for one in entries if one.reason), "")
        return [Batch(name, time, entries, (length - 1) // 2, None, attempts, as_text(header[0]), reason)]

    async def batch(self, state: ListState, name: bytes, start: int, count: int) -> tuple[Batch, Items] | None:
        """Read one batch, and a page of its items; None if there is none of this state."""
        score, *replies = await self._ask(
            ("ZSCORE", self._keys + _INDEX[state], name), *self._batch_commands(name, start, count)
        )
        batches = [] if score is None else await self._batch(name, float(score) / 1000, replies)
        if not batches:
            return None
        (batch,) = batches
        return batch, _items(batch.entries, batch.size, start)

    async def batch_item(self, state: ListState, name: bytes, place: int) -> bytes | None:
        """Read one item of a buffer's batch, counted from 1."""
        score, found = await self._ask(
            ("ZSCORE", self._keys + _INDEX[state], name),
            ("LINDEX", self._keys + b"batch:" + name, _HEADER + place - 1),
        )
        return None if score is None else found

    # -- a buffer's groups

    async def group(self, name: bytes) -> Group:
        """Say how long a group is, and in which state."""
        length, waiting, since, batch, paused = await self._ask(
            ("LLEN", self._keys + b"items:" + name),
            ("ZSCORE", self._keys + b"groups", name),
            ("ZSCORE", self._keys + b"since", name),
            ("HGET", self._keys + b"busy", name),
            ("ZSCORE", self._keys + b"paused_groups", name),
        )
        state: Literal["waiting", "busy", "paused", "empty"] = (
            "paused" if paused is not None else "busy" if batch is not None else "waiting" if waiting else "empty"
        )
        return Group(
            name,
            length,
            state,
            None if since is None else float(since) / 1000,
            None if paused is None else float(paused) / 1000,
            batch,
        )

    async def items(self, group: bytes, start: int, count: int) -> Items:
        """Read a page of the items that wait in a group, the oldest first."""
        key = self._keys + b"items:" + group
        (total,) = await self._ask(("LLEN", key))

        async def read(first: int, end: int) -> list[Entry]:
            (found,) = await self._ask(("LRANGE", key, start + first, start + end - 1))
            return [Entry(item) for item in found]

        entries, _ = await _growing(max(0, min(count, total - start)), read, _size)
        return _items(entries, total, start)

    async def item(self, group: bytes, place: int) -> bytes | None:
        """Read one of the items that wait in a group, counted from the oldest, which is 1."""
        (found,) = await self._ask(("LINDEX", self._keys + b"items:" + group, place - 1))
        return found  # type: ignore[no-any-return]

    # -- a priority queue's members

    async def ready(self, start: int, count: int) -> Items:
        """Read a page of the members that are ready, the most urgent first."""
        index = self._keys + b"ready"
        total, flat = await self._ask(("ZCARD", index), ("ZRANGE", index, start, start + count - 1, "WITHSCORES"))
        scores = pairs(flat)

        async def read(first: int, end: int) -> list[Entry]:
            known = await self._members([name for name, _ in scores[first:end]])
            return [
                Entry(one.data, self._priority(float(score)), one.attempts, one.reason, one.payload)
                for one, (_, score) in zip(known, scores[first:end], strict=True)
            ]

        entries, _ = await _growing(len(scores), read, _size)
        return _items(entries, total, start)

    async def member(self, name: bytes) -> Member:
        """Say where a member is, and all that is known of it."""
        score, rank, due, died, held, again = await self._ask(
            ("ZSCORE", self._keys + b"ready", name),
            ("ZRANK", self._keys + b"ready", name),
            ("ZSCORE", self._keys + b"delayed", name),
            ("ZSCORE", self._keys + b"dead", name),
            ("SISMEMBER", self._keys + b"held", name),
            ("HGET", self._keys + b"again", name),
        )
        (known,) = await self._members([name])
        noted = "" if again is None else "removed" if again == b"removed" else "pushed"
        if score is not None:
            priority = self._priority(float(score))
            return Member(name, "ready", priority, rank, None, known.attempts, known.reason, known.payload)
        state: Literal["absent", "leased", "delayed", "dead"] = (
            "leased" if held else "delayed" if due is not None else "dead" if died is not None else "absent"
        )
        time = {"delayed": due, "dead": died}.get(state)
        return Member(
            name,
            state,
            known.priority,
            None,
            None if time is None else float(time) / 1000,
            known.attempts,
            known.reason,
            known.payload,
            noted,
        )

    async def payload(self, name: bytes) -> bytes | None:
        """Read the payload of a member."""
        (found,) = await self._ask(("HGET", self._keys + b"payloads", name))
        return found  # type: ignore[no-any-return]

    # -- for acts on all dead letters

    async def dead_count(self) -> int:
        """Count the dead letters."""
        (count,) = await self._ask(("ZCARD", self._keys + b"dead"))
        return int(count)

    async def last_death(self) -> float | None:
        """Return when the newest dead letter died, in ms; infinity if that is what somebody has put there."""
        (last,) = await self._ask(("ZREVRANGE", self._keys + b"dead", 0, 0, "WITHSCORES"))
        return next((float(score) for _, score in pairs(last)), None)

    async def dead_before(self, score: float, count: int) -> tuple[Sequence[bytes], float]:
        """Return the newest dead letters that died up to a time, and when the first of them did.

        They are in the order of their deaths; what died in the same ms goes by its id, as everywhere in Redis.
        """
        (flat,) = await self._ask(
            ("ZREVRANGEBYSCORE", self._keys + b"dead", f"{score:.17g}", "-inf", "WITHSCORES", "LIMIT", 0, count)
        )
        found = [(name, float(died)) for name, died in pairs(flat)]
        return [name for name, _ in reversed(found)], found[-1][1] if found else score


async def ask(runner: Runner, *commands: tuple[Any, ...]) -> list[Any]:
    """Send commands in one round trip and return their replies; raises the first error."""
    replies = await runner.commands(commands)
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


async def marked(runner: Runner, prefix: str, names: Sequence[str]) -> list[QueueInfo]:
    """Return those of the names that are queues."""
    keys = [meta_key(prefix, name) for name in names]
    return found(prefix, keys, await runner.commands([("HGET", key, "queue") for key in keys]))


def pairs(reply: Sequence[Any]) -> list[tuple[bytes, Any]]:
    """Read members and scores: flat, or in pairs with RESP3 and from a cluster's client."""
    if reply and isinstance(reply[0], (list, tuple)):
        return [(name, score) for name, score in reply]
    return list(zip(reply[::2], reply[1::2], strict=True))


def refuse_layout(info: QueueInfo) -> None:
    """Raise `WrongLayout` for a queue whose keys this version does not know."""
    if info.layout != LAYOUT:
        raise WrongLayout(
            f"its keys have layout {info.layout}, and this version of redisq works on layout {LAYOUT}: use the version "
            "that wrote it"
        )


async def _growing(
    count: int, read: Callable[[int, int], Awaitable[Sequence[T]]], size: Callable[[T], int]
) -> tuple[list[T], int]:
    """Read what is to be on a page in growing steps, until that is more than fits on it; return how far it came.

    Its length tells nothing of its bytes: fifty items of ten megabytes are not asked for in one reply.
    """
    found: list[T] = []
    reached, step = 0, 1
    while reached < count and sum(map(size, found)) <= PAGE_BYTES:
        end = min(count, reached + step)
        found += await read(reached, end)
        reached, step = end, step * 4
    return found, reached


def _bytes_of(entries: Sequence[Entry]) -> int:
    return sum(_size(one) for one in entries)


def _size(entry: Entry) -> int:
    return len(entry.data) + len(entry.payload or b"")


def _items(entries: Sequence[Entry], total: int, first: int) -> Items:
    shown = fitting(entries, [_size(one) for one in entries], PAGE_BYTES)
    following = first + len(shown)
    return Items(shown, total, first, following if shown and following < total else None)
