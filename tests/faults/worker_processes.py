"""Worker processes that record what they do, to be killed. Few imports, so that they start quickly."""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from redisq import Batch, Buffer, PriorityQueue, Worker

# A fork server, started anew as with spawn, which has imported this module before it forks the workers.
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload([__name__])

SIZE = 8
LEASE = 1.0
HOURS = (-7, 5, -1, 11)

Queue = Buffer[Any] | PriorityQueue[str]


def open_queue(structure: str, client: redis.Redis) -> Queue:
    """Return the queue under test."""
    if structure == "priority":
        return PriorityQueue(client, "q", lease=LEASE, dedup_window=3600)
    return Buffer(client, "q", lease=LEASE, dedup_window=3600, ordered=structure == "ordered buffer")


@dataclass(frozen=True)
class Task:
    """The task of a worker process."""

    structure: str
    port: int
    path: Path
    seed: int
    hours: int
    """hours by which its clock is wrong"""


Job = Callable[[Task, Callable[..., None]], None]


def begin(job: Job, task: Task, parent: Connection) -> None:
    """Run the job until killed; the process also ends when its parent does, however that ends."""

    def watch() -> None:
        with contextlib.suppress(EOFError):
            parent.recv()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    logging.disable()
    real, real_ns = time.time, time.time_ns
    time.time = lambda: real() + task.hours * 3600
    time.time_ns = lambda: real_ns() + task.hours * 3_600_000_000_000
    log = os.open(task.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(*line: object) -> None:
        os.write(log, json.dumps((time.time(), time.monotonic(), *line)).encode() + b"\n")

    write("begun")
    job(task, write)


def work(task: Task, write: Callable[..., None]) -> None:
    """Run redisq's own Worker: each batch is recorded before it is processed, and when its ack is answered."""
    rng = random.Random(task.seed)

    def handle(batch: Batch[Any]) -> None:
        write("handed", batch.id, batch.attempts, batch.items, batch.deadline)
        time.sleep(rng.random() * 0.04)
        if rng.random() < 0.05:
            raise RuntimeError("the batch is released")

    def acked(batch: Batch[Any]) -> None:
        write("acked", batch.id)

    queue: Any = open_queue(task.structure, redis.Redis(port=task.port, socket_timeout=2.0))
    Worker(queue, handle, size=SIZE, backoff=lambda attempts: 0.05, on_ack=acked).run()  # noqa: ARG005


def work_naively(task: Task, write: Callable[..., None]) -> None:
    """Pop with plain commands, sleep, and record it."""
    rng = random.Random(task.seed)
    client = redis.Redis(port=task.port, socket_timeout=2.0, retry=Retry(NoBackoff(), 0))
    while True:
        with contextlib.suppress(redis.ConnectionError, redis.TimeoutError):
            popped: Any = client.rpop("q", 1) if task.structure == "buffer" else client.zpopmin("q")
            items = popped if task.structure == "buffer" else [member for member, _ in popped]
            time.sleep(rng.random() * 0.01)
            for item in items or ():
                write("done", item.decode())


def _busy(path: Path) -> bool:
    lines = path.read_text().splitlines() if path.exists() else []
    return bool(lines) and json.loads(lines[-1])[2] == "handed"


class WorkerProcesses:
    """Worker processes; each one that is killed is replaced."""

    def __init__(self, job: Job, structure: str, port: int, directory: Path, seed: int, count: int = 4) -> None:
        self._job, self._port, self._directory = job, port, directory
        self.structure = structure
        """the structure that processes started from now on use"""
        self._random = random.Random(seed)
        self.tasks: list[Task] = []
        self._workers: list[tuple[ForkServerProcess, Connection]] = []
        for _ in range(count):
            self._start()

    def _start(self) -> None:
        number = len(self.tasks)
        path = self._directory / f"worker {number}"
        hours = HOURS[number % len(HOURS)]
        self.tasks.append(Task(self.structure, self._port, path, self._random.getrandbits(32), hours))
        theirs, mine = context.Pipe(duplex=False)
        worker = context.Process(target=begin, args=(self._job, self.tasks[-1], theirs), daemon=True)
        worker.start()
        theirs.close()
        self._workers.append((worker, mine))

    def kill(self, busy: bool = False) -> None:
        """Kill the oldest with -9 and start another in its place; `busy`: while it has a batch."""
        path = self.tasks[-len(self._workers)].path
        end = time.monotonic() + 1.0
        while busy and not _busy(path) and time.monotonic() < end:
            self.watch(0.002)
        self.replace(0)

    def replace(self, place: int) -> None:
        """Kill one with -9, counted from the oldest, and start another, which is the youngest."""
        self._end(*self._workers.pop(place))
        self._start()

    def pid(self, place: int) -> int:
        """Return the process id of one, counted from the oldest."""
        pid = self._workers[place][0].pid
        assert pid
        return pid

    def _end(self, worker: ForkServerProcess, pipe: Connection) -> None:
        worker.kill()
        worker.join()
        assert worker.exitcode == -signal.SIGKILL
        worker.close()
        pipe.close()

    def watch(self, seconds: float) -> None:
        """Let them run for some seconds; none may end on its own."""
        assert wait([worker.sentinel for worker, _ in self._workers], seconds) == []

    def end(self) -> None:
        """Kill all."""
        while self._workers:
            self._end(*self._workers.pop())

    def lines(self) -> list[list[Any]]:
        """Read their records: time by their clock, time by the machine's, kind, and more."""
        paths = [task.path for task in self.tasks if task.path.exists()]  # else it was killed before it began
        return [json.loads(line) for path in paths for line in path.read_text().splitlines()]

    def skewed(self) -> set[int]:
        """Return by how many hours the clocks of the workers were wrong, as the workers themselves read them."""
        now, machine = time.time(), time.monotonic()
        return {round((seen - now + machine - at) / 3600) for seen, at, *_ in self.lines()}


@dataclass
class WorkerLog:
    """The records of all workers, by lease id."""

    handed: dict[str, tuple[int, list[Any]]] = field(default_factory=dict)
    """attempts and items"""
    begun: dict[str, float] = field(default_factory=dict)
    """when, by the machine's clock"""
    deadlines: dict[str, float] = field(default_factory=dict)
    """by the server's clock"""
    acked: dict[str, float] = field(default_factory=dict)
    """when, by the machine's clock"""

    @classmethod
    def read(cls, processes: WorkerProcesses) -> WorkerLog:
        """Read all records."""
        found = cls()
        for _, at, what, *rest in processes.lines():
            if what == "handed":
                assert rest[0] not in found.handed  # an id is handed out once
                found.handed[rest[0]] = rest[1], rest[2]
                found.begun[rest[0]] = at
                found.deadlines[rest[0]] = rest[3]
            elif what == "acked":
                found.acked[rest[0]] = at
        return found
