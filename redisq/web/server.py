"""What the server says of itself: its clock, how many keys it has, and what its settings may cost."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from ..asyncio.runner import Client
from ..core import doctor
from ..core.clients import errors, is_cluster, remedy_for
from ..core.doctor import Finding


@dataclass(frozen=True)
class Condition:
    """What was found about the server's settings."""

    findings: tuple[Finding, ...] = ()
    unread: str = ""
    """What could not be looked at, because this user may not."""
    product: str = ""


async def clock(client: Client) -> float:
    """Return the server's clock, by which leases and pauses run, in unix seconds; of a cluster that of any node."""
    async for _, options in _nodes(client):
        seconds, micros = _one(await _call(client, "TIME", **options))
        return int(seconds) + int(micros) / 1e6
    return time.time()


async def key_count(client: Client) -> int:
    """Count the keys of the server; 0 if this user may not ask."""
    try:
        return sum([int(_one(await _call(client, "DBSIZE", **options))) async for _, options in _nodes(client)])
    except errors("ResponseError"):
        return 0


async def condition(client: Client) -> Condition:
    """Look at INFO and CONFIG of the server, or of each master of a cluster."""
    found: dict[Finding, list[str]] = {}
    unread, product = [], ""
    async for name, options in _nodes(client):
        info = await _allowed(client, "INFO", **options)
        config: dict[str, Any] = {}
        for setting in ("save", "appendfsync", "timeout"):
            got = await _allowed(client, "CONFIG GET", setting, **options)
            if got is None:
                break
            config |= {_text(key): _text(value) for key, value in got.items()}
        if info is None:
            unread.append("INFO")
            continue
        if not config:
            unread.append("CONFIG")
        valkey = info.get("valkey_version")
        product = f"Valkey {valkey}" if valkey else f"Redis {info.get('redis_version', '?')}"
        for one in doctor.server(info, config):
            found.setdefault(one, []).append(name)
    findings = tuple(_named(one, names) for one, names in found.items())
    return Condition(findings, " and ".join(sorted(set(unread))), product)


def _named(one: Finding, nodes: list[str]) -> Finding:
    """Return what was found with the nodes of a cluster that it is about: one line for all that have it."""
    where = f"{len(nodes)} nodes: " if len(nodes) > 1 else f"{nodes[0]}: " if nodes[0] else ""
    return Finding(one.severity, where + one.subject, one.problem, one.remedy)


async def _allowed(client: Client, command: str, *args: str, **options: Any) -> Any:
    """Ask what many hosted servers and users do not allow; None if it is refused."""
    try:
        return _one(await _call(client, command, *args, **options))
    except errors("ResponseError") as error:
        if command == "INFO" and not remedy_for(error):
            raise
        return None


async def _nodes(client: Client) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Yield the server under an empty name, or each master of a cluster under its own, as options of a call."""
    cluster: Any = client
    if not is_cluster(client, "asyncio"):
        yield "", {}
        return
    await cluster.initialize()
    for node in cluster.get_primaries():
        yield str(node.name), {"target_nodes": node}


async def _call(client: Any, *args: Any, **options: Any) -> Any:
    return await client.execute_command(*args, **options)


def _one(reply: Any) -> Any:
    """Return a node's reply; some clients of a cluster name the node beside it."""
    if isinstance(reply, dict) and len(reply) == 1:
        (name,) = reply
        if isinstance(name, str) and ":" in name:
            return reply[name]
    return reply


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
