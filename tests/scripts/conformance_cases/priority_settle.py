"""Settling and extending leases of a priority queue: ack, release, bury, extend; and dead members: redrive, discard."""

from __future__ import annotations

from .derived import derive
from .priority_push import DUE, KEEPING, dead, delayed, everywhere, lease, ready, tried
from .scenario import NOW, Cases, Scenario, script

LATER = NOW + 900_000
MINUTE = 60_000


def _no_lease(case: Cases, other: str, **args: object) -> None:
    """Add the ways in which a lease can be over."""
    own = case.script.split("/")[1]
    given = {"meta": {"queue": "2 score"}, "lease:l": ["w", "a", "5"], "held": {"a"}, "payloads": {"a": "p"}}
    case.by_hand("its list is there, but in no index", given).refuse("LEASELOST", **args)
    s = case("there never was such a lease")
    s.send(**args)
    for verb in ("ack", "release", "bury"):
        for window in (0, MINUTE) if verb != own else (0,):
            s = case(f"after {verb}{', which is remembered' if window else ''}")
            lease(s, a=1, b=2)
            s.do(verb, window=window)
            s.send(**args)
    for window in (0, MINUTE):
        s = case(f"after another reserve found that it ran out{', which is remembered' if window else ''}")
        lease(s, a=1, b=2)
        s.do("reserve", id="m", now=LATER, window=window)
        s.send(**args)
    s = case("after a purge")
    lease(s, a=1, b=2)
    s.do("purge")
    s.send(**args)
    s = case(f"the other answer that is remembered for its id is not {own}'s")
    lease(s, a=1, b=2)
    s.do(other, window=MINUTE)
    s.send(**args)
    s.send(**args)
    s = case("a lease that ran out is held until a reserve finds it")
    lease(s, a=1, b=2)
    s.send(**args, now=LATER)


MEMBERS = ("higher", "later", "lower", "payload", "plain", "removed", "removed, pushed", "set", "set later", "tried")


def noted(s: Scenario) -> None:
    """Lease members: one with a payload, one after an attempt, others that were pushed or removed meanwhile."""
    tried(s, tried=5)
    payload = {"payload", "lower", "removed", "removed, pushed"}
    items = [(5, member, f"p {member}") for member in MEMBERS if member in payload]
    s.do("push", item=[(5, member) for member in MEMBERS if member not in payload and member != "tried"], now=1000)
    s.do("push", item=items, now=1000)
    taken = s.do("reserve", now=1000, lease=200_000)
    assert len(taken[2]) == 20
    s.do("push", item=[(4, "lower")])
    s.do("push", item=[(6, "higher")])
    s.do("push", item=[(4, "later")], delay=DUE)
    s.do("push", item=[(6, "set")], how="set")
    s.do("push", item=[(6, "set later")], how="set", delay=DUE)
    s.do("remove", member=["removed", "removed, pushed"])
    s.do("push", item=[(7, "removed, pushed")], delay=DUE)


def _place(s: Scenario, member: str) -> int:
    return [name for name, _ in s.model.leases[b"l"].members].index(member.encode())


def _ends(case: Cases) -> None:
    """Add what all calls that end a lease have in common."""
    s = case("members that were pushed or removed meanwhile")
    noted(s)
    s.send()
    s = case("members of other leases are none of it")
    noted(s)
    lease(s, id="k", x=1)
    s.do("push", item=[(0, "x")])
    s.send(id="k")
    s = case("all were removed meanwhile: the queue is empty, a wake-up goes", order="fifo")
    lease(s, a=1, b=2)
    s.do("remove", member=["a", "b"])
    s.awake()
    s.send()
    s = case("all were removed meanwhile, another one is there")
    dead(s, x=1)
    lease(s, a=1, b=2)
    s.do("remove", member=["a", "b"])
    s.send()
    s = case("there is no such lease, but another one with pushes, removals, rows and payloads")
    noted(s)
    s.send(id="k")
    s = case("all were pushed meanwhile")
    lease(s, a=1, b=2)
    s.do("push", item=[(3, "a"), (4, "b")])
    s.send()
    s = case("some were pushed meanwhile; a wake-up that lies there is enough")
    lease(s, a=1, b=2)
    s.do("push", item=[(3, "a")])
    s.awake()
    s.send()
    s = case("fifo: scores as they were", order="fifo")
    lease(s, a=1, b=-2)
    s.do("push", item=[(1, "a")])
    s.send()
    s = case("any bytes, the empty member too")
    s.do("push", item=[(1, b"\xff", b"\xfe"), (2, "", ""), (3, "a b")])
    s.do("reserve", id=b"\xfd \x00")
    s.do("push", item=[(0, "")])
    s.send(id=b"\xfd \x00")
    s = case("40 members, all pushed meanwhile")
    s.do("push", item=[(i, f"m{i}") for i in range(1, 41)], now=1000)
    s.do("reserve", size=500, now=1000)
    s.do("push", item=[(i, f"m{i}") for i in range(1, 41)], delay=DUE)
    s.send()


@script("priority/ack")
def ack(case: Cases) -> None:
    derive(case, noted, failed=[(MEMBERS.index("plain"), "boom")], delay=DUE)
    s = case("places that are no numbers, or twice, or not there")
    lease(s, a=1, b=2, c=3)
    for place in ("x", "-1", "1.5", "", "1e0", " 1"):
        s.refuse("BADARG", failed=[(place, "boom")])
    s.send(failed=[(3, "boom")])
    s.send(failed=[(0, "boom"), (1, "x"), (0, "boom")])
    s.send(failed=[(0, "boom"), (1, "x"), (2, ""), (3, "x")])
    s.refuse("BADARG", failed=[(0, "boom"), (1,)])
    _no_lease(case, "release")
    _ends(case)

    s = case("all members are done")
    lease(s, a=1, b=2)
    ready(s, c=3)
    s.send()
    s = case("the last ones: counters stay for seven days, places start anew, a wake-up goes", order="fifo")
    lease(s, a=1, b=2)
    s.awake()
    s.send()
    for what, setup in KEEPING.items():
        s = case(f"all are done, but {what} is there", order="fifo")
        setup(s)
        lease(s, a=1) if what != "another member" else None
        if what == "another member":
            s.do("pop")
            lease(s, a=1)
            ready(s, x=99)
        s.awake()
        s.send()
    s = case("attempts, reason and payload of a member that is done are forgotten")
    tried(s, a=5, b=5)
    s.do("push", item=[(6, "c", "p"), (7, "d", "q")])
    s.do("reserve", size=3)
    s.send()
    for failed in ([0], [2], [2, 0], [0, 1, 2]):
        s = case(f"members at {failed} failed: they come back")
        lease(s, a=5, b=6, c=7)
        s.send(failed=[(place, f"boom {place}") for place in failed])
    s = case("members that failed come back later; a wake-up that lies there is enough")
    lease(s, a=5, b=6)
    s.awake()
    s.send(failed=[(1, "boom")], delay=DUE)
    s = case("a member that failed again, without a reason")
    tried(s, a=5)
    s.do("reserve")
    s.send(failed=[(0, "")])
    s = case("of a reason the first 1000 bytes are kept")
    lease(s, a=5)
    s.send(failed=[(0, "x" * 999 + "yz")])
    for delay in (0, DUE - 1, DUE + 1):
        s = case(f"members that were pushed or removed meanwhile failed, in {delay} ms")
        noted(s)
        s.send(failed=[(place, "boom") for place in range(10)], delay=delay)
    s = case("one that failed was removed meanwhile")
    noted(s)
    s.send(failed=[(_place(s, "removed"), "boom")])
    s = case("one failed, others were pushed meanwhile")
    noted(s)
    s.send(failed=[(_place(s, "tried"), "boom")])
    s = case("sent again with other arguments, the answer is the first one")
    lease(s, a=5, b=6)
    s.send(failed=[(1, "boom")])
    s.send(failed=[(0, "boom"), (1, "boom")], now=NOW + 5)
    s.send(failed=[(7, "boom")])
    s = case("500 members, all of which failed")
    s.do("push", item=[(i, f"m{i}") for i in range(1, 501)], now=1000)
    s.do("reserve", size=500)
    s.send(failed=[(i, "x") for i in range(500)])


@script("priority/release")
def release(case: Cases) -> None:
    derive(case, noted, reason="boom", delay=DUE - 1)
    _no_lease(case, "ack")
    _ends(case)

    s = case("due at once; a client that waits is woken")
    lease(s, a=5, b=6)
    s.send()
    s = case("due later; a wake-up that lies there is enough")
    lease(s, a=5, b=6)
    s.awake()
    s.send(delay=DUE)
    for attempt in ("count", "forget"):
        for reason in ("", "second"):
            s = case(f"{attempt}, {'without a' if not reason else 'with another'} reason, after an earlier attempt")
            tried(s, a=5)
            ready(s, b=6)
            s.do("reserve")
            s.send(attempt=attempt, reason=reason)
            s = case(f"{attempt}, {'without a' if not reason else 'with another'} reason, pushed or removed meanwhile")
            noted(s)
            s.send(attempt=attempt, reason=reason)
    for delay in (DUE, DUE + 1):
        s = case(f"members that were pushed or removed meanwhile, in {delay} ms")
        noted(s)
        s.send(delay=delay)
    s = case("of a reason the first 1000 bytes are kept")
    lease(s, a=5)
    s.send(reason="x" * 999 + "yz")
    s = case("it buries nobody, however many attempts there were")
    tried(s, a=5)
    s.do("reserve")
    s.send()
    s = case("sent again with other arguments, the answer is the first one")
    lease(s, a=5)
    s.send()
    s.send(delay=500, now=NOW + 5)


@script("priority/bury")
def bury(case: Cases) -> None:
    def some(s: Scenario) -> None:
        dead(s, x=1)
        noted(s)

    derive(case, some, reason="boom", max_dead=1)
    _no_lease(case, "ack")
    _ends(case)

    s = case("the members are dead")
    lease(s, a=5, b=6)
    s.send()
    s = case("without a reason the one that is there stays")
    tried(s, a=5)
    ready(s, b=6)
    s.do("reserve")
    s.send()
    s = case("with another reason")
    tried(s, a=5)
    s.do("reserve")
    s.send(reason="second")
    s = case("of a reason the first 1000 bytes are kept")
    lease(s, a=5)
    s.send(reason="x" * 999 + "yz")
    s = case("payloads stay")
    s.do("push", item=[(5, "a", "p")])
    s.do("reserve")
    s.send()
    for count, max_dead in ((2, 2), (2, 3), (1, 1), (3, 1), (14, 1), (15, 3), (15, 0)):
        s = case(f"{count} are dead, max_dead {max_dead}, two more die: at most twelve of the oldest go")
        for i in range(1, count + 1):
            s.do("push", item=[(1, f"d{i}", "p")])
            lease(s, id="k", **{f"d{i}": 1})
            s.do("bury", id="k", now=1000 + i)
        lease(s, a=5, b=6)
        s.send(max_dead=max_dead)
    s = case("more die than are kept: those with the greater names stay")
    lease(s, a=1, b=2, c=3)
    s.send(max_dead=2)
    s = case("more are dead than are kept, but nobody dies")
    for i in range(1, 4):
        dead(s, now=1000 + i, **{f"d{i}": 1})
    lease(s, a=5)
    s.do("push", item=[(3, "a")])
    s.send(max_dead=1)
    s = case("sent again with other arguments, the answer is the first one")
    lease(s, a=5)
    s.send()
    s.send(reason="other", now=NOW + 5)


@script("priority/extend")
def extend(case: Cases) -> None:
    derive(case, lambda s: lease(s, a=1), lease=300_000)
    for how in ("ack", "release", "bury"):
        s = case(f"after {how}")
        lease(s, a=1)
        s.do(how)
        s.send()
    s = case("after another reserve found that it ran out")
    lease(s, a=1)
    s.do("reserve", id="m", now=300_000)
    s.send()
    s = case("there never was such a lease")
    s.send()
    for more in (100_999, 101_000, 101_001):
        s = case(f"until {NOW + more}, it is 201000 now")
        lease(s, a=1)
        s.send(lease=more)
    s = case("a lease that ran out is held until a reserve finds it")
    lease(s, a=1)
    s.send(now=LATER)
    s = case("any bytes in its id")
    ready(s, a=1)
    s.do("reserve", id=b"\xff \x00")
    s.send(id=b"\xff \x00", lease=MINUTE)


def _by_member(case: Cases) -> None:
    """Add what the calls that name dead members have in common."""
    for member, where in (
        ("a", "ready"), ("b", "ready, with a payload"), ("c", "delayed"), ("d", "dead"), ("e", "leased"),
        ("f", "leased and pushed"), ("g", "removed"), ("h", "not there"),
    ):  # fmt: skip
        s = case(f"a member that is {where}")
        everywhere(s)
        s.send(member=[member])
    s = case("one that is given twice is counted once, others are passed over")
    everywhere(s)
    s.send(member=list("abcdefgh") * 2)
    s = case("none of them is dead: the answer is remembered")
    delayed(s, a=1)
    s.send(member=["a", "x"])
    s.send(member=["a", "x"])
    s = case("no members: nothing is remembered")
    dead(s, a=1)
    s.send(member=[])
    s.send(member=["a"])
    s = case("sent again with other members, the answer is the first one")
    dead(s, a=1, b=2)
    s.send(member=["a"])
    s.send(member=["a", "b"])
    s = case("any bytes, the empty member too")
    s.do("push", item=[(1, b"\xff", b"\xfe"), (2, "", "p")])
    s.do("reserve")
    s.do("bury", reason=b"\xfd")
    s.send(member=[b"\xff", ""])
    most = case.most("member")
    s = case("as many members as one call takes")
    dead(s, **{"m1": 1, "m70": 2, f"m{most}": 3, "x": 4})
    s.send(member=[f"m{i}" for i in range(1, most + 1)])


@script("priority/redrive")
def redrive(case: Cases) -> None:
    derive(case, everywhere, member=list("abcdefgh"))
    _by_member(case)
    s = case("ready again with their scores, attempts and reason are forgotten, payloads stay")
    s.do("push", item=[(5, "a", "p")])
    ready(s, b=6)
    s.do("reserve")
    s.do("bury", reason="bad")
    s.send(member=["a", "b"])
    s = case("a wake-up that lies there is enough")
    dead(s, a=1)
    s.awake()
    s.send(member=["a"])
    s = case("fifo: places as they were", order="fifo")
    dead(s, a=1)
    ready(s, b=1)
    s.send(member=["a"])

    meta = {"queue": "2 score"}
    lost = case.by_hand(
        "the server evicted the rows: score 0",
        {"meta": meta, "dead": {"a": 1000}},
        {"meta": meta, "ready": {"a": 0}, "wake": ["1"], "once:o": "1"},
        ttl={"once:o": MINUTE},
    )
    lost.send(1, member=["a"])


@script("priority/discard")
def discard(case: Cases) -> None:
    derive(case, everywhere, reads=["payloads"], member=list("abcdefgh"))
    _by_member(case)
    s = case("the last ones: counters stay for seven days, places start anew, a wake-up goes", order="fifo")
    dead(s, a=1, b=2)
    s.awake()
    s.send(member=["a", "b"])
    for what, setup in KEEPING.items():
        s = case(f"all dead ones, but {what} is there", order="fifo")
        dead(s, a=1)
        if "dead" in what:
            dead(s, x=1)
        else:
            setup(s)
        s.awake()
        s.send(member=["a"])
    s = case("nobody of an empty queue")
    s.send(member=["a"])
