"""`redisq adopt`: move lists or a sorted set that belong to no queue into one, while others still push to them."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from .adoption import TOGETHER, Adoption, Count, Source, escaped, matching
from .command import Commands, describe, describe_verbs, json_option
from .connection import Client, Queue, connected, explained, find, heading, open_queue, prefix_options, url_of
from .durations import duration
from .exit import NO, USAGE, Failure
from .output import counting, line, many, show_json

_PAUSE = 1.0  # seconds between two rounds of --follow


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Describe the command and its verbs."""
    verbs = describe_verbs(
        commands,
        "adopt",
        summary="take over lists or a sorted set of a system that is running",
        text="Move what waits in plain lists, or in a plain sorted set, into a queue, in small steps, while producers "
        "still push to them. Their consumers must have been stopped. It may be killed at any moment and run again: "
        "nothing is lost, and nothing is there twice. The exit code is 1 if there is nothing to adopt and no earlier "
        "run has found anything.",
    )
    buffer = describe(
        verbs,
        "buffer",
        _buffer,
        summary="move lists into a buffer, one group each",
        text="Move the items of all lists whose names match a pattern into a buffer, as they are, the oldest first. "
        "What * stands for in a list's name is its group. Keys of other types are left alone.",
        example="redisq adopt buffer follows --lists 'stream_buffer:follows:*' --dry-run\n"
        "redisq adopt buffer follows --lists 'stream_buffer:follows:*' --follow 10m",
        options=_options(),
    )
    buffer.add_argument("--lists", required=True, metavar="PATTERN", help="the lists' names, with one * for the group")
    buffer.add_argument(
        "--newest",
        choices=["left", "right"],
        default="left",
        help="the end at which producers push: left if by LPUSH, right if by RPUSH (%(default)s)",
    )
    buffer.add_argument(
        "--lengths",
        metavar="KEY",
        help="the sorted set with the lists' lengths; it is not read, and deleted once all lists are empty",
    )
    priority = describe(
        verbs,
        "priority",
        _priority,
        summary="move a sorted set into a priority queue",
        text="Move the members of a sorted set into a priority queue of score order, the lowest score first. A member "
        "that is in both keeps the lower score. Members with an infinite score are left where they are.",
        example="redisq adopt priority index --zset to_index --follow 10m",
        options=_options(),
    )
    priority.add_argument("--zset", required=True, metavar="KEY", help="the sorted set")
    for parser in (buffer, priority):
        parser.add_argument("--dry-run", action="store_true", help="count, and change nothing")
        parser.add_argument(
            "--follow", type=duration(), metavar="TIME", help="go on until nothing has come for so long: 90s, 10m"
        )
        json_option(parser)


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, parents=[prefix_options()])
    parser.add_argument("queue", metavar="QUEUE", help="the queue's name")
    parser.set_defaults(kind=None)
    return parser


@dataclass
class _Total:
    """What all rounds came to; the counts of keys are those of the last one."""

    sources: set[bytes] = field(default_factory=set)
    items: int = 0
    resumed: int = 0
    left: int = 0
    skipped: int = 0
    unnamed: int = 0

    def add(self, counts: Mapping[Source, Count]) -> None:
        for source, count in counts.items():
            self.items += count.items
            self.left += count.left
            if count.items:
                self.sources.add(source.key)


Round = Callable[[Adoption, _Total], None]


def _buffer(args: argparse.Namespace) -> int:
    """Adopt lists into a buffer."""
    sources = os.fsencode(args.lists)
    before, after = _around(sources)
    lengths = None if args.lengths is None else os.fsencode(args.lengths)

    def round_(adoption: Adoption, total: _Total) -> None:
        total.left = total.skipped = total.unnamed = 0
        if not total.items:
            total.resumed = adoption.laid_aside() if args.dry_run else adoption.resume()
            total.items += total.resumed
        for page in matching(client, escaped(before) + b"*" + escaped(after)):
            lists: dict[Source, int] = {}
            for key, kind, length in page:
                group = key[len(before) : len(key) - len(after)]
                if kind != b"list" or adoption.owns(key):
                    total.skipped += kind != b"none" and key != lengths
                elif not group:
                    total.unnamed += 1
                else:
                    lists[Source(key, args.newest, group)] = length
            if lists and not args.dry_run:
                adoption.remember(sources)  # before anything is taken: it may be killed at any moment
            for some in _pages(lists):
                total.add(_counted(some, total) if args.dry_run else adoption.take(some))

    with connected(url_of(args)) as client:
        if lengths is not None:
            _is_type(client, lengths, b"zset")
        queue = find(client, args, "buffer") or open_queue(client, args.queue, args.prefix, "buffer")
        total, seconds = _rounds(args, client, queue, round_)
        missing = "" if total.items or total.unnamed else f"no list matches {line(args.lists)}"
        if missing:
            if total.skipped:
                missing += f" ({many(total.skipped, 'key')} of other types or of queues left alone)"
            _found_before(Adoption(client, queue, args.prefix), sources, missing, args)
        if lengths is not None and not args.dry_run and not total.left:
            client.unlink(lengths)
    rest = {"lists": len(total.sources), "skipped": total.skipped, "unnamed": total.unnamed}
    return _report(args, queue, total, seconds, rest, missing)


def _priority(args: argparse.Namespace) -> int:
    """Adopt a sorted set into a priority queue."""
    key = os.fsencode(args.zset)

    def round_(adoption: Adoption, total: _Total) -> None:
        total.left = 0
        if not total.items:
            aside = [adoption.aside(key)]
            total.resumed = adoption.laid_aside(aside) if args.dry_run else adoption.resume(aside)
            total.items += total.resumed
        client: Any = queue.client
        there = client.zcount(key, "(-inf", "(+inf")
        total.skipped = client.zcard(key) - there
        if there and not args.dry_run:
            adoption.remember(key)  # before anything is taken: it may be killed at any moment
        source = {Source(key, "zset"): there}
        total.add(_counted(source, total) if args.dry_run else adoption.take(source))
        total.left = max(0, total.left - total.skipped)

    with connected(url_of(args)) as client:
        _is_type(client, key, b"zset")
        queue = find(client, args, "priority", "score") or open_queue(client, args.queue, args.prefix, "score")
        if Adoption(client, queue, args.prefix).owns(key):
            raise Failure(f"{line(key)} belongs to a queue: give a sorted set that does not", USAGE)
        total, seconds = _rounds(args, client, queue, round_)
        missing = "" if total.items or total.skipped else f"there is no sorted set {line(key)}"
        if missing:
            _found_before(Adoption(client, queue, args.prefix), key, missing, args)
    return _report(args, queue, total, seconds, {"infinite": total.skipped}, missing)


def _found_before(adoption: Adoption, sources: bytes, missing: str, args: argparse.Namespace) -> None:
    """Refuse what is not there, unless an earlier run found it: then all is adopted, and there is nothing to do."""
    if not adoption.remembers(sources):
        raise Failure(f"{missing}, and no earlier run into {line(args.queue)} found one: is it misspelt?")


def _pages(lists: dict[Source, int]) -> Iterator[dict[Source, int]]:
    rest = iter(lists.items())
    while page := dict(islice(rest, TOGETHER)):
        yield page


def _counted(sources: dict[Source, int], total: _Total) -> dict[Source, Count]:
    """Return what would be taken; a scan may meet a key twice."""
    return {source: Count(items) for source, items in sources.items() if source.key not in total.sources}


def _around(pattern: bytes) -> tuple[bytes, bytes]:
    """Return what stands before and after the one * of a pattern."""
    before, star, after = pattern.partition(b"*")
    if not star or b"*" in after:
        raise Failure(
            f"--lists is {line(pattern)}: give one *, where the group's name stands; ?, [ and ] stand for themselves",
            USAGE,
        )
    return before, after


def _is_type(client: Client, key: bytes, wanted: bytes) -> None:
    found: Any = client.type(key)
    if found not in (wanted, b"none"):
        raise Failure(f"{line(key)} is a {found.decode()}: give the name of a sorted set")


def _rounds(args: argparse.Namespace, client: Client, queue: Queue, round_: Round) -> tuple[_Total, float]:
    """Adopt, once or until nothing has come for a while; return what it came to, and how long it took."""
    total, moved = _Total(), 0
    began = last = time.monotonic()
    with counting("adopted") as progress:
        adoption = Adoption(client, queue, args.prefix, progress)
        try:
            with explained(url_of(args)):
                while True:
                    started = time.monotonic()
                    round_(adoption, total)
                    now = time.monotonic()
                    if adoption.moved > moved:
                        last, moved = now, adoption.moved
                    if args.follow is None or args.dry_run or now - last >= args.follow:
                        return total, now - began
                    time.sleep(min(max(_PAUSE, now - started), args.follow))  # it scans at most half of the time
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"interrupted; at least {adoption.moved:,} items are adopted; {_AGAIN}") from None
        except Failure as failure:
            raise Failure(
                f"{failure}; at least {adoption.moved:,} items are adopted; {_AGAIN}", failure.code
            ) from failure


_AGAIN = "run it again to go on"


def _report(
    args: argparse.Namespace, queue: Queue, total: _Total, seconds: float, rest: dict[str, int], missing: str
) -> int:
    """Print the summary; the exit code is 1 if something is left that will never be taken.

    `missing` says that there was nothing to take, because an earlier run took it all: to run a command once more is no
    error.
    """
    kept_out = rest.get("unnamed", 0) + rest.get("infinite", 0)
    if args.json:
        counts = {"items": total.items, "resumed": total.resumed, "left": total.left, **rest}
        show_json({**heading(args, queue), "dry_run": args.dry_run, **counts, "seconds": round(seconds, 3)})
        return NO if kept_out else 0
    what = (
        f"{many(total.items, 'item')} of {many(rest['lists'], 'list')}"
        if "lists" in rest
        else f"{many(total.items, 'member')} of {line(args.zset)}"
    )
    if args.dry_run:
        print(f"{what} would be adopted into {line(args.queue)}")
    else:
        print(f"{what} adopted into {line(args.queue)} in {seconds:.1f} s")
    if missing:
        print(f"{missing} any more: an earlier run found what there was")
    if total.resumed:
        print(f"{total.resumed:,} of them had been laid aside by an adoption that was interrupted")
    if total.left:
        print(f"{total.left:,} were pushed meanwhile and are left: {_AGAIN}, or say --follow 10m")
    for name, why in (
        ("skipped", "keys that match, but are not lists or belong to a queue"),
        ("unnamed", "lists whose names have nothing where * stands: a group needs a name"),
        ("infinite", "members with an infinite score: a queue takes none"),
    ):
        if rest.get(name):
            print(f"left alone: {rest[name]:,} {why}")
    return NO if kept_out else 0
