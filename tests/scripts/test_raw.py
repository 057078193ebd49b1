"""The scripts by themselves, as a client in another language calls them: malformed calls are refused and write nothing.

The malformed calls and the bounds are derived from the headers. Scripts that fail in the middle are in
`tests/faults/test_partial_writes.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis

from redisq import Buffer, InvalidArgument, PriorityQueue, Pushed, WrongLayout, WrongOrder
from redisq.core.buffer import MAX_ITEMS
from redisq.core.calls import Call
from redisq.core.priority import MAX_LEASED, MAX_MEMBERS
from redisq.core.scripts import Script, Slot, load, names
from tests.scripts import keyspace
from tests.scripts.calls import calls

pytestmark = pytest.mark.every_server

NUMBERS = [b"", b"-1", b"1.5", b"nan", b"inf", b"0x10", b"1e3", b" 1", b"1 ", b"9" * 20, b"x", b"1\0", b"+1"]
BAD = {
    "int": NUMBERS,
    "ms": [value for value in NUMBERS if value] + [b"1" * 14],
    "enum": [b"", b"x", b"BACK", b"\xff" * 100],
    "ints": [b"", b"x", b"\xff" * 100],
}
PRIORITIES = [b"", b"nan", b"inf", b"-inf", b"0x10", b"1e999", b"x", b" 1", b"--1"]


def structure_of(name: str) -> str:
    return name.split("/")[0]


def send(client: redis.Redis, call: Call[Any]) -> Any:
    raw: Any = client  # execute_command has no types in redis-py
    return raw.execute_command("EVAL", call.script.text, len(call.keys), *call.keys, *call.args)


def reply_or_error(client: redis.Redis, call: Call[Any]) -> Any:
    try:
        return send(client, call)
    except redis.ResponseError as error:
        return error


def prepare(client: redis.Redis, structure: str) -> dict[bytes, bytes]:
    """Fill a structure, with a batch under the lease id that the calls use, and return the DUMP of all keys."""
    client.flushall()
    for verb in ("push", "push", "reserve") if structure != "limit" else ("acquire",):
        send(client, calls()[f"{structure}/{verb}"])
    return keyspace.dump(client)


def place(script: Script, name: str) -> int:
    return next(i for i, slot in enumerate(script.args) if slot.name == name)


def given(call: Call[Any], name: str, *values: Any) -> Call[Any]:
    """Return the call with another value in a slot; the last slot takes any number of them."""
    i = place(call.script, name)
    end = len(call.args) if call.script.args[i].rest else i + 1
    return replace(call, args=(*call.args[:i], *values, *call.args[end:]))


def packed(call: Call[Any], slot: Slot, field: str, value: bytes) -> Call[Any]:
    """Return the call with another packed number."""
    numbers = str(_text(call, slot.name)).split(" ")
    numbers[[one.name for one in slot.fields].index(field)] = value.decode("latin-1")
    return given(call, slot.name, " ".join(numbers).encode("latin-1"))


def _text(call: Call[Any], name: str) -> str:
    value = call.args[place(call.script, name)]
    return value.decode() if isinstance(value, bytes) else str(value)


def optional(slot: Slot) -> bool:
    """Return whether an argument may be left out."""
    return slot.type == "bytes" and (slot.low, slot.high) == (0, 1)


def malformed(call: Call[Any]) -> Iterator[Call[Any]]:
    """Yield a valid call with one thing wrong."""
    yield replace(call, keys=call.keys[:-1])
    yield replace(call, keys=(*call.keys, b"redisq:{q}:more"))
    slots = call.script.args
    if slots:
        yield replace(call, args=())
        fewest = len(slots) - (slots[-1].rest or optional(slots[-1]))
        yield replace(call, args=call.args[: fewest - 1])
    if not (slots and slots[-1].rest):
        more = (b"1",) * (1 + len(slots) - len(call.args))
        yield replace(call, args=(*call.args, *more))
    for slot in slots:
        if slot.rest:
            continue
        for value in BAD.get(slot.type, [b""] if slot.note.startswith("not empty") else []):
            yield given(call, slot.name, value)
        if slot.fields:
            whole = _text(call, slot.name)
            for text in (f"{whole} 1", f" {whole}", f"{whole} ", whole.replace(" ", "  ", 1), f"{whole}\n"):
                yield given(call, slot.name, text)
            yield given(call, slot.name, whole.rpartition(" ")[0])
            for field in slot.fields:
                for value in NUMBERS:
                    yield packed(call, slot, field.name, value)


def pairs(name: str) -> list[list[Any]]:
    """Return invalid pairs for a script that takes pairs."""
    if name == "priority/push":
        return [[value, b"m"] for value in PRIORITIES] + [[b"1"], [b"1", b"m", b"1", b"m"], [b"1", b"m", b"2"]]
    if name.endswith("/ack"):
        return [[value, b"why"] for value in NUMBERS] + [[b"0"], [b"0", b"", b"0", b""], [b"1", b""]]
    none = [b"", b"0", b"-1", b"1.5", b"nan", b"inf", b"x", b"1" * 12]
    return [*([value, b"1000"] for value in none), *([b"1", value] for value in none), [b"1"], [b"1", b"1", b"1"]]


def bounds(call: Call[Any]) -> Iterator[tuple[Call[Any], bool]]:
    """Yield the call with each number at its bounds and beyond them, and whether it must be accepted."""
    for slot in call.script.args:
        for one in (slot, *slot.fields):
            if one.low is None or one.high is None or (slot.rest and slot.type not in ("bytes", "string")):
                continue
            for number, taken in ((one.low, True), (one.high, True), (one.low - 1, False), (one.high + 1, False)):
                if number < 0 or (slot.type == "bytes" and not slot.rest):
                    continue
                if slot.rest:
                    yield given(call, slot.name, *[b"a"] * number), taken
                elif slot.fields:
                    three = one.name == "fields" and number == 3  # a payload follows each member
                    whole = given(call, "item", b"1", b"m", b"payload") if three else call
                    yield packed(whole, slot, one.name, b"%d" % number), taken
                else:
                    yield given(call, slot.name, number), taken


def refused(client: redis.Redis, call: Call[Any], before: dict[bytes, bytes], code: str = "BADARG") -> None:
    """Assert that a call is refused, and that the key space is unchanged."""
    with pytest.raises(redis.ResponseError) as caught:
        send(client, call)
    assert str(caught.value).startswith(f"{code} "), (call.args, caught.value)
    assert call.refusal(str(caught.value)) is not None
    assert keyspace.dump(client) == before, call.args


@pytest.mark.parametrize("name", names())
def test_a_malformed_call_is_refused_before_anything_is_written(client: redis.Redis, name: str) -> None:
    """With BADARG, for any one thing that is wrong."""
    call, before = calls()[name], prepare(client, structure_of(name))
    wrong = list(malformed(call))
    assert len(wrong) >= 3
    for one in wrong:
        refused(client, one, before)


@pytest.mark.parametrize("name", [name for name in names() if load(name).args[-1].type == "pairs"])
def test_invalid_pairs_are_refused(client: redis.Redis, name: str) -> None:
    """A priority that is not finite, a place that does not exist, a rate without a span, half a pair."""
    call, before = calls("l" if name.endswith("/ack") else "new")[name], prepare(client, structure_of(name))
    slot = call.script.args[-1].name
    for values in pairs(name):
        refused(client, given(call, slot, *values), before)


@pytest.mark.parametrize("name", names())
def test_the_bounds_are_those_of_the_header(client: redis.Redis, name: str) -> None:
    """The bounds are accepted, and anything beyond them is refused, with the key space unchanged."""
    call = calls()[name]
    if name == "buffer/pop_longest":  # count * size has its own bound
        call = given(call, "options", b"1 1 0")
    for one, taken in bounds(call):
        before = prepare(client, structure_of(name))
        if not taken:
            refused(client, one, before)
            continue
        answer = reply_or_error(client, one)
        assert not str(answer).startswith("BADARG"), (one.args[:5], answer)


TOO_MUCH: list[tuple[str, str, list[Any]]] = [
    ("buffer/pop_longest", "options", [b"101 100 0"]),
    ("buffer/ack", "failed", [2]),
    ("buffer/ack", "failed", [0, 0]),
    ("buffer/ack", "failed", [1, 0]),
    ("buffer/ack", "failed", [b"x"]),
    ("buffer/ack", "failed", [b"-1"]),
    ("buffer/ack", "failed", [0] * (MAX_ITEMS + 1)),
    ("buffer/audit", "cursor", [b"elsewhere:0"]),
    ("buffer/audit", "cursor", [b"keys:x"]),
    ("buffer/audit", "cursor", [b"keys:" + b"1" * 19]),
    ("priority/audit", "cursor", [b"since:0"]),
    ("priority/ack", "failed", [b"0", b"", b"1", b"", b"2", b""]),
    ("priority/ack", "failed", [b"0", b""] * (MAX_LEASED + 1)),
    ("priority/push", "item", [b"1", b"m"] * (MAX_MEMBERS + 1)),
]


@pytest.mark.parametrize(("name", "slot", "values"), TOO_MUCH)
def test_bounds_that_no_range_states(client: redis.Redis, name: str, slot: str, values: list[Any]) -> None:
    """Those that depend on two numbers, or on what is stored."""
    before = prepare(client, structure_of(name))
    refused(client, given(calls()[name], slot, *values), before)


@pytest.mark.parametrize("priority", [b"1.5", b"1024", b"-1025", b"1e300"])
def test_fifo_order_accepts_integer_priorities_of_its_range(client: redis.Redis, priority: bytes) -> None:
    """Score order accepts the refused ones, too."""
    call = given(given(calls()["priority/push"], "order", "fifo"), "item", priority, b"m")
    client.flushall()
    refused(client, call, {})
    assert send(client, given(call, "order", "score")) == b"A"


@pytest.mark.parametrize("name", names())
def test_the_valid_call_is_accepted(client: redis.Redis, name: str) -> None:
    """So the malformed ones are refused for the one thing that is wrong."""
    prepare(client, structure_of(name))
    call = calls()[name]
    call.decode(send(client, call))


@pytest.mark.parametrize("name", names())
def test_a_key_of_another_type_stops_the_script_before_its_first_write(client: redis.Redis, name: str) -> None:
    """Any key of any script: the whole key space is unchanged."""
    call = calls(reserve="new")[name]
    for wrong, slot in zip(call.keys, call.script.keys, strict=True):
        if slot.name == "guard":
            continue
        prepare(client, structure_of(name))
        client.delete(wrong)
        if slot.type == "string":
            client.hset(wrong, "f", "v")
        else:
            client.setbit(wrong, 7, 1)
        before = keyspace.dump(client)
        answer = reply_or_error(client, call)
        if isinstance(answer, Exception):
            assert "WRONGTYPE" in str(answer) or str(answer).startswith("LEASELOST"), slot
        else:  # the key was not read, or only reported; a reserve takes it as the end of its lease
            assert not call.writes or answer == [b"ended"] or keyspace.dump(client)[wrong] == before[wrong], slot
            continue
        assert keyspace.dump(client) == before, slot


@pytest.mark.parametrize("name", names())
def test_remembered_answers_expire(client: redis.Redis, name: str) -> None:
    """Each such key has the window as its TTL; a queue that the call empties keeps its counters for seven days."""
    prepare(client, structure_of(name))
    send(client, calls(reserve="new")[name])
    window, longest, week = 60_000, 60_000, 604_800_000  # the window of the calls
    found: Any = client.keys()
    nouns = {key.removeprefix(b"redisq:{q}:").partition(b":")[0] for key in found}
    for key in found:
        noun = key.removeprefix(b"redisq:{q}:").partition(b":")[0]
        ttl = client.pttl(key)
        if noun in (b"once", b"ended"):
            assert 0 < ttl <= window, key
        elif noun == b"grants":
            assert longest < ttl <= longest + 1000, key
        elif noun == b"meta" and nouns <= {b"meta", b"once", b"ended", b"wake"}:
            assert 0 < ttl <= week, key
            assert b"wake" not in nouns
        elif noun == b"paused":
            assert 0 < ttl <= window, key  # as long as the pause
        else:
            assert ttl == -1, key


def test_without_a_window_no_push_is_remembered(client: redis.Redis) -> None:
    """With dedup_window=0 no id of a push is kept; the end of a lease is remembered anyway."""
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


def test_the_largest_calls_succeed(client: redis.Redis) -> None:
    """With as many items, members and leased members as the headers allow."""
    buffer: Buffer[int] = Buffer(client, "b")
    queue = PriorityQueue(client, "p")
    every = list(range(MAX_ITEMS))
    assert buffer.push(*every) == MAX_ITEMS
    assert len(buffer.groups(5_000)) == 1
    assert buffer.pop_longest(1, MAX_ITEMS) == {"default": every}
    buffer.push(*every)
    assert buffer.pop(size=MAX_ITEMS) == every
    buffer.push_front(*every)
    most = load("buffer/reserve").limit("size")[1]
    batch = buffer.reserve(most)
    assert batch
    batch.fail(*every[:most])
    assert batch.ack() == 0
    back = buffer.reserve(1)
    assert back
    assert back.items == every[:most]
    assert back.bury() == most
    assert buffer.redrive(back.id) == 1
    assert buffer.pop(size=MAX_ITEMS) == every

    names = [str(i) for i in range(MAX_MEMBERS)]
    assert queue.push_many((name, i % 1000) for i, name in enumerate(names)) == {Pushed.ADDED: MAX_MEMBERS}
    assert len(queue.peek(MAX_MEMBERS)) == MAX_MEMBERS
    held = queue.reserve(MAX_LEASED)
    assert held
    held.extend()
    assert held.release() == len(held.items) == min(MAX_MEMBERS, MAX_LEASED)
    held = queue.reserve(MAX_LEASED)  # a call promotes a hundred
    assert held
    held.fail_at(*range(len(held.items)))
    assert held.ack() == 0
    taken = len(queue.pop_many(MAX_MEMBERS))
    assert len(queue.delayed(MAX_MEMBERS)) == MAX_MEMBERS - taken
    assert queue.remove(*names) == MAX_MEMBERS - taken


def test_stats_in_pages_and_after_the_clock_was_set_back(client: redis.Redis) -> None:
    """Each page counts its own groups, the last one says so, and a group from the future has waited 0 ms."""
    for group in ("a", "b", "c"):
        Buffer(client, "q").push(1, 2, group=group)
    call = given(given(calls()["buffer/stats"], "limit", 1), "now", 1000)
    pages, cursor = [], b"0 0 0"
    while cursor:
        cursor, *counted = send(client, given(call, "cursor", cursor))
        pages.append(counted)
    assert [page[0] for page in pages] == [2, 2, 2]
    assert [page[1:5] for page in pages] == [[3, 0, 0, 0]] * 3  # groups, busy, paused, and how long one has waited


@pytest.mark.parametrize("name", names())
def test_another_layout_or_structure_is_refused(client: redis.Redis, name: str) -> None:
    """A queue of a newer or older version, or of the other structure, before anything else is read."""
    call, structure = calls(reserve="new")[name], structure_of(name)
    foreign = [b"1 buffer", b"3 buffer", b"22", b"", b"\xff" * 100]
    foreign += [b"2 fifo", b"2 score", b"2 stream"] if structure == "buffer" else []
    foreign += [b"2 buffer", b"2 stream"] if structure == "priority" else []
    for mark in foreign:
        prepare(client, structure)
        client.hset("redisq:{q}:meta", "queue", mark)
        refused(client, call, keyspace.dump(client), "LAYOUT")
        for key, slot in zip(call.keys, call.script.keys, strict=True):
            if slot.name not in ("meta", "guard", "ready") and not name.endswith("/audit"):
                client.delete(key)
                client.xadd(key, {"of": "another type"})
        refused(client, call, keyspace.dump(client), "LAYOUT")
    assert isinstance(call.refusal("LAYOUT this queue is marked 3 buffer"), WrongLayout)


@pytest.mark.parametrize("name", [name for name in names() if "WRONGORDER" in load(name).errors])
def test_the_other_order_is_refused(client: redis.Redis, name: str) -> None:
    """By every script that reads or writes scores, also for a sorted set without a mark."""
    prepare(client, "priority")
    call = given(calls(reserve="new")[name], "order", "fifo")
    refused(client, call, keyspace.dump(client), "WRONGORDER")
    client.flushall()
    client.zadd("redisq:{q}:ready", {"m": 1})
    refused(client, call, keyspace.dump(client), "WRONGORDER")
    assert isinstance(call.refusal("WRONGORDER this queue is marked 2 score"), WrongOrder)


def test_the_mark_lasts_until_the_queue_has_been_empty_for_seven_days(client: redis.Redis) -> None:
    """An emptied queue keeps its mark and its counters; the name of a purged one can be used for any structure."""
    buffer: Buffer[str] = Buffer(client, "q")
    queue = PriorityQueue(client, "q")
    assert buffer.stats().waiting == queue.stats().waiting == 0
    assert client.dbsize() == 0
    buffer.push("x")
    assert client.hgetall("redisq:{q}:meta") == {b"queue": b"2 buffer"}
    assert client.pttl("redisq:{q}:meta") == -1
    batch = buffer.reserve()
    assert batch
    batch.ack()
    assert client.hgetall("redisq:{q}:meta") == {b"queue": b"2 buffer", b"done": b"1"}
    assert 604_000_000 < client.pttl("redisq:{q}:meta") <= 604_800_000
    with pytest.raises(WrongLayout):
        queue.push("x")
    buffer.push("y")
    assert client.pttl("redisq:{q}:meta") == -1
    assert buffer.stats().done == 1
    buffer.purge()
    assert not client.exists("redisq:{q}:meta")

    queue.push("x")
    assert client.hgetall("redisq:{q}:meta") == {b"queue": b"2 fifo", b"sequence": b"1"}
    queue.pop()
    assert client.hgetall("redisq:{q}:meta") == {b"queue": b"2 fifo"}  # places start at 0 again
    with pytest.raises(WrongOrder):
        PriorityQueue(client, "q", order="score").push("x")
    queue.purge()
    assert PriorityQueue(client, "q", order="score").push("x") is Pushed.ADDED


def test_errors_quote_the_arguments_and_what_is_allowed(client: redis.Redis) -> None:
    """The message has the arguments, shortened, and what each may be."""
    call = given(calls()["buffer/push"], "group", b"")
    with pytest.raises(redis.ResponseError) as caught:
        send(client, given(call, "side", b"sideways" * 100))
    error = call.refusal(str(caught.value))
    assert isinstance(error, InvalidArgument)
    assert "buffer/push: , sideways" in str(error)
    assert "a name, back or front" in str(error)
    assert len(str(error)) < 300
