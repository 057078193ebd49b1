"""The file that `redisq export` writes and `redisq import` reads: JSON lines, described in the guide on moving queues.

The first line is the header, the last counts and seals all lines before it. Names and payloads are strings if they are
UTF-8, else `{"base64": ...}`, so every byte comes back.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
from collections.abc import Iterator
from typing import IO, Any

from ..core.documents import time_json
from .exit import NO, Failure

VERSION = 1

Record = dict[str, Any]


def packed(value: bytes) -> str | dict[str, str]:
    """Return bytes as a part of a JSON document."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}


def unpacked(value: Any) -> bytes:
    """Return the bytes again."""
    return base64.b64decode(value["base64"], validate=True) if isinstance(value, dict) else value.encode()


def time_of(ms: float) -> str | None:
    """Return a time of a queue as the file has it; an infinite one is none."""
    return None if ms == float("inf") else time_json(ms / 1000)


def ms_of(time: str) -> int:
    """Return the time again, in ms."""
    return round(datetime.datetime.fromisoformat(time).timestamp() * 1000)


class Writer:
    """A writer of such a file."""

    def __init__(self, stream: IO[bytes], header: Record) -> None:
        self._stream, self._seal = stream, hashlib.sha256()
        self.lines = self.items = 0
        self._put({"redisq": "export", "version": VERSION, **header})

    def _put(self, record: Record) -> None:
        data = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        self._seal.update(data)
        self._stream.write(data)

    def write(self, record: Record, items: int) -> None:
        """Write what is in a queue; `items` is how many items or members that is."""
        self._put(record)
        self.lines, self.items = self.lines + 1, self.items + items

    def end(self) -> None:
        """Write the last line, without which the file is not taken."""
        self._put({"end": True, "lines": self.lines, "items": self.items, "sha256": self._seal.hexdigest()})
        self._stream.flush()


class Archive:
    """Such a file, which is whole and unchanged: it has been read to its end."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._start = stream, stream.tell()
        seal, number, last = hashlib.sha256(), 0, b""
        for number, data in enumerate(stream, 1):
            if number == 1:
                self.header = _header(data)
            else:
                seal.update(last)
            last = data
        if not number:
            raise Failure("the input is empty: give what `redisq export` has written")
        end = _loaded(last) if last.endswith(b"\n") else None
        if number == 1 or not end or end.get("end") is not True:
            raise Failure(f"the file ends early, in line {number:,}: it is not whole, and nothing is restored")
        if end["lines"] != number - 2 or end["sha256"] != seal.hexdigest():
            raise Failure("the file was changed after it was written: its last line has another checksum")
        self.lines: int = end["lines"]
        self.items: int = end["items"]

    def records(self, start: int = 0) -> Iterator[Record]:
        """Yield what is between header and last line, but for the first `start` lines."""
        self._stream.seek(self._start)
        for number, data in enumerate(self._stream, -1):
            if start <= number < self.lines:
                yield json.loads(data)


def _loaded(data: bytes) -> Record | None:
    try:
        record = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _header(data: bytes) -> Record:
    header = _loaded(data)
    if header is None or header.get("redisq") != "export":
        raise Failure("line 1 is not the header of an export: give what `redisq export` has written", NO)
    if header["version"] != VERSION:
        raise Failure(
            f"the file has version {header['version']} of the format, this redisq reads version {VERSION}: "
            "use the redisq that has written it, or a newer one",
            NO,
        )
    return header
