"""The scripts do what the model says: generated steps, every reply and the whole key space after each.

The same steps run on fakeredis and on every real server, one example blocking and the next through asyncio, with
injected time. A call that is sent twice is a step like any other.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from redisq import BYTES, Grant, Item, Pushed, Rate, State
from redisq.ops import BufferOps, BufferStats, LimitOps, PriorityOps, PriorityStats
from redisq.ops.priority import PLACES

from . import keyspace, model
from .backends import Backends

EXAMPLES = 200 if os.environ.get("CI") else 40

AWKWARD = [
    "default",
    "groups",
    "since",
    "items",
    "items:a",
    ":",
    "a:b",
    " ",
    "\n",
    "\0",
    "é",
    "😀",
    "{a}",
    "*",
    "\udcff",
]

groups = st.sampled_from(AWKWARD) | st.text(min_size=1, max_size=4, alphabet=st.characters(exclude_categories=["Cs"]))
payloads = st.sampled_from([b"", b"a", b"\0", b"\xff\xfe", b" ", b"0", b"-"]) | st.binary(max_size=8)
members = st.sampled_from([b"a", b"b", b"c", b"d", b"", b" ", b"\0", b"\xff", b"- -"])
flavours = st.sampled_from(["blocking", "asyncio"])
PUSHED = {"A": Pushed.ADDED, "R": Pushed.RAISED, "K": Pushed.KEPT}


class Machine(RuleBasedStateMachine):
    """Keep the clock, the servers and the calls that may be sent again."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000
        self.tokens = (f"t{i}" for i in count())
        self.sent: list[tuple[Callable[[], Any], Callable[[], object]]] = []

    @initialize(flavour=flavours)
    def start(self, flavour: str) -> None:
        self.backends = Backends(flavour)

    def step(self, make: Callable[[], Any], expect: Callable[[], object], *, again: bool = False) -> None:
        """Run a call on the model and on every server; `again`: it may be sent once more later."""
        self.backends.run(make, self.now, expect())
        if again:
            self.sent.append((make, expect))

    @rule(ms=st.integers(0, 3000))
    def pass_time(self, ms: int) -> None:
        self.now += ms

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def send_again(self, data: st.DataObject) -> None:
        self.step(*data.draw(st.sampled_from(self.sent)))

    def teardown(self) -> None:
        if hasattr(self, "backends"):
            self.backends.close()

    def same_keys(self, queue: bytes, expected: model.Keys) -> None:
        for backend in self.backends.all:
            found = keyspace.read(backend.client, queue)
            assert found == expected, backend.label


class BufferMachine(Machine):
    """Generate steps for the grouped batch buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.model = model.Buffer()
        self.ops = BufferOps("q", codec=BYTES)

    @rule(items=st.lists(payloads, max_size=5), group=groups, front=st.booleans())
    def push(self, items: list[bytes], group: str, front: bool) -> None:
        token = next(self.tokens)
        op = self.ops.push(items, group, token, front=front)
        name = group.encode("utf-8", "surrogateescape")
        self.step(lambda: op, lambda: self.model.push(self.now, name, items, token.encode(), front), again=True)

    @rule(group=groups, size=st.integers(1, 6))
    def pop(self, group: str, size: int) -> None:
        name = group.encode("utf-8", "surrogateescape")
        self.step(lambda: self.ops.pop(group, size), lambda: self.model.pop(self.now, name, size))

    @rule(count=st.integers(1, 4))
    def longest(self, count: int) -> None:
        self.step(
            lambda: self.ops.longest_groups(count),
            lambda: {g.decode("utf-8", "surrogateescape"): n for g, n in self.model.longest(count)},
        )

    @rule(count=st.integers(1, 4), size=st.integers(1, 6))
    def pop_longest(self, count: int, size: int) -> None:
        self.step(
            lambda: self.ops.pop_longest(count, size),
            lambda: {
                g.decode("utf-8", "surrogateescape"): items
                for g, items in self.model.pop_longest(self.now, count, size)
            },
        )

    @rule()
    def stats(self) -> None:
        waiting, groups, oldest = self.model.stats(self.now)
        self.step(self.ops.stats, lambda: BufferStats(waiting, groups, None if oldest is None else oldest / 1000))

    @rule(repair=st.booleans())
    def audit(self, repair: bool) -> None:
        for backend in self.backends.all:
            assert backend.talk(self.ops.audit(repair), self.now).findings == []

    @rule()
    def purge(self) -> None:
        self.step(self.ops.purge, self.model.purge)

    @invariant()
    def keys_agree(self) -> None:
        if hasattr(self, "backends"):
            self.same_keys(b"redisq:{q}:", self.model.keys())


class PriorityMachine(Machine):
    """Generate steps for the unique priority queue."""

    order = "fifo"
    priorities: st.SearchStrategy[float] = st.integers(-1024, 1023) | st.integers(0, 2)

    def __init__(self) -> None:
        super().__init__()
        self.model = model.Priority(self.order)
        self.ops: PriorityOps[bytes] = PriorityOps("q", codec=BYTES, order=self.order)  # type: ignore[arg-type]

    def items(self, triples: list[tuple[bytes, float, int]]) -> list[Item[bytes]]:
        return [Item(m, score // PLACES if self.order == "fifo" else score, tries) for m, score, tries in triples]

    @rule(data=st.data(), member=members, delay=st.sampled_from([0, 0, 1, 1500]))
    def push(self, data: st.DataObject, member: bytes, delay: int) -> None:
        priority, token = data.draw(self.priorities), next(self.tokens)
        op = self.ops.push(member, priority, delay=delay / 1000, token=token)
        pairs = [(priority, member)]
        self.step(lambda: op, lambda: PUSHED[self.model.push(self.now, pairs, delay, token.encode())], again=True)

    @rule(data=st.data(), delay=st.sampled_from([0, 0, 700]))
    def push_many(self, data: st.DataObject, delay: int) -> None:
        pairs = data.draw(st.lists(st.tuples(members, self.priorities), max_size=6))
        token = next(self.tokens)

        def expect() -> object:
            turned = [(priority, member) for member, priority in pairs]
            outcomes = self.model.push(self.now, turned, delay, f"{token}:0".encode())
            return {PUSHED[letter]: outcomes.count(letter) for letter in outcomes}

        self.step(lambda: self.ops.push_many(pairs, delay=delay / 1000, token=token), expect, again=True)

    @rule(count=st.integers(1, 4))
    def pop_many(self, count: int) -> None:
        self.step(lambda: self.ops.pop_many(count), lambda: self.items(self.model.pop(self.now, count)))

    @rule(count=st.integers(1, 4))
    def peek(self, count: int) -> None:
        self.step(lambda: self.ops.peek(count), lambda: self.items(self.model.peek(count)))

    @rule(member=members)
    def state(self, member: bytes) -> None:
        self.step(lambda: self.ops.state(member), lambda: State(self.model.state(member)))

    @rule(gone=st.lists(members, max_size=3))
    def remove(self, gone: list[bytes]) -> None:
        token = next(self.tokens)
        op = self.ops.remove(gone, token)
        self.step(lambda: op, lambda: self.model.remove(gone, token.encode()), again=True)

    @rule()
    def stats(self) -> None:
        def expect() -> object:
            counts = self.model.stats()
            return PriorityStats(counts["ready"], counts["delayed"], counts["leased"], counts["dead"], None)

        self.step(self.ops.stats, expect)

    @rule(repair=st.booleans())
    def audit(self, repair: bool) -> None:
        for backend in self.backends.all:
            assert backend.talk(self.ops.audit(repair), self.now).findings == []

    @rule()
    def purge(self) -> None:
        self.step(self.ops.purge, self.model.purge)

    @invariant()
    def keys_agree(self) -> None:
        if hasattr(self, "backends"):
            self.same_keys(b"redisq:{q}:", self.model.keys())


class ScoreMachine(PriorityMachine):
    """Generate the same steps with any finite number as a priority."""

    order = "score"
    priorities = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, 0.1, -1.5, 2.0**60])


class LimitMachine(Machine):
    """Generate steps for the rate limiter."""

    rates = ((3, 1000), (7, 5000), (100, 60_000))

    def __init__(self) -> None:
        super().__init__()
        self.model = model.Limit(list(self.rates))
        self.ops = LimitOps("q", tuple(Rate(limit, per / 1000) for limit, per in self.rates))

    @rule(cost=st.integers(1, 8))
    def acquire(self, cost: int) -> None:
        token = next(self.tokens)
        op = self.ops.acquire(cost, token)

        def expect() -> object:
            granted, retry = self.model.acquire(self.now, cost, token.encode())
            return Grant(granted, retry / 1000)

        # An empty answer is not remembered: sent again, it may be granted, so only the model can say.
        self.step(lambda: op, expect, again=True)

    @rule(ms=st.integers(1, 500))
    def clock_is_set_back(self, ms: int) -> None:
        self.now -= ms

    @invariant()
    def keys_agree(self) -> None:
        if hasattr(self, "backends"):
            self.same_keys(b"redisq:{q}:", self.model.keys())

    @invariant()
    def no_span_has_more(self) -> None:
        for limit, per in self.rates:
            for start, _ in self.model.grants:
                assert sum(n for at, n in self.model.grants if start <= at <= start + per) <= limit


@pytest.mark.timeout(900)
@pytest.mark.server
@pytest.mark.parametrize("machine", [BufferMachine, PriorityMachine, ScoreMachine, LimitMachine])
def test_scripts_follow_the_model(machine: type[Machine]) -> None:
    """Run generated steps on the model and on every server."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
