"""When leases were first seen: Redis keeps their end alone."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable

_MOST = 20_000


class FirstSeen:
    """The moments at which leases were first seen by this process."""

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, bytes], float] = OrderedDict()

    def note(self, queue: str, ids: Iterable[bytes]) -> None:
        """Note those that are new."""
        now = time.monotonic()
        for one in ids:
            self._seen.setdefault((queue, one), now)
        while len(self._seen) > _MOST:
            self._seen.popitem(last=False)

    def since(self, queue: str, lease: bytes) -> float:
        """Return for how many seconds a lease has been held at the least."""
        now = time.monotonic()
        return now - self._seen.get((queue, lease), now)
