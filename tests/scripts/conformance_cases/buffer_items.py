"""Items of a buffer that are added and removed without a lease: push, pop, pop_longest."""

from __future__ import annotations

from typing import Any

from .derived import by_type, derive
from .scenario import NOW, WEEK, Cases, Scenario, Setup, nothing, script

KEEPING: dict[str, Setup] = {
    "another group": lambda s: s.do("push", group="h", item=["x"]),
    "a leased batch": lambda s: lease(s, "x"),
    "a delayed batch": lambda s: (lease(s, "x"), s.do("release", delay=9000)),
    "a dead batch": lambda s: (lease(s, "x"), s.do("bury")),
    "a paused group": lambda s: s.do("pause_group", group="h"),
}
"""what keeps a queue whose last item is taken, and how to create it; it leaves group `g` empty"""


def lease(s: Scenario, items: str, group: str = "g", id: str = "l", **values: object) -> Scenario:  # noqa: A002
    """Push items, one a letter, to an empty group and lease them."""
    s.do("push", group=group, item=list(items), now=1000)
    batch = s.do("reserve", id=id, size=len(items), **values)
    taken = [batch[2], *batch[-1]]
    assert taken == [group.encode(), *(item.encode() for item in items)], "another group is longer, or something is due"
    return s


def waiting(s: Scenario, **groups: str) -> Scenario:
    """Push one item a letter to each group, one second after the other."""
    for i, (group, items) in enumerate(groups.items(), 1):
        s.do("push", group=group, item=list(items), now=1000 * i)
    return s


@script("buffer/push")
def push(case: Cases) -> None:
    derive(case, nothing, reads=["busy", "paused_groups"], item=["a", "b"])

    s = case("the first items of a queue")
    s.send(item=["a", "b", "c"])
    s = case("behind those that wait; the group waits as long as before")
    waiting(s, g="ab")
    s.send(item=["c"])
    s = case("a wake-up that lies there is enough")
    s.awake()
    s.send(item=["a"])
    s = case("to the front: the first one given leaves first")
    waiting(s, g="ab")
    s.send(item=["c", "d"], side="front")
    s = case("to the front of an empty group")
    s.send(item=["a", "b"], side="front")
    s = case("no items: nothing but the length")
    waiting(s, g="ab")
    s.send(item=[])
    s = case("no items for an empty queue")
    s.send(item=[])
    s = case("sent again later, the answer is the first one")
    s.send(item=["a", "b"])
    s.send_other("pop", size=1)
    s.send(item=["a", "b"], now=NOW + 1)
    s.send(item=["a", "b"], once="p", now=NOW + 2)
    s = case("an empty queue keeps its mark and counters for good again")
    lease(s, "x")
    s.do("ack")
    s.send(item=["a"])
    s = case("any bytes")
    s.send(item=[b"\xff\x00", "", "a b", "a b"], group=b"g:\xfe ")

    for name, place in (("busy", "a busy group"), ("paused_groups", "a paused group")):
        s = case(f"{place} is not offered")
        _withhold(s, name)
        s.send(item=["a", "b"])
        s = case(f"{place} with items is not offered")
        _withhold(s, name)
        s.do("push", item=["x"])
        s.send(item=["a", "b"])
        s = case(f"{place} is no other group's matter")
        _withhold(s, name)
        s.send(item=["a", "b"], group="h")
    s = case("a paused queue takes items")
    s.do("pause", duration=50_000, reason="why")
    s.send(item=["a"])

    for side in ("back", "front"):
        s = case(f"thousands of items keep their order: {side}")
        s.send(item=["a"] * 1000 + ["b"] * 1000 + ["c"] * 7, side=side)
        s = case(f"as many items as one call takes: {side}")
        waiting(s, g="a")
        s.send(item=["x"] * case.most("item"), side=side)


def _withhold(s: Scenario, name: str) -> None:
    if name == "busy":
        lease(s, "y", ordered=1)
    else:
        s.do("pause_group", duration=60_000)


def _paused(case: Cases, **values: object) -> None:
    """Add a call for each kind of pause of the whole queue."""
    for name, time, after in (
        ("until it is resumed", 0, 0), ("for a time", 60_000, 59_999), ("no longer", 60_000, 60_000),
    ):  # fmt: skip
        s = case(f"the queue is paused {name}")
        waiting(s, g="abc", h="de")
        s.do("pause", duration=time, reason="why not")
        s.send(**values, now=NOW + after)


def _over(case: Cases, **values: Any) -> None:
    """Add calls after a group's pause has ended, which a call that takes its items resumes."""
    s = case("the pause of a group has ended")
    s.do("pause_group", duration=1000, now=2000)
    s.do("pause_group", group="h")
    waiting(s, g="abcd", h="xyz")
    s.send(**values)
    s = case("the pause of a group ends now, that of another in a ms")
    s.do("pause_group", duration=1000, now=NOW - 1000)
    s.do("pause_group", group="h", duration=1000, now=NOW - 999)
    waiting(s, g="abcd", h="xyz")
    s.send(**values)
    s = case("the pause of a group ends in a ms")
    s.do("pause_group", duration=1000, now=NOW - 999)
    waiting(s, g="abcd")
    s.send(**values)
    s = case("the pause of a group has ended; a wake-up that lies there is enough")
    s.do("pause_group", duration=1000, now=2000)
    waiting(s, g="abcd")
    s.awake()
    s.send(**values)
    s = case("the pause of a group has ended, but it is busy")
    lease(s, "y", ordered=1)
    s.do("pause_group", duration=1000, now=2000)
    waiting(s, g="abcd", h="x")
    s.send(**values)
    s = case("the pause of a group has ended, and the queue is paused")
    s.do("pause_group", duration=1000, now=2000)
    waiting(s, g="abcd")
    s.do("pause")
    s.send(**values)
    s = case("the pause of a group has ended that kept the queue when the last item left it")
    lease(s, "x")
    s.do("pause_group", duration=1000, now=2000)
    s.do("ack")
    s.awake()
    s.send(**values)


def _over_many(case: Cases, **values: Any) -> None:
    """Add calls that resume groups which they do not name."""
    s = case("ten groups whose pause has ended are taken back, those first that ended first")
    for i in range(12):
        s.do("pause_group", group=f"p{i:02}", duration=1000, now=2000 - i)
        s.do("push", group=f"p{i:02}", item=["x"])
    waiting(s, g="abcd")
    s.send(**values)
    s = case("the pauses of groups without items have ended, nothing else is there")
    lease(s, "x")
    s.do("ack")
    for i in range(2):
        s.do("pause_group", group=f"p{i}", duration=1000, now=2000)
    s.awake()
    s.send(**values)
    by_type(
        case,
        lambda s: (s.do("pause_group", group="h", duration=1000, now=2000), waiting(s, g="abcd", h="x")),
        only=["groups", "since", "leases", "delayed", "dead", "wake", "items:h", "busy", "paused_groups"],
        title=": the pause of a group has ended",
        **values,
    )


@script("buffer/pop")
def pop(case: Cases) -> None:
    derive(case, lambda s: waiting(s, g="abcd"), size=2)

    s = case("the oldest first; the rest waits anew")
    waiting(s, g="abcd", h="x")
    s.send(size=3)
    s.send(size=1, now=NOW + 1)
    s = case("fewer than asked for")
    waiting(s, g="ab", h="x")
    s.send(size=3)
    s.send(size=3)
    s = case("the last item: counters stay for seven days, a wake-up goes")
    lease(s, "x")
    s.do("ack")
    waiting(s, g="ab")
    s.awake()
    s.send(size=2)
    for what, setup in KEEPING.items():
        s = case(f"the last item, but {what} is there")
        setup(s)
        waiting(s, g="ab")
        s.awake()
        s.send(size=2)
    for name, place in (("busy", "busy"), ("paused_groups", "paused")):
        s = case(f"a {place} group gives nothing")
        _withhold(s, name)
        waiting(s, g="ab")
        s.send()
    s = case("a group that is not there")
    waiting(s, h="ab")
    s.send()
    s = case("an empty queue")
    s.send()
    _paused(case)
    _over(case, size=3)
    s = case("the pause of another group has ended, which is left to others")
    s.do("pause_group", group="h", duration=1000, now=2000)
    waiting(s, g="ab", h="x")
    s.send(size=1)
    s.send(size=1)
    s.send(size=1, group="h")
    by_type(
        case,
        lambda s: (s.do("pause_group", duration=1000, now=2000), waiting(s, g="abcd")),
        only=["groups", "since", "items:g", "busy", "paused_groups"],
        title=": its pause has ended",
        size=3,
    )
    s = case("as many items as one call gives")
    s.do("push", item=["a"] * 1000 + ["b"] * (case.most("size") - 999))
    s.send(size=case.most("size"))

    given = {"meta": {"queue": "2 buffer"}, "groups": {"g": 2}, "since": {"g": 1000}, "wake": ["1"]}
    gone = case.by_hand("the server evicted the list", given, {"meta": {"queue": "2 buffer"}}, ttl={"meta": WEEK})
    gone.send([])
    given |= {"items:g": ["a", "b", "c"]}
    wrong = case.by_hand(
        "the list is longer than the index has it",
        given,
        {**given, "items:g": ["b", "c"], "groups": {"g": 2}, "since": {"g": NOW}},
    )
    wrong.send(["a"], size=1)


@script("buffer/pop_longest")
def pop_longest(case: Cases) -> None:
    derive(
        case,
        lambda s: waiting(s, g="abcd", h="xyz"),
        reads=["items:h"],
        size=2,
        count=2,
        highest={"count": case.most("count"), "size": case.most("size") // case.most("count")},
    )
    most = case.most("size")
    case("count times size is too much").refuse("BADARG", count=most // 100 + 1, size=100)
    case("more items of one group than one call gives").refuse("BADARG", count=1, size=most + 1)
    case("more groups than one call looks at").refuse("BADARG", count=case.most("count") + 1, size=1)

    s = case("the longest first, of equal ones the greater name")
    waiting(s, a="ab", b="cde", c="fg", d="h", e="ijk")
    s.send(count=4, size=5)
    s = case("a part of each group; what is left waits anew")
    waiting(s, a="ab", b="cde", c="fg")
    s.send(count=2, size=2)
    s = case("groups that have waited max_wait first, the oldest of them first, then the longest")
    waiting(s, a="a", b="bcd", c="ef", d="ghij", e="k")
    s.send(count=4, size=2, max_wait=97_000)
    s = case("none has waited max_wait: the longest")
    waiting(s, a="a", b="bcd", c="ef")
    s.send(count=2, size=2, max_wait=99_001)
    s = case("more have waited max_wait than are asked for")
    waiting(s, a="a", b="bcd", c="ef")
    s.send(count=2, size=2, max_wait=10)
    s = case("just as many have waited max_wait as are asked for")
    waiting(s, a="a", b="b", c="def")
    s.send(count=2, size=2, max_wait=98_000)
    s = case("all have waited max_wait")
    waiting(s, a="a", b="bc")
    s.send(count=5, size=1, max_wait=10)
    s = case("a group that has waited max_wait is not given twice")
    waiting(s, a="abcd", b="e", c="fg")
    s.send(count=2, size=1, max_wait=99_000)
    s = case("a group without max_wait")
    waiting(s, a="a", b="bcd")
    s.send(count=1, size=5)
    s = case("busy and paused groups give nothing")
    lease(s, "x", ordered=1)
    s.do("pause_group", group="h")
    waiting(s, g="abc", h="de", i="f")
    s.send()
    s = case("everything: counters stay for seven days, a wake-up goes")
    waiting(s, a="ab", b="cd")
    s.awake()
    s.send()
    for what, setup in KEEPING.items():
        s = case(f"everything but {what}")
        setup(s)
        waiting(s, i="abc", k="de")
        s.awake()
        s.send(count=2)
    s = case("an empty queue")
    s.send()
    s = case("as many items of a group as one call gives")
    waiting(s, g="abc")
    s.send(count=1, size=most)
    by_type(
        case, lambda s: waiting(s, g="abcd", h="xyz"), only=["groups", "since", "items:h"], title=": max_wait",
        size=2, count=2, max_wait=10,
    )  # fmt: skip
    _paused(case)
    _over(case, size=3, count=2)
    _over_many(case, size=3, count=2)
    s = case("as many items of as many groups as one call gives")
    for i in range(1, case.most("count") + 2):
        s.do("push", group=f"g{i}", item=["x"] * (most // case.most("count")), now=i)
    s.send(count=case.most("count"), size=most // case.most("count"), max_wait=90_000)

    given = {"meta": {"queue": "2 buffer"}, "groups": {"g": 2}, "since": {"g": 1000}, "wake": ["1"]}
    gone = case.by_hand("the server evicted the list", given, {"meta": {"queue": "2 buffer"}}, ttl={"meta": WEEK})
    gone.send([["g", []]])
