"""Run the Python blocks of a page of the documentation.

    python -m tests.project.page PAGE SOCKET    in the current folder, on the server that listens on SOCKET

The blocks of a page are one program. A block that begins with `# name.py` is a file, which the others may import; it is
written to the current folder. Where a line prints, the comment at its end says what: several times by commas.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import redis
import redis.asyncio

import redisq.asyncio  # noqa: F401  (before another class stands in for redis.asyncio.Redis)

BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FILE = re.compile(r"# ([\w.]+\.py)\n")


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """Return the blocks of a language, each with the number of the line before it."""
    text = page.read_text("utf-8")
    return [(text.count("\n", 0, match.start(2)), match[2]) for match in BLOCK.finditer(text) if match[1] == language]


def files(page: Path) -> dict[str, str]:
    """Return the blocks that are files, by their names."""
    return {match[1]: code for _, code in blocks(page, "python") if (match := FILE.match(code))}


def write_files(page: Path, folder: Path) -> None:
    """Write the blocks that are files."""
    for name, code in files(page).items():
        compile(code, name, "exec")
        (folder / name).write_text(code, "utf-8")


def stand_in(socket: str, original: type) -> Any:
    """Return a class of clients whose default server is the one of the tests."""

    def at_socket(cls: Any, /, *_: object, **options: Any) -> Any:
        return cls(**options)

    inherited = (original,)  # in a tuple: fakeredis calls what it finds in the closure

    def begin(self: Any, *arguments: Any, **options: Any) -> None:
        options.setdefault("unix_socket_path", socket)
        inherited[0].__init__(self, *arguments, **options)  # type: ignore[misc]

    return type(original.__name__, (original,), {"__init__": begin, "from_url": classmethod(at_socket)})


def run(page: Path) -> None:
    """Run the blocks, and compare what they print with their comments."""
    printed: defaultdict[int, list[str]] = defaultdict(list)
    expected = {}

    def show(*values: object, **_: object) -> None:
        caller = sys._getframe(1)
        if caller.f_code.co_filename == str(page):
            printed[caller.f_lineno].append(" ".join(map(str, values)))

    program: dict[str, Any] = {"__name__": page.stem.replace("-", "_") + "_page", "print": show}
    sys.modules[program["__name__"]] = module = type(sys)(program["__name__"])  # for what looks itself up by name
    program = module.__dict__ | program
    module.__dict__.update(program)
    for before, code in blocks(page, "python"):
        if FILE.match(code):
            continue
        exec(compile("\n" * before + code, str(page), "exec"), module.__dict__)
        for number, line in enumerate(code.splitlines(), before + 1):
            if re.match(r"\s*print\(", line):
                expected[number] = line.partition("  # ")[2]
    found = {number: ", ".join(lines) for number, lines in printed.items()}
    differ = [number for number in sorted({*found, *expected}) if found.get(number) != expected.get(number)]
    told = [f"line {n} prints {found.get(n)!r}, its comment says {expected.get(n)!r}" for n in differ]
    if told:
        raise AssertionError("\n".join(told))


def replace_clients(socket: str) -> None:
    """Let `redis.Redis()` be a client of the tests' server, for the rest of this process."""
    for module in (redis, redis.asyncio):
        setattr(module, "Redis", stand_in(socket, getattr(module, "Redis")))  # noqa: B009, B010


if __name__ == "__main__":
    sys.path.insert(0, "")
    replace_clients(sys.argv[2])
    write_files(Path(sys.argv[1]), Path())
    run(Path(sys.argv[1]))
