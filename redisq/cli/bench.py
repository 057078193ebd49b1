"""`redisq bench`: the benchmarks, on a server of their own."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any

from .command import Commands, describe
from .exit import Failure


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Describe the command."""
    parser = describe(
        commands,
        "bench",
        _run,
        summary="measure redisq against WATCH, the recipes, native commands and other queues",
        text="Run the benchmarks on a private server. In full it takes about half an hour, writes the results, and "
        "draws the charts; --quick takes under a minute and ends with 1 when a ratio that is stated does not hold.",
        example="redisq bench --quick\nredisq bench contention flush\nredisq bench growth --json > growth.json",
    )
    parser.add_argument("parts", metavar="PART", nargs="*", help="only these, such as contention or peers")
    parser.add_argument("--quick", action="store_true", help="under a minute: do the stated ratios still hold?")
    parser.add_argument("--json", action="store_true", help="one JSON document with everything")


def _run(args: argparse.Namespace) -> int:
    # In a wheel the benchmarks lie in a folder of their own, beside the package's modules; in a checkout, at the top.
    package = Path(__file__).parent.parent
    inside = package / "_benchmarks"
    root = inside if inside.is_dir() else package.parent
    if not (root / "benchmarks" / "__main__.py").is_file():
        raise Failure("this installation has no benchmarks: install redisq from its wheel or its source")
    sys.path.insert(0, str(root))
    try:
        benchmarks: Any = importlib.import_module("benchmarks.__main__")
    except ModuleNotFoundError as error:
        raise Failure(f"the benchmarks need {error.name}: pip install 'redisq[bench]'") from None
    code: int = benchmarks.perform(args)
    return code
