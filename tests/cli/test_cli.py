"""What all commands have in common: errors, exit codes, help."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys

import pytest
import redis

from redisq import Buffer, PriorityQueue
from redisq.cli import connection
from redisq.embedded import Server, binaries
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
    why = "it was never pushed to, or has been empty for seven days; `redisq queues` lists them"
    assert err == f"redisq: no queue q at {server.url}: {why}; for one that is still to come say --kind\n"
    if "--watch" not in command:
        assert run(*command, "--prefix", "other")[0] == (1 if "discard" in command else 0)


@pytest.mark.parametrize("command", QUEUE_COMMANDS, ids=" ".join)
def test_no_server(run: Run, command: tuple[str, ...]) -> None:
    code, out, err = run(*command, "--url", UNREACHABLE)
    assert (code, out) == (3, "")
    assert err.startswith("redisq: no server at redis://***@127.0.0.1:1: ")
    assert err.endswith("refused; start one, or name yours with --url or $REDIS_URL\n")
    assert err.count("\n") == 1


def test_a_misspelt_queue(client: redis.Redis, run: Run, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that was meant is named, unless that takes reading too many keys."""
    Buffer(client, "mails\n", prefix="other one").push(1)
    url = f"{server.url}?client_name=me"
    command = ["stats", "mials", "--url", url, "--prefix", "other one"]
    hint = f"`redisq queues --url {server.url} --prefix 'other one'` lists them"
    assert f"; did you mean mails\\n? {hint}" in run(*command)[2]
    monkeypatch.setattr(connection, "_FEW_KEYS", 1)
    assert f"seven days; {hint}" in run(*command)[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stat", "q"], "invalid choice: 'stat', did you mean stats? (choose from "),
        (["dead", "lst", "q"], "invalid choice: 'lst', did you mean list? (choose from "),
        (["groups", "q", "--state", "wait"], "invalid choice: 'wait', did you mean waiting? (choose from "),
        (["xyz"], "invalid choice: 'xyz' (choose from "),
        (["worker", "jobs"], "jobs is not MODULE:NAME, such as jobs:worker\n"),
    ],
)
def test_a_misspelt_command(run: Run, arguments: list[str], message: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert message in err


@pytest.mark.parametrize(
    ("url", "flaw"),
    [
        ("nonsense", ""),
        ("http://x", ""),
        ("redis://:se/cret@h:1", "; a password's /, ? and # are written %2F, %3F and %23"),
        ("redis://h:secret", "; its port is not a number from 0 to 65535"),
        ("redis://h:65536", "; its port is not a number from 0 to 65535"),
        ("redis://h?password=secret&db=x", ""),
    ],
)
def test_wrong_url(run: Run, url: str, flaw: str) -> None:
    code, out, err = run("stats", "q", "--url", url)
    assert (code, out) == (2, "")
    assert f" is not the URL of a Redis server{flaw}: give redis://" in err
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
    assert err.endswith("; check the one in REDIS_URL=redis://user:password@host\n")
    assert ".;" not in err
    assert "sesame" not in err


def test_no_password(run: Run) -> None:
    with Server(binaries()[0]) as server, contextlib.closing(server.client()) as client:
        client.config_set("requirepass", "secret")
        said = f"redisq: the server at {server.url} asks for a password: REDIS_URL=redis://user:password@host\n"
        assert run("stats", "q", "--url", server.url) == (3, "", said)


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
    for early in (["bench"], ["audit", "b", "--repair"]):  # before anything is measured or repaired
        client.zadd("redisq:{b}:groups", {"default": 7})
        done = subprocess.run([*command[:-2], *early], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", message)
        assert client.zscore("redisq:{b}:groups", "default") == 7
    client.zadd("redisq:{b}:groups", {"default": 1})
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
