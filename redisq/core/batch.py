"""A batch that was handed out, and the flows in which batches are reserved and settled."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Generic, NamedTuple, TypeVar

from . import validate
from .calls import Call
from .codecs import plain
from .errors import CodecError, InvalidArgument, LeaseLost
from .flow import Block, Flow, Pipeline

T = TypeVar("T")

ENDED_WINDOW = 60_000
"""ms for which the end of a lease is remembered where dedup_window is 0: that switches off pushes alone"""


@dataclass(eq=False)
class BatchData(Generic[T]):
    """A batch that was handed out: items of one group, or members of a priority queue."""

    id: str
    """The lease's id; each hand-over has a new one."""
    group: str | None
    """The items' group; None for members of a priority queue."""
    items: list[T]
    """Oldest first; members of a priority queue lowest score first."""
    attempts: int
    """Times handed out, this time included; of members the highest."""
    deadline: float
    """Unix time in seconds, by the server's clock, at which the lease runs out; in a listing its due time or death."""
    raw: list[bytes] = field(repr=False)
    """The items as they are stored."""
    priorities: list[float] | None = None
    """The members' priorities, in the order of `items`; None for items of a group."""
    payloads: list[Any] | None = field(default=None, repr=False)
    """The members' payloads, None for one that has none; None for items of a group."""
    raw_payloads: list[bytes | None] | None = field(default=None, repr=False)
    """The payloads as they are stored."""
    reason: str = ""
    """Why it came back last time, of members the first that has one; empty the first time."""
    holder: str = ""
    """Who holds it, or held it last."""
    failed: dict[int, str] = field(default_factory=dict, repr=False)
    """Places of the items that were marked as failed, and why."""
    settled: bool = field(default=False, repr=False)
    """Whether it was acked, released, buried or found lost through this object."""
    lost: bool = field(default=False, repr=False)
    """Whether the lease is known to be lost."""
    _places: dict[Any, list[int]] = field(default_factory=dict, init=False, repr=False)
    """item -> where it is and not marked, the first place last: so that marking one by one takes linear time"""

    def fail(self, *items: T, reason: str | None = None) -> None:
        """Mark items as failed: when the batch is acked they are given back, and the others are done.

        Each is matched to one equal item of the same type that is not marked yet. `reason` is kept with them. Raises
        `InvalidArgument` for one that is not there.
        """
        if not self._places:
            for place in range(len(self.items) - 1, -1, -1):
                self._places.setdefault(_sameness(self.items[place]), []).append(place)
        found: list[tuple[list[int], int]] = []
        for item in items:
            unmarked = self._same(item)
            while unmarked and unmarked[-1] in self.failed:  # by `fail_at`
                unmarked.pop()
            if not unmarked:
                for places, place in reversed(found):  # nothing is marked
                    places.append(place)
                raise InvalidArgument(
                    f"{reprlib.repr(item)} is not in the batch, or has been marked as often as it occurs"
                )
            found.append((unmarked, unmarked.pop()))
        self.failed.update(dict.fromkeys((place for _, place in found), reason or ""))

    def _same(self, item: T) -> list[int]:
        """Return where an item is, of the places that are not marked."""
        key = _sameness(item)
        found = self._places.get(key, [])
        if not found and isinstance(key, _Unhashable):  # an equal one may look different
            found = next((places for one, places in self._places.items() if places and key == one), [])
        return found

    def fail_at(self, *indexes: int, reason: str | None = None) -> None:
        """Mark the items at these places, from 0, as failed, as `fail` does.

        Raises `InvalidArgument` for a place that the batch does not have, before any is marked.
        """
        places = [validate.integer("index", index, 0, len(self.items) - 1) for index in indexes]
        self.failed.update(dict.fromkeys(places, reason or ""))


def _sameness(item: Any) -> Any:
    """Return what two items have in common exactly when they are equal and of one type: `True` is not `1`.

    A scalar of numpy, or a member of an `IntEnum`, counts as the number or text that it is.
    """
    if hasattr(item, "dtype") and hasattr(item, "tolist"):
        item = item.tolist() if getattr(item, "shape", None) else plain(item)
    if isinstance(item, str):
        return str, str.__str__(item)  # an enum's own __str__ gives its name
    kind: Any
    for kind in (bool, int, float, bytes):
        if isinstance(item, kind):
            return kind, kind(item)
    if isinstance(item, dict):
        return dict, frozenset((_sameness(key), _sameness(value)) for key, value in item.items())
    if isinstance(item, (list, tuple)):
        return type(item), tuple(map(_sameness, item))
    if isinstance(item, (set, frozenset)):
        return type(item), frozenset(map(_sameness, item))
    try:
        hash(item)
    except TypeError:
        return _Unhashable(item)
    return type(item), item


class _Unhashable:
    """An item without a hash: it is looked up by how it is shown, and compared by its own equality."""

    def __init__(self, item: Any) -> None:
        self.item = item
        self.shown = repr(item)

    def __hash__(self) -> int:
        return hash(self.shown)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Unhashable) or type(self.item) is not type(other.item):
            return False
        try:
            return self.item is other.item or bool(self.item == other.item)
        except Exception:  # what cannot say so is equal to nothing but itself
            return False


class Buried(NamedTuple):
    """What became a dead letter: a batch by its id, with its group and attempts, or a member by itself."""

    name: Any
    """The batch's id, or the member."""
    group: str | None = None
    """The batch's group; None for a member."""
    attempts: int | None = None
    """How often it was handed out; None if it is not known."""
    reason: str = ""
    """Why it failed last, or was buried."""


@dataclass(frozen=True)
class Nothing:
    """The answer of a reserve that hands nothing out."""

    retry: float | None = None
    """Seconds until there may be something; None: as soon as something is pushed."""
    ended: bool = False
    """Whether the lease of that id is over, so that nothing will come under it."""


Event = BatchData[T] | Buried | Nothing
"""What a reserve tells: what it buried, then the batch that it hands out, or that there is nothing."""


def batch_of(events: Sequence[Event[T]]) -> BatchData[T] | None:
    """Return the batch that a reserve handed out, or None."""
    return next((event for event in events if isinstance(event, BatchData)), None)


def buried_in(events: Iterable[Event[Any]]) -> list[Buried]:
    """Return what a reserve buried."""
    return [event for event in events if isinstance(event, Buried)]


def new_id(lease_id: Any) -> bytes:
    """Return the lease's id: the caller's, or a new one."""
    return validate.new_id() if lease_id is None else validate.text("lease_id", lease_id)


def reserve_flow(
    call: Call[list[Event[T]]], wake: bytes, timeout: float, first: Flow[list[Event[T]]] | None = None
) -> Flow[list[Event[T]]]:
    """Ask until there is something or the time is over; all calls have one lease id, so a lost reply costs nothing.

    Between two calls it waits for a wake-up, for the time that the last reply named, or for the timeout. A burial, and
    a reply that names 0, is followed by another call at once, even when there is no time to wait. `first` makes the
    first call, behind the ack of another batch.
    """
    end = monotonic() + timeout
    buried: list[Event[T]] = []
    if first is not None:
        events = yield from first
        buried += buried_in(events)
        if isinstance(events[-1], BatchData):
            return [*buried, events[-1]]
        # Nothing, perhaps because a server that did not know the script of the ack has done it after the reserve: an
        # ordered group was busy then. So it is asked once more.
    while True:
        events = yield call
        last = events[-1]
        buried += buried_in(events)
        left = end - monotonic()
        if isinstance(last, BatchData):
            return [*buried, last]
        if isinstance(last, Nothing) and (last.ended or (left <= 0 and last.retry != 0)):
            return [*buried, last]
        if isinstance(last, Nothing) and last.retry != 0:
            yield Block(wake, left if last.retry is None else min(left, last.retry))


def reserve_many(calls: list[Call[list[Event[T]]]]) -> Flow[list[Event[T]]]:
    """Reserve several batches in one round trip; one that cannot be decoded is raised when all were asked for."""
    answers: list[Any] = yield Pipeline(list[Call[Any]](calls))
    for answer in answers:
        if isinstance(answer, CodecError):
            raise answer
    return [event for events in answers for event in events]


def record(batch: BatchData[Any], result: object, *, ends: bool = True) -> None:
    """Note on a batch what became of a call about it; `ends`: what was held is settled by it."""
    batch.lost = batch.lost or isinstance(result, LeaseLost)
    batch.settled = batch.settled or ends or batch.lost


def settle(
    batches: Sequence[BatchData[T]], make: Callable[[BatchData[T]], Call[int]], *, ends: bool = True
) -> Flow[list[tuple[BatchData[T], int]]]:
    """Send each batch's call, all in one round trip; try all, then raise `LeaseLost` for those that were not held.

    Returns pairs of batch and result.
    """
    for batch in batches:
        check_batch(batch)
    batches = list({batch.id: batch for batch in batches}.values())  # one that is given twice counts once
    if not batches:
        return []
    results: list[Any] = yield Pipeline([make(batch) for batch in batches])
    pairs = list(zip(batches, results, strict=True))
    for batch, result in pairs:
        record(batch, result, ends=ends)
    if lost := [batch.id for batch, result in pairs if isinstance(result, LeaseLost)]:
        raise no_longer_held(lost)
    return pairs


def check_batch(batch: Any) -> None:
    """Refuse what is not a batch, such as its id or an item of it."""
    if not isinstance(batch, BatchData):
        raise InvalidArgument(f"{reprlib.repr(batch)} is not a batch: give one that reserve has returned")


def no_longer_held(ids: Sequence[str]) -> LeaseLost:
    """Return the error that names leases that were lost."""
    return LeaseLost(f"no longer held: {', '.join(ids)}; handed out again, buried, settled or purged", list(ids))


def total(settled: Flow[list[tuple[BatchData[T], int]]]) -> Flow[int]:
    """Return the sum of the results."""
    return sum(count for _, count in (yield from settled))
