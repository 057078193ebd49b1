"""`redisq drop-group`: empty one group of a buffer."""

from __future__ import annotations

import argparse

from ..core.documents import text
from .command import Commands, describe, json_option
from .confirm import can_ask, confirm, yes_option
from .connection import connected, existing_buffer, heading, place, queue_options, url_of
from .output import line, many, show_json


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Describe the command."""
    parser = describe(
        commands,
        "drop-group",
        run,
        summary="throw everything in one group away",
        text="Throw away the items that wait in a group of a buffer, and its delayed and dead batches. A batch that is "
        "leased ends as usual, and a pause of the group stays. On a terminal it asks for the group's name. Stopped "
        "half-way, it may be repeated.",
        example="redisq drop-group mails customer-7 --yes",
        options=queue_options(),
    )
    parser.add_argument("group", metavar="GROUP", help="the group's name")
    yes_option(parser)
    json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    can_ask(args)
    with connected(url_of(args)) as client:
        buffer = existing_buffer(client, args)
        if not args.yes:
            where = f"{line(args.queue)} at {place(url_of(args))}"
            confirm(f"Type {line(args.group)} to throw away this group of {where}:", args.group, line(args.group))
        count = buffer.drop_group(args.group)
    if args.json:
        show_json({**heading(args, buffer), "group": text(args.group), "dropped": count})
    else:
        print(f"{many(count, 'item')} dropped")
    return 0
