"""Queues that are adopted, exported and imported in a cluster, where a source and the queue are on different nodes, and
while the slot of the queue moves.
"""

from __future__ import annotations

import io
import random
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.cluster import RedisCluster

from redisq import BYTES, Buffer, PriorityQueue
from redisq.cli import adoption, importing, main
from tests.cli.killing import killed

from . import settings
from .cluster import Cluster, cluster
from .node import HOST

pytestmark = [pytest.mark.server, settings.limit]

LISTS = ("adopt", "buffer", "q", "--lists", "old:*")
ZSET = ("adopt", "priority", "p", "--zset", "old")


@pytest.fixture(scope="module")
def nodes(binary: Path) -> Iterator[Cluster]:
    """Run one cluster for these tests."""
    with cluster(binary) as made:
        yield made


@pytest.fixture
def client(nodes: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return a client of the cluster that REDIS_URL names, emptied."""
    monkeypatch.setenv("REDIS_URL", f"redis://{HOST}:{nodes.nodes[0].port}")
    monkeypatch.setattr(adoption, "ITEMS", 2)
    monkeypatch.setattr(adoption, "MEMBERS", 2)
    made: Any = RedisCluster(host=HOST, port=nodes.nodes[0].port)
    made.flushall(target_nodes=RedisCluster.PRIMARIES)
    yield made
    made.close()


def fill(client: Any) -> dict[str, list[bytes]]:
    """Make lists in slots of all nodes, some of them with hash tags."""
    made = {name: [b"%d" % i for i in range(5)] for name in ("a", "b{t}", "c{", "d", "{e}")}
    for name, items in made.items():
        client.lpush(f"old:{name}", *items)
    return made


def test_lists_and_a_sorted_set_in_a_cluster(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at many places, too."""
    for after in range(0, 200, 9):
        client.flushall(target_nodes=RedisCluster.PRIMARIES)
        made, taken = fill(client), dict[str, list[bytes]]()
        client.zadd("old", {f"m{i}": i for i in range(5)})
        buffer, queue = Buffer(client, "q", codec=BYTES), PriorityQueue(client, "p", order="score")
        members: list[str] = []

        def take(buffer: Buffer[bytes] = buffer, taken: dict[str, list[bytes]] = taken) -> None:
            for group in buffer.groups():
                taken.setdefault(group, []).extend(buffer.pop(group))

        for command in (LISTS, ZSET):
            if after:
                killed(monkeypatch, command, after)
            take()
            members += [item.member for item in queue.pop_many(9)]
            assert main(command) == 0
        take()
        members += [item.member for item in queue.pop_many(9)]
        assert (taken, members) == (made, [f"m{i}" for i in range(5)]), after
        assert not client.keys("old*", target_nodes=RedisCluster.PRIMARIES)
        assert not client.keys("*adopting*", target_nodes=RedisCluster.PRIMARIES)


def test_a_name_that_no_other_key_can_be_beside(client: Any, capsys: pytest.CaptureFixture[str]) -> None:
    client.lpush("old:a}b", "x")
    assert main(LISTS) == 1
    assert "redisq: old:a}b has a brace but no hash tag" in capsys.readouterr().err
    assert client.llen("old:a}b") == 1


@pytest.mark.parametrize("moved", ["q", "old:a"])
def test_while_a_slot_moves(client: Any, nodes: Cluster, moved: str) -> None:
    """The slot of the queue, or of a source."""
    slot = client.keyslot(moved)  # a queue's keys have its name as their hash tag
    stop, pushed, draw = threading.Event(), [0], random.Random(settings.SEED)

    def produce() -> None:
        mine: Any = RedisCluster(host=HOST, port=nodes.nodes[0].port)
        while not stop.is_set():
            mine.lpush("old:a", b"%d" % pushed[0])
            pushed[0] += 1
        mine.close()

    thread = threading.Thread(target=produce)
    thread.start()
    moving = threading.Thread(target=lambda: move(nodes, slot, draw))
    moving.start()
    while moving.is_alive():
        assert main(LISTS) == 0
    moving.join()
    stop.set()
    thread.join()
    for _ in range(2):
        assert main(LISTS) == 0
    assert Buffer(client, "q", codec=BYTES).peek("a", 1_000_000) == [b"%d" % i for i in range(pushed[0])]


def move(nodes: Cluster, slot: int, draw: random.Random) -> None:
    """Move a slot to each of the other masters and back."""
    for _ in range(3):
        masters = nodes.masters()
        target = masters[(masters.index(nodes.owner(slot)) + 1) % len(masters)]
        nodes.migrate(slot, target, draw, lambda: None)


@pytest.mark.parametrize("kind", ["buffer", "priority"])
def test_export_and_import_in_a_cluster(
    client: Any, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "_CALLS", 2)
    queue: Any
    if kind == "buffer":
        queue = Buffer(client, "q", codec=BYTES)
        for group in ("a", "b", "c"):
            queue.push(b"1\xff", b"2", group=group)
        queue.reserve(1).bury()
        queue.reserve(1).release(delay=1_000)
    else:
        queue = PriorityQueue(client, "q")
        queue.push_many([(f"m{i}", i % 3, {"n": i}) for i in range(300)])
        queue.reserve(10).bury()
        queue.reserve(10).release(delay=1_000)
    queue.pause()
    out = io.TextIOWrapper(io.BytesIO(), write_through=True)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        assert main(("export", "q")) == 0
    (tmp_path / "file").write_bytes(out.buffer.getvalue())

    def feed(after: int = 0) -> None:
        with (tmp_path / "file").open() as stdin, monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", stdin)
            if after:
                killed(monkeypatch, ("import", "copy"), after)
            else:
                assert main(("import", "copy")) == 0

    for after in (5, 17, 20, 23, 30):
        for key in client.keys("redisq:{copy}:*", target_nodes=RedisCluster.PRIMARIES):
            client.delete(key)
        feed(after)
        feed()
        copy: Any = Buffer(client, "copy", codec=BYTES) if kind == "buffer" else PriorityQueue(client, "copy")
        assert copy.audit().ok
        one, other = queue.stats(), copy.stats()
        assert (other.waiting, other.delayed, other.dead, other.buried) == (
            (one.waiting, one.delayed, one.dead, one.buried)
        )
        if kind == "buffer":
            assert all(copy.peek(group, 9) == queue.peek(group, 9) for group in "abc")
        else:
            assert copy.peek(300) == queue.peek(300)
