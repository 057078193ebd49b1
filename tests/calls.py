"""One valid call of each script, as the Python makes it: what contract and raw tests start from."""

from __future__ import annotations

from typing import Any

from redisq import BYTES, Rate
from redisq.ops import BufferOps, Lease, LimitOps, Op, PriorityOps


def _first(talk: Any) -> Op[Any]:
    return next(talk)


def _only(talk: Any) -> Op[Any]:
    (op,) = next(talk).ops
    return op  # type: ignore[no-any-return]


def calls(reserve: str = "l") -> dict[str, Op[Any]]:
    """Return a call by the name of its script; who settles a lease names `l`, who reserves the id that is given."""
    buffer = BufferOps("q", codec=BYTES)
    queue = PriorityOps("q", codec=BYTES, order="score")
    limit = LimitOps("q", (Rate(3, 1), Rate(100, 60)))
    batch: Lease[bytes] = Lease("l", "g", [b"a"], 1, 0, [b"a"])
    made: list[Op[Any]] = [
        buffer.push([b"a", b"b"], "g"),
        buffer.pop("g", 2),
        buffer.pop_longest(2, 2),
        buffer.reserve_once(2, lease_id=reserve),
        _only(buffer.ack([batch])),
        _only(buffer.release([batch])),
        _only(buffer.bury([batch])),
        _only(buffer.extend([batch])),
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
        queue.reserve_once(2, lease_id=reserve),
        _only(queue.ack([batch])),
        _only(queue.release([batch])),
        _only(queue.bury([batch])),
        _only(queue.extend([batch])),
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
    return {op.script.name: op for op in made}
