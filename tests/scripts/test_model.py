"""The scripts do what the model says, through the Python classes: generated steps, every reply and the whole key space.

The same steps run on fakeredis and on a real server, with given times, in turns blocking and through asyncio. Repeated
calls are steps like any other. `tests/scripts/walk.py` does the same without the Python classes, faster and for longer.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from redisq import BYTES, BatchData, Buried, Grant, InvalidArgument, Item, LeaseLost, Nothing, Pushed, Rate, State
from redisq.core.batch import Event
from redisq.core.buffer import BufferCalls, BufferStats
from redisq.core.limiter import LimiterCalls
from redisq.core.priority import PLACES, Order, PriorityCalls, PriorityStats
from redisq.core.queue import holder_bytes
from tests import model
from tests.scripts import keyspace
from tests.scripts.backends import Backends

EXAMPLES = 200 if os.environ.get("CI") else 40
PREFIX = b"redisq:{q}:"
WINDOW = 3600
"""seconds that answers are kept: longer than an example lasts"""
LONG = WINDOW * 1000
"""ms before a pause's end at which it began: longer than an example lasts"""

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
members = st.sampled_from([b"a", b"", b" ", b"\0\xff", b"- -"])  # few, so that steps share them
passing = st.sampled_from([0, 0, 1, 400, 700, 1000, 1001, 2100, 5000, -300])
flavours = st.sampled_from(["blocking", "asyncio"])
holders = st.sampled_from([None, "h", "é \udcff"])
reasons = st.sampled_from([None, "", "boom", "429: é \udcff", "x" * 1200])
leases = st.sampled_from([1, 500, 2000])
delays = st.sampled_from([0, 0, 1, 700])
bounds = st.sampled_from([None, None, 1, 5, 12])
once_in_a_while = st.sampled_from([False, False, False, True])
PUSHED = {"A": Pushed.ADDED, "R": Pushed.RAISED, "C": Pushed.CHANGED, "K": Pushed.KEPT}
Settings = dict[str, Any]
Draw = Callable[[st.SearchStrategy[Any]], Any]


def seconds(ms: float) -> float | None:
    return None if ms < 0 else ms / 1000


def encoded(text: str | None) -> bytes:
    """Return a reason as it is kept: 1,000 bytes at most; characters that UTF-8 cannot encode are escaped."""
    return (text or "").encode("utf-8", "backslashreplace")[:1000]


def name_of(group: bytes) -> str:
    return group.decode("utf-8", "surrogateescape")


def bytes_of(name: str | None) -> bytes:
    return (name or "").encode("utf-8", "surrogateescape")


def _shown(lease: BatchData[bytes]) -> list[object]:
    """Return what a listing shows of a lease."""
    shown = [lease.id, lease.group, lease.items, lease.raw, lease.attempts, lease.deadline, lease.reason, lease.holder]
    return [*shown, lease.priorities, lease.payloads]


def _events(events: list[Event[bytes]]) -> list[object]:
    """Return what a reserve returned, in a form for comparison."""
    return [_shown(event) if isinstance(event, BatchData) else event for event in events]


class Machine(RuleBasedStateMachine):
    """The clock, the servers, the settings and the calls that may be repeated."""

    model: Any
    calls: Any
    settings: Settings
    """the settings of the queue's consumers, by the model's names; rates belong to its limit"""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_700_000_000_000
        self.tokens = (f"t{i}" for i in count())
        self.sent: list[tuple[Settings, Callable[[], Any], Callable[[], object], Callable[[Any], object]]] = []
        self.held: list[BatchData[bytes]] = []

    @initialize(flavour=flavours, data=st.data())
    def start(self, flavour: str, data: st.DataObject) -> None:
        self.make(data.draw)
        self.backends = Backends(flavour, data)

    def make(self, draw: Draw) -> None:
        """Create the model and the builders of calls."""
        raise NotImplementedError

    def step(
        self,
        make: Callable[[], Any],
        expect: Callable[[], object],
        *,
        again: bool = False,
        seen: Callable[[Any], object] = lambda answer: answer,
    ) -> None:
        """Run a call on the model and on every server; `again`: it may be repeated later."""
        self._step(self.settings, make, expect, seen)
        if again:
            self.sent.append((self.settings, make, expect, seen))

    def _step(
        self,
        consumer: Settings,
        make: Callable[[], Any],
        expect: Callable[[], object],
        seen: Callable[[Any], object],
    ) -> None:
        self._apply(consumer)
        try:
            expected = expect()
        except model.LeaseLost:
            expected = LeaseLost
        except model.BadArgument:  # an old batch is settled, and its id names another batch by now
            expected = InvalidArgument
        self.backends.run(make, self.now, expected, seen)

    def _apply(self, consumer: Settings) -> None:
        """Set the model to the settings of a consumer."""
        for name, value in consumer.items():
            setattr(self.model.limit if name == "rates" else self.model, name, value)

    def pass_time(self, ms: int) -> None:
        self.now += ms

    def on_servers(self, *command: Any) -> None:
        """Change the servers directly, where no operation does."""
        for backend in self.backends.all:
            raw: Any = backend.client
            raw.execute_command(*command)

    VERBS: ClassVar[dict[str, int]] = {}
    """the actions and their weights"""
    NEEDS: ClassVar[dict[str, str]] = {"send_again": "sent", "ack": "held", "give_back": "held", "extend": "held"}
    """the conditions of actions"""

    @rule(data=st.data())
    def act(self, data: st.DataObject) -> None:
        """Run one action. A single rule, because Hypothesis leaves whole rules out of most of its examples."""
        verbs = [
            verb
            for verb, often in self.VERBS.items()
            for _ in range(often)
            if verb not in self.NEEDS or getattr(self, self.NEEDS[verb])
        ]
        getattr(self, data.draw(st.sampled_from(verbs)))(data.draw)

    def send_again(self, draw: Draw) -> None:
        self._step(*draw(st.sampled_from(self.sent[-20:])))

    def teardown(self) -> None:
        if hasattr(self, "backends"):
            self.backends.close()

    @invariant()
    def keys_agree(self) -> None:
        if not hasattr(self, "backends"):
            return
        expected, expiring = self.model.keys(self.now), self.model.expiring()
        for backend in self.backends.all:
            found, with_ttl = keyspace.read(backend.client, PREFIX, self.now)
            assert found == expected, backend.label
            assert with_ttl == expiring & found.keys(), backend.label
        self.model.check()


class QueueMachine(Machine):
    """What both structures share."""

    def inspect(self, draw: Draw) -> None:
        """List or count something."""
        raise NotImplementedError

    def purge(self, draw: Draw) -> None:
        if draw(once_in_a_while):  # more often, there would be nothing to read
            self.step(self.calls.purge, self.model.purge)

    def lose_a_wake_up(self, draw: Draw) -> None:  # noqa: ARG002
        """Let a client take the wake-up and crash."""
        self.model.token = False
        self.on_servers("DEL", PREFIX + b"wake")

    def change_consumer(self, draw: Draw) -> None:
        """Let a consumer with other settings make the next calls, as in a rolling deploy."""
        self.settings = self.draw_settings(draw)
        self.calls = self.make_calls(self.settings)

    def draw_settings(self, draw: Draw) -> Settings:
        """Draw the settings of a consumer."""
        raise NotImplementedError

    def make_calls(self, consumer: Settings) -> Any:
        """Create the builders of a consumer's calls."""
        raise NotImplementedError

    def pause(self, draw: Draw) -> None:
        """Pause the queue, or end its pause; one with an end began long ago, as its TTL is by the server's clock."""
        ms, reason, token = draw(st.sampled_from([0, 300, 2000])), draw(reasons), next(self.tokens)
        if draw(st.sampled_from([self.model.paused is not None, True, False])):
            self.step(lambda: self.calls.resume(token), lambda: bool(self.model.resume(token.encode())), again=True)
            return
        ago = LONG if ms else 0
        length = ms + ago
        call = self.calls.pause(length / 1000 or None, reason or "", token)

        def expect() -> None:
            self.model.pause(self.now, length, encoded(reason), token.encode())

        self.now -= ago
        self.step(lambda: call, expect, again=True)
        self.now += ago

    def some_lease(self, draw: Draw) -> BatchData[bytes]:
        """Choose what to settle: usually something that is held."""
        live = [lease for lease in self.held if self.is_held(lease.id.encode())]
        found: BatchData[bytes] = draw(st.sampled_from(3 * live + self.held[-3:]))
        return found

    def is_held(self, name: bytes) -> bool:
        raise NotImplementedError

    def give_back(self, draw: Draw) -> None:
        """Release, with or without counting the attempt, or bury."""
        lease, delay, reason = self.some_lease(draw), draw(delays), draw(reasons)
        counted = draw(st.sampled_from([True, True, False, None]))
        if counted is None:
            self.step(
                lambda: self.calls.bury_all([lease], reason),
                lambda: self.model.bury(self.now, lease.id.encode(), encoded(reason)),
            )
        else:
            self.step(
                lambda: self.calls.release_all([lease], delay / 1000, count=counted, reason=reason),
                lambda: self.model.release(self.now, lease.id.encode(), delay, counted, encoded(reason)),
            )

    def extend(self, draw: Draw) -> None:
        lease, term = self.some_lease(draw), draw(leases)
        self.step(
            lambda: self.calls.extend_all([lease], term / 1000),
            lambda: self.model.extend(self.now, lease.id.encode(), term) / 1000,
            seen=lambda _: lease.deadline,
        )

    def audit(self, repair: bool) -> None:
        for backend in self.backends.all:
            assert backend.run(self.calls.audit(repair), self.now).findings == [], backend.label

    def paused_stats(self, found: dict[str, Any]) -> dict[str, Any]:
        """Return what stats say about a pause."""
        until, reason = found.pop("paused") or (None, b"")
        return {
            "paused": until is not None,
            "pause_reason": reason.decode(),
            "paused_until": until / 1000 if until else None,
        }


class BufferMachine(QueueMachine):
    """Steps for the grouped batch buffer."""

    VERBS: ClassVar = {
        "push": 5,
        "pop": 2,
        "reserve": 6,
        "ack": 4,
        "give_back": 4,
        "redrive_or_discard": 2,
        "send_again": 2,
        "inspect": 3,
        "extend": 1,
        "pause": 1,
        "pause_group": 2,
        "drop_group": 1,
        "lose_a_wake_up": 1,
        "change_consumer": 1,
        "purge": 1,
    }

    def make(self, draw: Draw) -> None:
        self.groups = draw(st.lists(groups, min_size=2, max_size=3, unique=True))  # few, so that steps share them
        self.model = model.Buffer(limit=model.Limit([]))
        self.settings = self.draw_settings(draw)
        self.calls = self.make_calls(self.settings)

    def draw_settings(self, draw: Draw) -> Settings:
        # min_size and max_wait; with rates, less often, because they leave little to do
        sizes = draw(st.sampled_from([(1, 3000), (3, 900), (1, 0)]))
        return {
            "lease": 2000,
            "min_size": sizes[0],
            "max_wait": sizes[1],
            "max_attempts": draw(st.sampled_from([0, 1, 2, 2, 3])),
            "max_dead": draw(st.sampled_from([0, 1, 2])),
            "ordered": draw(st.booleans()),
            "isolate": draw(st.booleans()),
            "rates": draw(st.sampled_from([[], [], [], [(2, 1000), (5, 10_000)]])),
        }

    def make_calls(self, consumer: Settings) -> BufferCalls[bytes]:
        return BufferCalls(
            "q",
            codec=BYTES,
            lease=consumer["lease"] / 1000,
            min_size=consumer["min_size"],
            max_wait=consumer["max_wait"] / 1000 or None,
            max_attempts=consumer["max_attempts"] or None,
            ordered=consumer["ordered"],
            isolate=consumer["isolate"],
            max_dead=consumer["max_dead"] or None,
            rates=[Rate(limit, per / 1000) for limit, per in consumer["rates"]],
            dedup_window=WINDOW,
        )

    def group(self, draw: Draw) -> str:
        return str(draw(st.sampled_from(self.groups)))

    def push(self, draw: Draw) -> None:
        items, where = draw(st.lists(payloads, max_size=5)), draw(st.sampled_from(["back", "back", "front", "many"]))
        group, token = self.group(draw), next(self.tokens)
        if where == "many":
            self.step(
                lambda: self.calls.push_many(items, group, token),
                lambda: self.model.push(self.now, bytes_of(group), items, f"{token}:0".encode()),
                again=True,
            )
        else:
            front = where == "front"
            call = self.calls.push(items, group, token, front=front)
            expect = partial(lambda: self.model.push(self.now, bytes_of(group), items, token.encode(), front))
            self.step(lambda: call, expect, again=True)

    def pop(self, draw: Draw) -> None:
        """Pop from a group, or from the longest ones."""
        group, count, size = self.group(draw), draw(st.sampled_from([0, 1, 2, 4])), draw(st.integers(1, 6))
        if not count:
            self.step(lambda: self.calls.pop(group, size), lambda: self.model.pop(self.now, bytes_of(group), size))
        else:
            self.step(
                lambda: self.calls.pop_longest(count, size),
                lambda: [(name_of(group), items) for group, items in self.model.pop_longest(self.now, count, size)],
                seen=lambda found: list(found.items()),
            )

    def reserve(self, draw: Draw) -> None:
        size, max_bytes, lease, holder = draw(st.integers(1, 6)), draw(bounds), draw(leases), draw(holders)
        self.pass_time(draw(passing))
        token = next(self.tokens)
        who = holder_bytes(holder)

        def expect() -> object:
            self.model.lease = lease
            kind, *rest = self.model.reserve(self.now, size, token.encode(), who, max_bytes or 0)
            if kind == b"batch":
                deadline, group, attempts, why, items = rest
                shown = [token, name_of(group), items, items, attempts, deadline / 1000, name_of(why), name_of(who)]
                return [[*shown, None, None]]
            if kind == b"buried":
                name, group, attempts, why = rest
                return [Buried(name.decode(), name_of(group), attempts, name_of(why))]
            return [Nothing(ended=True)] if kind == b"ended" else [Nothing(rest[0] / 1000)]

        make = partial(self.calls.reserve, size, max_bytes=max_bytes, lease=lease / 1000, lease_id=token, holder=holder)
        self.step(make, expect, again=True, seen=_events)
        if self.is_held(token.encode()):
            batch = self.model.batches[token.encode()]
            items = list(batch.items)
            self.held.append(BatchData(token, name_of(batch.group), items, batch.attempts, 0, items))

    def is_held(self, name: bytes) -> bool:
        return bool(self.model._held(name))

    def ack(self, draw: Draw) -> None:
        lease, delay, reason = self.some_lease(draw), draw(delays), draw(reasons)
        places = draw(st.just(set()) | st.sets(st.integers(0, len(lease.items) - 1), max_size=3))
        marked = replace(lease, failed=dict.fromkeys(places, reason or ""))
        why = encoded(reason) if places else b""
        self.step(
            lambda: self.calls.ack_all([marked], delay / 1000),
            lambda: self.model.ack(self.now, lease.id.encode(), sorted(places), delay, why),
        )

    def redrive_or_discard(self, draw: Draw) -> None:
        again = draw(st.booleans())
        there = [name.decode() for _, name in self.model._placed("dead")]
        names = draw(st.lists(st.sampled_from([*there, *there, "x"]), min_size=len(there[:1]), max_size=3))
        token, ids = next(self.tokens), [name.encode() for name in names]
        if again:
            expect: Callable[[], object] = lambda: self.model.redrive(self.now, ids, token.encode())[0]  # noqa: E731
            self.step(lambda: self.calls.redrive(names, token), expect, again=True)
        else:
            call = self.calls.discard(names, token)
            self.step(lambda: call, lambda: self.model.discard(ids, token.encode()), again=True)

    def pause_group(self, draw: Draw) -> None:
        """Pause a group, or end its pause."""
        name, ms, token = self.group(draw), draw(st.sampled_from([0, 1, 500, 4000])), next(self.tokens)
        group, pauses = bytes_of(name), draw(st.booleans())
        call: Any = (
            self.calls.pause_group(name, ms / 1000 or None, token) if pauses else self.calls.resume_group(name, token)
        )

        def expect() -> bool | None:
            if pauses:
                self.model.pause_group(self.now, group, ms, token.encode())
                return None
            return bool(self.model.resume_group(self.now, group, token.encode()))

        self.step(lambda: call, expect, again=True)

    def drop_group(self, draw: Draw) -> None:
        name, token = self.group(draw), next(self.tokens)
        if draw(once_in_a_while):
            group = bytes_of(name)
            self.step(
                lambda: self.calls.drop_group(name, token),
                lambda: self.model.drop_group(group, token.encode()),
                again=True,
            )

    def inspect(self, draw: Draw) -> None:
        what = draw(st.sampled_from(["stats", "stats", "groups", "peek", "leased", "delayed", "dead", "audit"]))
        if what == "audit":
            self.audit(draw(st.booleans()))
        elif what == "stats":
            self.step(self.calls.stats, self.stats)
        elif what == "peek":
            name, limit, after = self.group(draw), draw(st.integers(1, 3)), draw(st.integers(0, 2))
            self.step(
                lambda: self.calls.peek(name, limit, after), lambda: self.model.peek(bytes_of(name), limit, after)
            )
        elif what == "groups":
            state = draw(st.sampled_from(["waiting", "busy", "paused"]))
            limit, after = draw(st.integers(1, 3)), draw(st.integers(0, 2))

            def expect_groups() -> object:
                found = [(length, name_of(group)) for group, length in self.model.groups(state)]
                found = found if state == "waiting" else sorted(found, reverse=True)
                return [(name, length) for length, name in found[after : after + limit]]

            self.step(
                lambda: self.calls.groups(limit, after, state), expect_groups, seen=lambda found: list(found.items())
            )
        else:
            self.inspect_batches(what, draw)

    def inspect_batches(self, what: str, draw: Draw) -> None:
        every = self.model.show("leases" if what == "leased" else what)
        after = draw(st.none() | st.sampled_from([one[0].decode() for one in every] or ["x"]))
        limit = draw(st.integers(1, 3))

        def expect() -> object:
            first = next((i + 1 for i, one in enumerate(every) if one[0].decode() == after), 0)
            return [
                [n.decode(), name_of(g), i, i, tries, t / 1000, name_of(why), name_of(h), None, None]
                for n, t, g, tries, h, why, i in every[first : first + limit]
            ]

        self.step(
            lambda: getattr(self.calls, what)(limit, after), expect, seen=lambda found: [_shown(one) for one in found]
        )

    def stats(self) -> object:
        found = self.model.stats(self.now)
        return BufferStats(
            **self.paused_stats(found),
            busy_groups=found.pop("busy"),
            oldest_wait=seconds(found.pop("oldest")),
            next_expiry=seconds(found.pop("expiry")),
            **found,
        )


class PriorityMachine(QueueMachine):
    """Steps for the unique priority queue."""

    VERBS: ClassVar = {
        "push": 5,
        "push_many": 2,
        "pop_many": 1,
        "reserve": 6,
        "ack": 4,
        "give_back": 4,
        "by_member": 3,
        "send_again": 2,
        "inspect": 3,
        "extend": 1,
        "pause": 1,
        "lose_a_wake_up": 1,
        "change_consumer": 1,
        "purge": 1,
    }

    PRIORITIES: ClassVar[dict[str, st.SearchStrategy[Any]]] = {
        "fifo": st.integers(-1024, 1023) | st.integers(0, 2),
        "score": st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, 0.1, -1.5, 2.0**60]),
    }

    def make(self, draw: Draw) -> None:
        self.order: Order = draw(st.sampled_from(["fifo", "fifo", "score"]))
        self.priorities = self.PRIORITIES[self.order]
        self.names = draw(st.lists(members, min_size=2, max_size=3, unique=True))  # few, so that steps share them
        self.model = model.Priority(limit=model.Limit([]), order=self.order)
        self.settings = self.draw_settings(draw)
        self.calls = self.make_calls(self.settings)

    def draw_settings(self, draw: Draw) -> Settings:
        return {
            "lease": 2000,
            "max_attempts": draw(st.sampled_from([0, 1, 2, 2, 3])),
            "max_dead": draw(st.sampled_from([0, 1, 2])),
            "rates": draw(st.sampled_from([[], [], [], [(2, 1000), (5, 10_000)]])),
        }

    def make_calls(self, consumer: Settings) -> PriorityCalls[bytes]:
        return PriorityCalls(
            "q",
            codec=BYTES,
            payload_codec=BYTES,
            order=self.order,
            lease=consumer["lease"] / 1000,
            max_attempts=consumer["max_attempts"] or None,
            max_dead=consumer["max_dead"] or None,
            rates=[Rate(limit, per / 1000) for limit, per in consumer["rates"]],
            dedup_window=WINDOW,
        )

    def priority(self, score: float) -> float:
        return score // PLACES - 1024 if self.order == "fifo" else score

    def items(self, found: Sequence[model.Item], more: int = 0, times: Sequence[float] = ()) -> list[Item[bytes]]:
        return [
            Item(
                one.member,
                self.priority(one.score),
                one.attempts + more,
                one.payload,
                name_of(one.reason),
                times[i] / 1000 if times else None,
            )
            for i, one in enumerate(found)
        ]

    def push(self, draw: Draw) -> None:
        payload = draw(st.none() | st.none() | payloads)
        delay = draw(st.sampled_from([0, 0, 1, 1500]))
        exactly = draw(once_in_a_while)
        member, priority, token = draw(st.sampled_from(self.names)), draw(self.priorities), next(self.tokens)
        call = self.calls.push(member, priority, payload=payload, delay=delay / 1000, replace=exactly, token=token)

        def expect() -> object:
            how = "set" if exactly else "min"
            outcome = self.model.push(self.now, [(priority, member, payload)], token.encode(), delay, how)
            return PUSHED[outcome.decode()]

        self.step(lambda: call, expect, again=True)

    def push_many(self, draw: Draw) -> None:
        """Push with and without payloads, some members twice, of which each needs a call of its own."""
        delay = draw(st.sampled_from([0, 0, 700]))
        exactly = draw(once_in_a_while)
        name = st.sampled_from(self.names)
        one = st.tuples(name, self.priorities) | st.tuples(name, self.priorities, st.none() | payloads)
        given = draw(st.lists(one, max_size=6))
        token = next(self.tokens)

        def expect() -> object:
            pieces: list[list[tuple[float, bytes, bytes | None]]] = []
            for name, priority, *rest in given:
                payload = rest[0] if rest else None
                last = pieces[-1] if pieces else []
                if not last or any(name == other for _, other, _ in last) or (last[0][2] is None) != (payload is None):
                    pieces.append([])
                pieces[-1].append((priority, name, payload))
            outcomes: Counter[Pushed] = Counter()
            for i, piece in enumerate(pieces):
                how = "set" if exactly else "min"
                letters = self.model.push(self.now, piece, f"{token}:{i}".encode(), delay, how)
                outcomes.update(PUSHED[letter] for letter in letters.decode())
            return outcomes

        make = partial(self.calls.push_many, given, delay=delay / 1000, replace=exactly, token=token)
        self.step(make, expect, again=True)

    def pop_many(self, draw: Draw) -> None:
        count = draw(st.integers(1, 4))
        self.pass_time(draw(passing))
        self.step(lambda: self.calls.pop_many(count), lambda: self.items(self.model.pop(self.now, count)[1], 1))

    def reserve(self, draw: Draw) -> None:
        size, max_bytes, lease, holder = draw(st.integers(1, 4)), draw(bounds), draw(leases), draw(holders)
        self.pass_time(draw(passing))
        token = next(self.tokens)
        who = holder_bytes(holder)

        def expect() -> object:
            self.model.lease = lease
            kind, *rest = self.model.reserve(self.now, size, token.encode(), who, max_bytes or 0)
            if kind == b"ended":
                return [Nothing(ended=True)]
            buried = [Buried(name) for name in rest.pop()]
            if kind == b"none":
                return [*buried, Nothing(rest[0] / 1000)]
            return [*buried, self.leased(token.encode(), rest[0], who, rest[1])]

        make = partial(self.calls.reserve, size, max_bytes=max_bytes, lease=lease / 1000, lease_id=token, holder=holder)
        self.step(make, expect, again=True, seen=_events)
        if self.is_held(token.encode()):
            names = [name for name, _ in self.model.leases[token.encode()].members]
            self.held.append(BatchData(token, None, names, 1, 0, names))

    def leased(self, name: bytes, deadline: int, holder: bytes, found: Sequence[model.Item]) -> object:
        """Return what a listing shows of a lease of members."""
        items = self.items(found, 1)
        names = [item.member for item in items]
        reason = next((item.reason for item in items if item.reason), "")
        shown = [name.decode(), None, names, names, max(item.attempts for item in items), deadline / 1000, reason]
        return [*shown, name_of(holder), [item.priority for item in items], [item.payload for item in items]]

    def is_held(self, name: bytes) -> bool:
        return name in self.model.leases

    def ack(self, draw: Draw) -> None:
        lease, delay = self.some_lease(draw), draw(delays)
        place = st.integers(0, len(lease.items) - 1)
        failed = draw(st.just({}) | st.dictionaries(place, reasons.map(lambda text: text or "")))
        marked = replace(lease, failed=failed)
        why = [(place, encoded(reason)) for place, reason in sorted(failed.items())]
        self.step(
            lambda: self.calls.ack_all([marked], delay / 1000),
            lambda: self.model.ack(self.now, lease.id.encode(), why, delay),
        )

    def by_member(self, draw: Draw) -> None:
        what = draw(st.sampled_from(["redrive", "discard", "remove"]))
        dead = [name for _, name in self.model._parked("dead")]
        chosen = draw(st.lists(st.sampled_from(dead if dead and what != "remove" else self.names), max_size=3))
        token = next(self.tokens)
        call = getattr(self.calls, what)(chosen, token)
        self.step(lambda: call, lambda: getattr(self.model, what)(chosen, token.encode()), again=True)

    def inspect(self, draw: Draw) -> None:
        what = draw(st.sampled_from(["stats", "stats", "peek", "leased", "delayed", "dead", "state", "audit"]))
        if what == "audit":
            self.audit(draw(st.booleans()))
        elif what == "stats":
            self.step(self.calls.stats, self.stats)
        elif what == "state":
            name = draw(members)
            self.step(lambda: self.calls.state(name), lambda: State(self.model.state(name)))
        else:
            limit, after = draw(st.integers(1, 3)), draw(st.integers(0, 2))
            if what == "peek":
                self.step(
                    lambda: self.calls.peek(limit, after),
                    lambda: self.items([one for _, one in self.model.show("ready")][after : after + limit]),
                )
            elif what == "leased":
                self.inspect_leases(limit, after)
            else:
                self.inspect_members(what, limit, draw(st.none() | members))

    def inspect_members(self, state: str, limit: int, after: bytes | None) -> None:
        def expect() -> object:
            every = self.model.show(state)
            first = next((i + 1 for i, (_, one) in enumerate(every) if one.member == after), 0)
            page = every[first : first + limit]
            return self.items([one for _, one in page], times=[time for time, _ in page])

        self.step(lambda: getattr(self.calls, state)(limit, after), expect)

    def inspect_leases(self, limit: int, place: int) -> None:
        every = self.model.batches()
        after = every[place][0].decode() if place < len(every) else None

        def expect() -> object:
            first = place + 1 if after else 0
            return [self.leased(*one) for one in every[first : first + limit]]

        self.step(lambda: self.calls.leased(limit, after), expect, seen=lambda found: [_shown(one) for one in found])

    def stats(self) -> object:
        found = self.model.stats(self.now)
        return PriorityStats(
            **self.paused_stats(found),
            waiting=found.pop("ready"),
            next_expiry=seconds(found.pop("expiry")),
            **found,
        )


class LimitMachine(Machine):
    """Steps for the rate limiter."""

    VERBS: ClassVar = {"acquire": 3, "send_again": 1, "set_the_clock_back": 1}

    RATES = ((3, 1000), (7, 5000), (100, 60_000))

    def make(self, draw: Draw) -> None:  # noqa: ARG002
        self.settings = {}
        self.model = model.Limit(list(self.RATES))
        self.calls = LimiterCalls("q", tuple(Rate(limit, per / 1000) for limit, per in self.RATES), dedup_window=WINDOW)
        self.elapsed = 0
        self.granted: list[tuple[int, int]] = []

    def acquire(self, draw: Draw) -> None:
        cost, ms = draw(st.integers(1, 8)), draw(st.sampled_from([0, 0, 1, 400, 999, 1000, 1001, 5001, 60_001]))
        self.pass_time(ms)
        self.elapsed += ms
        token = next(self.tokens)
        call = self.calls.acquire(cost, token)

        def expect() -> object:
            granted, retry = self.model.acquire(self.now, cost, token.encode())
            return Grant(granted, retry / 1000)

        # An empty answer is not remembered: repeated, the call may be granted, so only the model can say.
        self.step(lambda: call, expect, again=True)

    def set_the_clock_back(self, draw: Draw) -> None:
        self.now -= draw(st.sampled_from([1, 500, 3000, 500_000]))

    @invariant()
    def no_span_has_more(self) -> None:
        """Check the grants against the time that has passed, which a clock that is set back does not show."""
        if not hasattr(self, "backends"):
            return
        total = sum(amount for _, amount in self.granted)
        if self.model.grants and (new := self.model._total() - total):
            self.granted.append((self.elapsed, new))
        for limit, per in self.RATES:
            assert sum(amount for at, amount in self.granted if at >= self.elapsed - per) <= limit


MACHINES = [BufferMachine, PriorityMachine, LimitMachine]


@pytest.mark.timeout(900)
@pytest.mark.server
@pytest.mark.parametrize("machine", MACHINES)
def test_scripts_follow_the_model(machine: type[Machine]) -> None:
    """Run generated steps on the model and on the servers."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=80,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
