"""The one place where the asyncio side talks to Redis."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from time import monotonic
from typing import Any, TypeVar

from redis import Redis as BlockingRedis
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.cluster import ClusterPipeline, RedisCluster
from redis.client import NEVER_DECODE
from redis.cluster import RedisCluster as BlockingRedisCluster
from redis.exceptions import AskError, ClusterError, NoScriptError, ResponseError, SlotNotCoveredError, TryAgainError

from ..errors import InvalidArgument, NotDurable
from ..ops import Call, Confirm, Many, Op, Pause, Wait, answers, as_bytes, piece, whole

R = TypeVar("R")
Client = Redis | RedisCluster

# What a cluster answers while a slot or a master's place changes hands. Nothing has run, and it passes: redis-py waits
# less than a second for it, but a large queue takes longer to move.
MOVING = (TryAgainError, AskError, ClusterError, SlotNotCoveredError)
# What a script is stopped with that has all keys that it declares, because it was sent again, and computes another;
# the second is that of Redis 8.
ELSEWHERE = re.compile("non local key|during rehashing of the slot")
PATIENCE = 30.0
PAUSE = 0.05


class Runner:
    """Perform operations on the user's own client, which it never configures and never closes."""

    def __init__(self, client: Client, confirm: Confirm | None = None) -> None:
        if isinstance(client, (BlockingRedis, BlockingRedisCluster)):
            raise InvalidArgument(f"client is the blocking {type(client).__name__}: import from redisq")
        if isinstance(client, (Pipeline, ClusterPipeline)):
            raise InvalidArgument(
                "client is a pipeline: queue an operation in it with queue.ops.push(...).queue(pipeline)"
            )
        self.client: Any = client  # execute_command has no types in redis-py
        self._cluster = isinstance(client, RedisCluster)
        self._confirm = confirm
        if confirm:
            confirm.check(self._cluster, self._socket_timeout())

    async def run(self, op: Op[R]) -> R:
        """Perform one call and read its reply."""
        if self._confirm and op.writes:
            (reply,), words = await self._call([op])
            result = op.read(reply)
            self._insist([op], words, result)
            return result
        return op.read(await self._reply(op))

    async def _reply(self, op: Op[Any]) -> Any:
        reply = await self._patiently(*op.by_sha())
        # Not SCRIPT LOAD and EVALSHA again: between the two the server may forget once more.
        return await self._patiently(*op.by_text()) if isinstance(reply, NoScriptError) else reply

    async def talk(self, talk: Call[R]) -> R:
        """Perform an operation to its end."""
        if isinstance(talk, Op):
            return await self.run(talk)
        talk = whole(talk) if self._confirm else talk
        reply: Any = None
        while True:
            try:
                step = talk.send(reply)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            try:
                reply = await self._step(step)
            except NotDurable as short:
                reply = short

    async def _step(self, step: Op[Any] | Many | Wait | Pause) -> Any:
        match step:
            case Op():
                return await self.run(step)
            case Many():
                return await self._many(step.ops)
            case Wait():
                return await self.wait(step)
            case Pause():
                return await asyncio.sleep(step.seconds)

    async def wait(self, step: Wait) -> None:
        """Wait for a token, in one piece that is well under the socket timeout."""
        reply = await self._patiently("BLPOP", step.key, f"{piece(step.seconds, self._socket_timeout()):.3f}")
        # A master that becomes a replica sends away who waits: the next ask finds the new master.
        if isinstance(reply, Exception) and not str(reply).startswith("UNBLOCKED"):
            raise reply

    def _socket_timeout(self) -> Any:
        connections = self.client.nodes_manager if self._cluster else self.client.connection_pool
        return connections.connection_kwargs.get("socket_timeout")

    async def _many(self, ops: list[Op[Any]]) -> list[Any]:
        if len(ops) == 1 and not self._confirm:
            return answers(ops, [await self._reply(ops[0])])
        replies, words = await self._call(ops)
        results = answers(ops, replies)
        self._insist(ops, words, results)
        return results

    async def _call(self, ops: Sequence[Op[Any]]) -> tuple[list[Any], list[Any]]:
        """Send calls in one round trip; give their replies, and the replicas' word on them."""
        confirm = self._confirm.commands() if self._confirm and any(op.writes for op in ops) else []
        replies = await self.send([*(op.by_sha() for op in ops), *confirm])
        replies, words = replies[: len(ops)], replies[len(ops) :]
        forgotten = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if forgotten:
            again = await self.send([*(ops[i].by_text() for i in forgotten), *confirm])
            for i, reply in zip(forgotten, again, strict=False):
                replies[i] = reply
            words = [*(words if len(forgotten) < len(ops) else []), *again[len(forgotten) :]]
        return replies, words

    def _insist(self, ops: Sequence[Op[Any]], words: list[Any], result: Any) -> None:
        if self._confirm and words and (short := self._confirm.shortage(ops, words, result)):
            raise short

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

    async def send(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        """Send commands in one round trip, and give each one's reply or error."""
        if len(commands) == 1:
            return [await self._patiently(*commands[0])]
        async with self.client.pipeline(transaction=False) as pipe:
            for command in commands:
                # NEVER_DECODE keeps payloads bytes, whatever the client's settings.
                pipe.execute_command(*command, **{NEVER_DECODE: []})
            try:
                replies = await pipe.execute(raise_on_error=False)
            except MOVING as error:
                replies = [error] * len(commands)
        pairs = zip(commands, replies, strict=True)
        return [await self._patiently(*command) if self._moves(reply) else reply for command, reply in pairs]

    def _moves(self, reply: Any) -> bool:
        return isinstance(reply, MOVING) or (
            self._cluster and isinstance(reply, ResponseError) and bool(ELSEWHERE.search(str(reply)))
        )

    async def _patiently(self, *command: Any) -> Any:
        """Send one command and give its reply or error; wait for a cluster that is on the move."""
        end = monotonic() + PATIENCE
        while True:
            try:
                return await self.client.execute_command(*command, **{NEVER_DECODE: []})
            except MOVING:
                if not self._cluster or monotonic() > end:
                    raise
            except ResponseError as error:
                if not self._moves(error) or monotonic() > end:
                    return error
            await asyncio.sleep(PAUSE)
