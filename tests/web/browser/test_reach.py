"""Other ways to use the pages: on a phone, by keyboard, with a screen reader, in the dark, without scripts."""

from __future__ import annotations

import re
from typing import Any

import pytest
import redis
from playwright.async_api import Page, expect

from redisq import BYTES, Buffer
from tests.web.browser.conftest import NewContext, Serve, Watch
from tests.web.browser.pages import live
from tests.web.test_acts import ALL
from tools.dashboard_screenshots import DESKTOP, PAGES, PHONE, fill

# Text whose contrast with what is behind it is less than WCAG AA wants.
FAINT = """() => {
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const rgba = (colour) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const light = (rgb) => {
        const [r, g, b] = rgb.map((one) => ((one /= 255) <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const found = new Set();
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const one = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || !one.checkVisibility({ visibilityProperty: true })) continue;
        if (one.closest(".hidden, .skip, button:disabled")) continue;
        const style = getComputedStyle(one);
        let behind = one;
        while (behind && rgba(getComputedStyle(behind).backgroundColor)[3] < 255) behind = behind.parentElement;
        const below = rgba(getComputedStyle(behind ?? document.documentElement).backgroundColor).slice(0, 3);
        let opacity = 1;
        for (let up = one; up && up !== behind; up = up.parentElement) opacity *= getComputedStyle(up).opacity;
        const ink = rgba(style.color).slice(0, 3).map((value, i) => value * opacity + below[i] * (1 - opacity));
        const [low, high] = [light(ink), light(below)].sort((a, b) => a - b);
        const size = parseFloat(style.fontSize);
        const wanted = size >= 24 || (size >= 18.6 && style.fontWeight >= 700) ? 3 : 4.5;
        const ratio = (high + 0.05) / (low + 0.05);
        if (ratio < wanted) found.add(`${ratio.toFixed(1)} ${one.outerHTML.slice(0, 90)}`);
    }
    return [...found];
}"""
ROLES = {
    "button",
    "link",
    "textbox",
    "searchbox",
    "checkbox",
    "DisclosureTriangle",
    "img",
    "image",
    "navigation",
    "region",
}
FOCUSABLE = "a[href], button, input:not([type=hidden]), summary, [tabindex='0']"


async def nameless(page: Page) -> list[Any]:
    """Return what a screen reader could not name, of what can be used."""
    session = await page.context.new_cdp_session(page)
    tree = await session.send("Accessibility.getFullAXTree")
    await session.detach()
    return [
        node
        for node in tree["nodes"]
        if not node["ignored"] and node["role"]["value"] in ROLES and not node.get("name", {}).get("value", "").strip()
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
async def test_every_page_can_be_read(
    client: redis.Redis, serve: Serve, new_context: NewContext, watch: Watch, size: Any, scheme: str
) -> None:
    fill(client)
    url = serve(allow=ALL)
    context = await new_context(viewport=size, color_scheme=scheme)
    page = await context.new_page()
    for path in PAGES.values():
        await page.goto(url + path)
        await page.locator("details").evaluate_all("found => found.forEach((one) => (one.open = true))")
        assert await page.evaluate("document.documentElement.scrollWidth") <= size["width"], path
        assert await page.evaluate(FAINT) == [], path
        assert await nameless(page) == [], path
        assert await page.locator("h1").count() == 1
    assert (watch.ran, watch.left) == ([], [])


async def test_every_control_can_be_reached_with_tab(client: redis.Redis, serve: Serve, page: Page) -> None:
    fill(client)
    url = serve(allow=ALL)
    for path in ("/", "/queues/invoices", "/queues/mails/dead", "/queues/reindex/members/product:1007"):
        await page.goto(url + path)
        await page.evaluate(
            f"""() => {{
                window.wanted = new Set([...document.querySelectorAll("{FOCUSABLE}")].filter(
                    (one) => one.checkVisibility() && !one.disabled && one.tabIndex >= 0));
                window.unseen = [];
                document.addEventListener("focusin", ({{ target }}) => {{
                    window.wanted.delete(target);
                    const style = getComputedStyle(target);
                    if (style.outlineStyle === "none" || parseFloat(style.outlineWidth) < 2)
                        window.unseen.push(target.outerHTML);
                }});
            }}"""
        )
        count = await page.evaluate("window.wanted.size")
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
        await expect(page.get_by_role("link", name="Skip to content")).to_be_in_viewport()
        for _ in range(count):
            await page.keyboard.press("Tab")
        assert await page.evaluate("[...window.wanted].map((one) => one.outerHTML)") == []
        assert await page.evaluate("window.unseen") == []
        await page.goto(url + path)
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await expect(page.locator("main")).to_be_focused()


async def test_a_menu_by_keyboard(client: redis.Redis, serve: Serve, page: Page, watch: Watch) -> None:
    buffer: Buffer[str] = Buffer(client, "b")
    buffer.push("x")
    await page.goto(f"{serve(allow=['pause'])}/queues/b")
    menu = page.locator("summary", has_text="Pause")
    await menu.focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_label("Reason")).to_be_visible()
    await page.keyboard.press("Tab")
    await page.keyboard.press("Escape")
    await expect(page.get_by_label("Reason")).to_be_hidden()
    await expect(menu).to_be_focused()
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")
    await page.keyboard.type("10m")
    await page.keyboard.press("Enter")
    await expect(page.locator(".notice[role=status]")).to_have_text("b is paused for 10m.")
    assert buffer.stats().paused
    watch.assert_clean()


async def test_a_hundred_thousand_groups(
    client: redis.Redis, serve: Serve, new_context: NewContext, watch: Watch
) -> None:
    buffer: Buffer[bytes] = Buffer(client, "many", codec=BYTES)
    strange = b"a/b\x00\xff\xe2\x80\xaecod".decode("utf-8", "surrogateescape")
    buffer.push(*[b"found"] * 3, group=strange)
    for lot in range(0, 100_000 - 1, 9_999):
        with client.pipeline(transaction=False) as pipe:
            for i in range(lot, min(lot + 9_999, 100_000 - 1)):
                buffer.calls.push([b"x"], group=f"user:{i:05}").queue(pipe)
            pipe.execute()
    url = serve()
    context = await new_context(viewport=PHONE)
    page = await context.new_page()
    await page.goto(url)
    await expect(page.locator(".about")).to_contain_text("100,000 groups")
    await page.get_by_role("link", name="many").click()
    first = page.locator("tbody a").first
    await expect(first).to_have_text("a/b\\x00\\xff\\u202ecod")
    await first.click()
    await expect(page.locator("h2")).to_contain_text("a/b\\x00\\xff\\u202ecod")
    await expect(page.locator("pre").first).to_have_text("found")
    assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]

    await page.goto(f"{url}/queues/many")
    await page.get_by_label("Name of a group").fill("a/b\\x00\\xff\\u202ecod")
    await page.get_by_role("button", name="Find").click()
    await expect(page.locator("pre").first).to_have_text("found")

    await page.goto(f"{url}/queues/many")
    seen = await page.locator("tbody a").all_inner_texts()
    await page.get_by_role("link", name="Next page").click()
    await expect(page.locator(".pager")).to_contain_text("51\u2013100 of 100,000")
    assert not {*seen} & {*await page.locator("tbody a").all_inner_texts()}
    await page.goto(f"{url}/queues/many?after=99950")
    await expect(page.locator(".pager")).to_contain_text("99,951\u2013100,000 of 100,000")
    await expect(page.get_by_role("link", name="Next page")).to_have_count(0)
    await page.get_by_role("link", name="First page").click()
    await page.get_by_label("Name of a group").fill("user:77777")
    await page.keyboard.press("Enter")
    await expect(page.locator("h2")).to_contain_text("user:77777")
    watch.assert_clean()


async def test_times_and_copying(client: redis.Redis, serve: Serve, new_context: NewContext, watch: Watch) -> None:
    """In the reader's zone, and the bytes as they are stored."""
    buffer: Buffer[bytes] = Buffer(client, "b", codec=BYTES)
    buffer.push('{"é":   1}'.encode())
    context = await new_context(
        timezone_id="Asia/Kathmandu", locale="en-GB", permissions=["clipboard-read", "clipboard-write"]
    )
    page = await context.new_page()
    await page.goto(f"{serve()}/queues/b/groups/default")
    await live(page)
    await expect(page.locator(".facts time")).to_have_attribute("title", re.compile("GMT\\+5:45"))
    await page.get_by_role("button", name="Copy item 1").click()
    await expect(page.get_by_role("button", name="Copy item 1")).to_have_text("Copied")
    assert await page.evaluate("navigator.clipboard.readText()") == '{"é":   1}'
    watch.assert_clean()
