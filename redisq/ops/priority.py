"""The unique priority queue's operations. Keys and scripts: `lua/priority/`, `lua/README.md`."""

from __future__ import annotations

import math
import reprlib
import typing
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from itertools import count, islice
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, Literal

from ..codecs import TEXT, Codec
from ..errors import InvalidArgument
from ..scripts import load
from . import check
from .audit import Audit, AuditPage, conduct, page
from .lease import LEASE_MEMORY, Buried, Lease, Reserved, Settled, new_id, reserve, reserve_each, settle
from .limit import Rate, flatten
from .op import Arg, Call, Op, Talk, Wait, all_bytes, as_bytes, as_text

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    T = TypeVar("T", default=str)
else:
    T = typing.TypeVar("T")

Order = Literal["fifo", "score"]

MAX_MEMBERS = 1_000
PLACES = 2**42  # fifo: score = priority * PLACES + place, exact in a double for priorities -1024..1023
_STATS_PAGE = 500
_AUDIT_PAGE = 200


class Pushed(str, Enum):
    """Say what a push did."""

    ADDED = "added"
    """The member was not there, was dead, or is being worked on and will come once more."""
    RAISED = "raised"
    """It was there, and became more urgent: a lower score or an earlier time."""
    KEPT = "kept"
    """It was there, and at least as urgent."""


class State(str, Enum):
    """Say where a member is."""

    ABSENT = "absent"
    READY = "ready"
    DELAYED = "delayed"
    LEASED = "leased"
    DEAD = "dead"


@dataclass(frozen=True)
class Item(Generic[T]):
    """Hold one member of a priority queue."""

    member: T
    priority: float
    """As it was pushed, the lowest: an int in `fifo` order, a float in `score` order."""
    attempts: int
    """Times handed out: a popped member's includes this time, a peeked one's is what came before."""


@dataclass(frozen=True)
class PriorityStats:
    """Count what a priority queue holds."""

    waiting: int
    """Members that are ready."""
    delayed: int
    """Members that are ready later, or whose time has come but whom no call has woken yet."""
    leased: int
    """Members that are handed out."""
    dead: int
    """Members that have used up their attempts."""
    next_expiry: float | None
    """Unix time, by the server's clock, at which the first lease runs out; None if there is none."""


_LETTERS = {"A": Pushed.ADDED, "R": Pushed.RAISED, "K": Pushed.KEPT}


class PriorityOps(Generic[T]):
    """Build the calls of one priority queue, without sending them."""

    def __init__(
        self,
        name: str,
        *,
        order: Order = "fifo",
        codec: Codec[T] = TEXT,  # type: ignore[assignment]  # the default of T is str
        lease: float = 30.0,
        max_attempts: int | None = None,
        rates: Sequence[Rate] = (),
        dedup_window: float = 60.0,
        prefix: str = "redisq",
    ) -> None:
        if order not in ("fifo", "score"):
            raise InvalidArgument(f"order is {order!r}: give 'fifo' or 'score'")
        self.queue = check.key_prefix(prefix, name)
        self.order: Order = order
        self.codec = codec
        self._window = check.milliseconds("dedup_window", dedup_window, 0, 604_800)
        self._memory = self._window or LEASE_MEMORY  # of how a lease ended
        self._ready = self.queue + b"ready"
        self._later = self.queue + b"later"
        self._rows = self.queue + b"rows"
        self._meta = self.queue + b"meta"
        self._grants = self.queue + b"grants"
        self._wake = self.queue + b"wake"
        self._layout = self.queue + b"layout"
        self._guard = self.queue + b"guard"
        self.lease = check.milliseconds("lease", lease, 0.001)
        self._max_attempts = check.attempts(max_attempts)
        self._rates = flatten(rates)

    def _once(self, once: bytes) -> bytes:
        return self.queue + b"once:" + once

    def _score(self, priority: Any) -> bytes:
        value = check.number("priority", priority)
        if self.order == "fifo" and not (value.is_integer() and -1024 <= value <= 1023):
            raise InvalidArgument(
                f"priority is {priority!r}: in fifo order give a whole number from -1024 to 1023, "
                "or make the queue with order='score'"
            )
        return b"%d" % int(value) if self.order == "fifo" else repr(value).encode()

    def push(self, member: T, priority: float = 0, *, delay: float = 0.0, token: str | None = None) -> Op[Pushed]:
        """Add one member."""
        pairs = (self._score(priority), check.encode(self.codec, member, "member"))
        once = check.once_id(token)
        return self._push(pairs, delay, once, as_text(once), _decode_outcome)

    def _push(self, pairs: Iterable[bytes], delay: float, once: bytes, token: str, decode: Any) -> Op[Any]:
        keys = (self._ready, self._later, self._rows, self._meta, self._once(once), self._wake, self._layout)
        args = (self.order, check.milliseconds("delay", delay), self._window, b"", *pairs)
        return Op(load("priority/push"), keys, args, decode, token=token)

    def push_many(
        self, members: Mapping[T, float] | Iterable[tuple[T, float]], *, delay: float = 0.0, token: str | None = None
    ) -> Talk[Counter[Pushed]]:
        """Add any number of members in pieces, each with its own id derived from one token."""
        check.milliseconds("delay", delay)
        once = check.once_id(token)
        rest = iter(members.items() if isinstance(members, Mapping) else members)
        outcomes: Counter[Pushed] = Counter()
        for piece in count():
            start = piece * MAX_MEMBERS
            pairs: list[bytes] = []
            for i, pair in enumerate(islice(rest, MAX_MEMBERS), start):
                if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                    raise InvalidArgument(
                        f"number {i} is {reprlib.repr(pair)}: give a mapping, or pairs (member, priority)"
                    )
                where = f"member number {i} ({start} before it are pushed)"
                pairs += (self._score(pair[1]), check.encode(self.codec, pair[0], where))
            if not pairs:
                break
            op = self._push(pairs, delay, once + b":%d" % piece, as_text(once), _decode_outcomes)
            outcomes.update((yield op))
        return outcomes

    def pop_once(self) -> Op[Item[T] | None]:
        """Take the most urgent member, if one is ready."""
        return self._pop(1, lambda reply: next(iter(self._decode_items(reply[2])), None))

    def pop(self, timeout: float = 0.0) -> Call[Item[T] | None]:
        """Take the most urgent member, waiting for it."""
        return self._pop_waiting(timeout) if check.milliseconds("timeout", timeout) else self.pop_once()

    def _pop_waiting(self, timeout: float) -> Talk[Item[T] | None]:
        end = monotonic() + timeout
        while True:
            retry, items = yield self._pop(1, lambda reply: (reply[0], self._decode_items(reply[2])))
            left = end - monotonic()
            if items or left <= 0:
                return items[0] if items else None
            if retry != 0:
                yield Wait(self._wake, left if retry < 0 else min(left, retry / 1000))

    def pop_many(self, count: int) -> Op[list[Item[T]]]:
        """Take the most urgent members."""
        check.whole("count", count, 1, MAX_MEMBERS)
        return self._pop(count, lambda reply: self._decode_items(reply[2]))

    def _pop(self, count: int, decode: Any) -> Op[Any]:
        keys = (self._ready, self._later, self._rows, self._meta, self._wake, self._layout, self._guard)
        return Op(load("priority/pop"), keys, (self.order, count, self._max_attempts, b""), decode)

    def reserve_once(
        self, size: int = 1, *, lease: float | None = None, lease_id: str | None = None
    ) -> Op[Reserved[T]]:
        """Take the most urgent members as one batch, if any is ready."""
        name = new_id(lease_id)
        return self._reserve(size, lease, name, as_text(name))

    def _reserve(self, size: int, lease: float | None, name: bytes, lease_id: str) -> Op[Reserved[T]]:
        term = self.lease if lease is None else check.milliseconds("lease", lease, 0.001)
        keys = (
            self._ready,
            self._later,
            self._rows,
            self._meta,
            self._held(name),
            self._grants,
            self._wake,
            self._layout,
        )
        args: tuple[Arg, ...] = (self.order, name, check.whole("size", size, 1, MAX_MEMBERS), term)
        args += (self._max_attempts, self._memory, b"", *self._rates)
        decode = partial(self._decode_reserved, as_text(name))
        return Op(load("priority/reserve"), keys, args, decode, lease_id=lease_id)

    def _held(self, lease: bytes) -> bytes:
        return self.queue + b"lease:" + lease

    def _decode_reserved(self, name: str, reply: list[Any]) -> Reserved[T]:
        retry, buried, deadline, triples = reply
        named = self._decode_buried(buried)
        if not triples:
            return Reserved(None, None if retry < 0 else retry / 1000, named)
        raw = all_bytes(triples[::3])
        priorities = [self._priority(score) for score in triples[1::3]]
        lease: Lease[Any] = Lease(name, None, raw, max(triples[2::3]), deadline / 1000, raw, priorities)
        lease.items = check.decode_all(self.codec, raw, lease)  # one that cannot be decoded is raised as it is
        return Reserved(lease, 0.0, named)

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

    def reserve(
        self, size: int = 1, *, timeout: float = 0.0, lease: float | None = None, lease_id: str | None = None
    ) -> Call[Reserved[T]]:
        """Take the most urgent members as one batch, waiting for one."""
        op = self.reserve_once(size, lease=lease, lease_id=lease_id)
        return reserve(op, self._wake, timeout) if check.milliseconds("timeout", timeout) else op

    def waiting(self, retry: float | None) -> Wait:
        """Say how to wait after an empty reserve: for a push, or `retry` seconds."""
        return Wait(self._wake, math.inf if retry is None else retry)

    def reserve_many(
        self, count: int, size: int = 1, *, lease: float | None = None, lease_id: str | None = None
    ) -> Talk[list[Reserved[T]]]:
        """Take several batches in one round trip."""
        check.whole("count", count, 1, MAX_MEMBERS)
        name = new_id(lease_id)
        ops = [self._reserve(size, lease, name + b":%d" % i, as_text(name)) for i in range(count)]
        return (yield from reserve_each(ops))

    def ack(self, leases: Sequence[Lease[T]], delay: float = 0.0) -> Talk[Settled]:
        """Settle batches; members marked as failed are given back."""
        check.milliseconds("delay", delay)

        def calls(lease: Lease[T]) -> Iterator[Op[Any]]:
            name = check.text("lease id", lease.id)
            done = [member for i, member in enumerate(lease.raw) if i not in lease.failed]
            if done:
                keys = (self._ready, self._later, self._rows, self._held(name), self._wake, self._layout, self._guard)
                yield Op(load("priority/ack"), keys, (name, self._memory, b"", *done), lambda reply: (int(reply), []))
            if lease.failed:
                # What is given back does not count as done; who dies of it is named.
                given_back = self._release(lease, [lease.raw[i] for i in sorted(lease.failed)], delay, True)
                yield replace(given_back, decode=lambda reply: (0, self._decode_buried(reply[1:])))

        results = yield from settle(leases, calls)
        buried = [one for _, (_, dead) in results for one in dead]
        return Settled(sum(done for _, (done, _) in results), buried)

    def release(self, leases: Sequence[Lease[T]], delay: float = 0.0, *, counted: bool = True) -> Talk[Settled]:
        """Give batches back; not `counted`: nobody began on them. Returns how many, and who died of it."""
        check.milliseconds("delay", delay)

        def calls(lease: Lease[T]) -> Iterator[Op[Any]]:
            yield self._release(lease, lease.raw, delay, counted)

        results = yield from settle(leases, calls)
        return Settled(sum(back for _, (back, _) in results), [one for _, (_, dead) in results for one in dead])

    def _release(self, lease: Lease[T], members: list[bytes], delay: float, counted: bool) -> Op[Any]:
        name = check.text("lease id", lease.id)
        keys = (self._ready, self._later, self._rows, self._held(name), self._wake, self._layout, self._guard)
        wait, attempt = check.milliseconds("delay", delay), b"count" if counted else b"forget"
        args: tuple[Arg, ...] = (name, self._max_attempts, wait, attempt, self._memory, b"", *members)
        return Op(load("priority/release"), keys, args, lambda reply: (reply[0], self._decode_buried(reply[1:])))

    def extend(self, leases: Sequence[Lease[T]], lease: float | None = None) -> Talk[None]:
        """Keep batches longer."""
        term = self.lease if lease is None else check.milliseconds("lease", lease, 0.001)

        def calls(held: Lease[T]) -> Iterator[Op[Any]]:
            name = check.text("lease id", held.id)
            args: tuple[Arg, ...] = (name, term, self._memory, b"", *held.raw)
            yield Op(load("priority/extend"), (self._later, self._rows, self._held(name), self._layout), args, tuple)

        for held, (_, deadline) in (yield from settle(leases, calls, ends=False)):
            held.deadline = deadline / 1000

    def dead(self, limit: int = 100, after: T | None = None) -> Op[list[Item[T]]]:
        """Show dead members, in byte order."""
        last = b"" if after is None else check.encode(self.codec, after, "member")
        keys = (self._ready, self._later, self._rows, self._meta, self._layout)
        args = (self.order, check.whole("limit", limit, 1, MAX_MEMBERS), last)
        return Op(load("priority/dead"), keys, args, self._decode_items, writes=False)

    def redrive(self, members: Sequence[T], token: str | None = None) -> Op[int]:
        """Give dead members another life."""
        once = check.once_id(token)
        keys = (self._ready, self._later, self._rows, self._once(once), self._wake, self._layout)
        args: tuple[Arg, ...] = (self._window, *self._encode_all(members))
        return Op(load("priority/redrive"), keys, args, int, token=as_text(once))

    def discard(self, members: Sequence[T], token: str | None = None) -> Op[int]:
        """Throw dead members away."""
        once = check.once_id(token)
        keys = (self._later, self._rows, self._once(once), self._layout)
        args: tuple[Arg, ...] = (self._window, *self._encode_all(members))
        return Op(load("priority/discard"), keys, args, int, token=as_text(once))

    def _encode_all(self, members: Sequence[T]) -> list[bytes]:
        if len(members) > MAX_MEMBERS:
            raise InvalidArgument(f"{len(members)} members are given: give at most {MAX_MEMBERS} a call")
        return check.encode_all(self.codec, members, "member")

    def peek(self, count: int = 1) -> Op[list[Item[T]]]:
        """Show the most urgent members that are ready."""
        args = (self.order, check.whole("count", count, 1, MAX_MEMBERS))
        keys = (self._ready, self._rows, self._meta, self._layout)
        return Op(load("priority/peek"), keys, args, self._decode_items, writes=False)

    def _decode_items(self, reply: list[Any]) -> list[Item[T]]:
        raw, priorities, attempts = all_bytes(reply[::3]), list(map(self._priority, reply[1::3])), reply[2::3]
        try:
            return list(map(Item, map(self.codec.decode, raw), priorities, attempts))
        except Exception:  # one cannot be decoded: find and name it, beside all that was taken
            undecoded = list(map(Item, raw, priorities, attempts))
            return [Item(check.decode(self.codec, i.member, undecoded), i.priority, i.attempts) for i in undecoded]

    def _priority(self, score: bytes | str) -> float:
        return int(float(score) // PLACES) if self.order == "fifo" else float(score)

    def state(self, member: T) -> Op[State]:
        """Say where one member is."""
        keys = (self._ready, self._later, self._rows, self._layout)
        args = (check.encode(self.codec, member, "member"),)
        return Op(load("priority/state"), keys, args, lambda reply: State(as_text(reply)), writes=False)

    def remove(self, members: Sequence[T], token: str | None = None) -> Op[int]:
        """Take members out, whatever their state."""
        once = check.once_id(token)
        keys = (self._ready, self._later, self._rows, self._once(once), self._layout)
        args: tuple[Arg, ...] = (self._window, *self._encode_all(members))
        return Op(load("priority/remove"), keys, args, int, token=as_text(once))

    def stats(self) -> Talk[PriorityStats]:
        """Count, a page of parked members at a time."""
        start, leased, expiry = 0, 0, -1
        while True:
            keys = (self._ready, self._later, self._rows, self._layout)
            reply = yield Op(load("priority/stats"), keys, (start, _STATS_PAGE), tuple, writes=False)
            start, counted, first, ready, parked, dead = reply
            leased += counted
            if expiry < 0:
                expiry = first
            if start < 0:
                delayed = max(0, parked - leased)  # pages are not one moment: a member may have moved between two
                return PriorityStats(ready, delayed, leased, dead, expiry / 1000 if expiry >= 0 else None)

    def audit(self, repair: bool = False) -> Talk[Audit]:
        """Compare the keys with each other, a page at a time."""
        verb = b"repair" if repair else b"report"

        def step(cursor: str) -> Op[AuditPage]:
            keys = (self._ready, self._later, self._rows, self._meta, self._guard, self._layout)
            return Op(load("priority/audit"), keys, (cursor, _AUDIT_PAGE, verb), page, writes=repair)

        return conduct(step, "keys:0", repair)

    def purge(self) -> Talk[int]:
        """Throw away every member."""
        total, more = 0, 1
        while more:
            keys = (self._ready, self._later, self._rows, self._meta, self._wake, self._layout)
            more, count = yield Op(load("priority/purge"), keys, (), tuple)
            total += count
        return total


def _decode_outcomes(reply: bytes | str) -> list[Pushed]:
    return [_LETTERS[letter] for letter in as_text(reply)]


def _decode_outcome(reply: bytes | str) -> Pushed:
    return _LETTERS[as_text(reply)]
