"""What assistive technology needs to find in the pages. What can be seen is in the tests in a browser."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import redis

from redisq import Buffer, PriorityQueue, web
from tests.web.conftest import Make

ALL = ("redrive", "discard", "pause", "purge")
STYLE = (Path(web.__file__).parent / "static" / "style.css").read_text()
VOID = {"meta", "link", "input", "br", "img"}


class Page(HTMLParser):
    """What stands on a page, and what is wrong with it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.wrong: list[str] = []
        self.headings: list[int] = []
        self.announced: list[str] = []
        self.ids: list[str] = []
        self._open: list[tuple[str, dict[str, str | None]]] = []
        self._labels: set[str] = set()
        self._unlabelled: list[tuple[str, str]] = []
        self._text: list[str] = []
        self._named: list[str] = []
        self._captions: list[bool] = []
        self.feed(text)
        self.wrong += [where for label, where in self._unlabelled if label not in self._labels]
        self.wrong += [f"aria-labelledby {one}" for one in self._named if one not in self.ids]
        self.wrong += [f"the id {one} is there twice" for one in {*self.ids} if self.ids.count(one) > 1]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        where = f"<{tag} {found}>"
        self.ids += [str(found["id"])] if "id" in found else []
        self._named += [str(found["aria-labelledby"])] if "aria-labelledby" in found else []
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if found.get("role") in ("alert", "status") or "aria-live" in found:
            self.announced.append(where)
        if tag == "table":
            self._captions.append(False)
        if tag == "caption":
            self._captions[-1] = True
        if tag == "th" and found.get("scope") not in ("col", "row"):
            self.wrong.append(where)
        if tag == "label" and "for" in found:
            self._labels.add(str(found["for"]))
        nameless = tag == "input" and found.get("type") != "hidden" and "aria-label" not in found
        if nameless and not any(one == "label" for one, _ in self._open):
            self._unlabelled.append((str(found.get("id")), where))
        if tag == "svg" and not ("aria-hidden" in found or found.get("aria-label")):
            self.wrong.append(where)
        if tag in ("nav", "progress") and not found.get("aria-label"):
            self.wrong.append(where)
        if tag not in VOID:
            self._open.append((tag, found))
        if tag in ("a", "button", "summary"):
            self._text = []

    def handle_data(self, data: str) -> None:
        self._text.append(data)

    def handle_endtag(self, tag: str) -> None:
        while self._open:
            name, attrs = self._open.pop()
            if name == tag:
                break
        if tag in ("a", "button", "summary") and not ("".join(self._text).strip() or attrs.get("aria-label")):
            self.wrong.append(f"a {tag} without a name: {attrs}")
        if tag == "table" and not self._captions.pop():
            self.wrong.append("a table without a caption")


async def test_structure_names_and_announcements(web: Make, client: redis.Redis) -> None:
    buffer: Buffer[int] = Buffer(client, "b")
    queue = PriorityQueue(client, "p")
    for verb in ("bury", "release", "keep"):
        buffer.push(1, group=verb)
        queue.push(verb, payload={"n": 1})
        batch, members = buffer.reserve(), queue.reserve()
        assert batch
        assert members
        if verb == "bury":
            batch.bury("bad")
            members.bury("bad")
        elif verb == "release":
            batch.release(delay=600)
            members.release(delay=600)
    buffer.push(1, 2, group="g")
    buffer.pause(reason="why")
    queue.push("ready")
    (dead,) = buffer.dead()
    browser = web(allow=ALL)
    paths = ["/", "/api", "/nope", "/queues/b", "/queues/b?state=paused", "/queues/b/groups/g", "/queues/b/groups/none"]
    paths += [f"/queues/{name}/{tab}" for name in "bp" for tab in ("leased", "delayed", "dead", "audit")]
    paths += [f"/queues/b/dead/{dead.id}", "/queues/p", "/queues/p/members/bury", "/queues/p/members/none"]
    for path in paths:
        text = (await browser.get(path)).text
        page = Page(text)
        assert page.wrong == [], path
        assert page.headings[0] == 1, path
        assert page.headings.count(1) == 1, path
        steps = zip(page.headings, page.headings[1:], strict=False)
        assert all(after <= before + 1 for before, after in steps), (path, page.headings)
        assert len(page.announced) <= 1, path  # whether it is live; numbers are not read out as they change
        assert '<html lang="en">' in text
        assert '<main id="main"' in text


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_of_all_colours_that_meet(scheme: str) -> None:
    light, dark = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", light if scheme == "light" else dark))
    meet = [
        (ink, on) for ink in ("ink", "soft", "faint", "accent-ink", "bad", "warn") for on in ("paper", "panel", "sunk")
    ]
    meet += [
        ("ink", "bad-wash"),
        ("ink", "warn-wash"),
        ("ink", "accent-wash"),
        ("soft", "bad-wash"),
        ("soft", "warn-wash"),
    ]
    meet += [("bad", "bad-wash"), ("warn", "warn-wash"), ("accent-ink", "accent-wash"), ("on-accent", "accent")]
    meet += [("on-accent", "accent-ink"), ("panel", "bad")]
    found = {pair: contrast(*(colours[one] for one in pair)) for pair in meet}
    assert {pair: ratio for pair, ratio in found.items() if ratio < 4.5} == {}
    for edge in ("edge", "accent"):  # of inputs, and of what is focused
        assert contrast(colours[edge], colours["panel"]) >= 3


def test_nothing_moves_for_those_who_want_that() -> None:
    calm, _, moving = STYLE.partition("@media (prefers-reduced-motion: no-preference)")
    assert moving.count("transition") == 1
    assert not re.search("transition|animation|scroll-behavior", calm + moving.split("}\n}", 1)[1])
