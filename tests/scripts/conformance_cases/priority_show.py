"""Reading and purging a priority queue: members, batches, stats, purge."""

from __future__ import annotations

from typing import Any

from tests.model import Member

from .derived import derive
from .form import CLOCK
from .priority_push import DUE, KEEPING, dead, delayed, everywhere, lease, ready, tried
from .scenario import NOW, Cases, Scenario, script

STATES = ("ready", "delayed", "dead")


def _in(state: str, s: Scenario, **members: float) -> None:
    """Bring members into a state, in the order of their priorities."""
    if state == "ready":
        ready(s, **members)
    for i, (member, priority) in enumerate(members.items(), 1):
        if state == "delayed":
            delayed(s, delay=i * 100, attempts=bool(i % 2), **{member: priority})
        elif state == "dead":
            dead(s, now=1000 * i, **{member: priority})


@script("priority/members")
def members(case: Cases) -> None:
    case.defaults["after"] = []
    derive(case, everywhere, unread=["dead"], state="ready", reads=["rows", "payloads"])
    case.by_hand("dead is of another type", {"dead": "x"}).refuse("WRONGTYPE")
    for order in ("score", "fifo"):
        for state in STATES:
            s = case(f"{state}: all of them, {order}", order=order)
            everywhere(s)
            _in(state, s, v=5, w=6, x=7)
            s.send(state=state)
    for state in STATES:
        s = case(f"{state}: page by page")
        _in(state, s, v=5, w=6, x=7, a=8)
        for start in (0, 2, 3, 4, 9):
            s.send(state=state, limit=2, start=start)
        for after in ("v", "w", "a", "gone", ""):
            s.send(state=state, limit=2, start=1, after=[after])
        s = case(f"{state}: none")
        if state == "dead":
            ready(s, a=1)
        else:
            dead(s, a=1)
        s.send(state=state)
    s = case("an empty queue")
    s.send()
    s = case("attempts, reason and payload")
    tried(s, a=5)
    s.do("push", item=[(6, "b", "payload"), (7, "c", "")])
    ready(s, d=8)
    s.send(state="ready")
    s = case("a plain sorted set is taken as it is, in score order")
    s.model.members = {b"a": Member("ready", 5.0), b"b": Member("ready", 7.5)}
    s.send(state="ready")
    s = case("any bytes, the empty member too")
    s.do("push", item=[(1, b"\xff", b"\xfe"), (2, "", "")])
    s.send(state="ready")
    s.send(state="ready", after=[b"\xff"])
    s.send(state="ready", after=[""])
    s = case("500 members a page")
    s.do("push", item=[(i, f"m{i}") for i in range(1, 502)])
    s.send(state="ready", limit=500)


@script("priority/batches")
def batches(case: Cases) -> None:
    derive(case, everywhere, reads=["lease:l", "rows", "payloads"])
    for order in ("score", "fifo"):
        s = case(f"all of them, the first to run out first: {order}", order=order)
        tried(s, t=1)
        s.do("push", item=[(2, "p", "payload"), (3, "q", "")])
        for i, id_ in enumerate(("c", "a", "b")):
            if i:
                ready(s, **{f"x{id_}": i, f"y{id_}": i})
            s.do("reserve", id=id_, holder=f"w{i}", lease=NOW - i)
        s.send()
    s = case("page by page")
    for i, id_ in enumerate(("d", "a", "c", "b")):
        lease(s, id=id_, **{f"m{i}": i})
        s.model.leases[id_.encode()].deadline += i
    s.send(limit=2)
    s.send(limit=2, after="a")
    s.send(limit=2, after="b")
    s.send(limit=1, after="d")
    s.send(limit=3, after="gone")
    s = case("members that were pushed or removed meanwhile")
    everywhere(s)
    s.send()
    s = case("none")
    ready(s, a=1)
    s.send()
    s = case("an empty queue")
    s.send()
    for sizes, what in (
        ((250, 250, 1), "exactly 500"),
        ((250, 251), "more than 500"),
        ((1, 500), "the second is large"),
    ):
        s = case(f"at most 500 members a page, but one lease: {what}")
        for i, size in enumerate(sizes):
            s.do("push", item=[(j, f"{'abc'[i]}{j}") for j in range(1, size + 1)], now=1000)
            s.do("reserve", size=500, id=f"k{i}", now=1000 + i)
        s.send()
        s.send(after="k0")
    s = case("100 leases a page")
    for i in range(1, 102):
        ready(s, **{f"m{i}": i})
        s.do("reserve", id=f"k{i}", now=1000 + i)
    s.send()
    s = case("any bytes")
    s.do("push", item=[(1, b"\xff", b"\xfe"), (2, "", "")])
    s.do("reserve", id=b"\xfd", holder=b"\xfc")
    s.send()
    s.send(after=b"\xfd")

    meta = {"queue": "2 score"}
    pairs = [part for i in range(1, 502) for part in (f"m{i}", "5")]
    large = case.by_hand(
        "a lease of more members than one can have is shown alone",
        {"meta": meta, "leases": {"j": 1, "k": 2}, "lease:j": ["w", *pairs], "lease:k": ["w", "a", "5"]},
    )
    large.send([["j", 1, "w", pairs, [None] * 501, [None] * 501]])
    gone = case.by_hand("the server evicted the list of a lease", {"meta": meta, "leases": {"k": 1000}})
    gone.send([["k", 1000, "", [], [], []]])


@script("priority/stats")
def stats(case: Cases) -> None:
    derive(case, everywhere)
    s = case("members in every state")
    everywhere(s)
    for now in (NOW, NOW + DUE - 1, NOW + DUE, 200_999, 201_000, 0):
        s.send(now=now)
    s = case("an empty queue")
    s.send()
    s = case("due by the server's clock: since 2020, not before 2286")
    for member, due in (("a", 1_600_000_000_000), ("b", 9_999_999_999_999)):
        s.do("push", item=[(1, member)], now=due - 1, delay=1)
    s.send(now=CLOCK)
    s = case("several leases")
    lease(s, id="a", x=1, y=2)
    lease(s, id="b", z=1)
    s.do("extend", id="a", lease=150_000)
    s.send()
    s = case("what was done, failed, buried and trimmed")
    for failed in ([], [0], [0, 1], [0, 1, 2]):
        lease(s, id="k", x=1, y=2, z=3)
        s.do("ack", id="k", failed=[(place, "x") for place in failed], delay=DUE)
        s.do("remove", member=["x", "y", "z"])
    for i in range(3):
        lease(s, id="k", **{f"d{i}": 1})
        s.do("bury", id="k", max_dead=1)
    s.send()
    for name, time, after in (
        ("until it is resumed", 0, 0), ("for a time", 60_000, 59_999), ("no longer", 60_000, 60_000),
    ):  # fmt: skip
        s = case(f"the queue is paused {name}")
        ready(s, a=1)
        s.do("pause", duration=time, reason="why not")
        s.send(now=NOW + after)


@script("priority/purge")
def purge(case: Cases) -> None:
    derive(case, everywhere, reads=["lease:l"])
    s = case("everything but a pause")
    everywhere(s)
    s.do("pause", reason="why")
    s.awake()
    s.send()
    s.send()
    for what, setup in KEEPING.items():
        s = case(f"all that is there: {what}", order="fifo")
        setup(s)
        s.awake()
        s.send()
    s = case("an empty queue")
    s.send()
    s = case("a queue that is drained")
    lease(s, a=1)
    s.do("ack")
    s.send()
    s = case("answers that are remembered and grants expire by themselves")
    s.do("push", item=[(1, "a"), (2, "b")], window=60_000)
    s.do("reserve", size=1, rates=[(5, 60_000)])
    s.do("ack", window=60_000)
    s.send()
    s = case("1000 members of leases")
    for id_ in "ab":
        s.do("push", item=[(i, f"{id_}{i}") for i in range(1, 501)], now=1000)
        s.do("reserve", size=500, id=id_)
    s.send()

    given = case.state(lambda s: [lease(s, id=f"k{i}", **{f"m{i}": 1, f"n{i}": 2}) for i in range(3)])
    pages = case.by_hand(
        "two leases a call, and what else is there", {**given, "ready": {"a": 1}, "dead": {"b": 1}}, {}
    )
    pages.send([1, 4], limit=2)
    pages.send([0, 4], limit=2)
    other: dict[Any, Any] = {"meta": {"queue": "2 score"}, "lease:l": ["w", "b", "6"]}
    given = {**other, "leases": {"k": 1, "l": 2}, "lease:k": ["w", "a", "5"], "held": {"a", "b"}}
    left = {**other, "leases": {"l": 2}, "held": {"b"}}
    case.by_hand("a lease of one member a call, of two", given, left).send([1, 1], limit=1)

    def three(s: Scenario) -> None:
        for i in range(3):
            s.do("push", item=[(1, f"m{i}", "p"), (2, f"n{i}", "q")], now=1000)
            s.do("reserve", id=f"k{i}", now=1000 + i)
            s.do("push", item=[(1, f"m{i}")])
        tried(s, r=1)

    given = case.state(three)
    left = {key: value for key, value in given.items() if key not in (b"lease:k0", b"lease:k1", b"meta")}
    keep = {b"leases": "k2", b"held": "2", b"again": "2", b"payloads": "2"}
    for name, end in keep.items():
        value = given[name]
        mine = [one for one in value if one.endswith(end.encode())]
        left[name] = set(mine) if isinstance(value, set) else {one: value[one] for one in mine}
    left[b"meta"] = given[b"meta"]
    case.by_hand("two leases a call: the first to run out go first", given, left).send([1, 4], limit=2)
    for sizes, replies in (((500, 500, 1), ([1, 1000], [0, 1])), ((500, 400, 101), ([1, 900], [0, 101]))):

        def many(s: Scenario, sizes: tuple[int, ...] = sizes) -> None:
            for i, size in enumerate(sizes):
                s.do("push", item=[(j, f"{'abc'[i]}{j}") for j in range(1, size + 1)], now=1000)
                s.do("reserve", id=f"k{i}", size=500, now=1000 + i)

        pages = case.by_hand(f"at most 1000 members of leases a call: {sizes}", case.state(many), {})
        for reply in replies:
            pages.send(reply)

    gone = case.by_hand(
        "the server evicted the list of a lease", {"meta": {"queue": "2 score"}, "leases": {"k": 1000}}, {}
    )
    gone.send([0, 0])
