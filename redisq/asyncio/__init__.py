"""The asyncio face of redisq: the names of `redisq`, awaited."""

from .buffer import Buffer
from .limit import RateLimiter
from .priority import PriorityQueue

__all__ = ["Buffer", "PriorityQueue", "RateLimiter"]
