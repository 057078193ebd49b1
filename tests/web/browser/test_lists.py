"""Tables and lists on pages that are open: what is new comes by itself, unless somebody is about to do something."""

from __future__ import annotations

import redis
from playwright.async_api import Page, expect

from redisq import Buffer, PriorityQueue
from tests.web.browser.conftest import Serve, Watch
from tests.web.browser.pages import live
from tests.web.test_acts import ALL, dead_batches


async def test_rows_that_are_not_sent_again_stay(client: redis.Redis, serve: Serve, page: Page, watch: Watch) -> None:
    """And keep their cells, also when the order changes."""
    busy, still = PriorityQueue(client, "busy"), PriorityQueue(client, "still")
    busy.push("a")
    still.push_many((f"m{i}", 0) for i in range(5))
    await page.goto(f"{serve()}/?sort=waiting")
    await live(page)
    names = page.locator("tbody th a")
    await expect(names).to_have_text(["still", "busy"])
    for count in (3, 4, 9):
        busy.push_many((f"n{i}", 0) for i in range(count - 1))
        await expect(page.locator("#q-busy .waiting")).to_have_text(f"{count}")
        await expect(page.locator("#q-still .waiting")).to_have_text("5")
        await expect(page.locator("#q-still svg")).to_have_count(1)
    await expect(names).to_have_text(["busy", "still"])
    watch.assert_clean()


async def test_a_list_that_nobody_uses_is_renewed(client: redis.Redis, serve: Serve, page: Page, watch: Watch) -> None:
    dead_batches(client, 2)
    url = serve(allow=ALL)
    await page.goto(f"{url}/queues/b/dead")
    await live(page)
    await expect(page.locator(".entry")).to_have_count(2)
    ids = dead_batches(client, 2)
    await expect(page.locator(".entry")).to_have_count(4)
    await expect(page.locator("#newer")).to_be_hidden()
    await page.get_by_role("button", name=f"Discard {ids[0]}", exact=True).click()  # its forms are of now
    await expect(page.locator(".notice[role=status]").first).to_have_text("1 discarded.")
    watch.assert_clean()


async def test_a_list_that_somebody_uses_stays_as_it_is(
    client: redis.Redis, serve: Serve, page: Page, watch: Watch
) -> None:
    (one, _) = dead_batches(client, 2)
    await page.goto(f"{serve(allow=ALL)}/queues/b/dead")
    await live(page)
    await page.get_by_label(f"Choose {one}").check()
    dead_batches(client, 2)
    await expect(page.locator("#newer")).to_be_visible()
    await expect(page.locator(".entry")).to_have_count(2)
    await expect(page.get_by_label(f"Choose {one}")).to_be_checked()
    await page.get_by_role("link", name="Load it again").click()
    await expect(page.locator(".entry")).to_have_count(4)
    await expect(page.locator("#newer")).to_be_hidden()
    watch.assert_clean()


async def test_groups_appear_by_themselves(client: redis.Redis, serve: Serve, page: Page, watch: Watch) -> None:
    buffer: Buffer[int] = Buffer(client, "b")
    buffer.push(1, group="eu")
    await page.goto(f"{serve()}/queues/b")
    await live(page)
    buffer.push(1, 2, group="us")
    await expect(page.locator("tbody th")).to_have_text(["us", "eu"])
    watch.assert_clean()
