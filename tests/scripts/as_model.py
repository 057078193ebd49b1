"""The scripts with the interface of the model: the same methods, arguments and answers, on a server.

The settings of a consumer are read from the model, so that both sides always agree on them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import redis

from tests import model
from tests.scripts.raw import Raw, load

WINDOW = 900_000_000
_REFUSED = {error.code: error for error in (model.LeaseLost, model.WrongOrder, model.BadArgument)}


@contextmanager
def refusals() -> Iterator[None]:
    """Turn the errors that the model knows into its exceptions."""
    try:
        yield
    except redis.ResponseError as error:
        code = str(error).partition(" ")[0]
        if code not in _REFUSED:
            raise
        raise _REFUSED[code] from error


class Scripts:
    """What the scripts of both structures share."""

    structure = ""

    def __init__(self, raw: Raw, queue: Any) -> None:
        self.raw = raw
        self.queue = queue

    def call(self, verb: str, **values: Any) -> Any:
        """Run a script of this structure with the settings of the model."""
        with refusals():
            return self.raw.call(f"{self.structure}/{verb}", **values)

    @property
    def window(self) -> int:
        """Return how long answers are kept: longer than any test, or not at all."""
        return WINDOW if self.queue.window else 0

    def pause(self, now: int, time: int, reason: bytes, once: bytes) -> int:
        return int(self.call("pause", now=now, duration=time, reason=reason, once=once, window=self.window))

    def resume(self, once: bytes) -> int:
        return int(self.call("resume", once=once, window=self.window))

    def extend(self, now: int, lease_id: bytes, lease: int) -> int:
        return int(self.call("extend", now=now, id=lease_id, lease=lease))

    HORIZON: ClassVar = {"lease": 0, "delay": 0}
    """the audit's arguments for how far in the future times may lie: anywhere"""

    def audit(self, now: int, repair: bool, limit: int = 7) -> list[Any]:
        """Return the findings of an audit, over all pages."""
        findings: list[Any] = []
        cursor = b"keys:0"
        while cursor:
            values = {"cursor": cursor, "limit": limit, "repair": "repair" if repair else "report", **self.HORIZON}
            cursor, _, found = self.call("audit", now=now, **values)
            findings += found
        return findings


class BufferScripts(Scripts):
    """The scripts of the buffer."""

    structure = "buffer"
    queue: model.Buffer

    def push(self, now: int, group: bytes, items: list[bytes], once: bytes, front: bool = False) -> int:
        side = "front" if front else "back"
        return int(self.call("push", now=now, group=group, item=items, once=once, side=side, window=self.window))

    def pop(self, now: int, group: bytes, size: int) -> list[bytes]:
        return list(self.call("pop", now=now, group=group, size=size))

    def pop_longest(self, now: int, count: int, size: int) -> list[tuple[bytes, list[bytes]]]:
        reply = self.call("pop_longest", now=now, count=count, size=size, max_wait=self.queue.max_wait)
        return [(group, items) for group, items in reply]

    def reserve(
        self, now: int, size: int, batch_id: bytes, holder: bytes = b"", max_bytes: int = 0
    ) -> tuple[object, ...]:
        q = self.queue
        return tuple(
            self.call(
                "reserve",
                now=now,
                id=batch_id,
                size=size,
                lease=q.lease,
                min_size=q.min_size,
                max_wait=q.max_wait,
                max_attempts=q.max_attempts,
                max_dead=q.max_dead,
                max_bytes=max_bytes,
                ordered=q.ordered,
                isolate=q.isolate,
                window=self.window,
                holder=holder,
                rates=q.limit.rates,
            )
        )

    def ack(self, now: int, batch_id: bytes, failed: Sequence[int] = (), delay: int = 0, reason: bytes = b"") -> int:
        values = {"id": batch_id, "delay": delay, "window": self.window, "reason": reason, "now": now}
        return int(self.call("ack", failed=failed, **values))

    def release(self, now: int, batch_id: bytes, delay: int = 0, counted: bool = True, reason: bytes = b"") -> int:
        values = {"id": batch_id, "delay": delay, "window": self.window, "reason": reason, "now": now}
        return int(self.call("release", attempt="count" if counted else "forget", **values))

    def bury(self, now: int, batch_id: bytes, reason: bytes = b"") -> int:
        values = {"id": batch_id, "max_dead": self.queue.max_dead, "window": self.window, "reason": reason, "now": now}
        return int(self.call("bury", **values))

    def redrive(self, now: int, ids: Sequence[bytes], once: bytes) -> tuple[int, int]:
        redriven, left = self.call("redrive", now=now, id=ids, once=once, window=self.window)
        return int(redriven), int(left)

    def discard(self, ids: Sequence[bytes], once: bytes) -> int:
        return int(self.call("discard", id=ids, once=once, window=self.window))

    def pause_group(self, now: int, group: bytes, time: int, once: bytes) -> int:
        return int(self.call("pause_group", now=now, group=group, duration=time, once=once, window=self.window))

    def resume_group(self, now: int, group: bytes, once: bytes) -> int:
        return int(self.call("resume_group", now=now, group=group, once=once, window=self.window))

    def drop_group(self, group: bytes, once: bytes) -> int:
        _, most = load("buffer/drop_group").limit("limit")
        values = {"group": group, "state": 0, "start": 0, "limit": most, "once": once, "window": self.window}
        cursor, dropped = self.call("drop_group", **values)
        assert cursor == b"", "a queue as small as in the tests needs a single call"
        return int(dropped)

    def peek(self, group: bytes, count: int, after: int = 0) -> list[bytes]:
        return list(self.call("peek", group=group, start=after, count=count))

    def purge(self, limit: int = 2) -> int:
        cursor, items = 0, 0
        while cursor >= 0:
            cursor, some = self.call("purge", limit=limit, cursor=cursor)
            items += some
        return items

    def stats(self, now: int, limit: int = 2) -> dict[str, object]:
        names = ["groups", "busy", "paused_groups", "oldest", "leased", "delayed", "dead", "due", "expiry"]
        names += ["done", "failed", "buried", "trimmed"]
        cursor, waiting = [0, 0, 0], 0
        while cursor:
            values = dict(zip(("groups", "busy", "paused"), cursor, strict=True))
            text, some, *rest = self.call("stats", now=now, limit=limit, **values)
            cursor, waiting = [int(part) for part in text.split()], waiting + some
        names = [
            "groups",
            "busy",
            "paused_groups",
            "oldest",
            "leased",
            "delayed",
            "dead",
            "due",
            "expiry",
            "done",
            "failed",
            "buried",
            "trimmed",
        ]
        return {"waiting": waiting, **dict(zip(names, rest, strict=False)), "paused": _pause(rest[-1])}

    def groups(self, state: str, limit: int = 2) -> list[tuple[bytes, int]]:
        found: list[tuple[bytes, int]] = []
        cursor = -1
        while cursor:
            cursor, page = self.call("groups", state=state, limit=limit, cursor=max(0, cursor))
            found += [(group, int(length)) for group, length in zip(page[::2], page[1::2], strict=True)]
        return sorted(found) if state == "busy" else found

    def show(self, place: str, limit: int = 2) -> list[list[object]]:
        found: list[list[object]] = []
        page = [[b""]]
        while page:  # a page may be shorter than the limit
            page = self.call("batches", state=place, limit=limit, after=page[-1][0])
            found += page
        return found


class PriorityScripts(Scripts):
    """The scripts of the priority queue."""

    structure = "priority"
    queue: model.Priority

    def push(
        self,
        now: int,
        items: Sequence[tuple[float, bytes, bytes | None]],
        once: bytes,
        delay: int = 0,
        how: str = "min",
    ) -> bytes:
        with_payload = [payload for _, _, payload in items if payload is not None]
        fields = 3 if with_payload else 2
        return bytes(
            self.call(
                "push",
                now=now,
                item=[item[:fields] for item in items],
                once=once,
                order=self.queue.order,
                how=how,
                delay=delay,
                window=self.window,
                fields=fields,
            )
        )

    def pop(self, now: int, count: int) -> tuple[int, list[model.Item]]:
        retry, *taken = self.call("pop", now=now, order=self.queue.order, count=count)
        return retry, _items(*taken)

    def reserve(
        self, now: int, size: int, lease_id: bytes, holder: bytes = b"", max_bytes: int = 0
    ) -> tuple[object, ...]:
        q = self.queue
        kind, *rest = self.call(
            "reserve",
            now=now,
            order=q.order,
            id=lease_id,
            size=size,
            lease=q.lease,
            max_attempts=q.max_attempts,
            max_dead=q.max_dead,
            max_bytes=max_bytes,
            window=self.window,
            holder=holder,
            rates=q.limit.rates,
        )
        if kind == b"batch":
            deadline, *taken, dead = rest
            return kind, deadline, _items(*taken), dead
        return kind, *rest

    def ack(self, now: int, lease_id: bytes, failed: Sequence[tuple[int, bytes]] = (), delay: int = 0) -> int:
        return int(self.call("ack", now=now, id=lease_id, failed=failed, delay=delay, window=self.window))

    def release(self, now: int, lease_id: bytes, delay: int = 0, counted: bool = True, reason: bytes = b"") -> int:
        values = {"id": lease_id, "delay": delay, "window": self.window, "reason": reason, "now": now}
        return int(self.call("release", attempt="count" if counted else "forget", **values))

    def bury(self, now: int, lease_id: bytes, reason: bytes = b"") -> int:
        values = {"id": lease_id, "max_dead": self.queue.max_dead, "window": self.window, "reason": reason, "now": now}
        return int(self.call("bury", **values))

    def state(self, name: bytes) -> str:
        return str(self.call("state", member=name).decode())

    def remove(self, names: Sequence[bytes], once: bytes) -> int:
        return int(self.call("remove", member=names, once=once, window=self.window))

    def redrive(self, names: Sequence[bytes], once: bytes) -> int:
        return int(self.call("redrive", member=names, once=once, window=self.window))

    def discard(self, names: Sequence[bytes], once: bytes) -> int:
        return int(self.call("discard", member=names, once=once, window=self.window))

    def purge(self, limit: int = 2) -> int:
        more, members = 1, 0
        while more:
            more, some = self.call("purge", limit=limit)
            members += some
        return members

    def stats(self, now: int) -> dict[str, object]:
        names = [
            "ready",
            "delayed",
            "leased",
            "dead",
            "batches",
            "due",
            "expiry",
            "done",
            "failed",
            "buried",
            "trimmed",
        ]
        reply = self.call("stats", now=now)
        return {**dict(zip(names, reply, strict=False)), "paused": _pause(reply[-1])}

    def show(self, state: str, limit: int = 3) -> list[tuple[float, model.Item]]:
        """Page through a state by the last member seen, and check that pages by number are the same."""
        found: list[tuple[float, model.Item]] = []
        while True:
            values = {"state": state, "order": self.queue.order, "limit": limit}
            last = [item.member for _, item in found[-1:]]
            page = self.call("members", start=0, after=last, **values)
            assert page == self.call("members", start=len(found), after=[], **values), "pages differ"
            items = _items(*page)
            rows = page[1]
            if state != "ready":  # then the reply has times, and scores are in the rows
                scored = [(item, float(row.split(b" ")[0])) for item, row in zip(items, rows, strict=True)]
                found += [(item.score, item._replace(score=score)) for item, score in scored]
            else:
                found += [(item.score, item) for item in items]
            if len(items) < limit:
                return found

    def batches(self, limit: int = 2) -> list[tuple[bytes, int, bytes, list[model.Item]]]:
        found: list[tuple[bytes, int, bytes, list[model.Item]]] = []
        while True:
            after = found[-1][0] if found else b""
            page = self.call("batches", order=self.queue.order, limit=limit, after=after)
            found += [(lease_id, deadline, holder, _items(*taken)) for lease_id, deadline, holder, *taken in page]
            if not page:
                return found


class LimitScripts(Scripts):
    """The script of the rate limiter."""

    structure = "limit"
    queue: model.Limit

    def acquire(self, now: int, cost: int, once: bytes) -> tuple[int, int]:
        values = {"cost": cost, "once": once, "window": self.window, "rates": self.queue.rates}
        granted, retry = self.call("acquire", now=now, **values)
        return int(granted), int(retry)


def _items(pairs: list[bytes], rows: list[bytes | None], payloads: list[bytes | None]) -> list[model.Item]:
    """Combine the three lists of a reply; an empty list stands for nothing for any member."""
    found = []
    for i, (name, score) in enumerate(zip(pairs[::2], pairs[1::2], strict=True)):
        row = rows[i] if rows else None
        _, attempts, reason = row.split(b" ", 2) if row else (b"", b"0", b"")
        found.append(model.Item(name, float(score), int(attempts), reason, payloads[i] if payloads else None))
    return found


def _pause(text: bytes) -> tuple[int, bytes] | None:
    until, _, reason = text.partition(b" ")
    return (int(until), reason) if text else None
