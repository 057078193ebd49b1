"""`redisq purge`: empty a queue."""

from __future__ import annotations

import argparse
import sys

from .command import Commands, describe, json_option
from .confirm import can_ask, confirm, yes_option
from .connection import connected, existing, heading, place, queue_options, url_of
from .output import line, show_json


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Describe the command."""
    parser = describe(
        commands,
        "purge",
        run,
        summary="throw everything in a queue away",
        text="Throw away all that waits in a queue, is leased, delayed or dead, and its counters; pauses stay. Whoever "
        "holds a lease finds it lost.",
        example="redisq purge mails --yes",
        options=queue_options(),
    )
    yes_option(parser)
    json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    can_ask(args)
    with connected(url_of(args)) as client:
        queue = existing(client, args)
        if not args.yes:
            held = queue.stats()
            counts = f"{held.waiting:,} waiting, {held.leased:,} leased, {held.delayed:,} delayed, {held.dead:,} dead"
            print(f"{line(args.queue)} at {place(url_of(args))}: {counts}.", file=sys.stderr)
            confirm("Throw all of it away? [y/N]", "y", "Y", "yes")
        count = queue.purge()
    if args.json:
        show_json({**heading(args, queue), "purged": count})
    else:
        print(f"{count:,} purged")
    return 0
