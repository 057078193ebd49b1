"""The Lua scripts: where they are, what their headers promise, and the SHA1 by which the server knows them.

A header is the plain `--` lines from the top to the first blank line; `lua/README.md` gives its grammar. It is the
only description of a script, for people and for programs, and a test holds the body and the Python to it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

_TITLE = re.compile(r"^-- (?P<name>[a-z]+/[a-z_]+): (?P<summary>.+)$")
_SLOT = re.compile(
    r"^-- (?P<kind>KEYS|ARGV)\[(?P<index>\d+)(?P<rest>\+?)\]\s+(?P<name>\w+)\s+(?P<type>\w+)\s*(?P<note>.*)$"
)
_FIELD = re.compile(r"^--\s{3,}(?P<name>\w+)\s+(?P<note>-?\d+(?:\.\.| \| ).*)$")
_RANGE = re.compile(r"^(-?\d+)(?:\.\.| \| )(-?\d+)?(?=\s|$)")
_COUNT = re.compile(r"(?:^|\s)(\d+)\.\.(\d+) of them")
_CLAUSE = re.compile(r"^-- (?P<kind>COMPUTES|REPLY|ERROR|REPLAY)\s+(?P<value>.+?)(?:\s{2,}(?P<note>.*))?$")


@dataclass(frozen=True)
class Slot:
    """One KEYS or ARGV slot of a script, or one number of an `ints` slot.

    `rest` marks the slot that takes all that follow. `low` and `high` are the bounds that the header states: of the
    number, or, for a rest slot, of how many values there may be. None: not stated.
    """

    name: str
    type: str
    note: str
    rest: bool = False
    low: int | None = None
    high: int | None = None
    fields: tuple[Slot, ...] = ()
    """the numbers of an `ints` slot, in order"""


@dataclass(frozen=True)
class Script:
    """One script: its name (`buffer/push`), its text byte for byte, and what its header declares."""

    name: str
    """Its path without the ending, such as `buffer/push`."""
    text: bytes
    """Its text, byte for byte."""

    @cached_property
    def sha(self) -> str:
        """The SHA1 of the text, as EVALSHA wants it."""
        return hashlib.sha1(self.text).hexdigest()

    @cached_property
    def header(self) -> list[str]:
        """The header's lines, without the flag line that only Dragonfly reads."""
        lines = self.text.decode("ascii").split("\n\n", 1)[0].split("\n")
        return lines[1:] if lines[0].startswith("--!df ") else lines

    @property
    def summary(self) -> str:
        """What the script does, in one line."""
        title = _TITLE.match(self.header[0])
        return title["summary"] if title else ""

    @cached_property
    def keys(self) -> list[Slot]:
        """The declared keys, in order; a slot's note begins with the key's pattern."""
        return self._slots("KEYS")

    @cached_property
    def args(self) -> list[Slot]:
        """The arguments, in order."""
        return self._slots("ARGV")

    def limit(self, name: str) -> tuple[int, int]:
        """Return the bounds of an argument or of a field; for one that takes all that follow, of how many there are."""
        for slot in self.args:
            for one in (slot, *slot.fields):
                if one.name == name and one.low is not None and one.high is not None:
                    return one.low, one.high
        raise KeyError(f"the header of {self.name} states no range for {name}")

    @property
    def reply(self) -> str:
        """The shape of the reply."""
        return self.clauses("REPLY")[0]

    @property
    def errors(self) -> list[str]:
        """The codes with which the script refuses."""
        return self.clauses("ERROR")

    @property
    def replay(self) -> str:
        """What a second run with the same arguments does: `once`, `lease`, `yes` (harmless) or `no`."""
        return self.clauses("REPLAY")[0]

    @property
    def computes(self) -> list[str]:
        """The patterns of the keys that the script computes by itself."""
        return [pattern for line in self.clauses("COMPUTES") for pattern in line.split(", ")]

    def clauses(self, kind: str) -> list[str]:
        """Return the values of all header lines of one kind."""
        return [m["value"] for m in map(_CLAUSE.match, self.header) if m and m["kind"] == kind]

    def _slots(self, kind: str) -> list[Slot]:
        slots: list[Slot] = []
        open_slot = False  # whether an indented line belongs to the slot that was read last
        for line in self.header:
            if found := _SLOT.match(line):
                open_slot = found["kind"] == kind
                if open_slot:
                    slots.append(_slot(found["name"], found["type"], found["note"], found["rest"] == "+"))
            elif line.startswith("--  ") and open_slot:
                slots[-1] = _continued(slots[-1], line)
            else:
                open_slot = False
        return slots


def _slot(name: str, kind: str, note: str, rest: bool = False) -> Slot:
    found = _COUNT.search(note) if rest else None
    if not rest or kind not in ("int", "ints"):
        found = found or _RANGE.match(note)
    low, high = found.groups() if found else (None, None)
    return Slot(name, kind, note, rest, None if low is None else int(low), None if high is None else int(high))


def _continued(slot: Slot, line: str) -> Slot:
    """Add an indented header line to its slot: a number of an `ints` slot, or how many values a rest slot takes."""
    if slot.type == "ints" and (field := _FIELD.match(line)):
        return replace(slot, fields=(*slot.fields, _slot(field["name"], "int", field["note"])))
    if slot.rest and slot.high is None and (count := _COUNT.search(line)):
        return replace(slot, low=int(count[1]), high=int(count[2]))
    return slot


def directory() -> Path:
    """Return the folder of the scripts: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent.parent
    inside = package / "lua"
    return inside if inside.is_dir() else package.parent / "lua"


@cache
def load(name: str) -> Script:
    """Read one script by its name, such as `buffer/push`."""
    return Script(name, (directory() / f"{name}.lua").read_bytes())


def names() -> list[str]:
    """List the names of all scripts, sorted."""
    root = directory()
    return sorted(path.relative_to(root).with_suffix("").as_posix() for path in root.glob("*/*.lua"))
