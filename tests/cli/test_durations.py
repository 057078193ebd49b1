"""Durations on the command line: how they are parsed, and how they are printed."""

from __future__ import annotations

import argparse

import pytest

from redisq.cli.durations import duration, span


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("90", 90),
        ("0.25", 0.25),
        ("1e2", 100),
        ("90s", 90),
        ("1.5s", 1.5),
        ("10m", 600),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1m500ms", 60.5),
        ("7d", 604_800),
        (" 5s ", 5),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert duration()(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "10x", "1h30", "10 m", "nan", "h1", "5M"])
def test_an_invalid_duration_is_an_error_with_examples(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        duration()(text)
    assert str(caught.value) == f"{text} is not a duration: give 90, 500ms, 90s, 10m, 1h30m or 7d"


@pytest.mark.parametrize("text", ["99ms", "61s", "-1", "inf", "1e999"])
def test_a_duration_out_of_range_is_an_error_with_the_range(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        duration(0.1, 60)(text)
    assert str(caught.value) == f"{text} is out of range: give 100ms to 1m"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0ms"),
        (0.0004, "0ms"),
        (0.25, "250ms"),
        (0.9996, "1s"),
        (1, "1s"),
        (1.26, "1.3s"),
        (9.97, "10s"),
        (59.4, "59s"),
        (59.6, "1m"),
        (61, "1m1s"),
        (3_599.7, "1h"),
        (5_400, "1h30m"),
        (86_399, "23h59m"),
        (90_000, "1d1h"),
        (99_999_999, "1157d9h"),
    ],
)
def test_spans(seconds: float, text: str) -> None:
    """Printed with two units at most, in a form that can be parsed."""
    assert span(seconds) == text
    assert abs(duration(0)(text) - seconds) <= max(0.05, seconds / 20)
