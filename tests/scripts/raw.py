"""Scripts called by the names in their headers, so that no test depends on the position of a key or an argument."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import redis

from redisq.core.scripts import Slot, load, names

__all__ = ["Raw", "exists", "load"]


@cache
def exists(name: str) -> bool:
    """Return whether there is such a script."""
    return name in names()


class Raw:
    """The scripts of one queue.

    `Raw(client, b"redisq:{q}:").call("buffer/ack", id=b"L1", delay=0, window=1000, failed=[0, 2])` sends the keys and
    arguments that the header of `buffer/ack` names. Numbers of an `ints` slot are given by their own names, a rest slot
    as a list (of tuples, if several values belong together), `rates` as pairs of limit and per. `id`, `once` and
    `group` also complete the keys. Missing values come from `defaults`; without `now`, the server's clock is used.
    """

    def __init__(self, client: redis.Redis, prefix: bytes, **defaults: Any) -> None:
        self.client = client
        self.prefix = prefix
        self.defaults = {"now": b"", **defaults}

    def call(self, name: str, **values: Any) -> Any:
        """Run a script and return its raw reply; raise redis.ResponseError if the script refuses."""
        script = load(name)
        keys, args = self.command(name, values)
        try:
            return self.client.evalsha(script.sha, len(keys), *keys, *args)
        except redis.exceptions.NoScriptError:
            return self.client.eval(script.text, len(keys), *keys, *args)  # type: ignore[arg-type]

    def command(self, name: str, values: dict[str, Any]) -> tuple[list[bytes], list[Any]]:
        """Return the keys and arguments of a call."""
        script = load(name)
        given = _Given(name, {**self.defaults, **values})
        keys = [self._key(slot, given) for slot in script.keys]
        args: list[Any] = []
        for slot in script.args:
            if slot.fields:
                args.append(" ".join(str(given.take(field.name)) for field in slot.fields))
            elif slot.rest or slot.note.startswith("0..1 "):  # any number, or one that may be left out
                args += _flat(given.take(slot.name, ()))
            elif slot.type == "rates":
                args.append("".join(f"{limit} {per};" for limit, per in given.take(slot.name)))
            else:
                args.append(given.take(slot.name))
        if unused := values.keys() - given.taken - {"id", "once", "group"}:
            raise TypeError(f"{name} has no argument named {', '.join(sorted(unused))}")
        return keys, args

    def keys(self, name: str, values: dict[str, Any]) -> list[bytes]:
        """Return the keys of a call."""
        given = _Given(name, values)
        return [self._key(slot, given) for slot in load(name).keys]

    def _key(self, slot: Slot, given: _Given) -> bytes:
        before, name = _pattern(slot.note)
        if not name:
            return self.prefix + before
        value = given.take(name)
        return self.prefix + before + (value if isinstance(value, bytes) else str(value).encode())


@cache
def _pattern(note: str) -> tuple[bytes, str]:
    """Return the beginning of a key's note, such as `{queue}:items:<group>`, as a constant and a value."""
    before, _, name = note.split()[0].removeprefix("{queue}:").partition("<")
    return before.encode(), "once" if before == "once:" else name.removesuffix(">")


class _Given:
    """The values for a call, and which of them were used."""

    def __init__(self, script: str, values: dict[str, Any]) -> None:
        self.script = script
        self.values = values
        self.taken: set[str] = set()

    def take(self, name: str, *default: Any) -> Any:
        if name not in self.values and not default:
            raise TypeError(f"{self.script} needs {name}")
        self.taken.add(name)
        value = self.values.get(name, *default)
        return int(value) if isinstance(value, bool) else value


def _flat(values: Iterable[Any]) -> list[Any]:
    return [part for value in values for part in (value if isinstance(value, tuple) else (value,))]
