"""A queue in another event loop, and after a fork."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import redisq.asyncio
from redisq import RedisqError
from redisq.embedded import Server
from tests.queues.any_client import REDIS, VALKEY, ClientKind

real = pytest.mark.server


@real
@pytest.mark.parametrize("library", ["redis", "valkey"])
async def test_another_event_loop_is_refused_while_the_first_is_open(server: Server, library: str) -> None:
    flavour = ClientKind("asyncio", library)
    async with flavour.client(unix_socket_path=server.socket) as client:
        queue = redisq.asyncio.Buffer[int](client, "q")
        await queue.push(1)
        calls: list[Callable[[], Any]] = [
            lambda: queue.push(2),
            lambda: queue.send(queue.calls.push([2])),
            lambda: queue.wait(1),
            lambda: queue.reserve_many(3),
        ]
        for call in calls:

            async def make(call: Callable[[], Any] = call) -> None:
                await call()

            with pytest.raises(RedisqError, match=r"another event loop.*for each event loop"):
                await asyncio.to_thread(lambda make=make: asyncio.run(make()))  # type: ignore[misc]
        assert await queue.pop(size=10) == [1]


def in_process(code: str, *arguments: str) -> str:
    """Run code in a separate process, and return its output."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


LOOPS = """
    import asyncio, sys
    import redis, redisq.asyncio
    import {library}.asyncio
    retry = {library}.asyncio.retry.Retry({library}.backoff.NoBackoff(), 0)
    client = {library}.asyncio.{client}(unix_socket_path=sys.argv[1], retry=retry, **{options})
    queue = redisq.asyncio.Buffer(client, "q")

    async def waits():
        with redis.Redis(unix_socket_path=sys.argv[1]) as direct:
            while not direct.info("clients")["blocked_clients"]:
                await asyncio.sleep(0.01)

    async def work(i):
        assert await asyncio.gather(*(queue.push(i, j) for j in range(5))) == [2, 4, 6, 8, 10]
        assert await queue.pop(size=10) == [i, 0, i, 1, i, 2, i, 3, i, 4]
        assert await queue.reserve(timeout=0.01) is None
        if i == 1:  # another queue with the same client, of the first loop too, does not touch what is in use
            waiting = asyncio.create_task(queue.wait(0.2))
            await waits()
            assert await other.push(1) == 2
            await waiting
        elif i == 0:
            assert await other.push(1) == 1
        if i:
            asyncio.create_task(queue.reserve(timeout=60))  # the end of the loop cancels it
            await waits()

    other = redisq.asyncio.Buffer(client, "other")
    for i in range(3):
        asyncio.run(work(i))
        print(i)
"""


@real
@pytest.mark.parametrize("options", [{}, {"single_connection_client": True}], ids=str)
@pytest.mark.parametrize("library", ["redis", "valkey"])
def test_another_event_loop_after_the_first_is_closed(server: Server, library: str, options: dict[str, Any]) -> None:
    """New connections are opened, also for a wait that the end of the first loop cancelled.

    In a separate process, because the connections of the first loop are never closed, of which Python warns.
    """
    code = LOOPS.format(library=library, client=library.capitalize(), options=options)
    assert in_process(code, server.socket).split() == ["0", "1", "2"]


FORKS = """
    import os, sys
    import {library}, redisq
    client = {library}.{client}(unix_socket_path=sys.argv[1])
    queue = redisq.Buffer(client, "q")
    queue.push(*range(100))
    queue.reserve(1).ack()
    out, into = os.pipe()
    children = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            for _ in range(10):
                batch = queue.reserve(1)
                os.write(into, f"{{batch.id}} {{batch.items[0]}} {{batch.holder}}\\n".encode())
                assert batch.ack() == 1
            os._exit(0)
        children.append(pid)
    for _ in range(10):
        batch = queue.reserve(1)
        os.write(into, f"{{batch.id}} {{batch.items[0]}} {{batch.holder}}\\n".encode())
        assert batch.ack() == 1
    assert all(os.waitpid(pid, 0)[1] == 0 for pid in children)
    os.close(into)
    print(os.read(out, 1 << 16).decode())
"""


@real
@pytest.mark.parametrize("flavour", [REDIS[0], VALKEY[0]], ids=str)
def test_a_queue_after_a_fork(server: Server, flavour: ClientKind) -> None:
    """In the child and in the parent: ids are unique, no connection is shared, and each has its own holder name."""
    code = FORKS.format(library=flavour.library, client=flavour.client.__name__)
    lines = [line.split() for line in in_process(code, server.socket).splitlines() if line]
    assert len(lines) == 50
    assert len({line[0] for line in lines}) == 50
    assert {int(line[1]) for line in lines} == set(range(1, 51))
    assert len({line[2] for line in lines}) == 5


ASYNC_FORKS = """
    import asyncio, os, sys
    import redis.asyncio, redisq.asyncio
    queue = redisq.asyncio.Buffer(redis.asyncio.Redis(unix_socket_path=sys.argv[1]), "q")

    async def work():
        await queue.push(1)
        batch = await queue.reserve(1)
        return batch.id

    def child(act):
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            try:
                act()
                sys.stdout.flush()
            finally:
                os._exit(0)
        os.waitpid(pid, 0)

    child(lambda: print(asyncio.run(work())))  # before it was used
    print(asyncio.run(work()))
    child(lambda: print(asyncio.run(work())))  # after its event loop was closed
    print(asyncio.run(work()))

    async def inside():
        await work()
        child(other_loop)
        print(await work())

    def other_loop():
        asyncio._set_running_loop(None)
        try:
            asyncio.run(work())
        except redisq.RedisqError as error:
            print(str(error).replace(" ", "_"))

    asyncio.run(inside())
"""


@real
def test_an_asyncio_queue_after_a_fork(server: Server) -> None:
    """It works if it was unused, or if its loop is closed; else there is a clear error, and no harm is done."""
    *ids, last = sorted(in_process(ASYNC_FORKS, server.socket).split(), key=lambda word: "fork" in word)
    assert "the_process_that_this_one_is_a_fork_of" in last
    assert len(set(ids)) == len(ids) == 5
