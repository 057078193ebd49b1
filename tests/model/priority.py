"""The unique priority queue."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from .base import BadArgument, Keys, LeaseLost, WrongOrder
from .queue import Queue

PLACES = 10**12
"""fifo order: score = (priority + 1024) * PLACES + place"""
RETURNED = 100
"""members that one call promotes, or returns from expired leases; a single lease may have more"""
TRIMMED = 10
"""dead members beyond `max_dead` that a burial of n drops at most, besides n"""

READY, DELAYED, LEASED, DEAD = "ready", "delayed", "leased", "dead"
REMOVED = "removed"
"""removed while leased: counted as leased until the lease ends, then gone"""


class Note(NamedTuple):
    """What was pushed for a member while it was leased."""

    score: float
    due: int
    how: str
    """min: merged with what comes back; set: replaces it"""


@dataclass
class Member:
    """A member in one of its states."""

    state: str
    score: float
    due: int = 0
    """delayed: when it is due; dead: when it died; else 0"""
    attempts: int = 0
    """hand-overs since it was last pushed, without the present one and those released with `count=False`"""
    reason: bytes = b""
    """why it came back the last time"""
    payload: bytes | None = None
    note: Note | None = None


@dataclass
class Lease:
    """A lease: one batch of members."""

    holder: bytes
    deadline: int
    members: list[tuple[bytes, float]]
    """member and score, the most urgent first"""


class Item(NamedTuple):
    """A member as it is handed out."""

    member: bytes
    score: float
    attempts: int
    """hand-overs before this one"""
    reason: bytes
    payload: bytes | None


@dataclass
class Priority(Queue):
    """A priority queue, with the settings of the consumer that calls next."""

    order: str = "fifo"
    lease: int = 30_000
    max_attempts: int = 0
    max_dead: int = 0

    members: dict[bytes, Member] = field(default_factory=dict)
    leases: dict[bytes, Lease] = field(default_factory=dict)
    sequence: int = 0
    """fifo order: the last place that was assigned"""

    # -- push

    def push(
        self,
        now: int,
        items: Sequence[tuple[float, bytes, bytes | None]],
        once: bytes,
        delay: int = 0,
        how: str = "min",
    ) -> bytes:
        """Push members: (priority, member, payload); return a letter for each.

        A payload of None keeps the one that is stored.
        """
        self._check_order()
        if once in self.once:
            return self.once[once]
        self._check_items(items)
        if not items:
            return b""
        due, outcomes = now + delay if delay else 0, ""
        for priority, name, payload in items:
            outcomes += self._request(name, self._score(priority), due, how)
            if payload is not None:
                self.members[name].payload = payload
        self._write_mark(f"2 {self.order}")
        self.token = True
        self._remember(once, outcomes.encode())
        return outcomes.encode()

    def _check_order(self) -> None:
        """Refuse the other order; a sorted set without a mark is in score order."""
        kept = self.mark or ("2 score" if self._ready() else "")
        if kept and kept != f"2 {self.order}":
            raise WrongOrder

    def _check_items(self, items: Sequence[tuple[float, bytes, bytes | None]]) -> None:
        names = [name for _, name, _ in items]
        if len(names) != len(set(names)):
            raise BadArgument
        for priority, _, _ in items:
            if not math.isfinite(priority):
                raise BadArgument
            if self.order == "fifo" and (priority != int(priority) or not -1024 <= priority <= 1023):
                raise BadArgument

    def _score(self, priority: float) -> float:
        """Return the score for a push: members of equal priority leave in the order of their arrival."""
        if self.order == "score":
            return float(priority)
        self.sequence += 1
        return (priority + 1024) * PLACES + self.sequence % PLACES

    def _request(self, name: bytes, score: float, due: int, how: str) -> str:
        """Push a member: the lowest score and earliest due time win, or with `set` exactly these."""
        member = self.members.get(name)
        if member is None or member.state == DEAD:
            self._place(name, score, due, member.payload if member else None)
            return "A"
        if member.state == REMOVED:  # earlier pushes no longer count
            member.state, member.note = LEASED, Note(score, due, "set")
            return "A"
        if member.state == LEASED and not member.note:
            member.note = Note(score, due, how)
            return "A"
        before: Note | Member = member.note or member
        raised = score < before.score or due < before.due
        lowered = score > before.score or due > before.due
        if how == "min":
            score, due, lowered = min(score, before.score), min(due, before.due), False
        if isinstance(before, Note):
            member.note = Note(score, due, "set" if how == "set" else before.how)
        else:
            self._place(name, score, due, member.payload)
        return "C" if lowered else "R" if raised else "K"

    def _place(self, name: bytes, score: float, due: int, payload: bytes | None) -> None:
        """Make a member wait as newly pushed: no attempts, no reason."""
        self.members[name] = Member(DELAYED if due else READY, score, due, payload=payload)

    # -- take

    def _ready(self) -> list[tuple[float, bytes]]:
        return sorted((member.score, name) for name, member in self.members.items() if member.state == READY)

    def _parked(self, state: str) -> list[tuple[int, bytes]]:
        return sorted((member.due, name) for name, member in self.members.items() if member.state == state)

    def _item(self, name: bytes, score: float) -> Item:
        member = self.members[name]
        return Item(name, score, member.attempts, member.reason, member.payload)

    def pop(self, now: int, count: int) -> tuple[int, list[Item]]:
        """Remove the most urgent members; return them, and if there are none, in how many ms to call again.

        -1: after a wake-up. Due members are promoted; expired leases and attempts are handled by `reserve` only.
        """
        self._check_order()
        if self.is_paused(now):
            return self._pause_left(now) if self.paused and self.paused[0] else -1, []
        self._promote(now)
        taken = [self._item(name, score) for score, name in self._ready()[:count]]
        for item in taken:
            del self.members[item.member]
        self.token = self.token or bool(self._ready())
        delayed = self._parked(DELAYED)
        retry = 0 if taken else max(0, delayed[0][0] - now) if delayed else -1
        self._forget_if_empty()
        return retry, taken

    def reserve(
        self, now: int, size: int, lease_id: bytes, holder: bytes = b"", max_bytes: int = 0
    ) -> tuple[object, ...]:
        """Lease the most urgent members.

        Return batch, deadline, items and the buried members; or none, in how many ms to call again (one lease at most)
        and the buried members; or ended: the call was sent again, and its lease is over.
        """
        self._check_order()
        if lease_id in self.leases:
            return b"batch", self.leases[lease_id].deadline, self._leased(lease_id), []
        if lease_id in self.ended:
            return (b"ended",)
        if self.is_paused(now):
            return b"none", min(self.lease, self._pause_left(now)), []
        if retry := self.limit.retry_after(now):
            return b"none", retry, []
        if self._end_expired(now):  # what came back is handed out by the next call
            self._forget_if_empty()
            return b"none", 0, []
        buried = self._promote(now, self.max_attempts)
        self._bury(buried)
        self._forget_if_empty()
        taken = self._fitting(self._ready()[:size], max_bytes)
        if not taken:
            return b"none", self._retry(now), buried
        self.leases[lease_id] = Lease(holder, now + self.lease, [(name, score) for score, name in taken])
        for _, name in taken:
            self.members[name].state = LEASED
        if not self.mark:
            self._write_mark(f"2 {self.order}")
        self.limit.charge(now, 1)
        if self._ready() or self._parked(DELAYED) or self._expired(now):
            self.token = True
        return b"batch", now + self.lease, self._leased(lease_id), buried

    def _leased(self, lease_id: bytes) -> list[Item]:
        """List the members of a lease with what is stored for them now."""
        return [self._item(name, score) for name, score in self.leases[lease_id].members]

    def _fitting(self, ready: list[tuple[float, bytes]], max_bytes: int) -> list[tuple[float, bytes]]:
        """Return those that fit into `max_bytes`, payloads included, but at least one."""
        total = 0
        for i, (_, name) in enumerate(ready):
            total += len(name) + len(self.members[name].payload or b"")
            if max_bytes and total > max_bytes and i > 0:
                return ready[:i]
        return ready

    def _retry(self, now: int) -> int:
        times = [lease.deadline for lease in self.leases.values()] + [due for due, _ in self._parked(DELAYED)]
        return max(0, min([now + self.lease, *times]) - now)

    def _expired(self, now: int) -> list[tuple[int, bytes]]:
        return sorted((lease.deadline, name) for name, lease in self.leases.items() if lease.deadline <= now)

    def _end_expired(self, now: int) -> bool:
        """End expired leases, the earliest first, until a hundred members are found; each is due since its deadline."""
        found, ended = 0, False
        for deadline, lease_id in self._expired(now):
            lease = self.leases[lease_id]
            found += len(lease.members)
            if found > RETURNED and found > len(lease.members):
                break
            back = self._end(lease_id)
            for name, score in back:
                self._come_back(name, score, deadline, 1, b"lease ran out: " + lease.holder)
            self._count("failed", len(back))
            self._remember_end(lease_id, b"lost")
            ended = True
        return ended

    def _promote(self, now: int, max_attempts: int = 0) -> list[bytes]:
        """Make up to a hundred due members ready; bury those that have used their attempts, and return them."""
        buried = []
        for due, name in self._parked(DELAYED)[:RETURNED]:
            member = self.members[name]
            if due > now:
                break
            if 0 < max_attempts <= member.attempts:
                member.state, member.due = DEAD, now
                buried.append(name)
            else:
                member.state, member.due = READY, 0
        return buried

    def could_take(self, now: int) -> bool:
        """Return whether a reserve would find something to do."""
        due = any(time <= now for time, _ in self._parked(DELAYED))
        return (
            not self.is_paused(now)
            and not self.limit.is_used_up(now)
            and (bool(self._ready()) or due or bool(self._expired(now)))
        )

    # -- settle

    def _end(self, lease_id: bytes) -> list[tuple[bytes, float]]:
        """End a lease; return its members and their scores, without removed ones."""
        back = []
        for name, score in self.leases.pop(lease_id).members:
            if self.members[name].state == REMOVED:
                del self.members[name]
            else:
                back.append((name, score))
        return back

    def _come_back(self, name: bytes, score: float, due: int, counted: int, reason: bytes) -> None:
        """Delay a member, merged with what was pushed while it was leased."""
        member = self.members[name]
        member.state, member.score, member.due, member.reason = DELAYED, score, due, reason
        member.attempts += counted
        if note := member.note:
            if note.how == "min":
                note = Note(min(score, note.score), min(due, note.due), "min")
            member.score, member.due, member.attempts, member.note = note.score, note.due, 0, None

    def _keep_note(self, name: bytes, note: Note) -> None:
        """Keep only what was pushed meanwhile: the member itself is done or buried."""
        self._place(name, note.score, note.due, self.members[name].payload)
        self.members[name].state = DELAYED  # until the next reserve or pop, even if it is due at once
        self.token = True

    def ack(self, now: int, lease_id: bytes, failed: Sequence[tuple[int, bytes]] = (), delay: int = 0) -> int:
        """Settle a lease: members are done, those whose places are in `failed` come back. Return how many are done."""
        if (before := self._before(lease_id, b"ack", lease_id in self.leases)) is not None:
            return before
        given, reasons = self.leases[lease_id].members, dict(failed)
        if len(reasons) != len(failed) or any(not 0 <= place < len(given) for place in reasons):
            raise BadArgument
        why = {given[place][0]: reason for place, reason in reasons.items()}
        done = 0
        for name, score in self._end(lease_id):
            if name in why:
                self._come_back(name, score, now + delay, 1, why[name])
                self.token = True
                continue
            done += 1
            if note := self.members[name].note:
                self._keep_note(name, note)
            else:
                del self.members[name]
        self._count("done", done)
        self._count("failed", len(failed))
        self._forget_if_empty()
        self._remember_end(lease_id, b"ack %d" % done)
        return done

    def release(self, now: int, lease_id: bytes, delay: int = 0, counted: bool = True, reason: bytes = b"") -> int:
        """Release a lease; `counted`: as an attempt. Return how many members come back."""
        if (before := self._before(lease_id, b"release", lease_id in self.leases)) is not None:
            return before
        back = self._end(lease_id)
        for name, score in back:
            self._come_back(name, score, now + delay, int(counted), reason or self.members[name].reason)
            self.token = True
        if counted:
            self._count("failed", len(back))
        self._forget_if_empty()
        self._remember_end(lease_id, b"release %d" % len(back))
        return len(back)

    def bury(self, now: int, lease_id: bytes, reason: bytes = b"") -> int:
        """Bury the members of a lease, except those that were pushed meanwhile; return how many were buried."""
        if (before := self._before(lease_id, b"bury", lease_id in self.leases)) is not None:
            return before
        dead = []
        for name, score in self._end(lease_id):
            member = self.members[name]
            if member.note:
                self._keep_note(name, member.note)
            else:
                member.state, member.score, member.due, member.attempts = DEAD, score, now, member.attempts + 1
                member.reason = reason or member.reason
                dead.append(name)
        self._bury(dead)
        self._forget_if_empty()
        self._remember_end(lease_id, b"bury %d" % len(dead))
        return len(dead)

    def _bury(self, names: list[bytes]) -> None:
        """Count burials, and drop the oldest dead members beyond max_dead."""
        self._count("buried", len(names))
        dead = self._parked(DEAD)
        over = len(dead) - self.max_dead if self.max_dead and names else 0
        for _, name in dead[: max(0, min(over, len(names) + TRIMMED))]:
            del self.members[name]
            self._count("trimmed", 1)

    def extend(self, now: int, lease_id: bytes, lease: int) -> int:
        """Extend a lease, never shorten it; return its deadline."""
        if lease_id not in self.leases:
            raise LeaseLost
        self.leases[lease_id].deadline = max(self.leases[lease_id].deadline, now + lease)
        return self.leases[lease_id].deadline

    # -- by member

    def state(self, name: bytes) -> str:
        """Return the state of a member, as of the last call."""
        state = self.members[name].state if name in self.members else REMOVED
        return "absent" if state == REMOVED else state

    def remove(self, names: Sequence[bytes], once: bytes) -> int:
        """Remove members, whatever their state; return how many there were."""

        def take_out(name: bytes) -> None:
            if self.members[name].state == LEASED:
                self.members[name] = Member(REMOVED, 0)
            else:
                del self.members[name]

        return self._for_each(once, names, {READY, DELAYED, LEASED, DEAD}, take_out)

    def redrive(self, names: Sequence[bytes], once: bytes) -> int:
        """Make dead members ready again, without attempts; return how many there were."""

        def bring_back(name: bytes) -> None:
            self._place(name, self.members[name].score, 0, self.members[name].payload)
            self.token = True

        return self._for_each(once, names, {DEAD}, bring_back)

    def discard(self, names: Sequence[bytes], once: bytes) -> int:
        """Drop dead members; return how many there were."""
        return self._for_each(once, names, {DEAD}, self.members.__delitem__)

    def _for_each(self, once: bytes, names: Sequence[bytes], states: set[str], act: Callable[[bytes], None]) -> int:
        """Apply `act` once to each named member in one of these states; return how many there were."""
        if once in self.once:
            return int(self.once[once])
        if not names:
            return 0
        chosen = [name for name in dict.fromkeys(names) if self.state(name) in states]
        for name in chosen:
            act(name)
        self._forget_if_empty()
        self._remember(once, b"%d" % len(chosen))
        return len(chosen)

    def purge(self) -> int:
        """Drop everything but a pause; return how many members, removed ones that are leased included."""
        count = len(self.members)
        self.members.clear()
        self.leases.clear()
        self.sequence = 0
        self._purged()
        return count

    # -- inspection

    def stats(self, now: int) -> dict[str, object]:
        """Count members by state, and leases (`batches`); `due`: delayed or expired, not promoted yet."""
        states = [member.state for member in self.members.values()]
        due = sum(time <= now for time, _ in self._parked(DELAYED))
        return {
            **{state: states.count(state) for state in (READY, DELAYED, DEAD)},
            "leased": states.count(LEASED) + states.count(REMOVED),
            "batches": len(self.leases),
            "due": due + len(self._expired(now)),
            "expiry": min((lease.deadline for lease in self.leases.values()), default=-1),
            **{name: self.counters.get(name, 0) for name in ("done", "failed", "buried", "trimmed")},
            "paused": self.paused if self.is_paused(now) else None,
        }

    def show(self, state: str) -> list[tuple[float, Item]]:
        """List members that are ready, delayed or dead, in order: score, due time or time of death, and the member."""
        self._check_order()
        found: Iterable[tuple[float, bytes]] = self._ready() if state == READY else self._parked(state)
        return [(place, self._item(name, self.members[name].score)) for place, name in found]

    def batches(self) -> list[tuple[bytes, int, bytes, list[Item]]]:
        """List the leases, the earliest deadline first."""
        self._check_order()
        found = sorted((lease.deadline, lease_id) for lease_id, lease in self.leases.items())
        return [(one, deadline, self.leases[one].holder, self._leased(one)) for deadline, one in found]

    # -- the key space

    def is_empty(self) -> bool:
        """Return whether there is nothing left."""
        return not self.members and not self.leases

    def _forget_if_empty(self) -> None:
        super()._forget_if_empty()
        if self.is_empty():
            self.sequence = 0  # no member is left that could be overtaken: places start at 0 again

    def _meta(self) -> dict[bytes, bytes]:
        places = {b"sequence": b"%d" % self.sequence} if self.sequence else {}
        return super()._meta() | places

    def keys(self, now: int) -> Keys:
        """Return what the server must hold, with numbers in texts as numbers."""
        found = super().keys(now)
        for lease_id, lease in self.leases.items():
            found[b"lease:" + lease_id] = [lease.holder, *lease.members]
        rows = {name: self._row(member) for name, member in self.members.items()}
        notes: dict[bytes, object] = {
            name: b"removed" for name, member in self.members.items() if member.state == REMOVED
        }
        notes |= {n: (m.note.score, m.note.due, m.note.how.encode()) for n, m in self.members.items() if m.note}
        values: Keys = {
            b"ready": {name: score for score, name in self._ready()},
            b"delayed": {name: float(due) for due, name in self._parked(DELAYED)},
            b"dead": {name: float(died) for died, name in self._parked(DEAD)},
            b"leases": {lease_id: float(lease.deadline) for lease_id, lease in self.leases.items()},
            b"held": {name for name, member in self.members.items() if member.state in (LEASED, REMOVED)},
            b"again": notes,
            b"rows": {name: row for name, row in rows.items() if row},
            b"payloads": {n: m.payload for n, m in self.members.items() if m.payload is not None},
        }
        return found | {name: value for name, value in values.items() if value}

    def _row(self, member: Member) -> tuple[float | None, int, bytes] | None:
        """Return what is stored beside a member; the score of a ready or leased one is elsewhere."""
        if member.state in (DELAYED, DEAD):
            return member.score, member.attempts, member.reason
        return (None, member.attempts, member.reason) if member.attempts or member.reason else None

    def check(self) -> None:
        """Assert the invariants."""
        leased: set[bytes] = set()
        for lease in self.leases.values():
            names = {name for name, _ in lease.members}
            assert len(names) == len(lease.members) > 0
            assert not leased & names, "a member in two leases"
            leased |= names
        for name, member in self.members.items():
            assert (name in leased) == (member.state in (LEASED, REMOVED)), "a leased member without a lease"
            assert member.note is None or member.state == LEASED
            assert member.state != REMOVED or member.payload is None
            assert member.due == 0 or member.state in (DELAYED, DEAD)
        assert not (self.is_empty() and self.token), "a wake-up in an empty queue"
