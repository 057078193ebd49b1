"""Docstrings are read in editors, by `help()` and on the site: their lists must render as lists in every tool."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

import redisq
from redisq.embedded import Server

PACKAGE = Path(redisq.__file__).parent
ITEM = re.compile(r"( *)([-*+]|\d+[.)]) +")


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Yield each docstring of a file with its line number, those of attributes included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, inspect.cleandoc(node.value.value)


def broken_lines(text: str) -> list[str]:
    """Return the lines that break a list.

    A list begins after an empty line, its items are aligned, and the lines that continue an item are indented as far as
    the item's text; anything else is another paragraph in reStructuredText, in Markdown, or in both.
    """
    found = []
    for paragraph in re.split(r"\n\s*\n", text):
        first, *others = paragraph.splitlines() or [""]
        begun = ITEM.match(first)
        for line in others:
            item = ITEM.match(line)
            if begun is None or item:
                if item and (begun is None or item[1] != begun[1]):
                    found.append(line)
            elif len(line) - len(line.lstrip()) != len(begun[0]):
                found.append(line)
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_lists_are_well_formed(path: Path) -> None:
    """Continuation lines are indented, and a list begins after an empty line."""
    found = [(line, broken) for line, text in docstrings(path.read_text()) for broken in broken_lines(text)]
    assert found == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Settings:\n\n- `a`: first\n  and more\n- `b`: second\n\nMore text.", []),
        ("Steps:\n\n1. first\n   and more\n2. second", []),
        ("Settings:\n\n- `a`: first\nand more", ["and more"]),
        ("Settings:\n\n- `a`: first\n    and more", ["    and more"]),
        ("Settings:\n- `a`: first", ["- `a`: first"]),
        ("Settings:\n\n- `a`: first\n- `b`: second\nMore text.", ["More text."]),
        ("Settings:\n\n- `a`: first\n  - `b`: second", ["  - `b`: second"]),
        ("A line that ends before\n- a dash.", ["- a dash."]),
    ],
)
def test_malformed_lists_are_found(text: str, found: list[str]) -> None:
    assert broken_lines(text) == found


@pytest.mark.parametrize("thing", [redisq, redisq.Buffer, redisq.PriorityQueue], ids=lambda thing: thing.__name__)
def test_an_example_runs(thing: object, redisq_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one in the docstring, on a real server."""
    found = re.search(r"example::\n\n(( {4}.*\n|\n)+)", f"{inspect.getdoc(thing)}\n")
    assert found
    sent: list[object] = []
    with redisq_server.client() as client:
        monkeypatch.setattr(redis, "Redis", lambda: client)
        names = {**vars(redisq), "client": client, "send": lambda *batch: sent.append(batch)}
        names["print"] = names["send"]
        exec(textwrap.dedent(found[1]), names)
        (queue,) = redisq.overview(client)
        assert queue.stats
        if thing is redisq.PriorityQueue:
            assert names["batch"].items == ["b.py"]
            assert (queue.stats.waiting, queue.stats.done) == (1, 1)
        else:
            assert sent == [("eu", ["hello anna", "hello ben"])]
            assert (queue.stats.waiting, queue.stats.done) == (0, 2)
