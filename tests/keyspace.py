"""Read a queue's whole key space back, in the form in which the model gives it."""

from __future__ import annotations

from typing import Any

import redis

from .model import Keys

_ZSETS = [b"groups", b"since", b"ready", b"leases", b"delayed", b"dead", b"paused_groups", b"grants"]
_TYPES = {
    **dict.fromkeys(_ZSETS, "zset"),
    **dict.fromkeys([b"meta", b"busy", b"again", b"rows", b"payloads"], "hash"),
    **dict.fromkeys([b"items", b"batch", b"lease", b"wake"], "list"),
    **dict.fromkeys([b"once", b"ended", b"paused"], "string"),
    b"held": "set",
}


def read(client: redis.Redis, queue: bytes, now: int) -> tuple[Keys, set[bytes]]:
    """Return what is stored under a prefix, and the names of those keys that have a TTL.

    A key of an unknown name or of another type is an error. A pause that has ended is left out.
    """
    every: Any = client.keys()
    names = sorted(key[len(queue) :] for key in every if key.startswith(queue))
    pipe = client.pipeline(transaction=False)
    for name in names:
        key, kind = queue + name, _TYPES[name.partition(b":")[0]]
        if kind == "zset":
            pipe.zrange(key, 0, -1, withscores=True)
        elif kind == "list":
            pipe.lrange(key, 0, -1)
        elif kind == "hash":
            pipe.hgetall(key)
        elif kind == "set":
            pipe.smembers(key)
        else:
            pipe.get(key)
        pipe.pttl(key)
    replies = pipe.execute()
    found: Keys = {}
    expiring = set()
    for name, value, ttl in zip(names, replies[::2], replies[1::2], strict=True):
        if name == b"paused" and 0 < int(value.split(b" ")[0]) <= now:
            continue
        found[name] = dict(value) if _TYPES[name.partition(b":")[0]] == "zset" else value
        if ttl >= 0:
            expiring.add(name)
    _shape(found)
    return found, expiring


def _shape(found: Keys) -> None:
    """Turn numbers inside texts into numbers, and leave out what does not count."""
    parked: set[bytes] = {member for place in (b"delayed", b"dead") for member in found.get(place, ())}  # type: ignore[attr-defined]
    for name, value in found.items():
        if isinstance(value, list) and name.startswith(b"lease:"):
            holder, *pairs = value
            found[name] = [holder, *zip(pairs[::2], map(float, pairs[1::2]), strict=True)]
        elif isinstance(value, dict) and name == b"again":
            found[name] = {member: _note(text) for member, text in value.items()}
        elif isinstance(value, dict) and name == b"rows":
            found[name] = {member: _row(text, member in parked) for member, text in value.items()}
        elif isinstance(value, dict) and name == b"meta":
            found[name] = {field: text for field, text in value.items() if text != b"0"}  # as if it were not there


def _note(text: bytes) -> object:
    if text == b"removed":
        return text
    score, due, how = text.split(b" ")
    return float(score), float(due), how


def _row(text: bytes, parked: bool) -> object:
    """Return score, attempts and reason; the score of a member that is ready or leased is elsewhere."""
    score, attempts, reason = text.split(b" ", 2)
    return float(score) if parked else None, int(attempts), reason


def dump(client: redis.Redis) -> dict[bytes, bytes]:
    """Return every key of the server with its DUMP: equal before and after means that nothing was written."""
    names: Any = client.keys()
    return {name: client.dump(name) or b"" for name in names}
