"""Pausing a queue, or one group of a buffer: nothing is handed out, and everything else goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import redis

from redisq import Buffer, InvalidArgument, PriorityQueue, Pushed
from tests.faults.node import Node
from tests.queues.flavours import PATIENCE, Flavour

STRUCTURES = pytest.mark.parametrize("structure", ["buffer", "priority"])
FOREVER = None
PAUSED = "redisq:{q}:paused"


def now(client: redis.Redis) -> float:
    """Return the server's time."""
    seconds, micros = client.time()
    return float(seconds + micros / 1e6)


def taken(flavour: Flavour, queue: Any) -> list[Any]:
    """Take by every call that takes, and return what came."""
    pops = [queue.pop("g"), queue.pop_longest()] if hasattr(queue, "pop_longest") else [queue.pop(), queue.pop_many(9)]
    answers = [*map(flavour.do, pops), flavour.do(queue.reserve()), flavour.do(queue.reserve_many(3))]
    return [answer for answer in answers if answer]


def put(queue: Any, item: str) -> Any:
    """Push one item, into the group `g` of a buffer."""
    return queue.push(item, group="g") if hasattr(queue, "pop_longest") else queue.push(item)


def retry_after(flavour: Flavour, queue: Any) -> float:
    """Return the seconds after which a reserve that gives nothing says to ask again."""
    ((nothing,),) = flavour.do(queue.send(queue.calls.reserve()))
    return nothing.retry  # type: ignore[no-any-return]


def paused(flavour: Flavour, queue: Any) -> tuple[bool, str, float | None]:
    """Return what stats say of the queue's pause."""
    stats = flavour.do(queue.stats())
    return stats.paused, stats.pause_reason, stats.paused_until


# -- a queue ---------------------------------------------------------------------------------------------------------


@STRUCTURES
def test_a_paused_queue_gives_nothing_and_takes_everything_else(flavour: Flavour, structure: str) -> None:
    """Pushes, acks, releases, burials and extensions go on; what comes back meanwhile is not handed out again."""
    do, queue = flavour.do, flavour.stocked(structure, *"abcdef")
    one, two, three, four = do(queue.reserve_many(4, 1))
    assert do(queue.pause(reason="the API is down")) is None
    assert taken(flavour, queue) == []
    assert do(put(queue, "new")) in (3, Pushed.ADDED)
    assert do(one.ack()) == do(two.release()) == do(three.bury("odd")) == 1
    do(four.extend(1000))
    assert do(queue.reserve(lease_id=four.id)).items == four.items  # the same call again: what it was answered
    assert taken(flavour, queue) == []
    assert paused(flavour, queue) == (True, "the API is down", None)
    stats = do(queue.stats())
    assert (stats.waiting, stats.delayed, stats.due, stats.leased, stats.dead, stats.done) == (3, 1, 1, 1, 1, 1)
    assert [batch.id for batch in do(queue.leased())] == [four.id]
    assert len(do(queue.delayed())) == len(do(queue.dead())) == 1
    assert do(queue.audit()).ok

    assert do(queue.resume()) is True
    assert do(queue.resume()) is False
    assert paused(flavour, queue) == (False, "", None)
    assert sorted(item for batch in do(queue.reserve_many(9, 9)) for item in batch.items) == ["b", "e", "f", "new"]


@STRUCTURES
def test_a_lease_runs_out_during_a_pause_as_ever(flavour: Flavour, structure: str) -> None:
    """Its batch comes back after the pause, and its holder has lost it then."""
    do, queue = flavour.do, flavour.stocked(structure, "a", lease=0.001)
    batch = do(queue.reserve())
    do(queue.pause())
    while do(queue.stats()).due == 0:
        assert do(queue.reserve()) is None
    do(queue.resume())
    again = do(queue.reserve(timeout=PATIENCE, lease=1000))
    assert (again.items, again.attempts) == (batch.items, 2)


@STRUCTURES
def test_a_pause_may_have_an_end(flavour: Flavour, structure: str) -> None:
    """The stats and an empty reserve say when; when it is over, nobody needs to resume."""
    do, queue = flavour.do, flavour.stocked(structure, "a", lease=900)
    before = now(flavour.plain)
    do(queue.pause(1000, "deploying"))
    after = now(flavour.plain)
    is_paused, reason, until = paused(flavour, queue)
    assert (is_paused, reason) == (True, "deploying")
    assert until is not None
    assert before + 999.99 <= until <= after + 1000.01
    assert 0 < flavour.plain.pttl(PAUSED) <= 1_000_000

    # Never later than a lease ahead: another client may resume it, and crash.
    assert retry_after(flavour, queue) == 900
    do(queue.pause(500))
    assert 400 < retry_after(flavour, queue) <= 500
    do(queue.pause(0.05))
    assert do(queue.reserve(timeout=PATIENCE)).items == ["a"]
    assert paused(flavour, queue) == (False, "", None)
    assert do(queue.resume()) is False


@STRUCTURES
def test_a_pause_takes_the_place_of_the_one_before(flavour: Flavour, structure: str) -> None:
    """With its own end and reason, sooner or later or never."""
    do, queue = flavour.do, flavour.stocked(structure, "a")
    do(queue.pause(1000, "first"))
    do(queue.pause())
    assert paused(flavour, queue) == (True, "", None)
    assert flavour.plain.pttl(PAUSED) == -1
    do(queue.pause(2000, "third"))
    first = paused(flavour, queue)[2]
    do(queue.pause(100, "fourth"))
    is_paused, reason, until = paused(flavour, queue)
    assert (is_paused, reason) == (True, "fourth")
    assert first is not None
    assert until is not None
    assert 1800 < first - until < 2000
    assert 0 < flavour.plain.pttl(PAUSED) <= 100_000
    assert do(queue.resume()) is True
    assert do(queue.reserve()).items == ["a"]


@STRUCTURES
def test_a_queue_that_is_empty_may_be_paused(flavour: Flavour, structure: str) -> None:
    """It writes its pause and nothing else; what is pushed then waits, and a queue that drains keeps its pause."""
    do = flavour.do
    queue = getattr(flavour, "buffer" if structure == "buffer" else "queue")(dedup_window=0)
    do(queue.pause(reason="not yet"))
    assert flavour.plain.keys() == [PAUSED.encode()]
    assert flavour.plain.pttl(PAUSED) == -1
    assert paused(flavour, queue)[0]
    do(put(queue, "a"))
    assert taken(flavour, queue) == []
    do(queue.resume())
    batch = do(queue.reserve())
    assert batch.items == ["a"]
    do(queue.pause())
    assert do(batch.ack()) == 1
    assert paused(flavour, queue)[0]
    do(put(queue, "b"))
    assert do(queue.purge()) == 1
    assert paused(flavour, queue)[0]  # the pause stays
    assert do(queue.resume()) is True
    assert [key for key in flavour.plain.keys() if flavour.plain.pttl(key) == -1] == []  # noqa: SIM118


REASONS = {
    "": "",
    " two  words\nand a line ": " two  words\nand a line ",
    "12 monkeys": "12 monkeys",
    "é" * 600: "é" * 500,
    "x" + "é" * 600: "x" + "é" * 499,
    "€" * 400: "€" * 333,
    "\U0001f600" * 300: "\U0001f600" * 250,
    "x" * 1001: "x" * 1000,
}


@STRUCTURES
@pytest.mark.parametrize("decode", [False, True])
def test_the_reason_is_any_text_of_a_thousand_bytes(flavour: Flavour, structure: str, decode: bool) -> None:
    """A longer one is cut at a character."""
    client = flavour.make_client(decode_responses=decode)
    kind = flavour.library.Buffer if structure == "buffer" else flavour.library.PriorityQueue
    queue = kind(client, "q")
    for reason, kept in REASONS.items():
        for seconds in (FOREVER, 1000):
            flavour.do(queue.pause(seconds, reason))
            assert paused(flavour, queue)[:2] == (True, kept)


# -- a group ---------------------------------------------------------------------------------------------------------


def test_a_paused_group_gives_no_new_batch_and_the_others_are_as_ever(flavour: Flavour) -> None:
    """What was handed out of it before is retried, and what is pushed waits in its order."""
    do, buffer = flavour.do, flavour.buffer()
    do(buffer.push(*range(5), group="g"))
    do(buffer.push(*range(10, 13), group="h"))
    held, other = do(buffer.reserve_many(2, 1))
    assert (held.group, other.group) == ("g", "g")
    assert do(buffer.pause_group("g")) is None
    assert do(buffer.groups()) == {"h": 3}
    assert do(buffer.groups(state="paused")) == {"g": 3}
    stats = do(buffer.stats())
    assert (stats.waiting, stats.groups, stats.paused_groups, stats.busy_groups) == (6, 1, 1, 0)
    assert not stats.paused
    assert do(buffer.push(5, group="g")) == 4
    assert do(buffer.push_front(-1, group="g")) == 5
    assert do(buffer.pop("g")) == []
    assert do(buffer.pop_longest(5, 1)) == {"h": [10]}
    assert do(buffer.peek("g", 9)) == [-1, 2, 3, 4, 5]

    assert do(held.release(reason="again")) == 1
    assert do(other.ack()) == 1
    again = do(buffer.reserve(9))
    assert (again.group, again.items, again.attempts) == ("g", [0], 2)
    assert do(again.bury()) == 1
    assert do(buffer.reserve(9)).items == [11, 12]
    assert do(buffer.reserve(9)) is None
    assert do(buffer.redrive(again.id)) == 1  # at the front of its group, which is paused
    assert do(buffer.reserve(9)) is None
    assert do(buffer.audit()).ok

    assert do(buffer.resume_group("g")) is True
    assert do(buffer.resume_group("g")) is False
    assert do(buffer.groups(state="paused")) == {}
    assert do(buffer.reserve(9)).items == [0, -1, 2, 3, 4, 5]


def test_the_pause_of_a_group_may_have_an_end(flavour: Flavour) -> None:
    """An empty reserve names it; the reserve that comes after it takes the group back."""
    do, buffer = flavour.do, flavour.buffer(lease=900)
    do(buffer.push("a", group="g"))
    do(buffer.pause_group("g", 500))
    assert 400 < retry_after(flavour, buffer) <= 500
    do(buffer.pause_group("g"))  # in the place of the one before: now without an end
    assert retry_after(flavour, buffer) == 900
    do(buffer.pause_group("g", 1000))
    do(buffer.pause_group("g", 0.05))
    assert do(buffer.reserve(timeout=PATIENCE)).items == ["a"]
    assert do(buffer.groups(state="paused")) == {}
    assert do(buffer.stats()).paused_groups == 0
    assert do(buffer.resume_group("g")) is False


def test_a_group_that_is_empty_may_be_paused(flavour: Flavour) -> None:
    """What is pushed then waits; a pause of nothing leaves no key when it ends."""
    do, buffer = flavour.do, flavour.buffer(dedup_window=0)
    do(buffer.pause_group("g"))
    assert do(buffer.groups(state="paused")) == {"g": 0}
    assert do(buffer.groups()) == {}
    do(buffer.push("a", group="g"))
    assert do(buffer.groups(state="paused")) == {"g": 1}
    assert taken(flavour, buffer) == []
    assert do(buffer.resume_group("g")) is True
    assert do(buffer.pop("g")) == ["a"]
    do(buffer.pause_group("g"))
    assert do(buffer.resume_group("g")) is True
    assert [key for key in flavour.plain.keys() if flavour.plain.pttl(key) == -1] == []  # noqa: SIM118


def test_a_pause_of_a_group_of_an_ordered_buffer(flavour: Flavour) -> None:
    """A group that is busy and paused is offered again when neither is so, whichever ends first."""
    do, buffer = flavour.do, flavour.buffer(ordered=True)
    for resumed_first in (True, False):
        do(buffer.push(1, 2, group="g"))
        batch = do(buffer.reserve(1))
        do(buffer.pause_group("g"))
        assert do(buffer.groups(state="busy")) == do(buffer.groups(state="paused")) == {"g": 1}
        stats = do(buffer.stats())
        assert (stats.waiting, stats.busy_groups, stats.paused_groups) == (1, 1, 1)
        for end in ("resume", "ack") if resumed_first else ("ack", "resume"):
            assert do(buffer.reserve()) is None
            assert do(buffer.resume_group("g") if end == "resume" else batch.ack()) == 1
        assert do(do(buffer.reserve()).ack()) == 1


def test_all_of_many_groups_may_be_paused_and_have_their_end(flavour: Flavour) -> None:
    """More than one reserve takes back; paging and order of the listing are those of the other states."""
    do, buffer = flavour.do, flavour.buffer()
    for i in range(25):
        do(buffer.push(*range(i + 1), group=f"g{i:02}"))
        do(buffer.pause_group(f"g{i:02}", 0.05 if i % 2 else 1000))
    lengths = {f"g{i:02}": i + 1 for i in reversed(range(25))}
    assert list(do(buffer.groups(state="paused")).items()) == list(lengths.items())
    assert list(do(buffer.groups(3, 2, "paused")).items()) == list(lengths.items())[2:5]
    found = [do(buffer.reserve(100, timeout=PATIENCE)).group for _ in range(12)]
    assert sorted(found) == [f"g{i:02}" for i in range(1, 25, 2)]
    assert do(buffer.stats()).paused_groups == 13
    assert do(buffer.reserve()) is None


# -- sent twice, and refused -----------------------------------------------------------------------------------------


@STRUCTURES
def test_a_token_makes_pause_and_resume_idempotent(flavour: Flavour, structure: str) -> None:
    """Sent again, each gives its first answer, and leaves what was done in between as it is."""
    do, queue = flavour.do, flavour.stocked(structure, "a")
    do(queue.pause(reason="one", token="p"))
    do(queue.pause(reason="two"))
    do(queue.pause(reason="one", token="p"))
    assert paused(flavour, queue)[1] == "two"
    assert do(queue.resume(token="r")) is True
    do(queue.pause(reason="one", token="p"))
    assert not paused(flavour, queue)[0]
    do(queue.pause())
    assert do(queue.resume(token="r")) is True
    assert paused(flavour, queue)[0]
    if structure == "buffer":
        do(queue.resume())
        do(queue.pause_group("g", token="pg"))
        assert do(queue.resume_group("g", token="rg")) is True
        do(queue.pause_group("g", token="pg"))
        assert do(queue.groups()) == {"g": 1}
        do(queue.pause_group("g", 1000))
        assert do(queue.resume_group("g", token="rg")) is True
        assert do(queue.groups(state="paused")) == {"g": 1}


@pytest.mark.parametrize("verb", ["pause", "resume", "pause_group", "resume_group"])
def test_each_call_has_a_token_of_its_own(flavour: Flavour, verb: str) -> None:
    """So that redis-py may send it again; one made without takes effect each time."""
    buffer = flavour.buffer()
    args = ("g",) if verb.endswith("group") else ()
    tokens = {getattr(buffer.calls, verb)(*args).token for _ in range(3)}
    assert len(tokens) == 3
    assert getattr(buffer.calls, verb)(*args, token="t").token == "t"


NOT_SECONDS = [0, 0.0004, -1, float("nan"), float("inf"), 10**9, "1", True, [1]]
NOT_TOKENS = ["", "\ud800", 5, b"t"]
NOT_GROUPS = ["", "\ud800", None, 5, b"g"]
BOTH: list[tuple[str, list[Any], Callable[[Any, Any], Any]]] = [
    ("seconds", NOT_SECONDS, lambda q, bad: q.pause(bad)),
    ("token of pause", NOT_TOKENS, lambda q, bad: q.pause(token=bad)),
    ("token of resume", NOT_TOKENS, lambda q, bad: q.resume(token=bad)),
]
BUFFER: list[tuple[str, list[Any], Callable[[Any, Any], Any]]] = [
    ("seconds of a group", NOT_SECONDS, lambda q, bad: q.pause_group("g", bad)),
    ("group", NOT_GROUPS, lambda q, bad: q.pause_group(bad)),
    ("group to resume", NOT_GROUPS, lambda q, bad: q.resume_group(bad)),
    ("token of pause_group", NOT_TOKENS, lambda q, bad: q.pause_group("g", token=bad)),
    ("token of resume_group", NOT_TOKENS, lambda q, bad: q.resume_group("g", token=bad)),
]


def test_bad_input_is_named_and_nothing_is_written(flavour: Flavour) -> None:
    """Each bad argument: InvalidArgument, with the value in its message."""
    for queue, cases in ((flavour.buffer(), BOTH + BUFFER), (flavour.queue(), BOTH)):
        for what, values, call in cases:
            for bad in values:
                with pytest.raises(InvalidArgument) as caught:
                    flavour.do(call(queue, bad))
                assert repr(bad) in str(caught.value), (what, bad)
    assert flavour.plain.dbsize() == 0


# -- who waits -------------------------------------------------------------------------------------------------------


def wake(waiting: Future[Any]) -> Any:
    """Return what a waiting call gives, well before its own timeout."""
    return waiting.result(PATIENCE)


@pytest.mark.usefixtures("no_polling")
@pytest.mark.parametrize("seconds", [None, 1000])
def test_resume_wakes_who_waits(real: Flavour, seconds: float | None) -> None:
    """A reserve of each structure, and a pop; as many of them as there is work for."""
    do, buffer, queue, popped = real.do, real.buffer("b"), real.queue("p"), real.queue("o")
    do(buffer.push(1, 2, 3, group="g"))
    do(queue.push_many({"a": 0, "b": 0, "c": 0}))
    do(popped.push_many({"a": 0, "b": 0, "c": 0}))
    for each in (buffer, queue, popped):
        do(each.pause(seconds))
    waiting = [real.begin(lambda: buffer.reserve(1, timeout=60)) for _ in range(3)]
    waiting += [real.begin(lambda: queue.reserve(1, timeout=60)) for _ in range(3)]
    waiting += [real.begin(lambda: popped.pop(timeout=60)) for _ in range(3)]
    real.blocked(9, *waiting)
    for each in (buffer, queue, popped):
        assert do(each.resume()) is True
    assert sorted(wake(one).items for one in waiting[:3]) == [[1], [2], [3]]
    assert sorted(wake(one).items for one in waiting[3:6]) == [["a"], ["b"], ["c"]]
    assert sorted(wake(one).member for one in waiting[6:]) == ["a", "b", "c"]


@pytest.mark.usefixtures("no_polling")
@STRUCTURES
def test_a_client_that_waited_before_the_pause_wakes_after_it(real: Flavour, structure: str) -> None:
    """Woken by a push during the pause, it finds nothing, and waits for the resume."""
    queue = real.buffer() if structure == "buffer" else real.queue()
    waiting = real.begin(lambda: queue.reserve(timeout=60))
    real.blocked(1, waiting)
    real.do(queue.pause())
    real.do(put(queue, "a"))
    while real.plain.llen("redisq:{q}:wake"):  # until the waiting client has taken the wake-up of the push
        assert not waiting.done()
    real.blocked(1, waiting)
    real.do(queue.resume())
    assert wake(waiting).items == ["a"]


@pytest.mark.usefixtures("no_polling")
@pytest.mark.parametrize("seconds", [None, 1000])
def test_resume_group_wakes_who_waits(real: Flavour, seconds: float | None) -> None:
    """Each resume of a group has its batch, though all groups are paused."""
    do, buffer = real.do, real.buffer()
    for group in "gh":
        do(buffer.push(group, group=group))
        do(buffer.pause_group(group, seconds))
    waiting = [real.begin(lambda: buffer.reserve(timeout=60)) for _ in range(2)]
    real.blocked(2, *waiting)
    for group in "gh":
        assert do(buffer.resume_group(group)) is True
    assert sorted(wake(one).group for one in waiting) == ["g", "h"]


@pytest.mark.usefixtures("no_polling")
@STRUCTURES
def test_the_end_of_a_pause_wakes_who_waits(real: Flavour, structure: str) -> None:
    """By the time that the empty reply names: nobody sends anything."""
    queue = real.stocked(structure, "a")
    before = now(real.plain)
    real.do(queue.pause(0.5))
    batch = wake(real.begin(lambda: queue.reserve(timeout=60)))
    assert batch.items == ["a"]
    assert batch.deadline - 30 >= before + 0.5
    if structure == "priority":
        real.do(queue.push("b"))
        real.do(queue.pause(0.2))
        assert wake(real.begin(lambda: queue.pop(timeout=60))).member == "b"


@pytest.mark.usefixtures("no_polling")
def test_the_end_of_a_groups_pause_wakes_who_waits(real: Flavour) -> None:
    """By the first end of several."""
    do, buffer = real.do, real.buffer()
    for group, seconds in (("g", None), ("h", 0.5), ("i", 1000)):
        do(buffer.push(group, group=group))
        do(buffer.pause_group(group, seconds))
    assert wake(real.begin(lambda: buffer.reserve(timeout=60))).group == "h"


@pytest.mark.usefixtures("no_polling")
def test_a_client_that_waited_before_the_pause_of_a_group_wakes_at_its_end(real: Flavour) -> None:
    """Though the push that comes meanwhile is for that group alone."""
    buffer = real.buffer()
    waiting = real.begin(lambda: buffer.reserve(timeout=60))
    real.blocked(1, waiting)
    real.do(buffer.pause_group("g", 0.5))
    real.do(buffer.push("a", group="g"))
    assert wake(waiting).items == ["a"]


@pytest.mark.usefixtures("no_polling")
@pytest.mark.parametrize("what", ["buffer", "priority", "group"])
def test_a_pause_that_is_shortened_wakes_who_waits(real: Flavour, what: str) -> None:
    """The client was told of another end."""
    queue = real.stocked("priority" if what == "priority" else "buffer", "a")

    def pause(seconds: float) -> None:
        real.do(queue.pause_group("g", seconds) if what == "group" else queue.pause(seconds))

    pause(1000)
    waiting = real.begin(lambda: queue.reserve(timeout=60))
    real.blocked(1, waiting)
    pause(0.3)
    assert wake(waiting).items == ["a"]


@STRUCTURES
def test_a_worker_works_on_after_a_pause(real: Flavour, structure: str) -> None:
    """It waits, and goes on when the queue is resumed; what it works on meanwhile it ends."""
    queue = real.stocked(structure, "a")
    began, go_on, done = threading.Event(), threading.Event(), threading.Semaphore(0)

    def handle(batch: Any) -> None:
        if batch.items == ["a"]:
            began.set()
            assert go_on.wait(PATIENCE)

    with real.running(real.worker(queue, handle, on_ack=lambda _: done.release())):
        assert began.wait(PATIENCE)
        kind = Buffer if structure == "buffer" else PriorityQueue
        kind(real.plain, "q").pause()  # the loop of asyncio is held up by its handler
        go_on.set()
        assert done.acquire(timeout=PATIENCE)
        real.do(put(queue, "b"))
        real.blocked(1)
        assert real.do(queue.stats()).waiting == 1
        assert real.do(queue.resume()) is True
        assert done.acquire(timeout=PATIENCE)
    assert real.do(queue.stats()).done == 2


# -- the server ends -------------------------------------------------------------------------------------------------


@pytest.mark.server
def test_pauses_survive_a_killed_server(binary: Path) -> None:
    """With an AOF: reason, end and group are as they were, and resume ends them."""
    options = ("--appendonly", "yes", "--appendfsync", "always")
    with Node(binary, *options) as node:
        with node.client() as client:
            lasting, ending = PriorityQueue(client, "p"), PriorityQueue(client, "e")
            buffer = Buffer[int](client, "b")
            for queue in (lasting, ending):
                queue.push("a")
            lasting.pause(reason="the API is down")
            ending.pause(1000, "deploying")
            buffer.push(1, group="g")
            buffer.pause_group("g")
            before = [queue.stats() for queue in (lasting, ending, buffer)]
        node.kill()
        node.start()
        with node.client() as client:
            queues: list[Any] = [PriorityQueue(client, "p"), PriorityQueue(client, "e"), Buffer(client, "b")]
            after = [queue.stats() for queue in queues]
            kept = ("paused", "pause_reason", "paused_until", "waiting")
            for name in kept:
                assert [getattr(one, name) for one in after] == [getattr(one, name) for one in before]
            assert [one.paused for one in after] == [True, True, False]
            assert queues[2].groups(state="paused") == {"g": 1}
            assert [queue.reserve() for queue in queues] == [None] * 3
            assert 0 < client.pttl("redisq:{e}:paused") <= 1_000_000
            assert queues[0].resume() is queues[1].resume() is queues[2].resume_group("g") is True
            assert all(queue.reserve() for queue in queues)
