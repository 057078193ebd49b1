"""`redisq dead`: show the dead letters, give them another life, or throw them away."""

from __future__ import annotations

import argparse
import sys
from itertools import islice

from .command import Commands, describe, describe_verbs, json_option, positive
from .connection import connected, existing, heading, queue_options, url_of
from .exit import NO, USAGE, Failure
from .listing import entries, key_of, page_options, place_of, show
from .output import line, show_json

_PIECE = 1_000


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Describe the command and its three verbs."""
    about = (
        "A buffer's dead letters are batches, named by their ids; a priority queue's are members, named by themselves."
    )
    verbs = describe_verbs(
        commands,
        "dead",
        summary="show, redrive or discard dead letters",
        text=f"Show, redrive or discard dead letters. {about}",
    )
    shown = describe(
        verbs,
        "list",
        _list,
        summary="show dead letters",
        text=f"Show dead letters in the order in which they died. {about}",
        example="redisq dead list mails\nredisq dead list mails --json | jq -r '.dead[].items[]'",
        options=queue_options(),
    )
    page_options(shown)
    for verb, text_of, run in (
        ("redrive", "let dead letters wait again, with no attempts", _redrive),
        ("discard", "throw dead letters away", _discard),
    ):
        made = describe(
            verbs,
            verb,
            run,
            summary=text_of,
            text=f"{text_of.capitalize()}. {about} The exit code is 1 if none of those named was dead.",
            example=f"redisq dead {verb} mails 5d0c8f0e6f2b4d5f\nredisq dead {verb} mails --all --limit 500",
            options=queue_options(),
        )
        made.add_argument("names", nargs="*", metavar="ID|MEMBER", help="the dead letters")
        made.add_argument("--all", action="store_true", help="all that are dead now")
        made.add_argument("--limit", type=positive, metavar="N", help="with --all: at most so many")
        json_option(made)


def _list(args: argparse.Namespace) -> int:
    return show(args, "dead")


def _redrive(args: argparse.Namespace) -> int:
    return _settle(args, "redriven")


def _discard(args: argparse.Namespace) -> int:
    return _settle(args, "discarded")


def _settle(args: argparse.Namespace, done: str) -> int:
    if bool(args.names) == args.all:
        raise Failure("give either ids or members, or --all", USAGE)
    if args.limit and not args.all:
        raise Failure("--limit goes with --all", USAGE)
    with connected(url_of(args)) as client:
        queue = existing(client, args)
        # All names first: a letter that is settled on the way leaves no place to read on from.
        names = (
            list(islice(map(key_of, entries(queue, "dead")), args.limit))
            if args.all
            else [place_of(queue, "dead", name) for name in args.names]
        )
        count = 0
        # From the last piece on: what is redriven goes to the front, so in the end the earliest comes first.
        for start in reversed(range(0, len(names), _PIECE)):
            piece = names[start : start + _PIECE]
            count += queue.redrive(*piece) if done == "redriven" else queue.discard(*piece)
    if args.json:
        show_json({**heading(args, queue), done: count})
    else:
        print(f"{count:,} {done}")
    if missing := 0 if args.all else len(set(names)) - count:
        one = (
            f"{line(args.names[0])} is"
            if len(args.names) == 1
            else f"{missing:,} of those named {'is' if missing == 1 else 'are'}"
        )
        print(f"redisq: {one} not dead", file=sys.stderr)
    return 0 if count or args.all else NO
