"""Shared by the tests of connections."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from redisq import Buffer
from redisq.embedded import Server


@pytest.fixture
def healthy_queue(server: Server) -> Iterator[Buffer[Any]]:
    """Return the queue through a separate client, whose connections are not disturbed."""
    with server.client() as client:
        yield Buffer(client, "q")
