"""What a person sees: live bars on a terminal, a line now and then elsewhere, and tables at the end."""

from __future__ import annotations

import math
import statistics
import time
from types import TracebackType

from rich.box import SIMPLE_HEAVY
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from ..core.priority import Pushed
from .batching import Batching
from .indexing import BULK, EDIT, Indexing
from .tally import Line, Tally

_LINE_EVERY = 2.0  # seconds, where there is no terminal


class Display:
    """A view of two jobs at work, from `with` to the end of it."""

    def __init__(self, console: Console, indexing: Indexing, batching: Batching) -> None:
        self.console = console
        self._indexing = indexing
        self._batching = batching
        self._began = time.monotonic()
        self._next_line = self._began + _LINE_EVERY
        self._live: Live | None = None

    def __enter__(self) -> Display:
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            self._live = Live(get_renderable=self._bars, console=self.console, refresh_per_second=10)
            self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()
        elif error is None:
            self._line()

    def tick(self) -> None:
        """Print a line if there is no terminal and it is time for one."""
        if not self._live and time.monotonic() >= self._next_line:
            self._next_line += _LINE_EVERY
            self._line()

    def _line(self) -> None:
        seconds = time.monotonic() - self._began
        i, b = self._indexing, self._batching
        say(
            self.console,
            f"{seconds:4.1f} s  {i.indexed:,} indexed, {i.edits} edits; {b.found:,} actions found, {b.sent:,} sent in"
            f" {b.batches} requests, {b.endpoint.refused} refused",
        )

    def _bars(self) -> Table:
        i, b = self._indexing, self._batching
        files = len(i.files)
        waits = [f"{name} {_seconds(statistics.median(i.waits[p]))}" for p, name in _NAMES.items() if i.waits[p]]
        rows: list[tuple[str, int, int, str]] = [
            ("files indexed", i.indexed, i.pushed.total() or files, f"{i.edits} edits overtake the rest"),
            ("", -1, 0, f"median wait: {', '.join(waits)}" if waits else "starting the processes"),
            ("files read", b.files, files, f"{b.found:,} functions and classes"),
            ("actions sent", b.sent, b.found, f"{b.batches} requests, {b.endpoint.refused} refused"),
        ]
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="bold", no_wrap=True)
        grid.add_column(width=max(5, min(30, self.console.width - 72)))
        grid.add_column(justify="right", no_wrap=True, min_width=13)
        grid.add_column(style="dim", no_wrap=True, min_width=36)
        for label, done, total, note in rows:
            if done < 0:
                grid.add_row(label, "", "", note)
            else:
                grid.add_row(label, ProgressBar(total or 1, done), f"{done:,}/{total:,}", note)
        return grid


_NAMES = {EDIT: "edits", BULK: "bulk"}


def say(console: Console, text: str, style: str = "") -> None:
    """Print one line as it is: whole, and without reading marks into it."""
    console.print(escape(text), style=style, soft_wrap=True, highlight=False)


def show_waits(console: Console, indexing: Indexing) -> None:
    """Print how long edits waited for a consumer, and how long the rest."""
    table = Table(title="From push to hand-over", title_justify="left", box=SIMPLE_HEAVY)
    table.add_column("")
    for name in ("priority", "deliveries", "median", "p99", "longest"):
        table.add_column(name, justify="right")
    for priority, name in _NAMES.items():
        waits = sorted(indexing.waits[priority])
        if waits:
            picked = (statistics.median(waits), waits[math.ceil(0.99 * len(waits)) - 1], waits[-1])
            table.add_row(name, str(priority), str(len(waits)), *map(_seconds, picked))
    console.print(table)
    added, raised, kept = (indexing.outcomes[outcome] for outcome in (Pushed.ADDED, Pushed.RAISED, Pushed.KEPT))
    text = f"{indexing.edits} edits: {raised} raised a waiting file, {added} added it anew, {kept} met an earlier edit"
    say(console, text)


def show_requests(console: Console, batching: Batching) -> None:
    """Print how near the requests came to the endpoint's limit."""
    endpoint = batching.endpoint
    busiest = f"at most {endpoint.busiest} in any {endpoint.per:g} s, the endpoint allows {endpoint.limit}"
    say(console, f"{endpoint.taken} requests; {busiest}")


def show_search(console: Console, words: str, hits: list[tuple[str, str]]) -> None:
    """Print what a search found."""
    say(console, f"Search for '{words}':" + ("" if hits else " nothing in these files"))
    for path, place in hits:
        say(console, f"  {path}: {place}")


def show_tally(console: Console, tally: Tally) -> None:
    """Print the tally, and what is wrong with it."""
    table = Table(title="Tally", title_justify="left", box=SIMPLE_HEAVY)
    table.add_column("job", no_wrap=True)
    for name in ("pushed", "= done", "+ waiting", "again", "lost", "twice", "refused"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in tally.lines:
        bad = "" if line.complete else "bold red"
        table.add_row(
            line.job,
            f"{line.pushed.total():,}",
            f"{line.done.total() - line.repeated:,} {line.done_as}",
            *(f"{n:,}" for n in (line.waiting, line.again.total(), line.lost, line.twice, line.refused)),
            style=bad,
        )
    console.print(table)
    for line in tally.lines:
        if line.again:
            text = f"{line.job}: a process was killed with -9 in the middle; {_redelivered(line)}"
            say(console, f"{text}, as at-least-once allows; 'twice' counts repeats without a kill")
    for fault in tally.faults:
        say(console, f"wrong: {fault}", "bold red")
    if not tally.faults:
        say(console, "Both queues pass their audit; the index has the newest text of every file.")
    if tally.complete:
        say(console, "Everything is accounted for.", "bold green")
    else:
        say(console, "NOT everything is accounted for.", "bold red")


def _redelivered(line: Line) -> str:
    again, repeated = line.again.total(), line.repeated
    if again == 1:
        return f"1 redelivered, {'and' if repeated else 'but not'} {line.done_as} once more"
    were = "none was" if not repeated else "1 was" if repeated == 1 else f"{repeated:,} were"
    return f"{again:,} redelivered, of which {were} {line.done_as} once more"


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"
