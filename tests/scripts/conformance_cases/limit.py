"""The rate limiter."""

from __future__ import annotations

from .derived import derive
from .rates import rated
from .scenario import NOW, Cases, nothing, script

MINUTE = 60_000


@script("limit/acquire", once="m")
def acquire(case: Cases) -> None:
    derive(
        case,
        lambda s: s.do("acquire", cost=2, once="k", rates=[(5, MINUTE)], now=NOW - 100),
        reads=["grants"],
        once="m",
        cost=2,
        rates=[(5, MINUTE)],
    )
    rated(case, nothing, cost=1)

    s = case("all that is wanted, then what is left, then nothing")
    for i, cost in enumerate((3, 4, 1)):
        s.send(cost=cost, rates=[(5, MINUTE)], once=f"m{i}", now=NOW + i)
    s = case("exactly what is left")
    s.send(cost=3, rates=[(5, MINUTE)])
    s.send(cost=2, rates=[(5, MINUTE)], once="n", now=NOW + 1)
    s.send(cost=1, rates=[(5, MINUTE)], once="o", now=NOW + 2)
    s = case("more than the limit at once")
    s.send(cost=9, rates=[(5, MINUTE)])
    s = case("a part is granted: more can be had when the first grants have left the span")
    s.do("acquire", cost=3, rates=[(5, MINUTE)], now=NOW - 50_000)
    s.do("acquire", cost=1, rates=[(5, MINUTE)], now=NOW - 40_000)
    s.send(cost=2, rates=[(5, MINUTE)])
    s.send(cost=2, rates=[(5, MINUTE)], once="n", now=NOW + 10_001)
    s = case("of several rates the one that has least left counts")
    s.do("acquire", cost=3, rates=[(10, MINUTE)], now=NOW - 2000)
    for i, rates in enumerate(([(4, 5000), (5, MINUTE)], [(5, MINUTE), (4, 5000)], [(4, 1000), (9, MINUTE)])):
        s.send(cost=5, rates=rates, once=f"m{i}")
    s = case("two rates that allow the same: the later time counts")
    s.do("acquire", cost=3, rates=[(10, MINUTE)], now=NOW - 2000)
    s.send(cost=5, rates=[(4, 5000), (4, MINUTE)])
    s = case("two rates that allow the same, the other one first")
    s.do("acquire", cost=3, rates=[(10, MINUTE)], now=NOW - 2000)
    s.send(cost=5, rates=[(4, MINUTE), (4, 5000)])
    s = case("nothing is missing: the time is 0")
    s.send(cost=5, rates=[(5, MINUTE), (6, 5000)])
    s = case("large costs, and numbers of fifteen digits")
    big = 99_999_999_999
    for i in range(3):
        s.send(cost=big, rates=[(big, 1000)], once=f"m{i}", now=9_000_000_000_000 + 1001 * i)
    s = case("sent again: nothing more, the first answer")
    s.send(cost=4, rates=[(5, MINUTE)])
    s.send(cost=4, rates=[(5, MINUTE)], now=NOW + 5)
    s.send(cost=4, rates=[(5, MINUTE)], once="n", now=NOW + 6)
    s.send(cost=1, rates=[(1, 5)], now=NOW + 7)
    s = case("sent again: the first answer, with the shortest time that there is")
    s.do("acquire", cost=1, rates=[(2, 5000)], now=NOW - 5000)
    s.send(cost=2, rates=[(2, 5000)])
    s.send(cost=2, rates=[(2, 5000)], now=NOW + 10)
    s = case("one that granted nothing is a new try")
    s.send(cost=1, rates=[(1, 5000)])
    s.send(cost=1, rates=[(1, 5000)], once="n", now=NOW + 1)
    s.send(cost=1, rates=[(1, 5000)], once="n", now=NOW + 5001)
    s = case("the limit was lowered, and some is wanted")
    s.do("acquire", cost=9, rates=[(10, MINUTE)], now=NOW - 1000)
    s.do("acquire", cost=1, rates=[(10, MINUTE)], now=NOW - 500)
    s.send(cost=3, rates=[(2, MINUTE)])
    s.send(cost=3, rates=[(1, MINUTE)])
    for mark in ("2 buffer", "2 fifo", "2 score"):
        meta = {"queue": mark}
        shared = case.by_hand(
            f"it shares the name of a queue: {mark}",
            {"meta": meta},
            {"meta": meta, "grants": {f"{0:016d} 1 {NOW}": NOW}, "once:m": "1 0"},
            ttl={"grants": MINUTE + 1000, "once:m": MINUTE},
            once="m",
        )
        shared.send([1, 0], rates=[(5, MINUTE)])
