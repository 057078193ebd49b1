"""Worker processes that record in Redis which items they begin and complete. Few imports, so that they start quickly.

The record is a single list, so it is totally ordered, and it survives the processes. Each entry says whether the lease
was still held at that moment: a process that was suspended past its lease goes on without knowing, which no queue can
prevent. Its acks are refused.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Callable
from typing import Any

import redis

from redisq import Batch, Buffer, Bury, LeaseLost, Retry, Worker

from .worker_processes import Task

QUEUE = "q"
RECORD = "record"
GROUPS = 200
POISON = 211
"""every item whose number it divides fails each time"""
SIZE = 10
LEASE = 0.5
MAX_ATTEMPTS = 4
POISONED_CODE = 17
"""the exit code of a process that crashes at a poison item"""

# An entry is `held ms lease words`. With a group, it ends with the number of other batches of the group that are out at
# that moment.
_APPEND = """
local queue, lease, group, time = ARGV[1], ARGV[2], ARGV[3], redis.call('TIME')
local held, others = redis.call('ZSCORE', queue .. 'leases', lease) and 1 or 0, ''
if group ~= '' then
  others = 0
  for _, index in ipairs({ 'leases', 'delayed' }) do
    for _, id in ipairs(redis.call('ZRANGE', queue .. index, 0, -1)) do
      if id ~= lease and redis.call('LINDEX', queue .. 'batch:' .. id, 0) == group then
        others = others + 1
      end
    end
  end
  others = ' ' .. others
end
for i = 4, #ARGV do
  redis.call('RPUSH', KEYS[1], held .. string.format(' %d ', time[1] * 1000 + math.floor(time[2] / 1000)) .. lease
    .. ' ' .. ARGV[i] .. others)
end
"""


def group_of(item: int) -> str:
    """Return the group of an item; the items of a group are pushed in the order of their numbers."""
    return str(item % GROUPS)


def open_queue(kind: str, client: redis.Redis) -> Buffer[int]:
    """Return the queue under test: `ordered`, `isolated` (both ordered) or `unordered`."""
    return Buffer(
        client,
        QUEUE,
        lease=LEASE,
        max_attempts=MAX_ATTEMPTS,
        ordered=kind != "unordered",
        isolate=kind == "isolated",
        max_dead=None,
        dedup_window=3600,
    )


class Recorder:
    """A writer of the record."""

    def __init__(self, client: redis.Redis) -> None:
        self._append = client.register_script(_APPEND)

    def batch(self, batch: Batch[int]) -> None:
        """Record that a batch begins, with its attempts and items."""
        self._write(batch, batch.group or "", f"batch {batch.attempts} {','.join(map(str, batch.items))}")

    def items(self, batch: Batch[int], *lines: str) -> None:
        """Record that items begin or complete, such as `begin 17`."""
        self._write(batch, "", *lines)

    def _write(self, batch: Batch[int], group: str, *lines: str) -> None:
        self._append(keys=[RECORD], args=[f"redisq:{{{QUEUE}}}:", batch.id, group, *lines])


def work(task: Task, write: Callable[..., None]) -> None:  # noqa: ARG001
    """Process batches until killed: half of the processes with redisq's Worker, half with a loop of their own.

    At a random item the handler fails, asks for a retry, buries the batch, or marks that item and all later ones as
    failed. The loop does not extend its leases, and sometimes sleeps past one.
    """
    rng = random.Random(task.seed)
    client = redis.Redis(port=task.port, socket_timeout=10.0)
    queue, recorder = open_queue(task.structure, client), Recorder(client)
    extended = rng.random() < 0.5

    def handle(batch: Batch[int]) -> None:
        recorder.batch(batch)
        ended: tuple[str, ...] = ()
        for place, item in enumerate(batch.items):
            recorder.items(batch, *ended, f"begin {item}")
            time.sleep(rng.random() * 0.001)
            chance = rng.random()
            if item % POISON == 0 or chance < 0.01:
                batch.fail_at(*range(place, len(batch.items)), reason="stopped half-way")
                return
            if chance < 0.015:
                raise RuntimeError("it failed")
            if chance < 0.02:
                raise Retry(rng.random() * 0.2, count=rng.random() < 0.5)
            if chance < 0.021:
                raise Bury("it can never succeed")
            if chance < 0.022 and not extended:
                time.sleep(LEASE * 1.5)
            ended = (f"complete {item}",)
        recorder.items(batch, *ended)

    if extended:
        Worker(queue, handle, size=SIZE, backoff=lambda _: rng.random() * 0.1).run()
    while True:
        with (
            contextlib.suppress(LeaseLost, RuntimeError),
            queue.reserve(SIZE, timeout=60) or contextlib.nullcontext(None) as batch,
        ):
            if batch:
                handle(batch)
                batch.ack(rng.random() * 0.1)


def work_on_poison(task: Task, write: Callable[..., None]) -> None:
    """Run redisq's Worker with a handler that crashes its process at an item named `poison ...`.

    `task.structure` has the settings: `max_attempts isolate`.
    """
    max_attempts, isolate = map(int, task.structure.split())
    client = redis.Redis(port=task.port)
    queue: Any = Buffer[str](client, QUEUE, max_attempts=max_attempts, isolate=bool(isolate))

    def handle(batch: Batch[str]) -> None:
        write("batch", batch.holder, batch.items)
        for item in batch.items:
            if item.startswith("poison"):
                os._exit(POISONED_CODE)

    Worker(queue, handle, size=20, on_ack=lambda batch: write("done", batch.items)).run()
