"""Random walks: every call is made by the scripts on a real server and on the model, with the same result.

    python -m tests.scripts.walk buffer --steps 400 --seeds 1-50 [--settings ordered,rates] [--all]

After each step the replies and the whole key space are compared. Calls are repeated, at once and later, time passes,
the clock is set back, wake-ups are lost, settings change. Each seed has its own settings, or all of the named ones; a
walk ends at the first difference unless --all is given. Scripts that do not exist are not called.
"""

from __future__ import annotations

import argparse
import collections
import random
import re
import sys
from collections.abc import Sequence
from typing import Any, ClassVar

import redis

from redisq.embedded import Server, binaries
from tests import model
from tests.model import Keys
from tests.scripts import keyspace
from tests.scripts.as_model import BufferScripts, LimitScripts, PriorityScripts, Scripts
from tests.scripts.raw import Raw, exists

PREFIX = b"redisq:{q}:"
START = 1_700_000_000_000
SHOWN = 15

GROUPS = (b"a", b"b", b"c:\x00d", b"e e")
REASONS = (b"", b"boom", b"429 too many")
DELAYS = (0, 1, 5000, 60_000)


class Difference(AssertionError):
    """Raised when scripts and model disagree, or when an invariant does not hold."""


Call = tuple[str, tuple[Any, ...], dict[str, Any]]


class Walk:
    """A queue on both sides, the clock, and the calls that were made."""

    VERBS: ClassVar[dict[str, float]] = {}
    """verb -> its weight"""
    WITHOUT_SCRIPT = ("wait", "lose_wake_up", "foreign_mark", "other_order", "adopt")
    model: Any
    scripts: Scripts

    def __init__(self, client: redis.Redis, seed: int, settings: str) -> None:
        client.flushall()
        self.client = client
        self.weights = dict(self.VERBS)
        self.random = random.Random(seed)
        self.settings = settings
        self.now = START
        self.elapsed = 0
        """time that has passed, which a clock that is set back does not show"""
        self.ids = 0
        self.sent: list[Call] = []
        """calls that may be repeated, the latest last"""
        self.log: collections.deque[str] = collections.deque(maxlen=SHOWN)
        self.tally: collections.Counter[str] = collections.Counter()
        self.waiting: dict[int, int] = {}
        """blocked client -> when it tries again without a wake-up, by `elapsed`"""

    # -- steps

    def step(self) -> None:
        """Make one step."""
        self.pass_time()
        if self.settings == "mixed" and self.random.random() < 0.2:
            self.change_settings()
            self.waiting.clear()  # the times that clients were told may be wrong for the new settings
        if self.sent and self.random.random() < 0.15:
            self.send_again()
        else:
            verbs = [verb for verb in self.weights if self.can(verb)]
            verb = self.random.choices(verbs, [self.weights[verb] for verb in verbs])[0]
            getattr(self, f"do_{verb}")()
        self.compare()

    def can(self, verb: str) -> bool:
        """Return whether the script of a verb exists."""
        return verb in self.WITHOUT_SCRIPT or exists(f"{self.scripts.structure}/{verb}")

    def pass_time(self) -> None:
        draw = self.random.random()
        if draw < 0.95:
            ms = self.random.choice((0, 0, 1, 50, 1000, 20_000))
        else:
            ms = self.random.choice((-30_000, 200_000, 400_000))
        self.now += ms
        self.elapsed += max(0, ms)

    def change_settings(self) -> None:
        """Let another consumer call next, as in a rolling deploy."""

    def both(self, verb: str, *args: Any, again: bool = True, **kwargs: Any) -> Any:
        """Make a call on both sides and compare the replies; return the model's, or the class of its error."""
        call = (verb, args, kwargs)
        if again:
            self.sent.append(call)
        return self._send(call)

    def _send(self, call: Call, note: str = "") -> Any:
        verb, args, kwargs = call
        answers = []
        for side in (self.model, self.scripts):
            try:
                answers.append(getattr(side, verb)(*args, **kwargs))
            except model.Refused as refusal:
                answers.append(type(refusal))
        expected, found = answers
        if isinstance(expected, type) and isinstance(found, type):
            found = expected  # a call that can be refused for two reasons may be refused for either
        shown = ", ".join([*map(_short, args), *(f"{name}={_short(value)}" for name, value in kwargs.items())])
        self.log.append(f"{note}{verb}({shown}) -> {_short(found)}")
        self.tally[verb if not isinstance(expected, type) else f"{verb} {expected.__name__}"] += 1
        if expected != found:
            raise Difference(f"{verb} answers\n    script {_short(found)}\n    model  {_short(expected)}")
        return expected

    def send_again(self) -> None:
        """Repeat a call: usually one of the latest, sometimes an old one."""
        recent = self.sent[-6:] if self.random.random() < 0.8 else self.sent[-200:]
        verb, args, kwargs = self.random.choice(recent)
        if args and isinstance(args[0], int) and args[0] > START // 2:
            args = (self.now, *args[1:])  # the server's clock goes on
        call = verb, args, kwargs
        known = self.is_remembered(call)
        before = self.model.keys(self.now)
        self._send(call, "again: ")
        if known and self.model.keys(self.now) != before:
            raise Difference(f"{verb} that was sent again changed something")
        self.tally["sent again"] += 1

    def is_remembered(self, call: Call) -> bool:
        """Return whether a repeated call must not change anything."""
        verb, args, _ = call
        if verb == "reserve":  # a reserve that handed out nothing is evaluated again
            return args[2] in self.model.ended or args[2] in self.held()
        return any(isinstance(arg, bytes) and (arg in self.model.once or arg in self.model.ended) for arg in args)

    def held(self) -> list[bytes]:
        """List the ids of leases that are held."""
        raise NotImplementedError

    def id(self) -> bytes:
        """Create an id; ids do not sort in the order of their creation."""
        self.ids += 1
        return b"%c%d" % (self.random.choice(b"abcz"), self.ids)

    # -- wake-ups

    def do_wait(self) -> None:
        """Let a blocked client reserve if it was woken, or when its retry time has come."""
        client = self.random.randrange(3)
        if client in self.waiting:
            woken = self.client.lpop(PREFIX + b"wake") is not None
            if woken != self.model.token:
                raise Difference(f"wake: script {woken}, model {self.model.token}")
            self.model.token = False
            if not woken and self.waiting[client] > self.elapsed:
                return
        kind, *rest = self.reserve(b"w:%d" % client)
        self.waiting.pop(client, None)
        if kind == b"none":
            self.waiting[client] = self.elapsed + rest[0]
        elif kind == b"buried":
            self.waiting[client] = self.elapsed  # the client calls again at once

    def do_lose_wake_up(self) -> None:
        """Let a client take the wake-up and crash; the others try again within a lease."""
        self.client.delete(PREFIX + b"wake")
        self.model.token = False
        self.waiting.clear()

    def reserve(self, holder: bytes) -> Any:
        """Reserve with random options and a new id."""
        raise NotImplementedError

    def do_pause(self) -> None:
        self.both("pause", self.now, self.random.choice((0, 100_000, 300_000)), self.random.choice(REASONS), self.id())

    def do_resume(self) -> None:
        self.both("resume", self.id())

    def do_purge(self) -> None:
        self.both("purge", again=False)
        self.waiting.clear()

    def do_stats(self) -> None:
        self.both("stats", self.now, again=False)

    def do_audit(self) -> None:
        findings = self.scripts.audit(self.now, self.random.choice((True, False)))
        if findings:
            raise Difference(f"audit finds {findings}")

    # -- checks

    def compare(self) -> None:
        """Compare the key space, and assert the invariants."""
        found, expiring = keyspace.read(self.client, PREFIX, self.now)
        expected = self.model.keys(self.now)
        if found != expected:
            names = [name for name in sorted({*found, *expected}) if found.get(name) != expected.get(name)]
            lines = [
                f"{name.decode()}\n    script {found.get(name)}\n    model  {expected.get(name)}" for name in names
            ]
            raise Difference("keys differ:\n  " + "\n  ".join(lines))
        wrong = (expiring ^ self.model.expiring()) & found.keys()
        if wrong:
            raise Difference(f"these keys should not have a TTL, or should have one: {wrong}")
        self.model.check()
        if self.model.is_empty():
            self.tally["empty"] += 1
            left = {name for name in found if name not in expiring} - {b"paused"}
            if left:
                raise Difference(f"the queue is empty, but has keys without a TTL: {left}")
        self.check_on_server(found)
        if self.waiting and self.model.could_take(self.now):
            self.tally["could take"] += 1
            if not self.model.token and min(self.waiting.values()) > self.elapsed:
                raise Difference(f"no client is woken: they try again at {self.waiting}, the time is {self.elapsed}")

    def check_on_server(self, found: Keys) -> None:
        """Assert invariants of the server's keys alone."""

    def do_foreign_mark(self) -> None:
        """Mark the queue with another layout: every script must refuse, and change nothing."""
        key = PREFIX + b"meta"
        mark = self.client.hget(key, "queue")
        self.client.hset(key, "queue", self.random.choice((b"9 buffer", b"1", b"2 stream")))
        before = keyspace.dump(self.client)
        verbs = [verb for verb in self.VERBS if exists(f"{self.scripts.structure}/{verb}")]
        for verb in verbs:
            self.refuses(verb)
            if keyspace.dump(self.client) != before:
                raise Difference(f"{verb} refuses a foreign mark, but has written")
        if mark is None:
            self.client.hdel(key, "queue")
        else:
            self.client.hset(key, "queue", mark)

    def refuses(self, verb: str) -> None:
        """Assert that a script refuses the queue's mark, with values for all of its arguments."""
        cursor = "keys:0" if verb == "audit" else 0
        values = {**self.ANY, "cursor": cursor, "limit": 1, "now": self.now}
        if verb == "state":
            values["member"] = b"m"
        elif verb == "batches":
            values["after"] = b""
        elif verb == "groups":
            values["state"] = "busy"
        elif verb == "drop_group":
            values["state"] = 0
        raw = Raw(self.client, PREFIX, **values)
        try:
            raw.call(f"{self.scripts.structure}/{verb}")
        except redis.ResponseError as error:
            if str(error).startswith("LAYOUT"):
                return
        raise Difference(f"{verb} does not refuse a foreign mark")

    ANY: ClassVar[dict[str, Any]] = {}
    """a value for every argument of the scripts of this structure"""

    def drain(self) -> None:
        """Take and settle everything: nothing may wait forever, and nothing may be left."""
        raise NotImplementedError


def _short(value: object) -> str:
    """Return a short form of a value."""
    if isinstance(value, type):
        return value.__name__
    text = re.sub(r"(^|(?<=[\s(\[{,:=]))b(?=['\"])", "", repr(value))
    text = re.sub(
        r"Item\(|\b(member|score|attempts|reason|payload)=", lambda found: "(" if found[0] == "Item(" else "", text
    )
    text = re.sub(r"\b1[67]\d{11}\b", lambda found: f"{int(found[0]) - START:+}", text)  # times, since the start
    return text if len(text) < 300 else text[:300] + "..."


BUFFER_SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "attempts": {"max_attempts": 2, "max_wait": 30_000, "max_dead": 2},
    "min": {"min_size": 3, "max_wait": 20_000, "max_attempts": 3},
    "ordered": {"ordered": True},
    "ordered-attempts": {"ordered": True, "max_wait": 30_000, "max_attempts": 2, "max_dead": 1},
    "ordered-isolate": {"ordered": True, "max_attempts": 2, "isolate": True, "max_dead": 3, "max_wait": 30_000},
    "ordered-once": {"ordered": True, "max_attempts": 1, "isolate": True},
    "isolate": {"max_attempts": 2, "isolate": True},
    "rates": {"rates": [(2, 60_000), (5, 300_000)], "max_attempts": 3},
    "all": {
        "ordered": True,
        "max_attempts": 2,
        "isolate": True,
        "max_dead": 3,
        "max_wait": 60_000,
        "min_size": 2,
        "rates": [(3, 60_000)],
    },
    "forgetful": {"window": 0, "max_attempts": 2},
    "many": {"max_attempts": 1, "max_dead": 1, "max_wait": 30_000},
    "large": {"max_attempts": 2, "isolate": True},
    "mixed": {},
}


class BufferWalk(Walk):
    """A walk of the grouped batch buffer."""

    VERBS: ClassVar = {
        "push": 14,
        "pop": 3,
        "pop_longest": 2,
        "reserve": 10,
        "wait": 14,
        "ack": 12,
        "release": 6,
        "bury": 2,
        "extend": 2,
        "redrive": 3,
        "discard": 1,
        "pause": 0.7,
        "resume": 1.5,
        "pause_group": 1.5,
        "resume_group": 2,
        "drop_group": 0.7,
        "purge": 0.2,
        "stats": 1,
        "groups": 0.5,
        "batches": 0.5,
        "peek": 0.5,
        "audit": 0.3,
        "lose_wake_up": 0.5,
        "foreign_mark": 0.1,
    }
    ANY: ClassVar = {
        "after": b"", "attempt": "count", "busy": 0, "count": 1, "delay": 0, "group": b"a", "groups": 0, "holder": b"h",
        "horizon": 0, "id": b"i", "isolate": 0, "item": [b"1"], "lease": 1000, "max_attempts": 0, "max_bytes": 0,
        "max_dead": 0, "max_wait": 0, "min_size": 1, "once": b"o", "ordered": 0, "paused": 0, "rates": [],
        "reason": b"", "repair": "report", "side": "back", "size": 1, "start": 0, "state": "dead", "duration": 0,
        "window": 1,
    }  # fmt: skip
    model: model.Buffer

    def __init__(self, client: redis.Redis, seed: int, settings: str) -> None:
        super().__init__(client, seed, settings)
        values = dict(BUFFER_SETTINGS[settings])
        self.model = model.Buffer(limit=model.Limit(values.pop("rates", [])), **values)
        self.scripts: BufferScripts = BufferScripts(Raw(client, PREFIX), self.model)
        self.strict = self.model.ordered  # for the whole walk
        self.front = not self.strict or seed % 2 == 0
        """half of the ordered walks use push_front and redrive, the other half check the order"""
        self.pushes = (1, 1, 0.3, 0.15)[seed % 4]  # some queues are empty most of the time
        self.items = 0
        self.groups = list(GROUPS)
        self.counts, self.sizes = [0, 1, 1, 2, 3, 5], [1, 2, 4, 10]
        if settings == "many":  # more groups and dead batches than one call handles
            self.groups = [b"g%d" % i for i in range(40)]
            self.weights |= {"pause_group": 15, "bury": 10}
        if settings == "large":  # lists that are read and written in pieces
            del self.groups[2:]
            self.counts, self.sizes = [1, 3, 1001, 2500, 5000], [1, 7, 1001, 2500, 3000]

    def change_settings(self) -> None:
        choose = self.random.choice
        self.model.ordered, self.model.isolate = choose((True, False)), choose((True, False))
        self.model.max_attempts, self.model.max_dead = choose((0, 1, 2, 3)), choose((0, 0, 1, 2))
        self.model.max_wait, self.model.min_size = choose((0, 30_000)), choose((1, 1, 2))
        self.model.limit.rates = choose(([], [], [(3, 60_000)]))
        self.model.lease, self.model.window = choose((30_000, 5_000)), choose((1, 1, 0))

    def held(self) -> list[bytes]:
        return [batch_id for batch_id, batch in self.model.batches.items() if batch.place == "leases"]

    def dead(self) -> list[bytes]:
        return [batch_id for batch_id, batch in self.model.batches.items() if batch.place == "dead"]

    def group(self) -> bytes:
        return self.random.choice(self.groups)

    def some_lease(self) -> bytes:
        """Choose a lease to settle: usually one that is held."""
        known = [call[1][2] for call in self.sent[-60:] if call[0] == "reserve"]
        pool = self.held() if self.random.random() < 0.9 else known
        return bytes(self.random.choice(pool or [b"never"]))

    def do_push(self) -> None:
        if self.random.random() > self.pushes:
            return
        items = []
        for _ in range(self.random.choice(self.counts)):
            self.items += 1
            items.append(b"%d%s" % (self.items, b"x" * self.random.choice((0, 0, 5, 30))))
        front = self.front and self.random.random() < 0.2
        self.both("push", self.now, self.group(), items, self.id(), front)

    def do_pop(self) -> None:
        self.both("pop", self.now, self.group(), self.random.choice(self.sizes), again=False)

    def do_pop_longest(self) -> None:
        self.both("pop_longest", self.now, self.random.choice((1, 2, 3)), self.random.choice((1, 3, 10)), again=False)

    def do_reserve(self) -> None:
        self.reserve(self.random.choice((b"", b"h:1")))

    def reserve(self, holder: bytes) -> Any:
        size, max_bytes = self.random.choice(self.sizes), self.random.choice((0, 0, 1, 12, 40, 3000))
        batch_id = self.id()
        answer = self.both("reserve", self.now, size, batch_id, holder, max_bytes)
        if answer[0] == b"batch":
            self.tally["handed again" if answer[3] > 1 else "handed out"] += 1
            if self.strict:
                self.check_order(batch_id, answer[2], answer[5])
        else:
            self.tally[answer[0].decode()] += 1
        return answer

    def check_order(self, batch_id: bytes, group: bytes, items: list[bytes]) -> None:
        """Assert that nothing earlier of the group waits, and that no other batch of it is out."""
        for other_id, other in self.model.batches.items():
            if other_id != batch_id and other.group == group and other.place != "dead":
                raise Difference(f"two batches of a group are out: {batch_id!r} and {other_id!r}")
        if not self.front:
            numbers = [int(item.rstrip(b"x")) for item in items]
            later = [int(item.rstrip(b"x")) for item in self.model.items.get(group, [])]
            if numbers != sorted(numbers) or any(number < numbers[-1] for number in later):
                raise Difference(f"out of order: {items}")

    def do_ack(self) -> None:
        lease, failed = self.some_lease(), []
        batch = self.model.batches.get(lease)
        if batch and self.random.random() < 0.4:
            places = range(len(batch.items) + (self.random.random() < 0.05))  # sometimes one that does not exist
            failed = sorted(self.random.sample(places, self.random.randrange(len(places) + 1)))
        delay, reason = self.random.choice(DELAYS), self.random.choice(REASONS)
        self.both("ack", self.now, lease, failed, delay, reason)

    def do_release(self) -> None:
        delay, counted = self.random.choice(DELAYS), self.random.random() < 0.7
        self.both("release", self.now, self.some_lease(), delay, counted, self.random.choice(REASONS))

    def do_bury(self) -> None:
        self.both("bury", self.now, self.some_lease(), self.random.choice(REASONS))

    def do_extend(self) -> None:
        self.both("extend", self.now, self.some_lease(), self.random.choice((1, 60_000)))

    def some_dead(self) -> list[bytes]:
        dead = self.dead()
        chosen = self.random.sample(dead, min(len(dead), self.random.choice((0, 1, 2, 3))))
        return chosen + self.random.choices([*self.model.batches, *chosen, b"x"], k=self.random.choice((0, 0, 1, 2)))

    def do_redrive(self) -> None:
        if self.front:
            self.both("redrive", self.now, self.some_dead(), self.id())

    def do_discard(self) -> None:
        self.both("discard", self.some_dead(), self.id())

    def do_pause_group(self) -> None:
        self.both("pause_group", self.now, self.group(), self.random.choice((0, 1000, 20_000, 300_000)), self.id())

    def do_resume_group(self) -> None:
        self.both("resume_group", self.now, self.random.choice([self.group(), *self.model.paused_groups]), self.id())

    def do_drop_group(self) -> None:
        self.both("drop_group", self.group(), self.id())

    def do_groups(self) -> None:
        self.both("groups", self.random.choice(("waiting", "busy", "paused")), again=False)

    def do_batches(self) -> None:
        self.both("show", self.random.choice(("leases", "delayed", "dead")), again=False)

    def do_peek(self) -> None:
        self.both("peek", self.group(), self.random.choice((1, 3)), self.random.choice((0, 0, 1, 2)), again=False)

    def check_on_server(self, found: Keys) -> None:
        keys: Any = found
        lists = {name[6:] for name in keys if name.startswith(b"items:")}
        busy, paused, groups = (keys.get(name, {}) for name in (b"busy", b"paused_groups", b"groups"))
        out: dict[bytes, list[bytes]] = collections.defaultdict(list)
        places = [keys.get(name, {}) for name in (b"leases", b"delayed", b"dead")]
        for name, value in keys.items():
            if name.startswith(b"batch:"):
                if sum(name[6:] in place for place in places) != 1:
                    raise Difference(f"{name!r} is not in exactly one of leases, delayed and dead")
                if name[6:] not in places[2]:
                    out[value[0]].append(name[6:])
        if set(groups) != set(keys.get(b"since", {})) or set(groups) != lists - set(busy) - set(paused):
            raise Difference("the wrong groups are eligible")
        if any(length != len(keys[b"items:" + group]) for group, length in groups.items()):
            raise Difference("a wrong length")
        if any(batch_id not in out[group] for group, batch_id in busy.items()):
            raise Difference("a group is busy with a batch that is not out")
        if self.strict and {group: [batch_id] for group, batch_id in busy.items()} != {
            g: b for g, b in out.items() if b
        }:
            raise Difference(f"ordered: busy is {busy}, but the batches out are {dict(out)}")

    def drain(self) -> None:
        self.model.min_size = 1
        self.waiting.clear()
        for _ in range(3000):
            q = self.model
            if not (q.items or q.batches):
                break
            if q.paused:
                self.both("resume", self.id())
            for group in list(q.paused_groups):
                self.both("resume_group", self.now, group, self.id())
            if dead := self.dead():
                self.both("redrive", self.now, dead[:5], self.id())
            self.now += 1000
            lease = self.id()
            kind, *rest = self.both("reserve", self.now, 3_000, lease)
            if kind == b"batch":
                self.both("ack", self.now, lease)
            elif kind == b"none":
                self.now += max(1, rest[0])
            self.compare()
        if self.model.items or self.model.batches:
            raise Difference(f"the queue cannot be emptied: {self.model}")


PRIORITY_SETTINGS: dict[str, dict[str, Any]] = {
    "fifo": {},
    "score": {"order": "score"},
    "attempts": {"max_attempts": 2, "max_dead": 2},
    "score-attempts": {"order": "score", "max_attempts": 1, "max_dead": 1},
    "rates": {"rates": [(3, 60_000), (5, 300_000)], "max_attempts": 3},
    "forgetful": {"window": 0, "max_attempts": 2},
    "many": {"max_attempts": 2, "max_dead": 30, "lease": 90_000},
    "mixed": {},
    "score-mixed": {"order": "score"},
}


class PriorityWalk(Walk):
    """A walk of the unique priority queue."""

    VERBS: ClassVar = {
        "push": 16,
        "pop": 4,
        "reserve": 12,
        "wait": 10,
        "ack": 14,
        "release": 8,
        "bury": 3,
        "extend": 2,
        "remove": 3,
        "redrive": 3,
        "discard": 1.5,
        "pause": 0.7,
        "resume": 2,
        "members": 1,
        "batches": 0.7,
        "state": 1,
        "stats": 1,
        "purge": 0.2,
        "audit": 0.3,
        "lose_wake_up": 0.5,
        "foreign_mark": 0.1,
        "other_order": 0.5,
        "adopt": 1,
    }
    ANY: ClassVar = {
        "after": [], "attempt": "count", "count": 1, "delay": 0, "fields": 2, "holder": b"h", "how": "min", "id": b"i",
        "item": [(1, b"m")], "lease": 1000, "max_attempts": 0, "max_bytes": 0, "max_dead": 0, "member": [b"m"],
        "once": b"o", "order": "fifo", "rates": [], "reason": b"", "repair": "report", "size": 1, "start": 0,
        "state": "dead", "duration": 0, "window": 1,
    }  # fmt: skip
    model: model.Priority

    def __init__(self, client: redis.Redis, seed: int, settings: str) -> None:
        super().__init__(client, seed, settings)
        values = dict(PRIORITY_SETTINGS[settings])
        self.model = model.Priority(limit=model.Limit(values.pop("rates", [])), **values)
        self.scripts: PriorityScripts = PriorityScripts(Raw(client, PREFIX), self.model)
        self.many = settings == "many"
        count = 400 if self.many else self.random.choice((2, 4, 8))
        self.names = (
            [b"", b"- -", *(b"m%d" % i for i in range(count))][-count:]
            if seed % 2
            else [b"m%d" % i for i in range(count)]
        )
        self.replaces, self.payloads = self.random.random() < 0.5, self.random.random() < 0.5
        self.pushes = (1, 1, 0.3)[seed % 3]  # some queues are empty most of the time
        self.owed: set[bytes] = set()
        """members that were pushed, and neither handed out nor removed since"""

    def change_settings(self) -> None:
        choose = self.random.choice
        self.model.max_attempts, self.model.max_dead = choose((0, 1, 2, 3)), choose((0, 1, 2))
        self.model.limit.rates = choose(([], [], [(3, 60_000)]))
        self.model.lease, self.model.window = choose((30_000, 5_000)), choose((1, 1, 0))

    def held(self) -> list[bytes]:
        return list(self.model.leases)

    def size(self, *sizes: int) -> int:
        return self.random.choice(sizes) * (20 if self.many else 1)

    def some(self, most: int = 3) -> list[bytes]:
        """Choose members, sometimes one of them twice."""
        return self.random.choices(self.names, k=self.random.randint(0, self.size(most)))

    def some_lease(self) -> bytes:
        """Choose a lease to settle: usually one that is held."""
        known = [call[1][2] for call in self.sent[-60:] if call[0] == "reserve"]
        pool = self.held() if self.random.random() < 0.9 else known
        return bytes(self.random.choice(pool or [b"never"]))

    def priority(self) -> float:
        if self.model.order == "fifo":
            return self.random.choice((-1024, -3, -1, 0, 0, 1, 5, 1023))
        return self.random.choice((-1.5, 0, 0, 0.1, 3, 7, 1e300, -1e-300, 2.0**60))

    def do_push(self) -> None:
        if self.random.random() > self.pushes:
            return
        names = self.some(4)
        if self.random.random() < 0.97:  # else one may be there twice, which is refused
            names = list(dict.fromkeys(names))
        with_payload = self.payloads and self.random.random() < 0.6
        payload = self.random.choice((b"", b"p", b"q" * 30))
        items = [(self.priority(), name, payload if with_payload else None) for name in names]
        delay = self.random.choice((0, 0, 0, *DELAYS))
        how = self.random.choice(("min", "set")) if self.replaces else "min"
        self.both("push", self.now, items, self.id(), delay, how)

    def do_pop(self) -> None:
        self.both("pop", self.now, self.size(1, 1, 2, 5), again=False)

    def do_reserve(self) -> None:
        self.reserve(self.random.choice((b"", b"h:1")))

    def reserve(self, holder: bytes) -> Any:
        size, max_bytes = self.size(1, 1, 2, 3, 9), self.random.choice((0, 0, 0, 1, 5, 9))
        return self.both("reserve", self.now, size, self.id(), holder, max_bytes)

    def _send(self, call: Call, note: str = "") -> Any:
        known = self.is_remembered(call)
        answer = super()._send(call, note)
        if not known and not isinstance(answer, type):
            self.track_owed(call, answer)
        return answer

    def track_owed(self, call: Call, answer: Any) -> None:
        """Record which members must still be handed out."""
        verb, args, _ = call
        if verb == "push":
            self.owed |= {name for _, name, _ in args[1]}
        elif verb == "pop":
            self.owed -= {item.member for item in answer[1]}
        elif verb == "remove":
            self.owed -= set(args[0])
        elif verb == "purge":
            self.owed.clear()
        elif verb == "reserve" and answer[0] != b"ended":
            self.tally["buried"] += len(answer[-1])
            if answer[0] == b"batch":
                self.owed -= {item.member for item in answer[2]}
                self.tally["handed again" if any(item.attempts for item in answer[2]) else "handed out"] += 1

    def do_ack(self) -> None:
        lease, failed = self.some_lease(), []
        if lease in self.model.leases and self.random.random() < 0.4:
            places = range(len(self.model.leases[lease].members) + (self.random.random() < 0.05))
            chosen = self.random.sample(places, self.random.randrange(len(places) + 1))
            failed = [(place, self.random.choice(REASONS)) for place in chosen]
        self.both("ack", self.now, lease, failed, self.random.choice(DELAYS))

    def do_release(self) -> None:
        delay, counted = self.random.choice(DELAYS), self.random.random() < 0.7
        self.both("release", self.now, self.some_lease(), delay, counted, self.random.choice(REASONS))

    def do_bury(self) -> None:
        self.both("bury", self.now, self.some_lease(), self.random.choice(REASONS))

    def do_extend(self) -> None:
        self.both("extend", self.now, self.some_lease(), self.random.choice((1, 60_000)))

    def do_remove(self) -> None:
        self.both("remove", self.some(), self.id())

    def some_dead(self) -> list[bytes]:
        dead = [name for name in self.names if self.model.state(name) == "dead"]
        return self.random.choices(dead, k=self.size(1, 2)) + self.some(1) if dead else self.some(1)

    def do_redrive(self) -> None:
        self.both("redrive", self.some_dead(), self.id())

    def do_discard(self) -> None:
        self.both("discard", self.some_dead(), self.id())

    def do_members(self) -> None:
        self.both("show", self.random.choice(("ready", "delayed", "dead")), again=False)

    def do_batches(self) -> None:
        self.both("batches", again=False)

    def do_state(self) -> None:
        self.both("state", self.random.choice(self.names), again=False)

    def do_other_order(self) -> None:
        """Let a client call that expects the other order."""
        if not self.model.mark:
            return
        order = self.model.order
        self.model.order = "score" if order == "fifo" else "fifo"
        items, now = [(1, b"m0", None)], self.now
        calls = (
            ("push", now, items, self.id()),
            ("pop", now, 1),
            ("reserve", now, 1, self.id()),
            ("show", "ready"),
            ("batches",),
        )
        verb, *args = self.random.choice(calls)
        if self.both(verb, *args, again=False) is not model.WrongOrder:
            raise Difference(f"{verb} does not refuse the other order")
        self.model.order = order

    def do_adopt(self) -> None:
        """Fill a plain sorted set, like a client without these scripts."""
        if self.model.order == "fifo" or not self.model.is_empty() or self.model.mark not in ("", "2 score"):
            return
        for name in set(self.some() + self.names[:1]):
            score = self.priority()
            self.client.zadd(PREFIX + b"ready", {name: score})
            self.model.members[name] = model.Member("ready", score)
            self.owed.add(name)
        self.tally["adopt"] += 1
        self.waiting.clear()  # no client was woken
        self.log.append(f"adopt {_short(self.model._ready())}")

    def check_on_server(self, found: Keys) -> None:
        keys: Any = found
        places = [set(keys.get(name, ())) for name in (b"ready", b"delayed", b"dead", b"held")]
        every = set().union(*places)
        if sum(map(len, places)) != len(every):
            raise Difference("a member is in two places")
        leased = [name for key, value in keys.items() if key.startswith(b"lease:") for name, _ in value[1:]]
        if len(leased) != len(set(leased)) or set(leased) != places[3]:
            raise Difference("the held members are not those of the leases")
        live = every - {name for name, note in keys.get(b"again", {}).items() if note == b"removed"}
        if not live >= {*keys.get(b"payloads", ()), *keys.get(b"rows", ())}:
            raise Difference("a payload or a row of an unknown member")
        if not self.owed <= live - places[2]:
            raise Difference(
                f"pushed, but lost or buried without being handed out: {self.owed - live | self.owed & places[2]}"
            )

    def drain(self) -> None:
        self.waiting.clear()
        for _ in range(3000):
            if self.model.is_empty():
                return
            if self.model.paused:
                self.both("resume", self.id())
            if dead := [name for name in self.names if self.model.state(name) == "dead"]:
                self.both("redrive", dead[:50], self.id())
            self.now += 1000
            lease = self.id()
            answer = self.both("reserve", self.now, 100, lease)
            if answer[0] == b"batch":
                self.both("ack", self.now, lease)
            else:
                self.now += max(1, answer[1])
            self.compare()
        raise Difference(f"the queue cannot be emptied: {self.model}")


LIMIT_SETTINGS: dict[str, dict[str, Any]] = {
    "one": {"rates": [(3, 60_000)]},
    "three": {"rates": [(3, 60_000), (7, 300_000), (100, 3_600_000)]},
    "forgetful": {"rates": [(5, 60_000)], "window": 0},
    "many": {"rates": [(100_000, 60_000)]},
    "mixed": {"rates": [(5, 60_000)]},
}


class LimitWalk(Walk):
    """A walk of the rate limiter."""

    VERBS: ClassVar = {"acquire": 1}
    ANY: ClassVar = {"cost": 1, "once": b"o", "rates": [(1, 1000)], "window": 1}
    model: model.Limit

    def __init__(self, client: redis.Redis, seed: int, settings: str) -> None:
        super().__init__(client, seed, settings)
        self.model = model.Limit(**LIMIT_SETTINGS[settings])
        self.scripts: LimitScripts = LimitScripts(Raw(client, PREFIX), self.model)
        self.granted: list[tuple[int, int]] = []
        """when, by the time that has passed, and how much"""

    def pass_time(self) -> None:
        if self.settings == "many":
            self.now += 1
            self.elapsed += 1
        else:
            super().pass_time()

    def change_settings(self) -> None:
        self.model.rates = self.random.choice(([(5, 60_000)], [(2, 60_000), (9, 600_000)], [(1, 300_000)]))
        self.granted.clear()

    def is_remembered(self, call: Call) -> bool:
        return call[1][2] in self.model.once

    def do_acquire(self) -> None:
        self.acquired(self.both("acquire", self.now, self.random.choice((1, 1, 1, 2, 5, 20)), self.id()))

    def _send(self, call: Call, note: str = "") -> Any:
        known = self.is_remembered(call)
        answer = super()._send(call, note)
        if note and not known:
            self.acquired(answer)
        return answer

    def acquired(self, answer: Any) -> None:
        """Assert that no span of real time has more grants than its limit, whatever the clock says."""
        self.granted.append((self.elapsed, answer[0]))
        for limit, per in self.model.rates:
            if sum(amount for at, amount in self.granted if at >= self.elapsed - per) > limit:
                raise Difference(f"more than {limit} in {per} ms: {self.granted[-20:]}")

    def compare(self) -> None:
        found, expiring = keyspace.read(self.client, PREFIX, self.now)
        if found != self.model.keys():
            raise Difference(f"keys differ\n    script {_short(found)}\n    model  {_short(self.model.keys())}")
        if expiring != set(found):
            raise Difference("a key without a TTL")
        self.model.check()

    def drain(self) -> None:
        """Check that the retry time of a refusal is right."""
        for _ in range(20):
            granted, retry = self.both("acquire", self.now, 1, self.id())
            if not granted:
                self.now += retry - 1
                early, _ = self.both("acquire", self.now, 1, self.id())
                self.now += 1
                on_time, _ = self.both("acquire", self.now, 1, self.id())
                if early or not on_time:
                    raise Difference(f"retry {retry}: one ms earlier {early}, on time {on_time}")
            self.compare()


WALKS: dict[str, tuple[type[Walk], dict[str, dict[str, Any]]]] = {
    "buffer": (BufferWalk, BUFFER_SETTINGS),
    "priority": (PriorityWalk, PRIORITY_SETTINGS),
    "limit": (LimitWalk, LIMIT_SETTINGS),
}


def numbers(text: str) -> list[int]:
    """Parse `1,2,5-9`."""
    parts = [part.split("-") for part in text.split(",")]
    return [number for part in parts for number in range(int(part[0]), int(part[-1]) + 1)]


def main(argv: Sequence[str] | None = None) -> int:
    """Walk, and print the number of steps, or the differences."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.scripts.walk", description=__doc__.split("\n")[0] if __doc__ else ""
    )
    parser.add_argument("structure", choices=WALKS)
    parser.add_argument("--steps", type=int, default=400, help="steps of each walk")
    parser.add_argument("--seeds", type=numbers, default=numbers("1-50"))
    parser.add_argument("--settings", type=lambda text: text.split(","), help="all of these for each seed")
    parser.add_argument("--all", action="store_true", help="go on after a difference")
    options = parser.parse_args(argv)
    kind, settings = WALKS[options.structure]
    steps, failed, tally, seen = 0, 0, collections.Counter[str](), set()
    with Server(binaries()[0]) as server, server.client() as client:
        for seed in options.seeds:
            for name in options.settings or [list(settings)[seed % len(settings)]]:
                walk = kind(client, seed, name)
                try:
                    for _ in range(options.steps):
                        walk.step()
                        steps += 1
                    walk.drain()
                except (AssertionError, redis.RedisError, LookupError, TypeError, ValueError) as error:
                    failed += 1
                    print(f"seed {seed}, settings {name}, after {steps} steps in all:")
                    summary = str(error).partition("\n")[0]
                    if summary not in seen:
                        print("\n".join(f"    {line}" for line in walk.log))
                    print(f"{type(error).__name__}: {summary if summary in seen else error}", flush=True)
                    seen.add(summary)
                    if not options.all:
                        return 1
                    if not isinstance(error, AssertionError | redis.RedisError):
                        raise
                tally += walk.tally
    print(f"{steps} steps, {failed} walks differ;", ", ".join(f"{name} {n}" for name, n in sorted(tally.items())))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
