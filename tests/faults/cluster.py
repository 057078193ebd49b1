"""A cluster of three masters with one replica each, whose slots can be moved key by key."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.waiting import until

from .node import HOST, Node, running

SLOTS = 16384
_OPTIONS = ["--cluster-enabled", "yes", "--cluster-node-timeout", "5000", "--repl-diskless-sync-delay", "0"]
# Else the servers would move replicas and fail masters over on their own.
_OPTIONS += ["--cluster-allow-replica-migration", "no", "--cluster-replica-no-failover", "yes"]


class Cluster:
    """The nodes of a cluster, whose slots can be moved."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes
        self.clients: list[Any] = [node.client() for node in nodes]
        for client in self.clients:
            client.set_response_callback("CLUSTER NODES", bytes.decode)
            client.set_response_callback("CLUSTER GETKEYSINSLOT", list)
        self.names: list[str] = [client.execute_command("CLUSTER MYID").decode() for client in self.clients]

    def form(self) -> None:
        """Join the nodes: the first three share the slots, each of the others is a replica of one of them."""
        masters = self.clients[:3]
        for i, client in enumerate(self.clients):
            client.execute_command("CLUSTER SET-CONFIG-EPOCH", i + 1)
        for i, client in enumerate(masters):
            client.execute_command("CLUSTER ADDSLOTS", *range(i * SLOTS // 3, (i + 1) * SLOTS // 3))
        for i, client in enumerate(self.clients):
            for other in self.nodes[:i]:
                client.execute_command("CLUSTER MEET", HOST, other.port, other.bus)
        until(lambda: all(len(self._lines(client)) == 6 for client in self.clients), "the nodes know each other")
        for i, client in enumerate(self.clients[3:]):
            client.execute_command("CLUSTER REPLICATE", self.names[i])
        until(lambda: all(self._ready(client) for client in self.clients) and self._agree(), "the cluster is ready")

    def _lines(self, client: Any) -> list[list[str]]:
        text: str = client.execute_command("CLUSTER NODES")
        lines = [line.split() for line in text.splitlines()]
        return [line for line in lines if "handshake" not in line[2]]

    def _ready(self, client: Any) -> bool:
        info: Any = client.info("replication")
        linked = info.get("master_link_status") == "up" or info.get("connected_slaves") == 1
        return bool(linked and client.execute_command("CLUSTER INFO")["cluster_state"] == "ok")

    def owner(self, slot: int) -> int:
        """Return which node serves a slot, as its master reports it."""
        for client, name in zip(self.clients, self.names, strict=True):
            (mine,) = [line for line in self._lines(client) if "myself" in line[2]]
            for part in mine[8:]:
                low, _, high = part.partition("-")
                if not part.startswith("[") and int(low) <= slot <= int(high or low):
                    return self.names.index(name)
        raise AssertionError(f"no node serves slot {slot}")

    def masters(self) -> list[int]:
        """Return which nodes are masters."""
        return [i for i, client in enumerate(self.clients) if client.role()[0] == b"master"]

    def open(self, slot: int, source: int, target: int) -> None:
        """Begin to move a slot."""
        until(self._agree, "all nodes know the last change")
        self.clients[target].execute_command("CLUSTER SETSLOT", slot, "IMPORTING", self.names[source])
        self.clients[source].execute_command("CLUSTER SETSLOT", slot, "MIGRATING", self.names[target])

    def keys(self, slot: int, node: int) -> list[bytes]:
        """List a slot's keys on one node."""
        return self.clients[node].execute_command("CLUSTER GETKEYSINSLOT", slot, 100_000)  # type: ignore[no-any-return]

    def move(self, key: bytes, source: int, target: int) -> None:
        """Move one key."""
        self.clients[source].execute_command("MIGRATE", HOST, self.nodes[target].port, key, 0, 5000)

    def close(self, slot: int, target: int) -> None:
        """Assign a slot without keys to its new node, which is told first, as the manual says."""
        for i in sorted(self.masters(), key=lambda i: i != target):
            self.clients[i].execute_command("CLUSTER SETSLOT", slot, "NODE", self.names[target])

    def migrate(self, slot: int, target: int, draw: random.Random, between: Callable[[], object]) -> int:
        """Move a slot key by key in random order; return how many keys were moved."""
        source, moved = self.owner(slot), 0
        self.open(slot, source, target)
        while keys := self.keys(slot, source):
            draw.shuffle(keys)
            for key in keys:
                self.move(key, source, target)
                moved += 1
                between()
        self.close(slot, target)
        return moved

    def fail_over(self, master: int) -> int:
        """Replace a master by its replica, in a coordinated failover; return which node that is."""
        replica = next(i for i, client in enumerate(self.clients) if self._follows(client) == self.nodes[master].port)
        until(self._agree, "the replica knows all slots that it takes over")
        asked = 0.0

        def done() -> bool:
            nonlocal asked
            if time.monotonic() > asked + 6:  # on a busy machine it times out, after five seconds
                self.clients[replica].execute_command("CLUSTER FAILOVER")
                asked = time.monotonic()
            return bool(self.clients[replica].role()[0] == b"master")

        until(done, "the replica is the master", 60)
        until(lambda: self.clients[master].role()[0] == b"slave", "the master is the replica")
        until(self._agree, "all know the new master")  # a node that does not would refuse to import a slot from it
        return replica

    def _agree(self) -> bool:
        """Return whether all nodes know the same masters, with their epochs and slots.

        A node that takes over a slot or a master's role increments the highest epoch it knows of. If another node has
        that epoch already, one of the two increments it again, and takes back what it had given away.
        """
        views = [
            {line[0]: (line[6], [part for part in line[8:] if part[0] != "["]) for line in lines if "master" in line[2]}
            for lines in map(self._lines, self.clients)
        ]
        return all(view == views[0] for view in views)

    def _follows(self, client: Any) -> int | None:
        role = client.role()
        return int(role[2]) if role[0] == b"slave" else None


@contextlib.contextmanager
def cluster(server: Path) -> Iterator[Cluster]:
    """Run a cluster."""
    with running(Node(server, *_OPTIONS) for _ in range(6)) as nodes:
        made = Cluster(nodes)
        made.form()
        yield made
        for client in made.clients:
            client.close()
