"""What happens to a batch when its handler raises: Retry, Bury, other exceptions, and the reason that is kept."""

from __future__ import annotations

import asyncio
import logging
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from copy import copy
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry as RedisRetry

import redisq
import redisq.asyncio
from redisq import BYTES, Buffer, Buried, Bury, InvalidArgument, LeaseLost, PriorityQueue, Retry, ScriptError, State
from redisq.core.queue import describe, reason_of
from redisq.core.validate import MAX_SECONDS
from redisq.core.worker import STOPPED
from redisq.embedded import Server
from tests.faults.node import HOST, Node
from tests.faults.proxy import Fault, Proxy
from tests.queues.flavours import TIMEOUT, Flavour
from tests.queues.structures import STRUCTURES

SHORT_DELAY = 0.01


def raising(error: BaseException) -> Callable[..., None]:
    """Return a function that raises this."""

    def act(*_: object) -> None:
        raise error

    return act


def from_cause(error: BaseException) -> Callable[..., None]:
    """Return a function that raises an exception with a cause."""

    def act(*_: object) -> None:
        try:
            raise KeyError("the cause")
        except KeyError as cause:
            raise error from cause

    return act


def in_context(error: BaseException) -> Callable[..., None]:
    """Return a function that raises an exception while it handles another."""

    def act(*_: object) -> None:
        try:
            raise KeyError("the context")
        except KeyError:
            raise error  # noqa: B904

    return act


def from_none(error: BaseException) -> Callable[..., None]:
    """Return a function that raises an exception `from None` while it handles another."""

    def act(*_: object) -> None:
        try:
            raise KeyError("the context")
        except KeyError:
            raise error from None

    return act


REASONS: list[tuple[Callable[[BaseException], Callable[..., None]], str | None, str]] = [
    (raising, None, ""),
    (raising, "429", "429"),
    (from_cause, None, "KeyError: 'the cause'"),
    (from_cause, "mine", "mine"),
    (from_cause, "", ""),
    (in_context, None, "KeyError: 'the context'"),
    (in_context, "mine", "mine"),
    (from_none, None, ""),
    (from_none, "mine", "mine"),
]
WAYS = pytest.mark.parametrize(("way", "reason", "kept"), REASONS)


# -- inside `with batch:` --------------------------------------------------------------------------------------------


@STRUCTURES
@WAYS
def test_retry_ends_the_block_and_does_not_propagate(
    flavour: Flavour, structure: str, way: Any, reason: str | None, kept: str
) -> None:
    """The batch comes back at once, with the reason given, or that of the exception's cause."""
    do, queue = flavour.do, flavour.stocked(structure, "a", "b")
    batch = do(queue.reserve(9))
    flavour.within(batch, way(Retry(reason=reason)))
    assert batch.settled
    again = do(queue.reserve(9))
    assert (again.items, again.attempts, again.reason) == (["a", "b"], 2, kept)


@STRUCTURES
@WAYS
def test_bury_ends_the_block_and_does_not_propagate(
    flavour: Flavour, structure: str, way: Any, reason: str | None, kept: str
) -> None:
    """However many attempts are left."""
    do, queue = flavour.do, flavour.stocked(structure, "a", "b")
    batch = do(queue.reserve(9))
    flavour.within(batch, way(Bury(reason)))
    assert batch.settled
    assert do(queue.reserve(9)) is None
    dead = do(queue.dead())
    assert [one.reason for one in dead] == [kept] * (1 if structure == "buffer" else 2)
    assert do(queue.stats()).buried == 2


@STRUCTURES
def test_retry_sets_the_delay_and_whether_it_counts(flavour: Flavour, structure: str) -> None:
    do, queue = flavour.do, flavour.stocked(structure, "a", max_attempts=1)
    for _ in range(3):
        batch = do(queue.reserve())
        assert batch.attempts == 1
        flavour.within(batch, raising(Retry(count=False)))
    flavour.within(do(queue.reserve()), raising(Retry(1000, count=False)))
    stats = do(queue.stats())
    assert (stats.delayed, stats.due, stats.failed) == (1, 0, 0)


@STRUCTURES
def test_retry_counts_by_default(flavour: Flavour, structure: str) -> None:
    """So a batch that has used its attempts is buried, for that reason."""
    do, queue = flavour.do, flavour.stocked(structure, "a", max_attempts=2)
    for attempt in (1, 2):
        flavour.within(do(queue.reserve()), raising(Retry(reason=f"attempt {attempt}")))
    assert do(queue.reserve()) is None
    (dead,) = do(queue.dead())
    assert (dead.attempts, dead.reason) == (2, "attempt 2")


def test_a_member_that_is_pushed_meanwhile_survives_a_burial(flavour: Flavour) -> None:
    do, queue = flavour.do, flavour.stocked("priority", "a", "b")
    batch = do(queue.reserve(2))
    do(queue.push("b", 7, payload="new"))
    flavour.within(batch, raising(Bury("400")))
    assert [(item.member, item.reason) for item in do(queue.dead())] == [("a", "400")]
    item = do(queue.pop())
    assert (item.member, item.priority, item.payload, item.reason) == ("b", 7, "new", "")


@STRUCTURES
@pytest.mark.parametrize("ending", [Retry(reason="late"), Bury("late")], ids=lambda one: type(one).__name__)
def test_retry_and_bury_do_not_change_a_settled_batch(
    flavour: Flavour, structure: str, ending: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """This is logged."""
    do, queue = flavour.do, flavour.stocked(structure, "a", "b")
    batch = do(queue.reserve(1))
    do(batch.release(reason="first"))
    with caplog.at_level(logging.WARNING, "redisq"):
        flavour.within(batch, raising(ending))
    assert batch.id in caplog.text
    assert do(queue.stats()).dead == 0
    assert do(queue.reserve(1)).reason == "first"


@STRUCTURES
@pytest.mark.parametrize("ending", [Retry(), Bury()], ids=lambda one: type(one).__name__)
def test_retry_and_bury_do_not_raise_a_lost_lease(
    flavour: Flavour, structure: str, ending: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """The batch was handed out again, or is gone, which is logged."""
    do, queue = flavour.do, flavour.stocked(structure, "a")
    batch = do(queue.reserve())
    do(queue.purge())
    with caplog.at_level(logging.WARNING, "redisq"):
        flavour.within(batch, raising(ending))
    assert batch.lost
    assert batch.id in caplog.text


class Unprintable(Exception):
    """An exception whose str() fails."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


@STRUCTURES
def test_an_exception_that_cannot_be_printed_is_described_by_its_class(flavour: Flavour, structure: str) -> None:
    do, queue = flavour.do, flavour.stocked(structure, "a")
    with pytest.raises(Unprintable):
        flavour.within(do(queue.reserve()), raising(Unprintable()))
    assert do(queue.reserve()).reason == "Unprintable"


# -- precedence of the caller's exception ----------------------------------------------------------------------------

ENDINGS: list[BaseException] = [ValueError("mine"), KeyboardInterrupt(), SystemExit(3), GeneratorExit()]


def client_at(flavour: Flavour, port: int) -> Any:
    """Return a client of this flavour that gives up at the first error."""
    kind = redis.Redis if flavour.name == "blocking" else redis.asyncio.Redis
    return kind(host=HOST, port=port, retry=RedisRetry(NoBackoff(), 0))  # type: ignore[arg-type]


def close(flavour: Flavour, client: Any) -> None:
    """Close a client."""
    flavour.do(client.close() if flavour.name == "blocking" else client.aclose())


async def inside(batch: Any, act: Callable[[], object]) -> None:
    """Call a function inside `async with batch:`."""
    async with batch:
        act()


def check_error_leaving(flavour: Flavour, batch: Any, act: Callable[[], object], error: BaseException) -> None:
    """Call a function inside the block, leave it with this error, and check that it propagates."""

    def end() -> None:
        act()
        raise error

    async def caught() -> bool:
        # In the loop, because SystemExit or KeyboardInterrupt would end it.
        try:
            await inside(batch, end)
        except BaseException as arrived:
            return arrived is error
        return False

    if flavour.name == "asyncio":
        assert flavour.do(caught())
        return
    with pytest.raises(type(error)) as arrived, batch:
        end()
    assert arrived.value is error


@pytest.mark.server
@STRUCTURES
def test_the_callers_exception_propagates_when_redis_is_killed(
    real: Flavour, binary: Path, structure: str, caplog: pytest.LogCaptureFixture
) -> None:
    """In the middle of the block: the batch is not settled, and a normal exit raises redis-py's error."""
    with Node(binary) as node:
        client = client_at(real, node.port)
        name = "Buffer" if structure == "buffer" else "PriorityQueue"
        queue = getattr(real.library, name)(client, "q")
        for item in "abcd":
            real.do(queue.push(item))
        first, second, third, fourth = real.do(queue.reserve_many(4, 1))
        with caplog.at_level(logging.WARNING, "redisq"):
            check_error_leaving(real, first, node.kill, ValueError("mine"))
        assert first.id in caplog.text
        check_error_leaving(real, second, lambda: None, KeyboardInterrupt())
        with pytest.raises(redis.ConnectionError):
            real.within(third, lambda: None)
        with caplog.at_level(logging.WARNING, "redisq"):
            real.within(fourth, raising(Retry()))  # its release is lost, so the batch waits for its lease to expire
        assert fourth.id in caplog.text
        assert not any(batch.settled for batch in (first, second, third, fourth))
        close(real, client)


@STRUCTURES
@pytest.mark.parametrize("fault", [Fault.REQUEST, Fault.REPLY, Fault.TORN_REPLY], ids=lambda fault: fault.name)
def test_the_callers_exception_propagates_when_the_connection_breaks(
    real: Flavour, structure: str, fault: Fault
) -> None:
    """Before or after the release took effect."""
    with Proxy(real._server.socket) as proxy:  # type: ignore[union-attr]
        client = client_at(real, proxy.port)
        name = "Buffer" if structure == "buffer" else "PriorityQueue"
        queue = getattr(real.library, name)(client, "q")
        real.do(queue.push("warm"))
        real.do(real.do(queue.reserve()).release())  # so that all scripts are loaded, and one call is one command
        real.do(queue.purge())
        for place, error in enumerate(ENDINGS):
            real.do(queue.push(str(place)))
            batch = real.do(queue.reserve(1))
            assert batch.items == [str(place)]
            check_error_leaving(real, batch, lambda: proxy.inject(fault), error)
            assert not batch.settled
            assert real.do(queue.stats()).leased == (1 if fault is Fault.REQUEST else 0)
            real.do(queue.purge())
        assert proxy.injected[fault] == len(ENDINGS)
        close(real, client)


@STRUCTURES
def test_the_callers_exception_takes_precedence_over_every_other_error(flavour: Flavour, structure: str) -> None:
    """Over a lost lease, keys that another client wrote, a broken runner."""
    do, queue = flavour.do, flavour.stocked(structure, "a", "b", "c")
    first, second, third = do(queue.reserve_many(3, 1))

    def overwrite() -> None:
        flavour.plain.set("redisq:{q}:leases", "mine")

    def other_layout() -> None:
        flavour.plain.hset("redisq:{q}:meta", mapping={"queue": "9 stack"})

    check_error_leaving(flavour, first, overwrite, ValueError("mine"))
    with pytest.raises(ScriptError):
        flavour.within(second, lambda: None)
    check_error_leaving(flavour, second, other_layout, ValueError("mine"))
    flavour.plain.flushall()
    check_error_leaving(flavour, third, lambda: None, ValueError("mine"))
    assert third.lost


async def test_a_cancelled_block_releases_and_is_cancelled(server: Server) -> None:
    """Like any exception."""
    async with redis.asyncio.Redis(unix_socket_path=server.socket) as client:
        buffer = redisq.asyncio.Buffer[int](client, "q")
        await buffer.push(1)
        batch = await buffer.reserve()
        assert batch
        began = asyncio.Event()

        async def work() -> None:
            async with batch:
                began.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        again = await buffer.reserve()
        assert again
        assert again.reason == "CancelledError"


# -- Retry and Bury --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [-1, -0.001, float("nan"), float("inf"), MAX_SECONDS + 1, 10**400, "1", b"1", True, []])
def test_an_invalid_delay_is_refused_when_it_is_given(bad: Any) -> None:
    """In the handler, not later in the worker."""
    with pytest.raises(InvalidArgument) as caught:
        Retry(bad)
    assert repr(bad) in str(caught.value)


@STRUCTURES
@pytest.mark.parametrize("bad", [None, 0, 1, "no", "True"])
def test_count_must_be_a_bool(flavour: Flavour, structure: str, bad: Any) -> None:
    with pytest.raises(InvalidArgument, match="count is"):
        Retry(count=bad)
    batch = flavour.do(flavour.stocked(structure, "a").reserve())
    with pytest.raises(InvalidArgument, match="count is"):
        flavour.do(batch.release(count=bad))
    assert flavour.do(batch.ack()) == 1


@pytest.mark.parametrize("delay", [0, 1.5, Decimal("1.5"), MAX_SECONDS, None])
def test_a_delay_is_any_number_of_seconds(delay: Any) -> None:
    assert Retry(delay).delay == delay


@pytest.mark.parametrize(
    "ending", [Retry(), Retry(1.5, False, "why"), Retry(reason=""), Bury(), Bury("why"), Bury("")], ids=repr
)
@pytest.mark.parametrize("again", [copy, lambda one: pickle.loads(pickle.dumps(one))], ids=["copy", "pickle"])
def test_they_can_be_raised_in_a_process_pool(ending: Any, again: Callable[[Any], Any]) -> None:
    """An exception from another process arrives pickled."""
    twin = again(ending)
    assert type(twin) is type(ending)
    assert vars(twin) == vars(ending)
    assert str(twin) == str(ending) == (ending.reason or "")


def test_a_reason_that_is_not_text_is_converted() -> None:
    """Most likely the exception itself."""
    assert Bury(ValueError("odd")).reason == "odd"  # type: ignore[arg-type]
    assert Retry(reason=429).reason == "429"  # type: ignore[arg-type]


def test_an_exception_is_described_by_class_and_message() -> None:
    assert describe(ValueError("odd")) == "ValueError: odd"
    assert describe(ValueError()) == "ValueError"
    assert describe(KeyError("x")) == "KeyError: 'x'"
    assert reason_of(ValueError("odd"), lambda error: f"<{error}>") == "<odd>"
    assert reason_of(Retry(reason="mine"), lambda _: "not asked") == "mine"


# -- reasons ---------------------------------------------------------------------------------------------------------

TEXTS = {
    "": "",
    "two\nlines and a \0": "two\nlines and a \0",
    "é" * 600: "é" * 500,
    "x" + "é" * 600: "x" + "é" * 499,
    "€" * 400: "€" * 333,
    "x" * 998 + "\U0001f600": "x" * 998,
    "x" * 996 + "\U0001f600": "x" * 996 + "\U0001f600",
    "x" * 5000: "x" * 1000,
    "lone \ud800 surrogate": "lone \\ud800 surrogate",
}


@STRUCTURES
@pytest.mark.parametrize("options", [{}, {"decode_responses": True}], ids=str)
def test_a_reason_is_any_text_of_up_to_a_thousand_bytes(
    flavour: Flavour, structure: str, options: dict[str, Any]
) -> None:
    """A longer one is cut at a character boundary, by every call that keeps it."""
    do = flavour.do
    name = "Buffer" if structure == "buffer" else "PriorityQueue"
    queue = getattr(flavour.library, name)(flavour.make_client(**options), "q")
    for text, kept in TEXTS.items():
        do(queue.push("a"))
        batch = do(queue.reserve())
        do(batch.release(reason=text))
        batch = do(queue.reserve())
        assert batch.reason == kept
        batch.fail("a", reason=text[::-1] if text.isascii() else text)
        do(batch.ack())
        batch = do(queue.reserve())
        assert len(batch.reason.encode()) <= 1000
        do(batch.bury(text))
        (dead,) = do(queue.dead())
        assert dead.reason == (kept or batch.reason)
        do(queue.purge())


@STRUCTURES
def test_a_release_without_a_reason_keeps_the_previous_one(flavour: Flavour, structure: str) -> None:
    """An earlier reason is better than none."""
    do, queue = flavour.do, flavour.stocked(structure, "a")
    do(do(queue.reserve()).release(reason="first"))
    do(do(queue.reserve()).release())
    batch = do(queue.reserve())
    assert batch.reason == "first"
    do(batch.bury())
    (dead,) = do(queue.dead())
    assert dead.reason == "first"


HOLDER = """
import os, sys, redis
from redisq import Buffer, PriorityQueue
kind = Buffer if sys.argv[2] == "buffer" else PriorityQueue
batch = kind(redis.Redis(unix_socket_path=sys.argv[1]), "q").reserve(lease=0.05)
print(os.getpid(), flush=True)
os._exit(1)
"""


@STRUCTURES
def test_the_reason_after_a_crash_names_the_holder(server: Server, structure: str) -> None:
    """Its host and process id, for each member that is buried with it too."""
    with server.client() as client:
        queue: Any = (Buffer if structure == "buffer" else PriorityQueue)(client, "q", max_attempts=2)
        queue.push("a")
        for attempt in (1, 2):
            done = subprocess.run(
                [sys.executable, "-c", HOLDER, server.socket, structure], capture_output=True, text=True, timeout=60
            )
            expected = f"lease ran out: {socket.gethostname()}:{int(done.stdout)}"
            batch = queue.reserve(timeout=TIMEOUT if attempt == 1 else 1, lease=1000)
            if attempt == 1:
                assert (batch.reason, batch.attempts) == (expected, 2)
                assert batch.release(count=False) == 1
        assert batch is None
        (dead,) = queue.dead()
        assert (dead.reason, dead.attempts) == (expected, 2)


# -- workers ---------------------------------------------------------------------------------------------------------


class HookLog:
    """What a worker's hooks received; a test can wait for it."""

    def __init__(self) -> None:
        self.acked: list[Any] = []
        self.released: list[tuple[Any, BaseException | None]] = []
        self.dead: list[Buried] = []
        self._changed = threading.Condition()

    def _note(self, where: list[Any], *what: Any) -> None:
        with self._changed:
            where.extend(what)
            self._changed.notify_all()

    def __call__(self) -> dict[str, Any]:
        """Return the hooks as options of a worker."""
        return {
            "on_ack": lambda batch: self._note(self.acked, batch),
            "on_release": lambda batch, error: self._note(self.released, (batch, error)),
            "on_dead": lambda buried: self._note(self.dead, *buried),
        }

    def wait(self, acked: int = 0, released: int = 0, dead: int = 0) -> None:
        """Wait until the hooks were called this often."""

        def enough() -> bool:
            return len(self.acked) >= acked and len(self.released) >= released and len(self.dead) >= dead

        with self._changed:
            assert self._changed.wait_for(enough, TIMEOUT), (self.acked, self.released, self.dead)


def long_backoff(_: int) -> float:
    """Return a backoff longer than any test."""
    return 3600.0


@STRUCTURES
@WAYS
def test_a_handler_can_have_its_batch_retried(
    real: Flavour, structure: str, way: Any, reason: str | None, kept: str
) -> None:
    """With its own delay instead of the backoff; the hook gets the exception."""
    queue = real.stocked(structure, "a")
    retry, hooks, attempts = Retry(0, reason=reason), HookLog(), []

    def handle(batch: Any) -> None:
        attempts.append((batch.attempts, batch.reason))
        if batch.attempts == 1:
            way(retry)()

    with real.running(real.worker(queue, handle, backoff=long_backoff, **hooks())):
        hooks.wait(acked=1, released=1)
    assert attempts == [(1, ""), (2, kept)]
    ((batch, error),) = hooks.released
    assert batch.items == ["a"]
    assert error is retry
    stats = real.do(queue.stats())
    assert (stats.failed, stats.done) == (1, 1)


@STRUCTURES
@pytest.mark.parametrize(("delay", "seconds"), [(None, 3600), (7, 7), (500.5, 500.5)])
def test_a_retry_is_delayed_by_its_own_delay_or_by_the_backoff(
    real: Flavour, structure: str, delay: float | None, seconds: float
) -> None:
    queue, hooks = real.stocked(structure, "a"), HookLog()
    before = float("{}.{:06}".format(*real.plain.time()))
    with real.running(real.worker(queue, raising(Retry(delay)), backoff=long_backoff, **hooks())):
        hooks.wait(released=1)
    after = float("{}.{:06}".format(*real.plain.time()))
    (shown,) = real.do(queue.delayed())
    due = shown.deadline if structure == "buffer" else shown.time
    assert before + seconds - 0.01 <= due <= after + seconds + 0.01


@STRUCTURES
def test_a_retry_that_does_not_count_keeps_the_attempts(real: Flavour, structure: str) -> None:
    """A 429 more often than max_attempts; the next failure is the last."""
    queue, hooks, attempts = real.stocked(structure, "a", max_attempts=1), HookLog(), []

    def handle(batch: Any) -> None:
        attempts.append(batch.attempts)
        if len(attempts) < 5:
            raise Retry(0, count=False, reason="429")
        raise ValueError("500")

    with real.running(real.worker(queue, handle, backoff=long_backoff, **hooks())):
        hooks.wait(released=5, dead=1)
    assert attempts == [1] * 5
    (dead,) = real.do(queue.dead())
    assert (dead.attempts, dead.reason) == (1, "ValueError: 500")
    assert real.do(queue.stats()).failed == 1


@STRUCTURES
def test_the_last_attempt_is_buried_without_its_delay(real: Flavour, structure: str) -> None:
    """A retry that counts, with no attempts left, buries at once; one that does not count does not."""
    queue, hooks = real.stocked(structure, "a", max_attempts=1), HookLog()
    with real.running(real.worker(queue, raising(Retry(3600, reason="503")), backoff=long_backoff, **hooks())):
        hooks.wait(released=1, dead=1)
    (dead,) = real.do(queue.dead())
    assert dead.reason == "503"
    real.do(queue.purge())
    queue, hooks = real.stocked(structure, "a", max_attempts=1), HookLog()
    with real.running(real.worker(queue, raising(Retry(3600, count=False)), **hooks())):
        hooks.wait(released=1)
    stats = real.do(queue.stats())
    assert (stats.delayed, stats.due, stats.dead) == (1, 0, 0)


@STRUCTURES
@WAYS
def test_a_handler_can_have_its_batch_buried(
    real: Flavour, structure: str, way: Any, reason: str | None, kept: str
) -> None:
    """At once; on_dead is called for each of the dead, and no other hook."""
    queue, hooks = real.stocked(structure, "a", "b", max_attempts=9), HookLog()
    with real.running(real.worker(queue, way(Bury(reason)), size=2, **hooks())):
        hooks.wait(dead=1 if structure == "buffer" else 2)
    assert hooks.acked == hooks.released == []
    dead = real.do(queue.dead())
    assert {(one.attempts, one.reason) for one in dead} == {(1, kept)}
    if structure == "buffer":
        assert hooks.dead == [Buried(dead[0].id, "g", 1, kept)]
    else:
        assert hooks.dead == [Buried("a", None, None, kept), Buried("b", None, None, kept)]
    stats = real.do(queue.stats())
    assert (stats.buried, stats.failed, stats.done) == (2, 0, 0)


def test_an_earlier_reason_is_reported_if_there_is_no_newer_one(real: Flavour) -> None:
    """To the hook, as it is kept."""
    buffer, hooks = real.stocked("buffer", "a"), HookLog()
    real.do(real.do(buffer.reserve()).release(reason="earlier"))
    with real.running(real.worker(buffer, raising(Bury()), **hooks())):
        hooks.wait(dead=1)
    assert [one.reason for one in hooks.dead] == [one.reason for one in real.do(buffer.dead())] == ["earlier"]


def test_a_long_reason_is_reported_as_it_is_kept(real: Flavour) -> None:
    buffer, hooks = real.stocked("buffer", "a"), HookLog()
    with real.running(real.worker(buffer, raising(Bury("é" * 600)), **hooks())):
        hooks.wait(dead=1)
    assert [one.reason for one in hooks.dead] == [one.reason for one in real.do(buffer.dead())] == ["é" * 500]


SECRET = "token=hunter2"


@STRUCTURES
def test_secrets_can_be_kept_out_of_reasons(real: Flavour, structure: str) -> None:
    """A custom function describes every exception, including the cause of a Retry or Bury."""
    asked: list[str] = []

    def classes(error: BaseException) -> str:
        asked.append(type(error).__name__)
        return f"<{type(error).__name__}>"

    def handle(batch: Any) -> None:
        if batch.attempts == 1:
            raise ValueError(SECRET)
        try:
            raise KeyError(SECRET)
        except KeyError as error:
            if batch.attempts == 2:
                raise Retry(0) from error
            raise Bury() from error

    queue, hooks, shown = real.stocked(structure, "a"), HookLog(), []
    worker = real.worker(queue, handle, backoff=lambda _: SHORT_DELAY, reason=classes, **hooks())
    with real.running(worker):
        hooks.wait(released=2, dead=1)
    shown = [one.reason for one in real.do(queue.dead())]
    assert asked == ["ValueError", "KeyError", "KeyError"]
    assert shown == [one.reason for one in hooks.dead] == ["<KeyError>"]
    for key in real.plain.keys():  # noqa: SIM118
        assert SECRET.encode() not in (real.plain.dump(key) or b"")


@STRUCTURES
def test_a_reason_that_the_handler_gives_is_used_unchanged(real: Flavour, structure: str) -> None:
    """The function is for exceptions."""
    queue, hooks = real.stocked(structure, "a"), HookLog()
    with real.running(real.worker(queue, raising(Bury("quota")), reason=lambda _: "not asked", **hooks())):
        hooks.wait(dead=1)
    assert [one.reason for one in real.do(queue.dead())] == ["quota"]


def failing(error: BaseException) -> str:
    """Raise instead of describing the error."""
    raise RuntimeError(f"no reason for {error}")


@pytest.mark.parametrize("reason", [failing, lambda _: 5, lambda _: b"bytes", lambda error: error], ids=range(4))
def test_a_function_that_returns_no_text_leaves_the_class_name(
    real: Flavour, reason: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and the worker goes on."""
    buffer, hooks = real.stocked("buffer", "a"), HookLog()
    with real.running(real.worker(buffer, raising(ValueError("odd")), backoff=long_backoff, reason=reason, **hooks())):
        hooks.wait(released=1)
        real.do(buffer.push("b", group="h"))
        hooks.wait(released=2)
    assert [batch.reason for batch in real.do(buffer.delayed())] == ["ValueError"] * 2
    assert "reason failed" in caplog.text


def test_a_function_that_returns_none_keeps_no_reason(real: Flavour) -> None:
    buffer, hooks = real.stocked("buffer", "a"), HookLog()
    with real.running(
        real.worker(buffer, raising(ValueError("odd")), backoff=long_backoff, reason=lambda _: None, **hooks())
    ):
        hooks.wait(released=1)
    assert [batch.reason for batch in real.do(buffer.delayed())] == [""]


def test_the_function_describes_a_batch_that_cannot_be_decoded(real: Flavour) -> None:
    """The message of that error shows some of its bytes."""
    real.do(real.buffer(codec=BYTES).push(b"\xff" + SECRET.encode(), group="g"))
    buffer, hooks = real.buffer(), HookLog()
    with real.running(
        real.worker(
            buffer, raising(AssertionError()), backoff=long_backoff, reason=lambda e: type(e).__name__, **hooks()
        )
    ):
        hooks.wait(released=1)
    assert [batch.reason for batch in real.do(real.buffer(codec=BYTES).delayed())] == ["CodecError"]


@pytest.mark.parametrize("bad", [5, "text", [describe]])
def test_a_reason_that_is_not_a_function_is_refused(flavour: Flavour, bad: Any) -> None:
    with pytest.raises(InvalidArgument, match="reason is"):
        flavour.worker(flavour.buffer(), print, reason=bad)


def test_an_invalid_retry_is_an_ordinary_failure_of_the_handler(real: Flavour) -> None:
    """The worker goes on."""
    buffer, hooks = real.stocked("buffer", "a"), HookLog()

    def handle(batch: Any) -> None:
        if batch.attempts == 1:
            raise Retry(delay=10**9)

    with real.running(real.worker(buffer, handle, backoff=lambda _: SHORT_DELAY, **hooks())):
        hooks.wait(released=1, acked=1)
    assert hooks.acked[0].reason.startswith("InvalidArgument: delay is 1000000000")


@STRUCTURES
def test_marked_items_do_not_matter_when_the_handler_raises(real: Flavour, structure: str) -> None:
    """The batch is released or buried as a whole."""
    queue, hooks, seen = real.stocked(structure, "a", "b", "c"), HookLog(), []

    def handle(batch: Any) -> None:
        seen.append(list(batch.items))
        batch.fail("b", reason="odd")
        raise Bury("all") if batch.attempts > 1 else Retry(0)

    with real.running(real.worker(queue, handle, size=3, **hooks())):
        hooks.wait(released=1, dead=1 if structure == "buffer" else 3)
    assert seen == [["a", "b", "c"]] * 2
    assert {one.reason for one in real.do(queue.dead())} == {"all"}


def test_a_batch_that_the_handler_settled_is_not_settled_again(real: Flavour, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever it raises; that is logged, and no hook is called."""
    kind, hooks, done = Buffer[str](real.plain, "q"), HookLog(), threading.Event()
    kind.push("a", "b", group="g")
    buffer = real.buffer()

    def handle(batch: Any) -> None:
        if batch.items == ["b"]:
            done.set()
            return
        assert kind.bury(batch, reason="by hand") == 1  # the handler blocks the event loop
        raise Retry(0)

    with real.running(real.worker(buffer, handle, size=1, **hooks())):
        assert done.wait(TIMEOUT)
        hooks.wait(acked=1)
    assert not hooks.released
    assert not hooks.dead
    assert [batch.reason for batch in real.do(buffer.dead())] == ["by hand"]
    assert "after it had settled" in caplog.text


# -- a stopped worker ------------------------------------------------------------------------------------------------


@STRUCTURES
def test_the_reason_after_a_stopped_worker(server: Server, structure: str) -> None:
    """After the grace the batch is released as an attempt, with that reason."""
    with server.client() as client:
        queue: Any = (Buffer if structure == "buffer" else PriorityQueue)(client, "q")
        queue.push("a")
        began, end = threading.Event(), threading.Event()

        def handle(_: Any) -> None:
            began.set()
            end.wait(TIMEOUT)

        worker = redisq.Worker(queue, handle, grace=0.05)
        thread = threading.Thread(target=worker.run)
        thread.start()
        assert began.wait(TIMEOUT)
        worker.stop()
        thread.join(TIMEOUT)
        assert not thread.is_alive()
        batch = queue.reserve(timeout=TIMEOUT)
        end.set()
        assert (batch.items, batch.attempts, batch.reason) == (["a"], 2, STOPPED)


@STRUCTURES
@pytest.mark.parametrize("way", ["grace", "second stop", "cancelled"])
async def test_the_reason_after_a_stopped_asyncio_worker(server: Server, structure: str, way: str) -> None:
    async with redis.asyncio.Redis(unix_socket_path=server.socket) as client:
        kind: Any = redisq.asyncio.Buffer if structure == "buffer" else redisq.asyncio.PriorityQueue
        queue = kind(client, "q")
        await queue.push("a")
        began = asyncio.Event()

        async def handle(_: Any) -> None:
            began.set()
            await asyncio.Event().wait()

        worker = redisq.asyncio.Worker(queue, handle, grace=0.05 if way == "grace" else 3600)
        task = asyncio.create_task(worker.run())
        await asyncio.wait_for(began.wait(), TIMEOUT)
        if way == "cancelled":
            task.cancel()
        else:
            worker.stop()
        if way == "second stop":
            worker.stop()
        await asyncio.wait([task], timeout=TIMEOUT)
        assert task.done()
        batch = await queue.reserve()
        assert (batch.items, batch.attempts, batch.reason) == (["a"], 2, STOPPED)


async def test_a_handler_that_buries_when_it_is_cancelled(server: Server) -> None:
    """The exception that it raises decides what happens to its batch."""
    async with redis.asyncio.Redis(unix_socket_path=server.socket) as client:
        queue = redisq.asyncio.PriorityQueue(client, "q")
        await queue.push("a")
        began = asyncio.Event()

        async def handle(_: Any) -> None:
            try:
                began.set()
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise Bury("half done") from None

        worker = redisq.asyncio.Worker(queue, handle, grace=0)
        task = asyncio.create_task(worker.run())
        await asyncio.wait_for(began.wait(), TIMEOUT)
        worker.stop()
        await asyncio.wait_for(task, TIMEOUT)
        assert await queue.state("a") is State.DEAD
        assert [item.reason for item in await queue.dead()] == ["half done"]


@STRUCTURES
def test_a_batch_with_a_lost_lease_is_not_buried(
    real: Flavour, structure: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is handed out to another; that is logged, and no hook is called."""
    queue, hooks, done = real.stocked(structure, "a"), HookLog(), threading.Event()
    kind: Any = Buffer if structure == "buffer" else PriorityQueue

    def handle(batch: Any) -> None:
        if batch.items == ["b"]:
            done.set()
            return
        kind(real.plain, "q").purge()
        kind(real.plain, "q").push("b")
        raise Bury("late")

    with real.running(real.worker(queue, handle, **hooks())):
        assert done.wait(TIMEOUT)
        hooks.wait(acked=1)
    assert hooks.dead == []
    assert real.do(queue.dead()) == []
    assert "lost before bury" in caplog.text


def test_a_single_batch_can_be_lost(flavour: Flavour) -> None:
    """A normal end of the block raises LeaseLost."""
    do, queue = flavour.do, flavour.stocked("priority", "a")
    batch = do(queue.reserve())
    do(queue.purge())
    with pytest.raises(LeaseLost):
        flavour.within(batch, lambda: None)
