"""How commands print: tables for people, JSON for programs, and no byte that upsets either."""

from __future__ import annotations

import datetime
import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..core.priority import Item
from .exit import NO, Failure

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def text(value: bytes | str) -> str:
    """Give a name or a payload as text; bytes that are not UTF-8 are written as `\\xff`."""
    data = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
    return data.decode("utf-8", "backslashreplace")


def line(value: bytes | str) -> str:
    """Give a name or a payload as text of one line, whose control characters are escaped too."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text(value))


def brief(value: bytes | str, most: int = 60) -> str:
    """Give a text as the beginning of one line."""
    said = line(value)
    return said if len(said) <= most else said[: most - 3] + "..."


def time_json(seconds: float | None) -> str | None:
    """Give a Unix time as programs read it: UTC, in ISO 8601, with its ms."""
    if seconds is None:
        return None
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).isoformat(timespec="milliseconds")


def time_text(seconds: float) -> str:
    """Give a Unix time as people read it: in their own time zone."""
    return datetime.datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")


def member_json(item: Item[bytes]) -> dict[str, Any]:
    """Give a member of a priority queue as a part of a JSON document."""
    return {
        "member": text(item.member),
        "priority": item.priority,
        "attempts": item.attempts,
        "payload": None if item.payload is None else text(item.payload),
        "reason": text(item.reason),
    }


def show_json(document: Any) -> None:
    """Print one JSON document on one line, at once."""
    print(json.dumps(document, allow_nan=False), flush=True)


def console(*, stderr: bool = False) -> Console:
    """Give a console that prints texts as they are; where there is no terminal, it never wraps or cuts."""
    try:
        from rich.console import Console
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "rich":
            raise
        raise Failure("tables need rich: pip install 'redisq[cli]', or say --json", NO) from error
    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr, markup=False, highlight=False, emoji=False, width=None if terminal else 100_000)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """Give a table; columns whose title begins with `>` are aligned to the right."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        made.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", overflow="fold")
    for row in rows:
        made.add_row(*(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row))
    return made


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table, without blanks at the ends of lines where there is no terminal."""
    out, made = console(), table(columns, rows)
    if out.is_terminal:
        out.print(made)
        return
    with out.capture() as captured:
        out.print(made)
    print("\n".join(row.rstrip() for row in captured.get().splitlines()))
