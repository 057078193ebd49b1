"""What `redisq top` shows, as numbers: what all queues hold at a moment, and how fast that changes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import redis

from ..blocking.queues import overview
from ..core.clients import remedy_for
from ..core.documents import Stats, oldest_wait
from ..core.queues import QueueOverview
from ..core.rates import rates
from .connection import Client, nodes

SORTS = ("waiting", "oldest", "done", "name")
_FIND_EVERY = 30.0  # seconds: new queues are found by a scan of all keys


@dataclass(frozen=True)
class ServerFacts:
    """What a server says of itself; of a cluster, what its masters say together."""

    nodes: int
    version: str
    memory: int
    """Bytes in use."""
    clients: int
    ops: int
    """Commands a second."""


@dataclass(frozen=True)
class Sample:
    """What all queues hold at a moment."""

    queues: list[QueueOverview]
    server: ServerFacts | None
    """None if this user may not read it."""
    time: float
    """By the server's clock, in unix seconds."""


@dataclass(frozen=True)
class Row:
    """A queue, and changes a second since the sample before; None without one."""

    queue: QueueOverview
    change: float | None = None
    done: float | None = None
    failed: float | None = None


class Sampler:
    """A reader of samples that scans for queues only now and then."""

    def __init__(self, client: Client, prefix: str) -> None:
        self._client, self._prefix = client, prefix
        self._names: list[str] | None = None
        self._found = 0.0

    def look(self) -> Sample:
        """Read a sample."""
        finds = self._names is None or time.monotonic() - self._found >= _FIND_EVERY
        queues = overview(self._client, self._prefix, None if finds else self._names)
        if finds:
            self._names, self._found = [one.info.name for one in queues], time.monotonic()
        server, now = _server(self._client)
        return Sample(queues, server, now)


def rows(sample: Sample, before: Sample | None, sort: str) -> list[Row]:
    """Return the queues of a sample in order, those that cannot be read last."""
    old = {one.info: one.stats for one in before.queues} if before else {}
    seconds = sample.time - before.time if before else 1.0
    found = [_row(one, old.get(one.info), seconds) for one in sample.queues]
    return sorted(found, key=lambda row: (row.queue.stats is None, -_weight(row, sort), row.queue.info))


def _row(queue: QueueOverview, before: Stats | None, seconds: float) -> Row:
    changed = rates(queue.stats, before, seconds)
    return Row(queue, changed.change, changed.done, changed.failed)


def _weight(row: Row, sort: str) -> float:
    stats = row.queue.stats
    if stats is None or sort == "name":
        return 0
    if sort == "done":
        return row.done or 0
    oldest = oldest_wait(stats)
    return stats.waiting if sort == "waiting" else -1 if oldest is None else oldest


def _server(client: Client) -> tuple[ServerFacts | None, float]:
    """Return what the server says of itself, and its clock."""
    try:
        found: list[Mapping[str, Any]] = [node.info() for _, node in nodes(client)]
    except redis.ResponseError as error:
        if remedy_for(error):
            return None, time.time()  # no INFO for this user
        raise
    one = found[0]
    valkey = one.get("valkey_version")
    facts = ServerFacts(
        len(found),
        f"Valkey {valkey}" if valkey else f"Redis {one.get('redis_version', '?')}",
        *(sum(int(each.get(name, 0)) for each in found) for name in _SUMS),
    )
    return facts, int(one.get("server_time_usec", time.time() * 1e6)) / 1e6


_SUMS = ("used_memory", "connected_clients", "instantaneous_ops_per_sec")
