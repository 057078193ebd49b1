"""Exhaustive search of small scopes: every call from every reachable state, on the scripts and on the model.

    python -m tests.scripts.exhaustive buffer [--depth 12] [--scope ordered,client] [--seconds 600]

A scope has a few groups, items, leases and delays, and is searched breadth first. From each state each call is sent to
a real server twice in a row, and made on the model; the replies and the whole key space are compared, and the second
run must give the first answer and change nothing. Earlier calls on the way to a state, and calls with leases that are
over, are also sent from it, late. A blocked client must be woken if there is something to take. Every state is read by
one of the read-only scripts, including an audit. The output is the number of states and transitions, and the depth; a
closed scope was searched completely.

States are merged if they differ only in names, contents and a shift in time:

    - items, reasons and payloads are data: only how many there are, or whether there is one, counts;
    - batches are identified by the order of their ids, which breaks ties between equal times; groups and members keep
      their names;
    - future times are identified by their distance; of past times only the order counts (in the priority queue, which
      handles all that is due at once, only that they have passed);
    - counters, which scripts only report, and remembered answers, which only the same call sees, are left out. A state
      keeps the last few answers on the path by which it was first reached.
"""

from __future__ import annotations

import argparse
import itertools
import marshal
import math
import socket
import sys
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

import hiredis
import redis

from redisq.core.scripts import load
from redisq.embedded import Server, binaries
from tests import model
from tests.model.priority import DEAD, PLACES, REMOVED, Note
from tests.scripts import keyspace
from tests.scripts.as_model import BufferScripts, LimitScripts, PriorityScripts, Scripts
from tests.scripts.raw import Raw, exists
from tests.scripts.walk import Difference, _short

PREFIX = b"redisq:{q}:"
START = 1_700_000_000_000
TICK = 60_000
"""the step of time: long, so that no key expires while its state is examined"""
REMEMBERED = 3
"""answers and ended leases that a state keeps of the path to it"""
NEVER = b"never"
"""a lease that never existed"""

# Replace the stored queue: command, key, whether it expires, number of values, values.
_WRITE = """
local old = redis.call('KEYS', '*')
if #old > 0 then
  redis.call('DEL', unpack(old))
end
local i = 1
while ARGV[i] do
  local command, key, expires, count = unpack(ARGV, i, i + 3)
  redis.call(command, key, unpack(ARGV, i + 4, i + 3 + count))
  if expires == '1' then
    redis.call('PEXPIRE', key, '900000000')
  end
  i = i + 4 + count
end
"""

# Read the queue and store a copy; or only store it; or check whether it is still the same.
_READ = """
local readers = { zset = { 'ZRANGE', '0', '-1', 'WITHSCORES' }, list = { 'LRANGE', '0', '-1' }, hash = { 'HGETALL' },
  set = { 'SMEMBERS' }, string = { 'GET' } }
local found, text, keys = {}, {}, redis.call('KEYS', ARGV[1] .. '*')
table.sort(keys)
for i, key in ipairs(keys) do
  local kind = redis.call('TYPE', key).ok
  local value = redis.call(readers[kind][1], key, unpack(readers[kind], 2))
  local expires = redis.call('PTTL', key) < 0 and -1 or 1
  found[i] = { key, kind, expires, value }
  text[i] = key .. expires .. (kind == 'string' and value or table.concat(value, '\\1'))
end
text = table.concat(text, '\\2')
if ARGV[2] == 'same' and redis.call('GET', 'noted') == text then
  return 1
elseif ARGV[2] ~= 'same' then
  redis.call('SET', 'noted', text)
end
return ARGV[2] == 'note' or found
"""
_ZSETS = {b"groups", b"since", b"leases", b"delayed", b"dead", b"paused_groups"}
_WRITERS = {b"zset": b"ZADD", b"list": b"RPUSH", b"hash": b"HSET", b"set": b"SADD", b"string": b"SET"}

Call = tuple[str, tuple[Any, ...]]
Trace = tuple[Any, Call, Any]
"""the trace before, a call and its answer"""


@dataclass
class State:
    """A state: the content of the model and of the server, and how it was reached."""

    model: Any
    now: int = START
    snapshot: Sequence[Any] = ()
    """the server's keys as they were read"""
    steps: int = 0
    """how many calls led to it, so that each has new ids"""
    waiting: int | None = None
    """when a blocked client tries again without a wake-up"""
    sent: tuple[tuple[Call, Any], ...] = ()
    """the last calls that the server remembers, and their answers"""
    trace: Trace | None = None


@dataclass
class Step:
    """A call from a state, with its effect on the model."""

    call: Call
    after: State
    expected: Any
    woken: bool
    """whether a blocked client sends it, which takes the wake-up first"""
    again: bool
    """whether it has the same answer when it is sent again"""


Unchanged = list[tuple[Call, Any]]
"""calls that change nothing, with their answers"""


@dataclass
class Sent:
    """The calls that were sent from a state."""

    state: State
    unchanging_calls: list[Unchanged]
    steps: list[Step]


# -- scopes


class Scope:
    """A small scope of one structure: its calls, and which states are merged."""

    structure = ""
    ONE_WAY: ClassVar = {"pop", "pop_longest", "purge"}
    """calls that have another answer when they are sent again"""
    TICKS: ClassVar[tuple[int, ...]] = (TICK,)
    """the steps in which time moves"""
    AUDITED: ClassVar[tuple[str, ...]] = ()
    """what an audit checks, besides the keys"""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.client: bool = options.get("client", False)
        """whether there is a blocked client"""

    def has(self, verb: str) -> bool:
        """Return whether a script exists."""
        return exists(f"{self.structure}/{verb}")

    def get(self, name: str, default: Any = False) -> Any:
        """Return an option."""
        return self.options.get(name, default)

    def new(self) -> Any:
        """Return the model of an empty queue."""
        raise NotImplementedError

    def scripts(self, raw: Raw, queue: Any) -> Scripts:
        """Return the scripts, with the model's settings."""
        raise NotImplementedError

    def calls(self, state: State) -> Iterator[Call]:
        """Yield every call of the scope."""
        raise NotImplementedError

    def canonical(self, state: State) -> tuple[Any, ...]:
        """Return a key that is the same for states that are merged."""
        raise NotImplementedError

    def new_id(self, state: State) -> bytes:
        """Return an unused id: after all others in the order of names, or before them."""
        return b"%05d" % (99_999 - state.steps if self.get("falling") else state.steps)

    def ended_leases(self, state: State) -> list[bytes]:
        """List leases that are over, the latest first."""
        return [*reversed(state.model.ended), NEVER]

    def forgotten_leases(self, state: State) -> list[bytes]:  # noqa: ARG002, subclasses use it
        """List leases that are known to be over although the server does not remember how they ended."""
        return []

    def late(self, now: int, lease: bytes) -> list[Call]:  # noqa: ARG002, subclasses use it
        """List the calls with a lease that is over."""
        return []

    def inspections(self, state: State) -> Unchanged:  # noqa: ARG002, subclasses use it
        """List the read-only calls and their answers, each on one page."""
        return []

    def allows(self, state: State, ms: int) -> bool:  # noqa: ARG002, subclasses use it
        """Return whether time may move this far from a state."""
        return ms > 0


def ranks(times: Iterable[int], now: int) -> Callable[[int], int]:
    """Return what represents a time: its distance, or its rank among past times."""
    past = sorted({one for one in times if one < now})
    place = {one: i - len(past) for i, one in enumerate(past)}
    return lambda one: place[one] if one < now else one - now


def subsets(count: int) -> Iterator[tuple[int, ...]]:
    """Yield every subset of places."""
    for size in range(count + 1):
        yield from itertools.combinations(range(count), size)


class QueueScope(Scope):
    """What the scopes of both structures share."""

    kind: type[Any]

    def new(self) -> Any:
        settings = {"lease": 2 * TICK, **self.get("settings", {})}
        return self.kind(limit=model.Limit(settings.pop("rates", [])), **settings)

    def pauses(self, state: State) -> Iterator[Call]:
        """Yield the calls that pause a queue and resume it."""
        if self.get("pauses"):
            yield "pause", (state.now, 0, b"why", self.new_id(state))
            yield "pause", (state.now, TICK, b"", self.new_id(state))
            yield "resume", (self.new_id(state),)

    def late(self, now: int, lease: bytes) -> list[Call]:
        settle = [(verb, (now, lease)) for verb in ("ack", "release", "bury")]
        reserve = [("reserve", (now, 3, lease, b"h"))] if lease != NEVER else []
        return [*reserve, *settle, ("extend", (now, lease, 5 * TICK))]

    def common(self, state: State) -> tuple[Any, ...]:
        """Return the part of a state that does not depend on the structure."""
        q, now = state.model, state.now
        longest = max((per for _, per in q.limit.rates), default=0)
        return (
            q.mark,
            q.drained,
            q.token,
            None if state.waiting is None else max(0, state.waiting - now),
            q.paused[0] and q.paused[0] - now if q.is_paused(now) else None,
            tuple((grant.at - now, grant.amount) for grant in q.limit.grants if grant.at >= now - longest),
        )


class BufferScope(QueueScope):
    """A scope of the buffer."""

    structure = "buffer"
    kind = model.Buffer
    AUDITED: ClassVar = ("groups", "since", "busy", "leases", "delayed", "dead")
    GROUPS: ClassVar = (b"a", b"b")

    def scripts(self, raw: Raw, queue: Any) -> Scripts:
        return BufferPages(raw, queue)

    def calls(self, state: State) -> Iterator[Call]:
        q, now, new = state.model, state.now, self.new_id(state)
        room = self.get("items", 3) - sum(map(len, q.items.values())) - sum(len(b.items) for b in q.batches.values())
        for group in self.GROUPS:
            for count in range(1, min(2, room) + 1):
                items = [b"%d.%d" % (state.steps, i) for i in range(count)]
                yield "push", (now, group, items, new)
                if self.get("front"):
                    yield "push", (now, group, items, new, True)
            yield "pop", (now, group, 1)
            if len(q.items.get(group, ())) > 1:
                yield "pop", (now, group, 3)
        yield "pop_longest", (now, 1, 1)
        yield "pop_longest", (now, 2, 2)
        held = [one for one, batch in q.batches.items() if batch.place == "leases"]
        if len(held) < self.get("leases", 2):
            yield from (("reserve", (now, size, new, b"h")) for size in (1, 3))
            if self.get("bytes"):
                yield "reserve", (now, 3, new, b"h", 5)
        for one in held:
            for failed in subsets(len(q.batches[one].items)):
                for delay in (0, TICK) if failed else (0,):
                    yield "ack", (now, one, failed, delay, b"why" if delay else b"")
            for delay, counted in itertools.product((0, TICK), (True, False)):
                yield "release", (now, one, delay, counted, b"" if delay else b"why")
            yield "bury", (now, one, b"why")
            yield "extend", (now, one, 3 * TICK)
        dead = [one for one, batch in q.batches.items() if batch.place == "dead"]
        for ids in [*([one] for one in dead), *([dead, dead[::-1]] if len(dead) > 1 else [])]:
            yield "redrive", (now, ids, new)
            yield "discard", (ids, new)
        yield from self.pauses(state)
        for group in self.GROUPS:
            if self.get("pauses"):
                yield from (("pause_group", (now, group, ms, new)) for ms in (0, TICK))
                yield "resume_group", (now, group, new)
            if self.has("drop_group"):
                yield "drop_group", (group, new)
        yield "purge", (100,)

    def ended_leases(self, state: State) -> list[bytes]:
        return [
            *super().ended_leases(state),
            *(one for one in self.forgotten_leases(state) if one not in state.model.ended),
        ]

    def forgotten_leases(self, state: State) -> list[bytes]:
        return [one for one, batch in state.model.batches.items() if batch.place != "leases"]

    def inspections(self, state: State) -> Unchanged:
        q, now = state.model, state.now
        found: Unchanged = [(("stats", (now, 100)), q.stats(now))]
        found += [(("show", (place, 100)), q.show(place)) for place in ("leases", "delayed", "dead")]
        found += [(("groups", (name, 100)), q.groups(name)) for name in ("waiting", "busy", "paused")]
        found += [(("peek", (group, 2, after)), q.peek(group, 2, after)) for group in self.GROUPS for after in (0, 1)]
        return found

    def canonical(self, state: State) -> tuple[Any, ...]:
        q, now = state.model, state.now
        batches, wait = sorted(q.batches.items()), q.max_wait
        times = [batch.time for _, batch in batches if batch.place != "dead"]
        times += [int(end) for end in q.paused_groups.values() if end < math.inf]
        joint = ranks(times + [since + wait for since in q.since.values()] if wait else times, now)
        buried = ranks((batch.time for _, batch in batches if batch.place == "dead"), now)
        ids = [one for one, _ in batches]
        groups = []
        for group in self.GROUPS:
            since, end = q.since.get(group), q.paused_groups.get(group)
            groups.append(
                (
                    len(q.items.get(group, ())),
                    None if since is None else wait and joint(since + wait),
                    ids.index(q.busy[group]) if group in q.busy else None,
                    None if end is None else joint(int(end)) if end < math.inf else "resumed",
                )
            )
        return (
            tuple(groups),
            tuple(
                (b.place, b.group, len(b.items), b.attempts, buried(b.time) if b.place == "dead" else joint(b.time))
                for _, b in batches
            ),
            self.common(state),
        )


class PriorityScope(QueueScope):
    """A scope of the priority queue."""

    structure = "priority"
    kind = model.Priority
    AUDITED: ClassVar = ("ready", "delayed", "dead", "leases", "held", "again", "rows", "payloads")

    def scripts(self, raw: Raw, queue: Any) -> Scripts:
        return PriorityPages(raw, queue)

    def calls(self, state: State) -> Iterator[Call]:
        q, now, new = state.model, state.now, self.new_id(state)
        names = [b"a", b"b"][: self.get("members", 2)]
        priorities, delays, reasons = (0, 1), self.get("delays", (0, TICK)), self.get("reasons", (b"why",))
        for name, priority, delay, how in itertools.product(names, priorities, delays, self.get("how", ("min", "set"))):
            yield "push", (now, [(priority, name, None)], new, delay, how)
        if self.get("payloads"):
            for name, delay in itertools.product(names, delays):
                yield "push", (now, [(0, name, b"payload")], new, delay)
        if len(names) > 1:
            yield "push", (now, [(0, b"a", None), (1, b"b", None)], new)
            yield "push", (now, [(0, b"b", None), (0, b"a", None)], new, delays[-1], "set")
        for count in range(1, len(names) + 1):
            yield "pop", (now, count)
            if len(q.leases) < self.get("leases", 2):
                yield "reserve", (now, count, new, b"h")
        for one, lease in q.leases.items():
            for failed in subsets(len(lease.members)):
                for delay in delays if failed else (0,):
                    yield "ack", (now, one, [(place, reasons[-1]) for place in failed], delay)
            for delay, counted, reason in itertools.product(delays, (True, False), reasons):
                yield "release", (now, one, delay, counted, reason)
            yield "bury", (now, one, b"why")
            yield "extend", (now, one, q.lease)
        for chosen in [[name] for name in names] + [names] * (len(names) > 1):
            if any(name in q.members for name in chosen):
                yield "remove", (chosen, new)
            if any(q.state(name) == DEAD for name in chosen):
                yield "redrive", (chosen, new)
                yield "discard", (chosen, new)
        yield from self.pauses(state)
        yield "purge", (500,)

    def inspections(self, state: State) -> Unchanged:
        q, now = state.model, state.now
        found: Unchanged = [(("stats", (now,)), q.stats(now)), (("batches", (100,)), q.batches())]
        found += [*((("state", (name,)), q.state(name)) for name in (b"a", b"b"))]
        return found + [(("show", (place, 100)), q.show(place)) for place in ("ready", "delayed", "dead")]

    def canonical(self, state: State) -> tuple[Any, ...]:
        q, now, most = state.model, state.now, state.model.max_attempts
        died = ranks((one.due for one in q.members.values() if one.state == DEAD), now)

        def at(due: int) -> int | None:
            return max(-1, due - now) if due else None  # a due time of 0 is earlier than any

        present = [one for one in q.members.values() if one.state != REMOVED]
        scores = {one.score for one in present} | {one.note.score for one in present if one.note}
        if q.order == "fifo":  # of places, only the order counts
            order = {score: (float(score // PLACES), i) for i, score in enumerate(sorted(scores))}
        else:
            order = {score: (float(score), 0) for score in scores}
        members: list[Hashable] = []
        for name, one in sorted(q.members.items()):
            if one.state == REMOVED:
                members.append((name, one.state))
                continue
            if one.state == DEAD:
                seen: Hashable = died(one.due)
            else:
                seen = at(one.due), min(one.attempts, most) if most else one.attempts > 0, one.reason != b""
            note = one.note and (order[one.note.score], at(one.note.due), one.note.how)
            members.append((name, one.state, order[one.score], seen, one.payload is not None, note))
        leases = sorted((max(-1, one.deadline - now), [name for name, _ in one.members]) for one in q.leases.values())
        return tuple(members), tuple((due, tuple(names)) for due, names in leases), self.common(state)


class LimitScope(Scope):
    """A scope of the limiter, whose clock may also be set back; its step is 1 ms, as a span includes both its ends."""

    structure = "limit"
    TICKS: ClassVar = (1, -1)

    def new(self) -> model.Limit:
        return model.Limit(self.get("rates"))

    def scripts(self, raw: Raw, queue: Any) -> Scripts:
        return LimitScripts(raw, queue)

    def calls(self, state: State) -> Iterator[Call]:
        for cost in range(1, self.get("cost", 3) + 1):
            yield "acquire", (state.now, cost, self.new_id(state))

    def ended_leases(self, state: State) -> list[bytes]:  # noqa: ARG002, subclasses use it
        return []

    BACK: ClassVar = 2
    """ms by which the clock may be behind a grant"""

    def newest(self, state: State) -> int | None:
        """Return the time of the last grant, as far as it can matter."""
        newest = max((grant.at for grant in state.model.grants), default=0)
        return newest if newest >= state.now - self.longest(state) else None

    def longest(self, state: State) -> int:
        """Return the longest span."""
        return int(max(per for _, per in state.model.rates))

    def allows(self, state: State, ms: int) -> bool:
        newest = self.newest(state)
        return ms > 0 or (newest is not None and newest < state.now + self.BACK)

    def canonical(self, state: State) -> tuple[Any, ...]:
        newest = self.newest(state)
        if newest is None:
            return ()
        start = newest - self.BACK - self.longest(state)  # a grant that has left the span may be in it again
        return tuple((one.at - state.now, one.amount) for one in state.model.grants if one.at >= start)


# -- the search


class Pending(Exception):
    """Raised instead of running a script, to get its command."""

    def __init__(self, parts: Sequence[Any]) -> None:
        self.parts = parts


class Deferred(Raw):
    """The scripts of a queue, called in two steps: first for the command, then with its reply."""

    COMMAND: ClassVar = object()

    def __init__(self, client: redis.Redis, prefix: bytes, texts: dict[str, bytes]) -> None:
        super().__init__(client, prefix)
        self.texts = texts
        self.shas: dict[str, str] = {}
        self.reply: Any = self.COMMAND
        """the reply to a call, or None if its command is wanted"""
        self.answered: tuple[str, dict[str, Any]] | None = None

    def call(self, name: str, **values: Any) -> Any:
        """Raise the command of a call, or return its reply; for further pages, nothing."""
        if self.reply is self.COMMAND:
            if name not in self.shas:
                self.shas[name] = str(self.client.script_load(self.texts.get(name) or load(name).text))
            keys, args = self.command(name, values)
            raise Pending(["EVALSHA", self.shas[name], len(keys), *keys, *args])
        if self.answered not in (None, (name, values)):
            return []
        self.answered = name, values
        if isinstance(self.reply, Exception):
            raise self.reply
        return self.reply


class BufferPages(BufferScripts):
    """The scripts of the buffer, and one page of an audit."""

    def audit_page(self, now: int, cursor: str) -> Any:
        return self.call("audit", now=now, cursor=cursor, limit=100, repair="report", **self.HORIZON)[2]


class PriorityPages(PriorityScripts):
    """The scripts of the priority queue, and one page of an audit."""

    def audit_page(self, now: int, cursor: str) -> Any:
        return self.call("audit", now=now, cursor=cursor, limit=100, repair="report", **self.HORIZON)[2]


class Connection:
    """A client's connection to the server, for many commands at once with little overhead."""

    def __init__(self, client: redis.Redis) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(client.connection_pool.connection_kwargs["path"])
        self.reader = hiredis.Reader(replyError=redis.ResponseError)
        self.awaited = 0
        """replies that have not been received"""

    def send(self, commands: Sequence[bytes]) -> None:
        """Send packed commands."""
        self.awaited += len(commands)
        self.socket.sendall(b"".join(commands))

    def receive(self) -> Any:
        """Return the next reply, or error."""
        while (reply := self.reader.gets()) is False:
            self.reader.feed(self.socket.recv(1 << 16))
        self.awaited -= 1
        return reply

    def skip(self, count: int) -> None:
        """Discard replies."""
        for _ in range(count):
            if isinstance(reply := self.receive(), Exception):
                raise reply


class Search:
    """A breadth-first search of a scope; `texts` are scripts that replace the real ones."""

    def __init__(self, client: redis.Redis, scope: Scope, texts: dict[str, bytes] | None = None) -> None:
        client.flushall()
        self.scope = scope
        self.wire = Connection(client)
        self.raw = Deferred(client, PREFIX, texts or {})
        self.scripts = scope.scripts(self.raw, scope.new())
        self.write, read = (str(client.script_load(text)) for text in (_WRITE, _READ))
        self.read, self.note, self.same = (_pack("EVALSHA", read, 0, PREFIX, how) for how in ("read", "note", "same"))
        self.take_wake_up = _pack("DEL", PREFIX + b"wake")
        self.expanded = 0
        self.frontier = [State(scope.new())]
        self.seen = {self.mark(self.frontier[0])}
        self.depth = 0
        self.transitions = 0
        """calls that may change something, and steps of time, each from one state"""
        self.others = 0
        """calls that change nothing, because they are late or only read"""

    def __enter__(self) -> Search:
        return self

    def __exit__(self, *_: object) -> None:
        self.wire.socket.close()

    @property
    def closed(self) -> bool:
        """Return whether every reachable state was seen, with every call from it."""
        return not self.frontier

    def __str__(self) -> str:
        found = (
            f"depth {self.depth}, {len(self.seen)} states, {self.transitions} transitions, {self.others} other calls"
        )
        return found + ", closed" * self.closed

    def run(
        self, depth: float = math.inf, seconds: float = math.inf, report: Callable[[str], None] | None = None
    ) -> None:
        """Search up to a depth, until the scope is closed, or until the time is over."""
        end = time.monotonic() + seconds
        while self.frontier and self.depth < depth:
            found: list[State] = []
            sent = self.send(self.frontier[0])
            for following in [*self.frontier[1:], None]:
                earlier, sent = sent, self.send(following) if following else sent  # so that the server is never idle
                found += self.receive(earlier)
                if time.monotonic() > end:
                    return
            self.frontier = found
            self.depth += 1
            if report:
                report(str(self))

    def send(self, state: State) -> Sent:
        """Send every call from a state."""
        self.expanded += 1
        queue = state.model
        steps, unchanging_calls = self.steps(state)
        unchanging_calls += self.unchanging_calls(state)
        forgetful = copied(queue)
        forgetful.once = {}
        lost: Unchanged = []
        memory = [PREFIX + b"once:" + one for one in queue.once]
        if forgotten_leases := self.scope.forgotten_leases(state):
            forgetful.ended = {}
            memory += [PREFIX + b"ended:" + one for one in queue.ended]
            lost = [(call, self.expect(forgetful, call)) for call in self.some_late(state.now, forgotten_leases)]

        restore = self.restore(state)
        out = [restore, self.note, *(self.command(call) for call, _ in unchanging_calls), self.same]
        if lost:
            forget = _pack("DEL", PREFIX, *memory)
            out += [forget, self.note, *(self.command(call) for call, _ in lost), self.same]
        for step in steps:
            command = self.command(step.call)
            out += [restore, self.take_wake_up, command] if step.woken else [restore, command]
            out += [self.read, command, self.same] if step.again else [self.read]
        self.wire.send(out)
        return Sent(state, [unchanging_calls, lost] if lost else [unchanging_calls], steps)

    def receive(self, sent: Sent) -> list[State]:
        """Check the replies to what was sent; return the new states to which the calls lead."""
        for unchanging_calls in sent.unchanging_calls:
            self.check_unchanged(sent.state, unchanging_calls)
        found = [self.check(sent.state, step) for step in sent.steps]
        for call, after in self.unscripted(sent.state):
            self.transitions += 1
            found.append(self.new(sent.state, after, call, None, self.rewritten(sent.state, after.model)))
        return [one for one in found if one]

    def mark(self, state: State) -> int:
        """Return a number that merged states share; hash() itself confuses -1 and -2, and 0 and False."""
        return hash(marshal.dumps(self.scope.canonical(state), 2))

    # -- what is sent

    def steps(self, state: State) -> tuple[list[Step], Unchanged]:
        """Make every call on the model; return those that change something, and the others with their answers."""
        steps, unchanging_calls = [], []
        for call in self.scope.calls(state):
            if not self.scope.has(call[0]):  # see unscripted
                continue
            step = self.step(state, call)
            if step.after.waiting == state.waiting and step.after.model == state.model:
                unchanging_calls.append((call, step.expected))
                self.transitions += 1
            else:
                steps.append(step)
        if state.waiting is not None and (state.model.token or state.waiting <= state.now):
            steps.append(self.step(state, ("reserve", (state.now, 1, self.scope.new_id(state), b"w")), woken=True))
        return steps, unchanging_calls

    def step(self, state: State, call: Call, woken: bool = False) -> Step:
        """Make a call on the model."""
        queue = copied(state.model)
        if woken:
            queue.token = False
        expected = self.expect(queue, call)
        after = State(queue, state.now, (), state.steps + 1, None if woken else state.waiting, state.sent)
        again = call[0] not in self.scope.ONE_WAY
        if call[0] == "reserve":
            again = expected[0] == b"batch"  # a reserve that handed out nothing is evaluated again
            if expected[0] == b"none" and self.scope.client and after.waiting is None:
                after.waiting = state.now + expected[1]
            elif expected[0] == b"buried" and woken:
                after.waiting = state.now  # the client calls again at once
        elif len(queue.once) > len(state.model.once):
            after.sent = (*after.sent, (call, expected))[-REMEMBERED:]
        return Step(call, after, expected, woken, again)

    def unscripted(self, state: State) -> Iterator[tuple[Call, State]]:
        """Yield what happens without a script, and the states after it.

        Time passes; a client that took a wake-up crashes; and the effects of calls without a script are written
        directly.
        """

        def copy(ms: int = 0, steps: int = 0) -> State:
            return State(copied(state.model), state.now + ms, (), state.steps + steps, state.waiting, state.sent)

        for ms in self.scope.TICKS:
            if self.scope.allows(state, ms):
                after = copy(ms)
                if getattr(after.model, "paused", None) and not after.model.is_paused(after.now):
                    after.model.paused = None  # the server deletes it
                yield ("time passes", (ms,)), after
        if self.scope.client and state.model.token:
            after = copy()
            after.model.token, after.waiting = False, None
            yield ("a wake-up is lost", ()), after
        for verb, args in self.scope.calls(state):
            if not self.scope.has(verb):
                after = copy(steps=1)
                after.model.window = 0  # the server will not remember it
                getattr(after.model, verb)(*args)
                after.model.window = state.model.window
                yield (verb, args), after

    def unchanging_calls(self, state: State) -> Unchanged:
        """List late calls, which change nothing, and read-only calls with a non-empty answer."""
        found = []
        for (verb, args), answer in state.sent:
            later = (state.now, *args[1:]) if isinstance(args[0], int) else args
            found.append(((verb, later), answer))
        found += [
            (call, self.expect(state.model, call)) for call in self.some_late(state.now, self.scope.ended_leases(state))
        ]
        if audited := self.scope.AUDITED:
            phases = "keys", audited[self.expanded % len(audited)]
            found += [(("audit_page", (state.now, f"{phase}:0")), []) for phase in phases]
        return found + [one for one in self.scope.inspections(state) if one[1]]

    def some_late(self, now: int, leases: Sequence[bytes]) -> list[Call]:
        """List all calls with the first of some leases, and one call with each of the others, in turn."""
        found = []
        for i, one in enumerate(leases):
            late = self.scope.late(now, one)
            found += late if i == 0 else [late[(self.expanded + i) % len(late)]]
        return found

    def expect(self, queue: Any, call: Call) -> Any:
        """Return the model's answer, or the class of its error."""
        verb, args = call
        try:
            return getattr(queue, verb)(*(args[:-1] if verb in {"purge"} else args))
        except model.Refused as refusal:
            return type(refusal)

    def command(self, call: Call) -> bytes:
        """Return a call in the form in which it is sent."""
        verb, args = call
        self.raw.reply = Deferred.COMMAND
        try:
            getattr(self.scripts, verb)(*args)
        except Pending as pending:
            return _pack(*pending.parts)
        raise AssertionError(f"{verb} calls no script")

    def answer(self, call: Call, reply: Any) -> Any:
        """Return the meaning of a reply, the class of an error, or a reply without meaning as it is."""
        verb, args = call
        self.raw.reply, self.raw.answered = reply, None
        try:
            return getattr(self.scripts, verb)(*args)
        except model.Refused as refusal:
            return type(refusal)
        except (redis.ResponseError, TypeError, ValueError, LookupError, AttributeError, AssertionError) as error:
            return f"{error}: no reply of {verb}"

    def restore(self, state: State) -> bytes:
        """Return the command that restores a state on the server."""
        parts: list[Any] = []
        for key, kind, expires, value in state.snapshot:
            values = [value] if kind == b"string" else value
            if kind == b"zset":
                values = [part for i in range(0, len(value), 2) for part in (value[i + 1], value[i])]
            parts += [_WRITERS[kind], key, max(0, expires), len(values), *values]
        return _pack("EVALSHA", self.write, 0, *parts)

    # -- checks

    def check(self, state: State, step: Step) -> State | None:
        """Compare the effects of a call on both sides; return the state after it if it is new."""
        self.transitions += 1
        self.wire.skip(2 if step.woken else 1)
        reply, every = self.wire.receive(), self.wire.receive()
        again, same = (self.wire.receive(), self.wire.receive()) if step.again else (reply, 1)
        call, after, answer = step.call, step.after, self.answer(step.call, reply)
        if not _agree(answer, step.expected):
            self.fail(state, call, f"answers\n    script {_short(answer)}\n    model  {_short(step.expected)}")
        try:
            found, expiring = keyspace.shape(every, PREFIX, after.now)
        except (AssertionError, ValueError, LookupError) as error:
            self.fail(state, call, f"leaves {_short(every)}: {error}")
        expected = after.model.keys(after.now)
        if found != expected:
            names = [name for name in sorted({*found, *expected}) if found.get(name) != expected.get(name)]
            lines = [
                f"{name!r}\n    script {_short(found.get(name))}\n    model  {_short(expected.get(name))}"
                for name in names
            ]
            self.fail(state, call, "leaves other keys:\n  " + "\n  ".join(lines))
        if wrong := (expiring ^ after.model.expiring()) & found.keys():
            self.fail(state, call, f"leaves keys that should not have a TTL with one, or the other way round: {wrong}")
        if not _alike(reply, again):
            self.fail(state, call, f"sent again answers\n    at first {_short(reply)}\n    then     {_short(again)}")
        if same != 1:
            self.fail(state, call, f"sent again leaves\n    at first {_short(every)}\n    then     {_short(same)}")
        return self.new(state, after, call, step.expected, every)

    def check_unchanged(self, state: State, calls: Unchanged) -> None:
        """Check that calls which must not change anything give the model's answers, or their first answers."""
        self.others += len(calls)
        self.wire.skip(2)
        replies = [self.wire.receive() for _ in calls]
        same = self.wire.receive()
        for (call, expected), reply in zip(calls, replies, strict=True):
            answer = self.answer(call, reply)
            if not _agree(answer, expected):
                what = "is to change nothing, and answers"
                self.fail(state, call, f"{what}\n    script {_short(answer)}\n    model  {_short(expected)}")
        if same != 1:
            calls_made = ", ".join(_describe(call) for call, _ in calls)
            self.fail(state, ("one of these", ()), f"changes something: {calls_made}\n    leaves {_short(same)}")

    def new(self, state: State, after: State, call: Call, answer: Any, every: Sequence[Any]) -> State | None:
        """Check a state by itself; return it if it was not seen before."""
        queue = after.model
        try:
            queue.check()
        except AssertionError as error:
            self.fail(state, call, f"violates an invariant: {error}")
        blocked = after.waiting is not None and after.waiting > after.now
        if blocked and not queue.token and queue.could_take(after.now):
            self.fail(state, call, "does not wake the blocked client, although there is something to take")
        mark = self.mark(after)
        if mark in self.seen:
            return None
        self.seen.add(mark)
        after.trace = (state.trace, call, answer)
        gone = set()
        for memory, name in ((queue.once, b"once:"), (getattr(queue, "ended", {}), b"ended:")):
            while len(memory) > REMEMBERED:  # they have expired, which keeps a state small
                oldest = next(iter(memory))
                del memory[oldest]
                gone.add(PREFIX + name + oldest)
        after.snapshot = [entry for entry in every if entry[0] not in gone] if gone else every
        return after

    def rewritten(self, state: State, queue: Any) -> Sequence[Any]:
        """Return the keys of a state, with those that were changed without a script."""
        before, after = state.model.keys(state.now), queue.keys(state.now)
        lasting, expiring = state.model.expiring(), queue.expiring()
        entries = {entry[0]: entry for entry in state.snapshot}
        for name in {*before, *after}:
            if name not in after:
                del entries[PREFIX + name]
            elif before.get(name) != after[name] or (name in lasting) != (name in expiring):
                value: Any = after[name]
                kind = b"string" if isinstance(value, bytes) else b"list"
                if isinstance(value, dict):
                    kind = b"zset" if name in _ZSETS else b"hash"
                    value = [part for pair in value.items() for part in pair]
                entries[PREFIX + name] = [PREFIX + name, kind, 1 if name in expiring else -1, value]
        return list(entries.values())

    def fail(self, state: State, call: Call, what: str) -> NoReturn:
        """Raise a difference, with the calls that lead to it."""
        while self.wire.awaited:
            self.wire.receive()
        lines, trace = [f"{_describe(call)} {what}"], state.trace
        while trace:
            trace, earlier, answer = trace
            lines.append(f"    {_describe(earlier)}" + (f" -> {_short(answer)}" if answer is not None else ""))
        raise Difference("\n".join(["after", *reversed(lines)]))


def _pack(*parts: Any) -> bytes:
    """Return a command in the form in which it is sent."""
    return bytes(hiredis.pack_command(parts))


def _agree(answer: Any, expected: Any) -> bool:
    """Compare answers; a call that can be refused for two reasons may be refused for either."""
    return answer == expected or (isinstance(answer, type) and isinstance(expected, type))


def _alike(first: Any, second: Any) -> bool:
    return str(first) == str(second) if isinstance(first, Exception) else first == second


def _describe(call: Call) -> str:
    verb, args = call
    return f"{verb}({', '.join(map(_short, args))})"


def copied(value: Any) -> Any:
    """Return a copy of a model, sharing what is immutable."""
    kind = type(value)
    if kind is dict:
        if not value or type(next(iter(value.values()))) in _CONSTANT:
            return value.copy()
        return {name: copied(one) for name, one in value.items()}
    if kind is list:
        if not value or type(value[0]) in _CONSTANT:
            return value.copy()
        return [copied(one) for one in value]
    if kind in _CONSTANT:
        return value
    new = object.__new__(kind)
    attributes = value.__dict__.copy()
    for name, one in attributes.items():
        if type(one) not in _CONSTANT:
            attributes[name] = copied(one)
    new.__dict__ = attributes
    return new


_CONSTANT = {bytes, str, int, float, bool, type(None), tuple, Note}


# -- command line

ATTEMPTS = {"max_attempts": 2, "max_dead": 1}
ONE_ATTEMPT = {"max_attempts": 1, "max_dead": 1, "lease": TICK}
SHORT = {**ATTEMPTS, "lease": TICK}
LATER = {**ONE_ATTEMPT, "lease": 3 * TICK}  # a client may be told a later time than the end of a pause
SCOPES: dict[str, dict[str, Scope]] = {
    "buffer": {
        "two": BufferScope(items=2, settings=ATTEMPTS),
        "isolate": BufferScope(items=2, settings={**ATTEMPTS, "isolate": True}),
        "ordered": BufferScope(items=2, front=True, falling=True, settings={**ATTEMPTS, "ordered": True}),
        "client": BufferScope(items=2, client=True, settings=ONE_ATTEMPT),
        "wait": BufferScope(items=2, client=True, settings={"min_size": 2, "max_wait": TICK, "lease": TICK}),
        "rates": BufferScope(items=2, leases=1, client=True, settings={**ONE_ATTEMPT, "rates": [(1, TICK)]}),
        "pauses": BufferScope(items=1, pauses=True, settings=ONE_ATTEMPT),
        "pauses-client": BufferScope(items=1, pauses=True, client=True, settings=ONE_ATTEMPT),
        "pauses-later": BufferScope(items=1, pauses=True, client=True, settings=LATER),
        "pauses-ordered": BufferScope(items=2, leases=1, pauses=True, settings={**ONE_ATTEMPT, "ordered": True}),
        "three": BufferScope(items=3, settings=ATTEMPTS),
        "three-ordered": BufferScope(
            items=3, front=True, bytes=True, settings={**ATTEMPTS, "ordered": True, "isolate": True}
        ),
    },
    "priority": {
        "one": PriorityScope(members=1, payloads=True, reasons=(b"why", b""), settings=ATTEMPTS),
        "client": PriorityScope(members=1, client=True, settings=ATTEMPTS),
        "rates": PriorityScope(members=1, client=True, settings={**ATTEMPTS, "rates": [(1, TICK)]}),
        "pauses": PriorityScope(members=1, client=True, pauses=True, settings=SHORT),
        "pauses-later": PriorityScope(members=1, client=True, pauses=True, settings=LATER),
        "score": PriorityScope(how=("min",), delays=(0,), settings={**SHORT, "order": "score"}),
        "fifo": PriorityScope(how=("min",), delays=(0,), settings=SHORT),
        "score-client": PriorityScope(
            how=("min",), delays=(0,), leases=1, client=True, settings={**ONE_ATTEMPT, "order": "score"}
        ),
        "full": PriorityScope(settings={**SHORT, "order": "score"}),
    },
    "limit": {
        "two": LimitScope(rates=[(2, 2), (4, 5)]),
    },
}


def main() -> int:
    """Search, and print the numbers of states, or the difference."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.scripts.exhaustive", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("structure", choices=[*SCOPES, "all"])
    parser.add_argument("--depth", type=int, default=math.inf, help="maximum number of calls from the empty queue")
    parser.add_argument("--scope", type=lambda text: text.split(","), help="these alone")
    parser.add_argument("--seconds", type=float, default=math.inf, help="maximum time for each scope")
    options = parser.parse_args()
    for structure in SCOPES if options.structure == "all" else [options.structure]:
        for name in options.scope or SCOPES[structure]:
            start = time.monotonic()

            def report(text: str, label: str = f"{structure} {name}", start: float = start) -> None:
                print(f"{label}: {text}, {time.monotonic() - start:.0f} s", flush=True)

            with (
                Server(binaries()[0]) as server,
                server.client() as client,
                Search(client, SCOPES[structure][name]) as search,
            ):
                try:
                    search.run(options.depth, options.seconds, report)
                except Difference as difference:
                    print(f"{structure} {name}: {search}\n{difference}")
                    return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
