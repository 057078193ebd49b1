"""How long the fault tests run, and from which seed: `CHAOS_MINUTES` (0: the short form, for CI) and `CHAOS_SEED`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import TypeVar

import pytest

N = TypeVar("N")

SEED = int(os.environ.get("CHAOS_SEED") or 1)
MINUTES = float(os.environ.get("CHAOS_MINUTES") or 0)
LONG = MINUTES > 0

# The long form runs as long as it was told to, but not forever.
limit = pytest.mark.timeout(MINUTES * 90 + 1800 if LONG else 600)


def pick(short: N, long: N) -> N:
    """Return the value for the form that runs, short or long."""
    return long if LONG else short


def seeds(share: float = 0.0) -> Iterator[int]:
    """Yield SEED, and in the long form SEED + 1, ... until this share of the minutes is over.

    Each seed is printed when its round begins, so that the failing one is printed last.
    """
    end = time.monotonic() + share * MINUTES * 60
    seed = SEED
    while seed == SEED or time.monotonic() < end:
        print(f"CHAOS_SEED={seed}", flush=True)
        yield seed
        seed += 1
