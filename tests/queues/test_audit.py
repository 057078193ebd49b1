"""Keys broken by hand in every way: audit reports the damage, repair mends it, and no item is lost.

Each case starts from a queue with something in every state, breaks it, and lists what audit must find: kind and name.
The items that exist are read from the keys themselves, after the damage; after the repair all of them must come out of
the queue.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from redisq import TEXT, Buffer, Finding, PriorityQueue, Pushed, State
from redisq.core.batch import batch_of
from redisq.core.priority import PLACES
from tests.scripts import keyspace
from tests.scripts.backends import reserve_at
from tests.scripts.walk import BufferWalk, PriorityWalk

LATE = 4_000_000_000_000  # by then every lease has expired, and every delay is over
UNREPAIRED = {"type", "unknown", "header"}  # kinds that repair does not change
Break = Callable[[redis.Redis], object]
Found = set[tuple[str, str]]


def cases(structure: str, table: dict[str, tuple[Break, Found]]) -> list[Any]:
    """List the names of a table's cases as test parameters."""
    return [pytest.param(name, id=f"{structure}: {name}") for name in table]


def key(name: str) -> str:
    """Return a key of the queue under test."""
    return f"redisq:{{q}}:{name}"


def names(findings: list[Finding]) -> Found:
    """Reduce findings to kinds and names."""
    return {(finding.kind, finding.name) for finding in findings}


def keys_of_type(client: redis.Redis, pattern: str, kind: bytes) -> list[str]:
    """List the queue's keys of one type, without its prefix."""
    found: Any = client.keys(key(pattern).replace("{", "\\{"))
    return [name.decode().removeprefix(key("")) for name in found if client.type(name) == kind]


def check_invariants(client: redis.Redis, structure: str) -> None:
    """Assert from the keys alone the invariants of the model."""
    found, _ = keyspace.read(client, key("").encode(), 0)
    walk: Any = BufferWalk if structure == "buffer" else PriorityWalk
    walk.check_on_server(SimpleNamespace(strict=False, owed=set()), found)


def is_empty(client: redis.Redis) -> bool:
    """Return whether every key has a TTL."""
    found: Any = client.keys()
    return all(client.pttl(name) >= 0 for name in found)


def in_future(name: str, member: str, seconds: float) -> Break:
    """Set a time in the future of the server's clock."""

    def set_it(client: redis.Redis) -> object:
        now: Any = client.time()
        return client.zadd(key(name), {member: (now[0] + seconds) * 1000})

    return set_it


def then(*steps: Break) -> Break:
    """Apply one damage after the other."""
    return lambda client: [step(client) for step in steps]


def delete(*names: str) -> Break:
    """Delete whole keys."""
    return lambda client: client.delete(*map(key, names))


def replace(name: str) -> Break:
    """Replace a key by one of another type."""
    return then(delete(name), lambda client: client.sadd(key(name), "mine"))


def zadd(name: str, member: str, score: float) -> Break:
    """Set a score."""
    return lambda client: client.zadd(key(name), {member: score})


def zrem(name: str, member: str) -> Break:
    """Delete an entry."""
    return lambda client: client.zrem(key(name), member)


def rpush(name: str, *items: str) -> Break:
    """Append to a list."""
    return lambda client: client.rpush(key(name), *items)


def hset(name: str, member: str, value: str) -> Break:
    """Set a field."""
    return lambda client: client.hset(key(name), member, value)


def sadd(name: str, *members: str) -> Break:
    """Add to a set."""
    return lambda client: client.sadd(key(name), *members)


def srem(name: str, *members: str) -> Break:
    """Remove from a set."""
    return lambda client: client.srem(key(name), *members)


def hdel(name: str, member: str) -> Break:
    """Delete a field."""
    return lambda client: client.hdel(key(name), member)


# -- the buffer ------------------------------------------------------------------------------------------------------

BUFFER: dict[str, tuple[Break, Found]] = {
    "nothing is broken": (then(), set()),
    "a counter is missing": (zrem("groups", "g"), {("length", "g")}),
    "a counter is too high": (zadd("groups", "g", 9), {("length", "g")}),
    "a counter is too low": (zadd("groups", "g", 1), {("length", "g")}),
    "a counter is zero": (zadd("groups", "g", 0), {("length", "g")}),
    "a counter is below zero": (zadd("groups", "g", -3), {("length", "g")}),
    "a counter is a fraction": (zadd("groups", "g", 2.5), {("length", "g")}),
    "a counter is infinite": (zadd("groups", "g", float("inf")), {("length", "g")}),
    "a counter of a group without a list": (zadd("groups", "ghost", 4), {("length", "ghost")}),
    "a counter of a busy group": (zadd("groups", "b", 2), {("length", "b")}),
    "a counter of a paused group": (zadd("groups", "p", 1), {("length", "p")}),
    "all counters are missing": (delete("groups"), {("length", "g"), ("length", "h")}),
    "a waiting time is missing": (zrem("since", "g"), {("since", "g")}),
    "a waiting time of a group without a list": (zadd("since", "ghost", 5), {("since", "ghost")}),
    "a waiting time of a busy group": (zadd("since", "b", 2), {("since", "b")}),
    "a waiting time of a paused group": (zadd("since", "p", 1), {("since", "p")}),
    "all waiting times are missing": (delete("since"), {("since", "g"), ("since", "h")}),
    "a group's list is missing": (delete("items:g"), {("length", "g"), ("since", "g")}),
    "a busy group's list is missing": (delete("items:b"), set()),
    "another client appended to a list": (rpush("items:g", "grown"), {("length", "g")}),
    "an unknown list": (rpush("items:new", "found"), {("length", "new"), ("since", "new")}),
    "a group and its entries are missing": (then(delete("items:g"), zrem("groups", "g"), zrem("since", "g")), set()),
    "a busy group is eligible": (
        then(zadd("groups", "b", 2), zadd("since", "b", 5)),
        {("length", "b"), ("since", "b")},
    ),
    "an eligible group is busy": (hset("busy", "g", "leased"), {("length", "g"), ("since", "g")}),
    "a pause is missing": (delete("paused_groups"), {("length", "p"), ("since", "p")}),
    "a pause has ended": (zadd("paused_groups", "p", 5), set()),
    "a pause of a group without a list has ended": (zadd("paused_groups", "ghost", 5), set()),
    "a paused group is eligible": (
        then(zadd("groups", "p", 1), zadd("since", "p", 5)),
        {("length", "p"), ("since", "p")},
    ),
    "an eligible group is paused": (zadd("paused_groups", "g", 5), {("length", "g"), ("since", "g")}),
    "a busy group lost its mark": (hdel("busy", "b"), {("length", "b"), ("since", "b")}),
    "all busy and paused groups lost their marks": (
        delete("busy", "paused_groups"),
        {("length", "b"), ("since", "b"), ("length", "p"), ("since", "p")},
    ),
    "a group is busy with an unknown batch": (
        hset("busy", "g", "nothing"),
        {("busy", "g"), ("length", "g"), ("since", "g")},
    ),
    "a group is busy with a dead batch": (
        hset("busy", "g", "dead"),
        {("busy", "g"), ("length", "g"), ("since", "g")},
    ),
    "a group is busy with an earlier lease": (hset("busy", "b", "before"), {("busy", "b")}),
    "a group is busy with the batch of another group": (
        hset("busy", "h", "leased"),
        {("busy", "h"), ("length", "h"), ("since", "h")},
    ),
    "the batch of a busy group is dead": (then(zrem("leases", "busy"), zadd("dead", "busy", 5)), {("busy", "b")}),
    "the batch of a busy group is leased and dead": (zadd("dead", "busy", 5), {("batch", "busy")}),
    "a group without items is busy with an unknown batch": (hset("busy", "ghost", "nothing"), {("busy", "ghost")}),
    "a paused group is busy with an unknown batch": (hset("busy", "p", "nothing"), {("busy", "p")}),
    "the batch of a busy group is missing": (delete("batch:busy"), {("batch", "busy")}),
    "the lease of a busy group is missing": (zrem("leases", "busy"), {("batch", "busy"), ("busy", "b")}),
    "a lease is missing": (zrem("leases", "leased"), {("batch", "leased")}),
    "a due time is missing": (zrem("delayed", "delayed"), {("batch", "delayed")}),
    "a burial time is missing": (zrem("dead", "dead"), {("batch", "dead")}),
    "all due times are missing": (delete("delayed"), {("batch", "delayed")}),
    "all burial times are missing": (delete("dead"), {("batch", "dead")}),
    "a leased batch is missing": (delete("batch:leased"), {("batch", "leased")}),
    "a delayed batch is missing": (delete("batch:delayed"), {("batch", "delayed")}),
    "a dead batch is missing": (delete("batch:dead"), {("batch", "dead")}),
    "an unknown batch": (rpush("batch:new", "g", "1", "h", "", "found"), {("batch", "new")}),
    "leased and delayed": (zadd("delayed", "leased", 5), {("batch", "leased")}),
    "leased and dead": (zadd("dead", "leased", 5), {("batch", "leased")}),
    "delayed and dead": (zadd("dead", "delayed", 5), {("batch", "delayed")}),
    "in all three": (then(zadd("delayed", "dead", 5), zadd("leases", "dead", 5)), {("batch", "dead")}),
    "a lease without a batch": (zadd("leases", "ghost", 5), {("batch", "ghost")}),
    "a due time without a batch": (zadd("delayed", "ghost", 5), {("batch", "ghost")}),
    "a burial time without a batch": (zadd("dead", "ghost", 5), {("batch", "ghost")}),
    "an unknown batch in two indexes": (
        then(zadd("dead", "ghost", 5), zadd("leases", "ghost", 5)),
        {("batch", "ghost")},
    ),
    "attempts are not a number": (lambda c: c.lset(key("batch:delayed"), 1, "many"), {("header", "delayed")}),
    "attempts are below zero": (lambda c: c.lset(key("batch:leased"), 1, "-1"), {("header", "leased")}),
    "dead with attempts that are not a number": (lambda c: c.lset(key("batch:dead"), 1, ""), {("header", "dead")}),
    "no attempts": (
        then(rpush("batch:new", "g", "h", "why", "item", "item"), zadd("delayed", "new", 5)),
        {("header", "new")},
    ),
    "a group alone": (then(rpush("batch:new", "g"), zadd("leases", "new", 5)), {("header", "new")}),
    "no items": (then(rpush("batch:new", "g", "1", "h", ""), zadd("leases", "new", 5)), {("header", "new")}),
    "an unknown batch with an incomplete header": (
        rpush("batch:new", "g", "item"),
        {("batch", "new"), ("header", "new")},
    ),
    "a deadline far in the future": (in_future("leases", "leased", 8000), {("far", "leased")}),
    "a due time beyond the longest delay": (in_future("delayed", "delayed", 10**9), {("far", "delayed")}),
    "a due time far in the future": (in_future("delayed", "delayed", 90_000_000), set()),
    **{
        f"{name} of another type": (replace(name), {("type", name)})
        for name in ("meta", "groups", "since", "leases", "delayed", "dead", "busy", "paused_groups")
    },
    "wake of another type": (replace("wake"), {("type", "wake")}),
    "grants of another type": (replace("grants"), {("type", "grants")}),
    "paused of another type": (replace("paused"), {("type", "paused")}),
    "once of another type": (replace("once:x"), {("type", "once:x")}),
    "ended of another type": (replace("ended:x"), {("type", "ended:x")}),
    "items of another type": (replace("items:g"), {("type", "items:g")}),
    "items of an unknown group of another type": (replace("items:ghost"), {("type", "items:ghost")}),
    "a batch of another type": (replace("batch:leased"), {("type", "batch:leased")}),
    "two of another type": (then(replace("groups"), replace("dead")), {("type", "groups"), ("type", "dead")}),
    "an unknown key": (rpush("oops", "mine"), {("unknown", "oops")}),
    "an unknown key with a colon": (rpush("oops:g", "mine"), {("unknown", "oops:g")}),
    "much at once": (
        then(
            zadd("groups", "g", 9),
            rpush("items:new", "found"),
            zrem("leases", "leased"),
            zadd("delayed", "dead", 5),
            rpush("batch:new", "g", "1", "", "", "found too"),
            hset("busy", "h", "nothing"),
            rpush("oops", "mine"),
        ),
        {
            ("length", "g"),
            ("length", "new"),
            ("since", "new"),
            ("batch", "leased"),
            ("batch", "dead"),
            ("batch", "new"),
            ("busy", "h"),
            ("length", "h"),
            ("since", "h"),
            ("unknown", "oops"),
        },
    ),
}


def stocked_buffer(client: redis.Redis) -> Buffer[str]:
    """Return a buffer with waiting groups g and h, a busy b and a paused p, and batches named after their states."""
    buffer = Buffer[str](client, "q", codec=TEXT)
    for name, group in (("dead", "g"), ("leased", "g"), ("delayed", "k")):
        buffer.push(f"{name} 1", f"{name} 2", group=group)
        assert buffer.reserve(lease_id=name)
    assert buffer.bury(*held(buffer, "dead"), reason="poison") == 2
    assert buffer.release(*held(buffer, "delayed"), delay=1000) == 2
    buffer.push("b 1", "b 2", "b 3", group="b")
    assert Buffer[str](client, "q", codec=TEXT, ordered=True).reserve(1, lease_id="busy")
    buffer.push("p 1", group="p")
    client.zadd(key("paused_groups"), {"p": float("inf")})
    client.zrem(key("groups"), "p")
    client.zrem(key("since"), "p")
    buffer.push("g 1", "g 2", "g 3", group="g")
    buffer.push("h 1", group="h")
    stats = buffer.stats()
    assert (stats.waiting, stats.leased, stats.delayed, stats.dead) == (7, 2, 1, 1)
    assert (stats.groups, stats.busy_groups, stats.paused_groups) == (2, 1, 1)
    return buffer


def held(buffer: Buffer[str], name: str) -> list[Any]:
    """Return the batch with this lease id, by reserving with it again."""
    batch = buffer.reserve(lease_id=name)
    return [batch] if batch else []


def items(client: redis.Redis) -> Counter[str]:
    """Count the items that exist, in the lists of all groups and batches."""
    found: Counter[str] = Counter()
    for header, pattern in ((0, "items:*"), (4, "batch:*")):
        for name in keys_of_type(client, pattern, b"list"):
            listed: Any = client.lrange(key(name), header, -1)
            found.update(item.decode() for item in listed)
    return found


def drain_buffer(client: redis.Redis, buffer: Buffer[str]) -> Counter[str]:
    """Redrive, reserve and ack until nothing is left."""
    buffer.redrive(*(batch.id for batch in buffer.dead()))
    client.zadd(key("paused_groups"), {"p": 5})  # ends the pause of the group, if it has one
    out: Counter[str] = Counter()
    while batch := batch_of(reserve_at(client, LATE, buffer.calls.reserve)):
        out.update(batch.items)
        assert buffer.ack(batch) == len(batch.items)
    return out


@pytest.mark.parametrize("case", cases("buffer", BUFFER))
def test_a_damaged_buffer_is_reported_and_repaired_without_losing_items(client: redis.Redis, case: str) -> None:
    buffer = stocked_buffer(client)
    assert buffer.audit().ok
    break_it, expected = BUFFER[case]
    break_it(client)
    before = items(client)

    audit = buffer.audit()
    assert names(audit.findings) == expected
    assert not audit.repaired
    assert names(buffer.audit().findings) == expected  # an audit without repair changes nothing
    repaired = buffer.audit(repair=True)
    assert repaired.repaired
    assert bool(repaired.findings) == bool(expected)  # one repair can include another, or reveal more damage
    assert names(buffer.audit().findings) == {one for one in expected if one[0] in UNREPAIRED}
    assert items(client) == before

    for kind, name in expected:
        if kind in ("type", "unknown"):  # repair leaves such a key alone; once it is removed, what it hid is found
            if kind == "type":
                assert client.smembers(key(name)) == {b"mine"}
            client.delete(key(name))
        elif kind == "header":  # no script can know what that list is
            client.delete(key(f"batch:{name}"))
            for index in ("leases", "delayed", "dead"):
                client.zrem(key(index), name)
    before = items(client)
    buffer.audit(repair=True)
    check_invariants(client, "buffer")
    assert items(client) == before
    assert drain_buffer(client, buffer) == before
    assert buffer.audit().ok
    check_invariants(client, "buffer")
    assert not items(client)
    assert is_empty(client)


def test_a_batch_with_an_incomplete_header_is_not_overwritten(client: redis.Redis) -> None:
    """An item is in the place of the attempts: it is reported, left alone, and a reserve does not lose it."""
    buffer = Buffer[str](client, "q", codec=TEXT)
    then(rpush("batch:new", "g", "item 1", "item 2", "item 3", "item 4"), zadd("delayed", "new", 5))(client)
    assert names(buffer.audit(repair=True).findings) == {("header", "new")}
    assert b"item 1" in client.lrange(key("batch:new"), 0, -1)


def test_a_repaired_buffer_keeps_the_state_of_each_batch(client: redis.Redis) -> None:
    """A batch in two indexes keeps its lease, an orphan is due at once, a repaired group gets its true length."""
    buffer = stocked_buffer(client)
    (batch,) = held(buffer, "leased")
    then(zadd("delayed", "leased", 5), zadd("dead", "leased", 5), zadd("groups", "h", 50))(client)
    then(rpush("batch:orphan", "k", "3", "h", "why", "found"), zadd("delayed", "dead", 5))(client)
    buffer.audit(repair=True)
    assert buffer.groups() == {"g": 3, "h": 1}
    assert batch.ack() == 2
    first, second = buffer.reserve(), buffer.reserve()
    assert first
    assert second
    assert {(one.group, one.attempts, one.reason, *one.items) for one in (first, second)} == {
        ("k", 4, "why", "found"),
        ("g", 2, "poison", "dead 1", "dead 2"),  # delayed comes before dead
    }


@pytest.mark.parametrize("structure", ["buffer", "queue"])
def test_an_unexplained_deadline_is_set_to_the_horizon(client: redis.Redis, structure: str) -> None:
    """Twice the queue's lease and at least an hour, or what the caller says; of a delay, the longest allowed."""
    queue: Any = stocked_buffer(client) if structure == "buffer" else stocked_queue(client)
    in_future("leases", "leased", 100_000_000)(client)
    before = queue.stats().next_expiry
    assert queue.audit(max_lease=99_999_999).findings[0].kind == "far"
    (finding,) = queue.audit(repair=True, max_lease=50_000).findings
    assert (finding.kind, finding.name) == ("far", "leased")
    latest = queue.leased()[-1]
    assert latest.id == "leased"
    now: Any = client.time()
    assert 49_000 < latest.deadline - now[0] < 50_001
    assert queue.stats().next_expiry == before
    assert queue.audit(max_lease=50_001).ok
    assert names(queue.audit(repair=True).findings) == {("far", "leased")}  # an hour
    long: Any = type(queue)(client, "q", lease=30_000)
    in_future("leases", "leased", 59_000)(client)
    assert long.audit().ok
    in_future("leases", "leased", 61_000)(client)
    assert names(long.audit().findings) == {("far", "leased")}


# -- the priority queue ----------------------------------------------------------------------------------------------

UNREADABLE = ("garbage", "", "x 0 ", "1 many ", "1 0", "nan", "1  why")

PRIORITY: dict[str, tuple[Break, Found]] = {
    "nothing is broken": (then(), set()),
    "a ready member is missing": (zrem("ready", "a"), set()),
    "a ready member with a row is missing": (zrem("ready", "back"), {("stray", "back")}),
    "a ready member with a payload is missing": (zrem("ready", "b"), {("stray", "b")}),
    "all ready members are missing": (delete("ready"), {("stray", "back"), ("stray", "b")}),
    "a ready member beyond the sequence": (zadd("ready", "new", 1024 * PLACES + 500), {("sequence", "meta")}),
    "a due time is missing": (zrem("delayed", "delayed"), {("stray", "delayed")}),
    "a burial time is missing": (zrem("dead", "dead"), {("stray", "dead")}),
    "a due time of an unknown member": (zadd("delayed", "ghost", 5), {("row", "ghost")}),
    "a burial time of an unknown member": (zadd("dead", "ghost", 5), {("row", "ghost")}),
    "a deadline is missing": (
        zrem("leases", "leased"),
        {("lease", "leased"), ("held", "leased"), ("held", "leased 2")},
    ),
    "all deadlines are missing": (
        delete("leases"),
        {("lease", "leased"), ("lease", "noted")}
        | {("held", name) for name in ("leased", "leased 2", "noted", "removed")},
    ),
    "a deadline of an unknown lease": (zadd("leases", "ghost", 5), {("lease", "ghost")}),
    "a lease's list is missing": (
        delete("lease:leased"),
        {("lease", "leased"), ("held", "leased"), ("held", "leased 2")},
    ),
    "a lease is missing": (
        then(delete("lease:leased"), zrem("leases", "leased")),
        {("held", "leased"), ("held", "leased 2")},
    ),
    "the lease of a member that was pushed again is missing": (
        then(delete("lease:noted"), zrem("leases", "noted")),
        {("held", "noted"), ("held", "removed")},
    ),
    "an unknown lease": (rpush("lease:new", "holder", "a", "1"), {("lease", "new")}),
    "held without a lease": (sadd("held", "ghost"), {("held", "ghost")}),
    "leased and not held": (srem("held", "leased"), {("held", "leased")}),
    "pushed again and not held": (srem("held", "noted"), {("held", "noted"), ("stray", "noted")}),
    "no member is held": (
        delete("held"),
        {("held", name) for name in ("leased", "leased 2", "noted", "removed")}
        | {("stray", "noted"), ("stray", "removed"), ("stray", "leased 2")},
    ),
    "all rows are missing": (delete("rows"), {("row", "delayed"), ("row", "dead")}),
    **{
        f"the row of {member} is missing": (hdel("rows", member), {("row", member)} if row else set())
        for member, row in (("delayed", True), ("dead", True), ("back", False), ("leased 2", False))
    },
    **{
        f"the row of {member} is {row!r}": (hset("rows", member, row), {("row", member)})
        for member in ("delayed", "dead", "back", "leased 2")
        for row in UNREADABLE
    },
    "a row of an unknown member": (hset("rows", "ghost", "5 1 "), {("stray", "ghost")}),
    **{f"a row {row!r} of an unknown member": (hset("rows", "ghost", row), {("stray", "ghost")}) for row in UNREADABLE},
    "a payload of an unknown member": (hset("payloads", "ghost", "x"), {("stray", "ghost")}),
    "a note of an unknown member": (hset("again", "ghost", "5 0 min"), {("stray", "ghost")}),
    "a note of a ready member": (hset("again", "a", "5 0 min"), {("stray", "a")}),
    "a removal of a delayed member": (hset("again", "delayed", "removed"), {("stray", "delayed")}),
    "ready and delayed": (zadd("ready", "delayed", 1), {("twice", "delayed")}),
    "ready and leased": (zadd("ready", "leased", 1), {("twice", "leased")}),
    "ready, and leased and pushed again": (zadd("ready", "noted", 1), {("twice", "noted")}),
    "ready and dead": (zadd("ready", "dead", 1), {("twice", "dead")}),
    "ready and due, with a row": (zadd("delayed", "back", 5), {("twice", "back")}),
    "ready and due, without a row": (zadd("delayed", "a", 5), {("twice", "a"), ("row", "a")}),
    "delayed and dead": (zadd("dead", "delayed", 5), {("twice", "delayed")}),
    "delayed and leased": (zadd("delayed", "leased 2", 5), {("twice", "leased 2")}),
    "dead and leased": (zadd("dead", "leased 2", 5), {("twice", "leased 2")}),
    "in every state": (
        then(zadd("ready", "leased 2", 1), zadd("delayed", "leased 2", 5), zadd("dead", "leased 2", 5)),
        {("twice", "leased 2")},
    ),
    "ready, and leased but not held": (then(srem("held", "leased"), zadd("ready", "leased", 1)), {("held", "leased")}),
    "ready and due, with an unreadable row": (
        then(zadd("ready", "delayed", 1), hset("rows", "delayed", "garbage")),
        {("twice", "delayed"), ("row", "delayed")},
    ),
    "the sequence is behind": (hset("meta", "sequence", "1"), {("sequence", "meta")}),
    "the sequence is missing": (hdel("meta", "sequence"), {("sequence", "meta")}),
    "the sequence is not a number": (hset("meta", "sequence", "x"), {("sequence", "meta")}),
    "a deadline far in the future": (in_future("leases", "leased", 8000), {("far", "leased")}),
    "a due time beyond the longest delay": (in_future("delayed", "delayed", 10**9), {("far", "delayed")}),
    "a due time far in the future": (in_future("delayed", "delayed", 90_000_000), set()),
    **{
        f"{name} of another type": (replace(name), {("type", name)})
        for name in ("ready", "leases", "held", "delayed", "dead", "again", "rows", "payloads", "meta")
        if name != "held"
    },
    "held of another type": (then(delete("held"), rpush("held", "mine")), {("type", "held")}),
    "two of another type": (then(replace("ready"), replace("meta")), {("type", "ready"), ("type", "meta")}),
    "wake of another type": (replace("wake"), {("type", "wake")}),
    "grants of another type": (replace("grants"), {("type", "grants")}),
    "paused of another type": (replace("paused"), {("type", "paused")}),
    "a lease of another type": (
        replace("lease:leased"),
        {("type", "lease:leased"), ("held", "leased"), ("held", "leased 2")},
    ),
    "once of another type": (replace("once:x"), {("type", "once:x")}),
    "ended of another type": (replace("ended:x"), {("type", "ended:x")}),
    "an unknown key": (rpush("oops", "mine"), {("unknown", "oops")}),
    "a key of layout 1": (zadd("later", "a", 5), {("unknown", "later")}),
    "much at once": (
        then(zadd("ready", "leased", 1), hdel("rows", "dead"), zadd("delayed", "ghost", 5), sadd("held", "spectre")),
        {("twice", "leased"), ("row", "dead"), ("row", "ghost"), ("held", "spectre")},
    ),
}


def stocked_queue(client: redis.Redis) -> PriorityQueue[str]:
    """Return a queue with the members a, b and back ready, and members named after their states.

    The member back has come back once and so has a row, and b has a payload. Two members are leased together, the
    second one with a row; of another lease one member was pushed and one removed meanwhile.
    """
    queue = PriorityQueue(client, "q")

    def push_and_release(name: str) -> None:
        queue.push(name, -9)
        batch = queue.reserve()
        assert batch
        assert batch.items == [name]
        batch.release(reason="once")

    push_and_release("leased 2")
    queue.push("leased", -9)
    batch = queue.reserve(2, lease_id="leased")
    assert batch
    assert batch.items == ["leased 2", "leased"]
    queue.push_many([("noted", 3), ("removed", 4)])
    assert queue.reserve(2, lease_id="noted")
    assert queue.push("noted", 5) is Pushed.ADDED
    assert queue.remove("removed") == 1
    queue.push("dead", 6)
    batch = queue.reserve()
    assert batch
    batch.bury("poison")
    push_and_release("back")
    queue.push("another", -10)
    batch = queue.reserve()  # promotes back
    assert batch
    assert batch.items == ["another"]
    batch.ack()
    queue.push_many([("a", 1), ("b", 2, {"n": 1})])
    queue.push("delayed", delay=1000)
    stats = queue.stats()
    assert (stats.waiting, stats.leased, stats.delayed, stats.dead, stats.batches) == (3, 4, 1, 1, 2)
    return queue


def held_in_queue(queue: PriorityQueue[str], name: str) -> list[Any]:
    """Return the batch with this lease id, by reserving with it again."""
    batch = queue.reserve(lease_id=name)
    return [batch] if batch else []


def members(client: redis.Redis) -> set[str]:
    """Return the members that exist, in a state or in a lease's list, without removed ones."""
    found: Any = set()
    for name in ("ready", "delayed", "dead"):
        if client.type(key(name)) == b"zset":
            found |= set(client.zrange(key(name), 0, -1))
    if client.type(key("held")) == b"set":
        found |= client.smembers(key("held"))
    for name in keys_of_type(client, "lease:*", b"list"):
        listed: Any = client.lrange(key(name), 1, -1)
        found |= set(listed[::2])
    if client.type(key("again")) == b"hash":
        notes: Any = client.hgetall(key("again"))
        found -= {name for name, note in notes.items() if note == b"removed" and name != b"delayed"}
    return {member.decode() for member in found}


def drain_queue(client: redis.Redis, queue: PriorityQueue[str]) -> set[str]:
    """Redrive, reserve and ack until nothing is left."""
    queue.redrive(*(item.member for item in queue.dead()))
    out: set[str] = set()
    while batch := batch_of(reserve_at(client, LATE, partial(queue.calls.reserve, 3))):
        out |= set(batch.items)
        assert queue.ack(batch) == len(batch.items)
    return out


@pytest.mark.parametrize("case", cases("queue", PRIORITY))
def test_a_damaged_queue_is_reported_and_repaired_without_losing_members(client: redis.Redis, case: str) -> None:
    queue = stocked_queue(client)
    assert queue.audit().ok
    break_it, expected = PRIORITY[case]
    break_it(client)
    before = members(client)

    audit = queue.audit()
    assert names(audit.findings) == expected
    assert not audit.repaired
    assert names(queue.audit().findings) == expected  # an audit without repair changes nothing
    repaired = queue.audit(repair=True)
    assert repaired.repaired
    assert bool(repaired.findings) == bool(expected)  # one repair can include another
    assert names(queue.audit().findings) == {one for one in expected if one[0] in UNREPAIRED}
    assert members(client) == before

    for kind, name in expected:
        if kind in ("type", "unknown"):  # repair leaves such a key alone; once it is removed, what it hid is found
            client.delete(key(name))
    queue.audit(repair=True)
    if ("type", "meta") in expected:  # only the owner can know which order it had
        client.hset(key("meta"), "queue", "2 fifo")
        queue.audit(repair=True)
    check_invariants(client, "priority")
    before = members(client)
    assert drain_queue(client, queue) == before
    assert queue.audit().ok
    assert not members(client)
    check_invariants(client, "priority")
    assert is_empty(client)


def test_a_repaired_queue_keeps_the_state_of_each_member(client: redis.Redis) -> None:
    """A member in two states keeps its lease; an orphan is ready, with what is known of it; places continue."""
    queue = stocked_queue(client)
    (batch,) = held_in_queue(queue, "leased")
    then(zadd("ready", "leased", 1), delete("lease:noted"), zadd("dead", "delayed", 5))(client)
    hset("meta", "sequence", "1")(client)
    assert not queue.audit(repair=True).ok
    assert queue.state("leased") is State.LEASED
    assert queue.state("noted") is State.READY
    assert queue.state("removed") is State.ABSENT
    assert queue.state("delayed") is State.DELAYED  # delayed comes before dead
    assert batch.ack() == 2
    queue.push("c", 5)
    assert [(item.member, item.priority) for item in queue.pop_many(9)] == [
        ("back", -9),
        ("a", 1),
        ("b", 2),
        ("noted", 5),
        ("c", 5),
    ]


def test_an_audit_of_a_queue_longer_than_a_page(client: redis.Redis) -> None:
    """More damaged groups, batches and members than fit into a page: each is reported once."""
    buffer = Buffer[int](client, "b")
    for i in range(600):
        buffer.push(i, group=str(i))
    for i, batch in enumerate(buffer.reserve_many(100)):
        assert batch.group
        client.zrem("redisq:{b}:leases", batch.id)
        client.zadd("redisq:{b}:groups", {str(i): 7})
    found = buffer.audit().findings
    assert Counter(finding.kind for finding in found) == {"length": 100, "batch": 100}
    assert len(found) == len(set(found)) == 200
    assert len(buffer.audit(repair=True).findings) == 200
    assert buffer.audit().ok

    client.hset("redisq:{b}:busy", mapping={str(i): "nothing" for i in range(1200)})
    found = buffer.audit(repair=True).findings
    assert Counter(finding.kind for finding in found) == {"busy": 1200}
    assert buffer.audit().ok
    assert client.exists("redisq:{b}:busy") == 0

    queue = PriorityQueue(client, "p")
    queue.push_many({str(i): 0 for i in range(1200)}, delay=1000)
    client.delete("redisq:{p}:rows")
    assert names(queue.audit().findings) == {("row", str(i)) for i in range(1200)}
    assert len(queue.audit(repair=True).findings) == 1200
    assert queue.audit().ok
    assert queue.stats().delayed == 1200


def test_the_audit_does_not_check_held_members_when_there_are_too_many_leases(client: redis.Redis) -> None:
    """That check reads all leases in one call, which must be short."""
    queue = PriorityQueue(client, "q")
    queue.push_many({str(i): 0 for i in range(201)})
    queue.reserve_many(200)
    client.sadd(key("held"), "ghost")
    assert names(queue.audit().findings) == {("held", "ghost")}
    queue.reserve_many(1)
    assert queue.audit().ok
