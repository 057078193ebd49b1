"""Cases as scenarios: how to create a state, which calls of a script to send, and the model's answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from types import SimpleNamespace
from typing import Any

from redisq.core.scripts import load
from tests.model import Buffer, Keys, Limit, Priority, Refused
from tests.scripts.raw import Raw

from . import form
from .answers import ANSWERS, row_text
from .form import CLOCK, as_bytes

NOW = 100_000
"""the time of a call that gives none"""
WEEK = 604_800_000
"""how long an empty queue keeps its counters"""

# The arguments of a call that gives no others.
DEFAULTS: dict[str, Any] = {
    "now": NOW, "window": 60_000, "group": "g", "id": "l", "once": "o", "item": [], "side": "back", "size": 10,
    "count": 10, "lease": 30_000, "min_size": 1, "max_wait": 0, "max_attempts": 0, "max_dead": 0, "max_bytes": 0,
    "ordered": 0, "isolate": 0, "holder": "w", "rates": [], "delay": 0, "reason": "", "failed": [], "attempt": "count",
    "order": "score", "how": "min", "limit": 100, "after": "", "state": "dead", "cursor": 0, "cost": 1, "start": 0,
    "duration": 0, "member": [], "repair": "report",
}  # fmt: skip

Setup = Callable[["Scenario"], object]
"""a function that creates a state"""
Step = dict[str, Any]

MODELS: dict[str, Callable[[], Any]] = {"buffer": Buffer, "priority": Priority, "limit": lambda: Limit([])}


def pack(script: str, values: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    """Return the keys and arguments of a call in their JSON form."""
    header = load(script)
    known = {slot.name for slot in header.args if not slot.fields} | {
        field.name for slot in header.args for field in slot.fields
    }
    known |= {place for slot in header.keys for place in re.findall(r"<(\w+)>", slot.note.split()[0])} | {"once"}
    used = {name: value for name, value in values.items() if name in known}
    if used.get("now") == CLOCK:
        used["now"] = ""
    keys, argv = Raw(None, form.PREFIX.encode()).command(script, _as_bytes(used))  # type: ignore[arg-type]
    return [form.string(key) for key in keys], form.words(argv)


def _as_bytes(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: as_bytes(value) for name, value in values.items()}


class Case:
    """One case of a script, as written to the file."""

    def __init__(self, script: str, name: str, defaults: Mapping[str, Any]) -> None:
        self.script = script
        self.name = name
        self.defaults = defaults
        self.keys_of_file = file_keys(script)
        self.steps: list[Step] = []
        self.given: list[Any] = []
        self.then: list[Any] = []

    def values(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Complete the arguments of a call."""
        made = {**self.defaults, **values}
        made.setdefault("fields", 3 if any(len(item) == 3 for item in made["item"]) else 2)
        return made

    def step(self, values: Mapping[str, Any], **expected: Any) -> None:
        """Add a step."""
        keys, argv = pack(self.script, self.values(values))
        own = {} if keys == self.keys_of_file else {"keys": keys}
        self.steps.append({**own, "argv": argv, **expected})

    def refuse(self, error: str, **values: Any) -> None:
        """Add a call that the script must refuse, whatever the model says."""
        self.step(values, error=error)

    def refuse_raw(self, error: str, argv: list[Any], keys: list[Any]) -> None:
        """Add a call with these keys and arguments, which names cannot express, that the script must refuse."""
        own = {} if keys == self.keys_of_file else {"keys": keys}
        self.steps.append({**own, "argv": argv, "error": error})

    def written(self) -> dict[str, Any]:
        """Return the case for the file."""
        made: dict[str, Any] = {"name": self.name}
        if self.given:
            made["given"] = self.given
        made["steps"] = self.steps
        if self.then:
            made["then"] = self.then
        return made


class Scenario(Case):
    """A case that the model plays."""

    def __init__(self, script: str, name: str, defaults: Mapping[str, Any]) -> None:
        super().__init__(script, name, defaults)
        self.structure = script.partition("/")[0]
        self.model: Any = MODELS[self.structure]()
        self.ttl: dict[bytes, int] = {}
        self._started: tuple[Keys, dict[bytes, int]] | None = None
        self._awake = False

    @property
    def model_limit(self) -> Limit:
        """The rates and their grants."""
        limit: Limit = self.model if self.structure == "limit" else self.model.limit
        return limit

    def do(self, verb: str, **values: Any) -> Any:
        """Change the state by a call outside of the case; without a window, its answer is not kept."""
        assert not self.steps, "the state is given before the first call is sent"
        answer = self._expected(f"{self.structure}/{verb}", {"window": 0, **values})
        assert verb != "reserve" or answer[0] != b"ended", "an id for each reserve"
        return answer

    def awake(self) -> None:
        """Add a wake-up."""
        self._awake = True

    def send(self, **values: Any) -> Any:
        """Send a call, and expect the model's answer."""
        self._start()
        values = {**KEYS[self.script], **values}
        try:
            answer = self._expected(self.script, values)
        except Refused as refusal:
            self.step(values, error=refusal.code)
            return refusal.code
        self.step(values, reply=form.reply(answer))
        return answer

    def send_other(self, verb: str, **values: Any) -> None:
        """Send a call of another script between the case's own."""
        self._start()
        script = f"{self.structure}/{verb}"
        answer = self._expected(script, values)
        keys, argv = pack(script, self.values(values))
        self.steps.append({"script": script, "keys": keys, "argv": argv, "reply": form.reply(answer)})

    def keys(self) -> dict[Any, Any]:
        """Return what is stored now."""
        return stored(self.model)

    def _start(self) -> None:
        if self._started is None:
            if self.structure != "limit":
                self.model.token = self._awake
            self._started = self.keys(), dict(self.ttl)

    def _expected(self, script: str, values: Mapping[str, Any]) -> Any:
        args = SimpleNamespace(**_as_bytes(self.values(values)))
        self.model.window = args.window
        limit = self.model_limit
        before, granted = self.keys(), limit._total()
        answer = ANSWERS[script](self.model, args)
        after, expiring = self.keys(), self.model.expiring()
        ttl = {name: self.ttl.get(name, args.window) for name in expiring & after.keys()}
        for name in ttl:
            if before.get(name) != after.get(name):
                ttl[name] = args.window
        if b"meta" in ttl:
            ttl[b"meta"] = WEEK
        if b"paused" in ttl and before.get(b"paused") != after[b"paused"]:
            ttl[b"paused"] = args.duration
        if b"grants" in ttl:
            grew = limit._total() > granted
            ttl[b"grants"] = max(per for _, per in limit.rates) + 1000 if grew else self.ttl[b"grants"]
        self.ttl = ttl
        return answer

    def written(self) -> dict[str, Any]:
        self._start()
        assert self._started is not None
        self.given = form.commands(*self._started)
        before, ttl = self._started
        self.then = form.changes(before, self.keys(), ttl, self.ttl)
        return super().written()


class ByHand(Case):
    """A case that the model does not cover: the keys before and after it are given."""

    def __init__(
        self,
        script: str,
        name: str,
        defaults: Mapping[str, Any],
        given: Mapping[Any, Any],
        then: Mapping[Any, Any] | None,
        given_ttl: Mapping[str, int],
        ttl: Mapping[str, int],
    ) -> None:
        super().__init__(script, name, defaults)
        before, lives = as_bytes(dict(given)), as_bytes(dict(given_ttl))
        self.given = form.commands(before, lives)
        if then is not None:
            self.then = form.changes(before, as_bytes(dict(then)), lives, as_bytes(dict(ttl)))

    def send(self, reply: object, **values: Any) -> None:
        """Send a call that gives this reply."""
        self.step(values, reply=form.reply(reply))


class Cases:
    """The cases of one script, and the default arguments of its calls."""

    def __init__(self, script: str) -> None:
        self.script = script
        self.defaults: dict[str, Any] = dict(DEFAULTS)
        self.all: list[Case] = []
        self.derived: list[Case] = []
        """the derived cases, which come after the others"""

    def __call__(self, name: str, **defaults: Any) -> Scenario:
        """Begin a case, with default arguments for all of its calls."""
        made = Scenario(self.script, name, {**self.defaults, **defaults})
        self.all.append(made)
        return made

    def by_hand(
        self,
        name: str,
        given: Mapping[Any, Any],
        then: Mapping[Any, Any] | None = None,
        given_ttl: Mapping[str, int] | None = None,
        ttl: Mapping[str, int] | None = None,
        **defaults: Any,
    ) -> ByHand:
        """Begin a case that the model does not cover; without `then`, nothing must change."""
        made = ByHand(self.script, name, {**self.defaults, **defaults}, given, then, given_ttl or {}, ttl or {})
        self.all.append(made)
        return made

    def most(self, name: str) -> int:
        """Return the highest value of an argument, or the highest number of values."""
        return load(self.script).limit(name)[1]

    def state(self, setup: Setup, **defaults: Any) -> dict[Any, Any]:
        """Return what is stored after calls, as the start of a case by hand, without a wake-up."""
        made = Scenario(self.script, "", {**self.defaults, **defaults})
        setup(made)
        made._start()
        return made.keys()

    def file(self) -> str:
        """Write the script's file."""
        return form.dump(self.script, file_keys(self.script), [case.written() for case in self.all + self.derived])


KEYS: dict[str, dict[str, str]] = {}
"""arguments for the keys of a script's file, if they differ from DEFAULTS"""


@cache
def file_keys(script: str) -> list[Any]:
    """Return the keys of steps that have none of their own."""
    names = {place for slot in load(script).keys for place in re.findall(r"<(\w+)>", slot.note.split()[0])} | {"once"}
    known = {name: KEYS.get(script, {}).get(name, DEFAULTS[name]) for name in names}
    return [form.string(key) for key in Raw(None, form.PREFIX.encode()).keys(script, _as_bytes(known))]  # type: ignore[arg-type]


def stored(model: Any) -> Keys:
    """Return the keys that the server must hold, in the forms in which it stores them."""
    found: Keys = {}
    for name, value in model.keys(0).items():
        made: Any = value
        if isinstance(value, list) and name.startswith(b"lease:"):
            made = [part for one in value for part in (one if isinstance(one, tuple) else (one,))]
            made = [form.number(part).encode() if isinstance(part, float) else part for part in made]
        elif isinstance(value, dict) and name == b"again":
            made = {member: _note(note) for member, note in value.items()}
        elif isinstance(value, dict) and name == b"rows":
            made = {member: row_text(row, model.members[member].score) for member, row in value.items()}
        found[name] = made
    return found


def _note(note: Any) -> bytes:
    if isinstance(note, bytes):
        return note
    score, due, how = note
    return b"%s %d %s" % (form.number(score).encode(), due, how)


def nothing(s: Scenario) -> None:
    """Leave a queue empty."""


SCRIPTS: dict[str, Callable[[Cases], None]] = {}


def script(name: str, **keys: str) -> Callable[[Callable[[Cases], None]], Callable[[Cases], None]]:
    """Register the function that defines the cases of a script; `keys` complete the keys that its file names."""

    def register(function: Callable[[Cases], None]) -> Callable[[Cases], None]:
        SCRIPTS[name], KEYS[name] = function, keys
        return function

    return register
