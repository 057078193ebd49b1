"""Questions before something is thrown away for good."""

from __future__ import annotations

import argparse
import sys

from .exit import NO, USAGE, Failure


def yes_option(parser: argparse.ArgumentParser) -> None:
    """Add `--yes`."""
    parser.add_argument("--yes", action="store_true", help="do not ask; needed where there is no terminal to ask at")


def can_ask(args: argparse.Namespace) -> None:
    """Raise `Failure` if there is a question to ask and no terminal to ask it at."""
    if not args.yes and not sys.stdin.isatty():
        raise Failure("say --yes: there is no terminal to ask at", USAGE)


def confirm(question: str, *answers: str) -> None:
    """Ask on the terminal, and raise `Failure` for any answer but these."""
    print(question, end=" ", file=sys.stderr, flush=True)
    try:
        answer = sys.stdin.readline().rstrip("\n")
    except UnicodeDecodeError:
        answer = ""
    if answer not in answers:
        raise Failure("nothing was thrown away", NO)
