"""A small worker of mails, which every file of this folder runs.

    python jobs.py 100  # push a hundred
    redisq worker jobs:worker --burst

Put your own in its place: `worker` is called with a client of the server in $REDIS_URL, and returns a Worker.
"""

import logging
import os
import sys
from typing import Any

import redis

from redisq import Batch, Buffer, Worker

logger = logging.getLogger("jobs")


def mails(client: redis.Redis) -> Buffer[dict[str, Any]]:
    """Return the queue."""
    return Buffer(client, "mails", max_attempts=5)


def send(batch: Batch[dict[str, Any]]) -> None:
    """Send all mails of a batch with one request."""
    logger.info("%d mails to %s", len(batch.items), batch.group)


def worker(client: redis.Redis) -> Worker[dict[str, Any]]:
    """Return the worker: `redisq worker jobs:worker` calls this once in each process."""
    return Worker(mails(client), send, size=20, concurrency=4)


def main() -> None:
    """Push as many mails as the command line says."""
    count = int(sys.argv[1])
    with redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://localhost:6379/0")) as client:
        for number in range(count):
            mails(client).push({"number": number, "to": f"user-{number}"}, group=f"list-{number % 3}")


if __name__ == "__main__":
    main()
