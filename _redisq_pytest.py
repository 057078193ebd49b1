"""The pytest plugin of redisq: fixtures alone. See `redisq.testing`.

It is imported by every run of pytest where redisq is installed, so it stands outside the package, which takes a while
to import, and imports the rest where a fixture is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import redis
    import redis.asyncio

    from redisq.embedded import Server
    from redisq.testing import Fake
    from redisq.testing.servers import SessionServer


@pytest.fixture(scope="session")
def _redisq_session_server() -> Iterator[SessionServer]:
    from redisq.testing.servers import SessionServer

    server = SessionServer()
    yield server
    server.stop()


@pytest.fixture
def redisq_server(_redisq_session_server: SessionServer) -> Server:
    """Return a real, private Redis server, empty: `redisq_server.client()` connects, `redisq_server.url` names it.

    One process for the session (with pytest-xdist, for each worker) on a unix socket, emptied before each test.
    """
    from redisq.embedded import NoServer

    try:
        return _redisq_session_server.emptied()
    except NoServer as error:
        reason = f"redisq_server: {error}"
    pytest.fail(reason, pytrace=False)


@pytest.fixture
def redisq_client(redisq_server: Server) -> Iterator[redis.Redis]:
    """Return a blocking client of the real, private server `redisq_server`."""
    with redisq_server.client() as client:
        yield client


@pytest.fixture
def redisq_async_client(redisq_server: Server) -> redis.asyncio.Redis:
    """Return an asyncio client of the real, private server `redisq_server`; it is closed with the event loop.

    It needs no particular plugin: use it under pytest-asyncio, anyio, or `asyncio.run` in the test.
    """
    from redisq.testing.servers import async_client

    return async_client(redisq_server)


@pytest.fixture
def redisq_fake() -> Iterator[Fake]:
    """Return a fake Redis, empty, whose clock can be moved: `redisq_fake.client()`, `redisq_fake.advance(seconds)`."""
    from redisq.embedded import NoServer
    from redisq.testing import Fake

    try:
        fake = Fake()
    except NoServer as error:
        reason = f"redisq_fake: {error}"
    else:
        yield fake
        fake.close()
        return
    pytest.fail(reason, pytrace=False)
