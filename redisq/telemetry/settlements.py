"""Settlements of a worker: what its loop does with batches whose handlers have ended."""

from __future__ import annotations

from time import perf_counter, time_ns
from typing import Any, NamedTuple

from opentelemetry.context import Context

from ..core.batch import BatchData
from ..core.errors import Bury
from ..core.observer import Observer, Outcome
from .attributes import batch_attributes
from .recorder import Recorder, fail


class _Settlement(NamedTuple):
    """What is to become of a batch whose handler has ended, and since when."""

    verb: str
    since: int
    """In ns since 1970."""
    clock: float


class Settlements(Observer):
    """Spans of what a worker's loop does with batches: from the end of the handler until Redis has answered.

    So they contain the wait for the loop's turn and, while Redis is unavailable, every try.
    """

    def __init__(self, recorder: Recorder, parents: dict[str, Context]) -> None:
        self._recorder = recorder
        self._parents = parents
        self._asked: dict[str, _Settlement] = {}

    def began(self, batch: BatchData[Any]) -> None:
        """Count what was handed out; there is no span for it, since nobody has asked for this batch."""
        self._recorder.consumed("process", "process", len(batch.items))

    def handled(self, batch: BatchData[Any], seconds: float, error: BaseException | None) -> None:  # noqa: ARG002
        """Note when the batch began to wait for its settlement."""
        if not batch.settled:
            verb = "ack" if error is None else "bury" if isinstance(error, Bury) else "release"
            self._asked[batch.id] = _Settlement(verb, time_ns(), perf_counter())

    def settled(self, batch: BatchData[Any], outcome: Outcome) -> None:
        """Make the span of a settlement."""
        asked = self._asked.pop(batch.id, None)
        parent = self._parents.pop(batch.id, None) or Context()
        if asked is None and outcome in ("settled", "lost"):
            return  # by a call of the handler's, which has a span of its own, or found out when the lease was extended
        error = {"lost": "LeaseLost", "abandoned": "abandoned"}.get(outcome)
        # Without a handler it is given back, because it cannot be decoded: only the moment of the answer is known.
        verb, since = (asked.verb, asked.since) if asked else ("release", time_ns())
        span = self._recorder.start(verb, "settle", batch_attributes([batch]), context=parent, start_time=since)
        if error is not None:
            fail(span, error)
        if asked:
            self._recorder.took(verb, "settle", perf_counter() - asked.clock, error)
        span.end()
