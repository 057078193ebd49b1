"""What the queue itself tells of its leases: who is in each while it is held, and how each ended.

What is remembered of an end is one word, and the window must outlast the test. Who was in a lease that nobody wrote
down, because its holder was killed first, only those know who looked while it was held.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import redis

from redisq import Buffer, PriorityQueue


@dataclass
class Ledger:
    """How each lease ended, by its id; who died without a word cannot tell, the queue can."""

    acked: dict[str, int] = field(default_factory=dict)
    """how many items the ack settled"""
    released: dict[str, int] = field(default_factory=dict)
    """how many items the release gave back"""
    expired: set[str] = field(default_factory=set)

    @property
    def ids(self) -> set[str]:
        """Return all leases that there were."""
        return {*self.acked, *self.released, *self.expired}


def read_ledger(client: redis.Redis, name: str = "q") -> Ledger:
    """Read how each lease ended, once none is held any more."""
    ledger = Ledger()
    for key in client.scan_iter(f"redisq:{{{name}}}:ended:*", count=1000):
        lease = key.split(b":", 3)[3].decode()
        how: Any = client.get(key)
        verb, _, count = how.partition(b" ")
        if verb == b"lost":
            assert not count
            ledger.expired.add(lease)
        else:
            assert verb in (b"ack", b"release")
            (ledger.acked if verb == b"ack" else ledger.released)[lease] = int(count)
    return ledger


class Watch:
    """A thread that writes down what each lease holds, from `with` to the end of it.

    A lease whose holder was killed is there until it runs out, so it is seen if that is longer than a look takes.
    """

    def __init__(self, open_queue: Callable[[], Buffer[Any] | PriorityQueue[Any]]) -> None:
        self._open_queue = open_queue
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.seen: dict[str, list[Any]] = {}
        """the items of each lease, by its id"""

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(0.1):
            with contextlib.suppress(redis.ConnectionError, redis.TimeoutError):  # the server was killed
                self.seen.update((batch.id, batch.items) for batch in self._open_queue().leased(1_000))
