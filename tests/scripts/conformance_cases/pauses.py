"""Pauses of a queue, in both structures, and of a buffer's groups: pause, resume, pause_group, resume_group."""

from __future__ import annotations

from . import buffer_items, priority_push
from .buffer_items import lease, waiting
from .derived import derive
from .scenario import NOW, Cases, Scenario, Setup, script

MINUTE = 60_000
KEEPING: dict[str, dict[str, Setup]] = {
    "buffer": buffer_items.KEEPING,
    "priority": {"a member": lambda s: priority_push.ready(s, a=1), **priority_push.KEEPING},
}
MARKS = {"buffer": "2 buffer", "priority": "2 score"}


def _some(s: Scenario) -> None:
    """Add something that waits."""
    s.do("push", item=["a"] if s.structure == "buffer" else [(1, "a")])


def _drained(s: Scenario) -> None:
    """Empty a queue."""
    _some(s)
    s.do("pop")


@script("buffer/pause")
@script("priority/pause")
def pause(case: Cases) -> None:
    structure = case.script.split("/")[0]
    derive(case, _paused, duration=MINUTE, reason="why not")

    s = case("until it is resumed")
    _some(s)
    s.send(reason="why not")
    s = case("for a time")
    _some(s)
    s.send(duration=MINUTE, reason="why not")
    s = case("without a reason")
    _some(s)
    s.send()
    s = case("an empty queue stays empty")
    s.send(duration=MINUTE)
    s = case("an empty queue stays empty, whatever pause there was")
    s.do("pause", duration=MINUTE)
    s.send(reason="another")
    s = case("a queue that was drained is forgotten as before")
    _drained(s)
    s.send(reason="why")
    for first, second, what in (
        (0, MINUTE, "an end instead of none"), (MINUTE, 0, "no end any more"), (MINUTE, 2 * MINUTE, "a later end"),
        (2 * MINUTE, MINUTE, "an earlier end"), (0, 0, "another reason"),
    ):  # fmt: skip
        s = case(f"in the place of another pause, whoever waits is told: {what}")
        _some(s)
        s.do("pause", duration=first, reason="earlier")
        s.send(duration=second, reason="later", now=NOW + 5)
    s = case("in the place of another pause: a wake-up that lies there is enough")
    _paused(s)
    s.awake()
    s.send(duration=MINUTE)
    for what, setup in KEEPING[structure].items():
        s = case(f"in the place of another pause, and all that is there is {what}")
        setup(s)
        s.do("pause")
        s.send(duration=MINUTE)
    for what, text in (
        ("as long as it may be", b"x" * 1000), ("a byte too long", b"x" * 1001), ("much too long", b"x" * 3000),
        ("cut within a character", "é".encode() * 600), ("any bytes", b"\xff\x00\r\n 5 "),
    ):  # fmt: skip
        s = case(f"a reason that is {what}")
        s.send(reason=text)
    s = case("sent again after another pause, that one stays")
    _some(s)
    s.send(duration=MINUTE, reason="first")
    s.send(reason="second", once="p")
    s.send(duration=MINUTE, reason="first")
    s = case("sent again after it was resumed, nothing is paused")
    _some(s)
    s.send(reason="first")
    s.send_other("resume", once="p")
    s.send(reason="first")
    meta = {"meta": {"queue": MARKS[structure]}}
    over = case.by_hand(
        "a pause that has ended and is still there",
        {**meta, "paused": "1 x"},
        {**meta, "paused": b"0 why", "once:o": "1"},
        given_ttl={"paused": MINUTE},
        ttl={"once:o": MINUTE},
    )
    over.send(1, reason="why")


def _paused(s: Scenario) -> None:
    _some(s)
    s.do("pause", reason="earlier")


@script("buffer/resume")
@script("priority/resume")
def resume(case: Cases) -> None:
    structure = case.script.split("/")[0]
    derive(case, _paused)

    s = case("it is paused for a time")
    _some(s)
    s.do("pause", duration=MINUTE)
    s.send()
    s = case("it is not paused")
    _some(s)
    s.send()
    s = case("a wake-up that lies there is enough")
    _paused(s)
    s.awake()
    s.send()
    s = case("it is not paused, and a wake-up lies there")
    _some(s)
    s.awake()
    s.send()
    for what, setup in KEEPING[structure].items():
        s = case(f"whoever waits is woken, and all that is there is {what}")
        setup(s)
        s.do("pause")
        s.send()
    s = case("an empty queue wakes nobody")
    s.do("pause")
    s.send()
    s = case("an empty queue that is not paused")
    s.send()
    s = case("a queue that was drained is forgotten as before")
    _drained(s)
    s.do("pause")
    s.send()
    s = case("sent again after another pause, that one stays")
    _paused(s)
    s.send()
    s.send_other("pause", once="p", reason="again")
    s.send()
    s = case("sent again, it was not paused at first")
    _some(s)
    s.send()
    s.send_other("pause", once="p", reason="again")
    s.send()
    over = case.by_hand(
        "a pause that has ended and is still there was one",
        {"paused": "1 x"},
        {"once:o": "1"},
        given_ttl={"paused": MINUTE},
        ttl={"once:o": MINUTE},
    )
    over.send(1)


@script("buffer/pause_group")
def pause_group(case: Cases) -> None:
    derive(case, lambda s: (waiting(s, g="ab", h="c"), s.do("pause_group", group="i")), duration=MINUTE)

    for duration, what in ((0, "until it is resumed"), (MINUTE, "for a time"), (1, "for a ms")):
        s = case(f"it is not offered {what}")
        waiting(s, g="ab", h="c")
        s.send(duration=duration)
        s = case(f"a group without items {what}")
        waiting(s, h="c")
        s.send(duration=duration)
        s = case(f"an empty queue {what}: its pause and nothing else")
        s.send(duration=duration)
    s = case("a wake-up that lies there is enough")
    waiting(s, g="ab")
    s.awake()
    s.send(duration=MINUTE)
    s = case("a queue that was drained: counters are forgotten as before, until something is pushed")
    _drained(s)
    s.send()
    for what, setup in buffer_items.KEEPING.items():
        s = case(f"whoever waits is to hear of its end: {what} is there")
        setup(s)
        s.send(duration=MINUTE)
    for first, second, what in (
        (0, MINUTE, "an end instead of none"), (MINUTE, 0, "no end any more"), (MINUTE, 2 * MINUTE, "a later end"),
        (2 * MINUTE, MINUTE, "an earlier end"), (0, 0, "nothing else"),
    ):  # fmt: skip
        s = case(f"in the place of another pause: {what}")
        waiting(s, g="ab")
        s.do("pause_group", duration=first)
        s.send(duration=second, now=NOW + 5)
    s = case("in the place of a pause that has ended")
    s.do("pause_group", duration=1000, now=2000)
    waiting(s, g="ab")
    s.send(duration=MINUTE)
    s = case("a group that is busy stays so")
    lease(s, "ab", ordered=1)
    waiting(s, g="cd")
    s.send(duration=MINUTE)
    s = case("what is leased, delayed or dead stays")
    for i, how in enumerate(("release", "bury", "")):
        lease(s, "ab", id=f"l{i}")
        if how:
            s.do(how, id=f"l{i}", delay=9_000_000)
    s.send()
    s = case("sent again after it was resumed, it is not paused")
    waiting(s, g="ab")
    s.send(duration=MINUTE)
    s.send_other("resume_group", once="p")
    s.send(duration=MINUTE, now=NOW + 5)
    s = case("any bytes in its name")
    s.do("push", group=b"\xff: \x00", item=["a"])
    s.send(group=b"\xff: \x00", duration=MINUTE)


@script("buffer/resume_group")
def resume_group(case: Cases) -> None:
    def setup(s: Scenario) -> None:
        waiting(s, g="ab", h="c")
        s.do("pause_group")

    derive(case, setup, reads=["busy", "items:g", "leases", "delayed", "dead"])

    s = case("it is offered, and waits from now on")
    setup(s)
    s.send()
    s = case("a wake-up that lies there is enough")
    setup(s)
    s.awake()
    s.send()
    s = case("its pause has an end")
    waiting(s, g="ab", h="c")
    s.do("pause_group", duration=MINUTE)
    s.send()
    s = case("its pause has ended")
    s.do("pause_group", duration=1000, now=2000)
    waiting(s, g="ab")
    s.send()
    s = case("it is not paused: it waits as long as before")
    waiting(s, g="ab", h="c")
    s.send()
    s = case("it is not paused and has no items")
    waiting(s, h="c")
    s.send()
    s = case("another group is paused")
    s.do("pause_group", group="h")
    waiting(s, g="ab", h="c")
    s.send()
    s = case("a group without items is not offered, and wakes nobody")
    waiting(s, h="c")
    s.do("pause_group")
    s.send()
    s = case("a busy group is not offered")
    lease(s, "ab", ordered=1)
    s.do("pause_group")
    waiting(s, g="cd")
    s.send()
    s = case("a busy group that is not paused")
    lease(s, "ab", ordered=1)
    waiting(s, g="cd")
    s.send()
    s = case("its pause was all that there was: a wake-up goes")
    s.do("pause_group", duration=MINUTE)
    s.awake()
    s.send()
    s = case("its pause was all that kept the queue: counters stay for seven days")
    s.do("pause_group")
    lease(s, "ab", group="h")
    s.do("ack")
    s.awake()
    s.send()
    for what, keeping in buffer_items.KEEPING.items():
        s = case(f"its pause was all that there was, but {what} is there")
        s.do("pause_group", group="i")
        keeping(s)
        s.awake()
        s.send(group="i")
    s = case("sent again after another pause, that one stays")
    setup(s)
    s.send()
    s.send_other("pause_group", once="p", duration=MINUTE)
    s.send(now=NOW + 5)
    s = case("any bytes in its name")
    s.do("pause_group", group=b"\xff: \x00")
    s.do("push", group=b"\xff: \x00", item=["a"])
    s.send(group=b"\xff: \x00")
    meta = {"meta": {"queue": "2 buffer"}}
    given = {**meta, "items:g": ["a", "b"], "paused_groups": {"g": float("inf")}, "since": {"g": 5}}
    odd = case.by_hand(
        "it waits since the time that is there",
        given,
        {**meta, "items:g": ["a", "b"], "since": {"g": 5}, "groups": {"g": 2}, "wake": ["1"], "once:o": "1"},
        ttl={"once:o": MINUTE},
    )
    odd.send(1)
