"""Race-free queues on Redis: a grouped batch buffer and a unique priority queue, one Lua script per operation.

The names here are the blocking ones; `redisq.asyncio` has the same, awaited.
"""

from .blocking import Batch, Buffer, PriorityQueue, RateLimiter, Worker, queues
from .core.audit import Audit, Finding
from .core.batch import BatchData, Buried, Nothing
from .core.buffer import BufferStats
from .core.calls import Call
from .core.codecs import BYTES, JSON, TEXT, Codec
from .core.errors import (
    Bury,
    CodecError,
    InvalidArgument,
    LeaseLost,
    NotDurable,
    RedisqError,
    Retry,
    ScriptError,
    WrongLayout,
    WrongOrder,
)
from .core.limiter import Grant, Rate
from .core.priority import Item, PriorityStats, Pushed, State
from .core.queues import QueueInfo
from .core.replication import Replicas
from .core.worker import exponential

__version__ = "0.1.0"

__all__ = [
    "BYTES",
    "JSON",
    "TEXT",
    "Audit",
    "Batch",
    "BatchData",
    "Buffer",
    "BufferStats",
    "Buried",
    "Bury",
    "Call",
    "Codec",
    "CodecError",
    "Finding",
    "Grant",
    "InvalidArgument",
    "Item",
    "LeaseLost",
    "NotDurable",
    "Nothing",
    "PriorityQueue",
    "PriorityStats",
    "Pushed",
    "QueueInfo",
    "Rate",
    "RateLimiter",
    "RedisqError",
    "Replicas",
    "Retry",
    "ScriptError",
    "State",
    "Worker",
    "WrongLayout",
    "WrongOrder",
    "exponential",
    "queues",
]
