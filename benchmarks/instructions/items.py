"""Instructions of a whole item, pushed, taken and done: through redisq, a plain stream, and other packages.

redisq and the stream are called from this process, with redisq's defaults. The packages run as `benchmarks.peers` runs
them: a process pushes all items, then a worker handles them, with a handler that does nothing. That counts what a
process sends when it starts, too; so it is done with twice as many items as well, and the difference is divided.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import redis

from redisq import Buffer, PriorityQueue
from redisq.embedded import Server

from ..measure import Claim, spread
from ..peers import cases, processes, setup
from .callgrind import counting, find_server, wrapped
from .operations import ITEM, load_scripts

CALLS = 150
PATIENCE = 20.0  # seconds without any item, after which a worker is taken for done
PEERS = {peer.name: peer for peer in cases.PEERS}


@dataclass(frozen=True)
class Parts:
    """Thousands of instructions for one item."""

    push: float
    work: float

    @property
    def whole(self) -> float:
        """Their sum."""
        return self.push + self.work


@dataclass(frozen=True)
class ItemFigure:
    """What several rounds found."""

    name: str
    version: str
    batch: int
    rounds: list[Parts]

    def row(self) -> dict[str, Any]:
        """Return it as it stands in the results."""
        parts = {"push": "push", "take and done": "work", "whole": "whole"}
        values = {name: spread([getattr(one, part) for one in self.rounds], 4) for name, part in parts.items()}
        return {"name": self.name, "version": self.version, "batch": self.batch, "k_instructions": values}


@dataclass(frozen=True)
class Direct:
    """Something that is called from here, in batches of so many: `make` returns how to push one, and to work it off."""

    name: str
    batch: int
    make: Callable[[redis.Redis, int], tuple[Callable[[], object], Callable[[], int]]]

    def count(self, program: Path) -> Parts:
        """Push all, then work all off."""
        with Server(program) as server, counting(server) as counter:
            load_scripts(counter.client)
            push, work = self.make(counter.client, self.batch)
            items = CALLS * self.batch
            counter.start()
            for _ in range(CALLS):
                push()
            pushed = counter.read()
            done = sum(work() for _ in range(CALLS))
            worked = counter.read()
        if done != items:
            raise RuntimeError(f"{self.name}: {done} of {items} items were done")
        return Parts(pushed / items / 1000, worked / items / 1000)


@dataclass(frozen=True)
class Package:
    """A package with a worker of its own."""

    name: str
    peer: str
    mode: str
    batch: int = 1

    def count(self, program: Path) -> Parts:
        """Take what the second half of the items costs."""
        items = max(CALLS, 3 * self.batch)
        some, more = self._run(program, items), self._run(program, 2 * items)
        return Parts(*((b - a) / items / 1000 for a, b in zip(some, more, strict=True)))

    def _run(self, program: Path, items: int) -> tuple[int, int]:
        python = setup.prepare(PEERS[self.peer])
        with processes.site(python, self.peer, self.mode, program) as site, counting(site.server) as counter:
            counter.start()
            site.push(items)
            pushed = counter.read()
            worker = site.start("work")
            try:
                site.wait(items, PATIENCE)
                time.sleep(0.5)  # the last handler has run, its item is not done yet
                worked = counter.read()
            finally:
                processes.kill(worker)
            done = len({entry.item for entry in site.entries()})
        if done != items:
            raise RuntimeError(f"{self.name}: {done} of {items} items were done: {site.errors}")
        return pushed, worked


def version(one: Direct | Package) -> str:
    """Return a package's version, empty for what is no package."""
    return setup.version(PEERS[one.peer]) if isinstance(one, Package) else ""


def _buffer(client: redis.Redis, batch: int) -> tuple[Callable[[], object], Callable[[], int]]:
    buffer = Buffer[str](client, "bench")

    def work() -> int:
        taken = buffer.reserve(batch)
        return taken.ack() if taken else 0

    return lambda: buffer.push(*[ITEM] * batch), work


def _buffer_pop(client: redis.Redis, batch: int) -> tuple[Callable[[], object], Callable[[], int]]:
    buffer = Buffer[str](client, "bench")
    return lambda: buffer.push(*[ITEM] * batch), lambda: len(buffer.pop(size=batch))


def _pushing(client: redis.Redis, batch: int) -> tuple[PriorityQueue[str], Callable[[], object]]:
    queue: PriorityQueue[str] = PriorityQueue(client, "bench")
    members = (f"member-{i:07d}" for i in range(CALLS * batch))
    if batch == 1:
        return queue, lambda: queue.push(next(members))
    return queue, lambda: queue.push_many((next(members), 0) for _ in range(batch))


def _priority(client: redis.Redis, batch: int) -> tuple[Callable[[], object], Callable[[], int]]:
    queue, push = _pushing(client, batch)

    def work() -> int:
        taken = queue.reserve(batch)
        return taken.ack() if taken else 0

    return push, work


def _priority_pop(client: redis.Redis, batch: int) -> tuple[Callable[[], object], Callable[[], int]]:
    queue, push = _pushing(client, batch)
    return push, lambda: len(queue.pop_many(batch))


def _stream(
    client: redis.Redis, batch: int, *, delete: bool = False, one_by_one: bool = False
) -> tuple[Callable[[], object], Callable[[], int]]:
    client.xgroup_create("stream", "workers", "0", mkstream=True)

    def push() -> None:
        with client.pipeline(transaction=False) as pipe:
            for _ in range(batch):
                pipe.xadd("stream", {"item": ITEM})
            pipe.execute()

    def work() -> int:
        taken: Any = client.xreadgroup("workers", "one", {"stream": ">"}, count=batch)
        ids = [entry for entry, _ in taken[0][1]]
        done: Any = 0
        for acked in [[entry] for entry in ids] if one_by_one else [ids]:
            done += client.xack("stream", "workers", *acked)
        if delete:
            client.xdel("stream", *ids)
        return int(done)

    return push, work


def _each(name: str, make: Callable[..., Any]) -> list[Direct]:
    return [Direct(name, batch, make) for batch in (1, 100)]


BUFFER, PRIORITY = "redisq Buffer: push, reserve, ack", "redisq PriorityQueue: push, reserve, ack"
STREAM, BULLMQ = "stream: XADD, XREADGROUP, XACK one by one", "BullMQ for Python"
CONTENDERS: Sequence[Direct | Package] = [
    *_each(BUFFER, _buffer),
    *_each("redisq Buffer: push, pop", _buffer_pop),
    *_each(PRIORITY, _priority),
    *_each("redisq PriorityQueue: push, pop", _priority_pop),
    *_each("stream: XADD, XREADGROUP, XACK", _stream),
    Direct(STREAM, 100, partial(_stream, one_by_one=True)),
    *_each("stream: XADD, XREADGROUP, XACK, XDEL", partial(_stream, delete=True)),
    Package("RQ, SimpleWorker", "rq", "SimpleWorker"),
    Package("RQ, SimpleWorker, no results, enqueue_many", "rq", "SimpleWorker, no results, enqueue_many of 100", 100),
    Package("huey, RedisHuey (at most once)", "huey", "RedisHuey"),
    Package("huey, PriorityRedisHuey (at most once)", "huey", "PriorityRedisHuey"),
    Package(BULLMQ, "bullmq", "concurrency=1"),
    Package(
        "BullMQ for Python, removeOnComplete, addBulk",
        "bullmq",
        "concurrency=1, removeOnComplete, addBulk of 100",
        100,
    ),
    Package("BullMQ for Node", "bullmq_node", "concurrency=1"),
]


def item_figures(*, server: str | None, rounds: int) -> Iterator[ItemFigure]:
    """Count whole items."""
    for one in CONTENDERS:
        if isinstance(one, Package):
            setup.prepare(PEERS[one.peer])  # installs it, if need be, before a server waits for it
        with wrapped(find_server(server)) as program:
            found = [one.count(program) for _ in range(rounds)]
        yield ItemFigure(one.name, version(one), one.batch, found)


def claims(figures: Sequence[ItemFigure]) -> list[Claim]:
    """Say what the documentation says of whole items."""
    whole = {(one.name, one.batch): [parts.whole for parts in one.rounds] for one in figures}

    def claim(what: str, ours: str, theirs: str, batch: int, target: float) -> Claim:
        return Claim.ratio(what, whole[ours, batch], whole[theirs, batch], target, at_most=True)

    one, many, stream = "instructions, one item", "instructions, batches of 100", "a stream, acks one by one"
    return [
        claim(f"{one}: Buffer / BullMQ", BUFFER, BULLMQ, 1, 0.67),
        claim(f"{one}: PriorityQueue / BullMQ", PRIORITY, BULLMQ, 1, 0.76),
        claim(f"{many}: Buffer / {stream}", BUFFER, STREAM, 100, 0.26),
        claim(f"{many}: PriorityQueue / {stream}", PRIORITY, STREAM, 100, 1.1),
    ]
