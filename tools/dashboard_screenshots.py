"""Take the screenshots of the dashboard in docs/images: `python -m tools.dashboard_screenshots [DIRECTORY]`.

The queues are made up here and always the same; times and the ids of batches are those of the day. With `--all`, every
page is taken, at desktop and phone width, light and dark: to look at.
"""

from __future__ import annotations

import argparse
import math
import random
from pathlib import Path
from typing import Any

import redis
from playwright.sync_api import Browser, sync_playwright

from redisq import JSON, Buffer, PriorityQueue, Rate
from redisq.core.rates import Rates
from redisq.embedded import Server, binaries
from redisq.web.sampler import HISTORY, TICK, Point, Sample, Sampler
from tools.browser import chromium, dashboard, options

IMAGES = Path(__file__).parent.parent / "docs" / "images"
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
_PACE = {"invoices": 3.2, "mails": 140.0, "thumbnails": 21.0, "reindex": 460.0, "webhooks": 36.0}
REASONS = [
    "SMTPRecipientsRefused: 550 5.1.1 no such mailbox",
    "ConnectTimeout: smtp.example.com did not answer within 10 seconds",
    "the lease ran out 5 times",
    "UndefinedError: 'locale' is undefined",
]
PAGES = {
    "overview": "/",
    "groups": "/queues/mails",
    "group": "/queues/mails/groups/example.org",
    "leased": "/queues/mails/leased",
    "delayed": "/queues/mails/delayed",
    "dead": "/queues/mails/dead",
    "members": "/queues/reindex",
    "member": "/queues/reindex/members/product:1007",
    "dead-members": "/queues/reindex/dead",
    "paused": "/queues/webhooks",
    "audit": "/queues/mails/audit",
    "api": "/api",
    "missing": "/queues/nope",
}


def fill(client: redis.Redis) -> None:
    """Put some queues on an empty server."""
    client.config_set("save", "3600 1")
    client.config_set("appendonly", "yes")
    chance = random.Random(7)
    mails: Buffer[Any] = Buffer(client, "mails", codec=JSON, rates=[Rate(5000, 60)])
    number = 1000

    def mail(domain: str) -> dict[str, Any]:
        nonlocal number
        number += 1
        template = chance.choice(["welcome", "receipt", "password-reset", "weekly-digest"])
        return {"id": number, "to": f"user{number}@{domain}", "template": template, "locale": "en"}

    for _ in range(9):
        mails.push(*(mail("example.com") for _ in range(240)), group="example.com")
        if batch := mails.reserve(240):
            batch.ack()
    for domain in ("bücher.example", "example.net", "example.com", "example.org"):
        for reason in REASONS[: 2 if domain == "example.net" else 1]:
            mails.push(*(mail(domain) for _ in range(chance.randint(1, 4))), group=domain)
            if batch := mails.reserve(holder=f"mailer-{chance.randint(1, 3)}:4117"):
                batch.bury(chance.choice(REASONS) if domain != "example.net" else reason)
    for domain in ("example.edu", "example.dev"):
        mails.push(*(mail(domain) for _ in range(3)), group=domain)
        if batch := mails.reserve():
            batch.release(delay=chance.randint(120, 600), reason=REASONS[1])
    for holder in ("mailer-1:4117", "mailer-2:4117", "mailer-3:4120"):
        mails.push(*(mail("example.com") for _ in range(50)), group="example.com")
        mails.reserve(50, lease=chance.randint(90, 300), holder=holder)
    for domain, count in (("example.org", 412), ("example.com", 388), ("example.net", 96), ("bücher.example", 31)):
        mails.push(*(mail(domain) for _ in range(count)), group=domain)
    for i in range(23):
        mails.push(*(mail(f"shop{i:02}.example") for _ in range(1 + 24 // (i + 1))), group=f"shop{i:02}.example")
    mails.pause_group("shop03.example")

    invoices: Buffer[Any] = Buffer(client, "invoices", codec=JSON, ordered=True)
    for i in range(14):
        invoices.push(*({"invoice": f"2031-{i:03}{j}", "cents": 1999} for j in range(3)), group=f"customer:{i + 40}")
    invoices.reserve(1, holder="billing-1:77")

    thumbnails: Buffer[str] = Buffer(client, "thumbnails")
    for i in range(6):
        thumbnails.push(*(f"photos/{i}/{j}.jpg" for j in range(40 - 6 * i)), group=f"album-{i}")
    thumbnails.reserve(20, holder="gpu-1:9")

    reindex: PriorityQueue[str] = PriorityQueue(client, "reindex", order="fifo", payload_codec=JSON)
    reindex.push_many([(f"product:{i}", 9, {"changed": ["price"]}) for i in (900, 901)])
    if batch := reindex.reserve(2, holder="indexer-2:51"):
        batch.bury("MappingError: field [price] is of type long, not text")
    reindex.push_many(
        [(f"product:{i}", 9 - i % 3, {"changed": ["title", "stock"][: 1 + i % 2]}) for i in range(1000, 1180)]
    )
    reindex.reserve(6, holder="indexer-1:50", lease=300)

    webhooks: Buffer[Any] = Buffer(client, "webhooks", codec=JSON)
    webhooks.push(*({"event": "order.paid", "order": 7000 + i} for i in range(260)), group="hooks.example.com")
    webhooks.pause(1800, reason="the receiver is being moved, see the status page")


def with_history() -> None:
    """Let queues look as if they had been at work for two minutes: nobody waits for that here."""
    take = Sampler._take

    def taken(self: Sampler, *args: Any) -> None:
        take(self, *args)
        sample: Sample | None = self.samples.get(args[0].info.name)
        if sample is None or sample.stats is None:
            return
        pace = 0.0 if sample.stats.paused else _PACE.get(sample.info.name, 1.0)
        chance = random.Random(sample.info.name)
        now = sample.history[-1].time if sample.history else 0.0
        sample.history.clear()
        for i in range(HISTORY):
            wave = 1 + 0.25 * math.sin(i / 7 + len(sample.info.name)) + chance.uniform(-0.12, 0.12)
            waiting = sample.stats.waiting * (1.3 - 0.3 * i / (HISTORY - 1)) * (0.92 + 0.08 * wave)
            sample.history.append(Point(now - (HISTORY - 1 - i) * TICK, round(waiting), pace * wave))
        sample.rates = Rates(-pace / 12 if pace else 0.0, sample.history[-1].done, 0.0)
        sample.still = 0.0

    Sampler._take = taken  # type: ignore[assignment, method-assign]


def take(browser: Browser, url: str, path: str, to: Path, size: Any, scheme: Any, whole: bool = True) -> None:
    """Take one page."""
    context = browser.new_context(
        viewport=size, color_scheme=scheme, device_scale_factor=1.5, locale="en-GB", timezone_id="UTC"
    )
    page = context.new_page()
    page.goto(url + path)
    if page.locator("body[data-live]").count():
        page.locator('#state[data-state="live"]').wait_for()
    page.screenshot(path=to, full_page=whole)
    context.close()


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, nargs="?", default=IMAGES)
    parser.add_argument("--all", action="store_true", help="every page, at every size, light and dark")
    args = parser.parse_args()
    if chromium() is None:
        parser.exit(1, "no Chromium found: apt-get install chromium\n")
    args.directory.mkdir(parents=True, exist_ok=True)
    with_history()
    with Server(binaries()[0]) as server, sync_playwright() as playwright:
        with server.client() as client:
            fill(client)
        allow = ["redrive", "discard", "pause", "purge"]
        browser = playwright.chromium.launch(**options())
        with dashboard(server.socket, allow=allow) as url:
            if args.all:
                for name, path in PAGES.items():
                    for size, viewport in (("desktop", DESKTOP), ("phone", PHONE)):
                        for scheme in ("light", "dark"):
                            take(browser, url, path, args.directory / f"{name}-{size}-{scheme}.png", viewport, scheme)
            else:
                for scheme, ending in (("light", ""), ("dark", "-dark")):
                    for name, title in (("overview", "dashboard"), ("dead", "dashboard-dead")):
                        to = args.directory / f"{title}{ending}.png"
                        take(browser, url, PAGES[name], to, {"width": 1280, "height": 760}, scheme, False)
        browser.close()
    print(f"screenshots are in {args.directory}")


if __name__ == "__main__":
    main()
