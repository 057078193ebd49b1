"""The documentation's figures match the results, charts are reproducible, and claims that do not hold are reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as program
from benchmarks import charts, report
from benchmarks.measure import RESULTS, Claim, Effort, spread
from benchmarks.peers import cases, contract, kill, setup
from benchmarks.peers import run as peers


def test_the_tables_match_the_results() -> None:
    """They are generated from the result files."""
    texts = [page.read_text() for page in report.PAGES]
    assert {name for text in texts for _, name, _ in report.MARKED.findall(text)} == set(report.TABLES)
    assert [report.filled(text) for text in texts] == texts


def test_charts_are_reproducible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn twice, light and dark, they are the same bytes; and all charts are there."""
    drawn = []
    for name in ("one", "other"):
        monkeypatch.setattr(charts, "CHARTS", tmp_path / name)
        charts.draw()
        drawn.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert drawn[0] == drawn[1]
    shown = {f"{name}-{theme}.svg" for name in charts.DRAWN for theme in charts.THEMES}
    assert set(drawn[0]) == shown == {path.name for path in (RESULTS.parent / "charts").iterdir()}


@pytest.mark.parametrize("part", program.PARTS)
def test_every_result_names_its_machine_and_its_claims(part: str) -> None:
    """Each file says where it was measured, and each claim its target."""
    result: dict[str, Any] = json.loads((RESULTS / f"{part}.json").read_text())
    assert {"cpu", "cores", "server", "redis-py", "hiredis", "commit"} <= set(result["environment"])
    assert result["claims"]
    for claim in result["claims"]:
        assert set(claim) == {"claim", "median", "min", "max", "target", "met"}


def test_redisq_makes_no_mistakes_in_any_benchmark() -> None:
    """In no round did it lose an item, hand one out twice, or break the order."""
    for name in ("contention", "flush", "peers"):
        for row in json.loads((RESULTS / f"{name}.json").read_text())["results"]:
            if (row.get("contender") or row.get("peer")).startswith("redisq"):
                assert not any(row.get(count) for count in ("lost", "twice", "out_of_order", "empty", "doubled")), row


STATED = {"claim": "x", "median": 3.0, "min": 2.0, "max": 4.0}


@pytest.mark.parametrize(
    ("values", "at_most", "holds"),
    [([2.5], False, True), ([1.5], False, False), ([1.0, 2.0], False, True), ([3.9], True, True), ([4.1], True, False)],
)
def test_a_claim_allows_for_its_spread(values: list[float], at_most: bool, holds: bool) -> None:
    """A value within the spread of the target passes; one beyond it fails."""
    assert Claim("x", values, target=0.5 if at_most else 10, at_most=at_most).holds(STATED) == holds


def test_a_quick_run_fails_when_a_claim_does_not_hold(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command exits with 1 and names the claim, also as JSON; an unknown part is a usage error."""

    def run(part: str, effort: object) -> dict[str, Any]:  # noqa: ARG001
        return {"claims": [Claim("x", [1.0], 10)]}

    monkeypatch.setattr(program, "run", run)
    monkeypatch.setattr(program, "stated", lambda _: {"x": STATED})
    assert program.main(["flush", "--quick"]) == 1
    assert "DOES NOT HOLD" in capsys.readouterr().out
    assert program.main(["flush", "--quick", "--json"]) == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out)["flush"]["claims"][0]["median"] == 1.0
    assert "DOES NOT HOLD" in printed.err
    monkeypatch.setattr(program, "stated", lambda _: {})
    assert program.main(["flush", "--quick"]) == 0
    assert program.main(["nothing"]) == 2


def test_spread_of_the_values() -> None:
    """The median with three digits, the least and the greatest."""
    assert spread([1234.5, 1.23456, 77]) == {"median": 77, "min": 1.23, "max": 1230}


def test_every_peer_has_a_file_cases_a_promise_and_a_kill_test() -> None:
    """Nothing is listed that cannot be measured, nor measured without what it promises when a worker dies."""
    by_name = {peer.name: peer for peer in cases.PEERS}
    modes = {(case.peer, case.mode) for case in cases.CASES}
    assert len(modes) == len(cases.CASES)
    assert {name for name, _ in modes} == set(by_name) == set(kill.MODES)
    for name, mode in modes:
        assert (Path(cases.__file__).parent / f"{name}.py").exists()
        assert by_name[name].promise(mode)
    assert {(name, mode) for name, killed in kill.MODES.items() for mode in killed} <= modes
    promises = {(case.peer, case.promise) for case in cases.CASES}
    killed = {(case.peer, case.promise) for case in cases.CASES if case.mode in kill.MODES[case.peer]}
    assert killed == promises


@pytest.mark.parametrize(
    ("mode", "name", "number"),
    [("concurrency=1", "concurrency", 1), ("concurrency=10, no results", "concurrency", 10), ("sync", "workers", 7)],
)
def test_a_mode_gives_numbers(mode: str, name: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as they are, and else the default."""
    monkeypatch.setattr(contract, "MODE", mode)
    assert contract.setting(name, 7) == number


def test_peers_without_their_program_are_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where Ruby or Node is missing the others are measured, and it is said; who names such a peer gets an error."""
    monkeypatch.setattr("shutil.which", lambda name: None)  # noqa: ARG005
    setup._sidekiq.cache_clear()
    foreign = [case for case in cases.CASES if case.peer in ("redisq", "sidekiq", "bullmq_node")]
    try:
        assert set(peers.missing(foreign)) == {"sidekiq", "bullmq_node"}
        told = capsys.readouterr().err
        assert "apt-get install ruby-sidekiq" in told
        assert "bullmq_node needs node and npm" in told
        with pytest.raises(setup.Missing, match="gem install sidekiq"):
            peers.run(Effort(quick=True), only=["sidekiq"])
    finally:
        setup._sidekiq.cache_clear()


def test_the_table_tells_node_from_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both BullMQs have rows of their own, with their versions."""
    speed = {"median": 10.0, "min": 9.0, "max": 11.0}
    common = {"mode": "concurrency=1", "guarantee": "at least once", "batch": 1, "worker": True, "redelivered": "no"}
    common |= {"total_per_second": speed, "commands_per_item": None}
    rows = [
        {"peer": "bullmq", "version": "bullmq==3.4.4", **common},
        {"peer": "bullmq_node", "version": "bullmq@6.7.0, ioredis@6.0.0, node@20.20.2", **common},
    ]
    monkeypatch.setattr(report, "_result", lambda part: {"results": rows})  # noqa: ARG005
    table = report.peers()
    assert "| bullmq==3.4.4, concurrency=1 |" in table
    assert "| bullmq@6.7.0 for Node, concurrency=1 |" in table
