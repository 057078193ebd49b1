"""How a queue is restored from a file, in steps that each count once.

The queue has a key that says how many lines of which file have been restored. Each step is one script that compares
it, restores some lines, and advances it; so whenever the process dies, the next one goes on where it stopped, and
merges if that one did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ..blocking import Buffer
from ..core.calls import Call, as_text
from ..core.queue import patterns
from ..core.queues import LAYOUT
from .archive import Archive, Record, ms_of, unpacked
from .connection import Client, Queue
from .exit import NO, Failure
from .exporting import COUNTERS, INDEXES
from .output import line
from .steps import step

_MEMBERS, _SIZE = 100, 1 << 18  # members of a step, and their bytes: under 5 ms even if all are there already
_CALLS, _BYTES = 50, 1 << 20  # in a round trip
_MERGES = "merge "  # before the progress of an import that merges
_WEEK = 604_800_000  # ms that a finished import is remembered


@dataclass
class _Step:
    """One script call, which restores lines up to `end`."""

    call: Call[int]
    end: int
    weight: int


class Import:
    """The restoring of one file into one queue."""

    def __init__(self, client: Client, queue: Queue, archive: Archive, merge: bool) -> None:
        self._client, self._queue, self._archive, self._merge = client, queue, archive, merge
        self._prefix = queue.calls.queue
        self._progress = self._prefix + b"once:import-" + archive.header["id"].encode()
        self._exported = ms_of(archive.header["time"])

    def begin(self, now: int, again: bool) -> int:
        """Return how many lines have been restored; `again`: if all have been, begin anew.

        Raises `Failure` if the queue holds something else.
        """
        header, names = self._archive.header, INDEXES[self._queue.calls.structure]
        pause, ttl = self._pause(now)
        counters = [part for name in COUNTERS if (count := header["counters"][name]) for part in (name, count)]
        arguments = (
            int(self._merge),
            self._archive.lines if again else "",
            self._at(0),
            f"{LAYOUT} {header['kind']}",
            pause,
            ttl,
            header["sequence"],
            *counters,
        )
        keys = (self._progress, *self._keys("meta", "paused", *names))
        try:
            (at,) = self._queue.send(Call(step("begin"), keys, arguments, as_text))
        except Exception as error:
            if "NOTEMPTY" not in str(error):
                raise
            raise Failure(
                f"{line(self._prefix[:-1])} holds something already: import into a new queue, or say --merge", NO
            ) from None
        self._merge = at.startswith(_MERGES)  # as it was begun
        return _lines(at)

    def _at(self, lines: int) -> str:
        """Return the progress at which so many lines are restored."""
        return f"{_MERGES if self._merge else ''}{lines}"

    def _pause(self, now: int) -> tuple[bytes, int]:
        pause = None if self._merge else self._archive.header["pause"]
        if pause is None:
            return b"", 0
        until = 0 if pause["until"] is None else ms_of(pause["until"])
        return (
            (b"", 0)
            if until and until <= now
            else (b"%d %s" % (until, unpacked(pause["reason"])), until and until - now)
        )

    def run(self, done: int, now: int, progress: Callable[[int], object]) -> None:
        """Restore the rest of the file, and report now and then how many lines are done."""
        waiting: list[_Step] = []
        for one in self._steps(done, now):
            waiting.append(one)
            if len(waiting) == _CALLS or sum(one.weight for one in waiting) > _BYTES:
                done = self._send(waiting, done)
                waiting = []
                progress(done)
        self._send(waiting, done)
        self._client.pexpire(self._progress, _WEEK)

    def _send(self, steps: list[_Step], done: int) -> int:
        """Send steps until all of them count, and return how many lines are restored then.

        A step is sent again by itself if the server did not know its script, or its slot was on the move. Those that
        were sent with it had done nothing by then, for they come after it: so they have to be sent again, too.
        """
        while steps:
            reached = max(self._queue.send(*(one.call for one in steps)))
            if reached <= done:
                raise Failure("another process has imported the same file meanwhile, or has begun it again", NO)
            done = reached
            steps = [one for one in steps if one.end > done]
        return done

    def _keys(self, *names: str) -> tuple[bytes, ...]:
        return tuple(self._prefix + name.encode() for name in names)

    # -- a buffer

    def _steps(self, done: int, now: int) -> Iterator[_Step]:
        records = self._archive.records(done)
        if not isinstance(self._queue, Buffer):
            yield from self._members(records, done, now)
            return
        for number, record in enumerate(records, done):
            if "paused_group" in record:
                yield self._paused_group(record, number, now)
            elif record["state"] == "waiting":
                yield self._waiting(record, number, now)
            else:
                yield self._batch(record, number)

    def _inner(self, verb: str, number: int, arguments: tuple[Any, ...], **names: bytes) -> _Step:
        """Build a step that a script of the buffer does, under an id that is never remembered."""
        script, names = f"buffer/{verb}", {**names, "id": b"import"}
        keys = [self._prefix + noun + (b"" if name is None else names[name]) for noun, name in patterns(script)]
        call = Call(
            step("run", script), (self._progress, *keys), (self._at(number), self._at(number + 1), *arguments), _read
        )
        return _Step(call, number + 1, sum(len(one) for one in arguments if isinstance(one, bytes)))

    def _paused_group(self, record: Record, number: int, now: int) -> _Step:
        group = unpacked(record["paused_group"])
        left = 0 if record["until"] is None else max(1, ms_of(record["until"]) - now)
        return self._inner("pause_group", number, (group, left, 0, now), id=b"import")

    def _waiting(self, record: Record, number: int, now: int) -> _Step:
        group, since = unpacked(record["group"]), record["since"]
        items = [*map(unpacked, record["items"])]
        # The time that the script takes for now is used for one thing: since when the group waits.
        at = now if since is None else min(ms_of(since), now)
        return self._inner("push", number, (group, b"back", 0, at, *items), group=group)

    def _batch(self, record: Record, number: int) -> _Step:
        leased, name = record["state"] == "leased", unpacked(record["id"])
        holder, reason = unpacked(record["holder"]), unpacked(record["reason"])
        when = self._exported if leased else ms_of(record["time"])  # a lease ends with the export: it is due at once
        if leased:
            reason = _exported_while_leased(holder)
        index = "dead" if record["state"] == "dead" else "delayed"
        keys = self._keys("meta", "groups", "since", index), self._prefix + b"batch:" + name, self._keys("busy", "wake")
        items = [*map(unpacked, record["items"])]
        held = (unpacked(record["group"]), record["attempts"], holder, reason, *items)
        arguments = (self._at(number), self._at(number + 1), name, when, int(record["busy"]), *held)
        call = Call(step("batch"), (self._progress, *keys[0], keys[1], *keys[2]), arguments, _read)
        return _Step(call, number + 1, sum(map(len, items)))

    # -- a priority queue

    def _members(self, records: Iterator[Record], done: int, now: int) -> Iterator[_Step]:
        gathered: list[bytes | int | str] = []
        start, number, weight = done, done, 0
        for number, record in enumerate(records, done + 1):
            fields = self._member(record)
            gathered += fields
            weight += sum(len(field) for field in fields if isinstance(field, bytes))
            if number - start == _MEMBERS or weight > _SIZE:
                yield self._restored(gathered, start, number, now, weight)
                gathered, start, weight = [], number, 0
        if number > start:
            yield self._restored(gathered, start, number, now, weight)

    def _restored(self, gathered: list[bytes | int | str], start: int, end: int, now: int, weight: int) -> _Step:
        names = ("meta", "ready", "held", "delayed", "dead", "rows", "payloads", "once:import", "wake")
        about = (self._at(start), self._at(end), self._archive.header["kind"], int(self._merge), now)
        keys = (self._progress, *self._keys(*names))
        return _Step(Call(step("members", "priority/push"), keys, (*about, *gathered), _read), end, weight)

    def _member(self, record: Record) -> list[bytes | int | str]:
        """Return the arguments for a member: none for one that was removed while it was leased."""
        state, score, attempts = record["state"], record["score"], record["attempts"]
        reason, when = unpacked(record["reason"]), ms_of(record["time"]) if "time" in record else 0
        if state == "leased":
            note = (record["again"] or "").split(" ")
            if note == ["removed"]:
                return []
            state, when, attempts = "delayed", self._exported, attempts + 1
            reason = _exported_while_leased(unpacked(record["holder"]))
            if len(note) == 3:  # pushed meanwhile: as when a lease runs out
                asked, due, how = note
                attempts = 0
                score = asked if how == "set" else min(score, asked, key=float)
                when = int(due) if how == "set" else min(when, int(due))
        payload = b"" if record["payload"] is None else b"=" + unpacked(record["payload"])
        return [state, unpacked(record["member"]), score, when, b"%d %s" % (attempts, reason), payload]


def _lines(progress: str) -> int:
    return int(progress.removeprefix(_MERGES))


def _read(reply: bytes | str | None) -> int:
    """Read the reply of a step; nothing if the queue knows nothing of this import any more."""
    return 0 if reply is None else _lines(as_text(reply))


def _exported_while_leased(holder: bytes) -> bytes:
    return b"exported while leased by " + holder
