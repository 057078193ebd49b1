"""A Redis server under Callgrind, and the number of instructions that it executes for a call."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import redis

from redisq.embedded import NoServer, Server

MeasuredCall = Callable[[], bool]
"""Sends one call, waits for its reply, and returns whether it did its work."""

_OPTIONS = (
    *("--hz", "1"),  # what the timer does is not counted, so it may as well do little
    *("--activerehashing", "no"),
    *("--slowlog-log-slower-than", "-1"),  # under Callgrind, ordinary calls are slow enough for the log
)
_SUMMARY = re.compile(r"^summary: (\d+)$", re.MULTILINE)
_TOTALS = re.compile(r"^totals: \d+$", re.MULTILINE)


class NoValgrind(RuntimeError):
    """Raised when valgrind is not installed."""


def parse(dump: str) -> int | None:
    """Return the instructions that a dump states, without the timer's, or None while it is still being written."""
    if not _TOTALS.search(dump):  # its last line
        return None
    summary = _SUMMARY.search(dump)
    if not summary:
        raise ValueError("a dump of Callgrind without a summary of one event")
    return int(summary[1]) - _inclusive(dump, "serverCron")


def _inclusive(dump: str, function: str) -> int:
    """Return what the calls of a function took, with all that it called; 0 for a server without symbols.

    A dump names a function where it first occurs, `fn=(390) serverCron`, and is content with its number from there on.
    A call is three lines: `cfn=(390)`, `calls=1 0`, and a position with the instructions, `0 130123`.
    """
    named = re.search(rf"^c?fn=(\(\d+\)) {re.escape(function)}$", dump, re.MULTILINE)
    if not named:
        return 0
    called = rf"^cfn={re.escape(named[1])}.*\ncalls=.*\n\S+ (\d+)$"
    return sum(int(instructions) for instructions in re.findall(called, dump, re.MULTILINE))


class Counter:
    """The instructions of a server under Callgrind, between `start` and `stop`; in between the server is slower."""

    def __init__(self, client: redis.Redis, directory: Path) -> None:
        self.client = client
        server: dict[str, Any] = client.info("server")
        self._pid = int(server["process_id"])
        self._directory = directory
        self._dumps = 0

    def start(self) -> None:
        """Count, from zero on."""
        self._control("instrumentation on")
        self._control("zero")

    def stop(self) -> int:
        """Stop counting, and return the count."""
        count = self.read()
        self._control("instrumentation off")
        return count

    def read(self) -> int:
        """Return the count since the start or the last time it was read, and go on from zero."""
        self._control("dump")
        self._dumps += 1
        path = self._directory / f"dump.{self._dumps}"
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            if path.exists() and (count := parse(path.read_text())) is not None:
                path.unlink()
                return count
            time.sleep(0.01)
        raise RuntimeError(f"callgrind did not write {path}")

    def _control(self, command: str) -> None:
        # What callgrind_control does, but for one process: it asks all that run under valgrind on this machine.
        # A server that waits in a system call is interrupted, after 100 ms if nothing else is said.
        command_line = ["vgdb", f"--pid={self._pid}", "--max-invoke-ms=10", "-c", *command.split()]
        run = subprocess.run(command_line, capture_output=True, text=True)
        if run.returncode:
            raise RuntimeError(f"vgdb could not send {command!r}: {run.stderr.strip()}")

    def count(self, calls: Sequence[MeasuredCall]) -> float:
        """Make calls one after the other, each when the last one's reply is there, and return the mean of one."""
        self.start()
        worked = [call() for call in calls]
        count = self.stop()
        if not all(worked):
            raise RuntimeError(f"{worked.count(False)} of {len(calls)} calls did not do their work")
        return count / len(calls)


@contextlib.contextmanager
def wrapped(binary: Path) -> Iterator[Path]:
    """Give a program that starts the server under Callgrind, which counts nothing yet, in a directory for its dumps."""
    if not (shutil.which("valgrind") and shutil.which("vgdb")):
        raise NoValgrind("valgrind is not installed: apt-get install valgrind")
    with tempfile.TemporaryDirectory(prefix="redisq-callgrind-") as directory:
        program, dump = Path(directory, binary.name), Path(directory, "dump")
        words = ["valgrind", "-q", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={dump}"]
        program.write_text(f'#!/bin/sh\nexec {shlex.join([*words, str(binary)])} "$@" {shlex.join(_OPTIONS)}\n')
        program.chmod(0o700)
        yield program


@contextlib.contextmanager
def counting(server: Server) -> Iterator[Counter]:
    """Count the instructions of a server that was started by `wrapped`."""
    with server.client(socket_timeout=None) as client:
        yield Counter(client, server.binary.parent)


def find_server(given: str | None = None) -> Path:
    """Return the server to measure: the one given, or the first on PATH."""
    found = shutil.which(given or "redis-server")
    if not found:
        raise NoServer(f"{given or 'redis-server'} was not found: apt-get install redis-server")
    return Path(found)


def valgrind_version() -> str:
    """Return the version of valgrind."""
    return subprocess.run(["valgrind", "--version"], capture_output=True, text=True, check=True).stdout.strip()
