"""What the conformance cases of `lua/conformance` are made from.

A function for each script gives its cases (`@script` registers it): scenarios that the model plays, what follows from
the script's header, and what neither knows, by hand. `python -m tests.scripts.write_conformance` writes the files.

For a new script: what the model answers to its arguments (`answers.py`), and a function with a call of `derive` and the
scenarios that its header does not give, in any module here.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from redisq.core.scripts import names

from .scenario import SCRIPTS, Cases

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


@cache
def file(name: str) -> str:
    """Write the file of a script's cases."""
    cases = Cases(name)
    SCRIPTS[name](cases)
    return cases.file()


def files() -> dict[str, str]:
    """Write the files of all scripts that are there."""
    return {name: file(name) for name in names()}
