"""The unique priority queue, for asyncio."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Generic

from ..codecs import TEXT, Codec
from ..ops import Audit, Item, PriorityOps, PriorityStats, Pushed, State
from ..ops.priority import Order, T
from .runner import Client, Runner


class PriorityQueue(Generic[T]):
    """Keep unique members, the most urgent first; pushing one again keeps the more urgent place.

    A lower priority is more urgent. `order="fifo"`: whole priorities -1024..1023, equal ones leave in the order in
    which they were added. `order="score"`: any finite number, equal ones leave in byte order, as in a plain sorted
    set. The first push decides the order for the queue. `codec` turns members into bytes (default: text); equal
    members must have equal bytes. A push is remembered for `dedup_window` seconds (0: not at all), so that sending it
    again changes nothing. All keys begin with `prefix:{name}:`. The client stays yours: redisq neither configures nor
    closes it.

    Raises `InvalidArgument` for an empty name, one with `{` or `}`, an unknown order, a client of the blocking kind,
    or a pipeline.
    """

    def __init__(
        self,
        client: Client,
        name: str,
        *,
        order: Order = "fifo",
        codec: Codec[T] = TEXT,  # type: ignore[assignment]  # the default of T is str
        dedup_window: float = 60.0,
        prefix: str = "redisq",
    ) -> None:
        self.ops = PriorityOps(name, order=order, codec=codec, dedup_window=dedup_window, prefix=prefix)
        self._runner = Runner(client)

    async def push(self, member: T, priority: float = 0, *, delay: float = 0.0, token: str | None = None) -> Pushed:
        """Add a member, ready after `delay` seconds, and say what that did.

        `ADDED`, `RAISED` (it was there and became more urgent) or `KEPT`: the lowest priority and the earliest time
        asked for win, in one step. Once: the client library may send it again, and so may you, with the same `token`.
        Raises `InvalidArgument` for a priority that the order does not take, `CodecError` for a member that cannot be
        encoded, and `WrongOrder`, before anything is written.
        """
        return await self._runner.run(self.ops.push(member, priority, delay=delay, token=token))

    async def push_many(
        self, members: Mapping[T, float] | Iterable[tuple[T, float]], *, delay: float = 0.0, token: str | None = None
    ) -> Counter[Pushed]:
        """Add any number of members, from a mapping or pairs `(member, priority)`, and count what that did.

        In pieces of 1,000, each all or nothing, and once. Stopped half-way, the same call with the same `token`
        within `dedup_window` adds only what is missing. Raises as `push` does; the pieces before the bad one are
        pushed.
        """
        return await self._runner.talk(self.ops.push_many(members, delay=delay, token=token))

    async def pop(self) -> Item[T] | None:
        """Take the most urgent member and forget it, or return None if none is ready.

        At most once: what is in the reply when the connection breaks, or in hand when the process dies, is gone.
        Raises `CodecError`, whose `raw` has what was taken, for bytes that cannot be decoded, and `WrongOrder`.
        """
        return await self._runner.run(self.ops.pop())

    async def pop_many(self, count: int) -> list[Item[T]]:
        """Take the `count` (1 to 1,000) most urgent members and forget them, as `pop` does."""
        return await self._runner.run(self.ops.pop_many(count))

    async def peek(self, count: int = 1) -> list[Item[T]]:
        """Show the `count` (1 to 1,000) most urgent members that are ready, and take none."""
        return await self._runner.run(self.ops.peek(count))

    async def state(self, member: T) -> State:
        """Say where a member is: `ABSENT`, `READY`, `DELAYED`, `LEASED` or `DEAD`.

        A member whose delay is over, or whose lease ran out, becomes ready with the next call that takes members.
        """
        return await self._runner.run(self.ops.state(member))

    async def remove(self, *members: T, token: str | None = None) -> int:
        """Take up to 1,000 members out, whatever their state, and return how many were there.

        Who is working on one finds its lease lost. Once, as `push`.
        """
        return await self._runner.run(self.ops.remove(members, token))

    async def stats(self) -> PriorityStats:
        """Count the members of each state; with more than 500 delayed and leased ones, over several moments."""
        return await self._runner.talk(self.ops.stats())

    async def audit(self, repair: bool = False) -> Audit:
        """Compare the queue's keys with each other and, with `repair`, mend what disagrees.

        Nothing that exists is thrown away. It looks at a page at a time and holds nobody up. On a queue at work it is
        right about each moment it looks at.
        """
        return await self._runner.talk(self.ops.audit(repair))

    async def purge(self) -> int:
        """Throw away every member, and the queue's order, and return how many members that was."""
        return await self._runner.talk(self.ops.purge())
