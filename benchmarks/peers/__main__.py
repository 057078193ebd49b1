"""The command line: `python -m benchmarks.peers [--quick] [--only NAME ...]`."""

from __future__ import annotations

import argparse

from benchmarks.measure import Effort, write
from benchmarks.peers.cases import PEERS
from benchmarks.peers.run import ITEMS, claims, run, table
from benchmarks.peers.setup import Missing


def main() -> None:
    """Measure, print, and write the result, if it is a whole one."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description="Measure redisq and its peers.")
    parser.add_argument("--quick", action="store_true", help="few items, one round, only what is set up: does it run?")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", choices=[peer.name for peer in PEERS])
    parser.add_argument("--items", type=int, default=ITEMS)
    options = parser.parse_args()
    try:
        result = run(Effort(options.quick), only=options.only, items=options.items)
    except Missing as error:
        parser.exit(1, f"{error}\n")
    print("\n".join(f"{name}: {value}" for name, value in result["environment"].items()), end="\n\n")
    print(table(result["results"]), end="\n\n")
    stated = [claim.summary() for claim in claims(result)]
    for claim in stated:
        print(f"{claim['claim']}: {claim['median']:g} ({claim['min']:g} - {claim['max']:g}), target {claim['target']}")
    if not options.quick and not options.only:
        print(f"\nwritten to {write('peers', {**result, 'claims': stated})}")


if __name__ == "__main__":
    main()
