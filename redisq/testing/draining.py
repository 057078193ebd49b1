"""Working a queue off inside a test, in either flavour, by the worker that the application runs."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any

from ..asyncio import Worker as AsyncWorker
from ..blocking import Worker
from ..core import validate
from ..core.batch import BatchData, Buried
from ..core.clients import ErrorKind
from ..core.errors import Bury, CodecError, InvalidArgument, RedisqError, Retry
from ..core.observer import Observer, Outcome

_HOOKS = ("backoff", "reason", "on_ack", "on_release", "on_dead")


@dataclass(frozen=True)
class Drained:
    """What happened while a queue was worked off; the counts are of batches, each hand-over counted."""

    acked: int = 0
    """Batches whose handler returned."""
    released: int = 0
    """Batches that were given back, because their handler raised an exception, `Retry` for instance."""
    buried: int = 0
    """Batches whose handler raised `Bury`."""
    settled: int = 0
    """Batches that their handler settled itself."""
    lost: int = 0
    """Batches whose lease was lost before they were settled."""
    failed: int = 0
    """Items that handlers marked by `Batch.fail`, in batches that were acked."""
    dead: list[Buried] = field(default_factory=list)
    """What became a dead letter, in order: also of batches that had used their attempts."""
    errors: list[BaseException] = field(default_factory=list)
    """What handlers and hooks raised, in order, without `Retry` and `Bury`."""

    @property
    def batches(self) -> int:
        """The number of hand-overs."""
        return self.acked + self.released + self.buried + self.settled + self.lost


def drain(worker: Worker[Any], *, raise_errors: bool = True, limit: int = 10_000) -> Drained:
    """Run a worker until nothing can be reserved any more, and return what happened.

    It is `worker.run(burst=True)`, with all that the worker does: handlers run in threads, what fails is released with
    its backoff. What is due later is not waited for: delays, backoffs, rates, pauses, groups below `min_size`. On a
    `Fake`, move its clock and drain again.

    At the end the first exception of a handler is raised, as it is (`Retry` and `Bury` are none), or the `CodecError`
    of a batch that cannot be decoded, or else the first exception of a hook (`on_ack`, `backoff`, ...); a worker only
    logs them. With `raise_errors=False` they are in `errors`. Raises the error of a Redis that does not answer, instead
    of waiting for it, `RedisqError` after `limit` batches, for a handler whose work never ends, and `InvalidArgument`
    for anything but a blocking worker.
    """
    if not isinstance(worker, Worker):
        instead = "await drain_async(worker)" if isinstance(worker, AsyncWorker) else "give a redisq.Worker"
        raise InvalidArgument(f"worker is {worker!r}: {instead}")
    with _watching(worker, limit) as record:
        worker.run(burst=True)
    return record.result(raise_errors)


async def drain_async(worker: AsyncWorker[Any], *, raise_errors: bool = True, limit: int = 10_000) -> Drained:
    """Run an asyncio worker until nothing can be reserved any more, as `drain` does, and return what happened."""
    if not isinstance(worker, AsyncWorker):
        instead = "call drain(worker)" if isinstance(worker, Worker) else "give a redisq.asyncio.Worker"
        raise InvalidArgument(f"worker is {worker!r}: {instead}")
    with _watching(worker, limit) as record:
        await worker.run(burst=True)
    return record.result(raise_errors)


class _Record(Observer):
    def __init__(self, stop: Callable[[], None], limit: int, on_release: Callable[..., Any] | None) -> None:
        self._stop = stop
        self._on_release = on_release
        self._limit = validate.integer("limit", limit, 1, 10**12)
        self._failed = 0
        self._outcomes: Counter[Outcome] = Counter()
        self._dead: list[Buried] = []
        self._raised: list[BaseException] = []
        self._hooks: list[BaseException] = []
        self._ended: BaseException | None = None  # what ended the run too early

    def handled(self, batch: BatchData[Any], seconds: float, error: BaseException | None) -> None:  # noqa: ARG002
        if error is not None and not isinstance(error, (Retry, Bury)):
            self._raised.append(error)

    def settled(self, batch: BatchData[Any], outcome: Outcome) -> None:
        self._outcomes[outcome] += 1
        if outcome == "acked":
            self._failed += len(batch.failed)
        if sum(self._outcomes.values()) > self._limit and self._ended is None:
            self._ended = RedisqError(
                f"the queue is not empty after {self._limit} batches, and the last was {batch!r}: does a handler push "
                "or release what it works on, without a delay? Else give a higher limit"
            )
            self._stop()

    def buried(self, dead: list[Buried]) -> None:
        self._dead += dead

    def failed(self, error: Exception, kind: ErrorKind) -> None:
        if kind in ("unavailable", "shortage") and self._ended is None:
            self._ended = error
            self._stop()
            self._stop()  # without the grace: nothing can be settled

    def hook(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        """Return the hook with its exceptions noted."""

        @wraps(hook)
        def noting(*what: Any) -> Any:
            try:
                return hook(*what)
            except BaseException as error:
                self._hooks.append(error)
                raise

        return noting

    def on_release(self, batch: BatchData[Any], error: BaseException | None) -> None:
        """Note that a batch was given back because it cannot be decoded: no handler has seen it."""
        if isinstance(error, CodecError) and error not in self._raised:
            self._raised.append(error)
        if self._on_release is not None:
            self._on_release(batch, error)

    def result(self, raise_errors: bool) -> Drained:
        if self._ended is not None:
            raise self._ended
        errors = self._raised + self._hooks
        if errors and raise_errors:
            raise errors[0]
        count = self._outcomes
        return Drained(
            acked=count["acked"],
            released=count["released"],
            buried=count["buried"],
            settled=count["settled"],
            lost=count["lost"],
            failed=self._failed,
            dead=self._dead,
            errors=errors,
        )


@contextlib.contextmanager
def _watching(worker: Any, limit: int) -> Iterator[_Record]:
    """Observe a worker's next run; its settings are as before at the end."""
    settings, signals, observers = worker.settings, worker.signals, worker.observers
    record = _Record(worker.stop, limit, settings.on_release)
    watched = replace(settings, on_release=record.on_release)
    hooks = {name: record.hook(hook) for name in _HOOKS if (hook := getattr(watched, name)) is not None}
    worker.settings, worker.observers = replace(watched, **hooks), [*observers, record]
    worker.signals = False  # Ctrl-C is to end the test, not the worker alone
    try:
        yield record
    finally:
        worker.settings, worker.signals, worker.observers = settings, signals, observers
