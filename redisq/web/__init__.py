"""The dashboard: an ASGI app to mount, and what `redisq web` serves. Needs the extra `web`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

from ..asyncio.runner import Client
from ..core.clients import errors, remedy_for
from ..core.errors import InvalidArgument, RedisqError

try:
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Mount
    from starlette.staticfiles import StaticFiles
    from starlette.types import ASGIApp

    from . import api, downloads, pages
    from .dashboard import Dashboard
    from .names import shown
    from .security import Guard, route_path
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("starlette", "jinja2", "markupsafe", "sse_starlette", "anyio"):
        raise
    raise ModuleNotFoundError(
        "redisq.web needs starlette, jinja2 and sse-starlette: pip install 'redisq-lua[web]'", name=error.name
    ) from error

__all__ = ["app"]


def app(
    client: Client,
    *,
    prefix: str = "redisq",
    queues: Iterable[str] | None = None,
    allow: Iterable[str] = (),
    password: str | None = None,
) -> ASGIApp:
    """Return the dashboard as an ASGI app, to be served as it is or mounted in another app.

    - `client`: an asyncio client of redis-py or valkey-py, of a server or a cluster. It stays yours: give it a
      `socket_timeout`, so that a Redis that hangs is noticed.
    - `queues`: only these may be seen and acted upon; None: all that are found.
    - `allow`: what the pages and the JSON API may do, of `redrive`, `discard`, `pause` and `purge`. By default nothing
      is shown or accepted that changes a queue.
    - `password`: what HTTP Basic authentication asks for, with any user name, everywhere but at `/healthz` and
      `/livez`; None: no authentication, for whoever can reach the app.

    Its links are absolute paths under the place where it is mounted. It samples Redis while somebody looks, in the
    event loop of the requests, and needs no lifespan. Which hosts may be asked for is the business of the app around
    it. Raises `InvalidArgument` for a blocking client, a bad name, an unknown act, or an empty password.
    """
    board = Dashboard(client, prefix, queues, allow)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        board.stop()

    view = pages.Pages(board)

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _error(view, request, error.status_code, str(error.detail), dict(error.headers or {}))

    async def failed(request: Request, error: Exception) -> Response:
        said, remedy = shown(str(error) or type(error).__name__), remedy_for(error)
        if isinstance(error, RedisqError):
            return _error(view, request, 400 if isinstance(error, InvalidArgument) else 409, said, {})
        if remedy or isinstance(error, refusals):
            return _error(view, request, 502, f"Redis refuses: {said}" + (f"; {remedy}" if remedy else ""), {})
        return _error(view, request, 503, f"Redis does not answer: {said}", {})

    unavailable: tuple[type[Exception], ...] = (OSError, *errors("RedisError", "RedisClusterException"))
    refusals = errors("ResponseError")
    handlers: dict[Any, Any] = {HTTPException: refused, **dict.fromkeys((RedisqError, *unavailable), failed)}
    made = Starlette(
        routes=[
            Mount("/static", StaticFiles(directory=Path(__file__).parent / "static"), name="static"),
            *api.routes(board),
            *downloads.routes(board),
            *pages.routes(board),
        ],
        exception_handlers=handlers,
        lifespan=lifespan,
    )
    made.router.redirect_slashes = False  # its redirects are absolute, of the host that the request names
    return Guard(made, password)


def _error(view: pages.Pages, request: Request, status: int, message: str, headers: dict[str, str]) -> Response:
    if route_path(request.scope).startswith("/api/"):
        return JSONResponse({"error": message}, status, headers)
    page = view.error(request, status, message)
    page.headers.update(headers)
    return page
