"""How long calls block the server: measured calls do their work, every script has one, and long ones fail the check."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import pytest

from benchmarks.growth import blocking_time
from benchmarks.growth.blocking_time import LONG_CALLS, NEAREST, RULER_MS, TARGET_MS, TOLERANCE, LongCall
from benchmarks.growth.calls import ask, load_all
from benchmarks.instructions import __main__ as check
from redisq.core.scripts import names
from redisq.embedded import Server

EXPECTED = {  # the beginning of an answer that is not a positive number or a non-empty list
    "buffer/reserve": re.compile(rb"batch|buried"),
    "priority/reserve": re.compile(rb"batch|none"),  # none: expired leases were ended, call again
    "priority/push": re.compile(rb"[ARCK]{500}"),
    "priority/state": re.compile(rb"dead"),
}


def test_every_script_has_a_long_call() -> None:
    """No call is listed twice."""
    assert {one.script for one in LONG_CALLS} == set(names())
    assert len({(one.script, one.call) for one in LONG_CALLS}) == len(LONG_CALLS)


@pytest.mark.parametrize("one", LONG_CALLS, ids=str)
def test_every_long_call_does_its_work(one: LongCall, server: Server) -> None:
    """The state is as its name says, so the call finds something to do."""
    with server.client() as client:
        client.flushall()
        load_all(client)
        reply = ask(client, *one.prepare(client))
    first = reply[0] if isinstance(reply, list) and reply else reply
    if pattern := EXPECTED.get(one.script):
        assert pattern.match(first), reply
    elif one.script.endswith("/audit"):
        assert reply[2], reply
    elif "all failed" in one.call or (one.script in ("priority/ack", "priority/bury") and "all noted" in one.call):
        assert isinstance(reply, int), reply  # nothing is done, or buried
    else:
        assert first or any(reply), reply


@pytest.mark.parametrize(("ms", "code"), [(TARGET_MS, 0), (TARGET_MS * (1.01 + TOLERANCE), 1)])
def test_the_check_fails_when_a_call_is_too_long(
    ms: float, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`python -m benchmarks.instructions --check` measures the calls nearest to the bound, and names those beyond."""
    looked_at: list[LongCall] = []

    def measured(chosen: Sequence[LongCall], server: str | None) -> Iterator[tuple[LongCall, float]]:  # noqa: ARG001
        looked_at.extend(chosen)
        return ((one, ms if one is chosen[0] else RULER_MS / 2) for one in chosen)

    monkeypatch.setattr(blocking_time, "measured", measured)
    monkeypatch.setattr(check, "figures", lambda *_, **__: iter(()))
    monkeypatch.setattr(check, "facts", lambda _: {"server": "s", "valgrind": "v"})
    assert check.main(["--check"]) == code
    assert len(looked_at) == NEAREST
    assert (str(looked_at[0]) in capsys.readouterr().err) == bool(code)


def test_the_check_measures_the_calls_nearest_to_the_bound_and_new_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """New calls come first, then those with the longest times in the results."""
    new = LongCall("buffer/push", "a new one", LONG_CALLS[0].prepare)
    monkeypatch.setattr(blocking_time, "LONG_CALLS", [*LONG_CALLS, new])
    assert blocking_time.nearest()[0] is new
