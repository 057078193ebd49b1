"""Metrics for Prometheus: of all queues of a server, and of workers. Needs the extra `prometheus`."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from time import monotonic
from typing import Any, get_args
from weakref import WeakKeyDictionary

from .asyncio import Worker as AsyncWorker
from .blocking import Client, Worker, overview
from .core import validate
from .core.batch import BatchData
from .core.buffer import BufferStats
from .core.clients import ErrorKind, errors, is_cluster, remedy_for
from .core.documents import text
from .core.observer import Observer, Outcome
from .core.queues import QueueOverview

try:
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector as _Collector
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "prometheus_client":
        raise
    raise ModuleNotFoundError(
        "redisq.metrics needs prometheus-client: pip install 'redisq-lua[prometheus]'", name=error.name
    ) from error

logger = logging.getLogger("redisq.metrics")

__all__ = ["NAMES", "Collector", "WorkerMetrics", "observe"]

_STATES = ("waiting", "leased", "delayed", "dead")
_TOTALS = {
    "done": "Items that were acked.",
    "failed": "Items that came back from a handler, or because a lease ran out, each time counted.",
    "buried": "Items that became dead letters.",
    "trimmed": "Items of dead letters that were dropped because there were more than max_dead.",
}
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)

NAMES = frozenset(
    [
        "redisq_up",
        *(f"redisq_queue_{what}" for what in ("entries", "groups", "oldest_wait_seconds", "due", "paused")),
        *(f"redisq_queue_{what}_total" for what in _TOTALS),
        *(f"redisq_worker_{what}_total" for what in ("batches", "items", "redis_errors")),
        *(f"redisq_worker_handler_seconds_{part}" for part in ("bucket", "count", "sum")),
        "redisq_worker_in_progress",
    ]
)
"""The names of all samples."""


class Collector(_Collector):
    """A collector of what the queues of a server hold; register it with a registry of prometheus-client.

    - `client`: a blocking client. It is asked in each scrape: one round trip for a hundred queues, and one more for
      each 5,000 groups of the buffer with the most of them.
    - `names`: only these queues. Without, all that are found; the server's keys are scanned for new ones every
      `refresh` seconds.

    `redisq_up` is 1 if Redis answered and 0 if not: then nothing else is exported, and the reason is logged. A queue
    whose keys have another layout is left out and logged. Counters count since the queue began or was last empty for
    seven days. No metric has a label for a group or a member. Raises `InvalidArgument` for a bad prefix, or a client of
    the other kind.
    """

    def __init__(
        self, client: Client, prefix: str = "redisq", names: Iterable[str] | None = None, *, refresh: float = 60.0
    ) -> None:
        validate.prefix(prefix)
        is_cluster(client, "blocking")
        self._unavailable: tuple[type[Exception], ...] = (OSError, *errors("RedisError", "RedisClusterException"))
        self._client = client
        self._prefix = prefix
        self._fixed = names is not None
        self._names: Sequence[str] = [] if names is None else list(names)
        for name in self._names:
            validate.key_prefix(prefix, name)
        self._refresh = validate.milliseconds("refresh", refresh) / 1000
        self._refresh_at = 0.0
        self._said: dict[str, str] = {}

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registering the collector does not ask Redis."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Ask Redis, and yield what it said."""
        up = GaugeMetricFamily("redisq_up", "Whether Redis answered: 1 if it did.")
        try:
            seen = self._look()
        except self._unavailable as error:
            remedy = remedy_for(error)
            self._log({"": f"Redis refuses: {error}; {remedy}" if remedy else f"Redis does not answer: {error}"})
            up.add_metric([], 0)
            yield up
            return
        self._log({one.info.name: f"{one.info.name} cannot be read: {one.error}" for one in seen if one.error})
        up.add_metric([], 1)
        yield up
        yield from _families(seen)

    def _look(self) -> list[QueueOverview]:
        now = monotonic()
        if self._fixed or now < self._refresh_at:
            return overview(self._client, self._prefix, self._names)
        seen = overview(self._client, self._prefix)
        self._names, self._refresh_at = [one.info.name for one in seen], now + self._refresh
        return seen

    def _log(self, said: dict[str, str]) -> None:
        """Log what is new: a scrape every few seconds must not fill the log with one outage."""
        for name, problem in said.items():
            if self._said.get(name) != problem:
                logger.warning("%s", problem)
        if "" in self._said and "" not in said:
            logger.info("Redis answers again")
        self._said = said


def _families(seen: Sequence[QueueOverview]) -> Iterator[Metric]:
    entries = GaugeMetricFamily(
        "redisq_queue_entries",
        "What a queue holds: items that wait; leased, delayed and dead batches of a buffer or members of a priority "
        "queue.",
        labels=("queue", "structure", "state"),
    )
    groups = GaugeMetricFamily("redisq_queue_groups", "Groups of a buffer that may be handed out.", labels=["queue"])
    oldest = GaugeMetricFamily(
        "redisq_queue_oldest_wait_seconds",
        "Seconds since the group that has waited longest became non-empty or was last served; absent if none waits.",
        labels=["queue"],
    )
    due = GaugeMetricFamily(
        "redisq_queue_due",
        "What has run out or is due again, and has not been taken up yet; above zero for long: no worker reserves.",
        labels=["queue"],
    )
    paused = GaugeMetricFamily("redisq_queue_paused", "Whether a queue is paused: 1 if it is.", labels=["queue"])
    totals = {
        name: CounterMetricFamily(f"redisq_queue_{name}", about, labels=["queue"]) for name, about in _TOTALS.items()
    }
    for one in seen:
        if (stats := one.stats) is None:
            continue
        queue = [text(one.info.name)]
        buffer = isinstance(stats, BufferStats)
        for state in _STATES:
            entries.add_metric([*queue, "buffer" if buffer else "priority", state], getattr(stats, state))
        if isinstance(stats, BufferStats):
            groups.add_metric(queue, stats.groups)
            if stats.oldest_wait is not None:
                oldest.add_metric(queue, stats.oldest_wait)
        due.add_metric(queue, stats.due)
        paused.add_metric(queue, stats.paused)
        for name, family in totals.items():
            family.add_metric(queue, getattr(stats, name))
    yield from (entries, groups, oldest, due, paused, *totals.values())


class _Families:
    """The metrics of all workers that share a registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        made: dict[str, Any] = {"registry": registry}
        self.batches = Counter(
            "redisq_worker_batches", "Batches, by what became of them.", ["queue", "outcome"], **made
        )
        self.items = Counter(
            "redisq_worker_items", "Items of batches that were acked: done, or marked as failed.", ["queue", "outcome"],
            **made,
        )  # fmt: skip
        self.seconds = Histogram(
            "redisq_worker_handler_seconds", "Seconds that handlers took.", ["queue"], buckets=_BUCKETS, **made
        )
        self.in_progress = Gauge(
            "redisq_worker_in_progress", "Handlers that run.", ["queue"], multiprocess_mode="livesum", **made
        )
        self.errors = Counter(
            "redisq_worker_redis_errors", "Calls and waits that Redis did not answer.", ["queue", "kind"], **made
        )


_families_of: WeakKeyDictionary[CollectorRegistry, _Families] = WeakKeyDictionary()


class WorkerMetrics(Observer):
    """An observer of a worker that counts in a registry of prometheus-client, under the name of its queue.

    Without a `registry` it counts in prometheus-client's `REGISTRY`.
    """

    def __init__(self, queue: str, registry: CollectorRegistry | None = None) -> None:
        registry = REGISTRY if registry is None else registry
        families = _families_of.get(registry)
        if families is None:
            families = _families_of[registry] = _Families(registry)
        self.registry = registry
        name = text(queue)
        self._batches = {outcome: families.batches.labels(name, outcome) for outcome in get_args(Outcome)}
        self._done, self._failed = families.items.labels(name, "done"), families.items.labels(name, "failed")
        self._seconds = families.seconds.labels(name)
        self._in_progress = families.in_progress.labels(name)
        self._errors = {kind: families.errors.labels(name, kind) for kind in get_args(ErrorKind)}

    def began(self, batch: BatchData[Any]) -> None:  # noqa: ARG002
        """Count a handler that runs."""
        self._in_progress.inc()

    def handled(self, batch: BatchData[Any], seconds: float, error: BaseException | None) -> None:  # noqa: ARG002
        """Count how long it took."""
        self._in_progress.dec()
        self._seconds.observe(seconds)

    def settled(self, batch: BatchData[Any], outcome: Outcome) -> None:
        """Count what became of a batch, and of its items."""
        self._batches[outcome].inc()
        if outcome == "acked":
            self._done.inc(len(batch.items) - len(batch.failed))
            self._failed.inc(len(batch.failed))

    def failed(self, error: Exception, kind: ErrorKind) -> None:  # noqa: ARG002
        """Count what Redis did not answer."""
        self._errors[kind].inc()


def observe(worker: Worker[Any] | AsyncWorker[Any], registry: CollectorRegistry | None = None) -> None:
    """Count what a worker does, in a registry of prometheus-client (default: its `REGISTRY`).

    Call it before the worker runs; a second time it changes nothing. Several workers of one queue are counted together.
    In several processes, use prometheus-client's multi-process mode, or `redisq worker --metrics-port`, which does.
    """
    registry = REGISTRY if registry is None else registry
    if not any(isinstance(one, WorkerMetrics) and one.registry is registry for one in worker.observers):
        worker.observers.append(WorkerMetrics(worker.queue.calls.name, registry))
