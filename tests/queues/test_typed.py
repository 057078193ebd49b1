"""`Typed`: items of one type come back equal, equal items have equal bytes, and nothing else is pushed."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import subprocess
import sys
import textwrap
import uuid
from decimal import Decimal
from types import SimpleNamespace
from typing import Annotated, Any, Generic, NamedTuple, TypeVar

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import TypedDict

import redisq.core.typed
from redisq import Buffer, CodecError, InvalidArgument, PriorityQueue, Pushed, Typed
from redisq.core.batch import BatchData
from tests.queues.flavours import Flavour

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Place(msgspec.Struct, frozen=True):
    street: str
    number: int = 1


class OrderStruct(msgspec.Struct):
    id: int
    price: float
    colour: Colour = Colour.RED
    tags: set[str] = msgspec.field(default_factory=set)
    places: list[Place] = []
    notes: dict[str, str | None] = {}
    at: datetime.datetime | None = None


@dataclasses.dataclass(frozen=True)
class PlaceData:
    street: str
    number: int = 1


@dataclasses.dataclass
class OrderData:
    id: int
    price: float
    colour: Colour = Colour.RED
    tags: set[str] = dataclasses.field(default_factory=set)
    places: list[PlaceData] = dataclasses.field(default_factory=list)
    notes: dict[str, str | None] = dataclasses.field(default_factory=dict)
    at: datetime.datetime | None = None


class PlaceModel(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True)
    street: str
    number: int = 1


class OrderModel(pydantic.BaseModel):
    id: int
    price: float
    colour: Colour = Colour.RED
    tags: set[str] = set()
    places: list[PlaceModel] = []
    notes: dict[str, str | None] = {}
    at: datetime.datetime | None = None


CASES: list[Any] = [
    pytest.param(OrderStruct, Place, "msgspec", id="struct"),
    pytest.param(OrderData, PlaceData, "msgspec", id="dataclass by msgspec"),
    pytest.param(OrderData, PlaceData, "pydantic", id="dataclass by pydantic"),
    pytest.param(OrderModel, PlaceModel, "pydantic", id="model"),
]
every_library = pytest.mark.parametrize(("order", "place", "library"), CASES)

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
FIELDS = st.fixed_dictionaries(
    {
        "id": st.integers(-(2**63), 2**63 - 1),
        "price": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**50), 2**50),
    },
    optional={
        "colour": st.sampled_from(Colour),
        "tags": st.sets(TEXTS, max_size=5),
        "notes": st.dictionaries(TEXTS, st.none() | TEXTS, max_size=5),
        "at": st.none() | st.datetimes(timezones=st.none() | st.just(datetime.timezone.utc)),
    },
)
PLACES = st.lists(st.tuples(TEXTS, st.integers(0, 99)), max_size=3)


@every_library
@settings(deadline=None)
@given(fields=FIELDS, places=PLACES)
def test_an_item_comes_back_equal(order: Any, place: Any, library: Any, fields: Any, places: Any) -> None:
    """And however it is made, and put together, its bytes are those of what comes back."""
    codec: Typed[Any] = Typed(order, library=library)
    item = order(**fields, places=[place(street=street, number=number) for street, number in places])
    data = codec.encode(item)
    back = codec.decode(data)
    assert back == item
    assert type(back) is order
    assert type(back.price) is float
    assert codec.encode(back) == data
    assert list(json.loads(data)) == sorted(json.loads(data))
    tags: set[str] = set()
    for tag in sorted(fields.get("tags", ())):
        tags.add(tag)
    turned = dict(fields, notes=dict(reversed(fields.get("notes", {}).items())), tags=tags)
    assert codec.encode(order(**turned, places=item.places)) == data


def test_the_bytes_are_the_same_in_every_process() -> None:
    """The order of a set is another in each, and so may be that of what is read as a set in a field of any type."""
    program = """
        import dataclasses, pydantic
        from redisq import Typed

        class Model(pydantic.BaseModel):
            tags: set[str]
            deep: dict[str, frozenset[frozenset[str]]]

        @dataclasses.dataclass
        class Data:
            tags: frozenset[str]

        words = {"a", "b", "c", "d", "e", "f"}
        deep = {"x": frozenset({frozenset("ab"), frozenset("cde")})}
        print(Typed(Model).encode(Model(tags=words, deep=deep)))
        for library in ("msgspec", "pydantic"):
            print(Typed(Data, library=library).encode(Data(frozenset(words))))
    """
    printed = {
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)],
            env={"PYTHONHASHSEED": str(seed), "PYTHONPATH": ":".join(sys.path)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in range(4)
    }
    assert len(printed) == 1
    assert '"deep":{"x":[["a","b"],["c","d","e"]]},"tags":["a","b","c","d","e","f"]' in printed.pop()


@every_library
def test_what_does_not_fit_is_refused_before_anything_is_written(
    flavour: Flavour, order: Any, place: Any, library: Any
) -> None:
    do, codec = flavour.do, Typed[Any](order, library=library)
    buffer, queue = flavour.buffer("b", codec=codec), flavour.queue("p", codec=codec)
    other = flavour.queue("o", payload_codec=codec)
    good = order(id=1, price=1.5)
    wrong_price = order(id=1, price=1.5)
    wrong_price.price = "cheap"
    nested = order(id=1, price=1.5)
    nested.places = [{"street": "x", "number": 1}]
    nan = order(id=1, price=float("nan"))
    for bad in (wrong_price, nested, nan, {"id": 1, "price": 1.5}, [good], "text", 5, None):
        calls: list[Any] = [
            lambda bad=bad: buffer.push(good, bad),
            lambda bad=bad: queue.push_many([(good, 0), (bad, 1)]),
        ]
        if bad is not None:  # which is no payload
            calls.append(lambda bad=bad: other.push("member", payload=bad))
        for call in calls:
            with pytest.raises(CodecError, match=rf"Typed\({order.__name__}\) cannot encode the \w+ "):
                do(call())
    with pytest.raises(CodecError, match=r"[Ee]xpected `float`"):
        do(buffer.push(wrong_price))
    assert flavour.plain.dbsize() == 0
    assert place.__name__ in repr(codec.decode(codec.encode(order(id=1, price=1, places=[place(street="x")]))))


@every_library
def test_bytes_that_do_not_fit_are_told_with_what_was_taken(
    flavour: Flavour, order: Any, place: Any, library: Any
) -> None:
    del place
    do, codec = flavour.do, Typed[Any](order, library=library)
    stored = [b'{"id":"one","price":1.5}', b"no JSON", b'{"id":1}', b"[]"]
    for data in stored:
        raw = redisq.Buffer(flavour.plain, "b", codec=redisq.BYTES)
        raw.push(data)
        with pytest.raises(CodecError, match=rf"Typed\({order.__name__}\) cannot decode") as caught:
            do(flavour.buffer("b", codec=codec).pop())
        assert caught.value.raw == [data]
        raw.push(data)
        with pytest.raises(CodecError) as caught:
            do(flavour.buffer("b", codec=codec).reserve())
        assert caught.value.raw.raw == [data]
        raw.purge()
    raw.push(b'{"id":1}')
    with pytest.raises(CodecError, match=r"price"):
        do(flavour.buffer("b", codec=codec).pop())


@every_library
def test_another_version_of_the_type_is_read(order: Any, place: Any, library: Any) -> None:
    """Fields that are not known are ignored, missing ones get their default."""
    codec: Typed[Any] = Typed(order, library=library)
    item = codec.decode(b'{"id":1,"price":2,"added later":[1],"places":[{"street":"x","gone":null}]}')
    assert item == order(id=1, price=2.0, places=[place(street="x", number=1)])


def test_a_type_may_forbid_unknown_fields() -> None:
    class Strict(msgspec.Struct, forbid_unknown_fields=True):
        a: int

    class StrictModel(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="forbid")
        a: int

        @pydantic.computed_field  # type: ignore[prop-decorator]
        @property
        def twice(self) -> int:
            return 2 * self.a

    for kind in (Strict, StrictModel):
        codec: Typed[Any] = Typed(kind)
        assert codec.decode(codec.encode(kind(a=1))) == kind(a=1)
        with pytest.raises(Exception, match=r"(?i)unknown|extra"):
            codec.decode(b'{"a":1,"b":2}')


@every_library
def test_a_member_is_known_by_its_value(flavour: Flavour, order: Any, place: Any, library: Any) -> None:
    del place
    do = flavour.do
    queue = flavour.queue("q", codec=Typed(order, library=library))
    assert do(queue.push(order(id=1, price=5, tags={"x", "y"}), 5)) is Pushed.ADDED
    assert do(queue.push(order(id=1, price=5.0, tags={"y", "x"}), 3)) is Pushed.RAISED
    item = do(queue.pop())
    assert (item.member, item.priority) == (order(id=1, price=5, tags={"x", "y"}), 3)
    assert do(queue.pop()) is None


@every_library
def test_items_are_marked_as_failed_by_their_value(flavour: Flavour, order: Any, place: Any, library: Any) -> None:
    """Hashable or not; an equal one that looks different, too."""
    do = flavour.do
    for kind, items in ((order, [order(id=n, price=n) for n in (1, 2, 2)]), (place, [place(street=s) for s in "abb"])):
        buffer = flavour.buffer(kind.__name__, codec=Typed(kind, library=library))
        do(buffer.push(*items))
        batch = do(buffer.reserve())
        batch.fail(items[1], reason="no")
        assert batch.failed == {1: "no"}
        batch.fail(items[2])
        with pytest.raises(InvalidArgument, match="marked as often"):
            batch.fail(items[2])
        do(batch.ack())
        assert do(buffer.reserve()).items == items[1:]


@dataclasses.dataclass
class Same:
    id: int


@dataclasses.dataclass
class Likewise:
    id: int


def test_an_equal_item_of_another_type_is_not_in_the_batch() -> None:
    batch: BatchData[Any] = BatchData("id", "g", [Same(1), Same(2)], 1, 0.0, [])
    with pytest.raises(InvalidArgument, match=r"Likewise\(id=1\) is not in the batch"):
        batch.fail(Likewise(1))
    batch.fail(Same(2), Same(1))
    assert sorted(batch.failed) == [0, 1]


# -- other types


class Address(TypedDict):
    street: str


class Point(NamedTuple):
    x: int
    y: int


@dataclasses.dataclass
class Page(Generic[T]):
    items: list[T]


@dataclasses.dataclass
class Card:
    number: str


@dataclasses.dataclass
class Cash:
    amount: int


class Created(msgspec.Struct, tag=True):
    id: int


class Deleted(msgspec.Struct, tag=True):
    id: int


@pydantic.dataclasses.dataclass
class Checked:
    id: int


class Root(pydantic.RootModel[list[int]]):
    pass


@pytest.mark.parametrize(
    ("kind", "item", "library"),
    [
        (list[OrderStruct], [OrderStruct(1, 1.0)], "msgspec"),
        (list[OrderModel], [OrderModel(id=1, price=1.0)], "pydantic"),
        (dict[str, OrderData], {"a": OrderData(1, 1.0)}, None),
        (Address, {"street": "x"}, "msgspec"),
        (Address, {"street": "x"}, "pydantic"),
        (Point, Point(1, 2), "msgspec"),
        (Page[Same], Page([Same(1)]), None),
        (Created | Deleted, Deleted(1), "msgspec"),
        (OrderModel | None, None, "pydantic"),
        (Card | Cash, Cash(1), "pydantic"),
        (Checked, Checked(1), "pydantic"),
        (Root, Root([1, 2]), "pydantic"),
        (Annotated[int, msgspec.Meta(ge=1)], 3, "msgspec"),
        (Annotated[int, pydantic.Field(ge=1)], 3, "pydantic"),
        (uuid.UUID, uuid.UUID(int=5), "msgspec"),
        (uuid.UUID, uuid.UUID(int=5), "pydantic"),
        (Decimal, Decimal("1.10"), None),
        (tuple[int, str], (1, "x"), "msgspec"),
        (str | int, "text", None),
        (bytes, b"\x00\x01", "msgspec"),
    ],
    ids=str,
)
def test_other_types_are_taken(kind: Any, item: Any, library: Any) -> None:
    """The library is that of what the type is made of, else msgspec, or the one that is asked for."""
    codec: Typed[Any] = Typed(kind) if library is None else Typed(kind, library=library)
    back = codec.decode(codec.encode(item))
    assert back == item
    assert type(back) is type(item)
    assert codec.library == (library or "msgspec")


@pytest.mark.parametrize(
    ("kind", "library"),
    [
        (Same, "msgspec"),
        (list[OrderModel], "pydantic"),
        (Checked, "pydantic"),
        (Created | Deleted, "msgspec"),
        (Annotated[int, pydantic.Field(ge=1)], "pydantic"),
        (Page[OrderModel], "pydantic"),
    ],
    ids=str,
)
def test_the_library_is_that_of_what_a_type_is_made_of(kind: Any, library: str) -> None:
    """Else msgspec."""
    assert Typed(kind).library == library


def test_what_has_no_equality_is_known_by_its_bytes() -> None:
    class Struct(msgspec.Struct, eq=False):
        a: int

    @dataclasses.dataclass(eq=False)
    class Data:
        a: int

    for kind in (Struct, Data):
        codec: Typed[Any] = Typed(kind)
        assert codec.decode(codec.encode(kind(1))).a == 1
        with pytest.raises(ValueError, match="come back"):
            codec.encode({"a": 1})


def test_what_would_be_lost_is_refused() -> None:
    """A subclass's further fields, a masked secret, an excluded field."""

    class Sub(OrderStruct):
        more: int = 0

    class Login(pydantic.BaseModel):
        password: pydantic.SecretStr
        note: str = pydantic.Field(default="", exclude=True)

    class More(Login):
        more: int = 0

    calls: list[tuple[Any, Any]] = [
        (OrderStruct, Sub(1, 1.0, more=5)),
        (Login, Login(password=pydantic.SecretStr("hush"))),
        (Login, Login(password=pydantic.SecretStr(""), note="here")),
        (Login, More(password=pydantic.SecretStr(""))),
        (tuple[int, ...], [1, 2]),
    ]
    for kind, item in calls:
        with pytest.raises(ValueError, match=r"come back|Expected"):
            Typed(kind).encode(item)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (5, "type is 5: give a class"),
        ("Order", "type is 'Order': give a class"),
        (None, "type is None: give a class"),
        (Same(1), "give a class"),
        (object, "type is object, which msgspec cannot use"),
        (OrderStruct | OrderModel, "structs of msgspec and models of pydantic: use one"),
        (dict[str, list[OrderStruct | OrderModel]], "use one"),
        (Card | Cash, "which msgspec cannot use: Type unions may not contain more than one"),
    ],
)
def test_a_type_that_cannot_be_used_is_refused(kind: Any, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        Typed(kind)


def test_a_library_that_cannot_be_used_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="library is 'json': give"):
        Typed(Same, library="json")  # type: ignore[call-overload]
    with pytest.raises(InvalidArgument, match="library is 'msgspec', but OrderModel is made with pydantic"):
        Typed(OrderModel, library="msgspec")
    with pytest.raises(InvalidArgument, match="library is 'pydantic', but OrderStruct is made with msgspec"):
        Typed(OrderStruct, library="pydantic")


def test_pydantic_is_used_where_msgspec_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    missing: set[str] = {"msgspec"}
    monkeypatch.setattr(redisq.core.typed, "find_spec", lambda name: None if name in missing else object())
    assert Typed(Same).library == "pydantic"
    missing.add("pydantic")
    with pytest.raises(InvalidArgument, match="type is Same: redisq needs msgspec or pydantic for it: pip install"):
        Typed(Same)


@pytest.mark.parametrize("library", ["msgspec", "pydantic"])
def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, library: Any) -> None:
    def fail(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(redisq.core.typed, "importlib", SimpleNamespace(import_module=fail))
    with pytest.raises(InvalidArgument, match=f"redisq needs {library} for it: pip install {library}"):
        Typed(Same, library=library)


def test_neither_library_is_imported_with_redisq() -> None:
    program = "import sys, redisq; redisq.Typed; print({'msgspec', 'pydantic'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_type_of_the_items_is_inferred(flavour: Flavour) -> None:
    """For mypy, which reads these lines; nothing of it is seen when they run."""
    client = flavour.plain
    buffer = Buffer(client, "b", codec=Typed(OrderStruct))
    queue = PriorityQueue(client, "p", codec=Typed(Place))
    several = Buffer(client, "s", codec=Typed(list[OrderData]))
    union: Typed[Created | Deleted] = Typed(Created | Deleted)
    either = Buffer(client, "u", codec=union)
    buffer.push(OrderStruct(1, 1.0))
    queue.push(Place("x"))
    several.push([OrderData(1, 1.0)])
    either.push(Created(1))
    order: OrderStruct = buffer.pop()[0]
    place = queue.pop()
    orders: list[OrderData] = several.pop()[0]
    event: Created | Deleted = either.pop()[0]
    assert place is not None
    street: str = place.member.street
    assert (order.id, street, orders[0].id, event.id) == (1, "x", 1, 1)
    with pytest.raises(CodecError):
        buffer.push("text")  # type: ignore[arg-type]
