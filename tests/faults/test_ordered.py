"""An ordered buffer keeps the order of each group, whatever happens to its workers; an unordered one does not.

Eight processes work on 20,000 items of 200 groups. Meanwhile some are killed with -9 and replaced, or suspended past
their lease; handlers fail, ask for a retry, bury, stop in the middle, sleep past their lease, and some items fail each
time until their batch is dead. Every process records what it begins and completes (see `group_worker.py`). From this
record, from how each lease ended (the queue keeps that), and from the dead letters it follows:

- Order: when an item begins, every earlier item of its group is completed or dead. Items that begin again, after a
  crash or a failure, are those of one batch that was not acked.
- One at a time: when a batch begins, no other batch of its group is leased or delayed, and no lease goes on when
  another of the group has begun. Each hand-over begins with the first item that is neither done nor dead.
- Nothing is lost: each item is done or dead, once; an item that is done was completed under the lease that acked it.
- An audit during all this finds nothing.

What a process does after it lost its lease is recorded as such and does not count for the order; its acks are refused.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import redis

from redisq import Buffer
from redisq.embedded import Server
from tests.conftest import TESTED

from . import settings
from .group_worker import GROUPS, LEASE, QUEUE, RECORD, group_of, open_queue, work
from .node import Node
from .worker_processes import WorkerProcesses

pytestmark = [pytest.mark.server, settings.limit]

ITEMS = 20_000
PROCESSES = 8


@dataclass(frozen=True)
class Event:
    """An entry of the record."""

    held: bool
    time: int
    """ms, by the server's clock"""
    lease: str
    verb: str
    """batch, begin or complete"""
    item: int
    """the first one of a batch"""
    items: tuple[int, ...] = ()
    others: int = 0
    """other batches of the group that were out when this one began"""

    @classmethod
    def parse(cls, line: bytes) -> Event:
        """Parse an entry."""
        held, at, lease, verb, *rest = line.decode().split(" ")
        if verb != "batch":
            return cls(held == "1", int(at), lease, verb, int(rest[0]))
        _, numbers, others = rest
        items = tuple(map(int, numbers.split(",")))
        return cls(held == "1", int(at), lease, verb, items[0], items, int(others))


@dataclass
class History:
    """The whole history, once the queue is empty."""

    events: list[Event]
    done: dict[str, int] = field(default_factory=dict)
    """lease -> items that its ack settled"""
    dead: dict[str, tuple[int, list[int]]] = field(default_factory=dict)
    """lease -> ms at which its batch was buried, and its items"""
    ends: Counter[str] = field(default_factory=Counter)
    """how many leases ended in which way"""

    @classmethod
    def read(cls, client: redis.Redis, queue: Buffer[int]) -> History:
        """Read it from the server."""
        lines: Any = client.lrange(RECORD, 0, -1)
        history = cls(list(map(Event.parse, lines)))
        for key in client.scan_iter(f"redisq:{{{QUEUE}}}:ended:*", count=1000):
            how: Any = client.get(key)
            verb, _, count = how.decode().partition(" ")
            history.ends[verb] += 1
            if verb == "ack":
                history.done[key.decode().split(":", 3)[3]] = int(count)
        for batch in queue.dead(1_000_000):
            history.dead[batch.id] = round(batch.deadline * 1000), batch.items
        return history

    @property
    def stale(self) -> list[Event]:
        """What was done after the lease was lost."""
        return [event for event in self.events if not event.held]

    def groups(self, start: int = 0) -> Iterator[tuple[str, list[Event]]]:
        """Return the events of each group, without stale ones."""
        found: defaultdict[str, list[Event]] = defaultdict(list)
        for event in self.events[start:]:
            if event.held:
                found[group_of(event.item)].append(event)
        yield from found.items()

    def items_of(self) -> dict[str, tuple[int, ...]]:
        """Return the items of each lease that was begun."""
        return {event.lease: event.items for event in self.events if event.verb == "batch"}


def check_settled(history: History, pushed: list[int]) -> None:
    """Assert that every item is done or dead, once, and that items that are done were completed."""
    items = history.items_of()
    completed = {(event.lease, event.item) for event in history.events if event.held and event.verb == "complete"}
    done = [(lease, item) for lease, count in history.done.items() for item in items[lease][:count]]
    assert {pair for pair in done if pair not in completed} == set()
    dead = chain.from_iterable(items for _, items in history.dead.values())
    settled = Counter(item for _, item in done) + Counter(dead)
    assert {item for item in pushed if settled[item] == 0} == set(), "lost"
    assert {item for item, times in settled.items() if times > 1} == set(), "settled twice"
    assert settled.keys() == set(pushed)
    assert {event.lease for event in history.stale} & history.done.keys() == set(), "a lost lease was acked"


Ranks = dict[str, list[int]]
"""The items of each group in the order in which they have to be processed."""


def out_of_order(history: History, order: Ranks, start: int = 0) -> list[str]:
    """List the items that began, from event `start` on, while an earlier one was neither completed nor dead."""
    died = {item: at for at, items in history.dead.values() for item in items}
    completed: set[int] = set()
    first: Counter[str] = Counter()
    place = {item: rank for items in order.values() for rank, item in enumerate(items)}
    found = []
    for number, event in enumerate(history.events):
        if not event.held or event.verb == "batch" or event.item not in place:
            continue
        if event.verb == "complete":
            completed.add(event.item)
            continue
        group = group_of(event.item)
        items = order[group]
        while first[group] < len(items) and (
            items[first[group]] in completed or died.get(items[first[group]], event.time + 1) <= event.time
        ):
            first[group] += 1
        if number >= start and place[event.item] > first[group]:
            found.append(f"{event.item} was begun before {items[first[group]]} was completed or dead")
    return found


def concurrent_batches(history: History, start: int = 0) -> list[str]:
    """List the batches that were out, from event `start` on, together with another one of their group."""
    found = [
        f"{event.lease} was begun while {event.others} more were out"
        for event in history.events[start:]
        if event.held and event.others
    ]
    for group, events in history.groups(start):
        over: set[str] = set()
        current = ""
        for event in events:
            if event.lease != current:
                over.add(current)
                current = event.lease
                if current in over:
                    found.append(f"{current} of group {group} went on after the next had begun")
    return found


def wrong_starts(history: History, order: Ranks) -> list[str]:
    """List the hand-overs that did not begin with the first item that was neither done nor dead.

    The outcome of each hand-over determines where the next one of the group has to begin: after the items that it
    acked, and after those that were buried.
    """
    found = []
    begun = dict(history.groups())
    seen = {event.lease for events in begun.values() for event in events}
    # Batches whose last holder had no time to begin, by their first items.
    unseen = {dead[0]: (at, dead) for lease, (at, dead) in history.dead.items() if lease not in seen}
    for group, items in order.items():
        place = {item: rank for rank, item in enumerate(items)}
        first = 0
        for event in begun.get(group, []):
            if event.verb != "batch":
                continue
            while first < len(items) and unseen.get(items[first], (event.time + 1, []))[0] <= event.time:
                first += len(unseen.pop(items[first])[1])
            rank = place[event.item]
            if rank != first or event.items != tuple(items[rank : rank + len(event.items)]):
                found.append(f"{event.lease} of group {group} begins with item {rank}, not {first}")
            first = rank + history.done.get(event.lease, 0)
            if event.lease in history.dead:
                first += len(history.dead[event.lease][1])
        while first < len(items) and items[first] in unseen:
            first += len(unseen.pop(items[first])[1])
        if first != len(items):
            found.append(f"group {group} ended at {first} of {len(items)}")
    return found


class Producer(threading.Thread):
    """A thread that pushes items in chunks, each to one randomly drawn group."""

    def __init__(self, queue: Buffer[int], items: int, seed: int) -> None:
        super().__init__()
        self._queue, self._items, self._random = queue, items, random.Random(seed)
        self.pushed: Ranks = {str(group): [] for group in range(GROUPS)}
        self._next = [*range(GROUPS)]
        self.error: BaseException | None = None

    def run(self) -> None:
        """Push all."""
        remaining = self._items
        try:
            while remaining:
                group = self._random.randrange(GROUPS)
                size = min(remaining, self._random.randint(1, 8))
                chunk = [self._next[group] + GROUPS * i for i in range(size)]
                self._queue.push(*chunk, group=str(group))
                self.pushed[str(group)] += chunk
                self._next[group] += GROUPS * size
                remaining -= size
        except BaseException as error:
            self.error = error

    def finish(self) -> list[int]:
        """Wait until all items are pushed, and return them."""
        self.join()
        if self.error:
            raise self.error
        return [item for items in self.pushed.values() for item in items]


class Disturbance:
    """Kills workers, and suspends them past their lease, at random."""

    def __init__(self, processes: WorkerProcesses, seed: int) -> None:
        self._processes, self._random = processes, random.Random(seed)
        self._suspended: dict[int, float] = {}
        self.kills = self.suspensions = 0

    def step(self) -> None:
        """Let the workers run for a moment, then kill or suspend one."""
        self._processes.watch(self._random.uniform(0, 0.1))
        place = self._random.randrange(PROCESSES)
        pid = self._processes.pid(place)
        if self._random.random() < 0.75:
            self.replace(place)
        elif pid not in self._suspended:
            os.kill(pid, signal.SIGSTOP)
            self._suspended[pid] = time.monotonic() + self._random.uniform(1.2, 2) * LEASE
            self.suspensions += 1
        self.resume(time.monotonic())

    def replace(self, place: int) -> None:
        """Kill one, suspended or not, and start another."""
        self._suspended.pop(self._processes.pid(place), None)
        self._processes.replace(place)
        self.kills += 1

    def resume(self, now: float = float("inf")) -> None:
        """Resume those that were suspended for long enough; by default all."""
        for pid, end in list(self._suspended.items()):
            if end <= now:
                os.kill(pid, signal.SIGCONT)
                del self._suspended[pid]


class Run:
    """A context manager with a server, a producer and eight workers, and with their history at the end."""

    def __init__(self, kind: str, binary: Path, directory: Path, seed: int, items: int) -> None:
        self._kind, self._directory, self._seed, self._items = kind, directory, seed, items
        self._server = Node(binary)
        self._began = time.monotonic()

    def __enter__(self) -> Run:
        self._directory.mkdir()
        self._server.__enter__()
        self.client = self._server.client()
        self.queue = open_queue(self._kind, self.client)
        self._producer = Producer(self.queue, self._items, self._seed)
        self._producer.start()
        self.processes = WorkerProcesses(work, self._kind, self._server.port, self._directory, self._seed, PROCESSES)
        self.disturbance = Disturbance(self.processes, self._seed)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._finish(failed=kind is not None)
        finally:
            self.client.close()
            self._server.__exit__()

    def _finish(self, failed: bool) -> None:
        try:
            while not failed and (self._producer.is_alive() or self.remaining()):
                self.disturbance.step()
                if self.disturbance.kills % 10 == 0:  # what it reports would be wrong, and so would be its repairs
                    assert self.queue.audit(repair=True).ok
        finally:
            self.disturbance.resume()
            self.processes.end()
            pushed = self._producer.finish()
        if not failed:
            assert self.queue.audit().ok
            assert self.client.hlen(f"redisq:{{{QUEUE}}}:busy") == 0
            self.history = History.read(self.client, self.queue)
            self._report()
            check_settled(self.history, pushed)

    @property
    def order(self) -> Ranks:
        """The items of each group in the order in which they were pushed."""
        return self._producer.pushed

    def remaining(self) -> int:
        """Count what is neither done nor dead: items that wait, and batches."""
        stats = self.queue.stats()
        return stats.waiting + stats.leased + stats.delayed

    def _report(self) -> None:
        history, disturbance = self.history, self.disturbance
        begun = Counter(event.item for event in history.events if event.verb == "begin")
        dead = sum(len(items) for _, items in history.dead.values())
        print(
            f"{self._kind}: {self._items} items of {GROUPS} groups, {disturbance.kills} kills,"
            f" {disturbance.suspensions} suspensions;"
            f" {history.ends.total()} leases {dict(history.ends)},"
            f" {sum(times > 1 for times in begun.values())} items begun again,"
            f" {dead} dead in {len(history.dead)} batches, {len(history.stale)} entries after a lost lease;"
            f" {time.monotonic() - self._began:.0f} s"
        )


def play(kind: str, binary: Path, directory: Path, seed: int) -> Run:
    """Process all items, and check that all kinds of events happened."""
    with Run(kind, binary, directory, seed, ITEMS) as run:
        pass
    history, items = run.history, run.history.items_of()
    assert run.disturbance.kills > 10
    assert all(history.ends[how] for how in ("ack", "release", "bury", "lost"))
    assert any(count < len(items[lease]) for lease, count in history.done.items())  # stopped in the middle
    assert history.dead
    assert history.stale
    return run


@pytest.mark.parametrize("kind", ["ordered", "isolated"])
def test_the_order_of_each_group_is_kept(kind: str, binary: Path, tmp_path: Path) -> None:
    for seed in settings.seeds(0.5 / 2 / len(TESTED)):
        run = play(kind, binary, tmp_path / str(seed), seed)
        assert out_of_order(run.history, run.order) == []
        assert concurrent_batches(run.history) == []
        assert wrong_starts(run.history, run.order) == []


def test_control_without_ordered_the_checks_fail(binary: Path, tmp_path: Path) -> None:
    """Nothing is lost either, but each of the checks above fails."""
    run = play("unordered", binary, tmp_path / "workers", settings.SEED)
    found = [
        out_of_order(run.history, run.order),
        concurrent_batches(run.history),
        wrong_starts(run.history, run.order),
    ]
    print("found:", *map(len, found))
    assert all(found)


# The length of the record, then for each batch that is out: group, whether the group waits for it, items.
_BATCHES_OUT = """
local queue, found = ARGV[1], { redis.call('LLEN', KEYS[1]) }
for _, index in ipairs({ 'leases', 'delayed' }) do
  for _, id in ipairs(redis.call('ZRANGE', queue .. index, 0, -1)) do
    local batch = redis.call('LRANGE', queue .. 'batch:' .. id, 0, -1)
    local group = table.remove(batch, 1)
    found[#found + 1] = { group, redis.call('HGET', queue .. 'busy', group) == id and 1 or 0, { unpack(batch, 4) } }
  end
end
return found
"""


def batches_out(client: redis.Redis) -> tuple[int, list[tuple[bytes, int, list[bytes]]]]:
    """Return the length of the record, and the batches that are leased or delayed, at the same moment."""
    length, *batches = client.eval(_BATCHES_OUT, 1, RECORD, f"redisq:{{{QUEUE}}}:")
    return length, batches


@pytest.mark.parametrize(("before", "after"), [("unordered", "ordered"), ("ordered", "unordered")])
def test_the_setting_may_be_changed_on_a_live_queue(before: str, after: str, binary: Path, tmp_path: Path) -> None:
    """The workers are replaced one by one, as in a deploy, during operation; nothing is lost in either direction.

    After a change to `ordered`, there is order as soon as the earlier batches are settled.
    """
    start = 0
    with Run(before, binary, tmp_path / "workers", settings.SEED, ITEMS) as run:
        while run.queue.stats().done < ITEMS // 10:
            run.disturbance.step()
        run.processes.structure = after
        for _ in range(PROCESSES):
            run.processes.watch(0.03)
            run.disturbance.replace(0)
        _, batches = batches_out(run.client)
        old = {item for _, _, items in batches for item in items}
        while after == "ordered":
            start, batches = batches_out(run.client)
            groups = Counter(group for group, _, _ in batches)
            settled = old.isdisjoint(item for _, _, items in batches for item in items)
            if settled and all(named for _, named, _ in batches) and max(groups.values(), default=0) <= 1:
                break
            run.processes.watch(0.01)
    if after == "ordered":
        later = sum(event.verb == "begin" for event in run.history.events[start:])
        print(f"{later} items begun since there was order")
        assert later > ITEMS // 10
        assert out_of_order(run.history, run.order)  # before
        assert out_of_order(run.history, run.order, start) == []
        assert concurrent_batches(run.history, start) == []


def test_a_batch_from_before_the_change_does_not_free_its_group(server: Server) -> None:
    """It comes back while an ordered batch of its group is out, and is acked: the group still waits for that one."""
    with server.client() as client:
        unordered, ordered = Buffer[int](client, QUEUE), Buffer[int](client, QUEUE, ordered=True)
        unordered.push(*range(6))
        before, first = unordered.reserve(2), ordered.reserve(2)
        assert before
        assert first
        before.release()
        again = ordered.reserve(2)
        assert again
        assert again.items == before.items
        again.ack()
        assert ordered.reserve(2) is None
        first.ack()
        second = ordered.reserve(2)
        assert second
        assert second.items == [4, 5]
