"""Links from what is received to the spans that have pushed it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link

from ..core.batch import BatchData
from .carrier import fields_of, read_fields

MAX_LINKS = 128
"""The links of a span: as many as an SDK keeps by default."""


def batch_links(batch: BatchData[Any]) -> list[Link]:
    """Return links to the spans that have pushed the items of a batch, or the payloads of its members."""
    stored = batch.raw if batch.raw_payloads is None else [raw for raw in batch.raw_payloads if raw is not None]
    return links_to(dict.fromkeys(fields for raw in stored if (fields := fields_of(raw)) is not None))


def links_to(carried: Iterable[bytes]) -> list[Link]:
    """Return links to the spans of carried contexts, each once."""
    found: dict[tuple[int, int], Link] = {}
    for fields in carried:
        if len(found) == MAX_LINKS:
            break
        span = trace.get_current_span(read_fields(fields) or Context()).get_span_context()
        if span.is_valid:
            found.setdefault((span.trace_id, span.span_id), Link(span))
    return list(found.values())
