"""All faults at once: workers and server killed, calls lost, scripts unloaded, clocks wrong; each item is acked once.

As in `tests/scripts/test_kills.py`, workers record what they are handed before they process it, and the queue keeps by
lease id how each lease ended. The differences:

- The server is killed at any moment with `appendfsync everysec`, so it may have answered calls that its file lacks: up
  to two seconds of them, if a sync was under way. The file holds a prefix of the history, of whole calls. So the
  queue's own records decide, because they are lost together with the items; and after each kill the producer repeats
  what it has pushed since the last one, with the same tokens: what the file holds is not pushed twice, what it lost is
  pushed. So every item must be acked exactly once in the history that the queue keeps.
- An ack that was answered but that the queue does not know was undone by a kill: it must have been answered within the
  seconds before one. Their number is printed; nothing else may be undone.
- In an ordered buffer, the items of each group are acked in the order in which they were pushed.
- No item is in two leases at a time: if it was handed out after another lease expired, that was after its deadline.
  All deadlines are by the server's clock, whatever the workers' clocks say.
- Hand-overs = acks + expiries + releases. For a buffer, the attempts of the acked batches are added up. A member of a
  priority queue has one more attempt than expired or released leases, and a batch reports the highest.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import redis

from redisq import Buffer
from redisq.embedded import Server
from tests.conftest import TESTED

from . import settings
from .lease_log import LeaseLog, LeaseWatch, check_attempts, read_lease_log
from .proxy import Fault, Proxy, Seeded
from .worker_processes import HOURS, LEASE, Queue, WorkerLog, WorkerProcesses, open_queue, work, work_naively

pytestmark = [pytest.mark.server, settings.limit]

ITEMS = settings.pick(2_000, 20_000)
KILLS = settings.pick(6, 40)
CRASHES = settings.pick(1, 4)
CHUNK = 20
GROUPS = 5
UNSAFE = 3.0  # seconds before a kill from which the server's file may be incomplete
CHANCES = {Fault.REQUEST: 0.02, Fault.TORN_REQUEST: 0.01, Fault.REPLY: 0.02, Fault.TORN_REPLY: 0.01}


class FaultyServer:
    """A server with an AOF synced every second, behind a proxy that loses calls, and whose scripts are flushed."""

    def __init__(self, binary: Path, directory: Path, seed: int, only: tuple[bytes, ...] | None) -> None:
        self._binary, self._directory = binary, directory
        directory.mkdir()
        self._plan = Seeded(seed, CHANCES, only)
        self.crashes: list[float] = []
        self.flushes = 0
        self._stop = threading.Event()
        self._flusher = threading.Thread(target=self._flush)

    def __enter__(self) -> FaultyServer:
        self.server = self._start()
        try:
            self.proxy = Proxy(self.server.socket, self._plan).__enter__()
            self._flusher.start()
        except BaseException:
            self.server.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._flusher.join()
        self.proxy.__exit__()
        self.server.stop()

    def _start(self) -> Server:
        options = ("--appendonly", "yes", "--appendfsync", "everysec", "--loglevel", "warning")
        return Server(self._binary, *options, directory=self._directory).__enter__()

    def crash(self) -> None:
        """Kill the server with -9 at any moment, and restart it on its files."""
        with self.server.client() as client:
            pid = client.info("server")["process_id"]
        os.kill(pid, signal.SIGKILL)
        self.crashes.append(time.monotonic())
        self.server.stop()
        self.server = self._start()
        self.proxy.upstream = self.server.socket

    def _flush(self) -> None:
        while not self._stop.wait(0.1):
            with contextlib.suppress(redis.ConnectionError), self.server.client(retry=None) as client:
                client.script_flush()
                self.flushes += 1


class Producer:
    """Pushes each chunk through the proxy until it is answered, and repeats what a kill may have lost."""

    def __init__(self, push: Callable[[list[int]], object]) -> None:
        self._push = push
        self._next = 0
        self._unsafe: list[list[int]] = []

    def push(self, until: int) -> None:
        """Push the items up to this number."""
        while self._next < until:
            chunk = list(range(self._next, min(self._next // CHUNK * CHUNK + CHUNK, until)))  # within one group
            self._push_until_answered(chunk)
            self._unsafe.append(chunk)
            self._next += len(chunk)

    def repeat(self) -> None:
        """Push again what was pushed since the last call of this method."""
        for chunk in self._unsafe:
            self._push_until_answered(chunk)
        self._unsafe.clear()

    def _push_until_answered(self, chunk: list[int]) -> None:
        while True:
            try:
                self._push(chunk)
                return
            except (redis.ConnectionError, redis.TimeoutError):
                pass


def push_function(queue: Queue) -> Callable[[list[int]], object]:
    """Return a function that pushes a chunk, with the same token each time."""
    if isinstance(queue, Buffer):
        return lambda chunk: queue.push(*chunk, group=str(chunk[0] // CHUNK % GROUPS), token=str(chunk[0]))
    return lambda chunk: queue.push_many([(str(i), i % 3) for i in chunk], token=str(chunk[0]))


def run(
    site: FaultyServer,
    processes: WorkerProcesses,
    producer: Producer,
    rng: random.Random,
    kills: int,
    crashes: int,
    items: int,
) -> None:
    """Push and kill a worker in turns; at some of the kills, the server too."""
    crash_at = rng.sample(range(kills), crashes)
    for kill in range(kills):
        producer.push(items * (kill + 1) // kills)
        processes.watch(rng.uniform(0.05, 0.3))
        processes.kill(busy=kill % 2 == 0)
        if kill in crash_at:
            site.crash()
            producer.repeat()


@pytest.mark.parametrize("structure", ["buffer", "ordered buffer", "priority"])
def test_every_item_is_acked_once(structure: str, binary: Path, tmp_path: Path) -> None:
    for seed in settings.seeds(0.9 / 3 / len(TESTED)):
        begun, day = time.monotonic(), time.time()
        with FaultyServer(binary, tmp_path / f"server {seed}", seed, (b"EVALSHA", b"EVAL", b"BLPOP")) as site:
            (tmp_path / f"{seed}").mkdir()
            processes = WorkerProcesses(work, structure, site.proxy.port, tmp_path / f"{seed}", seed)
            try:
                watch = LeaseWatch(lambda site=site: site.server.client(), partial(open_queue, structure))  # type: ignore[misc]
                with watch, redis.Redis(port=site.proxy.port, socket_timeout=2.0) as client:
                    producer = Producer(push_function(open_queue(structure, client)))
                    run(site, processes, producer, random.Random(seed), KILLS, CRASHES, ITEMS)
                    with site.server.client() as direct:
                        queue = open_queue(structure, direct)
                        while remaining(queue):
                            processes.watch(0.05)
            finally:
                processes.end()
            with site.server.client() as client:
                assert open_queue(structure, client).audit().ok
                lease_log = read_lease_log(client)
            lost = Counter[str]()
            for fault, count in site.proxy.injected.items():
                lost["requests" if "REQUEST" in fault.name else "replies"] += count
        worker_log = WorkerLog.read(processes)
        assert all(day < deadline < time.time() + 2 * LEASE for deadline in worker_log.deadlines.values())
        taken_back = check(structure, lease_log, worker_log, watch, site.crashes)
        check_leases(lease_log, worker_log)
        if structure == "ordered buffer":
            check_order(lease_log, worker_log)
        assert min(lost["requests"], lost["replies"]) > 0.01 * (len(lease_log.acked) + ITEMS / CHUNK)
        assert site.flushes > 5
        assert processes.skewed() == set(HOURS)
        print(
            f"{structure} {binary}: {ITEMS} items, {len(lease_log.ids)} hand-overs = {len(lease_log.acked)} acks"
            f" + {len(lease_log.expired)} expiries + {len(lease_log.released)} releases; {KILLS} workers and"
            f" {len(site.crashes)} servers killed, {dict(lost)} lost, {site.flushes} flushes,"
            f" {taken_back} answered acks taken back by a kill; 0 lost, 0 twice; {time.monotonic() - begun:.0f} s"
        )


def check(structure: str, lease_log: LeaseLog, worker_log: WorkerLog, watch: LeaseWatch, crashes: list[float]) -> int:
    """Compare the workers' records with the queue's; return how many answered acks a kill of the server undid."""
    assert lease_log.acked.keys() | lease_log.released.keys() <= worker_log.handed.keys()
    pushed = set[Any](map(str, range(ITEMS)) if structure == "priority" else range(ITEMS))
    acked = Counter(item for name in lease_log.acked for item in worker_log.handed[name][1])
    assert acked.keys() - pushed == set()
    assert pushed - acked.keys() == set(), "lost"
    assert {item for item, times in acked.items() if times > 1} == set(), "twice"
    for name, count in (lease_log.acked | lease_log.released).items():
        assert count == len(worker_log.handed[name][1])
    assert not lease_log.acked.keys() & lease_log.expired
    taken_back = worker_log.acked.keys() - lease_log.acked.keys()
    assert all(any(0 <= crash - worker_log.acked[name] < UNSAFE for crash in crashes) for name in taken_back)

    assert lease_log.expired  # some were killed while they held a batch
    assert lease_log.released
    if structure == "priority":
        check_attempts(lease_log, worker_log.handed, watch.seen)
    else:
        assert sum(worker_log.handed[name][0] for name in lease_log.acked) == len(lease_log.ids)
    return len(taken_back)


def check_leases(lease_log: LeaseLog, worker_log: WorkerLog) -> None:
    """Check that no lease of an item began before an earlier one that was not released had expired."""
    leases: defaultdict[Any, list[tuple[float, str]]] = defaultdict(list)
    for name in worker_log.handed.keys() & lease_log.ids:  # without those that a kill of the server undid
        for item in worker_log.handed[name][1]:
            leases[item].append((worker_log.deadlines[name], name))
    for held in leases.values():
        held.sort()
        for (deadline, name), (later, _) in pairwise(held):
            # The clock is rounded down to whole ms.
            assert name in lease_log.released or later - LEASE > deadline - 0.002


def check_order(lease_log: LeaseLog, worker_log: WorkerLog) -> None:
    """Check that the items of each group were acked in the order in which they were pushed."""
    acked: defaultdict[int, list[tuple[float, list[int]]]] = defaultdict(list)
    for name in lease_log.acked:
        items = worker_log.handed[name][1]
        acked[items[0] // CHUNK % GROUPS].append((worker_log.begun[name], items))
    for batches in acked.values():
        order = [item for _, items in sorted(batches) for item in items]
        assert order == sorted(order)


def remaining(queue: Queue) -> int:
    """Count the items that are not acked yet."""
    stats = queue.stats()
    assert stats.dead == 0
    return stats.waiting + stats.leased + stats.delayed


@pytest.mark.parametrize("structure", ["buffer", "priority"])
def test_control_plain_commands_lose_and_duplicate(structure: str, binary: Path, tmp_path: Path) -> None:
    """With LPUSH or ZADD, repeated until answered, and RPOP or ZPOPMIN."""
    items = 600
    only = (b"LPUSH", b"ZADD", b"RPOP", b"ZPOPMIN")
    with (
        FaultyServer(binary, tmp_path / "server", settings.SEED, only) as site,
        redis.Redis(port=site.proxy.port) as client,
    ):
        processes = WorkerProcesses(work_naively, structure, site.proxy.port, tmp_path, settings.SEED)
        try:

            def push(chunk: list[int]) -> None:
                if structure == "buffer":
                    client.lpush("q", *chunk)
                else:
                    client.zadd("q", {str(i): i for i in chunk})

            producer, rng = Producer(push), random.Random(settings.SEED)
            run(site, processes, producer, rng, kills=1, crashes=1, items=items // 3)
            # Pushing again after a kill duplicates items, which hides losses; among the others each loss is seen.
            run(site, processes, producer, rng, kills=1, crashes=0, items=items)
            while client.exists("q"):
                processes.watch(0.05)
            processes.watch(0.3)  # for the batches in progress
        finally:
            processes.end()
        done: Counter[str] = Counter(line[3] for line in processes.lines() if line[2] == "done")
    lost = [i for i in range(items) if done[str(i)] == 0]
    twice = [i for i in range(items) if done[str(i)] > 1]
    print(f"{structure}: {len(lost)} lost, {len(twice)} twice")
    assert lost
    assert twice
