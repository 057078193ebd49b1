"""What an audit found, and the conversation in which it is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from . import validate
from .calls import Call, as_text
from .flow import Flow

LONGEST = validate.MAX_SECONDS * 1000


@dataclass(frozen=True)
class Finding:
    """One disagreement between keys: its kind, the group, member or key, what is there, what should be."""

    kind: str
    """What is wrong, in a word."""
    name: str
    """The group, member or key that it is about."""
    found: str
    """What is there."""
    expected: str
    """What should be."""


@dataclass(frozen=True)
class Audit:
    """What an audit found; `checked` counts the keys and entries that it looked at."""

    findings: list[Finding] = field(default_factory=list)
    """What disagrees; empty if nothing does."""
    checked: int = 0
    """How many keys and entries were looked at."""
    repaired: bool = False
    """Whether what can be repaired was: everything but findings of kind `type`, `unknown` and `order`."""

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


def horizon(lease: int, max_lease: float | None) -> bytes:
    """Return how many ms ahead a deadline and a delay may lie.

    A lease is explained by twice the queue's own, by an hour, or by what the caller says; a delay by the longest that a
    call can ask for. What lies further ahead was written while the server's clock was wrong.
    """
    ahead = max(2 * lease, 3_600_000) if max_lease is None else validate.milliseconds("max_lease", max_lease, 0.001)
    return b"%d %d" % (min(ahead, LONGEST), LONGEST)


AuditPage = tuple[str, int, list[Finding]]


def page(reply: Any) -> AuditPage:
    """Read the reply of one audit call."""
    cursor, checked, findings = reply
    rows = [[str(x) if isinstance(x, int) else as_text(x) for x in finding] for finding in findings]
    return as_text(cursor), checked, [Finding(*row) for row in rows]


def run_audit(step: Callable[[str], Call[AuditPage]], cursor: str, repair: bool) -> Flow[Audit]:
    """Ask page after page; a key that a rehash shows twice is named once."""
    found: dict[Finding, None] = {}
    total = 0
    while cursor:
        cursor, checked, findings = yield step(cursor)
        total += checked
        found.update(dict.fromkeys(findings))
    return Audit(list(found), total, repair)
