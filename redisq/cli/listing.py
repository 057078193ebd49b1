"""Lists of what is delayed or dead, with reasons: batches of a buffer, members of a priority queue."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import islice
from typing import Any, Literal

from ..blocking import Buffer
from ..core.batch import BatchData
from ..core.priority import Item
from .connection import Queue, connected, existing, kind_of, url_of
from .output import brief, line, member_json, show_json, show_table, text, time_json, time_text

_ITEMS_SHOWN = 3
_MEMBERS = 1_000
_BATCHES = 100  # they come with their items, up to 3,000 each

State = Literal["delayed", "dead"]
Entry = BatchData[bytes] | Item[bytes]


def entries(queue: Queue, state: State) -> Iterator[Entry]:
    """Yield all that is in a state, a page at a time."""
    last: Any = None
    while True:
        if isinstance(queue, Buffer):
            batches = queue.dead(_BATCHES, last) if state == "dead" else queue.delayed(_BATCHES, last)
            yield from batches
            last = batches[-1].id if batches else None
        else:
            members = queue.dead(_MEMBERS, last) if state == "dead" else queue.delayed(_MEMBERS, last)
            yield from members
            last = members[-1].member if members else None
        if last is None:
            return


def show(args: argparse.Namespace, state: State, when: str) -> int:
    """Print what is in a state of the queue that `args` name; `when` is what its time is called."""
    with connected(url_of(args)) as client:
        queue = existing(client, args)
        found = list(islice(entries(queue, state), args.limit))
    if args.json:
        show_json({"queue": args.queue, "kind": kind_of(queue), state: [_as_json(one, when) for one in found]})
    elif found:
        columns = (
            ("id", when, ">attempts", "reason", "group", ">items", "oldest")
            if isinstance(queue, Buffer)
            else ("member", when, ">attempts", "reason", ">priority", "payload")
        )
        show_table(columns, map(_as_row, found))
    return 0


def _as_json(entry: Entry, when: str) -> dict[str, Any]:
    if isinstance(entry, Item):
        return {**member_json(entry), when: time_json(entry.time)}
    return {
        "id": text(entry.id),
        when: time_json(entry.deadline),
        "group": text(entry.group or ""),
        "attempts": entry.attempts,
        "reason": text(entry.reason),
        "holder": text(entry.holder),
        "items": [text(item) for item in entry.items],
    }


def _as_row(entry: Entry) -> tuple[object, ...]:
    life = entry.attempts, brief(entry.reason)
    if isinstance(entry, Item):
        about = f"{entry.priority:g}", brief(entry.payload or b"")
        return line(entry.member), time_text(entry.time or 0), *life, *about
    items = " ".join(line(item) for item in entry.items[:_ITEMS_SHOWN])
    more = " ..." if len(entry.items) > _ITEMS_SHOWN else ""
    return line(entry.id), time_text(entry.deadline), *life, line(entry.group or ""), len(entry.items), items + more
