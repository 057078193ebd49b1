"""The blocking face of redisq; the package `redisq` exports it."""

from .buffer import Buffer
from .limit import RateLimiter
from .priority import PriorityQueue

__all__ = ["Buffer", "PriorityQueue", "RateLimiter"]
