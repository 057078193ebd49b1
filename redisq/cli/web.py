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
from collections.abc import Callable, Coroutine
from importlib import import_module
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from ..core import validate
from ..core.acts import ACTS
from ..core.clients import remedy_for
from .command import Commands, describe
from .connection import asyncio_client_of, checked, explained, failure, place, prefix_options, url_of
from .exit import NO, USAGE, Failure
from .http_server import port
from .log import configure, log_options
from .sentinel import is_sentinel

logger = logging.getLogger("redisq.web")

PASSWORD = "REDISQ_WEB_PASSWORD"
_LOCAL = ("localhost", "127.0.0.1", "::1")
_HOST = re.compile(r"[A-Za-z0-9_.-]+|[0-9A-Fa-f.]*(:[0-9A-Fa-f.]*){2,}")
_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+")
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
        "user name), or --no-auth. Beside the pages there are a JSON API, /healthz and /livez. Ends with SIGTERM or "
        "Ctrl-C.",
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
    parser.add_argument(
        "--root-path",
        type=_root_path,
        default="",
        metavar="PATH",
        help="the path at which a proxy serves it that strips this path, such as /ops/queues",
    )
    parser.add_argument("--no-auth", action="store_true", help="ask for no password, wherever it listens")
    log_options(parser)


def _acts(text: str) -> tuple[str, ...]:
    acts = tuple(one.strip() for one in text.split(",") if one.strip())
    for one in acts:
        if one not in ACTS:
            raise argparse.ArgumentTypeError(f"{one} is not an act: give some of {','.join(ACTS)}")
    return acts


def _host(text: str) -> str:
    if text != "*" and not _HOST.fullmatch(text.strip("[]")):
        raise argparse.ArgumentTypeError(f"{text} is not a host: give its name or address alone, without a port, or *")
    return text


def _root_path(text: str) -> str:
    path = text.rstrip("/")
    if path and (not _PATH.fullmatch(path) or {".", ".."} & set(path.split("/"))):
        raise argparse.ArgumentTypeError(f"{text} is not a path: give one such as /ops/queues of letters, digits, -._~")
    return path


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

    def made(client: Any) -> Any:
        return app(client, prefix=args.prefix, queues=args.queue, allow=args.allow, password=password)

    pages = Pages(url, made)
    try:
        if problem := await pages.connect():
            if remedy_for(problem):
                raise failure(problem, url) from problem
            logger.warning("%s; the dashboard goes on and tries again", failure(problem, url))
        hosts = {*_LOCAL, args.host, *args.allowed_host}
        config = uvicorn.Config(
            AllowedHosts(pages, hosts),
            log_config=None,
            access_log=False,  # paths have names of groups and members
            server_header=False,
            root_path=args.root_path,
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
        await pages.close()


class Pages:
    """The dashboard of the server or cluster at a URL.

    Which of both it is, only Redis can tell. One that does not answer at first is asked again with each request;
    until it has answered, pages say what is wrong, and nothing is live.
    """

    _ANSWER_TIMEOUT = 2.0  # seconds that a request waits for the answer

    def __init__(self, url: str, made: Callable[[Any], Any]) -> None:
        self._url, self._made = url, made
        self._options: dict[str, Any] = {
            "socket_connect_timeout": 5,
            "socket_timeout": 5,
            "retry": Retry(NoBackoff(), 1),
        }
        self._client: Any = asyncio_client_of(url, **self._options)
        self._clients = [self._client]
        self._app = made(self._client)
        self._known = is_sentinel(url)
        self._asking: asyncio.Task[redis.RedisError | None] | None = None

    async def connect(self) -> redis.RedisError | None:
        """Ask Redis what it is; return why it did not tell."""
        try:
            about = await self._client.info("cluster")
        except redis.RedisError as error:
            # Where this user may not ask, the first real command says what may be done.
            self._known = isinstance(error, redis.ResponseError) and not _refused(error)
            return None if self._known else error
        if about.get("cluster_enabled") and not self._known:
            # The other one is closed at the end: a request may still be under way with it.
            self._client = RedisCluster.from_url(self._url, **self._options)
            self._clients.append(self._client)
            self._app = self._made(self._client)
        self._known = True
        return None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        if scope["type"] == "http" and not self._known and not scope["path"].endswith("/livez"):
            if self._asking is None or self._asking.done():
                self._asking = asyncio.ensure_future(self.connect())
            await asyncio.wait([self._asking], timeout=self._ANSWER_TIMEOUT)
            if not self._known and scope["path"].endswith("/live"):
                # A stream would go on with a client that may be of the wrong kind; pages ask for it again.
                await _not_yet(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def close(self) -> None:
        """Close its connections."""
        if self._asking is not None:
            self._asking.cancel()
        for client in self._clients:
            await client.aclose()


def _refused(error: Exception) -> bool:
    """Say whether somebody has to change a setting before Redis can be used at all."""
    return bool(remedy_for(error)) and not isinstance(error, redis.exceptions.NoPermissionError)


async def _not_yet(scope: Any, receive: Any, send: Any) -> None:
    from starlette.responses import PlainTextResponse

    answer = PlainTextResponse("Redis does not answer.\n", 503, {"Retry-After": "3", "Cache-Control": "no-store"})
    await answer(scope, receive, send)


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
