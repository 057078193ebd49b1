"""The error that ends a command: one line, and the exit code that goes with it."""

from __future__ import annotations

NO, USAGE, UNREACHABLE, INTERRUPTED = 1, 2, 3, 130


class Failure(Exception):
    """Say in one line why a command ends, and with which exit code."""

    def __init__(self, reason: str, code: int = NO) -> None:
        super().__init__(reason)
        self.code = code
