"""`redisq worker`: runs a user's Worker in several processes."""

from __future__ import annotations

import multiprocessing
import os
import pty
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from redisq import Buffer
from redisq.cli import worker_process
from tests.cli.conftest import COMMAND, UNREACHABLE
from tests.waiting import until

pytestmark = pytest.mark.server

JOBS = """
import asyncio
import multiprocessing
import os
import time
from pathlib import Path

import redis

import redisq.asyncio
from redisq import Buffer, Worker

HERE = Path(__file__).parent


def note(batch):
    with open(HERE / "done", "a") as done:
        done.write("".join(f"{item}\\n" for item in batch.items))


def worker(client):
    return Worker(Buffer(client, "q"), note, size=10, on_ack=lambda batch: (HERE / "hooked").touch())


def idler(client):
    (HERE / str(os.getpid())).touch()
    return worker(client)


ready = Worker(Buffer(redis.Redis.from_url(os.environ["REDIS_URL"]), "q"), note, size=10)


async def note_later(batch):
    await asyncio.sleep(0)
    note(batch)


async def awaited(client):
    return redisq.asyncio.Worker(redisq.asyncio.Buffer(client, "q"), note_later, size=10)


def mortal(client):
    def die_once(batch):
        if not (HERE / "died").exists():
            (HERE / "died").touch()
            os._exit(9)
        note(batch)

    return Worker(Buffer(client, "q", lease=0.2), die_once, size=10)


def slow(client):
    def wait(batch):
        (HERE / "begun").touch()
        time.sleep(60)

    return Worker(Buffer(client, "q"), wait)


def finishing(client):
    made = worker(client)
    made.handler = lambda batch: made.stop()
    return made


def wrong(client):
    return 5


def failing(client):
    raise KeyError("what")


number = 5
"""


@pytest.fixture
def jobs(client: redis.Redis, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Return a function that starts `redisq worker` with one of the jobs above."""
    assert client.ping()
    (tmp_path / "jobs.py").write_text(JOBS)
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*COMMAND, "worker", *arguments],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=20)


def is_empty(client: redis.Redis) -> bool:
    held = Buffer(client, "q").stats()
    return held.waiting + held.leased + held.delayed == 0


Jobs = Callable[..., "subprocess.Popen[str]"]


@pytest.mark.parametrize("target", [["jobs:worker"], ["jobs:ready"], ["jobs:awaited", "--asyncio"], ["jobs:mortal"]])
def test_worker_processes_everything_and_ends_cleanly(
    client: redis.Redis, jobs: Jobs, tmp_path: Path, target: list[str]
) -> None:
    Buffer(client, "q").push(*range(500))
    process = jobs(*target, "--processes", "2")
    until(lambda: is_empty(client))
    process.terminate()
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, ""), err
    assert sorted(map(int, (tmp_path / "done").read_text().split())) == list(range(500))
    assert (tmp_path / "hooked").exists() == (target == ["jobs:worker"])
    if target == ["jobs:mortal"]:
        assert "died with exit code 9, starts again in 1 s" in err
    else:
        assert "ended: 50 batches acked with 500 items, 0 released, 0 dead" in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_every_process_counts_once_and_a_second_one_ends_the_grace(
    client: redis.Redis, jobs: Jobs, tmp_path: Path, number: int, code: int
) -> None:
    Buffer(client, "q").push(1)
    process = jobs("jobs:slow")
    until((tmp_path / "begun").exists)
    os.killpg(process.pid, number)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1.2)  # longer than the time within which signals are one request
    assert Buffer(client, "q").stats().leased == 1
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=20)
    assert process.returncode == code, err
    held = Buffer(client, "q").stats()
    assert (held.leased, held.delayed) == (0, 1)  # released, due at once


def test_worker_processes_end_with_their_parent(jobs: Jobs, tmp_path: Path) -> None:
    process = jobs("jobs:idler", "--processes", "2")
    until(lambda: len([path for path in tmp_path.iterdir() if path.name.isdigit()]) == 2)
    pids = [int(path.name) for path in tmp_path.iterdir() if path.name.isdigit()]
    process.kill()
    process.wait()

    def has_ended(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            return True

    until(lambda: all(map(has_ended, pids)))


def test_a_worker_that_stops_itself_exits_with_0(client: redis.Redis, jobs: Jobs) -> None:
    Buffer(client, "q").push(1)
    process = jobs("jobs:finishing")
    _, err = process.communicate(timeout=20)
    assert process.returncode == 0, err


def test_worker_prints_rates_on_a_terminal(client: redis.Redis, tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(JOBS)
    Buffer(client, "q").push(*range(500))
    ours, theirs = pty.openpty()
    with subprocess.Popen([*COMMAND, "worker", "jobs:worker"], cwd=tmp_path, stdout=theirs) as process:
        os.close(theirs)
        message = ""
        while "500 items in all" not in message:
            message += os.read(ours, 4096).decode()
        process.terminate()
        assert process.wait(20) == 0
    os.close(ours)
    assert "1 running  acked" in message


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["jobs"], 2, "redisq worker: error: jobs is not MODULE:NAME"),
        (["nobody:worker"], 2, "redisq: no module nobody on the path or in "),
        (["jobs:nobody"], 2, "redisq: module jobs has no nobody"),
        (["jobs:number"], 2, "redisq: jobs:number is or returns int, not a redisq.Worker"),
        (["jobs:wrong"], 2, "redisq: jobs:wrong is or returns int, not a redisq.Worker"),
        (["jobs:wrong", "--asyncio"], 2, "redisq: jobs:wrong is or returns int, not a redisq.asyncio.Worker"),
        (["jobs:ready", "--asyncio"], 2, "not a redisq.asyncio.Worker: leave --asyncio out"),
        (["jobs:failing"], 1, "redisq: jobs:failing failed: KeyError: 'what'"),
        (["jobs:worker", "--url", UNREACHABLE], 3, "redisq: no server at redis://***@127.0.0.1:1: "),
        (["jobs:awaited", "--asyncio", "--url", UNREACHABLE], 3, "redisq: no server at redis://***@127.0.0.1:1: "),
        (["jobs:worker", "--url", "nonsense"], 2, "redisq: nonsense is not the URL of a Redis server"),
    ],
)
def test_a_worker_that_cannot_start(jobs: Jobs, arguments: list[str], code: int, message: str) -> None:
    process = jobs(*arguments)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code, err
    assert message in err.splitlines()[-1]
    assert "secret" not in err


def test_a_process_whose_parent_is_gone_before_it_has_begun() -> None:
    """It is stopped as its pipe says, with no traceback."""
    parent, child = multiprocessing.Pipe()
    parent.close()
    with child:
        worker_process._send(child, worker_process.BEGUN)
