"""Marking items of a batch as failed: which item is meant, and how much work it is to find."""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum, IntEnum
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from redisq import JSON, Buffer, InvalidArgument, PriorityQueue
from redisq.core.batch import BatchData
from tests.queues.flavours import Flavour
from tests.queues.structures import STRUCTURES, stocked, take

LARGEST = 3_000  # items in the largest batch


def batch_of_items(*items: Any) -> BatchData[Any]:
    """Return a batch with these items."""
    return BatchData("l", "g", list(items), 1, 0, [])


class Small(IntEnum):
    ONE = 1
    TWO = 2


class Colour(str, Enum):
    RED = "red"

    def __str__(self) -> str:
        return "a colour"


class Half(float, Enum):
    HALF = 0.5


class Pair(NamedTuple):
    one: Any
    two: Any


@dataclass
class Unhashable:
    """Equal by its fields, without a hash."""

    value: Any


@dataclass
class HiddenValue:
    """Compared by a field that its repr does not show; its repr shows one that does not count."""

    value: Any = field(repr=False)
    shown: Any = field(default=0, compare=False)


@dataclass(frozen=True)
class Frozen:
    """Equal by its fields, with a hash."""

    value: Any


class PlainEquality:
    """Equal to others with the same value, without a hash or a repr."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlainEquality) and self.value == other.value

    __hash__ = None  # type: ignore[assignment]


class EqualSubclass(PlainEquality):
    """Equal to instances of its base class, but of another type."""


class Incomparable:
    """Raises on any comparison, and has no hash."""

    def __eq__(self, other: object) -> bool:
        raise TypeError("leave me alone")

    __hash__ = None  # type: ignore[assignment]


class IdentityOnly:
    """Equal only to itself."""


# -- which item is meant ---------------------------------------------------------------------------------------------

DISTINCT: list[Any] = [
    *(1, True, 1.0, "1", b"1", Decimal(1), Fraction(1), 1 + 0j, None),
    *(0, False, 0.0, "", b"", 0.5, -1, 2**70, float(2**70)),
    *([1], [True], [1.0], (1,), (True,), [[1]], [[1.0]], [[]], []),
    *({"a": 1}, {"a": True}, {"a": 1.0}, {"a": [1]}, {"a": [True]}, {"b": 1}, {}, {1: "a"}, {True: "a"}, {"1": "a"}),
    *({1}, {True}, {1, 2}, set(), frozenset({1}), frozenset({True})),
    *(
        Pair(1, 2),
        (1, 2),
        [1, 2],
        Unhashable(1),
        Unhashable(2),
        Unhashable([1]),
        Frozen(1),
        Frozen(2),
        PlainEquality(1),
        PlainEquality(2),
        EqualSubclass(1),
        bytearray(b"1"),
    ),
]


@pytest.mark.parametrize("shuffle", range(3))
def test_items_that_are_equal_in_python_are_distinguished_by_type(shuffle: int) -> None:
    """Nested values too: `True` is not 1, and 1 is not 1.0."""
    items = DISTINCT.copy()
    random.Random(shuffle).shuffle(items)
    batch = batch_of_items(*items)
    for place, item in enumerate(items):
        assert place not in batch.failed
        batch.fail(pickle.loads(pickle.dumps(item)))  # an equal one, not the same
        assert place in batch.failed, item
    assert len(batch.failed) == len(items)
    for item in items:
        with pytest.raises(InvalidArgument, match="has been marked as often as it occurs"):
            batch.fail(item)


@pytest.mark.parametrize("wanted", DISTINCT, ids=lambda one: f"{type(one).__name__} {one!r}".partition(" at 0x")[0])
def test_an_item_that_is_not_in_the_batch_matches_no_other(wanted: Any) -> None:
    others = [item for item in DISTINCT if item is not wanted]
    batch = batch_of_items(*others)
    with pytest.raises(InvalidArgument, match="is not in the batch"):
        batch.fail(wanted)
    assert batch.failed == {}


EQUIVALENT: list[tuple[Any, Any]] = [
    (1, Small.ONE),
    (1, np.int64(1)),
    (1, np.uint8(1)),
    (1, np.array(1)),
    (True, np.True_),
    (0.5, np.float64(0.5)),
    (0.5, np.float32(0.5)),
    (0.5, np.longdouble(0.5)),
    (0.5, Half.HALF),
    ("red", Colour.RED),
    ("red", np.str_("red")),
    (b"red", np.bytes_(b"red")),
    ([1, 2], np.array([1, 2])),
    ([[1.0, 2.0]], np.array([[1.0, 2.0]])),
    ([True, False], np.array([True, False])),
    ([], np.array([])),
    ([1, "red"], [np.int64(1), Colour.RED]),
    ({"n": 1, "m": [0.5]}, {"m": [np.float64(0.5)], "n": Small.ONE}),
    ((1, 2), (np.int64(1), np.int64(2))),
    ({"b": 1, "a": 2}, {"a": 2, "b": 1}),
    ({8, 0}, {0, 8}),
    (float("inf"), np.float64("inf")),
    (-0.0, 0.0),
]


@pytest.mark.parametrize(("item", "equivalent"), EQUIVALENT, ids=lambda one: f"{type(one).__name__} {one!r}"[:40])
def test_equivalent_types_match(item: Any, equivalent: Any) -> None:
    """A NumPy scalar, an enum member, an array for a list; on either side."""
    for inside, given_one in ((item, equivalent), (equivalent, item), (equivalent, equivalent)):
        batch = batch_of_items("other", inside)
        batch.fail(given_one)
        assert set(batch.failed) == {1}


@pytest.mark.parametrize(
    ("item", "other"),
    [
        (1, np.float64(1)),
        (1.0, np.int64(1)),
        (1, np.True_),
        (True, np.int8(1)),
        (True, Small.ONE),
        (1.0, Small.ONE),
        ("1", np.int64(1)),
        ([1, 2], np.array([1.0, 2.0])),
        ([1, 2], np.array([True, True])),
        ((1, 2), np.array([1, 2])),
        ("a colour", Colour.RED),
        ("RED", Colour.RED),
    ],
    ids=lambda one: f"{type(one).__name__} {one!r}"[:40],
)
def test_other_types_do_not_match(item: Any, other: Any) -> None:
    for inside, given_one in ((item, other), (other, item)):
        with pytest.raises(InvalidArgument):
            batch_of_items(inside).fail(given_one)


def test_an_item_without_a_hash_is_found_by_its_own_equality() -> None:
    """Whatever its repr; an item that is equal only to itself is found too."""
    batch = batch_of_items(HiddenValue(1, 0), HiddenValue(2, 0), HiddenValue(1, 5))
    batch.fail(HiddenValue(2, 9))
    assert set(batch.failed) == {1}
    batch.fail(HiddenValue(1, 9))
    batch.fail(HiddenValue(1, 9))
    assert set(batch.failed) == {0, 1, 2}
    with pytest.raises(InvalidArgument):
        batch.fail(HiddenValue(1, 0))
    for kind in (IdentityOnly, Incomparable):
        one, two = kind(), kind()
        batch = batch_of_items(one, two)
        batch.fail(two)
        assert set(batch.failed) == {1}
        with pytest.raises(InvalidArgument):
            batch.fail(kind())
    arrays = [Unhashable(np.array([1, 2])), Unhashable(np.array([1, 2]))]  # == is not a bool
    batch = batch_of_items(*arrays)
    batch.fail(arrays[1])
    assert set(batch.failed) == {1}
    with pytest.raises(InvalidArgument):
        batch.fail(Unhashable(np.array([1, 2])))


# -- equal items, errors, and places ---------------------------------------------------------------------------------


def test_equal_items_are_marked_one_by_one_from_the_first() -> None:
    batch = batch_of_items("a", "b", "a", "a")
    batch.fail("a", reason="one")
    batch.fail("a", "b", reason="two")
    assert batch.failed == {0: "one", 1: "two", 2: "two"}
    batch.fail("a")
    assert batch.failed == {0: "one", 1: "two", 2: "two", 3: ""}
    with pytest.raises(InvalidArgument, match="'a'"):
        batch.fail("a")


def test_nothing_is_marked_after_an_error() -> None:
    """By that call; the items before the bad one can be marked later."""
    batch = batch_of_items("a", "b", "a", [1], Unhashable(1))
    for items in (
        ("a", "a", "a"),
        ("a", "b", "none"),
        (["none"],),
        ("b", [1], Unhashable(1), [1]),
        ("a", Unhashable(2)),
    ):
        with pytest.raises(InvalidArgument):
            batch.fail(*items)
        assert batch.failed == {}
    for places in ((0, 5), (0, -1), (0, True), (0, "1"), (0, 1.0), (0, None), (0, np.True_), (0, np.float64(1))):
        with pytest.raises(InvalidArgument, match="index"):
            batch.fail_at(*places)
        assert batch.failed == {}
    batch.fail("a", "b")
    assert set(batch.failed) == {0, 1}  # the first of the equal ones again
    batch.fail("a", [1], Unhashable(1))
    assert set(batch.failed) == {0, 1, 2, 3, 4}


def test_marking_nothing() -> None:
    for batch in (batch_of_items(), batch_of_items("a")):
        batch.fail()
        batch.fail_at()
        assert batch.failed == {}
    with pytest.raises(InvalidArgument):
        batch_of_items().fail("a")
    with pytest.raises(InvalidArgument):
        batch_of_items().fail_at(0)


def test_marks_by_place_and_by_item_can_be_mixed() -> None:
    batch = batch_of_items("a", "b", "a", "a", "b")
    batch.fail_at(2, 0, reason="by place")
    batch.fail("a", reason="by item")
    assert batch.failed == {0: "by place", 2: "by place", 3: "by item"}
    with pytest.raises(InvalidArgument):
        batch.fail("b", "a")
    batch.fail("b")
    assert 1 in batch.failed
    place: Any = np.int64(1)
    batch.fail_at(place, reason="once more")  # by its place again: the newer reason wins
    assert batch.failed[1] == "once more"
    batch.fail("b")
    assert set(batch.failed) == {0, 1, 2, 3, 4}
    with pytest.raises(InvalidArgument):
        batch.fail("b")


items = st.sampled_from([1, True, 1.0, "a", b"a", (1,), None])
marks = st.lists(st.one_of(st.tuples(st.just("item"), st.lists(items, max_size=3)), st.integers(0, 9)), max_size=12)


@given(st.lists(items, min_size=1, max_size=10), marks)
def test_marks_in_any_order_match_a_linear_search(within: list[Any], marks: list[Any]) -> None:
    """For the first equal item of its type that is not marked yet."""
    batch, marked = batch_of_items(*within), set[int]()
    for mark in marks:
        if isinstance(mark, int):
            if mark < len(within):
                batch.fail_at(mark)
                marked.add(mark)
            continue
        found, right = set[int](), True
        for item in mark[1]:
            free = [i for i, one in enumerate(within) if i not in marked | found and same_value(one, item)]
            right = right and bool(free)
            found.update(free[:1])
        if right:
            batch.fail(*mark[1])
            marked |= found
        else:
            with pytest.raises(InvalidArgument):
                batch.fail(*mark[1])
        assert set(batch.failed) == marked


def same_value(one: Any, other: Any) -> bool:
    return type(one) is type(other) and one == other


# -- a large batch ---------------------------------------------------------------------------------------------------


class Operations:
    """A count of how often items are hashed, compared and shown."""

    done = 0

    @contextmanager
    def at_most(self, most: int) -> Iterator[None]:
        """Fail if one of the counts is higher."""
        before = Operations.done
        yield
        assert 0 < Operations.done - before <= most


class Hashable:
    """An item with a hash that counts its use."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        Operations.done += 1
        return isinstance(other, Hashable) and self.value == other.value

    def __hash__(self) -> int:
        Operations.done += 1
        return hash(self.value)


class UnhashableCounted(Hashable):
    """An item without a hash that counts its use."""

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        Operations.done += 1
        return f"CountedLoose({self.value!r})"


@pytest.mark.parametrize("kind", [Hashable, UnhashableCounted], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("order", ["first to last", "last to first", "at random"])
@pytest.mark.parametrize("distinct", [1, 10, LARGEST])
def test_a_large_batch_is_marked_in_linear_time(kind: Any, order: str, distinct: int) -> None:
    """Each item by an equal one, in any order, with any number of equal items."""
    batch = batch_of_items(*(kind(i % distinct) for i in range(LARGEST)))
    wanted = [kind(i % distinct) for i in range(LARGEST)]
    if order == "last to first":
        wanted.reverse()
    elif order == "at random":
        random.Random(1).shuffle(wanted)
    with Operations().at_most(12 * LARGEST):
        for item in wanted:
            batch.fail(item)
    assert len(batch.failed) == LARGEST


@pytest.mark.parametrize("kind", [Hashable, UnhashableCounted], ids=lambda kind: kind.__name__)
def test_marks_by_place_in_between_do_not_add_work(kind: Any) -> None:
    """Items are all equal, and most are marked by their places."""
    batch = batch_of_items(*(kind(1) for _ in range(LARGEST)))
    with Operations().at_most(12 * LARGEST):
        for place in range(0, LARGEST, 3):
            batch.fail_at(place, place + 1)
            batch.fail(kind(1))
    assert len(batch.failed) == LARGEST


def test_refused_marks_do_not_add_work() -> None:
    """The items before the bad one are put back."""
    batch = batch_of_items(*(Hashable(i) for i in range(LARGEST)))
    with Operations().at_most(20 * LARGEST):
        for i in range(0, LARGEST, 2):
            with pytest.raises(InvalidArgument):
                batch.fail(Hashable(i), Hashable(i + 1), Hashable(-1))
    batch.fail(*(Hashable(i) for i in range(LARGEST)))
    assert len(batch.failed) == LARGEST


# -- with a server ---------------------------------------------------------------------------------------------------


class Pickle:
    """A codec for items of any class."""

    def encode(self, item: Any, /) -> bytes:
        return pickle.dumps(item)

    def decode(self, data: bytes, /) -> Any:
        return pickle.loads(data)


def test_numpy_arrays_as_items(flavour: Flavour) -> None:
    """With a custom codec; each is found by an equal one, of the same dtype."""
    do, buffer = flavour.do, flavour.buffer(codec=Pickle())
    arrays = [np.array([1, 2]), np.array([1.0, 2.0]), np.array([[1, 2]]), np.array([True, True]), np.arange(100)]
    do(buffer.push(*arrays, {"vector": np.array([1, 2])}))
    batch = do(buffer.reserve())
    batch.fail(np.array([1.0, 2.0]), np.arange(100), {"vector": np.array([1, 2])}, reason="odd")
    assert batch.failed == {1: "odd", 4: "odd", 5: "odd"}
    with pytest.raises(InvalidArgument):
        batch.fail(np.array([1, 3]))
    batch.fail(*batch.items[:1])
    assert do(batch.ack()) == 2
    again = do(buffer.reserve())
    assert len(again.items) == 4
    again.fail(*again.items)
    assert do(again.ack()) == 0


def test_items_can_be_marked_in_the_form_in_which_they_were_pushed(flavour: Flavour) -> None:
    """If it is the same in JSON: NumPy numbers and enums."""
    do, buffer = flavour.do, flavour.buffer()
    pushed = [np.int64(5), np.float32(0.5), np.True_, Small.TWO, Colour.RED, {"n": np.int8(1), "c": Colour.RED}]
    do(buffer.push(*pushed))
    batch = do(buffer.reserve())
    assert batch.items == [5, 0.5, True, 2, "red", {"n": 1, "c": "red"}]
    for place, item in enumerate(pushed):
        batch.fail(item, reason=str(place))
    assert batch.failed == {place: str(place) for place in range(6)}
    assert do(batch.ack()) == 0


def test_a_whole_batch_fails_item_by_item(flavour: Flavour) -> None:
    """The largest possible batch; it comes back whole."""
    do, buffer = flavour.do, flavour.buffer()
    do(buffer.push(*range(LARGEST)))
    batch = do(buffer.reserve(LARGEST))
    for item in reversed(batch.items):
        batch.fail(item, reason="odd")
    assert do(batch.ack()) == 0
    again = do(buffer.reserve())
    assert (again.items, again.attempts, again.reason) == ([*range(LARGEST)], 2, "odd")


def test_members_fail_by_item_and_by_place(flavour: Flavour) -> None:
    """With JSON members: 17, 17.0 and "17" are three."""
    do, queue = flavour.do, flavour.queue(codec=JSON)
    do(queue.push_many([(17, 0), (17.0, 1), ("17", 2), (True, 3), (1, 4)]))
    batch = do(queue.reserve(9))
    batch.fail(17.0, True, reason="odd")
    batch.fail_at(np.int64(2), reason="by place")
    assert do(batch.ack(delay=1000)) == 2
    shown = {(type(item.member), item.member): item.reason for item in do(queue.delayed())}
    assert shown == {(float, 17.0): "odd", (bool, True): "odd", (str, "17"): "by place"}


def test_equal_items_fail_one_by_one(client: redis.Redis) -> None:
    buffer = Buffer[Any](client, "q")
    buffer.push(1, {"a": 1}, 1, [2], {"a": 1}, True, group="g")
    batch = take(buffer)
    batch.fail(1)
    assert batch.failed == {0: ""}
    batch.fail({"a": 1}, 1, reason="too odd")
    assert batch.failed == {0: "", 1: "too odd", 2: "too odd"}
    with pytest.raises(InvalidArgument, match="1 is not in the batch, or has been marked as often"):
        batch.fail([2], 1)
    with pytest.raises(InvalidArgument, match="'none'"):
        batch.fail("none")
    assert set(batch.failed) == {0, 1, 2}  # the whole call is refused
    assert batch.ack() == 3
    again = take(buffer)
    assert (again.group, again.items, again.attempts, again.reason) == ("g", [1, {"a": 1}, 1], 2, "too odd")
    again.fail(*again.items)
    assert again.ack(delay=1000) == 0
    assert buffer.stats().delayed == 1


@STRUCTURES
def test_items_fail_by_their_places(client: redis.Redis, structure: str) -> None:
    queue = stocked(client, structure, "a", "b", "c")
    batch = take(queue)
    for places in ([3], [0, -1], [True], ["0"], [1.0]):
        with pytest.raises(InvalidArgument, match="index is"):
            batch.fail_at(*places)
    assert not batch.failed
    batch.fail_at(2, 0, reason="odd")
    batch.fail_at(2)  # again, without a reason
    assert batch.ack() == 1
    again = take(queue)
    assert (again.items, again.reason) == (["a", "c"], "odd")
    again.fail_at()
    assert again.ack() == 2


def test_members_fail_with_their_own_reasons(client: redis.Redis) -> None:
    queue = PriorityQueue(client, "q", max_attempts=1)
    queue.push_many({"a": 0, "b": 1, "d": 2})
    batch = take(queue)
    with pytest.raises(InvalidArgument, match="'c'"):
        batch.fail("c")
    batch.fail("b", reason="odd")
    batch.fail("d")
    assert batch.ack(delay=1000) == 1
    assert [(item.member, item.attempts, item.reason) for item in queue.delayed()] == [("b", 1, "odd"), ("d", 1, "")]
