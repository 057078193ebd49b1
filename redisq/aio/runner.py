"""The one place where the asyncio side talks to Redis."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

from redis import Redis as BlockingRedis
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.cluster import ClusterPipeline, RedisCluster
from redis.client import NEVER_DECODE
from redis.cluster import RedisCluster as BlockingRedisCluster
from redis.exceptions import NoScriptError, ResponseError

from ..errors import InvalidArgument, LeaseLost
from ..ops import Many, Op, Pause, Talk, Wait, piece

R = TypeVar("R")
Client = Redis | RedisCluster


class Runner:
    """Perform operations on the user's own client, which it never configures and never closes."""

    def __init__(self, client: Client) -> None:
        if isinstance(client, (BlockingRedis, BlockingRedisCluster)):
            raise InvalidArgument(f"client is the blocking {type(client).__name__}: import from redisq")
        if isinstance(client, (Pipeline, ClusterPipeline)):
            raise InvalidArgument(
                "client is a pipeline: queue an operation in it with queue.ops.push(...).queue(pipeline)"
            )
        self.client: Any = client  # execute_command has no types in redis-py

    async def run(self, op: Op[R]) -> R:
        """Perform one call and read its reply."""
        try:
            # NEVER_DECODE keeps payloads bytes, whatever the client's settings.
            reply = await self.client.execute_command(*op.by_sha(), **{NEVER_DECODE: []})
        except NoScriptError:
            return await self._run_text(op)
        except ResponseError as error:
            reply = error
        return op.read(reply)

    async def _run_text(self, op: Op[R]) -> R:
        # Not SCRIPT LOAD and EVALSHA again: between the two the server may forget once more.
        try:
            reply = await self.client.execute_command(*op.by_text(), **{NEVER_DECODE: []})
        except ResponseError as error:
            reply = error
        return op.read(reply)

    async def talk(self, talk: Talk[R]) -> R:
        """Perform a conversation to its end."""
        reply: Any = None
        while True:
            try:
                step = talk.send(reply)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            reply = None
            match step:
                case Op():
                    reply = await self.run(step)
                case Many():
                    reply = await self._many(step.ops)
                case Wait():
                    await self.wait(step)
                case Pause():
                    await asyncio.sleep(step.seconds)

    async def wait(self, step: Wait) -> None:
        """Wait for a token, in one piece that is well under the socket timeout."""
        pool = getattr(self.client, "connection_pool", None)
        timeout = pool.connection_kwargs.get("socket_timeout") if pool else None
        await self.client.execute_command("BLPOP", step.key, f"{piece(step.seconds, timeout):.3f}")

    async def _many(self, ops: list[Op[Any]]) -> list[Any]:
        if len(ops) == 1:
            return [await self._try(ops[0])]
        async with self.client.pipeline(transaction=False) as pipe:
            for op in ops:
                pipe.execute_command(*op.by_sha(), **{NEVER_DECODE: []})
            replies = await pipe.execute(raise_on_error=False)
        return [await self._try(op, reply) for op, reply in zip(ops, replies, strict=True)]

    async def _try(self, op: Op[Any], reply: Any = None) -> Any:
        # What a server that forgot the script refused is sent again by itself. A lost lease is an answer like any
        # other: the rest of the batch of calls counts.
        try:
            return await self.run(op) if reply is None or isinstance(reply, NoScriptError) else op.read(reply)
        except LeaseLost as lost:
            return lost
