"""The grouped batch buffer's operations. Keys and scripts: `lua/buffer/`, `lua/README.md`."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, count, islice
from typing import TYPE_CHECKING, Any, Literal

from . import validate
from .batch import BatchData, Buried, Event, Nothing, new_id, reserve_many
from .calls import Call, all_bytes, as_text
from .codecs import JSON, Codec
from .errors import InvalidArgument
from .flow import Flow
from .leases import LeaseCalls
from .limiter import Rate
from .queue import duration, holder_bytes, nothing, pack, read_pause, reason_bytes, seconds_or_none
from .scripts import load

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
_PAGES = {verb: load(f"buffer/{verb}").limit("limit")[1] for verb in ("stats", "purge", "groups", "drop_group")}


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


class BufferCalls(LeaseCalls[T]):
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
        super().__init__(
            "buffer",
            name,
            prefix,
            dedup_window,
            codec=codec,
            lease=lease,
            max_attempts=max_attempts,
            max_dead=max_dead,
            rates=rates,
        )
        self._min_size = validate.integer("min_size", min_size, *self.limit("reserve", "min_size"))
        if max_wait is None and self._min_size > 1:
            raise InvalidArgument(f"max_wait is None with min_size {min_size}: a smaller group would wait forever")
        self._max_wait = 0 if max_wait is None else validate.milliseconds("max_wait", max_wait, 0.001)
        self._ordered, self._isolate = validate.flag("ordered", ordered), validate.flag("isolate", isolate)

    def push(
        self, items: Sequence[T], group: str = "default", token: str | None = None, *, front: bool = False
    ) -> Call[int]:
        """Add items at the back or, in the order given, at the front."""
        if len(items) > MAX_ITEMS:
            raise InvalidArgument(f"{len(items)} items are given: push takes at most {MAX_ITEMS}, push_many any number")
        side = b"front" if front else b"back"
        encoded, once = validate.encode_all(self.codec, items), validate.once_id(token)
        return self._push(encoded, group, side, once, as_text(once))

    def _push(self, encoded: list[bytes], group: str, side: bytes, once: bytes, token: str) -> Call[int]:
        name = validate.text("group", group)
        args = (name, side, self._window, b"", *encoded)
        return self._call("push", args, int, token=token, group=name, id=once)

    def push_many(self, items: Iterable[T], group: str = "default", token: str | None = None) -> Flow[int]:
        """Add any number of items in pieces, each with its own id derived from one token."""
        if isinstance(items, (str, bytes)):
            raise InvalidArgument(f"items is one {type(items).__name__}: give an iterable of items, or call push")
        once = validate.once_id(token)
        rest = validate.iterable("items", items)
        for piece in count():
            start = piece * MAX_ITEMS
            encoded = [
                validate.encode(self.codec, item, f"item number {i} ({start} before it are pushed)")
                for i, item in enumerate(islice(rest, MAX_ITEMS), start)
            ]
            following = list(islice(rest, 1))
            length: int = yield self._push(encoded, group, b"back", once + b":%d" % piece, as_text(once))
            if not following:
                return length
            rest = chain(following, rest)
        raise AssertionError("unreachable")

    def pop(self, group: str = "default", size: int = 2000) -> Call[list[T]]:
        """Take the oldest items of one group."""
        name = validate.text("group", group)
        args = (name, validate.integer("size", size, *self.limit("pop", "size")), b"")
        return self._call("pop", args, self._decode_items, group=name)

    def _decode_items(self, reply: list[Any]) -> list[T]:
        raw = all_bytes(reply)
        return validate.decode_all(self.codec, raw, raw)

    def pop_longest(self, groups: int = 2, size: int = 2000) -> Call[dict[str, list[T]]]:
        """Choose the groups that have waited longest, then the longest ones, and take the oldest items of each."""
        count = validate.integer("groups", groups, 1, MAX_GROUPS)
        size = validate.integer("size", size, *self.limit("pop_longest", "size"))
        if count * size > MAX_ITEMS:
            raise InvalidArgument(f"groups * size is {count * size}: take at most {MAX_ITEMS} items a call")
        options = pack("buffer/pop_longest", "options", count=count, size=size, max_wait=self._max_wait)
        return self._call("pop_longest", (options, b""), self._decode_batches)

    def _decode_batches(self, reply: list[Any]) -> dict[str, list[T]]:
        raw = {as_text(group): all_bytes(items) for group, items in reply}
        return {group: validate.decode_all(self.codec, items, raw) for group, items in raw.items()}

    def pause_group(self, group: str, seconds: float | None = None, token: str | None = None) -> Call[None]:
        """Give no new batch of a group, for a time or until it is resumed."""
        name, once = validate.text("group", group), validate.once_id(token)
        args = (name, duration(seconds), self._window, b"")
        return self._call("pause_group", args, nothing, token=as_text(once), id=once)

    def resume_group(self, group: str, token: str | None = None) -> Call[bool]:
        """End the pause of a group, and say whether there was one."""
        name, once = validate.text("group", group), validate.once_id(token)
        return self._call("resume_group", (name, self._window, b""), bool, token=as_text(once), group=name, id=once)

    def drop_group(self, group: str, token: str | None = None) -> Flow[int]:
        """Throw away what waits in a group and its delayed and dead batches, some batches at a time."""
        name, once = validate.text("group", group), validate.once_id(token)
        cursor, dropped = "0 0", 0
        for piece in count():
            args = (name, cursor, _PAGES["drop_group"], self._window, b"")
            reply: list[Any] = yield self._call(
                "drop_group", args, list, token=as_text(once), group=name, id=once + (b":%d" % piece if piece else b"")
            )
            cursor, dropped = as_text(reply[0]), dropped + int(reply[1])
            if not cursor:
                return dropped
        raise AssertionError("unreachable")

    def peek(self, group: str = "default", count: int = 1, after: int = 0) -> Flow[list[T]]:
        """Show waiting items of a group, the oldest first, from the one at place `after` on."""
        name, wanted = validate.text("group", group), validate.integer("count", count, 1, 1_000_000)
        start, last = validate.integer("after", after, *self.limit("peek", "start")), self.limit("peek", "count")[1]
        found: list[bytes] = []
        while len(found) < wanted:
            args = (name, start + len(found), min(wanted - len(found), last))
            page = yield self._call("peek", args, all_bytes, writes=False, group=name)
            found += page
            if len(page) < args[2]:
                break
        return validate.decode_all(self.codec, found, None)

    def groups(self, limit: int = 100, after: int = 0, state: GroupState = "waiting") -> Flow[dict[str, int]]:
        """Name groups of a state and their waiting lengths, the longest first."""
        if state not in ("waiting", "busy", "paused"):
            raise InvalidArgument(f"state is {state!r}: give 'waiting', 'busy' or 'paused'")
        after, limit = validate.integer("after", after, 0, 999_999_999), validate.integer("limit", limit, 1, 1_000_000)
        found: dict[str, int] = {}
        cursor = after if state == "waiting" else 0
        while True:
            args = (state, min(limit, _PAGES["groups"]), cursor)
            cursor, flat = yield self._call("groups", args, tuple, writes=False)
            found.update(_lengths(flat))
            if not cursor or (state == "waiting" and len(found) >= limit):
                break
        if state == "waiting":
            return dict(islice(found.items(), limit))
        longest = sorted(found.items(), key=lambda one: (one[1], one[0]), reverse=True)
        return dict(longest[after : after + limit])

    def reserve(
        self,
        size: int = 2000,
        *,
        max_bytes: int | None = None,
        lease: float | None = None,
        lease_id: str | None = None,
        holder: str | None = None,
    ) -> Call[list[Event[T]]]:
        """Take one batch, if there is one."""
        name = new_id(lease_id)
        return self._reserve(size, max_bytes, lease, name, as_text(name), holder)

    def _reserve(
        self, size: int, max_bytes: int | None, lease: float | None, name: bytes, lease_id: str, who: str | None
    ) -> Call[list[Event[T]]]:
        options = pack(
            "buffer/reserve",
            "options",
            size=validate.integer("size", size, *self.limit("reserve", "size")),
            lease=self.lease if lease is None else validate.milliseconds("lease", lease, 0.001),
            min_size=self._min_size,
            max_wait=self._max_wait,
            max_attempts=self.max_attempts,
            max_dead=self._max_dead,
            max_bytes=validate.max_bytes(max_bytes),
            ordered=self._ordered,
            isolate=self._isolate,
            window=self._ended_window,
        )
        by = holder_bytes(who)
        decode = partial(self._decode_events, as_text(name), as_text(by))
        args = (name, options, by, b"", *self._rates)
        return self._call("reserve", args, decode, lease_id=lease_id, id=name)

    def _decode_events(self, name: str, by: str, reply: list[Any]) -> list[Event[T]]:
        event, *rest = reply
        match as_text(event):
            case "batch":
                deadline, group, attempts, why, items = rest
                return [self._batch(name, as_text(group), items, attempts, deadline, by, as_text(why))]
            case "buried":
                name, group, attempts, why = rest
                return [Buried(as_text(name), as_text(group), attempts, as_text(why))]
            case "none":
                return [Nothing(rest[0] / 1000)]
        return [Nothing(ended=True)]

    def _batch(
        self, name: str, group: str, items: list[Any], attempts: int, deadline: int, by: str, why: str
    ) -> BatchData[T]:
        raw = all_bytes(items)
        lease: BatchData[Any] = BatchData(name, group, raw, attempts, deadline / 1000, raw, reason=why, holder=by)
        lease.items = validate.decode_all(self.codec, raw, lease)  # one that cannot be decoded is raised as it is
        return lease

    def reserve_flow(
        self,
        size: int = 2000,
        *,
        max_bytes: int | None = None,
        timeout: float = 0.0,
        lease: float | None = None,
        lease_id: str | None = None,
        holder: str | None = None,
        ack: BatchData[T] | None = None,
    ) -> Flow[list[Event[T]]]:
        """Take one batch, waiting for it; the first call goes together with the ack of another one."""
        call = self.reserve(size, max_bytes=max_bytes, lease=lease, lease_id=lease_id, holder=holder)
        return self._reserve_flow(call, timeout, ack)

    def reserve_many(
        self,
        count: int,
        size: int = 2000,
        *,
        max_bytes: int | None = None,
        lease: float | None = None,
        lease_id: str | None = None,
        holder: str | None = None,
    ) -> Flow[list[Event[T]]]:
        """Take several batches in one round trip."""
        count = validate.integer("count", count, 1, MAX_BATCHES)
        name = new_id(lease_id)
        calls = [self._reserve(size, max_bytes, lease, name + b":%d" % i, as_text(name), holder) for i in range(count)]
        return reserve_many(calls)

    def ack(self, batch: BatchData[T], delay: float = 0.0) -> Call[int]:
        """Settle a batch; items marked as failed are given back."""
        options = self._options("ack", delay=validate.milliseconds("delay", delay))
        why = next((text for _, text in sorted(batch.failed.items()) if text), None)
        failed = sorted(batch.failed)
        return self._settling("ack", batch, options, reason_bytes(why), b"", *failed)

    def delayed(self, limit: int = 100, after: str | None = None) -> Flow[list[BatchData[T]]]:
        """Show batches that were given back, the first to be due first."""
        return self._list_batches(b"delayed", limit, after)

    def dead(self, limit: int = 100, after: str | None = None) -> Flow[list[BatchData[T]]]:
        """Show dead letters, the earliest first."""
        return self._list_batches(b"dead", limit, after)

    def _page(self, state: bytes, limit: int, after: bytes) -> Call[list[BatchData[T]]]:
        return self._call("batches", (limit, after), self._decode_page, writes=False, state=state)

    def _decode_page(self, reply: list[Any]) -> list[BatchData[T]]:
        return [
            self._batch(as_text(name), as_text(group), items, attempts, time, as_text(by), as_text(text))
            for name, time, group, attempts, by, text, items in reply
        ]

    def redrive(self, ids: Sequence[str], token: str | None = None) -> Flow[int]:
        """Let the items of dead letters wait again, at the front of their group; return how many were dead."""
        names = validate.names("ids", ids, MAX_BATCHES)
        once, most = validate.once_id(token), self.limit("redrive", "id")[1]
        redriven = 0
        for piece in count():
            # From the last ones on, so that in the end the first id's items come first.
            chosen = names[-most:]
            args = (self._window, b"", *chosen)
            done, left = yield self._call(
                "redrive", args, tuple, token=as_text(once), id=once + (b":%d" % piece if piece else b"")
            )
            redriven += int(done)
            names = names[: len(names) - len(chosen) + left]
            if not names:
                return redriven
        raise AssertionError("unreachable")

    def discard(self, ids: Sequence[str], token: str | None = None) -> Call[int]:
        """Throw dead letters away."""
        names = validate.names("ids", ids, MAX_BATCHES)
        once = validate.once_id(token)
        return self._call("discard", (self._window, *names), int, token=as_text(once), id=once)

    def stats(self) -> Flow[BufferStats]:
        """Count, a page of groups at a time."""
        cursor, waiting = "0 0 0", 0
        while cursor:
            reply = yield self._call("stats", (cursor, _PAGES["stats"], b""), list, writes=False)
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

    def purge(self) -> Flow[int]:
        """Throw everything away, some groups and batches at a time."""
        purged, cursor = 0, 0
        while cursor >= 0:
            reply: tuple[int, int] = yield self._call("purge", (_PAGES["purge"], cursor), tuple)
            cursor = reply[0]
            purged += reply[1]
        return purged


def _lengths(flat: list[Any]) -> dict[str, int]:
    return {as_text(group): int(length) for group, length in zip(flat[::2], flat[1::2], strict=True)}
