"""`redisq audit`: compare a queue's keys with each other."""

from __future__ import annotations

import argparse

from ..core.documents import text
from .command import Commands, describe, json_option
from .connection import Client, Queue, connected, find, heading, nowhere, open_queue, queue_options, url_of
from .exit import NO
from .output import console, line, many, show_json, show_table


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Describe the command."""
    parser = describe(
        commands,
        "audit",
        run,
        summary="check that a queue's keys agree with each other, and repair them",
        text="Compare a queue's keys with each other and name what disagrees. With --repair, repair it; nothing that "
        "exists is thrown away, and keys that hold another type or are unknown are left alone. The exit code is 1 if "
        "something is, or stays, wrong.",
        example="redisq audit mails || redisq audit mails --repair",
        options=queue_options(),
    )
    parser.add_argument("--repair", action="store_true", help="repair what can be repaired")
    json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.repair and not args.json:
        console()  # before anything is repaired: without rich there is no table of it
    with connected(url_of(args)) as client:
        queue = find(client, args) or _remains(client, args) or nowhere(client, args)
        found = queue.audit(args.repair)
        left = queue.audit() if args.repair and not found.ok else found
    wrong = {(finding.kind, finding.name) for finding in left.findings}
    rows = [(finding, (finding.kind, finding.name) not in wrong) for finding in found.findings]
    if args.json:
        findings = [{**{k: text(v) for k, v in vars(one).items()}, "repaired": repaired} for one, repaired in rows]
        show_json({**heading(args, queue), "checked": found.checked, "findings": findings})
    else:
        said = [(one.kind, line(one.name), line(one.found), line(one.expected), repaired) for one, repaired in rows]
        if said:
            columns = ("kind", "name", "|found", "|expected", "")
            show_table(columns, [(*cells, "repaired" if repaired else "") for *cells, repaired in said])
        summary = (
            f"{many(len(rows), 'finding')}, {sum(repaired for _, repaired in rows):,} repaired"
            if rows
            else "nothing is wrong"
        )
        print(f"{found.checked:,} {'key' if found.checked == 1 else 'keys and entries'} checked: {summary}")
    return NO if left.findings else 0


def _remains(client: Client, args: argparse.Namespace) -> Queue | None:
    """Return a queue without its mark and its indexes, if there are lists left over of it: its audit finds them."""
    buffer = open_queue(client, args.queue, args.prefix, "buffer")
    for queue in (buffer, open_queue(client, args.queue, args.prefix, "fifo")):
        if any(finding.kind != "unknown" for finding in queue.audit().findings):
            return queue
    return None
