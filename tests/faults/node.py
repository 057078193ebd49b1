"""Redis servers on loopback ports that can be killed and restarted, and that never outlive the tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import redis

from redisq.embedded import watchdog
from tests.waiting import until

HOST = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """Return ports that are free at the moment."""
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.create_server((HOST, 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in found]


def free_port_and_bus() -> tuple[int, int]:
    """Return a port for a cluster node and the one for its bus, 10,000 above: Redis 6.2 takes no other."""
    while True:
        (port,) = free_ports(1)
        with contextlib.suppress(OSError, OverflowError), socket.create_server((HOST, port + 10_000)):
            return port, port + 10_000


class Node:
    """A context manager that runs a server, which may be killed and restarted on the same port and files.

    `options` are added to its command line; `config` is the text of a configuration file, which a Sentinel needs in
    order to write to it.
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
        """Start it and wait until it answers, which it does not while it loads its files."""
        words = [str(self.server)]
        if self.config is not None:
            path = self.files / "config"
            path.write_text(self.config)
            words.append(str(path))
        words += ["--port", str(self.port), "--bind", HOST, "--dir", str(self.files), "--save", "", *self.options]
        log = self.files / "log"
        with log.open("ab") as out:
            # Its watchdog ends it when this process ends, however it does, but does not remove the files.
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
        """Return a new client, which the caller closes."""
        return redis.Redis(host=HOST, port=self.port, **options)

    def kill(self) -> None:
        """Kill the server with -9 and wait for its end."""
        os.kill(self.pid, signal.SIGKILL)
        self.stop()

    def stop(self) -> None:
        """Stop the server, if it is running."""
        if self._watchdog:
            assert self._watchdog.stdin
            self._watchdog.stdin.close()
            self._watchdog.wait()
            self._watchdog = None


@contextlib.contextmanager
def running(nodes: Iterable[Node]) -> Iterator[list[Node]]:
    """Run several nodes, and stop them all."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(node) for node in nodes]
