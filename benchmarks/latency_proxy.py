"""A proxy between two unix sockets that adds a delay to every round trip, as a network would.

It runs as a process of its own, on uvloop if that is installed, because it is not what is measured. It still takes
processor time that the workers and the server would have had: figures with it are for comparing contenders.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import cast


async def _serve(path: str, upstream: str, seconds: float) -> None:
    loop = asyncio.get_running_loop()

    class Side(asyncio.Protocol):
        """One side of a connection, which forwards what comes, late or at once."""

        def __init__(self, late: float) -> None:
            self.late, self.early = late, b""
            self.delayed: deque[bytes] = deque()
            self.other: asyncio.Transport | None = None

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = cast("asyncio.Transport", transport)  # uvloop's is none by name
            if self.late:
                self.joining = loop.create_task(self.join())

        async def join(self) -> None:
            _, server = await loop.create_unix_connection(lambda: Side(0), upstream)
            server.other, self.other = self.transport, server.transport
            self.forward(self.early)

        def data_received(self, data: bytes) -> None:
            if self.late:
                # In the order in which it came: timers of the same ms may fire in another.
                self.delayed.append(data)
                loop.call_later(self.late, lambda: self.forward(self.delayed.popleft()))
            else:
                self.forward(data)

        def forward(self, data: bytes) -> None:
            if self.other is None:
                self.early += data
            elif data and not self.other.is_closing():
                self.other.write(data)

        def connection_lost(self, _: Exception | None) -> None:
            if self.other:
                self.other.close()

    server = await loop.create_unix_server(lambda: Side(seconds), path)
    print("ready", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)  # until the parent is gone, in whatever way
    server.close()


@contextlib.contextmanager
def delayed(upstream: str, seconds: float) -> Iterator[str]:
    """Start the proxy in front of a socket, yield its own, and end it."""
    with tempfile.TemporaryDirectory(prefix="redisq-") as directory:
        path = os.path.join(directory, "latency.sock")
        command = [sys.executable, "-m", "benchmarks.latency_proxy", path, upstream, str(seconds)]
        root = Path(__file__).parent.parent
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root, start_new_session=True
        ) as proxy:
            assert proxy.stdin
            assert proxy.stdout
            try:
                if proxy.stdout.readline() != b"ready\n":
                    raise RuntimeError("the latency proxy did not start")
                yield path
            finally:
                proxy.stdin.close()


if __name__ == "__main__":
    with contextlib.suppress(ImportError):
        import uvloop

        uvloop.install()
    asyncio.run(_serve(sys.argv[1], sys.argv[2], float(sys.argv[3])))
