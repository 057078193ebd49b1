"""What a reserve hands out, and the order of calls in which a batch is waited for and settled."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Generic, NamedTuple, TypeVar

from ..codecs import plain
from ..errors import CodecError, InvalidArgument, LeaseLost
from . import check
from .op import Many, Op, Talk, Wait

T = TypeVar("T")

LEASE_MEMORY = 60_000  # ms, where dedup_window is 0: that switches off what is remembered of pushes alone


@dataclass(eq=False)
class Lease(Generic[T]):
    """What was handed out: items of one group, or members of a priority queue."""

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
                raise InvalidArgument(f"{reprlib.repr(item)} is not in the batch, or has been marked as often as it is")
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
        places = [check.whole("index", index, 0, len(self.items) - 1) for index in indexes]
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
    """What went to the dead letters: a batch by its id, with its group and attempts, or a member by itself."""

    name: Any
    group: str | None = None
    attempts: int | None = None
    reason: str = ""


@dataclass(frozen=True)
class Reserved(Generic[T]):
    """The reply of one reserve."""

    lease: Lease[T] | None
    retry: float | None
    """Seconds until there may be something, when there is nothing."""
    buried: list[Buried]
    ended: bool = False
    """Whether the lease of that id is over, so that nothing will come under it."""


def new_id(lease_id: Any) -> bytes:
    """Return the lease's id: the caller's, or a new one."""
    return check.new_id() if lease_id is None else check.text("lease_id", lease_id)


def reserve(op: Op[Reserved[T]], wake: bytes, timeout: float) -> Talk[Reserved[T]]:
    """Ask until there is something or the time is over; all asks have one id, so a lost reply costs nothing.

    Between two asks it waits for a wake-up, for the time that the last reply named, or for the timeout. A reply that
    names 0, as after a burial, is followed by another ask at once, even when there is no time to wait.
    """
    end = monotonic() + timeout
    buried: list[Buried] = []
    while True:
        reserved: Reserved[T] = yield op
        buried += reserved.buried
        left = end - monotonic()
        if reserved.lease or reserved.ended or (left <= 0 and reserved.retry != 0):
            return Reserved(reserved.lease, reserved.retry, buried, reserved.ended)
        if reserved.retry != 0:
            yield Wait(wake, left if reserved.retry is None else min(left, reserved.retry))


def reserve_each(ops: list[Op[Reserved[T]]]) -> Talk[list[Reserved[T]]]:
    """Ask for several batches in one round trip; one that cannot be decoded is raised when all were asked for."""
    answers: list[Any] = yield Many(list[Op[Any]](ops))
    for answer in answers:
        if isinstance(answer, CodecError):
            raise answer
    return answers


def settle(
    leases: Sequence[Lease[T]], call: Callable[[Lease[T]], Op[int]], *, ends: bool = True
) -> Talk[list[tuple[Lease[T], int]]]:
    """Send each batch's call, all in one round trip; try all, then raise `LeaseLost` for those that were not held.

    Returns pairs of batch and answer. `ends`: what was held is settled by it.
    """
    leases = list({lease.id: lease for lease in leases}.values())  # one that is given twice counts once
    if not leases:
        return []
    answers: list[Any] = yield Many([call(lease) for lease in leases])
    pairs = list(zip(leases, answers, strict=True))
    for lease, answer in pairs:
        lease.lost = lease.lost or isinstance(answer, LeaseLost)
        lease.settled = lease.settled or ends or lease.lost
    lost = [lease.id for lease, answer in pairs if isinstance(answer, LeaseLost)]
    if lost:
        raise LeaseLost(f"no longer held: {', '.join(lost)}; handed out again, buried, settled or purged", lost)
    return pairs


def total(results: Talk[list[tuple[Lease[T], int]]]) -> Talk[int]:
    """Return the sum of the answers."""
    return sum(count for _, count in (yield from results))
