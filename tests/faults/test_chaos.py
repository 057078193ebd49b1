"""Everything at once: workers and the server killed, calls lost, scripts forgotten, clocks wrong; all is acked once.

The tally is made as in `tests/scripts/test_kills.py`: workers write down what they are handed before they work on it,
and the queue remembers under each lease's id how the lease ended. What differs:

- The server is killed at any moment with `appendfsync everysec`, so it may have answered what its file does not hold:
  up to two seconds, if a sync was under way. What the file holds is a beginning of what happened, a whole number of
  calls. So the queue's own records decide, for they go back together with the items; and after each kill the
  producer sends again what it has pushed since the last one, with the same tokens: what the file holds is not pushed
  twice, what it lost is pushed. So every item must be acked exactly once in the history that counts.
- An ack that a worker was told of and the queue does not know was taken back by a kill: it must have been answered
  within the seconds before one. How many these were is printed; nothing else may be taken back.
- Of an ordered buffer, the items of each group are acked in the order in which they were pushed.
- No item is in two leases at a time: who got one after another's lease ran out got it after that one's deadline. All
  deadlines are by the server's clock, whatever the clocks of the workers say.
- Hand-overs = acks + expiries + releases. Of a buffer, the attempts of the acked batches are added up. A priority
  queue's member has one attempt more than leases with it that expired or were released, and a batch gives the highest.
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
PIECE = 20
GROUPS = 5
UNSAFE = 3.0  # seconds before a kill from which the server's file may lack something
CHANCES = {Fault.REQUEST: 0.02, Fault.TORN_REQUEST: 0.01, Fault.REPLY: 0.02, Fault.TORN_REPLY: 0.01}


class Site:
    """A server that writes its file every second, behind a proxy that loses calls, and whose scripts can be flushed."""

    def __init__(self, binary: Path, directory: Path, seed: int, only: tuple[bytes, ...] | None) -> None:
        self._binary, self._directory = binary, directory
        directory.mkdir()
        self._plan = Seeded(seed, CHANCES, only)
        self.crashes: list[float] = []
        self.flushes = 0
        self._stop = threading.Event()
        self._flusher = threading.Thread(target=self._flush)

    def __enter__(self) -> Site:
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
        """Kill the server with -9, whatever it is doing, and start it again on its files."""
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
    """A producer that pushes each piece through the proxy until it is answered, and again what a kill may have lost."""

    def __init__(self, push: Callable[[list[int]], object]) -> None:
        self._push = push
        self._next = 0
        self._unsafe: list[list[int]] = []

    def push(self, until: int) -> None:
        """Push the items up to this number."""
        while self._next < until:
            piece = list(range(self._next, min(self._next // PIECE * PIECE + PIECE, until)))  # of one group
            self._insist(piece)
            self._unsafe.append(piece)
            self._next += len(piece)

    def again(self) -> None:
        """Push again what was pushed since this was called last."""
        for piece in self._unsafe:
            self._insist(piece)
        self._unsafe.clear()

    def _insist(self, piece: list[int]) -> None:
        while True:
            try:
                self._push(piece)
                return
            except (redis.ConnectionError, redis.TimeoutError):
                pass


def pusher(queue: Queue) -> Callable[[list[int]], object]:
    """Return what pushes a piece, with a token that is the same each time."""
    if isinstance(queue, Buffer):
        return lambda piece: queue.push(*piece, group=str(piece[0] // PIECE % GROUPS), token=str(piece[0]))
    return lambda piece: queue.push_many([(str(i), i % 3) for i in piece], token=str(piece[0]))


def run(
    site: Site, processes: WorkerProcesses, producer: Producer, rng: random.Random, kills: int, crashes: int, items: int
) -> None:
    """Push, kill a worker, and so on; at some of the kills, the server too."""
    crash_at = rng.sample(range(kills), crashes)
    for kill in range(kills):
        producer.push(items * (kill + 1) // kills)
        processes.watch(rng.uniform(0.05, 0.3))
        processes.kill(busy=kill % 2 == 0)
        if kill in crash_at:
            site.crash()
            producer.again()


@pytest.mark.parametrize("structure", ["buffer", "ordered buffer", "priority"])
def test_every_item_is_acked_once_through_chaos(structure: str, binary: Path, tmp_path: Path) -> None:
    for seed in settings.seeds(0.9 / 3 / len(TESTED)):
        begun, day = time.monotonic(), time.time()
        with Site(binary, tmp_path / f"server {seed}", seed, (b"EVALSHA", b"EVAL", b"BLPOP")) as site:
            (tmp_path / f"{seed}").mkdir()
            processes = WorkerProcesses(work, structure, site.proxy.port, tmp_path / f"{seed}", seed)
            try:
                watch = LeaseWatch(lambda site=site: site.server.client(), partial(open_queue, structure))  # type: ignore[misc]
                with watch, redis.Redis(port=site.proxy.port, socket_timeout=2.0) as client:
                    producer = Producer(pusher(open_queue(structure, client)))
                    run(site, processes, producer, random.Random(seed), KILLS, CRASHES, ITEMS)
                    with site.server.client() as direct:
                        queue = open_queue(structure, direct)
                        while left(queue):
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
        assert min(lost["requests"], lost["replies"]) > 0.01 * (len(lease_log.acked) + ITEMS / PIECE)
        assert site.flushes > 5
        assert processes.skewed() == set(HOURS)
        print(
            f"{structure} {binary}: {ITEMS} items, {len(lease_log.ids)} hand-overs = {len(lease_log.acked)} acks"
            f" + {len(lease_log.expired)} expiries + {len(lease_log.released)} releases; {KILLS} workers and"
            f" {len(site.crashes)} servers killed, {dict(lost)} lost, {site.flushes} flushes,"
            f" {taken_back} answered acks taken back by a kill; 0 lost, 0 twice; {time.monotonic() - begun:.0f} s"
        )


def check(structure: str, lease_log: LeaseLog, worker_log: WorkerLog, watch: LeaseWatch, crashes: list[float]) -> int:
    """Compare the workers with the queue; return how many answered acks a kill of the server undid."""
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
    """Hold that no lease of an item began before an earlier one, that nobody gave back, had run out."""
    leases: defaultdict[Any, list[tuple[float, str]]] = defaultdict(list)
    for name in worker_log.handed.keys() & lease_log.ids:  # not those that a kill of the server undid
        for item in worker_log.handed[name][1]:
            leases[item].append((worker_log.deadlines[name], name))
    for held in leases.values():
        held.sort()
        for (deadline, name), (later, _) in pairwise(held):
            assert name in lease_log.released or later - LEASE > deadline - 0.002  # the clock is cut to whole ms


def check_order(lease_log: LeaseLog, worker_log: WorkerLog) -> None:
    """Hold that the items of each group were acked in the order in which they were pushed."""
    acked: defaultdict[int, list[tuple[float, list[int]]]] = defaultdict(list)
    for name in lease_log.acked:
        items = worker_log.handed[name][1]
        acked[items[0] // PIECE % GROUPS].append((worker_log.begun[name], items))
    for batches in acked.values():
        order = [item for _, items in sorted(batches) for item in items]
        assert order == sorted(order)


def left(queue: Queue) -> int:
    """Count what is not acked."""
    stats = queue.stats()
    assert stats.dead == 0
    return stats.waiting + stats.leased + stats.delayed


@pytest.mark.parametrize("structure", ["buffer", "priority"])
def test_control_plain_commands_lose_and_double(structure: str, binary: Path, tmp_path: Path) -> None:
    """The same with LPUSH or ZADD, sent until it is answered, and RPOP or ZPOPMIN."""
    items = 600
    only = (b"LPUSH", b"ZADD", b"RPOP", b"ZPOPMIN")
    with Site(binary, tmp_path / "server", settings.SEED, only) as site, redis.Redis(port=site.proxy.port) as client:
        processes = WorkerProcesses(work_naively, structure, site.proxy.port, tmp_path, settings.SEED)
        try:

            def push(piece: list[int]) -> None:
                if structure == "buffer":
                    client.lpush("q", *piece)
                else:
                    client.zadd("q", {str(i): i for i in piece})

            producer, rng = Producer(push), random.Random(settings.SEED)
            run(site, processes, producer, rng, kills=1, crashes=1, items=items // 3)
            # What is pushed again after a kill comes twice and hides what was lost; of the others each loss is seen.
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
