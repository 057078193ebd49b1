"""An asyncio round trip has one timer, and each of its replies the client's `socket_timeout` to come.

Most of it with a connection and a clock of the test's own, so that nothing waits and nothing depends on speed.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import redis
import redis.asyncio

from redisq.asyncio import Buffer
from redisq.asyncio.one_timer import OneTimer
from redisq.embedded import Server
from tests.faults.proxy import Fault, Proxy
from tests.queues.any_client import REDIS

SECONDS = 8.0
needs_one_timer = pytest.mark.skipif(sys.version_info < (3, 11, 3), reason="before, redis-py's own timers are used")


class Clock(asyncio.SelectorEventLoop):
    """An event loop whose time passes by hand."""

    now = 1000.0

    def time(self) -> float:
        """Return the time."""
        return self.now


class Connection:
    """A connection whose replies take so many seconds each."""

    def __init__(self, loop: Clock, *seconds: float, then: Callable[[Connection], None] | None = None) -> None:
        self.loop = loop
        self.seconds = list(seconds)
        self.socket_timeout: float | None = SECONDS
        self.own_timers = 0
        self.then = then
        self.sending = 0.0

    async def send_packed_command(self, packed: list[bytes]) -> None:
        """Take as long as the test says."""
        assert packed == [b"commands"]
        self.own_timers += self.socket_timeout is not None
        await self._pass(self.sending)

    async def read_response(self, disable_decoding: bool) -> int:
        """Return the number of replies that are left."""
        assert disable_decoding
        self.own_timers += self.socket_timeout is not None
        await self._pass(self.seconds.pop(0))
        if self.then:
            self.then(self)
        return len(self.seconds)

    async def _pass(self, left: float) -> None:
        while left > 0:  # in steps, as time passes, so that a timer ends when it is due
            left -= 0.5
            self.loop.now += 0.5
            await asyncio.sleep(0)


@pytest.fixture
def loop() -> Any:
    """Return an event loop whose time passes by hand."""
    loop = Clock()
    yield loop
    loop.close()


def read(connection: Connection) -> Coroutine[Any, Any, list[Any]]:
    """Send something, and read all replies."""
    trips = object.__new__(OneTimer)
    trips._reply_errors = (redis.ResponseError,)
    return trips._talk(connection, [b"commands"], len(connection.seconds))


@needs_one_timer
@pytest.mark.parametrize("seconds", [(7.5,) * 20, (0, 7.5) * 20, (0.5,) * 100, (0,) * 9 + (0.9 * SECONDS,) * 2])
def test_together_they_may_take_longer_than_one(loop: Clock, seconds: tuple[float, ...]) -> None:
    """No reply takes longer than the client waits for one, so all are read, whatever they take together."""
    connection = Connection(loop, *seconds)
    connection.sending = 7.5
    assert loop.run_until_complete(read(connection)) == list(range(len(seconds)))[::-1]
    assert connection.own_timers == 0
    assert connection.socket_timeout == SECONDS


@needs_one_timer
@pytest.mark.parametrize("before", [0, 1, 30])
def test_one_that_takes_too_long(loop: Clock, before: int) -> None:
    """It is given up soon after its time, and the connection has its timeout back."""
    connection = Connection(loop, *[1.0] * before, 100.0, 0)
    with pytest.raises(redis.TimeoutError, match="no reply within 8 s"):
        loop.run_until_complete(read(connection))
    assert SECONDS <= loop.now - 1000.0 - before <= SECONDS * 9 / 8 + 1
    assert connection.socket_timeout == SECONDS


@needs_one_timer
def test_a_cancelled_read(loop: Clock) -> None:
    """It is a cancellation, not a timeout, and the connection has its timeout back."""
    connection = Connection(loop, 0, 5, 0)

    async def cancelled() -> None:
        task = asyncio.ensure_future(read(connection))
        await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(cancelled())
    assert connection.socket_timeout == SECONDS


@needs_one_timer
def test_maintenance(loop: Clock) -> None:
    """redis-py sets a longer timeout when the server announces maintenance; it holds, and stays."""

    def announced(connection: Connection) -> None:
        if len(connection.seconds) == 2:
            connection.socket_timeout = 60.0

    connection = Connection(loop, 0, 0, 50.0, 50.0, then=announced)
    assert loop.run_until_complete(read(connection)) == [3, 2, 1, 0]
    assert connection.own_timers == 2  # of the replies after the announcement
    assert connection.socket_timeout == 60.0


@needs_one_timer
def test_a_command_that_cannot_be_sent_in_time(loop: Clock) -> None:
    """The other side reads no more: it is a timeout, too."""
    connection = Connection(loop, 0)
    connection.sending = 100.0
    with pytest.raises(redis.TimeoutError):
        loop.run_until_complete(read(connection))
    assert connection.socket_timeout == SECONDS


@needs_one_timer
@pytest.mark.parametrize("steps", range(6))
async def test_no_cancellation_is_lost(server: Server, steps: int) -> None:
    """Whenever it comes, as `asyncio.wait_for` of older Python lost one that came when a command had just been sent."""
    async with redis.asyncio.Redis(unix_socket_path=server.socket) as client:
        buffer: Buffer[int] = Buffer(client, "q")
        assert await buffer.reserve() is None  # it is connected, and the server knows the script
        task = asyncio.ensure_future(buffer.reserve(timeout=60))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def test_a_client_without_a_timeout(loop: Clock) -> None:
    """It gets none."""
    connection = Connection(loop, *[100.0] * 3)
    connection.socket_timeout = None
    loop.run_until_complete(read(connection))
    assert connection.own_timers == 0


@pytest.mark.server
async def test_a_server_that_falls_silent(server: Server) -> None:
    """The round trip ends with a timeout, its connection is dropped, and the next call is answered."""
    with Proxy(server.socket) as proxy:
        retry = REDIS[1].no_retries()
        async with redis.asyncio.Redis(port=proxy.port, socket_timeout=0.3, retry=retry) as client:
            buffer: Buffer[int] = Buffer(client, "silent")
            await buffer.push(0)
            proxy.inject(Fault.SILENT_REPLY)
            with pytest.raises(redis.TimeoutError):
                await buffer.send(*(buffer.calls.push([number]) for number in (1, 2, 3)))
            assert proxy.injected[Fault.SILENT_REPLY] == 1
            assert await buffer.push(9) >= 2
