"""reserve of a priority queue."""

from __future__ import annotations

from typing import Any

from tests.model import Member

from .derived import by_type, derive
from .priority_push import DUE, dead, delayed, everywhere, lease, ready, tried
from .rates import rated
from .scenario import NOW, Cases, Scenario, script

MINUTE = 60_000


@script("priority/reserve", id="m")
def reserve(case: Cases) -> None:
    def some(s: Scenario) -> None:
        dead(s, x=1, y=2)
        delayed(s, delay=0, attempts=True, a=5)
        ready(s, d=6)

    def expired(s: Scenario) -> None:
        lease(s, b=3, c=4)
        s.do("push", item=[(2, "c")])
        ready(s, d=6)

    derive(
        case,
        some,
        reads=["payloads", "paused", "delayed", "dead"],
        unread=["ended:m", "lease:m"],  # the lease of that id is over
        id="m",
        max_attempts=1,
        max_dead=1,
        rates=[(5, 1000)],
        highest={"order": "score"},
    )
    by_type(
        case,
        expired,
        reads=["again"],
        unread=["ended:l", "ended:m", "lease:m"],
        title=": a lease ran out",
        id="m",
        now=300_000,
    )
    by_type(case, lambda s: ready(s, a=1, b=2), only=["rows", "payloads"], title=": nothing is due")
    _handing_out(case)
    _sent_again(case)
    _expired(case)
    _promotion(case)
    _nothing(case)
    _pauses(case)
    rated(case, lambda s: ready(s, **{x: i for i, x in enumerate("abcdefghij")}), lease=10**9)
    s = case("a rate that is closed ends no lease and promotes nobody")
    delayed(s, delay=0, attempts=True, a=5)
    lease(s, b=3)
    s.send(id="n", size=1, rates=[(1, 900_000)])
    s.send(size=1, rates=[(1, 900_000)], now=400_000)
    s = case("what was handed out is given again while a rate is closed")
    ready(s, a=1, b=2)
    s.send(size=1, rates=[(1, 100_000)])
    s.send(size=1, rates=[(1, 100_000)])
    s = case("nothing is there: nothing is charged")
    s.send(rates=[(1, 100_000)])
    _wake_ups(case)


def _handing_out(case: Cases) -> None:
    for order in ("score", "fifo"):
        s = case(f"the most urgent first: {order}", order=order)
        ready(s, a=7, b=-3, c=5, d=5)
        s.send(size=3, holder="w:1")
    s = case("equal scores: the lesser name first")
    ready(s, b=1, a=1, c=1)
    s.send(size=2)
    s = case("all of them")
    ready(s, a=1, b=2)
    s.send(size=2)
    s = case("scores of any size")
    s.do("push", item=[(2.0**53, "a"), (-2.5, "b"), (1e15, "d"), (1.5, "e")])
    s.send()
    s = case("any bytes, the empty member too")
    s.do("push", item=[(1, b"\xff", b"\xfe"), (2, "", "")])
    s.send(holder=b"\xfd \x00")
    s = case("a plain sorted set is taken as it is, in score order")
    s.model.members = {b"a": Member("ready", 5.0), b"b": Member("ready", 7.0)}
    s.send(size=1)
    s = case("attempts, reasons and payloads of those that are handed out")
    tried(s, a=5, b=6)
    s.do("push", item=[(7, "c", "payload")])
    ready(s, d=8)
    s.send()
    s = case("attempts of others only")
    delayed(s, attempts=True, b=2)
    ready(s, a=1)
    s.send()
    s = case("payloads of others only")
    ready(s, a=1)
    s.do("push", item=[(7, "c", "payload")])
    s.send(size=1)
    s.send(size=1, id="n")
    for most, what in (
        (1, "one at least"),
        (8, "just one"),
        (9, "two, payloads included"),
        (10, "all but one"),
        (11, "all"),
    ):
        s = case(f"at most so many bytes: {what}")
        s.do("push", item=[(1, "a", ""), (2, "bbbb", "pppp"), (3, "cc", "")])
        s.send(max_bytes=most)
    s = case("at most so many bytes, and at most two members")
    ready(s, aaa=1, bb=2, c=3)
    s.send(max_bytes=3, size=2)
    s = case("at most so many bytes, nothing has a payload")
    ready(s, aaa=1, bb=2, c=3)
    s.send(max_bytes=5)
    s = case("at most so many bytes, but not as many members")
    ready(s, aaa=1, bb=2, c=3)
    s.send(max_bytes=50, size=2)
    s = case("at most so many bytes: the first member has more")
    ready(s, aaa=1, b=2)
    s.send(max_bytes=1)
    s = case("at most so many bytes of nothing")
    s.send(max_bytes=5)
    s = case("500 members at once")
    s.do("push", item=[(i, f"m{i}") for i in range(1, 502)])
    s.send(size=500)


def _sent_again(case: Cases) -> None:
    s = case("sent again while it is held, though more wait")
    ready(s, a=1, b=2)
    s.send(size=1)
    s.send(size=1, now=NOW + 5)
    s.send(size=2, holder="other", now=NOW + 29_999)
    s = case("sent again: payloads are those of now, attempts those of before")
    tried(s, a=5)
    s.do("push", item=[(6, "b", "old"), (7, "c", "p")])
    s.send(size=2)
    s.send_other("push", item=[(9, "b", "new")])
    s.send(size=2)
    s = case("sent again: what was removed meanwhile is handed out once more")
    s.do("push", item=[(6, "a", "p"), (7, "b", "p")])
    s.send()
    s.send_other("remove", member=["a"], once="p")
    s.send()
    s = case("sent again after its lease ran out, it is held until another reserve finds it")
    ready(s, a=1)
    s.send()
    s.send(now=NOW + 30_001)
    for how in ("ack", "release", "bury"):
        s = case(f"sent again after {how}: it has ended")
        lease(s, a=1)
        s.do(how, window=MINUTE)
        ready(s, b=1)
        s.send(id="l")
    s = case("sent again after another reserve found that it ran out: it has ended")
    lease(s, a=1)
    s.send(now=300_000)
    s.send(id="l", now=300_000)
    s = case("sent again when its end is no longer remembered: a new try")
    lease(s, a=1)
    s.do("ack")
    ready(s, b=1)
    s.send(id="l")
    s = case("one that handed out nothing is a new try")
    s.send()
    s.send_other("push", item=[(1, "a")])
    s.send()


def reserves(s: Scenario, **values: Any) -> None:
    """Reserve, and once more if the reply says to call again at once."""
    answer = s.send(**values)
    if answer[:2] == [b"none", 0]:
        s.send(**values)


def _expired(case: Cases) -> None:
    s = case(
        "a lease that ran out: its members are handed out again, the reason names its holder, its end is remembered"
    )
    ready(s, a=5, b=6)
    s.do("reserve", holder="w:1", now=1000)
    reserves(s)
    s = case("a lease that runs out just now, and one that does in a moment")
    ready(s, a=5, b=6)
    s.do("reserve", size=1, now=NOW - 30_000)
    s.do("reserve", size=1, id="k", now=NOW - 29_999)
    reserves(s)
    s = case("a lease that ran out, and nothing is remembered")
    ready(s, a=5)
    s.do("reserve", now=1000)
    reserves(s, window=0)
    s = case("a lease that ran out after an earlier attempt")
    lease(s, id="k", a=5)
    s.do("release", id="k", now=1000)
    s.do("reserve", now=2000)
    reserves(s)
    s = case("members of a lease that ran out were pushed meanwhile, or removed, or both")
    members = ("kept", "lower", "higher", "later", "set", "set later", "removed", "removed, pushed")
    s.do("push", item=[(5, member, f"p {member}") for member in members], now=1000)
    s.do("reserve", now=1000)
    s.do("push", item=[(4, "lower")])
    s.do("push", item=[(6, "higher")])
    s.do("push", item=[(4, "later")], delay=DUE)
    s.do("push", item=[(6, "set")], how="set")
    s.do("push", item=[(6, "set later")], how="set", delay=DUE)
    s.do("remove", member=["removed", "removed, pushed"])
    s.do("push", item=[(7, "removed, pushed")], delay=DUE)
    reserves(s, size=3)
    s = case("all members of a lease that ran out were removed: the queue is empty", order="fifo")
    lease(s, a=5)
    s.do("release", now=1000)
    s.do("reserve", now=1000, lease=200_000)
    s.do("remove", member=["a"])
    s.awake()
    reserves(s, now=300_000)
    s = case("all members of one lease that ran out were removed, another one is there")
    lease(s, a=5)
    s.do("remove", member=["a"])
    lease(s, id="k", b=5)
    reserves(s, now=300_000)
    for sizes, what in (((60, 41), "101"), ((60, 40, 1), "100, and one more"), ((150, 1), "150, and one more")):
        s = case(f"leases end until a hundred members were found: {what}")
        for i, size in enumerate(sizes):
            s.do("push", item=[(j, f"{'abc'[i]}{j}") for j in range(1, size + 1)], now=1000)
            s.do("reserve", size=500, id=f"k{i}", now=1000 + i)
        s.send(size=500)
    s = case("a hundred leases that ran out end a call, the earliest first")
    for i in range(1, 103):
        ready(s, **{f"m{i}": i})
        s.do("reserve", id=f"k{i}", size=1, now=1000 + i, lease=1000)
    reserves(s, size=500, now=2200)
    reserves(s, size=500, id="n", now=2201)

    meta = {"queue": "2 score"}
    lost = case.by_hand(
        "the server evicted the list of a lease that ran out",
        {"meta": meta, "leases": {"k": 1000}, "ready": {"a": 1}},
        {
            "meta": meta, "ended:k": "lost", "held": {"a"}, "lease:m": ["w", "a", "1"], "leases": {"m": NOW + 30_000},
        },
        ttl={"ended:k": MINUTE},
        id="m",
    )  # fmt: skip
    lost.send(["none", 0, []])
    lost.send(["batch", NOW + 30_000, ["a", "1"], [], [], []])


def _promotion(case: Cases) -> None:
    s = case("due members are promoted, others are not")
    delayed(s, delay=0, attempts=True, a=5)
    delayed(s, delay=1, b=1)
    ready(s, c=6)
    s.send()
    s = case("members that have used their attempts are dead, others are handed out")
    delayed(s, delay=0, attempts=True, a=5, b=6)
    delayed(s, delay=1, c=1)
    ready(s, d=7)
    s.send(max_attempts=1)
    s = case("all that is due has used its attempts")
    delayed(s, delay=0, attempts=True, a=5, b=6)
    s.send(max_attempts=1)
    s.send(max_attempts=1)
    s = case("a lease that ran out with the attempts of its members used up")
    lease(s, a=5, b=6)
    s.do("push", item=[(9, "b")])
    reserves(s, now=300_000, max_attempts=1)
    for attempts in (1, 2, 3):
        s = case(f"two attempts of at most {attempts}")
        lease(s, id="k", a=5)
        s.do("release", id="k", now=1000, reason="first")
        s.do("reserve", id="k", now=2000)
        s.do("release", id="k", now=2000, reason="second")
        s.send(max_attempts=attempts)
    s = case("more members have used their attempts than one call buries: ask again at once")
    s.do("push", item=[(i, f"m{i}") for i in range(1, 102)], now=1000)
    s.do("reserve", size=101, now=1000)
    s.do("release", now=1000, reason="boom")
    s.send(max_attempts=1)
    s = case("attempts of members that are ready are no matter of it")
    tried(s, a=5)
    s.send(max_attempts=1)
    s = case("given back uncounted")
    lease(s, a=5)
    s.do("release", attempt="forget", reason="429")
    s.send(max_attempts=1)
    for count, max_dead in ((2, 2), (2, 3), (1, 1), (3, 1), (14, 1), (15, 3), (15, 0)):
        s = case(f"{count} are dead, max_dead {max_dead}, two more die: at most twelve of the oldest go")
        for i in range(1, count + 1):
            s.do("push", item=[(1, f"d{i}", "p")])
            lease(s, id="k", **{f"d{i}": 1})
            s.do("bury", id="k", now=1000 + i)
        delayed(s, delay=0, attempts=True, a=5, b=6)
        s.send(max_attempts=1, max_dead=max_dead)
    s = case("more are dead than are kept, but nobody dies")
    for i in range(1, 4):
        dead(s, now=1000 + i, **{f"d{i}": 1})
    delayed(s, delay=0, attempts=True, a=5)
    s.send(max_dead=1)
    s = case("a hundred due members are promoted a call, the earliest first")
    for i in range(1, 103):
        s.do("push", item=[(i if i <= 100 else -i, f"m{i}")], delay=i, now=1000)
    s.send(size=500)
    s.send(size=500, id="n")
    s = case("40 members of a lease that ran out, and as many that were tried before")
    s.do("push", item=[(i, f"m{i}") for i in range(1, 41)])
    s.do("reserve", size=40, lease=1, now=1000)
    reserves(s, size=500)
    s = case("rows of members that start afresh go when they are promoted")
    delayed(s, delay=1, a=1, b=2)
    s.send(now=NOW + 1)

    meta = {"queue": "2 score"}
    lost = case.by_hand(
        "the server evicted the rows: score 0, no attempts",
        {"meta": meta, "delayed": {"a": 1000}},
        {"meta": meta, "held": {"a"}, "lease:m": ["w", "a", "0"], "leases": {"m": NOW + 30_000}},
        id="m",
    )
    lost.send(["batch", NOW + 30_000, ["a", "0"], [], [], []], max_attempts=1)


def _nothing(case: Cases) -> None:
    s = case("an empty queue: ask again within a lease")
    s.send(lease=7000)
    s = case("nothing is ready: ask again when the first lease runs out")
    ready(s, a=1)
    s.do("reserve", now=NOW - 10_000)
    s.send(lease=25_000)
    s = case("nothing is ready: ask again when the first of two leases runs out")
    ready(s, a=1, b=2)
    s.do("reserve", size=1, now=NOW - 5000)
    s.do("reserve", size=1, id="k", now=NOW - 10_000)
    s.send()
    s = case("ask again within a lease, though the first one runs out later")
    ready(s, a=1)
    s.do("reserve", now=NOW - 10_000)
    s.send(lease=15_000)
    s = case("ask again when the first delayed member is due")
    delayed(s, a=1)
    delayed(s, delay=DUE + 1, b=1)
    lease(s, c=1)
    s.send()
    s = case("dead members are not due")
    dead(s, a=1)
    s.send()
    s = case("members in every state, and nothing is ready")
    everywhere(s)
    s.send(size=2)
    s.send(id="n")


def _pauses(case: Cases) -> None:
    for name, time, after in (
        ("until it is resumed", 0, 0), ("for a time", 20_000, 1000), ("for long", MINUTE, 1000),
        ("no longer", MINUTE, MINUTE),
    ):  # fmt: skip
        s = case(f"the queue is paused {name}")
        ready(s, a=1)
        s.do("pause", duration=time, reason="why not")
        s.send(now=NOW + after)
    first = case.by_hand(
        "the queue is paused until the first ms there was", {"paused": "1 x"}, given_ttl={"paused": 60_000}
    )
    first.send(["none", 1, []], now=0, id="m")
    s = case("what is held is given again while the queue is paused")
    lease(s, a=1)
    s.do("pause", reason="x")
    s.send(id="l")
    s = case("a paused queue ends no lease and promotes nobody")
    lease(s, a=1)
    delayed(s, delay=0, attempts=True, b=5)
    s.do("pause")
    s.send(now=300_000, max_attempts=1)


def _wake_ups(case: Cases) -> None:
    s = case("a wake-up for the next client: members are left")
    ready(s, a=1, b=2)
    s.send(size=1)
    s = case("no wake-up for the next client: one lies there")
    ready(s, a=1, b=2)
    s.awake()
    s.send(size=1)
    s = case("no wake-up for the next client: nothing is left")
    ready(s, a=1)
    s.send()
    s = case("a wake-up for the next client: something is delayed")
    ready(s, a=1)
    delayed(s, b=1)
    s.send()
    s = case("no wake-up for the next client: others are held")
    lease(s, a=1)
    ready(s, b=1)
    s.send()
    s = case("no wake-up for the next client: others are dead")
    dead(s, a=1)
    ready(s, b=1)
    s.send()
    s = case("a wake-up for the next client: more leases ran out than one call ends")
    for i, x in enumerate("ab"):
        s.do("push", item=[(j, f"{x}{j}") for j in range(1, 101)], now=1000)
        s.do("reserve", size=500, id=f"k{i}", now=1000 + i)
    reserves(s, size=500)
