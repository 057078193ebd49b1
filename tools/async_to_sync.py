"""Write the blocking classes from the asyncio ones, or check that they are up to date.

    python -m tools.async_to_sync            write redisq/blocking from redisq/asyncio
    python -m tools.async_to_sync --check    exit 1 and name the files that differ

The asyncio files are the source; the blocking ones are committed, so that editors and `help()` show real code. The
runners talk to Redis in their own ways and are written by hand.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "redisq"
FILES = ("batch", "buffer", "limiter", "priority", "queue", "queues", "round_trip")
_NAMES = {
    "async def": "def",
    "async with": "with",
    "async for": "for",
    "await ": "",
    "nowait=True": "",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "AsyncGenerator[Batch[T], None]": "Generator[Batch[T], None, None]",
    "AsyncGenerator": "Generator",
    ", for asyncio.": ", blocking.",
}
_ANY = re.compile("|".join(map(re.escape, _NAMES)))


def replaced(text: str) -> str:
    """Return a text without what belongs to asyncio."""
    return _ANY.sub(lambda found: _NAMES[found[0]], text)


def blocking(text: str) -> str:
    """Return the blocking twin of a file's text, formatted."""
    head, rest = text.split("\n", 1)
    note = "# Written from the asyncio file of the same name by tools/async_to_sync.py: edit that one.\n"
    text = replaced(f"{head}\n{note}{rest}")
    formatted = subprocess.run(
        [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(PACKAGE / "blocking" / "file.py"), "-"],
        input=text,
        capture_output=True,
        text=True,
        check=True,
    )
    return formatted.stdout


def main(arguments: list[str]) -> int:
    """Write, or check with `--check`."""
    stale = []
    for name in FILES:
        target = PACKAGE / "blocking" / f"{name}.py"
        text = blocking((PACKAGE / "asyncio" / f"{name}.py").read_text(encoding="utf-8"))
        if text != target.read_text(encoding="utf-8"):
            stale.append(target.relative_to(PACKAGE.parent).as_posix())
            if "--check" not in arguments:
                target.write_text(text, encoding="utf-8")
    if stale and "--check" in arguments:
        print(f"not what the asyncio files give: {', '.join(stale)}: run make format", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
