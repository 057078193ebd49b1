"""Codecs: how an item becomes the bytes that Redis keeps, and comes back as it went in."""

from __future__ import annotations

import json
import re
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Codec(Protocol[T]):
    """What turns items into bytes and back: these two methods are all that a codec of your own needs.

    Either may raise any exception for a value it does not know; redisq raises it again as `CodecError`. A priority
    queue tells members apart by their bytes, so an item must always encode to the same bytes. A codec whose bytes are
    not always the same says so by an attribute `varies`, which is true, and no priority queue takes it for members.
    """

    def encode(self, item: T, /) -> bytes:
        """Return the bytes to store."""
        ...

    def decode(self, data: bytes, /) -> T:
        """Return the item."""
        ...


def plain(value: Any) -> Any:
    """Return the Python value that a scalar of numpy stands for; what is none is returned as it is."""
    if getattr(value, "shape", None) != () or not hasattr(value, "item"):
        return value
    item = value.item()
    # Python has no longdouble, so that of numpy is its own item.
    return float(value) if type(item) is type(value) and value.dtype.kind == "f" else item


def _scalar(item: Any) -> Any:
    """Return the number that a scalar of numpy is; json knows nothing else."""
    value = plain(item)
    if type(value) is type(item):
        raise TypeError(f"{type(item).__name__} is not JSON")
    return value


class _Json:
    # One encoder for all: json.dumps makes a new one for each call that has settings.
    _encode = json.JSONEncoder(
        sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_scalar
    ).encode

    def encode(self, item: Any, /) -> bytes:
        text = self._encode(item)
        try:
            return text.encode()
        except UnicodeEncodeError:
            return _escape_surrogates(text)

    def decode(self, data: bytes, /) -> Any:
        return json.loads(data)

    def __repr__(self) -> str:
        return "JSON"


def _escape_surrogates(text: str) -> bytes:
    """Return the UTF-8 of a JSON text, its lone surrogates as escapes like `\\ud800`, as JavaScript writes them."""
    if pair := re.search("[\ud800-\udbff][\udc00-\udfff]", text):
        raise ValueError(f"{pair[0]!r} is one character in two halves, and would come back as {_joined(pair[0])!r}")
    return text.encode("utf-8", "backslashreplace")


def _joined(pair: str) -> str:
    return pair.encode("utf-16", "surrogatepass").decode("utf-16")


class _Text:
    def encode(self, item: str, /) -> bytes:
        if not isinstance(item, str):
            raise TypeError("not a str")
        return item.encode()

    def decode(self, data: bytes, /) -> str:
        return data.decode()

    def __repr__(self) -> str:
        return "TEXT"


class _Bytes:
    def encode(self, item: bytes, /) -> bytes:
        if type(item) is bytes:
            return item
        if not isinstance(item, (bytes, bytearray, memoryview)):
            raise TypeError("not bytes")
        return bytes(item)

    def decode(self, data: bytes, /) -> bytes:
        return data

    def __repr__(self) -> str:
        return "BYTES"


JSON: Codec[Any] = _Json()
"""Canonical JSON: keys sorted, no spaces, UTF-8, no NaN.

The order of keys makes no difference to the bytes, but 17 and 17.0, which are equal in Python, are written differently:
`{"id": 17}` and `{"id": 17.0}` are two members of a priority queue. A str with a lone surrogate comes back as it was.
"""

TEXT: Codec[str] = _Text()
"""`str` as UTF-8."""

BYTES: Codec[bytes] = _Bytes()
"""`bytes` as they are."""
