"""Busy groups of an ordered buffer cost nothing: no call iterates over them.

The tests count the commands that the server runs in scripts, by name, and its instructions.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import redis

from benchmarks.instructions.callgrind import counting, wrapped
from redisq import Buffer
from redisq.embedded import Server

pytestmark = pytest.mark.server

T = TypeVar("T")

BUSY = 10_000
CALLS = 50
LEASES = "redisq:{q}:leases"

Act = Callable[[redis.Redis, Buffer[int]], None]


def stock(client: redis.Redis, busy: int) -> None:
    """Fill an ordered buffer with a free group, and this many groups that have a batch out and more items waiting."""
    client.flushall()
    buffer = Buffer[int](client, "q", lease=3_600, ordered=True)
    for number in range(busy):
        buffer.push(1, 2, group=str(number))
    for first in range(0, busy, 1_000):
        buffer.reserve_many(min(1_000, busy - first), 1)
    assert buffer.stats().busy_groups == busy
    assert buffer.reserve() is None
    buffer.push_many(range(1_000), group="free")


def take(client: redis.Redis, buffer: Buffer[int]) -> None:  # noqa: ARG001
    """Reserve the items of the free group, and ack them."""
    batch = buffer.reserve(1)
    assert batch
    assert batch.group == "free"
    batch.ack()


def take_again(client: redis.Redis, buffer: Buffer[int]) -> None:
    """Reserve the batch of a busy group whose lease has expired."""
    first: Any = client.zrange(LEASES, 0, 0)
    client.zadd(LEASES, {first[0]: 0})
    batch = buffer.reserve()
    assert batch
    assert batch.attempts > 1


def pop(client: redis.Redis, buffer: Buffer[int]) -> None:  # noqa: ARG001
    """Pop the items of the longest group."""
    assert list(buffer.pop_longest(1, 1)) == ["free"]


def push(client: redis.Redis, buffer: Buffer[int]) -> None:  # noqa: ARG001
    """Push to the free group."""
    buffer.push(1, group="free")


def find_nothing(client: redis.Redis, buffer: Buffer[int]) -> None:  # noqa: ARG001
    """Reserve when every group is busy."""
    assert buffer.reserve() is None


def measured(client: redis.Redis, acts: Sequence[Act], measure: Callable[[Callable[[], object]], T]) -> dict[str, T]:
    """Measure some operations on the buffer."""
    buffer = Buffer[int](client, "q", lease=3_600, ordered=True)
    found = {}
    for act in acts:
        if act is find_nothing:
            assert buffer.reserve(3_000)  # the free group
        act(client, buffer)  # so that the script is loaded
        found[act.__name__] = measure(partial(act, client, buffer))
    return found


def test_busy_groups_add_no_commands(server: Server) -> None:
    """With 10,000 busy groups a call runs the same commands, equally often, as with one."""
    found = []
    with server.client() as client:

        def commands(act: Callable[[], object]) -> dict[str, int]:
            client.config_resetstat()
            for _ in range(CALLS):
                act()
            stats: dict[str, Any] = client.info("commandstats")
            return {name: one["calls"] for name, one in stats.items() if "config" not in name and "info" not in name}

        for busy in (1, BUSY):
            stock(client, busy)
            found.append(measured(client, (take, take_again, pop, push, find_nothing), commands))
    few, many = found
    assert min(sum(counts.values()) for counts in few.values()) >= 5 * CALLS
    assert many == few


@pytest.mark.usefixtures("valgrind")
def test_busy_groups_add_no_instructions(server: Server, tmp_path: Path) -> None:
    """With 10,000 busy groups a call takes hardly more instructions than with one."""
    found = []
    for busy in (1, BUSY):
        with server.client() as client:  # not under valgrind, where it would be slow
            stock(client, busy)
            client.save()
            files: dict[str, Any] = client.config_get("dir")
            shutil.move(Path(files["dir"], "dump.rdb"), tmp_path / "dump.rdb")
        with (
            wrapped(server.binary) as program,
            Server(program, directory=tmp_path) as slow,
            counting(slow) as counter,
        ):
            assert counter.client.hlen("redisq:{q}:busy") == busy

            def instructions(act: Callable[[], object]) -> float:
                return counter.count([lambda: act() is None] * CALLS)

            found.append(measured(counter.client, (take, take_again, find_nothing), instructions))
    few, many = found
    for name, count in few.items():
        print(f"{name}: {count:,.0f} instructions with one busy group, {many[name]:,.0f} with {BUSY:,}")
        assert many[name] < 1.25 * count  # one instruction for each busy group would be more
