"""Count the lines of the scripts that are their own: without the header, idioms, comments and blank lines.

python -m tools.own_lines            print the table, as Markdown
python -m tools.own_lines --write    put it between the markers in lua/README.md
python -m tools.own_lines --check    exit 1 if the table there is another one
"""

from __future__ import annotations

import re
import sys
from typing import NamedTuple

from .idioms import BLOCK, LUA, scripts

README = LUA / "README.md"
BEGIN, END = "<!-- own lines -->", "<!-- end -->"
_CODE = re.compile(r"^(?![ \t]*(?:--|$)).+$", re.MULTILINE)


class Lines(NamedTuple):
    """The lines of one script."""

    script: str
    own: int
    """its own code"""
    idioms: int
    """code of idioms"""
    header: int
    whole: int
    """the file as it stands"""


def count(name: str, text: str) -> Lines:
    """Count the lines of a script."""
    header, body = text.split("\n\n", 1)
    own = len(_CODE.findall(BLOCK.sub("", body)))
    return Lines(name, own, len(_CODE.findall(body)) - own, header.count("\n") + 1, text.count("\n"))


def counted() -> list[Lines]:
    """Count the lines of every script."""
    return [
        count(path.relative_to(LUA).with_suffix("").as_posix(), path.read_text(encoding="ascii")) for path in scripts()
    ]


def table() -> str:
    """Return the table."""
    found = counted()
    rows = [f"| `{one.script}` | {one.own} | {one.idioms} | {one.header} | {one.whole} |" for one in found]
    total = [sum(column) for column in zip(*(one[1:] for one in found), strict=True)]
    return "\n".join(
        [
            "| script | its own code | idioms | header | whole file |",
            "| --- | ---: | ---: | ---: | ---: |",
            *rows,
            f"| together | {' | '.join(f'{number:,}' for number in total)} |",
        ]
    )


def marked(text: str) -> str:
    """Return a page with the table between its markers; they are added at its end where they are missing."""
    block = f"{BEGIN}\n{table()}\n{END}"
    if BEGIN not in text:
        return f"{text.rstrip()}\n\n{block}\n"
    before, after = text.split(BEGIN, 1)
    return before + block + after.split(END, 1)[1]


def main(arguments: list[str]) -> int:
    """Print the table, write it, or check it."""
    if not arguments:
        print(table())
        return 0
    text = README.read_text(encoding="utf-8")
    if arguments == ["--check"] and marked(text) != text:
        print(f"{README.relative_to(LUA.parent)} has another table of lines: run make format", file=sys.stderr)
        return 1
    if arguments == ["--write"]:
        README.write_text(marked(text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
