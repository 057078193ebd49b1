"""The JSON API: documented on a page of its own, and the same as the pages."""

from __future__ import annotations

import re
from typing import Any

import pytest
import redis

from redisq import BYTES, Buffer, PriorityQueue
from tests.web.conftest import Make

PROGRAM = {"X-Requested-With": "redisq"}


async def test_all_queues(web: Make, client: redis.Redis) -> None:
    Buffer(client, "b").push(1, 2)
    PriorityQueue(client, "p/\udcff").push("a")
    found = (await web().get("/api/queues")).json()
    assert found["outage"] is None
    assert [one["subject"] for one in found["warnings"]] == ['appendonly no, save ""']
    first, second = found["queues"]
    assert (first["queue"], first["kind"], first["waiting"], first["path"]) == ("b", "buffer", 2, "b")
    assert (second["queue"], second["kind"], second["order"], second["path"]) == (
        "p/\\xff",
        "priority",
        "fifo",
        "p~2F~FF",
    )
    assert first["time"].endswith("+00:00")
    one = (await web().get(f"/api/queues/{second['path']}")).json()
    assert one["waiting"] == 1
    assert one["job"] is None


async def test_groups_and_items(web: Make, client: redis.Redis) -> None:
    buffer: Buffer[bytes] = Buffer(client, "b", codec=BYTES)
    buffer.push(b"1", b"2", b"\xff", group="g/1")
    buffer.push(b"3", group="h")
    browser = web()
    found = (await browser.get("/api/queues/b/groups?limit=1")).json()
    assert found == {"groups": [{"group": "g/1", "path": "g~2F1", "waiting": 3, "state": "waiting"}], "next": 1}
    found = (await browser.get("/api/queues/b/groups?limit=1&after=1")).json()
    assert found["next"] is None
    found = (await browser.get("/api/queues/b/groups/g~2F1?limit=2")).json()
    assert (found["items"], found["total"], found["next"]) == (["1", "2"], 3, 2)
    found = (await browser.get("/api/queues/b/groups/g~2F1?limit=2&after=2")).json()
    assert found["items"] == [{"base64": "/w=="}]


async def test_members(web: Make, client: redis.Redis) -> None:
    queue = PriorityQueue(client, "p", order="score")
    queue.push("a", 1.5, payload={"n": 1})
    queue.push("b", -2)
    browser = web()
    found = (await browser.get("/api/queues/p/members")).json()
    assert [(one["member"], one["priority"], one["payload"]) for one in found["members"]] == [
        ("b", -2.0, None),
        ("a", 1.5, '{"n":1}'),
    ]
    one = (await browser.get("/api/queues/p/members/a")).json()
    assert (one["state"], one["rank"], one["priority"]) == ("ready", 1, 1.5)
    gone = await browser.get("/api/queues/p/members/x")
    assert (gone.status_code, gone.json()["state"]) == (404, "absent")


async def test_what_is_leased_delayed_and_dead(web: Make, client: redis.Redis) -> None:
    buffer: Buffer[int] = Buffer(client, "b")
    for i in range(5):
        buffer.push(i, i, group=f"g{i}")
    leased, delayed, *dead = [buffer.reserve(holder="me") for _ in range(5)]
    assert leased
    assert delayed
    delayed.release(delay=60, reason="later")
    for batch in dead:
        assert batch
        batch.bury("bad")
    browser = web()
    (one,) = (await browser.get("/api/queues/b/leased")).json()["leased"]
    assert (one["id"], one["holder"], one["size"], len(one["first"])) == (leased.id, "me", 2, 2)
    (one,) = (await browser.get("/api/queues/b/delayed")).json()["delayed"]
    assert one["reason"] == "later"
    seen: list[str] = []
    following: str | None = ""
    while following is not None:
        found = (
            await browser.get("/api/queues/b/dead", params={"limit": 2, **({"after": following} if following else {})})
        ).json()
        seen += [one["id"] for one in found["dead"]]
        following = found["next"]
    assert sorted(seen) == sorted(batch.id for batch in dead if batch)
    whole = (await browser.get(f"/api/queues/b/dead/{seen[0]}")).json()
    assert (whole["total"], whole["reason"]) == (2, "bad")


async def test_acts(web: Make, client: redis.Redis) -> None:
    queue: PriorityQueue[bytes] = PriorityQueue(client, "p", codec=BYTES)
    queue.push_many((member, 0) for member in (b"a", b"b/\xff", b"c"))
    while batch := queue.reserve(9):
        batch.bury()
    browser = web(allow=["redrive", "discard", "pause", "purge"])

    async def post(path: str, **body: Any) -> tuple[int, dict[str, Any]]:
        answer = await browser.post(f"/api/queues/p/{path}", json=body, headers=PROGRAM)
        return answer.status_code, answer.json()

    assert (await post("redrive", ids=["b~2F~FF"]))[1]["redriven"] == 1
    assert [one.member for one in queue.peek(9)] == [b"b/\xff"]
    assert (await post("discard", ids=["c"], token="t"))[1]["discarded"] == 1
    assert (await post("discard", ids=["c"], token="t"))[1]["discarded"] == 1  # the same request: the same answer
    assert (await post("pause", seconds=60, reason="why"))[0] == 200
    assert queue.stats().pause_reason == "why"
    assert (await post("resume"))[1]["was_paused"] is True
    assert (await post("redrive", all=True))[1]["job"]["done"] == 1
    assert (await post("stop"))[0] == 404
    assert (await post("audit"))[1]["findings"] == []
    assert (await post("purge", name="q"))[0] == 400
    assert (await post("purge", name="p"))[0] == 200
    assert queue.stats().waiting == 0
    queue.push(b"a")
    for path, body in (
        ("redrive", {}),
        ("redrive", {"ids": [], "all": False}),
        ("redrive", {"ids": ["a"], "all": True}),
        ("redrive", {"ids": [1]}),
        ("redrive", {"ids": "a"}),
        ("pause", {"seconds": True}),
        ("pause", {"seconds": "soon"}),
        ("pause", {"reason": 1}),
        ("purge", {"name": 1}),
    ):
        status, answer = await post(path, **body)
        assert status == 400, (path, body)
        assert answer["error"]


async def test_every_path_that_is_documented_exists(web: Make, client: redis.Redis) -> None:
    Buffer(client, "b").push(1)
    browser = web()
    page = (await browser.get("/api")).text
    gets, posts = page.split("<h2>Acts</h2>")
    for path in re.findall(r"<code>((?:…|/api|/healthz|/livez)[^<]*)</code>", gets):
        asked = path.replace("…", "/api/queues/b").replace("{queue}", "b").replace("{group}", "g").replace("&amp;", "&")
        answer = await browser.get(asked.replace("{member}", "m").replace("{id}", "x"))
        assert answer.status_code in (200, 404)
        assert answer.status_code == 200 or "Not Found" not in answer.text, path
    for path in re.findall(r"<code>(…[^<]*)</code>", posts):
        asked = path.replace("…", "/api/queues/b").replace("{group}", "g")
        answer = await browser.post(asked, json={}, headers=PROGRAM)
        assert answer.status_code in (200, 403, 404)
        assert "Not Found" not in answer.text, path


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=501", "limit=x", "after=-1", "limit=\u0661", "state=none", "order=none"]
)
async def test_bad_queries(web: Make, client: redis.Redis, query: str) -> None:
    Buffer(client, "b").push(1)
    path = "dead" if query.startswith("order") else "groups"
    answer = await web().get(f"/api/queues/b/{path}?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]
