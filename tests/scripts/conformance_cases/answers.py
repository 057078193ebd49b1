"""The model behind the scripts' interface: a script's reply to arguments, by the names in its header.

There is a function for each script. A float stands for a number that a reply has as a string. Replies in pages are
given for pages that hold everything, or if a page is a slice of a list.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from tests.model import Buffer, Item, Keys, Limit, Priority

from .form import number

Answer = Callable[[Any, SimpleNamespace], object]
ANSWERS: dict[str, Answer] = {}
KEPT = 1000
"""bytes of a reason that are kept"""


def _answers(name: str) -> Callable[[Answer], Answer]:
    def register(function: Answer) -> Answer:
        ANSWERS[name] = function
        return function

    return register


# -- the buffer


@_answers("buffer/push")
def _(q: Buffer, a: SimpleNamespace) -> object:
    return q.push(a.now, a.group, a.item, a.once, a.side == b"front")


@_answers("buffer/pop")
def _(q: Buffer, a: SimpleNamespace) -> object:
    return q.pop(a.now, a.group, a.size)


@_answers("buffer/pop_longest")
def _(q: Buffer, a: SimpleNamespace) -> object:
    q.max_wait = a.max_wait
    return q.pop_longest(a.now, a.count, a.size)


@_answers("buffer/reserve")
def _(q: Buffer, a: SimpleNamespace) -> object:
    q.lease, q.min_size, q.max_wait, q.max_attempts, q.max_dead = (
        a.lease, a.min_size, a.max_wait, a.max_attempts, a.max_dead,
    )  # fmt: skip
    q.ordered, q.isolate, q.limit.rates = bool(a.ordered), bool(a.isolate), a.rates
    return q.reserve(a.now, a.size, a.id, a.holder, a.max_bytes)


@_answers("buffer/ack")
def _(q: Buffer, a: SimpleNamespace) -> object:
    return q.ack(a.now, a.id, a.failed, a.delay, a.reason[:KEPT])


@_answers("buffer/release")
@_answers("priority/release")
def _(q: Buffer | Priority, a: SimpleNamespace) -> object:
    return q.release(a.now, a.id, a.delay, a.attempt == b"count", a.reason[:KEPT])


@_answers("buffer/bury")
@_answers("priority/bury")
def _(q: Buffer | Priority, a: SimpleNamespace) -> object:
    q.max_dead = a.max_dead
    return q.bury(a.now, a.id, a.reason[:KEPT])


@_answers("buffer/extend")
@_answers("priority/extend")
def _(q: Buffer | Priority, a: SimpleNamespace) -> object:
    return q.extend(a.now, a.id, a.lease)


@_answers("buffer/redrive")
def _(q: Buffer, a: SimpleNamespace) -> object:
    return q.redrive(a.now, a.id, a.once)


@_answers("buffer/discard")
def _(q: Buffer, a: SimpleNamespace) -> object:
    return q.discard(a.id, a.once)


@_answers("buffer/pause")
@_answers("priority/pause")
def _(q: Buffer | Priority, a: SimpleNamespace) -> object:
    return q.pause(a.now, a.duration, a.reason[:KEPT], a.once)


@_answers("buffer/resume")
@_answers("priority/resume")
def _(q: Buffer | Priority, a: SimpleNamespace) -> object:
    return q.resume(a.once)


@_answers("buffer/pause_group")
def _(q: Buffer, a: SimpleNamespace) -> object:
    return q.pause_group(a.now, a.group, a.duration, a.once)


@_answers("buffer/resume_group")
def _(q: Buffer, a: SimpleNamespace) -> object:
    return q.resume_group(a.now, a.group, a.once)


@_answers("buffer/drop_group")
def _(q: Buffer, a: SimpleNamespace) -> object:
    return [b"", q.drop_group(a.group, a.once)]


@_answers("buffer/purge")
def _(q: Buffer, a: SimpleNamespace) -> object:  # noqa: ARG001
    return [-1, q.purge()]


@_answers("buffer/stats")
def _(q: Buffer, a: SimpleNamespace) -> object:
    waiting, *counts, paused = q.stats(a.now).values()
    return [b"", waiting, *counts, _pause(paused)]


@_answers("buffer/groups")
def _(q: Buffer, a: SimpleNamespace) -> object:
    found = q.groups(a.state.decode())
    if a.state == b"busy":
        return [0, {"unordered": [part for group, length in found for part in (group.decode(), length)]}]
    following, page = a.cursor + a.limit, found[a.cursor : a.cursor + a.limit]
    return [following if following < len(found) else 0, [x for group, length in page for x in (group, length)]]


@_answers("buffer/peek")
def _(q: Buffer, a: SimpleNamespace) -> object:
    return q.peek(a.group, a.count, a.start)


@_answers("buffer/batches")
def _(q: Buffer, a: SimpleNamespace) -> object:
    found: list[Any] = []
    total = 0
    for one in _behind(q.show(a.state.decode()), a.after)[: a.limit]:
        items: Any = one[-1]
        total += len(items)
        if total > 4000 and found:
            break
        found.append(one)
    return found


# -- the priority queue


@_answers("priority/push")
def _(q: Priority, a: SimpleNamespace) -> object:
    q.order = a.order.decode()
    items = [(float(priority), member, payload[0] if payload else None) for priority, member, *payload in a.item]
    return q.push(a.now, items, a.once, a.delay, a.how.decode())


@_answers("priority/pop")
def _(q: Priority, a: SimpleNamespace) -> object:
    q.order = a.order.decode()
    promoted = copy.deepcopy(q)
    promoted._promote(a.now)
    retry, items = q.pop(a.now, a.count)
    return [retry, *(_three(items, promoted.keys(a.now)) if items else ([], [], []))]


@_answers("priority/reserve")
def _(q: Priority, a: SimpleNamespace) -> object:
    q.order = a.order.decode()
    q.lease, q.max_attempts, q.max_dead, q.limit.rates = a.lease, a.max_attempts, a.max_dead, a.rates
    kind, *rest = q.reserve(a.now, a.size, a.id, a.holder, a.max_bytes)
    if kind != b"batch":
        return [kind, *rest]
    deadline, items, buried = rest
    return [kind, deadline, *_three(items, q.keys(a.now)), buried]  # type: ignore[arg-type]


@_answers("priority/ack")
def _(q: Priority, a: SimpleNamespace) -> object:
    return q.ack(a.now, a.id, [(place, reason[:KEPT]) for place, reason in a.failed], a.delay)


@_answers("priority/state")
def _(q: Priority, a: SimpleNamespace) -> object:
    return q.state(a.member).encode()


@_answers("priority/remove")
def _(q: Priority, a: SimpleNamespace) -> object:
    return q.remove(a.member, a.once)


@_answers("priority/redrive")
def _(q: Priority, a: SimpleNamespace) -> object:
    return q.redrive(a.member, a.once)


@_answers("priority/discard")
def _(q: Priority, a: SimpleNamespace) -> object:
    return q.discard(a.member, a.once)


@_answers("priority/purge")
def _(q: Priority, a: SimpleNamespace) -> object:  # noqa: ARG001
    return [0, q.purge()]


@_answers("priority/stats")
def _(q: Priority, a: SimpleNamespace) -> object:
    counts = dict(q.stats(a.now))
    places = [counts.pop(name) for name in ("ready", "delayed", "leased", "dead")]
    *others, paused = counts.values()
    return [*places, *others, _pause(paused)]


@_answers("priority/members")
def _(q: Priority, a: SimpleNamespace) -> object:
    q.order = a.order.decode()
    found = q.show(a.state.decode())
    behind = [i + 1 for i, (_, item) in enumerate(found) if [item.member] == a.after]
    start = behind[0] if behind else a.start
    page = found[start : start + a.limit]
    if not page:
        return [[], [], []]
    rows = [_row(q, item.member) for _, item in page]
    return [
        [part for place, item in page for part in (item.member, float(place))],
        rows,
        [item.payload for _, item in page],
    ]


@_answers("priority/batches")
def _(q: Priority, a: SimpleNamespace) -> object:
    q.order = a.order.decode()
    found: list[Any] = []
    total = 0
    for one in _behind(q.batches(), a.after)[: a.limit]:
        lease_id, deadline, holder, items = one
        total += len(items)
        if total > 500 and found:
            break
        pairs = [part for item in items for part in (item.member, float(item.score))]
        rows = [_row(q, item.member) for item in items]
        found.append([lease_id, deadline, holder, pairs, rows, [item.payload for item in items]])
    return found


# -- the limiter


@_answers("limit/acquire")
def _(q: Limit, a: SimpleNamespace) -> object:
    q.rates = a.rates
    return q.acquire(a.now, a.cost, a.once)


# -- parts of replies


def _behind(found: list[Any], last: bytes) -> list[Any]:
    """Return what follows the entry with an id, or everything if there is no such entry."""
    places = [i for i, one in enumerate(found) if one[0] == last]
    return found[places[0] + 1 :] if places else found


def _pause(paused: Any) -> bytes:
    return b"%d %s" % paused if paused else b""


def _row(q: Priority, member: bytes) -> bytes | None:
    row = q._row(q.members[member]) if member in q.members else None
    return row_text(row, q.members[member].score) if row else None


def row_text(row: Any, score: float) -> bytes:
    """Return a row; a ready or leased member has the score that it was delayed with."""
    parked, attempts, reason = row
    return b"%s %d %s" % (number(score if parked is None else parked).encode(), attempts, reason)


def _three(items: list[Item], keys: Keys) -> tuple[object, object, object]:
    """Return members and scores, rows and payloads; a list is empty if nothing of its kind is stored."""
    pairs = [part for item in items for part in (item.member, float(item.score))]
    rows = [
        row_text((None, item.attempts, item.reason), item.score) if item.attempts or item.reason else None
        for item in items
    ]
    return pairs, rows if b"rows" in keys else [], [i.payload for i in items] if b"payloads" in keys else []
