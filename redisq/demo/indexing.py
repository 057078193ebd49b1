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

from .. import Batch, PriorityQueue, Pushed, Worker
from ..core.errors import RedisqError
from . import corpus
from .processes import Channel, Held
from .tally import Line

EDIT, BULK = 0, 10
_LEASE = 2.0  # seconds after which what a killed process held comes back


def queue(client: redis.Redis, run: str) -> PriorityQueue[str]:
    """Return the queue of paths that all of the job's processes share."""
    return PriorityQueue(client, f"demo-index-{run}", lease=_LEASE, dedup_window=15)


class Index:
    """Search source files in SQLite FTS5; any number of processes write to one index."""

    def __init__(self, file: Path) -> None:
        # Autocommit, so that BEGIN and COMMIT stand where they are written below. A worker calls from a thread of its
        # own, one at a time.
        self._db = sqlite3.connect(file, timeout=60, isolation_level=None, check_same_thread=False)
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
        ((row,),) = self._db.execute("SELECT id FROM files WHERE path = ?", (path,))
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
        """Return the size of each file as the index has it."""
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
    """The message that a file was handed out, and is indexed now."""

    path: str
    priority: float
    attempts: int
    began: float
    """When, on this machine's monotonic clock, which all its processes share."""


def consume(channel: Channel, url: str, run: str, directory: Path, index_file: Path) -> None:
    """Index files until all is done."""

    def handle(batch: Batch[str]) -> None:
        began = time.monotonic()
        (path,), (priority,) = batch.items, batch.priorities or [BULK]
        index.put(path, (directory / path).read_bytes())
        channel.hold_if_told([path])
        channel.send(Indexed(path, priority, batch.attempts, began))

    with contextlib.closing(redis.Redis.from_url(url)) as client, contextlib.closing(Index(index_file)) as index:
        channel.work(Worker(queue(client, run), handle, size=1, grace=5))


class Indexing:
    """What pushes the files and the edits, and keeps the job's counts."""

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
        self.again: Counter[str] = Counter()
        """Files that were handed out again, because the process that held them was killed."""
        self._delivered: Counter[str] = Counter()
        self._held_by_killed = ""
        """The file that a killed process holds, until its lease runs out."""
        self._edited_while_held = False
        """Whether it was edited meanwhile."""

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
        # Not the file that a killed process holds: pushed now, it would come back once for both pushes.
        self._last = path = random.choice([path for path in self.files if path != self._held_by_killed])
        with (self._directory / path).open("a") as file:
            file.write(f"\n# {self._marker(self.edits + 1)}\n")
        now = time.monotonic()
        outcome = self.queue.push(path, EDIT)
        self.outcomes[outcome] += 1
        # An edit of a file that waits adds nothing to the queue: RAISED, it takes the bulk's place at the front; KEPT,
        # the edit before it is still there and will bring both. Only ADDED is one delivery more.
        if outcome is Pushed.ADDED:
            self.pushed[path] += 1
        # One that waits to be due, such as after an edit while it was leased, is RAISED once more, and stays one.
        if outcome is Pushed.ADDED or (outcome is Pushed.RAISED and not self._edits_pushed[path]):
            self._edits_pushed[path].append(now)

    def record(self, message: Indexed) -> None:
        """Count what a consumer reports."""
        self.indexed += 1
        self._delivered[message.path] += 1
        pushed = [self._bulk_pushed] if message.priority == BULK else self._edits_pushed[message.path]
        waited = message.began - pushed.pop(0) if pushed else 0.0
        edited_while_held = message.path == self._held_by_killed and self._edited_while_held
        if message.attempts > 1 or edited_while_held:  # how long that took, the lease says
            self.again[message.path] += max(1, message.attempts - 1)
            self._held_by_killed, self._edited_while_held = "", False
        else:
            self.waits[message.priority].append(waited)

    def record_kill(self, message: Held) -> None:
        """Note that a process is killed while it holds a file."""
        (self._held_by_killed,) = message.names
        if self.pushed[self._held_by_killed] > self._delivered[self._held_by_killed] + 1:
            # An edit that came while that process held it: noted, and merged with what comes back, with no attempts.
            self.pushed[self._held_by_killed] -= 1
            self._edited_while_held = True

    def waiting(self) -> int:
        """Ask the queue how many files are in it, in whatever state."""
        stats = self.queue.stats()
        return stats.waiting + stats.delayed + stats.leased + stats.dead

    def tally_line(self) -> Line:
        """Return the counts of the job; done is what the index says, not what the consumers report."""
        return Line("indexing", "indexed", self.pushed, self.index.times(), self.again, self.waiting())

    def faults(self) -> Iterator[str]:
        """Name what is wrong beyond the counts."""
        sizes = self.index.sizes()
        for path in self.files:
            if sizes.get(path) != (self._directory / path).stat().st_size:
                yield f"the index does not have the newest text of {path}"
        if self.edits and [path for path, _ in self.last_edit_search()[1]] != [self._last]:
            yield "a search does not find the last edit"
        for finding in self.queue.audit().findings:
            yield f"audit of the priority queue: {finding}"

    def last_edit_search(self) -> tuple[str, list[tuple[str, str]]]:
        """Search for what the last edit wrote; return the word and the hits."""
        word = self._marker(self.edits)
        return word, self.index.search(word)

    @staticmethod
    def _marker(number: int) -> str:
        return f"demoedit{number}"
