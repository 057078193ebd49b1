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

from ..errors import InvalidArgument
from ..ops import Op, Pause, Talk

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
        self.client = client

    async def run(self, op: Op[R]) -> R:
        """Perform one call and read its reply."""
        call = (len(op.keys), *op.keys, *op.args)
        # NEVER_DECODE keeps payloads bytes, whatever the client's settings.
        options: dict[str, Any] = {NEVER_DECODE: []}
        try:
            try:
                reply = await self.client.execute_command("EVALSHA", op.script.sha, *call, **options)
            except NoScriptError:
                # Not SCRIPT LOAD and EVALSHA again: between the two the server may forget once more.
                options = {NEVER_DECODE: []}
                reply = await self.client.execute_command("EVAL", op.script.text, *call, **options)
        except ResponseError as error:
            refusal = op.refusal(str(error))
            if refusal is None:
                raise
            raise refusal from error
        return op.decode(reply)

    async def talk(self, talk: Talk[R]) -> R:
        """Perform a conversation to its end."""
        reply: Any = None
        while True:
            try:
                step = talk.send(reply)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
                reply = None
            else:
                reply = await self.run(step)
