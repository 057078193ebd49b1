"""The input: source files of the Python standard library of this machine."""

from __future__ import annotations

import ast
import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..core.errors import RedisqError

_LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}


def copy(directory: Path, limit: int) -> list[str]:
    """Copy up to `limit` source files into a directory, spread evenly over the library, and return their paths in it.

    A copy, because the demo edits them.
    """
    library = Path(sysconfig.get_path("stdlib"))
    found = sorted(path.relative_to(library) for path in library.rglob("*.py"))
    found = [path for path in found if _LEFT_OUT.isdisjoint(path.parts)]
    if not found:
        raise RedisqError(f"this Python has no source files of its standard library in {library}")
    count = min(limit, len(found))
    chosen = [found[i * len(found) // count] for i in range(count)]
    for path in chosen:
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(library / path, directory / path)
    return [path.as_posix() for path in chosen]


def package(path: str) -> str:
    """Name the package, or the module without one, that a file belongs to."""
    return path.partition("/")[0].removesuffix(".py")


def definitions(path: str, source: bytes) -> Iterator[dict[str, Any]]:
    """Find every function and class of a file; each has an `id` that nothing else in the corpus has."""
    try:
        tree = ast.parse(source)
    except SyntaxError:  # a file that is meant for another Python
        return
    nodes = (n for n in ast.walk(tree) if isinstance(n, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)))
    for number, node in enumerate(nodes):
        yield {
            "id": f"{path}#{number}",
            "package": package(path),
            "kind": "class" if isinstance(node, ast.ClassDef) else "function",
            "name": node.name,
            "line": node.lineno,
            "doc": (ast.get_docstring(node) or "").partition("\n")[0],
        }
