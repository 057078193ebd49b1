"""Spans of queues: their names, attributes and links; and calls behave as without telemetry."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import redis
import redis.asyncio
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

import redisq.asyncio
from redisq import BYTES, JSON, Bury, CodecError, InvalidArgument, LeaseLost, Pushed, Retry
from redisq.embedded import Server
from redisq.telemetry import Carrier, instrument
from redisq.telemetry.attributes import server_of
from redisq.telemetry.links import MAX_LINKS, links_to
from tests.queues.flavours import Flavour
from tests.queues.structures import STRUCTURES
from tests.telemetry.recording import Recording, attributes, id_of, linked, push

pytestmark = pytest.mark.server


def common(span: ReadableSpan, server: Server) -> dict[str, Any]:
    """Check the attributes that all spans of the queue have, and return the others."""
    found = attributes(span)
    assert found.pop("messaging.system") == "redisq"
    assert found.pop("messaging.destination.name") == "mails"
    assert found.pop("server.address") == str(server.socket)
    return found


@STRUCTURES
def test_a_batch_from_its_push_to_its_ack(real: Flavour, server: Server, recording: Recording, structure: str) -> None:
    """One span each, with the attributes of the conventions; the reserve is linked to both pushes."""
    queue = recording.queue(real, structure)
    with recording.tracer.start_as_current_span("request") as request:
        push(real, queue, "a", "b")
    push(real, queue, "c")
    with recording.tracer.start_as_current_span("poll") as poll:
        batch = real.do(queue.reserve(10))
    assert batch.items == ["a", "b", "c"]
    real.do(batch.ack())
    first, second = recording.spans()["push mails"]
    reserve, ack = recording.span("reserve mails"), recording.span("ack mails")
    assert [span.kind for span in (first, reserve, ack)] == [SpanKind.PRODUCER, SpanKind.CLIENT, SpanKind.CLIENT]
    assert {span.status.status_code for span in (first, second, reserve, ack)} == {StatusCode.UNSET}
    assert first.parent == request.get_span_context()
    assert reserve.parent == poll.get_span_context()
    assert second.parent is ack.parent is None
    assert linked(reserve) == [id_of(first), id_of(second)]
    group = {"messaging.redisq.group": "g"} if structure == "buffer" else {}
    known = {"messaging.redisq.batch.id": batch.id, "messaging.redisq.attempts": 1, **group}
    assert common(first, server) == {
        "messaging.operation.name": "push",
        "messaging.operation.type": "send",
        "messaging.batch.message_count": 2,
        **group,
    }
    for span, verb, kind in ((reserve, "reserve", "receive"), (ack, "ack", "settle")):
        assert common(span, server) == {
            "messaging.operation.name": verb,
            "messaging.operation.type": kind,
            "messaging.batch.message_count": 3,
            **known,
        }


@STRUCTURES
def test_polls_that_find_nothing_have_no_span(real: Flavour, recording: Recording, structure: str) -> None:
    """The span of a reserve that waited begins with the call, not with the arrival of the batch."""
    queue = recording.queue(real, structure)
    assert real.do(queue.reserve()) is None
    assert real.do(queue.reserve_many(3)) == []
    assert not real.do(queue.pop())
    assert recording.spans() == {}
    waiting = real.begin(lambda: queue.reserve(timeout=20))
    real.blocked(1, waiting)
    push(real, queue, "a")
    waiting.result(20)
    reserve, pushed = recording.span("reserve mails"), recording.span("push mails")
    assert reserve.start_time
    assert pushed.start_time
    assert reserve.start_time < pushed.start_time
    assert linked(reserve) == [id_of(pushed)]


def test_every_push_and_take_of_a_buffer(real: Flavour, recording: Recording) -> None:
    """Spans are named after the methods; the number of pushed items is known once they have been read."""
    queue = recording.queue(real, "buffer")
    assert real.do(queue.push_many((str(n) for n in range(7)), "h")) == 7
    assert real.do(queue.push_many(items=["x"], group="h")) == 8
    assert real.do(queue.push_front("first", group="h")) == 9
    assert real.do(queue.pop("h", 2)) == ["first", "0"]
    assert real.do(queue.pop_longest(1, 3)) == {"h": ["1", "2", "3"]}
    assert [batch.items for batch in real.do(queue.reserve_many(2, 2))] == [["4", "5"], ["6", "x"]]
    spans = recording.spans()
    counts = {
        name: [attributes(span)["messaging.batch.message_count"] for span in found] for name, found in spans.items()
    }
    assert counts == {
        "push mails": [7, 1],
        "push_front mails": [1],
        "pop mails": [2],
        "pop_longest mails": [3],
        "reserve mails": [4],
    }
    many, one = spans["push mails"]
    front = recording.span("push_front mails")
    assert {attributes(span)["messaging.redisq.group"] for span in (many, one, front)} == {"h"}
    assert linked(recording.span("pop mails")) == [id_of(front), id_of(many)]
    assert linked(recording.span("pop_longest mails")) == [id_of(many)]
    assert linked(recording.span("reserve mails")) == [id_of(many), id_of(one)]


def test_every_push_and_take_of_a_priority_queue(real: Flavour, recording: Recording) -> None:
    """A single member is no batch, so it has no count."""
    queue = recording.queue(real, "priority")
    assert real.do(queue.push("a", payload=1)) is Pushed.ADDED
    assert real.do(queue.push_many({"b": 1, "c": 2})) == {Pushed.ADDED: 2}
    assert real.do(queue.push_many(members=[("d", 3, "payload")])) == {Pushed.ADDED: 1}
    assert real.do(queue.pop()).payload == 1
    assert [item.payload for item in real.do(queue.pop_many(5))] == [None, None, "payload"]
    one, mapping, many = recording.spans()["push mails"]
    pop, pop_many = recording.spans()["pop mails"]
    counts = [attributes(span).get("messaging.batch.message_count") for span in (one, mapping, many, pop, pop_many)]
    assert counts == [None, 2, 1, None, 3]
    assert (linked(pop), linked(pop_many)) == ([id_of(one)], [id_of(many)])


def test_a_span_of_several_batches_and_their_settlements(real: Flavour, recording: Recording) -> None:
    """It has the total number of items, and no lease id."""
    queue = recording.queue(real, "buffer")
    for group in "gh":
        real.do(queue.push("a", "b", group=group))
    assert real.do(queue.release(*real.do(queue.reserve_many(2)), reason="later")) == 4
    assert real.do(queue.bury(*real.do(queue.reserve_many(2)))) == 4
    for name in ("release mails", "bury mails"):
        found = attributes(recording.span(name))
        assert found["messaging.batch.message_count"] == 4
        assert not [key for key in found if key.startswith("messaging.redisq")]


@STRUCTURES
@pytest.mark.parametrize(
    ("error", "verb"), [(None, "ack"), (Retry(), "release"), (Bury(), "bury"), (KeyError("x"), "release")]
)
def test_the_end_of_a_with_block_has_the_span_of_its_settlement(
    real: Flavour, recording: Recording, structure: str, error: Exception | None, verb: str
) -> None:
    """None of them is an error."""
    queue = recording.queue(real, structure)
    push(real, queue, "a")
    batch = real.do(queue.reserve())

    def act() -> None:
        if error:
            raise error

    if isinstance(error, KeyError):
        with pytest.raises(KeyError):
            real.within(batch, act)
    else:
        real.within(batch, act)
    assert recording.span(f"{verb} mails").status.status_code is StatusCode.UNSET


def test_batches_are_reserved_and_acked_with_spans(real: Flavour, recording: Recording) -> None:
    """The loop makes a reserve and an ack for each batch."""
    queue = recording.queue(real, "buffer")
    push(real, queue, "a", "b")
    if real.name == "blocking":
        assert [batch.items for batch in queue.batches(1)] == [["a"], ["b"]]
    else:

        async def loop() -> list[list[str]]:
            return [batch.items async for batch in queue.batches(1)]

        assert real.do(loop()) == [["a"], ["b"]]
    assert {name: len(spans) for name, spans in recording.spans().items()} == {
        "push mails": 1,
        "reserve mails": 2,
        "ack mails": 2,
    }


@STRUCTURES
def test_errors_are_recorded_and_raised_unchanged(real: Flavour, recording: Recording, structure: str) -> None:
    """Of calls that were sent, and of those that could not be."""
    queue = recording.queue(real, structure, max_attempts=1)
    push(real, queue, "a")
    batch = real.do(queue.reserve())
    real.do(queue.purge())
    with pytest.raises(LeaseLost) as lost:
        real.do(batch.ack())
    assert lost.value.ids == [batch.id]
    with pytest.raises(CodecError):
        push(real, queue, object())  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument):
        real.do(queue.reserve(0))
    real.plain.delete(*real.plain.keys("*"))
    real.plain.set("redisq:{mails}:meta", "of another type")
    with pytest.raises(redisq.ScriptError):
        real.do(queue.reserve())
    spans = recording.spans()
    failed = [*spans["ack mails"], spans["push mails"][1], *spans["reserve mails"][1:]]
    assert [attributes(span)["error.type"] for span in failed] == [
        "LeaseLost",
        "CodecError",
        "InvalidArgument",
        "ScriptError",
    ]
    for span in failed:
        assert span.status.status_code is StatusCode.ERROR
        assert span.status.description
        assert [event.name for event in span.events] == ["exception"]
    assert "error.type" not in attributes(spans["reserve mails"][0])


def test_invalid_calls_raise_the_same_errors(real: Flavour, recording: Recording) -> None:
    """With the same text, with and without telemetry."""
    calls: list[Callable[[Any], Any]] = [
        lambda queue: queue.push("a", wrong=1),
        lambda queue: queue.push_many(),
        lambda queue: queue.push_many("text"),
        lambda queue: queue.push_many(5),
        lambda queue: queue.push("a", group=7),
        lambda queue: queue.reserve(1, 2, 3),
        lambda queue: queue.ack("no batch"),
        lambda queue: queue.push_many(["x", {1, 2}]),
    ]
    plain, watched = real.buffer("mails", codec=JSON), recording.queue(real, "buffer", codec=JSON)
    for call in calls:
        told = []
        for queue in (plain, watched):
            with pytest.raises((TypeError, AttributeError, redisq.RedisqError)) as raised:
                real.do(call(queue))
            told.append((type(raised.value), str(raised.value)))
        assert told[0] == told[1]


@pytest.mark.parametrize("structure", ["Buffer", "PriorityQueue", "asyncio.Buffer", "asyncio.PriorityQueue"])
def test_signatures_are_unchanged(recording: Recording, structure: str) -> None:
    """For readers, for `help` and for introspection."""
    client: Any = redis.asyncio.Redis() if "asyncio" in structure else redis.Redis()
    kind = getattr(redisq.asyncio if "asyncio" in structure else redisq, structure.rpartition(".")[2])
    plain, watched = kind(client, "mails"), kind(client, "mails")
    recording.instrument(watched)
    names = [name for name in dir(plain) if not name.startswith("_") and callable(getattr(plain, name))]
    for name in names:
        before, after = getattr(plain, name), getattr(watched, name)
        assert inspect.signature(before) == inspect.signature(after)
        assert inspect.iscoroutinefunction(before) == inspect.iscoroutinefunction(after)
        for what in ("__doc__", "__name__", "__qualname__"):
            assert getattr(before, what) == getattr(after, what)
    changed = set(vars(watched)) - set(vars(plain))
    assert {"push", "reserve", "ack"} <= changed <= set(names)


def test_a_cancelled_call_is_cancelled(server: Server, recording: Recording) -> None:
    """A push has a span with that error; a reserve that found nothing has none."""

    async def main() -> None:
        async with redis.asyncio.Redis(unix_socket_path=server.socket) as client:
            queue = redisq.asyncio.Buffer[Any](client, "mails", codec=Carrier(JSON))
            recording.instrument(queue)
            for call in (queue.push("a"), queue.reserve(timeout=20)):
                task = asyncio.ensure_future(call)
                await asyncio.sleep(0)  # it has sent its call, and is blocked
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert not trace.get_current_span().get_span_context().is_valid

    asyncio.run(main())
    assert list(recording.spans()) == ["push mails"]
    assert attributes(recording.span("push mails"))["error.type"] == "CancelledError"


@STRUCTURES
def test_instrumenting_twice_has_no_effect(real: Flavour, recording: Recording, structure: str) -> None:
    """And other objects are not changed."""
    queue = recording.queue(real, structure)
    other = Recording()
    other.instrument(queue, queue)
    push(real, queue, "a")
    assert list(recording.spans()) == ["push mails"]
    assert len(recording.spans()["push mails"]) == 1
    assert other.spans() == {}
    push(real, real.buffer("another"), "a")
    assert list(recording.spans()) == ["push mails"]


def test_only_queues_and_workers_can_be_instrumented(real: Flavour, recording: Recording) -> None:
    """Anything else is refused before anything is changed."""
    queue = real.buffer()
    with pytest.raises(InvalidArgument, match="give a Buffer, a PriorityQueue or a Worker"):
        recording.instrument(queue, "another")
    push(real, queue, "a")
    assert recording.spans() == {}


def test_members_stay_unique(real: Flavour, recording: Recording) -> None:
    """Each push has another context, which is only in the payload."""
    queue = recording.queue(real, "priority")
    assert [real.do(queue.push("a", 5, payload="one")), real.do(queue.push("a", 3, payload="two"))] == [
        Pushed.ADDED,
        Pushed.RAISED,
    ]
    assert real.plain.zrange("redisq:{mails}:ready", 0, -1) == [b"a"]
    stored: Any = real.plain.hgetall("redisq:{mails}:payloads")
    assert list(stored) == [b"a"]
    assert stored[b"a"].endswith(b'}\n"two"')
    batch = real.do(queue.reserve())
    assert (batch.items, batch.raw, batch.payloads) == (["a"], [b"a"], ["two"])
    assert linked(recording.span("reserve mails")) == [id_of(recording.spans()["push mails"][1])]


@STRUCTURES
def test_items_from_other_programs_are_decoded(real: Flavour, recording: Recording, structure: str) -> None:
    """From a program without telemetry, or with bytes that resemble a context."""
    queue = recording.queue(real, structure)
    plain = real.buffer("mails") if structure == "buffer" else real.queue("mails")
    push(real, plain, "plain")
    strange = b'\0otel{"traceparent":"?"}\n"strange"'
    if structure == "buffer":
        real.do(real.buffer("mails", codec=BYTES).push(strange, group="g"))
    else:
        real.do(real.queue("mails", payload_codec=BYTES).push("strange", payload=strange))
    push(real, queue, "traced")
    batch = real.do(queue.reserve(10))
    assert batch.items == ["plain", "strange", "traced"]
    if structure == "priority":
        assert batch.payloads == [{"of": "plain"}, "strange", {"of": "traced"}]
    assert linked(recording.span("reserve mails")) == [id_of(recording.span("push mails"))]


@STRUCTURES
def test_a_batch_has_at_most_128_links(real: Flavour, recording: Recording, structure: str) -> None:
    """To the first of the spans that pushed its items."""
    queue = recording.queue(real, structure)
    for n in range(130):
        push(real, queue, f"{n:03}")
    batch = real.do(queue.reserve(130))
    assert len(batch.items) == 130
    assert linked(recording.span("reserve mails")) == [id_of(span) for span in recording.spans()["push mails"][:128]]


def test_links_are_distinct_and_valid() -> None:
    """One push may be carried with different fields, and fields may have no span."""
    none = [b'{"baggage":"tenant=%d"}' % n for n in range(MAX_LINKS)]
    parent = b'"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"'
    links = links_to([*none, b"{%s}" % parent, b'{"baggage":"tenant=1",%s}' % parent])
    assert [link.context.span_id for link in links] == [0xB7AD6B7169203331]


def test_a_queue_without_a_carrier_has_spans_without_links(real: Flavour, recording: Recording) -> None:
    """And stores its items unchanged."""
    queue = recording.queue(real, "buffer", codec=JSON)
    push(real, queue, "a")
    assert real.plain.lrange("redisq:{mails}:items:g", 0, -1) == [b'"a"']
    assert linked(recording.span("push mails")) == []
    real.do(queue.reserve())
    assert linked(recording.span("reserve mails")) == []


def test_names_that_are_not_utf8_are_escaped(real: Flavour, recording: Recording) -> None:
    """An exporter could not encode them."""
    queue = real.buffer("m\udcffils")
    recording.instrument(queue)
    real.do(queue.push("a", group="g\udcff"))
    span = recording.span("push m\\udcffils")
    assert attributes(span)["messaging.destination.name"] == "m\\udcffils"
    assert attributes(span)["messaging.redisq.group"] == "g\\udcff"


def test_server_attributes_are_those_of_the_client() -> None:
    """A host with its port, a socket, a node of a cluster; with Sentinel it may be another one each time."""
    for library in (redis, redis.asyncio):
        made: Any = library
        assert server_of(made.Redis()) == {"server.address": "localhost", "server.port": 6379}
        assert server_of(made.Redis.from_url("redis://db.example:7/1")) == {
            "server.address": "db.example",
            "server.port": 7,
        }
        assert server_of(made.Redis.from_url("redis://db.example")) == {
            "server.address": "db.example",
            "server.port": 6379,
        }
        assert server_of(made.Redis(unix_socket_path="/tmp/redis.sock")) == {"server.address": "/tmp/redis.sock"}
        sentinel = made.sentinel.Sentinel([("sentinel.example", 26379)])
        assert server_of(sentinel.master_for("main")) == {}
    cluster = redis.asyncio.RedisCluster("node.example", 7000)
    assert server_of(cluster) == {"server.address": "node.example", "server.port": 7000}
    assert server_of(object()) == {}


def test_the_global_providers_are_the_default(server: Server) -> None:
    """Without any, as here, calls are unchanged."""
    with server.client() as client:
        queue = redisq.Buffer(client, "mails", codec=Carrier(JSON))
        instrument(queue)
        queue.push("a")
        assert (batch := queue.reserve())
        assert batch.raw == [b'"a"']
