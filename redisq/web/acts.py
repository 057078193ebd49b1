"""What a page may do to a queue, and only where it is allowed."""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ..core import validate
from ..core.acts import ACTS
from ..core.durations import seconds as seconds_of
from ..core.durations import span
from ..core.errors import InvalidArgument
from .jobs import Jobs, briefly
from .names import from_segment, name_bytes, name_text, shown, typed
from .reader import Reader
from .sampler import Sampler

MOST = 1_000
"""dead letters that may be named in one act"""
_REMEMBERED = 1_000


@dataclass(frozen=True)
class Outcome:
    """What became of an act."""

    message: str
    document: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200

    @property
    def ok(self) -> bool:
        """Whether it was done."""
        return self.status < 400


class Refused(Exception):
    """Raised for an act that is not allowed, or that cannot be meant so."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def check_allowed(allow: Collection[str]) -> frozenset[str]:
    """Return the acts that are allowed; raises `InvalidArgument` for one that is none."""
    if isinstance(allow, str) or not all(one in ACTS for one in allow):
        raise InvalidArgument(f"allow is {allow!r}: give a sequence of {', '.join(ACTS)}")
    return frozenset(allow)


def new_token() -> str:
    """Return what a form sends along, so that it counts once however often it is sent."""
    return os.urandom(16).hex()


class Acts:
    """What performs acts, each once for each token."""

    def __init__(self, allow: frozenset[str], sampler: Sampler, jobs: Jobs) -> None:
        self.allow = allow
        self._sampler, self._jobs = sampler, jobs
        self._done: OrderedDict[str, asyncio.Future[Outcome]] = OrderedDict()

    def need(self, act: str) -> None:
        """Raise `Refused` unless an act is allowed."""
        if act not in self.allow:
            how = "it was started without --allow" if not self.allow else f"it allows {', '.join(sorted(self.allow))}"
            raise Refused(403, f"This dashboard does not allow {act}: {how}.")

    def outcome(self, token: str) -> Outcome | None:
        """Return what became of the act with this token, if that is still known."""
        found = self._done.get(token)
        return found.result() if found is not None and found.done() and not found.exception() else None

    async def once(self, token: str, act: Callable[[], Awaitable[Outcome]]) -> Outcome:
        """Perform an act, or wait for the outcome of the same one that was sent before."""
        loop = asyncio.get_running_loop()
        found = self._done.get(token)
        if found is None:
            found = self._done[token] = loop.create_task(_performed(act))  # it goes on if the reader goes away
            found.add_done_callback(lambda future: self._forget_failure(token, future))
            while len(self._done) > _REMEMBERED:
                self._done.popitem(last=False)
        return await asyncio.shield(found)

    def _forget_failure(self, token: str, future: asyncio.Future[Outcome]) -> None:
        """Let what was refused, or failed, be asked for again."""
        if future.cancelled() or future.exception() or not future.result().ok:
            self._done.pop(token, None)

    # -- the acts

    async def pause(self, reader: Reader, length: Any, reason: Any, token: str, group: bytes | None = None) -> Outcome:
        """Pause a queue, or one group of it."""
        self.need("pause")
        seconds = _duration(length)
        if group is None:
            said = _text("reason", reason)
            await reader.queue.pause(seconds, said, token=token)
        elif reader.buffer is None:
            raise Refused(404, "A priority queue has no groups.")
        else:
            await reader.buffer.pause_group(name_text(group), seconds, token=token)
        self._sampler.soon(reader.info.name)
        what = shown(reader.info.name) if group is None else f"Group {shown(group)}"
        until = "until resumed" if seconds is None else f"for {span(seconds)}"
        return Outcome(f"{what} is paused {until}.", {"paused": True, "seconds": seconds})

    async def resume(self, reader: Reader, token: str, group: bytes | None = None) -> Outcome:
        """End the pause of a queue, or of one group of it."""
        self.need("pause")
        if group is None:
            was = await reader.queue.resume(token=token)
        elif reader.buffer is None:
            raise Refused(404, "A priority queue has no groups.")
        else:
            was = await reader.buffer.resume_group(name_text(group), token=token)
        self._sampler.soon(reader.info.name)
        what = shown(reader.info.name) if group is None else f"Group {shown(group)}"
        return Outcome(
            f"{what} is resumed." if was else f"{what} was not paused.", {"paused": False, "was_paused": was}
        )

    async def settle(
        self, verb: Literal["redrive", "discard"], reader: Reader, segments: Sequence[str], token: str
    ) -> Outcome:
        """Redrive or discard the dead letters of these names."""
        self.need(verb)
        if not 0 < len(segments) <= MOST:
            raise Refused(400, f"{len(segments):,} dead letters are named: choose 1 to {MOST:,}, or all.")
        names = [from_segment(one) for one in segments]
        queue: Any = reader.queue
        ids = [name_text(name) for name in names] if reader.buffer is not None else names
        count = await (queue.redrive if verb == "redrive" else queue.discard)(*ids, token=token)
        self._sampler.soon(reader.info.name)
        done = "redriven" if verb == "redrive" else "discarded"
        others = len(names) - count
        rest = f" {others:,} had already left." if others else ""
        return Outcome(f"{count:,} {done}.{rest}", {done: count})

    async def settle_all(self, verb: Literal["redrive", "discard"], reader: Reader) -> Outcome:
        """Begin to redrive or discard all that is dead now."""
        self.need(verb)
        total = await reader.dead_count()
        if not total:
            return Outcome("Nothing is dead.", {"job": None})
        return await self._begin(verb, reader, total)

    async def purge(self, reader: Reader, confirmed: Any) -> Outcome:
        """Begin to throw everything in a queue away, if its name was typed."""
        self.need("purge")
        name = _text("name", confirmed)
        if name != reader.info.name and typed(name.strip()) != name_bytes(reader.info.name):
            raise Refused(400, f"That is not the name of the queue. Type {shown(reader.info.name)} to purge it.")
        outcome = await self._begin("purge", reader, None)
        return replace(outcome, message=f"{shown(reader.info.name)}: {outcome.message}")  # for the overview

    async def _begin(self, verb: Literal["redrive", "discard", "purge"], reader: Reader, total: int | None) -> Outcome:
        job = self._jobs.start(verb, reader, total)
        if job is None:
            raise Refused(409, "Something is being done to this queue already: wait for it, or stop it.")
        await briefly(job)
        if job.error:
            return Outcome(job.said, {"job": job.document()}, 503)
        return Outcome(
            job.said + ("." if not job.running else "; this page shows how far it is."), {"job": job.document()}
        )


async def _performed(act: Callable[[], Awaitable[Outcome]]) -> Outcome:
    return await act()


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise Refused(400, f"{name} is not a text.")
    return value


def _duration(value: Any) -> float | None:
    """Read how long a pause is: nothing, a number of seconds, or `10m`."""
    if value is None or value == "":
        return None
    seconds = seconds_of(value.strip()) if isinstance(value, str) else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or seconds != seconds:
        raise Refused(400, "That is not a duration: give 90s, 10m, 1h30m or 7d, or nothing for a pause without an end.")
    if not 0.001 <= seconds <= validate.MAX_SECONDS:
        raise Refused(400, "That duration is out of range: give 1ms to three years.")
    return float(seconds)
