"""What the operations of the buffer and the priority queue have in common: both lease batches, and can be paused."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Generic, TypeVar

from . import validate
from .audit import Audit, AuditPage, horizon, page, run_audit
from .batch import (
    ENDED_WINDOW,
    BatchData,
    Event,
    batch_of,
    check_batch,
    no_longer_held,
    record,
    reserve_flow,
    settle,
    total,
)
from .calls import Call, as_text
from .codecs import Codec
from .errors import CodecError, LeaseLost
from .flow import Block, Flow, Pipeline
from .limiter import Rate, flatten
from .queue import QueueCalls, duration, nothing, pack, reason_bytes

T = TypeVar("T")


class LeaseCalls(QueueCalls, ABC, Generic[T]):
    """Base class of what builds the calls of a buffer or a priority queue, without sending them."""

    def __init__(
        self,
        structure: str,
        name: str,
        prefix: str,
        dedup_window: float,
        *,
        codec: Codec[T],
        lease: float,
        max_attempts: int | None,
        max_dead: int | None,
        rates: Sequence[Rate],
    ) -> None:
        super().__init__(structure, name, prefix, dedup_window)
        self.codec: Codec[T] = validate.codec("codec", codec)
        self.lease = validate.milliseconds("lease", lease, 0.001)
        self.max_attempts = validate.attempts(max_attempts)
        self._max_dead = validate.max_dead(max_dead)
        self._rates = flatten(rates)
        self._ended_window = self._window or ENDED_WINDOW  # for which the end of a lease is remembered
        self._wake = self.queue + b"wake"

    def wake_up(self, seconds: float) -> Block:
        """Return a wait for a wake-up, of so many seconds at most."""
        return Block(self._wake, seconds)

    def _reserve_flow(
        self, call: Call[list[Event[T]]], timeout: float, ack: BatchData[T] | None
    ) -> Flow[list[Event[T]]]:
        seconds = validate.milliseconds("timeout", timeout) / 1000
        return reserve_flow(call, self._wake, seconds, None if ack is None else self._ack_and_reserve(ack, call))

    def _ack_and_reserve(self, batch: BatchData[T], call: Call[list[Event[T]]]) -> Flow[list[Event[T]]]:
        acked: int | LeaseLost
        check_batch(batch)
        events: list[Event[T]] | CodecError
        acked, events = yield Pipeline([self.ack(batch), call])
        record(batch, acked)
        if isinstance(acked, LeaseLost):
            if not isinstance(events, CodecError) and (taken := batch_of(events)):
                # Whoever asked gets the error and will not know of it: others need not wait for its lease to run out.
                yield Pipeline([self.release(taken, count=False)])
            raise no_longer_held([batch.id])
        if isinstance(events, CodecError):
            raise events
        return events

    @abstractmethod
    def ack(self, batch: BatchData[T], delay: float = 0.0) -> Call[int]:
        """Settle a batch; what was marked as failed is given back."""

    def ack_all(self, batches: Sequence[BatchData[T]], delay: float = 0.0) -> Flow[int]:
        """Settle batches in one round trip."""
        return total(settle(batches, partial(self.ack, delay=delay)))

    def release(
        self, batch: BatchData[T], delay: float = 0.0, *, count: bool = True, reason: str | None = None
    ) -> Call[int]:
        """Give a batch back whole; not `count`: this hand-over is not an attempt."""
        options = self._options("release", delay=validate.milliseconds("delay", delay))
        attempt = b"count" if validate.flag("count", count) else b"forget"
        return self._settling("release", batch, options, attempt, reason_bytes(reason), b"")

    def release_all(
        self, batches: Sequence[BatchData[T]], delay: float = 0.0, *, count: bool = True, reason: str | None = None
    ) -> Flow[int]:
        """Give batches back in one round trip."""
        return total(settle(batches, partial(self.release, delay=delay, count=count, reason=reason)))

    def bury(self, batch: BatchData[T], reason: str | None = None) -> Call[int]:
        """Make a batch a dead letter now."""
        return self._settling("bury", batch, self._options("bury", max_dead=self._max_dead), reason_bytes(reason), b"")

    def bury_all(self, batches: Sequence[BatchData[T]], reason: str | None = None) -> Flow[int]:
        """Make dead letters of batches in one round trip."""
        return total(settle(batches, partial(self.bury, reason=reason)))

    def _options(self, verb: str, **numbers: int) -> bytes:
        return pack(f"{self.structure}/{verb}", "options", window=self._ended_window, **numbers)

    def _settling(self, verb: str, batch: BatchData[T], *args: bytes | int) -> Call[int]:
        name = validate.text("lease id", batch.id)
        return self._call(verb, (name, *args), int, id=name)

    def extend(self, batch: BatchData[T], lease: float | None = None) -> Call[int]:
        """Keep a batch longer; the result is its deadline, in ms."""
        term = self.lease if lease is None else validate.milliseconds("lease", lease, 0.001)
        return self._call("extend", (validate.text("lease id", batch.id), term, b""), int)

    def extend_all(self, batches: Sequence[BatchData[T]], lease: float | None = None) -> Flow[None]:
        """Keep batches longer, in one round trip."""
        for batch, deadline in (yield from settle(batches, partial(self.extend, lease=lease), ends=False)):
            batch.deadline = deadline / 1000

    def pause(self, seconds: float | None = None, reason: str = "", token: str | None = None) -> Call[None]:
        """Let the queue hand nothing out, for a time or until it is resumed."""
        once = validate.once_id(token)
        args = (duration(seconds), reason_bytes(reason), self._window, b"")
        return self._call("pause", args, nothing, token=as_text(once), id=once)

    def resume(self, token: str | None = None) -> Call[bool]:
        """End the pause of the queue, and say whether there was one."""
        once = validate.once_id(token)
        return self._call("resume", (self._window,), bool, token=as_text(once), id=once)

    def leased(self, limit: int = 100, after: str | None = None) -> Flow[list[BatchData[T]]]:
        """Show batches that are handed out, the first to run out first."""
        return self._list_batches(b"leases", limit, after)

    def _list_batches(self, state: bytes, limit: int, after: str | None) -> Flow[list[BatchData[T]]]:
        limit = validate.integer("limit", limit, 1, 1_000_000)
        most = self.limit("batches", "limit")[1]
        found: list[BatchData[T]] = []
        last = b"" if after is None else validate.text("after", after)
        while len(found) < limit:
            batches: list[BatchData[T]] = yield self._page(state, min(limit - len(found), most), last)
            if not batches:
                break
            found += batches
            last = validate.text("after", batches[-1].id)
        return found

    @abstractmethod
    def _page(self, state: bytes, limit: int, after: bytes) -> Call[list[BatchData[T]]]:
        """Show the batches of a state that come after the one with this id."""

    def audit(self, repair: bool = False, *, max_lease: float | None = None) -> Flow[Audit]:
        """Compare the keys with each other, a page at a time."""
        verb = b"repair" if repair else b"report"
        ahead = horizon(self.lease, max_lease)
        most = self.limit("audit", "limit")[1]

        def step(cursor: str) -> Call[AuditPage]:
            return self._call("audit", (cursor, most, verb, ahead, b""), page, writes=repair)

        return run_audit(step, "keys:0", repair)
