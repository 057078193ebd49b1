"""A batch that is held, blocking."""

from __future__ import annotations

import logging
from typing import Any, Protocol, TypeVar

from ..errors import LeaseLost, NotDurable
from ..ops import Lease

T = TypeVar("T")
logger = logging.getLogger("redisq")


class Holder(Protocol):
    """Stand for the queue that handed a batch out."""

    def ack(self, *batches: Any, delay: float = 0.0) -> int:
        """Settle batches."""
        ...

    def release(self, *batches: Any, delay: float = 0.0) -> int:
        """Give batches back."""
        ...

    def extend(self, *batches: Any, lease: float | None = None) -> None:
        """Keep batches longer."""
        ...


class Batch(Lease[T]):
    """Hold what a reserve handed out, until it is acked or released, or its lease runs out.

    As a context manager it is acked on a clean exit, released on an exception, and left alone if it is already
    settled.
    """

    def __init__(self, queue: Holder, lease: Lease[T]) -> None:
        super().__init__(**vars(lease))
        self._queue = queue

    def ack(self, delay: float = 0.0) -> int:
        """Say that the batch is done, and return how many items are.

        Items marked with `fail` are given back, to be due again in `delay` seconds. Sent twice, it counts once.
        Raises `LeaseLost` if the batch is no longer held.
        """
        return self._queue.ack(self, delay=delay)

    def release(self, delay: float = 0.0) -> int:
        """Give the batch back, to be due again in `delay` seconds, and return how many items that is.

        Raises `LeaseLost` if the batch is no longer held.
        """
        return self._queue.release(self, delay=delay)

    def extend(self, lease: float | None = None) -> None:
        """Keep the batch `lease` seconds from now (default: the queue's lease); a later deadline stays.

        Raises `LeaseLost` if the batch is no longer held.
        """
        self._queue.extend(self, lease=lease)

    def __enter__(self) -> Batch[T]:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.settled:
            return
        if kind is None:
            self.ack()
            return
        try:
            self.release()
        except (LeaseLost, NotDurable) as problem:
            logger.warning("a batch failed, and so did its release: %s", problem)  # the failure itself is on its way up
