"""`redisq stats`, `peek` and `delayed`: the content of a queue."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time

import pytest
import redis

from redisq import BYTES, Buffer, PriorityQueue
from tests.cli.conftest import COMMAND, Run, seconds_of

pytestmark = pytest.mark.server


def test_stats_of_a_buffer_and_of_a_priority_queue(client: redis.Redis, run: Run) -> None:
    buffer: Buffer[int] = Buffer(client, "b")
    buffer.push(1, 2, 3, group="x")
    buffer.push(4, group="y")
    assert buffer.reserve(2)
    code, out, err = run("stats", "b")
    assert (code, err) == (0, "")
    rows = dict(re.split(r"  +", row) for row in out.splitlines() if not row.startswith(("oldest", "next")))
    totals = {"done": 0, "failed": 0, "buried": 0, "trimmed": 0}
    held = {"waiting": 2, "groups": 2, "busy groups": 0, "paused groups": 0, "leased": 1, "delayed": 0, "dead": 0}
    assert rows == {"b": "buffer", **{name: str(count) for name, count in {**held, "due": 0, **totals}.items()}}
    seen = json.loads(run("stats", "b", "--json")[1])
    assert 0 <= seen.pop("oldest_wait") < 20
    assert 10 < seconds_of(seen.pop("next_expiry")) - seconds_of(seen.pop("time")) <= 30
    unpaused = {"due": 0, **totals, "paused": False, "pause_reason": "", "paused_until": None}
    counts = {name.replace(" ", "_"): count for name, count in held.items()}
    assert seen == {"queue": "b", "kind": "buffer", **counts, **unpaused}

    PriorityQueue(client, "p", order="score").push("a", 0.5)
    expected = {"queue": "p", "kind": "priority", "waiting": 1, "delayed": 0, "leased": 0, "dead": 0, "batches": 0}
    seen = json.loads(run("stats", "p", "--json")[1])
    assert abs(seconds_of(seen.pop("time")) - time.time()) < 60
    assert seen == {**expected, **unpaused, "next_expiry": None}


def test_stats_of_an_emptied_queue(client: redis.Redis, run: Run) -> None:
    """Its counters are kept for seven days."""
    buffer: Buffer[int] = Buffer(client, "b")
    buffer.push(1, 2, 3)
    batch = buffer.reserve()
    assert batch
    batch.ack()
    seen = json.loads(run("stats", "b", "--json")[1])
    assert (seen["kind"], seen["waiting"], seen["done"]) == ("buffer", 0, 3)


def test_stats_of_a_paused_queue(client: redis.Redis, run: Run) -> None:
    Buffer(client, "b").push(1)
    client.set("redisq:{b}:paused", "0 the API is\ndown")
    assert run("stats", "b")[1].splitlines()[-1].split(maxsplit=1) == [
        "paused",
        "until resumed: the API is\\ndown",
    ]
    seen = json.loads(run("stats", "b", "--json")[1])
    assert (seen["paused"], seen["pause_reason"], seen["paused_until"]) == (True, "the API is\ndown", None)
    end = int(time.time()) + 1000
    client.set("redisq:{b}:paused", f"{end}000 ")
    assert re.search(r"^paused +for 16m\d*s? more$", run("stats", "b")[1], re.MULTILINE)
    assert seconds_of(json.loads(run("stats", "b", "--json")[1])["paused_until"]) == end


@pytest.mark.parametrize("options", [["--json"], []])
def test_stats_watch_prints_a_line_each_interval(client: redis.Redis, options: list[str]) -> None:
    Buffer(client, "b").push(1)
    command = [*COMMAND, "stats", "b", "--watch", "0.1", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        lines = [process.stdout.readline() for _ in range(3)]
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, "redisq: interrupted\n")
    assert all(json.loads(line)["waiting"] == 1 if options else "waiting 1  groups 1  " in line for line in lines)


def test_peek_shows_the_longest_groups_or_the_most_urgent_members(client: redis.Redis, run: Run) -> None:
    buffer: Buffer[int] = Buffer(client, "b")
    buffer.push(1, 2, group="long\x1b[31m")
    buffer.push(1, group="short")
    code, out, _ = run("peek", "b")
    rows = ["waiting  group         state", "      2  long\\x1b[31m  waiting", "      1  short         waiting"]
    assert (code, out.splitlines()) == (0, rows)
    found = json.loads(run("peek", "b", "--count", 1, "--json")[1])
    (group,) = found.pop("groups")
    assert found == {"queue": "b", "kind": "buffer"}
    assert group == {"group": "long\x1b[31m", "waiting": 2, "state": "waiting"}
    assert Buffer(client, "b", ordered=True).reserve(1)
    client.zrem("redisq:{b}:groups", "short")
    client.zadd("redisq:{b}:paused_groups", {"short": "inf"})
    _, *rows = run("peek", "b")[1].splitlines()
    assert [row.split() for row in rows] == [["1", "long\\x1b[31m", "busy"], ["1", "short", "paused"]]
    assert len(json.loads(run("peek", "b", "--count", 1, "--json")[1])["groups"]) == 1

    queue = PriorityQueue(client, "p", codec=BYTES, payload_codec=BYTES)
    queue.push(b"late \xff\n", 7)
    queue.push(b"soon", -1, payload=b"\xfe" + b"1" * 99)
    code, out, _ = run("peek", "p")
    assert (code, out.splitlines()) == (
        0,
        [
            "priority  attempts  member       payload",
            f"      -1         0  soon         \\xfe{'1' * 53}...",
            "       7         0  late \\xff\\n",
        ],
    )
    soon, late = json.loads(run("peek", "p", "--json")[1])["members"]
    assert (soon["member"], soon["payload"]) == ("soon", "\\xfe" + "1" * 99)
    assert late == {"member": "late \\xff\n", "priority": 7, "attempts": 0, "payload": None, "reason": ""}
    queue.push_many({b"%d" % i: 9 for i in range(1_500)})
    assert len(json.loads(run("peek", "p", "--count", 2_000, "--json")[1])["members"]) == 1_502


def test_an_empty_queue_of_a_known_kind(client: redis.Redis, run: Run) -> None:
    assert run("peek", "q", "--kind", "buffer") == (0, "", "")
    assert json.loads(run("stats", "q", "--kind", "priority", "--json")[1])["waiting"] == 0
    assert run("dead", "list", "q", "--kind", "buffer") == (0, "", "")
    assert run("audit", "q", "--kind", "priority")[0] == 0
    assert client.dbsize() == 0


def test_delayed_batches(client: redis.Redis, run: Run) -> None:
    buffer: Buffer[str] = Buffer(client, "b")
    buffer.push("a", "b", group="g")
    assert run("delayed", "b") == (0, "", "")
    batch = buffer.reserve(holder="worker 7")
    assert batch
    batch.release(delay=90, reason="HTTPError: 503\nbusy")
    code, out, _ = run("delayed", "b")
    header, row = out.splitlines()
    assert (code, header.split()) == (0, ["id", "due", "attempts", "reason", "group", "items", "oldest"])
    assert "  1  HTTPError: 503\\nbusy  g " in row
    (found,) = json.loads(run("delayed", "b", "--json")[1])["delayed"]
    assert 30 < seconds_of(found.pop("due")) - time.time() <= 95
    about = {"id": batch.id, "group": "g", "attempts": 1, "reason": "HTTPError: 503\nbusy", "holder": "worker 7"}
    assert found == {**about, "items": ['"a"', '"b"']}


def test_delayed_members(client: redis.Redis, run: Run) -> None:
    queue = PriorityQueue(client, "p")
    queue.push_many({"new": 1}, delay=50)
    queue.push("old", 3, payload={"n": 1})
    batch = queue.reserve()
    assert batch
    batch.release(delay=20, reason="429")
    found = json.loads(run("delayed", "p", "--json")[1])["delayed"]
    assert [(one["member"], one["attempts"], one["reason"]) for one in found] == [("old", 1, "429"), ("new", 0, "")]
    assert len(run("delayed", "p", "--limit", 1)[1].splitlines()) == 2
