"""Everything at once: workers and the server killed, calls lost, scripts forgotten, clocks wrong; all is acked once.

The account is made as in `tests/test_kills.py`: workers write down what they are handed before they work on it, and the
queue remembers under each lease's id how the lease ended. What differs:

- The server is killed at any moment with `appendfsync everysec`, so it may have answered what its file does not hold:
  up to two seconds, if a sync was under way. What the file holds is a beginning of what happened, a whole number of
  calls. So the queue's own memory is the judge, for it goes back together with the items; and after each kill the
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

from ..conftest import TESTED
from . import scale
from .crew import HOURS, LEASE, Account, Crew, Queue, open_queue, work, work_naively
from .ledger import Ledger, Watch, check_attempts, read_ledger
from .proxy import Fault, Proxy, Seeded

pytestmark = [pytest.mark.server, scale.limit]

ITEMS = scale.pick(2_000, 20_000)
KILLS = scale.pick(6, 40)
CRASHES = scale.pick(1, 4)
PIECE = 20
GROUPS = 5
UNSAFE = 3.0  # seconds before a kill from which the server's file may lack something
CHANCES = {Fault.REQUEST: 0.02, Fault.TORN_REQUEST: 0.01, Fault.REPLY: 0.02, Fault.TORN_REPLY: 0.01}


class Site:
    """Run a server that writes its file every second, behind a proxy that loses calls, and flush its scripts."""

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
    """Push through the proxy, each piece until it is answered, and again what a kill may have lost."""

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
    """Give what pushes a piece, with a token that is the same each time."""
    if isinstance(queue, Buffer):
        return lambda piece: queue.push(*piece, group=str(piece[0] // PIECE % GROUPS), token=str(piece[0]))
    return lambda piece: queue.push_many([(str(i), i % 3) for i in piece], token=str(piece[0]))


def run(site: Site, crew: Crew, producer: Producer, rng: random.Random, kills: int, crashes: int, items: int) -> None:
    """Push, kill a worker, and so on; at some of the kills, the server too."""
    crash_at = rng.sample(range(kills), crashes)
    for kill in range(kills):
        producer.push(items * (kill + 1) // kills)
        crew.watch(rng.uniform(0.05, 0.3))
        crew.kill(busy=kill % 2 == 0)
        if kill in crash_at:
            site.crash()
            producer.again()


@pytest.mark.parametrize("structure", ["buffer", "ordered buffer", "priority"])
def test_every_item_is_acked_once_through_chaos(structure: str, binary: Path, tmp_path: Path) -> None:
    for seed in scale.seeds(0.9 / 3 / len(TESTED)):
        begun, day = time.monotonic(), time.time()
        with Site(binary, tmp_path / f"server {seed}", seed, (b"EVALSHA", b"EVAL", b"BLPOP")) as site:
            (tmp_path / f"{seed}").mkdir()
            crew = Crew(work, structure, site.proxy.port, tmp_path / f"{seed}", seed)
            try:
                watch = Watch(lambda site=site: site.server.client(), partial(open_queue, structure))  # type: ignore[misc]
                with watch, redis.Redis(port=site.proxy.port, socket_timeout=2.0) as client:
                    producer = Producer(pusher(open_queue(structure, client)))
                    run(site, crew, producer, random.Random(seed), KILLS, CRASHES, ITEMS)
                    with site.server.client() as direct:
                        queue = open_queue(structure, direct)
                        while left(queue):
                            crew.watch(0.05)
            finally:
                crew.end()
            with site.server.client() as client:
                assert open_queue(structure, client).audit().ok
                ledger = read_ledger(client)
            lost = Counter[str]()
            for fault, count in site.proxy.injected.items():
                lost["requests" if "REQUEST" in fault.name else "replies"] += count
        account = Account.of(crew)
        assert all(day < deadline < time.time() + 2 * LEASE for deadline in account.deadlines.values())
        taken_back = check(structure, ledger, account, watch, site.crashes)
        check_leases(ledger, account)
        if structure == "ordered buffer":
            check_order(ledger, account)
        assert min(lost["requests"], lost["replies"]) > 0.01 * (len(ledger.acked) + ITEMS / PIECE)
        assert site.flushes > 5
        assert crew.skewed() == set(HOURS)
        print(
            f"{structure} {binary}: {ITEMS} items, {len(ledger.ids)} hand-overs = {len(ledger.acked)} acks"
            f" + {len(ledger.expired)} expiries + {len(ledger.released)} releases; {KILLS} workers and"
            f" {len(site.crashes)} servers killed, {dict(lost)} lost, {site.flushes} flushes,"
            f" {taken_back} answered acks taken back by a kill; 0 lost, 0 twice; {time.monotonic() - begun:.0f} s"
        )


def check(structure: str, ledger: Ledger, account: Account, watch: Watch, crashes: list[float]) -> int:
    """Balance the account; return how many acks were answered and taken back by a kill of the server."""
    assert ledger.acked.keys() | ledger.released.keys() <= account.handed.keys()
    pushed = set[Any](map(str, range(ITEMS)) if structure == "priority" else range(ITEMS))
    acked = Counter(item for name in ledger.acked for item in account.handed[name][1])
    assert acked.keys() - pushed == set()
    assert pushed - acked.keys() == set(), "lost"
    assert {item for item, times in acked.items() if times > 1} == set(), "twice"
    for name, count in (ledger.acked | ledger.released).items():
        assert count == len(account.handed[name][1])
    assert not ledger.acked.keys() & ledger.expired
    taken_back = account.acked.keys() - ledger.acked.keys()
    assert all(any(0 <= crash - account.acked[name] < UNSAFE for crash in crashes) for name in taken_back)

    assert ledger.expired  # some were killed with a batch in hand
    assert ledger.released
    if structure == "priority":
        check_attempts(ledger, account.handed, watch.seen)
    else:
        assert sum(account.handed[name][0] for name in ledger.acked) == len(ledger.ids)
    return len(taken_back)


def check_leases(ledger: Ledger, account: Account) -> None:
    """Hold that no lease of an item began before an earlier one, that nobody gave back, had run out."""
    leases: defaultdict[Any, list[tuple[float, str]]] = defaultdict(list)
    for name in account.handed.keys() & ledger.ids:  # not those that a kill of the server undid
        for item in account.handed[name][1]:
            leases[item].append((account.deadlines[name], name))
    for held in leases.values():
        held.sort()
        for (deadline, name), (later, _) in pairwise(held):
            assert name in ledger.released or later - LEASE > deadline - 0.002  # the clock is cut to whole ms


def check_order(ledger: Ledger, account: Account) -> None:
    """Hold that the items of each group were acked in the order in which they were pushed."""
    acked: defaultdict[int, list[tuple[float, list[int]]]] = defaultdict(list)
    for name in ledger.acked:
        items = account.handed[name][1]
        acked[items[0] // PIECE % GROUPS].append((account.begun[name], items))
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
    with Site(binary, tmp_path / "server", scale.SEED, only) as site, redis.Redis(port=site.proxy.port) as client:
        crew = Crew(work_naively, structure, site.proxy.port, tmp_path, scale.SEED)
        try:

            def push(piece: list[int]) -> None:
                if structure == "buffer":
                    client.lpush("q", *piece)
                else:
                    client.zadd("q", {str(i): i for i in piece})

            producer, rng = Producer(push), random.Random(scale.SEED)
            run(site, crew, producer, rng, kills=1, crashes=1, items=items // 3)
            # What is pushed again after a kill comes twice and hides what was lost; of the others each loss is seen.
            run(site, crew, producer, rng, kills=1, crashes=0, items=items)
            while client.exists("q"):
                crew.watch(0.05)
            crew.watch(0.3)  # for what is in hand
        finally:
            crew.end()
        done: Counter[str] = Counter(line[3] for line in crew.lines() if line[2] == "done")
    lost = [i for i in range(items) if done[str(i)] == 0]
    twice = [i for i in range(items) if done[str(i)] > 1]
    print(f"{structure}: {len(lost)} lost, {len(twice)} twice")
    assert lost
    assert twice
