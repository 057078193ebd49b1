"""Servers and proxies that refuse BLPOP alone: a wait polls, once a second."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis

import redisq.asyncio
import redisq.asyncio.runner
import redisq.blocking.runner
from redisq import Buffer
from redisq.core.flow import POLL
from redisq.embedded import Server
from tests.faults.node import Node
from tests.queues.any_client import ClientKind, Work, each_flavour, each_library, user_of
from tests.waiting import until

RUNNERS = (redisq.blocking.runner, redisq.asyncio.runner)
real = pytest.mark.server


@pytest.fixture
def short_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the interval at which a queue without BLPOP polls."""
    for runner in RUNNERS:
        monkeypatch.setattr(runner, "POLL", 0.05)


@pytest.fixture(params=["by ACL", "unknown"])
def without_blpop(request: pytest.FixtureRequest, server: Server, binary: Path) -> Iterator[dict[str, Any]]:
    """Return the options for a client that is refused BLPOP."""
    if request.param == "by ACL":
        yield user_of(server, "+@all", "-blpop")
    else:
        with Node(binary, config='rename-command BLPOP ""\n') as node:
            yield {"port": node.port}


@real
@each_library
@pytest.mark.usefixtures("short_polling")
def test_reserve_polls_without_blpop(
    without_blpop: dict[str, Any], flavour: ClientKind, caplog: pytest.LogCaptureFixture
) -> None:
    def work(client: Any) -> Work:
        queue = flavour.queues.Buffer(client, "q")
        other = flavour.queues.Buffer(client, "q")
        assert (yield queue.reserve(timeout=0.2)) is None
        for i in range(2):
            yield other.push(i, group=str(i))
            batch = yield queue.reserve(timeout=60)
            assert batch.items == [i]
        priority = flavour.queues.PriorityQueue(client, "p")
        yield priority.push("a", delay=0.2)
        assert (yield priority.pop(timeout=60)).member == "a"

    flavour.run(lambda: flavour.client(**without_blpop), work)
    logged = [record.args for record in caplog.records if "BLPOP is refused" in record.message]
    assert len(logged) == 2  # once for each queue


@real
@each_flavour
@pytest.mark.usefixtures("short_polling")
def test_a_worker_polls_without_blpop(
    without_blpop: dict[str, Any], flavour: ClientKind, caplog: pytest.LogCaptureFixture
) -> None:
    done: list[int] = []
    unix = "unix_socket_path" in without_blpop
    server = {"unix_socket_path": without_blpop["unix_socket_path"]} if unix else without_blpop
    with (
        flavour.working(lambda: flavour.client(**without_blpop), lambda batch: done.extend(batch.items)) as working,
        redis.Redis(**server) as client,
    ):
        queue: Buffer[int] = Buffer(client, "q")
        until(lambda: "BLPOP is refused" in caplog.text, "the refusal is logged")
        for i in range(3):
            queue.push(i)
            until(lambda: queue.stats().done == len(done) == i + 1, "the item is done")  # noqa: B023
        assert not working.done()
    assert done == [0, 1, 2]
    assert caplog.text.count("BLPOP is refused") == 1
    assert "unavailable" not in caplog.text


@real
@each_flavour
def test_polling_once_a_second(server: Server, flavour: ClientKind, monkeypatch: pytest.MonkeyPatch) -> None:
    """A push is found within a second and a round trip, however long the wait."""
    slept: list[float] = []
    if flavour.name == "blocking":
        monkeypatch.setattr(redisq.blocking.runner, "time", SimpleNamespace(sleep=slept.append))
    else:

        async def sleep(seconds: float) -> None:
            slept.append(seconds)

        monkeypatch.setattr(redisq.asyncio.runner, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": sleep}))

    def work(client: Any) -> Work:
        queue = flavour.queues.Buffer(client, "q")
        for seconds in (60, 60, 0.25):
            yield queue.wait(seconds)

    flavour.run(lambda: flavour.client(**user_of(server, "+@all", "-blpop")), work)
    assert [one for one in slept if one] == [POLL, 0.25]  # the first wait is the one that is refused
    assert POLL == 1.0
