"""`redisq stats`: what a queue holds, once or again and again."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

from ..core.documents import Stats, oldest_wait, stats_json, time_json
from .command import Commands, describe, json_option
from .connection import Client, Queue, connected, existing, heading, kind_of, queue_options, server_time, url_of
from .durations import duration, span
from .output import console, line, pause_text, show_json, show_table, table

_HELD = ("waiting", "groups", "busy_groups", "paused_groups", "leased", "batches", "delayed", "dead", "due")
_TOTALS = ("done", "failed", "buried", "trimmed")
_COUNTS = (*_HELD, *_TOTALS)


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Describe the command."""
    parser = describe(
        commands,
        "stats",
        run,
        summary="count what a queue holds",
        text="Count what waits in a queue, is leased, delayed and dead, and what was done since it began or was last "
        "empty for seven days: items done, failed (each time), buried (dead letters), and trimmed (dropped beyond "
        "max_dead). In a buffer items wait; batches are leased, delayed and dead. Due is what has run out or is due "
        "again, and waits for the next reserve.",
        example="redisq stats mails\nredisq stats mails --watch 5s --json >> mails.log",
        options=queue_options(),
    )
    parser.add_argument(
        "--watch",
        type=duration(0.1, 86_400),
        nargs="?",
        const=1.0,
        metavar="TIME",
        help="count again every TIME until Ctrl-C (1s)",
    )
    json_option(parser, "print one JSON document; with --watch one a line")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    with connected(url_of(args)) as client:
        queue = existing(client, args)
        if args.watch is not None:
            _watch(client, queue, args)
        elif args.json:
            show_json(_document(_look(client, queue), queue, args))
        else:
            show_table(*_table(_look(client, queue), queue, args))
    return 0


@dataclass(frozen=True)
class _Sample:
    """What a queue holds, and when by the server's clock."""

    stats: Stats
    time: float

    def counts(self) -> dict[str, int]:
        found = asdict(self.stats)
        return {name: found[name] for name in _COUNTS if name in found}


def _look(client: Client, queue: Queue) -> _Sample:
    return _Sample(queue.stats(), server_time(client))


def _document(seen: _Sample, queue: Queue, args: argparse.Namespace) -> dict[str, Any]:
    return {**heading(args, queue), **stats_json(seen.stats), "time": time_json(seen.time)}


def _table(
    seen: _Sample, queue: Queue, args: argparse.Namespace, before: _Sample | None = None
) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    rows: list[tuple[object, ...]] = []
    old, seconds = (before.counts(), max(0.001, seen.time - before.time)) if before else ({}, 1.0)
    for name, count in seen.counts().items():
        change = (count - old.get(name, count)) / seconds
        rows.append((_label(name), count, f"{change:+,.0f}/s" if round(change) else ""))
    rows += [(name, said, "") for name, said in _times(seen)]
    return (line(args.queue), f">|{kind_of(queue)}", ">"), rows


def _label(name: str) -> str:
    return name.replace("_", " ")


def _times(seen: _Sample) -> list[tuple[str, str]]:
    said = []
    oldest, expiry = oldest_wait(seen.stats), seen.stats.next_expiry
    if oldest is not None:
        said.append(("oldest wait", span(oldest)))
    if expiry is not None:
        left = expiry - seen.time
        said.append(
            ("next expiry", f"in {span(left)}" if left >= 0 else f"{span(-left)} ago, comes with the next reserve")
        )
    if seen.stats.paused:
        said.append(("paused", pause_text(seen.stats, seen.time)))
    return said


def _watch(client: Client, queue: Queue, args: argparse.Namespace) -> None:
    """Look until Ctrl-C: a table that changes on a terminal, else one line each time."""
    if args.json or not sys.stdout.isatty():
        due = time.monotonic()
        while True:
            seen = _look(client, queue)
            if args.json:
                show_json(_document(seen, queue, args))
            else:
                counts = [f"{_label(name)} {n}" for name, n in seen.counts().items() if n or name == "waiting"]
                times = [f"{name} {said}" for name, said in _times(seen)]
                print(time.strftime("%H:%M:%S"), "  ".join(counts + times), flush=True)
            due += args.watch
            time.sleep(max(0.0, due - time.monotonic()))
    out = console()
    from rich.live import Live

    before = None
    with Live(console=out, auto_refresh=False) as live:
        while True:
            seen = _look(client, queue)
            live.update(table(*_table(seen, queue, args, before)), refresh=True)
            before = seen
            time.sleep(args.watch)
