"""What each call costs the server: the commands of its script, and for how long it blocks the server."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any, TypeVar

import redis

from redisq.core.scripts import load

from . import settings

R = TypeVar("R")

LIMIT = 5_000  # µs
SLACK = 3  # the test finds calls that block for long; exact times are for the benchmarks, on a quiet machine
_OWN = ("evalsha", "eval", "config", "slowlog", "info", "latency")
_LOGGED = 200  # µs from which a call is in the slow log
_COMMANDS = {"command", "fast-command"}

# Creates, pushes, reads and frees 5,000 items: 2.5 ms on the machine for which the 5 ms are stated, when it is idle.
REFERENCE = """
    local items = {}
    for i = 1, 5000 do items[i] = string.format('item %027d', i) end
    for i = 1, 5000, 1000 do redis.call('RPUSH', KEYS[1], unpack(items, i, i + 999)) end
    local read = redis.call('LRANGE', KEYS[1], 0, -1)
    redis.call('UNLINK', KEYS[1])
    return #read"""
REFERENCE_TIME = 2_500  # µs


class ServerCost:
    """What calls cost a server that is otherwise idle, or nearly so.

    Command counts are exact: they show whether the work grows with the queue. Times are the server's own. Its latency
    monitor reports everything that blocked it for 5 ms, scripts or anything else, such as expiring keys or freeing a
    list; its slow log has the times of single script calls, in more detail. On a shared machine a single time means
    little, so every round is kept and the best one counts; and a reference script is timed after each call: if it
    always takes longer, because the machine is slower or never idle, the call may take longer in proportion.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        client.config_set("slowlog-log-slower-than", _LOGGED)
        client.config_set("slowlog-max-len", 100_000)
        client.config_set("latency-monitor-threshold", LIMIT // 1_000)
        self.work: defaultdict[str, list[float]] = defaultdict(list)
        """for each round the commands of one script call, on average if it is made in pages"""
        self.times: defaultdict[str, list[list[int]]] = defaultdict(list)
        """for each round the µs of each script call that is in the slow log; 0 for the others"""
        self.events: defaultdict[str, list[dict[str, int]]] = defaultdict(list)
        """for each round the events of the latency monitor: event -> longest ms"""
        self.references: defaultdict[str, list[list[int]]] = defaultdict(list)
        """for each round the µs of the reference script right after the call, once for each page, up to 100 times"""

    def __call__(self, name: str, act: Callable[[], R], script: str = "") -> R:
        """Measure one call of redisq, which may be several script calls; `script`: only this one, if others work.

        Then the commands include those of others, and script calls too short for the slow log are not counted.
        """
        self._client.config_resetstat()
        self._client.slowlog_reset()
        self._client.latency_reset()
        result = act()
        events: Any = self._client.latency_latest()  # each is name, time, latest ms, longest ms; newer servers add more
        self.events[name].append({event.decode(): most for event, _, _, most, *_ in events})
        counts: dict[str, int] = defaultdict(int)
        for command, stats in self._client.info("commandstats").items():
            counts[command.removeprefix("cmdstat_").partition("|")[0]] += stats["calls"]
        calls = counts["evalsha"] + counts["eval"]
        times = self._durations(load(script).sha.encode() if script else b"")
        self.work[name].append(sum(n for command, n in counts.items() if command not in _OWN) / calls)
        times = times or [0] if script else [*times, *[0] * (calls - len(times))]
        self.times[name].append(times)
        self._client.slowlog_reset()
        for _ in times[: settings.pick(1, 100)]:
            self._client.eval(REFERENCE, 1, "ruler")
        self.references[name].append(self._durations())
        return result

    def _durations(self, part: bytes = b"") -> list[int]:
        slow: list[dict[str, Any]] = self._client.slowlog_get(100_000)
        return [one["duration"] for one in slow if one["command"].startswith(b"EVAL") and part in one["command"]]

    def blocked_for(self, name: str) -> int:
        """Return the µs for which this call blocks the server in the best round: the 99th percentile of its pages."""
        return _best(self.times[name])

    def allowed(self, name: str) -> float:
        """Return the µs for which it may block the server: more if the reference script always took longer, too."""
        return SLACK * LIMIT * max(1.0, _best(self.references[name]) / REFERENCE_TIME)

    def other_events(self, name: str) -> int:
        """Return the ms for which anything but a command blocked it, in the best round."""
        return min(
            max((events[event] for event in events.keys() - _COMMANDS), default=0) for events in self.events[name]
        )

    def slow(self) -> dict[str, tuple[int, float, list[dict[str, int]]]]:
        """Return the calls that blocked the server for too long in every round: µs, µs allowed, and events."""
        return {
            name: (self.blocked_for(name), self.allowed(name), self.events[name])
            for name in self.times
            if max(self.blocked_for(name), 1_000 * self.other_events(name)) >= self.allowed(name)
        }

    def report(self, what: str) -> None:
        """Print a line for each call."""
        for name, rounds in self.times.items():
            calls = [one for times in rounds for one in times]
            print(
                f"{what:24} {name:28} {self.blocked_for(name) / 1000:6.1f} ms of {self.allowed(name) / 1000:4.1f},"
                f" {max(calls) / 1000:6.1f} at most in {len(calls)} calls; {max(self.work[name]):.0f} commands;"
                f" anything else: {self.other_events(name)} ms"
            )


def _best(rounds: list[list[int]]) -> int:
    return min(sorted(times)[math.ceil(len(times) * 0.99) - 1] for times in rounds)
