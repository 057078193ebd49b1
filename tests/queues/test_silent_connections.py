"""Connections that were dropped silently, as by a firewall: who waits on one notices, and opens another."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import redisq.asyncio
import redisq.asyncio.runner
import redisq.blocking.runner
from redisq import Buffer
from redisq.core.clients import socket_timeout
from redisq.core.flow import OVERDUE
from redisq.embedded import Server
from tests.faults.node import HOST
from tests.faults.proxy import Proxy
from tests.queues.any_client import ClientKind, Work, each_library, with_pool
from tests.waiting import until

RUNNERS = (redisq.blocking.runner, redisq.asyncio.runner)
real = pytest.mark.server
KINDS = pytest.mark.parametrize("kind", ["ConnectionPool", "BlockingConnectionPool", "single connection"])


def is_waiting(server: Server) -> bool:
    """Return whether a client is blocked on a wake-up."""
    with server.client() as client:
        info: Any = client.info("clients")
        return bool(info["blocked_clients"])


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten waits, and the time after which they count as overdue."""
    for runner in RUNNERS:
        monkeypatch.setattr(runner, "block_seconds", lambda seconds, _: min(seconds, 0.1))
        monkeypatch.setattr(runner, "OVERDUE", 0.1)


def silent_client(flavour: ClientKind, kind: str, port: int) -> Any:
    """Make a client without a socket timeout and with several open connections."""
    if kind == "single connection":
        return flavour.client(port=port, socket_timeout=None, single_connection_client=True)
    return with_pool(flavour, kind, host=HOST, port=port, socket_timeout=None)


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
