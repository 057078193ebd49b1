"""The grouped buffer: push, pop and the whole flush tick, against the recipe, with more and more flushers at once.

A tick chooses the longest groups and takes a batch of each; each batch is one API call. The recipe does it with MULTI,
in two steps and with an off-by-one: what that does to the API calls is counted, beside how fast it is.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from typing import Any

import redis

from redisq import BYTES, Buffer

from .measure import Claim, Effort, environment, interleave, percentile, private_server, significant, spread
from .recipes import GroupedBuffer
from .workers import Done, Job, Operation, Workers, started

GROUPS = 50
EACH = 10_000  # items in each group
CHOSEN, SIZE = 2, 20  # groups a tick, items of each
QUEUE, RECIPE = "redisq:{flush}:", "flush:"


@dataclass(frozen=True)
class Case:
    """One thing to measure."""

    operation: str
    contender: str
    workers: int


# What a worker repeats. A flusher returns its API calls, each a list of items.


def _buffer(client: redis.Redis) -> Buffer[bytes]:
    return Buffer(client, "flush", codec=BYTES)


def _push_redisq(client: redis.Redis, number: int) -> Operation:
    buffer, numbers = _buffer(client), itertools.count()
    return lambda: buffer.push(b"%d-%d" % (number, next(numbers)), group=f"new-{number}")


def _push_recipe(client: redis.Redis, number: int) -> Operation:
    recipe, numbers = GroupedBuffer(client, "flush"), itertools.count()
    return lambda: recipe.push(f"{number}-{next(numbers)}", group=f"new-{number}")


def _pop_redisq(client: redis.Redis, number: int) -> Operation:
    buffer, groups = _buffer(client), itertools.cycle(range(GROUPS))
    return lambda: [buffer.pop(f"g{(number + next(groups)) % GROUPS}", SIZE)]


def _pop_recipe(client: redis.Redis, number: int) -> Operation:
    recipe, groups = GroupedBuffer(client, "flush"), itertools.cycle(range(GROUPS))
    return lambda: [recipe.pop(f"g{(number + next(groups)) % GROUPS}", SIZE)]


def _tick_redisq(client: redis.Redis, _: int) -> Operation:
    buffer = _buffer(client)
    return lambda: list(buffer.pop_longest(CHOSEN, SIZE).values())


def _tick_leased(client: redis.Redis, _: int) -> Operation:
    buffer = _buffer(client)

    def tick() -> list[list[bytes]]:
        batches = buffer.reserve_many(CHOSEN, SIZE)
        buffer.ack(*batches)
        return [batch.items for batch in batches]

    return tick


def _tick_recipe(client: redis.Redis, _: int) -> Operation:
    recipe = GroupedBuffer(client, "flush")
    return lambda: list(recipe.flush(CHOSEN, SIZE).values())


CONTENDERS = {
    ("push", "redisq"): _push_redisq,
    ("push", "recipe"): _push_recipe,
    ("pop", "redisq"): _pop_redisq,
    ("pop", "recipe"): _pop_recipe,
    ("tick", "redisq"): _tick_redisq,
    ("tick", "redisq, reserve and ack"): _tick_leased,
    ("tick", "recipe"): _tick_recipe,
}


@dataclass(frozen=True)
class Measurement:
    """What all workers of one round did together."""

    per_second: float
    latencies: list[float]
    trips: float
    calls: int
    empty: int
    """API calls with nothing in them."""
    doubled: int
    """API calls with an item that another one had as well."""
    lost: int
    """Items that nobody got and that are in no list."""


def _fill(client: redis.Redis) -> None:
    """Put the same items where each of the two looks for them, once; each round takes a copy."""
    pipe = client.pipeline(transaction=False)
    for group in range(GROUPS):
        pipe.rpush(f"source:{group}", *[b"%d-%d" % (group, i) for i in range(EACH, 0, -1)])
    pipe.execute()


def _copy(client: redis.Redis, contender: str) -> None:
    for key in [*client.scan_iter(f"{QUEUE}*"), *client.scan_iter(f"{RECIPE}*")]:
        client.unlink(key)
    ours = contender.startswith("redisq")
    pipe = client.pipeline(transaction=False)
    for group in range(GROUPS):
        key = f"{QUEUE}items:g{group}" if ours else f"{RECIPE}g{group}"
        pipe.copy(f"source:{group}", key)
        pipe.zadd(f"{QUEUE}groups" if ours else f"{RECIPE}groups", {f"g{group}" if ours else key: EACH})
        if ours:
            pipe.zadd(f"{QUEUE}since", {f"g{group}": 1 << 42})  # nobody waits too long: the longest is chosen
    if ours:
        pipe.hset(f"{QUEUE}meta", "queue", "2 buffer")
    pipe.execute()


def _check(client: redis.Redis, contender: str, done: list[Done]) -> tuple[int, int, int, int]:
    calls = [call for one in done for result in one.results for call in result]
    seen: Counter[bytes] = Counter(item for call in calls for item in call)
    left = f"{QUEUE}items:*" if contender.startswith("redisq") else f"{RECIPE}g[0-9]*"
    groups = list(client.scan_iter(left))
    if len(groups) < GROUPS:
        raise RuntimeError("a group ran empty, so less was done than could be: give EACH more items")
    waiting = {item for key in groups for item in client.lrange(key, 0, -1)}
    return (
        len(calls),
        sum(not call for call in calls),
        sum(any(seen[item] > 1 for item in call) for call in calls),
        GROUPS * EACH - len(waiting | seen.keys()),
    )


def _measure(case: Case, client: redis.Redis, team: Workers, socket: str, seconds: float) -> Measurement:
    _copy(client, case.contender)
    done = team.work(case.workers, Job(CONTENDERS[case.operation, case.contender], socket, seconds))
    operations = sum(len(one.results) for one in done)
    return Measurement(
        sum(len(one.results) / one.elapsed for one in done),
        [latency for one in done for latency in one.latencies],
        sum(one.trips for one in done) / operations,
        *((0, 0, 0, 0) if case.operation == "push" else _check(client, case.contender, done)),
    )


def _summary(case: Case, found: list[Measurement]) -> dict[str, Any]:
    latencies = [latency * 1000 for one in found for latency in one.latencies]
    return {
        "operation": case.operation,
        "contender": case.contender,
        "workers": case.workers,
        "per_second": spread([one.per_second for one in found]),
        "p50_ms": significant(percentile(latencies, 50)),
        "p99_ms": significant(percentile(latencies, 99)),
        "round_trips_per_op": significant(sum(one.trips for one in found) / len(found)),
        "api_calls": sum(one.calls for one in found),
        "empty": sum(one.empty for one in found),
        "doubled": sum(one.doubled for one in found),
        "lost": sum(one.lost for one in found),
        "rounds_per_second": [significant(one.per_second) for one in found],
    }


def run(effort: Effort) -> dict[str, Any]:
    """Measure each operation of both, with 1 to 16 workers."""
    workers = effort.of((1, 4), (1, 2, 4, 8, 16))
    seconds = effort.of(0.2, 0.3)
    kinds = [kind for kind in CONTENDERS if not effort.quick or kind[0] == "tick"]
    with private_server() as server, started(max(workers)) as team, server.client() as client:
        facts = environment(server)
        _fill(client)
        cases = [Case(*kind, count) for kind in kinds for count in workers]
        found = interleave(
            cases, effort.of(2, 5), lambda case: _measure(case, client, team, server.socket, seconds), "grouped buffer"
        )
    rows = [_summary(case, measurements) for case, measurements in found.items()]
    return {"environment": facts, "seconds": seconds, "groups": CHOSEN, "size": SIZE, "results": rows}


def claims(result: dict[str, Any]) -> list[Claim]:
    """Say what the documentation says of this part."""
    ticks = {(row["contender"], row["workers"]): row for row in result["results"] if row["operation"] == "tick"}
    ours = [row for (contender, _), row in ticks.items() if contender.startswith("redisq")]
    one, other = ticks["redisq", 1], ticks["recipe", 1]
    wrong = sum(row["empty"] + row["doubled"] + row["lost"] for row in ours)
    return [
        Claim.ratio("tick, 1 flusher: redisq / recipe", one["rounds_per_second"], other["rounds_per_second"], 2),
        Claim("tick: round trips with redisq", [one["round_trips_per_op"]], 1.01, at_most=True),
        Claim.none("tick: empty or doubled API calls and lost items with redisq", wrong),
    ]
