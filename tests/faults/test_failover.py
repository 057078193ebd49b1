"""A master is killed before its replica has everything: acknowledged calls are lost, but not with `durability`."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel
from redis.backoff import NoBackoff
from redis.retry import Retry

import redisq.asyncio
from redisq import Buffer, InvalidArgument, LeaseLost, NotDurable, PriorityQueue, Replicas
from tests.scripts.calls import calls
from tests.waiting import until

from . import settings
from .clients import CLIENTS, Acknowledged, QueueClient, contents, queues
from .node import HOST, Node, running
from .replication import Replication
from .scenarios import commands_of

pytestmark = [pytest.mark.server, settings.limit]

ROUNDS = 10


@pytest.fixture
def replication(binary: Path) -> Iterator[Replication]:
    """Run a master and a replica."""
    with Replication(binary) as made:
        yield made


def _fail_over(
    replication: Replication, durability: Any, acknowledged: Acknowledged, callers: list[QueueClient]
) -> None:
    broken = threading.Event()
    with replication.client(retry=Retry(NoBackoff(), 0)) as client, ThreadPoolExecutor(CLIENTS) as pool:
        made = [queues(client, durability) for _ in callers]
        for done in [pool.submit(caller.again, mine) for caller, mine in zip(callers, made, strict=True)]:
            done.result()
        working = [pool.submit(caller.work, mine, broken) for caller, mine in zip(callers, made, strict=True)]
        acknowledged.more(100)
        replication.link.block()
        if durability == "server":
            acknowledged.more(100)  # into the blocked link
        broken.set()
        if durability != "server":
            until(lambda: all(done.done() for done in working), "each client has an unconfirmed call")
        replication.fail_over()
        for done in working:
            done.result()


def fail_over_ten_times(replication: Replication, durability: Any) -> tuple[Acknowledged, Counter[str]]:
    """Run four clients through ten failovers; return what was acknowledged, and what is there."""
    acknowledged = Acknowledged()
    callers = [QueueClient(f"caller {i}", acknowledged) for i in range(CLIENTS)]
    for _ in range(ROUNDS):
        _fail_over(replication, durability, acknowledged, callers)
    with replication.client() as client:
        for caller in callers:
            caller.again(queues(client, durability))
        for queue in queues(client, "server"):
            assert queue.audit().ok
        return acknowledged, contents(client)


def test_nothing_acknowledged_is_lost(replication: Replication) -> None:
    """Ten failovers with a blocked link: acknowledged items are there once; others took effect once, when repeated."""
    acknowledged, there = fail_over_ten_times(replication, Replicas(1, timeout=0.3))
    assert acknowledged.lost_leases == 0
    assert there == Counter(acknowledged.pushed) - Counter(acknowledged.acked)
    assert there.total() == len(acknowledged.pushed) - len(acknowledged.acked)
    pushed, acked = len(acknowledged.pushed), len(acknowledged.acked)
    print(f"{pushed} pushes, {acked} acked items acknowledged: 0 lost, 0 undone, 0 twice")


def test_control_without_durability_unreplicated_calls_are_lost(replication: Replication) -> None:
    """The same load and faults: acknowledged items are lost, and acked ones are back."""
    acknowledged, there = fail_over_ten_times(replication, "server")
    pushed, acked = Counter(acknowledged.pushed), Counter(acknowledged.acked)
    lost, back = pushed - acked - there, there & acked
    assert lost.total() > 0
    assert back.total() + acknowledged.lost_leases > 0
    print(
        f"of {pushed.total()} pushes and {acked.total()} acked items that were acknowledged, {lost.total()} are lost, "
        f"{back.total()} are back, {acknowledged.lost_leases} leases are lost"
    )


Call = Callable[[Any, dict[str, str]], Any]
"""Make a call on a queue, with the id of an earlier `NotDurable` if there was one."""

BUFFER_CALLS: dict[str, Call] = {
    "push": lambda queue, again: queue.push("x", **again),
    "push_many": lambda queue, again: queue.push_many(["x", "y"], **again),
    "push_front": lambda queue, again: queue.push_front("x", **again),
    "reserve": lambda queue, again: queue.reserve(1, **again),
    "reserve_many": lambda queue, again: queue.reserve_many(2, 1, **again),
    "discard": lambda queue, again: queue.discard("none", **again),
    "redrive": lambda queue, again: queue.redrive("none", **again),
}
PRIORITY_CALLS: dict[str, Call] = {
    "push": lambda queue, again: queue.push("x", **again),
    "push_many": lambda queue, again: queue.push_many({"x": 1, "y": 2}, **again),
    "reserve": lambda queue, again: queue.reserve(1, **again),
    "reserve_many": lambda queue, again: queue.reserve_many(2, 1, **again),
    "remove": lambda queue, again: queue.remove("a", **again),
    "discard": lambda queue, again: queue.discard("a", **again),
    "redrive": lambda queue, again: queue.redrive("a", **again),
}
CALLS = [*(("buffer", name) for name in BUFFER_CALLS), *(("priority", name) for name in PRIORITY_CALLS)]
POPS: dict[str, list[tuple[Call, Any]]] = {
    "buffer": [
        (lambda queue, _: queue.pop(size=1), ["a"]),
        (lambda queue, _: queue.pop_longest(1, 1), {"default": ["b"]}),
    ],
    "priority": [
        (lambda queue, _: queue.pop(), "a"),
        (lambda queue, _: queue.pop_many(1), ["b"]),
    ],
}


def with_id(call: Call, again: dict[str, str]) -> Callable[[Any], Any]:
    """Return a call with its id."""
    return lambda queue: call(queue, again)


def settling(verb: str, batch: Any) -> Callable[[Any], Any]:
    """Return a call that settles a batch."""
    return lambda queue: getattr(queue, verb)(batch)


class DurableCalls:
    """Calls of one flavour on one master, each over a new connection."""

    def __init__(self, replication: Replication, flavour: str) -> None:
        self.replication, self.flavour = replication, flavour

    def call(self, structure: str, *made: Callable[[Any], Any], timeout: float = 0.05) -> list[Any]:
        """Make calls, and return their results; `NotDurable` is a result, too."""
        return asyncio.run(self._call(structure, made, timeout))

    def call_replicated(self, structure: str, *made: Callable[[Any], Any]) -> list[Any]:
        """Make calls while the replica is connected, however busy the machine is."""
        results = self.call(structure, *made, timeout=4)
        assert not any(isinstance(result, NotDurable) for result in results)
        return results

    async def _call(self, structure: str, made: tuple[Callable[[Any], Any], ...], timeout: float) -> list[Any]:
        results: list[Any] = []
        library: Any = redisq.asyncio if self.flavour == "asyncio" else redisq
        async with contextlib.AsyncExitStack() as stack:
            client: Any
            if self.flavour == "asyncio":
                client = await stack.enter_async_context(
                    redis.asyncio.Redis(host=HOST, port=self.replication.master.port)
                )
            else:
                client = stack.enter_context(self.replication.client())
            make = library.Buffer if structure == "buffer" else library.PriorityQueue
            queue = make(client, structure, durability=Replicas(1, timeout))
            for one in made:
                try:
                    result = one(queue)
                    results.append(await result if self.flavour == "asyncio" else result)
                except NotDurable as short:
                    results.append(short)
        return results


@pytest.mark.parametrize("flavour", ["blocking", "asyncio"])
def test_every_call_can_be_repeated(replication: Replication, flavour: str) -> None:
    """An unconfirmed call has been done; repeated over another connection it waits again, and takes effect once."""
    durable = DurableCalls(replication, flavour)
    for structure, name in CALLS:
        call = (BUFFER_CALLS if structure == "buffer" else PRIORITY_CALLS)[name]
        durable.call_replicated(
            structure, lambda queue: queue.purge(), lambda queue: queue.push_many([("a", 1), ("b", 2)])
        )
        replication.link.block()
        (short,) = durable.call(structure, with_id(call, {}))
        assert isinstance(short, NotDurable), name
        assert (short.reached, short.asked) == (0, 1)
        again = {key: value for key in ("token", "lease_id") if (value := getattr(short, key))}
        assert len(again) == 1, name
        # The master knows the call and writes nothing; WAIT must not be satisfied by that.
        (still,) = durable.call(structure, with_id(call, again))
        assert isinstance(still, NotDurable), f"{structure} {name} again"
        assert {key: getattr(still, key) for key in again} == again
        before = snapshot(replication)
        replication.link.unblock()
        (result,) = durable.call_replicated(structure, with_id(call, again))
        assert comparable(result) == comparable(short.result) == comparable(still.result), name
        assert snapshot(replication) == before, name


def comparable(result: Any) -> Any:
    """Return a result in a form for comparison: batches by their content."""
    if isinstance(result, list):
        return [comparable(one) for one in result]
    return (result.id, result.items) if hasattr(result, "items") and hasattr(result, "id") else result


def snapshot(replication: Replication) -> dict[bytes, bytes]:
    """Dump every key but the fence."""
    with replication.client() as client:
        keys = sorted(key for key in client.scan_iter() if not key.endswith(b":once:"))
        return {key: dumped for key in keys if (dumped := client.dump(key))}


@pytest.mark.parametrize("flavour", ["blocking", "asyncio"])
@pytest.mark.parametrize("structure", ["buffer", "priority"])
def test_settlements_can_be_repeated(replication: Replication, structure: str, flavour: str) -> None:
    """An unconfirmed ack, release, burial or extension is repeated with the same batch."""
    durable = DurableCalls(replication, flavour)
    durable.call_replicated(structure, lambda queue: queue.push_many([("a", 1), ("b", 2), ("c", 3)]))
    for verb in ("extend", "release", "bury", "ack"):
        batch = durable.call_replicated(structure, lambda queue: queue.reserve(1))[0]
        replication.link.block()
        settle = settling(verb, batch)
        first, second = durable.call(structure, settle, settle)
        assert isinstance(first, NotDurable)
        assert isinstance(second, NotDurable)
        assert batch.settled == (verb != "extend")
        replication.link.unblock()
        assert durable.call_replicated(structure, settle) == [first.result] == [None if verb == "extend" else 1]


@pytest.mark.parametrize("flavour", ["blocking", "asyncio"])
@pytest.mark.parametrize("structure", ["buffer", "priority"])
def test_the_error_has_what_a_pop_took(replication: Replication, structure: str, flavour: str) -> None:
    """A pop cannot be repeated, so this is the only copy."""
    durable = DurableCalls(replication, flavour)
    if structure == "buffer":
        durable.call_replicated(structure, lambda queue: queue.push("a", "b"))
    else:
        durable.call_replicated(structure, lambda queue: queue.push_many([("a", 1), ("b", 2)]))
    replication.link.block()
    for pop, expected in POPS[structure]:
        (short,) = durable.call(structure, with_id(pop, {}))
        assert isinstance(short, NotDurable)
        assert short.token is short.lease_id is None
        found = short.result
        if structure == "priority":
            found = [item.member for item in found] if isinstance(found, list) else found.member
        assert found == expected
    replication.link.unblock()


def test_a_lost_lease_does_not_hide_an_unconfirmed_ack(replication: Replication) -> None:
    """Of two batches one is lost, the other's ack is not confirmed: the latter is raised, and again when repeated."""
    with replication.client() as client:
        queue: Buffer[int] = Buffer(client, "q", durability=Replicas(timeout=0.05))
        plain: Buffer[int] = Buffer(client, "q")
        plain.push(1, 2)
        held, lost = plain.reserve_many(2, 1)
        lost.ack()
        client.delete(f"redisq:{{q}}:ended:{lost.id}")
        replication.link.block()
        with pytest.raises(NotDurable) as short:
            queue.ack(held, lost)
        assert isinstance(short.value.__cause__, LeaseLost)
        replication.link.unblock()
        replication.wait_until_synced()
        with pytest.raises(LeaseLost) as raised:
            Buffer(client, "q", durability=Replicas(timeout=4)).ack(held, lost)
        assert raised.value.ids == [lost.id]


def test_reads_do_not_wait_for_replicas(replication: Replication) -> None:
    """They are answered while the replica is unreachable."""
    with replication.client() as client:
        buffer: Buffer[str] = Buffer(client, "b", durability=Replicas(timeout=4))
        queue: PriorityQueue[str] = PriorityQueue(client, "p", durability=Replicas(timeout=4))
        buffer.push("a")
        queue.push("a")
        replication.link.block()
        assert buffer.stats().waiting == queue.stats().waiting == 1
        assert buffer.audit().ok
        assert queue.audit().ok
        assert not buffer.dead()
        assert not queue.dead()
        assert buffer.groups() == {"default": 1}
        for look in (buffer.leased, buffer.delayed, queue.leased, queue.delayed):
            assert not look()
        assert queue.state("a").value == "ready"
        assert len(queue.peek()) == 1
        replication.link.unblock()


def test_unloaded_scripts_and_a_full_server(replication: Replication) -> None:
    """A SCRIPT FLUSH goes unnoticed; if the fence cannot be written, the call is done but not confirmed."""
    with replication.client() as client:
        queue: Buffer[int] = Buffer(client, "q", durability=Replicas(timeout=4))
        for i in range(3):
            client.script_flush()
            assert queue.push(i) == i + 1
        batch = queue.reserve(1)
        assert batch
        client.config_set("maxmemory", 1)
        with pytest.raises(NotDurable) as short:
            batch.ack()
        assert isinstance(short.value.__cause__, redis.ResponseError)
        assert short.value.result == 1
        with pytest.raises(redis.ResponseError, match=r"OOM|maxmemory"):
            queue.push(4)
        client.config_set("maxmemory", 0)
        assert batch.ack() == 1
        assert queue.stats().waiting == 2


@pytest.mark.parametrize("bad", ["both", None, 1, True, 0.5])
def test_invalid_durability_is_refused(bad: Any) -> None:
    """The error names it."""
    for make in (Buffer, PriorityQueue):
        with pytest.raises(InvalidArgument, match="durability is"):
            make(redis.Redis(), "q", durability=bad)


@pytest.mark.parametrize("bad", [{"count": 0}, {"count": 1.5}, {"timeout": 0}, {"timeout": -1}, {"timeout": "1"}])
def test_invalid_replicas_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match="is "):
        Replicas(**bad)


def test_a_client_with_a_shorter_timeout_is_refused() -> None:
    """It would mistake a slow replica for a lost connection."""
    with redis.Redis(socket_timeout=0.5) as client, pytest.raises(InvalidArgument, match="socket_timeout"):
        Buffer(client, "q", durability="replica")
    with redis.Redis(socket_timeout=0.5) as client:
        Buffer(client, "q", durability=Replicas(timeout=0.4))


@pytest.mark.parametrize("name", sorted(calls()))
def test_calls_know_whether_they_write(name: str) -> None:
    """A call that is not marked as writing has no writing command in its script, or is an audit, which may repair."""
    call = calls()[name]
    writing = "set unlink rename zadd zrem rpush lpush hset lpop zpopmin pexpire sadd"
    used = {*writing.split()} & commands_of(name)
    assert call.writes == bool(used) or name.endswith("/audit"), used


@pytest.mark.parametrize("flavour", ["blocking", "asyncio"])
def test_a_blocked_reserve_retries_when_the_master_is_demoted(replication: Replication, flavour: str) -> None:
    """A demoted master ends all blocked calls with the error UNBLOCKED; the reserve goes on."""

    async def awaited() -> list[int]:
        async with redis.asyncio.Redis(host=HOST, port=replication.master.port) as client:
            batch = await redisq.asyncio.Buffer(client, "q").reserve(timeout=60)
            return batch.items if batch else []

    def blocking() -> list[int]:
        with replication.client() as client:
            batch = Buffer(client, "q").reserve(timeout=60)
            return batch.items if batch else []

    with replication.client() as other, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(blocking if flavour == "blocking" else lambda: asyncio.run(awaited()))

        def sent_away() -> bool:
            blocked = [one["id"] for one in other.client_list() if one["cmd"].lower() == "blpop"]
            return any(other.client_unblock(int(one), error=True) for one in blocked)

        for _ in range(3):
            until(sent_away, "a client is blocked")
        assert not waiting.done()
        Buffer(other, "q").push(1)
        assert waiting.result() == [1]


@contextlib.contextmanager
def watched(server: Path) -> Iterator[tuple[list[Node], int]]:
    """Run a master, two replicas, and a Sentinel that watches them."""
    with Node(server, "--repl-diskless-sync-delay", "0") as master:
        follow = ("--replicaof", HOST, str(master.port), "--repl-diskless-sync-delay", "0")
        config = (
            f"sentinel monitor q {HOST} {master.port} 1\n"
            "sentinel down-after-milliseconds q 3000\nsentinel failover-timeout q 10000\n"  # a busy machine is not down
        )
        with (
            running(Node(server, *follow) for _ in range(2)) as replicas,
            Node(server, "--sentinel", config=config) as sentinel,
        ):
            with master.client() as client:
                until(lambda: client.wait(2, 100) == 2, "the replicas are in sync")
            with sentinel.client() as client:
                until(lambda: len(client.sentinel_slaves("q")) == 2, "the Sentinel knows them")
            yield [master, *replicas], sentinel.port


TOTAL = 300


@pytest.mark.parametrize("flavour", ["blocking", "asyncio"])
def test_a_worker_survives_a_failover(flavour: str, binary: Path) -> None:
    """The master is killed and Sentinel promotes a replica; the worker is not restarted, and all items are done."""
    done: Counter[str] = Counter()
    killed = threading.Event()

    with watched(binary) as (nodes, port):

        def kill() -> None:
            until(lambda: len(done) >= TOTAL // 6, "a sixth of the items are done")
            nodes[0].kill()
            killed.set()

        killer = threading.Thread(target=kill)
        killer.start()
        if flavour == "blocking":
            work_blocking(port, done)
        else:
            asyncio.run(work_asyncio(port, done))
        killer.join()
    assert killed.is_set()
    assert set(done) == {str(i) for i in range(TOTAL)}
    print(f"{flavour}: {done.total() - TOTAL} of {TOTAL} items were handed out again")


def work_blocking(port: int, done: Counter[str]) -> None:
    """Push and work with a client from Sentinel, with threads."""
    sentinel: Any = redis.sentinel.Sentinel([(HOST, port)], socket_timeout=2)  # type: ignore[no-untyped-call]
    with sentinel.master_for("q", socket_timeout=2) as client:
        queue: Buffer[str] = Buffer(client, "q", lease=2, durability=Replicas(timeout=0.5))

        def handle(batch: redisq.Batch[str]) -> None:
            done.update(batch.items)

        worker = redisq.Worker(queue, handle, size=2, concurrency=2)
        with ThreadPoolExecutor(1) as pool:
            working = pool.submit(worker.run)

            def push(i: int) -> None:
                until(lambda: len(done) >= i - 20 or working.done(), "the worker continues", 60)
                until(lambda: attempt(lambda: queue.push(str(i), token=str(i))), "the push is confirmed", 60)

            for i in range(TOTAL):
                push(i)
            until(lambda: len(done) == TOTAL or working.done(), "all items are done", 60)
            worker.stop()
            working.result()


def attempt(call: Callable[[], Any]) -> bool:
    """Make a call, and return whether it was acknowledged."""
    try:
        call()
    except (redis.RedisError, NotDurable):
        return False
    return True


async def work_asyncio(port: int, done: Counter[str]) -> None:
    """Push and work with a client from Sentinel, with tasks."""
    sentinel: Any = redis.asyncio.sentinel.Sentinel([(HOST, port)], socket_timeout=2)  # type: ignore[no-untyped-call]
    async with contextlib.AsyncExitStack() as stack:
        for one in sentinel.sentinels:
            stack.push_async_callback(one.aclose)
        client = await stack.enter_async_context(sentinel.master_for("q", socket_timeout=2))
        queue: redisq.asyncio.Buffer[str] = redisq.asyncio.Buffer(
            client, "q", lease=2, durability=Replicas(timeout=0.5)
        )

        async def handle(batch: redisq.asyncio.Batch[str]) -> None:
            done.update(batch.items)

        worker = redisq.asyncio.Worker(queue, handle, size=2, concurrency=2)
        working = asyncio.create_task(worker.run())
        for i in range(TOTAL):
            while len(done) < i - 20 and not working.done():
                await asyncio.sleep(0.01)
            while True:
                try:
                    await queue.push(str(i), token=str(i))
                    break
                except (redis.RedisError, NotDurable):
                    await asyncio.sleep(0.01)
        while len(done) < TOTAL and not working.done():
            await asyncio.sleep(0.01)
        worker.stop()
        await working
