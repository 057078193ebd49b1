"""Build the calls that are measured, fill the queues that they meet, and read the server's times."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from typing import Any

import redis

from redisq.core.scripts import load, names
from redisq.embedded import Server

from ..measure import usec_per_call

QUEUE = "redisq:{growth}"
ITEM = b"x" * 100
FAR = 4_102_444_800_000  # ms of the year 2100: nothing is due by itself
READY = 1_024 * 10**12  # the score of priority 0, in fifo order, before the place
TOKEN = 6 * 10**8  # ms for which the fills remember ids

Command = tuple[Any, ...]

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
          redis.call('RPUSH', queue .. ':batch:' .. id, 'group:0000001', attempts, 'host:1', '')
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
            scores[#scores + 1] = string.format('%d', at + i)
            scores[#scores + 1] = member
            new[#new + 1] = member
            new[#new + 1] = row
          end
          redis.call('ZADD', queue .. ':' .. index, unpack(scores))
          if row ~= '' then redis.call('HSET', queue .. ':rows', unpack(new)) end
        end""",
    "held": """
        for i = ARGV[2], ARGV[3] do
          local id, member = 'l' .. string.format('%031d', i), string.format('member:%016d', i)
          redis.call('RPUSH', ARGV[1] .. ':lease:' .. id, 'host:1', member, ARGV[5])
          redis.call('SADD', ARGV[1] .. ':held', member)
          redis.call('ZADD', ARGV[1] .. ':leases', ARGV[4] + i, id)
        end""",
    "once": """
        for i = ARGV[2], ARGV[3] do
          redis.call('SET', ARGV[1] .. ':once:r' .. string.format('%031d', i), 12345, 'PX', ARGV[4])
        end""",
    "grants": """
        for i = ARGV[2], ARGV[3] do
          redis.call('ZADD', ARGV[1] .. ':grants', ARGV[4] + i, string.format('%016d 1 %d', i, ARGV[4] + i))
        end""",
}

DEFAULTS: dict[str, Any] = {
    "now": "",
    "window": 60_000,
    "holder": "host:1",
    "reason": "",
    "lease": 3_600_000,
    "delay": 0,
    "order": "fifo",
    "how": "min",
    "side": "back",
    "attempt": "count",
    "state": "dead",
    "repair": "report",
    "cursor": 0,
    "start": 0,
    "size": 1,
    "count": 1,
    "limit": 10,
    "cost": 1,
    "fields": 2,
    "min_size": 1,
    "max_wait": 0,
    "max_attempts": 0,
    "max_dead": 0,
    "max_bytes": 0,
    "ordered": 0,
    "isolate": 0,
    "groups": 0,
    "busy": 0,
    "paused": 0,
    "duration": 0,
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


def call(name: str, **values: Any) -> Command:
    """Build a call by the names in the script's header.

    The numbers of an `ints` slot have names of their own; a slot that takes all that follow is given a list, of tuples
    where several values belong together. An id of a lease (`id`) or of a call (`once`) that is not given is new.
    """
    script, given = load(name), {**DEFAULTS, **values}
    args: list[Any] = []
    for slot in script.args:
        if slot.fields:
            args.append(" ".join(str(given[field.name]) for field in slot.fields))
        elif slot.rest or slot.note.startswith("0..1 "):
            rest = given.get(slot.name, ())
            args += itertools.chain(*(one if isinstance(one, tuple) else (one,) for one in rest))
        elif slot.name == "id":
            args.append(given.setdefault("id", fresh()))
        else:
            args.append(given.get(slot.name, ""))
    keys = []
    for slot in script.keys:
        pattern = slot.note.split()[0].replace("once:<id>", "once:<once>").replace("{queue}", QUEUE)
        name_of_key, _, rest = pattern.partition("<")
        value = rest.removesuffix(">")
        keys.append(name_of_key + str(given.get(value) or fresh()) if value else pattern)
    return ("EVALSHA", script.sha, len(keys), *keys, *args)


def most(name: str, argument: str) -> int:
    """Give the greatest value that a script's header allows, or the most values."""
    return load(name).limit(argument)[1]


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


def load_all(client: redis.Redis) -> None:
    """Let the server know all scripts."""
    for name in names():
        client.script_load(load(name).text)


def ready_server(server: Server, stack: contextlib.ExitStack) -> redis.Redis:
    """Give a client of a server that knows all scripts."""
    client: redis.Redis = stack.enter_context(server.client(socket_timeout=None))  # a fill takes long
    load_all(client)
    return client
