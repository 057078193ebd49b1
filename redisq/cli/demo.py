"""`redisq demo`: both queues at work on real input, and an account at the end."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..errors import RedisqError

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add(commands: Commands) -> None:
    """Describe the command."""
    text = (
        "Index the Python standard library of this machine for search and send its functions and classes in batches to "
        "a rate-limited HTTP endpoint, both through Redis, in about ten seconds. It ends with an account of what was "
        "pushed and what arrived; if that does not close, the exit code is 1."
    )
    parser = commands.add_parser("demo", help="both queues at work on real input, in ten seconds", description=text)
    parser.add_argument("--url", help="a Redis server of your own; default: a private one, gone with the demo")
    parser.add_argument("--files", type=_positive, default=500, metavar="N", help="source files to take (%(default)s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the demo."""
    try:
        from .. import demo
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "rich":
            raise
        raise RedisqError("the demo needs rich: pip install 'redisq[cli]'") from error
    return demo.run(args.url, args.files)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("give 1 or more")
    return number
