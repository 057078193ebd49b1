"""Paste the idioms of `lua/idioms/NAME.inc` into the marked blocks of the scripts, or check that they are there.

    python -m tools.idioms            write them
    python -m tools.idioms --check    exit 1 and name the scripts that differ

A block begins with the comment `-- idiom: NAME` and ends with `-- end`, both at the same indent. Every script stays
whole: what is read is what runs, and what is vendored needs no tool.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

LUA = Path(__file__).parent.parent / "lua"
BLOCK = re.compile(r"^(?P<indent> *)-- idiom: (?P<name>[a-z ]+)\n(?:.*\n)*?(?P=indent)-- end\n", re.MULTILINE)
"""An idiom in a script, as it is marked there."""


def scripts() -> list[Path]:
    """Return the paths of all scripts, sorted."""
    return sorted(LUA.glob("*/*.lua"))


def idiom(name: str) -> str:
    """Return the text of one idiom."""
    path = LUA / "idioms" / f"{name.replace(' ', '_')}.inc"
    if not path.is_file():
        raise SystemExit(f"there is no idiom {name!r}: {path.relative_to(LUA.parent)} is missing")
    return path.read_text(encoding="ascii")


def paste(text: str) -> str:
    """Return a script's text with every marked block filled anew."""

    def fill(block: re.Match[str]) -> str:
        indent = block["indent"]
        lines = (f"{indent}{line}" if line.strip() else line for line in idiom(block["name"]).splitlines(keepends=True))
        return f"{indent}-- idiom: {block['name']}\n{''.join(lines)}{indent}-- end\n"

    return BLOCK.sub(fill, text)


def main(arguments: list[str]) -> int:
    """Paste, or check with `--check`."""
    stale = []
    for path in scripts():
        text = path.read_text(encoding="ascii")
        if (pasted := paste(text)) != text:
            stale.append(path.relative_to(LUA.parent).as_posix())
            if "--check" not in arguments:
                path.write_text(pasted, encoding="ascii")
    if stale and "--check" in arguments:
        print(f"idioms differ from lua/idioms in {', '.join(stale)}: run make format", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
