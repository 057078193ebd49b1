"""Who may see the pages, and from where an act may come: what is refused before any page is asked."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import logging
import traceback
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..core.errors import InvalidArgument

logger = logging.getLogger("redisq.web")

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
HEALTH = ("/healthz", "/livez")
"""Pages that tell nothing but whether all is well: they ask for no password, and answer whatever host is asked for."""
_SAFE = ("GET", "HEAD", "OPTIONS")
_PORTS = {"http": "80", "https": "443"}
PROGRAM = "x-requested-with"
"""A header by which a program says that it is not a browser; no page of another origin can send it."""


def route_path(scope: Scope) -> str:
    """Return the path below the place at which the app is mounted."""
    path, root = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
    return path[len(root) :] or "/" if (root and path.startswith(root + "/")) or path == root else path


def refusal(scope: Scope, status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    """Return a refusal: JSON for the API, a line of text for people."""
    if route_path(scope).startswith("/api/"):
        return JSONResponse({"error": message}, status, headers)
    return PlainTextResponse(message + "\n", status, headers)


class Guard:
    """What stands before the pages: headers that keep browsers safe, a password, and a check of where acts come from.

    An error that no page expects is logged without its message, which may have a payload in it.
    """

    def __init__(self, app: ASGIApp, password: str | None) -> None:
        if password is not None and (not isinstance(password, str) or not password):
            raise InvalidArgument("password is empty: give a str, or None for no authentication")
        self._app = app
        self._password = None if password is None else password.encode("utf-8", "surrogateescape")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = ended = False

        async def sending(message: Message) -> None:
            nonlocal started, ended
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(raw=message.setdefault("headers", []))
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            ended = message["type"] == "http.response.body" and not message.get("more_body")
            await send(message)

        try:
            answer = self._refused(scope) or self._app
            await answer(scope, receive, sending)
            if started and not ended:  # a stream of events that ends with the server
                await send({"type": "http.response.body", "body": b""})
        except Exception as error:
            logger.error("a page failed with %s at %s", type(error).__name__, places(error))
            if not started:
                await refusal(scope, 500, "The dashboard failed; its log says where.")(scope, receive, sending)

    def _refused(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if not self._knows(headers) and route_path(scope) not in HEALTH:
            asks = {"WWW-Authenticate": 'Basic realm="redisq", charset="UTF-8"'}
            return refusal(scope, 401, "The dashboard wants a password: give it with any user name.", asks)
        if scope["method"] not in _SAFE and (why := foreign(headers, route_path(scope).startswith("/api/"))):
            return refusal(scope, 403, why)
        return None

    def _knows(self, headers: Headers) -> bool:
        if self._password is None:
            return True
        scheme, _, encoded = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            _, _, given = base64.b64decode(encoded, validate=True).partition(b":")
        except (binascii.Error, ValueError):
            return False
        return hmac.compare_digest(given, self._password)


def places(error: BaseException) -> str:
    """Return where an error was raised, for a log: its message may have a payload or a name in it."""
    return ", ".join(f"{one.filename}:{one.lineno}" for one in traceback.extract_tb(error.__traceback__)[-4:])


def foreign(headers: Headers, api: bool) -> str | None:
    """Say why an act may not come from where it comes from; None if it may.

    Browsers say it in `Sec-Fetch-Site`; over plain http on a LAN they leave it out, and `Origin` is compared with
    `Host`. What sends neither is not a browser, and has to say so.
    """
    if site := headers.get("sec-fetch-site"):
        return None if site == "same-origin" else f"This came from another site (Sec-Fetch-Site: {site[:20]})."
    host = headers.get("host", "")
    if origin := headers.get("origin"):
        scheme = origin.partition("://")[0]
        place = _place(origin)
        if place is not None and place[0] and place == _place(f"//{host}", scheme):
            return None
        return "This came from another origin: its Origin is not the Host that was asked."
    if api and headers.get(PROGRAM):
        return None
    remedy = "send the header `X-Requested-With: redisq`" if api else "use a browser, or the JSON API"
    return f"Nobody can tell where this came from, as it has neither Sec-Fetch-Site nor Origin: {remedy}."


def _place(url: str, scheme: str = "") -> tuple[str, str] | None:
    """Return host and port of a URL."""
    try:
        parts = urlsplit(url)
        port = "" if parts.port is None else str(parts.port)
    except ValueError:
        return None
    return parts.hostname or "", port or _PORTS.get(parts.scheme or scheme, "")


class AllowedHosts:
    """What refuses requests for another host, such as those of a page whose name was pointed at this server.

    Not those for `/healthz` and `/livez`, which tell nothing: an orchestrator asks for them by an address that nobody
    knows before.
    A request that is cancelled, because the server ends, is answered.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str]) -> None:
        self._app = app
        self._hosts = {host.strip("[]").lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if "*" not in self._hosts and route_path(scope) not in HEALTH:
            place = _place("//" + Headers(scope=scope).get("host", ""))
            if place is None or place[0] not in self._hosts:
                message = "This host is not allowed: start redisq web with --allowed-host and the name in the URL."
                await refusal(scope, 400, message, HEADERS)(scope, receive, send)
                return
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except asyncio.CancelledError:
            if not started:
                await refusal(scope, 503, "The dashboard is stopping.", HEADERS)(scope, receive, send)
