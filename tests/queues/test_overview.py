"""The overview of all queues, in few round trips."""

from __future__ import annotations

from typing import Any

import pytest

from redisq import BufferStats, PriorityStats, QueueOverview, WrongLayout
from tests.queues.flavours import Flavour


def read(flavour: Flavour, **options: Any) -> list[QueueOverview]:
    """Read the overview with a client of this flavour."""
    found: list[QueueOverview] = flavour.do(flavour.library.overview(flavour.client, **options))
    return found


def test_each_queue_has_the_same_stats_as_by_itself(flavour: Flavour) -> None:
    buffers = [flavour.buffer(f"b{place}") for place in range(3)]
    fifo, score = flavour.queue("fifo"), flavour.queue("score", order="score")
    for count, buffer in enumerate(buffers):
        flavour.do(buffer.push(*range(count + 1)))
    flavour.do(fifo.push("a"))
    flavour.do(score.push("a"))
    flavour.do(fifo.reserve())
    seen = read(flavour)
    assert [one.info.name for one in seen] == ["b0", "b1", "b2", "fifo", "score"]
    assert [one.stats.waiting for one in seen if one.stats] == [1, 2, 3, 0, 1]
    assert [type(one.stats) for one in seen] == [BufferStats] * 3 + [PriorityStats] * 2
    assert not any(one.error for one in seen)
    assert [one.info.name for one in read(flavour, names=["score", "b1", "none"])] == ["b1", "score"]


def test_a_queue_that_cannot_be_read_does_not_hide_the_others(flavour: Flavour) -> None:
    """One of another layout, and one with a key of another type."""
    for name in ("first", "last", "broken"):
        flavour.do(flavour.buffer(name).push(1))
    flavour.plain.hset("redisq:{future}:meta", "queue", "3 buffer")
    flavour.plain.delete("redisq:{broken}:leases")
    flavour.plain.set("redisq:{broken}:leases", "x")
    seen = {one.info.name: one for one in read(flavour)}
    assert isinstance(seen["future"].error, WrongLayout)
    assert seen["broken"].error is not None
    assert seen["broken"].stats is None
    assert [seen[name].stats.waiting for name in ("first", "last")] == [1, 1]  # type: ignore[union-attr]


def test_buffers_with_more_groups_than_one_call_counts(real: Flavour) -> None:
    """They are counted in pages, together, and no group is left out."""
    counts = {"none": 1, "small": 10, "large": 5_001, "larger": 10_500}
    for name, count in counts.items():
        pipe = real.plain.pipeline(transaction=False)
        calls = real.buffer(name).calls
        for group in range(count):
            calls.push([1], group=str(group)).queue(pipe)
        pipe.execute()
    seen = {one.info.name: one.stats for one in read(real)}
    assert {name: stats.waiting for name, stats in seen.items() if stats} == counts


def test_an_outage_is_raised(real: Flavour) -> None:
    """It affects all queues."""
    real.do(real.buffer("q").push(1))
    plain: Any = real.plain
    plain.execute_command("ACL", "SETUSER", "looks", "on", "nopass", "~*", "+scan", "+hget", "+hello", "+client")
    client = real.make_client(username="looks", password="x")
    found = real.do(real.library.overview(client))
    assert "NOPERM" in str(found[0].error) or "no permissions" in str(found[0].error)
    with pytest.raises(Exception, match="invalid"):
        real.do(real.library.overview(real.make_client(username="nobody", password="x")))
