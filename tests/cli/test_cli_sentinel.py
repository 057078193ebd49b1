"""URLs of a master that Sentinels know, for every command."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from redisq import Buffer
from redisq.cli import main, sentinel
from tests.faults.node import HOST, Node
from tests.waiting import until


@pytest.mark.parametrize(
    ("url", "hosts", "service", "master", "sentinels"),
    [
        ("redis+sentinel://a/q", [("a", 26379)], "q", {"db": 0}, {}),
        ("redis+sentinel://a:1,b:2,[::1]:3/q/4", [("a", 1), ("b", 2), ("::1", 3)], "q", {"db": 4}, {}),
        ("redis+sentinel://:p%40@a:1/q", [("a", 1)], "q", {"db": 0, "password": "p@"}, {}),
        ("redis+sentinel://u:p@a:1/q/0", [("a", 1)], "q", {"db": 0, "username": "u", "password": "p"}, {}),
        ("redis+sentinel://a:1/q?sentinel_password=s", [("a", 1)], "q", {"db": 0}, {"password": "s"}),
        ("rediss+sentinel://a:1/q%2Fr", [("a", 1)], "q/r", {"db": 0, "ssl": True}, {"ssl": True}),
    ],
)
def test_urls(
    url: str, hosts: list[tuple[str, int]], service: str, master: dict[str, object], sentinels: dict[str, object]
) -> None:
    assert sentinel.is_sentinel(url)
    assert sentinel.parse(url) == (hosts, service, master, sentinels)


@pytest.mark.parametrize(
    "rest", ["", "a:1", "a:1/", "/q", ":1/q", "a:x/q", "a:1/q/x", "a:1,/q", "a:1/q?x=1", "a:1/q?x"]
)
def test_invalid_urls(rest: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Refused without revealing the password."""
    url = f"redis+sentinel://:secret@{rest}"
    with pytest.raises(ValueError):  # noqa: PT011  # any message
        sentinel.parse(url)
    assert main(["stats", "q", "--url", url]) == 2
    assert "secret" not in "".join(capsys.readouterr())


JOBS = """
from redisq import Buffer, Worker
from redisq.asyncio import Buffer as ABuffer, Worker as AWorker

def blocking(client):
    return Worker(Buffer(client, "q"), lambda batch: open("done", "a").write("blocking "))

def awaited(client):
    async def handle(batch):
        open("done", "a").write("asyncio ")
    return AWorker(ABuffer(client, "q"), handle)
"""


@pytest.mark.server
def test_commands_and_workers_find_the_master(binary: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Even if the Sentinel that is asked first is down."""
    (tmp_path / "jobs.py").write_text(JOBS)
    with Node(binary) as master:
        config = f"sentinel monitor main {HOST} {master.port} 1\n"
        with Node(binary, "--sentinel", config=config) as watcher, contextlib.closing(master.client()) as client:
            url = f"redis+sentinel://127.0.0.1:1,{HOST}:{watcher.port}/main/3"
            client.select(3)
            queue: Buffer[int] = Buffer(client, "q")
            queue.push(1)
            assert main(["stats", "q", "--url", url, "--json"]) == 0
            assert json.loads(capsys.readouterr().out)["waiting"] == 1
            for target in (["jobs:blocking"], ["jobs:awaited", "--asyncio"]):
                command = [sys.executable, "-m", "redisq", "worker", *target]
                process = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "REDIS_URL": url})
                try:
                    until(lambda: queue.stats().done == 1, "the item is done")
                finally:
                    process.send_signal(signal.SIGTERM)
                    assert process.wait(30) == 0
                queue.purge()
                queue.push(1)
            assert (tmp_path / "done").read_text() == "blocking asyncio "
