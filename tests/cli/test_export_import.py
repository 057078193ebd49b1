"""`redisq export` and `redisq import`: what comes back, what is refused, and that a kill loses or doubles nothing."""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
import redis

from redisq import BYTES, Buffer, PriorityQueue, Pushed
from redisq.cli import archive, importing, main, steps
from redisq.embedded import Server
from tests.cli.conftest import UNREACHABLE, Run
from tests.cli.killing import killed
from tests.conftest import BINARIES

pytestmark = pytest.mark.server

State = dict[bytes, Any]
Import = Callable[..., tuple[int, str, str]]
FORGOTTEN = (b"once:", b"ended:", b"wake", b"grants")  # what an export leaves out


@pytest.fixture
def run_import(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Import:
    """Return a function that imports a file, as standard input."""

    def run_import(data: bytes, *arguments: object) -> tuple[int, str, str]:
        with given(data, tmp_path, monkeypatch):
            return run("import", *arguments)

    return run_import


@contextlib.contextmanager
def given(data: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give a file as standard input."""
    (folder / "stdin").write_bytes(data)
    with (folder / "stdin").open() as stdin, monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", stdin)
        yield


@pytest.fixture
def export(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., bytes]:
    """Return a function that exports a queue."""

    def export(*arguments: str) -> bytes:
        out = io.TextIOWrapper(io.BytesIO(), write_through=True)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", out)
            code = main(("export", *arguments))
        data = out.buffer.getvalue()
        told = capsys.readouterr().err
        assert code == 0, told
        assert re.fullmatch(r"[\d,]+ (item|member)s? of .* exported\n", told)
        return bytes(data)

    return export


def state_of(client: Any, name: str) -> State:
    """Return all that a queue holds, key by key."""
    readers: dict[bytes, Callable[[bytes], Any]] = {
        b"list": lambda key: client.lrange(key, 0, -1),
        b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        b"hash": client.hgetall,
        b"set": client.smembers,
        b"string": client.get,
    }
    prefix = f"redisq:{{{name}}}:".encode()
    keys: list[bytes] = [key.removeprefix(prefix) for key in client.keys(prefix + b"*")]
    kept = [key for key in keys if not key.startswith(FORGOTTEN)]
    return {key: readers[client.type(prefix + key)](prefix + key) for key in kept}


def make_buffer(client: redis.Redis, name: str = "q", leased: bool = True) -> Buffer[bytes]:
    """Make a buffer with something in every state."""
    buffer = Buffer(client, name, codec=BYTES, ordered=True, max_wait=None)
    for i, group in enumerate(["a", "\udcff{:}", "b", "c", "paused", "stopped", "long"]):
        buffer.push_many([b"%d\xff\x00\n" % j for j in range(2_500 if group == "long" else 10 + i)], group=group)
    buffer.push(b"", "é".encode(), group="a")
    for _ in range(3):
        if batch := buffer.reserve(4, holder="host:1"):
            batch.release(delay=1_000, reason="because \udcff")
    for _ in range(2):
        if batch := buffer.reserve(2):
            batch.bury("poison")
    if batch := buffer.reserve(3):
        buffer.ack(batch)
    if leased:
        assert buffer.reserve(5, holder="host:2")
    buffer.pause_group("paused", 10_000)
    buffer.pause_group("stopped")
    buffer.pause(reason="moving \udcff")
    return buffer


def make_priority(client: redis.Redis, name: str = "q", order: Any = "fifo", leased: bool = True) -> PriorityQueue[Any]:
    """Make a priority queue with something in every state."""
    queue: PriorityQueue[Any] = PriorityQueue(client, name, order=order, codec=BYTES, payload_codec=BYTES)
    queue.push_many([(b"m%d\xff" % i, i % 5, b"\x00%d" % i) for i in range(700)])
    queue.push_many([(b"plain%d" % i, 1) for i in range(50)])
    queue.push(b"later", -3, delay=5_000, payload=b"")
    for way in ("release", "bury", "ack"):
        batch = queue.reserve(7)
        assert batch
        if way == "release":
            batch.release(delay=500, reason="again \udcff")
        elif way == "bury":
            batch.bury("poison")
        else:
            batch.ack()
    batch = queue.reserve(3)
    assert batch
    batch.release(reason="at once")
    if leased:
        assert queue.reserve(6, holder="host:3")
    queue.pause(5_000, reason="moving")
    return queue


MAKE: dict[str, Callable[..., Any]] = {
    "buffer": make_buffer,
    "fifo": make_priority,
    "score": lambda client, **options: make_priority(client, order="score", **options),
}


@pytest.mark.parametrize("kind", MAKE)
def test_everything_comes_back(
    client: redis.Redis, run_import: Import, export: Callable[..., bytes], kind: str
) -> None:
    """To the byte, but for the name of what was leased; and what an export holds has an export that is the same."""
    MAKE[kind](client, leased=False)
    data = export("q")
    code, out, err = run_import(data, "copy")
    assert (code, err) == (0, "")
    assert out.endswith("\nit is paused: redisq resume copy\n")
    assert state_of(client, "copy") == state_of(client, "q")
    assert sorted(export("copy").splitlines()[1:-1]) == sorted(data.splitlines()[1:-1])
    assert (client.pttl("redisq:{copy}:paused") > 0) is (kind != "buffer")  # the pauses of priority queues have an end
    assert 0 < client.pttl("redisq:{copy}:once:import-" + json.loads(data.splitlines()[0])["id"]) <= 604_800_000
    made: Any = Buffer(client, "copy") if kind == "buffer" else PriorityQueue(client, "copy", order=kind)  # type: ignore[arg-type]
    assert made.audit().ok


@pytest.mark.parametrize("name", ["copy", "it's", "two words", "a\nb'\\"])
def test_the_command_that_resumes(
    client: redis.Redis,
    run_import: Import,
    run: Run,
    export: Callable[..., bytes],
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """It is for a shell, and for the server and the prefix that were given, whatever REDIS_URL says."""
    make_buffer(client, leased=False)
    out = run_import(export("q"), name, "--url", server.url, "--prefix", "other")[1]
    hint = out.rpartition("it is paused: ")[2]
    assert hint.count("\n") == 1
    monkeypatch.setenv("REDIS_URL", UNREACHABLE)
    words = subprocess.check_output(["bash", "-c", f"printf '%s\\0' {hint}"], text=True).split("\0")
    assert words[:-1] == ["redisq", "resume", name, "--url", server.url, "--prefix", "other"]
    assert run(*words[1:-1])[0] == 0
    assert run_import(b"", name, "--url", UNREACHABLE)[2].count("secret") == 0


@pytest.mark.parametrize("target", BINARIES)
@pytest.mark.parametrize("kind", ["buffer", "fifo"])
def test_between_servers_of_all_versions(
    client: redis.Redis, run_import: Import, export: Callable[..., bytes], kind: str, target: str
) -> None:
    MAKE[kind](client, leased=False)
    data, expected = export("q"), state_of(client, "q")
    with Server(BINARIES[target]) as other, contextlib.closing(other.client()) as there:
        assert run_import(data, "q", "--url", other.url)[0] == 0
        assert state_of(there, "q") == expected


def test_what_was_leased_is_due_at_once_with_its_attempt_counted(
    client: redis.Redis, run_import: Import, export: Callable[..., bytes]
) -> None:
    buffer = Buffer(client, "b", codec=BYTES, ordered=True, max_attempts=2)
    buffer.push(b"1", b"2", b"3", group="g")
    first = buffer.reserve(2, lease=1_000, holder="me")
    assert first
    buffer.pause()
    data = export("b")
    assert run_import(data, "c")[0] == 0
    copy = Buffer(client, "c", codec=BYTES, ordered=True, max_attempts=2)
    copy.resume()
    again = copy.reserve(2)
    assert again
    assert (again.items, again.attempts, again.reason) == ([b"1", b"2"], 2, "exported while leased by me")
    assert copy.reserve() is None  # the group waits for its batch, as it did
    assert copy.audit().ok
    again.release()
    assert copy.reserve() is None or copy.stats().dead == 1  # it had used its attempts
    first.ack()  # the original is as it was


def test_a_batch_that_is_due_wakes_a_worker(
    client: redis.Redis, run_import: Import, export: Callable[..., bytes]
) -> None:
    buffer = Buffer(client, "b")
    buffer.push("1")
    assert buffer.reserve()
    assert run_import(export("b", "--live"), "c")[0] == 0
    assert client.llen("redisq:{c}:wake") == 1


@pytest.mark.parametrize("order", ["fifo", "score"])
def test_what_was_pushed_while_it_was_leased(
    client: redis.Redis, run_import: Import, export: Callable[..., bytes], order: Any
) -> None:
    queue = PriorityQueue(client, "p", order=order)
    queue.push_many([("kept", 5), ("raised", 5), ("set", 5), ("removed", 5), ("later", 5)])
    assert queue.reserve(5, holder="me")
    queue.push("raised", 1)
    queue.push("set", 9, replace=True, delay=1_000)
    queue.push("later", 7, delay=1_000)
    queue.remove("removed")
    queue.pause()
    assert run_import(export("p"), "c")[0] == 0
    assert client.llen("redisq:{c}:wake") == 1
    copy = PriorityQueue(client, "c", order=order)
    attempts = {item.member: (item.attempts, item.reason) for item in copy.delayed()}
    why = "exported while leased by me"
    assert attempts == {"kept": (1, why), "raised": (0, why), "set": (0, why), "later": (0, why)}
    copy.resume()
    batch = copy.reserve(9)
    assert batch
    assert sorted(batch.items) == ["kept", "later", "raised"]
    assert batch.items[0] == "raised"
    (waits,) = copy.delayed()
    assert (waits.member, waits.priority, waits.attempts) == ("set", 9, 0)
    assert copy.stats().waiting == 0
    assert copy.audit().ok


def test_payloads_and_names_of_any_bytes(client: redis.Redis, run_import: Import, export: Callable[..., bytes]) -> None:
    """Those that are UTF-8 can be read in the file."""
    every = [bytes([one]) for one in range(256)] + [
        "é\u2028\U0001f600".encode(),
        b"\\ud800",
        b'"{}\r\n',
        b"\xed\xa0\x80",
    ]
    buffer = Buffer(client, "b", codec=BYTES)
    buffer.push(*every)
    buffer.pause()
    data = export("b")
    assert "é\u2028\U0001f600".encode() in data
    assert data.count(b"\n") < 9
    assert run_import(data, "c")[0] == 0
    copy = Buffer(client, "c", codec=BYTES)
    copy.resume()
    assert copy.pop() == every


def test_large_items_are_written_in_lines_of_a_megabyte(
    client: redis.Redis, run_import: Import, export: Callable[..., bytes]
) -> None:
    buffer = Buffer(client, "b", codec=BYTES)
    items = [b"x" * 100_000] * 60 + [b"y"] * 3_000
    buffer.push(*items)
    buffer.pause()
    data = export("b")
    assert max(map(len, data.splitlines())) < 2 << 20
    assert run_import(data, "c")[0] == 0
    assert state_of(client, "c") == state_of(client, "b")


# -- what is refused


def test_a_queue_that_is_not_paused_is_refused(client: redis.Redis, run: Run, server: Server) -> None:
    Buffer(client, "b").push("1")
    code, out, err = run("export", "b")
    assert (code, out) == (1, "")
    assert err == "redisq: b is not paused: `redisq pause b` first, so that it holds still, or say --live\n"
    url, hint = f"{server.url}?client_name=me", f"`redisq pause b --url {server.url}` first"
    assert hint in run("export", "b", "--url", url)[2]  # it names the server, whatever REDIS_URL says
    assert run("export", "none")[0] == 1
    client.hset("redisq:{b}:meta", "queue", "1 buffer")
    assert run("export", "b", "--live")[2] == "redisq: the queue is marked 1 buffer: this redisq exports layout 2\n"


CHANGES: dict[str, Callable[[Any], object]] = {
    "push": lambda queue: queue.push(b"new", group="a"),
    "push to a busy group": lambda queue: queue.push(b"new", group=next(iter(queue.groups(state="busy")))),
    "push to a paused group": lambda queue: queue.push(b"new", group="stopped"),
    "a lease": lambda queue: queue.extend(*queue.leased()),
    "resume": lambda queue: queue.resume(),
    "pause of a group": lambda queue: queue.pause_group("zzz"),
    "discard": lambda queue: queue.discard(queue.dead()[0].id),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_meanwhile_is_noticed(
    client: redis.Redis, run: Run, run_import: Import, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    queue = make_buffer(client)
    write = archive.Writer.write

    def changed(self: Any, *arguments: Any) -> None:
        if self.lines == 7:
            CHANGES[change](queue)
        write(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(archive.Writer, "write", changed)
        code, out, err = run("export", "q")
    assert (code, err.startswith("redisq: the queue has changed meanwhile, so the file is not whole")) == (1, True)
    code, _, err = run_import(out.encode("utf-8"), "copy")
    assert (code, "it is not whole, and nothing is restored" in err) == (1, True)
    assert state_of(client, "copy") == {}


def test_an_interrupted_export_says_that_the_file_is_not_whole(
    client: redis.Redis, run: Run, run_import: Import, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_buffer(client)
    write = archive.Writer.write

    def interrupted(self: Any, *arguments: Any) -> None:
        if self.lines == 7:
            raise KeyboardInterrupt
        write(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(archive.Writer, "write", interrupted)
        code, out, err = run("export", "q")
    assert (code, err) == (130, "redisq: interrupted; what was written is not whole, and no import takes it\n")
    assert run_import(out.encode("utf-8"), "copy")[0] == 1


def test_a_changed_score_is_noticed(client: redis.Redis, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """No counter tells of it."""
    queue = make_priority(client)
    write = archive.Writer.write

    def changed(self: Any, *arguments: Any) -> None:
        if self.lines == 200:
            assert queue.push(b"plain7", -9) is Pushed.RAISED
        write(self, *arguments)

    monkeypatch.setattr(archive.Writer, "write", changed)
    assert run("export", "q")[0] == 1


def test_a_live_export_holds_what_was_met(
    client: redis.Redis, run_import: Import, export: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = make_priority(client, leased=False)
    queue.resume()
    write = archive.Writer.write

    def changed(self: Any, *arguments: Any) -> None:
        if self.lines % 50 == 0:
            queue.push(b"new%d" % self.lines, 3)
            queue.pop()
        write(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(archive.Writer, "write", changed)
        data = export("q", "--live")
    lines = [json.loads(line) for line in data.splitlines()]
    members = [json.dumps(line["member"]) for line in lines[1:-1]]
    assert len(members) == len(set(members))  # a member is in it once
    assert len(members) > 700
    code, out, _ = run_import(data, "copy")
    assert (code, "paused" in out) == (0, False)
    assert PriorityQueue(client, "copy").audit().ok


def test_every_truncated_file_is_noticed(client: redis.Redis, run_import: Import, export: Callable[..., bytes]) -> None:
    buffer = Buffer(client, "b", codec=BYTES)
    buffer.push(b"1", b"2", group="a")
    buffer.push(b"3", group="b")
    buffer.pause()
    data = export("b")
    for size in range(len(data)):
        code, out, err = run_import(data[:size], "copy")
        assert (code, out) == (1, "")
        assert err.startswith("redisq: the input is empty" if not size else "redisq: ")
    assert state_of(client, "copy") == {}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"items":["1"', b'"items":["7"', "the file was changed after it was written"),
        (b'"version":1', b'"version":2', "the file has version 2 of the format, this redisq reads version 1"),
        (b'"redisq":"export"', b'"redisq":"else"', "line 1 is not the header of an export"),
        (b'"end":true', b'"end":false', "the file ends early, in line 3"),
        (b'"lines":1', b'"lines":2', "the file was changed after it was written"),
    ],
)
def test_a_changed_file_is_refused(
    client: redis.Redis, run_import: Import, export: Callable[..., bytes], old: bytes, new: bytes, message: str
) -> None:
    buffer = Buffer(client, "b", codec=BYTES)
    buffer.push(b"1", b"2")
    buffer.pause()
    data = export("b")
    assert old in data
    code, out, err = run_import(data.replace(old, new), "copy")
    assert (code, out) == (1, "")
    assert err.startswith(f"redisq: {message}")
    assert state_of(client, "copy") == {}


def test_a_queue_that_holds_something_is_refused(
    client: redis.Redis, run_import: Import, export: Callable[..., bytes]
) -> None:
    make_buffer(client)
    data = export("q")
    for name, fill in (
        ("waiting", lambda one: one.push(b"1")),
        ("dead", lambda one: (one.push(b"1"), one.reserve().bury())),
        ("leased", lambda one: (one.push(b"1"), one.reserve())),
        ("paused", lambda one: one.pause_group("g")),
    ):
        fill(Buffer(client, name, codec=BYTES))
        before = state_of(client, name)
        code, out, err = run_import(data, name)
        assert (code, out) == (1, "")
        assert err == f"redisq: redisq:{{{name}}} holds something already: import into a new queue, or say --merge\n"
        assert state_of(client, name) == before
    PriorityQueue(client, "other").push("1")
    assert run_import(data, "other")[2] == "redisq: other is a priority queue, not a buffer\n"


def test_a_file_is_imported_once(client: redis.Redis, run_import: Import, export: Callable[..., bytes]) -> None:
    make_buffer(client, leased=False)
    data = export("q")
    assert run_import(data, "copy")[0] == 0
    before = state_of(client, "copy")
    code, out, _ = run_import(data, "copy")
    assert (code, out.startswith("the file has been imported already")) == (0, True)
    assert run_import(data, "copy", "--again")[0] == 1
    assert run_import(data, "copy")[1].startswith("the file has been imported already")
    assert run_import(data, "copy", "--again", "--merge")[0] == 0  # batches by their ids, items once more
    after = state_of(client, "copy")
    assert {key: after[key] for key in before if key.startswith((b"batch:", b"d"))} == {
        key: held for key, held in before.items() if key.startswith((b"batch:", b"d"))
    }
    assert {key: after[key] for key in before if key.startswith(b"items:")} == {
        key: 2 * held for key, held in before.items() if key.startswith(b"items:")
    }
    copy = Buffer(client, "copy")
    copy.purge()
    copy.resume_group("paused")
    copy.resume_group("stopped")
    assert run_import(data, "copy", "--again")[0] == 0
    assert state_of(client, "copy") == before


def test_a_pause_that_is_there_stays(client: redis.Redis, run_import: Import, export: Callable[..., bytes]) -> None:
    make_priority(client)
    data = export("q")
    queue = PriorityQueue(client, "copy")
    queue.pause(reason="mine")
    assert run_import(data, "copy")[0] == 0
    assert (queue.stats().pause_reason, queue.stats().paused_until) == ("mine", None)
    assert client.pttl("redisq:{copy}:paused") == -1


# -- merging


def test_merging_buffers(client: redis.Redis, run_import: Import, export: Callable[..., bytes]) -> None:
    make_buffer(client)
    data = export("q")
    there = Buffer(client, "there", codec=BYTES)
    there.push(b"first", group="b")
    there.push(b"mine", group="new")
    code, out, _ = run_import(data, "there", "--merge", "--json")
    assert (code, json.loads(out)["paused"]) == (0, False)
    assert there.peek("b", 3) == [b"first", *Buffer(client, "q", codec=BYTES).peek("b", 2)]
    both, one = there.stats(), Buffer(client, "q").stats()
    assert (both.waiting, both.dead, both.delayed) == (one.waiting + 2, one.dead, one.delayed + one.leased)
    assert there.audit().ok


@pytest.mark.parametrize("order", ["fifo", "score"])
def test_merging_priority_queues(
    client: redis.Redis, run_import: Import, export: Callable[..., bytes], order: Any
) -> None:
    """A member of both has the lower score and the earlier time; others come behind those of their priority."""
    here = PriorityQueue(client, "here", order=order)
    here.push_many([("x", 1), ("lower", 1), ("higher", 9), ("held", 2), ("dead", 3), ("late", 5)])
    here.push("delayed", 4, delay=1_000, payload={"new": 1})
    here.pause()
    data = export("here")
    there = PriorityQueue(client, "there", order=order)
    there.push("held", 5)
    held = there.reserve(holder="me")
    assert held
    there.push_many([("mine", 1), ("lower", 7), ("higher", 2), ("dead", 9), ("late", 5)], delay=0)
    there.push("delayed", 6, delay=5_000)
    assert run_import(data, "there", "--merge")[0] == 0
    found = {item.member: item.priority for item in there.peek(100)}
    assert found == {"mine": 1, "x": 1, "lower": 1, "higher": 2, "dead": 3, "late": 5}
    if order == "fifo":
        assert [*found][:2] == ["mine", "x"]
    (later,) = there.delayed()
    assert (later.member, later.priority, later.payload) == ("delayed", 4, {"new": 1})
    held.ack()
    again = there.reserve(9)
    assert again
    assert "held" in again.items  # it was asked for while it was worked on
    assert there.audit().ok


# -- killed


@pytest.mark.parametrize("kind", MAKE)
def test_killed_at_every_command(
    client: redis.Redis,
    export: Callable[..., bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: str,
) -> None:
    """Whenever the import dies, and the one after it too, the third one completes it."""
    monkeypatch.setattr(importing, "_CALLS", 3)
    monkeypatch.setattr(importing, "_MEMBERS", 70)
    MAKE[kind](client, leased=False)
    data, expected = export("q"), state_of(client, "q")
    for after in count(1):
        client.delete(*client.keys("redisq:{copy}:*"), "none")
        died = True
        for place in (after, 6):
            with given(data, tmp_path, monkeypatch):
                died = killed(monkeypatch, ("import", "copy"), place)
            if place == after and not died:
                break
        with given(data, tmp_path, monkeypatch):
            assert main(("import", "copy")) == 0
        assert state_of(client, "copy") == expected, after
        if not died and place == after:
            assert after > 8
            break
    capsys.readouterr()


@pytest.mark.parametrize("kind", MAKE)
def test_a_step_that_is_sent_twice_counts_once(
    client: redis.Redis, run_import: Import, export: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """As a client does when a reply is lost, or a second process with the same file."""
    MAKE[kind](client, leased=False)
    data, expected = export("q"), state_of(client, "q")
    steps = importing.Import._steps

    def twice(self: Any, *arguments: Any) -> Iterator[Any]:
        for one in steps(self, *arguments):
            yield from (one, one)

    monkeypatch.setattr(importing.Import, "_steps", twice)
    assert run_import(data, "copy")[0] == 0
    assert state_of(client, "copy") == expected


@pytest.mark.parametrize("known", range(4))
def test_a_server_that_knows_some_of_the_scripts(
    client: redis.Redis, run_import: Import, export: Callable[..., bytes], known: int
) -> None:
    """A step that is sent again, because its script was unknown, comes behind those that were sent with it."""
    make_buffer(client, leased=False)
    data, expected = export("q"), state_of(client, "q")
    client.script_flush()
    for name, inner in (("run", "buffer/push"), ("batch", None), ("run", "buffer/pause_group"))[:known]:
        client.script_load(steps.step(name, inner).text)
    assert run_import(data, "copy") == (0, ANY, "")
    assert state_of(client, "copy") == expected


def test_an_import_that_the_queue_has_forgotten(
    client: redis.Redis, run_import: Import, export: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """This process was stopped for so long, and another one has finished meanwhile."""
    monkeypatch.setattr(importing, "_CALLS", 1)
    make_buffer(client, leased=False)
    data = export("q")
    send = importing.Import._send

    def forgetting(self: Any, *arguments: Any) -> int:
        if self._queue.calls.queue == b"redisq:{copy}:" and (done := arguments[1]):
            client.delete(self._progress)
            assert done == 1
        return send(self, *arguments)

    monkeypatch.setattr(importing.Import, "_send", forgetting)
    code, out, err = run_import(data, "copy")
    assert (code, out) == (1, "")
    assert err.startswith("redisq: another process has imported the same file")


def test_a_batch_that_is_gone_is_not_restored_by_a_late_step(
    client: redis.Redis, run_import: Import, export: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step is sent again after the batch was restored and thrown away."""
    here, copy = (Buffer(client, name, codec=BYTES) for name in ("q", "copy"))
    here.push(b"1")
    batch = here.reserve()
    assert batch
    batch.bury()
    sent: list[Any] = []
    steps = importing.Import._steps

    def noted(self: Any, *arguments: Any) -> Iterator[Any]:
        sent.extend(steps(self, *arguments))
        yield from sent

    monkeypatch.setattr(importing.Import, "_steps", noted)
    assert run_import(export("q", "--live"), "copy")[0] == 0
    assert copy.discard(batch.id) == 1
    assert copy.send(*(one.call for one in sent)) == [1]
    assert copy.stats().dead == 0


def test_an_interrupted_merge_goes_on_as_one(
    client: redis.Redis, export: Callable[..., bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether --merge is said again or not."""
    monkeypatch.setattr(importing, "_CALLS", 1)
    monkeypatch.setattr(importing, "_MEMBERS", 5)
    here = PriorityQueue(client, "q")
    here.push_many([(f"m{i}", i) for i in range(12)])
    data = export("q", "--live")
    for again in ((), ("--merge",)):
        for after in count(1):
            client.delete(*client.keys("redisq:{copy}:*"), "none")
            copy = PriorityQueue(client, "copy")
            copy.push_many([(f"mine{i}", 5) for i in range(9)])
            with given(data, tmp_path, monkeypatch):
                died = killed(monkeypatch, ("import", "copy", "--merge"), after)
            begun = bool(client.keys("redisq:{copy}:once:import*"))
            with given(data, tmp_path, monkeypatch):
                assert main(("import", "copy", *(again if begun else ("--merge",)))) == 0
            found = [item.member for item in copy.pop_many(100)]
            assert found == [
                *(f"m{i}" for i in range(5)),
                *(f"mine{i}" for i in range(9)),
                *(f"m{i}" for i in range(5, 12)),
            ]
            if not died:
                break


def test_killed_while_workers_take(
    client: redis.Redis, export: Callable[..., bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was restored and is worked off before the next process goes on is not restored once more."""
    monkeypatch.setattr(importing, "_CALLS", 1)
    monkeypatch.setattr(importing, "_MEMBERS", 3)
    here = PriorityQueue(client, "q")
    here.push_many([(f"m{i}", i) for i in range(12)])
    data = export("q", "--live")
    for after in count(1):
        client.delete(*client.keys("redisq:{copy}:*"), "none")
        copy, taken = PriorityQueue(client, "copy"), list[str]()
        with given(data, tmp_path, monkeypatch):
            died = killed(monkeypatch, ("import", "copy"), after)
        taken += [item.member for item in copy.pop_many(100)]
        with given(data, tmp_path, monkeypatch):
            assert main(("import", "copy")) == 0
        taken += [item.member for item in copy.pop_many(100)]
        assert taken == [f"m{i}" for i in range(12)]
        if not died:
            return


@pytest.mark.parametrize("kind", MAKE)
def test_a_full_server_is_told_and_the_rest_comes_later(
    client: redis.Redis, run_import: Import, export: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(importing, "_CALLS", 1)
    monkeypatch.setattr(importing, "_MEMBERS", 70)
    MAKE[kind](client, leased=False)
    data, expected = export("q"), state_of(client, "q")
    send, sent = importing.Import._steps, [0]

    def filling(self: Any, *arguments: Any) -> Iterator[Any]:
        for one in send(self, *arguments):
            sent[0] += 1
            client.config_set("maxmemory", 1 if sent[0] == 6 else 0)
            yield one

    with monkeypatch.context() as patch:
        patch.setattr(importing.Import, "_steps", filling)
        code, _, err = run_import(data, "copy")
    assert (code, "used memory > 'maxmemory'" in err) == (1, True)
    assert err.endswith("; run it again with the same file to go on\n")
    client.config_set("maxmemory", 0)
    code, out, _ = run_import(data, "copy", "--json")
    assert (code, json.loads(out)["resumed_at"]) == (0, 5 if kind == "buffer" else 350)
    assert state_of(client, "copy") == expected


@pytest.mark.parametrize("kind", ["buffer", "priority"])
def test_what_is_dead_alone_is_kept_for_ever(
    client: redis.Redis, run_import: Import, export: Callable[..., bytes], kind: str
) -> None:
    """An import begins as in an empty queue, whose mark expires: what is restored ends that."""
    for name in ("q", "copy"):
        queue: Any = Buffer(client, name) if kind == "buffer" else PriorityQueue(client, name)
        if name == "q":
            queue.push("1")
            queue.reserve().bury()
            data = export("q", "--live")
    assert run_import(data, "copy")[0] == 0
    assert queue.stats().dead == 1
    assert client.pttl("redisq:{copy}:meta") == -1


def test_what_is_pushed_meanwhile_comes_behind_what_is_still_to_come(
    client: redis.Redis, export: Callable[..., bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "_CALLS", 1)
    monkeypatch.setattr(importing, "_MEMBERS", 2)
    here = PriorityQueue(client, "q")
    here.push_many(dict.fromkeys("abcd", 0))
    data = export("q", "--live")
    for after in count(1):
        client.delete(*client.keys("redisq:{copy}:*"), "none")
        with given(data, tmp_path, monkeypatch):
            died = killed(monkeypatch, ("import", "copy"), after)
        copy = PriorityQueue(client, "copy")
        if begun := client.exists("redisq:{copy}:meta"):
            copy.push("new")
        with given(data, tmp_path, monkeypatch):
            assert main(("import", "copy")) == 0
        assert [item.member for item in copy.peek(9)] == ["a", "b", "c", "d", *(["new"] if begun else [])], after
        if not died:
            return


def test_a_member_that_moves_during_a_live_export_is_in_it_once(
    client: redis.Redis, export: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And so is a batch: it was met when it was delayed, and once more among the dead."""
    queue = PriorityQueue(client, "p")
    queue.push("m")
    queue.reserve().bury()  # type: ignore[union-attr]
    buffer = Buffer(client, "b")
    buffer.push("1")
    batch = buffer.reserve()
    assert batch
    write = archive.Writer.write

    def moving(self: Any, record: Any, items: int) -> None:
        write(self, record, items)
        if record["state"] == "leased":
            batch.bury()
        elif "member" in record:
            queue.redrive("m")

    monkeypatch.setattr(archive.Writer, "write", moving)
    for name in ("p", "b"):
        lines = [json.loads(line) for line in export(name, "--live").splitlines()]
        assert len(lines) == 3
        assert (lines[1]["state"], lines[2]["items"]) == ("dead" if name == "p" else "leased", 1)
    assert queue.peek()
    assert buffer.stats().dead == 1


def test_an_empty_queue_leaves_nothing_for_ever(
    client: redis.Redis, run_import: Import, export: Callable[..., bytes]
) -> None:
    buffer = Buffer(client, "b")
    buffer.push("1")
    buffer.pop()
    data = export("b", "--live")
    assert run_import(data, "copy")[0] == 0
    assert all(client.pttl(key) > 0 for key in client.keys("redisq:{copy}:*"))
