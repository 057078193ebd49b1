"""Scripts of the commands that move whole queues. Unlike those in `lua/` no client needs them, and no queue runs them.

A script that begins where another ends has it in front of it, as a function: `push` in its text is that of the queue's
structure, so what is restored is pushed by the very script that pushes everything else.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from ...core.scripts import Script, load

_FLAGS = b"--!df flags=allow-undeclared-keys\n"


@cache
def step(name: str, push: str | None = None) -> Script:
    """Read the script of a step; `push` names the script, such as `buffer/push`, that it calls by that name."""
    text = (Path(__file__).parent / f"{name}.lua").read_bytes()
    if push is not None:
        inner = load(push)
        place = 1 + [slot.name for slot in inner.keys].index("once")
        head = b"local push = function(KEYS, ARGV)\n%send\nlocal once = KEYS[%d]\n" % (inner.text, place)
        text = head + text
    return Script(f"steps/{name}", _FLAGS + text)
