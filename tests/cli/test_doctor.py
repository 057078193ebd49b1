"""`redisq doctor`: what it finds in a server's settings, a user's permissions and in queues."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from redisq import Buffer, PriorityQueue
from redisq.cli import main
from redisq.cli.adoption import Adoption
from redisq.core import doctor
from redisq.embedded import Server

SAFE = {"redis_version": "7.0.15", "maxmemory_policy": "noeviction", "aof_enabled": 1, "role": "master"}


@pytest.mark.parametrize(
    ("info", "config", "found"),
    [
        ({}, {}, []),
        ({"maxmemory_policy": "allkeys-lru", "maxmemory": 1}, {}, [("error", "maxmemory-policy allkeys-lru")]),
        ({"maxmemory_policy": "allkeys-lru", "maxmemory": 0}, {}, [("warning", "maxmemory-policy allkeys-lru")]),
        ({"maxmemory_policy": "volatile-ttl", "maxmemory": 1}, {}, [("warning", "maxmemory-policy volatile-ttl")]),
        ({"aof_enabled": 0}, {"save": ""}, [("error", 'appendonly no, save ""')]),
        ({"aof_enabled": 0}, {"save": "3600 1"}, [("warning", "appendonly no")]),
        ({"aof_enabled": 0}, {}, [("warning", "appendonly no")]),
        ({}, {"appendfsync": "no"}, [("warning", "appendfsync no")]),
        ({}, {"appendfsync": "everysec", "timeout": "0"}, []),
        ({}, {"timeout": "5"}, [("warning", "timeout 5")]),
        ({"redis_version": "6.0.16"}, {}, [("error", "version 6.0.16")]),
        ({"redis_version": "6.0.16", "valkey_version": "9.1.0"}, {}, []),
        ({"redis_version": "unknown"}, {}, []),
        ({"rdb_last_bgsave_status": "err"}, {}, [("error", "rdb_last_bgsave_status")]),
        ({"role": "slave"}, {}, [("error", "role replica")]),
    ],
)
def test_server_settings(info: dict[str, Any], config: dict[str, Any], found: list[tuple[str, str]]) -> None:
    """Each finding says what it may cost, and how to fix it."""
    findings = doctor.server({**SAFE, **info}, config)
    assert [(one.severity, one.subject) for one in findings] == found
    assert all(one.problem and one.remedy for one in findings)


Run = Callable[..., tuple[int, Any]]


@pytest.fixture
def safe(server: Server) -> Iterator[redis.Redis]:
    """Return a client of a server whose settings are safe, and restore them after the test."""
    with contextlib.closing(server.client()) as client:
        client.config_set("appendonly", "yes")
        yield client
        client.config_set("appendonly", "no")
        client.config_set("maxmemory-policy", "noeviction")


@pytest.fixture
def run(server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the command and returns its exit code and its findings."""

    def run(*arguments: str, url: str = server.url) -> tuple[int, Any]:
        monkeypatch.setenv("REDIS_URL", url)
        code = main(["doctor", *arguments, "--json"])
        return code, json.loads(capsys.readouterr().out)["findings"]

    return run


@pytest.mark.server
def test_no_findings(safe: redis.Redis, run: Run, capsys: pytest.CaptureFixture[str], server: Server) -> None:
    """It says so, exits with 0, and changes nothing."""
    Buffer(safe, "b").push(1)
    PriorityQueue(safe, "p").push("m")
    before = sorted(safe.keys())
    assert run() == (0, [])
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out == f"{server.url}: nothing is wrong\n"
    assert sorted(safe.keys()) == before


@pytest.mark.server
def test_an_evicting_server(safe: redis.Redis, run: Run) -> None:
    """It is reported with the fix, and the exit code is 1."""
    safe.config_set("maxmemory-policy", "allkeys-lru")
    code, (found,) = run()
    assert (code, found["subject"]) == (1, "maxmemory-policy allkeys-lru")
    assert "redis-cli CONFIG SET maxmemory-policy noeviction; redis-cli CONFIG REWRITE: a full" in found["remedy"]


@pytest.mark.server
def test_a_user_without_the_permissions(safe: redis.Redis, run: Run, server: Server) -> None:
    """Missing commands are reported: without BLPOP workers poll, without EVALSHA nothing works."""
    for rights, subject, severity in (("-blpop", "BLPOP is refused", "warning"), ("-evalsha", "EVALSHA", "error")):
        safe.acl_setuser("u", enabled=True, passwords=["+p"], keys=["*"], categories=["+@all"], commands=[rights])
        code, (found,) = run(url=f"{server.url.replace('unix://', 'unix://u:p@')}")
        assert (code, found["severity"]) == (1, severity)
        assert found["subject"].startswith(subject)
        assert "ACL SETUSER" in found["remedy"]
    safe.acl_deluser("u")


@pytest.mark.server
def test_queues(safe: redis.Redis, run: Run, server: Server) -> None:
    """Another layout, a lease far in the future, workers with different settings."""
    safe.hset("redisq:{old}:meta", "queue", "1 buffer")
    assert [one["subject"] for one in run()[1]] == ["old"]
    safe.delete("redisq:{old}:meta")

    queue = PriorityQueue(safe, "q")
    queue.push_many({"a": 1, "b": 2, "c": 3})
    assert queue.reserve(lease=30, holder="one")
    assert queue.reserve(lease=40, holder="one")
    assert run() == (0, [])
    assert queue.reserve(lease=600, holder="two")
    code, (found,) = run()
    assert (code, found["subject"], found["severity"]) == (1, "q", "warning")
    assert "leases of two end in 600 s, those of one in 40 s" in found["problem"]

    Buffer(safe, "b").push(1)
    assert Buffer(safe, "b").reserve(lease=864_000, holder="h")
    assert [one["subject"] for one in run()[1]] == ["b", "q"]
    assert run("--url", server.url)[1][0]["remedy"].startswith(f"redisq audit b --repair --url {server.url} ends ")
    assert run("--prefix", "other") == (0, [])


@pytest.mark.server
def test_an_interrupted_adoption(
    safe: redis.Redis, run: Run, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it had laid aside is counted for each queue, under any name, until it is run again."""
    monkeypatch.setenv("REDIS_URL", server.url)
    commands = [
        ("adopt", "buffer", "q:x", "--lists", "old:*"),
        ("adopt", "priority", "p", "--zset", "set"),
    ]

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    safe.lpush("old:a", "1", "2")
    safe.lpush("old:{b}", "3")
    safe.zadd("set", {"m": 1, "n": 2, "o": 3})
    with monkeypatch.context() as patch:
        patch.setattr(Adoption, "_move", interrupted)
        assert [main(command) for command in commands] == [130, 130]
    capsys.readouterr()
    code, findings = run()
    assert (code, {one["subject"]: one["problem"].split()[0] for one in findings}) == (1, {"p": "3", "q:x": "3"})
    assert findings[1]["remedy"] == "if it is not at work, run `redisq adopt priority p` again, with its other options"
    for command in commands:
        assert main(command) == 0
    capsys.readouterr()
    assert run() == (0, [])
