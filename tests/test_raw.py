"""The scripts by themselves, as another language would send them: what is malformed is refused, nothing is written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis

from redisq.ops import Op

from . import keyspace
from .calls import calls

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
    ("priority/extend", (b"l", 1, b"")),
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
        if wrong.startswith(b"redisq:{q}:once:"):
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
