"""Count how long the longest calls of every script hold the server, by a ruler that is the same on every machine.

    python -m benchmarks.growth.blocking_time                       every call; writes the result and the table; minutes
    python -m benchmarks.growth.blocking_time --only 'priority/*'   some scripts; writes nothing
    python -m benchmarks.instructions --check                       the calls nearest to the bound, and the budgets

The server's instructions for a call are counted, the reading of the request and the writing of the reply included, and
stated in ms of a machine on which a script of 10,000 `GET`s takes 5 ms. Unlike a time, such a figure does not depend on
what else the machine does. It knows nothing of memory that is slow to reach, so on a queue of many millions a call may
take a little longer than it says.

Each call has the largest arguments that its script's header allows, and meets the worst state that was thought of.
Items, payloads and reasons have 100 bytes, members 23.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import redis

from redisq.embedded import NoServer, Server

from ..instructions.callgrind import Counter, NoValgrind, counting, find_server, valgrind_version, wrapped
from ..measure import RESULTS, Claim, environment, say, significant, write
from .calls import (
    FAR,
    ITEM,
    Command,
    ask,
    batch_id,
    call,
    fill,
    fresh,
    group_name,
    key,
    load_all,
    member_name,
    most,
)

RULER_GETS = 10_000
RULER_MS = 5.0
TARGET_MS = 5.0
TOLERANCE = 0.10
NEAREST = 10
OTHERS = 5_000  # items or members that a queue holds beside those that the call is about
PAST, NOW, LATER = FAR - 10_000, FAR, FAR + 10_000

Prepare = Callable[[redis.Redis], Command]
"""Brings the server into the state that a call meets, and returns the call."""

ITEMS = most("buffer/push", "item")
BATCH = most("buffer/reserve", "size")
BATCHES = most("buffer/redrive", "id")
PAGE = most("buffer/groups", "limit")
PUSHED = most("priority/push", "item")
LEASED = most("priority/reserve", "size")
MEMBERS = most("priority/remove", "member")
RATES = [(10**9, 60_000), (10**9, 3_600_000), (10**9, 500)]
MANY_RATES = [(i, 10**9) for i in range(1, most("limit/acquire", "rates") + 1)]


@dataclass(frozen=True)
class LongCall:
    """A script's largest call in one state, and how both are made."""

    script: str
    call: str
    prepare: Prepare

    def __str__(self) -> str:
        """Give both names."""
        return f"{self.script}: {self.call}"


LONG_CALLS: list[LongCall] = []


def long_call(script: str, title: str, **options: Any) -> Callable[[Callable[..., Command]], Callable[..., Command]]:
    """Add a call, prepared by the function that follows, with these options."""

    def add(prepare: Callable[..., Command]) -> Callable[..., Command]:
        LONG_CALLS.append(LongCall(script, title, partial(prepare, **options)))
        return prepare

    return add


# The buffer.


def push(client: redis.Redis, count: int, group: str = "g", length: int = 0) -> None:
    """Push items to one group."""
    size = length or ITEMS
    for done in range(0, count, size):
        ask(client, *call("buffer/push", group=group, item=[ITEM] * min(size, count - done), now=NOW))


def leased(client: redis.Redis, size: int = BATCH, **options: Any) -> str:
    """Lease a batch of so many items, others of its group left; return its id."""
    push(client, size + OTHERS)
    one = fresh()
    ask(client, *call("buffer/reserve", **{"id": one, "size": size, "now": NOW, **options}))
    return one


def dead(client: redis.Redis, count: int, length: int) -> list[str]:
    """Bury batches, each of a group of its own that has more; return their ids."""
    ids = [fresh() for _ in range(count)]
    for number, one in enumerate(ids):
        push(client, 2 * length, group_name(number), min(2 * length, ITEMS))
        ask(client, *call("buffer/reserve", id=one, size=length, now=NOW))
        ask(client, *call("buffer/bury", id=one, now=NOW, reason=ITEM))
    return ids


def expired_grants(client: redis.Redis, count: int = 300) -> None:
    """Charge what has left every span, more than one call sweeps away."""
    client.zadd(key("grants"), {f"{i:016d} 1 {1000 + i}": 1000 + i for i in range(count)})


def ended_pauses(client: redis.Redis, count: int) -> None:
    """Let so many groups with an item be paused, and their pauses have ended."""
    for number in range(count):
        ask(client, *call("buffer/pause_group", group=f"paused:{number}", duration=1, now=PAST))
        push(client, 1, f"paused:{number}")
    client.unlink(key("wake"))


@long_call("buffer/push", f"{ITEMS:,} items", side="back")
@long_call("buffer/push", f"{ITEMS:,} items at the front", side="front")
def _push(client: redis.Redis, side: str) -> Command:
    push(client, OTHERS)
    return call("buffer/push", group="g", item=[ITEM] * ITEMS, side=side)


@long_call("buffer/pop", f"{ITEMS:,} items", paused=False)
@long_call("buffer/pop", f"{ITEMS:,} items of a group whose pause ended", paused=True)
def _pop(client: redis.Redis, paused: bool) -> Command:
    push(client, ITEMS + OTHERS)
    if paused:
        ask(client, *call("buffer/pause_group", group="g", duration=1, now=1))
    return call("buffer/pop", group="g", size=ITEMS)


@long_call("buffer/reserve", f"{BATCH:,} items, 3 rates, 100 expired grants", rates=RATES)
@long_call("buffer/reserve", f"{BATCH:,} items, max_bytes", max_bytes=10**9)
@long_call("buffer/reserve", f"{BATCH:,} items, max_bytes, ordered, 3 rates", max_bytes=10**9, ordered=1, rates=RATES)
def _reserve(client: redis.Redis, **options: Any) -> Command:
    push(client, BATCH + OTHERS)
    expired_grants(client)
    return call("buffer/reserve", size=BATCH, **options)


@long_call("buffer/reserve", f"{BATCH:,} items, {len(MANY_RATES)} rates, 10 pauses that ended")
def _reserve_paused(client: redis.Redis) -> Command:
    push(client, BATCH + OTHERS)
    expired_grants(client)
    ended_pauses(client, 10)
    return call("buffer/reserve", size=BATCH, rates=[(10**9, i) for i in range(1, len(MANY_RATES) + 1)], now=NOW)


@long_call("buffer/reserve", f"{BATCH:,} items, sent again")
def _reserve_again(client: redis.Redis) -> Command:
    return call("buffer/reserve", id=leased(client), size=BATCH)


@long_call("buffer/reserve", f"a batch of {BATCH:,} items whose lease ran out", rates=RATES)
@long_call("buffer/reserve", f"a batch of {BATCH:,} items that is split", isolate=1, max_attempts=1, rates=RATES)
def _reserve_expired(client: redis.Redis, **options: Any) -> Command:
    leased(client, lease=1, ordered=1)
    expired_grants(client)
    return call("buffer/reserve", now=LATER, ordered=1, **options)


@long_call("buffer/reserve", f"a batch of {BATCH:,} items is buried, 10 are trimmed")
def _reserve_buries(client: redis.Redis) -> Command:
    dead(client, 20, 500)
    leased(client, lease=1, ordered=1)
    return call("buffer/reserve", now=LATER, ordered=1, max_attempts=1, max_dead=1)


@long_call("buffer/ack", f"{BATCH:,} items, all failed", failed=BATCH)
@long_call("buffer/ack", f"{BATCH:,} items, all but one failed", failed=BATCH - 1)
@long_call("buffer/ack", f"{BATCH:,} items, half of them failed", failed=BATCH // 2)
@long_call("buffer/ack", f"{BATCH:,} items", failed=0)
def _ack(client: redis.Redis, failed: int) -> Command:
    return call("buffer/ack", id=leased(client, ordered=1), failed=range(failed), reason=ITEM)


@long_call("buffer/release", f"{BATCH:,} items")
def _release(client: redis.Redis) -> Command:
    return call("buffer/release", id=leased(client), reason=ITEM)


@long_call("buffer/bury", f"{BATCH:,} items, 10 batches are trimmed")
def _bury(client: redis.Redis) -> Command:
    dead(client, 20, 500)
    return call("buffer/bury", id=leased(client, ordered=1), max_dead=1, reason=ITEM)


@long_call("buffer/extend", "1 batch")
def _extend(client: redis.Redis) -> Command:
    return call("buffer/extend", id=leased(client, 1), lease=most("buffer/extend", "lease"))


@long_call("buffer/redrive", f"{BATCHES} batches of 34 items", count=BATCHES, length=34)
@long_call("buffer/redrive", f"a batch of {BATCH:,} items", count=1, length=BATCH)
def _redrive(client: redis.Redis, count: int, length: int) -> Command:
    return call("buffer/redrive", id=dead(client, count, length))


@long_call("buffer/discard", f"{most('buffer/discard', 'id'):,} batches of 100 items")
def _discard(client: redis.Redis) -> Command:
    count = most("buffer/discard", "id")
    fill(client, "batches", 1, count, 100, ITEM, "dead", "d", FAR, 3)
    return call("buffer/discard", id=[batch_id("d", i) for i in range(1, count + 1)])


@long_call("buffer/batches", f"{most('buffer/batches', 'limit')} batches of 40 items", count=100, length=40)
@long_call("buffer/batches", f"a batch of {BATCH:,} items", count=1, length=BATCH)
def _batches(client: redis.Redis, count: int, length: int) -> Command:
    fill(client, "batches", 1, count, length, ITEM, "dead", "d", FAR, 3)
    return call("buffer/batches", limit=most("buffer/batches", "limit"))


def waiting(client: redis.Redis, count: int, length: int = 1, state: str = "waiting") -> list[str]:
    """Fill groups that may be chosen, are busy or are paused; return their names."""
    names = [group_name(i) for i in range(1, count + 1)]
    fill(client, "groups", 1, count, length, ITEM, PAST)
    if state == "busy":
        client.hset(key("busy"), mapping={name: fresh() for name in names})
    if state == "paused":
        client.zadd(key("paused_groups"), dict.fromkeys(names, float("inf")))
    if state != "waiting":
        client.unlink(key("groups"), key("since"))
    return names


GROUPS = most("buffer/pop_longest", "count")


@long_call("buffer/pop_longest", f"{GROUPS} groups, {ITEMS // GROUPS} items each", size=ITEMS // GROUPS)
@long_call("buffer/pop_longest", f"{ITEMS:,} items of 1 group", count=1, size=ITEMS)
@long_call(
    "buffer/pop_longest", f"{GROUPS} groups, half of which have waited max_wait", size=ITEMS // GROUPS, max_wait=1
)
@long_call("buffer/pop_longest", f"{GROUPS} groups, as many for max_wait, 10 pauses that ended", max_wait=1, pauses=10)
def _pop_longest(
    client: redis.Redis, size: int = ITEMS // GROUPS, count: int = GROUPS, max_wait: int = 0, pauses: int = 0
) -> Command:
    names = waiting(client, 2 * count, size + 1)
    ended_pauses(client, pauses)
    client.zadd(key("since"), dict.fromkeys(names[count // 2 :], LATER))
    client.zincrby(key("groups"), 0, names[0])
    return call("buffer/pop_longest", count=count, size=size, max_wait=max_wait, now=NOW)


@long_call("buffer/groups", f"{PAGE:,} groups", state="waiting")
@long_call("buffer/groups", f"{PAGE:,} busy groups", state="busy")
@long_call("buffer/groups", f"{PAGE:,} paused groups", state="paused")
def _groups(client: redis.Redis, state: str) -> Command:
    waiting(client, 2 * PAGE, state=state)
    return call("buffer/groups", state=state, limit=PAGE)


@long_call("buffer/peek", f"{most('buffer/peek', 'count'):,} items behind {ITEMS:,}")
def _peek(client: redis.Redis) -> Command:
    push(client, 2 * ITEMS + OTHERS)
    return call("buffer/peek", group="g", start=ITEMS, count=most("buffer/peek", "count"))


REASON = "x" * 1000


def _pause_first(client: redis.Redis, structure: str) -> None:
    if structure == "buffer":
        push(client, OTHERS)
    else:
        push_members(client, 0, OTHERS)
    ask(client, *call(f"{structure}/pause", reason=REASON, now=NOW))
    client.unlink(key("wake"))


@long_call("buffer/pause", f"another pause, a reason of {len(REASON):,} bytes", structure="buffer")
@long_call("priority/pause", f"another pause, a reason of {len(REASON):,} bytes", structure="priority")
def _pause(client: redis.Redis, structure: str) -> Command:
    _pause_first(client, structure)
    return call(f"{structure}/pause", reason=REASON, duration=1000)


@long_call("buffer/resume", f"a pause with a reason of {len(REASON):,} bytes", structure="buffer")
@long_call("priority/resume", f"a pause with a reason of {len(REASON):,} bytes", structure="priority")
def _resume(client: redis.Redis, structure: str) -> Command:
    _pause_first(client, structure)
    return call(f"{structure}/resume")


@long_call("buffer/pause_group", "one of 10,000 groups, half of which are paused", state="paused")
@long_call("buffer/resume_group", "one of 10,000 groups, half of which are paused", state="resumed")
def _pause_group(client: redis.Redis, state: str) -> Command:
    names = waiting(client, 10_000)
    for name in names[::2] if state == "resumed" else names[1::2]:
        ask(client, *call("buffer/pause_group", group=name, now=NOW))
    client.unlink(key("wake"))
    return call(f"buffer/{'pause' if state == 'paused' else 'resume'}_group", group=names[0], duration=1000)


DROPPED = most("buffer/drop_group", "limit")


@long_call("buffer/drop_group", f"{DROPPED} delayed batches of 1,000 items, as many dead ones, {ITEMS:,} items")
def _drop_group(client: redis.Redis) -> Command:
    group = group_name(1)
    push(client, ITEMS, group)
    # One less, so that all delayed ones are met, and a page of dead ones after them.
    for state, count, prefix in (("delayed", DROPPED - 1, "d"), ("dead", 2 * DROPPED, "e")):
        fill(client, "batches", 1, count, 1000, ITEM, state, prefix, FAR, 3)
    client.hset(key("busy"), group, batch_id("d", 1))
    return call("buffer/drop_group", group=group, limit=DROPPED, state=0, start=0)


@long_call("buffer/stats", f"{most('buffer/stats', 'limit'):,} groups of each state")
def _stats(client: redis.Redis) -> Command:
    limit = most("buffer/stats", "limit")
    names = waiting(client, 3 * limit)
    client.zrem(key("groups"), *names[limit:])
    client.hset(key("busy"), mapping={name: fresh() for name in names[limit : 2 * limit]})
    client.zadd(key("paused_groups"), dict.fromkeys(names[2 * limit :], float("inf")))
    return call("buffer/stats", limit=limit)


@long_call("buffer/purge", f"{most('buffer/purge', 'limit')} groups and batches of each kind")
def _purge(client: redis.Redis) -> Command:
    limit = most("buffer/purge", "limit")
    names = waiting(client, 3 * limit, 20)
    client.zrem(key("groups"), *names[limit:])
    client.hset(key("busy"), mapping={name: fresh() for name in names[limit : 2 * limit]})
    client.zadd(key("paused_groups"), dict.fromkeys(names[2 * limit :], float("inf")))
    for index in ("leases", "delayed", "dead"):
        fill(client, "batches", 1, limit, 20, ITEM, index, index[:2], FAR, 3)
    return call("buffer/purge", limit=limit)


AUDITED = most("buffer/audit", "limit")
SMALL = 128  # the entries of a sorted set that is searched as a whole, whatever the page


@long_call("buffer/audit", f"{AUDITED} keys, groups that nobody counted, all repaired", phase="keys")
@long_call("buffer/audit", f"{AUDITED} groups, all busy for a batch that is gone, all repaired", phase="busy")
def _audit_groups(client: redis.Redis, phase: str) -> Command:
    waiting(client, 1000, state="busy" if phase == "busy" else "waiting")
    client.unlink(key("groups"), key("since"))
    return call("buffer/audit", cursor=f"{phase}:0", limit=AUDITED, repair="repair", lease=1, delay=1)


@long_call("buffer/audit", f"{SMALL} batches that are leased, delayed and dead, all repaired", length=1)
@long_call("buffer/audit", f"{SMALL} batches without a list, all repaired", length=0)
def _audit_batches(client: redis.Redis, length: int) -> Command:
    names = [batch_id("d", i) for i in range(1, SMALL + 1)]
    for name in names if length else ():
        client.rpush(key(f"batch:{name}"), "g", "none")
    for index in ("leases", "delayed", "dead"):
        client.zadd(key(index), dict.fromkeys(names, LATER))
    return call("buffer/audit", cursor="leases:0", limit=AUDITED, repair="repair", lease=1, delay=1, now=PAST)


# The priority queue.


def pairs(first: int, count: int, *payload: bytes, mixed: bool = True) -> list[tuple[Any, ...]]:
    """Give members, with different priorities: equal ones cost less."""
    return [((i % 2048 - 1024) if mixed else 5, member_name(i), *payload) for i in range(first, first + count)]


def names_of(first: int, count: int) -> list[str]:
    """Give the names of members."""
    return [member_name(i) for i in range(first, first + count)]


def push_members(client: redis.Redis, first: int, count: int, **options: Any) -> None:
    """Push members, as many a call as the script takes; `fields`: with payloads."""
    payload = (ITEM,) if options.get("fields") == 3 else ()
    for done in range(first, first + count, PUSHED):
        item = pairs(done, min(PUSHED, first + count - done), *payload)
        ask(client, *call("priority/push", **{"item": item, "now": PAST, **options}))


def leases(client: redis.Redis, count: int = 1, size: int = LEASED, **options: Any) -> list[str]:
    """Lease members with payloads and rows, from 0 on; others wait."""
    push_members(client, 0, count * size, fields=3)
    client.zadd(key("ready"), {name: i for i, name in enumerate(names_of(0, count * size))})  # to go in this order
    client.hset(key("rows"), mapping={name: f"0 1 {ITEM.decode()}" for name in names_of(0, count * size)})
    ids = [fresh() for _ in range(count)]
    for one in ids:
        ask(client, *call("priority/reserve", **{"id": one, "size": size, "now": PAST, **options}))
    push_members(client, 10**6, OTHERS)
    return ids


def note(client: redis.Redis, count: int = LEASED, *, half: bool = False) -> None:
    """Push members that are leased, all or every other one."""
    item = pairs(0, count, ITEM)[:: 2 if half else 1]
    for done in range(0, len(item), PUSHED):
        ask(client, *call("priority/push", item=item[done : done + PUSHED], fields=3, delay=100, now=PAST))


def bury(client: redis.Redis, count: int) -> None:
    """Bury so many members, with payloads."""
    for one in leases(client, count // LEASED):
        ask(client, *call("priority/bury", id=one, reason=ITEM, now=PAST))


@long_call("priority/push", f"{PUSHED} new members", first=10**7)
@long_call("priority/push", f"{PUSHED} new members with payloads", first=10**7, fields=3)
@long_call("priority/push", f"{PUSHED} new members with payloads, delayed", first=10**7, fields=3, delay=5000)
@long_call("priority/push", f"{PUSHED} members that are ready, raised", first=10**6, how="min")
@long_call(
    "priority/push", f"{PUSHED} members that are ready, set, delayed", first=10**6, how="set", fields=3, delay=5000
)
def _push_members(client: redis.Redis, first: int, fields: int = 2, **options: Any) -> Command:
    push_members(client, 10**6, OTHERS)
    client.zadd(key("ready"), dict.fromkeys(names_of(10**6, OTHERS), 3 * 10**15))  # later than what is asked for
    return call("priority/push", item=pairs(first, PUSHED, *[ITEM] * (fields - 2)), fields=fields, **options)


@long_call("priority/push", f"{PUSHED} members that are leased", noted=False)
@long_call("priority/push", f"{PUSHED} members that are leased and noted, set", noted=True, how="set")
@long_call("priority/push", f"{PUSHED} members that are leased and noted", noted=True)
def _push_leased(client: redis.Redis, noted: bool, **options: Any) -> Command:
    leases(client)
    if noted:
        note(client)
    return call("priority/push", item=pairs(0, PUSHED, ITEM), fields=3, delay=50, now=PAST, **options)


@long_call("priority/push", f"{PUSHED} members that are delayed, to be ready", how="min", delay=0)
@long_call("priority/push", f"{PUSHED} members that are delayed, set", how="set", delay=9999)
def _push_delayed(client: redis.Redis, **options: Any) -> Command:
    push_members(client, 0, PUSHED, delay=5000, fields=3)
    push_members(client, 10**6, OTHERS)
    return call("priority/push", item=pairs(0, PUSHED, ITEM), fields=3, now=PAST, **options)


@long_call("priority/push", f"{PUSHED} members that are dead", delay=0)
@long_call("priority/push", f"{PUSHED} members that are dead, delayed", delay=5000)
def _push_dead(client: redis.Redis, delay: int) -> Command:
    bury(client, 2 * PUSHED)
    return call("priority/push", item=pairs(0, PUSHED, ITEM), fields=3, delay=delay)


@long_call("priority/pop", f"{most('priority/pop', 'count'):,} members, 100 were due, all with row and payload")
def _pop_members(client: redis.Redis) -> Command:
    count = most("priority/pop", "count")
    push_members(client, 0, count + OTHERS, fields=3)
    client.hset(key("rows"), mapping={name: f"0 1 {ITEM.decode()}" for name in names_of(0, count + OTHERS)})
    push_members(client, 10**7, LEASED, fields=3, delay=1, how="set")
    return call("priority/pop", count=count, now=NOW)


def due(client: redis.Redis) -> None:
    """Fill a queue of which many members are due, all with rows and payloads."""
    push_members(client, 0, OTHERS, fields=3)
    push_members(client, 10**7, LEASED, fields=3, delay=1)
    ids = (*names_of(0, OTHERS), *names_of(10**7, LEASED))
    client.hset(key("rows"), mapping={name: f"1 1 {ITEM.decode()}" for name in ids})
    expired_grants(client)


@long_call(
    "priority/reserve", f"{LEASED} members, 100 were due, all with row and payload, max_bytes, 3 rates", dying=False
)
@long_call("priority/reserve", f"{LEASED} members, 100 are buried, 110 trimmed, max_bytes, 3 rates", dying=True)
def _reserve_members(client: redis.Redis, dying: bool) -> Command:
    due(client)
    options = {"max_attempts": 1, "max_dead": 1} if dying else {}
    client.zadd(key("dead"), {name: i for i, name in enumerate(names_of(10**8, 1000 if dying else 0))} or {"m": 1})
    return call("priority/reserve", size=LEASED, max_bytes=10**9, rates=RATES, now=NOW, **options)


@long_call("priority/reserve", f"{LEASED} members, sent again")
def _reserve_members_again(client: redis.Redis) -> Command:
    return call("priority/reserve", id=leases(client)[0], size=LEASED)


@long_call("priority/reserve", f"a lease of {LEASED} members ran out, all noted", count=1, size=LEASED)
@long_call("priority/reserve", "100 leases of 1 member ran out, all noted", count=100, size=1)
def _reserve_members_expired(client: redis.Redis, count: int, size: int) -> Command:
    leases(client, count, size, lease=1)
    note(client, count * size)
    expired_grants(client)
    return call("priority/reserve", size=LEASED, max_attempts=1, rates=RATES, now=NOW)


def failures() -> list[tuple[int, bytes]]:
    """Let all members fail."""
    return [(place, ITEM) for place in range(LEASED)]


@long_call("priority/ack", f"{LEASED} members, all noted", noted=True)
@long_call("priority/ack", f"{LEASED} members, all failed", failed=failures())
@long_call("priority/ack", f"{LEASED} members, all failed, all noted", noted=True, failed=failures())
@long_call(
    "priority/ack", f"{LEASED} members, half of them failed, half of them noted", half=True, failed=failures()[::2]
)
def _ack_members(client: redis.Redis, noted: bool = False, half: bool = False, **options: Any) -> Command:
    one = leases(client)[0]
    if noted or half:
        note(client, half=half)
    return call("priority/ack", id=one, **options)


@long_call("priority/release", f"{LEASED} members", noted=False)
@long_call("priority/release", f"{LEASED} members, all noted", noted=True)
def _release_members(client: redis.Redis, noted: bool) -> Command:
    one = leases(client)[0]
    if noted:
        note(client)
    return call("priority/release", id=one, reason=ITEM)


@long_call("priority/bury", f"{LEASED} members, {LEASED + 10} are trimmed")
@long_call("priority/bury", f"{LEASED} members, half of them noted, {LEASED // 2 + 10} are trimmed", half=True)
@long_call("priority/bury", f"{LEASED} members, all noted", half=False)
def _bury_members(client: redis.Redis, half: bool | None = None) -> Command:
    older, one = leases(client, 2)
    ask(client, *call("priority/bury", id=older, reason=ITEM))
    if half is not None:
        item = pairs(LEASED, LEASED, ITEM)[:: 2 if half else 1]
        ask(client, *call("priority/push", item=item, fields=3, delay=100))
    return call("priority/bury", id=one, max_dead=1, reason=ITEM)


@long_call("priority/extend", f"{LEASED} members")
def _extend_members(client: redis.Redis) -> Command:
    return call("priority/extend", id=leases(client)[0], lease=most("priority/extend", "lease"))


@long_call("priority/remove", f"{MEMBERS:,} members that are leased", prepare=lambda client: leases(client, 2))
@long_call("priority/remove", f"{MEMBERS:,} members that are dead", prepare=lambda client: bury(client, MEMBERS))
@long_call("priority/redrive", f"{MEMBERS:,} members", verb="redrive", prepare=lambda client: bury(client, MEMBERS))
@long_call("priority/discard", f"{MEMBERS:,} members", verb="discard", prepare=lambda client: bury(client, MEMBERS))
def _by_name(client: redis.Redis, prepare: Callable[[redis.Redis], Any], verb: str = "remove") -> Command:
    prepare(client)
    return call(f"priority/{verb}", member=names_of(0, MEMBERS))


@long_call("priority/members", f"{most('priority/members', 'limit')} dead members, all with row and payload")
def _members(client: redis.Redis) -> Command:
    bury(client, MEMBERS)
    return call("priority/members", limit=most("priority/members", "limit"))


@long_call("priority/batches", f"{LEASED} members of 99 leases, and behind them one of {LEASED}")
def _lease_batches(client: redis.Redis) -> Command:
    limit = most("priority/batches", "limit")
    leases(client, limit - 1, LEASED // limit)
    push_members(client, 10**7, LEASED, how="set")
    client.zadd(key("ready"), dict.fromkeys(names_of(10**7, LEASED), -1))
    ask(client, *call("priority/reserve", size=LEASED, lease=4_000_000, now=PAST))
    return call("priority/batches", limit=limit)


@long_call("priority/state", "1 member")
def _state(client: redis.Redis) -> Command:
    bury(client, LEASED)
    return call("priority/state", member=member_name(0))


@long_call("priority/stats", "any number of members")
def _member_stats(client: redis.Redis) -> Command:
    bury(client, LEASED)
    return call("priority/stats")


@long_call("priority/purge", f"{most('priority/purge', 'limit')} leases of 2 members, all with row, payload and note")
def _purge_members(client: redis.Redis) -> Command:
    limit = most("priority/purge", "limit")
    leases(client, limit + 1, 2)
    note(client, 2 * limit + 2)
    return call("priority/purge", limit=limit)


@long_call("priority/audit", f"{AUDITED} leases that are in no index, all repaired")
def _audit_leases(client: redis.Redis) -> Command:
    leases(client, 1000, 1)
    client.unlink(key("leases"))
    return call("priority/audit", cursor="keys:0", limit=AUDITED, repair="repair")


@long_call("priority/audit", "500 members that no lease names, and 500 of 200 leases that are not held, all repaired")
def _audit_held(client: redis.Redis) -> Command:
    leases(client, 198, 2)
    leases(client, 1, 104)
    client.unlink(key("held"))
    client.sadd(key("held"), *names_of(10**7, 500))
    client.hset(key("again"), mapping=dict.fromkeys(names_of(10**7, 500), f"5 {FAR} min"))
    return call("priority/audit", cursor="held:0", limit=AUDITED, repair="repair")


@long_call(
    "priority/audit", f"{SMALL} members that are held, ready, delayed and dead, rows that say nothing, all repaired"
)
def _audit_twice(client: redis.Redis) -> Command:
    names = names_of(0, SMALL)
    client.sadd(key("held"), *names)
    for index in ("ready", "delayed", "dead"):
        client.zadd(key(index), dict.fromkeys(names, LATER))
    client.hset(key("rows"), mapping=dict.fromkeys(names, "nothing"))
    return call("priority/audit", cursor="delayed:0", limit=AUDITED, repair="repair", lease=1, delay=1, now=PAST)


@long_call("priority/audit", f"{AUDITED} rows, all stray, all repaired")
def _audit_stray(client: redis.Redis) -> Command:
    push_members(client, 0, OTHERS)
    client.hset(key("rows"), mapping=dict.fromkeys(names_of(10**7, OTHERS), "1 1 "))
    return call("priority/audit", cursor="rows:0", limit=AUDITED, repair="repair")


# The limiter.


@long_call("limit/acquire", "3 rates, 100 expired grants", rates=RATES, now="")
@long_call(
    "limit/acquire", f"{len(MANY_RATES)} rates, all lowered since, 100,000 grants", rates=MANY_RATES, now=FAR + 10**5
)
def _acquire(client: redis.Redis, **options: Any) -> Command:
    if options["now"]:
        client.eval(
            "for i = 0, 99999 do redis.call('ZADD', KEYS[1], string.format('%d', ARGV[1] + i),"
            "string.format('%016d 1 %d', i, ARGV[1] + i)) end",
            *(1, key("grants"), FAR),
        )
    else:
        expired_grants(client)
    return call("limit/acquire", **options)


# The ruler.


def ruler(counter: Counter) -> int:
    """Count the instructions of so many GETs, of which the ms are defined."""
    loop = f"for i = 1, {RULER_GETS} do redis.call('GET', KEYS[1]) end"
    counter.start()
    counter.client.eval(loop, 1, key("nothing"))
    return counter.stop()


def measured(calls: Sequence[LongCall], server: str | None = None) -> Iterator[tuple[LongCall, float]]:
    """Give each call's ms by the ruler."""
    with wrapped(find_server(server)) as program, Server(program) as running, counting(running) as counter:
        load_all(counter.client)
        unit = ruler(counter)
        for one in calls:
            counter.client.flushall()
            counter.client.script_flush("SYNC")  # Lua anew: its garbage, and a figure, depend on what ran before
            load_all(counter.client)
            command = one.prepare(counter.client)
            counter.start()
            ask(counter.client, *command)
            yield one, significant(counter.stop() / unit * RULER_MS)


def nearest() -> list[LongCall]:
    """Give the calls that the result says are nearest to the bound; without a result, all."""
    path = RESULTS / "blocking_time.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    times = {(row["script"], row["call"]): row["ms"] for row in rows}
    ordered = sorted(
        LONG_CALLS, key=lambda one: -times.get((one.script, one.call), math.inf)
    )  # a new one is looked at too
    return ordered[: NEAREST if rows else None]


def too_long(found: Iterable[tuple[LongCall, float]]) -> list[str]:
    """Return a line for each call that is longer than it may be."""
    most_ms = TARGET_MS * (1 + TOLERANCE)
    return [f"{one}: {ms:g} ms by the ruler, at most {TARGET_MS:g} are allowed" for one, ms in found if ms > most_ms]


def main(argv: Sequence[str] | None = None) -> int:
    """Count, print, and write the result."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.growth.blocking_time", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "--only", default="", metavar="PATTERN", help="some scripts, such as priority/*; writes nothing"
    )
    options = parser.parse_args(argv)
    calls = [one for one in LONG_CALLS if fnmatchcase(one.script, options.only or "*")]
    rows, found = [], []
    try:
        for one, ms in measured(calls):
            print(f"{one!s:<110}{ms:>7.3g} ms", flush=True)
            rows.append({"script": one.script, "call": one.call, "ms": ms})
            found.append((one, ms))
        with Server(find_server()) as server:
            facts = {**environment(server), "valgrind": valgrind_version().removeprefix("valgrind-")}
    except (NoServer, NoValgrind) as error:
        print(error, file=sys.stderr)
        return 2
    over = too_long(found)
    for line in over:
        print(f"too long: {line}", file=sys.stderr)
    if not options.only:
        from .. import report

        claim = Claim(
            "growth: longest call of any script, ms by the ruler", [max(ms for _, ms in found)], TARGET_MS, True
        )
        result = {"environment": facts, "ruler": f"{RULER_GETS} GETs are {RULER_MS:g} ms", "rows": rows}
        say(f"written to {write('blocking_time', {**result, 'claims': [claim.summary()]})}")
        report.write()
    return int(bool(over))


if __name__ == "__main__":
    sys.exit(main())
