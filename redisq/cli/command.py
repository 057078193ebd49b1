"""The parts that the commands' parsers share."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Callable
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from typing import NoReturn

Commands = argparse._SubParsersAction  # of ArgumentParser; argparse has no public name for it
_CHOICE = re.compile(r"invalid choice: '(.*)' \(choose from (.*)\)")
_NAME = re.compile(r"[\w-]+")
Run = Callable[[argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    """A parser that says what a misspelt command or choice may have meant; argparse does so from Python 3.14 on."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and end the program."""
        if (found := _CHOICE.search(message)) and (alike := get_close_matches(found[1], _NAME.findall(found[2]), 1)):
            message = f"{message[: found.end(1) + 1]}, did you mean {alike[0]}?{message[found.end(1) + 1 :]}"
        super().error(message)


@cache
def formatter() -> type[argparse.HelpFormatter]:
    """Return the class that formats help: in colour where rich-argparse is installed and stdout is a terminal."""
    if not (find_spec("rich") and find_spec("rich_argparse")):
        return argparse.RawDescriptionHelpFormatter
    from rich_argparse import RawDescriptionRichHelpFormatter

    class Formatter(RawDescriptionRichHelpFormatter):
        group_name_formatter = str  # `usage:` and `options:`, as argparse writes them
        help_markup = text_markup = False  # brackets are brackets

    return Formatter


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
    """Add a command whose help ends with an example, and return its parser."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=textwrap.fill(text, 79),
        epilog=f"example:\n{textwrap.indent(example, '  ')}",
        formatter_class=formatter(),
        parents=[options] if options else [],
    )
    parser.set_defaults(run=run)
    return parser


def describe_verbs(
    commands: Commands[argparse.ArgumentParser], name: str, *, summary: str, text: str
) -> Commands[argparse.ArgumentParser]:
    """Add a command that only has verbs, and return what its verbs are added to."""
    made = commands.add_parser(name, help=summary, description=textwrap.fill(text, 79), formatter_class=formatter())
    return made.add_subparsers(metavar="VERB", required=True, prog=made.prog)


def json_option(parser: argparse.ArgumentParser, note: str = "print one JSON document") -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help=note)


def group_option(parser: argparse.ArgumentParser, note: str) -> None:
    """Add `--group`. Bytes that are not UTF-8 are kept: `--group $'\\xff'` is a group of one byte."""
    parser.add_argument("--group", metavar="GROUP", help=note)


def whole(low: int) -> Callable[[str], int]:
    """Return a function that reads a whole number of at least `low`."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = low - 1
        if number < low:
            raise argparse.ArgumentTypeError(f"invalid number {text}: give {low} or more")
        return number

    return read


positive = whole(1)
