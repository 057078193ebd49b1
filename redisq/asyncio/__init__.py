"""The asyncio face of redisq: the names of `redisq`, awaited."""

from .batch import Batch
from .buffer import Buffer
from .limit import RateLimiter
from .priority import PriorityQueue

from ..worker.tasks import Worker  # isort: skip  (it needs the three above)

__all__ = ["Batch", "Buffer", "PriorityQueue", "RateLimiter", "Worker"]
