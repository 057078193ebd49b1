"""The rate limiter's operations. Keys and scripts: `lua/limit/`, `lua/README.md`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, NamedTuple

from . import validate
from .calls import Call, as_text
from .errors import InvalidArgument
from .flow import Flow, Sleep
from .queue import QueueCalls, pack
from .scripts import load

MAX_COST = load("limit/acquire").limit("cost")[1]
MAX_RATES = load("limit/acquire").limit("rates")[1]


@dataclass(frozen=True)
class Rate:
    """A limit of `limit` in any span of `per` seconds, exact: the span slides, it is not a fixed window."""

    limit: int
    """How many, in any span of `per` seconds."""
    per: float
    """The span in seconds."""

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "limit", validate.integer("limit", self.limit, 1, MAX_COST)
        )  # an int, whatever was given
        validate.milliseconds("per", self.per, 0.001)


class Grant(NamedTuple):
    """How much was granted, and in how many seconds more can be had (0 when nothing is missing)."""

    granted: int
    """How much of the cost was granted, perhaps a part of it."""
    retry_after: float
    """Seconds until more can be had; 0 if all of it was granted."""


def flatten(rates: Sequence[Rate]) -> tuple[int, ...]:
    """Return the rates as the scripts take them: limit, ms, limit, ms."""
    if not isinstance(rates, (tuple, list)) or not all(isinstance(rate, Rate) for rate in rates):
        raise InvalidArgument(f"rates is {rates!r}: give a sequence of Rate(limit, per)")
    if len(rates) > MAX_RATES:
        raise InvalidArgument(f"{len(rates)} rates are given: give at most {MAX_RATES}")
    return tuple(x for rate in rates for x in (rate.limit, validate.milliseconds("per", rate.per, 0.001)))


class LimiterCalls(QueueCalls):
    """What builds the calls of one rate limiter, without sending them."""

    def __init__(
        self, name: str, rates: tuple[Rate, ...], *, dedup_window: float = 60.0, prefix: str = "redisq"
    ) -> None:
        if not rates:
            raise InvalidArgument("rates is (): give one Rate(limit, per) or more")
        super().__init__("limit", name, prefix, dedup_window)
        self._rates = flatten(rates)

    def acquire(self, cost: int = 1, token: str | None = None) -> Call[Grant]:
        """Take what every rate allows now, `cost` at most."""
        once = validate.once_id(token)
        options = pack(
            "limit/acquire", "options", cost=validate.integer("cost", cost, 1, MAX_COST), window=self._window
        )
        return self._call("acquire", (options, b"", *self._rates), _decode_grant, token=as_text(once), id=once)

    def wait(self, cost: int = 1, timeout: float | None = None) -> Flow[Grant]:
        """Take `cost` in as many calls as the rates need."""
        cost = validate.integer("cost", cost, 1, MAX_COST)
        if timeout is not None:
            timeout = validate.milliseconds("timeout", timeout) / 1000
        deadline = None if timeout is None else monotonic() + timeout
        granted = 0
        while True:
            grant: Grant = yield self.acquire(cost - granted)
            granted += grant.granted
            late = deadline is not None and monotonic() + grant.retry_after > deadline
            if granted == cost or late:
                return Grant(granted, grant.retry_after)
            yield Sleep(grant.retry_after)


def _decode_grant(reply: list[Any]) -> Grant:
    granted, retry = reply
    return Grant(granted, retry / 1000)
