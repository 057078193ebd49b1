"""`redisq worker`: a `Worker` of one's own as a daemon of several processes."""

from __future__ import annotations

import argparse
import logging
import os
import sys

from .command import Commands, describe, positive
from .connection import checked, server_options, url_of


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Describe the command."""
    parser = describe(
        commands,
        "worker",
        run,
        summary="run a Worker of yours in several processes",
        text="Run the Worker that NAME in MODULE (found from the current directory) is, or that it returns when it is "
        "called with a client of the server. A process that dies is started again. SIGTERM and Ctrl-C let what runs "
        "finish; a second one ends it at once. On a terminal it prints a line a second with rates; elsewhere it logs "
        "to stderr.",
        example="redisq worker jobs:worker --processes 4\n\n"
        "jobs.py:\n"
        "  from redisq import Buffer, Worker\n\n"
        "  def worker(client):\n"
        '      return Worker(Buffer(client, "mails"), lambda batch: send(batch.items))',
        options=server_options(),
    )
    parser.add_argument("target", metavar="MODULE:NAME", help="a Worker, or a callable that makes one from a client")
    parser.add_argument("--processes", type=positive, default=1, metavar="N", help="how many (%(default)s)")
    parser.add_argument(
        "--asyncio", action="store_true", help="NAME wants an asyncio client, and its Worker is awaited"
    )
    parser.set_defaults(parser=parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    module, colon, name = args.target.partition(":")
    if not (module and colon and name):
        args.parser.error(f"{args.target} is not MODULE:NAME")
    url = url_of(args)
    checked(url)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # the processes get this path too
    live = sys.stdout.isatty()
    from .worker_pool import WorkerPool
    from .worker_process import FORMAT, Job

    logging.basicConfig(level=logging.WARNING if live else logging.INFO, format=FORMAT)
    return WorkerPool(Job(module, name, url, args.asyncio, live), args.processes).run()
