"""The command line: the output of each command as text and as JSON, its exit codes and its errors."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from redisq import BYTES, Buffer, PriorityQueue, Pushed
from redisq.cli import dead, push
from redisq.core.scripts import names
from redisq.embedded import Server
from tests.cli.conftest import COMMAND, Run, bury_batch, bury_members, seconds_of

pytestmark = pytest.mark.server
UNREACHABLE = "redis://:secret@127.0.0.1:1"

Push = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run_push(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Push:
    """Return a function that runs `push` with lines, or bytes, as its standard input."""

    def run_push(lines: list[Any] | bytes, *arguments: object) -> tuple[int, str, str]:
        data = lines if isinstance(lines, bytes) else "".join(json.dumps(line) + "\n" for line in lines).encode()
        (tmp_path / "stdin").write_bytes(data)
        with (tmp_path / "stdin").open() as stdin, monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", stdin)
            return run("push", *arguments)

    return run_push


# push


def test_push_makes_items_that_python_reads(client: redis.Redis, run_push: Push) -> None:
    actions = [{"user": "b", "did": "like"}, {"did": "ä", "user": 7}, {"user": "b", "n": 1.5, "big": 2**70}]
    code, out, err = run_push(actions, "q", "--group-by", "user")
    assert (code, err) == (0, "")
    assert out.startswith("3 lines pushed in ")
    assert out.endswith(": 2 groups\n")
    buffer: Buffer[Any] = Buffer(client, "q")
    assert buffer.pop("b") == [actions[0], actions[2]]
    assert client.lrange("redisq:{q}:items:7", 0, -1) == ['{"did":"ä","user":7}'.encode()]
    assert buffer.pop("7") == [actions[1]]


def test_push_without_a_group_field_accepts_any_json(client: redis.Redis, run_push: Push) -> None:
    assert run_push([1, "two", None, [3]], "q", "--group", "all")[0] == 0
    assert run_push(b'{"b":1, "a":2}', "q")[0] == 0  # the keys of q show its kind; the last line needs no newline
    buffer: Buffer[Any] = Buffer(client, "q")
    assert buffer.pop("all") == [1, "two", None, [3]]
    assert buffer.pop() == [{"a": 2, "b": 1}]


def test_push_to_a_priority_queue_keeps_the_lowest_priority(client: redis.Redis, run_push: Push) -> None:
    lines = [{"p": 5, "path": "a"}, {"p": 2, "path": "b"}, {"p": 1, "path": "a"}, {"p": 9, "path": "b"}]
    code, out, _ = run_push(lines, "q", "--priority-by", "p", "--member", "path", "--json")
    assert code == 0
    message = json.loads(out)
    assert message.pop("seconds") >= 0
    assert message == {"queue": "q", "kind": "priority", "lines": 4, "added": 2, "raised": 1, "kept": 1}
    queue: PriorityQueue[str] = PriorityQueue(client, "q")
    assert [(item.member, item.priority) for item in queue.pop_many(9)] == [("a", 1), ("b", 2)]


def test_push_accepts_a_byte_order_mark_and_ignores_blank_lines(client: redis.Redis, run_push: Push) -> None:
    """As editors and exports write them; a byte order mark anywhere but at the beginning is an error."""
    code, out, _ = run_push(b'\xef\xbb\xbf{"a": 1}\n\n  \r\n{"a": 2}\n\n', "q", "--group", "g", "--json")
    assert (code, json.loads(out)["lines"]) == (0, 2)
    assert Buffer(client, "q").pop("g") == [{"a": 1}, {"a": 2}]
    code, _, err = run_push(b'{"a": 1}\n\xef\xbb\xbf{"a": 2}\n', "q", "--group", "g")
    assert (code, "line 2: not JSON" in err) == (1, True)


def test_push_encodes_members_canonically(client: redis.Redis, run_push: Push) -> None:
    lines = [{"b": 1, "a": 2}, {"a": 2, "b": 1}, "text"]
    assert run_push(lines, "q", "--kind", "priority")[0] == 0
    assert run_push([{"n": 17}], "q", "--member", "n")[0] == 0
    queue: PriorityQueue[str] = PriorityQueue(client, "q")
    assert [item.member for item in queue.pop_many(9)] == ['{"a":2,"b":1}', '"text"', "17"]


def test_push_keeps_the_order_of_an_existing_queue(client: redis.Redis, run_push: Push) -> None:
    assert run_push([{"p": 0.25}], "new", "--priority-by", "p", "--order", "score")[0] == 0
    assert run_push([{"p": 0.125}], "new", "--priority-by", "p")[0] == 0
    assert [item.priority for item in PriorityQueue(client, "new", order="score").pop_many(9)] == [0.125, 0.25]
    client.zadd("redisq:{old}:ready", {"theirs": 1.5})  # a sorted set from before redisq
    assert run_push([{"p": 0.5}], "old", "--priority-by", "p")[0] == 0
    assert PriorityQueue(client, "old", order="score").stats().waiting == 2
    code, _, err = run_push([{"p": 1}], "old", "--priority-by", "p", "--order", "fifo")
    assert (code, err) == (1, "redisq: old is kept in score order, not in fifo\n")


@pytest.mark.parametrize("options", [["--kind", "buffer"], ["--priority-by", "p"], ["--group-by", "p"]])
def test_push_accepts_empty_input(client: redis.Redis, run_push: Push, options: list[str]) -> None:
    for nothing in (b"", b"\n", b"\n \r\n"):
        code, out, err = run_push(nothing, "q", *options, "--json")
        assert (code, err) == (0, "")
        assert json.loads(out)["queue"] == "q"
    assert client.dbsize() == 0


@pytest.mark.parametrize(
    ("line", "options", "message"),
    [
        (b'{"g": nope}', ["--group-by", "g"], "not JSON: Expecting value at column 7, near '{\"g\": nope}'"),
        (b"NaN", ["--group", "g"], "Out of range float values are not JSON compliant"),
        (b'{"g": "\xff"}', ["--group-by", "g"], "not UTF-8"),
        (b"[" * 100_000, ["--group", "g"], "nested too deeply"),
        (b"[1]", ["--group-by", "g"], "it is no object, so it has no field g"),
        (b'{"g": null}', ["--group-by", "g"], "it has no field g"),
        (b'{"g": {}}', ["--group-by", "g"], "field g is {}: it cannot name a group"),
        (b'{"g": ""}', ["--group-by", "g"], 'field g is "": it cannot name a group'),
        (b'{"p": 1}', ["--priority-by", "g"], "it has no field g"),
        (b'{"g": "high"}', ["--priority-by", "g"], "priority is 'high': give a finite number"),
        (b'{"g": true}', ["--priority-by", "g"], "priority is True: give a finite number"),
        (b'{"g": [1]}', ["--priority-by", "g"], "field g is [1]: give a number"),
        (b'{"g": 1.5}', ["--priority-by", "g"], "give a whole number from -1024 to 1023"),
    ],
)
def test_push_reports_a_bad_line_and_pushes_the_lines_before_it(
    client: redis.Redis, run_push: Push, line: bytes, options: list[str], message: str
) -> None:
    code, out, err = run_push(b'{"g": 1}\n\n{"g": 2}\n' + line + b'\n{"g": 3}\n', "q", *options)
    assert (code, out) == (1, "")
    assert err.startswith("redisq: line 4: ")
    assert message in err
    assert err.endswith("; the first 3 lines are pushed\n")
    assert err.count("\n") == 1
    held = Buffer(client, "q") if "priority" not in options[0] else PriorityQueue(client, "q")
    assert held.stats().waiting == 2


def test_push_sends_lines_in_chunks(client: redis.Redis, run_push: Push, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "_HEAP", 100_000)
    monkeypatch.setattr(push, "_CHUNK", 1 << 10)
    assert run_push([{"g": i % 3, "i": i} for i in range(25_000)], "q", "--group-by", "g")[0] == 0
    buffer: Buffer[Any] = Buffer(client, "q")
    assert [x["i"] for x in buffer.pop("2", 5_000) + buffer.pop("2", 5_000)] == list(range(2, 25_000, 3))
    assert run_push(list(range(3_500)), "p", "--kind", "priority")[0] == 0
    assert PriorityQueue(client, "p").stats().waiting == 3_500


def test_push_of_a_group_larger_than_one_call(client: redis.Redis, run_push: Push) -> None:
    assert run_push(list(range(25_000)), "q", "--group", "g")[0] == 0
    buffer: Buffer[int] = Buffer(client, "q")
    assert [item for _ in range(5) for item in buffer.pop("g", 5_000)] == list(range(25_000))


def test_push_reports_how_many_lines_were_pushed_when_the_server_refuses(client: redis.Redis, run_push: Push) -> None:
    client.config_set("maxmemory", 1)
    code, _, err = run_push([1, 2], "q", "--group", "g")
    assert code == 1
    assert "command not allowed when used memory > 'maxmemory'" in err
    assert err.endswith("; nothing is pushed for certain, some of the 2 that follow may be\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "options",
    [
        ["--group-by", "a", "--group", "b"],
        ["--group-by", "a", "--priority-by", "b"],
        ["--group", "a", "--kind", "priority"],
        ["--member", "a", "--kind", "buffer"],
        ["--kind", "list"],
        [],
    ],
)
@pytest.mark.usefixtures("client")
def test_contradicting_push_options_are_a_usage_error(run_push: Push, options: list[str]) -> None:
    code, out, err = run_push([1], "q", *options)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("redisq")


def test_push_sends_lines_when_the_input_pauses_and_reports_them_when_interrupted(client: redis.Redis) -> None:
    command = [*COMMAND, "push", "q", "--group", "g"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdin
        process.stdin.write("1\n2\n3\n4")
        process.stdin.flush()
        wait_until(lambda: Buffer(client, "q").stats().waiting == 3)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, "", "redisq: interrupted; the first 3 lines are pushed\n")


# stats, peek


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


# dead


def test_dead_batches(client: redis.Redis, run: Run) -> None:
    first = bury_batch(client, "b", b"\xff1", b"2", b"3", b"4", group="g\n", reason="it is\nbad " + "x" * 99)
    second = bury_batch(client, "b", b"5", group="g\n")
    code, out, _ = run("dead", "list", "b")
    header, *rows = out.splitlines()
    (row,) = (row for row in rows if row.startswith(first))  # both may be buried in the same ms
    assert (code, header.split()) == (0, ["id", "died", "attempts", "reason", "group", "items", "oldest"])
    assert re.search(r" 1  it is\\nbad x+\.\.\.  g\\n        4  \\xff1 2 3 \.\.\.$", row)
    (found,) = (one for one in json.loads(run("dead", "list", "b", "--json")[1])["dead"] if one["id"] == first)
    assert abs(seconds_of(found.pop("died")) - time.time()) < 60
    about = {"id": first, "group": "g\n", "attempts": 1, "reason": "it is\nbad " + "x" * 99, "holder": "worker 7"}
    assert found == {**about, "items": ["\\xff1", "2", "3", "4"]}
    assert len(json.loads(run("dead", "list", "b", "--limit", 1, "--json")[1])["dead"]) == 1

    assert run("dead", "redrive", "b", "nobody") == (1, "0 redriven\n", "")
    assert run("dead", "redrive", "b", first, "nobody") == (0, "1 redriven\n", "")
    assert json.loads(run("dead", "discard", "b", second, "--json")[1])["discarded"] == 1
    assert run("dead", "list", "b") == (0, "", "")
    assert Buffer(client, "b", codec=BYTES).pop("g\n") == [b"\xff1", b"2", b"3", b"4"]


def test_redrive_all_keeps_the_order_of_burial(client: redis.Redis, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many calls that takes."""
    monkeypatch.setattr(dead, "_PIECE", 2)
    buffer: Buffer[int] = Buffer(client, "b")
    buffer.push(*range(7))
    for i in range(5):
        batch = buffer.reserve(1)
        assert batch
        batch.bury()
        client.zadd("redisq:{b}:dead", {batch.id: i}, xx=True)  # else some would be buried in the same ms
    assert run("dead", "redrive", "b", "--all") == (0, "5 redriven\n", "")
    assert buffer.pop() == list(range(7))


def test_dead_members(client: redis.Redis, run: Run) -> None:
    members = [b"%04d" % i for i in range(1_200)]
    bury_members(client, "p", b"\xff", b"\xc3\xa4")
    client.zadd("redisq:{p}:dead", {b"\xff": 1_000, b"\xc3\xa4": 2_000}, xx=True)  # the earliest burial comes first
    bury_members(client, "p", *members)
    code, out, _ = run("dead", "list", "p", "--limit", 1)
    header, row = out.splitlines()
    assert (code, header.split()) == (0, ["member", "died", "attempts", "reason", "priority", "payload"])
    assert re.fullmatch(r"\\xff    19(69|70)-\d\d-\d\d \d\d:\d\d:01         1  bad            3  of \\xff", row)
    found = json.loads(run("dead", "list", "p", "--limit", 5_000, "--json")[1])["dead"]
    assert [one["member"] for one in found[:2]] == ["\\xff", "ä"]
    assert sorted(one["member"] for one in found[2:]) == [member.decode() for member in members]
    about = {"attempts": 1, "payload": "of ä", "reason": "bad", "died": "1970-01-01T00:00:02.000+00:00"}
    assert found[1] == {"member": "ä", "priority": 3, **about}
    assert [one["died"] for one in found] == sorted(one["died"] for one in found)
    assert run("dead", "discard", "p", "0007", "ä") == (0, "2 discarded\n", "")
    assert run("dead", "redrive", "p", "--all", "--limit", 50) == (0, "50 redriven\n", "")
    assert run("dead", "redrive", "p", "--all") == (0, "1,150 redriven\n", "")
    assert run("dead", "discard", "p", "--all") == (0, "0 discarded\n", "")
    held = PriorityQueue(client, "p").stats()
    assert (held.waiting, held.dead) == (1_200, 0)


@pytest.mark.parametrize("options", [[], ["a", "--all"], ["a", "--limit", "3"], ["--all", "--limit", "0"]])
def test_dead_commands_need_ids_or_all(run: Run, options: list[str]) -> None:
    code, out, err = run("dead", "redrive", "q", *options)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("redisq")


# audit, purge


def test_audit_finds_and_repairs_damage(client: redis.Redis, run: Run) -> None:
    Buffer(client, "b").push(1, 2, group="g\xff")
    assert run("audit", "b")[0] == 0
    client.zadd("redisq:{b}:groups", {"g\xff": 7})
    code, out, err = run("audit", "b")
    assert (code, err) == (1, "")
    assert out.splitlines()[1].split() == ["length", "gÿ", "7", "2"]
    found = json.loads(run("audit", "b", "--json")[1])
    (finding,) = found.pop("findings")
    assert finding == {"kind": "length", "name": "gÿ", "found": "7", "expected": "2", "mended": False}
    code, out, _ = run("audit", "b", "--repair")
    assert code == 0
    assert out.splitlines()[1].split() == ["length", "gÿ", "7", "2", "mended"]
    assert out.endswith("1 findings, 1 mended\n")
    assert run("audit", "b")[1].endswith("nothing is wrong\n")


def test_audit_reports_what_it_cannot_repair(client: redis.Redis, run: Run) -> None:
    PriorityQueue(client, "p").push("a")
    client.set("redisq:{p}:rows", "mine")
    code, out, _ = run("audit", "p", "--repair", "--json")
    assert code == 1
    assert [(one["kind"], one["mended"]) for one in json.loads(out)["findings"]] == [("type", False)]
    assert client.get("redisq:{p}:rows") == b"mine"


def test_audit_finds_lists_without_counters(client: redis.Redis, run: Run) -> None:
    Buffer(client, "b").push(1, 2, group="g")
    client.delete("redisq:{b}:groups", "redisq:{b}:since", "redisq:{b}:meta")
    assert run("stats", "b")[0] == 1
    assert run("audit", "b", "--repair")[0] == 0
    assert Buffer(client, "b").stats().waiting == 2
    queue = PriorityQueue(client, "p")
    queue.push("a")
    queue.reserve()
    client.delete("redisq:{p}:leases", "redisq:{p}:held", "redisq:{p}:meta")
    assert run("stats", "p")[0] == 1
    assert run("audit", "p", "--repair")[0] == 0
    assert queue.stats().leased == 1


def test_purge(client: redis.Redis, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Buffer(client, "b").push(1, 2)
    (tmp_path / "nothing").touch()
    with (tmp_path / "nothing").open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        code, _, err = run("purge", "b")
    assert (code, err) == (2, "redisq: say --yes: there is no terminal to ask at\n")
    assert Buffer(client, "b").stats().waiting == 2
    assert run("purge", "b", "--yes") == (0, "2 purged\n", "")
    PriorityQueue(client, "p").push("a")
    assert json.loads(run("purge", "p", "--yes", "--json")[1]) == {"queue": "p", "kind": "priority", "purged": 1}


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 1), ("\n", 1)])
def test_purge_asks_for_confirmation_on_a_terminal(
    client: redis.Redis, run: Run, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    Buffer(client, "b").push(1, 2)
    ours, theirs = pty.openpty()
    try:
        os.write(ours, answer.encode())
        with os.fdopen(theirs, "r") as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            ended, _, err = run("purge", "b")
    finally:
        os.close(ours)
    assert ended == code
    assert "2 waiting, 0 leased, 0 delayed, 0 dead" in err
    assert Buffer(client, "b").stats().waiting == (0 if code == 0 else 2)


# lua


def test_lua_list(run: Run) -> None:
    code, out, _ = run("lua", "list")
    assert (code, [row.split()[0] for row in out.splitlines()]) == (0, ["name", *names()])
    listed = {script["name"]: script for script in json.loads(run("lua", "list", "--json")[1])}
    assert list(listed) == names()
    one = listed["buffer/pop_longest"]
    assert {"name", "sha1", "summary", "keys", "args", "reply", "errors", "replay", "computes"} < set(one)
    assert len(one["sha1"]) == 40
    assert [key["name"] for key in one["keys"]] == ["meta", "groups", "since", "paused", "guard"]
    assert (one["replay"], one["errors"]) == ("no", ["BADARG", "LAYOUT"])
    computed = ["items:<group>", "leases", "delayed", "dead", "busy", "paused_groups", "wake"]
    assert one["computes"] == ["{queue}:" + key for key in computed]
    assert listed["buffer/push"]["args"][-1]["rest"] is True


# delayed


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


# errors that every command reports

QUEUE_COMMANDS = [
    ("stats", "q"),
    ("stats", "q", "--watch"),
    ("peek", "q"),
    ("delayed", "q"),
    ("dead", "list", "q"),
    ("dead", "redrive", "q", "--all"),
    ("dead", "discard", "q", "x"),
    ("audit", "q"),
    ("purge", "q", "--yes"),
]


@pytest.mark.parametrize("command", QUEUE_COMMANDS, ids=" ".join)
def test_no_such_queue(client: redis.Redis, run: Run, server: Server, command: tuple[str, ...]) -> None:
    Buffer(client, "q", prefix="other").push(1)
    code, out, err = run(*command)
    assert (code, out) == (1, "")
    assert err == f"redisq: no queue q at {server.url}: an empty one has no keys, --kind says what it would be\n"
    if "--watch" not in command:
        assert run(*command, "--prefix", "other")[0] == (1 if "discard" in command else 0)


@pytest.mark.parametrize("command", QUEUE_COMMANDS, ids=" ".join)
def test_no_server(run: Run, command: tuple[str, ...]) -> None:
    code, out, err = run(*command, "--url", UNREACHABLE)
    assert (code, out) == (3, "")
    assert err.startswith("redisq: no server at redis://***@127.0.0.1:1: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "url", ["nonsense", "http://x", "redis://:se/cret@h:1", "redis://h:port", "redis://h?password=secret&db=x"]
)
def test_wrong_url(run: Run, url: str) -> None:
    code, out, err = run("stats", "q", "--url", url)
    assert (code, out) == (2, "")
    assert " is not the URL of a Redis server: give redis://" in err
    assert "cret" not in err
    assert err.count("\n") == 1


def test_a_wrong_password(client: redis.Redis, run: Run, server: Server) -> None:
    client.acl_setuser("reader", enabled=True, passwords=["+secret"], keys=["*"], categories=["+@all"])
    try:
        code, _, err = run("stats", "q", "--url", f"{server.url}?username=reader&password=sesame")
    finally:
        client.acl_deluser("reader")
    assert code == 3
    assert err.startswith(f"redisq: the server at {server.url} refuses: ")
    assert "sesame" not in err


def test_a_user_without_permission(client: redis.Redis, run: Run, server: Server) -> None:
    Buffer(client, "q").push(1)
    allowed = ["+exists", "+hget"]
    client.acl_setuser("reader", enabled=True, passwords=["+secret"], keys=["*"], commands=allowed)
    try:
        code, _, err = run("stats", "q", "--url", f"{server.url}?username=reader&password=secret")
    finally:
        client.acl_deluser("reader")
    assert code == 3
    assert "refuses: " in err
    assert err.count("\n") == 1


def test_keys_of_both_structures(client: redis.Redis, run: Run) -> None:
    """The mark decides; without a mark, `--kind` is required."""
    Buffer(client, "q").push(1)
    client.zadd("redisq:{q}:ready", {"a": 7})
    assert json.loads(run("stats", "q", "--json")[1])["kind"] == "buffer"
    client.delete("redisq:{q}:meta")
    code, _, err = run("stats", "q")
    assert (code, err) == (1, "redisq: q has keys of both structures: say --kind buffer or --kind priority\n")
    assert json.loads(run("stats", "q", "--kind", "buffer", "--json")[1])["groups"] == 1
    assert json.loads(run("peek", "q", "--kind", "priority", "--json")[1])["members"][0]["priority"] == 7


def test_another_layout(client: redis.Redis, run: Run) -> None:
    """Scripts refuse a queue that is marked with another layout."""
    for mark in ("3 buffer", "3 fifo", "1", "?"):
        client.hset("redisq:{q}:meta", "queue", mark)
        code, out, err = run("stats", "q")
        assert (code, out) == (1, "")
        assert f"this queue is marked {mark}, the script is for 2 " in err


def test_the_other_structure(client: redis.Redis, run: Run, run_push: Push) -> None:
    Buffer(client, "b").push(1)
    PriorityQueue(client, "p").push("a")
    assert run("stats", "b", "--kind", "priority") == (1, "", "redisq: b is a buffer, not a priority queue\n")
    assert run_push([1], "p", "--group", "g") == (1, "", "redisq: p is a priority queue, not a buffer\n")


@pytest.mark.parametrize("key", ["groups", "meta"])
def test_a_key_of_another_type(client: redis.Redis, run: Run, key: str) -> None:
    client.set(f"redisq:{{q}}:{key}", "mine")
    code, out, err = run("peek", "q")
    assert (code, out) == (1, "")
    assert "holds another type" in err
    assert err.count("\n") == 1
    assert run("audit", "q")[0] == 1


def test_an_invalid_name_and_no_server(run: Run) -> None:
    code, _, err = run("stats", "{q}", "--url", UNREACHABLE)
    assert (code, err.startswith("redisq: ")) == (3, True)


@pytest.mark.usefixtures("client")
def test_a_bad_name(run: Run) -> None:
    code, _, err = run("stats", "{q}")
    assert code == 2
    assert err.startswith("redisq: queue name is '{q}': leave out { and }")


def test_a_reader_that_closes_the_pipe_is_no_error(client: redis.Redis) -> None:
    PriorityQueue(client, "p").push_many({f"{i:0500}": 0 for i in range(1_000)})
    with subprocess.Popen(
        [*COMMAND, "peek", "p", "--count", "1000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(20) == 1
        assert process.stderr
        assert process.stderr.read() == ""


@pytest.mark.usefixtures("client")
def test_json_works_without_rich(client: redis.Redis) -> None:
    Buffer(client, "b").push(1)
    code = "import sys; sys.modules['rich'] = None; from redisq.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "stats", "b"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    message = "redisq: tables need rich: pip install 'redisq[cli]', or say --json\n"
    assert (done.returncode, done.stderr) == (1, message)
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, json.loads(done.stdout)["waiting"]) == (0, 1)


@pytest.mark.parametrize(
    "command",
    [
        "demo",
        "worker",
        "push",
        "stats",
        "peek",
        "delayed",
        "dead list",
        "dead redrive",
        "dead discard",
        "audit",
        "purge",
        "lua list",
    ],
)
def test_help_shows_an_example(run: Run, command: str) -> None:
    code, out, _ = run(*command.split(), "--help")
    assert code == 0
    assert f"\nexample:\n  redisq {command}" in out


@pytest.mark.parametrize("command", [[], ["fly"], ["stats"], ["dead"], ["lua"], ["peek", "q", "--count", "0"]])
def test_wrong_usage(run: Run, command: list[str]) -> None:
    code, out, err = run(*command)
    assert (code, out) == (2, "")
    assert err.startswith("usage: redisq")


# worker

JOBS = """
import asyncio
import os
import time
from pathlib import Path

import redis

import redisq.asyncio
from redisq import Buffer, Worker

HERE = Path(__file__).parent


def note(batch):
    with open(HERE / "done", "a") as done:
        done.write("".join(f"{item}\\n" for item in batch.items))


def worker(client):
    return Worker(Buffer(client, "q"), note, size=10, on_ack=lambda batch: (HERE / "hooked").touch())


def idler(client):
    (HERE / str(os.getpid())).touch()
    return worker(client)


ready = Worker(Buffer(redis.Redis.from_url(os.environ["REDIS_URL"]), "q"), note, size=10)


async def note_later(batch):
    await asyncio.sleep(0)
    note(batch)


async def awaited(client):
    return redisq.asyncio.Worker(redisq.asyncio.Buffer(client, "q"), note_later, size=10)


def mortal(client):
    def die_once(batch):
        if not (HERE / "died").exists():
            (HERE / "died").touch()
            os._exit(9)
        note(batch)

    return Worker(Buffer(client, "q", lease=0.2), die_once, size=10)


def slow(client):
    def wait(batch):
        (HERE / "begun").touch()
        time.sleep(60)

    return Worker(Buffer(client, "q"), wait)


def finishing(client):
    made = worker(client)
    made.handler = lambda batch: made.stop()
    return made


def wrong(client):
    return 5


def failing(client):
    raise KeyError("what")


number = 5
"""


def wait_until(true: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.02)


@pytest.fixture
def jobs(client: redis.Redis, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Return a function that starts `redisq worker` with one of the jobs above."""
    assert client.ping()
    (tmp_path / "jobs.py").write_text(JOBS)
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*COMMAND, "worker", *arguments],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=20)


def is_empty(client: redis.Redis) -> bool:
    held = Buffer(client, "q").stats()
    return held.waiting + held.leased + held.delayed == 0


Jobs = Callable[..., "subprocess.Popen[str]"]


@pytest.mark.parametrize("target", [["jobs:worker"], ["jobs:ready"], ["jobs:awaited", "--asyncio"], ["jobs:mortal"]])
def test_worker_processes_everything_and_ends_cleanly(
    client: redis.Redis, jobs: Jobs, tmp_path: Path, target: list[str]
) -> None:
    Buffer(client, "q").push(*range(500))
    process = jobs(*target, "--processes", "2")
    wait_until(lambda: is_empty(client))
    process.terminate()
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, ""), err
    assert sorted(map(int, (tmp_path / "done").read_text().split())) == list(range(500))
    assert (tmp_path / "hooked").exists() == (target == ["jobs:worker"])
    if target == ["jobs:mortal"]:
        assert "died with exit code 9, starts again in 1 s" in err
    else:
        assert "ended: 50 batches acked with 500 items, 0 released, 0 dead" in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_every_process_counts_once_and_a_second_one_ends_the_grace(
    client: redis.Redis, jobs: Jobs, tmp_path: Path, number: int, code: int
) -> None:
    Buffer(client, "q").push(1)
    process = jobs("jobs:slow")
    wait_until((tmp_path / "begun").exists)
    os.killpg(process.pid, number)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1.2)  # longer than the time within which signals are one request
    assert Buffer(client, "q").stats().leased == 1
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=20)
    assert process.returncode == code, err
    held = Buffer(client, "q").stats()
    assert (held.leased, held.delayed) == (0, 1)  # released, due at once


def test_worker_processes_end_with_their_parent(jobs: Jobs, tmp_path: Path) -> None:
    process = jobs("jobs:idler", "--processes", "2")
    wait_until(lambda: len([path for path in tmp_path.iterdir() if path.name.isdigit()]) == 2)
    pids = [int(path.name) for path in tmp_path.iterdir() if path.name.isdigit()]
    process.kill()
    process.wait()

    def has_ended(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            return True

    wait_until(lambda: all(map(has_ended, pids)))


def test_a_worker_that_stops_itself_exits_with_0(client: redis.Redis, jobs: Jobs) -> None:
    Buffer(client, "q").push(1)
    process = jobs("jobs:finishing")
    _, err = process.communicate(timeout=20)
    assert process.returncode == 0, err


def test_worker_prints_rates_on_a_terminal(client: redis.Redis, tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(JOBS)
    Buffer(client, "q").push(*range(500))
    ours, theirs = pty.openpty()
    with subprocess.Popen([*COMMAND, "worker", "jobs:worker"], cwd=tmp_path, stdout=theirs) as process:
        os.close(theirs)
        message = ""
        while "500 items in all" not in message:
            message += os.read(ours, 4096).decode()
        process.terminate()
        assert process.wait(20) == 0
    os.close(ours)
    assert "1 running  acked" in message


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["jobs"], 2, "redisq worker: error: jobs is not MODULE:NAME"),
        (["nobody:worker"], 2, "redisq: no module nobody on the path or in "),
        (["jobs:nobody"], 2, "redisq: module jobs has no nobody"),
        (["jobs:number"], 2, "redisq: jobs:number is or returns int, not a redisq.Worker"),
        (["jobs:wrong"], 2, "redisq: jobs:wrong is or returns int, not a redisq.Worker"),
        (["jobs:wrong", "--asyncio"], 2, "redisq: jobs:wrong is or returns int, not a redisq.asyncio.Worker"),
        (["jobs:ready", "--asyncio"], 2, "not a redisq.asyncio.Worker: leave --asyncio out"),
        (["jobs:failing"], 1, "redisq: jobs:failing failed: KeyError: 'what'"),
        (["jobs:worker", "--url", UNREACHABLE], 3, "redisq: no server at redis://***@127.0.0.1:1: "),
        (["jobs:awaited", "--asyncio", "--url", UNREACHABLE], 3, "redisq: no server at redis://***@127.0.0.1:1: "),
        (["jobs:worker", "--url", "nonsense"], 2, "redisq: nonsense is not the URL of a Redis server"),
    ],
)
def test_a_worker_that_cannot_start(jobs: Jobs, arguments: list[str], code: int, message: str) -> None:
    process = jobs(*arguments)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code, err
    assert message in err.splitlines()[-1]
    assert "secret" not in err


def test_push_results_are_named_as_in_json() -> None:
    assert [pushed.value for pushed in Pushed] == ["added", "raised", "changed", "kept"]
