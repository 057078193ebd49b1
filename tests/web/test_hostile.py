"""What is in one queue's keys, or in a request, and must not harm the rest."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import redis
import redis.asyncio

from redisq import BYTES, Buffer, InvalidArgument, PriorityQueue, Rate
from redisq.core.queues import QueueInfo
from redisq.web import app, sampler
from redisq.web.sampler import Sampler
from tests.web.conftest import Make, bodies, tab

PROGRAM = {"X-Requested-With": "redisq"}


@pytest.mark.parametrize("garbage", ["a string", "no numbers"])
async def test_a_broken_key_of_one_queue_hides_no_other(web: Make, client: redis.Redis, garbage: str) -> None:
    for name in ("broken", "whole"):
        buffer: Buffer[int] = Buffer(client, name, rates=[Rate(50, 60)])
        buffer.push(1, 2)
        buffer.reserve(1)
    client.delete("redisq:{broken}:grants")
    if garbage == "a string":
        client.set("redisq:{broken}:grants", "x")
    else:
        client.zadd("redisq:{broken}:grants", {"no numbers": 1})
    client.expire("redisq:{broken}:grants", 100)
    browser = web()
    page = bodies((await browser.get("/")).text)
    assert "Redis refuses" not in page
    assert "1 in 1m" in page
    assert (await browser.get("/api/queues/broken")).json()["waiting"] == 1


async def test_a_sampler_that_fails_says_so_once_and_comes_back(
    aclient: redis.asyncio.Redis,
    client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    Buffer(client, "b").push(1)
    whole, failures = vars(sampler)["overviews"], 0

    def broken(*_: object) -> None:
        nonlocal failures
        failures += 1
        raise ZeroDivisionError("secret-payload")

    monkeypatch.setattr(sampler, "overviews", broken)
    found = Sampler(aclient, "redisq", None)
    with caplog.at_level(logging.DEBUG):
        for _ in range(3):
            await found.refresh()
        assert failures == 1  # it waits before it tries again
        assert "ZeroDivisionError" in found.outage
        found._tick_due = 0.0
        await found.refresh()
    said = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    assert failures == 2
    assert len(said) == 1
    assert "secret" not in said[0] + found.outage
    monkeypatch.setattr(sampler, "overviews", whole)
    found._tick_due = 0.0
    await found.refresh()
    assert not found.outage
    assert found.samples["b"].stats


async def test_a_queue_that_a_scan_finds_gone_while_it_is_counted(
    aclient: redis.asyncio.Redis, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    Buffer(client, "b").push(1)
    PriorityQueue(client, "p").push("a")
    found = Sampler(aclient, "redisq", None)
    await found.refresh()
    asked = found._ask_rates

    async def meanwhile(*args: object) -> None:
        client.delete("redisq:{b}:meta")
        await found._find()
        await asked(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(found, "_ask_rates", meanwhile)
    found._tick_due = 0.0
    found._due.clear()
    await found.refresh()
    assert not found.outage
    assert list(found.samples) == ["p"]


@pytest.mark.parametrize(
    ("act", "body", "said"),
    [
        ("redrive", '{"ids": ["\\ud800"]}', "not a JSON object"),
        ("purge", '{"name": "\\ud800"}', "not a JSON object"),
        ("pause", '{"token": "\\ud800"}', "not a JSON object"),
        ("pause", '{"seconds": %s}' % ("9" * 400), "out of range"),
        ("redrive", '{"ids": [""]}', "ids is ''"),
        ("groups/~_/pause", "{}", "group is ''"),
    ],
)
async def test_what_cannot_be_meant_is_a_bad_request(
    web: Make, client: redis.Redis, act: str, body: str, said: str
) -> None:
    Buffer(client, "q").push(1)
    browser = web(allow=["redrive", "pause", "purge"])
    answer = await browser.post(f"/api/queues/q/{act}", content=body, headers=PROGRAM)
    assert answer.status_code == 400
    assert said in answer.json()["error"]


@pytest.mark.parametrize("score", [1e18, float("inf"), -1e18])
async def test_a_time_that_no_calendar_has(web: Make, client: redis.Redis, score: float) -> None:
    buffer: Buffer[int] = Buffer(client, "q", max_attempts=1)
    buffer.push(1)
    batch = buffer.reserve()
    assert batch
    batch.bury("broken")
    client.zadd("redisq:{q}:dead", {batch.id: score})
    answer = await web().get("/api/queues/q/dead")
    assert answer.json()["dead"][0]["died"] == (
        "9999-12-31T23:59:59.000+00:00" if score > 0 else "0001-01-01T00:00:00.000+00:00"
    )
    assert (await web().get("/queues/q/dead")).status_code == 200


async def test_a_refusal_is_not_called_an_outage(web: Make, client: redis.Redis) -> None:
    Buffer(client, "q").push(1)
    client.set("redisq:{q}:dead", "x")
    page = await web().get("/queues/q/dead")
    assert page.status_code == 502
    assert "Redis refuses: WRONGTYPE" in bodies(page.text)
    assert "does not answer" not in page.text
    assert "Redis refuses: WRONGTYPE" in (await web().get("/api/queues/q/dead")).json()["error"]


async def test_an_origin_without_a_host_is_no_origin(web: Make, client: redis.Redis) -> None:
    """As of a sandboxed frame, to a server that asks for no host."""
    Buffer(client, "q").push(1)
    answer = await web(allow=["pause"]).post("/queues/q/pause", data={"a": "b"}, headers={"Origin": "null", "Host": ""})
    assert answer.status_code == 403
    assert not Buffer(client, "q").stats().paused


async def test_one_name_in_the_place_of_several(aclient: redis.asyncio.Redis) -> None:
    """Else these were the queues `m`, `a`, `i`, `l` and `s`."""
    with pytest.raises(InvalidArgument, match=r"queues is 'mails': give a sequence of names, such as \['mails'\]"):
        app(aclient, queues="mails")


async def test_a_queue_that_is_purged_while_somebody_looks(
    aclient: redis.asyncio.Redis, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampler, "FIND_EVERY", 0.0)
    Buffer(client, "q").push(1)
    async with tab(app(aclient), "/queues/q/live") as parts:
        assert "There is no queue" not in await parts.get()
        client.flushall()
        while "There is no queue" not in await parts.get():
            pass


async def test_a_queue_that_is_made_while_a_scan_runs_is_not_lost(
    aclient: redis.asyncio.Redis, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Sampler(aclient, "redisq", None)
    scan = vars(sampler)["queues"]

    async def slow(*args: Any) -> Any:
        seen = await scan(*args)
        Buffer(client, "q").push(1)
        await found.sample(QueueInfo("q", "buffer", 2))
        return seen

    monkeypatch.setattr(sampler, "queues", slow)
    await found.refresh()
    assert found.samples["q"].stats


async def test_what_was_refused_may_be_sent_again(web: Make, client: redis.Redis) -> None:
    """With the same token, once the reason is gone."""
    buffer: Buffer[int] = Buffer(client, "q")
    buffer.push(1)
    browser = web(allow=["redrive"])
    for index, status in (("dead", 502), ("other", 200)):
        client.set("redisq:{q}:dead", "x") if index == "dead" else client.delete("redisq:{q}:dead")
        answer = await browser.post("/api/queues/q/redrive", content='{"all": true, "token": "t"}', headers=PROGRAM)
        assert answer.status_code == status


def sent(client: redis.Redis) -> int:
    """Count the bytes that the server has sent."""
    return int(client.info("stats")["total_net_output_bytes"])


async def test_a_page_of_large_payloads_is_not_asked_for_whole(web: Make, client: redis.Redis) -> None:
    """What does not fit on the page would else fill the memory of the server and of the dashboard."""
    large = b"x" * 400_000
    buffer: Buffer[bytes] = Buffer(client, "b", codec=BYTES)
    priority: PriorityQueue[bytes] = PriorityQueue(client, "p", codec=BYTES, payload_codec=BYTES)
    for i in range(40):
        buffer.push(large, group=f"g{i}")
        batch = buffer.reserve()
        assert batch
        batch.bury("bad")
        priority.push(b"%d" % i, payload=large)
        member = priority.reserve()
        assert member
        member.bury("bad")
    for i in range(40):
        buffer.push(large, group="many")
        priority.push(b"r%d" % i, payload=large)
    browser = web()
    for path in ("/queues/b/dead", "/queues/b/groups/many", "/queues/p/dead", "/queues/p"):
        before = sent(client)
        page = await browser.get(path)
        assert page.status_code == 200
        assert 'rel="next"' in page.text
        assert sent(client) - before < 6 * len(large)
    first, after = [], ""
    while after is not None:
        found = (
            await browser.get(f"/api/queues/b/dead?limit=7&after={after}" if after else "/api/queues/b/dead?limit=7")
        ).json()
        first += [one["group"] for one in found["dead"]]
        after = found["next"]
    assert sorted(first) == sorted(f"g{i}" for i in range(40))
