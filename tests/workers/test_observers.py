"""Observers of a worker: they are called for each batch, for its outcome, and while the loop is alive."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from typing import Any

import pytest

from redisq import Bury, LeaseLost, Observer
from redisq.core.observer import ALIVE
from tests.queues.flavours import Flavour


class Recorder(Observer):
    """A record of all calls to an observer."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.seconds: list[float] = []

    def began(self, batch: Any) -> None:
        self.calls.append(("began", *batch.items))

    def handled(self, batch: Any, seconds: float, error: BaseException | None) -> None:
        assert 0 <= seconds < 60
        self.calls.append(("handled", *batch.items, type(error)))

    def settled(self, batch: Any, outcome: str) -> None:
        self.calls.append((outcome, *batch.items))

    def buried(self, dead: list[Any]) -> None:
        self.calls.append(("dead", len(dead)))

    def answered(self) -> None:
        if ("answered",) not in self.calls:
            self.calls.append(("answered",))

    def failed(self, error: Exception, kind: str) -> None:
        self.calls.append(("failed", type(error).__name__, kind))

    def alive(self, seconds: float) -> None:
        self.seconds.append(seconds)


def run_observed(flavour: Flavour, handle: Any, *items: Any, **options: Any) -> Recorder:
    """Process items one by one, and return what an observer recorded."""
    recorder = Recorder()
    buffer = flavour.buffer(max_attempts=1)
    flavour.do(buffer.push(*items))
    worker = flavour.worker(buffer, handle, size=1, **options)
    worker.observers.append(recorder)
    flavour.do(worker.run(burst=True))
    return recorder


NOTHING = type(None)


def test_each_batch_is_reported_from_its_beginning_to_its_end(real: Flavour) -> None:
    def handle(batch: Any) -> None:
        if batch.items == ["bad"]:
            raise ValueError
        if batch.items == ["poison"]:
            raise Bury
        batch.fail_at(0) if batch.items == ["part"] else None

    recorder = run_observed(real, handle, "good", "poison", "bad")
    assert recorder.calls[0] == ("answered",)
    calls = {items[1]: [one for one in recorder.calls if items[1] in one] for items in recorder.calls if len(items) > 1}
    assert calls["good"] == [("began", "good"), ("handled", "good", NOTHING), ("acked", "good")]
    assert calls["poison"] == [("began", "poison"), ("handled", "poison", Bury), ("buried", "poison")]
    assert calls["bad"] == [("began", "bad"), ("handled", "bad", ValueError), ("released", "bad")]
    assert recorder.calls.count(("dead", 1)) == 2, recorder.calls  # once by Bury, and once without an attempt left
    assert not any(kind == "failed" for kind, *_ in recorder.calls)


def test_a_batch_that_the_handler_settles_itself_is_reported(real: Flavour) -> None:
    """A thread calls `ack`; a plain function cannot await the task's `ack`, so the batch is marked as settled."""

    def handle(batch: Any) -> None:
        if real.name == "blocking":
            batch.ack()
        else:
            batch.settled = True

    assert run_observed(real, handle, "x").calls[-1] == ("settled", "x")


def test_a_batch_that_is_lost_is_reported(real: Flavour) -> None:
    def handle(_: Any) -> None:
        real.plain.flushdb()  # as a purge does

    assert ("lost", "x") in run_observed(real, handle, "x").calls


def test_a_failing_observer_is_logged_and_changes_nothing(real: Flavour, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Recorder):
        def settled(self, batch: Any, outcome: str) -> None:  # noqa: ARG002
            raise LeaseLost("mine")

    buffer = real.buffer()
    real.do(buffer.push("x"))
    worker = real.worker(buffer, lambda _: None)
    recorder = Recorder()
    worker.observers += [Broken(), recorder]
    with caplog.at_level(logging.ERROR):
        real.do(worker.run(burst=True))
    assert ("acked", "x") in recorder.calls
    assert [record.message for record in caplog.records if "hook" in record.message]
    assert real.do(buffer.stats()).done == 1


def test_the_loop_reports_that_it_is_alive(real: Flavour, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while it is idle."""
    monkeypatch.setattr(f"redisq.{real.name}.worker.BEAT", 0.01)

    class Beats(Recorder):
        def alive(self, seconds: float) -> None:
            super().alive(seconds)
            if len(self.seconds) > 20:
                worker.stop()

    recorder = Beats()
    worker = real.worker(real.buffer(), lambda _: None)
    worker.observers.append(recorder)
    real.do(worker.run())
    assert set(recorder.seconds) <= {ALIVE, math.inf}
    # Threads may block on Redis for any time; with tasks, the event loop is alive whatever they wait for.
    assert (math.inf in recorder.seconds) == (real.name == "blocking")


def test_a_handler_that_is_given_up_is_told_to_have_ended(real: Flavour) -> None:
    """Once, though it ends later: else what counts the handlers that run would drift."""
    began, may_end, recorder = threading.Event(), threading.Event(), Recorder()

    def handle(_: Any) -> None:
        began.set()
        if real.name == "blocking":
            may_end.wait(20)

    async def handle_async(batch: Any) -> None:
        handle(batch)
        await asyncio.sleep(60)

    buffer = real.buffer()
    real.do(buffer.push("x"))
    worker = real.library.Worker(buffer, handle if real.name == "blocking" else handle_async, grace=0)
    worker.observers.append(recorder)
    running = real.begin(worker.run)
    assert began.wait(20)
    worker.stop()
    running.result(20)
    may_end.set()
    assert [one for one in recorder.calls if one[0] == "handled"] == [("handled", "x", TimeoutError)]
    assert recorder.calls[-1] == ("released", "x")
