"""Job 1, search indexing: a full re-index at low priority, and edits that overtake it."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import redis

from .. import PriorityQueue, Pushed
from ..errors import RedisqError
from . import corpus
from .account import Line
from .crew import Link

EDIT, BULK = 0, 10
_IDLE = 0.02  # seconds between two looks at an empty queue: `pop` does not wait


def queue(client: redis.Redis, run: str) -> PriorityQueue[str]:
    """Give the queue of paths that all of the job's processes share."""
    return PriorityQueue(client, f"demo-index-{run}", dedup_window=15)


class Index:
    """Search source files in SQLite FTS5; any number of processes write to one index."""

    def __init__(self, file: Path) -> None:
        # Autocommit, so that BEGIN and COMMIT stand where they are written below.
        self._db = sqlite3.connect(file, timeout=60, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")

    def create(self) -> None:
        """Make the tables. Raises `RedisqError` where SQLite was built without FTS5."""
        self._db.execute("CREATE TABLE files (id INTEGER PRIMARY KEY, path UNIQUE, size INT, times INT DEFAULT 1)")
        try:
            self._db.execute("CREATE VIRTUAL TABLE search USING fts5 (path, names, body)")
        except sqlite3.OperationalError as error:
            raise RedisqError(f"this Python's SQLite cannot do full-text search: {error}") from error

    def put(self, path: str, source: bytes) -> None:
        """Index a file, or index it again."""
        names = " ".join(found["name"] for found in corpus.definitions(path, source))
        self._db.execute("BEGIN IMMEDIATE")
        self._db.execute(
            "INSERT INTO files (path, size) VALUES (?, 0) ON CONFLICT (path) DO UPDATE SET times = times + 1", (path,)
        )
        ((row, size),) = self._db.execute("SELECT id, size FROM files WHERE path = ?", (path,))
        # An edit may be popped while the file as it was is still being parsed here: a popped member is nobody's, and so
        # may be in two hands. The older text must not win; edits append, so the longer is the newer.
        if len(source) > size:
            text = source.decode(errors="replace")
            self._db.execute(
                "INSERT OR REPLACE INTO search (rowid, path, names, body) VALUES (?, ?, ?, ?)", (row, path, names, text)
            )
            self._db.execute("UPDATE files SET size = ? WHERE id = ?", (len(source), row))
        self._db.execute("COMMIT")

    def times(self) -> Counter[str]:
        """Count how often each file was indexed."""
        return Counter(dict(self._db.execute("SELECT path, times FROM files")))

    def sizes(self) -> dict[str, int]:
        """Give the size of each file as the index has it."""
        return dict(self._db.execute("SELECT path, size FROM files"))

    def search(self, words: str, limit: int = 3) -> list[tuple[str, str]]:
        """Find the best files for some words, with the place in each; a name that a file defines counts most."""
        found = self._db.execute(
            "SELECT path, snippet(search, -1, '', '', '…', 7) FROM search WHERE search MATCH ?"
            " ORDER BY bm25(search, 5, 10, 1) LIMIT ?",
            (words, limit),
        )
        return [(path, " ".join(place.split())) for path, place in found]

    def close(self) -> None:
        """Close the database."""
        self._db.close()


class Indexed(NamedTuple):
    """Tell that a file was popped, and is indexed now."""

    path: str
    priority: float
    popped: float
    """When, on this machine's monotonic clock, which all its processes share."""


def consume(link: Link, url: str, run: str, directory: Path, index_file: Path) -> None:
    """Pop files and index them until no more come."""
    with contextlib.closing(redis.Redis.from_url(url)) as client, contextlib.closing(Index(index_file)) as index:
        files = queue(client, run)
        while True:
            finished = link.finished()  # asked first: what is empty after that stays empty
            item = files.pop()
            if item:
                popped = time.monotonic()
                index.put(item.member, (directory / item.member).read_bytes())
                link.tell(Indexed(item.member, item.priority, popped))
            elif finished:
                return
            else:
                link.finished(_IDLE)


class Indexing:
    """Push the files and the edits, and keep the job's books."""

    def __init__(self, client: redis.Redis, run: str, directory: Path, index: Index, files: list[str]) -> None:
        self.queue = queue(client, run)
        self.files = files
        self.index = index
        self.pushed: Counter[str] = Counter()
        """How often each file was added to the queue."""
        self.outcomes: Counter[Pushed] = Counter()
        """What the pushes of edits did."""
        self.indexed = 0
        self.waits: dict[float, list[float]] = {EDIT: [], BULK: []}
        """Seconds from push to pop, by priority."""
        self._directory = directory
        self._bulk_pushed = 0.0
        self._edits_pushed: dict[str, list[float]] = {path: [] for path in files}
        self._last = ""

    @property
    def edits(self) -> int:
        """Count the edits so far."""
        return self.outcomes.total()

    def push_all(self) -> None:
        """Ask for a full re-index."""
        self._bulk_pushed = time.monotonic()
        outcomes = self.queue.push_many((path, BULK) for path in self.files)
        if outcomes != {Pushed.ADDED: len(self.files)}:
            raise RedisqError(f"a full re-index of {len(self.files)} files was pushed, and the queue says {outcomes}")
        self.pushed.update(self.files)

    def edit(self) -> None:
        """Edit a file, and ask for it to be indexed before all others."""
        self._last = path = random.choice(self.files)
        with (self._directory / path).open("a") as file:
            file.write(f"\n# {self._marker(self.edits + 1)}\n")
        now = time.monotonic()
        outcome = self.queue.push(path, EDIT)
        self.outcomes[outcome] += 1
        # An edit of a file that waits adds nothing to the queue: RAISED, it takes the bulk's place at the front; KEPT,
        # the edit before it is still there and will bring both. Only ADDED is one delivery more.
        if outcome is Pushed.ADDED:
            self.pushed[path] += 1
        if outcome is not Pushed.KEPT:
            self._edits_pushed[path].append(now)

    def heard(self, message: Indexed) -> None:
        """Book what a consumer tells."""
        self.indexed += 1
        pushed = [self._bulk_pushed] if message.priority == BULK else self._edits_pushed[message.path]
        if pushed:  # else it came without a push: the account will say so
            self.waits[message.priority].append(message.popped - pushed.pop(0))

    def waiting(self) -> int:
        """Ask the queue how many files wait."""
        return self.queue.stats().waiting

    def line(self) -> Line:
        """Close the job's books: what is done is what the index says, not what the consumers told."""
        return Line("search indexing", "indexed", self.pushed, self.index.times(), self.waiting())

    def faults(self) -> Iterator[str]:
        """Name what is wrong beyond the counts."""
        sizes = self.index.sizes()
        for path in self.files:
            if sizes.get(path) != (self._directory / path).stat().st_size:
                yield f"the index has not the newest text of {path}"
        if self.edits and [path for path, _ in self.last_edit_search()[1]] != [self._last]:
            yield "a search does not find the last edit"
        for finding in self.queue.audit().findings:
            yield f"audit of the priority queue: {finding}"

    def last_edit_search(self) -> tuple[str, list[tuple[str, str]]]:
        """Search for what the last edit wrote; give the word and the hits."""
        word = self._marker(self.edits)
        return word, self.index.search(word)

    @staticmethod
    def _marker(number: int) -> str:
        return f"demoedit{number}"
