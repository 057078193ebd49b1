"""Fixtures of the telemetry tests."""

from __future__ import annotations

import pytest

from tests.telemetry.recording import Recording


@pytest.fixture
def recording() -> Recording:
    """Return a recording of spans and metrics."""
    return Recording()
