"""Durations as options: `500ms`, `90s`, `10m`, `1h30m`, `7d`."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

from ..core.durations import seconds as seconds_of
from ..core.durations import span
from ..core.validate import MAX_SECONDS

__all__ = ["duration", "span"]


def duration(low: float = 0.001, high: float = MAX_SECONDS) -> Callable[[str], float]:
    """Return a function that reads a duration from `low` to `high` seconds; a plain number is in seconds."""

    def read(text: str) -> float:
        seconds = seconds_of(text.strip())
        if math.isnan(seconds):
            raise argparse.ArgumentTypeError(f"{text} is not a duration: give 90, 500ms, 90s, 10m, 1h30m or 7d")
        if not low <= seconds <= high:
            raise argparse.ArgumentTypeError(f"{text} is out of range: give {span(low)} to {span(high)}")
        return seconds

    return read
