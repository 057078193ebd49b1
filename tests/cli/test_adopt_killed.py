"""`redisq adopt` is killed after each of its commands, and between them, while others push and take: nothing is lost
or there twice.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from itertools import count

import pytest
import redis

from redisq import BYTES, Buffer, PriorityQueue, embedded
from redisq.cli import adoption, main
from tests.cli.killing import killed
from tests.waiting import until

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("capsys")]

BUFFER = ("adopt", "buffer", "q", "--lists", "old:*", "--json")
ZSET = ("adopt", "priority", "q", "--zset", "old", "--json")


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adoption, "ITEMS", 2)
    monkeypatch.setattr(adoption, "MEMBERS", 2)


class Lists:
    """Two lists, a producer that goes on pushing to one, and a consumer of the buffer."""

    def __init__(self, client: redis.Redis) -> None:
        self.client, self.buffer = client, Buffer(client, "q", codec=BYTES)
        self.pushed: list[bytes] = []
        self.taken: list[bytes] = []
        client.lpush("old:other", b"x", b"y", b"z")
        self.push(5)

    def push(self, items: int) -> None:
        for _ in range(items):
            self.pushed.append(b"%d" % len(self.pushed))
            self.client.lpush("old:g", self.pushed[-1])

    def take(self) -> None:
        """Take all that waits, so that a second push of it would not be hidden by the first."""
        for group in self.buffer.groups():
            self.taken += self.buffer.pop(group)

    def check(self) -> None:
        assert main(BUFFER) == 0
        self.take()
        assert [item for item in self.taken if item.isdigit()] == self.pushed
        assert sorted(item for item in self.taken if not item.isdigit()) == [b"x", b"y", b"z"]
        left = [key for key in self.client.keys("*") if b"once" not in key and b"meta" not in key]
        assert left == []
        assert all(self.client.pttl(key) > 0 for key in self.client.keys("*once*"))


def test_lists_at_every_command(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    for after in count(1):
        client.flushall()
        lists = Lists(client)
        died = killed(monkeypatch, BUFFER, after)
        lists.take()
        lists.push(2)
        lists.check()
        if not died:
            assert after > 15
            return


def test_lists_at_every_two_commands(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second process dies as well, at each of the commands in which it takes up what the first one left."""
    for after in range(4, 20):
        for again in range(1, 16):
            client.flushall()
            lists = Lists(client)
            killed(monkeypatch, BUFFER, after)
            lists.take()
            killed(monkeypatch, BUFFER, again)
            lists.take()
            lists.push(1)
            lists.check()


def test_what_was_pushed_is_known_a_day_later(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a piece lies aside, its push is remembered for most of a year, whenever the process has died."""
    found = 0
    for after in count(1):
        client.flushall()
        Lists(client)
        died = killed(monkeypatch, BUFFER, after)
        if aside := client.keys("*adopting*"):
            name = client.lindex(aside[0], 0)
            assert isinstance(name, bytes)
            if client.exists(once := b"redisq:{q}:once:adopt-" + name):
                found += 1
                assert client.pttl(once) > 300 * 86_400_000
        if not died:
            assert found
            return


def test_a_sorted_set_at_every_command(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    for after in count(1):
        client.flushall()
        queue = PriorityQueue(client, "q", codec=BYTES, order="score")
        client.zadd("old", {f"m{i}": i for i in range(5)})
        taken: Counter[bytes] = Counter()
        died = killed(monkeypatch, ZSET, after)
        taken.update(item.member for item in queue.pop_many(100))
        client.zadd("old", {"late": 0.5})
        assert main(ZSET) == 0
        taken.update(item.member for item in queue.pop_many(100))
        assert taken == Counter([*(b"m%d" % i for i in range(5)), b"late"])
        assert [key for key in client.keys("*") if b"once" not in key and b"meta" not in key] == []
        if not died:
            assert after > 15
            return


@pytest.mark.usefixtures("client")
def test_killed_at_random_while_others_push_and_take(server: embedded.Server) -> None:
    """A real process, and SIGKILL."""
    program = "from redisq.cli import adoption, main; adoption.ITEMS = 3; main()"
    command = [sys.executable, "-c", program, *BUFFER]
    chance, items, done = random.Random(7), 6_000, threading.Event()
    taken: list[bytes] = []

    def produce() -> None:
        with server.client() as mine:
            for i in range(items):
                mine.lpush("old:g", b"%d" % i)

    def consume() -> None:
        with server.client() as mine:
            buffer = Buffer(mine, "q", codec=BYTES)
            while not done.is_set() or buffer.stats().waiting:
                taken.extend(buffer.pop("g"))

    threads = [threading.Thread(target=work) for work in (produce, consume)]
    for thread in threads:
        thread.start()
    for _ in range(6):
        enough = len(taken) + chance.randint(1, 700)
        with subprocess.Popen([*command, "--follow", "1h"], env=os.environ, stdout=subprocess.DEVNULL) as process:
            until(lambda enough=enough: len(taken) >= enough)  # type: ignore[misc]
            process.send_signal(signal.SIGKILL)
    threads[0].join()
    assert main(BUFFER) == 0
    assert main(BUFFER) == 0
    done.set()
    threads[1].join()
    assert taken == [b"%d" % i for i in range(items)]
