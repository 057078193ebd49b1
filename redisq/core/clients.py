"""The client libraries that redisq takes, redis-py and its fork valkey-py: their clients, and what errors mean."""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from typing import Any, Literal

from .errors import InvalidArgument, NotDurable

Flavour = Literal["blocking", "asyncio"]
Kind = Literal["unavailable", "shortage", "refused", "other"]

_PREFIXES = {"redis": "Redis", "valkey": "Valkey"}
_NAMES = {
    "RedisError": "{}Error",
    "RedisClusterException": "{}ClusterException",
}
_REMEDIES = (
    ("AuthenticationError", "give the client its username and password"),
    ("AuthorizationError", "give the client its username and password"),
    ("NoPermissionError", "give this user the rights that lua/README.md lists, with ACL SETUSER"),
)
_MESSAGES = (
    ("WRONGPASS", "give the client its username and password"),
    ("NOAUTH", "give the client its username and password"),
    ("invalid username-password", "give the client its username and password"),
    ("NOPERM", "give this user the rights that the README lists, with ACL SETUSER"),
    ("DB index is out of range", "give a database that the server has: its `databases` says how many there are"),
    ("SELECT is not allowed in cluster mode", "use database 0, the only one of a cluster"),
    ("unknown command 'eval", "use a server that runs Lua scripts"),
)
_SHORTAGES = ("Too many connections", "No connection available")


def errors(*names: str) -> tuple[type[Exception], ...]:
    """Return the error classes of these names in redis-py, and in valkey-py once it is imported."""
    return _errors(names, "valkey" in sys.modules)


@cache
def _errors(names: tuple[str, ...], with_valkey: bool) -> tuple[type[Exception], ...]:
    found = []
    for library, prefix in _PREFIXES.items():
        if library == "redis" or with_valkey:
            module = import_module(f"{library}.exceptions")
            found += [getattr(module, _NAMES.get(name, name).format(prefix), None) for name in names]
    return tuple(one for one in found if one is not None)


def is_cluster(client: Any, flavour: Flavour) -> bool:
    """Say whether this is a cluster's client, and refuse what is no client of this flavour.

    Raises `InvalidArgument` for the other flavour, a pipeline, and anything that is no client of redis-py or valkey-py.
    """
    library = _library(client)
    if library is None:
        what = f"{type(client).__module__}.{type(client).__qualname__}"
        raise InvalidArgument(f"client is a {what}: give a client of redis-py or valkey-py, such as redis.Redis()")
    prefix = _PREFIXES[library]
    for kind, other in (("blocking", "redisq"), ("asyncio", "redisq.asyncio")):
        root = library if kind == "blocking" else f"{library}.asyncio"
        single, cluster = import_module(f"{root}.client"), import_module(f"{root}.cluster")
        if isinstance(client, (single.Pipeline, cluster.ClusterPipeline)):
            raise InvalidArgument(
                "client is a pipeline: queue an operation in it with queue.calls.push(...).queue(pipeline)"
            )
        in_cluster = isinstance(client, getattr(cluster, f"{prefix}Cluster"))
        if in_cluster or isinstance(client, getattr(single, prefix)):
            if kind != flavour:
                raise InvalidArgument(f"client is the {kind} {type(client).__name__}: import from {other}")
            return in_cluster
    raise InvalidArgument(f"client is a {type(client).__name__} of {library}: give a {prefix} or a {prefix}Cluster")


def _library(client: Any) -> str | None:
    roots = (cls.__module__.partition(".")[0] for cls in type(client).__mro__)
    return next((root for root in roots if root in _PREFIXES), None)


def kind_of(error: BaseException) -> Kind:
    """Say what kind of trouble an error of a client library is.

    `refused` is for good, until somebody changes a setting; `shortage` is of this process's own connections;
    `unavailable` passes by itself.
    """
    if remedy_for(error):
        return "refused"
    if isinstance(error, errors("MaxConnectionsError")) or any(text in str(error) for text in _SHORTAGES):
        return "shortage"
    if isinstance(error, (NotDurable, OSError, *errors("RedisError", "RedisClusterException"))):
        return "unavailable"
    return "other"


def remedy_for(error: BaseException | None) -> str | None:
    """Return what helps where a server refuses for good; None for an error of any other kind."""
    seen = 0
    while error is not None and seen < 10:
        for name, remedy in _REMEDIES:
            if isinstance(error, errors(name)):
                return remedy
        if isinstance(error, errors("RedisError", "RedisClusterException")):
            for text, remedy in _MESSAGES:
                if text in str(error):
                    return remedy
        error, seen = error.__cause__ or error.__context__, seen + 1
    return None
