"""Clients that use both structures during faults, and a record of which calls were acknowledged."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import redis

from redisq import Buffer, LeaseLost, NotDurable, PriorityQueue
from tests.waiting import until

CLIENTS = 4
Queue = Buffer[Any] | PriorityQueue[Any]


@dataclass
class Acknowledged:
    """A record of acknowledged calls, over all failovers."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    calls: int = 0
    pushed: list[str] = field(default_factory=list)
    acked: list[str] = field(default_factory=list)
    lost_leases: int = 0

    def more(self, calls: int) -> None:
        """Wait until this many more calls are acknowledged."""
        enough = self.calls + calls
        until(lambda: self.calls >= enough, "calls are acknowledged")

    def count(self, what: list[str], items: list[str]) -> None:
        """Record one call."""
        with self.lock:
            self.calls += 1
            what.extend(items)


class QueueClient:
    """A client that pushes, reserves and acks on both structures until a fault, or until a call is not acknowledged."""

    def __init__(self, name: str, acknowledged: Acknowledged) -> None:
        self.name, self.acknowledged = name, acknowledged
        self.serial = 0
        self.unanswered: Callable[[list[Queue]], None] | None = None
        """The call that was not acknowledged, to be repeated."""

    def work(self, queues: list[Queue], broken: threading.Event) -> None:
        """Make calls until the fault, and until one of them failed because of it."""
        with contextlib.suppress(redis.ConnectionError):
            while not broken.is_set() or not self.unanswered:
                with contextlib.suppress(NotDurable):  # a busy machine, or the blocked link
                    if self.unanswered:
                        self.unanswered(queues)
                    for which in range(2):
                        self._push(which, queues)
                        if self.serial % 3 == 0:
                            self._take(which, queues)

    def again(self, queues: list[Queue]) -> None:
        """Repeat the call that was not acknowledged, with the same id, on the new master."""
        while self.unanswered:
            with contextlib.suppress(NotDurable):
                self.unanswered(queues)

    def _do(self, call: Callable[[list[Queue]], None], queues: list[Queue]) -> None:
        def attempt(queues: list[Queue]) -> None:
            call(queues)
            self.unanswered = None

        self.unanswered = attempt
        attempt(queues)

    def _push(self, which: int, queues: list[Queue]) -> None:
        self.serial += 1
        item = f"{self.name} {self.serial}"

        def push(queues: list[Queue]) -> None:
            queues[which].push(item, token=item)
            self.acknowledged.count(self.acknowledged.pushed, [item])

        self._do(push, queues)

    def _take(self, which: int, queues: list[Queue]) -> None:
        self.serial += 1
        name = f"lease {self.name} {self.serial}"
        held: list[Any] = []

        def reserve(queues: list[Queue]) -> None:
            batch = queues[which].reserve(2, lease_id=name)
            if batch:
                held.append(batch)
            self.acknowledged.count([], [])

        def ack(queues: list[Queue]) -> None:
            try:
                queues[which].ack(held[0])
                self.acknowledged.count(self.acknowledged.acked, held[0].items)
            except LeaseLost:
                with self.acknowledged.lock:
                    self.acknowledged.lost_leases += 1

        self._do(reserve, queues)
        if held:
            self._do(ack, queues)


def queues(client: redis.Redis, durability: Any) -> list[Queue]:
    """Return both structures, with leases and dedup windows that outlast the test."""
    options: dict[str, Any] = {"lease": 3600, "dedup_window": 3600, "durability": durability}
    return [Buffer(client, "b", **options), PriorityQueue(client, "p", **options)]


def contents(client: Any) -> Counter[str]:
    """Count the items of both queues, waiting or leased."""
    found: list[bytes] = []
    for key in client.scan_iter("redisq:{b}:*", count=1000):
        noun = key.split(b":")[2]
        if noun in (b"items", b"batch"):
            found += [item.strip(b'"') for item in client.lrange(key, 4 if noun == b"batch" else 0, -1)]
    found += client.smembers("redisq:{p}:held")
    for noun in ("ready", "delayed", "dead"):
        found += client.zrange(f"redisq:{{p}}:{noun}", 0, -1)
    return Counter(item.decode() for item in found)
