"""The bytes that queues take on a server: `python -m benchmarks.sizing`.

Each case makes some thousands of one thing on an emptied server, and compares the memory in use before and after. The
documentation's page on sizing has the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import redis

from benchmarks import report
from benchmarks.measure import environment, private_server, write
from redisq import Buffer, PriorityQueue, Rate, RateLimiter

ITEM = "x" * 98  # 100 bytes as JSON
SMALL = "x"
REASON = "a reason of thirty characters"
NONE: dict[str, Any] = {"dedup_window": 0}

Act = Callable[[], object]
"""What is measured, once its case has prepared the server."""


def _members(count: int) -> list[str]:
    return [f"document:{number:08d}" for number in range(count)]  # 17 bytes each


def _waiting(client: redis.Redis, count: int) -> Act:
    buffer: Buffer[str] = Buffer(client, "q", **NONE)
    return lambda: buffer.push_many([ITEM] * count)


def _groups(client: redis.Redis, count: int) -> Act:
    buffer: Buffer[str] = Buffer(client, "q", **NONE)
    return lambda: [buffer.push(SMALL, group=f"group:{number:08d}") for number in range(count)]


def _leased(size: int) -> Callable[[redis.Redis, int], Act]:
    def prepare(client: redis.Redis, count: int) -> Act:
        buffer: Buffer[str] = Buffer(client, "q", **NONE)
        buffer.push_many([SMALL] * (count * size))
        return lambda: [buffer.reserve(size, lease=3600) for _ in range(count)]

    return prepare


def _dead_letters(client: redis.Redis, count: int) -> Act:
    buffer: Buffer[str] = Buffer(client, "q", max_dead=None, **NONE)
    buffer.push_many([SMALL] * count)
    return lambda: [batch.bury(REASON) for batch in buffer.reserve_many(count, 1)]


def _ready(payload: str | None = None) -> Callable[[redis.Redis, int], Act]:
    def prepare(client: redis.Redis, count: int) -> Act:
        queue: PriorityQueue[str] = PriorityQueue(client, "q", **NONE)
        return lambda: queue.push_many((member, 5, payload) for member in _members(count))

    return prepare


def _in_leases(then: str = "") -> Callable[[redis.Redis, int], Act]:
    def prepare(client: redis.Redis, count: int) -> Act:
        queue: PriorityQueue[str] = PriorityQueue(client, "q", max_dead=None, **NONE)

        def act() -> None:
            queue.push_many((member, 5) for member in _members(count))
            batches = queue.reserve_many(count // 100, 100, lease=3600)
            if then == "bury":
                queue.bury(*batches, reason=REASON)

        return act

    return prepare


def _remembered(token: str = "") -> Callable[[redis.Redis, int], Act]:
    def prepare(client: redis.Redis, count: int) -> Act:
        buffer: Buffer[str] = Buffer(client, "q", dedup_window=3600)
        made: Iterator[str | None] = (token % number if token else None for number in range(count))
        return lambda: [buffer.push(SMALL, token=one) for one in made]

    return prepare


def _acked(client: redis.Redis, count: int) -> Act:
    buffer: Buffer[str] = Buffer(client, "q", dedup_window=3600)
    pushed: Buffer[str] = Buffer(client, "q", **NONE)

    def act() -> None:
        # Each is pushed, taken and acked by itself, so that nothing stays but what is remembered of the ack.
        for _ in range(count):
            pushed.push("")
            batch = pushed.reserve()
            assert batch is not None
            buffer.ack(batch)

    return act


def _grants(client: redis.Redis, count: int) -> Act:
    limiter = RateLimiter(client, "q", Rate(10**6, per=3600), **NONE)
    return lambda: [limiter.acquire() for _ in range(count)]


def _empty(client: redis.Redis, count: int) -> Act:
    def act() -> None:
        for number in range(count):
            buffer: Buffer[str] = Buffer(client, f"queue:{number:05d}", **NONE)
            buffer.push(SMALL)
            buffer.pop()

    return act


CASES: tuple[tuple[str, Callable[[redis.Redis, int], Act], int, int], ...] = (
    ("buffer: a waiting item, beside its own bytes", _waiting, 50_000, 100),
    ("buffer: a group with one small item, its name of 14 bytes included", _groups, 10_000, 0),
    ("buffer: a lease of one small item", _leased(1), 5_000, 0),
    ("buffer: a lease of 100 small items, which have left their group", _leased(100), 1_000, 0),
    ("buffer: a dead letter of one small item, beside the item", _dead_letters, 1_000, 0),
    ("priority queue: a ready member of 17 bytes, its own included", _ready(), 50_000, 0),
    ("priority queue: the same with a payload of 100 bytes", _ready(ITEM), 50_000, 0),
    ("priority queue: the member alone, in a lease of 100", _in_leases(), 50_000, 0),
    ("priority queue: the member alone, dead", _in_leases("bury"), 50_000, 0),
    ("for `dedup_window`: a push of one small item, with the item", _remembered(), 10_000, 0),
    ("for `dedup_window`: the same with a `token` of 14 bytes", _remembered("order-%08d"), 10_000, 0),
    ("for `dedup_window`: the end of a lease", _acked, 10_000, 0),
    ("for the longest span of the rates: a grant", _grants, 10_000, 0),
    ("for seven days: an empty queue", _empty, 2_000, 0),
)
"""What is measured, how it is prepared, how many there are, and what is not counted of each."""


def run() -> dict[str, Any]:
    """Measure every case on one private server."""
    rows = []
    with private_server() as server, server.client() as client:
        facts = environment(server)
        for name, prepare, count, own in CASES:
            client.flushall()
            act = prepare(client, count)
            before = client.info("memory")["used_memory"]
            act()
            after = client.info("memory")["used_memory"]
            rows.append({"what": name, "bytes": round((after - before) / count - own), "count": count})
    return {"environment": facts, "results": rows}


def main() -> None:
    """Measure, and write the result and the documentation's table."""
    write("sizing", run())
    report.write()
    print(report.sizing())


if __name__ == "__main__":
    main()
