"""`redisq web`: the dashboard of all queues of a server, in the browser."""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import logging
import os
import re
import signal
import socket
from collections.abc import Coroutine
from importlib import import_module
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from ..core import validate
from ..core.clients import remedy_for
from .command import Commands, describe
from .connection import asyncio_client_of, checked, explained, failure, place, prefix_options, url_of
from .exit import NO, USAGE, Failure
from .http_server import port
from .log import configure, log_options
from .sentinel import is_sentinel

logger = logging.getLogger("redisq.web")

ACTS = ("redrive", "discard", "pause", "purge")
PASSWORD = "REDISQ_WEB_PASSWORD"
_LOCAL = ("localhost", "127.0.0.1", "::1")


_HOST = re.compile(r"[A-Za-z0-9_.-]+|[0-9A-Fa-f.]*(:[0-9A-Fa-f.]*){2,}")
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Describe the command."""
    parser = describe(
        commands,
        "web",
        run,
        summary="serve a dashboard of all queues",
        text="Serve a dashboard: what each queue holds, live, down to single items, and what is dead and why. It only "
        f"reads unless acts are allowed. It listens on loopback; anywhere else it wants a password in {PASSWORD} (any "
        "user name), or --no-auth. There is a JSON API beside the pages, and /healthz. Ends with SIGTERM or Ctrl-C.",
        example="redisq web\nredisq web --queue mails --allow redrive,discard\n"
        f"{PASSWORD}=... redisq web --host 0.0.0.0 --allowed-host queues.example.com",
        options=prefix_options(),
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (%(default)s)")
    parser.add_argument("--port", type=port, default=9180, help="the port; 0: a free one (%(default)s)")
    parser.add_argument("--queue", action="append", metavar="NAME", help="only this queue; may be given several times")
    parser.add_argument(
        "--allow",
        type=_acts,
        default=(),
        metavar="ACT,...",
        help=f"what the pages may do: {', '.join(ACTS)}; default: nothing",
    )
    parser.add_argument(
        "--allowed-host",
        action="append",
        type=_host,
        default=[],
        metavar="NAME",
        help="a further host that browsers may ask for, or *; may be given several times (localhost and --host)",
    )
    parser.add_argument("--no-auth", action="store_true", help="ask for no password, wherever it listens")
    log_options(parser)


def _acts(text: str) -> tuple[str, ...]:
    acts = tuple(one.strip() for one in text.split(",") if one.strip())
    for one in acts:
        if one not in ACTS:
            raise argparse.ArgumentTypeError(f"{one} is no act: give some of {','.join(ACTS)}")
    return acts


def _host(text: str) -> str:
    if text != "*" and not _HOST.fullmatch(text.strip("[]")):
        raise argparse.ArgumentTypeError(f"{text} is no host: give its name or address alone, without a port, or *")
    return text


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    password = None if args.no_auth else os.environ.get(PASSWORD)
    if password == "":
        raise Failure(f"{PASSWORD} is empty: give a password, or unset it", USAGE)
    if password is None and not args.no_auth and not _is_loopback(args.host):
        raise Failure(
            f"--host {args.host} can be reached by others: set {PASSWORD}, or say --no-auth if something in front of "
            "it asks for a password",
            USAGE,
        )
    for library in ("starlette", "jinja2", "sse_starlette", "uvicorn"):
        _needs(library)
    url = url_of(args)
    checked(url)
    with explained(url):
        validate.prefix(args.prefix)
        for name in args.queue or ():
            validate.key_prefix(args.prefix, name)
    configure(args.log, logging.INFO)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    with _listening(args.host, args.port) as listener:
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        try:
            asyncio.run(_until_told(_serve(args, url, password, listener)))
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    return 0


async def _until_told(work: Coroutine[Any, Any, None]) -> None:
    """Do something until it ends, or SIGTERM or Ctrl-C comes, also while Redis lets it wait for a connection."""
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    for number in _SIGNALS:
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(told.set))
    task, waiting = asyncio.ensure_future(work), asyncio.ensure_future(told.wait())
    await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=0.2)  # what makes a connection may take a cancellation for a lost one
    if not task.cancelled():
        task.result()


def _needs(library: str) -> None:
    try:
        import_module(library)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != library:
            raise
        raise Failure(f"the dashboard needs {library.replace('_', '-')}: pip install 'redisq-lua[web]'", NO) from error


async def _serve(args: argparse.Namespace, url: str, password: str | None, listener: socket.socket) -> None:
    import uvicorn

    from ..web import app
    from ..web.security import AllowedHosts

    client = await _connect(url)
    try:
        pages = app(client, prefix=args.prefix, queues=args.queue, allow=args.allow, password=password)
        hosts = {*_LOCAL, args.host, *args.allowed_host}
        config = uvicorn.Config(
            AllowedHosts(pages, hosts),
            log_config=None,
            access_log=False,  # paths have names of groups and members
            server_header=False,
            timeout_graceful_shutdown=1,
        )
        host, number = listener.getsockname()[:2]
        logger.info("serving http://%s:%d/ of %s", f"[{host}]" if ":" in host else host, number, place(url))
        if not _is_loopback(args.host) and not args.allowed_host:
            logger.info("browsers may ask for %s; allow other names with --allowed-host", ", ".join(sorted(hosts)))
        for signal_number in _SIGNALS:  # uvicorn ends by them, and hands them on when it has ended
            signal.signal(signal_number, lambda *_: None)
        await uvicorn.Server(config).serve(sockets=[listener])
    finally:
        await client.aclose()


async def _connect(url: str) -> Any:
    """Return a client of the server or cluster at a URL; one that cannot be reached is what the pages tell."""
    options: dict[str, Any] = {"socket_connect_timeout": 5, "socket_timeout": 5, "retry": Retry(NoBackoff(), 1)}
    client = asyncio_client_of(url, **options)
    try:
        about = await client.info("cluster")
    except redis.RedisError as error:
        if remedy_for(error) and not isinstance(error, redis.exceptions.NoPermissionError):
            await client.aclose()
            raise failure(error, url) from error
        if not isinstance(error, redis.ResponseError):
            logger.warning("%s; the dashboard goes on and tries again", failure(error, url))
        return client
    if not about.get("cluster_enabled") or is_sentinel(url):
        return client
    await client.aclose()
    return RedisCluster.from_url(url, **options)


def _listening(host: str, number: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, number), family=family, backlog=128)
    except (OSError, OverflowError) as error:
        raise Failure(f"cannot listen on {host} port {number}: {error}", NO) from error


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
