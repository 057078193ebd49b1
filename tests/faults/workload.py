"""The same workload for both flavours: a generator yields calls and checks answers, a driver makes the calls."""

from __future__ import annotations

import random
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from itertools import cycle
from typing import Any

import redis

from redisq import Pushed

from .proxy import LOST_REQUESTS, SCRIPTS, Fault, Proxy

Call = tuple[str, tuple[Any, ...], dict[str, Any]]
"""The name of a queue's method, and its arguments."""
Workload = Generator[Call, Any, None]

CONNECTION_ERRORS = (redis.ConnectionError, redis.TimeoutError)


class FaultInjector:
    """Injects faults for each call in turn, so that every kind of call meets every kind of fault, and counts them."""

    def __init__(self, proxy: Proxy, seed: int, faults: Sequence[Fault], only: Collection[bytes] = SCRIPTS) -> None:
        self._proxy, self._only = proxy, only
        self._random = random.Random(seed)
        self._begun = sum(proxy.injected.values())
        self._turns: defaultdict[str, Iterator[Fault]] = defaultdict(lambda: cycle(faults))
        self._timed = Fault.SILENT_REPLY in faults
        self._ordered = 0
        self.requests: Counter[str] = Counter()
        self.replies: Counter[str] = Counter()

    def inject(self, name: str) -> None:
        """Inject up to three faults for the next call, which meets another one each time it is sent again."""
        for _ in range(self._random.choices((0, 1, 2, 3), (30, 50, 15, 5))[0]):
            fault = next(self._turns[name])
            self._proxy.inject(fault, only=self._only)
            self._ordered += 1
            (self.requests if fault in LOST_REQUESTS else self.replies)[name] += 1

    def check(self) -> None:
        """Check that the injected faults have happened; a client that times out may leave before its fault."""
        happened = sum(self._proxy.injected.values()) - self._begun
        assert happened == self._ordered or (self._timed and happened > 0.9 * self._ordered)

    @property
    def faults(self) -> int:
        """Return how many requests and replies were lost so far."""
        return self._ordered


def drive(workload: Workload, queue: Any, injector: FaultInjector) -> None:
    """Repeat each call until it is answered, as a user does whose connection broke."""
    answer: Any = None
    while (call := _next(workload, answer)) is not None:
        name, args, options = call
        injector.inject(name)
        while True:
            try:
                answer = getattr(queue, name)(*args, **options)
                break
            except CONNECTION_ERRORS:
                pass
    injector.check()


async def adrive(workload: Workload, queue: Any, injector: FaultInjector) -> None:
    """Do the same with asyncio."""
    answer: Any = None
    while (call := _next(workload, answer)) is not None:
        name, args, options = call
        injector.inject(name)
        while True:
            try:
                answer = await getattr(queue, name)(*args, **options)
                break
            except CONNECTION_ERRORS:
                pass
    injector.check()


def _next(workload: Workload, answer: Any) -> Call | None:
    try:
        return workload.send(answer)
    except StopIteration:
        return None


def buffer_workload(seed: int, go_on: Callable[[], bool]) -> Workload:
    """Push, push_front, reserve, extend, ack, release, fail, bury, redrive, with one client: every answer is known."""
    rng = random.Random(seed)
    waiting: deque[int] = deque()
    done: Counter[int] = Counter()
    made = 0
    rounds = 0

    def lease_id() -> str:
        return f"lease {rng.random()}"

    while go_on() or waiting:
        rounds += 1
        if go_on():
            for _ in range(rng.randint(1, 3)):
                new = list(range(made, made := made + rng.randint(1, 4)))
                front = rng.random() < 0.5
                waiting = deque([*new, *waiting] if front else [*waiting, *new])
                length = yield "push_front" if front else "push", tuple(new), {"token": f"push {made}"}
                assert length == len(waiting)
        size = rng.randint(1, 6)
        expected = [waiting.popleft() for _ in range(min(size, len(waiting)))]
        batch = yield "reserve", (size,), {"lease_id": lease_id()}
        assert (batch.items, batch.attempts) == (expected, 1)
        attempts = 1
        while True:
            deadline = batch.deadline
            yield "extend", (batch,), {"lease": 1000.0}
            assert batch.deadline > deadline
            fate, reason = rng.random(), f"reason {rng.random()}"
            if fate < 0.3:
                assert (yield "release", (batch,), {"reason": reason}) == len(expected)
            elif fate < 0.5 and len(expected) > 1:
                # Part of the batch failed: only that part comes back.
                failed = rng.sample(expected, rng.randint(1, len(expected) - 1))
                batch.fail(*failed, reason=reason)
                assert (yield "ack", (batch,), {}) == len(expected) - len(failed)
                done.update(set(expected) - set(failed))
                expected = [item for item in expected if item in failed]
            elif fate < 0.65:
                assert (yield "bury", (batch,), {"reason": "it is bad"}) == len(expected)
                assert (yield "redrive", (batch.id,), {"token": f"redrive {rng.random()}"}) == 1
                waiting = deque([*expected, *waiting])
                break
            else:
                assert (yield "ack", (batch,), {}) == len(expected)
                done.update(expected)
                break
            attempts += 1
            batch = yield "reserve", (10,), {"lease_id": lease_id()}
            assert (batch.items, batch.attempts, batch.reason) == (expected, attempts, reason)
    assert (yield "reserve", (10,), {"lease_id": lease_id()}) is None
    assert done == Counter(range(made))
    stats = yield "stats", (), {}
    assert (stats.waiting, stats.leased, stats.delayed, stats.dead) == (0, 0, 0, 0)
    assert (yield "audit", (), {}).ok


def priority_workload(seed: int, go_on: Callable[[], bool]) -> Workload:
    """Push, raise, replace, push while leased, reserve, extend, ack, release, fail, bury, redrive, with one client."""
    rng = random.Random(seed)
    ready: dict[str, tuple[int, int]] = {}  # member -> priority and place
    done: Counter[str] = Counter()
    pushed: Counter[str] = Counter()
    made, places = 0, 0

    def lease_id() -> str:
        return f"lease {rng.random()}"

    def place() -> int:
        nonlocal places
        places += 1
        return places

    while go_on() or ready:
        if go_on():
            for _ in range(rng.randint(1, 3)):
                made += 1
                member, priority = f"member {made}", rng.randint(-3, 3)
                ready[member] = priority, place()
                pushed[member] += 1
                options = {"token": f"push {made}", "payload": made}
                assert (yield "push", (member, priority), options) is Pushed.ADDED
            if rng.random() < 0.5:
                # A raise that took effect twice would answer KEPT.
                ready[member] = priority - 1, place()
                assert (yield "push", (member, priority - 1), {"token": f"raise {made}"}) is Pushed.RAISED
                ready[member] = priority, place()  # less urgent again, and the last of its priority
                options = {"token": f"replace {made}", "replace": True}
                assert (yield "push", (member, priority), options) is Pushed.CHANGED
        size = rng.randint(1, 4)
        expected = sorted(ready, key=ready.__getitem__)[:size]
        held = {member: ready.pop(member) for member in expected}
        batch = yield "reserve", (size,), {"lease_id": lease_id()}
        assert (batch.items, batch.payloads) == (expected, [int(member.split()[1]) for member in expected])
        deadline = batch.deadline
        yield "extend", (batch,), {"lease": 1000.0}
        assert batch.deadline > deadline
        fate = rng.random()
        if fate < 0.3:
            assert (yield "release", (batch,), {}) == len(expected)
            ready |= held
            continue
        if fate > 0.85:
            assert (yield "bury", (batch,), {"reason": "it is bad"}) == len(expected)
            assert (yield "redrive", tuple(expected), {"token": f"redrive {rng.random()}"}) == len(expected)
            ready |= held
            continue
        if fate < 0.5:
            # Pushed while it is leased: it comes once more. A push that took effect twice would answer KEPT.
            assert (yield "push", (expected[0], 3), {"token": f"again {rng.random()}"}) is Pushed.ADDED
            ready[expected[0]] = 3, place()
            pushed[expected[0]] += 1
        elif fate < 0.7 and len(expected) > 1:
            batch.fail(expected.pop())
            ready[batch.items[-1]] = held[batch.items[-1]]
        assert (yield "ack", (batch,), {}) == len(expected)
        done.update(expected)
    assert (yield "reserve", (), {"lease_id": lease_id()}) is None
    assert done == pushed
    stats = yield "stats", (), {}
    assert (stats.waiting, stats.leased, stats.delayed, stats.dead) == (0, 0, 0, 0)
    assert (yield "audit", (), {}).ok


WORKLOADS = {"buffer": buffer_workload, "priority": priority_workload}
