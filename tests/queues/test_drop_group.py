"""Dropping a group, and peeking at its waiting items."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from redisq import BYTES, CodecError, InvalidArgument
from redisq.core.calls import Call
from redisq.core.flow import Flow
from redisq.core.scripts import load
from tests.queues.flavours import Flavour

BATCHES = 1200  # several calls of the script
PAGE = load("buffer/drop_group").limit("limit")[1]


def settled(flavour: Flavour, buffer: Any, group: str, count: int, how: str) -> None:
    """Make this many batches of two items delayed, dead or leased."""
    flavour.do(buffer.push_many(range(2 * count), group=group))
    for start in range(0, count, 400):
        batches = flavour.do(buffer.reserve_many(min(400, count - start), 2))
        assert {batch.group for batch in batches} == {group}
        if how == "delayed":
            flavour.do(buffer.release(*batches, delay=1000))
        elif how == "dead":
            flavour.do(buffer.bury(*batches))


def counts(flavour: Flavour, buffer: Any) -> tuple[int, int, int, int]:
    """Return how many items wait, and how many batches are leased, delayed and dead."""
    stats = flavour.do(buffer.stats())
    return stats.waiting, stats.leased, stats.delayed, stats.dead


class Steps:
    """The calls of a buffer's operation that takes several.

    The operation can be interrupted at one of them: before it is sent, or when its answer is lost.
    """

    def __init__(
        self, buffer: Any, monkeypatch: pytest.MonkeyPatch, verb: str, breaks: int = 0, after: bool = False
    ) -> None:
        self.sent: list[Call[Any]] = []
        make = getattr(buffer.calls, verb)

        def flow(*args: Any) -> Flow[Any]:
            steps, answer = make(*args), None
            while True:
                try:
                    call = steps.send(answer)
                except StopIteration as end:
                    return end.value
                if len(self.sent) + 1 == breaks and not after:
                    raise redis.ConnectionError("gone")
                self.sent.append(call)
                answer = yield call
                if len(self.sent) == breaks:
                    raise redis.ConnectionError("gone")

        monkeypatch.setattr(buffer.calls, verb, flow)


# -- drop_group ------------------------------------------------------------------------------------------------------


def test_a_group_is_dropped_in_every_state_but_leased(flavour: Flavour) -> None:
    """Other groups stay; leased batches end normally."""
    do, buffer = flavour.do, flavour.buffer()
    for group in ("g", "h"):
        for how in ("delayed", "dead", "leased"):
            settled(flavour, buffer, group, 2, how)
    for group in ("g", "h"):
        do(buffer.push(*range(5), group=group))
    held = {batch.group: batch for batch in do(buffer.leased())}
    assert do(buffer.drop_group("g")) == 5 + 4 + 4
    assert counts(flavour, buffer) == (5, 4, 2, 2)
    assert do(buffer.groups()) == {"h": 5}
    for shown in (do(buffer.delayed()), do(buffer.dead())):
        assert {batch.group for batch in shown} == {"h"}
    assert do(buffer.drop_group("g")) == 0
    assert do(held["g"].release()) == 2
    again = do(buffer.reserve())
    assert (again.group, again.items) == ("g", held["g"].items)
    assert do(again.ack()) == 2
    assert do(buffer.audit()).ok
    assert do(buffer.drop_group("h")) == 13


def test_dropping_an_unknown_group_and_the_last_group(flavour: Flavour) -> None:
    """An unknown group is no error; without the last group there is no key without a TTL."""
    do, buffer = flavour.do, flavour.buffer()
    assert do(buffer.drop_group("g")) == 0
    do(buffer.push(1, 2, group="g"))
    settled(flavour, buffer, "h", 3, "dead")
    assert do(buffer.drop_group("g")) == 2
    assert do(buffer.drop_group("h")) == 6
    assert [key for key in flavour.plain.keys() if flavour.plain.pttl(key) == -1] == []  # noqa: SIM118


def test_a_dropped_group_stays_paused(flavour: Flavour) -> None:
    """Later pushes wait; a paused queue does not prevent the drop."""
    do, buffer = flavour.do, flavour.buffer()
    do(buffer.push(1, group="g"))
    do(buffer.pause_group("g"))
    do(buffer.pause())
    assert do(buffer.drop_group("g")) == 1
    assert do(buffer.groups(state="paused")) == {"g": 0}
    do(buffer.resume())
    do(buffer.push(2, group="g"))
    assert do(buffer.reserve()) is None
    assert do(buffer.resume_group("g")) is True
    assert do(buffer.reserve()).items == [2]


@pytest.mark.parametrize("how", ["delayed", "leased"])
def test_dropping_a_group_of_an_ordered_buffer(flavour: Flavour, how: str) -> None:
    """The group is no longer busy if its delayed batch is dropped, but still if its batch is leased."""
    do, buffer = flavour.do, flavour.buffer(ordered=True)
    do(buffer.push(1, 2, 3, group="g"))
    batch = do(buffer.reserve(1))
    if how == "delayed":
        do(batch.release(delay=1000))
    assert do(buffer.drop_group("g")) == (3 if how == "delayed" else 2)
    assert do(buffer.groups(state="busy")) == ({} if how == "delayed" else {"g": 0})
    do(buffer.push(4, group="g"))
    if how == "leased":
        assert do(buffer.reserve()) is None
        assert do(batch.ack()) == 1
    assert do(buffer.reserve()).items == [4]
    assert do(buffer.audit()).ok


def test_hundreds_of_batches_are_dropped_in_several_calls(real: Flavour, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is bounded; the result is the sum."""
    do, buffer = real.do, real.buffer()
    settled(real, buffer, "g", BATCHES, "delayed")
    settled(real, buffer, "g", BATCHES, "dead")
    settled(real, buffer, "h", 5, "delayed")
    steps = Steps(buffer, monkeypatch, "drop_group")
    assert do(buffer.drop_group("g")) == 4 * BATCHES
    assert len(steps.sent) > BATCHES / PAGE  # a scan may return more than it was asked for
    assert len({call.keys for call in steps.sent}) == len(steps.sent)  # each has its own id
    assert counts(real, buffer) == (0, 0, 5, 0)
    assert not real.plain.exists(*(f"redisq:{{q}}:batch:{i}" for i in range(3)))
    assert len(real.plain.keys("redisq:{q}:batch:*")) == 5


@pytest.mark.parametrize("call", [1, 2, 4])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("token", [None, "t"])
def test_an_interrupted_drop_can_be_repeated(
    real: Flavour, monkeypatch: pytest.MonkeyPatch, call: int, after: bool, token: str | None
) -> None:
    """The rest is dropped; with the same token the result is the total, and items pushed in between stay."""
    do, buffer = real.do, real.buffer()
    settled(real, buffer, "g", BATCHES, "delayed")
    settled(real, buffer, "g", BATCHES, "dead")
    do(buffer.push(1, 2, 3, group="g"))
    everything = 4 * BATCHES + 3

    Steps(buffer, monkeypatch, "drop_group", call, after)
    with pytest.raises(redis.ConnectionError):
        do(buffer.drop_group("g", token=token))
    monkeypatch.undo()
    _, _, delayed, dead = counts(real, buffer)
    begun = call > 1 or after
    gone = 2 * (2 * BATCHES - delayed - dead) + 3 * begun
    assert 0 <= gone < everything
    assert (gone > 0) == begun
    do(buffer.push(99, group="g"))
    stays = token is not None and begun
    assert do(buffer.drop_group("g", token=token)) == (everything if stays else everything - gone + 1)
    assert counts(real, buffer) == (1 if stays else 0, 0, 0, 0)
    assert do(buffer.peek("g", 9)) == ([99] if stays else [])
    if stays:
        assert do(buffer.drop_group("g", token=token)) == everything  # repeated once more: no effect
        assert do(buffer.peek("g", 9)) == [99]
    assert do(buffer.audit()).ok


@pytest.mark.parametrize("group", ["", "\ud800", None, 5, b"g"])
def test_an_invalid_group_is_refused(flavour: Flavour, group: Any) -> None:
    buffer = flavour.buffer()
    for call in (buffer.drop_group, buffer.peek):
        with pytest.raises(InvalidArgument) as caught:
            flavour.do(call(group))
        assert repr(group) in str(caught.value)
    with pytest.raises(InvalidArgument, match="token"):
        flavour.do(buffer.drop_group("g", token=""))
    assert flavour.plain.dbsize() == 0


# -- peek ------------------------------------------------------------------------------------------------------------


def test_peek_shows_waiting_items_and_takes_nothing(flavour: Flavour) -> None:
    """Oldest first; items that were put back come first, and leased ones are not shown."""
    do, buffer = flavour.do, flavour.buffer()
    assert do(buffer.peek()) == []
    do(buffer.push("b", "c", {"d": [1, None]}))
    do(buffer.push_front("a"))
    do(buffer.push("other", group="g"))
    assert do(buffer.peek()) == ["a"]
    assert do(buffer.peek(count=3)) == ["a", "b", "c"]
    assert do(buffer.peek("default", 9, 2)) == ["c", {"d": [1, None]}]
    assert do(buffer.peek(after=4)) == do(buffer.peek("nobody", 9)) == []
    assert do(buffer.peek("g", 9)) == ["other"]
    batch = do(buffer.reserve(2))
    assert batch.items == ["a", "b"]
    assert do(buffer.peek(count=9)) == ["c", {"d": [1, None]}]
    do(buffer.pause())
    do(buffer.pause_group("default"))
    assert do(buffer.peek()) == ["c"]
    do(buffer.resume())
    assert do(buffer.pop("g")) == ["other"]
    assert do(buffer.stats()).waiting == 2


def test_a_long_peek_takes_several_calls(flavour: Flavour, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any number of items from any place, and no call more than needed."""
    do, buffer = flavour.do, flavour.buffer()
    do(buffer.push_many(range(2_500)))
    steps = Steps(buffer, monkeypatch, "peek")
    for count, after, calls in [
        (999, 0, 1),
        (1000, 0, 1),
        (1001, 0, 2),
        (2500, 0, 3),
        (5000, 0, 3),
        (1500, 900, 2),
        (2000, 1500, 2),
        (10, 2_499, 1),
        (10, 2_500, 1),
        (1_000_000, 999, 2),
    ]:
        steps.sent.clear()
        assert do(buffer.peek(count=count, after=after)) == list(range(2_500))[after : after + count]
        assert len(steps.sent) == calls, (count, after)


def test_a_long_peek_of_a_priority_queue(flavour: Flavour) -> None:
    """With the priority, attempts and payload of each member."""
    do, queue = flavour.do, flavour.queue(order="score")
    do(queue.push_many((f"{i:04}", i, i) for i in range(2_500)))
    for count, after in [(1001, 0), (5000, 0), (1500, 900), (10, 2_499), (10, 2_500)]:
        shown = do(queue.peek(count, after))
        expected = [(f"{i:04}", i, i, 0) for i in range(2_500)][after : after + count]
        assert [(item.member, item.priority, item.payload, item.attempts) for item in shown] == expected
    assert do(queue.stats()).waiting == 2_500


@pytest.mark.parametrize("options", [{}, {"decode_responses": True}, {"protocol": 3}], ids=str)
def test_peek_returns_items_unchanged(flavour: Flavour, options: dict[str, Any]) -> None:
    """Whatever the client decodes; the group's name too."""
    items = [b"\xff\xfe", b"", b"\0", b"plain"]
    buffer = flavour.library.Buffer(flavour.make_client(**options), "é", codec=BYTES)
    flavour.do(buffer.push(*items, group="g\udcff"))
    assert flavour.do(buffer.peek("g\udcff", 9)) == items
    assert flavour.do(buffer.pause_group("g\udcff")) is None
    assert flavour.do(buffer.groups(state="paused")) == {"g\udcff": 4}
    assert flavour.do(buffer.resume_group("g\udcff")) is True
    assert flavour.do(buffer.drop_group("g\udcff")) == 4


def test_peek_at_bytes_that_cannot_be_decoded(flavour: Flavour) -> None:
    """The error names them, and they are still in the queue, as nothing was taken."""
    raw, buffer = flavour.buffer(codec=BYTES), flavour.buffer()
    flavour.do(raw.push(b"1", b"\xff"))
    assert flavour.do(buffer.peek()) == [1]
    with pytest.raises(CodecError, match=r"xff") as caught:
        flavour.do(buffer.peek(count=2))
    assert caught.value.raw is None
    assert flavour.do(raw.peek(count=2)) == [b"1", b"\xff"]


@pytest.mark.parametrize(
    ("what", "bad"),
    [("count", bad) for bad in (0, -1, 1.0, "1", None, True, 10**12)]
    + [("after", bad) for bad in (-1, 1.0, "1", None, True, 10**9)],
)
def test_an_invalid_number_is_refused(flavour: Flavour, what: str, bad: Any) -> None:
    for queue in (flavour.buffer(), flavour.queue()):
        with pytest.raises(InvalidArgument, match=what) as caught:
            flavour.do(queue.peek(**{what: bad}))
        assert repr(bad) in str(caught.value)
