"""What all commands have in common: errors, exit codes, help."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import redis

from redisq import Buffer, PriorityQueue
from redisq.embedded import Server
from tests.cli.conftest import COMMAND, UNREACHABLE, Push, Run

pytestmark = pytest.mark.server

QUEUE_COMMANDS = [
    ("stats", "q"),
    ("stats", "q", "--watch"),
    ("peek", "q"),
    ("groups", "q"),
    ("leased", "q"),
    ("delayed", "q"),
    ("dead", "list", "q"),
    ("dead", "redrive", "q", "--all"),
    ("dead", "discard", "q", "x"),
    ("audit", "q"),
    ("pause", "q", "--for", "1m"),
    ("resume", "q"),
    ("drop-group", "q", "g", "--yes"),
    ("export", "q", "--live"),
    ("purge", "q", "--yes"),
]


@pytest.mark.parametrize("command", QUEUE_COMMANDS, ids=" ".join)
def test_no_such_queue(client: redis.Redis, run: Run, server: Server, command: tuple[str, ...]) -> None:
    Buffer(client, "q", prefix="other").push(1)
    code, out, err = run(*command)
    assert (code, out) == (1, "")
    why = "it was never pushed to, or has been empty for seven days; --kind says what it would be"
    assert err == f"redisq: no queue q at {server.url}: {why}\n"
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
    message = "redisq: tables need rich: pip install 'redisq-lua[cli]', or say --json\n"
    assert (done.returncode, done.stderr) == (1, message)
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, json.loads(done.stdout)["waiting"]) == (0, 1)


@pytest.mark.parametrize(
    "command",
    [
        "demo",
        "worker",
        "push",
        "queues",
        "top",
        "stats",
        "groups",
        "peek",
        "leased",
        "delayed",
        "dead list",
        "dead redrive",
        "dead discard",
        "pause",
        "resume",
        "drop-group",
        "purge",
        "adopt buffer",
        "adopt priority",
        "export",
        "import",
        "audit",
        "doctor",
        "metrics",
        "bench",
        "lua list",
        "lua export",
        "lua verify",
        "completion",
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
