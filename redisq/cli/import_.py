"""`redisq import`: a queue from what `redisq export` has written."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import IO

from .archive import Archive
from .command import Commands, describe, json_option
from .connection import connected, explained, find, heading, hint, open_queue, prefix_options, server_time, url_of
from .exit import Failure
from .importing import Import
from .output import counting, line, many, show_json

_AGAIN = "run it again with the same file to go on"


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Describe the command."""
    options = argparse.ArgumentParser(add_help=False, parents=[prefix_options()])
    options.add_argument("queue", metavar="QUEUE", help="the queue's name, which may be another than it had")
    options.set_defaults(kind=None)
    parser = describe(
        commands,
        "import",
        run,
        summary="restore a queue from what `redisq export` has written",
        text="Restore a queue from standard input: what waited, was delayed or dead is so again; what was leased is "
        "due at once, with the attempt counted. The file is checked before anything is written. It may be killed at "
        "any moment and run again with the same file. A queue that was paused is paused.",
        example="redisq import mails < mails.jsonl\nredisq resume mails",
        options=options,
    )
    parser.add_argument("--merge", action="store_true", help="also into a queue that holds something")
    parser.add_argument("--again", action="store_true", help="import a file once more that has been imported already")
    json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    began, url = time.monotonic(), url_of(args)
    with _seekable() as stream, connected(url) as client, explained(url):
        archive = Archive(stream)
        kind = archive.header["kind"]
        order = None if kind == "buffer" else kind
        queue = find(client, args, "priority" if order else "buffer", order)
        queue = queue or open_queue(client, args.queue, args.prefix, kind)
        work, now = Import(client, queue, archive, args.merge), int(server_time(client) * 1000)
        done = work.begin(now, args.again)
        try:
            with explained(url), counting(f"of {archive.lines:,} lines imported") as progress:
                work.run(done, now, progress)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"interrupted; {_AGAIN}") from None
        except Failure as failure:
            raise Failure(f"{failure}; {_AGAIN}", failure.code) from failure
        paused = queue.stats().paused
    if args.json:
        counts = {"items": archive.items, "lines": archive.lines, "resumed_at": done, "paused": paused}
        show_json({**heading(args, queue), **counts, "seconds": round(time.monotonic() - began, 3)})
        return 0
    unit = many(archive.items, "item" if kind == "buffer" else "member")
    if archive.lines and done == archive.lines:
        print(f"the file has been imported already, all {unit}: nothing to do; --again repeats it")
        return 0
    went_on = f"; it went on in line {done + 2:,}, where it had stopped" if done else ""
    print(f"{unit} imported into {line(args.queue)} in {time.monotonic() - began:.1f} s{went_on}")
    if paused:
        print(f"it is paused: {hint(args, 'resume', args.queue)}")
    return 0


@contextlib.contextmanager
def _seekable() -> Iterator[IO[bytes]]:
    """Yield standard input, from a copy if it is a pipe: a file is read to its end before anything is restored."""
    source = sys.stdin.buffer
    if source.seekable():
        yield source
        return
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(source, copy)
        copy.seek(0)
        yield copy
