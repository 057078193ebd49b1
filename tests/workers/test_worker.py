"""The workers: what they do with a batch, how they end, and what they survive. On real servers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
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

pytestmark = pytest.mark.server
PATIENCE = 20  # seconds before a test gives an event up


def soon(_: int) -> float:
    return 0.01


@pytest.fixture
def client(server: Server) -> Iterator[redis.Redis]:
    with server.client() as made:
        yield made


@contextlib.contextmanager
def running(worker: Worker[Any]) -> Iterator[threading.Event]:
    """Run a worker in a thread, and stop it at the end; gives an event that is set when it is asked to stop."""
    failures: list[BaseException] = []
    stopping, stop = threading.Event(), worker.stop

    def stop_and_tell() -> None:
        stop()
        stopping.set()

    worker.stop = stop_and_tell  # type: ignore[method-assign]

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
        thread.join(PATIENCE)
        assert not thread.is_alive()
    if failures:
        raise failures[0]


def until(condition: Callable[[], bool]) -> None:
    """Wait for what nothing tells of."""
    end = monotonic() + PATIENCE
    while not condition():
        assert monotonic() < end
        threading.Event().wait(0.01)


class Ledger:
    """What the hooks tell; a test can wait until there is enough of it."""

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
            assert self._changed.wait_for(enough, PATIENCE), (self.acked, self.released, self.dead)


def test_it_acks_what_the_handler_returns_from(client: redis.Redis) -> None:
    """Several batches at a time, each acked once, and woken by a push that comes later."""
    buffer: Buffer[int] = Buffer(client, "q")
    ledger = Ledger()
    with running(Worker(buffer, lambda batch: None, size=10, concurrency=3, **ledger.hooks())):  # noqa: ARG005
        buffer.push(*range(30), group="a")
        ledger.wait(acked=3)
        buffer.push(99, group="b")
        ledger.wait(acked=4)
    assert sorted(item for batch in ledger.acked for item in batch) == [*range(30), 99]
    assert buffer.stats().leased == buffer.stats().waiting == 0
    assert buffer.audit().ok


def test_a_failure_is_released_with_backoff_and_buried_at_last(client: redis.Redis) -> None:
    """Each failure counts; the last one makes a dead letter, of which the hook hears."""
    buffer: Buffer[str] = Buffer(client, "q", max_attempts=3)
    queue: PriorityQueue[str] = PriorityQueue(client, "p", max_attempts=2)
    seen: list[int] = []

    def fail(batch: Batch[str]) -> None:
        seen.append(batch.attempts)
        raise ValueError(f"attempt {batch.attempts}")

    ledger = Ledger()
    with running(Worker(buffer, fail, backoff=soon, **ledger.hooks())):
        buffer.push("x", group="g")
        ledger.wait(released=3, dead=1)
    assert seen == [1, 2, 3]
    assert [error for _, error in ledger.released] == ["attempt 1", "attempt 2", "attempt 3"]
    assert [(one.group, one.attempts, one.reason) for one in ledger.dead] == [("g", 3, "ValueError: attempt 3")]
    assert [(batch.items, batch.reason) for batch in buffer.dead()] == [(["x"], "ValueError: attempt 3")]

    ledger = Ledger()
    with running(Worker(queue, fail, backoff=soon, **ledger.hooks())):
        queue.push("m", 5)
        ledger.wait(released=2, dead=1)
    assert ledger.dead == [Buried("m")]
    assert [(item.member, item.reason) for item in queue.dead()] == [("m", "ValueError: attempt 2")]


@pytest.mark.parametrize("kind", [Buffer, PriorityQueue])
def test_a_death_does_not_wait_for_a_backoff(client: redis.Redis, kind: Any) -> None:
    """What failed for the last time is released without delay, and the next reserve buries it."""
    queue = kind(client, "q", max_attempts=1)
    ledger = Ledger()

    def fail(batch: Batch[str]) -> None:  # noqa: ARG001
        raise ValueError("poison")

    with running(Worker(queue, fail, backoff=lambda _: 3600, **ledger.hooks())):
        queue.push("x")
        ledger.wait(released=1, dead=1)
    assert queue.stats().dead == 1


def test_a_batch_of_members_of_which_some_may_be_tried_again_waits(client: redis.Redis) -> None:
    """Attempts are counted for each member: those that have some left get the backoff."""
    queue: PriorityQueue[str] = PriorityQueue(client, "q", max_attempts=2)
    queue.push("old")
    batch = queue.reserve()
    assert batch
    batch.release()
    queue.push("new")
    ledger = Ledger()

    def fail(batch: Batch[str]) -> None:
        assert sorted(batch.items) == ["new", "old"]
        raise ValueError("both")

    with running(Worker(queue, fail, size=2, backoff=lambda _: 3600, **ledger.hooks())):
        ledger.wait(released=1)
    assert [(item.member, item.attempts, item.reason) for item in queue.delayed()] == [
        ("new", 1, "ValueError: both"),
        ("old", 2, "ValueError: both"),
    ]
    assert queue.stats().due == 0


@pytest.mark.parametrize("kind", [Buffer, PriorityQueue])
def test_items_that_fail_come_back_and_the_others_are_done(client: redis.Redis, kind: Any) -> None:
    """Batch.fail: only the marked one comes back."""
    queue = kind(client, "q")
    if kind is Buffer:
        queue.push("a", "b", "c")
    else:
        queue.push_many([("a", 0), ("b", 0), ("c", 0)])
    ledger, batches = Ledger(), []

    def handle(batch: Batch[str]) -> None:
        batches.append((list(batch.items), batch.attempts))
        if batch.attempts == 1:
            batch.fail("b")

    with running(Worker(queue, handle, size=3, backoff=soon, **ledger.hooks())):
        ledger.wait(acked=2)
    stats = queue.stats()
    assert (stats.done, stats.failed) == (3, 1)
    assert batches == [(["a", "b", "c"], 1), (["b"], 2)]


def test_a_handler_may_settle_the_batch_itself(client: redis.Redis) -> None:
    """What it settled is left alone, also when it fails afterwards."""
    buffer: Buffer[int] = Buffer(client, "q")
    done = threading.Event()
    ledger = Ledger()

    def handle(batch: Batch[int]) -> None:
        batch.ack()
        done.set()
        raise ValueError("too late to matter")

    with running(Worker(buffer, handle, **ledger.hooks())):
        buffer.push(1)
        assert done.wait(PATIENCE)
    assert not ledger.acked
    assert not ledger.released
    assert buffer.stats().delayed == buffer.stats().leased == 0


@pytest.mark.parametrize("kind", [Buffer, PriorityQueue])
def test_the_lease_is_kept_while_the_handler_runs(client: redis.Redis, kind: Any) -> None:
    """The handler outlives its first deadline; nobody else gets the batch."""
    queue = kind(client, "q", lease=1)
    ledger = Ledger()

    def handle(batch: Batch[str]) -> None:
        first = batch.deadline
        for _ in range(PATIENCE * 100):
            seconds, micros = client.time()
            if seconds + micros / 1e6 > first + 0.1:
                break
            threading.Event().wait(0.01)
        assert queue.reserve() is None

    with running(Worker(queue, handle, **ledger.hooks())):
        queue.push("x")
        ledger.wait(acked=1)
    assert not ledger.released


def test_a_lease_that_is_lost_is_logged_and_nothing_is_acked(
    client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """Its batch was handed to another: the handler's end changes nothing."""
    buffer: Buffer[str] = Buffer(client, "q")
    other: list[Batch[str] | None] = []

    def handle(batch: Batch[str]) -> None:
        client.zadd("redisq:{q}:leases", {batch.id: 1})  # its deadline is long past
        other.append(buffer.reserve())

    ledger = Ledger()
    worker = Worker(buffer, handle, **ledger.hooks())
    with running(worker):
        buffer.push("x")
        until(lambda: "lost" in caplog.text)
    assert not ledger.acked
    assert "lost" in caplog.text
    assert other[0]
    assert other[0].ack() == 1


def test_stop_waits_for_the_handler_that_runs(client: redis.Redis) -> None:
    """No new batch, and the running one is finished and acked."""
    buffer: Buffer[str] = Buffer(client, "q")
    buffer.push("a", group="a")
    buffer.push("b", group="b")
    ledger = Ledger()
    worker: Worker[str] = Worker(buffer, lambda _: worker.stop(), **ledger.hooks())
    with running(worker):
        ledger.wait(acked=1)
    assert ledger.acked == [["b"]]
    assert buffer.groups() == {"a": 1}


def test_after_the_grace_the_batch_is_given_back(client: redis.Redis) -> None:
    """The handler that does not end loses its batch at once, not when the lease runs out, and acks nothing later."""
    buffer: Buffer[str] = Buffer(client, "q")
    began, end = threading.Event(), threading.Event()

    def handle(batch: Batch[str]) -> None:  # noqa: ARG001
        began.set()
        end.wait(PATIENCE)

    with running(Worker(buffer, handle, grace=0.05)):
        buffer.push("x")
        assert began.wait(PATIENCE)
    batch = buffer.reserve(timeout=PATIENCE)
    end.set()
    assert batch
    assert batch.attempts == 2
    assert batch.ack() == 1


def test_an_ordered_group_is_worked_off_in_order(client: redis.Redis) -> None:
    """By many handlers at once, of which some fail at first."""
    buffer: Buffer[int] = Buffer(client, "q", ordered=True)
    for group in "abc":
        buffer.push(*range(20), group=group)
    done: dict[str, list[int]] = {group: [] for group in "abc"}
    failed: set[tuple[str, int]] = set()
    ledger = Ledger()

    def handle(batch: Batch[int]) -> None:
        for place, item in enumerate(batch.items):
            one = (str(batch.group), item)
            if item % 7 == 3 and one not in failed:
                failed.add(one)
                batch.fail_at(*range(place, len(batch.items)))  # the first that fails, and the rest
                return
            done[str(batch.group)].append(item)

    with running(Worker(buffer, handle, size=4, concurrency=6, backoff=soon, **ledger.hooks())):
        while buffer.stats().done < 60:
            threading.Event().wait(0.01)
    assert done == {group: list(range(20)) for group in "abc"}


def test_what_nobody_began_on_is_given_back_uncounted(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped between the reserve and the handler: the hand-over does not count."""
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
        assert stopping.wait(PATIENCE)
    monkeypatch.undo()
    batch = buffer.reserve()
    assert batch
    assert batch.attempts == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_and_a_second_one_ends_it_now(
    client: redis.Redis, number: signal.Signals, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In the main thread: one signal stops, a second does not wait for the handler; the handlers of before are back."""
    buffer: Buffer[str] = Buffer(client, "q")
    buffer.push("x")
    end = threading.Event()

    def handle(batch: Batch[str]) -> None:  # noqa: ARG001
        os.kill(os.getpid(), number)
        until(lambda: "stopping" in caplog.text)
        os.kill(os.getpid(), number)
        end.wait(PATIENCE)

    monkeypatch.setattr(redisq.core.worker, "SAME_SIGNAL", 0)
    caplog.set_level("INFO", "redisq.worker")

    before = signal.getsignal(number)
    worker = Worker(buffer, handle, grace=3600)
    worker.run()
    end.set()
    assert signal.getsignal(number) is before
    assert buffer.stats().delayed == 1


def test_a_hook_that_fails_changes_nothing(client: redis.Redis, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the worker goes on."""
    buffer: Buffer[int] = Buffer(client, "q")
    ledger = Ledger()

    def on_ack(batch: Batch[int]) -> None:
        ledger.hooks()["on_ack"](batch)
        raise ValueError("a hook")

    with running(Worker(buffer, lambda _: None, on_ack=on_ack)):
        buffer.push(1)
        ledger.wait(acked=1)
        buffer.push(2)
        ledger.wait(acked=2)
    assert "a hook" in caplog.text


def test_what_makes_work_impossible_is_raised(client: redis.Redis) -> None:
    """A queue of the other order: run() raises instead of trying for ever."""
    PriorityQueue(client, "q").push("a")
    with pytest.raises(WrongOrder):
        Worker(PriorityQueue(client, "q", order="score"), lambda _: None).run()


def test_idle_handlers_are_fed_in_one_round_trip(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """With many batches waiting, several are asked for at once; one that cannot be decoded costs no other."""
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

    worker = Worker(queue, handle, concurrency=10, backoff=soon)
    with running(worker) as stopping:
        assert stopping.wait(PATIENCE)
    assert sorted(handled) == [*range(100)]
    assert max(taken) > 1


def test_a_batch_that_cannot_be_decoded_is_given_back_and_dies(client: redis.Redis) -> None:
    """It must not stop the worker, nor be lost."""
    Buffer(client, "q", codec=BYTES).push(b"\xff", group="bad")
    buffer: Buffer[Any] = Buffer(client, "q", max_attempts=2)
    ledger = Ledger()
    with running(Worker(buffer, lambda _: None, backoff=soon, **ledger.hooks())):
        ledger.wait(released=2, dead=1)
        buffer.push("good", group="good")
        ledger.wait(acked=1)
    assert [batch.items for batch in Buffer(client, "q", codec=BYTES).dead()] == [[b"\xff"]]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def test_redis_gone_and_back(binary: Path, tmp_path: Path) -> None:
    """The server ends in the middle of a handler, comes back with what its AOF has, and the worker goes on."""
    port = free_port()
    options = ("--port", str(port), "--bind", "127.0.0.1", "--appendonly", "yes", "--appendfsync", "always")
    ledger = Ledger()
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(redis.Redis(port=port))
        first = Server(binary, *options, directory=tmp_path).__enter__()
        stack.callback(lambda: first.stop())
        buffer: Buffer[int] = Buffer(client, "q")

        def handle(batch: Batch[int]) -> None:
            if batch.items == [1]:
                first.stop()

        stack.enter_context(running(Worker(buffer, handle, **ledger.hooks())))
        buffer.push(1)
        while first._watchdog.poll() is None:
            threading.Event().wait(0.01)
        second = stack.enter_context(Server(binary, *options, directory=tmp_path))
        with second.client() as other:
            Buffer(other, "q").push(2)
        ledger.wait(acked=2)
        assert ledger.acked == [[1], [2]]


@pytest.mark.parametrize(
    "settings",
    [{"size": 0}, {"size": MAX_ITEMS + 1}, {"concurrency": 0}, {"grace": -1}, {"backoff": 5}, {"on_ack": "x"}],
    ids=str,
)
def test_settings_that_cannot_be_used_are_refused(client: redis.Redis, settings: dict[str, Any]) -> None:
    """Before it runs, by value."""
    with pytest.raises(InvalidArgument, match=str(next(iter(settings.values())))):
        Worker(Buffer(client, "q"), lambda _: None, **settings)


def test_the_default_backoff_grows_and_stays_bounded() -> None:
    """Twice as long each time, drawn from its upper half, and never above the most."""
    backoff = exponential(first=1, most=100)
    for attempts, whole in [(1, 1), (2, 2), (3, 4), (7, 64), (8, 100), (10_000, 100)]:
        assert all(whole / 2 <= backoff(attempts) <= whole for _ in range(100))


def test_idle_it_sends_less_than_one_command_a_second(client: redis.Redis) -> None:
    """Counted by the server over some seconds in which nothing comes."""
    began = threading.Event()
    with running(Worker(Buffer(client, "q"), lambda _: began.set())):
        Buffer(client, "q").push(1)
        assert began.wait(PATIENCE)
        counted = {"evalsha", "eval", "blpop"}

        def commands() -> int:
            stats: Any = client.info("commandstats")
            return sum(stats[f"cmdstat_{name}"]["calls"] for name in counted if f"cmdstat_{name}" in stats)

        threading.Event().wait(0.5)
        before = commands()
        threading.Event().wait(6)
        assert commands() - before <= 6


async def test_the_asyncio_worker_does_the_same(server: Server) -> None:
    """Acks, releases with backoff, keeps leases, gives back, buries: with tasks."""
    async with redis.asyncio.Redis(unix_socket_path=server.socket) as client:
        buffer: redisq.asyncio.Buffer[str] = redisq.asyncio.Buffer(client, "q", lease=1, max_attempts=2)
        ledger = Ledger()
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

        worker = redisq.asyncio.Worker(buffer, handle, concurrency=3, backoff=soon, **ledger.hooks())
        task = asyncio.create_task(worker.run())
        await buffer.push("slow", group="slow")
        await asyncio.wait_for(kept.wait(), PATIENCE)
        await buffer.push("bad", group="bad")
        await buffer.push("a", "b", group="parts")
        await asyncio.to_thread(ledger.wait, acked=3, released=2, dead=1)
        worker.stop()
        await asyncio.wait_for(task, PATIENCE)
        assert ledger.acked[0] == ["slow"]
        assert ledger.acked[1:] == [["a", "b"], ["b"]]
        assert [batch.items for batch in await buffer.dead()] == [["bad"]]
        assert (await buffer.audit()).ok


@pytest.mark.parametrize("who", ["its caller", "all tasks"])
async def test_the_asyncio_worker_gives_back_uncounted_what_nobody_began_on(
    server: Server, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    """Cancelled between the reserve and the handler's first step."""
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
                    await asyncio.sleep(0)  # the caller hears of it
                else:
                    asyncio.get_running_loop().call_soon(cancel_all)  # before the next task's first step
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
async def test_the_asyncio_worker_gives_back_what_does_not_end(server: Server, way: str) -> None:
    """After the grace, at a second stop, or when run() is cancelled, the handler is cancelled and its batch is back."""
    async with redis.asyncio.Redis(unix_socket_path=server.socket) as client:
        buffer: redisq.asyncio.Buffer[str] = redisq.asyncio.Buffer(client, "q")
        began = asyncio.Event()

        async def handle(batch: redisq.asyncio.Batch[str]) -> None:  # noqa: ARG001
            began.set()
            await asyncio.Event().wait()

        worker = redisq.asyncio.Worker(buffer, handle, grace=0.05 if way == "grace" else 3600)
        task = asyncio.create_task(worker.run())
        await buffer.push("x")
        await asyncio.wait_for(began.wait(), PATIENCE)
        if way == "cancelled":
            task.cancel()
        else:
            worker.stop()
        if way == "second stop":
            worker.stop()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait_for(task, PATIENCE)
        batch = await buffer.reserve()
        assert batch
        assert batch.attempts == 2


async def test_the_asyncio_worker_ends_on_sigterm(server: Server) -> None:
    """In the main thread the signal stops it, and the handler of before is back."""
    async with redis.asyncio.Redis(unix_socket_path=server.socket) as client:
        before = signal.getsignal(signal.SIGTERM)
        queue = redisq.asyncio.PriorityQueue(client, "q")

        async def handle(batch: redisq.asyncio.Batch[str]) -> None:  # noqa: ARG001
            os.kill(os.getpid(), signal.SIGTERM)

        await queue.push("x")
        await asyncio.wait_for(redisq.asyncio.Worker(queue, handle).run(), PATIENCE)
        assert (await queue.stats()).leased == 0
        assert signal.getsignal(signal.SIGTERM) is before


async def test_the_asyncio_worker_raises_what_makes_work_impossible(server: Server) -> None:
    """As the blocking one."""
    async with redis.asyncio.Redis(unix_socket_path=server.socket) as client:
        await redisq.asyncio.PriorityQueue(client, "q").push("a")
        queue = redisq.asyncio.PriorityQueue(client, "q", order="score")

        async def handle(batch: redisq.asyncio.Batch[str]) -> None:
            pass

        with pytest.raises(WrongOrder):
            await redisq.asyncio.Worker(queue, handle).run()


def test_a_wait_of_a_ms_is_not_for_ever(server: Server) -> None:
    """Redis 6.2 reads BLPOP's 0.001 as 0, which blocks for ever: the shortest wait is one that every server ends."""
    with server.client() as client:
        client.execute_command("BLPOP", "nobody-pushes-here", f"{block_seconds(0.0, None):.3f}")


@pytest.mark.parametrize("steps", range(24))
async def test_the_asyncio_worker_ends_when_its_last_handler_ends_with_it(server: Server, steps: int) -> None:
    """Stopped by a handler that is about to end: whoever is waited for may have gone already."""
    async with redis.asyncio.Redis(unix_socket_path=server.socket) as client:
        await client.flushall()
        buffer: redisq.asyncio.Buffer[str] = redisq.asyncio.Buffer(client, "q")
        await buffer.push("x")

        async def handle(batch: redisq.asyncio.Batch[str]) -> None:
            await batch.ack()
            worker.stop()
            for _ in range(steps):  # of the loop, one of which is between the worker's look and its wait
                await asyncio.sleep(0)

        worker = redisq.asyncio.Worker(buffer, handle)
        await worker.run()
