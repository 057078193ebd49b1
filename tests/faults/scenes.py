"""Every script in every state that it treats in its own way: what came before, and the call. The time is given.

The tests of partial writes, of full servers and of permissions take each scene, break one thing, and look at all keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import redis

from redisq import BYTES, Rate
from redisq.ops import BufferOps, Lease, LimitOps, Op, PriorityOps
from redisq.scripts import load

from ..backends import at

START = 1_000_000_000_000  # ms
LATE = 3_600_000  # ms after START: every lease, delay and wait is over
Q = b"redisq:{q}:"

BUFFER = BufferOps("q", codec=BYTES, lease=1)
MORTAL_BUFFER = BufferOps("q", codec=BYTES, lease=1, max_attempts=1)
RATED_BUFFER = BufferOps("q", codec=BYTES, lease=1, rates=(Rate(2, 1), Rate(9, 60)))
QUEUE: PriorityOps[bytes] = PriorityOps("q", codec=BYTES, lease=1)
MORTAL: PriorityOps[bytes] = PriorityOps("q", codec=BYTES, lease=1, max_attempts=1)
RATED: PriorityOps[bytes] = PriorityOps("q", codec=BYTES, lease=1, rates=(Rate(2, 1), Rate(9, 60)))
SCORED: PriorityOps[bytes] = PriorityOps("q", codec=BYTES, lease=1, order="score")
LIMIT = LimitOps("q", (Rate(3, 1), Rate(100, 60)))

Call = Op[Any]
Step = Call | tuple[Any, ...]
"""A call, or a plain command that breaks something."""


@dataclass(frozen=True)
class Scene:
    """Hold one script's call and what came before it."""

    what: str
    before: tuple[Step, ...]
    op: Call
    grows: bool = False
    """Whether a full server refuses it: it adds to what is stored. All others look, take or give back."""

    @property
    def script(self) -> str:
        """Name the script."""
        return self.op.script.name

    def __str__(self) -> str:
        return f"{self.script}: {self.what}"

    def build(self, client: redis.Redis) -> None:
        """Empty the server and make what came before."""
        client.flushall()
        pipe: Any = client.pipeline(transaction=False)
        for step in self.before:
            pipe.execute_command(*(step.by_text() if isinstance(step, Op) else step))
        pipe.execute()


def everything(client: redis.Redis) -> dict[bytes, tuple[bytes, bool]]:
    """Give each key of the server with its DUMP, and whether it has a TTL."""
    keys: Any = client.keys()
    pipe = client.pipeline(transaction=False)
    for key in keys:
        pipe.dump(key)
        pipe.pttl(key)
    found = pipe.execute()
    return {key: (dump, ttl >= 0) for key, dump, ttl in zip(keys, found[::2], found[1::2], strict=True)}


def send(client: redis.Redis, op: Call) -> Any:
    """Send a call as it is, and give the reply, or the server's error."""
    try:
        return plain(client, *op.by_text())
    except redis.ResponseError as error:
        return error


def plain(client: redis.Redis, *words: Any) -> Any:
    """Send a command as it is."""
    raw: Any = client  # execute_command has no types in redis-py
    return raw.execute_command(*words)


def commands_of(script: str) -> set[str]:
    """Name the commands that a script calls."""
    text = load(script).text.decode()
    found = {name.lower() for name in re.findall(r"redis\.call\(\s*'([A-Z]+)'", text)}
    return found | ({"lpush", "rpush"} if "redis.call(command," in text else set())


def _first(talk: Any) -> Call:
    found: Call = next(talk)
    return found


def _settle(talk: Any, after: int) -> Call:
    (op,) = next(talk).ops
    return at(op, START + after)


def _push(group: str, items: Iterable[bytes], token: str, *, front: bool = False) -> Call:
    return at(BUFFER.push([*items], group, token, front=front), START)


def _reserve(lease: str, size: int, after: int = 0, ops: BufferOps[bytes] = BUFFER) -> Call:
    return at(ops.reserve_once(size, lease_id=lease), START + after)


def _batch(lease: str, items: list[bytes], failed: Iterable[int] = ()) -> Lease[bytes]:
    return Lease(lease, "g", items, 1, 0, items, failed={*failed})


def _add(members: dict[bytes, float], token: str, delay: float = 0, ops: PriorityOps[bytes] = QUEUE) -> Call:
    return at(_first(ops.push_many(members, delay=delay, token=token)), START)


def _take(lease: str, size: int, after: int = 0, ops: PriorityOps[bytes] = QUEUE) -> Call:
    return at(ops.reserve_once(size, lease_id=lease), START + after)


def _pop(count: int, after: int = 0, ops: PriorityOps[bytes] = QUEUE) -> Call:
    return at(ops.pop_many(count), START + after)


A, AB, ABC = [b"a"], [b"a", b"b"], [b"a", b"b", b"c"]
MANY = [b"%d" % i for i in range(2500)]

TWO_GROUPS = (_push("g", ABC, "t1"), _push("h", AB, "t2"))
HELD = (*TWO_GROUPS, _reserve("l", 2))
GIVEN_BACK = (*HELD, _settle(BUFFER.release([_batch("l", AB)]), 10))
DEAD = (
    *TWO_GROUPS,
    _reserve("x", 3, 0, MORTAL_BUFFER),
    _reserve("y", 2, 0, MORTAL_BUFFER),
    _push("g", [b"d", b"e"], "t3"),
    _reserve("l", 1, 5000, MORTAL_BUFFER),
)
EVERYWHERE = (
    *DEAD,
    _push("h", ABC, "t4"),
    _reserve("m", 1, 5001, MORTAL_BUFFER),
    _settle(BUFFER.release([_batch("m", A)], 9), 5002),
)


def _repair(cursor: str) -> Call:
    return at(replace(_first(BUFFER.audit(True)), args=(cursor, 100, b"repair", b"")), START + 1)


def _repair_queue(cursor: str) -> Call:
    return replace(_first(QUEUE.audit(True)), args=(cursor, 100, b"repair"))


def _buffer() -> Iterable[Scene]:
    yield Scene("a new queue", (), _push("g", AB, "t"), True)
    yield Scene("a new group", TWO_GROUPS, _push("new", AB, "t"), True)
    yield Scene("a group with items", TWO_GROUPS, _push("g", AB, "t"), True)
    yield Scene("at the front", TWO_GROUPS, _push("g", AB, "t", front=True), True)
    yield Scene("in pieces", TWO_GROUPS, _push("g", MANY, "t"), True)
    yield Scene("at the front, in pieces", TWO_GROUPS, _push("g", MANY, "t", front=True), True)
    yield Scene("sent again", TWO_GROUPS, _push("g", ABC, "t1"))
    yield Scene("nothing", TWO_GROUPS, _push("g", [], "t"))

    yield Scene("a part", TWO_GROUPS, at(BUFFER.pop("g", 2), START + 1))
    yield Scene("all", TWO_GROUPS, at(BUFFER.pop("g", 9), START + 1))
    yield Scene("an absent group", TWO_GROUPS, at(BUFFER.pop("new", 9), START + 1))
    yield Scene("the list is gone", (*TWO_GROUPS, ("DEL", Q + b"items:g")), at(BUFFER.pop("g", 9), START + 1))

    yield Scene("look", TWO_GROUPS, BUFFER.longest_groups(2))
    yield Scene("one left, one emptied", TWO_GROUPS, at(BUFFER.pop_longest(2, 2), START + 1))
    gone = (*TWO_GROUPS, ("DEL", Q + b"items:g"))
    yield Scene("the longest is gone", gone, at(BUFFER.pop_longest(2, 2), START + 1))

    yield Scene("a part of the longest group", TWO_GROUPS, _reserve("new", 2))
    yield Scene("somebody waits for the rest", (*TWO_GROUPS, ("DEL", Q + b"wake")), _reserve("new", 2))
    yield Scene("all of the longest group", TWO_GROUPS, _reserve("new", 9))
    yield Scene("a long batch", (*TWO_GROUPS, _push("g", MANY, "t3")), _reserve("new", 2502))
    yield Scene("a group that has waited", TWO_GROUPS, _reserve("new", 1, LATE))
    yield Scene("a lease that ran out", HELD, _reserve("new", 9, 5000))
    yield Scene("a batch that was given back", GIVEN_BACK, _reserve("new", 9, 20))
    yield Scene("the first lease is buried", HELD, _reserve("new", 9, 5000, MORTAL_BUFFER))
    both = (*HELD, _reserve("m", 9), _reserve("n", 9))
    yield Scene("all are buried, nothing is left", both, _reserve("new", 9, 5000, MORTAL_BUFFER))
    back = (*both, _settle(BUFFER.release([_batch("m", AB)]), 10))
    yield Scene("buried from both places", back, _reserve("new", 9, 5000, MORTAL_BUFFER))
    yield Scene("nothing", (), _reserve("new", 9))
    lost = (*HELD, ("DEL", Q + b"batch:l", Q + b"items:g"))
    yield Scene("what was due is gone", lost, _reserve("new", 9, LATE))
    headless = (*HELD, ("DEL", Q + b"batch:l"), ("RPUSH", Q + b"batch:l", b"x", b"y"))
    yield Scene("a batch without a header", headless, _reserve("new", 9, 5000))
    yield Scene("gone, headless and buried", (*back, *headless[-2:], gone[-1]), _reserve("new", 9, LATE, MORTAL_BUFFER))
    yield Scene("sent again", HELD, _reserve("l", 2))
    yield Scene("sent again after the batch was lost", (*HELD, _reserve("m", 9, 5000)), _reserve("l", 2, 5001))
    yield Scene("charged", TWO_GROUPS, _reserve("new", 2, 0, RATED_BUFFER))
    charged = (*TWO_GROUPS, _reserve("l", 1, 0, RATED_BUFFER), _reserve("m", 1, 1, RATED_BUFFER))
    yield Scene("charged again", charged, _reserve("new", 1, 1500, RATED_BUFFER))
    yield Scene("charged, old charges go", charged, _reserve("new", 1, LATE, RATED_BUFFER))
    yield Scene("the rate is used up", charged, _reserve("new", 1, 2, RATED_BUFFER))

    batch = _batch("l", AB)
    for ops, verb in ((BUFFER.ack, "ack"), (BUFFER.release, "release")):
        yield Scene(f"{verb}", HELD, _settle(ops([batch]), 10))
        yield Scene(f"{verb} late", HELD, _settle(ops([batch]), 5000))
        yield Scene(f"{verb} again", (*HELD, _settle(ops([batch]), 10)), _settle(ops([batch]), 20))
        yield Scene(f"{verb} too late", (*HELD, _reserve("m", 9, 5000)), _settle(ops([batch]), 5001))
        untaken = (*HELD, ("DEL", Q + b"wake"))
        yield Scene(f"{verb} while somebody waits", untaken, _settle(ops([_batch("l", AB, [0])]), 10))
    yield Scene("one failed", HELD, _settle(BUFFER.ack([_batch("l", AB, [1])], 7), 10))
    yield Scene("all failed", HELD, _settle(BUFFER.ack([_batch("l", AB, [0, 1])], 7), 10))
    long = (*TWO_GROUPS, _push("g", MANY, "t3"), _reserve("l", 2502))
    some = _batch("l", [], range(1500))
    yield Scene("many failed", long, _settle(BUFFER.ack([some]), 10))
    yield Scene("later", HELD, _settle(BUFFER.release([batch], 7), 10))
    yield Scene("nobody began", HELD, _settle(BUFFER.release([batch], 7, counted=False), 10))
    yield Scene("longer", HELD, _settle(BUFFER.extend([batch], 60), 10))
    yield Scene("no longer", HELD, _settle(BUFFER.extend([batch], 0.001), 10))
    yield Scene("too late", (*HELD, _reserve("m", 9, 5000)), _settle(BUFFER.extend([batch]), 5001))

    yield Scene("look", DEAD, _first(BUFFER.dead()))
    yield Scene("look, from the last one seen", DEAD, _first(BUFFER.dead(9, "x")))
    yield Scene("some", DEAD, at(BUFFER.redrive(["x", "nobody", "y", "x"], "t"), START + 6000))
    asleep = (*DEAD, ("DEL", Q + b"wake"))
    yield Scene("while somebody waits", asleep, at(BUFFER.redrive(["x"], "t"), START + 6000))
    yield Scene("nobody", DEAD, at(BUFFER.redrive(["nobody"], "t"), START + 6000))
    again = at(BUFFER.redrive(["x"], "t"), START + 6000)
    yield Scene("sent again", (*DEAD, again), again)
    yield Scene("some", DEAD, BUFFER.discard(["x", "nobody", "y"], "t"))
    yield Scene("nobody", DEAD, BUFFER.discard(["nobody"], "t"))
    yield Scene("sent again", (*DEAD, BUFFER.discard(["x"], "t")), BUFFER.discard(["x"], "t"))

    yield Scene("look", EVERYWHERE, at(_first(BUFFER.stats()), START + 6000))
    yield Scene("items in every state", EVERYWHERE, _first(BUFFER.purge()))
    yield Scene("a part", EVERYWHERE, replace(_first(BUFFER.purge()), args=(1,)))
    yield Scene("nothing", (), _first(BUFFER.purge()))
    yield Scene("a sound queue", EVERYWHERE, _repair("keys:0"))
    yield Scene("too low a counter", (*HELD, ("ZADD", Q + b"groups", 1, "h")), _repair("keys:0"))
    yield Scene("a counter of nothing", (*HELD, ("DEL", Q + b"items:h")), _repair("groups:0"))
    yield Scene("no counter", (*HELD, ("ZREM", Q + b"groups", "h")), _repair("keys:0"))
    yield Scene("no time", (*HELD, ("ZREM", Q + b"since", "h")), _repair("keys:0"))
    yield Scene("a time of nothing", (*HELD, ("ZADD", Q + b"since", 1, "n")), _repair("since:0"))
    yield Scene("a batch in no index", (*HELD, ("ZREM", Q + b"leases", "l")), _repair("keys:0"), True)
    yield Scene("a batch in two indexes", (*HELD, ("ZADD", Q + b"dead", 1, "l")), _repair("keys:0"))
    yield Scene("an entry of no batch", (*HELD, ("DEL", Q + b"batch:l")), _repair("leases:0"))


LEASED = (_add({b"a": 1, b"b": 2, b"c": 3}, "t1"), _take("l", 2))
NOTED = (*LEASED, _add({b"a": 0}, "t2"))
NOTED_LATER = (*LEASED, _add({b"a": 0}, "t2", 9))
BURIED = (_add({b"a": 1, b"b": 2, b"c": 3}, "t1"), _take("x", 2, 0, MORTAL), _take("l", 1, 5000, MORTAL))
PARKED = (_add({b"a": 1, b"b": 2}, "t1"), _add({b"d": 1, b"e": 2}, "t2", 9))
ALL_STATES = (*BURIED, *PARKED[1:], _add({b"f": 5, b"b": 7}, "t3"))


def _priority() -> Iterable[Scene]:
    ready = (_add({b"a": 1, b"b": 2}, "t1"),)
    yield Scene("a new queue", (), _add({b"a": 1}, "t"), True)
    yield Scene("a new queue, later", (), _add({b"a": 1}, "t", 5), True)
    yield Scene("in score order", (), _add({b"a": 1.5}, "t", 0, SCORED), True)
    yield Scene("raised and kept", ready, _add({b"a": 0, b"b": 9}, "t"), True)
    yield Scene("kept", ready, _add({b"b": 9}, "t"), True)
    yield Scene("delayed, now", PARKED, _add({b"d": 5}, "t"), True)
    yield Scene("delayed, earlier", PARKED, _add({b"d": 5, b"e": 1}, "t", 5), True)
    yield Scene("leased", LEASED, _add({b"a": 5, b"b": 0, b"n": 1}, "t"), True)
    yield Scene("noted before", NOTED_LATER, _add({b"a": 5}, "t", 5), True)
    twice = _first(QUEUE.push_many([(b"n", 5), (b"n", 1), (b"d", 1), (b"d", 0)], token="t"))
    yield Scene("given twice", PARKED, at(twice, START), True)
    yield Scene("dead", BURIED, _add({b"a": 5}, "t"), True)
    yield Scene("dead, later", BURIED, _add({b"a": 5}, "t", 5), True)
    yield Scene("all states at once", ALL_STATES, _add({b"%c" % c: 0 for c in b"abcdefg"}, "t"), True)
    yield Scene("sent again", ready, _add({b"a": 1, b"b": 2}, "t1"))
    recipe = (("ZADD", Q + b"ready", 1.5, "a", 2, "b"),)
    yield Scene("the recipe's own set", recipe, _add({b"a": 1}, "t", 0, SCORED), True)
    for call in (_pop(1, 0, SCORED), _take("new", 1, 0, SCORED), SCORED.peek(), SCORED.dead()):
        yield Scene("the recipe's own set", recipe, call)

    past = (*NOTED, _add({b"d": 9}, "t3", 1))
    for name, take in (("pop", _pop), ("reserve", lambda n, after=0, ops=QUEUE: _take("new", n, after, ops))):
        yield Scene(f"{name} the first", ready, take(1))
        yield Scene(f"{name} all", ready, take(9))
        yield Scene(f"{name} while somebody waits for the rest", (*ready, ("DEL", Q + b"wake")), take(1))
        yield Scene(f"{name} nothing", (), take(1))
        yield Scene(f"{name} one whose delay is over", PARKED, take(1, LATE))
        yield Scene(f"{name} all whose time has come", past, take(9, LATE))
        yield Scene(f"{name} one whose lease ran out", LEASED, take(1, 5000))
        yield Scene(f"{name} and bury", LEASED, take(1, 5000, MORTAL))
        yield Scene(f"{name} and bury, one is noted", NOTED, take(1, 5000, MORTAL))
        yield Scene(f"{name} and bury, one is noted for later", NOTED_LATER, take(1, 5000, MORTAL))
        yield Scene(f"{name} with a row that cannot be read", (*LEASED, ("HDEL", Q + b"rows", "a")), take(9, 5000))
    yield Scene("sent again", LEASED, _take("l", 2))
    yield Scene("charged", ready, _take("new", 1, 0, RATED))
    charged = (_add({b"a": 1, b"b": 2, b"c": 3}, "t1"), _take("l", 1, 0, RATED), _take("m", 1, 1, RATED))
    yield Scene("charged, old charges go", charged, _take("new", 1, LATE, RATED))
    closed = (*charged[:2], _take("m", 1, 900, RATED))
    yield Scene("the rate is used up, a lease ran out", closed, _take("new", 1, 1000, RATED))

    batch = _batch("l", AB)
    release = QUEUE.release
    for before, state in ((LEASED, "held"), (NOTED, "noted"), (NOTED_LATER, "noted for later")):
        yield Scene(f"{state}", before, _settle(QUEUE.ack([batch]), 10))
        yield Scene(f"{state}, late", before, _settle(QUEUE.ack([batch]), LATE))
        yield Scene(f"{state}", before, _settle(release([batch]), 10))
        yield Scene(f"{state}, for later", before, _settle(release([batch], 7), 10))
        yield Scene(f"{state}, and buried", before, _settle(MORTAL.release([batch]), 10))
        yield Scene(f"{state}, nobody began", before, _settle(release([batch], counted=False), 10))
        yield Scene(f"{state}", before, _settle(QUEUE.extend([batch], 60), 10))
        yield Scene(f"{state}", before, QUEUE.remove([b"a", b"nobody", b"c"], "t"))
    first, second = _batch("l", A), _batch("l", [b"b"])
    for ops in (QUEUE.ack, release):
        one = _settle(ops([first]), 10)
        yield Scene("the second part", (*LEASED, one), _settle(ops([second]), 20))
        yield Scene("a part again", (*LEASED, one), _settle(ops([first]), 20))
        yield Scene("while somebody waits", (*NOTED, ("DEL", Q + b"wake")), _settle(ops([first]), 20))
        yield Scene("too late", (*LEASED, _take("m", 9, 5000)), _settle(ops([batch]), 5001))
    yield Scene("too late", (*LEASED, _take("m", 9, 5000)), _settle(QUEUE.extend([batch]), 5001))

    yield Scene("look", BURIED, QUEUE.dead())
    yield Scene("look, from the last one seen", BURIED, QUEUE.dead(9, b"a"))
    yield Scene("look", ALL_STATES, QUEUE.peek(9))
    yield Scene("look", ALL_STATES, QUEUE.state(b"a"))
    yield Scene("look", ALL_STATES, _first(QUEUE.stats()))
    for act in (QUEUE.redrive, QUEUE.discard):
        yield Scene("some", BURIED, act([b"a", b"nobody", b"b", b"a"], "t"))
        yield Scene("nobody", BURIED, act([b"nobody"], "t"))
        yield Scene("while somebody waits", (*BURIED, ("DEL", Q + b"wake")), act([b"a"], "t"))
        yield Scene("a row that cannot be read", (*BURIED, ("HDEL", Q + b"rows", "a")), act([b"a"], "t"))
        yield Scene("sent again", (*BURIED, act([b"a"], "t")), act([b"a"], "t"))
    yield Scene("dead and nobody", ALL_STATES, QUEUE.remove([b"a", b"d", b"nobody"], "t"))
    yield Scene("nobody", ALL_STATES, QUEUE.remove([b"nobody"], "t"))
    yield Scene("sent again", (*LEASED, QUEUE.remove([b"a"], "t")), QUEUE.remove([b"a"], "t"))
    yield Scene("members in every state", ALL_STATES, _first(QUEUE.purge()))
    yield Scene("nothing", (), _first(QUEUE.purge()))

    yield Scene("a sound queue", ALL_STATES, _repair_queue("keys:0"))
    yield Scene("a place too high", (*LEASED, ("HSET", Q + b"meta", "sequence", 1)), _repair_queue("ready:0"), True)
    yield Scene("ready and leased", (*LEASED, ("ZADD", Q + b"ready", 2, "a")), _repair_queue("ready:0"))
    yield Scene("ready and delayed", (*PARKED, ("ZADD", Q + b"ready", 2, "d")), _repair_queue("ready:0"))
    owned = ("HSET", Q + b"rows", "c", "1 1 - - nobody")
    yield Scene("ready with a lease's row", (*LEASED, owned), _repair_queue("ready:0"), True)
    yield Scene("no row", (*LEASED, ("HDEL", Q + b"rows", "a")), _repair_queue("later:0"), True)
    yield Scene("a row of nobody", (*LEASED, ("ZREM", Q + b"later", "a")), _repair_queue("rows:0"), True)


def _limit() -> Iterable[Scene]:
    def acquire(cost: int, token: str, after: int = 0) -> Call:
        return at(LIMIT.acquire(cost, token), START + after)

    used = (acquire(2, "t1"),)
    yield Scene("the first", (), acquire(2, "t"), True)
    yield Scene("a part", used, acquire(2, "t", 1), True)
    yield Scene("later", used, acquire(2, "t", 1500), True)
    yield Scene("old grants go", used, acquire(2, "t", LATE), True)
    yield Scene("none", (acquire(3, "t1"),), acquire(2, "t", 1))
    yield Scene("sent again", used, acquire(2, "t1", 1))


SCENES = [*_buffer(), *_priority(), *_limit()]
