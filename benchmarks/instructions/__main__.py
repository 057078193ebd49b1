"""The command line: `python -m benchmarks.instructions [--only NAME,...] [--check]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import CALLS, chosen, figures
from .budgets import BUDGETS, Figure, exceeded
from .operations import CASES


def main(argv: Sequence[str] | None = None) -> int:
    """Count, print, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__)
    parser.add_argument(
        "--only", default="", metavar="NAME,...", help="only these, such as buffer/reserve or priority/*"
    )
    parser.add_argument("--check", action="store_true", help="only what has a budget; exit code 1 if one is exceeded")
    parser.add_argument("--calls", type=int, default=CALLS, help="calls of a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=1, help="rounds, of which the median counts")
    parser.add_argument("--server", metavar="PATH", help="the redis-server to measure (default: that on PATH)")
    options = parser.parse_args(argv)
    try:
        cases = chosen([name for name in options.only.split(",") if name])
    except ValueError as error:
        parser.error(f"{error}; there are {', '.join(dict.fromkeys(case.name for case in CASES))}")
    if options.check:
        cases = [case for case in cases if (case.name, case.size) in BUDGETS]
    print(f"{'one call':<44}{'size':>6}{'k instructions':>16}{'spread':>10}{'budget':>10}")
    found = []
    for figure in figures(cases, server=options.server, calls=options.calls, rounds=options.rounds):
        print(line(figure), flush=True)
        found.append(figure)
    over = exceeded(found)
    for each in over:
        print(f"exceeded: {each}", file=sys.stderr)
    return int(bool(over) and options.check)


def line(figure: Figure) -> str:
    """Lay out one figure."""
    spread = f"{(figure.most - figure.least) / figure.median:.1%}" if figure.most > figure.least else ""
    budget = f"{figure.budget:>10,.0f}  {figure.median / figure.budget - 1:+.0%}" if figure.budget else ""
    return f"{figure.name:<44}{figure.size:>6}{figure.median:>16,.1f}{spread:>10}{budget}"


if __name__ == "__main__":
    sys.exit(main())
