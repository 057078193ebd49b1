"""Names of queues, groups and members: in a URL, and on the page, where no two names look the same.

In a URL a name is one segment of the path: letters, digits and `-._` stand for themselves, any other byte is `~` and
two hexadecimal digits. No proxy, framework or browser changes such a segment, whatever the name: one with `/`, NUL,
`..` or bytes that are not UTF-8.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from markupsafe import Markup, escape

from ..core.calls import as_bytes

_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._")
_EMPTY = "~_"
_BYTE = re.compile(rb"~([0-9A-Fa-f]{2})")
_SEEN = re.compile(r"\\(?:\\|x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8}))")
# Characters that count as printable and cannot be seen: fillers, a blank of Braille, what chooses another glyph.
_UNSEEN = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\ufe00-\ufe0f\U000e0100-\U000e01ef]")


def name_bytes(name: str | bytes) -> bytes:
    """Return a name's bytes; bytes that are not UTF-8 are surrogates in a str."""
    return name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")


def name_text(name: bytes) -> str:
    """Return a name as the queues take it."""
    return name.decode("utf-8", "surrogateescape")


def to_segment(name: str | bytes) -> str:
    """Write a name as a segment of a path."""
    data = name_bytes(name)
    if data in (b"", b".", b".."):  # a browser would take these for steps in the path
        return "".join(f"~{byte:02X}" for byte in data) or _EMPTY
    return "".join(chr(byte) if byte in _PLAIN else f"~{byte:02X}" for byte in data)


def from_segment(segment: str) -> bytes:
    """Read a segment of a path: the reverse of `to_segment`, and a name typed by hand is itself."""
    if segment == _EMPTY:
        return b""
    return _BYTE.sub(lambda match: bytes([int(match[1], 16)]), segment.encode("utf-8", "surrogateescape"))


def _pieces(name: str | bytes) -> Iterator[tuple[str, str]]:
    """Yield what is shown for each character, and the escape, if it needs one."""
    text = name_text(as_bytes(name)) if isinstance(name, bytes) else name
    inner = text.strip(" ")
    before = len(text) - len(text.lstrip(" "))
    for place, one in enumerate(text):
        code = ord(one)
        if 0xDC80 <= code <= 0xDCFF:
            yield one, f"\\x{code - 0xDC00:02x}"
        elif one == " ":
            yield one, "" if before <= place < before + len(inner) else "\\x20"
        elif one.isprintable() and not _UNSEEN.match(one):
            yield one, ""
        elif code < 0x80:
            yield one, f"\\x{code:02x}"
        else:
            yield one, f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def shown(name: str | bytes) -> str:
    """Return a name as people see it: what cannot be seen is an escape such as `\\x00`, `\\u202e` or `\\xff`.

    No two names look the same: where a name has backslashes that would pass for an escape, they are doubled.
    """
    pieces = list(_pieces(name))
    plain = "".join(mark or one for one, mark in pieces)
    if typed(plain) == name_bytes(name):
        return plain
    return "".join(mark or one.replace("\\", "\\\\") for one, mark in pieces)


def shown_markup(name: str | bytes) -> Markup:
    """Return the same for a page: in a `bdi`, so that it keeps its direction to itself, with its escapes marked."""
    doubled = typed("".join(mark or one for one, mark in _pieces(name))) != name_bytes(name)
    parts = [Markup('<bdi class="name">')]
    for one, mark in _pieces(name):
        if not mark and one == "\\" and doubled:
            mark = "\\\\"
        parts.append(Markup('<span class="esc">{}</span>').format(mark) if mark else escape(one))
    if len(parts) == 1:
        parts.append(Markup('<span class="esc">empty</span>'))
    return Markup("").join([*parts, Markup("</bdi>")])


def typed(text: str) -> bytes:
    """Read a name that somebody typed or copied: the reverse of `shown`."""
    found, last = bytearray(), 0
    for match in _SEEN.finditer(text):
        found += text[last : match.start()].encode("utf-8", "surrogateescape")
        last = match.end()
        if match[1]:
            found.append(int(match[1], 16))
        elif code := match[2] or match[3]:
            found += _character(int(code, 16)) or match[0].encode()
        else:
            found += b"\\"
    return bytes(found + text[last:].encode("utf-8", "surrogateescape"))


def _character(code: int) -> bytes:
    """Return the bytes of a character; none of a number that stands for none."""
    return b"" if code > 0x10FFFF or 0xD800 <= code < 0xE000 else chr(code).encode()
