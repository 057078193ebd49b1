"""Ways through the dashboard."""

from __future__ import annotations

from urllib.parse import urldefrag

from playwright.async_api import Page, expect

expect.set_options(timeout=20_000)  # only a test that fails waits so long


async def live(page: Page) -> None:
    """Wait until a page has been told something new."""
    await page.locator('#state[data-state="live"]').wait_for()  # sooner seen than by `expect`, which polls


async def links(page: Page) -> list[str]:
    """Return where the links of a page lead, as it is shown."""
    found: list[str] = await page.locator("a[href]").evaluate_all("found => found.map((one) => one.href)")
    return [urldefrag(one).url for one in found]
