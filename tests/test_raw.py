"""The scripts by themselves, as another language would send them: what is malformed is refused, nothing is written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis

from redisq import Buffer, PriorityQueue, Pushed, WrongLayout
from redisq.ops import Op
from redisq.scripts import Script

from . import keyspace
from .calls import calls

pytestmark = pytest.mark.every_server

BAD = {
    "int": [b"", b"-1", b"1.5", b"nan", b"inf", b"0x10", b"1e3", b" 1", b"1 ", b"99999999999999999999", b"x", b"1\0"],
    "ms": [b"-1", b"1.5", b"nan", b"inf", b"0x10", b"1e3", b" 1", b"99999999999999999999", b"x"],
    "enum": [b"", b"x", b"BACK", b"\xff" * 100],
    "pairs": [b"", b"nan", b"inf", b"-inf", b"0x10", b"1e999", b"x", b" 1", b"--1"],
}
NEVER_EMPTY = {"group", "cursor", "id"}


def malformed() -> Iterator[Any]:
    """Yield each script's valid call with one thing wrong."""
    for name, op in calls().items():
        yield pytest.param(replace(op, keys=op.keys[:-1]), id=f"{name}-key-missing")
        yield pytest.param(replace(op, keys=(*op.keys, b"redisq:{q}:more")), id=f"{name}-key-too-many")
        yield pytest.param(replace(op, args=()), id=f"{name}-no-arguments") if op.args else None
        if not (op.script.args and op.script.args[-1].rest):
            yield pytest.param(replace(op, args=(*op.args, b"1")), id=f"{name}-argument-too-many")
        for i, slot in enumerate(op.script.args):
            bad = BAD.get(slot.type, [b""] if slot.name in NEVER_EMPTY and not slot.rest else [])
            for value in bad:
                args = (*op.args[:i], value, *op.args[i + 1 :])
                yield pytest.param(replace(op, args=args), id=f"{name}-{slot.name}-{value[:20]!r}")


TOO_MUCH: list[tuple[str, tuple[Any, ...]]] = [
    ("buffer/push", (b"g", b"back", 0, b"", *[b"x"] * 10_001)),
    ("buffer/pop", (b"g", 10_001, b"")),
    ("buffer/pop", (b"g", 0, b"")),
    ("buffer/longest", (0,)),
    ("buffer/longest", (10_001,)),
    ("buffer/pop_longest", (101, 100, b"")),
    ("buffer/stats", (0, 10_001, b"")),
    ("buffer/purge", (0,)),
    ("buffer/audit", (b"elsewhere:0", 10, b"report", b"")),
    ("buffer/audit", (b"keys:x", 10, b"report", b"")),
    ("priority/push", (b"score", 0, 0, b"", *[b"1", b"m"] * 1_001)),
    ("priority/push", (b"score", 0, 0, b"", b"1")),
    ("priority/push", (b"fifo", 0, 0, b"", b"1.5", b"m")),
    ("priority/push", (b"fifo", 0, 0, b"", b"1024", b"m")),
    ("priority/push", (b"fifo", 0, 0, b"", b"-1025", b"m")),
    ("priority/push", (b"score", 0, 604_800_001, b"", b"1", b"m")),
    ("priority/pop", (b"score", 1_001, 0, b"")),
    ("priority/pop", (b"score", 0, 0, b"")),
    ("priority/peek", (b"score", 1_001)),
    ("priority/remove", (0, *[b"m"] * 1_001)),
    ("priority/stats", (0, 1_001)),
    ("buffer/ack", (b"l", 0, 0, b"", 2)),
    ("buffer/ack", (b"l", 0, 0, b"", 0, 0)),
    ("buffer/ack", (b"l", 0, 0, b"", *[0] * 10_001)),
    ("buffer/reserve", (b"m", 10_001, 1, 1, 0, 0, 0, b"")),
    ("buffer/reserve", (b"m", 1, 0, 1, 0, 0, 0, b"")),
    ("buffer/reserve", (b"m", 1, 1, 1, 0, 0, 0, b"", 1)),
    ("buffer/reserve", (b"m", 1, 1, 1, 0, 0, 0, b"", 0, 1)),
    ("buffer/dead", (1_001, b"")),
    ("buffer/redrive", (0, b"", *[b"x"] * 1_001)),
    ("buffer/discard", (0, *[b"x"] * 1_001)),
    ("priority/reserve", (b"score", b"m", 1_001, 1, 0, 0, b"")),
    ("priority/reserve", (b"score", b"m", 1, 1, 0, 0, b"", 1, 0)),
    ("priority/ack", (b"l", 0, b"")),
    ("priority/ack", (b"l", 0, b"", *[b"x"] * 1_001)),
    ("priority/release", (b"l", 0, 0, b"count", 0, b"")),
    ("priority/extend", (b"l", 1, 0, b"")),
    ("priority/dead", (b"score", 1_001, b"")),
    ("priority/redrive", (0, *[b"x"] * 1_001)),
    ("priority/discard", (0, *[b"x"] * 1_001)),
    ("limit/acquire", (0, 0, b"", 1, 1)),
    ("limit/acquire", (1, 0, b"", 0, 1)),
    ("limit/acquire", (1, 0, b"", 1, 0)),
    ("limit/acquire", (1, 0, b"", 1)),
    ("limit/acquire", (1, 0, b"")),
]


def send(client: redis.Redis, op: Op[Any]) -> Any:
    raw: Any = client  # execute_command has no types in redis-py
    return raw.execute_command("EVAL", op.script.text, len(op.keys), *op.keys, *op.args)


def prepare(client: redis.Redis) -> dict[bytes, bytes]:
    """Fill both structures, with something held under the lease that the calls name, and return the DUMP of it all."""
    client.flushall()
    for name in ("buffer/push", "buffer/reserve", "priority/push", "priority/reserve", "limit/acquire"):
        send(client, calls()[name])
    return keyspace.dump(client)


@pytest.mark.parametrize("op", [param for param in malformed() if param])
def test_malformed_call_is_refused_before_anything_is_written(client: redis.Redis, op: Op[Any]) -> None:
    """One thing wrong: BADARG, and the key space is as it was."""
    before = prepare(client)
    with pytest.raises(redis.ResponseError, match=r"^BADARG "):
        send(client, op)
    assert keyspace.dump(client) == before


@pytest.mark.parametrize(("name", "args"), TOO_MUCH)
def test_out_of_range_is_refused_before_anything_is_written(
    client: redis.Redis, name: str, args: tuple[Any, ...]
) -> None:
    """Out of range: BADARG, and the key space is as it was."""
    before = prepare(client)
    with pytest.raises(redis.ResponseError, match=r"^BADARG "):
        send(client, replace(calls()[name], args=args))
    assert keyspace.dump(client) == before


@pytest.mark.parametrize("name", list(calls()))
def test_the_valid_call_is_taken(client: redis.Redis, name: str) -> None:
    """What the malformed calls are made from is itself taken, so that they fail for the one thing wrong."""
    prepare(client)
    op = calls()[name]
    op.decode(send(client, op))


@pytest.mark.parametrize("name", list(calls()))
def test_a_key_of_another_type_stops_the_script_before_its_first_write(client: redis.Redis, name: str) -> None:
    """For every key of every script: with another type there, the whole key space is as it was."""
    op = calls(reserve="new")[name]
    for wrong in op.keys:
        if wrong.endswith(b":guard"):
            continue
        prepare(client)
        client.delete(wrong)
        if wrong.startswith((b"redisq:{q}:once:", b"redisq:{q}:ended:", b"redisq:{q}:layout")):
            client.hset(wrong, "f", "v")
        else:
            client.setbit(wrong, 7, 1)
        before = keyspace.dump(client)
        if op.script.name.endswith("/audit"):
            assert any(b"type" in finding for finding in send(client, op)[2])
        else:
            with pytest.raises(redis.ResponseError, match=r"WRONGTYPE|LEASELOST"):
                send(client, op)
        assert keyspace.dump(client) == before, wrong


@pytest.mark.parametrize("name", list(calls()))
def test_what_is_remembered_is_forgotten_in_time(client: redis.Redis, name: str) -> None:
    """Each key that a call remembers by has a TTL: its window; a lease's also the time of the lease."""
    prepare(client)
    send(client, calls(reserve="new")[name])
    window, lease, longest = 60_000, 30_000, 60_000  # as the calls have them
    names: Any = client.keys()
    for key in names:
        noun = key.removeprefix(b"redisq:{q}:").partition(b":")[0]
        ttl = client.pttl(key)
        if noun in (b"once", b"ended"):
            assert 0 < ttl <= window, key
        elif noun == b"lease":
            assert 0 < ttl <= lease + window, key
        elif noun == b"grants":
            assert longest < ttl <= longest + 1000, key
        else:
            assert ttl == -1, key


def test_without_a_window_no_push_is_remembered(client: redis.Redis) -> None:
    """dedup_window=0: no id of a push is kept; how a lease ended is remembered all the same."""
    buffer: Buffer[str] = Buffer(client, "b", dedup_window=0)
    queue = PriorityQueue(client, "p", dedup_window=0)
    assert buffer.push("x", token="t") == 1
    assert buffer.push("x", token="t") == 2
    queue.push("m")
    queue.remove("nobody")
    names: Any = client.keys()
    assert not [key for key in names if b"once" in key]
    for batch in (buffer.reserve(), queue.reserve()):
        assert batch
        assert batch.ack() == batch.ack() >= 1


def test_the_bounds_themselves_are_taken(client: redis.Redis) -> None:
    """The largest call of each kind goes through."""
    buffer: Buffer[int] = Buffer(client, "b")
    queue = PriorityQueue(client, "p")
    assert buffer.push(*range(10_000)) == 10_000
    assert len(buffer.longest_groups(5_000)) == 1
    assert buffer.pop_longest(1, 10_000) == {"default": [*range(10_000)]}
    buffer.push(*range(10_000))
    assert buffer.pop(size=10_000) == [*range(10_000)]
    buffer.push(*range(10_000))
    batch = buffer.reserve(10_000)
    assert batch
    batch.fail(*range(10_000))
    assert batch.ack() == 0
    assert queue.push_many({str(i): i % 1000 for i in range(1000)}) == {Pushed.ADDED: 1000}
    assert len(queue.peek(1000)) == 1000
    held = queue.reserve(1000)
    assert held
    held.extend()
    assert held.release() == 1000
    assert len(queue.pop_many(1000)) == 1000
    assert queue.remove(*map(str, range(1000))) == 0


def test_stats_page_by_page_and_a_clock_set_back(client: redis.Redis) -> None:
    """Each page counts its own groups, the last says so, and a group of the future has waited for nothing."""
    for group in ("a", "b", "c"):
        Buffer(client, "q").push(1, 2, group=group)
    op = calls()["buffer/stats"]
    pages = [send(client, replace(op, args=(start, 1, 1000))) for start in (0, 1, 2)]
    assert [page[:4] for page in pages] == [[1, 2, 3, 0], [2, 2, 3, 0], [-1, 2, 3, 0]]


def test_stats_of_many_dead_members_reads_none_of_them(client: redis.Redis) -> None:
    """With nothing parked but the dead, the page is empty: a range that ends at -1 would be all of them."""
    client.zadd("redisq:{q}:later", {"a": float("inf"), "b": float("inf")})
    client.hset("redisq:{q}:rows", mapping={"a": "1 1 - - x", "b": "1 1 - - x"})
    assert send(client, calls()["priority/stats"]) == [-1, 0, -1, 0, 0, 2]


@pytest.mark.parametrize("name", list(calls()))
def test_another_layout_is_refused_by_older_and_newer_copies(client: redis.Redis, name: str) -> None:
    """An older copy refuses what a newer one wrote, and the other way round; nothing is written."""
    op = calls(reserve="new")[name]
    newer = replace(op, script=Script(name, op.script.text.replace(b"mark ~= '1'", b"mark ~= '2'")))
    for mark, copy in ((b"2", op), (b"1", newer), (b"\xff" * 100, op)):
        prepare(client)
        client.set("redisq:{q}:layout", mark)
        before = keyspace.dump(client)
        with pytest.raises(redis.ResponseError, match="LAYOUT these keys are of layout") as refused:
            send(client, copy)
        assert isinstance(op.refusal(str(refused.value)), WrongLayout)
        assert keyspace.dump(client) == before


def test_the_mark_lasts_from_the_first_push_to_the_purge(client: redis.Redis) -> None:
    """A queue that was drained still says who wrote it; a purged one is anybody's."""
    buffer: Buffer[str] = Buffer(client, "b")
    queue = PriorityQueue(client, "p")
    assert buffer.stats().waiting == queue.stats().waiting == 0
    marks = "redisq:{b}:layout", "redisq:{p}:layout"
    assert client.mget(marks) == [None, None]
    buffer.push("x")
    buffer.pop()
    queue.push("x")
    queue.pop()
    assert client.mget(marks) == [b"1", b"1"]
    buffer.purge()
    queue.purge()
    assert client.mget(marks) == [None, None]
