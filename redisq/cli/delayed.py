"""`redisq delayed`: what came back and is due again later, and why."""

from __future__ import annotations

import argparse

from .command import Commands, describe
from .connection import queue_options
from .listing import page_options, show


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Describe the command."""
    parser = describe(
        commands,
        "delayed",
        run,
        summary="show what came back, why, and when it is due again",
        text="Show what was given back or pushed with a delay, the first to be due first: batches of a buffer, members "
        "of a priority queue, each with its attempts and the reason why it came back.",
        example="redisq delayed mails\nredisq delayed mails --json | jq -r '.delayed[].reason'",
        options=queue_options(),
    )
    page_options(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    return show(args, "delayed")
