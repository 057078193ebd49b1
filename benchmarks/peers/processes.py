"""Start a peer's pusher and worker as processes of their own, read what the handlers noted, and end them all."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.peers import contract
from redisq.embedded import Server

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Entry:
    """When a handler ran, on the clock of all processes, and for what."""

    at: float
    item: int


@dataclass
class Site:
    """What one run of a peer needs: its Python, its mode, a private server, and the file of its handlers."""

    python: Path
    peer: str
    mode: str
    server: Server
    directory: Path
    errors: Path = field(init=False)

    def __post_init__(self) -> None:
        self.errors = self.directory / "errors"

    def start(self, *words: str, record: str = "record", hold: float = 0, pace: float = 0) -> subprocess.Popen[str]:
        """Start `python -m benchmarks.peers.PEER WORDS` in a session of its own, so that `end` finds all its forks."""
        environment = {
            **os.environ,
            "PEERS_URL": self.server.url,
            "PEERS_MODE": self.mode,
            "PEERS_RECORD": str(self.directory / record),
            "PEERS_HOLD": str(hold),
            "PEERS_PACE": str(pace),
        }
        with self.errors.open("a") as errors:
            return subprocess.Popen(
                [str(self.python), "-m", f"benchmarks.peers.{self.peer}", *words],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if words[0] == "push" else subprocess.DEVNULL,
                stderr=errors,
                text=True,
                start_new_session=True,
            )

    def push(self, count: int) -> float:
        """Push so many items from 0 on, and return the seconds that it took, without the start of the process."""
        with self.start("push", "0", str(count)) as process:
            output, _ = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{self.peer}, {self.mode} could not push: {self.errors.read_text()[-2000:]}")
        return float(json.loads(output.splitlines()[-1])["seconds"])

    def entries(self, record: str = "record") -> list[Entry]:
        """Read what the handlers have noted so far, in their order."""
        path = self.directory / record
        noted = path.read_bytes() if path.exists() else b""
        whole = len(noted) - len(noted) % contract.ENTRY.size
        return [Entry(at, item) for at, item in contract.ENTRY.iter_unpack(noted[:whole])]

    def wait(self, count: int, patience: float) -> None:
        """Wait until so many entries are there, or none has come for `patience` seconds."""
        path, seen, since = self.directory / "record", 0, time.monotonic()
        while seen < count * contract.ENTRY.size and time.monotonic() < since + patience:
            time.sleep(0.02)  # rarely, for it runs beside what is measured
            size = path.stat().st_size if path.exists() else 0
            if size > seen:
                seen, since = size, time.monotonic()


@contextlib.contextmanager
def site(python: Path, peer: str, mode: str, binary: Path) -> Iterator[Site]:
    """Give a peer a private server and an empty directory."""
    with tempfile.TemporaryDirectory(prefix="redisq-peers-") as directory, Server(binary) as server:
        yield Site(python, peer, mode, server, Path(directory))


def end(process: subprocess.Popen[str], grace: float = 5.0) -> None:
    """Ask a process to stop; after `grace` seconds, and for what it left behind, kill."""
    if process.poll() is None:
        if grace:
            process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace)
    kill(process)


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a process and all that it forked: RQ's work horse has a group, but not a session, of its own."""
    for pid in [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(pid) == process.pid:
                os.kill(pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def counting(server: Server) -> Iterator[dict[str, int]]:
    """Count the commands that clients send, and those that scripts call, with MONITOR: never while time is taken.

    `INFO` cannot tell the two apart: what a script calls is in its `total_commands_processed` too.
    """
    counts = {"sent": 0, "in scripts": 0}
    client: Any = server.client()
    with contextlib.closing(client), client.monitor() as monitor:

        def listen() -> None:
            with contextlib.suppress(Exception):  # the end of the connection
                for command in monitor.listen():
                    if command["command"].startswith("PING end-of-count"):
                        return
                    counts["in scripts" if command["client_type"] == "lua" else "sent"] += 1

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        yield counts
        client.execute_command("PING", "end-of-count")
        thread.join(5)
