"""The budgets, in thousands of instructions for one call, and which figures exceed theirs."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..measure import spread

TOLERANCE = 0.05
BUDGETS: dict[tuple[str, int], float] = {
    ("buffer/push", 1): 82,
    ("buffer/push", 100): 305,
    ("buffer/reserve", 1): 180,
    ("buffer/reserve", 100): 470,
    ("buffer/ack", 1): 85,
    ("buffer/ack", 100): 85,
    ("buffer/pop", 1): 85,
    ("buffer/pop_longest", 10): 175,
    ("priority/push", 1): 100,
    ("priority/push", 100): 1420,
    ("priority/pop", 1): 90,
    ("priority/pop", 100): 1070,
    ("priority/reserve", 1): 185,
    ("priority/reserve", 100): 1500,
    ("priority/ack", 1): 110,
    ("priority/ack", 100): 650,
    ("priority/release", 100): 2900,
    ("limit/acquire", 1): 130,
}


@dataclass(frozen=True)
class Figure:
    """Thousands of instructions for one call, one value for each round."""

    name: str
    size: int
    rounds: list[float]

    @property
    def median(self) -> float:
        """What counts."""
        return statistics.median(self.rounds)

    @property
    def budget(self) -> float | None:
        """Its budget, if it has one."""
        return BUDGETS.get((self.name, self.size))

    @property
    def exceeded(self) -> bool:
        """Whether it is above its budget by more than the tolerance."""
        return self.budget is not None and self.median > self.budget * (1 + TOLERANCE)

    def row(self) -> dict[str, Any]:
        """Return it as it stands in the results."""
        return {
            "name": self.name,
            "size": self.size,
            "k_instructions": spread(self.rounds, 4),
            "budget": self.budget,
        }


def exceeded(figures: Iterable[Figure]) -> list[str]:
    """Return a line for each budget that is exceeded."""
    return [
        f"{one.name}, size {one.size}: {one.median:,.1f} k instructions, {one.median / one.budget - 1:.0%} above "
        f"its budget of {one.budget:g} k"
        for one in figures
        if one.exceeded and one.budget
    ]
