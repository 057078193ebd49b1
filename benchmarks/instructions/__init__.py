"""Count the instructions that the server executes for one call of each operation, and for a whole item.

    python -m benchmarks.instructions                                         everything; writes the results
    python -m benchmarks.instructions --only 'buffer/reserve,priority/push*'  a few seconds
    python -m benchmarks.instructions --check                                 what has a budget; about 30 seconds

`redis-server` runs under Callgrind (of valgrind), so a figure hardly depends on what else the machine does. For each
case Lua starts anew and the state that the calls need is prepared. Then the count is set to zero, 150 calls are made
one after the other, and the count is read and divided. 150, because every 50th script call pays for a step of Lua's
garbage collector. What the server's timer does depends on the time that passes, not on the calls: it is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

from redisq.embedded import Server

from ..measure import environment
from .budgets import Figure
from .callgrind import Counter, counting, find_server, valgrind_version, wrapped
from .items import item_figures
from .operations import CASES, Case, load_scripts

CALLS = 150


def count(counter: Counter, case: Case, calls: int, rounds: int) -> Figure:
    """Count one case, each round in a state prepared anew."""
    found = []
    for _ in range(rounds):
        counter.client.flushall()
        load_scripts(counter.client)
        try:
            found.append(counter.count(case.prepare(counter.client, case.size, calls)) / 1000)
        except Exception as error:
            raise RuntimeError(f"{case.name}, size {case.size}: {error}") from error
    return Figure(case.name, case.size, found)


def chosen(only: Sequence[str]) -> list[Case]:
    """Return the cases whose names match these patterns, or all; raise `ValueError` for a pattern that matches none."""
    if unknown := [pattern for pattern in only if not any(fnmatchcase(case.name, pattern) for case in CASES)]:
        raise ValueError(f"no such operation: {', '.join(unknown)}")
    return [case for case in CASES if not only or any(fnmatchcase(case.name, pattern) for pattern in only)]


def figures(cases: Sequence[Case], *, server: str | None, calls: int, rounds: int) -> Iterator[Figure]:
    """Count cases on one server."""
    with wrapped(find_server(server)) as program, Server(program) as running, counting(running) as counter:
        for case in cases:
            yield count(counter, case, calls, rounds)


def facts(server: str | None) -> dict[str, Any]:
    """Say on what this was measured."""
    with Server(find_server(server)) as running:
        return {**environment(running), "valgrind": valgrind_version().removeprefix("valgrind-")}


__all__ = ["CALLS", "chosen", "count", "facts", "figures", "item_figures"]
