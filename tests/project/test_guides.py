"""Every code block of `docs/guides` runs on a real server and prints what the comment beside each `print` says."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio

from redisq import Buffer, PriorityQueue, queues
from redisq.embedded import Server
from tests.project.test_readme import ROOT, check_command

GUIDES = ROOT / "docs" / "guides"
PAGES = sorted(GUIDES.glob("*.md"))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)#\s]+)")


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """Return the blocks of a language, each with its first line number."""
    text = page.read_text("utf-8")
    return [(text.count("\n", 0, match.start(2)), match[2]) for match in BLOCK.finditer(text) if match[1] == language]


CODE = [page for page in PAGES if blocks(page, "python")]
COMMANDS = [line for page in PAGES for _, block in blocks(page, "sh") for line in block.splitlines()]


@pytest.fixture
def client(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[redis.Redis]:
    """Return a client of the test server, which replaces the one on the standard port."""
    with closing(server.client()) as client:
        monkeypatch.setattr(redis, "Redis", partial(redis.Redis, unix_socket_path=server.socket))
        monkeypatch.setattr(redis.asyncio, "Redis", partial(redis.asyncio.Redis, unix_socket_path=server.socket))
        yield client


@pytest.mark.parametrize("page", CODE, ids=lambda page: page.stem)
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the guides do not close their client
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_page_prints_what_its_comments_say(page: Path, client: redis.Redis) -> None:
    """The blocks of a page are one program. A comment separates what a line prints several times by commas."""
    printed: defaultdict[int, list[str]] = defaultdict(list)

    def show(*values: object) -> None:
        printed[sys._getframe(1).f_lineno].append(" ".join(map(str, values)))

    program: dict[str, Any] = {"__name__": "__main__", "print": show}
    for before, code in blocks(page, "python"):
        exec(compile("\n" * before + code, str(page), "exec"), program)
    expected = {
        number: line.partition("  # ")[2]
        for before, code in blocks(page, "python")
        for number, line in enumerate(code.splitlines(), before + 1)
        if re.match(r"\s*print\(", line)
    }
    assert {number: ", ".join(lines) for number, lines in printed.items()} == expected
    for found in queues(client):
        order = found.kind
        queue = Buffer(client, found.name) if order == "buffer" else PriorityQueue(client, found.name, order=order)
        assert queue.audit().ok


def test_the_tests_of_the_page_on_testing_pass(tmp_path: Path) -> None:
    """In a project of their own, without warnings."""
    (tmp_path / "test_page.py").write_text("\n".join(code for _, code in blocks(GUIDES / "testing.md", "python")))
    options = ["-q", "-W", "error", "-p", "no:cacheprovider", "-o", "asyncio_default_fixture_loop_scope=function"]
    done = subprocess.run([sys.executable, "-m", "pytest", *options], cwd=tmp_path, capture_output=True, text=True)
    assert "4 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_exists(command: str) -> None:
    """With its options, by its help; its effects are tested with the command line."""
    check_command(command)


def test_every_block_is_of_a_kind_that_is_tested() -> None:
    """A block in another language would go untested."""
    assert {match[1] for page in PAGES for match in BLOCK.finditer(page.read_text("utf-8"))} <= {"python", "sh"}
    assert CODE


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_is_short_and_its_links_work(page: Path) -> None:
    """Each page is in the index; a link leads to a file of the repository."""
    text = page.read_text("utf-8")
    assert len(text.splitlines()) <= 90
    for link in LINK.findall(text):
        assert (page.parent / link).exists(), link
    assert page.name == "README.md" or f"({page.name})" in (GUIDES / "README.md").read_text("utf-8")
