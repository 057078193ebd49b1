"""Push to a queue that Ruby and Node push to, or work on it beside them: the Python side of `test_interop.py`.

    python -m tests.languages.interop_worker SOCKET QUEUE buffer|priority push|work|pause|resume|wait COUNT SEED

A worker writes `BEGIN <items>` before it acks these and `DONE <how many>` after it, and goes on until its input ends.
Who waits writes why the queue is paused, waits for a batch, woken by nothing but a wake-up, and writes its items.
"""

from __future__ import annotations

import json
import random
import sys
import threading
from collections.abc import Callable
from typing import Any

import redis

from redisq import Buffer, LeaseLost, PriorityQueue

Queue = Buffer[Any] | PriorityQueue[str]

LEASE = 2.0
WINDOW = 600.0  # longer than a test runs: it reads there how each lease ended


def open_queue(structure: str, client: redis.Redis, name: str) -> Queue:
    """Give the queue as all of the processes have it."""
    if structure == "buffer":
        return Buffer(client, name, lease=LEASE, dedup_window=WINDOW)
    return PriorityQueue(client, name, lease=LEASE, dedup_window=WINDOW)


def push(queue: Queue, count: int, chance: random.Random) -> None:
    """Push so many items, 1 to 50 a call."""
    first = 0
    while first < count:
        numbers = range(first, min(first + chance.randint(1, 50), count))
        if isinstance(queue, Buffer):
            queue.push(*({"from": "python", "n": n} for n in numbers), group=f"g{chance.randrange(10)}")
        else:
            queue.push_many((f"python-{n}", n % 7, {"n": n}) for n in numbers)
        first = numbers.stop


def work(queue: Queue, chance: random.Random, ended: Callable[[], bool]) -> None:
    """Reserve and ack, let some fail, give some back and leave some to their lease, as if this worker had died."""
    while not ended():
        batch = queue.reserve(chance.randint(1, 50), timeout=0.5)
        if not batch:
            continue
        if isinstance(queue, PriorityQueue):
            assert [f"-{payload['n']}" for payload in batch.payloads or ()] == [
                item[item.index("-") :] for item in batch.items
            ]
        share = chance.random()
        try:
            if share < 0.1:
                batch.release(count=share < 0.05, reason="python")
            elif share >= 0.15:
                done = batch.items
                if share < 0.25 and len(done) > 1:
                    batch.fail_at(0, reason="python")
                    done = done[1:]
                print("BEGIN", json.dumps(done), flush=True)
                print("DONE", batch.ack(), flush=True)
        except LeaseLost:  # somebody was stopped for longer than the lease
            if share >= 0.15:
                print("DONE 0", flush=True)


class Sleeping(redis.Redis):
    """A client whose waits nothing but a wake-up ends."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        waits = args[0] == "BLPOP"
        reply = super().execute_command(*args[:2], *(("60",) if waits else args[2:]), **options)  # type: ignore[no-untyped-call]
        assert reply or not waits, "no wake-up came"
        return reply


def wait(queue: Queue) -> None:
    """Write why the queue is paused, and the batch that comes then."""
    print(queue.stats().pause_reason, flush=True)
    batch = queue.reserve(timeout=60)
    assert batch
    print(json.dumps(batch.items), flush=True)


def main() -> None:
    """Do what the command line says."""
    socket, name, structure, role, count, seed = sys.argv[1:]
    chance = random.Random(int(seed))
    with (Sleeping if role == "wait" else redis.Redis)(unix_socket_path=socket) as client:
        queue = open_queue(structure, client, name)
        match role:
            case "push":
                push(queue, int(count), chance)
            case "pause":
                queue.pause(reason="python: é")
            case "resume":
                print(str(queue.resume()).lower())
            case "wait":
                wait(queue)
            case _:
                reader = threading.Thread(target=sys.stdin.read, daemon=True)
                reader.start()
                work(queue, chance, lambda: not reader.is_alive())


if __name__ == "__main__":
    main()
