"""`redisq stats`: what a queue holds, once or again and again."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict
from typing import Any

from .command import Commands, describe
from .connection import Client, Queue, connected, existing, kind_of, queue_options, url_of
from .exit import USAGE, Failure
from .output import console, line, show_json, show_table, table, time_json

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
        example="redisq stats mails\nredisq stats mails --watch 5 --json >> mails.log",
        options=queue_options(),
    )
    parser.add_argument(
        "--watch", type=float, nargs="?", const=1.0, metavar="SECONDS", help="again and again, until Ctrl-C (%(const)s)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document; with --watch one a line")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.watch is not None and not 0.1 <= args.watch <= 86_400:
        raise Failure(f"--watch is {args.watch:g}: give seconds from 0.1 to 86400", USAGE)
    with connected(url_of(args)) as client:
        queue = existing(client, args)
        if args.watch is not None:
            _watch(client, queue, args)
        elif args.json:
            show_json(_document(_look(client, queue, args)))
        else:
            columns, rows = _rows(_look(client, queue, args))
            show_table(columns, rows)
    return 0


def _look(client: Client, queue: Queue, args: argparse.Namespace) -> dict[str, Any]:
    seen: dict[str, Any] = {"queue": args.queue, "kind": kind_of(queue), **asdict(queue.stats())}
    seconds, micros = client.time()  # the server's clock, by which leases and pauses run
    return {**seen, "time": seconds + micros / 1e6}


def _document(seen: dict[str, Any]) -> dict[str, Any]:
    return {**seen, **{name: time_json(seen[name]) for name in ("time", "next_expiry", "paused_until")}}


def _rows(
    seen: dict[str, Any], before: dict[str, Any] | None = None, seconds: float = 1.0
) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    rows: list[tuple[object, ...]] = []
    for name in _COUNTS:
        if name in seen:
            change = (seen[name] - before[name]) / seconds if before else 0
            rows.append((_label(name), seen[name], f"{change:+,.0f}/s" if round(change) else ""))
    rows += [(name, said, "") for name, said in _times(seen)]
    return (line(seen["queue"]), f">{seen['kind']}", ">"), rows


def _label(name: str) -> str:
    return name.replace("_", " ")


def _times(seen: dict[str, Any]) -> list[tuple[str, str]]:
    said = []
    if seen.get("oldest_wait") is not None:
        said.append(("oldest wait", f"{seen['oldest_wait']:.1f} s"))
    if seen["next_expiry"] is not None:
        left = seen["next_expiry"] - seen["time"]
        said.append(
            ("next expiry", f"in {left:.1f} s" if left >= 0 else f"{-left:.1f} s ago, comes with the next reserve")
        )
    if seen["paused"]:
        until = seen["paused_until"]
        ends = "until it is resumed" if until is None else f"for {max(0.0, until - seen['time']):.1f} s more"
        said.append(("paused", f"{ends}: {line(seen['pause_reason'])}" if seen["pause_reason"] else ends))
    return said


def _watch(client: Client, queue: Queue, args: argparse.Namespace) -> None:
    """Look until Ctrl-C: a table that changes on a terminal, else one line each time."""
    if args.json or not sys.stdout.isatty():
        due = time.monotonic()
        while True:
            seen = _look(client, queue, args)
            if args.json:
                show_json(_document(seen))
            else:
                counts = [f"{_label(name)} {seen[name]}" for name in _COUNTS if seen.get(name) or name == "waiting"]
                times = [f"{name} {said}" for name, said in _times(seen)]
                print(time.strftime("%H:%M:%S"), "  ".join(counts + times), flush=True)
            due += args.watch
            time.sleep(max(0.0, due - time.monotonic()))
    out = console()
    from rich.live import Live

    before, at = None, time.monotonic()
    with Live(console=out, auto_refresh=False) as live:
        while True:
            seen, now = _look(client, queue, args), time.monotonic()
            live.update(table(*_rows(seen, before, max(0.001, now - at))), refresh=True)
            before, at = seen, now
            time.sleep(args.watch)
