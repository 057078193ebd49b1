"""Measure bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial
from typing import Any

import redis

from redisq.embedded import Server

from ..measure import private_server, say, significant
from .calls import ITEM, Command, ask, batch_id, call, key, member_name, most, ready_server, send


def used(server: Server) -> int:
    """Give the server's bytes, as a client sees them that has sent nothing else."""
    with server.client() as client:
        return int(client.info("memory")["used_memory"])


def grown(server: Server, commands: Sequence[Command]) -> int:
    """Give the bytes that commands add."""
    before = used(server)
    with server.client() as client:
        for start in range(0, len(commands), 1000):
            send(client, commands[start : start + 1000])
    return used(server) - before


def usage(client: redis.Redis, *keys: str) -> int:
    """Give the bytes of some keys, no element of them estimated."""
    return sum(ask(client, "MEMORY", "USAGE", one, "SAMPLES", 0) or 0 for one in keys)


def memory(count: int) -> dict[str, Any]:
    """Measure bytes: against plain structures of the same payloads, and of what redisq keeps besides."""
    say("memory")
    few = count // 10
    members = [member_name(i) for i in range(count)]
    piece_size = most("priority/reserve", "size")
    pieces = [members[start : start + piece_size] for start in range(0, count, piece_size)]
    ids = [batch_id("l", i) for i in range(few)]
    call_once = partial(call, window=0)

    def push(items: int) -> list[Command]:
        return [call_once("buffer/push", item=[ITEM] * 100, group="default") for _ in range(items // 100)]

    def take(batches: int, size: int) -> list[Command]:
        return [call_once("buffer/reserve", id=one, size=size) for one in ids[:batches]]

    pushes = [call_once("priority/push", item=[(0, one) for one in piece]) for piece in pieces]
    whole = [call_once("priority/reserve", id=one, size=piece_size) for one, _ in zip(ids, pieces, strict=False)]
    some = [call_once("priority/push", item=[(0, member)]) for member in members[:few]]
    single = [call_once("priority/reserve", id=one) for one in ids]
    buried = [call_once("priority/bury", id=one) for one, _ in zip(ids, pieces, strict=False)]
    costs: list[tuple[str, int, list[Command], list[Command]]] = [
        (
            "a group, its item included",
            few,
            [],
            [call_once("buffer/push", item=[ITEM], group=one) for one in members[:few]],
        ),
        *(
            (
                f"a batch of {size}, leased, delayed or dead, more than its items waiting",
                few,
                push(few * size),
                take(few, size),
            )
            for size in (1, 10, 100)
        ),
        (f"a member leased with {piece_size - 1} others, more than ready", count, pushes, whole),
        ("a member leased alone, more than ready", few, some, single),
        ("a dead member, more than ready", count, pushes, whole + buried),
        ("a remembered id", few, [], [call("buffer/discard", id=["none"]) for _ in ids]),
        (
            "an acked lease of a buffer, remembered",
            few,
            push(few),
            [*take(few, 1), *(call("buffer/ack", id=one) for one in ids[:few])],
        ),
        (
            "an acked lease of a priority queue, remembered",
            few,
            [],
            [
                *some,
                *single,
                *(call("priority/ack", id=one) for one in ids),
            ],
        ),
        ("a grant", few, [], [call_once("limit/acquire", rates=[(10**9, 10**9)]) for _ in ids]),
    ]
    ratios: dict[str, dict[str, float]] = {}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(private_server())
        client = ready_server(server, stack)

        for first in (push(1000), pushes[:1]):  # what a server allocates for its first large call, it keeps
            send(client, [*first, ("FLUSHALL",)])

        def measured(commands: list[Command], keys: Sequence[str]) -> tuple[int, int]:
            client.flushall()
            return grown(server, commands), usage(client, *keys)

        plain = [("RPUSH", "plain", *[ITEM] * 100)] * (count // 100)
        theirs = measured(plain, ["plain"])
        ours = measured(push(count), [key(one) for one in ("items:default", "groups", "since", "meta", "wake")])
        ratios["a waiting item / an item of a plain list"] = compared(ours, theirs, count)
        plain = [("ZADD", "plain", *(word for one in piece for word in ("7", one))) for piece in pieces]
        theirs = measured(plain, ["plain"])
        ours = measured(pushes, [key(one) for one in ("ready", "delayed", "rows", "meta", "wake")])
        ratios["a ready member / a member of a plain sorted set"] = compared(ours, theirs, count)
        bytes_each = {}
        for title, number, before, commands in costs:
            client.flushall()
            send(client, before)
            bytes_each[title] = significant(grown(server, commands) / number)
    return {"payload": len(ITEM), "member": len(members[0]), "count": count, "ratios": ratios, "bytes": bytes_each}


def compared(ours: tuple[int, int], theirs: tuple[int, int], count: int) -> dict[str, float]:
    """Reduce the bytes of two structures, by used_memory and by MEMORY USAGE, to ratios."""
    return {
        "used_memory": significant(ours[0] / theirs[0]),
        "MEMORY USAGE": significant(ours[1] / theirs[1]),
        "bytes": significant(ours[0] / count),
    }
