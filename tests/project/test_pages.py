"""Every code block of the documentation runs, every command exists, every link leads somewhere."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import pytest
import redis
import redis.asyncio

from redisq import Buffer, PriorityQueue, Worker, queues
from redisq.embedded import Server
from tests.conftest import skip_or_fail
from tests.project.page import BLOCK, blocks, run, stand_in, write_files

ROOT = Path(__file__).parents[2]
DOCS, GUIDES = ROOT / "docs", ROOT / "docs" / "guides"
WRITTEN = ("lua", "project")  # folders that the documentation's build writes
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "lua/README.md", "lua/CLIENTS.md")),
    ROOT / "tests" / "README.md",
    *sorted(page for page in DOCS.rglob("*.md") if page.parent.name not in WRITTEN and page != DOCS / "commands.md"),
]
LINK = re.compile(r"\]\(([^)\s]+)\)")
QUEUE = re.compile(r'(?:Buffer|PriorityQueue)\(\s*[\w.]+(?:\(.*?\))?,\s*"([\w-]+)"')
PACKAGES = {"django": "django", "fastapi": "fastapi", "flask": "flask", "gunicorn": "gunicorn", "pytest": "pytest"}
"""Pages that run in a process of their own, since what they set holds for the whole process, and what each needs."""
KINDS = {"python", "sh", "text", "mermaid", "", "{toctree}", "{eval-rst}", "{literalinclude} "}
OTHER_PROGRAMS = {".", ".ci/run", ".venv/bin/pre-commit", ".venv/bin/pytest", "cd", "docker", "echo", "git", "gunicorn"}
OTHER_PROGRAMS |= {"mkdir", "pip", "python", "python3", "redis-cli"}


def name(page: Path) -> str:
    return str(page.relative_to(ROOT).with_suffix(""))


def lines(page: Path) -> list[str]:
    return [line for _, block in blocks(page, "sh") for line in block.replace("\\\n", "").splitlines() if line]


# lua/README.md: its blocks are separate programs, see below.
CODE = [page for page in PAGES if blocks(page, "python") and page != ROOT / "lua" / "README.md"]
HERE = [page for page in CODE if page.stem not in PACKAGES]
COMMANDS = sorted({line for page in PAGES for line in lines(page)})


@pytest.fixture
def client(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[redis.Redis]:
    """Return a client of the test server, which replaces the one on the standard port."""
    with closing(server.client()) as client:
        for module in (redis, redis.asyncio):
            monkeypatch.setattr(module, "Redis", stand_in(str(server.socket), module.Redis))
        yield client


def check_queues(client: redis.Redis) -> None:
    for found in queues(client):
        order = found.kind
        queue = Buffer(client, found.name) if order == "buffer" else PriorityQueue(client, found.name, order=order)
        assert queue.audit().ok


@pytest.mark.parametrize("page", HERE, ids=name)
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the pages do not close their client
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_page_prints_what_its_comments_say(
    page: Path, client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_files(page, tmp_path)
    run(page)
    check_queues(client)


@pytest.mark.parametrize("page", [page for page in CODE if page.stem in PACKAGES], ids=name)
def test_a_page_of_a_framework_prints_what_its_comments_say(page: Path, server: Server, tmp_path: Path) -> None:
    if find_spec(PACKAGES[page.stem]) is None:
        skip_or_fail(f"{PACKAGES[page.stem]} is missing: pip install 'redisq-lua[test]'")
    program = [sys.executable, "-m", "tests.project.page", str(page), str(server.socket)]
    done = subprocess.run(
        program, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    with closing(server.client()) as client:
        check_queues(client)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_exists(command: str) -> None:
    """With its options, by its help; its effects are tested with the command line."""
    program, *words = command.partition(" < ")[0].partition("  #")[0].split()
    if program in OTHER_PROGRAMS or "=" in program:
        return
    if program == "make":
        subprocess.run(["make", "-n", *words], cwd=ROOT, check=True, capture_output=True)
        return
    assert program == "redisq"
    if words[0] == "web" and find_spec("redisq.web") is None:
        pytest.skip("redisq.web is not there")
    verbs = words[:2] if words[0] in ("adopt", "dead", "lua") else words[:1]
    helped = [sys.executable, "-m", "redisq", *verbs, "--help"]
    shown = subprocess.run(helped, check=True, capture_output=True, text=True).stdout
    for word in words:
        assert not word.startswith("--") or word in shown


def test_each_page_has_queues_of_its_own() -> None:
    """Who follows two of them on one Redis must not meet another structure, other settings, or foreign items."""
    own_servers = GUIDES / "pytest.md"
    programs = [*(page for page in CODE if page.parent != ROOT / "lua"), *(ROOT / "examples").glob("*.py")]
    pages: dict[str, set[str]] = {}
    for page in programs:
        if page != own_servers:
            for queue in QUEUE.findall(page.read_text("utf-8")):
                pages.setdefault(queue, set()).add(name(page))
    assert len(pages) > 30
    assert {queue: found for queue, found in pages.items() if len(found) > 1} == {}


def test_every_logger_is_documented() -> None:
    source = "".join(path.read_text("utf-8") for path in (ROOT / "redisq").rglob("*.py"))
    used = set(re.findall(r'getLogger\("(redisq[\w.]*)"\)', source))
    assert source.count("getLogger(") == len(re.findall(r'getLogger\("', source))  # none has another kind of name
    logs = (GUIDES / "monitoring.md").read_text("utf-8").partition("## Logs")[2]
    assert set(re.findall(r"^\| `(redisq[\w.]*)` \|", logs.partition("\n## ")[0], re.MULTILINE)) == used


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_is_of_a_kind_that_is_tested(page: Path) -> None:
    """A block in another language would go untested."""
    kinds = {match[1] for match in BLOCK.finditer(page.read_text("utf-8"))}
    assert {re.sub(r"(\} ).*", r"\1", kind) for kind in kinds} <= KINDS


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and the site make them."""
    text = BLOCK.sub("", page.read_text("utf-8"))
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    """To a file of the repository, and there to a heading. The site's build checks what it writes itself."""
    for target in LINK.findall(BLOCK.sub("", page.read_text("utf-8"))):
        if re.match(r"\w+:|/", target):
            continue
        path, _, anchor = target.partition("#")
        found = page.parent / path if path else page
        assert found.exists(), target
        if anchor and found.suffix == ".md":
            assert anchor in anchors(found), target


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent == GUIDES], ids=name)
def test_a_guide_is_short_and_in_the_index(page: Path) -> None:
    assert len(page.read_text("utf-8").splitlines()) <= 140
    index = (GUIDES / "index.md").read_text("utf-8")
    assert page.name in ("index.md", "rate-limiter.md") or f"({page.name})" in index


def test_each_setting_is_in_the_guide_to_deploys() -> None:
    """What happens while workers differ in it."""
    text = (GUIDES / "deploys.md").read_text("utf-8")
    settings = {one for thing in (Buffer, PriorityQueue, Worker) for one in inspect.signature(thing).parameters}
    hooks = {"on_ack", "on_release", "on_dead"}
    assert {one for one in settings - {"client", "name", "queue", "handler"} - hooks if f"`{one}`" not in text} == set()


# -- pages with more to them than their blocks


COMPOSED = [code for _, code in blocks(ROOT / "lua" / "README.md", "python")]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_push_inside_an_own_transaction(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of `lua/README.md` push items that Python reads, and the queue passes its audit."""
    assert len(COMPOSED) == 2
    for code in COMPOSED:
        exec(compile(code, "lua/README.md", "exec"), {"__name__": "__main__"})
    monkeypatch.undo()
    mails: Buffer[str] = Buffer(client, "mails")
    assert mails.audit().ok
    assert mails.pop("eu") == ["welcome user 1", "welcome user 2"]
    assert client.hget("{mails}:user:2", "state") == client.hget("user:1", "state") == b"confirmed"
