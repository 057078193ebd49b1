"""`redisq dead`: show the dead letters, give them another life, or throw them away."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from itertools import islice
from typing import Any

from ..blocking import Buffer, PriorityQueue
from ..core.batch import BatchData
from ..core.priority import Item
from .command import Commands, describe, positive
from .connection import Queue, connected, existing, kind_of, queue_options, url_of
from .exit import NO, USAGE, Failure
from .output import brief, line, member_json, show_json, show_table, text, time_json, time_text

_ITEMS_SHOWN = 3
_PIECE = 1_000
_PAGE = 100  # a buffer's letters come with their items, up to 10,000 each

Letter = BatchData[bytes] | Item[bytes]


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Describe the command and its three verbs."""
    about = (
        "A buffer's dead letters are batches, named by their ids; a priority queue's are members, named by themselves."
    )
    parser = commands.add_parser("dead", help="show, redrive or discard dead letters", description=about)
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    shown = describe(
        verbs,
        "list",
        _list,
        summary="show dead letters",
        text=f"{about} They are shown in the order in which they died.",
        example="redisq dead list mails\nredisq dead list mails --json | jq -r '.dead[].items[]'",
        options=queue_options(),
    )
    shown.add_argument("--limit", type=positive, default=100, metavar="N", help="at most so many (%(default)s)")
    shown.add_argument("--json", action="store_true", help="one JSON document")
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
        made.add_argument("names", nargs="*", metavar="ID|MEMBER", help="which")
        made.add_argument("--all", action="store_true", help="all that are dead now")
        made.add_argument("--limit", type=positive, metavar="N", help="with --all: at most so many")
        made.add_argument("--json", action="store_true", help="one JSON document")


def _letters(queue: Queue) -> Iterator[Letter]:
    """Give all dead letters, a page at a time."""
    last: Any = None
    while True:
        if isinstance(queue, Buffer):
            batches = queue.dead(_PAGE, last)
            yield from batches
            last = batches[-1].id if batches else None
        else:
            members = queue.dead(_PIECE, last)
            yield from members
            last = members[-1].member if members else None
        if last is None:
            return


def _list(args: argparse.Namespace) -> int:
    with connected(url_of(args)) as client:
        queue = existing(client, args)
        letters = list(islice(_letters(queue), args.limit))
    if args.json:
        show_json({"queue": args.queue, "kind": kind_of(queue), "dead": [_as_json(letter) for letter in letters]})
    elif letters:
        columns = (
            ("id", "died", ">attempts", "reason", "group", ">items", "oldest")
            if isinstance(queue, Buffer)
            else ("member", "died", ">attempts", "reason", ">priority", "payload")
        )
        show_table(columns, map(_as_row, letters))
    return 0


def _as_json(letter: Letter) -> dict[str, Any]:
    if isinstance(letter, Item):
        return {**member_json(letter), "died": time_json(letter.time)}
    return {
        "id": text(letter.id),
        "died": time_json(letter.deadline),
        "group": text(letter.group or ""),
        "attempts": letter.attempts,
        "reason": text(letter.reason),
        "holder": text(letter.holder),
        "items": [text(item) for item in letter.items],
    }


def _as_row(letter: Letter) -> tuple[object, ...]:
    life = letter.attempts, brief(letter.reason)
    if isinstance(letter, Item):
        about = f"{letter.priority:g}", brief(letter.payload or b"")
        return line(letter.member), time_text(letter.time or 0), *life, *about
    items = " ".join(line(item) for item in letter.items[:_ITEMS_SHOWN])
    more = " ..." if len(letter.items) > _ITEMS_SHOWN else ""
    return line(letter.id), time_text(letter.deadline), *life, line(letter.group or ""), len(letter.items), items + more


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
        names = list(islice(map(_name, _letters(queue)), args.limit)) if args.all else [*map(_given(queue), args.names)]
        count = 0
        # From the last piece on: what is redriven goes to the front, so in the end the earliest comes first.
        for start in reversed(range(0, len(names), _PIECE)):
            piece = names[start : start + _PIECE]
            count += queue.redrive(*piece) if done == "redriven" else queue.discard(*piece)
    if args.json:
        show_json({"queue": args.queue, "kind": kind_of(queue), done: count})
    else:
        print(f"{count:,} {done}")
    return 0 if count or args.all else NO


def _name(letter: Letter) -> Any:
    return letter.member if isinstance(letter, Item) else letter.id


def _given(queue: Queue) -> Any:
    return os.fsencode if isinstance(queue, PriorityQueue) else str
