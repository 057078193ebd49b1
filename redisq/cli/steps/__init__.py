"""Scripts of the commands that move whole queues. Unlike those in `lua/` no client needs them, and no queue runs them.

Some have a script of `lua/` in front of them, as a function named `inner`: so what is adopted or restored is pushed by
the very script that pushes everything else.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from ...core.scripts import Script, load

_FLAGS = b"--!df flags=allow-undeclared-keys\n"


@cache
def step(name: str, inner: str | None = None) -> Script:
    """Read the script of a step; `inner` names the script, such as `buffer/push`, that it calls."""
    text = (Path(__file__).parent / f"{name}.lua").read_bytes()
    if inner is not None:
        text = b"local inner = function(KEYS, ARGV)\n%send\n" % load(inner).text + text
    return Script(f"steps/{name}", _FLAGS + text)
