"""`redisq pause`: let a queue or a group hand nothing out."""

from __future__ import annotations

import argparse

from ..core.documents import text, time_json
from .command import Commands, describe, group_option, json_option
from .connection import connected, existing, existing_buffer, heading, queue_options, server_time, url_of
from .durations import duration, span
from .exit import USAGE, Failure
from .output import line, show_json


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Describe the command."""
    parser = describe(
        commands,
        "pause",
        run,
        summary="pause a queue or a group, for a time or until resumed",
        text="Let a queue, or one group of a buffer, hand nothing out to any client, for a time or until it is "
        "resumed. Pushes, acks and releases go on, and handlers that run are not interrupted. A pause takes the place "
        "of the one before.",
        example="redisq pause mails --for 10m --reason 'the provider is down'\nredisq pause mails --group customer-7",
        options=queue_options(),
    )
    parser.add_argument(
        "--for", type=duration(), dest="seconds", metavar="TIME", help="how long: 90s, 10m, 1h30m; default: no end"
    )
    parser.add_argument("--reason", default="", metavar="TEXT", help="why, for people; a group's pause keeps none")
    group_option(parser, "one group of a buffer")
    json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.group is not None and args.reason:
        raise Failure("the pause of a group keeps no reason: leave --reason out", USAGE)
    with connected(url_of(args)) as client:
        if args.group is None:
            queue = existing(client, args)
            queue.pause(args.seconds, args.reason)
        else:
            queue = existing_buffer(client, args)
            queue.pause_group(args.group, args.seconds)
        until = None if args.seconds is None else server_time(client) + args.seconds
    if args.json:
        group = {} if args.group is None else {"group": text(args.group)}
        reason = {} if args.group is not None else {"reason": text(args.reason)}
        show_json({**heading(args, queue), **group, "paused": True, "until": time_json(until), **reason})
    else:
        print(f"{paused_name(args)} is paused {'until resumed' if until is None else f'for {span(args.seconds)}'}")
    return 0


def paused_name(args: argparse.Namespace) -> str:
    """Say what is paused or resumed: a queue, or a group of it."""
    return line(args.queue) if args.group is None else f"group {line(args.group)} of {line(args.queue)}"
