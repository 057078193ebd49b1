"""What makes spans and metrics, with the names of OpenTelemetry's conventions for messaging systems."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, TracerProvider

from .. import __version__
from ..core.queue import describe
from .attributes import Attributes, clean, server_of

_SCHEMA = "https://opentelemetry.io/schemas/1.30.0"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)  # what the conventions advise
_KINDS = {
    "send": SpanKind.PRODUCER,
    "receive": SpanKind.CLIENT,
    "process": SpanKind.CONSUMER,
    "settle": SpanKind.CLIENT,
}


class Recorder:
    """What the operations of one queue are recorded with."""

    def __init__(
        self, queue: Any, tracer_provider: TracerProvider | None, meter_provider: MeterProvider | None
    ) -> None:
        self._tracer = trace.get_tracer("redisq", __version__, tracer_provider, _SCHEMA)
        meter = metrics.get_meter("redisq", __version__, meter_provider, _SCHEMA)
        self._durations = meter.create_histogram(
            "messaging.client.operation.duration",
            "s",
            "Duration of messaging operation initiated by a producer or consumer client.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._process_durations = meter.create_histogram(
            "messaging.process.duration",
            "s",
            "Duration of processing operation.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._sent = meter.create_counter(
            "messaging.client.sent.messages",
            "{message}",
            "Number of messages producer attempted to send to the broker.",
        )
        self._consumed = meter.create_counter(
            "messaging.client.consumed.messages",
            "{message}",
            "Number of messages that were delivered to the application.",
        )
        self._name = clean(queue.calls.name)
        self._queue = {
            "messaging.system": "redisq",
            "messaging.destination.name": self._name,
            **server_of(queue.client),
        }

    def start(
        self,
        verb: str,
        kind: str,
        attributes: Attributes,
        links: Sequence[Link] = (),
        *,
        context: Context | None = None,
        start_time: int | None = None,
    ) -> Span:
        """Start a span; `kind` is the operation's type, and `start_time` is in ns."""
        attributes = {**self._attributes(verb, kind), **attributes}
        return self._tracer.start_span(
            f"{verb} {self._name}", context, _KINDS[kind], attributes, links, start_time=start_time
        )

    def took(self, verb: str, kind: str, seconds: float, error: str | None = None) -> None:
        """Record how long an operation took."""
        durations = self._process_durations if kind == "process" else self._durations
        durations.record(seconds, self._attributes(verb, kind, error))

    def sent(self, verb: str, count: int, error: str | None = None) -> None:
        """Count messages that were sent, whatever came of it."""
        self._sent.add(count, self._attributes(verb, "send", error))

    def consumed(self, verb: str, kind: str, count: int) -> None:
        """Count messages that were handed to the application."""
        self._consumed.add(count, self._attributes(verb, kind))

    def _attributes(self, verb: str, kind: str, error: str | None = None) -> dict[str, Any]:
        failed = {} if error is None else {"error.type": error}
        return {**self._queue, "messaging.operation.name": verb, "messaging.operation.type": kind, **failed}


def fail(span: Span, error: BaseException | str) -> None:
    """Note on a span that its operation has failed: by what was raised, or why."""
    if isinstance(error, str):
        span.set_status(Status(StatusCode.ERROR, error))
    else:
        span.set_status(Status(StatusCode.ERROR, clean(describe(error))))
        with contextlib.suppress(Exception):  # one that cannot be shown
            span.record_exception(error)
    span.set_attribute("error.type", error if isinstance(error, str) else type(error).__qualname__)


def error_type(error: BaseException | None) -> str | None:
    """Return what `error.type` says of an error."""
    return None if error is None else type(error).__qualname__
