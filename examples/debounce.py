"""Rebuild the index of a document once its edits have stopped for a while, not after each of them.

    pip install 'redisq-lua[embedded]'
    python examples/debounce.py

An edit during a rebuild starts the wait anew, too: then there is one more rebuild, and two workers never have the same
document at once. The server is $REDIS_URL, by default a private one that ends with the program.
"""

import argparse
import os
import threading
import time

import redis

from redisq import Batch, PriorityQueue, Worker
from redisq.embedded import server

QUIET = 0.5  # seconds without an edit; outside an example 5, say


def main() -> None:
    """Edit a document in one thread, and rebuild its index in this one."""
    parser = argparse.ArgumentParser(description="Rebuild the index of a document once its edits have stopped.")
    parser.add_argument("--url", default=os.environ.get("REDIS_URL"), help="default: $REDIS_URL, else a private server")
    url = parser.parse_args().url
    rebuilding, edited = threading.Event(), threading.Event()
    rebuilt: list[int] = []

    def log(line: str) -> None:
        print(f"{time.monotonic() - start:5.2f} s  {line}", flush=True)

    with server(url) as endpoint, redis.Redis.from_url(endpoint.url) as client:
        index: PriorityQueue[str] = PriorityQueue(client, "debounce")
        start = time.monotonic()

        def edit(document: str, revision: int) -> None:
            # Without replace=True the earliest time would win: QUIET seconds after the first edit.
            index.push(document, delay=QUIET, replace=True, payload={"revision": revision})
            log(f"edit {document}, revision {revision}; it is {index.state(document).value}")

        def edit_all() -> None:
            for revision in range(1, 7):
                edit("guide.md", revision)
                time.sleep(QUIET / 4)
            rebuilding.wait()
            edit("guide.md", 7)
            edited.set()
            while (held := index.stats()).waiting + held.leased + held.delayed:
                time.sleep(0.05)
            worker.stop()

        def rebuild(batch: Batch[str]) -> None:
            for document, payload in zip(batch.items, batch.payloads or [], strict=True):
                log(f"rebuild {document}, revision {payload['revision']}")
                rebuilt.append(payload["revision"])
            rebuilding.set()
            edited.wait()  # a rebuild takes its time; here until the last edit has come

        worker = Worker(index, rebuild)
        threading.Thread(target=edit_all, daemon=True).start()
        worker.run()
        log(f"7 edits, {len(rebuilt)} rebuilds")


if __name__ == "__main__":
    main()
