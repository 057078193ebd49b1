"""Lists of what is leased, delayed or dead, a page at a time: batches of a buffer, members of a priority queue."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from itertools import islice
from typing import Any, Literal

from ..blocking import Buffer
from ..core.batch import BatchData
from ..core.documents import member_json, text, time_json
from ..core.priority import Item
from .command import json_option, positive
from .connection import Queue, connected, existing, heading, server_time, url_of
from .durations import span
from .output import brief, line, note, remark, show_json, show_table, time_text

_ITEMS_SHOWN = 3
_MEMBERS = 1_000
_BATCHES = 101  # a page of the usual size, and one more that tells whether it is the last; their items come with them

State = Literal["leased", "delayed", "dead"]
Entry = BatchData[bytes] | Item[bytes]
_TIMES: dict[State, str] = {"leased": "deadline", "delayed": "due", "dead": "died"}


def page_options(parser: argparse.ArgumentParser, after: str = "ID|MEMBER") -> None:
    """Add the options of a list that is shown a page at a time."""
    parser.add_argument("--limit", type=positive, default=100, metavar="N", help="at most so many (%(default)s)")
    parser.add_argument("--after", metavar=after, help="go on after the last one of the page before")
    json_option(parser)


def entries(queue: Queue, state: State, after: str | None = None, page: int = _MEMBERS) -> Iterator[Entry]:
    """Yield all that is in a state, a page at a time, after the one with this id, or after this member."""
    last: Any = None if after is None else place_of(queue, state, after)
    while True:
        found = _page(queue, state, min(page, _BATCHES if _batches(queue, state) else _MEMBERS), last)
        yield from found
        if not found:
            return
        last = key_of(found[-1])


def _batches(queue: Queue, state: State) -> bool:
    return isinstance(queue, Buffer) or state == "leased"


def _page(queue: Queue, state: State, limit: int, after: Any) -> list[Any]:
    read: Any = {"leased": queue.leased, "delayed": queue.delayed, "dead": queue.dead}[state]
    found: list[Any] = read(limit, after)
    return found


def key_of(entry: Entry) -> Any:
    """Return what an entry is known by: a batch by its id, a member by itself."""
    return entry.member if isinstance(entry, Item) else entry.id


def place_of(queue: Queue, state: State, given: str) -> Any:
    """Return what a word on the command line stands for: the id of a batch, or a member's bytes."""
    return given if _batches(queue, state) else os.fsencode(given)


def show(args: argparse.Namespace, state: State) -> int:
    """Print a page of what is in a state of the queue that `args` name."""
    with connected(url_of(args)) as client:
        queue = existing(client, args)
        found = list(islice(entries(queue, state, args.after, args.limit + 1), args.limit + 1))
        now = server_time(client)
    more, found = len(found) > args.limit, found[: args.limit]
    if args.json:
        following = text(key_of(found[-1])) if more else None
        shown = [_as_json(one, state) for one in found]
        show_json({**heading(args, queue), "time": time_json(now), state: shown, "next": following})
    elif found:
        rows = [_as_row(one, state, now) for one in found]
        show_table(list(rows[0]), [list(row.values()) for row in rows])
        if more:
            note(f"there are more: --after {line(key_of(found[-1]))}")
    else:
        remark(f"nothing {'more ' if args.after else ''}is {state}")
    return 0


def _as_json(entry: Entry, state: State) -> dict[str, Any]:
    when = _TIMES[state]
    if isinstance(entry, Item):
        return {**member_json(entry), when: time_json(entry.time)}
    members: dict[str, Any] = {}
    if entry.group is None:
        payloads = [None if payload is None else text(payload) for payload in entry.payloads or []]
        members = {"priorities": entry.priorities, "payloads": payloads}
    return {
        "id": text(entry.id),
        when: time_json(entry.deadline),
        **({} if entry.group is None else {"group": text(entry.group)}),
        "attempts": entry.attempts,
        "reason": text(entry.reason),
        "holder": text(entry.holder),
        "items": [text(item) for item in entry.items],
        **members,
    }


def _as_row(entry: Entry, state: State, now: float) -> dict[str, object]:
    """Return the cells of a row under the titles of their columns."""
    life = {">attempts": entry.attempts, "|reason": line(entry.reason)}
    if isinstance(entry, Item):
        about = {">priority": f"{entry.priority:g}", "~payload": brief(entry.payload or b"")}
        return {"member": line(entry.member), _TIMES[state]: time_text(entry.time or 0), **life, **about}
    items = " ".join(line(item) for item in entry.items[:_ITEMS_SHOWN])
    return {
        "id": line(entry.id),
        **({"left": _left(entry.deadline - now), "holder": line(entry.holder)} if state == "leased" else {}),
        **({} if state == "leased" else {_TIMES[state]: time_text(entry.deadline)}),
        **life,
        **({} if entry.group is None else {"group": line(entry.group)}),
        ">items": len(entry.items),
        "~first" if entry.group is None else "~oldest": items + (" ..." if len(entry.items) > _ITEMS_SHOWN else ""),
    }


def _left(seconds: float) -> str:
    return span(seconds) if seconds >= 0 else f"ended {span(-seconds)} ago"
