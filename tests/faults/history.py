"""Recording what concurrent clients do on one queue: every call with its start, its end, its arguments and its reply.

A `Subject` is a structure under test: it draws calls, sends them, and knows how the model in `tests/model` answers.
Each call is given its time, so that the model's answer is determined; times do not always increase.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count
from random import Random
from typing import Any, Generic, TypeVar

import redis

from redisq import BYTES, BatchData, InvalidArgument, LeaseLost, Rate
from redisq.blocking.runner import Runner
from redisq.core.buffer import BufferCalls
from redisq.core.calls import Call
from redisq.core.limiter import LimiterCalls
from redisq.core.priority import PriorityCalls
from tests import model
from tests.scripts.backends import at

CLIENTS = 8
START = 1_000_000_000_000  # ms
WEEK = 604_800.0  # what a script remembers by the server's clock outlives any history
LOST = "LEASELOST"
BAD = "BADARG"
"""A reserve that is repeated after a purge makes a new lease of that id, which may have fewer items than places."""

State = TypeVar("State")
Args = tuple[Any, ...]


@dataclass(frozen=True)
class RecordedCall:
    """One call of one client, timed in ns of the machine's clock; `now` is the time given to the script, in ms."""

    client: int
    start: int
    end: int
    verb: str
    args: Args
    now: int
    reply: Any

    def __str__(self) -> str:
        return f"{self.verb}({', '.join(map(show, self.args))}) at {self.now - START} ms"


def show(value: Any) -> str:
    """Return a short form of a value, for reports."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, tuple):
        return f"[{', '.join(map(show, value))}]"
    return str(value)


@dataclass
class Shared:
    """What clients know of each other's calls: leases, tokens, and calls that may be repeated."""

    leases: list[tuple[str, tuple[bytes, ...]]] = field(default_factory=list)
    sent: list[tuple[str, Args]] = field(default_factory=list)
    dead: list[Any] = field(default_factory=list)
    names: Any = field(default_factory=count)
    """numbers for items, tokens and leases"""


class Subject(Generic[State]):
    """A structure under test, whose calls are drawn, sent and modelled."""

    weights: dict[str, int]
    again = 6
    """the probability that an earlier call of any client is repeated"""
    purges = True
    """whether purges are drawn"""

    def initial(self) -> State:
        """Return the model of an empty queue."""
        raise NotImplementedError

    def draw(self, verb: str, random: Random, shared: Shared) -> Args | None:
        """Draw a call's arguments; None: there is nothing to call it with."""
        raise NotImplementedError

    def build(self, verb: str, args: Args) -> Call[Any]:
        """Build the call."""
        raise NotImplementedError

    def normalize(self, verb: str, answer: Any) -> Any:
        """Return a client's answer in the form of `step`."""
        raise NotImplementedError

    def answer(self, state: State, verb: str, args: Args, now: int) -> Any:
        """Make the call on the model."""
        raise NotImplementedError

    def step(self, state: State, call: RecordedCall) -> Any:
        """Make the call on the model, and return its reply."""
        try:
            return frozen_lists(self.answer(state, call.verb, call.args, call.now))
        except model.LeaseLost:
            return LOST
        except model.BadArgument:
            return BAD

    def send(self, runner: Runner, verb: str, args: Args, now: int) -> Any:
        """Make the call on the server, and return its reply in the form of `step`."""
        try:
            return self.normalize(verb, runner.run(at(self.build(verb, args), now)))
        except LeaseLost:
            return LOST
        except InvalidArgument:
            return BAD

    def choose(self, random: Random, shared: Shared) -> tuple[str, Args]:
        """Draw a call, sometimes one that was made before."""
        if shared.sent and random.randrange(100) < self.again:
            return random.choice(shared.sent)
        while True:
            verb = random.choices([*self.weights], [*self.weights.values()])[0]
            args = self.draw(verb, random, shared)
            if args is not None:
                return verb, args

    def learn(self, shared: Shared, verb: str, args: Args, reply: Any) -> None:  # noqa: ARG002
        """Record what other clients may use: a lease, dead letters, a call that may be repeated."""
        if verb in ("push", "reserve", "ack", "release", "bury", "redrive", "discard", "remove", "acquire"):
            shared.sent[:] = [*shared.sent[-30:], (verb, args)]


GROUPS = ["a", "b", "c"]
REASONS = ["", "", "busy"]


class BufferSubject(Subject[model.Buffer]):
    """The grouped buffer, with one of several settings."""

    SETTINGS: tuple[dict[str, Any], ...] = (
        {"max_wait": 3000},
        {"min_size": 3, "max_wait": 900, "max_attempts": 2, "max_dead": 1, "rates": ((5, 1000), (20, 10_000))},
        {"min_size": 2, "max_wait": 500, "max_attempts": 3, "ordered": True, "isolate": True},
    )
    weights = {  # noqa: RUF012
        "push": 30, "pop": 5, "groups": 2, "pop_longest": 3, "reserve": 30, "ack": 15, "release": 8, "bury": 2,
        "extend": 4, "batches": 3, "redrive": 2, "discard": 2, "stats": 3, "audit": 1,
    }  # fmt: skip

    def __init__(self, setting: int = 0) -> None:
        self.settings = dict(self.SETTINGS[setting % len(self.SETTINGS)])
        self.rates = self.settings.pop("rates", ())
        own = {**self.settings, "max_wait": self.settings["max_wait"] / 1000}
        rates = [Rate(limit, per / 1000) for limit, per in self.rates]
        self.calls = BufferCalls("q", codec=BYTES, lease=2, **{"max_dead": None, **own}, rates=rates, dedup_window=WEEK)

    def initial(self) -> model.Buffer:
        return model.Buffer(limit=model.Limit(list(self.rates)), **self.settings)

    def draw(self, verb: str, random: Random, shared: Shared) -> Args | None:
        group, name = random.choice(GROUPS), str(next(shared.names))
        if verb == "push":
            items = tuple(b"i%d" % next(shared.names) for _ in range(random.randint(1, 4)))
            return group, items, "t" + name, random.random() < 0.2
        if verb in ("pop", "pop_longest"):
            return (group if verb == "pop" else random.randint(1, 2)), random.randint(1, 5)
        if verb == "reserve":
            return random.randint(1, 5), random.choice([0, 0, 6]), random.choice([100, 500, 2000]), "l" + name
        if verb in ("ack", "release", "bury", "extend"):
            if not shared.leases:
                return None
            lease, items = random.choice(shared.leases[-10:])
            delay, reason = random.choice([0, 0, 50, 700]), random.choice(REASONS)
            if verb == "ack":
                failed = random.sample(range(len(items)), random.choice([0, 0, 0, 1, len(items)]))
                return lease, tuple(sorted(failed)), delay, reason
            if verb == "extend":
                return lease, random.choice([100, 2000])
            return (lease, reason) if verb == "bury" else (lease, delay, random.random() < 0.8, reason)
        if verb in ("redrive", "discard"):
            return ((random.choice(shared.dead), "nobody"), "t" + name) if shared.dead else None
        if verb == "batches":
            return random.choice(["leased", "delayed", "dead", "dead"]), random.randint(1, 3)
        return (random.randint(1, 3),) if verb == "groups" else ()

    def build(self, verb: str, args: Args) -> Call[Any]:
        calls = self.calls
        match verb, args:
            case "push", (group, items, token, front):
                return calls.push(items, group, token, front=front)
            case "pop", (group, size):
                return calls.pop(group, size)
            case "groups", (count,):
                return _first(calls.groups(count))
            case "pop_longest", (count, size):
                return calls.pop_longest(count, size)
            case "reserve", (size, max_bytes, lease, name):
                options = {"max_bytes": max_bytes or None, "lease_id": name, "holder": "h" + name}
                return _raw(calls.reserve(size, lease=lease / 1000, **options))
            case "ack", (name, failed, delay, reason):
                return calls.ack(_lease(name, failed, reason), delay / 1000)
            case "release", (name, delay, count, reason):
                return calls.release(_lease(name), delay / 1000, count=count, reason=reason)
            case "bury", (name, reason):
                return calls.bury(_lease(name), reason)
            case "extend", (name, lease):
                return calls.extend(_lease(name), lease / 1000)
            case "redrive", (names, token):
                return _first(calls.redrive(names, token))
            case "discard", (names, token):
                return calls.discard(names, token)
            case "batches", (state, limit):
                return _raw(_first(getattr(calls, state)(limit)))
            case "stats" | "audit" | "purge", ():
                return _first(getattr(calls, verb)())
        raise AssertionError(verb)

    def normalize(self, verb: str, answer: Any) -> Any:
        match verb:
            case "groups":
                return tuple((group, int(length)) for group, length in zip(*[iter(answer[1])] * 2, strict=True))
            case "pop_longest":
                return tuple((group.encode(), tuple(items)) for group, items in answer.items())
            case "audit":
                return tuple(answer[2])
        return frozen_lists(answer)

    def answer(self, state: model.Buffer, verb: str, args: Args, now: int) -> Any:
        match verb, args:
            case "push", (group, items, token, front):
                return state.push(now, group.encode(), [*items], token.encode(), front)
            case "pop", (group, size):
                return state.pop(now, group.encode(), size)
            case "groups", (count,):
                return state.groups("waiting")[:count]
            case "pop_longest", (count, size):
                return state.pop_longest(now, count, size)
            case "reserve", (size, max_bytes, lease, name):
                state.lease = lease
                return state.reserve(now, size, name.encode(), b"h" + name.encode(), max_bytes)
            case "ack", (name, failed, delay, reason):
                return state.ack(now, name.encode(), failed, delay, reason.encode() if failed else b"")
            case "release", (name, delay, count, reason):
                return state.release(now, name.encode(), delay, count, reason.encode())
            case "bury", (name, reason):
                return state.bury(now, name.encode(), reason.encode())
            case "extend", (name, lease):
                return state.extend(now, name.encode(), lease)
            case "redrive", (names, token):
                return state.redrive(now, [name.encode() for name in names], token.encode())
            case "discard", (names, token):
                return state.discard([name.encode() for name in names], token.encode())
            case "batches", (place, limit):
                return state.show("leases" if place == "leased" else place)[:limit]
            case "stats", ():
                found = state.stats(now)
                del found["paused"]
                return b"", *found.values(), b""
            case "audit", ():
                return ()
            case "purge", ():
                return -1, state.purge()
        raise AssertionError(verb)

    def learn(self, shared: Shared, verb: str, args: Args, reply: Any) -> None:
        super().learn(shared, verb, args, reply)
        if verb == "reserve" and reply[0] == b"batch":
            shared.leases[:] = [*shared.leases[-20:], (args[-1], reply[-1])]
        elif verb == "reserve" and reply[0] == b"buried":
            shared.dead.append(reply[1].decode())
        elif verb == "bury":
            shared.dead.append(args[0])


MEMBERS = [b"a", b"b", b"c", b"d", b"e"]


class PrioritySubject(Subject[model.Priority]):
    """The priority queue, with one of several settings."""

    SETTINGS: tuple[dict[str, Any], ...] = (
        {"order": "fifo"},
        {"order": "score", "max_attempts": 2, "max_dead": 1},
        {"order": "fifo", "max_attempts": 2, "rates": ((5, 1000), (20, 10_000))},
    )
    weights = {  # noqa: RUF012
        "push": 35, "pop": 8, "reserve": 25, "ack": 15, "release": 8, "bury": 2, "extend": 4, "members": 5,
        "batches": 2, "redrive": 3, "discard": 2, "state": 4, "remove": 3, "stats": 3, "audit": 1,
    }  # fmt: skip

    def __init__(self, setting: int = 0) -> None:
        self.settings = dict(self.SETTINGS[setting % len(self.SETTINGS)])
        self.rates = self.settings.pop("rates", ())
        self.calls: PriorityCalls[bytes] = PriorityCalls(
            "q",
            codec=BYTES,
            payload_codec=BYTES,
            lease=2,
            **{"max_dead": None, **self.settings},
            rates=[Rate(limit, per / 1000) for limit, per in self.rates],
            dedup_window=WEEK,
        )

    def initial(self) -> model.Priority:
        return model.Priority(limit=model.Limit(list(self.rates)), **self.settings)

    def draw(self, verb: str, random: Random, shared: Shared) -> Args | None:
        name = str(next(shared.names))
        some = tuple(random.sample(MEMBERS, random.randint(1, 3)))
        if verb == "push":
            payload = random.choice([None, None, b"p" + name.encode()])
            asked = tuple((random.randint(0, 3), member, payload) for member in some)
            return asked, random.choice([0, 0, 0, 300]), random.random() < 0.1, "t" + name
        if verb == "reserve":
            return random.randint(1, 3), random.choice([0, 0, 4]), random.choice([100, 500, 2000]), "l" + name
        if verb in ("ack", "release", "bury", "extend"):
            if not shared.leases:
                return None
            lease, members = random.choice(shared.leases[-10:])
            delay, reason = random.choice([0, 0, 50, 700]), random.choice(REASONS)
            if verb == "ack":
                failed = random.sample(range(len(members)), random.choice([0, 0, 0, 1, len(members)]))
                return lease, tuple(sorted(failed)), delay, reason
            if verb == "extend":
                return lease, random.choice([100, 2000])
            return (lease, reason) if verb == "bury" else (lease, delay, random.random() < 0.8, reason)
        if verb in ("redrive", "discard", "remove"):
            return some, "t" + name
        if verb == "state":
            return some[:1]
        if verb == "members":
            return random.choice(["peek", "delayed", "dead"]), random.randint(1, 3)
        return (random.randint(1, 3),) if verb in ("pop", "batches") else ()

    def build(self, verb: str, args: Args) -> Call[Any]:
        calls = self.calls
        match verb, args:
            case "push", (asked, delay, replace, token):
                given = [(member, priority, payload) for priority, member, payload in asked]
                return _first(calls.push_many(given, delay=delay / 1000, replace=replace, token=token))
            case "pop", (count,):
                return _raw(calls.pop_many(count))
            case "reserve", (size, max_bytes, lease, name):
                options = {"max_bytes": max_bytes or None, "lease_id": name, "holder": "h" + name}
                return _raw(calls.reserve(size, lease=lease / 1000, **options))
            case "ack", (name, failed, delay, reason):
                return calls.ack(_lease(name, failed, reason), delay / 1000)
            case "release", (name, delay, count, reason):
                return calls.release(_lease(name), delay / 1000, count=count, reason=reason)
            case "bury", (name, reason):
                return calls.bury(_lease(name), reason)
            case "extend", (name, lease):
                return calls.extend(_lease(name), lease / 1000)
            case "redrive" | "discard" | "remove", (members, token):
                made: Call[Any] = getattr(calls, verb)(members, token)
                return made
            case "members", (state, limit):
                return _raw(_first(getattr(calls, state)(limit)))
            case "batches", (limit,):
                return _raw(_first(calls.leased(limit)))
            case "state", (member,):
                return calls.state(member)
            case "stats", ():
                return _raw(calls.stats())
            case "audit" | "purge", ():
                return _first(getattr(calls, verb)())
        raise AssertionError(verb)

    def normalize(self, verb: str, answer: Any) -> Any:
        match verb:
            case "push":
                return "".join(outcome.name[0] for outcome in answer).encode()
            case "pop":
                return answer[0], _items(*answer[1:])
            case "reserve":
                if answer[0] == b"batch":
                    return b"batch", answer[1], _items(*answer[2:5]), tuple(answer[5])
                return frozen_lists(answer)
            case "members":
                return _items(*answer)
            case "batches":
                return tuple((name, deadline, by, _items(*about)) for name, deadline, by, *about in answer)
            case "state":
                return answer.value
            case "audit":
                return tuple(answer[2])
        return frozen_lists(answer)

    def answer(self, state: model.Priority, verb: str, args: Args, now: int) -> Any:
        match verb, args:
            case "push", (asked, delay, replace, token):
                return state.push(now, asked, f"{token}:0".encode(), delay, "set" if replace else "min")
            case "pop", (count,):
                return state.pop(now, count)
            case "reserve", (size, max_bytes, lease, name):
                state.lease = lease
                return state.reserve(now, size, name.encode(), b"h" + name.encode(), max_bytes)
            case "ack", (name, failed, delay, reason):
                return state.ack(now, name.encode(), [(place, reason.encode()) for place in failed], delay)
            case "release", (name, delay, count, reason):
                return state.release(now, name.encode(), delay, count, reason.encode())
            case "bury", (name, reason):
                return state.bury(now, name.encode(), reason.encode())
            case "extend", (name, lease):
                return state.extend(now, name.encode(), lease)
            case "redrive" | "discard" | "remove", (members, token):
                return getattr(state, verb)([*members], token.encode())
            case "members", (place, limit):
                shown = state.show("ready" if place == "peek" else place)[:limit]
                return [(item.member, at, *item[2:]) for at, item in shown]
            case "batches", (limit,):
                return state.batches()[:limit]
            case "state", (member,):
                return state.state(member)
            case "stats", ():
                found = state.stats(now)
                order = ("ready", "delayed", "leased", "dead", "batches", "due", "expiry")
                counted = ("done", "failed", "buried", "trimmed")
                return *(found[name] for name in order + counted), b""
            case "audit", ():
                return ()
            case "purge", ():
                return 0, state.purge()
        raise AssertionError(verb)

    def learn(self, shared: Shared, verb: str, args: Args, reply: Any) -> None:
        super().learn(shared, verb, args, reply)
        if verb == "reserve" and reply[0] == b"batch":
            shared.leases[:] = [*shared.leases[-20:], (args[-1], tuple(item[0] for item in reply[2]))]


class LimitSubject(Subject[model.Limit]):
    """The rate limiter."""

    RATES = ((5, 1000), (12, 5000))
    weights = {"acquire": 1}  # noqa: RUF012
    again = 20
    purges = False

    def __init__(self, setting: int = 0) -> None:  # noqa: ARG002
        self.calls = LimiterCalls("q", tuple(Rate(limit, per / 1000) for limit, per in self.RATES), dedup_window=WEEK)

    def initial(self) -> model.Limit:
        return model.Limit([*self.RATES])

    def draw(self, verb: str, random: Random, shared: Shared) -> Args:  # noqa: ARG002
        return random.randint(1, 4), f"t{next(shared.names)}"

    def build(self, verb: str, args: Args) -> Call[Any]:  # noqa: ARG002
        return self.calls.acquire(*args)

    def normalize(self, verb: str, answer: Any) -> Any:  # noqa: ARG002
        return answer.granted, _ms(answer.retry_after)

    def answer(self, state: model.Limit, verb: str, args: Args, now: int) -> Any:  # noqa: ARG002
        cost, token = args
        return state.acquire(now, cost, token.encode())


SUBJECTS: list[Callable[[int], Subject[Any]]] = [BufferSubject, PrioritySubject, LimitSubject]


def _ms(seconds: float | None) -> int:
    return -1 if seconds is None else round(seconds * 1000)


def frozen_lists(value: Any) -> Any:
    """Return a value with lists in place of tuples, named tuples and data classes."""
    return tuple(map(frozen_lists, value)) if isinstance(value, (list, tuple)) else value


def _items(flat: list[Any], rows: list[Any], payloads: list[Any]) -> tuple[Any, ...]:
    """Return members in the model's form: member, number, attempts, reason, payload."""
    none = [None] * (len(flat) // 2)
    found = []
    for member, number, row, payload in zip(flat[::2], flat[1::2], rows or none, payloads or none, strict=True):
        _, attempts, reason = (row or b"0 0 ").split(b" ", 2)
        found.append((member, float(number), int(attempts), reason, payload))
    return tuple(found)


def _raw(call: Call[Any]) -> Call[Any]:
    return replace(call, read=lambda reply: reply)


def _lease(name: str, failed: tuple[int, ...] = (), reason: str = "") -> BatchData[bytes]:
    return BatchData(name, None, [], 1, 0, [], failed=dict.fromkeys(failed, reason))


def _first(flow: Any) -> Call[Any]:
    made: Call[Any] = next(flow)
    return made


def record(
    subject: Subject[Any], connect: Callable[[], redis.Redis], calls: int, seed: int, *, step: int = 150, purge: int = 0
) -> list[list[RecordedCall]]:
    """Record the calls of eight concurrent clients, `calls` each; `step`: ms of given time between calls.

    `purge`: the average number of calls between purges; 0: none. Each client has its own connection.
    """
    shared, ticks = Shared(), count(1)
    start, failures = threading.Barrier(CLIENTS), []
    histories: list[list[RecordedCall]] = [[] for _ in range(CLIENTS)]

    def play(client: int, connection: redis.Redis) -> None:
        random, runner, mine = Random(seed * 1000 + client), Runner(connection), histories[client]
        start.wait()
        for _ in range(calls // CLIENTS):
            if purge and subject.purges and random.random() < 1 / purge:
                verb, args = "purge", ()
            else:
                verb, args = subject.choose(random, shared)
            now = START + next(ticks) * step
            began = time.monotonic_ns()
            reply = subject.send(runner, verb, args, now)
            mine.append(RecordedCall(client, began, time.monotonic_ns(), verb, args, now, reply))
            if reply not in (LOST, BAD):
                subject.learn(shared, verb, args, reply)

    def guarded(client: int, connection: redis.Redis) -> None:
        try:
            play(client, connection)
        except BaseException as error:
            failures.append(error)

    connections = [connect() for _ in range(CLIENTS)]
    try:
        for connection in connections:
            connection.ping()
        threads = [threading.Thread(target=guarded, args=pair) for pair in enumerate(connections)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        for connection in connections:
            connection.close()
    if failures:
        raise failures[0]
    return histories
