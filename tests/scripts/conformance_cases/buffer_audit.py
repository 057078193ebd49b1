"""audit of a buffer: what it finds and repairs. The model is never damaged, so these cases are by hand."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from .buffer_items import KEEPING
from .buffer_show import everything
from .derived import refusals
from .form import CLOCK
from .scenario import NOW, WEEK, Cases, Scenario, Setup, script

META = {"queue": "2 buffer"}
PHASES = ("keys", "leases", "delayed", "dead", "groups", "since", "busy", "")


def audits(
    case: Cases,
    phases: Sequence[str],
    name: str,
    cursor: str,
    checked: int,
    given: Mapping[Any, Any],
    findings: Any,
    then: Mapping[Any, Any] | None = None,
    mended: Any = None,
    left: tuple[int, Any] | None = None,
    **args: Any,
) -> None:
    """Add a case: what an audit finds and repairs, and with `left`, what another one checks and still finds.

    `mended` is what it finds while it repairs, if that is more.
    """
    phase = cursor.partition(":")[0]
    following = phases[phases.index(phase) + 1]
    following = f"{following}:0" if following else ""
    made = case.by_hand(name, given, then, cursor=cursor, **{"lease": 0, **args})
    made.send([following, checked, findings], repair="report")
    made.send([following, checked, findings if mended is None else mended], repair="repair")
    if left:
        made.send([following, *left], repair="repair")


def emptied(
    case: Cases, meta: dict[str, str], phases: Sequence[str], finding: list[str], keeping: Mapping[str, Setup]
) -> None:
    """Add audits of a queue whose only content is a lease without its list: `finding`."""
    index, last, found = "leases", phases[-2], [finding]
    gone = {"meta": meta, "wake": ["1"], index: {finding[1]: NOW}}
    left = {"meta": {"queue": meta["queue"]}}
    following = f"{phases[phases.index(index) + 1]}:0"
    for repair, then, ttl in (("report", gone, {}), ("repair", left, {"meta": WEEK})):
        made = case.by_hand(f"nothing is left at the end: {repair}", gone, then, ttl=ttl, repair=repair)
        made.send([following, 1, found], cursor=f"{index}:0")
        made.send(["", 0, []], cursor=f"{last}:0")
    made = case.by_hand("nothing is left, but it is not the end", gone, {"meta": meta, "wake": ["1"]}, repair="repair")
    made.send([following, 1, found], cursor=f"{index}:0")
    for what, setup in keeping.items():
        given = case.state(setup) | {"wake": ["1"]}
        made = case.by_hand(f"{what} is left at the end", given, repair="repair")
        made.send(["", 0, []], cursor=f"{last}:0")


def healthy(s: Scenario) -> None:
    """Create every key that a buffer can have."""
    everything(s)
    s.do("push", group="g", item=["x"], window=60_000)
    s.do("reserve", id="r", now=NOW, lease=90_000, rates=[(5, 60_000)])
    s.do("ack", id="r", window=60_000)
    s.do("pause", reason="why")
    s.awake()


@script("buffer/audit")
def audit(case: Cases) -> None:
    case.defaults |= {"cursor": "keys:0", "lease": 0, "delay": 0, "repair": "report"}
    refusals(case)
    bad = case("cursors that no reply gives")
    for cursor in (
        "",
        "keys",
        "keys:",
        "keys:x",
        "keys:-1",
        "nothing:0",
        ":0",
        "keys:1 ",
        "groups:1000000000000000000",
    ):
        bad.refuse("BADARG", cursor=cursor)

    given = case.state(healthy)
    ttl = {name.decode(): 60_000 for name in given if name.startswith((b"once:", b"ended:", b"grants"))}
    for repair in ("report", "repair"):
        fine = case.by_hand(f"a queue where everything agrees: {repair}", given, given_ttl=ttl, repair=repair)
        sizes = [len(given), *(len(given[name.encode()]) for name in PHASES[1:-1])]
        for phase, following, size in zip(PHASES, PHASES[1:], sizes, strict=False):
            fine.send([f"{following}:0" if following else "", size, []], cursor=f"{phase}:0", limit=100)
    others = {"{r}:meta": "1", "q:x": "1", "{q}": "1"}
    foreign = case.by_hand("an empty queue, and keys that are not its own", {})
    foreign.given = [["SET", key, value] for key, value in others.items()]
    foreign.send(["leases:0", 3, []])
    for phase, following in itertools.pairwise(PHASES[1:]):
        if phase == "groups":
            ends = case.by_hand(
                "numbers at the highest that they may be", {}, lease=99_999_999_999, delay=99_999_999_999
            )
            last = f"{phase}:999999999999999999"
            ends.send([f"{following}:0", 0, []], cursor=last, limit=100, now=9_999_999_999_999)
    _keys(case)
    _types(case)
    _groups(case)
    _batches(case)
    _pages(case)
    emptied(case, META, PHASES, ["batch", "k", "none", "leases"], KEEPING)


def _add(case: Cases, name: str, cursor: str, *args: Any, **named: Any) -> None:
    audits(case, PHASES, name, cursor, *args, **named)


def _keys(case: Cases) -> None:
    found = [["unknown", "layout", "string", "none"], ["unknown", "1x", "string", "none"]]
    _add(
        case,
        "a key that no queue has is left as it is",
        "keys:0",
        3,
        {"meta": META, "layout": "1", "1x": "1"},
        {"unordered": found},
    )
    wrong = {"meta": META, "once:o": ["a"], "batch:l": "x", "items:g": "x", "wake": "x", "grants": "x", "paused": ["x"]}
    found = [
        ["type", "once:o", "list", "string"], ["type", "batch:l", "string", "list"],
        ["type", "items:g", "string", "list"], ["type", "wake", "string", "list"],
        ["type", "grants", "string", "zset"], ["type", "paused", "list", "string"],
        ["type", "ended:l", "list", "string"],
    ]  # fmt: skip
    _add(
        case,
        "keys of another type are left as they are",
        "keys:0",
        8,
        {**wrong, "ended:l": ["x"]},
        {"unordered": found},
    )
    _add(
        case,
        "a list that no index has: it may be chosen",
        "keys:0",
        2,
        {"meta": META, "items:g": ["a", "b"]},
        {"unordered": [["length", "g", "", 2], ["since", "g", "", 2]]},
        {"meta": META, "items:g": ["a", "b"], "groups": {"g": 2}, "since": {"g": NOW}},
        left=(4, []),
    )
    _add(
        case,
        "a list of a group without a name's letters",
        "keys:0",
        2,
        {"meta": META, "items:": ["a", "b"]},
        {"unordered": [["length", "", "", 2], ["since", "", "", 2]]},
        {"meta": META, "items:": ["a", "b"], "groups": {"": 2}, "since": {"": NOW}},
    )
    batch = ["g", "1", "w", "", "a"]
    _add(
        case,
        "a batch that is in no index: it is due now",
        "keys:0",
        2,
        {"meta": META, "batch:l": batch},
        [["batch", "l", "", "one index"]],
        {"meta": META, "batch:l": batch, "delayed": {"l": NOW}},
        left=(3, []),
    )
    ended = {"meta": META, "batch:l": batch, "ended:l": "lost"}
    _add(
        case,
        "a batch that is in no index, though its lease has ended",
        "keys:0",
        3,
        ended,
        [["batch", "l", "", "one index"]],
        {**ended, "delayed": {"l": NOW}},
    )
    _add(
        case,
        "a batch of one element that is in no index",
        "keys:0",
        2,
        {"meta": META, "batch:l": ["g"]},
        [["batch", "l", "", "one index"], ["header", "l", "g", "group, attempts, holder, reason, items"]],
        {"meta": META, "batch:l": ["g"], "delayed": {"l": NOW}},
    )
    one = {"meta": META, "items:g": ["a"]}
    _add(
        case,
        "a list of one item that no index has",
        "keys:0",
        2,
        one,
        {"unordered": [["length", "g", "", 1], ["since", "g", "", 1]]},
        {**one, "groups": {"g": 1}, "since": {"g": NOW}},
    )
    clock = case.by_hand(
        "a batch that is in no index is due now, by the server's clock",
        {"meta": META, "batch:l": batch},
        {"meta": META, "batch:l": batch, "delayed": {"l": CLOCK}},
    )
    clock.send(["leases:0", 2, [["batch", "l", "", "one index"]]], repair="repair", now=CLOCK)
    for title, header in (
        ("too short", ["g", "1", "w", ""]),
        ("without attempts", ["g", "x1", "w", "", "a"]),
        ("other attempts", ["g", "1x", "", "", "a"]),
    ):
        _add(
            case,
            f"a batch that does not begin as it must is left as it is: {title}",
            "keys:0",
            3,
            {"meta": META, "batch:l": header, "dead": {"l": 5}},
            [["header", "l", "g", "group, attempts, holder, reason, items"]],
        )
    _add(case, "a batch whose header is whole", "keys:0", 3, {"meta": META, "batch:l": batch, "dead": {"l": 5}}, [])


def _types(case: Cases) -> None:
    for name, kind in (
        ("meta", "hash"), ("groups", "zset"), ("since", "zset"), ("leases", "zset"), ("delayed", "zset"),
        ("dead", "zset"), ("busy", "hash"), ("paused_groups", "zset"),
    ):  # fmt: skip
        odd = case.by_hand(f"{name} is of another type: nothing else is looked at", {name: "x", "items:g": ["a"]})
        for repair in ("report", "repair"):
            odd.send(["", 1, [["type", name, "string", kind]]], repair=repair)
    odd = case.by_hand("two keys are of another type", {"meta": ["x"], "dead": "x"})
    found = [["type", "meta", "list", "hash"], ["type", "dead", "string", "zset"]]
    odd.send(["", 2, {"unordered": found}], cursor="dead:0")


def _groups(case: Cases) -> None:
    whole = {"meta": META, "items:g": ["a", "b", "c"], "groups": {"g": 3}, "since": {"g": 1000}}
    _add(
        case,
        "a length that is not its list's",
        "groups:0",
        1,
        {**whole, "groups": {"g": 2}},
        [["length", "g", "2", 3]],
        whole,
        left=(1, []),
    )
    _add(
        case,
        "what is told of another group that has the name of a length",
        "groups:0",
        1,
        {**whole, "items:3": ["x"]},
        [],
    )
    for cursor in ("groups:0", "since:0"):
        missing, there = ("since", "groups") if cursor[0] == "g" else ("groups", "since")
        given = {name: value for name, value in whole.items() if name != missing}
        kind = "length" if missing == "groups" else "since"
        _add(
            case,
            f"a group is in {there} alone, and has items",
            cursor,
            1,
            given,
            [[kind, "g", "", 3]],
            {**whole, "since": {"g": NOW}} if missing == "since" else whole,
            left=(1, []),
        )
        given = {"meta": META, there: {"g": 5}}
        kind = "length" if missing == "since" else "since"
        _add(
            case,
            f"a group is in {there} alone, and has none",
            cursor,
            1,
            given,
            [[kind, "g", "5", 0]],
            {"meta": META},
            left=(0, []),
        )
        _add(
            case,
            f"a group without items, found in {there}",
            cursor,
            1,
            {"meta": META, "groups": {"g": 3}, "since": {"g": 1000}},
            {"unordered": [["length", "g", "3", 0], ["since", "g", "1000", 0]]},
            {"meta": META},
        )
    batch = {"batch:l": ["g", "1", "w", "", "x"]}
    for name, index in (("busy", {"busy": {"g": "l"}}), ("paused", {"paused_groups": {"g": float("inf")}})):
        extra = {**(batch if name == "busy" else {}), **index, **({"leases": {"l": 200_000}} if name == "busy" else {})}
        without = {key: value for key, value in whole.items() if key not in ("groups", "since")}
        _add(
            case,
            f"a {name} group may not be chosen",
            "groups:0",
            1,
            {**whole, **extra},
            {"unordered": [["length", "g", "3", 0], ["since", "g", "1000", 0]]},
            {**without, **extra},
        )
        _add(
            case,
            f"a {name} group that is in no index is right",
            "keys:0",
            3 if name == "paused" else 5,
            {**without, **extra},
            [],
        )
    for place in ("leases", "delayed"):
        _add(
            case,
            f"a group is busy with a batch: {place}",
            "busy:0",
            1,
            {"meta": META, **batch, place: {"l": 200_000}, "busy": {"g": "l"}, "items:g": ["a"]},
            [],
        )
    for what, lists in (("whose list is gone", {}), ("of another type", {"batch:l": "x"})):
        given = {"meta": META, **lists, "leases": {"l": 200_000}, "busy": {"g": "l"}, "items:g": ["a"]}
        _add(case, f"a group is busy with a batch {what}", "busy:0", 1, given, [])
    of_another = {"batch:l": ["h", "1", "holder", "", "x"], "leases": {"l": 200_000}}
    graves: dict[str, dict[str, Any]] = {
        "that is gone": {},
        "that is dead": {**batch, "dead": {"l": 5}},
        "of another group": of_another,
    }
    for what, grave in graves.items():
        given = {"meta": META, "busy": {"g": "l"}, "items:g": ["a", "b"], **grave}
        finding = ["busy", "g", "l", "a batch that is leased or delayed"]
        _add(
            case,
            f"a group is busy with a batch {what}",
            "busy:0",
            1,
            given,
            [finding],
            {"meta": META, **grave, "items:g": ["a", "b"], "groups": {"g": 2}, "since": {"g": NOW}},
            mended={"unordered": [finding, ["length", "g", "", 2], ["since", "g", "", 2]]},
            left=(0, []),
        )
    given = {"meta": META, "busy": {"g": "l"}, "items:g": ["a"], "paused_groups": {"g": 200_000}}
    _add(
        case,
        "a group is busy with a batch that is gone, and paused",
        "busy:0",
        1,
        given,
        [["busy", "g", "l", "a batch that is leased or delayed"]],
        {"meta": META, "items:g": ["a"], "paused_groups": {"g": 200_000}},
    )
    _add(
        case,
        "a group whose list is of another type",
        "groups:0",
        1,
        {"meta": META, "items:g": "x", "groups": {"g": 2}},
        [],
    )


def _batches(case: Cases) -> None:
    batch = {"meta": META, "batch:l": ["g", "1", "w", "", "a"]}
    for names in ("leases delayed", "leases dead", "delayed dead", "leases delayed dead"):
        stays = names.split()[0]
        for place in names.split():
            _add(
                case,
                f"a batch is in {names}, found in {place}: it stays in {stays}",
                f"{place}:0",
                1,
                {**batch, **{index: {"l": 1000} for index in names.split()}},
                [["batch", "l", names, "one index"]],
                {**batch, stays: {"l": 1000}},
                left=(int(place == stays), []),
            )
    for names in ("leases", "delayed", "dead", "leases dead"):
        place = names.split()[-1]
        _add(
            case,
            f"{names}: the batch is not there",
            f"{place}:0",
            1,
            {"meta": META, **{index: {"l": 1000} for index in names.split()}},
            [["batch", "l", "none", names]],
            {"meta": META},
            left=(0, []),
        )
        _add(
            case,
            f"{names}: the batch is of another type",
            f"{place}:0",
            1,
            {"meta": META, "batch:l": "x", **{index: {"l": 1000} for index in names.split()}},
            [],
        )
    for index, option in (("leases", "lease"), ("delayed", "delay")):
        other = {"lease": "delay", "delay": "lease"}[option]
        for ahead in (5000, 5001):
            given = {**batch, index: {"l": NOW + ahead}}
            last = str(NOW + 5000)
            findings = [["far", "l", str(NOW + ahead), last]] if ahead > 5000 else []
            _add(
                case,
                f"{index}: a time {ahead} ms ahead, at most 5000",
                f"{index}:0",
                1,
                given,
                findings,
                {**given, index: {"l": NOW + 5000}},
                left=(1, []),
                **{option: 5000, other: 1},
            )
        _add(
            case,
            f"{index}: a time far ahead, any is allowed",
            f"{index}:0",
            1,
            {**batch, index: {"l": NOW + 10**9}},
            [],
            **{other: 1},
        )
        _add(
            case,
            f"{index}: a time that is past, with a small horizon",
            f"{index}:0",
            1,
            {**batch, index: {"l": 1000}},
            [],
            **{option: 1},
        )
    _add(
        case,
        "a batch that died in the future is none of it",
        "dead:0",
        1,
        {**batch, "dead": {"l": NOW + 10**9}},
        [],
        lease=1,
        delay=1,
    )
    _add(
        case,
        "a lease far ahead of a batch that is not there",
        "leases:0",
        1,
        {"meta": META, "leases": {"l": NOW + 6000}},
        [["far", "l", str(NOW + 6000), str(NOW + 5000)], ["batch", "l", "none", "leases"]],
        {"meta": META},
        lease=5000,
    )
    _add(
        case,
        "two batches of an index",
        "leases:0",
        2,
        {"meta": META, "leases": {"k": 1000, "l": 2000}},
        [["batch", "k", "none", "leases"], ["batch", "l", "none", "leases"]],
        {"meta": META},
    )


def _pages(case: Cases) -> None:
    many = {"meta": META, **{f"once:{i}": "1" for i in range(1, 101)}}
    pages = case.by_hand("many keys come in pages", many, given_ttl={name: 60_000 for name in many if name != "meta"})
    pages.send([{"match": "^keys:[1-9]"}, {"match": "^[1-9]$|^1.$"}, []], limit=5)
    groups = {f"g{i}": i for i in range(1, 201)}
    lists = {f"items:g{i}": ["x"] for i in range(1, 201)}
    given = {"meta": META, "groups": dict.fromkeys(groups, 1), "since": groups, **lists}
    pages = case.by_hand("many groups come in pages", given)
    for index in ("groups", "since"):
        pages.send([{"match": f"^{index}:[1-9]"}, {"match": "^[1-9]$|^[12].$"}, []], cursor=f"{index}:0", limit=7)
