"""Payloads of the members of a priority queue, and pushes with `replace`, in every state of a member."""

from __future__ import annotations

import random
import zlib
from collections import Counter
from typing import Any

import pytest
import redis

from redisq import BYTES, Buffer, CodecError, Item, PriorityQueue, Pushed, State
from redisq.embedded import Server
from tests.queues.flavours import TIMEOUT, Flavour
from tests.queues.structures import take

KEY = "redisq:{q}:payloads"
STATES = ("absent", "ready", "delayed", "dead", "leased", "removed", "noted")
"""`removed`: removed while it is leased; `noted`: pushed while it is leased."""
LEASED = ("leased", "removed", "noted")
ENDINGS = ("ack", "release", "fail", "bury", "expire")


def bring_to(flavour: Flavour, queue: Any, state: str, payload: Any = "old") -> Any:
    """Bring the member `m`, of priority 5, into a state; return its batch if it is leased."""
    do = flavour.do
    if state == "absent":
        return None
    if state == "delayed":
        assert do(queue.push("m", 5, payload=payload, delay=500)) is Pushed.ADDED
        return None
    assert do(queue.push("m", 5, payload=payload)) is Pushed.ADDED
    if state == "ready":
        return None
    batch = do(queue.reserve(lease=1000))
    assert batch.payloads == [payload]
    if state == "dead":
        assert do(batch.bury("odd")) == 1
        return None
    if state == "removed":
        assert do(queue.remove("m")) == 1
    elif state == "noted":
        assert do(queue.push("m", 7)) is Pushed.ADDED
    return batch


def end(flavour: Flavour, queue: Any, batch: Any, ending: str) -> None:
    """End a lease; what comes back is due at once, unless something else was pushed."""
    do = flavour.do
    if ending == "fail":
        batch.fail("m", reason="odd")
        do(batch.ack())
    elif ending == "expire":
        flavour.plain.zadd("redisq:{q}:leases", {batch.id: 1})  # its deadline has long passed
        do(queue.send(queue.calls.reserve(lease=0.001)))
    else:
        do(getattr(batch, ending)())


def due(flavour: Flavour) -> float:
    """Return in how many seconds the member is due; 0: now, or earlier."""
    time = flavour.plain.zscore("redisq:{q}:delayed", "m") or 0
    seconds, micros = flavour.plain.time()
    return max(0.0, time / 1000 - seconds - micros / 1e6)


def taken(flavour: Flavour, queue: Any) -> Any:
    """Take the member, due or not; return its priority and payload, or None if it does not exist."""
    do, state = flavour.do, flavour.do(queue.state("m"))
    if state is State.LEASED:  # by the reserve that ends its lease
        (batch,) = do(queue.leased())
        found = batch.priorities[0], batch.payloads[0]
        assert do(batch.ack()) == 1
        return found
    if state is State.DELAYED:
        flavour.plain.zadd("redisq:{q}:delayed", {"m": 1})
    item = do(queue.pop())
    return item and (item.priority, item.payload)


# -- the newest payload ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["absent", "ready", "delayed", "dead"])
@pytest.mark.parametrize("payload", ["new", None, ""])
def test_the_newest_payload_wins(flavour: Flavour, state: str, payload: str | None) -> None:
    """Also if the push changes nothing else; a push without a payload keeps the stored one."""
    queue = flavour.queue()
    bring_to(flavour, queue, state)
    outcome = flavour.do(queue.push("m", 9, payload=payload))
    assert outcome is {"ready": Pushed.KEPT, "delayed": Pushed.RAISED}.get(state, Pushed.ADDED)
    kept = payload if payload is not None else None if state == "absent" else "old"
    assert taken(flavour, queue) == (5 if state in ("ready", "delayed") else 9, kept)
    assert not flavour.plain.exists(KEY)


@pytest.mark.parametrize("state", LEASED)
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("payload", ["new", None])
def test_the_newest_payload_wins_while_leased(flavour: Flavour, state: str, ending: str, payload: str | None) -> None:
    """The holder keeps its copy; the member comes back with the newest, however the lease ends."""
    do, queue = flavour.do, flavour.queue()
    batch = bring_to(flavour, queue, state)
    again = do(queue.push("m", 6, payload=payload))
    assert again is (Pushed.RAISED if state == "noted" else Pushed.ADDED)
    assert batch.payloads == ["old"]
    assert do(queue.reserve(lease_id=batch.id)).payloads == [payload or (None if state == "removed" else "old")]
    end(flavour, queue, batch, ending)
    comes_back = state != "removed" and ending in ("release", "fail", "expire")  # with the options of the first push
    assert taken(flavour, queue) == (5 if comes_back else 6, payload or (None if state == "removed" else "old"))
    assert do(queue.state("m")) is State.ABSENT
    assert not flavour.plain.exists(KEY)


@pytest.mark.parametrize("state", ["leased", "removed"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_payload_exists_as_long_as_its_member(flavour: Flavour, state: str, ending: str) -> None:
    """In any state, and no longer."""
    do, queue = flavour.do, flavour.queue()
    batch = bring_to(flavour, queue, state)
    assert flavour.plain.exists(KEY) == (state == "leased")
    end(flavour, queue, batch, ending)
    if state == "removed" or ending == "ack":
        assert not flavour.plain.exists(KEY)
        assert do(queue.state("m")) is State.ABSENT
        return
    assert flavour.plain.hgetall(KEY) == {b"m": b'"old"'}
    if ending == "bury":
        (dead,) = do(queue.dead())
        assert dead.payload == "old"
        assert do(queue.redrive("m")) == 1
    assert taken(flavour, queue) == (5, "old")
    assert not flavour.plain.exists(KEY)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("how", ["remove", "purge", "discard"])
def test_a_payload_is_deleted_with_its_member(flavour: Flavour, state: str, how: str) -> None:
    do, queue = flavour.do, flavour.queue()
    bring_to(flavour, queue, state)
    if how == "discard":
        assert do(queue.discard("m")) == (state == "dead")
        assert flavour.plain.exists(KEY) == (state not in ("absent", "dead", "removed"))
        return
    do(queue.purge() if how == "purge" else queue.remove("m"))
    assert not flavour.plain.exists(KEY)


def test_a_payload_comes_with_its_member(client: redis.Redis) -> None:
    """The newest wins, a push without one keeps the stored one, and the holder keeps its copy."""
    queue = PriorityQueue(client, "q")
    assert queue.push("a", payload={"v": 1}) is Pushed.ADDED
    assert queue.push("a", 5, payload={"v": 2}) is Pushed.KEPT
    assert queue.push("a") is Pushed.KEPT
    queue.push("b", 1)
    assert queue.peek(2) == [Item("a", 0, 0, {"v": 2}), Item("b", 1, 0)]
    batch = take(queue)
    assert (batch.items, batch.payloads) == (["a", "b"], [{"v": 2}, None])
    queue.push("a", payload=[3])
    assert batch.payloads == [{"v": 2}, None]
    assert take(queue, lease_id=batch.id).payloads == [[3], None]  # sent again: as it is stored now
    assert batch.ack() == 2
    assert queue.pop() == Item("a", 0, 1, [3])
    queue.push("a")
    assert queue.pop() == Item("a", 0, 1)


@pytest.mark.parametrize("state", ["delayed", "dead"])
def test_a_payload_belongs_to_the_member_in_every_state(client: redis.Redis, state: str) -> None:
    queue = PriorityQueue(client, "q")
    queue.push("m", 7, payload="p")
    batch = take(queue)
    if state == "dead":
        batch.bury("why")
    else:
        batch.release(delay=1000, reason="why")
    (item,) = getattr(queue, state)()
    assert item == Item("m", 7, 1, "p", "why", item.time)
    assert queue.push("m", 9) is (Pushed.ADDED if state == "dead" else Pushed.RAISED)
    assert queue.pop() == Item("m", 9 if state == "dead" else 7, 1, "p")


# -- codecs ----------------------------------------------------------------------------------------------------------


class Packed:
    """A codec for compressed text."""

    def encode(self, item: str, /) -> bytes:
        return zlib.compress(item.encode())

    def decode(self, data: bytes, /) -> str:
        return zlib.decompress(data).decode()


@pytest.mark.parametrize("options", [{}, {"decode_responses": True}, {"protocol": 3}], ids=str)
def test_payloads_have_their_own_codec(flavour: Flavour, options: dict[str, Any]) -> None:
    """In every call that returns them."""
    do, client = flavour.do, flavour.make_client(**options)
    queue = flavour.library.PriorityQueue(client, "q", codec=BYTES, payload_codec=Packed())
    text = "long " * 100
    do(queue.push_many([(b"\xffa", 0, text), (b"b", 1, ""), (b"c", 2, "é"), (b"d", 3), (b"e", 4, None)]))
    assert all(len(data) < 40 for data in flavour.plain.hvals(KEY))
    kept = [text, "", "é", None, None]
    assert [item.payload for item in do(queue.peek(9))] == kept
    batch = do(queue.reserve(3))
    assert batch.payloads == [text, "", "é"]
    assert do(queue.leased())[0].payloads == [text, "", "é"]
    do(batch.release(delay=1000))
    assert [item.payload for item in do(queue.delayed())] == ["", "é", text]  # due together, so ordered by their bytes
    do(queue.push(b"\xffa"))
    assert do(queue.pop()).payload == text
    do(do(queue.reserve(9)).bury())
    assert [item.payload for item in do(queue.dead())] == [None, None]


def test_an_empty_payload_and_no_payload(flavour: Flavour) -> None:
    """They differ for bytes; JSON's null is no payload."""
    do, queue = flavour.do, flavour.queue(payload_codec=BYTES)
    do(queue.push("m", payload=b""))
    do(queue.push("m"))
    assert do(queue.peek())[0].payload == b""
    assert do(queue.reserve()).payloads == [b""]


def test_a_payload_that_cannot_be_decoded_does_not_affect_others(flavour: Flavour) -> None:
    """The error has everything that was taken, and the lease is kept."""
    do = flavour.do
    raw, queue = flavour.queue(payload_codec=BYTES), flavour.queue(payload_codec=Packed())
    do(queue.push("good", payload="text"))
    do(raw.push("bad", payload=b"not packed"))
    with pytest.raises(CodecError) as caught:
        do(queue.reserve(9))
    assert caught.value.raw.raw == [b"good", b"bad"]
    assert b"not packed" in caught.value.raw.payloads
    assert do(queue.release(caught.value.raw)) == 2
    assert [item.payload for item in do(raw.pop_many(9))] == [zlib.compress(b"text"), b"not packed"]


# -- sizes -----------------------------------------------------------------------------------------------------------

COUNT, SIZE = 10_000, 10_000


def body(number: int) -> bytes:
    """Return a unique payload of ten thousand bytes."""
    return random.Random(number).randbytes(32) * (SIZE // 32) + b"%016d" % number


@pytest.mark.timeout(300)
def test_ten_thousand_large_payloads(real: Flavour) -> None:
    """A hundred million bytes, in the chunks of push_many, taken in batches that max_bytes limits."""
    do, queue = real.do, real.queue(payload_codec=BYTES)
    counted = do(queue.push_many((f"{i:05}", i % 3, body(i)) for i in range(COUNT)))
    assert counted == {Pushed.ADDED: COUNT}
    assert do(queue.push_many((f"{i:05}", 9, body(COUNT + i)) for i in range(0, COUNT, 100))) == {Pushed.KEPT: 100}

    def expected(member: str) -> bytes:
        number = int(member)
        return body(number if number % 100 else COUNT + number)

    shown = do(queue.peek(2_000))
    assert all(item.payload == expected(item.member) for item in shown)
    seen: Counter[str] = Counter()
    sizes = [500, 1, 100, 37]
    turn = 0
    while batch := do(queue.reserve(sizes[turn % 4], max_bytes=None if turn % 2 else 1_000_000)):
        most = sizes[turn % 4] if turn % 2 else min(sizes[turn % 4], 1_000_000 // (SIZE + 5))
        assert len(batch.items) <= most
        for member, payload in zip(batch.items, batch.payloads, strict=True):
            assert payload == expected(member)
        if turn == 0:
            do(batch.release(reason="once"))
        else:
            seen.update(batch.items)
            assert do(batch.ack()) == len(batch.items)
        turn += 1
    assert seen == Counter(f"{i:05}" for i in range(COUNT))
    assert not real.plain.exists(KEY)


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 511, 512, 513, 65_535, 65_536, 1_000_000, 8_000_000])
def test_a_payload_of_any_size(server: Server, size: int) -> None:
    """Around the sizes at which a server changes its encoding."""
    with server.client() as client:
        queue: PriorityQueue[str] = PriorityQueue(client, "q", payload_codec=BYTES)
        payload = random.Random(size).randbytes(size)
        queue.push_many([("a", 0, payload), ("b", 1, b"x")])
        assert queue.peek()[0].payload == payload
        batch = queue.reserve(2, max_bytes=1)
        assert batch
        assert batch.payloads == [payload]  # one at least, whatever its size
        batch.bury()
        assert queue.dead()[0].payload == payload
        queue.redrive("a")
        item = queue.pop()
        assert item
        assert item.payload == payload


# -- replace ---------------------------------------------------------------------------------------------------------

# The pushes, made on a member of priority 5 that is due at once (delayed: in 500 s), and the outcome for each state.
REPLACED: list[tuple[float, float, dict[str, Pushed]]] = [
    (9, 0, {"ready": Pushed.CHANGED, "delayed": Pushed.CHANGED, "noted": Pushed.CHANGED}),
    (9, 900, {"ready": Pushed.CHANGED, "delayed": Pushed.CHANGED, "noted": Pushed.CHANGED}),
    (5, 900, {"ready": Pushed.CHANGED, "delayed": Pushed.CHANGED, "noted": Pushed.CHANGED}),
    (5, 0, {"ready": Pushed.KEPT, "delayed": Pushed.RAISED, "noted": Pushed.RAISED}),
    (1, 0, {"ready": Pushed.RAISED, "delayed": Pushed.RAISED, "noted": Pushed.RAISED}),
    (1, 900, {"ready": Pushed.CHANGED, "delayed": Pushed.CHANGED, "noted": Pushed.CHANGED}),
    (1, 100, {"ready": Pushed.CHANGED, "delayed": Pushed.RAISED, "noted": Pushed.CHANGED}),
]


@pytest.mark.parametrize("state", ["absent", "ready", "delayed", "dead"])
@pytest.mark.parametrize(("priority", "delay", "outcomes"), REPLACED)
def test_a_replacing_push_sets_priority_and_time(
    flavour: Flavour, state: str, priority: float, delay: float, outcomes: dict[str, Pushed]
) -> None:
    """Exactly: earlier or later, higher or lower; and attempts start afresh."""
    do, queue = flavour.do, flavour.queue(order="score")
    bring_to(flavour, queue, state)
    outcome = do(queue.push("m", priority, delay=delay, replace=True))
    assert outcome is outcomes.get(state, Pushed.ADDED)
    assert do(queue.state("m")) is (State.DELAYED if delay else State.READY)
    assert due(flavour) == pytest.approx(delay, abs=20)
    if delay:
        (item,) = do(queue.delayed())
        assert (item.priority, item.attempts, item.reason) == (priority, 0, "")
    kept = None if state == "absent" else "old"
    assert taken(flavour, queue) == (priority, kept)
    assert do(queue.audit()).ok


@pytest.mark.parametrize("state", LEASED)
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(("priority", "delay", "outcomes"), REPLACED)
def test_a_replacing_push_of_a_leased_member_applies_when_it_comes_back(
    real: Flavour, state: str, ending: str, priority: float, delay: float, outcomes: dict[str, Pushed]
) -> None:
    """However the lease ends; until then, the holder is not affected."""
    do, queue = real.do, real.queue(order="score")
    batch = bring_to(real, queue, state)
    assert do(queue.push("m", priority, delay=delay, replace=True)) is outcomes.get(state, Pushed.ADDED)
    assert do(queue.state("m")) is State.LEASED
    assert do(queue.reserve()) is None
    do(batch.extend(2000))
    end(real, queue, batch, ending)
    if delay:
        assert do(queue.state("m")) is State.DELAYED
        assert due(real) == pytest.approx(delay, abs=20)
        (item,) = do(queue.delayed())
        assert (item.priority, item.attempts) == (priority, 0)
    assert taken(real, queue) == (priority, None if state == "removed" else "old")
    assert do(queue.state("m")) is State.ABSENT
    assert do(queue.audit()).ok


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_plain_push_after_a_replacing_one_takes_the_minimum_of_both(flavour: Flavour, ending: str) -> None:
    """And not of anything earlier."""
    do, queue = flavour.do, flavour.queue(order="score")
    batch = bring_to(flavour, queue, "leased")
    assert do(queue.push("m", 9, delay=900, replace=True)) is Pushed.ADDED
    assert do(queue.push("m", 8, delay=1000)) is Pushed.RAISED
    assert do(queue.push("m", 10, delay=950)) is Pushed.KEPT
    end(flavour, queue, batch, ending)
    assert due(flavour) == pytest.approx(900, abs=20)
    assert taken(flavour, queue) == (8, "old")


def test_a_debounced_member_runs_after_the_last_event(flavour: Flavour) -> None:
    """A replacing push postpones it, a plain one does not; both update the payload."""
    do, queue = flavour.do, flavour.queue()
    for turn in range(20):
        outcome = do(queue.push("m", payload=turn, delay=100 + turn, replace=True))
        assert outcome is (Pushed.CHANGED if turn else Pushed.ADDED)
    assert due(flavour) == pytest.approx(119, abs=20)
    do(queue.push("m", payload="last", delay=0.01, replace=True))
    item = do(queue.pop(timeout=TIMEOUT))
    assert (item.member, item.payload) == ("m", "last")


def test_a_replacing_push_of_many_members_can_be_repeated(flavour: Flavour) -> None:
    """In several chunks, with a token; members that occur twice are pushed one after the other."""
    do, queue = flavour.do, flavour.queue()
    do(queue.push_many((f"{i:04}", 5) for i in range(1_200)))
    pairs = [(f"{i:04}", 7, i) for i in range(1_200)] + [("0000", 8, "newest"), ("1199", 8, "newest")]
    first = do(queue.push_many(pairs, replace=True, token="t"))
    assert first == {Pushed.CHANGED: 1_202}
    do(queue.push("0001", 1))
    assert do(queue.push_many(pairs, replace=True, token="t")) == first
    shown = {item.member: (item.priority, item.payload) for item in do(queue.peek(2_000))}
    assert shown == {
        **{member: (priority, payload) for member, priority, payload in pairs[1:-3]},
        "0000": (8, "newest"),
        "1199": (8, "newest"),
        "0001": (1, 1),
    }


def test_replace_sets_priority_and_time_exactly(client: redis.Redis) -> None:
    """To debounce and to demote; for a leased member, it applies when it comes back."""
    queue = PriorityQueue(client, "q")
    assert queue.push("a", 1, delay=1000) is Pushed.ADDED
    assert queue.push("a", 1, delay=2000) is Pushed.KEPT
    assert queue.push("a", 1, delay=3000, replace=True) is Pushed.CHANGED
    assert queue.push("a", 1, delay=3000, replace=True) is not Pushed.ADDED
    assert queue.push("a", 0, delay=10, replace=True) is Pushed.RAISED
    assert queue.push("b", 1) is Pushed.ADDED
    assert queue.push("b", 5, replace=True) is Pushed.CHANGED
    assert queue.push_many({"b": 6, "c": 2}, replace=True) == {Pushed.CHANGED: 1, Pushed.ADDED: 1}
    batch = take(queue, 1)
    assert batch.items == ["c"]
    assert queue.push("c", 9, replace=True) is Pushed.ADDED
    assert queue.push("c", 8) is Pushed.RAISED
    assert batch.release() == 1
    assert [(item.member, item.priority) for item in queue.pop_many(3)] == [("b", 6), ("c", 8)]


def test_batches_of_a_buffer_have_no_payloads(server: Server) -> None:
    with server.client() as client:
        buffer: Buffer[int] = Buffer(client, "q")
        buffer.push(1)
        batch = buffer.reserve()
        assert batch
        assert batch.payloads is batch.priorities is None
