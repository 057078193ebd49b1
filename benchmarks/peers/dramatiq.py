"""dramatiq: an actor on `RedisBroker`, and the `dramatiq` program."""

from __future__ import annotations

import time
from collections.abc import Iterator

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks.peers.contract import MODE, URL, command, main, record

broker = RedisBroker(url=URL)
dramatiq.set_broker(broker)
handle = dramatiq.actor(record)


def push(items: Iterator[int]) -> float:
    """Send the actor a message for each item."""
    broker.client.ping()
    start = time.perf_counter()
    for item in items:
        handle.send(item)
    return time.perf_counter() - start


def work() -> None:
    """Run one worker process, with one thread or with the default 8."""
    threads = MODE.partition(" ")[0]
    command("dramatiq", "benchmarks.peers.dramatiq", "--processes", "1", "--threads", threads)


if __name__ == "__main__":
    main(push, work)
