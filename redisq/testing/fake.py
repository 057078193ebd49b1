"""A fake Redis in this process whose clock can be moved: fakeredis, which runs redisq's own scripts."""

from __future__ import annotations

import importlib
import math
import time
from collections import defaultdict
from functools import cache
from typing import Any

import redis
import redis.asyncio

from ..core import validate
from ..core.errors import InvalidArgument
from ..embedded import NoServer

_LOOK_AGAIN = 0.05
"""seconds for which a client waits for a wake-up before it looks again: its clock may have been moved meanwhile"""


class _Clock:
    def __init__(self) -> None:
        self._ahead = 0.0
        self._stopped_at: float | None = None

    def now(self) -> float:
        return (time.time() if self._stopped_at is None else self._stopped_at) + self._ahead

    def advance(self, seconds: float) -> None:
        self._ahead += seconds

    def stop(self) -> None:
        if self._stopped_at is None:
            self._stopped_at = math.ceil(time.time() * 1000) / 1000  # in whole ms, as the scripts count


class Fake:
    """A Redis in this process, by fakeredis, empty at first, whose clock can be moved.

    The clock is the one that the scripts and the expiry of keys go by. It runs as any other, unless `freeze` stops it,
    and `advance` moves it forward: leases run out, delays come due, groups have waited `max_wait`, rates allow more.
    What waits in redisq for something to come looks again within 50 ms. Timeouts that are measured by the client
    (`timeout=`, `handler_timeout`, a worker's own pauses) pass in real time.

    All clients share what it keeps. Raises `NoServer`, and says what to install, where fakeredis or its Lua is missing.
    """

    def __init__(self) -> None:
        try:
            self._library = importlib.import_module("fakeredis")
            importlib.import_module("lupa")
        except ImportError:
            raise NoServer("fakeredis with Lua is not installed: pip install 'fakeredis[lua]>=2.26'") from None
        self._clock = _Clock()
        self._server: Any = self._library.FakeServer()
        database, clock, lock = _database_class(_class_of(self._server.dbs[0])), self._clock, self._server.lock
        self._server.dbs = defaultdict(lambda: database(lock, clock))
        self._server.redisq_clock = clock
        self._made: list[redis.Redis] = []
        self._check()

    def client(self, **options: Any) -> redis.Redis:
        """Return a new blocking client, with further options of redis-py's `Redis`; `close` closes it."""
        client: redis.Redis = self._library.FakeRedis(server=self._server, **options)
        pool: Any = client.connection_pool
        pool.connection_class = _connection_class(pool.connection_class)
        self._made.append(client)
        return client

    def async_client(self, **options: Any) -> redis.asyncio.Redis:
        """Return a new asyncio client, with further options of redis-py's `Redis`; it need not be closed."""
        client: redis.asyncio.Redis = self._library.FakeAsyncRedis(server=self._server, **options)
        pool: Any = client.connection_pool
        pool.connection_class = _async_connection_class(pool.connection_class)
        return client

    def time(self) -> float:
        """Return the Unix time in seconds by this clock."""
        return self._clock.now()

    def advance(self, seconds: float) -> None:
        """Move the clock forward. Raises `InvalidArgument` for a negative number, or one that is not finite."""
        if (forward := validate.number("seconds", seconds)) < 0:
            raise InvalidArgument(f"seconds is {seconds!r}: give 0 or more, the clock only moves forward")
        self._clock.advance(forward)

    def freeze(self) -> None:
        """Stop the clock, so that only `advance` moves it: for tests of exact times. It cannot be started again."""
        self._clock.stop()

    def close(self) -> None:
        """Close the blocking clients."""
        for client in self._made:
            client.close()

    def _check(self) -> None:
        """Raise if this version of fakeredis has its clock elsewhere."""
        client: Any = self.client()
        clock = self._clock
        self._clock = self._server.redisq_clock = probe = _Clock()
        try:
            probe.advance(1e6)
            seconds = int(client.eval("return redis.call('TIME')[1]", 0))
        finally:
            self._clock = self._server.redisq_clock = clock
        if seconds < time.time() + 1e5:
            version = getattr(self._library, "__version__", "?")
            raise NoServer(f"the clock of fakeredis {version} cannot be moved: install another version of it")


def _class_of(made: Any) -> Any:
    return type(made)  # for type checkers of any kind: fakeredis need not be installed


@cache
def _database_class(base: Any) -> Any:
    class Database(base):  # type: ignore[misc]
        """A database whose keys expire by the fake's clock."""

        def __init__(self, lock: Any, clock: _Clock) -> None:
            self._redisq_clock, self._redisq_time = clock, 0.0
            super().__init__(lock)

        @property
        def time(self) -> float:
            return self._redisq_time

        @time.setter
        def time(self, _: float) -> None:  # before each command, to what the machine's clock says
            self._redisq_time = self._redisq_clock.now()

    return Database


@cache
def _socket_class(base: Any) -> Any:
    class Socket(base):  # type: ignore[misc]
        """A connection's other end, for which TIME is the fake's clock."""

        def time(self) -> list[bytes]:
            microseconds = round(self._server.redisq_clock.now() * 1_000_000)
            return [b"%d" % (microseconds // 1_000_000), b"%d" % (microseconds % 1_000_000)]

        def blpop(self, *args: bytes) -> Any:
            if args[0].endswith(b"}:wake"):
                *keys, seconds = args
                args = (*keys, b"%f" % min(float(seconds) or _LOOK_AGAIN, _LOOK_AGAIN))
            return super().blpop(*args)

    return Socket


@cache
def _connection_class(base: Any) -> Any:
    class Connection(base):  # type: ignore[misc]
        """A connection of a blocking client."""

        def _connect(self) -> Any:
            socket: Any = super()._connect()
            socket.__class__ = _socket_class(_class_of(socket))
            return socket

    return Connection


@cache
def _async_connection_class(base: Any) -> Any:
    class Connection(base):  # type: ignore[misc]
        """A connection of an asyncio client."""

        async def _connect(self) -> None:
            await super()._connect()
            self._sock.__class__ = _socket_class(_class_of(self._sock))

    return Connection
