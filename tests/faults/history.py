"""Record what concurrent clients do to one queue: every call with its start, its end, its arguments and its reply.

A `Game` is one structure: it draws calls, sends them, and knows what the pure model of `tests/model.py` answers. The
time is given to each call, so that the model's answer is determined; it is not always later than that of the call
before.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any, Generic, TypeVar

import redis

from redisq import BYTES, LeaseLost, Rate
from redisq.ops import BufferOps, Lease, LimitOps, Op, PriorityOps
from redisq.ops.priority import PLACES
from redisq.sync.runner import Runner

from .. import model
from ..backends import at

CLIENTS = 8
START = 1_000_000_000_000  # ms
WEEK = 604_800.0  # what a script remembers by the server's clock must outlive the longest history
LOST = "LEASELOST"

State = TypeVar("State")
Args = tuple[Any, ...]


@dataclass(frozen=True)
class Call:
    """Hold one call of one client, in ns of the machine's clock; `now` is what the script took for the time, in ms."""

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
    """Give a value for a report, short."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, tuple):
        return f"[{', '.join(map(show, value))}]"
    return str(value)


@dataclass
class Shared:
    """Hold what the clients know of each other's calls: leases, tokens, calls that may be sent again."""

    leases: list[tuple[str, tuple[bytes, ...]]] = field(default_factory=list)
    sent: list[tuple[str, Args]] = field(default_factory=list)
    dead: list[Any] = field(default_factory=list)
    names: Any = field(default_factory=count)
    """numbers for items, tokens and leases"""


class Game(Generic[State]):
    """Draw, send and model the calls of one structure."""

    weights: dict[str, int]
    again = 6
    """how often a call that was made before, by anybody, is sent again"""
    purges = True
    """whether there is a purge"""

    def initial(self) -> State:
        """Give the model of an empty queue."""
        raise NotImplementedError

    def draw(self, verb: str, random: Random, shared: Shared) -> Args | None:
        """Draw a call's arguments; None: there is nothing to call it on."""
        raise NotImplementedError

    def op(self, verb: str, args: Args) -> Op[Any]:
        """Build the call."""
        raise NotImplementedError

    def seen(self, verb: str, answer: Any) -> Any:
        """Give what the client was answered, in the form of `step`."""
        raise NotImplementedError

    def answer(self, state: State, verb: str, args: Args, now: int) -> Any:
        """Let the model do the call."""
        raise NotImplementedError

    def step(self, state: State, call: Call) -> Any:
        """Let the model do the call, and give its reply."""
        try:
            return self.answer(state, call.verb, call.args, call.now)
        except model.Lost:
            return LOST

    def send(self, runner: Runner, verb: str, args: Args, now: int) -> Any:
        """Make the call, and give its reply in the form of `step`."""
        try:
            return self.seen(verb, runner.run(at(self.op(verb, args), now)))
        except LeaseLost:
            return LOST

    def choose(self, random: Random, shared: Shared) -> tuple[str, Args]:
        """Draw a call, now and then one that was sent before."""
        if shared.sent and random.randrange(100) < self.again:
            return random.choice(shared.sent)
        while True:
            verb = random.choices([*self.weights], [*self.weights.values()])[0]
            args = self.draw(verb, random, shared)
            if args is not None:
                return verb, args

    def learn(self, shared: Shared, verb: str, args: Args, reply: Any) -> None:  # noqa: ARG002
        """Note what others may use: a lease that was handed out, who died, what may be sent again."""
        if verb in ("push", "reserve", "ack", "release", "redrive", "discard", "remove", "acquire"):
            shared.sent[:] = [*shared.sent[-30:], (verb, args)]


GROUPS = ["a", "b", "c"]


class BufferGame(Game[model.Buffer]):
    """Play with the grouped buffer, in one of its settings."""

    SETTINGS: tuple[tuple[int, int, int, tuple[tuple[int, int], ...]], ...] = (
        (1, 3000, 0, ()),
        (3, 900, 2, ((5, 1000), (20, 10_000))),
        (2, 500, 3, ()),
    )
    weights = {  # noqa: RUF012
        "push": 30, "pop": 5, "longest": 2, "pop_longest": 3, "reserve": 30, "ack": 15, "release": 8, "extend": 4,
        "dead": 3, "redrive": 2, "discard": 2, "stats": 3, "audit": 1,
    }  # fmt: skip

    def __init__(self, setting: int = 0) -> None:
        self.min_size, self.max_wait, self.max_attempts, self.rates = self.SETTINGS[setting % len(self.SETTINGS)]
        self.ops = BufferOps(
            "q",
            codec=BYTES,
            lease=2,
            min_size=self.min_size,
            max_wait=self.max_wait / 1000,
            max_attempts=self.max_attempts or None,
            rates=[Rate(limit, per / 1000) for limit, per in self.rates],
            dedup_window=WEEK,
        )

    def initial(self) -> model.Buffer:
        limit = model.Limit(list(self.rates)) if self.rates else None
        return model.Buffer(2000, self.min_size, self.max_wait, self.max_attempts, limit)

    def draw(self, verb: str, random: Random, shared: Shared) -> Args | None:
        group, name = random.choice(GROUPS), str(next(shared.names))
        if verb == "push":
            items = tuple(b"i%d" % next(shared.names) for _ in range(random.randint(1, 4)))
            return group, items, "t" + name, random.random() < 0.2
        if verb in ("pop", "pop_longest"):
            return (group if verb == "pop" else random.randint(1, 2)), random.randint(1, 5)
        if verb == "reserve":
            return random.randint(1, 5), random.choice([100, 500, 2000]), "l" + name
        if verb in ("ack", "release", "extend"):
            if not shared.leases:
                return None
            lease, items = random.choice(shared.leases[-10:])
            delay = random.choice([0, 0, 50, 700])
            if verb == "ack":
                failed = random.sample(range(len(items)), random.choice([0, 0, 0, 1, len(items)]))
                return lease, tuple(sorted(failed)), delay
            return (lease, delay, random.random() < 0.8) if verb == "release" else (lease, random.choice([100, 2000]))
        if verb in ("redrive", "discard"):
            return ((random.choice(shared.dead), "nobody"), "t" + name) if shared.dead else None
        return (random.randint(1, 3),) if verb in ("longest", "dead") else ()

    def op(self, verb: str, args: Args) -> Op[Any]:
        ops = self.ops
        match verb, args:
            case "push", (group, items, token, front):
                return ops.push(items, group, token, front=front)
            case "pop", (group, size):
                return ops.pop(group, size)
            case "longest", (count,):
                return ops.longest_groups(count)
            case "pop_longest", (count, size):
                return ops.pop_longest(count, size)
            case "reserve", (size, lease, name):
                return ops.reserve_once(size, lease=lease / 1000, lease_id=name)
            case "ack", (name, failed, delay):
                return _only(ops.ack([_lease(name, failed=failed)], delay / 1000))
            case "release", (name, delay, counted):
                return _only(ops.release([_lease(name)], delay / 1000, counted=counted))
            case "extend", (name, lease):
                return _only(ops.extend([_lease(name)], lease / 1000))
            case "redrive", (names, token):
                return ops.redrive(names, token)
            case "discard", (names, token):
                return ops.discard(names, token)
            case "dead", (limit,):
                return _first(ops.dead(limit))
            case "stats" | "audit" | "purge", ():
                return _first(getattr(ops, verb)())
        raise AssertionError(verb)

    def seen(self, verb: str, answer: Any) -> Any:
        match verb:
            case "pop":
                return tuple(answer)
            case "longest":
                return tuple((group, length) for group, length in answer.items())
            case "pop_longest":
                return tuple((group, tuple(items)) for group, items in answer.items())
            case "reserve":
                lease = answer.lease
                batch = lease and (lease.group, lease.attempts, tuple(lease.items), round(lease.deadline * 1000))
                return batch, _ms(answer.retry), tuple(tuple(one) for one in answer.buried)
            case "dead":
                return tuple((one.id, one.group, one.attempts, tuple(one.items)) for one in answer)
            case "stats":
                return tuple(answer)
            case "audit":
                return tuple(answer[2])
        return tuple(answer) if isinstance(answer, (tuple, list)) else answer

    def answer(self, state: model.Buffer, verb: str, args: Args, now: int) -> Any:
        match verb, args:
            case "push", (group, items, token, front):
                return state.push(now, group.encode(), [*items], token.encode(), front)
            case "pop", (group, size):
                return tuple(state.pop(now, group.encode(), size))
            case "longest", (count,):
                return tuple((group.decode(), length) for group, length in state.longest(count))
            case "pop_longest", (count, size):
                return tuple((group.decode(), tuple(items)) for group, items in state.pop_longest(now, count, size))
            case "reserve", (size, lease, name):
                batch, retry, buried = state.reserve(now, size, name.encode(), lease)
                held = batch and (batch.group.decode(), batch.attempts, tuple(batch.items), batch.time)
                _forget(state.limit)
                return held, retry, tuple((name.decode(), group.decode(), tries) for name, group, tries in buried)
            case "ack", (name, failed, delay):
                return state.ack(now, name.encode(), [*failed], delay)
            case "release", (name, delay, counted):
                return state.release(now, name.encode(), delay, counted)
            case "extend", (name, lease):
                return state.extend(now, name.encode(), lease)
            case "redrive", (names, token):
                return state.redrive(now, [name.encode() for name in names], token.encode())
            case "discard", (names, token):
                return state.discard([name.encode() for name in names], token.encode())
            case "dead", (limit,):
                dead = state.dead(limit)
                return tuple((name.decode(), b.group.decode(), b.attempts, tuple(b.items)) for name, b in dead)
            case "stats", ():
                found = state.stats(now)
                oldest = -1 if found["oldest"] is None else max(0, found["oldest"])
                counts = [found[key] for key in ("leased", "delayed", "dead")]
                expiry = -1 if found["expiry"] is None else found["expiry"]
                return -1, found["waiting"], found["groups"], oldest, *counts, expiry
            case "audit", ():
                return ()
            case "purge", ():
                return 0, state.purge()
        raise AssertionError(verb)

    def learn(self, shared: Shared, verb: str, args: Args, reply: Any) -> None:
        super().learn(shared, verb, args, reply)
        if verb == "reserve":
            batch, _, buried = reply
            if batch:
                shared.leases[:] = [*shared.leases[-20:], (args[2], batch[2])]
            shared.dead += [name for name, _, _ in buried]


MEMBERS = [b"a", b"b", b"c", b"d", b"e"]


class PriorityGame(Game[model.Priority]):
    """Play with the priority queue, in one of its settings."""

    SETTINGS: tuple[tuple[Any, int, tuple[tuple[int, int], ...]], ...] = (
        ("fifo", 0, ()),
        ("score", 2, ()),
        ("fifo", 2, ((5, 1000), (20, 10_000))),
    )
    weights = {  # noqa: RUF012
        "push": 35, "pop": 8, "reserve": 25, "ack": 15, "release": 8, "extend": 4, "dead": 2, "redrive": 3,
        "discard": 2, "peek": 3, "state": 4, "remove": 3, "stats": 3, "audit": 1,
    }  # fmt: skip

    def __init__(self, setting: int = 0) -> None:
        self.order, self.max_attempts, self.rates = self.SETTINGS[setting % len(self.SETTINGS)]
        self.ops: PriorityOps[bytes] = PriorityOps(
            "q",
            codec=BYTES,
            order=self.order,
            lease=2,
            max_attempts=self.max_attempts or None,
            rates=[Rate(limit, per / 1000) for limit, per in self.rates],
            dedup_window=WEEK,
        )

    def initial(self) -> model.Priority:
        return model.Priority(
            self.order, 2000, self.max_attempts, model.Limit(list(self.rates)) if self.rates else None
        )

    def draw(self, verb: str, random: Random, shared: Shared) -> Args | None:
        name = str(next(shared.names))
        some = tuple(random.sample(MEMBERS, random.randint(1, 3)))
        if verb == "push":
            pairs = tuple((member, random.randint(0, 3)) for member in some)
            return pairs, random.choice([0, 0, 0, 300]), "t" + name
        if verb == "reserve":
            return random.randint(1, 3), random.choice([100, 500, 2000]), "l" + name
        if verb in ("ack", "release", "extend"):
            if not shared.leases:
                return None
            lease, members = random.choice(shared.leases[-10:])
            # The first member or the others: a call is remembered by its first, so that must tell which it is.
            chosen = random.choice([members[:1], members[1:] or members])
            if verb == "ack":
                return lease, chosen
            if verb == "extend":
                return lease, chosen, random.choice([100, 2000])
            return lease, chosen, random.choice([0, 0, 50, 700]), random.random() < 0.8
        if verb in ("redrive", "discard", "remove"):
            return some, "t" + name
        if verb == "state":
            return some[:1]
        return (random.randint(1, 3),) if verb in ("pop", "peek", "dead") else ()

    def op(self, verb: str, args: Args) -> Op[Any]:
        ops = self.ops
        match verb, args:
            case "push", (pairs, delay, token):
                return _first(ops.push_many(pairs, delay=delay / 1000, token=token))
            case "pop", (count,):
                return ops.pop_many(count)
            case "reserve", (size, lease, name):
                return ops.reserve_once(size, lease=lease / 1000, lease_id=name)
            case "ack", (name, members):
                return _only(ops.ack([_lease(name, members)]))
            case "release", (name, members, delay, counted):
                return _only(ops.release([_lease(name, members)], delay / 1000, counted=counted))
            case "extend", (name, members, lease):
                return _only(ops.extend([_lease(name, members)], lease / 1000))
            case "redrive" | "discard" | "remove", (members, token):
                made: Op[Any] = getattr(ops, verb)(members, token)
                return made
            case "dead", (limit,):
                return ops.dead(limit)
            case "peek", (count,):
                return ops.peek(count)
            case "state", (member,):
                return ops.state(member)
            case "stats" | "audit" | "purge", ():
                return _first(getattr(ops, verb)())
        raise AssertionError(verb)

    def seen(self, verb: str, answer: Any) -> Any:
        match verb:
            case "push":
                return "".join(outcome.name[0] for outcome in answer)
            case "pop" | "peek" | "dead":
                return tuple((item.member, item.priority, item.attempts) for item in answer)
            case "reserve":
                lease = answer.lease
                batch = lease and (tuple(lease.items), tuple(lease.priorities or ()), round(lease.deadline * 1000))
                return batch, _ms(answer.retry), tuple(one.name for one in answer.buried)
            case "release":
                return answer[0], tuple(one.name for one in answer[1])
            case "ack":
                return answer[0]
            case "state":
                return answer.value
            case "audit":
                return tuple(answer[2])
        return tuple(answer) if isinstance(answer, (tuple, list)) else answer

    def _items(self, triples: list[tuple[bytes, float, int]]) -> Any:
        return tuple((member, self._priority(score), tries) for member, score, tries in triples)

    def _priority(self, score: float) -> float:
        return score // PLACES if self.order == "fifo" else score

    def answer(self, state: model.Priority, verb: str, args: Args, now: int) -> Any:
        match verb, args:
            case "push", (pairs, delay, token):
                turned = [(priority, member) for member, priority in pairs]
                return state.push(now, turned, delay, f"{token}:0".encode())
            case "pop", (count,):
                return self._items(state.pop(now, count))
            case "reserve", (size, lease, name):
                taken, deadline, retry, dead = state.reserve(now, size, name.encode(), lease)
                _forget(state.limit)
                names = tuple(member for member, _ in taken)
                priorities = tuple(self._priority(state.members[member].score) for member in names)
                return ((names, priorities, deadline) if taken else None), retry, tuple(dead)
            case "ack", (name, members):
                return state.ack(now, name.encode(), [*members])
            case "release", (name, members, delay, counted):
                back, dead = state.release(now, name.encode(), [*members], delay, counted)
                return back, tuple(dead)
            case "extend", (name, members, lease):
                deadline = state.extend(now, name.encode(), [*members], lease)
                return len(state._held(name.encode(), [*members])), deadline
            case "redrive" | "discard" | "remove", (members, token):
                return getattr(state, verb)([*members], token.encode())
            case "dead", (limit,):
                return self._items(state.dead(limit))
            case "peek", (count,):
                return self._items(state.peek(count))
            case "state", (member,):
                return state.state(member)
            case "stats", ():
                found = state.stats()
                parked = (found["delayed"] or 0) + (found["leased"] or 0)
                expiry = -1 if found["expiry"] is None else found["expiry"]
                return -1, found["leased"], expiry, found["ready"], parked, found["dead"]
            case "audit", ():
                return ()
            case "purge", ():
                return 0, state.purge()
        raise AssertionError(verb)

    def learn(self, shared: Shared, verb: str, args: Args, reply: Any) -> None:
        super().learn(shared, verb, args, reply)
        if verb == "reserve" and reply[0]:
            shared.leases[:] = [*shared.leases[-20:], (args[2], reply[0][0])]


class LimitGame(Game[model.Limit]):
    """Play with the rate limiter."""

    RATES = ((5, 1000), (12, 5000))
    weights = {"acquire": 1}  # noqa: RUF012
    again = 20
    purges = False

    def __init__(self, setting: int = 0) -> None:  # noqa: ARG002
        self.ops = LimitOps("q", tuple(Rate(limit, per / 1000) for limit, per in self.RATES), dedup_window=WEEK)

    def initial(self) -> model.Limit:
        return model.Limit([*self.RATES])

    def draw(self, verb: str, random: Random, shared: Shared) -> Args:  # noqa: ARG002
        return random.randint(1, 4), f"t{next(shared.names)}"

    def op(self, verb: str, args: Args) -> Op[Any]:  # noqa: ARG002
        return self.ops.acquire(*args)

    def seen(self, verb: str, answer: Any) -> Any:  # noqa: ARG002
        return answer.granted, _ms(answer.retry_after)

    def answer(self, state: model.Limit, verb: str, args: Args, now: int) -> Any:  # noqa: ARG002
        cost, token = args
        answer = state.acquire(now, cost, token.encode())
        _forget(state)
        return answer


GAMES: list[Callable[[int], Game[Any]]] = [BufferGame, PriorityGame, LimitGame]


def _forget(limit: model.Limit | None) -> None:
    """Drop grants that no later call can see: the latest of them is the earliest time that counts."""
    if limit and limit.grants:
        latest, longest = max(at for at, _ in limit.grants), max(per for _, per in limit.rates)
        limit.grants = [grant for grant in limit.grants if grant[0] >= latest - longest]
        limit.forgotten = 0


def _ms(seconds: float | None) -> int:
    return -1 if seconds is None else round(seconds * 1000)


def _lease(name: str, members: tuple[bytes, ...] = (), failed: tuple[int, ...] = ()) -> Lease[bytes]:
    return Lease(name, None, [*members], 1, 0, [*members], failed={*failed})


def _first(talk: Any) -> Op[Any]:
    made: Op[Any] = next(talk)
    return made


def _only(talk: Any) -> Op[Any]:
    (op,) = next(talk).ops
    made: Op[Any] = op
    return made


def record(
    game: Game[Any], connect: Callable[[], redis.Redis], calls: int, seed: int, *, step: int = 150, purge: int = 0
) -> list[list[Call]]:
    """Let eight clients make so many calls at once, and give each one's; `step`: ms that pass a call.

    `purge`: about how many calls there are to a purge; 0: none. Each client has a connection of its own.
    """
    shared, ticks = Shared(), count(1)
    start, failures = threading.Barrier(CLIENTS), []
    histories: list[list[Call]] = [[] for _ in range(CLIENTS)]

    def play(client: int, connection: redis.Redis) -> None:
        random, runner, mine = Random(seed * 1000 + client), Runner(connection), histories[client]
        start.wait()
        for _ in range(calls // CLIENTS):
            if purge and game.purges and random.random() < 1 / purge:
                verb, args = "purge", ()
            else:
                verb, args = game.choose(random, shared)
            now = START + next(ticks) * step
            began = time.monotonic_ns()
            reply = game.send(runner, verb, args, now)
            mine.append(Call(client, began, time.monotonic_ns(), verb, args, now, reply))
            if reply != LOST:
                game.learn(shared, verb, args, reply)

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
