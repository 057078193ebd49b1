"""Cases of calls that count against rates, for each script that takes rates."""

from __future__ import annotations

from typing import Any

from .scenario import NOW, Cases, Scenario, Setup


def rated(case: Cases, setup: Setup, **args: Any) -> None:
    """Add calls that take one unit each; `setup` provides enough for ten of them."""

    def take(s: Scenario, i: int, now: int, *rates: tuple[int, int], **values: Any) -> None:
        s.send(**{**args, "id": f"m{i}", "once": f"m{i}", "size": 1, **values}, rates=list(rates), now=NOW + now)

    s = case("a rate: so many in any span, then ask again when the first of them has left it")
    setup(s)
    for i, now in enumerate((0, 100, 200, 1000, 1001, 1002, 1101)):
        take(s, i, now, (2, 1000))
    s = case("a rate: several at the same time")
    setup(s)
    for i in range(3):
        take(s, i, 0, (2, 1000))
    s = case("a grant at the start of a span is in it")
    setup(s)
    for i, now in enumerate((0, 1000, 1001)):
        take(s, i, now, (9, 1000))
    s = case("two rates: the one that opens last")
    setup(s)
    for i, now in enumerate((0, 5000, 5001, 10_000, 10_001, 30_001)):
        take(s, i, now, (1, 4000), (2, 30_000))
    s = case("two rates, the longer one first")
    setup(s)
    for i, now in enumerate((0, 1, 4001)):
        take(s, i, now, (1, 4000), (1, 3000))
    s = case("a rate that would open before a grant was made")
    setup(s)
    for i, now in enumerate((0, 10, 900)):
        take(s, i, now, (3, 5000), (2, 1000))
    s = case("the clock was set back: what is dated later counts as granted now")
    setup(s)
    for i, now in enumerate((0, 50_000, 70_000, 10_000, 11_000, 60_000)):
        take(s, i, now, (4, 60_000))
    s = case("the clock was set back by a ms")
    setup(s)
    for i, now in enumerate((0, 1001, 1000, 2000)):
        take(s, i, now, (3, 1000))
    s = case("the clock was set back to the time of a grant")
    setup(s)
    for i, now in enumerate((0, 50_000, 60_000, 70_000, 50_000, 55_000)):
        take(s, i, now, (9, 90_000))
    s = case("a short rate is used up, and the first grant is one of a long one alone")
    setup(s)
    for i, now in enumerate((0, 2000, 2500, 3001)):
        take(s, i, now, (1, 1000), (9, 60_000))
    s = case("the clock was set back, and the rate is used up")
    setup(s)
    for i, now in enumerate((50_000, 60_000, 0, 1000)):
        take(s, i, now, (2, 60_000))
    s = case("the limit was lowered: the time until enough have left the span")
    setup(s)
    for i in range(7):
        take(s, i, 100 * i, (7, 60_000))
    for limit in (1, 2, 3, 4, 6, 7):
        take(s, 9, 1000, (limit, 60_000))
    s = case("the limit was lowered, and a second rate opens earlier")
    setup(s)
    for i in range(5):
        take(s, i, 100 * i, (5, 60_000))
    take(s, 9, 1000, (2, 60_000), (5, 10_000))
    take(s, 9, 1000, (5, 10_000), (2, 60_000))
    s = case("a hundred of the grants that have left every span are forgotten a call")
    setup(s)
    s.model_limit.rates = [(1000, 500)]
    for i in range(1, 106):
        s.model_limit.charge(i, 1)
    s.ttl[b"grants"] = 1500
    take(s, 1, 0, (1000, 500))
    s = case("a grant that leaves the span just now is kept, one that has left it is forgotten")
    setup(s)
    for i, now in enumerate((0, 1, 501, 502)):
        take(s, i, now, (10, 500))
