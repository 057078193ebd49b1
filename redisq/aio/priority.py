"""The unique priority queue, for asyncio."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Generic

from ..codecs import TEXT, Codec
from ..ops import (
    Audit,
    Durability,
    Item,
    Lease,
    PriorityOps,
    PriorityStats,
    Pushed,
    Rate,
    Reserved,
    State,
    confirm,
    finish,
    items,
)
from ..ops.priority import Order, T
from .batch import Batch
from .runner import Client, Runner


class PriorityQueue(Generic[T]):
    """Keep unique members, the most urgent first; pushing one again keeps the more urgent place.

    A lower priority is more urgent. What all workers of a queue must agree on stands here, not in the calls:

    - `order="fifo"`: whole priorities -1024..1023, equal ones leave in the order in which they were added; one that
    comes
      back keeps its place. `order="score"`: any finite number, equal ones leave in byte order, as in a plain sorted
      set. The first push decides the order for the queue.
    - `codec` turns members into bytes (default: text); equal members must have equal bytes.
    - `lease`: seconds for which reserved members are held, unless they are extended.
    - `max_attempts`: a member that was handed out so often and comes back is dead; None: it comes back for ever.
    - `rates`: at most so many batches are handed out, over all workers, in any span; charged inside `reserve`.
    - `dedup_window`: seconds for which a push is remembered, so that sending it again changes nothing (0: not at
    all).
    - `durability="replica"`: a call counts only when a replica has what it wrote, within a second; `Replicas(count,
      timeout)` says otherwise. One that is not confirmed in time raises `NotDurable`: it has been done, and may be made
      again. Not with a RedisCluster.

    All keys begin with `prefix:{name}:`. The client stays yours: redisq neither configures nor closes it. Raises
    `InvalidArgument` for an empty name, one with `{` or `}`, an unknown order, a client of the blocking kind, a
    pipeline, or numbers out of range.
    """

    def __init__(
        self,
        client: Client,
        name: str,
        *,
        order: Order = "fifo",
        codec: Codec[T] = TEXT,  # type: ignore[assignment]  # the default of T is str
        lease: float = 30.0,
        max_attempts: int | None = None,
        rates: Sequence[Rate] = (),
        dedup_window: float = 60.0,
        durability: Durability = "server",
        prefix: str = "redisq",
    ) -> None:
        self.ops = PriorityOps(
            name,
            order=order,
            codec=codec,
            lease=lease,
            max_attempts=max_attempts,
            rates=rates,
            dedup_window=dedup_window,
            prefix=prefix,
        )
        self.runner = Runner(client, confirm(durability, self.ops.queue))

    async def push(self, member: T, priority: float = 0, *, delay: float = 0.0, token: str | None = None) -> Pushed:
        """Add a member, ready after `delay` seconds, and say what that did.

        `ADDED`, `RAISED` (it was there and became more urgent) or `KEPT`: the lowest priority and the earliest time
        asked for win, in one step. Once: the client library may send it again, and so may you, with the same `token`.
        Raises `InvalidArgument` for a priority that the order does not take, `CodecError` for a member that cannot be
        encoded, and `WrongOrder`, before anything is written.
        """
        return await self.runner.run(self.ops.push(member, priority, delay=delay, token=token))

    async def push_many(
        self, members: Mapping[T, float] | Iterable[tuple[T, float]], *, delay: float = 0.0, token: str | None = None
    ) -> Counter[Pushed]:
        """Add any number of members, from a mapping or pairs `(member, priority)`, and count what that did.

        In pieces of 1,000, each all or nothing, and once. Stopped half-way, the same call with the same `token`
        within `dedup_window` adds only what is missing. Raises as `push` does; the pieces before the bad one are
        pushed.
        """
        return await self.runner.talk(self.ops.push_many(members, delay=delay, token=token))

    async def pop(self, timeout: float = 0.0) -> Item[T] | None:
        """Take the most urgent member and forget it, waiting up to `timeout` seconds for one; None if none is ready.

        At most once: what is in the reply when the connection breaks, or in hand when the process dies, is gone.
        Raises `CodecError`, whose `raw` has what was taken, for bytes that cannot be decoded, and `WrongOrder`.
        """
        return await self.runner.talk(self.ops.pop(timeout))

    async def pop_many(self, count: int) -> list[Item[T]]:
        """Take the `count` (1 to 1,000) most urgent members and forget them, as `pop` does."""
        return await self.runner.run(self.ops.pop_many(count))

    async def reserve(
        self, size: int = 1, *, timeout: float = 0.0, lease: float | None = None, lease_id: str | None = None
    ) -> Batch[T] | None:
        """Take up to `size` (1 to 1,000) of the most urgent members and lease them, in one step; None if none is ready.

        At least once: until it is acked a member comes back, when its `lease` (seconds; default: the queue's) runs
        out or its holder gives it back; no member is in two unexpired leases. `timeout`: seconds to wait for
        something to come. `lease_id` names the lease; sent again with the same one, by redis-py or by you, it answers
        with what is still held of the same batch, and never with a second one. Raises `CodecError`, whose `raw` is
        the batch in bytes, for bytes that cannot be decoded, and `WrongOrder`.
        """
        talk = self.ops.reserve(size, timeout=timeout, lease=lease, lease_id=lease_id)
        return await self.runner.talk(finish(talk, self._batch))

    def _batch(self, reserved: Reserved[T]) -> Batch[T] | None:
        return Batch(self, reserved.lease) if reserved.lease else None

    async def reserve_many(
        self, count: int, size: int = 1, *, lease: float | None = None, lease_id: str | None = None
    ) -> list[Batch[T]]:
        """Reserve up to `count` (1 to 1,000) batches in one round trip, each as `reserve` does.

        Raises as `reserve` does; the other batches then stay held until their leases run out.
        """
        talk = self.ops.reserve_many(count, size, lease=lease, lease_id=lease_id)
        return await self.runner.talk(finish(talk, self._batches))

    def _batches(self, found: list[Reserved[T]]) -> list[Batch[T]]:
        return [Batch(self, reserved.lease) for reserved in found if reserved.lease]

    async def ack(self, *batches: Lease[T], delay: float = 0.0) -> int:
        """Settle batches in one round trip, and return how many members are done.

        It acts on the members that are still held; those marked with `Batch.fail` are given back, ready again in
        `delay` seconds. A member that was pushed meanwhile is ready once more. Sent twice, it counts once. Raises
        `LeaseLost` for batches of which no member is held any more, after all were tried.
        """
        return await self.runner.talk(finish(self.ops.ack(batches, delay), items))

    async def release(self, *batches: Lease[T], delay: float = 0.0) -> int:
        """Give batches back, ready again in `delay` seconds, in one round trip; return how many members that is.

        Each keeps its place, or takes a better one that was pushed meanwhile; one that has used up `max_attempts` is
        dead. Sent twice, it counts once. Raises `LeaseLost` as `ack` does.
        """
        return await self.runner.talk(finish(self.ops.release(batches, delay), items))

    async def extend(self, *batches: Lease[T], lease: float | None = None) -> None:
        """Keep batches `lease` seconds from now (default: the queue's lease); a later deadline stays.

        Their `deadline` is set anew. Raises `LeaseLost` as `ack` does.
        """
        await self.runner.talk(self.ops.extend(batches, lease))

    async def dead(self, limit: int = 100, after: T | None = None) -> list[Item[T]]:
        """Show up to `limit` (1 to 1,000) dead members in byte order, from the one after the member `after` on.

        If `after` is no longer dead, it shows from the start.
        """
        return await self.runner.run(self.ops.dead(limit, after))

    async def redrive(self, *members: T, token: str | None = None) -> int:
        """Give up to 1,000 dead members another life, at their old place; return how many were dead.

        Once, as `push`.
        """
        return await self.runner.run(self.ops.redrive(members, token))

    async def discard(self, *members: T, token: str | None = None) -> int:
        """Throw up to 1,000 dead members away, and return how many were dead. Once, as `push`."""
        return await self.runner.run(self.ops.discard(members, token))

    async def peek(self, count: int = 1) -> list[Item[T]]:
        """Show the `count` (1 to 1,000) most urgent members that are ready, and take none."""
        return await self.runner.run(self.ops.peek(count))

    async def state(self, member: T) -> State:
        """Say where a member is: `ABSENT`, `READY`, `DELAYED`, `LEASED` or `DEAD`.

        A member whose delay is over, or whose lease ran out, becomes ready with the next call that takes members.
        """
        return await self.runner.run(self.ops.state(member))

    async def remove(self, *members: T, token: str | None = None) -> int:
        """Take up to 1,000 members out, whatever their state, and return how many were there.

        Who is working on one finds its lease lost. Once, as `push`.
        """
        return await self.runner.run(self.ops.remove(members, token))

    async def stats(self) -> PriorityStats:
        """Count the members of each state; with more than 500 delayed and leased ones, over several moments."""
        return await self.runner.talk(self.ops.stats())

    async def audit(self, repair: bool = False) -> Audit:
        """Compare the queue's keys with each other and, with `repair`, mend what disagrees.

        Nothing that exists is thrown away. It looks at a page at a time and holds nobody up. On a queue at work it is
        right about each moment it looks at.
        """
        return await self.runner.talk(self.ops.audit(repair))

    async def purge(self) -> int:
        """Throw away every member, and the queue's order, and return how many members that was."""
        return await self.runner.talk(self.ops.purge())
