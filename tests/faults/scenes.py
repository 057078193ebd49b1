"""Every script in every state that it treats in its own way: what came before, and the call. The time is given.

The tests of partial writes, of full servers, of permissions and of slots on the move take each scene, break one thing,
and look at all keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import redis

from redisq import BYTES, Rate
from redisq.ops import BufferOps, Lease, LimitOps, Op, PriorityOps
from redisq.ops.buffer import GroupState
from redisq.scripts import load

from ..backends import at

START = 1_000_000_000_000  # ms
LATE = 3_600_000  # ms after START: every lease, delay and wait is over
Q = b"redisq:{q}:"

RATES = (Rate(2, 1), Rate(9, 60))
BUFFER = BufferOps("q", codec=BYTES, lease=1)
MORTAL_BUFFER = BufferOps("q", codec=BYTES, lease=1, max_attempts=1)
FEW_DEAD_BUFFER = BufferOps("q", codec=BYTES, lease=1, max_attempts=1, max_dead=1)
ORDERED = BufferOps("q", codec=BYTES, lease=1, ordered=True)
MORTAL_ORDERED = BufferOps("q", codec=BYTES, lease=1, max_attempts=1, ordered=True)
ISOLATING = BufferOps("q", codec=BYTES, lease=1, max_attempts=1, isolate=True)
PATIENT = BufferOps("q", codec=BYTES, lease=1, min_size=9, max_wait=600)
RATED_BUFFER = BufferOps("q", codec=BYTES, lease=1, rates=RATES)
STRICT_BUFFER = BufferOps("q", codec=BYTES, lease=1, rates=(Rate(1, 1),))
QUEUE: PriorityOps[bytes] = PriorityOps("q", codec=BYTES, payload_codec=BYTES, lease=1)
MORTAL: PriorityOps[bytes] = PriorityOps("q", codec=BYTES, payload_codec=BYTES, lease=1, max_attempts=1)
FEW_DEAD: PriorityOps[bytes] = PriorityOps("q", codec=BYTES, lease=1, max_attempts=1, max_dead=1)
RATED: PriorityOps[bytes] = PriorityOps("q", codec=BYTES, lease=1, rates=RATES)
STRICT: PriorityOps[bytes] = PriorityOps("q", codec=BYTES, lease=1, rates=(Rate(1, 1),))
SCORED: PriorityOps[bytes] = PriorityOps("q", codec=BYTES, payload_codec=BYTES, lease=1, order="score")
LIMIT = LimitOps("q", (Rate(3, 1), Rate(100, 60)))
STRICT_LIMIT = LimitOps("q", (Rate(1, 1),))

Call = Op[Any]
Step = Call | tuple[Any, ...]
"""A call, or a plain command that breaks something."""


@dataclass(frozen=True)
class Scene:
    """One script's call and what came before it."""

    what: str
    before: tuple[Step, ...]
    op: Call
    grows: bool = False
    """Whether a full server refuses it: it adds to what is stored. All others look, take or give back."""

    @property
    def script(self) -> str:
        """Return the name of the script."""
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
    """Return each key of the server with its DUMP, and whether it has a TTL."""
    keys: Any = client.keys()
    pipe = client.pipeline(transaction=False)
    for key in keys:
        pipe.dump(key)
        pipe.pttl(key)
    found = pipe.execute()
    return {key: (dump, ttl >= 0) for key, dump, ttl in zip(keys, found[::2], found[1::2], strict=True)}


def send(client: redis.Redis, op: Call) -> Any:
    """Send a call as it is, and return the reply, or the server's error."""
    try:
        return plain(client, *op.by_text())
    except redis.ResponseError as error:
        return error


def plain(client: redis.Redis, *words: Any) -> Any:
    """Send a command as it is."""
    raw: Any = client  # execute_command has no types in redis-py
    return raw.execute_command(*words)


_OPTIONS = {"WITHSCORES", "LIMIT", "COUNT", "NX", "XX", "LT", "CH", "PX", "WRONGORDER", "LAYOUT"}


def commands_of(script: str) -> set[str]:
    """Return the commands that a script calls: the capitals in quotes that are no command's options, nor an error."""
    body = re.sub(r"--[^\n]*", "", load(script).text.decode())
    return {name.lower() for name in re.findall(r"'([A-Z]{2,})'", body) if name not in _OPTIONS}


def _first(talk: Any) -> Call:
    found: Call = next(talk)
    return found


def _settle(talk: Any, after: int) -> Call:
    (op,) = next(talk).ops
    return at(op, START + after)


def _push(group: str, items: Iterable[bytes], token: str, *, front: bool = False) -> Call:
    return at(BUFFER.push([*items], group, token, front=front), START)


def _reserve(lease: str, size: int, after: int = 0, ops: BufferOps[bytes] = BUFFER, **options: Any) -> Call:
    return at(ops.reserve_once(size, lease_id=lease, holder="somebody", **options), START + after)


def _redrive(ids: list[str]) -> Call:
    return at(_first(BUFFER.redrive(ids, "t")), START + 6000)


def _batch(lease: str, items: list[bytes], failed: Iterable[int] = (), why: str = "") -> Lease[bytes]:
    return Lease(lease, "g", items, 1, 0, items, failed=dict.fromkeys(failed, why))


def _add(
    members: Iterable[Any], token: str, delay: float = 0, ops: PriorityOps[bytes] = QUEUE, *, replace: bool = False
) -> Call:
    return at(_first(ops.push_many(members, delay=delay, replace=replace, token=token)), START)


def _take(lease: str, size: int, after: int = 0, ops: PriorityOps[bytes] = QUEUE, **options: Any) -> Call:
    return at(ops.reserve_once(size, lease_id=lease, holder="somebody", **options), START + after)


def _pop(count: int, after: int = 0, ops: PriorityOps[bytes] = QUEUE) -> Call:
    return at(ops.pop_many(count), START + after)


A, AB, ABC = [b"a"], [b"a", b"b"], [b"a", b"b", b"c"]
MANY = [b"%d" % i for i in range(2500)]
ASLEEP = ("DEL", Q + b"wake")
"""Somebody waits, and has taken the wake-up."""
PAUSED = ("SET", Q + b"paused", b"%d maintenance" % (START + LATE))

TWO_GROUPS = (_push("g", ABC, "t1"), _push("h", AB, "t2"))
HELD = (*TWO_GROUPS, _reserve("l", 2))
GIVEN_BACK = (*HELD, _settle(BUFFER.release([_batch("l", AB)], reason="busy"), 10))
ALONE = (_push("g", AB, "t1"), _reserve("l", 2))
BUSY = (*TWO_GROUPS, _reserve("l", 2, 0, ORDERED))
GROUP_PAUSED = (*TWO_GROUPS, at(BUFFER.pause_group("g", 0.5, "t0"), START))
DEAD = (
    *TWO_GROUPS,
    _reserve("x", 3, 0, MORTAL_BUFFER),
    _reserve("y", 2, 0, MORTAL_BUFFER),
    _push("g", [b"d", b"e"], "t3"),
    _reserve("-", 1, 5000, MORTAL_BUFFER),
    _reserve("-", 1, 5000, MORTAL_BUFFER),
    _reserve("l", 1, 5000, MORTAL_BUFFER),
)
EVERYWHERE = (
    *DEAD,
    _push("h", ABC, "t4"),
    _reserve("m", 1, 5001, MORTAL_BUFFER),
    _settle(BUFFER.release([_batch("m", A)], 9), 5002),
    _push("i", AB, "t5"),
    _reserve("n", 1, 5003, ORDERED),
    _push("j", AB, "t6"),
    at(BUFFER.pause_group("j", None, "t7"), START),
    PAUSED,
)


def _repair(cursor: str) -> Call:
    return at(replace(_first(BUFFER.audit(True)), args=(cursor, 100, b"repair", b"60000 60000", b"")), START + 1)


def _repair_queue(cursor: str) -> Call:
    return at(replace(_first(QUEUE.audit(True)), args=(cursor, 100, b"repair", b"60000 60000", b"")), START + 1)


def _push_scenes() -> Iterable[Scene]:
    yield Scene("a new queue", (), _push("g", AB, "t"), True)
    yield Scene("a new group", TWO_GROUPS, _push("new", AB, "t"), True)
    yield Scene("a group with items", TWO_GROUPS, _push("g", AB, "t"), True)
    yield Scene("at the front", TWO_GROUPS, _push("g", AB, "t", front=True), True)
    yield Scene("in pieces", TWO_GROUPS, _push("g", MANY, "t"), True)
    yield Scene("at the front, in pieces", TWO_GROUPS, _push("g", MANY, "t", front=True), True)
    yield Scene("a busy group", BUSY, _push("g", AB, "t"), True)
    yield Scene("a busy group, emptied", (*BUSY, ("DEL", Q + b"items:g")), _push("g", AB, "t"), True)
    yield Scene("a paused group", GROUP_PAUSED, _push("g", AB, "t"), True)
    yield Scene("a paused group without items", (*GROUP_PAUSED, ("DEL", Q + b"items:g")), _push("g", AB, "t"), True)
    drained = (_push("g", A, "t1"), at(BUFFER.pop("g", 1), START))
    yield Scene("a queue that was drained", drained, _push("g", AB, "t"), True)
    yield Scene("sent again", TWO_GROUPS, _push("g", ABC, "t1"))
    yield Scene("nothing", TWO_GROUPS, _push("g", [], "t"))

    yield Scene("a part", TWO_GROUPS, at(BUFFER.pop("g", 2), START + 1))
    yield Scene("all", TWO_GROUPS, at(BUFFER.pop("g", 9), START + 1))
    yield Scene("the last items of a queue", TWO_GROUPS[:1], at(BUFFER.pop("g", 9), START + 1))
    yield Scene("an absent group", TWO_GROUPS, at(BUFFER.pop("new", 9), START + 1))
    yield Scene("a busy group", BUSY, at(BUFFER.pop("g", 9), START + 1))
    yield Scene("a paused group", GROUP_PAUSED, at(BUFFER.pop("g", 9), START + 1))
    yield Scene("a group's pause has ended", GROUP_PAUSED, at(BUFFER.pop("g", 9), START + 600))
    yield Scene("another group's pause has ended", GROUP_PAUSED, at(BUFFER.pop("h", 9), START + 600))
    empty = (*GROUP_PAUSED, ("DEL", Q + b"items:g"))
    yield Scene("the pause of a group without items has ended", empty, at(BUFFER.pop("g", 9), START + 600))
    yield Scene("a paused queue", (*TWO_GROUPS, PAUSED), at(BUFFER.pop("g", 9), START + 1))
    yield Scene("the list is gone", (*TWO_GROUPS, ("DEL", Q + b"items:g")), at(BUFFER.pop("g", 9), START + 1))

    yield Scene("one left, one emptied", TWO_GROUPS, at(BUFFER.pop_longest(2, 2), START + 1))
    yield Scene("all", TWO_GROUPS, at(BUFFER.pop_longest(2, 9), START + 1))
    yield Scene("one has waited", (*TWO_GROUPS, ("ZADD", Q + b"since", 0, "h")), at(BUFFER.pop_longest(2, 1), START))
    yield Scene("both have waited", TWO_GROUPS, at(BUFFER.pop_longest(2, 1), START + LATE))
    yield Scene("a group's pause has ended", (*GROUP_PAUSED, ASLEEP), at(BUFFER.pop_longest(1, 9), START + 600))
    yield Scene("a paused queue", (*TWO_GROUPS, PAUSED), at(BUFFER.pop_longest(2, 9), START + 1))
    gone = (*TWO_GROUPS, ("DEL", Q + b"items:g"))
    yield Scene("the longest is gone", gone, at(BUFFER.pop_longest(2, 2), START + 1))

    states: tuple[GroupState, ...] = ("waiting", "busy", "paused")
    for state in states:
        yield Scene(f"look, {state}", EVERYWHERE, _first(BUFFER.groups(2, state=state)))


def _reserve_scenes() -> Iterable[Scene]:
    yield Scene("a part of the longest group", TWO_GROUPS, _reserve("new", 2))
    yield Scene("somebody waits for the rest", (*TWO_GROUPS, ASLEEP), _reserve("new", 2))
    yield Scene("all of the longest group", TWO_GROUPS, _reserve("new", 9))
    yield Scene("a long batch", (*TWO_GROUPS, _push("g", MANY, "t3")), _reserve("new", 2502))
    yield Scene("so many bytes", (*TWO_GROUPS, _push("g", MANY, "t3")), _reserve("new", 2502, max_bytes=1000))
    yield Scene("a group that has waited", TWO_GROUPS, _reserve("new", 1, LATE))
    yield Scene("too short a group", TWO_GROUPS, _reserve("new", 9, 0, PATIENT))
    yield Scene("a lease that ran out", HELD, _reserve("new", 9, 5000))
    yield Scene("a batch that was given back", GIVEN_BACK, _reserve("new", 9, 20))
    yield Scene("nothing yet", ALONE, _reserve("new", 9, 500))
    yield Scene("a batch is buried", HELD, _reserve("new", 9, 5000, MORTAL_BUFFER))
    yield Scene("a batch that was given back is buried", GIVEN_BACK, _reserve("new", 9, 20, MORTAL_BUFFER))
    yield Scene("the last batch is buried", ALONE, _reserve("new", 9, 5000, MORTAL_BUFFER))
    yield Scene("one is buried, another dropped", DEAD, _reserve("new", 9, 9000, FEW_DEAD_BUFFER))
    yield Scene("a batch is split", HELD, _reserve("new", 9, 5000, ISOLATING))
    long = (*TWO_GROUPS, _push("g", MANY, "t3"), _reserve("l", 2502))
    yield Scene("a long batch is split", (*long, ASLEEP), _reserve("new", 9, 5000, ISOLATING))
    yield Scene("one item is not split", (*TWO_GROUPS, _reserve("l", 1)), _reserve("new", 9, 5000, ISOLATING))
    yield Scene("in order", TWO_GROUPS, _reserve("new", 2, 0, ORDERED))
    yield Scene("in order, all", TWO_GROUPS, _reserve("new", 9, 0, ORDERED))
    yield Scene("in order, the other group", BUSY, _reserve("new", 9, 1, ORDERED))
    yield Scene("in order, the batch comes back", BUSY, _reserve("new", 9, 5000, ORDERED))
    yield Scene("a busy group's batch comes back", BUSY, _reserve("new", 9, 5000))
    yield Scene("in order, buried", (*BUSY, ASLEEP), _reserve("new", 9, 5000, MORTAL_ORDERED))
    yield Scene("a paused queue", (*HELD, PAUSED), _reserve("new", 9, 5000))
    yield Scene("a group's pause goes on", GROUP_PAUSED, _reserve("new", 9))
    yield Scene("a group's pause has ended", (*GROUP_PAUSED, ASLEEP), _reserve("new", 9, 600))
    yield Scene("a pause of no group has ended", (("ZADD", Q + b"paused_groups", 1, "g"),), _reserve("new", 9))
    yield Scene("nothing", (), _reserve("new", 9))
    lost = (*HELD, ("DEL", Q + b"batch:l", Q + b"items:g"))
    yield Scene("what was due is gone", lost, _reserve("new", 9, LATE))
    yield Scene("the last of it is gone", (*ALONE, ("DEL", Q + b"batch:l")), _reserve("new", 9, LATE))
    yield Scene("the longest group is gone", (*TWO_GROUPS, ("DEL", Q + b"items:g")), _reserve("new", 9))
    headless = (*HELD, ("DEL", Q + b"batch:l"), ("RPUSH", Q + b"batch:l", b"x", b"y"))
    yield Scene("a batch without a header", headless, _reserve("new", 9, 5000))
    yield Scene("sent again", HELD, _reserve("l", 2))
    yield Scene("sent again, given back since", GIVEN_BACK, _reserve("l", 2, 20))
    other = (*GIVEN_BACK, _reserve("m", 1, 5), PAUSED)
    yield Scene("sent again, given back since, paused", other, _reserve("l", 2, 20))
    yield Scene("sent again after the batch was lost", (*HELD, _reserve("m", 9, 5000)), _reserve("l", 2, 5001))
    yield Scene("charged", TWO_GROUPS, _reserve("new", 2, 0, RATED_BUFFER))
    charged = (*TWO_GROUPS, _reserve("l", 1, 0, RATED_BUFFER), _reserve("m", 1, 1, RATED_BUFFER))
    yield Scene("charged again", charged, _reserve("new", 1, 1500, RATED_BUFFER))
    yield Scene("charged, old charges go", charged, _reserve("new", 1, LATE, RATED_BUFFER))
    yield Scene("the rate is used up", charged, _reserve("new", 1, 2, RATED_BUFFER))
    yield Scene("the limit was lowered", charged, _reserve("new", 1, 2, STRICT_BUFFER))
    yield Scene("the clock was set back", charged, _reserve("new", 1, -LATE, RATED_BUFFER))


def _settling_scenes() -> Iterable[Scene]:
    batch = _batch("l", AB)
    for ops, verb in ((BUFFER.ack, "ack"), (BUFFER.release, "release"), (BUFFER.bury, "bury")):
        yield Scene(f"{verb}", HELD, _settle(ops([batch]), 10))
        yield Scene(f"{verb} the last", ALONE, _settle(ops([batch]), 10))
        yield Scene(f"{verb} late", HELD, _settle(ops([batch]), 5000))
        yield Scene(f"{verb} in order", BUSY, _settle(ops([batch]), 10))
        yield Scene(f"{verb} in order while somebody waits", (*BUSY, ASLEEP), _settle(ops([batch]), 10))
        yield Scene(f"{verb} in order, nothing waits", (*BUSY, ("DEL", Q + b"items:g")), _settle(ops([batch]), 10))
        other = ("HSET", Q + b"busy", "g", "another")
        yield Scene(f"{verb} in order, another is out", (*BUSY, other), _settle(ops([batch]), 10))
        yield Scene(f"{verb} again", (*HELD, _settle(ops([batch]), 10)), _settle(ops([batch]), 20))
        yield Scene(f"{verb} too late", (*HELD, _reserve("m", 9, 5000)), _settle(ops([batch]), 5001))
        yield Scene(f"{verb} of nobody", TWO_GROUPS, _settle(ops([batch]), 10))
    for failed, what in (([1], "one failed"), ([0, 1], "all failed")):
        yield Scene(what, HELD, _settle(BUFFER.ack([_batch("l", AB, failed, "bad")], 7), 10))
        yield Scene(f"{what}, in order", BUSY, _settle(BUFFER.ack([_batch("l", AB, failed)], 7), 10))
        yield Scene(f"{what}, somebody waits", (*HELD, ASLEEP), _settle(BUFFER.ack([_batch("l", AB, failed)]), 10))
        again = _settle(BUFFER.ack([_batch("l", AB, failed)], 7), 10)
        yield Scene(f"{what}, again", (*HELD, again), again)
    long = (*TWO_GROUPS, _push("g", MANY, "t3"), _reserve("l", 2502))
    yield Scene("many failed", long, _settle(BUFFER.ack([_batch("l", [], range(1500))]), 10))
    yield Scene("later", HELD, _settle(BUFFER.release([batch], 7), 10))
    yield Scene("with a reason", HELD, _settle(BUFFER.release([batch], reason="busy"), 10))
    yield Scene("no attempt", HELD, _settle(BUFFER.release([batch], 7, count=False), 10))
    yield Scene("while somebody waits", (*HELD, ASLEEP), _settle(BUFFER.release([batch]), 10))
    yield Scene("with a reason", (*GIVEN_BACK, _reserve("m", 9, 20)), _settle(BUFFER.bury([_batch("m", AB)], "no"), 30))
    yield Scene("others are dropped", DEAD, _settle(FEW_DEAD_BUFFER.bury([_batch("l", A)]), 6000))
    yield Scene("longer", HELD, _settle(BUFFER.extend([batch], 60), 10))
    yield Scene("no longer", HELD, _settle(BUFFER.extend([batch], 0.001), 10))
    yield Scene("too late", (*HELD, _reserve("m", 9, 5000)), _settle(BUFFER.extend([batch]), 5001))


def _drop(group: str, cursor: str = "0 0") -> Call:
    op = _first(BUFFER.drop_group(group, "t"))
    return at(replace(op, args=(group, cursor, *op.args[2:])), START + 6000)


def _pause_scenes(ops: Any, some: tuple[Step, ...]) -> Iterable[Scene]:
    paused, timed = at(ops.pause(None, "why", "u1"), START), at(ops.pause(60, "why", "u2"), START)
    for again, what in ((paused, "until it is resumed"), (timed, "for a time")):
        yield Scene(f"an empty queue, {what}", (), again)
        yield Scene(what, some, again)
        yield Scene(f"{what}, again", (*some, again), again)
        yield Scene(f"paused {what}", (*some, again, ASLEEP), ops.resume("t"))
        yield Scene(f"an empty queue, paused {what}", (again,), ops.resume("t"))
    yield Scene("in the place of another pause", (*some, paused, ASLEEP), timed)
    yield Scene("in the place of another pause, a wake-up is there", (*some, timed), paused)
    yield Scene("not paused", some, ops.resume("t"))
    yield Scene("resumed before", (*some, paused, ops.resume("t")), ops.resume("t"))


def _group_scenes() -> Iterable[Scene]:
    for group in ("g", "new"):
        for seconds, what in ((None, "until it is resumed"), (60, "for a time")):
            pause = at(BUFFER.pause_group(group, seconds, "t"), START)
            yield Scene(f"{group} {what}", TWO_GROUPS, pause)
            yield Scene(f"{group} {what} while somebody waits", (*TWO_GROUPS, ASLEEP), pause)
            yield Scene(f"{group} {what}, again", (*TWO_GROUPS, pause), pause)
    yield Scene("in an empty queue", (), at(BUFFER.pause_group("g", 60, "t"), START))
    yield Scene("in the place of another pause", (*GROUP_PAUSED, ASLEEP), at(BUFFER.pause_group("g", None, "t"), START))
    yield Scene("a busy group", BUSY, at(BUFFER.pause_group("g", None, "t"), START))

    resume = at(BUFFER.resume_group("g", "t"), START + 6000)
    yield Scene("a paused group", GROUP_PAUSED, resume)
    yield Scene("a paused group while somebody waits", (*GROUP_PAUSED, ASLEEP), resume)
    yield Scene("a paused group without items", (*GROUP_PAUSED, ("DEL", Q + b"items:g")), resume)
    yield Scene("a paused group of a queue that is empty", (at(BUFFER.pause_group("g", None, "u"), START),), resume)
    busy = at(BUFFER.pause_group("g", None, "u"), START)
    yield Scene("a paused group that is busy", (*BUSY, busy), resume)
    yield Scene("a group that is not paused", TWO_GROUPS, resume)
    yield Scene("resumed before", (*GROUP_PAUSED, resume), resume)

    released = _settle(ORDERED.release([_batch("l", AB)], 9), 10)
    yield Scene("all of a group", (*HELD, _settle(BUFFER.release([_batch("l", AB)], 9), 10)), _drop("g"))
    yield Scene("a leased batch stays", HELD, _drop("g"))
    yield Scene("dead batches", DEAD, _drop("g"))
    yield Scene("a busy group", (*BUSY, released), _drop("g"))
    yield Scene("a later part of a busy group", (*BUSY, released, ("DEL", Q + b"batch:l"), ASLEEP), _drop("g", "1 0"))
    yield Scene("a paused group", GROUP_PAUSED, _drop("g"))
    yield Scene("the last one", TWO_GROUPS[:1], _drop("g"))
    yield Scene("an absent one", TWO_GROUPS, _drop("new"))
    yield Scene("a later part of nothing", TWO_GROUPS, _drop("g", "1 0"))
    yield Scene("dropped before", (*DEAD, _drop("g")), _drop("g"))
    for group in ("g", "new"):
        yield Scene(f"look, {group}", EVERYWHERE, _first(BUFFER.peek(group, 2)))


def _buffer() -> Iterable[Scene]:
    yield from _push_scenes()
    yield from _reserve_scenes()
    yield from _settling_scenes()
    yield from _pause_scenes(BUFFER, TWO_GROUPS)
    yield from _group_scenes()

    for look in (BUFFER.leased, BUFFER.delayed, BUFFER.dead):
        yield Scene(f"look, {look.__name__}", EVERYWHERE, _first(look()))
    yield Scene("look, from the last one seen", DEAD, _first(BUFFER.dead(9, "x")))
    yield Scene("some", DEAD, _redrive(["x", "nobody", "y", "x"]))
    yield Scene("while somebody waits", (*DEAD, ASLEEP), _redrive(["x"]))
    yield Scene("of a busy group", (*DEAD, _reserve("m", 1, 5001, ORDERED)), _redrive(["x"]))
    yield Scene("nobody", DEAD, _redrive(["nobody"]))
    yield Scene("sent again", (*DEAD, _redrive(["x"])), _redrive(["x"]))
    long = (_push("g", MANY, "t"), _reserve("x", 2500), _settle(BUFFER.bury([_batch("x", [])]), 1))
    yield Scene("a long one", long, _redrive(["x"]))
    yield Scene("some", DEAD, BUFFER.discard(["x", "nobody", "y"], "t"))
    yield Scene("the last", (*ALONE, _settle(BUFFER.bury([_batch("l", AB)]), 1)), BUFFER.discard(["l"], "t"))
    yield Scene("nobody", DEAD, BUFFER.discard(["nobody"], "t"))
    yield Scene("sent again", (*DEAD, BUFFER.discard(["x"], "t")), BUFFER.discard(["x"], "t"))

    yield Scene("look", EVERYWHERE, at(_first(BUFFER.stats()), START + 6000))
    yield Scene("items in every state", EVERYWHERE, _first(BUFFER.purge()))
    yield Scene("a part", EVERYWHERE, replace(_first(BUFFER.purge()), args=(1, 0)))
    yield Scene("nothing", (), _first(BUFFER.purge()))
    for cursor in ("keys:0", "groups:0", "since:0", "busy:0", "leases:0"):
        yield Scene(f"a sound queue, {cursor}", EVERYWHERE, _repair(cursor))
    yield Scene("an empty queue, its end", (TWO_GROUPS[0], at(BUFFER.pop("g", 9), START), ASLEEP), _repair("busy:0"))
    yield Scene("too low a counter", (*HELD, ("ZADD", Q + b"groups", 1, "h")), _repair("keys:0"))
    yield Scene("a counter of nothing", (*HELD, ("DEL", Q + b"items:h")), _repair("groups:0"))
    yield Scene("no counter", (*HELD, ("ZREM", Q + b"groups", "h")), _repair("keys:0"))
    yield Scene("no time", (*HELD, ("ZREM", Q + b"since", "h")), _repair("keys:0"))
    yield Scene("a time of nothing", (*HELD, ("ZADD", Q + b"since", 1, "n")), _repair("since:0"))
    yield Scene("busy with nothing", (*BUSY, ("HSET", Q + b"busy", "g", "nothing")), _repair("busy:0"))
    yield Scene("a batch in no index", (*HELD, ("ZREM", Q + b"leases", "l")), _repair("keys:0"), True)
    yield Scene("a batch in two indexes", (*HELD, ("ZADD", Q + b"dead", 1, "l")), _repair("keys:0"))
    yield Scene("an entry of no batch", (*HELD, ("DEL", Q + b"batch:l")), _repair("leases:0"))
    yield Scene("a lease without end", (*HELD, ("ZADD", Q + b"leases", START * 2, "l")), _repair("leases:0"), True)


LEASED = (_add([(b"a", 1), (b"b", 2), (b"c", 3)], "t1"), _take("l", 2))
NOTED = (*LEASED, _add([(b"a", 0)], "t2"))
NOTED_LATER = (*LEASED, _add([(b"a", 0)], "t2", 9))
REPLACED = (*LEASED, _add([(b"a", 9)], "t2", replace=True))
REMOVED = (*LEASED, QUEUE.remove([b"a"], "t2"))
ALL_REMOVED = (_add([(b"a", 1), (b"b", 2)], "t1"), _take("l", 2), QUEUE.remove(AB, "t2"))
PAYLOADS = (_add([(b"a", 1, b"p"), (b"b", 2, b"q"), (b"c", 3, b"")], "t1"), _take("l", 2))
FAILED = (*LEASED, _settle(QUEUE.release([_batch("l", AB)], reason="busy"), 10))
BURIED = (
    _add([(b"a", 1), (b"b", 2), (b"c", 3)], "t1"),
    _take("x", 2, 0, MORTAL),
    _settle(MORTAL.bury([_batch("x", AB)], "bad"), 10),
    _take("l", 1, 5000, MORTAL),
)
PARKED = (_add([(b"a", 1), (b"b", 2)], "t1"), _add([(b"d", 1), (b"e", 2)], "t2", 9))
ALL_STATES = (*BURIED, *PARKED[1:], _add([(b"f", 5, b"p"), (b"b", 7, b"q")], "t3"))
FORTY = [b"%d" % i for i in range(40)]


def _ask_scenes() -> Iterable[Scene]:
    ready = (_add([(b"a", 1), (b"b", 2)], "t1"),)
    yield Scene("a new queue", (), _add([(b"a", 1)], "t"), True)
    yield Scene("a new queue, later", (), _add([(b"a", 1)], "t", 5), True)
    yield Scene("in score order", (), _add([(b"a", 1.5)], "t", 0, SCORED), True)
    drained = (_add([(b"a", 1)], "t1"), _pop(1))
    yield Scene("a queue that was drained", drained, _add([(b"a", 1)], "t"), True)
    yield Scene("raised and kept", ready, _add([(b"a", 0), (b"b", 9)], "t"), True)
    yield Scene("kept", ready, _add([(b"b", 9)], "t"), True)
    yield Scene("while somebody waits", (*ready, ASLEEP), _add([(b"b", 9)], "t"), True)
    yield Scene("with a payload", ready, _add([(b"a", 9, b"p"), (b"n", 9, b"p")], "t"), True)
    yield Scene("many, later", ready, _add([(member, 1, b"p") for member in FORTY], "t", 5), True)
    yield Scene("delayed, now", PARKED, _add([(b"d", 5)], "t"), True)
    yield Scene("delayed, earlier", PARKED, _add([(b"d", 5), (b"e", 1)], "t", 5), True)
    yield Scene("failed", FAILED, _add([(b"a", 5)], "t"), True)
    yield Scene("leased", LEASED, _add([(b"a", 5), (b"b", 0), (b"n", 1)], "t"), True)
    held = (_add([(member, 1) for member in FORTY], "t1"), _take("l", 40))
    yield Scene("many leased", held, _add([(member, 1) for member in FORTY], "t"), True)
    yield Scene("noted before", NOTED_LATER, _add([(b"a", 5)], "t", 5), True)
    yield Scene("removed before", REMOVED, _add([(b"a", 5)], "t"), True)
    yield Scene("dead", BURIED, _add([(b"a", 5)], "t"), True)
    yield Scene("dead, later", BURIED, _add([(b"a", 5)], "t", 5), True)
    every = [(b"%c" % c, 0) for c in b"abcdefg"]
    yield Scene("all states at once", ALL_STATES, _add(every, "t"), True)
    yield Scene("all states, replaced", ALL_STATES, _add(every, "t", replace=True), True)
    yield Scene("all states, replaced for later", ALL_STATES, _add(every, "t", 7, replace=True), True)
    yield Scene("sent again", ready, _add([(b"a", 1), (b"b", 2)], "t1"))
    yield Scene("nothing", ready, at(replace(ready[0], args=(*ready[0].args[:4],)), START))


def _take_scenes() -> Iterable[Scene]:
    ready = (_add([(b"a", 1), (b"b", 2)], "t1"),)
    past = (*NOTED, _add([(b"d", 9)], "t3", 1))
    for name, take in (("pop", _pop), ("reserve", lambda n, after=0: _take("new", n, after))):
        yield Scene(f"{name} the first", ready, take(1))
        yield Scene(f"{name} all", ready, take(9))
        yield Scene(f"{name} while somebody waits for the rest", (*ready, ASLEEP), take(1))
        yield Scene(f"{name} nothing", (), take(1))
        yield Scene(f"{name} with payloads", (*PAYLOADS[:1],), take(2))
        yield Scene(f"{name} nothing yet", (_add([(b"a", 1)], "t", 9),), take(1))
        yield Scene(f"{name} one whose delay is over", PARKED, take(1, LATE))
        yield Scene(f"{name} all whose time has come", past, take(9, LATE))
        yield Scene(f"{name} members that failed", FAILED, take(9, 20))
        yield Scene(f"{name} while it is paused", (*ready, PAUSED), take(9))
        yield Scene(f"{name} members without rows", (*FAILED, ("HDEL", Q + b"rows", "a")), take(9, 5000))
    for before, what in (
        (LEASED, "one lease ran out"),
        (NOTED, "one is noted"),
        (NOTED_LATER, "one is noted for later"),
        (REPLACED, "one is replaced"),
        (REMOVED, "one was removed"),
        (ALL_REMOVED, "all were removed"),
        (PAYLOADS, "with payloads"),
    ):
        yield Scene(f"{what}", before, _take("new", 9, 5000))
        ended = (*before, _take("-", 9, 5000))
        yield Scene(f"{what}, its members are due", ended, _take("new", 9, 5000))
        yield Scene(f"{what}, its members are buried", ended, _take("new", 9, 5000, MORTAL))
    many = (_add([(member, 1) for member in FORTY], "t"), _take("l", 40))
    yield Scene("a large lease ran out", many, _take("new", 9, 5000))
    yield Scene("members that failed are buried", FAILED, _take("new", 9, 20, MORTAL))
    ended = (*BURIED, _add([(b"n", 5, b"p")], "t2"), _take("-", 9, 9000))
    yield Scene("others are dropped", ended, _take("new", 9, 9000, FEW_DEAD))
    yield Scene("so many bytes", PAYLOADS[:1], _take("new", 9, max_bytes=3))
    yield Scene("sent again", LEASED, _take("l", 2))
    yield Scene("sent again, with payloads", PAYLOADS, _take("l", 2))
    yield Scene("sent again, given back since", FAILED, _take("l", 2, 20))
    yield Scene("charged", ready, _take("new", 1, 0, RATED))
    charged = (_add([(b"a", 1), (b"b", 2), (b"c", 3)], "t1"), _take("l", 1, 0, RATED), _take("m", 1, 1, RATED))
    done = (*charged, *(_settle(QUEUE.ack([_batch(lease, A)]), 10) for lease in ("l", "m")))
    yield Scene("charged, old charges go", done, _take("new", 1, LATE, RATED))
    closed = (*charged[:2], _take("m", 1, 900, RATED))
    yield Scene("the rate is used up, a lease ran out", closed, _take("new", 1, 1000, RATED))
    yield Scene("the limit was lowered", charged, _take("new", 1, 2, STRICT))
    yield Scene("the clock was set back", charged, _take("new", 1, -LATE, RATED))

    recipe = (("ZADD", Q + b"ready", 1.5, "a", 2, "b"),)
    yield Scene("the recipe's own set", recipe, _add([(b"a", 1)], "t", 0, SCORED), True)
    for call in (_pop(1, 0, SCORED), _take("new", 1, 0, SCORED), _first(SCORED.peek()), _first(SCORED.dead())):
        yield Scene("the recipe's own set", recipe, call)
    yield Scene("the recipe's own set", recipe, _first(SCORED.leased()))


def _end_scenes() -> Iterable[Scene]:
    batch = _batch("l", AB)
    for before, state in (
        (LEASED, "held"),
        (NOTED, "noted"),
        (NOTED_LATER, "noted for later"),
        (REPLACED, "replaced"),
        (REMOVED, "removed"),
        (ALL_REMOVED, "all removed"),
        (PAYLOADS, "with payloads"),
        ((*FAILED, _take("l2", 9, 20)), "failed before"),
        ((*NOTED, ASLEEP), "while somebody waits"),
    ):
        lease = _batch("l2", AB) if state == "failed before" else batch
        failed = _batch(lease.id, AB, [1], "bad")
        for verb, call in (
            ("ack", QUEUE.ack([lease])),
            ("ack, one failed", QUEUE.ack([failed], 7)),
            ("release", QUEUE.release([lease])),
            ("release, with a reason", QUEUE.release([lease], 7, reason="busy")),
            ("release, no attempt", QUEUE.release([lease], count=False)),
            ("bury", QUEUE.bury([lease])),
            ("bury, with a reason", QUEUE.bury([lease], "bad")),
            ("extend", QUEUE.extend([lease], 60)),
        ):
            yield Scene(f"{verb}, {state}", before, _settle(call, 10))
    for ops in (QUEUE.ack, QUEUE.release, QUEUE.bury):
        one = _settle(ops([batch]), 10)
        yield Scene("the last ones", (_add([(b"a", 1), (b"b", 2)], "t1"), _take("l", 2)), one)
        yield Scene("late", LEASED, _settle(ops([batch]), LATE))
        yield Scene("again", (*LEASED, one), _settle(ops([batch]), 20))
        yield Scene("too late", (*LEASED, _take("m", 9, 5000)), _settle(ops([batch]), 5001))
        yield Scene("of nobody", LEASED[:1], one)
    yield Scene("too late", (*LEASED, _take("m", 9, 5000)), _settle(QUEUE.extend([batch]), 5001))
    many = (_add([(member, 1) for member in FORTY], "t"), _take("l", 40))
    for verb, call in (
        ("release", QUEUE.release([_batch("l", FORTY)], reason="busy")),
        ("bury", QUEUE.bury([_batch("l", FORTY)])),
        ("all fail", QUEUE.ack([_batch("l", FORTY, range(40), "bad")])),
    ):
        yield Scene(f"{verb} many", many, _settle(call, 10))
    yield Scene("others are dropped", BURIED, _settle(FEW_DEAD.bury([_batch("l", [b"c"])]), 6000))


def _priority() -> Iterable[Scene]:
    yield from _ask_scenes()
    yield from _take_scenes()
    yield from _end_scenes()
    yield from _pause_scenes(QUEUE, LEASED)

    yield Scene("look, dead", BURIED, _first(QUEUE.dead()))
    yield Scene("look, from the last one seen", BURIED, _first(QUEUE.dead(9, b"a")))
    yield Scene("look, ready", ALL_STATES, _first(QUEUE.peek(9)))
    yield Scene("look, delayed", ALL_STATES, _first(QUEUE.delayed(9)))
    yield Scene("look", ALL_STATES, _first(QUEUE.leased(9)))
    for member in (b"a", b"b", b"c", b"d", b"f", b"nobody"):
        yield Scene(f"look, {member.decode()}", ALL_STATES, QUEUE.state(member))
    yield Scene("look, removed", REMOVED, QUEUE.state(b"a"))
    yield Scene("look", (*ALL_STATES, PAUSED), at(QUEUE.stats(), START))
    for act in (QUEUE.redrive, QUEUE.discard):
        yield Scene("some", BURIED, act([b"a", b"nobody", b"b", b"a"], "t"))
        yield Scene("nobody", BURIED, act([b"nobody"], "t"))
        yield Scene("while somebody waits", (*BURIED, ASLEEP), act([b"a"], "t"))
        yield Scene("a row that is gone", (*BURIED, ("HDEL", Q + b"rows", "a")), act([b"a"], "t"))
        yield Scene("sent again", (*BURIED, act([b"a"], "t")), act([b"a"], "t"))
    last = (_add([(b"a", 1, b"p")], "t"), _take("l", 1), _settle(QUEUE.bury([_batch("l", A)]), 1))
    yield Scene("the last", last, QUEUE.discard(A, "t2"))
    yield Scene("the last", PAYLOADS[:1], QUEUE.remove(ABC, "t"))
    yield Scene("dead, delayed, leased and nobody", ALL_STATES, QUEUE.remove([b"a", b"d", b"c", b"nobody"], "t"))
    yield Scene("noted", NOTED, QUEUE.remove([b"a", b"nobody", b"c"], "t"))
    yield Scene("removed", REMOVED, QUEUE.remove([b"a"], "t"))
    many = (_add([(member, 1) for member in FORTY], "t1"), _take("l", 40))
    yield Scene("many leased", many, QUEUE.remove(FORTY, "t"))
    yield Scene("nobody", ALL_STATES, QUEUE.remove([b"nobody"], "t"))
    yield Scene("sent again", (*LEASED, QUEUE.remove([b"a"], "t")), QUEUE.remove([b"a"], "t"))
    yield Scene("members in every state", (*ALL_STATES, PAUSED), _first(QUEUE.purge()))
    yield Scene("a part", (*ALL_STATES, _take("m", 1, 5000)), replace(_first(QUEUE.purge()), args=(1,)))
    yield Scene("nothing", (), _first(QUEUE.purge()))

    for phase in ("keys", "ready", "delayed", "dead", "leases", "held", "again", "rows", "payloads"):
        yield Scene(f"a sound queue, {phase}", ALL_STATES, _repair_queue(f"{phase}:0"))
    yield Scene("an empty queue, its end", (_add([(b"a", 1)], "t1"), _pop(1)), _repair_queue("payloads:0"))
    yield Scene("a place too high", (*LEASED, ("HSET", Q + b"meta", "sequence", 1)), _repair_queue("ready:0"), True)
    yield Scene("ready and leased", (*LEASED, ("ZADD", Q + b"ready", 2, "a")), _repair_queue("ready:0"))
    yield Scene("ready and delayed", (*PARKED, ("ZADD", Q + b"delayed", 2, "a")), _repair_queue("delayed:0"))
    yield Scene("ready and dead", (*PARKED, ("ZADD", Q + b"dead", 2, "a")), _repair_queue("dead:0"))
    yield Scene("no row", (*PARKED, ("HDEL", Q + b"rows", "d")), _repair_queue("delayed:0"), True)
    yield Scene("a lease in no index", (*LEASED, ("ZREM", Q + b"leases", "l")), _repair_queue("keys:0"), True)
    yield Scene("a lease without a list", (*LEASED, ("DEL", Q + b"lease:l")), _repair_queue("leases:0"))
    yield Scene("held by no lease", (*NOTED, ("SADD", Q + b"held", "x")), _repair_queue("held:0"))
    yield Scene("leased and not held", (*LEASED, ("SREM", Q + b"held", "a")), _repair_queue("held:0"), True)
    yield Scene("a note of nobody", (*LEASED, ("HSET", Q + b"again", "x", "removed")), _repair_queue("again:0"))
    yield Scene("a row of nobody", (*LEASED, ("HSET", Q + b"rows", "x", "0 1 ")), _repair_queue("rows:0"))
    yield Scene("a payload of nobody", (*LEASED, ("HSET", Q + b"payloads", "x", "p")), _repair_queue("payloads:0"))
    yield Scene(
        "a lease without end", (*LEASED, ("ZADD", Q + b"leases", START * 2, "l")), _repair_queue("leases:0"), True
    )


def _limit() -> Iterable[Scene]:
    def acquire(cost: int, token: str, after: int = 0) -> Call:
        return at(LIMIT.acquire(cost, token), START + after)

    used = (acquire(2, "t1"),)
    yield Scene("the first", (), acquire(2, "t"), True)
    yield Scene("beside a queue", TWO_GROUPS, acquire(2, "t"), True)
    yield Scene("a part", used, acquire(2, "t", 1), True)
    yield Scene("later", used, acquire(2, "t", 1500), True)
    yield Scene("old grants go", used, acquire(2, "t", LATE), True)
    yield Scene("none", (acquire(3, "t1"),), acquire(2, "t", 1))
    yield Scene("the limit was lowered", (*used, acquire(1, "t2", 1)), at(STRICT_LIMIT.acquire(1, "t"), START + 2))
    yield Scene("the clock was set back", used, acquire(3, "t", -LATE))
    yield Scene("sent again", used, acquire(2, "t1", 1))


SCENES = [*_buffer(), *_priority(), *_limit()]
