"""Items of a batch that are marked as failed: which of them an item means, and how much work it is to find it."""

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
from hypothesis import given
from hypothesis import strategies as st

from redisq import JSON, InvalidArgument
from redisq.core.batch import BatchData
from tests.queues.flavours import Flavour

MANY = 3_000  # the largest batch


def lease(*items: Any) -> BatchData[Any]:
    """Return what a reserve of these items hands out."""
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
class Loose:
    """Equal by its fields, and without a hash."""

    value: Any


@dataclass
class Hidden:
    """Equal by what it does not show; shown is what does not count."""

    value: Any = field(repr=False)
    shown: Any = field(default=0, compare=False)


@dataclass(frozen=True)
class Frozen:
    """Equal by its fields, with a hash."""

    value: Any


class Same:
    """Equal to its like, and without a hash or a way to show it."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.value == other.value

    __hash__ = None  # type: ignore[assignment]


class Twin(Same):
    """Equal to what it is derived from, but of another type."""


class Sulky:
    """Comparable to nothing, and without a hash."""

    def __eq__(self, other: object) -> bool:
        raise TypeError("leave me alone")

    __hash__ = None  # type: ignore[assignment]


class Plain:
    """Equal to itself alone."""


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
        Loose(1),
        Loose(2),
        Loose([1]),
        Frozen(1),
        Frozen(2),
        Same(1),
        Same(2),
        Twin(1),
        bytearray(b"1"),
    ),
]


@pytest.mark.parametrize("shuffle", range(3))
def test_items_that_python_takes_for_equal_are_told_apart(shuffle: int) -> None:
    """By their types, inside of them too: `True` is not 1, and 1 is not 1.0."""
    items = DISTINCT.copy()
    random.Random(shuffle).shuffle(items)
    batch = lease(*items)
    for place, item in enumerate(items):
        assert place not in batch.failed
        batch.fail(pickle.loads(pickle.dumps(item)))  # an equal one, not the same
        assert place in batch.failed, item
    assert len(batch.failed) == len(items)
    for item in items:
        with pytest.raises(InvalidArgument, match="has been marked as often as it is"):
            batch.fail(item)


@pytest.mark.parametrize("wanted", DISTINCT, ids=lambda one: f"{type(one).__name__} {one!r}".partition(" at 0x")[0])
def test_nothing_else_is_taken_for_it(wanted: Any) -> None:
    """Without it in the batch it is not there."""
    others = [item for item in DISTINCT if item is not wanted]
    batch = lease(*others)
    with pytest.raises(InvalidArgument, match="is not in the batch"):
        batch.fail(wanted)
    assert batch.failed == {}


ALIKE: list[tuple[Any, Any]] = [
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


@pytest.mark.parametrize(("item", "alike"), ALIKE, ids=lambda one: f"{type(one).__name__} {one!r}"[:40])
def test_what_stands_for_a_number_or_a_text_is_that(item: Any, alike: Any) -> None:
    """A scalar of numpy, a member of an enum, an array for a list; either may be in the batch."""
    for inside, given_one in ((item, alike), (alike, item), (alike, alike)):
        batch = lease("other", inside)
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
def test_what_stands_for_another_type_is_not_that(item: Any, other: Any) -> None:
    for inside, given_one in ((item, other), (other, item)):
        with pytest.raises(InvalidArgument):
            lease(inside).fail(given_one)


def test_an_item_without_a_hash_is_known_by_its_own_equality() -> None:
    """However it is shown; and one that is equal to itself alone is found too."""
    batch = lease(Hidden(1, 0), Hidden(2, 0), Hidden(1, 5))
    batch.fail(Hidden(2, 9))
    assert set(batch.failed) == {1}
    batch.fail(Hidden(1, 9))
    batch.fail(Hidden(1, 9))
    assert set(batch.failed) == {0, 1, 2}
    with pytest.raises(InvalidArgument):
        batch.fail(Hidden(1, 0))
    for kind in (Plain, Sulky):
        one, two = kind(), kind()
        batch = lease(one, two)
        batch.fail(two)
        assert set(batch.failed) == {1}
        with pytest.raises(InvalidArgument):
            batch.fail(kind())
    arrays = [Loose(np.array([1, 2])), Loose(np.array([1, 2]))]  # whose == is no bool
    batch = lease(*arrays)
    batch.fail(arrays[1])
    assert set(batch.failed) == {1}
    with pytest.raises(InvalidArgument):
        batch.fail(Loose(np.array([1, 2])))


# -- equal ones, errors, and places ----------------------------------------------------------------------------------


def test_equal_items_are_marked_one_by_one_from_the_first() -> None:
    batch = lease("a", "b", "a", "a")
    batch.fail("a", reason="one")
    batch.fail("a", "b", reason="two")
    assert batch.failed == {0: "one", 1: "two", 2: "two"}
    batch.fail("a")
    assert batch.failed == {0: "one", 1: "two", 2: "two", 3: ""}
    with pytest.raises(InvalidArgument, match="'a'"):
        batch.fail("a")


def test_nothing_is_marked_after_an_error() -> None:
    """Neither of the call, nor later: what was found before the bad one can be marked again."""
    batch = lease("a", "b", "a", [1], Loose(1))
    for items in (("a", "a", "a"), ("a", "b", "none"), (["none"],), ("b", [1], Loose(1), [1]), ("a", Loose(2))):
        with pytest.raises(InvalidArgument):
            batch.fail(*items)
        assert batch.failed == {}
    for places in ((0, 5), (0, -1), (0, True), (0, "1"), (0, 1.0), (0, None), (0, np.True_), (0, np.float64(1))):
        with pytest.raises(InvalidArgument, match="index"):
            batch.fail_at(*places)
        assert batch.failed == {}
    batch.fail("a", "b")
    assert set(batch.failed) == {0, 1}  # the first of its equals, still
    batch.fail("a", [1], Loose(1))
    assert set(batch.failed) == {0, 1, 2, 3, 4}


def test_marking_nothing_marks_nothing() -> None:
    for batch in (lease(), lease("a")):
        batch.fail()
        batch.fail_at()
        assert batch.failed == {}
    with pytest.raises(InvalidArgument):
        lease().fail("a")
    with pytest.raises(InvalidArgument):
        lease().fail_at(0)


def test_marks_by_place_and_by_item_know_of_each_other() -> None:
    batch = lease("a", "b", "a", "a", "b")
    batch.fail_at(2, 0, reason="by place")
    batch.fail("a", reason="by item")
    assert batch.failed == {0: "by place", 2: "by place", 3: "by item"}
    with pytest.raises(InvalidArgument):
        batch.fail("b", "a")
    batch.fail("b")
    assert 1 in batch.failed
    place: Any = np.int64(1)
    batch.fail_at(place, reason="once more")  # by its place again: the newer reason
    assert batch.failed[1] == "once more"
    batch.fail("b")
    assert set(batch.failed) == {0, 1, 2, 3, 4}
    with pytest.raises(InvalidArgument):
        batch.fail("b")


items = st.sampled_from([1, True, 1.0, "a", b"a", (1,), None])
marks = st.lists(st.one_of(st.tuples(st.just("item"), st.lists(items, max_size=3)), st.integers(0, 9)), max_size=12)


@given(st.lists(items, min_size=1, max_size=10), marks)
def test_marks_in_any_order_are_those_of_a_simple_search(within: list[Any], marks: list[Any]) -> None:
    """The first equal one of its type that is not marked yet, looked for one by one."""
    batch, marked = lease(*within), set[int]()
    for mark in marks:
        if isinstance(mark, int):
            if mark < len(within):
                batch.fail_at(mark)
                marked.add(mark)
            continue
        found, right = set[int](), True
        for item in mark[1]:
            free = [i for i, one in enumerate(within) if i not in marked | found and alike(one, item)]
            right = right and bool(free)
            found.update(free[:1])
        if right:
            batch.fail(*mark[1])
            marked |= found
        else:
            with pytest.raises(InvalidArgument):
                batch.fail(*mark[1])
        assert set(batch.failed) == marked


def alike(one: Any, other: Any) -> bool:
    return type(one) is type(other) and one == other


# -- a whole batch ---------------------------------------------------------------------------------------------------


class Work:
    """Count how often items are hashed, compared and shown."""

    done = 0

    @contextmanager
    def at_most(self, most: int) -> Iterator[None]:
        """Fail if it is more than so often."""
        before = Work.done
        yield
        assert 0 < Work.done - before <= most


class Counted:
    """An item with a hash."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        Work.done += 1
        return isinstance(other, Counted) and self.value == other.value

    def __hash__(self) -> int:
        Work.done += 1
        return hash(self.value)


class CountedLoose(Counted):
    """An item without one."""

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        Work.done += 1
        return f"CountedLoose({self.value!r})"


@pytest.mark.parametrize("kind", [Counted, CountedLoose], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("order", ["first to last", "last to first", "at random"])
@pytest.mark.parametrize("distinct", [1, 10, MANY])
def test_a_whole_batch_is_marked_one_by_one_in_linear_work(kind: Any, order: str, distinct: int) -> None:
    """Each by an equal item, whatever the order and however many are equal."""
    batch = lease(*(kind(i % distinct) for i in range(MANY)))
    wanted = [kind(i % distinct) for i in range(MANY)]
    if order == "last to first":
        wanted.reverse()
    elif order == "at random":
        random.Random(1).shuffle(wanted)
    with Work().at_most(12 * MANY):
        for item in wanted:
            batch.fail(item)
    assert len(batch.failed) == MANY


@pytest.mark.parametrize("kind", [Counted, CountedLoose], ids=lambda kind: kind.__name__)
def test_marks_by_place_in_between_do_not_add_to_the_work(kind: Any) -> None:
    """All equal, of which most are marked by their places."""
    batch = lease(*(kind(1) for _ in range(MANY)))
    with Work().at_most(12 * MANY):
        for place in range(0, MANY, 3):
            batch.fail_at(place, place + 1)
            batch.fail(kind(1))
    assert len(batch.failed) == MANY


def test_refused_marks_do_not_add_to_the_work() -> None:
    """What is found before the bad one is put back where it was."""
    batch = lease(*(Counted(i) for i in range(MANY)))
    with Work().at_most(20 * MANY):
        for i in range(0, MANY, 2):
            with pytest.raises(InvalidArgument):
                batch.fail(Counted(i), Counted(i + 1), Counted(-1))
    batch.fail(*(Counted(i) for i in range(MANY)))
    assert len(batch.failed) == MANY


# -- with a server ---------------------------------------------------------------------------------------------------


class Pickle:
    """A codec of one's own, for items of any class."""

    def encode(self, item: Any, /) -> bytes:
        return pickle.dumps(item)

    def decode(self, data: bytes, /) -> Any:
        return pickle.loads(data)


def test_arrays_of_numpy_as_items(flavour: Flavour) -> None:
    """Of a codec of one's own: each is found by an equal one, its type of number included."""
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


def test_items_that_json_has_changed_on_the_way(flavour: Flavour) -> None:
    """What was pushed marks what came back, where it is the same in JSON: numpy's numbers and enums."""
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
    """The largest there is, and comes back whole."""
    do, buffer = flavour.do, flavour.buffer()
    do(buffer.push(*range(MANY)))
    batch = do(buffer.reserve(MANY))
    for item in reversed(batch.items):
        batch.fail(item, reason="odd")
    assert do(batch.ack()) == 0
    again = do(buffer.reserve())
    assert (again.items, again.attempts, again.reason) == ([*range(MANY)], 2, "odd")


def test_members_fail_by_item_and_by_place(flavour: Flavour) -> None:
    """Of a priority queue with JSON members: 17, 17.0 and "17" are three."""
    do, queue = flavour.do, flavour.queue(codec=JSON)
    do(queue.push_many([(17, 0), (17.0, 1), ("17", 2), (True, 3), (1, 4)]))
    batch = do(queue.reserve(9))
    batch.fail(17.0, True, reason="odd")
    batch.fail_at(np.int64(2), reason="by place")
    assert do(batch.ack(delay=1000)) == 2
    shown = {(type(item.member), item.member): item.reason for item in do(queue.delayed())}
    assert shown == {(float, 17.0): "odd", (bool, True): "odd", (str, "17"): "by place"}
