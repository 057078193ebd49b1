"""Write the dark diagrams from the light ones, or check that they are up to date.

    python -m tools.diagrams            write docs/images/diagrams/*-dark.svg
    python -m tools.diagrams --check    exit 1 and name the files that differ

The light files are drawn by hand, with the colours below and no others.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "docs" / "images" / "diagrams"
DARK = {
    "#1f2328": "#e6edf3",
    "#59636e": "#9198a1",
    "#f6f8fa": "#1c2128",
    "#8c959f": "#656c76",
    "#ddf4ff": "#10253f",
    "#0969da": "#4493f8",
    "#ffebe9": "#331c1e",
    "#cf222e": "#f85149",
    "#dafbe1": "#12301f",
    "#1a7f37": "#3fb950",
}


def light() -> list[Path]:
    """Return the diagrams that are drawn by hand."""
    return sorted(path for path in FOLDER.glob("*.svg") if not path.stem.endswith("-dark"))


def dark(text: str) -> str:
    """Return a diagram in the colours for a dark page."""
    return re.sub(r"#[0-9a-f]{6}\b", lambda colour: DARK[colour[0]], text)


def main(arguments: list[str]) -> int:
    """Write the dark diagrams, or compare them."""
    differ = []
    for path in light():
        target = path.with_stem(f"{path.stem}-dark")
        wanted = dark(path.read_text("utf-8"))
        if not target.exists() or target.read_text("utf-8") != wanted:
            differ.append(target.name)
            if "--check" not in arguments:
                target.write_text(wanted, "utf-8")
    if "--check" not in arguments:
        return 0
    for name in differ:
        print(f"docs/images/diagrams/{name} differs from its light twin: run make format", file=sys.stderr)
    return bool(differ)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
