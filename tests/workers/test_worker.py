"""The workers on real servers: what they do with a batch, how they stop, and which failures they survive."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio

import redisq.asyncio
from redisq import BYTES, JSON, Batch, Buffer, Buried, InvalidArgument, PriorityQueue, Worker, WrongOrder, exponential
from redisq.core.batch import batch_of
from redisq.core.buffer import MAX_ITEMS
from redisq.core.calls import Call
from redisq.core.flow import block_seconds
from redisq.embedded import Server
from tests.waiting import until

pytestmark = pytest.mark.server
TIMEOUT = 20  # seconds that a test waits for an event


def short_backoff(_: int) -> float:
    return 0.01


@pytest.fixture
def client(server: Server) -> Iterator[redis.Redis]:
    with server.client() as made:
        yield made


@contextlib.contextmanager
def running(worker: Worker[Any]) -> Iterator[threading.Event]:
    """Run a worker in a thread, and stop it at the end; yield an event that is set when it is asked to stop."""
    failures: list[BaseException] = []
    stopping, stop = threading.Event(), worker.stop

    def stop_and_record() -> None:
        stop()
        stopping.set()

    worker.stop = stop_and_record  # type: ignore[method-assign]

    def run() -> None:
        try:
            worker.run()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield stopping
    finally:
        if not stopping.is_set():  # a second stop would not wait for batches in progress
            worker.stop()
        thread.join(TIMEOUT)
        assert not thread.is_alive()
    if failures:
        raise failures[0]


class HookLog:
    """What the hooks received; a test can wait for it."""

    def __init__(self) -> None:
        self.acked: list[list[Any]] = []
        self.released: list[tuple[list[Any], str | None]] = []
        self.dead: list[Buried] = []
        self._changed = threading.Condition()

    def _add(self, where: list[Any], *what: Any) -> None:
        with self._changed:
            where.extend(what)
            self._changed.notify_all()

    def hooks(self) -> dict[str, Any]:
        return {
            "on_ack": lambda batch: self._add(self.acked, list(batch.items)),
            "on_release": lambda batch, error: self._add(self.released, (list(batch.items), error and str(error))),
            "on_dead": lambda buried: self._add(self.dead, *buried),
        }

    def wait(self, acked: int = 0, released: int = 0, dead: int = 0) -> None:
        def enough() -> bool:
            return len(self.acked) >= acked and len(self.released) >= released and len(self.dead) >= dead

        with self._changed:
            assert self._changed.wait_for(enough, TIMEOUT), (self.acked, self.released, self.dead)


def test_batches_are_acked_when_the_handler_returns(client: redis.Redis) -> None:
    """Several batches at a time, each acked once; a later push wakes the worker."""
    buffer: Buffer[int] = Buffer(client, "q")
    log = HookLog()
    with running(Worker(buffer, lambda batch: None, size=10, concurrency=3, **log.hooks())):  # noqa: ARG005
        buffer.push(*range(30), group="a")
        log.wait(acked=3)
        buffer.push(99, group="b")
        log.wait(acked=4)
    assert sorted(item for batch in log.acked for item in batch) == [*range(30), 99]
    assert buffer.stats().leased == buffer.stats().waiting == 0
    assert buffer.audit().ok


def test_a_failed_batch_is_released_with_backoff_and_finally_buried(client: redis.Redis) -> None:
    """Each failure counts; the last one makes the batch a dead letter, and calls the hook."""
    buffer: Buffer[str] = Buffer(client, "q", max_attempts=3)
    queue: PriorityQueue[str] = PriorityQueue(client, "p", max_attempts=2)
    seen: list[int] = []

    def fail(batch: Batch[str]) -> None:
        seen.append(batch.attempts)
        raise ValueError(f"attempt {batch.attempts}")

    log = HookLog()
    with running(Worker(buffer, fail, backoff=short_backoff, **log.hooks())):
        buffer.push("x", group="g")
        log.wait(released=3, dead=1)
    assert seen == [1, 2, 3]
    assert [error for _, error in log.released] == ["attempt 1", "attempt 2", "attempt 3"]
    assert [(one.group, one.attempts, one.reason) for one in log.dead] == [("g", 3, "ValueError: attempt 3")]
    assert [(batch.items, batch.reason) for batch in buffer.dead()] == [(["x"], "ValueError: attempt 3")]

    log = HookLog()
    with running(Worker(queue, fail, backoff=short_backoff, **log.hooks())):
        queue.push("m", 5)
        log.wait(released=2, dead=1)
    assert log.dead == [Buried("m")]
    assert [(item.member, item.reason) for item in queue.dead()] == [("m", "ValueError: attempt 2")]


@pytest.mark.parametrize("kind", [Buffer, PriorityQueue])
def test_the_last_attempt_is_buried_without_backoff(client: redis.Redis, kind: Any) -> None:
    """It is released without delay, and the next reserve buries it."""
    queue = kind(client, "q", max_attempts=1)
    log = HookLog()

    def fail(batch: Batch[str]) -> None:  # noqa: ARG001
        raise ValueError("poison")

    with running(Worker(queue, fail, backoff=lambda _: 3600, **log.hooks())):
        queue.push("x")
        log.wait(released=1, dead=1)
    assert queue.stats().dead == 1


def test_the_backoff_applies_if_one_member_has_attempts_left(client: redis.Redis) -> None:
    """Attempts are counted for each member."""
    queue: PriorityQueue[str] = PriorityQueue(client, "q", max_attempts=2)
    queue.push("old")
    batch = queue.reserve()
    assert batch
    batch.release()
    queue.push("new")
    log = HookLog()

    def fail(batch: Batch[str]) -> None:
        assert sorted(batch.items) == ["new", "old"]
        raise ValueError("both")

    with running(Worker(queue, fail, size=2, backoff=lambda _: 3600, **log.hooks())):
        log.wait(released=1)
    assert [(item.member, item.attempts, item.reason) for item in queue.delayed()] == [
        ("new", 1, "ValueError: both"),
        ("old", 2, "ValueError: both"),
    ]
    assert queue.stats().due == 0


@pytest.mark.parametrize("kind", [Buffer, PriorityQueue])
def test_failed_items_come_back_and_the_others_are_done(client: redis.Redis, kind: Any) -> None:
    """With Batch.fail."""
    queue = kind(client, "q")
    if kind is Buffer:
        queue.push("a", "b", "c")
    else:
        queue.push_many([("a", 0), ("b", 0), ("c", 0)])
    log, batches = HookLog(), []

    def handle(batch: Batch[str]) -> None:
        batches.append((list(batch.items), batch.attempts))
        if batch.attempts == 1:
            batch.fail("b")

    with running(Worker(queue, handle, size=3, backoff=short_backoff, **log.hooks())):
        log.wait(acked=2)
    stats = queue.stats()
    assert (stats.done, stats.failed) == (3, 1)
    assert batches == [(["a", "b", "c"], 1), (["b"], 2)]


def test_a_handler_may_settle_the_batch_itself(client: redis.Redis) -> None:
    """The worker does not settle it again, even if the handler fails afterwards."""
    buffer: Buffer[int] = Buffer(client, "q")
    done = threading.Event()
    log = HookLog()

    def handle(batch: Batch[int]) -> None:
        batch.ack()
        done.set()
        raise ValueError("too late to matter")

    with running(Worker(buffer, handle, **log.hooks())):
        buffer.push(1)
        assert done.wait(TIMEOUT)
    assert not log.acked
    assert not log.released
    assert buffer.stats().delayed == buffer.stats().leased == 0


@pytest.mark.parametrize("kind", [Buffer, PriorityQueue])
def test_the_lease_is_extended_while_the_handler_runs(client: redis.Redis, kind: Any) -> None:
    """The handler runs past its first deadline, and no other client gets the batch."""
    queue = kind(client, "q", lease=1)
    log = HookLog()

    def handle(batch: Batch[str]) -> None:
        first = batch.deadline
        for _ in range(TIMEOUT * 100):
            seconds, micros = client.time()
            if seconds + micros / 1e6 > first + 0.1:
                break
            threading.Event().wait(0.01)
        assert queue.reserve() is None

    with running(Worker(queue, handle, **log.hooks())):
        queue.push("x")
        log.wait(acked=1)
    assert not log.released


def test_a_lost_lease_is_logged_and_nothing_is_acked(client: redis.Redis, caplog: pytest.LogCaptureFixture) -> None:
    """The batch was handed out again, so the end of the first handler changes nothing."""
    buffer: Buffer[str] = Buffer(client, "q")
    other: list[Batch[str] | None] = []

    def handle(batch: Batch[str]) -> None:
        client.zadd("redisq:{q}:leases", {batch.id: 1})  # its deadline is long past
        other.append(buffer.reserve())

    log = HookLog()
    worker = Worker(buffer, handle, **log.hooks())
    with running(worker):
        buffer.push("x")
        until(lambda: "lost" in caplog.text)
    assert not log.acked
    assert "lost" in caplog.text
    assert other[0]
    assert other[0].ack() == 1


def test_stop_waits_for_the_running_handler(client: redis.Redis) -> None:
    """No new batch begins, and the current one is finished and acked."""
    buffer: Buffer[str] = Buffer(client, "q")
    buffer.push("a", group="a")
    buffer.push("b", group="b")
    log = HookLog()
    worker: Worker[str] = Worker(buffer, lambda _: worker.stop(), **log.hooks())
    with running(worker):
        log.wait(acked=1)
    assert log.acked == [["b"]]
    assert buffer.groups() == {"a": 1}


def test_the_batch_is_released_after_the_grace(client: redis.Redis) -> None:
    """A handler that does not end loses its batch at once, not when the lease expires, and acks nothing later."""
    buffer: Buffer[str] = Buffer(client, "q")
    began, end = threading.Event(), threading.Event()

    def handle(batch: Batch[str]) -> None:  # noqa: ARG001
        began.set()
        end.wait(TIMEOUT)

    with running(Worker(buffer, handle, grace=0.05)):
        buffer.push("x")
        assert began.wait(TIMEOUT)
    batch = buffer.reserve(timeout=TIMEOUT)
    end.set()
    assert batch
    assert batch.attempts == 2
    assert batch.ack() == 1


def test_an_ordered_group_is_processed_in_order(client: redis.Redis) -> None:
    """With many handlers, some of which fail at first."""
    buffer: Buffer[int] = Buffer(client, "q", ordered=True)
    for group in "abc":
        buffer.push(*range(20), group=group)
    done: dict[str, list[int]] = {group: [] for group in "abc"}
    failed: set[tuple[str, int]] = set()
    log = HookLog()

    def handle(batch: Batch[int]) -> None:
        for place, item in enumerate(batch.items):
            one = (str(batch.group), item)
            if item % 7 == 3 and one not in failed:
                failed.add(one)
                batch.fail_at(*range(place, len(batch.items)))  # the one that fails first, and those after it
                return
            done[str(batch.group)].append(item)

    with running(Worker(buffer, handle, size=4, concurrency=6, backoff=short_backoff, **log.hooks())):
        while buffer.stats().done < 60:
            threading.Event().wait(0.01)
    assert done == {group: list(range(20)) for group in "abc"}


def test_a_batch_that_no_handler_saw_is_released_without_an_attempt(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker is stopped between the reserve and the handler."""
    buffer: Buffer[str] = Buffer(client, "q")
    worker: Worker[str] = Worker(buffer, lambda _: pytest.fail("nobody may begin"))
    send = buffer.send

    def send_and_stop(*calls: Call[Any]) -> list[Any]:
        results = send(*calls)
        if any(isinstance(result, list) and batch_of(result) for result in results):
            worker.stop()
        return results

    monkeypatch.setattr(buffer, "send", send_and_stop)
    buffer.push("x")
    with running(worker) as stopping:
        assert stopping.wait(TIMEOUT)
    monkeypatch.undo()
    batch = buffer.reserve()
    assert batch
    assert batch.attempts == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_worker_and_a_second_one_ends_the_grace(
    client: redis.Redis, number: signal.Signals, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In the main thread. The previous signal handlers are restored afterwards."""
    buffer: Buffer[str] = Buffer(client, "q")
    buffer.push("x")
    end = threading.Event()

    def handle(batch: Batch[str]) -> None:  # noqa: ARG001
        os.kill(os.getpid(), number)
        until(lambda: "stopping" in caplog.text)
        os.kill(os.getpid(), number)
        end.wait(TIMEOUT)

    monkeypatch.setattr(redisq.core.worker, "SAME_SIGNAL", 0)
    caplog.set_level("INFO", "redisq.worker")

    before = signal.getsignal(number)
    worker = Worker(buffer, handle, grace=3600)
    worker.run()
    end.set()
    assert signal.getsignal(number) is before
    assert buffer.stats().delayed == 1


def test_a_failing_hook_is_logged(client: redis.Redis, caplog: pytest.LogCaptureFixture) -> None:
    """The worker goes on."""
    buffer: Buffer[int] = Buffer(client, "q")
    log = HookLog()

    def on_ack(batch: Batch[int]) -> None:
        log.hooks()["on_ack"](batch)
        raise ValueError("a hook")

    with running(Worker(buffer, lambda _: None, on_ack=on_ack)):
        buffer.push(1)
        log.wait(acked=1)
        buffer.push(2)
        log.wait(acked=2)
    assert "a hook" in caplog.text


def test_an_error_that_retrying_cannot_fix_is_raised(client: redis.Redis) -> None:
    """With a queue of the other order, run() raises instead of retrying forever."""
    PriorityQueue(client, "q").push("a")
    with pytest.raises(WrongOrder):
        Worker(PriorityQueue(client, "q", order="score"), lambda _: None).run()


def test_free_places_are_filled_in_one_round_trip(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the batches cannot be decoded, which does not affect the others."""
    queue: PriorityQueue[int] = PriorityQueue(client, "q", codec=JSON)
    queue.push_many({number: number for number in range(100)})
    PriorityQueue(client, "q", codec=BYTES).push(b"{", 50)
    handled: list[int] = []
    taken: list[int] = []
    send = queue.send

    def listen(*calls: Call[Any]) -> list[Any]:
        results = send(*calls)
        taken.append(sum(isinstance(result, list) for result in results))
        return results

    monkeypatch.setattr(queue, "send", listen)

    def handle(batch: Batch[int]) -> None:
        handled.append(batch.items[0])
        if len(handled) == 100:
            worker.stop()

    worker = Worker(queue, handle, concurrency=10, backoff=short_backoff)
    with running(worker) as stopping:
        assert stopping.wait(TIMEOUT)
    assert sorted(handled) == [*range(100)]
    assert max(taken) > 1


def test_a_batch_that_cannot_be_decoded_is_released_and_finally_buried(client: redis.Redis) -> None:
    """It neither stops the worker nor is lost."""
    Buffer(client, "q", codec=BYTES).push(b"\xff", group="bad")
    buffer: Buffer[Any] = Buffer(client, "q", max_attempts=2)
    log = HookLog()
    with running(Worker(buffer, lambda _: None, backoff=short_backoff, **log.hooks())):
        log.wait(released=2, dead=1)
        buffer.push("good", group="good")
        log.wait(acked=1)
    assert [batch.items for batch in Buffer(client, "q", codec=BYTES).dead()] == [[b"\xff"]]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def test_redis_is_killed_and_restarted(binary: Path, tmp_path: Path) -> None:
    """It is killed while a handler runs and restarted with its AOF, and the worker goes on."""
    port = free_port()
    options = ("--port", str(port), "--bind", "127.0.0.1", "--appendonly", "yes", "--appendfsync", "always")
    log = HookLog()
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(redis.Redis(port=port))
        first = Server(binary, *options, directory=tmp_path).__enter__()
        stack.callback(lambda: first.stop())
        buffer: Buffer[int] = Buffer(client, "q")

        def handle(batch: Batch[int]) -> None:
            if batch.items == [1]:
                first.stop()

        stack.enter_context(running(Worker(buffer, handle, **log.hooks())))
        buffer.push(1)
        while first._watchdog.poll() is None:
            threading.Event().wait(0.01)
        second = stack.enter_context(Server(binary, *options, directory=tmp_path))
        with second.client() as other:
            Buffer(other, "q").push(2)
        log.wait(acked=2)
        assert log.acked == [[1], [2]]


@pytest.mark.parametrize(
    "settings",
    [{"size": 0}, {"size": MAX_ITEMS + 1}, {"concurrency": 0}, {"grace": -1}, {"backoff": 5}, {"on_ack": "x"}],
    ids=str,
)
def test_invalid_settings_are_refused(client: redis.Redis, settings: dict[str, Any]) -> None:
    """Before the worker runs, with the name of the setting."""
    with pytest.raises(InvalidArgument, match=str(next(iter(settings.values())))):
        Worker(Buffer(client, "q"), lambda _: None, **settings)


def test_the_default_backoff() -> None:
    """Doubled each time, with jitter in the upper half, up to a maximum."""
    backoff = exponential(first=1, most=100)
    for attempts, whole in [(1, 1), (2, 2), (3, 4), (7, 64), (8, 100), (10_000, 100)]:
        assert all(whole / 2 <= backoff(attempts) <= whole for _ in range(100))


def test_an_idle_worker_sends_less_than_one_command_a_second(client: redis.Redis) -> None:
    """Counted by the server over some seconds without a push."""
    began = threading.Event()
    with running(Worker(Buffer(client, "q"), lambda _: began.set())):
        Buffer(client, "q").push(1)
        assert began.wait(TIMEOUT)
        counted = {"evalsha", "eval", "blpop"}

        def commands() -> int:
            stats: Any = client.info("commandstats")
            return sum(stats[f"cmdstat_{name}"]["calls"] for name in counted if f"cmdstat_{name}" in stats)

        threading.Event().wait(0.5)
        before = commands()
        threading.Event().wait(6)
        assert commands() - before <= 6


async def test_the_asyncio_worker_does_the_same(server: Server) -> None:
    """It acks, releases with backoff, extends leases, releases after the grace and buries."""
    async with redis.asyncio.Redis(unix_socket_path=server.socket) as client:
        buffer: redisq.asyncio.Buffer[str] = redisq.asyncio.Buffer(client, "q", lease=1, max_attempts=2)
        log = HookLog()
        kept = asyncio.Event()

        async def handle(batch: redisq.asyncio.Batch[str]) -> None:
            if batch.items == ["bad"]:
                raise ValueError("bad")
            if batch.items == ["slow"]:
                first = batch.deadline
                while batch.deadline < first + 0.2:
                    await asyncio.sleep(0.01)
                assert await buffer.reserve() is None
                kept.set()
            if batch.group == "parts" and batch.attempts == 1:
                batch.fail("b")

        worker = redisq.asyncio.Worker(buffer, handle, concurrency=3, backoff=short_backoff, **log.hooks())
        task = asyncio.create_task(worker.run())
        await buffer.push("slow", group="slow")
        await asyncio.wait_for(kept.wait(), TIMEOUT)
        await buffer.push("bad", group="bad")
        await buffer.push("a", "b", group="parts")
        await asyncio.to_thread(log.wait, acked=3, released=2, dead=1)
        worker.stop()
        await asyncio.wait_for(task, TIMEOUT)
        assert log.acked[0] == ["slow"]
        assert log.acked[1:] == [["a", "b"], ["b"]]
        assert [batch.items for batch in await buffer.dead()] == [["bad"]]
        assert (await buffer.audit()).ok


@pytest.mark.parametrize("who", ["its caller", "all tasks"])
async def test_the_asyncio_worker_releases_a_batch_that_no_handler_saw_without_an_attempt(
    server: Server, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    """The task is cancelled between the reserve and the handler's first step."""
    async with redis.asyncio.Redis(unix_socket_path=server.socket) as client:
        buffer: redisq.asyncio.Buffer[str] = redisq.asyncio.Buffer(client, "q")

        async def handle(batch: redisq.asyncio.Batch[str]) -> None:  # noqa: ARG001
            pytest.fail("nobody may begin")

        worker = redisq.asyncio.Worker(buffer, handle)
        send, before = buffer.send, asyncio.all_tasks()

        def cancel_all() -> None:
            for task in asyncio.all_tasks() - before:
                task.cancel()

        async def send_and_cancel(*calls: Call[Any]) -> list[Any]:
            results = await send(*calls)
            if any(isinstance(result, list) and batch_of(result) for result in results):
                if who == "its caller":
                    task.cancel()
                    await asyncio.sleep(0)  # CancelledError is raised in the caller
                else:
                    asyncio.get_running_loop().call_soon(cancel_all)  # before the first step of the next task
            return results

        monkeypatch.setattr(buffer, "send", send_and_cancel)
        await buffer.push("x")
        task = asyncio.create_task(worker.run())
        with contextlib.suppress(asyncio.CancelledError):
            await task
        batch = await buffer.reserve()
        assert batch
        assert batch.attempts == 1


@pytest.mark.parametrize("way", ["grace", "second stop", "cancelled"])
async def test_the_asyncio_worker_cancels_a_handler_that_does_not_end(server: Server, way: str) -> None:
    """After the grace, at a second stop, or when run() is cancelled; the batch is released."""
    async with redis.asyncio.Redis(unix_socket_path=server.socket) as client:
        buffer: redisq.asyncio.Buffer[str] = redisq.asyncio.Buffer(client, "q")
        began = asyncio.Event()

        async def handle(batch: redisq.asyncio.Batch[str]) -> None:  # noqa: ARG001
            began.set()
            await asyncio.Event().wait()

        worker = redisq.asyncio.Worker(buffer, handle, grace=0.05 if way == "grace" else 3600)
        task = asyncio.create_task(worker.run())
        await buffer.push("x")
        await asyncio.wait_for(began.wait(), TIMEOUT)
        if way == "cancelled":
            task.cancel()
        else:
            worker.stop()
        if way == "second stop":
            worker.stop()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait_for(task, TIMEOUT)
        batch = await buffer.reserve()
        assert batch
        assert batch.attempts == 2


async def test_the_asyncio_worker_stops_on_sigterm(server: Server) -> None:
    """In the main thread. The previous signal handler is restored afterwards."""
    async with redis.asyncio.Redis(unix_socket_path=server.socket) as client:
        before = signal.getsignal(signal.SIGTERM)
        queue = redisq.asyncio.PriorityQueue(client, "q")

        async def handle(batch: redisq.asyncio.Batch[str]) -> None:  # noqa: ARG001
            os.kill(os.getpid(), signal.SIGTERM)

        await queue.push("x")
        await asyncio.wait_for(redisq.asyncio.Worker(queue, handle).run(), TIMEOUT)
        assert (await queue.stats()).leased == 0
        assert signal.getsignal(signal.SIGTERM) is before


async def test_the_asyncio_worker_raises_an_error_that_retrying_cannot_fix(server: Server) -> None:
    """Like the blocking one."""
    async with redis.asyncio.Redis(unix_socket_path=server.socket) as client:
        await redisq.asyncio.PriorityQueue(client, "q").push("a")
        queue = redisq.asyncio.PriorityQueue(client, "q", order="score")

        async def handle(batch: redisq.asyncio.Batch[str]) -> None:
            pass

        with pytest.raises(WrongOrder):
            await redisq.asyncio.Worker(queue, handle).run()


def test_the_shortest_wait_is_not_forever(server: Server) -> None:
    """Redis 6.2 reads BLPOP's 0.001 as 0, which blocks forever; the shortest wait of redisq ends on every server."""
    with server.client() as client:
        client.execute_command("BLPOP", "nobody-pushes-here", f"{block_seconds(0.0, None):.3f}")


@pytest.mark.parametrize("steps", range(24))
async def test_the_asyncio_worker_ends_when_its_last_handler_stops_it(server: Server, steps: int) -> None:
    """The handler may end before the worker begins to wait for it."""
    async with redis.asyncio.Redis(unix_socket_path=server.socket) as client:
        await client.flushall()
        buffer: redisq.asyncio.Buffer[str] = redisq.asyncio.Buffer(client, "q")
        await buffer.push("x")

        async def handle(batch: redisq.asyncio.Batch[str]) -> None:
            await batch.ack()
            worker.stop()
            for _ in range(steps):  # turns of the event loop: one of them is between the worker's check and its wait
                await asyncio.sleep(0)

        worker = redisq.asyncio.Worker(buffer, handle)
        await worker.run()
