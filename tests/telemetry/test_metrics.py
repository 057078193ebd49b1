"""Metrics: durations and counts by operation, with few attributes, named by the conventions."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from redisq import Bury, LeaseLost, Retry
from tests.queues.flavours import Flavour
from tests.queues.structures import STRUCTURES
from tests.telemetry.recording import Recording, push

pytestmark = pytest.mark.server
DURATION = "messaging.client.operation.duration"
SENT = "messaging.client.sent.messages"
CONSUMED = "messaging.client.consumed.messages"
PROCESS = "messaging.process.duration"


@STRUCTURES
def test_calls_of_a_queue_are_measured(real: Flavour, recording: Recording, structure: str) -> None:
    """Calls and messages; polls that find nothing count as neither."""
    queue = recording.queue(real, structure)
    push(real, queue, "a", "b")
    push(real, queue, "c")
    assert len(real.do(queue.reserve(2)).items) == 2
    batch = real.do(queue.reserve(2))
    assert real.do(queue.reserve(2)) is None
    real.do(batch.ack())
    durations = recording.points(DURATION)
    assert {key: point.count for key, point in durations.items()} == {
        ("push", None): 2,
        ("reserve", None): 2,
        ("ack", None): 1,
    }
    assert {key: point.value for key, point in recording.points(SENT).items()} == {("push", None): 3}
    assert {key: point.value for key, point in recording.points(CONSUMED).items()} == {("reserve", None): 3}
    spans = sum((span.end_time or 0) - (span.start_time or 0) for span in recording.spans()["push mails"])
    assert durations["push", None].sum == pytest.approx(spans / 1e9, abs=0.01)
    assert durations["push", None].explicit_bounds[0] == 0.005


@STRUCTURES
def test_failed_calls_are_measured_separately(real: Flavour, recording: Recording, structure: str) -> None:
    """Items that could not be encoded do not count as sent."""
    queue = recording.queue(real, structure)
    push(real, queue, "a")
    batch = real.do(queue.reserve())
    real.do(queue.purge())
    with pytest.raises(LeaseLost):
        real.do(batch.ack())
    with pytest.raises(ValueError, match="token"):
        real.do(queue.push("a", token=""))
    assert set(recording.points(DURATION)) == {
        ("push", None),
        ("push", "InvalidArgument"),
        ("reserve", None),
        ("ack", "LeaseLost"),
    }
    assert set(recording.points(SENT)) == {("push", None)}


@STRUCTURES
def test_a_worker_is_measured(real: Flavour, recording: Recording, structure: str) -> None:
    """Handlers by their exceptions, except Retry, which is no error; and the settlements of the loop."""
    queue = recording.queue(real, structure)
    push(real, queue, "a")
    answers = [Bury(), ValueError(), Retry(0)]

    def handle(_: Any) -> None:
        raise answers.pop()

    worker = real.worker(queue, handle, backoff=lambda _: 0.0, max_batches=3)
    recording.instrument(worker)
    real.do(worker.run())
    assert {key: point.count for key, point in recording.points(PROCESS).items()} == {
        ("process", None): 1,
        ("process", "ValueError"): 1,
        ("process", "Bury"): 1,
    }
    assert {key: point.count for key, point in recording.points(DURATION).items()} == {
        ("push", None): 1,
        ("release", None): 2,
        ("bury", None): 1,
    }
    assert {key: point.value for key, point in recording.points(CONSUMED).items()} == {("process", None): 3}


@STRUCTURES
def test_attributes_are_few_and_follow_the_conventions(real: Flavour, recording: Recording, structure: str) -> None:
    """No groups, members or batches, which are too many; the names are from OpenTelemetry's list."""
    queue = recording.queue(real, structure)
    push(real, queue, "a")
    worker = real.worker(queue, lambda _: None)
    recording.instrument(worker)
    real.do(worker.run(burst=True))
    incubating = "opentelemetry.semconv._incubating"
    listed = importlib.import_module(f"{incubating}.metrics.messaging_metrics")
    metrics = {value for name, value in vars(listed).items() if name.startswith("MESSAGING_")}
    known = {"server.address", "server.port", "error.type"}
    listed = importlib.import_module(f"{incubating}.attributes.messaging_attributes")
    known |= {value for name, value in vars(listed).items() if name.startswith("MESSAGING_")}
    types = {one.value for one in listed.MessagingOperationTypeValues}
    for name in (DURATION, SENT, CONSUMED, PROCESS):
        assert name in metrics
        for point in recording.points(name).values():
            assert point.attributes["messaging.operation.type"] in types
            assert set(point.attributes) == {
                "messaging.system",
                "messaging.destination.name",
                "messaging.operation.name",
                "messaging.operation.type",
                "server.address",
            }
            assert set(point.attributes) <= known
    for spans in recording.spans().values():
        for span in spans:
            assert {one for one in span.attributes or {} if not one.startswith("messaging.redisq.")} <= known
