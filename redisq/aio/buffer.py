"""The grouped batch buffer, for asyncio."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Generic

from ..codecs import JSON, Codec
from ..ops import Audit, BufferOps, BufferStats, Durability, Lease, Rate, Reserved, confirm, finish, items
from ..ops.buffer import T
from .batch import Batch
from .runner import Client, Runner


class Buffer(Generic[T]):
    """Pile items up per group, and take them in batches of one group.

    What all workers of a queue must agree on stands here, not in the calls:

    - `codec` turns items into bytes (default: canonical JSON).
    - `lease`: seconds for which a reserved batch is held, unless it is extended.
    - `min_size`, `max_wait`: a group is handed out from `min_size` waiting items on, and at any length `max_wait`
    seconds
      after it became non-empty or was last served; `max_wait=None` is for `min_size=1` alone.
    - `max_attempts`: a batch that was handed out so often and comes back is a dead letter; None: it comes back for
    ever. - `rates`: at most so many batches are handed out, over all workers, in any span; charged inside `reserve`,
    so that
      none is spent on nothing.
    - `dedup_window`: seconds for which a push is remembered, so that sending it again adds nothing (0: not at all);
    it
      costs about 160 bytes each.
    - `durability="replica"`: a call counts only when a replica has what it wrote, within a second; `Replicas(count,
      timeout)` says otherwise. One that is not confirmed in time raises `NotDurable`: it has been done, and may be made
      again. Not with a RedisCluster.

    All keys begin with `prefix:{name}:`. The client stays yours: redisq neither configures nor closes it. Raises
    `InvalidArgument` for an empty name, one with `{` or `}`, a client of the blocking kind, a pipeline, or numbers
    out of range.
    """

    def __init__(
        self,
        client: Client,
        name: str,
        *,
        codec: Codec[T] = JSON,
        lease: float = 30.0,
        min_size: int = 1,
        max_wait: float | None = 60.0,
        max_attempts: int | None = None,
        rates: Sequence[Rate] = (),
        dedup_window: float = 60.0,
        durability: Durability = "server",
        prefix: str = "redisq",
    ) -> None:
        self.ops = BufferOps(
            name,
            codec=codec,
            lease=lease,
            min_size=min_size,
            max_wait=max_wait,
            max_attempts=max_attempts,
            rates=rates,
            dedup_window=dedup_window,
            prefix=prefix,
        )
        self.runner = Runner(client, confirm(durability, self.ops.queue))

    async def push(self, *items: T, group: str = "default", token: str | None = None) -> int:
        """Append up to 10,000 items to a group and return the group's waiting length after it.

        All or nothing, and once: the client library may send it again, and so may you, with the same `token`. Pushing
        nothing writes nothing. Raises `CodecError` for an item that cannot be encoded and `InvalidArgument` for an
        empty group or too many items, before anything is written.
        """
        return await self.runner.run(self.ops.push(items, group, token))

    async def push_many(self, items: Iterable[T], group: str = "default", token: str | None = None) -> int:
        """Append any number of items in pieces of 10,000 and return the group's waiting length after it.

        Each piece is all or nothing, and once; the iterable is read a piece ahead, never whole. Stopped half-way, the
        same call with the same `token` within `dedup_window` adds only what is missing. Raises as `push` does; the
        error says how many items were pushed before the bad one.
        """
        return await self.runner.talk(self.ops.push_many(items, group, token))

    async def push_front(self, *items: T, group: str = "default", token: str | None = None) -> int:
        """Put up to 10,000 items back at a group's front, in the order given, and return its waiting length.

        The first item given is the next to leave. Guarantees and errors are those of `push`.
        """
        return await self.runner.run(self.ops.push(items, group, token, front=True))

    async def pop(self, group: str = "default", size: int = 2000) -> list[T]:
        """Take up to `size` (1 to 10,000) items of one group, oldest first, and forget them.

        At most once: what is in the reply when the connection breaks, or in hand when the process dies, is gone.
        Raises `InvalidArgument` for a bad size, and `CodecError`, whose `raw` has all that was taken, for bytes that
        cannot be decoded.
        """
        return await self.runner.run(self.ops.pop(group, size))

    async def longest_groups(self, count: int = 2) -> dict[str, int]:
        """Return the `count` (1 to 5,000) longest groups and their waiting lengths, longest first.

        Equal lengths: the greater name first. It only looks: to choose and take in one step, use `pop_longest`.
        """
        return await self.runner.run(self.ops.longest_groups(count))

    async def pop_longest(self, groups: int = 2, size: int = 2000) -> dict[str, list[T]]:
        """Choose the longest groups and take up to `size` items of each, in one step; the longest group comes first.

        Two flushers never get the same items, nor spend a call on nothing. `groups` may be 500 and `groups * size`
        10,000 at most. At most once, with the errors of `pop`; the `raw` of a `CodecError` is a dict of lists of bytes.
        """
        return await self.runner.run(self.ops.pop_longest(groups, size))

    async def reserve(
        self, size: int = 2000, *, timeout: float = 0.0, lease: float | None = None, lease_id: str | None = None
    ) -> Batch[T] | None:
        """Choose a group, take up to `size` (1 to 10,000) of its items and lease them, in one step.

        None if there is nothing to hand out. First what is due, the earliest first: batches whose lease ran out,
        batches that were given back, groups that have waited `max_wait`; only then the longest group of at least
        `min_size`. So nothing waits for ever. A batch that comes back comes whole, whatever `size` says.

        At least once: until it is acked the batch comes back, when its `lease` (seconds; default: the queue's) runs
        out or its holder gives it back; no item is in two unexpired leases. `timeout`: seconds to wait for something
        to come. `lease_id` names the lease; sent again with the same one, by redis-py or by you, it answers with the
        same batch while that is held, and never with a second one. Raises `CodecError`, whose `raw` is the batch in
        bytes, for bytes that cannot be decoded; the batch is held until its lease runs out.
        """
        talk = self.ops.reserve(size, timeout=timeout, lease=lease, lease_id=lease_id)
        return await self.runner.talk(finish(talk, self._batch))

    def _batch(self, reserved: Reserved[T]) -> Batch[T] | None:
        return Batch(self, reserved.lease) if reserved.lease else None

    async def reserve_many(
        self, count: int, size: int = 2000, *, lease: float | None = None, lease_id: str | None = None
    ) -> list[Batch[T]]:
        """Reserve up to `count` (1 to 1,000) batches in one round trip, each as `reserve` does.

        Raises as `reserve` does; the other batches then stay held until their leases run out.
        """
        talk = self.ops.reserve_many(count, size, lease=lease, lease_id=lease_id)
        return await self.runner.talk(finish(talk, self._batches))

    def _batches(self, found: list[Reserved[T]]) -> list[Batch[T]]:
        return [Batch(self, reserved.lease) for reserved in found if reserved.lease]

    async def ack(self, *batches: Lease[T], delay: float = 0.0) -> int:
        """Settle batches in one round trip, and return how many items are done.

        Items marked with `Batch.fail` are given back, to be due again in `delay` seconds, with their batch's
        attempts. Sent twice, it counts once. Raises `LeaseLost` for batches that are no longer held, after all were
        tried; a lease is lost when its batch was handed out again, buried, settled or purged, not at its deadline.
        """
        return await self.runner.talk(finish(self.ops.ack(batches, delay), items))

    async def release(self, *batches: Lease[T], delay: float = 0.0) -> int:
        """Give batches back whole, to be due again in `delay` seconds, and return how many items that is.

        Sent twice, it counts once. Raises `LeaseLost` as `ack` does.
        """
        return await self.runner.talk(finish(self.ops.release(batches, delay), items))

    async def extend(self, *batches: Lease[T], lease: float | None = None) -> None:
        """Keep batches `lease` seconds from now (default: the queue's lease); a later deadline stays.

        Their `deadline` is set anew. Raises `LeaseLost` as `ack` does.
        """
        await self.runner.talk(self.ops.extend(batches, lease))

    async def dead(self, limit: int = 100, after: str | None = None) -> list[Batch[T]]:
        """Show up to `limit` (1 to 1,000) dead letters, the earliest first, from the one after the id `after` on.

        Their `deadline` is the time of their death. If `after` is no longer dead, it shows from the start.
        """
        return [Batch(self, lease) for lease in await self.runner.talk(self.ops.dead(limit, after))]

    async def redrive(self, *ids: str, token: str | None = None) -> int:
        """Give up to 1,000 dead letters another life: due now, with no attempts; return how many were dead.

        Once, as `push`.
        """
        return await self.runner.run(self.ops.redrive(ids, token))

    async def discard(self, *ids: str, token: str | None = None) -> int:
        """Throw up to 1,000 dead letters away, and return how many were dead. Once, as `push`."""
        return await self.runner.run(self.ops.discard(ids, token))

    async def stats(self) -> BufferStats:
        """Count what waits, is leased, delayed and dead; with more than 2,000 groups, over several moments."""
        return await self.runner.talk(self.ops.stats())

    async def audit(self, repair: bool = False) -> Audit:
        """Compare the queue's keys with each other and, with `repair`, mend what disagrees.

        Nothing that exists is thrown away. It walks the server's keys a page at a time and holds nobody up. On a
        queue at work it is right about each moment it looks at.
        """
        return await self.runner.talk(self.ops.audit(repair))

    async def purge(self) -> int:
        """Throw everything away, in every state, some groups and batches at a time; return how many items that was."""
        return await self.runner.talk(self.ops.purge())
