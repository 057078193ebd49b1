"""The source of the conformance cases of `lua/conformance`.

A function for each script, registered by `@script`, defines its cases: scenarios that the model plays, cases derived
from the script's header, and cases by hand for what neither knows. `python -m tests.scripts.write_conformance` writes
the files.

A new script needs the model's answer to its arguments (`answers.py`), and a function, in any module here, that calls
`derive` and adds the scenarios that its header does not give.
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
    """Write the files of all existing scripts."""
    return {name: file(name) for name in names()}
