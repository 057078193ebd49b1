"""Connections of asyncio clients, which tests close to the last one."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any, TypeVar

C = TypeVar("C")


@contextlib.asynccontextmanager
async def closing_connections(client: C) -> AsyncIterator[C]:
    """Use an asyncio client, of one server or a cluster, and close all of its connections, however it was used.

    Some are left open by the client's own `aclose`: those of a pool that was passed in, and those of a cluster's client
    that is about to look for the nodes again. An error or every fifth MOVED makes it close its connections and do that
    before the next call, but the rest of the same call may connect again, and `aclose` takes it for closed.
    """
    made: Any = client
    try:
        async with made as made:
            yield made
    finally:
        if manager := getattr(made, "nodes_manager", None):
            for nodes in ("nodes_cache", "startup_nodes"):
                await manager.aclose(nodes)
        else:
            await made.connection_pool.disconnect()
