"""The scripts of `redisq/cli/steps` have headers in the form of those in `lua/`, and their bodies agree with them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from redisq.cli import steps
from redisq.core.scripts import Script

STEPS = sorted(Path(steps.__file__).parent.glob("*.lua"))


@pytest.mark.parametrize("path", STEPS, ids=lambda path: path.stem)
def test_header_and_body_agree(path: Path) -> None:
    script = Script(f"steps/{path.stem}", path.read_bytes())
    assert script.header[0] == f"-- {script.name}: {script.summary}"
    assert script.reply
    assert script.replay in {"once", "yes"}
    body = re.sub(r"--.*", "", script.text.decode("ascii").split("\n\n", 1)[1])
    assert set(script.errors) >= set(re.findall(r"error_reply\('([A-Z]+)", body))
    for slots, table in ((script.keys, "KEYS"), (script.args, "ARGV")):
        names = [slot.name for slot in slots if not slot.rest]
        assert [slot.rest for slot in slots] == [False] * len(names) + [True] * (len(slots) - len(names))
        unpacked = re.search(rf"local ([a-z_, ]+) = unpack\({table}(?:, 1, (\d+))?\)", body)
        if unpacked:
            given = unpacked[1].split(", ")
            assert given[: len(names)] == names
            assert len(given) <= len(slots)
            assert int(unpacked[2] or len(given)) == len(given)
