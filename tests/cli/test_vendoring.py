"""Vendored copies: the scripts byte for byte, and how a copy that differs is reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from redisq.cli import main
from redisq.core.scripts import directory, load, names
from redisq.vendoring import describe, export, verify


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a new vendored copy."""
    export(tmp_path / "vendor")
    return tmp_path / "vendor"


def test_a_copy_is_complete(copy: Path) -> None:
    """Scripts, cases, READMEs and the manifest, and nothing else."""
    pasted = {*directory().rglob("*.inc")}  # shared code is already in each script
    ours = {path.relative_to(directory()): path.read_bytes() for path in {*directory().rglob("*.*")} - pasted}
    theirs = {path.relative_to(copy): path.read_bytes() for path in copy.rglob("*.*")}
    assert theirs.pop(Path("manifest.json"))
    assert theirs == ours
    assert verify(copy) == []
    assert export(copy) == []


def test_the_manifest_matches_the_headers(copy: Path) -> None:
    """For each script: name, SHA1, keys, arguments, reply, errors, replay and the oldest server."""
    manifest: dict[str, Any] = json.loads((copy / "manifest.json").read_text())
    assert manifest["layout"] == 2
    assert [script["name"] for script in manifest["scripts"]] == names()
    for script in manifest["scripts"]:
        assert script == json.loads(json.dumps(describe(load(script["name"]))))
        assert script["sha1"] == load(script["name"]).sha
        assert {"keys", "args", "reply", "errors", "replay", "minimum_server"} <= set(script)
    push = next(script for script in manifest["scripts"] if script["name"] == "priority/push")
    options = next(slot for slot in push["args"] if slot["name"] == "options")
    delay = options["fields"][0]
    assert (delay["name"], delay["low"], delay["high"]) == ("delay", 0, 99_999_999_999)


def test_differences_are_reported(copy: Path) -> None:
    """A changed, a missing and an unknown script, a changed case, and a folder in place of a file."""
    pop = copy / "buffer" / "pop.lua"
    pop.write_bytes(pop.read_bytes().replace(b"LPOP", b"RPOP"))
    (copy / "buffer" / "push.lua").unlink()
    (copy / "buffer" / "glance.lua").write_text("-- from another version\n")
    (copy / "conformance" / "buffer" / "pop.json").write_text("{}")
    (copy / "README.md").unlink()
    (copy / "README.md").mkdir()
    found = dict(verify(copy))
    assert set(found) == {
        "README.md",
        "buffer/glance.lua",
        "buffer/pop.lua",
        "buffer/push.lua",
        "conformance/buffer/pop.json",
    }
    assert found["buffer/pop.lua"].startswith("changed: SHA1 ")
    assert found["buffer/push.lua"] == "missing"
    assert found["buffer/glance.lua"] == "unknown"
    assert found["README.md"].startswith("unreadable")


def test_export_and_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`export` says what it wrote, `verify` exits with 0 or 1, both also as JSON; a bad folder is a one-line error."""
    target = str(tmp_path / "vendor")
    assert main(["lua", "verify", target]) == 1
    assert "redisq lua export" in capsys.readouterr().err
    assert main(["lua", "export", target]) == 0
    assert "Commit it whole" in capsys.readouterr().out
    assert main(["lua", "verify", target]) == 0
    (tmp_path / "vendor" / "limit" / "acquire.lua").unlink()
    capsys.readouterr()
    assert main(["lua", "verify", target, "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == [{"path": "limit/acquire.lua", "what": "missing"}]
    assert main(["lua", "export", target, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["written"] == ["limit/acquire.lua"]
    (tmp_path / "file").write_text("")
    assert main(["lua", "export", str(tmp_path / "file")]) == 1
    assert "cannot write" in capsys.readouterr().err
