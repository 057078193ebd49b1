"""A batch as a context manager: what `with batch:` does when the block ends or raises, and with a lost lease."""

from __future__ import annotations

import importlib
import logging
from typing import Any

import pytest
import redis
import redis.asyncio

from redisq import LeaseLost
from tests.conftest import MakeClient
from tests.queues.structures import STRUCTURES, async_stocked, counts, stocked, take


@STRUCTURES
def test_a_normal_exit_acks(client: redis.Redis, structure: str) -> None:
    queue = stocked(client, structure, "a", "b")
    with take(queue) as batch:
        assert batch.items == ["a", "b"]
        assert not batch.settled
    assert batch.settled
    assert counts(queue) == (0, 0, 0, 0)


@STRUCTURES
def test_a_normal_exit_releases_failed_items(client: redis.Redis, structure: str) -> None:
    queue = stocked(client, structure, "a", "b", "c")
    with take(queue) as batch:
        batch.fail("b")
    assert take(queue).items == ["b"]


@STRUCTURES
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_releases_and_propagates(client: redis.Redis, structure: str, error: type[BaseException]) -> None:
    queue = stocked(client, structure, "a", "b")
    with pytest.raises(error), take(queue) as batch:
        raise error
    assert batch.settled
    again = take(queue)
    assert (again.items, again.attempts, again.reason) == (["a", "b"], 2, error.__name__)


class LongMessage(Exception):
    """An exception with a message longer than a reason may be."""


@STRUCTURES
def test_the_reason_of_a_release_is_the_exception(client: redis.Redis, structure: str) -> None:
    """Class and message, cut at a character boundary to at most a thousand bytes."""
    queue = stocked(client, structure, "a")
    with pytest.raises(LongMessage), take(queue):
        raise LongMessage("é" * 2000)
    reason = take(queue).reason
    assert reason.startswith("LongMessage: éé")
    assert 998 <= len(reason.encode()) <= 1000


@STRUCTURES
@pytest.mark.parametrize("library", ["redis", "valkey"])
def test_the_exception_takes_precedence_over_an_error_of_redis(
    make_client: MakeClient,
    structure: str,
    library: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A failing release is logged, and the caller's own exception propagates."""
    errors = importlib.import_module(f"{library}.exceptions")
    client = make_client()
    queue = stocked(client, structure, "a")

    def broken(*_: object, **__: object) -> None:
        raise errors.ConnectionError("gone")

    batch = take(queue)
    monkeypatch.setattr(queue.runner, "_exchange", broken)
    with caplog.at_level(logging.WARNING, "redisq"), pytest.raises(ZeroDivisionError), batch:
        assert 1 / 0
    assert not batch.settled
    assert "gone" in caplog.text


@STRUCTURES
def test_a_settled_batch_is_not_settled_again(client: redis.Redis, structure: str) -> None:
    queue = stocked(client, structure, "a")
    with take(queue) as batch:
        batch.release(delay=1000)
    assert counts(queue) == (0, 0, 1, 0)
    queue.purge()
    queue = stocked(client, structure, "a")
    with pytest.raises(ZeroDivisionError), take(queue) as batch:
        assert batch.ack() / 0
    assert counts(queue) == (0, 0, 0, 0)


@STRUCTURES
def test_a_lost_lease_is_raised_from_a_normal_exit_only(
    client: redis.Redis, structure: str, caplog: pytest.LogCaptureFixture
) -> None:
    queue = stocked(client, structure, "a")
    with pytest.raises(LeaseLost) as caught, take(queue) as batch:
        queue.purge()
    assert caught.value.ids == [batch.id]
    assert batch.settled
    queue = stocked(client, structure, "a")
    with caplog.at_level(logging.WARNING, "redisq"), pytest.raises(ZeroDivisionError), take(queue) as batch:
        assert queue.purge() / 0
    assert batch.id in caplog.text


@STRUCTURES
def test_a_lost_lease_that_was_already_raised_is_not_raised_again(client: redis.Redis, structure: str) -> None:
    queue = stocked(client, structure, "a")
    with take(queue) as batch:
        assert not batch.lost
        queue.purge()
        with pytest.raises(LeaseLost):
            batch.extend()
        assert batch.lost
        assert batch.settled


@pytest.mark.parametrize("structure", ["buffer", "priority"])
async def test_an_asyncio_batch_is_a_context_manager(
    aclient: redis.asyncio.Redis, structure: str, caplog: pytest.LogCaptureFixture
) -> None:
    queue = await async_stocked(aclient, structure, "a", "b")
    batch: Any = await queue.reserve(10)
    with pytest.raises(ValueError, match="mine"):
        async with batch:
            raise ValueError("mine")
    assert batch.settled
    batch = await queue.reserve(10)
    async with batch:
        assert (batch.items, batch.attempts) == (["a", "b"], 2)
        batch.fail("b")
    batch = await queue.reserve(10)
    async with batch:
        assert batch.items == ["b"]
        assert await batch.release() == 1
    batch = await queue.reserve(10)
    with pytest.raises(LeaseLost):
        async with batch:
            await queue.purge()
    queue = await async_stocked(aclient, structure, "c")
    batch = await queue.reserve(10)
    with caplog.at_level(logging.WARNING, "redisq"), pytest.raises(ZeroDivisionError):
        async with batch:
            assert await queue.purge() / 0
    assert batch.id in caplog.text
