"""The one place where the asyncio side talks to Redis."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import os
from collections import deque
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, TypeAlias, TypeVar

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.client import NEVER_DECODE

from ..core.calls import Call, as_bytes
from ..core.clients import (
    AsyncValkeyClient,
    error_classes,
    is_cluster,
    library_error,
    must_send,
    socket_timeout,
)
from ..core.errors import NotDurable, RedisqError
from ..core.flow import OVERDUE, POLL, Block, Flow, Operation, Pipeline, Sleep, block_seconds, results
from ..core.replication import ReplicaWait, finish_unconfirmed
from ..core.request import RETRY_AFTER, Request, commands_of
from .one_timer import OneTimer

R = TypeVar("R")
Client: TypeAlias = Redis | RedisCluster | AsyncValkeyClient
logger = logging.getLogger("redisq")

_MOST_CALLS = 200  # in one round trip
_MOST_ARGUMENTS = 20_000  # so that no call waits for many large ones


class Runner:
    """What performs operations on the user's own client, which it never configures and never closes.

    Calls that are made while a round trip is under way go out together with the next one. When none is under way a call
    is sent at once, by the task that makes it. A call that fails or is cancelled does not affect the others.
    """

    def __init__(self, client: Client, replica_wait: ReplicaWait | None = None) -> None:
        self._cluster = is_cluster(client, "asyncio")
        self._errors = error_classes()
        self.client: Any = client  # execute_command has no types in redis-py
        self._socket_timeout = socket_timeout(client, self._cluster)
        self._round_trips = None if must_send(client, self._cluster) else OneTimer(client, self._errors.reply)
        self._replica_wait = replica_wait
        if replica_wait:
            replica_wait.check_client(self._cluster, self._socket_timeout)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = 0
        self._busy = False
        self._queued: deque[_Shared] = deque()
        self._sender: asyncio.Task[None] | None = None
        self._polls = False

    def run(self, operation: Operation[R]) -> Coroutine[Any, Any, R]:
        """Perform an operation to its end."""
        return self._call(operation) if isinstance(operation, Call) else self._flow(operation)

    async def _flow(self, operation: Flow[R]) -> R:
        flow = finish_unconfirmed(operation) if self._replica_wait else operation
        result: Any = None
        while True:
            try:
                step = flow.send(result)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            try:
                result = await self._step(step)
            except NotDurable as short:
                result = short

    async def _step(self, step: Call[Any] | Pipeline | Block | Sleep) -> Any:
        match step:
            case Call():
                return await self._call(step)
            case Pipeline():
                return await self.send(step.calls, step.return_exceptions)
            case Block():
                return await self.block(step)
            case Sleep():
                return await asyncio.sleep(step.seconds)

    async def _call(self, call: Call[R]) -> R:
        refused: Any = None
        if not self._busy and self._replica_wait is None and (loop := asyncio.get_running_loop()) is self._loop:
            # Nearly every call: nothing is under way, and the reply is no error. The rest would cost as much again.
            self._busy = True
            try:
                (refused,) = await self._exchange((call.evalsha(),), renew=False)
            finally:
                self._busy = False
                if self._queued:
                    self._hand_over(loop)
            if not isinstance(refused, Exception):
                return call.read(refused)
        request = await self._send([call], refused)
        result = call.decode(request.replies[0])
        self._raise_if_short(request, result)
        return result

    async def send(self, calls: Sequence[Call[Any]], return_exceptions: bool = False) -> list[Any]:
        """Send calls in one round trip and return their results; `LeaseLost` or `CodecError` may stand for one."""
        if not calls:
            return []
        request = await self._send(calls)
        found = results(calls, request.replies, return_exceptions)
        self._raise_if_short(request, found)
        return found

    def _raise_if_short(self, request: Request, result: Any) -> None:
        if self._replica_wait and request.waits:
            for call, waits in zip(request.calls, request.waits, strict=True):
                if waits and (short := self._replica_wait.check(call, waits, result)):
                    raise short

    # -- shared round trips

    async def _send(self, calls: Sequence[Call[Any]], refused: Any = None) -> Request:
        """Send calls now, or with the next round trip if one is under way, until each has its reply.

        `refused` is the error with which the only one was answered already.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            await self._enter(loop)
        request = _Shared(calls, self._errors, self._cluster)
        if refused is not None:
            request.replied([refused])
            if request.done:
                return request
        if self._replica_wait and not request.writes:
            await self._send_alone(request)  # else it would wait for the replicas of others' writes
            return request
        sent = refused is not None or not self._busy
        if sent and refused is None:
            self._busy = True
            try:
                await self._round_trip([request])
            finally:
                self._hand_over(loop)
        if not request.done:
            request.waiter = loop.create_future()
            # What is to be sent again was made before all that waits.
            self._queued.appendleft(request) if sent else self._queued.append(request)
            if not self._busy:
                self._hand_over(loop)
            await request.waiter
        return request

    async def _send_alone(self, request: Request) -> None:
        while not request.done:
            await asyncio.sleep(request.pause)
            await self._round_trip([request])

    def _hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let a task send what has been queued, if anything has."""
        while self._queued and self._queued[0].waiter.done():
            self._queued.popleft()
        self._busy = bool(self._queued) and not loop.is_closed()
        if self._busy:
            self._sender = loop.create_task(self._send_queued(loop))

    async def _send_queued(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            while self._queued:
                taken = self._take()
                await self._send_together(taken)
                self._queued.extendleft(one for one in reversed(taken) if not one.waiter.done())
                # Of several who have their replies each may send something next: let them go on, so that it goes
                # together. One alone needs no task of this kind.
                if len(taken) > 1 or self._queued:
                    await asyncio.sleep(max((one.pause for one in self._queued), default=0.0))
        finally:
            # If it was cancelled, by whoever cancels all tasks, those who still wait are served by another one.
            self._hand_over(loop)

    def _take(self) -> list[_Shared]:
        """Take as much from the queue as goes into one round trip, without those who were cancelled."""
        taken: list[_Shared] = []
        calls = arguments = 0
        while self._queued:
            one = self._queued[0]
            if not one.waiter.done():
                calls += len(one.calls)
                for call in one.calls:
                    arguments += len(call.args)
                if taken and (calls > _MOST_CALLS or arguments > _MOST_ARGUMENTS):
                    break
                taken.append(one)
            self._queued.popleft()
        return taken

    async def _send_together(self, taken: Sequence[_Shared]) -> None:
        """Make one round trip for several callers; whoever has all replies, or an error, goes on."""
        try:
            await self._round_trip(taken)
        except Exception as error:
            if len(taken) > 1 and isinstance(error, self._errors.unsendable):
                for one in taken:  # nothing was sent: only the one that cannot be is to fail
                    await self._send_together([one])
                return
            for one in taken:
                one.fail(_copy(error))
        except BaseException:
            lost = "the task that talked to Redis was cancelled, and nobody knows whether this call has been done"
            for one in taken:
                one.fail(library_error(self.client, "ConnectionError", lost))
            raise
        for one in taken:
            if one.done and not one.waiter.done():
                one.waiter.set_result(None)

    async def _round_trip(self, requests: Sequence[Request]) -> None:
        if len(requests) == 1 and self._replica_wait is None:
            (request,) = requests
            request.replied(await self._exchange(request.commands(), request.renew))
            return
        commands, waits = commands_of(requests, self._replica_wait)
        renew = any(request.renew for request in requests)
        replies = await self._exchange([*commands, *waits], renew)
        wait_replies = replies[len(commands) :]
        start = 0
        for request in requests:
            end = start + len(request.again)
            own = wait_replies if len(requests) == 1 else [_copy(reply) for reply in wait_replies]
            request.replied(replies[start:end], own)
            start = end

    # -- commands

    async def commands(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Send commands in one round trip and return each one's reply or error."""
        return await self._exchange(commands, renew=False) if commands else []

    async def _exchange(self, commands: Sequence[tuple[Any, ...]], renew: bool) -> list[Any]:
        try:
            if self._round_trips is not None:
                return await self._round_trips.send(commands, renew=renew)
            if renew and self.client.connection:
                await self.client.connection.disconnect(nowait=True)
            if len(commands) > 1:
                return await self._pipeline(commands)
            # NEVER_DECODE keeps payloads bytes, whatever the client's settings.
            return [await self.client.execute_command(*commands[0], **{NEVER_DECODE: []})]
        except self._errors.reply as error:  # of one command alone, or while the connection was made
            return [_copy(error) for _ in commands]

    async def _pipeline(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        async with self.client.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command, **{NEVER_DECODE: []})
            return await pipe.execute(raise_on_error=False)  # type: ignore[no-any-return]

    # -- waiting

    async def block(self, step: Block) -> None:
        """Wait for a wake-up, on a connection of its own and in one read that is well under the socket timeout."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            await self._enter(loop)
        seconds = block_seconds(step.seconds, self._socket_timeout)
        if self._polls:
            await asyncio.sleep(min(seconds, POLL))
            return
        reply = await self._blpop(step.key, seconds, renew=False)
        if self._errors.is_read_only(reply) and not self._cluster:
            reply = await self._blpop(step.key, seconds, renew=True)
        if not isinstance(reply, Exception):
            return
        if self._errors.refuses_to_block(reply):
            if not self._polls:
                logger.warning("BLPOP is refused, so this queue is polled once a second: %s", reply)
            self._polls = True
        elif str(reply).startswith("UNBLOCKED") or (self._cluster and self._errors.is_migrating(reply)):
            # A master that becomes a replica sends away who waits, and a slot moves: the call that follows finds out.
            await asyncio.sleep(RETRY_AFTER)
        else:
            raise reply

    async def _blpop(self, key: bytes, seconds: float, renew: bool) -> Any:
        command = ("BLPOP", key, f"{seconds:.3f}")
        read = self._exchange([command], renew)
        if self._socket_timeout:
            (reply,) = await read
        else:
            # A connection that was dropped silently would be waited for without end.
            seconds += OVERDUE
            replies = await _within(seconds, read)
            if replies is None:
                logger.warning("no answer to BLPOP within %.1f s: its connection is lost, a new one is made", seconds)
                await self._drop_idle_connections(key)
                return None
            (reply,) = replies
        return reply

    async def _drop_idle_connections(self, key: bytes) -> None:
        """Drop the connections that nobody uses to the server that has a key; others of the pool may be lost as well.

        Not by the pool's own `disconnect`, which waits for the other side to close, while others take the connections.
        """
        owner = self.client.get_node_from_key(key) if self._cluster else self.client.connection_pool
        for connection in tuple(getattr(owner, "_free" if self._cluster else "_available_connections", ())):
            await connection.disconnect(nowait=True)

    # -- event loops

    async def _enter(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to work in an event loop; connections that belong to one that was closed are forgotten."""
        if self._loop is not None and not self._loop.is_closed():
            where = "another event loop" if self._process == os.getpid() else "the process that this one is a fork of"
            raise RedisqError(
                f"this queue is used by {where}, and so are the connections of its client: make a client and a queue "
                "for each event loop and process"
            )
        if self._loop is not None:
            for connection in filter(_is_left_behind, self._connections()):
                with contextlib.suppress(RuntimeError):  # "Event loop is closed"; that of the connection is
                    await connection.disconnect(nowait=True)
        self._loop, self._process = loop, os.getpid()
        self._queued.clear()  # nobody waits for them any more
        self._busy = False

    def _connections(self) -> Iterable[Any]:
        if self._cluster:
            nodes = self.client.nodes_manager.nodes_cache.values()
            return [connection for node in nodes for connection in getattr(node, "_connections", ())]
        single = getattr(self.client, "connection", None)
        idle = getattr(self.client.connection_pool, "_available_connections", ())
        return [*([single] if single else []), *idle]

    # -- all keys

    async def scan(self, pattern: bytes, kind: str) -> list[bytes]:
        """Find the keys of a type that match a pattern, on all nodes, in steps that do not block the server."""
        found: set[bytes] = set()
        if self._cluster:
            await self.client.initialize()  # it knows no nodes before its first call
        for node in [{"target_nodes": node} for node in self.client.get_primaries()] if self._cluster else [{}]:
            cursor = 0
            while True:
                step = ("SCAN", cursor, "MATCH", pattern, "COUNT", 1000, "TYPE", kind)
                following, keys = await self.client.execute_command(*step, **node, **{NEVER_DECODE: []})
                found.update(map(as_bytes, keys))
                # A cluster's client names the node beside its cursor.
                cursor = int(next(iter(following.values())) if isinstance(following, dict) else following)
                if cursor == 0:
                    break
        return sorted(found)


class _Shared(Request):
    """A request that may have to wait for the next round trip."""

    waiter: asyncio.Future[None]
    """What its caller waits for, once it is queued; done also when the caller was cancelled."""

    def fail(self, error: Exception) -> None:
        """Let the caller raise an error."""
        if not self.waiter.done():
            self.waiter.set_exception(error)


async def _within(seconds: float, read: Coroutine[Any, Any, R]) -> R | None:
    """Wait so long for a read, and return None if it has not ended; then it is cancelled.

    `asyncio.wait_for` swallows a cancellation, before Python 3.12, that comes together with the reply.
    """
    task = asyncio.ensure_future(read)
    try:
        await asyncio.wait([task], timeout=seconds)
        return task.result() if task.done() else None
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.exception()  # nobody else asks for it


def _is_left_behind(connection: Any) -> bool:
    """Say whether a connection was made in an event loop that is closed now; where that cannot be told, it may be."""
    reader = getattr(connection, "_reader", connection)
    loop = getattr(reader, "_loop", None)
    return reader is not None and (loop is None or loop.is_closed())


def _copy(reply: R) -> R:
    """Return an error once more, for one of several callers: each adds its own traceback. Other replies stay."""
    if not isinstance(reply, Exception):
        return reply
    try:
        again = copy.copy(reply)
    except Exception:  # not every class can be made again from its arguments
        return reply
    again.__cause__, again.__context__ = reply.__cause__, reply.__context__
    again.__suppress_context__ = reply.__suppress_context__
    return again.with_traceback(reply.__traceback__)
