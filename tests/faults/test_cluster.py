"""A cluster whose slots and masters change while queues are in use: nothing is lost or duplicated.

Two clients work on each queue: they push and take until all of their items are done. Three queues share the slot that
is moved back and forth, key by key, in random order, with pauses in which clients get TRYAGAIN for longer than redis-py
would wait on its own.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
import redis.exceptions

import redisq.asyncio
import redisq.core.request
from redisq import Buffer, PriorityQueue, Pushed
from redisq.core.calls import Call
from redisq.core.clients import KEY_MOVED
from redisq.core.scripts import Script, names
from redisq.embedded import Server
from tests.connections import closing_connections
from tests.model import Keys
from tests.scripts import keyspace
from tests.waiting import until

from . import settings
from .cluster import Cluster, cluster
from .node import HOST
from .scenarios import SCENARIOS, Q, Scenario, send

pytestmark = [pytest.mark.server, settings.limit]

Work = Generator[Any, Any, None]
"""Calls for either flavour: a generator that yields what a call returns, and receives the result."""

ITEMS = settings.pick(2_000, 10_000)
MOVES = settings.pick(8, 20)
SLOW = settings.pick(2, 5)  # of the moves
CHUNK = 10
TRIES = 16  # of redis-py before it gives up on a call


@pytest.fixture(scope="module")
def nodes(binary: Path) -> Iterator[Cluster]:
    """Run one cluster for these tests."""
    with cluster(binary) as made:
        yield made


@dataclass
class Tally:
    """A count of the items that went into all queues and came out."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    pushed: Counter[str] = field(default_factory=Counter)
    taken: Counter[str] = field(default_factory=Counter)
    moving: int = 0
    """Finished items in the moving slot."""

    def wait(self, enough: int, stop: threading.Event) -> None:
        """Wait until this many items in the moving slot are finished."""
        until(lambda: self.moving >= enough or stop.is_set(), "items are finished", 60)

    def put(self, items: list[str]) -> None:
        """Record pushed items."""
        with self.lock:
            self.pushed.update(items)

    def take(self, load: QueueLoad, items: list[str]) -> None:
        """Record items that were acked or popped."""
        with self.lock:
            load.through += len(items)
            self.taken.update(items)
            self.moving += sum(item.startswith("live") for item in items)


@dataclass
class QueueLoad:
    """A queue, and how many items go through it."""

    queue: Any
    name: str
    count: int
    through: int = 0

    def work(self, tally: Tally, part: int) -> Work:
        """Push every other chunk, and take until all items are finished."""
        draw = random.Random(f"{settings.SEED} {self.name} {part}")
        for chunk in range(part, self.count // CHUNK, 2):
            items = [f"{self.name} {chunk} {i}" for i in range(CHUNK)]
            if isinstance(self.queue, (PriorityQueue, redisq.asyncio.PriorityQueue)):
                yield self.queue.push_many([(item, draw.randrange(3)) for item in items])
            else:
                yield self.queue.push(*items, group=str(draw.randrange(6)))
            tally.put(items)
            if draw.random() < 0.8:
                yield from self._take(tally)
        while self.through < self.count:
            yield from self._take(tally)

    def _take(self, tally: Tally) -> Work:
        if self.name.endswith("pop"):
            found = yield self.queue.pop_longest(2, CHUNK)
            items = [item for group in found.values() for item in group]
        else:
            batch = yield self.queue.reserve(CHUNK, timeout=0.2)
            if batch is None:
                return
            assert batch.attempts == 1
            items = batch.items
            assert (yield batch.ack()) == len(items)
        tally.take(self, items)


def queue_loads(library: Any, client: Any) -> list[QueueLoad]:
    """Return three queues in the slot that moves, and ten elsewhere."""
    options: dict[str, Any] = {"lease": 600, "dedup_window": 5}
    live, other = ITEMS // 4, ITEMS // 40
    made = [
        QueueLoad(library.Buffer(client, "live", **options), "live buffer", live),
        QueueLoad(library.PriorityQueue(client, "live", prefix="p", **options), "live priority", live),
        QueueLoad(library.Buffer(client, "live", prefix="x", **options), "live pop", live),
    ]
    for i in range(5):
        made.append(QueueLoad(library.Buffer(client, f"b{i}", **options), f"b{i}", other))
        made.append(QueueLoad(library.PriorityQueue(client, f"p{i}", **options), f"p{i}", other))
    assert sum(load.count for load in made) == ITEMS
    return made


def errors(nodes: Cluster, name: str) -> int:
    """Return how often the nodes have answered with an error."""
    counts = [client.info("errorstats").get(f"errorstat_{name}", 0) for client in nodes.clients]
    # The oldest redis-py returns `count=3`, newer ones parse it.
    return sum(one["count"] if isinstance(one, dict) else int(str(one).rpartition("=")[2]) for one in counts)


class SlotView:
    """A view of a slot's keys on whichever node they are, without redirections."""

    def __init__(self, nodes: Cluster, slot: int) -> None:
        self.nodes, self.slot = nodes, slot

    def counts_equal_lists(self, queue: bytes) -> bool:
        """Return whether each group's counter is its list's length, and no list is without a counter."""
        where = {key: i for i in self.nodes.masters() for key in self.nodes.keys(self.slot, i)}
        counts: dict[bytes, int] = {}
        lists: dict[bytes, int] = {}
        for key, i in where.items():
            with self.nodes.clients[i].pipeline(transaction=False) as pipe:
                pipe.execute_command("ASKING")
                if key == queue + b"groups":
                    counts = {
                        group: int(score) for group, score in pipe.zrange(key, 0, -1, withscores=True).execute()[1]
                    }
                elif key.startswith(queue + b"items:"):
                    lists[key.removeprefix(queue + b"items:")] = pipe.llen(key).execute()[1]
        return counts == lists


class Mover(threading.Thread):
    """A thread that moves the slot whenever enough of its items are finished, and fails its master over once."""

    def __init__(self, nodes: Cluster, slot: int, tally: Tally) -> None:
        super().__init__()
        self.nodes, self.slot, self.tally = nodes, slot, tally
        self.draw = random.Random(settings.SEED)
        self.view = SlotView(nodes, slot)
        self.moved = 0
        self.keys = 0
        self.stop = threading.Event()
        self.failure: BaseException | None = None

    def run(self) -> None:
        """Move the slot twenty times."""
        try:
            for move in range(MOVES):
                enough = move * ITEMS * 3 // 4 // (MOVES + 1)
                self.tally.wait(enough, self.stop)
                owner = self.nodes.owner(self.slot)
                if move == MOVES // 2:
                    owner = self.nodes.fail_over(owner)
                target = self.draw.choice([i for i in self.nodes.masters() if i != owner])
                self._move(target, slow=move % (MOVES // SLOW) == 1)
                self.moved += 1
        except BaseException as error:
            self.failure = error

    def _move(self, target: int, *, slow: bool) -> None:
        before, count = errors(self.nodes, "TRYAGAIN"), 0

        def between() -> None:
            nonlocal count
            count += 1
            if slow and count == 10:
                # Longer than redis-py on its own, which gives up after this many answers to one call.
                until(
                    lambda: errors(self.nodes, "TRYAGAIN") >= before + 4 * TRIES or self.stop.is_set(),
                    "clients get TRYAGAIN",
                )
            if count % 5 == 0:
                for queue in (b"redisq:{live}:", b"x:{live}:"):
                    assert self.view.counts_equal_lists(queue), f"move {self.moved}, after {count} keys"

        self.keys += self.nodes.migrate(self.slot, target, self.draw, between)


def run_blocking(port: int, tally: Tally) -> None:
    """Run the load with threads."""
    with redis.RedisCluster(host=HOST, port=port) as client:
        made = queue_loads(redisq, client)

        def drive(work: Work) -> None:
            result: Any = None
            while True:
                try:
                    result = work.send(result)
                except StopIteration:
                    return

        with ThreadPoolExecutor(2 * len(made)) as pool:
            for done in [pool.submit(drive, load.work(tally, part)) for load in made for part in range(2)]:
                done.result()
        for load in made:
            assert load.queue.audit().ok
            assert load.queue.purge() == 0


async def run_asyncio(port: int, tally: Tally) -> None:
    """Run the load with tasks."""
    # By default redis-py's asyncio client closes all its connections, even those in use, after every fifth MOVED.
    made = redis.asyncio.RedisCluster(host=HOST, port=port, reinitialize_steps=0)
    async with closing_connections(made) as client:
        loads = queue_loads(redisq.asyncio, client)

        async def drive(work: Work) -> None:
            result: Any = None
            while True:
                try:
                    coming = work.send(result)
                except StopIteration:
                    return
                result = await coming

        await asyncio.gather(*(drive(load.work(tally, part)) for load in loads for part in range(2)))
        for load in loads:
            assert (await load.queue.audit()).ok
            assert await load.queue.purge() == 0


@pytest.mark.parametrize("flavour", ["blocking", "asyncio"])
def test_a_slot_that_moves_back_and_forth_under_load(nodes: Cluster, flavour: str) -> None:
    """20 moves and a failover during 10,000 items: none lost, none twice, and counters always match the lists."""
    tally = Tally()
    slot: int = nodes.clients[0].execute_command("CLUSTER KEYSLOT", "{live}")
    before = {name: errors(nodes, name) for name in ("TRYAGAIN", "ASK", "MOVED")}
    mover = Mover(nodes, slot, tally)
    mover.start()
    port = nodes.nodes[0].port
    try:
        if flavour == "blocking":
            run_blocking(port, tally)
        else:
            asyncio.run(run_asyncio(port, tally))
    finally:
        mover.stop.set()
        mover.join()
        if mover.failure:
            raise mover.failure  # an error here, in the middle of a move, is why the clients failed
    assert tally.taken == tally.pushed
    assert tally.taken.total() == len(tally.taken) == ITEMS
    assert mover.moved == MOVES
    met = {name: errors(nodes, name) - count for name, count in before.items()}
    # ASK is answered only if none of the call's keys is left: to a BLPOP at the right moment, for example
    assert all(count for name, count in met.items() if name != "ASK" or settings.LONG), met
    print(f"{flavour}: {mover.keys} keys moved; answers {met}")


class HalfMovedSlot:
    """A queue's slot in the middle of a move: its index on the target node, its lists on the source."""

    def __init__(self, nodes: Cluster, queue: Buffer[int]) -> None:
        self.nodes, self.queue = nodes, queue
        queue.push(1, 2, group="a")
        queue.push(3, group="b")
        self.slot: int = nodes.clients[0].execute_command("CLUSTER KEYSLOT", queue.calls.queue)
        self.source = nodes.owner(self.slot)
        self.target = next(i for i in nodes.masters() if i != self.source)
        nodes.open(self.slot, self.source, self.target)
        for key in (b"groups", b"since", b"meta"):
            nodes.move(queue.calls.queue + key, self.source, self.target)

    def finish(self) -> None:
        """Move the rest."""
        while keys := self.nodes.keys(self.slot, self.source):
            for key in keys:
                self.nodes.move(key, self.source, self.target)
        self.nodes.close(self.slot, self.target)

    def ask(self, *command: Any) -> Any:
        """Send a command to the importing node, as a client does after ASK."""
        with self.nodes.clients[self.target].pipeline(transaction=False) as pipe:
            pipe.execute_command("ASKING")
            pipe.execute_command(*command)
            return pipe.execute(raise_on_error=False)[1]


@pytest.fixture
def half_moved(nodes: Cluster, request: pytest.FixtureRequest) -> Iterator[HalfMovedSlot]:
    """Return a queue whose slot is in the middle of a move."""
    with redis.RedisCluster(host=HOST, port=nodes.nodes[0].port) as client:
        queue: Buffer[int] = Buffer(client, request.node.name.replace("[", " ").replace("]", ""))
        queue.purge()
        made = HalfMovedSlot(nodes, queue)
        yield made
        made.finish()
        queue.purge()


def test_control_without_the_guard_a_script_loses_its_counters(half_moved: HalfMovedSlot) -> None:
    """With another key in the guard's place the importing node runs the script, which sees no lists.

    The script also must not look at pauses, the first of which is elsewhere and would stop it.
    """
    call = half_moved.queue.calls.pop_longest()
    assert isinstance(half_moved.ask(*call.eval()), redis.exceptions.TryAgainError)
    there = half_moved.queue.calls.queue + b"there"
    half_moved.ask("SET", there, "")
    text = call.script.text.replace(b"if call('EXISTS', paused, queue .. 'paused_groups') > 0 then", b"if false then")
    assert text != call.script.text
    naive = replace(
        call,
        script=Script("naive/pop_longest", text),
        keys=tuple(there if key.endswith((b":guard", b":paused")) else key for key in call.keys),
    )
    stopped = half_moved.ask(*naive.eval())
    assert KEY_MOVED.search(str(stopped))  # without the counters it looks at keys that are not on this node
    half_moved.finish()
    assert half_moved.queue.groups() == {}
    assert {finding.name for finding in half_moved.queue.audit(repair=True).findings} == {"a", "b", "there"}
    assert half_moved.queue.groups() == {"a": 2, "b": 1}  # only the counters were lost
    half_moved.queue.runner.client.delete(there)


Contents = tuple[Keys, set[bytes]]


class PartialMoves:
    """Scenarios on a slot of which some keys have moved, and the keys of both nodes afterwards."""

    def __init__(self, nodes: Cluster, scratch: redis.Redis) -> None:
        self.nodes, self.scratch = nodes, scratch
        self.slot: int = nodes.clients[0].execute_command("CLUSTER KEYSLOT", Q)
        self.source = nodes.owner(self.slot)
        self.target = next(i for i in nodes.masters() if i != self.source)

    def run_elsewhere(self, scenario: Scenario) -> tuple[Contents, Any, Contents]:
        """Return a scenario's result on a single server: all keys, the reply, and all keys after it."""
        scenario.build(self.scratch)
        before, reply = keyspace.read(self.scratch, Q, 0), send(self.scratch, scenario.call)
        return before, reply, keyspace.read(self.scratch, Q, 0)

    def play(self, scenario: Scenario, moved: Collection[bytes]) -> tuple[str, Any, Contents]:
        """Run a scenario after these keys have moved; return which node answered, the reply, and all keys after it."""
        scenario.build(self.nodes.clients[self.source])
        self.nodes.open(self.slot, self.source, self.target)
        try:
            for key in moved:
                self.nodes.move(key, self.source, self.target)
            how, reply = "by the source", send(self.nodes.clients[self.source], scenario.call)
            if isinstance(reply, redis.exceptions.AskError):
                with self.nodes.clients[self.target].pipeline(transaction=False) as pipe:
                    pipe.execute_command("ASKING")
                    pipe.execute_command(*scenario.call.eval())
                    how, reply = "by the target", pipe.execute(raise_on_error=False)[1]
            if isinstance(reply, redis.exceptions.TryAgainError):
                how = "told to wait"
            return how, reply, self._contents()
        finally:
            for i in (self.target, self.source):
                self.nodes.clients[i].flushall()
                self.nodes.clients[i].execute_command("CLUSTER SETSLOT", self.slot, "STABLE")

    def _contents(self) -> Contents:
        """Read all keys of both nodes, on a server that has them all, because DUMPs of different servers differ."""
        found: list[tuple[bytes, bytes, int]] = []
        for i in (self.source, self.target):
            keys = self.nodes.keys(self.slot, i)
            with self.nodes.clients[i].pipeline(transaction=False) as pipe:
                for key in keys:
                    for command in ("DUMP", "PTTL"):
                        pipe.execute_command("ASKING")
                        pipe.execute_command(command, key)
                replies = pipe.execute()
            found += zip(keys, replies[1::4], replies[3::4], strict=True)
        self.scratch.flushall()
        with self.scratch.pipeline(transaction=False) as pipe:
            for key, dump, ttl in found:
                pipe.restore(key, max(0, ttl), dump)
            pipe.execute()
        return keyspace.read(self.scratch, Q, 0)


def moves(scenario: Scenario, keys: list[bytes], draw: random.Random) -> list[list[bytes]]:
    """Choose which keys have moved: none, all, one, all but one, some; all of these for a call that is sent again."""
    singles = [[key] for key in keys] + [[other for other in keys if other != key] for key in keys]
    some = [draw.sample(keys, draw.randint(0, len(keys))) for _ in range(settings.pick(1, 4))]
    if "again" in scenario.what or settings.LONG:
        return [[], keys, *singles, *some]
    return [[], keys, *draw.sample(singles, min(1, len(singles))), *some]


@pytest.mark.parametrize("script", names())
def test_no_script_is_stopped_in_the_middle(nodes: Cluster, server: Server, script: str) -> None:
    """In every state, whichever keys have moved: a call is done as on one server, or waits and changes nothing.

    If all of its keys were still there, a script would run until it has deleted one of them, or needs a computed key
    that is elsewhere, where the server stops it. So each call has a key that does not exist: the guard, or that of an
    answer. A call that is sent again has its answer, and may be stopped before it has looked for it, with nothing
    written: that is worth waiting for, too.
    """
    draw, met = random.Random(f"{settings.SEED} {script}"), Counter[str]()
    with server.client() as scratch:
        half_way = PartialMoves(nodes, scratch)
        for scenario in (scenario for scenario in SCENARIOS if scenario.script == script):
            before, expected, after = half_way.run_elsewhere(scenario)
            keys = sorted(Q + name for name in before[0])
            for moved in moves(scenario, keys, draw):
                how, reply, there = half_way.play(scenario, moved)
                met[how] += 1
                done = str(reply) == str(expected) and there == after
                waits = how == "told to wait" or KEY_MOVED.search(str(reply))
                assert done or (waits and there == before), f"{scenario}, {moved} moved: {how}: {reply}"
    print(f"{script}: {dict(met)}")
    assert met["told to wait"]


def test_control_a_script_without_a_guard_is_stopped_in_the_middle(nodes: Cluster, server: Server) -> None:
    """It pops the last item of a list, and then looks at another key."""
    text = b"redis.call('RPOP', KEYS[1]) return redis.call('LLEN', KEYS[1] .. 'x')"
    naive = Call(Script("naive/pop", text), (Q + b"items:g",), (), int)
    with server.client() as scratch:
        scenario = Scenario("one item", (("LPUSH", Q + b"items:g", "a"),), naive)
        _, reply, there = PartialMoves(nodes, scratch).play(scenario, [])
    assert isinstance(reply, redis.ResponseError)
    assert there == ({}, set())


def test_a_call_with_the_guard_waits(half_moved: HalfMovedSlot) -> None:
    """The same call by the library succeeds after the slot has moved, with all items."""
    again = errors(half_moved.nodes, "TRYAGAIN")
    with ThreadPoolExecutor(2) as pool:
        popped = pool.submit(half_moved.queue.pop_longest)
        until(
            lambda: errors(half_moved.nodes, "TRYAGAIN") > again + 2 * TRIES,
            "it is redirected more often than redis-py tries",
        )
        assert not popped.done()
        half_moved.finish()
        assert popped.result() == {"a": [1, 2], "b": [3]}


@pytest.mark.parametrize("flavour", ["blocking", "asyncio"])
def test_a_call_that_is_sent_again_waits_too(nodes: Cluster, flavour: str) -> None:
    """It has its answer, so no key is missing, and it is stopped at a computed key."""
    port = nodes.nodes[0].port

    async def again() -> Any:
        async with closing_connections(redis.asyncio.RedisCluster(host=HOST, port=port)) as client:
            return await redisq.asyncio.PriorityQueue(client, "again").push("a", 1, token=flavour)

    with redis.RedisCluster(host=HOST, port=port) as client, ThreadPoolExecutor(1) as pool:
        queue: PriorityQueue[str] = PriorityQueue(client, "again")
        queue.purge()
        assert queue.push("a", 1, token=flavour) is Pushed.ADDED
        slot: int = nodes.clients[0].execute_command("CLUSTER KEYSLOT", queue.calls.queue)
        source = nodes.owner(slot)
        target = next(i for i in nodes.masters() if i != source)
        nodes.open(slot, source, target)

        def sent() -> int:
            calls: int = nodes.clients[source].info("commandstats")["cmdstat_evalsha"]["calls"]
            return calls

        before = sent()
        if flavour == "blocking":
            pushed = pool.submit(queue.push, "a", 1, token=flavour)
        else:
            pushed = pool.submit(lambda: asyncio.run(again()))
        until(lambda: pushed.done() or sent() > before + 2, "the call was sent again twice")
        assert not pushed.done()
        for key in nodes.keys(slot, source):
            nodes.move(key, source, target)
        nodes.close(slot, target)
        assert pushed.result() is Pushed.ADDED
        assert queue.purge() == 1


@pytest.mark.parametrize("flavour", ["blocking", "asyncio"])
def test_redis_pys_error_is_raised_after_the_deadline(
    half_moved: HalfMovedSlot, flavour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the slot stays in the middle of a move, nothing has been done; redis-py alone would not wait at all."""
    monkeypatch.setattr(redisq.core.request, "MIGRATION_TIMEOUT", 0.0)
    calls: list[Callable[[Any], Any]] = [
        lambda queue: queue.push(4, group="a"),
        lambda queue: queue.pop_longest(),
        lambda queue: queue.reserve(),
        lambda queue: queue.reserve_many(3),
    ]
    moving = (redis.exceptions.ClusterError, redis.exceptions.TryAgainError)

    async def awaited() -> None:
        made = redis.asyncio.RedisCluster(host=HOST, port=half_moved.nodes.nodes[0].port)
        async with closing_connections(made) as client:
            for call in calls:
                with pytest.raises(moving):
                    await call(redisq.asyncio.Buffer(client, half_moved.queue.calls.queue[8:-2].decode()))

    if flavour == "asyncio":
        asyncio.run(awaited())
    else:
        for call in calls:
            with pytest.raises(moving):
                call(half_moved.queue)
    half_moved.finish()
    assert half_moved.queue.pop_longest() == {"a": [1, 2], "b": [3]}
    assert half_moved.queue.audit().ok


def test_durability_is_refused_in_a_cluster(nodes: Cluster) -> None:
    """A call and its WAIT cannot be kept on one connection; this is an error before anything is sent."""

    async def refused() -> None:
        made = redis.asyncio.RedisCluster(host=HOST, port=nodes.nodes[0].port)
        async with closing_connections(made) as client:
            with pytest.raises(redisq.InvalidArgument, match="RedisCluster"):
                redisq.asyncio.Buffer(client, "q", durability="replica")

    with (
        redis.RedisCluster(host=HOST, port=nodes.nodes[0].port) as client,
        pytest.raises(redisq.InvalidArgument, match="RedisCluster"),
    ):
        PriorityQueue(client, "q", durability=redisq.Replicas(1))
    asyncio.run(refused())
