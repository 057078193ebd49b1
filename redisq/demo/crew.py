"""The processes of the demo: started together, heard over pipes, and gone with the one that started them."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from multiprocessing import connection, get_context, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import NamedTuple, cast

from ..errors import RedisqError


class Ready(NamedTuple):
    """Tell that a process has started and begins to work."""

    role: str


class _Failed(NamedTuple):
    reason: str


class Link:
    """Let a process of the crew talk with the one that started it."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._finished = False

    def tell(self, message: object) -> None:
        """Send a message."""
        self._pipe.send(message)

    def finished(self, seconds: float = 0.0) -> bool:
        """Wait up to `seconds` for the word that nothing more will be pushed, and say whether it has come.

        Raises `EOFError` or `OSError` when the process at the other end is gone.
        """
        if not self._finished and self._pipe.poll(seconds):
            self._pipe.recv()
            self._finished = True
        return self._finished


class Crew:
    """Start processes, hear what they say, and leave none behind at the end of `with`.

    Each runs a function of a module with a `Link` and the arguments given. One that fails ends the whole: `hear`
    raises. Should this process be killed, the others see the end of their pipe and end too.
    """

    def __init__(self) -> None:
        self._context = get_context("spawn")
        self._members: dict[Connection, tuple[str, SpawnProcess]] = {}

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, process in self._members.values():
            process.terminate()
        for pipe in list(self._members):
            self._leave(pipe)

    def start(self, count: int, role: str, work: Callable[..., None], *args: object) -> None:
        """Start `count` processes that run `work(link, *args)`."""
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
        """Tell the processes of a role that nothing more will be pushed: what they then find empty stays empty."""
        for pipe, (of, _) in self._members.items():
            if of == role:
                with contextlib.suppress(BrokenPipeError):  # it has failed: `hear` will say so
                    pipe.send(None)

    def hear(self, seconds: float) -> Iterator[object]:
        """Wait up to `seconds` for messages and give what has come."""
        for pipe in connection.wait(list(self._members), seconds):
            pipe = cast(Connection, pipe)
            try:
                message = pipe.recv()
            except (EOFError, OSError):  # the latter if it was killed in the middle of a message
                role, code = self._leave(pipe)
                if code:
                    raise RedisqError(f"{role} ended with exit code {code}") from None
                continue
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
    link = Link(pipe)
    try:
        link.tell(Ready(role))
        work(link, *args)
    except Exception as error:
        with contextlib.suppress(OSError):  # the parent may be gone, and with it everyone who could be told
            link.tell(_Failed(f"{type(error).__name__}: {error}"))
        sys.exit(1)
