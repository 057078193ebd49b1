"""Return whether a history of concurrent calls is one that the model allows, and if not, show the shortest piece of it.

Small histories are searched (Wing and Gong, with Lowe's memory of what was tried): is there an order of the calls that
fits their times, in which the model gives every reply? Of long ones the order is known, from MONITOR: the model is
replayed in it, and the order is held to the clients' own times.
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
    """A structure's model: an empty state, and what a call answers."""

    def initial(self) -> Any:
        """Return the state in which a history begins."""
        ...

    def step(self, state: Any, call: RecordedCall) -> Any:
        """Change the state as the call does, and give its reply."""
        ...


_UNTOLD = (b"once:", b"ended:", b"wake")  # what a report leaves out
UNKNOWN = "?"
"""The reply of a call that has not ended: any, and it may not have taken place either."""
_IGNORED = {"token", "drained", "totals", "lease"}
"""What no reply depends on: wake-ups, TTLs, the model's own checks, and a setting that each reserve brings along."""
_PLAIN = (bytes, str, int, float)
NEVER = 1 << 63


def frozen(value: Any) -> Hashable:
    """Return a state as a key: equal states, however they came about, have equal keys."""
    if isinstance(value, _PLAIN):  # first, for most are: this is where the search spends its time
        return value
    if dataclasses.is_dataclass(value):
        return tuple(frozen(item) for name, item in vars(value).items() if name not in _IGNORED)
    if isinstance(value, dict):
        return tuple(sorted((name, frozen(item)) for name, item in value.items()))
    if isinstance(value, (list, tuple)):
        return tuple(map(frozen, value))
    return value  # type: ignore[no-any-return]


def search(model: Model, calls: Sequence[RecordedCall], asked: int = -1) -> list[Any]:
    """Return the replies that the call number `asked` may have had, one for each; without one, [None] if an order exists.

    Empty: there is no legal order. Calls whose reply is UNKNOWN may be left out.
    """
    ends = [call.end if call.reply != UNKNOWN else NEVER for call in calls]
    needed = sum(1 << i for i, call in enumerate(calls) if call.reply != UNKNOWN or i == asked)
    if not needed:
        return [None]
    begun = sorted(range(len(calls)), key=lambda i: calls[i].start)  # a good guess at the order, so it is tried first
    found: dict[str, Any] = {}
    tried: set[tuple[int, Hashable, str]] = set()

    def following(done: int) -> Iterator[int]:
        """Yield the calls that may come next: those that began before any that is left ended."""
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
    """Replay calls in the order given: the place of the first wrong reply and the model's reply there, or None."""
    state = model.initial()
    for i, call in enumerate(calls):
        reply = model.step(state, call)
        if reply != call.reply:
            return i, reply
    return None


def misfit(order: Iterable[RecordedCall]) -> tuple[RecordedCall, RecordedCall] | None:
    """Return two calls that stand in the wrong order by the clients' clocks: the latter ended before the former began."""
    latest: RecordedCall | None = None
    for call in order:
        if latest and call.end < latest.start:
            return latest, call
        if not latest or call.start > latest.start:
            latest = call
    return None


@dataclass
class Piece:
    """The shortest illegal piece that was found: `blamed` is wrong, and what the model allows in its place."""

    why: str
    calls: list[RecordedCall]
    blamed: RecordedCall
    allowed: list[Any]
    before: Sequence[str] = ()
    """what the model holds just before it"""

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


def shortest(model: Model, calls: Sequence[RecordedCall], patience: float = 60.0) -> Piece:
    """Shrink a small history that has no legal order: cut after the first end that makes it illegal, then leave out.

    After `patience` seconds it is content with what it has.
    """

    def until(end: int) -> list[RecordedCall]:
        begun = [call for call in calls if call.start <= end]
        return [call if call.end <= end else replace(call, reply=UNKNOWN) for call in begun]

    ends = sorted(call.end for call in calls)
    low, high = 0, len(ends) - 1
    while low < high:  # once illegal, it stays so
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
    if _sourced([*settled, blamed], others) and linearizable(model, settled):
        others = settled  # what had not ended is seldom to blame, and all that it might have done takes long to try
    expected = allowed(others)
    others = _reduce(others, blamed, lambda fewer: allowed(fewer) == expected, monotonic() + patience)
    why = f"{len(others) + 1} of {len(calls)} calls show it: they have a legal order until the one that is marked"
    return Piece(why, [*others, blamed], blamed, search(model, [*others, blamed], asked=len(others)))


def shortest_in_order(model: Model, order: Sequence[RecordedCall]) -> Piece:
    """Show where a long history's replay goes wrong: the call, what the model holds before it, and how that came about.

    One call on a state that is known is the shortest piece that there is. Of the calls before, those are shown that
    spoke of the same items, members or leases, the latest twelve.
    """
    wrong = replay(model, order)
    assert wrong, "this history is legal"
    place, expected = wrong
    blamed, state = order[place], model.initial()
    for call in order[:place]:
        model.step(state, call)
    names = leaves((blamed.args, blamed.reply, expected))
    story = [call for call in order[:place] if names & leaves((call.args, call.reply))]
    held = {name: value for name, value in state.keys(blamed.now).items() if not name.startswith(_UNTOLD)}
    before = [f"{show(name)} {value}"[:300] for name, value in sorted(held.items())]
    why = f"call {place + 1} of {len(order)}, in the order of MONITOR, is wrong; before it the same was spoken of in"
    return Piece(why, [*story[-12:], blamed], blamed, [expected], before)


def leaves(value: Any) -> set[str]:
    """Name the items, members, groups and ids in a call's arguments and reply."""
    if isinstance(value, (str, bytes)):
        return {show(value)} - {LOST}
    if isinstance(value, tuple):
        return set().union(*map(leaves, value))
    return set()


def _reduce(
    others: list[RecordedCall], blamed: RecordedCall, fits: Callable[[list[RecordedCall]], bool], end: float
) -> list[RecordedCall]:
    """Leave out as many calls as can be: the others stay legal, and what the blamed one may answer the same."""
    size = max(1, len(others) // 2)
    while True:
        begin, left_out = 0, False
        while begin < len(others):
            if monotonic() > end:
                return others
            fewer = others[:begin] + others[begin + size :]
            if _sourced([*fewer, blamed], others) and fits(fewer):
                others, left_out = fewer, True
            else:
                begin += size
        if size == 1 and not left_out:
            return others
        size = max(1, size // 2)


def _sourced(kept: list[RecordedCall], before: list[RecordedCall]) -> bool:
    """Return whether what the kept calls speak of is still made by one of them: a reader wants to see whence it came."""
    made = {name for call in kept for name in makes(call)}
    makable = {name for call in before for name in makes(call)}
    return all(name in made or name not in makable for call in kept for name in mentions(call))


def makes(call: RecordedCall) -> set[Any]:
    """Name what a call brings into being: the items or members it pushes, the lease it takes."""
    if call.verb == "push":
        given = call.args[1] if isinstance(call.args[0], str) else call.args[0]
        return {one[1] if isinstance(one, tuple) else one for one in given}
    return {call.args[-1]} if call.verb == "reserve" else set()


def mentions(call: RecordedCall) -> set[Any]:
    """Name the items that a reply shows, and the lease that a call is about."""
    names: set[Any] = set()

    def collect(value: Any) -> None:
        if isinstance(value, bytes):
            names.add(value)
        elif isinstance(value, tuple):
            for one in value:
                collect(one)

    collect(call.reply)
    return names | ({call.args[0]} if call.verb in ("ack", "release", "bury", "extend") else set())
