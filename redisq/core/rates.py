"""How fast a queue changes, from what it held at two moments."""

from __future__ import annotations

from dataclasses import dataclass

from .documents import Stats


@dataclass(frozen=True)
class Rates:
    """Changes a second; None where they cannot be known."""

    change: float | None = None
    """Of what waits."""
    done: float | None = None
    failed: float | None = None


def rates(now: Stats | None, before: Stats | None, seconds: float) -> Rates:
    """Return how fast a queue has changed in so many seconds."""
    if now is None or before is None:
        return Rates()
    seconds = max(0.001, seconds)
    done, failed = now.done - before.done, now.failed - before.failed
    if done < 0 or failed < 0:  # purged meanwhile: the counters began anew
        return Rates()
    return Rates((now.waiting - before.waiting) / seconds, done / seconds, failed / seconds)
