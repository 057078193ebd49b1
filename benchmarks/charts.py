"""The three charts that decide, drawn from the results: SVG, light and dark, the same bytes for the same results."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .measure import RESULTS
from .report import best_modes

Theme = dict[str, Any]

CHARTS = RESULTS.parent / "charts"
THEMES: dict[str, Theme] = {
    "light": {
        "ink": "#1f2328",
        "faint": "#d1d9e0",
        "ours": "#cf222e",
        "others": ["#0969da", "#8250df", "#9a6700", "#57606a"],
    },
    "dark": {
        "ink": "#e6edf3",
        "faint": "#3d444d",
        "ours": "#ff7b72",
        "others": ["#58a6ff", "#bc8cff", "#d29922", "#8b949e"],
    },
}
SETTINGS: Any = {
    "svg.hashsalt": "redisq",  # ids within the SVG: the same each time
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def _result(part: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((RESULTS / f"{part}.json").read_text())
    return result


def _paint(axes: Axes, theme: Theme) -> None:
    axes.tick_params(colors=theme["ink"], which="both")
    axes.grid(color=theme["faint"], linewidth=0.5)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_color(theme["faint"])
    for label in (axes.title, axes.xaxis.label, axes.yaxis.label):
        label.set_color(theme["ink"])


def contention(theme: Theme) -> Figure:
    """Draw pops a second by workers, near and a ms away."""
    rows = [row for row in _result("contention")["results"] if row["operation"] == "pop"]
    lines = list(dict.fromkeys(row["line"] for row in rows))
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    colours = dict(zip(("ZPOPMIN", "WATCH", "lock", "read, then remove"), theme["others"], strict=True))
    for number, line in enumerate(lines):
        axes = figure.add_subplot(1, len(lines), number + 1)
        for contender in dict.fromkeys(row["contender"] for row in rows):
            mine = [row for row in rows if row["contender"] == contender and row["line"] == line]
            wrong = any(row["twice"] or row["lost"] for row in mine)
            axes.plot(
                [row["workers"] for row in mine],
                [row["per_second"]["median"] for row in mine],
                color=colours.get(contender, theme["ours"]),
                linewidth=2.4 if contender == "redisq" else 1.4,
                linestyle=":" if wrong else "-",
                marker="o",
                markersize=3.5,
                label=f"{contender} (wrong: pops members twice)" if wrong else contender,
            )
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks([1, 2, 4, 8, 16, 32], ["1", "2", "4", "8", "16", "32"])
        axes.set_title(line, fontsize=10)
        axes.set_xlabel("workers")
        if number == 0:
            axes.set_ylabel("pops a second, all workers")
            axes.legend(labelcolor=theme["ink"], fontsize=8, loc="lower left")
        _paint(axes, theme)
    return figure


def peers(theme: Theme) -> Figure:
    """Draw items a second through each peer, its best mode of each promise, one item at a time and in batches."""
    rows = best_modes()[::-1]
    figure = Figure(figsize=(9, 0.5 + 0.28 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for place, row in enumerate(rows):
        speed = row["total_per_second"]["median"]
        once = row["guarantee"] == "at most once"
        colour = theme["ours"] if row["peer"] == "redisq" else theme["others"][3 if once else 0]
        axes.barh(place, speed, color=colour, alpha=0.55 if once else 1.0, height=0.7)
        axes.text(speed * 1.08, place, f"{speed:,.0f}", va="center", color=theme["ink"], fontsize=8)
    labels = [f"{row['peer'].replace('_node', ' for Node')}: {row['mode']}, {row['guarantee']}" for row in rows]
    axes.set_yticks(range(len(rows)), labels, fontsize=8)
    axes.set_xscale("log")
    axes.margins(x=0.12, y=0.02)
    axes.set_xlabel("items a second, enqueued and done")
    _paint(axes, theme)
    axes.grid(visible=False, axis="y")
    return figure


def growth(theme: Theme) -> Figure:
    """Draw the server's time for one call, by how many items wait."""
    rows = _result("growth")["growth"]
    shown = {
        "buffer": ("buffer", "waiting items", ("push", "pop", "pop_longest", "reserve", "ack")),
        "priority queue": ("priority", "ready members", ("push", "pop", "reserve", "ack", "release")),
    }
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    for number, (title, (structure, grows, operations)) in enumerate(shown.items()):
        axes = figure.add_subplot(1, 2, number + 1)
        colours = [theme["ours"], *theme["others"]]
        for operation, colour in zip(operations, colours, strict=True):
            found = [r for r in rows if (r["structure"], r["grows"], r["operation"]) == (structure, grows, operation)]
            for row in found:
                sizes = [int(size) for size in row["usec"]]
                times = list(row["usec"].values())
                axes.plot(sizes, times, color=colour, marker="o", markersize=3.5, linewidth=1.6, label=operation)
        axes.set_xscale("log")
        axes.set_ylim(0, 1.4 * axes.get_ylim()[1])  # room for the legend
        axes.set_title(f"{title}: {grows}", fontsize=10)
        axes.set_xlabel("items in the queue")
        if number == 0:
            axes.set_ylabel("microseconds of the server, a call")
        axes.legend(labelcolor=theme["ink"], fontsize=8, ncols=3, loc="upper left")
        _paint(axes, theme)
    return figure


DRAWN: dict[str, Callable[[Theme], Figure]] = {"contention": contention, "peers": peers, "growth": growth}


def draw() -> None:
    """Draw each chart whose results are there, in both themes."""
    CHARTS.mkdir(exist_ok=True)
    for name, chart in DRAWN.items():
        if (RESULTS / f"{name}.json").exists():
            for kind, theme in THEMES.items():
                with mpl.rc_context(SETTINGS):
                    metadata = {"Date": None, "Creator": None}  # the same bytes for the same results
                    chart(theme).savefig(CHARTS / f"{name}-{kind}.svg", transparent=True, metadata=metadata)


if __name__ == "__main__":
    draw()
