"""`redisq peek`: what is next, without taking it."""

from __future__ import annotations

import argparse
from itertools import islice
from typing import Any

from ..blocking import Buffer, PriorityQueue
from ..core.documents import member_json, text
from .command import Commands, describe, group_option, json_option, positive, whole
from .connection import connected, existing, existing_buffer, heading, hint, queue_options, url_of
from .exit import USAGE, Failure
from .groups import groups, groups_json, show_groups
from .output import brief, line, note, remark, show_json, show_table

_SHOWN = 200  # characters of an item


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Describe the command."""
    parser = describe(
        commands,
        "peek",
        run,
        summary="show what is next, and take nothing",
        text="Show the items that wait in a group of a buffer, the oldest first, or a priority queue's most urgent "
        "members. Without --group, show a buffer's longest groups, first those that may be handed out, then those of "
        "an ordered buffer whose batch is out, then those that are paused. Long items are cut; --json shows them "
        "whole.",
        example="redisq peek mails\nredisq peek mails --group eu --count 5\nredisq peek search --count 3 --json",
        options=queue_options(),
    )
    group_option(parser, "the group of a buffer whose items to show")
    parser.add_argument("--count", type=positive, default=10, metavar="N", help="how many (%(default)s)")
    parser.add_argument("--after", type=whole(0), default=0, metavar="N", help="skip the first N (%(default)s)")
    json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    with connected(url_of(args)) as client:
        if args.group is not None:
            return _items(existing_buffer(client, args), args)
        queue = existing(client, args)
        return _groups(queue, args) if isinstance(queue, Buffer) else _members(queue, args)


def _items(buffer: Buffer[bytes], args: argparse.Namespace) -> int:
    found, following = _page(buffer.peek(args.group, args.count + 1, args.after), args)
    if args.json:
        items = [text(item) for item in found]
        show_json({**heading(args, buffer), "group": text(args.group), "items": items, "next": following})
    elif found:
        show_table(
            (">place", "~item"), [(place, brief(item, _SHOWN)) for place, item in enumerate(found, args.after + 1)]
        )
        _say_more(following)
    else:
        remark(f"nothing {'more ' if args.after else ''}waits in group {line(args.group)}")
    return 0


def _members(queue: PriorityQueue[bytes], args: argparse.Namespace) -> int:
    found, following = _page(queue.peek(args.count + 1, args.after), args)
    if args.json:
        show_json({**heading(args, queue), "members": [member_json(item) for item in found], "next": following})
    elif found:
        show_table(
            (">priority", ">attempts", "member", "~payload"),
            [(f"{one.priority:g}", one.attempts, line(one.member), brief(one.payload or b"")) for one in found],
        )
        _say_more(following)
    else:
        remark(f"nothing {'more ' if args.after else ''}waits")
    return 0


def _groups(buffer: Buffer[bytes], args: argparse.Namespace) -> int:
    if args.after:
        raise Failure(
            f"--after goes with --group; `{hint(args, 'groups', args.queue)}` lists groups a page at a time", USAGE
        )
    found = list(islice(groups(buffer, page=args.count), args.count))
    if args.json:
        show_json({**heading(args, buffer), **groups_json(found)})
    elif found:
        show_groups(found)
    else:
        remark("nothing waits")
    return 0


def _page(found: list[Any], args: argparse.Namespace) -> tuple[list[Any], int | None]:
    """Return what is shown of what was read, and where the next page starts, if there is one."""
    return found[: args.count], args.after + args.count if len(found) > args.count else None


def _say_more(following: int | None) -> None:
    if following is not None:
        note(f"there are more: --after {following}")
