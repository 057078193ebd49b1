"""Workers are killed with -9 continuously, and the server once: every item is acked, and none twice.

A killed worker cannot report what it did, so two records are compared. Each worker appends a line to its own file when
it is handed a batch, before it processes it, and one when an ack is answered; a line that was written survives the
process. The queue keeps by lease id how the lease ended (`{queue}:ended:<id>`; the window outlasts the test): whether
it was acked, with the reply lost or not, or expired; and the current leases can be read at any time. From these:

- Every item is acked, none twice: the items of the leases that the queue has as acked are those that were pushed,
  counted one by one. A worker records what it was handed before it acks it, so those items are all known.
- No ack is undone: each reply that a worker recorded agrees with the queue's, and no expired lease was acked.
- Nothing else took an item: there is no pop, remove, purge or discard, and nothing is left in any state.
- Hand-overs beyond the first are exactly the expired ones. A buffer's batch comes back whole, so over all batches the
  attempts beyond the first are as many as the expired leases. A member's attempts are one more than its expired leases,
  and a batch reports the highest of its members'.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from redisq import Buffer, LeaseLost, PriorityQueue
from redisq.embedded import Server
from tests.faults.lease_log import LeaseWatch, check_attempts, read_lease_log

pytestmark = pytest.mark.server

ITEMS = 10_000
SIZE = 8
WORKERS = 4
KILLS = 25
EVERY = 0.15
CALL = 0.01  # seconds that a worker's API call takes
LEASE = 1.0

# A fork server, started anew as with spawn: a spawned worker would take longer to import redis than it has to live.
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload([__name__])

Queue = Buffer[Any] | PriorityQueue[str]


def connect(socket: str) -> redis.Redis:
    """Return a client that retries until the server is back."""
    again = Retry(ConstantBackoff(0.02), 1000)
    return redis.Redis(unix_socket_path=socket, retry=again, retry_on_error=[redis.ConnectionError, redis.TimeoutError])


def open_queue(structure: str, client: redis.Redis) -> Queue:
    """Return the queue under test."""
    if structure == "buffer":
        return Buffer(client, "q", lease=LEASE, dedup_window=600)
    return PriorityQueue(client, "q", lease=LEASE, dedup_window=600)


def work(structure: str, socket: str, path: Path) -> None:
    """Reserve, record, sleep, ack and record, until killed."""
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    queue = open_queue(structure, connect(socket))

    def write(*line: object) -> None:
        os.write(log, json.dumps(line).encode() + b"\n")

    while True:
        batch = queue.reserve(SIZE, timeout=60)
        if not batch:
            continue
        write("handed", batch.id, batch.attempts, batch.items)
        time.sleep(CALL)
        try:
            write("acked", batch.id, batch.ack())
        except LeaseLost:
            write("lost", batch.id)


@dataclass
class WorkerLog:
    """The records of all workers, by lease id."""

    handed: dict[str, tuple[int, list[Any]]] = field(default_factory=dict)
    """attempts and items"""
    acked: dict[str, int] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)

    def read(self, path: Path) -> None:
        """Add the records of one worker."""
        for line in path.read_text().splitlines():
            what, name, *rest = json.loads(line)
            if what == "handed":
                assert name not in self.handed  # an id is handed out once
                self.handed[name] = rest[0], rest[1]
            elif what == "acked":
                self.acked[name] = rest[0]
            else:
                self.lost.add(name)


class WorkerProcesses:
    """Worker processes; each one that is killed is replaced."""

    def __init__(self, structure: str, socket: str, directory: Path) -> None:
        self.structure, self.socket, self.directory = structure, socket, directory
        self.paths: list[Path] = []
        self.workers = [self._start() for _ in range(WORKERS)]

    def _start(self) -> multiprocessing.context.ForkServerProcess:
        self.paths.append(self.directory / f"worker {len(self.paths)}")
        worker = context.Process(target=work, args=(self.structure, self.socket, self.paths[-1]), daemon=True)
        worker.start()
        return worker

    def kill(self) -> None:
        """Kill the oldest worker with -9 and start another in its place."""
        self._end(self.workers.pop(0))
        self.workers.append(self._start())

    def _end(self, worker: multiprocessing.context.ForkServerProcess) -> None:
        worker.kill()
        worker.join()
        assert worker.exitcode == -signal.SIGKILL
        worker.close()

    def watch(self, seconds: float) -> None:
        """Let them run for some seconds; none may end on its own."""
        assert wait([worker.sentinel for worker in self.workers], seconds) == []

    def end(self) -> None:
        """Kill all."""
        while self.workers:
            self._end(self.workers.pop())


class RestartableServer:
    """A server's files, and a socket path that stays the same when it is restarted."""

    def __init__(self, binary: Path, directory: Path) -> None:
        self._binary, self._directory = binary, directory
        # Not in a long temporary path, as the length of a socket's path is limited.
        self._names = tempfile.mkdtemp(prefix="redisq-")
        self.socket = f"{self._names}/redis.sock"
        self._start()

    def _start(self) -> None:
        options = ("--appendonly", "yes", "--appendfsync", "always", "--loglevel", "warning")
        self._server = Server(self._binary, *options, directory=self._directory).__enter__()
        os.symlink(self._server.socket, f"{self.socket}.new")
        os.replace(f"{self.socket}.new", self.socket)

    def crash(self) -> None:
        """Kill the server with -9 and restart it on its files."""
        with self._server.client() as client:
            os.kill(client.info("server")["process_id"], signal.SIGKILL)
        self._server.stop()
        self._start()

    def close(self) -> None:
        """Stop the server."""
        self._server.stop()
        shutil.rmtree(self._names)


@pytest.fixture
def restartable(binary: Path, tmp_path: Path) -> Iterator[RestartableServer]:
    """Return a real server that writes every command to its files before it answers."""
    files = tmp_path / "server"
    files.mkdir()
    made = RestartableServer(binary, files)
    yield made
    made.close()


@pytest.mark.parametrize("structure", ["buffer", "priority"])
def test_every_item_is_acked_once_through_kills_and_a_crash(
    structure: str, restartable: RestartableServer, tmp_path: Path
) -> None:
    with connect(restartable.socket) as client:
        queue = open_queue(structure, client)
        items: list[Any]
        if isinstance(queue, Buffer):
            items = list(range(ITEMS))
            for group in range(5):
                queue.push_many(items[group::5], group=str(group))
        else:
            items = [str(i) for i in range(ITEMS)]
            queue.push_many((member, i % 3) for i, member in enumerate(items))

        processes = WorkerProcesses(structure, restartable.socket, tmp_path)
        try:
            with LeaseWatch(lambda: connect(restartable.socket), partial(open_queue, structure)) as watch:
                for kill in range(KILLS):
                    processes.watch(EVERY)
                    processes.kill()
                    if kill == KILLS // 2:
                        restartable.crash()
                while remaining(queue):
                    processes.watch(0.05)
        finally:
            processes.end()

        assert queue.audit().ok
        names = ("groups", "busy", "leases", "delayed", "ready", "held", "rows", "wake")
        assert client.exists(*(f"redisq:{{q}}:{name}" for name in names)) == 0
        assert queue.stats().done == ITEMS
        lease_log = read_lease_log(client)
    worker_log = WorkerLog()
    for path in processes.paths:
        if path.exists():  # killed before it began
            worker_log.read(path)

    assert set(lease_log.acked) <= set(worker_log.handed)
    assert Counter(item for name in lease_log.acked for item in worker_log.handed[name][1]) == Counter(items)
    assert all(count == len(worker_log.handed[name][1]) for name, count in lease_log.acked.items())
    assert worker_log.acked.items() <= lease_log.acked.items()
    assert len(lease_log.acked) - len(worker_log.acked) <= KILLS + WORKERS  # replies that were lost with their worker
    assert not lease_log.released
    assert worker_log.lost <= lease_log.expired
    assert not set(lease_log.acked) & lease_log.expired
    assert set(worker_log.handed) <= lease_log.ids

    assert lease_log.expired  # some were killed while they held a batch
    if structure == "buffer":
        attempts = [worker_log.handed[name][0] for name in lease_log.acked]
        assert sum(attempts) - len(attempts) == len(lease_log.expired)
    else:
        check_attempts(lease_log, worker_log.handed, watch.seen)


def remaining(queue: Queue) -> int:
    """Count the items that are not acked yet."""
    stats = queue.stats()
    assert stats.dead == 0
    return stats.waiting + stats.leased + stats.delayed
