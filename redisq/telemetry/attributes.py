"""Attributes of spans and metrics: what is known of a queue, of batches, and of what was received."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from ..core.batch import BatchData

Attributes: TypeAlias = Mapping[str, Any]


def received(result: Any) -> tuple[int, Attributes]:
    """Return how many messages a reserve or a pop has given, and the attributes that say what they are."""
    if isinstance(result, BatchData):
        result = [result]
    if isinstance(result, list):
        if all(isinstance(one, BatchData) for one in result):
            return sum(len(batch.items) for batch in result), batch_attributes(result)
        count = len(result)
    elif isinstance(result, dict):  # pop_longest: group -> items
        count = sum(map(len, result.values()))
    else:
        return 1, {}
    return count, {"messaging.batch.message_count": count}


def batch_attributes(batches: Sequence[BatchData[Any]]) -> Attributes:
    """Return the attributes of batches; of a single one, which it is."""
    found: dict[str, Any] = {"messaging.batch.message_count": sum(len(batch.items) for batch in batches)}
    if len(batches) == 1:
        (batch,) = batches
        found |= {"messaging.redisq.batch.id": clean(batch.id), "messaging.redisq.attempts": batch.attempts}
        if batch.group is not None:
            found["messaging.redisq.group"] = clean(batch.group)
    return found


def server_of(client: Any) -> Attributes:
    """Return the address of a client's server, of a cluster that of a node it was given; nothing with Sentinel."""
    try:
        if hasattr(client, "nodes_manager"):
            node = next(iter(client.nodes_manager.startup_nodes.values()))
            return {"server.address": str(node.host), "server.port": int(node.port)}
        pool = client.connection_pool
        settings = pool.connection_kwargs
        if "path" in settings:
            return {"server.address": str(settings["path"])}
        if hasattr(pool, "service_name"):  # which server is the master may change
            return {}
        return {
            "server.address": str(settings.get("host", "localhost")),
            "server.port": int(settings.get("port", 6379)),
        }
    except Exception:  # another version of the library keeps it elsewhere
        return {}


def clean(text: str) -> str:
    """Return a text without lone surrogates, which no exporter can encode."""
    return text.encode("utf-8", "backslashreplace").decode()
