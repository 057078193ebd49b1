"""Bad input raises an error of redisq that names the value, before anything is written."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from functools import partial
from typing import Any

import pytest
import redis
import redis.asyncio

import redisq.asyncio
from redisq import (
    BYTES,
    JSON,
    TEXT,
    Buffer,
    CodecError,
    InvalidArgument,
    Item,
    PriorityQueue,
    Pushed,
    Rate,
    RateLimiter,
    Replicas,
    ScriptError,
    State,
    Worker,
    WrongLayout,
    WrongOrder,
)
from redisq.core.buffer import MAX_ITEMS
from tests.conftest import MakeClient
from tests.scripts import keyspace

Call = Callable[[redis.Redis, Any], object]
ASYNC_BUFFER: redisq.asyncio.Buffer[Any] = redisq.asyncio.Buffer(redis.asyncio.Redis(), "q")

NAN, INF = float("nan"), float("inf")
NOT_INTEGERS = [0, -1, 1.0, 1.5, "1", None, True, NAN, 10**12]
NOT_PLACES = [-1, 1.0, "1", None, True, 10**9]
SOME_NUMBER = [value for value in NOT_INTEGERS if value is not None]
NOT_FLAGS = [None, 0, 1, "yes"]
NOT_FINITE = [NAN, INF, -INF, "1", None, True]
NOT_SECONDS = [-1, NAN, INF, "1", None, True]
NOT_SOME_SECONDS = [0, *(value for value in NOT_SECONDS if value is not None)]
NOT_NAMES = ["", "a{b", "a}b", "\ud800", None, 5, b"q"]
NOT_GROUPS = ["", "\ud800", None, 5, b"g"]

BAD: list[tuple[str, list[Any], Call]] = [
    ("pop size", NOT_INTEGERS, lambda c, bad: Buffer(c, "q").pop(size=bad)),
    ("groups limit", NOT_INTEGERS, lambda c, bad: Buffer(c, "q").groups(bad)),
    ("groups after", NOT_PLACES, lambda c, bad: Buffer(c, "q").groups(after=bad)),
    ("groups state", ["", "dead", None, 5], lambda c, bad: Buffer(c, "q").groups(state=bad)),
    ("pop_longest groups", NOT_INTEGERS, lambda c, bad: Buffer(c, "q").pop_longest(bad, 1)),
    ("pop_longest size", NOT_INTEGERS, lambda c, bad: Buffer(c, "q").pop_longest(1, bad)),
    ("pop_many count", NOT_INTEGERS, lambda c, bad: PriorityQueue(c, "q").pop_many(bad)),
    ("peek count", NOT_INTEGERS, lambda c, bad: PriorityQueue(c, "q").peek(bad)),
    ("peek after", NOT_PLACES, lambda c, bad: PriorityQueue(c, "q").peek(after=bad)),
    ("max_dead of a buffer", SOME_NUMBER, lambda c, bad: Buffer(c, "q", max_dead=bad)),
    ("max_dead", SOME_NUMBER, lambda c, bad: PriorityQueue(c, "q", max_dead=bad)),
    ("ordered", NOT_FLAGS, lambda c, bad: Buffer(c, "q", ordered=bad)),
    ("isolate", NOT_FLAGS, lambda c, bad: Buffer(c, "q", isolate=bad)),
    ("replace", NOT_FLAGS, lambda c, bad: PriorityQueue(c, "q").push("m", replace=bad)),
    ("replace of many", NOT_FLAGS, lambda c, bad: PriorityQueue(c, "q").push_many({"m": 1}, replace=bad)),
    ("max_lease of an audit", NOT_SOME_SECONDS, lambda c, bad: Buffer(c, "q").audit(max_lease=bad)),
    ("max_lease of an audit", NOT_SOME_SECONDS, lambda c, bad: PriorityQueue(c, "q").audit(max_lease=bad)),
    ("acquire cost", NOT_INTEGERS, lambda c, bad: RateLimiter(c, "q", Rate(1, 1)).acquire(bad)),
    ("wait cost", NOT_INTEGERS, lambda c, bad: RateLimiter(c, "q", Rate(1, 1)).wait(bad)),
    ("rate limit", NOT_INTEGERS, lambda c, bad: RateLimiter(c, "q", Rate(bad, 1))),
    ("rate per", [0, *NOT_SECONDS], lambda c, bad: RateLimiter(c, "q", Rate(1, bad))),
    ("fifo priority", [*NOT_FINITE, 1.5, 1024, -1025, 1e300], lambda c, bad: PriorityQueue(c, "q").push("m", bad)),
    ("fifo priorities", [1.5, 1024, NAN], lambda c, bad: PriorityQueue(c, "q").push_many({"a": 1, "m": bad})),
    ("score priority", NOT_FINITE, lambda c, bad: PriorityQueue(c, "q", order="score").push("m", bad)),
    ("delay", NOT_SECONDS, lambda c, bad: PriorityQueue(c, "q").push("m", delay=bad)),
    ("delay of many", NOT_SECONDS, lambda c, bad: PriorityQueue(c, "q").push_many({"m": 1}, delay=bad)),
    ("dedup_window", NOT_SECONDS, lambda c, bad: Buffer(c, "q", dedup_window=bad)),
    ("buffer name", NOT_NAMES, lambda c, bad: Buffer(c, bad)),
    ("queue name", NOT_NAMES, lambda c, bad: PriorityQueue(c, bad)),
    ("limiter name", NOT_NAMES, lambda c, bad: RateLimiter(c, bad, Rate(1, 1))),
    ("prefix", NOT_NAMES, lambda c, bad: Buffer(c, "q", prefix=bad)),
    ("push group", NOT_GROUPS, lambda c, bad: Buffer(c, "q").push(1, group=bad)),
    ("push_many group", NOT_GROUPS, lambda c, bad: Buffer(c, "q").push_many([1], group=bad)),
    ("pop group", NOT_GROUPS, lambda c, bad: Buffer(c, "q").pop(bad)),
    ("token", ["", "\ud800", 5], lambda c, bad: Buffer(c, "q").push(1, token=bad)),
    ("pause seconds", NOT_SOME_SECONDS, lambda c, bad: Buffer(c, "q").pause(bad)),
    ("pause seconds of members", NOT_SOME_SECONDS, lambda c, bad: PriorityQueue(c, "q").pause(bad)),
    ("pause token", ["", "\ud800", 5], lambda c, bad: Buffer(c, "q").pause(token=bad)),
    ("resume token", ["", "\ud800", 5], lambda c, bad: PriorityQueue(c, "q").resume(token=bad)),
    ("pause_group", NOT_GROUPS, lambda c, bad: Buffer(c, "q").pause_group(bad)),
    ("pause_group seconds", NOT_SOME_SECONDS, lambda c, bad: Buffer(c, "q").pause_group("g", bad)),
    ("resume_group", NOT_GROUPS, lambda c, bad: Buffer(c, "q").resume_group(bad)),
    ("drop_group", NOT_GROUPS, lambda c, bad: Buffer(c, "q").drop_group(bad)),
    ("drop_group token", ["", "\ud800", 5], lambda c, bad: Buffer(c, "q").drop_group("g", token=bad)),
    ("peek group", NOT_GROUPS, lambda c, bad: Buffer(c, "q").peek(bad)),
    ("peek count of items", NOT_INTEGERS, lambda c, bad: Buffer(c, "q").peek("g", bad)),
    ("peek after of items", NOT_PLACES, lambda c, bad: Buffer(c, "q").peek("g", 1, bad)),
    ("codec", ["json", None, b"", 5], lambda c, bad: Buffer(c, "q", codec=bad)),
    ("codec of members", ["json"], lambda c, bad: PriorityQueue(c, "q", codec=bad)),
    ("payload codec", ["json", None], lambda c, bad: PriorityQueue(c, "q", payload_codec=bad)),
    ("asyncio codec", ["json"], lambda _, bad: redisq.asyncio.Buffer(redis.asyncio.Redis(), "q", codec=bad)),
    ("handler", [None, "handle"], lambda c, bad: Worker(Buffer(c, "q"), bad)),
    ("asyncio handler", [None], lambda _, bad: redisq.asyncio.Worker(ASYNC_BUFFER, bad)),
    ("items", [5, None], lambda c, bad: Buffer(c, "q").push_many(bad)),
    ("members", [5, None], lambda c, bad: PriorityQueue(c, "q").push_many(bad)),
    ("batch to ack", ["id", 5], lambda c, bad: Buffer(c, "q").ack(bad)),
    ("batch to release", ["id"], lambda c, bad: PriorityQueue(c, "q").release(bad)),
    ("batch to extend", ["id"], lambda c, bad: Buffer(c, "q").extend(bad)),
    ("batch to bury", ["id"], lambda c, bad: Buffer(c, "q").bury(bad)),
    ("batch to ack with a reserve", ["id"], lambda c, bad: Buffer(c, "q").reserve(ack=bad)),
    ("order", ["lifo", None], lambda c, bad: PriorityQueue(c, "q", order=bad)),
    ("rate", [None, 5, "1/s"], lambda c, bad: RateLimiter(c, "q", bad)),
    ("token of a limiter", ["", "\ud800", 5], lambda c, bad: RateLimiter(c, "q", Rate(1, 1)).acquire(token=bad)),
    ("pair", ["ab", 5, ("a",), ("a", 1, None, 2)], lambda c, bad: PriorityQueue(c, "q").push_many([("a", 1), bad])),
]
INTEGER_CALLS: list[tuple[str, str, Call]] = [
    ("too many items", str(MAX_ITEMS + 1), lambda c, _: Buffer(c, "q").push(*range(MAX_ITEMS + 1))),
    ("too many members", "1001", lambda c, _: PriorityQueue(c, "q").remove(*map(str, range(1001)))),
    ("groups times size", "50000", lambda c, _: Buffer(c, "q").pop_longest(100, 500)),
    ("one str for items", "one str", lambda c, _: Buffer(c, "q").push_many("abc")),
    ("too many ids", "1001", lambda c, _: Buffer(c, "q").redrive(*map(str, range(1001)))),
    ("no rate", "()", lambda c, _: RateLimiter(c, "q")),
    ("a pipeline", "calls.push", lambda c, _: Buffer(c.pipeline(), "q")),
    ("an asyncio client", "redisq.asyncio", lambda _, __: Buffer(redis.asyncio.Redis(), "q")),  # type: ignore[arg-type]
    ("a blocking client", "from redisq", lambda c, _: redisq.asyncio.Buffer(c, "q")),  # type: ignore[arg-type]
]
CASES = [pytest.param(call, bad, repr(bad), id=f"{what}-{bad!r}") for what, values, call in BAD for bad in values]
CASES += [pytest.param(call, None, named, id=what) for what, named, call in INTEGER_CALLS]


@pytest.mark.parametrize(("call", "bad", "named"), CASES)
def test_an_invalid_argument_is_named_and_nothing_is_written(
    client: redis.Redis, call: Call, bad: Any, named: str
) -> None:
    """InvalidArgument, which is a ValueError, with the value in its message."""
    with pytest.raises(InvalidArgument) as caught:
        call(client, bad)
    assert isinstance(caught.value, ValueError)
    assert named in str(caught.value)
    assert client.dbsize() == 0


class Small(IntEnum):
    ONE = 1
    TWO = 2


class Index:
    """A number with `__index__` only, like NumPy's integers."""

    def __index__(self) -> int:
        return 2


class Real:
    """A number with `__float__` only, like Decimal."""

    def __float__(self) -> float:
        return 2.0


@pytest.mark.parametrize("number", [2, Small.TWO, Index()], ids=lambda number: type(number).__name__)
def test_integers_of_any_type_are_accepted(client: redis.Redis, number: Any) -> None:
    """As size, count, limit and priority."""
    buffer: Buffer[int] = Buffer(client, "b", min_size=number, max_attempts=number, max_dead=number, lease=number)
    buffer.push(1, 2, 3)
    batch = buffer.reserve(number, max_bytes=number)
    assert batch
    assert batch.items == [1, 2]
    assert buffer.pop(size=number) == [3]
    queue = PriorityQueue(client, "p")
    queue.push("m", number)
    assert queue.pop_many(number) == [Item("m", 2, 1)]
    assert RateLimiter(client, "l", Rate(number, per=number)).acquire(number).granted == 2


@pytest.mark.parametrize(
    "number", [2, 2.0, Small.TWO, Index(), Real(), Decimal(2), Fraction(2)], ids=lambda number: type(number).__name__
)
def test_real_numbers_of_any_type_are_accepted(client: redis.Redis, number: Any) -> None:
    """As seconds, and as a priority in score order."""
    queue = PriorityQueue(client, "q", order="score", lease=number)
    queue.push("m", number)
    queue.push("later", 0, delay=number)
    batch = queue.reserve(lease=number, timeout=number)
    assert batch
    assert batch.priorities == [2.0]
    assert batch.release(delay=number) == 1
    assert queue.stats().delayed == 2
    assert queue.remove("m") == 1
    queue.push("n")
    assert queue.pop(timeout=number) == Item("n", 0, 1)
    buffer: Buffer[int] = Buffer(client, "b", max_wait=number, lease=number, dedup_window=number)
    buffer.push(1)
    assert buffer.reserve(timeout=number)
    assert RateLimiter(client, "l", Rate(1, per=number)).wait(timeout=number).granted == 1
    assert Replicas(timeout=number).timeout == 2


@pytest.mark.parametrize(
    ("codec", "item"),
    [
        (JSON, object()),
        (JSON, float("nan")),
        (JSON, {1, 2}),
        (TEXT, 5),
        (TEXT, b"bytes"),
        (TEXT, "\ud800"),
        (BYTES, "text"),
        (BYTES, 5),
    ],
)
def test_an_item_that_cannot_be_encoded_writes_nothing(client: redis.Redis, codec: Any, item: Any) -> None:
    """One bad item among good ones: CodecError, and none of them is pushed."""
    good: Any = {"JSON": 1, "TEXT": "t", "BYTES": b"b"}[repr(codec)]
    with pytest.raises(CodecError) as caught:
        Buffer(client, "q", codec=codec).push(good, item)
    assert caught.value.raw is None
    with pytest.raises(CodecError):
        Buffer(client, "q", codec=codec).push_many([good, item])
    with pytest.raises(CodecError):
        PriorityQueue(client, "q", codec=codec).push(item)
    with pytest.raises(CodecError):
        PriorityQueue(client, "q", codec=codec).push_many([(good, 1), (item, 1)])
    with pytest.raises(CodecError, match="payload"):
        PriorityQueue(client, "q", payload_codec=codec).push("m", payload=item)
    assert client.dbsize() == 0


def test_a_codec_that_does_not_return_bytes_is_refused(client: redis.Redis) -> None:
    """Before anything is sent."""

    class Wrong:
        def encode(self, item: str, /) -> bytes:
            return item  # type: ignore[return-value]

        def decode(self, data: bytes, /) -> str:
            return data.decode()

    with pytest.raises(CodecError, match="not to bytes"):
        Buffer(client, "q", codec=Wrong()).push("a")
    assert client.dbsize() == 0


def test_bytes_that_cannot_be_decoded_are_in_the_error(client: redis.Redis) -> None:
    """With everything else that the call took, in the shape of its result, so that nothing is lost."""
    Buffer(client, "q", codec=BYTES).push(b"1", b"\xff", b"3", group="g")
    with pytest.raises(CodecError) as caught:
        Buffer(client, "q").pop("g")
    assert caught.value.raw == [b"1", b"\xff", b"3"]

    Buffer(client, "q", codec=BYTES).push(*caught.value.raw, group="g")
    with pytest.raises(CodecError) as caught:
        Buffer(client, "q").pop_longest()
    assert caught.value.raw == {"g": [b"1", b"\xff", b"3"]}

    PriorityQueue(client, "p", codec=BYTES, payload_codec=BYTES).push(b"\xff", 3, payload=b"\xfe")
    with pytest.raises(CodecError) as caught:
        PriorityQueue(client, "p").peek()
    assert PriorityQueue(client, "p", codec=BYTES).state(b"\xff") is State.READY
    with pytest.raises(CodecError) as caught:
        PriorityQueue(client, "p").pop()
    assert caught.value.raw == [Item(b"\xff", 3, 1, b"\xfe")]

    PriorityQueue(client, "p", payload_codec=BYTES).push("m", payload=b"\xfe")
    with pytest.raises(CodecError) as caught:
        PriorityQueue(client, "p").pop_many(2)
    assert caught.value.raw == [Item(b"m", 0, 1, b"\xfe")]


def test_push_many_reports_how_many_items_precede_a_bad_one(client: redis.Redis) -> None:
    """The chunks before it are pushed; the error says how many items these are."""
    items: list[object] = [*range(MAX_ITEMS + 500)]
    items[MAX_ITEMS + 400] = object()
    message = rf"item number {MAX_ITEMS + 400} \({MAX_ITEMS} before it are pushed\)"
    with pytest.raises(CodecError, match=message):
        Buffer(client, "q").push_many(items)
    assert Buffer(client, "q").stats().waiting == MAX_ITEMS


@pytest.mark.every_server
def test_the_other_order_is_refused(client: redis.Redis) -> None:
    """The first push decides; every call that reads or writes scores in the other order is refused."""
    PriorityQueue(client, "q").push("a", 1)
    before = keyspace.dump(client)
    other = PriorityQueue(client, "q", order="score")
    calls: list[Callable[[], object]] = [
        lambda: other.push("b", 0.5),
        lambda: other.push_many({"b": 0.5}),
        other.pop,
        lambda: other.pop_many(3),
        other.peek,
        other.reserve,
        other.leased,
        other.delayed,
        other.dead,
    ]
    for call in calls:
        with pytest.raises(
            WrongOrder, match=r"; it is .* open it as a PriorityQueue with order='fifo', or use another"
        ):
            call()
    assert keyspace.dump(client) == before


def test_a_queue_of_another_kind_or_layout_is_refused(client: redis.Redis) -> None:
    """With what helps."""
    PriorityQueue(client, "p", order="score").push("a")
    Buffer(client, "b").push("a")
    client.hset("redisq:{old}:meta", "queue", "1 buffer")
    score = "open it as a PriorityQueue with order='score', or use another name$"
    with pytest.raises(WrongLayout, match=score):
        Buffer(client, "p").push(1)
    with pytest.raises(WrongLayout, match=score):
        Buffer(client, "p").stats()
    with pytest.raises(WrongLayout, match=r"; it is a buffer: open it as a Buffer, or use another name$"):
        PriorityQueue(client, "b").push("b")
    for call in (Buffer(client, "old").pop, PriorityQueue(client, "old").pop):
        with pytest.raises(WrongLayout, match="; let the version that wrote it work it off, then purge it, or use"):
            call()


@pytest.mark.parametrize("root", [redisq, redisq.asyncio], ids=["blocking", "asyncio"])
def test_reprs_name_the_queue(root: Any) -> None:
    client = redis.Redis() if root is redisq else redis.asyncio.Redis()
    buffer = root.Buffer(client, "mails")
    assert repr(buffer) == "Buffer('mails')"
    assert repr(root.PriorityQueue(client, "it's")) == 'PriorityQueue("it\'s")'
    assert repr(root.RateLimiter(client, "api", Rate(1, 1))) == "RateLimiter('api')"
    assert repr(root.Worker(buffer, print)) == "Worker(Buffer('mails'), print)"
    assert re.fullmatch(
        r"Worker\(Buffer\('mails'\), functools.partial\(.*\)\)", repr(root.Worker(buffer, partial(print)))
    )


@pytest.mark.every_server
def test_an_existing_sorted_set_is_used_as_it_is(client: redis.Redis) -> None:
    """In score order; in fifo order it is refused."""
    client.zadd("redisq:{q}:ready", {"a": 2.5, "b": 1.5})
    with pytest.raises(WrongOrder, match=r"; it is .* open it as a PriorityQueue with order='score', or use another"):
        PriorityQueue(client, "q").push("c", 1)
    queue = PriorityQueue(client, "q", order="score")
    assert queue.push("a", 0.5) is Pushed.RAISED
    assert [item.member for item in queue.pop_many(5)] == ["a", "b"]


@pytest.mark.every_server
@pytest.mark.parametrize("key", ["groups", "since", "items:default"])
def test_a_key_of_another_type_is_a_script_error(client: redis.Redis, key: str) -> None:
    """The error says what to do, nothing is written, and audit reports the key."""
    client.set(f"redisq:{{q}}:{key}", "mine")
    with pytest.raises(ScriptError, match="another type"):
        Buffer(client, "q").push(1)
    assert client.dbsize() == 1
    finding = Buffer(client, "q").audit(repair=True).findings[0]
    assert (finding.kind, finding.name, finding.found) == ("type", key, "string")
    assert client.get(f"redisq:{{q}}:{key}") == b"mine"


@pytest.mark.every_server
def test_a_full_server_refuses_the_whole_push(server: Any) -> None:
    """At maxmemory a push of any size writes nothing, and pop works."""
    with server.client() as client:
        buffer: Buffer[bytes] = Buffer(client, "b", codec=BYTES)
        queue: PriorityQueue[str] = PriorityQueue(client, "p")
        limiter = RateLimiter(client, "l", Rate(5, 60))
        buffer.push(b"x" * 100, b"y" * 100, group="g")
        queue.push_many({"a": 1, "b": 2})
        queue.push("c", delay=1000)
        client.config_set("maxmemory", 1)
        before = keyspace.dump(client)
        refused: list[Callable[[], object]] = [
            lambda: buffer.push(*[b"x"] * 5000, group="g"),
            lambda: buffer.push_front(b"x", group="new"),
            lambda: queue.push("d", 1),
            lambda: queue.push("a", 0),
            lambda: queue.push("c", 0),
            lambda: queue.push("e", delay=5),
            lambda: queue.push("a", 1, replace=True),
            lambda: queue.push("a", 1, payload={"x": 1}),
            lambda: queue.push_many({str(i): i for i in range(900)}),
            limiter.acquire,
        ]
        for call in refused:
            with pytest.raises(redis.ResponseError, match="maxmemory"):
                call()
            assert keyspace.dump(client) == before
        assert buffer.pop("g", 1) == [b"x" * 100]
        assert list(buffer.pop_longest(1, 1)) == ["g"]
        assert [item.member for item in queue.pop_many(5)] == ["a", "b"]
        assert queue.remove("c") == 1
        client.config_set("maxmemory", 0)


def test_an_empty_push_writes_nothing(make_client: MakeClient) -> None:
    """It returns the current answer, and creates no key."""
    client = make_client()
    buffer: Buffer[int] = Buffer(client, "q")
    assert buffer.push() == buffer.push_many([]) == buffer.push_front() == 0
    queue = PriorityQueue(client, "q")
    assert not queue.push_many({})
    assert queue.remove() == 0
    assert client.dbsize() == 0
    buffer.push(1, 2)
    assert buffer.push() == buffer.push_many(iter(())) == 2


def test_page_sizes_may_be_integers_of_any_type(client: redis.Redis) -> None:
    """As limit and count of listings, and of reserve_many."""
    buffer: Buffer[int] = Buffer(client, "b")
    for group in "abc":
        buffer.push(1, group=group)
    two: Any = Index()
    assert list(buffer.groups(two, after=two)) == ["a"]
    assert len(buffer.reserve_many(two)) == len(buffer.leased(two)) == 2
    assert buffer.delayed(two) == buffer.dead(two) == []
    queue = PriorityQueue(client, "p")
    queue.push_many({"a": 0, "b": 1, "c": 2})
    assert [item.member for item in queue.peek(two, after=two)] == ["c"]
    assert len(queue.reserve_many(two)) == len(queue.leased(two)) == 2
    assert queue.delayed(two) == queue.dead(two) == []
    grant = RateLimiter(client, "l", Rate(two, 60)).wait(two, timeout=0)
    assert grant == (2, 0)
