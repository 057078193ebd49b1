"""What each call costs the server: the commands that its script makes, and how long the script holds the server."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any, TypeVar

import redis

from redisq.scripts import load

R = TypeVar("R")

_OWN = ("evalsha", "eval", "config", "slowlog", "info")
_SEEN = 200  # µs from which a call is in the slow log


class Meter:
    """Measure calls on a server that does nothing else, or next to nothing.

    Commands are exact: they say whether the work grows with the queue. Times are what the server's slow log says; on a
    machine that others use too a single one says little, so each round's is kept and the best round counts.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        client.config_set("slowlog-log-slower-than", _SEEN)
        client.config_set("slowlog-max-len", 100_000)
        self.work: dict[str, float] = {}
        """commands of one script call, on average if it is made in pages; the most of all rounds"""
        self.times: defaultdict[str, list[list[int]]] = defaultdict(list)
        """of each round the µs of each script call that took long enough to be seen; 0 for the others"""

    def __call__(self, name: str, act: Callable[[], R], script: str = "") -> R:
        """Measure one call of redisq, which may be several script calls; `script`: of this one alone, if others work.

        Then the commands are everybody's, and of the script's calls those that were too short to be seen are not known.
        """
        self._client.config_resetstat()
        self._client.slowlog_reset()
        result = act()
        counts: dict[str, int] = defaultdict(int)
        for command, stats in self._client.info("commandstats").items():
            counts[command.removeprefix("cmdstat_").partition("|")[0]] += stats["calls"]
        calls = counts["evalsha"] + counts["eval"]
        slow: list[dict[str, Any]] = self._client.slowlog_get(100_000)
        sha = load(script).sha.encode() if script else b""
        times = [
            entry["duration"] for entry in slow if entry["command"].startswith(b"EVAL") and sha in entry["command"]
        ]
        self.work[name] = max(
            self.work.get(name, 0), sum(n for command, n in counts.items() if command not in _OWN) / calls
        )
        self.times[name].append(times or [0] if script else [*times, *[0] * (calls - len(times))])
        return result

    def held(self, name: str) -> int:
        """Give the µs for which this call holds the server: the best round's, of many pages all but the slowest 1 %."""
        return min(sorted(times)[math.ceil(len(times) * 0.99) - 1] for times in self.times[name])

    def report(self, what: str) -> None:
        """Print a line for each call."""
        for name, rounds in self.times.items():
            calls = [one for times in rounds for one in times]
            print(
                f"{what:24} {name:28} {self.held(name) / 1000:6.1f} ms held, {max(calls) / 1000:6.1f} at most"
                f" in {len(calls)} calls; {self.work[name]:.0f} commands"
            )
