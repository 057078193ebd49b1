"""The client libraries that redisq takes, redis-py and its fork valkey-py: their clients, and what errors mean."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, Literal, Protocol

from .errors import InvalidArgument, NotDurable

Flavour = Literal["blocking", "asyncio"]
ErrorKind = Literal["unavailable", "shortage", "refused", "other"]
"""An outage that passes by itself; too few connections of this process; what is refused for good; anything else."""

_PREFIXES = {"redis": "Redis", "valkey": "Valkey"}
_NAMES = {
    "RedisError": "{}Error",
    "RedisClusterException": "{}ClusterException",
}
PASSWORD = "give the client the username and password that the server asks for"
_RIGHTS = "give this user the rights that the documentation lists under Rights, with ACL SETUSER"
_DATABASE = "give a database that the server has: its setting `databases` says how many there are"
_CLUSTER = "this server is a node of a cluster: give a RedisCluster"
_REMEDIES = {
    "AuthenticationError": PASSWORD,
    "AuthenticationWrongNumberOfArgsError": PASSWORD,
    "AuthorizationError": PASSWORD,
    "NoPermissionError": _RIGHTS,
    "MovedError": _CLUSTER,
}
_MESSAGES = (
    (re.compile(r"WRONGPASS|NOAUTH|invalid username-password"), PASSWORD),
    # What a script meets that may be run, but not all of its commands or keys; the last two are those of Redis 6.
    (re.compile(r"NOPERM|ACL failure in script|user executing the script can't"), _RIGHTS),
    (re.compile(r"DB index is out of range|invalid DB index"), _DATABASE),
    (re.compile(r"^MOVED \d"), _CLUSTER),
    (re.compile(r"SELECT is not allowed in cluster mode"), "use database 0, the only one of a cluster"),
    (re.compile(r"unknown command .eval", re.IGNORECASE), "use a server, or a proxy, that runs Lua scripts"),
    (re.compile(r"running in protected mode"), "set a password on the server, or `protected-mode no`"),
    (re.compile(r"CERTIFICATE_VERIFY_FAILED"), "give the client the certificate authority, as ssl_ca_certs"),
)
_SHORTAGES = ("Too many connections", "No connection available")
_BLOCKING_REFUSED = re.compile(
    r"unknown command|unsupported|not (supported|allowed|available|permitted)|disabled", re.I
)
# What a script is stopped with that has all keys that it declares, because it was sent again, and computes another;
# the second is that of Redis 8.
KEY_MOVED = re.compile("non local key|during rehashing of the slot")
_READ_ONLY_IN_SCRIPT = re.compile(r"^Error running script .*-READONLY")  # Redis 6 has no code in front of it


@dataclass(frozen=True)
class ErrorClasses:
    """The error classes of the client libraries that are loaded."""

    reply: tuple[type[Exception], ...]
    """What stands for a server's reply, in which nothing has run."""
    connection: tuple[type[Exception], ...]
    """What is raised when a server cannot be reached, or its reply was lost."""
    no_script: tuple[type[Exception], ...]
    read_only: tuple[type[Exception], ...]
    no_permission: tuple[type[Exception], ...]
    migrating: tuple[type[Exception], ...]
    """What a cluster answers while a slot or a master's place changes hands. Nothing has run, and it passes: redis-py
    waits less than a second for it, but a large queue takes longer to move."""
    unsendable: tuple[type[Exception], ...]
    """What is raised before anything was sent, for an argument that has no bytes."""

    def is_read_only(self, reply: Any) -> bool:
        """Say whether a replica answered, which a master that was demoted is."""
        if isinstance(reply, self.read_only):
            return True
        return isinstance(reply, self.reply) and bool(_READ_ONLY_IN_SCRIPT.search(str(reply)))

    def is_migrating(self, reply: Any) -> bool:
        """Say whether a cluster's slot is on the move, or its master's place."""
        if isinstance(reply, self.migrating):
            return True
        return isinstance(reply, self.reply) and bool(KEY_MOVED.search(str(reply)))

    def refuses_to_block(self, reply: Any) -> bool:
        """Say whether BLPOP is refused for good, as by some proxies."""
        if isinstance(reply, self.no_permission):
            return True
        return isinstance(reply, self.reply) and bool(_BLOCKING_REFUSED.search(str(reply)))


def _is_imported(library: str) -> bool:
    return sys.modules.get(library) is not None  # None: its import is switched off


def errors(*names: str) -> tuple[type[Exception], ...]:
    """Return the error classes of these names in redis-py, and in valkey-py once it is imported."""
    return _errors(names, _is_imported("valkey"))


@cache
def _errors(names: tuple[str, ...], with_valkey: bool) -> tuple[type[Exception], ...]:
    found = []
    for library, prefix in _PREFIXES.items():
        if library == "redis" or with_valkey:
            module = import_module(f"{library}.exceptions")
            found += [getattr(module, _NAMES.get(name, name).format(prefix), None) for name in names]
    return tuple(one for one in found if one is not None)


def error_classes() -> ErrorClasses:
    """Return the error classes of redis-py, and of valkey-py once it is imported."""
    return _error_classes(_is_imported("valkey"))


@cache
def _error_classes(with_valkey: bool) -> ErrorClasses:
    def named(*names: str) -> tuple[type[Exception], ...]:
        return _errors(names, with_valkey)

    return ErrorClasses(
        reply=named("ResponseError", "ClusterError", "SlotNotCoveredError"),
        connection=named("ConnectionError", "TimeoutError"),
        no_script=named("NoScriptError"),
        read_only=named("ReadOnlyError"),
        no_permission=named("NoPermissionError"),
        migrating=named("TryAgainError", "AskError", "ClusterError", "SlotNotCoveredError"),
        unsendable=(*named("DataError"), TypeError, ValueError),
    )


def library_error(client: Any, name: Literal["ConnectionError", "TimeoutError"], message: str) -> Exception:
    """Return an error of the library that a client, or a connection, is of."""
    library = "valkey" if _library(client) == "valkey" else "redis"
    made: Exception = getattr(import_module(f"{library}.exceptions"), name)(message)
    return made


# -- clients


class ValkeyClient(Protocol):
    """A blocking client of valkey-py, `Valkey` or `ValkeyCluster`, by what it can do: it need not be installed."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command."""

    def pipeline(self, transaction: Any = ..., shard_hint: Any = ...) -> Any:
        """Return a pipeline."""

    def __enter__(self) -> Any:
        """Return the client, for `with`."""


class AsyncValkeyClient(Protocol):
    """An asyncio client of valkey-py, `Valkey` or `ValkeyCluster`, by what it can do: it need not be installed."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command."""

    def pipeline(self, transaction: Any = ..., shard_hint: Any = ...) -> Any:
        """Return a pipeline."""

    async def aclose(self) -> None:
        """Close the connections."""


def is_cluster(client: Any, flavour: Flavour) -> bool:
    """Say whether this is a cluster's client, and refuse anything else.

    Raises `InvalidArgument` for the other flavour, a pipeline and whatever is not a client of redis-py or valkey-py.
    """
    for library, prefix in _PREFIXES.items():
        if not _is_imported(library):
            continue
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
    raise InvalidArgument(f"client is {_described(client)}: {_instead(client, flavour)}")


def _described(client: Any) -> str:
    kind = type(client)
    if client is None or kind.__module__ == "builtins":
        return "None" if client is None else f"of type {kind.__qualname__}"
    return f"a {kind.__module__}.{kind.__qualname__}"


def _instead(client: Any, flavour: Flavour) -> str:
    inside = "" if flavour == "blocking" else "asyncio."
    usual = f"give a client of redis-py or valkey-py, such as redis.{inside}Redis()"
    root = type(client).__module__.partition(".")[0]
    if root in ("glide", "glide_sync"):
        return f"valkey-glide has an interface of its own; pip install valkey, and give a valkey.{inside}Valkey()"
    if type(client).__name__ == "Sentinel":
        return "give the client that its master_for('name of the master') returns"
    if type(client).__name__.endswith("ConnectionPool"):
        return f"give redis.{inside}Redis(connection_pool=...)"
    if isinstance(client, str):
        return f"give redis.{inside}Redis.from_url(...)"
    return usual


def _library(client: Any) -> str | None:
    roots = (cls.__module__.partition(".")[0] for cls in type(client).__mro__)
    return next((root for root in roots if root in _PREFIXES), None)


def socket_timeout(client: Any, cluster: bool) -> float | None:
    """Return the seconds after which a client gives a read up; None for never."""
    owner = client.nodes_manager if cluster else client.connection_pool
    if "socket_timeout" in owner.connection_kwargs:
        found = owner.connection_kwargs["socket_timeout"]
    else:
        found = _default_timeout(getattr(owner, "connection_class", None))
    return found if isinstance(found, (int, float)) and found > 0 else None


@cache
def _default_timeout(connection_class: Any) -> Any:
    """Return the socket timeout of a connection that was given none: five seconds in redis-py 8, none before."""
    for cls in getattr(connection_class, "__mro__", ()):
        found = inspect.signature(cls.__init__).parameters.get("socket_timeout")
        if found is not None:
            return found.default
    return None


def must_send(client: Any, cluster: bool) -> bool:
    """Say whether a client has to send the commands itself, rather than one of its connections.

    A cluster's client finds the nodes, and one with a single connection means that one. Where `execute_command` is not
    the library's own, its author or whoever traces the client wants to be asked.
    """
    if cluster or getattr(client, "single_connection_client", False) or getattr(client, "connection", None) is not None:
        return True
    method = inspect.getattr_static(client, "execute_command", None)
    return not inspect.isfunction(method) or method.__globals__["__name__"].partition(".")[0] not in _PREFIXES


def connection_arguments(pool: Any) -> tuple[str, ...]:
    """Return what a pool's `get_connection` wants: a command's name in older versions, nothing in newer ones."""
    parameters = inspect.signature(pool.get_connection).parameters.values()
    wanted = any(one.kind is one.POSITIONAL_OR_KEYWORD and one.default is one.empty for one in parameters)
    return ("EVALSHA",) if wanted else ()


# -- errors


def kind_of(error: BaseException) -> ErrorKind:
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
    for one in _chain(error):
        for name, remedy in _REMEDIES.items():
            if isinstance(one, errors(name)):
                return remedy
        if isinstance(one, errors("RedisError", "RedisClusterException")):
            for pattern, remedy in _MESSAGES:
                if pattern.search(str(one)):
                    return remedy
    return None


def _chain(error: BaseException | None) -> Iterable[BaseException]:
    """Yield an error and what it came from: a cluster's client hides a wrong password behind an error of its own."""
    for _ in range(10):
        if error is None:
            return
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
