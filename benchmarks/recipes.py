"""The two recipes that redisq replaces, in plain redis-py: the control in the tests and the benchmarks.

They are wrong on purpose, each in the ways that `tests/scripts/test_defects.py` shows. Where a recipe leaves a window,
the commands on either side of it are methods of their own, so that a test can put another client's commands between
them.
"""

from __future__ import annotations

from typing import Any

from redis.exceptions import WatchError


class GroupedBuffer:
    """The recipe: a list for each group, pushed on the left and taken from the right, and a sorted set of lengths."""

    def __init__(self, client: Any, prefix: str = "feed") -> None:
        self.client = client
        self.prefix = prefix
        self.counter = f"{prefix}:groups"

    def key(self, group: str) -> str:
        """Give the key of a group's list."""
        return f"{self.prefix}:{group}"

    def push(self, *items: str | int, group: str = "default") -> None:
        """Add items to a group and their number to its counter."""
        pipe = self.client.pipeline()
        pipe.lpush(self.key(group), *items)
        pipe.zincrby(self.counter, len(items), self.key(group))
        pipe.execute()

    def longest(self, count: int) -> list[str]:
        """Name the longest groups, each parsed back from its key."""
        return [key.decode().split(":")[1] for key in self.client.zrevrange(self.counter, 0, count - 1)]

    def pop(self, group: str, size: int, *, prune: bool = True) -> list[bytes]:
        """Take a batch, off by one: what it reads is one item longer than what it trims."""
        return self._take(group, -(size + 1), -(size + 1), size, prune)

    def pop_variant(self, group: str, size: int) -> list[bytes]:
        """Take a batch, off by one the other way: reads and trims one item less than it counts."""
        return self._take(group, -(size - 1), -size, size, True)

    def _take(self, group: str, start: int, stop: int, size: int, prune: bool) -> list[bytes]:
        pipe = self.client.pipeline()
        pipe.lrange(self.key(group), start, -1)
        pipe.ltrim(self.key(group), 0, stop)
        pipe.zincrby(self.counter, -size, self.key(group))
        if prune:
            pipe.zremrangebyscore(self.counter, "-inf", 0)
        batch: list[bytes] = pipe.execute()[0]
        return batch

    def flush(self, groups: int, size: int) -> dict[str, list[bytes]]:
        """Do what cron starts at each interval: choose groups and take a batch of each, every one an API call."""
        return {group: self.pop(group, size) for group in self.longest(groups)}


class WatchedQueue:
    """The recipe: unique members in a sorted set, the lowest score first.

    `aborted` counts the attempts that another client's command undid. Each has wasted three round trips: WATCH, the
    read, and MULTI to EXEC, which redis-py sends as one.
    """

    def __init__(self, client: Any, key: str = "index") -> None:
        self.client = client
        self.key = key
        self.aborted = 0

    def push(self, member: str, score: float) -> None:
        """Add a member or improve its score: check, then add."""
        if self.improves(member, score):
            self.add(member, score)

    def improves(self, member: str, score: float) -> bool:
        """Say whether the member is absent or has a weaker score."""
        current = self.client.zscore(self.key, member)
        return current is None or score < current

    def add(self, member: str, score: float) -> None:
        """Write the score, whatever it was."""
        self.client.zadd(self.key, {member: score})

    def push_watched(self, member: str, score: float) -> None:
        """Do what `push` does with its race closed by WATCH, starting anew until nobody interferes."""
        while True:
            pipe = self.client.pipeline()
            pipe.watch(self.key)
            current = pipe.zscore(self.key, member)
            if current is not None and current <= score:
                pipe.reset()
                return
            pipe.multi()
            pipe.zadd(self.key, {member: score})
            if self._commit(pipe):
                return

    def pop(self) -> bytes | None:
        """Take the first member, starting anew until nobody interferes."""
        while True:
            pipe, member = self.choose()
            if member is None or self.take(pipe, member):
                return member

    def choose(self) -> tuple[Any, bytes | None]:
        """Watch the queue and read its first member."""
        pipe = self.client.pipeline()
        pipe.watch(self.key)
        first = pipe.zrange(self.key, 0, 0)
        if not first:
            pipe.reset()
            return pipe, None
        return pipe, first[0]

    def take(self, pipe: Any, member: bytes) -> bool:
        """Remove the member that was read; False, the port's "aborted", if anybody wrote to the queue meanwhile."""
        pipe.multi()
        pipe.zrem(self.key, member)
        return self._commit(pipe)

    def _commit(self, pipe: Any) -> bool:
        try:
            pipe.execute()
        except WatchError:
            self.aborted += 1
            return False
        return True
