"""Names, payloads and reasons that want to be more than text."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest
import redis
from playwright.async_api import BrowserContext, Page

from redisq import BYTES, Buffer, PriorityQueue
from redisq.web.names import shown, to_segment
from tests.web.browser.conftest import Serve, Watch
from tests.web.browser.pages import links, live

ALL = ("redrive", "discard", "pause", "purge")
HOSTILE = [
    "<script>owned('script')</script>",
    "</title></textarea></pre></bdi><img src=x onerror=owned('img')>",
    "\"><svg onload=owned('double')>",
    "' autofocus onfocus=owned('single') x='",
    "javascript:owned('url')",
    "<iframe srcdoc='<script>parent.owned(1)</script>'></iframe><base href=//other.test/>",
    "<a hx-get=/hx-loaded hx-trigger=load hx-on:click=owned('htmx')>{{7*7}}{% raw %}${7*7}</a>",
    "</template><link rel=stylesheet href=//other.test/x.css>\n\nevent: part\ndata: <img src=//other.test/y>",
    "--><meta http-equiv=refresh content='0;url=//other.test/'>&lt;script&gt;owned('entity')&lt;/script&gt;",
]
QUEUES = [re.sub("[{}]", "", one) for one in HOSTILE[:5]]

# What no page may have, whatever is in Redis: it holds even where the policy would stop the rest.
MISDEEDS = """() => {
    const bad = [];
    for (const one of document.querySelectorAll("*")) {
        for (const { name, value } of one.attributes) {
            if (name.startsWith("on") || name.startsWith("hx-") || name === "srcdoc" || name === "style")
                bad.push(one.outerHTML);
            if (["href", "src", "action", "formaction"].includes(name)
                && new URL(value, location).origin !== location.origin)
                bad.push(one.outerHTML);
        }
        if (["IFRAME", "BASE", "OBJECT", "EMBED", "STYLE"].includes(one.tagName)) bad.push(one.outerHTML);
        if (one.tagName === "SCRIPT" && !(one.getAttribute("src") ?? "").includes("/static/")) bad.push(one.outerHTML);
        if (one.tagName === "META" && one.httpEquiv) bad.push(one.outerHTML);
        for (const type of ["mouseover", "focus", "toggle"]) one.dispatchEvent(new Event(type));
        if (one.tagName === "DETAILS") one.open = true;
    }
    return bad;
}"""


@pytest.fixture
def hostile(client: redis.Redis) -> redis.Redis:
    """Fill every field of queues of both structures with hostile texts."""
    buffer: Buffer[bytes] = Buffer(client, QUEUES[0], codec=BYTES)
    for one in HOSTILE:
        buffer.push(one.encode(), b'{"x": "%s"}' % one.replace('"', "").encode()[:90], group=one)
    for state in ("waiting", "leased", "delayed", "dead"):
        for one in HOSTILE:
            if state == "waiting":
                buffer.push(one.encode(), group=one)
            elif batch := buffer.reserve(1, holder=one, lease=600):
                if state == "delayed":
                    batch.release(600, reason=one)
                elif state == "dead":
                    batch.bury(one)
                buffer.push(one.encode(), group=one)
    buffer.pause(reason=" ".join(HOSTILE)[:900])
    buffer.pause_group(HOSTILE[0])
    members: PriorityQueue[bytes] = PriorityQueue(client, QUEUES[1], codec=BYTES, payload_codec=BYTES)
    for state in ("dead", "delayed", "leased", "ready"):
        some = HOSTILE if state == "ready" else HOSTILE[:2]
        members.push_many([(f"{one} {state}".encode(), 1, one.encode()) for one in some])
        if state != "ready" and (taken := members.reserve(500, holder=HOSTILE[1], lease=600)):
            if state == "delayed":
                taken.release(600, reason=HOSTILE[2])
            elif state == "dead":
                taken.bury(HOSTILE[3])
    for name in QUEUES[2:]:
        Buffer(client, name).push("x")
    assert client.delete(f"redisq:{{{QUEUES[0]}}}:items:{HOSTILE[1]}")  # an audit then has something to say
    return client


@pytest.mark.usefixtures("hostile")
async def test_no_page_runs_what_is_in_redis(serve: Serve, page: Page, watch: Watch) -> None:
    url = serve(allow=ALL)
    for one in HOSTILE:
        for path in (f"/queues/{quote(one, safe='')}", f"/?outcome={quote(one)}", f"/{quote(one)}"):
            await page.goto(url + path)
            assert await page.evaluate(MISDEEDS) == [], path
    queue = f"{url}/queues/{to_segment(QUEUES[0])}"
    await page.goto(f"{queue}/audit")
    await page.get_by_role("button", name="Audit now").click()
    for path in (f"?state={quote(HOSTILE[2])}", f"/find?name={quote(HOSTILE[1])}"):
        await page.goto(queue + path)
        assert await page.evaluate(MISDEEDS) == [], path
    watch.said.clear()  # of pages that are not found

    todo, seen, text = [f"{url}/"], set[str](), ""
    told: set[str | None] = {None}
    whole = [f"{url}/queues/{to_segment(name)}" for name in QUEUES[:2]]
    while todo:
        place = todo.pop()
        if place in seen or place.endswith("order=oldest"):
            continue
        seen.add(place)
        await page.goto(place)
        if (stream := await page.locator("body").get_attribute("data-live")) not in told:
            told.add(stream)
            await live(page)
        assert await page.evaluate(MISDEEDS) == [], place
        text += await page.locator("body").inner_text()
        if not place.startswith(f"{url}/queues/") or place.startswith(tuple(whole)):
            todo += await links(page)
    assert len(seen) > 60
    seen_text = "".join(text.split())
    for one in HOSTILE + QUEUES:
        assert "".join(shown(one).split()) in seen_text
    watch.assert_clean()


async def test_the_policy_stops_what_would_slip_through(
    client: redis.Redis, serve: Serve, page: Page, watch: Watch
) -> None:
    Buffer(client, "b").push("x")
    await page.goto(serve())
    await page.evaluate(
        """() => {
            const directives = ["script-src-attr", "script-src-elem", "img-src", "connect-src", "style-src-attr"];
            window.wanted = new Set(directives);
            document.addEventListener("securitypolicyviolation", (event) => wanted.delete(event.effectiveDirective));
            document.body.insertAdjacentHTML("beforeend", `<img src="/nope" onerror="owned('attribute')">
                <img src="http://other.test/"><p style="color: red">`);
            document.body.append(Object.assign(document.createElement("script"), { text: "owned('element')" }));
            fetch("http://other.test/").catch(() => {});
        }"""
    )
    await page.wait_for_function("() => !window.wanted.size")
    assert watch.ran == []
    assert [one for one in watch.left if "other.test" not in one] == []


async def test_it_cannot_be_framed(serve: Serve, context: BrowserContext) -> None:
    url = serve()
    page = await context.new_page()
    await page.goto(f"{url}/healthz")
    async with page.expect_console_message(lambda message: "frame" in message.text.lower()):
        await page.set_content(f"<iframe src='{url}/'></iframe>")
