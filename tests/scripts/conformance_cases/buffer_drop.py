"""drop_group of a buffer. The model does it in one call, so the later steps of a drop are written by hand."""

from __future__ import annotations

from .buffer_items import KEEPING, lease, waiting
from .derived import by_type, derive
from .form import CLOCK
from .scenario import NOW, WEEK, Cases, Scenario, script

MINUTE = 60_000
MANY = 200  # so many entries that ZSCAN returns them in pages


def _in(place: str, s: Scenario, id: str, items: str, group: str = "g", **values: object) -> None:  # noqa: A002
    """Bring a batch into a state."""
    lease(s, items, group, id, lease=9_000_000, **values)
    if place != "leases":
        s.do({"delayed": "release", "dead": "bury"}[place], id=id, delay=9_000_000, reason="boom")


def _everything(s: Scenario) -> None:
    """Bring batches of two groups into each state, with waiting items in both."""
    for place in ("leases", "delayed", "dead"):
        for group in ("g", "h"):
            _in(place, s, f"{place} of {group}", "ab", group)
    waiting(s, g="abc", h="de")


@script("buffer/drop_group")
def drop_group(case: Cases) -> None:
    case.defaults["state"] = 0
    derive(
        case,
        _everything,
        reads=["busy", "paused_groups", "batch:delayed of h", "batch:dead of h", "wake", "leases"],
        highest={"state": 0, "start": 0},
        lowest={"limit": case.most("limit")},
    )
    wrong = case("cursors that no reply gives")
    keys, argv = ["{q}:meta", "{q}:items:g", "{q}:once:o"], ["100", "0", str(NOW)]
    for cursor in ("", "0", "0 ", " 0 0", "0 -1", "2 0", "00 0", "0 0x1", "0 1.5", "0 1e3", "0:0", "0 0 0"):
        wrong.refuse_raw("BADARG", ["g", cursor, *argv], keys)

    s = case("all but what is leased, and nothing of another group")
    _everything(s)
    s.send()
    s = case("items that wait")
    waiting(s, g="abc", h="de")
    s.send()
    for place in ("delayed", "dead"):
        s = case(f"batches that are {place}")
        _in(place, s, "k", "abc")
        _in(place, s, "l", "de")
        _in(place, s, "m", "f", "h")
        s.send()
    s = case("a leased batch stays")
    _in("leases", s, "k", "abc")
    s.send()
    s = case("a group that is not there")
    waiting(s, h="de")
    s.send()
    s = case("an empty queue")
    s.send()
    s = case("the last ones: counters stay for seven days, a wake-up goes")
    _in("delayed", s, "k", "abc")
    _in("dead", s, "l", "de")
    waiting(s, g="fg")
    s.awake()
    s.send()
    for what, setup in KEEPING.items():
        s = case(f"all of a group, but {what} is there")
        setup(s)
        waiting(s, i="ab")
        s.awake()
        s.send(group="i")
    s = case("a group that is busy for a delayed batch is free")
    _in("delayed", s, "k", "abc", ordered=1)
    waiting(s, g="de", h="f")
    s.send()
    s = case("a group that is busy for a leased batch stays busy")
    _in("leases", s, "k", "abc", ordered=1)
    _in("delayed", s, "l", "de", "h", ordered=1)
    waiting(s, g="fg")
    s.send()
    s = case("another group that is busy for a delayed batch stays busy")
    _in("delayed", s, "k", "abc", ordered=1)
    waiting(s, h="f")
    s.send(group="h")
    s = case("a group that is paused stays so")
    _in("delayed", s, "k", "abc")
    _in("dead", s, "l", "de")
    s.do("pause_group")
    waiting(s, g="fg")
    s.send()
    s = case("a paused queue")
    waiting(s, g="fg", h="i")
    s.do("pause", reason="why")
    s.send()
    s = case("sent again, what was pushed meanwhile stays")
    waiting(s, g="ab")
    s.send()
    s.send_other("push", once="p", item=["c"])
    s.send(now=NOW + 5)
    s.send(once="q")
    s = case("any bytes in its name")
    for id_ in ("k", "l"):
        s.do("push", group=b"\xff: \x00", item=["a", "b"])
        s.do("reserve", id=id_)
        s.do("bury" if id_ == "k" else "release", id=id_)
    s.do("push", group=b"\xff: \x00", item=["a"])
    s.send(group=b"\xff: \x00")
    s = case("thousands of items")
    s.do("push", item=["x"] * 3000)
    s.do("push", item=["x"] * 3000)
    s.send()
    _parts(case)
    _damaged(case)


def _parts(case: Cases) -> None:
    meta = {"meta": {"queue": "2 buffer"}}
    batch = ["g", "1", "w", "", "a", "b"]
    rest = {"items:g": ["c", "d"], "groups": {"g": 2}, "since": {"g": 1000}}
    once, ttl = {"once:o": "2 "}, {"once:o": MINUTE}
    for what, waits in (("it", {"items:h": ["e"], "groups": {"h": 1}, "since": {"h": 5}}), ("nothing else", rest)):
        later = case.by_hand(
            f"a later part, dead batches: what waits stays, and {what} is there",
            {**meta, **waits, "delayed": {"k": 7}, "batch:k": batch, "dead": {"l": 8}, "batch:l": batch},
            {**meta, **waits, "delayed": {"k": 7}, "batch:k": batch, **once}
            | ({"wake": ["1"]} if waits is rest else {}),
            ttl=ttl,
        )
        later.send(["", 2], state=1)
    later = case.by_hand(
        "a later part ends what kept the group busy: what was pushed meanwhile is offered",
        {**meta, "items:g": ["c", "d"], "busy": {"g": "k"}, "dead": {"l": 8}, "batch:l": batch},
        {**meta, "items:g": ["c", "d"], "groups": {"g": 2}, "since": {"g": NOW}, "wake": ["1"], **once},
        ttl=ttl,
    )
    later.send(["", 2], state=1)
    given = {**meta, "items:g": ["c"], "busy": {"g": "k"}, "wake": ["1"]}
    for now, what in ((NOW, "a wake-up is enough"), (CLOCK, "the time is the server's")):
        then = {**meta, "items:g": ["c"], "groups": {"g": 1}, "since": {"g": now}, "wake": ["1"], "once:o": "0 "}
        later = case.by_hand(f"a later part ends what kept the group busy; {what}", given, then, ttl=ttl)
        later.send(["", 0], state=1, now=now)
    by_type(case, _everything, only=["items:g", "busy"], title=": a later part", state=1)
    long = case.by_hand("a cursor as long as it may be", meta, {**meta, "once:o": "0 "}, ttl={"meta": WEEK, **ttl})
    long.send(["", 0], state=1, start=10**18 - 1)
    named = {**meta, "leases": {"5": 9}, "batch:5": batch}
    later = case.by_hand(
        "a leased batch that has the name of another's time stays",
        {**named, "delayed": {"k": 5}, "batch:k": batch},
        {**named, **once},
        ttl=ttl,
    )
    later.send(["", 2])
    later = case.by_hand(
        "a later part ends what kept the group busy, but it is paused",
        {**meta, "items:g": ["c"], "busy": {"g": "k"}, "paused_groups": {"g": 9e9}, "dead": {"l": 8}, "batch:l": batch},
        {**meta, "items:g": ["c"], "paused_groups": {"g": 9e9}, **once},
        ttl=ttl,
    )
    later.send(["", 2], state=1)
    later = case.by_hand(
        "a later part leaves nothing: counters stay for seven days",
        {**meta, "wake": ["1"], "dead": {"l": 8}, "batch:l": batch},
        {**meta, **once},
        ttl={"meta": WEEK, **ttl},
    )
    later.send(["", 2], state=1)
    answered = {**meta, **rest, "dead": {"l": 8}, "batch:l": batch}
    for remembered, reply in (("7 ", ["", 7]), ("12 0 448", ["0 448", 12]), ("0 1 96", ["1 96", 0])):
        again = case.by_hand(
            f"sent again, the answer was {reply[1]} items and the cursor {reply[0] or 'was empty'}",
            {**answered, "once:o": remembered},
            {**answered, "once:o": remembered},
            given_ttl=ttl,
            ttl=ttl,
        )
        again.send(reply)

    ids = [f"k{i}" for i in range(1, MANY + 1)]
    for place in ("delayed", "dead"):
        many = {f"batch:{id_}": ["g", "1", "w", "", f"a{i}"] for i, id_ in enumerate(ids, 1)}
        others = {"x": 1, "y": 2, "z": 3}
        left = {f"batch:{id_}": ["h", "1", "w", "", "a"] for id_ in others}
        given = {**meta, place: {**{id_: 1000 + i for i, id_ in enumerate(ids)}, **others}, **many, **left}
        before = 0 if place == "delayed" else 1
        parts = case.by_hand(
            f"more than one call looks at: {place}", {**given, **rest}, {**meta, place: others, **left}, window=0
        )
        some = {"match": rf"^{before} [1-9]\d*$"}, {"match": r"^\d{1,2}$"}
        parts.send([some[0], {"match": r"^\d{1,2}$"}], limit=5)
        parts.send([some[0], some[1]], limit=1)
        parts.send(["", {"match": r"^\d{1,3}$"}], limit=case.most("limit"))
        parts.send(["", 0], limit=case.most("limit"))
    both = {"delayed": {id_: 1000 + i for i, id_ in enumerate(ids)}}
    both["dead"] = {f"d{id_}": score for id_, score in both["delayed"].items()}
    lists = {f"batch:{id_}": ["g", "1", "w", "", "a"] for place in both.values() for id_ in place}
    all_of_it = case.by_hand(
        "as many of both kinds as one call looks at", {**meta, **both, **lists}, meta, ttl={"meta": WEEK}, window=0
    )
    all_of_it.send(["", 2 * MANY], limit=case.most("limit"))


def _damaged(case: Cases) -> None:
    meta = {"meta": {"queue": "2 buffer"}}
    gone = case.by_hand(
        "the server evicted lists: a reserve drops what is left",
        {**meta, "groups": {"g": 2, "h": 1}, "since": {"g": 1, "h": 1}, "items:h": ["a"], "delayed": {"k": 5}},
        {**meta, "groups": {"h": 1}, "since": {"h": 1}, "items:h": ["a"], "delayed": {"k": 5}, "once:o": "0 "},
        ttl={"once:o": MINUTE},
    )
    gone.send(["", 0])
    short = case.by_hand(
        "a batch that has no items",
        {**meta, "dead": {"k": 5, "l": 6}, "batch:k": ["g"], "batch:l": ["g", "1", "", "", "a"]},
        {**meta, "once:o": "1 "},
        ttl={"once:o": MINUTE, "meta": WEEK},
    )
    short.send(["", 1])
