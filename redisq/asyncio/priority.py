"""The unique priority queue, for asyncio."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from ..core.audit import Audit
from ..core.batch import BatchData
from ..core.codecs import JSON, TEXT, Codec
from ..core.flow import mapped
from ..core.limiter import Rate
from ..core.priority import Item, Order, PriorityCalls, PriorityStats, Pushed, State, T
from ..core.replication import Durability
from .batch import Batch
from .queue import Queue
from .runner import Client


class PriorityQueue(Queue[PriorityCalls[T], T]):
    """A queue of unique members, the most urgent first; pushing one again keeps the more urgent place.

    For example::

        index = PriorityQueue(client, "index")
        await index.push_many({"a.py": 10, "b.py": 10})
        await index.push("b.py", 0)  # raised, not added twice
        batch = await index.reserve()  # its items are ["b.py"]
        await batch.ack()

    A lower priority is more urgent. All workers of a queue must agree on its settings:

    - `order="fifo"`: whole priorities -1024..1023, equal ones leave in the order in which they were added; one that
      comes back keeps its place. `order="score"`: any finite number, equal ones leave in byte order, as in a plain
      sorted set. The first push decides the order for the queue.
    - `codec` turns members into bytes (default: text); a member is known by its bytes. `payload_codec` does the
      same for the payloads that may be pushed beside them (default: canonical JSON).
    - `lease`: seconds for which reserved members are held, unless they are extended.
    - `max_attempts`: a member that was handed out so often and comes back is dead; None: it comes back forever.
    - `max_dead`: how many dead members to keep; beyond it the oldest are dropped; None: all.
    - `rates`: at most so many batches are handed out, over all workers, in any span; charged inside `reserve`.
    - `dedup_window`: seconds for which a push is remembered, so that sending it again changes nothing (0: not at all).
    - `durability="replica"`: a call counts only when a replica has what it wrote, within a second; `Replicas(count,
      timeout)` asks for more. One that is not confirmed in time raises `NotDurable`: it has been done, and may be made
      again. Not with a RedisCluster.

    One object may be used by several threads, and after a fork; through asyncio by the tasks of one event loop, and by
    another loop when the first is closed.

    All keys begin with `prefix:{name}:`. The client stays yours: redisq neither configures nor closes it. Raises
    `InvalidArgument` for an empty name, one with `{` or `}`, an unknown order, a client of the other kind, a pipeline,
    or numbers out of range.
    """

    def __init__(
        self,
        client: Client,
        name: str,
        *,
        order: Order = "fifo",
        codec: Codec[T] = TEXT,  # type: ignore[assignment]  # the default of T is str
        payload_codec: Codec[Any] = JSON,
        lease: float = 30.0,
        max_attempts: int | None = None,
        max_dead: int | None = 10_000,
        rates: Sequence[Rate] = (),
        dedup_window: float = 60.0,
        durability: Durability = "server",
        prefix: str = "redisq",
    ) -> None:
        calls = PriorityCalls(
            name,
            order=order,
            codec=codec,
            payload_codec=payload_codec,
            lease=lease,
            max_attempts=max_attempts,
            max_dead=max_dead,
            rates=rates,
            dedup_window=dedup_window,
            prefix=prefix,
        )
        super().__init__(calls, client, durability)

    async def push(
        self,
        member: T,
        priority: float = 0,
        *,
        payload: Any = None,
        delay: float = 0.0,
        replace: bool = False,
        token: str | None = None,
    ) -> Pushed:
        """Add a member, due after `delay` seconds, and return what that did: `ADDED`, `RAISED`, `CHANGED` or `KEPT`.

        The lowest priority and the earliest time asked for win, in one step; with `replace=True` they become exactly
        these. A push asks anew: it ends a backoff, and attempts start afresh. A member that is leased is noted, and
        comes once more when its lease ends. `payload` replaces the stored one; None keeps it. Idempotent: the client
        library may send it again, and so may you, with the same `token`. Raises `InvalidArgument` for a priority that
        the order does not take, `CodecError` for a member that cannot be encoded, and `WrongOrder`, before anything is
        written.
        """
        call = self.calls.push(member, priority, payload=payload, delay=delay, replace=replace, token=token)
        return await self.runner.run(call)

    async def push_many(
        self,
        members: Mapping[T, float] | Iterable[tuple[T, float] | tuple[T, float, Any]],
        *,
        delay: float = 0.0,
        replace: bool = False,
        token: str | None = None,
    ) -> Counter[Pushed]:
        """Add any number of members, from a mapping or from tuples, and count what that did.

        Tuples are `(member, priority)` or `(member, priority, payload)`. In pieces of at most 500, each all or
        nothing, and idempotent; a member that comes twice begins a new piece. Stopped half-way, the same call with the
        same `token` within `dedup_window` adds only what is missing. Raises as `push` does; the pieces before the bad
        one are pushed.
        """
        return await self.runner.run(self.calls.push_many(members, delay=delay, replace=replace, token=token))

    async def pop(self, timeout: float = 0.0) -> Item[T] | None:
        """Remove the most urgent member at once, waiting up to `timeout` seconds for one; nothing to ack.

        None if none is ready. At most once: what is in the reply when the connection breaks, or in memory when the
        process dies, is gone. It applies no `max_attempts` and brings no expired lease back: use it for queues that
        nobody reserves from. Raises `CodecError`, whose `raw` has what was taken, for bytes that cannot be decoded, and
        `WrongOrder`.
        """
        return await self.runner.run(self.calls.pop(timeout))

    async def pop_many(self, count: int) -> list[Item[T]]:
        """Remove the `count` (1 to 1,000) most urgent members at once, as `pop` does."""
        return await self.runner.run(self.calls.pop_many(count))

    async def reserve(
        self,
        size: int = 1,
        *,
        max_bytes: int | None = None,
        timeout: float = 0.0,
        lease: float | None = None,
        lease_id: str | None = None,
        holder: str | None = None,
        ack: BatchData[T] | None = None,
    ) -> Batch[T] | None:
        """Take up to `size` (1 to 500) of the most urgent members and lease them, in one step; None if none is ready.

        `max_bytes` limits what their bytes and their payloads' add up to; at least one member comes. At least once:
        until it is settled a member comes back, when its `lease` (seconds; default: the queue's) runs out or it is
        released; no member is in two unexpired leases. `timeout`: seconds to wait for something to come. `lease_id`
        names the lease; sent again with the same one, by redis-py or by you, it answers with the same batch while that
        is held, and never with a second one. `holder` (default: `host:pid`) is shown to people. `ack`: a batch to ack
        in the same round trip, before anything is taken; if it is no longer held, that raises `LeaseLost` and nothing
        stays taken. Raises `CodecError`, whose `raw` is the batch in bytes, for bytes that cannot be decoded, and
        `WrongOrder`.
        """
        flow = self.calls.reserve_flow(
            size, max_bytes=max_bytes, timeout=timeout, lease=lease, lease_id=lease_id, holder=holder, ack=ack
        )
        return await self.runner.run(mapped(flow, self._batch))

    def batches(
        self,
        size: int = 1,
        *,
        max_bytes: int | None = None,
        timeout: float = 0.0,
        lease: float | None = None,
        holder: str | None = None,
    ) -> AsyncGenerator[Batch[T], None]:
        """Reserve batches until nothing comes for `timeout` seconds: `for batch in queue.batches(timeout=5): ...`.

        The arguments are those of `reserve`. Each batch is acked when its turn ends, unless it was settled; raises
        `LeaseLost` if it is no longer held, and as `reserve` does. If the loop is left early the batch whose turn it is
        is released, whether by break, return or an exception: a generator cannot tell them apart. (An async one is
        told a moment later; `contextlib.aclosing` makes that at once.) So where it matters, write `with batch:` around
        the body: then break and return ack the batch, the reason of an exception is kept with it, and after `Retry` and
        `Bury` the loop goes on. The lease is not extended meanwhile, see `Batch.extend`.
        """
        take = partial(self.reserve, size, max_bytes=max_bytes, timeout=timeout, lease=lease, holder=holder)
        return self._turns(take)

    async def reserve_many(
        self,
        count: int,
        size: int = 1,
        *,
        max_bytes: int | None = None,
        lease: float | None = None,
        lease_id: str | None = None,
        holder: str | None = None,
    ) -> list[Batch[T]]:
        """Reserve up to `count` (1 to 500) batches in one round trip, each as `reserve` does.

        Raises as `reserve` does; the other batches then stay held until their leases run out.
        """
        flow = self.calls.reserve_many(count, size, max_bytes=max_bytes, lease=lease, lease_id=lease_id, holder=holder)
        return await self.runner.run(mapped(flow, self._batches))

    async def ack(self, *batches: BatchData[T], delay: float = 0.0) -> int:
        """Settle batches in one round trip, and return how many members are done.

        Those marked with `Batch.fail` are given back, due again in `delay` seconds. A member that was pushed meanwhile
        comes once more; one that was removed meanwhile does not count. Idempotent: safe to retry. Raises `LeaseLost`
        for batches that are no longer held, after all were tried; a lease is lost when a reserve finds that it ran out,
        or when it was settled, buried or purged.
        """
        return await self.runner.run(self.calls.ack_all(batches, delay))

    async def release(
        self, *batches: BatchData[T], delay: float = 0.0, count: bool = True, reason: str | None = None
    ) -> int:
        """Give batches back, due again in `delay` seconds, in one round trip; return how many members that is.

        Each keeps its place, or takes a better one that was pushed meanwhile. With `count=False` this hand-over is
        not an attempt, as for an answer of 429. `reason` (at most 1,000 bytes) is kept with them. Idempotent: safe to
        retry. Raises `LeaseLost` as `ack` does.
        """
        return await self.runner.run(self.calls.release_all(batches, delay, count=count, reason=reason))

    async def bury(self, *batches: BatchData[T], reason: str | None = None) -> int:
        """Let the members of batches be dead now, whatever their attempts; return how many that is.

        One that was pushed meanwhile lives on. Idempotent: safe to retry. Raises `LeaseLost` as `ack` does.
        """
        return await self.runner.run(self.calls.bury_all(batches, reason))

    async def peek(self, count: int = 1, after: int = 0) -> list[Item[T]]:
        """Show the `count` most urgent members that are ready, after the first `after` of them, and take none."""
        return await self.runner.run(self.calls.peek(count, after))

    async def delayed(self, limit: int = 100, after: T | None = None) -> list[Item[T]]:
        """Show up to `limit` delayed members, the first to be due first, after the member `after`.

        If `after` is no longer delayed, it shows from the start.
        """
        return await self.runner.run(self.calls.delayed(limit, after))

    async def dead(self, limit: int = 100, after: T | None = None) -> list[Item[T]]:
        """Show up to `limit` dead members, the earliest first, after the member `after`.

        If `after` is no longer dead, it shows from the start.
        """
        return await self.runner.run(self.calls.dead(limit, after))

    async def redrive(self, *members: T, token: str | None = None) -> int:
        """Let up to 1,000 dead members be ready again, at their old place; return how many were dead.

        Their attempts start afresh. Idempotent, as `push`.
        """
        return await self.runner.run(self.calls.redrive(members, token))

    async def discard(self, *members: T, token: str | None = None) -> int:
        """Throw up to 1,000 dead members away, and return how many were dead. Idempotent, as `push`."""
        return await self.runner.run(self.calls.discard(members, token))

    async def state(self, member: T) -> State:
        """Return where a member is: `ABSENT`, `READY`, `DELAYED`, `LEASED` or `DEAD`.

        Due members are promoted lazily: one whose delay is over, or whose lease ran out, is ready with the next call
        that takes members.
        """
        return await self.runner.run(self.calls.state(member))

    async def remove(self, *members: T, token: str | None = None) -> int:
        """Take up to 1,000 members out, whatever their state, and return how many were there.

        One that is leased is forgotten when its lease ends; its holder's ack does not count it. Idempotent, as `push`.
        """
        return await self.runner.run(self.calls.remove(members, token))

    async def stats(self) -> PriorityStats:
        """Count the members of each state, in one moment."""
        return await self.runner.run(self.calls.stats())

    async def audit(self, repair: bool = False, *, max_lease: float | None = None) -> Audit:
        """Compare the queue's keys with each other and, with `repair`, repair what disagrees.

        Nothing that exists is thrown away. It looks at a page at a time and does not block the server. On a queue at
        work it is right about each moment it looks at. A lease that lies further ahead than `max_lease` seconds
        (default: twice the queue's lease, an hour at least) is named, and ends then.
        """
        return await self.runner.run(self.calls.audit(repair, max_lease=max_lease))

    async def purge(self) -> int:
        """Throw away every member, in bounded steps, and return how many that was; a pause stays."""
        return await self.runner.run(self.calls.purge())
