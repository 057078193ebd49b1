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


@dataclass
class Buffer:
    """Define the grouped batch buffer."""

    items: dict[bytes, list[bytes]] = field(default_factory=dict)
    """group -> waiting items, oldest first; no group without items"""
    since: dict[bytes, int] = field(default_factory=dict)
    """group -> ms at which it became non-empty or was last served"""
    once: dict[bytes, int] = field(default_factory=dict)

    def push(self, now: int, group: bytes, items: list[bytes], once: bytes, front: bool = False) -> int:
        if once in self.once:
            return self.once[once]
        if items:
            waiting = self.items.get(group, [])
            self.items[group] = items + waiting if front else waiting + items
            self.since.setdefault(group, now)
            self.once[once] = len(self.items[group])
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

    def stats(self, now: int) -> tuple[int, int, int | None]:
        oldest = now - min(self.since.values()) if self.since else None
        return sum(map(len, self.items.values())), len(self.items), oldest

    def purge(self) -> int:
        count = sum(map(len, self.items.values()))
        self.items.clear()
        self.since.clear()
        return count

    def keys(self) -> Keys:
        found: Keys = {f"items:{group!r}": items for group, items in self.items.items()}
        found |= {f"once:{once!r}": str(answer).encode() for once, answer in self.once.items()}
        if self.items:
            found["groups"] = {group: len(items) for group, items in self.items.items()}
            found["since"] = dict(self.since)
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
    members: dict[bytes, Member] = field(default_factory=dict)
    once: dict[bytes, object] = field(default_factory=dict)
    sequence: int | None = None

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

    def _wake(self, now: int) -> None:
        due = sorted((e.due, m) for m, e in self.members.items() if e.due is not None and e.due <= now)
        for _, member in due[:WAKES]:
            self.members[member].due = None

    def _ready(self) -> list[tuple[float, bytes]]:
        return sorted((entry.score, member) for member, entry in self.members.items() if entry.due is None)

    def pop(self, now: int, count: int) -> list[tuple[bytes, float, int]]:
        self._wake(now)
        return [(member, score, self.members.pop(member).attempts + 1) for score, member in self._ready()[:count]]

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

    def stats(self) -> dict[str, int]:
        counts = dict.fromkeys(("ready", "delayed", "leased", "dead"), 0)
        for entry in self.members.values():
            counts[entry.state] += 1
        return counts

    def purge(self) -> int:
        count = len(self.members)
        self.members.clear()
        self.sequence = None
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
        found |= {name: value for name, value in (("ready", ready), ("later", later), ("rows", rows)) if value}
        if self.sequence is not None:
            found["meta"] = (self.order, self.sequence)
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
