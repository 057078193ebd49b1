"""A server at maxmemory accepts every call that frees memory, and refuses every call that grows, as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import redis

from redisq import BYTES, Batch, Buffer, PriorityQueue, Rate, RateLimiter, State
from redisq.blocking.runner import Runner
from redisq.core.batch import batch_of, buried_in
from redisq.core.priority import Order
from redisq.embedded import Server
from tests.model import Keys
from tests.scripts import keyspace
from tests.scripts.backends import at, reserve_at

pytestmark = pytest.mark.server

MANY = 1000
LATE = 4_000_000_000_000  # by then every lease has expired
FillServer = Callable[[], None]


@pytest.fixture
def client(server: Server) -> Iterator[redis.Redis]:
    """Return a client of a real server, and lift the server's memory limit afterwards."""
    with server.client() as made:
        yield made
        made.config_set("maxmemory", 0)


@pytest.fixture
def fill(client: redis.Redis) -> FillServer:
    """Return a function that fills the server: one byte is allowed, and nothing is evicted."""

    def fill() -> None:
        client.config_set("maxmemory", 1)
        with pytest.raises(redis.ResponseError, match="maxmemory"):
            client.set("more", "x")

    client.config_set("maxmemory-policy", "noeviction")
    return fill


def chunks(count: int) -> Iterator[int]:
    """Yield how many to ask for at a time."""
    while count > 0:
        yield min(count, 250)
        count -= 250


def stocked_buffer(client: redis.Redis, count: int = MANY, **settings: Any) -> tuple[Buffer[bytes], list[Batch[bytes]]]:
    """Return a buffer that has handed out this many batches, one item each, and has items left in two groups."""
    buffer = Buffer[bytes](client, "b", codec=BYTES, **settings)
    buffer.push_many([b"item"] * (count + 5), group="g")
    held = [batch for some in chunks(count) for batch in buffer.reserve_many(some, size=1)]
    buffer.push(b"one", b"two", group="h")
    assert len(held) == count
    return buffer, held


def stocked_queue(
    client: redis.Redis, count: int = MANY, **settings: Any
) -> tuple[PriorityQueue[str], list[Batch[str]]]:
    """Return a queue that has handed out this many members, one by one, and has some ready and one delayed."""
    queue = PriorityQueue(client, "p", **settings)
    queue.push_many({str(i): 0 for i in range(count)})
    held = [batch for some in chunks(count) for batch in queue.reserve_many(some)]
    assert len(held) == count
    queue.push_many({"a": 1, "b": 2})
    queue.push("c", delay=1000)
    return queue, held


def content(client: redis.Redis) -> list[tuple[Keys, set[bytes]]]:
    """Read every key. A DUMP would do, except for hashes, whose order changes when they are read."""
    return [keyspace.read(client, b"redisq:{%b}:" % name, 0) for name in (b"b", b"p", b"l")]


def test_a_full_server_accepts_a_thousand_acks(client: redis.Redis, fill: FillServer) -> None:
    """One by one and in one round trip, including partial acks and members pushed meanwhile."""
    buffer, held = stocked_buffer(client)
    queue, leased = stocked_queue(client)
    queue.push("0", 5)  # pushed while leased: it comes once more
    fill()
    assert [batch.ack() for batch in held[:500]] == [1] * 500
    assert buffer.ack(*held[500:]) == 500
    assert buffer.stats().leased == 0
    assert [batch.ack() for batch in leased[:500]] == [1] * 500
    assert queue.ack(*leased[500:]) == 500
    assert queue.stats().leased == 0
    assert queue.state("0") is State.DELAYED  # due at once: the next reserve hands it out

    batch = buffer.reserve()  # waiting items can be processed, or a full server would never empty
    assert batch
    batch.fail(batch.items[0], reason="why" * 400)
    assert batch.ack() == len(batch.items) - 1
    members = queue.reserve(3)
    assert members
    assert members.items == ["a", "b", "0"]
    members.fail("a", reason="why" * 400)
    assert members.ack() == 2
    assert buffer.audit().ok
    assert queue.audit().ok


def test_a_full_server_accepts_releases_burials_and_extensions(client: redis.Redis, fill: FillServer) -> None:
    """Hundreds of each, in both structures; released batches are handed out again."""
    buffer, held = stocked_buffer(client)
    queue, leased = stocked_queue(client)
    fill()
    last = max(max(batch.deadline for batch in held), max(batch.deadline for batch in leased))
    buffer.extend(*held, lease=1000)
    queue.extend(*leased, lease=1000)
    assert min(min(batch.deadline for batch in held), min(batch.deadline for batch in leased)) > last
    assert buffer.release(*held[:400], reason="why" * 400) + buffer.release(*held[400:800], delay=1000) == 800
    assert queue.release(*leased[:400], reason="why" * 400) + queue.release(*leased[400:800], delay=1000) == 800
    assert buffer.bury(*held[800:], reason="poison" * 200) == queue.bury(*leased[800:], reason="poison" * 200) == 200
    again = buffer.reserve_many(400)
    assert [batch.attempts for batch in again] == [2] * 400
    assert buffer.stats().delayed == 400
    members = queue.reserve(400)
    assert members
    assert members.attempts == 2
    assert queue.stats().dead == buffer.stats().dead == 200
    for batch in again[:2]:
        assert buffer.release(batch, count=False) == 1
    assert buffer.audit().ok
    assert queue.audit().ok


def test_leases_expire_on_a_full_server(client: redis.Redis, fill: FillServer) -> None:
    """Expired leases come back in reserve, and those without attempts left are buried there."""
    buffer, held = stocked_buffer(client)
    queue, leased = stocked_queue(client)
    fill()
    batch = batch_of(reserve_at(client, LATE, buffer.calls.reserve))
    assert batch
    assert batch.attempts == 2
    assert batch.id not in {one.id for one in held}
    members = batch_of(reserve_at(client, LATE, partial(queue.calls.reserve, 50)))
    assert members
    assert len(members.items) == 50
    assert members.attempts == 2
    assert len(leased) == MANY
    assert members.items[0] not in Runner(client).run(at(queue.calls.pop_many(250), LATE))

    buffer = Buffer[bytes](client, "b", codec=BYTES, max_attempts=1, max_dead=20)
    queue = PriorityQueue(client, "p", max_attempts=1, max_dead=150)
    for _ in range(30):
        events = Runner(client).run(at(buffer.calls.reserve(), LATE))
        assert len(buried_in(events)) == 1
    assert len(buried_in(reserve_at(client, 2 * LATE, queue.calls.reserve))) > 200
    assert (buffer.stats().dead, buffer.stats().trimmed) == (20, 10)
    stats = queue.stats()
    assert stats.dead == 150
    assert stats.trimmed == stats.buried - 150 > 50
    for queued in (buffer, queue):  # an audit finds only the leases with such late deadlines
        assert {finding.kind for finding in queued.audit().findings} <= {"far"}


def test_a_full_server_accepts_redrive_and_discard(client: redis.Redis, fill: FillServer) -> None:
    """Also with ids that are not dead."""
    buffer, held = stocked_buffer(client)
    queue, leased = stocked_queue(client)
    assert buffer.bury(*held) == queue.bury(*leased) == MANY
    ids = [batch.id for batch in buffer.dead(MANY)]
    dead = [item.member for item in queue.dead(MANY)]
    assert (len(ids), len(dead)) == (MANY, MANY)
    fill()
    assert buffer.redrive("nobody", *ids[:500]) == buffer.discard("nobody", *ids[500:]) == 500
    assert queue.redrive("nobody", *dead[:500]) == queue.discard("nobody", *dead[500:]) == 500
    assert buffer.stats().dead == queue.stats().dead == 0
    assert buffer.stats().waiting == 507
    assert queue.state(dead[0]) is State.READY


def test_redrive_and_discard_find_nothing_on_a_full_server(client: redis.Redis, fill: FillServer) -> None:
    """Ids that are not dead are no reason to refuse the call."""
    buffer, _ = stocked_buffer(client)
    queue, _ = stocked_queue(client)
    fill()
    assert buffer.discard("nobody") == buffer.redrive("nobody") == 0
    assert queue.discard("nobody") == queue.redrive("nobody") == 0


def test_a_full_server_hands_out_ordered_groups_and_splits_batches(client: redis.Redis, fill: FillServer) -> None:
    """One batch of a group at a time, its halves when its attempts are used up, and with rates."""
    buffer = Buffer[bytes](
        client, "b", codec=BYTES, ordered=True, isolate=True, max_attempts=1, rates=[Rate(1000, per=1)]
    )
    buffer.push(*[b"%d" % i for i in range(8)], group="g")
    fill()
    sizes = []
    while batch := buffer.reserve(timeout=30):
        sizes.append(len(batch.items))
        if len(batch.items) == 1:
            batch.ack()
        else:
            batch.release()
        if sum(size == 1 for size in sizes) == 8:
            break
    assert sizes[:4] == [8, 4, 2, 1]
    stats = buffer.stats()
    assert (stats.done, stats.dead, stats.waiting, stats.busy_groups) == (8, 0, 0, 0)


def test_a_full_server_accepts_removals_and_purges(client: redis.Redis, fill: FillServer) -> None:
    """Members in every state are removed, and a purge empties both structures."""
    buffer, held = stocked_buffer(client)
    queue, leased = stocked_queue(client)
    buffer.bury(*held[:3])
    queue.bury(*leased[:1])
    fill()
    assert queue.remove("0", "1", "a", "c", "nobody") == 4  # dead, leased, ready, delayed, absent
    assert len(buffer.pop("g", 2)) == 2
    assert queue.pop() is not None
    assert buffer.purge() == MANY + 5
    assert queue.purge() == MANY - 1  # removed members are leased until their lease ends
    assert buffer.reserve() is None
    assert queue.reserve() is None


def test_a_full_server_can_be_paused_and_resumed(client: redis.Redis, fill: FillServer) -> None:
    """The queue and hundreds of groups, for a time and until they are resumed, with the longest reason."""
    buffer, held = stocked_buffer(client, 5)
    queue, _ = stocked_queue(client, 5)
    for i in range(300):
        buffer.push(b"x", group=f"g{i}")
    fill()
    for queued in (buffer, queue):
        queued.pause(60, "why" * 400)
        queued.pause(reason="why not" * 200)
        assert queued.reserve() is None
        assert len(queued.stats().pause_reason) == 1000
        assert queued.resume()
        assert not queued.resume()
        queued.pause(60)
        assert queued.resume()
    for i in range(300):
        buffer.pause_group(f"g{i}", 60 if i % 2 else None)
    buffer.pause_group("new")
    assert buffer.stats().paused_groups == 301
    assert buffer.pop("g1") == []
    assert len(buffer.groups(1000, state="paused")) == 301
    assert all(buffer.resume_group(f"g{i}") for i in range(300))
    assert not buffer.resume_group("nobody")
    assert buffer.pop("g1") == [b"x"]
    assert buffer.ack(*held) == 5
    assert buffer.audit().ok


def test_a_full_server_resumes_groups_whose_pause_has_ended(client: redis.Redis, fill: FillServer) -> None:
    """The one that pop names, and ten in each pop_longest and reserve."""
    buffer, _ = stocked_buffer(client, 0)
    for i in range(21):
        buffer.push(b"x", group=f"p{i}")
        buffer.pause_group(f"p{i}", 60)
    fill()
    for op in (buffer.calls.pop("p20", 2), buffer.calls.pop_longest(1, 2)):
        assert Runner(client).run(at(op, LATE))
    assert batch_of(reserve_at(client, LATE, buffer.calls.reserve))
    assert buffer.stats().paused_groups == 0
    assert {finding.kind for finding in buffer.audit().findings} <= {"far"}


def test_a_full_server_drops_groups_and_lists_them(client: redis.Redis, fill: FillServer) -> None:
    """Waiting items, hundreds of batches in each state, a busy group, and an unknown one."""
    buffer, held = stocked_buffer(client, 900)
    buffer.release(*held[:300], delay=1000)
    buffer.bury(*held[300:600])
    ordered = Buffer[bytes](client, "b", codec=BYTES, ordered=True)
    batch = ordered.reserve()
    assert batch
    assert batch.release(delay=1000) == len(batch.items)
    fill()
    assert buffer.peek("h", 5) == [b"one", b"two"]
    assert buffer.drop_group("nobody") == 0
    assert buffer.drop_group("g") + buffer.drop_group("h") == 900 - 300 + 5 + 2
    stats = buffer.stats()
    assert (stats.waiting, stats.leased, stats.delayed, stats.dead, stats.busy_groups) == (0, 300, 0, 0, 0)
    assert buffer.ack(*held[600:]) == 300
    assert buffer.audit().ok


@pytest.mark.parametrize("order", ["fifo", "score"])
def test_a_full_server_refuses_every_push_as_a_whole(client: redis.Redis, fill: FillServer, order: Order) -> None:
    """Pushes of all kinds, to members in every state, and grants: refused, with every key unchanged."""
    buffer, held = stocked_buffer(client, 5)
    queue, leased = stocked_queue(client, 5, order=order)
    buffer.release(*held[:3])
    queue.bury(*leased[:1])
    queue.push("1", 9)
    limiter = RateLimiter(client, "l", Rate(5, 60))
    limiter.acquire()
    fill()
    before = content(client)
    refused: dict[str, Callable[[], object]] = {
        "push": lambda: buffer.push(b"x", group="g"),
        "push of much": lambda: buffer.push(*[b"x"] * 5000, group="g"),
        "push of a new group": lambda: buffer.push(b"x", group="new"),
        "push_many": lambda: buffer.push_many([b"x"] * 20_000),
        "push_front": lambda: buffer.push_front(b"x", group="h"),
        "new member": lambda: queue.push("new", 1),
        "new member, later": lambda: queue.push("new", 1, delay=5),
        "better place": lambda: queue.push("b", 0),
        "kept place": lambda: queue.push("b", 9),
        "another place": lambda: queue.push("b", 9, replace=True),
        "a payload": lambda: queue.push("b", 9, payload="x" * 100),
        "put off": lambda: queue.push("b", 9, delay=5, replace=True),
        "delayed, now": lambda: queue.push("c"),
        "delayed, earlier": lambda: queue.push("c", delay=5),
        "leased": lambda: queue.push("2", 1),
        "leased, noted again": lambda: queue.push("1", 1),
        "dead": lambda: queue.push("0"),
        "dead, later": lambda: queue.push("0", delay=5),
        "many members": lambda: queue.push_many({f"new {i}": i for i in range(900)}),
        "acquire": limiter.acquire,
    }
    for what, call in refused.items():
        with pytest.raises(redis.ResponseError, match="maxmemory"):
            call()
        assert content(client) == before, what
    client.config_set("maxmemory", 0)
    for call in refused.values():  # the same calls succeed with enough memory
        call()
