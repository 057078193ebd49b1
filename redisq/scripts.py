"""The Lua scripts: where they are, what their headers promise, and the SHA1 by which the server knows them.

A header is the plain `--` lines from the top to the first blank line; `lua/README.md` gives its grammar. It is the
only description of a script, for people and for programs, and a test holds the body and the Python to it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

_TITLE = re.compile(r"^-- (?P<name>[a-z]+/[a-z_]+): (?P<summary>.+)$")
_SLOT = re.compile(
    r"^-- (?P<kind>KEYS|ARGV)\[(?P<index>\d+)(?P<rest>\+?)\]\s+(?P<name>\w+)\s+(?P<type>\w+)\s*(?P<note>.*)$"
)
_CLAUSE = re.compile(r"^-- (?P<kind>COMPUTES|REPLY|ERROR|REPLAY)\s+(?P<value>.+?)(?:\s{2,}(?P<note>.*))?$")


@dataclass(frozen=True)
class Slot:
    """Describe one KEYS or ARGV slot of a script; `rest` marks the one that takes all that follow."""

    name: str
    type: str
    note: str
    rest: bool = False


@dataclass(frozen=True)
class Script:
    """Hold one script: its name (`buffer/push`), its text byte for byte, and what its header declares."""

    name: str
    text: bytes

    @cached_property
    def sha(self) -> str:
        """Give the SHA1 of the text, as EVALSHA wants it."""
        return hashlib.sha1(self.text).hexdigest()

    @cached_property
    def header(self) -> list[str]:
        """Give the header's lines, without the flag line that only Dragonfly reads."""
        lines = self.text.decode("ascii").split("\n\n", 1)[0].split("\n")
        return lines[1:] if lines[0].startswith("--!df ") else lines

    @property
    def summary(self) -> str:
        """Give what the script does, in one line."""
        title = _TITLE.match(self.header[0])
        return title["summary"] if title else ""

    @property
    def keys(self) -> list[Slot]:
        """Give the declared keys, in order; a slot's note begins with the key's pattern."""
        return self._slots("KEYS")

    @property
    def args(self) -> list[Slot]:
        """Give the arguments, in order."""
        return self._slots("ARGV")

    @property
    def reply(self) -> str:
        """Give the shape of the reply."""
        return self.clauses("REPLY")[0]

    @property
    def errors(self) -> list[str]:
        """Give the codes with which the script refuses."""
        return self.clauses("ERROR")

    @property
    def replay(self) -> str:
        """Say what a second run with the same arguments does: `once`, `yes` (harmless) or `no`."""
        return self.clauses("REPLAY")[0]

    @property
    def computes(self) -> list[str]:
        """Give the patterns of the keys that the script computes by itself, under the guard key."""
        return self.clauses("COMPUTES")

    def clauses(self, kind: str) -> list[str]:
        """Give the values of all header lines of one kind."""
        return [m["value"] for m in map(_CLAUSE.match, self.header) if m and m["kind"] == kind]

    def _slots(self, kind: str) -> list[Slot]:
        matches = [m for m in map(_SLOT.match, self.header) if m and m["kind"] == kind]
        return [Slot(m["name"], m["type"], m["note"], m["rest"] == "+") for m in matches]


def directory() -> Path:
    """Give the folder of the scripts: inside the installed package, or beside it in a checkout."""
    inside = Path(__file__).parent / "lua"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "lua"


@cache
def load(name: str) -> Script:
    """Read one script by its name, such as `buffer/push`."""
    return Script(name, (directory() / f"{name}.lua").read_bytes())


def names() -> list[str]:
    """List the names of all scripts, sorted."""
    root = directory()
    return sorted(path.relative_to(root).with_suffix("").as_posix() for path in root.glob("*/*.lua"))
