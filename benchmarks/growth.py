"""Measure what grows with a queue: time per call, how long one call can hold the server, and bytes.

    python -m benchmarks.growth [--quick]

Times are the server's own, from `INFO commandstats`: no client, no socket. Each size of a queue has a private server of
its own, all at once, so that the sizes are measured in turns; a time is that of the fastest of several small batches,
because whatever else runs on the machine can only add to it. Without `--quick`, the result is also written to
`benchmarks/results/growth.json`.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import redis

from redisq.embedded import Server
from redisq.ops import buffer as buffer_ops
from redisq.ops import priority as priority_ops
from redisq.scripts import load, names

from .measure import Claim, Effort, environment, interleave, private_server, say, significant, usec_per_call, write

QUEUE = "redisq:{growth}"
ITEM = b"x" * 100
FAR = 4_102_444_800_000  # ms of the year 2100: nothing is due by itself
TOKEN = 6 * 10**8  # ms for which the fills remember ids
BATCH = 20  # calls measured together
REACH_MS = 5.0
REACH_BYTES = 1.10

Command = tuple[Any, ...]
Step = tuple[str, list[Command]]
"""Calls that are measured together, under a name; those without a name only put the queue back as it was."""

# Fills run on the server, because ten million members through a socket would take minutes. {1} is the queue.
FILLS = {
    "groups": """
        local queue, first, last, length, item = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
        local items = {}
        for i = 1, math.min(1000, length) do items[i] = item end
        for i = first, last do
          local group = string.format('group:%07d', i)
          for done = 0, length - 1, 1000 do
            redis.call('RPUSH', queue .. ':items:' .. group, unpack(items, 1, math.min(1000, length - done)))
          end
          redis.call('ZADD', queue .. ':groups', length, group)
          redis.call('ZADD', queue .. ':since', ARGV[6], group)
        end""",
    "batches": """
        local queue, first, last, length, item = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
        local index, prefix, at, attempts = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
        local items = {}
        for i = 1, math.min(1000, length) do items[i] = item end
        for i = first, last do
          local id = prefix .. string.format('%031d', i)
          redis.call('RPUSH', queue .. ':batch:' .. id, 'group:0000001', attempts)
          for done = 0, length - 1, 1000 do
            redis.call('RPUSH', queue .. ':batch:' .. id, unpack(items, 1, math.min(1000, length - done)))
          end
          redis.call('ZADD', queue .. ':' .. index, at + i, id)
        end""",
    "members": """
        local queue, first, last, index, at, row = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
        for start = first, last, 1000 do
          local scores, new = {}, {}
          for i = start, math.min(last, start + 999) do
            local member = string.format('member:%016d', i)
            scores[#scores + 1] = at == '+inf' and at or at + i
            scores[#scores + 1] = member
            new[#new + 1] = member
            new[#new + 1] = string.gsub(row, '#', string.format('%031d', i), 1)
          end
          if index ~= 'rows' then redis.call('ZADD', queue .. ':' .. index, unpack(scores)) end
          if row ~= '' then redis.call('HSET', queue .. ':rows', unpack(new)) end
        end""",
    "held": """
        for i = ARGV[2], ARGV[3] do
          local lease = ARGV[1] .. ':lease:l' .. string.format('%031d', i)
          redis.call('RPUSH', lease, 'held', string.format('member:%016d', i))
          redis.call('PEXPIRE', lease, ARGV[4])
        end""",
    "once": """
        for i = ARGV[2], ARGV[3] do
          redis.call('SET', ARGV[1] .. ':once:r' .. string.format('%031d', i), 12345, 'PX', ARGV[4])
        end""",
    "grants": """
        for i = ARGV[2], ARGV[3] do
          redis.call('ZADD', ARGV[1] .. ':grants', ARGV[4] + i, string.format('%016.0f 1', i))
        end""",
    "evicted": """
        for i = ARGV[2], ARGV[3] do
          redis.call('ZADD', ARGV[1] .. ':groups', ARGV[4], string.format('evicted:%07d', i))
          redis.call('ZADD', ARGV[1] .. ':since', ARGV[5] + i, string.format('evicted:%07d', i))
        end""",
}

DEFAULTS: dict[str, Any] = {
    "now": "",
    "window": 60_000,
    "lease": 3_600_000,
    "delay": 0,
    "order": "fifo",
    "side": "back",
    "attempt": "count",
    "repair": "report",
    "cursor": "keys:0",
    "after": "",
    "start": 0,
    "size": 1,
    "count": 1,
    "limit": 10,
    "cost": 1,
    "min_size": 1,
    "max_wait": 315_360_000_000,
    "max_attempts": 0,
}
_numbers = itertools.count(1)


def fresh() -> str:
    """Give an id that is new, as long as those that the Python makes."""
    return f"n{next(_numbers):031d}"


def batch_id(prefix: str, number: int) -> str:
    """Give the id that a fill gave a batch."""
    return f"{prefix}{number:031d}"


def group_name(number: int) -> str:
    """Give the name that a fill gave a group."""
    return f"group:{number:07d}"


def member_name(number: int) -> str:
    """Give the name that a fill gave a member."""
    return f"member:{number:016d}"


@cache
def shape(name: str) -> tuple[str, list[str], list[str]]:
    """Read a script's SHA1, key patterns and argument names, from its header."""
    script = load(name)
    keys = [slot.note.split()[0].replace("{queue}", QUEUE) for slot in script.keys]
    return script.sha, keys, [slot.name for slot in script.args if not slot.rest]


def call(name: str, rest: Sequence[Any] = (), **values: Any) -> Command:
    """Build a call, its arguments by their names; an id that is not given is new."""
    sha, patterns, slots = shape(name)
    given = {**DEFAULTS, "id": fresh(), **values}
    keys = [pattern.replace("<id>", given["id"]).replace("<group>", given.get("group", "")) for pattern in patterns]
    return ("EVALSHA", sha, len(keys), *keys, *(given[slot] for slot in slots), *rest)


def most(name: str, argument: str) -> int:
    """Give the greatest value that a script's header allows."""
    note = next(slot.note for slot in load(name).args if slot.name == argument)
    return int(note.split()[0].partition("..")[2])


def key(name: str) -> str:
    """Give one of the queue's keys."""
    return f"{QUEUE}:{name}"


def fill(client: redis.Redis, what: str, *args: Any) -> None:
    """Run one of the fills."""
    client.eval(FILLS[what], 0, QUEUE, *args)


def send(client: redis.Redis, commands: Sequence[Command]) -> list[Any]:
    """Send commands in one pipeline."""
    pipe = client.pipeline(transaction=False)
    for command in commands:
        pipe.execute_command(*command)  # type: ignore[no-untyped-call]
    return pipe.execute()


def ask(client: redis.Redis, *command: Any) -> Any:
    """Send one command."""
    return client.execute_command(*command)  # type: ignore[no-untyped-call]


def processor(client: redis.Redis) -> float:
    """Give the microseconds of processor time that the server's main thread has had."""
    used: dict[str, Any] = client.info("cpu")
    return 1e6 * float(used["used_cpu_user_main_thread"] + used["used_cpu_sys_main_thread"])


def timed(client: redis.Redis, commands: Sequence[Command], command: str = "evalsha") -> float:
    """Give the server's microseconds for each of these script calls.

    By the clock, what else runs on the machine is in it; in the processor time, the requests and the replies are. The
    calls themselves take no longer than either.
    """
    client.config_resetstat()
    before = processor(client)
    send(client, commands)
    spent = processor(client) - before
    return min(usec_per_call(client, command), spent / len(commands))


def ready_server(server: Server, stack: contextlib.ExitStack) -> redis.Redis:
    """Give a client of a server that knows all scripts."""
    client: redis.Redis = stack.enter_context(server.client(socket_timeout=None))  # a fill takes long
    for name in names():
        client.script_load(load(name).text)
    return client


# -- Growth: the same calls on queues of more and more -------------------------------------------------------


@dataclass(frozen=True)
class State:
    """Say how much a queue holds. A lease stands for one leased, one delayed and one dead batch or member."""

    groups: int = 100
    items: int = 400
    leases: int = BATCH
    once: int = 0
    grants: int = 100


def fill_buffer(client: redis.Redis, state: State) -> None:
    """Fill a buffer."""
    send(client, [("FLUSHALL",), ("SET", key("layout"), 1), ("LPUSH", key("wake"), 1)])
    fill(client, "groups", 1, state.groups, state.items // state.groups, ITEM, FAR)
    for index, prefix in (("leases", "l"), ("delayed", "w"), ("dead", "d")):
        fill(client, "batches", 1, state.leases, 1, ITEM, index, prefix, FAR, 1)
    fill(client, "once", 1, state.once, TOKEN)


def buffer_steps(state: State, some: random.Random) -> Iterator[Step]:
    """Do each operation of a buffer, and put back what it took."""
    many = range(BATCH)

    def pushes() -> list[Command]:
        numbers = range(1, state.groups + 1)
        chosen = some.sample(numbers, BATCH) if state.groups >= BATCH else some.choices(numbers, k=BATCH)
        return [call("buffer/push", [ITEM], group=group_name(number)) for number in chosen]

    def reserves(ids: list[str]) -> list[Command]:
        return [call("buffer/reserve", id=one) for one in ids]

    first = pushes()
    yield "push", first
    yield "push, sent again", first
    yield "pop", [call("buffer/pop", group=command[7]) for command in first]
    yield "", pushes()
    yield "pop_longest", [call("buffer/pop_longest", count=2)] * (BATCH // 2)
    ids, others, later = [fresh() for _ in many], [fresh() for _ in many], [fresh() for _ in many]
    yield "", pushes()
    yield "reserve", reserves(ids)
    yield "extend", [call("buffer/extend", id=one, lease=7_200_000) for one in ids]
    yield "ack", [call("buffer/ack", id=one) for one in ids]
    yield "", pushes()
    yield "", reserves(others)
    yield "release", [call("buffer/release", id=one) for one in others]
    yield "reserve, a batch that is due", reserves(later)
    yield "", [call("buffer/ack", id=one) for one in later]
    yield "longest", [call("buffer/longest", count=10)] * BATCH
    yield "dead", [call("buffer/dead")] * BATCH
    yield "stats", [call("buffer/stats")] * BATCH
    for phase in ("keys", "groups", "leases"):
        yield f"audit, {phase}", [call("buffer/audit", cursor=f"{phase}:0")] * BATCH
    dead = some.sample([batch_id("d", i) for i in range(1, state.leases + 1)], min(BATCH, state.leases))
    yield "redrive", [call("buffer/redrive", [one]) for one in dead]
    bury = ("ZADD", key("dead"), *itertools.chain(*((FAR + int(one[1:]), one) for one in dead)))
    yield "", [("ZREM", key("delayed"), *dead), bury]
    yield "discard", [call("buffer/discard", [one]) for one in dead]
    yield "", [bury, *(("RPUSH", key(f"batch:{one}"), group_name(1), 1, ITEM) for one in dead)]


def fill_priority(client: redis.Redis, state: State) -> None:
    """Fill a priority queue; its members that are ready are counted by `items`."""
    size, count = state.items, state.leases
    send(client, [("FLUSHALL",), ("SET", key("layout"), 1), ("LPUSH", key("wake"), 1)])
    client.hset(key("meta"), mapping={"order": "fifo", "sequence": size + 3 * count})
    fill(client, "members", 1, size, "ready", 0, "")
    for place, (at, row) in enumerate(((FAR, "1 1 - - l#"), (FAR, "1 1 - - "), ("+inf", "1 3 - - "))):
        fill(client, "members", size + place * count + 1, size + (place + 1) * count, "later", at, row)
    fill(client, "held", size + 1, size + count, TOKEN)
    fill(client, "once", 1, state.once, TOKEN)


def priority_steps(state: State, some: random.Random) -> Iterator[Step]:
    """Do each operation of a priority queue, and put back what it took."""
    size, count = state.items, state.leases
    dead = [size + 2 * count + i for i in some.sample(range(1, count + 1), min(BATCH, count))]

    def pushes(score: int = -5, members: Sequence[str] = ()) -> list[Command]:
        chosen = members or [fresh() for _ in range(BATCH)]
        return [call("priority/push", [score, member]) for member in chosen]

    first = pushes()
    news = [command[-1] for command in first]
    yield "push", first
    yield "push, sent again", first
    yield "push, raised", pushes(-6, news)
    yield "state", [call("priority/state", member=member_name(some.randint(1, size))) for _ in range(BATCH)]
    yield "pop", [call("priority/pop")] * BATCH
    back = pushes()
    yield "", back
    yield "remove", [call("priority/remove", [command[-1]]) for command in back]
    for verb in ("ack", "release"):
        second, ids = pushes(), [fresh() for _ in range(BATCH)]
        pairs = list(zip(ids, (command[-1] for command in second), strict=True))
        yield "", second
        yield "reserve" if verb == "ack" else "", [call("priority/reserve", id=one) for one in ids]
        if verb == "ack":
            yield "extend", [call("priority/extend", [member], id=one, lease=7_200_000) for one, member in pairs]
        yield verb, [call(f"priority/{verb}", [member], id=one) for one, member in pairs]
    yield "", [call("priority/pop")] * BATCH
    yield "peek", [call("priority/peek", count=10)] * BATCH
    yield "dead", [call("priority/dead")] * BATCH
    yield "stats", [call("priority/stats")] * BATCH
    for phase in ("keys", "ready", "later", "rows"):
        yield f"audit, {phase}", [call("priority/audit", cursor=f"{phase}:0")] * BATCH
    members = [member_name(number) for number in dead]
    bury = ("ZADD", key("later"), *itertools.chain(*(("+inf", member) for member in members)))
    rows = ("HSET", key("rows"), *itertools.chain(*((member, "1 3 - - ") for member in members)))
    yield "redrive", [call("priority/redrive", [member]) for member in members]
    yield "", [("ZREM", key("ready"), *members), bury, rows]
    yield "discard", [call("priority/discard", [member]) for member in members]
    yield "", [bury, rows]


def fill_limit(client: redis.Redis, state: State) -> None:
    """Fill a limiter, with grants that are all in its span."""
    client.flushall()
    fill(client, "grants", 1, state.grants, FAR)


def limit_steps(state: State, some: random.Random) -> Iterator[Step]:
    """Acquire, and take the grants out."""
    del some
    rates = (10**9, 315_360_000_000, 10**9, 1)
    yield "acquire", [call("limit/acquire", rates)] * BATCH
    yield "", [("ZREMRANGEBYRANK", key("grants"), state.grants, -1)]


@dataclass(frozen=True)
class Kind:
    """Name a structure, how it is filled and what is done with it."""

    name: str
    fill: Callable[[redis.Redis, State], None]
    steps: Callable[[State, random.Random], Iterator[Step]]


BUFFER = Kind("buffer", fill_buffer, buffer_steps)
PRIORITY = Kind("priority", fill_priority, priority_steps)
LIMIT = Kind("limit", fill_limit, limit_steps)

DIMENSIONS: list[tuple[Kind, str, int, int, Callable[[int], State]]] = [
    (BUFFER, "groups", 2, 6, lambda size: State(groups=size, items=4 * size)),
    (BUFFER, "waiting items", 2, 7, lambda size: State(groups=10, items=size)),
    (BUFFER, "leases", 1, 5, lambda size: State(leases=size)),
    (BUFFER, "remembered ids", 2, 6, lambda size: State(once=size)),
    (PRIORITY, "ready members", 2, 7, lambda size: State(items=size)),
    (PRIORITY, "leases", 1, 5, lambda size: State(leases=size)),
    (PRIORITY, "remembered ids", 2, 6, lambda size: State(once=size)),
    (LIMIT, "grants", 2, 6, lambda size: State(grants=size)),
]


def cycle(kind: Kind, state: State, client: redis.Redis, some: random.Random) -> dict[str, float]:
    """Do everything once; give each operation's microseconds."""
    found, used = {}, []
    for name, commands in kind.steps(state, some):
        if name:
            found[name] = timed(client, commands)
        else:
            send(client, commands)
        declared = [one for command in commands if command[0] == "EVALSHA" for one in command[3 : 3 + command[2]]]
        used += [one for one in declared if one.startswith((key("once:"), key("ended:"), key("lease:")))]
    if used:
        client.unlink(*used)
    return found


def purged(kind: Kind, state: State, client: redis.Redis) -> list[float]:
    """Purge, last, for it leaves nothing to measure: a group and a batch of each kind a call, or all members."""
    times = []
    purge = call("priority/purge")
    tiny = tuple(word.replace(QUEUE, "tiny") if isinstance(word, str) else word for word in purge)
    filled = [("ZADD", "tiny:ready", *itertools.chain(*((i, i) for i in range(200))))]
    if kind is BUFFER:
        times = [timed(client, [call("buffer/purge", limit=1)]) for _ in range(5)]
    elif kind is PRIORITY:
        size = max(state.items, state.leases, state.once)
        for again in range(5 if size <= 10**5 else 2 if size <= 10**6 else 1):  # to fill it anew takes long
            if again:
                kind.fill(client, state)
            send(client, [*filled, tiny] * BATCH)  # the one that counts shall not be the first that the server does
            times.append(timed(client, [purge]))
    return times


def fitted(times: dict[int, list[float]]) -> dict[str, Any]:
    """Reduce one operation's times: the least at each size, and how they grow."""
    least = {size: min(values) for size, values in times.items()}
    small, large = min(least), max(least)
    slope = statistics.linear_regression([math.log(n) for n in least], [math.log(t) for t in least.values()]).slope
    return {
        "usec": {str(size): significant(value) for size, value in least.items()},
        "usec_median": {str(size): significant(statistics.median(values)) for size, values in times.items()},
        "exponent": round(slope, 3),
        "ratio": significant(least[large] / least[small]),
        "fitted_ratio": significant((large / small) ** slope),  # one noisy size does not make it
        "log_ratio": significant(math.log(large) / math.log(small)),
    }


def dimension(
    servers: Sequence[redis.Redis],
    kind: Kind,
    title: str,
    sizes: Sequence[int],
    state: Callable[[int], State],
    rounds: int,
) -> list[dict[str, Any]]:
    """Measure one structure's operations at all sizes of one thing, each on a server of its own."""
    clients = dict(zip(sizes, servers, strict=False))
    for size, client in clients.items():
        kind.fill(client, state(size))
    some = {size: random.Random(size) for size in sizes}
    found = interleave(
        sizes, rounds, lambda size: cycle(kind, state(size), clients[size], some[size]), f"{kind.name}, {title}"
    )
    times: dict[str, dict[int, list[float]]] = {}
    for size, cycles in found.items():
        for one in cycles[1:]:  # the first round warms the caches
            for name, value in one.items():
                times.setdefault(name, {}).setdefault(size, []).append(value)
        last = purged(kind, state(size), clients[size])
        if last:
            times.setdefault("purge", {})[size] = last
        clients[size].flushall()
    return [
        {"structure": kind.name, "operation": name, "grows": title, **fitted(values)} for name, values in times.items()
    ]


# -- Holds: the longest that one call can keep everybody else waiting ----------------------------------------


@dataclass(frozen=True)
class Hold:
    """Name a script's largest call and say how it is made, its state before it included."""

    script: str
    call: str
    prepare: Callable[[], Command]
    samples: int = 99
    """Samples to take at most, where each needs a queue filled anew."""
    python: bool = True
    """Whether the Python makes such calls; others only who calls the script by hand, with a larger page."""


def held(client: redis.Redis, hold: Hold, samples: int) -> dict[str, Any]:
    """Measure one call several times, as `timed` does, and say where the fastest one spent its time."""
    found: list[tuple[float, dict[str, float]]] = []
    served = []
    for _ in range(min(samples, hold.samples)):
        command = hold.prepare()
        client.config_resetstat()
        before = processor(client)
        ask(client, *command)
        served.append((processor(client) - before) / 1000)
        stats: dict[str, Any] = client.info("commandstats")
        times = {name.removeprefix("cmdstat_"): row["usec"] / 1000 for name, row in stats.items()}
        whole = times.pop("evalsha")
        inner = {name: time for name, time in times.items() if name not in ("info", "config|resetstat")}
        found.append((whole, {**inner, "Lua and reply": whole - sum(inner.values())}))
    least, profile = min(found, key=lambda one: one[0])
    top = sorted(profile.items(), key=lambda one: -one[1])[:4]
    return {
        "script": hold.script,
        "call": hold.call,
        "python": hold.python,
        "ms": significant(min(least, *served)),
        "ms_by_the_clock": {"min": significant(least), "median": significant(statistics.median(t for t, _ in found))},
        "ms_with_request_and_reply": significant(min(served)),
        "profile_ms": {name: significant(value, 2) for name, value in top},
    }


def audits(
    client: redis.Redis, structure: str, phase: str, what: str, page: int, repair: str = "report"
) -> Iterator[Hold]:
    """Audit page after page, so that no call finds what another has mended."""
    script = f"{structure}/audit"
    position = 0

    def audit(limit: int) -> Command:
        nonlocal position
        command = call(script, cursor=f"{phase}:{position}", limit=limit, repair=repair)
        if phase == "keys":
            position = int(ask(client, "SCAN", position, "COUNT", limit)[0])
        else:
            verb = "HSCAN" if phase == "rows" else "ZSCAN"
            position = int(ask(client, verb, key(phase), position, "COUNT", limit)[0])
        return command

    for limit in (page, most(script, "limit")):
        yield Hold(script, f"{limit:,} {what}", partial(audit, limit), python=limit == page)


def one_group(client: redis.Redis, size: int) -> Iterator[Hold]:
    """Hold a million items in one group."""
    fill(client, "groups", 1, 1, size, ITEM, FAR)
    group, items = group_name(1), [ITEM] * 10_000
    rates = (10**9, 60_000, 10**9, 3_600_000, 10**9, 1_000)

    def reserved(length: int = 10_000) -> str:
        one = fresh()
        fill(client, "batches", 0, 0, length, ITEM, "leases", one[:1], FAR, 1)
        client.rename(key("batch:" + batch_id(one[:1], 0)), key("batch:" + one))
        send(client, [("ZREM", key("leases"), batch_id(one[:1], 0)), ("ZADD", key("leases"), FAR, one)])
        return one

    def expired_grants() -> None:
        fill(client, "grants", 1, 100, 1)

    def reserve() -> Command:
        expired_grants()
        return call("buffer/reserve", rates, size=10_000)

    def again() -> Command:
        return call("buffer/reserve", rates, id=reserved(), size=10_000)

    def due() -> Command:
        # Nine leases and ten delayed batches have used up their attempts, ten groups are evicted; the tenth is it.
        expired_grants()
        one = reserved()
        client.zadd(key("leases"), {one: 1000})
        for index, prefix, count in (("leases", "x", 9), ("delayed", "y", 10)):
            client.delete(*(key("batch:" + batch_id(prefix, i)) for i in range(1, count + 1)))
            fill(client, "batches", 1, count, 1, ITEM, index, prefix, 1, 5)
        fill(client, "evicted", 1, 10, 1, 1)
        return call("buffer/reserve", rates, size=10_000, max_attempts=5, max_wait=1)

    yield Hold("buffer/push", "10,000 items", lambda: call("buffer/push", items, group=group))
    yield Hold(
        "buffer/push", "10,000 items, at the front", lambda: call("buffer/push", items, group=group, side="front")
    )
    yield Hold("buffer/pop", "10,000 items", lambda: call("buffer/pop", group=group, size=10_000))
    yield Hold("buffer/pop_longest", "10,000 items of 1 group", lambda: call("buffer/pop_longest", size=10_000))
    yield Hold("buffer/reserve", "10,000 items, 3 rates, 100 expired grants", reserve)
    yield Hold("buffer/reserve", "10,000 items, sent again", again)
    yield Hold("buffer/reserve", "a batch of 10,000 items, behind 29 that are buried or gone", due)
    yield Hold("buffer/ack", "10,000 items", lambda: call("buffer/ack", id=reserved()))
    yield Hold("buffer/ack", "10,000 items, all failed", lambda: call("buffer/ack", range(10_000), id=reserved()))
    yield Hold("buffer/release", "10,000 items", lambda: call("buffer/release", id=reserved(), attempt="forget"))
    yield Hold("buffer/extend", "1 batch", lambda: call("buffer/extend", id=reserved(1)))


def purge_group(client: redis.Redis, size: int) -> Iterator[Hold]:
    """Purge a million items in one group."""

    def purge() -> Command:
        client.flushall()
        fill(client, "groups", 1, 1, size, ITEM, FAR)
        return call("buffer/purge", limit=buffer_ops._PURGE_STEP)

    yield Hold("buffer/purge", "1 group of all the items", purge)


def purge_members(client: redis.Redis, size: int) -> Iterator[Hold]:
    """Purge a million members, half of them ready."""

    def purge() -> Command:
        client.flushall()
        fill(client, "members", 1, size // 2, "ready", 0, "")
        fill(client, "members", size // 2 + 1, size, "later", FAR, "1 1 - - ")
        return call("priority/purge")

    yield Hold("priority/purge", "all members", purge, samples=3)


def letters(client: redis.Redis, size: int) -> Iterator[Hold]:
    """Hold a million items in dead letters."""
    ids = [batch_id("d", i) for i in range(1, 1001)]

    def bury(count: int, length: int) -> None:
        client.flushall()
        fill(client, "batches", 1, count, length, ITEM, "dead", "d", 1, 3)

    def dead(count: int, length: int) -> Command:
        bury(count, length)
        return call("buffer/dead", limit=count)

    def change(verb: str) -> Command:
        bury(1000, size // 1000)
        return call(f"buffer/{verb}", ids)

    each = f"{size // 1000:,} items each"
    for limit in (buffer_ops._DEAD_PAGE, most("buffer/dead", "limit")):
        length = 10_000 // limit
        called = f"{limit:,} batches of {length:,} items"
        yield Hold("buffer/dead", called, partial(dead, limit, length), python=limit == buffer_ops._DEAD_PAGE)
    yield Hold("buffer/dead", "2 batches of 10,000 items", partial(dead, 2, 10_000))
    yield Hold("buffer/redrive", f"1,000 batches, {each}", partial(change, "redrive"))
    yield Hold("buffer/discard", f"1,000 batches, {each}", partial(change, "discard"))


def many_groups(client: redis.Redis, size: int) -> Iterator[Hold]:
    """Hold a million groups, and as many batches of each kind as a purge takes."""
    fill(client, "groups", 1, size, 1, ITEM, FAR)
    many = most("buffer/pop_longest", "count")
    evicted = itertools.count(1, many)

    def gone() -> Command:
        first = next(evicted)
        fill(client, "evicted", first, first + many - 1, 5, FAR)
        return call("buffer/pop_longest", count=many)

    def purge(limit: int) -> Command:
        for index, prefix in (("leases", "l"), ("delayed", "w"), ("dead", "d")):
            fill(client, "batches", 1, limit, 1, ITEM, index, prefix, FAR, 1)
        return call("buffer/purge", limit=limit)

    longest = most("buffer/longest", "count")
    yield Hold("buffer/longest", f"{longest:,} groups", partial(call, "buffer/longest", count=longest))
    for limit in (buffer_ops._STATS_PAGE, most("buffer/stats", "limit")):
        stats = partial(call, "buffer/stats", start=max(0, size - limit), limit=limit)
        yield Hold("buffer/stats", f"{limit:,} groups", stats, python=limit == buffer_ops._STATS_PAGE)
    for phase in ("keys", "groups"):
        yield from audits(client, "buffer", phase, f"{phase}, all sound", buffer_ops._AUDIT_PAGE)
    yield Hold("buffer/pop_longest", f"{many:,} groups, 1 item each", partial(call, "buffer/pop_longest", count=many))
    yield Hold("buffer/pop_longest", f"{many:,} groups, all evicted", gone)
    for limit in (buffer_ops._PURGE_STEP, most("buffer/purge", "limit")):
        called = f"{limit:,} groups and batches of each kind"
        yield Hold("buffer/purge", called, partial(purge, limit), python=limit == buffer_ops._PURGE_STEP)


def broken_buffer(client: redis.Redis, size: int) -> Iterator[Hold]:
    """Hold a million groups, none of them counted."""
    fill(client, "groups", 1, size, 1, ITEM, FAR)
    client.unlink(key("groups"), key("since"))
    yield from audits(client, "buffer", "keys", "keys, all mended", buffer_ops._AUDIT_PAGE, "repair")


OWNER = "o" + "0" * 31


def ready_members(client: redis.Redis, size: int) -> Iterator[Hold]:
    """Hold a million members that are ready, each with a row, because each was delayed once."""
    client.hset(key("meta"), mapping={"order": "fifo", "sequence": 3 * size})
    fill(client, "members", 1, size, "ready", 0, "1 1 - - ")
    rates = (10**9, 60_000, 10**9, 3_600_000, 10**9, 1_000)
    numbers = itertools.count(2 * size, 100)

    def due(row: str) -> None:
        first = next(numbers)
        fill(client, "members", first, first + 99, "later", -3 * size, row)
        fill(client, "grants", 1, 100, 1)

    def pop() -> Command:
        due(f"1 1 1 1 {OWNER}")
        return call("priority/pop", count=1000)

    def reserve() -> Command:
        due(f"1 1 1 1 {OWNER}")
        return call("priority/reserve", rates, size=1000)

    def reserve_dying() -> Command:
        due(f"1 5 - - {OWNER}")
        return call("priority/reserve", rates, size=1000, max_attempts=5)

    def again() -> Command:
        command = call("priority/reserve", rates, size=1000)
        ask(client, *command)
        return command

    def pushes(first: int | None, **values: Any) -> Command:
        start = first or next(numbers) * 10 + 10**9
        pairs = itertools.chain(*((-5, member_name(i)) for i in range(start, start + 1000)))
        return call("priority/push", list(pairs), **values)

    yield Hold("priority/peek", "1,000 members", partial(call, "priority/peek", count=1000))
    yield Hold("priority/reserve", "1,000 members, sent again", again)
    yield Hold("priority/pop", "1,000 members, 100 due ones noted", pop)
    yield Hold("priority/reserve", "1,000 members, 100 due ones noted, 3 rates, 100 expired grants", reserve)
    yield Hold("priority/reserve", "1,000 members, 100 due ones buried, 3 rates, 100 expired grants", reserve_dying)
    yield Hold("priority/push", "1,000 new members", lambda: pushes(None))
    yield Hold("priority/push", "1,000 new members, delayed", lambda: pushes(None, delay=10**9))
    ranges = itertools.count(size // 2, 1000)
    yield Hold("priority/push", "1,000 members, all raised", lambda: pushes(next(ranges)))


def parked_members(client: redis.Redis, size: int) -> Iterator[Hold]:
    """Hold a million members: half leased, and pushed again since, half dead."""
    half = size // 2
    client.hset(key("meta"), mapping={"order": "fifo", "sequence": size})
    fill(client, "members", 1, half, "later", FAR, f"100 1 50 1 {OWNER}")
    fill(client, "members", half + 1, size, "later", "+inf", "100 3 - - ")
    leased, dead = itertools.count(1, 1000), itertools.count(half + 1, 1000)

    def take(numbers: Iterator[int]) -> list[str]:
        first = next(numbers)
        return [member_name(i) for i in range(first, first + 1000)]

    def lease() -> list[str]:
        members = take(leased)
        client.delete(key(f"lease:{OWNER}"))
        client.rpush(key(f"lease:{OWNER}"), "held", *members)
        return members

    def push(members: list[str], **values: Any) -> Command:
        return call("priority/push", list(itertools.chain(*((-5, member) for member in members))), **values)

    def delayed(row: str) -> list[str]:
        first = next(leased)
        fill(client, "members", first, first + 999, "later", FAR, row)
        return [member_name(i) for i in range(first, first + 1000)]

    def release(row: str, **values: Any) -> Command:
        members = delayed(row)
        client.delete(key(f"lease:{OWNER}"))
        client.rpush(key(f"lease:{OWNER}"), "held", *members)
        return call("priority/release", members, id=OWNER, **values)

    dying = partial(release, f"100 5 - - {OWNER}", max_attempts=5)
    yield Hold("priority/ack", "1,000 members, all noted", lambda: call("priority/ack", lease(), id=OWNER))
    yield Hold("priority/release", "1,000 members, all noted", partial(release, f"100 1 50 1 {OWNER}"))
    yield Hold(
        "priority/release",
        "1,000 members, all noted, not counted",
        partial(release, f"100 1 50 1 {OWNER}", attempt="forget"),
    )
    yield Hold("priority/release", "1,000 members, all buried", dying)
    yield Hold("priority/extend", "1,000 members", lambda: call("priority/extend", lease(), id=OWNER, lease=10**11))
    yield Hold("priority/push", "1,000 members, all leased", lambda: push(lease()))
    yield Hold("priority/push", "1,000 members, all delayed", lambda: push(delayed("100 1 - - ")))
    yield Hold("priority/push", "1,000 members, all dead", lambda: push(take(dead)))
    yield Hold("priority/push", "1,000 members, all dead, delayed", lambda: push(take(dead), delay=10**9))
    yield Hold("priority/remove", "1,000 members", lambda: call("priority/remove", take(leased)))
    yield Hold("priority/dead", "1,000 members", partial(call, "priority/dead", limit=1000))
    yield Hold("priority/redrive", "1,000 members", lambda: call("priority/redrive", take(dead)))
    yield Hold("priority/discard", "1,000 members", lambda: call("priority/discard", take(dead)))
    yield Hold("priority/state", "1 member", partial(call, "priority/state", member=member_name(half)))
    for limit in (priority_ops._STATS_PAGE, most("priority/stats", "limit")):
        stats = partial(call, "priority/stats", limit=limit)
        yield Hold("priority/stats", f"{limit:,} members", stats, python=limit == priority_ops._STATS_PAGE)


def broken_priority(client: redis.Redis, size: int) -> Iterator[Hold]:
    """Hold members that are ready and leased at once, rows whose members are nowhere, and rows that say nothing."""
    half = size // 2

    mend = partial(audits, client, "priority", page=priority_ops._AUDIT_PAGE, repair="repair")
    client.hset(key("meta"), mapping={"order": "fifo", "sequence": 10 * size})
    fill(client, "members", 1, half, "later", FAR, f"100 1 50 1 {OWNER}")
    fill(client, "members", 1, half, "ready", 0, "")
    yield from mend("ready", "members, all ready and leased, mended")
    client.unlink(key("ready"), key("later"))
    yield from mend("rows", "rows, all stranded, mended")
    client.unlink(key("ready"), key("later"), key("rows"))
    fill(client, "members", 1, half, "later", FAR, "nothing")
    yield from mend("later", "members, no row can be read, mended")
    fill(client, "once", 1, size, TOKEN)
    yield from mend("keys", "keys")


def limiter(client: redis.Redis, size: int) -> Iterator[Hold]:
    """Hold a million grants, of which 100 leave the span at each call."""
    fill(client, "grants", 1, size, FAR)

    def acquire() -> Command:
        fill(client, "grants", 1, 100, 1)
        return call("limit/acquire", (10**9, 60_000, 10**9, 3_600_000, 10**9, 1_000), cost=1000)

    yield Hold("limit/acquire", "3 rates, 100 expired grants", acquire)


WORLDS = (
    one_group,
    purge_group,
    purge_members,
    letters,
    many_groups,
    broken_buffer,
    ready_members,
    parked_members,
    broken_priority,
    limiter,
)


def holds(size: int, samples: int, by_hand: bool) -> dict[str, Any]:
    """Measure each script's largest calls, of so many items; `by_hand`: with pages that no Python asks for."""
    rows = []
    with contextlib.ExitStack() as stack:
        client = ready_server(stack.enter_context(private_server()), stack)
        loop = ("EVAL", "for i = 1, 10000 do redis.call('GET', KEYS[1]) end", 1, key("layout"))
        scale = min(timed(client, [loop], "eval") for _ in range(20))
        for world in WORLDS:
            say(f"holds: {world.__name__}")
            client.flushall()
            rows += [held(client, hold, samples) for hold in world(client, size) if hold.python or by_hand]
    return {"items": size, "samples": samples, "ms_of_10000_gets": significant(scale / 1000), "rows": rows}


# -- Memory --------------------------------------------------------------------------------------------------


def used(server: Server) -> int:
    """Give the server's bytes, as a client sees them that has sent nothing else."""
    with server.client() as client:
        return int(client.info("memory")["used_memory"])


def grown(server: Server, commands: Sequence[Command]) -> int:
    """Give the bytes that commands add."""
    before = used(server)
    with server.client() as client:
        for start in range(0, len(commands), 1000):
            send(client, commands[start : start + 1000])
    return used(server) - before


def usage(client: redis.Redis, *keys: str) -> int:
    """Give the bytes of some keys, no element of them estimated."""
    return sum(ask(client, "MEMORY", "USAGE", one, "SAMPLES", 0) or 0 for one in keys)


def memory(count: int) -> dict[str, Any]:
    """Measure bytes: against plain structures of the same payloads, and of what redisq keeps besides."""
    say("memory")
    few = count // 10
    members = [member_name(i) for i in range(count)]
    pieces = [members[start : start + 1000] for start in range(0, count, 1000)]
    ids = [batch_id("l", i) for i in range(few)]
    call_once = partial(call, window=0)

    def push(items: int) -> list[Command]:
        return [call_once("buffer/push", [ITEM] * 100, group="default") for _ in range(items // 100)]

    def take(batches: int, size: int) -> list[Command]:
        return [call_once("buffer/reserve", id=one, size=size) for one in ids[:batches]]

    pushes = [call_once("priority/push", list(itertools.chain(*((0, one) for one in piece)))) for piece in pieces]
    whole = [call_once("priority/reserve", id=one, size=1000) for one, _ in zip(ids, pieces, strict=False)]
    some = [call_once("priority/push", [0, member]) for member in members[:few]]
    single = [call_once("priority/reserve", id=one) for one in ids]
    buried = [
        call_once("priority/release", piece, id=one, max_attempts=1) for one, piece in zip(ids, pieces, strict=False)
    ]
    costs: list[tuple[str, int, list[Command], list[Command]]] = [
        ("a group, its item included", few, [], [call_once("buffer/push", [ITEM], group=one) for one in members[:few]]),
        *(
            (
                f"a batch of {size}, leased, delayed or dead, more than its items waiting",
                few,
                push(few * size),
                take(few, size),
            )
            for size in (1, 10, 100)
        ),
        ("a member leased with 999 others, more than ready", count, pushes, whole),
        ("a member leased alone, more than ready", few, some, single),
        ("a dead member, more than ready", count, pushes, whole + buried),
        ("a remembered id", few, [], [call("buffer/discard") for _ in ids]),
        (
            "an acked lease of a buffer, remembered",
            few,
            push(few),
            [*take(few, 1), *(call("buffer/ack", id=one) for one in ids[:few])],
        ),
        (
            "an acked lease of a priority queue, remembered",
            few,
            [],
            [
                *some,
                *single,
                *(call("priority/ack", [member], id=one) for member, one in zip(members, ids, strict=False)),
            ],
        ),
        ("a grant", few, [], [call_once("limit/acquire", (10**9, 10**9)) for _ in ids]),
    ]
    ratios: dict[str, dict[str, float]] = {}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(private_server())
        client = ready_server(server, stack)

        send(client, [*push(1000), *pushes[:1]])  # what a server allocates for its first large call, it keeps

        def measured(commands: list[Command], keys: Sequence[str]) -> tuple[int, int]:
            client.flushall()
            return grown(server, commands), usage(client, *keys)

        plain = [("LPUSH", "plain", *[ITEM] * 100)] * (count // 100)
        theirs = measured(plain, ["plain"])
        ours = measured(push(count), [key(one) for one in ("items:default", "groups", "since", "layout", "wake")])
        ratios["a waiting item / an item of a plain list"] = compared(ours, theirs, count)
        plain = [("ZADD", "plain", *(word for one in piece for word in ("7", one))) for piece in pieces]
        theirs = measured(plain, ["plain"])
        ours = measured(pushes, [key(one) for one in ("ready", "later", "rows", "meta", "layout", "wake")])
        ratios["a ready member / a member of a plain sorted set"] = compared(ours, theirs, count)
        bytes_each = {}
        for title, number, before, commands in costs:
            client.flushall()
            send(client, before)
            bytes_each[title] = significant(grown(server, commands) / number)
    return {"payload": len(ITEM), "member": len(members[0]), "count": count, "ratios": ratios, "bytes": bytes_each}


def compared(ours: tuple[int, int], theirs: tuple[int, int], count: int) -> dict[str, float]:
    """Reduce the bytes of two structures, by used_memory and by MEMORY USAGE, to ratios."""
    return {
        "used_memory": significant(ours[0] / theirs[0]),
        "MEMORY USAGE": significant(ours[1] / theirs[1]),
        "bytes": significant(ours[0] / count),
    }


# -- The part ------------------------------------------------------------------------------------------------


def run(effort: Effort) -> dict[str, Any]:
    """Measure growth, holds and memory, each on servers of its own."""
    growth, rounds, samples = [], effort.of(2, 6), effort.of(1, 6)
    size, count = effort.of(20_000, 1_000_000), effort.of(5_000, 100_000)
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(private_server()) for _ in range(effort.of(2, 6))]
        facts = environment(servers[0])
        clients = [ready_server(server, stack) for server in servers]
        for kind, title, low, high, state in DIMENSIONS:
            sizes = [10**power for power in effort.of((low, low + 2), tuple(range(low, high + 1)))]
            growth += dimension(clients, kind, title, sizes, state, rounds)
    return {
        "environment": facts,
        "quick": effort.quick,
        "rounds": rounds,
        "growth": growth,
        "holds": holds(size, samples, by_hand=not effort.quick),
        "memory": memory(count),
    }


def claims(result: dict[str, Any]) -> list[Claim]:
    """Say what the README says of this part; a quick run, on a busy machine, only sees what is far off."""
    slack = 3.0 if result["quick"] else 1.0
    worst = max(row["fitted_ratio"] / row["log_ratio"] for row in result["growth"])
    rows = result["holds"]["rows"]
    calls = {"that the Python makes": [row["ms"] for row in rows if row["python"]]}
    if not result["quick"]:
        calls["of any script"] = [row["ms"] for row in rows]
    found = [Claim("growth: an operation's time / log N, the worst", [worst], slack, at_most=True)]
    for which, times in calls.items():
        found.append(Claim(f"growth: longest call {which}, ms", [max(times)], REACH_MS * slack, at_most=True))
    for title, ratio in result["memory"]["ratios"].items():
        found.append(Claim(f"growth: bytes of {title}", [ratio["used_memory"]], REACH_BYTES, at_most=True))
    return found


def table(result: dict[str, Any]) -> str:
    """Lay the result out for people."""
    lines = ["server us per call, by size; growth: the largest size's over the smallest's, log N grows by"]
    title = None
    for row in result["growth"]:
        if title != (row["structure"], row["grows"]):
            title = (row["structure"], row["grows"])
            sizes = "".join(f"{f'10^{len(size) - 1}':>7}" for size in row["usec"])
            lines += ["", f"{f'{title[0]}: {title[1]}':<34}{sizes}   growth  log N  exponent"]
        times = "".join(f"{time:>7.3g}" for time in row["usec"].values())
        figures = f"{row['ratio']:>9.2f}{row['log_ratio']:>7.2f}{row['exponent']:>10.3f}"
        lines.append(f"{row['operation']:<34}{times}{figures}")
    lines += ["", f"longest hold at {result['holds']['items']:,} items, ms: the call; the median by the clock; "]
    lines[-1] += "with request and reply; where the time goes"
    lines.append(f"{'for scale: 10,000 times GET, in a script':<86}{result['holds']['ms_of_10000_gets']:>8.2f}")
    for row in result["holds"]["rows"]:
        profile = ", ".join(f"{name} {time:g}" for name, time in row["profile_ms"].items())
        what = f"{row['script']}: {row['call']}"
        columns = row["ms"], row["ms_by_the_clock"]["median"], row["ms_with_request_and_reply"]
        lines.append(f"{what:<86}" + "".join(f"{time:>8.2f}" for time in columns) + f"  {profile}")
    lines += ["", "memory"]
    for what, ratio in result["memory"]["ratios"].items():
        lines.append(f"{what:<86}{ratio['used_memory']:>7.3f}{ratio['MEMORY USAGE']:>7.3f}")
    lines += [f"{what:<86}{cost:>7.0f} bytes" for what, cost in result["memory"]["bytes"].items()]
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and write the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing is written: does it run?")
    effort = Effort(parser.parse_args().quick)
    result = run(effort)
    print("\n".join(f"{name}: {value}" for name, value in result["environment"].items()) + "\n")
    print(table(result) + "\n")
    found = [claim.summary() for claim in claims(result)]
    for claim in found:
        print(f"{claim['claim']}: {claim['median']:g}, {claim['reach']}: {'yes' if claim['reached'] else 'NO'}")
    if not effort.quick:
        result["claims"] = found
        print(f"\nwritten to {write('growth', result)}")


if __name__ == "__main__":
    main()
