"""What the queues have in common, blocking."""
# Written from the asyncio file of the same name by tools/async_to_sync.py: edit that one.

from __future__ import annotations

from collections.abc import Generator, Iterable
from functools import partial
from typing import Any, Generic, TypeVar

from ..core.batch import BatchData, Event, batch_of
from ..core.calls import Call
from ..core.leases import LeaseCalls
from ..core.replication import Durability, replica_wait
from .batch import Batch
from .runner import Client, Runner

C = TypeVar("C", bound=LeaseCalls[Any])
T = TypeVar("T")


class Queue(Generic[C, T]):
    """Base class of the buffer and the priority queue: what they do in the same way."""

    def __init__(self, calls: C, client: Client, durability: Durability) -> None:
        self.calls = calls
        self.client = client
        self.runner = Runner(client, replica_wait(durability, calls.queue))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.calls.name!r})"

    def _batch(self, events: list[Event[T]]) -> Batch[T] | None:
        queue: Any = self  # a Buffer or a PriorityQueue
        batch = batch_of(events)
        return None if batch is None else Batch(queue, batch)

    def _batches(self, events: Iterable[Event[T]]) -> list[Batch[T]]:
        queue: Any = self
        return [Batch(queue, event) for event in events if isinstance(event, BatchData)]

    def _turns(self, take: partial[Any]) -> Generator[Batch[T], None, None]:
        """Hand out batch after batch; the ack of one and the reserve of the next are one round trip."""
        batch: Batch[T] | None = take()
        while batch:
            done: Batch[T] | None = None
            try:
                yield batch
            except BaseException:  # the loop was left, or something was thrown in
                with batch:
                    raise
            else:
                done = None if batch.settled else batch
            batch = take(ack=done)

    def extend(self, *batches: BatchData[T], lease: float | None = None) -> None:
        """Keep batches `lease` seconds from now (default: the queue's lease); a later deadline stays.

        Their `deadline` is set anew. Raises `LeaseLost` as `ack` does.
        """
        self.runner.run(self.calls.extend_all(batches, lease))

    def send(self, *calls: Call[Any], return_exceptions: bool = False) -> list[Any]:
        """Send calls made by `calls` in one round trip, and return their results in order.

        `LeaseLost` or `CodecError` for one call is its result; any other error is raised, or with `return_exceptions`
        is a result too, unless it befell all of them. A reserve's result is a list of events: what it buried, then a
        `BatchData`, or `Nothing` with the time to ask again. A call whose script the server does not know yet is sent
        again, and so done after the others. With this and `wait` you can write a worker of your own.
        """
        return self.runner.send(calls, return_exceptions)

    def wait(self, seconds: float) -> None:
        """Wait until something is pushed or comes back, or for `seconds` or some less: at most 2.5 seconds."""
        self.runner.block(self.calls.wake_up(seconds))

    def pause(self, seconds: float | None = None, reason: str = "", *, token: str | None = None) -> None:
        """Hand nothing out, to any client in any language, for some seconds or until `resume`.

        `reserve` and `pop` answer as if there were nothing; pushes, acks and releases go on, and leases run out as
        ever. It takes the place of a pause that is there, and survives a restart as the other data does. `reason`
        (1,000 bytes at most) is shown to people. Idempotent, as `push`.
        """
        self.runner.run(self.calls.pause(seconds, reason, token))

    def resume(self, *, token: str | None = None) -> bool:
        """End a pause and wake blocked workers; return whether there was one. Idempotent, as `push`."""
        return self.runner.run(self.calls.resume(token))

    def leased(self, limit: int = 100, after: str | None = None) -> list[Batch[T]]:
        """Show up to `limit` batches that are handed out, the first to run out first, after the one with id `after`.

        If `after` is no longer leased, it shows from the start.
        """
        return self._batches(self.runner.run(self.calls.leased(limit, after)))
