"""Redriven batches of a buffer come back at the front of their group, in the order of the ids, in many steps.

A call takes up to 1,000 ids; it is made in steps of at most 100 batches or 3,400 items, from the last ids on. A call
that is interrupted after any of its steps and repeated leaves the same order.
"""

from __future__ import annotations

import random
from itertools import chain, product
from typing import Any

import pytest
import redis

from redisq import Buffer
from redisq.embedded import Server
from tests.scripts.keyspace import dump

pytestmark = pytest.mark.server

BATCHES = 350
GROUPS = ("a", "b", "c")


class Interrupted(redis.Redis):
    """A client whose connection breaks at its n-th script call: before it is sent, or when it is answered."""

    def interrupt(self, call: int, answered: bool) -> None:
        """Set at which call it breaks; 0: never."""
        self.calls, self._at, self._answered = 0, call, answered

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command."""
        self.calls += args[0] == "EVALSHA"
        breaks = args[0] == "EVALSHA" and self.calls == self._at
        if breaks and not self._answered:
            raise redis.ConnectionError("broken before the call")
        reply: Any = super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        if breaks:
            raise redis.ConnectionError("broken before the answer")
        return reply


def stocked(client: redis.Redis, ordered: bool) -> tuple[Buffer[str], dict[str, list[str]]]:
    """Return a buffer with dead batches of 1 to 25 items, and one of 3,000, in three groups; and their items.

    In every group some items wait, and one batch is leased.
    """
    rng = random.Random(1)
    buffer = Buffer[str](client, "q", ordered=ordered)
    dead: dict[str, list[str]] = {}
    for number in range(BATCHES):
        size = 3_000 if number == 200 else rng.randint(1, 25)
        buffer.push(*(f"{number} {i}" for i in range(size)), group=rng.choice(GROUPS))
        batch = buffer.reserve(3_000)
        assert batch
        dead[batch.id] = batch.items
        batch.bury(f"number {number}")
    for group in GROUPS:
        buffer.push(*(f"{group} waits {i}" for i in range(5)), group=group)
        assert buffer.reserve(1)
    return buffer, dead


def waiting(buffer: Buffer[str]) -> dict[str, list[str]]:
    """Return the waiting items of each group, the oldest first."""
    return {group: buffer.peek(group, 100_000) for group in GROUPS}


def expected(buffer: Buffer[str], dead: dict[str, list[str]], ids: list[str]) -> dict[str, list[str]]:
    """Return the items that must wait in each group after these batches have been redriven."""
    groups = {batch.id: batch.group for batch in buffer.dead(1_000)}
    return {
        group: [*chain.from_iterable(dead[one] for one in ids if groups[one] == group), *items]
        for group, items in waiting(buffer).items()
    }


def take_all(buffer: Buffer[str]) -> dict[str, list[str]]:
    """Settle what is leased, then take everything, and return it in the order in which it was handed out."""
    buffer.ack(*buffer.leased(1_000))
    found: dict[str, list[str]] = {group: [] for group in GROUPS}
    while batch := buffer.reserve(700):
        found[batch.group or ""] += batch.items
        batch.ack()
    return found


@pytest.mark.parametrize("ordered", [False, True], ids=["", "ordered"])
def test_dead_letters_come_back_in_the_order_of_the_ids(ordered: bool, server: Server) -> None:
    """Some but not all, in another order than that of their burials, with unknown ids and one that is given twice."""
    with server.client() as client:
        buffer, dead = stocked(client, ordered)
        ids = random.Random(2).sample([*dead], BATCHES - 30)
        after = expected(buffer, dead, ids)
        # Of an id that is given twice, the last place counts.
        assert buffer.redrive(ids[-1], ids[20], "nobody", *ids[:50], "nobody else", *ids[50:]) == len(ids)
        assert {batch.id for batch in buffer.dead(1_000)} == dead.keys() - set(ids)
        assert waiting(buffer) == after
        assert buffer.audit().ok
        assert take_all(buffer) == after


@pytest.mark.parametrize("token", ["the same", None])
def test_an_interrupted_redrive_can_be_repeated(token: str | None, server: Server) -> None:
    """After any of its steps, before it is sent or before it is answered: the order is that of a single call."""
    with server.client() as client, Interrupted(unix_socket_path=server.socket) as interrupt:
        interrupt.interrupt(0, False)
        buffer, dead = stocked(client, False)
        ids = random.Random(3).sample([*dead], BATCHES)
        after = expected(buffer, dead, ids)
        saved = dump(client)
        assert Buffer[str](interrupt, "q").redrive(*ids) == BATCHES
        steps = interrupt.calls
        assert steps >= 4
        for step, answered in product(range(1, steps + 1), (False, True)):
            client.flushall()
            for key, value in saved.items():
                client.restore(key, 0, value)
            interrupt.interrupt(step, answered)
            with pytest.raises(redis.ConnectionError, match="broken before"):
                Buffer[str](interrupt, "q").redrive(*ids, token=token)
            redriven = Buffer[str](interrupt, "q").redrive(*ids, token=token)
            assert redriven == BATCHES if token else redriven <= BATCHES
            assert buffer.dead() == []
            assert waiting(buffer) == after
            assert buffer.audit().ok
