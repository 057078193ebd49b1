"""The processes of the demo: started together, in touch over pipes, and gone with the one that started them."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing import connection, get_context, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Any, NamedTuple, cast

from .. import Worker
from ..core.errors import RedisqError


class Ready(NamedTuple):
    """The message that a process has started and begins to work."""

    role: str


class _Failed(NamedTuple):
    reason: str


class Held(NamedTuple):
    """The message that a process has done its work on these, has not acked them, and waits to be killed."""

    role: str
    names: list[str]


class Channel:
    """The connection of a process to the one that started it."""

    def __init__(self, role: str, pipe: Connection) -> None:
        self._role = role
        self._pipe = pipe
        self._send_lock = threading.Lock()
        self._hold = threading.Event()

    def send(self, message: object) -> None:
        """Send a message."""
        with self._send_lock:
            self._pipe.send(message)

    def fail(self, reason: str) -> None:
        """Tell that the process cannot go on: all processes end."""
        self.send(_Failed(reason))

    def work(self, worker: Worker[Any]) -> None:
        """Run a worker until all is done, or the process at the other end is gone."""
        threading.Thread(target=self._listen, args=(worker,), daemon=True).start()
        worker.run()

    def receive(self) -> object:
        """Wait for the next message of the process that started this one: `hold` or `done`.

        Raises `EOFError` or `OSError` when that process is gone.
        """
        return self._pipe.recv()

    def _listen(self, worker: Worker[Any]) -> None:
        with contextlib.suppress(EOFError, OSError):
            while self.receive() == "hold":
                self._hold.set()
        worker.stop()

    def hold_if_told(self, names: list[str]) -> None:
        """Wait to be killed, if that was asked for: after the work and before the ack, where a crash costs most."""
        if self._hold.is_set():
            self.send(Held(self._role, names))
            threading.Event().wait()


class Processes:
    """Processes that are started and listened to; none is left behind at the end of `with`.

    Each runs a function of a module with a `Channel` and the arguments given. One that fails ends the whole: `receive`
    raises. Should this process be killed, the others see the end of their pipe and end too.
    """

    def __init__(self) -> None:
        self._context = get_context("spawn")
        self._members: dict[Connection, tuple[str, SpawnProcess]] = {}
        self._killed: set[Connection] = set()

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, process in self._members.values():
            process.kill()  # SIGTERM would wait for a handler that waits to be killed, and log that it did not end
        for pipe in list(self._members):
            self._leave(pipe)

    def start(self, count: int, role: str, work: Callable[..., None], *args: object) -> None:
        """Start `count` processes that run `work(channel, *args)`."""
        for _ in range(count):
            ours, theirs = self._context.Pipe()
            process = self._context.Process(target=_work, args=(role, work, theirs, args), daemon=True)
            with theirs, _interrupts_held():
                process.start()
            self._members[ours] = role, process

    def at_work(self, role: str | None = None) -> bool:
        """Say whether any process, of this role, has not ended."""
        return any(role in (None, of) for of, _ in self._members.values())

    def finish(self, role: str) -> None:
        """Tell the processes of a role that all is done."""
        for pipe, (of, _) in self._members.items():
            if of == role:
                with contextlib.suppress(BrokenPipeError):  # it has failed: `receive` will say so
                    pipe.send("done")

    def hold(self, role: str) -> None:
        """Tell one process of a role to stop in the middle of its next batch, where it is killed with -9."""
        pipe = next(pipe for pipe, (of, _) in self._members.items() if of == role)
        with contextlib.suppress(BrokenPipeError):  # it has failed: `receive` will say so
            pipe.send("hold")

    def receive(self, seconds: float) -> Iterator[object]:
        """Wait up to `seconds` for messages and yield what has come."""
        for pipe in connection.wait(list(self._members), seconds):
            pipe = cast(Connection, pipe)
            try:
                message = pipe.recv()
            except (EOFError, OSError):  # the latter if it was killed in the middle of a message
                role, code = self._leave(pipe)
                if code and pipe not in self._killed:
                    raise RedisqError(f"{role} ended with exit code {code}") from None
                continue
            if isinstance(message, Held):
                self._killed.add(pipe)
                self._members[pipe][1].kill()
            if isinstance(message, _Failed):
                raise RedisqError(f"{self._members[pipe][0]} failed: {message.reason}")
            yield message

    def _leave(self, pipe: Connection) -> tuple[str, int | None]:
        role, process = self._members.pop(pipe)
        process.join()
        code = process.exitcode
        process.close()
        pipe.close()
        return role, code


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Start a process that never sees Ctrl-C, not even while it imports: ending it is the parent's business."""
    if sys.platform == "win32":
        yield
        return
    resource_tracker.ensure_running()  # if it started within, it would let the signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(role: str, work: Callable[..., None], pipe: Connection, args: tuple[object, ...]) -> None:
    channel = Channel(role, pipe)
    try:
        channel.send(Ready(role))
        work(channel, *args)
    except Exception as error:
        with contextlib.suppress(OSError):  # the parent may be gone, and with it everyone who could be told
            channel.send(_Failed(f"{type(error).__name__}: {error}"))
        sys.exit(1)
