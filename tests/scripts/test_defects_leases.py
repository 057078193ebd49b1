"""The defects of the two recipes that leases solve: each shown with the recipe's own commands, then absent in redisq.

They are numbered as in `test_defects.py`, which has the others.
"""

from __future__ import annotations

import contextlib
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from benchmarks.recipes import GroupedBuffer, WatchedQueue
from redisq import Buffer, PriorityQueue, Pushed, State
from redisq.blocking import runner
from redisq.blocking.runner import Runner
from redisq.core.batch import batch_of
from redisq.embedded import Server
from tests.scripts import test_defects
from tests.scripts.backends import at
from tests.scripts.test_defects import numbers, reply_loss


def test_every_defect_has_a_test() -> None:
    """Twenty-one rows, each with at least one test."""
    here = [name for module in (vars(test_defects), globals()) for name in module if name.startswith("test_defect_")]
    assert {int(name.split("_")[2]) for name in here} == set(range(1, 22))


def test_defect_02_failure_makes_the_double_permanent(client: redis.Redis) -> None:
    recipe = GroupedBuffer(client)
    recipe.push(*range(10), group="g")
    for failures in range(1, 4):
        batch = recipe.pop("g", 5)
        recipe.push(*numbers(batch), group="g")  # the API call failed: put back
        assert client.llen(recipe.key("g")) == 10 + failures

    buffer = Buffer[int](client, "feed")
    buffer.push(*range(10), group="g")
    for attempt in range(1, 4):
        reserved = buffer.reserve(5)
        assert reserved
        assert (reserved.items, reserved.attempts) == ([0, 1, 2, 3, 4], attempt)
        assert reserved.release() == 5
    done: list[int] = []
    while taken := buffer.reserve(5):
        done += taken.items
        taken.ack()
    assert done == list(range(10))


def test_defect_08_partial_success_runs_the_good_ones_again(client: redis.Redis) -> None:
    recipe = GroupedBuffer(client)
    recipe.push(*range(20), group="g")
    sent: Counter[int] = Counter()
    batch = numbers(recipe.pop("g", 20))
    sent.update(batch[:14])  # the 15th of 20 fails
    recipe.push(*batch, group="g")
    sent.update(numbers(recipe.pop("g", 20)))
    assert sorted(sent.values()) == [1] * 6 + [2] * 14

    buffer = Buffer[int](client, "feed")
    buffer.push(*range(20), group="g")
    queue = PriorityQueue(client, "index")
    queue.push_many((str(i), 0) for i in range(20))
    reserved, members = buffer.reserve(20), queue.reserve(20)
    assert reserved
    assert members
    reserved.fail(14)
    members.fail("14")
    assert reserved.ack() == members.ack() == 19
    again, member = buffer.reserve(20), queue.reserve(20)
    assert again
    assert member
    assert (again.group, again.items, again.attempts) == ("g", [14], 2)
    assert (member.items, member.attempts) == (["14"], 2)
    assert again.ack() == member.ack() == 1
    assert buffer.reserve() is None
    assert queue.reserve() is None


Job = Callable[[redis.Redis], object]


def run_job(socket: str, job: Job, parent: Connection) -> None:
    """Run a job, report it, and wait for the end."""
    with redis.Redis(unix_socket_path=socket) as client:
        kept = job(client)
        parent.send("done")
        parent.recv()
        del kept


def run_and_kill(server: Server, job: Job) -> None:
    """Run a job in a separate process, which is killed with -9 once the job is done."""
    spawn = multiprocessing.get_context("spawn")
    mine, its = spawn.Pipe()
    process = spawn.Process(target=run_job, args=(server.socket, job, its), daemon=True)
    process.start()
    assert mine.recv() == "done"
    process.kill()
    process.join()
    process.close()
    mine.close()
    its.close()


def recipe_pops_batch(client: redis.Redis) -> object:
    """Take a batch for an API call."""
    return GroupedBuffer(client).pop("g", 5)


def reserves_batch(client: redis.Redis) -> object:
    """Take a batch for an API call, with a lease of half a second."""
    return Buffer[int](client, "feed").reserve(5, lease=0.5)


def recipe_pops_member(client: redis.Redis) -> object:
    """Take a member to process."""
    return WatchedQueue(client).pop()


def reserves_member(client: redis.Redis) -> object:
    """Take a member to process, with a lease of half a second."""
    return PriorityQueue(client, "index").reserve(lease=0.5)


def test_defect_09_crash_between_pop_and_call_loses_the_batch(server: Server) -> None:
    with server.client() as client:
        recipe = GroupedBuffer(client)
        recipe.push(*range(5), group="g")
        run_and_kill(server, recipe_pops_batch)
        assert not client.exists(recipe.key("g"), recipe.counter)

        buffer = Buffer[int](client, "feed")
        buffer.push(*range(5), group="g")
        run_and_kill(server, reserves_batch)
        batch = buffer.reserve(timeout=60)  # woken when the lease has expired
        assert batch
        assert (batch.group, batch.items, batch.attempts) == ("g", [0, 1, 2, 3, 4], 2)
        assert batch.ack() == 5
        assert buffer.reserve() is None


def test_defect_11_largest_first_without_age_starves_the_small(client: redis.Redis) -> None:
    recipe = GroupedBuffer(client)
    recipe.push(0, group="small")
    for _ in range(100):
        for group in ("a", "b"):
            recipe.push(*range(10), group=group)
        assert "small" not in recipe.flush(2, 10)

    buffer = Buffer[int](client, "feed", min_size=10, max_wait=60)
    run = Runner(client).run
    run(at(buffer.calls.push([0], "small"), 0))
    served = []
    for second in range(100):
        for group in ("a", "b"):
            run(at(buffer.calls.push(range(20), group), second * 1000))
        for _ in range(2):
            events = run(at(buffer.calls.reserve(10), second * 1000))
            batch = batch_of(events)
            assert batch
            served.append(batch.group)
            buffer.ack(batch)
    assert served[:120] == ["b", "a"] * 60
    assert served.index("small") == 120  # as soon as it has waited for max_wait, whatever the others do


def test_defect_12_poison_returns_for_ever_and_blocks_its_group(client: redis.Redis) -> None:
    recipe = GroupedBuffer(client)
    recipe.push(0, 666, 2, group="g")
    for _ in range(100):
        batch = numbers(recipe.pop("g", 10))
        assert 666 in batch
        recipe.push(*batch, group="g")  # the API refuses the batch, each time
    assert client.llen(recipe.key("g")) == 3  # nothing is done, and nothing counts the attempts

    buffer = Buffer[int](client, "feed", max_attempts=3)
    buffer.push(0, 666, 2, group="g")
    attempts = []
    while reserved := buffer.reserve():
        attempts.append(reserved.attempts)
        reserved.release()
    assert attempts == [1, 2, 3]
    (dead,) = buffer.dead()
    assert (dead.group, dead.items, dead.attempts) == ("g", [0, 666, 2], 3)
    buffer.push(3, group="g")
    following = buffer.reserve()
    assert following
    assert (following.group, following.items) == ("g", [3])
    assert buffer.discard(dead.id) == 1

    buffer = Buffer[int](client, "apart", max_attempts=3, isolate=True)  # in the end, only the poison is dead
    buffer.push(0, 666, 2, group="g")
    done: list[int] = []
    while reserved := buffer.reserve():
        if 666 in reserved.items:
            reserved.release(reason="refused")
        else:
            done += reserved.items
            reserved.ack()
    assert sorted(done) == [0, 2]
    assert [(batch.items, batch.reason) for batch in buffer.dead()] == [([666], "refused")]

    queue = PriorityQueue(client, "index", max_attempts=3)
    queue.push_many({"poison": 0, "good": 1})
    worked = []
    while member := queue.reserve():
        worked += member.items
        if member.items == ["poison"]:
            member.release()
    assert worked == ["poison"] * 3 + ["good"]
    assert [(item.member, item.priority, item.attempts) for item in queue.dead()] == [("poison", 0, 3)]
    assert queue.redrive("poison") == 1
    assert queue.state("poison") is State.READY


def test_defect_14_lost_reply_pops_twice(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    # As redis-py 8 does by default, and redis-py 5 when told to.
    client.get_connection_kwargs().update(retry=Retry(NoBackoff(), 3), retry_on_error=[redis.TimeoutError])
    lose = reply_loss(client, monkeypatch)

    client.rpush("list", "a", "b")
    lose(1)
    assert client.lpop("list") == b"b"  # a was in the lost reply
    recipe = GroupedBuffer(client)
    recipe.push(*range(12), group="g")
    lose(6)  # of the replies to MULTI, LRANGE, LTRIM, ZINCRBY, ZREMRANGEBYSCORE and EXEC the last
    assert numbers(recipe.pop("g", 5)) == [10, 9, 8, 7, 6, 5]  # 0 to 4 are lost

    buffer = Buffer[int](client, "feed")
    buffer.push(*range(10), group="g")
    queue = PriorityQueue(client, "index")
    queue.push_many({"a": 0, "b": 1, "c": 2})
    client.script_flush()  # so that the first reply to a new script does not just say that it is unknown
    lose(2)
    batch = buffer.reserve(5)
    assert batch
    assert (batch.items, batch.attempts) == ([0, 1, 2, 3, 4], 1)
    lose(2)
    members = queue.reserve(2)
    assert members
    assert (members.items, members.attempts) == (["a", "b"], 1)
    lose(1)
    following = buffer.reserve(2)
    assert following
    assert following.items == [5, 6]
    lose(1)
    last = queue.reserve()
    assert last
    assert last.items == ["c"]
    lose(2)
    assert batch.ack() == 5
    lose(1)
    assert following.ack() == 2
    lose(2)
    assert last.release() == 1
    lose(0)
    assert (buffer.stats().waiting, buffer.stats().leased) == (3, 0)
    stats = queue.stats()
    assert (stats.waiting, stats.delayed, stats.leased) == (0, 1, 2)


def test_defect_19_crash_loses_the_member(server: Server) -> None:
    with server.client() as client:
        recipe = WatchedQueue(client)
        recipe.push("m", 0)
        run_and_kill(server, recipe_pops_member)
        assert not client.exists(recipe.key)

        queue = PriorityQueue(client, "index")
        queue.push("m", 7)
        run_and_kill(server, reserves_member)
        batch = queue.reserve(timeout=60)  # woken when the lease has expired
        assert batch
        assert (batch.items, batch.attempts) == (["m"], 2)
        assert batch.ack() == 1
        assert queue.state("m") is State.ABSENT


def test_defect_20_readded_while_worked_on_is_worked_on_twice_or_forgotten(server: Server) -> None:
    with server.client() as one, server.client() as other:
        mine, its = WatchedQueue(one), WatchedQueue(other)
        mine.push("m", 1)
        assert mine.pop() == b"m"
        its.push("m", 0)
        assert its.pop() == b"m"  # two workers hold it at once

        mine.push("m", 1)  # or, if it is removed only when it is done:
        pipe, member = mine.choose()
        assert member == b"m"
        pipe.reset()
        its.push("m", 0)  # there is something new to index
        one.zrem(mine.key, "m")  # done, with the old content
        assert its.pop() is None  # and the update is lost

        queue, same = PriorityQueue(one, "index"), PriorityQueue(other, "index")
        queue.push("m", 1)
        batch = queue.reserve()
        assert batch
        assert same.push("m", 0) is Pushed.ADDED
        assert same.reserve() is None
        assert same.pop() is None
        assert batch.ack() == 1
        once_more = same.reserve()
        assert once_more
        assert (once_more.items, once_more.attempts) == (["m"], 1)
        assert once_more.ack() == 1
        assert queue.state("m") is State.ABSENT


@contextlib.contextmanager
def count_commands(client: redis.Redis, *names: str) -> Iterator[Counter[str]]:
    """Count how often the server runs these commands during the block."""

    def calls() -> Counter[str]:
        stats: dict[str, Any] = client.info("commandstats")
        return Counter({name: stats[f"cmdstat_{name}"]["calls"] for name in names if f"cmdstat_{name}" in stats})

    counted: Counter[str] = Counter()
    before = calls()
    yield counted
    counted.update(calls() - before)


def test_defect_21_idle_consumer_burns_commands(server: Server) -> None:
    seconds = 5
    with server.client() as client, ThreadPoolExecutor(3) as pool:
        recipe = WatchedQueue(client)
        with count_commands(client, "watch", "zrange") as burnt:
            for _ in range(100):
                assert recipe.pop() is None  # an idle consumer can only ask again
        assert burnt.total() == 200

        buffer, queue = Buffer[int](client, "feed"), PriorityQueue(client, "index")
        other = PriorityQueue(client, "other")
        with count_commands(client, "eval", "evalsha", "blpop") as sent:
            waiting: list[Any] = [
                pool.submit(buffer.reserve, timeout=seconds),
                pool.submit(queue.reserve, timeout=seconds),
                pool.submit(other.pop, timeout=seconds),
            ]
            assert [each.result() for each in waiting] == [None, None, None]
        assert sent.total() <= 3 * (seconds + 3)  # each: one a second, and a few at the beginning and the end


def test_defect_21_idle_consumer_sleeps_through_a_push(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with server.client() as client:
        recipe = WatchedQueue(client)
        assert recipe.pop() is None
        recipe.push("m", 0)  # nothing notifies the sleeping consumer
        assert client.info("clients")["blocked_clients"] == 0

    # One read for the whole wait, so that only a push can end it.
    monkeypatch.setattr(runner, "block_seconds", lambda seconds, _: max(0.01, seconds))
    with server.client(socket_timeout=None) as client, ThreadPoolExecutor(3) as pool:
        buffer, queue = Buffer[int](client, "feed"), PriorityQueue(client, "index")
        other = PriorityQueue(client, "other")
        waiting: list[Any] = [
            pool.submit(buffer.reserve, timeout=30),
            pool.submit(queue.reserve, timeout=30),
            pool.submit(other.pop, timeout=30),
        ]
        while client.info("clients")["blocked_clients"] < 3:
            assert not any(each.done() for each in waiting)
        buffer.push(1, group="g")
        queue.push("m")
        other.push("n", 3)
        batch, members, item = [each.result(20) for each in waiting]
        assert batch
        assert members
        assert item
        assert (batch.group, batch.items) == ("g", [1])
        assert members.items == ["m"]
        assert (item.member, item.priority) == ("n", 3)
