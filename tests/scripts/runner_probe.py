"""A conformance case that uses the whole format, and changes that make it fail, to test runners in any language."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from redisq.core.queue import patterns
from redisq.core.scripts import directory, load, names


def _keys(queue: str, script: str, **values: str) -> list[str]:
    """Return the keys of a call, from the header of its script."""
    return [f"redisq:{{{queue}}}:{noun.decode()}{values[name] if name else ''}" for noun, name in patterns(script)]


def _key(name: str, kind: str, value: Any, queue: str = "q", **more: Any) -> dict[str, Any]:
    return {"key": f"redisq:{{{queue}}}:{name}", "type": kind, "value": value, **more}


CASE: dict[str, Any] = {
    "script": "buffer/push",
    "keys": _keys("q", "buffer/push", group="g", id="t"),
    "cases": [
        {
            "name": "everything that the format has",
            "given": [
                {"repeat": [["LPUSH", "redisq:{q}:items:g", "#", {"base64": "/w=="}]], "times": 2},
                ["ZADD", "redisq:{q}:groups", "4", "g"],
                ["ZADD", "redisq:{q}:since", "5", "g"],
                ["SET", "redisq:{q}:other", "#"],
                ["SET", "redisq:{q}:kept", "1", "PX", "60000"],
                ["ZADD", "redisq:{s}:ready", "1", "z"],
            ],
            "steps": [
                {"argv": ["g", "back", "60000", "", {"repeat": ["é#"], "times": 3}], "reply": 7},
                {"argv": ["g", "back", "60000", ""], "reply": {"match": "^[67]$"}},
                {"argv": ["g", "side", "60000", ""], "error": "BADARG"},
                {
                    "script": "priority/push",
                    "keys": _keys("p", "priority/push", id="t"),
                    "argv": ["fifo", "min", "5 0 2", "", "1", "m"],
                    "reply": "A",
                },
                {
                    "script": "priority/push",
                    "keys": _keys("r", "priority/push", id="t"),
                    "argv": ["score", "min", "0 0 3", "", "1", "x", "payload"],
                    "reply": "A",
                },
                {
                    "script": "priority/push",
                    "keys": _keys("r", "priority/push", id="t"),
                    "argv": ["score", "min", "0 0 2", "", "2", "y"],
                    "reply": "A",
                },
                {
                    "script": "priority/reserve",
                    "keys": _keys("r", "priority/reserve", id="l"),
                    "argv": ["score", "l", "5 30000 0 0 0 0", "h", ""],
                    "reply": [
                        "batch",
                        {"clock": 30000},
                        {"unordered": ["y", {"match": "^[12]$"}, "2", "x"]},
                        [],
                        ["payload", None],
                        [],
                    ],
                },
                {
                    "script": "priority/pop",
                    "keys": _keys("s", "priority/pop"),
                    "argv": ["score", "1", ""],
                    "reply": [0, ["z", "1"], [], []],
                },
            ],
            "then": [
                _key("groups", "zset", ["g", "7.0"]),
                _key("since", "zset", ["g", "5"]),
                _key("items:g", "list", [{"base64": "/w=="}, "2", {"base64": "/w=="}, "1", "é1", "é2", "é3"]),
                _key("once:t", "string", "7", ttl=60000),
                _key("wake", "list", ["1"]),
                _key("meta", "hash", ["queue", "2 buffer"]),
                _key("other", "string", "#"),
                _key("delayed", "zset", ["m", {"clock": 5}], "p"),
                _key("rows", "hash", ["m", "1025000000000001 0 "], "p"),
                _key("meta", "hash", ["sequence", "1", "queue", "2 fifo"], "p"),
                _key("wake", "list", ["1"], "p"),
                _key("held", "set", ["y", "x"], "r"),
                _key("leases", "zset", ["l", {"clock": 30000}], "r"),
                _key("lease:l", "list", ["h", "x", "1", "y", "2"], "r"),
                _key("payloads", "hash", ["x", "payload"], "r"),
                _key("meta", "hash", ["queue", "2 score"], "r"),
                _key("wake", "list", ["1"], "r"),
                {"key": "redisq:{s}:ready", "type": "none"},
            ],
        }
    ],
}
_KEY_PLACES = {f"{key['key'][8]} {key['key'][11:]}": i for i, key in enumerate(CASE["cases"][0]["then"])}
Edit = Callable[[dict[str, Any]], object]


def _then(name: str, edit: Edit) -> Edit:
    """Change one key that is expected at the end."""
    return lambda case: edit(case["then"][_KEY_PLACES[name]])


def _reply_element(place: int, value: Any) -> Edit:
    """Change one element of the last step's reply."""
    return lambda case: case["steps"][6]["reply"].__setitem__(place, value)


WRONG: dict[str, Edit] = {
    "another number": lambda case: case["steps"][0].update(reply=8),
    "text for a number": lambda case: case["steps"][0].update(reply="7"),
    "a list for a number": lambda case: case["steps"][0].update(reply=[7]),
    "no match": lambda case: case["steps"][1].update(reply={"match": "^[89]$"}),
    "an error for a reply": lambda case: case["steps"][2].update(reply=7) or case["steps"][2].pop("error"),
    "a reply for an error": lambda case: case["steps"][1].update(error="BADARG") or case["steps"][1].pop("reply"),
    "another error": lambda case: case["steps"][2].update(error="LAYOUT"),
    "no error of a script's": lambda case: case["steps"][2].update(error="WRONGTYPE"),
    "other text": lambda case: case["steps"][3].update(reply="AA"),
    "nil for text": _reply_element(4, [None, None]),
    "text for nil": _reply_element(4, ["payload", ""]),
    "another time in a reply": _reply_element(1, {"clock": 60000}),
    "another element in any order": _reply_element(2, {"unordered": ["y", "1", "2", "z"]}),
    "an element twice in any order": _reply_element(2, {"unordered": ["y", "y", "2", "x"]}),
    "an element less in any order": _reply_element(2, {"unordered": ["y", "1", "2"]}),
    "an element more in any order": _reply_element(2, {"unordered": ["y", "1", "2", "x", "x"]}),
    "a list in another order": _reply_element(2, ["y", "1", "2", "x"]),
    "another score": _then("q groups", lambda key: key.update(value=["g", "8"])),
    "another member": _then("q groups", lambda key: key.update(value=["h", "7"])),
    "another time": _then("p delayed", lambda key: key.update(value=["m", {"clock": 20000}])),
    "an infinite time": _then("p delayed", lambda key: key.update(value=["m", "inf"])),
    "another order": _then("q items:g", lambda key: key["value"].reverse()),
    "other bytes": _then("q items:g", lambda key: key["value"].__setitem__(3, {"base64": "/g=="})),
    "fewer times": lambda case: case["steps"][0]["argv"][4].update(times=2),
    "an element less": _then("q items:g", lambda key: key["value"].pop()),
    "no ttl": _then("q once:t", lambda key: key.pop("ttl")),
    "a shorter ttl": _then("q once:t", lambda key: key.update(ttl=40000)),
    "a longer ttl": _then("q once:t", lambda key: key.update(ttl=80000)),
    "a ttl where none is": _then("q wake", lambda key: key.update(ttl=60000)),
    "another type": _then("q other", lambda key: key.update(type="list", value=["#"])),
    "another type alone": _then("p rows", lambda key: key.update(type="list", value=[key["value"]])),
    "a list for a set": _then("r held", lambda key: key.update(type="list")),
    "other string": _then("q other", lambda key: key.update(value="1")),
    "another field": _then("p meta", lambda key: key["value"].__setitem__(0, "sequel")),
    "another value": _then("p meta", lambda key: key["value"].__setitem__(1, "2")),
    "another member of a set": _then("r held", lambda key: key.update(value=["x", "z"])),
    "a member of a set less": _then("r held", lambda key: key.update(value=["x"])),
    "a member of a set more": _then("r held", lambda key: key.update(value=["x", "y", "z"])),
    "a key too many": lambda case: case["then"].pop(_KEY_PLACES["r wake"]),
    "a key too few": lambda case: case["then"].append(_key("more", "string", "1")),
    "a key that should be missing": lambda case: case["then"].pop(),
    "a key that should exist": lambda case: case["then"].append({"key": "redisq:{q}:kept", "type": "none"}),
    "another value of a key that stays": lambda case: case["then"].append(_key("kept", "string", "2", ttl=60000)),
    "another ttl of a key that stays": lambda case: case["then"].append(_key("kept", "string", "1", ttl=80000)),
    "nothing changes": lambda case: case.pop("then"),
}


def write(folder: Path) -> Path:
    """Copy the scripts without their cases, and write the case that passes; return its file."""
    shutil.copytree(directory(), folder, ignore=shutil.ignore_patterns("*.json"))
    file = folder / "conformance/buffer/push.json"
    file.write_text(json.dumps(CASE))
    return file


def wrong() -> dict[str, Any]:
    """Return a file with one case for each change, named after it."""
    cases = []
    for name, edit in WRONG.items():
        case = {**copy.deepcopy(CASE["cases"][0]), "name": name}
        edit(case)
        cases.append(case)
    return {**CASE, "cases": cases}


def headers() -> dict[str, Any]:
    """Return what Python parses from each script's header: keys, arguments with their numbers, and the limits."""
    return {
        name: [
            [[noun.decode(), value] for noun, value in patterns(name)],
            [[slot.name, [field.name for field in slot.fields]] for slot in load(name).args],
            {
                one.name: one.high
                for slot in load(name).args
                for one in (slot, *slot.fields)
                if one.high is not None and one.high < 2**53  # JavaScript's integers
            },
        ]
        for name in names()
    }
