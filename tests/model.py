"""The definition of the queues: what each call answers and leaves behind, in plain Python, with the time given.

It knows nothing of Redis: items and members are bytes, times are ms. `keys()` says which keys a queue has after a call,
in the form in which `tests/keyspace.py` reads them back. The tests hold every script to it, on every server.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

PLACES = 2**42
WAKES = 100

Keys = dict[str, object]


class Lost(Exception):
    """Say that a lease is not held."""


LOOKS = 10


@dataclass
class Batch:
    """Hold a batch that was handed out: where it is, and since or until when."""

    group: bytes
    items: list[bytes]
    attempts: int
    place: str
    """leases, delayed or dead"""
    time: int
    """deadline, due time or time of death"""


@dataclass
class Buffer:
    """Define the grouped batch buffer."""

    lease: int = 30_000
    min_size: int = 1
    max_wait: int = 60_000
    max_attempts: int = 0
    limit: Limit | None = None
    items: dict[bytes, list[bytes]] = field(default_factory=dict)
    """group -> waiting items, oldest first; no group without items"""
    since: dict[bytes, int] = field(default_factory=dict)
    """group -> ms at which it became non-empty or was last served"""
    batches: dict[bytes, Batch] = field(default_factory=dict)
    once: dict[bytes, object] = field(default_factory=dict)
    ended: dict[bytes, str] = field(default_factory=dict)
    """lease -> how it ended"""
    token: bool = False
    """whether a token lies there for who waits"""
    marked: bool = False
    """whether the keys carry the mark of their layout: from the first push to the purge"""

    def push(self, now: int, group: bytes, items: list[bytes], once: bytes, front: bool = False) -> int:
        if once in self.once:
            return int(str(self.once[once]))
        if items:
            waiting = self.items.get(group, [])
            self.items[group] = items + waiting if front else waiting + items
            self.since.setdefault(group, now)
            self.once[once] = len(self.items[group])
            self.token = self.marked = True
        return len(self.items.get(group, []))

    def pop(self, now: int, group: bytes, size: int) -> list[bytes]:
        waiting = self.items.pop(group, [])
        self.since.pop(group, None)
        if waiting[size:]:
            self.items[group] = waiting[size:]
            self.since[group] = now
        return waiting[:size]

    def longest(self, count: int) -> list[tuple[bytes, int]]:
        lengths = [(len(items), group) for group, items in self.items.items()]
        return [(group, length) for length, group in sorted(lengths, reverse=True)[:count]]

    def pop_longest(self, now: int, count: int, size: int) -> list[tuple[bytes, list[bytes]]]:
        return [(group, self.pop(now, group, size)) for group, _ in self.longest(count)]

    def _placed(self, place: str) -> list[tuple[int, bytes]]:
        return sorted((batch.time, name) for name, batch in self.batches.items() if batch.place == place)

    def reserve(
        self, now: int, size: int, name: bytes, lease: int | None = None
    ) -> tuple[Batch | None, int, list[tuple[bytes, bytes, int]]]:
        """Return the batch, or None and when to ask again (-1: when something is pushed), and who was buried."""
        held = self.batches.get(name)
        if held and held.place == "leases":
            return held, 0, []
        if held or name in self.ended:
            return None, -1, []
        closed = self.limit.closed(now) if self.limit else 0
        if closed:
            return None, closed, []

        lines = [self._placed("leases"), self._placed("delayed")]
        if self.max_wait:
            lines.append(sorted((at + self.max_wait, group) for group, at in self.since.items()))
        due = [[(at, rank, x) for at, x in line if at <= now][:LOOKS] for rank, line in enumerate(lines)]
        more = any(len(line) == LOOKS for line in due)
        looked = sorted((one for line in due for one in line), key=lambda one: one[:2])
        longest = self.longest(1)
        if longest and longest[0][1] >= self.min_size and not more:
            looked.append((now, 2, longest[0][0]))

        buried = []
        for _, rank, which in looked:
            if rank == 2:
                batch = Batch(which, self.pop(now, which, size), 0, "", 0)
            elif self.max_attempts and self.batches[which].attempts >= self.max_attempts:
                dead = self.batches[which]
                dead.place, dead.time = "dead", now
                buried.append((which, dead.group, dead.attempts))
                continue
            else:
                batch = self.batches.pop(which)
                self.ended.setdefault(which, "lost")
            batch.attempts += 1
            batch.place, batch.time = "leases", now + (self.lease if lease is None else lease)
            self.batches[name] = batch
            if self.limit:
                self.limit.charge(now)
            left = [b for b in self.batches.values() if b.place in ("leases", "delayed") and b.time <= now]
            self.token = self.token or bool(self.items) or bool(left)
            return batch, 0, buried
        times = [line[0][0] for line in (self._placed("leases"), self._placed("delayed"), *lines[2:]) if line]
        retry = 0 if more else min([max(0, at - now) for at in times], default=-1)
        return None, retry, buried

    def _held(self, name: bytes) -> Batch:
        batch = self.batches.get(name)
        if not batch or batch.place != "leases":
            raise Lost
        return batch

    def _settled(self, name: bytes, verb: str) -> int | None:
        held = name in self.batches and self.batches[name].place == "leases"
        ended = self.ended.get(name, "").split()
        return int(ended[1]) if not held and ended[:1] == [verb] else None

    def ack(self, now: int, name: bytes, failed: list[int], delay: int) -> int:
        settled = self._settled(name, "ack")
        if settled is not None:
            return settled
        batch = self._held(name)
        done = len(batch.items) - len(failed)
        if failed:
            batch.items = [batch.items[i] for i in sorted(failed)]
            batch.place, batch.time = "delayed", now + delay
            self.token = True
        else:
            del self.batches[name]
        self.ended[name] = f"ack {done}"
        return done

    def release(self, now: int, name: bytes, delay: int, counted: bool = True) -> int:
        settled = self._settled(name, "release")
        if settled is not None:
            return settled
        batch = self._held(name)
        batch.place, batch.time = "delayed", now + delay
        batch.attempts -= not counted
        self.token = True
        self.ended[name] = f"release {len(batch.items)}"
        return len(batch.items)

    def extend(self, now: int, name: bytes, lease: int) -> int:
        batch = self._held(name)
        batch.time = max(batch.time, now + lease)
        return batch.time

    def dead(self, limit: int, after: bytes = b"") -> list[tuple[bytes, Batch]]:
        names = [name for _, name in self._placed("dead")]
        start = names.index(after) + 1 if after and after in names else 0
        return [(name, self.batches[name]) for name in names[start : start + limit]]

    def redrive(self, now: int, names: list[bytes], once: bytes) -> int:
        if once not in self.once:
            moved = {name for name in names if name in self.batches and self.batches[name].place == "dead"}
            for name in moved:
                batch = self.batches[name]
                batch.place, batch.time, batch.attempts = "delayed", now, 0
            self.token = self.token or bool(moved)
            self.once[once] = len(moved)
        return int(str(self.once[once]))

    def discard(self, names: list[bytes], once: bytes) -> int:
        if once not in self.once:
            gone = {name for name in names if name in self.batches and self.batches[name].place == "dead"}
            for name in gone:
                del self.batches[name]
            self.once[once] = len(gone)
        return int(str(self.once[once]))

    def stats(self, now: int) -> dict[str, int | None]:
        first = self._placed("leases")[:1]
        return {
            "waiting": sum(map(len, self.items.values())),
            "groups": len(self.items),
            "oldest": now - min(self.since.values()) if self.since else None,
            "leased": len(self._placed("leases")),
            "delayed": len(self._placed("delayed")),
            "dead": len(self._placed("dead")),
            "expiry": first[0][0] if first else None,
        }

    def purge(self) -> int:
        count = sum(map(len, self.items.values())) + sum(len(batch.items) for batch in self.batches.values())
        self.items.clear()
        self.since.clear()
        self.batches.clear()
        self.token = self.marked = False
        return count

    def keys(self) -> Keys:
        found: Keys = {f"items:{group!r}": items for group, items in self.items.items()}
        found |= {f"once:{once!r}": str(answer).encode() for once, answer in self.once.items()}
        found |= {f"ended:{name!r}": how.encode() for name, how in self.ended.items()}
        for name, batch in self.batches.items():
            found[f"batch:{name!r}"] = [batch.group, b"%d" % batch.attempts, *batch.items]
        if self.items:
            found["groups"] = {group: len(items) for group, items in self.items.items()}
            found["since"] = dict(self.since)
        for place in ("leases", "delayed", "dead"):
            if self._placed(place):
                found[place] = {name: at for at, name in self._placed(place)}
        if self.token:
            found["wake"] = [b"1"]
        if self.marked:
            found["layout"] = b"1"
        if self.limit:
            found |= self.limit.keys()
        return found


@dataclass
class Member:
    """Hold one member: ready when `due` is None, dead when it is infinite, else delayed or, with an owner, leased."""

    score: float
    due: float | None
    attempts: int = 0
    owner: bytes = b""
    asked: tuple[float, float] | None = None
    """score and due time of what was pushed while it was leased"""
    parked: bool = False
    """whether it was ever delayed or leased: from then on it has a row"""

    @property
    def state(self) -> str:
        if self.due is None:
            return "ready"
        if self.due == math.inf:
            return "dead"
        return "leased" if self.owner else "delayed"


@dataclass
class Priority:
    """Define the unique priority queue."""

    order: str = "fifo"
    lease: int = 30_000
    max_attempts: int = 0
    limit: Limit | None = None
    members: dict[bytes, Member] = field(default_factory=dict)
    once: dict[bytes, object] = field(default_factory=dict)
    leases: dict[bytes, list[bytes]] = field(default_factory=dict)
    """lease -> held and its members, or how it ended"""
    sequence: int | None = None
    token: bool = False

    def push(self, now: int, pairs: list[tuple[float, bytes]], delay: int, once: bytes) -> str:
        if not pairs:
            return ""
        if once in self.once:
            return str(self.once[once])
        if not self.members or self.sequence is None:
            self.sequence = 0
        outcomes = ""
        for priority, member in pairs:
            self.sequence += self.order == "fifo"
            score = priority * PLACES + self.sequence if self.order == "fifo" else priority
            outcomes += self._push(member, score, now + delay, delay == 0)
        self.token = True
        self.once[once] = outcomes
        return outcomes

    def _push(self, member: bytes, score: float, due: float, at_once: bool) -> str:
        old = self.members.get(member)
        if old is None or old.state == "dead":
            was_parked = old is not None
            self.members[member] = Member(score, None if at_once else due, parked=was_parked or not at_once)
            return "A"
        if old.state == "leased":
            if old.asked is None:
                old.asked = score, due
                return "A"
            better = score < old.asked[0] or due < old.asked[1]
            old.asked = min(score, old.asked[0]), min(due, old.asked[1])
            return "R" if better else "K"
        better = score < old.score or (old.due is not None and due < old.due)
        old.score = min(score, old.score)
        if old.due is not None:
            old.due = None if at_once else min(due, old.due)
        return "R" if better else "K"

    def _back(self, entry: Member, now: int, due: float) -> bool:
        """Let a member come back at `due`; say whether it is dead instead."""
        if entry.owner and self.max_attempts and entry.attempts >= self.max_attempts:
            if entry.asked is None:
                due = math.inf
            else:
                entry.score, due = entry.asked
                entry.attempts = 0
        elif entry.asked is not None:
            entry.score, due = min(entry.score, entry.asked[0]), min(due, entry.asked[1])
        entry.owner, entry.asked = b"", None
        entry.due = None if due <= now else due
        return due == math.inf

    def _wake(self, now: int) -> tuple[int, list[bytes]]:
        """Wake who is due; return when the next one is, and who died."""
        due = sorted((e.due, m) for m, e in self.members.items() if e.due is not None and e.due <= now)
        dead = [member for _, member in due[:WAKES] if self._back(self.members[member], now, now)]
        later = [e.due for e in self.members.values() if e.due is not None and e.due < math.inf]
        return (int(max(0, min(later) - now)) if later else -1), dead

    def _ready(self) -> list[tuple[float, bytes]]:
        return sorted((entry.score, member) for member, entry in self.members.items() if entry.due is None)

    def pop(self, now: int, count: int) -> list[tuple[bytes, float, int]]:
        self._wake(now)
        taken = [(member, score, self.members.pop(member).attempts + 1) for score, member in self._ready()[:count]]
        self.token = self.token or bool(self._ready())
        return taken

    def reserve(
        self, now: int, size: int, name: bytes, lease: int | None = None
    ) -> tuple[list[tuple[bytes, int]], int, int, list[bytes]]:
        """Return the members and their attempts, the deadline, when to ask again, and who died."""
        if name in self.leases:
            held = [m for m in self.leases[name] if m in self.members and self.members[m].owner == name]
            held = held if self.leases[name][0] == b"held" else []
            deadline = int(self.members[held[-1]].due or 0) if held else 0
            return [(m, self.members[m].attempts) for m in held], deadline, 0 if held else -1, []
        closed = self.limit.closed(now) if self.limit else 0
        retry, dead = self._wake(now)
        taken = [member for _, member in self._ready()[:size]]
        if closed or not taken:
            return [], 0, closed or retry, dead
        deadline = now + (self.lease if lease is None else lease)
        for member in taken:
            entry = self.members[member]
            entry.owner, entry.due, entry.parked = name, deadline, True
            entry.attempts += 1
        self.leases[name] = [b"held", *taken]
        if self.limit:
            self.limit.charge(now)
        self.token = self.token or bool(self._ready())
        return [(m, self.members[m].attempts) for m in taken], deadline, 0, dead

    def _held(self, name: bytes, members: list[bytes]) -> list[bytes]:
        return [m for m in members if m in self.members and self.members[m].owner == name]

    def _ended(self, name: bytes) -> list[bytes]:
        ended = self.leases.get(name, [])
        return [] if ended[:1] == [b"held"] else ended

    def _before(self, name: bytes, verb: bytes, first: bytes) -> list[bytes]:
        """Return what the call of that verb with that first member answered: the count and the places of the dead."""
        ended = self._ended(name)
        for answer, member in zip(ended[::2], ended[1::2], strict=True):
            if answer.startswith(verb + b" ") and member == first:
                return answer.split()[1:]
        raise Lost

    def ack(self, now: int, name: bytes, members: list[bytes]) -> int:
        held = self._held(name, members)
        if not held:
            return int(self._before(name, b"ack", members[0])[0])
        for member in held:
            entry = self.members[member]
            if entry.asked is None:
                del self.members[member]
            else:
                score, due = entry.asked
                self.members[member] = Member(score, None if due <= now else due, parked=True)
                self.token = True
        self.leases[name] = [*self._ended(name), b"ack %d" % len(held), members[0]]
        return len(held)

    def release(
        self, now: int, name: bytes, members: list[bytes], delay: int, counted: bool = True
    ) -> tuple[int, list[bytes]]:
        held = self._held(name, members)
        if not held:
            count, *places = self._before(name, b"release", members[0])
            return int(count), [members[int(place) - 7] for place in places]
        dead = []
        for member in held:
            self.members[member].attempts -= not counted
            if self._back(self.members[member], now, now + delay):
                dead.append(member)
        self.token = True
        buried = b"".join(b" %d" % (i + 7) for i, member in enumerate(members) if member in dead)
        self.leases[name] = [*self._ended(name), b"release %d" % len(held) + buried, members[0]]
        return len(held), dead

    def extend(self, now: int, name: bytes, members: list[bytes], lease: int) -> int:
        held = self._held(name, members)
        if not held:
            raise Lost
        for member in held:
            entry = self.members[member]
            entry.due = max(entry.due or 0, now + lease)
        return int(min(self.members[member].due or 0 for member in held))

    def dead(self, limit: int, after: bytes = b"") -> list[tuple[bytes, float, int]]:
        names = sorted(member for member, entry in self.members.items() if entry.state == "dead")
        start = names.index(after) + 1 if after and after in names else 0
        return [(m, self.members[m].score, self.members[m].attempts) for m in names[start : start + limit]]

    def redrive(self, members: list[bytes], once: bytes) -> int:
        if once not in self.once:
            moved = {m for m in members if self.state(m) == "dead"}
            for member in moved:
                self.members[member] = Member(self.members[member].score, None)
            self.token = self.token or bool(moved)
            self.once[once] = len(moved)
        return int(str(self.once[once]))

    def discard(self, members: list[bytes], once: bytes) -> int:
        if once not in self.once:
            gone = {m for m in members if self.state(m) == "dead"}
            for member in gone:
                del self.members[member]
            self.once[once] = len(gone)
        return int(str(self.once[once]))

    def peek(self, count: int) -> list[tuple[bytes, float, int]]:
        return [(member, score, self.members[member].attempts) for score, member in self._ready()[:count]]

    def state(self, member: bytes) -> str:
        return self.members[member].state if member in self.members else "absent"

    def remove(self, members: list[bytes], once: bytes) -> int:
        if not members:
            return 0
        if once not in self.once:
            self.once[once] = sum(self.members.pop(member, None) is not None for member in members)
        return int(str(self.once[once]))

    def stats(self) -> dict[str, int | None]:
        counts: dict[str, int | None] = dict.fromkeys(("ready", "delayed", "leased", "dead"), 0)
        for entry in self.members.values():
            counts[entry.state] = (counts[entry.state] or 0) + 1
        expiries = [int(entry.due or 0) for entry in self.members.values() if entry.state == "leased"]
        return {**counts, "expiry": min(expiries, default=None)}

    def purge(self) -> int:
        count = len(self.members)
        self.members.clear()
        self.sequence = None
        self.token = False
        return count

    def keys(self) -> Keys:
        ready = {m: e.score for m, e in self.members.items() if e.due is None}
        later = {m: float(e.due) for m, e in self.members.items() if e.due is not None}
        # A ready member's score is in `ready`: what its row keeps of an older one does not count.
        rows = {
            m: (e.score if e.due is not None else None, e.attempts, e.asked, e.owner)
            for m, e in self.members.items()
            if e.parked
        }
        found: Keys = {f"once:{once!r}": str(answer).encode() for once, answer in self.once.items()}
        for name, held in self.leases.items():
            ended = self._ended(name)
            found[f"lease:{name!r}"] = sorted(zip(ended[::2], ended[1::2], strict=True)) if ended else held
        found |= {name: value for name, value in (("ready", ready), ("later", later), ("rows", rows)) if value}
        if self.sequence is not None:
            found["meta"] = (self.order, self.sequence)
            found["layout"] = b"1"
        if self.token:
            found["wake"] = [b"1"]
        if self.limit:
            found |= self.limit.keys()
        return found


@dataclass
class Limit:
    """Define the rate limiter: in no span of `per` ms, both ends included, more than `limit`."""

    rates: list[tuple[int, int]]
    grants: list[tuple[int, int]] = field(default_factory=list)
    """(ms, how much), oldest first, all that were ever given"""
    once: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    forgotten: int = 0
    """how many of the oldest grants are no longer kept"""

    def acquire(self, now: int, cost: int, once: bytes) -> tuple[int, int]:
        if once in self.once:
            return self.once[once]
        now = max([now, *(at for at, _ in self.grants)])
        free = [limit - self.used(now, per) for limit, per in self.rates]
        granted = max(0, min(cost, *free))
        retry = 0
        if granted < cost:
            for (_, per), left in zip(self.rates, free, strict=True):
                if left <= granted:
                    oldest = min([at for at, _ in self.grants if at >= now - per], default=now)
                    retry = max(retry, oldest + per + 1 - now)
        if granted:
            self.grants.append((now, granted))
            self.once[once] = granted, retry
            longest = max(per for _, per in self.rates)
            self.forgotten = max(self.forgotten, sum(at < now - longest for at, _ in self.grants))
        return granted, retry

    def closed(self, now: int) -> int:
        """Return in how many ms one more may be granted, 0: now."""
        at_least = max([now, *(at for at, _ in self.grants)])
        waits = [
            min(at for at, _ in self.grants if at >= at_least - per) + per + 1 - now
            for limit, per in self.rates
            if self.used(at_least, per) >= limit
        ]
        return max(waits, default=0)

    def charge(self, now: int) -> None:
        """Grant one, as the queues do, with nothing to remember it by."""
        self.acquire(now, 1, b"")
        self.once.clear()

    def used(self, now: int, per: int) -> int:
        return sum(amount for at, amount in self.grants if now - per <= at <= now)

    def keys(self) -> Keys:
        found: Keys = {f"once:{once!r}": b"%d %d" % answer for once, answer in self.once.items()}
        before, kept = 0, {}
        for i, (at, amount) in enumerate(self.grants):
            if i >= self.forgotten:
                kept[b"%016d %d" % (before, amount)] = float(at)
            before += amount
        if kept:
            found["grants"] = kept
        return found
