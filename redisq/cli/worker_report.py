"""What a process of `redisq worker` tells its parent, in memory that both share."""

from __future__ import annotations

from dataclasses import dataclass
from multiprocessing.context import SpawnContext
from time import monotonic
from typing import Any

from ..core.batch import BatchData, Buried
from ..core.clients import ErrorKind
from ..core.observer import Observer, Outcome

START = 60.0
"""seconds that a process has to import the user's module and begin"""


@dataclass
class Totals:
    """What processes have done."""

    acked: int = 0
    released: int = 0
    dead: int = 0
    items: int = 0


class Report:
    """Counters of one process and of those that take its place; and whether the one that runs is well."""

    def __init__(self, context: SpawnContext) -> None:
        self._counts: Any = context.RawArray("Q", 4)
        self._alive_until: Any = context.RawValue("d", 0.0)  # by the monotonic clock, which processes share
        self._answered: Any = context.RawValue("b", 0)

    @property
    def totals(self) -> Totals:
        """What was counted so far."""
        return Totals(*self._counts)

    @property
    def alive(self) -> bool:
        """Whether the process's loop turned lately, or waits for Redis."""
        return bool(monotonic() < self._alive_until.value)

    @property
    def answered(self) -> bool:
        """Whether Redis answered the process when it was last asked."""
        return bool(self._answered.value)

    def live(self, seconds: float) -> None:
        """Note that the process is alive for so long, whatever happens."""
        self._alive_until.value = monotonic() + seconds

    def note(self, answered: bool) -> None:
        """Note whether Redis has answered."""
        self._answered.value = answered

    def count(self, totals: Totals) -> None:
        """Count; one thread alone may call it."""
        for place, number in enumerate((totals.acked, totals.released, totals.dead, totals.items)):
            self._counts[place] += number


class Reporter(Observer):
    """The observer that fills a report."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def settled(self, batch: BatchData[Any], outcome: Outcome) -> None:
        """Count a batch that was acked or released."""
        if outcome == "acked":
            self._report.count(Totals(acked=1, items=len(batch.items) - len(batch.failed)))
        elif outcome == "released":
            self._report.count(Totals(released=1))

    def buried(self, dead: list[Buried]) -> None:
        """Count dead letters."""
        self._report.count(Totals(dead=len(dead)))

    def answered(self) -> None:
        """Note that Redis has answered."""
        self._report.note(True)

    def failed(self, error: Exception, kind: ErrorKind) -> None:  # noqa: ARG002
        """Note that it has not."""
        self._report.note(False)

    def alive(self, seconds: float) -> None:
        """Note that the loop is alive."""
        self._report.live(seconds)
