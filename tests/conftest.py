"""Servers and clients for the tests: fakeredis for speed, real servers for every claim about races and crashes.

Real servers are the binaries that `redisq.embedded` finds, one of each version, started once a session on a private
socket. Tests run on the first of them: the one on PATH, or else the newest. Tests marked `every_server` run on all of
them, and with REDISQ_TEST_SERVERS=all, or redis-7.0,valkey-9.1, every test runs on those. Without any server, tests
that need one are skipped; with CI set, they fail instead.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import fakeredis
import pytest
import redis
import redis.asyncio

import redisq.asyncio.runner
import redisq.blocking.runner
from redisq.embedded import Server, binaries
from tests.queues.flavours import Flavour


def label_of(binary: Path) -> str:
    """Return a name for a binary, such as `redis-7.0`."""
    output = ""
    with contextlib.suppress(OSError):  # a binary that cannot be run fails the tests that start it
        output = subprocess.run([binary, "--version"], capture_output=True, text=True).stdout
    match = re.match(r"(\w+) server v=(\d+\.\d+)", output)
    return f"{match[1].lower()}-{match[2]}" if match else binary.name


BINARIES: dict[str, Path] = {}
for _binary in binaries():
    BINARIES.setdefault(label_of(_binary), _binary)
_ASKED = os.environ.get("REDISQ_TEST_SERVERS", "")
EVERYWHERE = bool(_ASKED)
"""whether every test runs on every server that was asked for"""
TESTED = list(BINARIES) if _ASKED == "all" else _ASKED.split(",") if _ASKED else list(BINARIES)[:1] or ["none"]
"""the servers that most tests run on"""
if EVERYWHERE and not set(TESTED) <= set(BINARIES):
    raise pytest.UsageError(f"REDISQ_TEST_SERVERS={_ASKED}: give all, or some of {','.join(BINARIES)}")
_running: dict[str, Server] = {}


def pytest_configure() -> None:
    """Restore Python's handling of SIGINT, which is ignored when a shell runs pytest in the background."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize each test with its servers."""
    labels = list(BINARIES) or ["none"] if metafunc.definition.get_closest_marker("every_server") else TESTED
    real = [pytest.param(label, marks=pytest.mark.server) for label in labels]
    for name, params in (("label", real), ("backend", ["fakeredis", *real])):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, params, indirect=True, scope="session")


@pytest.fixture(scope="session")
def label(request: pytest.FixtureRequest) -> str:
    """Return the label of the real server that the test runs on."""
    return require_server(request.param)


@pytest.fixture(scope="session")
def binary(label: str) -> Path:
    """Return the binary of the real server that the test runs on."""
    return BINARIES[label]


@pytest.fixture(scope="session")
def backend(request: pytest.FixtureRequest) -> str:
    """Return the label of a real server, or `fakeredis`."""
    return str(request.param)


@pytest.fixture(scope="session", autouse=True)
def _stop_servers() -> Iterator[None]:
    yield
    for server in _running.values():
        server.stop()
    _running.clear()


def _reset(client: redis.Redis) -> None:
    if not isinstance(client, fakeredis.FakeRedis):
        for name, value in (("maxmemory", 0), ("appendonly", "no"), ("save", "")):
            client.config_set(name, value)
    client.flushall()


def require_server(label: str) -> str:
    """Return the label of a real server; skip the test if there is none."""
    if label == "none":
        skip_or_fail("no real Redis server found: apt-get install redis-server, or pip install 'redisq-lua[embedded]'")
    return label


def skip_or_fail(reason: str) -> NoReturn:
    """Skip a test that needs something that is not installed; in CI, where everything is, fail it."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def valgrind() -> None:
    """Skip or fail a test where valgrind is missing."""
    if not shutil.which("valgrind"):
        skip_or_fail("valgrind is missing: apt-get install valgrind libc6-dbg")


def real_server(label: str) -> Server:
    """Return the session's server of that label, started on first use."""
    if require_server(label) not in _running:
        _running[label] = Server(BINARIES[label], "--loglevel", "warning").__enter__()
    return _running[label]


@pytest.fixture
def server(label: str) -> Server:
    """Return a real server, emptied."""
    found = real_server(label)
    with found.client() as client:
        _reset(client)
    return found


MakeClient = Callable[..., "redis.Redis"]


@pytest.fixture
def make_client(backend: str) -> Iterator[MakeClient]:
    """Return a function that makes blocking clients of one emptied backend: fakeredis, or a real server."""
    made: list[redis.Redis] = []
    fake = fakeredis.FakeServer()

    def make(**options: Any) -> redis.Redis:
        if backend == "fakeredis":
            made.append(fakeredis.FakeRedis(server=fake, **options))
        else:
            made.append(real_server(backend).client(**options))
        return made[-1]

    _reset(make())
    yield make
    for client in made:
        client.close()


@pytest.fixture
def client(make_client: MakeClient) -> redis.Redis:
    """Return a blocking client of one emptied backend."""
    return make_client()


@pytest.fixture
async def aclient(backend: str) -> AsyncIterator[redis.asyncio.Redis]:
    """Return an asyncio client of one emptied backend."""
    if backend == "fakeredis":
        made: redis.asyncio.Redis = fakeredis.FakeAsyncRedis()
    else:
        made = redis.asyncio.Redis(unix_socket_path=real_server(backend).socket)
    await made.flushall()
    yield made
    await made.aclose()


@pytest.fixture(params=["blocking", "asyncio"])
def flavour(request: pytest.FixtureRequest, backend: str) -> Iterator[Flavour]:
    """Return the blocking or the asyncio flavour of redisq, on one emptied backend: fakeredis, or a real server."""
    made = Flavour(request.param, None if backend == "fakeredis" else real_server(backend))
    _reset(made.plain)
    yield made
    made.close()


@pytest.fixture(params=["blocking", "asyncio"])
def real(request: pytest.FixtureRequest, server: Server) -> Iterator[Flavour]:
    """Return the blocking or the asyncio flavour of redisq, on an emptied real server."""
    made = Flavour(request.param, server)
    yield made
    made.close()


@pytest.fixture
def no_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every wait a single blocking read, however long, so that only a wake-up can end it early."""
    for runner in (redisq.blocking.runner, redisq.asyncio.runner):
        monkeypatch.setattr(runner, "block_seconds", lambda seconds, _: max(0.01, seconds))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Spread the longest tests, those of the model, evenly, so that each process runs some of them early."""
    longest = [item for item in items if item.path.name == "test_model.py"]
    others = [item for item in items if item.path.name != "test_model.py"]
    if others:
        for place, item in enumerate(longest):
            others.insert(place * len(others) // 4, item)
        items[:] = others
