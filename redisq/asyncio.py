"""The asyncio face of redisq: the names of `redisq`, awaited."""

from .aio import Batch, Buffer, PriorityQueue, RateLimiter, queues
from .worker.tasks import Worker

__all__ = ["Batch", "Buffer", "PriorityQueue", "RateLimiter", "Worker", "queues"]
