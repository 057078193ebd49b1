"""Ctrl-C and SIGTERM during the demo: raised where it looks for them, and nowhere else."""

from __future__ import annotations

import signal
import time
from types import TracebackType
from typing import Any

_NUMBERS = (signal.SIGINT, signal.SIGTERM)
_SAME = 1.0  # seconds in which a second signal is the same request


class Interrupts:
    """SIGINT and SIGTERM, held back from `with` to the end of it; `check` raises what has come, and so does the end.

    Python raises them between any two instructions: also in a destructor or the callback of a weak reference, which
    print the exception and go on, or between the start of a process and the line that notes it for its end. A second
    signal, more than a second after the first, is raised at once: something may hang.
    """

    def __init__(self) -> None:
        self._came: BaseException | None = None
        self._first = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        for number in _NUMBERS:
            before = signal.getsignal(number)
            if before not in (signal.SIG_IGN, None):  # ignored, as under nohup; or of C, which cannot be set again
                self._before[number] = before
                signal.signal(number, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        if kind is None:
            self.check()

    def check(self) -> None:
        """Raise `KeyboardInterrupt` if a SIGINT has come, `SystemExit` if a SIGTERM."""
        if self._came:
            raise self._came

    def _hear(self, number: int, _: object) -> None:
        now = time.monotonic()
        if self._came is None:
            self._came = KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)
            self._first = now
        elif now - self._first > _SAME:
            raise self._came
