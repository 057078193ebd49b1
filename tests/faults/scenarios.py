"""Scenarios: every script in every state that it handles differently. The time is given.

The tests of partial writes, full servers, permissions and moving slots run each scenario with one thing broken, and
compare all keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import redis

from redisq import BYTES, BatchData, Rate
from redisq.core.buffer import BufferCalls, GroupState
from redisq.core.calls import Call
from redisq.core.limiter import LimiterCalls
from redisq.core.priority import PriorityCalls
from redisq.core.scripts import load
from tests.scripts.backends import at

START = 1_000_000_000_000  # ms
LATE = 3_600_000  # ms after START: every lease, delay and wait is over
Q = b"redisq:{q}:"

RATES = (Rate(2, 1), Rate(9, 60))
BUFFER = BufferCalls("q", codec=BYTES, lease=1)
ONE_ATTEMPT_BUFFER = BufferCalls("q", codec=BYTES, lease=1, max_attempts=1)
FEW_DEAD_BUFFER = BufferCalls("q", codec=BYTES, lease=1, max_attempts=1, max_dead=1)
ORDERED = BufferCalls("q", codec=BYTES, lease=1, ordered=True)
ONE_ATTEMPT_ORDERED = BufferCalls("q", codec=BYTES, lease=1, max_attempts=1, ordered=True)
ISOLATING = BufferCalls("q", codec=BYTES, lease=1, max_attempts=1, isolate=True)
MIN_SIZE_BUFFER = BufferCalls("q", codec=BYTES, lease=1, min_size=9, max_wait=600)
RATED_BUFFER = BufferCalls("q", codec=BYTES, lease=1, rates=RATES)
STRICT_BUFFER = BufferCalls("q", codec=BYTES, lease=1, rates=(Rate(1, 1),))
QUEUE: PriorityCalls[bytes] = PriorityCalls("q", codec=BYTES, payload_codec=BYTES, lease=1)
ONE_ATTEMPT: PriorityCalls[bytes] = PriorityCalls("q", codec=BYTES, payload_codec=BYTES, lease=1, max_attempts=1)
FEW_DEAD: PriorityCalls[bytes] = PriorityCalls("q", codec=BYTES, lease=1, max_attempts=1, max_dead=1)
RATED: PriorityCalls[bytes] = PriorityCalls("q", codec=BYTES, lease=1, rates=RATES)
STRICT: PriorityCalls[bytes] = PriorityCalls("q", codec=BYTES, lease=1, rates=(Rate(1, 1),))
SCORED: PriorityCalls[bytes] = PriorityCalls("q", codec=BYTES, payload_codec=BYTES, lease=1, order="score")
LIMIT = LimiterCalls("q", (Rate(3, 1), Rate(100, 60)))
STRICT_LIMIT = LimiterCalls("q", (Rate(1, 1),))

Step = Call[Any] | tuple[Any, ...]
"""A call, or a plain command that breaks something."""


@dataclass(frozen=True)
class Scenario:
    """One script's call, and the steps before it."""

    what: str
    before: tuple[Step, ...]
    call: Call[Any]
    grows: bool = False
    """Whether a full server refuses it, because it adds to what is stored. All others read, remove or settle."""

    @property
    def script(self) -> str:
        """Return the name of the script."""
        return self.call.script.name

    def __str__(self) -> str:
        return f"{self.script}: {self.what}"

    def build(self, client: redis.Redis) -> None:
        """Empty the server, and run the steps before the call."""
        client.flushall()
        pipe: Any = client.pipeline(transaction=False)
        for step in self.before:
            pipe.execute_command(*(step.eval() if isinstance(step, Call) else step))
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


def send(client: redis.Redis, call: Call[Any]) -> Any:
    """Send a call without retries; return the reply, or the server's error."""
    try:
        return plain(client, *call.eval())
    except redis.ResponseError as error:
        return error


def plain(client: redis.Redis, *words: Any) -> Any:
    """Send a plain command."""
    raw: Any = client  # execute_command has no types in redis-py
    return raw.execute_command(*words)


_OPTIONS = {"WITHSCORES", "LIMIT", "COUNT", "NX", "XX", "LT", "CH", "PX", "WRONGORDER", "LAYOUT"}


def commands_of(script: str) -> set[str]:
    """Return the commands that a script calls: its quoted capitals, without options of commands and error codes."""
    body = re.sub(r"--[^\n]*", "", load(script).text.decode())
    return {name.lower() for name in re.findall(r"'([A-Z]{2,})'", body) if name not in _OPTIONS}


def _first(flow: Any) -> Call[Any]:
    found: Call[Any] = next(flow)
    return found


def _settle(call: Call[int], after: int) -> Call[int]:
    return at(call, START + after)


def _push(group: str, items: Iterable[bytes], token: str, *, front: bool = False) -> Call[Any]:
    return at(BUFFER.push([*items], group, token, front=front), START)


def _reserve(lease: str, size: int, after: int = 0, calls: BufferCalls[bytes] = BUFFER, **options: Any) -> Call[Any]:
    return at(calls.reserve(size, lease_id=lease, holder="somebody", **options), START + after)


def _redrive(ids: list[str]) -> Call[Any]:
    return at(_first(BUFFER.redrive(ids, "t")), START + 6000)


def _batch(lease: str, items: list[bytes], failed: Iterable[int] = (), why: str = "") -> BatchData[bytes]:
    return BatchData(lease, "g", items, 1, 0, items, failed=dict.fromkeys(failed, why))


def _add(
    members: Iterable[Any], token: str, delay: float = 0, calls: PriorityCalls[bytes] = QUEUE, *, replace: bool = False
) -> Call[Any]:
    return at(_first(calls.push_many(members, delay=delay, replace=replace, token=token)), START)


def _take(lease: str, size: int, after: int = 0, calls: PriorityCalls[bytes] = QUEUE, **options: Any) -> Call[Any]:
    return at(calls.reserve(size, lease_id=lease, holder="somebody", **options), START + after)


def _pop(count: int, after: int = 0, calls: PriorityCalls[bytes] = QUEUE) -> Call[Any]:
    return at(calls.pop_many(count), START + after)


A, AB, ABC = [b"a"], [b"a", b"b"], [b"a", b"b", b"c"]
MANY = [b"%d" % i for i in range(2500)]
BLOCKED_CLIENT = ("DEL", Q + b"wake")
"""A client is blocked, and has taken the wake-up."""
PAUSED = ("SET", Q + b"paused", b"%d maintenance" % (START + LATE))

TWO_GROUPS = (_push("g", ABC, "t1"), _push("h", AB, "t2"))
HELD = (*TWO_GROUPS, _reserve("l", 2))
RELEASED = (*HELD, _settle(BUFFER.release(_batch("l", AB), reason="busy"), 10))
LAST_BATCH = (_push("g", AB, "t1"), _reserve("l", 2))
BUSY = (*TWO_GROUPS, _reserve("l", 2, 0, ORDERED))
GROUP_PAUSED = (*TWO_GROUPS, at(BUFFER.pause_group("g", 0.5, "t0"), START))
DEAD = (
    *TWO_GROUPS,
    _reserve("x", 3, 0, ONE_ATTEMPT_BUFFER),
    _reserve("y", 2, 0, ONE_ATTEMPT_BUFFER),
    _push("g", [b"d", b"e"], "t3"),
    _reserve("-", 1, 5000, ONE_ATTEMPT_BUFFER),
    _reserve("-", 1, 5000, ONE_ATTEMPT_BUFFER),
    _reserve("l", 1, 5000, ONE_ATTEMPT_BUFFER),
)
EVERYWHERE = (
    *DEAD,
    _push("h", ABC, "t4"),
    _reserve("m", 1, 5001, ONE_ATTEMPT_BUFFER),
    _settle(BUFFER.release(_batch("m", A), 9), 5002),
    _push("i", AB, "t5"),
    _reserve("n", 1, 5003, ORDERED),
    _push("j", AB, "t6"),
    at(BUFFER.pause_group("j", None, "t7"), START),
    PAUSED,
)


def _repair(cursor: str) -> Call[Any]:
    return at(replace(_first(BUFFER.audit(True)), args=(cursor, 100, b"repair", b"60000 60000", b"")), START + 1)


def _repair_queue(cursor: str) -> Call[Any]:
    return at(replace(_first(QUEUE.audit(True)), args=(cursor, 100, b"repair", b"60000 60000", b"")), START + 1)


def _push_scenarios() -> Iterable[Scenario]:
    yield Scenario("a new queue", (), _push("g", AB, "t"), True)
    yield Scenario("a new group", TWO_GROUPS, _push("new", AB, "t"), True)
    yield Scenario("a group with items", TWO_GROUPS, _push("g", AB, "t"), True)
    yield Scenario("at the front", TWO_GROUPS, _push("g", AB, "t", front=True), True)
    yield Scenario("in pieces", TWO_GROUPS, _push("g", MANY, "t"), True)
    yield Scenario("at the front, in pieces", TWO_GROUPS, _push("g", MANY, "t", front=True), True)
    yield Scenario("a busy group", BUSY, _push("g", AB, "t"), True)
    yield Scenario("a busy group, emptied", (*BUSY, ("DEL", Q + b"items:g")), _push("g", AB, "t"), True)
    yield Scenario("a paused group", GROUP_PAUSED, _push("g", AB, "t"), True)
    yield Scenario("a paused group without items", (*GROUP_PAUSED, ("DEL", Q + b"items:g")), _push("g", AB, "t"), True)
    drained = (_push("g", A, "t1"), at(BUFFER.pop("g", 1), START))
    yield Scenario("an emptied queue", drained, _push("g", AB, "t"), True)
    yield Scenario("sent again", TWO_GROUPS, _push("g", ABC, "t1"))
    yield Scenario("nothing", TWO_GROUPS, _push("g", [], "t"))

    yield Scenario("a part", TWO_GROUPS, at(BUFFER.pop("g", 2), START + 1))
    yield Scenario("all", TWO_GROUPS, at(BUFFER.pop("g", 9), START + 1))
    yield Scenario("the last items of a queue", TWO_GROUPS[:1], at(BUFFER.pop("g", 9), START + 1))
    yield Scenario("an absent group", TWO_GROUPS, at(BUFFER.pop("new", 9), START + 1))
    yield Scenario("a busy group", BUSY, at(BUFFER.pop("g", 9), START + 1))
    yield Scenario("a paused group", GROUP_PAUSED, at(BUFFER.pop("g", 9), START + 1))
    yield Scenario("a group's pause has ended", GROUP_PAUSED, at(BUFFER.pop("g", 9), START + 600))
    yield Scenario("another group's pause has ended", GROUP_PAUSED, at(BUFFER.pop("h", 9), START + 600))
    empty = (*GROUP_PAUSED, ("DEL", Q + b"items:g"))
    yield Scenario("the pause of a group without items has ended", empty, at(BUFFER.pop("g", 9), START + 600))
    yield Scenario("a paused queue", (*TWO_GROUPS, PAUSED), at(BUFFER.pop("g", 9), START + 1))
    yield Scenario("the list is missing", (*TWO_GROUPS, ("DEL", Q + b"items:g")), at(BUFFER.pop("g", 9), START + 1))

    yield Scenario("one left, one emptied", TWO_GROUPS, at(BUFFER.pop_longest(2, 2), START + 1))
    yield Scenario("all", TWO_GROUPS, at(BUFFER.pop_longest(2, 9), START + 1))
    yield Scenario("one has waited", (*TWO_GROUPS, ("ZADD", Q + b"since", 0, "h")), at(BUFFER.pop_longest(2, 1), START))
    yield Scenario("both have waited", TWO_GROUPS, at(BUFFER.pop_longest(2, 1), START + LATE))
    yield Scenario(
        "a group's pause has ended", (*GROUP_PAUSED, BLOCKED_CLIENT), at(BUFFER.pop_longest(1, 9), START + 600)
    )
    yield Scenario("a paused queue", (*TWO_GROUPS, PAUSED), at(BUFFER.pop_longest(2, 9), START + 1))
    gone = (*TWO_GROUPS, ("DEL", Q + b"items:g"))
    yield Scenario("the longest group's list is missing", gone, at(BUFFER.pop_longest(2, 2), START + 1))

    states: tuple[GroupState, ...] = ("waiting", "busy", "paused")
    for state in states:
        yield Scenario(f"read, {state}", EVERYWHERE, _first(BUFFER.groups(2, state=state)))


def _reserve_scenarios() -> Iterable[Scenario]:
    yield Scenario("a part of the longest group", TWO_GROUPS, _reserve("new", 2))
    yield Scenario("a part while a client is blocked", (*TWO_GROUPS, BLOCKED_CLIENT), _reserve("new", 2))
    yield Scenario("all of the longest group", TWO_GROUPS, _reserve("new", 9))
    yield Scenario("a long batch", (*TWO_GROUPS, _push("g", MANY, "t3")), _reserve("new", 2502))
    yield Scenario("limited in bytes", (*TWO_GROUPS, _push("g", MANY, "t3")), _reserve("new", 2502, max_bytes=1000))
    yield Scenario("a group that has waited", TWO_GROUPS, _reserve("new", 1, LATE))
    yield Scenario("a group that is too short", TWO_GROUPS, _reserve("new", 9, 0, MIN_SIZE_BUFFER))
    yield Scenario("an expired lease", HELD, _reserve("new", 9, 5000))
    yield Scenario("a released batch", RELEASED, _reserve("new", 9, 20))
    yield Scenario("nothing is due yet", LAST_BATCH, _reserve("new", 9, 500))
    yield Scenario("a batch is buried", HELD, _reserve("new", 9, 5000, ONE_ATTEMPT_BUFFER))
    yield Scenario("a released batch is buried", RELEASED, _reserve("new", 9, 20, ONE_ATTEMPT_BUFFER))
    yield Scenario("the last batch is buried", LAST_BATCH, _reserve("new", 9, 5000, ONE_ATTEMPT_BUFFER))
    yield Scenario("one is buried, another dropped", DEAD, _reserve("new", 9, 9000, FEW_DEAD_BUFFER))
    yield Scenario("a batch is split", HELD, _reserve("new", 9, 5000, ISOLATING))
    long = (*TWO_GROUPS, _push("g", MANY, "t3"), _reserve("l", 2502))
    yield Scenario("a long batch is split", (*long, BLOCKED_CLIENT), _reserve("new", 9, 5000, ISOLATING))
    yield Scenario("one item is not split", (*TWO_GROUPS, _reserve("l", 1)), _reserve("new", 9, 5000, ISOLATING))
    yield Scenario("ordered", TWO_GROUPS, _reserve("new", 2, 0, ORDERED))
    yield Scenario("ordered, all", TWO_GROUPS, _reserve("new", 9, 0, ORDERED))
    yield Scenario("ordered, the other group", BUSY, _reserve("new", 9, 1, ORDERED))
    yield Scenario("ordered, the batch comes back", BUSY, _reserve("new", 9, 5000, ORDERED))
    yield Scenario("a busy group's batch comes back", BUSY, _reserve("new", 9, 5000))
    yield Scenario("ordered, buried", (*BUSY, BLOCKED_CLIENT), _reserve("new", 9, 5000, ONE_ATTEMPT_ORDERED))
    yield Scenario("a paused queue", (*HELD, PAUSED), _reserve("new", 9, 5000))
    yield Scenario("a group's pause goes on", GROUP_PAUSED, _reserve("new", 9))
    yield Scenario("a group's pause has ended", (*GROUP_PAUSED, BLOCKED_CLIENT), _reserve("new", 9, 600))
    yield Scenario(
        "the pause of a group without items has ended", (("ZADD", Q + b"paused_groups", 1, "g"),), _reserve("new", 9)
    )
    yield Scenario("nothing", (), _reserve("new", 9))
    lost = (*HELD, ("DEL", Q + b"batch:l", Q + b"items:g"))
    yield Scenario("a batch that is due is missing", lost, _reserve("new", 9, LATE))
    yield Scenario("the last batch is missing", (*LAST_BATCH, ("DEL", Q + b"batch:l")), _reserve("new", 9, LATE))
    yield Scenario("the longest group's list is missing", (*TWO_GROUPS, ("DEL", Q + b"items:g")), _reserve("new", 9))
    headless = (*HELD, ("DEL", Q + b"batch:l"), ("RPUSH", Q + b"batch:l", b"x", b"y"))
    yield Scenario("a batch without a header", headless, _reserve("new", 9, 5000))
    yield Scenario("sent again", HELD, _reserve("l", 2))
    yield Scenario("sent again, released since", RELEASED, _reserve("l", 2, 20))
    other = (*RELEASED, _reserve("m", 1, 5), PAUSED)
    yield Scenario("sent again, released since, paused", other, _reserve("l", 2, 20))
    yield Scenario("sent again, handed out again since", (*HELD, _reserve("m", 9, 5000)), _reserve("l", 2, 5001))
    yield Scenario("charged", TWO_GROUPS, _reserve("new", 2, 0, RATED_BUFFER))
    charged = (*TWO_GROUPS, _reserve("l", 1, 0, RATED_BUFFER), _reserve("m", 1, 1, RATED_BUFFER))
    yield Scenario("charged again", charged, _reserve("new", 1, 1500, RATED_BUFFER))
    yield Scenario("charged, old charges are removed", charged, _reserve("new", 1, LATE, RATED_BUFFER))
    yield Scenario("the rate is used up", charged, _reserve("new", 1, 2, RATED_BUFFER))
    yield Scenario("the limit was lowered", charged, _reserve("new", 1, 2, STRICT_BUFFER))
    yield Scenario("the clock was set back", charged, _reserve("new", 1, -LATE, RATED_BUFFER))


def _settling_scenarios() -> Iterable[Scenario]:
    batch = _batch("l", AB)
    for make, verb in ((BUFFER.ack, "ack"), (BUFFER.release, "release"), (BUFFER.bury, "bury")):
        yield Scenario(f"{verb}", HELD, _settle(make(batch), 10))
        yield Scenario(f"{verb} the last", LAST_BATCH, _settle(make(batch), 10))
        yield Scenario(f"{verb} after the deadline", HELD, _settle(make(batch), 5000))
        yield Scenario(f"{verb} ordered", BUSY, _settle(make(batch), 10))
        yield Scenario(f"{verb} ordered while a client is blocked", (*BUSY, BLOCKED_CLIENT), _settle(make(batch), 10))
        yield Scenario(f"{verb} ordered, no items wait", (*BUSY, ("DEL", Q + b"items:g")), _settle(make(batch), 10))
        other = ("HSET", Q + b"busy", "g", "another")
        yield Scenario(f"{verb} ordered, busy with another batch", (*BUSY, other), _settle(make(batch), 10))
        yield Scenario(f"{verb} again", (*HELD, _settle(make(batch), 10)), _settle(make(batch), 20))
        yield Scenario(f"{verb} after the lease was lost", (*HELD, _reserve("m", 9, 5000)), _settle(make(batch), 5001))
        yield Scenario(f"{verb} of an unknown lease", TWO_GROUPS, _settle(make(batch), 10))
    for failed, what in (([1], "one failed"), ([0, 1], "all failed")):
        yield Scenario(what, HELD, _settle(BUFFER.ack(_batch("l", AB, failed, "bad"), 7), 10))
        yield Scenario(f"{what}, ordered", BUSY, _settle(BUFFER.ack(_batch("l", AB, failed), 7), 10))
        yield Scenario(
            f"{what}, while a client is blocked",
            (*HELD, BLOCKED_CLIENT),
            _settle(BUFFER.ack(_batch("l", AB, failed)), 10),
        )
        again = _settle(BUFFER.ack(_batch("l", AB, failed), 7), 10)
        yield Scenario(f"{what}, again", (*HELD, again), again)
    long = (*TWO_GROUPS, _push("g", MANY, "t3"), _reserve("l", 2502))
    yield Scenario("many failed", long, _settle(BUFFER.ack(_batch("l", [], range(1500))), 10))
    yield Scenario("with a delay", HELD, _settle(BUFFER.release(batch, 7), 10))
    yield Scenario("with a reason", HELD, _settle(BUFFER.release(batch, reason="busy"), 10))
    yield Scenario("without an attempt", HELD, _settle(BUFFER.release(batch, 7, count=False), 10))
    yield Scenario("while a client is blocked", (*HELD, BLOCKED_CLIENT), _settle(BUFFER.release(batch), 10))
    yield Scenario("with a reason", (*RELEASED, _reserve("m", 9, 20)), _settle(BUFFER.bury(_batch("m", AB), "no"), 30))
    yield Scenario("older ones are dropped", DEAD, _settle(FEW_DEAD_BUFFER.bury(_batch("l", A)), 6000))
    yield Scenario("extended", HELD, _settle(BUFFER.extend(batch, 60), 10))
    yield Scenario("not shortened", HELD, _settle(BUFFER.extend(batch, 0.001), 10))
    yield Scenario("after the lease was lost", (*HELD, _reserve("m", 9, 5000)), _settle(BUFFER.extend(batch), 5001))


def _drop(group: str, cursor: str = "0 0") -> Call[Any]:
    call = _first(BUFFER.drop_group(group, "t"))
    return at(replace(call, args=(group, cursor, *call.args[2:])), START + 6000)


def _pause_scenarios(calls: Any, some: tuple[Step, ...]) -> Iterable[Scenario]:
    paused, timed = at(calls.pause(None, "why", "u1"), START), at(calls.pause(60, "why", "u2"), START)
    for again, what in ((paused, "until it is resumed"), (timed, "for a time")):
        yield Scenario(f"an empty queue, {what}", (), again)
        yield Scenario(what, some, again)
        yield Scenario(f"{what}, again", (*some, again), again)
        yield Scenario(f"paused {what}", (*some, again, BLOCKED_CLIENT), calls.resume("t"))
        yield Scenario(f"an empty queue, paused {what}", (again,), calls.resume("t"))
    yield Scenario("replacing another pause", (*some, paused, BLOCKED_CLIENT), timed)
    yield Scenario("replacing another pause, with a wake-up", (*some, timed), paused)
    yield Scenario("not paused", some, calls.resume("t"))
    yield Scenario("resumed before", (*some, paused, calls.resume("t")), calls.resume("t"))


def _group_scenarios() -> Iterable[Scenario]:
    for group in ("g", "new"):
        for seconds, what in ((None, "until it is resumed"), (60, "for a time")):
            pause = at(BUFFER.pause_group(group, seconds, "t"), START)
            yield Scenario(f"{group} {what}", TWO_GROUPS, pause)
            yield Scenario(f"{group} {what} while a client is blocked", (*TWO_GROUPS, BLOCKED_CLIENT), pause)
            yield Scenario(f"{group} {what}, again", (*TWO_GROUPS, pause), pause)
    yield Scenario("in an empty queue", (), at(BUFFER.pause_group("g", 60, "t"), START))
    yield Scenario(
        "replacing another pause", (*GROUP_PAUSED, BLOCKED_CLIENT), at(BUFFER.pause_group("g", None, "t"), START)
    )
    yield Scenario("a busy group", BUSY, at(BUFFER.pause_group("g", None, "t"), START))

    resume = at(BUFFER.resume_group("g", "t"), START + 6000)
    yield Scenario("a paused group", GROUP_PAUSED, resume)
    yield Scenario("a paused group while a client is blocked", (*GROUP_PAUSED, BLOCKED_CLIENT), resume)
    yield Scenario("a paused group without items", (*GROUP_PAUSED, ("DEL", Q + b"items:g")), resume)
    yield Scenario("a paused group of an empty queue", (at(BUFFER.pause_group("g", None, "u"), START),), resume)
    busy = at(BUFFER.pause_group("g", None, "u"), START)
    yield Scenario("a paused group that is busy", (*BUSY, busy), resume)
    yield Scenario("a group that is not paused", TWO_GROUPS, resume)
    yield Scenario("resumed before", (*GROUP_PAUSED, resume), resume)

    released = _settle(ORDERED.release(_batch("l", AB), 9), 10)
    yield Scenario("all of a group", (*HELD, _settle(BUFFER.release(_batch("l", AB), 9), 10)), _drop("g"))
    yield Scenario("a leased batch stays", HELD, _drop("g"))
    yield Scenario("dead batches", DEAD, _drop("g"))
    yield Scenario("a busy group", (*BUSY, released), _drop("g"))
    yield Scenario(
        "a later step for a busy group", (*BUSY, released, ("DEL", Q + b"batch:l"), BLOCKED_CLIENT), _drop("g", "1 0")
    )
    yield Scenario("a paused group", GROUP_PAUSED, _drop("g"))
    yield Scenario("the last one", TWO_GROUPS[:1], _drop("g"))
    yield Scenario("an absent group", TWO_GROUPS, _drop("new"))
    yield Scenario("a later step that finds nothing", TWO_GROUPS, _drop("g", "1 0"))
    yield Scenario("dropped before", (*DEAD, _drop("g")), _drop("g"))
    for group in ("g", "new"):
        yield Scenario(f"read, {group}", EVERYWHERE, _first(BUFFER.peek(group, 2)))


def _buffer() -> Iterable[Scenario]:
    yield from _push_scenarios()
    yield from _reserve_scenarios()
    yield from _settling_scenarios()
    yield from _pause_scenarios(BUFFER, TWO_GROUPS)
    yield from _group_scenarios()

    for method in (BUFFER.leased, BUFFER.delayed, BUFFER.dead):
        yield Scenario(f"read, {method.__name__}", EVERYWHERE, _first(method()))
    yield Scenario("read, the next page", DEAD, _first(BUFFER.dead(9, "x")))
    yield Scenario("some", DEAD, _redrive(["x", "nobody", "y", "x"]))
    yield Scenario("while a client is blocked", (*DEAD, BLOCKED_CLIENT), _redrive(["x"]))
    yield Scenario("of a busy group", (*DEAD, _reserve("m", 1, 5001, ORDERED)), _redrive(["x"]))
    yield Scenario("an unknown id", DEAD, _redrive(["nobody"]))
    yield Scenario("sent again", (*DEAD, _redrive(["x"])), _redrive(["x"]))
    long = (_push("g", MANY, "t"), _reserve("x", 2500), _settle(BUFFER.bury(_batch("x", [])), 1))
    yield Scenario("a long one", long, _redrive(["x"]))
    yield Scenario("some", DEAD, BUFFER.discard(["x", "nobody", "y"], "t"))
    yield Scenario("the last", (*LAST_BATCH, _settle(BUFFER.bury(_batch("l", AB)), 1)), BUFFER.discard(["l"], "t"))
    yield Scenario("an unknown id", DEAD, BUFFER.discard(["nobody"], "t"))
    yield Scenario("sent again", (*DEAD, BUFFER.discard(["x"], "t")), BUFFER.discard(["x"], "t"))

    yield Scenario("read", EVERYWHERE, at(_first(BUFFER.stats()), START + 6000))
    yield Scenario("items in every state", EVERYWHERE, _first(BUFFER.purge()))
    yield Scenario("a part", EVERYWHERE, replace(_first(BUFFER.purge()), args=(1, 0)))
    yield Scenario("nothing", (), _first(BUFFER.purge()))
    for cursor in ("keys:0", "groups:0", "since:0", "busy:0", "leases:0"):
        yield Scenario(f"an intact queue, {cursor}", EVERYWHERE, _repair(cursor))
    yield Scenario(
        "an empty queue, the last step",
        (TWO_GROUPS[0], at(BUFFER.pop("g", 9), START), BLOCKED_CLIENT),
        _repair("busy:0"),
    )
    yield Scenario("a counter that is too low", (*HELD, ("ZADD", Q + b"groups", 1, "h")), _repair("keys:0"))
    yield Scenario("a counter without a list", (*HELD, ("DEL", Q + b"items:h")), _repair("groups:0"))
    yield Scenario("no counter", (*HELD, ("ZREM", Q + b"groups", "h")), _repair("keys:0"))
    yield Scenario("no waiting time", (*HELD, ("ZREM", Q + b"since", "h")), _repair("keys:0"))
    yield Scenario("a waiting time without a list", (*HELD, ("ZADD", Q + b"since", 1, "n")), _repair("since:0"))
    yield Scenario("busy with an unknown batch", (*BUSY, ("HSET", Q + b"busy", "g", "nothing")), _repair("busy:0"))
    yield Scenario("a batch in no index", (*HELD, ("ZREM", Q + b"leases", "l")), _repair("keys:0"), True)
    yield Scenario("a batch in two indexes", (*HELD, ("ZADD", Q + b"dead", 1, "l")), _repair("keys:0"))
    yield Scenario("an entry without a batch", (*HELD, ("DEL", Q + b"batch:l")), _repair("leases:0"))
    yield Scenario(
        "a lease far in the future", (*HELD, ("ZADD", Q + b"leases", START * 2, "l")), _repair("leases:0"), True
    )


LEASED = (_add([(b"a", 1), (b"b", 2), (b"c", 3)], "t1"), _take("l", 2))
PUSHED_MEANWHILE = (*LEASED, _add([(b"a", 0)], "t2"))
PUSHED_LATER = (*LEASED, _add([(b"a", 0)], "t2", 9))
REPLACED = (*LEASED, _add([(b"a", 9)], "t2", replace=True))
REMOVED = (*LEASED, QUEUE.remove([b"a"], "t2"))
ALL_REMOVED = (_add([(b"a", 1), (b"b", 2)], "t1"), _take("l", 2), QUEUE.remove(AB, "t2"))
PAYLOADS = (_add([(b"a", 1, b"p"), (b"b", 2, b"q"), (b"c", 3, b"")], "t1"), _take("l", 2))
FAILED = (*LEASED, _settle(QUEUE.release(_batch("l", AB), reason="busy"), 10))
BURIED = (
    _add([(b"a", 1), (b"b", 2), (b"c", 3)], "t1"),
    _take("x", 2, 0, ONE_ATTEMPT),
    _settle(ONE_ATTEMPT.bury(_batch("x", AB), "bad"), 10),
    _take("l", 1, 5000, ONE_ATTEMPT),
)
READY_AND_DELAYED = (_add([(b"a", 1), (b"b", 2)], "t1"), _add([(b"d", 1), (b"e", 2)], "t2", 9))
ALL_STATES = (*BURIED, *READY_AND_DELAYED[1:], _add([(b"f", 5, b"p"), (b"b", 7, b"q")], "t3"))
FORTY = [b"%d" % i for i in range(40)]


def _priority_push_scenarios() -> Iterable[Scenario]:
    ready = (_add([(b"a", 1), (b"b", 2)], "t1"),)
    yield Scenario("a new queue", (), _add([(b"a", 1)], "t"), True)
    yield Scenario("a new queue, delayed", (), _add([(b"a", 1)], "t", 5), True)
    yield Scenario("in score order", (), _add([(b"a", 1.5)], "t", 0, SCORED), True)
    drained = (_add([(b"a", 1)], "t1"), _pop(1))
    yield Scenario("an emptied queue", drained, _add([(b"a", 1)], "t"), True)
    yield Scenario("raised and kept", ready, _add([(b"a", 0), (b"b", 9)], "t"), True)
    yield Scenario("kept", ready, _add([(b"b", 9)], "t"), True)
    yield Scenario("while a client is blocked", (*ready, BLOCKED_CLIENT), _add([(b"b", 9)], "t"), True)
    yield Scenario("with a payload", ready, _add([(b"a", 9, b"p"), (b"n", 9, b"p")], "t"), True)
    yield Scenario("many, delayed", ready, _add([(member, 1, b"p") for member in FORTY], "t", 5), True)
    yield Scenario("delayed, now", READY_AND_DELAYED, _add([(b"d", 5)], "t"), True)
    yield Scenario("delayed, earlier", READY_AND_DELAYED, _add([(b"d", 5), (b"e", 1)], "t", 5), True)
    yield Scenario("failed", FAILED, _add([(b"a", 5)], "t"), True)
    yield Scenario("leased", LEASED, _add([(b"a", 5), (b"b", 0), (b"n", 1)], "t"), True)
    held = (_add([(member, 1) for member in FORTY], "t1"), _take("l", 40))
    yield Scenario("many leased", held, _add([(member, 1) for member in FORTY], "t"), True)
    yield Scenario("pushed meanwhile before", PUSHED_LATER, _add([(b"a", 5)], "t", 5), True)
    yield Scenario("removed before", REMOVED, _add([(b"a", 5)], "t"), True)
    yield Scenario("dead", BURIED, _add([(b"a", 5)], "t"), True)
    yield Scenario("dead, delayed", BURIED, _add([(b"a", 5)], "t", 5), True)
    every = [(b"%c" % c, 0) for c in b"abcdefg"]
    yield Scenario("all states at once", ALL_STATES, _add(every, "t"), True)
    yield Scenario("all states, replaced", ALL_STATES, _add(every, "t", replace=True), True)
    yield Scenario("all states, replaced and delayed", ALL_STATES, _add(every, "t", 7, replace=True), True)
    yield Scenario("sent again", ready, _add([(b"a", 1), (b"b", 2)], "t1"))
    yield Scenario("nothing", ready, at(replace(ready[0], args=(*ready[0].args[:4],)), START))


def _priority_reserve_scenarios() -> Iterable[Scenario]:
    ready = (_add([(b"a", 1), (b"b", 2)], "t1"),)
    past = (*PUSHED_MEANWHILE, _add([(b"d", 9)], "t3", 1))
    for name, take in (("pop", _pop), ("reserve", lambda n, after=0: _take("new", n, after))):
        yield Scenario(f"{name} the first", ready, take(1))
        yield Scenario(f"{name} all", ready, take(9))
        yield Scenario(f"{name} a part while a client is blocked", (*ready, BLOCKED_CLIENT), take(1))
        yield Scenario(f"{name} nothing", (), take(1))
        yield Scenario(f"{name} with payloads", (*PAYLOADS[:1],), take(2))
        yield Scenario(f"{name} when nothing is due yet", (_add([(b"a", 1)], "t", 9),), take(1))
        yield Scenario(f"{name} a member after its delay", READY_AND_DELAYED, take(1, LATE))
        yield Scenario(f"{name} all due members", past, take(9, LATE))
        yield Scenario(f"{name} members that failed", FAILED, take(9, 20))
        yield Scenario(f"{name} while it is paused", (*ready, PAUSED), take(9))
        yield Scenario(f"{name} members without rows", (*FAILED, ("HDEL", Q + b"rows", "a")), take(9, 5000))
    for before, what in (
        (LEASED, "an expired lease"),
        (PUSHED_MEANWHILE, "one was pushed meanwhile"),
        (PUSHED_LATER, "one was pushed meanwhile, delayed"),
        (REPLACED, "one was replaced"),
        (REMOVED, "one was removed"),
        (ALL_REMOVED, "all were removed"),
        (PAYLOADS, "with payloads"),
    ):
        yield Scenario(f"{what}", before, _take("new", 9, 5000))
        ended = (*before, _take("-", 9, 5000))
        yield Scenario(f"{what}, its members are due", ended, _take("new", 9, 5000))
        yield Scenario(f"{what}, its members are buried", ended, _take("new", 9, 5000, ONE_ATTEMPT))
    many = (_add([(member, 1) for member in FORTY], "t"), _take("l", 40))
    yield Scenario("a large expired lease", many, _take("new", 9, 5000))
    yield Scenario("members that failed are buried", FAILED, _take("new", 9, 20, ONE_ATTEMPT))
    ended = (*BURIED, _add([(b"n", 5, b"p")], "t2"), _take("-", 9, 9000))
    yield Scenario("older ones are dropped", ended, _take("new", 9, 9000, FEW_DEAD))
    yield Scenario("limited in bytes", PAYLOADS[:1], _take("new", 9, max_bytes=3))
    yield Scenario("sent again", LEASED, _take("l", 2))
    yield Scenario("sent again, with payloads", PAYLOADS, _take("l", 2))
    yield Scenario("sent again, released since", FAILED, _take("l", 2, 20))
    yield Scenario("charged", ready, _take("new", 1, 0, RATED))
    charged = (_add([(b"a", 1), (b"b", 2), (b"c", 3)], "t1"), _take("l", 1, 0, RATED), _take("m", 1, 1, RATED))
    done = (*charged, *(_settle(QUEUE.ack(_batch(lease, A)), 10) for lease in ("l", "m")))
    yield Scenario("charged, old charges are removed", done, _take("new", 1, LATE, RATED))
    closed = (*charged[:2], _take("m", 1, 900, RATED))
    yield Scenario("the rate is used up, with an expired lease", closed, _take("new", 1, 1000, RATED))
    yield Scenario("the limit was lowered", charged, _take("new", 1, 2, STRICT))
    yield Scenario("the clock was set back", charged, _take("new", 1, -LATE, RATED))

    recipe = (("ZADD", Q + b"ready", 1.5, "a", 2, "b"),)
    yield Scenario("a plain sorted set", recipe, _add([(b"a", 1)], "t", 0, SCORED), True)
    for call in (_pop(1, 0, SCORED), _take("new", 1, 0, SCORED), _first(SCORED.peek()), _first(SCORED.dead())):
        yield Scenario("a plain sorted set", recipe, call)
    yield Scenario("a plain sorted set", recipe, _first(SCORED.leased()))


def _priority_settling_scenarios() -> Iterable[Scenario]:
    batch = _batch("l", AB)
    for before, state in (
        (LEASED, "held"),
        (PUSHED_MEANWHILE, "pushed meanwhile"),
        (PUSHED_LATER, "pushed meanwhile, delayed"),
        (REPLACED, "replaced"),
        (REMOVED, "removed"),
        (ALL_REMOVED, "all removed"),
        (PAYLOADS, "with payloads"),
        ((*FAILED, _take("l2", 9, 20)), "failed before"),
        ((*PUSHED_MEANWHILE, BLOCKED_CLIENT), "while a client is blocked"),
    ):
        lease = _batch("l2", AB) if state == "failed before" else batch
        failed = _batch(lease.id, AB, [1], "bad")
        for verb, call in (
            ("ack", QUEUE.ack(lease)),
            ("ack, one failed", QUEUE.ack(failed, 7)),
            ("release", QUEUE.release(lease)),
            ("release, with a reason", QUEUE.release(lease, 7, reason="busy")),
            ("release, without an attempt", QUEUE.release(lease, count=False)),
            ("bury", QUEUE.bury(lease)),
            ("bury, with a reason", QUEUE.bury(lease, "bad")),
            ("extend", QUEUE.extend(lease, 60)),
        ):
            yield Scenario(f"{verb}, {state}", before, _settle(call, 10))
    for make in (QUEUE.ack, QUEUE.release, QUEUE.bury):
        one = _settle(make(batch), 10)
        yield Scenario("the last ones", (_add([(b"a", 1), (b"b", 2)], "t1"), _take("l", 2)), one)
        yield Scenario("after the deadline", LEASED, _settle(make(batch), LATE))
        yield Scenario("again", (*LEASED, one), _settle(make(batch), 20))
        yield Scenario("after the lease was lost", (*LEASED, _take("m", 9, 5000)), _settle(make(batch), 5001))
        yield Scenario("of an unknown lease", LEASED[:1], one)
    yield Scenario("after the lease was lost", (*LEASED, _take("m", 9, 5000)), _settle(QUEUE.extend(batch), 5001))
    many = (_add([(member, 1) for member in FORTY], "t"), _take("l", 40))
    for verb, call in (
        ("release", QUEUE.release(_batch("l", FORTY), reason="busy")),
        ("bury", QUEUE.bury(_batch("l", FORTY))),
        ("all fail", QUEUE.ack(_batch("l", FORTY, range(40), "bad"))),
    ):
        yield Scenario(f"{verb} many", many, _settle(call, 10))
    yield Scenario("older ones are dropped", BURIED, _settle(FEW_DEAD.bury(_batch("l", [b"c"])), 6000))


def _priority() -> Iterable[Scenario]:
    yield from _priority_push_scenarios()
    yield from _priority_reserve_scenarios()
    yield from _priority_settling_scenarios()
    yield from _pause_scenarios(QUEUE, LEASED)

    yield Scenario("read, dead", BURIED, _first(QUEUE.dead()))
    yield Scenario("read, the next page", BURIED, _first(QUEUE.dead(9, b"a")))
    yield Scenario("read, ready", ALL_STATES, _first(QUEUE.peek(9)))
    yield Scenario("read, delayed", ALL_STATES, _first(QUEUE.delayed(9)))
    yield Scenario("read", ALL_STATES, _first(QUEUE.leased(9)))
    for member in (b"a", b"b", b"c", b"d", b"f", b"nobody"):
        yield Scenario(f"read, {member.decode()}", ALL_STATES, QUEUE.state(member))
    yield Scenario("read, removed", REMOVED, QUEUE.state(b"a"))
    yield Scenario("read", (*ALL_STATES, PAUSED), at(QUEUE.stats(), START))
    for act in (QUEUE.redrive, QUEUE.discard):
        yield Scenario("some", BURIED, act([b"a", b"nobody", b"b", b"a"], "t"))
        yield Scenario("an unknown id", BURIED, act([b"nobody"], "t"))
        yield Scenario("while a client is blocked", (*BURIED, BLOCKED_CLIENT), act([b"a"], "t"))
        yield Scenario("a missing row", (*BURIED, ("HDEL", Q + b"rows", "a")), act([b"a"], "t"))
        yield Scenario("sent again", (*BURIED, act([b"a"], "t")), act([b"a"], "t"))
    last = (_add([(b"a", 1, b"p")], "t"), _take("l", 1), _settle(QUEUE.bury(_batch("l", A)), 1))
    yield Scenario("the last", last, QUEUE.discard(A, "t2"))
    yield Scenario("the last", PAYLOADS[:1], QUEUE.remove(ABC, "t"))
    yield Scenario(
        "dead, delayed, leased and unknown members", ALL_STATES, QUEUE.remove([b"a", b"d", b"c", b"nobody"], "t")
    )
    yield Scenario("pushed meanwhile", PUSHED_MEANWHILE, QUEUE.remove([b"a", b"nobody", b"c"], "t"))
    yield Scenario("removed", REMOVED, QUEUE.remove([b"a"], "t"))
    many = (_add([(member, 1) for member in FORTY], "t1"), _take("l", 40))
    yield Scenario("many leased", many, QUEUE.remove(FORTY, "t"))
    yield Scenario("an unknown id", ALL_STATES, QUEUE.remove([b"nobody"], "t"))
    yield Scenario("sent again", (*LEASED, QUEUE.remove([b"a"], "t")), QUEUE.remove([b"a"], "t"))
    yield Scenario("members in every state", (*ALL_STATES, PAUSED), _first(QUEUE.purge()))
    yield Scenario("a part", (*ALL_STATES, _take("m", 1, 5000)), replace(_first(QUEUE.purge()), args=(1,)))
    yield Scenario("nothing", (), _first(QUEUE.purge()))

    for phase in ("keys", "ready", "delayed", "dead", "leases", "held", "again", "rows", "payloads"):
        yield Scenario(f"an intact queue, {phase}", ALL_STATES, _repair_queue(f"{phase}:0"))
    yield Scenario("an empty queue, the last step", (_add([(b"a", 1)], "t1"), _pop(1)), _repair_queue("payloads:0"))
    yield Scenario(
        "a place above the sequence", (*LEASED, ("HSET", Q + b"meta", "sequence", 1)), _repair_queue("ready:0"), True
    )
    yield Scenario("ready and leased", (*LEASED, ("ZADD", Q + b"ready", 2, "a")), _repair_queue("ready:0"))
    yield Scenario(
        "ready and delayed", (*READY_AND_DELAYED, ("ZADD", Q + b"delayed", 2, "a")), _repair_queue("delayed:0")
    )
    yield Scenario("ready and dead", (*READY_AND_DELAYED, ("ZADD", Q + b"dead", 2, "a")), _repair_queue("dead:0"))
    yield Scenario("no row", (*READY_AND_DELAYED, ("HDEL", Q + b"rows", "d")), _repair_queue("delayed:0"), True)
    yield Scenario("a lease in no index", (*LEASED, ("ZREM", Q + b"leases", "l")), _repair_queue("keys:0"), True)
    yield Scenario("a lease without a list", (*LEASED, ("DEL", Q + b"lease:l")), _repair_queue("leases:0"))
    yield Scenario("held without a lease", (*PUSHED_MEANWHILE, ("SADD", Q + b"held", "x")), _repair_queue("held:0"))
    yield Scenario("leased and not held", (*LEASED, ("SREM", Q + b"held", "a")), _repair_queue("held:0"), True)
    yield Scenario(
        "a note of an unknown member", (*LEASED, ("HSET", Q + b"again", "x", "removed")), _repair_queue("again:0")
    )
    yield Scenario("a row of an unknown member", (*LEASED, ("HSET", Q + b"rows", "x", "0 1 ")), _repair_queue("rows:0"))
    yield Scenario(
        "a payload of an unknown member", (*LEASED, ("HSET", Q + b"payloads", "x", "p")), _repair_queue("payloads:0")
    )
    yield Scenario(
        "a lease far in the future", (*LEASED, ("ZADD", Q + b"leases", START * 2, "l")), _repair_queue("leases:0"), True
    )


def _limit() -> Iterable[Scenario]:
    def acquire(cost: int, token: str, after: int = 0) -> Call[Any]:
        return at(LIMIT.acquire(cost, token), START + after)

    used = (acquire(2, "t1"),)
    yield Scenario("the first", (), acquire(2, "t"), True)
    yield Scenario("beside a queue", TWO_GROUPS, acquire(2, "t"), True)
    yield Scenario("a part", used, acquire(2, "t", 1), True)
    yield Scenario("later", used, acquire(2, "t", 1500), True)
    yield Scenario("old grants are removed", used, acquire(2, "t", LATE), True)
    yield Scenario("none", (acquire(3, "t1"),), acquire(2, "t", 1))
    yield Scenario("the limit was lowered", (*used, acquire(1, "t2", 1)), at(STRICT_LIMIT.acquire(1, "t"), START + 2))
    yield Scenario("the clock was set back", used, acquire(3, "t", -LATE))
    yield Scenario("sent again", used, acquire(2, "t1", 1))


SCENARIOS = [*_buffer(), *_priority(), *_limit()]
