"""Workers and signals, with real processes and a real server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep
from types import FrameType
from typing import Any

import pytest
import redis
import redis.asyncio

import redisq.asyncio
from redisq import Batch, Buffer, Worker
from redisq.core.worker import SAME_SIGNAL
from redisq.embedded import Server

pytestmark = pytest.mark.server

LATER = SAME_SIGNAL + 0.1
"""seconds after which a second signal is a new request"""


class Script:
    """A Python process that is controlled over its standard streams."""

    def __init__(self, text: str, *arguments: str) -> None:
        # Do not inherit an ignored SIGINT from the shell that runs the tests.
        command = [sys.executable, "-u", "-c", text, *arguments]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True)
        self.output: list[str] = []

    def __enter__(self) -> Script:
        return self

    def __exit__(self, *_: object) -> None:
        with self.process:
            self.process.kill()

    def write(self, line: str = "") -> None:
        """Write a line to its standard input."""
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def expect(self, word: str) -> None:
        """Read its output until a line has this word."""
        assert self.process.stdout
        for line in self.process.stdout:
            self.output.append(line)
            if word in line:
                return
        pytest.fail(f"no {word!r} in:\n{self.text}")

    def signal(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def end(self) -> int:
        """Read the rest of its output, and return its exit code."""
        assert self.process.stdout
        self.output += self.process.stdout
        return self.process.wait()

    @property
    def text(self) -> str:
        """All of its output so far."""
        return "".join(self.output)


@pytest.fixture
def client(server: Server) -> Iterator[redis.Redis]:
    with server.client() as made:
        yield made


# Each script runs a worker for every line on its standard input, and prints when the worker is idle; from then on it
# handles signals. Its handler ends when something is pushed to `go`.
HEAD = """
import asyncio, logging, os, signal, sys, redis, redis.asyncio, redisq, redisq.asyncio
def say(word):
    os.write(1, f"{word}\\n".encode())  # whole lines, whoever else writes
class Handler(logging.Handler):
    def emit(self, record):
        say(self.format(record))
logging.basicConfig(level=logging.INFO, handlers=[Handler()])
path = sys.argv[1]
"""
BLOCKING = """
client = redis.Redis(unix_socket_path=path, socket_timeout=None)
class Buffer(redisq.Buffer):
    def wait(self, seconds):
        say("idle")
        super().wait(seconds)
def handle(batch):
    say("began")
    client.blpop("go", 0)
    say("finished")
def run():
    redisq.Worker(Buffer(client, "q"), handle, grace=60).run()
"""
ASYNCIO = """
class Buffer(redisq.asyncio.Buffer):
    async def wait(self, seconds):
        say("idle")
        await super().wait(seconds)
async def work():
    async with redis.asyncio.Redis(unix_socket_path=path, socket_timeout=None) as client:
        async def handle(batch):
            say("began")
            await client.blpop("go", 0)
            say("finished")
        await redisq.asyncio.Worker(Buffer(client, "q"), handle, grace=60).run()
        say("after it")
def run():
    asyncio.run(work())
"""
ONCE = "run(); say('returned')"
AGAIN_AND_AGAIN = """
for number in signal.SIGTERM, signal.SIGINT:
    signal.signal(number, lambda *_: None)
for line in sys.stdin:
    run()
    say("returned")
"""
flavours = pytest.mark.parametrize("flavour", [BLOCKING, ASYNCIO], ids=["blocking", "asyncio"])


@flavours
def test_two_signals_at_once_are_one_request(server: Server, client: redis.Redis, flavour: str) -> None:
    """As `timeout` sends them, to the process and to its group: running handlers get their grace."""
    buffer: Buffer[int] = Buffer(client, "q")
    spacings = [0, 0, 0.0001, 0.0003, 0.001, 0.001, 0.003, 0.01, 0.1, 0.4]
    with Script(HEAD + flavour + AGAIN_AND_AGAIN, server.socket) as script:
        for number, spacing in enumerate(spacings, 1):
            buffer.push(number)
            script.write("run")
            script.expect("began")
            script.signal(signal.SIGTERM)
            sleep(spacing)
            script.signal(signal.SIGTERM if number % 2 else signal.SIGINT)
            script.expect("stopping")
            client.rpush("go", 1)
            script.expect("finished")
            script.expect("returned")
            assert buffer.stats().done == number
    assert "giving back" not in script.text


@flavours
def test_a_later_signal_ends_the_grace(server: Server, client: redis.Redis, flavour: str) -> None:
    """More than a second after the first: the batch is released at once, and run() returns."""
    buffer: Buffer[int] = Buffer(client, "q")
    buffer.push(1)
    with Script(HEAD + flavour + ONCE, server.socket) as script:
        script.expect("began")
        script.signal(signal.SIGTERM)
        script.expect("stopping")
        sleep(LATER)
        script.signal(signal.SIGTERM)
        script.expect("giving back")
        script.expect("returned")
        assert script.end() == 0
    assert "finished" not in script.text
    assert buffer.stats().delayed == 1
    assert buffer.stats().due == 1


@flavours
def test_an_idle_worker_ends_whatever_the_time_between_signals(server: Server, flavour: str) -> None:
    """Two signals of either kind, immediately after each other or far apart."""
    spacings = [0, 0.00005, 0.0001, 0.0002, 0.0003, 0.0005, 0.001, 0.002, 0.005, 0.05]
    with Script(HEAD + flavour + AGAIN_AND_AGAIN, server.socket) as script:
        for second in (signal.SIGTERM, signal.SIGINT) * 2:
            for spacing in spacings:
                script.write("run")
                script.expect("idle")
                script.signal(signal.SIGTERM)
                end = monotonic() + spacing
                while monotonic() < end:
                    pass
                script.signal(second)
                script.expect("returned")


@flavours
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_returns_normally(server: Server, flavour: str, number: int) -> None:
    """Python's own handlers, which raise KeyboardInterrupt or cancel the main task, are not called."""
    with Script(HEAD + flavour + ONCE, server.socket) as script:
        script.expect("idle")
        script.signal(number)
        assert script.end() == 0
    assert "returned" in script.text
    assert "Traceback" not in script.text
    assert ("after it" in script.text) == (flavour is ASYNCIO)


@flavours
def test_an_exception_of_the_applications_signal_handler_is_raised_after_the_grace(
    server: Server, client: redis.Redis, flavour: str
) -> None:
    """As with the usual `lambda *_: sys.exit(...)`; the running handler is not interrupted."""
    buffer: Buffer[int] = Buffer(client, "q")
    buffer.push(1)
    set_handler = "signal.signal(signal.SIGTERM, lambda *_: (say('heard'), sys.exit(3)))\n"
    with Script(HEAD + flavour + set_handler + ONCE, server.socket) as script:
        script.expect("began")
        script.signal(signal.SIGTERM)
        script.expect("stopping")
        client.rpush("go", 1)
        script.expect("finished")
        assert script.end() == 3
    assert "heard" in script.text
    assert "returned" not in script.text
    assert buffer.stats().done == 1


MANY = """
async def handle(batch):
    pass
async def work():
    async with redis.asyncio.Redis(unix_socket_path=path) as client:
        workers = [redisq.asyncio.Worker(Buffer(client, f"q{n}"), handle) for n in range(3)]
        await asyncio.gather(*(worker.run() for worker in workers))
        say("all ended")
asyncio.run(work())
"""


def test_a_signal_stops_all_workers_of_a_loop(server: Server) -> None:
    with Script(HEAD + ASYNCIO + MANY, server.socket) as script:
        for _ in range(3):
            script.expect("idle")
        script.signal(signal.SIGTERM)
        script.expect("all ended")
        assert script.end() == 0
    assert script.text.count("stopping") == 3


WEB = """
import contextlib, uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
async def ping(request):
    return PlainTextResponse("pong")
@contextlib.asynccontextmanager
async def lifespan(app):
    async with redis.asyncio.Redis(unix_socket_path=path, socket_timeout=None) as client:
        async def handle(batch):
            say("began")
            await client.blpop("go", 0)
            say("finished")
        worker = redisq.asyncio.Worker(redisq.asyncio.Buffer(client, "q"), handle, grace=60)
        if sys.argv[2] == "task":
            task = asyncio.create_task(worker.run())
            yield
            worker.stop()  # as who does not rely on signals would
            await task
        else:
            async with worker:
                yield
        say("worker ended")
uvicorn.run(Starlette(routes=[Route("/", ping)], lifespan=lifespan), uds=sys.argv[3], log_level="info")
"""


@pytest.mark.parametrize("way", ["task", "context manager"])
def test_inside_a_web_server(server: Server, client: redis.Redis, way: str, tmp_path: Path) -> None:
    """The server shuts down as usual, the handler gets its grace, and the exit code is the server's."""
    buffer: Buffer[int] = Buffer(client, "q")
    with Script(HEAD + WEB, server.socket, way, str(tmp_path / "web.sock")) as script:
        script.expect("Uvicorn running on")
        buffer.push(1)
        script.expect("began")
        script.signal(signal.SIGTERM)
        script.expect("Shutting down")
        script.expect("Waiting for application shutdown")
        client.rpush("go", 1)
        script.expect("worker ended")
        script.expect("Finished server process")
        assert script.end() == -signal.SIGTERM  # uvicorn has shut down, and raises the signal again
    assert "finished" in script.text
    assert "giving back" not in script.text
    assert buffer.stats().done == 1


# -- in this process


def test_a_loop_without_signal_handlers(server: Server) -> None:
    """As on Windows, where add_signal_handler is not implemented."""

    class Loop(asyncio.SelectorEventLoop):
        def add_signal_handler(self, *_: Any) -> None:  # type: ignore[override]
            raise NotImplementedError

    async def work() -> int:
        async with redis.asyncio.Redis(unix_socket_path=server.socket) as client:
            buffer: redisq.asyncio.Buffer[int] = redisq.asyncio.Buffer(client, "q")

            async def handle(batch: redisq.asyncio.Batch[int]) -> None:  # noqa: ARG001
                os.kill(os.getpid(), signal.SIGTERM)

            await buffer.push(1)
            await redisq.asyncio.Worker(buffer, handle).run()
            return (await buffer.stats()).done

    loop = Loop()
    try:
        assert loop.run_until_complete(work()) == 1
    finally:
        loop.close()


def test_the_applications_signal_handler_is_called_too(client: redis.Redis) -> None:
    """With the signal and the frame; it is restored when the worker has ended."""
    heard: list[tuple[int, FrameType | None]] = []

    def hear(number: int, frame: FrameType | None) -> None:
        heard.append((number, frame))

    buffer: Buffer[int] = Buffer(client, "q")
    buffer.push(1)
    before = signal.signal(signal.SIGTERM, hear)
    try:
        Worker(buffer, lambda _: os.kill(os.getpid(), signal.SIGTERM)).run()
        assert [number for number, _ in heard] == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is hear
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_signal_handler_set_during_the_run_stays(client: redis.Redis) -> None:
    """It is newer than the one that the worker would restore."""

    def newer(*_: object) -> None: ...

    async def work() -> None:
        async with redis.asyncio.Redis(unix_socket_path=client.connection_pool.connection_kwargs["path"]) as own:
            worker = redisq.asyncio.Worker(redisq.asyncio.Buffer(own, "q"), lambda _: asyncio.sleep(0))
            task = asyncio.create_task(worker.run())
            await asyncio.sleep(0)
            signal.signal(signal.SIGTERM, newer)
            worker.stop()
            await task

    before = signal.getsignal(signal.SIGTERM)
    try:
        asyncio.run(work())
        assert signal.getsignal(signal.SIGTERM) is newer
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("way", ["signals=False", "context manager", "another thread"])
def test_signal_handling_can_be_switched_off(client: redis.Redis, way: str) -> None:
    """The handlers stay as they are while the worker runs."""
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    seen: list[Any] = []
    buffer: Buffer[int] = Buffer(client, "q")
    buffer.push(1)

    def handle(batch: Batch[int]) -> None:  # noqa: ARG001
        seen.extend(signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT))

    if way == "context manager":
        done = threading.Event()
        with Worker(buffer, handle, on_ack=lambda _: done.set()):
            assert done.wait(20)
    elif way == "another thread":
        thread = threading.Thread(target=Worker(buffer, handle, max_batches=1).run)
        thread.start()
        thread.join(20)
        assert not thread.is_alive()
    else:
        Worker(buffer, handle, max_batches=1, signals=False).run()
    assert seen == before


def test_ctrl_c_without_signal_handling(client: redis.Redis) -> None:
    """run() raises KeyboardInterrupt after its batches are released."""
    buffer: Buffer[int] = Buffer(client, "q")
    buffer.push(1)
    end = threading.Event()

    def handle(batch: Batch[int]) -> None:  # noqa: ARG001
        os.kill(os.getpid(), signal.SIGINT)
        end.wait(20)

    with pytest.raises(KeyboardInterrupt):
        Worker(buffer, handle, signals=False).run()
    end.set()
    assert buffer.stats().delayed == 1


@pytest.mark.parametrize("way", ["run", "with"])
def test_ctrl_c_while_the_worker_starts(client: redis.Redis, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Its thread may have a batch before the main thread goes on: that is released, too."""
    buffer: Buffer[int] = Buffer(client, "q")
    buffer.push(1)
    end = threading.Event()
    start = threading.Thread.start

    def handle(batch: Batch[int]) -> None:  # noqa: ARG001
        os.kill(os.getpid(), signal.SIGINT)
        end.wait(20)

    def slow(thread: threading.Thread) -> None:
        start(thread)
        if thread.name == "redisq-worker":
            end.wait(20)

    monkeypatch.setattr(threading.Thread, "start", slow)
    worker = Worker(buffer, handle, signals=False)
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        if way == "run":
            worker.run()
        with worker:
            pytest.fail("it was interrupted before")
    end.set()
    assert buffer.stats().delayed == 1
    buffer.purge()
    worker.run(burst=True)  # it may be run again


@contextlib.contextmanager
def suspendable_server(binary: Path) -> Iterator[tuple[Server, int]]:
    """Run a separate server; yield it and its process id, to be suspended."""
    with Server(binary) as own, own.client() as client:
        pid = client.info("server")["process_id"]
        try:
            yield own, pid
        finally:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("phase", ["handler", "idle"])
def test_a_server_that_hangs_does_not_keep_the_worker_from_ending(
    binary: Path, phase: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers nothing, and the client has no timeout; the second stop ends run() all the same."""
    with suspendable_server(binary) as (own, pid), own.client(socket_timeout=None) as client:
        buffer: Buffer[int] = Buffer(client, "q", lease=0.5)  # so that it soon has something to send
        if phase == "handler":
            buffer.push(1)
        never = threading.Event()

        def handle(batch: Batch[int]) -> None:  # noqa: ARG001
            os.kill(pid, signal.SIGSTOP)
            worker.stop()
            worker.stop()
            never.wait(60)

        worker = Worker(buffer, handle)
        if phase == "idle":
            idle, wait = threading.Event(), buffer.wait

            def wait_and_record(seconds: float) -> None:
                idle.set()
                wait(seconds)

            monkeypatch.setattr(buffer, "wait", wait_and_record)
            thread = threading.Thread(target=worker.run)
            thread.start()
            assert idle.wait(20)
            os.kill(pid, signal.SIGSTOP)
            worker.stop()
            thread.join(20)
            assert not thread.is_alive()
        else:
            worker.run()
            assert "could not release" in caplog.text
        never.set()
        os.kill(pid, signal.SIGCONT)


async def test_a_server_that_hangs_does_not_keep_the_asyncio_worker_from_ending(
    binary: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The call that is under way is abandoned."""
    with suspendable_server(binary) as (own, pid):
        async with redis.asyncio.Redis(unix_socket_path=own.socket, socket_timeout=None) as client:
            buffer: redisq.asyncio.Buffer[int] = redisq.asyncio.Buffer(client, "q", lease=0.3)
            sending, send = asyncio.Event(), buffer.send
            hangs = False

            async def send_and_record(*calls: Any, return_exceptions: bool = False) -> list[Any]:
                if hangs:
                    sending.set()
                return await send(*calls, return_exceptions=return_exceptions)

            buffer.send = send_and_record  # type: ignore[method-assign]

            async def handle(batch: redisq.asyncio.Batch[int]) -> None:  # noqa: ARG001
                nonlocal hangs
                os.kill(pid, signal.SIGSTOP)
                hangs = True
                await sending.wait()  # until its lease is being extended
                worker.stop()
                worker.stop()
                await asyncio.Event().wait()

            await buffer.push(1)
            worker = redisq.asyncio.Worker(buffer, handle)
            await worker.run()
            assert "could not release" in caplog.text
            os.kill(pid, signal.SIGCONT)
