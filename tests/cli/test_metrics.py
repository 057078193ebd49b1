"""Metrics for Prometheus, of queues and of workers, and the HTTP pages that serve them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from redisq import Buffer, InvalidArgument, PriorityQueue
from redisq.cli import main
from redisq.embedded import Server
from redisq.metrics import NAMES, Collector, observe
from tests.queues.flavours import Flavour
from tests.waiting import until

pytestmark = pytest.mark.server
TIMEOUT = 30  # seconds that a test waits for an event

Samples = dict[tuple[str, ...], float]


def samples(text: str) -> Samples:
    """Return the value of each sample by its name and its label values, in the order of the label names."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[(sample.name, *(value for _, value in sorted(sample.labels.items())))] = sample.value
    return found


def scrape(registry: CollectorRegistry) -> Samples:
    """Return the samples of a registry, as Prometheus would read them."""
    return samples(generate_latest(registry).decode())


@pytest.fixture
def client(server: Server) -> Iterator[redis.Redis]:
    """Return a client of an emptied server."""
    with server.client() as made:
        yield made


@pytest.fixture
def registry(client: redis.Redis) -> CollectorRegistry:
    """Return a registry with a collector of that server."""
    made = CollectorRegistry()
    made.register(Collector(client))
    return made


# -- queues


def test_queues_of_both_structures(client: redis.Redis, registry: CollectorRegistry) -> None:
    buffer: Buffer[int] = Buffer(client, "b")
    for group in range(3):
        buffer.push(*range(10), group=str(group))
    batch = buffer.reserve(4)
    assert batch
    batch.ack()
    buffer.reserve(2)
    buffer.pause()
    queue = PriorityQueue(client, "p")
    queue.push_many({"a": 1, "b": 2, "c": 3})
    dead = queue.reserve()
    assert dead
    dead.bury()
    queue.push("later", delay=60)
    found = scrape(registry)
    assert {key: found[key] for key in found if key[0] != "redisq_queue_oldest_wait_seconds"} == {
        ("redisq_up",): 1,
        ("redisq_queue_entries", "b", "waiting", "buffer"): 24,
        ("redisq_queue_entries", "b", "leased", "buffer"): 1,
        ("redisq_queue_entries", "b", "delayed", "buffer"): 0,
        ("redisq_queue_entries", "b", "dead", "buffer"): 0,
        ("redisq_queue_entries", "p", "waiting", "priority"): 2,
        ("redisq_queue_entries", "p", "leased", "priority"): 0,
        ("redisq_queue_entries", "p", "delayed", "priority"): 1,
        ("redisq_queue_entries", "p", "dead", "priority"): 1,
        ("redisq_queue_groups", "b"): 3,
        ("redisq_queue_due", "b"): 0,
        ("redisq_queue_due", "p"): 0,
        ("redisq_queue_paused", "b"): 1,
        ("redisq_queue_paused", "p"): 0,
        ("redisq_queue_done_total", "b"): 4,
        ("redisq_queue_done_total", "p"): 0,
        ("redisq_queue_failed_total", "b"): 0,
        ("redisq_queue_failed_total", "p"): 0,
        ("redisq_queue_buried_total", "b"): 0,
        ("redisq_queue_buried_total", "p"): 1,
        ("redisq_queue_trimmed_total", "b"): 0,
        ("redisq_queue_trimmed_total", "p"): 0,
    }
    assert 0 <= found["redisq_queue_oldest_wait_seconds", "b"] < 60


def test_a_queue_without_groups_has_no_oldest_wait(client: redis.Redis, registry: CollectorRegistry) -> None:
    """Zero would mean that an item has just arrived."""
    Buffer(client, "b").push(1)
    Buffer(client, "b").pop()
    assert ("redisq_queue_oldest_wait_seconds", "b") not in scrape(registry)


def test_an_outage_and_its_end(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """`redisq_up` shows it, and it is logged once, not in each scrape."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        with redis.Redis(port=port) as client:
            registry = CollectorRegistry()
            collector = Collector(client)
            registry.register(collector)
            with caplog.at_level("INFO", "redisq.metrics"):
                for _ in range(3):
                    assert scrape(registry) == {("redisq_up",): 0}
                collector._client = server.client()
                assert scrape(registry)["redisq_up",] == 1
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        *("Redis does not answer", "Redis answers again")
    ]


def test_a_queue_of_another_layout_does_not_hide_the_others(
    client: redis.Redis, registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    Buffer(client, "mine").push(1)
    client.hset("redisq:{future}:meta", "queue", "9 buffer")
    with caplog.at_level("WARNING", "redisq.metrics"):
        found = [scrape(registry) for _ in range(3)]
    assert {key[1] for key in found[0] if len(key) > 1} == {"mine"}
    assert len(caplog.records) == 1
    assert "future" in caplog.text


def test_names_that_are_not_text(client: redis.Redis, registry: CollectorRegistry) -> None:
    """Each is one label value; bytes that are not UTF-8 are escaped."""
    names = ["g\udcff", 'quote"', "back\\slash", "line\nend", "é"]
    for name in names:
        Buffer(client, name).push(1)
    shown = {key[1] for key in scrape(registry) if key[0] == "redisq_queue_groups"}
    assert shown == {"g\\xff", 'quote"', "back\\slash", "line\nend", "é"}


def test_a_refusal_is_not_called_an_outage(
    client: redis.Redis, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong password is told with its remedy."""
    plain: Any = client
    plain.execute_command("ACL", "SETUSER", "exporter", "on", ">right", "~*", "+@all")
    registry = CollectorRegistry()
    registry.register(Collector(server.client(username="exporter", password="wrong")))
    with caplog.at_level("WARNING", "redisq.metrics"):
        assert scrape(registry) == {("redisq_up",): 0}
    assert caplog.records[0].message.startswith("Redis refuses: ")
    assert "password" in caplog.text


@pytest.mark.parametrize("options", [("--queue", "a{b"), ("--prefix", "{")], ids=str)
def test_a_bad_name_is_refused_at_the_start(options: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metrics", "--port", "0", "--url", "redis://127.0.0.1:1", *options]) == 2
    assert repr(options[1]) in capsys.readouterr().err


def test_new_queues_are_found_after_the_refresh_interval(client: redis.Redis) -> None:
    """The server's keys are not scanned in each scrape."""
    registry, often = CollectorRegistry(), CollectorRegistry()
    registry.register(Collector(client, refresh=1000))
    often.register(Collector(client, refresh=0))
    for name in ("a", "b"):
        Buffer(client, name).push(1)
        scrape(registry)
    assert {key[1] for key in scrape(registry) if len(key) > 1} == {"a"}
    assert {key[1] for key in scrape(often) if len(key) > 1} == {"a", "b"}
    client.config_resetstat()
    scrape(registry)
    assert "cmdstat_scan" not in client.info("commandstats")


def test_only_the_named_queues(client: redis.Redis) -> None:
    for name in ("a", "b", "c"):
        Buffer(client, name, prefix="app").push(1)
    registry = CollectorRegistry()
    registry.register(Collector(client, "app", ["a", "c", "none"]))
    assert {key[1] for key in scrape(registry) if len(key) > 1} == {"a", "c"}


def test_invalid_arguments_are_refused(client: redis.Redis) -> None:
    with pytest.raises(InvalidArgument, match="prefix"):
        Collector(client, "a{b")
    with pytest.raises(InvalidArgument, match="asyncio"):
        Collector(redis.asyncio.Redis())  # type: ignore[arg-type]


# -- workers


def test_a_worker_is_counted(real: Flavour) -> None:
    """The outcomes of its batches and items, and the durations of its handlers; groups are not counted."""
    registry = CollectorRegistry()

    def handle(batch: Any) -> None:
        if "bad" in batch.items:
            raise ValueError
        if "part" in batch.items:
            batch.fail("part")

    buffer = real.buffer("mails", max_attempts=1)
    real.do(buffer.push("part", 1, 2, group="a"))
    real.do(buffer.push("bad", group="b"))
    for _ in range(2):  # two workers of one queue share their counters
        worker = real.worker(buffer, handle, size=3)
        observe(worker, registry)
        observe(worker, registry)  # changes nothing
    real.do(worker.run(burst=True))
    found = {key: value for key, value in scrape(registry).items() if value}
    seconds = [key for key in found if key[0].startswith("redisq_worker_handler_seconds")]
    assert {key: found[key] for key in found if key not in seconds and not key[0].endswith("_created")} == {
        ("redisq_worker_batches_total", "acked", "mails"): 1,
        ("redisq_worker_batches_total", "released", "mails"): 1,
        ("redisq_worker_items_total", "done", "mails"): 2,
        ("redisq_worker_items_total", "failed", "mails"): 1,
    }
    assert found["redisq_worker_handler_seconds_count", "mails"] == 2


def test_all_metric_names_are_listed(client: redis.Redis, registry: CollectorRegistry) -> None:
    """Dashboards and alerts are checked against the list."""
    buffer: Buffer[int] = Buffer(client, "b")
    buffer.push(1)
    from redisq import Worker

    observe(Worker(buffer, lambda _: None), registry)
    assert {name for name, *_ in scrape(registry) if not name.endswith("_created")} == NAMES


# -- pages


@contextlib.contextmanager
def serving(*arguments: str, cwd: Path, **environment: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run a command that serves pages on a free port; yield the logged address and the process."""
    with subprocess.Popen(
        [sys.executable, "-m", "redisq", *arguments, "--log", "json"],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **environment},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stderr
        lines: list[str] = []
        # Keep reading its log, so that it never blocks on a full pipe.
        reader = threading.Thread(target=lines.extend, args=(process.stderr,), daemon=True)
        try:
            for line in process.stderr:
                lines.append(line)
                if found := re.search(r"serving (http://[^/]+)", line):
                    break
            else:
                raise AssertionError("".join(lines))
            reader.start()
            yield found[1], process
        finally:
            process.kill()
            process.wait()
            if reader.ident:
                reader.join()


def get(url: str) -> tuple[int, str]:
    """Get a page, and return its status and its text."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_the_exporter(server: Server, client: redis.Redis, tmp_path: Path) -> None:
    Buffer(client, "mails").push(1, 2)
    with serving("metrics", "--port", "0", "--url", server.url, cwd=tmp_path) as (address, process):
        status, text = get(f"{address}/metrics")
        assert status == 200
        assert samples(text)["redisq_queue_entries", "mails", "waiting", "buffer"] == 2
        assert get(f"{address}/livez") == (200, "ok\n")
        assert get(f"{address}/") == (404, "there is: /metrics /livez\n")
        with pytest.raises(urllib.error.HTTPError, match="405"):
            urllib.request.urlopen(f"{address}/metrics", data=b"x")
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 0


def test_the_exporter_of_an_unavailable_server(tmp_path: Path) -> None:
    """It starts anyway, and reports that Redis is unavailable."""
    with serving("metrics", "--port", "0", "--url", "redis://127.0.0.1:1", cwd=tmp_path) as (address, _):
        assert samples(get(f"{address}/metrics")[1]) == {("redisq_up",): 0}


def test_a_port_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["metrics", "--port", str(port)]) == 1
    assert f"cannot listen on 127.0.0.1 port {port}" in capsys.readouterr().err


JOBS = """
    import os, pathlib, signal, threading, time
    import redisq, redisq.asyncio

    def worker(client):
        def handle(batch):
            if "die" in batch.items and batch.attempts == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            if "hold" in batch.items:
                threading.Event().wait()
            if "block" in batch.items:
                while not pathlib.Path("open").exists():
                    time.sleep(0.01)
        kind = redisq.asyncio if type(client).__module__.startswith("redis.asyncio") else redisq
        async def handle_async(batch):
            handle(batch)
        chosen = handle if kind is redisq else handle_async
        return kind.Worker(kind.Buffer(client, "q", lease=1), chosen, size=1, max_batches=MAX)
"""


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    """Return a folder with a worker module."""
    (tmp_path / "jobs.py").write_text(textwrap.dedent(JOBS).replace("MAX", "None"))
    return tmp_path


@contextlib.contextmanager
def working(server: Server, jobs: Path, *options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run the worker with its pages."""
    command = ("worker", "jobs:worker", "--metrics-port", "0", "--url", server.url, *options)
    with serving(*command, cwd=jobs) as found:
        yield found


def test_all_processes_of_a_worker_are_counted_together(server: Server, client: redis.Redis, jobs: Path) -> None:
    """Including those that were killed: their counters stay, and their batches in progress are removed."""
    buffer: Buffer[Any] = Buffer(client, "q")
    with working(server, jobs, "--processes", "2") as (address, process):
        until(lambda: get(f"{address}/readyz") == (200, "ok\n"))
        buffer.push(*range(20), "die")
        until(lambda: buffer.stats().done == 21)

        def counted() -> bool:
            found = samples(get(f"{address}/metrics")[1])
            acked = found.get(("redisq_worker_batches_total", "acked", "q"), 0)
            return acked == 21 and found["redisq_worker_in_progress", "q"] == 0

        until(counted)
        assert get(f"{address}/livez") == (200, "ok\n")
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere 127.0.0.2 need not be an address of this machine")
def test_the_pages_of_a_worker_are_at_the_address_that_is_named(server: Server, jobs: Path) -> None:
    """And at no other."""
    with working(server, jobs, "--metrics-host", "127.0.0.2") as (address, _):
        assert address.startswith("http://127.0.0.2:")
        assert get(f"{address}/livez") == (200, "ok\n")
        with pytest.raises(urllib.error.URLError):
            get(f"{address.replace('127.0.0.2', '127.0.0.1')}/livez")


def test_an_unavailable_redis_fails_readiness_but_not_liveness(binary: Path, jobs: Path) -> None:
    """A restart of the worker would not help."""
    with Server(binary) as own, working(own, jobs) as (address, _):
        until(lambda: get(f"{address}/readyz")[0] == 200)
        own.stop()
        until(lambda: get(f"{address}/readyz")[0] == 503)
        assert "worker-1" in get(f"{address}/readyz")[1]
        assert get(f"{address}/livez") == (200, "ok\n")


def test_a_blocked_event_loop_fails_liveness(server: Server, client: redis.Redis, jobs: Path, tmp_path: Path) -> None:
    """It extends no leases; but threads that never end do not block the loop."""
    patch = "import redisq.asyncio.worker as w; w.ALIVE, w.BEAT = 0.2, 0.05\n"
    (jobs / "jobs.py").write_text(patch + (jobs / "jobs.py").read_text())
    with working(server, jobs, "--asyncio") as (address, _):
        until(lambda: get(f"{address}/readyz")[0] == 200)
        Buffer(client, "q").push("block")
        until(lambda: get(f"{address}/livez") == (503, "not responding: worker-1\n"))
        (tmp_path / "open").touch()
        until(lambda: get(f"{address}/livez")[0] == 200)


def test_a_thread_that_never_ends_does_not_fail_liveness(server: Server, client: redis.Redis, jobs: Path) -> None:
    patch = "import redisq.blocking.worker as w; w.ALIVE, w.BEAT = 0.5, 0.05\n"
    (jobs / "jobs.py").write_text(patch + (jobs / "jobs.py").read_text())
    buffer: Buffer[Any] = Buffer(client, "q")
    with working(server, jobs) as (address, _):
        buffer.push("hold")
        until(lambda: samples(get(f"{address}/metrics")[1]).get(("redisq_worker_in_progress", "q")) == 1)
        (held,) = buffer.leased()
        until(lambda: buffer.leased()[0].deadline > held.deadline)  # extended, so the loop is running
        assert get(f"{address}/livez")[0] == 200


def test_a_replaced_process_is_as_ready_as_the_one_before(server: Server, client: redis.Redis, jobs: Path) -> None:
    """A worker that is replaced after each batch is never unready, once it was ready."""
    (jobs / "jobs.py").write_text(textwrap.dedent(JOBS).replace("MAX", "1"))
    buffer: Buffer[Any] = Buffer(client, "q")
    with working(server, jobs) as (address, _):
        until(lambda: get(f"{address}/readyz")[0] == 200)
        buffer.push(*range(4))
        seen = set()
        while buffer.stats().done < 4:
            seen.add(get(f"{address}/readyz")[0])
        assert seen == {200}


def test_a_process_that_cannot_be_restarted_stops_no_other(server: Server, client: redis.Redis, jobs: Path) -> None:
    """What it needs may be unavailable for a while: it is tried again, and the others go on."""
    check = "import pathlib\nif pathlib.Path('broken').exists(): raise RuntimeError('no database')\n"
    (jobs / "jobs.py").write_text(check + (jobs / "jobs.py").read_text())
    buffer: Buffer[Any] = Buffer(client, "q")
    with working(server, jobs, "--processes", "2") as (address, process):
        until(lambda: get(f"{address}/readyz")[0] == 200)
        (jobs / "broken").touch()
        buffer.push("die", "other")  # the batch of the process that dies is handed out again, to the other one
        until(lambda: buffer.stats().done == 2)
        until(lambda: get(f"{address}/readyz")[0] == 503)
        (jobs / "broken").unlink()
        until(lambda: get(f"{address}/readyz")[0] == 200)
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 0


def test_two_services_share_no_files(
    server: Server, client: redis.Redis, jobs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the environment says: each counts its own batches."""
    (jobs / "shared").mkdir()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(jobs / "shared"))
    buffer: Buffer[Any] = Buffer(client, "q")
    key = "redisq_worker_batches_total", "acked", "q"
    with working(server, jobs) as (first, _), working(server, jobs) as (second, _):
        buffer.push(*range(10))
        until(lambda: buffer.stats().done == 10)
        until(lambda: sum(samples(get(f"{one}/metrics")[1]).get(key, 0) for one in (first, second)) == 10)
    assert not list((jobs / "shared").iterdir())


# -- run options


def test_burst_ends_when_the_queue_is_empty(server: Server, client: redis.Redis, jobs: Path) -> None:
    Buffer(client, "q").push(*range(10))
    command = [sys.executable, "-m", "redisq", "worker", "jobs:worker", "--burst", "--processes", "2", "--log", "json"]
    environment = {**os.environ, "REDIS_URL": server.url, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, cwd=jobs, env=environment, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0
    last = json.loads(done.stderr.splitlines()[-1])
    assert last["message"] == "ended: 10 batches acked with 10 items, 0 released, 0 dead"
    assert last["level"] == "info"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", last["time"])


@pytest.mark.parametrize("options", [(), ("--asyncio",)], ids=["threads", "asyncio"])
def test_a_worker_with_max_batches_is_replaced(
    server: Server, client: redis.Redis, jobs: Path, options: tuple[str, ...]
) -> None:
    """By a new process, without a pause, as often as needed; a stop still ends it."""
    (jobs / "jobs.py").write_text(textwrap.dedent(JOBS).replace("MAX", "2"))
    buffer: Buffer[Any] = Buffer(client, "q")
    buffer.push(*range(7))
    with working(server, jobs, *options) as (_, process):
        until(lambda: buffer.stats().done == 7)
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 0


def test_the_command_line_overrides_the_workers_settings(server: Server, client: redis.Redis, jobs: Path) -> None:
    """A handler that never ends is abandoned, and so is the process, as no place is left."""
    Buffer(client, "q").push("hold")
    with working(server, jobs, "--handler-timeout", "100ms", "--max-bytes", "1") as (_, process):
        until(lambda: client.zcard("redisq:{q}:delayed") == 1)
        assert Buffer[Any](client, "q").delayed()[0].reason.startswith("TimeoutError: the handler ran longer")
        process.send_signal(signal.SIGTERM)
        process.wait(TIMEOUT)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--max-bytes", str(10**30)], "max_bytes is 1000"),
        (["--handler-timeout", "soon"], "soon is not a duration"),
        (["--metrics-port", "70000"], "70000 is not a port: give a number from 0 to 65535"),
        (["--log", "xml"], "invalid choice: 'xml'"),
    ],
)
def test_invalid_settings_are_named(server: Server, jobs: Path, options: list[str], named: str) -> None:
    command = [sys.executable, "-m", "redisq", "worker", "jobs:worker", *options]
    environment = {**os.environ, "REDIS_URL": server.url, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, cwd=jobs, env=environment, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 2
    assert named in done.stderr


# -- systemd


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="systemd runs on Linux only")
def test_systemd_is_notified(server: Server, jobs: Path) -> None:
    """When all processes have started, that all is well, and of the end; child processes do not notify it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        path = str(jobs / "notify")
        manager.bind(path)
        manager.settimeout(TIMEOUT)
        command = ("worker", "jobs:worker", "--processes", "2", "--metrics-port", "0", "--url", server.url)
        with serving(*command, cwd=jobs, NOTIFY_SOCKET=path, WATCHDOG_USEC="300000") as (address, process):
            states = []
            while "READY=1" not in states:
                states.append(manager.recv(100).decode())
            assert set(states) <= {"READY=1", "WATCHDOG=1"}
            status, text = get(f"{address}/readyz")
            assert status == 200 or "Redis" in text
            while manager.recv(100) != b"WATCHDOG=1":
                pass
            process.send_signal(signal.SIGTERM)
            while manager.recv(100) != b"STOPPING=1":
                pass
            assert process.wait(TIMEOUT) == 0
