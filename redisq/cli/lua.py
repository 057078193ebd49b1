"""`redisq lua`: the scripts, for people who vendor them."""

from __future__ import annotations

import argparse
from pathlib import Path

from .. import __version__
from ..core.scripts import load, names
from ..vendoring import MANIFEST, describe, export, verify
from .command import Commands, describe_verbs, json_option
from .command import describe as add_verb
from .exit import NO, Failure
from .output import show_json, show_table


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Describe the command and its verbs."""
    verbs = describe_verbs(
        commands,
        "lua",
        summary="show, vendor and verify the Lua scripts",
        text="Show, vendor and verify the Lua scripts.",
    )
    shown = add_verb(
        verbs,
        "list",
        _list,
        summary="show each script's name, what a second run does, and what it is for",
        text="List the scripts. With --json, what their headers declare: enough to generate a client in another "
        "language.",
        example="redisq lua list\nredisq lua list --json | jq -r '.[] | [.name, .sha1] | @tsv'",
    )
    exported = add_verb(
        verbs,
        "export",
        _export,
        summary="copy the scripts, their conformance cases and a manifest into a folder",
        text="Copy the scripts byte for byte, the conformance cases, the README and a manifest.json made from the "
        "headers. A copy that is there is brought up to date; other files are left alone.",
        example="redisq lua export vendor/redisq",
    )
    verified = add_verb(
        verbs,
        "verify",
        _verify,
        summary="tell what in a vendored copy differs from this version",
        text="Compare a vendored copy with this version, file by file. Exit code 1 when anything differs.",
        example="redisq lua verify vendor/redisq",
    )
    for verb in (exported, verified):
        verb.add_argument("directory", metavar="DIR", type=Path, help="the folder of the copy")
    for verb in (shown, exported, verified):
        json_option(verb)


def _list(args: argparse.Namespace) -> int:
    scripts = [load(name) for name in names()]
    if args.json:
        show_json([describe(script) for script in scripts])
    else:
        show_table(("name", "sha1", "replay", "|summary"), [(s.name, s.sha[:12], s.replay, s.summary) for s in scripts])
    return 0


def _export(args: argparse.Namespace) -> int:
    try:
        written = export(args.directory)
    except OSError as error:
        raise Failure(f"cannot write {error.filename}: {error.strerror}") from None
    if args.json:
        show_json({"version": __version__, "directory": str(args.directory), "written": written})
    else:
        state = f"{len(written)} files written" if written else "nothing to do, it is the same"
        print(f"redisq {__version__} in {args.directory}: {state}. Commit it whole; {MANIFEST} says what is in it.")
    return 0


def _verify(args: argparse.Namespace) -> int:
    if not args.directory.is_dir():
        raise Failure(f"{args.directory} is not a folder: make one with redisq lua export {args.directory}")
    differences = verify(args.directory)
    if args.json:
        show_json([difference._asdict() for difference in differences])
    elif differences:
        show_table(("file", "|what"), differences)
    else:
        print(f"{args.directory} is redisq {__version__}, byte for byte")
    return NO if differences else 0
