"""The unique priority queue's operations. Keys and scripts: `lua/priority/`, `lua/README.md`."""

from __future__ import annotations

import reprlib
import typing
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import count, islice
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple

from ..codecs import TEXT, Codec
from ..errors import InvalidArgument
from ..scripts import load
from . import check
from .audit import Audit, AuditPage, conduct, page
from .op import Op, Talk, as_bytes, as_text

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    T = TypeVar("T", default=str)
else:
    T = typing.TypeVar("T")

Order = Literal["fifo", "score"]

MAX_MEMBERS = 1_000
PLACES = 2**42  # fifo: score = priority * PLACES + place, exact in a double for priorities -1024..1023
_STATS_PAGE = 500
_AUDIT_PAGE = 500


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


class Item(NamedTuple, Generic[T]):
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
        dedup_window: float = 60.0,
        prefix: str = "redisq",
    ) -> None:
        if order not in ("fifo", "score"):
            raise InvalidArgument(f"order is {order!r}: give 'fifo' or 'score'")
        self.queue = check.key_prefix(prefix, name)
        self.order: Order = order
        self.codec = codec
        self._window = check.milliseconds("dedup_window", dedup_window, 0, 604_800)
        self._ready = self.queue + b"ready"
        self._later = self.queue + b"later"
        self._rows = self.queue + b"rows"
        self._meta = self.queue + b"meta"

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
        return self._push(pairs, delay, check.once_id(token), _decode_outcome)

    def _push(self, pairs: Iterable[bytes], delay: float, once: bytes, decode: Any) -> Op[Any]:
        keys = (self._ready, self._later, self._rows, self._meta, self._once(once))
        args = (self.order, check.milliseconds("delay", delay), self._window, b"", *pairs)
        return Op(load("priority/push"), keys, args, decode)

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
            outcomes.update((yield self._push(pairs, delay, once + b":%d" % piece, _decode_outcomes)))
        return outcomes

    def pop(self) -> Op[Item[T] | None]:
        """Take the most urgent member."""
        return self._pop(1, self._decode_first)

    def pop_many(self, count: int) -> Op[list[Item[T]]]:
        """Take the most urgent members."""
        return self._pop(check.whole("count", count, 1, MAX_MEMBERS), self._decode_items)

    def _pop(self, count: int, decode: Any) -> Op[Any]:
        keys = (self._ready, self._later, self._rows, self._meta)
        return Op(load("priority/pop"), keys, (self.order, count, 0, b""), decode)

    def peek(self, count: int = 1) -> Op[list[Item[T]]]:
        """Show the most urgent members that are ready."""
        args = (self.order, check.whole("count", count, 1, MAX_MEMBERS))
        return Op(load("priority/peek"), (self._ready, self._rows, self._meta), args, self._decode_items)

    def _decode_items(self, reply: list[Any]) -> list[Item[T]]:
        triples = zip(reply[::3], reply[1::3], reply[2::3], strict=True)
        raw = [Item(as_bytes(member), self._priority(score), attempts) for member, score, attempts in triples]
        return [Item(check.decode(self.codec, m, raw), priority, attempts) for m, priority, attempts in raw]

    def _decode_first(self, reply: list[Any]) -> Item[T] | None:
        items = self._decode_items(reply)
        return items[0] if items else None

    def _priority(self, score: bytes | str) -> float:
        return int(float(score) // PLACES) if self.order == "fifo" else float(score)

    def state(self, member: T) -> Op[State]:
        """Say where one member is."""
        keys = (self._ready, self._later, self._rows)
        args = (check.encode(self.codec, member, "member"),)
        return Op(load("priority/state"), keys, args, lambda reply: State(as_text(reply)))

    def remove(self, members: Iterable[T], token: str | None = None) -> Op[int]:
        """Take members out, whatever their state."""
        encoded = [check.encode(self.codec, member, "member") for member in members]
        if len(encoded) > MAX_MEMBERS:
            raise InvalidArgument(f"{len(encoded)} members are given: remove takes at most {MAX_MEMBERS} a call")
        keys = (self._ready, self._later, self._rows, self._once(check.once_id(token)))
        return Op(load("priority/remove"), keys, (self._window, *encoded), int)

    def stats(self) -> Talk[PriorityStats]:
        """Count, a page of parked members at a time."""
        start, leased, expiry = 0, 0, -1
        while True:
            keys = (self._ready, self._later, self._rows)
            reply = yield Op(load("priority/stats"), keys, (start, _STATS_PAGE), tuple)
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
            keys = (self._ready, self._later, self._rows, self._meta)
            return Op(load("priority/audit"), keys, (cursor, _AUDIT_PAGE, verb), page)

        return conduct(step, "ready:0", repair)

    def purge(self) -> Talk[int]:
        """Throw away every member."""
        total, more = 0, 1
        while more:
            keys = (self._ready, self._later, self._rows, self._meta)
            more, count = yield Op(load("priority/purge"), keys, (), tuple)
            total += count
        return total


def _decode_outcomes(reply: bytes | str) -> list[Pushed]:
    return [_LETTERS[letter] for letter in as_text(reply)]


def _decode_outcome(reply: bytes | str) -> Pushed:
    return _LETTERS[as_text(reply)]
