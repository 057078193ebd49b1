"""What the queue itself remembers of its leases: how each ended. The window must outlast the test."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import redis


@dataclass
class Ledger:
    """Hold how each lease ended, by its id; who died without a word cannot tell, the queue can."""

    acked: dict[str, int] = field(default_factory=dict)
    """how many items the ack settled"""
    released: dict[str, int] = field(default_factory=dict)
    """how many items the release gave back"""
    expired: dict[str, list[str]] = field(default_factory=dict)
    """with their members, if it is a priority queue"""

    @property
    def ids(self) -> set[str]:
        """Give all leases that there were."""
        return {*self.acked, *self.released, *self.expired}


def read_ledger(structure: str, client: redis.Redis, name: str = "q") -> Ledger:
    """Read how each lease ended, once none is held any more."""
    ledger = Ledger()
    noun = "ended" if structure == "buffer" else "lease"
    for key in client.scan_iter(f"redisq:{{{name}}}:{noun}:*", count=1000):
        lease = key.split(b":", 3)[3].decode()
        read: Any = [client.get(key)] if structure == "buffer" else client.lrange(key, 0, -1)
        verb, *numbers = read[0].split()
        if verb in (b"ack", b"release"):
            assert len(read) == (1 if structure == "buffer" else 2)  # with the member that the call is known by
            (ledger.acked if verb == b"ack" else ledger.released)[lease] = int(numbers[0])
        else:
            assert verb in (b"lost", b"held")
            ledger.expired[lease] = [member.decode() for member in read[1:]]
    return ledger
