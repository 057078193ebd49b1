"""Checks whether the model allows a history of concurrent calls, and shows the shortest illegal part if it does not.

Short histories are searched (Wing and Gong, with Lowe's memoization): is there an order of the calls that fits their
times, in which the model gives every reply? The order of long ones is known from MONITOR: they are replayed on the
model in that order, and the order is compared with the clients' own times.
"""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any, Protocol

from .history import LOST, RecordedCall, show


class Model(Protocol):
    """The model of a structure: an empty state, and the reply to each call."""

    def initial(self) -> Any:
        """Return the state before the first call."""
        ...

    def step(self, state: Any, call: RecordedCall) -> Any:
        """Change the state as the call does, and return its reply."""
        ...


_HIDDEN = (b"once:", b"ended:", b"wake")  # not shown in a report
UNKNOWN = "?"
"""The reply of a call that has not ended: anything; it may not have taken effect either."""
_IGNORED = {"token", "drained", "totals", "lease"}
"""State that no reply depends on: wake-ups, TTLs, the model's own checks, and a setting that each reserve sets."""
_PLAIN = (bytes, str, int, float)
NEVER = 1 << 63


def frozen(value: Any) -> Hashable:
    """Return a state as a hashable key, the same for equal states."""
    if isinstance(value, _PLAIN):  # the most frequent case first: the search spends its time here
        return value
    if dataclasses.is_dataclass(value):
        return tuple(frozen(item) for name, item in vars(value).items() if name not in _IGNORED)
    if isinstance(value, dict):
        return tuple(sorted((name, frozen(item)) for name, item in value.items()))
    if isinstance(value, (list, tuple)):
        return tuple(map(frozen, value))
    return value  # type: ignore[no-any-return]


def search(model: Model, calls: Sequence[RecordedCall], asked: int = -1) -> list[Any]:
    """Return the possible replies of the call number `asked`; without `asked`, [None] if there is a legal order.

    Empty if there is no legal order. Calls whose reply is UNKNOWN may be left out.
    """
    ends = [call.end if call.reply != UNKNOWN else NEVER for call in calls]
    needed = sum(1 << i for i, call in enumerate(calls) if call.reply != UNKNOWN or i == asked)
    if not needed:
        return [None]
    begun = sorted(range(len(calls)), key=lambda i: calls[i].start)  # a good first guess at the order
    found: dict[str, Any] = {}
    tried: set[tuple[int, Hashable, str]] = set()

    def following(done: int) -> Iterator[int]:
        """Yield the calls that may come next: those that began before any remaining call ended."""
        left = [i for i in begun if not done >> i & 1]
        first_end = min(ends[i] for i in left)
        return (i for i in left if calls[i].start <= first_end)

    stack = [(0, pickle.dumps(model.initial(), -1), None, following(0))]
    while stack:
        done, state, answer, candidates = stack[-1]
        i = next(candidates, -1)
        if i < 0:
            stack.pop()
            continue
        call, after = calls[i], pickle.loads(state)
        reply = model.step(after, call)
        if i != asked and call.reply not in (reply, UNKNOWN):
            continue
        given = reply if i == asked else answer
        now_done = done | 1 << i
        key = (now_done, frozen(after), repr(given))
        if key in tried:
            continue
        tried.add(key)
        if now_done & needed == needed:
            found[repr(given)] = given
            if asked < 0:
                break
        else:
            stack.append((now_done, pickle.dumps(after, -1), given, following(now_done)))
    return list(found.values())


def linearizable(model: Model, calls: Sequence[RecordedCall]) -> bool:
    """Return whether there is a legal order."""
    return bool(search(model, calls))


def replay(model: Model, calls: Iterable[RecordedCall]) -> tuple[int, Any] | None:
    """Replay calls in this order; return the place of the first wrong reply and the model's reply there, or None."""
    state = model.initial()
    for i, call in enumerate(calls):
        reply = model.step(state, call)
        if reply != call.reply:
            return i, reply
    return None


def order_conflict(order: Iterable[RecordedCall]) -> tuple[RecordedCall, RecordedCall] | None:
    """Return two calls whose order contradicts the clients' clocks: the second ended before the first began."""
    latest: RecordedCall | None = None
    for call in order:
        if latest and call.end < latest.start:
            return latest, call
        if not latest or call.start > latest.start:
            latest = call
    return None


@dataclass
class Counterexample:
    """The shortest illegal part of a history: `blamed` is wrong, with the replies that the model would allow."""

    why: str
    calls: list[RecordedCall]
    blamed: RecordedCall
    allowed: list[Any]
    before: Sequence[str] = ()
    """the model's state just before it"""

    def __str__(self) -> str:
        begin = min(call.start for call in self.calls)
        rows = [("client", "from", "to µs", "call", "reply")]
        for call in sorted(self.calls, key=lambda call: call.start):
            mark = ">" if call == self.blamed else " "
            since = f"{(call.start - begin) / 1000:.0f}"
            until = "..." if call.reply == UNKNOWN else f"{(call.end - begin) / 1000:.0f}"
            rows.append((f"{mark} {call.client}", since, until, str(call), show(call.reply)))
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        padded = [[*(row[i].ljust(widths[i]) for i in range(4)), row[4]] for row in rows]
        lines = ["  ".join(row).rstrip() for row in padded]
        allowed = " or ".join(map(show, self.allowed)) or "nothing"
        held = [f"  the model holds: {line}" for line in self.before]
        return "\n".join([self.why, *lines, *held, f"  the model allows it: {allowed}"])


def shortest(model: Model, calls: Sequence[RecordedCall], timeout: float = 60.0) -> Counterexample:
    """Shrink a short history without a legal order: cut it after the first illegal end, then leave calls out.

    After `patience` seconds it returns what it has.
    """

    def until(end: int) -> list[RecordedCall]:
        begun = [call for call in calls if call.start <= end]
        return [call if call.end <= end else replace(call, reply=UNKNOWN) for call in begun]

    ends = sorted(call.end for call in calls)
    low, high = 0, len(ends) - 1
    while low < high:  # once illegal, it stays illegal
        middle = (low + high) // 2
        if linearizable(model, until(ends[middle])):
            low = middle + 1
        else:
            high = middle
    prefix = until(ends[low])
    blamed = next(call for call in prefix if call.end == ends[low] and call.reply != UNKNOWN)

    def allowed(others: list[RecordedCall]) -> list[str]:
        return sorted(map(repr, search(model, [*others, blamed], asked=len(others))))

    others = [call for call in prefix if call is not blamed]
    settled = [call for call in others if call.reply != UNKNOWN]
    if _has_sources([*settled, blamed], others) and linearizable(model, settled):
        others = settled  # a call that has not ended is rarely the cause, and all its possible effects take long to try
    expected = allowed(others)
    others = _reduce(others, blamed, lambda fewer: allowed(fewer) == expected, monotonic() + timeout)
    why = f"{len(others) + 1} of {len(calls)} calls show it: they have a legal order until the one that is marked"
    return Counterexample(why, [*others, blamed], blamed, search(model, [*others, blamed], asked=len(others)))


def shortest_in_order(model: Model, order: Sequence[RecordedCall]) -> Counterexample:
    """Find where the replay of a long history goes wrong: the call, the model's state before it, and its cause.

    Since the state is known, a single call is the shortest part. Of the earlier calls, the latest twelve that involve
    the same items, members or leases are shown.
    """
    wrong = replay(model, order)
    assert wrong, "this history is legal"
    place, expected = wrong
    blamed, state = order[place], model.initial()
    for call in order[:place]:
        model.step(state, call)
    names = names_in((blamed.args, blamed.reply, expected))
    story = [call for call in order[:place] if names & names_in((call.args, call.reply))]
    held = {name: value for name, value in state.keys(blamed.now).items() if not name.startswith(_HIDDEN)}
    before = [f"{show(name)} {value}"[:300] for name, value in sorted(held.items())]
    why = f"call {place + 1} of {len(order)}, in the order of MONITOR, is wrong; earlier calls with the same names:"
    return Counterexample(why, [*story[-12:], blamed], blamed, [expected], before)


def names_in(value: Any) -> set[str]:
    """Return the items, members, groups and ids in a call's arguments and reply."""
    if isinstance(value, (str, bytes)):
        return {show(value)} - {LOST}
    if isinstance(value, tuple):
        return set().union(*map(names_in, value))
    return set()


def _reduce(
    others: list[RecordedCall], blamed: RecordedCall, fits: Callable[[list[RecordedCall]], bool], end: float
) -> list[RecordedCall]:
    """Leave out as many calls as possible: the others stay legal, the blamed one's possible replies the same."""
    size = max(1, len(others) // 2)
    while True:
        begin, left_out = 0, False
        while begin < len(others):
            if monotonic() > end:
                return others
            fewer = others[:begin] + others[begin + size :]
            if _has_sources([*fewer, blamed], others) and fits(fewer):
                others, left_out = fewer, True
            else:
                begin += size
        if size == 1 and not left_out:
            return others
        size = max(1, size // 2)


def _has_sources(kept: list[RecordedCall], before: list[RecordedCall]) -> bool:
    """Return whether the kept calls still create everything that they mention, so that the report is readable."""
    made = {name for call in kept for name in created(call)}
    makable = {name for call in before for name in created(call)}
    return all(name in made or name not in makable for call in kept for name in mentions(call))


def created(call: RecordedCall) -> set[Any]:
    """Return what a call creates: the items or members it pushes, the lease it takes."""
    if call.verb == "push":
        given = call.args[1] if isinstance(call.args[0], str) else call.args[0]
        return {one[1] if isinstance(one, tuple) else one for one in given}
    return {call.args[-1]} if call.verb == "reserve" else set()


def mentions(call: RecordedCall) -> set[Any]:
    """Return the items in a reply, and the lease that a call is about."""
    names: set[Any] = set()

    def collect(value: Any) -> None:
        if isinstance(value, bytes):
            names.add(value)
        elif isinstance(value, tuple):
            for one in value:
                collect(one)

    collect(call.reply)
    return names | ({call.args[0]} if call.verb in ("ack", "release", "bury", "extend") else set())
