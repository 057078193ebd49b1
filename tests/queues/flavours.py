"""Blocking and asyncio redisq behind one interface, so that a test for both is written once."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import ModuleType
from typing import Any

import fakeredis
import redis
import redis.asyncio

import redisq
import redisq.asyncio
from redisq.embedded import Server

TIMEOUT = 20  # seconds that a test waits for an event


class Flavour:
    """Clients and queues of one flavour, and a way to make their calls.

    Without a server the client is fakeredis. `do` makes a call: a blocking one has its result already, one of asyncio
    is a coroutine, which runs on a loop in its own thread. `begin` starts a call that blocks.
    """

    def __init__(self, name: str, server: Server | None) -> None:
        self.name = name
        self.library: ModuleType = redisq if name == "blocking" else redisq.asyncio
        self._server = server
        self._fake = fakeredis.FakeServer()
        self._made: list[Any] = []
        self._plain: list[redis.Redis] = []
        self._pool = ThreadPoolExecutor(16)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.plain = self._blocking()
        """A blocking client, for preparing and inspecting."""
        self.client = self.make_client()
        """A client of this flavour."""
        self._end_waits()

    def _blocking(self, **options: Any) -> redis.Redis:
        if self._server is None:
            self._plain.append(fakeredis.FakeRedis(server=self._fake, **options))
        else:
            self._plain.append(self._server.client(**options))
        return self._plain[-1]

    def make_client(self, **options: Any) -> Any:
        """Return another client of this flavour."""
        if self.name == "blocking":
            return self._blocking(**options)
        if self._server is None:
            self._made.append(fakeredis.FakeAsyncRedis(server=self._fake, **options))
        else:
            self._made.append(redis.asyncio.Redis(unix_socket_path=self._server.socket, **options))
        return self._made[-1]

    def buffer(self, name: str = "q", **options: Any) -> Any:
        """Return a buffer."""
        return self.library.Buffer(self.client, name, **options)

    def queue(self, name: str = "q", **options: Any) -> Any:
        """Return a priority queue."""
        return self.library.PriorityQueue(self.client, name, **options)

    def stocked(self, structure: str, *names: str, **options: Any) -> Any:
        """Return a buffer or a priority queue with these items, in this order; a buffer has them in the group `g`."""
        if structure == "buffer":
            buffer = self.buffer(**options)
            self.do(buffer.push(*names, group="g"))
            return buffer
        queue = self.queue(**options)
        self.do(queue.push_many((name, 0) for name in names))
        return queue

    def do(self, call: Any) -> Any:
        """Make a call, and return its result."""
        return self.later(call).result(5 * TIMEOUT) if inspect.iscoroutine(call) else call

    def later(self, coroutine: Any) -> Future[Any]:
        """Run a coroutine on the loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def begin(self, call: Callable[[], Any]) -> Future[Any]:
        """Start a call that blocks, and return its future."""
        return self._pool.submit(call) if self.name == "blocking" else self.later(call())

    def worker(self, queue: Any, handle: Callable[[Any], object], **options: Any) -> Any:
        """Return a worker with this function as its handler, in either flavour."""

        async def handler(batch: Any) -> None:
            handle(batch)

        return self.library.Worker(queue, handle if self.name == "blocking" else handler, **options)

    @contextlib.contextmanager
    def running(self, worker: Any) -> Iterator[None]:
        """Run a worker, and stop it at the end."""
        ended = self.begin(worker.run)
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(worker.stop)
            ended.result(TIMEOUT)
            self._end_waits()

    def _end_waits(self) -> None:
        """Wake blocking workers that have stopped: their threads would take the wake-ups of the next test."""
        for _ in range(20):
            left = [thread for thread in threading.enumerate() if thread.name.startswith("redisq-wake-up")]
            if not left or self._server is None:
                return
            for client in self.plain.client_list():
                if "b" in client["flags"]:
                    self.plain.client_unblock(int(client["id"]))
            left[0].join(0.01)

    def within(self, batch: Any, act: Callable[[], object]) -> None:
        """Call a function inside `with batch:` or `async with batch:`."""
        if self.name == "blocking":
            with batch:
                act()
        else:

            async def inside() -> None:
                async with batch:
                    act()

            self.do(inside())

    def blocked(self, count: int, *waiting: Future[Any]) -> None:
        """Wait until this many clients are blocked at the server."""
        while self.plain.info("clients")["blocked_clients"] < count:
            assert not any(one.done() for one in waiting)

    def close(self) -> None:
        """Close the clients, and end the threads."""
        for client in self._made:
            self.do(client.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._pool.shutdown()
        for client in self._plain:
            client.close()
