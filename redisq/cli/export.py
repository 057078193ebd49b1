"""`redisq export`: everything that a queue holds, as JSON lines on standard output."""

from __future__ import annotations

import argparse
import sys

from .command import Commands, describe
from .connection import connected, existing, explained, hint, queue_options, url_of
from .exporting import Export
from .output import counting, line, many


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Describe the command."""
    parser = describe(
        commands,
        "export",
        run,
        summary="write everything that a queue holds, for `redisq import`",
        text="Write what waits, is leased, delayed and dead, with attempts, reasons, times and payloads, as JSON "
        "lines. The queue must be paused, and must not change meanwhile: else the file has no last line, and is not "
        "taken. Nothing is removed.",
        example="redisq export mails > mails.jsonl  # after: redisq pause mails --reason moving",
        options=queue_options(),
    )
    parser.add_argument(
        "--live",
        action="store_true",
        help="while others use the queue: what moves meanwhile may be in the file twice, or not at all",
    )


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    url = url_of(args)
    with connected(url) as client:
        queue = existing(client, args)
        try:
            with explained(url), counting("exported") as progress:
                writer = Export(client, queue, args.live, hint(args, "pause", args.queue)).write(
                    sys.stdout.buffer, args.queue, progress
                )
        except KeyboardInterrupt:
            raise KeyboardInterrupt("interrupted; what was written is not whole, and no import takes it") from None
    unit = "item" if queue.calls.structure == "buffer" else "member"
    print(f"{many(writer.items, unit)} of {line(args.queue)} exported", file=sys.stderr)
    return 0
