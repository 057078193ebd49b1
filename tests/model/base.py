"""Types that all three models use."""

from __future__ import annotations

Keys = dict[bytes, object]
"""key without the queue's prefix -> zset: dict of floats, hash: dict, set: set, list: list, string: bytes"""

FOREVER = 10**15
"""later than any time"""


class Refused(Exception):
    """Base class of refusals; a refused call changes nothing."""

    code = ""


class LeaseLost(Refused):
    """Raised when the lease has ended otherwise: handed out again, settled in another way, buried or purged."""

    code = "LEASELOST"


class WrongOrder(Refused):
    """Raised when the priority queue has the other order."""

    code = "WRONGORDER"


class BadArgument(Refused):
    """Raised when an argument is out of range."""

    code = "BADARG"
