"""Workers through outages: the server is killed and restarted, and replies are lost, at each step of a worker."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
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
from tests.waiting import until

pytestmark = pytest.mark.server
TIMEOUT = 30  # seconds that a test waits for an event

flavours = pytest.mark.parametrize("flavour", ["blocking", "asyncio"])


class Node:
    """A server on its own port with a persistent AOF, to be killed and restarted."""

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
        """Kill it, as in a crash."""
        os.kill(self.pid, signal.SIGKILL)

    def stop(self) -> None:
        """End the server, if it runs, and its watchdog."""
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


class ReplyLoss:
    """A queue's `send`, losing the replies to some calls: they were carried out, but the caller gets an error."""

    def __init__(self, queue: Any) -> None:
        self.queue = queue
        self.calls = queue.calls
        self.lost: list[str] = []
        self.to_lose: dict[str, int] = {}

    def patch(self, blocking: bool) -> None:
        """Replace the queue's `send`."""
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
            if self.to_lose.get(verb, 0) > 0:
                self.to_lose[verb] -= 1
                self.lost.append(verb)
                raise redis.ConnectionError("the connection was lost before the reply")


class RunningWorker:
    """A worker of either flavour in a thread, with a blocking handler and a record of its hooks."""

    def __init__(self, flavour: str, port: int, handle: Any, to_lose: dict[str, int] | None = None, **settings: Any):
        self.flavour, self._port, self._handle, self._settings = flavour, port, handle, settings
        self._to_lose = to_lose or {}
        self.hook_calls: list[tuple[str, list[Any]]] = []
        self.lost: list[str] = []
        self.worker: Any = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> RunningWorker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.worker:
            self.worker.stop()
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        if self.flavour == "blocking":
            # Without the retries of newer clients, which take seconds.
            with redis.Redis(port=self._port, retry=Retry(NoBackoff(), 0)) as client:
                queue = self._with_reply_loss(Buffer(client, "q", lease=2))
                self.worker = Worker(queue, self._handle, **self._hooks())
                self.worker.run()
        else:
            asyncio.run(self._arun())

    async def _arun(self) -> None:
        async def handle(batch: Any) -> None:
            await asyncio.to_thread(self._handle, batch)

        async with redis.asyncio.Redis(port=self._port, retry=AsyncRetry(NoBackoff(), 0)) as client:
            queue = self._with_reply_loss(redisq.asyncio.Buffer(client, "q", lease=2))
            self.worker = redisq.asyncio.Worker(queue, handle, **self._hooks())
            await self.worker.run()

    def _with_reply_loss(self, queue: Any) -> Any:
        replies = ReplyLoss(queue)
        replies.to_lose, replies.lost = self._to_lose, self.lost
        replies.patch(self.flavour == "blocking")
        return queue

    def _hooks(self) -> dict[str, Any]:
        return self._settings | {
            "on_ack": lambda batch: self.hook_calls.append(("ack", list(batch.items))),
            "on_release": lambda batch, _: self.hook_calls.append(("release", list(batch.items))),
            "backoff": lambda _: 0.01,
        }


@flavours
@pytest.mark.parametrize("phase", ["idle", "handler", "settling"])
def test_the_server_is_killed_and_restarted(node: Node, client: redis.Redis, flavour: str, phase: str) -> None:
    """While the worker waits, while a handler runs, or just after it ended: the batch is acked once."""
    buffer: Buffer[int] = Buffer(client, "q")
    pushed, began, back = threading.Event(), threading.Event(), threading.Event()
    handled: list[tuple[list[int], int]] = []

    def handle(batch: Any) -> None:
        handled.append((list(batch.items), batch.attempts))
        if batch.items == [1] and phase == "settling":
            assert pushed.wait(TIMEOUT)  # else the push may be without its reply
            node.kill()
        began.set()
        if batch.items == [1] and phase == "handler":
            assert back.wait(TIMEOUT)

    with RunningWorker(flavour, node.port, handle) as working:
        if phase == "idle":
            until(lambda: client.info("clients")["blocked_clients"] == 1)
            node.kill()
        else:
            buffer.push(1)
            pushed.set()
            assert began.wait(TIMEOUT)
            if phase == "handler":
                node.kill()
        node.start()
        back.set()
        if phase == "idle":
            buffer.push(1)
        until(lambda: len(working.hook_calls) == 1)
        buffer.push(2)
        until(lambda: len(working.hook_calls) == 2)
    assert working.hook_calls == [("ack", [1]), ("ack", [2])]
    assert handled == [([1], 1), ([2], 1)]
    stats = buffer.stats()
    assert (stats.done, stats.failed, stats.leased, stats.delayed) == (2, 0, 0, 0)


@flavours
@pytest.mark.parametrize("verb", ["reserve", "ack", "release", "bury", "extend"])
def test_replies_are_lost(node: Node, client: redis.Redis, flavour: str, verb: str) -> None:
    """The calls are sent again until they are answered, and each takes effect once."""
    buffer: Buffer[str] = Buffer(client, "q")
    handled: list[tuple[str, int]] = []
    to_lose = {verb: 3}

    def handle(batch: Any) -> None:
        (item,) = batch.items
        handled.append((item, batch.attempts))
        if item == "release" and batch.attempts == 1:
            raise ValueError("once")
        if item == "bury":
            raise redisq.Bury("at once")
        if item == "extend":
            until(lambda: to_lose.get("extend", 0) == 0)

    for item in ("release", "bury", "extend", "plain"):
        buffer.push(item, group=item)
    with RunningWorker(flavour, node.port, handle, to_lose, size=1) as working:
        until(lambda: buffer.stats().done == 3 and len(working.hook_calls) == 4 and sum(to_lose.values()) == 0)
    assert working.lost == [verb] * 3
    assert sorted(handled) == [("bury", 1), ("extend", 1), ("plain", 1), ("release", 1), ("release", 2)]
    assert sorted(working.hook_calls) == [
        ("ack", ["extend"]),
        ("ack", ["plain"]),
        ("ack", ["release"]),
        ("release", ["release"]),
    ]
    stats = buffer.stats()
    assert (stats.done, stats.failed, stats.buried, stats.leased, stats.delayed) == (3, 1, 1, 0, 0)


@flavours
def test_the_last_reserve_loses_its_reply(node: Node, client: redis.Redis, flavour: str) -> None:
    """The batch is released by its lease id, without an attempt, so that nobody has to wait for the lease to expire."""
    buffer: Buffer[str] = Buffer(client, "q")
    buffer.push("x")
    to_lose = {"reserve": 10**6}
    with RunningWorker(flavour, node.port, lambda _: pytest.fail("no handler may start"), to_lose) as working:
        until(lambda: working.lost)
        assert buffer.stats().leased == 1
    batch = buffer.reserve()
    assert batch
    assert batch.attempts == 1


@flavours
def test_the_server_does_not_come_back(
    node: Node, client: redis.Redis, flavour: str, caplog: pytest.LogCaptureFixture
) -> None:
    """After the grace the worker ends, and logs which batches will have to wait for their leases to expire."""
    killed = threading.Event()

    def handle(_: object) -> None:
        node.kill()
        killed.set()

    Buffer(client, "q").push(1)
    with RunningWorker(flavour, node.port, handle, grace=0.3):
        assert killed.wait(TIMEOUT)
        until(lambda: "Redis is unavailable" in caplog.text)
    assert "could not ack batch" in caplog.text
