"""Finding all queues of a server or a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio

import redisq
import redisq.asyncio
from redisq import Buffer, InvalidArgument, PriorityQueue, QueueInfo
from tests.connections import closing_connections
from tests.faults.cluster import Cluster, cluster
from tests.faults.node import HOST
from tests.queues.flavours import Flavour

NAMES = ["q", "a:b", "two words", "é", "g\udcff", "*", "[a-z]?", "\\", "line\nend", "meta", ":meta"]
PREFIXES = ["redisq", "app:redisq", "r*", "r?d", "[a-z]", "[^r]", "\\", "r\\*", "a]b", "é", "x\udcff"]


def find(flavour: Flavour, client: Any = None, **options: Any) -> list[QueueInfo]:
    """Find queues with a client of this flavour."""
    found: list[QueueInfo] = flavour.do(flavour.library.queues(client or flavour.client, **options))
    return found


def test_queues_are_found_by_name(flavour: Flavour) -> None:
    """Of each kind, ordered by name; a name that is used for two kinds is listed twice."""
    assert find(flavour) == []
    for name in NAMES:
        flavour.do(flavour.buffer(name).push(1))
    flavour.do(flavour.queue("fifo").push("a"))
    flavour.do(flavour.queue("score", order="score").push("a"))
    expected = [QueueInfo(name, "buffer", 2) for name in NAMES]
    expected += [QueueInfo("fifo", "fifo", 2), QueueInfo("score", "score", 2)]
    assert find(flavour) == sorted(expected)
    buffer = flavour.buffer(find(flavour)[0].name)
    assert flavour.do(buffer.stats()).waiting == 1


@pytest.mark.parametrize("options", [{"decode_responses": True}, {"protocol": 3}, {"encoding": "latin-1"}], ids=str)
def test_results_do_not_depend_on_the_clients_settings(flavour: Flavour, options: dict[str, Any]) -> None:
    for name in NAMES:
        flavour.do(flavour.buffer(name).push(1))
    found = find(flavour, flavour.make_client(**options))
    assert [one.name for one in found] == sorted(NAMES)


def test_a_prefix_is_not_a_pattern(flavour: Flavour) -> None:
    """It finds only its own queues, even if SCAN would give its characters a meaning."""
    for place, prefix in enumerate(PREFIXES):
        flavour.do(flavour.buffer(f"q{place}", prefix=prefix).push(1))
    for place, prefix in enumerate(PREFIXES):
        assert find(flavour, prefix=prefix) == [QueueInfo(f"q{place}", "buffer", 2)]
    assert find(flavour, prefix="red") == find(flavour, prefix="app") == find(flavour, prefix="rxd") == []


def test_unrelated_keys_are_ignored(flavour: Flavour) -> None:
    """Of another type, without a mark, with a mark of no queue, or of another shape; a rate limiter is no queue."""
    flavour.do(flavour.buffer("mine").push(1))
    plain: Any = flavour.plain
    mark = {"queue": "2 buffer"}
    plain.set("redisq:{string}:meta", "2 buffer")
    plain.rpush("redisq:{list}:meta", "2 buffer")
    plain.zadd("redisq:{zset}:meta", {"queue": 1})
    plain.hset("redisq:{bare}:meta", mapping={"done": 5})
    for place, kind in enumerate(["", "2", "buffer", "2 stack", "x buffer", "2 buffer ", "2  buffer", b"\xff"]):
        plain.hset(f"redisq:{{odd{place}}}:meta", mapping={"queue": kind})
    for shape in ("redisq:{}:meta", "redisq:{a}b{c}:meta", "redisq:{a}:b:meta", "redisq:q:meta", "x:redisq:{q}:meta"):
        plain.hset(shape, mapping=mark)
    for shape in ("redisq:{a}:meta:", "redisq:{a}:meta2", "redisq:{a{b}:meta", "Redisq:{q}:meta", "redisq:{a}b:meta"):
        plain.hset(shape, mapping=mark)
    flavour.do(flavour.library.RateLimiter(flavour.client, "limit", redisq.Rate(1, 1)).acquire())
    plain.hset("redisq:{old}:meta", mapping={"queue": "1 buffer"})
    plain.hset("redisq:{new}:meta", mapping={"queue": "12 score"})
    assert find(flavour) == [
        QueueInfo("mine", "buffer", 2),
        QueueInfo("new", "score", 12),
        QueueInfo("old", "buffer", 1),
    ]


def test_an_emptied_queue_is_found_but_not_one_that_nothing_was_pushed_to(flavour: Flavour) -> None:
    """Nor one that was only read or paused."""
    do, drained, queue = flavour.do, flavour.buffer("drained"), flavour.queue("looked at")
    do(drained.push(1))
    do(drained.pop())
    do(queue.pop())
    do(queue.stats())
    do(queue.audit())
    do(flavour.buffer("paused").pause())
    assert find(flavour) == [QueueInfo("drained", "buffer", 2)]
    assert 0 < flavour.plain.ttl("redisq:{drained}:meta") <= 604_800


def test_thousands_of_queues_among_other_keys(real: Flavour) -> None:
    """In steps of a thousand keys, so that no call blocks the server."""
    with real.plain.pipeline(transaction=False) as pipe:
        for i in range(3_000):
            pipe.hset(f"redisq:{{{i:04}}}:meta", mapping={"queue": "2 buffer"})
            pipe.set(f"other:{i}", "x")
            pipe.set(f"redisq:{{{i:04}}}:once:{i}", "x")
        pipe.execute()
    real.plain.config_resetstat()
    found = find(real)
    after: Any = real.plain.info("commandstats")
    assert [one.name for one in found] == [f"{i:04}" for i in range(3_000)]
    assert "cmdstat_keys" not in after
    scans = after["cmdstat_scan"]["calls"]
    assert 9 <= scans <= 20


@pytest.mark.parametrize("prefix", ["", "a{b", "a}b", "\ud800", None, 5, b"q"])
def test_an_invalid_prefix_is_refused(flavour: Flavour, prefix: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        find(flavour, prefix=prefix)
    assert repr(prefix) in str(caught.value)


def test_unsuitable_clients_are_refused(flavour: Flavour) -> None:
    """Clients of the other flavour, and pipelines."""
    other: Any = redis.asyncio.Redis() if flavour.name == "blocking" else flavour.plain
    for client in (other, flavour.client.pipeline()):
        with pytest.raises(InvalidArgument, match="client is"):
            find(flavour, client)


@pytest.mark.parametrize("refused", ["scan", "hget"])
def test_a_missing_permission_is_an_error(real: Flavour, refused: str) -> None:
    real.do(real.buffer().push(1))
    real.do(real.buffer("second").push(1))
    admin: Any = real.plain
    admin.execute_command("ACL", "SETUSER", "looker", "reset", "on", ">pw", "~*", "+@all", f"-{refused}")
    client = real.make_client(username="looker", password="pw")
    try:
        with pytest.raises(redis.ResponseError, match=refused):
            find(real, client)
        real.plain.delete("redisq:{second}:meta")  # a single HGET
        with pytest.raises(redis.ResponseError, match=refused):
            find(real, client)
    finally:
        admin.execute_command("ACL", "DELUSER", "looker")


# -- a cluster -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nodes(binary: Path) -> Iterator[Cluster]:
    """Run a cluster of three masters, with queues on each of them."""
    with cluster(binary) as made:
        client = redis.RedisCluster(HOST, made.nodes[0].port)
        for i in range(60):
            Buffer(client, f"b{i:02}").push(i)
            PriorityQueue(client, f"p{i:02}").push("a", i)
        Buffer(client, "other", prefix="app*").push(1)
        for place in range(3):  # more on each node than one step of SCAN returns
            client.mset_nonatomic({f"{{{place} {i}}}": "x" for i in range(2_000)})
        client.hset("redisq:{odd}:meta", mapping={"queue": "x"})
        for node in made.clients[:3]:
            assert node.dbsize() > 1_500
            assert len(node.keys("redisq:{*}:meta")) > 20
        client.close()
        yield made


EXPECTED = sorted(
    [QueueInfo(f"b{i:02}", "buffer", 2) for i in range(60)] + [QueueInfo(f"p{i:02}", "fifo", 2) for i in range(60)]
)


@pytest.mark.server
@pytest.mark.parametrize("decode", [False, True])
def test_the_queues_of_all_nodes_are_found(nodes: Cluster, decode: bool) -> None:
    """Once each, although replicas have them too."""
    for node in nodes.nodes[:3]:
        client = redis.RedisCluster(HOST, node.port, decode_responses=decode)
        assert redisq.queues(client) == EXPECTED
        assert redisq.queues(client, "app*") == [QueueInfo("other", "buffer", 2)]
        assert redisq.queues(client, "app") == redisq.queues(client, "nobody's") == []
        assert [one.stats and one.stats.waiting for one in redisq.overview(client)] == [1] * 120
        client.close()


@pytest.mark.server
@pytest.mark.parametrize("decode", [False, True])
async def test_the_queues_of_all_nodes_are_found_with_asyncio(nodes: Cluster, decode: bool) -> None:
    """Also with a client that has sent nothing yet."""
    for node in nodes.nodes[:3]:
        make = partial(redis.asyncio.RedisCluster, HOST, node.port, decode_responses=decode)
        async with closing_connections(make()) as client:
            assert await redisq.asyncio.queues(client) == EXPECTED
            assert all(one.stats and one.stats.waiting == 1 for one in await redisq.asyncio.overview(client))
        async with closing_connections(make()) as client:
            assert await redisq.asyncio.queues(client, "app*") == [QueueInfo("other", "buffer", 2)]
            assert await redisq.asyncio.queues(client, "nobody's") == []
        fresh = make()
        try:
            assert await redisq.asyncio.queues(fresh) == EXPECTED
        finally:
            await fresh.aclose()


@pytest.mark.server
def test_groups_in_a_cluster_can_be_paused_peeked_at_and_dropped(nodes: Cluster) -> None:
    """All keys of a queue are in one slot, including those that a script computes."""
    client = redis.RedisCluster(HOST, nodes.nodes[0].port)
    for i in range(6):
        buffer = Buffer[int](client, f"paused {i}", prefix="cluster")
        buffer.push_many(range(1_200), group="g")
        assert buffer.peek("g", 1_100, 50) == list(range(50, 1_150))
        buffer.pause(1000, "why")
        assert buffer.reserve() is None
        assert buffer.stats().pause_reason == "why"
        assert buffer.resume()
        batches = buffer.reserve_many(600, 1)
        buffer.release(*batches[:300], delay=1000)
        buffer.bury(*batches[300:])
        buffer.pause_group("g")
        assert buffer.groups(state="paused") == {"g": 600}
        assert buffer.drop_group("g") == 1_200
        assert buffer.resume_group("g")
        queue = PriorityQueue(client, f"paused {i}", prefix="cluster p")
        queue.push("a")
        queue.pause()
        assert queue.pop() is None
        assert queue.resume()
        assert queue.pop()
    client.close()
