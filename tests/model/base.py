"""Terms that all three models use."""

from __future__ import annotations

Keys = dict[bytes, object]
"""key without the queue's prefix -> zset: dict of floats, hash: dict, set: set, list: list, string: bytes"""

FOREVER = 10**15
"""later than any time"""


class Refused(Exception):
    """Base class of what a call is refused with; nothing has changed then."""

    code = ""


class LeaseLost(Refused):
    """Raised when the lease was handed on, settled in another way, or its batch was buried or purged (rule 5)."""

    code = "LEASELOST"


class WrongOrder(Refused):
    """Raised when the priority queue is kept in the other order."""

    code = "WRONGORDER"


class BadArgument(Refused):
    """Raised when an argument is out of range."""

    code = "BADARG"
