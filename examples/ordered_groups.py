"""Apply the events of each account strictly in order: three workers, a failure in the middle, and its retry.

    pip install 'redisq-lua[embedded]'
    python examples/ordered_groups.py
    python examples/ordered_groups.py --unordered  # what becomes of the order without `ordered=True`

The other accounts go on while one waits for its retry. The server is $REDIS_URL, by default a private one that ends
with the program.
"""

import argparse
import os
import threading
import time
from collections import defaultdict
from functools import partial

import redis

from redisq import Batch, Buffer, Worker, exponential
from redisq.embedded import server

ACCOUNTS, EVENTS = ("anna", "ben", "cleo"), range(1, 10)


def main() -> None:
    """Push the events, work them off, and look at the order in which each account had its own."""
    parser = argparse.ArgumentParser(description="Apply the events of each account in order.")
    parser.add_argument("--url", default=os.environ.get("REDIS_URL"), help="default: $REDIS_URL, else a private server")
    parser.add_argument("--unordered", action="store_true", help="make the buffer without ordered=True")
    args = parser.parse_args()
    ledger: defaultdict[str, list[int]] = defaultdict(list)
    outages = [("cleo", 2)]  # it fails once

    def apply(account: str, event: int) -> None:
        time.sleep(0.02)
        if (account, event) in outages:
            outages.remove((account, event))
            raise ConnectionError("the ledger does not answer")
        ledger[account].append(event)

    def handle(worker: str, batch: Batch[int]) -> None:
        again = f"  again, attempt {batch.attempts}: {batch.reason}" if batch.reason else ""
        print(f"{worker}  {batch.group}  {batch.items}{again}\n", end="", flush=True)
        for place, event in enumerate(batch.items):
            try:
                apply(str(batch.group), event)
            except ConnectionError as error:
                # What came before is done. This event and all after it come back together, before any later one.
                batch.fail_at(*range(place, len(batch.items)), reason=str(error))
                break

    with server(args.url) as endpoint, redis.Redis.from_url(endpoint.url) as client:
        events: Buffer[int] = Buffer(client, "ordered-groups", ordered=not args.unordered)
        for event in EVENTS:
            for account in ACCOUNTS:
                events.push(event, group=account)
        workers = [
            Worker(events, partial(handle, f"worker {n}"), size=3, backoff=exponential(first=0.5)) for n in (1, 2, 3)
        ]
        threads = [threading.Thread(target=worker.run, daemon=True) for worker in workers]
        for thread in threads:
            thread.start()
        while (held := events.stats()).waiting + held.leased + held.delayed:
            time.sleep(0.05)
        for worker, thread in zip(workers, threads, strict=True):
            worker.stop()
            thread.join()
    for account, applied in sorted(ledger.items()):
        print(f"{account}: {applied}{'' if applied == sorted(applied) else ', OUT OF ORDER'}")


if __name__ == "__main__":
    main()
