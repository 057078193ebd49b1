"""Measure what grows with a queue: time per call, and bytes.

    python -m benchmarks.growth [--quick]

Times are the server's own, from `INFO commandstats`: no client, no socket. Each size of a queue has a private server of
its own, all at once, so that the sizes are measured in turns; a time is that of the fastest of several small batches,
because whatever else runs on the machine can only add to it. Without `--quick`, the result is also written to
`benchmarks/results/growth.json`. How long one call can hold the server is counted by `benchmarks.growth.blocking_time`.
"""

from __future__ import annotations

import contextlib
from typing import Any

from ..measure import Claim, Effort, environment, private_server
from .calls import ready_server
from .memory import memory
from .sizes import DIMENSIONS, dimension

TARGET_BYTES = 1.02


def run(effort: Effort) -> dict[str, Any]:
    """Measure growth and memory, each on servers of its own."""
    growth, rounds, count = [], effort.of(2, 6), effort.of(5_000, 100_000)
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(private_server()) for _ in range(effort.of(2, 6))]
        facts = environment(servers[0])
        clients = [ready_server(server, stack) for server in servers]
        for kind, title, low, high, state in DIMENSIONS:
            sizes = [10**power for power in effort.of((low, low + 2), tuple(range(low, high + 1)))]
            growth += dimension(clients, kind, title, sizes, state, rounds)
    return {
        "environment": facts,
        "quick": effort.quick,
        "rounds": rounds,
        "growth": growth,
        "memory": memory(count),
    }


def claims(result: dict[str, Any]) -> list[Claim]:
    """Say what the documentation says of this part; a quick run, on a busy machine, only sees what is far off."""
    slack = 4.0 if result["quick"] else 1.0
    worst = max(row["fitted_ratio"] / row["log_ratio"] for row in result["growth"])
    found = [Claim("growth: an operation's time / log N, the worst", [worst], slack, at_most=True)]
    for title, ratio in result["memory"]["ratios"].items():
        found.append(Claim(f"growth: bytes of {title}", [ratio["used_memory"]], TARGET_BYTES, at_most=True))
    return found


def table(result: dict[str, Any]) -> str:
    """Lay the result out for people."""
    lines = ["server us per call, by size; growth: the largest size's over the smallest's, log N grows by"]
    title = None
    for row in result["growth"]:
        if title != (row["structure"], row["grows"]):
            title = (row["structure"], row["grows"])
            sizes = "".join(f"{f'10^{len(size) - 1}':>7}" for size in row["usec"])
            lines += ["", f"{f'{title[0]}: {title[1]}':<34}{sizes}   growth  log N  exponent"]
        times = "".join(f"{time:>7.3g}" for time in row["usec"].values())
        figures = f"{row['ratio']:>9.2f}{row['log_ratio']:>7.2f}{row['exponent']:>10.3f}"
        lines.append(f"{row['operation']:<34}{times}{figures}")
    lines += ["", "memory"]
    for what, ratio in result["memory"]["ratios"].items():
        lines.append(f"{what:<86}{ratio['used_memory']:>7.3f}{ratio['MEMORY USAGE']:>7.3f}")
    lines += [f"{what:<86}{cost:>7.0f} bytes" for what, cost in result["memory"]["bytes"].items()]
    return "\n".join(lines)
