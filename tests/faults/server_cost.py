"""What each call costs the server: the commands that its script makes, and for how long the server is held."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any, TypeVar

import redis

from redisq.core.scripts import load

from . import settings

R = TypeVar("R")

HELD = 5_000  # µs
SLACK = 3  # a test tells what holds the server for long; the ms themselves are for the benchmarks, on a quiet machine
_OWN = ("evalsha", "eval", "config", "slowlog", "info", "latency")
_SEEN = 200  # µs from which a call is in the slow log
_COMMANDS = {"command", "fast-command"}

# Makes, pushes, reads and frees 5,000 items: 2.5 ms on the machine for which the 5 ms are stated, when it is quiet.
RULER = """
    local items = {}
    for i = 1, 5000 do items[i] = string.format('item %027d', i) end
    for i = 1, 5000, 1000 do redis.call('RPUSH', KEYS[1], unpack(items, i, i + 999)) end
    local read = redis.call('LRANGE', KEYS[1], 0, -1)
    redis.call('UNLINK', KEYS[1])
    return #read"""
RULED = 2_500  # µs


class ServerCost:
    """What calls cost a server that does nothing else, or next to nothing.

    Commands are exact: they say whether the work grows with the queue. Times are the server's own. Its latency monitor
    names what held it for 5 ms, scripts or anything else, such as keys that expire or a list that is freed; its slow
    log has the same times of the scripts, finer and one by one. On a machine that others use too a single time says
    little, so each round's is kept and the best round counts; and a ruler is laid beside each call: where it takes
    longer, because the machine is slower or has no quiet moment, so may the call in proportion.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        client.config_set("slowlog-log-slower-than", _SEEN)
        client.config_set("slowlog-max-len", 100_000)
        client.config_set("latency-monitor-threshold", HELD // 1_000)
        self.work: defaultdict[str, list[float]] = defaultdict(list)
        """of each round the commands of one script call, on average if it is made in pages"""
        self.times: defaultdict[str, list[list[int]]] = defaultdict(list)
        """of each round the µs of each script call that took long enough to be seen; 0 for the others"""
        self.events: defaultdict[str, list[dict[str, int]]] = defaultdict(list)
        """of each round what the latency monitor saw: event -> ms at most"""
        self.rulers: defaultdict[str, list[list[int]]] = defaultdict(list)
        """of each round the µs that the ruler took right after the call; laid once for each page, up to 100 times"""

    def __call__(self, name: str, act: Callable[[], R], script: str = "") -> R:
        """Measure one call of redisq, which may be several script calls; `script`: of this one alone, if others work.

        Then the commands are everybody's, and of the script's calls those that were too short to be seen are not known.
        """
        self._client.config_resetstat()
        self._client.slowlog_reset()
        self._client.latency_reset()
        result = act()
        events: Any = self._client.latency_latest()  # of each: name, time, last, most; newer servers add to these
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
            self._client.eval(RULER, 1, "ruler")
        self.rulers[name].append(self._durations())
        return result

    def _durations(self, part: bytes = b"") -> list[int]:
        slow: list[dict[str, Any]] = self._client.slowlog_get(100_000)
        return [one["duration"] for one in slow if one["command"].startswith(b"EVAL") and part in one["command"]]

    def held(self, name: str) -> int:
        """Return the µs for which this call holds the server: the best round's, of many pages all but the slowest 1 %."""
        return _best(self.times[name])

    def allowed(self, name: str) -> float:
        """Return the µs for which it may hold the server: more where the ruler always took longer as well."""
        return SLACK * HELD * max(1.0, _best(self.rulers[name]) / RULED)

    def besides(self, name: str) -> int:
        """Return the ms for which anything but a command held it, in the best round."""
        return min(
            max((events[event] for event in events.keys() - _COMMANDS), default=0) for events in self.events[name]
        )

    def slow(self) -> dict[str, tuple[int, float, list[dict[str, int]]]]:
        """Return the calls that held the server in every round: for how many µs, what is allowed, and the events."""
        return {
            name: (self.held(name), self.allowed(name), self.events[name])
            for name in self.times
            if max(self.held(name), 1_000 * self.besides(name)) >= self.allowed(name)
        }

    def report(self, what: str) -> None:
        """Print a line for each call."""
        for name, rounds in self.times.items():
            calls = [one for times in rounds for one in times]
            print(
                f"{what:24} {name:28} {self.held(name) / 1000:6.1f} ms held of {self.allowed(name) / 1000:4.1f},"
                f" {max(calls) / 1000:6.1f} at most in {len(calls)} calls; {max(self.work[name]):.0f} commands;"
                f" anything else: {self.besides(name)} ms"
            )


def _best(rounds: list[list[int]]) -> int:
    return min(sorted(times)[math.ceil(len(times) * 0.99) - 1] for times in rounds)
