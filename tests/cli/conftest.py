"""Shared by the tests of the commands: a server, functions that run commands, and queues in known states."""

from __future__ import annotations

import contextlib
import datetime
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from redisq import BYTES, Buffer, PriorityQueue
from redisq.cli import main
from redisq.embedded import Server

COMMAND = [sys.executable, "-m", "redisq"]
UNREACHABLE = "redis://:secret@127.0.0.1:1"

Run = Callable[..., tuple[int, str, str]]
Push = Callable[..., tuple[int, str, str]]


@pytest.fixture
def client(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[redis.Redis]:
    """Return a client of the server that REDIS_URL names."""
    monkeypatch.setenv("REDIS_URL", server.url)
    with contextlib.closing(server.client()) as client:
        yield client


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command in this process and returns its exit code and its output."""

    def run(*arguments: object) -> tuple[int, str, str]:
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:  # argparse
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


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


def bury_batch(client: redis.Redis, name: str, *items: bytes, group: str = "g", reason: str = "bad") -> str:
    buffer = Buffer(client, name, codec=BYTES)
    buffer.push(*items, group=group)
    batch = buffer.reserve(holder="worker 7")
    assert batch
    batch.bury(reason)
    return batch.id


def bury_members(client: redis.Redis, name: str, *members: bytes, reason: str = "bad") -> None:
    queue = PriorityQueue(client, name, codec=BYTES, payload_codec=BYTES)
    queue.push_many((member, 3, b"of " + member) for member in members)
    while batch := queue.reserve(500):
        batch.bury(reason)


def seconds_of(message: str) -> float:
    """Parse a time from JSON output."""
    assert message.endswith("+00:00")
    return datetime.datetime.fromisoformat(message).timestamp()
