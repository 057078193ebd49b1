"""Counting instructions: the output of Callgrind is parsed, and an exceeded budget fails the check."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from benchmarks import instructions
from benchmarks.instructions import __main__ as command_line
from benchmarks.instructions import operations
from benchmarks.instructions.budgets import BUDGETS, TOLERANCE, Figure, exceeded
from benchmarks.instructions.callgrind import NoValgrind, counting, parse, wrapped
from benchmarks.instructions.items import CONTENDERS, Direct
from redisq.core.scripts import names
from redisq.embedded import Server

DUMP = """# callgrind format
version: 1
creator: callgrind-3.19.0
pid: 6032
desc: Trigger: dump
positions: line
events: Ir
summary: 702316

fn=(122) aeProcessEvents
0 300
cfn=(390) serverCron
calls=1 0
0 130000
cfn=(391) readQueryFromClient
calls=150 0
0 570893

fn=(390)
0 1123
cfn=(400) serverCronHelper
calls=2 0
0 128877

fn=(123) processTimeEvents
cfn=(390)
calls=1 0
+12 123

totals: 702316
"""
BUDGETED = ("buffer/ack", 1)


def test_parsing_a_dump() -> None:
    """Instructions of the timer are subtracted; a dump without its last line is still being written, and has none."""
    assert parse(DUMP) == 702316 - 130000 - 123
    assert parse(DUMP.replace("serverCron", "0x77ad0")) == 702316  # a server without symbols
    assert parse(DUMP.partition("totals")[0]) is None
    assert parse("") is None
    with pytest.raises(ValueError, match="one event"):
        parse(DUMP.replace("summary: 702316", "summary: 702316 12"))


@pytest.mark.parametrize(("factor", "over"), [(0.5, False), (1 + TOLERANCE, False), (1.001 + TOLERANCE, True)])
def test_a_budget_is_exceeded_beyond_the_tolerance(factor: float, over: bool) -> None:
    """By more than 5 %, in the median; a case without a budget cannot exceed it."""
    budget = BUDGETS[BUDGETED]
    figure = Figure(*BUDGETED, [budget, budget * factor, budget * factor])
    assert figure.exceeded == over
    assert len(exceeded([figure, Figure("PING", 1, [1e9])])) == over


def test_every_budget_belongs_to_a_case_and_every_script_has_one() -> None:
    """So that a renamed case keeps its budget, and a new script gets a case."""
    cases = {(case.name, case.size) for case in operations.CASES}
    assert set(BUDGETS) <= cases
    assert len(cases) == len(operations.CASES)
    assert set(names()) <= {name.partition(" (")[0] for name, _ in cases}


@pytest.mark.parametrize(("factor", "code"), [(1.0, 0), (1.2, 1)])
def test_the_check_fails_when_a_budget_is_exceeded(
    factor: float, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It counts only cases with a budget, and names each that exceeds it; without --check nothing fails."""
    counted = []

    def figures(cases: Sequence[operations.Case], **_: object) -> Iterator[Figure]:
        for case in cases:
            counted.append((case.name, case.size))
            yield Figure(case.name, case.size, [BUDGETS[case.name, case.size] * factor])

    monkeypatch.setattr(command_line, "figures", figures)
    monkeypatch.setattr(command_line, "facts", lambda _: {"server": "s", "valgrind": "v"})
    assert command_line.main(["--check"]) == code
    assert set(counted) == set(BUDGETS)
    exceeded = re.findall(r"exceeded: (\S+), size (\d+)", capsys.readouterr().err)
    assert {(name, int(size)) for name, size in exceeded} == (set(BUDGETS) if code else set())
    assert command_line.main(["--only", "buffer/ack"]) == 0


def test_patterns_select_cases(capsys: pytest.CaptureFixture[str]) -> None:
    """A name selects its sizes, a pattern its variants; without a match, it is a usage error that lists the names."""
    assert [case.size for case in instructions.chosen(["priority/push"])] == [1, 100]
    assert len(instructions.chosen(["priority/push*"])) > 2
    assert len(instructions.chosen([])) == len(operations.CASES)
    with pytest.raises(SystemExit):
        command_line.main(["--only", "nothing"])
    assert "buffer/push" in capsys.readouterr().err


def test_missing_programs_are_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a server or valgrind it says what to install, without a traceback."""
    assert command_line.main(["--check", "--server", "/no/redis-server"]) == 2
    assert "apt-get install redis-server" in capsys.readouterr().err
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(NoValgrind, match="apt-get install valgrind"), wrapped(Path("redis-server")):
        pass


@pytest.mark.parametrize("case", operations.CASES, ids=lambda case: f"{case.name}, {case.size}")
def test_every_call_does_its_work(case: operations.Case, server: Server) -> None:
    """Three calls of each case."""
    with server.client() as client:
        operations.load_scripts(client)
        assert all(call() for call in case.prepare(client, case.size, 3))


@pytest.mark.parametrize(
    "one", [one for one in CONTENDERS if isinstance(one, Direct)], ids=lambda one: f"{one.name}, {one.batch}"
)
def test_every_item_is_done(one: Direct, server: Server) -> None:
    """Two batches of each kind."""
    with server.client() as client:
        push, work = one.make(client, one.batch)
        push()
        push()
        assert [work(), work()] == [one.batch, one.batch]


@pytest.mark.usefixtures("valgrind")
def test_counts_are_repeatable(binary: Path) -> None:
    """A PING costs the same twice, a longer one costs more, and a call that does no work is an error."""
    with wrapped(binary) as program, Server(program) as server, counting(server) as counter:
        client = counter.client
        short, again = (counter.count([client.ping] * 150) for _ in range(2))
        long = counter.count([lambda: bool(client.echo("x" * 10_000))] * 150)
        assert short > 1000
        assert abs(short - again) < 0.1 * short
        assert long > 1.1 * short
        with pytest.raises(RuntimeError, match="1 of 2 calls"):
            counter.count([lambda: True, lambda: False])
