"""What a page shows in part, or as hex, can be had byte for byte."""

from __future__ import annotations

import base64
import html
import re

import httpx
import pytest
import redis

from redisq import BYTES, Buffer, PriorityQueue
from redisq.web.names import to_segment
from tests.web.conftest import Make

TEN_MEGABYTES = b"\x00\xff\r\n" * 2_500_000
LONG_TEXT = ("\u00e9<script>" * 20_000).encode()


def links(page: httpx.Response) -> list[str]:
    """Return where a page says that payloads are."""
    return [html.unescape(one) for one in re.findall(r'href="([^"]*)" download', page.text)]


async def test_ten_megabytes_are_a_small_page_and_a_download(web: Make, client: redis.Redis) -> None:
    buffer: Buffer[bytes] = Buffer(client, "b", codec=BYTES)
    queue: PriorityQueue[bytes] = PriorityQueue(client, "p", codec=BYTES, payload_codec=BYTES)
    buffer.push(TEN_MEGABYTES, group="g/\udcff")
    queue.push(b"m/\xff", 1, payload=TEN_MEGABYTES)
    batch, members = buffer.reserve(), queue.reserve()
    assert batch
    assert members
    batch.bury("bad")
    members.bury("bad")
    buffer.push(TEN_MEGABYTES, group="g/\udcff")
    queue.push(b"ready", 1, payload=TEN_MEGABYTES)
    browser = web()
    group, member = to_segment("g/\udcff"), to_segment(b"m/\xff")
    for path in (
        f"/queues/b/groups/{group}",
        "/queues/b/dead",
        f"/queues/b/dead/{batch.id}",
        "/queues/p/dead",
        "/queues/p",
        f"/queues/p/members/{member}",
    ):
        page = await browser.get(path)
        assert page.status_code == 200
        assert len(page.content) < 100_000
        assert "bytes, 10.0 MB; the first 4.0 kB are shown" in page.text
        assert "data-copy" not in page.text
        answer = await browser.get(links(page)[0])
        assert answer.content == TEN_MEGABYTES
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-disposition"].startswith("attachment")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert int(answer.headers["content-length"]) == len(TEN_MEGABYTES)


async def test_a_long_text_is_shown_in_part_and_copied_whole(web: Make, client: redis.Redis) -> None:
    Buffer(client, "b", codec=BYTES).push(LONG_TEXT, b"short", group="g")
    browser = web()
    page = await browser.get("/queues/b/groups/g")
    assert "text, 200.0 kB; the first 64.0 kB are shown" in page.text
    copied = re.findall(r'data-copy="([^"]*)"', page.text)
    assert [base64.b64decode(one) for one in copied] == [LONG_TEXT, b"short"]
    assert "<script>" not in page.text.replace("<script src", "")
    (link,) = links(page)  # what is shown whole needs none
    assert (await browser.get(link)).content == LONG_TEXT


async def test_an_item_that_has_moved_is_not_taken_for_another(web: Make, client: redis.Redis) -> None:
    buffer: Buffer[bytes] = Buffer(client, "b", codec=BYTES)
    buffer.push(b"\xff first", b"\xff second", group="g")
    browser = web()
    first, second = links(await browser.get("/queues/b/groups/g"))
    assert (await browser.get(second)).content == b"\xff second"
    assert buffer.reserve(1)
    answer = await browser.get(first)
    assert answer.status_code == 409
    assert "Something else is in its place" in answer.text
    assert (await browser.get(second)).status_code == 404
    assert (await browser.get(first.partition("?")[0])).content == b"\xff second"


async def test_programs_get_every_byte(web: Make, client: redis.Redis) -> None:
    buffer: Buffer[bytes] = Buffer(client, "b", codec=BYTES)
    queue: PriorityQueue[bytes] = PriorityQueue(client, "p", codec=BYTES, payload_codec=BYTES)
    buffer.push(b"\xff", b"\\xff", "\u00e9\x00".encode(), group="g")
    for member, payload in ((b"a", b"\xfe"), (b"b", b"\\xfe")):
        queue.push(member, 1, payload=payload)
    browser = web()
    given = [{"base64": "/w=="}, "\\xff", "\u00e9\x00"]
    assert (await browser.get("/api/queues/b/groups/g")).json()["items"] == given
    batch = buffer.reserve(3)
    assert batch
    assert (await browser.get("/api/queues/b/leased")).json()["leased"][0]["first"] == given
    assert (await browser.get(f"/api/queues/b/leased/{batch.id}")).json()["items"] == given
    members = (await browser.get("/api/queues/p/members")).json()["members"]
    assert [one["payload"] for one in members] == [{"base64": "/g=="}, "\\xfe"]
    assert (await browser.get("/api/queues/p/members/a")).json()["payload"] == {"base64": "/g=="}
    assert (await browser.get(f"/api/queues/b/leased/{batch.id}/items/1")).content == b"\xff"
    assert (await browser.get("/api/queues/p/members/a/payload")).content == b"\xfe"


@pytest.mark.parametrize(
    "path",
    [
        "b/groups/g/items/0",
        "b/groups/g/items/2",
        "b/groups/g/items/-1",
        "b/groups/g/items/\u0661",
        "b/groups/g/items/99999999999",
        "b/dead/x/items/1",
        "b/members/m/payload",
        "p/groups/g/items/1",
        "p/leased/x/items/1",
        "p/members/none/payload",
        "p/members/m/payload",
    ],
)
@pytest.mark.parametrize("api", ["", "/api"])
async def test_what_is_not_there(web: Make, client: redis.Redis, api: str, path: str) -> None:
    Buffer(client, "b").push(1, group="g")
    PriorityQueue(client, "p").push("m")
    answer = await web().get(f"{api}/queues/{path}")
    assert answer.status_code == 404
    assert "Not Found" not in answer.text.replace("Not found", "")


async def test_no_other_queue_and_no_stranger(web: Make, client: redis.Redis) -> None:
    for name in ("mine", "theirs"):
        Buffer(client, name).push(1, group="g")
    assert (await web(queues=["mine"]).get("/queues/theirs/groups/g/items/1")).status_code == 404
    assert (await web(password="secret").get("/queues/mine/groups/g/items/1")).status_code == 401
    assert (await web(queues=["mine"]).get("/queues/mine/groups/g/items/1")).content == b"1"
