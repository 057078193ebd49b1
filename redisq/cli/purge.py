"""`redisq purge`: empty a queue."""

from __future__ import annotations

import argparse
import sys

from .command import Commands, describe
from .connection import connected, existing, kind_of, place, queue_options, url_of
from .exit import NO, USAGE, Failure
from .output import show_json


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
    parser.add_argument("--yes", action="store_true", help="do not ask; needed where there is no terminal to ask at")
    parser.add_argument("--json", action="store_true", help="one JSON document")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    if not args.yes and not sys.stdin.isatty():
        raise Failure("say --yes: there is no terminal to ask at", USAGE)
    with connected(url_of(args)) as client:
        queue = existing(client, args)
        if not args.yes:
            held = queue.stats()
            counts = f"{held.waiting:,} waiting, {held.leased:,} leased, {held.delayed:,} delayed, {held.dead:,} dead"
            print(f"{args.queue} at {place(url_of(args))}: {counts}.", file=sys.stderr)
            print("Throw all of it away? [y/N] ", end="", file=sys.stderr, flush=True)
            if sys.stdin.readline().strip().lower() not in ("y", "yes"):
                raise Failure("nothing was thrown away", NO)
        count = queue.purge()
    if args.json:
        show_json({"queue": args.queue, "kind": kind_of(queue), "purged": count})
    else:
        print(f"{count:,} purged")
    return 0
