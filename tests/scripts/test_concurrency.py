"""Many processes on one server: nothing is lost or duplicated, the counts are exact, the rates are kept.

Each process starts anew (spawn) and waits at a barrier, so that all work at the same time; none sleeps.
"""

from __future__ import annotations

import multiprocessing
import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from multiprocessing.synchronize import Barrier
from typing import Any, TypeVar

import redis

from redisq import Buffer, PriorityQueue, Pushed, Rate, RateLimiter
from redisq.core.buffer import MAX_ITEMS
from redisq.embedded import Server

R = TypeVar("R")

WORKERS = 8
SHARE = 6_250  # of the 50,000 items and 50,000 members, each worker's
PIECES = (1, 4, 20)
GROUPS = [f"group {i}" for i in range(5)]
HOT = 40  # members that all workers push repeatedly

_start: Barrier


def _arm(start: Barrier) -> None:
    global _start
    _start = start


def run(
    workers: int, work: Callable[[str, int], R], server: Server, meanwhile: Callable[[], None] = lambda: None
) -> list[R]:
    """Run `work(socket, number)` in this many processes at once; call `meanwhile` until all are done."""
    spawn = multiprocessing.get_context("spawn")
    start = spawn.Barrier(workers)
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_arm, initargs=(start,)) as pool:
        futures: list[Future[R]] = [pool.submit(work, server.socket, number) for number in range(workers)]
        while wait(futures, timeout=0.05).not_done:
            meanwhile()
        return [future.result() for future in futures]


@dataclass
class Tally:
    """What one worker did."""

    items: list[tuple[str, list[int]]] = field(default_factory=list)
    """Popped from the buffer, in order: group and [worker, number]."""
    members: list[tuple[str, float]] = field(default_factory=list)
    """Popped from the priority queue, in order, with their priorities."""
    added: Counter[str] = field(default_factory=Counter)
    """Pushes of each hot member that were answered with ADDED."""


def push_and_pop(socket: str, worker: int) -> Tally:
    """Push this worker's share into both structures and pop a little less, mostly items of other workers.

    Every other worker pops from one group, the rest from the longest groups.
    """
    account = Tally()
    with redis.Redis(unix_socket_path=socket) as client:
        buffer: Buffer[list[int]] = Buffer(client, "items")
        queue = PriorityQueue(client, "members")
        client.ping()
        _start.wait(60)
        pushed = 0
        for turn in range(SHARE // sum(PIECES)):
            group = GROUPS[(turn + worker) % len(GROUPS)]
            for size in PIECES:
                piece = range(pushed, pushed + size)
                pushed += size
                buffer.push(*([worker, i] for i in piece), group=group)
                assert queue.push_many((f"{worker}-{i}", i % 3) for i in piece) == {Pushed.ADDED: size}
            hot = f"hot-{turn % HOT}"
            account.added[hot] += queue.push(hot, 1 - worker) is Pushed.ADDED
            for size in (*PIECES[:-1], PIECES[-1] - 1):
                account.members += [(item.member, item.priority) for item in queue.pop_many(size)]
                if worker % 2:
                    taken = {group: buffer.pop(group, size)}
                else:
                    taken = buffer.pop_longest(min(2, size), (size + 1) // 2)
                account.items += [(name, item) for name, items in taken.items() for item in items]
    return account


def in_order(numbers: list[tuple[Any, int]]) -> bool:
    """Return whether the numbers of each kind only increase."""
    last: dict[Any, int] = {}
    for kind, number in numbers:
        if number <= last.get(kind, -1):
            return False
        last[kind] = number
    return True


def test_eight_processes_push_and_pop_with_exact_counts(server: Server) -> None:
    with server.client() as client:
        buffer: Buffer[list[int]] = Buffer(client, "items")
        queue = PriorityQueue(client, "members")
        audits = 0

        def audit() -> None:
            nonlocal audits
            assert buffer.audit().findings == []
            assert queue.audit().findings == []
            audits += 1

        accounts = run(WORKERS, push_and_pop, server, meanwhile=audit)
        assert audits > 0

        for account in accounts:  # a worker pops the items of another in the order in which that one pushed them
            assert in_order([((group, by), i) for group, (by, i) in account.items])
            own = [(member.split("-"), priority) for member, priority in account.members if member[0] != "h"]
            assert in_order([((by, priority), int(i)) for (by, i), priority in own])

        items = [(by, i) for account in accounts for _, (by, i) in account.items]
        members = [member for account in accounts for member, _ in account.members]
        added = sum((account.added for account in accounts), Counter[str]())
        assert set(added) == {f"hot-{i}" for i in range(HOT)}

        waiting = WORKERS * SHARE - len(items)
        assert waiting > 0
        assert buffer.stats().waiting == waiting
        assert sum(buffer.groups(len(GROUPS)).values()) == waiting
        stats = queue.stats()
        assert stats.waiting == WORKERS * SHARE + added.total() - len(members) > 0
        assert (stats.delayed, stats.leased, stats.dead) == (0, 0, 0)
        audit()

        while buffer.groups():
            items += [(by, i) for taken in buffer.pop_longest(1, MAX_ITEMS).values() for by, i in taken]
        while more := queue.pop_many(500):
            members += [item.member for item in more]
        assert Counter(items) == Counter((by, i) for by in range(WORKERS) for i in range(SHARE))
        expected = Counter(f"{by}-{i}" for by in range(WORKERS) for i in range(SHARE))
        assert Counter(members) == expected + added  # a hot member was popped as often as a push added it
        assert buffer.stats().waiting == queue.stats().waiting == 0
        audit()


RATES = (Rate(20, per=0.25), Rate(50, per=1.0))
SECONDS = 2.5


def acquire(socket: str, worker: int) -> list[tuple[float, float, int]]:
    """Acquire without pauses, and return for each grant the server's time before and after it, and the amount."""
    grants = []
    some = random.Random(worker)
    with redis.Redis(unix_socket_path=socket) as client:
        limiter = RateLimiter(client, "api", *RATES)
        client.ping()
        _start.wait(60)
        first = last = 0.0
        while last - first < SECONDS:
            call = limiter.calls.acquire(some.randint(1, 4))
            with client.pipeline() as pipe:
                pipe.time()
                call.queue(pipe)
                pipe.time()
                before, reply, after = pipe.execute()
            start, last = (seconds + micros / 1e6 for seconds, micros in (before, after))
            first = first or start
            if granted := call.decode(reply).granted:
                grants.append((start, last, granted))
    return grants


def test_four_processes_stay_within_the_rates_in_every_span(server: Server) -> None:
    grants = sorted(grant for each in run(4, acquire, server) for grant in each)
    for rate in RATES:
        # The greatest sum of a span begins with a grant; only grants that are certainly in it are counted.
        most = max(sum(n for t, end, n in grants if start <= t and end <= start + rate.per) for start, _, _ in grants)
        assert most == rate.limit  # never more, and the whole limit is used


ORDERED = 400


def work_in_order(socket: str, worker: int) -> int:
    """Reserve ordered groups; fail sometimes, else record what is done before the ack; return how many items."""
    some, done = random.Random(worker), 0
    with redis.Redis(unix_socket_path=socket) as client:
        buffer: Buffer[int] = Buffer(client, "ordered", ordered=True)
        client.ping()
        _start.wait(60)
        while sum(client.llen(f"log:{group}") for group in GROUPS) < ORDERED * len(GROUPS):
            batch = buffer.reserve(some.randint(1, 5))
            if batch is None:
                continue
            if some.random() < 0.2:
                batch.release(delay=some.choice((0.0, 0.001)))
                continue
            keep = some.randint(1, len(batch.items))  # the first ones are done; it stops at the first that fails
            client.rpush(f"log:{batch.group}", *batch.items[:keep])
            batch.fail_at(*range(keep, len(batch.items)))
            done += batch.ack()
    return done


def test_four_processes_keep_the_order_of_groups(server: Server) -> None:
    with server.client() as client:
        buffer: Buffer[int] = Buffer(client, "ordered", ordered=True)
        for group in GROUPS:
            buffer.push(*range(ORDERED), group=group)
        done = run(4, work_in_order, server)
        assert sum(done) == ORDERED * len(GROUPS)
        for group in GROUPS:
            logged: list[bytes] = client.lrange(f"log:{group}", 0, -1)
            assert [int(item) for item in logged] == list(range(ORDERED))
        assert buffer.stats().done == ORDERED * len(GROUPS)
        assert buffer.audit().ok
