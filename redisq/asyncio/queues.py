"""All queues of a server, for asyncio."""

from __future__ import annotations

from collections.abc import Iterable

from ..core.queues import QueueInfo, QueueOverview, found, meta_key, meta_pattern, overviews
from .runner import Client, Runner


async def queues(client: Client, prefix: str = "redisq") -> list[QueueInfo]:
    """Find the queues of a server, or of all nodes of a cluster, by name.

    It scans the server's keys, in steps that do not block it; on a server with many other keys that takes a while. A
    queue that was emptied is found for seven days more, one that was never pushed to is not. Raises `InvalidArgument`
    for an empty prefix or one with `{` or `}`.
    """
    runner = Runner(client)
    return await _marked(runner, prefix, await runner.scan(meta_pattern(prefix), "hash"))


async def overview(client: Client, prefix: str = "redisq", names: Iterable[str] | None = None) -> list[QueueOverview]:
    """Count what each queue holds, of all that `queues` finds or of those with these names, by name.

    A hundred queues take one round trip. One that cannot be read, because its keys have another layout, has its error
    beside it; a name without a queue is left out. Finding all scans the server's keys: who looks often gives the names.
    Raises as `queues` does.
    """
    runner = Runner(client)
    if names is None:
        there = await queues(client, prefix)
    else:
        there = await _marked(runner, prefix, [meta_key(prefix, name) for name in names])
    return await runner.run(overviews(there, prefix))


async def _marked(runner: Runner, prefix: str, keys: list[bytes]) -> list[QueueInfo]:
    return found(prefix, keys, await runner.commands([("HGET", key, "queue") for key in keys]))
