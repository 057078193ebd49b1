"""`redisq push`: JSON lines from standard input into a queue."""

from __future__ import annotations

import argparse
import codecs
import contextlib
import json
import os
import select
import signal
import stat
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from ..blocking import Buffer, PriorityQueue
from ..core.buffer import MAX_ITEMS
from ..core.codecs import JSON
from ..core.priority import Pushed
from .command import Commands, describe, json_option
from .connection import Kind, connected, explained, find, heading, queue_options, url_of
from .exit import NO, USAGE, Failure
from .output import console, line, many, show_json

if TYPE_CHECKING:
    from rich.progress import Progress

_CHUNK = 1 << 18  # bytes of a read
_HEAP = 8 << 20  # bytes gathered before they are sent
_ITEM = 100  # what a small item costs beside its bytes, so that many of them count as much as a few large ones
_LULL = 0.2  # seconds without input after which what has been read is sent


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Describe the command."""
    parser = describe(
        commands,
        "push",
        run,
        summary="push JSON lines from standard input",
        text="Push each line of standard input, a JSON value, in large batches. In a buffer it is kept as canonical "
        "JSON, as Buffer's default codec reads it. In a priority queue its canonical JSON is the member, or a field "
        "is. Lines are sent at the latest when the input pauses, so a log can be followed. Stopped by a bad line or "
        "by Ctrl-C, it has pushed exactly the lines before, and says how many.",
        example="redisq push actions --group-by user < actions.jsonl\n"
        "redisq push search --priority-by rank --member path < files.jsonl",
        options=queue_options(),
    )
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--group-by", metavar="FIELD", help="into a buffer: the field that names a line's group")
    group.add_argument("--group", metavar="NAME", help="into a buffer: the group of all lines ('default')")
    parser.add_argument("--priority-by", metavar="FIELD", help="into a priority queue: a line's priority (0)")
    parser.add_argument("--member", metavar="FIELD", help="into a priority queue: the field that is the member")
    parser.add_argument("--order", choices=["fifo", "score"], help="of a new priority queue; default: fifo")
    json_option(parser, "print one JSON document at the end")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    kind = _kind(args)
    began = time.monotonic()
    url = url_of(args)
    with connected(url) as client:
        queue = find(client, args, kind, args.order)
        if queue is None:
            raise Failure(f"{line(args.queue)} is new: say --group-by, --group, --priority-by or --kind", USAGE)
        sink = _Groups(queue, args) if isinstance(queue, Buffer) else _Members(queue, args)
        reader = _Reader(sink)
        if sys.stdin.isatty():
            print("reading JSON lines; Ctrl-D ends", file=sys.stderr)
        try:
            with explained(url):
                reader.read(sys.stdin.fileno())
        except KeyboardInterrupt:
            with _held(), explained(url):
                reader.flush()
            raise KeyboardInterrupt(f"interrupted; {reader.where()}") from None
        except Failure as failure:
            raise Failure(f"{failure}; {reader.where()}", failure.code) from failure
    seconds = time.monotonic() - began
    if args.json:
        show_json({**heading(args, queue), "lines": reader.pushed, "seconds": round(seconds, 3), **sink.outcome()})
    else:
        outcome = sink.outcome()
        said = ", ".join(f"{count:,} {name}" for name, count in outcome.items())
        if "groups" in outcome:
            said = many(outcome["groups"], "group")
        print(f"{many(reader.pushed, 'line')} pushed in {seconds:.1f} s: {said}")
    return 0


def _kind(args: argparse.Namespace) -> Kind | None:
    buffer = args.group_by is not None or args.group is not None
    priority = args.priority_by is not None or args.member is not None or args.order is not None
    if buffer and (priority or args.kind == "priority"):
        raise Failure("groups are for a buffer, priorities, members and orders for a priority queue: give one", USAGE)
    if priority and args.kind == "buffer":
        raise Failure("priorities, members and orders are for a priority queue, not for --kind buffer", USAGE)
    return "buffer" if buffer else "priority" if priority else None


class _Sink(Protocol):
    """What gathers what lines become, and sends it."""

    def take(self, value: Any, encoded: bytes) -> int:
        """Keep a line's value and say how many bytes it weighs; raise `ValueError` if it is not fit."""
        ...

    def send(self) -> None:
        """Push what was gathered."""
        ...

    def outcome(self) -> dict[str, int]:
        """Say what all that was pushed came to."""
        ...


class _Groups:
    """Items, gathered by group."""

    def __init__(self, buffer: Buffer[bytes], args: argparse.Namespace) -> None:
        self._buffer = buffer
        self._field, self._group = args.group_by, "default" if args.group is None else args.group
        self._gathered: defaultdict[str, list[bytes]] = defaultdict(list)
        self._names: set[str] = set()

    def take(self, value: Any, encoded: bytes) -> int:
        group = self._group if self._field is None else _name(_field(value, self._field), self._field)
        self._gathered[group].append(encoded)
        return len(encoded)

    def send(self) -> None:
        calls = self._buffer.calls
        self._buffer.send(
            *(
                calls.push(items[start : start + MAX_ITEMS], group)
                for group, items in self._gathered.items()
                for start in range(0, len(items), MAX_ITEMS)
            )
        )
        self._names.update(self._gathered)
        self._gathered.clear()

    def outcome(self) -> dict[str, int]:
        return {"groups": len(self._names)}


class _Members:
    """Members, gathered with their priorities."""

    def __init__(self, queue: PriorityQueue[bytes], args: argparse.Namespace) -> None:
        self._queue, self._priority, self._member = queue, args.priority_by, args.member
        self._gathered: list[tuple[bytes, float]] = []
        self._outcomes: Counter[Pushed] = Counter()
        # The queue itself says which priorities it takes; most lines have one of a few.
        self._checked = lru_cache(4096, typed=True)(lambda priority: queue.calls.push(b"-", priority))

    def take(self, value: Any, encoded: bytes) -> int:
        priority = 0 if self._priority is None else _field(value, self._priority)
        if isinstance(priority, (list, dict)):
            raise ValueError(f"field {self._priority} is {json.dumps(priority)}: give a number")
        self._checked(priority)
        if self._member is not None:
            member = _field(value, self._member)
            encoded = member.encode() if isinstance(member, str) else JSON.encode(member)
        self._gathered.append((encoded, priority))
        return len(encoded)

    def send(self) -> None:
        self._outcomes += self._queue.push_many(self._gathered)
        self._gathered.clear()

    def outcome(self) -> dict[str, int]:
        return {pushed.value: self._outcomes[pushed] for pushed in Pushed if pushed is not Pushed.CHANGED}


def _field(value: Any, name: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"it is not an object, so it has no field {name}")
    if value.get(name) is None:
        raise ValueError(f"it has no field {name}")
    return value[name]


def _name(value: Any, field: str) -> str:
    if isinstance(value, (list, dict)) or value == "":
        raise ValueError(f"field {field} is {json.dumps(value)}: it cannot name a group")
    return value if isinstance(value, str) else JSON.encode(value).decode()


class _Reader:
    """A reader of lines into a sink; at each moment what was read is either pushed or gathered, and counted so."""

    def __init__(self, sink: _Sink) -> None:
        self._sink = sink
        self._read = 0
        self._weight = 0
        self._gathered = 0
        self._done = 0  # so many lines from the first on are pushed, or blank
        self.pushed = 0
        """How many lines are pushed; blank ones are none."""

    def read(self, descriptor: int) -> None:
        """Push all lines of a file; raise `Failure` for a bad one when those before it are pushed."""
        with _progress(descriptor) as advance:
            for lines, size in _chunks(descriptor):
                with _held():
                    self._take(lines)
                    if self._weight > _HEAP or not lines:
                        self.flush()
                advance(self._read, size)
            with _held():
                self.flush()

    def _take(self, lines: list[bytes]) -> None:
        for data in lines:
            if self._read == 0:
                data = data.removeprefix(codecs.BOM_UTF8)  # as some editors and exports write it
            if data and not data.isspace():
                try:
                    value = json.loads(data.decode())
                    self._weight += _ITEM + self._sink.take(value, JSON.encode(value))
                    self._gathered += 1
                except (ValueError, RecursionError) as error:  # InvalidArgument is a ValueError too
                    self.flush()
                    raise Failure(f"line {self._read + 1}: {_fault(error, data)}", NO) from error
            self._read += 1

    def flush(self) -> None:
        """Push what was gathered."""
        if self._weight:
            self._sink.send()
        self.pushed += self._gathered
        self._weight = self._gathered = 0
        self._done = self._read

    def where(self) -> str:
        """Say how far it has come."""
        said = f"the first {self._done:,} lines are pushed" if self.pushed else "nothing is pushed for certain"
        unsure = self._read - self._done
        return f"{said}, some of the {unsure:,} that follow may be" if unsure else said.removesuffix(" for certain")


def _fault(error: Exception, data: bytes) -> str:
    if isinstance(error, json.JSONDecodeError):
        start = max(0, error.pos - 20)
        return f"not JSON: {error.msg} at column {error.colno}, near {line(data.decode()[start : start + 40])!r}"
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _chunks(descriptor: int) -> Iterator[tuple[list[bytes], int]]:
    """Yield lines as they come, with the bytes that were read for them; none when the input pauses."""
    rest, quiet = b"", False
    while True:
        # On Windows only sockets can be waited for: there, lines are sent when enough have come, and at the end.
        if not quiet and sys.platform != "win32" and not select.select([descriptor], [], [], _LULL)[0]:
            quiet = True
            yield [], 0
        data = os.read(descriptor, _CHUNK)
        if not data:
            break
        quiet = False
        *lines, rest = (rest + data).split(b"\n")
        if lines:
            yield lines, len(data)
    if rest:
        yield [rest], len(rest)


@contextlib.contextmanager
def _held() -> Iterator[None]:
    """Hold Ctrl-C back until the end of `with`, where counts and what was sent agree; a second one comes at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []

    def hold(number: int, _: object) -> None:
        if heard:
            raise KeyboardInterrupt
        heard.append(number)

    before = signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if heard:
        raise KeyboardInterrupt


class _Advance(Protocol):
    def __call__(self, lines: int, size: int, /) -> None: ...


@contextlib.contextmanager
def _progress(descriptor: int) -> Iterator[_Advance]:
    """Show how far the input is read, if stderr is a terminal and rich is there."""
    if not sys.stderr.isatty() or os.isatty(descriptor):
        yield lambda *_: None
        return
    about = os.fstat(descriptor)
    total = about.st_size if stat.S_ISREG(about.st_mode) else None
    bar = _bar(total is not None)
    task = bar.add_task("push", total=total, lines=0, speed=0)
    began = time.monotonic()
    with bar:

        def advance(lines: int, size: int) -> None:
            bar.update(task, advance=size, lines=lines, speed=int(lines / (time.monotonic() - began)))

        yield advance


def _bar(total: bool) -> Progress:
    out = console(stderr=True)
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    known = (TaskProgressColumn(), TimeRemainingColumn()) if total else (TimeElapsedColumn(),)
    counts = TextColumn("{task.fields[lines]:,} lines  {task.fields[speed]:,}/s")
    return Progress(BarColumn(), counts, *known, console=out)
