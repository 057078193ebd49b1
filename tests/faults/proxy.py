"""A proxy between clients and one Redis server that breaks what it is told to, and counts what it really broke.

It reads whole commands and whole replies (RESP2 and RESP3), so a fault strikes exactly one call: its request never
reaches the server, or it was carried out and the reply never reaches the client. It runs on an event loop in a thread
of its own; clients are blocking or asyncio, in this process or others. Every method may be called from any thread.

    with Proxy(server.socket) as proxy:                     # upstream: a unix socket's path, or (host, port)
        client = redis.Redis(port=proxy.port)
        proxy.strike(Fault.REPLY)                           # by hand: the next command's reply is lost
        proxy.plan = Seeded(7, {Fault.REPLY: 0.03, Fault.REQUEST: 0.03})
        proxy.deaf()                                        # a black hole, until proxy.hear()
        proxy.forget()                                      # a black hole for the connections that there are
        proxy.cut()                                         # all connections
        proxy.injected[Fault.REPLY]                         # how often it happened

With `framed=False` it passes bytes as they come, for a stream that is not commands and replies, such as replication's;
then only `deaf`, `hear` and `cut` work.
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
    """Name what may happen to one command. After all but `DELAY` its connection is of no more use."""

    REQUEST = "the request is lost, and the connection is cut"
    REPLY = "it was carried out; the reply is lost, and the connection is cut"
    TORN_REQUEST = "half of the request arrives, then the connection is cut"
    TORN_REPLY = "it was carried out; half of the reply arrives, then the connection is cut"
    SILENT_REQUEST = "the request is lost, and nothing more is heard"
    SILENT_REPLY = "it was carried out; the reply is lost, and nothing more is heard"
    DELAY = "the reply comes late"


LOST_REQUESTS = (Fault.REQUEST, Fault.TORN_REQUEST, Fault.SILENT_REQUEST)
LOST_REPLIES = (Fault.REPLY, Fault.TORN_REPLY, Fault.SILENT_REPLY)

Plan = Callable[[bytes, bytes], "Fault | None"]
"""Say what happens to a command, from its name in capitals and its bytes."""


class Seeded:
    """Strike commands at random: each fault with its probability, from a seed; `only` these commands, None: all."""

    def __init__(
        self, seed: int, chances: Mapping[Fault, float], only: Collection[bytes] | None = (*SCRIPTS, b"BLPOP")
    ) -> None:
        self._random = random.Random(seed)
        self._chances = dict(chances)
        self._only = only

    def __call__(self, name: bytes, frame: bytes) -> Fault | None:  # noqa: ARG002
        """Draw for one command."""
        if self._only is not None and name not in self._only:
            return None
        drawn = self._random.random()
        for fault, chance in self._chances.items():
            drawn -= chance
            if drawn < 0:
                return fault
        return None


class Frames:
    """Cut a stream of bytes into whole commands or replies, looking at each byte once."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._seen = 0  # up to here the frame is understood
        self._open = 1  # values that are still to come before it is whole

    def feed(self, data: bytes) -> list[bytes]:
        """Take more bytes and give the frames that they complete."""
        self._bytes += data
        found = []
        while self._value():
            if self._open == 0:
                found.append(bytes(self._bytes[: self._seen]))
                del self._bytes[: self._seen]
                self._seen, self._open = 0, 1
        return found

    def _value(self) -> bool:
        end = self._bytes.find(b"\r\n", self._seen)
        if end < 0:
            return False
        kind, rest = bytes(self._bytes[self._seen : self._seen + 1]), self._bytes[self._seen + 1 : end]
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
            inside = 2 * int(rest) + 1  # attributes go before the value that they are of
        self._seen, self._open = after, self._open + inside - 1
        return True


def name_of(frame: bytes) -> bytes:
    """Return a command's name in capitals."""
    if not frame.startswith(b"*"):
        return frame.split(maxsplit=1)[0].upper() if frame.strip() else b""  # an inline command
    return frame.split(b"\r\n", 3)[2].upper()


class _Link:
    """Join one client's connection to one of the server's."""

    def __init__(self, proxy: Proxy, client: socket.socket) -> None:
        self.proxy, self._client = proxy, client
        self.waiting: deque[Fault | None] = deque()  # of each command that the server has not answered yet
        self.answered = asyncio.Event()
        self.mute = False
        self._joined = proxy._forgotten

    @property
    def silent(self) -> bool:
        """Whether nothing more is heard on this connection."""
        return self.mute or self._joined < self.proxy._forgotten

    async def run(self) -> None:
        """Pass everything on until either side ends, or a fault ends it."""
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
            pass  # no server: the client sees its connection closed, as it would
        finally:
            # All of it begun before the first await: at the end of the proxy a link that `cut` ends is cancelled again.
            for task in tasks:
                task.cancel()
            for writer in writers:
                writer.close()
            await asyncio.gather(*tasks, *(writer.wait_closed() for writer in writers), return_exceptions=True)

    async def _bytes(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_PIECE):
            await self._pass(writer, data)

    async def _pass(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        await self.proxy._hearing.wait()
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
                    await self.proxy._hearing.wait()
                    self.proxy.injected[fault] += 1
                    if fault is Fault.SILENT_REQUEST:
                        self.mute = True
                        continue
                    if fault is Fault.TORN_REQUEST:
                        await self._pass(server, frame[: len(frame) // 2])
                    while self.waiting:  # what was sent before it, in a pipeline, has its own fate
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
                    await self.proxy._hearing.wait()
                    self.proxy.injected[fault] += 1
                if fault is Fault.DELAY:
                    await asyncio.sleep(self.proxy.delay)
                elif fault is Fault.SILENT_REPLY:
                    self.mute = True
                    continue
                elif fault:
                    if fault is Fault.TORN_REPLY:
                        await self._pass(self.writer, frame[: len(frame) // 2])
                    return
                await self._pass(self.writer, frame)


class Proxy:
    """Listen on a loopback port, from `with` to the end of it, and pass everything on to `upstream`.

    `upstream` may be set anew, for a server that comes back elsewhere: new connections go there. `plan` decides on
    each command that `strike` has not; `delay` is how many seconds `Fault.DELAY` holds a reply up.
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
        """How often each command came in."""
        self._ordered: deque[tuple[Fault | None, Collection[bytes]]] = deque()
        self._links: set[asyncio.Task[None]] = set()
        self._forgotten = 0
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

    def strike(self, fault: Fault | None, times: int = 1, *, only: Collection[bytes] = SCRIPTS) -> None:
        """Let the next `times` commands, of those named in `only`, meet this fault; None: let them pass."""
        self._ordered.extend([(fault, only)] * times)

    def spare(self) -> None:
        """Forget what `strike` has ordered and has not happened yet."""
        self._ordered.clear()

    def deaf(self) -> None:
        """Be a black hole: accept connections and bytes, and pass nothing on, in either direction."""
        self._call(self._hearing.clear)

    def hear(self) -> None:
        """End `deaf`; what was held back is passed on, as TCP would."""
        self._call(self._hearing.set)

    def forget(self) -> None:
        """Hear nothing more on the connections that there are, as a firewall that forgot them; new ones are heard."""

        def act() -> None:
            self._forgotten += 1

        self._call(act)

    def cut(self) -> None:
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
        except BaseException as error:  # the thread that enters raises it
            self._failure = error
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping, self._hearing = asyncio.Event(), asyncio.Event()
        self._hearing.set()
        # asyncio.start_server, and sock_accept, lose a connection that they are just accepting when they are ended.
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
        with contextlib.suppress(OSError):  # who knocked may have gone again
            client, _ = listener.accept()
            client.setblocking(False)
            # asyncio does it for connections that it has made or accepted itself: else small replies wait 40 ms.
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # A task of its own, so that `cut` and the end can end it; one that is ended before it began closes nothing.
            link = asyncio.ensure_future(_Link(self, client).run())
            self._links.add(link)
            link.add_done_callback(self._links.discard)
            link.add_done_callback(lambda _: client.close())
