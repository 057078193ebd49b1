"""The blocking face of redisq; the package `redisq` exports it."""

from .batch import Batch
from .buffer import Buffer
from .limit import RateLimiter
from .priority import PriorityQueue

__all__ = ["Batch", "Buffer", "PriorityQueue", "RateLimiter"]
