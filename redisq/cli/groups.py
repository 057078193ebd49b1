"""`redisq groups`: the groups of a buffer and their lengths."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import islice
from typing import get_args

from ..blocking import Buffer
from ..core.buffer import GroupState
from ..core.documents import text
from .command import Commands, describe, json_option, positive, whole
from .connection import connected, existing_buffer, heading, queue_options, url_of
from .output import line, note, remark, show_json, show_table

STATES: tuple[GroupState, ...] = get_args(GroupState)
_PAGE = 1_000
_EMPTY = {"waiting": "may be handed out", "busy": "has a batch out", "paused": "is paused", "all": "has items"}


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Describe the command."""
    parser = describe(
        commands,
        "groups",
        run,
        summary="list the groups of a buffer with their lengths",
        text="List groups with the number of items that wait in each, the longest first: those that may be handed out "
        "(waiting), those of an ordered buffer that have a batch out (busy), those that are paused, or all, in this "
        "order.",
        example="redisq groups mails\nredisq groups mails --state paused --json",
        options=queue_options(),
    )
    parser.add_argument("--state", choices=[*STATES, "all"], default="waiting", help="which groups (%(default)s)")
    parser.add_argument("--limit", type=positive, default=100, metavar="N", help="at most so many (%(default)s)")
    parser.add_argument("--after", type=whole(0), default=0, metavar="N", help="skip the first N (%(default)s)")
    json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    states = STATES if args.state == "all" else (args.state,)
    with connected(url_of(args)) as client:
        buffer = existing_buffer(client, args)
        page = min(args.limit + 1, _PAGE)
        found = list(islice(groups(buffer, states, args.after, page), args.limit + 1))
    following = args.after + args.limit if len(found) > args.limit else None
    found = found[: args.limit]
    if args.json:
        show_json({**heading(args, buffer), **groups_json(found), "next": following})
    elif found:
        show_groups(found)
        if following is not None:
            note(f"there are more: --after {following}")
    else:
        remark(f"no {'other ' if args.after else ''}group {_EMPTY[args.state]}")
    return 0


Group = tuple[str, int, GroupState]


def groups(
    buffer: Buffer[bytes], states: tuple[GroupState, ...] = STATES, after: int = 0, page: int = _PAGE
) -> Iterator[Group]:
    """Yield the groups of these states with their lengths, without the first `after`, a page at a time."""
    for state in states:
        start = 0 if len(states) > 1 else after  # of several states nobody knows where the first ends
        while found := buffer.groups(page, start, state):
            for name, length in found.items():
                if len(states) == 1 or after <= 0:
                    yield name, length, state
                after -= 1
            start += len(found)
            if len(found) < page:
                break


def groups_json(found: list[Group]) -> dict[str, list[dict[str, object]]]:
    """Return groups as a part of a JSON document."""
    return {"groups": [{"group": text(name), "waiting": length, "state": state} for name, length, state in found]}


def show_groups(found: list[Group]) -> None:
    """Print a table of groups."""
    show_table((">waiting", "group", "state"), [(length, line(name), state) for name, length, state in found])
