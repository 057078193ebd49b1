"""What programs are told of queues, as parts of JSON documents: by the command line and by the dashboard."""

from __future__ import annotations

import datetime
from dataclasses import asdict
from typing import Any

from .buffer import BufferStats
from .priority import Item, PriorityStats
from .queues import QueueOverview

Stats = BufferStats | PriorityStats
_FIRST, _LAST = -62_135_596_800.0, 253_402_300_799.0  # what a datetime can be


def text(value: bytes | str) -> str:
    """Return a name or a payload as text; bytes that are not UTF-8 are written as `\\xff`."""
    data = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
    return data.decode("utf-8", "backslashreplace")


def time_json(seconds: float | None) -> str | None:
    """Return a Unix time as programs read it: UTC, in ISO 8601, with its ms.

    One beyond the years 1 to 9999, of a clock that was wrong by millennia, is given as the nearest moment of them.
    """
    if seconds is None:
        return None
    seconds = min(max(seconds, _FIRST), _LAST)
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).isoformat(timespec="milliseconds")


def member_json(item: Item[bytes]) -> dict[str, Any]:
    """Return a member of a priority queue, for a document."""
    return {
        "member": text(item.member),
        "priority": item.priority,
        "attempts": item.attempts,
        "payload": None if item.payload is None else text(item.payload),
        "reason": text(item.reason),
    }


def stats_json(stats: Stats) -> dict[str, Any]:
    """Return what a queue holds, for a document."""
    found = asdict(stats)
    times = {name: time_json(found[name]) for name in ("next_expiry", "paused_until")}
    return {**found, **times, "pause_reason": text(stats.pause_reason)}


def overview_json(one: QueueOverview) -> dict[str, Any]:
    """Return a queue and what it holds, for a document."""
    about: dict[str, Any] = {"queue": text(one.info.name), "kind": "buffer", "layout": one.info.layout}
    if one.info.kind != "buffer":
        about |= {"kind": "priority", "order": one.info.kind}
    held = {} if one.stats is None else stats_json(one.stats)
    return {**about, "error": None if one.error is None else text(str(one.error)), **held}


def oldest_wait(stats: Stats) -> float | None:
    """Return for how many seconds something has waited in a buffer; a priority queue has no such time."""
    return stats.oldest_wait if isinstance(stats, BufferStats) else None
