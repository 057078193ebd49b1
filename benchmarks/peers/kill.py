"""Kill a worker while it holds items, and see when another runs them again: `python -m benchmarks.peers.kill`.

Five items are pushed; a worker whose handler never ends begins on the first ones and is killed with -9, forks and all;
a second worker takes over, and a new item comes each second, since some peers look for the dead only when there is
traffic. All peers wait at the same time. The result, which `run` reads, is `benchmarks/results/peers_kill.json`.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import time
from pathlib import Path

from benchmarks.measure import private_server, write
from benchmarks.peers import cases, processes, setup

ITEMS = 5
MODES = {
    "redisq": ("PriorityQueue, Worker", "Buffer, Worker", "PriorityQueue, pop"),
    "rq": ("Worker (forks)", "SimpleWorker"),
    "huey": ("RedisHuey",),
    "dramatiq": ("1 thread",),
    "arq": ("max_jobs=10",),
    "saq": ("concurrency=1",),
    "taskiq": ("stream, 1 task", "list, 1 task"),
    "streaq": ("concurrency=1",),
    "tasktiger": ("fork", "sync"),
    "bullmq": ("concurrency=1",),
    "bullmq_node": ("concurrency=1",),
    "sidekiq": ("concurrency=1",),
}


def experiment(peer: cases.Peer, mode: str, binary: Path, patience: float) -> dict[str, object]:
    """Kill a worker of one peer, and wait for what becomes of its items."""
    with processes.site(setup.prepare(peer), peer.name, mode, binary) as site:
        site.push(ITEMS)
        first = site.start("work", record="before", hold=24 * 3600)
        until = time.monotonic() + 30
        while not site.entries("before") and time.monotonic() < until:
            time.sleep(0.1)
        time.sleep(1)  # what else it takes meanwhile is in its hands, too
        processes.kill(first)
        killed = time.monotonic()
        begun = {entry.item for entry in site.entries("before")}
        if not begun:
            raise RuntimeError(f"{peer.name}, {mode}: no handler began: {site.errors.read_text()[-2000:]}")
        second, pusher = site.start("work"), site.start("push", str(ITEMS), str(10**9), pace=1)
        try:
            while time.monotonic() < killed + patience:
                ran = {entry.item for entry in site.entries()}
                if ran >= set(range(ITEMS)):
                    break
                time.sleep(0.2)
        finally:
            processes.kill(pusher)
            processes.kill(second)
        again = [entry.at - killed for entry in site.entries() if entry.item in begun]
        ran = {entry.item for entry in site.entries()}
    if begun <= ran:
        redelivered = f"after {max(again):.0f} s"
    elif again:
        redelivered = f"in part: {len(begun & ran)} of {len(begun)}"
    else:
        redelivered = f"no, not within {patience:.0f} s"
    return {
        "peer": peer.name,
        "mode": mode,
        "version": setup.version(peer),
        "held": len(begun),
        "redelivered": redelivered,
        "of the others not run": ITEMS - len(begun | (ran & set(range(ITEMS)))),
    }


def main() -> None:
    """Run all experiments at once, print and write what came of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.kill", description=__doc__.split("\n")[0])
    parser.add_argument("--patience", type=float, default=720.0, metavar="SECONDS", help="how long to wait")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these peers, and nothing is written")
    options = parser.parse_args()
    peers = [peer for peer in cases.PEERS if not options.only or peer.name in options.only]
    try:
        for peer in peers:
            setup.prepare(peer)  # one after the other, and what is missing is said before anything waits
    except setup.Missing as error:
        parser.exit(1, f"{error}\n")
    with private_server() as server:
        binary = server.binary
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        runs = [
            pool.submit(experiment, peer, mode, binary, options.patience) for peer in peers for mode in MODES[peer.name]
        ]
        results = [run.result() for run in runs]
    for result in results:
        print(f"{result['peer']:<12} {result['mode']:<24} held {result['held']}, {result['redelivered']}")
    if not options.only:
        write("peers_kill", {"patience": options.patience, "results": results})


if __name__ == "__main__":
    main()
