"""What the pages show of queues that any language may have filled."""

from __future__ import annotations

import html
import json
import re

import httpx
import pytest
import redis
import redis.asyncio
import valkey.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from starlette.applications import Starlette
from starlette.routing import Mount

from redisq import BYTES, Buffer, InvalidArgument, PriorityQueue, Rate
from redisq.embedded import Server
from redisq.web import app, sampler
from redisq.web.names import to_segment
from tests.web.conftest import BASE, Make, bodies, tab

HOSTILE = [
    b"a/b",
    b"n\x00ul",
    b"\xff\xfe",
    "\u202egpj.exe".encode(),
    b" sp ",
    b"..",
    b"<script>alert(1)</script>",
    b"~41",
]


def text_name(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


async def test_the_overview_shows_both_structures(web: Make, client: redis.Redis) -> None:
    mails: Buffer[str] = Buffer(client, "mails", rates=[Rate(50, 60)])
    mails.push("a", "b", group="eu")
    mails.push("c", group="us")
    mails.reserve(1)
    index = PriorityQueue(client, "index")
    index.push_many({"x": 1, "y": 2, "z": 3})
    dead = index.reserve()
    assert dead
    dead.bury("broken")
    index.pause(reason="maintenance")
    page = await web().get("/")
    assert page.status_code == 200
    rows = [bodies(row) for row in re.findall(r'<tr id="q-.*?</tr>', page.text, re.DOTALL)]
    assert [row.split()[:2] for row in rows] == [["index", "priority,"], ["mails", "buffer"]]
    assert "paused" in rows[0]
    assert "1 in 1m" in rows[1]
    assert '<td class="dead" data-label="Dead"><a id="d-index" href="/queues/index/dead">1</a></td>' in page.text
    assert page.text.count('<td class="waiting" data-label="Waiting">2</td>') == 2
    assert "appendonly no" in page.text  # what a restart of this server would lose


@pytest.mark.parametrize("sort", ["waiting", "oldest", "leased", "delayed", "dead", "done", "name"])
async def test_the_overview_is_sorted_by_any_column(web: Make, client: redis.Redis, sort: str) -> None:
    for name, count in (("a", 1), ("b", 3), ("c", 2)):
        queue = PriorityQueue(client, name)
        queue.push_many((f"{name}{i}", 0) for i in range(count))
    page = await web().get(f"/?sort={sort}")
    order = re.findall(r'<tr id="q-(\w)"', page.text)
    assert order == {"waiting": ["b", "c", "a"]}.get(sort, ["a", "b", "c"])


async def test_a_column_that_does_not_exist(web: Make) -> None:
    page = await web().get("/?sort=<script>")
    assert page.status_code == 400
    assert "<script>" not in page.text


async def test_nothing_is_there_yet(web: Make) -> None:
    assert "No queues yet" in (await web().get("/")).text
    assert "was told to show" in (await web(queues=["a"]).get("/")).text


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_groups_have_working_links(web: Make, client: redis.Redis, name: bytes) -> None:
    queue: Buffer[bytes] = Buffer(client, text_name(b"q " + name), codec=BYTES)
    queue.push(b"the item", group=text_name(name))
    browser = web()
    overview = await browser.get("/")
    link = re.search(r'<a id="a-[^"]*" href="([^"]*)"', overview.text)
    assert link
    groups = await browser.get(html.unescape(link[1]))
    assert groups.status_code == 200
    found = re.search(r'<th scope="row"><a href="([^"]*)">', groups.text)
    assert found
    page = await browser.get(html.unescape(found[1]))
    assert page.status_code == 200
    assert "the item" in page.text
    for one in (overview, groups, page):
        assert "<script>alert" not in one.text
        assert not re.search("[\x00\u202e]", one.text)


@pytest.mark.parametrize("name", [*HOSTILE, b""])
async def test_hostile_members_have_working_links(web: Make, client: redis.Redis, name: bytes) -> None:
    queue: PriorityQueue[bytes] = PriorityQueue(client, "q", codec=BYTES, payload_codec=BYTES)
    queue.push(name, 3, payload=b"the payload")
    browser = web()
    members = await browser.get("/queues/q")
    found = re.search(r'<th scope="row"><a href="([^"]*)">', members.text)
    assert found
    page = await browser.get(html.unescape(found[1]))
    assert page.status_code == 200
    assert "the payload" in page.text
    assert "the next to leave" in page.text
    assert "<script>alert" not in members.text + page.text


@pytest.mark.parametrize("name", HOSTILE)
async def test_what_is_typed_is_found(web: Make, client: redis.Redis, name: bytes) -> None:
    """As it is shown on the page."""
    Buffer(client, "q", codec=BYTES).push(b"the item", group=text_name(name))
    browser = web()
    page = await browser.get("/queues/q")
    shown = re.search(r'<th scope="row"><a href="[^"]*">(.*?)</a>', page.text)
    assert shown
    typed = html.unescape(re.sub(r"<[^>]*>", "", shown[1]))
    found = await browser.get("/queues/q/find", params={"name": typed}, follow_redirects=True)
    assert found.status_code == 200
    assert "the item" in found.text


async def test_groups_are_paged_by_length(web: Make, client: redis.Redis) -> None:
    queue: Buffer[int] = Buffer(client, "q")
    for group in range(120):
        queue.push(*range(group + 1), group=f"g{group}")
    browser = web()
    seen: list[str] = []
    path: str | None = "/queues/q"
    while path:
        page = await browser.get(path)
        seen += re.findall(r'<a href="/queues/q/groups/(\w+)">', page.text)
        following = re.search(r'<a href="([^"]*)" rel="next"', page.text)
        path = html.unescape(following[1]) if following else None
    assert seen == [f"g{group}" for group in reversed(range(120))]


async def test_groups_by_state(web: Make, client: redis.Redis) -> None:
    queue: Buffer[int] = Buffer(client, "q", ordered=True)
    for group in ("paused", "busy", "free"):
        queue.push(1, 2, 3, group=group)
    queue.pause_group("paused", 600)
    batch = queue.reserve(1)
    assert batch
    held = batch.group
    assert held
    free = ({"busy", "free"} - {held}).pop()
    browser = web()
    for state, group in (("waiting", free), ("busy", held), ("paused", "paused")):
        page = await browser.get(f"/queues/q?state={state}")
        assert re.findall(r'<a href="/queues/q/groups/(\w+)">', page.text) == [group]
        shown = await browser.get(f"/queues/q/groups/{group}")
        assert f'<span class="tag {state}">{state}</span>' in shown.text
    assert batch.id in (await browser.get(f"/queues/q/groups/{held}")).text


async def test_items_of_a_group_are_in_order(web: Make, client: redis.Redis) -> None:
    queue: Buffer[bytes] = Buffer(client, "q", codec=BYTES)
    long = b"x" * 300_000
    queue.push(*(b"item %d." % i for i in range(70)), long, long, long, group="g")
    browser = web()
    seen: list[str] = []
    path: str | None = "/queues/q/groups/g"
    while path:
        page = await browser.get(path)
        seen += re.findall(r"<pre[^>]*>(.*?)</pre>", page.text, re.DOTALL)
        following = re.search(r'<a href="([^"]*)" rel="next"', page.text)
        path = html.unescape(following[1]) if following else None
    assert seen == [*(f"item {i}." for i in range(70)), *[long.decode()[:64_000]] * 3]


async def test_a_member_in_each_state(web: Make, client: redis.Redis) -> None:
    queue = PriorityQueue(client, "q")
    queue.push("dead", -5, payload={"n": 1})
    batch = queue.reserve()
    assert batch
    batch.bury("no such listing")
    queue.push("leased", -4)
    assert queue.reserve()
    queue.push("leased", -4)
    queue.push("late", 7, delay=600)
    queue.push("ready", 9)
    queue.push("first", 1)
    browser = web()
    for member, status, words in (
        ("dead", 200, ["dead", "no such listing", "&#34;n&#34;: 1", "-5"]),
        ("leased", 200, ["leased", "It was pushed again"]),
        ("late", 200, ["delayed", "Due", "7"]),
        ("ready", 200, ["ready", "<dd>2</dd>", "9"]),
        ("gone", 404, ["absent", "Not in this queue"]),
    ):
        page = await browser.get("/queues/q/find", params={"name": member}, follow_redirects=True)
        assert page.status_code == status
        for word in words:
            assert word in page.text, (member, word)


async def test_what_is_leased_says_who_holds_it(web: Make, client: redis.Redis) -> None:
    buffer: Buffer[str] = Buffer(client, "b")
    buffer.push("the item", group="eu")
    batch = buffer.reserve(holder="worker <7>", lease=500)
    assert batch
    queue = PriorityQueue(client, "p")
    queue.push("the member", 2, payload="the load")
    assert queue.reserve(holder="worker 8")
    browser = web()
    page = await browser.get("/queues/b/leased")
    for word in ("worker &lt;7&gt;", "the item", batch.id, "in 8m", "eu", "Held for at least"):
        assert word in page.text
    page = await browser.get("/queues/p/leased")
    for word in ("worker 8", "the member", "the load", "priority 2", "attempt 1"):
        assert word in page.text


async def test_what_is_delayed_says_why(web: Make, client: redis.Redis) -> None:
    buffer: Buffer[str] = Buffer(client, "b")
    buffer.push("the item")
    batch = buffer.reserve()
    assert batch
    batch.release(delay=500, reason="<img src=x onerror=alert(1)>")
    page = await web().get("/queues/b/delayed")
    assert "&lt;img src=x onerror=alert(1)&gt;" in page.text
    assert "<img" not in page.text
    assert "in 8m" in page.text


@pytest.mark.parametrize("order", ["newest", "oldest"])
@pytest.mark.parametrize("structure", ["buffer", "priority"])
async def test_dead_letters_are_paged(web: Make, client: redis.Redis, structure: str, order: str) -> None:
    if structure == "buffer":
        buffer: Buffer[int] = Buffer(client, "q")
        for i in range(120):
            buffer.push(i)
            batch = buffer.reserve()
            assert batch
            batch.bury(f"reason {i}.")
    else:
        queue = PriorityQueue(client, "q")
        for i in range(120):
            queue.push(f"m{i}", payload=i)
            batch_of = queue.reserve()
            assert batch_of
            batch_of.bury(f"reason {i}.")
    browser = web()
    seen: list[str] = []
    path: str | None = f"/queues/q/dead?order={order}"
    pages = 0
    while path:
        page = await browser.get(path)
        pages += 1
        seen += re.findall(r'<p class="reason"><bdi class="name">(.*?)</bdi></p>', page.text)
        following = re.search(r'<a href="([^"]*)" rel="next"', page.text)
        path = html.unescape(following[1]) if following else None
    assert pages == 3
    assert sorted(seen) == sorted(f"reason {i}." for i in range(120))
    # Some die in the same ms, and then go by their ids: the first and the last page are told apart by their reasons.
    assert ("reason 0." in seen[:50]) == (order == "oldest")


async def test_a_large_dead_batch_is_shown_in_part_and_whole_behind_a_link(web: Make, client: redis.Redis) -> None:
    buffer: Buffer[int] = Buffer(client, "q")
    buffer.push(*range(120), group="g")
    batch = buffer.reserve()
    assert batch
    batch.bury("too many")
    browser = web()
    page = await browser.get("/queues/q/dead")
    assert "First 50 of 120 items" in page.text
    assert len(re.findall("<pre", page.text)) == 50
    path: str | None = f"/queues/q/dead/{batch.id}"
    assert f'href="{path}"' in page.text
    seen: list[int] = []
    while path:
        page = await browser.get(path)
        seen += [int(one) for one in re.findall(r"<pre[^>]*>(\d+)</pre>", page.text)]
        following = re.search(r'<a href="([^"]*)" rel="next"', page.text)
        path = html.unescape(following[1]) if following else None
    assert seen == list(range(120))
    assert (await browser.get("/queues/q/dead/nope")).status_code == 404


async def test_going_on_after_what_has_left_says_so(web: Make, client: redis.Redis) -> None:
    PriorityQueue(client, "q").push("a")
    page = await web().get("/queues/q/dead?after=gone")
    assert "has left meanwhile" in page.text


async def test_an_audit_is_made_on_demand(web: Make, client: redis.Redis) -> None:
    Buffer(client, "q").push(1, 2)
    client.zadd("redisq:{q}:groups", {"default": 7})
    browser = web()
    assert "Not audited yet" in (await browser.get("/queues/q/audit")).text
    page = await browser.post(
        "/queues/q/audit", data={}, headers={"Sec-Fetch-Site": "same-origin"}, follow_redirects=True
    )
    assert "1 finding in" in page.text
    assert client.zscore("redisq:{q}:groups", "default") == 7  # it repairs nothing


async def test_a_queue_of_another_layout_says_so(web: Make, client: redis.Redis) -> None:
    client.hset("redisq:{old}:meta", "queue", "1 buffer")
    browser = web()
    assert "unreadable" in (await browser.get("/")).text
    page = await browser.get("/queues/old")
    assert page.status_code == 409
    assert "layout 1" in page.text


@pytest.mark.parametrize(
    "path", ["/queues/nope", "/queues/~7B~7D", "/queues/~_", "/queues/q/groups/~_", "/queues/q/members/x", "/nope"]
)
async def test_what_is_not_there(web: Make, client: redis.Redis, path: str) -> None:
    Buffer(client, "q").push(1)
    assert (await web().get(path)).status_code == 404


async def test_only_the_queues_that_were_named_can_be_reached(web: Make, client: redis.Redis) -> None:
    for name in ("mine", "theirs"):
        PriorityQueue(client, name).push("a")
    browser = web(queues=["mine"], allow=["purge", "pause"])
    overview = await browser.get("/")
    assert "mine" in overview.text
    assert "theirs" not in overview.text
    assert (await browser.get("/queues/mine")).status_code == 200
    same = {"Sec-Fetch-Site": "same-origin"}
    for path in ("", "/dead", "/leased", "/audit", "/members/a", "/live"):
        assert (await browser.get(f"/queues/theirs{path}")).status_code == 404
        assert (await browser.get(f"/api/queues/theirs{path}")).status_code == 404
    for path in ("/queues/theirs/purge", "/api/queues/theirs/purge", "/queues/theirs/pause"):
        body = {"content": json.dumps({"name": "theirs"})} if "api" in path else {"data": {"name": "theirs"}}
        assert (await browser.post(path, headers=same, **body)).status_code == 404
    assert PriorityQueue(client, "theirs").stats().waiting == 1


async def test_it_can_be_mounted_anywhere(web: Make, client: redis.Redis) -> None:
    Buffer(client, "mails").push("the item", group="eu")
    browser = web(wrapped=lambda one: Starlette(routes=[Mount("/ops/queues", one)]), allow=["pause"])
    page = await browser.get("/ops/queues/")
    links = re.findall(r'(?:href|src|action|data-live)="([^"]*)"', page.text)
    assert links
    assert all(link.startswith(("/ops/queues/", "#")) for link in links)
    for link in {one.partition("?")[0] for one in links if not one.startswith("#") and "live" not in one}:
        assert (await browser.get(link)).status_code == 200, link
    group = await browser.get("/ops/queues/queues/mails/groups/eu")
    assert "the item" in group.text
    done = await browser.post(
        "/ops/queues/queues/mails/pause", data={"duration": "1h"}, headers={"Sec-Fetch-Site": "same-origin"}
    )
    assert done.headers["location"].startswith("/ops/queues/queues/mails?outcome=")
    assert (await browser.get("/ops/queues/healthz")).text == "ok\n"


async def test_while_redis_is_away_the_last_numbers_stay(
    server: Server, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampler, "TICK", 0.0)
    PriorityQueue(client, "index").push_many((f"m{i}", 0) for i in range(7))
    with Server(server.binary) as private:
        away = redis.asyncio.Redis(unix_socket_path=private.socket, retry=Retry(NoBackoff(), 0))
        with private.client() as other:
            PriorityQueue(other, "index").push_many((f"m{i}", 0) for i in range(7))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app(away)), base_url=BASE) as browser:
            assert "does not answer" not in (await browser.get("/")).text
            private.stop()
            page = await browser.get("/")
            assert page.status_code == 200
            assert "Redis does not answer" in page.text
            assert "What you see was read" in page.text
            assert '<td class="waiting" data-label="Waiting">7</td>' in page.text
            assert (await browser.get("/queues/index")).status_code == 503
            health = await browser.get("/healthz")
            assert (health.status_code, health.text) == (503, "unavailable\n")
            alive = await browser.get("/livez")  # else an outage would restart all dashboards
            assert (alive.status_code, alive.text) == (200, "ok\n")
        await away.aclose()


async def test_a_blocking_client_is_refused_at_once(client: redis.Redis) -> None:
    with pytest.raises(InvalidArgument, match=r"redisq\.asyncio|blocking"):
        app(client)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [{"allow": ["delete"]}, {"allow": "pause"}, {"password": ""}, {"prefix": "{"}, {"queues": [""]}, {"queues": ["{"]}],
)
async def test_bad_arguments_are_refused_at_once(aclient: redis.asyncio.Redis, options: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument):
        app(aclient, **options)  # type: ignore[arg-type]


async def test_names_in_titles_and_links_of_a_batch(web: Make, client: redis.Redis) -> None:
    name = 'x"><script>alert(1)</script>'
    buffer: Buffer[bytes] = Buffer(client, name, codec=BYTES)
    buffer.push(b"</pre><script>alert(1)</script>", group=name)
    batch = buffer.reserve(holder=name)
    assert batch
    batch.bury(name)
    browser = web(allow=["redrive", "discard", "pause", "purge"])
    for path in ("", "/leased", "/delayed", "/dead", f"/dead/{batch.id}", "/audit"):
        page = await browser.get(f"/queues/{to_segment(name)}{path}")
        assert page.status_code == 200
        assert "<script>alert" not in page.text


@pytest.mark.parametrize("options", [{"protocol": 3}, {"decode_responses": True}, {"single_connection_client": True}])
@pytest.mark.parametrize("library", ["redis", "valkey"])
async def test_any_asyncio_client(
    server: Server, client: redis.Redis, library: str, options: dict[str, object]
) -> None:
    """Whatever its settings, and its protocol."""
    buffer: Buffer[bytes] = Buffer(client, "b", codec=BYTES, rates=[Rate(9, 60)])
    buffer.push(b"\xff the item", group="\udcff")
    buffer.push(b"the other", group="g")
    batch = buffer.reserve()
    assert batch
    batch.bury("the reason")
    queue = PriorityQueue(client, "p")
    queue.push("m", 7, payload="the load")
    queue.push("late", 5, delay=500)
    made = (redis.asyncio.Redis if library == "redis" else valkey.asyncio.Valkey)(
        unix_socket_path=server.socket,
        **options,  # type: ignore[arg-type]
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app(made)), base_url=BASE) as browser:
        for path, words in (
            ("/", ["1 in 1m", "appendonly no"]),
            ("/queues/b", ["Groups"]),
            ("/queues/b/dead", ["the reason"]),
            ("/queues/b/leased", ["Nothing is leased"]),
            ("/queues/p", ["the load", '<td class="n" title="7">7</td>']),
            ("/queues/p/members/m", ["<dd>7</dd>", "the load"]),
            ("/queues/p/delayed", ["late", "in 8m"]),
        ):
            page = await browser.get(path)
            assert page.status_code == 200
            for word in words:
                assert word in page.text, (path, word)
    await made.aclose()


async def test_rows_that_are_as_they_were_are_not_sent_again(
    aclient: redis.asyncio.Redis, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else 200 queues would be some 250 kB for each tab, every few seconds."""
    monkeypatch.setattr(sampler, "TICK", 0.0)
    for i in range(30):
        PriorityQueue(client, f"q{i}").push_many((f"m{j}", j) for j in range(9))
    async with tab(app(aclient), "/live") as parts:
        while "all the time" not in (whole := await parts.get()):  # until their lines can be drawn
            pass
        assert whole.count('class="waiting" data-label') == 30
        while (part := await parts.get()).count('class="waiting" data-label'):
            pass
        assert part.count('<tr id="q-q') == 30
        assert len(part) < len(whole) / 4
        PriorityQueue(client, "q7").push("more")
        while not (part := await parts.get()).count('class="waiting" data-label'):
            pass
        assert re.findall(r'class="waiting" data-label="Waiting">(\d+)<', part) == ["10"]
