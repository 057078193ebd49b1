"""Shared by the tests of the dashboard: an emptied server, and apps that are asked without a socket."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
import redis
import redis.asyncio

from redisq.embedded import Server
from redisq.web import app, sampler

BASE = "http://dashboard.test"
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}

Make = Callable[..., httpx.AsyncClient]


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pages wait for their numbers, however slow this machine is."""
    monkeypatch.setattr(sampler, "PAGE_TIMEOUT", 30.0)


@pytest.fixture
def client(server: Server) -> Iterator[redis.Redis]:
    """Return a blocking client of the emptied server, for what the tests put there."""
    with server.client() as made:
        yield made


@pytest.fixture
async def aclient(server: Server) -> AsyncIterator[redis.asyncio.Redis]:
    """Return an asyncio client of the emptied server, for apps."""
    made = redis.asyncio.Redis(unix_socket_path=server.socket)
    yield made
    await made.aclose()


@pytest.fixture
async def web(aclient: redis.asyncio.Redis) -> AsyncIterator[Make]:
    """Return a function that makes an app, and a browser of a kind for it."""
    async with contextlib.AsyncExitStack() as stack:

        def make(*, wrapped: Callable[[Any], Any] = lambda one: one, **options: Any) -> httpx.AsyncClient:
            transport = httpx.ASGITransport(wrapped(app(aclient, **options)))
            browser = httpx.AsyncClient(transport=transport, base_url=BASE)
            stack.push_async_callback(browser.aclose)
            return browser

        yield make


@contextlib.asynccontextmanager
async def tab(made: Any, path: str) -> AsyncIterator[asyncio.Queue[str]]:
    """Open a live page as a browser's tab does, and give the parts that it is sent."""
    parts: asyncio.Queue[str] = asyncio.Queue()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            parts.put_nowait(message["body"].decode())

    async def receive() -> Any:
        return await asyncio.get_running_loop().create_future()

    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": []}
    streaming = asyncio.ensure_future(made(scope, receive, send))
    try:
        yield parts
    finally:
        streaming.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await streaming


async def submit(browser: httpx.AsyncClient, page: str, path: str, **fields: Any) -> httpx.Response:
    """Send a form of a page as a browser does, with more fields, and follow to its outcome."""
    shown = await browser.get(page)
    assert f'"{path}"' in shown.text, f"{page} has no form for {path}"
    token = re.search(r'name="token" value="(\w+)"', shown.text)
    data = {**({"token": token[1]} if token else {}), **fields}
    return await browser.post(path, data=data, headers=SAME_ORIGIN, follow_redirects=True)


def bodies(html: str) -> str:
    """Return the text of a page, without its tags."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))
