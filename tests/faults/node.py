"""Redis servers on loopback ports that can be killed and started again, and never outlive the tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import redis

from redisq.embedded import watchdog

HOST = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """Find ports that nobody uses at the moment."""
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.create_server((HOST, 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in found]


def free_port_and_bus() -> tuple[int, int]:
    """Find a port for a node of a cluster and the one for its bus, 10,000 above: Redis 6.2 takes no other."""
    while True:
        (port,) = free_ports(1)
        with contextlib.suppress(OSError, OverflowError), socket.create_server((HOST, port + 10_000)):
            return port, port + 10_000


def until(true: Callable[[], Any], what: str, seconds: float = 30.0) -> None:
    """Wait until something is true that no event tells of; what takes so long is an error."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"waited {seconds:g} s until {what}"
        time.sleep(0.01)


class Node:
    """A server that runs from `with` to the end of it; it may be killed and started again on the same port and files.

    `options` are further words of its command line, `config` the text of a file that is to come before them (a
    Sentinel wants one to write to).
    """

    def __init__(self, server: Path, *options: str, config: str | None = None) -> None:
        self.server, self.options, self.config = server, options, config
        self._watchdog: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Node:
        self.files = Path(tempfile.mkdtemp(prefix="redisq-"))
        try:
            self.port, self.bus = free_port_and_bus()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.files, ignore_errors=True)

    @property
    def address(self) -> tuple[str, int]:
        """Return host and port."""
        return HOST, self.port

    def start(self) -> None:
        """Start it and wait until it answers; one that is loading its files does not yet."""
        words = [str(self.server)]
        if self.config is not None:
            path = self.files / "config"
            path.write_text(self.config)
            words.append(str(path))
        words += ["--port", str(self.port), "--bind", HOST, "--dir", str(self.files), "--save", "", *self.options]
        log = self.files / "log"
        with log.open("ab") as out:
            # Its watchdog ends it when this process ends, however it does; the files are ours to remove.
            command = [sys.executable, "-I", "-S", watchdog.__file__, str(os.getpid()), "", *words]
            self._watchdog = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=out)

        def answers() -> bool:
            assert self._watchdog
            assert self._watchdog.poll() is None, log.read_text(errors="replace")[-2000:]
            with contextlib.suppress(redis.RedisError), self.client(socket_timeout=5) as client:
                self.pid = int(client.info("server")["process_id"])
                return bool(client.ping())
            return False

        until(answers, f"{words} answers")

    def client(self, **options: Any) -> redis.Redis:
        """Return a new client, the caller's to close."""
        return redis.Redis(host=HOST, port=self.port, **options)

    def kill(self) -> None:
        """Kill the server with -9 and wait for its end."""
        os.kill(self.pid, signal.SIGKILL)
        self.stop()

    def stop(self) -> None:
        """End the server; harmless when it has ended."""
        if self._watchdog:
            assert self._watchdog.stdin
            self._watchdog.stdin.close()
            self._watchdog.wait()
            self._watchdog = None


@contextlib.contextmanager
def running(nodes: Iterable[Node]) -> Iterator[list[Node]]:
    """Run several, and end them all."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(node) for node in nodes]
