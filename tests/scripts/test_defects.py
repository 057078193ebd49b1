"""The defects of the two recipes: each test shows one with the recipe's own commands, then that redisq is free of it.

The numbers are those of the rows of the tables in `docs/recipes.md`, counted through. Defects that leases solve are in
`test_defects_leases.py`.

Races are reproduced without luck: the recipe's clients take turns, command by command. redisq leaves no point between
two commands for another client; its calls are all sent, each from its own client, before any reply is read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from benchmarks.recipes import GroupedBuffer, WatchedQueue
from redisq import Buffer, Call, Item, PriorityQueue, Pushed, Rate, RateLimiter
from redisq.embedded import Server

R = TypeVar("R")


def numbers(batch: list[bytes]) -> list[int]:
    """Parse the recipe's items."""
    return [int(item) for item in batch]


def send_all(server: Server, *calls: Call[R]) -> list[R]:
    """Send each call from its own client, all of them before any reply is read."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.client(single_connection_client=True)) for _ in calls]
        connections: list[Any] = [client.connection for client in clients]
        for connection, call in zip(connections, calls, strict=True):
            connection.send_command("EVAL", call.script.text, len(call.keys), *call.keys, *call.args)
        return [call.decode(connection.read_response()) for connection, call in zip(connections, calls, strict=True)]


TwoClients = tuple["redis.Redis", "redis.Redis"]


@pytest.fixture
def two_clients(server: Server) -> Iterator[TwoClients]:
    """Return two clients of a real server."""
    with server.client() as one, server.client() as other:
        yield one, other


def test_defect_01_off_by_one_runs_the_item_at_each_boundary_twice(client: redis.Redis) -> None:
    recipe = GroupedBuffer(client)
    recipe.push(*range(10), group="g")
    delivered = numbers(recipe.pop("g", 5)) + numbers(recipe.pop("g", 5))
    assert sorted(delivered) == [0, 1, 2, 3, 4, 5, 5, 6, 7, 8, 9]

    buffer = Buffer[int](client, "feed")
    buffer.push(*range(10), group="g")
    assert buffer.pop("g", 5) == [0, 1, 2, 3, 4]
    assert buffer.pop("g", 5) == [5, 6, 7, 8, 9]
    assert buffer.pop("g", 5) == []


def test_defect_03_variant_strands_items_behind_a_pruned_counter(client: redis.Redis) -> None:
    recipe = GroupedBuffer(client)
    recipe.push(*range(10), group="g")
    assert [len(recipe.pop_variant("g", 5)) for _ in range(2)] == [4, 4]
    assert client.llen(recipe.key("g")) == 2
    assert recipe.longest(1) == []  # two items are there, and no flush will ever look at them
    recipe.push(10, group="g")
    assert recipe.longest(1) == ["g"]  # until another push
    assert client.zscore(recipe.counter, recipe.key("g")) == 1
    assert client.llen(recipe.key("g")) == 3

    buffer = Buffer[int](client, "feed")
    buffer.push(*range(10), group="g")
    assert len(buffer.pop("g", 5)) == 5
    assert buffer.groups() == {"g": 5}
    assert buffer.pop("g", 4) == [5, 6, 7, 8]
    assert buffer.groups() == {"g": 1}
    assert buffer.pop("g", 4) == [9]
    assert buffer.groups() == {}
    assert buffer.audit().ok


def test_defect_04_variant_of_size_one_delivers_everything_and_removes_nothing(client: redis.Redis) -> None:
    recipe = GroupedBuffer(client)
    recipe.push(0, 1, 2, group="g")
    assert len(recipe.pop_variant("g", 1)) == 3
    assert client.llen(recipe.key("g")) == 3

    buffer = Buffer[int](client, "feed")
    buffer.push(0, 1, 2, group="g")
    assert buffer.pop("g", 1) == [0]
    assert buffer.groups() == {"g": 2}


def test_defect_05_small_batch_is_counted_as_a_whole_one(client: redis.Redis) -> None:
    recipe = GroupedBuffer(client)
    recipe.push(0, 1, 2, group="g")
    assert len(recipe.pop("g", 10, prune=False)) == 3
    assert client.zscore(recipe.counter, recipe.key("g")) == -7  # which only pruning hides
    recipe.push(3, 4, 5, group="g")
    assert client.zscore(recipe.counter, recipe.key("g")) == -4

    buffer = Buffer[int](client, "feed")
    buffer.push(0, 1, 2, group="g")
    assert buffer.pop("g", 10) == [0, 1, 2]
    assert buffer.groups() == {}
    assert buffer.push(3, 4, 5, group="g") == 3
    assert buffer.groups() == {"g": 3}
    buffer.push(*range(10), group="h")
    assert buffer.pop_longest(2, 5) == {"h": [0, 1, 2, 3, 4], "g": [3, 4, 5]}
    assert buffer.groups() == {"h": 5}


def test_defect_06_group_named_groups_collides_with_the_counter(client: redis.Redis) -> None:
    recipe = GroupedBuffer(client)
    recipe.push(0, group="g")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        recipe.push(1, 2, group="groups")
    assert recipe.longest(1) == ["groups"]  # counted all the same, and now the longest

    buffer = Buffer[int](client, "feed")
    names = ["groups", "since", "guard", "items", "once", "leases", "delayed", "dead"]
    for name in names:
        assert buffer.push(0, 1, group=name) == 2
    assert buffer.pop_longest(len(names), 2) == {name: [0, 1] for name in sorted(names, reverse=True)}


def test_defect_06_group_with_a_colon_is_cut(client: redis.Redis) -> None:
    recipe = GroupedBuffer(client)
    recipe.push(0, group="fr:paris")
    assert recipe.flush(1, 10) == {"fr": []}
    assert client.llen(recipe.key("fr:paris")) == 1  # and it will stay

    buffer = Buffer[int](client, "feed")
    names = ["fr:paris", "fr:", ":fr", "fr", ":", "items:fr"]
    for name in names:
        buffer.push(0, group=name)
    assert buffer.pop_longest(len(names), 10) == {name: [0] for name in sorted(names, reverse=True)}


def test_defect_07_items_leave_newest_first_inside_a_batch(client: redis.Redis) -> None:
    recipe = GroupedBuffer(client)
    recipe.push(*range(4), group="g")
    assert numbers(recipe.pop("g", 4)) == [3, 2, 1, 0]

    buffer = Buffer[int](client, "feed")
    buffer.push(0, 1, group="g")
    buffer.push(2, 3, group="g")
    assert buffer.pop("g", 3) == [0, 1, 2]
    buffer.push(4, 5, group="g")
    assert buffer.pop_longest(1, 10) == {"g": [3, 4, 5]}


def test_defect_10_two_flushers_choose_the_same_group(server: Server, two_clients: TwoClients) -> None:
    one, other = map(GroupedBuffer, two_clients)
    one.push(*range(8), group="long")
    one.push(*range(4), group="short")
    chosen = one.longest(1) + other.longest(1)
    assert chosen == ["long", "long"]
    assert len(one.pop("long", 10)) == 8
    assert other.pop("long", 10) == []  # an API call for nothing, while the short group waits

    buffer = Buffer[int](two_clients[0], "feed")
    buffer.push(*range(8), group="long")
    buffer.push(*range(4), group="short")
    taken = send_all(server, *[buffer.calls.pop_longest(1, 10) for _ in range(3)])
    assert sorted(taken, key=list) == [{}, {"long": list(range(8))}, {"short": list(range(4))}]


def test_defect_13_rate_doubles_with_a_second_process(server: Server, two_clients: TwoClients) -> None:
    one, other = map(GroupedBuffer, two_clients)
    for group in range(8):
        one.push(0, group=str(group))
    calls = [*one.flush(3, 10), *other.flush(3, 10)]  # three an interval are allowed, and each process keeps to that
    assert len(calls) == 6

    limiter = RateLimiter(two_clients[0], "api", Rate(3, per=60))
    grants = send_all(server, *[limiter.calls.acquire(2) for _ in range(4)])
    assert sorted(grant.granted for grant in grants) == [0, 0, 1, 2]
    assert all(0 < grant.retry_after <= 60.001 for grant in grants if grant.granted < 2)


def test_defect_14_lost_reply_pushes_twice(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    # As redis-py 8 does by default, and redis-py 5 when told to.
    client.get_connection_kwargs().update(retry=Retry(NoBackoff(), 3), retry_on_error=[redis.TimeoutError])
    lose = reply_loss(client, monkeypatch)

    client.lpush("list", "a")
    lose(1)
    client.lpush("list", "b")
    assert client.lrange("list", 0, -1) == [b"b", b"b", b"a"]
    recipe = GroupedBuffer(client)
    lose(4)  # of the replies to MULTI, LPUSH, ZINCRBY and EXEC the last, which says that it is done
    recipe.push("a", group="g")
    assert client.lrange(recipe.key("g"), 0, -1) == [b"a", b"a"]

    buffer = Buffer[str](client, "feed")
    queue = PriorityQueue(client, "index")
    client.script_flush()  # so that the first reply to a new script does not just say that it is unknown
    lose(2)
    assert buffer.push("a", "b", group="g") == 2
    lose(1)
    assert buffer.push("c", group="g") == 3
    lose(1)
    assert buffer.push_front("z", group="g") == 4
    lose(2)
    assert queue.push("m", 5) is Pushed.ADDED
    lose(1)
    assert queue.push("m", 1) is Pushed.RAISED
    lose(2)
    assert queue.remove("m") == 1
    lose(0)
    assert buffer.pop("g") == ["z", "a", "b", "c"]


def reply_loss(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return a function that selects the reply to lose, counted from its call; the command is carried out.

    redis-py then reconnects and sends the command again. A second call checks that the first reply was lost.
    """
    client.ping()  # connects, so that only replies to commands are counted
    connection: Any = client.connection_pool.connection_class
    read = connection.read_response
    left = 0

    def read_response(self: Any, *args: Any, **options: Any) -> Any:
        nonlocal left
        try:
            return read(self, *args, **options)
        finally:
            left -= 1
            if left == 0:
                raise redis.TimeoutError("the reply is lost")

    def lose(number: int) -> None:
        nonlocal left
        assert left <= 0
        left = number

    monkeypatch.setattr(connection, "read_response", read_response)
    return lose


def test_defect_15_check_then_add_lets_the_weaker_score_win(server: Server, two_clients: TwoClients) -> None:
    one, other = map(WatchedQueue, two_clients)
    assert one.improves("m", 1)
    assert other.improves("m", 5)
    one.add("m", 1)
    other.add("m", 5)
    assert two_clients[0].zscore(one.key, "m") == 5

    for order in ((1, 5), (5, 1)):
        queue = PriorityQueue(two_clients[0], f"index {order}")
        outcomes = send_all(server, *[queue.calls.push("m", priority) for priority in order])
        assert Pushed.ADDED in outcomes
        assert queue.pop() == Item("m", 1, 1)
        assert queue.pop() is None


def test_defect_16_plain_zadd_demotes_on_readding(client: redis.Redis) -> None:
    recipe = WatchedQueue(client)
    recipe.add("m", 1)
    recipe.add("m", 5)
    assert client.zscore(recipe.key, "m") == 5

    for queue in (PriorityQueue(client, "fifo"), PriorityQueue(client, "score", order="score")):
        assert queue.push("m", 1) is Pushed.ADDED
        assert queue.push("m", 5) is Pushed.KEPT
        assert queue.push("n", 2) is Pushed.ADDED
        assert queue.push("n", 0) is Pushed.RAISED
        assert queue.pop_many(3) == [Item("n", 0, 1), Item("m", 1, 1)]


@pytest.mark.parametrize("workers", [1, 2, 4, 8])
def test_defect_17_watch_wastes_round_trips_that_grow_with_the_workers(server: Server, workers: int) -> None:
    with contextlib.ExitStack() as stack:
        waiting = [WatchedQueue(stack.enter_context(server.client())) for _ in range(workers)]
        for member in range(workers):
            waiting[0].add(str(member), member)
        aborted = 0
        while waiting:
            chosen = [(worker, *worker.choose()) for worker in waiting]
            taken = [worker.take(pipe, member) for worker, pipe, member in chosen if member]
            assert taken == [True] + [False] * (len(waiting) - 1)  # False: what the port tells its caller, "aborted"
            aborted += taken.count(False)
            waiting = waiting[1:]
        assert aborted == workers * (workers - 1) / 2

        queue = PriorityQueue(stack.enter_context(server.client()), "index")
        queue.push_many((str(member), member) for member in range(workers))
        items = send_all(server, *[queue.calls.pop_once() for _ in range(workers)])  # one round trip each
        assert sorted(item.member for item in items if item) == [str(member) for member in range(workers)]
        assert queue.pop() is None


def test_defect_18_equal_scores_leave_in_byte_order_and_starve(client: redis.Redis) -> None:
    recipe = WatchedQueue(client)
    recipe.push("9", 0)
    for i in range(100):
        recipe.push(f"1-{i}", 0)
        assert recipe.pop() == b"1-%d" % i  # under load it is never the turn of 9
    assert client.zscore(recipe.key, "9") == 0

    queue = PriorityQueue(client, "index")
    queue.push("9", 0)
    queue.push_many((f"1-{i}", 0) for i in range(100))
    assert [item.member for item in queue.pop_many(101)] == ["9", *(f"1-{i}" for i in range(100))]
