"""Remind customers of unpaid invoices a week after each was sent, with typed payloads and code that is easy to test.

    pip install 'redisq-lua[fast,embedded]'
    python examples/reminders.py

What is tested is at the top: a function that makes the queue, and a handler. `tests/project/test_examples.py` works the
queue off by `redisq.testing.drain` on a fake Redis, and moves its clock by weeks. The server is $REDIS_URL, by default
a private one that ends with the program. Needs msgspec, which `fast` brings, or pydantic.
"""

import argparse
import os
from dataclasses import dataclass
from functools import partial

import redis

from redisq import Batch, Bury, PriorityQueue, Retry, Typed, Worker
from redisq.embedded import server

WEEK = 7 * 24 * 3600.0


@dataclass
class Invoice:
    """What is known of an invoice when it is sent."""

    email: str
    amount: float


class MailServer:
    """Stands for a mail server that may be busy."""

    def __init__(self) -> None:
        self.busy = False
        self.sent: list[str] = []

    def send(self, email: str, text: str) -> None:
        """Send a mail, or raise while it is busy."""
        if self.busy:
            raise Retry(60, count=False, reason="the mail server is busy")
        self.sent.append(f"{email}: {text}")


def reminders(client: redis.Redis) -> PriorityQueue[str]:
    """Return the queue: an invoice's number, and the invoice as its payload."""
    return PriorityQueue(client, "reminders", payload_codec=Typed(Invoice), max_attempts=3)


def remind(mails: MailServer, batch: Batch[str]) -> None:
    """Send the reminder of each invoice."""
    for number, invoice in zip(batch.items, batch.payloads or [], strict=True):
        if "@" not in invoice.email:
            raise Bury(f"no address: {invoice.email}")
        mails.send(invoice.email, f"please pay {invoice.amount:.2f} for invoice {number}")


def main() -> None:
    """Send two invoices, one of which is paid in time."""
    parser = argparse.ArgumentParser(description="Remind customers of unpaid invoices.")
    parser.add_argument("--url", default=os.environ.get("REDIS_URL"), help="default: $REDIS_URL, else a private server")
    parser.add_argument("--delay", type=float, default=0.2, help="seconds until a reminder is due, not a week (0.2)")
    args = parser.parse_args()
    mails = MailServer()
    with server(args.url) as endpoint, redis.Redis.from_url(endpoint.url) as client:
        queue = reminders(client)
        queue.push("2026-1", delay=args.delay, payload=Invoice("anna@example.com", 20))
        queue.push("2026-2", delay=args.delay, payload=Invoice("ben@example.com", 99.5))
        queue.remove("2026-2")  # it is paid
        Worker(queue, partial(remind, mails), max_batches=1).run()
    print(*mails.sent, sep="\n")


if __name__ == "__main__":
    main()
