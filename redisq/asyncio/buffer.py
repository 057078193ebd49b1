"""The grouped batch buffer, for asyncio."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic

from ..codecs import JSON, Codec
from ..ops import Audit, BufferOps, BufferStats
from ..ops.buffer import T
from .runner import Client, Runner


class Buffer(Generic[T]):
    """Pile items up per group, and take them in batches of one group.

    What all workers of a queue must agree on stands here, not in the calls. `codec` turns items into bytes (default:
    canonical JSON). A push is remembered for `dedup_window` seconds (0: not at all), so that sending it again adds
    nothing; a remembered push costs about 160 bytes. All keys begin with `prefix:{name}:`. The client stays yours:
    redisq neither configures nor closes it.

    Raises `InvalidArgument` for an empty name, one with `{` or `}`, a client of the blocking kind, or a pipeline.
    """

    def __init__(
        self, client: Client, name: str, *, codec: Codec[T] = JSON, dedup_window: float = 60.0, prefix: str = "redisq"
    ) -> None:
        self.ops = BufferOps(name, codec=codec, dedup_window=dedup_window, prefix=prefix)
        self._runner = Runner(client)

    async def push(self, *items: T, group: str = "default", token: str | None = None) -> int:
        """Append up to 10,000 items to a group and return the group's waiting length after it.

        All or nothing, and once: the client library may send it again, and so may you, with the same `token`. Pushing
        nothing writes nothing. Raises `CodecError` for an item that cannot be encoded and `InvalidArgument` for an
        empty group or too many items, before anything is written.
        """
        return await self._runner.run(self.ops.push(items, group, token))

    async def push_many(self, items: Iterable[T], group: str = "default", token: str | None = None) -> int:
        """Append any number of items in pieces of 10,000 and return the group's waiting length after it.

        Each piece is all or nothing, and once; the iterable is read a piece ahead, never whole. Stopped half-way, the
        same call with the same `token` within `dedup_window` adds only what is missing. Raises as `push` does; the
        error says how many items were pushed before the bad one.
        """
        return await self._runner.talk(self.ops.push_many(items, group, token))

    async def push_front(self, *items: T, group: str = "default", token: str | None = None) -> int:
        """Put up to 10,000 items back at a group's front, in the order given, and return its waiting length.

        The first item given is the next to leave. Guarantees and errors are those of `push`.
        """
        return await self._runner.run(self.ops.push(items, group, token, front=True))

    async def pop(self, group: str = "default", size: int = 2000) -> list[T]:
        """Take up to `size` (1 to 10,000) items of one group, oldest first, and forget them.

        At most once: what is in the reply when the connection breaks, or in hand when the process dies, is gone.
        Raises `InvalidArgument` for a bad size, and `CodecError`, whose `raw` has all that was taken, for bytes that
        cannot be decoded.
        """
        return await self._runner.run(self.ops.pop(group, size))

    async def longest_groups(self, count: int = 2) -> dict[str, int]:
        """Return the `count` (1 to 10,000) longest groups and their waiting lengths, longest first.

        Equal lengths: the greater name first. It only looks: to choose and take in one step, use `pop_longest`.
        """
        return await self._runner.run(self.ops.longest_groups(count))

    async def pop_longest(self, groups: int = 2, size: int = 2000) -> dict[str, list[T]]:
        """Choose the longest groups and take up to `size` items of each, in one step; the longest group comes first.

        Two flushers never get the same items, nor spend a call on nothing. `groups * size` may be 10,000 at most. At
        most once, with the errors of `pop`; the `raw` of a `CodecError` is a dict of lists of bytes.
        """
        return await self._runner.run(self.ops.pop_longest(groups, size))

    async def stats(self) -> BufferStats:
        """Count what waits; with more than 2,000 groups, over several moments."""
        return await self._runner.talk(self.ops.stats())

    async def audit(self, repair: bool = False) -> Audit:
        """Compare the queue's keys with each other and, with `repair`, mend what disagrees.

        Nothing that exists is thrown away. It walks the server's keys a page at a time and holds nobody up. On a
        queue at work it is right about each moment it looks at.
        """
        return await self._runner.talk(self.ops.audit(repair))

    async def purge(self) -> int:
        """Throw away everything that waits, some groups at a time, and return how many items that was."""
        return await self._runner.talk(self.ops.purge())
