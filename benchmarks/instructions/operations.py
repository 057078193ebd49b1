"""The calls that are counted, and the state that each is counted in. redisq's operations are named here alone.

Each call does its ordinary work: it pushes to a queue that holds items, or acks a lease of its own. Features that a
queue need not use are off: rates, a limit of attempts, a longest wait. A push is remembered in case it is sent again,
as by default.

All items are equal, and all members have priority 0 except where a name says otherwise: different ones cost up to a
third more, for the strings that Lua makes of them. Names are those of the scripts, of Redis's commands, or of the
recipes in `benchmarks.recipes`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import redis

from redisq import BatchData, Call, Rate
from redisq.blocking.runner import Runner
from redisq.core.batch import batch_of
from redisq.core.buffer import BufferCalls
from redisq.core.flow import Operation, Pipeline
from redisq.core.limiter import LimiterCalls
from redisq.core.priority import PriorityCalls
from redisq.core.scripts import load, names

from ..recipes import GroupedBuffer, WatchedQueue
from .callgrind import MeasuredCall

R = TypeVar("R")
Prepare = Callable[[redis.Redis, int, int], Sequence[MeasuredCall]]
"""Brings the server into the state that calls need, and returns them. Takes the client, the size, how many calls."""

ITEM = "x" * 10
OTHERS = 100  # items that a queue holds beside those that the calls are about


@dataclass(frozen=True)
class Case:
    """One thing to count: a call with so many items, members, ids or the like."""

    name: str
    size: int
    prepare: Prepare


def load_scripts(client: redis.Redis) -> None:
    """Start Lua anew, with all scripts: a figure must not depend on what was counted before."""
    client.script_flush("SYNC")
    for name in names():
        client.script_load(load(name).text)


def _perform(client: redis.Redis, operation: Operation[R]) -> R:
    return Runner(client).run(operation)


def _script(client: redis.Redis, operation: Operation[Any], worked: Callable[[Any], bool] = bool) -> MeasuredCall:
    """Build the script call that an operation begins with; for most it is the only one."""
    call: Any = operation if isinstance(operation, Call) else next(operation)
    call = call.calls[0] if isinstance(call, Pipeline) else call
    command: tuple[Any, ...] = call.evalsha()
    return lambda: worked(call.decode(client.execute_command(*command)))  # type: ignore[no-untyped-call]


def _handed_out(size: int) -> Callable[[Any], bool]:
    """Return whether a reserve hands so many items out, 0 for none."""
    return lambda events: len(batch.items if (batch := batch_of(events)) else ()) == size


def _command(client: redis.Redis, *command: Any) -> MeasuredCall:
    return lambda: bool(client.execute_command(*command))  # type: ignore[no-untyped-call]


def _slices(values: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [values[start : start + size] for start in range(0, len(values), size)]


def _members(count: int, start: int = 0) -> list[str]:
    return [f"member-{i:07d}" for i in range(start, start + count)]


# The buffer.


def _buffer(name: str = "bench", **options: Any) -> BufferCalls[Any]:
    return BufferCalls(name, **{"max_wait": None, "lease": 3600, **options})


def _full_buffer(client: redis.Redis, count: int, groups: Sequence[str] = ("default",)) -> BufferCalls[Any]:
    buffer = _buffer()
    for group in groups:
        _perform(client, buffer.push_many([ITEM] * (count + OTHERS), group))
    return buffer


def _leases(client: redis.Redis, queue: Any, size: int, calls: int) -> list[BatchData[Any]]:
    return [event for event in _perform(client, queue.reserve_many(calls, size)) if isinstance(event, BatchData)]


def _buffer_push(client: redis.Redis, size: int, calls: int) -> list[MeasuredCall]:
    buffer = _full_buffer(client, 0)
    return [_script(client, buffer.push([ITEM] * size)) for _ in range(calls)]


def _buffer_reserve(client: redis.Redis, size: int, calls: int) -> list[MeasuredCall]:
    buffer = _full_buffer(client, size * calls)
    return [_script(client, buffer.reserve(size), _handed_out(size)) for _ in range(calls)]


def _buffer_reserve_nothing(client: redis.Redis, size: int, calls: int) -> list[MeasuredCall]:
    return [_script(client, _buffer().reserve(size), _handed_out(0)) for _ in range(calls)]


def _buffer_lease(verb: str, client: redis.Redis, size: int, calls: int) -> list[MeasuredCall]:
    buffer = _full_buffer(client, size * calls)
    return [_script(client, getattr(buffer, verb)(lease)) for lease in _leases(client, buffer, size, calls)]


def _buffer_pop(client: redis.Redis, size: int, calls: int) -> list[MeasuredCall]:
    buffer = _full_buffer(client, size * calls)
    return [_script(client, buffer.pop(size=size), lambda items: len(items) == size) for _ in range(calls)]


def _buffer_pop_longest(client: redis.Redis, size: int, calls: int) -> list[MeasuredCall]:
    buffer = _full_buffer(client, size * calls, ("one", "other"))
    return [
        _script(client, buffer.pop_longest(2, size // 2), lambda got: sum(map(len, got.values())) == size)
        for _ in range(calls)
    ]


def _buffer_groups(client: redis.Redis, size: int, calls: int) -> list[MeasuredCall]:
    buffer = _full_buffer(client, 0, _members(OTHERS))
    return [_script(client, buffer.groups(size), lambda got: len(got[1]) == 2 * size) for _ in range(calls)]


def _dead_buffer(client: redis.Redis, count: int) -> tuple[BufferCalls[Any], list[str]]:
    buffer, ids = _buffer(max_dead=None), []
    for _ in range(0, count, 1000):
        _perform(client, buffer.push([ITEM] * 1000))
        leases = _leases(client, buffer, 1, 1000)
        _perform(client, buffer.bury_all(leases))
        ids += [lease.id for lease in leases]
    return buffer, ids[:count]


def _buffer_dead(client: redis.Redis, size: int, calls: int) -> list[MeasuredCall]:
    buffer, _ = _dead_buffer(client, 1000)
    return [_script(client, buffer.dead(size), lambda found: len(found) == size) for _ in range(calls)]


def _buffer_ids(verb: str, client: redis.Redis, size: int, calls: int) -> list[MeasuredCall]:
    buffer, ids = _dead_buffer(client, size * calls)
    act = getattr(buffer, verb)
    redriven = (lambda got: got[0] == size) if verb == "redrive" else (lambda count: count == size)
    return [_script(client, act(piece), redriven) for piece in _slices(ids, size)]


def _buffer_drop(client: redis.Redis, size: int, calls: int) -> list[MeasuredCall]:
    """Drop groups with so many items and as many dead batches of one item."""
    buffer, groups = _buffer(max_dead=None), _members(calls)
    for group in groups:
        _perform(client, buffer.push([ITEM] * size, group))
        _perform(client, buffer.bury_all(_leases(client, buffer, 1, size)))
        _perform(client, buffer.push([ITEM] * size, group))
    return [_script(client, buffer.drop_group(group), lambda got: got[1] > 0) for group in groups]


def _buffer_peek(client: redis.Redis, size: int, calls: int) -> list[MeasuredCall]:
    buffer = _full_buffer(client, size)
    return [_script(client, buffer.peek(count=size), lambda items: len(items) == size) for _ in range(calls)]


def _buffer_pauses(verb: str, client: redis.Redis, size: int, calls: int) -> list[MeasuredCall]:
    buffer, groups = _full_buffer(client, size, _members(calls)), _members(calls)
    if verb == "pause_group":
        return [_script(client, buffer.pause_group(group, 3600), _answered) for group in groups]
    for group in groups:
        _perform(client, buffer.pause_group(group))
    return [_script(client, buffer.resume_group(group)) for group in groups]


def _pauses(verb: str, make: Callable[[str], Any], client: redis.Redis, size: int, calls: int) -> list[MeasuredCall]:
    """Pause or resume queues of so many items."""
    queues = [make(f"bench-{i}") for i in range(calls)]
    for queue in queues:
        if queue.structure == "buffer":
            _perform(client, queue.push([ITEM] * size))
        else:
            _perform(client, queue.push_many((member, 0) for member in _members(size)))
        if verb == "resume":
            _perform(client, queue.pause(reason="maintenance"))
    if verb == "resume":
        return [_script(client, queue.resume()) for queue in queues]
    return [_script(client, queue.pause(3600, "maintenance"), _answered) for queue in queues]


def _answered(answer: Any) -> bool:
    return answer is None


def _buffer_page(verb: str, client: redis.Redis, size: int, calls: int) -> list[MeasuredCall]:
    buffer = _full_buffer(client, size * 10, _members(10))
    _leases(client, buffer, 1, size)
    return [_script(client, getattr(buffer, verb)()) for _ in range(calls)]


def _buffer_purge(client: redis.Redis, size: int, calls: int) -> list[MeasuredCall]:
    buffers = [_buffer(f"bench-{i}") for i in range(calls)]
    for buffer in buffers:
        _perform(client, buffer.push([ITEM] * size))
    return [_script(client, buffer.purge()) for buffer in buffers]


# The priority queue.


def _priority(name: str = "bench", **options: Any) -> PriorityCalls[Any]:
    return PriorityCalls(name, **{"lease": 3600, **options})


def _full_priority(
    client: redis.Redis, count: int, others: int = OTHERS, levels: int = 1, **options: Any
) -> PriorityCalls[Any]:
    queue = _priority(**options)
    _perform(client, queue.push_many((member, i % levels) for i, member in enumerate(_members(count + others))))
    return queue


def _priority_push(levels: int, client: redis.Redis, size: int, calls: int) -> list[MeasuredCall]:
    queue = _full_priority(client, 0, levels=levels)
    pairs = [(member, i % levels) for i, member in enumerate(_members(size * calls, OTHERS))]
    if size == 1:
        return [_script(client, queue.push(*pair)) for pair in pairs]
    return [_script(client, queue.push_many(piece)) for piece in _slices(pairs, size)]


def _priority_push_known(client: redis.Redis, size: int, calls: int) -> list[MeasuredCall]:
    queue = _full_priority(client, size * calls)
    pairs = [(member, 0) for member in _members(size * calls)]
    return [_script(client, queue.push_many(piece)) for piece in _slices(pairs, size)]


def _priority_pop(client: redis.Redis, size: int, calls: int) -> list[MeasuredCall]:
    queue = _full_priority(client, size * calls)
    return [_script(client, queue.pop_many(size), lambda items: len(items) == size) for _ in range(calls)]


def _priority_reserve(levels: int, client: redis.Redis, size: int, calls: int) -> list[MeasuredCall]:
    queue = _full_priority(client, size * calls, levels=levels)
    return [_script(client, queue.reserve(size), _handed_out(size)) for _ in range(calls)]


def _priority_reserve_nothing(client: redis.Redis, size: int, calls: int) -> list[MeasuredCall]:
    return [_script(client, _priority().reserve(size), _handed_out(0)) for _ in range(calls)]


def _priority_lease(verb: str, client: redis.Redis, size: int, calls: int) -> list[MeasuredCall]:
    queue = _full_priority(client, size * calls)
    return [_script(client, getattr(queue, verb)(lease)) for lease in _leases(client, queue, size, calls)]


def _small_priority(verb: str, client: redis.Redis, size: int, calls: int) -> list[MeasuredCall]:
    """Give each call a queue of its own, so small that Redis keeps it in listpacks, in which every search is linear."""
    found = []
    for i in range(calls):
        name = f"bench-{i}"
        if verb == "push":
            call: Any = _full_priority(client, 0, 0, name=name).push_many((member, 0) for member in _members(size))
        else:
            queue = _full_priority(client, size, 0, name=name)
            call = queue.reserve(size)
            call = call if verb == "reserve" else getattr(queue, verb)(batch_of(_perform(client, call)))
        found.append(_script(client, call))
    return found


def _priority_members(verb: str, client: redis.Redis, size: int, calls: int) -> list[MeasuredCall]:
    queue = _full_priority(client, size * calls)
    act, pieces = getattr(queue, verb), _slices(_members(size * calls), size)
    return [_script(client, act(piece), lambda count: count == size) for piece in pieces]


def _dead_priority(client: redis.Redis, count: int) -> PriorityCalls[Any]:
    queue = _full_priority(client, count, 0, max_dead=None)
    for start in range(0, count, 100):
        _perform(client, queue.bury_all(_leases(client, queue, min(100, count - start), 1)))
    return queue


def _priority_dead(client: redis.Redis, size: int, calls: int) -> list[MeasuredCall]:
    queue = _dead_priority(client, 1000)
    return [_script(client, queue.dead(size), lambda found: len(found) == size) for _ in range(calls)]


def _priority_dead_members(verb: str, client: redis.Redis, size: int, calls: int) -> list[MeasuredCall]:
    queue = _dead_priority(client, size * calls)
    act, pieces = getattr(queue, verb), _slices(_members(size * calls), size)
    return [_script(client, act(piece), lambda count: count == size) for piece in pieces]


def _priority_peek(client: redis.Redis, size: int, calls: int) -> list[MeasuredCall]:
    queue = _full_priority(client, 1000)
    return [_script(client, queue.peek(size), lambda items: len(items) == size) for _ in range(calls)]


def _priority_leased(client: redis.Redis, size: int, calls: int) -> list[MeasuredCall]:
    queue = _full_priority(client, 10 * size)
    _leases(client, queue, 1, size)
    return [_script(client, queue.leased(size), lambda found: len(found) == size) for _ in range(calls)]


def _priority_state(client: redis.Redis, size: int, calls: int) -> list[MeasuredCall]:
    queue = _full_priority(client, size * calls)
    return [_script(client, queue.state(member)) for member in _members(calls)]


def _priority_page(verb: str, client: redis.Redis, size: int, calls: int) -> list[MeasuredCall]:
    queue = _full_priority(client, size * 10)
    _leases(client, queue, 1, size)
    return [_script(client, getattr(queue, verb)()) for _ in range(calls)]


def _priority_purge(client: redis.Redis, size: int, calls: int) -> list[MeasuredCall]:
    return [_script(client, _full_priority(client, size, 0, name=f"bench-{i}").purge()) for i in range(calls)]


# The limiter.


def _acquire(rates: Sequence[Rate], client: redis.Redis, size: int, calls: int) -> list[MeasuredCall]:
    limiter = LimiterCalls("bench", tuple(rates))
    for _ in range(OTHERS):
        _perform(client, limiter.acquire())
    return [_script(client, limiter.acquire(size), lambda grant: grant.granted == size) for _ in range(calls)]


# Redis's own commands, and the recipes.


def _native(name: str, client: redis.Redis, size: int, calls: int) -> list[MeasuredCall]:
    items, members = [ITEM] * size, _members(size * calls + 1000)
    scored = [word for member in members for word in (0, member)]
    client.execute_command("RPUSH", "list", *items * (calls + 1))  # type: ignore[no-untyped-call]
    client.execute_command("ZADD", "zset", *scored)  # type: ignore[no-untyped-call]
    others = _slices([word for member in members for word in (1, f"other-{member}")], 2 * size)
    known = _slices([word for member in members for word in (-1, member)], 2 * size)
    commands: dict[str, Callable[[int], tuple[Any, ...]]] = {
        "PING": lambda _: ("PING",),
        "RPUSH": lambda _: ("RPUSH", "list", *items),
        "LPOP": lambda _: ("LPOP", "list", size) if size > 1 else ("LPOP", "list"),
        "ZADD": lambda i: ("ZADD", "zset", *others[i]),
        "ZADD LT": lambda i: ("ZADD", "zset", "LT", "CH", *known[i]),
        "ZPOPMIN": lambda _: ("ZPOPMIN", "zset", size) if size > 1 else ("ZPOPMIN", "zset"),
    }
    return [_command(client, *commands[name](i)) for i in range(calls)]


def _return(client: redis.Redis, _: int, calls: int) -> list[MeasuredCall]:
    sha = client.script_load("return 1")
    keys, arguments = [f"redisq:{{bench}}:key-{i}" for i in range(7)], range(8)
    return [_command(client, "EVALSHA", sha, len(keys), *keys, *arguments) for _ in range(calls)]


def _stream(name: str, client: redis.Redis, size: int, calls: int) -> list[MeasuredCall]:
    client.xgroup_create("stream", "workers", "0", mkstream=True)
    read = ("XREADGROUP", "GROUP", "workers", "one", "COUNT", size, "STREAMS", "stream", ">")
    ids = [client.execute_command("XADD", "stream", "*", "item", ITEM) for _ in range(size * calls)]  # type: ignore[no-untyped-call]
    if name == "XADD":
        return [_command(client, "XADD", "stream", "*", "item", ITEM) for _ in range(calls)]
    if name == "XREADGROUP":
        return [_command(client, *read) for _ in range(calls)]
    _perform_all(client, [read] * calls)
    return [_command(client, "XACK", "stream", "workers", *piece) for piece in _slices(ids, size)]


def _perform_all(client: redis.Redis, commands: Sequence[tuple[Any, ...]]) -> None:
    for command in commands:
        client.execute_command(*command)  # type: ignore[no-untyped-call]


def _recipe_buffer(verb: str, client: redis.Redis, size: int, calls: int) -> list[MeasuredCall]:
    buffer = GroupedBuffer(client)
    buffer.push(*[ITEM] * (size * calls + OTHERS))
    if verb == "push":
        return [partial(_done, buffer.push, *[ITEM] * size)] * calls
    return [lambda: len(buffer.pop("default", size)) >= size] * calls


def _recipe_queue(verb: str, client: redis.Redis, size: int, calls: int) -> list[MeasuredCall]:
    queue = WatchedQueue(client)
    client.zadd("index", dict.fromkeys(_members(size * calls + OTHERS), 0))
    if verb == "push":
        return [partial(_done, queue.push_watched, member, 0) for member in _members(calls, size * calls + OTHERS)]
    return [lambda: queue.pop() is not None] * calls


def _done(call: Callable[..., None], *args: Any) -> bool:
    call(*args)
    return True


MIXED = 10  # priorities


def _sizes(name: str, prepare: Prepare, *sizes: int) -> list[Case]:
    return [Case(name, size, prepare) for size in sizes or (1, 100)]


CASES = [
    *_sizes("buffer/push", _buffer_push),
    *_sizes("buffer/reserve", _buffer_reserve),
    *_sizes("buffer/reserve (nothing waits)", _buffer_reserve_nothing, 1),
    *_sizes("buffer/ack", partial(_buffer_lease, "ack")),
    *_sizes("buffer/release", partial(_buffer_lease, "release")),
    *_sizes("buffer/extend", partial(_buffer_lease, "extend")),
    *_sizes("buffer/pop", _buffer_pop),
    *_sizes("buffer/pop_longest", _buffer_pop_longest, 10),
    *_sizes("buffer/pause", partial(_pauses, "pause", _buffer), 1),
    *_sizes("buffer/resume", partial(_pauses, "resume", _buffer), 1),
    *_sizes("buffer/pause_group", partial(_buffer_pauses, "pause_group"), 1),
    *_sizes("buffer/resume_group", partial(_buffer_pauses, "resume_group"), 1),
    *_sizes("buffer/groups", _buffer_groups),
    *_sizes("buffer/peek", _buffer_peek),
    *_sizes("buffer/bury", partial(_buffer_lease, "bury")),
    *_sizes("buffer/batches (dead)", _buffer_dead),
    *_sizes("buffer/redrive", partial(_buffer_ids, "redrive")),
    *_sizes("buffer/discard", partial(_buffer_ids, "discard")),
    *_sizes("buffer/drop_group", _buffer_drop),
    *_sizes("buffer/stats", partial(_buffer_page, "stats"), 100),
    *_sizes("buffer/audit", partial(_buffer_page, "audit"), 100),
    *_sizes("buffer/purge", _buffer_purge, 100),
    *_sizes("priority/push", partial(_priority_push, 1)),
    *_sizes(f"priority/push ({MIXED} priorities)", partial(_priority_push, MIXED)),
    *_sizes("priority/push (members that are there)", _priority_push_known),
    *_sizes("priority/push (small queue)", partial(_small_priority, "push"), 100),
    *_sizes("priority/pop", _priority_pop),
    *_sizes("priority/reserve", partial(_priority_reserve, 1)),
    *_sizes(f"priority/reserve ({MIXED} priorities)", partial(_priority_reserve, MIXED)),
    *_sizes("priority/reserve (small queue)", partial(_small_priority, "reserve"), 100),
    *_sizes("priority/reserve (nothing waits)", _priority_reserve_nothing, 1),
    *_sizes("priority/ack", partial(_priority_lease, "ack")),
    *_sizes("priority/ack (small queue)", partial(_small_priority, "ack"), 100),
    *_sizes("priority/release", partial(_priority_lease, "release")),
    *_sizes("priority/release (small queue)", partial(_small_priority, "release"), 100),
    *_sizes("priority/extend", partial(_priority_lease, "extend")),
    *_sizes("priority/pause", partial(_pauses, "pause", _priority), 1),
    *_sizes("priority/resume", partial(_pauses, "resume", _priority), 1),
    *_sizes("priority/remove", partial(_priority_members, "remove")),
    *_sizes("priority/bury", partial(_priority_lease, "bury")),
    *_sizes("priority/members (dead)", _priority_dead),
    *_sizes("priority/redrive", partial(_priority_dead_members, "redrive")),
    *_sizes("priority/discard", partial(_priority_dead_members, "discard")),
    *_sizes("priority/members (ready)", _priority_peek),
    *_sizes("priority/batches (leased)", _priority_leased),
    *_sizes("priority/state", _priority_state, 1),
    *_sizes("priority/stats", partial(_priority_page, "stats"), 100),
    *_sizes("priority/audit", partial(_priority_page, "audit"), 100),
    *_sizes("priority/purge", _priority_purge, 100),
    *_sizes("limit/acquire", partial(_acquire, [Rate(1_000_000, 60)]), 1),
    *_sizes("limit/acquire (two rates)", partial(_acquire, [Rate(1_000_000, 60), Rate(10_000_000, 3600)]), 1),
    *_sizes("PING", partial(_native, "PING"), 1),
    *_sizes("RPUSH", partial(_native, "RPUSH")),
    *_sizes("LPOP", partial(_native, "LPOP")),
    *_sizes("ZADD", partial(_native, "ZADD")),
    *_sizes("ZADD LT", partial(_native, "ZADD LT")),
    *_sizes("ZPOPMIN", partial(_native, "ZPOPMIN")),
    *_sizes("XADD", partial(_stream, "XADD"), 1),
    *_sizes("XREADGROUP", partial(_stream, "XREADGROUP")),
    *_sizes("XACK", partial(_stream, "XACK")),
    *_sizes("EVALSHA of return 1 (7 keys, 8 arguments)", _return, 1),
    *_sizes("recipe: push in MULTI", partial(_recipe_buffer, "push")),
    *_sizes("recipe: pop in MULTI", partial(_recipe_buffer, "pop")),
    *_sizes("recipe: push with WATCH", partial(_recipe_queue, "push"), 1),
    *_sizes("recipe: pop with WATCH", partial(_recipe_queue, "pop"), 1),
]
