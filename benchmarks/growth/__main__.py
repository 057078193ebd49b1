"""Measure growth alone, and print it all."""

from __future__ import annotations

import argparse

from ..measure import VERDICTS, Effort, write
from . import __doc__ as what
from . import claims, run, table


def main() -> None:
    """Measure, print, and write the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=str(what).split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing is written: does it run?")
    effort = Effort(parser.parse_args().quick)
    result = run(effort)
    print("\n".join(f"{name}: {value}" for name, value in result["environment"].items()) + "\n")
    print(table(result) + "\n")
    found = [claim.summary() for claim in claims(result)]
    for claim in found:
        print(f"{claim['claim']}: {claim['median']:g}, {claim['target']}: {VERDICTS[claim['met']]}")
    if not effort.quick:
        result["claims"] = found
        print(f"\nwritten to {write('growth', result)}")


if __name__ == "__main__":
    main()
