"""The scripts do what the model says: generated steps, every reply and the whole key space after each.

The same steps run on fakeredis and on every real server, one example blocking and the next through asyncio, with
injected time. A call that is sent twice is a step like any other.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any, Literal

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

from redisq import BYTES, Grant, Item, LeaseLost, Pushed, Rate, State
from redisq.ops import BufferOps, BufferStats, Buried, Lease, LimitOps, PriorityOps, PriorityStats, Reserved, Settled
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
members = st.sampled_from([b"a", b"", b" ", b"\0\xff", b"- -"])  # few, so that steps meet
passing = st.sampled_from([0, 0, 1, 400, 700, 1000, 1001, 2100, 5000])
flavours = st.sampled_from(["blocking", "asyncio"])
PUSHED = {"A": Pushed.ADDED, "R": Pushed.RAISED, "K": Pushed.KEPT}


def _lease(lease: Lease[bytes] | None) -> object:
    return lease and [lease.id, lease.group, lease.items, lease.attempts, lease.deadline]


def _reserved(reserved: Reserved[bytes]) -> object:
    return _lease(reserved.lease), reserved.retry, reserved.buried


class Machine(RuleBasedStateMachine):
    """Keep the clock, the servers and the calls that may be sent again."""

    model: Any

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000
        self.steps = 0
        self.tokens = (f"t{i}" for i in count())
        self.sent: list[tuple[Callable[[], Any], Callable[[], object], Callable[[Any], object]]] = []

    @initialize(flavour=flavours, data=st.data())
    def start(self, flavour: str, data: st.DataObject) -> None:
        self.configure(data)
        self.backends = Backends(flavour)

    def configure(self, data: st.DataObject) -> None:
        """Draw the settings of the queue."""

    def step(
        self,
        make: Callable[[], Any],
        expect: Callable[[], object],
        *,
        again: bool = False,
        seen: Callable[[Any], object] = lambda answer: answer,
    ) -> None:
        """Run a call on the model and on every server; `again`: it may be sent once more later."""
        self.steps += 1
        try:
            expected = expect()
        except model.Lost:
            expected = LeaseLost
        self.backends.run(make, self.now, expected, seen)
        if again:
            self.sent.append((make, expect, seen))

    def pass_time(self, ms: int) -> None:
        self.now += ms

    @precondition(lambda self: hasattr(getattr(self, "model", None), "token"))
    @rule()
    def somebody_takes_the_token(self) -> None:
        self.model.token = False
        for backend in self.backends.all:
            backend.client.delete("redisq:{q}:wake")

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def send_again(self, data: st.DataObject) -> None:
        make, expect, seen = data.draw(st.sampled_from(self.sent))
        self.step(make, expect, seen=seen)

    def teardown(self) -> None:
        if hasattr(self, "backends"):
            self.backends.close()

    def same_keys(self, queue: bytes, expected: model.Keys) -> None:
        for backend in self.backends.all:
            found = keyspace.read(backend.client, queue)
            assert found == expected, backend.label


def seconds(ms: int | None) -> float | None:
    return None if ms is None else ms / 1000


def name_of(group: bytes) -> str:
    return group.decode("utf-8", "surrogateescape")


LEASES = [1, 500, 2000]
DELAYS = [0, 0, 1, 700]
RATES = ((2, 1000), (5, 10_000))


PRIORITIES: dict[str, st.SearchStrategy[Any]] = {
    "fifo": st.integers(-1024, 1023) | st.integers(0, 2),
    "score": st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, 0.1, -1.5, 2.0**60]),
}


class BufferMachine(Machine):
    """Generate steps for the grouped batch buffer."""

    SETTINGS = (
        (1, 3000, 0, ()),
        (3, 900, 2, RATES),  # batches must be large or old, they die, and their rate is limited
        (1, 0, 1, ()),  # no group is ever due
    )
    held: list[Lease[bytes]]

    def configure(self, data: st.DataObject) -> None:
        min_size, max_wait, max_attempts, rates = data.draw(st.sampled_from(self.SETTINGS))
        self.groups = data.draw(st.lists(groups, min_size=2, max_size=3, unique=True))  # few, so that steps meet
        limit = model.Limit(list(rates)) if rates else None
        self.held = []
        self.model = model.Buffer(2000, min_size, max_wait, max_attempts, limit)
        self.ops = BufferOps(
            "q",
            codec=BYTES,
            lease=2,
            min_size=min_size,
            max_wait=seconds(max_wait or None),
            max_attempts=max_attempts or None,
            rates=[Rate(limit, per / 1000) for limit, per in rates],
        )

    @rule(items=st.lists(payloads, max_size=5), which=st.integers(0, 2), front=st.booleans())
    def push(self, items: list[bytes], which: int, front: bool) -> None:
        group = self.groups[which % len(self.groups)]
        token = next(self.tokens)
        op = self.ops.push(items, group, token, front=front)
        name = group.encode("utf-8", "surrogateescape")
        self.step(lambda: op, lambda: self.model.push(self.now, name, items, token.encode(), front), again=True)

    @rule(which=st.integers(0, 2), size=st.integers(1, 6))
    def pop(self, which: int, size: int) -> None:
        group = self.groups[which % len(self.groups)]
        name = group.encode("utf-8", "surrogateescape")
        self.step(lambda: self.ops.pop(group, size), lambda: self.model.pop(self.now, name, size))

    @rule(count=st.integers(1, 4))
    def longest(self, count: int) -> None:
        self.step(
            lambda: self.ops.longest_groups(count),
            lambda: {name_of(group): length for group, length in self.model.longest(count)},
        )

    @rule(count=st.integers(1, 4), size=st.integers(1, 6))
    def pop_longest(self, count: int, size: int) -> None:
        self.step(
            lambda: self.ops.pop_longest(count, size),
            lambda: {name_of(group): items for group, items in self.model.pop_longest(self.now, count, size)},
        )

    @rule(size=st.integers(1, 6), lease=st.sampled_from(LEASES), ms=passing)
    def reserve(self, size: int, lease: int, ms: int) -> None:
        self.pass_time(ms)
        token = next(self.tokens)

        def expect() -> object:
            batch, retry, buried = self.model.reserve(self.now, size, token.encode(), lease)
            named = [Buried(name.decode(), name_of(group), attempts) for name, group, attempts in buried]
            held = batch and [token, name_of(batch.group), list(batch.items), batch.attempts, batch.time / 1000]
            return held, (None if retry < 0 else retry / 1000), named

        make = partial(self.ops.reserve_once, size, lease=lease / 1000, lease_id=token)
        self.step(make, expect, again=True, seen=_reserved)
        batch = self.model.batches.get(token.encode())
        if batch:
            items = list(batch.items)
            self.held.append(Lease(token, name_of(batch.group), items, batch.attempts, 0, items))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), delay=st.sampled_from(DELAYS))
    def ack(self, data: st.DataObject, delay: int) -> None:
        lease = data.draw(st.sampled_from(self.held))
        places = st.integers(0, len(lease.items) - 1)
        failed = data.draw(st.sampled_from([set(), set()]) | st.sets(places, max_size=2))
        marked = replace(lease, failed=failed)
        # After a hand-over with fewer items, a place may be out of range: the model has no such step.
        held = self.model.batches.get(lease.id.encode())
        if held and failed and max(failed) >= len(held.items):
            return
        self.step(
            lambda: self.ops.ack([marked], delay / 1000),
            lambda: Settled(self.model.ack(self.now, lease.id.encode(), sorted(failed), delay), []),
        )

    @precondition(lambda self: self.held)
    @rule(data=st.data(), delay=st.sampled_from(DELAYS), counted=st.sampled_from([True, True, False]))
    def release(self, data: st.DataObject, delay: int, counted: bool) -> None:
        lease = data.draw(st.sampled_from(self.held))
        self.step(
            lambda: self.ops.release([lease], delay / 1000, counted=counted),
            lambda: Settled(self.model.release(self.now, lease.id.encode(), delay, counted), []),
        )

    @precondition(lambda self: self.held)
    @rule(data=st.data(), lease=st.sampled_from(LEASES))
    def extend(self, data: st.DataObject, lease: int) -> None:
        held = data.draw(st.sampled_from(self.held))

        self.step(
            lambda: self.ops.extend([held], lease / 1000),
            lambda: self.model.extend(self.now, held.id.encode(), lease) / 1000,
            seen=lambda _: held.deadline,
        )

    @rule(limit=st.integers(1, 3), data=st.data())
    def dead(self, limit: int, data: st.DataObject) -> None:
        after = data.draw(st.none() | st.sampled_from([name.decode() for name in self.model.batches] or ["x"]))

        def expect() -> object:
            found = self.model.dead(limit, (after or "").encode())
            return [[n.decode(), name_of(b.group), b.items, b.attempts, b.time / 1000] for n, b in found]

        self.step(lambda: self.ops.dead(limit, after), expect, seen=lambda found: [_lease(one) for one in found])

    @rule(data=st.data(), again=st.booleans())
    def bring_out_the_dead(self, data: st.DataObject, again: bool) -> None:
        there = [n.decode() for n, batch in self.model.batches.items() if batch.place == "dead"]
        names = data.draw(st.lists(st.sampled_from([*there, "x"]), max_size=3))
        token = next(self.tokens)
        op = self.ops.redrive(names, token) if again else self.ops.discard(names, token)
        encoded = [name.encode() for name in names]
        if again:
            self.step(lambda: op, lambda: self.model.redrive(self.now, encoded, token.encode()), again=True)
        else:
            self.step(lambda: op, lambda: self.model.discard(encoded, token.encode()), again=True)

    @rule()
    def stats(self) -> None:
        def expect() -> object:
            found: Any = self.model.stats(self.now)
            oldest, expiry = seconds(found.pop("oldest")), seconds(found.pop("expiry"))
            return BufferStats(**found, oldest_wait=oldest, next_expiry=expiry)

        self.step(self.ops.stats, expect)

    @rule(repair=st.booleans())
    def audit(self, repair: bool) -> None:
        for backend in self.backends.all:
            assert backend.talk(self.ops.audit(repair), self.now).findings == []

    @precondition(lambda self: self.steps % 30 == 29)  # often, it would leave nothing to look at
    @rule()
    def purge(self) -> None:
        self.step(self.ops.purge, self.model.purge)

    @invariant()
    def keys_agree(self) -> None:
        if hasattr(self, "backends"):
            self.same_keys(b"redisq:{q}:", self.model.keys())


class PriorityMachine(Machine):
    """Generate steps for the unique priority queue."""

    SETTINGS: tuple[tuple[Literal["fifo", "score"], int, tuple[tuple[int, int], ...]], ...] = (
        ("fifo", 0, ()),
        ("fifo", 2, RATES),  # members die, and their rate is limited
        ("score", 3, ()),
    )
    held: list[Lease[bytes]]

    def configure(self, data: st.DataObject) -> None:
        self.order, max_attempts, rates = data.draw(st.sampled_from(self.SETTINGS))
        self.priorities: st.SearchStrategy[Any] = PRIORITIES[self.order]
        limit = model.Limit(list(rates)) if rates else None
        self.held = []
        self.model = model.Priority(self.order, 2000, max_attempts, limit)
        self.ops: PriorityOps[bytes] = PriorityOps(
            "q",
            codec=BYTES,
            order=self.order,
            lease=2,
            max_attempts=max_attempts or None,
            rates=[Rate(limit, per / 1000) for limit, per in rates],
        )

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

    @rule(count=st.integers(1, 4), ms=passing)
    def pop_many(self, count: int, ms: int) -> None:
        self.pass_time(ms)
        self.step(lambda: self.ops.pop_many(count), lambda: self.items(self.model.pop(self.now, count)))

    @rule(size=st.integers(1, 4), lease=st.sampled_from(LEASES), ms=passing)
    def reserve(self, size: int, lease: int, ms: int) -> None:
        self.pass_time(ms)
        token = next(self.tokens)

        def expect() -> object:
            taken, deadline, retry, dead = self.model.reserve(self.now, size, token.encode(), lease)
            names = [member for member, _ in taken]
            held = [token, None, names, max(n for _, n in taken), deadline / 1000] if taken else None
            return held, (None if retry < 0 else retry / 1000), [Buried(member) for member in dead]

        make = partial(self.ops.reserve_once, size, lease=lease / 1000, lease_id=token)
        self.step(make, expect, again=True, seen=_reserved)
        taken = self.model.leases.get(token.encode(), [b""])[1:]
        if taken:
            self.held.append(Lease(token, None, taken, 1, 0, taken))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def ack(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(self.held))
        self.step(
            lambda: self.ops.ack([lease]),
            lambda: Settled(self.model.ack(self.now, lease.id.encode(), lease.raw), []),
        )

    @precondition(lambda self: self.held)
    @rule(data=st.data(), delay=st.sampled_from(DELAYS))
    def ack_but_for_some(self, data: st.DataObject, delay: int) -> None:
        lease = data.draw(st.sampled_from(self.held))
        failed = data.draw(st.sets(st.integers(0, len(lease.items) - 1), min_size=1))

        def expect() -> Settled:
            name, total, lost = lease.id.encode(), 0, True
            dead: list[bytes] = []
            done = [member for i, member in enumerate(lease.raw) if i not in failed]
            if done:
                with contextlib.suppress(model.Lost):
                    total = self.model.ack(self.now, name, done)
                    lost = False
            with contextlib.suppress(model.Lost):
                _, dead = self.model.release(self.now, name, [lease.raw[i] for i in sorted(failed)], delay)
                lost = False
            if lost:
                raise model.Lost
            return Settled(total, [Buried(member) for member in dead])

        self.step(lambda: self.ops.ack([replace(lease, failed=failed)], delay / 1000), expect)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), delay=st.sampled_from(DELAYS), counted=st.sampled_from([True, True, False]))
    def release(self, data: st.DataObject, delay: int, counted: bool) -> None:
        lease = data.draw(st.sampled_from(self.held))

        def expect() -> object:
            back, dead = self.model.release(self.now, lease.id.encode(), lease.raw, delay, counted)
            return back, [Buried(member) for member in dead]

        self.step(lambda: self.ops.release([lease], delay / 1000, counted=counted), expect)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), lease=st.sampled_from(LEASES))
    def extend(self, data: st.DataObject, lease: int) -> None:
        held = data.draw(st.sampled_from(self.held))

        self.step(
            lambda: self.ops.extend([held], lease / 1000),
            lambda: self.model.extend(self.now, held.id.encode(), held.raw, lease) / 1000,
            seen=lambda _: held.deadline,
        )

    @rule(limit=st.integers(1, 3), after=st.none() | members)
    def dead(self, limit: int, after: bytes | None) -> None:
        self.step(lambda: self.ops.dead(limit, after), lambda: self.items(self.model.dead(limit, after or b"")))

    @rule(chosen=st.lists(members, max_size=3), again=st.booleans())
    def bring_out_the_dead(self, chosen: list[bytes], again: bool) -> None:
        token = next(self.tokens)
        op = self.ops.redrive(chosen, token) if again else self.ops.discard(chosen, token)
        act = self.model.redrive if again else self.model.discard
        self.step(lambda: op, lambda: act(chosen, token.encode()), again=True)

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
            found: Any = self.model.stats()
            first = seconds(found["expiry"])
            return PriorityStats(found["ready"], found["delayed"], found["leased"], found["dead"], first)

        self.step(self.ops.stats, expect)

    @rule(repair=st.booleans())
    def audit(self, repair: bool) -> None:
        for backend in self.backends.all:
            assert backend.talk(self.ops.audit(repair), self.now).findings == []

    @precondition(lambda self: self.steps % 30 == 29)  # often, it would leave nothing to look at
    @rule()
    def purge(self) -> None:
        self.step(self.ops.purge, self.model.purge)

    @invariant()
    def keys_agree(self) -> None:
        if hasattr(self, "backends"):
            self.same_keys(b"redisq:{q}:", self.model.keys())


class LimitMachine(Machine):
    """Generate steps for the rate limiter."""

    rates = ((3, 1000), (7, 5000), (100, 60_000))

    def __init__(self) -> None:
        super().__init__()
        self.model = model.Limit(list(self.rates))
        self.ops = LimitOps("q", tuple(Rate(limit, per / 1000) for limit, per in self.rates))

    @rule(cost=st.integers(1, 8), ms=passing)
    def acquire(self, cost: int, ms: int) -> None:
        self.pass_time(ms)
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
        # Looked at after each step, so that a span with too many would end at the latest grant.
        latest = max((at for at, _ in self.model.grants), default=0)
        for limit, per in self.rates:
            assert sum(n for at, n in self.model.grants if at >= latest - per) <= limit


MACHINES = [BufferMachine, PriorityMachine, LimitMachine]


@pytest.mark.timeout(900)
@pytest.mark.server
@pytest.mark.parametrize("machine", MACHINES)
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
