"""What MONITOR shows of a server: every command, including those of scripts, and whether a script left its queue.

As a pytest plugin it checks this during a run of the whole suite, on every real server that the tests start:

    pytest -p tests.faults.monitor

A test fails if a script touches a key outside its queue. `audit` may use SCAN: it reads the names of all keys of the
server, but touches only its own.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from codecs import escape_decode
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from redisq.core.scripts import load, names
from redisq.embedded import Server

_LINE = re.compile(rb"^\+?(\d+\.\d+) \[\d+ ([^\]]*)\] (.*)$", re.DOTALL)
_WORD = re.compile(rb'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ALL_KEYS = {b"DEL", b"UNLINK", b"EXISTS", b"RENAME"}
_NO_KEYS = {b"TIME"}
# The first word is the key in all others that scripts call. A command in none of these lists is an error by itself.
_FIRST_KEY = set(
    b"GET HDEL HEXISTS HGET HINCRBY HLEN HMGET HRANDFIELD HSCAN HSET HSETNX LINDEX LLEN LPOP LPUSH LRANGE LSET LTRIM "
    b"PERSIST PEXPIRE RPUSH SADD SCARD SET SISMEMBER SMEMBERS SMISMEMBER SREM TYPE ZADD ZCARD ZCOUNT ZMSCORE "
    b"ZPOPMIN ZRANGE ZRANGEBYSCORE ZRANK ZREM ZREMRANGEBYRANK ZREMRANGEBYSCORE ZREVRANGE ZSCAN ZSCORE".split()
)
SCRIPTS = {load(name).sha.encode(): name for name in names()} | {load(name).text: name for name in names()}


@dataclass(frozen=True, slots=True)
class Command:
    """A line of MONITOR: time, client and command."""

    at: float
    client: bytes
    """its address; `lua` for a command of a script"""
    words: list[bytes]

    @property
    def name(self) -> bytes:
        """Return the command's name in capitals."""
        return self.words[0].upper()

    @property
    def keys(self) -> list[bytes]:
        """Return the keys of an EVAL or EVALSHA."""
        return self.words[3 : 3 + int(self.words[2])]

    @property
    def script(self) -> str | None:
        """Return the name of redisq's script that an EVAL or EVALSHA runs."""
        return SCRIPTS.get(self.words[1]) if self.name in (b"EVAL", b"EVALSHA") and len(self.words) > 1 else None


def parse(line: bytes) -> Command | None:
    """Parse a line of MONITOR."""
    match = _LINE.match(line)
    if not match:
        return None  # the +OK at the beginning
    words: list[Any] = [escape_decode(word)[0] for word in _WORD.findall(match[3])]
    return Command(float(match[1]), match[2], words)


def foreign_keys(commands: Iterable[Command]) -> Iterator[str]:
    """List what scripts were given or touched outside their queue, which a call's first key names."""
    queue, script = b"", None
    for command in commands:
        if command.client != b"lua":
            script = command.script
            if script:
                queue = re.sub(rb"(?s)}:.*", b"}:", command.keys[0])
                for key in command.keys:
                    if not queue.endswith(b"}:") or not key.startswith(queue):
                        yield f"{script} is given {key!r}"
        elif script:
            for key in touched(command, script):
                if not key.startswith(queue):
                    yield f"{script} of {queue!r} calls {b' '.join(command.words)!r}"


def touched(command: Command, script: str) -> list[bytes]:
    """Return the keys of a command in a script, or the name of a command that no script should call."""
    if command.name in _ALL_KEYS:
        return command.words[1:]
    if command.name in _FIRST_KEY:
        return command.words[1:2]
    if command.name in _NO_KEYS or (command.name == b"SCAN" and script.endswith("/audit")):
        return []
    return [command.name]


class Monitor:
    """A context manager whose thread reads MONITOR of the server at a unix socket's path.

    `inside`: the commands of scripts are kept as well.
    """

    def __init__(self, path: str, *, inside: bool = True) -> None:
        self.path = path
        self.inside = inside

    def __enter__(self) -> Monitor:
        self._socket = self._connect()
        self._buffer = bytearray()
        self._lock = threading.Lock()
        self._heard = threading.Condition(self._lock)
        self._ended = False
        self._socket.sendall(b"MONITOR\r\n")
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        self.commands()  # from here on it sees every command
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _connect(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX)
        try:
            made.connect(self.path)
        except OSError:  # the server has ended
            made.close()
            raise
        return made

    def _read(self) -> None:
        rest = b""
        with contextlib.suppress(OSError):
            while data := self._socket.recv(1 << 20):
                whole, end, rest = (rest + data).rpartition(b"\r\n")
                if not self.inside:
                    whole = b"\r\n".join(line for line in whole.split(b"\r\n") if b" lua] " not in line[:40])
                with self._lock:
                    self._buffer += whole + end if whole else b""
                    self._heard.notify()
        with self._lock:
            self._ended = True
            self._heard.notify()

    def lines(self) -> list[bytes]:
        """Return the lines since the last call; from a server that does not answer, those received so far."""
        mark = b"mark-%d" % threading.get_ident()
        with contextlib.suppress(OSError), self._connect() as ask:
            ask.settimeout(5)
            ask.sendall(b"ECHO %s\r\n" % mark)
            ask.recv(64)
            with self._lock:
                self._heard.wait_for(lambda: b'"ECHO" "%s"\r\n' % mark in self._buffer or self._ended, 5)
        with self._lock:
            received, self._buffer = bytes(self._buffer), bytearray()
        return [line for line in received.split(b"\r\n") if b'"ECHO" "mark-' not in line]

    def commands(self) -> list[Command]:
        """Return the commands since the last call."""
        return [command for command in map(parse, self.lines()) if command]


class _Watch:
    """The plugin, which watches every server that the tests start."""

    def __init__(self) -> None:
        self.monitors: dict[Server, Monitor] = {}
        self.found: list[str] = []
        self.commands = self.by_scripts = 0

    def patch(self) -> None:
        enter, stop = Server.__enter__, Server.stop

        def watched_enter(server: Server) -> Server:
            started = enter(server)
            with contextlib.suppress(OSError):
                self.monitors[server] = Monitor(server.socket).__enter__()
            return started

        def watched_stop(server: Server) -> None:
            monitor = self.monitors.pop(server, None)
            if monitor:
                self.check(monitor)
                monitor.__exit__()
            stop(server)

        Server.__enter__ = watched_enter  # type: ignore[method-assign]
        Server.stop = watched_stop  # type: ignore[method-assign, assignment]

    def check(self, monitor: Monitor) -> None:
        commands = monitor.commands()
        self.commands += len(commands)
        self.by_scripts += sum(command.client == b"lua" for command in commands)
        self.found += dict.fromkeys(foreign_keys(commands))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Generator[None, object, object]:
        result = yield
        for monitor in list(self.monitors.values()):
            self.check(monitor)
        found, self.found = self.found, []
        if found:
            pytest.fail("\n".join(["keys outside of the queue:", *found]))
        return result

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        output = getattr(session.config, "workeroutput", None)
        if output is not None:  # in a process of pytest-xdist
            output["monitor"] = [self.commands, self.by_scripts]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.write_line(f"MONITOR: {self.commands:,} commands, {self.by_scripts:,} of them by scripts")


class _Total:
    def __init__(self, watch: _Watch) -> None:
        self.watch = watch

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        commands, by_scripts = getattr(node, "workeroutput", {}).get("monitor", (0, 0))
        self.watch.commands += commands
        self.watch.by_scripts += by_scripts


def pytest_configure(config: pytest.Config) -> None:
    """Begin to watch, if this module was named as a plugin."""
    watch = _Watch()
    watch.patch()
    config.pluginmanager.register(watch, "redisq-monitor")
    config.pluginmanager.register(_Total(watch), "redisq-monitor-total")
