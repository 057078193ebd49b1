"""Reading a queue's whole key space, in the form that the model uses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis

from tests.model import Keys

_ZSETS = [b"groups", b"since", b"ready", b"leases", b"delayed", b"dead", b"paused_groups", b"grants"]
_TYPES = {
    **dict.fromkeys(_ZSETS, "zset"),
    **dict.fromkeys([b"meta", b"busy", b"again", b"rows", b"payloads"], "hash"),
    **dict.fromkeys([b"items", b"batch", b"lease", b"wake"], "list"),
    **dict.fromkeys([b"once", b"ended", b"paused"], "string"),
    b"held": "set",
}

# One round trip for any number of keys.
_READ = """
local found = {}
for i, key in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do
  local kind, value = redis.call('TYPE', key).ok, nil
  if kind == 'zset' then
    value = redis.call('ZRANGE', key, '0', '-1', 'WITHSCORES')
  elseif kind == 'list' then
    value = redis.call('LRANGE', key, '0', '-1')
  elseif kind == 'hash' then
    value = redis.call('HGETALL', key)
  elseif kind == 'set' then
    value = redis.call('SMEMBERS', key)
  else
    value = redis.call('GET', key)
  end
  found[i] = { key, kind, redis.call('PTTL', key), value }
end
return found
"""

_CONVERT: dict[bytes, Callable[[Any], object]] = {
    b"zset": lambda flat: dict(zip(flat[::2], map(float, flat[1::2]), strict=True)),
    b"hash": lambda flat: dict(zip(flat[::2], flat[1::2], strict=True)),
    b"set": set,
    b"list": list,
    b"string": bytes,
}


def read(client: redis.Redis, queue: bytes, now: int) -> tuple[Keys, set[bytes]]:
    """Return what is stored under a prefix, and the names of the keys with a TTL."""
    every: Any = client.eval(_READ, 0, queue)
    return shape(every, queue, now)


def shape(every: list[Any], queue: bytes, now: int) -> tuple[Keys, set[bytes]]:
    """Convert keys (name, type, TTL and value of each) to the model's form.

    A key with an unknown name or another type is an error. A pause that has ended is left out.
    """
    found: Keys = {}
    expiring = set()
    for key, kind, ttl, value in every:
        name = key[len(queue) :]
        if kind.decode() != _TYPES[name.partition(b":")[0]]:
            raise AssertionError(f"{key!r} is a {kind.decode()}")
        if name == b"paused" and 0 < int(value.split(b" ")[0]) <= now:
            continue
        found[name] = _CONVERT[kind](value)
        if ttl >= 0:
            expiring.add(name)
    _shape(found)
    return found, expiring


def _shape(found: Keys) -> None:
    """Convert numbers in texts to numbers, and leave out what does not count."""
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
            found[name] = {field: text for field, text in value.items() if text != b"0"}  # as if it did not exist


def _note(text: bytes) -> object:
    if text == b"removed":
        return text
    score, due, how = text.split(b" ")
    return float(score), float(due), how


def _row(text: bytes, parked: bool) -> object:
    """Return score, attempts and reason; the score of a ready or leased member is elsewhere."""
    score, attempts, reason = text.split(b" ", 2)
    return float(score) if parked else None, int(attempts), reason


def dump(client: redis.Redis) -> dict[bytes, bytes]:
    """Return every key of the server with its DUMP; an equal result means that nothing was written."""
    names: Any = client.keys()
    return {name: client.dump(name) or b"" for name in names}
