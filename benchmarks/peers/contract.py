"""What each peer's file shares: where the server is, and the handler that does no work. Needs nothing but Python.

The runner starts `python -m benchmarks.peers.NAME push FIRST COUNT` or `... work` with these in the environment:

- `PEERS_URL`: the server; `PEERS_MODE`: which of the peer's modes
- `PEERS_RECORD`: a file to which each handler appends when it ran and for what, so that it survives forks and kills
- `PEERS_HOLD`, `PEERS_PACE`: seconds that a handler stays, and that a pusher pauses after each item (the kill test)
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import struct
import sys
import time
from collections.abc import Awaitable, Callable, Iterator

URL = os.environ.get("PEERS_URL", "")
MODE = os.environ.get("PEERS_MODE", "")
ENTRY = struct.Struct("<dq")
"""When, on the clock that all processes share, and the item."""

_hold = float(os.environ.get("PEERS_HOLD", "0"))
_pace = float(os.environ.get("PEERS_PACE", "0"))
_file = os.open(os.environ.get("PEERS_RECORD", os.devnull), os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def setting(name: str, default: int) -> int:
    """Read a number that the mode gives, as in `concurrency=10`."""
    found = re.search(rf"\b{name}=(\d+)", MODE)
    return int(found[1]) if found else default


def record(*items: int) -> None:
    """Be the handler: note that these items ran."""
    now = time.monotonic()
    os.write(_file, b"".join(ENTRY.pack(now, item) for item in items))
    if _hold:
        time.sleep(_hold)


async def record_async(*items: int) -> None:
    """Be the handler of a peer on asyncio."""
    now = time.monotonic()
    os.write(_file, b"".join(ENTRY.pack(now, item) for item in items))
    if _hold:
        await asyncio.sleep(_hold)


def hundreds(items: Iterator[int]) -> Iterator[list[int]]:
    """Cut the items into lists of a hundred."""
    piece: list[int] = []
    for item in items:
        piece.append(item)
        if len(piece) == 100:
            yield piece
            piece = []
    if piece:
        yield piece


async def each(items: Iterator[int], push: Callable[[int], Awaitable[object]]) -> None:
    """Push every item: one after the other, or by 50 tasks where the mode says so."""

    async def task() -> None:
        for item in items:
            await push(item)

    await asyncio.gather(*(task() for _ in range(50 if MODE.endswith("pushed by 50 tasks") else 1)))


def main(push: Callable[[Iterator[int]], float], work: Callable[[], object]) -> None:
    """Do what the command line says: push items and print how long that took, or work until the end.

    `push` returns its own time, from the first item on: connecting and importing are not billed.
    """
    if sys.argv[1] == "push":
        first, count = int(sys.argv[2]), int(sys.argv[3])
        print(json.dumps({"seconds": push(_items(first, count))}))
    else:
        work()


def command(*words: str) -> None:
    """Become the worker program that the peer's documentation names."""
    os.execv(sys.executable, [sys.executable, "-m", *words])


def _items(first: int, count: int) -> Iterator[int]:
    for item in range(first, first + count):
        yield item
        if _pace:
            time.sleep(_pace)
