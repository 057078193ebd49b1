"""A master and its replica, with a proxy between them that can block the link."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import redis

from tests.waiting import until

from .node import HOST, Node
from .proxy import Proxy

_OPTIONS = ("--repl-diskless-sync-delay", "0", "--loglevel", "warning")


class Replication:
    """A context manager that runs a master and a replica; `fail_over` promotes the replica."""

    def __init__(self, server: Path) -> None:
        self._server = server
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Replication:
        with contextlib.ExitStack() as stack:
            self._nodes = stack.enter_context(contextlib.ExitStack())
            self.master = self._nodes.enter_context(Node(self._server, *_OPTIONS))
            self._follow()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _follow(self) -> None:
        self.link = self._nodes.enter_context(Proxy(self.master.address, framed=False))
        self.replica = self._nodes.enter_context(
            Node(self._server, *_OPTIONS, "--replicaof", HOST, str(self.link.port))
        )
        self.wait_until_synced()

    def wait_until_synced(self) -> None:
        """Wait until the replica has everything that the master has."""
        with self.master.client() as client:
            until(lambda: client.wait(1, 100) == 1, "the replica is in sync")

    def fail_over(self) -> None:
        """Kill the master with -9, promote the replica, and start a new replica for it."""
        self.master.kill()
        with self.replica.client() as client:
            client.replicaof("NO", "ONE")
        self.master = self.replica
        self._follow()

    def client(self, **options: Any) -> redis.Redis:
        """Return a new client of the master, which the caller closes."""
        return self.master.client(**options)
