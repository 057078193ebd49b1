"""`redisq dead`: dead letters are listed, redriven and discarded."""

from __future__ import annotations

import io
import json
import re
import time

import pytest
import redis
from rich.console import Console

from redisq import BYTES, Buffer, PriorityQueue
from redisq.cli import dead, output
from tests.cli.conftest import Run, bury_batch, bury_members, seconds_of

pytestmark = pytest.mark.server


def test_dead_batches(client: redis.Redis, run: Run) -> None:
    first = bury_batch(client, "b", b"\xff1", b"2", b"3", b"4", group="g\n", reason="it is\nbad " + "x" * 99)
    second = bury_batch(client, "b", b"5", group="g\n")
    code, out, _ = run("dead", "list", "b")
    header, *rows = out.splitlines()
    (row,) = (row for row in rows if row.startswith(first))  # both may be buried in the same ms
    assert (code, header.split()) == (0, ["id", "died", "attempts", "reason", "group", "items", "oldest"])
    assert re.search(r" 1  it is\\nbad x{99}  g\\n        4  \\xff1 2 3 \.\.\.$", row)
    (found,) = (one for one in json.loads(run("dead", "list", "b", "--json")[1])["dead"] if one["id"] == first)
    assert abs(seconds_of(found.pop("died")) - time.time()) < 60
    about = {"id": first, "group": "g\n", "attempts": 1, "reason": "it is\nbad " + "x" * 99, "holder": "worker 7"}
    assert found == {**about, "items": ["\\xff1", "2", "3", "4"]}
    assert len(json.loads(run("dead", "list", "b", "--limit", 1, "--json")[1])["dead"]) == 1

    assert run("dead", "redrive", "b", "nobody") == (1, "0 redriven\n", "redisq: nobody is not dead\n")
    assert run("dead", "redrive", "b", first, "nobody") == (0, "1 redriven\n", "redisq: 1 of those named is not dead\n")
    assert json.loads(run("dead", "discard", "b", second, "--json")[1])["discarded"] == 1
    code, out, err = run("dead", "redrive", "b", "nobody", "--json")
    assert (code, json.loads(out)["redriven"], err) == (1, 0, "redisq: nobody is not dead\n")
    assert run("dead", "list", "b") == (0, "", "")
    assert Buffer(client, "b", codec=BYTES).pop("g\n") == [b"\xff1", b"2", b"3", b"4"]


@pytest.mark.parametrize("width", [120, 60])
def test_a_long_reason_is_shown_whole(
    client: redis.Redis, run: Run, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    """On lines of its column, or as one block a letter; it is the items that are cut."""
    words = [f"word{number}" for number in range(60)]
    for group in ("g", "h"):
        bury_batch(client, "b", *[b"%d" % number * 60 for number in range(3)], group=group, reason=" ".join(words))
    monkeypatch.setattr(output, "console", lambda **_: Console(width=width, file=io.StringIO()))
    out = run("dead", "list", "b")[1]
    assert re.findall(r"word\d+", out) == words * 2
    assert "word0 word1 word2 word3 " in out  # it has most of the room
    assert width == 60 or ("…" in out and max(map(len, out.splitlines())) <= width)


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
