"""The demo: both queues at work on the standard library's source, several processes each, and a tally at the end."""

from __future__ import annotations

import contextlib
import math
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import redis
from rich.console import Console

from .. import embedded
from ..core.errors import RedisqError
from . import batching, corpus, indexing
from .batching import Batching, Found, Sent
from .display import Display, say, show_requests, show_search, show_tally, show_waits
from .endpoint import Endpoint
from .indexing import Index, Indexed, Indexing
from .interrupts import Interrupts
from .processes import Held, Processes, Ready
from .tally import Tally

CONSUMERS = 3
FINDERS = 2
_EDIT_EVERY = 0.04  # seconds
_FEWEST_EDITS = 10
_KILL_AFTER = 2  # things done, and one process of the job is killed over its next
_LOOK_EVERY = 0.05  # seconds
_SEARCH = "priority queue"
_TIMEOUT = 10.0  # seconds for an answer of the server: no Ctrl-C ends the wait for it


def run(url: str | None = None, files: int = 500, console: Console | None = None) -> int:
    """Do both jobs on up to `files` source files and return the exit code: 0 if everything is accounted for, else 1.

    Without a `url` on a private server; on one of your own it uses queues with new names, and empties them at the end.
    Raises `RedisqError` when there is no server, a process fails, or this Python lacks what the demo needs.
    """
    console = console or Console()
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        interrupts = stack.enter_context(Interrupts())
        server = stack.enter_context(embedded.server(url))
        interrupts.check()
        client = stack.enter_context(contextlib.closing(_connect(server)))
        interrupts.check()
        temporary = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="redisq-demo-")))
        directory, index_file = temporary / "source", temporary / "index.db"
        paths = corpus.copy(directory, files)
        say(console, f"Server: {server.description}")
        say(console, f"Input: {len(paths)} source files of the standard library of Python {sys.version.split()[0]}")

        interrupts.check()
        index = stack.enter_context(contextlib.closing(Index(index_file)))
        index.create()
        endpoint = stack.enter_context(Endpoint(batching.LIMIT, batching.PER))
        run_id = uuid.uuid4().hex[:8]
        first = Indexing(client, run_id, directory, index, paths)
        second = Batching(client, run_id, endpoint)
        stack.enter_context(_emptied(first, second))
        processes = stack.enter_context(Processes())
        for part in range(FINDERS):
            processes.start(1, "finder", batching.find, server.url, run_id, directory, paths[part::FINDERS])
        processes.start(CONSUMERS, "indexer", indexing.consume, server.url, run_id, directory, index_file)
        processes.start(batching.FLUSHERS, "flusher", batching.flush, server.url, run_id, endpoint.port)
        with Display(console, first, second) as display:
            _work(processes, first, second, display, interrupts)

        tally = Tally([first.tally_line(), second.tally_line()], [*first.faults(), *second.faults()])
        show_waits(console, first)
        show_search(console, _SEARCH, index.search(_SEARCH))
        show_search(console, *first.last_edit_search())
        show_requests(console, second)
        show_tally(console, tally)
    say(console, f"{time.monotonic() - began:.1f} seconds in all.")
    return 0 if tally.complete else 1


def _work(processes: Processes, first: Indexing, second: Batching, display: Display, interrupts: Interrupts) -> None:
    """Receive from the processes, push edits meanwhile, and kill one process of each job, until all is done."""
    starting = FINDERS + CONSUMERS + batching.FLUSHERS
    most_edits = max(_FEWEST_EDITS, len(first.files) // 4)
    next_edit, next_look = math.inf, 0.0
    victims = {"indexer", "flusher"}
    while processes.at_work():
        interrupts.check()
        now = time.monotonic()
        for message in processes.receive(max(0.0, min(next_edit, next_look, now + 0.5) - now)):
            if isinstance(message, Ready):
                starting -= 1
                if not starting:  # pushed earlier, the bulk would wait for processes to start, not for its turn
                    first.push_all()
                    next_edit = time.monotonic()
            elif isinstance(message, Indexed):
                first.record(message)
            elif isinstance(message, (Found, Sent)):
                second.record(message)
            elif isinstance(message, Held) and message.role == "indexer":
                first.record_kill(message)
        display.tick()
        if starting:
            continue
        if time.monotonic() >= next_edit:
            more = first.edits < _FEWEST_EDITS or (first.edits < most_edits and first.indexed < len(first.files))
            next_edit = time.monotonic() + _EDIT_EVERY if more else math.inf
            if more:
                first.edit()
        for role, begun in (("indexer", first.indexed), ("flusher", second.batches)):
            if role in victims and begun >= _KILL_AFTER:
                victims.remove(role)
                processes.hold(role)
        if time.monotonic() >= next_look:
            next_look = time.monotonic() + _LOOK_EVERY
            if next_edit == math.inf and not first.waiting():
                processes.finish("indexer")
            if not processes.at_work("finder") and not second.waiting():
                processes.finish("flusher")


def _connect(server: embedded.Endpoint) -> redis.Redis:
    try:
        client = redis.Redis.from_url(server.url, socket_connect_timeout=_TIMEOUT, socket_timeout=_TIMEOUT)
        client.connection_pool.make_connection()  # nothing is sent: an unknown option is found here
    except (ValueError, TypeError):
        # Their own messages may quote a piece of the password.
        place = embedded.redacted(server.url)
        raise RedisqError(f"{place} is not the URL of a Redis server: give {embedded.URLS}") from None
    try:
        client.ping()
    except (redis.ConnectionError, redis.TimeoutError) as error:
        client.close()
        raise RedisqError(f"no server at {embedded.redacted(server.url)}: {error}") from error
    return client


@contextlib.contextmanager
def _emptied(first: Indexing, second: Batching) -> Iterator[None]:
    """Leave nothing in the queues; what is remembered of calls expires by itself within seconds."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(redis.RedisError, RedisqError):  # the first error tells more than one that follows
            first.queue.purge()
            second.buffer.purge()
        raise
    first.queue.purge()
    second.buffer.purge()
