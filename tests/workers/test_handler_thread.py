"""With one handler at a time its thread talks to Redis while the loop's thread sleeps; nothing else is different."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest
import redis

import redisq.blocking.worker
from redisq import Batch, PriorityQueue, Retry, Worker
from redisq.core.worker import WorkLoop
from redisq.embedded import Server

pytestmark = pytest.mark.server
TIMEOUT = 20  # seconds that a test waits for an event


@pytest.fixture
def client(server: Server) -> Iterator[redis.Redis]:
    """Return a client."""
    with server.client() as made:
        yield made


@pytest.fixture
def queue(client: redis.Redis) -> PriorityQueue[str]:
    """Return a queue of a hundred members."""
    queue: PriorityQueue[str] = PriorityQueue(client, "q", lease=30)
    queue.push_many((f"m{number:02d}", number) for number in range(100))
    return queue


def sends_of(queue: PriorityQueue[str], monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the round trips of each thread from now on."""
    counts: Counter[str] = Counter()
    send = queue.send

    def counted(*calls: Any, **options: Any) -> Any:
        counts[threading.current_thread().name] += 1
        return send(*calls, **options)

    monkeypatch.setattr(queue, "send", counted)
    return counts


@pytest.mark.parametrize("concurrency", [1, 2])
def test_whose_round_trips_they_are(
    queue: PriorityQueue[str], concurrency: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one handler most are its thread's, each with an ack and a reserve; of several all are the loop's."""
    counts, handled = sends_of(queue, monkeypatch), []
    Worker(queue, lambda batch: handled.append(batch.items[0]), concurrency=concurrency).run(burst=True)
    assert sorted(handled) == [f"m{number:02d}" for number in range(100)]
    assert queue.stats().done == 100
    if concurrency == 1:
        assert handled == sorted(handled)
        assert counts["redisq-handler-1"] > 50
        assert counts.total() <= 105
    else:
        assert set(counts) == {"redisq-worker"}


def test_a_lease_is_extended_while_a_later_handler_runs(client: redis.Redis) -> None:
    """The loop's thread went to sleep before the batch was there, and wakes up in time for it all the same."""
    queue: PriorityQueue[str] = PriorityQueue(client, "short", lease=1)
    queue.push_many([("first", 0), ("second", 1), ("third", 2)])

    def handle(batch: Batch[str]) -> None:
        if batch.items != ["first"]:
            before, until = batch.deadline, monotonic() + TIMEOUT
            while batch.deadline == before and monotonic() < until:
                time.sleep(0.01)
            assert batch.deadline > before
        if batch.items == ["third"]:
            worker.stop()

    worker = Worker(queue, handle)
    worker.run()
    stats = queue.stats()
    assert (stats.done, stats.failed) == (3, 0)


def test_a_lease_is_extended_after_a_handler_that_has_settled_its_batch(client: redis.Redis) -> None:
    """While that one runs nothing is to be extended, but the loop's thread wakes up in time for the next one."""
    queue: PriorityQueue[str] = PriorityQueue(client, "short", lease=0.9)
    queue.push_many([("first", 0), ("second", 1)])
    extended: list[bool] = []

    def handle(batch: Batch[str]) -> None:
        before = batch.deadline
        if batch.items == ["first"]:
            batch.ack()
            time.sleep(0.4)  # until its lease would be extended
        else:
            time.sleep(1.2)  # longer than its lease
            extended.append(batch.deadline > before)

    Worker(queue, handle, max_batches=2).run()
    assert extended == [True]


def test_stop_while_the_handler_thread_goes_on(queue: PriorityQueue[str]) -> None:
    """The handler's batch is done, and no other is taken."""
    handled: list[str] = []

    def handle(batch: Batch[str]) -> None:
        handled.extend(batch.items)
        if len(handled) == 50:
            worker.stop()

    worker = Worker(queue, handle)
    worker.run()
    assert len(handled) == 50
    stats = queue.stats()
    assert (stats.done, stats.leased, stats.waiting) == (50, 0, 50)


def test_an_error_of_the_loop_in_the_handler_thread_ends_the_run(
    queue: PriorityQueue[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is raised by `run`, as in the loop's thread, and what is held goes back."""
    turn = WorkLoop.turn

    def broken(self: WorkLoop[Any], now: float) -> Any:
        if threading.current_thread().name.startswith("redisq-handler"):
            raise ZeroDivisionError("a bug")
        return turn(self, now)

    monkeypatch.setattr(WorkLoop, "turn", broken)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        Worker(queue, lambda _: None).run(burst=True)
    assert queue.stats().leased == 0


def test_an_outage_met_by_the_handler_thread(queue: PriorityQueue[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop's thread is woken, waits for Redis and sends again what was not answered."""
    failed: list[str] = []
    send = queue.send

    def failing(*calls: Any, **options: Any) -> Any:
        name = threading.current_thread().name
        if name == "redisq-handler-1" and len(failed) < 3:
            failed.append(name)
            raise redis.ConnectionError("gone")
        return send(*calls, **options)

    monkeypatch.setattr(queue, "send", failing)
    monkeypatch.setattr(redisq.blocking.worker, "_MOMENT", 0)
    Worker(queue, lambda _: None).run(burst=True)
    assert len(failed) == 3
    assert queue.stats().done == 100


def test_a_hook_that_exits_in_the_handler_thread_while_the_run_ends(
    queue: PriorityQueue[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heard of after the last turn of the loop, it is raised all the same, what is held goes back, and threads end."""
    closed, put = threading.Event(), threading.Event()
    close = WorkLoop.close

    class Inbox:
        def put(self, what: Any) -> None:
            assert closed.wait(TIMEOUT)
            worker._run.inbox.put(what)
            put.set()

    def closing(self: WorkLoop[Any]) -> None:
        close(self)
        closed.set()
        assert put.wait(TIMEOUT)

    def exit_(_: Any) -> None:
        if threading.current_thread().name.startswith("redisq-handler"):
            monkeypatch.setattr(worker._run._handlers, "_inbox", Inbox())
            worker.stop()
            worker.stop()
            sys.exit("enough")

    monkeypatch.setattr(WorkLoop, "close", closing)
    before = set(threading.enumerate())
    worker: Any = Worker(queue, lambda _: None, on_ack=exit_)
    with pytest.raises(SystemExit, match="enough"):
        worker.run(burst=True)
    assert queue.stats().leased == 0
    for thread in set(threading.enumerate()) - before:
        thread.join(TIMEOUT)
        assert not thread.is_alive()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_handler_that_returns_in_a_fork_too(queue: PriorityQueue[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The child does not settle, reserve and handle beside its parent."""

    class Inbox:
        def put(self, _: object) -> None:
            os._exit(0)  # it has given its batch to a loop that is not there

    children: list[int] = []

    def handle(_: Batch[str]) -> None:
        if not children:
            children.append(os.fork())
            if not children[0]:
                monkeypatch.setattr(worker._run._handlers, "_inbox", Inbox())
                monkeypatch.setattr(queue, "send", lambda *_: os._exit(1))

    worker: Any = Worker(queue, handle)
    worker.run(burst=True)
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0
    assert queue.stats().done == 100


@pytest.mark.parametrize("concurrency", [1, 2])
def test_what_failed_before_is_not_kept(queue: PriorityQueue[str], concurrency: int) -> None:
    """A handler's error and the batch that it is about do not keep each other in memory until the next collection."""
    alive: list[int] = []
    batches: list[weakref.ref[Any]] = []

    def handle(batch: Batch[str]) -> None:
        alive.append(sum(one() is not None for one in batches))
        batches.append(weakref.ref(batch))
        raise Retry(1000)

    gc.collect()
    gc.disable()
    try:
        Worker(queue, handle, concurrency=concurrency).run(burst=True)
    finally:
        gc.enable()
    assert len(alive) == 100
    assert max(alive) <= 4


def test_what_was_handled_before_is_not_kept(queue: PriorityQueue[str]) -> None:
    """While a handler runs, the batches before it can be collected, but for those of the last turn of either thread."""
    alive: list[int] = []
    batches: list[weakref.ref[Any]] = []

    def handle(batch: Batch[str]) -> None:
        gc.collect()
        alive.append(sum(one() is not None for one in batches))
        batches.append(weakref.ref(batch))

    Worker(queue, handle).run(burst=True)
    assert max(alive) <= 3
