"""The grouped batch buffer, blocking."""
# Written from the asyncio file of the same name by tools/async_to_sync.py: edit that one.

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from functools import partial

from ..core.audit import Audit
from ..core.batch import BatchData
from ..core.buffer import BufferCalls, BufferStats, GroupState, T
from ..core.codecs import JSON, Codec
from ..core.flow import mapped
from ..core.limiter import Rate
from ..core.replication import Durability
from .batch import Batch
from .queue import Queue
from .runner import Client


class Buffer(Queue[BufferCalls[T], T]):
    """A buffer of items that pile up per group and leave in batches of one group.

    For example::

        mails = Buffer(client, "mails")
        mails.push("hello anna", "hello ben", group="eu")
        for batch in mails.batches(size=100):  # acked at the end of its turn
            with batch:  # released on an exception
                send(batch.group, batch.items)

    All workers of a queue must agree on its settings:

    - `codec` turns items into bytes (default: canonical JSON).
    - `lease`: seconds for which a reserved batch is held, unless it is extended.
    - `min_size`, `max_wait`: a group is handed out from `min_size` waiting items on, and at any length when `max_wait`
      seconds have passed since it became non-empty or was last served; `max_wait=None` needs `min_size=1`.
    - `max_attempts`: a batch that was handed out so often and comes back becomes a dead letter; None: it comes back
      forever.
    - `ordered`: one batch of a group at a time, so that its items are processed strictly in order.
    - `isolate`: a batch of several items that has used its attempts is split instead of buried, so that in the end
      only the item that fails is dead.
    - `max_dead`: how many dead letters to keep, in batches; beyond it the oldest are dropped; None: all.
    - `rates`: at most so many batches are handed out, over all workers, in any span; charged inside `reserve`.
    - `dedup_window`: seconds for which a push is remembered, so that sending it again adds nothing (0: not at all); it
      costs about 160 bytes each.
    - `durability="replica"`: a call counts only when a replica has what it wrote, within a second; `Replicas(count,
      timeout)` asks for more. One that is not confirmed in time raises `NotDurable`: it has been done, and may be made
      again. Not with a RedisCluster.

    One object may be used by several threads, and after a fork; through asyncio by the tasks of one event loop, and by
    another loop when the first is closed.

    All keys begin with `prefix:{name}:`. The client stays yours: redisq neither configures nor closes it. Raises
    `InvalidArgument` for an empty name, one with `{` or `}`, a client of the other kind, a pipeline, or numbers out of
    range.
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
        ordered: bool = False,
        isolate: bool = False,
        max_dead: int | None = 10_000,
        rates: Sequence[Rate] = (),
        dedup_window: float = 60.0,
        durability: Durability = "server",
        prefix: str = "redisq",
    ) -> None:
        calls = BufferCalls(
            name,
            codec=codec,
            lease=lease,
            min_size=min_size,
            max_wait=max_wait,
            max_attempts=max_attempts,
            ordered=ordered,
            isolate=isolate,
            max_dead=max_dead,
            rates=rates,
            dedup_window=dedup_window,
            prefix=prefix,
        )
        super().__init__(calls, client, durability)

    def push(self, *items: T, group: str = "default", token: str | None = None) -> int:
        """Append up to 5,000 items to a group and return the group's waiting length after it.

        All or nothing. Idempotent: the client library may send it again, and so may you, with the same `token`. Pushing
        nothing writes nothing. Raises `CodecError` for an item that cannot be encoded and `InvalidArgument` for an
        empty group or too many items, before anything is written.
        """
        return self.runner.run(self.calls.push(items, group, token))

    def push_many(self, items: Iterable[T], group: str = "default", token: str | None = None) -> int:
        """Append any number of items in pieces of 5,000 and return the group's waiting length after it.

        Each piece is all or nothing, and idempotent; the iterable is read a piece ahead, never whole. Stopped half-way,
        the same call with the same `token` within `dedup_window` adds only what is missing. Raises as `push` does; the
        error says how many items were pushed before the bad one.
        """
        return self.runner.run(self.calls.push_many(items, group, token))

    def push_front(self, *items: T, group: str = "default", token: str | None = None) -> int:
        """Put up to 5,000 items back at a group's front, in the order given, and return its waiting length.

        The first item given is the next to leave. Guarantees and errors are those of `push`.
        """
        return self.runner.run(self.calls.push(items, group, token, front=True))

    def pop(self, group: str = "default", size: int = 2000) -> list[T]:
        """Remove up to `size` (1 to 5,000) items of one group at once, oldest first; nothing to ack.

        At most once: what is in the reply when the connection breaks, or in memory when the process dies, is gone.
        Empty if the group is empty, busy (`ordered`) or paused. Raises `InvalidArgument` for a bad size, and
        `CodecError`, whose `raw` has all that was taken, for bytes that cannot be decoded.
        """
        return self.runner.run(self.calls.pop(group, size))

    def groups(self, limit: int = 100, after: int = 0, state: GroupState = "waiting") -> dict[str, int]:
        """Return groups of a state and their waiting lengths, the longest first.

        At most `limit`, after the first `after` of them. `state`: `"waiting"` for those that may be handed out,
        `"busy"` for those of an `ordered` buffer that have a batch out, or `"paused"`. Equal lengths: the greater name
        first. It only looks: to choose and take in one step, use `pop_longest` or `reserve`.
        """
        return self.runner.run(self.calls.groups(limit, after, state))

    def pop_longest(self, groups: int = 2, size: int = 2000) -> dict[str, list[T]]:
        """Choose groups and remove up to `size` items of each, in one step; nothing to ack.

        Groups that have waited `max_wait` come first, then the longest ones. Two flushers never get the same items, nor
        spend a call on nothing. `groups` may be 250 and `groups * size` 5,000 at most. At most once, with the errors
        of `pop`; the `raw` of a `CodecError` is a dict of lists of bytes.
        """
        return self.runner.run(self.calls.pop_longest(groups, size))

    def reserve(
        self,
        size: int = 2000,
        *,
        max_bytes: int | None = None,
        timeout: float = 0.0,
        lease: float | None = None,
        lease_id: str | None = None,
        holder: str | None = None,
        ack: BatchData[T] | None = None,
    ) -> Batch[T] | None:
        """Choose a group, take up to `size` (1 to 3,000) of its items and lease them, in one step.

        None if there is nothing to hand out. What is due comes first, the earliest first: batches whose lease ran out,
        batches that were given back, groups that have waited `max_wait`; only then the longest group of at least
        `min_size`. So nothing waits forever. A batch that comes back comes whole, whatever `size` and `max_bytes` (of
        encoded items; at least one item comes) say.

        At least once: until it is settled the batch comes back, when its `lease` (seconds; default: the queue's) runs
        out or it is released; no item is in two unexpired leases. `timeout`: seconds to wait for something to come.
        `lease_id` names the lease; sent again with the same one, by redis-py or by you, it answers with the same batch
        while that is held, and never with a second one. `holder` (default: `host:pid`) is shown to people. `ack`: a
        batch to ack in the same round trip, before anything is taken; if it is no longer held, that raises `LeaseLost`
        and nothing stays taken. Raises `CodecError`, whose `raw` is the batch in bytes, for bytes that cannot be
        decoded; the batch is held until its lease runs out.
        """
        flow = self.calls.reserve_flow(
            size, max_bytes=max_bytes, timeout=timeout, lease=lease, lease_id=lease_id, holder=holder, ack=ack
        )
        return self.runner.run(mapped(flow, self._batch))

    def batches(
        self,
        size: int = 2000,
        *,
        max_bytes: int | None = None,
        timeout: float = 0.0,
        lease: float | None = None,
        holder: str | None = None,
    ) -> Generator[Batch[T], None, None]:
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

    def reserve_many(
        self,
        count: int,
        size: int = 2000,
        *,
        max_bytes: int | None = None,
        lease: float | None = None,
        lease_id: str | None = None,
        holder: str | None = None,
    ) -> list[Batch[T]]:
        """Reserve up to `count` (1 to 1,000) batches in one round trip, each as `reserve` does.

        Raises as `reserve` does; the other batches then stay held until their leases run out.
        """
        flow = self.calls.reserve_many(count, size, max_bytes=max_bytes, lease=lease, lease_id=lease_id, holder=holder)
        return self.runner.run(mapped(flow, self._batches))

    def ack(self, *batches: BatchData[T], delay: float = 0.0) -> int:
        """Settle batches in one round trip, and return how many items are done.

        Items marked with `Batch.fail` are given back, to be due again in `delay` seconds, with their batch's attempts.
        Idempotent: safe to retry. Raises `LeaseLost` for batches that are no longer held, after all were tried; a lease
        is lost when its batch was handed out again, settled, buried or purged, not at its deadline.
        """
        return self.runner.run(self.calls.ack_all(batches, delay))

    def release(self, *batches: BatchData[T], delay: float = 0.0, count: bool = True, reason: str | None = None) -> int:
        """Give batches back whole, to be due again in `delay` seconds, and return how many items that is.

        With `count=False` this hand-over is not an attempt, as for an answer of 429. `reason` (at most 1,000 bytes) is
        kept with them. Idempotent: safe to retry. Raises `LeaseLost` as `ack` does.
        """
        return self.runner.run(self.calls.release_all(batches, delay, count=count, reason=reason))

    def bury(self, *batches: BatchData[T], reason: str | None = None) -> int:
        """Make dead letters of batches now, whatever their attempts, and return how many items that is.

        Idempotent: safe to retry. Raises `LeaseLost` as `ack` does.
        """
        return self.runner.run(self.calls.bury_all(batches, reason))

    def pause_group(self, group: str, seconds: float | None = None, *, token: str | None = None) -> None:
        """Give no new batch of a group, for some seconds or until `resume_group`.

        Pushes go on; batches that were handed out before are still retried; `pop` of the group returns nothing. Other
        groups are as ever. Idempotent, as `push`.
        """
        self.runner.run(self.calls.pause_group(group, seconds, token))

    def resume_group(self, group: str, *, token: str | None = None) -> bool:
        """End the pause of a group and wake a blocked worker; return whether there was one. Idempotent, as `push`."""
        return self.runner.run(self.calls.resume_group(group, token))

    def drop_group(self, group: str, *, token: str | None = None) -> int:
        """Throw away a group's waiting items and its delayed and dead batches; return how many items that was.

        What is leased ends by itself, and a pause stays. It works in bounded steps: stopped half-way, the same call
        drops the rest. An item that is pushed meanwhile stays.
        """
        return self.runner.run(self.calls.drop_group(group, token))

    def peek(self, group: str = "default", count: int = 1, after: int = 0) -> list[T]:
        """Show `count` items that wait in a group, oldest first, after the first `after` of them, and take none."""
        return self.runner.run(self.calls.peek(group, count, after))

    def delayed(self, limit: int = 100, after: str | None = None) -> list[Batch[T]]:
        """Show up to `limit` batches that were given back, the first to be due first, after the one with id `after`.

        Their `deadline` is the time at which they are due. If `after` is no longer delayed, it shows from the start.
        """
        return self._batches(self.runner.run(self.calls.delayed(limit, after)))

    def dead(self, limit: int = 100, after: str | None = None) -> list[Batch[T]]:
        """Show up to `limit` dead letters, the earliest first, after the one with id `after`.

        Their `deadline` is the time of their death. If `after` is no longer dead, it shows from the start.
        """
        return self._batches(self.runner.run(self.calls.dead(limit, after)))

    def redrive(self, *ids: str, token: str | None = None) -> int:
        """Let the items of up to 1,000 dead letters wait again; return how many of the batches were dead.

        They are items at the front of their group, those of the first id in front, and begin without attempts.
        Idempotent, as `push`.
        """
        return self.runner.run(self.calls.redrive(ids, token))

    def discard(self, *ids: str, token: str | None = None) -> int:
        """Throw up to 1,000 dead letters away, and return how many were dead. Idempotent, as `push`."""
        return self.runner.run(self.calls.discard(ids, token))

    def stats(self) -> BufferStats:
        """Count what waits, is leased, delayed and dead; with more than 1,000 groups, over several moments."""
        return self.runner.run(self.calls.stats())

    def audit(self, repair: bool = False, *, max_lease: float | None = None) -> Audit:
        """Compare the queue's keys with each other and, with `repair`, repair what disagrees.

        Nothing that exists is thrown away. It walks the server's keys a page at a time and does not block the server.
        On a queue at work it is right about each moment it looks at. A lease that lies further ahead than `max_lease`
        seconds (default: twice the queue's lease, an hour at least) is named, and ends then.
        """
        return self.runner.run(self.calls.audit(repair, max_lease=max_lease))

    def purge(self) -> int:
        """Throw everything away but pauses, in every state, in bounded steps; return how many items that was."""
        return self.runner.run(self.calls.purge())
