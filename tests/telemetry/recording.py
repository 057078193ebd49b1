"""In-memory providers of OpenTelemetry's SDK, and queues that are instrumented with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from redisq import JSON
from redisq.telemetry import Carrier, instrument
from tests.queues.flavours import Flavour


class Recording:
    """The spans and metrics of one test."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.meters = MeterProvider([self._reader])
        self.tracer = self.tracers.get_tracer("the application")

    def instrument(self, *queues_or_workers: Any) -> None:
        """Instrument objects with these providers."""
        instrument(*queues_or_workers, tracer_provider=self.tracers, meter_provider=self.meters)

    def queue(self, real: Flavour, structure: str, **options: Any) -> Any:
        """Return an instrumented queue `mails`, whose items or payloads carry contexts."""
        if structure == "buffer":
            queue = real.buffer("mails", **{"codec": Carrier(JSON), **options})
        else:
            queue = real.queue("mails", **{"payload_codec": Carrier(JSON), **options})
        self.instrument(queue)
        return queue

    def spans(self) -> dict[str, list[ReadableSpan]]:
        """Return the spans that have ended, by name."""
        found: dict[str, list[ReadableSpan]] = {}
        for span in self._exporter.get_finished_spans():
            found.setdefault(span.name, []).append(span)
        return found

    def span(self, name: str) -> ReadableSpan:
        """Return the only span of this name."""
        (span,) = self.spans()[name]
        return span

    def points(self, name: str) -> dict[tuple[str, str | None], Any]:
        """Return the points of a metric, by operation and error."""
        data = self._reader.get_metrics_data()
        points = [
            point
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]
        return {key_of(point): point for point in points}


def key_of(point: Any) -> tuple[str, str | None]:
    """Return the operation of a point, and its error."""
    return point.attributes["messaging.operation.name"], point.attributes.get("error.type")


def linked(span: ReadableSpan) -> list[int]:
    """Return the ids of the spans that a span is linked to."""
    return [link.context.span_id for link in span.links]


def id_of(span: ReadableSpan) -> int:
    """Return a span's id."""
    return int(span.context.span_id) if span.context else 0


def attributes(span: ReadableSpan) -> dict[str, Any]:
    """Return a span's attributes."""
    return dict(span.attributes or {})


def push(real: Flavour, queue: Any, *items: str) -> None:
    """Push items into the group `g` of a buffer, or members with payloads to a priority queue, all in one call."""
    if hasattr(queue, "groups"):
        real.do(queue.push(*items, group="g"))
    else:
        members: Sequence[Any] = [(item, 0, {"of": item}) for item in items]
        real.do(queue.push_many(members))
