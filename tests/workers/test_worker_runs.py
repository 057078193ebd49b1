"""The ways to run and to stop a worker, blocking and asyncio, on a real server."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator
from time import monotonic
from typing import Any

import pytest
import redis
import redis.asyncio

import redisq.asyncio
from redisq import Buffer, Bury, InvalidArgument, PriorityQueue, RedisqError, Retry, Worker, WrongOrder
from redisq.embedded import Server

pytestmark = pytest.mark.server
TIMEOUT = 20  # seconds that a test waits for an event


def short_backoff(_: int) -> float:
    return 0.01


@pytest.fixture
def client(server: Server) -> Iterator[redis.Redis]:
    with server.client() as made:
        yield made


class Run:
    """A worker of either flavour on the buffer `q`, with a plain function as its handler."""

    def __init__(
        self, flavour: str, server: Server, handler: Callable[[Any], object], queue: Any = None, **settings: Any
    ) -> None:
        self.flavour = flavour
        self.server = server
        self.handler = handler
        self.queue_options: dict[str, Any] = queue or {}
        self.settings = settings
        self.worker: Any = None
        if flavour == "blocking":
            self.client = server.client()
            self.worker = Worker(Buffer(self.client, "q", **self.queue_options), handler, **settings)

    def __call__(self, burst: bool = False) -> None:
        """Run it until it ends."""
        if self.flavour == "blocking":
            self.worker.run(burst)
        else:
            asyncio.run(self.in_loop(lambda: self.worker.run(burst)))

    async def in_loop(self, work: Callable[[], Awaitable[object]]) -> None:
        """Create the asyncio worker, and await `work`."""

        async def handle(batch: Any) -> None:
            self.handler(batch)

        async with redis.asyncio.Redis(unix_socket_path=self.server.socket) as client:
            queue: Any = redisq.asyncio.Buffer(client, "q", **self.queue_options)
            self.worker = redisq.asyncio.Worker(queue, handle, **self.settings)
            await work()

    def stop(self) -> None:
        """Stop it, from any thread."""
        self.worker.stop()


flavours = pytest.mark.parametrize("flavour", ["blocking", "asyncio"])


# -- run()


@flavours
def test_a_worker_can_run_again(server: Server, client: redis.Redis, flavour: str) -> None:
    """A stop ends one run, not the next, however often it was called."""
    buffer: Buffer[int] = Buffer(client, "q")
    handled: list[int] = []

    def handle(batch: Any) -> None:
        handled.extend(batch.items)
        run.stop()

    run = Run(flavour, server, handle)

    async def thrice() -> None:
        for number in range(3):
            buffer.push(number)
            await run.worker.run()

    if flavour == "blocking":
        for number in range(3):
            buffer.push(number)
            run()
    else:
        asyncio.run(run.in_loop(thrice))
    assert handled == [0, 1, 2]
    assert buffer.stats().done == 3


async def test_an_asyncio_worker_runs_in_one_loop_after_another(server: Server) -> None:
    """It is bound to no loop between runs."""
    client = redis.asyncio.Redis(unix_socket_path=server.socket)
    handled: list[Any] = []

    async def handle(batch: Any) -> None:
        handled.append(batch.items)

    worker = redisq.asyncio.Worker(redisq.asyncio.Buffer(client, "q"), handle, max_batches=1)

    async def once(number: int) -> None:
        async with client:
            await worker.queue.push(number)
            await worker.run()

    def both() -> None:
        for number in (1, 2):
            asyncio.run(once(number))

    await asyncio.to_thread(both)
    assert handled == [[1], [2]]


@flavours
def test_a_stop_before_run_ends_the_next_run(server: Server, client: redis.Redis, flavour: str) -> None:
    """It may come before the worker's thread has called run(); the run after that one is not affected."""
    buffer: Buffer[int] = Buffer(client, "q")
    buffer.push(1)
    run = Run(flavour, server, lambda _: None, max_batches=1)

    async def stopped_then_run() -> None:
        run.stop()
        await run.worker.run()
        assert buffer.stats().waiting == 1
        await run.worker.run()

    if flavour == "blocking":
        run.stop()
        run()
        assert buffer.stats().waiting == 1
        run()
    else:
        asyncio.run(run.in_loop(stopped_then_run))
    assert buffer.stats().done == 1


def test_a_running_worker_refuses_to_run_again(client: redis.Redis) -> None:
    """In another thread, from its own handler, and with `with`."""
    buffer: Buffer[int] = Buffer(client, "q")
    buffer.push(1)
    seen: list[str] = []

    def handle(_: object) -> None:
        for begin in (worker.run, worker.__enter__):
            with pytest.raises(RuntimeError) as caught:
                begin()
            seen.append(str(caught.value))

    worker = Worker(buffer, handle, max_batches=1)
    worker.run()
    assert len(seen) == 2
    assert "runs already" in seen[0]
    assert buffer.stats().done == 1


async def test_a_running_asyncio_worker_refuses_to_run_again(server: Server) -> None:
    """Like the blocking one."""
    async with redis.asyncio.Redis(unix_socket_path=server.socket) as client:
        buffer: redisq.asyncio.Buffer[int] = redisq.asyncio.Buffer(client, "q")
        await buffer.push(1)

        async def handle(_: object) -> None:
            with pytest.raises(RuntimeError, match="runs already"):
                await worker.run()
            with pytest.raises(RuntimeError, match="runs already"):
                await worker.__aenter__()

        worker = redisq.asyncio.Worker(buffer, handle, max_batches=1)
        await worker.run()
        assert (await buffer.stats()).done == 1


@flavours
def test_stop_from_another_thread(
    server: Server, client: redis.Redis, flavour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an idle worker that nothing else would wake, blocking or asyncio."""
    idle, end = threading.Event(), threading.Event()

    def wait(_: object, seconds: float) -> None:  # noqa: ARG001
        idle.set()
        end.wait(60)

    async def await_for_ever(_: object, seconds: float) -> None:  # noqa: ARG001
        idle.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(Buffer, "wait", wait)
    monkeypatch.setattr(redisq.asyncio.Buffer, "wait", await_for_ever)
    run = Run(flavour, server, lambda _: None)
    thread = threading.Thread(target=run)
    thread.start()
    assert idle.wait(TIMEOUT)
    run.stop()
    thread.join(TIMEOUT)
    end.set()
    assert not thread.is_alive()
    assert Buffer(client, "q").stats().leased == 0


# -- burst and max_batches


@flavours
def test_a_burst_empties_the_queue(server: Server, client: redis.Redis, flavour: str) -> None:
    """Including what its handlers push or release at once; not what others hold, nor what is delayed."""
    buffer: Buffer[str] = Buffer(client, "q")
    buffer.push("others'", group="0")
    held = buffer.reserve()
    assert held
    for number in range(20):
        buffer.push(str(number), group=str(number))
    buffer.push("later", group="later")
    buffer.push("more", group="more")
    handled: list[str] = []

    def handle(batch: Any) -> None:
        (item,) = batch.items
        handled.append(item)
        if item == "more":
            buffer.push("pushed", group="pushed")
        if item == "later":
            raise Retry(3600)
        if item == "3" and batch.attempts < 3:
            raise Retry(0)

    Run(flavour, server, handle, size=1, concurrency=4)(burst=True)
    assert sorted(handled) == sorted([*map(str, range(20)), "3", "3", "later", "more", "pushed"])
    stats = buffer.stats()
    assert (stats.waiting, stats.leased, stats.delayed, stats.done) == (0, 1, 1, 22)
    assert held.ack() == 1


@flavours
def test_a_burst_on_an_empty_queue_returns(server: Server, client: redis.Redis, flavour: str) -> None:
    """On a paused one too."""
    run = Run(flavour, server, lambda _: pytest.fail("there is nothing"))
    run(burst=True)
    buffer: Buffer[int] = Buffer(client, "q")
    buffer.push(1)
    buffer.pause()
    run(burst=True)
    assert buffer.stats().waiting == 1


@flavours
def test_max_batches_ends_the_run(server: Server, client: redis.Redis, flavour: str) -> None:
    """After exactly that many, all settled; the others wait for the next process."""
    queue = Buffer(client, "q")
    for number in range(20):
        queue.push(number, group=str(number))
    handled: list[int] = []
    Run(flavour, server, lambda batch: handled.extend(batch.items), concurrency=4, max_batches=7)()
    assert len(handled) == 7
    stats = queue.stats()
    assert (stats.done, stats.waiting, stats.leased) == (7, 13, 0)


def test_max_batches_does_not_spin_while_the_last_batch_runs(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With free places and nothing more to reserve, it sleeps."""
    buffer: Buffer[int] = Buffer(client, "q")
    buffer.push(1)
    turns: list[int] = []
    turn = redisq.core.worker.WorkLoop.turn
    end = threading.Event()

    def count(self: Any, now: float) -> Any:
        turns.append(1)
        return turn(self, now)

    monkeypatch.setattr(redisq.core.worker.WorkLoop, "turn", count)
    with Worker(buffer, lambda _: end.wait(0.3), concurrency=3, max_batches=1, on_ack=lambda _: end.set()):
        assert end.wait(TIMEOUT)
    assert len(turns) < 10


# -- with


def test_as_a_context_manager(client: redis.Redis) -> None:
    """It works during the block, and the handler that runs at the end of it gets its grace."""
    buffer: Buffer[int] = Buffer(client, "q")
    began, end = threading.Event(), threading.Event()

    def handle(_: object) -> None:
        began.set()
        assert end.wait(TIMEOUT)

    worker = Worker(buffer, handle, grace=TIMEOUT)
    for number in (1, 2):
        with worker as entered:
            assert entered is worker
            began.clear()
            end.clear()
            buffer.push(number)
            assert began.wait(TIMEOUT)
            threading.Timer(0.05, end.set).start()
        assert buffer.stats().done == number


async def test_as_an_async_context_manager(server: Server) -> None:
    """As in a web framework's lifespan."""
    async with redis.asyncio.Redis(unix_socket_path=server.socket) as client:
        buffer: redisq.asyncio.Buffer[int] = redisq.asyncio.Buffer(client, "q")
        began, end = asyncio.Event(), asyncio.Event()

        async def handle(_: object) -> None:
            began.set()
            await end.wait()

        worker = redisq.asyncio.Worker(buffer, handle, grace=TIMEOUT)
        for number in (1, 2):
            async with worker as entered:
                assert entered is worker
                began.clear()
                end.clear()
                await buffer.push(number)
                await began.wait()
                asyncio.get_running_loop().call_later(0.05, end.set)
            assert (await buffer.stats()).done == number


@pytest.mark.parametrize("raises", [False, True])
def test_the_error_of_a_worker_is_raised_at_the_end_of_the_block(client: redis.Redis, raises: bool) -> None:
    """Unless the block raises an error of its own."""
    PriorityQueue(client, "p").push("a")
    worker = Worker(PriorityQueue(client, "p", order="score"), lambda _: None)

    def block() -> None:
        with worker:
            assert worker._run
            assert worker._run._done.wait(TIMEOUT)
            if raises:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError if raises else WrongOrder):
        block()


@pytest.mark.parametrize("raises", [False, True])
async def test_the_error_of_an_asyncio_worker_is_raised_at_the_end_of_the_block(server: Server, raises: bool) -> None:
    """Like the blocking one."""
    async with redis.asyncio.Redis(unix_socket_path=server.socket) as client:
        await redisq.asyncio.PriorityQueue(client, "p").push("a")
        queue = redisq.asyncio.PriorityQueue(client, "p", order="score")

        async def handle(_: object) -> None: ...

        async def block() -> None:
            async with redisq.asyncio.Worker(queue, handle) as worker:
                assert worker._run
                await asyncio.wait([worker._run.task])
                if raises:
                    raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError if raises else WrongOrder):
            await block()


# -- handler_timeout


def test_threads_that_never_end(client: redis.Redis, caplog: pytest.LogCaptureFixture) -> None:
    """Their batches are released. The first blocks its place only; the second ends the run, as no place is left."""
    buffer: Buffer[str] = Buffer(client, "q", lease=1)
    never, done = threading.Event(), threading.Event()
    released: list[Any] = []

    def handle(batch: Any) -> None:
        if batch.items[0].startswith("stuck"):
            never.wait(60)
        else:
            done.set()

    def on_release(batch: Any, error: Any) -> None:
        released.append((batch.items, type(error)))
        if len(released) == 1:
            buffer.push("fine", group="fine")

    worker = Worker(
        buffer, handle, concurrency=2, handler_timeout=0.2, backoff=lambda _: 3600, on_release=on_release, grace=3600
    )
    failures: list[BaseException] = []

    def run() -> None:
        try:
            worker.run()
        except RedisqError as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    buffer.push("stuck", group="1")
    assert done.wait(TIMEOUT)
    assert thread.is_alive()
    buffer.push("stuck too", group="2")
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    never.set()
    assert "does not end" in str(failures[0])
    assert released == [(["stuck"], TimeoutError), (["stuck too"], TimeoutError)]
    assert [batch.reason[:13] for batch in buffer.delayed()] == ["TimeoutError:"] * 2
    assert buffer.stats().leased == 0
    assert "ran longer than" in caplog.text


def test_a_thread_that_ends_late_frees_its_place(client: redis.Redis) -> None:
    """It acks nothing: its batch was handed out again."""
    buffer: Buffer[int] = Buffer(client, "q")
    released, end, again = threading.Event(), threading.Event(), threading.Event()

    def handle(batch: Any) -> None:
        if batch.attempts == 1:
            assert end.wait(TIMEOUT)
        else:
            again.set()

    worker = Worker(
        buffer,
        handle,
        concurrency=2,
        handler_timeout=0.2,
        backoff=lambda _: 0.05,
        on_release=lambda *_: released.set(),
    )
    with worker:
        buffer.push(1)
        assert released.wait(TIMEOUT)
        assert again.wait(TIMEOUT)
        end.set()
    stats = buffer.stats()
    assert (stats.done, stats.failed, stats.leased, stats.delayed) == (1, 1, 0, 0)


async def test_a_task_that_times_out_is_cancelled(server: Server) -> None:
    """It may clean up; then its batch is released, and retried."""
    async with redis.asyncio.Redis(unix_socket_path=server.socket) as client:
        buffer: redisq.asyncio.Buffer[int] = redisq.asyncio.Buffer(client, "q")
        cleaned: list[int] = []
        errors: list[Any] = []

        async def handle(batch: Any) -> None:
            if batch.attempts > 1:
                worker.stop()
                return
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.05)
                cleaned.append((await buffer.stats()).leased)

        worker = redisq.asyncio.Worker(
            buffer, handle, handler_timeout=0.2, backoff=short_backoff, on_release=lambda _, error: errors.append(error)
        )
        await buffer.push(1)
        await worker.run()
        assert cleaned == [1]
        assert [type(error) for error in errors] == [TimeoutError]
        assert (await buffer.stats()).done == 1


async def test_a_task_that_ignores_its_cancellation(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is abandoned, like a thread."""
    monkeypatch.setattr(redisq.core.worker, "CLOSE_SECONDS", 0.1)
    async with redis.asyncio.Redis(unix_socket_path=server.socket) as client:
        buffer: redisq.asyncio.Buffer[int] = redisq.asyncio.Buffer(client, "q", lease=0.5)
        end = asyncio.Event()

        async def handle(_: object) -> None:
            while not end.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await end.wait()

        await buffer.push(1)
        with pytest.raises(RedisqError, match="does not end"):
            await redisq.asyncio.Worker(buffer, handle, handler_timeout=0.2, backoff=lambda _: 3600).run()
        end.set()
        stats = await buffer.stats()
        assert (stats.leased, stats.delayed) == (0, 1)


async def test_a_wait_that_loses_its_cancellation_is_cancelled_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """redis-py loses one that comes while it takes a connection; nothing of the run is left all the same."""
    async with redis.asyncio.Redis(unix_socket_path=server.socket) as client:
        buffer: redisq.asyncio.Buffer[int] = redisq.asyncio.Buffer(client, "q")
        lost: list[BaseException] = []

        async def handle(_: object) -> None:
            raise AssertionError("nothing was pushed")

        async def wait(_: float) -> None:
            worker.stop()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError as cancelled:
                lost.append(cancelled)
                await asyncio.Event().wait()

        monkeypatch.setattr(buffer, "wait", wait)
        worker = redisq.asyncio.Worker(buffer, handle)
        await worker.run()
        assert lost
        assert asyncio.all_tasks() == {asyncio.current_task()}


@flavours
def test_a_handler_that_ends_in_time_is_not_affected(server: Server, client: redis.Redis, flavour: str) -> None:
    """The timeout is for each batch, not for all of them."""
    buffer: Buffer[int] = Buffer(client, "q")
    for number in range(20):
        buffer.push(number, group=str(number))
    Run(flavour, server, lambda _: threading.Event().wait(0.01), handler_timeout=0.1, concurrency=1)(burst=True)
    assert buffer.stats().done == 20


# -- handlers


@flavours
@pytest.mark.parametrize("way", ["ack", "release", "bury"])
def test_a_handler_may_settle_the_batch_itself(
    server: Server, client: redis.Redis, flavour: str, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The worker sends nothing for it afterwards."""
    buffer: Buffer[int] = Buffer(client, "q")
    buffer.push(1)
    hook_calls: list[Any] = []
    hooks: dict[str, Any] = {
        name: lambda *what: hook_calls.append(what) for name in ("on_ack", "on_release", "on_dead")
    }
    if flavour == "blocking":

        def handle(batch: Any) -> None:
            getattr(batch, way)()

        Worker(buffer, handle, max_batches=1, **hooks).run()
    else:

        async def work() -> None:
            async def handle(batch: Any) -> None:
                await getattr(batch, way)()

            async with redis.asyncio.Redis(unix_socket_path=server.socket) as own:
                await redisq.asyncio.Worker(redisq.asyncio.Buffer(own, "q"), handle, max_batches=1, **hooks).run()

        asyncio.run(work())
    stats = buffer.stats()
    assert (stats.done, stats.delayed, stats.dead) == (way == "ack", way == "release", way == "bury")
    assert hook_calls == []
    assert not [record for record in caplog.records if record.name == "redisq.worker"]


@flavours
def test_the_handlers_exception_decides_what_happens_to_the_batch(
    server: Server, client: redis.Redis, flavour: str
) -> None:
    """Bury, Retry with `count=False`, and any other exception, SystemExit included."""
    buffer: Buffer[str] = Buffer(client, "q", max_attempts=9)
    for item in ("bury", "429", "exit", "fine"):
        buffer.push(item, group=item)
    seen: list[tuple[str, int]] = []

    def handle(batch: Any) -> None:
        (item,) = batch.items
        seen.append((item, batch.attempts))
        if item == "bury":
            raise Bury("an answer of 400")
        if item == "429" and len([one for one in seen if one[0] == "429"]) < 3:
            raise Retry(0, count=False)
        if item == "exit" and batch.attempts == 1:
            raise SystemExit(1)

    Run(flavour, server, handle, backoff=lambda _: 0, queue={"max_attempts": 9})(burst=True)
    assert sorted(seen) == [("429", 1), ("429", 1), ("429", 1), ("bury", 1), ("exit", 1), ("exit", 2), ("fine", 1)]
    assert [(batch.items, batch.reason) for batch in buffer.dead()] == [(["bury"], "an answer of 400")]


# -- invalid handlers and queues


def test_handlers_and_queues_of_the_other_flavour_are_refused(client: redis.Redis, server: Server) -> None:
    """An async handler in a thread would never run, and its batch would be acked."""

    async def handle(_: object) -> None: ...

    buffer: Buffer[int] = Buffer(client, "q")
    assert buffer.client is client
    with pytest.raises(InvalidArgument, match=r"redisq\.asyncio\.Worker"):
        Worker(buffer, handle)
    other: Any = redisq.asyncio.Buffer(redis.asyncio.Redis(unix_socket_path=server.socket), "q")
    with pytest.raises(InvalidArgument, match="queue is"):
        Worker(other, lambda _: None)
    this: Any = buffer
    with pytest.raises(InvalidArgument, match="queue is"):
        redisq.asyncio.Worker(this, handle)


def test_a_handler_that_returns_a_coroutine_fails(client: redis.Redis, caplog: pytest.LogCaptureFixture) -> None:
    """As with `lambda batch: process(batch)` and an async `process`."""

    async def process(_: object) -> None: ...

    buffer: Buffer[int] = Buffer(client, "q")
    buffer.push(1)
    Worker(buffer, lambda batch: process(batch), max_batches=1).run()
    assert buffer.stats().done == 0
    assert buffer.stats().delayed == 1
    assert "returned a coroutine" in caplog.text


# -- connections


@flavours
@pytest.mark.parametrize("lease", [30, 1])
def test_two_connections_are_enough(
    server: Server, client: redis.Redis, flavour: str, lease: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the concurrency, with a pool of two connections and handlers that run while the worker is woken."""
    buffer: Buffer[int] = Buffer(client, "q", lease=lease)
    path = server.socket
    done = threading.Event()
    count = 24

    def acked(batch: Any) -> None:
        if batch.items == [-1]:
            done.set()

    def push_all() -> None:
        for number in range(count):
            buffer.push(number, group=str(number))
        end = monotonic() + TIMEOUT
        while buffer.stats().done < count and monotonic() < end:
            threading.Event().wait(0.01)
        buffer.push(-1)

    if flavour == "blocking":
        pool = redis.ConnectionPool(
            connection_class=redis.UnixDomainSocketConnection, path=path, max_connections=2, socket_timeout=5
        )
        own = redis.Redis(connection_pool=pool)
        with Worker(Buffer(own, "q", lease=lease), lambda _: threading.Event().wait(0.4), concurrency=8, on_ack=acked):
            push_all()
            assert done.wait(TIMEOUT)
        pool.disconnect()
    else:

        async def work() -> None:
            pool = redis.asyncio.ConnectionPool(
                connection_class=redis.asyncio.UnixDomainSocketConnection,
                path=path,
                max_connections=2,
                socket_timeout=5,
            )
            own = redis.asyncio.Redis(connection_pool=pool)
            queue: Any = redisq.asyncio.Buffer(own, "q", lease=lease)
            async with redisq.asyncio.Worker(queue, lambda _: asyncio.sleep(0.4), concurrency=8, on_ack=acked):
                await asyncio.to_thread(push_all)
                assert await asyncio.to_thread(done.wait, TIMEOUT)
            await pool.disconnect()

        asyncio.run(work())
    assert buffer.stats().done == count + 1
    assert not [record for record in caplog.records if record.name.startswith("redisq")]


@flavours
@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-lru", "noeviction"])
def test_an_evicting_policy_is_logged_once(
    server: Server, client: redis.Redis, flavour: str, policy: str, caplog: pytest.LogCaptureFixture
) -> None:
    """At the start, with how to fix it."""
    client.config_set("maxmemory-policy", policy)
    try:
        Run(flavour, server, lambda _: None)(burst=True)
    finally:
        client.config_set("maxmemory-policy", "noeviction")
    assert caplog.text.count("maxmemory-policy noeviction") == (policy != "noeviction")
