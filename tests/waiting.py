"""A wait for what sets no event, such as something that another process does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic


def until(condition: Callable[[], object], what: str = "the condition", seconds: float = 30.0) -> None:
    """Wait until a condition holds; fail after too long."""
    end, pause = monotonic() + seconds, threading.Event()
    while not condition():
        assert monotonic() < end, f"not within {seconds:g} s: {what}"
        pause.wait(0.01)
