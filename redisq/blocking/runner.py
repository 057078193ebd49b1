"""The one place where the blocking side talks to Redis."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Sequence
from time import monotonic
from typing import Any, TypeAlias, TypeVar

from redis import Redis
from redis.client import NEVER_DECODE
from redis.cluster import RedisCluster

from ..core.calls import Call, as_bytes
from ..core.clients import errors, is_cluster
from ..core.errors import NotDurable
from ..core.flow import Block, Flow, Operation, Pipeline, Sleep, block_seconds, results
from ..core.replication import ReplicaWait, finish_unconfirmed

R = TypeVar("R")
Client: TypeAlias = Redis | RedisCluster
logger = logging.getLogger("redisq")

# What a cluster answers while a slot or a master's place changes hands. Nothing has run, and it passes: redis-py waits
# less than a second for it, but a large queue takes longer to move.
SLOT_MIGRATING = ("TryAgainError", "AskError", "ClusterError", "SlotNotCoveredError")
# What a script is stopped with that has all keys that it declares, because it was sent again, and computes another;
# the second is that of Redis 8.
KEY_MOVED = re.compile("non local key|during rehashing of the slot")
MIGRATION_TIMEOUT = 30.0
_RETRY_AFTER = 0.05
_POLL = 1.0  # seconds between two looks where a proxy refuses BLPOP
_OVERDUE = 5.0  # seconds after which a wait without an answer has lost its connection


class Runner:
    """Performs operations on the user's own client, which it never configures and never closes."""

    def __init__(self, client: Client, replica_wait: ReplicaWait | None = None) -> None:
        self._cluster = is_cluster(client, "blocking")
        self.client: Any = client  # execute_command has no types in redis-py
        self._replica_wait = replica_wait
        if replica_wait:
            replica_wait.check_client(self._cluster, self._socket_timeout())
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
                return self.send(step.calls)
            case Block():
                return self.block(step)
            case Sleep():
                return time.sleep(step.seconds)

    def _call(self, call: Call[R]) -> R:
        ((reply, wait_replies),) = self._send([call])
        result = call.decode(reply)
        self._raise_if_short(call, wait_replies, result)
        return result

    def send(self, calls: Sequence[Call[Any]]) -> list[Any]:
        """Send calls in one round trip and return their results; `LeaseLost` or `CodecError` may stand for one."""
        replies = self._send(calls)
        found = results(calls, [reply for reply, _ in replies])
        for call, (_, wait_replies) in zip(calls, replies, strict=True):
            self._raise_if_short(call, wait_replies, found)
        return found

    def _raise_if_short(self, call: Call[Any], wait_replies: Sequence[Any], result: Any) -> None:
        if self._replica_wait and wait_replies and (short := self._replica_wait.check(call, wait_replies, result)):
            raise short

    def _send(self, calls: Sequence[Call[Any]]) -> list[_Reply]:
        """Send calls in one round trip; with each one's reply come those of the waits for replicas."""
        if not calls:
            return []
        wait = self._replica_wait.commands() if self._replica_wait and any(call.writes for call in calls) else []
        replies = self.commands([*(call.evalsha() for call in calls), *wait])
        replies, wait_replies = replies[: len(calls)], replies[len(calls) :]
        missing = [i for i, reply in enumerate(replies) if isinstance(reply, errors("NoScriptError"))]
        if missing:
            # Not SCRIPT LOAD and EVALSHA again: between the two the server may forget once more.
            again = self.commands([*(calls[i].eval() for i in missing), *wait])
            for i, reply in zip(missing, again, strict=False):
                replies[i] = reply
            wait_replies = [*(wait_replies if len(missing) < len(calls) else []), *again[len(missing) :]]
        return [(reply, wait_replies if call.writes else []) for call, reply in zip(calls, replies, strict=True)]

    # -- commands

    def commands(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Send commands in one round trip and return each one's reply or error."""
        if len(commands) == 1:
            return [self._execute(*commands[0])]
        replies = self._pipeline(commands)
        if not self._cluster and any(isinstance(reply, errors("ReadOnlyError")) for reply in replies):
            self._drop_idle_connections()
        return [
            self._execute(*command) if self._try_again(reply) else reply
            for command, reply in zip(commands, replies, strict=True)
        ]

    def _pipeline(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        with self.client.pipeline(transaction=False) as pipe:
            for command in commands:
                # NEVER_DECODE keeps payloads bytes, whatever the client's settings.
                pipe.execute_command(*command, **{NEVER_DECODE: []})
            try:
                return pipe.execute(raise_on_error=False)  # type: ignore[no-any-return]
            except errors(*SLOT_MIGRATING) as error:
                return [error] * len(commands)

    def _try_again(self, reply: Any) -> bool:
        if not isinstance(reply, Exception):
            return False
        return self._migrating(reply) or (not self._cluster and isinstance(reply, errors("ReadOnlyError")))

    def _migrating(self, reply: Exception) -> bool:
        return isinstance(reply, errors(*SLOT_MIGRATING)) or (
            self._cluster and isinstance(reply, errors("ResponseError")) and bool(KEY_MOVED.search(str(reply)))
        )

    def _execute(self, *command: Any) -> Any:
        """Send one command and return its reply or error; wait for a cluster whose slots are on the move.

        A master that was demoted behind its name answers READONLY for as long as its connections are used: they are
        dropped, and the command, of which nothing was done, is sent once more.
        """
        end = monotonic() + MIGRATION_TIMEOUT
        demoted = False
        while True:
            try:
                return self.client.execute_command(*command, **{NEVER_DECODE: []})
            except errors(*SLOT_MIGRATING):
                if not self._cluster or monotonic() > end:
                    raise
            except errors("ReadOnlyError") as error:
                if self._cluster or demoted:
                    return error
                demoted = True
                self._drop_idle_connections()
                continue
            except errors("ResponseError") as error:
                if not self._migrating(error) or monotonic() > end:
                    return error
            time.sleep(_RETRY_AFTER)

    def block(self, step: Block) -> None:
        """Wait for a wake-up, on a connection of its own and in one read that is well under the socket timeout."""
        timeout = self._socket_timeout()
        seconds = block_seconds(step.seconds, timeout)
        if self._polls:
            time.sleep(min(seconds, _POLL))
            return
        reply = self._blpop(step.key, seconds, timeout)
        if isinstance(reply, errors("NoPermissionError")) or "unknown command" in str(reply):
            logger.warning("BLPOP is refused, so this queue is polled once a second: %s", reply)
            self._polls = True
        # A master that becomes a replica sends away who waits: the next call finds the new master.
        elif isinstance(reply, Exception) and not str(reply).startswith("UNBLOCKED"):
            raise reply

    def _blpop(self, key: bytes, seconds: float, timeout: Any) -> Any:
        command = ("BLPOP", key, f"{seconds:.3f}")
        if timeout:
            return self._execute(*command)
        # Without a socket timeout a connection that was dropped silently would be waited for without end.
        pool = self._pool_of(key)
        connection = pool.get_connection()
        try:
            connection.send_command(*command)
            if connection.can_read(timeout=seconds + _OVERDUE):
                return connection.read_response(disable_decoding=True)
            logger.warning("no answer to a wait of %.1f s: its connection is lost, a new one is made", seconds)
            connection.disconnect()
            self._drop_idle_connections()
        except errors("ResponseError") as error:
            return error
        except BaseException:
            connection.disconnect()  # its reply would be taken for that of the next command
            raise
        finally:
            pool.release(connection)
        return None

    def _pool_of(self, key: bytes) -> Any:
        """Return the connections to the server that has a key."""
        if not self._cluster:
            return self.client.connection_pool
        node = self.client.get_node_from_key(key)
        return self.client.get_redis_connection(node).connection_pool

    def _drop_idle_connections(self) -> None:
        if not self._cluster:
            self.client.connection_pool.disconnect(inuse_connections=False)

    def _socket_timeout(self) -> Any:
        owner = self.client.nodes_manager if self._cluster else self.client.connection_pool
        return owner.connection_kwargs.get("socket_timeout")

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


_Reply: TypeAlias = tuple[Any, list[Any]]
"""a call's reply, and those of the waits for replicas that went with it"""
