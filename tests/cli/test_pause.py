"""`redisq pause` and `redisq resume`."""

from __future__ import annotations

import json
import time

import pytest
import redis

from redisq import Buffer, PriorityQueue
from tests.cli.conftest import Run, seconds_of

pytestmark = pytest.mark.server


def test_a_queue_is_paused_and_resumed(client: redis.Redis, run: Run) -> None:
    for queue, name in ((Buffer(client, "b"), "b"), (PriorityQueue(client, "p"), "p")):
        queue.push("x")
        expected = run("pause", name, "--for", "1h30m", "--reason", "the API is down")
        assert expected == (0, f"{name} is paused for 1h30m\n", "")
        held = queue.stats()
        assert (held.paused, held.pause_reason) == (True, "the API is down")
        assert 5390 < (held.paused_until or 0) - time.time() <= 5410
        assert run("pause", name) == (0, f"{name} is paused until resumed\n", "")  # in place of the first
        assert (queue.stats().paused_until, queue.stats().pause_reason) == (None, "")
        assert run("resume", name) == (0, f"{name} is resumed\n", "")
        assert not queue.stats().paused
        assert run("resume", name) == (0, f"{name} was not paused\n", "")


def test_pauses_as_json(client: redis.Redis, run: Run) -> None:
    Buffer(client, "b").push(1)
    about = {"queue": "b", "kind": "buffer"}
    found = json.loads(run("pause", "b", "--for", "10m", "--reason", "a\nb", "--json")[1])
    assert 590 < seconds_of(found.pop("until")) - time.time() <= 610
    assert found == {**about, "paused": True, "reason": "a\nb"}
    assert json.loads(run("pause", "b", "--json")[1]) == {**about, "paused": True, "until": None, "reason": ""}
    assert json.loads(run("resume", "b", "--json")[1]) == {**about, "resumed": True}
    assert json.loads(run("resume", "b", "--json")[1]) == {**about, "resumed": False}
    group = {"group": "g"}
    assert json.loads(run("pause", "b", "--group", "g", "--json")[1]) == {
        **about,
        **group,
        "paused": True,
        "until": None,
    }
    assert json.loads(run("resume", "b", "--group", "g", "--json")[1]) == {**about, **group, "resumed": True}


def test_a_group_is_paused_and_resumed(client: redis.Redis, run: Run) -> None:
    buffer: Buffer[int] = Buffer(client, "b")
    buffer.push(1, group="g")
    assert run("pause", "b", "--group", "g", "--for", "90s") == (0, "group g of b is paused for 1m30s\n", "")
    assert buffer.groups(state="paused") == {"g": 1}
    assert not buffer.stats().paused
    end = client.zscore("redisq:{b}:paused_groups", "g")
    assert end
    assert 80 < end / 1000 - time.time() <= 100
    assert run("resume", "b", "--group", "g") == (0, "group g of b is resumed\n", "")
    assert run("resume", "b", "--group", "g") == (0, "group g of b was not paused\n", "")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--for", "10x"], "argument --for: 10x is not a duration: give 90, 500ms, 90s, 10m, 1h30m or 7d"),
        (["--for", "0"], "argument --for: 0 is out of range: give 1ms to 1157d9h"),
        (["--group", "g", "--reason", "x"], "the pause of a group keeps no reason: leave --reason out"),
    ],
)
def test_wrong_usage_of_pause(client: redis.Redis, run: Run, options: list[str], expected: str) -> None:
    Buffer(client, "b").push(1)
    code, out, err = run("pause", "b", *options)
    assert (code, out) == (2, "")
    assert err.endswith(f"{expected}\n")
    assert not Buffer(client, "b").stats().paused


def test_a_paused_queue_without_items(client: redis.Redis, run: Run) -> None:
    """Pausing a mistyped name is refused; a pause that is left of a queue can be ended, whatever its structure was."""
    code, out, err = run("pause", "nobody")
    assert (code, out) == (1, "")
    assert err.endswith("for one that is still to come say --kind\n")
    assert run("resume", "nobody")[0] == 1
    assert client.dbsize() == 0
    assert run("pause", "new", "--kind", "priority")[0] == 0
    assert client.exists("redisq:{new}:paused")
    found = json.loads(run("resume", "new", "--json")[1])
    assert found == {"queue": "new", "kind": None, "resumed": True}
    assert not client.exists("redisq:{new}:paused")
