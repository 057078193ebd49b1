"""One Chromium for all tests, and a profile of its own for each; what a page should not do is noted."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Dialog, Page, Request, async_playwright

from redisq.embedded import Server
from redisq.web import sampler
from tests.conftest import skip_or_fail
from tools.browser import chromium, dashboard, options

TIMEOUT = 20_000  # ms; only a test that fails waits so long


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run these tests in the event loop of the session, which is the browser's."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Return a Chromium that has been started."""
    if chromium() is None:
        skip_or_fail("no Chromium found: apt-get install chromium")
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(**options())
        yield launched
        await launched.close()


@dataclass
class Watch:
    """What pages did that they should not."""

    origins: set[str] = field(default_factory=set)
    """Where they may send requests to."""
    ran: list[str] = field(default_factory=list)
    """Scripts of others that ran, and dialogs."""
    left: list[str] = field(default_factory=list)
    """Requests to other origins."""
    said: list[str] = field(default_factory=list)
    """What the console said, errors and violations of the policy among it."""

    async def over(self, context: BrowserContext) -> None:
        """Watch all pages of a context."""
        context.on("dialog", self._dialog)
        context.on("console", lambda message: self.said.append(f"{message.text} ({message.page and message.page.url})"))
        context.on("weberror", lambda error: self.said.append(str(error.error)))
        context.on("request", self._request)
        await context.expose_function("owned", lambda what="": self.ran.append(what))

    async def _dialog(self, dialog: Dialog) -> None:
        self.ran.append(f"dialog: {dialog.message}")
        await dialog.dismiss()

    def _request(self, request: Request) -> None:
        scheme, host, *_ = urlsplit(request.url)
        if f"{scheme}://{host}" not in self.origins:
            self.left.append(request.url)

    def assert_clean(self) -> None:
        """Fail if anything was noted."""
        assert (self.ran, self.left, self.said) == ([], [], [])


@pytest.fixture
def watch() -> Watch:
    """Return what notes the misdeeds of the test's pages."""
    return Watch()


Serve = Callable[..., str]


@pytest.fixture
def serve(server: Server, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Return a function that serves a dashboard of the emptied server, and returns its URL."""
    monkeypatch.setattr(sampler, "TICK", 0.2)
    with contextlib.ExitStack() as stack:

        def start(**options: Any) -> str:
            url = stack.enter_context(dashboard(server.socket, **options))
            watch.origins.add(url)
            return url

        yield start


NewContext = Callable[..., Any]


@pytest_asyncio.fixture(loop_scope="session")
async def new_context(browser: Browser, watch: Watch) -> AsyncIterator[NewContext]:
    """Return a function that makes profiles of the browser, all of them watched."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(**options: Any) -> BrowserContext:
            context = await browser.new_context(**options)
            stack.push_async_callback(context.close)
            context.set_default_timeout(TIMEOUT)
            await watch.over(context)
            return context

        yield make


@pytest_asyncio.fixture(loop_scope="session")
async def context(new_context: NewContext) -> BrowserContext:
    """Return a profile of the browser."""
    made: BrowserContext = await new_context()
    return made


@pytest_asyncio.fixture(loop_scope="session")
async def page(context: BrowserContext) -> Page:
    """Return an empty page."""
    return await context.new_page()
