"""Clients of valkey-py, the fork of redis-py, which can do the same.

The tests of clients and of batches run again with them, and the differences between the libraries have their own tests.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import valkey
import valkey.asyncio
import valkey.asyncio.sentinel
import valkey.sentinel

import redisq.asyncio.runner
import redisq.blocking.runner
from redisq import Buffer, PriorityQueue, Pushed, Rate, Replicas, Retry
from redisq.embedded import Server
from tests.conftest import real_server
from tests.connections import closing_connections
from tests.faults.cluster import Cluster, cluster
from tests.faults.node import HOST
from tests.faults.proxy import Fault, Proxy
from tests.faults.replication import Replication
from tests.faults.test_failover import watched
from tests.queues import (
    test_attempts,
    test_clients,
    test_dead_letters,
    test_fail,
    test_inspection,
    test_lease_arguments,
    test_leases,
    test_many_batches,
    test_pauses,
    test_payloads,
    test_reserve,
    test_timeouts,
    test_with_batch,
)
from tests.queues.any_client import REDIS, VALKEY, ClientKind, Work
from tests.waiting import until

pytestmark = pytest.mark.server
each_flavour = pytest.mark.parametrize("flavour", VALKEY, ids=str)


# -- the tests of other modules --------------------------------------------------------------------------------------


@pytest.fixture
def make_client(label: str) -> Iterator[Any]:
    """Return a function that makes blocking clients of an emptied server; replaces the fixture for redis-py."""
    made: list[valkey.Valkey] = []

    def make(**options: Any) -> valkey.Valkey:
        made.append(valkey.Valkey(unix_socket_path=real_server(label).socket, **options))
        return made[-1]

    make().flushall()
    yield make
    for client in made:
        client.close()  # type: ignore[no-untyped-call]


@pytest.fixture
def client(make_client: Any) -> Any:
    """Return a blocking client of an emptied server."""
    return make_client()


@pytest.fixture
async def aclient(label: str) -> AsyncIterator[Any]:
    """Return an asyncio client of an emptied server."""
    async with valkey.asyncio.Valkey(unix_socket_path=real_server(label).socket) as made:
        await made.flushall()
        yield made


def with_clients(module: ModuleType) -> dict[str, Any]:
    """Return a module's tests that take a client."""
    fixtures = {"client", "make_client", "aclient"}
    tests = {name: test for name, test in vars(module).items() if name.startswith("test_")}
    return {name: test for name, test in tests.items() if fixtures & set(inspect.signature(test).parameters)}


calls_of = test_clients.calls_of
for _module in (
    test_clients,
    test_with_batch,
    test_fail,
    test_many_batches,
    test_leases,
    test_reserve,
    test_attempts,
    test_payloads,
    test_timeouts,
    test_lease_arguments,
    test_dead_letters,
    test_inspection,
    test_pauses,
):
    _tests = with_clients(_module)
    assert not _tests.keys() & globals().keys(), "a test would take the place of another"
    globals().update(_tests)


# -- differences -----------------------------------------------------------------------------------------------------


def test_valkey_is_not_imported_unless_it_is_used() -> None:
    """It need not be installed."""
    code = """if True:
        import sys
        import redis, redis.asyncio, redisq.asyncio
        sys.modules["valkey"] = None  # an import of it fails
        redisq.Buffer(redis.Redis(), "q")
        redisq.asyncio.PriorityQueue(redis.asyncio.Redis(), "q")
        assert redisq.core.clients.kind_of(redis.ConnectionError()) == "unavailable"
    """
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


@each_flavour
def test_errors_are_the_librarys_own(flavour: ClientKind) -> None:
    def work(client: Any) -> Work:
        queue = flavour.queues.Buffer(client, "q")
        with pytest.raises(valkey.ConnectionError):
            yield queue.push(1)
        with pytest.raises(valkey.ConnectionError):
            yield queue.send(*[queue.calls.push([i]) for i in range(2)])
        with pytest.raises(valkey.ConnectionError):
            yield queue.wait(1)

    flavour.run(lambda: flavour.client(unix_socket_path="/nonexistent/valkey.sock"), work)


@each_flavour
def test_scripts_are_loaded_again_when_the_server_lost_them(server: Server, flavour: ClientKind) -> None:
    """For a single call, and for a part of a pipeline."""

    def work(client: Any) -> Work:
        queue = flavour.queues.Buffer(client, "q")
        for i in range(3):
            yield client.script_flush()
            assert (yield queue.push(i)) == i + 1
        yield client.script_flush()
        yield queue.push(3)
        batch, pushed, popped = yield queue.send(
            queue.calls.reserve(2), queue.calls.push([4]), queue.calls.pop("default", 2)
        )
        assert (batch[-1].items, pushed, popped) == ([0, 1], 5, [2, 3])  # this one was loaded, so it came first

    flavour.run(lambda: flavour.client(unix_socket_path=server.socket), work)


@each_flavour
def test_a_worker_waits_for_a_server_that_is_unavailable(
    server: Server, flavour: ClientKind, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests and replies are lost, and connections are cut; the worker goes on, and everything is done."""
    done: Counter[int] = Counter()

    def handle(batch: Any) -> None:
        (item,) = batch.items
        if item % 5 == 0 and batch.attempts == 1:
            raise Retry(0.0)
        done[item] += 1

    with server.client() as other, Proxy(server.socket) as proxy:
        queue: Buffer[int] = Buffer(other, "q")
        make = lambda: flavour.client(host=proxy.host, port=proxy.port)  # noqa: E731
        with flavour.working(make, handle, size=1, concurrency=3) as working:
            until(lambda: proxy.commands[b"BLPOP"], "a client is blocked")
            proxy.disconnect()
            for fault in (Fault.REPLY, Fault.REQUEST, Fault.REPLY):
                proxy.inject(fault)
            queue.push(*range(20))
            until(lambda: queue.stats().done == 20 or working.done(), "all items are done", 60)
            assert not working.done()
        assert queue.audit().ok
    assert set(done) == set(range(20))
    assert "Redis is unavailable" in caplog.text


@each_flavour
def test_replicas_confirm(binary: Path, flavour: ClientKind) -> None:
    def work(client: Any) -> Work:
        queue = flavour.queues.Buffer(client, "q", durability=Replicas(timeout=4))
        assert (yield queue.push(1)) == 1
        batch = yield queue.reserve()
        assert (yield batch.ack()) == 1

    with Replication(binary) as replication:
        flavour.run(lambda: flavour.client(host=HOST, port=replication.master.port), work)


@each_flavour
def test_a_client_from_sentinel(binary: Path, flavour: ClientKind) -> None:
    """Which has its own kind of connection pool."""
    module = valkey.sentinel if flavour.name == "blocking" else valkey.asyncio.sentinel
    with watched(binary) as (_, port):
        sentinel: Any = module.Sentinel([(HOST, port)])

        def work(client: Any) -> Work:
            queue = flavour.queues.PriorityQueue(client, "q")
            try:
                assert (yield queue.push("a")) is Pushed.ADDED
                batch = yield queue.reserve(timeout=1)
                assert (yield batch.ack()) == 1
                assert (yield queue.reserve(timeout=0.01)) is None
            finally:
                for one in sentinel.sentinels:
                    yield one.close() if flavour.name == "blocking" else one.aclose()

        flavour.run(lambda: sentinel.master_for("q"), work)


# -- a cluster -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nodes(binary: Path) -> Iterator[Cluster]:
    """Run one cluster for these tests."""
    with cluster(binary) as made:
        yield made


def everything(flavour: ClientKind, client: Any, nodes: Cluster) -> Work:
    """Make calls of every kind: single ones, pipelines, waits, scans."""
    queue = flavour.queues.Buffer(client, "q", lease=60)
    assert (yield queue.push_many(range(100), group="a")) == 100
    for node in nodes.clients[:3]:
        node.script_flush()
    assert (yield queue.push("b", group="b")) == 1
    batches = yield queue.reserve_many(3, 30)
    assert [len(batch.items) for batch in batches] == [30, 30, 30]
    assert (yield queue.ack(*batches[:2])) == 60
    assert (yield batches[2].release(delay=1000)) == 30
    batch = yield queue.reserve(100, timeout=1)
    assert (batch.group, len(batch.items)) == ("a", 10)
    yield batch.bury("why")
    assert (yield queue.groups()) == {"b": 1}
    assert (yield queue.pop("b")) == ["b"]
    assert (yield queue.reserve(timeout=0.05)) is None
    assert (yield queue.audit()).ok
    priority = flavour.queues.PriorityQueue(client, "p")
    assert (yield priority.push_many({"a": 2, "b": 1})) == {Pushed.ADDED: 2}
    assert (yield priority.pop(timeout=1)).member == "b"
    limiter = flavour.queues.RateLimiter(client, "l", Rate(2, 60))
    assert (yield limiter.acquire(3)).granted == 2
    names = [info.name for info in (yield flavour.queues.queues(client))]
    assert names == ["p", "q"]
    for each in (queue, priority):
        yield each.purge()
        assert (yield each.stats()).waiting == 0


@each_flavour
@pytest.mark.parametrize("options", [{}, {"decode_responses": True}, {"socket_timeout": 2}], ids=str)
def test_a_cluster(nodes: Cluster, flavour: ClientKind, options: dict[str, Any]) -> None:
    for node in nodes.clients[:3]:
        node.flushall()
    make = lambda: flavour.cluster(host=HOST, port=nodes.nodes[0].port, **options)  # noqa: E731
    flavour.run(make, lambda client: everything(flavour, client, nodes))


@each_flavour
def test_a_worker_on_a_cluster(nodes: Cluster, flavour: ClientKind) -> None:
    """With a failover in the middle: a master and its replica change roles."""
    for i in nodes.masters():
        nodes.clients[i].flushall()
    done: Counter[int] = Counter()
    both = threading.Event()

    def handle(batch: Any) -> None:
        done.update(batch.items)
        if len(done) == 50:
            both.set()

    options = {"socket_timeout": 5} if flavour.name == "blocking" else {}
    make = lambda: flavour.cluster(host=HOST, port=nodes.nodes[0].port, **options)  # noqa: E731
    with valkey.ValkeyCluster(host=HOST, port=nodes.nodes[0].port) as other:
        queue: Buffer[int] = Buffer(other, "q")
        slot: int = nodes.clients[0].execute_command("CLUSTER KEYSLOT", queue.calls.queue)
        with flavour.working(make, handle, size=1, concurrency=2) as working:
            queue.push(*range(50))
            assert both.wait(30)
            nodes.fail_over(nodes.owner(slot))
            queue.push(*range(50, 100))
            until(lambda: len(done) == 100 or working.done(), "all items are done")
            assert not working.done()
        assert queue.audit().ok


@pytest.mark.parametrize("flavour", [*REDIS, *VALKEY], ids=str)
def test_waiting_at_a_node_that_stops_answering(
    nodes: Cluster, flavour: ClientKind, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a socket timeout: the connections are closed, and opened again when the node is back."""
    for runner in (redisq.blocking.runner, redisq.asyncio.runner):
        monkeypatch.setattr(runner, "block_seconds", lambda seconds, _: min(seconds, 0.1))
        monkeypatch.setattr(runner, "OVERDUE", 0.1)
    with valkey.ValkeyCluster(host=HOST, port=nodes.nodes[0].port) as other:
        queue: Buffer[int] = Buffer(other, "silent")
        queue.purge()
        slot: int = nodes.clients[0].execute_command("CLUSTER KEYSLOT", queue.calls.queue)
        owner = nodes.owner(slot)
        info: Any = nodes.clients[owner].info("server")

        def fall_silent() -> None:
            until(lambda: nodes.clients[owner].info("clients")["blocked_clients"], "a client is blocked")
            os.kill(info["process_id"], signal.SIGSTOP)
            until(lambda: "its connection is lost" in caplog.text, "the loss is logged")
            os.kill(info["process_id"], signal.SIGCONT)
            queue.push(1)

        def work(client: Any) -> Work:
            made = flavour.queues.Buffer(client, "silent")
            yield made.push(0)
            assert (yield made.pop()) == [0]
            silent = threading.Thread(target=fall_silent)
            silent.start()
            batch = yield made.reserve(timeout=60)
            assert batch.items == [1]
            silent.join()

        flavour.run(lambda: flavour.cluster(host=HOST, port=nodes.nodes[0].port, socket_timeout=None), work)


@each_flavour
def test_an_operation_in_a_clusters_pipeline(nodes: Cluster, flavour: ClientKind) -> None:

    async def awaited() -> list[Any]:
        made = valkey.asyncio.ValkeyCluster(host=HOST, port=nodes.nodes[0].port)
        async with closing_connections(made) as client:
            queue = redisq.asyncio.Buffer[int](client, "pipeline")
            await queue.purge()
            async with client.pipeline() as pipe:
                pipe.set("mine", 1)
                queue.calls.push([1, 2]).queue(pipe)
                return await pipe.execute()

    if flavour.name == "asyncio":
        _, reply = asyncio.run(awaited())
    else:
        with valkey.ValkeyCluster(host=HOST, port=nodes.nodes[0].port) as client:
            queue: Buffer[int] = Buffer(client, "pipeline")
            queue.purge()
            with client.pipeline() as pipe:
                pipe.set("mine", 1)
                queue.calls.push([1, 2]).queue(pipe)
                _, reply = pipe.execute()
    with valkey.ValkeyCluster(host=HOST, port=nodes.nodes[0].port) as client:
        made: Buffer[int] = Buffer(client, "pipeline")
        assert made.calls.push([1, 2]).decode(reply) == 2
        assert made.pop(size=10) == [1, 2]
        assert PriorityQueue[int](client, "pipeline", prefix="p").pop() is None
