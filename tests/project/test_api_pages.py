"""The API pages name everything that is public, and everything that they name is documented."""

from __future__ import annotations

import ast
import importlib
import inspect
import pydoc
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

API = Path(__file__).parents[2] / "docs" / "api"
ENTRIES = re.findall(
    r"^\.\. (?:auto|py:)(\w+):: (redisq[\w.]*\.(\w+))$", "\n".join(p.read_text() for p in API.glob("*.md")), re.M
)
MODULES = ("redisq", "redisq.asyncio", "redisq.metrics", "redisq.telemetry", "redisq.testing", "redisq.web")


def found(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


CLASSES = [name for kind, name, _ in ENTRIES if kind in ("class", "exception")]


@pytest.mark.parametrize("module", MODULES)
def test_everything_public_is_on_a_page(module: str) -> None:
    exported = {f"{module}.{name}" for name in importlib.import_module(module).__all__}
    assert exported - {name for _, name, _ in ENTRIES} == set()


def undocumented(source: str) -> Iterator[str]:
    """Yield the public members of a class, by its source, that have no docstring."""
    (body,) = ast.parse(textwrap.dedent(source)).body
    assert isinstance(body, ast.ClassDef)
    if ast.get_docstring(body) is None:
        yield body.name
    for member, after in zip(body.body, [*body.body[1:], None], strict=True):
        described = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if isinstance(member, (ast.FunctionDef, ast.AsyncFunctionDef)):
            names, described = [member.name], ast.get_docstring(member) is not None
        elif isinstance(member, ast.AnnAssign):
            names = [ast.unparse(member.target)]
        elif isinstance(member, ast.Assign):
            names = [ast.unparse(target) for target in member.targets]
        else:
            names = []
        yield from (name for name in names if not name.startswith("_") and not described)


@pytest.mark.parametrize("name", CLASSES)
def test_everything_in_a_class_is_documented(name: str) -> None:
    """Its own members, and those that it inherits from redisq."""
    classes = [one for one in found(name).__mro__ if one.__module__.startswith("redisq")]
    missing = [(one, member) for one in classes for member in undocumented(inspect.getsource(one))]
    assert [f"{one.__name__}.{member}" for one, member in missing if not overrides(one, member)] == []


def overrides(one: type, member: str) -> bool:
    """Whether a method overrides one that is documented, so that it need not repeat what it does."""
    inherited = (getattr(base, member, None) for base in one.__mro__[1:])
    return inspect.isfunction(getattr(one, member, None)) and any(base.__doc__ for base in inherited if base)


@pytest.mark.parametrize("name", [name for kind, name, _ in ENTRIES if kind == "function"])
def test_a_function_is_documented(name: str) -> None:
    assert inspect.getdoc(found(name))


@pytest.mark.parametrize(
    "name", sorted({name for _, name, _ in ENTRIES if inspect.isroutine(found(name))} | {*CLASSES})
)
def test_its_help_has_no_addresses(name: str) -> None:
    """A default is shown as its repr: of a function or an object that is an address, another in each process."""
    assert re.findall(r".* at 0x.*", pydoc.plain(pydoc.render_doc(found(name)))) == []


def test_missing_docstrings_are_found() -> None:
    source = '''
    class Thing:
        """A thing."""

        a: int
        b: int
        """The second."""
        C = 1

        def d(self): ...

        def e(self):
            """Do it."""

        def _f(self): ...
    '''
    assert list(undocumented(source)) == ["a", "C", "d"]
