"""One test body for every kind of client: blocking or asyncio, redis-py or valkey-py, one server or a cluster.

A body is a generator that yields what a call returns and receives its result.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import pytest

import redisq.asyncio
from redisq.core.clients import connection_arguments
from redisq.embedded import Server
from tests.connections import closing_connections

Work = Generator[Any, Any, Any]
MakeClient = Callable[[], Any]


@dataclass(frozen=True)
class ClientKind:
    """A kind of client."""

    name: str
    """blocking or asyncio"""
    library: str = "redis"
    """redis or valkey"""

    def __str__(self) -> str:
        return self.name if self.library == "redis" else f"{self.library}-{self.name}"

    @property
    def queues(self) -> Any:
        """The module with redisq's classes for it."""
        return redisq if self.name == "blocking" else redisq.asyncio

    @property
    def package(self) -> ModuleType:
        """The client library's package for it."""
        return importlib.import_module(self.library if self.name == "blocking" else f"{self.library}.asyncio")

    @property
    def errors(self) -> Any:
        """The client library's errors."""
        return importlib.import_module(f"{self.library}.exceptions")

    @property
    def client(self) -> Any:
        """The class of a client of one server."""
        return getattr(self.package, self.library.capitalize())

    @property
    def cluster(self) -> Any:
        """The class of a cluster's client."""
        module = importlib.import_module(f"{self.package.__name__}.cluster")
        return getattr(module, f"{self.library.capitalize()}Cluster")

    def no_retries(self) -> Any:
        """Return a retry policy with which a client gives up at the first error."""
        return self.retries(0)

    def retries(self, count: int) -> Any:
        """Return a retry policy with which a client tries so often again, at once."""
        backoff = importlib.import_module(f"{self.library}.backoff").NoBackoff()
        return importlib.import_module(f"{self.package.__name__}.retry").Retry(backoff, count)

    def run(self, make_client: MakeClient, work: Callable[[Any], Work]) -> Any:
        """Run a test body with a new client, and return its result."""
        if self.name == "asyncio":
            return asyncio.run(_run(make_client, work))
        with make_client() as client:
            running, result = work(client), None
            while True:
                try:
                    result = running.send(result)
                except StopIteration as stop:
                    return stop.value

    @contextlib.contextmanager
    def working(
        self, make_client: MakeClient, handle: Callable[[Any], object], **options: Any
    ) -> Iterator[Future[Any]]:
        """Run a Worker in a thread, and stop it at the end; the future it yields is done once the worker has ended."""
        stop: list[Callable[[], object]] = []
        started = threading.Event()

        def blocking() -> None:
            with make_client() as client:
                worker = redisq.Worker(redisq.Buffer(client, "q"), handle, **options)
                stop.append(worker.stop)
                started.set()
                worker.run()

        async def awaited() -> None:
            async def handle_async(batch: Any) -> None:
                await asyncio.to_thread(handle, batch)

            async with closing_connections(make_client()) as client:
                worker = redisq.asyncio.Worker(redisq.asyncio.Buffer(client, "q"), handle_async, **options)
                loop = asyncio.get_running_loop()
                stop.append(lambda: loop.call_soon_threadsafe(worker.stop))
                started.set()
                await worker.run()

        with ThreadPoolExecutor(1) as pool:
            working = pool.submit(blocking if self.name == "blocking" else lambda: asyncio.run(awaited()))
            working.add_done_callback(lambda _: started.set())
            started.wait()
            try:
                yield working
            finally:
                with contextlib.suppress(RuntimeError):  # its event loop is closed
                    for each in stop:
                        each()


async def _run(make_client: MakeClient, work: Callable[[Any], Work]) -> Any:
    async with closing_connections(make_client()) as client:
        running = work(client)
        go_on: Callable[[], Any] = partial(next, running)
        while True:
            try:
                coming = go_on()
            except StopIteration as stop:
                return stop.value
            try:
                go_on = partial(running.send, await coming)
            except Exception as error:  # raise it where a blocking call would
                go_on = partial(running.throw, error)


REDIS = [ClientKind("blocking"), ClientKind("asyncio")]
VALKEY = [ClientKind("blocking", "valkey"), ClientKind("asyncio", "valkey")]
each_flavour = pytest.mark.parametrize("flavour", REDIS, ids=str)
each_library = pytest.mark.parametrize("flavour", [*REDIS, *VALKEY], ids=str)


def with_pool(flavour: ClientKind, kind: str, **options: Any) -> Any:
    """Make a client with a pool of this class and four connections."""
    pool = getattr(flavour.package, kind)(**options)
    arguments = connection_arguments(pool)
    if flavour.name == "blocking":
        for connection in [pool.get_connection(*arguments) for _ in range(4)]:
            pool.release(connection)
        return flavour.client.from_pool(pool)
    client = flavour.client.from_pool(pool)

    class FilledPool:
        async def __aenter__(self) -> Any:
            for connection in [await pool.get_connection(*arguments) for _ in range(4)]:
                await pool.release(connection)
            return client

        async def __aexit__(self, *_: object) -> None:
            await client.aclose()

    return FilledPool()


def user_of(server: Server, *rights: str) -> dict[str, Any]:
    """Create a user with these permissions, and return the client options to log in."""
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "somebody", "reset", "on", ">right", "~*", "&*", *rights)
    return {"unix_socket_path": server.socket, "username": "somebody", "password": "right"}
