"""What the tests and the screenshots of the dashboard share: Chromium, and a server of it on a free port."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from typing import Any

import redis.asyncio
import uvicorn
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from starlette.types import ASGIApp

from redisq.web import app

_NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str | None:
    """Return the path of this machine's Chromium, if it has one."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


def options() -> dict[str, Any]:
    """Return how to launch it: without its sandbox where it would refuse to run as root."""
    return {"executable_path": chromium(), "args": ["--no-sandbox"] if os.geteuid() == 0 else []}


@contextlib.contextmanager
def dashboard(unix_socket: str, port: int = 0, **options: Any) -> Iterator[str]:
    """Serve the dashboard of the Redis at a unix socket in a thread, and yield its URL; `options` are for `app`."""
    client = redis.asyncio.Redis(unix_socket_path=unix_socket, socket_timeout=10, retry=Retry(NoBackoff(), 0))
    with serving(app(client, **options), port, client) as url:
        yield url


@contextlib.contextmanager
def serving(served: ASGIApp, port: int = 0, client: redis.asyncio.Redis | None = None) -> Iterator[str]:
    """Serve an app in a thread, and yield its URL; the client is closed in the end, in the thread's event loop."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        config = uvicorn.Config(served, log_config=None, access_log=False, timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)

        async def serve() -> None:
            try:
                await server.serve(sockets=[listener])
            finally:
                if client is not None:
                    await client.aclose()

        thread = threading.Thread(target=lambda: asyncio.run(serve()))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
