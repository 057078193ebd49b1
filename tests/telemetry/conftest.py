"""What the tests of telemetry share."""

from __future__ import annotations

import pytest

from tests.telemetry.recording import Recording


@pytest.fixture
def recording() -> Recording:
    """Give a place where spans and metrics are kept."""
    return Recording()
