"""The grouped batch buffer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from .base import FOREVER, BadArgument, Keys, LeaseLost
from .queue import Queue

TRIMMED = 10
"""dead batches beyond `max_dead` that one burial drops at most"""
RESUMED = 10
"""groups whose pause has ended that one reserve or pop_longest resumes"""
REDRIVEN = 3_400
"""items that one redrive moves, unless a single batch holds more"""


@dataclass
class Batch:
    """A batch that was handed out: its items, and its state."""

    group: bytes
    items: list[bytes]
    attempts: int
    """hand-overs, the latest included; those released with `count=False` excluded"""
    holder: bytes
    reason: bytes
    """why it came back the last time"""
    place: str
    """leases, delayed or dead"""
    time: int
    """its deadline, due time or time of death"""


class Due(NamedTuple):
    """Something that becomes due: ordered by time, then kind, then name."""

    time: int
    kind: int
    """0: a batch whose lease ends, 1: a delayed batch, 2: a group that has waited max_wait"""
    name: bytes


@dataclass
class Buffer(Queue):
    """A buffer, with the settings of the consumer that calls next."""

    lease: int = 30_000
    min_size: int = 1
    max_wait: int = 0
    max_attempts: int = 0
    max_dead: int = 0
    ordered: bool = False
    isolate: bool = False

    items: dict[bytes, list[bytes]] = field(default_factory=dict)
    """group -> waiting items, the oldest first; never empty"""
    since: dict[bytes, int] = field(default_factory=dict)
    """group that can be chosen -> since when it waits, or when it was last served"""
    busy: dict[bytes, bytes] = field(default_factory=dict)
    """group of an ordered buffer -> its batch, leased or delayed, which must end before the group's next items"""
    paused_groups: dict[bytes, float] = field(default_factory=dict)
    """group -> when its pause ends, inf: until resumed"""
    batches: dict[bytes, Batch] = field(default_factory=dict)
    """batch id, which is the id of its latest lease -> batch"""

    # -- groups

    def _offer(self, group: bytes, now: int) -> None:
        """Make a group eligible if it has items and is neither busy nor paused, and wake a client."""
        if group in self.items and group not in self.busy and group not in self.paused_groups:
            self.since.setdefault(group, now)
            self.token = True

    def _withdraw(self, group: bytes) -> None:
        self.since.pop(group, None)

    def _keep_busy(self, group: bytes, batch_id: bytes) -> None:
        """Make a group busy with a batch."""
        self.busy[group] = batch_id
        self._withdraw(group)

    def _free(self, group: bytes, batch_id: bytes, now: int) -> None:
        """Make a group eligible again if this batch made it busy."""
        if self.busy.get(group) == batch_id:
            del self.busy[group]
            self._offer(group, now)

    def _put_back(self, group: bytes, items: list[bytes]) -> None:
        """Put items at the front of their group, in their own order."""
        self.items[group] = items + self.items.get(group, [])

    def _take(self, group: bytes, size: int, now: int) -> list[bytes]:
        """Remove the oldest items of a group."""
        taken, rest = self.items[group][:size], self.items[group][size:]
        if rest:
            self.items[group] = rest
            self.since[group] = now
        else:
            del self.items[group], self.since[group]
        return taken

    def _longest(self) -> list[bytes]:
        """List the eligible groups, the longest first; of equal lengths, the greater name first."""
        return sorted(self.since, key=lambda group: (len(self.items[group]), group), reverse=True)

    def _overdue(self, now: int) -> list[bytes]:
        """List the groups that have waited max_wait, the oldest first."""
        if not self.max_wait:
            return []
        return [
            group for at, group in sorted((at, group) for group, at in self.since.items()) if at <= now - self.max_wait
        ]

    def is_empty(self) -> bool:
        """Return whether there is nothing left; a paused group counts as something."""
        return not (self.items or self.batches or self.paused_groups)

    # -- push and pop

    def push(self, now: int, group: bytes, items: list[bytes], once: bytes, front: bool = False) -> int:
        """Add items to a group; return its new length."""
        if once in self.once:
            return int(self.once[once])
        if not items:
            return len(self.items.get(group, []))
        self._write_mark("2 buffer")
        if front:
            self._put_back(group, items)
        else:
            self.items[group] = self.items.get(group, []) + items
        self._offer(group, now)
        self.token = True
        self._total("pushed", len(items))
        self._remember(once, b"%d" % len(self.items[group]))
        return len(self.items[group])

    def pop(self, now: int, group: bytes, size: int) -> list[bytes]:
        """Remove the oldest items of an eligible group."""
        if self.is_paused(now):
            return []
        if self.paused_groups.get(group, math.inf) <= now and group not in self.busy:  # its pause has ended
            del self.paused_groups[group]
            if group in self.items:
                self.since[group] = now
            self._forget_if_empty()
        if group not in self.since:
            return []
        taken = self._take(group, size, now)
        self._total("popped", len(taken))
        self._forget_if_empty()
        return taken

    def pop_longest(self, now: int, count: int, size: int) -> list[tuple[bytes, list[bytes]]]:
        """Remove the oldest items of some groups: those that have waited max_wait first, then the longest."""
        if self.is_paused(now):
            return []
        self._end_group_pauses(now)
        groups = list(dict.fromkeys(self._overdue(now) + self._longest()))[:count]
        taken = [(group, self._take(group, size, now)) for group in groups]
        self._total("popped", sum(len(items) for _, items in taken))
        self._forget_if_empty()
        return taken

    # -- reserve

    def reserve(
        self, now: int, size: int, batch_id: bytes, holder: bytes = b"", max_bytes: int = 0
    ) -> tuple[object, ...]:
        """Lease what is due first, else the longest group.

        Return batch, deadline, group, attempts, reason and items; or buried, id, group, attempts and reason: a batch
        has used its attempts, call again; or none, and in how many ms to call again, one lease at most; or ended: the
        call was sent again, and its lease is over.
        """
        known = self.batches.get(batch_id)
        if known and known.place == "leases":
            return b"batch", known.time, known.group, known.attempts, known.reason, list(known.items)
        if known or batch_id in self.ended:
            return (b"ended",)
        if self.is_paused(now):
            return b"none", min(self.lease, self._pause_left(now))
        if retry := self.limit.retry_after(now):
            return b"none", retry
        self._end_group_pauses(now)

        due = [one for one in self._timed() if one.time <= now]
        longest = self._longest()[:1]
        if due:
            first = due[0]
        elif longest and len(self.items[longest[0]]) >= self.min_size:
            first = Due(now, 2, longest[0])
        else:
            return b"none", self._retry(now)
        if first.kind == 2:
            batch = self._new_batch(now, first.name, size, max_bytes)
            if self.ordered:
                self._keep_busy(batch.group, batch_id)
        else:
            old = self.batches[first.name]
            reason = b"lease ran out: " + old.holder if old.place == "leases" else old.reason
            if old.place == "leases":  # a crash counts as a failure
                self._count("failed", len(old.items))
            spent = 0 < self.max_attempts <= old.attempts
            if spent and not (self.isolate and len(old.items) > 1):
                self._bury(now, first.name, reason, b"lost")
                return b"buried", first.name, old.group, old.attempts, reason
            busy_with = self.busy.get(old.group)
            if busy_with == first.name or (self.ordered and busy_with is None):
                self._keep_busy(old.group, batch_id)  # else this batch was handed out before the buffer was ordered
            batch = self._old_batch(now, first.name, reason, spent)
        batch.holder, batch.place, batch.time = holder, "leases", now + self.lease
        self.batches[batch_id] = batch
        self.limit.charge(now, 1)
        if self.since or self._placed("delayed") or len(due) > 1:
            self.token = True
        return b"batch", batch.time, batch.group, batch.attempts, batch.reason, list(batch.items)

    def _new_batch(self, now: int, group: bytes, size: int, max_bytes: int) -> Batch:
        """Make a batch of waiting items, of at most `max_bytes` but at least one item."""
        waiting = self.items[group]
        size = min(size, len(waiting))
        while max_bytes and size > 1 and sum(map(len, waiting[:size])) > max_bytes:
            size -= 1
        return Batch(group, self._take(group, size, now), 1, b"", b"", "", 0)

    def _old_batch(self, now: int, old_id: bytes, reason: bytes, spent: bool) -> Batch:
        """Hand a batch out again, whole whatever its size; its previous lease is lost.

        A batch that has used its attempts is split: one half gets a last attempt, the other waits like new items.
        """
        batch = self.batches.pop(old_id)
        self._remember_end(old_id, b"lost", replace=False)
        batch.reason, batch.attempts = reason, batch.attempts + 1
        if spent:
            half = math.ceil(len(batch.items) / 2)
            self._put_back(batch.group, batch.items[half:])
            self._offer(batch.group, now)
            batch.items, batch.attempts = batch.items[:half], self.max_attempts
        return batch

    def _end_group_pauses(self, now: int) -> None:
        """Make groups eligible whose pause has ended, those that ended first."""
        ended = sorted((end, group) for group, end in self.paused_groups.items() if end <= now)
        for _, group in ended[:RESUMED]:
            del self.paused_groups[group]
            self._offer(group, now)
        self._forget_if_empty()

    def _placed(self, place: str) -> list[tuple[int, bytes]]:
        return sorted((batch.time, batch_id) for batch_id, batch in self.batches.items() if batch.place == place)

    def _timed(self) -> list[Due]:
        """List everything that becomes due, the earliest first."""
        waits = [Due(at + self.max_wait, 2, group) for group, at in self.since.items() if self.max_wait]
        kinds = enumerate(("leases", "delayed"))
        return sorted(
            [Due(time, kind, batch_id) for kind, place in kinds for time, batch_id in self._placed(place)] + waits
        )

    def _retry(self, now: int) -> int:
        times = [one.time for one in self._timed()[:1]] + [end for end in self.paused_groups.values() if end < math.inf]
        return min(self.lease, max(0, int(min(times, default=FOREVER)) - now))

    def could_take(self, now: int) -> bool:
        """Return whether a reserve would find something."""
        longest = self._longest()[:1]
        return (
            not self.is_paused(now)
            and not self.limit.is_used_up(now)
            and (
                any(one.time <= now for one in self._timed())
                or any(len(self.items[group]) >= self.min_size for group in longest)
                or any(end <= now and group in self.items for group, end in self.paused_groups.items())
            )
        )

    # -- settle

    def _held(self, batch_id: bytes) -> bool:
        return batch_id in self.batches and self.batches[batch_id].place == "leases"

    def ack(self, now: int, batch_id: bytes, failed: Sequence[int] = (), delay: int = 0, reason: bytes = b"") -> int:
        """Settle a batch; the items at the places in `failed` come back alone. Return how many are done."""
        if (before := self._before(batch_id, b"ack", self._held(batch_id))) is not None:
            return before
        batch = self.batches[batch_id]
        if list(failed) != sorted(set(failed)) or any(place >= len(batch.items) for place in failed):
            raise BadArgument
        done = len(batch.items) - len(failed)
        self._count("done", done)
        self._count("failed", len(failed))
        if failed:  # the batch goes on, so a busy group stays busy
            batch.items = [batch.items[place] for place in failed]
            batch.reason = reason
            self._come_back(now, batch, delay)
        else:
            del self.batches[batch_id]
            self._free(batch.group, batch_id, now)
            self._forget_if_empty()
        self._remember_end(batch_id, b"ack %d" % done)
        return done

    def release(self, now: int, batch_id: bytes, delay: int = 0, counted: bool = True, reason: bytes = b"") -> int:
        """Release a batch; `counted`: as an attempt. Return how many items come back."""
        if (before := self._before(batch_id, b"release", self._held(batch_id))) is not None:
            return before
        batch = self.batches[batch_id]
        if counted:
            self._count("failed", len(batch.items))
        else:
            batch.attempts = max(0, batch.attempts - 1)
        batch.reason = reason or batch.reason
        self._come_back(now, batch, delay)
        self._remember_end(batch_id, b"release %d" % len(batch.items))
        return len(batch.items)

    def _come_back(self, now: int, batch: Batch, delay: int) -> None:
        """Delay a batch, and wake a blocked client, which may have to wait less now."""
        batch.place, batch.time, self.token = "delayed", now + delay, True

    def bury(self, now: int, batch_id: bytes, reason: bytes = b"") -> int:
        """Make a batch a dead letter; return how many items it has."""
        if (before := self._before(batch_id, b"bury", self._held(batch_id))) is not None:
            return before
        batch = self.batches[batch_id]
        self._bury(now, batch_id, reason or batch.reason, b"bury %d" % len(batch.items))
        return len(batch.items)

    def _bury(self, now: int, batch_id: bytes, reason: bytes, how: bytes) -> None:
        """Bury a batch, drop the oldest dead letters beyond max_dead, and free its group."""
        batch, dead = self.batches[batch_id], self._placed("dead")
        over = len(dead) + 1 - self.max_dead if self.max_dead else 0
        self._count("trimmed", self._delete([old for _, old in dead[: max(0, min(over, TRIMMED))]]))
        self._count("buried", len(batch.items))
        batch.place, batch.time, batch.reason = "dead", now, reason
        self._remember_end(batch_id, how, replace=False)
        self._free(batch.group, batch_id, now)
        self._offer(batch.group, now)

    def extend(self, now: int, batch_id: bytes, lease: int) -> int:
        """Extend a lease, never shorten it; return its deadline."""
        if not self._held(batch_id):
            raise LeaseLost
        self.batches[batch_id].time = max(self.batches[batch_id].time, now + lease)
        return self.batches[batch_id].time

    # -- dead letters

    def redrive(self, now: int, ids: Sequence[bytes], once: bytes) -> tuple[int, int]:
        """Make dead batches wait again at the front of their groups, the first id's items first.

        Return how many batches, and how many of the first ids are left for another call: it goes from the last to the
        first, and stops before more than `REDRIVEN` items. Ids that are not dead are skipped.
        """
        if not ids:
            return 0, 0
        if once not in self.once:
            redriven, items, left = 0, 0, len(ids)
            for batch_id in reversed(ids):
                batch = self.batches.get(batch_id)
                if batch and batch.place == "dead":
                    if items and items + len(batch.items) > REDRIVEN:
                        break
                    del self.batches[batch_id]
                    self._put_back(batch.group, batch.items)
                    self._offer(batch.group, now)
                    redriven, items = redriven + 1, items + len(batch.items)
                left -= 1
            self._remember(once, b"%d %d" % (redriven, left))
            return redriven, left
        redriven, left = map(int, self.once[once].split())
        return redriven, left

    def discard(self, ids: Sequence[bytes], once: bytes) -> int:
        """Drop dead batches; return how many there were."""
        if not ids:
            return 0
        if once not in self.once:
            gone = [one for one in dict.fromkeys(ids) if one in self.batches and self.batches[one].place == "dead"]
            self._total("discarded", self._delete(gone))
            self._forget_if_empty()
            self._remember(once, b"%d" % len(gone))
            return len(gone)
        return int(self.once[once])

    def _delete(self, ids: Iterable[bytes]) -> int:
        """Delete batches; return how many items they had."""
        return sum(len(self.batches.pop(batch_id).items) for batch_id in ids)

    # -- pauses and drops of groups

    def pause_group(self, now: int, group: bytes, time: int, once: bytes) -> int:
        """Pause a group for `time` ms, or until it is resumed (0), in place of any earlier pause; return 1."""
        if once not in self.once:
            self.token = self.token or (time > 0 and not self.is_empty())  # blocked clients may have to wait less now
            self.paused_groups[group] = now + time if time else math.inf
            self._withdraw(group)
            self._remember(once, b"1")
        return 1

    def resume_group(self, now: int, group: bytes, once: bytes) -> int:
        """End the pause of a group; return 1 if there was one."""
        if once not in self.once:
            was = self.paused_groups.pop(group, None) is not None
            self._offer(group, now)
            self._forget_if_empty()
            self._remember(once, b"%d" % was)
            return int(was)
        return int(self.once[once])

    def drop_group(self, group: bytes, once: bytes) -> int:
        """Drop a group's waiting items, delayed and dead batches; return how many items.

        Leases and a pause stay. A group is no longer busy if its batch is dropped.
        """
        if once not in self.once:
            gone = [one for one, batch in self.batches.items() if batch.group == group and batch.place != "leases"]
            dropped = len(self.items.pop(group, [])) + self._delete(gone)
            self._withdraw(group)
            if self.busy.get(group) in gone:
                del self.busy[group]
            self._total("dropped", dropped)
            self._forget_if_empty()
            self._remember(once, b"%d " % dropped)
            return dropped
        return int(self.once[once])

    def purge(self) -> int:
        """Drop everything but pauses; return how many items."""
        purged = sum(map(len, self.items.values())) + self._delete(list(self.batches))
        self.items.clear()
        self.since.clear()
        self.busy.clear()
        self._total("purged", purged)
        self._purged()
        return purged

    # -- inspection

    def stats(self, now: int) -> dict[str, object]:
        """Count waiting items, and batches in other states; `due`: delayed or expired, not handed out yet."""
        return {
            "waiting": sum(map(len, self.items.values())),
            "groups": len(self.since),
            "busy": len(self.busy),
            "paused_groups": len(self.paused_groups),
            "oldest": max(0, now - min(self.since.values())) if self.since else -1,
            "leased": len(self._placed("leases")),
            "delayed": len(self._placed("delayed")),
            "dead": len(self._placed("dead")),
            "due": sum(time <= now for place in ("leases", "delayed") for time, _ in self._placed(place)),
            "expiry": min((time for time, _ in self._placed("leases")), default=-1),
            **{name: self.counters.get(name, 0) for name in ("done", "failed", "buried", "trimmed")},
            "paused": self.paused if self.is_paused(now) else None,
        }

    def peek(self, group: bytes, count: int, after: int = 0) -> list[bytes]:
        """Return waiting items of a group, the oldest first, from the place `after` on."""
        return self.items.get(group, [])[after : after + count]

    def groups(self, state: str) -> list[tuple[bytes, int]]:
        """List groups with their numbers of waiting items: the longest first, busy ones by name, paused ones by end."""
        if state == "waiting":
            found = self._longest()
        elif state == "busy":
            found = sorted(self.busy)
        else:
            found = sorted(self.paused_groups, key=lambda group: (self.paused_groups[group], group))
        return [(group, len(self.items.get(group, []))) for group in found]

    def show(self, place: str) -> list[list[object]]:
        """List the batches that are leased, delayed or dead, the earliest first."""
        found = [(batch_id, self.batches[batch_id]) for _, batch_id in self._placed(place)]
        return [[one, b.time, b.group, b.attempts, b.holder, b.reason, b.items] for one, b in found]

    # -- the key space

    def keys(self, now: int) -> Keys:
        """Return what the server must hold."""
        found = super().keys(now)
        found |= {b"items:" + group: list(items) for group, items in self.items.items()}
        for batch_id, batch in self.batches.items():
            found[b"batch:" + batch_id] = [
                batch.group,
                b"%d" % batch.attempts,
                batch.holder,
                batch.reason,
                *batch.items,
            ]
        sets: Keys = {
            b"groups": {group: float(len(self.items[group])) for group in self.since},
            b"since": {group: float(at) for group, at in self.since.items()},
            b"busy": dict(self.busy),
            b"paused_groups": {group: float(end) for group, end in self.paused_groups.items()},
        }
        for place in ("leases", "delayed", "dead"):
            sets[place.encode()] = {batch_id: float(time) for time, batch_id in self._placed(place)}
        return found | {name: value for name, value in sets.items() if value}

    def check(self) -> None:
        """Assert the invariants."""
        here = sum(map(len, self.items.values())) + sum(len(batch.items) for batch in self.batches.values())
        left = ("done", "popped", "discarded", "dropped", "trimmed", "purged")
        gone = sum(self.totals.get(name, 0) for name in left)
        assert self.totals.get("pushed", 0) == here + gone, "what was pushed is neither there nor gone"
        assert set(self.since) == set(self.items) - set(self.busy) - set(self.paused_groups), "not the eligible groups"
        assert all(self.items.values()), "a group without items"
        assert all(batch.items for batch in self.batches.values()), "a batch without items"
        for group, batch_id in self.busy.items():
            batch = self.batches[batch_id]
            assert batch.group == group, "busy with the batch of another group"
            assert batch.place != "dead", "busy with a dead batch"
        assert self.mark or not (self.items or self.batches), "items without a mark"
        assert not (self.is_empty() and self.token), "a wake-up in an empty queue"
