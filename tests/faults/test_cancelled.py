"""asyncio calls are cancelled at each of their awaits: nothing is lost once the lease expires, nothing is done twice.

A call is cancelled when it begins to wait, or after what it waited for has happened but before it resumes. Its request
may have been sent or not, so it is unknown whether it took effect; it is repeated with the same id, or abandoned: what
was reserved comes back when its short lease expires. The results are compared with what the queue keeps of its leases.
"""

from __future__ import annotations

import asyncio
import random
import types
from collections import Counter
from collections.abc import Callable, Coroutine, Generator
from itertools import count
from typing import Any, TypeVar

import pytest
import redis
import redis.asyncio

import redisq.asyncio
from redisq import Pushed
from redisq.embedded import Server
from tests.connections import closing_connections

from . import settings
from .lease_log import read_lease_log

pytestmark = [pytest.mark.server, settings.limit]

CANCELS = settings.pick(100, 3_000)  # for each structure and kind of client
SHARE = 0.1 / 6  # of the minutes, for each
CONTROL = 100
LEASE = 0.02
R = TypeVar("R")


CLIENTS: dict[str, Callable[[str], redis.asyncio.Redis]] = {
    "Redis": lambda path: redis.asyncio.Redis(unix_socket_path=path),
    "BlockingConnectionPool": lambda path: redis.asyncio.Redis.from_pool(
        redis.asyncio.BlockingConnectionPool(
            connection_class=redis.asyncio.UnixDomainSocketConnection, path=path, max_connections=1
        )
    ),
    "single connection": lambda path: redis.asyncio.Redis(unix_socket_path=path, single_connection_client=True),
}


@pytest.fixture
def socket(server: Server) -> str:
    """Return the socket of a real server, emptied."""
    return server.socket


@types.coroutine
def _cancelled_at(call: Coroutine[Any, Any, R], place: int, late: bool) -> Generator[Any, Any, tuple[R, bool]]:
    error: BaseException | None = None
    for at in count():
        try:
            waits_for = call.throw(error) if error else call.send(None)
        except StopIteration as stop:
            return stop.value, at > place
        if at == place and not late:
            task = asyncio.current_task()
            assert task
            task.cancel()  # raised at this very await
        error = None
        try:
            yield waits_for
        except BaseException as thrown:
            error = thrown
        if at == place and late:
            error = asyncio.CancelledError()  # as when a task is cancelled that is about to resume
    raise AssertionError("unreachable")


class Cancelled:
    """The result of a call that was cancelled."""


CANCELLED = Cancelled()


class Canceller:
    """Cancels calls, each at the next of its awaits, and counts them."""

    def __init__(self, seed: int, client: redis.asyncio.Redis) -> None:
        self.random = random.Random(seed)
        self.client = client
        self.cancelled: Counter[str] = Counter()
        self._places: Counter[tuple[str, bool, bool]] = Counter()

    async def __call__(self, name: str, call: Coroutine[Any, Any, R]) -> R | Cancelled:
        """Make the call in a separate task; return `CANCELLED` if it was.

        A call that has no such await completes. So does, before Python 3.12, a call whose cancellation
        `asyncio.wait_for` swallows because its result has arrived.
        """
        # A call that has to connect, or to load a script, has more awaits; each of these cases is counted on its own.
        fresh, unloaded = self.random.random() < 0.4, self.random.random() < 0.3
        await (self.client.script_flush() if unloaded else self.client.ping())
        if fresh:
            await self.client.connection_pool.disconnect()
        case = name, fresh, unloaded
        place, late = divmod(self._places[case], 2)

        async def run() -> tuple[R, bool]:
            return await _cancelled_at(call, place, bool(late))

        task = asyncio.ensure_future(run())
        await asyncio.wait([task])
        if task.cancelled():
            self.cancelled[name] += 1
            self._places[case] += 1
            return CANCELLED
        result, reached = task.result()
        self._places[case] = self._places[case] + 1 if reached else 0  # fewer awaits than that: start again
        return result


class Caller:
    """A client whose calls of every kind are cancelled, and which knows what it pushed and what each lease has."""

    def __init__(self, structure: str, seed: int, client: redis.asyncio.Redis) -> None:
        kind: Any = redisq.asyncio.Buffer if structure == "buffer" else redisq.asyncio.PriorityQueue
        self.queue = kind(client, "q", lease=LEASE, dedup_window=600.0)
        self.fronts = structure == "buffer"
        self.cancel = Canceller(seed, client)
        self.random = random.Random(seed)
        self.pushed: list[str] = []
        self.known: dict[str, list[str]] = {}
        self.ids = count()

    async def push(self) -> None:
        """Push; when cancelled, repeat with the same token until it succeeds."""
        token = f"push {next(self.ids)}"
        items = [f"{token} {i}" for i in range(self.random.randint(1, 3) if self.fronts else 1)]
        self.pushed += items
        verb = "push_front" if self.fronts and self.random.random() < 0.5 else "push"
        while (answer := await self.cancel(verb, getattr(self.queue, verb)(*items, token=token))) is CANCELLED:
            pass
        assert self.fronts or answer is Pushed.ADDED  # a push that took effect twice would answer KEPT

    async def reserve(self) -> redisq.asyncio.Batch[str] | None:
        """Reserve; when cancelled, repeat with the same id or abandon it."""
        name = f"lease {next(self.ids)}"
        verb, timeout = self.random.choice((("reserve", 0.0), ("reserve and wait", 0.03)))
        while True:
            batch: Any = await self.cancel(verb, self.queue.reserve(3, lease_id=name, timeout=timeout))
            if batch is not CANCELLED:
                if batch:
                    self.known[name] = batch.items
                return batch  # type: ignore[no-any-return]
            if self.random.random() < 0.3:
                return None

    async def settle(self, batch: redisq.asyncio.Batch[str]) -> None:
        """Extend, release or ack; when cancelled, repeat or abandon it."""
        for verb in self.random.choice((("extend", "ack"), ("extend", "release"), ("ack",), ("ack",), ("release",))):
            while await self.cancel(verb, getattr(self.queue, verb)(batch)) is CANCELLED and self.random.random() < 0.7:
                pass

    async def drain(self) -> None:
        """Reserve and ack the rest, without cancellations."""
        while True:
            stats = await self.queue.stats()
            if not stats.waiting + stats.leased + stats.delayed:
                return
            if batch := await self.queue.reserve(100, timeout=1.0, lease=60.0, lease_id=f"rest {next(self.ids)}"):
                self.known[batch.id] = batch.items
                await batch.ack()


@pytest.mark.parametrize("structure", ["buffer", "priority"])
@pytest.mark.parametrize("way", CLIENTS)
async def test_a_cancelled_call_loses_nothing(way: str, structure: str, socket: str) -> None:
    for seed in settings.seeds(SHARE):
        async with closing_connections(CLIENTS[way](socket)) as client:
            await client.flushall()
            caller = Caller(structure, seed, client)
            verbs = {"push", "reserve", "reserve and wait", "extend", "ack", "release", *["push_front"] * caller.fronts}
            while caller.cancel.cancelled.total() < CANCELS or caller.cancel.cancelled.keys() != verbs:
                if caller.random.random() < 0.7:  # else the queue may be empty, and the reserve waits
                    await caller.push()
                if batch := await caller.reserve():
                    await caller.settle(batch)
            await caller.drain()
            assert (await caller.queue.audit()).ok
        with redis.Redis(unix_socket_path=socket) as other:
            lease_log = read_lease_log(other)
        assert Counter(item for name in lease_log.acked for item in caller.known[name]) == Counter(caller.pushed)
        assert all(count == len(caller.known[name]) for name, count in lease_log.acked.items())
        print(
            f"{way}, {structure}: {caller.cancel.cancelled.total()} cancelled {dict(caller.cancel.cancelled)},"
            f" {len(caller.pushed)} items; {len(lease_log.acked)} acks, {len(lease_log.released)} releases,"
            f" {len(lease_log.expired)} expiries; 0 lost, 0 twice"
        )


async def test_control_plain_commands_lose_and_duplicate(socket: str) -> None:
    """With LPUSH, repeated when it was cancelled, and RPOP."""
    async with closing_connections(CLIENTS["Redis"](socket)) as client:
        cancel = Canceller(settings.SEED, client)
        items = lost = doubled = 0
        while items < CONTROL or not (lost and doubled):  # of a hundred, a busy machine may let all complete
            await client.flushall()
            for i in range(CONTROL):
                while await cancel("push", client.lpush("pushed", i)) is CANCELLED:  # type: ignore[arg-type]
                    pass
            doubled += await client.llen("pushed") - CONTROL
            await client.lpush("list", *range(CONTROL))
            popped: set[Any] = set()
            while await client.exists("list"):
                popped.add(await cancel("pop", client.rpop("list")))  # type: ignore[arg-type]
            lost += CONTROL - len(popped - {CANCELLED, None})
            items += CONTROL
        print(f"plain commands: {cancel.cancelled.total()} cancelled, {lost} lost, {doubled} twice, of {items} each")
