"""`redisq adopt`: what is taken over, in which order, and what is left alone."""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from redisq import BYTES, Buffer, PriorityQueue, embedded
from redisq.cli import adoption
from tests.cli.conftest import Run

pytestmark = pytest.mark.server

LISTS = "stream_buffer:follows:*"
BUFFER = ("adopt", "buffer", "q", "--lists", LISTS)
ZSET = ("adopt", "priority", "q", "--zset", "index")


def items_of(client: redis.Redis, group: str) -> list[bytes]:
    return list(Buffer(client, "q", codec=BYTES).peek(group, 100_000))


def members_of(client: redis.Redis) -> list[tuple[bytes, float]]:
    queue = PriorityQueue(client, "q", codec=BYTES, order="score")
    return [(item.member, item.priority) for item in queue.peek(100_000)]


def filled(client: redis.Redis, groups: int = 3, each: int = 5) -> dict[str, list[bytes]]:
    made = {f"g{i}": [b"%d \xff not JSON %d" % (i, j) for j in range(each)] for i in range(groups)}
    for group, items in made.items():
        client.lpush(LISTS.replace("*", group), *items)
    return made


@pytest.mark.every_server
def test_lists_become_groups_with_their_items_in_order(client: redis.Redis, run: Run) -> None:
    made = filled(client, each=2_500)
    code, out, err = run(*BUFFER, "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told.pop("seconds") >= 0
    assert told == {
        "queue": "q",
        "kind": "buffer",
        "dry_run": False,
        "items": 7_500,
        "resumed": 0,
        "left": 0,
        "lists": 3,
        "skipped": 0,
        "unnamed": 0,
    }
    assert {group: items_of(client, group) for group in made} == made
    assert not client.keys("stream_buffer:*")
    assert not client.keys("*adopting*")
    assert Buffer(client, "q").audit().ok
    lives = sorted(client.pttl(key) for key in client.keys("*once*"))
    assert 0 < lives[0] <= lives[-2] <= 86_400_000
    assert 364 * 86_400_000 < lives[-1] <= 365 * 86_400_000  # that there were such lists


def test_lists_that_are_pushed_to_at_the_right(client: redis.Redis, run: Run) -> None:
    client.rpush("old:a", *range(2_500))
    assert run("adopt", "buffer", "q", "--lists", "old:*", "--newest", "right")[0] == 0
    assert items_of(client, "a") == [b"%d" % i for i in range(2_500)]


def test_what_is_adopted_waits_behind_what_the_group_has(client: redis.Redis, run: Run) -> None:
    Buffer(client, "q", codec=BYTES).push(b"there", group="g0")
    made = filled(client, 1)
    assert run(*BUFFER)[0] == 0
    assert items_of(client, "g0") == [b"there", *made["g0"]]


def test_names_with_any_bytes(client: redis.Redis, run: Run) -> None:
    """Of the characters that mean something in a pattern, only the * does."""
    keys = [b"old[?]:" + group + b"{x}\\" for group in (b"a", b"\xff", b"*", b"{}", b"b:c", b"}", b"a{b", b"[a]")]
    for key in [*keys, b"oldx:a{x}\\", b"old[?]:{x}", b"old[?]:a{x}"]:
        client.lpush(key, key)
    assert run("adopt", "buffer", "q", "--lists", "old[?]:*{x}\\")[0] == 0
    there = {key.decode("utf-8", "surrogateescape")[7:-4]: 1 for key in keys}
    assert Buffer(client, "q").groups() == there
    assert sorted(client.keys("old*")) == [b"old[?]:a{x}", b"old[?]:{x}", b"oldx:a{x}\\"]


def test_keys_that_are_no_lists_are_left_alone(client: redis.Redis, run: Run) -> None:
    filled(client)
    client.zadd("stream_buffer:follows:groups", {"g0": 3})
    client.set("stream_buffer:follows:lock", 1)
    client.lpush("stream_buffer:follows:", "nameless")
    Buffer(client, "other").push("mine", group="g")
    other = {key: client.dump(key) for key in client.keys("redisq:{other}:*")}
    code, out, _ = run("adopt", "buffer", "q", "--lists", "*", "--json")
    assert (code, json.loads(out)["items"]) == (0, 16)
    assert json.loads(out)["skipped"] >= 2 + len(other)  # and some of q, as the scan meets them
    assert {key: client.dump(key) for key in client.keys("redisq:{other}:*")} == other
    client.flushall()
    filled(client)
    client.zadd("stream_buffer:follows:groups", {"g0": 3})
    client.lpush("stream_buffer:follows:", "nameless")
    code, out, _ = run(*BUFFER)
    assert (code, out.splitlines()[1:]) == (
        1,
        [
            "left alone: 1 keys that match, but are not lists or belong to a queue",
            "left alone: 1 lists whose names have nothing where * stands: a group needs a name",
        ],
    )
    assert client.lrange("stream_buffer:follows:", 0, -1) == [b"nameless"]


def test_the_lengths_are_deleted_when_all_lists_are_empty(client: redis.Redis, run: Run) -> None:
    """Their drift does not matter: the lists are what counts."""
    made = filled(client)
    client.zadd("stream_buffer:follows:groups", {"g0": 17, "gone": 2})
    options = ("--lengths", "stream_buffer:follows:groups")
    assert run(*BUFFER, *options, "--dry-run")[0] == 0
    assert client.exists("stream_buffer:follows:groups")
    code, out, _ = run(*BUFFER, *options, "--json")
    assert (code, json.loads(out)["skipped"]) == (0, 0)
    assert Buffer(client, "q").groups() == dict.fromkeys(made, 5)
    assert not client.exists("stream_buffer:follows:groups")
    client.set("x", 1)
    code, _, err = run(*BUFFER, "--lengths", "x")
    assert (code, err) == (1, "redisq: x is a string: give the name of a sorted set\n")


def test_a_dry_run_counts_and_changes_nothing(client: redis.Redis, run: Run) -> None:
    filled(client)
    client.zadd("index", {"a": 1, "b": 2, "c": float("inf")})
    before = {key: client.dump(key) for key in client.keys("*")}
    code, out, _ = run(*BUFFER, "--dry-run", "--follow", "10m")
    assert (code, out) == (0, "15 items of 3 lists would be adopted into q\n")
    code, out, _ = run(*ZSET, "--dry-run", "--json")
    told = json.loads(out)
    assert (code, told["items"], told["infinite"], told["dry_run"]) == (1, 2, 1, True)
    assert {key: client.dump(key) for key in client.keys("*")} == before


NOTHING = "no list matches nothing:*"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["buffer", "q", "--lists", "nothing:*", "--lengths", "lengths"], NOTHING),
        (["buffer", "q", "--lists", "nothing:*", "--dry-run"], NOTHING),
        (["buffer", "q", "--lists", "nothing:*", "--json"], NOTHING),
        (
            ["buffer", "q", "--lists", "l*ngths"],
            "no list matches l*ngths (1 key of other types or of queues left alone)",
        ),
        (["priority", "q", "--zset", "nokey"], "there is no sorted set nokey"),
        (["priority", "q", "--zset", "nokey", "--json"], "there is no sorted set nokey"),
    ],
)
@pytest.mark.parametrize("exists", [False, True])
def test_a_source_that_does_not_exist(
    client: redis.Redis, run: Run, exists: bool, arguments: list[str], said: str
) -> None:
    """It is an error, for it may be misspelt; also where there is a queue, into which something else was adopted."""
    client.zadd("lengths", {"a": 1})
    if exists:
        client.lpush("old:g", 1)
        client.zadd("index", {"a": 1})
        assert run(*(("adopt", "buffer", "q", "--lists", "old:*") if arguments[0] == "buffer" else ZSET))[0] == 0
    before = {key: client.dump(key) for key in client.keys("*")}
    said += ", and no earlier run into q found one: is it misspelt?"
    assert run("adopt", *arguments) == (1, "", f"redisq: {said}\n")
    assert {key: client.dump(key) for key in client.keys("*")} == before


def test_an_adoption_that_is_repeated_succeeds(client: redis.Redis, run: Run) -> None:
    filled(client)
    client.zadd("index", {"a": 1})
    for command, gone in (
        (BUFFER, f"no list matches {LISTS}"),
        (("adopt", "priority", "index", "--zset", "index"), "there is no sorted set index"),
    ):
        assert run(*command)[0] == 0
        for more in ((), ("--dry-run",)):
            code, out, err = run(*command, *more)
            assert (code, out.splitlines()[1:], err) == (
                0,
                [f"{gone} any more: an earlier run found what there was"],
                "",
            )
        assert json.loads(run(*command, "--json")[1])["items"] == 0


def test_a_dry_run_is_not_an_adoption(client: redis.Redis, run: Run) -> None:
    filled(client)
    assert run(*BUFFER, "--dry-run")[0] == 0
    client.delete(*client.keys("stream_buffer:*"))
    assert run(*BUFFER)[0] == 1


@pytest.mark.every_server
def test_a_sorted_set_becomes_a_queue_in_score_order(client: redis.Redis, run: Run) -> None:
    scores = {f"m{i}": i * 0.1 + 1e-9 for i in range(1_300)} | {"low": -1.5e300, "zero": -0.0}
    client.zadd("index", scores)
    code, out, err = run(*ZSET)
    assert (code, out.startswith("1,302 members of index adopted into q in "), err) == (0, True, "")
    expected = sorted(((name.encode(), score) for name, score in scores.items()), key=lambda one: (one[1], one[0]))
    assert members_of(client) == expected
    assert not client.exists("index")
    assert PriorityQueue(client, "q", order="score").audit().ok


def test_the_lower_score_wins(client: redis.Redis, run: Run) -> None:
    queue = PriorityQueue(client, "q", order="score", codec=BYTES)
    queue.push_many([(b"a", 5), (b"b", 1)])
    client.zadd("index", {"a": 2, "b": 3, "c": 4, "far": float("inf"), "near": float("-inf")})
    code, out, _ = run(*ZSET)
    assert (code, out.splitlines()[1:]) == (1, ["left alone: 2 members with an infinite score: a queue takes none"])
    assert members_of(client) == [(b"b", 1), (b"a", 2), (b"c", 4)]
    assert client.zrange("index", 0, -1) == [b"near", b"far"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("buffer", "q", "--lists", "a"), 2, "--lists is a: give one *, where the group's name stands"),
        (("buffer", "q", "--lists", "a*b*"), 2, "--lists is a*b*: give one *, where the group's name stands"),
        (("buffer", "p", "--lists", "a*"), 1, "p is a priority queue, not a buffer"),
        (("priority", "b", "--zset", "index"), 1, "b is a buffer, not a priority queue"),
        (("priority", "p", "--zset", "index"), 1, "p is kept in fifo order, not in score"),
        (("priority", "q", "--zset", "list"), 1, "list is a list: give the name of a sorted set"),
        (("priority", "q", "--zset", "redisq:{p}:ready"), 2, "redisq:{p}:ready belongs to a queue"),
        (("buffer", "q{}", "--lists", "a*"), 2, "queue name is 'q{}': leave out { and }"),
    ],
)
def test_what_is_refused(client: redis.Redis, run: Run, arguments: tuple[str, ...], code: int, message: str) -> None:
    client.lpush("list", 1)
    Buffer(client, "b").push(1)
    PriorityQueue(client, "p").push("m")
    before = client.dbsize()
    found, out, err = run("adopt", *arguments)
    assert (found, out) == (code, "")
    assert err.startswith(f"redisq: {message}")
    assert client.dbsize() == before


def test_items_are_moved_in_bounded_steps(client: redis.Redis, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most so many items or bytes, but at least one item."""
    pieces: list[list[bytes]] = []
    move = adoption.Adoption._move

    def noted(self: Any, moved: list[tuple[bytes, list[bytes]]], read: int) -> list[int]:
        pieces.extend(piece[3:] for _, piece in moved)
        return move(self, moved, read)

    monkeypatch.setattr(adoption.Adoption, "_move", noted)
    items = [b"x" * size for size in (400_000, 400_000, 400_000, 1, 3_000_000, 1, *[10] * 2_000)]
    client.lpush("old:a", *items)
    assert run("adopt", "buffer", "q", "--lists", "old:*")[0] == 0
    assert items_of(client, "a") == items
    assert [item for piece in pieces for item in piece] == items
    assert max(map(len, pieces)) == 1_000
    assert all(sum(map(len, piece[:-1])) < adoption.BYTES for piece in pieces)


def test_many_lists_share_the_bytes_of_a_round_trip(
    client: redis.Redis, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds: list[list[int]] = []
    move = adoption.Adoption._move

    def noted(self: Any, moved: list[tuple[bytes, list[bytes]]], read: int) -> list[int]:
        rounds.append([sum(map(len, piece[3:])) for _, piece in moved])
        return move(self, moved, read)

    monkeypatch.setattr(adoption.Adoption, "_move", noted)
    for i in range(250):
        client.lpush(f"old:{i}", *[b"x" * 1_000] * 30)
    assert run("adopt", "buffer", "q", "--lists", "old:*")[0] == 0
    assert Buffer(client, "q").groups(1_000) == {str(i): 30 for i in range(250)}
    assert max(map(len, rounds)) == 100
    assert max(map(sum, rounds)) < adoption.BYTES + 100 * 1_000
    assert len(rounds) < 30


def test_a_list_that_fills_up_meanwhile_does_not_keep_the_others_waiting(
    client: redis.Redis, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adoption, "ITEMS", 2)
    made = filled(client, 3, 3)
    move = adoption.Adoption._move

    def slow(self: Any, moved: list[tuple[bytes, list[bytes]]], read: int) -> list[int]:
        client.lpush(LISTS.replace("*", "g1"), *[b"new"] * 3)
        return move(self, moved, read)

    with monkeypatch.context() as patch:
        patch.setattr(adoption.Adoption, "_move", slow)
        code, out, _ = run(*BUFFER, "--json")
    told = json.loads(out)
    assert code == 0
    assert 0 < told["left"] <= client.llen(LISTS.replace("*", "g1"))
    assert items_of(client, "g2")[:3] == made["g2"]
    assert json.loads(run(*BUFFER, "--json")[1])["left"] == 0
    assert not client.keys("stream_buffer:*")


def test_follow_goes_on_until_nothing_has_come(client: redis.Redis, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Driven by a clock of the test's own."""
    now, rounds = [0.0], []

    def sleep(seconds: float) -> None:
        now[0] += seconds
        rounds.append(now[0])
        if len(rounds) in (3, 20):
            client.lpush(LISTS.replace("*", "g"), b"late")

    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=sleep)
    monkeypatch.setattr("redisq.cli.adopt.time", clock)
    code, out, _ = run(*BUFFER, "--follow", "30s", "--json")
    assert (code, json.loads(out)["items"], json.loads(out)["lists"]) == (0, 2, 1)
    assert rounds[-1] == 50


@pytest.mark.parametrize("error", [KeyboardInterrupt(), redis.ConnectionError("gone")])
def test_what_interrupts_it_tells_how_far_it_came(
    client: redis.Redis, run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    filled(client)

    def sleep(_: float) -> None:
        raise error

    monkeypatch.setattr("redisq.cli.adopt.time", SimpleNamespace(monotonic=lambda: 0.0, sleep=sleep))
    code, out, err = run(*BUFFER, "--follow", "1m")
    assert out == ""
    assert err.endswith("; at least 15 items are adopted; run it again to go on\n")
    assert code == (130 if isinstance(error, KeyboardInterrupt) else 3)


def test_a_full_server_loses_nothing(client: redis.Redis, run: Run) -> None:
    made = filled(client)
    client.config_set("maxmemory", 1)
    code, _, err = run(*BUFFER)
    assert code == 1
    assert "used memory > 'maxmemory'" in err
    assert err.endswith("; at least 0 items are adopted; run it again to go on\n")
    client.config_set("maxmemory", 0)
    assert run(*BUFFER)[0] == 0
    assert {group: items_of(client, group) for group in made} == made


def test_two_adoptions_at_once_while_producers_push(
    client: redis.Redis, server: embedded.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adoption, "ITEMS", 7)
    done = threading.Event()

    def adopt_all() -> None:
        with server.client() as mine:
            work = adoption.Adoption(mine, Buffer(mine, "q", codec=BYTES), "redisq")
            while True:
                last = done.is_set()
                work.take({adoption.Source(b"old:%d" % i, "left", b"%d" % i): 1_000 for i in range(3)})
                if last:
                    return

    threads = [threading.Thread(target=adopt_all) for _ in range(2)]
    for thread in threads:
        thread.start()
    for i in range(3_000):
        client.lpush(f"old:{i % 3}", b"%d" % i)
    done.set()
    for thread in threads:
        thread.join()
    found = {i: items_of(client, str(i)) for i in range(3)}
    assert Counter(item for items in found.values() for item in items) == Counter(b"%d" % i for i in range(3_000))
    assert found[0] == sorted(found[0], key=int)


def test_a_slow_process_pushes_and_drops_only_its_own_piece(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its piece was taken up by another one meanwhile, which has laid the next one aside."""
    monkeypatch.setattr(adoption, "ITEMS", 2)
    client.lpush("old:g", 1, 2, 3, 4)
    buffer = Buffer(client, "q", codec=BYTES)
    slow, fast = (adoption.Adoption(client, buffer, "redisq") for _ in range(2))
    source, aside = adoption.Source(b"old:g", "left", b"g"), slow.aside(b"old:g")
    ((left, piece, read),) = buffer.send(slow._take(source, aside, 1_000))
    assert (left, piece[3:]) == (2, [b"1", b"2"])
    ((left, same, _),) = buffer.send(fast._take(source, aside, 1_000))
    assert (left, same) == (2, piece)  # nothing more before it is dropped
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(buffer.runner, "commands", lambda _: None)
        assert fast.resume([aside]) == 2
    (once,) = client.keys("*once*")
    assert client.pttl(once) > 30 * 86_400_000  # until it is dropped, which may be long after a kill
    assert buffer.pop("g") == [b"1", b"2"]
    ((left, following, read),) = buffer.send(fast._take(source, aside, 1_000))
    assert (left, following[3:]) == (0, [b"3", b"4"])
    slow._move([(aside, piece)], read)
    assert client.lrange(aside, 0, -1) == following
    fast._move([(aside, following)], read)
    assert buffer.pop("g") == [b"3", b"4"]
    assert not client.keys("*adopting*")


def test_a_process_that_was_stopped_for_days_pushes_nothing(
    client: redis.Redis, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one has moved its piece meanwhile, and no server remembers that."""
    filled(client, 1)
    client.zadd("index", {"a": 1})
    move = adoption.Adoption._move

    def stopped(self: Any, moved: list[tuple[bytes, list[bytes]]], read: int) -> list[int]:
        assert move(self, moved, read)
        client.delete(*client.keys("*once:adopt-*"))
        return move(self, moved, read - adoption._DONE)

    with monkeypatch.context() as patch:
        patch.setattr(adoption.Adoption, "_move", stopped)
        for command in (BUFFER, ("adopt", "priority", "p", "--zset", "index")):
            code, _, err = run(*command)
            assert (code, "LATE these items were read many hours ago" in err) == (1, True)
    assert Buffer(client, "q").groups() == {"g0": 5}
    assert run(*BUFFER)[0] == 0


def test_a_piece_of_another_adoption_is_not_taken(client: redis.Redis, run: Run) -> None:
    """One that was killed on its way into another queue, which may have it already."""
    filled(client, 1)
    work = adoption.Adoption(client, Buffer(client, "first", codec=BYTES), "redisq")
    key = LISTS.replace("*", "g0").encode()
    with contextlib.suppress(InterruptedError), pytest.MonkeyPatch.context() as patch:
        patch.setattr(work, "_move", lambda *_: (_ for _ in ()).throw(InterruptedError))
        work.take({adoption.Source(key, "left", b"g0"): 1})
    client.lpush(key, b"late")
    code, _, err = run(*BUFFER)
    assert code == 1
    assert "an interrupted adoption into the buffer redisq:{first} has left items in redisq:adopting:{" in err
    assert run("adopt", "buffer", "first", "--lists", LISTS)[0] == 0
    assert run(*BUFFER)[0] == 0  # it has found the list before, so that is not misspelt
    assert Buffer(client, "first").groups() == {"g0": 6}
