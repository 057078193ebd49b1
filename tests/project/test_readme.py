"""Every code block of the READMEs runs."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import redis
import redis.asyncio

import redisq.asyncio  # noqa: F401  (before the tests put another class in the place of redis.asyncio.Redis)
from redisq import Buffer
from redisq.embedded import Server

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
BLOCKS = BLOCK.findall((ROOT / "README.md").read_text())
COMPOSED = [code for language, code in BLOCK.findall((ROOT / "lua" / "README.md").read_text()) if language == "python"]
PYTHON = [code for language, code in BLOCKS if language == "python"]
LINES = [line for language, code in BLOCKS if language == "sh" for line in code.replace("\\\n", "").splitlines()]
SHELL = [line for line in LINES if line and not line.startswith("redis-cli ")]  # faults/test_security.py tries that


def test_every_block_is_of_a_kind_that_runs() -> None:
    """A block in another language would stand there untested."""
    assert {language for language, _ in BLOCKS} == {"python", "sh"}
    assert PYTHON
    assert SHELL


@pytest.mark.parametrize("code", PYTHON + COMPOSED, ids=range(len(PYTHON + COMPOSED)))
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the examples leave their client to the end of the program
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_python_block_runs(code: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the block as it stands, with the tests' server in the place of the one on the standard port."""
    monkeypatch.setattr(redis, "Redis", partial(redis.Redis, unix_socket_path=server.socket))
    monkeypatch.setattr(redis.asyncio, "Redis", partial(redis.asyncio.Redis, unix_socket_path=server.socket))
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})


def test_printed_comments_of_the_priority_example_are_true(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the example says it prints is what it prints."""
    code = next(code for code in PYTHON if "a full re-index" in code)
    test_python_block_runs(code, server, monkeypatch)
    said = re.search(r"print\(batch.items\[0\], batch.priorities\[0\]\)  # (.*)", code)
    assert said
    assert capsys.readouterr().out.split("\n")[:-1] == said[1].split(", ")


def test_a_push_in_ones_own_transaction_is_whole(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of `lua/README.md` leave items that Python reads, in a queue that is sound."""
    assert len(COMPOSED) == 2
    with server.client() as client:
        client.flushall()
        for code in COMPOSED:
            test_python_block_runs(code, server, monkeypatch)
        monkeypatch.undo()
        mails: Buffer[str] = Buffer(client, "mails")
        assert mails.audit().ok
        assert mails.pop("eu") == ["welcome user 1", "welcome user 2"]
        assert client.hget("{mails}:user:2", "state") == client.hget("user:1", "state") == b"confirmed"


def check_command(command: str) -> None:
    """Check that `make` knows the target, or `redisq --help` each option."""
    program, *words = command.partition(" < ")[0].split()
    if program == "make":
        subprocess.run(["make", "-n", *words], cwd=ROOT, check=True, capture_output=True)
        return
    assert program == "redisq"
    verbs = words[:2] if words[0] in ("dead", "lua") else words[:1]
    told = subprocess.run(
        [sys.executable, "-m", "redisq", *verbs, "--help"], check=True, capture_output=True, text=True
    )
    for word in words:
        assert not word.startswith("--") or word in told.stdout


@pytest.mark.parametrize("command", SHELL)
def test_shell_line_is_a_command_that_is_there(command: str) -> None:
    """What the commands do is tested where it belongs."""
    check_command(command)
