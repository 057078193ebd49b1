"""The exhaustive search of small scopes finds no difference, and detects broken scripts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from redisq.core.scripts import load
from redisq.embedded import Server
from tests import model
from tests.scripts.exhaustive import SCOPES, Scope, Search, Sent, State, Step, Unchanged
from tests.scripts.walk import Difference

# Without a depth, the scope is closed: every reachable state is seen. `make chaos` goes deeper.
DEPTHS: dict[tuple[str, str], int | None] = {
    ("buffer", "two"): None,
    ("buffer", "isolate"): 6,
    ("buffer", "ordered"): None,
    ("buffer", "client"): 6,
    ("buffer", "wait"): 5,
    ("buffer", "rates"): 5,
    ("buffer", "pauses"): 5,
    ("buffer", "pauses-later"): 5,
    ("buffer", "three"): 5,
    ("buffer", "three-ordered"): 4,
    ("priority", "one"): None,
    ("priority", "client"): 5,
    ("priority", "rates"): 5,
    ("priority", "pauses"): 5,
    ("priority", "pauses-later"): 5,
    ("priority", "score"): 4,
    ("priority", "fifo"): 5,
    ("limit", "two"): None,
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("structure", "name"), DEPTHS)
def test_scripts_and_model_agree(server: Server, structure: str, name: str) -> None:
    """Every call from every reached state has the same effect on both sides."""
    depth = DEPTHS[structure, name]
    with server.client() as client, Search(client, SCOPES[structure][name]) as search:
        search.run(depth or 10**9)
    print(f"{structure} {name}: {search}")
    assert search.closed or search.depth == depth
    assert search.transitions > 500


class MergedStates(Search):
    """A search of the model alone, which checks that merged states lead to the same states, by the same calls."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.frontier = [State(scope.new())]
        self.first = {self.mark(self.frontier[0]): self.frontier[0]}
        """the first state of each kind"""
        self.depth = self.merged = self.compared = 0

    def send(self, state: State) -> Sent:
        """Send nothing."""
        return Sent(state, [], [])

    def receive(self, sent: Sent) -> list[State]:
        """Return the new states; of merged ones, compare every seventh with the one that is kept."""
        found = []
        for after in self.following(sent.state):
            kept = self.first.setdefault(self.mark(after), after)
            if kept is after:
                found.append(after)
                continue
            self.merged += 1
            if self.merged % 7 == 0:
                self.compared += 1
                ways = [{self.mark(one) for one in [state, *self.following(state)]} for state in (kept, after)]
                assert ways[0] == ways[1], f"{kept.model} and {after.model} lead to different states"
        return found

    def following(self, state: State) -> list[State]:
        """Return the states after this one."""
        return [*(step.after for step in self.steps(state)[0]), *(after for _, after in self.unscripted(state))]

    def steps(self, state: State) -> tuple[list[Step], Unchanged]:
        """Make every call on the model, without keeping the path."""
        self.transitions = 0
        steps, quiet = super().steps(state)
        for step in steps:
            queue, step.after.sent = step.after.model, ()
            for memory in (queue.once, getattr(queue, "ended", {})):
                memory.clear()
        return steps, quiet


@pytest.mark.parametrize(
    ("structure", "name"), [(structure, name) for structure in SCOPES for name in SCOPES[structure]]
)
def test_merged_states_lead_to_the_same_states(structure: str, name: str) -> None:
    """What is checked for one state holds for those that are merged with it, as far as the model goes."""
    search = MergedStates(SCOPES[structure][name])
    search.run(depth=4)
    assert search.compared > 1


@dataclass(frozen=True)
class Broken:
    """A script with a mistake, the scope that has to find it, and part of the difference."""

    scope: tuple[str, str]
    script: str
    before: str
    after: str
    says: str


BROKEN = {
    "the group stays busy": Broken(
        ("buffer", "ordered"), "buffer/ack", "call('HDEL', busy, group)", "", "leaves other keys"
    ),
    "another client's end of a lease is overwritten": Broken(
        ("buffer", "two"), "buffer/reserve", "'lost', 'NX', 'PX', window", "'lost', 'PX', window", "ended:"
    ),
    "a push counts twice": Broken(
        ("buffer", "two"), "buffer/push", "if answer then", "if false then", "sent again"
    ),
    "a delayed batch can be released": Broken(
        ("buffer", "two"),
        "buffer/release",
        "if call('ZREM', leases, id) == 0",
        "if call('ZREM', leases, id) + call('ZREM', delayed, id) == 0",
        "release(+0, '00001') is to change nothing, and answers",
    ),
    "groups are listed in the reverse order": Broken(
        ("buffer", "two"), "buffer/groups", "ZREVRANGE", "ZRANGE", "groups('waiting', 100) is to change nothing"
    ),
    "a group that is resumed is not offered": Broken(
        ("buffer", "pauses"), "buffer/resume_group", "if length > 0 and", "if false and", "leaves other keys"
    ),
    "a dropped group stays busy": Broken(
        ("buffer", "ordered"), "buffer/drop_group", "if busy and", "if false and", "leaves other keys"
    ),
    "a repeated drop is counted again": Broken(
        ("buffer", "two"), "buffer/drop_group", "if answer then", "if false then", "sent again"
    ),
    "a repeated pause takes effect again": Broken(
        ("priority", "pauses"), "priority/pause", "if answer then", "if false then", "sent again"
    ),
    "due a ms too late": Broken(
        ("priority", "one"), "priority/reserve", "call('ZCOUNT', leases, '-inf', now)",
        "call('ZCOUNT', leases, '-inf', '(' .. now)", "reserve"
    ),
    "a push of a leased member is lost": Broken(
        ("priority", "one"), "priority/ack", "elseif noted[i] then", "elseif false then", "leaves other keys"
    ),
    "in two places": Broken(
        ("priority", "one"), "priority/push", "{ 'ZREM', ready, unready }", "{ 'ZREM', ready, {} }", "leaves other keys"
    ),
    "removed twice": Broken(
        ("priority", "one"), "priority/remove", "noted[i] ~= 'removed' and", "", "remove"
    ),
    "a lease that is over is handed out again": Broken(
        ("priority", "one"), "priority/reserve", "if special and call('EXISTS', lease, ended) > 0",
        "if special and call('EXISTS', lease) > 0", "is to change nothing, and answers"
    ),
    "an empty queue never expires": Broken(
        ("priority", "one"), "priority/pop", "call('PEXPIRE', meta, '604800000')", "", "TTL"
    ),
    "the end of a span is excluded": Broken(
        ("limit", "two"), "limit/acquire", "now - per), '+inf'", "now - per + 1), '+inf'", "acquire"
    ),
}  # fmt: skip


@pytest.mark.timeout(600)
@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_script_is_detected(server: Server, what: str) -> None:
    """The search ends with a difference, which names the call."""
    broken = BROKEN[what]
    text = load(broken.script).text.decode("ascii")
    assert broken.before in text, f"{broken.script} has changed: break it in another place"
    structure, name = broken.scope
    texts = {broken.script: text.replace(broken.before, broken.after).encode()}
    scope = SCOPES[structure][name]
    with server.client() as client, Search(client, scope, texts) as search, pytest.raises(Difference) as difference:
        search.run()
    assert broken.says in str(difference.value)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("verb", ["pause", "pause_group"])
def test_a_missing_wake_up_of_a_pause_is_detected(server: Server, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    """The scripts and the model are broken alike: a pause ends earlier than a client was told, without a wake-up."""
    pause = getattr(model.Buffer, verb)

    def silently(queue: model.Buffer, *args: Any) -> int:
        before = queue.token
        answer: int = pause(queue, *args)
        queue.token = before
        return answer

    monkeypatch.setattr(model.Buffer, verb, silently)
    text = load(f"buffer/{verb}").text.decode("ascii").replace("call('LPUSH', wake, '1')", "")
    scope, found = SCOPES["buffer"]["pauses-later"], pytest.raises(Difference, match="does not wake the blocked client")
    with server.client() as client, Search(client, scope, {f"buffer/{verb}": text.encode()}) as search, found:
        search.run()


@pytest.mark.timeout(600)
def test_a_missing_wake_up_of_a_release_is_detected(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripts and the model are broken alike: a release wakes no client."""
    come_back = model.Buffer._come_back

    def silently(queue: model.Buffer, now: int, batch: model.Batch, delay: int) -> None:
        before = queue.token
        come_back(queue, now, batch, delay)
        queue.token = before

    monkeypatch.setattr(model.Buffer, "_come_back", silently)
    texts = {}
    for name in ("buffer/release", "buffer/ack"):
        text = load(name).text.decode("ascii")
        assert "if tokens == 0 then -- a client that waits" in text
        texts[name] = text.replace("if tokens == 0 then -- a client that waits", "if false then --").encode()
    scope, found = SCOPES["buffer"]["client"], pytest.raises(Difference, match="does not wake the blocked client")
    with server.client() as client, Search(client, scope, texts) as search, found:
        search.run()
