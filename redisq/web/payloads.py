"""Payloads on a page: whole, as indented JSON, as text, or as bytes. The dashboard does not know their codec."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeVar

from markupsafe import Markup, escape

T = TypeVar("T")

PAGE_BYTES = 512_000
"""of payloads on one page; the first is shown whole, however long"""
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+', re.DOTALL)
_INDENTED = 200_000  # characters; longer JSON is shown as it is
_DEEPEST = 200


@dataclass(frozen=True)
class Payload:
    """The bytes of an item or a payload."""

    data: bytes

    @cached_property
    def text(self) -> str | None:
        """The bytes as UTF-8, or None if they are not."""
        try:
            return self.data.decode()
        except UnicodeDecodeError:
            return None

    @cached_property
    def _json(self) -> str | None:
        return None if self.text is None else indented(self.text)

    @property
    def kind(self) -> Literal["JSON", "text", "bytes"]:
        """What the bytes look like."""
        return "bytes" if self.text is None else "text" if self._json is None else "JSON"

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return len(self.data)

    @cached_property
    def markup(self) -> Markup:
        """The whole for a `pre`, its control characters and marks of direction as escapes."""
        text = self._json or self.text
        return escape(_dump(self.data)) if text is None else _visible(text)

    @property
    def copied(self) -> str:
        """What the copy button copies, in base64: the text as it is stored, or the bytes in hex."""
        return base64.b64encode(self.data if self.text is not None else self.data.hex().encode()).decode()


def fitting(values: Sequence[T], sizes: Sequence[int], most: int = PAGE_BYTES) -> Sequence[T]:
    """Return as many of the first values as fit on a page, and at least one."""
    left = most
    for place, size in enumerate(sizes):
        left -= size
        if left < 0 and place:
            return values[:place]
    return values


def indented(text: str) -> str | None:
    """Return a JSON text with indentation, or None if it is none, or too long or deep for that.

    Its numbers, escapes and repeated keys stay as they are stored: only white space between them is changed.
    """
    if len(text) > _INDENTED:
        return None
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return None
    parts: list[str] = []
    depth, before = 0, ""
    for token in _TOKEN.findall(text):
        opens, closes = before in ("{", "["), token in ("}", "]")
        depth -= closes
        if before and (opens or before == "," or closes) and not (opens and closes):
            parts.append("\n" + "  " * depth)
        parts.append(": " if token == ":" else token)
        depth += token in ("{", "[")
        if depth > _DEEPEST:
            return None
        before = token
    return "".join(parts)


# As in names; line breaks and tabs have their effect.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def _visible(text: str) -> Markup:
    parts, last = [], 0
    for match in _HIDDEN.finditer(text):
        code = ord(match[0])
        mark = f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
        parts += [escape(text[last : match.start()]), Markup('<span class="esc">{}</span>').format(mark)]
        last = match.end()
    return Markup("").join([*parts, escape(text[last:])])


_PRINTABLE = bytes(byte if 32 <= byte < 127 else ord(".") for byte in range(256))


def _dump(data: bytes) -> str:
    """Return bytes in hex, sixteen a line, with the printable ones beside them."""
    said = data.translate(_PRINTABLE).decode()
    return "\n".join(
        f"{start:08x}  {data[start : start + 16].hex(' '):<47}  {said[start : start + 16]}"
        for start in range(0, len(data), 16)
    )
