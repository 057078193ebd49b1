"""`redisq metrics`: an exporter for Prometheus of all queues of a server."""

from __future__ import annotations

import argparse
import logging
import signal
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ..core import validate
from ..core.errors import RedisqError
from .command import Commands, describe
from .connection import checked, explained, failure, open_client, prefix_options, url_of
from .http_server import health, needs_prometheus, port, serving
from .log import configure, log_options

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from ..metrics import Collector

logger = logging.getLogger("redisq.metrics")


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Describe the command."""
    parser = describe(
        commands,
        "metrics",
        run,
        summary="export what all queues hold, for Prometheus",
        text="Serve /metrics: what each queue of the server holds, and what was done, failed and died, asked for in "
        "each scrape. A Redis that is unavailable is reported as redisq_up 0. /livez answers while the process runs. "
        "Ends with SIGTERM or Ctrl-C.",
        example="redisq metrics --port 9181\nredisq metrics --host 0.0.0.0 --queue mails --queue search",
        options=prefix_options(),
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (%(default)s)")
    parser.add_argument("--port", type=port, default=9181, help="the port; 0: a free one (%(default)s)")
    parser.add_argument("--queue", action="append", metavar="NAME", help="only this queue; may be given several times")
    log_options(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    needs_prometheus()
    from prometheus_client import CollectorRegistry, make_wsgi_app

    checked(url_of(args))
    with explained(url_of(args)):  # what no scrape could make good
        validate.prefix(args.prefix)
        for name in args.queue or ():
            validate.key_prefix(args.prefix, name)
    configure(args.log, logging.INFO)
    registry = CollectorRegistry()
    registry.register(_Exporter(args))
    pages = {"/metrics": make_wsgi_app(registry), "/livez": health(lambda: None)}
    ended = threading.Event()
    before = {number: signal.signal(number, lambda *_: ended.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with serving(args.host, args.port, pages) as where:
            logger.info("serving %s/metrics", where)
            while not ended.wait(1.0):  # in pieces, because no signal ends a wait on Windows
                pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


class _Exporter:
    """A collector that connects when it is first asked: a Redis that is unavailable then is what it tells."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._collector: Collector | None = None
        self._lock = threading.Lock()  # two scrapes may come at once
        self._said = ""

    def describe(self) -> list[Metric]:
        """Return nothing, so that registering does not ask Redis."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield what the queues hold."""
        from prometheus_client.core import GaugeMetricFamily

        with self._lock:
            if self._collector is None:
                self._connect()
            if self._collector is None:
                yield GaugeMetricFamily("redisq_up", "Whether Redis answered: 1 if it did.", 0)
            else:
                yield from self._collector.collect()

    def _connect(self) -> None:
        from ..metrics import Collector

        url = url_of(self._args)
        try:
            # Under the ten seconds that Prometheus waits for a scrape.
            client = open_client(url, socket_connect_timeout=3, socket_timeout=3, retry=Retry(NoBackoff(), 1))
            self._collector = Collector(client, self._args.prefix, self._args.queue)
        except (RedisqError, redis.RedisError) as error:
            if (said := str(failure(error, url))) != self._said:
                logger.warning("%s", said)
            self._said = said
