"""A server is killed with -9, or its append-only file truncated: acknowledged calls survive, and scripts are atomic.

A kill ends the process, not the machine: data that was written but not flushed is still in the kernel. So `everysec`
and `no` lose nothing here that they would not also keep; what a power failure loses depends on the disk.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from redisq import BYTES, Buffer, PriorityQueue
from redisq.blocking.runner import Runner
from redisq.embedded import Server
from tests.model import Keys
from tests.scripts import keyspace
from tests.scripts.backends import at
from tests.waiting import until

from . import settings
from .clients import CLIENTS, Acknowledged, QueueClient, contents, queues
from .node import Node

pytestmark = [pytest.mark.server, settings.limit]

KILLS = settings.pick(2, 10)


def kill_under_load(server: Path, *options: str) -> tuple[Acknowledged, Counter[str], bool]:
    """Kill a server under load repeatedly; return what was acknowledged, what is there, and whether audits pass."""
    acknowledged = Acknowledged()
    callers = [QueueClient(f"caller {i}", acknowledged) for i in range(CLIENTS)]
    with Node(server, *options) as node:
        for _ in range(KILLS):
            with node.client(retry=Retry(NoBackoff(), 0)) as client, ThreadPoolExecutor(CLIENTS) as pool:
                made = [queues(client, "server") for _ in callers]
                for caller, mine in zip(callers, made, strict=True):
                    caller.again(mine)
                working = [
                    pool.submit(one.work, mine, threading.Event()) for one, mine in zip(callers, made, strict=True)
                ]
                acknowledged.more(200)
                node.kill()
                for done in working:
                    done.result()
            node.start()
        with node.client() as client:
            for caller in callers:
                caller.again(queues(client, "server"))
            return acknowledged, contents(client), all(queue.audit().ok for queue in queues(client, "server"))


@pytest.mark.parametrize("policy", ["always", "everysec", "no"])
def test_a_killed_server_keeps_what_its_policy_promises(binary: Path, policy: str) -> None:
    """`always` loses nothing that was acknowledged, the others at most what they may; the audit passes."""
    acknowledged, there, ok = kill_under_load(binary, "--appendonly", "yes", "--appendfsync", policy)
    pushed, acked = Counter(acknowledged.pushed), Counter(acknowledged.acked)
    lost, back = pushed - acked - there, there & acked
    assert ok
    assert max(there.values()) == 1
    assert set(there) <= set(pushed)
    if policy == "always":
        assert not lost
        assert not back
        assert acknowledged.lost_leases == 0
    print(
        f"{policy}: {KILLS} kills, {pushed.total()} pushes and {acked.total()} acked items acknowledged: "
        f"{lost.total()} lost, {back.total()} undone"
    )


def test_control_without_a_file_everything_is_lost(binary: Path) -> None:
    """The same kills of a server without persistence."""
    acknowledged, there, _ = kill_under_load(binary)
    assert (Counter(acknowledged.pushed) - Counter(acknowledged.acked) - there).total() > 0


# Runs one server after another, each from a line of standard input; the next line, or the end of input, ends it.
_RUNNER = """
import json, subprocess, sys
server = None
for line in sys.stdin:
    if server:
        server.kill()
        server.wait()
    words = json.loads(line)
    server = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) if words else None
    print(flush=True)
if server:
    server.kill()
    server.wait()
"""


class Loader:
    """A server that is started on a truncated file, again and again, and its content."""

    def __init__(self, server: Path, files: Path) -> None:
        self._server, self._files = server, files
        self._home = Path(tempfile.mkdtemp(prefix="redisq-"))
        self._runner = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _RUNNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._runs = 0

    def close(self) -> None:
        """Stop the server."""
        assert self._runner.stdin
        assert self._runner.stdout
        self._runner.stdin.close()
        self._runner.wait()
        self._runner.stdout.close()
        shutil.rmtree(self._home)

    def _run(self, words: list[str]) -> None:
        assert self._runner.stdin
        assert self._runner.stdout
        self._runner.stdin.write(json.dumps(words) + "\n")
        self._runner.stdin.flush()
        self._runner.stdout.readline()

    def load(self, name: Path, size: int, read: Callable[[redis.Redis], Any]) -> Any:
        """Start a server on the files, of which the named one is truncated, and read from it."""
        self._run([])
        self._runs += 1
        files = self._home / str(self._runs)
        shutil.copytree(self._files, files)
        with (files / name).open("r+b") as cut:
            cut.truncate(size)
        socket = str(self._home / f"{self._runs}.sock")
        words = [str(self._server), "--port", "0", "--unixsocket", socket, "--dir", str(files), "--save", ""]
        self._run([*words, "--appendonly", "yes", "--aof-load-truncated", "yes", "--appendfsync", "no"])
        with redis.Redis(unix_socket_path=socket, retry=Retry(NoBackoff(), 0)) as client:
            until(lambda: is_up(client), "the file is loaded")
            found = read(client)
        self._run([])
        shutil.rmtree(files)
        return found


def is_up(client: redis.Redis) -> bool:
    """Return whether a server has started."""
    try:
        return bool(client.ping())
    except redis.ConnectionError:  # not started yet, or loading
        return False


Content = tuple[Keys, set[bytes]]
OPTIONS: dict[str, Any] = {"codec": BYTES, "lease": 3600, "dedup_window": 86400, "max_attempts": 1}


class States:
    """A buffer and a priority queue in one server, with something in every state."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.buffer: Buffer[bytes] = Buffer(client, "b", **OPTIONS)
        self.queue: PriorityQueue[bytes] = PriorityQueue(client, "p", **OPTIONS)

    def prepare(self) -> None:
        """Put something into every state."""
        self.buffer.push(b"dead", group="d")
        self.queue.push(b"dead", 0)
        for queue in (self.buffer, self.queue):
            batch = queue.reserve(1)
            assert batch
            batch.bury("it is bad")
        self.buffer.push(b"a", b"b", b"c", b"d", group="g")
        self.buffer.push(b"e", b"f", group="h")
        self.queue.push_many([(b"a", 1), (b"b", 2), (b"c", 3), (b"d", 4)])
        self.held: Any = self.buffer.reserve(2)
        self.leased: Any = self.queue.reserve(2)


def ack_one(batch: Any) -> None:
    """Ack a batch of which one item failed."""
    batch.fail(batch.items[0])
    batch.ack()


def expired(states: States, queue: Buffer[bytes] | PriorityQueue[bytes]) -> None:
    """Reserve when all leases have expired."""
    Runner(states.client).run(at(queue.calls.reserve(lease=1), int(time.time() + 3700) * 1000))


LAST: dict[str, Callable[[States], Any]] = {
    "buffer/push": lambda states: states.buffer.push(b"new", b"er", group="new"),
    "buffer/push at the front": lambda states: states.buffer.push_front(b"new", b"er", group="g"),
    "buffer/pop": lambda states: states.buffer.pop("h"),
    "buffer/pop_longest": lambda states: states.buffer.pop_longest(),
    "buffer/reserve": lambda states: states.buffer.reserve(10),
    "buffer/ack": lambda states: ack_one(states.held),
    "buffer/release": lambda states: states.held.release(),
    "buffer/bury": lambda states: states.held.bury("it is bad"),
    "buffer/extend": lambda states: states.held.extend(7200),
    "buffer/redrive": lambda states: states.buffer.redrive(states.buffer.dead()[0].id),
    "buffer/discard": lambda states: states.buffer.discard(states.buffer.dead()[0].id),
    "priority/push": lambda states: states.queue.push(b"new", 0, payload="p"),
    "priority/push of a leased member": lambda states: states.queue.push_many([(b"a", 0), (b"c", 0)], delay=5),
    "priority/pop": lambda states: states.queue.pop_many(2),
    "priority/reserve": lambda states: states.queue.reserve(2),
    "priority/ack": lambda states: states.leased.ack(),
    "priority/ack of a part": lambda states: ack_one(states.leased),
    "priority/release": lambda states: states.leased.release(reason="it is busy"),
    "priority/bury": lambda states: states.leased.bury("it is bad"),
    "priority/extend": lambda states: states.leased.extend(7200),
    "priority/remove": lambda states: states.queue.remove(b"a", b"c", b"dead"),
    "priority/redrive": lambda states: states.queue.redrive(b"dead"),
    "priority/discard": lambda states: states.queue.discard(b"dead"),
    "purge": lambda states: states.queue.purge(),
    "buffer/reserve in order": lambda states: Buffer(states.client, "b", **OPTIONS, ordered=True).reserve(1),
    "buffer/reserve, buried": lambda states: expired(states, states.buffer),
    "buffer/reserve, split": lambda states: expired(states, Buffer(states.client, "b", **OPTIONS, isolate=True)),
    "priority/reserve, buried": lambda states: expired(states, states.queue),
}
EVERY_BYTE = settings.pick({"buffer/pop"}, set(LAST))


def both(client: redis.Redis) -> list[Content]:
    """Read every key of both queues. A DUMP would do, except for sets, whose order differs between servers."""
    return [keyspace.read(client, b"redisq:{%b}:" % name, 0) for name in (b"b", b"p")]


def audited(client: redis.Redis) -> list[Content]:
    """Read every key of both queues, after an audit."""
    states = States(client)
    assert states.buffer.audit().ok
    assert states.queue.audit().ok
    return both(client)


class Written:
    """A server's append-only file, and where its last record begins."""

    def __init__(self, server: Path, files: Path, last: Callable[[States], Any]) -> None:
        options = ("--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0")
        with Server(server, *options, directory=files) as running, running.client() as client:
            states = States(client)
            states.prepare()
            # Redis 7 has a folder with a base file and increments, 6.2 a single file.
            (path,) = [path for path in files.rglob("*.aof") if "base" not in path.name]
            self.name = path.relative_to(files)
            self.before, self.begin = both(client), path.stat().st_size
            last(states)
            self.after, self.end = both(client), path.stat().st_size


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Path]:
    """Return a directory for a server's files."""
    made = tmp_path / "files"
    made.mkdir()
    yield made
    shutil.rmtree(made)


@pytest.mark.parametrize("name", LAST)
def test_a_file_truncated_in_its_last_record(name: str, binary: Path, files: Path) -> None:
    """At any byte: the script has run as a whole or not at all, and the audit passes."""
    written = Written(binary, files, LAST[name])
    assert written.after != written.before
    loader = Loader(binary, files)
    length = written.end - written.begin
    step = 1 if name in EVERY_BYTE else max(1, length // 8)
    try:
        for size in [*range(written.begin, written.end, step), written.end - 1, written.end]:
            found = loader.load(written.name, size, audited)
            expected = written.after if size == written.end else written.before
            assert found == expected, f"{name}: cut after {size - written.begin} of {length} bytes"
    finally:
        loader.close()
    print(f"{name}: {length // step + 2} cuts of a record of {length} bytes")


def test_control_two_commands_can_be_separated(binary: Path, files: Path) -> None:
    """The recipe pushes with two commands; if the file ends between them, its counter is wrong."""

    def push(states: States) -> None:
        for command in (("RPUSH", "naive:g", "a"), ("ZINCRBY", "naive", 1, "g")):
            states.client.execute_command(*command)  # type: ignore[no-untyped-call]

    def counts_equal_lists(client: redis.Redis) -> bool:
        return client.llen("naive:g") == (client.zscore("naive", "g") or 0)

    written = Written(binary, files, push)
    loader = Loader(binary, files)
    try:
        sizes = range(written.begin, written.end + 1, 10)
        assert not all(loader.load(written.name, size, counts_equal_lists) for size in sizes)
    finally:
        loader.close()
