"""One valid call of each script, as the Python code makes it: the basis of the contract and raw tests."""

from __future__ import annotations

from typing import Any

from redisq import BYTES, BatchData, Rate
from redisq.core.buffer import BufferCalls
from redisq.core.calls import Call
from redisq.core.limiter import LimiterCalls
from redisq.core.priority import PriorityCalls


def _first(flow: Any) -> Call[Any]:
    return next(flow)


def calls(reserve: str = "l") -> dict[str, Call[Any]]:
    """Return a call for each script name; settlements name the lease `l`, a reserve has the given id."""
    buffer = BufferCalls("q", codec=BYTES)
    queue = PriorityCalls("q", codec=BYTES, order="score")
    limit = LimiterCalls("q", (Rate(3, 1), Rate(100, 60)))
    batch: BatchData[bytes] = BatchData("l", "g", [b"a"], 1, 0, [b"a"])
    made: list[Call[Any]] = [
        buffer.push([b"a", b"b"], "g"),
        buffer.pop("g", 2),
        buffer.pop_longest(2, 2),
        buffer.reserve(2, lease_id=reserve),
        buffer.ack(batch),
        buffer.release(batch),
        buffer.bury(batch),
        buffer.extend(batch),
        _first(buffer.redrive(["l"])),
        buffer.discard(["l"]),
        buffer.pause(60, "why"),
        buffer.resume(),
        buffer.pause_group("g", 60),
        buffer.resume_group("g"),
        _first(buffer.drop_group("g")),
        _first(buffer.peek("g")),
        _first(buffer.groups(2)),
        _first(buffer.dead()),
        _first(buffer.stats()),
        _first(buffer.audit()),
        _first(buffer.purge()),
        queue.push(b"a", 1.5),
        queue.pop_once(),
        queue.reserve(2, lease_id=reserve),
        queue.ack(batch),
        queue.release(batch),
        queue.bury(batch),
        queue.extend(batch),
        queue.redrive([b"a"]),
        queue.discard([b"a"]),
        queue.remove([b"a"]),
        queue.state(b"a"),
        queue.pause(60, "why"),
        queue.resume(),
        _first(queue.leased()),
        _first(queue.dead()),
        queue.stats(),
        _first(queue.audit()),
        _first(queue.purge()),
        limit.acquire(2),
    ]
    return {call.script.name: call for call in made}
