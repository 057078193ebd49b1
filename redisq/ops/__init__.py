"""What each operation sends and how its reply is read: pure values, no I/O.

An `Op` is one script call. A `Talk` is an operation that takes several, as a generator: it yields an `Op` and is sent
its decoded reply, or yields a `Pause` and is sent nothing. The blocking and the asyncio runner both perform them, so
that what is said here is said once.
"""

from .audit import Audit, Finding
from .buffer import BufferOps, BufferStats
from .durable import Confirm, Durability, Replicas, confirm, finish, whole
from .lease import Buried, Lease, Reserved
from .limit import Grant, LimitOps, Rate
from .op import Call, Many, Op, Pause, Talk, Wait, answers, as_bytes, piece
from .priority import Item, PriorityOps, PriorityStats, Pushed, State
from .queue import describe, reason_bytes, reason_of
from .queues import QueueInfo

__all__ = [
    "Audit",
    "BufferOps",
    "BufferStats",
    "Buried",
    "Call",
    "Confirm",
    "Durability",
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
    "QueueInfo",
    "Rate",
    "Replicas",
    "Reserved",
    "State",
    "Talk",
    "Wait",
    "answers",
    "as_bytes",
    "confirm",
    "describe",
    "finish",
    "piece",
    "reason_bytes",
    "reason_of",
    "whole",
]
