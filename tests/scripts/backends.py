"""The servers for generated steps: the same call on fakeredis and on real servers, with the given time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from operator import methodcaller
from typing import Any, TypeVar

import fakeredis
import redis
import redis.asyncio
from hypothesis import strategies as st

from redisq.asyncio.runner import Runner as AsyncRunner
from redisq.blocking.runner import Runner
from redisq.core.batch import Event, Nothing, batch_of, buried_in
from redisq.core.calls import Call
from redisq.core.errors import InvalidArgument, LeaseLost
from redisq.core.flow import Operation, Pipeline
from tests.conftest import BINARIES, EVERYWHERE, real_server

R = TypeVar("R")


def at(call: Call[R], now: int | bytes) -> Call[R]:
    """Return the call with `now`, in ms or empty, in the argument of that name, if it has one."""
    slots = [slot.name for slot in call.script.args]
    if "now" not in slots:
        return call
    args = list(call.args)
    args[slots.index("now")] = now
    return replace(call, args=tuple(args))


def reserve_at(client: redis.Redis, now: int, make: Callable[[], Call[list[Event[Any]]]]) -> list[Event[Any]]:
    """Reserve at a given time, and again while the reply says to call again at once."""
    buried: list[Event[Any]] = []
    while True:
        events = Runner(client).run(at(make(), now))
        buried += buried_in(events)
        last = events[-1]
        if batch_of(events) or (isinstance(last, Nothing) and last.retry != 0):
            return [*buried, last]


class Backend:
    """A server on which operations run, blocking or through asyncio."""

    def __init__(self, label: str, flavour: str) -> None:
        self.label = label
        if label == "fakeredis":
            fake = fakeredis.FakeServer()
            self.client: redis.Redis = fakeredis.FakeRedis(server=fake)
            self._aclient: redis.asyncio.Redis = fakeredis.FakeAsyncRedis(server=fake)
        else:
            self.client = real_server(label).client()
            self._aclient = redis.asyncio.Redis(unix_socket_path=real_server(label).socket)
        self.client.flushall()
        self._loop = asyncio.new_event_loop() if flavour == "asyncio" else None

    def run(self, operation: Operation[R], now: int) -> R:
        """Run an operation, with the same time in all of its calls."""
        if isinstance(operation, Call):
            return self._perform(methodcaller("run", at(operation, now)))  # type: ignore[no-any-return]
        reply: Any = None
        while True:
            try:
                step = operation.send(reply)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            if isinstance(step, Pipeline):
                reply = self._perform(methodcaller("send", [at(call, now) for call in step.calls]))
            else:
                assert isinstance(step, Call)
                reply = self.run(step, now)

    def _perform(self, act: Callable[[Any], Any]) -> Any:
        if self._loop:
            return self._loop.run_until_complete(act(AsyncRunner(self._aclient)))
        return act(Runner(self.client))

    def close(self) -> None:
        """Close the clients."""
        if self._loop:
            self._loop.run_until_complete(self._aclient.aclose())
            self._loop.close()
        self.client.close()


class Backends:
    """Several servers on which the same step runs; each answer must be the model's.

    With `data`, these are fakeredis and one real server that is drawn for the example, so that an example takes the
    time of one server and many examples cover all. With REDISQ_TEST_SERVERS=all, or without `data`, they are all
    servers.
    """

    def __init__(self, flavour: str, data: st.DataObject | None = None) -> None:
        real = list(BINARIES)
        if data and real and not EVERYWHERE:
            real = [data.draw(st.sampled_from(real), "server")]
        self.all = [Backend(label, flavour) for label in ("fakeredis", *real)]

    def run(
        self,
        make: Callable[[], Operation[Any]],
        now: int,
        expected: object,
        seen: Callable[[Any], object] = lambda answer: answer,
    ) -> None:
        """Run the operation on each server; every one must return `expected`, or raise it if it is an error class."""
        for backend in self.all:
            answer: object
            try:
                answer = seen(backend.run(make(), now))  # a flow can be run once, so each server gets its own
            except (LeaseLost, InvalidArgument) as error:
                answer = type(error)
            assert answer == expected, f"{backend.label}: {answer!r}, expected {expected!r}"

    def close(self) -> None:
        """Close all clients."""
        for backend in self.all:
            backend.close()
