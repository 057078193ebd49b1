"""`redisq top`: the page, the rates, and the terminal."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import redis
from rich.console import Console

from redisq import Buffer, PriorityQueue
from redisq.cli import samples
from redisq.cli.samples import Sample, Sampler, ServerFacts, rows
from redisq.cli.top_page import Page, _count, _rate
from redisq.core.buffer import BufferStats
from redisq.core.queues import QueueInfo, QueueOverview
from redisq.embedded import Server
from tests.cli.conftest import COMMAND, UNREACHABLE, Run
from tests.faults.node import Node

# -- the page, without a server


def stats(**held: object) -> BufferStats:
    """Return the stats of an empty buffer, with some values replaced."""
    empty: dict[str, object] = dict.fromkeys(BufferStats.__dataclass_fields__, 0)
    empty |= {"oldest_wait": None, "next_expiry": None, "paused": False, "pause_reason": "", "paused_until": None}
    return BufferStats(**{**empty, **held})  # type: ignore[arg-type]


def sample(queues: Mapping[str, BufferStats | Exception], at: float = 1_000.0) -> Sample:
    """Return a sample of buffers by name."""
    found = [
        QueueOverview(QueueInfo(name, "buffer", 2), None, held)
        if isinstance(held, Exception)
        else QueueOverview(QueueInfo(name, "buffer", 2), held)
        for name, held in queues.items()
    ]
    return Sample(found, ServerFacts(1, "Redis 7.0.15", 3 << 20, 1, 42), at)


def render(now: Sample, before: Sample | None = None, width: int = 80, height: int = 24, **about: str) -> list[str]:
    """Return the lines of a page on a terminal of this size."""
    page = Page("redis://h", now, rows(now, before, "waiting"), 0, "sorted", **about)
    console = Console(width=width, height=height, force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(page.render(width, height))
    return captured.get().splitlines()


@pytest.mark.parametrize("width", [30, 80, 140])
@pytest.mark.parametrize("height", [5, 10, 24])
@pytest.mark.parametrize("count", [0, 1, 5, 6, 7, 100])
def test_a_page_fits_the_terminal_and_counts_hidden_queues(width: int, height: int, count: int) -> None:
    full = {
        f"a-queue-with-a-long-name-{number:060}": stats(
            waiting=10**8 + number, oldest_wait=1e6, done=10**9, paused=True, pause_reason="it is down " * 20
        )
        for number in range(count)
    }
    now = sample(full)
    before = sample({name: stats() for name in full}, 999.0)
    lines = render(now, before, width, height)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    shown = sum(line.startswith("a-queue") for line in lines)
    hidden = re.fullmatch(r"(\d+) more not shown", lines[-1])
    assert shown + (int(hidden[1]) if hidden else 0) == count
    if count <= height - 4:
        assert not hidden


def test_the_content_of_a_page() -> None:
    now = sample(
        {
            "mails": stats(waiting=90, done=250, failed=3, leased=2, delayed=1, dead=7, oldest_wait=75.0),
            "held\n": stats(waiting=100_000, paused=True, paused_until=1_090.0, pause_reason="the API is\ndown"),
            "old": ValueError("not\nreadable"),
            "new": stats(waiting=1),
        }
    )
    before = sample({"mails": stats(waiting=100, done=50), "held\n": stats(waiting=99_500)}, 998.0)
    where, summary, blank, columns, *lines = render(now, before, 140)
    assert where.split("  ")[:5] == ["redis://h", "Redis 7.0.15", "3.0 MiB", "1 client", "42 ops/s"]
    assert (summary, blank) == ("4 queues, 100,091 waiting; sorted", "")
    titles = "queue waiting change/s done/s failed/s leased delayed dead oldest paused"
    assert columns.split() == titles.split()
    held, mails, new, old = lines
    assert held.split(maxsplit=8) == ["held\\n", "100k", "+250", "0", "0", "0", "0", "0", "1m30s: the API is\\ndown"]
    assert mails.split() == ["mails", "90", "-5.0", "100", "1.5", "2", "1", "7", "1m15s"]
    assert new.split() == ["new", "1", "0", "0", "0"]  # no rates yet
    assert old == "old cannot be read: not\\nreadable"
    assert render(now, before)[4].split()[-1] == "1m30s"  # no room for a reason
    assert render(now, before, outage="Redis is unavailable: gone")[1] == "Redis is unavailable: gone"


@pytest.mark.parametrize(
    ("width", "titles"),
    [
        (80, "queue waiting change/s done/s failed/s leased delayed dead oldest paused"),
        (72, "queue waiting change/s done/s failed/s leased dead oldest paused"),
        (50, "queue waiting done/s dead oldest paused"),
        (27, "queue waiting paused"),
    ],
)
def test_a_narrow_terminal_shows_fewer_columns(width: int, titles: str) -> None:
    _, _, _, columns, row = render(sample({"mails": stats(waiting=7)}), width=width)
    assert columns.split() == titles.split()
    assert row.split()[:2] == ["mails", "7"]


def test_counters_that_restarted_have_no_rates() -> None:
    (row,) = rows(sample({"q": stats(done=5)}), sample({"q": stats(done=500)}, 999.0), "waiting")
    assert (row.change, row.done, row.failed) == (None, None, None)


@pytest.mark.parametrize(
    ("sort", "order"), [("waiting", "cabd"), ("oldest", "acbd"), ("done", "bacd"), ("name", "abcd")]
)
def test_sorts(sort: str, order: str) -> None:
    """Unreadable queues come last; ties are broken by name."""
    held: dict[str, BufferStats | Exception] = {
        "a": stats(waiting=5, oldest_wait=50.0),
        "b": stats(waiting=0, done=10),
        "c": stats(waiting=9, oldest_wait=1.0),
        "d": ValueError("x"),
    }
    before = sample({name: stats() for name in held}, 999.0)
    assert "".join(row.queue.info.name for row in rows(sample(held), before, sort)) == order


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (99_999, "99,999"), (100_000, "100k"), (999_499, "999k"), (999_500, "1M"), (12_345_678, "12.3M")],
)
def test_counts_are_short(number: int, text: str) -> None:
    assert _count(number) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.0, "0"), (0.04, "0"), (-0.04, "0"), (0.5, "+0.5"), (-9.4, "-9.4"), (9.96, "+10"), (-1234.5, "-1,234")],
)
def test_rates_are_short(number: float, text: str) -> None:
    assert _rate(number, "+") == text


# -- with a server


@pytest.mark.server
def test_without_a_terminal_it_prints_one_page(client: redis.Redis, run: Run, server: Server) -> None:
    Buffer(client, "b").push(1, 2, 3)
    PriorityQueue(client, "p").push("a")
    client.hset("redisq:{old}:meta", "queue", "1 buffer")
    code, out, err = run("top", "--every", "100ms")
    assert (code, err) == (0, "")
    where, summary, _, _, b, p, old = out.splitlines()
    assert where.startswith(f"{server.url}  ")
    assert summary == "3 queues, 4 waiting; sorted by waiting, every 100ms"
    assert b.split()[:8] == ["b", "3", "0", "0", "0", "0", "0", "0"]
    assert p.split() == ["p", "1", "0", "0", "0", "0", "0", "0"]
    assert old == "old has layout 1, not 2"


@pytest.mark.server
def test_rates_as_json(client: redis.Redis, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer: Buffer[int] = Buffer(client, "b")
    buffer.push(*range(10))

    def work(_: float) -> None:
        batch = buffer.reserve(4)
        assert batch
        batch.ack()
        buffer.push(*range(6))

    monkeypatch.setattr("redisq.cli.top.time.sleep", work)
    found = json.loads(run("top", "--json", "--sort", "name")[1])
    assert {"server", "version", "memory", "clients", "ops", "nodes", "time", "queues"} == set(found)
    (b,) = found["queues"]
    assert (b["queue"], b["waiting"], b["done"]) == ("b", 12, 4)
    assert b["done_per_second"] == pytest.approx(2 * b["change_per_second"]) != 0
    assert b["failed_per_second"] == 0


@pytest.mark.server
def test_it_rarely_scans_for_queues(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "_FIND_EVERY", 3_600.0)
    Buffer(client, "b").push(1)
    sampler = Sampler(client, "redisq")
    assert [one.info.name for one in sampler.look().queues] == ["b"]
    Buffer(client, "new").push(1)
    client.config_resetstat()
    assert [one.info.name for one in sampler.look().queues] == ["b"]
    assert "cmdstat_scan" not in client.info("commandstats")
    monkeypatch.setattr(samples, "_FIND_EVERY", 0.0)
    assert [one.info.name for one in sampler.look().queues] == ["b", "new"]


@pytest.mark.server
def test_a_user_without_info_sees_the_queues(client: redis.Redis, run: Run, server: Server) -> None:
    Buffer(client, "b").push(1)
    rights = {"keys": ["*"], "categories": ["+@all"], "commands": ["-info"]}
    client.acl_setuser("u", enabled=True, passwords=["+p"], **rights)  # type: ignore[arg-type]
    try:
        found = json.loads(run("top", "--every", "100ms", "--json", "--url", f"{server.url}?username=u&password=p")[1])
    finally:
        client.acl_deluser("u")
    assert "version" not in found
    assert found["queues"][0]["waiting"] == 1


# -- on a terminal


class Terminal:
    """A context manager that runs a command on a terminal."""

    def __init__(self, *command: str, size: tuple[int, int] = (80, 24)) -> None:
        self.ours, self.theirs = pty.openpty()
        self.resize(*size)
        # These would override the size of the terminal.
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            [*COMMAND, *command],
            stdin=self.theirs,
            stdout=self.theirs,
            stderr=self.theirs,
            env={**environment, "TERM": "xterm-256color"},
            start_new_session=True,
        )

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.ours)
        os.close(self.theirs)

    def resize(self, width: int, height: int) -> None:
        """Change the size of the terminal."""
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.ours, text.encode())

    def read(self, until: Callable[[str], object], seconds: float = 30.0) -> str:
        """Read the output from now on, without color codes, until a condition holds."""
        output, end = "", time.monotonic() + seconds
        while not until(output):
            assert select.select([self.ours], [], [], max(0.0, end - time.monotonic()))[0], f"timed out: {output}"
            output += re.sub(r"\x1b\[[\d;]*m", "", os.read(self.ours, 65_536).decode(errors="replace"))
        return output

    def wait(self) -> int:
        """Wait for the end of the command."""
        while self.process.poll() is None:
            if select.select([self.ours], [], [], 0.05)[0]:
                os.read(self.ours, 65_536)
        return self.process.returncode

    @property
    def is_cooked(self) -> bool:
        """Whether lines are edited and keys echoed, as before the command."""
        modes = termios.tcgetattr(self.theirs)[3]
        return bool(modes & termios.ICANON and modes & termios.ECHO)


@pytest.fixture
def node(binary: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    """Run a server that may be killed, with a queue."""
    with Node(binary) as node:
        monkeypatch.setenv("REDIS_URL", f"redis://{node.address[0]}:{node.port}")
        push(node)
        yield node


def push(node: Node) -> None:
    """Push an item."""
    with contextlib.closing(redis.Redis(*node.address)) as client:
        Buffer(client, "mails").push(1)


@pytest.mark.server
@pytest.mark.parametrize(("end", "code"), [("q", 0), ("\x03", 130), (signal.SIGTERM, 143)])
@pytest.mark.usefixtures("node")
def test_it_restores_the_terminal(end: str | signal.Signals, code: int) -> None:
    with Terminal("top", "--every", "1h") as terminal:
        terminal.read(lambda output: "mails" in output)
        assert not terminal.is_cooked
        if isinstance(end, str):
            # A session of its own has no controlling terminal that turns Ctrl-C into a signal.
            terminal.type(end) if end == "q" else terminal.process.send_signal(signal.SIGINT)
        else:
            terminal.process.send_signal(end)
        terminal.read(lambda output: "\x1b[?1049l" in output)  # the alternate screen is left
        assert terminal.wait() == code
        assert terminal.is_cooked


@pytest.mark.server
@pytest.mark.usefixtures("node")
def test_keys_and_resizes_take_effect_at_once() -> None:
    with Terminal("top", "--every", "1h", size=(100, 24)) as terminal:
        terminal.read(lambda output: "sorted by waiting" in output)
        terminal.type("s")
        terminal.read(lambda output: "sorted by oldest" in output)
        terminal.type("xyz")  # ignored
        terminal.resize(40, 12)
        output = terminal.read(lambda output: "mails" in output)
        assert "every 1h; q quits, s sorts" not in output  # cut off


@pytest.mark.server
def test_it_survives_an_outage(node: Node) -> None:
    with Terminal("top", "--every", "200ms", size=(120, 24)) as terminal:
        terminal.read(lambda output: "mails" in output)
        node.stop()
        terminal.read(lambda output: "Redis is unavailable, trying again every 200ms: " in output)
        terminal.read(lambda output: "mails" in output)  # as before
        node.start()
        push(node)
        output = terminal.read(lambda output: "1 queue, 1 waiting" in output)
        assert "unavailable" not in output.rpartition("1 queue, 1 waiting")[2]
        terminal.type("q")
        assert terminal.wait() == 0


@pytest.mark.server
def test_it_does_not_start_without_a_server(run: Run) -> None:
    code, out, err = run("top", "--url", UNREACHABLE)
    assert (code, out) == (3, "")
    assert err.startswith("redisq: no server at redis://***@127.0.0.1:1: ")
