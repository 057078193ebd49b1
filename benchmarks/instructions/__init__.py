"""Count the instructions that the server executes for one call of each operation.

    python -m benchmarks.instructions --only 'buffer/reserve,priority/push*'
    python -m benchmarks.instructions --check

`redis-server` runs under Callgrind (of valgrind), so a figure hardly depends on what else the machine does. The state
that the calls need is prepared first; then the count is set to zero, 150 calls are sent one after the other, the count
is read and divided. 150 because every 50th script call pays for a step of Lua's garbage collector, and so that a tick
of the server's timer, about 100 k instructions, counts for little.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from redisq.embedded import Server

from .budgets import Figure
from .callgrind import Counter, counting, find_server, wrapped
from .operations import CASES, Case, load_scripts

CALLS = 150


def count(counter: Counter, case: Case, calls: int = CALLS, rounds: int = 1) -> Figure:
    """Count one case, each round in a state prepared anew."""
    found = []
    for _ in range(rounds):
        counter.client.flushall()
        load_scripts(counter.client)
        try:
            found.append(counter.count(case.prepare(counter.client, case.size, calls)) / 1000)
        except Exception as error:
            raise RuntimeError(f"{case.name}, size {case.size}: {error}") from error
    return Figure(case.name, case.size, statistics.median(found), min(found), max(found))


def chosen(only: Sequence[str]) -> list[Case]:
    """Return the cases whose names match these patterns, or all; raise `ValueError` for a pattern that matches none."""
    if unknown := [pattern for pattern in only if not any(fnmatchcase(case.name, pattern) for case in CASES)]:
        raise ValueError(f"no such operation: {', '.join(unknown)}")
    return [case for case in CASES if not only or any(fnmatchcase(case.name, pattern) for pattern in only)]


def figures(cases: Sequence[Case], *, server: str | None = None, calls: int, rounds: int) -> Iterator[Figure]:
    """Count cases on one server."""
    with wrapped(find_server(server)) as program, Server(program) as running, counting(running) as counter:
        for case in cases:
            yield count(counter, case, calls, rounds)
