"""All queues of a server, blocking."""
# Written from the asyncio file of the same name by tools/async_to_sync.py: edit that one.

from __future__ import annotations

from collections.abc import Iterable

from ..core.queues import QueueInfo, QueueOverview, found, meta_key, meta_pattern, overviews
from .runner import Client, Runner


def queues(client: Client, prefix: str = "redisq") -> list[QueueInfo]:
    """Find the queues of a server, or of all nodes of a cluster, by name.

    It scans the server's keys, in steps that do not block it; on a server with many other keys that takes a while. A
    queue that was emptied is found for seven days more, one that was never pushed to is not. Raises `InvalidArgument`
    for an empty prefix or one with `{` or `}`.
    """
    runner = Runner(client)
    return _marked(runner, prefix, runner.scan(meta_pattern(prefix), "hash"))


def overview(client: Client, prefix: str = "redisq", names: Iterable[str] | None = None) -> list[QueueOverview]:
    """Count what each queue holds, of all that `queues` finds or of those with these names, by name.

    A hundred queues take one round trip. One that cannot be read, because its keys have another layout, has its error
    beside it; a name without a queue is left out. Finding all scans the server's keys: who looks often gives the names.
    Raises as `queues` does.
    """
    runner = Runner(client)
    if names is None:
        there = queues(client, prefix)
    else:
        there = _marked(runner, prefix, [meta_key(prefix, name) for name in names])
    return runner.run(overviews(there, prefix))


def _marked(runner: Runner, prefix: str, keys: list[bytes]) -> list[QueueInfo]:
    return found(prefix, keys, runner.commands([("HGET", key, "queue") for key in keys]))
