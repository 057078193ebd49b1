"""The page of `redisq top`: a header, and a line for each queue, as many as the terminal has room for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Group
from rich.table import Table
from rich.text import Text

from ..core.documents import Stats, oldest_wait
from .durations import span
from .output import line
from .queues import unreadable
from .samples import Row, Sample, ServerFacts

_NUMBERS = {  # column -> width
    "waiting": 7,
    "change/s": 8,
    "done/s": 6,
    "failed/s": 8,
    "leased": 6,
    "delayed": 7,
    "dead": 5,
    "oldest": 6,
}
_GIVEN_UP = ("delayed", "leased", "failed/s", "change/s", "done/s", "dead", "oldest")  # in turn, where there is no room
_NAME, _PAUSED, _REASON = 12, 6, 20  # least widths; of a pause with its reason
_ALL = 10_000  # columns: no terminal


@dataclass(frozen=True)
class Page:
    """What is to be shown."""

    where: str
    sample: Sample
    rows: Sequence[Row]
    at: float
    """When the sample was read, by this machine's clock."""
    about: str
    """How the page is made, and which keys do what."""
    outage: str = ""
    """Why there is no newer sample."""

    def render(self, width: int = _ALL, height: int | None = None) -> Group:
        """Return the page for a terminal of this size; without a height, all queues are shown."""
        head = [self._server(), self._summary(), Text()]
        room = len(self.rows) if height is None else max(1, height - len(head) - 1)
        shown = self.rows if len(self.rows) <= room else self.rows[: room - 1]
        hidden = len(self.rows) - len(shown)
        unread = [_unread(row) for row in shown if row.queue.stats is None]
        foot = [_line(f"{hidden:,} more not shown", "dim")] if hidden else []
        return Group(*head, self._table(shown, width), *unread, *foot)

    def _server(self) -> Text:
        said = [self.where, *(_facts(self.sample.server) if self.sample.server else ())]
        return _line("  ".join([*said, time.strftime("%H:%M:%S", time.localtime(self.at))]))

    def _summary(self) -> Text:
        if self.outage:
            return _line(self.outage, "bold red")
        waiting = sum(row.queue.stats.waiting for row in self.rows if row.queue.stats)
        queues = f"{len(self.rows):,} queue{'' if len(self.rows) == 1 else 's'}"
        return _line(f"{queues}, {waiting:,} waiting; {self.about}", "dim")

    def _table(self, shown: Sequence[Row], width: int) -> Table:
        gap = 1 if width < 100 else 2
        columns = dict(_NUMBERS)
        for title in _GIVEN_UP:
            if _free(width, columns, gap) < _NAME + _PAUSED:
                del columns[title]
        free = _free(width, columns, gap)
        names = [line(row.queue.info.name) for row in shown]
        name = min(max([_NAME, *map(cell_len, names)]), max(_NAME, free - _PAUSED))
        reasons = free - name >= _REASON
        made = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")
        made.add_column("queue", no_wrap=True, overflow="ellipsis", width=name)
        for title, least in columns.items():
            made.add_column(title, justify="right", no_wrap=True, min_width=least)
        made.add_column("paused", no_wrap=True, overflow="ellipsis", max_width=max(_PAUSED, free - name))
        for row, said in zip(shown, names, strict=True):
            if stats := row.queue.stats:
                cells = _cells(row, stats)
                made.add_row(said, *(cells[title] for title in columns), _pause(stats, self.sample.time, reasons))
        return made


def _free(width: int, columns: dict[str, int], gap: int) -> int:
    """Return how much room columns of numbers leave for the name and the pause."""
    return width - sum(columns.values()) - gap * (len(columns) + 1)


def _line(said: str, style: str = "") -> Text:
    return Text(said, style, no_wrap=True, overflow="ellipsis")


def _facts(server: ServerFacts) -> list[str]:
    nodes = f"{server.nodes} masters, " if server.nodes > 1 else ""
    return [
        f"{nodes}{server.version}",
        f"{server.memory / (1 << 20):,.1f} MiB",
        f"{server.clients:,} client{'' if server.clients == 1 else 's'}",
        f"{server.ops:,} ops/s",
    ]


def _cells(row: Row, stats: Stats) -> dict[str, Text]:
    oldest = oldest_wait(stats)
    return {
        "waiting": _number(_count(stats.waiting)),
        "change/s": _number("" if row.change is None else _rate(row.change, "+")),
        "done/s": _number("" if row.done is None else _rate(row.done)),
        "failed/s": _number("" if row.failed is None else _rate(row.failed), "yellow"),
        "leased": _number(_count(stats.leased)),
        "delayed": _number(_count(stats.delayed)),
        "dead": _number(_count(stats.dead), "red"),
        "oldest": _number("" if oldest is None else span(oldest)),
    }


def _number(said: str, style: str = "") -> Text:
    return Text(said, "dim" if said == "0" else style)


def _count(number: int) -> str:
    """Return a number in at most six characters."""
    if number < 100_000:
        return f"{number:,}"
    for unit, size in (("k", 1e3), ("M", 1e6), ("G", 1e9)):
        if number < 999.5 * size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0e}"


def _rate(number: float, sign: str = "") -> str:
    if abs(number) < 0.05:
        return "0"
    said = f"{abs(number):.1f}" if abs(number) < 9.95 else _count(round(abs(number)))
    return ("-" if number < 0 else sign) + said


def _pause(stats: Stats, now: float, reason: bool) -> Text:
    if not stats.paused:
        return Text()
    until = stats.paused_until
    said = "yes" if until is None else span(max(0.0, until - now))
    return Text(f"{said}: {line(stats.pause_reason)}" if reason and stats.pause_reason else said, "yellow")


def _unread(row: Row) -> Text:
    return _line(f"{line(row.queue.info.name)} {unreadable(row.queue)}", "red")
