"""What each command's parser is made with."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable

Commands = argparse._SubParsersAction  # of ArgumentParser; argparse has no public name for it
Run = Callable[[argparse.Namespace], int]


def describe(
    commands: Commands[argparse.ArgumentParser],
    name: str,
    run: Run,
    *,
    summary: str,
    text: str,
    example: str,
    options: argparse.ArgumentParser | None = None,
) -> argparse.ArgumentParser:
    """Add a command whose help ends with an example, and give its parser."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=textwrap.fill(text, 79),
        epilog=f"example:\n{textwrap.indent(example, '  ')}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[options] if options else [],
    )
    parser.set_defaults(run=run)
    return parser


def positive(text: str) -> int:
    """Read a whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("give 1 or more")
    return number
