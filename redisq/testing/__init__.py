"""For tests of what uses redisq: work a queue off, a private server, and a fake one whose clock can be moved.

The fixtures `redisq_server`, `redisq_client`, `redisq_async_client` and `redisq_fake` are there wherever redisq and
pytest are installed; with another test runner use what they are made of: `redisq.embedded.Server` and `Fake`.
"""

from .draining import Drained, drain, drain_async
from .fake import Fake

__all__ = ["Drained", "Fake", "drain", "drain_async"]
