"""Job 2, batching: many small things for an API that takes few large requests, each of one package."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import redis

from .. import Batch, Buffer, Rate, Worker
from . import corpus
from .endpoint import Endpoint
from .processes import Channel
from .tally import Line

FLUSHERS = 2
SIZE = 150
_LEASE = 2.0  # seconds after which what a killed process held comes back

LIMIT, PER = 40, 1.0
# The queue counts a request when its batch is handed out, the endpoint when it arrives, and what lies between has no
# bound: a busy machine may stop a flusher there for seconds. But a flusher reserves again only after its request was
# answered. So of what arrives in one span of the endpoint, all was handed out in that same span, except at most one
# request of each flusher that was still under way: so many fewer, and the endpoint's limit holds however late a request
# comes. (That the server's clock and the endpoint's run equally fast is assumed.)
RATE = Rate(LIMIT - FLUSHERS, PER)

Action = dict[str, Any]


def buffer(client: redis.Redis, run: str) -> Buffer[Action]:
    """Return the buffer of actions that all of the job's processes share."""
    return Buffer(client, f"demo-batch-{run}", lease=_LEASE, rates=[RATE], dedup_window=15)


class Found(NamedTuple):
    """The message that the actions of a file are pushed."""

    ids: list[str]


class Sent(NamedTuple):
    """The message that the endpoint has taken a batch."""

    ids: list[str]
    attempts: int


def find(channel: Channel, url: str, run: str, directory: Path, files: list[str]) -> None:
    """Push each function and class of all files."""
    with contextlib.closing(redis.Redis.from_url(url)) as client:
        actions = buffer(client, run)
        for path in files:
            found = list(corpus.definitions(path, (directory / path).read_bytes()))
            actions.push_many(found, group=corpus.package(path))
            channel.send(Found([action["id"] for action in found]))


def flush(channel: Channel, url: str, run: str, port: int) -> None:
    """Send batches, one a request and no more than the limit allows, until all is done."""

    def handle(batch: Batch[Action]) -> None:
        http.request("POST", "/", json.dumps({"package": batch.group, "actions": batch.items}))
        answer = http.getresponse()
        answer.read()
        if answer.status == 429:
            raise TooMany  # the batch is given back, and comes again
        if answer.status != 200:
            worker.stop()
            channel.fail(f"the endpoint answered {answer.status} to {len(batch.items)} actions of {batch.group}")
        ids = [action["id"] for action in batch.items]
        channel.hold_if_told(ids)
        channel.send(Sent(ids, batch.attempts))

    with (
        contextlib.closing(redis.Redis.from_url(url)) as client,
        contextlib.closing(HTTPConnection("127.0.0.1", port, timeout=30)) as http,
    ):
        worker = Worker(buffer(client, run), handle, size=SIZE, grace=5)
        channel.work(worker)


class TooMany(Exception):
    """Raised when the endpoint refuses a request as one too many."""


class Batching:
    """The job's counts."""

    def __init__(self, client: redis.Redis, run: str, endpoint: Endpoint) -> None:
        self.buffer = buffer(client, run)
        self.endpoint = endpoint
        self.pushed: Counter[str] = Counter()
        """How often each action was pushed: once."""
        self.files = self.found = self.sent = self.batches = 0
        self.again: Counter[str] = Counter()
        """Actions that were handed out again, because the process that held them was killed."""

    def record(self, message: Found | Sent) -> None:
        """Count what a process reports."""
        if isinstance(message, Found):
            self.pushed.update(message.ids)
            self.found += len(message.ids)
            self.files += 1
        else:
            self.sent += len(message.ids)
            self.batches += 1
            if message.attempts > 1:
                self.again.update(message.ids)

    def waiting(self) -> int:
        """Count the actions that are in the buffer, in whatever state."""
        stats = self.buffer.stats()
        return stats.waiting + SIZE * (stats.leased + stats.delayed + stats.dead)

    def tally_line(self) -> Line:
        """Return the counts of the job; done is what the endpoint received, not what the flushers report."""
        refused = self.endpoint.refused
        return Line("batching", "sent", self.pushed, self.endpoint.received, self.again, self.waiting(), refused)

    def faults(self) -> Iterator[str]:
        """Name what is wrong beyond the counts."""
        if self.endpoint.malformed:
            yield f"{self.endpoint.malformed} requests were not a batch of one package"
        for finding in self.buffer.audit().findings:
            yield f"audit of the buffer: {finding}"
