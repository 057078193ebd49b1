"""A check that no test of faults leaves connections open."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


def pytest_collection_finish() -> None:
    """Exempt all modules and tests from garbage collection, so that collecting after each test costs little."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _leaks_fail_the_test_that_made_them() -> Iterator[None]:
    """Collect what a test has left: a connection that is still open is its error, else that of any later test."""
    yield
    gc.collect()
