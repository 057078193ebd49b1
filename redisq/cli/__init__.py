"""The command `redisq`: one module a command, each with `add`, which describes it, and `run`, which does it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import redis

from ..errors import RedisqError
from . import demo

_COMMANDS = (demo,)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0: done. 1: it failed, or what it checked is not so; one line on stderr says why. 2: wrong usage. 130: interrupted.
    """
    parser = argparse.ArgumentParser("redisq", description="Race-free queues on Redis.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add(commands)
    args = parser.parse_args(argv)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:
        # Who read our output has gone, as in `redisq ... | head`; nor must the interpreter's own flush complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (RedisqError, redis.RedisError) as error:
        return _fail(str(error) or type(error).__name__, 1)
    return code


def _fail(reason: str, code: int) -> int:
    print("redisq:", " ".join(reason.split()), file=sys.stderr)
    return code
