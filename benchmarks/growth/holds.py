"""Measure the longest that one call can keep everybody else waiting."""

from __future__ import annotations

import contextlib
import itertools
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import redis

from redisq.ops import buffer as buffer_ops
from redisq.ops import priority as priority_ops

from ..measure import private_server, say, significant
from .calls import (
    FAR,
    ITEM,
    TOKEN,
    Command,
    ask,
    batch_id,
    call,
    fill,
    fresh,
    group_name,
    key,
    member_name,
    most,
    processor,
    ready_server,
    send,
    timed,
)


@dataclass(frozen=True)
class Hold:
    """Name a script's largest call and say how it is made, its state before it included."""

    script: str
    call: str
    prepare: Callable[[], Command]
    samples: int = 99
    """Samples to take at most, where each needs a queue filled anew."""
    python: bool = True
    """Whether the Python makes such calls; others only who calls the script by hand, with a larger page."""


def held(client: redis.Redis, hold: Hold, samples: int) -> dict[str, Any]:
    """Measure one call several times, as `timed` does, and say where the fastest one spent its time."""
    found: list[tuple[float, dict[str, float]]] = []
    served = []
    for _ in range(min(samples, hold.samples)):
        command = hold.prepare()
        client.config_resetstat()
        before = processor(client)
        ask(client, *command)
        served.append((processor(client) - before) / 1000)
        stats: dict[str, Any] = client.info("commandstats")
        times = {name.removeprefix("cmdstat_"): row["usec"] / 1000 for name, row in stats.items()}
        whole = times.pop("evalsha")
        inner = {name: time for name, time in times.items() if name not in ("info", "config|resetstat")}
        found.append((whole, {**inner, "Lua and reply": whole - sum(inner.values())}))
    least, profile = min(found, key=lambda one: one[0])
    top = sorted(profile.items(), key=lambda one: -one[1])[:4]
    return {
        "script": hold.script,
        "call": hold.call,
        "python": hold.python,
        "ms": significant(min(least, *served)),
        "ms_by_the_clock": {"min": significant(least), "median": significant(statistics.median(t for t, _ in found))},
        "ms_with_request_and_reply": significant(min(served)),
        "profile_ms": {name: significant(value, 2) for name, value in top},
    }


def audits(
    client: redis.Redis, structure: str, phase: str, what: str, page: int, repair: str = "report"
) -> Iterator[Hold]:
    """Audit page after page, so that no call finds what another has mended."""
    script = f"{structure}/audit"
    position = 0

    def audit(limit: int) -> Command:
        nonlocal position
        command = call(script, cursor=f"{phase}:{position}", limit=limit, repair=repair)
        if phase == "keys":
            position = int(ask(client, "SCAN", position, "COUNT", limit)[0])
        else:
            verb = "HSCAN" if phase == "rows" else "ZSCAN"
            position = int(ask(client, verb, key(phase), position, "COUNT", limit)[0])
        return command

    for limit in sorted({page, most(script, "limit")}):
        yield Hold(script, f"{limit:,} {what}", partial(audit, limit), python=limit == page)


def one_group(client: redis.Redis, size: int) -> Iterator[Hold]:
    """Hold a million items in one group."""
    fill(client, "groups", 1, 1, size, ITEM, FAR)
    group, items = group_name(1), [ITEM] * 10_000
    rates = (10**9, 60_000, 10**9, 3_600_000, 10**9, 1_000)

    def reserved(length: int = 10_000) -> str:
        one = fresh()
        fill(client, "batches", 0, 0, length, ITEM, "leases", one[:1], FAR, 1)
        client.rename(key("batch:" + batch_id(one[:1], 0)), key("batch:" + one))
        send(client, [("ZREM", key("leases"), batch_id(one[:1], 0)), ("ZADD", key("leases"), FAR, one)])
        return one

    def expired_grants() -> None:
        fill(client, "grants", 1, 100, 1)

    def reserve() -> Command:
        expired_grants()
        return call("buffer/reserve", rates, size=10_000)

    def again() -> Command:
        return call("buffer/reserve", rates, id=reserved(), size=10_000)

    def due() -> Command:
        # Nine leases and ten delayed batches have used up their attempts, ten groups are evicted; the tenth is it.
        expired_grants()
        one = reserved()
        client.zadd(key("leases"), {one: 1000})
        for index, prefix, count in (("leases", "x", 9), ("delayed", "y", 10)):
            client.delete(*(key("batch:" + batch_id(prefix, i)) for i in range(1, count + 1)))
            fill(client, "batches", 1, count, 1, ITEM, index, prefix, 1, 5)
        fill(client, "evicted", 1, 10, 1, 1)
        return call("buffer/reserve", rates, size=10_000, max_attempts=5, max_wait=1)

    yield Hold("buffer/push", "10,000 items", lambda: call("buffer/push", items, group=group))
    yield Hold(
        "buffer/push", "10,000 items, at the front", lambda: call("buffer/push", items, group=group, side="front")
    )
    yield Hold("buffer/pop", "10,000 items", lambda: call("buffer/pop", group=group, size=10_000))
    yield Hold("buffer/pop_longest", "10,000 items of 1 group", lambda: call("buffer/pop_longest", size=10_000))
    yield Hold("buffer/reserve", "10,000 items, 3 rates, 100 expired grants", reserve)
    yield Hold("buffer/reserve", "10,000 items, sent again", again)
    yield Hold("buffer/reserve", "a batch of 10,000 items, behind 29 that are buried or gone", due)
    yield Hold("buffer/ack", "10,000 items", lambda: call("buffer/ack", id=reserved()))
    yield Hold("buffer/ack", "10,000 items, all failed", lambda: call("buffer/ack", range(10_000), id=reserved()))
    yield Hold("buffer/release", "10,000 items", lambda: call("buffer/release", id=reserved(), attempt="forget"))
    yield Hold("buffer/extend", "1 batch", lambda: call("buffer/extend", id=reserved(1)))


def purge_group(client: redis.Redis, size: int) -> Iterator[Hold]:
    """Purge a million items in one group."""

    def purge() -> Command:
        client.flushall()
        fill(client, "groups", 1, 1, size, ITEM, FAR)
        return call("buffer/purge", limit=buffer_ops._PURGE_STEP)

    yield Hold("buffer/purge", "1 group of all the items", purge)


def purge_members(client: redis.Redis, size: int) -> Iterator[Hold]:
    """Purge a million members, half of them ready."""

    def purge() -> Command:
        client.flushall()
        fill(client, "members", 1, size // 2, "ready", 0, "")
        fill(client, "members", size // 2 + 1, size, "later", FAR, "1 1 - - ")
        return call("priority/purge")

    yield Hold("priority/purge", "all members", purge, samples=3)


def letters(client: redis.Redis, size: int) -> Iterator[Hold]:
    """Hold a million items in dead letters."""
    ids = [batch_id("d", i) for i in range(1, 1001)]

    def bury(count: int, length: int) -> None:
        client.flushall()
        fill(client, "batches", 1, count, length, ITEM, "dead", "d", 1, 3)

    def dead(count: int, length: int) -> Command:
        bury(count, length)
        return call("buffer/dead", limit=count)

    def change(verb: str) -> Command:
        bury(1000, size // 1000)
        return call(f"buffer/{verb}", ids)

    each = f"{size // 1000:,} items each"
    for limit in (buffer_ops._DEAD_PAGE, most("buffer/dead", "limit")):
        length = 10_000 // limit
        called = f"{limit:,} batches of {length:,} items"
        yield Hold("buffer/dead", called, partial(dead, limit, length), python=limit == buffer_ops._DEAD_PAGE)
    yield Hold("buffer/dead", "2 batches of 10,000 items", partial(dead, 2, 10_000))
    yield Hold("buffer/redrive", f"1,000 batches, {each}", partial(change, "redrive"))
    yield Hold("buffer/discard", f"1,000 batches, {each}", partial(change, "discard"))


def many_groups(client: redis.Redis, size: int) -> Iterator[Hold]:
    """Hold a million groups, and as many batches of each kind as a purge takes."""
    fill(client, "groups", 1, size, 1, ITEM, FAR)
    many = most("buffer/pop_longest", "count")
    evicted = itertools.count(1, many)

    def gone() -> Command:
        first = next(evicted)
        fill(client, "evicted", first, first + many - 1, 5, FAR)
        return call("buffer/pop_longest", count=many)

    def purge(limit: int) -> Command:
        for index, prefix in (("leases", "l"), ("delayed", "w"), ("dead", "d")):
            fill(client, "batches", 1, limit, 1, ITEM, index, prefix, FAR, 1)
        return call("buffer/purge", limit=limit)

    longest = most("buffer/longest", "count")
    yield Hold("buffer/longest", f"{longest:,} groups", partial(call, "buffer/longest", count=longest))
    for limit in (buffer_ops._STATS_PAGE, most("buffer/stats", "limit")):
        stats = partial(call, "buffer/stats", start=max(0, size - limit), limit=limit)
        yield Hold("buffer/stats", f"{limit:,} groups", stats, python=limit == buffer_ops._STATS_PAGE)
    for phase in ("keys", "groups"):
        yield from audits(client, "buffer", phase, f"{phase}, all sound", buffer_ops._AUDIT_PAGE)
    yield Hold("buffer/pop_longest", f"{many:,} groups, 1 item each", partial(call, "buffer/pop_longest", count=many))
    yield Hold("buffer/pop_longest", f"{many:,} groups, all evicted", gone)
    for limit in (buffer_ops._PURGE_STEP, most("buffer/purge", "limit")):
        called = f"{limit:,} groups and batches of each kind"
        yield Hold("buffer/purge", called, partial(purge, limit), python=limit == buffer_ops._PURGE_STEP)


def broken_buffer(client: redis.Redis, size: int) -> Iterator[Hold]:
    """Hold a million groups, none of them counted."""
    fill(client, "groups", 1, size, 1, ITEM, FAR)
    client.unlink(key("groups"), key("since"))
    yield from audits(client, "buffer", "keys", "keys, all mended", buffer_ops._AUDIT_PAGE, "repair")


OWNER = "o" + "0" * 31


def ready_members(client: redis.Redis, size: int) -> Iterator[Hold]:
    """Hold a million members that are ready, each with a row, because each was delayed once."""
    client.hset(key("meta"), mapping={"order": "fifo", "sequence": 3 * size})
    fill(client, "members", 1, size, "ready", 0, "1 1 - - ")
    rates = (10**9, 60_000, 10**9, 3_600_000, 10**9, 1_000)
    numbers = itertools.count(2 * size, 100)

    def due(row: str) -> None:
        first = next(numbers)
        fill(client, "members", first, first + 99, "later", -3 * size, row)
        fill(client, "grants", 1, 100, 1)

    def pop() -> Command:
        due(f"1 1 1 1 {OWNER}")
        return call("priority/pop", count=1000)

    def reserve() -> Command:
        due(f"1 1 1 1 {OWNER}")
        return call("priority/reserve", rates, size=1000)

    def reserve_dying() -> Command:
        due(f"1 5 - - {OWNER}")
        return call("priority/reserve", rates, size=1000, max_attempts=5)

    def again() -> Command:
        command = call("priority/reserve", rates, size=1000)
        ask(client, *command)
        return command

    def pushes(first: int | None, **values: Any) -> Command:
        start = first or next(numbers) * 10 + 10**9
        pairs = itertools.chain(*((-5, member_name(i)) for i in range(start, start + 1000)))
        return call("priority/push", list(pairs), **values)

    yield Hold("priority/peek", "1,000 members", partial(call, "priority/peek", count=1000))
    yield Hold("priority/reserve", "1,000 members, sent again", again)
    yield Hold("priority/pop", "1,000 members, 100 due ones noted", pop)
    yield Hold("priority/reserve", "1,000 members, 100 due ones noted, 3 rates, 100 expired grants", reserve)
    yield Hold("priority/reserve", "1,000 members, 100 due ones buried, 3 rates, 100 expired grants", reserve_dying)
    yield Hold("priority/push", "1,000 new members", lambda: pushes(None))
    yield Hold("priority/push", "1,000 new members, delayed", lambda: pushes(None, delay=10**9))
    ranges = itertools.count(size // 2, 1000)
    yield Hold("priority/push", "1,000 members, all raised", lambda: pushes(next(ranges)))


def parked_members(client: redis.Redis, size: int) -> Iterator[Hold]:
    """Hold a million members: half leased, and pushed again since, half dead."""
    half = size // 2
    client.hset(key("meta"), mapping={"order": "fifo", "sequence": size})
    fill(client, "members", 1, half, "later", FAR, f"100 1 50 1 {OWNER}")
    fill(client, "members", half + 1, size, "later", "+inf", "100 3 - - ")
    leased, dead = itertools.count(1, 1000), itertools.count(half + 1, 1000)

    def take(numbers: Iterator[int]) -> list[str]:
        first = next(numbers)
        return [member_name(i) for i in range(first, first + 1000)]

    def lease() -> list[str]:
        members = take(leased)
        client.delete(key(f"lease:{OWNER}"))
        client.rpush(key(f"lease:{OWNER}"), "held", *members)
        return members

    def push(members: list[str], **values: Any) -> Command:
        return call("priority/push", list(itertools.chain(*((-5, member) for member in members))), **values)

    def delayed(row: str) -> list[str]:
        first = next(leased)
        fill(client, "members", first, first + 999, "later", FAR, row)
        return [member_name(i) for i in range(first, first + 1000)]

    def release(row: str, **values: Any) -> Command:
        members = delayed(row)
        client.delete(key(f"lease:{OWNER}"))
        client.rpush(key(f"lease:{OWNER}"), "held", *members)
        return call("priority/release", members, id=OWNER, **values)

    dying = partial(release, f"100 5 - - {OWNER}", max_attempts=5)
    yield Hold("priority/ack", "1,000 members, all noted", lambda: call("priority/ack", lease(), id=OWNER))
    yield Hold("priority/release", "1,000 members, all noted", partial(release, f"100 1 50 1 {OWNER}"))
    yield Hold(
        "priority/release",
        "1,000 members, all noted, not counted",
        partial(release, f"100 1 50 1 {OWNER}", attempt="forget"),
    )
    yield Hold("priority/release", "1,000 members, all buried", dying)
    yield Hold("priority/extend", "1,000 members", lambda: call("priority/extend", lease(), id=OWNER, lease=10**11))
    yield Hold("priority/push", "1,000 members, all leased", lambda: push(lease()))
    yield Hold("priority/push", "1,000 members, all delayed", lambda: push(delayed("100 1 - - ")))
    yield Hold("priority/push", "1,000 members, all dead", lambda: push(take(dead)))
    yield Hold("priority/push", "1,000 members, all dead, delayed", lambda: push(take(dead), delay=10**9))
    yield Hold("priority/remove", "1,000 members", lambda: call("priority/remove", take(leased)))
    yield Hold("priority/dead", "1,000 members", partial(call, "priority/dead", limit=1000))
    yield Hold("priority/redrive", "1,000 members", lambda: call("priority/redrive", take(dead)))
    yield Hold("priority/discard", "1,000 members", lambda: call("priority/discard", take(dead)))
    yield Hold("priority/state", "1 member", partial(call, "priority/state", member=member_name(half)))
    for limit in (priority_ops._STATS_PAGE, most("priority/stats", "limit")):
        stats = partial(call, "priority/stats", limit=limit)
        yield Hold("priority/stats", f"{limit:,} members", stats, python=limit == priority_ops._STATS_PAGE)


def broken_priority(client: redis.Redis, size: int) -> Iterator[Hold]:
    """Hold members that are ready and leased at once, rows whose members are nowhere, and rows that say nothing."""
    half = size // 2

    mend = partial(audits, client, "priority", page=priority_ops._AUDIT_PAGE, repair="repair")
    client.hset(key("meta"), mapping={"order": "fifo", "sequence": 10 * size})
    fill(client, "members", 1, half, "later", FAR, f"100 1 50 1 {OWNER}")
    fill(client, "members", 1, half, "ready", 0, "")
    yield from mend("ready", "members, all ready and leased, mended")
    client.unlink(key("ready"), key("later"))
    yield from mend("rows", "rows, all stranded, mended")
    client.unlink(key("ready"), key("later"), key("rows"))
    fill(client, "members", 1, half, "later", FAR, "nothing")
    yield from mend("later", "members, no row can be read, mended")
    fill(client, "once", 1, size, TOKEN)
    yield from mend("keys", "keys")


def limiter(client: redis.Redis, size: int) -> Iterator[Hold]:
    """Hold a million grants, of which 100 leave the span at each call."""
    fill(client, "grants", 1, size, FAR)

    def acquire() -> Command:
        fill(client, "grants", 1, 100, 1)
        return call("limit/acquire", (10**9, 60_000, 10**9, 3_600_000, 10**9, 1_000), cost=1000)

    yield Hold("limit/acquire", "3 rates, 100 expired grants", acquire)


WORLDS = (
    one_group,
    purge_group,
    purge_members,
    letters,
    many_groups,
    broken_buffer,
    ready_members,
    parked_members,
    broken_priority,
    limiter,
)


def holds(size: int, samples: int, by_hand: bool) -> dict[str, Any]:
    """Measure each script's largest calls, of so many items; `by_hand`: with pages that no Python asks for."""
    rows = []
    with contextlib.ExitStack() as stack:
        client = ready_server(stack.enter_context(private_server()), stack)
        loop = ("EVAL", "for i = 1, 10000 do redis.call('GET', KEYS[1]) end", 1, key("layout"))
        scale = min(timed(client, [loop], "eval") for _ in range(20))
        for world in WORLDS:
            say(f"holds: {world.__name__}")
            client.flushall()
            rows += [held(client, hold, samples) for hold in world(client, size) if hold.python or by_hand]
    return {"items": size, "samples": samples, "ms_of_10000_gets": significant(scale / 1000), "rows": rows}
