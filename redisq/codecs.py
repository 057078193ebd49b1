"""Codecs: how an item becomes the bytes that Redis keeps, and comes back as it went in."""

from __future__ import annotations

import json
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Codec(Protocol[T]):
    """Turn items into bytes and back: these two methods are all that a codec of one's own needs.

    Either may raise any exception for a value it does not know; redisq raises it again as `CodecError`. A priority
    queue tells members apart by their bytes, so equal items must encode to equal bytes.
    """

    def encode(self, item: T, /) -> bytes:
        """Give the bytes to store."""
        ...

    def decode(self, data: bytes, /) -> T:
        """Give the item back."""
        ...


class _Json:
    # One encoder for all: json.dumps makes a new one for each call that has settings.
    _encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode

    def encode(self, item: Any, /) -> bytes:
        return self._encode(item).encode()

    def decode(self, data: bytes, /) -> Any:
        return json.loads(data)

    def __repr__(self) -> str:
        return "JSON"


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
"""Canonical JSON: keys sorted, no spaces, UTF-8, no NaN: equal values have equal bytes."""

TEXT: Codec[str] = _Text()
"""`str` as UTF-8."""

BYTES: Codec[bytes] = _Bytes()
"""`bytes` as they are."""
