"""How everything that a queue holds is read, and how it is known that nothing has changed meanwhile."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

import redis

from ..blocking import Buffer
from ..core import validate
from ..core.calls import as_text
from ..core.queues import LAYOUT
from .archive import Record, Writer, packed, time_of
from .connection import Client, Queue
from .exit import NO, Failure
from .output import line

T = TypeVar("T")

COUNTERS = ("done", "failed", "buried", "trimmed")
INDEXES = {
    "buffer": ("groups", "since", "leases", "delayed", "dead", "busy", "paused_groups"),
    "priority": ("ready", "leases", "held", "delayed", "dead", "again", "rows", "payloads"),
}
_PAGE, _ITEMS, _BYTES = 100, 1_000, 1 << 20  # entries of a page; items and bytes of a line


class Export:
    """What is read of one queue. `live`: others may change it meanwhile, and the copy is what was met.

    `pause` is the command that pauses the queue, for people.
    """

    def __init__(self, client: Client, queue: Queue, live: bool, pause: str) -> None:
        self._pause = pause
        prefix = queue.calls.queue
        self.structure = queue.calls.structure
        self._key = {name: prefix + name.encode() for name in ("meta", "paused", *INDEXES[self.structure])}
        self._prefix, self._live, self._name = prefix, live, as_text(prefix)
        self._kind = "buffer" if isinstance(queue, Buffer) else queue.calls.order
        # All keys of a queue are on one node.
        node: Any = client
        if not isinstance(client, redis.Redis):
            cluster: Any = client
            node = cluster.get_redis_connection(cluster.get_node_from_key(self._key["meta"]))
        self._node: redis.Redis = node

    def write(self, stream: Any, name: str, progress: Callable[[int], object]) -> Writer:
        """Write the queue to a stream. Raises `Failure`, and writes no last line, if it changes meanwhile."""
        with contextlib.ExitStack() as stack:
            guard: Any = stack.enter_context(self._node.pipeline())
            if not self._live:
                guard.watch(*self._key.values())
            header = self._header(name)
            if not self._live and self._kind == "buffer":
                groups = [*self._names("busy"), *self._names("paused_groups")]
                for some in _pages(groups, 1_000):  # a push to such a group is seen in its list alone
                    guard.watch(*(self._prefix + b"items:" + group for group in some))
            writer = Writer(stream, header)
            seen: set[tuple[str, bytes]] = set()
            for record, items, key in self._batches() if self._kind == "buffer" else self._members():
                if key not in seen:
                    writer.write(record, items)
                    if writer.lines % 1_000 == 0:
                        progress(writer.items)
                    if self._live and key[0]:
                        seen.add(key)
            if not self._live:
                guard.multi()
                guard.exists(self._key["meta"])
                try:
                    guard.execute()
                except redis.WatchError:
                    raise Failure(
                        "the queue has changed meanwhile, so the file is not whole: let nobody push, and wait until "
                        "nothing is leased; or say --live",
                        NO,
                    ) from None
        writer.end()
        return writer

    def _header(self, name: str) -> Record:
        mark, *counters, sequence = self._node.hmget(self._key["meta"], ["queue", *COUNTERS, "sequence"])
        if mark is not None and mark != b"%d %s" % (LAYOUT, self._kind.encode()):
            raise Failure(f"the queue is marked {line(mark)}: this redisq exports layout {LAYOUT}")
        pause: Any = self._node.get(self._key["paused"])
        until, _, reason = (pause or b"").partition(b" ")
        clock: Any = self._node.time()
        now = clock[0] * 1000 + clock[1] // 1000
        paused = pause is not None and (int(until) == 0 or int(until) > now)
        if not paused and not self._live:
            raise Failure(f"{line(name)} is not paused: `{self._pause}` first, so that it holds still, or say --live")
        return {
            "id": validate.new_id().decode(),
            "queue": packed(name.encode("utf-8", "surrogateescape")),
            "kind": self._kind,
            "time": time_of(now),
            "live": self._live,
            "pause": {"until": time_of(int(until) or float("inf")), "reason": packed(reason)} if paused else None,
            "counters": {one: int(count or 0) for one, count in zip(COUNTERS, counters, strict=True)},
            "sequence": int(sequence or 0),
        }

    # -- what there is, a page at a time

    def _scored(self, index: str) -> Iterator[list[tuple[bytes, float]]]:
        """Yield the entries of a sorted set: in order where it holds still, else so that none is passed over."""
        key = self._key[index]
        if self._live:
            yield from _pages(self._node.zscan_iter(key, count=_PAGE), _PAGE)
            return
        for start in range(0, self._node.zcard(key), _PAGE):
            page: Any = self._node.zrange(key, start, start + _PAGE - 1, withscores=True)
            yield page

    def _names(self, index: str) -> Iterator[bytes]:
        found: Iterable[Any]
        if index == "busy":
            found = self._node.hscan_iter(self._key[index], count=_PAGE)
        else:
            found = self._node.zscan_iter(self._key[index], count=_PAGE)
        yield from (name for name, _ in found)

    def _batches(self) -> Iterator[tuple[Record, int, tuple[str, bytes]]]:
        for page in self._scored("paused_groups"):
            for group, until in page:
                yield {"paused_group": packed(group), "until": time_of(until)}, 0, ("paused", group)
        busy = dict(self._node.hscan_iter(self._key["busy"], count=_PAGE))
        for state, index in (("leased", "leases"), ("delayed", "delayed"), ("dead", "dead")):
            for page in self._scored(index):
                for name, ms in page:
                    yield from self._batch(state, name, ms, busy)
        done: set[bytes] = set()
        for index in ("groups", "busy", "paused_groups"):
            for groups in _pages(self._names(index), _PAGE):
                new = [group for group in dict.fromkeys(groups) if group not in done]
                done.update(new)
                yield from self._groups(new)

    def _batch(
        self, state: str, name: bytes, ms: float, busy: dict[bytes, bytes]
    ) -> Iterator[tuple[Record, int, tuple[str, bytes]]]:
        held: Any = self._node.lrange(self._prefix + b"batch:" + name, 0, -1)
        if len(held) < 4:
            return  # it was settled meanwhile; or evicted, which an audit tells
        group, attempts, holder, reason, *items = held
        record: Record = {"state": state, "id": packed(name), "time": time_of(ms), "group": packed(group)}
        record |= {"attempts": int(attempts), "holder": packed(holder), "reason": packed(reason)}
        record |= {"busy": busy.get(group) == name, "items": [*map(packed, items)]}
        yield record, len(items), ("batch", name)

    def _groups(self, groups: list[bytes]) -> Iterator[tuple[Record, int, tuple[str, bytes]]]:
        with self._node.pipeline(transaction=False) as pipe:
            for group in groups:
                pipe.zscore(self._key["since"], group)
                pipe.lrange(self._prefix + b"items:" + group, 0, 9)
            replies = pipe.execute()
        for group, since, page in zip(groups, replies[::2], replies[1::2], strict=True):
            time_ = None if since is None else time_of(since)
            start = 0
            while page:
                record = {"state": "waiting", "group": packed(group), "since": time_, "items": [*map(packed, page)]}
                yield record, len(page), ("", b"")
                start += len(page)
                count = max(1, min(_ITEMS, _BYTES * len(page) // (1 + sum(map(len, page))), 4 * start))
                page = self._node.lrange(self._prefix + b"items:" + group, start, start + count - 1)

    def _members(self) -> Iterator[tuple[Record, int, tuple[str, bytes]]]:
        for leases in self._scored("leases"):
            for name, ms in leases:
                found: Any = self._node.lrange(self._prefix + b"lease:" + name, 0, -1)
                holder, members = found[:1], [*zip(found[1::2], found[2::2], strict=False)]
                about = {"lease": packed(name), "holder": packed(holder[0]) if holder else "", "time": time_of(ms)}
                for some in _pages(members, _PAGE):
                    notes = self._node.hmget(self._key["again"], [member for member, _ in some])
                    for note, (record, items, key) in zip(notes, self._described("leased", some), strict=True):
                        yield {**record, **about, "again": None if note is None else as_text(note)}, items, key
        for state in ("delayed", "dead", "ready"):
            for page in self._scored(state):
                for record, items, key in self._described(state, page):
                    yield record, items, key

    def _described(self, state: str, page: list[Any]) -> list[tuple[Record, int, tuple[str, bytes]]]:
        members = [member for member, _ in page]
        with self._node.pipeline(transaction=False) as pipe:
            for key in ("rows", "payloads"):
                pipe.hmget(self._key[key], members)
            rows, payloads = pipe.execute()
        described = []
        for (member, number), row, payload in zip(page, rows, payloads, strict=True):
            score, attempts, reason = (row or b"0 0 ").split(b" ", 2)
            if state == "ready":
                score = repr(number).removesuffix(".0").encode()
            elif state == "leased":
                score = number
            record: Record = {"state": state, "member": packed(member), "score": as_text(score)}
            record |= {"attempts": int(attempts), "reason": packed(reason)}
            record |= {"payload": None if payload is None else packed(payload)}
            if state in ("delayed", "dead"):
                record["time"] = time_of(number)
            described.append((record, 1, ("member", member)))
        return described


def _pages(entries: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(entries)
    while page := [*islice(rest, size)]:
        yield page
