"""Everything that may be done, through the pages; and nothing that may not, from there or from elsewhere."""

from __future__ import annotations

import html
from typing import Any
from urllib.parse import quote

import pytest
import redis
from playwright.async_api import Page, expect
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route

from redisq import Buffer, PriorityQueue
from tests.web.browser.conftest import NewContext, Serve, Watch
from tests.web.test_acts import ALL, POSTS, dead_batches, dead_members, everything
from tools.browser import serving


async def open_page(new_context: NewContext, scripts: bool) -> Page:
    context = await new_context(java_script_enabled=scripts)
    page: Page = await context.new_page()
    return page


@pytest.mark.parametrize("verb", ["redrive", "discard"])
@pytest.mark.parametrize("scripts", [True, False])
async def test_redrive_and_discard_one_several_and_all(
    client: redis.Redis, serve: Serve, new_context: NewContext, watch: Watch, verb: str, scripts: bool
) -> None:
    ids = dead_batches(client, 6)
    dead_members(client, b"a", b"b")
    buffer: Buffer[int] = Buffer(client, "b")
    queue: PriorityQueue[str] = PriorityQueue(client, "p")
    url = serve(allow=ALL)
    page = await open_page(new_context, scripts)
    title, done = verb.capitalize(), {"redrive": "redriven", "discard": "discarded"}[verb]

    async def says(text: str) -> None:
        await expect(page.locator(".notice[role=status]")).to_have_text(text)

    await page.goto(f"{url}/queues/b/dead")
    await page.get_by_role("button", name=f"{title} {ids[0]}", exact=True).click()
    await says(f"1 {done}.")
    for one in ids[1:3]:
        await page.get_by_label(f"Choose {one}").check()
    await page.get_by_role("button", name=f"{title} selected").click()
    await says(f"2 {done}.")
    assert {one.id for one in buffer.dead()} == set(ids[3:])

    await page.get_by_role("link", name=ids[3]).click()
    await page.get_by_role("button", name=title, exact=True).click()
    await says(f"1 {done}.")
    await page.locator("summary", has_text=f"{title} all").click()
    await page.get_by_role("button", name=f"{title} 2", exact=True).click()
    await says(f"2 of 2 {done}.")
    await expect(page.locator("main")).to_contain_text("Nothing is dead")
    assert buffer.stats().dead == 0
    assert buffer.stats().waiting == (6 if verb == "redrive" else 0)

    await page.goto(f"{url}/queues/p/members/a")
    await page.get_by_role("button", name=title, exact=True).click()
    await says(f"1 {done}.")
    if scripts:
        await page.get_by_label("All on this page").check()
    else:
        await page.get_by_label("Choose b").check()
    await page.get_by_role("button", name=f"{title} selected").click()
    await says(f"1 {done}.")
    assert queue.stats().dead == 0
    assert queue.stats().waiting == (2 if verb == "redrive" else 0)
    watch.assert_clean()


@pytest.mark.parametrize("scripts", [True, False])
async def test_pause_and_resume(
    client: redis.Redis, serve: Serve, new_context: NewContext, watch: Watch, scripts: bool
) -> None:
    buffer: Buffer[str] = Buffer(client, "b")
    buffer.push("x", group="eu")
    page = await open_page(new_context, scripts)
    await page.goto(f"{serve(allow=['pause'])}/queues/b")
    await page.locator("summary", has_text="Pause").click()
    await page.get_by_label("For how long").fill("1h30m")
    await page.get_by_label("Reason").fill('<b title="x">moving</b>')
    await page.get_by_role("button", name="Pause the queue").click()
    await expect(page.locator(".notice[role=status]")).to_have_text("b is paused for 1h30m.")
    await expect(page.locator(".alert.paused")).to_contain_text('<b title="x">moving</b>')
    stats = buffer.stats()
    assert (stats.paused, stats.pause_reason) == (True, '<b title="x">moving</b>')
    await page.get_by_role("button", name="Resume").click()
    await expect(page.locator(".notice[role=status]")).to_have_text("b is resumed.")
    assert not buffer.stats().paused

    await page.get_by_role("link", name="eu", exact=True).click()
    await page.locator("summary", has_text="Pause the group").click()
    await page.get_by_role("button", name="Pause the group").click()
    await expect(page.locator(".notice[role=status]")).to_have_text("Group eu is paused until resumed.")
    assert buffer.groups(state="paused") == {"eu": 1}
    await page.get_by_role("button", name="Resume the group").click()
    await expect(page.locator(".notice[role=status]")).to_have_text("Group eu is resumed.")
    assert buffer.groups() == {"eu": 1}
    watch.assert_clean()


@pytest.mark.parametrize("scripts", [True, False])
async def test_purge_after_typing_the_name(
    client: redis.Redis, serve: Serve, new_context: NewContext, watch: Watch, scripts: bool
) -> None:
    name = "mails/eu"
    buffer: Buffer[str] = Buffer(client, name)
    buffer.push("x")
    page = await open_page(new_context, scripts)
    await page.goto(f"{serve(allow=['purge'])}/queues/mails~2Feu")
    purge = page.get_by_role("button", name="Purge the queue")
    typed = page.get_by_label("to confirm")
    await page.locator("summary", has_text="Purge").click()
    await purge.click()  # the browser wants something to be typed
    assert await typed.evaluate("one => one.matches(':invalid')") if scripts else True
    await typed.fill("mails")
    await purge.click()
    await expect(page.locator("main")).to_contain_text("That is not the name of the queue")
    assert buffer.stats().waiting == 1
    await page.go_back()
    await page.locator("summary", has_text="Purge").click()
    await typed.fill(name)
    await purge.click()
    await expect(page.locator("main")).to_contain_text("mails/eu: 1 purged")
    await expect(page.locator("h1")).to_contain_text("Queues")  # all of them: its own page is gone
    assert buffer.stats().waiting == 0
    watch.said = [one for one in watch.said if "400" not in one]  # Chromium tells of the wrong name
    watch.assert_clean()


async def test_a_read_only_page_has_nothing_to_click(
    client: redis.Redis, serve: Serve, page: Page, watch: Watch
) -> None:
    ids = dead_batches(client, 2)
    dead_members(client, b"m")
    Buffer(client, "b").push(1, group="g1")
    url = serve()
    paths = ["", "/queues/b", "/queues/b/dead", f"/queues/b/dead/{ids[0]}", "/queues/b/groups/g1", "/queues/b/audit"]
    for path in [*paths, "/queues/p", "/queues/p/dead", "/queues/p/members/m"]:
        await page.goto(url + path)
        names = await page.locator("button, summary, input").evaluate_all(
            "found => found.map((one) => one.textContent.trim().split(' ')[0] || one.name)"
        )
        assert set(names) <= {"Find", "name", "Copy", "Audit", "Items", "First", "Payload"}, path
    watch.assert_clean()


ATTACKS = """
<!doctype html><title>Elsewhere</title>
{forms}
<iframe name="frame"></iframe>
<script>
    window.refused = Promise.all([...document.forms].map((form) =>
        fetch(form.action, {{ method: "POST", mode: "no-cors", credentials: "include",
                             body: new URLSearchParams(new FormData(form)) }}).catch(() => {{}})))
</script>
"""


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"], ids=["another port", "another host"])
async def test_an_act_from_elsewhere_changes_nothing(
    client: redis.Redis, serve: Serve, new_context: NewContext, watch: Watch, host: str
) -> None:
    dead_batches(client, 3)
    Buffer(client, "b").push(1, group="g1")
    before = everything(client)
    url = serve(allow=ALL, password="secret")
    context = await new_context(http_credentials={"username": "me", "password": "secret"})
    page = await context.new_page()
    await page.goto(f"{url}/queues/b")
    await expect(page.locator("h1")).to_contain_text("b")  # the browser knows the password from now on

    posts: list[tuple[str, dict[str, Any]]] = [*POSTS, ("/queues/b/audit", {}), ("/queues/b/stop", {})]
    forms = "".join(
        f'<form method="post" action="{url}{path}">'
        + "".join(f'<input name="{name}" value="{html.escape(value)}">' for name, value in fields.items())
        + "</form>"
        for path, fields in posts
    )
    with serving(Starlette(routes=[Route("/", lambda _: HTMLResponse(ATTACKS.format(forms=forms)))])) as other:
        other = other.replace("127.0.0.1", host)
        watch.origins.add(other)
        for number in range(len(posts)):
            await page.goto(other)
            await page.evaluate("window.refused")
            async with page.expect_navigation():
                await page.evaluate(f"document.forms[{number}].submit()")
            assert page.url.startswith(url)
            await expect(page.locator("body")).to_contain_text("This came from another site")
    # From a page without an origin.
    await page.goto(f"data:text/html,{quote(forms)}")
    async with page.expect_navigation():
        await page.evaluate("document.forms[0].submit()")
    await expect(page.locator("body")).to_contain_text("This came from another site")
    await page.goto("about:blank")
    assert everything(client) == before
    assert watch.ran == []
