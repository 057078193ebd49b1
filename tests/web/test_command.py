"""`redisq web`, in a process of its own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait

import httpx
import pytest
import redis

from redisq import Buffer, PriorityQueue
from redisq.cli import main
from redisq.embedded import Server

ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "REDISQ_WEB_PASSWORD"}


@contextlib.contextmanager
def serving(url: str, *options: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the command, and yield the process and where it serves."""
    process = subprocess.Popen(
        [sys.executable, "-m", "redisq", "web", "--url", url, "--port", "0", *options],
        stderr=subprocess.PIPE,
        text=True,
        env={**ENVIRONMENT, **environment},
    )
    try:
        assert process.stderr
        for line in process.stderr:
            if found := re.search(r"serving (http://\S+)/ of", line):
                yield process, found[1]
                return
        raise AssertionError(f"it ended with {process.wait()}")
    finally:
        process.kill()
        process.wait()
        if process.stderr:
            process.stderr.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_it_is_told_to_end(server: Server, client: redis.Redis, number: signal.Signals) -> None:
    """Also while somebody watches."""
    PriorityQueue(client, "index").push("a")
    with serving(server.url) as (process, where), httpx.Client(base_url=where, timeout=30) as browser:
        assert "index" in browser.get("/").text
        assert browser.get("/static/htmx/htmx.min.js").status_code == 200
        with browser.stream("GET", "/live?sort=waiting") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            assert stream.headers["content-security-policy"]
            lines = stream.iter_lines()
            assert any("q-index" in line for line in lines)
            process.send_signal(number)
            with contextlib.suppress(httpx.HTTPError):
                for _ in lines:
                    pass
        assert process.wait(30) == 0
        assert process.stderr
        assert process.stderr.read() == ""


def test_the_numbers_are_live(server: Server, client: redis.Redis) -> None:
    queue = PriorityQueue(client, "index")
    queue.push("a")
    with (
        serving(server.url) as (_, where),
        httpx.Client(base_url=where, timeout=30) as browser,
        browser.stream("GET", "/queues/index/live?tab=members") as stream,
    ):
        lines = stream.iter_lines()
        assert any("<dd>1</dd>" in line for line in lines)
        queue.push_many({"b": 1, "c": 2, "d": 3})
        assert any("<dd>4</dd>" in line for line in lines)


def test_a_foreign_host_is_refused(server: Server) -> None:
    with serving(server.url, "--allowed-host", "queues.test") as (_, where):
        for host, status in (("queues.test", 200), ("evil.test", 400), ("localhost", 200)):
            assert httpx.get(where, headers={"Host": host}, timeout=30).status_code == status


def test_a_password_from_the_environment(server: Server) -> None:
    with serving(server.url, REDISQ_WEB_PASSWORD="secret") as (_, where):
        assert httpx.get(where, timeout=30).status_code == 401
        assert httpx.get(where, auth=("me", "secret"), timeout=30).status_code == 200
        assert httpx.get(f"{where}/healthz", timeout=30).text == "ok\n"
        assert httpx.get(f"{where}/livez", timeout=30).text == "ok\n"
    with serving(server.url, "--no-auth", REDISQ_WEB_PASSWORD="secret") as (_, where):
        assert httpx.get(where, timeout=30).status_code == 200


def test_a_proxy_that_strips_a_path(server: Server, client: redis.Redis) -> None:
    """The proxy asks for `/queues/index`, and browsers for `/ops/q/queues/index`."""
    buffer: Buffer[int] = Buffer(client, "index")
    buffer.push(1)
    with (
        serving(server.url, "--root-path", "/ops/q/", "--allow", "pause") as (_, where),
        httpx.Client(base_url=where, timeout=30) as browser,
    ):
        page = browser.get("/")
        links = re.findall(r'(?:href|src|action|data-live)="([^"]*)"', page.text + browser.get("/queues/index").text)
        assert "/ops/q/queues/index" in links
        assert "/ops/q/static/style.css" in links
        assert [one for one in links if one and not one.startswith(("/ops/q/", "#"))] == []
        assert browser.get("/static/style.css").status_code == 200
        assert browser.get("/healthz", headers={"Host": "10.0.0.1"}).text == "ok\n"
        assert browser.get("/api/queues/index").json()["waiting"] == 1
        answer = browser.post("/queues/index/pause", data={"reason": "x"}, headers={"Sec-Fetch-Site": "same-origin"})
        assert answer.headers["location"].startswith("/ops/q/queues/index?outcome=")
        assert buffer.stats().paused
        with browser.stream("GET", "/queues/index/live") as stream:
            assert any('href="/ops/q/queues/index' in line for line in stream.iter_lines())


def test_it_starts_without_redis() -> None:
    """An outage is what it has to tell."""
    with serving("redis://127.0.0.1:1") as (_, where):
        page = httpx.get(where, timeout=30)
        assert page.status_code == 200
        assert "Redis does not answer" in page.text
        assert httpx.get(f"{where}/healthz", timeout=30).status_code == 503
        assert httpx.get(f"{where}/livez", headers={"Host": "10.0.0.1"}, timeout=30).text == "ok\n"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--host", "0.0.0.0"], 2, "REDISQ_WEB_PASSWORD"),
        (["--host", "192.0.2.1"], 2, "--no-auth"),
        (["--host", "::"], 2, "REDISQ_WEB_PASSWORD"),
        (["--host", "example.com"], 2, "REDISQ_WEB_PASSWORD"),
        (["--allow", "delete"], 2, "delete is not an act"),
        (["--url", "nonsense"], 2, "is not the URL"),
        (["--prefix", "{"], 2, "prefix"),
        (["--queue", "{"], 2, "queue name"),
        (["--host", "192.0.2.1", "--no-auth"], 1, "cannot listen"),
        (["--port", "70000"], 2, "port"),
        (["--allowed-host", "queues.test:8080"], 2, "without a port"),
        (["--allowed-host", "http://queues.test"], 2, "without a port"),
        (["--allowed-host", ""], 2, "is not a host"),
        (["--root-path", "ops"], 2, "is not a path"),
        (["--root-path", "/a//b"], 2, "is not a path"),
        (["--root-path", "/a/../b"], 2, "is not a path"),
        (["--root-path", '/"><script>'], 2, "is not a path"),
        (["--root-path", "//evil.test"], 2, "is not a path"),
    ],
)
def test_what_is_refused_at_once(
    arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REDISQ_WEB_PASSWORD", raising=False)
    try:
        found = main(["web", *arguments])
    except SystemExit as end:
        found = int(end.code or 0)
    assert found == code
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("library", ["starlette", "jinja2", "sse_starlette", "uvicorn"])
def test_what_is_missing_is_named(
    library: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delenv("REDISQ_WEB_PASSWORD", raising=False)
    assert main(["web", "--port", "0"]) == 1
    assert f"{library.replace('_', '-')}: pip install 'redisq-lua[web]'" in capsys.readouterr().err


def test_an_empty_password_is_none_that_anybody_meant(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDISQ_WEB_PASSWORD", "")
    assert main(["web", "--port", "0"]) == 2
    assert "REDISQ_WEB_PASSWORD is empty" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_while_it_waits_for_redis(number: signal.Signals) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}"
        process = subprocess.Popen(
            [sys.executable, "-m", "redisq", "web", "--url", url, "--port", "0"],
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        try:
            connection, _ = silent.accept()
            with connection:
                assert connection.recv(1)  # it has asked, and is not answered
                process.send_signal(number)
                _, said = process.communicate(timeout=60)
            assert process.returncode == 0
            assert "serving" not in said
            assert "Traceback" not in said
        finally:
            process.kill()
            process.wait()


def test_it_ends_while_a_page_waits_for_redis(server: Server, client: redis.Redis) -> None:
    PriorityQueue(client, "index").push("a")
    with serving(server.url) as (process, where), httpx.Client(base_url=where, timeout=60) as browser:
        assert browser.get("/").status_code == 200
        number = int(client.info("server")["process_id"])
        os.kill(number, signal.SIGSTOP)
        try:
            with ThreadPoolExecutor(1) as pool:
                page = pool.submit(browser.get, "/queues/index")
                assert not wait([page], timeout=1).done
                process.send_signal(signal.SIGINT)
                assert process.wait(60) == 0
                assert page.result(60).status_code == 503
        finally:
            os.kill(number, signal.SIGCONT)
        assert process.stderr
        assert "Traceback" not in process.stderr.read()
