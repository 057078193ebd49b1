"""The daemon: reserves, calls a handler, acks, gives back what failed, and keeps the lease while the handler runs.

`policy` says what is to be done, for both kinds; `threads` does it with threads, `tasks` with asyncio.
"""

from .policy import exponential
from .threads import Worker

__all__ = ["Worker", "exponential"]
