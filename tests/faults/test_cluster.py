"""A cluster whose slots and masters change places under live queues: nothing is lost, nothing comes twice.

Each queue is worked on by two, who push and take until all of their items are through. Of these, three queues share the
slot that is moved to and fro, key by key, in any order, with pauses in which the clients run into TRYAGAIN for longer
than redis-py by itself would bear.
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
from tests.model import Keys
from tests.scripts import keyspace

from . import settings
from .cluster import Cluster, cluster
from .node import HOST, until
from .scenarios import SCENARIOS, Q, Scenario, send

pytestmark = [pytest.mark.server, settings.limit]

Work = Generator[Any, Any, None]
"""Work of either flavour: it yields what a call returns, and is sent the result."""

ITEMS = settings.pick(2_000, 10_000)
MOVES = settings.pick(8, 20)
SLOW = settings.pick(2, 5)  # of the moves
PIECE = 10
TRIES = 16  # of redis-py before it gives a call up


@pytest.fixture(scope="module")
def nodes(binary: Path) -> Iterator[Cluster]:
    """Run one cluster for these tests."""
    with cluster(binary) as made:
        yield made


@dataclass
class Tally:
    """A count of what went into all queues and came out."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    pushed: Counter[str] = field(default_factory=Counter)
    taken: Counter[str] = field(default_factory=Counter)
    moving: int = 0
    """Items of the moving slot that are through."""

    def wait(self, enough: int, stop: threading.Event) -> None:
        """Wait until so many items of the moving slot are through."""
        until(lambda: self.moving >= enough or stop.is_set(), "work goes on", 60)

    def put(self, items: list[str]) -> None:
        """Note what was pushed."""
        with self.lock:
            self.pushed.update(items)

    def take(self, place: Place, items: list[str]) -> None:
        """Note what was acked, or popped."""
        with self.lock:
            place.through += len(items)
            self.taken.update(items)
            self.moving += sum(item.startswith("live") for item in items)


@dataclass
class Place:
    """One queue, and how many items go through it."""

    queue: Any
    name: str
    count: int
    through: int = 0

    def work(self, tally: Tally, part: int) -> Work:
        """Push every other piece, and take until all are through."""
        draw = random.Random(f"{settings.SEED} {self.name} {part}")
        for piece in range(part, self.count // PIECE, 2):
            items = [f"{self.name} {piece} {i}" for i in range(PIECE)]
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
            found = yield self.queue.pop_longest(2, PIECE)
            items = [item for group in found.values() for item in group]
        else:
            batch = yield self.queue.reserve(PIECE, timeout=0.2)
            if batch is None:
                return
            assert batch.attempts == 1
            items = batch.items
            assert (yield batch.ack()) == len(items)
        tally.take(self, items)


def places(library: Any, client: Any) -> list[Place]:
    """Make three queues in the slot that moves, and ten elsewhere."""
    options: dict[str, Any] = {"lease": 600, "dedup_window": 5}
    live, other = ITEMS // 4, ITEMS // 40
    made = [
        Place(library.Buffer(client, "live", **options), "live buffer", live),
        Place(library.PriorityQueue(client, "live", prefix="p", **options), "live priority", live),
        Place(library.Buffer(client, "live", prefix="x", **options), "live pop", live),
    ]
    for i in range(5):
        made.append(Place(library.Buffer(client, f"b{i}", **options), f"b{i}", other))
        made.append(Place(library.PriorityQueue(client, f"p{i}", **options), f"p{i}", other))
    assert sum(place.count for place in made) == ITEMS
    return made


def errors(nodes: Cluster, name: str) -> int:
    """Count an error that the nodes have answered with."""
    said = [client.info("errorstats").get(f"errorstat_{name}", 0) for client in nodes.clients]
    # The oldest redis-py gives `count=3`, a newer one has read it.
    return sum(one["count"] if isinstance(one, dict) else int(str(one).rpartition("=")[2]) for one in said)


class Look:
    """A view of a slot's keys on whichever node they are, past all redirections."""

    def __init__(self, nodes: Cluster, slot: int) -> None:
        self.nodes, self.slot = nodes, slot

    def counts_equal_lists(self, queue: bytes) -> bool:
        """Return whether each group's count is its list's length, and no list is without one."""
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
    """A thread that moves the slot whenever enough of its items are through, and fails its master over once."""

    def __init__(self, nodes: Cluster, slot: int, tally: Tally) -> None:
        super().__init__()
        self.nodes, self.slot, self.tally = nodes, slot, tally
        self.draw = random.Random(settings.SEED)
        self.look = Look(nodes, slot)
        self.moved = 0
        self.keys = 0
        self.stop = threading.Event()
        self.failure: BaseException | None = None

    def run(self) -> None:
        """Move it twenty times."""
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
                # Longer than redis-py waits: by itself it gives up after so many answers to one call.
                until(lambda: errors(self.nodes, "TRYAGAIN") >= before + 4 * TRIES or self.stop.is_set(), "they wait")
            if count % 5 == 0:
                for queue in (b"redisq:{live}:", b"x:{live}:"):
                    assert self.look.counts_equal_lists(queue), f"move {self.moved}, after {count} keys"

        self.keys += self.nodes.migrate(self.slot, target, self.draw, between)


def run_blocking(port: int, tally: Tally) -> None:
    """Let threads work."""
    with redis.RedisCluster(host=HOST, port=port) as client:
        made = places(redisq, client)

        def drive(work: Work) -> None:
            result: Any = None
            while True:
                try:
                    result = work.send(result)
                except StopIteration:
                    return

        with ThreadPoolExecutor(2 * len(made)) as pool:
            for done in [pool.submit(drive, place.work(tally, part)) for place in made for part in range(2)]:
                done.result()
        for place in made:
            assert place.queue.audit().ok
            assert place.queue.purge() == 0


async def run_asyncio(port: int, tally: Tally) -> None:
    """Let tasks work."""
    # By default redis-py's asyncio client closes all its connections after every fifth MOVED, under whoever uses them.
    async with redis.asyncio.RedisCluster(host=HOST, port=port, reinitialize_steps=0) as client:
        made = places(redisq.asyncio, client)

        async def drive(work: Work) -> None:
            result: Any = None
            while True:
                try:
                    coming = work.send(result)
                except StopIteration:
                    return
                result = await coming

        await asyncio.gather(*(drive(place.work(tally, part)) for place in made for part in range(2)))
        for place in made:
            assert (await place.queue.audit()).ok
            assert await place.queue.purge() == 0


@pytest.mark.parametrize("flavour", ["blocking", "asyncio"])
def test_a_slot_that_moves_to_and_fro_under_work(nodes: Cluster, flavour: str) -> None:
    """20 moves and a failover during 10,000 items: 0 lost, 0 twice, and counts equal lists at every moment."""
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
            raise mover.failure  # a slot that it left half-way is why the others failed
    assert tally.taken == tally.pushed
    assert tally.taken.total() == len(tally.taken) == ITEMS
    assert mover.moved == MOVES
    met = {name: errors(nodes, name) - count for name, count in before.items()}
    # ASK is only for a call none of whose keys is left: a BLPOP at the right moment, say.
    assert all(count for name, count in met.items() if name != "ASK" or settings.LONG), met
    print(f"{flavour}: {mover.keys} keys moved; answers {met}")


class Half:
    """A queue's slot half-way between two nodes: its index there, its lists here."""

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
        """Send a command to the importing node, as a client does that was told ASK."""
        with self.nodes.clients[self.target].pipeline(transaction=False) as pipe:
            pipe.execute_command("ASKING")
            pipe.execute_command(*command)
            return pipe.execute(raise_on_error=False)[1]


@pytest.fixture
def half(nodes: Cluster, request: pytest.FixtureRequest) -> Iterator[Half]:
    """Return a queue whose slot is half-way."""
    with redis.RedisCluster(host=HOST, port=nodes.nodes[0].port) as client:
        queue: Buffer[int] = Buffer(client, request.node.name.replace("[", " ").replace("]", ""))
        queue.purge()
        made = Half(nodes, queue)
        yield made
        made.finish()
        queue.purge()


def test_without_the_guard_a_script_loses_its_counters(half: Half) -> None:
    """The control: with another key in the guard's place the importing node runs it, and it sees no lists.

    And without a look at the pauses, of which the first is elsewhere and would stop it.
    """
    call = half.queue.calls.pop_longest()
    assert isinstance(half.ask(*call.eval()), redis.exceptions.TryAgainError)
    there = half.queue.calls.queue + b"there"
    half.ask("SET", there, "")
    text = call.script.text.replace(b"if call('EXISTS', paused, queue .. 'paused_groups') > 0 then", b"if false then")
    assert text != call.script.text
    naive = replace(
        call,
        script=Script("naive/pop_longest", text),
        keys=tuple(there if key.endswith((b":guard", b":paused")) else key for key in call.keys),
    )
    stopped = half.ask(*naive.eval())
    assert KEY_MOVED.search(str(stopped))  # when the counters are gone it looks at keys that are not here
    half.finish()
    assert half.queue.groups() == {}
    assert {finding.name for finding in half.queue.audit(repair=True).findings} == {"a", "b", "there"}
    assert half.queue.groups() == {"a": 2, "b": 1}  # nothing but the counters was lost
    half.queue.runner.client.delete(there)


Contents = tuple[Keys, set[bytes]]


class HalfWay:
    """Scenarios on a slot of which some keys have moved, and what is on both nodes then."""

    def __init__(self, nodes: Cluster, scratch: redis.Redis) -> None:
        self.nodes, self.scratch = nodes, scratch
        self.slot: int = nodes.clients[0].execute_command("CLUSTER KEYSLOT", Q)
        self.source = nodes.owner(self.slot)
        self.target = next(i for i in nodes.masters() if i != self.source)

    def undisturbed(self, scenario: Scenario) -> tuple[Contents, Any, Contents]:
        """Return what a scenario is elsewhere: all keys, the reply, and all keys after it."""
        scenario.build(self.scratch)
        before, reply = keyspace.read(self.scratch, Q, 0), send(self.scratch, scenario.call)
        return before, reply, keyspace.read(self.scratch, Q, 0)

    def play(self, scenario: Scenario, moved: Collection[bytes]) -> tuple[str, Any, Contents]:
        """Run a scenario when these keys have moved: how the call was answered, by what, and all keys after it."""
        scenario.build(self.nodes.clients[self.source])
        self.nodes.open(self.slot, self.source, self.target)
        try:
            for key in moved:
                self.nodes.move(key, self.source, self.target)
            how, reply = "at the old place", send(self.nodes.clients[self.source], scenario.call)
            if isinstance(reply, redis.exceptions.AskError):
                with self.nodes.clients[self.target].pipeline(transaction=False) as pipe:
                    pipe.execute_command("ASKING")
                    pipe.execute_command(*scenario.call.eval())
                    how, reply = "at the new place", pipe.execute(raise_on_error=False)[1]
            if isinstance(reply, redis.exceptions.TryAgainError):
                how = "told to wait"
            return how, reply, self._contents()
        finally:
            for i in (self.target, self.source):
                self.nodes.clients[i].flushall()
                self.nodes.clients[i].execute_command("CLUSTER SETSLOT", self.slot, "STABLE")

    def _contents(self) -> Contents:
        """Read all keys of both nodes, on a server that has them all: a DUMP is not the same from one to another."""
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
    """Choose which keys have moved: none, all, one, all but one, or some; of calls that are sent again all of these."""
    singles = [[key] for key in keys] + [[other for other in keys if other != key] for key in keys]
    some = [draw.sample(keys, draw.randint(0, len(keys))) for _ in range(settings.pick(1, 4))]
    if "again" in scenario.what or settings.LONG:
        return [[], keys, *singles, *some]
    return [[], keys, *draw.sample(singles, min(1, len(singles))), *some]


@pytest.mark.parametrize("script", names())
def test_no_script_is_stopped_half_way(nodes: Cluster, server: Server, script: str) -> None:
    """In every state, whichever keys have moved: a call is done as elsewhere, or it has to wait and nothing is done.

    With all of its keys still there a script would run, until it has deleted one of them, or needs one that it
    computes: that one is elsewhere then, and the server stops it there. So each call has a key that is not there: the
    guard, or that of an answer. A call that is sent again has its answer, and may be stopped before it has looked for
    it, with nothing written: that is worth waiting, too.
    """
    draw, met = random.Random(f"{settings.SEED} {script}"), Counter[str]()
    with server.client() as scratch:
        half_way = HalfWay(nodes, scratch)
        for scenario in (scenario for scenario in SCENARIOS if scenario.script == script):
            before, expected, after = half_way.undisturbed(scenario)
            keys = sorted(Q + name for name in before[0])
            for moved in moves(scenario, keys, draw):
                how, reply, there = half_way.play(scenario, moved)
                met[how] += 1
                done = str(reply) == str(expected) and there == after
                waits = how == "told to wait" or KEY_MOVED.search(str(reply))
                assert done or (waits and there == before), f"{scenario}, {moved} moved: {how}: {reply}"
    print(f"{script}: {dict(met)}")
    assert met["told to wait"]


def test_a_script_without_a_guard_is_stopped_half_way(nodes: Cluster, server: Server) -> None:
    """The control: it takes the last item of a list, and looks at another key then."""
    text = b"redis.call('RPOP', KEYS[1]) return redis.call('LLEN', KEYS[1] .. 'x')"
    naive = Call(Script("naive/pop", text), (Q + b"items:g",), (), int)
    with server.client() as scratch:
        scenario = Scenario("one item", (("LPUSH", Q + b"items:g", "a"),), naive)
        _, reply, there = HalfWay(nodes, scratch).play(scenario, [])
    assert isinstance(reply, redis.ResponseError)
    assert there == ({}, set())


def test_with_the_guard_it_waits(half: Half) -> None:
    """The same call by the library goes on when the slot has moved, with all that was there."""
    again = errors(half.nodes, "TRYAGAIN")
    with ThreadPoolExecutor(2) as pool:
        popped = pool.submit(half.queue.pop_longest)
        until(
            lambda: errors(half.nodes, "TRYAGAIN") > again + 2 * TRIES, "it is sent away more often than redis-py bears"
        )
        assert not popped.done()
        half.finish()
        assert popped.result() == {"a": [1, 2], "b": [3]}


@pytest.mark.parametrize("flavour", ["blocking", "asyncio"])
def test_a_call_that_is_sent_again_waits_as_well(nodes: Cluster, flavour: str) -> None:
    """It has its answer, so no key is missing, and is stopped where it looks at one that it computes."""
    port = nodes.nodes[0].port

    async def again() -> Any:
        async with redis.asyncio.RedisCluster(host=HOST, port=port) as client:
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
        until(lambda: pushed.done() or sent() > before + 2, "it was sent again and again")
        assert not pushed.done()
        for key in nodes.keys(slot, source):
            nodes.move(key, source, target)
        nodes.close(slot, target)
        assert pushed.result() is Pushed.ADDED
        assert queue.purge() == 1


@pytest.mark.parametrize("flavour", ["blocking", "asyncio"])
def test_after_the_deadline_the_error_of_redis_py_passes(
    half: Half, flavour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slot that stays half-way is told of, and nothing has been done; redis-py alone would not wait at all."""
    monkeypatch.setattr(redisq.core.request, "MIGRATION_TIMEOUT", 0.0)
    calls: list[Callable[[Any], Any]] = [
        lambda queue: queue.push(4, group="a"),
        lambda queue: queue.pop_longest(),
        lambda queue: queue.reserve(),
        lambda queue: queue.reserve_many(3),
    ]
    moving = (redis.exceptions.ClusterError, redis.exceptions.TryAgainError)

    async def awaited() -> None:
        async with redis.asyncio.RedisCluster(host=HOST, port=half.nodes.nodes[0].port) as client:
            for call in calls:
                with pytest.raises(moving):
                    await call(redisq.asyncio.Buffer(client, half.queue.calls.queue[8:-2].decode()))

    if flavour == "asyncio":
        asyncio.run(awaited())
    else:
        for call in calls:
            with pytest.raises(moving):
                call(half.queue)
    half.finish()
    assert half.queue.pop_longest() == {"a": [1, 2], "b": [3]}
    assert half.queue.audit().ok


def test_durability_is_refused_in_a_cluster(nodes: Cluster) -> None:
    """A call and its WAIT cannot be kept on one connection there: it says so before anything is sent."""

    async def refused() -> None:
        async with redis.asyncio.RedisCluster(host=HOST, port=nodes.nodes[0].port) as client:
            with pytest.raises(redisq.InvalidArgument, match="RedisCluster"):
                redisq.asyncio.Buffer(client, "q", durability="replica")

    with (
        redis.RedisCluster(host=HOST, port=nodes.nodes[0].port) as client,
        pytest.raises(redisq.InvalidArgument, match="RedisCluster"),
    ):
        PriorityQueue(client, "q", durability=redisq.Replicas(1))
    asyncio.run(refused())
