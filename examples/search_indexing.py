"""Keep a full-text index of a folder, as its files change: each file waits once, and an edit overtakes the bulk.

    python examples/search_indexing.py FOLDER search.db  # until Ctrl-C
    python examples/search_indexing.py FOLDER search.db --until-empty --search "redis queue"

Start it several times, on as many machines as see the folder: two workers never hold a file at once, and what a
killed one held comes back when its lease runs out. The server is $REDIS_URL, by default the one on this machine.
"""

import argparse
import contextlib
import os
import sqlite3
import threading
import time
from pathlib import Path

import redis

from redisq import Batch, PriorityQueue, Worker

EDITED, BULK = 0, 10


def open_index(path: Path) -> sqlite3.Connection:
    """Open the index; it is made on first use."""
    index = sqlite3.connect(path, timeout=30)
    index.execute("CREATE TABLE IF NOT EXISTS files (id INTEGER PRIMARY KEY, name TEXT UNIQUE)")
    index.execute("CREATE VIRTUAL TABLE IF NOT EXISTS texts USING fts5(text)")
    return index


def main() -> None:
    """Feed the queue from one thread, and work it off in this one."""
    parser = argparse.ArgumentParser(description="Keep a full-text index of a folder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("index", type=Path)
    parser.add_argument("--until-empty", action="store_true", help="end when every file is indexed")
    parser.add_argument("--search", metavar="WORDS", help="at the end, print the best ten files")
    args = parser.parse_args()
    client = redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://localhost:6379/0"))
    queue = PriorityQueue(client, "search-indexing", max_attempts=5)

    def index_files(batch: Batch[str]) -> None:
        with contextlib.closing(open_index(args.index)) as index, index:  # one transaction, then the ack
            for name in batch.items:
                index.execute("INSERT OR IGNORE INTO files (name) VALUES (?)", (name,))
                (row,) = index.execute("SELECT id FROM files WHERE name = ?", (name,)).fetchone()
                index.execute("DELETE FROM texts WHERE rowid = ?", (row,))
                with contextlib.suppress(FileNotFoundError):  # deleted: it leaves the index
                    text = (args.folder / name).read_text("utf-8", errors="replace")
                    index.execute("INSERT INTO texts (rowid, text) VALUES (?, ?)", (row, text))

    worker = Worker(queue, index_files, size=50)

    def feed() -> None:
        seen: dict[str, int] = {}
        while True:
            now: dict[str, int] = {}
            for path in filter(Path.is_file, args.folder.rglob("*")):
                with contextlib.suppress(FileNotFoundError):  # deleted a moment ago
                    now[str(path.relative_to(args.folder))] = path.stat().st_mtime_ns
            changed = {name for name, _ in now.items() ^ seen.items()}  # new, edited or deleted since the last look
            queue.push_many(dict.fromkeys(changed, EDITED if seen else BULK))
            seen, held = now, queue.stats()
            if args.until_empty and not held.waiting + held.leased + held.delayed:
                return worker.stop()
            time.sleep(0.5)

    threading.Thread(target=feed, daemon=True).start()
    worker.run()
    count = "SELECT count(*) || ' files indexed' FROM texts"
    search = "SELECT name FROM texts JOIN files ON id = texts.rowid WHERE texts MATCH ? ORDER BY rank LIMIT 10"
    with contextlib.closing(open_index(args.index)) as index:
        found = index.execute(search, (args.search,)) if args.search else index.execute(count)
        print(*(line for (line,) in found), sep="\n")


if __name__ == "__main__":
    main()
