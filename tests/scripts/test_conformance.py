"""The conformance cases pass on every server, follow their format, and reach every branch of every script."""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import redis

from redisq.core.scripts import load, names
from tests.scripts import conformance, conformance_cases, runner_probe
from tests.scripts.conformance import FOLDER, Case, Failure, plain
from tests.scripts.lua_code import RECORD, marked

pytestmark = pytest.mark.every_server

CASES = {name: conformance.read(FOLDER / f"{name}.json") for name in names()}
EVERY = [case for cases in CASES.values() for case in cases]

# A branch that no case can reach, as "script: text of the line", and why.
_RETRY = "retry, granted = math.max(free == granted and retry or 0, (at or now) + per + 1 - now), free"
UNREACHABLE = {
    **dict.fromkeys(
        [
            f"{name}: return tonumber(answer) or answer"
            for name in (
                *("buffer/discard", "buffer/pause", "buffer/pause_group", "buffer/push", "buffer/resume"),
                *("buffer/resume_group", "priority/discard", "priority/pause", "priority/redrive", "priority/remove"),
                "priority/resume",
            )
        ],
        "the answers are numbers; the idiom is shared with priority/push",
    ),
    **dict.fromkeys(
        [f"{name}: {_RETRY}" for name in ("buffer/reserve", "priority/reserve")],
        "a cost of one is granted whole or not at all; the idiom is shared with acquire",
    ),
    "limit/acquire: if longest > 0 then": "it always has rates; the idiom is shared with reserve",
    "priority/pop: if max_attempts ~= '0' and tonumber(attempts) >= tonumber(max_attempts) then": (
        "pop applies no max_attempts; the idiom is shared with reserve"
    ),
    "priority/reserve: new[#new + 1], new[#new + 2] = "
    "member, score .. ' ' .. tried .. ' ' .. (reason == '' and earlier or reason)": (
        "an expired lease is a reason; the idiom is shared with release"
    ),
    "priority/reserve: for i, row in ipairs(#due > 0 and call('HMGET', rows, unpack(due)) or {}) do": (
        "it is reached only if something is due; the idiom is shared with pop"
    ),
    "buffer/purge: doom(busy, 'HDEL', call('HRANDFIELD', busy, limit) or {}, 'items:', 0)": "fakeredis answers nil",
}


@pytest.mark.parametrize("name", names())
def test_cases_pass(client: redis.Redis, name: str) -> None:
    """Each case of each script: its replies, its errors and the whole key space after it."""
    failures = []
    for case in CASES[name]:
        try:
            conformance.run(client, case)
        except Failure as failure:
            failures.append(str(failure))
    assert not failures, "\n".join(failures)


def test_the_runner_detects_each_kind_of_difference(client: redis.Redis, tmp_path: Path) -> None:
    """A case that uses the whole format passes, and fails with any one value changed."""
    file = tmp_path / "cases.json"
    file.write_text(json.dumps(runner_probe.CASE))
    (whole,) = conformance.read(file)
    conformance.run(client, whole)
    file.write_text(json.dumps(runner_probe.wrong()))
    missed = []
    for case in conformance.read(file):
        with contextlib.suppress(Failure):
            conformance.run(client, case)
            missed.append(case.name)
    assert missed == []


def test_there_is_a_file_for_each_script_and_no_other() -> None:
    assert {path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.glob("**/*.json")} == set(names())
    assert len(EVERY) >= 1500


@pytest.mark.parametrize("name", names())
def test_the_files_are_up_to_date(name: str) -> None:
    """`python -m tests.scripts.write_conformance` would write the same."""
    assert (FOLDER / f"{name}.json").read_text(encoding="utf-8") == conformance_cases.file(name)


def words(value: Any) -> bool:
    """Return whether a list has valid arguments: strings, bytes, and repetitions."""
    return isinstance(value, list) and all(
        isinstance(each, str)
        or (isinstance(each, dict) and each.keys() == {"base64"})
        or (isinstance(each, dict) and each.keys() == {"repeat", "times"} and words(each["repeat"]))
        for each in value
    )


def command_lists(value: Any) -> bool:
    """Return whether a list has commands, and repetitions of them."""
    return isinstance(value, list) and all(
        words(each) or (isinstance(each, dict) and each.keys() == {"repeat", "times"} and command_lists(each["repeat"]))
        for each in value
    )


@pytest.mark.parametrize("name", names())
def test_format(name: str) -> None:
    """Each file, case, step and key has what the README describes, and nothing else; keys are those of the header."""
    content = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    assert content.keys() == {"script", "keys", "cases"}
    assert content["script"] == name
    for key, slot in zip(content["keys"], load(name).keys, strict=True):
        pattern = re.escape(slot.note.split()[0]).replace("queue", "q")
        assert re.fullmatch(re.sub(r"<\w+>", r"\\w+", pattern), key), key
    for case in content["cases"]:
        assert {"name", "steps"} <= case.keys() <= {"name", "given", "steps", "then"}
        assert command_lists(case.get("given", [])), case
        assert case["steps"]
        for step in case["steps"]:
            assert {"argv"} < step.keys() <= {"script", "keys", "argv", "reply", "error"}, step
            assert ("reply" in step) != ("error" in step)
            assert words(step["argv"]), step
            assert words(step.get("keys", []))
            assert step.get("error", "WRONGTYPE") in [*load(step.get("script", name)).errors, "WRONGTYPE"]
        for key in conformance.expanded(case.get("then", [])):
            if key["type"] != "none":
                assert {"key", "type", "value"} <= key.keys() <= {"key", "type", "value", "ttl"}, key
                assert key["type"] in {"string", "list", "zset", "hash", "set"}
            assert isinstance(plain(key["key"]), bytes)
    twice = [title for title, count in Counter(case["name"] for case in content["cases"]).items() if count > 1]
    assert not twice


@pytest.mark.parametrize("name", names())
def test_the_cases_cover_errors_and_repeated_calls(name: str) -> None:
    """Every ERROR of the header occurs, a call is sent twice if it has an id, and the server's clock is used once."""
    script = load(name)
    own = [[step for step in case.steps if step.get("script", name) == name] for case in CASES[name]]
    assert {step["error"] for steps in own for step in steps if "error" in step} >= set(script.errors)
    sent_twice = [steps for steps in own for i, step in enumerate(steps) if "reply" in step and step in steps[:i]]
    assert sent_twice or script.replay not in {"once", "lease"}
    slots = [slot.name for slot in script.args]
    if "now" in slots:
        place = slots.index("now")
        assert [step for steps in own for step in steps if "reply" in step and step["argv"][place:][:1] == [""]]


def reached(client: redis.Redis, case: Case, text: bytes) -> set[str]:
    """Run a case with a marked script and return the marks that it reached."""
    conformance.prepare(client, case)
    for step in case.steps:
        conformance.send(client, case, step, lambda name: text if name == case.script else load(name).text)
    met: Any = client.hkeys(RECORD)
    return {mark.decode() for mark in met}


@pytest.mark.parametrize("name", names())
def test_every_branch_is_reached(name: str) -> None:
    """Each condition both ways, and each loop, function and right-hand side of an `and` or `or`."""
    source = load(name).text.decode("ascii")
    text, points = marked(source)
    with conformance.fastest() as client:
        met = set[str]().union(*(reached(client, case, text.encode()) for case in CASES[name]))
    missing = {point for mark, point in points.items() if mark not in met}
    lines = source.split("\n")
    missed = {f"{name}: {lines[int(point.split()[1][:-1]) - 1].strip()}": point for point in missing}
    assert {key: point for key, point in missed.items() if key not in UNREACHABLE} == {}
    assert not [key for key in UNREACHABLE if key.startswith(f"{name}: ") and key not in missed], "reachable after all"
