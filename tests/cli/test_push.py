"""`redisq push`: how lines become items or members, and which are pushed when something is wrong."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from typing import Any

import pytest
import redis

from redisq import Buffer, PriorityQueue, Pushed
from redisq.cli import push
from tests.cli.conftest import COMMAND, Push
from tests.waiting import until

pytestmark = pytest.mark.server


def test_push_makes_items_that_python_reads(client: redis.Redis, run_push: Push) -> None:
    actions = [{"user": "b", "did": "like"}, {"did": "ä", "user": 7}, {"user": "b", "n": 1.5, "big": 2**70}]
    code, out, err = run_push(actions, "q", "--group-by", "user")
    assert (code, err) == (0, "")
    assert out.startswith("3 lines pushed in ")
    assert out.endswith(": 2 groups\n")
    out = run_push([1], "one", "--group", "g")[1]
    assert (out[:17], out[-10:]) == ("1 line pushed in ", ": 1 group\n")
    buffer: Buffer[Any] = Buffer(client, "q")
    assert buffer.pop("b") == [actions[0], actions[2]]
    assert client.lrange("redisq:{q}:items:7", 0, -1) == ['{"did":"ä","user":7}'.encode()]
    assert buffer.pop("7") == [actions[1]]


@pytest.mark.usefixtures("client")
def test_push_from_a_terminal_says_what_it_waits_for() -> None:
    ours, theirs = pty.openpty()
    os.write(ours, b"1\n\x04")
    done = subprocess.run(
        [*COMMAND, "push", "q", "--group", "g"], stdin=theirs, capture_output=True, text=True, timeout=60
    )
    os.close(ours)
    os.close(theirs)
    assert (done.returncode, done.stdout[:17]) == (0, "1 line pushed in ")
    assert done.stderr == "reading JSON lines; Ctrl-D ends\n"


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
        (b"[1]", ["--group-by", "g"], "it is not an object, so it has no field g"),
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
        until(lambda: Buffer(client, "q").stats().waiting == 3)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, "", "redisq: interrupted; the first 3 lines are pushed\n")


def test_push_results_are_named_as_in_json() -> None:
    assert [pushed.value for pushed in Pushed] == ["added", "raised", "changed", "kept"]
