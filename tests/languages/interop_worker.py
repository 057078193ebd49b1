"""Push to a queue that is shared with Ruby and Node, or process it: the Python side of `test_interop.py`.

    python -m tests.languages.interop_worker SOCKET QUEUE buffer|priority push|work|pause|resume|wait COUNT SEED

`work` prints `BEGIN <items>` before it acks these items and `DONE <how many>` after it, and goes on until its input
ends. `wait` prints the reason of the queue's pause, waits until a wake-up brings it a batch, and prints its items.
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
WINDOW = 600.0  # seconds, longer than a test runs, which reads how each lease ended


def open_queue(structure: str, client: redis.Redis, name: str) -> Queue:
    """Return the queue, with the settings that all processes use."""
    if structure == "buffer":
        return Buffer(client, name, lease=LEASE, dedup_window=WINDOW)
    return PriorityQueue(client, name, lease=LEASE, dedup_window=WINDOW)


def push(queue: Queue, count: int, chance: random.Random) -> None:
    """Push this many items, 1 to 50 a call."""
    first = 0
    while first < count:
        numbers = range(first, min(first + chance.randint(1, 50), count))
        if isinstance(queue, Buffer):
            queue.push(*({"from": "python", "n": n} for n in numbers), group=f"g{chance.randrange(10)}")
        else:
            queue.push_many((f"python-{n}", n % 7, {"n": n}) for n in numbers)
        first = numbers.stop


def work(queue: Queue, chance: random.Random, ended: Callable[[], bool]) -> None:
    """Reserve and ack; let some items fail, release some batches, and abandon others, as a crash would."""
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
        except LeaseLost:  # the worker was suspended for longer than its lease
            if share >= 0.15:
                print("DONE 0", flush=True)


class WakeUpOnlyClient(redis.Redis):
    """A client whose blocking reads have no timeout: only a wake-up ends them."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        waits = args[0] == "BLPOP"
        reply = super().execute_command(*args[:2], *(("60",) if waits else args[2:]), **options)  # type: ignore[no-untyped-call]
        assert reply or not waits, "no wake-up came"
        return reply


def wait(queue: Queue) -> None:
    """Print why the queue is paused, then the batch that comes after the pause."""
    print(queue.stats().pause_reason, flush=True)
    batch = queue.reserve(timeout=60)
    assert batch
    print(json.dumps(batch.items), flush=True)


def main() -> None:
    """Run the role that the command line names."""
    socket, name, structure, role, count, seed = sys.argv[1:]
    chance = random.Random(int(seed))
    with (WakeUpOnlyClient if role == "wait" else redis.Redis)(unix_socket_path=socket) as client:
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
