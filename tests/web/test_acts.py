"""What the pages and the JSON API may do: only what is allowed, only from where it may come, and only once."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import httpx
import pytest
import redis
import redis.asyncio

from redisq import BYTES, Buffer, PriorityQueue
from redisq.asyncio import Buffer as AsyncBuffer
from redisq.web import jobs
from tests.web.conftest import BASE, SAME_ORIGIN, Make, bodies, submit

ALL = ("redrive", "discard", "pause", "purge")
PROGRAM = {"X-Requested-With": "redisq"}


def dead_batches(client: redis.Redis, count: int, name: str = "b") -> list[str]:
    buffer: Buffer[int] = Buffer(client, name)
    ids = []
    for i in range(count):
        buffer.push(i, group=f"g{i % 3}")
        batch = buffer.reserve()
        assert batch
        batch.bury("bad")
        ids.append(batch.id)
    return ids


def dead_members(client: redis.Redis, *members: bytes, name: str = "p") -> None:
    queue: PriorityQueue[bytes] = PriorityQueue(client, name, codec=BYTES)
    queue.push_many((member, 3) for member in members)
    while batch := queue.reserve(500):
        batch.bury("bad")


def everything(client: redis.Redis) -> dict[bytes, bytes | None]:
    keys: list[bytes] = client.keys("*")  # type: ignore[assignment]
    return {key: client.dump(key) for key in keys if b":once:" not in key}


POSTS = [
    ("/queues/b/pause", {}),
    ("/queues/b/resume", {}),
    ("/queues/b/groups/g1/pause", {}),
    ("/queues/b/groups/g1/resume", {}),
    ("/queues/b/redrive", {"all": "1"}),
    ("/queues/b/discard", {"all": "1"}),
    ("/queues/b/purge", {"name": "b"}),
]


@pytest.mark.parametrize(("path", "fields"), POSTS)
@pytest.mark.parametrize("api", ["", "/api"])
async def test_nothing_may_be_done_unless_it_is_allowed(
    web: Make, client: redis.Redis, api: str, path: str, fields: dict[str, str]
) -> None:
    dead_batches(client, 3)
    Buffer(client, "b").push(1, group="g1")
    before = everything(client)
    verb = path.rpartition("/")[2].replace("resume", "pause")
    for browser in (web(), web(allow=[one for one in ALL if one != verb])):
        body: dict[str, Any] = (
            {"json": {"all": True, **fields, **({"all": True} if "all" in fields else {})}} if api else {"data": fields}
        )
        answer = await browser.post(api + path, headers={**SAME_ORIGIN, **PROGRAM}, **body)
        assert answer.status_code == 403
        assert f"does not allow {verb}" in answer.text
    assert everything(client) == before


async def test_a_read_only_page_shows_no_act(web: Make, client: redis.Redis) -> None:
    ids = dead_batches(client, 3)
    dead_members(client, b"m")
    Buffer(client, "b").push(1, group="g1")
    paths = [
        "/",
        "/queues/b",
        "/queues/b/dead",
        f"/queues/b/dead/{ids[0]}",
        "/queues/b/groups/g1",
        "/queues/p/dead",
        "/queues/p/members/m",
    ]
    for path in paths:
        page = await web().get(path)
        assert 'method="post"' not in page.text
        assert not re.search("Redrive|Discard|Purge|Resume|Pause<", page.text)
        page = await web(allow=ALL).get(path)
        assert path == "/" or 'method="post"' in page.text


@pytest.mark.parametrize("path", [path for path, _ in POSTS] + ["/queues/b/audit", "/queues/b/stop"])
async def test_no_act_on_get(web: Make, client: redis.Redis, path: str) -> None:
    dead_batches(client, 1)
    before = everything(client)
    answer = await web(allow=ALL).get(path)
    assert answer.status_code == (200 if path.endswith("audit") else 405)
    assert everything(client) == before


@pytest.mark.parametrize(
    ("headers", "path", "allowed"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, "/queues/b/pause", True),
        ({"Sec-Fetch-Site": "cross-site"}, "/queues/b/pause", False),
        ({"Sec-Fetch-Site": "same-site"}, "/queues/b/pause", False),
        ({"Sec-Fetch-Site": "none"}, "/queues/b/pause", False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": BASE}, "/queues/b/pause", False),
        ({"Origin": BASE}, "/queues/b/pause", True),
        ({"Origin": f"{BASE}:80"}, "/queues/b/pause", True),
        ({"Origin": f"{BASE}:81"}, "/queues/b/pause", False),
        ({"Origin": "http://evil.test"}, "/queues/b/pause", False),
        ({"Origin": "null"}, "/queues/b/pause", False),
        ({"Origin": "http://["}, "/queues/b/pause", False),
        ({}, "/queues/b/pause", False),
        (PROGRAM, "/queues/b/pause", False),
        (PROGRAM, "/api/queues/b/pause", True),
        ({}, "/api/queues/b/pause", False),
        ({**PROGRAM, "Sec-Fetch-Site": "cross-site"}, "/api/queues/b/pause", False),
        ({**PROGRAM, "Origin": "http://evil.test"}, "/api/queues/b/pause", False),
    ],
)
async def test_where_an_act_may_come_from(
    web: Make, client: redis.Redis, headers: dict[str, str], path: str, allowed: bool
) -> None:
    buffer: Buffer[int] = Buffer(client, "b")
    buffer.push(1)
    body: dict[str, Any] = {"json": {}} if "api" in path else {"data": {"reason": "x"}}
    answer = await web(allow=ALL).post(path, headers=headers, **body)
    assert (answer.status_code in (200, 303)) == allowed, answer.text
    assert answer.status_code in (200, 303, 403)
    assert buffer.stats().paused == allowed


async def test_pause_and_resume_of_a_queue(web: Make, client: redis.Redis) -> None:
    buffer: Buffer[int] = Buffer(client, "b")
    buffer.push(1)
    browser = web(allow=["pause"])
    page = await submit(browser, "/queues/b", "/queues/b/pause", duration="1h30m", reason="<b>moving</b>")
    assert "b is paused for 1h30m." in page.text
    assert "&lt;b&gt;moving&lt;/b&gt;" in page.text
    stats = buffer.stats()
    assert stats.paused
    assert stats.pause_reason == "<b>moving</b>"
    assert stats.paused_until
    page = await submit(browser, "/queues/b", "/queues/b/resume")
    assert "b is resumed." in page.text
    assert not buffer.stats().paused


async def test_pause_and_resume_of_a_group(web: Make, client: redis.Redis) -> None:
    buffer: Buffer[int] = Buffer(client, "b")
    buffer.push(1, group="a/b\x00")
    path = "/queues/b/groups/a~2Fb~00"
    browser = web(allow=["pause"])
    page = await submit(browser, path, f"{path}/pause", duration="")
    assert "is paused until resumed" in page.text
    assert buffer.groups(state="paused") == {"a/b\x00": 1}
    await submit(browser, path, f"{path}/resume")
    assert buffer.groups() == {"a/b\x00": 1}


@pytest.mark.parametrize("duration", ["soon", "-1", "0", "nan", "inf", "9999999999d"])
async def test_a_duration_that_is_none(web: Make, client: redis.Redis, duration: str) -> None:
    buffer: Buffer[int] = Buffer(client, "b")
    buffer.push(1)
    browser = web(allow=["pause"])
    page = await submit(browser, "/queues/b", "/queues/b/pause", duration=duration)
    assert page.status_code == 400
    assert "duration" in page.text
    assert not buffer.stats().paused


async def test_one_dead_letter_of_several_that_are_ticked(web: Make, client: redis.Redis) -> None:
    """A button beside one means that one."""
    first, second, third = dead_batches(client, 3)
    browser = web(allow=["redrive", "discard"])
    page = await submit(browser, "/queues/b/dead", "/queues/b/redrive", id=[first, second], only=third)
    assert "1 redriven." in page.text
    buffer: Buffer[int] = Buffer(client, "b")
    assert buffer.groups() == {"g2": 1}
    page = await submit(browser, "/queues/b/dead", "/queues/b/discard", id=[first, third])
    assert "1 discarded. 1 had already left." in page.text
    assert [one.id for one in buffer.dead()] == [second]
    page = await submit(browser, "/queues/b/dead", "/queues/b/discard")
    assert page.status_code == 400
    assert "Nothing is chosen" in page.text


async def test_dead_members_with_hostile_names(web: Make, client: redis.Redis) -> None:
    members = [b"a/b", b"\x00", b"\xff", b"", "\u202e".encode()]
    dead_members(client, *members)
    browser = web(allow=["redrive"])
    page = await browser.get("/queues/p/dead")
    ids = re.findall(r'type="checkbox" name="id" value="([^"]*)"', page.text)
    assert len(ids) == 5
    await submit(browser, "/queues/p/dead", "/queues/p/redrive", id=ids)
    queue: PriorityQueue[bytes] = PriorityQueue(client, "p", codec=BYTES)
    assert sorted(one.member for one in queue.peek(9)) == sorted(members)


@pytest.mark.parametrize("verb", ["redrive", "discard"])
@pytest.mark.parametrize("structure", ["buffer", "priority"])
async def test_all_that_is_dead_in_steps(
    web: Make, client: redis.Redis, monkeypatch: pytest.MonkeyPatch, verb: str, structure: str
) -> None:
    monkeypatch.setattr(jobs, "STEP", 7)
    if structure == "buffer":
        ids = dead_batches(client, 30, "q")
        # Six die in the same ms, two of each group, and steps begin within: they go by their ids.
        client.zadd("redisq:{q}:dead", {one: 1_700_000_000_000 + i // 6 for i, one in enumerate(ids)})
        died = [ids.index(name.decode()) for name in client.zrange("redisq:{q}:dead", 0, -1)]  # type: ignore[union-attr]
    else:
        dead_members(client, *(b"m%d" % i for i in range(30)), name="q")
    browser = web(allow=[verb])
    await submit(browser, "/queues/q/dead", f"/queues/q/{verb}", all="1")
    job = await ended(browser, "/api/queues/q")
    assert job == {"id": job["id"], "verb": verb, "state": "done", "done": 30, "total": 30, "error": None}
    queue: Any = Buffer(client, "q") if structure == "buffer" else PriorityQueue(client, "q")
    assert queue.stats().dead == 0
    assert queue.stats().waiting == (30 if verb == "redrive" else 0)
    if verb == "redrive" and structure == "buffer":
        for group in range(3):
            assert queue.peek(f"g{group}", 20) == [i for i in died if i % 3 == group]  # in their old order
    assert f"30 of 30 {verb}" in (await browser.get("/queues/q")).text


@pytest.mark.parametrize("verb", ["redrive", "discard"])
async def test_a_death_at_no_time_is_no_obstacle(
    web: Make, client: redis.Redis, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setattr(jobs, "STEP", 2)
    ids = dead_batches(client, 9)
    client.zadd("redisq:{b}:dead", {ids[0]: float("inf"), ids[1]: float("-inf"), ids[2]: 1e300, ids[3]: 1.5})
    browser = web(allow=[verb])
    await submit(browser, "/queues/b/dead", f"/queues/b/{verb}", all="1")
    job = await ended(browser, "/api/queues/b")
    assert (job["state"], job["done"]) == ("done", 9)
    assert Buffer(client, "b").stats().dead == 0


async def ended(browser: httpx.AsyncClient, path: str) -> dict[str, Any]:
    """Wait for a job to end."""
    while True:
        job: dict[str, Any] | None = (await browser.get(path)).json()["job"]
        assert job
        if job["state"] != "running":
            return job
        await asyncio.sleep(0.01)


async def test_a_job_can_be_stopped_and_there_is_one_at_a_time(
    web: Make, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead_batches(client, 30)
    monkeypatch.setattr(jobs, "STEP", 5)
    going, act = asyncio.Event(), jobs._act
    taken = asyncio.Event()

    async def slow(*args: Any) -> int:
        count = await act(*args)
        taken.set()
        await going.wait()
        return count

    async def at_once(_: jobs.Job) -> None:
        await taken.wait()

    monkeypatch.setattr(jobs, "_act", slow)
    monkeypatch.setattr("redisq.web.acts.briefly", at_once)
    browser = web(allow=["discard", "redrive", "purge"])
    page = await submit(browser, "/queues/b/dead", "/queues/b/discard", all="1")
    assert "<progress" in page.text
    assert 'action="/queues/b/stop"' in page.text
    for path, fields in (("redrive", {"all": "1"}), ("purge", {"name": "b"})):
        other = await browser.post(f"/queues/b/{path}", data=fields, headers=SAME_ORIGIN)
        assert other.status_code == 409
    stopping = asyncio.create_task(browser.post("/queues/b/stop", data={}, headers=SAME_ORIGIN))
    while "stopping" not in (await browser.get("/queues/b")).text:
        await asyncio.sleep(0.01)
    going.set()
    await stopping
    job = await ended(browser, "/api/queues/b")
    assert (job["state"], job["done"]) == ("stopped", 5)
    assert Buffer(client, "b").stats().dead == 25


async def test_who_dies_meanwhile_is_left_alone(
    web: Make, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when what is redriven dies again: else it would go on forever."""
    dead_batches(client, 12)
    monkeypatch.setattr(jobs, "STEP", 5)
    act = jobs._act

    async def deadly(job: jobs.Job, *args: Any) -> int:
        count = await act(job, *args)
        buffer: Buffer[int] = Buffer(client, "b")
        while batch := buffer.reserve(1):
            batch.bury("again")
        return count

    monkeypatch.setattr(jobs, "_act", deadly)
    browser = web(allow=["redrive"])
    await submit(browser, "/queues/b/dead", "/queues/b/redrive", all="1")
    job = await ended(browser, "/api/queues/b")
    assert job["done"] <= 12
    stats = Buffer(client, "b").stats()
    assert (stats.dead, stats.waiting) == (12, 0)


@pytest.mark.parametrize("api", ["", "/api"])
async def test_one_audit_at_a_time(web: Make, client: redis.Redis, monkeypatch: pytest.MonkeyPatch, api: str) -> None:
    """Each walks over all keys of the server, and whoever may look may begin one; they may end it too."""
    for name in ("a", "b", "c"):
        Buffer(client, name).push(1)
    going, at_once, audit = asyncio.Event(), 0, AsyncBuffer.audit
    most = 0

    async def slow(self: AsyncBuffer[bytes], *args: Any, **options: Any) -> Any:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        try:
            await going.wait()
            return await audit(self, *args, **options)
        finally:
            at_once -= 1

    async def no_time(_: jobs.Job) -> None:
        for _turn in range(9):
            await asyncio.sleep(0)

    monkeypatch.setattr(AsyncBuffer, "audit", slow)
    monkeypatch.setattr("redisq.web.pages.briefly", no_time)
    monkeypatch.setattr("redisq.web.api.briefly", no_time)
    browser = web()

    async def state(name: str) -> str:
        return str((await browser.get(f"/api/queues/{name}/audit")).json()["state"])

    async def post(path: str) -> httpx.Response:
        body: dict[str, Any] = {"json": {}} if api else {"data": {}}
        return await browser.post(api + path, headers={**SAME_ORIGIN, **PROGRAM}, follow_redirects=True, **body)

    for name in ("a", "b", "c"):
        assert (await post(f"/queues/{name}/audit")).status_code == 200
    assert [await state(name) for name in "abc"] == ["running", "waiting", "waiting"]
    page = await browser.get("/queues/b/audit")
    assert "one audit runs at a time" in page.text
    assert 'action="/queues/b/audit/stop"' in page.text
    await post("/queues/b/audit/stop")
    await post("/queues/a/audit/stop")
    while await state("c") != "running":
        await asyncio.sleep(0.01)
    assert [await state(name) for name in "ab"] == ["stopped", "stopped"]
    assert "It ended without a result: it was stopped" in bodies((await browser.get("/queues/a/audit")).text)
    going.set()
    while await state("c") != "done":
        await asyncio.sleep(0.01)
    assert most == 1
    if api:
        assert (await post("/queues/c/audit/stop")).status_code == 404


async def test_purge_wants_the_name(web: Make, client: redis.Redis) -> None:
    name = "a\x00b"
    queue = PriorityQueue(client, name)
    queue.push("m")
    browser = web(allow=["purge"])
    page = await submit(browser, "/queues/a~00b", "/queues/a~00b/purge", name="ab")
    assert page.status_code == 400
    assert queue.stats().waiting == 1
    await submit(browser, "/queues/a~00b", "/queues/a~00b/purge", name="a\\x00b")  # as it is shown
    assert queue.stats().waiting == 0


async def test_a_double_click_counts_once(web: Make, client: redis.Redis) -> None:
    ids = dead_batches(client, 2)
    browser = web(allow=["redrive"])
    fields = {"token": "t", "id": ids}
    answers = await asyncio.gather(
        *(browser.post("/queues/b/redrive", data=fields, headers=SAME_ORIGIN) for _ in range(5))
    )
    assert len({one.headers["location"] for one in answers}) == 1
    page = await browser.get(answers[0].headers["location"])
    assert "2 redriven." in page.text
    # The same page may send something else with the same token.
    dead = dead_batches(client, 1)
    answer = await browser.post("/queues/b/redrive", data={"token": "t", "id": dead}, headers=SAME_ORIGIN)
    assert "1 redriven." in (await browser.get(answer.headers["location"])).text


async def test_forms_that_are_none(web: Make, client: redis.Redis) -> None:
    Buffer(client, "b").push(1)
    browser = web(allow=ALL)
    for body, status in (
        ({"json": {}}, 415),
        ({"data": {"name": "x" * 1_100_000}}, 413),
        ({"data": {f"n{i}": "" for i in range(6_000)}}, 400),
        ({"data": {"id": [f"{i}" for i in range(1_001)]}}, 400),
    ):
        answer = await browser.post("/queues/b/discard", headers=SAME_ORIGIN, **body)
        assert answer.status_code == status
    for content in (b"[", b"[]", b"\xff", b"[" * 100_000):
        answer = await browser.post("/api/queues/b/pause", headers=PROGRAM, content=content)
        assert answer.status_code == 400


async def test_a_double_click_begins_one_job(web: Make, client: redis.Redis) -> None:
    """What takes no token in Redis is done once by the app."""
    PriorityQueue(client, "p").push("m")
    browser = web(allow=["purge"])
    fields = {"token": "t", "name": "p"}
    answers = await asyncio.gather(
        *(browser.post("/queues/p/purge", data=fields, headers=SAME_ORIGIN) for _ in range(5))
    )
    assert {one.status_code for one in answers} == {303}
    assert len({one.headers["location"] for one in answers}) == 1


async def test_a_purge_that_is_sent_again_has_the_same_outcome(web: Make, client: redis.Redis) -> None:
    """The queue is gone by then; who presses the button once more, or lost the answer, sees what was done."""
    browser = web(allow=["purge"])
    for name in ("form", "api"):
        PriorityQueue(client, name).push("m")
    form = {"token": "t", "name": "form"}
    first, again = [await browser.post("/queues/form/purge", data=form, headers=SAME_ORIGIN) for _ in range(2)]
    assert not client.exists("redisq:{form}:meta")
    assert (again.status_code, again.headers["location"]) == (303, first.headers["location"])
    document = {"token": "t", "name": "api"}
    one, other = [await browser.post("/api/queues/api/purge", headers=PROGRAM, json=document) for _ in range(2)]
    assert (other.status_code, other.json()) == (200, one.json())
    anew = await browser.post("/api/queues/api/purge", headers=PROGRAM, json={**document, "token": "another"})
    assert anew.status_code == 404
