"""How numbers, names and times are written on the pages."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ..core.documents import oldest_wait
from ..core.durations import span
from .acts import new_token
from .names import shown, shown_markup, to_segment
from .payloads import Payload
from .sampler import HISTORY, TICK, Point, Sample

SORTS = ("name", "waiting", "oldest", "leased", "delayed", "dead", "done")
_WIDTH, _HEIGHT = 96, 24  # of a sparkline


def environment() -> jinja2.Environment:
    """Return the templates; whatever they are given is escaped."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        name=shown_markup,
        shown=shown,
        segment=to_segment,
        span=span,
        num=number,
        rate=rate,
        size=size,
        time=time_tag,
        payload=Payload,
        preview=preview,
        priority=priority,
        brief=brief,
    )
    made.globals.update(
        token=new_token, sparkline=sparkline, chart=chart, oldest_wait=oldest_wait, infinity=float("inf")
    )
    return made


def preview(data: bytes) -> Markup:
    """Write the beginning of a payload on one line, in front of the whole."""
    cut = data[:200].decode("utf-8", "backslashreplace").replace("\n", " ")
    return shown_markup(cut + "…" if len(data) > 200 else cut)


def number(value: int) -> str:
    """Write a number with its thousands apart."""
    return f"{value:,}"


def rate(value: float | None) -> str:
    """Write how much a second, with two digits where there are few."""
    if value is None:
        return "\u2013"
    return f"{value:,.0f}" if abs(value) >= 9.95 or value == 0 else f"{value:.1f}"


def priority(value: float | None) -> str:
    """Write a priority."""
    return "\u2013" if value is None else f"{value:.15g}"


def brief(value: float | None) -> str:
    """Write a priority in a narrow column."""
    return priority(value) if value is None or float(value).is_integer() else f"{value:.6g}"


def size(count: int) -> str:
    """Write a number of bytes."""
    if count < 1_000:
        return f"{count} B"
    return f"{count / 1e3:,.1f} kB" if count < 1e6 else f"{count / 1e6:,.1f} MB"


def time_tag(seconds: float) -> Markup:
    """Write a Unix time: in UTC, which the page's script turns into the reader's own zone."""
    try:
        moment = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    except (ValueError, OverflowError, OSError):  # a clock that was wrong by millennia
        return Markup("<span>{}</span>").format(f"{seconds:.0f}")
    return Markup('<time datetime="{}">{} UTC</time>').format(
        moment.isoformat(timespec="milliseconds"), moment.strftime("%Y-%m-%d %H:%M:%S")
    )


def _scaled(points: Sequence[Point], values: Sequence[float], width: int, height: int) -> list[tuple[float, float]]:
    most, last = max(1e-9, *values), points[-1].time
    length = max(HISTORY * TICK, last - points[0].time)
    return [
        (width - (last - point.time) / length * width, height - 1 - value / most * (height - 3))
        for point, value in zip(points, values, strict=True)
    ]


def _corners(places: Sequence[tuple[float, float]]) -> list[tuple[str, str]]:
    """Return the ends of a line, and the points at which it bends."""
    texts = [(f"{x:.0f}", f"{y:.1f}") for x, y in places]
    return [
        one
        for place, one in enumerate(texts)
        if place in (0, len(texts) - 1) or not texts[place - 1][1] == one[1] == texts[place + 1][1]
    ]


def sparkline(one: Sample) -> Markup:
    """Draw what was done a second."""
    points = list(one.history)[1:]  # no rate is known of the first
    return _drawn(points, [point.done for point in points], "done a second", _WIDTH, _HEIGHT)


def chart(one: Sample, what: str) -> Markup:
    """Draw what waited, or was done a second, larger."""
    points = list(one.history)
    if what == "done":
        return _drawn(points[1:], [point.done for point in points[1:]], "done a second", 320, 48)
    return _drawn(points, [float(point.waiting) for point in points], "waiting", 320, 48)


def _drawn(points: Sequence[Point], values: Sequence[float], what: str, width: int, height: int) -> Markup:
    if len(points) < 2:
        return Markup(
            '<svg class="spark" viewBox="0 0 {0} {1}" role="img" aria-label="{2}: no history yet"></svg>'
        ).format(width, height, what)
    places = _corners(_scaled(points, values, width, height))
    length = max(10, round(points[-1].time - points[0].time, -1))
    label = f"{what}: {rate(min(values))} to {rate(max(values))} in the last {span(length)}"
    if min(values) == max(values):  # it stays the same, so that it is not sent again
        places = [("0", places[0][1]), (str(width), places[0][1])]
        label = f"{what}: {rate(values[0])} all the time"
    line = " ".join(f"{x},{y}" for x, y in places)
    area = f"{places[0][0]},{height} {line} {places[-1][0]},{height}"
    return Markup(
        '<svg class="spark" viewBox="0 0 {0} {1}" preserveAspectRatio="none" role="img" aria-label="{2}">'
        '<polygon points="{3}"/><polyline points="{4}" vector-effect="non-scaling-stroke"/></svg>'
    ).format(width, height, label, area, line)


@dataclass(frozen=True)
class Column:
    """A column of the overview by which it can be sorted."""

    name: str
    title: str
    about: str


COLUMNS = (
    Column("name", "Queue", "By name"),
    Column("waiting", "Waiting", "Items, or members, that wait to be handed out"),
    Column("oldest", "Oldest", "For how long the group that has waited longest was not served; buffers only"),
    Column("leased", "Leased", "Batches of a buffer, or members, that workers hold"),
    Column("delayed", "Delayed", "What was given back, and is due now or later"),
    Column("dead", "Dead", "Dead letters: batches of a buffer, or members"),
    Column("done", "Done/s", "Acked a second, between the last two looks"),
)


def ordered(samples: Sequence[Sample], sort: str) -> list[Sample]:
    """Return samples by one column, the greatest first; those that cannot be read come last."""

    def key(one: Sample) -> Any:
        if one.stats is None:
            return (1, 0.0, one.info)
        if sort == "name":
            return (0, 0.0, one.info)
        if sort == "oldest":
            value = oldest_wait(one.stats)
        elif sort == "done":
            value = one.rates.done
        else:
            value = getattr(one.stats, sort)
        return (0, -(-1.0 if value is None else value), one.info)

    return sorted(samples, key=key)


_ROW = re.compile(r'<tr id="([^"]*)">.*?</tr>', re.DOTALL)  # of the overview; what is in it is escaped


def thinned(part: str, before: dict[str, str]) -> tuple[str, dict[str, str]]:
    """Return the overview without the cells of rows that are as they were, and all its rows.

    Such a row is left empty; the page's script fills it with the cells that it has.
    """
    rows: dict[str, str] = {}

    def row(match: re.Match[str]) -> str:
        rows[match[1]] = match[0]
        return f'<tr id="{match[1]}"></tr>' if before.get(match[1]) == match[0] else match[0]

    return _ROW.sub(row, part), rows
