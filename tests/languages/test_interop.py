"""Ruby, Node and Python workers on one queue, killed with -9: every item is acked once, and nothing is left.

Workers reserve 1 to 50 items a batch with leases of 2 seconds, release every tenth batch, abandon every twentieth,
mark the first item of every tenth as failed, and ack the others. Members carry a payload, which each worker
checks. A worker prints `BEGIN <items>` before it acks them and `DONE <how many>` after it. Each is killed when it
begins some batch, and the next ones start; so workers in each language are killed equally often, whatever their speed.
Their pipes are short, so that no worker runs far ahead of the test.

It cannot be known whether a killed worker acked the batch that it had begun. But:

- No item is in two batches that were reported as acked.
- The items not reported as done are exactly those of some of the batches that killed workers had begun.
- The queue keeps how each lease ended: as many items were acked as were pushed.
- Nothing is left, in any state, and the audit finds nothing.
"""

from __future__ import annotations

import json
import queue
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pytest
import redis

from redisq.embedded import Server
from tests.conftest import skip_or_fail
from tests.languages.interop_worker import Queue, open_queue
from tests.languages.test_node import need_node

ROOT = Path(__file__).parents[2]
NODES = ("ioredis", "node-redis")
COMMANDS = {
    "python": [sys.executable, "-m", "tests.languages.interop_worker"],
    "ruby": ["ruby", "examples/ruby/interop.rb"],
    **{client: ["node", "examples/node/interop.js", "--client", client] for client in NODES},
}
EXECUTABLE = "process.stdout.write(process.execPath)"  # `node` may be a wrapper, which would be killed in its place
PUSHES = {"python": 6_668, "ruby": 6_666, "ioredis": 6_666}
PIPE = 4096  # bytes, the smallest possible

Item = tuple[str, int]
Batch = frozenset[Item]


def need_ruby() -> None:
    """Skip the test if Ruby or its Redis client is missing."""
    if shutil.which("ruby") and subprocess.run(["ruby", "-e", "require 'redis'"], capture_output=True).returncode == 0:
        return
    skip_or_fail("ruby or its redis client is missing: apt-get install ruby ruby-redis")


def read_item(item: Any) -> Item:
    """Parse an item of a `BEGIN` line: of a buffer, or a member."""
    if isinstance(item, str):
        language, _, number = item.partition("-")
        return language, int(number)
    assert set(item) == {"from", "n"}
    return item["from"], item["n"]


@dataclass
class Tally:
    """A record of what the workers printed."""

    done: set[Item] = field(default_factory=set)
    begun: list[Batch] = field(default_factory=list)
    """Batches whose outcome is unknown."""
    seen: set[Item] = field(default_factory=set)

    def settle(self, items: Batch, count: int) -> None:
        """Record the outcome of a batch: all of it was acked, or its lease was lost."""
        assert count in (0, len(items))
        if count:
            assert not items & self.done, f"acked twice: {items & self.done}"
            self.done |= items
        self.seen |= items

    def leave(self, items: Batch) -> None:
        """Record a batch that a killed worker had begun."""
        self.begun.append(items)
        self.seen |= items


class Worker:
    """A worker process and its output."""

    def __init__(self, command: list[str], tally: Tally) -> None:
        self._tally = tally
        self._items: Batch | None = None
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pipesize=PIPE
        )
        assert self.process.stdout
        self.lines: IO[str] = self.process.stdout

    def take(self, line: str) -> None:
        """Record one line of output."""
        if not line.endswith("\n"):
            return  # cut off by the kill: a `BEGIN` line before its ack, or a `DONE` line, whose batch stays begun
        word, _, rest = line.partition(" ")
        if word == "BEGIN":
            assert self._items is None
            listed = [read_item(item) for item in json.loads(rest)]
            self._items = frozenset(listed)
            assert len(self._items) == len(listed)
        else:
            assert word == "DONE"
            assert self._items is not None
            self._tally.settle(self._items, int(rest))
            self._items = None

    def run_until(self, batches: int) -> None:
        """Read until it has begun this many batches."""
        while batches:
            line = self.lines.readline()
            assert line, f"{self.process.args!r} ended with {self.process.wait()}"
            self.take(line)
            batches -= line.startswith("BEGIN")

    def pass_on(self, lines: queue.SimpleQueue[tuple[Worker, str]]) -> None:
        """Put each line into the queue that one reader reads for all workers."""
        for line in self.lines:
            lines.put((self, line))

    def kill(self) -> None:
        """Kill it with -9, and read the rest of its output."""
        with self.process:
            self.process.kill()
            for line in self.lines:
                self.take(line)
        assert self.process.returncode == -signal.SIGKILL
        if self._items:
            self._tally.leave(self._items)

    def stop(self) -> None:
        """Close its input, so that it ends after its current batch."""
        assert self.process.stdin
        self.process.stdin.close()


class Processes:
    """Processes in all languages on one queue."""

    def __init__(self, socket: str, structure: str) -> None:
        self._node = subprocess.run(["node", "-e", EXECUTABLE], capture_output=True, text=True, check=True).stdout
        self.tally = Tally()
        self.pushed: set[Item] = set()
        self._where = [socket, "q", structure]
        self._chance = random.Random(1)
        self._pushing: list[subprocess.Popen[str]] = []
        self._workers: list[Worker] = []

    def _command(self, stack: str, role: str, count: int = 0) -> list[str]:
        program, *arguments = COMMANDS[stack]
        program = self._node if program == "node" else program
        return [program, *arguments, *self._where, role, str(count), str(self._chance.randrange(1000))]

    def push(self, stack: str, count: int) -> None:
        """Start to push items in one language."""
        self._pushing.append(subprocess.Popen(self._command(stack, "push", count), cwd=ROOT, text=True))
        language = "node" if stack in NODES else stack
        self.pushed |= {(language, n) for n in range(count)}

    def _start_workers(self) -> None:
        self._workers = [Worker(self._command(stack, "work"), self.tally) for stack in COMMANDS]

    def work_and_kill(self) -> None:
        """Start a worker of each language, and kill each after some batches."""
        self._start_workers()
        for worker in self._chance.sample(self._workers, len(self._workers)):
            worker.run_until(self._chance.randint(3, 15))
            worker.kill()

    def work_until(self, ready: Callable[[], bool]) -> None:
        """Run new workers until every item was seen and `ready` holds, then end them."""
        self._start_workers()
        for pushing in self._pushing:
            assert pushing.wait(60) == 0
        lines: queue.SimpleQueue[tuple[Worker, str]] = queue.SimpleQueue()
        readers = [threading.Thread(target=worker.pass_on, args=(lines,)) for worker in self._workers]
        for reader in readers:
            reader.start()
        while not (self.tally.seen == self.pushed and ready()):
            try:
                worker, line = lines.get(timeout=240)
            except queue.Empty:
                pytest.fail(f"all workers ended, and none saw {sorted(self.pushed - self.tally.seen)[:10]}")
            worker.take(line)
        for worker in self._workers:
            worker.stop()
        for worker in self._workers:
            assert worker.process.wait(30) == 0
        for reader in readers:
            reader.join()
        while not lines.empty():  # the last ack may be reported after the queue was seen to be empty
            worker, line = lines.get()
            worker.take(line)

    def kill_all(self) -> None:
        """Kill all processes that still run, after a failure."""
        for process in (*self._pushing, *(worker.process for worker in self._workers)):
            with process:
                process.kill()


def read_acked(client: redis.Redis) -> int:
    """Count the acked items by what the queue keeps of each lease."""
    total = 0
    for key in client.scan_iter("redisq:{q}:ended:*", count=1000):
        remembered: Any = client.get(key)
        if acked := re.match(rb"ack (\d+)$", remembered):
            total += int(acked[1])
    return total


def is_union(items: set[Item], batches: list[Batch]) -> bool:
    """Return whether these items are exactly those of some of the batches, with each item in one of them."""
    if not items:
        return True
    one = min(items)
    return any(is_union(items - batch, batches) for batch in batches if one in batch and batch <= items)


def remaining(queue: Queue) -> int:
    """Count the items that are not acked yet."""
    stats = queue.stats()
    assert stats.dead == 0
    return stats.waiting + stats.leased + stats.delayed


@pytest.mark.parametrize("structure", ["buffer", "priority"])
@pytest.mark.parametrize(
    ("waiter", "pauser"),
    [
        ("python", "ruby"),
        ("python", "ioredis"),
        ("ruby", "python"),
        ("ioredis", "python"),
        ("node-redis", "ruby"),
    ],
)
def test_a_pause_applies_in_every_language(structure: str, waiter: str, pauser: str, server: Server) -> None:
    """A worker sees a pause set in another language, gets nothing, and wakes when the queue is resumed."""
    need_ruby()
    need_node()

    def command(stack: str, role: str) -> list[str]:
        return [*COMMANDS[stack], server.socket, "q", structure, role, "0", "0"]

    def run(stack: str, role: str) -> str:
        return subprocess.run(
            command(stack, role), cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=60, check=True
        ).stdout

    assert run(pauser, "pause") == ""
    with (
        server.client() as client,
        subprocess.Popen(command(waiter, "wait"), cwd=ROOT, stdout=subprocess.PIPE, encoding="utf-8") as waiting,
    ):
        try:
            assert waiting.stdout
            open_queue(structure, client, "q").push("item")
            language = "node" if pauser in NODES else pauser
            assert waiting.stdout.readline() == f"{language}: é\n"
            while not client.info("clients")["blocked_clients"]:
                assert waiting.poll() is None
            assert run(pauser, "resume") == "true\n"
            assert waiting.communicate(timeout=60)[0] == '["item"]\n'
        finally:
            waiting.kill()


@pytest.mark.parametrize("structure", ["buffer", "priority"])
@pytest.mark.timeout(600)  # starts dozens of interpreters: 15 seconds alone, minutes beside other tests
def test_ruby_node_and_python_share_a_queue(structure: str, server: Server) -> None:
    need_ruby()
    need_node()
    processes = Processes(server.socket, structure)
    try:
        for stack, count in PUSHES.items():
            processes.push(stack, count)
            processes.work_and_kill()
        with server.client() as client:
            shared = open_queue(structure, client, "q")
            processes.work_until(lambda: remaining(shared) == 0)
            assert shared.audit().ok
            keys = ("groups", "ready", "leases", "held", "delayed", "dead", "again", "rows", "payloads")
            assert client.exists(*(f"redisq:{{q}}:{key}" for key in keys)) == 0
            assert read_acked(client) == shared.stats().done == sum(PUSHES.values())
    finally:
        processes.kill_all()
    tally = processes.tally
    assert tally.seen == processes.pushed
    assert is_union(processes.pushed - tally.done, tally.begun)
