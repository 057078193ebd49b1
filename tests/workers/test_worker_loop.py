"""The state machine of a worker, driven with results and times, without a server."""

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
    """A work loop with its own clock; replies are given as one word for each call."""

    def __init__(self, *, burst: bool = False, can_cancel: bool = False, calls: Any = None, **settings: Any) -> None:
        self.now = 0.0
        self.ending = Ending(GRACE)
        self.hook_calls: list[tuple[Any, ...]] = []
        hooks: dict[str, Any] = {
            "on_ack": lambda batch: self.hook_calls.append(("ack", batch.id)),
            "on_release": lambda batch, error: self.hook_calls.append(("release", batch.id, error)),
            "on_dead": lambda buried: self.hook_calls.append(("dead", *buried)),
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

    def call_names(self) -> list[str]:
        """Return the names of the calls of the next turn."""
        return [kind(step) for step in self.turn()]

    def reply(self, *results: Any) -> list[Held[Any]]:
        """Answer the next turn; `batch` grants a batch to a reserve, `None` means nothing for 5 s."""
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
    """Return one of the numbers that are packed into an argument."""
    (slot,) = (slot for slot in step.call.script.args if slot.name == "options")
    place = [one.name for one in slot.fields].index(name)
    packed: Any = step.call.args[step.call.script.args.index(slot)]
    return int(packed.split()[place])


CONNECTION_LOST = redis.ConnectionError("gone")
REFUSED = redis.ResponseError("ERR a script went wrong")


# -- turns


def test_one_item_costs_one_round_trip() -> None:
    """The ack of one batch is sent with the reserve of the next."""
    loop = Loop()
    (first,) = loop.reply("batch")
    assert loop.call_names() == []
    loop.end(first)
    assert loop.call_names() == ["ack", "reserve"]
    (second,) = loop.reply(1, "batch")
    assert second.batch.id != first.batch.id
    assert loop.hook_calls == [("ack", first.batch.id)]


def test_reserves_double_until_all_places_are_filled() -> None:
    """One reserve, then two, then four; fewer when fewer batches came; never more than there are free places."""
    loop = Loop(concurrency=6)
    assert loop.call_names() == ["reserve"]
    loop.reply("batch")
    assert loop.call_names() == ["reserve"] * 2
    held = loop.reply("batch", "batch")
    assert loop.call_names() == ["reserve"] * 3
    loop.reply("batch", "batch", "batch")
    assert loop.call_names() == []
    loop.end(held[0])
    assert loop.call_names() == ["ack", "reserve"]


def test_an_empty_queue_is_waited_on_until_a_wake_up_or_the_retry_time() -> None:
    """The time comes from the reply; a blocking wait is only made while a place is free."""
    loop = Loop(concurrency=2)
    assert loop.state.wait_seconds(0) is None
    (held,) = loop.reply("batch")
    loop.reply(None)
    assert loop.call_names() == []
    assert (loop.next, loop.state.wait_seconds(0)) == (5.0, 5.0)
    loop.state.waiting = True
    assert loop.state.wait_seconds(0) is None
    loop.now = 6.0
    assert (loop.call_names(), loop.next) == ([], LEASE / 3)  # about to be woken: reserve then
    loop.now = 2.0
    loop.state.wait_ended(None, loop.now)
    assert loop.call_names() == ["reserve"]
    loop.reply(None)
    loop.now = 7.0
    assert loop.call_names() == ["reserve"]
    loop.reply("batch")
    assert loop.state.wait_seconds(loop.now) is None  # no free place
    assert loop.next == LEASE / 3
    loop.end(held)
    loop.reply(1, None)
    assert loop.state.wait_seconds(loop.now) == 5.0


def test_a_burial_is_reported_and_followed_by_another_reserve(caplog: pytest.LogCaptureFixture) -> None:
    """The reply names the buried batch and no retry time; the log says why it died, on one line."""
    loop = Loop()
    died = Buried("id", "g", 3, "poison\n  and worse")
    loop.reply([died])
    (logged,) = caplog.messages
    assert logged.endswith(": batch id of group 'g', attempt 3: poison and worse")
    assert loop.hook_calls == [("dead", died)]
    assert loop.call_names() == ["reserve"]


def test_a_reserve_whose_lease_has_ended_is_replaced() -> None:
    """When it is sent again after a lost reply, its lease may be over."""
    loop = Loop()
    before = loop.turn()[0].call.lease_id
    loop.reply([Nothing(ended=True)])
    after = loop.turn()[0].call.lease_id
    assert after is not None
    assert after != before


def test_the_lease_is_extended_after_a_third() -> None:
    """And again a third later, but not once the handler has ended."""
    loop = Loop()
    (held,) = loop.reply("batch")
    assert loop.next == LEASE / 3
    loop.now = LEASE / 3
    assert loop.call_names() == ["extend"]
    loop.reply(123_000)
    assert held.batch.deadline == 123
    assert (loop.call_names(), loop.next) == ([], 2 * LEASE / 3)
    loop.now = 2 * LEASE / 3
    loop.end(held)
    assert loop.call_names() == ["ack", "reserve"]


def test_due_leases_are_extended_in_one_turn() -> None:
    loop = Loop(concurrency=3)
    loop.reply("batch")
    loop.now = 2.0
    loop.reply("batch", "batch")
    loop.now = LEASE / 3 + 1
    assert loop.call_names() == ["extend"]
    loop.now = LEASE / 3 + 2
    assert loop.call_names() == ["extend"] * 3


def test_a_lost_lease_is_confirmed_by_a_second_look(caplog: pytest.LogCaptureFixture) -> None:
    """The handler may just be acking its batch in another thread; if it is not, the batch is marked as lost."""
    loop = Loop()
    (held,) = loop.reply("batch")
    loop.now = LEASE / 3
    loop.reply(LeaseLost("gone"))
    assert not held.batch.lost
    loop.now += 1
    assert loop.call_names() == ["extend"]
    loop.reply(LeaseLost("gone"))
    assert held.batch.lost
    assert held.batch.settled
    assert "lost before its handler ended" in caplog.text
    loop.now += LEASE
    assert loop.call_names() == []
    assert loop.next == math.inf
    loop.end(held, ValueError("its work was for nothing"))
    assert loop.call_names() == ["reserve"]
    assert "after it had lost batch" in caplog.text


def test_a_batch_that_its_handler_settled_is_not_lost(caplog: pytest.LogCaptureFixture) -> None:
    """The extension arrived after the ack."""
    loop = Loop()
    (held,) = loop.reply("batch")
    loop.now = LEASE / 3
    loop.reply(LeaseLost("settled"))
    held.batch.settled = True
    loop.now += 1
    assert loop.call_names() == []
    loop.end(held)
    assert loop.call_names() == ["reserve"]
    assert not held.batch.lost
    assert not caplog.records


def test_settling_a_batch_with_a_lost_lease_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """No hook is called."""
    loop = Loop()
    (held,) = loop.reply("batch")
    loop.end(held)
    loop.reply(LeaseLost("gone"), None)
    assert held.batch.lost
    assert "lost before ack" in caplog.text
    assert loop.hook_calls == []


# -- outcomes of a batch


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
def test_what_an_exception_does_to_the_batch(
    error: BaseException, verb: str, delay: int | None, count: bytes | None, reason: bytes
) -> None:
    """A release with the backoff, or what `Retry` or `Bury` asks for."""
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


def test_failed_items_come_back_after_the_backoff() -> None:
    """The ack of the others carries it."""
    loop = Loop()
    (held,) = loop.reply("batch")
    held.batch.fail("y")
    loop.end(held)
    step = loop.turn()[0]
    assert kind(step) == "ack"
    assert option(step, "delay") == 7_000
    assert step.call.args[-1] == 1


@pytest.mark.parametrize("count", [True, False])
def test_the_last_attempt_is_released_without_backoff(count: bool) -> None:
    """Unless the release does not count as an attempt."""
    loop = Loop(calls=BufferCalls("q", max_attempts=1))
    (held,) = loop.reply("batch")
    loop.end(held, Retry(count=count))
    assert option(loop.turn()[0], "delay") == (0 if count else 7_000)


def test_hooks_are_called_once_the_settlement_is_answered() -> None:
    """Each with its own outcome; a burial names the batch, or each member."""
    for calls, group in ((BufferCalls("q"), "g"), (PriorityCalls("q"), None)):
        loop = Loop(calls=calls)
        errors = [None, ValueError("bad"), Bury("never")]
        for name, error in zip("arb", errors, strict=True):
            (held,) = loop.reply(*[1] * (len(loop.turn()) - 1), [batch(name, group=group)])
            loop.end(held, error)
        loop.reply(1, None)
        dead = [Buried("b", "g", 1, "never")] if group else [Buried("x", reason="never"), Buried("y", reason="never")]
        assert loop.hook_calls == [("ack", "a"), ("release", "r", errors[1]), ("dead", *dead)]


@pytest.mark.parametrize("group", ["g", None])
def test_a_burial_without_a_reason_keeps_the_previous_one(group: str | None) -> None:
    """The reason why the batch came back before."""
    loop = Loop(calls=BufferCalls("q") if group else PriorityCalls("q"))
    came_back = batch("b", group=group)
    came_back.reason = "before"
    (held,) = loop.reply([came_back])
    loop.end(held, Bury())
    loop.reply(1, None)
    assert {buried.reason for buried in loop.hook_calls[0][1:]} == {"before"}


def test_a_batch_that_cannot_be_decoded_is_released(caplog: pytest.LogCaptureFixture) -> None:
    """No handler sees it, and the other batches of the turn are handed out."""
    loop = Loop(concurrency=4)
    loop.reply("batch")
    error = CodecError("cannot decode", raw=batch("bad"))
    begun = loop.reply(error, "batch")
    assert len(begun) == 1
    assert loop.call_names() == ["release", "reserve"]  # fewer came than were asked for
    assert option(loop.turn()[0], "delay") == 7_000
    loop.reply(1, None)
    assert loop.hook_calls == [("release", "bad", error)]
    assert "cannot be decoded" in caplog.text


@pytest.mark.parametrize("seconds", [-1, math.nan, "soon", ZeroDivisionError()], ids=repr)
def test_an_invalid_backoff_is_replaced_by_the_default(seconds: Any, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and neither the batch nor the worker is lost."""

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
def test_the_reason_comes_from_the_reason_function(reason: Any, kept: bytes) -> None:
    """At most 1,000 bytes of it; if the function fails, only the exception's class, as its message may hold secrets."""
    loop = Loop(reason=reason)
    (held,) = loop.reply("batch")
    loop.end(held, ValueError("password"))
    assert kept in loop.turn()[0].call.args
    assert not any(isinstance(arg, bytes) and b"password" in arg for arg in loop.turn()[0].call.args)


def test_a_failing_hook_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    loop = Loop()
    object.__setattr__(loop.state._settings, "on_ack", lambda _: 1 / 0)
    (held,) = loop.reply("batch")
    loop.end(held)
    loop.reply(1, "batch")
    assert "hook" in caplog.text


# -- errors


def test_unanswered_calls_are_sent_again_unchanged() -> None:
    """Settlements, extensions and reserves, with the same lease ids, after pauses that grow."""
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
        loop.fail(CONNECTION_LOST)
        assert loop.call_names() == []
        assert loop.state.wait_seconds(loop.now) is None
        pauses.append(loop.next - loop.now)
        loop.now = loop.next
        assert [step.call for step in loop.turn()] == calls
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5])
    loop.reply(1, 2000, None)
    assert loop.hook_calls == [("ack", first.batch.id)]
    loop.end(second)
    loop.fail(CONNECTION_LOST)
    assert loop.next - loop.now == pytest.approx(0.1)


def test_stop_and_timeouts_apply_during_the_pause_between_retries() -> None:
    """An unavailable Redis does not delay the end, and no blocking wait is sent to it."""
    loop = Loop(concurrency=2, handler_timeout=1.05)
    (held,) = loop.reply("batch")
    loop.reply(None)
    loop.now = 1.0
    held.extend_at = loop.state._extend_at = 1.0
    loop.fail(CONNECTION_LOST)
    assert loop.state.wait_seconds(loop.now) is None
    assert loop.next == 1.05
    loop.ending.end(1.01)
    assert loop.next == 1.01
    loop.now = 1.01
    assert loop.finished


@pytest.mark.parametrize("order", ["poison first", "poison last"])
def test_a_refused_call_does_not_hold_up_the_others(order: str) -> None:
    """After an error reply to one of them, each call is sent alone, and the refused one last."""
    loop = Loop(concurrency=3)
    loop.reply("batch")
    loop.reply("batch", "batch")
    held = list(loop.state._running.values())
    poison = held[0] if order == "poison first" else held[-1]
    for one in held:
        loop.end(one)
    hook_calls = []
    for _ in range(20):
        steps = loop.turn()
        if any(step.held is poison for step in steps):
            loop.fail(REFUSED)
            loop.now = loop.next
        else:
            loop.reply(*(None if step.held is None else 1 for step in steps))
        hook_calls = [word[1] for word in loop.hook_calls]
    assert set(hook_calls) == {one.batch.id for one in held} - {poison.batch.id}


def test_a_refused_reserve_does_not_hold_up_an_ack() -> None:
    """The ack that was sent with it is sent alone in the next turn, and its hook is called."""
    loop = Loop()
    (held,) = loop.reply("batch")
    loop.end(held)
    loop.fail(REFUSED)
    loop.now = loop.next
    assert loop.call_names() == ["ack"]
    loop.reply(1)
    assert loop.hook_calls == [("ack", held.batch.id)]
    assert loop.call_names() == ["reserve"]
    loop.fail(REFUSED)
    loop.now = loop.next
    loop.reply("batch")
    assert loop.state.failure is None


def test_a_refused_extension_lets_the_others_go_first() -> None:
    """It is tried again a second later."""
    loop = Loop(concurrency=2)
    loop.reply("batch")
    loop.reply(None)
    loop.now = LEASE / 3
    assert loop.call_names() == ["extend", "reserve"]
    loop.fail(REFUSED)
    loop.now = loop.next
    assert loop.call_names() == ["extend"]
    loop.fail(REFUSED)
    loop.now = loop.next
    assert loop.call_names() == ["reserve"]
    loop.reply(None)
    loop.now += 1
    assert loop.call_names() == ["extend"]


@pytest.mark.parametrize(
    "error",
    [
        CONNECTION_LOST,
        redis.TimeoutError("slow"),
        OSError("no route"),
        NotDurable("0 of 1"),
        redis.BusyLoadingError("loading"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_temporary_errors_are_waited_out(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    loop = Loop()
    loop.fail(error)
    assert loop.state.failure is None
    assert not loop.finished
    assert "Redis is unavailable" in caplog.text


def test_an_exhausted_pool_is_not_logged_as_an_outage(caplog: pytest.LogCaptureFixture) -> None:
    """It is this process that has no connection left."""
    loop = Loop()
    loop.fail(redis.ConnectionError("Too many connections"))
    assert "no free connection" in caplog.text
    assert "unavailable" not in caplog.text
    assert not loop.finished


@pytest.mark.parametrize(
    "error", [WrongOrder("score"), redis.AuthenticationError("WRONGPASS"), ZeroDivisionError()], ids=repr
)
def test_a_permanent_error_ends_the_run_in_order(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """No more reserves; running handlers get their grace, and their acks are tried; it is logged once."""
    loop = Loop(concurrency=2)
    (held,) = loop.reply("batch")
    loop.fail(error)
    assert loop.state.failure is error
    assert not loop.finished
    loop.end(held)
    loop.now = loop.next
    assert loop.call_names() == ["ack"]
    loop.fail(error)
    loop.now = loop.next
    assert not loop.finished
    assert loop.call_names() == ["ack"]
    loop.reply(1)
    assert loop.finished
    assert len([record for record in caplog.records if "cannot go on" in record.message]) == 1
    if isinstance(error, redis.AuthenticationError) and hasattr(error, "__notes__"):
        assert "password" in error.__notes__[0]


def test_a_failed_wait_is_not_repeated_at_once() -> None:
    """Reserves go on meanwhile, with growing pauses until a wait succeeds."""
    loop = Loop()
    pauses = []
    for _ in range(3):
        loop.reply(None)
        assert loop.state.wait_seconds(loop.now) == 5.0
        loop.state.wait_ended(redis.ConnectionError("max number of clients reached"), loop.now)
        assert loop.state.wait_seconds(loop.now) is None
        pauses.append(loop.next - loop.now)
        loop.now = loop.next
        assert loop.call_names() == ["reserve"]
    assert pauses == pytest.approx([0.1, 0.2, 0.4])
    loop.reply(None)
    loop.state.wait_ended(None, loop.now)
    loop.reply(None)
    loop.state.wait_ended(CONNECTION_LOST, loop.now)
    assert loop.next - loop.now == pytest.approx(0.1)


def test_a_wait_that_is_refused_permanently_ends_the_run() -> None:
    """Like a turn that is refused."""
    loop = Loop()
    loop.reply(None)
    loop.state.wait_ended(redis.AuthenticationError("WRONGPASS"), loop.now)
    assert loop.finished
    assert isinstance(loop.state.failure, redis.AuthenticationError)


# -- stopping


def test_stop_lets_handlers_finish() -> None:
    """Nothing new begins, running batches are settled, then the run is over."""
    loop = Loop(concurrency=2)
    (held,) = loop.reply("batch")
    loop.reply(None)
    assert loop.state.wait_seconds(loop.now) == 5.0
    loop.ending.stop(loop.now)
    assert loop.call_names() == []
    assert loop.state.wait_seconds(loop.now) is None
    assert (loop.finished, loop.next) == (False, LEASE / 3)
    loop.now = LEASE / 3
    assert loop.call_names() == ["extend"]
    loop.reply(1000)
    assert loop.call_names() == []
    assert loop.next > loop.now
    loop.end(held)
    assert loop.next == loop.now
    assert not loop.finished
    loop.reply(1)
    assert loop.finished
    assert loop.state.last_turn(loop.now) == []


def test_held_batches_are_released_after_the_grace(caplog: pytest.LogCaptureFixture) -> None:
    """A batch that no handler saw does not count an attempt; settlements that are due are made."""
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
    loop.end(unseen)  # a thread that notices the end of the run
    steps = loop.state.last_turn(loop.now)
    by_id = {step.call.args[0]: step for step in steps}
    assert kind(by_id[ended.batch.id.encode()]) == "ack"
    assert b"count" in by_id[running.batch.id.encode()].call.args
    assert b"forget" in by_id[unseen.batch.id.encode()].call.args
    loop.state.replied(steps, [1, 1, 1], loop.now)
    assert sorted(word[0] for word in loop.hook_calls) == ["ack", "release", "release"]
    assert running.batch.settled
    loop.end(running, ValueError("it ended after all"))
    assert loop.state.last_turn(loop.now) == []
    assert "after it had settled" in caplog.text


def test_a_batch_that_arrives_after_stop_is_released_without_an_attempt() -> None:
    """Its reserve was under way."""
    loop = Loop()
    steps = loop.turn()
    loop.ending.stop(loop.now)
    assert loop.state.replied(steps, [[batch("b")]], loop.now) == []
    assert loop.call_names() == ["release"]
    assert b"forget" in loop.turn()[0].call.args
    loop.reply(1)
    assert loop.finished


def test_a_reserve_with_a_lost_reply_is_released_at_the_end() -> None:
    """By its lease id; usually there is no such lease, and no hook is called."""
    loop = Loop()
    name = loop.turn()[0].call.lease_id
    loop.fail(CONNECTION_LOST)
    loop.ending.stop(loop.now)
    assert loop.finished
    (step,) = loop.state.last_turn(loop.now)
    assert step.call.args[0] == str(name).encode()
    assert b"forget" in step.call.args
    loop.state.replied([step], [LeaseLost("never was")], loop.now)
    assert loop.hook_calls == []


def test_a_batch_that_cannot_be_released_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """With its id and the call that failed."""
    loop = Loop(concurrency=2)
    (ended,) = loop.reply("batch")
    (running,) = loop.reply("batch")
    loop.end(ended)
    loop.state.last_turn(loop.now)
    loop.state.abandoned(CONNECTION_LOST)
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
    """At a second stop, or at a second signal that is not part of the first request."""
    ending = Ending(GRACE)
    assert not ending.asked
    for word, now in requests:
        getattr(ending, word)(now)
        assert ending.asked
    assert ending.at == at


def test_max_batches_ends_the_run() -> None:
    """No more batches are reserved than allowed; the run ends when the last one is settled, and sleeps until then."""
    loop = Loop(concurrency=10, max_batches=2)
    (first,) = loop.reply("batch")
    assert loop.call_names() == ["reserve"]
    (second,) = loop.reply("batch")
    assert loop.call_names() == []
    assert loop.next == LEASE / 3
    assert loop.state.wait_seconds(loop.now) is None
    loop.end(first)
    loop.end(second)
    loop.reply(1, 1)
    assert loop.finished


def test_a_burst_ends_when_the_queue_is_empty() -> None:
    """Once its handlers have ended, and a last reserve has looked for what they released."""
    loop = Loop(concurrency=2, burst=True)
    assert not loop.finished
    (held,) = loop.reply("batch")
    loop.reply([Nothing(3600.0)])
    assert not loop.finished
    assert loop.state.wait_seconds(loop.now) is None
    assert loop.next == 1.0  # its handler may push more
    loop.end(held, Retry(0.0))
    assert loop.call_names() == ["release", "reserve"]
    loop.reply(1, None)
    assert not loop.finished  # the release may have been sent again, after the reserve
    assert loop.call_names() == ["reserve"]
    loop.reply(None)
    assert loop.finished


def test_a_burst_goes_on_while_something_is_due() -> None:
    """A reply with retry time 0, or with burials only."""
    loop = Loop(burst=True)
    for result in ([Buried("x", "g")], [Nothing(0.0)], [Nothing(ended=True)]):
        loop.reply(result)
        assert not loop.finished
        assert loop.call_names() == ["reserve"]
    loop.reply([Nothing(0.001)])
    loop.now = 1.0
    assert loop.finished


# -- handler_timeout


def test_a_thread_that_times_out_loses_its_batch() -> None:
    """It is released as after an exception; its place stays taken until the thread ends, whose result is ignored."""
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
    assert isinstance(loop.hook_calls[0][2], TimeoutError)
    assert loop.state._places() == 1
    loop.now = LEASE
    assert loop.call_names() == ["reserve"]  # and is not extended
    loop.reply(None)
    loop.end(held)
    assert loop.state._places() == 2
    assert loop.call_names() == []
    assert loop.state.failure is None


def test_the_run_ends_with_an_error_when_all_threads_are_stuck() -> None:
    """After their batches are released; it does not wait for them."""
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
    assert loop.state.last_turn(loop.now) == []


def test_stop_does_not_wait_for_stuck_threads() -> None:
    """Their batches have been released already."""
    loop = Loop(concurrency=2, handler_timeout=4)
    loop.reply("batch")
    loop.now = 4.0
    loop.state.overdue(loop.now)
    loop.ending.stop(loop.now)
    loop.reply(1)
    assert loop.finished
    assert loop.state.last_turn(loop.now) == []


def test_the_end_of_a_stuck_thread_changes_nothing() -> None:
    """Not even before its release is answered; and the end of the run does not release the batch once more."""
    for error in (None, ValueError("late")):
        loop = Loop(handler_timeout=4)
        (held,) = loop.reply("batch")
        loop.now = 4.0
        loop.state.overdue(loop.now)
        before = loop.turn()[0].call
        assert [step.call for step in loop.state.last_turn(loop.now)] == [before]
        loop.end(held, error)
        assert loop.turn()[0].call is before


def test_a_task_that_times_out_is_cancelled() -> None:
    """It has a moment to clean up, during which its lease is extended."""
    loop = Loop(can_cancel=True, handler_timeout=LEASE / 3)
    (held,) = loop.reply("batch")
    loop.now = LEASE / 3
    assert loop.state.overdue(loop.now) == [held]
    assert loop.state.overdue(loop.now) == []
    assert loop.call_names() == ["extend"]
    loop.end(held, loop.state.timeout_error())
    assert loop.call_names() == ["release", "reserve"]


def test_a_task_that_ignores_its_cancellation_is_abandoned() -> None:
    """Two seconds later, like a thread."""
    loop = Loop(can_cancel=True, handler_timeout=4)
    (held,) = loop.reply("batch")
    loop.now = 4.0
    assert loop.state.overdue(loop.now) == [held]
    assert loop.next == 4 + CLOSE_SECONDS
    loop.now = 4 + CLOSE_SECONDS
    assert loop.state.overdue(loop.now) == []
    assert loop.call_names() == ["release"]
    assert isinstance(loop.state.failure, RedisqError)


def test_a_settled_batch_is_not_released_on_timeout() -> None:
    """The handler acked it, and is still running."""
    loop = Loop(concurrency=2, handler_timeout=4)
    (held,) = loop.reply("batch")
    held.batch.settled = True
    loop.reply(None)
    loop.now = 4.0
    loop.state.overdue(loop.now)
    assert loop.call_names() == []


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
def test_invalid_settings_are_refused(settings: dict[str, Any]) -> None:
    """The error names the setting and its value."""
    ((name, value),) = settings.items()
    with pytest.raises(InvalidArgument) as caught:
        Settings(**settings)
    assert str(caught.value).startswith(f"{name} is {value!r}:")


def test_async_hooks_are_refused() -> None:
    """Nothing would await them."""

    async def hook(_: object) -> None: ...

    with pytest.raises(InvalidArgument, match="on_ack"):
        Settings(on_ack=hook)


@pytest.mark.parametrize(
    "arguments", [{"first": -1}, {"most": "x"}, {"factor": -1}, {"factor": 1001}, {"factor": math.nan}], ids=str
)
def test_an_invalid_backoff_is_refused(arguments: dict[str, Any]) -> None:
    """The error names the argument and its value."""
    with pytest.raises(InvalidArgument, match=f"{next(iter(arguments))} is "):
        exponential(**arguments)


def test_prefetch_doubles_and_resets() -> None:
    """It starts at one, doubles while as many came as were asked for, and goes back to one when fewer came."""
    prefetch = Prefetch()
    asked = []
    for taken in (1, 2, 4, 8, 16, 32, 64, 64, 3, 1, 0, 1):
        asked.append(prefetch.most)
        prefetch.record(prefetch.most, taken)
    assert asked == [1, 2, 4, 8, 16, 32, 64, 64, 64, 1, 2, 1]


def test_stopping_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """By the loop, not by the signal handler, because logging takes locks."""
    caplog.set_level(logging.INFO, "redisq.worker")
    loop = Loop()
    loop.reply("batch")
    loop.ending.signal(loop.now)
    assert not caplog.records
    assert not loop.finished
    assert not loop.finished
    assert [record.message for record in caplog.records] == ["stopping: 1 batches in progress"]
