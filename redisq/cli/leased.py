"""`redisq leased`: what is handed out, who holds it, and for how long."""

from __future__ import annotations

import argparse

from .command import Commands, describe
from .connection import queue_options
from .listing import page_options, show


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Describe the command."""
    parser = describe(
        commands,
        "leased",
        run,
        summary="show what is handed out, to whom, and for how long",
        text="Show the batches that are handed out, the first whose lease ends first: holder, how much of the lease is "
        "left, attempts, and why the batch came back last time. A batch whose lease has ended is handed out again by "
        "the next reserve.",
        example="redisq leased mails\nredisq leased mails --json | jq -r '.leased[].holder' | sort | uniq -c",
        options=queue_options(),
    )
    page_options(parser, after="ID")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    return show(args, "leased")
