"""A Redis server under Callgrind, and the number of instructions that it executes for a call."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from redisq.embedded import NoServer, Server

Command = tuple[Any, ...]

OPTIONS = (
    *("--hz", "1"),  # the timer runs once a second, not ten times
    *("--activerehashing", "no"),
    *("--slowlog-log-slower-than", "-1"),  # under Callgrind, calls are slow that are not
)
_SUMMARY = re.compile(r"^summary: (\d+)", re.MULTILINE)
_TOTALS = re.compile(r"^totals: (\d+)", re.MULTILINE)


class NoValgrind(RuntimeError):
    """Raised when valgrind is not installed."""


def instructions(dump: str) -> int | None:
    """Return the number of instructions that a Callgrind dump states, or None while it is still being written."""
    if not _TOTALS.search(dump):
        return None  # the last line
    found = _SUMMARY.search(dump)
    return int(found[1]) if found else None


@dataclass
class Counter:
    """A server whose instructions are counted."""

    client: redis.Redis
    server: Server
    _pid: int
    _dump: Path
    _dumps: int = 0

    def start(self) -> None:
        """Start counting, for the rest of the server's life; `reset` sets the count to zero."""
        self._control("instrumentation on")

    def reset(self) -> None:
        """Set the count to zero."""
        self._control("zero")

    def read(self) -> int:
        """Return the count since `reset`."""
        self._control("dump")
        self._dumps += 1
        path = self._dump.with_name(f"{self._dump.name}.{self._dumps}")
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            if path.exists() and (count := instructions(path.read_text())) is not None:
                return count
            time.sleep(0.01)
        raise RuntimeError(f"callgrind did not write {path}")

    def _control(self, command: str) -> None:
        # What callgrind_control does.
        run = subprocess.run(
            ["vgdb", f"--pid={self._pid}", "-c", *command.split()], capture_output=True, text=True, check=False
        )
        if run.returncode:
            raise RuntimeError(f"vgdb could not send {command!r}: {run.stderr.strip()}")

    def count(self, calls: Sequence[Sequence[Command]]) -> tuple[float, list[list[Any]]]:
        """Send calls one after the other and return the instructions for one, and all replies.

        A call is one command, or several that are sent together. As with most clients, the next one is sent when the
        reply is there: in a pipeline, calls would share what it costs the server to read and to write.
        """
        connection: Any = self.client.connection_pool.get_connection()
        try:
            packed = [(connection.pack_commands(call), len(call)) for call in calls]
            replies = []
            self.reset()
            for data, length in packed:
                connection.send_packed_command(data)
                replies.append([connection.read_response() for _ in range(length)])
            return self.read() / len(calls), replies
        finally:
            self.client.connection_pool.release(connection)


@contextlib.contextmanager
def counting_server(binary: Path, *options: str) -> Iterator[Counter]:
    """Run a server under Callgrind; nothing is counted yet."""
    if not (shutil.which("valgrind") and shutil.which("vgdb")):
        raise NoValgrind("valgrind is not installed: apt-get install valgrind")
    with tempfile.TemporaryDirectory(prefix="redisq-callgrind-") as directory:
        dump, wrapper = Path(directory, "dump"), Path(directory, binary.name)
        words = ["valgrind", "-q", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={dump}"]
        wrapper.write_text(f'#!/bin/sh\nexec {shlex.join([*words, str(binary)])} "$@"\n')
        wrapper.chmod(0o700)
        with Server(wrapper, *OPTIONS, *options) as server, server.client(socket_timeout=None) as client:
            facts: dict[str, Any] = client.info("server")
            yield Counter(client, server, int(facts["process_id"]), dump)


def server_binary(given: str | None = None) -> Path:
    """Return the server to measure: the one given, or the first on PATH."""
    found = shutil.which(given or "redis-server")
    if not found:
        raise NoServer(f"{given or 'redis-server'} was not found: apt-get install redis-server")
    return Path(found)
