"""The command line: `python -m benchmarks.instructions [--only PATTERN,...] [--check] [--items]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from redisq.embedded import NoServer

from ..measure import say, write
from . import CALLS, chosen, facts, figures, item_figures
from .budgets import BUDGETS, exceeded
from .callgrind import NoValgrind
from .items import claims
from .operations import CASES

_OPERATION = "{:<44}{:>6}{:>16}{:>9}{:>9}{:>7}".format
_ITEM = "{:<48}{:>6}{:>9}{:>9}{:>9}{:>9}".format


def main(argv: Sequence[str] | None = None) -> int:
    """Count, print, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.instructions",
        description="Count the server's instructions for one call of each operation, and for whole items. Without "
        "options: everything, and the results and tables are written.",
    )
    parser.add_argument("--only", default="", metavar="PATTERN,...", help="only these, e.g. buffer/reserve,priority/*")
    parser.add_argument(
        "--check",
        action="store_true",
        help="only what has a budget; 1 if one is exceeded by over 5 %%, or a call holds the server for too long",
    )
    parser.add_argument("--items", action="store_true", help="only whole items")
    parser.add_argument("--calls", type=int, default=CALLS, help="calls of a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, help="rounds, whose median counts (default: 1; of a full run 5)")
    parser.add_argument("--server", metavar="PATH", help="the server to measure (default: redis-server on PATH)")
    options = parser.parse_args(argv)
    try:
        cases = chosen([pattern for pattern in options.only.split(",") if pattern])
    except ValueError as error:
        parser.error(f"{error}; there are: {'; '.join(dict.fromkeys(case.name for case in CASES))}")
    if options.check:
        cases = [case for case in cases if (case.name, case.size) in BUDGETS]
    full = not (options.only or options.check or options.items)
    options.rounds = options.rounds or (5 if full else 1)
    try:
        result: dict[str, Any] = {"environment": facts(options.server), "calls": options.calls}
        over = [] if options.items else _operations(cases, options, result)
        if options.items or full:
            _items(options, result)
        if options.check:
            over += _blocking_times(options.server)
    except (NoServer, NoValgrind) as error:
        print(error, file=sys.stderr)
        return 2
    for line in over if options.check else []:
        print(f"exceeded: {line}", file=sys.stderr)
    if full:
        from .. import report

        say(f"written to {write('instructions', result)}")
        report.write()
    return int(bool(over) and options.check)


def _operations(cases: Sequence[Any], options: argparse.Namespace, result: dict[str, Any]) -> list[str]:
    print(f"server: {result['environment']['server']}; valgrind {result['environment']['valgrind']}")
    print(_OPERATION("one call", "size", "k instructions", "spread", "budget", ""), flush=True)
    found = []
    for figure in figures(cases, server=options.server, calls=options.calls, rounds=options.rounds):
        spread = f"{(max(figure.rounds) - min(figure.rounds)) / figure.median:.1%}" if options.rounds > 1 else ""
        budget = (f"{figure.budget:,}", f"{figure.median / figure.budget - 1:+.0%}") if figure.budget else ("", "")
        print(_OPERATION(figure.name, figure.size, f"{figure.median:,.1f}", spread, *budget).rstrip(), flush=True)
        found.append(figure)
    result["operations"] = [figure.row() for figure in found]
    return exceeded(found)


def _blocking_times(server: str | None) -> list[str]:
    from ..growth import blocking_time  # it counts with what this package has

    found = []
    for one, ms in blocking_time.measured(blocking_time.nearest(), server):
        print(f"{one!s:<106}{ms:>7.3g} ms", flush=True)
        found.append((one, ms))
    return blocking_time.too_long(found)


def _items(options: argparse.Namespace, result: dict[str, Any]) -> None:
    print(_ITEM("one item, k instructions", "batch", "push", "work", "whole", "spread"), flush=True)
    result["items"], found = [], []
    for figure in item_figures(server=options.server, rounds=options.rounds):
        found.append(figure)
        row = figure.row()
        result["items"].append(row)
        push, work, whole = row["k_instructions"].values()
        spread = f"{(whole['max'] - whole['min']) / whole['median']:.1%}"
        medians = (f"{part['median']:,}" for part in (push, work, whole))
        print(_ITEM(figure.name, figure.batch, *medians, spread), flush=True)
    result["claims"] = [claim.summary() for claim in claims(found)]


if __name__ == "__main__":
    sys.exit(main())
