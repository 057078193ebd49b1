"""Payloads on a page: as indented JSON, as text, or as bytes. The dashboard does not know their codec.

Of a long one the beginning is shown, and how much that is: ten megabytes would be a page that no browser can show.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeVar

from markupsafe import Markup, escape

T = TypeVar("T")

PAGE_BYTES = 512_000
"""of payloads that are read for one page; the first is read whole, however long"""
TEXT, HEX = 64_000, 4_000
"""bytes of a text, or of other bytes, that are shown"""
_COPIED = 256_000  # bytes; what is longer is downloaded
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+', re.DOTALL)
_WIDEST = 4 * TEXT  # characters with indentation; JSON that would be longer is shown as it is
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
        return None if self.text is None or self.cut else indented(self.text)

    @property
    def kind(self) -> Literal["JSON", "text", "bytes"]:
        """What the bytes look like; long JSON is text here."""
        return "bytes" if self.text is None else "text" if self._json is None else "JSON"

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return len(self.data)

    @property
    def shown(self) -> int:
        """How many bytes are shown at most."""
        return HEX if self.text is None else TEXT

    @property
    def cut(self) -> bool:
        """Whether only the beginning is shown."""
        return self.size > self.shown

    @cached_property
    def markup(self) -> Markup:
        """What is shown in a `pre`, its control characters and marks of direction as escapes."""
        if self.text is None:
            return escape(_dump(self.data[:HEX]))
        if self.cut:
            return _visible(self.data[:TEXT].decode(errors="ignore"))  # it is UTF-8, but for a character that is cut
        return _visible(self._json or self.text)

    @property
    def copied(self) -> str | None:
        """What the copy button copies, in base64: the text as it is stored, or the bytes in hex; None of a long one."""
        if self.size > _COPIED:
            return None
        return base64.b64encode(self.data if self.text is not None else self.data.hex().encode()).decode()

    @cached_property
    def digest(self) -> str:
        """What tells these bytes from others."""
        return hashlib.sha256(self.data).hexdigest()[:32]

    @property
    def json(self) -> str | dict[str, str]:
        """The bytes for programs, with nothing lost: a string of UTF-8, or `{"base64": ...}` of anything else."""
        return self.text if self.text is not None else {"base64": base64.b64encode(self.data).decode()}


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
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return None
    parts: list[str] = []
    depth, before, length = 0, "", 0
    for token in _TOKEN.findall(text):
        opens, closes = before in ("{", "["), token in ("}", "]")
        depth -= closes
        if before and (opens or before == "," or closes) and not (opens and closes):
            parts.append("\n" + "  " * depth)
            length += len(parts[-1])
        parts.append(": " if token == ":" else token)
        depth += token in ("{", "[")
        length += len(parts[-1])
        if depth > _DEEPEST or length > _WIDEST:
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
