"""A codec that carries the context of a trace in front of another codec's bytes."""

from __future__ import annotations

import json
import re
from contextvars import ContextVar
from typing import Any, Generic, TypeVar
from weakref import ref

from opentelemetry import propagate
from opentelemetry.context import Context, get_current

from ..core.codecs import Codec

T = TypeVar("T")

MAGIC = b"\0otel"
"""What a header begins with. No JSON begins so, and hardly any text."""
_NO_FIELDS = MAGIC + b"{}\n"
_HEADER = re.compile(rb"\0otel(\{[^\n]*\})\n")

decoded_fields: ContextVar[dict[bytes, None] | None] = ContextVar("redisq_decoded_fields", default=None)
"""Where carriers note the fields of what they decode, each once; None: nobody asks for them."""


class Carrier(Generic[T]):
    """A codec that wraps another one, and carries with each item the context in which it was pushed.

    The `codec` of a buffer, or the `payload_codec` of a priority queue: `Carrier(JSON)`. What is stored is a header and
    the other codec's bytes: a NUL, `otel`, the fields of the global propagator (such as `traceparent`) as a JSON object
    on one line, a newline, then the bytes. Where there is nothing to carry there is no header, and bytes without one
    are decoded as they are, so programs that do not trace may push to the queue as before.

    Workers need it before producers use it: without it they cannot decode what has a header.
    """

    varies = True  # the bytes of equal items differ
    """Equal items may have different bytes, so it cannot be the codec of members."""

    def __init__(self, codec: Codec[T]) -> None:
        self.codec = codec
        # The fields of the last context: those of a push are the same for all its items.
        self._last: tuple[Any, Any, bytes] = (None, None, b"")

    def encode(self, item: T, /) -> bytes:
        """Return the bytes to store, after a header if there is a current context to carry."""
        data = self.codec.encode(item)
        header = self._header()
        if not header and data.startswith(MAGIC):
            header = _NO_FIELDS  # else the item's own bytes would be taken for a header
        return header + data if header else data

    def decode(self, data: bytes, /) -> T:
        """Return the item, of bytes with or without a header."""
        match = _HEADER.match(data)
        if match is None:
            return self.codec.decode(data)
        if (noted := decoded_fields.get()) is not None:
            noted[match[1]] = None
        return self.codec.decode(data[match.end() :])

    @staticmethod
    def context(raw: bytes) -> Context | None:
        """Return the context that stored bytes carry, such as one of `batch.raw` or `batch.raw_payloads`, or None."""
        fields = fields_of(raw)
        return None if fields is None else read_fields(fields)

    def _header(self) -> bytes:
        context, propagator = get_current(), propagate.get_global_textmap()
        last, by, header = self._last
        if last is None or last() is not context or by is not propagator:
            fields: dict[str, str] = {}
            propagator.inject(fields, context)
            header = MAGIC + json.dumps(fields, separators=(",", ":")).encode() + b"\n" if fields else b""
            self._last = ref(context), propagator, header
        return header

    def __repr__(self) -> str:
        return f"Carrier({self.codec!r})"


def fields_of(raw: bytes) -> bytes | None:
    """Return the fields in the header of stored bytes, as JSON, or None where there is no header."""
    match = _HEADER.match(raw)
    return None if match is None else match[1]


def read_fields(data: bytes) -> Context | None:
    """Return the context that fields stand for; None for what no propagator can read, whoever has written it."""
    try:
        fields = json.loads(data)
        texts = {name: value for name, value in fields.items() if isinstance(value, str)}
        return propagate.extract(texts, Context()) or None
    except Exception:
        return None
