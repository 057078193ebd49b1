"""Workers through outages: the server killed and started again, and replies lost, at each of a worker's steps."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

import redisq.asyncio
from redisq import Buffer, Call, Worker
from redisq.embedded import Server

pytestmark = pytest.mark.server
PATIENCE = 30  # seconds before a test gives an event up

flavours = pytest.mark.parametrize("flavour", ["blocking", "asyncio"])


def until(condition: Any) -> None:
    """Wait for what nothing tells of."""
    end = monotonic() + PATIENCE
    while not condition():
        assert monotonic() < end
        threading.Event().wait(0.01)


class Node:
    """A server on a port of its own that keeps all that it was told, to be killed and started again."""

    def __init__(self, binary: Path, directory: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self._binary, self._directory = binary, directory
        self._options = ("--port", str(self.port), "--bind", "127.0.0.1", "--appendonly", "yes")
        self._server: Server | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.stop()
        server = Server(self._binary, *self._options, "--appendfsync", "always", directory=self._directory)
        self._server = server.__enter__()
        with self._server.client() as client:
            self.pid = int(client.info("server")["process_id"])

    def kill(self) -> None:
        """Kill it, as a crash does."""
        os.kill(self.pid, signal.SIGKILL)

    def stop(self) -> None:
        """Clean up after what is there."""
        if self._server:
            self._server.stop()


@pytest.fixture
def node(binary: Path, tmp_path: Path) -> Iterator[Node]:
    made = Node(binary, tmp_path)
    made.start()
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def client(node: Node) -> Iterator[redis.Redis]:
    with redis.Redis(port=node.port) as made:
        yield made


class Losing:
    """A queue that loses the replies to some calls: they were sent, and nobody knows what became of them."""

    def __init__(self, queue: Any) -> None:
        self.queue = queue
        self.calls = queue.calls
        self.lost: list[str] = []
        self.losing: dict[str, int] = {}

    def patch(self, blocking: bool) -> None:
        """Put it in the place of the queue's own `send`."""
        send = self.queue.send

        async def send_and_lose(*calls: Call[Any]) -> list[Any]:
            results: list[Any] = await send(*calls)
            self._lose(calls)
            return results

        def blocking_send_and_lose(*calls: Call[Any]) -> list[Any]:
            results: list[Any] = send(*calls)
            self._lose(calls)
            return results

        self.queue.send = blocking_send_and_lose if blocking else send_and_lose

    def _lose(self, calls: tuple[Call[Any], ...]) -> None:
        for call in calls:
            verb = call.script.name.partition("/")[2]
            if self.losing.get(verb, 0) > 0:
                self.losing[verb] -= 1
                self.lost.append(verb)
                raise redis.ConnectionError("the connection was lost before the reply")


class Working:
    """A worker of either flavour in a thread; its handlers may block, and tell what they were handed."""

    def __init__(self, flavour: str, port: int, handle: Any, losing: dict[str, int] | None = None, **settings: Any):
        self.flavour, self._port, self._handle, self._settings = flavour, port, handle, settings
        self._losing = losing or {}
        self.told: list[tuple[str, list[Any]]] = []
        self.lost: list[str] = []
        self.worker: Any = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Working:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.worker:
            self.worker.stop()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        if self.flavour == "blocking":
            # Without the retries of newer clients, which take seconds.
            with redis.Redis(port=self._port, retry=Retry(NoBackoff(), 0)) as client:
                queue = self._watched(Buffer(client, "q", lease=2))
                self.worker = Worker(queue, self._handle, **self._hooks())
                self.worker.run()
        else:
            asyncio.run(self._arun())

    async def _arun(self) -> None:
        async def handle(batch: Any) -> None:
            await asyncio.to_thread(self._handle, batch)

        async with redis.asyncio.Redis(port=self._port, retry=AsyncRetry(NoBackoff(), 0)) as client:
            queue = self._watched(redisq.asyncio.Buffer(client, "q", lease=2))
            self.worker = redisq.asyncio.Worker(queue, handle, **self._hooks())
            await self.worker.run()

    def _watched(self, queue: Any) -> Any:
        losing = Losing(queue)
        losing.losing, losing.lost = self._losing, self.lost
        losing.patch(self.flavour == "blocking")
        return queue

    def _hooks(self) -> dict[str, Any]:
        return self._settings | {
            "on_ack": lambda batch: self.told.append(("ack", list(batch.items))),
            "on_release": lambda batch, _: self.told.append(("release", list(batch.items))),
            "backoff": lambda _: 0.01,
        }


@flavours
@pytest.mark.parametrize("phase", ["idle", "handler", "settling"])
def test_a_server_that_is_killed_and_comes_back(node: Node, client: redis.Redis, flavour: str, phase: str) -> None:
    """While the worker waits, while a handler runs, and when it has just ended: the batch is acked, once."""
    buffer: Buffer[int] = Buffer(client, "q")
    began, back = threading.Event(), threading.Event()
    handled: list[tuple[list[int], int]] = []

    def handle(batch: Any) -> None:
        handled.append((list(batch.items), batch.attempts))
        if batch.items == [1] and phase == "settling":
            node.kill()
        began.set()
        if batch.items == [1] and phase == "handler":
            assert back.wait(PATIENCE)

    with Working(flavour, node.port, handle) as working:
        if phase == "idle":
            until(lambda: client.info("clients")["blocked_clients"] == 1)
            node.kill()
        else:
            buffer.push(1)
            assert began.wait(PATIENCE)
            if phase == "handler":
                node.kill()
        node.start()
        back.set()
        if phase == "idle":
            buffer.push(1)
        until(lambda: len(working.told) == 1)
        buffer.push(2)
        until(lambda: len(working.told) == 2)
    assert working.told == [("ack", [1]), ("ack", [2])]
    assert handled == [([1], 1), ([2], 1)]
    stats = buffer.stats()
    assert (stats.done, stats.failed, stats.leased, stats.delayed) == (2, 0, 0, 0)


@flavours
@pytest.mark.parametrize("verb", ["reserve", "ack", "release", "bury", "extend"])
def test_replies_that_are_lost(node: Node, client: redis.Redis, flavour: str, verb: str) -> None:
    """The calls are sent again until they are answered, and each takes effect once."""
    buffer: Buffer[str] = Buffer(client, "q")
    handled: list[tuple[str, int]] = []
    losing = {verb: 3}

    def handle(batch: Any) -> None:
        (item,) = batch.items
        handled.append((item, batch.attempts))
        if item == "release" and batch.attempts == 1:
            raise ValueError("once")
        if item == "bury":
            raise redisq.Bury("at once")
        if item == "extend":
            until(lambda: losing.get("extend", 0) == 0)

    for item in ("release", "bury", "extend", "plain"):
        buffer.push(item, group=item)
    with Working(flavour, node.port, handle, losing, size=1) as working:
        until(lambda: buffer.stats().done == 3 and len(working.told) == 4 and sum(losing.values()) == 0)
    assert working.lost == [verb] * 3
    assert sorted(handled) == [("bury", 1), ("extend", 1), ("plain", 1), ("release", 1), ("release", 2)]
    assert sorted(working.told) == [
        ("ack", ["extend"]),
        ("ack", ["plain"]),
        ("ack", ["release"]),
        ("release", ["release"]),
    ]
    stats = buffer.stats()
    assert (stats.done, stats.failed, stats.buried, stats.leased, stats.delayed) == (3, 1, 1, 0, 0)


@flavours
def test_a_reserve_without_a_reply_at_the_end(node: Node, client: redis.Redis, flavour: str) -> None:
    """What it took is given back by its lease's id, uncounted: nobody waits for the lease to run out."""
    buffer: Buffer[str] = Buffer(client, "q")
    buffer.push("x")
    losing = {"reserve": 10**6}
    with Working(flavour, node.port, lambda _: pytest.fail("nobody may begin"), losing) as working:
        until(lambda: working.lost)
        assert buffer.stats().leased == 1
    batch = buffer.reserve()
    assert batch
    assert batch.attempts == 1


@flavours
def test_a_server_that_does_not_come_back(
    node: Node, client: redis.Redis, flavour: str, caplog: pytest.LogCaptureFixture
) -> None:
    """After the grace the worker ends, and says which batches are left to their leases."""
    killed = threading.Event()

    def handle(_: object) -> None:
        node.kill()
        killed.set()

    Buffer(client, "q").push(1)
    with Working(flavour, node.port, handle, grace=0.3):
        assert killed.wait(PATIENCE)
        until(lambda: "Redis is unavailable" in caplog.text)
    assert "could not ack batch" in caplog.text
