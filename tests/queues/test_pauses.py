"""Pausing a queue, or one group of a buffer: nothing is handed out, everything else goes on."""

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
from tests.queues.flavours import TIMEOUT, Flavour
from tests.queues.structures import STRUCTURES, stocked, take

FOREVER = None
PAUSED = "redisq:{q}:paused"


def now(client: redis.Redis) -> float:
    """Return the server's time."""
    seconds, micros = client.time()
    return float(seconds + micros / 1e6)


def taken(flavour: Flavour, queue: Any) -> list[Any]:
    """Take by every call that takes, and return the items."""
    pops = [queue.pop("g"), queue.pop_longest()] if hasattr(queue, "pop_longest") else [queue.pop(), queue.pop_many(9)]
    answers = [*map(flavour.do, pops), flavour.do(queue.reserve()), flavour.do(queue.reserve_many(3))]
    return [answer for answer in answers if answer]


def put(queue: Any, item: str) -> Any:
    """Push one item, into the group `g` of a buffer."""
    return queue.push(item, group="g") if hasattr(queue, "pop_longest") else queue.push(item)


def retry_after(flavour: Flavour, queue: Any) -> float:
    """Return the retry time, in seconds, of a reserve that finds nothing."""
    ((nothing,),) = flavour.do(queue.send(queue.calls.reserve()))
    return nothing.retry  # type: ignore[no-any-return]


def paused(flavour: Flavour, queue: Any) -> tuple[bool, str, float | None]:
    """Return what stats say about the queue's pause."""
    stats = flavour.do(queue.stats())
    return stats.paused, stats.pause_reason, stats.paused_until


# -- a queue ---------------------------------------------------------------------------------------------------------


@STRUCTURES
def test_a_paused_queue_hands_out_nothing_and_accepts_everything_else(flavour: Flavour, structure: str) -> None:
    """Pushes, acks, releases, burials and extensions go on; what comes back meanwhile is not handed out again."""
    do, queue = flavour.do, flavour.stocked(structure, *"abcdef")
    one, two, three, four = do(queue.reserve_many(4, 1))
    assert do(queue.pause(reason="the API is down")) is None
    assert taken(flavour, queue) == []
    assert do(put(queue, "new")) in (3, Pushed.ADDED)
    assert do(one.ack()) == do(two.release()) == do(three.bury("odd")) == 1
    do(four.extend(1000))
    assert do(queue.reserve(lease_id=four.id)).items == four.items  # the same call again: the first answer
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
def test_a_lease_expires_during_a_pause(flavour: Flavour, structure: str) -> None:
    """Its batch is handed out again after the pause, and only then is the lease lost."""
    do, queue = flavour.do, flavour.stocked(structure, "a", lease=0.001)
    batch = do(queue.reserve())
    do(queue.pause())
    while do(queue.stats()).due == 0:
        assert do(queue.reserve()) is None
    do(queue.resume())
    again = do(queue.reserve(timeout=TIMEOUT, lease=1000))
    assert (again.items, again.attempts) == (batch.items, 2)


@STRUCTURES
def test_a_pause_may_have_an_end(flavour: Flavour, structure: str) -> None:
    """Stats and an empty reserve tell when; afterwards no resume is needed."""
    do, queue = flavour.do, flavour.stocked(structure, "a", lease=900)
    before = now(flavour.plain)
    do(queue.pause(1000, "deploying"))
    after = now(flavour.plain)
    is_paused, reason, until = paused(flavour, queue)
    assert (is_paused, reason) == (True, "deploying")
    assert until is not None
    assert before + 999.99 <= until <= after + 1000.01
    assert 0 < flavour.plain.pttl(PAUSED) <= 1_000_000

    # Never later than a lease ahead: another client may resume the queue, take the batch and crash.
    assert retry_after(flavour, queue) == 900
    do(queue.pause(500))
    assert 400 < retry_after(flavour, queue) <= 500
    do(queue.pause(0.05))
    assert do(queue.reserve(timeout=TIMEOUT)).items == ["a"]
    assert paused(flavour, queue) == (False, "", None)
    assert do(queue.resume()) is False


@STRUCTURES
def test_a_pause_replaces_the_previous_one(flavour: Flavour, structure: str) -> None:
    """With its own end and reason; it may end earlier, later or never."""
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
def test_an_empty_queue_can_be_paused(flavour: Flavour, structure: str) -> None:
    """Only the pause is written; later pushes wait, and an emptied queue keeps its pause."""
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
def test_the_reason_is_any_text_of_up_to_a_thousand_bytes(flavour: Flavour, structure: str, decode: bool) -> None:
    """A longer one is cut at a character boundary."""
    client = flavour.make_client(decode_responses=decode)
    kind = flavour.library.Buffer if structure == "buffer" else flavour.library.PriorityQueue
    queue = kind(client, "q")
    for reason, kept in REASONS.items():
        for seconds in (FOREVER, 1000):
            flavour.do(queue.pause(seconds, reason))
            assert paused(flavour, queue)[:2] == (True, kept)


@STRUCTURES
def test_a_paused_queue_hands_out_nothing(client: redis.Redis, structure: str) -> None:
    """Pushes and settlements go on; stats say why it is paused, and until when."""
    queue: Any = stocked(client, structure, "a", "b")
    batch = take(queue, 1)
    client.set("redisq:{q}:paused", "0 the API is down")
    assert queue.reserve() is None
    assert (queue.pop() or None) is None
    queue.push(*("c",))
    assert batch.ack() == 1
    stats = queue.stats()
    assert (stats.paused, stats.pause_reason, stats.paused_until) == (True, "the API is down", None)
    client.set("redisq:{q}:paused", "4000000000000 ", px=100_000)
    assert queue.stats().paused_until == 4_000_000_000
    assert queue.reserve(timeout=0.01) is None
    client.set("redisq:{q}:paused", "1000 long ago")
    assert not queue.stats().paused
    take(queue)


# -- a group ---------------------------------------------------------------------------------------------------------


def test_a_paused_group_hands_out_no_new_batch(flavour: Flavour) -> None:
    """Its earlier batches are retried, later pushes wait in order, and other groups are not affected."""
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
    """An empty reserve names it; the next reserve after it finds the group."""
    do, buffer = flavour.do, flavour.buffer(lease=900)
    do(buffer.push("a", group="g"))
    do(buffer.pause_group("g", 500))
    assert 400 < retry_after(flavour, buffer) <= 500
    do(buffer.pause_group("g"))  # replaces the previous one: no end now
    assert retry_after(flavour, buffer) == 900
    do(buffer.pause_group("g", 1000))
    do(buffer.pause_group("g", 0.05))
    assert do(buffer.reserve(timeout=TIMEOUT)).items == ["a"]
    assert do(buffer.groups(state="paused")) == {}
    assert do(buffer.stats()).paused_groups == 0
    assert do(buffer.resume_group("g")) is False


def test_an_empty_group_can_be_paused(flavour: Flavour) -> None:
    """Later pushes wait; the pause of a group without items leaves no key behind."""
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


def test_pausing_a_group_of_an_ordered_buffer(flavour: Flavour) -> None:
    """A group that is both busy and paused is handed out when neither holds, whichever ends first."""
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


def test_many_groups_with_pauses_that_end(flavour: Flavour) -> None:
    """More than one reserve can resume; listing them supports pages and has the usual order."""
    do, buffer = flavour.do, flavour.buffer()
    for i in range(25):
        do(buffer.push(*range(i + 1), group=f"g{i:02}"))
        do(buffer.pause_group(f"g{i:02}", 0.05 if i % 2 else 1000))
    lengths = {f"g{i:02}": i + 1 for i in reversed(range(25))}
    assert list(do(buffer.groups(state="paused")).items()) == list(lengths.items())
    assert list(do(buffer.groups(3, 2, "paused")).items()) == list(lengths.items())[2:5]
    found = [do(buffer.reserve(100, timeout=TIMEOUT)).group for _ in range(12)]
    assert sorted(found) == [f"g{i:02}" for i in range(1, 25, 2)]
    assert do(buffer.stats()).paused_groups == 13
    assert do(buffer.reserve()) is None


# -- repeated and invalid calls --------------------------------------------------------------------------------------


@STRUCTURES
def test_a_token_makes_pause_and_resume_idempotent(flavour: Flavour, structure: str) -> None:
    """Sent again, each returns its first answer, and does not change what was done in between."""
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
def test_each_call_has_its_own_token(flavour: Flavour, verb: str) -> None:
    """So that redis-py can retry it; separate calls without a token each take effect."""
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


def test_an_invalid_argument_is_named_and_nothing_is_written(flavour: Flavour) -> None:
    """InvalidArgument, with the value in its message."""
    for queue, cases in ((flavour.buffer(), BOTH + BUFFER), (flavour.queue(), BOTH)):
        for what, values, call in cases:
            for bad in values:
                with pytest.raises(InvalidArgument) as caught:
                    flavour.do(call(queue, bad))
                assert repr(bad) in str(caught.value), (what, bad)
    assert flavour.plain.dbsize() == 0


# -- blocked clients -------------------------------------------------------------------------------------------------


def result_of(waiting: Future[Any]) -> Any:
    """Return the result of a blocked call, which must end well before its own timeout."""
    return waiting.result(TIMEOUT)


@pytest.mark.usefixtures("no_polling")
@pytest.mark.parametrize("seconds", [None, 1000])
def test_resume_wakes_blocked_clients(real: Flavour, seconds: float | None) -> None:
    """A reserve on each structure, and a pop; as many of them as there is work for."""
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
    assert sorted(result_of(one).items for one in waiting[:3]) == [[1], [2], [3]]
    assert sorted(result_of(one).items for one in waiting[3:6]) == [["a"], ["b"], ["c"]]
    assert sorted(result_of(one).member for one in waiting[6:]) == ["a", "b", "c"]


@pytest.mark.usefixtures("no_polling")
@STRUCTURES
def test_a_client_that_was_blocked_before_the_pause_wakes_after_it(real: Flavour, structure: str) -> None:
    """A push during the pause wakes it, it finds nothing, and blocks until the resume."""
    queue = real.buffer() if structure == "buffer" else real.queue()
    waiting = real.begin(lambda: queue.reserve(timeout=60))
    real.blocked(1, waiting)
    real.do(queue.pause())
    real.do(put(queue, "a"))
    while real.plain.llen("redisq:{q}:wake"):  # until the blocked client has taken the wake-up of the push
        assert not waiting.done()
    real.blocked(1, waiting)
    real.do(queue.resume())
    assert result_of(waiting).items == ["a"]


@pytest.mark.usefixtures("no_polling")
@pytest.mark.parametrize("seconds", [None, 1000])
def test_resume_group_wakes_blocked_clients(real: Flavour, seconds: float | None) -> None:
    """Each resume of a group hands out its batch, though all groups are paused at first."""
    do, buffer = real.do, real.buffer()
    for group in "gh":
        do(buffer.push(group, group=group))
        do(buffer.pause_group(group, seconds))
    waiting = [real.begin(lambda: buffer.reserve(timeout=60)) for _ in range(2)]
    real.blocked(2, *waiting)
    for group in "gh":
        assert do(buffer.resume_group(group)) is True
    assert sorted(result_of(one).group for one in waiting) == ["g", "h"]


@pytest.mark.usefixtures("no_polling")
@STRUCTURES
def test_the_end_of_a_pause_wakes_blocked_clients(real: Flavour, structure: str) -> None:
    """By the retry time of the empty reply, without any other call."""
    queue = real.stocked(structure, "a")
    before = now(real.plain)
    real.do(queue.pause(0.5))
    batch = result_of(real.begin(lambda: queue.reserve(timeout=60)))
    assert batch.items == ["a"]
    assert batch.deadline - 30 >= before + 0.5
    if structure == "priority":
        real.do(queue.push("b"))
        real.do(queue.pause(0.2))
        assert result_of(real.begin(lambda: queue.pop(timeout=60))).member == "b"


@pytest.mark.usefixtures("no_polling")
def test_the_end_of_a_groups_pause_wakes_blocked_clients(real: Flavour) -> None:
    """The first end of several."""
    do, buffer = real.do, real.buffer()
    for group, seconds in (("g", None), ("h", 0.5), ("i", 1000)):
        do(buffer.push(group, group=group))
        do(buffer.pause_group(group, seconds))
    assert result_of(real.begin(lambda: buffer.reserve(timeout=60))).group == "h"


@pytest.mark.usefixtures("no_polling")
def test_a_client_that_was_blocked_before_the_pause_of_a_group_wakes_at_its_end(real: Flavour) -> None:
    """Even if a push meanwhile was for that group only."""
    buffer = real.buffer()
    waiting = real.begin(lambda: buffer.reserve(timeout=60))
    real.blocked(1, waiting)
    real.do(buffer.pause_group("g", 0.5))
    real.do(buffer.push("a", group="g"))
    assert result_of(waiting).items == ["a"]


@pytest.mark.usefixtures("no_polling")
@pytest.mark.parametrize("what", ["buffer", "priority", "group"])
def test_shortening_a_pause_wakes_blocked_clients(real: Flavour, what: str) -> None:
    """The client was waiting for the previous end."""
    queue = real.stocked("priority" if what == "priority" else "buffer", "a")

    def pause(seconds: float) -> None:
        real.do(queue.pause_group("g", seconds) if what == "group" else queue.pause(seconds))

    pause(1000)
    waiting = real.begin(lambda: queue.reserve(timeout=60))
    real.blocked(1, waiting)
    pause(0.3)
    assert result_of(waiting).items == ["a"]


@STRUCTURES
def test_a_worker_continues_after_a_pause(real: Flavour, structure: str) -> None:
    """It finishes its current batch, waits, and continues when the queue is resumed."""
    queue = real.stocked(structure, "a")
    began, go_on, done = threading.Event(), threading.Event(), threading.Semaphore(0)

    def handle(batch: Any) -> None:
        if batch.items == ["a"]:
            began.set()
            assert go_on.wait(TIMEOUT)

    with real.running(real.worker(queue, handle, on_ack=lambda _: done.release())):
        assert began.wait(TIMEOUT)
        kind = Buffer if structure == "buffer" else PriorityQueue
        kind(real.plain, "q").pause()  # the handler blocks the event loop
        go_on.set()
        assert done.acquire(timeout=TIMEOUT)
        real.do(put(queue, "b"))
        real.blocked(1)
        assert real.do(queue.stats()).waiting == 1
        assert real.do(queue.resume()) is True
        assert done.acquire(timeout=TIMEOUT)
    assert real.do(queue.stats()).done == 2


# -- a killed server -------------------------------------------------------------------------------------------------


@pytest.mark.server
def test_pauses_survive_a_killed_server(binary: Path) -> None:
    """With an AOF: reason, end and group are kept, and resume ends them."""
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
