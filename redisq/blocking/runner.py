"""The one place where the blocking side talks to Redis."""

from __future__ import annotations

import inspect
import logging
import queue
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias, TypeVar

from redis import Redis
from redis.client import NEVER_DECODE
from redis.cluster import RedisCluster

from ..core.calls import Call, as_bytes
from ..core.clients import ValkeyClient, connection_arguments, error_classes, is_cluster, must_send, socket_timeout
from ..core.errors import NotDurable
from ..core.flow import OVERDUE, POLL, Block, Flow, Operation, Pipeline, Sleep, block_seconds, results
from ..core.replication import ReplicaWait, finish_unconfirmed
from ..core.request import RETRY_AFTER, Request, commands_of
from .round_trip import RoundTrip

R = TypeVar("R")
Client: TypeAlias = Redis | RedisCluster | ValkeyClient
logger = logging.getLogger("redisq")


class Runner:
    """What performs operations on the user's own client, which it never configures and never closes."""

    def __init__(self, client: Client, replica_wait: ReplicaWait | None = None) -> None:
        self._cluster = is_cluster(client, "blocking")
        self._errors = error_classes()
        self.client: Any = client  # execute_command has no types in redis-py
        self._socket_timeout = socket_timeout(client, self._cluster)
        self._round_trips = None if must_send(client, self._cluster) else RoundTrip(client, self._errors.reply)
        self._replica_wait = replica_wait
        if replica_wait:
            replica_wait.check_client(self._cluster, self._socket_timeout)
        self._polls = False

    def run(self, operation: Operation[R]) -> R:
        """Perform an operation to its end."""
        if isinstance(operation, Call):
            return self._call(operation)
        flow: Flow[R] = finish_unconfirmed(operation) if self._replica_wait else operation
        result: Any = None
        while True:
            try:
                step = flow.send(result)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            try:
                result = self._step(step)
            except NotDurable as short:
                result = short

    def _step(self, step: Call[Any] | Pipeline | Block | Sleep) -> Any:
        match step:
            case Call():
                return self._call(step)
            case Pipeline():
                return self.send(step.calls, step.return_exceptions)
            case Block():
                return self.block(step)
            case Sleep():
                return time.sleep(step.seconds)

    def _call(self, call: Call[R]) -> R:
        refused: Any = None
        if self._replica_wait is None:
            # Nearly every call: its reply is no error. The rest would cost as much again.
            (refused,) = self._exchange((call.evalsha(),), renew=False)
            if not isinstance(refused, Exception):
                return call.read(refused)
        request = self._send([call], refused)
        result = call.decode(request.replies[0])
        self._raise_if_short(request, result)
        return result

    def send(self, calls: Sequence[Call[Any]], return_exceptions: bool = False) -> list[Any]:
        """Send calls in one round trip and return their results; `LeaseLost` or `CodecError` may stand for one."""
        if not calls:
            return []
        request = self._send(calls)
        found = results(calls, request.replies, return_exceptions)
        self._raise_if_short(request, found)
        return found

    def _raise_if_short(self, request: Request, result: Any) -> None:
        if self._replica_wait and request.waits:
            for call, waits in zip(request.calls, request.waits, strict=True):
                if waits and (short := self._replica_wait.check(call, waits, result)):
                    raise short

    def _send(self, calls: Sequence[Call[Any]], refused: Any = None) -> Request:
        """Send calls until each has its reply; `refused` is the error with which the only one was answered already."""
        request = Request(calls, self._errors, self._cluster)
        if refused is not None:
            request.replied([refused])
        while not request.done:
            if request.pause:
                time.sleep(request.pause)
            commands, waits = commands_of([request], self._replica_wait)
            replies = self._exchange([*commands, *waits], request.renew)
            request.replied(replies[: len(commands)], replies[len(commands) :])
        return request

    # -- commands

    def commands(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Send commands in one round trip and return each one's reply or error."""
        return self._exchange(commands, renew=False) if commands else []

    def _exchange(self, commands: Sequence[tuple[Any, ...]], renew: bool) -> list[Any]:
        try:
            if self._round_trips is not None:
                return self._round_trips.send(commands, renew=renew)
            if renew:
                self._drop_single_connection()
            if len(commands) > 1:
                return self._pipeline(commands)
            # NEVER_DECODE keeps payloads bytes, whatever the client's settings.
            return [self.client.execute_command(*commands[0], **{NEVER_DECODE: []})]
        except self._errors.reply as error:  # of one command alone, or while the connection was made
            return [error] * len(commands)

    def _pipeline(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        with self.client.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command, **{NEVER_DECODE: []})
            return pipe.execute(raise_on_error=False)  # type: ignore[no-any-return]

    def _renewed_connection(self) -> Any:
        """Take a connection from the pool that will be made anew, wherever the server's name leads by now."""
        self._drop_single_connection()
        pool = self.client.connection_pool
        connection = pool.get_connection(*connection_arguments(pool))
        connection.disconnect()
        return connection

    def _drop_single_connection(self) -> None:
        if single := getattr(self.client, "connection", None):  # of a single_connection_client
            single.disconnect()

    # -- waiting

    def block(self, step: Block) -> None:
        """Wait for a wake-up, on a connection of its own and in one read that is well under the socket timeout."""
        seconds = block_seconds(step.seconds, self._socket_timeout)
        if self._polls:
            time.sleep(min(seconds, POLL))
            return
        reply = self._blpop(step.key, seconds, renew=False)
        if self._errors.is_read_only(reply) and not self._cluster:
            reply = self._blpop(step.key, seconds, renew=True)
        if not isinstance(reply, Exception):
            return
        if self._errors.refuses_to_block(reply):
            if not self._polls:
                self._polls = True
                logger.warning("BLPOP is refused, so this queue is polled once a second: %s", reply)
        elif str(reply).startswith("UNBLOCKED") or (self._cluster and self._errors.is_migrating(reply)):
            # A master that becomes a replica sends away who waits, and a slot moves: the call that follows finds out.
            time.sleep(RETRY_AFTER)
        else:
            raise reply

    def _blpop(self, key: bytes, seconds: float, renew: bool) -> Any:
        command = ("BLPOP", key, f"{seconds:.3f}")
        if self._socket_timeout:
            return self._exchange([command], renew)[0]
        try:
            return self._blpop_within(seconds + OVERDUE, command, renew)
        except self._errors.reply as error:
            return error
        except self._errors.connection:
            if not self._cluster:
                raise
            time.sleep(RETRY_AFTER)  # by the call that follows the client learns of the cluster's new nodes
            return None

    def _blpop_within(self, seconds: float, command: tuple[Any, ...], renew: bool) -> Any:
        """Send BLPOP and wait so long for its reply: a connection that was dropped silently never gives one."""
        pool = self._pool_for(command[1])
        with self._connection_from(pool, renew) as connection:

            def ask() -> bool:
                connection.send_command(*command, check_health=False)
                return bool(connection.can_read(timeout=seconds))

            if connection.retry.call_with_retry(ask, lambda _: connection.disconnect()):
                return connection.read_response(disable_decoding=True)
            logger.warning("no answer to BLPOP within %.1f s: its connection is lost, a new one is made", seconds)
            connection.disconnect()
        _drop_idle_connections(pool)
        self._drop_single_connection()
        return None

    @contextmanager
    def _connection_from(self, pool: Any, renew: bool) -> Iterator[Any]:
        connection = self._renewed_connection() if renew else pool.get_connection(*connection_arguments(pool))
        try:
            yield connection
        except self._errors.reply:
            raise
        except BaseException:
            connection.disconnect()  # a reply that comes yet would be taken for that of the next command
            raise
        finally:
            pool.release(connection)

    def _pool_for(self, key: bytes) -> Any:
        """Return the connections to the server that has a key."""
        if not self._cluster:
            return self.client.connection_pool
        connection_to = getattr(self.client, "get_redis_connection", None) or self.client.get_valkey_connection
        return connection_to(self.client.get_node_from_key(key)).connection_pool

    # -- all keys

    def scan(self, pattern: bytes, kind: str) -> list[bytes]:
        """Find the keys of a type that match a pattern, on all nodes, in steps that do not block the server."""
        found: set[bytes] = set()
        for node in [{"target_nodes": node} for node in self.client.get_primaries()] if self._cluster else [{}]:
            cursor = 0
            while True:
                step = ("SCAN", cursor, "MATCH", pattern, "COUNT", 1000, "TYPE", kind)
                following, keys = self.client.execute_command(*step, **node, **{NEVER_DECODE: []})
                found.update(map(as_bytes, keys))
                # A cluster's client names the node beside its cursor.
                cursor = int(next(iter(following.values())) if isinstance(following, dict) else following)
                if cursor == 0:
                    break
        return sorted(found)


def _drop_idle_connections(pool: Any) -> None:
    """Drop the connections of a pool that nobody uses: they may be lost as well."""
    if "inuse_connections" in inspect.signature(pool.disconnect).parameters:
        pool.disconnect(inuse_connections=False)
        return
    idle = []  # of a BlockingConnectionPool, before redis-py 8: whoever takes one out of it has it alone
    try:
        while True:
            idle.append(pool.pool.get_nowait())
    except queue.Empty:
        pass
    for connection in reversed(idle):
        if connection is not None:  # a place for one that is not made yet
            connection.disconnect()
        pool.pool.put_nowait(connection)
