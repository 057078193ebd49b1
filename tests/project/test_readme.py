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
SHELL = [line for line in LINES if line and not line.startswith("redis-cli ")]  # tested in faults/test_security.py


def test_every_block_is_of_a_kind_that_is_tested() -> None:
    """A block in another language would go untested."""
    assert {language for language, _ in BLOCKS} == {"python", "sh"}
    assert PYTHON
    assert SHELL


@pytest.mark.parametrize("code", PYTHON + COMPOSED, ids=range(len(PYTHON + COMPOSED)))
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the examples do not close their client
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_python_block_runs(code: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the block unchanged, with the test server in place of the one on the standard port."""
    monkeypatch.setattr(redis, "Redis", partial(redis.Redis, unix_socket_path=server.socket))
    monkeypatch.setattr(redis.asyncio, "Redis", partial(redis.asyncio.Redis, unix_socket_path=server.socket))
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})


def test_the_priority_example_prints_what_its_comments_say(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = next(code for code in PYTHON if "a full re-index" in code)
    test_python_block_runs(code, server, monkeypatch)
    comment = re.search(r"print\(batch.items\[0\], batch.priorities\[0\]\)  # (.*)", code)
    assert comment
    assert capsys.readouterr().out.split("\n")[:-1] == comment[1].split(", ")


def test_push_inside_an_own_transaction(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of `lua/README.md` push items that Python reads, and the queue passes its audit."""
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
    """Check that `make` has the target, or that `redisq --help` lists each option."""
    program, *words = command.partition(" < ")[0].split()
    if program == "make":
        subprocess.run(["make", "-n", *words], cwd=ROOT, check=True, capture_output=True)
        return
    assert program == "redisq"
    verbs = words[:2] if words[0] in ("adopt", "dead", "lua") else words[:1]
    shown_help = subprocess.run(
        [sys.executable, "-m", "redisq", *verbs, "--help"], check=True, capture_output=True, text=True
    )
    for word in words:
        assert not word.startswith("--") or word in shown_help.stdout


@pytest.mark.parametrize("command", SHELL)
def test_a_shell_line_is_an_existing_command(command: str) -> None:
    """Its effects are tested with the command line."""
    check_command(command)
