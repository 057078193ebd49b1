"""`redisq queues`, and other commands on a cluster."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from redisq import Buffer, PriorityQueue
from redisq.embedded import Server
from tests.cli.conftest import Run, bury_batch, seconds_of
from tests.faults.cluster import Cluster, cluster
from tests.faults.node import HOST

pytestmark = pytest.mark.server


def test_queues(client: redis.Redis, run: Run, server: Server) -> None:
    bury_batch(client, "b", b"x")
    buffer: Buffer[int] = Buffer(client, "b")
    buffer.push(*range(1234), group="g")
    assert buffer.reserve(1)
    buffer.pause(600, "the API is\ndown")
    queue = PriorityQueue(client, "p")
    queue.push("a", 1)
    queue.push("b", 1, delay=60)
    PriorityQueue(client, "s", order="score").push("a", 0.5)
    Buffer(client, "elsewhere", prefix="other").push(1)
    code, out, err = run("queues")
    assert (code, err) == (0, "")
    columns, b, p, s = out.splitlines()
    assert columns.split() == ["queue", "kind", "waiting", "oldest", "leased", "delayed", "dead", "due", "note"]
    assert re.fullmatch(r"b +buffer +1,233 +[\d.]+m?s +1 +0 +1 +0  paused for (9m5\d|10m)s? more: the API is\\ndown", b)
    assert p.split() == ["p", "priority", "1", "0", "1", "0", "0"]
    assert s.split() == ["s", "priority", "1", "0", "0", "0", "0"]

    found = json.loads(run("queues", "--json")[1])
    assert found["server"] == server.url
    assert abs(seconds_of(found["time"]) - time.time()) < 60
    b, p, s = found["queues"]
    assert (b["queue"], b["kind"], b["layout"], b["error"]) == ("b", "buffer", 2, None)
    assert (b["waiting"], b["leased"], b["dead"], b["paused"]) == (1233, 1, 1, True)
    assert 590 < seconds_of(b["paused_until"]) - time.time() <= 610
    assert (p["kind"], p["order"], p["delayed"]) == ("priority", "fifo", 1)
    assert (s["kind"], s["order"], s["waiting"]) == ("priority", "score", 1)
    assert [one["queue"] for one in json.loads(run("queues", "--prefix", "other", "--json")[1])["queues"]] == [
        "elsewhere"
    ]


def test_a_queue_that_cannot_be_read_has_its_error_in_its_row(client: redis.Redis, run: Run) -> None:
    Buffer(client, "b").push(1)
    client.hset("redisq:{a}:meta", "queue", "1 buffer")
    PriorityQueue(client, "c").push("x")
    client.delete("redisq:{c}:ready")
    client.set("redisq:{c}:ready", "mine")
    code, out, _ = run("queues")
    _, a, b, c = out.splitlines()
    assert code == 0
    assert re.fullmatch(r"a +buffer +has layout 1, not 2", a)
    assert b.split()[:3] == ["b", "buffer", "1"]
    assert re.fullmatch(r"c +priority +cannot be read: .*another type.*", c)
    found = json.loads(run("queues", "--json")[1])["queues"]
    assert ["waiting" in one for one in found] == [False, True, False]
    assert "marked 1 buffer" in found[0]["error"]


def test_without_queues_there_are_no_rows(client: redis.Redis, run: Run) -> None:
    assert run("queues") == (0, "", "")
    assert json.loads(run("queues", "--json")[1])["queues"] == []
    assert client.dbsize() == 0


def test_names_of_any_bytes(client: redis.Redis, run: Run) -> None:
    Buffer(client, "\udcff\x1b[31m").push(1)
    assert run("queues")[1].splitlines()[1].startswith("\\xff\\x1b[31m  buffer ")
    assert json.loads(run("stats", "\udcff\x1b[31m", "--json")[1])["queue"] == "\\xff\x1b[31m"
    assert run("stats", "nobody\udcff")[2].startswith("redisq: no queue nobody\\xff at ")


@pytest.fixture(scope="module")
def nodes(binary: Path) -> Iterator[Cluster]:
    """Run a cluster with queues on each of its masters, one item leased in each."""
    with cluster(binary) as made:
        client = redis.RedisCluster(HOST, made.nodes[0].port)
        for number in range(12):
            buffer: Buffer[int] = Buffer(client, f"q{number}")
            buffer.push(1, 2)
            assert buffer.reserve(1)
        client.close()
        yield made


@pytest.mark.parametrize("command", ["queues", "top", "stats", "leased", "pause", "resume"])
def test_a_cluster(nodes: Cluster, run: Run, command: str) -> None:
    """With the URL of any node; the queues of all nodes are shown."""
    words = {"queues": [], "top": ["--every", "100ms"], "pause": ["q7", "--for", "1h"]}.get(command, ["q7"])
    code, out, err = run(command, *words, "--json", "--url", f"redis://{HOST}:{nodes.nodes[1].port}")
    assert (code, err) == (0, "")
    found = json.loads(out)
    if "queues" in found:
        assert sorted(one["queue"] for one in found["queues"]) == sorted(f"q{number}" for number in range(12))
        assert {(one["waiting"], one["leased"]) for one in found["queues"]} == {(1, 1)}
        assert found.get("nodes", 3) == 3
    else:
        assert found["queue"] == "q7"
