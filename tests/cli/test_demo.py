"""The demo: it runs, its sums are right, and it fails when something was lost or done twice."""

from __future__ import annotations

import contextlib
import io
import os
import pkgutil
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fakeredis
import pytest
import redis
from rich.console import Console

from redisq import Buffer, Worker, cli, demo, embedded
from redisq.core.errors import RedisqError
from redisq.demo.display import show_tally
from redisq.demo.endpoint import Endpoint
from redisq.demo.indexing import Index, Indexed, Indexing
from redisq.demo.interrupts import Interrupts
from redisq.demo.processes import Channel, Held, Processes, Ready
from redisq.demo.tally import Line, Tally
from redisq.embedded import Server

COMMAND = [sys.executable, "-m", "redisq", "demo"]


def run_here(files: int = 8) -> tuple[int, str]:
    console = Console(file=io.StringIO(), width=120)
    code = demo.run(files=files, console=console)
    assert isinstance(console.file, io.StringIO)
    return code, console.file.getvalue()


def test_the_sums_are_right() -> None:
    done = subprocess.run([*COMMAND, "--files", "24"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Both queues pass their audit" in done.stdout
    assert "Everything is accounted for." in done.stdout
    assert "Input: 24 source files" in done.stdout
    (sums,) = (row.split() for row in done.stdout.splitlines() if row.split()[:1] == ["indexing"])
    _, pushed, indexed, _, waiting, redelivered, *wrong = sums
    assert int(pushed) == int(indexed) >= 24
    assert (waiting, redelivered, wrong) == ("0", "1", ["0"] * 3)
    said = " ".join(done.stdout.split())
    again = r"1 redelivered, (and|but not) indexed once more, as at-least-once allows"
    assert re.search(f"indexing: a process was killed with -9 in the middle; {again}; 'twice' counts repeats", said)


def test_other_keys_on_the_server_are_not_touched(server: Server) -> None:
    with contextlib.closing(server.client(decode_responses=True)) as client:
        client.set("mine", "untouched")
        done = subprocess.run(
            [*COMMAND, "--files", "8", "--url", server.url], capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert f"Server: the server at {server.url}" in done.stdout
        assert client.get("mine") == "untouched"
        # Dedup ids expire soon.
        left = {key: client.ttl(key) for key in client.scan_iter() if key != "mine"}
        assert {key for key, ttl in left.items() if ttl == -1 or ttl > 15} == set()


def test_without_a_server_binary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "binaries", list)
    code, output = run_here()
    assert code == 0
    assert "Server: fakeredis" in output
    assert "Everything is accounted for." in output


@pytest.mark.parametrize(
    ("times", "columns"),
    [pytest.param(0, ["1", "0", "0"], id="lost"), pytest.param(2, ["0", "1", "0"], id="twice")],
)
def test_the_demo_fails_when_the_endpoint_received_something_other_than_once(
    monkeypatch: pytest.MonkeyPatch, times: int, columns: list[str]
) -> None:
    real = Endpoint.receive

    def receive(endpoint: Endpoint, body: bytes) -> int:
        status = real(endpoint, body)
        endpoint.received[next(iter(endpoint.received))] = times
        return status

    monkeypatch.setattr(Endpoint, "receive", receive)
    code, output = run_here()
    assert code == 1
    assert "NOT everything is accounted for." in output
    (row,) = (row.split() for row in output.splitlines() if row.split()[:1] == ["batching"])
    assert row[-3:] == columns


def test_the_demo_ends_when_a_process_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Endpoint, "receive", lambda *_: 500)
    assert cli.main(["demo", "--files", "8"]) == 1
    output = capsys.readouterr().err
    assert output.startswith("redisq: flusher failed: the endpoint answered 500 to ")
    assert output.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no process groups")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("at", ["Server", "Input", " indexed, "])
def test_an_interrupted_demo_leaves_nothing_behind(number: int, code: int, at: str, tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    pipe = subprocess.PIPE
    with subprocess.Popen(COMMAND, stdout=pipe, stderr=pipe, text=True, start_new_session=True, env=environment) as run:
        assert run.stdout
        assert run.stderr
        assert any(at in row for row in run.stdout)
        if number == signal.SIGINT:
            os.killpg(run.pid, number)  # the whole group, as a terminal does
        else:
            run.terminate()
        output = run.stderr.read()
        run.wait(20)
    assert (run.returncode, output) == (code, "redisq: interrupted\n" if number == signal.SIGINT else "")
    assert list(tmp_path.iterdir()) == []
    deadline = time.monotonic() + 5
    with contextlib.suppress(ProcessLookupError):  # raised once no process of the group is left
        while time.monotonic() < deadline:
            os.killpg(run.pid, 0)
            time.sleep(0.01)
        pytest.fail("a process of the demo is still there")


@pytest.mark.parametrize(
    ("arguments", "code", "output"),
    [
        (["--url", "redis://:secret@127.0.0.1:1"], 1, "redisq: no server at redis://***@127.0.0.1:1: "),
        (["--url", "nonsense"], 1, "redisq: nonsense is not the URL of a Redis server: "),
        (["--files", "0"], 2, "give 1 or more"),
        (["--files", "many"], 2, "argument --files: invalid"),
    ],
)
def test_errors_are_one_line(arguments: list[str], code: int, output: str) -> None:
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == code
    assert done.stdout == ""
    assert output in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr


def test_without_rich_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['rich'] = None; from redisq.cli import main; sys.exit(main(['demo']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, "redisq: the demo needs rich: pip install 'redisq-lua[cli]'\n")


def line(pushed: str, done: str, again: str = "", waiting: int = 0, refused: int = 0) -> Line:
    return Line("a job", "done", Counter(pushed), Counter(done), Counter(again), waiting, refused)


@pytest.mark.parametrize(
    ("case", "lost", "twice", "complete"),
    [
        (line("", ""), 0, 0, True),
        (line("aab", "aab"), 0, 0, True),
        (line("aab", "a", waiting=2), 0, 0, True),
        (line("aab", "ab"), 1, 0, False),
        (line("aab", "a", waiting=1), 1, 0, False),
        (line("ab", "abb"), 0, 1, False),
        (line("ab", "abb", again="b"), 0, 0, True),
        (line("ab", "ab", again="b"), 0, 0, True),
        (line("ab", "abb", again="a"), 0, 1, False),
        (line("ab", "abbb", again="b"), 0, 1, False),
        (line("ab", "a", again="b"), 1, 0, False),
        (line("ab", "aa"), 1, 1, False),
        (line("ab", "abc"), 0, 1, False),
        (line("ab", "ab", waiting=1), 0, 0, False),
        (line("ab", "ab", refused=1), 0, 0, False),
    ],
)
def test_a_line_is_complete_if_each_thing_is_done_once_or_still_waits(
    case: Line, lost: int, twice: int, complete: bool
) -> None:
    assert (case.lost, case.twice, case.complete) == (lost, twice, complete)
    assert Tally([line("a", "a"), case]).complete is complete
    assert not Tally([case], ["something else"]).complete


@pytest.mark.parametrize(
    ("case", "said"),
    [
        (line("a", "a", again="a"), "1 redelivered, but not done once more"),
        (line("a", "aa", again="a"), "1 redelivered, and done once more"),
        (line("ab", "ab", again="ab"), "2 redelivered, of which none was done once more"),
        (line("ab", "aab", again="ab"), "2 redelivered, of which 1 was done once more"),
        (line("ab", "aabb", again="ab"), "2 redelivered, of which 2 were done once more"),
    ],
)
def test_how_many_were_redelivered_is_a_sentence(case: Line, said: str) -> None:
    console = Console(file=io.StringIO(), width=120)
    show_tally(console, Tally([case]))
    assert isinstance(console.file, io.StringIO)
    assert f"; {said}, as at-least-once allows; " in console.file.getvalue()


def test_the_endpoint_enforces_its_limit_in_every_span() -> None:
    now = 0.0
    endpoint = Endpoint(2, 1.0, clock=lambda: now)
    body = b'{"package": "json", "actions": [{"id": "1", "package": "json"}]}'
    steps = [(0.0, 200), (0.75, 200), (0.875, 429), (1.0, 200), (1.5, 429), (1.75, 200), (1.875, 429), (9.0, 200)]
    for now, status in steps:
        assert endpoint.receive(body) == status, now
    assert (endpoint.received, endpoint.refused, endpoint.busiest) == ({"1": 5}, 3, 2)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"package": "json", "actions": []}',
        b'{"package": "json", "actions": [{"package": "json"}]}',
        b'{"package": "json", "actions": [{"id": "1", "package": "json"}, {"id": "2", "package": "ast"}]}',
    ],
)
def test_the_endpoint_accepts_one_package_per_request(body: bytes) -> None:
    endpoint = Endpoint(1, 1.0)
    assert endpoint.receive(body) == 400
    assert (endpoint.malformed, endpoint.received) == (1, {})


def fail(channel: Channel) -> None:
    channel.receive()
    os._exit(3)


def finish_when_told(channel: Channel) -> None:
    assert channel.receive() == "done"
    channel.send("done")


def test_processes_report_their_end_and_their_exit_code() -> None:
    with Processes() as processes:
        processes.start(2, "one", finish_when_told)
        processes.start(1, "other", fail)
        processes.finish("one")
        received: list[object] = []
        while processes.at_work("one") or Ready("other") not in received:
            received += processes.receive(10)
        assert received.count("done") == 2
        processes.finish("other")
        with pytest.raises(RedisqError, match="other ended with exit code 3"):
            list(processes.receive(10))
    assert not processes.at_work()


def hang(channel: Channel, url: str) -> None:
    def handle(_: object) -> None:
        channel.send("handling")
        threading.Event().wait()

    with contextlib.closing(redis.Redis.from_url(url)) as client:
        channel.work(Worker(Buffer(client, "hang"), handle, grace=0.1))


def test_processes_that_are_ended_say_nothing(server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither one whose handler would never end, nor one that has only begun to start."""
    with server.client() as client:
        Buffer(client, "hang").push(1)
    with contextlib.suppress(KeyboardInterrupt), Processes() as processes:
        processes.start(1, "one", hang, server.url)
        while "handling" not in processes.receive(10):
            pass
        processes.start(5, "other", hang, server.url)
        raise KeyboardInterrupt
    assert not processes.at_work()
    assert capfd.readouterr() == ("", "")


class Dying:
    """What sends a signal to this process when it goes."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self.number)


@pytest.mark.skipif(sys.platform == "win32", reason="os.kill ends the process on Windows")
@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
@pytest.mark.parametrize(
    "during",
    [
        "redisq.demo.corpus.copy",
        "redisq.demo.processes.Processes.start",
        "redisq.demo.display.Display.tick",
        "redisq.demo.show_tally",
    ],
)
def test_a_signal_in_a_destructor_ends_the_demo(
    monkeypatch: pytest.MonkeyPatch, number: int, raised: type[BaseException], during: str
) -> None:
    """Python prints what a destructor raises, and goes on."""
    where, _, name = during.rpartition(".")
    owner = pkgutil.resolve_name(where)
    real = getattr(owner, name)

    def call(*args: Any) -> Any:
        Dying(number)
        return real(*args)

    monkeypatch.setattr(owner, name, call)
    before = signal.getsignal(number)
    with pytest.raises(raised):
        run_here()
    assert signal.getsignal(number) is before


@pytest.mark.skipif(sys.platform == "win32", reason="os.kill ends the process on Windows")
def test_a_second_signal_is_raised_at_once_if_it_comes_later(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("redisq.demo.interrupts.time", SimpleNamespace(monotonic=lambda: now[0]))
    with contextlib.suppress(KeyboardInterrupt), Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)  # the same request, as when a service is stopped
        now[0] = 2.0
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        interrupts.check()


@pytest.mark.skipif(sys.platform == "win32", reason="os.kill ends the process on Windows")
def test_an_ignored_signal_stays_ignored() -> None:
    """As in the background of a shell, or under nohup."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupts():
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_file_that_is_edited_while_its_worker_crashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is handed out once more, for both, with no attempts, and is counted as redelivered."""
    (tmp_path / "a.py").write_text("a = 1\n")
    monkeypatch.setattr("random.choice", lambda paths: paths[0])
    with contextlib.closing(Index(tmp_path / "index.db")) as index, fakeredis.FakeRedis() as client:
        index.create()
        job = Indexing(client, "run", tmp_path, index, ["a.py"])
        job.push_all()
        assert job.queue.reserve(lease=0.001)
        index.put("a.py", b"a = 1\n")  # then crash before the ack
        job.edit()
        job.record_kill(Held("indexer", ["a.py"]))
        again = job.queue.reserve(timeout=5)
        assert again
        assert (again.attempts, again.priorities) == (1, [0])
        index.put("a.py", (tmp_path / "a.py").read_bytes())
        job.record(Indexed("a.py", 0, again.attempts, time.monotonic()))
        again.ack()
        assert (job.tally_line().complete, job.tally_line().again, list(job.faults())) == (True, {"a.py": 1}, [])
        job.edit()
        assert job.pushed["a.py"] == 2
