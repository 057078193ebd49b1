"""`redisq worker`: a `Worker` of one's own as a daemon of several processes."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .command import Commands, describe, positive
from .connection import checked, server_options, url_of
from .durations import duration
from .http_server import health, needs_prometheus, port, serving
from .log import configure, log_options

if TYPE_CHECKING:
    from .worker_pool import WorkerPool

logger = logging.getLogger("redisq.cli.worker")


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Describe the command."""
    parser = describe(
        commands,
        "worker",
        run,
        summary="run a Worker of yours in several processes",
        text="Run a Worker. NAME in MODULE (imported from the current directory) is a Worker, or a function that takes "
        "a Redis client and returns one. A process that dies is restarted. SIGTERM and Ctrl-C let running handlers "
        "finish; a second signal stops at once. On a terminal it prints a line a second with rates; elsewhere it logs "
        "to stderr.",
        example="redisq worker jobs:worker --processes 4\n\n"
        "jobs.py:\n"
        "  from redisq import Buffer, Worker\n\n"
        "  def worker(client):\n"
        '      return Worker(Buffer(client, "mails"), lambda batch: send(batch.items))',
        options=server_options(),
    )
    parser.add_argument("target", metavar="MODULE:NAME", help="a Worker, or a callable that makes one from a client")
    parser.add_argument("--processes", type=positive, default=1, metavar="N", help="number of processes (%(default)s)")
    parser.add_argument(
        "--asyncio", action="store_true", help="NAME wants an asyncio client, and its Worker is awaited"
    )
    parser.add_argument(
        "--burst", action="store_true", help="end when nothing can be reserved any more, for cron and batch jobs"
    )
    parser.add_argument(
        "--max-bytes", type=positive, metavar="N", help="at most so many bytes in a batch; default: the Worker's own"
    )
    parser.add_argument(
        "--handler-timeout",
        type=duration(),
        metavar="TIME",
        help="how long a handler may run, such as 90s or 5m; default: the Worker's own",
    )
    parser.add_argument(
        "--metrics-port",
        type=port,
        metavar="PORT",
        help="serve /metrics of all processes together, /livez and /readyz there",
    )
    parser.add_argument(
        "--metrics-host", default="127.0.0.1", metavar="HOST", help="the address for --metrics-port (%(default)s)"
    )
    log_options(parser)
    parser.set_defaults(parser=parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    module, colon, name = args.target.partition(":")
    if not (module and colon and name):
        args.parser.error(f"{args.target} is not MODULE:NAME, such as jobs:worker")
    url = url_of(args)
    checked(url)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # the processes get this path too
    live = sys.stdout.isatty()
    from .worker_pool import WorkerPool
    from .worker_process import Job

    given = {"max_bytes": args.max_bytes, "handler_timeout": args.handler_timeout}
    settings: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    metrics = args.metrics_port is not None
    job = Job(module, name, url, args.asyncio, live, args.log, args.burst, settings, metrics)
    configure(job.log, job.level)
    if not metrics:
        return WorkerPool(job, args.processes).run()
    needs_prometheus()
    with _counted_together() as directory:
        from prometheus_client.multiprocess import mark_process_dead

        def ended(process: str) -> None:
            mark_process_dead(process, directory)  # type: ignore[no-untyped-call]

        pool = WorkerPool(job, args.processes, ended)
        with serving(args.metrics_host, args.metrics_port, _pages(pool, directory)) as where:
            logger.info("serving %s/metrics, /livez and /readyz", where)
            return pool.run()


@contextlib.contextmanager
def _counted_together() -> Iterator[str]:
    """Give the processes a directory in which prometheus-client keeps what each counts.

    Always one of its own, whatever the environment says: two services that share one would write the same files.
    """
    with tempfile.TemporaryDirectory(prefix="redisq-metrics-") as directory:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory
        yield directory


def _pages(pool: WorkerPool, directory: str) -> dict[str, Any]:
    from prometheus_client import CollectorRegistry, make_wsgi_app
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = CollectorRegistry()
    MultiProcessCollector(registry, directory)  # type: ignore[no-untyped-call]
    return {"/metrics": make_wsgi_app(registry), "/livez": health(pool.problem), "/readyz": health(pool.unready)}
