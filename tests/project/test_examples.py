"""The examples run unchanged on a real server, and print what they promise."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from redisq import Buffer, PriorityQueue, Worker
from redisq.embedded import Server
from redisq.testing import Fake, drain

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(example: str, server: Server, *arguments: object) -> str:
    command = [sys.executable, str(EXAMPLES / example), *map(str, arguments)]
    environment = {**os.environ, "REDIS_URL": server.url}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("example", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_an_example_is_short(example: str) -> None:
    assert len((EXAMPLES / example).read_text().splitlines()) <= 80


@pytest.mark.parametrize("example", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_an_example_has_help(example: str, redisq_server: Server) -> None:
    assert run(example, redisq_server, "--help").startswith(f"usage: {example}")


def test_ordered_groups_applies_the_events_of_each_account_in_order(redisq_server: Server) -> None:
    printed = run("ordered_groups.py", redisq_server)
    for account in ("anna", "ben", "cleo"):
        assert f"{account}: {list(range(1, 10))}\n" in printed
    # Event 2 failed, so 3 was not tried: both were handed out together again, before any later event.
    handed_out = re.findall(r"worker \d  cleo  (.*)", printed)
    again = "[2, 3]  again, attempt 2: the ledger does not answer"
    assert handed_out == ["[1, 2, 3]", again, "[4, 5, 6]", "[7, 8, 9]"]
    with redisq_server.client() as client:
        buffer = Buffer(client, "ordered-groups", ordered=True)
        assert buffer.audit().ok
        assert (buffer.stats().done, buffer.stats().busy_groups) == (27, 0)


def test_ordered_groups_without_ordered_still_applies_every_event_once(redisq_server: Server) -> None:
    printed = run("ordered_groups.py", redisq_server, "--unordered")
    for account in ("anna", "ben", "cleo"):
        applied = re.search(rf"^{account}: \[(.*)\]", printed, re.MULTILINE)
        assert applied
        assert sorted(map(int, applied[1].split(", "))) == list(range(1, 10))


def test_debounce_rebuilds_after_the_last_edit(redisq_server: Server) -> None:
    printed = run("debounce.py", redisq_server)
    edits = [float(time) for time in re.findall(r"([\d.]+) s  edit", printed)]
    rebuilt = [int(revision) for revision in re.findall(r"rebuild guide.md, revision (\d)", printed)]
    assert "edit guide.md, revision 7; it is leased" in printed
    assert "7 edits, 2 rebuilds" in printed
    assert len(edits) == 7
    assert len(rebuilt) == 2
    assert rebuilt[1] == 7
    # If the machine stalls for longer than the half second between two edits, the first rebuild may come early.
    if all(later - early < 0.48 for early, later in zip([0.0, *edits], edits[1:6], strict=False)):
        assert rebuilt[0] == 6


def test_search_indexing_finds_the_current_content_of_files(redisq_server: Server, tmp_path: Path) -> None:
    folder, index = tmp_path / "folder", tmp_path / "index.db"
    (folder / "deep").mkdir(parents=True)
    for number in range(120):
        (folder / f"{number}.txt").write_text(f"number {number} is plain")
    (folder / "deep" / "ä.txt").write_text("a redis queue", "utf-8")
    (folder / "bytes").write_bytes(b"\xff\xfe redis \x00 queue queue")
    found = run("search_indexing.py", redisq_server, folder, index, "--until-empty", "--search", "redis queue")
    assert sorted(found.splitlines()) == ["bytes", "deep/ä.txt"]

    assert run("search_indexing.py", redisq_server, folder, index, "--until-empty") == "122 files indexed\n"

    (folder / "bytes").unlink()
    (folder / "7.txt").write_text("now a redis queue")
    with redisq_server.client() as client:
        # The example notices deleted files while it runs; these were deleted before, so they are pushed.
        PriorityQueue(client, "search-indexing").push("bytes")
        found = run("search_indexing.py", redisq_server, folder, index, "--until-empty", "--search", "redis queue")
        assert sorted(found.splitlines()) == ["7.txt", "deep/ä.txt"]
        held = PriorityQueue(client, "search-indexing").stats()
        assert (held.waiting, held.leased, held.delayed, held.dead) == (0, 0, 0, 0)
    assert (
        len(run("search_indexing.py", redisq_server, folder, index, "--until-empty", "--search", "plain").split()) == 10
    )


def test_reminders_are_sent(redisq_server: Server) -> None:
    assert run("reminders.py", redisq_server) == "anna@example.com: please pay 20.00 for invoice 2026-1\n"


def test_reminders_come_after_a_week_unless_the_invoice_is_paid(
    redisq_fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    reminders = importlib.import_module("reminders")
    queue, mails = reminders.reminders(redisq_fake.client()), reminders.MailServer()
    worker = Worker(queue, partial(reminders.remind, mails), backoff=lambda _: 60)
    for number, email in (("1", "anna@example.com"), ("2", "ben@example.com"), ("3", "nobody")):
        queue.push(number, delay=reminders.WEEK, payload=reminders.Invoice(email, 20))
    queue.remove("2")
    redisq_fake.advance(reminders.WEEK - 60)
    assert drain(worker).batches == 0
    redisq_fake.advance(60)
    mails.busy = True
    drained = drain(worker)
    assert (drained.released, drained.buried) == (1, 1)
    assert [(letter.name, letter.reason) for letter in drained.dead] == [("3", "no address: nobody")]
    mails.busy = False
    redisq_fake.advance(60)
    assert drain(worker).acked == 1
    assert mails.sent == ["anna@example.com: please pay 20.00 for invoice 1"]
    assert queue.stats().dead == 1


class Api(ThreadingHTTPServer):
    """An API that fails the second request as a whole, and rejects each action with `shy` the first time."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.taken: Counter[int] = Counter()
        self.shy: set[int] = set()
        self.times: list[float] = []
        self.lock = threading.Lock()

    def receive(self, feed: str, actions: list[dict[str, object]]) -> tuple[int, list[int]]:
        with self.lock:
            self.times.append(time.monotonic())
            if len(self.times) == 2:
                return 500, []
            refused = []
            for place, action in enumerate(actions):
                assert action["feed"] == feed
                number = int(str(action["id"]))
                if action.get("shy") and number not in self.shy:
                    self.shy.add(number)
                    refused.append(place)
                else:
                    self.taken[number] += 1
            return 200, refused


class Handler(BaseHTTPRequestHandler):
    server: Api

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status, refused = self.server.receive(body["feed"], body["actions"])
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps({"refused": refused}).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def api() -> Iterator[Api]:
    with Api() as api:
        thread = threading.Thread(target=api.serve_forever, daemon=True)
        thread.start()
        yield api
        api.shutdown()
        thread.join()


def test_api_batches_runs_without_an_api(redisq_server: Server, tmp_path: Path) -> None:
    file = tmp_path / "actions.jsonl"
    file.write_text('{"feed": "eu", "did": "like"}\n')
    output = run("api_batches.py", redisq_server, "--fake-api", "--push", file, "--until-empty")
    assert output == "eu: 1 accepted, 0 refused\n"


@pytest.mark.parametrize("arguments", [[], ["--fake-api", "http://127.0.0.1"]])
def test_api_batches_wants_one_api(arguments: list[str], redisq_server: Server) -> None:
    with pytest.raises(AssertionError, match="give the URL of an API, or --fake-api"):
        run("api_batches.py", redisq_server, *arguments)


def test_api_batches_sends_each_action_once_and_keeps_the_rate(redisq_server: Server, api: Api, tmp_path: Path) -> None:
    actions = [{"id": i, "feed": f"feed {i % 3}", "shy": i % 50 == 0} for i in range(450)]
    file = tmp_path / "actions.jsonl"
    file.write_text("".join(json.dumps(action) + "\n" for action in actions))
    endpoint = f"http://127.0.0.1:{api.server_port}/actions"
    output = run("api_batches.py", redisq_server, endpoint, "--push", file, "--until-empty")
    assert api.taken == Counter(range(450))
    assert api.shy == set(range(0, 450, 50))
    assert "feed 0: 147 accepted, 3 refused" in output
    # Three a second by the server's clock; by this one, a request may have arrived late.
    assert all(later - early > 0.4 for early, later in zip(api.times, api.times[3:], strict=False))
    with redisq_server.client() as client:
        held = Buffer(client, "api-batches").stats()
        assert (held.waiting, held.leased, held.delayed, held.dead) == (0, 0, 0, 0)
