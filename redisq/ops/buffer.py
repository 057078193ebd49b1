"""The grouped batch buffer's operations. Keys and scripts: `lua/buffer/`, `lua/README.md`."""

from __future__ import annotations

import math
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, count, islice
from typing import TYPE_CHECKING, Any, Generic, Literal

from ..codecs import JSON, Codec
from ..errors import InvalidArgument
from ..scripts import load
from . import check
from .audit import Audit, AuditPage, conduct, horizon, page
from .lease import LEASE_MEMORY, Buried, Lease, Reserved, new_id, reserve, reserve_each, settle, total
from .limit import Rate, flatten
from .op import Op, Talk, Wait, all_bytes, as_text
from .queue import QueueOps, duration, holder_bytes, nothing, pack, read_pause, reason_bytes, seconds_or_none

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    T = TypeVar("T", default=Any)
else:
    T = typing.TypeVar("T")

GroupState = Literal["waiting", "busy", "paused"]

MAX_ITEMS = load("buffer/push").limit("item")[1]
MAX_BATCHES = load("buffer/discard").limit("id")[1]
MAX_GROUPS = load("buffer/pop_longest").limit("count")[1]
# What one call shows or purges: a few ms of the server's time at most, see the table in `lua/README.md`.
_PAGES = {
    verb: load(f"buffer/{verb}").limit("limit")[1]
    for verb in ("stats", "purge", "audit", "batches", "groups", "drop_group")
}


@dataclass(frozen=True)
class BufferStats:
    """What a buffer holds."""

    waiting: int
    """Items that wait in groups."""
    groups: int
    """Groups that may be handed out."""
    busy_groups: int
    """Groups of an `ordered` buffer whose items wait for a batch that is out."""
    paused_groups: int
    """Groups that are paused."""
    oldest_wait: float | None
    """Seconds since the group that has waited longest became non-empty or was last served; None if nothing waits."""
    leased: int
    """Batches that are handed out."""
    delayed: int
    """Batches that were given back and are due now or later."""
    dead: int
    """Batches that are dead letters."""
    due: int
    """Batches whose lease ran out or whose delay is over, and which nobody has taken up yet."""
    next_expiry: float | None
    """Unix time, by the server's clock, at which the first lease runs out; None if there is none."""
    done: int
    """Items that were acked, since the queue began or was last empty for seven days."""
    failed: int
    """Items that came back from a handler, or because a lease ran out, each time counted."""
    buried: int
    """Items that became dead letters."""
    trimmed: int
    """Items of dead letters that were dropped because there were more than `max_dead`."""
    paused: bool
    """Whether the queue hands nothing out."""
    pause_reason: str
    """Why it is paused."""
    paused_until: float | None
    """Unix time at which the pause ends; None: when it is resumed, or not paused."""


class BufferOps(QueueOps, Generic[T]):
    """What builds the calls of one buffer, without sending them."""

    def __init__(
        self,
        name: str,
        *,
        codec: Codec[T] = JSON,
        lease: float = 30.0,
        min_size: int = 1,
        max_wait: float | None = 60.0,
        max_attempts: int | None = None,
        ordered: bool = False,
        isolate: bool = False,
        max_dead: int | None = 10_000,
        rates: Sequence[Rate] = (),
        dedup_window: float = 60.0,
        prefix: str = "redisq",
    ) -> None:
        super().__init__("buffer", name, prefix, dedup_window)
        self.codec = codec
        self.lease = check.milliseconds("lease", lease, 0.001)
        self._min_size = check.whole("min_size", min_size, *self.limit("reserve", "min_size"))
        if max_wait is None and self._min_size > 1:
            raise InvalidArgument(f"max_wait is None with min_size {min_size}: a smaller group would wait for ever")
        self._max_wait = 0 if max_wait is None else check.milliseconds("max_wait", max_wait, 0.001)
        self.max_attempts = check.attempts(max_attempts)
        self._max_dead = check.max_dead(max_dead)
        self._ordered, self._isolate = check.flag("ordered", ordered), check.flag("isolate", isolate)
        self._rates = flatten(rates)
        self._memory = self._window or LEASE_MEMORY  # of how a lease ended
        self._wake = self.queue + b"wake"

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
        args = (name, side, self._window, b"", *encoded)
        return self._op("push", args, int, token=token, group=name, id=once)

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
        args = (name, check.whole("size", size, *self.limit("pop", "size")), b"")
        return self._op("pop", args, self._decode_items, group=name)

    def _decode_items(self, reply: list[Any]) -> list[T]:
        raw = all_bytes(reply)
        return check.decode_all(self.codec, raw, raw)

    def pop_longest(self, groups: int = 2, size: int = 2000) -> Op[dict[str, list[T]]]:
        """Choose the groups that have waited longest, then the longest ones, and take the oldest items of each."""
        count = check.whole("groups", groups, 1, MAX_GROUPS)
        size = check.whole("size", size, *self.limit("pop_longest", "size"))
        if count * size > MAX_ITEMS:
            raise InvalidArgument(f"groups * size is {count * size}: take at most {MAX_ITEMS} items a call")
        options = pack("buffer/pop_longest", "options", count=count, size=size, max_wait=self._max_wait)
        return self._op("pop_longest", (options, b""), self._decode_batches)

    def _decode_batches(self, reply: list[Any]) -> dict[str, list[T]]:
        raw = {as_text(group): all_bytes(items) for group, items in reply}
        return {group: check.decode_all(self.codec, items, raw) for group, items in raw.items()}

    def pause_group(self, group: str, seconds: float | None = None, token: str | None = None) -> Op[None]:
        """Give no new batch of a group, for a time or until it is resumed."""
        name, once = check.text("group", group), check.once_id(token)
        args = (name, duration(seconds), self._window, b"")
        return self._op("pause_group", args, nothing, token=as_text(once), id=once)

    def resume_group(self, group: str, token: str | None = None) -> Op[bool]:
        """End the pause of a group, and say whether there was one."""
        name, once = check.text("group", group), check.once_id(token)
        return self._op("resume_group", (name, self._window, b""), bool, token=as_text(once), group=name, id=once)

    def drop_group(self, group: str, token: str | None = None) -> Talk[int]:
        """Throw away what waits in a group and its delayed and dead batches, some batches at a time."""
        name, once = check.text("group", group), check.once_id(token)
        cursor, dropped = "0 0", 0
        for piece in count():
            args = (name, cursor, _PAGES["drop_group"], self._window, b"")
            reply: list[Any] = yield self._op(
                "drop_group", args, list, token=as_text(once), group=name, id=once + (b":%d" % piece if piece else b"")
            )
            cursor, dropped = as_text(reply[0]), dropped + int(reply[1])
            if not cursor:
                return dropped
        raise AssertionError("unreachable")

    def peek(self, group: str = "default", count: int = 1, after: int = 0) -> Talk[list[T]]:
        """Show waiting items of a group, the oldest first, from the one at place `after` on."""
        name, wanted = check.text("group", group), check.whole("count", count, 1, 1_000_000)
        start, last = check.whole("after", after, *self.limit("peek", "start")), self.limit("peek", "count")[1]
        found: list[bytes] = []
        while len(found) < wanted:
            args = (name, start + len(found), min(wanted - len(found), last))
            page = yield self._op("peek", args, all_bytes, writes=False, group=name)
            found += page
            if len(page) < args[2]:
                break
        return check.decode_all(self.codec, found, None)

    def groups(self, limit: int = 100, after: int = 0, state: GroupState = "waiting") -> Talk[dict[str, int]]:
        """Name groups of a state and their waiting lengths, the longest first."""
        if state not in ("waiting", "busy", "paused"):
            raise InvalidArgument(f"state is {state!r}: give 'waiting', 'busy' or 'paused'")
        after, limit = check.whole("after", after, 0, 999_999_999), check.whole("limit", limit, 1, 1_000_000)
        found: dict[str, int] = {}
        cursor = after if state == "waiting" else 0
        while True:
            args = (state, min(limit, _PAGES["groups"]), cursor)
            cursor, flat = yield self._op("groups", args, tuple, writes=False)
            found.update(_lengths(flat))
            if not cursor or (state == "waiting" and len(found) >= limit):
                break
        if state == "waiting":
            return dict(islice(found.items(), limit))
        longest = sorted(found.items(), key=lambda one: (one[1], one[0]), reverse=True)
        return dict(longest[after : after + limit])

    def reserve_once(
        self,
        size: int = 2000,
        *,
        max_bytes: int | None = None,
        lease: float | None = None,
        lease_id: str | None = None,
        holder: str | None = None,
    ) -> Op[Reserved[T]]:
        """Take one batch, if there is one."""
        name = new_id(lease_id)
        return self._reserve(size, max_bytes, lease, name, as_text(name), holder)

    def _reserve(
        self, size: int, max_bytes: int | None, lease: float | None, name: bytes, lease_id: str, who: str | None
    ) -> Op[Reserved[T]]:
        options = pack(
            "buffer/reserve",
            "options",
            size=check.whole("size", size, *self.limit("reserve", "size")),
            lease=self.lease if lease is None else check.milliseconds("lease", lease, 0.001),
            min_size=self._min_size,
            max_wait=self._max_wait,
            max_attempts=self.max_attempts,
            max_dead=self._max_dead,
            max_bytes=check.max_bytes(max_bytes),
            ordered=self._ordered,
            isolate=self._isolate,
            window=self._memory,
        )
        by = holder_bytes(who)
        decode = partial(self._decode_reserved, as_text(name), as_text(by))
        args = (name, options, by, b"", *self._rates)
        return self._op("reserve", args, decode, lease_id=lease_id, id=name)

    def _decode_reserved(self, name: str, by: str, reply: list[Any]) -> Reserved[T]:
        event, *rest = reply
        match as_text(event):
            case "batch":
                deadline, group, attempts, why, items = rest
                lease = self._lease(name, as_text(group), items, attempts, deadline, by, as_text(why))
                return Reserved(lease, 0.0, [])
            case "buried":
                name, group, attempts, why = rest
                return Reserved(None, 0.0, [Buried(as_text(name), as_text(group), attempts, as_text(why))])
            case "none":
                return Reserved(None, rest[0] / 1000, [])
        return Reserved(None, 0.0, [], ended=True)

    def _lease(
        self, name: str, group: str, items: list[Any], attempts: int, deadline: int, by: str, why: str
    ) -> Lease[T]:
        raw = all_bytes(items)
        lease: Lease[Any] = Lease(name, group, raw, attempts, deadline / 1000, raw, reason=why, holder=by)
        lease.items = check.decode_all(self.codec, raw, lease)  # one that cannot be decoded is raised as it is
        return lease

    def reserve(
        self,
        size: int = 2000,
        *,
        max_bytes: int | None = None,
        timeout: float = 0.0,
        lease: float | None = None,
        lease_id: str | None = None,
        holder: str | None = None,
    ) -> Talk[Reserved[T]]:
        """Take one batch, waiting for it."""
        timeout = check.milliseconds("timeout", timeout) / 1000
        op = self.reserve_once(size, max_bytes=max_bytes, lease=lease, lease_id=lease_id, holder=holder)
        return reserve(op, self._wake, timeout)

    def waiting(self, retry: float | None) -> Wait:
        """Say how to wait after an empty reserve: for a wake-up, or `retry` seconds."""
        return Wait(self._wake, math.inf if retry is None else retry)

    def reserve_many(
        self,
        count: int,
        size: int = 2000,
        *,
        max_bytes: int | None = None,
        lease: float | None = None,
        lease_id: str | None = None,
        holder: str | None = None,
    ) -> Talk[list[Reserved[T]]]:
        """Take several batches in one round trip."""
        count = check.whole("count", count, 1, MAX_BATCHES)
        name = new_id(lease_id)
        ops = [self._reserve(size, max_bytes, lease, name + b":%d" % i, as_text(name), holder) for i in range(count)]
        return (yield from reserve_each(ops))

    def ack(self, leases: Sequence[Lease[T]], delay: float = 0.0) -> Talk[int]:
        """Settle batches; items marked as failed are given back."""
        options = self._settling("ack", delay=check.milliseconds("delay", delay))

        def call(lease: Lease[T]) -> Op[int]:
            name = check.text("lease id", lease.id)
            why = next((text for _, text in sorted(lease.failed.items()) if text), None)
            return self._op("ack", (name, options, reason_bytes(why), b"", *sorted(lease.failed)), int, id=name)

        return total(settle(leases, call))

    def release(
        self, leases: Sequence[Lease[T]], delay: float = 0.0, *, count: bool = True, reason: str | None = None
    ) -> Talk[int]:
        """Give batches back whole; not `count`: this hand-over is no attempt."""
        options = self._settling("release", delay=check.milliseconds("delay", delay))
        attempt = b"count" if check.flag("count", count) else b"forget"
        return total(settle(leases, self._ending("release", options, attempt, reason_bytes(reason))))

    def bury(self, leases: Sequence[Lease[T]], reason: str | None = None) -> Talk[int]:
        """Make batches dead letters now."""
        options = self._settling("bury", max_dead=self._max_dead)
        return total(settle(leases, self._ending("bury", options, reason_bytes(reason))))

    def _settling(self, verb: str, **numbers: int) -> bytes:
        return pack(f"buffer/{verb}", "options", window=self._memory, **numbers)

    def _ending(self, verb: str, *args: bytes) -> Any:
        def call(lease: Lease[T]) -> Op[int]:
            name = check.text("lease id", lease.id)
            return self._op(verb, (name, *args, b""), int, id=name)

        return call

    def extend(self, leases: Sequence[Lease[T]], lease: float | None = None) -> Talk[None]:
        """Keep batches longer."""
        term = self.lease if lease is None else check.milliseconds("lease", lease, 0.001)

        def call(held: Lease[T]) -> Op[int]:
            return self._op("extend", (check.text("lease id", held.id), term, b""), int)

        for held, deadline in (yield from settle(leases, call, ends=False)):
            held.deadline = deadline / 1000

    def leased(self, limit: int = 100, after: str | None = None) -> Talk[list[Lease[T]]]:
        """Show batches that are handed out, the first to run out first."""
        return self._batches(b"leases", limit, after)

    def delayed(self, limit: int = 100, after: str | None = None) -> Talk[list[Lease[T]]]:
        """Show batches that were given back, the first to be due first."""
        return self._batches(b"delayed", limit, after)

    def dead(self, limit: int = 100, after: str | None = None) -> Talk[list[Lease[T]]]:
        """Show dead letters, the earliest first."""
        return self._batches(b"dead", limit, after)

    def _batches(self, state: bytes, limit: int, after: str | None) -> Talk[list[Lease[T]]]:
        limit = check.whole("limit", limit, 1, 1_000_000)
        found: list[Lease[T]] = []
        last = b"" if after is None else check.text("after", after)
        while len(found) < limit:
            args = (min(limit - len(found), _PAGES["batches"]), last)
            page: list[Lease[T]] = yield self._op("batches", args, self._decode_page, writes=False, state=state)
            if not page:
                break
            found += page
            last = check.text("after", page[-1].id)
        return found

    def _decode_page(self, reply: list[Any]) -> list[Lease[T]]:
        return [
            self._lease(as_text(name), as_text(group), items, attempts, time, as_text(by), as_text(text))
            for name, time, group, attempts, by, text, items in reply
        ]

    def redrive(self, ids: Sequence[str], token: str | None = None) -> Talk[int]:
        """Let the items of dead letters wait again, at the front of their group; return how many were dead."""
        names = check.names("ids", ids, MAX_BATCHES)
        once, most = check.once_id(token), self.limit("redrive", "id")[1]
        redriven = 0
        for piece in count():
            # From the last ones on, so that in the end the first id's items come first.
            chosen = names[-most:]
            args = (self._window, b"", *chosen)
            done, left = yield self._op(
                "redrive", args, tuple, token=as_text(once), id=once + (b":%d" % piece if piece else b"")
            )
            redriven += int(done)
            names = names[: len(names) - len(chosen) + left]
            if not names:
                return redriven
        raise AssertionError("unreachable")

    def discard(self, ids: Sequence[str], token: str | None = None) -> Op[int]:
        """Throw dead letters away."""
        names = check.names("ids", ids, MAX_BATCHES)
        once = check.once_id(token)
        return self._op("discard", (self._window, *names), int, token=as_text(once), id=once)

    def stats(self) -> Talk[BufferStats]:
        """Count, a page of groups at a time."""
        cursor, waiting = "0 0 0", 0
        while cursor:
            reply = yield self._op("stats", (cursor, _PAGES["stats"], b""), list, writes=False)
            cursor = as_text(reply[0])
            waiting += reply[1]
        _, _, groups, busy, paused, oldest, leased, delayed, dead, due, expiry, *totals, pause = reply
        done, failed, buried, trimmed = totals
        until, text = read_pause(pause)
        return BufferStats(
            waiting=waiting,
            groups=groups,
            busy_groups=busy,
            paused_groups=paused,
            oldest_wait=seconds_or_none(oldest),
            leased=leased,
            delayed=delayed,
            dead=dead,
            due=due,
            next_expiry=seconds_or_none(expiry),
            done=done,
            failed=failed,
            buried=buried,
            trimmed=trimmed,
            paused=bool(pause),
            pause_reason=text,
            paused_until=until,
        )

    def audit(self, repair: bool = False, *, max_lease: float | None = None) -> Talk[Audit]:
        """Compare the keys with each other, a page at a time."""
        verb = b"repair" if repair else b"report"
        ahead = horizon(self.lease, max_lease)

        def step(cursor: str) -> Op[AuditPage]:
            return self._op("audit", (cursor, _PAGES["audit"], verb, ahead, b""), page, writes=repair)

        return conduct(step, "keys:0", repair)

    def purge(self) -> Talk[int]:
        """Throw everything away, some groups and batches at a time."""
        purged, cursor = 0, 0
        while cursor >= 0:
            reply: tuple[int, int] = yield self._op("purge", (_PAGES["purge"], cursor), tuple)
            cursor = reply[0]
            purged += reply[1]
        return purged


def _lengths(flat: list[Any]) -> dict[str, int]:
    return {as_text(group): int(length) for group, length in zip(flat[::2], flat[1::2], strict=True)}
