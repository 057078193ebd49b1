"""Keys broken by hand, each in every way: audit names what is wrong, repair mends it, and nothing that exists is lost.

Each case starts from a queue with something in every state, breaks it, and says what audit must find: kind and name.
What exists is read from the keys themselves, after the break; after the repair all of it must come out of the queue.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import redis

from redisq import TEXT, Buffer, Finding, PriorityQueue, Pushed, State
from redisq.ops import Op
from redisq.sync.runner import Runner

from .backends import at

LATE = 4_000_000_000_000  # by then every lease has run out, and every delay is over
LEFT = {"type", "unknown", "order", "header"}  # kinds that repair leaves as they are
Break = Callable[[redis.Redis], object]
Found = set[tuple[str, str]]


def cases(structure: str, table: dict[str, tuple[Break, Found]]) -> list[Any]:
    """List the names of a table's cases."""
    return [pytest.param(name, id=f"{structure}: {name}") for name in table]


def key(name: str) -> str:
    """Give a key of the queue under test."""
    return f"redisq:{{q}}:{name}"


def names(findings: list[Finding]) -> Found:
    """Reduce findings to kinds and names."""
    return {(finding.kind, finding.name) for finding in findings}


def every(client: redis.Redis, pattern: str, kind: bytes) -> list[str]:
    """List the queue's keys of one type, by what stands behind its prefix."""
    found: Any = client.keys(key(pattern).replace("{", "\\{"))
    return [name.decode().removeprefix(key("")) for name in found if client.type(name) == kind]


def then(*steps: Break) -> Break:
    """Break one thing after the other."""
    return lambda client: [step(client) for step in steps]


def delete(*names: str) -> Break:
    """Delete whole keys."""
    return lambda client: client.delete(*map(key, names))


def replace(name: str) -> Break:
    """Put a key of another type in a key's place."""
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


def hdel(name: str, member: str) -> Break:
    """Delete a field."""
    return lambda client: client.hdel(key(name), member)


# -- the buffer ------------------------------------------------------------------------------------------------------

BUFFER: dict[str, tuple[Break, Found]] = {
    "nothing is broken": (then(), set()),
    "a counter is gone": (zrem("groups", "g"), {("length", "g")}),
    "a counter is too high": (zadd("groups", "g", 9), {("length", "g")}),
    "a counter is too low": (zadd("groups", "g", 1), {("length", "g")}),
    "a counter is zero": (zadd("groups", "g", 0), {("length", "g")}),
    "a counter is below zero": (zadd("groups", "g", -3), {("length", "g")}),
    "a counter is a fraction": (zadd("groups", "g", 2.5), {("length", "g")}),
    "a counter is infinite": (zadd("groups", "g", float("inf")), {("length", "g")}),
    "a counter counts no list": (zadd("groups", "ghost", 4), {("length", "ghost")}),
    "all counters are gone": (delete("groups"), {("length", "g"), ("length", "h")}),
    "a time is gone": (zrem("since", "g"), {("since", "g")}),
    "a time is of no list": (zadd("since", "ghost", 5), {("since", "ghost")}),
    "all times are gone": (delete("since"), {("since", "g"), ("since", "h")}),
    "a group's list is gone": (delete("items:g"), {("length", "g"), ("since", "g")}),
    "a list grew behind the queue's back": (rpush("items:g", "grown"), {("length", "g")}),
    "a list nobody knows": (rpush("items:new", "found"), {("length", "new"), ("since", "new")}),
    "a group and its entries are gone": (then(delete("items:g"), zrem("groups", "g"), zrem("since", "g")), set()),
    "a lease is gone": (zrem("leases", "leased"), {("batch", "leased")}),
    "a due time is gone": (zrem("delayed", "delayed"), {("batch", "delayed")}),
    "a time of death is gone": (zrem("dead", "dead"), {("batch", "dead")}),
    "all leases are gone": (delete("leases"), {("batch", "leased")}),
    "all due times are gone": (delete("delayed"), {("batch", "delayed")}),
    "all times of death are gone": (delete("dead"), {("batch", "dead")}),
    "a leased batch is gone": (delete("batch:leased"), {("batch", "leased")}),
    "a delayed batch is gone": (delete("batch:delayed"), {("batch", "delayed")}),
    "a dead batch is gone": (delete("batch:dead"), {("batch", "dead")}),
    "a batch nobody knows": (rpush("batch:new", "g", "1", "found"), {("batch", "new")}),
    "leased and delayed": (zadd("delayed", "leased", 5), {("batch", "leased")}),
    "leased and dead": (zadd("dead", "leased", 5), {("batch", "leased")}),
    "delayed and dead": (zadd("dead", "delayed", 5), {("batch", "delayed")}),
    "in all three": (then(zadd("delayed", "dead", 5), zadd("leases", "dead", 5)), {("batch", "dead")}),
    "a lease of no batch": (zadd("leases", "ghost", 5), {("batch", "ghost")}),
    "a due time of no batch": (zadd("delayed", "ghost", 5), {("batch", "ghost")}),
    "a time of death of no batch": (zadd("dead", "ghost", 5), {("batch", "ghost")}),
    "no batch in two indexes": (then(zadd("dead", "ghost", 5), zadd("leases", "ghost", 5)), {("batch", "ghost")}),
    "attempts are no number": (lambda c: c.lset(key("batch:delayed"), 1, "many"), {("header", "delayed")}),
    "attempts are below zero": (lambda c: c.lset(key("batch:leased"), 1, "-1"), {("header", "leased")}),
    "dead with attempts that are no number": (lambda c: c.lset(key("batch:dead"), 1, ""), {("header", "dead")}),
    "no attempts": (then(rpush("batch:new", "g", "item"), zadd("delayed", "new", 5)), {("header", "new")}),
    "a group alone": (then(rpush("batch:new", "g"), zadd("leases", "new", 5)), {("header", "new")}),
    "a header nobody knows": (rpush("batch:new", "g", "item"), {("batch", "new"), ("header", "new")}),
    **{
        f"{name} of another type": (replace(name), {("type", name)})
        for name in ("groups", "since", "leases", "delayed", "dead")
    },
    "wake of another type": (replace("wake"), {("type", "wake")}),
    "grants of another type": (replace("grants"), {("type", "grants")}),
    "once of another type": (replace("once:x"), {("type", "once:x")}),
    "items of another type": (replace("items:g"), {("type", "items:g")}),
    "items of another type, of no group": (replace("items:ghost"), {("type", "items:ghost")}),
    "a batch of another type": (replace("batch:leased"), {("type", "batch:leased")}),
    "two of another type": (then(replace("groups"), replace("dead")), {("type", "groups"), ("type", "dead")}),
    "a key that no queue has": (rpush("oops", "mine"), {("unknown", "oops")}),
    "a key that no queue has, with a colon": (rpush("oops:g", "mine"), {("unknown", "oops:g")}),
    "much at once": (
        then(
            zadd("groups", "g", 9),
            rpush("items:new", "found"),
            zrem("leases", "leased"),
            zadd("delayed", "dead", 5),
            rpush("batch:new", "g", "1", "found too"),
            rpush("oops", "mine"),
        ),
        {
            ("length", "g"),
            ("length", "new"),
            ("since", "new"),
            ("batch", "leased"),
            ("batch", "dead"),
            ("batch", "new"),
            ("unknown", "oops"),
        },
    ),
}


def stocked_buffer(client: redis.Redis) -> Buffer[str]:
    """Give a buffer with waiting groups g and h, and with batches that are called by their state."""
    buffer = Buffer[str](client, "q", codec=TEXT, max_attempts=1)
    for name, group in (("dead", "g"), ("leased", "g"), ("delayed", "k")):
        buffer.push(f"{name} 1", f"{name} 2", group=group)
        assert buffer.reserve(lease_id=name)
        if name == "dead":
            assert buffer.release(*held(buffer, name)) == 2
            assert buffer.reserve() is None  # its one attempt is used up: buried
    assert buffer.release(*held(buffer, "delayed"), delay=1000) == 2
    buffer.push("g 1", "g 2", "g 3", group="g")
    buffer.push("h 1", group="h")
    stats = buffer.stats()
    assert (stats.waiting, stats.leased, stats.delayed, stats.dead) == (4, 1, 1, 1)
    return Buffer[str](client, "q", codec=TEXT)


def held(buffer: Buffer[str], name: str) -> list[Any]:
    """Give the batch that is held under a name, by asking for it again."""
    batch = buffer.reserve(lease_id=name)
    return [batch] if batch else []


def items(client: redis.Redis) -> Counter[str]:
    """Count the items that exist: those of every group's and every batch's list."""
    found: Counter[str] = Counter()
    for header, pattern in ((0, "items:*"), (2, "batch:*")):
        for name in every(client, pattern, b"list"):
            listed: Any = client.lrange(key(name), header, -1)
            found.update(item.decode() for item in listed)
    return found


def drain_buffer(client: redis.Redis, buffer: Buffer[str]) -> Counter[str]:
    """Redrive, reserve and ack until nothing is left."""
    buffer.redrive(*(batch.id for batch in buffer.dead()))
    out: Counter[str] = Counter()
    while batch := Runner(client).run(late(buffer.ops.reserve_once())).lease:
        out.update(batch.items)
        assert buffer.ack(batch) == len(batch.items)
    # What does not begin with a group and attempts is a dead letter that shows all it holds.
    for dead in buffer.dead():
        out.update(dead.items[2:])
        assert buffer.discard(dead.id) == 1
    return out


def late(op: Op[Any]) -> Op[Any]:
    """Return the call at a time when everything is due."""
    return at(op, LATE)


@pytest.mark.parametrize("case", cases("buffer", BUFFER))
def test_a_broken_buffer_is_named_and_mended_with_all_its_items(client: redis.Redis, case: str) -> None:
    buffer = stocked_buffer(client)
    assert buffer.audit().ok
    break_it, expected = BUFFER[case]
    break_it(client)
    before = items(client)

    audit = buffer.audit()
    assert names(audit.findings) == expected
    assert not audit.repaired
    assert names(buffer.audit().findings) == expected  # to look changes nothing
    repaired = buffer.audit(repair=True)
    assert names(repaired.findings) == expected
    assert repaired.repaired
    assert names(buffer.audit().findings) == {one for one in expected if one[0] in LEFT}
    assert items(client) == before

    for kind, name in expected:
        if kind == "type":  # what was put in a key's place is its owner's to move; what it hid is found then
            assert client.smembers(key(name)) == {b"mine"}
            client.delete(key(name))
    buffer.audit(repair=True)
    assert items(client) == before
    assert drain_buffer(client, buffer) == before
    assert {kind for kind, _ in names(buffer.audit().findings)} <= {"unknown"}
    assert not items(client)


def test_a_batch_without_attempts_keeps_its_items(client: redis.Redis) -> None:
    """Its first item stands where the attempts belong: it is named, left as it is, and not written over."""
    buffer = Buffer[str](client, "q", codec=TEXT)
    then(rpush("batch:new", "g", "item 1", "item 2"), zadd("delayed", "new", 5))(client)
    assert names(buffer.audit(repair=True).findings) == {("header", "new")}
    buffer.reserve()
    (name,) = every(client, "batch:*", b"list")
    assert b"item 1" in client.lrange(key(name), 0, -1)


def test_a_repaired_buffer_keeps_what_each_batch_was(client: redis.Redis) -> None:
    """A batch in two indexes keeps its lease, an orphan is due at once, a mended group gets its true length."""
    buffer = stocked_buffer(client)
    (batch,) = held(buffer, "leased")
    then(zadd("delayed", "leased", 5), zadd("dead", "leased", 5), zadd("groups", "h", 50))(client)
    then(rpush("batch:orphan", "k", "3", "found"), zadd("delayed", "dead", 5))(client)
    buffer.audit(repair=True)
    assert buffer.longest_groups() == {"g": 3, "h": 1}
    assert batch.ack() == 2
    first, second = buffer.reserve(), buffer.reserve()
    assert first
    assert second
    assert {(one.group, one.attempts, *one.items) for one in (first, second)} == {
        ("k", 4, "found"),
        ("g", 2, "dead 1", "dead 2"),  # delayed comes before dead
    }


# -- the priority queue ----------------------------------------------------------------------------------------------

PLACE = 2**42
UNREADABLE = ("garbage", "", "x 0 - - ", "1 many - - ", "1 0 5 - ", "1 0 - -", "1 0 x 5 ", "nan 0 - - ")
ROWLESS = {("row", "delayed"), ("row", "leased"), ("row", "noted"), ("row", "dead")}
NOWHERE = {("stranded", "delayed"), ("stranded", "leased"), ("stranded", "noted"), ("stranded", "dead")}

PRIORITY: dict[str, tuple[Break, Found]] = {
    "nothing is broken": (then(), set()),
    "a ready member is gone": (zrem("ready", "a"), set()),
    "a ready member with a row is gone": (zrem("ready", "back"), {("stranded", "back")}),
    "all ready members are gone": (delete("ready"), {("stranded", "back")}),
    "a ready member beyond the sequence": (zadd("ready", "new", PLACE + 500), {("sequence", "meta")}),
    "a due time is gone": (zrem("later", "delayed"), {("stranded", "delayed")}),
    "a deadline is gone": (zrem("later", "leased"), {("stranded", "leased")}),
    "a deadline is gone, a push was noted": (zrem("later", "noted"), {("stranded", "noted")}),
    "a death is gone": (zrem("later", "dead"), {("stranded", "dead")}),
    "all times are gone": (delete("later"), NOWHERE),
    "a time of nobody": (zadd("later", "ghost", 5), {("row", "ghost")}),
    "a death of nobody": (zadd("later", "ghost", float("inf")), {("row", "ghost")}),
    "all rows are gone": (delete("rows"), ROWLESS),
    **{
        f"the row of {member} is gone": (hdel("rows", member), {("row", member)})
        for member in ("delayed", "leased", "noted", "dead")
    },
    "the row of a ready member is gone": (hdel("rows", "back"), set()),
    **{
        f"the row of {member} is {row!r}": (hset("rows", member, row), {("row", member)})
        for member in ("delayed", "leased", "dead", "back")
        for row in UNREADABLE
    },
    "a ready member with a lease's row": (hset("rows", "a", "1 1 - - somebody"), {("row", "a")}),
    "a row of nobody": (hset("rows", "ghost", "5 1 - - "), {("stranded", "ghost")}),
    "a lease's row of nobody": (hset("rows", "ghost", "5 1 3 9 somebody"), {("stranded", "ghost")}),
    **{f"a row {row!r} of nobody": (hset("rows", "ghost", row), {("stranded", "ghost")}) for row in UNREADABLE},
    "ready and delayed": (zadd("ready", "delayed", 1), {("twice", "delayed")}),
    "ready and leased": (zadd("ready", "leased", 1), {("twice", "leased")}),
    "ready and leased, a push was noted": (zadd("ready", "noted", 1), {("twice", "noted")}),
    "ready and dead": (zadd("ready", "dead", 1), {("twice", "dead")}),
    "ready and due, with a row": (zadd("later", "back", 5), {("twice", "back")}),
    "ready and due, without a row": (zadd("later", "a", 5), {("twice", "a"), ("row", "a")}),
    "ready and due, with an unreadable row": (
        then(zadd("ready", "delayed", 1), hset("rows", "delayed", "garbage")),
        {("twice", "delayed"), ("row", "delayed")},
    ),
    "the sequence is behind": (
        hset("meta", "sequence", "1"),
        {("sequence", "meta")},
    ),
    "the sequence is gone": (
        hdel("meta", "sequence"),
        {("sequence", "meta")},
    ),
    "the sequence is behind a parked member": (
        then(delete("ready"), hset("meta", "sequence", "1"), hdel("rows", "back")),
        {("sequence", "meta")},
    ),
    "the sequence is no number": (
        hset("meta", "sequence", "x"),
        {("sequence", "meta")},
    ),
    "an order that there is not": (hset("meta", "order", "lifo"), {("order", "meta")}),
    "a lease's list is gone": (delete("lease:leased"), set()),
    **{f"{name} of another type": (replace(name), {("type", name)}) for name in ("ready", "later", "rows", "meta")},
    "two of another type": (then(replace("ready"), replace("meta")), {("type", "ready"), ("type", "meta")}),
    "wake of another type": (replace("wake"), {("type", "wake")}),
    "grants of another type": (replace("grants"), {("type", "grants")}),
    "a lease of another type": (replace("lease:leased"), {("type", "lease:leased")}),
    "once of another type": (replace("once:x"), {("type", "once:x")}),
    "a key that no queue has": (rpush("oops", "mine"), {("unknown", "oops")}),
    "much at once": (
        then(zadd("ready", "leased", 1), hdel("rows", "dead"), zrem("later", "delayed"), zadd("later", "ghost", 5)),
        {("twice", "leased"), ("row", "dead"), ("stranded", "delayed"), ("row", "ghost")},
    ),
}


def stocked_queue(client: redis.Redis) -> PriorityQueue[str]:
    """Give a queue with a, b and back ready (back with a row), and members that are called by their state."""
    queue = PriorityQueue(client, "q", max_attempts=1)
    for name in ("dead", "leased", "noted", "back"):
        queue.push(name)
        batch = queue.reserve(lease_id=name)
        assert batch
        if name == "dead":
            batch.release()
    assert queue.push("noted", 5) is Pushed.ADDED
    plain = PriorityQueue(client, "q")
    assert plain.release(*plain_held(plain, "back")) == 1
    queue.push_many({"a": 1, "b": 2})
    queue.push("delayed", delay=1000)
    stats = queue.stats()
    assert (stats.waiting, stats.leased, stats.delayed, stats.dead) == (3, 2, 1, 1)
    return plain


def plain_held(queue: PriorityQueue[str], name: str) -> list[Any]:
    """Give the batch that is held under a name, by asking for it again."""
    batch = queue.reserve(lease_id=name)
    return [batch] if batch else []


def members(client: redis.Redis) -> set[str]:
    """Name the members that exist: in any of the three keys that hold some."""
    found: Any = set()
    for name in every(client, "ready", b"zset") + every(client, "later", b"zset"):
        found |= set(client.zrange(key(name), 0, -1))
    for name in every(client, "rows", b"hash"):
        found |= set(client.hkeys(key(name)))
    return {member.decode() for member in found}


def drain_queue(client: redis.Redis, queue: PriorityQueue[str]) -> set[str]:
    """Redrive, reserve and ack until nothing is left."""
    queue.redrive(*(item.member for item in queue.dead()))
    out: set[str] = set()
    while batch := Runner(client).run(late(queue.ops.reserve_once(3))).lease:
        out |= set(batch.items)
        assert queue.ack(batch) == len(batch.items)
    return out


@pytest.mark.parametrize("case", cases("queue", PRIORITY))
def test_a_broken_queue_is_named_and_mended_with_all_its_members(client: redis.Redis, case: str) -> None:
    queue = stocked_queue(client)
    assert queue.audit().ok
    break_it, expected = PRIORITY[case]
    break_it(client)
    before = members(client)

    assert names(queue.audit().findings) == expected
    assert names(queue.audit().findings) == expected  # to look changes nothing
    repaired = queue.audit(repair=True)
    assert names(repaired.findings) <= expected  # what mends one can mend another: the sequence, a twice without a row
    assert bool(repaired.findings) == bool(expected)
    assert names(queue.audit().findings) == {one for one in expected if one[0] in LEFT}
    assert members(client) == before

    for kind, name in expected:
        if kind == "type":  # what was put in a key's place is its owner's to move; what it hid is found then
            assert client.smembers(key(name)) == {b"mine"}
            client.delete(key(name))
    queue.audit(repair=True)
    if {("order", "meta"), ("type", "meta")} & expected:  # which order it was, only its owner can know
        client.hset(key("meta"), "order", "fifo")
        queue.audit(repair=True)
    assert members(client) == before
    assert drain_queue(client, queue) == before
    assert {kind for kind, _ in names(queue.audit().findings)} <= {"unknown"}
    assert not members(client)


def test_a_repaired_queue_keeps_what_each_member_was(client: redis.Redis) -> None:
    """A member that is ready and leased keeps its lease and comes once more; places go on behind the last."""
    queue = stocked_queue(client)
    (batch,) = plain_held(queue, "leased")
    zadd("ready", "leased", 3 * PLACE)(client)
    hset("meta", "sequence", "1")(client)
    queue.audit(repair=True)
    assert queue.state("leased") is State.LEASED
    assert batch.ack() == 1
    assert queue.state("leased") is State.READY  # the place it had in ready counts as a push that was noted
    queue.push("c", 2)
    assert [item.member for item in queue.pop_many(9)] == ["back", "a", "b", "c", "leased"]


def test_an_audit_pages_through_queues_of_any_length(client: redis.Redis) -> None:
    """More groups, batches and members than a page holds, each broken: all are named, once each."""
    buffer = Buffer[int](client, "b")
    for i in range(600):
        buffer.push(i, group=str(i))
    for i, batch in enumerate(buffer.reserve_many(100)):
        assert batch.group
        client.zrem("redisq:{b}:leases", batch.id)
        client.zadd("redisq:{b}:groups", {str(i): 7})
    waiting = {("length", str(i)) for i in range(100)}
    assert len(waiting | {("batch", str(i)) for i in range(100)}) == 200
    found = buffer.audit().findings
    assert len(found) == len(set(found)) == 200
    assert len(buffer.audit(repair=True).findings) == 200
    assert buffer.audit().ok

    queue = PriorityQueue(client, "p")
    queue.push_many({str(i): 0 for i in range(1200)}, delay=1000)
    client.delete("redisq:{p}:later")
    assert names(queue.audit().findings) == {("stranded", str(i)) for i in range(1200)}
    assert len(queue.audit(repair=True).findings) == 1200
    assert queue.audit().ok
    assert queue.stats().waiting == 1200
