"""Scripts called by the names in their headers, so that no test depends on the position of a key or an argument."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import redis

from redisq.scripts import Slot, directory, load

Rates = Iterable[tuple[int, int]]


def exists(name: str) -> bool:
    """Say whether a script is there in layout 2; those of layout 1 declare a key named `layout`."""
    path = directory() / f"{name}.lua"
    return path.exists() and all(slot.name != "layout" for slot in load(name).keys)


class Raw:
    """The scripts of one queue.

    `Raw(client, b"redisq:{q}:").call("buffer/ack", id=b"L1", delay=0, window=1000, failed=[0, 2])` sends the keys and
    arguments that the header of `buffer/ack` names. The numbers of an `ints` slot are given by their own names, a rest
    slot as a list (of tuples, where several values belong together), `rates` as pairs of limit and per. `id`, `once`
    and `group` also complete the keys. What is left out is taken from `defaults`; `now` left out is the server's clock.
    """

    def __init__(self, client: redis.Redis, prefix: bytes, **defaults: Any) -> None:
        self.client = client
        self.prefix = prefix
        self.defaults = {"now": b"", **defaults}

    def call(self, name: str, **values: Any) -> Any:
        """Run a script and return its reply as it is; raise redis.ResponseError when the script refuses."""
        script = load(name)
        keys, args = self.command(name, values)
        try:
            return self.client.evalsha(script.sha, len(keys), *keys, *args)
        except redis.exceptions.NoScriptError:
            return self.client.eval(script.text, len(keys), *keys, *args)  # type: ignore[arg-type]

    def command(self, name: str, values: dict[str, Any]) -> tuple[list[bytes], list[Any]]:
        """Return the keys and arguments of a call."""
        script = load(name)
        given = {**self.defaults, **values}
        unused = values.keys() - {"id", "once", "group"}
        args: list[Any] = []
        for slot in script.args:
            if slot.fields:
                args.append(" ".join(str(_take(name, given, field.name)) for field in slot.fields))
            elif slot.rest:
                args += _flat(given.get(slot.name, ()))
            else:
                args.append(_encode(slot, _take(name, given, slot.name)))
            unused -= {slot.name, *(field.name for field in slot.fields)}
        if unused:
            raise TypeError(f"{name} has no argument named {', '.join(sorted(unused))}")
        return [self._key(name, slot, given) for slot in script.keys], args

    def _key(self, name: str, slot: Slot, given: dict[str, Any]) -> bytes:
        pattern = slot.note.split()[0]  # such as {queue}:items:<group>
        suffix = pattern.removeprefix("{queue}:").encode()
        if not (place := re.search(rb"<(\w+)>", suffix)):
            return self.prefix + suffix
        value = _take(name, given, "once" if suffix.startswith(b"once:") else place[1].decode())
        return self.prefix + suffix.replace(place[0], value if isinstance(value, bytes) else str(value).encode())


def _take(script: str, given: dict[str, Any], name: str) -> Any:
    if name not in given:
        raise TypeError(f"{script} needs {name}")
    return int(given[name]) if isinstance(given[name], bool) else given[name]


def _flat(values: Iterable[Any]) -> list[Any]:
    return [part for value in values for part in (value if isinstance(value, tuple) else (value,))]


def _encode(slot: Slot, value: Any) -> Any:
    if slot.type == "rates" and not isinstance(value, str | bytes):
        return "".join(f"{limit} {per};" for limit, per in value)
    return value
