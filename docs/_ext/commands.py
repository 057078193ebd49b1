"""The page of all commands, from their parsers."""

from __future__ import annotations

import argparse
import os

import redisq.cli


def page() -> str:
    """Return the page."""
    os.environ["COLUMNS"] = "88"
    os.environ["NO_COLOR"] = "1"
    parser = argparse.ArgumentParser("redisq")
    commands = parser.add_subparsers(required=True)
    for command in redisq.cli._COMMANDS:
        command.add(commands)
    lines = [
        "# Commands",
        "",
        "`pip install 'redisq-lua[cli]'` brings the command `redisq`.",
        "",
        "| command | does |",
        "| --- | --- |",
        *(f"| [`{action.dest}`](#{action.dest}) | {action.help} |" for action in commands._choices_actions),
        "",
        "Below is what `redisq COMMAND --help` prints. The server is `--url`, or else the environment's `REDIS_URL`.",
        "Durations are written like `90s`, `10m` or `1h30m`. With `--json` a command prints one JSON document.",
        "`redisq completion bash` prints a script for your shell, which may also be zsh or tcsh.",
        "",
        "| exit code | means |",
        "| ---: | --- |",
        "| 0 | success |",
        "| 1 | it failed, or a check found a problem |",
        "| 2 | wrong usage |",
        "| 3 | Redis is unreachable, or denies access |",
        "| 130 | interrupted |",
        "",
    ]
    for name, one in commands.choices.items():
        lines += [f"## {name}", ""]
        nested = next((a for a in one._actions if isinstance(a, argparse._SubParsersAction)), None)
        lines += ["```text", one.format_help().rstrip(), "```", ""]
        for verb, inner in nested.choices.items() if nested else ():
            lines += [f"### {name} {verb}", "", "```text", inner.format_help().rstrip(), "```", ""]
    return "\n".join(lines)
