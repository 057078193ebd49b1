"""The calls that are counted. What names redisq's operations stands here alone, one function for each state they meet.

Each call does its ordinary work: it pushes to a queue that holds items, or acks a lease of its own. Features that a
queue need not use are off: rates, limits of attempts, a longest wait.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from redisq import Rate
from redisq.ops import BufferOps, Call, LimitOps, Op, PriorityOps
from redisq.scripts import load, names
from redisq.sync.runner import Runner

from .callgrind import Command


@dataclass(frozen=True)
class Prepared:
    """One call, and how to tell from its replies that it did its work."""

    commands: Sequence[Command]
    worked: Callable[[list[Any]], bool] = lambda _: True


@dataclass(frozen=True)
class Case:
    """One thing to count: `prepare` brings the server into the state that the calls need, and returns them."""

    name: str
    size: int
    prepare: Callable[[redis.Redis, int, int], list[Prepared]]
    """Given the client, the size and the number of calls."""


def load_scripts(client: redis.Redis) -> None:
    """Load all scripts, for each adds to what Lua's garbage collector visits."""
    for name in names():
        client.script_load(load(name).text)


def _perform(client: redis.Redis, call: Call[Any]) -> Any:
    return Runner(client).talk(call)


def _prepared(call: Call[Any], worked: Callable[[Any], bool] = bool) -> Prepared:
    """Take the script call out of an operation, which has to be a single one."""
    if isinstance(call, Op):
        op = call
    else:
        step: Any = next(call)  # a conversation, of which the first call is meant
        op = step if isinstance(step, Op) else step.ops[0]
    return Prepared([op.by_sha()], lambda replies: worked(op.decode(replies[0])))


def _items(count: int) -> list[int]:
    return list(range(count))


def _members(count: int, start: int = 0) -> list[Any]:
    return [f"member-{i:07d}" for i in range(start, start + count)]


# The buffer.


def _buffer(**options: Any) -> BufferOps[Any]:
    return BufferOps("bench", **{"max_wait": None, "lease": 3600, **options})


def _fill(client: redis.Redis, ops: BufferOps[Any], count: int, group: str = "default") -> None:
    _perform(client, ops.push_many(_items(count), group))


def _leases(client: redis.Redis, ops: BufferOps[Any] | PriorityOps[Any], size: int, count: int) -> list[Any]:
    return [_perform(client, ops.reserve_once(size)).lease for _ in range(count)]


def _buffer_leases(client: redis.Redis, size: int, calls: int) -> tuple[BufferOps[Any], list[Any]]:
    ops = _buffer()
    _fill(client, ops, size * calls + 100)
    return ops, _leases(client, ops, size, calls)


def _buffer_push(client: redis.Redis, size: int, calls: int) -> list[Prepared]:
    ops = _buffer()
    _fill(client, ops, 100)
    return [_prepared(ops.push(_items(size))) for _ in range(calls)]


def _buffer_reserve(client: redis.Redis, size: int, calls: int) -> list[Prepared]:
    ops = _buffer()
    _fill(client, ops, size * calls + 100)
    return [_prepared(ops.reserve_once(size), lambda got: len(got.lease.items) == size) for _ in range(calls)]


def _buffer_ack(client: redis.Redis, size: int, calls: int) -> list[Prepared]:
    ops, leases = _buffer_leases(client, size, calls)
    return [_prepared(ops.ack([lease])) for lease in leases]


def _buffer_release(client: redis.Redis, size: int, calls: int) -> list[Prepared]:
    ops, leases = _buffer_leases(client, size, calls)
    return [_prepared(ops.release([lease])) for lease in leases]


def _buffer_extend(client: redis.Redis, size: int, calls: int) -> list[Prepared]:
    ops, leases = _buffer_leases(client, size, calls)
    return [_prepared(ops.extend([lease])) for lease in leases]


def _buffer_pop(client: redis.Redis, size: int, calls: int) -> list[Prepared]:
    ops = _buffer()
    _fill(client, ops, size * calls + 100)
    return [_prepared(ops.pop(size=size), lambda items: len(items) == size) for _ in range(calls)]


def _buffer_pop_longest(client: redis.Redis, size: int, calls: int) -> list[Prepared]:
    ops = _buffer()
    for group in range(10):
        _fill(client, ops, size * calls, f"group-{group}")
    return [
        _prepared(ops.pop_longest(2, size // 2), lambda got: sum(map(len, got.values())) == size) for _ in range(calls)
    ]


def _buffer_dead(client: redis.Redis, count: int, size: int = 1) -> tuple[BufferOps[Any], list[str]]:
    ops = _buffer(max_attempts=1)
    _fill(client, ops, size * count)
    leases = _leases(client, ops, size, count)
    _perform(client, ops.release(leases))
    while _perform(client, ops.stats()).dead < count:
        _perform(client, ops.reserve_once(size))  # which buries what has used up its attempts
    return ops, [lease.id for lease in _perform(client, ops.dead(1000))]


def _buffer_redrive(client: redis.Redis, size: int, calls: int) -> list[Prepared]:
    ops, ids = _buffer_dead(client, size * calls)
    return [_prepared(ops.redrive(ids[i * size : (i + 1) * size]), lambda done: done == size) for i in range(calls)]


# The priority queue.


def _priority(**options: Any) -> PriorityOps[Any]:
    return PriorityOps("bench", **{"lease": 3600, **options})


def _add(client: redis.Redis, ops: PriorityOps[Any], count: int) -> None:
    _perform(client, ops.push_many((member, i % 10) for i, member in enumerate(_members(count))))


def _slices(members: list[str], size: int) -> list[list[str]]:
    return [members[start : start + size] for start in range(0, len(members), size)]


def _priority_leases(client: redis.Redis, size: int, calls: int, **options: Any) -> tuple[PriorityOps[Any], list[Any]]:
    ops = _priority(**options)
    _add(client, ops, size * calls + 100)
    return ops, _leases(client, ops, size, calls)


def _priority_push(client: redis.Redis, size: int, calls: int) -> list[Prepared]:
    ops = _priority()
    _add(client, ops, 100)
    if size == 1:
        return [_prepared(ops.push(member, 5)) for member in _members(calls, 100)]
    pieces = _slices(_members(size * calls, 100), size)
    return [_prepared(ops.push_many((member, i % 10) for i, member in enumerate(piece))) for piece in pieces]


def _priority_pop(client: redis.Redis, size: int, calls: int) -> list[Prepared]:
    ops = _priority()
    _add(client, ops, size * calls + 100)
    return [_prepared(ops.pop_many(size), lambda items: len(items) == size) for _ in range(calls)]


def _priority_reserve(client: redis.Redis, size: int, calls: int) -> list[Prepared]:
    ops = _priority()
    _add(client, ops, size * calls + 100)
    return [_prepared(ops.reserve_once(size), lambda got: len(got.lease.items) == size) for _ in range(calls)]


def _priority_ack(client: redis.Redis, size: int, calls: int) -> list[Prepared]:
    ops, leases = _priority_leases(client, size, calls)
    return [_prepared(ops.ack([lease])) for lease in leases]


def _priority_release(client: redis.Redis, size: int, calls: int) -> list[Prepared]:
    ops, leases = _priority_leases(client, size, calls)
    return [_prepared(ops.release([lease])) for lease in leases]


def _limit_acquire(client: redis.Redis, size: int, calls: int) -> list[Prepared]:
    ops = LimitOps("bench", tuple(Rate(1_000_000, per) for per in (60.0, 3600.0)[:size]))
    for _ in range(100):
        _perform(client, ops.acquire())
    return [_prepared(ops.acquire(), lambda grant: grant.granted == 1) for _ in range(calls)]


CASES = [
    *(Case("buffer/push", size, _buffer_push) for size in (1, 100)),
    *(Case("buffer/reserve", size, _buffer_reserve) for size in (1, 100)),
    *(Case("buffer/ack", size, _buffer_ack) for size in (1, 100)),
    *(Case("buffer/release", size, _buffer_release) for size in (1, 100)),
    *(Case("buffer/extend", size, _buffer_extend) for size in (1, 100)),
    *(Case("buffer/pop", size, _buffer_pop) for size in (1, 100)),
    Case("buffer/pop_longest", 10, _buffer_pop_longest),
    *(Case("priority/push", size, _priority_push) for size in (1, 100)),
    *(Case("priority/pop", size, _priority_pop) for size in (1, 100)),
    *(Case("priority/reserve", size, _priority_reserve) for size in (1, 100)),
    *(Case("priority/ack", size, _priority_ack) for size in (1, 100)),
    *(Case("priority/release", size, _priority_release) for size in (1, 100)),
    *(Case("limit/acquire", size, _limit_acquire) for size in (1, 2)),
]
