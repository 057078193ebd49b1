"""Checks of what callers pass: each names the value and the remedy, before anything is sent."""

from __future__ import annotations

import math
import operator
import os
import reprlib
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from .codecs import Codec, plain
from .errors import CodecError, InvalidArgument

T = TypeVar("T")

MAX_SECONDS = 99_999_999  # three years: above any use, and in ms the eleven digits that the scripts take


def integer(name: str, value: Any, low: int, high: int, remedy: str = "") -> int:
    """Return `value` as an int if it is a whole number from `low` to `high`: an int, or whatever has `__index__`."""
    one = plain(value)  # older versions of numpy give a bool an __index__
    try:
        number = low - 1 if isinstance(one, bool) else operator.index(one)
    except TypeError:
        number = low - 1
    if not low <= number <= high:
        raise InvalidArgument(f"{name} is {reprlib.repr(value)}: give a whole number from {low} to {high}{remedy}")
    return number


def _real(value: Any) -> float:
    """Return a number as a float, NaN for what is none: an int, a float, or whatever has `__index__` or `__float__`."""
    value = plain(value)
    if isinstance(value, (bool, str, bytes, bytearray)) or hasattr(value, "shape"):  # an array is not a number
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def milliseconds(name: str, value: Any, low: float = 0.0, high: float = MAX_SECONDS) -> int:
    """Return a number of seconds from `low` to `high` as whole milliseconds."""
    seconds = _real(value)
    if not low <= seconds <= high:
        raise InvalidArgument(f"{name} is {reprlib.repr(value)}: give seconds from {low:g} to {high:g}")
    return round(seconds * 1000)


def text(name: str, value: Any) -> bytes:
    """Return a name's bytes if it is a non-empty str; surrogates from a name that was not UTF-8 go back unchanged."""
    if not isinstance(value, str) or not value:
        raise InvalidArgument(f"{name} is {reprlib.repr(value)}: give a str that is not empty")
    try:
        return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise InvalidArgument(f"{name} is {reprlib.repr(value)}: it has lone surrogates, which have no bytes") from None


def key_prefix(prefix: Any, name: Any) -> bytes:
    """Return what all keys of a queue begin with: `prefix:{name}:`, the name being the cluster's hash tag."""
    return _tagless("prefix", prefix) + b":{" + _tagless("queue name", name) + b"}:"


def prefix(value: Any) -> bytes:
    """Return what the keys of all queues begin with."""
    return _tagless("prefix", value)


def _tagless(what: str, value: Any) -> bytes:
    if set(name := text(what, value)) & set(b"{}"):
        raise InvalidArgument(f"{what} is {value!r}: leave out {{ and }}, they mark a cluster's hash tag")
    return name


def new_id() -> bytes:
    """Return an id that nobody else has: 128 random bits, in hex.

    They come from the operating system. The state of a generator of our own could be copied, by a fork or by a memory
    snapshot that is restored more than once, and two processes with the same ids would lose each other's pushes.
    """
    return os.urandom(16).hex().encode()


def once_id(token: Any) -> bytes:
    """Return the id by which a repeated call is known: the caller's token, or a new one, outside any retry loop."""
    return new_id() if token is None else text("token", token)


def attempts(value: Any) -> int:
    """Return the greatest number of attempts, 0 for None."""
    return 0 if value is None else integer("max_attempts", value, 1, 999_999_999, ", or None")


def max_dead(value: Any) -> int:
    """Return how many dead letters are kept, 0 for None, which is all."""
    return 0 if value is None else integer("max_dead", value, 1, 999_999_999, ", or None")


def max_bytes(value: Any) -> int:
    """Return how many bytes a batch may have, 0 for None, which is any number."""
    return 0 if value is None else integer("max_bytes", value, 1, 99_999_999_999, ", or None")


def flag(name: str, value: Any) -> int:
    """Return a bool, or one of numpy, as 0 or 1."""
    if not isinstance(plain(value), bool):
        raise InvalidArgument(f"{name} is {reprlib.repr(value)}: give True or False")
    return int(value)


def names(what: str, values: Any, most: int) -> list[bytes]:
    """Return at most so many names as bytes."""
    if len(values) > most:
        raise InvalidArgument(f"{len(values)} {what} are given: give at most {most} a call")
    return [text(what, value) for value in values]


def number(name: str, value: Any) -> float:
    """Return a finite number."""
    real = _real(value)
    if not math.isfinite(real):
        raise InvalidArgument(f"{name} is {reprlib.repr(value)}: give a finite number")
    return real


def codec(name: str, value: Any) -> Codec[Any]:
    """Return a codec, which is whatever has the two methods of one."""
    if not (callable(getattr(value, "encode", None)) and callable(getattr(value, "decode", None))):
        raise InvalidArgument(
            f"{name} is {reprlib.repr(value)}: give JSON, TEXT, BYTES, a Typed, or an object with encode and decode"
        )
    found: Codec[Any] = value
    return found


def iterable(name: str, values: Iterable[T]) -> Iterator[T]:
    """Return an iterator over what is to be pushed."""
    try:
        return iter(values)
    except TypeError:
        raise InvalidArgument(
            f"{name} is {reprlib.repr(values)}: give an iterable of {name}, or call push for one"
        ) from None


def handler(value: Any) -> None:
    """Refuse as a handler what cannot be called."""
    if not callable(value):
        raise InvalidArgument(f"handler is {reprlib.repr(value)}: give a function that takes a batch")


def encode(codec: Codec[Any], item: Any, where: str = "item") -> bytes:
    """Return the item's bytes, or raise `CodecError`."""
    try:
        data = codec.encode(item)
    except Exception as error:
        raise CodecError(f"{codec!r} cannot encode the {where} {reprlib.repr(item)}: {error}") from error
    if not isinstance(data, bytes):
        raise CodecError(f"{codec!r} encoded the {where} {reprlib.repr(item)} to {type(data).__name__}, not to bytes")
    return data


def encode_all(codec: Codec[Any], items: Iterable[Any], where: str = "item") -> list[bytes]:
    """Return the bytes of all items, or raise `CodecError` for the first that has none."""
    items = list(items)
    try:
        encoded = list(map(codec.encode, items))
    except Exception:
        encoded = []
    if len(encoded) == len(items) and set(map(type, encoded)) <= {bytes}:
        return encoded
    return [encode(codec, item, where) for item in items]  # something is wrong: find and name it


def decode_all(codec: Codec[Any], data: Iterable[bytes], raw: Any) -> list[Any]:
    """Return the items of all these bytes, or raise `CodecError` for the first that is none."""
    data = list(data)
    try:
        return list(map(codec.decode, data))
    except Exception:
        return [decode(codec, one, raw) for one in data]  # one is wrong: find and name it


def decode(codec: Codec[Any], data: bytes, raw: Any) -> Any:
    """Return the item of these bytes, or raise `CodecError` with all that was taken."""
    try:
        return codec.decode(data)
    except Exception as error:
        raise CodecError(
            f"{codec!r} cannot decode {reprlib.repr(data)}: {error}; `raw` has what was taken", raw
        ) from error
