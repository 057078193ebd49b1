"""Read a queue's whole key space back, in the form in which the model gives it."""

from __future__ import annotations

from typing import Any

import redis

from .model import Keys

_TYPES = {
    **dict.fromkeys([b"groups", b"since", b"leases", b"delayed", b"dead", b"ready", b"later", b"grants"], "zset"),
    **dict.fromkeys([b"rows", b"meta"], "hash"),
    **dict.fromkeys([b"items", b"batch", b"lease", b"wake"], "list"),
    **dict.fromkeys([b"once", b"ended", b"layout"], "string"),
}


def read(client: redis.Redis, queue: bytes) -> Keys:
    """Return every key that begins with `queue`; a key of an unknown name or another type is an error."""
    every: Any = client.keys()
    names = sorted(key for key in every if key.startswith(queue))
    kinds = [_TYPES[name[len(queue) :].partition(b":")[0]] for name in names]
    pipe = client.pipeline(transaction=False)
    for name, kind in zip(names, kinds, strict=True):
        if kind == "zset":
            pipe.zrange(name, 0, -1, withscores=True)
        elif kind == "list":
            pipe.lrange(name, 0, -1)
        elif kind == "hash":
            pipe.hgetall(name)
    strings = [name for name, kind in zip(names, kinds, strict=True) if kind == "string"]
    pipe.mget([b"none", *strings])
    *values, texts = pipe.execute()
    read = iter(values)
    texts = iter(texts[1:])
    found: Keys = {}
    for name, kind in zip(names, kinds, strict=True):
        noun, colon, rest = name[len(queue) :].partition(b":")
        value = next(texts) if kind == "string" else next(read)
        found[noun.decode() + (f":{rest!r}" if colon else "")] = _shape(noun, kind, value)
    if "rows" in found:
        found["rows"] = _rows(found)
    return found


def dump(client: redis.Redis) -> dict[bytes, bytes]:
    """Return every key of the server with its DUMP: equal before and after means that nothing was written."""
    names: Any = client.keys()
    return {name: client.dump(name) or b"" for name in names}


def _shape(noun: bytes, kind: str, value: Any) -> object:
    if kind == "zset":
        return dict(value)
    if noun == b"items":
        return value[::-1]  # the oldest is on the right
    if noun == b"lease" and value[0] != b"held":
        # Calls in one round trip may change places, when the server forgot one's script: what each did counts.
        return sorted(zip(value[::2], value[1::2], strict=True))
    if noun == b"meta":
        return value[b"order"].decode(), int(value[b"sequence"])
    return value


def _rows(found: Keys) -> object:
    ready: Any = found.get("ready", {})
    rows: Any = found["rows"]
    shaped = {}
    for member, row in rows.items():
        score, attempts, asked, asked_due, owner = row.split(b" ", 4)
        noted = None if asked == b"-" else (float(asked), float(asked_due))
        shaped[member] = (None if member in ready else float(score), int(attempts), noted, owner)
    return shaped
