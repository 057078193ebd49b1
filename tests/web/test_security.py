"""What a browser, a stranger and a log must never get."""

from __future__ import annotations

import base64
import logging

import httpx
import pytest
import redis
import redis.asyncio

from redisq import BYTES, Buffer, PriorityQueue
from redisq.web import app, pages
from redisq.web.security import AllowedHosts
from tests.web.conftest import BASE, Make

PATHS = ["/", "/api", "/api/queues", "/queues/q", "/queues/nope", "/nope", "/healthz", "/static/style.css"]


@pytest.mark.parametrize("path", PATHS)
async def test_headers_that_keep_browsers_safe(web: Make, client: redis.Redis, path: str) -> None:
    Buffer(client, "q").push(1)
    answer = await web().get(path)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert answer.headers["cache-control"] == "no-store"


async def test_no_page_has_a_script_or_style_of_its_own_or_from_elsewhere(web: Make, client: redis.Redis) -> None:
    Buffer(client, "q").push(1)
    browser = web(allow=["redrive", "discard", "pause", "purge"])
    for path in ("/", "/api", "/queues/q", "/queues/q/dead", "/queues/q/groups/default", "/queues/nope"):
        page = (await browser.get(path)).text
        assert " style=" not in page
        assert "<style" not in page
        assert " onclick" not in page
        assert "//" not in page.replace("http://127.0.0.1:9180/", "").replace("http://www.w3.org", "")
        assert page.count("<script") == page.count("<script src=")


@pytest.mark.parametrize("path", [path for path in PATHS if path != "/healthz"])
@pytest.mark.parametrize(
    "header",
    [
        None,
        "Basic",
        "Basic !!!",
        "Bearer secret",
        "Basic " + base64.b64encode(b"secret").decode(),
        "Basic " + base64.b64encode(b"me:wrong").decode(),
        "Basic " + base64.b64encode(b"secret:").decode(),
    ],
)
async def test_a_password_is_asked_for_everywhere(web: Make, path: str, header: str | None) -> None:
    answer = await web(password="secret").get(path, headers={"Authorization": header} if header else {})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Basic realm=")


async def test_any_user_with_the_password_may_look(web: Make) -> None:
    browser = web(password="sécret:with colon")
    for user in ("", "me", "élise"):
        answer = await browser.get("/", auth=httpx.BasicAuth(user.encode(), "sécret:with colon".encode()))
        assert answer.status_code == 200
    assert (await browser.get("/healthz")).text == "ok\n"


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("localhost", True),
        ("localhost:9180", True),
        ("LOCALHOST", True),
        ("127.0.0.1:1", True),
        ("[::1]:9180", True),
        ("evil.test", False),
        ("localhost.evil.test", False),
        ("", False),
        ("[", False),
        ("127.0.0.1:x", False),
    ],
)
async def test_a_foreign_host_is_refused(aclient: redis.asyncio.Redis, host: str, allowed: bool) -> None:
    """A page whose name was pointed at this server would else be of its origin."""
    guarded = AllowedHosts(app(aclient), ["localhost", "127.0.0.1", "::1"])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(guarded), base_url="http://x") as browser:
        answer = await browser.get("/static/style.css", headers={"Host": host})
        assert answer.status_code == (200 if allowed else 400)
        assert "content-security-policy" in answer.headers


async def test_an_orchestrator_asks_for_health_by_any_address(aclient: redis.asyncio.Redis) -> None:
    """And a page of another name learns nothing from the answer."""
    guarded = AllowedHosts(app(aclient), ["localhost"])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(guarded), base_url="http://10.0.0.7:9180") as browser:
        assert (await browser.get("/healthz")).text == "ok\n"
        assert (await browser.get("/")).status_code == 400


async def test_any_host_may_be_allowed(aclient: redis.asyncio.Redis) -> None:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(AllowedHosts(app(aclient), ["*"])), base_url="http://evil.test"
    ) as browser:
        assert (await browser.get("/healthz")).status_code == 200


async def test_an_error_that_nobody_expects_tells_no_log_what_was_in_it(
    web: Make, client: redis.Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Buffer(client, "q").push(1)

    async def broken(*_: object) -> None:
        raise RuntimeError("secret-payload")

    monkeypatch.setattr(pages.Pages, "group", broken)
    with caplog.at_level(logging.DEBUG):
        answer = await web().get("/queues/q/groups/secret-group")
    assert answer.status_code == 500
    said = [one.getMessage() for one in caplog.records if one.name.startswith("redisq")]
    assert "RuntimeError" in said[0]
    assert "secret" not in answer.text + "".join(said)


async def test_no_log_tells_a_payload_a_group_or_a_member(
    web: Make, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    Buffer(client, "b", codec=BYTES).push(b"secret-payload", group="secret-group")
    PriorityQueue(client, "p", payload_codec=BYTES).push("secret-member", payload=b"secret-load")
    client.set("redisq:{b}:items:secret-string", "x")
    browser = web(allow=["pause"])
    with caplog.at_level(logging.DEBUG):
        for path in (
            "/queues/b/groups/secret-group",
            "/queues/b/groups/secret-string",
            "/queues/p/members/secret-member",
            "/queues/p/find?name=secret-member",
            "/api/queues/b/groups/secret-group",
            "/api/queues/p/members",
        ):
            await browser.get(path)
        await browser.post(
            "/queues/b/groups/secret-group/pause", data={"x": "y"}, headers={"Sec-Fetch-Site": "same-origin"}
        )
    redisq_and_servers = [one for one in caplog.records if not one.name.startswith(("httpx", "httpcore"))]
    assert not any("secret" in one.getMessage() for one in redisq_and_servers)


@pytest.mark.parametrize(
    "path", ["/queues/", "/queues/q/", "/api/", "/api/queues/", "/static", "//evil.test/", "/healthz/"]
)
async def test_no_redirect_is_made_of_the_host_that_is_named(web: Make, client: redis.Redis, path: str) -> None:
    Buffer(client, "q").push(1)
    answer = await web().get(httpx.URL(BASE).copy_with(raw_path=path.encode()), headers={"Host": "evil.test"})
    assert answer.status_code == 404
    assert "location" not in answer.headers
