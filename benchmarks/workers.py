"""Worker processes that all do one thing at once, as fast as they can, and report what came of it."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import redis
from redis.connection import UnixDomainSocketConnection

Operation = Callable[[], Any]
Prepare = Callable[[redis.Redis, int], Operation]
"""Make the operation that worker number so-and-so repeats, on its own client; a module's function: it is pickled."""


class CountingConnection(UnixDomainSocketConnection):
    """A connection that counts what is sent: one packed command, or one pipeline, is one round trip."""

    trips = 0

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Send, and count."""
        CountingConnection.trips += 1
        super().send_packed_command(command, check_health)  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Job:
    """What to do, where, and for how long."""

    prepare: Prepare
    socket: str
    seconds: float


@dataclass(frozen=True)
class Done:
    """What one worker did."""

    elapsed: float
    results: list[Any]
    """What each operation returned."""
    latencies: list[float] = field(repr=False)
    """Seconds, an operation each."""
    trips: int
    """Round trips to the server."""


def _work(number: int, pipe: Connection) -> None:
    for job in iter(pipe.recv, None):
        pool = redis.ConnectionPool(connection_class=CountingConnection, path=job.socket)
        with redis.Redis(connection_pool=pool) as client:
            operation = job.prepare(client, number)
            client.ping()
            pipe.send("ready")
            pipe.recv()
            CountingConnection.trips = 0
            results, latencies = [], []
            start = now = time.perf_counter()
            while now < start + job.seconds:
                results.append(operation())
                before, now = now, time.perf_counter()
                latencies.append(now - before)
            pipe.send(Done(now - start, results, latencies, CountingConnection.trips))
        pool.disconnect()


class Workers:
    """Worker processes that have started already, so that no measurement pays for their start."""

    def __init__(self, pipes: list[Connection]) -> None:
        self._pipes = pipes

    def work(self, count: int, job: Job) -> list[Done]:
        """Let so many of them do the job, beginning all at once."""
        pipes = self._pipes[:count]
        for word in (job, "go"):
            for pipe in pipes:
                pipe.send(word)
            if word is job:
                for pipe in pipes:
                    pipe.recv()
        return [pipe.recv() for pipe in pipes]


@contextlib.contextmanager
def started(size: int) -> Iterator[Workers]:
    """Start that many worker processes, and end them."""
    context = multiprocessing.get_context("spawn")  # a fork would share the parent's connections
    pipes, processes = [], []
    for number in range(size):
        here, there = context.Pipe()
        process = context.Process(target=_work, args=(number, there), daemon=True)
        process.start()
        there.close()  # so that a worker that dies is an EOFError here, not a wait forever
        pipes.append(here)
        processes.append(process)
    try:
        yield Workers(pipes)
    finally:
        for pipe in pipes:
            with contextlib.suppress(OSError):
                pipe.send(None)
        for process in processes:
            process.join()
