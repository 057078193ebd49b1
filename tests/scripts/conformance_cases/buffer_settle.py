"""Settling and extending leases of a buffer: ack, release, bury, extend; and dead letters: redrive, discard."""

from __future__ import annotations

from redisq.core.scripts import load
from tests.model.buffer import REDRIVEN

from .buffer_items import KEEPING, lease, waiting
from .derived import derive
from .scenario import NOW, Cases, script

LATER = NOW + 900_000
MINUTE = 60_000


def _no_lease(case: Cases, other: str, **args: object) -> None:
    """Add the ways in which a lease can be over."""
    given = {"meta": {"queue": "2 buffer"}, "leases": {"l": 200_000}, "busy": {"g": "l"}, "items:g": ["x"]}
    lost = case.by_hand("the server evicted the batch: a reserve drops what is left", given)
    for more in ({}, {"reason": "boom"}, {"failed": [0]}, {"attempt": "forget"}):
        lost.refuse("LEASELOST", **{**args, **more})
    s = case("there never was such a lease")
    s.send(**args)
    for verb in ("ack", "release", "bury"):
        for window in (0, MINUTE) if verb != case.script.split("/")[1] else (0,):
            s = case(f"after {verb}{', which is remembered' if window else ''}")
            lease(s, "ab", now=NOW)
            s.do(verb, window=window)
            s.send(**args)
    s = case("after another reserve took the batch")
    lease(s, "ab", now=1000)
    s.do("reserve", id="m", now=LATER)
    s.send(**args)
    s = case("after another reserve took the batch, and nothing is remembered")
    lease(s, "ab", now=1000)
    s.do("reserve", id="m", now=LATER, window=0)
    s.send(**args)
    s = case("after a reserve buried the batch")
    lease(s, "ab", now=1000)
    s.do("reserve", id="m", now=LATER, max_attempts=1)
    s.send(**args)
    s = case("after a purge")
    lease(s, "ab", now=1000)
    s.do("purge")
    s.send(**args)
    s = case(f"the other answer that is remembered for its id is not {case.script.split('/')[1]}'s")
    lease(s, "ab", now=NOW)
    s.do(other, window=MINUTE)
    s.send(**args)
    s.send(**args)
    s = case("a lease that ran out is held until a reserve finds it")
    lease(s, "ab", now=1000)
    s.send(**args, now=LATER)


@script("buffer/ack")
def ack(case: Cases) -> None:
    derive(
        case,
        lambda s: (lease(s, "abc", ordered=1), waiting(s, g="d")),
        reads=["delayed", "busy", "groups", "since", "items:g"],
        failed=[0],
        reason="boom",
    )
    held = load("buffer/reserve").limit("size")[1]
    s = case("places that are no numbers, or not in rising order, or not there")
    lease(s, "abc")
    for failed in (["x"], ["-1"], ["1.5"], [""], [0, 0], [1, 0], [2, 1], [0, "x"]):
        s.refuse("BADARG", failed=failed)
    s.send(failed=[3])
    s.send(failed=[0, 1, 2, 3])
    s.refuse("BADARG", failed=[0] * (held + 1))
    s = case("a place that is not there, of a batch of one")
    lease(s, "a")
    s.send(failed=[1])
    _no_lease(case, "release", delay=5)

    s = case("all items are done")
    lease(s, "abc")
    waiting(s, h="d")
    s.send()
    s = case("the last ones: counters stay for seven days, a wake-up goes")
    lease(s, "abc")
    s.awake()
    s.send()
    for what, setup in KEEPING.items():
        s = case(f"all are done, but {what} is there")
        if "batch" not in what:
            setup(s)
        else:
            lease(s, "x", group="h", id="k")
            if "leased" not in what:
                s.do("release" if "delayed" in what else "bury", id="k", delay=9000)
        lease(s, "ab")
        s.awake()
        s.send()
    for failed in ([0], [2], [0, 2], [0, 1, 2]):
        s = case(f"items at {failed} failed: they come back alone, in their order, at once")
        lease(s, "abc")
        s.send(failed=failed, reason="boom")
    s = case("items that failed come back later; a wake-up that lies there is enough")
    lease(s, "abc")
    s.awake()
    s.send(failed=[1], delay=5000)
    s = case("items that failed on a second attempt, without a reason")
    lease(s, "abc", now=1000)
    s.do("release", reason="first")
    s.do("reserve", id="m")
    s.send(id="m", failed=[1])
    s = case("of a reason the first 1000 bytes are kept")
    lease(s, "abc")
    s.send(failed=[1], reason="x" * 999 + "yz")
    s = case("of a reason why all items failed the first 1000 bytes are kept")
    lease(s, "abc")
    s.send(failed=[0, 1, 2], reason="x" * 999 + "yz")
    s = case("sent again with other arguments, the answer is the first one")
    lease(s, "abc")
    s.send(failed=[1])
    s.send(failed=[0, 1], now=NOW + 5)
    s.send(failed=[7])
    s = case("the group is busy with this batch: it may be chosen again")
    lease(s, "ab", ordered=1)
    waiting(s, g="cd")
    s.send()
    s = case("the group is busy with this batch: one item waits")
    lease(s, "ab", ordered=1)
    waiting(s, g="c")
    s.send()
    s = case("the group is busy with this batch: it is empty")
    lease(s, "ab", ordered=1)
    s.send()
    s = case("the group is busy with this batch: it is paused too")
    lease(s, "ab", ordered=1)
    s.do("pause_group")
    waiting(s, g="cd")
    s.send()
    s = case("the group is busy with this batch: it stays so while items come back")
    lease(s, "ab", ordered=1)
    waiting(s, g="cd")
    s.send(failed=[1])
    s = case("the group is busy with another batch")
    lease(s, "ab")
    lease(s, "xy", id="n", ordered=1)
    waiting(s, g="ef")
    s.send()
    s = case("another group is busy")
    lease(s, "xy", group="h", id="n", ordered=1)
    lease(s, "ab")
    s.send()
    s = case("a wake-up lies there when the group may be chosen again")
    lease(s, "ab", ordered=1)
    waiting(s, g="cd")
    s.awake()
    s.send()
    s = case("thousands of items that failed keep their order")
    s.do("push", item=["a"] * 1000 + ["b"] * 1000 + ["c"] * 5)
    s.do("reserve", size=10_000)
    s.send(failed=list(range(1, 2005)))
    s = case("as many items as a batch can have, all of which failed")
    s.do("push", item=["x"] * (held))
    s.do("reserve", size=10_000)
    s.send(failed=list(range(held)), delay=10)
    s = case("any bytes")
    s.do("push", item=[b"\xff", "", "a"], group=b"\xfe:")
    s.do("reserve", id=b"\xfd")
    s.send(id=b"\xfd", failed=[0, 1], reason=b"\xfc\x00")


@script("buffer/release")
def release(case: Cases) -> None:
    derive(case, lambda s: lease(s, "abc"), reason="boom")
    _no_lease(case, "ack")

    s = case("due at once; a client that waits is woken")
    lease(s, "abc")
    s.send()
    s = case("due later; a wake-up that lies there is enough")
    lease(s, "abc")
    s.awake()
    s.send(delay=5000)
    s = case("uncounted: the hand-over was no attempt")
    lease(s, "abc")
    s.send(attempt="forget", reason="429")
    s = case("uncounted, on a second attempt; without a reason the one that is there stays")
    lease(s, "abc", now=1000)
    s.do("release", reason="first")
    s.do("reserve", id="m")
    s.send(id="m", attempt="forget")
    s = case("counted, on a second attempt; without a reason the one that is there stays")
    lease(s, "abc", now=1000)
    s.do("release", reason="first")
    s.do("reserve", id="m")
    s.send(id="m")
    s = case("of a reason the first 1000 bytes are kept")
    lease(s, "abc")
    s.send(reason="x" * 999 + "yz")
    s = case("it buries nobody, however many attempts there were, and a busy group stays busy")
    lease(s, "ab", ordered=1, now=1000)
    waiting(s, g="cd")
    s.do("reserve", now=NOW, id="m", ordered=1)
    s.send(id="m")
    s = case("sent again with other arguments, the answer is the first one")
    lease(s, "abc")
    s.send()
    s.send(delay=500, now=NOW + 5)
    s = case("any bytes")
    s.do("push", item=[b"\xff", "", "a"], group=b"\xfe:")
    s.do("reserve", id=b"\xfd")
    s.send(id=b"\xfd", reason=b"\xfc\x00")
    given = {"meta": {"queue": "2 buffer"}, "leases": {"l": 200_000}, "batch:l": ["g", "0", "w", "", "a"]}
    odd = case.by_hand(
        "uncounted, without an attempt: there are no fewer than none",
        given,
        {
            "meta": {"queue": "2 buffer"}, "delayed": {"l": NOW}, "batch:l": ["g", "0", "w", "", "a"], "wake": ["1"],
            "ended:l": "release 1",
        },
        ttl={"ended:l": MINUTE},
    )  # fmt: skip
    odd.send(1, attempt="forget")


@script("buffer/bury")
def bury(case: Cases) -> None:
    derive(
        case,
        lambda s: (
            lease(s, "ab", group="h", id="k"),
            s.do("bury", id="k"),
            lease(s, "ab", ordered=1),
            waiting(s, g="d"),
        ),
        reads=["paused_groups", "items:g"],
        unread=["batch:k", "ended:l"],  # UNLINK takes any type; an `ended` that is a list means LEASELOST
        max_dead=1,
        reason="boom",
    )
    _no_lease(case, "ack")

    s = case("a batch of one item is dead")
    lease(s, "a")
    s.send()
    s = case("a batch is dead")
    lease(s, "abc")
    s.send()
    s = case("without a reason the one that is there stays")
    lease(s, "abc", now=1000)
    s.do("release", reason="first")
    s.do("reserve", id="m")
    s.send(id="m")
    s = case("of a reason the first 1000 bytes are kept")
    lease(s, "abc")
    s.send(reason="x" * 999 + "yz")
    s = case("its busy group may be chosen again")
    lease(s, "abc", ordered=1)
    waiting(s, g="de")
    s.send()
    s = case("its busy group may be chosen again; a wake-up that lies there is enough")
    lease(s, "abc", ordered=1)
    waiting(s, g="de")
    s.awake()
    s.send()
    s = case("its busy group may be chosen again: one item waits")
    lease(s, "abc", ordered=1)
    waiting(s, g="d")
    s.send()
    s = case("its busy group is empty")
    lease(s, "abc", ordered=1)
    s.send()
    s = case("its busy group is paused")
    lease(s, "abc", ordered=1)
    s.do("pause_group")
    waiting(s, g="de")
    s.send()
    s = case("its group is busy with another batch")
    lease(s, "abc")
    lease(s, "xy", id="n", ordered=1)
    waiting(s, g="de")
    s.send()
    for dead, max_dead in ((2, 2), (2, 3), (1, 1), (3, 1), (12, 2), (15, 3), (15, 0)):
        s = case(f"{dead} are dead, max_dead {max_dead}: at most ten of the oldest go")
        for i in range(1, dead + 1):
            lease(s, "abc", group=f"g{i}", id=f"d{i}", now=i)
            s.do("bury", id=f"d{i}", now=i)
        lease(s, "ab")
        s.send(max_dead=max_dead)
    s = case("sent again with other arguments, the answer is the first one")
    lease(s, "abc")
    s.send()
    s.send(reason="other", now=NOW + 5)
    given = case.state(lambda s: (lease(s, "ab", group="h", id="k"), s.do("bury", id="k"), lease(s, "xyz")))
    del given[b"batch:k"]
    then = {
        **given,
        "dead": {"l": NOW},
        "meta": {"queue": "2 buffer", "buried": "5", "trimmed": "0"},
        "ended:l": "bury 3",
    }
    del then[b"dead"], then[b"meta"], then[b"leases"]
    odd = case.by_hand("the server evicted the batch that goes", given, then, ttl={"ended:l": MINUTE})
    odd.send(3, max_dead=1)


@script("buffer/extend")
def extend(case: Cases) -> None:
    derive(case, lambda s: lease(s, "ab", now=NOW), lease=MINUTE)
    for how in ("ack", "release", "bury"):
        s = case(f"after {how}")
        lease(s, "ab", now=NOW)
        s.do(how)
        s.send()
    s = case("after another reserve took the batch")
    lease(s, "ab", now=1000)
    s.do("reserve", id="m", now=NOW)
    s.send()
    s = case("there never was such a lease")
    s.send()
    s = case("a later deadline")
    lease(s, "ab", now=NOW)
    s.send(lease=30_001)
    s = case("a deadline that is later already stays")
    lease(s, "ab", now=NOW)
    s.send(lease=29_999)
    s = case("a lease that ran out is held until a reserve finds it")
    lease(s, "ab", now=1000)
    s.send()
    s = case("any bytes in its id")
    s.do("push", item=["a"])
    s.do("reserve", id=b"\xff \x00")
    s.send(id=b"\xff \x00", lease=MINUTE)


def _dead(s: object, **batches: str) -> None:
    """Bury batches, given as id -> items; each belongs to a group named after its first item, in the given order."""
    for i, (id_, items) in enumerate(batches.items(), 1):
        lease(s, items, group=items[0], id=id_)  # type: ignore[arg-type]
        s.do("bury", id=id_, now=1000 * i, reason="boom")  # type: ignore[attr-defined]


@script("buffer/redrive")
def redrive(case: Cases) -> None:
    derive(
        case,
        lambda s: _dead(s, k="ab", l="cd"),
        reads=["busy", "paused_groups", "items:a"],
        id=["k", "l"],
    )

    s = case("the items wait again, though nothing else does")
    _dead(s, k="ab")
    s.send(id=["k"])
    s = case("at the front of their group, which waits as long as before; a wake-up that lies there is enough")
    _dead(s, k="ab")
    waiting(s, a="cd")
    s.awake()
    s.send(id=["k"])
    s = case("batches of one group: the first one given leaves first")
    for id_, items in (("k", "ab"), ("l", "cd"), ("m", "ef")):
        lease(s, items, id=id_)
        s.do("bury", id=id_)
    waiting(s, g="xy")
    s.send(id=["l", "m", "k"])
    s = case("a batch that is given twice is redriven once, in its last place")
    for id_, items in (("k", "ab"), ("l", "cd")):
        lease(s, items, id=id_)
        s.do("bury", id=id_)
    s.send(id=["k", "l", "k"])
    s = case("ids that are not dead are passed over")
    _dead(s, k="ab")
    lease(s, "cd", id="l")
    lease(s, "ef", group="h", id="m")
    s.do("release", id="m")
    s.send(id=["l", "m", "x", "k", "y"])
    s = case("none of them is dead: the answer is remembered")
    lease(s, "cd", id="l")
    s.send(id=["l", "x"])
    s.send(id=["l", "x"])
    s = case("no ids: nothing is remembered")
    _dead(s, k="ab")
    s.send(id=[])
    s.send(id=["k"])
    s = case("a busy group is not offered")
    _dead(s, k="ab")
    lease(s, "cd", group="a", ordered=1)
    s.send(id=["k"])
    s = case("a paused group is not offered")
    _dead(s, k="ab", l="cd")
    s.do("pause_group", group="a")
    s.send(id=["k", "l"])
    s = case("sent again with other ids, the answer is the first one")
    _dead(s, k="ab", l="cd")
    s.send(id=["k"])
    s.send(id=["k", "l"], now=NOW + 5)
    s = case("thousands of items keep their order")
    s.do("push", item=["a"] * 1000 + ["b"] * 1000 + ["c"] * 5)
    s.do("reserve", id="k", size=10_000)
    s.do("bury", id="k")
    s.send(id=["k"])
    for sizes, what in (
        ((1, REDRIVEN - 1500, 1000, 500), "exactly so many"), ((1, REDRIVEN - 1500, 1000, 501), "one more"),
        ((REDRIVEN, 1), "as many and one"), ((1, REDRIVEN), "one and as many"),
        ((REDRIVEN // 2, REDRIVEN // 2), "two halves"),
    ):  # fmt: skip
        s = case(f"at most so many items a call: {what}")
        for i, size in enumerate(sizes):
            s.do("push", item=["x"] * size, group=f"g{i}")
            s.do("reserve", id=f"d{i}", size=10_000)
            s.do("bury", id=f"d{i}", now=i)
        ids = [f"d{i}" for i in reversed(range(len(sizes)))]
        left = s.send(id=ids)[1]
        s.send(id=ids[:left], once="p")
    for last, answer in ((0, [1, 0]), (1, [1, 1])):
        meta, small = {"queue": "2 buffer"}, ["g", "1", "w", "", "y"]
        large = case.by_hand(
            f"a batch of more items than one call takes goes alone: {'the last' if not last else 'one of two'}",
            {
                "meta": meta,
                "dead": {"j": 1, "k": 2},
                "batch:j": small,
                "batch:k": ["g", "1", "w", "", *["x"] * (REDRIVEN + 1)],
            },
            {
                "meta": meta,
                "dead": {"j": 1},
                "batch:j": small,
                "items:g": ["x"] * (REDRIVEN + 1),
                "groups": {"g": REDRIVEN + 1},
                "since": {"g": NOW},
                "wake": ["1"],
                "once:o": f"1 {last}",
            },
            ttl={"once:o": MINUTE},
        )
        large.send(answer, id=["j", "k"][1 - last :])
    s = case("as many batches as one call takes")
    most = case.most("id")
    for i in range(1, most + 1):
        lease(s, "a", group="h", id=f"d{i}", now=i)
        s.do("bury", id=f"d{i}", now=i)
    s.send(id=[f"d{i}" for i in range(1, most + 1)])

    meta = {"queue": "2 buffer"}
    gone = case.by_hand(
        "the server evicted the batch: it is passed over",
        {"meta": meta, "dead": {"k": 1000}},
        {"meta": meta, "dead": {"k": 1000}, "once:o": "0 0"},
        ttl={"once:o": MINUTE},
    )
    gone.send([0, 0], id=["k"])


@script("buffer/discard")
def discard(case: Cases) -> None:
    derive(case, lambda s: _dead(s, k="ab", l="cd"), id=["k", "l"])

    s = case("the last ones: counters stay for seven days, a wake-up goes")
    _dead(s, k="ab", l="cd")
    s.awake()
    s.send(id=["k", "l"])
    for what, setup in KEEPING.items():
        s = case(f"all dead ones, but {what} is there")
        _dead(s, k="ab")
        if "dead" in what:
            _dead(s, m="cd")
        else:
            setup(s)
        s.awake()
        s.send(id=["k"])
    s = case("ids that are not dead are passed over, one that is given twice is counted once")
    _dead(s, k="ab", l="ef", m="gh")
    lease(s, "cd", id="n")
    s.send(id=["k", "n", "x", "", "k", "m"])
    s = case("none of them is dead: the answer is remembered")
    lease(s, "cd", id="l")
    s.send(id=["l", "x"])
    s.send(id=["l", "x"])
    s = case("no ids: nothing is remembered")
    _dead(s, k="ab")
    s.send(id=[])
    s.send(id=["k"])
    s = case("sent again with other ids, the answer is the first one")
    _dead(s, k="ab", l="cd")
    s.send(id=["k"])
    s.send(id=["k", "l"])
    s = case("as many batches as one call takes")
    for i in range(1, case.most("id") + 1):
        lease(s, "a", group="h", id=f"d{i}", now=i)
        s.do("bury", id=f"d{i}", now=i)
    s.send(id=[f"d{i}" for i in range(1, case.most("id") + 1)])
