"""Race-free queues on Redis: a grouped batch buffer and a unique priority queue, one Lua script per operation.

The names here are the blocking ones; `redisq.asyncio` has the same, awaited.
"""

from .codecs import BYTES, JSON, TEXT, Codec
from .errors import (
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
from .ops import (
    Audit,
    BufferStats,
    Buried,
    Finding,
    Grant,
    Item,
    Op,
    PriorityStats,
    Pushed,
    QueueInfo,
    Rate,
    Replicas,
    State,
)
from .sync import Batch, Buffer, PriorityQueue, RateLimiter, queues
from .worker import Worker, exponential

__version__ = "0.1.0"

__all__ = [
    "BYTES",
    "JSON",
    "TEXT",
    "Audit",
    "Batch",
    "Buffer",
    "BufferStats",
    "Buried",
    "Bury",
    "Codec",
    "CodecError",
    "Finding",
    "Grant",
    "InvalidArgument",
    "Item",
    "LeaseLost",
    "NotDurable",
    "Op",
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
