"""Pages that are open: what is new appears on them by itself."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import redis
from playwright.async_api import BrowserContext, Locator, Page, expect

from redisq import Buffer
from redisq.embedded import Server
from tests.web.browser.conftest import Serve, Watch
from tests.web.browser.pages import live
from tools.browser import dashboard


def figure(page: Page, name: str) -> Locator:
    """Return a number at the top of a page."""
    return page.locator(f".totals div:has(dt:text-is('{name}')) dd")


async def test_a_push_appears_in_two_tabs_without_a_reload(
    client: redis.Redis, serve: Serve, context: BrowserContext, watch: Watch
) -> None:
    buffer: Buffer[str] = Buffer(client, "mails")
    buffer.push("x", group="eu")
    url = serve(allow=["pause"])
    overview, queue = await context.new_page(), await context.new_page()
    await overview.goto(url)
    await queue.goto(f"{url}/queues/mails")
    for page in (overview, queue):
        await live(page)
        await page.evaluate("window.unloaded = false; addEventListener('beforeunload', () => (window.unloaded = true))")
    # What somebody is about to do stays as it is.
    await queue.locator("summary", has_text="Pause").click()
    await queue.get_by_label("Reason").fill("half a sen")
    await overview.get_by_role("link", name="mails").focus()

    buffer.push(*"y" * 41, group="eu")
    await expect(figure(queue, "Waiting")).to_have_text("42")
    await expect(overview.locator("td.waiting")).to_have_text("42")
    await expect(figure(overview, "Waiting")).to_have_text("42")
    buffer.pause(reason="moving")
    await expect(overview.locator(".tag.paused")).to_be_visible()
    await expect(queue.locator("#live")).to_contain_text("moving")
    batch = buffer.reserve()
    assert batch is None
    buffer.resume()
    await expect(overview.locator(".tag.paused")).to_have_count(0)

    await expect(queue.get_by_label("Reason")).to_have_value("half a sen")
    await expect(queue.get_by_label("Reason")).to_be_focused()
    await expect(overview.get_by_role("link", name="mails")).to_be_focused()
    assert not await overview.evaluate("window.unloaded")
    assert not await queue.evaluate("window.unloaded")
    watch.assert_clean()


async def test_an_outage_is_shown_and_ends(
    binary: Path, tmp_path: Path, context: BrowserContext, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("redisq.web.sampler.TICK", 0.2)
    place = tmp_path / "redis.sock"  # always the same, whichever server is behind it

    def started() -> Server:
        redis_server = stack.enter_context(Server(binary, "--appendonly", "yes", directory=tmp_path))
        place.unlink(missing_ok=True)
        place.symlink_to(redis_server.socket)
        return redis_server

    with contextlib.ExitStack() as stack:
        first = started()
        with first.client() as client:
            Buffer(client, "mails").push("x")
        url = stack.enter_context(dashboard(str(place)))
        watch.origins.add(url)
        overview, queue = await context.new_page(), await context.new_page()
        await overview.goto(url)
        await queue.goto(f"{url}/queues/mails")
        for page in (overview, queue):
            await live(page)
        first.stop()
        for page in (overview, queue):
            await expect(page.get_by_role("alert")).to_contain_text("Redis does not answer.")
            await expect(figure(page, "Waiting")).to_have_text("1")  # what was known last, and its age
            await expect(page.get_by_role("alert")).to_contain_text("ago")
        with started().client() as client:
            Buffer(client, "mails").push("y")
        for page in (overview, queue):
            await expect(figure(page, "Waiting")).to_have_text("2")
            await expect(page.get_by_role("alert")).to_have_count(0)
        for page in (overview, queue):
            await page.close()
    watch.assert_clean()


async def test_the_stream_is_connected_again(server: Server, client: redis.Redis, page: Page) -> None:
    """As when the dashboard is deployed."""
    buffer: Buffer[str] = Buffer(client, "mails")
    buffer.push("x")
    with dashboard(server.socket) as url:
        await page.goto(url)
        await live(page)
    await expect(page.locator("#state")).to_have_text("Reconnecting…")
    buffer.push("y")
    with dashboard(server.socket, int(url.rpartition(":")[2])):
        await live(page)
        await expect(figure(page, "Waiting")).to_have_text("2")
        await page.close()
