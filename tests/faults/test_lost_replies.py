"""Requests and replies are lost, and everything takes effect once, with clients made in every way.

There is one client, so each answer is known in advance: a push, an ack or a release that took effect twice, or not at
all, gives another answer at once. Some of redis-py's clients retry on their own and some do not; where an error is
raised, the call is repeated with the same `token` or `lease_id`, as a user would do.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

import redisq.asyncio
from redisq import Buffer, PriorityQueue
from redisq.embedded import Server
from tests.connections import closing_connections

from . import settings
from .proxy import Fault, Proxy
from .workload import WORKLOADS, FaultInjector, Workload, adrive, drive

pytestmark = [
    pytest.mark.server,
    pytest.mark.filterwarnings("ignore:.*retry_on_timeout:DeprecationWarning"),  # in one of the ways, all the same
    settings.limit,
]

FAULTS = settings.pick(500, 1_000)  # for each flavour and seed, over all its clients
SHARE = 0.2 / 4  # of the minutes, for each flavour and structure
KINDS = (Fault.REQUEST, Fault.REPLY, Fault.TORN_REQUEST, Fault.TORN_REPLY)
# A silent loss is only noticed at the socket's timeout, so only these clients meet it.
TIMED = ("retry_on_timeout", "silence")
SILENT = (*KINDS, Fault.SILENT_REQUEST, Fault.SILENT_REPLY)
TIMEOUT = 0.05  # seconds
NAIVE = (b"LPUSH", b"RPOP", b"ZADD", b"ZPOPMIN")

Make = Callable[[int], Any]
NEVER = Retry(NoBackoff(), 0)

BLOCKING: dict[str, Make] = {
    "Redis": lambda port: redis.Redis(port=port),
    "no retry": lambda port: redis.Redis(port=port, retry=NEVER),
    "from_url": lambda port: redis.Redis.from_url(f"redis://127.0.0.1:{port}"),
    "ConnectionPool": lambda port: redis.Redis(connection_pool=redis.ConnectionPool(port=port)),
    "from_pool": lambda port: redis.Redis.from_pool(redis.BlockingConnectionPool(port=port, max_connections=1)),  # type: ignore[no-untyped-call]
    "Retry": lambda port: redis.Redis(port=port, retry=Retry(NoBackoff(), 3)),
    "retry_on_error": lambda port: redis.Redis(
        port=port, retry=Retry(NoBackoff(), 1), retry_on_error=[redis.ConnectionError]
    ),
    "retry_on_timeout": lambda port: redis.Redis(port=port, retry_on_timeout=True, socket_timeout=TIMEOUT),
    "single connection": lambda port: redis.Redis(port=port, single_connection_client=True),
    "RESP3, decoded": lambda port: redis.Redis(port=port, protocol=3, decode_responses=True),
    "silence": lambda port: redis.Redis(port=port, retry=NEVER, socket_timeout=TIMEOUT),
}
ASYNCIO: dict[str, Make] = {
    "Redis": lambda port: redis.asyncio.Redis(port=port),
    "no retry": lambda port: redis.asyncio.Redis(port=port, retry=AsyncRetry(NoBackoff(), 0)),
    "from_url": lambda port: redis.asyncio.Redis.from_url(f"redis://127.0.0.1:{port}"),
    "ConnectionPool": lambda port: redis.asyncio.Redis(connection_pool=redis.asyncio.ConnectionPool(port=port)),
    "from_pool": lambda port: redis.asyncio.Redis.from_pool(
        redis.asyncio.BlockingConnectionPool(port=port, max_connections=1)
    ),
    "Retry": lambda port: redis.asyncio.Redis(port=port, retry=AsyncRetry(NoBackoff(), 3)),
    "retry_on_error": lambda port: redis.asyncio.Redis(
        port=port, retry=AsyncRetry(NoBackoff(), 1), retry_on_error=[redis.ConnectionError]
    ),
    "retry_on_timeout": lambda port: redis.asyncio.Redis(port=port, retry_on_timeout=True, socket_timeout=TIMEOUT),
    "single connection": lambda port: redis.asyncio.Redis(port=port, single_connection_client=True),
    "RESP3, decoded": lambda port: redis.asyncio.Redis(port=port, protocol=3, decode_responses=True),
    "silence": lambda port: redis.asyncio.Redis(
        connection_pool=redis.asyncio.ConnectionPool(port=port, socket_timeout=TIMEOUT)
    ),
}
CONTROL = 20  # items
CONTROLS = settings.pick(("Redis", "ConnectionPool"), ("Redis", "from_url", "ConnectionPool", "Retry", "silence"))
OPTIONS = {"lease": 600.0, "dedup_window": 600.0}


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    """Return a proxy before the server."""
    with Proxy(server.socket) as made:
        yield made


@contextmanager
def closing(client: redis.Redis) -> Iterator[redis.Redis]:
    """Close a client and its pool at the end: a pool that was passed in is not closed with the client."""
    try:
        with client:
            yield client
    finally:
        client.connection_pool.disconnect()


@pytest.fixture(autouse=True)
def _no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let redis-py retry at once: the time until then is all that its backoff changes."""

    async def sleep(seconds: float) -> None:  # noqa: ARG001
        await asyncio.sleep(0)

    monkeypatch.setattr("redis.retry.sleep", lambda seconds: None)  # noqa: ARG005
    monkeypatch.setattr("redis.asyncio.retry.sleep", sleep)


def injector_for(way: str, seed: int, proxy: Proxy) -> FaultInjector:
    """Return an injector for the calls that this client makes."""
    return FaultInjector(proxy, seed, SILENT if way in TIMED else KINDS)


def go_on(injector: FaultInjector, structure: str, ways: dict[str, Make], proxy: Proxy) -> Callable[[], bool]:
    """Return a function that returns whether the client has faults left to meet, so that every call loses both."""
    enough = proxy.injected.total() + FAULTS / len(ways) / len(WORKLOADS)
    calls = ["push", "reserve", "ack", "release", "extend", "bury", "redrive"]
    calls += ["push_front"] if structure == "buffer" else []
    return lambda: (
        proxy.injected.total() < enough or not all(injector.requests[c] and injector.replies[c] for c in calls)
    )


def report(flavour: str, way: str, structure: str, proxy: Proxy) -> None:
    """Print what was injected; the workload has checked at each step that nothing was lost or done twice."""
    faults = ", ".join(f"{count} {fault.name}" for fault, count in proxy.injected.items())
    print(f"{flavour}, {way}, {structure}: {proxy.injected.total()} faults ({faults}), 0 lost, 0 twice")


@pytest.mark.parametrize("structure", WORKLOADS)
@pytest.mark.parametrize("way", BLOCKING)
def test_lost_requests_and_replies(way: str, structure: str, server: Server, proxy: Proxy) -> None:
    for seed in settings.seeds(SHARE / len(BLOCKING)):
        with closing(BLOCKING[way](proxy.port)) as client:
            kind: Any = Buffer if structure == "buffer" else PriorityQueue
            queue = kind(client, "q", **OPTIONS)
            injector = injector_for(way, seed, proxy)
            drive(WORKLOADS[structure](seed, go_on(injector, structure, BLOCKING, proxy)), queue, injector)
        with server.client() as client:
            client.flushall()
    report("blocking", way, structure, proxy)


@pytest.mark.parametrize("structure", WORKLOADS)
@pytest.mark.parametrize("way", ASYNCIO)
async def test_lost_requests_and_replies_asyncio(way: str, structure: str, server: Server, proxy: Proxy) -> None:
    for seed in settings.seeds(SHARE / len(ASYNCIO)):
        async with closing_connections(ASYNCIO[way](proxy.port)) as client:
            kind: Any = redisq.asyncio.Buffer if structure == "buffer" else redisq.asyncio.PriorityQueue
            queue = kind(client, "q", **OPTIONS)
            injector = injector_for(way, seed, proxy)
            await adrive(WORKLOADS[structure](seed, go_on(injector, structure, ASYNCIO, proxy)), queue, injector)
        with server.client() as other:
            other.flushall()
    report("asyncio", way, structure, proxy)


def naive_workload(seen: Counter[int]) -> Workload:
    """Use a list and a sorted set with plain commands; count what comes out."""
    for i in range(CONTROL):
        yield "lpush", ("list", i), {}
        yield "zadd", ("zset", {str(CONTROL + i): i}), {}
    while (item := (yield "rpop", ("list",), {})) is not None:
        seen[int(item)] += 1
    while found := (yield "zpopmin", ("zset",), {}):
        seen[int(found[0][0])] += 1


def check_naive(seen: Counter[int], proxy: Proxy) -> None:
    """Check that plain commands lose and duplicate under the same faults, else they are not injected."""
    lost, twice = 2 * CONTROL - len(seen), sum(count > 1 for count in seen.values())
    print(f"plain commands: {proxy.injected.total()} faults, {lost} lost, {twice} twice, of {2 * CONTROL}")
    assert any(seen[i] > 1 for i in range(CONTROL))
    assert any(seen[i] == 0 for i in range(CONTROL))
    assert any(seen[i] == 0 for i in range(CONTROL, 2 * CONTROL))


@pytest.mark.parametrize("way", CONTROLS)
def test_control_plain_commands_lose_and_duplicate(way: str, proxy: Proxy) -> None:
    seen: Counter[int] = Counter()
    with closing(BLOCKING[way](proxy.port)) as client:
        drive(naive_workload(seen), client, FaultInjector(proxy, settings.SEED, KINDS, NAIVE))
    check_naive(seen, proxy)


@pytest.mark.parametrize("way", CONTROLS)
async def test_control_plain_commands_lose_and_duplicate_asyncio(way: str, proxy: Proxy) -> None:
    seen: Counter[int] = Counter()
    async with closing_connections(ASYNCIO[way](proxy.port)) as client:
        await adrive(naive_workload(seen), client, FaultInjector(proxy, settings.SEED, KINDS, NAIVE))
    check_naive(seen, proxy)
