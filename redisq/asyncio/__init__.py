"""The asyncio queues and worker."""

from .batch import Batch
from .buffer import Buffer
from .limiter import RateLimiter
from .priority import PriorityQueue
from .queues import overview, queues
from .runner import Client
from .worker import Worker

__all__ = ["Batch", "Buffer", "Client", "PriorityQueue", "RateLimiter", "Worker", "overview", "queues"]
