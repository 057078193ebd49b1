"""Payloads are shown as they are stored: whole, or their beginning, with a way to the rest."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redisq.web.payloads import HEX, TEXT, Payload, fitting, indented


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_indentation_changes_nothing_but_white_space(value: object) -> None:
    text = json.dumps(value)
    found = indented(text)
    assert found is not None
    assert json.loads(found) == value
    assert json.dumps(json.loads(found)) == json.dumps(json.loads(text))


def test_numbers_and_repeated_keys_stay_as_they_are_stored() -> None:
    text = '{"n":12345678901234567890.50,"n":1e400,"s":"\\u00e9 , {"}'
    found = indented(text)
    assert found == '{\n  "n": 12345678901234567890.50,\n  "n": 1e400,\n  "s": "\\u00e9 , {"\n}'


@pytest.mark.parametrize("text", ["plain", "{", "[" * 60_000, "[" * 300 + "]" * 300, "", '{"a":1}x'])
def test_what_is_no_json_is_left_as_it_is(text: str) -> None:
    assert indented(text) is None
    assert Payload(text.encode()).kind == "text"
    assert str(Payload(text.encode()).markup).count("[") == text.count("[")


def test_what_is_not_utf8_is_shown_in_hex() -> None:
    found = Payload(b"\x00\xffabc" * 4)
    assert found.kind == "bytes"
    assert str(found.markup).splitlines() == [
        "00000000  00 ff 61 62 63 00 ff 61 62 63 00 ff 61 62 63 00  ..abc..abc..abc.",
        "00000010  ff 61 62 63                                      .abc",
    ]
    assert found.copied
    assert base64.b64decode(found.copied) == b"00ff616263" * 4


def test_marks_of_direction_and_control_characters_are_escapes() -> None:
    found = Payload("a\u202eb\x00<script>\n\tc".encode())
    assert found.markup == ('a<span class="esc">\\u202e</span>b<span class="esc">\\x00</span>&lt;script&gt;\n\tc')
    assert found.copied
    assert base64.b64decode(found.copied) == found.data


def test_indentation_does_not_make_a_long_page_of_a_short_text() -> None:
    text = "[" * 190 + "1,2," * 10_000 + "3" + "]" * 190
    assert len(text) < TEXT
    assert json.loads(text)
    assert indented(text) is None
    assert len(Payload(text.encode()).markup) == len(text)


def test_of_a_long_text_the_beginning_is_shown_up_to_a_whole_character() -> None:
    found = Payload(b"x" + "\u00e9".encode() * TEXT)
    assert found.cut
    assert found.kind == "text"
    assert str(found.markup) == "x" + "\u00e9" * (TEXT // 2 - 1)  # the last one would be half of one
    assert found.copied
    assert base64.b64decode(found.copied) == found.data
    assert not Payload(b"x" * TEXT).cut


def test_of_long_bytes_the_beginning_is_shown() -> None:
    found = Payload(b"\xff" * 10_000_000)
    assert found.cut
    assert len(str(found.markup).splitlines()) == HEX // 16
    assert found.copied is None


def test_a_page_ends_before_it_is_too_long_and_has_one_at_least() -> None:
    assert fitting("abc", [400, 400, 400], 1000) == "ab"
    assert fitting("abc", [5000, 1, 1], 1000) == "a"
    assert fitting("abc", [1, 1, 1], 1000) == "abc"
    assert fitting("", [], 1000) == ""
