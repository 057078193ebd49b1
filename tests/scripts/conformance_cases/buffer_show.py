"""Reading and purging a buffer: batches, groups, peek, stats, purge."""

from __future__ import annotations

from functools import partial

from .buffer_items import KEEPING, lease, waiting
from .derived import by_type, derive
from .scenario import NOW, Cases, Scenario, script

PLACES = ("leases", "delayed", "dead")


def everything(s: Scenario) -> None:
    """Create a batch in each state, a waiting, a busy and a paused group."""
    lease(s, "cde", group="x", id="k", now=1000)
    s.do("release", id="k", delay=4000, reason="boom")
    lease(s, "f", group="y", id="m")
    s.do("bury", id="m", now=NOW - 1, reason="bad")
    lease(s, "gh", group="b", id="n", ordered=1, lease=60_000)
    lease(s, "ab", group="x", id="l", now=2000, holder="w:1")
    s.do("pause_group", group="p")
    waiting(s, b="ij", p="klm", g="no", h="p")


def _in(place: str, s: Scenario, **batches: str) -> None:
    """Bring batches into a state: id -> items."""
    for i, (id_, items) in enumerate(batches.items(), 1):
        lease(s, items, id=id_, holder=f"w{i}", lease=NOW + i)
        if place == "delayed":
            s.do("release", id=id_, delay=i, reason="boom")
        elif place == "dead":
            s.do("bury", id=id_, now=i, reason="boom")


@script("buffer/batches")
def batches(case: Cases) -> None:
    derive(case, everything, reads=["batch:m"], limit=5)
    for place in PLACES:
        s = case(f"{place}: all of them, the earliest first")
        everything(s)
        s.send(state=place)
        s = case(f"{place}: page by page")
        _in(place, s, a="x", c="yz", b="xyz", d="x")
        s.send(state=place, limit=2)
        s.send(state=place, limit=2, after="c")
        s.send(state=place, limit=2, after="d")
        s.send(state=place, limit=1, after="a")
        s.send(state=place, limit=3, after="gone")
        s = case(f"{place}: none")
        waiting(s, g="a")
        s.send(state=place)
    s = case("an empty queue")
    s.send()
    for sizes, what in (((2000, 2000, 1), "exactly 4000"), ((2000, 2001), "more than 4000"), ((4001, 1), "one alone")):
        s = case(f"at most 4000 items a page, but one batch: {what}")
        for i, size in enumerate(sizes):
            s.do("push", item=["x"] * size)
            s.do("reserve", id=f"d{i}", size=10_000)
            s.do("bury", id=f"d{i}", now=i)
        s.send()
        s.send(after="d0")
    s = case("100 batches a page")
    for i in range(1, 102):
        lease(s, "a", group="h", id=f"d{i}")
        s.do("bury", id=f"d{i}", now=i)
    s.send(limit=100)
    s = case("any bytes")
    s.do("push", item=[b"\xff", ""], group=b"\xfe:")
    s.do("reserve", id=b"\xfd", holder=b"\xfc")
    s.do("bury", id=b"\xfd", reason=b"\xfb\x00")
    s.send()
    s.send(after=b"\xfd")

    meta = {"queue": "2 buffer"}
    gone = case.by_hand("the server evicted the batch", {"meta": meta, "dead": {"k": 1000, "l": 2000}})
    gone.send([["k", 1000, "", 0, "", "", []]], limit=1)
    given = {"meta": meta, "dead": {"k": 1000}, "batch:k": ["g", "x"]}
    odd = case.by_hand("a batch that does not begin as it must", given)
    odd.send([["k", 1000, "g", 0, "", "", []]])


@script("buffer/groups")
def groups(case: Cases) -> None:
    derive(case, everything, reads=["items:p"], unread=["groups", "busy"], state="paused", lowest={"state": "waiting"})
    for state, key in (("waiting", "groups"), ("busy", "busy")):
        odd = case.by_hand(f"{key} is of another type", {key: "x"})
        odd.refuse("WRONGTYPE", state=state)
    by_type(case, everything, only=["items:b"], title=", which is busy", state="busy")
    by_type(case, lambda s: waiting(s, g="ab"), only=["items:g"], title=", which waits", state="waiting")
    gone = case.by_hand("the server evicted a group's list", {"groups": {"g": 5, "h": 2}, "items:h": ["c", "b", "a"]})
    gone.send([0, ["g", 0, "h", 3]], state="waiting")
    s = case("waiting: the longest first, of equal ones the greater name")
    everything(s)
    waiting(s, i="ab", e="wxyz")
    s.send(state="waiting")
    s = case("waiting: page by page")
    waiting(s, a="abc", b="ab", c="abcd", d="a")
    for cursor in (0, 2, 4, 1, 3, 9):
        s.send(state="waiting", limit=2, cursor=cursor)
    s.send(state="waiting", limit=4)
    s.send(state="waiting", limit=5)
    s.send(state="waiting", limit=3)
    s = case("busy")
    everything(s)
    s.send(state="busy")
    s = case("busy: without items")
    lease(s, "ab", ordered=1)
    s.send(state="busy")
    s = case("busy: several")
    for group, items in (("a", "xy"), ("b", "xyz"), ("c", "")):
        lease(s, "w", group=group, id=group, ordered=1)
        s.do("push", group=group, item=list(items))
    s.send(state="busy")
    s = case("paused: those that end first first")
    everything(s)
    s.do("pause_group", group="q", duration=20_000)
    s.do("pause_group", group="r", duration=10_000)
    s.do("push", group="r", item=["a"])
    s.send(state="paused")
    s.send(state="paused", limit=1)
    s.send(state="paused", limit=1, cursor=1)
    s.send(state="paused", limit=2, cursor=1)
    s.send(state="paused", limit=2)
    s.send(state="paused", cursor=7)
    for state in ("waiting", "busy", "paused"):
        s = case(f"an empty queue: {state}")
        s.send(state=state)
    s = case("any bytes")
    s.do("push", group=b"\xff:", item=["x"])
    s.do("pause_group", group=b"\xfe:")
    s.send(state="waiting")
    s.send(state="paused")


@script("buffer/peek")
def peek(case: Cases) -> None:
    derive(case, lambda s: waiting(s, g="abc"), count=2, highest={"start": 2}, lowest={"start": 0})
    s = case("the oldest first, others left out")
    waiting(s, g="abcde", h="xy")
    for start, count in ((0, 1), (0, 5), (0, 6), (1, 3), (4, 1), (4, 2), (5, 1), (999_999_999, 1000)):
        s.send(start=start, count=count)
    s = case("a group that is not there")
    waiting(s, h="ab")
    s.send()
    s = case("an empty queue")
    s.send()
    s = case("a busy group, a paused one and a paused queue")
    lease(s, "x", ordered=1)
    s.do("pause_group", group="h")
    waiting(s, g="ab", h="cd")
    s.do("pause", reason="why")
    s.send()
    s.send(group="h")
    s = case("what is handed out does not wait")
    lease(s, "ab")
    waiting(s, g="cd")
    s.send()
    s = case("what is put back comes first")
    waiting(s, g="ab")
    s.do("push", side="front", item=["c", "d"])
    s.send()
    s = case("any bytes")
    s.do("push", group=b"\xff:", item=[b"\xfe", "", "a"])
    s.send(group=b"\xff:")
    s = case("as many items as one call shows")
    s.do("push", item=[f"i{i}" for i in range(1, case.most("count") + 3)])
    s.send(count=case.most("count"))
    s.send(count=case.most("count"), start=2)
    s.send(count=case.most("count"), start=3)


@script("buffer/stats")
def stats(case: Cases) -> None:
    nothing = {"groups": 0, "busy": 0, "paused": 0}
    case.defaults |= nothing
    derive(
        case,
        everything,
        reads=["items:b", "items:p"],
        highest={**nothing, "limit": case.most("limit")},
        lowest={"limit": 10},
    )
    s = case("everything")
    everything(s)
    for now in (NOW, NOW - 66_000, 31_999, 32_000, 0):
        s.send(now=now)
    s = case("an empty queue")
    s.send()
    s = case("a queue that is drained")
    lease(s, "ab")
    s.do("ack", failed=[0])
    s.do("reserve", id="m")
    s.do("ack", id="m")
    s.send()
    s = case("what was done, failed, buried and trimmed")
    for i, failed in enumerate(([], [0], [0, 1])):
        lease(s, "abc", id=f"k{i}", group=f"k{i}")
        s.do("ack", id=f"k{i}", failed=failed, delay=9000)
    for i in range(3):
        lease(s, "abc", id=f"d{i}", group=f"d{i}")
        s.do("bury", id=f"d{i}", max_dead=1)
    s.send()
    s = case("a paused group that is busy as well is counted once")
    lease(s, "ab", ordered=1)
    s.do("push", item=["x", "y", "z"])
    s.do("pause_group")
    s.do("push", group="h", item=["x"])
    s.send()
    s = case("a busy group alone")
    lease(s, "ab", ordered=1)
    s.do("push", item=["x", "y", "z"])
    s.send()
    for name, time, after in (
        ("until it is resumed", 0, 0), ("for a time", 60_000, 59_999), ("no longer", 60_000, 60_000),
    ):  # fmt: skip
        s = case(f"the queue is paused {name}")
        waiting(s, g="abc")
        s.do("pause", duration=time, reason="why not")
        s.send(now=NOW + after)
    s = case("many groups come in pages")
    lease(s, "x", group="b", ordered=1, lease=90_000)
    s.do("push", group="b", item=["y"] * 60)
    for i in range(1, 8):
        s.do("push", group=f"g{i}", item=["x"] * i, now=i)
    for i in (1, 2, 3):
        s.do("pause_group", group=f"p{i}", duration=i)
        s.do("push", group=f"p{i}", item=["y"] * 100 * i, now=i)
    pages = case.by_hand("many groups come in pages", s.keys())
    case.all.remove(s)
    counts = [7, 1, 3, NOW - 1, 1, 0, 0, 0, 190_000, 0, 0, 0, 0, ""]
    pages.send(["3 0 0", 1 + 2 + 3, *counts], limit=3)
    pages.send(["6 0 0", 4 + 5 + 6, *counts], groups=3, limit=3)
    pages.send(["", 7 + 60 + 600, *counts], groups=6, limit=3)
    pages.send(["8 0 2", 7 + 60 + 300, *counts], groups=6, limit=2)
    pages.send(["", 300, *counts], groups=8, paused=2, limit=2)
    pages.send(["", 60 + 600, *counts], groups=999_999_999, limit=case.most("limit"))
    pages.send(["", 0, *counts], groups=999_999_999, busy=0, paused=999_999_999, limit=case.most("limit"))
    few = case.by_hand("as many groups as one call counts", case.state(lambda s: waiting(s, a="a", b="b", c="cd")))
    counts = [3, 0, 0, NOW - 1000, 0, 0, 0, 0, -1, 0, 0, 0, 0, ""]
    few.send(["", 4, *counts], limit=3)
    few.send(["2 0 0", 2, *counts], limit=2)
    few.send(["", 0, *counts], groups=3, busy=999_999_999_999_999_999, limit=2)
    s = case("many busy groups come in pages")
    for i in range(1, 601):
        lease(s, "x", group=f"g{i}", id=f"l{i}", ordered=1)
        s.do("push", group=f"g{i}", item=["y"])
    many = case.by_hand("many busy groups come in pages", s.keys())
    case.all.remove(s)
    counts = [0, 600, 0, -1, 600, 0, 0, 0, 130_000, 0, 0, 0, 0, ""]
    many.send([{"match": r"^\d+ [1-9]\d* 0$"}, {"match": r"^([7-9]|1\d)$"}, *counts], limit=7)


@script("buffer/purge")
def purge(case: Cases) -> None:
    derive(case, everything, reads=["items:g", "batch:l"], highest={"cursor": 0}, lowest={"limit": 7})
    s = case("everything but pauses")
    everything(s)
    s.do("pause", reason="why")
    s.awake()
    s.send()
    s.send()
    for what, setup in KEEPING.items():
        s = case(f"all that is there: {what}")
        setup(s)
        s.awake()
        s.send()
    s = case("a busy group")
    lease(s, "ab", ordered=1)
    s.do("push", item=["c"])
    s.send()
    s = case("an empty queue")
    s.send()
    s = case("a queue that is drained")
    lease(s, "ab")
    s.do("ack")
    s.send()
    s = case("answers that are remembered and grants expire by themselves")
    s.do("push", item=["a", "b", "c"], window=60_000)
    s.do("reserve", size=1, rates=[(5, 60_000)])
    s.do("ack", window=60_000)
    s.send()
    s = case("a busy group that is paused is counted once")
    lease(s, "ab", ordered=1)
    s.do("push", item=["c", "d", "e"])
    s.do("pause_group")
    s.send()

    def many(s: Scenario, count: int) -> None:
        for i in range(count):
            _in("leases", s, **{f"a{i}": "xy"})
            _in("delayed", s, **{f"b{i}": "xyz"})
            _in("dead", s, **{f"c{i}": "wxyz"})
        for i in range(count):
            waiting(s, **{f"g{i}": "vwxyz"})
            s.do("pause_group", group=f"p{i}")
            waiting(s, **{f"p{i}": "uvwxyz"})

    for count, replies in (
        (3, ([2, 40], [-1, 20])), (2, ([2, 40], [-1, 0])), (4, ([2, 40], [4, 40], [-1, 0])), (1, ([-1, 20],)),
    ):  # fmt: skip
        given = case.state(partial(many, count=count))
        pages = case.by_hand(f"two of each kind a call, of {count}", given, {"paused_groups": given[b"paused_groups"]})
        for cursor, reply in zip((0, 2, 4), replies, strict=False):
            pages.send(reply, limit=2, cursor=cursor)
    given = case.state(partial(many, count=3))
    given[b"items:a0"] = [b"x"] * 9  # a group with the name of a batch
    given[b"groups"][b"a0"], given[b"since"][b"a0"] = 9.0, 1.0
    left = {name: value for name, value in given.items() if name[-1:] in b"2" or name in (b"meta", b"items:a0")}
    left |= {b"paused_groups": given[b"paused_groups"]}
    for name in (b"leases", b"delayed", b"dead", b"groups", b"since"):
        left[name] = {one: score for one, score in given[name].items() if one.endswith(b"2")}
    left[b"groups"][b"a0"], left[b"since"][b"a0"] = 9.0, 1.0
    case.by_hand("two of each kind, the first ones", given, left).send([2, 40], limit=2)
    given = case.state(lambda s: waiting(s, a="a", b="bc", c="def"))
    left = {name: value for name, value in given.items() if name in (b"meta", b"items:c")}
    left |= {b"groups": {b"c": 3}, b"since": {b"c": 3000}}
    case.by_hand("two groups a call, of three", given, left).send([0, 3], limit=2)
    given = case.state(lambda s: waiting(s, a="a", b="bc"))
    case.by_hand("a cursor that is past everything", given, {}).send([-1, 3], cursor=999_999_999)
    s = case("200 of each kind a call")
    for i in range(1, 201):
        s.do("push", group=f"g{i}", item=["x"], now=i)
    s.send(limit=200)

    meta = {"queue": "2 buffer"}
    gone = case.by_hand(
        "the server evicted lists",
        {"meta": meta, "dead": {"k": 1000}, "leases": {"l": 1000}, "groups": {"g": 1}, "since": {"g": 1}},
        {},
    )
    gone.send([-1, 0])
