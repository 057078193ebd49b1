"""The README is short, and has what a newcomer needs first."""

from __future__ import annotations

import re
from pathlib import Path

from tests.project.page import blocks

README = Path(__file__).parents[2] / "README.md"
TEXT = README.read_text("utf-8")


def test_it_is_short() -> None:
    assert len(TEXT.splitlines()) < 200


def test_the_commands_for_a_clone_stand_alone() -> None:
    """Whoever clones the repository copies them as they are; the tests take long, so they are not for trying it."""
    shell = [block for _, block in blocks(README, "sh")]
    assert "make demo\n" in shell
    assert "make test\n" in shell
    assert TEXT.index("make demo") < TEXT.index("## Contributing") < TEXT.index("make test")


def test_the_quick_start_has_at_most_fifteen_lines() -> None:
    (_, first), *_ = blocks(README, "python")
    assert len([line for line in first.splitlines() if line]) <= 15


def test_a_block_fits_on_a_screen() -> None:
    assert max(len(block.splitlines()) for _, block in blocks(README, "python")) <= 25


def test_pictures_have_a_version_for_dark_pages() -> None:
    pictures = re.findall(r"<picture>.*?</picture>", TEXT, re.DOTALL)
    assert len(pictures) >= 2
    for picture in pictures:
        for path in re.findall(r"(?:srcset|src)=\"([^\"]+)\"", picture):
            assert (README.parent / path).exists(), path
        assert "prefers-color-scheme: dark" in picture
        assert re.search(r"alt=\"[^\"]{10,}\"", picture)
