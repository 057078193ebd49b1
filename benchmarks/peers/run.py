"""Measure the same job through redisq and through its peers: items enqueued, taken, done, by handlers that do nothing.

How: each run has a private server of its own. One process enqueues all items and times that itself, from the first
call to the last. Then one worker process starts, and each handler notes its item and the time (one `write`, the same
for all); the work is timed from the first handler to the last, so neither interpreters nor connecting are billed to
anybody. The rounds are interleaved, in random order. Commands are counted in runs of their own, not timed. All log
warnings only, and all that can use hiredis do. Slow peers get fewer items; `items` of each result says how many.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import RESULTS, Claim, Effort, environment, interleave, private_server, say, significant, spread
from benchmarks.peers import processes, setup
from benchmarks.peers.cases import ASKED, CASES, LEAST, MOST, PEERS, Case, Peer

ITEMS = 20_000
COUNTED = 500  # items of the runs in which commands are counted
PATIENCE = 20.0  # seconds without any item, after which a worker is taken for done
KILLED = RESULTS / "peers_kill.json"
BY_NAME = {peer.name: peer for peer in PEERS}


@dataclass(frozen=True)
class Measurement:
    """The figures of one run."""

    enqueue: float
    work: float
    total: float
    lost: int
    twice: int


@dataclass(frozen=True)
class Commands:
    """The commands of a run, for each item: those that clients sent, and those that scripts called."""

    enqueue: float
    work: float
    enqueue_in_scripts: float
    work_in_scripts: float


def items_of(case: Case, items: int) -> int:
    """Say how many items a case gets."""
    return max(5, round(items * case.share))


def measure(case: Case, count: int, binary: Path) -> Measurement:
    """Push the items, start a worker, and see how long it takes."""
    with processes.site(setup.prepare(BY_NAME[case.peer]), case.peer, case.mode, binary) as site:
        pushing = site.push(count)
        worker = site.start("work")
        try:
            site.wait(count, PATIENCE)
            time.sleep(0.2)  # for what would come twice
        finally:
            processes.kill(worker)
        entries = site.entries()
    first, last = (entries[0].at, max(entry.at for entry in entries)) if entries else (0.0, 0.0)
    # What began with the first handler, a batch of its own, was fetched before the clock started.
    later = sum(entry.at > first for entry in entries)
    work = later / (last - first) if later else 0.0
    distinct = len({entry.item for entry in entries})
    total = 1 / (pushing / count + 1 / work) if work else 0.0
    return Measurement(count / pushing, work, total, lost=count - distinct, twice=len(entries) - distinct)


def count_commands(case: Case, count: int, binary: Path) -> Commands:
    """Run a case once more and count its commands."""
    with processes.site(setup.prepare(BY_NAME[case.peer]), case.peer, case.mode, binary) as site:
        with processes.counting(site.server) as pushing:
            site.push(count)
        with processes.counting(site.server) as working:
            worker = site.start("work")
            try:
                site.wait(count, PATIENCE)
                time.sleep(0.05)
            finally:
                processes.kill(worker)
    sent, called = "sent", "in scripts"
    return Commands(*(round(counts[what] / count, 2) for what in (sent, called) for counts in (pushing, working)))


def redelivered(case: Case) -> str:
    """Say what the kill test (`benchmarks.peers.kill`) found for this peer and promise at this version."""
    if not KILLED.exists():
        return "not tested"
    promises = {(one.peer, one.mode): one.promise for one in CASES}
    found = json.loads(KILLED.read_text())["results"]
    version = setup.version(BY_NAME[case.peer])
    fitting = [one for one in found if one["peer"] == case.peer and one["version"] == version]
    same = [one for one in fitting if one["mode"] == case.mode]
    alike = [one for one in fitting if promises.get((case.peer, one["mode"])) == case.promise]
    return next((str(one["redelivered"]) for one in same + alike), "not tested")


def summary(case: Case, count: int, measurements: Sequence[Measurement], commands: Commands | None) -> dict[str, Any]:
    """Reduce the rounds of one case to medians and spreads."""
    peer = BY_NAME[case.peer]
    return {
        "peer": case.peer,
        "version": setup.version(peer),
        "mode": case.mode,
        "guarantee": case.promise,
        "promise": peer.promise(case.mode),
        "redelivered": redelivered(case),
        "at_once": case.at_once,
        "batch": case.batch,
        "worker": case.worker,
        "items": count,
        "enqueue_per_second": spread([one.enqueue for one in measurements]),
        "work_per_second": spread([one.work for one in measurements]),
        "total_per_second": spread([one.total for one in measurements]),
        "rounds_total_per_second": [significant(one.total) for one in measurements],
        "commands_per_item": asdict(commands) if commands else None,
        "lost": sum(one.lost for one in measurements),
        "twice": sum(one.twice for one in measurements),
    }


def chosen(only: Sequence[str], quick: bool) -> list[Case]:
    """Choose the cases: of the peers named, or of all; when time is short, of those that are installed, and fewer."""

    def fits(case: Case, peer: Peer) -> bool:
        if only:
            return case.peer in only and (case.quick or not quick)
        return not quick or (case.quick and setup.installed(peer))

    return [case for case in CASES if fits(case, BY_NAME[case.peer])]


def missing(cases: Sequence[Case]) -> dict[str, str]:
    """Find the peers for which this machine lacks a program, and say which."""
    found: dict[str, str] = {}
    for name in dict.fromkeys(case.peer for case in cases):
        try:
            setup.prepare(BY_NAME[name])
        except setup.Missing as error:
            found[name] = str(error)
            say(f"left out: {error}")
    return found


def run(effort: Effort, *, only: Sequence[str] = (), items: int = ITEMS) -> dict[str, Any]:
    """Measure, and return the environment and the results, as they stand in `benchmarks/results/peers.json`.

    Quick: one round, 500 items of each case, 10,000 in batches, and only peers that are installed. Peers for which this
    machine lacks a program are left out, and named in the result; if one was asked for, `Missing` is raised.
    """
    cases = chosen(only, effort.quick)
    left_out = {} if only else missing(cases)
    cases = [case for case in cases if case.peer not in left_out]
    counts = {case: min(effort.of(500 if case.batch == 1 else 10_000, items), items_of(case, items)) for case in cases}
    for case in cases:
        setup.prepare(BY_NAME[case.peer])  # so that nothing is installed while time is taken
    with private_server() as server:
        facts, binary = environment(server), server.binary
    rounds = effort.of(1, 5)
    found = interleave(cases, rounds, lambda case: measure(case, counts[case], binary), "peers")
    commands = (
        {} if effort.quick else {case: count_commands(case, min(COUNTED, counts[case]), binary) for case in cases}
    )
    return {
        "environment": facts,
        "how": __doc__.partition("How: ")[2].replace("\n", " ").strip(),
        "rounds": rounds,
        "items": items,
        "left_out": left_out,
        "results": [summary(case, counts[case], found[case], commands.get(case)) for case in cases],
    }


def claims(result: dict[str, Any]) -> list[Claim]:
    """Say what the documentation says of the peers: redisq's items a second, pushed and done, over the best peer's.

    Single items: redisq's best against the peers' best, with one handler at a time, at the same guarantee: its worker,
    or its loop, `for batch in batches`; of `pop` a loop by hand. At any concurrency its worker, and on both sides also
    with the pushes made by 50 tasks. Peers that give the guarantee only if asked stand with those that give it, though
    they are measured without. Batches: redisq's best worker with batches of 100 against the best that any peer does in
    any mode. The targets are against the peers in Python: pushes and handlers run in the peer's own language, which is
    most of the difference. Against those in Node and Ruby too, the ratios are reported.
    """

    def best(peers: Collection[str], **wanted: Any) -> list[float]:
        """Find the best of some peers, by its median, and give its rounds."""
        fitting: list[dict[str, Any]] = [
            one
            for one in result["results"]
            if one["peer"] in peers
            and all(one[key] in (value if isinstance(value, tuple) else (value,)) for key, value in wanted.items())
        ]
        fastest = max(fitting, key=lambda one: float(one["total_per_second"]["median"]), default=None)
        return fastest["rounds_total_per_second"] if fastest else []

    ours = {"redisq"}
    fields = {
        "the best peer": {peer.name for peer in PEERS if peer.source == "PyPI"} - ours,
        "the best peer in any language": set(BY_NAME) - ours,
    }
    kinds: dict[str, tuple[dict[str, Any], dict[str, Any], float]] = {
        "at least once, one at a time": (
            {"guarantee": LEAST, "at_once": 1, "batch": 1},
            {"guarantee": (LEAST, ASKED), "at_once": 1, "batch": 1},
            2.0,
        ),
        "at least once, any concurrency": (
            {"guarantee": LEAST, "worker": True, "batch": 1},
            {"guarantee": (LEAST, ASKED), "batch": 1},
            2.5,
        ),
        "at most once, one at a time": (
            {"guarantee": MOST, "at_once": 1, "batch": 1},
            {"guarantee": MOST, "at_once": 1, "batch": 1},
            2.5,
        ),
        "at most once, any concurrency": ({"guarantee": MOST, "batch": 1}, {"guarantee": MOST, "batch": 1}, 2.5),
        "batches of 100, at least once": ({"guarantee": LEAST, "worker": True, "batch": 100}, {}, 35.0),
    }
    found = []
    for whose, peers in fields.items():
        for name, (mine, theirs, target) in kinds.items():
            rounds, others = best(ours, **mine), best(peers, **theirs)
            if rounds and others:
                goal = target if whose == "the best peer" else None
                found.append(Claim.ratio(f"{name}: redisq / {whose}", rounds, others, goal))
    wrong = sum(one["lost"] + one["twice"] for one in result["results"] if one["peer"] == "redisq")
    return [*found, Claim.none("peers: lost or twice with redisq", wrong)]


def table(results: Sequence[dict[str, Any]]) -> str:
    """Lay the results out for people, the fastest first."""
    layout = "{:<12}{:<67}{:<24}{:>9}{:>9}{:>9}  {:>13}  {:>5}{:>6}  {}".format
    lines = [layout("peer", "mode", "guarantee", "enqueue", "work", "total", "commands/item", "lost", "twice", "rerun")]
    for one in sorted(results, key=lambda one: -float(one["total_per_second"]["median"])):
        commands = one["commands_per_item"]
        sent = f"{commands['enqueue']:g} + {commands['work']:g}" if commands else ""
        speeds = (f"{one[key]['median']:g}" for key in ("enqueue_per_second", "work_per_second", "total_per_second"))
        cells = (one["peer"], one["mode"], one["guarantee"], *speeds, sent, one["lost"], one["twice"])
        lines.append(layout(*cells, one["redelivered"]))
    return "\n".join(lines)
