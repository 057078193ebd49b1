"""The one sampler of a dashboard: it asks Redis for all viewers together, and for none when nobody looks.

Counting costs the server time: some 50 us for a queue, and more for each group of a buffer. So that all samples
together cost less than `BUDGET` of each second, queues are asked for less often the more there are, and those with very
many groups more rarely than the others; each sample says how old it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..asyncio.queues import queues
from ..asyncio.runner import Client, Runner
from ..core import validate
from ..core.buffer import BufferStats
from ..core.clients import errors, remedy_for
from ..core.documents import Stats
from ..core.durations import span
from ..core.queues import QueueInfo, QueueOverview, overviews
from ..core.rates import Rates, rates
from .reader import ask, marked
from .security import places
from .server import Condition, clock, condition, key_count

logger = logging.getLogger("redisq.web")

TICK = 2.0
"""seconds between two looks at most queues, while somebody looks"""
BUDGET = 0.004
"""of the server's time, for samples of stats"""
FIND_EVERY = 30.0
"""seconds between two scans for new queues; with more than 30,000 keys on the server there are more"""
CONDITION_EVERY = 60.0
STILL = 60.0
"""seconds without anything done after which a queue stands still"""
HISTORY = 60
"""points of a sparkline"""
_LARGE = 0.001  # seconds of the server's time, from which on a queue is asked for more rarely than others
_KEY_COST, _FIND_BUDGET = 1e-6, 0.001  # seconds of the server's time for a key in a scan; of each second, for scans
PAGE_TIMEOUT = 0.2
"""seconds that a page waits for numbers that nobody has asked for yet; then it shows the others, and these come live"""
_ANSWER_WITHIN, _FOUND_WITHIN = 20.0, 600.0
_FORGET = 120.0  # seconds after which a rate over the time since the last sample would say nothing of now


@dataclass(frozen=True)
class Used:
    """What was granted in the longest span of a queue's rates."""

    granted: int
    seconds: float


@dataclass(frozen=True)
class Point:
    """A moment of a sparkline."""

    time: float
    waiting: int
    done: float


@dataclass
class Sample:
    """What is known of one queue."""

    overview: QueueOverview
    at: float = 0.0
    """When it was asked for, by this machine's monotonic clock."""
    time: float = 0.0
    """The same by the server's clock."""
    rates: Rates = field(default_factory=Rates)
    used: Used | None = None
    """None for a queue whose workers have no rates, or were granted nothing for longer than their longest span."""
    still: float = 0.0
    """For how many seconds nothing was done, while something waited."""
    history: deque[Point] = field(default_factory=lambda: deque(maxlen=HISTORY))

    @property
    def info(self) -> QueueInfo:
        """The queue."""
        return self.overview.info

    @property
    def stats(self) -> Stats | None:
        """What it holds; None if it cannot be read."""
        return self.overview.stats

    @property
    def age(self) -> float:
        """How many seconds ago it was asked for."""
        return time.monotonic() - self.at

    @property
    def standing(self) -> float:
        """The same for people, in steps of ten seconds: what says something new each time is sent each time."""
        return self.still // 10 * 10

    @property
    def warnings(self) -> list[str]:
        """What somebody should look at."""
        if self.stats is None:
            return [f"It cannot be read: {self.overview.error}"] if self.overview.error else []
        if self.still >= STILL:
            return [
                f"Nothing was acked for {span(self.standing)}, while something waits. Do its workers run, and do their "
                "handlers return?"
            ]
        return []


class Sampler:
    """The reader of samples for all viewers of an app."""

    def __init__(
        self, client: Client, prefix: str, names: Sequence[str] | None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.client, self.prefix = client, prefix
        self._runner = Runner(client)
        self._unavailable: tuple[type[Exception], ...] = (
            OSError,
            asyncio.TimeoutError,
            *errors("RedisError", "RedisClusterException"),
        )
        self._names = names
        self._monotonic = monotonic
        self.samples: dict[str, Sample] = {}
        self.outage = ""
        """Why there is nothing newer; empty while Redis answers."""
        self.refused = False
        """Whether it is for good, until somebody changes a setting."""
        self.answered = False
        """Whether Redis has answered yet."""
        self.at = 0.0
        """When Redis last answered, by this machine's monotonic clock."""
        self.condition = Condition()
        self.version = 0
        self._offset = 0.0  # of the server's clock
        self._rated: dict[str, Used | None] = {}  # queues with rates
        self._due: dict[str, float] = {}
        self._tick_due = self._find_due = self._condition_due = 0.0
        self._often, self._found = TICK, False
        self._watchers: set[asyncio.Event] = set()
        self._task: asyncio.Task[None] | None = None
        self._passes: dict[tuple[str, ...], asyncio.Task[None]] = {}

    @property
    def now(self) -> float:
        """The server's clock, in unix seconds."""
        return time.time() + self._offset

    @property
    def silence(self) -> float:
        """For how many seconds Redis has not answered."""
        return self._monotonic() - self.at

    @property
    def fixed(self) -> bool:
        """Whether only queues of certain names are shown."""
        return self._names is not None

    @property
    def total_done(self) -> float | None:
        """What all queues together do a second; None while no rate is known."""
        known = [one.rates.done for one in self.samples.values() if one.rates.done is not None]
        return sum(known) if known else None

    # -- viewers

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[asyncio.Event]:
        """Sample while somebody watches; the event is set whenever there is something new."""
        changed = asyncio.Event()
        self._watchers.add(changed)
        try:
            if self._task is None or self._task.done():
                self._task = asyncio.get_running_loop().create_task(self._run())
            yield changed
        finally:
            self._watchers.discard(changed)

    async def _run(self) -> None:
        while self._watchers:
            await self.refresh()
            await asyncio.sleep(max(0.05, self._tick_due - self._monotonic()))

    def changed(self) -> None:
        """Tell all viewers that there is something new."""
        self.version += 1
        for event in self._watchers:
            event.set()

    def stop(self) -> None:
        """Stop sampling, whoever watches."""
        self._watchers.clear()
        if self._task is not None:
            self._task.cancel()

    async def refresh(self, timeout: float | None = None) -> None:
        """Ask Redis for what is due, once for all who call meanwhile; an outage is noted, not raised.

        With `timeout`, wait so many seconds at most: it goes on by itself.
        """
        if self._monotonic() >= self._tick_due:
            await self._once(("all",), self._sample, timeout, _ANSWER_WITHIN if self._found else _FOUND_WITHIN)

    async def sample(self, info: QueueInfo, timeout: float | None = None) -> Sample:
        """Return what is known of one queue; if nothing is yet, ask for it alone, before any scan has found it."""
        found = self.samples.get(info.name)
        if found is None or found.info != info:
            found = self.samples[info.name] = Sample(QueueOverview(info, None))
        if found.at:
            await self.refresh(timeout)
        else:
            await self._once(("queue", info.name), lambda: self._count([info]), timeout)
        return self.samples.get(info.name, found)

    async def _once(
        self,
        key: tuple[str, ...],
        act: Callable[[], Awaitable[None]],
        timeout: float | None,
        within: float = _ANSWER_WITHIN,
    ) -> None:
        """Do something for all who ask for it meanwhile; each waits for `timeout`, it may take `within` seconds."""
        loop = asyncio.get_running_loop()
        task = self._passes.get(key)
        if task is None or task.done() or task.get_loop() is not loop:
            task = self._passes[key] = loop.create_task(self._look(act, within))
        await asyncio.wait([task], timeout=timeout)
        if task.done() and self._passes.get(key) is task:
            del self._passes[key]

    async def ping(self) -> bool:
        """Say whether Redis answers now."""
        try:
            probe = self._runner.commands([("EXISTS", validate.key_prefix(self.prefix, "redisq-web"))])
            (reply,) = await asyncio.wait_for(probe, _ANSWER_WITHIN)
        except self._unavailable:
            return False
        return not isinstance(reply, Exception)

    def soon(self, name: str) -> None:
        """Ask for a queue with the next refresh, because something was done to it."""
        self._due[name] = self._tick_due = 0.0

    async def _look(self, act: Callable[[], Awaitable[None]], timeout: float) -> None:
        try:
            await asyncio.wait_for(act(), timeout)
            self.outage, self.answered, self.at, self.refused = "", True, self._monotonic(), False
        except self._unavailable as error:
            remedy = remedy_for(error)
            said = str(error) or f"no answer within {timeout:g} seconds"
            self.refused = remedy is not None
            self.outage = f"{said}; {remedy}" if remedy else said
            self._tick_due = self._monotonic() + TICK
        except Exception as error:
            # Whatever it is, it is told once for all viewers, and tried again: without its message, which may quote
            # what a queue holds.
            if self.outage != (said := f"the dashboard failed with {type(error).__name__}; its log says where"):
                logger.error("sampling failed with %s at %s", type(error).__name__, places(error))
            self.outage, self.refused, self._tick_due = said, False, self._monotonic() + TICK
        self.changed()

    # -- what is asked for

    async def _sample(self) -> None:
        started = self._monotonic()
        if not self._found:
            await self._find()
        elif started >= self._find_due:
            # A scan of many keys takes a while, and the numbers of what is known do not wait for it.
            await self._once(("find",), self._find, 0, _FOUND_WITHIN)
        if started >= self._condition_due:
            self.condition = await condition(self.client)
            self._condition_due = started + CONDITION_EVERY
        await self._count([one.info for one in self.samples.values() if self._due.get(one.info.name, 0.0) <= started])
        self._tick_due = started + self._often

    async def _count(self, due: Sequence[QueueInfo]) -> None:
        """Count what some queues hold."""
        started = self._monotonic()
        seen = await self._runner.run(overviews(due, self.prefix))
        at, now = self._monotonic(), self.now
        await self._ask_rates([info.name for info in due if info.name in self._rated], now)
        for one in seen:
            self._take(one, at, now)
        self._plan(started, {info.name for info in due})

    async def _find(self) -> None:
        """Look for queues, and which of them have rates."""
        started, before = self._monotonic(), set(self.samples)
        if self._names is None:
            found = await queues(self.client, self.prefix)
            cost = await key_count(self.client) * _KEY_COST
        else:
            found, cost = await marked(self._runner, self.prefix, self._names), 0.0
        self._offset = await clock(self.client) - time.time()
        keys = [validate.key_prefix(self.prefix, info.name) + b"grants" for info in found]
        granted = await ask(self._runner, *[("EXISTS", key) for key in keys])
        self._rated = {
            info.name: self._rated.get(info.name) for info, there in zip(found, granted, strict=True) if there
        }
        known, self.samples = self.samples, {}
        for info in found:
            one = known.get(info.name)
            self.samples[info.name] = one if one and one.info == info else Sample(QueueOverview(info, None))
        for name, one in known.items():  # somebody asked for these, while the scan had passed their keys
            if name not in before:
                self.samples.setdefault(name, one)
        self._due = {name: due for name, due in self._due.items() if name in self.samples}
        self._found, self._find_due = True, started + max(FIND_EVERY, cost / _FIND_BUDGET)

    def _take(self, one: QueueOverview, at: float, now: float) -> None:
        """Take in what a queue holds."""
        sample = self.samples.get(one.info.name)
        if sample is None:
            return
        before, since = sample.stats, at - sample.at
        sample.rates = rates(one.stats, before, since) if since < _FORGET else Rates()
        if one.stats is not None and before is not None:
            sample.still = 0.0 if _moves(one.stats, before) else sample.still + since
        sample.used = self._rated.get(one.info.name)
        if since >= _FORGET:
            sample.history.clear()
        if one.stats is not None:
            sample.history.append(Point(now, one.stats.waiting, sample.rates.done or 0.0))
        sample.overview, sample.at, sample.time = one, at, now

    def _plan(self, started: float, asked: set[str]) -> None:
        """Say when each queue is asked for again, within the budget."""
        costs = {one.info.name: _cost(one.overview) for one in self.samples.values()}
        small = sum(cost for cost in costs.values() if cost < _LARGE)
        large = sum(cost for cost in costs.values() if cost >= _LARGE)
        share = BUDGET / 2 if small and large else BUDGET
        often, rarely = max(TICK, small / share), max(TICK, large / share)
        for name in asked & costs.keys():  # a scan may have found meanwhile that some are gone
            self._due[name] = started + (rarely if costs[name] >= _LARGE else often)
        self._often = often

    # -- rates

    async def _ask_rates(self, names: Sequence[str], now: float) -> None:
        """See what was granted in the longest span that workers have: the key's TTL tells how long that is."""
        keys = [validate.key_prefix(self.prefix, name) + b"grants" for name in names]
        replies = await self._runner.commands(
            [command for key in keys for command in (("PTTL", key), ("ZRANGE", key, -1, -1, "WITHSCORES"))]
        )
        spans = [_longest(ttl, newest, now * 1000) for ttl, newest in zip(replies[::2], replies[1::2], strict=True)]
        firsts = await self._runner.commands(
            [
                ("ZRANGEBYSCORE", key, f"{now * 1000 - longest[0]:.0f}", "+inf", "LIMIT", 0, 1)
                for key, longest in zip(keys, spans, strict=True)
                if longest
            ]
        )
        left = iter(firsts)
        for name, longest in zip(names, spans, strict=True):
            if longest is None:
                self._rated[name] = None
                continue
            span_ms, total = longest
            first = _grant(next(left))
            self._rated[name] = Used(max(0, total - first[0]) if first else 0, span_ms / 1000)


def _grant(reply: Any) -> tuple[int, int, int] | None:
    """Read a grant: what was granted before it, its own amount, its time in ms; None for anything else.

    What is in one queue's key must not hide the numbers of the others.
    """
    if isinstance(reply, Exception) or not reply:
        return None
    first = reply[0][0] if isinstance(reply[0], (list, tuple)) else reply[0]
    try:
        before, amount, at = map(int, first.split())
    except ValueError:
        return None
    return before, amount, at


def _longest(ttl: Any, newest: Any, now: float) -> tuple[float, int] | None:
    """Return the longest span of a queue's rates in ms, and what was granted in all.

    A grant sets the key's TTL to that span and a second. It is read a moment later, so the last digits are noise.
    """
    grant = _grant(newest)
    if not isinstance(ttl, int) or ttl < 0 or grant is None:
        return None
    before, amount, at = grant
    exact = ttl + now - at - 1000
    return max(1.0, round(exact, -2 if exact > 5000 else -1)), before + amount


def _moves(now: Stats, before: Stats) -> bool:
    """Say whether something was done between two samples, or nothing had to be."""
    if not (now.waiting and before.waiting) or now.paused or before.paused or now.done != before.done:
        return True
    if isinstance(now, BufferStats) and not now.groups and not now.busy_groups:
        return True  # all its groups are paused
    # Where items are popped nothing is leased, and none is counted as done.
    return now.waiting < before.waiting and not now.leased and now.failed == before.failed


def _cost(one: QueueOverview) -> float:
    """Return about how many seconds of the server's time it takes to count what a queue holds."""
    if isinstance(one.stats, BufferStats):
        return 45e-6 + 0.9e-6 * (one.stats.groups + one.stats.busy_groups + one.stats.paused_groups)
    return 20e-6
