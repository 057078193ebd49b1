"""A master that becomes a replica, behind a host name: calls, pipelines and workers go to the new master."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from redisq import Buffer
from redisq.core.clients import kind_of
from tests.faults.node import HOST, Node, running
from tests.faults.proxy import Proxy
from tests.queues.any_client import ClientKind, Work, each_flavour, each_library, with_pool
from tests.waiting import until

real = pytest.mark.server


class DemotableMaster:
    """Two servers behind one host name, of which the first is the master until `demote`."""

    def __init__(self, first: Node, second: Node, name: Proxy) -> None:
        self.first, self.second, self.name = first, second, name

    def demote(self) -> None:
        """Make the second server the master, and the first its replica; the name now leads to the new master."""
        with self.first.client() as old, self.second.client() as new:
            new.replicaof(HOST, str(self.first.port))
            until(lambda: new.info("replication")["master_link_status"] == "up", "the second is a replica")
            until(lambda: old.wait(1, 100) == 1, "the replica is in sync")
            new.replicaof("NO", "ONE")
            self.name.upstream = self.second.address
            old.replicaof(HOST, str(self.second.port))
            until(lambda: old.info("replication")["master_link_status"] == "up", "the first is a replica")


@pytest.fixture
def demotable(binary: Path) -> Iterator[DemotableMaster]:
    """Run two servers behind one name."""
    option = ("--repl-diskless-sync-delay", "0")
    with running(Node(binary, *option) for _ in range(2)) as (first, second), Proxy(first.address) as name:
        yield DemotableMaster(first, second, name)


def count_scripts(node: Node) -> int:
    """Count the script calls that a server received."""
    with node.client() as client:
        stats: Any = client.info("commandstats")
        return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("eval", "evalsha"))


@pytest.mark.every_server
@each_flavour
@pytest.mark.parametrize("durability", ["server", "replica"])
def test_calls_go_to_the_new_master(demotable: DemotableMaster, flavour: ClientKind, durability: str) -> None:
    """Single calls and pipelines, on every connection to the old master; each call takes effect once."""
    through_a_failover(demotable, flavour, "ConnectionPool", durability)


@real
@each_library
@pytest.mark.parametrize("kind", ["BlockingConnectionPool", "single connection"])
def test_calls_go_to_the_new_master_with_any_pool(demotable: DemotableMaster, flavour: ClientKind, kind: str) -> None:
    through_a_failover(demotable, flavour, kind)


def through_a_failover(demotable: DemotableMaster, flavour: ClientKind, kind: str, durability: str = "server") -> None:
    """Make calls before and after a failover, and check that each took effect once."""
    before: list[int] = []

    def make() -> Any:
        if kind == "single connection":
            return flavour.client(port=demotable.name.port, single_connection_client=True)
        return with_pool(flavour, kind, host=HOST, port=demotable.name.port)

    def work(client: Any) -> Work:
        plain = flavour.queues.Buffer(client, "q")
        queue = flavour.queues.Buffer(client, "q", durability=durability)
        assert (yield plain.push(0)) == 1
        demotable.demote()
        before.append(count_scripts(demotable.first))
        for i in range(1, 7):
            assert (yield queue.push(i)) == i + 1
        assert (yield queue.send(*[queue.calls.push([i]) for i in (7, 8)])) == [8, 9]
        batches = yield queue.reserve_many(3, 3)
        assert [batch.items for batch in batches] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
        assert (yield queue.ack(*batches)) == 9
        assert (yield queue.reserve(timeout=1)) is None

    flavour.run(make, work)
    assert count_scripts(demotable.first) - before[0] <= 5  # one for each connection
    with demotable.second.client() as client:
        assert Buffer(client, "q").stats().done == 9
        assert client.info("commandstats")["cmdstat_blpop"]["calls"]


@real
@each_flavour
def test_pipelines_go_to_the_new_master(demotable: DemotableMaster, flavour: ClientKind) -> None:
    """When a pipeline is the first to reach the old master."""

    def work(client: Any) -> Work:
        queue = flavour.queues.Buffer(client, "q")
        assert (yield queue.push(0)) == 1
        demotable.demote()
        assert (yield queue.send(*[queue.calls.push([i]) for i in (1, 2)])) == [2, 3]
        assert (yield queue.pop(size=10)) == [0, 1, 2]

    flavour.run(lambda: flavour.client(port=demotable.name.port), work)


@real
@each_flavour
@pytest.mark.parametrize("breaks", [False, True], ids=["refused", "broken"])
def test_a_new_connection_asks_where_the_master_is(
    demotable: DemotableMaster, flavour: ClientKind, breaks: bool
) -> None:
    """As those behind a Sentinel do when they connect: after READONLY, and when a call is sent again."""
    master = demotable.first
    broken: list[bool] = []
    base: Any = flavour.package.Connection

    class BlockingConnection(base):  # type: ignore[misc]
        port: int

        def connect(self) -> None:
            self.port = self.port if self._sock else master.port
            super().connect()

        def send_packed_command(self, *args: Any, **options: Any) -> None:
            if broken:
                broken.pop()
                raise flavour.errors.ConnectionError("broken")
            super().send_packed_command(*args, **options)

    class AsyncioConnection(base):  # type: ignore[misc]
        port: int

        async def connect(self) -> None:
            self.port = self.port if self.is_connected else master.port
            await super().connect()

        async def send_packed_command(self, *args: Any, **options: Any) -> None:
            if broken:
                broken.pop()
                raise flavour.errors.ConnectionError("broken")
            await super().send_packed_command(*args, **options)

    def make() -> Any:
        kind = BlockingConnection if flavour.name == "blocking" else AsyncioConnection
        retry = flavour.retries(1)
        return flavour.client.from_pool(flavour.package.ConnectionPool(connection_class=kind, host=HOST, retry=retry))

    def work(client: Any) -> Work:
        nonlocal master
        queue = flavour.queues.Buffer(client, "q")
        assert (yield queue.push(0)) == 1
        demotable.demote()
        before, master = count_scripts(demotable.first), demotable.second
        broken.extend([True] if breaks else [])
        assert (yield queue.push(1)) == 2
        assert count_scripts(demotable.first) == before + (0 if breaks else 1)

    flavour.run(make, work)


@real
@each_flavour
def test_an_error_while_the_name_leads_to_a_replica(demotable: DemotableMaster, flavour: ClientKind) -> None:
    """A call is retried once; a worker waits."""

    def work(client: Any) -> Work:
        queue = flavour.queues.Buffer(client, "q")
        assert (yield queue.push(0)) == 1
        demotable.demote()
        demotable.name.upstream = demotable.first.address
        tried = demotable.name.commands[b"EVALSHA"]
        with pytest.raises(redis.exceptions.ReadOnlyError) as refused:
            yield queue.push(1)
        assert demotable.name.commands[b"EVALSHA"] == tried + 2
        assert kind_of(refused.value) == "unavailable"
        with pytest.raises(redis.exceptions.ReadOnlyError):
            yield queue.wait(1)
        demotable.name.upstream = demotable.second.address
        assert (yield queue.push(1)) == 2

    flavour.run(lambda: flavour.client(port=demotable.name.port), work)


@real
@each_flavour
def test_a_worker_continues_at_the_new_master(demotable: DemotableMaster, flavour: ClientKind) -> None:
    """An idle one is disconnected when its master becomes a replica, and waits at the new master."""
    done: set[int] = set()
    with flavour.working(lambda: flavour.client(port=demotable.name.port), lambda batch: done.update(batch.items)):
        until(lambda: demotable.name.commands[b"BLPOP"], "a client is blocked")
        demotable.demote()
        with demotable.second.client() as client:
            until(lambda: client.info("clients")["blocked_clients"], "a client is blocked at the new master")
            queue: Buffer[int] = Buffer(client, "q")
            queue.push(1)
            until(lambda: queue.stats().done == 1, "the item is done")
    assert done == {1}
