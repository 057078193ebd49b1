"""Measure the same calls on queues of more and more."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from ..measure import interleave, significant
from .calls import (
    FAR,
    ITEM,
    QUEUE,
    READY,
    TOKEN,
    Command,
    batch_id,
    call,
    fill,
    fresh,
    group_name,
    key,
    member_name,
    send,
    timed,
)

BATCH = 20  # calls measured together

Step = tuple[str, list[Command]]
"""Calls that are measured together, under a name; those without a name only put the queue back as it was."""


@dataclass(frozen=True)
class State:
    """How much a queue holds. A lease stands for one leased, one delayed and one dead batch or member."""

    groups: int = 100
    items: int = 400
    leases: int = BATCH
    once: int = 0
    grants: int = 100


def fill_buffer(client: redis.Redis, state: State) -> None:
    """Fill a buffer."""
    send(client, [("FLUSHALL",), ("HSET", key("meta"), "queue", "2 buffer"), ("LPUSH", key("wake"), 1)])
    fill(client, "groups", 1, state.groups, state.items // state.groups, ITEM, FAR)
    for index, prefix in (("leases", "l"), ("delayed", "w"), ("dead", "d")):
        fill(client, "batches", 1, state.leases, 1, ITEM, index, prefix, FAR, 1)
    fill(client, "once", 1, state.once, TOKEN)


def buffer_steps(state: State, some: random.Random) -> Iterator[Step]:
    """Do each operation of a buffer, and put back what it took."""
    many = range(BATCH)

    def pushes() -> list[Command]:
        numbers = range(1, state.groups + 1)
        chosen = some.sample(numbers, BATCH) if state.groups >= BATCH else some.choices(numbers, k=BATCH)
        return [call("buffer/push", item=[ITEM], group=group_name(number)) for number in chosen]

    def reserves(ids: list[str]) -> list[Command]:
        return [call("buffer/reserve", id=one) for one in ids]

    first = pushes()
    yield "push", first
    yield "push, sent again", first
    yield "pop", [call("buffer/pop", group=command[6].removeprefix(key("items:"))) for command in first]
    yield "", pushes()
    yield "pop_longest", [call("buffer/pop_longest", count=2)] * (BATCH // 2)
    ids, others, last = [fresh() for _ in many], [fresh() for _ in many], [fresh() for _ in many]
    yield "", pushes()
    yield "reserve", reserves(ids)
    yield "extend", [call("buffer/extend", id=one, lease=7_200_000) for one in ids]
    yield "ack", [call("buffer/ack", id=one) for one in ids]
    yield "", pushes()
    yield "", reserves(others)
    yield "release", [call("buffer/release", id=one) for one in others]
    yield "reserve, a batch that is due", reserves(last)
    yield "", [call("buffer/ack", id=one) for one in last]
    yield "groups", [call("buffer/groups", state="waiting")] * BATCH
    yield "batches", [call("buffer/batches")] * BATCH
    yield "stats", [call("buffer/stats")] * BATCH
    for phase in ("keys", "groups", "leases"):
        yield f"audit, {phase}", [call("buffer/audit", cursor=f"{phase}:0")] * BATCH
    dead = some.sample([batch_id("d", i) for i in range(1, state.leases + 1)], min(BATCH, state.leases))
    bury = ("ZADD", key("dead"), *itertools.chain(*((FAR + int(one[1:]), one) for one in dead)))
    batches = [("RPUSH", key(f"batch:{one}"), group_name(1), 1, "host:1", "", ITEM) for one in dead]
    yield "redrive", [call("buffer/redrive", id=[one]) for one in dead]
    yield "", [call("buffer/pop", group=group_name(1), size=len(dead)), bury, *batches]
    yield "discard", [call("buffer/discard", id=[one]) for one in dead]
    yield "", [bury, *batches]


def fill_priority(client: redis.Redis, state: State) -> None:
    """Fill a priority queue; its members that are ready are counted by `items`."""
    size, count = state.items, state.leases
    send(client, [("FLUSHALL",), ("LPUSH", key("wake"), 1)])
    client.hset(key("meta"), mapping={"queue": "2 fifo", "sequence": size + 3 * count})
    fill(client, "members", 1, size, "ready", READY, "")
    fill(client, "held", size + 1, size + count, FAR, READY)
    for place, index in ((1, "delayed"), (2, "dead")):
        fill(client, "members", size + place * count + 1, size + (place + 1) * count, index, FAR, "1 1 ")
    fill(client, "once", 1, state.once, TOKEN)


def priority_steps(state: State, some: random.Random) -> Iterator[Step]:
    """Do each operation of a priority queue, and put back what it took."""
    size, count = state.items, state.leases
    dead = [size + 2 * count + i for i in some.sample(range(1, count + 1), min(BATCH, count))]

    def pushes(score: int = -5, members: Sequence[str] = ()) -> list[Command]:
        chosen = members or [fresh() for _ in range(BATCH)]
        return [call("priority/push", item=[(score, member)]) for member in chosen]

    first = pushes()
    news = [command[-1] for command in first]
    yield "push", first
    yield "push, sent again", first
    yield "push, raised", pushes(-6, news)
    yield "state", [call("priority/state", member=member_name(some.randint(1, size))) for _ in range(BATCH)]
    yield "pop", [call("priority/pop")] * BATCH
    back = pushes()
    yield "", back
    yield "remove", [call("priority/remove", member=[command[-1]]) for command in back]
    for verb in ("ack", "release"):
        ids = [fresh() for _ in range(BATCH)]
        yield "", pushes()
        yield "reserve" if verb == "ack" else "", [call("priority/reserve", id=one) for one in ids]
        if verb == "ack":
            yield "extend", [call("priority/extend", id=one, lease=7_200_000) for one in ids]
        yield verb, [call(f"priority/{verb}", id=one) for one in ids]
    yield "", [call("priority/pop")] * BATCH
    for index in ("ready", "dead"):
        yield f"members, {index}", [call("priority/members", state=index)] * BATCH
    yield "batches", [call("priority/batches")] * BATCH
    yield "stats", [call("priority/stats")] * BATCH
    for phase in ("keys", "leases", "ready", "delayed", "rows"):
        yield f"audit, {phase}", [call("priority/audit", cursor=f"{phase}:0")] * BATCH
    members = [member_name(number) for number in dead]
    bury = ("ZADD", key("dead"), *itertools.chain(*((FAR, member) for member in members)))
    rows = ("HSET", key("rows"), *itertools.chain(*((member, "1 1 ") for member in members)))
    yield "redrive", [call("priority/redrive", member=[member]) for member in members]
    yield "", [("ZREM", key("ready"), *members), bury, rows]
    yield "discard", [call("priority/discard", member=[member]) for member in members]
    yield "", [bury, rows]


def fill_limit(client: redis.Redis, state: State) -> None:
    """Fill a limiter, with grants that are all in its span."""
    client.flushall()
    fill(client, "grants", 1, state.grants, FAR)


def limit_steps(state: State, some: random.Random) -> Iterator[Step]:
    """Acquire, and take the grants out."""
    del some
    rates = [(10**9, 10**10), (10**9, 1)]
    yield "acquire", [call("limit/acquire", rates=rates) for _ in range(BATCH)]
    yield "", [("ZREMRANGEBYRANK", key("grants"), state.grants, -1)]


@dataclass(frozen=True)
class Kind:
    """A structure, how it is filled and what is done with it."""

    name: str
    fill: Callable[[redis.Redis, State], None]
    steps: Callable[[State, random.Random], Iterator[Step]]


BUFFER = Kind("buffer", fill_buffer, buffer_steps)
PRIORITY = Kind("priority", fill_priority, priority_steps)
LIMIT = Kind("limit", fill_limit, limit_steps)

DIMENSIONS: list[tuple[Kind, str, int, int, Callable[[int], State]]] = [
    (BUFFER, "groups", 2, 6, lambda size: State(groups=size, items=4 * size)),
    (BUFFER, "waiting items", 2, 7, lambda size: State(groups=10, items=size)),
    (BUFFER, "leases", 1, 5, lambda size: State(leases=size)),
    (BUFFER, "remembered ids", 2, 6, lambda size: State(once=size)),
    (PRIORITY, "ready members", 2, 7, lambda size: State(items=size)),
    (PRIORITY, "leases", 1, 5, lambda size: State(leases=size)),
    (PRIORITY, "remembered ids", 2, 6, lambda size: State(once=size)),
    (LIMIT, "grants", 2, 6, lambda size: State(grants=size)),
]


def cycle(kind: Kind, state: State, client: redis.Redis, some: random.Random) -> dict[str, float]:
    """Do everything once; give each operation's microseconds."""
    found, used = {}, []
    for name, commands in kind.steps(state, some):
        if name:
            found[name] = timed(client, commands)
        else:
            send(client, commands)
        declared = [one for command in commands if command[0] == "EVALSHA" for one in command[3 : 3 + command[2]]]
        used += [one for one in declared if one.startswith((key("once:"), key("ended:")))]
    if used:
        client.unlink(*used)
    return found


def purged(kind: Kind, state: State, client: redis.Redis) -> list[float]:
    """Purge, last, for it leaves nothing to measure: a group and a batch of each kind a call, or all but leases."""
    times = []
    purge = call("priority/purge")
    tiny = tuple(word.replace(QUEUE, "tiny") if isinstance(word, str) else word for word in purge)
    filled = [("ZADD", "tiny:ready", *itertools.chain(*((i, i) for i in range(200))))]
    if kind is BUFFER:
        times = [timed(client, [call("buffer/purge", limit=1)]) for _ in range(5)]
    elif kind is PRIORITY:
        size = max(state.items, state.leases, state.once)
        for again in range(5 if size <= 10**5 else 2 if size <= 10**6 else 1):  # to fill it anew takes long
            if again:
                kind.fill(client, state)
            client.unlink(key("leases"))  # they go a number a call, and all else after the last
            send(client, [*filled, tiny] * BATCH)  # the one that counts shall not be the first that the server does
            times.append(timed(client, [purge]))
    return times


def fitted(times: dict[int, list[float]]) -> dict[str, Any]:
    """Reduce one operation's times: the least at each size, and how they grow."""
    least = {size: min(values) for size, values in times.items()}
    small, large = min(least), max(least)
    slope = statistics.linear_regression([math.log(n) for n in least], [math.log(t) for t in least.values()]).slope
    return {
        "usec": {str(size): significant(value) for size, value in least.items()},
        "usec_median": {str(size): significant(statistics.median(values)) for size, values in times.items()},
        "exponent": round(slope, 3),
        "ratio": significant(least[large] / least[small]),
        "fitted_ratio": significant((large / small) ** slope),  # one noisy size does not make it
        "log_ratio": significant(math.log(large) / math.log(small)),
    }


def dimension(
    servers: Sequence[redis.Redis],
    kind: Kind,
    title: str,
    sizes: Sequence[int],
    state: Callable[[int], State],
    rounds: int,
) -> list[dict[str, Any]]:
    """Measure one structure's operations at all sizes of one thing, each on a server of its own."""
    clients = dict(zip(sizes, servers, strict=False))
    for size, client in clients.items():
        kind.fill(client, state(size))
    some = {size: random.Random(size) for size in sizes}
    found = interleave(
        sizes, rounds, lambda size: cycle(kind, state(size), clients[size], some[size]), f"{kind.name}, {title}"
    )
    times: dict[str, dict[int, list[float]]] = {}
    for size, cycles in found.items():
        for one in cycles[1:]:  # the first round warms the caches
            for name, value in one.items():
                times.setdefault(name, {}).setdefault(size, []).append(value)
        last = purged(kind, state(size), clients[size])
        if last:
            times.setdefault("purge", {})[size] = last
        clients[size].flushall()
    return [
        {"structure": kind.name, "operation": name, "grows": title, **fitted(values)} for name, values in times.items()
    ]
