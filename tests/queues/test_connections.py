"""Connections of clients: dropped silently, refused or exhausted, after a failover, in forks and other event loops."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
import redis.asyncio
import redis.sentinel
import valkey

import redisq.asyncio
import redisq.asyncio.runner
import redisq.blocking.runner
from redisq import Buffer, InvalidArgument, RedisqError
from redisq.core.clients import connection_arguments, kind_of, remedy_for, socket_timeout
from redisq.core.flow import OVERDUE, POLL
from redisq.embedded import Server
from tests.faults.node import HOST, Node, running
from tests.faults.proxy import Proxy
from tests.queues.any_client import REDIS, VALKEY, ClientKind, Work
from tests.waiting import until

RUNNERS = (redisq.blocking.runner, redisq.asyncio.runner)
real = pytest.mark.server
each_flavour = pytest.mark.parametrize("flavour", REDIS, ids=str)
each_library = pytest.mark.parametrize("flavour", [*REDIS, *VALKEY], ids=str)


@pytest.fixture
def healthy_queue(server: Server) -> Iterator[Buffer[Any]]:
    """Return the queue through a separate client, whose connections are not disturbed."""
    with server.client() as client:
        yield Buffer(client, "q")


def is_waiting(server: Server) -> bool:
    """Return whether a client is blocked on a wake-up."""
    with server.client() as client:
        info: Any = client.info("clients")
        return bool(info["blocked_clients"])


# -- connections that are dropped silently ---------------------------------------------------------------------------


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten waits, and the time after which they count as overdue."""
    for runner in RUNNERS:
        monkeypatch.setattr(runner, "block_seconds", lambda seconds, _: min(seconds, 0.1))
        monkeypatch.setattr(runner, "OVERDUE", 0.1)


def with_pool(flavour: ClientKind, kind: str, **options: Any) -> Any:
    """Make a client with a pool of this class and four connections."""
    pool = getattr(flavour.package, kind)(**options)
    arguments = connection_arguments(pool)
    if flavour.name == "blocking":
        for connection in [pool.get_connection(*arguments) for _ in range(4)]:
            pool.release(connection)
        return flavour.client.from_pool(pool)
    client = flavour.client.from_pool(pool)

    class FilledPool:
        async def __aenter__(self) -> Any:
            for connection in [await pool.get_connection(*arguments) for _ in range(4)]:
                await pool.release(connection)
            return client

        async def __aexit__(self, *_: object) -> None:
            await client.aclose()

    return FilledPool()


def silent_client(flavour: ClientKind, kind: str, port: int) -> Any:
    """Make a client without a socket timeout and with several open connections."""
    if kind == "single connection":
        return flavour.client(port=port, socket_timeout=None, single_connection_client=True)
    return with_pool(flavour, kind, host=HOST, port=port, socket_timeout=None)


KINDS = pytest.mark.parametrize("kind", ["ConnectionPool", "BlockingConnectionPool", "single connection"])


@real
@KINDS
@each_library
@pytest.mark.usefixtures("short_waits")
def test_a_worker_reconnects_after_its_connections_were_dropped_silently(
    server: Server, healthy_queue: Buffer[int], flavour: ClientKind, kind: str
) -> None:
    """All of the pool's: the one that waits, and the idle ones. The worker uses two at a time afterwards."""
    done: list[int] = []

    def handle(batch: Any) -> None:
        until(lambda: is_waiting(server), "the worker is blocked")
        done.extend(batch.items)

    with Proxy(server.socket) as proxy:
        make = lambda: silent_client(flavour, kind, proxy.port)  # noqa: E731
        with flavour.working(make, handle, size=1, concurrency=3):
            until(lambda: is_waiting(server), "a client is blocked")
            proxy.block_existing()
            healthy_queue.push(0, 1)
            until(lambda: healthy_queue.stats().done == 2, "all items are done")
    assert sorted(done) == [0, 1]


@real
@KINDS
@each_library
@pytest.mark.usefixtures("short_waits")
def test_reserve_reconnects_after_its_connections_were_dropped_silently(
    server: Server, healthy_queue: Buffer[int], flavour: ClientKind, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Proxy(server.socket) as proxy:

        def drop() -> None:
            until(lambda: is_waiting(server), "a client is blocked")
            proxy.block_existing()
            healthy_queue.push(1)

        def work(client: Any) -> Work:
            queue = flavour.queues.Buffer(client, "q")
            threading.Thread(target=drop).start()
            batch = yield queue.reserve(timeout=60)
            assert batch.items == [1]
            assert (yield batch.ack()) == 1

        flavour.run(lambda: silent_client(flavour, kind, proxy.port), work)
    assert "its connection is lost" in caplog.text


def test_a_wait_is_overdue_after_seconds() -> None:
    """After ten seconds at most, instead of the quarter of an hour that TCP takes to give up."""
    assert OVERDUE + 2.5 <= 10


@each_library
@pytest.mark.parametrize("seconds", [None, 0.5, 7])
def test_the_clients_socket_timeout_is_known(flavour: ClientKind, seconds: float | None) -> None:
    """Including the default of the connection class, when the pool sets none."""
    assert socket_timeout(flavour.client(socket_timeout=seconds), False) == seconds
    pool = flavour.package.ConnectionPool()
    default = pool.make_connection().socket_timeout
    assert socket_timeout(flavour.client(connection_pool=pool), False) == default


# -- refusals --------------------------------------------------------------------------------------------------------


def user_of(server: Server, *rights: str) -> dict[str, Any]:
    """Create a user with these permissions, and return the client options to log in."""
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "somebody", "reset", "on", ">right", "~*", "&*", *rights)
    return {"unix_socket_path": server.socket, "username": "somebody", "password": "right"}


REFUSALS: dict[str, tuple[list[str], dict[str, Any], str]] = {
    "wrong password": (["+@all"], {"password": "wrong"}, "password"),
    "no user": (["+@all"], {"username": "nobody"}, "password"),
    "no right to run scripts": (["+@all", "-eval", "-evalsha"], {}, "rights"),
    "no right to what scripts use": (["+@all", "-time"], {}, "rights"),
    "no right to the keys": (["+@all", "resetkeys", "~other:*"], {}, "rights"),
    "no right to the keys that a script computes": (["+@all", "resetkeys", "~*:once:*", "~*:guard"], {}, "rights"),
    "wrong database": (["+@all"], {"db": 9999}, "database"),
}


@pytest.mark.every_server
@each_flavour
@pytest.mark.parametrize("case", REFUSALS)
def test_a_worker_that_is_refused_ends_at_once(
    server: Server, flavour: ClientKind, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With redis-py's own error, and advice in the log; it is never logged as an outage."""
    rights, options, remedy = REFUSALS[case]
    options = {**user_of(server, *rights), **options, "retry": flavour.no_retries()}
    with server.client() as client:
        Buffer(client, "q").push(1)
    with (
        caplog.at_level(logging.INFO),
        flavour.working(lambda: flavour.client(**options), lambda _: None) as working,
    ):
        error = working.exception(30)
    assert isinstance(error, redis.RedisError)
    if sys.version_info >= (3, 11):
        assert any(remedy in note for note in error.__notes__)
    else:
        assert remedy in caplog.text
    assert "unavailable" not in caplog.text


@pytest.mark.every_server
@each_library
def test_refused_calls_raise_the_librarys_own_error(server: Server, flavour: ClientKind) -> None:
    options = {**user_of(server, "+@all", "-evalsha"), "retry": flavour.no_retries()}

    def work(client: Any) -> Work:
        queue = flavour.queues.Buffer(client, "q")
        for calls in ([1], [1, 2]):
            with pytest.raises(flavour.errors.NoPermissionError) as refused:
                yield queue.send(*[queue.calls.push([call]) for call in calls])
            assert kind_of(refused.value) == "refused"

    flavour.run(lambda: flavour.client(**options), work)


@real
@each_flavour
def test_a_server_without_scripts(binary: Path, flavour: ClientKind) -> None:
    """Like some proxies."""
    hidden = "rename-command EVALSHA ''\nrename-command EVAL ''\n".replace("'", '"')

    def work(client: Any) -> Work:
        with pytest.raises(redis.ResponseError) as refused:
            yield flavour.queues.Buffer(client, "q").push(1)
        assert "Lua" in (remedy_for(refused.value) or "")

    with Node(binary, config=hidden) as node:
        flavour.run(lambda: flavour.client(port=node.port), work)


@real
@each_flavour
def test_a_single_server_client_on_a_cluster_node(binary: Path, flavour: ClientKind) -> None:
    """Every call answers MOVED."""

    def work(client: Any) -> Work:
        with pytest.raises(redis.ResponseError) as refused:
            yield flavour.queues.Buffer(client, "q").push(1)
        assert kind_of(refused.value) == "refused"
        assert "RedisCluster" in (remedy_for(refused.value) or "")

    with running(Node(binary, "--cluster-enabled", "yes") for _ in range(2)) as (node, other):
        with node.client() as client, other.client() as second:
            second.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
            client.execute_command("CLUSTER MEET", HOST, other.port, other.bus)
            until(lambda: client.execute_command("CLUSTER INFO")["cluster_state"] == "ok", "the cluster is up")
        flavour.run(lambda: flavour.client(port=node.port), work)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (redis.ConnectionError("Connection refused"), "unavailable"),
        (redis.TimeoutError("Timeout reading"), "unavailable"),
        (redis.exceptions.BusyLoadingError("Redis is loading the dataset in memory"), "unavailable"),
        (redis.exceptions.ReadOnlyError("You can't write against a read only replica."), "unavailable"),
        (redis.exceptions.ClusterDownError("The cluster is down"), "unavailable"),
        (redis.exceptions.SlotNotCoveredError("Slot 1 is not covered"), "unavailable"),
        (redis.ResponseError("MISCONF Errors writing to the AOF file"), "unavailable"),
        (valkey.ConnectionError("Connection refused"), "unavailable"),
        (OSError("no route to host"), "unavailable"),
        (redis.ConnectionError("Too many connections"), "shortage"),
        (redis.ConnectionError("No connection available."), "shortage"),
        (valkey.exceptions.MaxConnectionsError(), "shortage"),
        (redis.AuthenticationError("invalid password"), "refused"),
        (valkey.AuthenticationError("invalid password"), "refused"),
        (valkey.exceptions.NoPermissionError("this user has no permissions"), "refused"),
        (redis.ConnectionError("Error 1 connecting: [SSL: CERTIFICATE_VERIFY_FAILED] certificate"), "refused"),
        (redis.ResponseError("DENIED Redis is running in protected mode because"), "refused"),
        (ValueError("Too many values"), "other"),
        (RedisqError("what redisq says"), "other"),
    ],
    ids=str,
)
def test_errors_are_classified(error: Exception, kind: str) -> None:
    assert kind_of(error) == kind


def test_an_error_is_classified_by_its_cause() -> None:
    """As in a cluster's client when all nodes require a password; an unrelated context is ignored."""
    hidden = redis.exceptions.RedisClusterException("cannot connect")
    hidden.__cause__ = redis.AuthenticationError("invalid password")
    assert kind_of(hidden) == "refused"
    apart = redis.ConnectionError("Connection refused")
    apart.__context__, apart.__suppress_context__ = hidden, True
    assert kind_of(apart) == "unavailable"


@real
@each_library
@pytest.mark.parametrize("kind", ["ConnectionPool", "BlockingConnectionPool"])
def test_an_exhausted_pool_is_not_an_outage(
    server: Server, healthy_queue: Buffer[int], flavour: ClientKind, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The worker waits until a connection is free, and does not log an outage."""
    options = {"timeout": 0.01} if kind == "BlockingConnectionPool" else {}
    connection_class = flavour.package.UnixDomainSocketConnection
    pools: list[Any] = []
    taken: list[Any] = []
    done = threading.Event()

    def make() -> Any:
        pool = getattr(flavour.package, kind)(
            connection_class=connection_class, path=server.socket, max_connections=2, **options
        )
        pools.append(pool)
        return flavour.client.from_pool(pool)

    def handle(_: Any) -> None:
        done.set()

    if flavour.name == "blocking":

        def exhausted() -> Any:
            client = make()
            taken.extend(pools[0].get_connection(*connection_arguments(pools[0])) for _ in range(2))
            return client

        def release() -> None:
            for connection in taken:
                pools[0].release(connection)

    else:

        class ExhaustedPool:
            async def __aenter__(self) -> Any:
                self.client = make()
                self.loop = asyncio.get_running_loop()
                for _ in range(2):
                    taken.append(await pools[0].get_connection(*connection_arguments(pools[0])))
                loops.append(self.loop)
                return self.client

            async def __aexit__(self, *_: object) -> None:
                await self.client.aclose()

        loops: list[asyncio.AbstractEventLoop] = []
        exhausted = ExhaustedPool

        def release() -> None:
            async def release_all() -> None:
                for connection in taken:
                    await pools[0].release(connection)

            asyncio.run_coroutine_threadsafe(release_all(), loops[0]).result()

    healthy_queue.push(1)
    with flavour.working(exhausted, handle) as working:
        until(lambda: "no free connection" in caplog.text, "the pool is exhausted")
        assert not working.done()
        release()
        assert done.wait(30)
    assert "unavailable" not in caplog.text


# -- BLPOP alone is refused ------------------------------------------------------------------------------------------


@pytest.fixture
def short_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the interval at which a queue without BLPOP polls."""
    for runner in RUNNERS:
        monkeypatch.setattr(runner, "POLL", 0.05)


@pytest.fixture(params=["by ACL", "unknown"])
def without_blpop(request: pytest.FixtureRequest, server: Server, binary: Path) -> Iterator[dict[str, Any]]:
    """Return the options for a client that is refused BLPOP."""
    if request.param == "by ACL":
        yield user_of(server, "+@all", "-blpop")
    else:
        with Node(binary, config='rename-command BLPOP ""\n') as node:
            yield {"port": node.port}


@real
@each_library
@pytest.mark.usefixtures("short_polling")
def test_reserve_polls_without_blpop(
    without_blpop: dict[str, Any], flavour: ClientKind, caplog: pytest.LogCaptureFixture
) -> None:
    def work(client: Any) -> Work:
        queue = flavour.queues.Buffer(client, "q")
        other = flavour.queues.Buffer(client, "q")
        assert (yield queue.reserve(timeout=0.2)) is None
        for i in range(2):
            yield other.push(i, group=str(i))
            batch = yield queue.reserve(timeout=60)
            assert batch.items == [i]
        priority = flavour.queues.PriorityQueue(client, "p")
        yield priority.push("a", delay=0.2)
        assert (yield priority.pop(timeout=60)).member == "a"

    flavour.run(lambda: flavour.client(**without_blpop), work)
    logged = [record.args for record in caplog.records if "BLPOP is refused" in record.message]
    assert len(logged) == 2  # once for each queue


@real
@each_flavour
@pytest.mark.usefixtures("short_polling")
def test_a_worker_polls_without_blpop(
    without_blpop: dict[str, Any], flavour: ClientKind, caplog: pytest.LogCaptureFixture
) -> None:
    done: list[int] = []
    unix = "unix_socket_path" in without_blpop
    server = {"unix_socket_path": without_blpop["unix_socket_path"]} if unix else without_blpop
    with (
        flavour.working(lambda: flavour.client(**without_blpop), lambda batch: done.extend(batch.items)) as working,
        redis.Redis(**server) as client,
    ):
        queue: Buffer[int] = Buffer(client, "q")
        until(lambda: "BLPOP is refused" in caplog.text, "the refusal is logged")
        for i in range(3):
            queue.push(i)
            until(lambda: queue.stats().done == len(done) == i + 1, "the item is done")  # noqa: B023
        assert not working.done()
    assert done == [0, 1, 2]
    assert caplog.text.count("BLPOP is refused") == 1
    assert "unavailable" not in caplog.text


@real
@each_flavour
def test_polling_once_a_second(server: Server, flavour: ClientKind, monkeypatch: pytest.MonkeyPatch) -> None:
    """A push is found within a second and a round trip, however long the wait."""
    slept: list[float] = []
    if flavour.name == "blocking":
        monkeypatch.setattr(redisq.blocking.runner, "time", SimpleNamespace(sleep=slept.append))
    else:

        async def sleep(seconds: float) -> None:
            slept.append(seconds)

        monkeypatch.setattr(redisq.asyncio.runner, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": sleep}))

    def work(client: Any) -> Work:
        queue = flavour.queues.Buffer(client, "q")
        for seconds in (60, 60, 0.25):
            yield queue.wait(seconds)

    flavour.run(lambda: flavour.client(**user_of(server, "+@all", "-blpop")), work)
    assert [one for one in slept if one] == [POLL, 0.25]  # the first wait is the one that is refused
    assert POLL == 1.0


# -- a demoted master behind a host name -----------------------------------------------------------------------------


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


# -- objects that are not clients ------------------------------------------------------------------------------------


class GlideClient:
    """A stand-in for a client of valkey-glide."""

    __module__ = "glide.glide_client"


class SyncGlideClusterClient:
    """A stand-in for a blocking client of valkey-glide."""

    __module__ = "glide_sync.glide_client"


NO_CLIENTS: list[tuple[Callable[[ClientKind], Any], str]] = [
    (lambda _: GlideClient(), r"a glide\.glide_client\.GlideClient: .*pip install valkey"),
    (lambda _: SyncGlideClusterClient(), r"a glide_sync\.glide_client\.SyncGlideClusterClient: .*pip install valkey"),
    (lambda flavour: flavour.client().pipeline(), r"a pipeline: .*calls\.push.*\.queue\(pipeline\)"),
    (lambda flavour: flavour.client().pubsub(), "give a client of redis-py or valkey-py"),
    (lambda flavour: flavour.package.ConnectionPool(), "connection_pool="),
    (lambda flavour: flavour.client, "give a client of redis-py or valkey-py"),
    (lambda _: redis.sentinel.Sentinel([]), "master_for"),  # type: ignore[no-untyped-call]
    (lambda _: "redis://localhost", r"Redis\.from_url"),
    (lambda _: None, "client is None: give a client"),
    (lambda _: {"host": "localhost"}, "of type dict: give a client"),
]


@each_library
@pytest.mark.parametrize("number", range(len(NO_CLIENTS)))
def test_objects_that_are_not_clients_are_refused(flavour: ClientKind, number: int) -> None:
    """In the constructor, with advice on what to pass instead."""
    make, message = NO_CLIENTS[number]
    what = make(flavour)
    for kind in ("Buffer", "PriorityQueue"):
        with pytest.raises(InvalidArgument, match=message):
            getattr(flavour.queues, kind)(what, "q")
    with pytest.raises(InvalidArgument, match=message):
        flavour.queues.RateLimiter(what, "q", redisq.Rate(1, 1))


@each_library
def test_clients_of_the_other_flavour_are_refused(flavour: ClientKind) -> None:
    (other,) = [one for one in (*REDIS, *VALKEY) if one.library == flavour.library and one.name != flavour.name]
    home = {"blocking": "import from redisq$", "asyncio": r"import from redisq\.asyncio"}[other.name]
    with pytest.raises(InvalidArgument, match=f"the {other.name} {other.client.__name__}: {home}"):
        flavour.queues.Buffer(other.client(), "q")


def test_a_proxy_object_counts_as_a_client() -> None:
    """An object that forwards everything to a client, and reports its class."""

    class Proxied:
        def __init__(self, client: Any) -> None:
            self._client = client

        def __getattr__(self, name: str) -> Any:
            return getattr(self._client, name)

        @property  # type: ignore[misc]
        def __class__(self) -> Any:
            return type(self._client)

    proxied: Any = Proxied(redis.Redis())
    assert Buffer(proxied, "q").runner.client is proxied


# -- event loops and processes ---------------------------------------------------------------------------------------


@real
@pytest.mark.parametrize("library", ["redis", "valkey"])
async def test_another_event_loop_is_refused_while_the_first_is_open(server: Server, library: str) -> None:
    flavour = ClientKind("asyncio", library)
    async with flavour.client(unix_socket_path=server.socket) as client:
        queue = redisq.asyncio.Buffer[int](client, "q")
        await queue.push(1)
        calls: list[Callable[[], Any]] = [
            lambda: queue.push(2),
            lambda: queue.send(queue.calls.push([2])),
            lambda: queue.wait(1),
            lambda: queue.reserve_many(3),
        ]
        for call in calls:

            async def make(call: Callable[[], Any] = call) -> None:
                await call()

            with pytest.raises(RedisqError, match=r"another event loop.*for each event loop"):
                await asyncio.to_thread(lambda make=make: asyncio.run(make()))  # type: ignore[misc]
        assert await queue.pop(size=10) == [1]


def in_process(code: str, *arguments: str) -> str:
    """Run code in a separate process, and return its output."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


LOOPS = """
    import asyncio, sys
    import redis, redisq.asyncio
    import {library}.asyncio
    retry = {library}.asyncio.retry.Retry({library}.backoff.NoBackoff(), 0)
    client = {library}.asyncio.{client}(unix_socket_path=sys.argv[1], retry=retry, **{options})
    queue = redisq.asyncio.Buffer(client, "q")

    async def waits():
        with redis.Redis(unix_socket_path=sys.argv[1]) as direct:
            while not direct.info("clients")["blocked_clients"]:
                await asyncio.sleep(0.01)

    async def work(i):
        assert await asyncio.gather(*(queue.push(i, j) for j in range(5))) == [2, 4, 6, 8, 10]
        assert await queue.pop(size=10) == [i, 0, i, 1, i, 2, i, 3, i, 4]
        assert await queue.reserve(timeout=0.01) is None
        if i == 1:  # another queue with the same client, of the first loop too, does not touch what is in use
            waiting = asyncio.create_task(queue.wait(0.2))
            await waits()
            assert await other.push(1) == 2
            await waiting
        elif i == 0:
            assert await other.push(1) == 1
        if i:
            asyncio.create_task(queue.reserve(timeout=60))  # the end of the loop cancels it
            await waits()

    other = redisq.asyncio.Buffer(client, "other")
    for i in range(3):
        asyncio.run(work(i))
        print(i)
"""


@real
@pytest.mark.parametrize("options", [{}, {"single_connection_client": True}], ids=str)
@pytest.mark.parametrize("library", ["redis", "valkey"])
def test_another_event_loop_after_the_first_is_closed(server: Server, library: str, options: dict[str, Any]) -> None:
    """New connections are opened, also for a wait that the end of the first loop cancelled.

    In a separate process, because the connections of the first loop are never closed, of which Python warns.
    """
    code = LOOPS.format(library=library, client=library.capitalize(), options=options)
    assert in_process(code, server.socket).split() == ["0", "1", "2"]


FORKS = """
    import os, sys
    import {library}, redisq
    client = {library}.{client}(unix_socket_path=sys.argv[1])
    queue = redisq.Buffer(client, "q")
    queue.push(*range(100))
    queue.reserve(1).ack()
    out, into = os.pipe()
    children = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            for _ in range(10):
                batch = queue.reserve(1)
                os.write(into, f"{{batch.id}} {{batch.items[0]}} {{batch.holder}}\\n".encode())
                assert batch.ack() == 1
            os._exit(0)
        children.append(pid)
    for _ in range(10):
        batch = queue.reserve(1)
        os.write(into, f"{{batch.id}} {{batch.items[0]}} {{batch.holder}}\\n".encode())
        assert batch.ack() == 1
    assert all(os.waitpid(pid, 0)[1] == 0 for pid in children)
    os.close(into)
    print(os.read(out, 1 << 16).decode())
"""


@real
@pytest.mark.parametrize("flavour", [REDIS[0], VALKEY[0]], ids=str)
def test_a_queue_after_a_fork(server: Server, flavour: ClientKind) -> None:
    """In the child and in the parent: ids are unique, no connection is shared, and each has its own holder name."""
    code = FORKS.format(library=flavour.library, client=flavour.client.__name__)
    lines = [line.split() for line in in_process(code, server.socket).splitlines() if line]
    assert len(lines) == 50
    assert len({line[0] for line in lines}) == 50
    assert {int(line[1]) for line in lines} == set(range(1, 51))
    assert len({line[2] for line in lines}) == 5


ASYNC_FORKS = """
    import asyncio, os, sys
    import redis.asyncio, redisq.asyncio
    queue = redisq.asyncio.Buffer(redis.asyncio.Redis(unix_socket_path=sys.argv[1]), "q")

    async def work():
        await queue.push(1)
        batch = await queue.reserve(1)
        return batch.id

    def child(act):
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            try:
                act()
                sys.stdout.flush()
            finally:
                os._exit(0)
        os.waitpid(pid, 0)

    child(lambda: print(asyncio.run(work())))  # before it was used
    print(asyncio.run(work()))
    child(lambda: print(asyncio.run(work())))  # after its event loop was closed
    print(asyncio.run(work()))

    async def inside():
        await work()
        child(other_loop)
        print(await work())

    def other_loop():
        asyncio._set_running_loop(None)
        try:
            asyncio.run(work())
        except redisq.RedisqError as error:
            print(str(error).replace(" ", "_"))

    asyncio.run(inside())
"""


@real
def test_an_asyncio_queue_after_a_fork(server: Server) -> None:
    """It works if it was unused, or if its loop is closed; else there is a clear error, and no harm is done."""
    *ids, last = sorted(in_process(ASYNC_FORKS, server.socket).split(), key=lambda word: "fork" in word)
    assert "the_process_that_this_one_is_a_fork_of" in last
    assert len(set(ids)) == len(ids) == 5
