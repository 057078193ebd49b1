"""asyncio calls share round trips: calls made during one are sent together in the next.

An error, a cancellation or an unloaded script affects its own call only; an outage affects all. A test can hold a round
trip with `Gated` while it makes other calls.
"""

from __future__ import annotations

import asyncio
import logging
import math
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import redis
import redis.asyncio
from redis.asyncio.cluster import RedisCluster

import redisq.asyncio
import redisq.asyncio.round_trip
import redisq.asyncio.runner
from redisq import BYTES, CodecError, LeaseLost, NotDurable, Replicas, ScriptError
from redisq.asyncio import Buffer, PriorityQueue
from redisq.core.scripts import load
from redisq.embedded import Server
from tests.connections import closing_connections
from tests.faults.cluster import Cluster, cluster
from tests.faults.node import HOST
from tests.faults.proxy import Fault, Proxy
from tests.faults.replication import Replication
from tests.queues.any_client import REDIS

pytestmark = pytest.mark.server


def no_retries() -> Any:
    """Return a retry policy with which a client gives up at the first error."""
    return REDIS[1].no_retries()


class Gate:
    """A gate for round trips, which counts them; while it is shut, a round trip has begun, but nothing is sent."""

    def __init__(self) -> None:
        self.trips: list[int] = []
        """The number of commands in each."""
        self.tasks: list[asyncio.Task[Any] | None] = []
        """The task that sent each."""
        self._allowed: float = math.inf
        self._changed = asyncio.Condition()

    async def shut(self) -> None:
        """Hold all round trips from now on."""
        await self._allow(len(self.trips))

    async def let(self, count: int) -> None:
        """Let this many round trips pass."""
        await self._allow(self._allowed + count)

    async def open(self) -> None:
        """Let all round trips pass."""
        await self._allow(math.inf)

    async def _allow(self, count: float) -> None:
        async with self._changed:
            self._allowed = count
            self._changed.notify_all()

    async def begun(self, count: int) -> None:
        """Wait until this many round trips have begun."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.trips) >= count)

    async def through(self, commands: int) -> None:
        """Begin a round trip, and wait for the gate."""
        self.trips.append(commands)
        self.tasks.append(asyncio.current_task())
        number = len(self.trips)
        async with self._changed:
            self._changed.notify_all()
            await self._changed.wait_for(lambda: self._allowed >= number)


class Gated(redis.asyncio.Redis):
    """A client whose script calls go through a gate."""

    gate: Gate


def commands_in(data: bytes) -> list[list[bytes]]:
    """Return the commands that a client sends, each with its arguments."""
    found, at = [], 0

    def number() -> int:
        nonlocal at
        end = data.index(b"\r\n", at)
        value, at = int(data[at + 1 : end]), end + 2
        return value

    while at < len(data):
        arguments = []
        for _ in range(number()):
            size = number()
            arguments.append(data[at : at + size])
            at += size + 2
        found.append(arguments)
    return found


def gated(**options: Any) -> Gated:
    """Return such a client, with its gate open."""
    gate = Gate()
    base: Any = redis.asyncio.UnixDomainSocketConnection if "path" in options else redis.asyncio.Connection

    class GatedConnection(base):  # type: ignore[misc]
        async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
            commands = commands_in(b"".join(command))
            if any(name in (b"EVALSHA", b"EVAL") for name, *_ in commands):
                await gate.through(len(commands))
            await super().send_packed_command(command, check_health)

    client: Any = Gated.from_pool(redis.asyncio.ConnectionPool(connection_class=GatedConnection, **options))
    client.gate = gate
    return cast(Gated, client)


class GatedCluster(RedisCluster):
    """The same for a cluster's client."""

    gate: Gate

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        if args[0] in ("EVALSHA", "EVAL"):
            await self.gate.through(1)
        return await super().execute_command(*args, **options)

    def pipeline(self, *args: Any, **options: Any) -> Any:
        pipe: Any = super().pipeline(*args, **options)
        execute, pipe.command_stack = pipe.execute, []
        queue = pipe.execute_command

        def queued(*args: Any, **options: Any) -> Any:
            pipe.command_stack.append(args)
            return queue(*args, **options)

        async def gated(**options: Any) -> Any:
            await self.gate.through(len(pipe.command_stack))
            return await execute(**options)

        pipe.execute, pipe.execute_command = gated, queued
        return pipe


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Gated]:
    """Return a client of an emptied server, with its gate open; it gives up at the first error."""
    async with gated(path=server.socket, retry=no_retries()) as made:
        yield made


@pytest.fixture
async def queue(client: Gated) -> Buffer[Any]:
    """Return a queue whose scripts are loaded."""
    made: Buffer[Any] = Buffer(client, "q")
    await made.push("known")
    await made.pop()
    await made.reserve()
    client.gate.trips.clear()
    return made


Made = list["asyncio.Task[Any]"]


async def meanwhile(client: Gated | GatedCluster, first: Coroutine[Any, Any, Any], *calls: Any) -> Made:
    """Make calls during the first one's round trip, which is then let through."""
    gate = client.gate
    await gate.shut()
    before = len(gate.trips)
    made = [asyncio.ensure_future(first)]
    await gate.begun(before + 1)
    made += [asyncio.ensure_future(call) for call in calls]
    await asyncio.sleep(0)
    return made


async def together(client: Gated | GatedCluster, *calls: Coroutine[Any, Any, Any]) -> list[Any]:
    """Make calls that share a round trip, and return their results or errors."""
    made = await meanwhile(client, *calls)
    await client.gate.open()
    return await asyncio.gather(*made, return_exceptions=True)


# -- how many round trips --------------------------------------------------------------------------------------------


async def test_a_single_call_is_sent_at_once(client: Gated, queue: Buffer[int]) -> None:
    """In its own round trip, by the calling task, before any other task runs."""
    tasks = asyncio.all_tasks()
    call = asyncio.ensure_future(queue.push(1))
    await client.gate.shut()
    await client.gate.begun(1)
    assert asyncio.all_tasks() - tasks == {call}
    await client.gate.open()
    assert await call == 1
    assert client.gate.trips == [1]


async def test_a_single_call_is_sent_at_once_after_others_shared(client: Gated, queue: Buffer[int]) -> None:
    """Also by a task that makes one call after the other without ever yielding in between."""
    await client.script_flush()
    await together(client, *(queue.push(i) for i in range(5)))
    for _ in range(5):
        await queue.pop()
    assert client.gate.tasks[-3:] == [asyncio.current_task()] * 3


async def test_many_tasks_need_few_round_trips(client: Gated, queue: Buffer[int]) -> None:
    """A hundred tasks with ten pushes each: calls made in the meantime are sent together."""

    async def push(task: int) -> None:
        for i in range(10):
            await queue.push(task * 10 + i)

    await asyncio.gather(*(push(task) for task in range(100)))
    assert sum(client.gate.trips) == 1_000
    assert len(client.gate.trips) <= 40
    assert sorted(await queue.pop(size=2_000)) == list(range(1_000))


async def test_a_round_trip_is_bounded(client: Gated, queue: Buffer[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """In calls and in arguments, in the order of the calls; a single call is never too large."""
    monkeypatch.setattr(redisq.asyncio.runner, "_MOST_CALLS", 20)
    pushed = await together(client, *(queue.push(i) for i in range(101)))
    assert pushed == list(range(1, 102))
    assert client.gate.trips == [1, 20, 20, 20, 20, 20]
    assert await queue.pop(size=200) == list(range(101))
    monkeypatch.setattr(redisq.asyncio.runner, "_MOST_ARGUMENTS", 5 * len(queue.calls.push([0]).args))
    client.gate.trips.clear()
    await together(client, queue.push(0), queue.push(*range(1, 31)), *(queue.push(i) for i in range(31, 39)))
    assert client.gate.trips == [1, 1, 5, 3]
    assert await queue.pop(size=200) == list(range(39))


async def test_calls_of_all_kinds_share_round_trips(client: Gated, queue: Buffer[int]) -> None:
    """`send`, `reserve_many`, settlements and listings; each gets its own results."""
    for name in ("push", "reserve", "ack", "stats", "pop"):  # an unloaded script is sent a second time
        await client.script_load(load(f"buffer/{name}").text.decode())
    await queue.push(*range(6))
    batches = await queue.reserve_many(2, 1)
    client.gate.trips.clear()
    results = await together(
        client,
        queue.push(6),
        queue.ack(*batches),
        queue.reserve_many(2, 2),
        queue.send(queue.calls.push([7]), queue.calls.pop("none", 1)),
        queue.stats(),
        queue.pop(size=1),
    )
    pushed, acked, reserved, (again, none), stats, popped = results
    assert (pushed, acked, [batch.items for batch in reserved], again, none) == (5, 2, [[2, 3], [4, 5]], 2, [])
    assert (stats.waiting, popped) == (2, [6])  # in the order in which they were made
    assert client.gate.trips[:2] == [1, 2 + 2 + 2 + 1 + 1]


async def test_calls_of_different_queues_do_not_share_round_trips(client: Gated, queue: Buffer[int]) -> None:
    """So that one queue does not hold up another."""
    others = [Buffer[int](client, str(i)) for i in range(3)]
    assert await together(client, queue.push(1), *(other.push(1) for other in others)) == [1, 1, 1, 1]
    assert client.gate.trips == [1, 1, 1, 1]


async def test_a_wait_has_its_own_connection(queue: Buffer[int]) -> None:
    """Calls that are made meanwhile do not wait for it."""
    waiting = asyncio.ensure_future(queue.reserve(timeout=60))
    while not queue.runner.client.connection_pool._in_use_connections:
        await asyncio.sleep(0)
    assert await asyncio.gather(*(queue.push(i) for i in range(10)))
    batch = await waiting
    assert batch
    assert batch.items


# -- errors ----------------------------------------------------------------------------------------------------------


async def test_an_error_affects_its_own_call_only(client: Gated, queue: Buffer[Any]) -> None:
    """A lost lease, bytes that cannot be decoded, a key of another type, a refusal by the server."""
    raw: Buffer[bytes] = Buffer(client, "q", codec=BYTES)
    await queue.push("lost", group="lost")
    (lost,) = await queue.reserve_many(1, 1)
    await (await queue.leased())[0].ack()  # by another client
    await client.delete(f"redisq:{{q}}:ended:{lost.id}")
    await raw.push(b"\xff", group="raw")
    await queue.push(0, group="text")
    await client.delete("redisq:{q}:items:text")
    await client.set("redisq:{q}:items:text", "text")
    unknown = replace(queue.calls.pop("a"), args=("no number",))
    results = await together(
        client,
        queue.push(1),
        queue.push(2),
        queue.ack(lost),
        queue.pop("raw"),
        queue.pop("text"),
        queue.send(unknown),
        queue.push(3),
    )
    assert [type(result) for result in results] == [
        *(int, int, LeaseLost, CodecError, ScriptError, redisq.InvalidArgument, int)
    ]
    assert client.gate.trips[-1] == 6
    assert await queue.pop(size=10) == [1, 2, 3]


async def test_without_hiredis(client: Gated, queue: Buffer[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection packs the commands itself, and items of any bytes are unchanged."""
    items = [b"a", b"\r\n$1\r\n", b"x" * 10_000, b"\x00\xff", b""]
    queue = Buffer(client, "bytes", codec=BYTES)
    monkeypatch.setattr(redisq.asyncio.round_trip, "_pack", None)
    await together(client, *(queue.push(item) for item in items))
    monkeypatch.undo()
    await together(client, *(queue.push(item) for item in items))
    assert await queue.pop(size=10) == items * 2


async def test_a_call_that_cannot_be_sent_fails_alone(client: Gated, queue: Buffer[Any]) -> None:
    """Before anything is sent; then the others are sent, once."""
    good, bad = queue.calls.push(["bad"]), queue.calls.push(["bad"])
    objects: list[Any] = [object(), "\ud800"]
    unsendable = [replace(bad, args=(*bad.args, one)) for one in objects]
    results = await together(
        client,
        queue.push(1),
        queue.push(2),
        *(queue.send(good, one) for one in unsendable),
        queue.push(3),
    )
    assert [type(result) for result in results] == [int, int, redis.DataError, UnicodeEncodeError, int]
    with pytest.raises(AttributeError):
        await queue.send("no call")  # type: ignore[arg-type]
    assert await queue.pop(size=10) == [1, 2, 3]


async def test_an_outage_in_the_middle_is_raised_in_each_call(server: Server) -> None:
    """As separate exception objects, since a caller may modify its own. Repeated calls take effect once."""
    with Proxy(server.socket) as proxy:
        async with gated(host=proxy.host, port=proxy.port, retry=no_retries()) as client:
            queue: Buffer[int] = Buffer(client, "q")
            await queue.push(0)
            made = await meanwhile(client, *(queue.push(i, token=str(i)) for i in range(1, 11)))
            proxy.inject(None, 5)
            proxy.inject(Fault.REPLY)  # of the sixth; the later ones are not answered either
            await client.gate.open()
            errors = await asyncio.gather(*made, return_exceptions=True)
            assert errors[0] == 2
            assert all(isinstance(error, redis.ConnectionError) for error in errors[1:])
            assert len({id(error) for error in errors[1:]}) == 9
            assert len({str(error) for error in errors[1:]}) == 1
            assert all(error.__traceback__ for error in errors[1:])
            errors[1].add_note("mine") if sys.version_info >= (3, 11) else None
            assert not any(hasattr(error, "__notes__") for error in errors[2:])
            await asyncio.gather(*(queue.push(i, token=str(i)) for i in range(1, 11)))
            assert sorted(await queue.pop(size=20)) == list(range(11))


async def test_a_connection_lost_at_the_first_call_affects_no_other(server: Server) -> None:
    """The first call's own round trip fails; the calls made meanwhile succeed."""
    with Proxy(server.socket) as proxy:
        async with gated(host=proxy.host, port=proxy.port, retry=no_retries()) as client:
            queue: Buffer[int] = Buffer(client, "q")
            await queue.push(0)
            proxy.inject(Fault.REPLY)
            results = await together(client, *(queue.push(i) for i in range(1, 4)))
            assert isinstance(results[0], redis.ConnectionError)
            assert results[1:] == [3, 4]  # its reply was lost, not its effect


async def test_no_server(caplog: pytest.LogCaptureFixture) -> None:
    """Each call has its error, and the queue works again once there is a server."""
    async with redis.asyncio.Redis(unix_socket_path="/nonexistent/redis.sock", retry=no_retries()) as client:
        queue: Buffer[int] = Buffer(client, "q")
        for _ in range(2):
            results = await asyncio.gather(*(queue.push(i) for i in range(10)), return_exceptions=True)
            assert all(isinstance(result, redis.ConnectionError) for result in results)
            assert len(set(map(id, results))) == 10
    assert not caplog.records


# -- cancellation ----------------------------------------------------------------------------------------------------


async def test_a_call_that_is_cancelled_before_it_is_sent_is_not_sent(client: Gated, queue: Buffer[int]) -> None:
    made = await meanwhile(client, *(queue.push(i) for i in range(5)))
    made[2].cancel()
    await client.gate.open()
    results = await asyncio.gather(*made, return_exceptions=True)
    assert [type(result) for result in results] == [int, int, asyncio.CancelledError, int, int]
    assert client.gate.trips == [1, 3]
    assert await queue.pop(size=10) == [0, 1, 3, 4]


async def test_a_call_that_is_cancelled_after_it_was_sent_affects_no_other(client: Gated, queue: Buffer[int]) -> None:
    """The others take effect, and no other call gets its reply."""
    made = await meanwhile(client, *(queue.push(i) for i in range(5)))
    await client.gate.let(1)
    await client.gate.begun(2)
    made[2].cancel()
    await client.gate.open()
    results = await asyncio.gather(*made, return_exceptions=True)
    assert [result if isinstance(result, int) else type(result) for result in results] == [
        *(1, 2, asyncio.CancelledError, 4, 5)
    ]
    assert await queue.pop(size=10) == [0, 1, 2, 3, 4]


async def test_the_first_call_is_cancelled(client: Gated, queue: Buffer[int]) -> None:
    """The others are sent anyway."""
    made = await meanwhile(client, *(queue.push(i) for i in range(5)))
    made[0].cancel()
    await asyncio.sleep(0)
    await client.gate.open()
    results = await asyncio.gather(*made, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == [1, 2, 3, 4]


async def test_the_sending_task_is_cancelled(client: Gated, queue: Buffer[int]) -> None:
    """As when all tasks are cancelled: the calls under way get an error, the others are sent."""
    mine = asyncio.all_tasks()
    made = await meanwhile(client, *(queue.push(i, token=str(i)) for i in range(4)))
    await client.gate.let(1)
    await client.gate.begun(2)
    later = [asyncio.ensure_future(queue.push(i)) for i in range(4, 6)]
    await asyncio.sleep(0)
    (sender,) = asyncio.all_tasks() - mine - {*made, *later}
    sender.cancel()
    with suppress(asyncio.CancelledError):
        await sender
    await client.gate.open()
    assert [type(error) for error in await asyncio.gather(*made[1:], return_exceptions=True)] == [
        redis.ConnectionError
    ] * 3
    assert await asyncio.gather(*later) == [2, 3]
    assert await asyncio.gather(*(queue.push(i, token=str(i)) for i in range(4))) == [1, 4, 5, 6]


async def test_calls_cancelled_at_random(queue: Buffer[int]) -> None:
    """A thousand pushes, every other one cancelled at some moment and repeated: each item is there once."""
    cancelled = 0

    async def push(i: int) -> None:
        nonlocal cancelled
        call = asyncio.ensure_future(queue.push(i, token=str(i)))
        for _ in range(i % 13 if i % 2 else 0):
            await asyncio.sleep(0)
        if i % 2:
            call.cancel()
        try:
            await call
        except asyncio.CancelledError:
            cancelled += 1
            await queue.push(i, token=str(i))

    await asyncio.gather(*(push(i) for i in range(1_000)))
    assert cancelled > 100
    assert sorted(await queue.pop(size=2_000)) == list(range(1_000))


def test_the_end_of_the_loop_leaves_nothing_behind(server: Server) -> None:
    """Calls under way at the end of `asyncio.run` are cancelled; nothing hangs, and no warning is printed."""
    code = """
        import asyncio, sys
        import redis.asyncio, redisq.asyncio

        async def main():
            queue = redisq.asyncio.Buffer(redis.asyncio.Redis(unix_socket_path=sys.argv[1]), "q")
            await queue.push(0)
            calls = [asyncio.ensure_future(queue.push(i)) for i in range(1000)]
            for _ in range(int(sys.argv[2])):
                await asyncio.sleep(0)
            for call in calls if sys.argv[3] == "all" else []:
                call.cancel()

        asyncio.run(main(), debug=True)
        print("end")
    """
    for turns in (0, 2, 20):
        for what in ("all", "none"):
            done = subprocess.run(
                [
                    sys.executable,
                    "-W",
                    "ignore::ResourceWarning",
                    "-c",
                    textwrap.dedent(code),
                    server.socket,
                    str(turns),
                    what,
                ],
                capture_output=True,
                text=True,
                cwd=Path(__file__).parents[2],
                timeout=60,
            )
            reported = [
                line for line in done.stderr.splitlines() if "Executing <" not in line
            ]  # a busy machine is slow
            assert (done.returncode, done.stdout, reported) == (0, "end\n", [])


# -- unloaded scripts and full servers -------------------------------------------------------------------------------


async def test_scripts_are_unloaded_in_the_middle(client: Gated, queue: Buffer[Any]) -> None:
    """Those are sent as text, together; each call gets its own reply, and runs once."""
    await queue.push(*range(10))
    made = await meanwhile(client, queue.push(10), queue.push(11), queue.pop(size=2), queue.stats(), queue.push(12))
    await client.gate.let(1)
    await made[0]
    await client.script_flush()
    await client.gate.open()
    _, eleventh, popped, stats, twelfth = await asyncio.gather(*made)
    assert (eleventh, popped, stats.waiting, twelfth) == (12, [0, 1], 10, 11)
    assert await queue.pop(size=20) == list(range(2, 13))


async def test_calls_that_are_sent_again_keep_their_order(client: Gated, queue: Buffer[int]) -> None:
    """Only the first call's script is unloaded; the other calls still come after it."""
    await client.script_flush()
    await queue.push(0)
    assert await together(client, queue.pop(size=9), *(queue.push(i) for i in range(1, 4))) == [[0], 1, 2, 3]


async def test_scripts_are_unloaded_all_the_time(queue: Buffer[int], server: Server) -> None:
    """SCRIPT FLUSH in a loop beside a hundred tasks: every item is there once."""
    stop = asyncio.Event()

    async def flush() -> None:
        async with redis.asyncio.Redis(unix_socket_path=server.socket) as other:
            while not stop.is_set():
                await other.script_flush()

    async def push(task: int) -> None:
        for i in range(10):
            await queue.push(task * 10 + i)

    flusher = asyncio.ensure_future(flush())
    await asyncio.gather(*(push(task) for task in range(100)))
    stop.set()
    await flusher
    assert sorted(await queue.pop(size=2_000)) == list(range(1_000))


async def test_a_full_server_refuses_some_calls(client: Gated, queue: Buffer[Any]) -> None:
    """Pushes fail, one by one, and calls in the same round trip that free memory do not."""
    await queue.push(*range(3))
    batch = await queue.reserve(1)
    assert batch
    await client.config_set("maxmemory", 1)
    try:
        results = await together(client, queue.stats(), queue.push(3), queue.ack(batch), queue.push(4))
    finally:
        await client.config_set("maxmemory", 0)
    assert [type(result) for result in results[1:]] == [
        *(redis.exceptions.OutOfMemoryError, int, redis.exceptions.OutOfMemoryError)
    ]
    assert await queue.pop(size=10) == [1, 2]


# -- replicas --------------------------------------------------------------------------------------------------------


@pytest.fixture
def replication(binary: Path) -> Iterator[Replication]:
    """Run a master and a replica."""
    with Replication(binary) as made:
        yield made


async def test_calls_share_the_wait_for_replicas(replication: Replication) -> None:
    """One WAIT per round trip; an unconfirmed call raises with its own token, and can be repeated."""
    async with gated(host=HOST, port=replication.master.port, socket_timeout=60) as client:
        queue: Buffer[int] = Buffer(client, "q", durability=Replicas(timeout=30))
        short: Buffer[int] = Buffer(client, "q", durability=Replicas(timeout=0.05))
        assert await queue.push(0) == 1
        client.gate.trips.clear()
        assert await together(client, *(queue.push(i) for i in range(1, 11))) == list(range(2, 12))
        assert client.gate.trips == [3, 11]  # with SET and WAIT
        await client.script_flush()
        assert await together(client, *(queue.push(i) for i in range(11, 21))) == list(range(12, 22))
        assert await queue.pop("none") == []
        replication.link.block()
        results = await together(client, *(short.push(i, token=str(i)) for i in range(21, 31)))
        assert all(isinstance(result, NotDurable) for result in results)
        assert [(result.token, result.result) for result in results] == [(str(i), i + 1) for i in range(21, 31)]
        looks = replace(short.calls.pop("none"), writes=False)
        with pytest.raises(NotDurable) as raised:  # after writes only
            await short.send(looks, short.calls.push([31], token="31"))
        assert raised.value.token == "31"
        replication.link.unblock()
        replication.wait_until_synced()
        again = await together(client, *(queue.push(i, token=str(i)) for i in range(21, 31)))
        assert again == list(range(22, 32))
        assert await queue.pop(size=50) == list(range(32))


async def test_calls_that_only_read_do_not_wait_for_replicas(replication: Replication) -> None:
    """They are answered while others wait for an unreachable replica."""
    async with redis.asyncio.Redis(host=HOST, port=replication.master.port, socket_timeout=60) as client:
        queue: Buffer[int] = Buffer(client, "q", durability=Replicas(timeout=50))
        await queue.push(0)
        replication.link.block()
        pushes = [asyncio.ensure_future(queue.push(i)) for i in range(1, 4)]
        while (await queue.stats()).waiting < 2:  # the first is done, and waits
            pass
        assert await queue.peek() == [0]
        assert not any(push.done() for push in pushes)
        replication.link.unblock()
        assert await asyncio.gather(*pushes) == [2, 3, 4]


async def test_an_error_of_the_wait_is_raised_in_each_call(server: Server) -> None:
    """For a user without permission for WAIT; each call has its own exception object."""
    with server.client() as other:
        other.execute_command("ACL", "SETUSER", "somebody", "reset", "on", ">right", "~*", "&*", "+@all", "-wait")
    options: dict[str, Any] = {"username": "somebody", "password": "right"}
    async with gated(path=server.socket, **options) as client:
        queue: Buffer[int] = Buffer(client, "q", durability="replica")
        errors = await together(client, *(queue.push(i) for i in range(4)))
        assert all(isinstance(error, redis.exceptions.NoPermissionError) for error in errors)
        assert len(set(map(id, errors))) == 4


# -- a cluster -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nodes(binary: Path) -> Iterator[Cluster]:
    """Run one cluster for these tests."""
    with cluster(binary) as made:
        yield made


async def test_calls_share_round_trips_in_a_cluster(nodes: Cluster) -> None:
    """As on one server, also with an unloaded script and a slot that has moved."""
    made: Any = GatedCluster(host=HOST, port=nodes.nodes[0].port)
    async with closing_connections(made) as client:
        client.gate = Gate()
        queue: Buffer[int] = Buffer(client, "shared")

        async def push(task: int) -> None:
            for i in range(10):
                await queue.push(task * 10 + i)

        await queue.push(0)
        await queue.pop()
        client.gate.trips.clear()
        await asyncio.gather(*(push(task) for task in range(100)))
        assert sum(client.gate.trips) == 1_000
        assert len(client.gate.trips) <= 40
        for each in nodes.clients[:3]:
            each.script_flush()
        pushed = await together(client, *(queue.push(1_000 + i) for i in range(10)))
        assert pushed == list(range(1_001, 1_011))
        assert sorted(await queue.pop(size=2_000)) == list(range(1_010))


async def test_calls_that_wait_for_a_moving_slot_share_round_trips_too(nodes: Cluster) -> None:
    """Half of the queue's keys have moved: all calls are sent again together, until the rest is there."""
    made: Any = GatedCluster(host=HOST, port=nodes.nodes[0].port, reinitialize_steps=0)
    async with closing_connections(made) as client:
        client.gate = Gate()
        queue: PriorityQueue[str] = PriorityQueue(client, "half")
        await queue.push("a", token="a")
        slot: int = nodes.clients[0].execute_command("CLUSTER KEYSLOT", queue.calls.queue)
        source = nodes.owner(slot)
        target = next(i for i in nodes.masters() if i != source)
        nodes.open(slot, source, target)
        client.gate.trips.clear()
        waiting = [asyncio.ensure_future(queue.push(name)) for name in "bcd"]
        await client.gate.begun(5)
        waiting.append(asyncio.ensure_future(queue.push("e")))
        await client.gate.begun(8)
        assert not any(call.done() for call in waiting)
        waiting[2].cancel()
        await client.gate.begun(11)
        for key in nodes.keys(slot, source):
            nodes.move(key, source, target)
        nodes.close(slot, target)
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(results[2], asyncio.CancelledError)
        assert {item.member for item in await queue.pop_many(10)} == {"a", "b", "c", "e"}
        assert sorted(set(client.gate.trips)) == [1, 3, 4]


# -- with a worker ---------------------------------------------------------------------------------------------------


async def test_a_worker_and_its_handlers_share_round_trips(
    queue: Buffer[int], caplog: pytest.LogCaptureFixture
) -> None:
    """Handlers push into their worker's own queue; everything is done once."""
    caplog.set_level(logging.WARNING)
    seen: Counter[int] = Counter()

    async def handle(batch: redisq.asyncio.Batch[int]) -> None:
        (item,) = batch.items
        seen[item] += 1
        if item < 100:
            await asyncio.gather(*(queue.push(item + 100 * i) for i in (1, 2)))

    await queue.push(*range(100))
    await redisq.asyncio.Worker(queue, handle, size=1, concurrency=20).run(burst=True)
    assert seen == Counter(range(300))
    assert (await queue.stats()).done == 300
    assert not caplog.records
