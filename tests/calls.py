"""One valid call of each script, as the Python makes it: what contract and raw tests start from."""

from __future__ import annotations

from typing import Any

from redisq import BYTES, Rate
from redisq.ops import BufferOps, LimitOps, Op, PriorityOps


def _first(talk: Any) -> Op[Any]:
    return next(talk)


def calls() -> dict[str, Op[Any]]:
    """Return a call by the name of its script."""
    buffer = BufferOps("q", codec=BYTES)
    queue = PriorityOps("q", codec=BYTES, order="score")
    limit = LimitOps("q", (Rate(3, 1), Rate(100, 60)))
    made: list[Op[Any]] = [
        buffer.push([b"a", b"b"], "g"),
        buffer.pop("g", 2),
        buffer.longest_groups(2),
        buffer.pop_longest(2, 2),
        _first(buffer.stats()),
        _first(buffer.audit()),
        _first(buffer.purge()),
        queue.push(b"a", 1.5),
        queue.pop(),
        queue.peek(),
        queue.state(b"a"),
        queue.remove([b"a"]),
        _first(queue.stats()),
        _first(queue.audit()),
        _first(queue.purge()),
        limit.acquire(2),
    ]
    return {op.script.name: op for op in made}
