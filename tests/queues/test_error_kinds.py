"""Errors by kind: what is refused for good, a shortage of connections, and an outage."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import redis
import valkey

from redisq import Buffer, RedisqError
from redisq.core.clients import connection_arguments, kind_of, remedy_for
from redisq.embedded import Server
from tests.faults.node import HOST, Node, running
from tests.queues.any_client import ClientKind, Work, each_flavour, each_library, user_of
from tests.waiting import until

real = pytest.mark.server
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
