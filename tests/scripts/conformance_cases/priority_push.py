"""Members that are added and removed without a lease: push, pop, remove; and their state."""

from __future__ import annotations

from tests.model import Member

from .derived import by_type, derive
from .form import CLOCK
from .scenario import NOW, Cases, Scenario, Setup, script

DUE = 5000
"""a delay: until NOW + DUE"""


def ready(s: Scenario, **members: float) -> Scenario:
    """Push members with their priorities."""
    s.do("push", item=[(priority, member) for member, priority in members.items()], now=1000)
    return s


def lease(s: Scenario, id: str = "l", **members: float) -> Scenario:  # noqa: A002
    """Push members with their priorities and lease them; no other member may be ready."""
    others = {name: member for name, member in s.model.members.items() if member.state == "ready"}
    for name in others:
        del s.model.members[name]
    ready(s, **members)
    taken = s.do("reserve", id=id, size=len(members), now=1000, lease=200_000)
    assert set(taken[2][::2]) == {member.encode() for member in members}, "something else was due"
    s.model.members |= others
    return s


def delayed(s: Scenario, delay: int = DUE, attempts: bool = False, **members: float) -> Scenario:
    """Push members that are due later, or that come back after a failed attempt."""
    if attempts:
        lease(s, id="k", **members)
        s.do("release", id="k", delay=delay, reason="boom")
    else:
        s.do("push", item=[(priority, member) for member, priority in members.items()], delay=delay)
    return s


def dead(s: Scenario, now: int = 2000, **members: float) -> Scenario:
    """Push members and bury them."""
    lease(s, id="k", **members)
    s.do("bury", id="k", now=now, reason="bad")
    return s


def tried(s: Scenario, **members: float) -> Scenario:
    """Make members ready after a failed attempt."""
    delayed(s, delay=0, attempts=True, **members)
    s.model._promote(NOW)
    return s


KEEPING: dict[str, Setup] = {
    "another member": lambda s: ready(s, x=99),
    "a leased member": lambda s: lease(s, id="x", x=99),
    "a delayed member": lambda s: delayed(s, x=99),
    "a dead member": lambda s: dead(s, x=99),
}
"""what keeps a queue whose last member is taken, and how to create it"""


def everywhere(s: Scenario) -> Scenario:
    """Create members in every state: a to h."""
    dead(s, d=4)
    lease(s, e=5, f=6, g=7)
    s.do("push", item=[(1, "f")], delay=DUE)
    s.do("remove", member=["g"])
    delayed(s, attempts=True, c=3)
    ready(s, a=1)
    s.do("push", item=[(2, "b", "pb")])
    return s


@script("priority/push")
def push(case: Cases) -> None:
    derive(
        case,
        everywhere,
        item=[(9, x, f"p{x}") for x in "abcdefgh"],
        delay=DUE,
        highest={"fields": 3},
        lowest={"item": [(9, x) for x in "abcdefgh"]},
    )
    _plain(case)
    _fifo(case)
    _refused(case)
    _states(case)
    _payloads(case)


def _plain(case: Cases) -> None:
    for order in ("score", "fifo"):
        s = case(f"the first member of a queue: {order}", order=order)
        s.send(item=[(5, "a")])
        s = case(f"several members, behind and before those that are there: {order}", order=order)
        ready(s, m=5)
        s.send(item=[(7, "a"), (-3, "b"), (5, "c")])
        s = case(f"members that are ready: raised or kept: {order}", order=order)
        ready(s, a=5, b=5, c=5, d=5)
        s.send(item=[(4, "a"), (5, "b"), (6, "c"), (1, "x")])
        s = case(f"set: raised, kept or changed: {order}", order=order)
        ready(s, a=5, b=5, c=5, d=5)
        s.send(item=[(4, "a"), (5, "b"), (6, "c"), (1, "x")], how="set")
        s = case(f"no members: {order}", order=order)
        ready(s, a=5)
        s.send(item=[])
    for order in ("score", "fifo"):
        for priority in (4, 5, 6):
            s = case(f"one member that is there: {priority} for 5, {order}", order=order)
            ready(s, a=5, b=5)
            s.send(item=[(priority, "b")])
    s = case("no members for an empty queue")
    s.send(item=[])
    s = case("due in a ms")
    s.send(item=[(5, "a")], delay=1)
    for order in ("score", "fifo"):
        s = case(f"one member that is leased, nothing else is known of any: {order}", order=order)
        lease(s, a=5, b=6)
        s.send(item=[(4, "a")])
        s = case(f"members of which one is leased, nothing else is known of any: {order}", order=order)
        lease(s, a=5, b=6)
        s.send(item=[(4, "c"), (4, "a"), (7, "d")])
        s = case(f"a member that is not leased, others are: {order}", order=order)
        lease(s, a=5, b=6)
        s.send(item=[(4, "c")])
    s = case("a wake-up that lies there is enough")
    s.awake()
    s.send(item=[(5, "a")])
    s = case("a wake-up that lies there is enough, for a member with a payload too")
    s.awake()
    s.send(item=[(5, "a", "p")])
    s = case("sent again later, the answer is the first one")
    s.send(item=[(5, "a")])
    s.send_other("pop")
    s.send(item=[(4, "a")], now=NOW + 1)
    s.send(item=[(4, "a")], once="p", now=NOW + 2)
    s = case("an empty queue keeps its mark and counters for good again")
    lease(s, a=1)
    s.do("ack")
    s.send(item=[(5, "a")])
    s = case("a plain sorted set is taken as it is, in score order")
    s.model.members = {b"a": Member("ready", 5.0), b"b": Member("ready", 7.0)}
    s.send(item=[(4, "a"), (8, "b"), (6, "c")])
    s = case("any bytes, the empty member too")
    s.send(item=[(1, b"\xff\x00"), (1.5, ""), (-2.25, "a b"), (3, "- -")])
    s.send(item=[(1, b"\xff\x00", b"\xfe\x00"), (1.5, "", ""), (-2.25, "a b", " ")], once="p")
    s = case("scores: numbers of any size")
    s.send(item=[(1e300, "a"), (-1e-300, "b"), (0, "c"), (2.0**60, "d"), (-0.5, "e")])
    given = {"meta": {"queue": "2 score"}, "delayed": {"a": 200_000}, "rows": {"x": "1 1 boom"}, "dead": {"x": 5}}
    then = {**given, "ready": {"a": 7}, "wake": ["1"], "once:o": "R"}
    del then["delayed"]
    lost = case.by_hand("the server evicted the row of a delayed member", given, then, ttl={"once:o": 60_000})
    lost.send("R", item=[(7, "a")])
    s = case("a paused queue takes members")
    s.do("pause", duration=50_000)
    s.send(item=[(5, "a")])
    most = case.most("item")
    s = case("as many members as one call takes")
    ready(s, m500=3)
    s.send(item=[(i, f"m{i}") for i in range(1, most + 1)])
    s = case("as many members as one call takes, with payloads")
    s.send(item=[(i, f"m{i}", f"p{i}") for i in range(1, most + 1)])


def _fifo(case: Cases) -> None:
    s = case("fifo: of equal priorities who came first leaves first", order="fifo")
    s.send(item=[(5, "a"), (5, "b")])
    s.send(item=[(5, "c"), (4, "d")], once="p")
    s = case("fifo: priorities that change, and places that have another digit", order="fifo")
    s.do("push", item=[(0, "x")])
    s.model.sequence = 97
    s.send(item=[(priority, f"m{i}") for i, priority in enumerate((5, 4, 4, 5, 5, 4, 5))])
    s = case("fifo: hundreds of equal priorities", order="fifo")
    s.do("push", item=[(0, "x")])
    s.model.sequence = 950
    s.send(item=[(5, f"m{i}") for i in range(250)])
    s = case("fifo: the ends of the range", order="fifo")
    s.send(item=[(-1024, "a"), (1023, "b"), (0, "c"), (-1, "d")])
    s = case("fifo: who is pushed again keeps the better place", order="fifo")
    s.send(item=[(5, "a"), (5, "b")])
    s.send(item=[(5, "a"), (4, "b")], once="p")
    s = case("fifo: set gives a new place", order="fifo")
    s.send(item=[(5, "a"), (5, "b")])
    s.send(item=[(5, "a")], once="p", how="set")
    for sequence in (10**12 - 2, 10**12 - 1, 10**12, 2 * 10**12 - 1):
        s = case(f"fifo: places have twelve digits: {sequence} were given", order="fifo")
        s.do("push", item=[(0, "x")])
        s.model.sequence = sequence
        s.send(item=[(1, "a"), (1, "b")])
        s.send(item=[(1, "c"), (1, "x")], delay=DUE, once="p")
        for others in ((), ("y",)):
            for delay in (0, DUE):
                what = f"{len(others) + 1} pushed{' with a delay' if delay else ''}"
                s = case(f"fifo: a member that has the place before {sequence + 1}, {what}", order="fifo")
                s.do("push", item=[(0, "z")])
                s.model.sequence = sequence - 1
                s.do("push", item=[(1, "x")], delay=delay)
                s.send(item=[(1, member) for member in ("x", *others)], delay=delay)
        s = case(f"fifo: one place that has twelve digits: {sequence} were given", order="fifo")
        s.do("push", item=[(0, "x")])
        s.model.sequence = sequence
        s.send(item=[(1, "a")])
    s = case("fifo: in a queue that was drained places start anew", order="fifo")
    ready(s, a=1, b=1)
    s.do("pop")
    s.send(item=[(1, "a")])
    s = case("fifo: members in every state", order="fifo")
    everywhere(s)
    s.send(item=[(9, x) for x in "abcdefgh"])
    s = case("fifo: members in every state, lower", order="fifo")
    everywhere(s)
    s.send(item=[(0, x) for x in "abcdefgh"], delay=1)


def _refused(case: Cases) -> None:
    bad = case("priorities that are no finite numbers")
    for priority in (
        "x",
        "",
        "nan",
        "inf",
        "-inf",
        "1e400",
        "0x10",
        "1 ",
        " 1",
        "1..2",
        "--1",
        "infinity",
        "-nan",
        "1e",
        "+",
    ):
        bad.refuse("BADARG", item=[(1, "a"), (priority, "b")])
    bad.refuse("BADARG", item=[("x", "b", "p")])
    bad = case("priorities that fifo order does not have", order="fifo")
    for priority in ("-1025", "1024", "1.5", "-0.5", "1e9", "x"):
        bad.refuse("BADARG", item=[(1, "a"), (priority, "b")])
    fine = case("priorities that are written in other ways", order="fifo")
    fine.send(item=[("1e2", "a"), ("+5", "b"), ("-7.0", "c"), ("010", "d")])
    twice = case("a member that is given twice")
    ready(twice, a=5)
    twice.send(item=[(1, "a"), (2, "b"), (3, "a")])
    twice.send(item=[(1, "", "p"), (2, "", "q")])
    bad = case("payloads that are missing or left over")
    bad.refuse("BADARG", item=[("1", "a"), ("2",)])
    bad.refuse("BADARG", item=[("1", "a"), ("2", "b")], fields=3)
    bad.refuse("BADARG", item=[("1", "a", "p", "2")], fields=3)
    for more in ((), ("p",)):
        items = [(str(i), f"m{i}", *more) for i in range(1, case.most("item") + 2)]
        bad.refuse("BADARG", item=items, fields=len(items[0]))


def _states(case: Cases) -> None:
    """Push members in every state: lower, equal or higher, sooner, at the same time or later."""

    def every(s: Scenario) -> None:
        lease(s, id="k", **{"leased, tried": 5})
        s.do("release", id="k", now=1000, reason="boom")
        held = ["leased, pushed", "leased, pushed at once", "leased, set", "leased, removed", "removed, pushed"]
        scores = dict(zip(held, (7, 7, 3, 5, 5), strict=True))
        s.do("push", item=[(score, member) for member, score in {**scores, "leased": 5}.items()], now=1000)
        taken = s.do("reserve", now=1000, lease=200_000)
        assert len(taken[2]) == 14
        s.do("remove", member=held[3:])
        for member, how, delay in zip(held, ("min", "min", "set", "", "min"), (DUE, 0, DUE, 0, DUE), strict=True):
            if how:
                s.do("push", item=[(5, member)], how=how, delay=delay)
        dead(s, dead=5)
        for due, member in ((DUE, "delayed, tried"), (0, "ready, tried"), (0, "due")):
            lease(s, id="k", **{member: 5})
            s.do("release", id="k", delay=due, reason="boom")
            if member == "ready, tried":
                s.model._promote(NOW)
        ready(s, ready=5)
        delayed(s, delayed=5)

    every(probe := Scenario("priority/push", "", case.defaults))
    members = [*probe.model.members, "absent"]
    asked = [(priority, 0) for priority in (4, 5, 6)] + [(5, DUE + more) for more in (-1, 0, 1)]
    for how in ("min", "set"):
        for priority, delay in (*asked, (4, DUE + 1), (6, DUE - 1)):
            s = case(f"members in every state: {how} {priority}, {f'in {delay} ms' if delay else 'at once'}")
            every(s)
            s.send(item=[(priority, member) for member in members], how=how, delay=delay)


def _payloads(case: Cases) -> None:
    s = case("a payload, and members without one")
    s.send(item=[(1, "a", "p"), (2, "b", ""), (3, "c", "q")])
    s.send(item=[(1, "b"), (2, "c")], once="p")
    s = case("the newest payload wins, though the member is kept")
    s.do("push", item=[(1, "a", "old"), (1, "b", "old")])
    s.send(item=[(2, "a", "new"), (2, "b", "")])
    s = case("a payload of a member in every state")
    everywhere(s)
    s.send(item=[(9, x, f"p{x}") for x in "abcdefg"])
    s = case("a payload stays when a member is pushed without")
    for member in "abc":
        s.do("push", item=[(1, member, "p")])
    s.do("reserve", size=2)
    s.do("bury")
    s.send(item=[(1, member) for member in "abc"])


@script("priority/pop")
def pop(case: Cases) -> None:
    def some(s: Scenario) -> None:
        delayed(s, delay=0, attempts=True, a=5)
        s.do("push", item=[(7, "b", "p"), (9, "c", "q")])

    derive(case, some, reads=["delayed", "paused"], count=2)
    by_type(case, lambda s: ready(s, a=1, b=2), only=["rows", "payloads"], title=": nothing is due", count=1)
    for order in ("score", "fifo"):
        s = case(f"the most urgent first: {order}", order=order)
        ready(s, a=7, b=-3, c=5, d=5)
        s.send(count=3)
        s.send(count=3)
        s.send(count=3)
    s = case("equal scores: the lesser name first")
    ready(s, b=1, a=1, c=1)
    s.send(count=2)
    s = case("scores of any size")
    s.do("push", item=[(2.0**53, "a"), (-2.5, "b"), (1e15, "d"), (1.5, "e")])
    s.send()
    s = case("an empty queue: ask again after a wake-up")
    s.send()
    s = case("the last one: counters stay for seven days, places start anew, a wake-up goes", order="fifo")
    lease(s, a=1)
    s.do("push", item=[(2, "b")])
    s.do("ack")
    s.awake()
    s.send()
    for what, setup in KEEPING.items():
        s = case(f"the last one, but {what} is there", order="fifo")
        setup(s)
        ready(s, a=1)
        s.awake()
        s.send(count=1)
    s = case("a plain sorted set is taken as it is, in score order")
    s.model.members = {b"a": Member("ready", 5.0), b"b": Member("ready", 7.0)}
    s.send(count=1)
    s.send()

    s = case("due members are promoted, others are not")
    delayed(s, delay=0, attempts=True, a=5)
    delayed(s, delay=1, b=1)
    ready(s, c=4)
    s.send()
    s.send(now=NOW + 1)
    s = case("nothing is due yet: ask again when it is")
    delayed(s, a=5)
    delayed(s, delay=DUE + 1, b=5)
    s.send()
    s = case("something was taken: no time is named")
    delayed(s, a=5)
    ready(s, b=1)
    s.send()
    s = case("attempts and reason of those that are taken, and of none that are not")
    tried(s, a=5, b=6)
    ready(s, c=5)
    s.send(count=2)
    s.send(count=2)
    s = case("what was pushed again starts afresh")
    tried(s, a=5)
    s.do("push", item=[(9, "a")])
    s.send()
    s = case("payloads of those that are taken, and of none that are not")
    s.do("push", item=[(1, "a", "p"), (2, "b", ""), (3, "d", "q")])
    ready(s, c=1)
    s.send(count=3)
    s.send(count=3)
    s = case("rows and payloads of members in other states stay")
    everywhere(s)
    s.send(count=10)
    s = case("due by the server's clock: since 2020, not before 2286")
    for member, due in (("a", 1_600_000_000_000), ("b", 9_999_999_999_999)):
        s.do("push", item=[(1, member)], now=due - 1, delay=1)
    s.send(now=CLOCK)
    s = case("leases that ran out are no matter of pop")
    lease(s, a=5)
    s.send(now=900_000)
    s = case("attempts are no matter of pop")
    delayed(s, delay=0, attempts=True, a=5)
    s.send()
    s = case("a hundred due members are promoted a call, the earliest first")
    for i in range(1, 103):
        s.do("push", item=[(i if i <= 100 else -i, f"m{i}")], delay=i, now=1000)
    s.send(count=2)
    s.send(count=100)
    s.send(count=100)
    first = case.by_hand(
        "the queue is paused until the first ms there was", {"paused": "1 x"}, given_ttl={"paused": 60_000}
    )
    first.send([1, [], [], []], now=0)
    s = case("as many members as one call gives")
    s.do("push", item=[(i, f"m{i}") for i in range(1, case.most("count") + 1)])
    s.do("push", item=[(2000, "x")])
    s.send(count=case.most("count"))
    for name, time, after in (
        ("until it is resumed", 0, 0), ("for a time", 60_000, 59_999), ("no longer", 60_000, 60_000),
    ):  # fmt: skip
        s = case(f"the queue is paused {name}")
        ready(s, a=1)
        delayed(s, delay=10, b=1)
        s.do("pause", duration=time, reason="why not")
        s.send(now=NOW + after)
    s = case("a wake-up for the next client: a member is left")
    ready(s, a=1, b=2)
    s.send(count=1)
    s = case("no wake-up for the next client: only delayed ones are left")
    ready(s, a=1)
    delayed(s, b=2)
    s.send(count=1)

    meta = {"queue": "2 score"}
    lost = case.by_hand(
        "the server evicted the rows: score 0",
        {"meta": meta, "delayed": {"a": 1000}, "payloads": {"b": "p"}},
        {"meta": meta, "payloads": {"b": "p"}},
        ttl={"meta": 604_800_000},
    )
    lost.send([0, ["a", "0"], [], [None]])


@script("priority/remove")
def remove(case: Cases) -> None:
    derive(case, everywhere, reads=["payloads"], member=list("abcdefgh"))
    for member, where in (
        ("a", "ready"), ("b", "ready, with a payload"), ("c", "delayed"), ("d", "dead"), ("e", "leased"),
        ("f", "leased and pushed"), ("g", "removed"), ("h", "not there"),
    ):  # fmt: skip
        s = case(f"a member that is {where}")
        everywhere(s)
        s.send(member=[member])
        s.send(member=[member], once="p")
    s = case("the last one: counters stay for seven days, places start anew, a wake-up goes", order="fifo")
    lease(s, a=1)
    s.do("ack")
    ready(s, a=1)
    s.awake()
    s.send(member=["a"])
    for what, setup in KEEPING.items():
        s = case(f"the last one, but {what} is there", order="fifo")
        setup(s)
        ready(s, a=1)
        s.awake()
        s.send(member=["a"])
    s = case("40 leased ones")
    s.do("push", item=[(i, f"m{i}") for i in range(1, 41)])
    s.do("reserve", size=40)
    s.send(member=[f"m{i}" for i in range(1, 41)])
    s = case("the only leased one: its lease stays")
    lease(s, a=1)
    s.send(member=["a"])
    s = case("one that is given twice is counted once, wherever it is")
    everywhere(s)
    s.send(member=list("abcdefgh") * 2)
    s = case("none of them is there: the answer is remembered")
    s.send(member=["a"])
    s.send_other("push", item=[(1, "a")], once="p")
    s.send(member=["a"])
    s = case("no members: nothing is remembered")
    ready(s, a=1)
    s.send(member=[])
    s.send(member=["a"])
    s = case("sent again with other members, the answer is the first one")
    ready(s, a=1, b=2)
    s.send(member=["a"])
    s.send(member=["a", "b"])
    s = case("any bytes, the empty member too")
    s.do("push", item=[(1, b"\xff", b"\xfe"), (2, "", "p")])
    s.do("push", item=[(3, "x")])
    s.send(member=[b"\xff", ""])
    s = case("as many members as one call takes")
    s.do("push", item=[(i, f"m{i}") for i in range(1, case.most("member") + 1)])
    s.send(member=[f"m{i}" for i in range(1, case.most("member") + 1)])
    s = case("a member that looks like the window is another one")
    s.do("push", item=[(1, "a", "p"), (2, "60000", "p")])
    s.do("reserve", size=2)
    s.do("release", reason="boom", delay=DUE)
    s.send(member=["a"])


@script("priority/state")
def state(case: Cases) -> None:
    case.defaults["member"] = "a"
    derive(case, everywhere, reads=["held"], member="d")
    for member, where in (
        ("a", "ready"), ("b", "ready, with a payload"), ("c", "delayed"), ("d", "dead"), ("e", "leased"),
        ("f", "leased and pushed"), ("g", "removed while it is leased"), ("h", "not there"),
    ):  # fmt: skip
        s = case(f"a member that is {where}")
        everywhere(s)
        s.send(member=member)
    s = case("delayed, though it is due")
    delayed(s, delay=0, attempts=True, a=1)
    s.send()
    s = case("removed and pushed again")
    lease(s, a=1)
    s.do("remove", member=["a"])
    s.do("push", item=[(1, "a")])
    s.send()
    s = case("the empty member")
    ready(s, **{"": 1})
    s.send(member="")
    s.send(member=b"\xff")
    s = case("an empty queue")
    s.send()
