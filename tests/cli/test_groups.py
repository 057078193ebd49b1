"""The groups of a buffer: `groups`, `peek --group`, `drop-group`, with any bytes in names."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from redisq import BYTES, Buffer, PriorityQueue
from tests.cli.conftest import COMMAND, Run

pytestmark = pytest.mark.server
ODD = "\udcff\x1b[31m"  # a byte that is not UTF-8, and a control character


@pytest.fixture
def buffer(client: redis.Redis) -> Buffer[bytes]:
    """Return a buffer with six groups: three that wait, one that is busy, two that are paused."""
    made = Buffer(client, "b", codec=BYTES, ordered=True)
    made.push(*[b"x"] * 9, group="busy")
    assert made.reserve(1)
    for length, group in enumerate(["short", "middle", ODD], 3):
        made.push(*[b"%d" % number for number in range(length)], group=group)
    for group in ("held", "stopped"):
        made.push(b"x", group=group)
        made.pause_group(group)
    return made


@pytest.mark.usefixtures("buffer")
def test_groups_by_state(run: Run) -> None:
    assert run("groups", "b") == (
        0,
        "waiting  group         state\n"
        "      5  \\xff\\x1b[31m  waiting\n"
        "      4  middle        waiting\n"
        "      3  short         waiting\n",
        "",
    )
    (busy,) = json.loads(run("groups", "b", "--state", "busy", "--json")[1])["groups"]
    assert busy == {"group": "busy", "waiting": 8, "state": "busy"}
    found = json.loads(run("groups", "b", "--state", "all", "--json")[1])
    assert (found["queue"], found["kind"], found["next"]) == ("b", "buffer", None)
    assert [one["state"] for one in found["groups"]] == ["waiting"] * 3 + ["busy"] + ["paused"] * 2


@pytest.mark.parametrize("state", ["waiting", "all"])
@pytest.mark.usefixtures("buffer")
def test_groups_page_by_page(run: Run, state: str) -> None:
    """The pages together are all groups."""
    whole = json.loads(run("groups", "b", "--state", state, "--json")[1])["groups"]
    seen, after = [], 0
    while after is not None:
        page = json.loads(run("groups", "b", "--state", state, "--limit", 2, "--after", after, "--json")[1])
        assert len(page["groups"]) <= 2
        seen += page["groups"]
        after = page["next"]
    assert seen == whole
    assert run("groups", "b", "--after", 99) == (0, "", "")


def test_peek_shows_the_items_of_a_group_in_order(buffer: Buffer[bytes], run: Run) -> None:
    code, out, _ = run("peek", "b", "--group", "middle")
    assert (code, out) == (0, "place  item\n    1  0\n    2  1\n    3  2\n    4  3\n")
    assert run("peek", "b", "--group", "middle", "--count", 1, "--after", 2)[1].splitlines()[1:] == ["    3  2"]
    found = json.loads(run("peek", "b", "--group", "middle", "--count", 3, "--json")[1])
    assert found == {"queue": "b", "kind": "buffer", "group": "middle", "items": ["0", "1", "2"], "next": 3}
    rest = json.loads(run("peek", "b", "--group", "middle", "--after", found["next"], "--json")[1])
    assert (rest["items"], rest["next"]) == (["3"], None)
    buffer.push(b"\n" + b"y" * 300, group="long")
    assert run("peek", "b", "--group", "long")[1].splitlines()[1] == f"    1  \\n{'y' * 195}..."
    assert len(json.loads(run("peek", "b", "--group", "long", "--json")[1])["items"][0]) == 301
    assert run("peek", "b", "--group", "nobody") == (0, "", "")


def test_peek_at_members_page_by_page(client: redis.Redis, run: Run) -> None:
    PriorityQueue(client, "p").push_many({str(number): number for number in range(5)})
    first = json.loads(run("peek", "p", "--count", 3, "--json")[1])
    last = json.loads(run("peek", "p", "--count", 3, "--after", first["next"], "--json")[1])
    assert [one["member"] for one in first["members"] + last["members"]] == list("01234")
    assert last["next"] is None


@pytest.mark.usefixtures("buffer")
def test_options_that_contradict_the_queue(client: redis.Redis, run: Run) -> None:
    PriorityQueue(client, "p").push("a")
    for command in (["groups", "p"], ["peek", "p", "--group", "g"], ["drop-group", "p", "g", "--yes"]):
        expected = "redisq: p is a priority queue: only a buffer has groups\n"
        assert run(*command) == (1, "", expected)
    code, _, err = run("peek", "b", "--after", 3)
    assert (code, err) == (2, "redisq: --after goes with --group; `redisq groups b` lists groups a page at a time\n")
    code, _, err = run("peek", "b", "--group", "")
    assert (code, "group is ''" in err) == (2, True)


def test_names_of_any_bytes_as_arguments(buffer: Buffer[bytes]) -> None:
    """As with `--group $'\\xff'` in a shell."""

    def shell(*words: str | bytes) -> bytes:
        return subprocess.run([*COMMAND, *words], stdout=subprocess.PIPE, check=True, timeout=60).stdout

    name = ODD.encode("utf-8", "surrogateescape")
    found = json.loads(shell("peek", "b", "--group", name, "--json"))
    assert (found["group"], found["items"]) == ("\\xff\x1b[31m", ["0", "1", "2", "3", "4"])
    assert shell("pause", "b", "--group", name) == b"group \\xff\\x1b[31m of b is paused until resumed\n"
    assert ODD in buffer.groups(state="paused")
    assert shell("resume", "b", "--group", name) == b"group \\xff\\x1b[31m of b is resumed\n"
    assert shell("drop-group", "b", name, "--yes") == b"5 items dropped\n"


def test_drop_group(buffer: Buffer[bytes], run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "nothing").touch()
    with (tmp_path / "nothing").open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        code, _, err = run("drop-group", "b", "short")
    assert (code, err) == (2, "redisq: say --yes: there is no terminal to ask at\n")
    found = json.loads(run("drop-group", "b", "short", "--yes", "--json")[1])
    assert found == {"queue": "b", "kind": "buffer", "group": "short", "dropped": 3}
    assert run("drop-group", "b", "short", "--yes") == (0, "0 items dropped\n", "")
    assert list(buffer.groups()) == [ODD, "middle"]


@pytest.mark.parametrize(
    ("group", "answer", "dropped"),
    [
        ("middle", "middle\n", True),
        ("middle", "y\n", False),
        ("middle", "\n", False),
        ("middle", "midd\n", False),
        (ODD, "\\xff\\x1b[31m\n", True),
    ],
)
def test_drop_group_asks_for_the_name(
    buffer: Buffer[bytes], run: Run, monkeypatch: pytest.MonkeyPatch, group: str, answer: str, dropped: bool
) -> None:
    ours, theirs = pty.openpty()
    try:
        os.write(ours, answer.encode())
        with os.fdopen(theirs, "r") as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            code, _, err = run("drop-group", "b", group)
    finally:
        os.close(ours)
    assert code == (0 if dropped else 1)
    assert "to throw away this group of b at " in err
    assert ("nothing was thrown away" in err) == (not dropped)
    assert (group in buffer.groups()) == (not dropped)
