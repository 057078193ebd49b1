"""What watches a worker: the base class of metrics, traces and health checks. No I/O."""

from __future__ import annotations

from typing import Any, Literal

from .batch import BatchData, Buried
from .clients import ErrorKind

Outcome = Literal["acked", "released", "buried", "lost", "settled", "abandoned"]
"""What became of a batch: `lost` to another worker, `settled` by its handler, `abandoned` because Redis did not answer
and the worker had to end."""

ALIVE = 30.0
"""seconds within which a loop that is alive says so again"""
BEAT = 5.0
"""seconds after which it does"""


class Observer:
    """Base class of what watches a worker; each method does nothing, override those you need.

    Add one to `worker.observers` before the worker runs. The methods are called in the worker's loop, one at a time, so
    they should be short; by a blocking worker with `concurrency=1` also in the handler's thread. What they raise is
    logged, and changes nothing.
    """

    def began(self, batch: BatchData[Any]) -> None:
        """Take in that a handler is given a batch."""

    def handled(self, batch: BatchData[Any], seconds: float, error: BaseException | None) -> None:
        """Take in that a handler has ended, or that its time is over, after so many seconds; `error` is what it raised.

        What follows it is in `settled`.
        """

    def settled(self, batch: BatchData[Any], outcome: Outcome) -> None:
        """Take in what became of a batch, once Redis has answered."""

    def buried(self, dead: list[Buried]) -> None:
        """Take in what became dead letters, by a reserve or because a handler asked for it."""

    def answered(self) -> None:
        """Take in that Redis has answered a turn of the loop."""

    def failed(self, error: Exception, kind: ErrorKind) -> None:
        """Take in that a turn, or a wait, was not answered, and which kind of trouble that is."""

    def alive(self, seconds: float) -> None:
        """Take in that the loop is alive, and will say so again within so many seconds; infinite while it waits for
        Redis, whose absence is not the worker's fault."""
