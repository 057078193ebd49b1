"""The parent of `redisq worker`: starts the processes, starts again what dies, passes signals on, says what is done."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import astuple
from multiprocessing import connection, get_context, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from ..core.worker import SAME_SIGNAL
from .exit import NO, Failure
from .service_manager import READY, STOPPING, ServiceManager
from .worker_process import BEGUN, END, ENDED, STOP, Job, work
from .worker_report import START, Report, Totals

logger = logging.getLogger("redisq.cli.worker")

_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds before a process is started again; doubled while it keeps dying
_STABLE_AFTER = 60.0  # seconds; a process that dies later is restarted without a longer pause
_KILL_AFTER = 2.0  # seconds that a process has after the second signal


class _Place:
    """One process, and those that take its place."""

    def __init__(self, name: str, report: Report) -> None:
        self.name = name
        self.report = report
        self.process: SpawnProcess | None = None
        self.pipe: Connection | None = None
        self.due: float | None = None
        """When it is to be started; None while it runs, and when it has ended for good."""
        self.began = 0.0
        self.begun = False
        """Whether a process has said that its worker runs, and has not died since."""
        self.recycled = False
        """Whether it has said that it has had all the batches that it may have."""
        self.ended = False
        """Whether it has ended for good, of its own accord."""
        self.pause = _PAUSE


class WorkerPool:
    """Several processes that do a job until they end or are told to."""

    def __init__(self, job: Job, count: int, ended: Callable[[str], object] = str) -> None:
        """Prepare `count` processes; `ended` is called with the name of each that has ended."""
        self._job = job
        self._ended = ended
        self._manager = ServiceManager()
        self._context = get_context("spawn")
        self._places = [_Place(f"worker-{n}", Report(self._context)) for n in range(1, count + 1)]
        self._signals: list[int] = []
        self._signalled = float("-inf")
        self._failed_codes: list[int] = []
        self._failure: Failure | None = None
        self._kill_at = float("inf")
        self._has_begun = False

    def run(self) -> int:
        """Run until all processes have ended; return 0 if they were asked to and did, or raise `Failure`."""
        self._places[0].due = 0.0  # the others follow when it has begun: what it cannot do, they cannot either
        shown, line_due = self._totals(), time.monotonic() + 1
        with self._listening():
            try:
                while any(place.process or place.due is not None for place in self._places):
                    self._start_due()
                    self._hear(min(1.0, self._manager.every, max(0.0, line_due - time.monotonic())))
                    self._kill_late()
                    self._notify_manager()
                    if time.monotonic() >= line_due:
                        shown, line_due = self._show(shown), time.monotonic() + 1
            finally:
                self._kill()
        if self._job.live:
            self._show(shown)
        if self._failure:
            raise self._failure
        done = self._totals()
        logger.info(
            "ended: %d batches acked with %d items, %d released, %d dead",
            *(done.acked, done.items, done.released, done.dead),
        )
        if len(self._signals) > 1:
            return 128 + self._signals[-1]
        return NO if self._failed_codes else 0

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, _: object) -> None:
        now = time.monotonic()
        if now - self._signalled < SAME_SIGNAL:
            return
        self._signalled = now
        self._signals.append(number)
        if len(self._signals) == 2:
            self._kill_at = now + _KILL_AFTER
        self._send(STOP if len(self._signals) == 1 else END)

    def _send(self, command: str) -> None:
        for place in self._places:
            place.due = None
            if place.pipe:
                with contextlib.suppress(OSError):  # it has just ended
                    place.pipe.send(command)

    @property
    def _stopping(self) -> bool:
        return bool(self._signals or self._failure)

    def _start_due(self) -> None:
        for place in self._places:
            if place.due is not None and place.due <= time.monotonic():
                first = not any(each.began for each in self._places)
                ours, theirs = self._context.Pipe()
                arguments = (self._job, theirs, place.report, first)
                place.report.live(START)
                if not place.recycled:  # else it is as ready as the one before, until Redis does not answer
                    place.report.note(False)
                place.recycled = False
                process = self._context.Process(target=work, args=arguments, name=place.name)
                with theirs, _interrupts_held():
                    process.start()
                    place.process, place.pipe, place.due, place.began = process, ours, None, time.monotonic()
                if self._stopping:  # since it was started and before it was known here
                    self._send(STOP)

    def _hear(self, seconds: float) -> None:
        """Wait for what processes say, and for their ends."""
        dues = [max(0.0, place.due - time.monotonic()) for place in self._places if place.due is not None]
        pipes = {place.pipe: place for place in self._places if place.pipe}
        ends = {place.process.sentinel: place for place in self._places if place.process}
        # A signal does not wake this up, but it makes processes end, and that does.
        for heard in connection.wait([*pipes, *ends], min([seconds, *dues])):
            if isinstance(heard, Connection):
                self._listen(pipes[heard])
            elif isinstance(heard, int):
                self._reap(ends[heard])

    def _listen(self, place: _Place) -> None:
        if place.pipe is None:  # reaped in this round
            return
        try:
            said = place.pipe.recv()
        except (EOFError, OSError):
            place.pipe.close()
            place.pipe = None  # it is ending, and `_reap` does the rest
            return
        if said == ENDED:
            place.recycled = True
            return
        if said != BEGUN:
            reason, code, refused = said
            if refused or not self._has_begun:
                self._failure = self._failure or Failure(reason, code)
                self._send(STOP)
            else:  # it has worked before, and the other processes still do: it is started again
                logger.error("%s: %s", place.name, reason)
            return
        place.begun = self._has_begun = True
        if not self._stopping:
            for other in self._places:
                if not other.began and other.due is None:
                    other.due = 0.0

    def _reap(self, place: _Place) -> None:
        if place.process is None:
            return
        while place.pipe and place.pipe.poll():  # its last words
            self._listen(place)
        place.process.join()
        code = place.process.exitcode or 0
        place.process.close()
        if place.pipe:
            place.pipe.close()
        place.process = place.pipe = None
        self._ended(place.name)
        if not code:
            if place.recycled and not self._stopping:
                place.due = time.monotonic()
            elif not self._stopping:
                place.ended = True
                if not self._job.burst:
                    logger.warning("%s has ended and is not started again", place.name)
            return
        place.begun = False
        if self._stopping:
            if code != -signal.SIGTERM:  # which may have come, to all processes, before it listened
                self._failed_codes.append(code)
            return
        if time.monotonic() - place.began > _STABLE_AFTER:
            place.pause = _PAUSE
        place.due = time.monotonic() + place.pause
        logger.warning("%s died with %s, starts again in %.0f s", place.name, _cause(code), place.pause)
        place.pause = min(2 * place.pause, _LONGEST_PAUSE)

    def _kill_late(self) -> None:
        if time.monotonic() >= self._kill_at:
            self._kill()

    def _kill(self) -> None:
        for place in self._places:
            if place.process:
                place.process.kill()

    # -- how it is

    def problem(self) -> str | None:
        """Say which processes do not respond; a Redis that is unavailable is not a reason."""
        stuck = [place.name for place in self._places if place.process and not place.report.alive]
        return f"not responding: {', '.join(stuck)}" if stuck else None

    def unready(self) -> str | None:
        """Say which processes have not begun, or get no answer from Redis."""
        waiting = [place.name for place in self._places if not (place.ended or (place.begun and place.report.answered))]
        return f"not started yet, or Redis does not answer: {', '.join(waiting)}" if waiting else None

    def _notify_manager(self) -> None:
        if all(place.begun or place.ended for place in self._places):
            self._manager.notify_once(READY)
        if self._stopping:
            self._manager.notify_once(STOPPING)
        self._manager.watchdog(self.problem() is None)

    def _totals(self) -> Totals:
        each = [astuple(place.report.totals) for place in self._places]
        return Totals(*map(sum, zip(*each, strict=True)))

    def _show(self, before: Totals) -> Totals:
        now = self._totals()
        if self._job.live:
            new = zip(astuple(now), astuple(before), strict=True)
            acked, released, dead, items = (f"{later - sooner:,}/s" for later, sooner in new)
            running = sum(place.process is not None for place in self._places)
            rates = f"acked {acked:>8}  released {released:>6}  dead {dead:>6}  items {items:>10}"
            print(time.strftime("%H:%M:%S"), f" {running} running  {rates}  {now.items:,} items in all", flush=True)
        return now


def _cause(code: int) -> str:
    return f"exit code {code}" if code > 0 else signal.Signals(-code).name


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Keep Ctrl-C from a process that is started: a terminal sends it to all, but the parent passes it on."""
    if sys.platform == "win32":
        yield
        return
    resource_tracker.ensure_running()  # if it started within, it would let the signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
