"""The documentation's tables, from the results: what stands between `<!-- bench: name -->` and `<!-- end -->`."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from .measure import RESULTS, VERDICTS

ROOT = Path(__file__).parent.parent
PAGES = (
    ROOT / "docs" / "benchmarks.md",
    ROOT / "docs" / "instructions.md",
    ROOT / "docs" / "operations" / "sizing.md",
    ROOT / "lua" / "README.md",
)
MARKED = re.compile(r"(<!-- bench: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def _result(part: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((RESULTS / f"{part}.json").read_text())
    return result


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---" if number == 0 else "---:" for number in range(len(columns))], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:g}"


def contention() -> str:
    """Show pops at three numbers of workers, and what each contender got wrong."""
    rows = [row for row in _result("contention")["results"] if row["operation"] == "pop"]
    chosen = [row for row in rows if row["workers"] in (1, 8, 32) and row["line"] == "unix socket"]
    cells: dict[str, list[str]] = {}
    for row in chosen:
        line = cells.setdefault(row["contender"], [row["contender"]])
        line.append(_number(row["per_second"]["median"]))
        if row["workers"] == 32:
            line += [_number(row["p99_ms"]), _number(row["round_trips_per_op"])]
            line.append(_number(sum(each["twice"] for each in rows if each["contender"] == row["contender"])))
    columns = ["pops a second, workers:", "1", "8", "32", "p99 at 32, ms", "round trips a pop at 32", "popped twice"]
    return _table(columns, cells.values())


def flush() -> str:
    """Show flush ticks, and the API calls that came of them."""
    rows = [row for row in _result("flush")["results"] if row["operation"] == "tick"]
    cells: dict[str, list[str]] = {}
    for row in rows:
        line = cells.setdefault(row["contender"], [row["contender"]])
        if row["workers"] in (1, 16):
            line.append(_number(row["per_second"]["median"]))
        if row["workers"] == 16:
            mine = [each for each in rows if each["contender"] == row["contender"]]
            line += [_number(row["round_trips_per_op"]), _number(sum(each["api_calls"] for each in mine))]
            line += [_number(sum(each[what] for each in mine)) for what in ("empty", "doubled")]
    return _table(
        ["ticks a second, flushers:", "1", "16", "round trips a tick", "API calls", "of them empty", "of them doubled"],
        cells.values(),
    )


def best_modes() -> list[dict[str, Any]]:
    """Give the best that each peer does, one item at a time and in batches, for each promise; the fastest first.

    redisq stands there with its worker too, as the peers do; only for `pop` it has none.
    """
    best: dict[tuple[str, str, bool], dict[str, Any]] = {}
    for row in _result("peers")["results"]:
        if not row["worker"] and row["guarantee"] != "at most once":
            continue
        kind = (row["peer"], row["guarantee"], row["batch"] > 1)
        if kind not in best or row["total_per_second"]["median"] > best[kind]["total_per_second"]["median"]:
            best[kind] = row
    return sorted(best.values(), key=lambda row: -float(row["total_per_second"]["median"]))


def _peer(row: dict[str, Any]) -> str:
    if row["peer"] == "redisq":
        return "**redisq**"
    version = row["version"].partition(",")[0]
    return f"{version} for Node" if row["peer"].endswith("_node") else version


def peers() -> str:
    """Show the best that each peer does, and what it promises."""
    lines = []
    for row in best_modes():
        commands = row["commands_per_item"] or {"enqueue": 0, "work": 0}
        lines.append(
            [
                f"{_peer(row)}, {row['mode']}",
                row["guarantee"],
                _number(row["total_per_second"]["median"]),
                f"{commands['enqueue']:.3g} + {commands['work']:.3g}",
                row["redelivered"],
            ]
        )
    return _table(
        ["best mode of each promise", "promise", "items a second", "commands an item", "redelivered after kill -9"],
        lines,
    )


def claims() -> str:
    """Show every claim, with its spread and its target."""
    lines = []
    for path in sorted(RESULTS.glob("*.json")):
        for claim in json.loads(path.read_text()).get("claims", []):
            figures = f"{claim['median']:g} ({claim['min']:g} to {claim['max']:g})"
            lines.append([claim["claim"], figures, claim["target"], VERDICTS[claim["met"]]])
    return _table(["measured", "median (spread)", "target", "met"], lines)


def blocking_time() -> str:
    """Show the longest that each script was seen to hold the server, by the ruler."""
    worst: dict[str, dict[str, Any]] = {}
    for row in _result("blocking_time")["rows"]:
        if row["script"] not in worst or row["ms"] > worst[row["script"]]["ms"]:
            worst[row["script"]] = row
    lines = [[f"`{name}`", row["call"], f"{row['ms']:.3g}"] for name, row in sorted(worst.items())]
    return _table(["script", "its longest call", "ms"], lines)


def instructions() -> str:
    """Show the instructions of one call of each operation, beside its budget."""
    lines = []
    for row in _result("instructions")["operations"]:
        budget = row.get("budget")
        lines.append(
            [
                f"`{row['name']}`" if "/" in row["name"] else row["name"],
                str(row["size"]),
                f"{row['k_instructions']['median']:,.1f}",
                f"{budget:,}" if budget else "",
            ]
        )
    return _table(["one call", "size", "k instructions", "budget"], lines)


def items() -> str:
    """Show the instructions of a whole item, pushed, taken and done."""
    lines = []
    for row in _result("instructions")["items"]:
        found = row["k_instructions"]
        cells = [f"{found[part]['median']:,.1f}" for part in ("push", "take and done", "whole")]
        lines.append([f"{row['name']} {row['version']}".strip(), str(row["batch"]), *cells])
    return _table(["k instructions for one item", "in batches of", "push", "take and done", "together"], lines)


def server_time() -> str:
    """Show the server's own time for one call of each operation, beside the native commands."""
    rows = [row for row in _result("overhead")["results"] if "native" in row]
    micros: dict[str, float] = {}  # the least of both flavours, which run the same scripts
    for row in rows:
        micros[row["operation"]] = min(row["server_us"], micros.get(row["operation"], math.inf))
    native = {row["operation"]: (row["native_us"], row["native"]) for row in rows}
    lines = [
        [f"`{name}`", f"{found:.3g}", f"{native[name][0]:.2g}", f"`{native[name][1]}`"]
        for name, found in micros.items()
    ]
    return _table(["call of one item", "µs", "µs natively", "by"], lines)


def sizing() -> str:
    """Show the bytes that things take on a server."""
    lines = [[row["what"], f"{row['bytes']:,}"] for row in _result("sizing")["results"]]
    return _table(["what", "bytes"], lines)


TABLES: dict[str, Callable[[], str]] = {
    "contention": contention,
    "flush": flush,
    "peers": peers,
    "claims": claims,
    "blocking_time": blocking_time,
    "instructions": instructions,
    "items": items,
    "server_time": server_time,
    "sizing": sizing,
}


def filled(text: str) -> str:
    """Return a text with its marked tables filled again."""
    return MARKED.sub(lambda match: f"{match[1]}{TABLES[match[2]]()}{match[3]}", text)


def write() -> None:
    """Write the tables."""
    for page in PAGES:
        page.write_text(filled(page.read_text()))


if __name__ == "__main__":
    write()
