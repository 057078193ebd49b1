"""Linearizability: every history of concurrent calls can be explained by one order of whole calls on the model.

Short histories are searched for such an order; for long ones MONITOR shows it. As controls, wrong replies that are put
into a history and a recipe that reads first and takes later must be detected.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count, pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
import redis

from benchmarks.recipes import WatchedQueue
from redisq.blocking.runner import Runner
from redisq.core.scripts import load, names
from redisq.embedded import NoServer, Server
from tests import model

from . import settings
from .history import (
    CLIENTS,
    LOST,
    START,
    SUBJECTS,
    Args,
    BufferSubject,
    LimitSubject,
    PrioritySubject,
    RecordedCall,
    Shared,
    Subject,
    record,
)
from .linearize import UNKNOWN, linearizable, order_conflict, replay, search, shortest, shortest_in_order
from .monitor import Monitor
from .node import free_ports

pytestmark = [pytest.mark.server, settings.limit]

SMALL, SIZE = 67, 40  # of each structure: 201 in all
LONG = settings.pick(4_000, 200_000)
by_subject = pytest.mark.parametrize("make", SUBJECTS, ids=["buffer", "priority", "limit"])
Make = Callable[[int], Subject[Any]]


def play(server: Server, subject: Subject[Any], seed: int, size: int = SIZE) -> list[RecordedCall]:
    """Record one short history, on an emptied server."""
    with server.client() as client:
        client.flushall()
    histories = record(subject, lambda: server.client(single_connection_client=True), size, seed)
    return sorted((call for history in histories for call in history), key=lambda call: call.start)


@by_subject
def test_short_histories_have_a_legal_order(server: Server, make: Make) -> None:
    """40 calls of 8 clients, 67 histories of each structure, with each of its settings."""
    for seed in settings.seeds(0.05):
        together = 0
        for round_ in range(SMALL):
            subject = make(round_)
            calls = play(server, subject, seed * 1000 + round_)
            if not linearizable(subject, calls):
                pytest.fail(f"CHAOS_SEED={seed}, history {round_}\n{shortest(subject, calls)}")
            together += sum(one.end > following.start for one, following in pairwise(calls))
        assert together > SMALL * SIZE / 4  # most calls overlap with others, or this would show nothing


@pytest.fixture(scope="module")
def tcp_server(binary: Path) -> Iterator[tuple[Server, int]]:
    """Run a real server on a TCP port, where MONITOR can tell the clients apart."""
    for attempt in range(5):  # a port that was free may be taken before the server is up
        (port,) = free_ports(1)
        server = Server(binary, "--port", str(port), "--bind", "127.0.0.1")
        try:
            server.__enter__()
        except NoServer:
            if attempt == 4:
                raise
            continue
        yield server, port
        server.stop()
        return


def play_long(tcp_server: tuple[Server, int], subject: Subject[Any], seed: int, size: int) -> list[RecordedCall]:
    """Record a long history; return its calls in the order that MONITOR saw."""
    server, port = tcp_server
    addresses: dict[bytes, int] = {}

    def connect() -> redis.Redis:
        client = redis.Redis(port=port, single_connection_client=True)
        about: Any = client.client_info()
        addresses[about["addr"].encode()] = len(addresses)
        return client

    with server.client() as client:
        client.flushall()
        for name in names():
            client.script_load(load(name).text)
        with Monitor(server.socket, inside=False) as monitor:
            histories = record(subject, connect, size, seed, step=20, purge=1500)
            commands = [command for command in monitor.commands() if command.name == b"EVALSHA"]
    order, sent = [], [iter(history) for history in histories]
    for command in commands:
        call = next(sent[addresses[command.client]])
        assert command.script
        assert command.script.endswith(f"/{call.verb}")
        order.append(call)
    assert len(order) == sum(map(len, histories)) >= size - CLIENTS
    return order


@by_subject
def test_long_histories_match_the_model_in_the_order_of_monitor(tcp_server: tuple[Server, int], make: Make) -> None:
    """Every reply is the model's, and the order fits the clients' own times."""
    for seed in settings.seeds():
        subject = make(seed)
        order = play_long(tcp_server, subject, seed, LONG)
        assert order_conflict(order) is None
        if replay(subject, order):
            pytest.fail(f"CHAOS_SEED={seed}\n{shortest_in_order(subject, order)}")


# -- controls


def corrupt(call: RecordedCall, random: Random) -> RecordedCall:
    """Return the call with a reply that is wrong at any time: a higher count, or an item twice."""

    def altered(reply: Any) -> Any:
        if isinstance(reply, bool) or reply is None:
            return reply
        if isinstance(reply, int):
            return reply + random.choice([50, 500])
        if isinstance(reply, bytes):
            return reply + b"x"
        if isinstance(reply, tuple) and reply:
            place = random.randrange(len(reply))
            return (*reply[:place], altered(reply[place]), *reply[place + 1 :])
        return reply

    while True:
        reply = altered(call.reply)
        if reply != call.reply:
            return replace(call, reply=reply)


def corruptible(call: RecordedCall) -> bool:
    """Return whether the reply has something whose change is always wrong."""
    if call.verb in ("pop", "pop_longest"):
        return bool(call.reply and call.reply[-1])
    return call.verb in ("push", "acquire") and call.reply != LOST


@by_subject
def test_a_wrong_reply_in_a_short_history_is_detected(server: Server, make: Make) -> None:
    """One reply of 40 is changed in each history: none is missed, and the counterexample ends with it."""
    made: list[tuple[int, Subject[Any], list[RecordedCall]]] = []
    for round_ in range(settings.pick(6, 60)):
        subject, random = make(round_), Random(settings.SEED + round_)
        calls = play(server, subject, 9_000_000 + round_)
        assert linearizable(subject, calls)
        places = [i for i, call in enumerate(calls) if corruptible(call)]
        for place in random.sample(places, min(1, len(places))):
            wrong = [*calls[:place], corrupt(calls[place], random), *calls[place + 1 :]]
            assert not linearizable(subject, wrong)
            made.append((place, subject, wrong))
    assert made
    place, subject, wrong = min(made, key=lambda one: one[0])  # the shorter its past, the faster it is shrunk
    counterexample = shortest(subject, wrong, timeout=2)
    assert wrong[place] in counterexample.calls
    assert wrong[place].reply not in counterexample.allowed
    assert len(counterexample.calls) < SIZE


@by_subject
def test_a_wrong_reply_in_a_long_history_is_detected(tcp_server: tuple[Server, int], make: Make) -> None:
    """One reply is changed slightly, at each of 20 places, or two calls are swapped, and the replay stops there."""
    subject, random = make(settings.SEED), Random(settings.SEED)
    order = play_long(tcp_server, subject, settings.SEED + 1, 2_000)
    assert replay(subject, order) is None
    for _ in range(20):
        place = random.randrange(len(order))
        call = order[place]
        other = random.choice(
            [one.reply for one in order if one.verb == call.verb and one.reply != call.reply] or ["x"]
        )
        wrong = [*order[:place], replace(call, reply=other), *order[place + 1 :]]
        found = replay(subject, wrong)
        assert found == (place, call.reply)
    counterexample = shortest_in_order(subject, wrong)
    assert counterexample.blamed == wrong[place]
    assert counterexample.allowed == [call.reply]
    assert len(counterexample.calls) <= 13
    assert "> " in str(counterexample)
    assert "the model holds" in str(counterexample)
    apart = next(i for i, call in enumerate(order) if order[i - 1].end < call.start)
    swapped = [*order[: apart - 1], order[apart], order[apart - 1], *order[apart + 1 :]]
    assert order_conflict(order) is None
    assert order_conflict(swapped)


NOTHING: Any = (-1, ())


def popped(member: bytes, score: float) -> Any:
    """Return the reply of a pop that took one member."""
    return 0, ((member, score, 0, b"", None),)


class ReadThenTake(PrioritySubject):
    """The recipe without its WATCH: check, then add; read, then remove. The first reads overlap."""

    def __init__(self) -> None:
        super().__init__(1)
        self.weights = {"push": 1, "pop": 2}
        self.again = 0
        self._barrier = threading.Barrier(CLIENTS)
        self._begun = threading.local()

    def choose(self, random: Random, shared: Shared) -> tuple[str, Args]:
        return super().choose(random, shared) if hasattr(self._begun, "yes") else ("pop", (1,))

    def draw(self, verb: str, random: Random, shared: Shared) -> Args | None:
        asked = random.randint(0, 3), random.choice([b"a", b"b", b"c"]), None
        return ((asked,), 0, False, f"t{next(shared.names)}") if verb == "push" else (1,)

    def send(self, runner: Runner, verb: str, args: Args, now: int) -> Any:  # noqa: ARG002
        client = runner.client
        if verb == "push":
            ((score, member, _),) = args[0]
            recipe = WatchedQueue(client)
            if recipe.improves(member, score):
                recipe.add(member, score)
            return b"A"
        begins = not hasattr(self._begun, "yes")
        if begins:
            client.zadd("index", {"a": 1}, nx=True)
        first = client.zrange("index", 0, 0, withscores=True)
        if begins:
            self._begun.yes = True
            self._barrier.wait()
        if not first:
            return NOTHING
        client.zrem("index", first[0][0])
        return popped(*first[0])

    def answer(self, state: model.Priority, verb: str, args: Args, now: int) -> Any:
        if not state.members and not state.once:
            state.push(now, [(1, b"a", None)], b"first")
        reply = super().answer(state, verb, args, now)
        return b"A" if verb == "push" else (0, reply[1]) if reply[1] else NOTHING


def test_the_recipe_without_watch_is_detected(server: Server) -> None:
    """Ten histories of clients that read first and take later, none of which an order explains."""
    for round_ in range(10):
        subject = ReadThenTake()
        assert not linearizable(subject, play(server, subject, round_))
    subject = ReadThenTake()
    counterexample = shortest(subject, play(server, subject, 10, CLIENTS))
    assert [call.reply for call in counterexample.calls] == [popped(b"a", 1)] * 2  # two clients got the same member


Step = tuple[int, int, int, str, Args, Any]
"""Client, start, end, verb, arguments, reply."""


def history_of(steps: list[Step]) -> list[RecordedCall]:
    """Return a history from steps; its n-th call is given the time START + n ms."""
    ticks = count(START + 1)
    return [
        RecordedCall(client, start, end, verb, args, next(ticks), reply)
        for client, start, end, verb, args, reply in steps
    ]


def push(client: int, item: bytes, length: int) -> Step:
    return client, 20 * client, 20 * client + 10, "push", ("g", (item,), f"t{client}", False), length


def pop(client: int, start: int, end: int, *items: bytes) -> Step:
    return client, start, end, "pop", ("g", 1), items


def add(client: int, member: bytes, score: int, outcome: bytes, end: int | None = None) -> Step:
    asked = (((score, member, None),), 0, False, f"t{client}")
    return client, 20 * client, end or 20 * client + 10, "push", asked, outcome


def first(client: int, start: int, end: int, member: bytes, score: float) -> Step:
    return client, start, end, "pop", (1,), popped(member, score)


def acquire(client: int, granted: int, retry: int) -> Step:
    return client, 0, 10, "acquire", (2, f"t{client}"), (granted, retry)


RESERVED: Step = (1, 20, 30, "reserve", (1, 0, 1000, "l"), (b"batch", START + 1002, b"g", 1, b"", (b"a",)))
BUFFER, PRIORITY, LIMIT = BufferSubject(), PrioritySubject(1), LimitSubject()
KNOWN: dict[str, tuple[bool, Subject[Any], list[Step]]] = {
    "taken once": (True, BUFFER, [push(0, b"a", 1), pop(1, 20, 30, b"a"), pop(2, 40, 50)]),
    "taken twice": (False, BUFFER, [push(0, b"a", 1), pop(1, 20, 30, b"a"), pop(2, 40, 50, b"a")]),
    "twice at once": (False, BUFFER, [push(0, b"a", 1), pop(1, 20, 60, b"a"), pop(2, 20, 60, b"a")]),
    "overlooked": (False, BUFFER, [push(0, b"a", 1), pop(1, 20, 30)]),
    "not yet there": (True, BUFFER, [push(0, b"a", 1), pop(1, 5, 30)]),
    "either": (True, BUFFER, [push(0, b"a", 1), push(1, b"b", 2), pop(2, 40, 60, b"b"), pop(3, 40, 60, b"a")]),
    "newest first": (False, BUFFER, [push(0, b"a", 1), push(1, b"b", 2), pop(2, 40, 50, b"b"), pop(3, 60, 70, b"a")]),
    "acked while held": (True, BUFFER, [push(0, b"a", 1), RESERVED, (2, 40, 50, "ack", ("l", (), 0, ""), 1)]),
    "lost while held": (False, BUFFER, [push(0, b"a", 1), RESERVED, (2, 40, 50, "ack", ("l", (), 0, ""), LOST)]),
    "held twice": (False, BUFFER, [push(0, b"a", 1), RESERVED, pop(2, 40, 50, b"a")]),
    "the best": (True, PRIORITY, [add(0, b"a", 5, b"A"), add(1, b"b", 3, b"A"), first(2, 40, 50, b"b", 3.0)]),
    "past the best": (False, PRIORITY, [add(0, b"a", 5, b"A"), add(1, b"b", 3, b"A"), first(2, 40, 50, b"a", 5.0)]),
    "before the best": (
        True,
        PRIORITY,
        [add(0, b"a", 5, b"A"), add(1, b"b", 3, b"A", 90), first(2, 40, 50, b"a", 5.0)],
    ),
    "demoted": (False, PRIORITY, [add(0, b"a", 5, b"A"), add(1, b"a", 9, b"K"), first(2, 40, 50, b"a", 9.0)]),
    "in the limit": (
        True,
        LIMIT,
        [(c, 0, 9, "acquire", (2, f"t{c}"), (2, 0) if c < 2 else (1, 999)) for c in range(3)],
    ),
    "over the limit": (False, LIMIT, [(c, 0, 9, "acquire", (2, f"t{c}"), (2, 0)) for c in range(3)]),
}


@pytest.mark.parametrize("what", KNOWN)
def test_the_search_is_right_where_the_answer_is_known(what: str) -> None:
    """Histories written by hand, half of them illegal."""
    legal, subject, steps = KNOWN[what]
    assert linearizable(subject, history_of(steps)) is legal


def test_a_counterexample_is_readable() -> None:
    """Of forty calls it shows those that matter: the push of the item, its first pop and its second pop."""
    noise = [(3, 25 * i, 25 * i + 20, "push", ("other", (b"x%d" % i,), f"n{i}", False), i + 1) for i in range(36)]
    steps = [push(0, b"a", 1), pop(1, 20_000, 30_000, b"a"), pop(2, 40_000, 50_000, b"a"), *noise]
    counterexample = shortest(BUFFER, history_of(steps))
    assert str(counterexample) == "\n".join(
        [
            "3 of 39 calls show it: they have a legal order until the one that is marked",
            "client  from  to µs  call                             reply",
            "  0     0     0      push(g, [a], t0, False) at 1 ms  1",
            "  1     20    30     pop(g, 1) at 2 ms                [a]",
            "> 2     40    50     pop(g, 1) at 3 ms                [a]",
            "  the model allows it: []",
        ]
    )


def test_the_search_finds_all_possible_replies() -> None:
    """Asked for a reply, it returns all that some order explains, and no others."""
    elsewhere: Step = (1, 20, 40, "push", ("h", (b"b",), "t1", False), 1)
    calls = history_of([push(0, b"a", 1), elsewhere, (2, 20, 60, "groups", (2,), UNKNOWN)])
    assert sorted(search(BUFFER, calls, asked=2)) == [((b"g", 1),), ((b"h", 1), (b"g", 1))]
    assert search(BUFFER, [*calls[:2], replace(calls[2], reply=(("h", 1),))]) == []
