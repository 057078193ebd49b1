"""All queues of a server: their marks are found by a scan that never blocks it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from . import validate
from .calls import as_bytes, as_text

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


def meta_pattern(prefix: Any) -> bytes:
    """Return the pattern that the keys match that hold the marks of queues."""
    return re.sub(rb"([*?\[\]\\])", rb"\\\1", validate.prefix(prefix)) + b":{*}:meta"


def found(prefix: Any, keys: Iterable[bytes], marks: Iterable[Any]) -> list[QueueInfo]:
    """Return the queues of these keys and marks, by name; a key that is no queue's is passed over.

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
