"""An item that crashes its process: with `isolate` only that item becomes a dead letter.

A worker process is restarted each time the item has crashed it, until nothing is left. To save time, the lease of a
crashed process is made to expire, by changing its deadline in the queue.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest
import redis

from redisq import Buffer

from . import settings
from .group_worker import POISONED_CODE, QUEUE, work_on_poison
from .node import Node
from .worker_processes import Task, begin, context

pytestmark = [pytest.mark.server, settings.limit]

LEASES = f"redisq:{{{QUEUE}}}:leases"


@dataclass
class Outcome:
    """The outcome of all items."""

    done: list[str]
    """items, as often as they were acked"""
    dead: list[list[str]]
    """the items of each dead letter"""
    reasons: list[str]
    """the reason of each dead letter"""
    held: list[tuple[str, list[str]]]
    """holder and items of each hand-over to a process that crashed"""


def remaining(queue: Buffer[str]) -> int:
    """Count what is neither done nor dead: items that wait, and batches."""
    stats = queue.stats()
    return stats.waiting + stats.leased + stats.delayed


def run_worker(server: Node, settings: str, path: Path, queue: Buffer[str]) -> list[list[Any]]:
    """Run a worker process until it crashes or nothing is left; return the lines that it wrote."""
    theirs, ours = context.Pipe(duplex=False)
    task = Task(settings, server.port, path, seed=0, hours=0)
    process = context.Process(target=begin, args=(work_on_poison, task, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        while remaining(queue) and not wait([process.sentinel], 0.02):
            pass
        if remaining(queue):
            process.join()
            assert process.exitcode == POISONED_CODE
        else:
            process.terminate()
            process.join()
            assert process.exitcode == 0
    finally:
        process.kill()
        process.join()
        process.close()
        ours.close()
    return [json.loads(line)[2:] for line in path.read_text().splitlines()]


def process_all(binary: Path, directory: Path, items: list[str], max_attempts: int, isolate: bool) -> Outcome:
    """Push the items, all to one group, and start worker processes one after the other until nothing is left."""
    outcome = Outcome([], [], [], [])
    with Node(binary) as server, server.client() as client:
        queue = Buffer[str](client, QUEUE)
        queue.push(*items)
        for number in range(500):
            lines = run_worker(server, f"{max_attempts} {int(isolate)}", directory / str(number), queue)
            outcome.done += [item for what, *rest in lines if what == "done" for item in rest[0]]
            if not remaining(queue):
                break
            what, holder, held = lines[-1]
            assert what == "batch"
            outcome.held.append((holder, held))
            leases: Any = client.zrange(LEASES, 0, -1)
            assert len(leases) == 1
            client.zadd(LEASES, dict.fromkeys(leases, 0), xx=True)
        check_emptied(client, queue)
        for batch in queue.dead():
            outcome.dead.append(batch.items)
            outcome.reasons.append(batch.reason)
        stats = queue.stats()
        assert (stats.done, stats.buried) == (len(outcome.done), sum(map(len, outcome.dead)))
    print(
        f"max_attempts {max_attempts}, isolate {isolate}: {len(outcome.done)} done, {outcome.dead} dead;"
        f" {len(outcome.held)} processes crashed"
    )
    return outcome


def check_emptied(client: redis.Redis, queue: Buffer[str]) -> None:
    """Assert that nothing is left but dead letters."""
    assert remaining(queue) == 0
    assert queue.audit().ok
    assert client.exists(LEASES) == 0


def last_holder(outcome: Outcome, item: str) -> str:
    """Return the last holder of an item."""
    return next(holder for holder, items in reversed(outcome.held) if item in items)


@pytest.mark.parametrize("max_attempts", [1, 2, 3])
@pytest.mark.parametrize("poisoned", [[6], [6, 15]], ids=["one", "two"])
def test_only_the_poison_is_dead(poisoned: list[int], max_attempts: int, binary: Path, tmp_path: Path) -> None:
    items = [f"poison {i}" if i in poisoned else f"good {i}" for i in range(20)]
    outcome = process_all(binary, tmp_path, items, max_attempts, isolate=True)
    poison = [item for item in items if item.startswith("poison")]
    assert Counter(outcome.done) == Counter(item for item in items if item not in poison)
    assert outcome.dead == [[item] for item in poison]
    for (item,), reason in zip(outcome.dead, outcome.reasons, strict=True):
        assert reason == f"lease ran out: {last_holder(outcome, item)}"
        assert [item] in [held for _, held in outcome.held]  # its last attempt was alone


@pytest.mark.parametrize("max_attempts", [1, 2, 3])
def test_control_without_isolate_all_are_dead(max_attempts: int, binary: Path, tmp_path: Path) -> None:
    items = [f"poison {i}" if i == 6 else f"good {i}" for i in range(20)]
    outcome = process_all(binary, tmp_path, items, max_attempts, isolate=False)
    assert outcome.done == []
    assert outcome.dead == [items]
    assert outcome.reasons == [f"lease ran out: {last_holder(outcome, 'poison 6')}"]
    assert len(outcome.held) == max_attempts
