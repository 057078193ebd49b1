"""A benchmark for your own server: pops and keep-min pushes by several processes at once, and what each way loses.

redisq's priority queue against the ways in use: a transaction with WATCH, a lock, read and then write without either,
and the native command where there is one, which keeps less (no attempts, no wake-up, and a repeated call counts twice).
The full benchmarks of a checkout, `python -m benchmarks`, use these contenders too.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import redis
from redis.exceptions import WatchError

from .blocking import PriorityQueue

Kind = Literal["pop", "push"]
Operation = Callable[[], Any]
"""What a process repeats: a pop returns the member, a push what it asked for."""

SHARED = 1_000  # members that the pushers fight over
FILL = 20_000  # members for each second of pops: more than a server can give to so few processes


@dataclass(frozen=True)
class Place:
    """Where a contender works: a server, and the keys that are its own."""

    url: str
    prefix: str

    @property
    def key(self) -> str:
        """The sorted set of those that are not redisq."""
        return f"{self.prefix}:{{bench}}:plain"

    def queue(self, client: redis.Redis) -> PriorityQueue[str]:
        """Return the queue of redisq, in the order that a plain sorted set has."""
        return PriorityQueue(client, "bench", order="score", prefix=self.prefix)


# -- pops


def _pop_redisq(client: redis.Redis, place: Place) -> Operation:
    queue = place.queue(client)

    def pop() -> str | None:
        item = queue.pop()
        return item.member if item else None

    return pop


def _pop_native(client: redis.Redis, place: Place) -> Operation:
    def pop() -> Any:
        popped: Any = client.zpopmin(place.key)
        return popped[0][0] if popped else None

    return pop


def _pop_watch(client: redis.Redis, place: Place) -> Operation:
    def pop() -> Any:
        while True:
            with client.pipeline() as pipe:
                pipe.watch(place.key)  # type: ignore[no-untyped-call]
                first: Any = pipe.zrange(place.key, 0, 0)
                if not first:
                    return None
                pipe.multi()
                pipe.zrem(place.key, first[0])
                try:
                    pipe.execute()
                except WatchError:
                    continue  # another process wrote to the queue meanwhile
                return first[0]

    return pop


def _pop_read_then_remove(client: redis.Redis, place: Place) -> Operation:
    def pop() -> Any:
        first: Any = client.zrange(place.key, 0, 0)
        if first:
            client.zrem(place.key, first[0])
        return first[0] if first else None

    return pop


def _pop_lock(client: redis.Redis, place: Place) -> Operation:
    return _locked(client, place, _pop_read_then_remove(client, place))


def _locked(client: redis.Redis, place: Place, then: Operation) -> Operation:
    def act() -> Any:
        # redis-py's own lock. By default it sleeps 100 ms between two tries; 1 ms is kinder to it here.
        with client.lock(f"{place.prefix}:{{bench}}:lock", timeout=10, sleep=0.001):
            return then()

    return act


# -- pushes that keep the lowest score


def _pushing(push: Callable[[str, int], object]) -> Operation:
    some = random.Random(os.getpid())

    def one() -> tuple[str, int]:
        member, score = f"member-{some.randrange(SHARED)}", some.randrange(1000)
        push(member, score)
        return member, score

    return one


def _push_redisq(client: redis.Redis, place: Place) -> Operation:
    return _pushing(place.queue(client).push)


def _push_native(client: redis.Redis, place: Place) -> Operation:
    return _pushing(lambda member, score: client.zadd(place.key, {member: score}, lt=True))


def _push_watch(client: redis.Redis, place: Place) -> Operation:
    def push(member: str, score: int) -> None:
        while True:
            with client.pipeline() as pipe:
                pipe.watch(place.key)  # type: ignore[no-untyped-call]
                stored: Any = pipe.zscore(place.key, member)
                if stored is not None and stored <= score:
                    return
                pipe.multi()
                pipe.zadd(place.key, {member: score})
                try:
                    pipe.execute()
                except WatchError:
                    continue
                return

    return _pushing(push)


def _push_read_then_add(client: redis.Redis, place: Place) -> Operation:
    def push(member: str, score: int) -> None:
        stored: Any = client.zscore(place.key, member)
        if stored is None or score < stored:
            client.zadd(place.key, {member: score})

    return _pushing(push)


def _push_lock(client: redis.Redis, place: Place) -> Operation:
    return _locked(client, place, _push_read_then_add(client, place))


CONTENDERS: dict[tuple[Kind, str], Callable[[redis.Redis, Place], Operation]] = {
    ("pop", "redisq"): _pop_redisq,
    ("pop", "WATCH"): _pop_watch,
    ("pop", "lock"): _pop_lock,
    ("pop", "read, then remove"): _pop_read_then_remove,
    ("pop", "ZPOPMIN"): _pop_native,
    ("push", "redisq"): _push_redisq,
    ("push", "WATCH"): _push_watch,
    ("push", "lock"): _push_lock,
    ("push", "read, then add"): _push_read_then_add,
    ("push", "ZADD LT"): _push_native,
}


# -- measuring


@dataclass(frozen=True)
class Result:
    """What all processes of one contender did together."""

    kind: Kind
    contender: str
    per_second: float
    lost: int
    """Members that are gone and reached nobody."""
    doubled: int
    """Members that reached two."""
    weaker: int
    """Members whose lowest score did not win."""


def run(url: str, processes: int = 8, seconds: float = 1.0) -> Iterator[Result]:
    """Measure every contender on a server, one after the other; what it needs there is removed at the end."""
    place = Place(url, f"redisq-bench-{os.urandom(4).hex()}")
    context = multiprocessing.get_context("spawn")  # a fork would share the parent's connections
    barrier = context.Barrier(processes)
    with (
        redis.Redis.from_url(url) as client,
        ProcessPoolExecutor(processes, context, initializer=_begin, initargs=(barrier,)) as pool,
    ):
        try:
            for kind, contender in CONTENDERS:
                _clear(client, place)
                filled = _fill(client, place, round(FILL * seconds)) if kind == "pop" else 0
                tasks = [pool.submit(_work, kind, contender, place, seconds) for _ in range(processes)]
                done = [task.result() for task in tasks]
                rate = sum(len(results) / elapsed for elapsed, results in done)
                results = [one for _, some in done for one in some]
                check = _check_pops if kind == "pop" else _check_pushes
                yield Result(kind, contender, rate, *check(client, place, contender, results, filled))
        finally:
            _clear(client, place)


_barrier: Any = None


def _begin(barrier: Any) -> None:
    global _barrier
    _barrier = barrier


def _work(kind: Kind, contender: str, place: Place, seconds: float) -> tuple[float, list[Any]]:
    """Repeat an operation, beginning together with the other processes."""
    with redis.Redis.from_url(place.url) as client:
        operation = CONTENDERS[kind, contender](client, place)
        client.ping()
        _barrier.wait()
        results = []
        began = time.perf_counter()
        while time.perf_counter() < began + seconds:
            if (one := operation()) is None:
                break  # nothing is left to pop
            results.append(one)
        return time.perf_counter() - began, results


def _clear(client: redis.Redis, place: Place) -> None:
    client.unlink(*(f"{place.prefix}:{{bench}}:{key}" for key in ("plain", "lock", "ready", "meta", "wake")))
    for key in client.scan_iter(f"{place.prefix}:*", count=1000):  # what redisq remembers of pushes
        client.unlink(key)


def _fill(client: redis.Redis, place: Place, count: int) -> int:
    for start in range(0, count, 1000):
        members = {f"member-{number}": number % 1000 for number in range(start, start + 1000)}
        client.zadd(place.key, members)
        place.queue(client).push_many(members)
    return client.zcard(place.key)


def _stored(client: redis.Redis, place: Place, contender: str) -> dict[str, float]:
    if contender == "redisq":
        return {item.member: item.priority for item in place.queue(client).peek(1_000_000)}
    kept: Any = client.zrange(place.key, 0, -1, withscores=True)
    return {member.decode(): score for member, score in kept}


def _check_pops(
    client: redis.Redis, place: Place, contender: str, popped: Sequence[str | bytes], filled: int
) -> tuple[int, int, int]:
    members = Counter(member.decode() if isinstance(member, bytes) else member for member in popped)
    left = len(_stored(client, place, contender))
    return filled - left - len(members), members.total() - len(members), 0


def _check_pushes(
    client: redis.Redis, place: Place, contender: str, pushed: Sequence[tuple[str, int]], _: int
) -> tuple[int, int, int]:
    lowest: dict[str, int] = {}
    for member, score in pushed:
        lowest[member] = min(score, lowest.get(member, score))
    scores = _stored(client, place, contender)
    weaker = sum(scores.get(member, score) != score for member, score in lowest.items())
    return len(lowest.keys() - scores.keys()), 0, weaker
