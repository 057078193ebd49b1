"""The JSON codec: every value is unchanged after a round trip, and equal bytes mean one member."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import redisq.core.codecs
from redisq import JSON, CodecError, Pushed
from tests.queues.flavours import Flavour

SURROGATES = st.characters(categories=["Cs"])
TEXTS = st.text(st.one_of(st.characters(exclude_categories=["Cs"]), SURROGATES, st.sampled_from('\\"\0\n\u2028é😀')))
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4), max_leaves=12
)
PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")


def typed_repr(value: Any) -> str:
    """Return a text that differs for any two different values, types included."""
    if isinstance(value, dict):
        return f"{{{', '.join(sorted(f'{typed_repr(key)}: {typed_repr(one)}' for key, one in value.items()))}}}"
    return f"[{', '.join(map(typed_repr, value))}]" if isinstance(value, list) else f"{type(value).__name__} {value!r}"


def strings_in(value: Any) -> list[str]:
    """Return every str in a value, keys included."""
    if isinstance(value, dict):
        return [text for key, one in value.items() for text in (key, *strings_in(one))]
    if isinstance(value, list):
        return [text for one in value for text in strings_in(one)]
    return [value] if isinstance(value, str) else []


def reversed_keys(value: Any) -> Any:
    """Return an equal value whose keys are in the reverse order."""
    if isinstance(value, dict):
        return {key: reversed_keys(one) for key, one in reversed(value.items())}
    return [reversed_keys(one) for one in value] if isinstance(value, list) else value


@given(VALUES)
@example("\ud800")
@example("\udc00\ud800")
@example("\\\ud800")
@example("\\ud800")
@example({"\udfff": ["\ud83d", "\ude00"]})
@example([-0.0, 0.0, 1e-320, 2**100, 10**300, True, 1, 1.0, None])
def test_any_value_is_unchanged_after_a_round_trip(value: Any) -> None:
    """Including the types of its numbers, and lone surrogates; a character split into two surrogates is refused."""
    if any(map(PAIR.search, strings_in(value))):
        with pytest.raises(ValueError, match="one character in two halves"):
            JSON.encode(value)
        return
    data = JSON.encode(value)
    assert typed_repr(JSON.decode(data)) == typed_repr(value)
    assert JSON.encode(JSON.decode(data)) == data  # so a member is recognized after any number of round trips
    assert JSON.encode(reversed_keys(value)) == data


@given(VALUES)
def test_the_encoding_is_standard_json(value: Any) -> None:
    """UTF-8 without spaces, as Python's own encoder writes it; only lone surrogates are escaped."""
    if any(map(PAIR.search, strings_in(value))):
        return
    data = JSON.encode(value)
    text = data.decode()  # strict, so it is valid UTF-8
    assert typed_repr(json.loads(text)) == typed_repr(value)
    written = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    assert re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", written) == text


@given(st.lists(VALUES, min_size=2, max_size=2))
def test_equal_bytes_are_equal_values(two: list[Any]) -> None:
    """And different values of the same types have different bytes."""
    try:
        one, other = map(JSON.encode, two)
    except ValueError:
        return
    assert (one == other) == (typed_repr(two[0]) == typed_repr(two[1]))


@pytest.mark.parametrize(
    "value",
    ["\ud83d\ude00", "x\ud800\udc00y", ["ok", "\udbff\udfff"], {"\ud83d\ude00": 1}, {"a": {"b": ["\ud83d\ude00"]}}],
    ids=ascii,
)
def test_a_split_character_is_refused(flavour: Flavour, value: Any) -> None:
    """It would come back as one character; nothing is written."""
    do, buffer, queue = flavour.do, flavour.buffer("b"), flavour.queue("p", codec=JSON)
    (text,) = filter(PAIR.search, strings_in(value))
    pair: Any = PAIR.search(text)
    whole = pair[0].encode("utf-16", "surrogatepass").decode("utf-16")
    calls: list[Callable[[], Any]] = [
        lambda: buffer.push("good", value),
        lambda: buffer.push_many(["good", value]),
        lambda: queue.push(value),
        lambda: queue.push_many([("good", 0), (value, 1)]),
        lambda: queue.push("good", payload=value),
        lambda: queue.remove(value),
    ]
    for call in calls:
        with pytest.raises(CodecError, match="one character in two halves") as caught:
            do(call())
        assert repr(pair[0]) in str(caught.value)
        assert repr(whole) in str(caught.value)
        str(caught.value).encode()  # it can be printed
    with pytest.raises(CodecError, match="number 1"):
        do(buffer.push_many(["good", value]))
    assert flavour.plain.dbsize() == 0


LONE = ["\ud800", "\udfff", "a\udcffb", "\ude00\ud83d", {"\udcff": "\ud800"}, "\ud800\ud800", "\\ud800", "😀\ud83d"]


@pytest.mark.parametrize("options", [{}, {"decode_responses": True}], ids=str)
def test_lone_surrogates_are_unchanged_by_a_server(flavour: Flavour, options: dict[str, Any]) -> None:
    """As items, members and payloads, in every state."""
    do, client = flavour.do, flavour.make_client(**options)
    buffer = flavour.library.Buffer(client, "b")
    do(buffer.push(*LONE))
    assert do(buffer.peek(count=99)) == LONE
    batch = do(buffer.reserve())
    assert batch.items == LONE
    batch.fail("a\udcffb")
    assert do(batch.ack()) == len(LONE) - 1
    assert do(buffer.pop_longest()) == {}
    assert do(do(buffer.reserve()).bury("odd")) == 1
    assert [dead.items for dead in do(buffer.dead())] == [["a\udcffb"]]

    queue = flavour.library.PriorityQueue(client, "p", codec=JSON)
    texts_alone = [one for one in LONE if isinstance(one, str)]
    do(queue.push_many((one, place, one) for place, one in enumerate(texts_alone)))
    assert do(queue.push("\ud800", 0)) is Pushed.KEPT
    assert [(item.member, item.payload) for item in do(queue.pop_many(99))] == [(one, one) for one in texts_alone]


def test_numbers_that_are_written_differently_are_different_members(flavour: Flavour) -> None:
    """Although they are equal in Python, as documented."""
    do, queue = flavour.do, flavour.queue(codec=JSON)
    members: list[Any] = [{"id": 17}, {"id": 17.0}, {"id": "17"}, 1, 1.0, True, 0.0, -0.0, 10**2, 1e2]
    for member in members:
        assert do(queue.push(member)) is Pushed.ADDED
    assert do(queue.push({"id": 17}, 0)) is Pushed.KEPT
    assert do(queue.stats()).waiting == len(members)
    assert [typed_repr(item.member) for item in do(queue.pop_many(99))] == list(map(typed_repr, members))
    do(queue.push_many([({"a": 1, "b": 2}, 0), ({"b": 2, "a": 1}, 0)]))
    assert do(queue.stats()).waiting == 1  # but the order of keys does not matter
    assert "two members of a priority queue" in inspect.getsource(redisq.core.codecs)


NUMPY: list[tuple[Any, Any]] = [
    (np.int8(-5), -5),
    (np.int64(2**62), 2**62),
    (np.uint64(2**63), 2**63),
    (np.float64(0.1), 0.1),
    (np.float32(0.5), 0.5),
    (np.float16(0.5), 0.5),
    (np.longdouble(0.5), 0.5),
    (np.True_, True),
    (np.False_, False),
    (np.str_("é"), "é"),
    (np.array(7), 7),
    (np.array("text"), "text"),
    ({"n": np.int64(1), np.str_("s"): [np.float64(-0.0), (np.True_,)]}, {"n": 1, "s": [-0.0, [True]]}),
]


@pytest.mark.parametrize(("value", "plain"), NUMPY, ids=lambda one: f"{type(one).__name__} {one!r}"[:40])
def test_numpy_scalars_are_encoded_like_pythons_numbers(flavour: Flavour, value: Any, plain: Any) -> None:
    """So they are the same member, and are decoded as Python's own."""
    assert JSON.encode(value) == JSON.encode(plain)
    do, queue = flavour.do, flavour.queue(codec=JSON)
    assert do(queue.push(value, payload=value)) is Pushed.ADDED
    assert do(queue.push(plain)) is Pushed.KEPT
    item = do(queue.pop())
    assert typed_repr(item.member) == typed_repr(item.payload) == typed_repr(JSON.decode(JSON.encode(plain)))


@pytest.mark.parametrize(
    "value",
    [
        np.array([1, 2]),
        np.array([1]),
        np.array([]),
        np.float64("nan"),
        np.float32("inf"),
        np.complex128(1),
        np.clongdouble(1),
        np.bytes_(b"x"),
        np.datetime64("2020-01-01"),
        np.timedelta64(1, "s"),
        np.array(None, dtype=object).reshape(1),
        {np.int64(1): "key"},
        [{1, 2}],
        float("nan"),
        b"bytes",
        object(),
        {"a": 1, 2: 3},
        {(1, 2): 3},
    ],
    ids=lambda one: f"{type(one).__name__} {one!r}".partition(" at 0x")[0][:40],
)
def test_values_that_are_not_json_are_refused(flavour: Flavour, value: Any) -> None:
    with pytest.raises(CodecError, match="JSON cannot encode the item"):
        flavour.do(flavour.buffer().push(1, value))
    with pytest.raises(CodecError, match="JSON cannot encode the payload"):
        flavour.do(flavour.queue().push("m", payload=value))
    assert flavour.plain.dbsize() == 0


@pytest.mark.parametrize("data", [b"", b"{", b"nothing", b"\xff", b'"\xed\xa0\x80"x', b"1 2"])
def test_bytes_that_are_not_json_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # of json, or of the decoding
        JSON.decode(data)


@pytest.mark.parametrize(
    "value", [object(), b"bytes", {1, 2}, np.array([1]), np.clongdouble(1), np.datetime64(1, "s")], ids=range(6)
)
def test_the_error_names_the_type_of_a_value_that_is_not_json(value: Any) -> None:
    """Where json itself would report a circular reference."""
    kind = "datetime" if isinstance(value, np.datetime64) else type(value).__name__
    with pytest.raises(TypeError, match=f"^{kind} is not JSON$"):
        JSON.encode([value])
