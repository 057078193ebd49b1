"""`redisq leased`, and pages of what is leased, delayed and dead."""

from __future__ import annotations

import json
import re
import sys
import time

import pytest
import redis

from redisq import BYTES, Buffer, PriorityQueue
from tests.cli.conftest import Run, seconds_of

pytestmark = pytest.mark.server


def test_leased_batches(client: redis.Redis, run: Run) -> None:
    buffer: Buffer[bytes] = Buffer(client, "b", codec=BYTES)
    buffer.push(b"1", b"2\n", b"\xff", b"4", group="g\n")
    batch = buffer.reserve(holder="worker 7")
    assert batch
    batch.release(reason="it is\nbad")
    again = buffer.reserve(lease=600, holder="worker 8")
    assert again
    buffer.push(b"5", group="other")
    soon = buffer.reserve(lease=300, holder="worker 9")
    assert soon
    code, out, _ = run("leased", "b")
    columns, first, second = out.splitlines()
    assert code == 0
    assert columns.split() == ["id", "left", "holder", "attempts", "reason", "group", "items", "oldest"]
    assert re.fullmatch(soon.id + r"  (4m5\ds|5m) +worker 9 +1 +other +1  5", first)
    assert re.fullmatch(again.id + r"  (9m5\ds|10m) +worker 8 +2  it is\\nbad  g\\n +4  1 2\\n \\xff \.\.\.", second)
    found = json.loads(run("leased", "b", "--json")[1])
    assert abs(seconds_of(found.pop("time")) - time.time()) < 60
    _, batch_json = found.pop("leased")
    assert found == {"queue": "b", "kind": "buffer", "next": None}
    assert 590 < seconds_of(batch_json.pop("deadline")) - time.time() <= 610
    about = {"id": again.id, "group": "g\n", "attempts": 2, "reason": "it is\nbad", "holder": "worker 8"}
    assert batch_json == {**about, "items": ["1", "2\n", "\\xff", "4"]}


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("leased b", "nothing is leased"),
        ("delayed b", "nothing is delayed"),
        ("dead list b", "nothing is dead"),
        ("dead list b --after gone", "nothing more is dead"),
        ("peek b --group nosuch", "nothing waits in group nosuch"),
        ("peek b --group g --after 9", "nothing more waits in group g"),
        ("peek e", "nothing waits"),
        ("peek p", "nothing waits"),
        ("groups b --state paused", "no group is paused"),
        ("groups b --state busy", "no group has a batch out"),
        ("groups b --after 9", "no other group may be handed out"),
        ("groups e --state all", "no group has items"),
    ],
)
def test_nothing_is_said_on_a_terminal_alone(
    client: redis.Redis, run: Run, monkeypatch: pytest.MonkeyPatch, command: str, said: str
) -> None:
    """On stderr, so that no program takes it for a row."""
    Buffer(client, "b").push(1, group="g")
    Buffer(client, "e").push(1)
    Buffer(client, "e").pop()
    PriorityQueue(client, "p").push("m")
    PriorityQueue(client, "p").pop()
    assert run(*command.split()) == (0, "", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert run(*command.split()) == (0, "", f"{said}\n")
    assert run(*command.split(), "--json")[2] == ""


def test_leased_members(client: redis.Redis, run: Run) -> None:
    queue = PriorityQueue(client, "p")
    queue.push_many([("a", 1, {"n": 1}), ("b", 2, None)])
    assert queue.reserve(2, holder="w")
    columns, row = run("leased", "p")[1].splitlines()
    assert columns.split() == ["id", "left", "holder", "attempts", "reason", "items", "first"]
    assert row.endswith("  a b")
    (found,) = json.loads(run("leased", "p", "--json")[1])["leased"]
    assert (found["items"], found["priorities"], found["payloads"]) == (["a", "b"], [1, 2], ['{"n":1}', None])
    assert "group" not in found


def test_an_expired_lease(client: redis.Redis, run: Run) -> None:
    buffer: Buffer[int] = Buffer(client, "b")
    buffer.push(1)
    batch = buffer.reserve()
    assert batch
    client.zadd("redisq:{b}:leases", {batch.id: (time.time() - 90) * 1000})
    assert re.search(r"  ended 1m3\ds ago  ", run("leased", "b")[1])


@pytest.mark.parametrize("state", ["leased", "delayed", "dead"])
@pytest.mark.parametrize("kind", ["buffer", "priority"])
def test_a_page_at_a_time(client: redis.Redis, run: Run, state: str, kind: str) -> None:
    """The pages together are everything, in order."""
    queue: Buffer[str] | PriorityQueue[str] = Buffer(client, "q") if kind == "buffer" else PriorityQueue(client, "q")
    for number in range(5):
        queue.push(f"m{number}")
        batch = queue.reserve(1, lease=100 + number)
        assert batch
        if state == "delayed":
            batch.release(delay=100 + number)
        elif state == "dead":
            batch.bury()
    command = ["dead", "list", "q"] if state == "dead" else [state, "q"]
    whole = json.loads(run(*command, "--json")[1])[state]
    assert len(whole) == 5
    seen, after = [], None
    while True:
        page = json.loads(run(*command, "--limit", 2, "--json", *([] if after is None else ["--after", after]))[1])
        assert len(page[state]) <= 2
        seen += page[state]
        after = page["next"]
        if after is None:
            break
    assert seen == whole
