"""The JSON form of the cases: strings, numbers, key spaces, and repetitions."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from tests.model import Keys
from tests.scripts.conformance import numbered

PREFIX = "{q}:"
CLOCK = 2_718_281_828_459
"""as `now` of a call: the server's clock; times near it are expected relative to the clock"""
FEWEST = 5
"""the least number of elements for a `repeat`"""

Json = Any


def number(value: float) -> str:
    """Write a number as Redis does."""
    return f"{value:.0f}" if value % 1 == 0 and abs(value) < 1e17 else f"{value:.17g}"


def near_clock(value: float) -> bool:
    """Return whether a number is a time by the server's clock."""
    return abs(value - CLOCK) < 10**11


def string(value: bytes | str) -> Json:
    """Write a string, in base64 if it is not UTF-8; any time by the server's clock becomes a pattern."""
    if isinstance(value, str):
        return value
    if str(CLOCK)[:8].encode() in value:
        text = re.sub(r"([^\w ])", r"\\\1", value.decode())
        return {"match": "^" + re.sub(rf"{str(CLOCK)[:8]}\d{{5}}", r"\\d{13}", text) + "$"}
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}


def reply(value: object) -> Json:
    """Write a reply; floats are numbers in strings."""
    if isinstance(value, float):
        return {"clock": int(value - CLOCK)} if near_clock(value) else number(value)
    if isinstance(value, int):
        return {"clock": value - CLOCK} if near_clock(value) else value
    if isinstance(value, list | tuple):
        return repeated([reply(one) for one in value])
    if value is None or isinstance(value, dict):
        return value
    assert isinstance(value, bytes | str)
    return string(value)


def words(values: Iterable[object]) -> list[Json]:
    """Write arguments."""
    return repeated([_word(value) for value in values])


def _word(value: Any) -> Json:
    return str(value) if isinstance(value, int) else number(value) if isinstance(value, float) else string(value)


# -- key spaces


def as_bytes(value: Any) -> Any:
    """Convert every str of a value to bytes."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict):
        return {as_bytes(name): as_bytes(one) for name, one in value.items()}
    if isinstance(value, list | tuple | set):
        return type(value)(as_bytes(one) for one in value)
    return value


def kind_of(value: object) -> str:
    """Return the type of a key with this value: numbers are scores of a zset, any other dict is a hash."""
    if isinstance(value, dict):
        numbers = all(isinstance(one, int | float) for one in value.values())
        return "zset" if numbers else "hash"
    return "list" if isinstance(value, list) else "set" if isinstance(value, set) else "string"


def commands(keys: Keys, ttl: Mapping[bytes, int]) -> list[Json]:
    """Write the commands that set up a key space."""
    found = []
    for name, value in keys.items():
        key = string(PREFIX.encode() + name)
        kind = kind_of(value)
        values = _values(value, kind)
        if kind == "zset":
            values = [part for member, score in zip(values[::2], values[1::2], strict=True) for part in (score, member)]
        verb = {"zset": "ZADD", "hash": "HSET", "list": "RPUSH", "set": "SADD", "string": "SET"}[kind]
        command = [verb, key, *repeated(values)]
        if kind == "string" and name in ttl:
            command += ["PX", str(ttl[name])]
        found.append(command)
        if kind != "string" and name in ttl:
            found.append(["PEXPIRE", key, str(ttl[name])])
    return repeated(found)


def changes(before: Keys, keys: Keys, ttl_before: Mapping[bytes, int], ttl: Mapping[bytes, int]) -> list[Json]:
    """Write how a key space changes."""
    found: list[Json] = [{"key": string(PREFIX.encode() + name), "type": "none"} for name in before if name not in keys]
    for name, value in keys.items():
        kind = kind_of(value)
        values = _values(value, kind)
        shown = values[0] if kind == "string" else repeated(values)
        one = {"key": string(PREFIX.encode() + name), "type": kind, "value": shown}
        if name in ttl:
            one["ttl"] = ttl[name]
        if name not in before or before[name] != value or ttl_before.get(name) != ttl.get(name):
            found.append(one)
    return repeated(found)


def _values(value: Any, kind: str) -> list[Json]:
    if kind == "zset":
        pairs = sorted((score, member) for member, score in value.items())
        return [part for score, member in pairs for part in (string(member), _score(score))]
    if kind == "hash":
        return [string(part) for pair in value.items() for part in pair]
    if kind == "set":
        return [string(member) for member in sorted(value)]
    return [string(value)] if kind == "string" else [string(one) for one in value]


def _score(score: float) -> Json:
    return {"clock": int(score - CLOCK)} if near_clock(score) else number(score)


# -- repetition


def repeated(values: list[Json]) -> list[Json]:
    """Write repeated elements once, numbered from 1 or unchanged."""
    found: list[Json] = []
    at = 0
    while at < len(values):
        for size in (1, 2, 3):
            times, template = _run(values, at, size)
            if times >= FEWEST:
                found.append({"repeat": template, "times": times})
                at += times * size
                break
        else:
            found.append(values[at])
            at += 1
    return found


def _run(values: list[Json], at: int, size: int) -> tuple[int, list[Json]]:
    """Return how often a template fits from here on, and the template."""
    first, second = values[at : at + size], values[at + size : at + 2 * size]
    try:
        template = _template(first, second)
    except ValueError:
        return 0, []
    times = 0
    while values[at + times * size : at + (times + 1) * size] == numbered(template, str(times + 1)):
        times += 1
    return times, template


def _template(first: Json, second: Json) -> Json:
    """Return a template that gives the first value with 1 and the second with 2; raise ValueError if there is none."""
    if isinstance(first, str) and isinstance(second, str):
        starts = [at for at, letter in enumerate(first) if letter == "1"]
        made = [first, *(first[:at] + "#" + first[at + 1 :] for at in starts)]
        found = [one for one in made if "#" not in first and numbered(one, "2") == second]
        if found:
            return found[0]
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        return [_template(one, two) for one, two in zip(first, second, strict=True)]
    elif isinstance(first, dict) and isinstance(second, dict) and first.keys() == second.keys():
        return {name: _template(first[name], second[name]) for name in first}
    elif first == second:
        return first
    raise ValueError


# -- files


def dump(script: str, keys: list[str], cases: list[dict[str, Json]]) -> str:
    """Write a file: one command, step or key a line."""
    shown = [",\n".join(_part(name, value) for name, value in case.items()) for case in cases]
    head = f'{{"script": {_line(script)},\n "keys": {_line(keys)},\n "cases": [\n'
    return head + ",\n".join(f"{{{case}}}" for case in shown) + "\n]}\n"


def _part(name: str, value: Json) -> str:
    if isinstance(value, list):
        return f' "{name}": [\n' + ",\n".join(f"  {_line(one)}" for one in value) + "]"
    return f'"{name}": {_line(value)}'


def _line(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
