"""The command `redisq`: one module a command, each with `add`, which describes it, and `run`, which does it."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from typing import Any, Protocol

import redis

from .. import __version__
from ..core.errors import RedisqError
from . import (
    adopt,
    audit,
    bench,
    completion,
    dead,
    delayed,
    demo,
    doctor,
    drop_group,
    export,
    groups,
    import_,
    leased,
    lua,
    metrics,
    pause,
    peek,
    purge,
    push,
    queues,
    resume,
    stats,
    top,
    web,
    worker,
)
from .command import Parser, formatter
from .exit import INTERRUPTED, NO, Failure


class _Command(Protocol):
    def add(self, commands: argparse._SubParsersAction[argparse.ArgumentParser], /) -> None: ...


_COMMANDS: tuple[_Command, ...] = (
    *(demo, worker, push),
    *(queues, top, web, stats, groups, peek, leased, delayed, dead),
    *(pause, resume, drop_group, purge),
    *(adopt, export, import_),
    *(audit, doctor, metrics, bench, lua, completion),
)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = Parser(
        "redisq",
        description="Race-free queues on Redis. `redisq COMMAND --help` shows each command with an example.",
        epilog="Exit codes: 0 success; 1 failed, or a check found a problem; 2 wrong usage;\n"
        "3 Redis unreachable or access denied; 130 interrupted.",
        formatter_class=formatter(),
    )
    parser.add_argument("-V", "--version", action="version", version=f"redisq {__version__}")
    commands: argparse._SubParsersAction[Any] = parser.add_subparsers(
        metavar="COMMAND", required=True, prog=parser.prog
    )
    for command in _COMMANDS:
        command.add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0: done. 1: it failed, or what was asked is not so; one line on stderr says why. 2: wrong usage. 3: the server
    cannot be reached, or does not let us in. 130: interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8 must not end a command
    try:
        args = make_parser().parse_args(argv)
        code: int = args.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt as interrupt:
        return _fail(str(interrupt) or "interrupted", INTERRUPTED)
    except BrokenPipeError:
        # Who read our output has gone, as in `redisq ... | head`; nor must the interpreter's own flush complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NO
    except Failure as failure:
        return _fail(str(failure), failure.code)
    except (RedisqError, redis.RedisError) as error:
        return _fail(str(error) or type(error).__name__, NO)
    return code


def _fail(reason: str, code: int) -> int:
    print("redisq:", " ".join(reason.split()), file=sys.stderr)
    return code
