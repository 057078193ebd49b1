"""Race-free queues on Redis: a grouped batch buffer and a unique priority queue, one Lua script per operation.

The names here are the blocking ones; `redisq.asyncio` has the same, awaited. For example::

    import redis
    from redisq import Buffer, Worker

    mails = Buffer(redis.Redis(), "mails", max_attempts=5)
    mails.push("hello anna", "hello ben", group="eu")
    Worker(mails, lambda batch: print(batch.group, batch.items), size=100).run(burst=True)
"""

from .blocking import Batch, Buffer, Client, PriorityQueue, RateLimiter, Worker, overview, queues
from .core.audit import Audit, Finding
from .core.batch import BatchData, Buried, Nothing
from .core.buffer import BufferStats, GroupState
from .core.calls import AnyPipeline, Call
from .core.clients import ErrorKind
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
from .core.observer import Observer, Outcome
from .core.priority import Item, Order, PriorityStats, Pushed, State
from .core.queues import QueueInfo, QueueOverview
from .core.replication import Durability, Replicas
from .core.scripts import Script
from .core.typed import Typed
from .core.worker import exponential

__version__ = "0.1.0"

__all__ = [
    "BYTES",
    "JSON",
    "TEXT",
    "AnyPipeline",
    "Audit",
    "Batch",
    "BatchData",
    "Buffer",
    "BufferStats",
    "Buried",
    "Bury",
    "Call",
    "Client",
    "Codec",
    "CodecError",
    "Durability",
    "ErrorKind",
    "Finding",
    "Grant",
    "GroupState",
    "InvalidArgument",
    "Item",
    "LeaseLost",
    "NotDurable",
    "Nothing",
    "Observer",
    "Order",
    "Outcome",
    "PriorityQueue",
    "PriorityStats",
    "Pushed",
    "QueueInfo",
    "QueueOverview",
    "Rate",
    "RateLimiter",
    "RedisqError",
    "Replicas",
    "Retry",
    "Script",
    "ScriptError",
    "State",
    "Typed",
    "Worker",
    "WrongLayout",
    "WrongOrder",
    "exponential",
    "overview",
    "queues",
]
