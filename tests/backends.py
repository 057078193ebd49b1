"""Where generated steps run: the same call on fakeredis and on real servers, with the time injected."""

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
from redisq.core.batch import Buried
from redisq.core.calls import Call
from redisq.core.errors import LeaseLost
from redisq.core.flow import Flow, Pipeline

from .conftest import BINARIES, EVERYWHERE, real_server

R = TypeVar("R")


def at(op: Call[R], now: int | bytes) -> Call[R]:
    """Return the call with `now`, in ms or empty, in its header's slot of that name, where it has one."""
    slots = [slot.name for slot in op.script.args]
    if "now" not in slots:
        return op
    args = list(op.args)
    args[slots.index("now")] = now
    return replace(op, args=tuple(args))


def reserve_at(client: redis.Redis, now: int, make: Callable[[], Call[Reserved[Any]]]) -> Reserved[Any]:
    """Reserve at a time, and again while the reply says that there is more to do at once."""
    buried: list[Buried] = []
    while True:
        reserved = Runner(client).run(at(make(), now))
        buried += reserved.buried
        if reserved.lease or reserved.retry != 0:
            return replace(reserved, buried=buried)


class Backend:
    """Run operations on one server, blocking or through asyncio."""

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

    def run(self, op: Call[R], now: int) -> R:
        """Run one call."""
        return self._perform(lambda runner: runner.run(at(op, now)))  # type: ignore[no-any-return]

    def talk(self, talk: Flow[R], now: int) -> R:
        """Run a conversation, each of its calls at the same time."""
        reply: Any = None
        while True:
            try:
                step = talk.send(reply)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            if isinstance(step, Pipeline):
                step = Pipeline([at(op, now) for op in step.calls])
                reply = self._perform(methodcaller("_many", step.calls))
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
    """Run the same step on several servers and hold each answer to the model's.

    With `data` these are fakeredis and one real server, drawn for the example: over many examples each has its turn, in
    the time that one server takes. With REDISQ_TEST_SERVERS=all, or without `data`, they are all at once.
    """

    def __init__(self, flavour: str, data: st.DataObject | None = None) -> None:
        real = list(BINARIES)
        if data and real and not EVERYWHERE:
            real = [data.draw(st.sampled_from(real), "server")]
        self.all = [Backend(label, flavour) for label in ("fakeredis", *real)]

    def run(
        self,
        make: Callable[[], Call[Any] | Flow[Any]],
        now: int,
        expected: object,
        seen: Callable[[Any], object] = lambda answer: answer,
    ) -> None:
        """Run what `make` makes on each server; every one must give `expected`, or raise it if it is an error class."""
        for backend in self.all:
            again = make()  # a conversation is used up by the first server; each has its own
            answer: object
            try:
                answer = seen(backend.run(again, now) if isinstance(again, Call) else backend.talk(again, now))
            except LeaseLost:
                answer = LeaseLost
            assert answer == expected, f"{backend.label}: {answer!r}, by the model {expected!r}"

    def close(self) -> None:
        """Close them all."""
        for backend in self.all:
            backend.close()
