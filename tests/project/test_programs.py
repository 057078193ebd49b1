"""The programs of the tutorial and of two guides do what the pages say, on a real server."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from redisq import Buffer
from redisq.embedded import Server
from tests.conftest import skip_or_fail
from tests.project.page import blocks, files, write_files

DOCS = Path(__file__).parents[2] / "docs"
TUTORIAL, GUNICORN, PYTEST = DOCS / "tutorial.md", DOCS / "guides" / "gunicorn.md", DOCS / "guides" / "pytest.md"


def environment(server: Server) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "REDIS_URL": server.url, "PATH": path, "PYTHONPATH": str(DOCS.parent)}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def running(command: list[str], folder: Path, server: Server, ready: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program beside the test, from its first line that contains `ready` on."""
    process = subprocess.Popen(
        command, cwd=folder, env=environment(server), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stderr
        assert any(ready in line for line in process.stderr)
        yield process
    finally:
        process.kill()
        process.communicate()


def test_the_tutorial_ends_with_a_dead_letter_redriven(server: Server, tmp_path: Path) -> None:
    """Its commands run in order, and what it says that they print is printed. Only the API's port is another one."""
    write_files(TUTORIAL, tmp_path)
    port = free_port()
    for name in files(TUTORIAL):
        path = tmp_path / name
        path.write_text(path.read_text().replace("8000", str(port)))
    api = tmp_path / "api.py"
    begun = r"import sys\nserver = \1\nprint('up', file=sys.stderr, flush=True)\nserver.serve_forever()"
    api.write_text(re.sub(r"^(Threading.*)\.serve_forever\(\)$", begun, api.read_text(), flags=re.MULTILINE))
    elsewhere = ("docker ", "mkdir ", "python3 -m venv", ". ", "pip ", "python api.py", "redisq web ")
    commands = [line for _, block in blocks(TUTORIAL, "sh") for line in block.splitlines()]
    assert [line for line in commands if line.startswith("redisq web")] == ["redisq web --allow redrive"]
    printed = ""
    with running([sys.executable, "api.py"], tmp_path, server, "up"):
        for command in commands:
            if not command.startswith(elsewhere):
                done = subprocess.run(
                    ["sh", "-c", command],
                    cwd=tmp_path,
                    env=environment(server),
                    capture_output=True,
                    text=True,
                    timeout=60,
                )
                assert done.returncode == 0, command + done.stderr
                printed += done.stdout
    for _, block in blocks(TUTORIAL, "text"):
        for line in block.splitlines():
            assert line in printed
    assert "the API does not know dan" in printed
    with server.client() as client:
        held = Buffer(client, "notifications").stats()
        assert (held.done, held.dead, held.waiting) == (301, 0, 0)


class Unix(http.client.HTTPConnection):
    """A connection to a server on a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(str(self.path))


def test_workers_beside_gunicorn_handle_what_its_processes_push(server: Server, tmp_path: Path) -> None:
    """The guide's application and configuration: preloaded, forked, with a worker in each process; it ends in order."""
    if find_spec("gunicorn") is None:
        skip_or_fail("gunicorn is missing: pip install 'redisq-lua[test]'")
    write_files(GUNICORN, tmp_path)
    listening = tmp_path / "http"
    command = [sys.executable, "-m", "gunicorn", "shop:app", "--bind", f"unix:{listening}", "--log-level", "info"]
    with server.client() as client, running(command, tmp_path, server, "Booting worker") as process:
        for number in range(10):
            with contextlib.closing(Unix(listening)) as connection:
                connection.request("GET", f"/page/{number}")
                assert re.fullmatch(rb"\d+ wait\n", connection.getresponse().read())
        visits = Buffer(client, "visits")
        while visits.stats().done < 10:
            visits.wait(0.05)
        assert client.get("visits") == b"10"
        process.terminate()
        assert process.stderr
        process.stderr.read()
        assert process.wait(60) == 0
        assert visits.stats().leased == 0


def test_the_tests_of_the_guide_pass(tmp_path: Path) -> None:
    """Those of the guide to testing, in a pytest of their own."""
    write_files(PYTEST, tmp_path)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    env = {**os.environ, "PYTHONPATH": str(DOCS.parent)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=100)
    assert "4 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("page", [TUTORIAL, GUNICORN, PYTEST], ids=lambda page: page.stem)
def test_a_file_of_a_page_is_named_in_its_text(page: Path) -> None:
    for name in files(page):
        assert f"`{name}`" in page.read_text("utf-8")
