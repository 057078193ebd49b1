"""The one place where the blocking side talks to Redis."""

from __future__ import annotations

import time
from typing import Any, TypeVar

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.cluster import RedisCluster as AsyncRedisCluster
from redis.client import NEVER_DECODE, Pipeline
from redis.cluster import ClusterPipeline, RedisCluster
from redis.exceptions import NoScriptError, ResponseError

from ..errors import InvalidArgument
from ..ops import Op, Pause, Talk

R = TypeVar("R")
Client = Redis | RedisCluster


class Runner:
    """Perform operations on the user's own client, which it never configures and never closes."""

    def __init__(self, client: Client) -> None:
        if isinstance(client, (AsyncRedis, AsyncRedisCluster)):
            raise InvalidArgument(f"client is the asyncio {type(client).__name__}: import from redisq.asyncio")
        if isinstance(client, (Pipeline, ClusterPipeline)):
            raise InvalidArgument(
                "client is a pipeline: queue an operation in it with queue.ops.push(...).queue(pipeline)"
            )
        self.client: Any = client  # execute_command has no types in redis-py

    def run(self, op: Op[R]) -> R:
        """Perform one call and read its reply."""
        call = (len(op.keys), *op.keys, *op.args)
        # NEVER_DECODE keeps payloads bytes, whatever the client's settings.
        options: dict[str, Any] = {NEVER_DECODE: []}
        try:
            try:
                reply = self.client.execute_command("EVALSHA", op.script.sha, *call, **options)
            except NoScriptError:
                # Not SCRIPT LOAD and EVALSHA again: between the two the server may forget once more.
                options = {NEVER_DECODE: []}
                reply = self.client.execute_command("EVAL", op.script.text, *call, **options)
        except ResponseError as error:
            refusal = op.refusal(str(error))
            if refusal is None:
                raise
            raise refusal from error
        return op.decode(reply)

    def talk(self, talk: Talk[R]) -> R:
        """Perform a conversation to its end."""
        reply: Any = None
        while True:
            try:
                step = talk.send(reply)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            if isinstance(step, Pause):
                time.sleep(step.seconds)
                reply = None
            else:
                reply = self.run(step)
