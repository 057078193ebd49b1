"""`redisq top`: all queues on one page of the terminal, again and again."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException
from redis.retry import Retry

from ..core.clients import remedy_for
from ..core.documents import overview_json, time_json
from .command import Commands, describe, json_option
from .connection import connected, place, prefix_options, url_of
from .durations import duration, span
from .keys import Pressed, keys
from .output import console, line, show, show_json
from .samples import SORTS, Row, Sample, Sampler, rows

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

    from .top_page import Page

_ANSWER_WITHIN = 3.0  # seconds, so that a server that hangs is said to
_LOOK_UP = 0.25  # seconds after which a new size of the terminal is noticed


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Describe the command."""
    parser = describe(
        commands,
        "top",
        run,
        summary="show all queues live, on one page",
        text="Show all queues of a server or a cluster on one page that is renewed until q or Ctrl-C: what waits and "
        "how fast that changes, what is done and fails a second, what is leased, delayed and dead, the oldest wait, "
        "and pauses. New queues appear within half a minute. While Redis is unavailable it says so and tries again. "
        "Where there is no terminal, it measures once and prints one page.",
        example="redisq top\nredisq top --sort oldest --every 5s\nredisq top --json | jq '.queues[].done_per_second'",
        options=prefix_options(),
    )
    parser.add_argument("--sort", choices=SORTS, default="waiting", help="sort order (%(default)s)")
    parser.add_argument(
        "--every", type=duration(0.1, 3_600), default=2.0, metavar="TIME", help="how often to look (2s)"
    )
    json_option(parser, "measure once, and print one JSON document")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    retry: Any = Retry(NoBackoff(), 1)  # this command tries again itself
    options = {"socket_timeout": _ANSWER_WITHIN, "socket_connect_timeout": _ANSWER_WITHIN, "retry": retry}
    with connected(url_of(args), **options) as client:
        view = _View(Sampler(client, args.prefix), args)
        view.look()
        if args.json:
            _measure(view)
            show_json(view.document())
            return 0
        out = console()
        if out.is_terminal and not out.is_dumb_terminal:
            _follow(view, out)
        else:
            _measure(view)
            show(out, view.page().render())
    return 0


class _View:
    """The last sample and the one before, from which rates are known."""

    def __init__(self, sampler: Sampler, args: argparse.Namespace) -> None:
        self._sampler = sampler
        self._where = place(url_of(args))
        self.sort, self.every = args.sort, args.every
        self._sample: Sample | None = None
        self._before: Sample | None = None
        self._at = 0.0
        self._outage = ""

    def look(self) -> None:
        """Read a sample; if Redis is unavailable, keep the one that is there."""
        try:
            self._sample, self._before = self._sampler.look(), self._sample
            self._at, self._outage = time.time(), ""
        except (redis.RedisError, RedisClusterException) as error:
            if self._sample is None or remedy_for(error):
                raise
            self._outage = f"Redis is unavailable, trying again every {span(self.every)}: {line(str(error))}"

    def page(self, keys: str = "") -> Page:
        """Return what is to be shown."""
        from .top_page import Page

        sample, found = self._rows()
        about = f"sorted by {self.sort}, every {span(self.every)}{keys}"
        return Page(self._where, sample, found, self._at, about, self._outage)

    def document(self) -> dict[str, Any]:
        """Return the same for programs."""
        sample, found = self._rows()
        server = asdict(sample.server) if sample.server else {}
        return {
            "server": self._where,
            **server,
            "time": time_json(sample.time),
            "queues": [
                {
                    **overview_json(row.queue),
                    "change_per_second": row.change,
                    "done_per_second": row.done,
                    "failed_per_second": row.failed,
                }
                for row in found
            ],
        }

    def _rows(self) -> tuple[Sample, list[Row]]:
        assert self._sample, "look first"
        return self._sample, rows(self._sample, self._before, self.sort)


def _measure(view: _View) -> None:
    time.sleep(view.every)
    view.look()


def _follow(view: _View, out: Console) -> None:
    """Show the page until it is ended."""
    from rich.live import Live

    with _restored(), keys() as pressed, Live(console=out, screen=True, auto_refresh=False) as live:
        while _shown(view, live, pressed):
            view.look()


def _shown(view: _View, live: Live, pressed: Pressed) -> bool:
    """Show what there is until the next sample is due; return whether to go on."""
    due, shown = time.monotonic() + view.every, None
    while (left := due - time.monotonic()) > 0:
        size = live.console.size
        if shown != (size, view.sort):
            live.update(view.page("; q quits, s sorts").render(*size), refresh=True)
            shown = size, view.sort
        key = pressed(min(left, _LOOK_UP))
        if key == "q":
            return False
        if key == "s":
            view.sort = SORTS[(SORTS.index(view.sort) + 1) % len(SORTS)]
    return True


@contextlib.contextmanager
def _restored() -> Iterator[None]:
    """End by an exception when we are told to, so that the terminal is as before."""

    def end(number: int, _: object) -> None:
        sys.exit(128 + number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
