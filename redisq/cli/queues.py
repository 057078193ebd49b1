"""`redisq queues`: all queues of a server, and what each holds."""

from __future__ import annotations

import argparse

from ..blocking.queues import overview
from ..core.documents import oldest_wait, overview_json, time_json
from ..core.queues import LAYOUT, QueueInfo, QueueOverview
from .command import Commands, describe, json_option
from .connection import connected, place, prefix_options, server_time, url_of
from .durations import span
from .output import line, note, pause_text, show_json, show_table


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Describe the command."""
    parser = describe(
        commands,
        "queues",
        run,
        summary="list all queues and what each holds",
        text="List the queues of a server, or of all nodes of a cluster: what waits and for how long, what is leased, "
        "delayed, dead, and due again, and pauses. A queue that cannot be read has the reason in its row. Finding the "
        "queues scans the server's keys, in steps that do not block it.",
        example="redisq queues\nredisq queues --json | jq -r '.queues[] | select(.dead > 0).queue'",
        options=prefix_options(),
    )
    json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    with connected(url_of(args)) as client:
        found = overview(client, args.prefix)
        now = server_time(client)
    if args.json:
        queues = [overview_json(one) for one in found]
        show_json({"server": place(url_of(args)), "time": time_json(now), "queues": queues})
    elif found:
        columns = ("~queue", "kind", ">waiting", ">oldest", ">leased", ">delayed", ">dead", ">due", "~note")
        show_table(columns, [_row(one, now) for one in found])
    else:
        note(f"no queue at {place(url_of(args))} with the prefix {line(args.prefix)}")
    return 0


def _row(one: QueueOverview, now: float) -> tuple[object, ...]:
    name = line(one.info.name), _kind(one.info)
    if one.stats is None:
        return *name, *[""] * 6, unreadable(one)
    held, oldest = one.stats, oldest_wait(one.stats)
    counts = held.leased, held.delayed, held.dead, held.due
    return (
        *name,
        held.waiting,
        "" if oldest is None else span(oldest),
        *counts,
        f"paused {pause_text(held, now)}" if held.paused else "",
    )


def unreadable(one: QueueOverview) -> str:
    """Say in a few words why a queue cannot be read."""
    if one.info.layout != LAYOUT:
        return f"has layout {one.info.layout}, not {LAYOUT}"
    return f"cannot be read: {line(str(one.error))}"


def _kind(info: QueueInfo) -> str:
    return "buffer" if info.kind == "buffer" else "priority"
