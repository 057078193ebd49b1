"""Spans of workers: of handlers and the calls in them, of settlements, and links to other processes' pushes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable
from time import time_ns
from typing import Any

import pytest
import redis.asyncio
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode, format_span_id

import redisq.asyncio
from redisq import BYTES, JSON, Bury, Retry
from redisq.core.observer import Observer
from redisq.embedded import Server
from redisq.telemetry import Carrier
from tests.queues.flavours import TIMEOUT, Flavour
from tests.queues.structures import STRUCTURES
from tests.telemetry.recording import Recording, attributes, id_of, linked, push

pytestmark = pytest.mark.server

PRODUCER = """
import sys
import redis, redisq
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from redisq.telemetry import Carrier, instrument

exporter = InMemorySpanExporter()
trace.set_tracer_provider(provider := TracerProvider())
provider.add_span_processor(SimpleSpanProcessor(exporter))
with redis.Redis(unix_socket_path=sys.argv[1]) as client:
    if sys.argv[2] == "buffer":
        queue = redisq.Buffer(client, "mails", codec=Carrier(redisq.JSON))
        instrument(queue)
        queue.push("a", "b", group="g")
    else:
        queue = redisq.PriorityQueue(client, "mails", payload_codec=Carrier(redisq.JSON))
        instrument(queue)
        queue.push_many([("a", 0, 1), ("b", 0, 2)])
(span,) = exporter.get_finished_spans()
print(format(span.context.span_id, "016x"))
"""


def short_backoff(_: int) -> float:
    return 0.0


def work(
    real: Flavour, recording: Recording, queue: Any, handle: Callable[[Any], object], **options: Any
) -> dict[str, list[ReadableSpan]]:
    """Run a worker for one batch, or for `max_batches`, and return the spans."""
    worker = real.worker(queue, handle, **{"size": 10, "backoff": short_backoff, "max_batches": 1, **options})
    recording.instrument(worker)
    real.do(worker.run())
    return recording.spans()


@STRUCTURES
def test_a_handlers_span_is_linked_to_the_producer_in_another_process(
    real: Flavour, server: Server, recording: Recording, structure: str
) -> None:
    """The handler's own calls are in its trace, and so is the ack that follows it."""
    producer = [sys.executable, "-c", PRODUCER, str(server.socket), structure]
    pushed = subprocess.run(producer, check=True, capture_output=True, text=True).stdout.strip()
    queue, others = recording.queue(real, structure), real.buffer("others")
    recording.instrument(others)
    held = []

    def handle(batch: Any) -> None:
        held.append(batch)
        with recording.tracer.start_as_current_span("look up"):
            pass
        others.calls.push(["x"])  # spans are made for calls of the queue only

    with recording.tracer.start_as_current_span("the program"):
        work(real, recording, queue, handle)
    spans = recording.spans()
    (process,), (ack,), (inner,) = spans["process mails"], spans["ack mails"], spans["look up"]
    assert [format_span_id(span_id) for span_id in linked(process)] == [pushed]
    assert (process.kind, ack.kind) == (SpanKind.CONSUMER, SpanKind.CLIENT)
    assert process.parent is None  # not the span of the program, which may last for days
    for child in (ack, inner):
        assert child.parent
        assert child.parent.span_id == id_of(process)
    known = {
        "messaging.system": "redisq",
        "messaging.destination.name": "mails",
        "server.address": str(server.socket),
        "messaging.batch.message_count": 2,
        "messaging.redisq.batch.id": held[0].id,
        "messaging.redisq.attempts": 1,
        **({"messaging.redisq.group": "g"} if structure == "buffer" else {}),
    }
    assert attributes(process) == {
        **known,
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
    }
    assert attributes(ack) == {**known, "messaging.operation.name": "ack", "messaging.operation.type": "settle"}
    assert process.end_time
    assert ack.start_time
    assert ack.end_time
    assert process.end_time <= ack.start_time <= ack.end_time
    assert {span.status.status_code for span in (process, ack)} == {StatusCode.UNSET}
    assert set(spans) == {"process mails", "ack mails", "look up", "the program"}


def test_a_settlements_span_lasts_from_the_end_of_the_handler_to_the_answer(
    real: Flavour, recording: Recording
) -> None:
    """Compared with the times at which a later observer is called."""
    queue = recording.queue(real, "buffer")
    push(real, queue, "a")
    told: list[int] = []

    class Clock(Observer):
        def handled(self, *_: object) -> None:
            told.append(time_ns())

        def answered(self) -> None:
            told.append(time_ns())

    worker = real.worker(queue, lambda _: None, max_batches=1)
    recording.instrument(worker)
    worker.observers.append(Clock())
    real.do(worker.run())
    *_, handled, answered = told
    ack = recording.span("ack mails")
    assert ack.start_time
    assert ack.end_time
    assert ack.start_time <= handled
    assert answered <= ack.end_time
    duration = recording.points("messaging.client.operation.duration")["ack", None].sum
    assert duration == pytest.approx((ack.end_time - ack.start_time) / 1e9, abs=0.01)


@STRUCTURES
@pytest.mark.parametrize(
    ("error", "verb"), [(Retry(0.0, False, "busy"), "release"), (Bury("wrong"), "bury"), (ValueError("x"), "release")]
)
def test_exceptions_of_a_handler(
    real: Flavour, recording: Recording, structure: str, error: Exception, verb: str
) -> None:
    """Retry is not an error, any other exception is recorded; the settlement succeeds each time."""
    queue = recording.queue(real, structure)
    push(real, queue, "a")
    pushed = id_of(recording.span("push mails"))
    raised = [error]

    def handle(_: Any) -> None:
        if raised:
            raise raised.pop()

    spans = work(real, recording, queue, handle, max_batches=1 if verb == "bury" else 2)
    process, settle = spans["process mails"][0], spans[f"{verb} mails"][0]
    assert settle.parent == process.context
    assert settle.status.status_code is StatusCode.UNSET
    assert linked(process) == [pushed]
    (event,) = process.events
    if isinstance(error, Retry):
        assert process.status.status_code is StatusCode.UNSET
        assert "error.type" not in attributes(process)
        assert (event.name, dict(event.attributes or {})) == (
            "retry",
            {"messaging.redisq.delay": 0.0, "messaging.redisq.count": False, "messaging.redisq.reason": "busy"},
        )
    else:
        assert process.status.status_code is StatusCode.ERROR
        assert attributes(process)["error.type"] == type(error).__name__
        assert (event.name, (event.attributes or {})["exception.message"]) == ("exception", str(error))
    if verb == "release":
        again = spans["process mails"][1]
        assert attributes(again)["messaging.redisq.attempts"] == (1 if isinstance(error, Retry) else 2)
        assert linked(again) == [pushed]
        assert again.context
        assert process.context
        assert again.context.trace_id != process.context.trace_id


@STRUCTURES
def test_a_batch_that_the_handler_settles_has_one_settlement_span(
    real: Flavour, recording: Recording, structure: str
) -> None:
    """Inside the handler's span; also if the lease turns out to be lost."""
    queue = recording.queue(real, structure)
    push(real, queue, "a")
    library = real.library

    def settle(batch: Any) -> None:
        batch.ack()

    async def settle_async(batch: Any) -> None:
        await batch.ack()

    worker = library.Worker(queue, settle if real.name == "blocking" else settle_async)
    recording.instrument(worker)
    real.do(worker.run(burst=True))
    assert recording.span("ack mails").parent == recording.span("process mails").context


@STRUCTURES
def test_a_lost_lease_is_recorded_by_the_settlement(real: Flavour, recording: Recording, structure: str) -> None:
    """The handler has done its work, and another worker does it again."""
    queue = recording.queue(real, structure)
    push(real, queue, "a")
    plain = redisq.Buffer(real.plain, "mails") if structure == "buffer" else redisq.PriorityQueue(real.plain, "mails")
    spans = work(real, recording, queue, lambda _: plain.purge())
    (process,), (ack,) = spans["process mails"], spans["ack mails"]
    assert process.status.status_code is StatusCode.UNSET
    assert (ack.status.status_code, attributes(ack)["error.type"]) == (StatusCode.ERROR, "LeaseLost")
    assert ack.parent == process.context


def test_the_release_of_a_stopped_worker_is_recorded(server: Server, recording: Recording) -> None:
    """The handler was cancelled and its batch released."""

    async def main() -> None:
        async with redis.asyncio.Redis(unix_socket_path=server.socket) as client:
            queue = redisq.asyncio.Buffer[Any](client, "mails", codec=Carrier(JSON))
            begun = asyncio.Event()

            async def handle(_: object) -> None:
                begun.set()
                await asyncio.Event().wait()

            worker = redisq.asyncio.Worker(queue, handle, grace=0)
            recording.instrument(worker)
            await queue.push("a")
            async with worker:
                await asyncio.wait_for(begun.wait(), TIMEOUT)

    asyncio.run(main())
    process, release = recording.span("process mails"), recording.span("release mails")
    assert attributes(process)["error.type"] == "CancelledError"
    assert release.parent == process.context
    assert [operation for operation, _ in recording.points("messaging.client.operation.duration")] == [
        *("push", "release")
    ]


def test_a_batch_that_cannot_be_decoded_is_released(real: Flavour, recording: Recording) -> None:
    """No handler sees it, so there is no process span."""
    queue = recording.queue(real, "buffer", max_attempts=1)
    real.do(real.buffer("mails", codec=BYTES).push(b"{"))
    worker = real.worker(queue, lambda _: None)
    recording.instrument(worker)
    real.do(worker.run(burst=True))
    assert set(recording.spans()) == {"release mails"}
    assert recording.span("release mails").parent is None


def test_concurrent_batches_have_separate_traces(real: Flavour, recording: Recording) -> None:
    """Each handler's span is current only in its own thread or task."""
    queue = recording.queue(real, "buffer")
    for group in "abc":
        real.do(queue.push("x", group=group))
    together = threading.Barrier(3) if real.name == "blocking" else None
    current: dict[str, int] = {}

    def handle(batch: Any) -> None:
        if together:
            together.wait(TIMEOUT)
        current[batch.group] = trace.get_current_span().get_span_context().span_id

    spans = work(real, recording, queue, handle, concurrency=3, max_batches=3)
    assert current == {attributes(span)["messaging.redisq.group"]: id_of(span) for span in spans["process mails"]}
    acks = {attributes(span)["messaging.redisq.group"]: span.parent for span in spans["ack mails"]}
    assert {group: parent.span_id for group, parent in acks.items() if parent} == current
    assert len(set(current.values())) == 3


def test_instrumenting_twice_has_no_effect(real: Flavour, recording: Recording) -> None:
    """The queue of a worker is instrumented with it."""
    queue = real.buffer("mails")
    worker = real.worker(queue, lambda _: None)
    recording.instrument(worker)
    handler, observers = worker.handler, list(worker.observers)
    recording.instrument(worker, queue)
    assert (worker.handler, worker.observers) == (handler, observers)
    push(real, queue, "a")
    real.do(worker.run(burst=True))
    assert {name: len(spans) for name, spans in recording.spans().items()} == {
        "push mails": 1,
        "process mails": 1,
        "ack mails": 1,
    }
    (observer,) = worker.observers
    assert not observer._parents  # finished spans are not kept
    assert not observer._asked
