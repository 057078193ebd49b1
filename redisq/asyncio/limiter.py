"""The rate limiter, for asyncio."""

from __future__ import annotations

from ..core.limiter import Grant, LimiterCalls, Rate
from .runner import Client, Runner


class RateLimiter:
    """A rate limit that every process which shares its name is held to, by the server's clock.

    Several rates may hold at once: `Rate(3, per=1)`, `Rate(100, per=60)`. Each is exact in every span, not only from
    one full minute to the next. What is remembered is one entry a grant (about 140 bytes) for the longest `per`. All
    who share a name must give the same rates; a queue of that name charges the same budget. A grant is remembered for
    `dedup_window` seconds, so that a call that is sent twice is charged once.

    Raises `InvalidArgument` when no rate is given, and as the queues do.
    """

    def __init__(
        self, client: Client, name: str, *rates: Rate, dedup_window: float = 60.0, prefix: str = "redisq"
    ) -> None:
        self.calls = LimiterCalls(name, rates, dedup_window=dedup_window, prefix=prefix)
        self.runner = Runner(client)

    def __repr__(self) -> str:
        return f"RateLimiter({self.calls.name!r})"

    async def acquire(self, cost: int = 1, token: str | None = None) -> Grant:
        """Take as much of `cost` as every rate allows now, without waiting.

        A part may be granted: `Grant(granted, retry_after)`, the seconds until more can be had.
        """
        return await self.runner.run(self.calls.acquire(cost, token))

    async def wait(self, cost: int = 1, timeout: float | None = None) -> Grant:
        """Wait until all of `cost` is granted, in parts if need be, and for `timeout` seconds at most.

        Returns early, with `granted < cost`, when nothing more can come before the timeout; what was granted is
        charged.
        """
        return await self.runner.run(self.calls.wait(cost, timeout))
