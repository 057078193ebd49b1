"""The definition of the queues: what each call answers and leaves behind, in plain Python.

It knows nothing of Redis. Names, items and members are bytes; times and spans are ms, and the time is given. The
settings of a queue's consumers (`max_attempts`, `ordered`, the rates, ...) are attributes, which may change between two
calls, as in a rolling deploy.

`keys(now)` returns what the server must hold after a call, and `expiring()` which of these keys must have a TTL;
`tests/scripts/keyspace.py` reads a server back in the same form. `check()` asserts the invariants.
"""

from .base import BadArgument, Keys, LeaseLost, Refused, WrongOrder
from .buffer import Batch, Buffer
from .limit import Limit
from .priority import Item, Lease, Member, Priority

__all__ = [
    "BadArgument",
    "Batch",
    "Buffer",
    "Item",
    "Keys",
    "Lease",
    "LeaseLost",
    "Limit",
    "Member",
    "Priority",
    "Refused",
    "WrongOrder",
]
