"""Contention: the priority queue's pop and keep-min push, by more and more worker processes at once.

Against the recipe's WATCH version, the racy one without it, a lock, and the native commands, which keep less: ZPOPMIN
forgets attempts and wakes nobody, ZADD LT does not say what it did and adds twice what is sent twice. Each contender
carries what it got wrong.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any

import redis

from redisq.bench import CONTENDERS, Kind, Operation, Place
from redisq.embedded import Server

from .latency_proxy import delayed
from .measure import Claim, Effort, environment, interleave, percentile, private_server, significant, spread
from .workers import Done, Job, Workers, started

DELAY = 0.001  # seconds that the proxy adds to a round trip
POPS = 120_000  # members for each second of a round: more than one server here can pop
SOURCE = "source"
READY = "redisq:{bench}:ready"

CLAIMED = [("pop", "redisq"), ("pop", "WATCH"), ("pop", "ZPOPMIN"), ("push", "redisq")]


@dataclass(frozen=True)
class Case:
    """One thing to measure."""

    operation: Kind
    contender: str
    workers: int
    line: str


PLACE = Place("", "redisq")


def _prepare(kind: Kind, contender: str, client: redis.Redis, _: int) -> Operation:
    return CONTENDERS[kind, contender](client, PLACE)


@dataclass(frozen=True)
class Measurement:
    """What all workers of one round did together."""

    per_second: float
    latencies: list[float]
    trips: float
    lost: int
    twice: int
    out_of_order: int


def _check_pops(client: redis.Redis, done: list[Done], key: str, filled: int) -> tuple[int, int, int]:
    """Count members that are gone and reached nobody, that reached two, and that came before a more urgent one."""
    popped = [[_number(member) for member in one.results] for one in done]
    members = Counter(number for line in popped for number in line)
    lost = filled - client.zcard(key) - len(members)
    scores = (itertools.pairwise(number % 1000 for number in line) for line in popped)
    return lost, members.total() - len(members), sum(a > b for line in scores for a, b in line)


def _number(member: Any) -> int:
    if member is None:
        raise RuntimeError("the queue ran empty: raise POPS")
    return int(member.removeprefix(b"member-" if isinstance(member, bytes) else "member-"))


def _check_pushes(client: redis.Redis, done: list[Done], key: str) -> tuple[int, int, int]:
    """Count members that are not there, and those whose lowest score did not win."""
    lowest: dict[str, int] = {}
    for member, score in (pushed for one in done for pushed in one.results):
        lowest[member] = min(score, lowest.get(member, score))
    kept: Any = client.zrange(key, 0, -1, withscores=True)
    scores = {member.decode(): score for member, score in kept}
    weaker = sum(scores.get(member, score) != score for member, score in lowest.items())
    return len(lowest.keys() - scores.keys()), 0, weaker


def _measure(case: Case, client: redis.Redis, team: Workers, socket: str, seconds: float) -> Measurement:
    """Fill the queue, let the workers loose on it, and add up what they did."""
    for key in client.scan_iter("redisq:*"):
        client.unlink(key)
    filled = client.zcard(SOURCE)
    key = READY if case.contender == "redisq" else PLACE.key
    if case.operation == "pop":
        client.copy(SOURCE, key)
    if case.contender == "redisq":
        client.hset("redisq:{bench}:meta", "queue", "2 score")
    done = team.work(case.workers, Job(partial(_prepare, case.operation, case.contender), socket, seconds))
    operations = sum(len(one.results) for one in done)
    pops = case.operation == "pop"
    wrong = _check_pops(client, done, key, filled) if pops else _check_pushes(client, done, key)
    return Measurement(
        sum(len(one.results) / one.elapsed for one in done),
        [latency for one in done for latency in one.latencies],
        sum(one.trips for one in done) / operations,
        *wrong,
    )


def _summary(case: Case, found: list[Measurement]) -> dict[str, Any]:
    latencies = [latency * 1000 for one in found for latency in one.latencies]
    return {
        "operation": case.operation,
        "contender": case.contender,
        "workers": case.workers,
        "line": case.line,
        "per_second": spread([one.per_second for one in found]),
        "p50_ms": significant(percentile(latencies, 50)),
        "p99_ms": significant(percentile(latencies, 99)),
        "round_trips_per_op": significant(sum(one.trips for one in found) / len(found)),
        "lost": sum(one.lost for one in found),
        "twice": sum(one.twice for one in found),
        "out_of_order": sum(one.out_of_order for one in found),
        "operations": sum(len(one.latencies) for one in found),
        # Contenders stand beside each other in a round, so their ratio is taken round by round.
        "rounds_per_second": [significant(one.per_second) for one in found],
    }


def _line(
    server: Server, team: Workers, effort: Effort, line: str, socket: str, workers: tuple[int, ...], rounds: int
) -> list[dict[str, Any]]:
    seconds = effort.of(0.25, 0.5)
    kinds = [kind for kind in CONTENDERS if not effort.quick or kind in CLAIMED]
    cases = [Case(*kind, count, line) for kind in kinds for count in workers]
    with server.client() as client:
        client.delete(SOURCE)
        for start in range(0, round(POPS * seconds), 1000):
            client.zadd(SOURCE, {f"member-{i}": i % 1000 for i in range(start, start + 1000)})
        found = interleave(
            cases, rounds, lambda case: _measure(case, client, team, socket, seconds), f"contention, {line}"
        )
    return [_summary(case, measurements) for case, measurements in found.items()]


def run(effort: Effort) -> dict[str, Any]:
    """Measure on a unix socket and, unless quick, through a proxy that adds a ms."""
    workers = effort.of((1, 32), (1, 2, 4, 8, 16, 32))
    with private_server() as server, started(max(workers)) as team:
        facts = environment(server)
        rows = _line(server, team, effort, "unix socket", server.socket, workers, effort.of(2, 5))
        if not effort.quick:
            with delayed(server.socket, DELAY) as socket:
                rows += _line(server, team, effort, "1 ms away", socket, workers, 3)
    return {"environment": facts, "seconds": effort.of(0.25, 0.5), "results": rows}


def claims(result: dict[str, Any]) -> list[Claim]:
    """Say what the documentation says of this part."""
    rates = {
        (row["operation"], row["contender"], row["workers"]): row["rounds_per_second"]
        for row in result["results"]
        if row["line"] == "unix socket"
    }
    most = max(workers for _, _, workers in rates)
    wrong = [
        row["lost"] + row["twice"] + row["out_of_order"] for row in result["results"] if row["contender"] == "redisq"
    ]
    found = [
        Claim.ratio(
            f"pop, {most} workers: redisq / WATCH", rates["pop", "redisq", most], rates["pop", "WATCH", most], 25
        ),
        Claim.none("contention: lost, twice or out of order with redisq", sum(wrong)),
    ]
    for workers in sorted({workers for _, _, workers in rates}):
        pair = rates["pop", "redisq", workers], rates["pop", "ZPOPMIN", workers]
        found.append(Claim.ratio(f"pop, {workers} workers: redisq / ZPOPMIN", *pair, None))
    return found
