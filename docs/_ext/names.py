"""Names as users know them.

A link to where a class is defined leads to where it is documented: `redisq.core.batch.BatchData` is `redisq.BatchData`.
Classes that only redisq makes are shown without arguments.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

import redisq.asyncio

_INNER = re.compile(r"redisq\.(core|blocking|asyncio|telemetry|embedded)\.(?:\w+\.)?(\w+)(\.\w+)?")


MADE_BY_REDISQ = {
    *(
        "Audit",
        "Batch",
        "BatchData",
        "BufferStats",
        "Buried",
        "Call",
        "Drained",
        "Endpoint",
        "Finding",
        "Grant",
        "Item",
        "Nothing",
    ),
    *("PriorityStats", "Pushed", "QueueInfo", "QueueOverview", "Script", "State"),
}


def public(target: str) -> str | None:
    """Return the name under which something is documented."""
    found = _INNER.fullmatch(target)
    if found is None:
        return None
    where, name, member = found[1], found[2], found[3] or ""
    if where == "asyncio" and name in redisq.asyncio.__all__:
        return f"redisq.asyncio.{name}{member}"
    if where in ("telemetry", "embedded"):
        return f"redisq.{where}.{name}{member}"
    return f"redisq.{name}{member}" if name in redisq.__all__ else None


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement) -> nodes.Element | None:
    """Resolve a reference to an inner name, or to a short one as it stands in a signature."""
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"]
    asynchronous = node.get("py:module") == "redisq.asyncio"
    named = public(target)
    if named is None and target.partition(".")[0] in redisq.__all__:
        inner = asynchronous and target.partition(".")[0] in redisq.asyncio.__all__
        named = f"redisq.asyncio.{target}" if inner else f"redisq.{target}"
    if named is None:
        return None
    domain: Any = env.get_domain("py")
    for kind in ("obj", "class", "data"):
        found = domain.resolve_xref(env, node["refdoc"], app.builder, kind, named, node, content)
        if found is not None:
            return found  # type: ignore[no-any-return]
    return None


def signature(app: Sphinx, kind: str, name: str, *_: object) -> tuple[str, str] | None:  # noqa: ARG001
    """Hide the arguments of classes that only redisq makes."""
    return ("", "") if kind == "class" and name.rpartition(".")[2] in MADE_BY_REDISQ else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension with Sphinx."""
    app.connect("missing-reference", resolve)
    app.connect("autodoc-process-signature", signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
