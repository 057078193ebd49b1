"""One valid call of each script, as the Python makes it: what contract and raw tests start from."""

from __future__ import annotations

from typing import Any

from redisq import BYTES, Rate
from redisq.core.buffer import BufferCalls
from redisq.core.calls import Call
from redisq.core.limiter import LimiterCalls
from redisq.core.priority import PriorityCalls


def _first(talk: Any) -> Call[Any]:
    return next(talk)


def _only(talk: Any) -> Call[Any]:
    (op,) = next(talk).calls
    return op  # type: ignore[no-any-return]


def calls(reserve: str = "l") -> dict[str, Call[Any]]:
    """Return a call by the name of its script; who settles a lease names `l`, who reserves the id that is given."""
    buffer = BufferCalls("q", codec=BYTES)
    queue = PriorityCalls("q", codec=BYTES, order="score")
    limit = LimiterCalls("q", (Rate(3, 1), Rate(100, 60)))
    batch: Lease[bytes] = Lease("l", "g", [b"a"], 1, 0, [b"a"])
    made: list[Call[Any]] = [
        buffer.push([b"a", b"b"], "g"),
        buffer.pop("g", 2),
        buffer.pop_longest(2, 2),
        buffer.reserve(2, lease_id=reserve),
        _only(buffer.ack([batch])),
        _only(buffer.release([batch])),
        _only(buffer.bury([batch])),
        _only(buffer.extend([batch])),
        _first(buffer.redrive(["l"])),
        buffer.discard(["l"]),
        _first(buffer.groups(2)),
        _first(buffer.dead()),
        _first(buffer.stats()),
        _first(buffer.audit()),
        _first(buffer.purge()),
        queue.push(b"a", 1.5),
        queue.pop_once(),
        queue.reserve(2, lease_id=reserve),
        _only(queue.ack([batch])),
        _only(queue.release([batch])),
        _only(queue.bury([batch])),
        _only(queue.extend([batch])),
        queue.redrive([b"a"]),
        queue.discard([b"a"]),
        queue.remove([b"a"]),
        queue.state(b"a"),
        _first(queue.leased()),
        _first(queue.dead()),
        queue.stats(),
        _first(queue.audit()),
        _first(queue.purge()),
        limit.acquire(2),
    ]
    return {op.script.name: op for op in made}
