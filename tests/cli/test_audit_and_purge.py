"""`redisq audit`, `purge` and `lua list`."""

from __future__ import annotations

import json
import os
import pty
import sys
from pathlib import Path

import pytest
import redis

from redisq import Buffer, PriorityQueue
from redisq.core.scripts import names
from tests.cli.conftest import Run

pytestmark = pytest.mark.server


def test_audit_finds_and_repairs_damage(client: redis.Redis, run: Run) -> None:
    Buffer(client, "b").push(1, 2, group="g\xff")
    assert run("audit", "b")[0] == 0
    client.zadd("redisq:{b}:groups", {"g\xff": 7})
    code, out, err = run("audit", "b")
    assert (code, err) == (1, "")
    assert out.splitlines()[1].split() == ["length", "gÿ", "7", "2"]
    found = json.loads(run("audit", "b", "--json")[1])
    (finding,) = found.pop("findings")
    assert finding == {"kind": "length", "name": "gÿ", "found": "7", "expected": "2", "repaired": False}
    code, out, _ = run("audit", "b", "--repair")
    assert code == 0
    assert out.splitlines()[1].split() == ["length", "gÿ", "7", "2", "repaired"]
    assert out.endswith(" keys and entries checked: 1 finding, 1 repaired\n")
    assert run("audit", "b")[1].endswith("nothing is wrong\n")


def test_audit_reports_what_it_cannot_repair(client: redis.Redis, run: Run) -> None:
    PriorityQueue(client, "p").push("a")
    client.set("redisq:{p}:rows", "mine")
    code, out, _ = run("audit", "p", "--repair", "--json")
    assert code == 1
    assert [(one["kind"], one["repaired"]) for one in json.loads(out)["findings"]] == [("type", False)]
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
