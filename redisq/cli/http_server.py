"""A small web server for metrics and health checks, in a thread of its own."""

from __future__ import annotations

import argparse
import contextlib
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from .exit import NO, Failure

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over a client that says nothing, or goes away."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = 10  # seconds for a request, so that a client that says nothing keeps no thread

    def log_message(self, *_: Any) -> None:
        """Log no requests: they come every few seconds."""


@contextlib.contextmanager
def serving(host: str, port: int, pages: Mapping[str, WSGIApplication]) -> Iterator[str]:
    """Serve applications by their paths, and yield the server's URL. Raises `Failure` where that cannot be."""
    kind = _Server6 if ":" in host else _Server
    try:
        server = make_server(host, port, _dispatch(pages), server_class=kind, handler_class=_Handler)
    except (OSError, OverflowError) as error:
        raise Failure(f"cannot listen on {host} port {port}: {error}", NO) from error
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="redisq-http", daemon=True)
    thread.start()
    try:
        yield f"http://{f'[{host}]' if ':' in host else host}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _dispatch(pages: Mapping[str, WSGIApplication]) -> WSGIApplication:
    def answer(environ: WSGIEnvironment, start: StartResponse) -> Any:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _say(start, "405 Method Not Allowed", "GET only")
        page = pages.get(environ["PATH_INFO"])
        return page(environ, start) if page else _say(start, "404 Not Found", f"there is: {' '.join(pages)}")

    return answer


def health(check: Callable[[], str | None]) -> WSGIApplication:
    """Return a page that answers 200, or 503 with what `check` says is wrong."""

    def answer(_: WSGIEnvironment, start: StartResponse) -> Any:
        problem = check()
        return _say(start, "200 OK" if problem is None else "503 Service Unavailable", problem or "ok")

    return answer


def _say(start: StartResponse, status: str, text: str) -> list[bytes]:
    start(status, [("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store")])
    return [text.encode("utf-8", "backslashreplace") + b"\n"]


def port(text: str) -> int:
    """Read the number of a port; 0 is any free one."""
    try:
        number = int(text)
    except ValueError:
        number = -1
    if not 0 <= number <= 65_535:
        raise argparse.ArgumentTypeError(f"{text} is not a port: give a number from 0 to 65535")
    return number


def needs_prometheus() -> None:
    """Raise a `Failure` where prometheus-client is not installed."""
    try:
        import prometheus_client  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "prometheus_client":
            raise
        raise Failure("metrics need prometheus-client: pip install 'redisq-lua[prometheus]'", NO) from error
