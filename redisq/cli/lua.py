"""`redisq lua`: the scripts, for people who vendor them."""

from __future__ import annotations

import argparse
from typing import Any

from ..scripts import Script, load, names
from .command import Commands, describe
from .output import show_json, show_table


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Describe the command and its verbs."""
    parser = commands.add_parser("lua", help="show the Lua scripts", description="Show the Lua scripts.")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    shown = describe(
        verbs,
        "list",
        _list,
        summary="show each script's name, what a second run does, and what it is for",
        text="List the scripts. With --json, what their headers declare: enough to generate a client in another "
        "language.",
        example="redisq lua list\nredisq lua list --json | jq -r '.[] | [.name, .sha1] | @tsv'",
    )
    shown.add_argument("--json", action="store_true", help="one JSON document: the parsed headers")


def _list(args: argparse.Namespace) -> int:
    scripts = [load(name) for name in names()]
    if args.json:
        show_json([_header(script) for script in scripts])
    else:
        show_table(("name", "sha1", "replay", "summary"), [(s.name, s.sha[:12], s.replay, s.summary) for s in scripts])
    return 0


def _header(script: Script) -> dict[str, Any]:
    return {
        "name": script.name,
        "sha1": script.sha,
        "summary": script.summary,
        "keys": [vars(slot) for slot in script.keys],
        "args": [vars(slot) for slot in script.args],
        "reply": script.reply,
        "errors": script.errors,
        "replay": script.replay,
        "computes": script.computes,
    }
