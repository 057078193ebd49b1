"""What the operations of all structures have in common: a call's keys and packed numbers come from its header."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, TypeVar

from . import validate
from .calls import Call, as_text
from .errors import Bury, Retry
from .scripts import Script, load

R = TypeVar("R")
_PATTERN = re.compile(r"\{queue\}:(?P<noun>\w*:?)(?:<(?P<name>\w+)>)?")


class QueueCalls:
    """Base class of what builds the calls of one queue, without sending them."""

    structure: str
    """The folder of its scripts."""
    name: str
    """The queue's name."""
    queue: bytes
    """What its keys begin with."""

    def __init__(self, structure: str, name: str, prefix: str, dedup_window: float) -> None:
        self.structure = structure
        self.name = name
        self.queue = validate.key_prefix(prefix, name)
        self._window = validate.milliseconds("dedup_window", dedup_window, 0, 604_800)
        self._keys: dict[str, tuple[Script, list[tuple[bytes, str | None]]]] = {}

    def _call(
        self,
        verb: str,
        args: Iterable[Any],
        decode: Callable[[Any], R],
        *,
        writes: bool = True,
        token: str | None = None,
        lease_id: str | None = None,
        **names: bytes,
    ) -> Call[R]:
        """Build a call; `names` fill what stands in angle brackets in its keys' patterns."""
        found = self._keys.get(verb)
        if found is None:
            script = load(f"{self.structure}/{verb}")
            found = self._keys[verb] = script, [(self.queue + noun, name) for noun, name in patterns(script.name)]
        script, keys = found
        named = tuple([key if name is None else key + names[name] for key, name in keys])
        return Call(script, named, tuple(args), decode, writes, token, lease_id)

    def limit(self, verb: str, argument: str) -> tuple[int, int]:
        """Return the range of an argument, from the header of its script."""
        return load(f"{self.structure}/{verb}").limit(argument)


def duration(seconds: float | None) -> int:
    """Return how long a pause is in ms, 0 for None, which is until it is resumed."""
    return 0 if seconds is None else validate.milliseconds("seconds", seconds, 0.001)


def nothing(_: Any) -> None:
    """Read a reply that says nothing."""


@cache
def patterns(script: str) -> tuple[tuple[bytes, str | None], ...]:
    """Return what a header says of each key: what follows the queue's prefix, and the name that ends it, if any."""
    found = []
    for slot in load(script).keys:
        match = _PATTERN.match(slot.note)
        if match is None:
            raise ValueError(f"the header of {script} has no pattern for its key {slot.name}")
        found.append((match["noun"].encode(), match["name"]))
    return tuple(found)


@cache
def template(script: str, slot: str) -> str:
    """Return how the numbers that share one argument are written, in the order of the header."""
    names = next([field.name for field in one.fields] for one in load(script).args if one.name == slot)
    return " ".join(f"%({name})d" for name in names)


def pack(script: str, slot: str, **numbers: int) -> bytes:
    """Return several numbers as one argument, in the order of the header."""
    return (template(script, slot) % numbers).encode()


_holders: dict[int, bytes] = {}


def holder_bytes(name: Any) -> bytes:
    """Return who holds a lease: the caller's word, or host and process."""
    if name is not None:
        return validate.text("holder", name)
    pid = os.getpid()  # asked each time: a child after a fork is somebody else
    if pid not in _holders:
        _holders.clear()
        _holders[pid] = f"{socket.gethostname()}:{pid}".encode()
    return _holders[pid]


def reason_bytes(text: Any) -> bytes:
    """Return a reason's bytes, at most 1,000 of them, cut at a character; None is none."""
    if text is None:
        return b""
    return str(text).encode("utf-8", "backslashreplace")[:1000].decode("utf-8", "ignore").encode()


def describe(error: BaseException) -> str:
    """Return the reason that is kept of an exception: its class and message."""
    try:
        message = str(error)
    except Exception:  # its own fault, which must not take the place of the error
        message = ""
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def reason_of(error: BaseException, describe: Callable[[BaseException], str | None] = describe) -> str | None:
    """Return why a handler failed; a `Retry` or `Bury` without a reason stands for what it was raised from."""
    if not isinstance(error, (Retry, Bury)):
        return describe(error)
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return error.reason if error.reason is not None or cause is None else describe(cause)


def seconds_or_none(ms: int) -> float | None:
    """Return ms as seconds; a negative number stands for none."""
    return ms / 1000 if ms >= 0 else None


def read_pause(pause: bytes | str) -> tuple[float | None, str]:
    """Return when a pause ends, None for never, and its reason."""
    until, _, text = as_text(pause).partition(" ")
    return int(until or 0) / 1000 or None, text
