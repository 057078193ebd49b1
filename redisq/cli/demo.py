"""`redisq demo`: both queues at work on real input, and a tally at the end."""

from __future__ import annotations

import argparse

from .command import Commands, describe, positive
from .exit import Failure


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Describe the command."""
    parser = describe(
        commands,
        "demo",
        run,
        summary="show both queues at work on real input, in ten seconds",
        text="Index the Python standard library of this machine for search and send its functions and classes in "
        "batches to a rate-limited HTTP endpoint, both through Redis, in about ten seconds. It ends with a count of "
        "what was pushed and what arrived; if they disagree, the exit code is 1.",
        example="redisq demo --files 200",
    )
    parser.add_argument("--url", help="a Redis server of your own; default: a private one, gone with the demo")
    parser.add_argument("--files", type=positive, default=500, metavar="N", help="source files to take (%(default)s)")


def run(args: argparse.Namespace) -> int:
    """Run the demo."""
    try:
        from .. import demo
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "rich":
            raise
        raise Failure("the demo needs rich: pip install 'redisq-lua[cli]'") from error
    return demo.run(args.url, args.files)
