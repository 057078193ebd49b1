"""`redisq doctor`: what is wrong with a server and its queues, and what it may cost."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import redis

from ..blocking import Buffer, queues
from ..core import doctor
from ..core.clients import remedy_for
from ..core.codecs import BYTES
from ..core.doctor import Finding
from ..core.queues import LAYOUT, QueueInfo
from ..core.scripts import load
from .adoption import unfinished
from .command import Commands, describe, json_option
from .connection import Client, connected, hint, nodes, open_queue, place, prefix_options, server_time, url_of
from .exit import NO
from .output import line, show_json

_LEASES = 100  # of a queue, compared with each other; they come with their items
_UNEQUAL = 2.5  # a lease that is kept has between two thirds of its length and all of it left


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Describe the command."""
    parser = describe(
        commands,
        "doctor",
        run,
        summary="check a server's settings and queues for problems",
        text="Look at a server's settings and its queues: eviction, persistence, the version, rights that are "
        "missing, queues of another layout, leases that lie too far ahead, workers of one queue whose settings differ, "
        "and adoptions that were interrupted. The exit code is 1 if something is wrong. It changes nothing.",
        example="redisq doctor\nredisq doctor --url redis://db1:6379 --json",
        options=prefix_options(),
    )
    json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    with connected(url_of(args)) as client:
        findings = list(_examine(client, args))
    if args.json:
        show_json({"server": place(url_of(args)), "findings": [asdict(one) for one in findings]})
    else:
        for one in findings:
            print(f"{one.severity}: {line(one.subject)}: {one.problem}\n    {one.remedy}")
        if not findings:
            print(f"{place(url_of(args))}: nothing is wrong")
    return NO if findings else 0


def _examine(client: Client, args: argparse.Namespace) -> Iterator[Finding]:
    for name, node in nodes(client):
        for one in doctor.server(_info(node), _config(node)):
            subject = f"{name}: {one.subject}" if name else one.subject
            yield Finding(one.severity, subject, one.problem, one.remedy)
    yield from _rights(client)
    for queue in queues(client, args.prefix):
        yield from _queue(client, args, queue)
    for (structure, name), items in sorted(unfinished(client, args.prefix).items()):
        yield Finding(
            "warning",
            name,
            f"{items:,} items that `redisq adopt` took for it are not in it yet: it was interrupted, or is at work",
            f"if it is not at work, run `{hint(args, 'adopt', structure, name)}` again, with its other options",
        )


def _info(client: Any) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = client.info("all")
    except redis.ResponseError as error:
        if remedy_for(error):
            return {}  # this user may not read it
        raise
    return found


def _config(client: Any) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for name in ("save", "appendfsync", "timeout"):
        try:
            found.update(client.config_get(name))
        except redis.ResponseError:  # many hosted servers have no CONFIG
            return found
    return found


def _rights(client: Any) -> Iterator[Finding]:
    """Try what every worker does, on keys of a queue that does not exist."""
    probe: Buffer[bytes] = Buffer(client, "redisq-doctor", codec=BYTES)
    stats = load("buffer/stats")
    for what, act in (
        ("EVALSHA and EVAL", probe.stats),
        ("BLPOP", lambda: client.execute_command("BLPOP", "redisq:{redisq-doctor}:wake", "0.01")),
    ):
        try:
            act()
        except redis.ResponseError as error:
            cost = "workers poll once a second" if what == "BLPOP" else f"no operation works, as {stats.name} shows"
            remedy = remedy_for(error) or "use a server or proxy that has it"
            yield Finding("warning" if what == "BLPOP" else "error", f"{what} is refused", f"{cost}: {error}", remedy)


def _queue(client: Client, args: argparse.Namespace, info: QueueInfo) -> Iterator[Finding]:
    if info.layout != LAYOUT:
        yield Finding(
            "error",
            info.name,
            f"its keys have layout {info.layout}, this version of redisq works on layout {LAYOUT}",
            "let the version that wrote it work it off, then purge it, or use that version everywhere",
        )
        return
    queue = open_queue(client, info.name, args.prefix, info.kind)
    now = server_time(client)
    left: dict[str, float] = defaultdict(float)
    for batch in queue.leased(_LEASES):
        left[batch.holder] = max(left[batch.holder], batch.deadline - now)
    longest = max(left.items(), key=lambda one: one[1], default=("", 0.0))
    shortest = min(left.items(), key=lambda one: one[1], default=("", 0.0))
    if longest[1] > 86_400:
        yield Finding(
            "warning",
            info.name,
            f"{line(longest[0])} holds a lease that ends in {longest[1] / 3600:,.0f} hours: the server's clock may "
            "have been set back since",
            f"{hint(args, 'audit', info.name, '--repair')} ends leases that lie too far ahead",
        )
    elif shortest[1] > 1 and longest[1] / shortest[1] > _UNEQUAL:
        yield Finding(
            "warning",
            info.name,
            f"leases of {line(longest[0])} end in {longest[1]:.0f} s, those of {line(shortest[0])} in "
            f"{shortest[1]:.0f} s: their workers may have other settings",
            "give all workers of a queue the same lease",
        )
