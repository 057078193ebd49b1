"""audit of a priority queue: what it finds and repairs. The model is never damaged, so these cases are by hand."""

from __future__ import annotations

import itertools
import re
from typing import Any

from redisq.core.scripts import load

from .buffer_audit import audits, emptied
from .derived import refusals
from .form import CLOCK
from .priority_push import KEEPING, everywhere
from .scenario import NOW, Cases, Scenario, script

META = {"queue": "2 score"}
PHASES = ("keys", "leases", "held", "ready", "delayed", "dead", "again", "rows", "payloads", "")


def healthy(s: Scenario) -> None:
    """Create every key that a priority queue can have."""
    everywhere(s)
    s.do("push", item=[(1, "y")], window=60_000)
    s.do("reserve", id="r", now=NOW, size=1, rates=[(5, 60_000)], lease=90_000)
    s.do("ack", id="r", window=60_000)
    s.do("pause", reason="why")
    s.awake()


@script("priority/audit")
def audit(case: Cases) -> None:
    case.defaults |= {"cursor": "keys:0", "lease": 0, "delay": 0, "repair": "report"}
    refusals(case)
    bad = case("cursors that no reply gives")
    for cursor in ("", "keys", "keys:", "keys:x", "keys:-1", "nothing:0", ":0", "keys:1 ", "ready:1000000000000000000"):
        bad.refuse("BADARG", cursor=cursor)

    for order in ("score", "fifo"):
        given = case.state(healthy, order=order)
        ttl = {name.decode(): 60_000 for name in given if name.startswith((b"once:", b"ended:", b"grants"))}
        for repair in ("report", "repair"):
            fine = case.by_hand(
                f"a queue where everything agrees: {repair}, {order}", given, given_ttl=ttl, repair=repair
            )
            sizes = [len(given), *(len(given[name.encode()]) for name in PHASES[1:-1])]
            for phase, following, size in zip(PHASES, PHASES[1:], sizes, strict=False):
                fine.send([f"{following}:0" if following else "", size, []], cursor=f"{phase}:0", limit=100)
    plain = case.by_hand("a plain sorted set", {"ready": {"a": 5, "b": 1e16}})
    plain.send(["delayed:0", 2, []], cursor="ready:0")
    empty = case.by_hand("an empty queue, and keys that are not its own", {})
    empty.given = [["SET", key, "1"] for key in ("{r}:meta", "q:x", "{q}")]
    empty.send(["leases:0", 3, []])
    for phase, following in itertools.pairwise(PHASES[1:]):
        empty.send([f"{following}:0" if following else "", 0, []], cursor=f"{phase}:0")
    for phase, following in itertools.pairwise(PHASES[1:]):
        if phase == "ready":
            ends = case.by_hand(
                "numbers at the highest that they may be", {}, lease=99_999_999_999, delay=99_999_999_999
            )
            last = f"{phase}:999999999999999999"
            ends.send([f"{following}:0", 0, []], cursor=last, limit=100, now=9_999_999_999_999)
    _keys(case)
    _members(case)
    _leases(case)
    _strays(case)
    _pages(case)
    emptied(case, {**META, "sequence": "5"}, PHASES, ["lease", "k", "none", "a list"], KEEPING)


def _add(case: Cases, name: str, cursor: str, *args: Any, **named: Any) -> None:
    audits(case, PHASES, name, cursor, *args, **named)


def _keys(case: Cases) -> None:
    found = [["unknown", name, "string", "none"] for name in ("layout", "later", "1x", "busy")]
    _add(
        case,
        "keys that no queue has are left as they are",
        "keys:0",
        5,
        {"meta": META, "layout": "1", "later": "1", "1x": "1", "busy": "1"},
        {"unordered": found},
    )
    wrong = {"lease:l": "x", "once:o": ["a"], "ended:l": ["a"], "wake": "x", "grants": "x", "paused": ["x"]}
    kinds = {"lease": "list", "once": "string", "ended": "string", "wake": "list", "grants": "zset", "paused": "string"}
    found = [
        ["type", name, "list" if isinstance(value, list) else "string", kinds[name.partition(":")[0]]]
        for name, value in wrong.items()
    ]
    _add(case, "keys of another type are left as they are", "keys:0", 7, {"meta": META, **wrong}, {"unordered": found})
    for name, kind in (
        ("meta", "hash"), ("ready", "zset"), ("leases", "zset"), ("held", "set"), ("delayed", "zset"), ("dead", "zset"),
        ("again", "hash"), ("rows", "hash"), ("payloads", "hash"),
    ):  # fmt: skip
        odd = case.by_hand(
            f"{name} is of another type: nothing else is looked at", {name: "x", "lease:l": ["w", "a", "5"]}
        )
        for repair in ("report", "repair"):
            odd.send(["", 1, [["type", name, "string", kind]]], repair=repair)
    odd = case.by_hand("two keys are of another type", {"meta": ["x"], "dead": "x"})
    found = [["type", "meta", "list", "hash"], ["type", "dead", "string", "zset"]]
    odd.send(["", 2, {"unordered": found}], cursor="dead:0")

    lease = {"meta": META, "lease:l": ["w", "a", "5"], "held": {"a"}}
    _add(
        case,
        "the list of a lease that no index has: it is due now",
        "keys:0",
        3,
        lease,
        [["lease", "l", "no deadline", "one in leases"]],
        {**lease, "leases": {"l": NOW}},
        left=(4, []),
    )
    clock = case.by_hand(
        "the list of a lease that no index has is due now, by the server's clock",
        lease,
        {**lease, "leases": {"l": CLOCK}},
    )
    clock.send(["leases:0", 3, [["lease", "l", "no deadline", "one in leases"]]], repair="repair", now=CLOCK)
    _add(case, "the list of a lease that has a deadline", "keys:0", 4, {**lease, "leases": {"l": 7}}, [])


def _members(case: Cases) -> None:
    places = {"held": {"a"}, "ready": {"a": 5}, "delayed": {"a": 1000}, "dead": {"a": 2000}}
    rest = {"meta": META, "rows": {"a": "5 1 boom"}}
    names = list(places)
    for i, place in enumerate(names):
        for other in names[:i]:
            given = {**rest, other: places[other], place: places[place]}
            left = {**rest, other: places[other]}
            _add(
                case,
                f"a member is in {other} and in {place}: it stays in {other}",
                f"{place}:0",
                1,
                given,
                [["twice", "a", other, "one state"]],
                left,
                left=(0, []),
            )
    for place in names[2:]:
        others = names[: names.index(place)]
        found = {"unordered": [["twice", "a", other, "one state"] for other in others]}
        left = {**rest, **{other: places[other] for other in others}}
        _add(
            case,
            f"a member is in {', '.join(others)} and {place}",
            f"{place}:0",
            1,
            {**left, place: places[place]},
            found,
            left,
        )
    _add(
        case,
        "a member is in a later place as well: said when that is looked at",
        "ready:0",
        1,
        {**rest, "ready": {"a": 5}, "delayed": {"a": 1}, "dead": {"a": 1}},
        [],
    )

    for place in ("delayed", "dead"):
        for row, what in (
            (None, "is not there"),
            ("", "is empty"),
            ("x 0 ", "has no score"),
            ("5 x boom", "has no attempts"),
            ("5 1", "is short"),
        ):
            given = {"meta": META, place: {"a": 1000}, "rows": {"b": "5 1 boom", **({} if row is None else {"a": row})}}
            _add(
                case,
                f"the row of a member that is {place} {what}",
                f"{place}:0",
                1,
                given,
                [["row", "a", row or "", "score attempts reason"]],
                {**given, "rows": {"b": "5 1 boom", "a": "0 0 "}},
                left=(1, []),
            )
        for row in ("-1.5 0 ", "1e300 12 boom: 1 2"):
            _add(
                case,
                f"a row of a member that is {place}: {row}",
                f"{place}:0",
                1,
                {"meta": META, place: {"a": 1000}, "rows": {"a": row}},
                [],
            )

    for ahead in (5000, 5001):
        given = {"meta": META, "delayed": {"a": NOW + ahead}, "rows": {"a": "5 0 "}}
        findings = [["far", "a", str(NOW + ahead), str(NOW + 5000)]] if ahead > 5000 else []
        _add(
            case,
            f"a due time {ahead} ms ahead, at most 5000",
            "delayed:0",
            1,
            given,
            findings,
            {**given, "delayed": {"a": NOW + 5000}},
            left=(1, []),
            delay=5000,
            lease=1,
        )
        given = {"meta": META, "leases": {"l": NOW + ahead}, "lease:l": ["w", "a", "5"], "held": {"a"}}
        findings = [["far", "l", str(NOW + ahead), str(NOW + 5000)]] if ahead > 5000 else []
        _add(
            case,
            f"a deadline {ahead} ms ahead, at most 5000",
            "leases:0",
            1,
            given,
            findings,
            {**given, "leases": {"l": NOW + 5000}},
            left=(1, []),
            lease=5000,
            delay=1,
        )
    _add(
        case,
        "a due time far ahead, any is allowed",
        "delayed:0",
        1,
        {"meta": META, "delayed": {"a": NOW + 10**9}, "rows": {"a": "5 0 "}},
        [],
        lease=1,
    )
    _add(
        case,
        "a deadline far ahead, any is allowed",
        "leases:0",
        1,
        {"meta": META, "leases": {"l": NOW + 10**9}, "lease:l": ["w", "a", "5"]},
        [],
        delay=1,
    )
    _add(
        case,
        "times that are past, with small horizons",
        "delayed:0",
        1,
        {"meta": META, "delayed": {"a": 1000}, "rows": {"a": "5 0 "}},
        [],
        lease=1,
        delay=1,
    )
    _add(
        case,
        "a member that died in the future is none of it",
        "dead:0",
        1,
        {"meta": META, "dead": {"a": NOW + 10**9}, "rows": {"a": "5 0 "}},
        [],
        lease=1,
        delay=1,
    )

    scores = {"a": 1_024_000_000_000_007, "b": 1_023_000_000_000_002}
    for sequence, expected in (("6", True), ("7", False), ("8", False), (None, True)):
        meta = {"queue": "2 fifo", **({"sequence": sequence} if sequence else {})}
        given = {"meta": meta, "ready": scores if sequence else {"a": scores["a"]}}
        wrong: list[Any] = [["sequence", "meta", 7, "the last place"]] if expected else []
        _add(
            case,
            f"fifo: a place of 7, sequence {sequence or 'is not there'}",
            "ready:0",
            2 if sequence else 1,
            given,
            wrong,
            {**given, "meta": {"queue": "2 fifo", "sequence": "7"}} if expected else None,
            left=(2 if sequence else 1, []),
        )
    given = {"meta": {"queue": "2 fifo", "sequence": "x"}, "ready": {"a": scores["a"]}}
    _add(
        case,
        "fifo: a sequence that is no number",
        "ready:0",
        1,
        given,
        [["sequence", "meta", 7, "the last place"]],
        {**given, "meta": {"queue": "2 fifo", "sequence": "7"}},
        left=(1, []),
    )
    given = {"meta": {"queue": "2 fifo"}, "ready": {"a": 1_024_000_000_000_001}}
    _add(
        case,
        "fifo: a place of 1, and none was given",
        "ready:0",
        1,
        given,
        [["sequence", "meta", 1, "the last place"]],
        {**given, "meta": {"queue": "2 fifo", "sequence": "1"}},
    )
    _add(case, "score order has no places", "ready:0", 1, {"meta": META, "ready": {"a": 1_024_000_000_000_007}}, [])


def _leases(case: Cases) -> None:
    _add(
        case,
        "a lease without a list",
        "leases:0",
        1,
        {"meta": META, "leases": {"l": 1000}},
        [["lease", "l", "none", "a list"]],
        {"meta": META},
        left=(0, []),
    )
    lease = {"meta": META, "leases": {"l": 1000}, "lease:l": ["w", "a", "5", "b", "6"]}
    _add(
        case,
        "a lease names members that are not held",
        "held:0",
        2,
        {**lease, "held": {"a", "c"}, "leases": {"l": 1, "k": 2}, "lease:k": ["w", "c", "7"]},
        [["held", "b", "not held", "lease l"]],
        {**lease, "held": {"a", "b", "c"}, "leases": {"l": 1, "k": 2}, "lease:k": ["w", "c", "7"]},
        mended=[["held", "b", "not held", "lease l"]],
        left=(3, []),
    )
    _add(
        case,
        "a lease names members, and nobody is held",
        "held:0",
        0,
        lease,
        [["held", "a", "not held", "lease l"], ["held", "b", "not held", "lease l"]],
        {**lease, "held": {"a", "b"}},
        mended=None,
    )
    finding = ["held", "a", "held", "a lease"]
    for title, extra, then in (
        ("of which nothing is known", {}, {"ready": {"a": 0}}),
        ("with a row", {"rows": {"a": "5 2 boom"}}, {"rows": {"a": "5 2 boom"}, "ready": {"a": 5}}),
        ("that was pushed meanwhile", {"again": {"a": "7 0 min"}, "rows": {"a": "5 2 boom"}},
         {"rows": {"a": "5 2 boom"}, "ready": {"a": 7}}),
        ("that was removed meanwhile", {"again": {"a": "removed"}}, {}),
    ):  # fmt: skip
        _add(
            case,
            f"a member is held that no lease names: one {title}",
            "held:0",
            1,
            {"meta": META, "held": {"a"}, **extra},
            [finding],
            {"meta": META, **then},
            left=(0, []),
        )
    _add(
        case,
        "a member is held that no lease names, another one is named",
        "held:0",
        3,
        {**lease, "held": {"a", "b", "c"}},
        [["held", "c", "held", "a lease"]],
        {**lease, "held": {"a", "b"}, "ready": {"c": 0}},
        left=(2, []),
    )
    odd_lease = {"meta": META, "leases": {"l": 1000}, "lease:l": "x"}
    _add(
        case,
        "a lease whose list is of another type names nobody",
        "held:0",
        1,
        {**odd_lease, "held": {"a"}},
        [finding],
        {**odd_lease, "ready": {"a": 0}},
        left=(0, []),
    )
    bounds = re.search(
        r"at most (\d+) members are held, and named by at most (\d+) leases", load(case.script).text.decode()
    )
    assert bounds
    held, leases = map(int, bounds.groups())
    for count in (held, held + 1):
        odd = case.by_hand(
            f"{count} members are held that no lease names", {"meta": META, "held": {f"m{i}" for i in range(count)}}
        )
        odd.given = [["HSET", "{q}:meta", "queue", "2 score"],
                     ["SADD", "{q}:held", {"repeat": ["m#"], "times": count}]]  # fmt: skip
        found = [["held", {"match": "^m[1-9]"}, "held", "a lease"]] * count if count == held else []
        odd.send(["ready:0", count, found], cursor="held:0")
    for count in (leases, leases + 1):
        odd = case.by_hand(f"a member is held that no lease names, with {count} leases", {})
        odd.given = [
            ["SADD", "{q}:held", "a"],
            ["ZADD", "{q}:leases", {"repeat": ["#", "k#"], "times": count}],
        ]
        odd.send(["ready:0", 1, [finding] if count == leases else []], cursor="held:0")
    for count in (held, held + 1):
        odd = case.by_hand(f"a lease names {count} members, of which one is held", {})
        names = {"repeat": ["m#", "#"], "times": count}
        odd.given = [
            ["SADD", "{q}:held", "m1"],
            ["ZADD", "{q}:leases", "1", "l"],
            ["RPUSH", "{q}:lease:l", "w", names],
        ]
        missing = [["held", f"m{i}", "not held", "lease l"] for i in range(2, count + 1)] if count == held else []
        odd.send(["ready:0", 1, missing], cursor="held:0")
    one = {"meta": META, "leases": {"l": 1000}, "lease:l": ["w", "a", "5"]}
    _add(
        case,
        "a lease names one member, and nobody is held",
        "held:0",
        0,
        one,
        [["held", "a", "not held", "lease l"]],
        {**one, "held": {"a"}},
    )


def _strays(case: Cases) -> None:
    places = {"held": {"a"}, "ready": {"a": 5}, "delayed": {"a": 1000}, "dead": {"a": 2000}}
    values = {"again": "7 0 min", "rows": "5 1 boom", "payloads": "p"}
    for name, value in values.items():
        _add(
            case,
            f"{name} of a member that is not there",
            f"{name}:0",
            1,
            {"meta": META, name: {"a": value}, "ready": {"b": 1}},
            [["stray", "a", name, "none"]],
            {"meta": META, "ready": {"b": 1}},
            left=(0, []),
        )
        for place, index in places.items():
            others = {"meta": META, place: index, **({"leases": {"l": NOW}} if place == "held" else {})}
            given = {**others, name: {"a": value}}
            wrong = name == "again" and place != "held"
            _add(
                case,
                f"{name} of a member that is in {place}",
                f"{name}:0",
                1,
                given,
                [["stray", "a", name, "none"]] if wrong else [],
                others if wrong else None,
            )
    for place, index in places.items():
        given = {"meta": META, place: index, "rows": {"a": "x y"}}
        _add(
            case,
            f"a row of a member that is in {place} cannot be read",
            "rows:0",
            1,
            given,
            [["row", "a", "x y", "score attempts reason"]],
            {**given, "rows": {"a": "0 0 "}},
            left=(1, []),
        )
    _add(
        case,
        "a row that cannot be read of a member that is not there",
        "rows:0",
        1,
        {"meta": META, "rows": {"a": "x y"}},
        [["stray", "a", "rows", "none"]],
        {"meta": META},
    )


def _pages(case: Cases) -> None:
    many = {"meta": META, **{f"once:{i}": "1" for i in range(1, 101)}}
    pages = case.by_hand("many keys come in pages", many, given_ttl={name: 60_000 for name in many if name != "meta"})
    pages.send([{"match": "^keys:[1-9]"}, {"match": "^[1-9]$|^1.$"}, []], limit=5)
    given = {
        "meta": META,
        "ready": {f"m{i}": i for i in range(1, 601)},
        "payloads": {f"m{i}": "x" for i in range(1, 601)},
    }
    pages = case.by_hand("many members come in pages", given)
    pages.send([{"match": "^ready:[1-9]"}, {"match": "^[1-9]$|^[12].$"}, []], cursor="ready:0", limit=7)
    pages.send([{"match": "^payloads:[1-9]"}, {"match": "^[1-9]$|^[12].$"}, []], cursor="payloads:0", limit=7)
