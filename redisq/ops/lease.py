"""What a reserve hands out, and the order of calls in which a batch is waited for and settled."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Generic, NamedTuple, TypeVar

from ..errors import CodecError, InvalidArgument, LeaseLost
from . import check
from .op import Many, Op, Talk, Wait

T = TypeVar("T")

LEASE_MEMORY = 60_000  # ms, where dedup_window is 0: that switches off what is remembered of pushes alone


@dataclass(eq=False)
class Lease(Generic[T]):
    """Hold what was handed out: items of one group, or members of a priority queue."""

    id: str
    """The lease's id; each hand-over has a new one."""
    group: str | None
    """The items' group; None for members of a priority queue."""
    items: list[T]
    """Oldest first; members of a priority queue lowest score first."""
    attempts: int
    """Times handed out, this time included; of members the highest."""
    deadline: float
    """Unix time in seconds, by the server's clock, at which the lease runs out; of a dead letter, when it died."""
    raw: list[bytes] = field(repr=False)
    """The items as they are stored."""
    priorities: list[float] | None = None
    """The members' priorities, in the order of `items`; None for items of a group."""
    failed: set[int] = field(default_factory=set, repr=False)
    """Places of the items that were marked with `fail`."""
    settled: bool = field(default=False, repr=False)
    """Whether it was acked, released or found lost through this object."""

    def fail(self, *items: T) -> None:
        """Mark items as failed: when the batch is acked they are given back, and the others are done.

        Each is matched to one equal item that is not marked yet. Raises `InvalidArgument` for one that is not there.
        """
        places = set(self.failed)
        for item in items:
            place = next((i for i, mine in enumerate(self.items) if i not in places and mine == item), None)
            if place is None:
                raise InvalidArgument(f"{reprlib.repr(item)} is not in the batch, or has been marked as often as it is")
            places.add(place)
        self.failed = places


class Buried(NamedTuple):
    """Name what went to the dead letters: a batch by its id, with its group and attempts, or a member by itself."""

    name: Any
    group: str | None = None
    attempts: int | None = None


class Settled(NamedTuple):
    """Say how many items or members were acked, or given back, and who died of being given back."""

    items: int
    buried: list[Buried]


def items(settled: Settled) -> int:
    """Read what an ack or a release returns."""
    return settled.items


@dataclass(frozen=True)
class Reserved(Generic[T]):
    """Hold the reply of one reserve."""

    lease: Lease[T] | None
    retry: float | None
    """Seconds until there may be something, when there is nothing; None: when something is pushed."""
    buried: list[Buried]


def new_id(lease_id: Any) -> bytes:
    """Return the lease's id: the caller's, or a new one."""
    return check.new_id() if lease_id is None else check.text("lease_id", lease_id)


def reserve(op: Op[Reserved[T]], wake: bytes, timeout: float) -> Talk[Reserved[T]]:
    """Ask until there is something or the time is over; all asks have one id, so a lost reply costs nothing.

    Between two asks it waits for a push, for the time that the last reply named, or for the timeout.
    """
    end = monotonic() + timeout
    buried: list[Buried] = []
    while True:
        reserved: Reserved[T] = yield op
        buried += reserved.buried
        left = end - monotonic()
        if reserved.lease or left <= 0:
            return Reserved(reserved.lease, reserved.retry, buried)
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
    leases: Sequence[Lease[T]], calls: Callable[[Lease[T]], Iterable[Op[Any]]], *, ends: bool = True
) -> Talk[list[Any]]:
    """Send each batch's calls, all in one round trip; try all, then raise `LeaseLost` for those that were not held.

    Returns pairs of batch and answer. `ends`: who was held is settled by it.
    """
    leases = list({lease.id: lease for lease in leases}.values())  # one that is given twice counts once
    made = [(lease, op) for lease in leases for op in calls(lease)]
    if not made:
        return []
    answers: list[Any] = yield Many([op for _, op in made])
    pairs = zip((lease for lease, _ in made), answers, strict=True)
    results = [(lease, answer) for lease, answer in pairs if not isinstance(answer, LeaseLost)]
    # Of a priority queue's batch a part may be held; it is lost when no call found anything of it.
    held = {lease.id for lease, _ in results}
    lost = [lease.id for lease in leases if lease.id not in held]
    for lease in leases:
        lease.settled = lease.settled or ends or lease.id in lost
    if lost:
        raise LeaseLost(f"no longer held: {', '.join(lost)}; handed out again, buried, settled or purged", lost)
    return results
