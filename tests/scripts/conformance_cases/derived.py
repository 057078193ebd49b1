"""Cases that follow from a script's header alone, made from one call that the script accepts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from redisq.core.scripts import Slot, load
from tests.model import Keys

from .form import CLOCK, PREFIX
from .scenario import NOW, Cases, Setup, pack

MARKS = {"buffer": ("2 fifo", "3 buffer"), "priority": ("2 buffer", "3 score"), "limit": ("3 buffer", "1")}
"""marks that a structure's scripts must refuse"""


def derive(
    case: Cases,
    setup: Setup,
    *,
    reads: Iterable[str] = (),
    unread: Iterable[str] = (),
    highest: Mapping[str, Any] | None = None,
    lowest: Mapping[str, Any] | None = None,
    **args: Any,
) -> None:
    """Add the cases that follow from the header; `setup` and `args` make a call that the script accepts.

    `reads` are keys, besides the declared and the changed ones, that the call requires; `unread` are declared keys that
    it does not require. `highest` and `lowest` have what numbers at the ends of their ranges require.
    """
    made, case = case, Cases(case.script)
    case.defaults, case.all = made.defaults, made.derived
    refusals(case, **args)
    by_type(case, setup, reads, unread, **args)
    again(case, setup, **args)
    header = load(case.script)
    timed = any(slot.name == "now" for slot in header.args)
    if timed:
        scenario = case("the time is the server's")
        setup(scenario)
        scenario.send(**{**args, "now": CLOCK})
    ends = [slot for one in header.args for slot in (one, *one.fields) if slot.type == "int" and not slot.rest]
    for name, which, given in (("highest", "high", highest), ("lowest", "low", lowest)):
        if ends or timed:
            scenario = case(f"numbers at the {name} that they may be")
            setup(scenario)
            values = {slot.name: getattr(slot, which) for slot in ends}
            if timed:
                values["now"] = 9_999_999_999_999 if name == "highest" else 0
            if any(slot.name == "rates" for slot in header.args):
                most = header.limit("rates")[1]
                values["rates"] = [(99_999_999_999, 99_999_999_999)] * most if name == "highest" else [(1, 1)]
            scenario.send(**{**args, **values, **(given or {})})


# -- refusals


def refusals(case: Cases, **args: Any) -> None:
    """Add calls with arguments out of range, with too few and too many of them, and on queues of another kind."""
    header = load(case.script)
    rest = header.args[-1] if header.args[-1].rest else None
    short = {**args, rest.name: []} if rest and not rest.low else args
    fixed = [slot for slot in header.args if not slot.rest]
    scenario = case("arguments that are out of range")
    keys, argv = pack(case.script, scenario.values(short))
    for place, slot in enumerate(fixed):
        for bad in _bad(slot, argv[place : place + 1]):
            scenario.refuse_raw("BADARG", [*argv[:place], bad, *argv[place + 1 :]], keys)
    if not scenario.steps:
        case.all.remove(scenario)

    scenario = case("too few or too many keys or arguments")
    least = len(fixed) - any(slot.note.startswith("0..1 ") for slot in fixed)
    for few in sorted({0, min(1, least - 1), least - 1}):
        scenario.refuse_raw("BADARG", argv[:few], keys)
    if rest:
        for others in _bad_rest(rest):
            scenario.refuse_raw("BADARG", [*argv[: len(fixed)], *others], keys)
    else:
        scenario.refuse_raw("BADARG", [*argv, *["x"] * (len(fixed) + 1 - len(argv))], keys)
    scenario.refuse_raw("BADARG", argv, keys[:-1])
    scenario.refuse_raw("BADARG", argv, [*keys, f"{PREFIX}x"])

    for mark in MARKS[case.script.partition("/")[0]]:
        case.by_hand(f"a queue that is marked {mark}", {"meta": {"queue": mark}}).refuse("LAYOUT", **short)
    if "WRONGORDER" in header.errors:
        other = case.by_hand("a queue in the other order", {"meta": {"queue": "2 fifo"}})
        other.refuse("WRONGORDER", **{**short, "order": "score"})
        other = case.by_hand("a plain sorted set is no fifo queue", {"ready": {"m": 1}})
        other.refuse("WRONGORDER", **{**short, "order": "fifo"})


def _bad(slot: Slot, good: list[Any]) -> Iterator[str]:
    """Return invalid texts for an argument."""
    if slot.fields:
        numbers = str(good[0]).split(" ")
        for place, field in enumerate(slot.fields):
            for bad in _bad_integers(field):
                yield " ".join([*numbers[:place], bad, *numbers[place + 1 :]])
        yield " ".join(numbers[:-1])
        yield " ".join([*numbers, "0"])
        yield " ".join(numbers) + " "
    elif slot.type == "int":
        yield from ("", *_bad_integers(slot))
    elif slot.type == "ms":
        yield from ("-1", "1.5", "x", "10000000000000")
    elif slot.type == "enum":
        yield from ("", "x")
    elif slot.note.startswith("not empty"):
        yield ""


def _bad_integers(slot: Slot) -> Iterator[str]:
    assert slot.low is not None
    assert slot.high is not None
    yield from (str(slot.low - 1), str(slot.high + 1), "x", "1.5")
    if slot.high >= 100_000:
        yield "1e3"


def _bad_rest(slot: Slot) -> Iterator[list[Any]]:
    """Return invalid values for a slot that takes the rest: too many values, incomplete pairs, other numbers."""
    if slot.low and slot.type == "pairs":
        yield []
    most = [] if slot.high is None or slot.type == "int" else [slot.high + 1]
    if slot.name == "rates":
        yield from (["1"], ["1", "1", "1"], ["0", "1"], ["1", "0"], ["x", "1"], ["1", "x"], ["1.5", "1"], ["1", "1.5"])
        yield from (["100000000000", "1"], ["1", "100000000000"], ["1", "1", "-1", "1"], ["", "1"])
        yield from (["0x10", "1"], ["1", "0x10"], ["1e3", "1"], ["1", "1e3"], [" 1", "1"], ["1", "+1"])
    if slot.type == "pairs":
        yield ["1"]
        member = {"item": ["1", "m#"], "failed": ["#", "x"], "rates": ["1", "1"]}[slot.name]
        yield from ([{"repeat": member, "times": times}] for times in most)
    else:
        yield from ([{"repeat": ["x#"], "times": times}] for times in most)


def by_type(
    case: Cases,
    setup: Setup,
    reads: Iterable[str] = (),
    unread: Iterable[str] = (),
    only: Iterable[str] = (),
    title: str = "",
    **args: Any,
) -> None:
    """Add a case for each key that a call requires, or `only` for these: it has another type, nothing is written."""
    scenario = case("")
    case.all.pop()
    setup(scenario)
    scenario._start()
    before, ttl = scenario.keys(), dict(scenario.ttl)
    scenario._expected(case.script, args)
    after = scenario.keys()
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    header = load(case.script)
    keys = pack(case.script, scenario.values(args))[0]
    declared = {
        str(key).split("}:", 1)[1].encode(): slot.type
        for key, slot in zip(keys, header.keys, strict=True)
        if slot.type != "none"
    }
    needed = {*changed, *declared, *(name.encode() for name in reads)} - {name.encode() for name in unread}
    for name in sorted(name.encode() for name in only) or sorted(needed):
        text = name.partition(b":")[0] in (b"once", b"ended", b"paused")
        given: Keys = {**before, name: [b"x"] if text else b"x"}
        made = case.by_hand(f"{name.decode()} is of another type{title}", given, given_ttl=_ttl(ttl, name))
        made.refuse("WRONGTYPE", **args)


def _ttl(ttl: Mapping[bytes, int], but: bytes) -> dict[str, int]:
    return {name.decode(): time for name, time in ttl.items() if name != but}


# -- repeated calls


def again(case: Cases, setup: Setup, **args: Any) -> None:
    """Add what a second run of the call does."""
    header = load(case.script)
    if header.replay == "no":
        return
    scenario = case("sent again")
    setup(scenario)
    scenario.send(**args)
    scenario.send(**args)
    if any(slot.name == "now" for slot in header.args):
        scenario.send(**{**args, "now": args.get("now", NOW) + 500})
    if header.replay in ("once", "lease"):
        scenario = case("sent again, when nothing is remembered")
        setup(scenario)
        scenario.send(**args, window=0)
        scenario.send(**args, window=0)
