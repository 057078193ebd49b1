"""`redisq bench`: pops and keep-min pushes against the usual ways, on a server of your own or a private one."""

from __future__ import annotations

import argparse
import contextlib
from dataclasses import asdict

from .. import bench, embedded
from .command import Commands, describe, json_option, positive
from .connection import checked, connected
from .durations import duration
from .output import console, show_json, show_table


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Describe the command."""
    parser = describe(
        commands,
        "bench",
        run,
        summary="measure redisq against WATCH, a lock and native commands",
        text="Let several processes pop from a priority queue, and push to it so that the lowest score is kept, all at "
        "once: with redisq, with WATCH, with a lock, without either, and with the native command. Show how many "
        "operations a second each does, and what it lost, doubled or got wrong. It takes less than a minute. Without "
        "--url it starts a private server; on yours it uses keys of its own and removes them.",
        example="redisq bench\nredisq bench --url redis://db1:6379 --processes 32 --json",
    )
    parser.add_argument("--url", help="the Redis server; default: a private one")
    parser.add_argument("--processes", type=positive, default=8, metavar="N", help="how many at once (%(default)s)")
    parser.add_argument(
        "--seconds",
        type=duration(0.05, 60),
        default=1.0,
        metavar="TIME",
        help="for each of ten measurements (1s)",
    )
    json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    if not args.json:
        console()  # before anything is measured: without rich there is no table of it
    with contextlib.ExitStack() as stack:
        if args.url:
            checked(args.url)
            stack.enter_context(connected(args.url))
            url, where = args.url, embedded.redacted(args.url)
        else:
            endpoint = stack.enter_context(embedded.server())
            url, where = endpoint.url, endpoint.description
        results = list(bench.run(url, args.processes, args.seconds))
    if args.json:
        show_json({"server": where, "processes": args.processes, "results": [asdict(one) for one in results]})
        return 0
    print(f"{where}; {args.processes} processes, {args.seconds:g} s each")
    ours = {one.kind: one.per_second for one in results if one.contender == "redisq"}
    rows = [
        (
            one.kind,
            one.contender,
            f"{one.per_second:,.0f}",
            f"{ours[one.kind] / one.per_second:.2f} x" if one.per_second and one.contender != "redisq" else "",
            one.lost,
            one.doubled,
            one.weaker,
        )
        for one in results
    ]
    show_table(("operation", "with", ">a second", ">redisq is", ">lost", ">doubled", ">wrong score"), rows)
    return 0
