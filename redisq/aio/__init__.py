"""The queues for asyncio; the module `redisq.asyncio` exports them."""

from .batch import Batch
from .buffer import Buffer
from .limit import RateLimiter
from .priority import PriorityQueue
from .queues import queues

__all__ = ["Batch", "Buffer", "PriorityQueue", "RateLimiter", "queues"]
