"""reserve of a buffer."""

from __future__ import annotations

from .buffer_items import lease, waiting
from .derived import by_type, derive
from .rates import rated
from .scenario import NOW, WEEK, Cases, script


@script("buffer/reserve", id="m")
def reserve(case: Cases) -> None:
    derive(
        case,
        lambda s: (lease(s, "ab", max_attempts=1), s.do("release", now=50_000), waiting(s, g="c")),
        reads=["items:g"],
        unread=["batch:m", "ended:l", "ended:m"],  # the lease of that id is over; a string may be replaced
        id="m",
        highest={"min_size": 1, "ordered": 1},
        rates=[(5, 1000)],
    )
    _handing_out(case)
    _sent_again(case)
    _due(case)
    _attempts(case)
    _isolate(case)
    _ordered(case)
    _nothing(case)
    _pauses(case)
    _rates(case)
    _wake_ups(case)
    _damaged(case)


def _handing_out(case: Cases) -> None:
    s = case("the longest group, its oldest items")
    waiting(s, g="ab", h="cdef", i="gh")
    s.send(size=3)
    s = case("of equal groups the greater name")
    waiting(s, h="cd", g="ab")
    s.send(size=1)
    s = case("all of a group")
    waiting(s, g="ab", h="c")
    s.send()
    s = case("exactly as many as are there")
    waiting(s, g="ab")
    s.send(size=2)
    s = case("any bytes")
    s.do("push", item=[b"\xff", "", "a b"], group=b"g \xfe:")
    s.send(holder=b"w \x00\xff")
    for bytes_, what in (
        (1, "one item at least"),
        (3, "just one"),
        (5, "two fit"),
        (6, "an item that just fits"),
        (9, "all"),
    ):
        s = case(f"at most so many bytes: {what}")
        s.do("push", item=["aaa", "bb", "c"])
        s.send(max_bytes=bytes_)
    s = case("at most so many bytes, of hundreds of items")
    s.do("push", item=["aa"] * 150 + ["bbbb"] * 150 + ["c"])
    s.send(size=1000, max_bytes=300 + 402)
    s = case("at most so many bytes, but not as many items")
    s.do("push", item=["a"] * 250)
    s.send(size=201, max_bytes=1000)
    s = case("an item that is exactly the hundred and first")
    s.do("push", item=["a"] * 100 + ["b"] * 5)
    s.send(size=1000, max_bytes=101)
    for most, size in ((2003, 3000), (5000, 2003)):
        s = case(f"thousands of items, at most {size}, at most {most} bytes")
        s.do("push", item=["a"] * 999 + ["b"] + ["c"] * 999 + ["d"] + ["e"] * 5)
        s.send(size=size, max_bytes=most)
    s = case("at most so many bytes, of items that are longer from the thousand and first on")
    s.do("push", item=["a"] * 1000 + ["bb"] * 1000)
    s.send(size=3000, max_bytes=2000)
    s = case("thousands of items keep their order")
    s.do("push", item=["a"] * 1000 + ["b"] * 1000 + ["c"] * 5)
    s.send(size=2003)
    s = case("as many items as one call gives")
    s.do("push", item=["x"] * case.most("size"))
    s.do("push", item=["y"])
    s.send(size=case.most("size"))
    s = case("a group of min_size")
    waiting(s, g="ab", h="cde")
    s.send(min_size=3)
    s = case("no group of min_size, the largest that it may be")
    waiting(s, g="ab")
    s.send(min_size=case.most("min_size"))
    s = case("no group of min_size")
    waiting(s, g="ab", h="cde")
    s.send(min_size=4)


def _sent_again(case: Cases) -> None:
    s = case("sent again while it is held, though more wait")
    waiting(s, g="abc")
    s.send(size=1)
    s.send(size=1, now=NOW + 5)
    s.send(size=3, holder="other", now=NOW + 29_999)
    s = case("sent again after its lease ran out, it is held until another reserve takes it")
    waiting(s, g="ab")
    s.send(size=1)
    s.send(size=1, now=NOW + 30_001)
    s = case("sent again when its batch came back once: attempts and reason are those of the batch")
    lease(s, "ab")
    s.do("release", reason="boom")
    s.send()
    s.send()
    for how in ("ack", "release", "bury"):
        s = case(f"sent again after {how}: it has ended")
        lease(s, "ab", now=2000)
        s.do(how, window=60_000)
        s.do("push", item=["c"])
        s.send(id="l")
    s = case("sent again after another reserve took its batch: it has ended")
    lease(s, "ab", now=2000)
    waiting(s, h="c")
    s.send()
    s.send(id="l")
    s = case("sent again when its end is no longer remembered: a new try")
    lease(s, "ab", now=2000)
    s.do("ack")
    waiting(s, h="c")
    s.send(id="l")
    s = case("the batch of an id is delayed: it has ended, though nothing is remembered")
    lease(s, "ab", now=2000)
    s.do("release", delay=900_000)
    waiting(s, h="c")
    s.send(id="l")
    s = case("one that handed out nothing is a new try")
    s.send()
    s.send_other("push", item=["a"])
    s.send()


def _due(case: Cases) -> None:
    s = case("a lease that ran out: the same items, the reason names its holder, its end is remembered")
    lease(s, "abc", now=2000, holder="w:1")
    waiting(s, h="defg")
    s.send(size=1)
    s = case("a lease that runs out just now")
    lease(s, "ab", now=NOW - 30_000)
    s.send()
    s = case("a lease that runs out in a moment")
    lease(s, "ab", now=NOW - 29_999)
    s.send()
    s = case("a delayed batch, with the reason of its release")
    lease(s, "ab", now=2000)
    s.do("release", delay=NOW - 3000, now=3000, reason="boom")
    waiting(s, g="cdef")
    s.send(size=1)
    s = case("a batch that is due in a moment")
    lease(s, "ab", now=2000)
    s.do("release", delay=NOW - 2999, now=3000)
    s.send()
    s = case("a group that has waited max_wait, before a longer one and below min_size")
    waiting(s, g="a", h="bc")
    s.send(max_wait=99_000, min_size=2, size=1)
    s = case("none has waited max_wait: the longest")
    waiting(s, g="a", h="bc")
    s.send(max_wait=99_001, size=1)
    s = case("a group that will have waited max_wait in a moment")
    waiting(s, g="a", h="b")
    s.send(max_wait=99_001, min_size=2)
    for first in ("leased", "delayed", "waiting"):
        times = {name: 1000 if name == first else 2000 for name in ("leased", "delayed", "waiting")}
        s = case(f"three are due: first what has been due for longest, here what is {first}")
        lease(s, "a", group="x", id="a", now=0, lease=times["leased"])
        lease(s, "b", group="y", id="b", now=0)
        s.do("release", id="b", now=0, delay=times["delayed"])
        s.do("push", item=["c"], group="z", now=times["waiting"] - 500)
        s.send(max_wait=500)
    s = case("due at the same time: leases first, then what is delayed, then groups; of one kind by name")
    for id_ in ("b", "a"):
        lease(s, "v", group="x" + id_, id=id_, now=0, lease=1000)
    for id_ in ("d", "c"):
        lease(s, "w", group="x" + id_, id=id_, now=0)
        s.do("release", id=id_, now=0, delay=1000)
    for group in ("f", "e"):
        s.do("push", item=["y"], group=group, now=500)
    for id_ in ("m", "n", "o", "p", "q", "r", "s"):
        s.send(id=id_, max_wait=500)
    s = case("a batch comes back whole, whatever its size")
    lease(s, "abc", now=2000)
    s.send(size=1, max_bytes=1)
    s = case("thousands of items come back whole")
    s.do("push", item=["a"] * 2000 + ["b"], now=1000)
    s.do("reserve", size=10_000, now=2000)
    s.send()
    s = case("a batch given back uncounted starts anew")
    lease(s, "ab", now=2000)
    s.do("release", attempt="forget", now=3000)
    s.send(max_attempts=1)


def _attempts(case: Cases) -> None:
    s = case("a delayed batch that has used its attempts is dead, with its last reason")
    lease(s, "ab", now=2000)
    s.do("release", reason="boom", now=3000)
    s.send(max_attempts=1)
    s.send(max_attempts=1)
    s = case("a lease that ran out with its attempts used up")
    lease(s, "ab", now=2000, holder="w:1")
    waiting(s, h="c")
    s.send(max_attempts=1)
    s.send(max_attempts=1)
    s = case("attempts are left")
    lease(s, "ab", now=2000)
    s.send(max_attempts=2)
    s = case("more attempts than are allowed by now")
    lease(s, "ab", now=2000)
    s.do("reserve", id="k", now=40_000, lease=10)
    s.do("reserve", id="j", now=50_000, lease=10)
    s.send(max_attempts=2)
    s = case("any number of attempts")
    lease(s, "ab", now=2000)
    s.do("reserve", id="k", now=40_000, lease=10)
    s.send(max_attempts=0)
    s = case("a burial, and nothing is remembered")
    lease(s, "ab", now=2000)
    s.send(max_attempts=1, window=0)
    s = case("the end of a lease is remembered, but not a second time")
    lease(s, "ab", now=2000)
    s.do("release", now=3000, window=60_000)
    s.send(max_attempts=1)
    s = case("one burial a call")
    for i in (1, 2):
        lease(s, "ab", group=f"g{i}", id=f"d{i}", now=i)
    s.send(max_attempts=1)
    s.send(max_attempts=1)
    s.send(max_attempts=1)
    for dead, max_dead in ((2, 2), (2, 3), (1, 1), (3, 1), (15, 3), (15, 0)):
        s = case(f"{dead} are dead, max_dead {max_dead}: at most ten of the oldest go")
        for i in range(1, dead + 1):
            lease(s, "abc", group=f"g{i}", id=f"d{i}", now=i)
            s.do("bury", id=f"d{i}", now=i)
        lease(s, "ab", now=2000)
        s.send(max_attempts=1, max_dead=max_dead)
    s = case("a burial charges nothing against a rate")
    lease(s, "ab", now=2000)
    waiting(s, h="c")
    s.send(max_attempts=1, rates=[(1, 1000)])
    s.send(max_attempts=1, rates=[(1, 1000)])


def _isolate(case: Cases) -> None:
    for items in ("ab", "abc", "abcde"):
        s = case(f"isolate: half of {len(items)} items get a last attempt, the others wait")
        lease(s, items, now=2000)
        s.do("release", reason="boom", now=3000)
        waiting(s, g="xy")
        s.send(max_attempts=1, isolate=1, size=1)
    s = case("isolate: an item alone is dead")
    lease(s, "a", now=2000)
    s.send(max_attempts=1, isolate=1)
    s = case("isolate: attempts are left")
    lease(s, "ab", now=2000)
    s.send(max_attempts=2, isolate=1)
    s = case("isolate: without max_attempts nothing is split")
    lease(s, "ab", now=2000)
    s.send(isolate=1)
    s = case("isolate: a half that ran out is split again, with max_attempts lowered meanwhile")
    lease(s, "abcd", now=2000)
    s.do("reserve", id="k", now=40_000, lease=10)
    s.do("reserve", id="j", now=50_000, lease=10)
    s.send(max_attempts=2, isolate=1)
    s.send(id="n", max_attempts=2, isolate=1, now=NOW + 30_000)
    s = case("isolate: what waits of a group that is empty")
    lease(s, "abc", now=2000)
    s.awake()
    s.send(max_attempts=1, isolate=1)
    s = case("isolate: the rest of a busy group is not offered")
    lease(s, "abc", now=2000, ordered=1)
    s.send(max_attempts=1, isolate=1, ordered=1)
    s = case("isolate: the rest of a paused group is not offered")
    lease(s, "abc", now=2000)
    s.do("pause_group", group="g")
    s.send(max_attempts=1, isolate=1)
    s = case("isolate: thousands of items")
    s.do("push", item=["a"] * 1500 + ["b"] * 1001 + ["c"] * 500, now=1000)
    s.do("reserve", size=10_000, now=2000)
    s.send(max_attempts=1, isolate=1)


def _ordered(case: Cases) -> None:
    s = case("ordered: a group whose batch is out gives nothing more")
    waiting(s, g="abc", h="d")
    s.send(size=1, ordered=1)
    s.send(size=1, ordered=1)
    s.send(size=1, ordered=1, id="n")
    s = case("ordered: all of a group")
    waiting(s, g="ab")
    s.send(ordered=1)
    s = case("ordered: the group of a batch that comes back is busy with it")
    lease(s, "ab", now=2000)
    waiting(s, g="cd")
    s.send(ordered=1)
    s = case("ordered: the group is busy with the batch under its new id")
    lease(s, "ab", now=2000, ordered=1)
    waiting(s, g="cd")
    s.send(ordered=1)
    s = case("no longer ordered: a busy group stays busy with its batch")
    lease(s, "ab", now=2000, ordered=1)
    waiting(s, g="cd")
    s.send()
    s = case("no longer ordered: another batch of a busy group changes nothing for it")
    lease(s, "ab", id="k", now=1500, lease=1000)
    lease(s, "cd", now=2000, ordered=1, lease=90_000)
    waiting(s, g="ef")
    s.send()
    s = case("ordered: a batch of before comes back, but its group is busy with another")
    lease(s, "ab", id="k", now=1500, lease=1000)
    lease(s, "cd", now=2000, ordered=1, lease=90_000)
    waiting(s, g="ef")
    s.send(ordered=1)
    s = case("ordered: a burial frees the group")
    lease(s, "ab", now=2000, ordered=1)
    waiting(s, g="cd", h="xyz")
    s.send(ordered=1, max_attempts=1)
    s = case("a burial of another batch does not free the group")
    lease(s, "ab", id="k", now=1500, lease=1000)
    lease(s, "cd", now=2000, ordered=1, lease=200_000)
    waiting(s, g="ef")
    s.send(max_attempts=1)
    s = case("ordered: a burial frees a group of one item; a wake-up that lies there is enough")
    lease(s, "ab", now=2000, ordered=1)
    waiting(s, g="c")
    s.awake()
    s.send(ordered=1, max_attempts=1)
    s = case("ordered: a burial frees an empty group")
    lease(s, "ab", now=2000, ordered=1)
    s.awake()
    s.send(ordered=1, max_attempts=1)
    s = case("ordered: a burial frees a group, but it is paused")
    lease(s, "ab", now=2000, ordered=1)
    s.do("pause_group", group="g")
    waiting(s, g="cd")
    s.send(ordered=1, max_attempts=1)
    s = case("ordered: what is due of a busy group comes, and nothing else of it")
    lease(s, "ab", now=2000, ordered=1)
    s.do("release", delay=200_000, now=3000)
    waiting(s, g="cd")
    s.send(ordered=1, max_wait=10)
    s = case("ordered: an empty group is busy with its next batch alone")
    lease(s, "a", now=2000, ordered=1)
    s.do("ack")
    waiting(s, g="bc")
    s.send(ordered=1, size=1)

    by_type(
        case, lambda s: waiting(s, g="ab"), only=["busy", "groups", "since", "items:g"], title=": ordered", ordered=1
    )
    by_type(case, lambda s: waiting(s, g="ab"), only=["groups", "since", "items:g"], title=": nothing is due")


def _nothing(case: Cases) -> None:
    s = case("an empty queue: ask again within a lease")
    s.send(lease=7000)
    s = case("nothing waits: ask again when the first lease runs out")
    lease(s, "a", now=NOW - 10_000)
    s.send(lease=25_000)
    s = case("ask again within a lease, though the first one runs out later")
    lease(s, "a", now=NOW - 10_000)
    s.send(lease=15_000)
    s = case("ask again when the first delayed batch is due")
    lease(s, "a", now=2000)
    s.do("release", delay=4000, now=NOW)
    lease(s, "b", group="h", id="m", now=NOW - 29_000, lease=35_000)
    s.send(id="n")
    s = case("ask again when the first group has waited max_wait")
    waiting(s, g="a", h="b")
    s.send(min_size=2, max_wait=100_500)
    s = case("ask again within a lease, while no group has min_size and none ages")
    waiting(s, g="a", h="b")
    s.send(min_size=2)
    s = case("dead batches are not due")
    lease(s, "a", now=2000)
    s.do("bury")
    s.send()
    s = case("a group is paused: ask again when that ends")
    s.do("pause_group", duration=4000)
    waiting(s, g="ab")
    s.send()
    s = case("a group is paused until it is resumed")
    s.do("pause_group")
    waiting(s, g="ab")
    s.send()


def _pauses(case: Cases) -> None:
    for name, time, after in (
        ("until it is resumed", 0, 0), ("for a time", 20_000, 1000), ("for long", 60_000, 1000),
        ("no longer", 60_000, 60_000),
    ):  # fmt: skip
        s = case(f"the queue is paused {name}")
        waiting(s, g="ab")
        s.do("pause", duration=time, reason="why not")
        s.send(now=NOW + after)
    s = case("what is held is given again while the queue is paused")
    lease(s, "ab", now=NOW)
    s.do("pause", reason="x")
    s.send(id="l")
    s = case("a paused queue hands out nothing that is due")
    lease(s, "ab", now=2000)
    s.do("pause")
    s.send(max_attempts=1)
    s = case("a group's pause that has ended")
    s.do("pause_group", duration=1000, now=2000)
    waiting(s, g="ab", h="c")
    s.send()
    s = case("a group's pause that ends just now")
    s.do("pause_group", duration=1000, now=NOW - 1000)
    waiting(s, g="ab")
    s.send()
    s = case("a group's pause has ended, but it is busy")
    lease(s, "ab", now=NOW, ordered=1)
    s.do("pause_group", duration=1000, now=2000)
    waiting(s, g="cd", h="e")
    s.send()
    s = case("a group's pause has ended, and it has no items")
    s.do("pause_group", duration=1000, now=2000)
    s.do("push", item=["a"], group="h")
    s.send()
    s = case("ten pauses of groups end in one call, those that ended first")
    for i in range(12):
        s.do("pause_group", group=f"p{i}", duration=1000 + i, now=2000)
    s.do("pause_group", group="q", duration=900_000)
    s.do("pause_group", group="r")
    waiting(s, p0="ab", p9="cde", p10="fghi")
    s.send()
    s.send()
    s.send(id="n")
    s = case("more pauses of groups have ended than one call ends, and nothing waits: ask again at once")
    for i in range(12):
        s.do("pause_group", group=f"p{i}", duration=1000 + i, now=2000)
    s.send()
    s.send()
    s = case("the pause of a group ends that has one item")
    s.do("pause_group", duration=1000, now=2000)
    waiting(s, g="a")
    s.send()
    s = case("the pause of a group ends that kept the queue when the last item left it")
    lease(s, "a", now=2000)
    s.do("pause_group", duration=1000, now=2000)
    s.do("ack")
    s.awake()
    s.send()
    first = case.by_hand(
        "the queue is paused until the first ms there was", {"paused": "1 x"}, given_ttl={"paused": 60_000}
    )
    first.send(["none", 1], now=0, id="m")
    by_type(
        case,
        lambda s: (s.do("pause_group", duration=1000, now=2000), waiting(s, g="ab")),
        only=["busy", "items:g", "groups", "since", "delayed", "dead"],
        title=": the pause of a group has ended",
    )
    s = case("the pause of a group ends that was all that kept the queue")
    lease(s, "a", now=2000)
    s.do("ack")
    s.do("pause_group", duration=1000, now=2000)
    s.awake()
    s.send()
    s = case("a paused group gives what was handed out before")
    lease(s, "ab", now=2000)
    s.do("pause_group")
    waiting(s, g="cd")
    s.send()
    s = case("a queue's pause, and a group's that has ended")
    s.do("pause_group", duration=1000, now=2000)
    s.do("pause", duration=1000, now=2000)
    waiting(s, g="ab")
    s.send()


def _rates(case: Cases) -> None:
    rated(case, lambda s: waiting(s, g="abcdefghij"), lease=10**9)
    s = case("a rate that is closed hands out nothing that is due")
    waiting(s, g="abcdef")
    s.send(size=1, rates=[(1, 100_000)])
    s.send(id="n", size=1, rates=[(1, 100_000)], now=NOW + 30_000)
    s = case("what was handed out is given again while a rate is closed")
    waiting(s, g="abcdef")
    s.send(size=1, rates=[(1, 100_000)])
    s.send(size=1, rates=[(1, 100_000)])
    s = case("nothing is there: nothing is charged")
    s.send(rates=[(1, 100_000)])
    s = case("without rates nothing is charged, and grants stay as they are")
    waiting(s, g="abcdef")
    s.do("reserve", id="k", size=1, rates=[(1, 100_000)])
    s.send(size=1)


def _wake_ups(case: Cases) -> None:
    s = case("a wake-up for the next client: items wait")
    waiting(s, g="ab")
    s.send(size=1)
    s = case("no wake-up for the next client: one lies there")
    waiting(s, g="ab")
    s.awake()
    s.send(size=1)
    s = case("a wake-up for the next client: another group waits")
    waiting(s, g="ab", h="c")
    s.send()
    s = case("no wake-up for the next client: nothing is left")
    waiting(s, g="ab")
    s.send()
    s = case("a wake-up for the next client: something is delayed")
    lease(s, "ab", now=2000)
    s.do("release", delay=900_000, now=2000)
    waiting(s, h="c")
    s.send()
    s = case("a wake-up for the next client: another lease ran out")
    lease(s, "a", now=2000)
    lease(s, "b", group="h", id="k", now=2000)
    s.send()
    s = case("no wake-up for the next client: another lease will run out")
    lease(s, "a", now=2000)
    lease(s, "b", group="h", id="k", now=2000, lease=900_000)
    s.send()
    s = case("no wake-up for the next client: only dead batches are left")
    lease(s, "a", now=2000)
    s.do("bury")
    waiting(s, h="b")
    s.send()
    s = case("no wake-up for the next client: the groups that are left are paused")
    s.do("pause_group", group="h")
    waiting(s, g="ab", h="c")
    s.send()


def _damaged(case: Cases) -> None:
    meta = {"queue": "2 buffer"}
    gone = case.by_hand(
        "the server evicted a group's list",
        {"meta": meta, "groups": {"g": 2, "h": 1}, "since": {"g": 1000, "h": 1000}, "items:h": ["a"]},
        {"meta": meta, "groups": {"h": 1}, "since": {"h": 1000}, "items:h": ["a"]},
    )
    gone.send(["none", 0])
    gone = case.by_hand(
        "the server evicted the list of the last group",
        {"meta": meta, "groups": {"g": 2}, "since": {"g": 1000}, "wake": ["1"]},
        {"meta": meta},
        ttl={"meta": WEEK},
    )
    gone.send(["none", 0], ordered=1)
    odd = ["g", "x", "w", "boom", "a"]
    lost = case.by_hand(
        "attempts that cannot be read are none",
        {"meta": meta, "delayed": {"k": 1000}, "batch:k": odd},
        {"meta": meta, "leases": {"m": NOW + 30_000}, "batch:m": ["g", "1", *odd[2:]], "ended:k": "lost"},
        ttl={"ended:k": 60_000},
    )
    lost.send(["batch", NOW + 30_000, "g", 1, "boom", ["a"]], max_attempts=1, id="m")
    batch = {"batch:k": ["g", "1", "w", "boom", "a"]}
    lost = case.by_hand(
        "the server evicted the dead batch that goes",
        {"meta": meta, "delayed": {"k": 1000}, "dead": {"j": 1}, **batch},
        {"meta": {**meta, "buried": "1", "trimmed": "0"}, "dead": {"k": NOW}, "ended:k": "lost", **batch},
        ttl={"ended:k": 60_000},
    )
    lost.send(["buried", "k", "g", 1, "boom"], max_attempts=1, max_dead=1, id="m")
    for place in ("leases", "delayed"):
        gone = case.by_hand(
            f"the server evicted a batch: {place}",
            {"meta": meta, "groups": {"h": 1}, "since": {"h": 1000}, "items:h": ["a"], place: {"k": 1000}},
            {"meta": meta, "groups": {"h": 1}, "since": {"h": 1000}, "items:h": ["a"]},
        )
        gone.send(["none", 0], max_attempts=1)
