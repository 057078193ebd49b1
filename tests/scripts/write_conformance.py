"""Writes the conformance cases: `python -m tests.scripts.write_conformance [--check] [SCRIPT ...]`."""

from __future__ import annotations

import argparse
import sys

from redisq.core.scripts import names
from tests.scripts.conformance import FOLDER
from tests.scripts.conformance_cases import file


def main() -> int:
    """Write the files of all or the named scripts, or with --check name those that would change."""
    parser = argparse.ArgumentParser(prog="python -m tests.scripts.write_conformance")
    parser.add_argument("scripts", nargs="*", metavar="SCRIPT", help="such as buffer/push; without any, all of them")
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args()
    stale = []
    for name in options.scripts or names():
        path, text = FOLDER / f"{name}.json", file(name)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if not options.check:
                path.write_text(text, encoding="utf-8")
    others = {path.relative_to(FOLDER).with_suffix("").as_posix(): path for path in FOLDER.glob("*/*.json")}
    for name in sorted(others.keys() - set(names())):
        stale.append(name)
        if not options.check:
            others[name].unlink()
    print(f"{'differ' if options.check else 'written'}: {' '.join(stale) or 'none'}")
    return int(bool(stale) and options.check)


if __name__ == "__main__":
    sys.exit(main())
