"""The scripts for other stacks: a folder to copy into one's own repository, and what differs in such a copy later.

What is vendored is `lua/` as it stands, byte for byte, with a `manifest.json` that is made from the headers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from . import __version__
from .core.doctor import MINIMUM
from .core.queues import LAYOUT
from .core.scripts import Script, directory, load, names

MANIFEST = "manifest.json"


class Difference(NamedTuple):
    """A file of a vendored copy that is not as this version has it."""

    path: str
    what: str
    """missing, changed, unknown: a script that this version does not have, or unreadable."""


def describe(script: Script) -> dict[str, Any]:
    """Return what a script's header declares, for programs in any language."""
    return {
        "name": script.name,
        "sha1": script.sha,
        "summary": script.summary,
        "keys": [asdict(slot) for slot in script.keys],
        "args": [asdict(slot) for slot in script.args],
        "reply": script.reply,
        "errors": script.errors,
        "replay": script.replay,
        "computes": script.computes,
        "minimum_server": MINIMUM,
    }


def manifest() -> dict[str, Any]:
    """Return the whole manifest: the version, and each script's header."""
    return {"version": __version__, "layout": LAYOUT, "scripts": [describe(load(name)) for name in names()]}


def files() -> Iterator[tuple[str, bytes]]:
    """Yield every file of a vendored copy: scripts, conformance cases, READMEs, and last the manifest."""
    root = directory()
    for path in sorted(root.rglob("*")):
        if path.suffix in {".lua", ".json", ".md"}:
            yield path.relative_to(root).as_posix(), path.read_bytes()
    yield MANIFEST, (json.dumps(manifest(), indent=2, ensure_ascii=False) + "\n").encode()


def export(target: Path) -> list[str]:
    """Write a copy into a folder, and return the paths that were new or other before; other files there stay.

    The manifest is written last: a copy that has this version's is whole. Raises `OSError` where a file cannot be
    written.
    """
    written = []
    for name, data in files():
        path = target / name
        if not path.is_file() or path.read_bytes() != data:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            written.append(name)
    return written


def verify(target: Path) -> list[Difference]:
    """Compare a copy with this version, file by file; an empty list says that it is the same."""
    ours = dict(files())
    found = [Difference(name, what) for name, data in ours.items() if (what := _compare(target / name, data))]
    there = {path.relative_to(target).as_posix() for path in target.rglob("*.lua")}
    return found + [Difference(name, "unknown") for name in sorted(there - ours.keys())]


def _compare(path: Path, data: bytes) -> str:
    try:
        held = path.read_bytes()
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"unreadable: {error.strerror}"
    if held == data:
        return ""
    if path.suffix == ".lua":
        return f"changed: SHA1 {hashlib.sha1(held).hexdigest()}, here {hashlib.sha1(data).hexdigest()}"
    return "changed"
