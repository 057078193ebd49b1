"""All queues of a server: their marks are found by a scan that never blocks it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from . import validate
from .buffer import BufferCalls, BufferStats
from .calls import as_bytes, as_text
from .flow import Flow, Operation, together
from .priority import PriorityCalls, PriorityStats

LAYOUT = 2
"""The layout of the keys that this version works on."""
_MARK = re.compile(r"(\d+) (buffer|fifo|score)")


@dataclass(frozen=True, order=True)
class QueueInfo:
    """A queue that was found on a server."""

    name: str
    """What a `Buffer` or a `PriorityQueue` takes as its name."""
    kind: Literal["buffer", "fifo", "score"]
    """A buffer, or a priority queue in one of its two orders."""
    layout: int
    """The layout of its keys; this version of redisq works on layout 2."""


@dataclass(frozen=True)
class QueueOverview:
    """A queue and what it holds."""

    info: QueueInfo
    """Which queue it is."""
    stats: BufferStats | PriorityStats | None
    """None if it could not be read."""
    error: Exception | None = None
    """Why not, such as `WrongLayout`."""


_TOGETHER = 100  # in one round trip: a call is a few dozen commands for the server


def overviews(found: Sequence[QueueInfo], prefix: str) -> Flow[list[QueueOverview]]:
    """Count what each queue holds, in few round trips."""
    results = yield from together([_stats(info, prefix) for info in found], _TOGETHER)
    return [
        QueueOverview(info, None, result) if isinstance(result, Exception) else QueueOverview(info, result)
        for info, result in zip(found, results, strict=True)
    ]


def _stats(info: QueueInfo, prefix: str) -> Operation[Any]:
    if info.kind == "buffer":
        return BufferCalls[Any](info.name, prefix=prefix).stats()
    return PriorityCalls[Any](info.name, order=info.kind, prefix=prefix).stats()


def meta_key(prefix: Any, name: Any) -> bytes:
    """Return the key that holds the mark of a queue."""
    return validate.key_prefix(prefix, name) + b"meta"


def meta_pattern(prefix: Any) -> bytes:
    """Return the pattern that the keys match that hold the marks of queues."""
    return re.sub(rb"([*?\[\]\\])", rb"\\\1", validate.prefix(prefix)) + b":{*}:meta"


def found(prefix: Any, keys: Iterable[bytes], marks: Iterable[Any]) -> list[QueueInfo]:
    """Return the queues of these keys and marks, by name; other keys are passed over.

    Raises an error of the server, but for that of a key that has become one of another type meanwhile.
    """
    shape = re.compile(re.escape(validate.prefix(prefix)) + rb":\{([^{}]+)\}:meta")
    queues = set()
    for key, mark in zip(keys, marks, strict=True):
        if isinstance(mark, Exception) and "WRONGTYPE" not in str(mark):
            raise mark
        name = shape.fullmatch(key)
        kind = _MARK.fullmatch(as_text(mark)) if isinstance(mark, (bytes, str)) else None
        if name and kind:
            queues.add(QueueInfo(as_text(as_bytes(name[1])), kind[2], int(kind[1])))  # type: ignore[arg-type]
    return sorted(queues)
