"""What each operation sends and how its reply is read: pure values, no I/O.

An `Op` is one script call. A `Talk` is an operation that takes several, as a generator: it yields an `Op` and is sent
its decoded reply, or yields a `Pause` and is sent nothing. The blocking and the asyncio runner both perform them, so
that what is said here is said once.
"""

from .audit import Audit, Finding
from .buffer import BufferOps, BufferStats
from .lease import Buried, Lease, Reserved, Settled
from .limit import Grant, LimitOps, Rate
from .op import Many, Op, Pause, Talk, Wait, piece
from .priority import Item, PriorityOps, PriorityStats, Pushed, State

__all__ = [
    "Audit",
    "BufferOps",
    "BufferStats",
    "Buried",
    "Finding",
    "Grant",
    "Item",
    "Lease",
    "LimitOps",
    "Many",
    "Op",
    "Pause",
    "PriorityOps",
    "PriorityStats",
    "Pushed",
    "Rate",
    "Reserved",
    "Settled",
    "State",
    "Talk",
    "Wait",
    "piece",
]
