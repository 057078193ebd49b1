"""Everything that `examples/deploy` and `examples/monitoring` name exists in redisq, and their files are consistent."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import redisq.cli
from redisq import Buffer
from redisq.embedded import Server

ROOT = Path(__file__).parents[2]
DEPLOY, MONITORING = ROOT / "examples" / "deploy", ROOT / "examples" / "monitoring"
GUIDE = ROOT / "docs" / "guides" / "monitoring.md"
YAML = sorted([*DEPLOY.rglob("*.yaml"), *MONITORING.rglob("*.yml")])
UNTRIED = [*DEPLOY.rglob("*.yaml"), DEPLOY / "Dockerfile"]
METRIC = re.compile(r"\bredisq_\w+")
GRACE = 25  # seconds, the default of a Worker


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def documents(path: Path) -> list[Any]:
    return [document for document in yaml.safe_load_all(path.read_text("utf-8")) if document is not None]


def walk(found: Any) -> Iterator[Any]:
    """Yield every value of a parsed YAML or JSON file."""
    yield found
    for value in found.values() if isinstance(found, dict) else found if isinstance(found, list) else ():
        yield from walk(value)


def rules() -> list[dict[str, Any]]:
    (document,) = documents(MONITORING / "alerts.yml")
    return [rule for group in document["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text("utf-8"))
    return loaded


def keda_query() -> str:
    (scaled,) = documents(DEPLOY / "kubernetes" / "keda.yaml")
    return str(scaled["spec"]["triggers"][0]["metadata"]["query"])


def expressions() -> list[tuple[str, str]]:
    """Return each PromQL expression, with its location."""
    found = [(rule["alert"], rule["expr"]) for rule in rules()]
    for panel in dashboard()["panels"]:
        found += [(panel["title"], target["expr"]) for target in panel.get("targets", ())]
    return [*found, ("keda.yaml", keda_query())]


EXPRESSIONS = expressions()


def exported() -> frozenset[str]:
    """Return the names of the samples that redisq exports."""
    try:
        from redisq.metrics import NAMES
    except ImportError as error:
        pytest.fail(f"redisq.metrics.NAMES, the set of all sample names, cannot be imported: {error}")
    return NAMES


# -- metrics


def test_every_metric_of_the_dashboard_and_the_rules_is_exported() -> None:
    used = {metric for _, expression in EXPRESSIONS for metric in METRIC.findall(expression)}
    used |= set(METRIC.findall(json.dumps(dashboard()["templating"])))
    assert used <= exported()
    # A histogram is shown by its buckets; every other metric is shown or watched.
    assert exported() - used <= {"redisq_worker_handler_seconds_count", "redisq_worker_handler_seconds_sum"}


def test_every_metric_in_the_documentation_is_exported() -> None:
    families = {re.sub(r"_(bucket|count|sum)$", "", sample) for sample in exported()}
    for path in (GUIDE, MONITORING / "alerts.yml", MONITORING / "README.md", DEPLOY / "kubernetes" / "keda.yaml"):
        assert set(METRIC.findall(path.read_text("utf-8"))) <= families | exported(), name(path)
    assert set(METRIC.findall(GUIDE.read_text("utf-8"))) >= families  # the table is complete


def test_the_unit_tests_of_the_rules_use_exported_metrics() -> None:
    (document,) = documents(MONITORING / "alerts_test.yml")
    series = [one["series"] for test in document["tests"] for one in test["input_series"]]
    assert series
    assert {metric for one in series for metric in METRIC.findall(one)} <= exported()


# -- dashboard and rules


def test_panels_of_the_dashboard_have_distinct_ids_and_places() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["description"]
            refs = [target["refId"] for target in panel["targets"]]
            assert len(set(refs)) == len(refs) > 0


def test_the_dashboard_takes_its_data_source_from_a_variable() -> None:
    """So that any Grafana can import it, or read it from a folder."""
    variables = {variable["name"]: variable["type"] for variable in dashboard()["templating"]["list"]}
    assert variables == {"datasource": "datasource", "queue": "query"}
    sources = [value["datasource"] for value in walk(dashboard()) if isinstance(value, dict) and "datasource" in value]
    assert len(sources) > 20
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS, ids=[where for where, _ in EXPRESSIONS])
def test_brackets_of_an_expression_are_balanced(where: str, expression: str) -> None:
    opened: list[str] = []
    pairs = {")": "(", "]": "[", "}": "{"}
    for sign in re.sub(r'"[^"]*"', "", expression):
        if sign in pairs.values():
            opened.append(sign)
        elif sign in pairs:
            assert opened.pop() == pairs[sign], where
    assert not opened, where
    assert expression.count('"') % 2 == 0


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"].keys() == {"summary", "description"}
    assert len(rule["annotations"]["summary"]) < 100
    assert len(rule["annotations"]["description"]) > 100
    assert f"`{rule['alert']}`" in GUIDE.read_text("utf-8")
    assert rule["alert"] in (MONITORING / "alerts_test.yml").read_text("utf-8")


def test_promtool_accepts_the_rules_and_their_unit_tests_pass() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    for arguments in (["check", "config", "prometheus.yml"], ["test", "rules", "alerts_test.yml"]):
        done = subprocess.run([promtool, *arguments], cwd=MONITORING, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


# -- command lines


def command_lines() -> list[tuple[str, list[str]]]:
    """Return every command line of redisq in the files, with its location."""
    found: list[tuple[str, list[str]]] = []
    for path in [*DEPLOY.glob("*.md"), *MONITORING.glob("*.md"), GUIDE]:
        for block in re.findall(r"^```sh\n(.*?)^```$", path.read_text("utf-8"), re.DOTALL | re.MULTILINE):
            found += [(name(path), shlex.split(line)) for line in block.splitlines()]
    for path in DEPLOY.glob("*.service"):
        for line in re.findall(r"^ExecStart=(.*)$", path.read_text("utf-8"), re.MULTILINE):
            program, *words = line.replace("%i", "worker").replace("${METRICS_PORT}", "9182").split()
            found.append((name(path), [Path(program).name, *words]))
    for line in re.findall(r"^CMD (\[.*)$", (DEPLOY / "Dockerfile").read_text("utf-8"), re.MULTILINE):
        found.append(("examples/deploy/Dockerfile", json.loads(line)))
    for path in YAML:
        for value in walk(documents(path)):
            if isinstance(value, list) and value and all(isinstance(word, str) for word in value):
                found.append((name(path), value))
    for path in [*DEPLOY.rglob("*"), *MONITORING.rglob("*")]:  # in comments, descriptions and text
        if path.is_file() and path.suffix != ".pyc":
            said = re.findall(r"`(redisq [^`]+)`", path.read_text("utf-8").replace("{{ $labels.queue }}", "QUEUE"))
            found += [(name(path), shlex.split(line)) for line in said]
    return [(where, words) for where, words in found if words[0] == "redisq"]


COMMAND_LINES = command_lines()


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    made = argparse.ArgumentParser("redisq")
    commands = made.add_subparsers(required=True)
    for command in redisq.cli._COMMANDS:
        command.add(commands)
    return made


def test_command_lines_are_found_in_every_kind_of_file() -> None:
    found = {where for where, _ in COMMAND_LINES}
    deployed = {"Dockerfile", "README.md", "compose.yaml", "redisq-metrics.service", "redisq-worker@.service"}
    deployed |= {f"kubernetes/{one}.yaml" for one in ("cronjob", "exporter", "worker")}
    assert found >= {f"examples/deploy/{one}" for one in deployed}
    assert found >= {"examples/monitoring/README.md", "examples/monitoring/alerts.yml", "docs/guides/monitoring.md"}


@pytest.mark.parametrize(("where", "words"), COMMAND_LINES, ids=[f"{w} {' '.join(c)}" for w, c in COMMAND_LINES])
def test_a_command_line_is_valid(where: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        parser().parse_args(words[1:])
    except SystemExit:
        pytest.fail(f"{where}: {shlex.join(words)}\n{capsys.readouterr().err}")


# -- consistency


@pytest.mark.parametrize("path", YAML, ids=name)
def test_a_yaml_file_is_valid(path: Path) -> None:
    assert documents(path)
    assert all(isinstance(document, dict) for document in documents(path))


@pytest.mark.parametrize("path", UNTRIED, ids=name)
def test_untried_files_say_so_in_their_first_line(path: Path) -> None:
    assert path.read_text("utf-8").startswith("# UNTRIED: ")


def test_stop_timeouts_are_longer_than_the_grace_of_a_worker() -> None:
    unit = (DEPLOY / "redisq-worker@.service").read_text("utf-8")
    (composed,) = documents(DEPLOY / "compose.yaml")
    waits = [re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)[0]]
    waits.append(composed["services"]["worker"]["stop_grace_period"].rstrip("s"))
    for one in ("worker", "cronjob"):
        values = walk(documents(DEPLOY / "kubernetes" / f"{one}.yaml"))
        waits += [
            value[k] for value in values if isinstance(value, dict) for k in value if k.startswith("terminationG")
        ]
    assert len(waits) == 4
    assert all(int(seconds) >= GRACE + 10 for seconds in waits)


def test_every_file_is_in_the_table_of_its_readme() -> None:
    for folder in (DEPLOY, MONITORING):
        readme = (folder / "README.md").read_text("utf-8")
        for path in folder.rglob("*"):
            if path.is_file() and path.name != "README.md" and path.suffix != ".pyc":
                assert f"({path.relative_to(folder)})" in readme, name(path)
        for link in re.findall(r"\]\(([^)#\s]+)", readme):
            assert (folder / link).exists(), link


def test_the_sample_app_processes_its_queue(server: Server) -> None:
    def run(*command: str) -> None:
        environment = {**os.environ, "REDIS_URL": server.url, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=DEPLOY, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr

    run(sys.executable, "jobs.py", "100")
    with server.client() as client:
        mails: Buffer[dict[str, Any]] = Buffer(client, "mails")
        assert mails.stats().waiting == 100
        run(sys.executable, "-m", "redisq", "worker", "jobs:worker", "--burst")
        held = mails.stats()
        assert (held.waiting, held.leased, held.delayed, held.dead, held.done) == (0, 0, 0, 0, 100)
        assert mails.audit().ok
