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

from .. import Buffer, Rate, RateLimiter
from ..errors import RedisqError
from . import corpus
from .account import Line
from .crew import Link
from .endpoint import Endpoint

FLUSHERS = 2
GROUPS = 2
SIZE = 150
_IDLE = 0.05  # seconds between two looks at an empty buffer: `pop_longest` does not wait

LIMIT, PER = 40, 1.0
# The limiter counts a request when its slot is granted, the endpoint when it arrives, and what lies between has no
# bound: a busy machine may stop a flusher there for seconds. But a flusher asks for new slots only after all its
# requests were answered. So of what arrives in one span of the endpoint, all was granted in that same span, except at
# most GROUPS requests of each flusher that were still under way: so many slots fewer, and the endpoint's limit holds
# however late a request comes. (That the server's clock and the endpoint's run equally fast is assumed.)
RATE = Rate(LIMIT - FLUSHERS * GROUPS, PER)

Action = dict[str, Any]


def buffer(client: redis.Redis, run: str) -> Buffer[Action]:
    """Give the buffer of actions that all of the job's processes share."""
    return Buffer(client, f"demo-batch-{run}", dedup_window=15)


def limiter(client: redis.Redis, run: str) -> RateLimiter:
    """Give the limiter that all flushers share."""
    return RateLimiter(client, f"demo-limit-{run}", RATE, dedup_window=15)


class Found(NamedTuple):
    """Tell that the actions of a file are pushed."""

    ids: list[str]


class Sent(NamedTuple):
    """Tell that some batches were taken by the endpoint."""

    actions: int
    batches: int
    slots: int
    """Slots of the limit that were taken for it."""


def find(link: Link, url: str, run: str, directory: Path, files: list[str]) -> None:
    """Push each function and class of all files."""
    with contextlib.closing(redis.Redis.from_url(url)) as client:
        actions = buffer(client, run)
        for path in files:
            found = list(corpus.definitions(path, (directory / path).read_bytes()))
            actions.push_many(found, group=corpus.package(path))
            link.tell(Found([action["id"] for action in found]))


def flush(link: Link, url: str, run: str, port: int) -> None:
    """Send the longest groups, one a request and no more than the limit allows, until no more come."""
    with (
        contextlib.closing(redis.Redis.from_url(url)) as client,
        contextlib.closing(HTTPConnection("127.0.0.1", port, timeout=30)) as http,
    ):
        actions, limit = buffer(client, run), limiter(client, run)
        while True:
            finished = link.finished()  # asked first: what is empty after that stays empty
            longest = actions.longest_groups(GROUPS)
            if longest:
                # The slots first: what is popped is in no other hands than these, and should not wait in them. Another
                # flusher may take the same groups meanwhile; the slots are then spent on nothing, which is counted.
                slots = limit.wait(len(longest)).granted
                batches = actions.pop_longest(slots, SIZE)
                for package, batch in batches.items():
                    while not _post(http, package, batch):
                        slots += limit.wait().granted
                link.tell(Sent(sum(map(len, batches.values())), len(batches), slots))
            elif finished:
                return
            else:
                link.finished(_IDLE)


def _post(http: HTTPConnection, package: str, batch: list[Action]) -> bool:
    http.request("POST", "/", json.dumps({"package": package, "actions": batch}))
    answer = http.getresponse()
    answer.read()
    if answer.status not in (200, 429):
        raise RedisqError(f"the endpoint answered {answer.status} to {len(batch)} actions of {package}")
    return answer.status == 200


class Batching:
    """Keep the job's books."""

    def __init__(self, client: redis.Redis, run: str, endpoint: Endpoint) -> None:
        self.buffer = buffer(client, run)
        self.endpoint = endpoint
        self.pushed: Counter[str] = Counter()
        """How often each action was pushed: once."""
        self.files = self.found = self.sent = self.batches = self.slots = 0

    def heard(self, message: Found | Sent) -> None:
        """Book what a process tells."""
        if isinstance(message, Found):
            self.pushed.update(message.ids)
            self.found += len(message.ids)
            self.files += 1
        else:
            self.sent += message.actions
            self.batches += message.batches
            self.slots += message.slots

    def line(self) -> Line:
        """Close the job's books: what is done is what the endpoint received, not what the flushers told."""
        waiting = self.buffer.stats().waiting
        return Line("batching", "sent", self.pushed, self.endpoint.received, waiting, self.endpoint.refused)

    def faults(self) -> Iterator[str]:
        """Name what is wrong beyond the counts."""
        if self.endpoint.malformed:
            yield f"{self.endpoint.malformed} requests were not a batch of one package"
        for finding in self.buffer.audit().findings:
            yield f"audit of the buffer: {finding}"
