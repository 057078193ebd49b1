"""How commands print: tables for people, JSON for programs, and no byte that upsets either."""

from __future__ import annotations

import contextlib
import datetime
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from ..core.documents import Stats, text
from .durations import span
from .exit import NO, Failure

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

_GAP = 2  # between columns
_LEAST = 10  # characters of a column that is cut
_LEAST_WRAPPED = 24  # and of one that is wrapped: fewer would make a tower of it


def line(value: bytes | str) -> str:
    """Return a name or a payload as text of one line, whose control characters are escaped too."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text(value))


def many(count: int, noun: str) -> str:
    """Return a number and what it counts: `1 item`, `2,000 items`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def brief(value: bytes | str, most: int = 60) -> str:
    """Return a text as the beginning of one line."""
    said = line(value)
    return said if len(said) <= most else said[: most - 3] + "..."


def time_text(seconds: float) -> str:
    """Return a Unix time as people read it: in their own time zone."""
    return datetime.datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")


def pause_text(stats: Stats, now: float) -> str:
    """Say until when a queue is paused and why, by the server's clock; nothing if it is not paused."""
    if not stats.paused:
        return ""
    until = stats.paused_until
    ends = "until resumed" if until is None else f"for {span(max(0.0, until - now))} more"
    return f"{ends}: {line(stats.pause_reason)}" if stats.pause_reason else ends


def note(said: str) -> None:
    """Print a line for people, on a terminal alone: where a program reads, it would pass for a row."""
    if sys.stdout.isatty():
        print(said)


def remark(said: str) -> None:
    """Print a line on stderr, if that is a terminal: what a person who gets no rows wants to know."""
    if sys.stderr.isatty():
        print(said, file=sys.stderr)


def show_json(document: Any) -> None:
    """Print one JSON document on one line, at once."""
    print(json.dumps(document, allow_nan=False), flush=True)


def console(*, stderr: bool = False) -> Console:
    """Return a console that prints texts as they are; where there is no terminal, it never wraps or cuts."""
    try:
        from rich.console import Console
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "rich":
            raise
        raise Failure("tables need rich: pip install 'redisq-lua[cli]', or say --json", NO) from error
    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr, markup=False, highlight=False, emoji=False, width=None if terminal else 100_000)


@contextlib.contextmanager
def counting(what: str) -> Iterator[Callable[[int], None]]:
    """Show a number that grows, such as `1,200 items adopted`, while stderr is a terminal and rich is there."""
    if not sys.stderr.isatty() or find_spec("rich") is None:
        yield lambda _: None
        return
    from rich.status import Status

    with Status("", console=console(stderr=True)) as status:
        yield lambda count: status.update(f"{count:,} {what}")


@dataclass(frozen=True)
class _Column:
    """A column of a table, read from its title: `>` aligns it to the right; where there is little room, `~` cuts its
    texts and `|` wraps them, and any other column stays as wide as it is.
    """

    title: str
    right: bool
    cut: bool
    wrap: bool

    @classmethod
    def read(cls, said: str) -> _Column:
        title = said.lstrip(">~|")
        marks = said.removesuffix(title)
        return cls(title, ">" in marks, "~" in marks, "|" in marks)

    def width(self, cells: Iterable[str]) -> int:
        """Return how wide it would be if there were room."""
        from rich.cells import cell_len

        return max(map(cell_len, (self.title, *cells)))

    def least(self, cells: Iterable[str]) -> int:
        """Return how wide it must be."""
        width = self.width(cells)
        return min(width, _LEAST) if self.cut else min(width, _LEAST_WRAPPED) if self.wrap else width


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], most: int | None = None) -> Table:
    """Return a table; see `_Column` for its titles. A column that is cut has at most `most` characters."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    read = [*map(_Column.read, columns)]
    for column in read:
        side: Literal["left", "right"] = "right" if column.right else "left"
        made.add_column(
            column.title,
            justify=side,
            no_wrap=not column.cut and not column.wrap,
            overflow="fold",
            max_width=most if column.cut else None,
        )
    for row in rows:
        made.add_row(
            *(
                Text(_cell(value), no_wrap=column.cut or None, overflow="ellipsis" if column.cut else None)
                for value, column in zip(row, read, strict=True)
            )
        )
    return made


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; on a terminal that is too narrow for it, each cell on a line of its own."""
    out, rows = console(), [*map(list, rows)]
    read = [*map(_Column.read, columns)]
    texts = [[_cell(row[place]) for row in rows] for place in range(len(read))]
    room = out.width - _GAP * (len(read) - 1) - sum(map(_Column.least, read, texts))
    if room >= 0:
        # What is wrapped is to be read whole, so it has most of the room, and what is cut the rest.
        wrapped = sum(
            column.width(cells) - column.least(cells) for column, cells in zip(read, texts, strict=True) if column.wrap
        )
        most = _LEAST + room - min(wrapped, room * 3 // 4) if wrapped else None
        show(out, table(columns, rows, most))
        return
    longest = max(len(column.title) for column in read)
    for number, row in enumerate(rows):
        shown = [(column.title, _cell(value)) for column, value in zip(read, row, strict=True) if value != ""]
        print("\n" * (number > 0) + "\n".join(f"{title:{longest + _GAP}}{said}" for title, said in shown))


def show(out: Console, page: RenderableType) -> None:
    """Print what rich renders, without blanks at the ends of lines where there is no terminal."""
    if out.is_terminal:
        out.print(page)
        return
    with out.capture() as captured:
        out.print(page)
    print("\n".join(row.rstrip() for row in captured.get().splitlines()))
