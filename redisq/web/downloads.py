"""Payloads byte for byte: what a page shows in part, or as hex, is downloaded whole."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from .dashboard import Dashboard
from .names import from_segment
from .payloads import Payload
from .reader import ListState

_STATES: tuple[ListState, ...] = ("leased", "delayed", "dead")
_LAST = 10**9
Handler = Callable[[Request], Awaitable[Response]]


def routes(board: Dashboard) -> list[BaseRoute]:
    """Return the routes of downloads, for the pages and for the JSON API."""
    downloads = _Downloads(board)
    handlers: dict[str, Handler] = {
        "groups/{group}/items/{place}": downloads.item,
        "members/{member}/payload": downloads.payload,
        **{f"{state}/{{id}}/items/{{place}}": partial(downloads.batch_item, state) for state in _STATES},
    }
    return [
        Route(f"{base}/queues/{{queue}}/{path}", handler, methods=["GET"])
        for base in ("", "/api")
        for path, handler in handlers.items()
    ]


class _Downloads:
    def __init__(self, board: Dashboard) -> None:
        self._board = board

    async def item(self, request: Request) -> Response:
        """Send one of the items that wait in a group, counted from the oldest, which is 1."""
        reader, place = await self._board.reader(request), _place(request)
        if reader.buffer is None:
            raise HTTPException(404, "A priority queue has members, no groups.")
        return _sent(request, await reader.item(from_segment(request.path_params["group"]), place), f"item-{place}")

    async def batch_item(self, state: ListState, request: Request) -> Response:
        """Send one of the items of a batch, counted from 1."""
        reader, place = await self._board.reader(request), _place(request)
        if reader.buffer is None:
            raise HTTPException(404, "A priority queue has members: ask for the payload of one.")
        found = await reader.batch_item(state, from_segment(request.path_params["id"]), place)
        return _sent(request, found, f"item-{place}")

    async def payload(self, request: Request) -> Response:
        """Send the payload of a member."""
        reader = await self._board.reader(request)
        if reader.buffer is not None:
            raise HTTPException(404, "A buffer has groups, no members.")
        return _sent(request, await reader.payload(from_segment(request.path_params["member"])), "payload")


def _place(request: Request) -> int:
    given = str(request.path_params["place"])
    if not (given.isascii() and given.isdigit() and len(given) < 11 and 1 <= int(given) <= _LAST):
        raise HTTPException(404, f"Items are counted from 1 to {_LAST:,}.")
    return int(given)


def _sent(request: Request, data: bytes | None, name: str) -> Response:
    """Send bytes as a file, if they are still those that the page has shown: items move up when others leave."""
    if data is None:
        raise HTTPException(404, "It is not there any more.")
    wanted = request.query_params.get("digest")
    if wanted and wanted != Payload(data).digest:
        raise HTTPException(409, "Something else is in its place by now: load the page that shows it again.")
    headers = {"Content-Disposition": f'attachment; filename="{name}.bin"'}
    return Response(data, media_type="application/octet-stream", headers=headers)
