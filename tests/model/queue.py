"""What both structures share: the mark and its counters, remembered answers, wake-ups, pauses, rates."""

from __future__ import annotations

from dataclasses import dataclass, field

from .base import FOREVER, Keys, LeaseLost
from .limit import Limit


@dataclass
class Queue:
    """The part of a queue that does not depend on its structure."""

    limit: Limit = field(default_factory=lambda: Limit([]))
    """what hand-overs are charged against"""
    window: int = 1
    """how long answers are kept; the model only distinguishes 0, not at all"""
    once: dict[bytes, bytes] = field(default_factory=dict)
    """dedup id -> the answer to its call"""
    ended: dict[bytes, bytes] = field(default_factory=dict)
    """lease -> how it ended: `ack 5`, `release 5`, `bury 5`, `lost`"""
    counters: dict[str, int] = field(default_factory=dict)
    """done, failed, buried, trimmed: since the queue was marked"""
    totals: dict[str, int] = field(default_factory=dict)
    """how many items were pushed, and left the queue in each way, over all time: for `check`"""
    mark: str = ""
    """the structure as the first push wrote it, until a purge"""
    drained: bool = False
    """whether the queue is empty, so that mark and counters expire after seven days"""
    token: bool = False
    """whether there is a wake-up for a blocked client"""
    paused: tuple[int, bytes] | None = None
    """until when (0: until resumed) and why"""

    # -- pauses

    def pause(self, now: int, time: int, reason: bytes, once: bytes) -> int:
        """Pause the queue for `time` ms, or until it is resumed (0). An empty queue stays empty.

        A client is woken: it may be waiting for the end of an earlier pause.
        """
        if once not in self.once:
            self.token = self.token or (self.paused is not None and not self.is_empty())
            self.paused = now + time if time else 0, reason
            self._remember(once, b"1")
        return 1

    def resume(self, once: bytes) -> int:
        """End the pause, and wake a blocked client; return 1 if there was one.

        The server deletes a pause when it ends; the model, whose time is given, keeps it until then.
        """
        if once not in self.once:
            was, self.paused = self.paused is not None, None
            self.token = self.token or was
            self._forget_if_empty()
            self._remember(once, b"%d" % was)
            return int(was)
        return int(self.once[once])

    def is_paused(self, now: int) -> bool:
        """Return whether the queue is paused now."""
        return self.paused is not None and (self.paused[0] == 0 or self.paused[0] > now)

    def _pause_left(self, now: int) -> int:
        return self.paused[0] - now if self.paused and self.paused[0] else FOREVER

    # -- what calls leave behind

    def _remember(self, once: bytes, answer: bytes) -> None:
        if self.window:
            self.once[once] = answer

    def _remember_end(self, lease: bytes, how: bytes, replace: bool = True) -> None:
        if self.window and (replace or lease not in self.ended):
            self.ended[lease] = how

    def _before(self, lease: bytes, verb: bytes, held: bool) -> int | None:
        """Return the answer to the call if it is sent again, or None."""
        if lease in self.ended or not held:
            how, _, count = self.ended.get(lease, b"").partition(b" ")
            if how != verb:
                raise LeaseLost
            return int(count)
        return None

    def _count(self, name: str, number: int) -> None:
        """Add to a counter that users see."""
        if number:
            self.counters[name] = self.counters.get(name, 0) + number
        self._total(name, number)

    def _total(self, name: str, number: int) -> None:
        self.totals[name] = self.totals.get(name, 0) + number

    def _write_mark(self, mark: str) -> None:
        """Mark the queue, or keep the mark of one that was empty."""
        self.mark, self.drained = mark, False

    def is_empty(self) -> bool:
        """Return whether nothing is left in any state; a pause of the queue does not count, one of a group does."""
        raise NotImplementedError

    def _forget_if_empty(self) -> None:
        """Remove what an empty queue does not need."""
        if self.is_empty():
            self.drained, self.token = bool(self.mark), False

    def _purged(self) -> None:
        self.mark, self.drained, self.token = "", False, False
        self.counters.clear()

    # -- the key space

    def keys(self, now: int) -> Keys:
        """Return what the server must hold, without a pause that has ended, which may still be there."""
        found: Keys = {b"once:" + once: answer for once, answer in self.once.items()}
        found |= {b"ended:" + lease: how for lease, how in self.ended.items()}
        found |= self.limit.keys()
        if self.paused and self.is_paused(now):
            found[b"paused"] = b"%d %s" % self.paused
        if self.token:
            found[b"wake"] = [b"1"]
        if self.mark:
            found[b"meta"] = self._meta()
        return found

    def _meta(self) -> dict[bytes, bytes]:
        counters = {name.encode(): b"%d" % number for name, number in self.counters.items()}
        return {b"queue": self.mark.encode(), **counters}

    def expiring(self) -> set[bytes]:
        """Return the keys that must have a TTL; no other may have one."""
        names = {b"once:" + once for once in self.once} | {b"ended:" + lease for lease in self.ended} | {b"grants"}
        if self.drained:
            names.add(b"meta")
        if self.paused and self.paused[0]:
            names.add(b"paused")
        return names
