"""A proxy between clients and one Redis server that injects faults, and counts those that happened.

It parses whole commands and replies (RESP2 and RESP3), so a fault affects exactly one call: its request never reaches
the server, or it is carried out and the reply never reaches the client. It runs on an event loop in its own thread;
clients are blocking or asyncio, in this process or others. Every method may be called from any thread.

    with Proxy(server.socket) as proxy:                     # upstream: a unix socket's path, or (host, port)
        client = redis.Redis(port=proxy.port)
        proxy.inject(Fault.REPLY)                           # by hand: the next command's reply is lost
        proxy.plan = Seeded(7, {Fault.REPLY: 0.03, Fault.REQUEST: 0.03})
        proxy.block()                                       # a black hole, until proxy.unblock()
        proxy.block_existing()                              # a black hole for existing connections
        proxy.disconnect()                                  # close all connections
        proxy.injected[Fault.REPLY]                         # how often it happened

With `framed=False` it passes bytes on unparsed, for a stream that is not commands and replies, such as replication;
then only `block`, `unblock` and `disconnect` work.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping
from enum import Enum

SCRIPTS = (b"EVALSHA", b"EVAL")
_PIECE = 1 << 18


class Fault(Enum):
    """What can happen to one command. After all but `DELAY`, its connection cannot be used any more."""

    REQUEST = "the request is lost, and the connection is closed"
    REPLY = "it is carried out; the reply is lost, and the connection is closed"
    TORN_REQUEST = "half of the request arrives, then the connection is closed"
    TORN_REPLY = "it is carried out; half of the reply arrives, then the connection is closed"
    SILENT_REQUEST = "the request is lost, and the connection stays silent"
    SILENT_REPLY = "it is carried out; the reply is lost, and the connection stays silent"
    DELAY = "the reply is delayed"


LOST_REQUESTS = (Fault.REQUEST, Fault.TORN_REQUEST, Fault.SILENT_REQUEST)

Plan = Callable[[bytes, bytes], "Fault | None"]
"""Decides what happens to a command, given its name in capitals and its bytes."""


class Seeded:
    """A plan that draws faults from a seed, each with its probability; `only` for these commands, None: for all."""

    def __init__(
        self, seed: int, chances: Mapping[Fault, float], only: Collection[bytes] | None = (*SCRIPTS, b"BLPOP")
    ) -> None:
        self._random = random.Random(seed)
        self._chances = dict(chances)
        self._only = only

    def __call__(self, name: bytes, frame: bytes) -> Fault | None:  # noqa: ARG002
        """Draw the fault of one command."""
        if self._only is not None and name not in self._only:
            return None
        drawn = self._random.random()
        for fault, chance in self._chances.items():
            drawn -= chance
            if drawn < 0:
                return fault
        return None


class Frames:
    """A parser that splits a stream of bytes into whole commands or replies, looking at each byte once."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._parsed = 0  # up to here the frame is parsed
        self._open = 1  # values that are still missing from the frame

    def feed(self, data: bytes) -> list[bytes]:
        """Add bytes, and return the frames that they complete."""
        self._bytes += data
        found = []
        while self._value():
            if self._open == 0:
                found.append(bytes(self._bytes[: self._parsed]))
                del self._bytes[: self._parsed]
                self._parsed, self._open = 0, 1
        return found

    def _value(self) -> bool:
        end = self._bytes.find(b"\r\n", self._parsed)
        if end < 0:
            return False
        kind, rest = bytes(self._bytes[self._parsed : self._parsed + 1]), self._bytes[self._parsed + 1 : end]
        after, inside = end + 2, 0
        if kind in (b"$", b"=", b"!"):
            after += int(rest) + 2 if int(rest) >= 0 else 0  # -1: null
            if len(self._bytes) < after:
                return False
        elif kind in (b"*", b"~", b">"):
            inside = max(int(rest), 0)
        elif kind == b"%":
            inside = 2 * int(rest)
        elif kind == b"|":
            inside = 2 * int(rest) + 1  # attributes precede the value that they belong to
        self._parsed, self._open = after, self._open + inside - 1
        return True


def name_of(frame: bytes) -> bytes:
    """Return a command's name in capitals."""
    if not frame.startswith(b"*"):
        return frame.split(maxsplit=1)[0].upper() if frame.strip() else b""  # an inline command
    return frame.split(b"\r\n", 3)[2].upper()


class _Link:
    """A pair of connections: one to a client, one to the server."""

    def __init__(self, proxy: Proxy, client: socket.socket) -> None:
        self.proxy, self._client = proxy, client
        self.waiting: deque[Fault | None] = deque()  # for each command that the server has not answered yet
        self.answered = asyncio.Event()
        self.blocked = False
        self._epoch = proxy._epoch

    @property
    def silent(self) -> bool:
        """Whether the connection stays silent from now on."""
        return self.blocked or self._epoch < self.proxy._epoch

    async def run(self) -> None:
        """Pass everything on until either side closes, or a fault does."""
        tasks: list[asyncio.Task[None]] = []
        writers: list[asyncio.StreamWriter] = []
        try:
            self.reader, self.writer = await asyncio.open_connection(sock=self._client)
            writers.append(self.writer)
            replies, server = await self.proxy._upstream()
            writers.append(server)
            if self.proxy.framed:
                there, back = self._requests(server), self._replies(replies)
            else:
                there, back = self._bytes(self.reader, server), self._bytes(replies, self.writer)
            tasks = [asyncio.ensure_future(there), asyncio.ensure_future(back)]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        except OSError:
            pass  # no server: the client sees its connection closed, as it would without a proxy
        finally:
            # All of it begins before the first await: a link that `disconnect` cancelled is cancelled again at the end.
            for task in tasks:
                task.cancel()
            for writer in writers:
                writer.close()
            await asyncio.gather(*tasks, *(writer.wait_closed() for writer in writers), return_exceptions=True)

    async def _bytes(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_PIECE):
            await self._pass(writer, data)

    async def _pass(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        await self.proxy._unblocked.wait()
        writer.write(data)
        await writer.drain()

    async def _requests(self, server: asyncio.StreamWriter) -> None:
        frames = Frames()
        while data := await self.reader.read(_PIECE):
            for frame in frames.feed(data):
                if self.silent:
                    continue
                fault = self.proxy._draw(frame)
                if fault in LOST_REQUESTS:
                    await self.proxy._unblocked.wait()
                    self.proxy.injected[fault] += 1
                    if fault is Fault.SILENT_REQUEST:
                        self.blocked = True
                        continue
                    if fault is Fault.TORN_REQUEST:
                        await self._pass(server, frame[: len(frame) // 2])
                    while self.waiting:  # earlier commands of a pipeline are answered first
                        self.answered.clear()
                        await self.answered.wait()
                    return
                self.waiting.append(fault)
                await self._pass(server, frame)

    async def _replies(self, replies: asyncio.StreamReader) -> None:
        frames = Frames()
        while data := await replies.read(_PIECE):
            for frame in frames.feed(data):
                fault = self.waiting.popleft() if self.waiting else None
                self.answered.set()
                if self.silent:
                    continue
                if fault:
                    await self.proxy._unblocked.wait()
                    self.proxy.injected[fault] += 1
                if fault is Fault.DELAY:
                    await asyncio.sleep(self.proxy.delay)
                elif fault is Fault.SILENT_REPLY:
                    self.blocked = True
                    continue
                elif fault:
                    if fault is Fault.TORN_REPLY:
                        await self._pass(self.writer, frame[: len(frame) // 2])
                    return
                await self._pass(self.writer, frame)


class Proxy:
    """A context manager that listens on a loopback port, and passes everything on to `upstream`.

    `upstream` may be changed, for a server that restarts elsewhere: new connections go there. `plan` decides on each
    command that `inject` does not; `delay` is how many seconds `Fault.DELAY` delays a reply.
    """

    def __init__(
        self,
        upstream: str | tuple[str, int],
        plan: Plan | None = None,
        *,
        delay: float = 0.05,
        framed: bool = True,
        port: int = 0,
    ) -> None:
        self.upstream = upstream
        self.plan = plan
        self.delay = delay
        self.framed = framed
        self.host = "127.0.0.1"
        self.port = port
        self.injected: Counter[Fault] = Counter()
        self.commands: Counter[bytes] = Counter()
        """How often each command was received."""
        self._ordered: deque[tuple[Fault | None, Collection[bytes]]] = deque()
        self._links: set[asyncio.Task[None]] = set()
        self._epoch = 0
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._ready = threading.Event()
        self._failure: BaseException | None = None

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._ready.wait()
        if self._failure:
            raise self._failure
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    @property
    def url(self) -> str:
        """Return the URL for `redis.Redis.from_url`."""
        return f"redis://{self.host}:{self.port}"

    def inject(self, fault: Fault | None, times: int = 1, *, only: Collection[bytes] = SCRIPTS) -> None:
        """Apply this fault to the next `times` commands of those named in `only`; None: let them pass."""
        self._ordered.extend([(fault, only)] * times)

    def clear(self) -> None:
        """Cancel what `inject` has ordered and has not happened yet."""
        self._ordered.clear()

    def block(self) -> None:
        """Become a black hole: accept connections and bytes, and pass nothing on, in either direction."""
        self._call(self._unblocked.clear)

    def unblock(self) -> None:
        """End `block`; what was held back is passed on, as TCP would."""
        self._call(self._unblocked.set)

    def block_existing(self) -> None:
        """Make existing connections silent, as a firewall that dropped their state; new ones work."""

        def act() -> None:
            self._epoch += 1

        self._call(act)

    def disconnect(self) -> None:
        """Close all connections."""
        self._call(lambda: [link.cancel() for link in self._links])

    def _call(self, act: Callable[[], object]) -> None:
        done = threading.Event()
        self._loop.call_soon_threadsafe(act)
        self._loop.call_soon_threadsafe(done.set)
        done.wait()

    def _draw(self, frame: bytes) -> Fault | None:
        name = name_of(frame)
        self.commands[name] += 1
        if self._ordered and name in self._ordered[0][1]:
            return self._ordered.popleft()[0]
        return self.plan(name, frame) if self.plan else None

    async def _upstream(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self.upstream, str):
            return await asyncio.open_unix_connection(self.upstream)
        return await asyncio.open_connection(*self.upstream)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # raised in the thread that enters
            self._failure = error
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping, self._unblocked = asyncio.Event(), asyncio.Event()
        self._unblocked.set()
        # asyncio.start_server and sock_accept lose a connection that they are just accepting when they are stopped.
        with socket.create_server((self.host, self.port), backlog=1024) as listener:
            listener.setblocking(False)
            self.port = listener.getsockname()[1]
            self._loop.add_reader(listener, self._accept, listener)
            self._ready.set()
            await self._stopping.wait()
            self._loop.remove_reader(listener)
            for link in self._links:
                link.cancel()
            await asyncio.gather(*self._links, return_exceptions=True)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the client may have gone again
            client, _ = listener.accept()
            client.setblocking(False)
            # asyncio sets it on its own connections; without it, small replies are delayed by 40 ms.
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # A separate task, so that `disconnect` can cancel it; if that is before it begins, it closes nothing.
            link = asyncio.ensure_future(_Link(self, client).run())
            self._links.add(link)
            link.add_done_callback(self._links.discard)
            link.add_done_callback(lambda _: client.close())
