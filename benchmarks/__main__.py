"""Run the benchmarks: `python -m benchmarks [PART ...] [--quick] [--json]`.

A full run writes `results/<part>.json` for each part, and from all of them the charts and the documentation's tables. A
quick one takes under a minute, writes nothing, and ends with 1 when a ratio that the results state does not hold within
its stated spread.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from . import bulk, contention, flush, growth, overhead, wake
from .measure import RESULTS, Claim, Effort, say, write
from .peers import run as peers
from .worker import run as worker

PARTS: dict[str, ModuleType] = {
    "contention": contention,
    "flush": flush,
    "overhead": overhead,
    "bulk": bulk,
    "growth": growth,
    "wake": wake,
    "worker": worker,
    "peers": peers,
}


def run(part: str, effort: Effort) -> dict[str, Any]:
    """Run one part, and add its claims to its result."""
    module = PARTS[part]
    result: dict[str, Any] = module.run(effort)
    made: Callable[[dict[str, Any]], list[Claim]] = module.claims
    return {**result, "claims": made(result)}


def stated(part: str) -> dict[str, dict[str, Any]]:
    """Give what the results state, by the claim's name."""
    path = RESULTS / f"{part}.json"
    claims = json.loads(path.read_text()).get("claims", []) if path.exists() else []
    return {claim["claim"]: claim for claim in claims}


def compare(part: str, claims: Sequence[Claim]) -> list[tuple[str, bool]]:
    """Say of each claim of a quick run what it came to, what is stated, and whether the two agree."""
    known = stated(part)
    lines = []
    for claim in claims:
        mine = claim.summary()
        text = f"{claim.name}: {mine['median']:g} ({mine['min']:g} to {mine['max']:g})"
        if claim.name not in known:
            lines.append((f"{text}; not stated", True))
            continue
        that = known[claim.name]
        holds = claim.holds(that)
        text += f"; stated {that['median']:g} ({that['min']:g} to {that['max']:g})"
        lines.append((f"{text}{'' if holds else '  DOES NOT HOLD'}", holds))
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Run what was asked for, and give the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("parts", metavar="PART", nargs="*", help=f"only these: {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="under a minute: do the stated ratios still hold?")
    parser.add_argument("--json", action="store_true", help="print one JSON document with everything")
    args = parser.parse_args(argv)
    if unknown := set(args.parts) - set(PARTS):
        print(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    effort, failed, everything = Effort(args.quick), False, {}
    for part in args.parts or PARTS:
        result = run(part, effort)
        claims: list[Claim] = result["claims"]
        result["claims"] = [claim.summary() for claim in claims]
        everything[part] = result
        if args.quick:
            for line, holds in compare(part, claims):
                failed = failed or not holds
                print(line, file=sys.stderr if args.json else sys.stdout, flush=True)
        else:
            say(f"written to {write(part, result)}")
    if not args.quick:
        from . import charts, report  # drawing needs what measuring does not

        charts.draw()
        report.write()
    if args.json:
        print(json.dumps(everything))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
