"""Durations, as people type and read them: `500ms`, `90s`, `10m`, `1h30m`, `7d`."""

from __future__ import annotations

import math
import re

_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1, "ms": 0.001}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ms|[smhd])")
_PARTS = re.compile(f"(?:{_PART.pattern})+")


def seconds(text: str) -> float:
    """Read a duration; a plain number is in seconds, and what is none is NaN."""
    if _PARTS.fullmatch(text):
        return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    try:
        return float(text)
    except ValueError:
        return math.nan


def span(seconds: float) -> str:
    """Return a duration as `seconds` reads it, with its two largest units."""
    if seconds < 1:
        return f"{max(seconds, 0) * 1000:.0f}ms" if round(seconds * 1000) < 1000 else "1s"
    if seconds < 9.95 and not float(seconds).is_integer():
        return f"{seconds:.1f}s"
    rest = round(seconds)
    for (large, size), (small, part) in (
        (("d", 86_400), ("h", 3_600)),
        (("h", 3_600), ("m", 60)),
        (("m", 60), ("s", 1)),
    ):
        if rest >= size:
            more = rest % size // part
            return f"{rest // size}{large}" + (f"{more}{small}" if more else "")
    return f"{rest}s"
