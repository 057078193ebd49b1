"""`max_bytes` with an HTTP endpoint that accepts bodies of 256 KB: no batch is too large, and nothing is lost.

A body is what `max_bytes` counts: the encoded items of the batch, one after the other, and in a priority queue each
member and its payload. The caller leaves room for anything else in a request, such as separators. The endpoint rejects
longer bodies, unless they are a single item, which cannot be made smaller and is handed out alone.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count, pairwise
from typing import Any

import pytest
import redis.asyncio

import redisq
import redisq.asyncio
from redisq import BYTES, JSON, Buffer
from redisq.embedded import Server

from .monitor import Monitor

pytestmark = pytest.mark.server

LIMIT = 256 * 1024
BATCHES = 21


class Endpoint(ThreadingHTTPServer):
    """An HTTP server that accepts batches by POST, and answers 413 to bodies that are too long."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.taken: list[list[Any]] = []
        """the values of each body"""
        self.lengths: list[int] = []
        """the lengths of these bodies"""
        self.refused: list[int] = []
        """the lengths of rejected bodies"""


class _Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        found = values(body)
        # An item of the buffer is an object; one of the priority queue is a string, with or without an object.
        items = max(sum(isinstance(value, kind) for value in found) for kind in (str, dict))
        if len(body) > LIMIT and items > 1:
            self.server.refused.append(len(body))
            self.send_response(413)
        else:
            self.server.taken.append(found)
            self.server.lengths.append(len(body))
            self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Print nothing."""


def values(body: bytes) -> list[Any]:
    """Parse the JSON values of a body, which stand one after the other."""
    text, place, found = body.decode(), 0, []
    while place < len(text):
        value, place = json.JSONDecoder().raw_decode(text, place)
        found.append(value)
    return found


@contextmanager
def endpoint() -> Iterator[Endpoint]:
    """Run an endpoint."""
    with Endpoint() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def post(port: int, batch: Any) -> None:
    """Send a batch; a rejection is an error."""
    payloads = batch.payloads or [None] * len(batch.items)
    parts = [
        raw + (b"" if payload is None else JSON.encode(payload))
        for raw, payload in zip(batch.raw, payloads, strict=True)
    ]
    connection = http.client.HTTPConnection("127.0.0.1", port)
    try:
        connection.request("POST", "/", b"".join(parts))
        status = connection.getresponse().status
    finally:
        connection.close()
    if status != 200:
        raise RuntimeError(f"the endpoint answered {status}")


def mixed_sizes() -> list[list[int]]:
    """Return the sizes of items, batch by batch as they have to be handed out.

    Most have some hundred bytes, some up to 200 KB. Five are above the limit on their own: the first, the last, two in
    a row and one of a megabyte. One batch has exactly the limit, and after another comes an item that is a byte too
    long.
    """
    rng = random.Random(1)
    over = {150: LIMIT + 1, 151: 300_000, 240: 1024 * 1024}
    batches: list[list[int]] = []
    batch = [LIMIT + 1]
    for number in count():
        ranges = [(100, 900)] * 12 + [(900, 40_000)] * 6 + [(40_000, 200_000)]
        size = over.get(number) or rng.randint(*rng.choice(ranges))
        if sum(batch) + size > LIMIT:
            room = LIMIT - sum(batch)
            if len(batches) == 5:
                batch.append(room)
            elif len(batches) == 9:
                size = room + 1
            batches.append(batch)
            batch = []
        if len(batches) == BATCHES - 1:
            return [*batches, [LIMIT + 2]]
        batch.append(size)
    raise AssertionError("unreachable")


def text(size: int) -> str:
    """Return a text with this many bytes in JSON, quotes included, and fewer characters."""
    return "\u00e9" * ((size - 2) // 2) + "x" * (size % 2)


SIZES = mixed_sizes()
NAMES = [f"item {number:04}" for number in range(sum(map(len, SIZES)))]


def items() -> list[dict[str, str]]:
    """Return the items of a buffer."""
    sizes = [size for batch in SIZES for size in batch]
    empty = len(JSON.encode({"name": NAMES[0], "text": ""}))
    return [{"name": name, "text": text(size - empty + 2)} for name, size in zip(NAMES, sizes, strict=True)]


def members() -> list[tuple[str, int, dict[str, str]]]:
    """Return the members of a priority queue, with payloads."""
    sizes = [size for batch in SIZES for size in batch]
    empty = len(JSON.encode(NAMES[0])) + len(JSON.encode({"text": ""}))
    return [(name, 0, {"text": text(size - empty + 2)}) for name, size in zip(NAMES, sizes, strict=True)]


class Remaining:
    """The number of items that are not done yet; stops the worker at zero, or when a batch fails."""

    def __init__(self) -> None:
        self.count = len(NAMES)
        self.failed = False
        self.worker: Any = None
        self._lock = threading.Lock()

    def done(self, batch: Any) -> None:
        """Count a batch that was acked."""
        with self._lock:
            self.count -= len(batch.items)
            if not self.count:
                self.worker.stop()

    def fail(self, batch: Any, error: BaseException | None) -> None:  # noqa: ARG002
        """Stop because a batch was released."""
        self.failed = True
        self.worker.stop()


def open_queue(structure: str, package: Any, client: Any) -> Any:
    """Return the queue under test, of `redisq` or `redisq.asyncio`."""
    if structure == "buffer":
        return package.Buffer(client, "q")
    return package.PriorityQueue(client, "q", codec=JSON)


def send_all(structure: str, flavour: str, server: Server, max_bytes: int | None) -> tuple[Endpoint, Remaining]:
    """Push all items, and let a worker send them to an endpoint."""
    remaining = Remaining()
    options: dict[str, Any] = {"size": 500, "max_bytes": max_bytes, "concurrency": 3}
    options |= {"on_ack": remaining.done, "on_release": remaining.fail}
    with server.client() as client, endpoint() as target:
        queue = open_queue(structure, redisq, client)
        queue.push_many(items() if structure == "buffer" else members())
        if flavour == "blocking":
            remaining.worker = redisq.Worker(queue, lambda batch: post(target.server_port, batch), **options)
            remaining.worker.run()
        else:
            asyncio.run(send_all_async(structure, server, target.server_port, remaining, options))
        assert queue.stats().done == len(NAMES) - remaining.count
    return target, remaining


async def send_all_async(
    structure: str, server: Server, port: int, remaining: Remaining, options: dict[str, Any]
) -> None:
    """Run the worker with asyncio."""

    async def handle(batch: Any) -> None:
        await asyncio.to_thread(post, port, batch)

    async with redis.asyncio.Redis(unix_socket_path=server.socket) as client:
        remaining.worker = redisq.asyncio.Worker(open_queue(structure, redisq.asyncio, client), handle, **options)
        await remaining.worker.run()


@pytest.mark.parametrize("structure", ["buffer", "priority"])
@pytest.mark.parametrize("flavour", ["blocking", "asyncio"])
def test_no_batch_is_too_large_and_none_is_lost(structure: str, flavour: str, server: Server) -> None:
    target, remaining = send_all(structure, flavour, server, LIMIT)
    assert (remaining.failed, remaining.count, target.refused) == (False, 0, [])
    assert len(target.lengths) == BATCHES
    assert Counter(target.lengths) == Counter(map(sum, SIZES))
    came = [value for body in target.taken for value in body]
    if structure == "buffer":
        assert Counter(value["name"] for value in came) == Counter(NAMES)
    else:
        assert Counter(value for value in came if isinstance(value, str)) == Counter(NAMES)


@pytest.mark.parametrize("structure", ["buffer", "priority"])
def test_control_without_max_bytes_a_body_is_rejected(structure: str, server: Server) -> None:
    target, remaining = send_all(structure, "blocking", server, None)
    assert remaining.failed
    assert target.refused


@pytest.mark.parametrize(("waiting", "max_bytes", "taken"), [(50, 10**6, 2), (50, 1, 1), (2, 10**6, 2)])
def test_no_more_is_read_than_may_be_taken(server: Server, waiting: int, max_bytes: int, taken: int) -> None:
    """A reserve of two items reads two, once, however many wait and however large they are."""
    with server.client() as client:
        client.flushall()
        buffer = Buffer(client, "b", codec=BYTES)
        buffer.push(*[b"%d" % i * 100 for i in range(waiting)])
        with Monitor(server.socket) as monitor:
            batch = buffer.reserve(2, max_bytes=max_bytes)
            commands = [command.words for command in monitor.commands() if command.client == b"lua"]
        assert batch
        assert batch.items == [b"%d" % i * 100 for i in range(taken)]
        assert buffer.peek(count=50) == [b"%d" % i * 100 for i in range(taken, waiting)]
    read = [words for words in commands if words[0].upper() in (b"LRANGE", b"LPOP")]
    assert read == [[b"LRANGE", b"redisq:{b}:items:default", b"0", b"1"]]


def test_few_are_read_where_few_fit(server: Server) -> None:
    """A reserve of any number of large items does not read them all to take a few."""
    with server.client() as client:
        client.flushall()
        buffer = Buffer(client, "b", codec=BYTES)
        buffer.push(*[b"x" * 1000] * 3000)
        with Monitor(server.socket) as monitor:
            batch = buffer.reserve(3000, max_bytes=15_000)
            commands = [command.words for command in monitor.commands() if command.client == b"lua"]
        assert batch
        assert len(batch.items) == 15
    ranges = [words[2:] for words in commands if words[0].upper() == b"LRANGE"]
    read = [int(last) - int(first) + 1 for first, last in ranges]
    assert sum(read) <= 2 * 15


def test_the_sizes_cover_the_edge_cases() -> None:
    """Some items exceed the limit on their own, a batch is exactly at the limit, and one would be a byte above it."""
    assert len(SIZES) == BATCHES
    assert sum(batch[0] > LIMIT for batch in SIZES) == 5
    assert all(sum(batch) <= LIMIT or len(batch) == 1 for batch in SIZES)
    assert LIMIT in map(sum, SIZES)
    assert LIMIT + 1 in [sum(batch) + following[0] for batch, following in pairwise(SIZES)]
    small = [size for batch in SIZES for size in batch if size <= LIMIT]
    assert min(small) < 300
    assert max(small) > 150_000
    assert [len(JSON.encode(item)) for item in items()] == [size for batch in SIZES for size in batch]
    assert [len(JSON.encode(name)) + len(JSON.encode(payload)) for name, _, payload in members()] == [
        size for batch in SIZES for size in batch
    ]
