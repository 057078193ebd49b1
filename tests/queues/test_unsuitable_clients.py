"""Objects that are no clients, and clients of the other flavour: refused by the constructor, with advice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis
import redis.sentinel

import redisq
from redisq import Buffer, InvalidArgument
from tests.queues.any_client import REDIS, VALKEY, ClientKind, each_library


class GlideClient:
    """A stand-in for a client of valkey-glide."""

    __module__ = "glide.glide_client"


class SyncGlideClusterClient:
    """A stand-in for a blocking client of valkey-glide."""

    __module__ = "glide_sync.glide_client"


NO_CLIENTS: list[tuple[Callable[[ClientKind], Any], str]] = [
    (lambda _: GlideClient(), r"a glide\.glide_client\.GlideClient: .*pip install valkey"),
    (lambda _: SyncGlideClusterClient(), r"a glide_sync\.glide_client\.SyncGlideClusterClient: .*pip install valkey"),
    (lambda flavour: flavour.client().pipeline(), r"a pipeline: .*calls\.push.*\.queue\(pipeline\)"),
    (lambda flavour: flavour.client().pubsub(), "give a client of redis-py or valkey-py"),
    (lambda flavour: flavour.package.ConnectionPool(), "connection_pool="),
    (lambda flavour: flavour.client, "give a client of redis-py or valkey-py"),
    (lambda _: redis.sentinel.Sentinel([]), "master_for"),  # type: ignore[no-untyped-call]
    (lambda _: "redis://localhost", r"Redis\.from_url"),
    (lambda _: None, "client is None: give a client"),
    (lambda _: {"host": "localhost"}, "of type dict: give a client"),
]


@each_library
@pytest.mark.parametrize("number", range(len(NO_CLIENTS)))
def test_objects_that_are_not_clients_are_refused(flavour: ClientKind, number: int) -> None:
    """In the constructor, with advice on what to pass instead."""
    make, message = NO_CLIENTS[number]
    what = make(flavour)
    for kind in ("Buffer", "PriorityQueue"):
        with pytest.raises(InvalidArgument, match=message):
            getattr(flavour.queues, kind)(what, "q")
    with pytest.raises(InvalidArgument, match=message):
        flavour.queues.RateLimiter(what, "q", redisq.Rate(1, 1))


@each_library
def test_clients_of_the_other_flavour_are_refused(flavour: ClientKind) -> None:
    (other,) = [one for one in (*REDIS, *VALKEY) if one.library == flavour.library and one.name != flavour.name]
    home = {"blocking": "import from redisq$", "asyncio": r"import from redisq\.asyncio"}[other.name]
    with pytest.raises(InvalidArgument, match=f"the {other.name} {other.client.__name__}: {home}"):
        flavour.queues.Buffer(other.client(), "q")


def test_a_proxy_object_counts_as_a_client() -> None:
    """An object that forwards everything to a client, and reports its class."""

    class Proxied:
        def __init__(self, client: Any) -> None:
            self._client = client

        def __getattr__(self, name: str) -> Any:
            return getattr(self._client, name)

        @property  # type: ignore[misc]
        def __class__(self) -> Any:
            return type(self._client)

    proxied: Any = Proxied(redis.Redis())
    assert Buffer(proxied, "q").runner.client is proxied
