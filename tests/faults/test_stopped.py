"""A worker is suspended (SIGSTOP) past its lease: its item is handed out again, once, and its late calls are refused.

It is told to settle while it is suspended, so its ack is the first thing that it does when it resumes. The control is
the usual recipe with a sorted set of deadlines and ZREM as the ack, which accepts the stale ack.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import pytest
import redis

from redisq import Buffer, LeaseLost, PriorityQueue
from redisq.embedded import Server

from . import settings

pytestmark = [pytest.mark.server, settings.limit]

ROUNDS = settings.pick(12, 100)
LEASE = 0.05
LATER = 60.0

context = multiprocessing.get_context("spawn")  # a child process, so that its suspension can be waited for


def open_queue(structure: str, client: redis.Redis) -> Any:
    """Return the queue under test."""
    return Buffer(client, "q") if structure == "buffer" else PriorityQueue(client, "q")


def hold_lease(structure: str, socket: str, parent: Connection) -> None:
    """Reserve, wait for a message, settle, and report the result, until the parent ends."""
    queue = open_queue(structure, redis.Redis(unix_socket_path=socket))

    def settle(verb: str) -> str:
        try:
            getattr(queue, verb)(batch)
        except LeaseLost:
            return "lost"
        return "done"

    while True:
        try:
            verbs = parent.recv()
            batch = queue.reserve(1, lease=LEASE)
            parent.send(batch.items)
            parent.recv()
            parent.send([settle(verb) for verb in verbs])
        except EOFError:
            return


def take_naively(client: redis.Redis, lease: float) -> bytes | None:
    """Take a due member, and set its deadline."""
    due: Any = client.zrangebyscore("z", "-inf", time.time(), 0, 1)
    if not due:
        return None
    client.zadd("z", {due[0]: time.time() + lease})
    return bytes(due[0])


def hold_naively(_structure: str, socket: str, parent: Connection) -> None:
    """Do the same with the usual recipe."""
    client = redis.Redis(unix_socket_path=socket)
    while True:
        try:
            parent.recv()
            member = take_naively(client, LEASE)
            parent.send(member)
            parent.recv()
            parent.send(client.zrem("z", member or b""))
        except EOFError:
            return


class Holder:
    """A worker process that can be suspended."""

    def __init__(self, process: Any, pipe: Connection) -> None:
        self._process, self.pipe = process, pipe

    def suspend(self) -> None:
        """Suspend it, and wait until it is."""
        os.kill(self._process.pid, signal.SIGSTOP)
        _, status = os.waitpid(self._process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)

    def resume(self) -> None:
        """Let it continue."""
        os.kill(self._process.pid, signal.SIGCONT)


@contextmanager
def running_holder(job: Callable[[str, str, Connection], None], structure: str, socket: str) -> Iterator[Holder]:
    """Run a worker process; SIGKILL ends it, even while it is suspended."""
    mine, theirs = context.Pipe()
    process = context.Process(target=job, args=(structure, socket, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield Holder(process, mine)
    finally:
        process.kill()
        process.join()
        process.close()
        mine.close()


@pytest.mark.parametrize("structure", ["buffer", "priority"])
def test_a_stale_holder_is_refused(structure: str, server: Server) -> None:
    with server.client() as client, running_holder(hold_lease, structure, server.socket) as holder:
        queue = open_queue(structure, client)
        for number in range(ROUNDS):
            verbs = (("ack", "extend", "release"), ("extend", "ack"), ("release", "ack"))[number % 3]
            queue.push(f"item {number}")
            holder.pipe.send(verbs)
            assert holder.pipe.recv() == [f"item {number}"]
            holder.suspend()
            again = queue.reserve(10, timeout=30.0, lease=LATER)  # waits until the lease has expired
            assert (again.items, again.attempts) == ([f"item {number}"], 2)
            early = number % 2 == 0  # done by the other before the first resumes
            if early:
                assert again.ack() == 1
            holder.pipe.send("go on")
            holder.resume()
            assert holder.pipe.recv() == ["lost"] * len(verbs)
            assert queue.reserve(10) is None  # handed out again exactly once
            if not early:
                assert again.ack() == 1
            stats = queue.stats()
            assert (stats.waiting, stats.leased, stats.delayed, stats.dead) == (0, 0, 0, 0)
        assert queue.audit().ok
    print(f"{structure}: suspended past the lease {ROUNDS} times, each stale ack, release and extend refused")


def test_control_the_usual_recipe_accepts_a_stale_ack(server: Server) -> None:
    with server.client() as client, running_holder(hold_naively, "zset", server.socket) as holder:
        client.zadd("z", {"item": 0})
        holder.pipe.send("take")
        assert holder.pipe.recv() == b"item"
        holder.suspend()
        while take_naively(client, LATER) is None:
            time.sleep(0.005)  # there is no event to wait for
        holder.pipe.send("go on")
        holder.resume()
        assert holder.pipe.recv() == 1  # the stale ack was accepted
        assert client.zrem("z", "item") == 0  # and the right one finds nothing
