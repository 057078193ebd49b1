"""What watches a worker: it is told of each batch, of what became of it, and that the loop is alive."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest

from redisq import Bury, LeaseLost, Observer
from redisq.core.observer import ALIVE
from tests.queues.flavours import Flavour


class Recorder(Observer):
    """Keep all that an observer is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.seconds: list[float] = []

    def began(self, batch: Any) -> None:
        self.told.append(("began", *batch.items))

    def handled(self, batch: Any, seconds: float, error: BaseException | None) -> None:
        assert 0 <= seconds < 60
        self.told.append(("handled", *batch.items, type(error)))

    def settled(self, batch: Any, outcome: str) -> None:
        self.told.append((outcome, *batch.items))

    def buried(self, dead: list[Any]) -> None:
        self.told.append(("dead", len(dead)))

    def answered(self) -> None:
        if ("answered",) not in self.told:
            self.told.append(("answered",))

    def failed(self, error: Exception, kind: str) -> None:
        self.told.append(("failed", type(error).__name__, kind))

    def alive(self, seconds: float) -> None:
        self.seconds.append(seconds)


def watched(flavour: Flavour, handle: Any, *items: Any, **options: Any) -> Recorder:
    """Work items off, one by one, and return what an observer was told."""
    recorder = Recorder()
    buffer = flavour.buffer(max_attempts=1)
    flavour.do(buffer.push(*items))
    worker = flavour.worker(buffer, handle, size=1, **options)
    worker.observers.append(recorder)
    flavour.do(worker.run(burst=True))
    return recorder


NOTHING = type(None)


def test_each_batch_is_told_from_its_beginning_to_its_end(real: Flavour) -> None:
    def handle(batch: Any) -> None:
        if batch.items == ["bad"]:
            raise ValueError
        if batch.items == ["poison"]:
            raise Bury
        batch.fail_at(0) if batch.items == ["part"] else None

    recorder = watched(real, handle, "good", "poison", "bad")
    assert recorder.told[0] == ("answered",)
    told = {items[1]: [one for one in recorder.told if items[1] in one] for items in recorder.told if len(items) > 1}
    assert told["good"] == [("began", "good"), ("handled", "good", NOTHING), ("acked", "good")]
    assert told["poison"] == [("began", "poison"), ("handled", "poison", Bury), ("buried", "poison")]
    assert told["bad"] == [("began", "bad"), ("handled", "bad", ValueError), ("released", "bad")]
    assert recorder.told.count(("dead", 1)) == 2, recorder.told  # of its own accord, and because it has no attempt left
    assert not any(kind == "failed" for kind, *_ in recorder.told)


def test_what_the_handler_settles_itself_is_told(real: Flavour) -> None:
    """In a thread its own call has ended; a task's cannot be made from a plain function, so it is marked."""

    def handle(batch: Any) -> None:
        if real.name == "blocking":
            batch.ack()
        else:
            batch.settled = True

    assert watched(real, handle, "x").told[-1] == ("settled", "x")


def test_a_batch_that_another_worker_has_is_told(real: Flavour) -> None:
    def handle(_: Any) -> None:
        real.plain.flushdb()  # as a purge does

    assert ("lost", "x") in watched(real, handle, "x").told


def test_an_observer_that_fails_is_logged_and_changes_nothing(real: Flavour, caplog: pytest.LogCaptureFixture) -> None:
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
    assert ("acked", "x") in recorder.told
    assert [record.message for record in caplog.records if "hook" in record.message]
    assert real.do(buffer.stats()).done == 1


def test_the_loop_says_that_it_is_alive(real: Flavour, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while nothing happens: it is idle, with one handler running, until it has said so five times."""
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
    # Threads wait for Redis as long as it takes; of tasks the event loop says that it is alive, whatever they wait for.
    assert (math.inf in recorder.seconds) == (real.name == "blocking")
