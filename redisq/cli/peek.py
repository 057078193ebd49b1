"""`redisq peek`: what is next, without taking it."""

from __future__ import annotations

import argparse
from typing import Any

from ..blocking import Buffer
from ..core.buffer import GroupState
from .command import Commands, describe, positive
from .connection import connected, existing, kind_of, queue_options, url_of
from .output import brief, line, member_json, show_json, show_table, text


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Describe the command."""
    parser = describe(
        commands,
        "peek",
        run,
        summary="show what is next, and take nothing",
        text="Show a buffer's longest groups with their lengths, first those that may be handed out, then those of an "
        "ordered buffer whose batch is out, then those that are paused; or a priority queue's most urgent members.",
        example="redisq peek mails\nredisq peek search --count 3 --json",
        options=queue_options(),
    )
    parser.add_argument("--count", type=positive, default=10, metavar="N", help="how many (%(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON document")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    with connected(url_of(args)) as client:
        queue = existing(client, args)
        if isinstance(queue, Buffer):
            groups = _groups(queue, args.count)
            found: dict[str, Any] = {
                "groups": [{"group": text(name), "waiting": n, "state": state} for name, n, state in groups]
            }
            rows: list[tuple[object, ...]] = [(n, line(name), state) for name, n, state in groups]
            columns: tuple[str, ...] = (">waiting", "group", "state")
        else:
            members = queue.peek(args.count)
            found = {"members": [member_json(item) for item in members]}
            rows = [
                (f"{item.priority:g}", item.attempts, line(item.member), brief(item.payload or b"")) for item in members
            ]
            columns = (">priority", ">attempts", "member", "payload")
    if args.json:
        show_json({"queue": args.queue, "kind": kind_of(queue), **found})
    elif rows:
        show_table(columns, rows)
    return 0


def _groups(buffer: Buffer[bytes], count: int) -> list[tuple[str, int, str]]:
    """Return so many groups with their lengths, those that are next first."""
    found: list[tuple[str, int, str]] = []
    states: tuple[GroupState, ...] = ("waiting", "busy", "paused")
    for state in states:
        if len(found) < count:
            groups = buffer.groups(count - len(found), state=state)
            found += [(name, length, state) for name, length in groups.items()]
    return found
