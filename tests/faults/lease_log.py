"""What the queue itself keeps of its leases: which items each has, and how each ended.

The end of a lease is kept as one word, and the dedup window must outlast the test. If the holder was killed before it
could record the items of its lease, they can only be read while the lease is held.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import redis

from redisq import Buffer, PriorityQueue

Queue = Buffer[Any] | PriorityQueue[Any]


@dataclass
class LeaseLog:
    """How each lease ended, by its id, as the queue keeps it, because a killed worker cannot record it."""

    acked: dict[str, int] = field(default_factory=dict)
    """how many items the ack settled"""
    released: dict[str, int] = field(default_factory=dict)
    """how many items the release returned"""
    expired: set[str] = field(default_factory=set)

    @property
    def ids(self) -> set[str]:
        """Return the ids of all leases."""
        return {*self.acked, *self.released, *self.expired}


def read_lease_log(client: redis.Redis, name: str = "q") -> LeaseLog:
    """Read how each lease ended, once none is held any more."""
    lease_log = LeaseLog()
    for key in client.scan_iter(f"redisq:{{{name}}}:ended:*", count=1000):
        lease = key.split(b":", 3)[3].decode()
        how: Any = client.get(key)
        verb, _, count = how.partition(b" ")
        if verb == b"lost":
            assert not count
            lease_log.expired.add(lease)
        else:
            assert verb in (b"ack", b"release")
            (lease_log.acked if verb == b"ack" else lease_log.released)[lease] = int(count)
    return lease_log


class LeaseWatch:
    """A context manager whose thread records the items of each lease.

    The lease of a killed holder stays until it expires, so it is seen if that takes longer than one pass of the thread.
    """

    def __init__(self, connect: Callable[[], redis.Redis], open_queue: Callable[[redis.Redis], Queue]) -> None:
        self._connect, self._open_queue = connect, open_queue
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.seen: dict[str, list[Any]] = {}
        """the items of each lease, by its id"""

    def __enter__(self) -> LeaseWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(0.1):
            with contextlib.suppress(redis.ConnectionError, redis.TimeoutError), self._connect() as client:
                self.seen.update((batch.id, batch.items) for batch in self._open_queue(client).leased(1_000))


def check_attempts(lease_log: LeaseLog, handed: dict[str, tuple[int, list[Any]]], seen: dict[str, list[Any]]) -> None:
    """Check that each member had one more attempt than expired or released leases.

    A batch reports the highest attempts of its members. `handed`: attempts and items of the leases that workers
    recorded. A lease that neither a worker nor the watch has seen, on a busy machine, may have had any member.
    """
    members = {**seen, **{name: items for name, (_, items) in handed.items()}}
    returned = Counter(item for name in lease_log.expired | lease_log.released.keys() for item in members.get(name, ()))
    unseen = len(lease_log.expired - members.keys())
    for name in lease_log.acked:
        most, items = handed[name]
        before = max(returned[item] for item in items)
        assert 1 + before <= most <= 1 + before + unseen
