"""One process of `redisq worker`: it makes the Worker, counts what becomes of its batches, and ends with its parent."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import logging
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import Any

from ..asyncio import Worker as AsyncWorker
from ..blocking import Worker
from ..core.clients import remedy_for
from ..core.errors import InvalidArgument, RedisqError
from .connection import asyncio_client_of, client_of, explained, failure
from .exit import NO, USAGE, Failure
from .log import configure
from .worker_report import Report, Reporter

logger = logging.getLogger("redisq.cli.worker")

STOP, END = "stop", "end"  # what the parent says
BEGUN, ENDED = "begun", "ended"  # what a process says; or why it cannot go on


@dataclass(frozen=True)
class Job:
    """What a process has to run."""

    module: str
    name: str
    url: str = field(repr=False)  # it may have a password
    asyncio: bool = False
    live: bool = False
    log: str = "text"
    burst: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings of the worker that the command line overrides."""
    metrics: bool = False

    @property
    def level(self) -> int:
        """From where on to log: on a terminal the rates are shown instead of what is done."""
        return logging.WARNING if self.live else logging.INFO


class _Stopper:
    """What stops the worker once for however many signals, and ends it when the parent says so.

    Who wants a service to stop often signals each of its processes (a terminal, systemd), and the parent passes the
    signal on: that must not look like the second one, which ends the grace period of its handlers.
    """

    def __init__(self) -> None:
        self._asked = threading.Lock()
        self._stop: Callable[[], object] | None = None

    def attach(self, stop: Callable[[], object]) -> None:
        """Say how the worker is stopped."""
        self._stop = stop
        if self._asked.locked():
            stop()

    def ask(self, *_: object) -> None:
        """Stop the worker, unless that has been done."""
        if self._asked.acquire(blocking=False):
            self.end()

    def end(self) -> None:
        """Stop the worker, for the second time if it has been asked before."""
        if self._stop:
            self._stop()

    def obey(self, pipe: Connection) -> None:
        """Do what the parent says; stop when it is gone."""
        try:
            while True:
                self.ask() if pipe.recv() == STOP else self.end()
        except (EOFError, OSError):
            self.ask()


def work(job: Job, pipe: Connection, report: Report, first: bool) -> None:
    """Run the job's worker until it ends; tell the parent that it begins, or why it cannot."""
    stopper = _Stopper()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stopper.ask)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    configure(job.log, job.level)
    if job.metrics:
        _name_metrics()
    threading.Thread(target=stopper.obey, args=(pipe,), daemon=True).start()
    # Not in the main thread, where a worker would take the signals itself.
    with ThreadPoolExecutor(1, "redisq") as thread:
        making = _make_asyncio if job.asyncio else _make
        try:
            thread.submit(making, job, pipe, report, first, stopper).result()
        except Failure as failed:
            _send(pipe, (str(failed), failed.code, False))
            sys.exit(failed.code)
        except Exception as error:
            if remedy_for(error):  # refused for good: no other process would fare better
                refusal = failure(error, job.url)
                _send(pipe, (str(refusal), refusal.code, True))
                sys.exit(refusal.code)
            trace = None if isinstance(error, RedisqError) else error
            logger.error("cannot go on: %s: %s", type(error).__name__, error, exc_info=trace)
            sys.exit(NO)


def _send(pipe: Connection, message: object) -> None:
    """Send the parent a message, unless it is gone: then the worker is stopped, as `_Stopper.obey` says."""
    with contextlib.suppress(OSError):
        pipe.send(message)


def _make(job: Job, pipe: Connection, report: Report, first: bool, stopper: _Stopper) -> None:
    found = _load(job)
    if isinstance(found, AsyncWorker):
        asyncio.run(_go_on(job, found, pipe, report, stopper))
        return
    with contextlib.ExitStack() as stack:
        if callable(found):
            client = stack.enter_context(contextlib.closing(client_of(job.url)))
            if first:
                with explained(job.url):
                    client.ping()
            with _theirs(f"{job.module}:{job.name} failed"):
                found = found(client)
        if not isinstance(found, Worker):
            raise _no_worker(job, found)
        _prepare(job, found, report)
        stopper.attach(found.stop)
        _send(pipe, BEGUN)
        found.run(job.burst)
        _recycle(found, job, pipe)


def _make_asyncio(job: Job, pipe: Connection, report: Report, first: bool, stopper: _Stopper) -> None:
    asyncio.run(_make_awaited(job, pipe, report, first, stopper))


async def _make_awaited(job: Job, pipe: Connection, report: Report, first: bool, stopper: _Stopper) -> None:
    found = _load(job)
    async with contextlib.AsyncExitStack() as stack:
        if callable(found):
            client = asyncio_client_of(job.url)
            stack.push_async_callback(client.aclose)
            if first:
                with explained(job.url):
                    await client.ping()
            with _theirs(f"{job.module}:{job.name} failed"):
                found = found(client)
                if inspect.isawaitable(found):
                    found = await found
        if not isinstance(found, AsyncWorker):
            raise _no_worker(job, found)
        await _go_on(job, found, pipe, report, stopper)


async def _go_on(job: Job, found: AsyncWorker[Any], pipe: Connection, report: Report, stopper: _Stopper) -> None:
    _prepare(job, found, report)
    stopper.attach(found.stop)  # from any thread, and harmless when its event loop is closed
    _send(pipe, BEGUN)
    await found.run(job.burst)
    _recycle(found, job, pipe)


def _load(job: Job) -> Any:
    """Return what MODULE:NAME is: a worker, or what makes one."""
    with _theirs(f"cannot import {job.module}"):
        try:
            module = importlib.import_module(job.module)
        except ModuleNotFoundError as error:
            if error.name and f"{job.module}.".startswith(f"{error.name}."):
                raise Failure(f"no module {job.module} on the path or in {os.getcwd()}", USAGE) from error
            raise
    try:
        found = module
        for part in job.name.split("."):
            found = getattr(found, part)
    except AttributeError:
        raise Failure(f"module {job.module} has no {job.name}", USAGE) from None
    if not callable(found) and not isinstance(found, (Worker, AsyncWorker)):
        raise _no_worker(job, found)
    return found


def _no_worker(job: Job, found: Any) -> Failure:
    wanted = "a redisq.asyncio.Worker" if job.asyncio else "a redisq.Worker"
    remedy = ": say --asyncio" if isinstance(found, AsyncWorker) else ""
    remedy = remedy or (": leave --asyncio out" if isinstance(found, Worker) else "")
    what = f"{type(found).__module__}.{type(found).__qualname__}".removeprefix("builtins.")
    return Failure(f"{job.module}:{job.name} is or returns {what}, not {wanted}{remedy}", USAGE)


@contextlib.contextmanager
def _theirs(what: str) -> Iterator[None]:
    """Show where an error of the user's own code is, and make it one line for the end."""
    try:
        yield
    except Failure:
        raise
    except Exception as error:
        traceback.print_exc()
        raise Failure(f"{what}: {type(error).__name__}: {error}") from error


def _prepare(job: Job, found: Worker[Any] | AsyncWorker[Any], report: Report) -> None:
    """Give a worker the settings of the command line, and have it watched."""
    try:
        found.settings = replace(found.settings, **job.settings)
        found.queue.calls.reserve(**found.settings.reserving())  # refuses what the queue does not take
    except InvalidArgument as error:
        raise Failure(str(error), USAGE) from error
    found.observers.append(Reporter(report))
    if job.metrics:
        from ..metrics import observe

        observe(found)


def _name_metrics() -> None:
    """Have prometheus-client name its files by this process's place, before anything counts.

    A process that takes another's place goes on with its files: else each restart would leave some behind.
    """
    from prometheus_client import values

    name = multiprocessing.current_process().name
    values.ValueClass = values.MultiProcessValue(lambda: name)  # type: ignore[no-untyped-call]


def _recycle(found: Worker[Any] | AsyncWorker[Any], job: Job, pipe: Connection) -> None:
    """Have the parent start a fresh process if this one has had all the batches that it may have."""
    if found.settings.max_batches is not None and not job.burst:
        _send(pipe, ENDED)
