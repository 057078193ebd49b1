"""The Python runner for the conformance cases of `lua/conformance`, whose README describes the format."""

from __future__ import annotations

import base64
import contextlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fakeredis
import redis

from redisq.core.scripts import directory, load
from tests.conftest import BINARIES, real_server

FOLDER = directory() / "conformance"
SLACK = 10_000  # ms by which a TTL or the clock may be read later than it was set

State = dict[bytes, tuple[bytes, Any, int]]


class Failure(Exception):
    """Raised when a server does not do what the case says."""


@dataclass(frozen=True)
class Case:
    """One case of a file, with the file's defaults."""

    script: str
    keys: list[Any]
    name: str
    given: list[Any]
    steps: list[dict[str, Any]]
    then: list[dict[str, Any]]

    def __str__(self) -> str:
        return f"{self.script}: {self.name}"


def read(path: Path) -> list[Case]:
    """Read the cases of one file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    script, keys = content["script"], content["keys"]
    return [
        Case(script, keys, case["name"], case.get("given", []), case["steps"], case.get("then", []))
        for case in content["cases"]
    ]


def cases() -> list[Case]:
    """Read every case of every file."""
    return [case for path in sorted(FOLDER.glob("*/*.json")) for case in read(path)]


def plain(value: Any) -> Any:
    """Expand `repeat` and return strings as bytes; what stands for more than one value stays as it is."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, list):
        return [plain(element) for element in expanded(value)]
    if isinstance(value, dict) and "base64" in value:
        return base64.b64decode(value["base64"])
    return value


def expanded(elements: list[Any]) -> list[Any]:
    """Replace each `repeat` of a list by its elements."""
    return [
        each
        for element in elements
        for each in (
            [numbered(each, str(i + 1)) for i in range(element["times"]) for each in element["repeat"]]
            if isinstance(element, dict) and "repeat" in element
            else [element]
        )
    ]


def numbered(value: Any, number: str) -> Any:
    """Replace each # in a value's strings by a number."""
    if isinstance(value, list):
        return [numbered(each, number) for each in value]
    if isinstance(value, dict):
        return {key: numbered(each, number) for key, each in value.items()}
    return value.replace("#", number) if isinstance(value, str) else value


def agree(expected: Any, got: Any, clock: int) -> bool:
    """Return whether a value is the expected one, with `repeat` expanded."""
    if isinstance(expected, dict) and "clock" in expected:
        return abs(float(got) - clock - int(expected["clock"])) < SLACK
    if isinstance(expected, dict) and "unordered" in expected:
        return isinstance(got, list) and _agree_in_any_order(plain(expected["unordered"]), got, clock)
    if isinstance(expected, dict):
        text = got if isinstance(got, bytes) else b"%d" % got
        return re.search(expected["match"].encode(), text) is not None
    if isinstance(expected, list):
        return (
            isinstance(got, list)
            and len(got) == len(expected)
            and all(agree(e, g, clock) for e, g in zip(expected, got, strict=True))
        )
    return type(expected) is type(got) and bool(expected == got)


def _agree_in_any_order(expected: list[Any], got: list[Any], clock: int) -> bool:
    left = list(got)
    for one in expected:
        found = next((i for i, other in enumerate(left) if agree(one, other, clock)), None)
        if found is None:
            return False
        del left[found]
    return not left


def state(client: redis.Redis) -> State:
    """Read the whole key space: each key's type, value and PTTL."""
    names: Any = client.keys()
    pipe = client.pipeline(transaction=False)
    for name in names:
        pipe.type(name)
        pipe.pttl(name)
    about = iter(pipe.execute())
    kinds = [(name, next(about), next(about)) for name in names]
    for name, kind, _ in kinds:
        if kind == b"zset":
            pipe.zrange(name, 0, -1, withscores=True)
        elif kind == b"list":
            pipe.lrange(name, 0, -1)
        elif kind == b"hash":
            pipe.hgetall(name)
        elif kind == b"set":
            pipe.smembers(name)
        else:
            pipe.get(name)
    values = pipe.execute()
    return {name: (kind, value, ttl) for (name, kind, ttl), value in zip(kinds, values, strict=True)}


def changed(given: State, then: list[dict[str, Any]]) -> State:
    """Return the key space that a case expects at the end, from the one at the beginning and its `then`."""
    found = dict(given)
    for key in expanded(then):
        if key["type"] == "none":
            found.pop(plain(key["key"]), None)
            continue
        value = plain(key["value"])
        if key["type"] == "zset":
            value = list(zip(value[::2], value[1::2], strict=True))
        elif key["type"] == "hash":
            value = dict(zip(value[::2], value[1::2], strict=True))
        elif key["type"] == "set":
            value = set(value)
        found[plain(key["key"])] = (key["type"].encode(), value, key.get("ttl", -1))
    return found


def _same_key(expected: tuple[bytes, Any, int], got: tuple[bytes, Any, int], clock: int) -> bool:
    kind, value, ttl = got
    # A TTL may be longer than what was left of it, if a script set it again.
    if kind != expected[0] or (ttl < 0) != (expected[2] < 0) or abs(ttl - expected[2]) >= SLACK:
        return False
    if kind == b"hash":
        fields = expected[1].keys() == value.keys()
        return fields and all(agree(expected[1][field], value[field], clock) for field in value)
    if kind != b"zset":
        return agree(expected[1], value, clock)
    return len(value) == len(expected[1]) and all(
        agree(wanted, member, clock)
        and (agree(score, got_score, clock) if isinstance(score, dict) else float(score) == got_score)
        for (wanted, score), (member, got_score) in zip(expected[1], value, strict=True)
    )


Text = Callable[[str], bytes]


def prepare(client: redis.Redis, case: Case) -> int:
    """Empty the server, set up the case's state and return the server's clock."""
    pipe: Any = client.pipeline(transaction=False)  # execute_command has no types in redis-py
    pipe.flushall()
    for command in plain(case.given):
        pipe.execute_command(*command)
    pipe.time()
    seconds, micros = pipe.execute()[-1]
    return int(seconds * 1000 + micros // 1000)


def send(client: redis.Redis, case: Case, step: dict[str, Any], text: Text) -> Any:
    """Send one step's call and return the reply, or the error."""
    raw: Any = client
    keys, argv = plain(step.get("keys", case.keys)), plain(step["argv"])
    try:
        return raw.execute_command("EVAL", text(step.get("script", case.script)), len(keys), *keys, *argv)
    except redis.ResponseError as error:
        return error


def _right(step: dict[str, Any], reply: Any, clock: int) -> bool:
    if not isinstance(reply, redis.ResponseError):
        return "reply" in step and agree(plain(step["reply"]), reply, clock)
    code = step.get("error")
    return code == str(reply).split(" ")[0] or (code == "WRONGTYPE" and code in str(reply))


def shipped(name: str) -> bytes:
    """Return a script's text from `lua`."""
    return load(name).text


def run(client: redis.Redis, case: Case, text: Text = shipped) -> None:
    """Run one case on a server, and raise Failure if it differs; `text` may return other scripts."""
    clock = prepare(client, case)
    expected = changed(state(client), case.then)
    for i, step in enumerate(case.steps, 1):
        reply = send(client, case, step, text)
        if not _right(step, reply, clock):
            raise Failure(f"{case}: step {i} gave {reply!r}, expected {step.get('error', step.get('reply'))}")
    got = state(client)
    if expected.keys() != got.keys() or not all(_same_key(expected[key], got[key], clock) for key in expected):
        wrong = {*got} ^ {*expected} | {
            key for key in {*got} & {*expected} if not _same_key(expected[key], got[key], clock)
        }
        differences = [f"{key!r} is {got.get(key)}, expected {expected.get(key)}" for key in sorted(wrong)]
        raise Failure(f"{case}: " + "; ".join(differences))


@contextlib.contextmanager
def fastest() -> Iterator[redis.Redis]:
    """Yield a client of the server that runs scripts fastest: a real one if there is one, else fakeredis."""
    client = next((real_server(label).client() for label in BINARIES), None) or fakeredis.FakeRedis()
    with contextlib.closing(client):
        yield client
