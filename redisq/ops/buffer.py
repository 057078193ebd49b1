"""The grouped batch buffer's operations. Keys and scripts: `lua/buffer/`, `lua/README.md`."""

from __future__ import annotations

import math
import typing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, count, islice
from typing import TYPE_CHECKING, Any, Generic

from ..codecs import JSON, Codec
from ..errors import InvalidArgument
from ..scripts import load
from . import check
from .audit import Audit, AuditPage, conduct, page
from .lease import LEASE_MEMORY, Buried, Lease, Reserved, Settled, new_id, reserve, reserve_each, settle
from .limit import Rate, flatten
from .op import Arg, Call, Op, Talk, Wait, all_bytes, as_text

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    T = TypeVar("T", default=Any)
else:
    T = typing.TypeVar("T")

MAX_ITEMS = 10_000
MAX_BATCHES = 1_000
MAX_GROUPS = 500
MAX_NAMES = 5_000
# What one call does: a few ms of the server's time at most, see the table in `lua/README.md`.
_STATS_PAGE = 2_000
_PURGE_STEP = 200
_AUDIT_PAGE = 200
_DEAD_PAGE = 200


@dataclass(frozen=True)
class BufferStats:
    """Count what a buffer holds."""

    waiting: int
    """Items that wait in groups."""
    groups: int
    """Groups that have waiting items."""
    oldest_wait: float | None
    """Seconds since the group that has waited longest became non-empty or was last served; None if nothing waits."""
    leased: int
    """Batches that are handed out."""
    delayed: int
    """Batches that were given back and are due now or later."""
    dead: int
    """Batches that have used up their attempts."""
    next_expiry: float | None
    """Unix time, by the server's clock, at which the first lease runs out; None if there is none."""


class BufferOps(Generic[T]):
    """Build the calls of one buffer, without sending them."""

    def __init__(
        self,
        name: str,
        *,
        codec: Codec[T] = JSON,
        lease: float = 30.0,
        min_size: int = 1,
        max_wait: float | None = 60.0,
        max_attempts: int | None = None,
        rates: Sequence[Rate] = (),
        dedup_window: float = 60.0,
        prefix: str = "redisq",
    ) -> None:
        self.queue = check.key_prefix(prefix, name)
        self.codec = codec
        self.lease = check.milliseconds("lease", lease, 0.001)
        self._min_size = check.whole("min_size", min_size, 1, MAX_ITEMS)
        if max_wait is None and min_size > 1:
            raise InvalidArgument(f"max_wait is None with min_size {min_size}: a smaller group would wait for ever")
        self._max_wait = 0 if max_wait is None else check.milliseconds("max_wait", max_wait, 0.001)
        self._max_attempts = check.attempts(max_attempts)
        self._rates = flatten(rates)
        self._window = check.milliseconds("dedup_window", dedup_window, 0, 604_800)
        self._memory = self._window or LEASE_MEMORY  # of how a lease ended
        self._groups, self._since = self.queue + b"groups", self.queue + b"since"
        self._leases, self._delayed, self._dead = self.queue + b"leases", self.queue + b"delayed", self.queue + b"dead"
        self._grants, self._wake, self._guard = self.queue + b"grants", self.queue + b"wake", self.queue + b"guard"
        self._layout = self.queue + b"layout"
        self._all = (self._groups, self._since, self._leases, self._delayed, self._dead)

    def _items(self, group: bytes) -> bytes:
        return self.queue + b"items:" + group

    def _batch(self, lease: bytes) -> bytes:
        return self.queue + b"batch:" + lease

    def _once(self, once: bytes) -> bytes:
        return self.queue + b"once:" + once

    def _ended(self, lease: bytes) -> bytes:
        return self.queue + b"ended:" + lease

    def push(
        self, items: Sequence[T], group: str = "default", token: str | None = None, *, front: bool = False
    ) -> Op[int]:
        """Add items at the back or, in the order given, at the front."""
        if len(items) > MAX_ITEMS:
            raise InvalidArgument(f"{len(items)} items are given: push takes at most {MAX_ITEMS}, push_many any number")
        side = b"front" if front else b"back"
        encoded, once = check.encode_all(self.codec, items), check.once_id(token)
        return self._push(encoded, group, side, once, as_text(once))

    def _push(self, encoded: list[bytes], group: str, side: bytes, once: bytes, token: str) -> Op[int]:
        name = check.text("group", group)
        keys = (self._groups, self._since, self._items(name), self._once(once), self._wake, self._layout)
        return Op(load("buffer/push"), keys, (name, side, self._window, b"", *encoded), int, token=token)

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
            length: int = yield self._push(encoded, group, b"back", once + b":%d" % piece, as_text(once))
            if not following:
                return length
            rest = chain(following, rest)
        raise AssertionError("unreachable")

    def pop(self, group: str = "default", size: int = 2000) -> Op[list[T]]:
        """Take the oldest items of one group."""
        name = check.text("group", group)
        args = (name, check.whole("size", size, 1, MAX_ITEMS), b"")
        return Op(
            load("buffer/pop"),
            (self._groups, self._since, self._items(name), self._layout, self._guard),
            args,
            self._decode_items,
        )

    def _decode_items(self, reply: list[Any]) -> list[T]:
        raw = all_bytes(reply)
        return check.decode_all(self.codec, raw, raw)

    def longest_groups(self, count: int = 2) -> Op[dict[str, int]]:
        """Name the longest groups."""
        args = (check.whole("count", count, 1, MAX_NAMES),)
        return Op(load("buffer/longest"), (self._groups, self._layout), args, _decode_lengths, writes=False)

    def pop_longest(self, groups: int = 2, size: int = 2000) -> Op[dict[str, list[T]]]:
        """Choose the longest groups and take the oldest items of each."""
        check.whole("groups", groups, 1, MAX_GROUPS)
        check.whole("size", size, 1, MAX_ITEMS)
        if groups * size > MAX_ITEMS:
            raise InvalidArgument(f"groups * size is {groups * size}: take at most {MAX_ITEMS} items a call")
        keys = (self._groups, self._since, self._guard, self._layout)
        return Op(load("buffer/pop_longest"), keys, (groups, size, b""), self._decode_batches)

    def _decode_batches(self, reply: list[Any]) -> dict[str, list[T]]:
        raw = {as_text(group): all_bytes(items) for group, items in reply}
        return {group: check.decode_all(self.codec, items, raw) for group, items in raw.items()}

    def reserve_once(
        self, size: int = 2000, *, lease: float | None = None, lease_id: str | None = None
    ) -> Op[Reserved[T]]:
        """Take one batch, if there is one."""
        name = new_id(lease_id)
        return self._reserve(size, lease, name, as_text(name))

    def _reserve(self, size: int, lease: float | None, name: bytes, lease_id: str) -> Op[Reserved[T]]:
        term = self.lease if lease is None else check.milliseconds("lease", lease, 0.001)
        keys = (*self._all, self._grants, self._batch(name), self._ended(name), self._wake, self._guard, self._layout)
        args: tuple[Arg, ...] = (name, check.whole("size", size, 1, MAX_ITEMS), term, self._min_size, self._max_wait)
        args += (self._max_attempts, self._memory, b"", *self._rates)
        decode = partial(self._decode_reserved, as_text(name))
        return Op(load("buffer/reserve"), keys, args, decode, lease_id=lease_id)

    def _decode_reserved(self, name: str, reply: list[Any]) -> Reserved[T]:
        retry, buried, *batch = reply
        named = [
            Buried(as_text(dead), as_text(group), attempts)
            for dead, group, attempts in zip(buried[::3], buried[1::3], buried[2::3], strict=True)
        ]
        if not batch:
            return Reserved(None, None if retry < 0 else retry / 1000, named)
        deadline, group, attempts, items = batch
        return Reserved(self._lease(name, as_text(group), items, attempts, deadline), 0.0, named)

    def _lease(self, name: str, group: str, items: list[Any], attempts: int, deadline: int) -> Lease[T]:
        raw = all_bytes(items)
        lease: Lease[Any] = Lease(name, group, raw, attempts, deadline / 1000, raw)
        lease.items = check.decode_all(self.codec, raw, lease)  # one that cannot be decoded is raised as it is
        return lease

    def reserve(
        self, size: int = 2000, *, timeout: float = 0.0, lease: float | None = None, lease_id: str | None = None
    ) -> Call[Reserved[T]]:
        """Take one batch, waiting for it."""
        op = self.reserve_once(size, lease=lease, lease_id=lease_id)
        return reserve(op, self._wake, timeout) if check.milliseconds("timeout", timeout) else op

    def waiting(self, retry: float | None) -> Wait:
        """Say how to wait after an empty reserve: for a push, or `retry` seconds."""
        return Wait(self._wake, math.inf if retry is None else retry)

    def reserve_many(
        self, count: int, size: int = 2000, *, lease: float | None = None, lease_id: str | None = None
    ) -> Talk[list[Reserved[T]]]:
        """Take several batches in one round trip."""
        check.whole("count", count, 1, MAX_BATCHES)
        name = new_id(lease_id)
        ops = [self._reserve(size, lease, name + b":%d" % i, as_text(name)) for i in range(count)]
        return (yield from reserve_each(ops))

    def ack(self, leases: Sequence[Lease[T]], delay: float = 0.0) -> Talk[Settled]:
        """Settle batches; items marked as failed are given back."""
        wait = check.milliseconds("delay", delay)

        def calls(lease: Lease[T]) -> Iterator[Op[int]]:
            name = check.text("lease id", lease.id)
            keys = (self._leases, self._delayed, self._batch(name), self._ended(name), self._wake, self._layout)
            yield Op(load("buffer/ack"), keys, (name, wait, self._memory, b"", *sorted(lease.failed)), int)

        return _total(settle(leases, calls))

    def release(self, leases: Sequence[Lease[T]], delay: float = 0.0, *, counted: bool = True) -> Talk[Settled]:
        """Give batches back whole; not `counted`: nobody began on them."""
        wait = check.milliseconds("delay", delay)

        def calls(lease: Lease[T]) -> Iterator[Op[int]]:
            name = check.text("lease id", lease.id)
            keys = (self._leases, self._delayed, self._batch(name), self._ended(name), self._wake, self._layout)
            attempt = b"count" if counted else b"forget"
            yield Op(load("buffer/release"), keys, (name, wait, attempt, self._memory, b""), int)

        return _total(settle(leases, calls))

    def extend(self, leases: Sequence[Lease[T]], lease: float | None = None) -> Talk[None]:
        """Keep batches longer."""
        term = self.lease if lease is None else check.milliseconds("lease", lease, 0.001)

        def calls(held: Lease[T]) -> Iterator[Op[int]]:
            yield Op(
                load("buffer/extend"), (self._leases, self._layout), (check.text("lease id", held.id), term, b""), int
            )

        for held, deadline in (yield from settle(leases, calls, ends=False)):
            held.deadline = deadline / 1000

    def dead(self, limit: int = 100, after: str | None = None) -> Talk[list[Lease[T]]]:
        """Show dead letters, the earliest first."""
        check.whole("limit", limit, 1, MAX_BATCHES)
        found: list[Lease[T]] = []
        last = b"" if after is None else check.text("after", after)
        while len(found) < limit:
            args = (min(limit - len(found), _DEAD_PAGE), last)
            page: list[Lease[T]] = yield Op(
                load("buffer/dead"), (self._dead, self._guard, self._layout), args, self._decode_dead, writes=False
            )
            if not page:
                break
            found += page
            last = check.text("after", page[-1].id)
        return found

    def _decode_dead(self, reply: list[Any]) -> list[Lease[T]]:
        return [self._lease(as_text(n), as_text(group), items, tries, died) for n, died, group, tries, items in reply]

    def redrive(self, ids: Sequence[str], token: str | None = None) -> Op[int]:
        """Give dead letters another life."""
        names = check.names("ids", ids, MAX_BATCHES)
        once = check.once_id(token)
        keys = (self._dead, self._delayed, self._once(once), self._wake, self._guard, self._layout)
        return Op(load("buffer/redrive"), keys, (self._window, b"", *names), int, token=as_text(once))

    def discard(self, ids: Sequence[str], token: str | None = None) -> Op[int]:
        """Throw dead letters away."""
        names = check.names("ids", ids, MAX_BATCHES)
        once = check.once_id(token)
        keys = (self._dead, self._once(once), self._guard, self._layout)
        return Op(load("buffer/discard"), keys, (self._window, *names), int, token=as_text(once))

    def stats(self) -> Talk[BufferStats]:
        """Count, a page of groups at a time."""
        start, waiting = 0, 0
        while True:
            args = (start, _STATS_PAGE, b"")
            start, counted, groups, oldest, *rest = yield Op(
                load("buffer/stats"), (*self._all, self._layout), args, tuple, writes=False
            )
            leased, delayed, dead, expiry = rest
            waiting += counted
            if start < 0:
                wait, first = oldest / 1000 if oldest >= 0 else None, expiry / 1000 if expiry >= 0 else None
                return BufferStats(waiting, groups, wait, leased, delayed, dead, first)

    def audit(self, repair: bool = False) -> Talk[Audit]:
        """Compare the keys with each other, a page at a time."""
        verb = b"repair" if repair else b"report"

        def step(cursor: str) -> Op[AuditPage]:
            keys = (*self._all, self._guard, self._layout)
            return Op(load("buffer/audit"), keys, (cursor, _AUDIT_PAGE, verb, b""), page, writes=repair)

        return conduct(step, "keys:0", repair)

    def purge(self) -> Talk[int]:
        """Throw everything away, some groups and batches at a time."""
        total, more = 0, 1
        while more:
            keys = (*self._all, self._wake, self._guard, self._layout)
            more, count = yield Op(load("buffer/purge"), keys, (_PURGE_STEP,), tuple)
            total += count
        return total


def _total(results: Talk[list[Any]]) -> Talk[Settled]:
    counts = yield from results
    return Settled(sum(count for _, count in counts), [])


def _decode_lengths(reply: list[Any]) -> dict[str, int]:
    return {as_text(group): length for group, length in zip(reply[::2], reply[1::2], strict=True)}
