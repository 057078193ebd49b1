"""Every kind of client gives the same results: decoding, protocols, asyncio, pipelines, unloaded scripts."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from typing import Any

import pytest
import redis
import redis.asyncio

import redisq.asyncio
import redisq.blocking.round_trip
from redisq import BYTES, Batch, Buffer, Call, Item, PriorityQueue, Pushed, Rate, RateLimiter, State
from redisq.embedded import Server
from tests.conftest import MakeClient
from tests.queues.structures import take

NOT_UTF8 = [b"\xff\xfe", b"", b"\0", b"plain", "é".encode("latin-1")]
SETTINGS = [
    {},
    {"decode_responses": True},
    {"protocol": 3},
    {"protocol": 3, "decode_responses": True},
    {"decode_responses": True, "encoding": "latin-1"},
]


@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_results_do_not_depend_on_the_clients_settings(make_client: MakeClient, options: dict[str, Any]) -> None:
    """Payloads are unchanged, and names are text, whatever the client decodes."""
    client = make_client(**options)
    buffer: Buffer[bytes] = Buffer(client, "q é", codec=BYTES)
    assert buffer.push(*NOT_UTF8, group="g\udcff") == 5
    assert buffer.groups() == {"g\udcff": 5}
    assert buffer.pop_longest(1, 2) == {"g\udcff": NOT_UTF8[:2]}
    assert buffer.pop("g\udcff") == NOT_UTF8[2:]
    assert buffer.stats().waiting == 0
    assert buffer.groups(state="busy") == buffer.groups(state="paused") == {}
    assert buffer.audit().ok
    queue: PriorityQueue[bytes] = PriorityQueue(client, "p é", codec=BYTES, payload_codec=BYTES)
    assert queue.push_many([(m, i, m[::-1]) for i, m in enumerate(NOT_UTF8)]) == {Pushed.ADDED: 5}
    assert queue.state(NOT_UTF8[0]) is State.READY
    assert queue.pop_many(5) == [Item(m, i, 1, m[::-1]) for i, m in enumerate(NOT_UTF8)]
    assert queue.pop() is None
    assert RateLimiter(client, "q", Rate(1, 60)).acquire(2).granted == 1


@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_batches_do_not_depend_on_the_clients_settings(make_client: MakeClient, options: dict[str, Any]) -> None:
    """Payloads, groups and lease ids are unchanged, from reserve to the dead letters."""
    client = make_client(**options)
    items = [b"\xff\xfe", b"", b"\0", b"plain"]
    buffer = Buffer[bytes](client, "b é", codec=BYTES, max_attempts=2)
    buffer.push(*items, group="g\udcff")
    batch = take(buffer, lease_id="l\udcff", holder="h\udcff")
    (shown,) = buffer.leased()
    assert (shown.id, shown.items, shown.holder) == (batch.id, items, "h\udcff")
    assert (batch.id, batch.group, batch.items) == ("l\udcff", "g\udcff", items)
    assert isinstance(batch.deadline, float)
    batch.extend()
    batch.fail(b"\0")
    assert batch.ack() == 3
    assert take(buffer).release(reason="why: é") == 1
    assert buffer.reserve(timeout=0.01) is None
    (dead,) = buffer.dead()
    assert (dead.group, dead.items, dead.attempts, dead.reason) == ("g\udcff", [b"\0"], 2, "why: é")
    assert buffer.redrive(dead.id) == 1
    assert buffer.ack(*buffer.reserve_many(2)) == 1

    queue = PriorityQueue[bytes](client, "p é", codec=BYTES, payload_codec=BYTES, max_attempts=2)
    queue.push_many((item, i, item[::-1]) for i, item in enumerate(items))
    members = take(queue, lease_id="l\udcff")
    assert (members.id, members.group, members.items) == ("l\udcff", None, items)
    assert members.payloads == [item[::-1] for item in items]
    (held,) = queue.leased()
    assert (held.items, held.payloads, held.priorities) == (items, members.payloads, [0, 1, 2, 3])
    members.extend()
    members.fail(b"\0")
    assert members.ack() == 3
    assert take(queue).release(reason="why: é") == 1
    assert queue.reserve(timeout=0.01) is None
    (gone,) = queue.dead()
    assert gone == Item(b"\0", 2, 2, b"\0", "why: é", gone.time)
    assert queue.dead(after=b"\0") == []
    assert queue.redrive(b"\0") == 1
    assert queue.ack(*queue.reserve_many(2)) == 1
    assert buffer.audit().ok
    assert queue.audit().ok


@pytest.fixture
def calls_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[type], set[str]]:
    """Return a function that makes a class record which of its public methods are called."""

    def record(cls: type) -> set[str]:
        called: set[str] = set()

        def recorded(name: str, method: Any) -> Any:
            def call(self: Any, *args: Any, **options: Any) -> Any:
                called.add(name)
                return method(self, *args, **options)

            return call

        for name, method in inspect.getmembers(cls, inspect.isfunction):
            awaited = inspect.iscoroutinefunction(method) or name == "batches"
            if awaited and not name.startswith("_"):
                monkeypatch.setattr(cls, name, recorded(name, method))
        return called

    return record


def public(cls: type) -> set[str]:
    """Return the names of a blocking class's public methods, without those that need no server."""
    methods = inspect.getmembers(cls, inspect.isfunction)
    return {name for name, method in methods if method.__module__ != "redisq.core.batch" and not name.startswith("_")}


async def test_every_asyncio_method(aclient: redis.asyncio.Redis, calls_of: Callable[[type], set[str]]) -> None:
    """Each is called at least once."""
    kinds: list[tuple[Any, Any]] = [
        (Buffer, redisq.asyncio.Buffer),
        (PriorityQueue, redisq.asyncio.PriorityQueue),
        (RateLimiter, redisq.asyncio.RateLimiter),
        (Batch, redisq.asyncio.Batch),
    ]
    called = [calls_of(kind) for _, kind in kinds]
    buffer: redisq.asyncio.Buffer[Any] = redisq.asyncio.Buffer(aclient, "q", max_attempts=1)
    assert await buffer.push({"b": 1, "a": [1.5, None]}, group="g") == 1
    assert await buffer.push_many(range(3), group="g") == 4
    assert await buffer.push_front("first", group="g") == 5
    assert await buffer.groups() == {"g": 5}
    assert await buffer.pop("g", 2) == ["first", {"a": [1.5, None], "b": 1}]
    assert await buffer.pop_longest() == {"g": [0, 1, 2]}
    await buffer.push(*range(8))
    one = await buffer.reserve(2)
    assert one
    assert await one.ack() == 2
    two, three, four = await buffer.reserve_many(3, 1)
    await two.extend(1000)
    assert [batch.id for batch in await buffer.leased()] == [three.id, four.id, two.id]
    await buffer.extend(three, four, lease=2000)
    assert await two.release(delay=1000) == await buffer.release(three, delay=2000) == 1
    assert [batch.items for batch in await buffer.delayed()] == [[2], [3]]
    assert await four.bury("why") == 1
    five, six = await buffer.reserve_many(2, 1)
    assert await buffer.bury(five) == await buffer.ack(six) == 1
    assert {batch.id: batch.reason for batch in await buffer.dead()} == {four.id: "why", five.id: ""}
    assert await buffer.redrive(four.id) == await buffer.discard(five.id) == 1
    stats = await buffer.stats()
    assert (stats.waiting, stats.delayed, stats.leased, stats.dead, stats.done) == (2, 2, 0, 0, 3)
    await buffer.pause(1000, "why")
    assert await buffer.reserve() is None
    assert await buffer.resume()
    await buffer.pause_group("default")
    assert await buffer.reserve() is None
    assert await buffer.groups(state="paused") == {"default": 2}
    assert await buffer.resume_group("default")
    assert await buffer.peek(count=5) == [4, 7]
    await buffer.push("x", group="g")
    assert await buffer.drop_group("g") == 1
    assert (await buffer.audit(repair=True)).ok
    assert await buffer.purge() == 4
    await buffer.push(1, 2)
    assert [batch.items async for batch in buffer.batches(1)] == [[1], [2]]
    assert (await buffer.stats()).leased == 0
    assert await buffer.send(buffer.calls.push(["x"]), buffer.calls.pop()) == [1, ["x"]]
    await buffer.wait(0.01)

    queue = redisq.asyncio.PriorityQueue(aclient, "p")
    assert await queue.push("a", 5) is Pushed.ADDED
    assert await queue.push_many({"b": 4, "a": 3}) == {Pushed.ADDED: 1, Pushed.RAISED: 1}
    assert await queue.peek(2) == [Item("a", 3, 0), Item("b", 4, 0)]
    assert await queue.state("a") is State.READY
    assert await queue.remove("b", "c") == 1
    assert await queue.pop() == Item("a", 3, 1)
    assert await queue.pop_many(3) == []
    await queue.push_many((name, i, name) for i, name in enumerate("abcd"))
    first = await queue.reserve(1)
    assert first
    assert first.payloads == ["a"]
    others = await queue.reserve_many(3)
    await queue.extend(*others, lease=1000)
    assert [batch.id for batch in await queue.leased(1)] == [first.id]
    assert await queue.release(others[0], delay=1000, reason="later") == 1
    assert [item.reason for item in await queue.delayed()] == ["later"]
    assert await queue.bury(*others[1:], reason="why") == 2
    assert [item.member for item in await queue.dead()] == ["c", "d"]
    assert await queue.redrive("c") == await queue.discard("d") == await queue.ack(first) == 1
    await queue.pause(1000, "why")
    assert await queue.pop() is None
    assert await queue.resume()
    assert (await queue.stats()).waiting == 1
    assert (await queue.audit()).ok
    assert await queue.purge() == 2
    await queue.push_many({"a": 1, "b": 2})
    assert [batch.items async for batch in queue.batches()] == [["a"], ["b"]]
    assert (await queue.stats()).leased == 0
    assert await queue.send(queue.calls.push("a"), queue.calls.remove(["a"])) == [Pushed.ADDED, 1]
    await queue.wait(0.01)

    limiter = redisq.asyncio.RateLimiter(aclient, "l", Rate(2, 0.05))
    assert (await limiter.acquire(3)).granted == 2
    assert (await limiter.wait(2)).granted == 2
    assert (await limiter.wait(5, timeout=0.01)).granted < 5
    assert called == [public(blocking) for blocking, _ in kinds]


@pytest.mark.parametrize("transaction", [True, False])
@pytest.mark.parametrize("options", [{}, {"decode_responses": True}], ids=str)
def test_an_operation_can_be_queued_in_a_pipeline(
    make_client: MakeClient, transaction: bool, options: dict[str, Any]
) -> None:
    """With plain commands, also in a MULTI, and with scripts that the server has not loaded."""
    client = make_client(**options)
    buffer: Buffer[str] = Buffer(client, "q")
    queue = PriorityQueue(client, "p")
    client.script_flush()
    calls: list[Call[Any]] = [
        buffer.calls.push(["é", "b"]),
        queue.calls.push("m", 3),
        buffer.calls.pop(),
        queue.calls.pop_once(),
    ]
    with client.pipeline(transaction=transaction) as pipe:
        pipe.set("mine", 1)
        for call in calls:
            call.queue(pipe)
        _, *replies = pipe.execute()
    answers = [call.decode(reply) for call, reply in zip(calls, replies, strict=True)]
    assert answers == [2, Pushed.ADDED, ["é", "b"], Item("m", 3, 1)]


async def test_an_operation_can_be_queued_in_an_asyncio_pipeline(aclient: redis.asyncio.Redis) -> None:
    call = redisq.asyncio.Buffer(aclient, "q").calls.push([1, 2])
    async with aclient.pipeline() as pipe:
        call.queue(pipe)
        (reply,) = await pipe.execute()
    assert call.decode(reply) == 2


def test_scripts_are_loaded_again_when_the_server_lost_them(make_client: MakeClient) -> None:
    """A SCRIPT FLUSH before every call goes unnoticed."""
    client = make_client()
    buffer: Buffer[int] = Buffer(client, "q")
    for i in range(5):
        client.script_flush()
        assert buffer.push(i) == i + 1
        client.script_flush()
        assert buffer.groups() == {"default": i + 1}


def test_script_flush_at_any_moment(server: Server) -> None:
    """SCRIPT FLUSH in a tight loop, beside 500 pushes and pops: none fails, and no item is lost."""
    stop = threading.Event()

    def flush() -> None:
        with server.client() as other:
            while not stop.is_set():
                other.script_flush()

    flusher = threading.Thread(target=flush)
    flusher.start()
    try:
        with server.client() as client:
            buffer: Buffer[int] = Buffer(client, "q")
            queue = PriorityQueue(client, "p")
            for i in range(500):
                buffer.push(i)
                queue.push(str(i))
            assert buffer.pop(size=1000) == list(range(500))
            assert [item.member for item in queue.pop_many(500)] == [str(i) for i in range(500)]
    finally:
        stop.set()
        flusher.join()


def test_the_client_is_not_changed(make_client: MakeClient) -> None:
    """Queues share a client, and do not change its settings."""
    client = make_client(decode_responses=True)
    Buffer(client, "a").push("x")
    PriorityQueue(client, "b").push("y")
    assert client.get("none") is None
    client.set("k", "v")
    assert client.get("k") == "v"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # redis-py 5.0 leaves its socket open
def test_errors_of_redis_py_pass_through() -> None:
    """An unreachable server raises redis-py's own ConnectionError."""
    with redis.Redis(unix_socket_path="/nonexistent/redis.sock") as client, pytest.raises(redis.ConnectionError):
        Buffer(client, "q").push(1)


# -- who sends the commands


class Asked(redis.Redis):
    """A client of the user's own, that wants to be asked."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Note a command, and send it."""
        self.__dict__.setdefault("commands", []).append(args[0])
        return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]


class AskedAsyncio(redis.asyncio.Redis):
    """The same for asyncio."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Note a command, and send it."""
        self.__dict__.setdefault("commands", []).append(args[0])
        return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]


async def test_a_client_with_its_own_execute_command_sends_the_commands(server: Server) -> None:
    """So that what a subclass adds, or a tracer that patched it, is not passed by."""
    with Asked(unix_socket_path=server.socket) as client:
        Buffer[int](client, "q").push(1)
        assert "EVALSHA" in client.__dict__["commands"]
    async with AskedAsyncio(unix_socket_path=server.socket) as aclient:
        await redisq.asyncio.Buffer[int](aclient, "q").push(1)
        assert "EVALSHA" in aclient.__dict__["commands"]


def test_a_patched_client_sends_the_commands(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the object or the class; when it is patched after the queue was made, it is too late."""
    client, seen = make_client(), []
    owner: Any = next(cls for cls in type(client).__mro__ if "execute_command" in vars(cls))
    send = owner.execute_command
    early: Buffer[int] = Buffer(client, "q")

    def traced(self: Any, *args: Any, **options: Any) -> Any:
        seen.append(args[0])
        return send(self, *args, **options)

    functools.update_wrapper(traced, send)
    with monkeypatch.context() as patch:
        patch.setattr(owner, "execute_command", traced)
        Buffer[int](client, "q").push(1)
        assert seen.count("EVALSHA") == 1
    with monkeypatch.context() as patch:
        patch.setattr(client, "execute_command", functools.partial(traced, client))
        Buffer[int](client, "q").push(1)
        early.push(1)
    assert seen.count("EVALSHA") == 2


def test_an_interrupted_read_leaves_no_reply_behind(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C between two replies of one round trip: the next call gets its own reply, on a new connection."""
    with server.client() as client:
        buffer: Buffer[int] = Buffer(client, "q")
        buffer.push(1, 2, 3)
        with monkeypatch.context() as patch:
            read = redis.UnixDomainSocketConnection.read_response
            replies: list[Any] = []

            def interrupted(self: Any, *args: Any, **options: Any) -> Any:
                replies.append(read(self, *args, **options))
                if len(replies) == 2:
                    raise KeyboardInterrupt
                return replies[-1]

            patch.setattr(redis.UnixDomainSocketConnection, "read_response", interrupted)
            with pytest.raises(KeyboardInterrupt):
                buffer.reserve_many(3, 1)
        assert buffer.stats().leased == 3


def test_without_hiredis(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection packs the commands itself, and items of any bytes are unchanged."""
    monkeypatch.setattr(redisq.blocking.round_trip, "_pack", None)
    buffer: Buffer[bytes] = Buffer(make_client(), "q", codec=BYTES)
    assert buffer.push(*NOT_UTF8, b"x" * 10_000) == 6
    assert [batch.items for batch in buffer.batches(3)] == [NOT_UTF8[:3], [*NOT_UTF8[3:], b"x" * 10_000]]


@pytest.mark.server
@pytest.mark.parametrize("size", [10, 1 << 20])
def test_small_commands_are_sent_in_one_piece(server: Server, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large ones are not copied for it, and each of either comes out as it went in."""
    with server.client() as client:
        buffer: Buffer[bytes] = Buffer(client, "q", codec=BYTES)
        buffer.push(b"first")
        pieces: list[int] = []
        send: Any = redis.UnixDomainSocketConnection.send_packed_command

        def counted(self: Any, command: list[bytes], *args: Any, **options: Any) -> Any:
            pieces.append(len(command))
            return send(self, command, *args, **options)

        monkeypatch.setattr(redis.UnixDomainSocketConnection, "send_packed_command", counted)
        items = [bytes([number]) * size for number in range(3)]
        assert buffer.send(*(buffer.calls.push([item]) for item in items)) == [2, 3, 4]
        assert len(pieces) == 1
        assert (pieces[0] == 1) == (size == 10)  # of large ones hiredis makes three, redis-py more
        assert buffer.pop() == [b"first", *items]
