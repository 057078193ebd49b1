"""Ids come from the operating system, not from a generator whose state a fork, a snapshot or a seed could copy.

Two processes with the same ids would lose each other's pushes, and one would get the other's batch.
"""

from __future__ import annotations

import os
import random
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from redisq import BYTES, BatchData, Rate
from redisq.core.buffer import BufferCalls
from redisq.core.calls import Call
from redisq.core.limiter import LimiterCalls
from redisq.core.priority import PriorityCalls
from redisq.core.scripts import load, names

BUFFER = BufferCalls("q", codec=BYTES)
QUEUE = PriorityCalls("q", codec=BYTES)
LIMITER = LimiterCalls("q", (Rate(1, 1),))


def _first(flow: Any) -> Call[Any]:
    step = next(flow)
    return step if isinstance(step, Call) else step.calls[0]


CALLS: dict[str, Callable[[], Call[Any]]] = {
    "push": lambda: BUFFER.push([b"a"]),
    "push_many": lambda: _first(BUFFER.push_many([b"a"])),
    "reserve": lambda: BUFFER.reserve(),
    "reserve_many": lambda: _first(BUFFER.reserve_many(1)),
    "redrive": lambda: _first(BUFFER.redrive(["l"])),
    "discard": lambda: BUFFER.discard(["l"]),
    "pause": lambda: BUFFER.pause(),
    "resume": lambda: BUFFER.resume(),
    "pause_group": lambda: BUFFER.pause_group("g"),
    "resume_group": lambda: BUFFER.resume_group("g"),
    "drop_group": lambda: _first(BUFFER.drop_group("g")),
    "push of a member": lambda: QUEUE.push(b"a"),
    "push_many of members": lambda: _first(QUEUE.push_many([(b"a", 0)])),
    "reserve of members": lambda: QUEUE.reserve(),
    "reserve_many of members": lambda: _first(QUEUE.reserve_many(1)),
    "redrive of members": lambda: QUEUE.redrive([b"a"]),
    "discard of members": lambda: QUEUE.discard([b"a"]),
    "remove": lambda: QUEUE.remove([b"a"]),
    "pause of members": lambda: QUEUE.pause(),
    "resume of members": lambda: QUEUE.resume(),
    "acquire": lambda: LIMITER.acquire(),
}


def id_of(call: Call[Any]) -> str:
    """Return the id by which a repeated call is recognized."""
    name = call.lease_id or call.token
    assert name
    assert any(key.endswith(name.encode()) or f":{name}:".encode() in key for key in call.keys)
    return name


def test_every_repeatable_call_is_tested() -> None:
    """For each script that declares an id and can generate one."""
    remembering = {name for name in names() if load(name).replay == "once" or name.endswith("/reserve")}
    assert {call().script.name for call in CALLS.values()} == remembering


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_each_call_has_an_id_of_128_bits(call: Callable[[], Call[Any]]) -> None:
    """In hex, and each is different."""
    ids = {id_of(call()) for _ in range(1000)}
    assert len(ids) == 1000
    assert all(len(bytes.fromhex(one)) == 16 for one in ids)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_pythons_generators_are_not_used(call: Callable[[], Call[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeded again, reset to an earlier state, or broken, they make no difference."""
    ids = set()
    state = random.getstate()
    for _ in range(50):
        random.seed(7)
        ids.add(id_of(call()))
        random.setstate(state)
        ids.add(id_of(call()))
    assert len(ids) == 100

    def broken(*_: object) -> Any:
        raise AssertionError("Python's generator must not be used")

    for name in ("random", "getrandbits", "randbytes", "choice", "randint", "uniform"):
        monkeypatch.setattr(random, name, broken)
    for name in ("uuid1", "uuid4"):
        monkeypatch.setattr(uuid, name, broken)
    assert id_of(call()) not in ids


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_each_id_is_read_from_the_operating_system(
    call: Callable[[], Call[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is prepared in advance, which a snapshot of the process would copy."""
    asked: list[int] = []

    def urandom(size: int) -> bytes:
        asked.append(size)
        return b"\1" * size

    monkeypatch.setattr(os, "urandom", urandom)
    assert id_of(call()) == id_of(call()) == "01" * 16
    assert asked == [16, 16]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_process_has_other_ids_after_a_fork() -> None:
    """Whatever was generated before; its leases have another holder, too."""
    calls = list(CALLS.values())
    for call in calls:
        call()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:  # nothing of the tests may run in the child
        try:
            made = [id_of(call()) for call in calls for _ in range(20)]
            holder = BUFFER.reserve().args[2]
            assert isinstance(holder, bytes)
            os.write(write, " ".join([holder.decode(), *made]).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        holder, *its = pipe.read().split(" ")
    assert os.waitpid(child, 0)[1] == 0
    mine = [id_of(call()) for call in calls for _ in range(20)]
    assert len({*mine, *its}) == len(mine) + len(its) == 2 * 20 * len(calls)
    assert holder.endswith(f":{child}")
    assert BUFFER.reserve().args[2] == holder.replace(str(child), str(os.getpid())).encode()


def test_settlements_are_identified_by_the_lease_id() -> None:
    """An ack has no other id."""
    lease: BatchData[bytes] = BatchData("mine", "g", [b"a"], 1, 0, [b"a"])
    for queue in (BUFFER, QUEUE):
        settled: Any = queue
        for verb in ("ack", "release", "bury", "extend"):
            call = getattr(settled, verb)(lease)
            assert call.args[0] == b"mine"
            assert call.token is call.lease_id is None


def test_a_token_is_used_as_the_id() -> None:
    """For a push, and as the lease id of a reserve."""
    assert id_of(BUFFER.push([b"a"], token="mine")) == "mine"
    assert id_of(QUEUE.push(b"a", token="mine")) == "mine"
    assert id_of(BUFFER.reserve(lease_id="mine")) == id_of(QUEUE.reserve(lease_id="mine")) == "mine"
    assert id_of(LIMITER.acquire(token="mine")) == "mine"
    assert id_of(_first(BUFFER.reserve_many(2, lease_id="mine"))) == "mine"
