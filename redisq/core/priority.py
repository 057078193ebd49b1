"""The unique priority queue's operations. Keys and scripts: `lua/priority/`, `lua/README.md`."""

from __future__ import annotations

import reprlib
import typing
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, Literal

from . import validate
from .batch import BatchData, Buried, Event, Nothing, new_id, reserve_many
from .calls import Call, all_bytes, as_bytes, as_text
from .codecs import JSON, TEXT, Codec
from .errors import InvalidArgument
from .flow import Block, Flow, Operation
from .leases import LeaseCalls
from .limiter import Rate
from .queue import holder_bytes, pack, read_pause, reason_bytes, seconds_or_none
from .scripts import load

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    T = TypeVar("T", default=str)
else:
    T = typing.TypeVar("T")

Order = Literal["fifo", "score"]

MAX_MEMBERS = load("priority/push").limit("item")[1]
MAX_LEASED = load("priority/reserve").limit("size")[1]
PLACES = 10**12  # fifo: score = (priority + 1024) * PLACES + place, exact in a double for priorities -1024..1023
_PAGES = {verb: load(f"priority/{verb}").limit("limit")[1] for verb in ("purge", "members")}


class Pushed(str, Enum):
    """What a push did."""

    ADDED = "added"
    """The member was not there, was dead, or is leased and will come once more."""
    RAISED = "raised"
    """It was there, and became more urgent: a lower score or an earlier time."""
    CHANGED = "changed"
    """It was there, and `replace` made it less urgent in one of the two."""
    KEPT = "kept"
    """It was there, and at least as urgent."""


class State(str, Enum):
    """Where a member is."""

    ABSENT = "absent"
    """It is not in the queue."""
    READY = "ready"
    """It waits, and may be handed out."""
    DELAYED = "delayed"
    """It waits for its time."""
    LEASED = "leased"
    """A worker has it."""
    DEAD = "dead"
    """It was buried, or has used its attempts."""


@dataclass(frozen=True)
class Item(Generic[T]):
    """One member of a priority queue."""

    member: T
    """The member."""
    priority: float
    """As it was pushed, the lowest: an int in `fifo` order, a float in `score` order."""
    attempts: int
    """Times handed out: a popped member's includes this time, in a listing it is what came before."""
    payload: Any = None
    """What was pushed with it last; None if nothing was."""
    reason: str = ""
    """Why it came back last time, or died."""
    time: float | None = None
    """Unix time at which a delayed member is due, or a dead one died; else None."""


@dataclass(frozen=True)
class PriorityStats:
    """What a priority queue holds, in members where nothing else is said."""

    waiting: int
    """Members that are ready."""
    delayed: int
    """Members that are ready later, or are due and wait for the next reserve or pop to promote them."""
    leased: int
    """Members that are handed out."""
    dead: int
    """Members that are dead."""
    batches: int
    """Leases under which members are handed out."""
    due: int
    """Delayed members that are due, and leases that ran out."""
    next_expiry: float | None
    """Unix time, by the server's clock, at which the first lease runs out; None if there is none."""
    done: int
    """Members that were acked, since the queue began or was last empty for seven days."""
    failed: int
    """Members that came back from a handler, or because a lease ran out, each time counted."""
    buried: int
    """Members that died."""
    trimmed: int
    """Dead members that were dropped because there were more than `max_dead`."""
    paused: bool
    """Whether the queue hands nothing out."""
    pause_reason: str
    """Why it is paused."""
    paused_until: float | None
    """Unix time at which the pause ends; None: when it is resumed, or not paused."""


_LETTERS = {"A": Pushed.ADDED, "R": Pushed.RAISED, "C": Pushed.CHANGED, "K": Pushed.KEPT}


class PriorityCalls(LeaseCalls[T]):
    """What builds the calls of one priority queue, without sending them."""

    def __init__(
        self,
        name: str,
        *,
        order: Order = "fifo",
        codec: Codec[T] = TEXT,  # type: ignore[assignment]  # the default of T is str
        payload_codec: Codec[Any] = JSON,
        lease: float = 30.0,
        max_attempts: int | None = None,
        max_dead: int | None = 10_000,
        rates: Sequence[Rate] = (),
        dedup_window: float = 60.0,
        prefix: str = "redisq",
    ) -> None:
        super().__init__(
            "priority",
            name,
            prefix,
            dedup_window,
            codec=codec,
            lease=lease,
            max_attempts=max_attempts,
            max_dead=max_dead,
            rates=rates,
        )
        if order not in ("fifo", "score"):
            raise InvalidArgument(f"order is {order!r}: give 'fifo' or 'score'")
        if getattr(codec, "varies", False):
            raise InvalidArgument(
                f"codec is {codec!r}, which gives a member other bytes each time, and a member is known by its bytes: "
                f"use it for what may differ, payload_codec={codec!r}"
            )
        self.order: Order = order
        self.payload_codec = validate.codec("payload_codec", payload_codec)

    def _score(self, priority: Any) -> bytes:
        value = validate.number("priority", priority)
        if self.order == "fifo" and not (value.is_integer() and -1024 <= value <= 1023):
            raise InvalidArgument(
                f"priority is {priority!r}: in fifo order give a whole number from -1024 to 1023, "
                "or make the queue with order='score'"
            )
        return b"%d" % int(value) if self.order == "fifo" else repr(value).encode()

    def _fields(self, member: T, priority: Any, payload: Any, where: str = "member") -> tuple[bytes, ...]:
        """Return what a push sends for one member: two values, or three with a payload."""
        pair = self._score(priority), validate.encode(self.codec, member, where)
        return pair if payload is None else (*pair, validate.encode(self.payload_codec, payload, "payload"))

    def push(
        self,
        member: T,
        priority: float = 0,
        *,
        payload: Any = None,
        delay: float = 0.0,
        replace: bool = False,
        token: str | None = None,
    ) -> Call[Pushed]:
        """Add one member."""
        fields = self._fields(member, priority, payload)
        once = validate.once_id(token)
        return self._push(fields, len(fields), delay, replace, once, as_text(once), _decode_outcome)

    def _push(
        self, values: Iterable[bytes], width: int, delay: float, replace: bool, once: bytes, token: str, decode: Any
    ) -> Call[Any]:
        options = pack(
            "priority/push",
            "options",
            delay=validate.milliseconds("delay", delay),
            window=self._window,
            fields=width,
        )
        args = (self.order, b"set" if validate.flag("replace", replace) else b"min", options, b"", *values)
        return self._call("push", args, decode, token=token, id=once)

    def push_many(
        self,
        members: Mapping[T, float] | Iterable[tuple[T, float] | tuple[T, float, Any]],
        *,
        delay: float = 0.0,
        replace: bool = False,
        token: str | None = None,
    ) -> Flow[Counter[Pushed]]:
        """Add any number of members in pieces, each with its own id derived from one token.

        A piece ends after 500 members, before a member that it has already, and where payloads begin or end.
        """
        validate.milliseconds("delay", delay)
        once = validate.once_id(token)
        pairs = validate.iterable("members", members.items() if isinstance(members, Mapping) else members)
        outcomes: Counter[Pushed] = Counter()
        pieces, pushed, seen = count(), 0, set[bytes]()
        piece: list[tuple[bytes, ...]] = []

        def send() -> Call[list[Pushed]]:
            values = [value for fields in piece for value in fields]
            name = once + b":%d" % next(pieces)
            return self._push(values, len(piece[0]), delay, replace, name, as_text(once), _decode_outcomes)

        for i, pair in enumerate(pairs):
            if not isinstance(pair, (tuple, list)) or len(pair) not in (2, 3):
                raise InvalidArgument(
                    f"number {i} is {reprlib.repr(pair)}: give a mapping, or tuples (member, priority) or "
                    "(member, priority, payload)"
                )
            payload = pair[2] if len(pair) == 3 else None
            fields = self._fields(pair[0], pair[1], payload, f"member number {i} ({pushed} before it are pushed)")
            if piece and (len(piece) == MAX_MEMBERS or fields[1] in seen or len(fields) != len(piece[0])):
                outcomes.update((yield send()))
                pushed += len(piece)
                piece, seen = [], set()
            piece.append(fields)
            seen.add(fields[1])
        if piece:
            outcomes.update((yield send()))
        return outcomes

    def pop_once(self) -> Call[Item[T] | None]:
        """Take the most urgent member, if one is ready."""
        return self._pop(1, lambda reply: next(iter(self._decode_items(*reply[1:], more=1)), None))

    def pop(self, timeout: float = 0.0) -> Operation[Item[T] | None]:
        """Take the most urgent member, waiting for it."""
        seconds = validate.milliseconds("timeout", timeout) / 1000
        return self._pop_waiting(seconds) if seconds else self.pop_once()

    def _pop_waiting(self, timeout: float) -> Flow[Item[T] | None]:
        end = monotonic() + timeout
        while True:
            retry, items = yield self._pop(1, lambda reply: (reply[0], self._decode_items(*reply[1:], more=1)))
            left = end - monotonic()
            if items or left <= 0:
                return items[0] if items else None
            if retry != 0:
                yield Block(self._wake, left if retry < 0 else min(left, retry / 1000))

    def pop_many(self, count: int) -> Call[list[Item[T]]]:
        """Take the most urgent members."""
        count = validate.integer("count", count, *self.limit("pop", "count"))
        return self._pop(count, lambda reply: self._decode_items(*reply[1:], more=1))

    def _pop(self, count: int, decode: Any) -> Call[Any]:
        return self._call("pop", (self.order, count, b""), decode)

    def reserve(
        self,
        size: int = 1,
        *,
        max_bytes: int | None = None,
        lease: float | None = None,
        lease_id: str | None = None,
        holder: str | None = None,
    ) -> Call[list[Event[T]]]:
        """Take the most urgent members as one batch, if any is ready."""
        name = new_id(lease_id)
        return self._reserve(size, max_bytes, lease, name, as_text(name), holder)

    def _reserve(
        self, size: int, max_bytes: int | None, lease: float | None, name: bytes, lease_id: str, who: str | None
    ) -> Call[list[Event[T]]]:
        options = pack(
            "priority/reserve",
            "options",
            size=validate.integer("size", size, 1, MAX_LEASED),
            lease=self.lease if lease is None else validate.milliseconds("lease", lease, 0.001),
            max_attempts=self.max_attempts,
            max_dead=self._max_dead,
            max_bytes=validate.max_bytes(max_bytes),
            window=self._ended_window,
        )
        by = holder_bytes(who)
        decode = partial(self._decode_events, as_text(name), as_text(by))
        args = (self.order, name, options, by, b"", *self._rates)
        return self._call("reserve", args, decode, lease_id=lease_id, id=name)

    def _decode_events(self, name: str, by: str, reply: list[Any]) -> list[Event[T]]:
        event, *rest = reply
        match as_text(event):
            case "batch":
                deadline, taken, rows, payloads, buried = rest
                lease = self._batch(name, deadline, by, taken, rows, payloads)
                return [*self._decode_buried(buried), lease]
            case "none":
                return [*self._decode_buried(rest[1]), Nothing(rest[0] / 1000)]
        return [Nothing(ended=True)]

    def _batch(
        self, name: str, deadline: int, by: str, taken: list[Any], rows: list[Any], payloads: list[Any]
    ) -> BatchData[T]:
        items = self._raw_items(taken, rows, payloads, 1)
        raw = [item.member for item in items]
        lease: BatchData[Any] = BatchData(
            name,
            None,
            raw,
            max((item.attempts for item in items), default=1),
            deadline / 1000,
            raw,
            [item.priority for item in items],
            [item.payload for item in items],
            [item.payload for item in items],
            reason=next((item.reason for item in items if item.reason), ""),
            holder=by,
        )
        # One that cannot be decoded is raised as it is.
        lease.items = validate.decode_all(self.codec, raw, lease)
        lease.payloads = [self._payload(item.payload, lease) for item in items]
        return lease

    def _payload(self, data: bytes | None, raw: Any) -> Any:
        return None if data is None else validate.decode(self.payload_codec, data, raw)

    def _decode_buried(self, members: list[Any]) -> list[Buried]:
        # What died is in the dead letters, whatever its bytes: a member that cannot be decoded is named by them.
        raw = [as_bytes(member) for member in members]
        found = []
        for member in raw:
            try:
                found.append(Buried(self.codec.decode(member)))
            except Exception:
                found.append(Buried(member))
        return found

    def reserve_flow(
        self,
        size: int = 1,
        *,
        max_bytes: int | None = None,
        timeout: float = 0.0,
        lease: float | None = None,
        lease_id: str | None = None,
        holder: str | None = None,
        ack: BatchData[T] | None = None,
    ) -> Flow[list[Event[T]]]:
        """Take the most urgent members as one batch, waiting for one."""
        call = self.reserve(size, max_bytes=max_bytes, lease=lease, lease_id=lease_id, holder=holder)
        return self._reserve_flow(call, timeout, ack)

    def reserve_many(
        self,
        count: int,
        size: int = 1,
        *,
        max_bytes: int | None = None,
        lease: float | None = None,
        lease_id: str | None = None,
        holder: str | None = None,
    ) -> Flow[list[Event[T]]]:
        """Take several batches in one round trip."""
        count = validate.integer("count", count, 1, MAX_MEMBERS)
        name = new_id(lease_id)
        calls = [self._reserve(size, max_bytes, lease, name + b":%d" % i, as_text(name), holder) for i in range(count)]
        return reserve_many(calls)

    def ack(self, batch: BatchData[T], delay: float = 0.0) -> Call[int]:
        """Settle a batch; members marked as failed are given back."""
        options = self._options("ack", delay=validate.milliseconds("delay", delay))
        failed = [value for place, why in sorted(batch.failed.items()) for value in (place, reason_bytes(why))]
        return self._settling("ack", batch, options, b"", *failed)

    def redrive(self, members: Sequence[T], token: str | None = None) -> Call[int]:
        """Let dead members be ready again."""
        return self._by_member("redrive", members, token)

    def discard(self, members: Sequence[T], token: str | None = None) -> Call[int]:
        """Throw dead members away."""
        return self._by_member("discard", members, token)

    def remove(self, members: Sequence[T], token: str | None = None) -> Call[int]:
        """Take members out, whatever their state."""
        return self._by_member("remove", members, token)

    def _by_member(self, verb: str, members: Sequence[T], token: str | None) -> Call[int]:
        most = self.limit(verb, "member")[1]
        if len(members) > most:
            raise InvalidArgument(f"{len(members)} members are given: give at most {most} a call")
        once = validate.once_id(token)
        args = (self._window, *validate.encode_all(self.codec, members, "member"))
        return self._call(verb, args, int, token=as_text(once), id=once)

    def _page(self, state: bytes, limit: int, after: bytes) -> Call[list[BatchData[T]]]:
        return self._call("batches", (self.order, limit, after), self._decode_page, writes=False, state=state)

    def _decode_page(self, reply: list[Any]) -> list[BatchData[T]]:
        return [
            self._batch(as_text(name), deadline, as_text(by), taken, rows, payloads)
            for name, deadline, by, taken, rows, payloads in reply
        ]

    def peek(self, count: int = 1, after: int = 0) -> Flow[list[Item[T]]]:
        """Show the most urgent members that are ready, from the one at place `after` on."""
        return self._members(
            b"ready", validate.integer("count", count, 1, 1_000_000), validate.integer("after", after, 0, 10**9 - 1)
        )

    def delayed(self, limit: int = 100, after: T | None = None) -> Flow[list[Item[T]]]:
        """Show delayed members, the first to be due first."""
        return self._members(b"delayed", validate.integer("limit", limit, 1, 1_000_000), 0, after)

    def dead(self, limit: int = 100, after: T | None = None) -> Flow[list[Item[T]]]:
        """Show dead members, the earliest first."""
        return self._members(b"dead", validate.integer("limit", limit, 1, 1_000_000), 0, after)

    def _members(self, state: bytes, limit: int, start: int, after: T | None = None) -> Flow[list[Item[T]]]:
        last = () if after is None else (validate.encode(self.codec, after, "member"),)
        found: list[Item[Any]] = []
        while len(found) < limit:
            args = (self.order, min(limit - len(found), _PAGES["members"]), start, *last)
            page = yield self._call(
                "members",
                args,
                lambda reply: self._raw_items(reply[0], reply[1], reply[2], 0, state),
                writes=False,
                state=state,
            )
            if not page:
                break
            found += page
            last, start = (() if state == b"ready" else (page[-1].member,)), start + len(page)
        return self._decoded(found)

    def _raw_items(
        self, flat: list[Any], rows: list[Any], payloads: list[Any], more: int, state: bytes = b"ready"
    ) -> list[Item[bytes]]:
        """Read members with what is known of each; `more` is added to the attempts that came before."""
        members, numbers = all_bytes(flat[::2]), flat[1::2]
        if not rows and not payloads:
            return [Item(member, self._priority(score), more) for member, score in zip(members, numbers, strict=True)]
        none = [None] * len(members)
        found = []
        for member, number, row, payload in zip(members, numbers, rows or none, payloads or none, strict=True):
            score, attempts, why = read_row(row)
            ready = state == b"ready"
            found.append(
                Item(
                    member,
                    self._priority(number if ready else score or 0),
                    attempts + more,
                    None if payload is None else as_bytes(payload),
                    why,
                    None if ready else float(number) / 1000,
                )
            )
        return found

    def _decode_items(self, flat: list[Any], rows: list[Any], payloads: list[Any], *, more: int) -> list[Item[T]]:
        return self._decoded(self._raw_items(flat, rows, payloads, more))

    def _decoded(self, items: list[Item[bytes]]) -> list[Item[T]]:
        """Decode members and payloads; one that cannot be decoded is named, beside all that was taken."""
        return [
            Item(
                validate.decode(self.codec, item.member, items),
                item.priority,
                item.attempts,
                self._payload(item.payload, items),
                item.reason,
                item.time,
            )
            for item in items
        ]

    def _priority(self, score: bytes | str | float) -> float:
        return priority_of(float(score), self.order)

    def state(self, member: T) -> Call[State]:
        """Say where one member is."""
        args = (validate.encode(self.codec, member, "member"),)
        return self._call("state", args, lambda reply: State(as_text(reply)), writes=False)

    def stats(self) -> Call[PriorityStats]:
        """Count."""
        return self._call("stats", (b"",), _decode_stats, writes=False)

    def purge(self) -> Flow[int]:
        """Throw away every member."""
        purged, more = 0, 1
        while more:
            more, members = yield self._call("purge", (_PAGES["purge"],), tuple)
            purged += members
        return purged


def read_row(row: bytes | str | None) -> tuple[float | None, int, str]:
    """Return the score, attempts and last reason that a member's row has; None, 0 and nothing without one."""
    score, attempts, reason = (*as_text(row or b"").split(" ", 2), "", "", "")[:3]
    return float(score) if score else None, int(attempts or 0), reason


def priority_of(score: float, kind: str) -> float:
    """Return the priority that a score stands for, in a queue of this order."""
    return int(score // PLACES) - 1024 if kind == "fifo" else score


def _decode_outcomes(reply: bytes | str) -> list[Pushed]:
    return [_LETTERS[letter] for letter in as_text(reply)]


def _decode_outcome(reply: bytes | str) -> Pushed:
    return _LETTERS[as_text(reply)]


def _decode_stats(reply: list[Any]) -> PriorityStats:
    ready, delayed, leased, dead, batches, due, expiry, done, failed, buried, trimmed, pause = reply
    until, text = read_pause(pause)
    return PriorityStats(
        waiting=ready,
        delayed=delayed,
        leased=leased,
        dead=dead,
        batches=batches,
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
