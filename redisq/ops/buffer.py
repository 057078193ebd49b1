"""The grouped batch buffer's operations. Keys and scripts: `lua/buffer/`, `lua/README.md`."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, count, islice
from typing import TYPE_CHECKING, Any, Generic

from ..codecs import JSON, Codec
from ..errors import InvalidArgument
from ..scripts import load
from . import check
from .audit import Audit, AuditPage, conduct, page
from .op import Op, Talk, as_bytes, as_text

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    T = TypeVar("T", default=Any)
else:
    T = typing.TypeVar("T")

MAX_ITEMS = 10_000
_STATS_PAGE = 2_000
_PURGE_STEP = 500
_AUDIT_PAGE = 500


@dataclass(frozen=True)
class BufferStats:
    """Count what a buffer holds."""

    waiting: int
    """Items that wait in groups."""
    groups: int
    """Groups that have waiting items."""
    oldest_wait: float | None
    """Seconds since the group that has waited longest became non-empty or was last served; None if nothing waits."""


class BufferOps(Generic[T]):
    """Build the calls of one buffer, without sending them."""

    def __init__(
        self, name: str, *, codec: Codec[T] = JSON, dedup_window: float = 60.0, prefix: str = "redisq"
    ) -> None:
        self.queue = check.key_prefix(prefix, name)
        self.codec = codec
        self._window = check.milliseconds("dedup_window", dedup_window, 0, 604_800)
        self._groups = self.queue + b"groups"
        self._since = self.queue + b"since"
        self._guard = self.queue + b"guard"

    def _items(self, group: bytes) -> bytes:
        return self.queue + b"items:" + group

    def push(
        self, items: Sequence[T], group: str = "default", token: str | None = None, *, front: bool = False
    ) -> Op[int]:
        """Add items at the back or, in the order given, at the front."""
        if len(items) > MAX_ITEMS:
            raise InvalidArgument(f"{len(items)} items are given: push takes at most {MAX_ITEMS}, push_many any number")
        side = b"front" if front else b"back"
        return self._push([check.encode(self.codec, item) for item in items], group, side, check.once_id(token))

    def _push(self, encoded: list[bytes], group: str, side: bytes, once: bytes) -> Op[int]:
        name = check.text("group", group)
        keys = (self._groups, self._since, self._items(name), self.queue + b"once:" + once)
        return Op(load("buffer/push"), keys, (name, side, self._window, b"", *encoded), int)

    def push_many(self, items: Iterable[T], group: str = "default", token: str | None = None) -> Talk[int]:
        """Add any number of items in pieces, each with its own id derived from one token."""
        if isinstance(items, (str, bytes)):
            raise InvalidArgument(f"items is one {type(items).__name__}: give an iterable of items, or call push")
        once = check.once_id(token)
        rest = iter(items)
        for piece in count():
            start = piece * MAX_ITEMS
            encoded = [
                check.encode(self.codec, item, f"item number {i} ({start} before it are pushed)")
                for i, item in enumerate(islice(rest, MAX_ITEMS), start)
            ]
            following = list(islice(rest, 1))
            length: int = yield self._push(encoded, group, b"back", once + b":%d" % piece)
            if not following:
                return length
            rest = chain(following, rest)
        raise AssertionError("unreachable")

    def pop(self, group: str = "default", size: int = 2000) -> Op[list[T]]:
        """Take the oldest items of one group."""
        name = check.text("group", group)
        args = (name, check.whole("size", size, 1, MAX_ITEMS), b"")
        return Op(load("buffer/pop"), (self._groups, self._since, self._items(name)), args, self._decode_items)

    def _decode_items(self, reply: list[Any]) -> list[T]:
        raw = [as_bytes(item) for item in reply]
        return [check.decode(self.codec, item, raw) for item in raw]

    def longest_groups(self, count: int = 2) -> Op[dict[str, int]]:
        """Name the longest groups."""
        args = (check.whole("count", count, 1, MAX_ITEMS),)
        return Op(load("buffer/longest"), (self._groups,), args, _decode_lengths)

    def pop_longest(self, groups: int = 2, size: int = 2000) -> Op[dict[str, list[T]]]:
        """Choose the longest groups and take the oldest items of each."""
        check.whole("groups", groups, 1, MAX_ITEMS)
        check.whole("size", size, 1, MAX_ITEMS)
        if groups * size > MAX_ITEMS:
            raise InvalidArgument(f"groups * size is {groups * size}: take at most {MAX_ITEMS} items a call")
        keys = (self._groups, self._since, self._guard)
        return Op(load("buffer/pop_longest"), keys, (groups, size, b""), self._decode_batches)

    def _decode_batches(self, reply: list[Any]) -> dict[str, list[T]]:
        raw = {as_text(group): [as_bytes(item) for item in items] for group, items in reply}
        return {group: [check.decode(self.codec, item, raw) for item in items] for group, items in raw.items()}

    def stats(self) -> Talk[BufferStats]:
        """Count, a page of groups at a time."""
        start, waiting = 0, 0
        while True:
            args = (start, _STATS_PAGE, b"")
            start, counted, groups, oldest = yield Op(load("buffer/stats"), (self._groups, self._since), args, tuple)
            waiting += counted
            if start < 0:
                return BufferStats(waiting, groups, oldest / 1000 if oldest >= 0 else None)

    def audit(self, repair: bool = False) -> Talk[Audit]:
        """Compare the keys with each other, a page at a time."""
        verb = b"repair" if repair else b"report"

        def step(cursor: str) -> Op[AuditPage]:
            keys = (self._groups, self._since, self._guard)
            return Op(load("buffer/audit"), keys, (cursor, _AUDIT_PAGE, verb, b""), page)

        return conduct(step, "keys:0", repair)

    def purge(self) -> Talk[int]:
        """Throw away what waits, some groups at a time."""
        total, more = 0, 1
        while more:
            keys = (self._groups, self._since, self._guard)
            more, count = yield Op(load("buffer/purge"), keys, (_PURGE_STEP,), tuple)
            total += count
        return total


def _decode_lengths(reply: list[Any]) -> dict[str, int]:
    return {as_text(group): length for group, length in zip(reply[::2], reply[1::2], strict=True)}
