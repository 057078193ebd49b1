"""Single keys that are pressed on a terminal."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections.abc import Callable, Iterator

Pressed = Callable[[float], str]


@contextlib.contextmanager
def keys() -> Iterator[Pressed]:
    """Yield a function that waits so many seconds for a key and returns it, or nothing (no terminal: it sleeps)."""
    if sys.platform == "win32" or not sys.stdin.isatty():
        yield _sleep
        return
    import termios
    import tty

    stdin = sys.stdin.fileno()

    def pressed(seconds: float) -> str:
        if not select.select([stdin], [], [], seconds)[0]:
            return ""
        return os.read(stdin, 1).decode("ascii", "replace") or "q"  # the terminal is gone

    before = termios.tcgetattr(stdin)
    try:
        tty.setcbreak(stdin)
        yield pressed
    finally:
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)


def _sleep(seconds: float) -> str:
    time.sleep(seconds)
    return ""
