"""The state machine of a worker: fed with results and times, without a server."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest
import redis

from redisq import (
    BatchData,
    Buried,
    Bury,
    CodecError,
    InvalidArgument,
    LeaseLost,
    NotDurable,
    Nothing,
    RedisqError,
    Retry,
    WrongOrder,
)
from redisq.core.buffer import BufferCalls
from redisq.core.priority import PriorityCalls
from redisq.core.worker import CLOSE_SECONDS, SAME_SIGNAL, Ending, Held, Prefetch, Settings, Step, WorkLoop, exponential

LEASE = 30.0
GRACE = 25.0


class Loop:
    """A work loop with its clock, and replies by a word for each call."""

    def __init__(self, *, burst: bool = False, can_cancel: bool = False, calls: Any = None, **settings: Any) -> None:
        self.now = 0.0
        self.ending = Ending(GRACE)
        self.told: list[tuple[Any, ...]] = []
        hooks: dict[str, Any] = {
            "on_ack": lambda batch: self.told.append(("ack", batch.id)),
            "on_release": lambda batch, error: self.told.append(("release", batch.id, error)),
            "on_dead": lambda buried: self.told.append(("dead", *buried)),
        }
        self.state: WorkLoop[Any] = WorkLoop(
            calls or BufferCalls("q", lease=LEASE),
            Settings(backoff=lambda attempts: 7.0 * attempts, **hooks, **settings),
            lambda batch: batch,
            self.ending,
            burst=burst,
            can_cancel=can_cancel,
        )

    def turn(self) -> list[Step]:
        return self.state.turn(self.now)

    def words(self) -> list[str]:
        """Name the calls of the next turn."""
        return [kind(step) for step in self.turn()]

    def reply(self, *results: Any) -> list[Held[Any]]:
        """Answer the next turn; `batch` hands out one for a reserve, `None` says that there is nothing for 5 s."""
        steps = self.turn()
        filled = [answer(step, result) for step, result in zip(steps, results, strict=True)]
        begun = self.state.replied(steps, filled, self.now)
        for held in begun:
            held.begun = True
        return begun

    def fail(self, error: Exception) -> None:
        self.state.failed(self.turn(), error, self.now)

    def end(self, held: Held[Any], error: BaseException | None = None) -> None:
        self.state.ended(held, error, self.now)

    @property
    def finished(self) -> bool:
        return self.state.finished(self.now)

    @property
    def next(self) -> float:
        return self.state.next_time(self.now)


def kind(step: Step) -> str:
    return step.call.script.name.partition("/")[2]


def answer(step: Step, result: Any) -> Any:
    if result == "batch":
        return [batch(str(step.call.lease_id))]
    return [Nothing(5.0)] if result is None else result


def batch(name: str, attempts: int = 1, group: str | None = "g") -> BatchData[Any]:
    return BatchData(name, group, ["x", "y"], attempts, 1000.0, [b"x", b"y"])


def option(step: Step, name: str) -> int:
    """Read one of the numbers that share an argument."""
    (slot,) = (slot for slot in step.call.script.args if slot.name == "options")
    place = [one.name for one in slot.fields].index(name)
    packed: Any = step.call.args[step.call.script.args.index(slot)]
    return int(packed.split()[place])


GONE = redis.ConnectionError("gone")
REFUSED = redis.ResponseError("ERR a script went wrong")


# -- turns


def test_one_item_costs_one_round_trip() -> None:
    """The ack of one goes with the reserve of the next."""
    loop = Loop()
    (first,) = loop.reply("batch")
    assert loop.words() == []
    loop.end(first)
    assert loop.words() == ["ack", "reserve"]
    (second,) = loop.reply(1, "batch")
    assert second.batch.id != first.batch.id
    assert loop.told == [("ack", first.batch.id)]


def test_places_are_filled_twice_as_many_at_a_time() -> None:
    """One reserve, then two, then four; less when less came; never more than there are places."""
    loop = Loop(concurrency=6)
    assert loop.words() == ["reserve"]
    loop.reply("batch")
    assert loop.words() == ["reserve"] * 2
    held = loop.reply("batch", "batch")
    assert loop.words() == ["reserve"] * 3
    loop.reply("batch", "batch", "batch")
    assert loop.words() == []
    loop.end(held[0])
    assert loop.words() == ["ack", "reserve"]


def test_where_there_is_nothing_it_waits_until_it_is_woken_or_the_time_has_come() -> None:
    """The time that the reply named; a wake-up is waited for only then, and only for a free place."""
    loop = Loop(concurrency=2)
    assert loop.state.wait_seconds(0) is None
    (held,) = loop.reply("batch")
    loop.reply(None)
    assert loop.words() == []
    assert (loop.next, loop.state.wait_seconds(0)) == (5.0, 5.0)
    loop.state.waiting = True
    assert loop.state.wait_seconds(0) is None
    loop.now = 6.0
    assert (loop.words(), loop.next) == ([], LEASE / 3)  # it is about to be woken, and reserves then
    loop.now = 2.0
    loop.state.wait_ended(None, loop.now)
    assert loop.words() == ["reserve"]
    loop.reply(None)
    loop.now = 7.0
    assert loop.words() == ["reserve"]
    loop.reply("batch")
    assert loop.state.wait_seconds(loop.now) is None  # no place is free
    assert loop.next == LEASE / 3
    loop.end(held)
    loop.reply(1, None)
    assert loop.state.wait_seconds(loop.now) == 5.0


def test_a_burial_is_told_and_another_reserve_follows_at_once() -> None:
    """A reply that names the dead, and no time."""
    loop = Loop()
    died = Buried("id", "g", 3, "poison")
    loop.reply([died])
    assert loop.told == [("dead", died)]
    assert loop.words() == ["reserve"]


def test_a_reserve_whose_lease_has_ended_is_replaced() -> None:
    """Sent again after its reply was lost, it may find that the lease is over."""
    loop = Loop()
    before = loop.turn()[0].call.lease_id
    loop.reply([Nothing(ended=True)])
    after = loop.turn()[0].call.lease_id
    assert after is not None
    assert after != before


def test_the_lease_is_extended_at_a_third() -> None:
    """And again a third later; not once the handler has ended."""
    loop = Loop()
    (held,) = loop.reply("batch")
    assert loop.next == LEASE / 3
    loop.now = LEASE / 3
    assert loop.words() == ["extend"]
    loop.reply(123_000)
    assert held.batch.deadline == 123
    assert (loop.words(), loop.next) == ([], 2 * LEASE / 3)
    loop.now = 2 * LEASE / 3
    loop.end(held)
    assert loop.words() == ["ack", "reserve"]


def test_many_leases_are_extended_together() -> None:
    """In one turn, those that are due."""
    loop = Loop(concurrency=3)
    loop.reply("batch")
    loop.now = 2.0
    loop.reply("batch", "batch")
    loop.now = LEASE / 3 + 1
    assert loop.words() == ["extend"]
    loop.now = LEASE / 3 + 2
    assert loop.words() == ["extend"] * 3


def test_a_lease_that_is_lost_is_looked_at_twice(caplog: pytest.LogCaptureFixture) -> None:
    """A handler may be acking its batch in another thread just then; if it was not, `lost` tells it."""
    loop = Loop()
    (held,) = loop.reply("batch")
    loop.now = LEASE / 3
    loop.reply(LeaseLost("gone"))
    assert not held.batch.lost
    loop.now += 1
    assert loop.words() == ["extend"]
    loop.reply(LeaseLost("gone"))
    assert held.batch.lost
    assert held.batch.settled
    assert "lost before its handler ended" in caplog.text
    loop.now += LEASE
    assert loop.words() == []
    assert loop.next == math.inf
    loop.end(held, ValueError("its work was for nothing"))
    assert loop.words() == ["reserve"]
    assert "after it had lost batch" in caplog.text


def test_a_handler_that_settles_between_two_looks_has_lost_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The extension came after its ack."""
    loop = Loop()
    (held,) = loop.reply("batch")
    loop.now = LEASE / 3
    loop.reply(LeaseLost("settled"))
    held.batch.settled = True
    loop.now += 1
    assert loop.words() == []
    loop.end(held)
    assert loop.words() == ["reserve"]
    assert not held.batch.lost
    assert not caplog.records


def test_a_settlement_that_finds_the_lease_lost_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """And no hook is told."""
    loop = Loop()
    (held,) = loop.reply("batch")
    loop.end(held)
    loop.reply(LeaseLost("gone"), None)
    assert held.batch.lost
    assert "lost before ack" in caplog.text
    assert loop.told == []


# -- what becomes of a batch


@pytest.mark.parametrize(
    ("error", "verb", "delay", "count", "reason"),
    [
        (ValueError("bad"), "release", 14_000, b"count", b"ValueError: bad"),
        (Retry(), "release", 14_000, b"count", b""),
        (Retry(3, reason="busy"), "release", 3_000, b"count", b"busy"),
        (Retry(count=False), "release", 14_000, b"forget", b""),
        (Bury("never"), "bury", None, None, b"never"),
        (SystemExit(1), "release", 14_000, b"count", b"SystemExit: 1"),
    ],
    ids=repr,
)
def test_what_follows_an_exception(
    error: BaseException, verb: str, delay: int | None, count: bytes | None, reason: bytes
) -> None:
    """A release with the backoff, or what `Retry` and `Bury` ask for."""
    loop = Loop()
    loop.reply([batch("b", attempts=2)])
    (held,) = loop.state._running.values()
    loop.end(held, error)
    step = loop.turn()[0]
    assert kind(step) == verb
    assert reason in step.call.args or not reason
    if delay is not None:
        assert option(step, "delay") == delay
    if count is not None:
        assert count in step.call.args


def test_marked_items_come_back_after_the_backoff() -> None:
    """With the ack of the others."""
    loop = Loop()
    (held,) = loop.reply("batch")
    held.batch.fail("y")
    loop.end(held)
    step = loop.turn()[0]
    assert kind(step) == "ack"
    assert option(step, "delay") == 7_000
    assert step.call.args[-1] == 1


@pytest.mark.parametrize("count", [True, False])
def test_the_last_attempt_dies_without_a_backoff(count: bool) -> None:
    """Unless it is not counted."""
    loop = Loop(calls=BufferCalls("q", max_attempts=1))
    (held,) = loop.reply("batch")
    loop.end(held, Retry(count=count))
    assert option(loop.turn()[0], "delay") == (0 if count else 7_000)


def test_what_became_of_it_is_told_when_it_is_answered() -> None:
    """Each hook with what it is for; a burial names the batch, or each member."""
    for calls, group in ((BufferCalls("q"), "g"), (PriorityCalls("q"), None)):
        loop = Loop(calls=calls)
        errors = [None, ValueError("bad"), Bury("never")]
        for name, error in zip("arb", errors, strict=True):
            (held,) = loop.reply(*[1] * (len(loop.turn()) - 1), [batch(name, group=group)])
            loop.end(held, error)
        loop.reply(1, None)
        dead = [Buried("b", "g", 1, "never")] if group else [Buried("x", reason="never"), Buried("y", reason="never")]
        assert loop.told == [("ack", "a"), ("release", "r", errors[1]), ("dead", *dead)]


@pytest.mark.parametrize("group", ["g", None])
def test_a_burial_without_a_reason_keeps_the_last(group: str | None) -> None:
    """Why the batch came back before."""
    loop = Loop(calls=BufferCalls("q") if group else PriorityCalls("q"))
    came_back = batch("b", group=group)
    came_back.reason = "before"
    (held,) = loop.reply([came_back])
    loop.end(held, Bury())
    loop.reply(1, None)
    assert {buried.reason for buried in loop.told[0][1:]} == {"before"}


def test_a_batch_that_cannot_be_decoded_goes_back(caplog: pytest.LogCaptureFixture) -> None:
    """No handler sees it, and the other batches of the turn are handed out."""
    loop = Loop(concurrency=4)
    loop.reply("batch")
    error = CodecError("cannot decode", raw=batch("bad"))
    begun = loop.reply(error, "batch")
    assert len(begun) == 1
    assert loop.words() == ["release", "reserve"]  # less came than was asked for
    assert option(loop.turn()[0], "delay") == 7_000
    loop.reply(1, None)
    assert loop.told == [("release", "bad", error)]
    assert "cannot be decoded" in caplog.text


@pytest.mark.parametrize("seconds", [-1, math.nan, "soon", ZeroDivisionError()], ids=repr)
def test_a_backoff_that_cannot_be_used_becomes_the_default(seconds: Any, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and costs neither the batch nor the worker."""

    def backoff(_: int) -> Any:
        if isinstance(seconds, Exception):
            raise seconds
        return seconds

    loop = Loop()
    object.__setattr__(loop.state._settings, "backoff", backoff)
    (held,) = loop.reply("batch")
    loop.end(held, ValueError("bad"))
    assert 500 <= option(loop.turn()[0], "delay") <= 1000
    assert "backoff failed" in caplog.text


@pytest.mark.parametrize(
    ("reason", "kept"),
    [
        (lambda _: "secret" * 1000, b"secret" * 166 + b"secr"),
        (lambda _: None, b""),
        (lambda _: 5, b"ValueError"),
        (lambda _: 1 / 0, b"ValueError"),
    ],
)
def test_the_reason_is_what_the_function_gives(reason: Any, kept: bytes) -> None:
    """At most 1,000 bytes of it; if it fails, the exception's class, and no message that might be a secret."""
    loop = Loop(reason=reason)
    (held,) = loop.reply("batch")
    loop.end(held, ValueError("password"))
    assert kept in loop.turn()[0].call.args
    assert not any(isinstance(arg, bytes) and b"password" in arg for arg in loop.turn()[0].call.args)


def test_a_hook_that_fails_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged."""
    loop = Loop()
    object.__setattr__(loop.state._settings, "on_ack", lambda _: 1 / 0)
    (held,) = loop.reply("batch")
    loop.end(held)
    loop.reply(1, "batch")
    assert "hook" in caplog.text


# -- errors


def test_what_was_not_answered_is_sent_again_as_it_was() -> None:
    """Settlements, extensions and reserves, with the same lease ids, after a pause that grows."""
    loop = Loop(concurrency=2)
    (first,) = loop.reply("batch")
    loop.now = LEASE / 3
    (second,) = loop.reply(1000, "batch")
    loop.now = 2 * LEASE / 3
    loop.end(first)
    calls = [step.call for step in loop.turn()]
    assert len(calls) == 3
    pauses = []
    for _ in range(8):
        loop.fail(GONE)
        assert loop.words() == []
        assert loop.state.wait_seconds(loop.now) is None
        pauses.append(loop.next - loop.now)
        loop.now = loop.next
        assert [step.call for step in loop.turn()] == calls
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5])
    loop.reply(1, 2000, None)
    assert loop.told == [("ack", first.batch.id)]
    loop.end(second)
    loop.fail(GONE)
    assert loop.next - loop.now == pytest.approx(0.1)


def test_while_it_pauses_the_end_and_the_timeouts_are_kept() -> None:
    """A Redis that is unavailable keeps nobody from stopping, and is not asked to wake anybody."""
    loop = Loop(concurrency=2, handler_timeout=1.05)
    (held,) = loop.reply("batch")
    loop.reply(None)
    loop.now = 1.0
    held.extend_at = loop.state._extend_at = 1.0
    loop.fail(GONE)
    assert loop.state.wait_seconds(loop.now) is None
    assert loop.next == 1.05
    loop.ending.end(1.01)
    assert loop.next == 1.01
    loop.now = 1.01
    assert loop.finished


@pytest.mark.parametrize("order", ["poison first", "poison last"])
def test_a_call_that_is_refused_does_not_keep_the_others_from_their_answers(order: str) -> None:
    """After an error that one of them was answered with, each goes alone, and the refused one last."""
    loop = Loop(concurrency=3)
    loop.reply("batch")
    loop.reply("batch", "batch")
    held = list(loop.state._running.values())
    poison = held[0] if order == "poison first" else held[-1]
    for one in held:
        loop.end(one)
    told = []
    for _ in range(20):
        steps = loop.turn()
        if any(step.held is poison for step in steps):
            loop.fail(REFUSED)
            loop.now = loop.next
        else:
            loop.reply(*(None if step.held is None else 1 for step in steps))
        told = [word[1] for word in loop.told]
    assert set(told) == {one.batch.id for one in held} - {poison.batch.id}


def test_a_reserve_that_is_refused_keeps_no_ack_from_its_answer() -> None:
    """The ack that went with it is answered in a turn of its own, and its hook told."""
    loop = Loop()
    (held,) = loop.reply("batch")
    loop.end(held)
    loop.fail(REFUSED)
    loop.now = loop.next
    assert loop.words() == ["ack"]
    loop.reply(1)
    assert loop.told == [("ack", held.batch.id)]
    assert loop.words() == ["reserve"]
    loop.fail(REFUSED)
    loop.now = loop.next
    loop.reply("batch")
    assert loop.state.failure is None


def test_an_extension_that_is_refused_lets_the_others_go_first() -> None:
    """It is asked for again a second later."""
    loop = Loop(concurrency=2)
    loop.reply("batch")
    loop.reply(None)
    loop.now = LEASE / 3
    assert loop.words() == ["extend", "reserve"]
    loop.fail(REFUSED)
    loop.now = loop.next
    assert loop.words() == ["extend"]
    loop.fail(REFUSED)
    loop.now = loop.next
    assert loop.words() == ["reserve"]
    loop.reply(None)
    loop.now += 1
    assert loop.words() == ["extend"]


@pytest.mark.parametrize(
    "error",
    [GONE, redis.TimeoutError("slow"), OSError("no route"), NotDurable("0 of 1"), redis.BusyLoadingError("loading")],
    ids=lambda error: type(error).__name__,
)
def test_what_passes_by_itself_is_waited_for(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever it is that passes."""
    loop = Loop()
    loop.fail(error)
    assert loop.state.failure is None
    assert not loop.finished
    assert "Redis is unavailable" in caplog.text


def test_an_exhausted_pool_is_not_called_an_outage(caplog: pytest.LogCaptureFixture) -> None:
    """It is this process that has no connection left."""
    loop = Loop()
    loop.fail(redis.ConnectionError("Too many connections"))
    assert "no free connection" in caplog.text
    assert "unavailable" not in caplog.text
    assert not loop.finished


@pytest.mark.parametrize(
    "error", [WrongOrder("score"), redis.AuthenticationError("WRONGPASS"), ZeroDivisionError()], ids=repr
)
def test_what_is_for_good_ends_the_run_in_order(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """No reserve any more; running handlers have their grace, and their acks are tried; it is logged once."""
    loop = Loop(concurrency=2)
    (held,) = loop.reply("batch")
    loop.fail(error)
    assert loop.state.failure is error
    assert not loop.finished
    loop.end(held)
    loop.now = loop.next
    assert loop.words() == ["ack"]
    loop.fail(error)
    loop.now = loop.next
    assert not loop.finished
    assert loop.words() == ["ack"]
    loop.reply(1)
    assert loop.finished
    assert len([record for record in caplog.records if "cannot go on" in record.message]) == 1
    if isinstance(error, redis.AuthenticationError) and hasattr(error, "__notes__"):
        assert "password" in error.__notes__[0]


def test_a_wait_that_fails_is_not_tried_again_at_once() -> None:
    """Reserves go on meanwhile, after pauses that grow until a wait succeeds."""
    loop = Loop()
    pauses = []
    for _ in range(3):
        loop.reply(None)
        assert loop.state.wait_seconds(loop.now) == 5.0
        loop.state.wait_ended(redis.ConnectionError("max number of clients reached"), loop.now)
        assert loop.state.wait_seconds(loop.now) is None
        pauses.append(loop.next - loop.now)
        loop.now = loop.next
        assert loop.words() == ["reserve"]
    assert pauses == pytest.approx([0.1, 0.2, 0.4])
    loop.reply(None)
    loop.state.wait_ended(None, loop.now)
    loop.reply(None)
    loop.state.wait_ended(GONE, loop.now)
    assert loop.next - loop.now == pytest.approx(0.1)


def test_a_wait_that_is_refused_for_good_ends_the_run() -> None:
    """As a turn that is."""
    loop = Loop()
    loop.reply(None)
    loop.state.wait_ended(redis.AuthenticationError("WRONGPASS"), loop.now)
    assert loop.finished
    assert isinstance(loop.state.failure, redis.AuthenticationError)


# -- ends


def test_a_stop_lets_handlers_end() -> None:
    """Nothing new begins, what runs is settled, then the run is over."""
    loop = Loop(concurrency=2)
    (held,) = loop.reply("batch")
    loop.reply(None)
    assert loop.state.wait_seconds(loop.now) == 5.0
    loop.ending.stop(loop.now)
    assert loop.words() == []
    assert loop.state.wait_seconds(loop.now) is None
    assert (loop.finished, loop.next) == (False, LEASE / 3)
    loop.now = LEASE / 3
    assert loop.words() == ["extend"]
    loop.reply(1000)
    assert loop.words() == []
    assert loop.next > loop.now
    loop.end(held)
    assert loop.next == loop.now
    assert not loop.finished
    loop.reply(1)
    assert loop.finished
    assert loop.state.last_turn() == []


def test_after_the_grace_what_is_held_is_given_back(caplog: pytest.LogCaptureFixture) -> None:
    """What no handler has seen does not count as an attempt; what is to be settled is settled."""
    loop = Loop(concurrency=4)
    loop.reply("batch")
    loop.reply("batch", "batch")
    running, unseen, ended = loop.state._running.values()
    unseen.begun = False
    loop.ending.stop(loop.now)
    loop.now = GRACE - 0.001
    loop.end(ended)
    assert not loop.finished
    loop.now = GRACE
    assert loop.finished
    loop.state.close()
    loop.end(unseen)  # a thread that found the run over
    steps = loop.state.last_turn()
    by_id = {step.call.args[0]: step for step in steps}
    assert kind(by_id[ended.batch.id.encode()]) == "ack"
    assert b"count" in by_id[running.batch.id.encode()].call.args
    assert b"forget" in by_id[unseen.batch.id.encode()].call.args
    loop.state.replied(steps, [1, 1, 1], loop.now)
    assert sorted(word[0] for word in loop.told) == ["ack", "release", "release"]
    assert running.batch.settled
    loop.end(running, ValueError("it ended after all"))
    assert loop.state.last_turn() == []
    assert "after it had settled" in caplog.text


def test_a_batch_that_comes_after_the_stop_is_given_back_uncounted() -> None:
    """Its reserve was under way."""
    loop = Loop()
    steps = loop.turn()
    loop.ending.stop(loop.now)
    assert loop.state.replied(steps, [[batch("b")]], loop.now) == []
    assert loop.words() == ["release"]
    assert b"forget" in loop.turn()[0].call.args
    loop.reply(1)
    assert loop.finished


def test_a_reserve_whose_reply_was_lost_is_given_back_at_the_end() -> None:
    """By its lease's id; usually there is no such lease, and nobody is told."""
    loop = Loop()
    name = loop.turn()[0].call.lease_id
    loop.fail(GONE)
    loop.ending.stop(loop.now)
    assert loop.finished
    (step,) = loop.state.last_turn()
    assert step.call.args[0] == str(name).encode()
    assert b"forget" in step.call.args
    loop.state.replied([step], [LeaseLost("never was")], loop.now)
    assert loop.told == []


def test_what_cannot_be_given_back_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """By name, with what was to be done."""
    loop = Loop(concurrency=2)
    (ended,) = loop.reply("batch")
    (running,) = loop.reply("batch")
    loop.end(ended)
    loop.state.last_turn()
    loop.state.abandoned(GONE)
    assert f"could not ack batch {ended.batch.id}" in caplog.text
    assert f"could not release batch {running.batch.id}" in caplog.text


@pytest.mark.parametrize(
    ("requests", "at"),
    [
        ([("stop", 0)], GRACE),
        ([("stop", 0), ("stop", 0.001)], 0.001),
        ([("signal", 0)], GRACE),
        ([("signal", 0), ("signal", 0.001)], GRACE),
        ([("signal", 0), ("signal", SAME_SIGNAL - 0.001)], GRACE),
        ([("signal", 0), ("signal", SAME_SIGNAL)], SAME_SIGNAL),
        ([("signal", 0), ("signal", 0.6), ("signal", 1.2)], 1.2),
        ([("signal", 0), ("signal", 1.2), ("signal", 2.4)], 1.2),
        ([("signal", 0), ("stop", 3)], GRACE),
        ([("stop", 0), ("signal", 3)], GRACE),
        ([("stop", 0), ("signal", 3), ("signal", 5)], 5),
        ([("ask", 0), ("ask", 3)], GRACE),
        ([("ask", 0), ("end", 3)], 3),
        ([("end", 3), ("stop", 4)], 3),
    ],
)
def test_when_the_grace_ends(requests: list[tuple[str, float]], at: float) -> None:
    """The second stop ends it, and a signal that is not the same request as the first."""
    ending = Ending(GRACE)
    assert not ending.asked
    for word, now in requests:
        getattr(ending, word)(now)
        assert ending.asked
    assert ending.at == at


def test_max_batches_ends_the_run() -> None:
    """No more are asked for than are left; it is over when the last has been settled, and sleeps until then."""
    loop = Loop(concurrency=10, max_batches=2)
    (first,) = loop.reply("batch")
    assert loop.words() == ["reserve"]
    (second,) = loop.reply("batch")
    assert loop.words() == []
    assert loop.next == LEASE / 3
    assert loop.state.wait_seconds(loop.now) is None
    loop.end(first)
    loop.end(second)
    loop.reply(1, 1)
    assert loop.finished


def test_a_burst_ends_where_there_is_nothing() -> None:
    """When its own handlers have ended, and what they released at once has been looked for."""
    loop = Loop(concurrency=2, burst=True)
    assert not loop.finished
    (held,) = loop.reply("batch")
    loop.reply([Nothing(3600.0)])
    assert not loop.finished
    assert loop.state.wait_seconds(loop.now) is None
    assert loop.next == 1.0  # its handler may push more
    loop.end(held, Retry(0.0))
    assert loop.words() == ["release", "reserve"]
    loop.reply(1, None)
    assert not loop.finished  # the release may have been sent again, after the reserve
    assert loop.words() == ["reserve"]
    loop.reply(None)
    assert loop.finished


def test_a_burst_does_not_end_while_something_is_due() -> None:
    """A reply that names 0, or only the dead."""
    loop = Loop(burst=True)
    for result in ([Buried("x", "g")], [Nothing(0.0)], [Nothing(ended=True)]):
        loop.reply(result)
        assert not loop.finished
        assert loop.words() == ["reserve"]
    loop.reply([Nothing(0.001)])
    loop.now = 1.0
    assert loop.finished


# -- handler_timeout


def test_a_thread_that_takes_too_long_loses_its_batch() -> None:
    """It is released as after an exception, its place stays taken until it ends, and then counts for nothing."""
    loop = Loop(concurrency=2, handler_timeout=4)
    (held,) = loop.reply("batch")
    loop.reply(None)
    assert loop.next == 4
    loop.now = 4
    assert loop.state.overdue(loop.now) == []
    step = loop.turn()[0]
    assert kind(step) == "release"
    assert b"count" in step.call.args
    assert any(isinstance(arg, bytes) and arg.startswith(b"TimeoutError: ") for arg in step.call.args)
    loop.reply(1)
    assert isinstance(loop.told[0][2], TimeoutError)
    assert loop.state._places() == 1
    loop.now = LEASE
    assert loop.words() == ["reserve"]  # and no extension
    loop.reply(None)
    loop.end(held)
    assert loop.state._places() == 2
    assert loop.words() == []
    assert loop.state.failure is None


def test_when_all_are_stuck_the_run_ends_with_an_error() -> None:
    """After their batches have been given back; it does not wait for them."""
    loop = Loop(concurrency=2, handler_timeout=4)
    loop.reply("batch")
    loop.now = 1.0
    loop.reply("batch")
    loop.now = 4.5
    loop.state.overdue(loop.now)
    assert loop.state.failure is None
    loop.now = 5.0
    loop.state.overdue(loop.now)
    assert isinstance(loop.state.failure, RedisqError)
    assert not loop.finished
    loop.reply(1, 1)
    assert loop.finished
    assert loop.state.last_turn() == []


def test_a_stop_does_not_wait_for_those_that_are_stuck() -> None:
    """Their batches are with others already."""
    loop = Loop(concurrency=2, handler_timeout=4)
    loop.reply("batch")
    loop.now = 4.0
    loop.state.overdue(loop.now)
    loop.ending.stop(loop.now)
    loop.reply(1)
    assert loop.finished
    assert loop.state.last_turn() == []


def test_how_a_stuck_one_ends_changes_nothing() -> None:
    """Before its release was answered, too; and the end of the run does not release it once more."""
    for error in (None, ValueError("late")):
        loop = Loop(handler_timeout=4)
        (held,) = loop.reply("batch")
        loop.now = 4.0
        loop.state.overdue(loop.now)
        before = loop.turn()[0].call
        assert [step.call for step in loop.state.last_turn()] == [before]
        loop.end(held, error)
        assert loop.turn()[0].call is before


def test_a_task_that_takes_too_long_is_cancelled_first() -> None:
    """It has a little time to clean up; the lease is kept meanwhile."""
    loop = Loop(can_cancel=True, handler_timeout=LEASE / 3)
    (held,) = loop.reply("batch")
    loop.now = LEASE / 3
    assert loop.state.overdue(loop.now) == [held]
    assert loop.state.overdue(loop.now) == []
    assert loop.words() == ["extend"]
    loop.end(held, loop.state.timeout_error())
    assert loop.words() == ["release", "reserve"]


def test_a_task_that_does_not_heed_it_is_given_up_like_a_thread() -> None:
    """Two seconds later."""
    loop = Loop(can_cancel=True, handler_timeout=4)
    (held,) = loop.reply("batch")
    loop.now = 4.0
    assert loop.state.overdue(loop.now) == [held]
    assert loop.next == 4 + CLOSE_SECONDS
    loop.now = 4 + CLOSE_SECONDS
    assert loop.state.overdue(loop.now) == []
    assert loop.words() == ["release"]
    assert isinstance(loop.state.failure, RedisqError)


def test_a_batch_that_was_settled_is_not_released_when_its_time_is_over() -> None:
    """The handler acked it, and goes on."""
    loop = Loop(concurrency=2, handler_timeout=4)
    (held,) = loop.reply("batch")
    held.batch.settled = True
    loop.reply(None)
    loop.now = 4.0
    loop.state.overdue(loop.now)
    assert loop.words() == []


# -- settings


@pytest.mark.parametrize(
    "settings",
    [
        {"concurrency": 0},
        {"concurrency": 10_001},
        {"grace": -1},
        {"grace": math.inf},
        {"handler_timeout": 0},
        {"max_batches": 0},
        {"max_batches": 1.5},
        {"backoff": 5},
        {"reason": "x"},
        {"on_dead": [print]},
    ],
    ids=str,
)
def test_settings_that_cannot_be_used_are_refused(settings: dict[str, Any]) -> None:
    """By name and value."""
    ((name, value),) = settings.items()
    with pytest.raises(InvalidArgument) as caught:
        Settings(**settings)
    assert str(caught.value).startswith(f"{name} is {value!r}:")


def test_hooks_are_not_async() -> None:
    """Nobody would await them."""

    async def hook(_: object) -> None: ...

    with pytest.raises(InvalidArgument, match="on_ack"):
        Settings(on_ack=hook)


@pytest.mark.parametrize(
    "arguments", [{"first": -1}, {"most": "x"}, {"factor": -1}, {"factor": 1001}, {"factor": math.nan}], ids=str
)
def test_a_backoff_that_cannot_be_made_is_refused(arguments: dict[str, Any]) -> None:
    """By name and value."""
    with pytest.raises(InvalidArgument, match=f"{next(iter(arguments))} is "):
        exponential(**arguments)


def test_prefetch_grows_with_plenty_and_ends_with_want() -> None:
    """One is asked for first, then twice as many as came, and one again when less came than was asked for."""
    prefetch = Prefetch()
    asked = []
    for taken in (1, 2, 4, 8, 16, 32, 64, 64, 3, 1, 0, 1):
        asked.append(prefetch.most)
        prefetch.record(prefetch.most, taken)
    assert asked == [1, 2, 4, 8, 16, 32, 64, 64, 64, 1, 2, 1]


def test_stopping_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """By the loop, not by the signal handler: a log takes locks."""
    caplog.set_level(logging.INFO, "redisq.worker")
    loop = Loop()
    loop.reply("batch")
    loop.ending.signal(loop.now)
    assert not caplog.records
    assert not loop.finished
    assert not loop.finished
    assert [record.message for record in caplog.records] == ["stopping: 1 batches in progress"]
