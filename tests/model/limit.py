"""The rate limiter: no span of `per` ms, both ends included, has more than `limit` grants."""

from __future__ import annotations

from dataclasses import dataclass, field

from .base import Keys

PRUNED = 100
"""how many grants older than every span one call removes"""


@dataclass
class Grant:
    """An amount that was granted, and the total granted before it."""

    at: int
    before: int
    amount: int


@dataclass
class Limit:
    """The grants of a limiter, or of a queue with rates."""

    rates: list[tuple[int, int]]
    """limit and per"""
    grants: list[Grant] = field(default_factory=list)
    """the earliest first"""
    once: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    window: int = 1
    """0: answers are not kept"""

    def acquire(self, now: int, cost: int, once: bytes) -> tuple[int, int]:
        """Grant up to `cost`; return how much, and in how many ms more can be granted (0: nothing is missing).

        A call that granted nothing is not remembered: sent again, it is evaluated again.
        """
        if once in self.once:
            return self.once[once]
        self._redate(now)
        granted = max(0, min(cost, *(limit - self._used(now, per) for limit, per in self.rates)))
        used_up = [(limit, per) for limit, per in self.rates if limit - self._used(now, per) <= granted]
        retry = max(self._free_in(now, *rate) for rate in used_up) if granted < cost else 0
        if granted:
            self.charge(now, granted)
            if self.window:
                self.once[once] = granted, retry
        return granted, retry

    def retry_after(self, now: int) -> int:
        """Return in how many ms one more may be granted, 0: now."""
        if self.rates:
            self._redate(now)
        used_up = [(limit, per) for limit, per in self.rates if self._used(now, per) >= limit]
        return max((self._free_in(now, *rate) for rate in used_up), default=0)

    def is_used_up(self, now: int) -> bool:
        """Return whether a rate is used up, without changing the dates of grants."""
        return Limit(self.rates, list(self.grants)).retry_after(now) > 0

    def charge(self, now: int, amount: int) -> None:
        """Record a grant, and remove some of those that are older than every span."""
        if not self.rates:
            return
        self.grants.append(Grant(now, self._total(), amount))
        longest = max(per for _, per in self.rates)
        gone = sum(grant.at < now - longest for grant in self.grants)
        del self.grants[: min(gone, PRUNED)]

    def _redate(self, now: int) -> None:
        """Date grants that lie in the future, because the clock was set back, to now."""
        later = [grant for grant in self.grants if grant.at > now]
        if later:
            kept = self.grants[: -len(later)]
            self.grants = [*kept, Grant(now, later[0].before, sum(grant.amount for grant in later))]

    def _total(self) -> int:
        return self.grants[-1].before + self.grants[-1].amount if self.grants else 0

    def _used(self, now: int, per: int) -> int:
        return sum(grant.amount for grant in self.grants if grant.at >= now - per)

    def _free_in(self, now: int, limit: int, per: int) -> int:
        """Return in how many ms enough grants have left the span: up to a ms late, never early.

        Usually it is the first one that has to leave. If the clock or the limit was set back, there may be more in the
        span than the limit allows.
        """
        inside = [grant for grant in self.grants if grant.at >= now - per]
        used = sum(grant.amount for grant in inside)
        at = now
        for grant in inside:
            at, used = grant.at, used - grant.amount
            if used < limit:
                break
        return at + per + 1 - now

    def keys(self, now: int = 0) -> Keys:  # noqa: ARG002, the same signature as the queues'
        """Return what the server must hold."""
        found: Keys = {b"once:" + once: b"%d %d" % answer for once, answer in self.once.items()}
        if self.grants:
            found[b"grants"] = {
                b"%016d %d %d" % (grant.before, grant.amount, grant.at): float(grant.at) for grant in self.grants
            }
        return found

    def expiring(self) -> set[bytes]:
        """Return the keys that must have a TTL: all."""
        return set(self.keys())

    def check(self) -> None:
        """Assert that the grants are in order and add up; that they keep the limit is asserted in the walk."""
        for earlier, later in zip(self.grants, self.grants[1:], strict=False):
            assert earlier.at <= later.at
            assert earlier.before + earlier.amount == later.before
