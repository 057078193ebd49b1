"""The error that ends a command: one line, and the exit code that goes with it."""

from __future__ import annotations

NO, USAGE, UNREACHABLE, INTERRUPTED = 1, 2, 3, 130


class Failure(Exception):
    """The end of a command that failed: one line that says why, and an exit code."""

    def __init__(self, reason: str, code: int = NO) -> None:
        super().__init__(reason)
        self.code = code
