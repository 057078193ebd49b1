"""`drain` tells what happened, raises what a test should know of, and always ends."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any

import pytest
import redis

import redisq
import redisq.asyncio
from redisq import Bury, CodecError, InvalidArgument, RedisqError, Retry
from redisq.testing import Drained, Fake, drain, drain_async

Drain = Callable[..., Drained]
MakeWorker = Callable[..., Any]


@pytest.fixture(params=["blocking", "asyncio"])
def library(request: pytest.FixtureRequest) -> Any:
    """Return the blocking or the asyncio module."""
    return redisq if request.param == "blocking" else redisq.asyncio


@pytest.fixture
def make(library: Any, redisq_fake: Fake) -> MakeWorker:
    """Return a function that makes a worker of either flavour on a stocked buffer."""

    def make(handle: Callable[[Any], object], *items: object, queue: Any = None, **options: Any) -> Any:
        plain = redisq.Buffer(redisq_fake.client(), "q", **(queue or {}))
        for item in items:
            plain.push(item, group=str(item))
        client = redisq_fake.client() if library is redisq else redisq_fake.async_client()

        async def handler(batch: Any) -> None:
            handle(batch)

        buffer = library.Buffer(client, "q", **(queue or {}))
        return library.Worker(buffer, handle if library is redisq else handler, **options)

    return make


def run(worker: Any, **options: Any) -> Drained:
    """Drain a worker of either flavour."""
    if isinstance(worker, redisq.Worker):
        return drain(worker, **options)
    return asyncio.run(drain_async(worker, **options))


def test_it_counts_what_happened(make: MakeWorker) -> None:
    def handle(batch: Any) -> None:
        match batch.group:
            case "retry":
                raise Retry(60)
            case "bury":
                raise Bury("spoilt")
            case "partly":
                batch.fail("partly")

    drained = run(make(handle, "fine", "retry", "bury", "partly", queue={"max_attempts": 2}))
    assert (drained.acked, drained.released, drained.buried, drained.failed) == (2, 1, 1, 1)
    assert (drained.settled, drained.lost, drained.batches, drained.errors) == (0, 0, 4, [])
    assert [(one.group, one.reason) for one in drained.dead] == [("bury", "spoilt")]


def test_what_a_handler_pushes_is_worked_off_too(make: MakeWorker, redisq_fake: Fake) -> None:
    plain = redisq.Buffer(redisq_fake.client(), "q")
    worker = make(lambda batch: batch.items == [3] and plain.push(2), 3)
    assert run(worker).acked == 2
    assert run(worker).acked == 0  # a worker may be drained again


def test_an_exception_of_a_handler_is_raised_at_the_end(make: MakeWorker) -> None:
    done: list[object] = []
    error = ValueError("no such user")

    def handle(batch: Any) -> None:
        if batch.group == "1":
            raise error
        done.append(batch.group)

    worker = make(handle, 1, 2, 3, concurrency=1)
    with pytest.raises(ValueError, match="no such user") as caught:
        run(worker)
    assert caught.value is error
    assert sorted(map(str, done)) == ["2", "3"]


def test_errors_are_returned_if_asked_for(make: MakeWorker) -> None:
    drained = run(make(lambda _: 1 / 0, 1, 2, queue={"max_attempts": 1}), raise_errors=False)
    assert [type(error) for error in drained.errors] == [ZeroDivisionError] * 2
    assert (drained.released, len(drained.dead)) == (2, 2)


def test_a_failed_assertion_and_pytest_fail_reach_the_test(make: MakeWorker) -> None:
    def handle(batch: Any) -> None:
        if batch.group == "1":
            pytest.fail("as a handler of a test may say")
        raise AssertionError("or this")

    with pytest.raises(pytest.fail.Exception, match="as a handler"):
        run(make(handle, 1))
    with pytest.raises(AssertionError, match="or this"):
        run(make(handle, 2))


@pytest.mark.parametrize("hook", ["on_ack", "on_release", "on_dead", "backoff", "reason"])
def test_what_a_hook_raises_is_raised(make: MakeWorker, hook: str) -> None:
    """A worker logs it and goes on."""

    def handle(_: Any) -> None:
        if hook != "on_ack":
            raise (Bury if hook == "on_dead" else Retry)()

    def fail(*_: object) -> None:
        raise LookupError(hook)

    worker = make(handle, 1, **{hook: fail})
    if hook == "reason":
        worker = make(lambda _: 1 / 0, 1, reason=fail)
    drained = run(worker, raise_errors=False)
    assert LookupError in map(type, drained.errors)
    if hook not in ("reason",):
        with pytest.raises(LookupError, match=hook):
            run(make(handle, 2, **{hook: fail}))


def test_a_batch_that_cannot_be_decoded_is_an_error(make: MakeWorker, redisq_fake: Fake) -> None:
    """No handler sees it."""
    redisq.Buffer(redisq_fake.client(), "q", codec=redisq.BYTES).push(b"{")
    released: list[object] = []
    worker = make(lambda _: None, 1, backoff=lambda _: 0, on_release=lambda batch, _: released.append(batch.raw))
    with pytest.raises(RedisqError, match="not empty after 5 batches"):
        run(worker, limit=5)
    worker = make(lambda _: None, queue={"max_attempts": 1}, on_release=lambda batch, _: released.append(batch.raw))
    released.clear()
    redisq.Buffer(redisq_fake.client(), "q", codec=redisq.BYTES).push(b"{", group="other")
    with pytest.raises(CodecError, match="cannot decode"):
        run(worker)
    assert released == [[b"{"]]


def test_a_worker_is_as_it_was_afterwards(make: MakeWorker) -> None:
    worker = make(lambda _: None, 1, on_ack=lambda _: None)
    before = worker.settings, worker.signals, worker.observers
    run(worker)
    assert (worker.settings, worker.signals, worker.observers) == before
    assert worker.observers == []


def test_work_that_never_ends_is_ended(make: MakeWorker) -> None:
    def handle(_: Any) -> None:
        raise Retry(0)

    with pytest.raises(RedisqError, match="not empty after 20 batches") as caught:
        run(make(handle, 1), limit=20)
    assert "limit" in str(caught.value)


@pytest.mark.parametrize("limit", [0, "many"])
def test_a_limit_that_is_none_is_refused(make: MakeWorker, limit: Any) -> None:
    with pytest.raises(InvalidArgument, match="limit"):
        run(make(lambda _: None), limit=limit)


def test_delays_and_pauses_are_not_waited_for(make: MakeWorker, redisq_fake: Fake) -> None:
    plain = redisq.Buffer(redisq_fake.client(), "q")

    def handle(batch: Any) -> None:
        if batch.attempts == 1:
            raise Retry(3600)

    worker = make(handle, 1)
    assert run(worker).released == 1
    assert run(worker).batches == 0
    redisq_fake.advance(3600)
    plain.pause()
    assert run(worker).batches == 0
    plain.resume()
    assert run(worker).acked == 1


@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)  # redis-py 5.0
def test_a_server_that_does_not_answer_is_an_error(library: Any) -> None:
    """A worker waits for it; a test should not."""
    nowhere = "unix:///nonexistent/redis.sock"
    client = redis.Redis.from_url(nowhere) if library is redisq else redis.asyncio.Redis.from_url(nowhere)

    async def handler(_: Any) -> None: ...

    worker = library.Worker(library.Buffer(client, "q"), (lambda _: None) if library is redisq else handler)
    with pytest.raises(redis.ConnectionError):
        run(worker)


def test_signals_are_left_alone(make: MakeWorker) -> None:
    """Ctrl-C is to end the tests, not the worker alone."""
    before = signal.getsignal(signal.SIGINT)
    seen: list[object] = []
    run(make(lambda _: seen.append(signal.getsignal(signal.SIGTERM)), 1))
    assert seen == [signal.SIG_DFL]
    assert signal.getsignal(signal.SIGINT) is before


async def test_each_function_names_the_other_one(redisq_fake: Fake) -> None:
    blocking = redisq.Worker(redisq.Buffer(redisq_fake.client(), "q"), print)

    async def handler(_: Any) -> None: ...

    other = redisq.asyncio.Worker(redisq.asyncio.Buffer(redisq_fake.async_client(), "q"), handler)
    wrong: Any = other
    with pytest.raises(InvalidArgument, match=r"await drain_async\(worker\)"):
        drain(wrong)
    wrong = blocking
    with pytest.raises(InvalidArgument, match=r"call drain\(worker\)"):
        await drain_async(wrong)
    wrong = None
    with pytest.raises(InvalidArgument, match="None"):
        drain(wrong)
