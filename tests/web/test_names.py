"""Names in URLs and on pages: nothing is lost, and no two look the same."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redisq.web.names import from_segment, shown, shown_markup, to_segment, typed

NAMES = [
    b"plain",
    b"a/b",
    b"\x00",
    b"\xff\xfe",
    b".",
    b"..",
    b"",
    b"~7E",
    b"~",
    b" a ",
    b"a\\xff",
    b"App\\Jobs\\Mail",
    b"\\",
    "\u202egpj.exe".encode(),
    "zero\u200bwidth".encode(),
    "ünïcödé 日本語".encode(),
    b"<script>",
    b"a%2Fb?c#d",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_segment_is_one_harmless_part_of_a_path(name: bytes) -> None:
    segment = to_segment(name)
    assert re.fullmatch(r"[A-Za-z0-9._~-]+", segment)
    assert segment not in (".", "..")
    assert from_segment(segment) == name


@given(st.binary())
def test_any_name_comes_back_from_its_segment(name: bytes) -> None:
    assert from_segment(to_segment(name)) == name


@given(st.binary() | st.text(alphabet="\\xuUf0 \u202eé~", max_size=12).map(str.encode))
def test_any_name_comes_back_from_what_is_shown(name: bytes) -> None:
    """So no two names look the same, and one that is copied from the page is found."""
    assert typed(shown(name)) == name


@pytest.mark.parametrize(
    ("segment", "name"),
    [
        ("a b", b"a b"),
        ("~", b"~"),
        ("~zz", b"~zz"),
        ("~4", b"~4"),
        ("~41~4a", b"AJ"),
        ("ü", "ü".encode()),
        ("a~", b"a~"),
    ],
)
def test_a_segment_typed_by_hand_is_itself(segment: str, name: bytes) -> None:
    assert from_segment(segment) == name


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        (b"a\x00b", "a\\x00b"),
        (b"\xff", "\\xff"),
        ("\u202eabc".encode(), "\\u202eabc"),
        ("\u2066\u061c\u200e".encode(), "\\u2066\\u061c\\u200e"),
        ("a\u200bb".encode(), "a\\u200bb"),
        ("\u3164".encode(), "\\u3164"),
        ("\U000e0101".encode(), "\\U000e0101"),
        (b"  a b ", "\\x20\\x20a b\\x20"),
        (b"   ", "\\x20\\x20\\x20"),
        (b"C:\\new", "C:\\new"),
        (b"a\\xff", "a\\\\xff"),
        ("\u00a0".encode(), "\\u00a0"),
    ],
)
def test_what_cannot_be_seen_is_an_escape(name: bytes, seen: str) -> None:
    assert shown(name) == seen
    text = re.sub(r"<[^>]*>", "", str(shown_markup(name)))
    assert text == seen


def test_markup_is_escaped_and_isolated() -> None:
    assert shown_markup(b"<b>&\x00") == ('<bdi class="name">&lt;b&gt;&amp;<span class="esc">\\x00</span></bdi>')
    assert "empty" in shown_markup(b"")
