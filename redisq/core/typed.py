"""A codec for items of one type: msgspec structs, dataclasses, pydantic models, and what is made of them."""

from __future__ import annotations

import importlib
import re
import reprlib
import sys
import typing
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any, Generic, Literal, TypeVar, overload

from .codecs import JSON
from .errors import InvalidArgument

T = TypeVar("T")

Library = Literal["msgspec", "pydantic"]
Dump = Callable[[Any], bytes]
Load = Callable[[bytes], Any]


class Typed(Generic[T]):
    """A codec for items of one type, stored as canonical JSON: `Buffer(client, "orders", codec=Typed(Order))`.

    The type may be a msgspec `Struct`, a dataclass or a pydantic model, or anything that msgspec or pydantic make of
    types: `list[Order]`, a TypedDict, a union. A `Struct` needs msgspec (0.18.6 or newer), a model pydantic (2.7 or
    newer); for all else `library` says which of the two is used: msgspec where it is installed, else pydantic. They
    write some types differently (bytes, for one), so where both may be around, name it.

    - Keys are sorted, so is what is in a set; there are no spaces, and no NaN. Equal items of the type have equal
      bytes, as the members of a priority queue must have: an int where a float is declared is stored as a float.
      (Not so 0.0 and -0.0, decimals such as 1.0 and 1.00, or one moment in two time zones.)
    - An item is decoded again before it is pushed. One that does not fit the type, or would not come back equal, is
      refused with `CodecError`, before anything is written.
    - What is stored may be of another version of the type: fields that are not known are ignored, and missing ones get
      their default, unless the type forbids it. Bytes that do not fit raise `CodecError`, whose `raw` has them.

    Raises `InvalidArgument` for a type that cannot be used, and says what to install where a library is missing.
    """

    @overload
    def __init__(self, kind: type[T], /, *, library: Literal["msgspec", "pydantic"] | None = None) -> None: ...

    @overload
    def __init__(self, kind: Any, /, *, library: Literal["msgspec", "pydantic"] | None = None) -> None: ...

    def __init__(self, kind: Any, /, *, library: Literal["msgspec", "pydantic"] | None = None) -> None:
        self.type = kind
        """What was given."""
        self.library = _library(kind, library)
        """The library that encodes and decodes."""
        make = _msgspec if self.library == "msgspec" else _pydantic
        try:
            self._dump, self._load = make(kind)
        except ImportError:
            install = f"redisq needs {self.library} for it: pip install {self.library}"
            raise InvalidArgument(f"type is {_name(kind)}: {install}") from None
        except Exception as error:
            raise InvalidArgument(f"type is {_name(kind)}, which {self.library} cannot use: {error}") from error

    def encode(self, item: T, /) -> bytes:
        """Return the canonical JSON of an item that fits the type, and comes back as it is."""
        data = self._dump(item)
        back = self._load(data)
        # Of `back`, not of `item`: an int where a float is declared would have bytes of its own.
        canonical = self._dump(back)
        if back == item or (_has_no_equality(item) and type(back) is type(item) and canonical == data):
            return canonical
        raise ValueError(f"it would come back as {reprlib.repr(back)}: give {_name(self.type)}")

    def decode(self, data: bytes, /) -> T:
        """Return the item."""
        item: T = self._load(data)
        return item

    def __repr__(self) -> str:
        return f"Typed({_name(self.type)})"


# -- which library


def _library(kind: Any, asked: Any) -> Library:
    """Return the library for a type: that of what it is made of, or the one that is asked for or installed."""
    if asked not in (None, "msgspec", "pydantic"):
        raise InvalidArgument(f"library is {asked!r}: give 'msgspec', 'pydantic' or None")
    if not _is_type(kind):
        raise InvalidArgument(f"type is {kind!r}: give a class or another type, such as list[Order]")
    needed = sorted({found for part in _parts(kind, set()) if (found := _made_with(part))})
    if len(needed) > 1:
        raise InvalidArgument(f"type is {_name(kind)}, which has structs of msgspec and models of pydantic: use one")
    if needed and asked not in (None, needed[0]):
        raise InvalidArgument(f"library is {asked!r}, but {_name(kind)} is made with {needed[0]}")
    if needed or asked:
        return typing.cast(Library, needed[0] if needed else asked)
    for name in typing.get_args(Library):
        if find_spec(name):
            return typing.cast(Library, name)
    raise InvalidArgument(
        f"type is {_name(kind)}: redisq needs msgspec or pydantic for it: pip install msgspec, or pip install pydantic"
    )


def _is_type(kind: Any) -> bool:
    made = ("__value__", "__supertype__")  # of `type Name = ...` and of NewType
    return isinstance(kind, type) or typing.get_origin(kind) is not None or any(hasattr(kind, one) for one in made)


def _parts(kind: Any, seen: set[int]) -> Iterator[Any]:
    """Yield a type and all that it is made of, metadata of Annotated included."""
    if id(kind) in seen:
        return
    seen.add(id(kind))
    yield kind
    parts = [*typing.get_args(kind), getattr(kind, "__value__", None), getattr(kind, "__supertype__", None)]
    if isinstance(kind, type) and kind.__module__ != "builtins":
        try:
            parts += typing.get_type_hints(kind, include_extras=True).values()
        except Exception:  # a name that is not known here; the library says so, if it cannot do without
            parts += vars(kind).get("__annotations__", {}).values()
    for part in parts:
        yield from _parts(part, seen)


def _made_with(part: Any) -> Library | None:
    """Return the library without which this part of a type means nothing."""
    kind = part if isinstance(part, type) else type(part)  # type(part): metadata such as msgspec.Meta(ge=0)
    pydantic = sys.modules.get("pydantic")
    if pydantic and (issubclass(kind, pydantic.BaseModel) or "__pydantic_validator__" in vars(kind)):
        return "pydantic"
    for base in kind.__mro__:
        root = base.__module__.partition(".")[0]
        if root in typing.get_args(Library):
            return typing.cast(Library, root)
    return None


def _name(kind: Any) -> str:
    return (
        kind.__qualname__
        if isinstance(kind, type) and not typing.get_args(kind)
        else re.sub(r"(\w+\.)+", "", repr(kind))
    )


def _has_no_equality(item: Any) -> bool:
    """Say whether an item is equal to nothing but itself, by its class: `eq=False`."""
    kind: Any = type(item)
    config = getattr(kind, "__struct_config__", None)
    return kind.__eq__ is object.__eq__ if config is None else not config.eq


# -- how


def _msgspec(kind: Any) -> tuple[Dump, Load]:
    msgspec: Any = importlib.import_module("msgspec")
    info: Any = importlib.import_module("msgspec.inspect")
    if isinstance(info.type_info(kind), info.CustomType):
        raise TypeError("it is none of the types that msgspec knows")
    return msgspec.json.Encoder(order="sorted").encode, msgspec.json.Decoder(kind).decode


def _pydantic(kind: Any) -> tuple[Dump, Load]:
    pydantic: Any = importlib.import_module("pydantic")
    adapter = pydantic.TypeAdapter(kind)

    def dump(item: Any) -> bytes:
        try:
            shown = adapter.dump_python(item, mode="json", by_alias=True, round_trip=True, warnings="error")
            plain = adapter.dump_python(item, by_alias=True, round_trip=True, warnings="none")
        except Exception as error:
            raise ValueError(" ".join(str(error).split())) from error
        return JSON.encode(_with_sorted_sets(shown, plain))

    def load(data: bytes) -> Any:
        try:
            return adapter.validate_json(data)
        except pydantic.ValidationError as error:
            found = error.errors(include_url=False, include_context=False, include_input=False)
            texts = [f"{one['msg']} - at `{'.'.join(map(str, ('$', *one['loc'])))}`" for one in found[:3]]
            raise ValueError("; ".join(texts)) from None

    return dump, load


def _with_sorted_sets(shown: Any, plain: Any) -> Any:
    """Return what is to become JSON with the lists that were sets sorted: the order of a set is another each time."""
    if isinstance(shown, dict) and isinstance(plain, dict) and len(shown) == len(plain):
        pairs = zip(shown.items(), plain.values(), strict=True)
        return {key: _with_sorted_sets(one, other) for (key, one), other in pairs}
    if isinstance(shown, list) and isinstance(plain, (list, tuple, set, frozenset)) and len(shown) == len(plain):
        items = [_with_sorted_sets(one, other) for one, other in zip(shown, plain, strict=True)]
        return sorted(items, key=JSON.encode) if isinstance(plain, (set, frozenset)) else items
    return shown
