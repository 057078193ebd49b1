"""What takes longer than a page may: redriving or discarding all that is dead, purges and audits."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Literal

from ..core.audit import Audit
from ..core.clients import errors
from .names import name_text
from .reader import Reader

logger = logging.getLogger("redisq.web")

Verb = Literal["redrive", "discard", "purge", "audit"]
STEP = 1_000
"""dead letters that one call redrives or discards"""
_KEPT = 600.0  # seconds for which the outcome of a job is shown
_TRIES = 3
_DOING = {"redrive": "Redriving", "discard": "Discarding", "purge": "Purging", "audit": "Auditing"}
_DONE = {"redrive": "redriven", "discard": "discarded", "purge": "purged", "audit": "checked"}


@dataclass
class Job:
    """Something that is done in the background."""

    verb: Verb
    queue: str
    total: int | None
    """How much there was when it began; None if that is not known."""
    id: str = field(default_factory=lambda: os.urandom(8).hex())
    done: int = 0
    began: float = field(default_factory=time.monotonic)
    ended: float | None = None
    stopping: bool = False
    waiting: bool = False
    """Whether it waits for the audit of another queue to end."""
    error: str = ""
    audit: Audit | None = None
    task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether it goes on."""
        return self.ended is None

    @property
    def said(self) -> str:
        """What it does, or has done."""
        of = "" if self.total is None else f" of {self.total:,}"
        if self.running:
            end = ", stopping" if self.stopping else ""
            if self.verb == "audit":
                return ("Waiting for the audit of another queue" if self.waiting else "Auditing") + end
            return f"{_DOING[self.verb]}: {self.done:,}{of}{end}"
        if self.verb == "audit" and (self.error or self.stopping):
            return f"It ended without a result: {self.error or 'it was stopped'}"
        if self.error:
            return f"Stopped after {self.done:,}{of} were {_DONE[self.verb]}: {self.error}"
        return f"{self.done:,}{of} {_DONE[self.verb]}" + (", then stopped" if self.stopping else "")

    def document(self) -> dict[str, Any]:
        """Return it for programs."""
        running = "waiting" if self.waiting else "running"
        state = running if self.running else "failed" if self.error else "stopped" if self.stopping else "done"
        return {
            "id": self.id,
            "verb": self.verb,
            "state": state,
            "done": self.done,
            "total": self.total,
            "error": self.error or None,
        }


class Jobs:
    """The jobs of an app; `changed` is called with a queue's name when there is something new."""

    def __init__(self, changed: Callable[[str], None]) -> None:
        self._changed = changed
        self._jobs: dict[tuple[str, bool], Job] = {}
        self._auditing = asyncio.Lock()

    def of(self, queue: str) -> Job | None:
        """Return the job of a queue that writes, while it runs and for some minutes after."""
        return self._get(queue, False)

    def audit_of(self, queue: str) -> Job | None:
        """Return the latest audit of a queue."""
        return self._get(queue, True)

    def _get(self, queue: str, audit: bool) -> Job | None:
        job = self._jobs.get((queue, audit))
        if job is not None and job.ended is not None and time.monotonic() - job.ended > _KEPT:
            del self._jobs[queue, audit]
            return None
        return job

    def start(self, verb: Verb, reader: Reader, total: int | None) -> Job | None:
        """Begin something; None if the queue has a job that runs."""
        name, audit = reader.info.name, verb == "audit"
        before = self._get(name, audit)
        if before is not None and before.running:
            return None
        job = Job(verb, name, total)
        work = {"purge": _purge, "audit": self._audit}.get(verb, _settle)
        job.task = asyncio.get_running_loop().create_task(self._run(job, work(job, reader, self._changed)))
        self._jobs[name, audit] = job
        return job

    async def _run(self, job: Job, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except asyncio.CancelledError:
            job.stopping = True
        except Exception as error:
            known = isinstance(error, (OSError, *errors("RedisError", "RedisClusterException")))
            job.error = str(error) if known else type(error).__name__
            logger.error("%s of a queue ended with %s", job.verb, type(error).__name__)
        finally:
            job.ended = time.monotonic()
            self._changed(job.queue)

    async def _audit(self, job: Job, reader: Reader, changed: Callable[[str], None]) -> None:
        """Audit a queue, one at a time in the app: each walks over all keys of the server."""
        job.waiting = self._auditing.locked()
        async with self._auditing:
            if job.waiting:
                job.waiting = False
                changed(job.queue)
            job.audit = await reader.queue.audit()
            job.done = job.audit.checked

    def stop(self, job: Job) -> None:
        """Stop a job after the step that it is in."""
        job.stopping = True
        if job.verb in ("purge", "audit") and job.task is not None:
            job.task.cancel()  # each of their steps is whole
        self._changed(job.queue)

    def stop_all(self) -> None:
        """Stop all jobs at once."""
        for job in self._jobs.values():
            if job.task is not None and job.running:
                job.stopping = True
                job.task.cancel()


async def briefly(job: Job) -> None:
    """Wait for a job that may end soon, so that the page that follows shows its outcome."""
    if job.task is not None:
        await asyncio.wait([job.task], timeout=1.0)


async def _settle(job: Job, reader: Reader, changed: Callable[[str], None]) -> None:
    """Redrive or discard what was dead when it began, the newest first: those who die meanwhile are left alone.

    What is redriven goes to the front of its group, so in the end the earliest come first. Redis knows the order of
    deaths to the ms; within one it is that of the ids, in all steps alike.
    """
    last, left, step = await reader.last_death(), job.total or 0, 0
    while last is not None and left > 0 and not job.stopping:
        names, last = await reader.dead_before(last, min(STEP, left))
        if not names:
            break
        done = await _again(lambda names=names, step=step: _act(job, reader, names, step))  # type: ignore[misc]
        job.done += done
        left -= len(names)
        step += 1
        changed(job.queue)


async def _act(job: Job, reader: Reader, names: list[bytes], step: int) -> int:
    queue: Any = reader.queue
    ids = [name_text(name) for name in names] if reader.buffer is not None else names
    act = queue.redrive if job.verb == "redrive" else queue.discard
    return int(await act(*ids, token=f"{job.id}:{step}"))


async def _again(act: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Make a call that may be sent twice, some times if Redis does not answer."""
    unreachable: tuple[type[Exception], ...] = (OSError, *errors("ConnectionError", "TimeoutError"))
    for left in reversed(range(_TRIES)):
        try:
            return await act()
        except unreachable:
            if not left:
                raise
            await asyncio.sleep(1.0)
    raise AssertionError("unreachable")


async def _purge(job: Job, reader: Reader, _: Callable[[str], None]) -> None:
    job.done = await reader.queue.purge()
