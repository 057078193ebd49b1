"""The tally at the end: what was pushed must be what arrived and what still waits, one by one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Line:
    """One job's part of the tally; `pushed` and `done` count each thing by its name."""

    job: str
    done_as: str
    """What happened to the things that are done: `indexed`, `sent`."""
    pushed: Counter[str]
    done: Counter[str]
    again: Counter[str]
    """Things that were handed out again because their process died: their work may have been done once more."""
    waiting: int
    refused: int = 0

    @property
    def lost(self) -> int:
        """Count what was pushed, is not done, and does not wait either."""
        return max(0, (self.pushed - self.done).total() - self.waiting)

    @property
    def twice(self) -> int:
        """Count what was done more often than it was pushed, beyond what was handed out again."""
        return (self.done - self.pushed - self.again).total()

    @property
    def repeated(self) -> int:
        """Count what was done once more because it was handed out again."""
        return (self.done - self.pushed).total() - self.twice

    @property
    def complete(self) -> bool:
        """Whether all that was pushed is done or waits, each thing once, and nothing was refused."""
        sums = self.pushed.total() == self.done.total() - self.repeated + self.waiting
        return sums and not self.lost and not self.twice and not self.refused


@dataclass(frozen=True)
class Tally:
    """The lines of all jobs, and in words what else is wrong."""

    lines: list[Line]
    faults: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every line is complete and nothing else is wrong."""
        return all(line.complete for line in self.lines) and not self.faults
