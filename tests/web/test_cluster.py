"""A cluster's queues are on all of its nodes, and the dashboard shows them all."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from redis.asyncio.cluster import RedisCluster as AsyncCluster
from redis.cluster import RedisCluster

from redisq import Buffer, PriorityQueue, Rate
from redisq.cli.web import Pages
from redisq.web import app
from tests.faults.cluster import cluster
from tests.web.conftest import BASE, SAME_ORIGIN


@pytest.mark.timeout(300)
async def test_queues_of_all_nodes(binary: Path) -> None:
    with cluster(binary) as made:
        host, port = "127.0.0.1", made.nodes[0].port
        with RedisCluster(host=host, port=port) as client:
            for i in range(9):
                buffer: Buffer[int] = Buffer(client, f"b{i}", rates=[Rate(9, 60)])
                buffer.push(1, 2, group="g/x")
                buffer.reserve(1)
                queue = PriorityQueue(client, f"p{i}")
                queue.push("dead", 3)
                batch = queue.reserve()
                assert batch
                batch.bury("bad")
                queue.push("ready", 7)
            async with AsyncCluster(host=host, port=port) as asked:
                transport = httpx.ASGITransport(app(asked, allow=["redrive"]))
                async with httpx.AsyncClient(transport=transport, base_url=BASE) as browser:
                    found = (await browser.get("/api/queues")).json()
                    assert len(found["queues"]) == 18
                    assert [one["subject"] for one in found["warnings"]] == ['3 nodes: appendonly no, save ""']
                    assert found["queues"][0]["rates_used"] == {"granted": 1, "seconds": 60.0}
                    for i in range(9):
                        (one,) = (await browser.get(f"/api/queues/b{i}/leased")).json()["leased"]
                        assert one["group"] == "g/x"
                        (member,) = (await browser.get(f"/api/queues/p{i}/members")).json()["members"]
                        assert member["priority"] == 7
                        answer = await browser.post(f"/queues/p{i}/redrive", data={"all": "1"}, headers=SAME_ORIGIN)
                        assert answer.status_code == 303
                        assert PriorityQueue(client, f"p{i}").stats().dead == 0
                    assert (await browser.get("/healthz")).text == "ok\n"


@contextlib.asynccontextmanager
async def forwarded(listener: socket.socket, port: int) -> AsyncIterator[None]:
    """Hand what comes to a socket on to a port."""

    async def hand_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    tasks: set[asyncio.Task[None] | None] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(hand_on(reader, back), hand_on(there, writer))

    server = await asyncio.start_server(connected, sock=listener)
    try:
        yield
    finally:
        server.close()
        for task in tasks:
            if task is not None:
                task.cancel()


@pytest.mark.timeout(300)
async def test_a_cluster_that_is_down_at_first_is_found_out(binary: Path) -> None:
    with socket.socket() as listener, cluster(binary) as made:
        listener.bind(("127.0.0.1", 0))  # and refuses, until somebody listens
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}"
        with RedisCluster(host="127.0.0.1", port=made.nodes[0].port) as client:
            for i in range(9):
                Buffer(client, f"b{i}").push(i)
        pages = Pages(url, app)
        assert await pages.connect()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(pages), base_url=BASE) as browser:
            assert "Redis does not answer" in (await browser.get("/")).text
            assert (await browser.get("/live")).status_code == 503  # it would go on with the wrong client
            assert (await browser.get("/healthz")).status_code == 503
            async with forwarded(listener, made.nodes[0].port):
                assert (await browser.get("/healthz")).text == "ok\n"
                assert len((await browser.get("/api/queues")).json()["queues"]) == 9
                for i in range(9):
                    assert (await browser.get(f"/queues/b{i}")).status_code == 200
                await pages.close()
