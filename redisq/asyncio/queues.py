"""All queues of a server, for asyncio."""

from __future__ import annotations

from ..core.queues import QueueInfo, found, meta_pattern
from .runner import Client, Runner


async def queues(client: Client, prefix: str = "redisq") -> list[QueueInfo]:
    """Find the queues of a server, or of all nodes of a cluster, by name.

    It scans the server's keys, in steps that do not block it; on a server with many other keys that takes a while. A
    queue that was emptied is found for seven days more, one that was never pushed to is not. Raises `InvalidArgument`
    for an empty prefix or one with `{` or `}`.
    """
    runner = Runner(client)
    keys = await runner.scan(meta_pattern(prefix), "hash")
    return found(prefix, keys, await runner.commands([("HGET", key, "queue") for key in keys]))
