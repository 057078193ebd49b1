"""A batch that is held, for asyncio."""

from __future__ import annotations

import logging
from typing import Any, Protocol, TypeVar

from ..core.batch import BatchData
from ..core.errors import Bury, Retry
from ..core.queue import describe, reason_of

T = TypeVar("T")
logger = logging.getLogger("redisq")


class Owner(Protocol):
    """What a batch asks of its queue."""

    async def ack(self, *batches: BatchData[Any], delay: float = 0.0) -> int:
        """Settle batches."""

    async def release(
        self, *batches: BatchData[Any], delay: float = 0.0, count: bool = True, reason: str | None = None
    ) -> int:
        """Give batches back."""

    async def bury(self, *batches: BatchData[Any], reason: str | None = None) -> int:
        """Make dead letters of batches."""

    async def extend(self, *batches: BatchData[Any], lease: float | None = None) -> None:
        """Keep batches longer."""


class Batch(BatchData[T]):
    """A batch that a reserve handed out, held until it is settled or its lease runs out.

    As a context manager it is acked on a clean exit, released on an exception with that as the reason, and left alone
    if it is already settled. The exception always goes on to the caller, whatever becomes of the release; but `Retry`
    and `Bury` say what becomes of the batch, and go no further.
    """

    def __init__(self, queue: Any, batch: BatchData[T]) -> None:
        vars(self).update(vars(batch))  # all fields, so that a new one is not forgotten here
        self._queue: Owner = queue

    async def ack(self, delay: float = 0.0) -> int:
        """Settle the batch, and return how many items are done.

        Items marked with `fail` are given back, to be due again in `delay` seconds. Idempotent: safe to retry.
        Raises `LeaseLost` if the batch is no longer held.
        """
        return await self._queue.ack(self, delay=delay)

    async def release(self, delay: float = 0.0, count: bool = True, reason: str | None = None) -> int:
        """Give the batch back, to be due again in `delay` seconds, and return how many items that is.

        With `count=False` this hand-over is not an attempt; `reason` (1,000 bytes at most) is kept with the batch.
        Raises `LeaseLost` if the batch is no longer held.
        """
        return await self._queue.release(self, delay=delay, count=count, reason=reason)

    async def bury(self, reason: str | None = None) -> int:
        """Make the batch a dead letter now, whatever its attempts, and return how many items that is.

        Raises `LeaseLost` if the batch is no longer held.
        """
        return await self._queue.bury(self, reason=reason)

    async def extend(self, lease: float | None = None) -> None:
        """Keep the batch `lease` seconds from now (default: the queue's lease); a later deadline stays.

        Raises `LeaseLost` if the batch is no longer held.
        """
        await self._queue.extend(self, lease=lease)

    async def __aenter__(self) -> Batch[T]:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, *_: object) -> bool:
        asked = isinstance(error, (Retry, Bury))
        if self.settled:
            if asked:
                logger.warning("batch %s was settled before it could be given back: %r", self.id, error)
            return asked
        if error is None:
            await self.ack()
            return False
        try:
            if isinstance(error, Bury):
                await self.bury(reason_of(error))
            elif isinstance(error, Retry):
                await self.release(error.delay or 0.0, error.count, reason_of(error))
            else:
                left = isinstance(error, GeneratorExit)
                await self.release(reason="the loop was left" if left else describe(error))
        except Exception as problem:  # the caller's error is on its way up, whatever this one is
            # The batch comes back when its lease runs out.
            logger.warning("batch %s could not be given back: %s", self.id, problem)
        return asked
