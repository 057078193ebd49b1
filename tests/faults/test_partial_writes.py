"""A script that fails has written nothing: whichever key has another type or is denied, and on a full server.

Every script runs in every state of `scenarios.py`, with one key at a time broken: afterwards all keys are unchanged. If
the broken key does not matter to the call, everything else is as without it.

Malformed and out-of-range arguments are in `tests/scripts/test_raw.py`; thousands of calls on a full server, and the
Python classes on it, in `tests/scripts/test_full_server.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from redisq.core.calls import Call
from redisq.core.scripts import Script, names
from redisq.embedded import Server

from .scenarios import SCENARIOS, Q, Scenario, commands_of, everything, plain, send

pytestmark = pytest.mark.server

SETTLING = ("reserve", "ack", "release", "bury")
Everything = dict[bytes, tuple[bytes, bool]]
"""Each key's DUMP, and whether it has a TTL."""
Check = Callable[[redis.Redis, Scenario], list[str]]
UNIMPORTANT = {"hincrby": Q + b"meta", "lpop": Q + b"wake"}
"""What a script writes by pcall: counters, and the removal of a wake-up that no client needs any more."""
_NOUNS = "meta groups since ready leases held delayed dead again rows payloads busy paused paused_groups grants wake"
NAMES = {Q + noun.encode() for noun in _NOUNS.split()}
"""Keys that a script may look at although they do not exist."""
HASHES = {b"meta", b"busy", b"again", b"rows", b"payloads"}
by_script = pytest.mark.parametrize("script", names())


@pytest.fixture
def client(server: Server) -> Iterator[redis.Redis]:
    """Return a client of a real server, and restore the server's limit and users afterwards."""
    with server.client() as made:
        yield made
        made.config_set("maxmemory", 0)
        made.acl_deluser("denied")


def run_intact(client: redis.Redis, scenario: Scenario) -> tuple[Any, Everything, Everything]:
    """Run an unbroken scenario; return the reply, and all keys before and after it."""
    scenario.build(client)
    before, reply = everything(client), send(client, scenario.call)
    assert not isinstance(reply, Exception) or str(reply).startswith("LEASELOST"), f"{scenario}: {reply}"
    return reply, before, everything(client)


def without(key: bytes, found: Everything) -> Everything:
    return {name: value for name, value in found.items() if name != key}


def of_another_type(client: redis.Redis, scenario: Scenario) -> list[str]:
    """Return each key in turn another type; yield each write that happens anyway."""
    _, before, after = run_intact(client, scenario)
    wrong = []
    for key in {*scenario.call.keys, *before, *after} - {Q + b"guard"}:
        scenario.build(client)
        client.delete(key)
        if key.removeprefix(Q) in HASHES:
            client.rpush(key, "x")
        else:
            client.hset(key, "f", "v")
        broken = everything(client)
        reply, now = send(client, scenario.call), everything(client)
        stopped = isinstance(reply, Exception) or reply == [b"ended"]  # a lease id that is in use already
        # An audit reports the key and goes on; if it is a lease's list, it takes its members to be in no lease.
        looked = scenario.script.endswith("/audit") and (now == broken or key.startswith(Q + b"lease:"))
        if not looked and (now != broken if stopped else without(key, now) != without(key, after)):
            wrong.append(f"{scenario}, {key!r} has another type: {reply}")
        if now.get(key) != broken[key]:
            wrong.append(f"{scenario}, {key!r} of another type was overwritten: {reply}")
    return wrong


def denied(client: redis.Redis, scenario: Scenario) -> list[str]:
    """Deny each key in turn that the call may write; yield each write that happens anyway."""
    _, before, after = run_intact(client, scenario)
    every = {*scenario.call.keys, *before, *after}
    changed = {key for key in every if before.get(key) != after.get(key)}
    client.acl_setuser("denied", enabled=True, nopass=True, categories=["+@all"], keys=["*"])
    wrong = []
    with client_of(client, "denied") as user:
        for key in {*scenario.call.keys, *changed} - {Q + b"guard"}:
            scenario.build(client)
            allowed = [f"~{name.decode()}" for name in (every | NAMES) - {key}]
            plain(client, "ACL", "SETUSER", "denied", "resetkeys", *allowed)
            reply, now = send(user, scenario.call), everything(client)
            spared = key if key == Q + b"wake" else b""  # a wake-up that no client needs any more may stay
            if now != before if isinstance(reply, Exception) else without(spared, now) != without(spared, after):
                wrong.append(f"{scenario}, {key!r} is denied: {reply}")
            if key in scenario.call.keys and not isinstance(reply, Exception):
                wrong.append(f"{scenario}, {key!r} is denied, but it was not stopped: {reply}")
    return wrong


def on_a_full_server(client: redis.Redis, scenario: Scenario) -> list[str]:
    """Fill the server's memory: calls that grow must be refused without a change, others must succeed as usual."""
    expected, before, after = run_intact(client, scenario)
    scenario.build(client)
    client.config_set("maxmemory", 1)
    reply = send(client, scenario.call)
    client.config_set("maxmemory", 0)
    now = everything(client)
    if scenario.grows:
        refused = isinstance(reply, Exception) and "maxmemory" in str(reply)
        return [] if refused and now == before else [f"{scenario}, on a full server: {reply}"]
    same = str(reply) == str(expected) and now == after
    return [] if same else [f"{scenario}, on a full server: {reply} instead of {expected}"]


def client_of(client: redis.Redis, user: str) -> redis.Redis:
    """Return a client that logs in as another user of the same server."""
    path = client.connection_pool.connection_kwargs["path"]
    return redis.Redis(unix_socket_path=path, username=user, password="any")


def scenarios(script: str) -> list[Scenario]:
    return [scenario for scenario in SCENARIOS if scenario.script == script]


@by_script
def test_a_key_of_another_type_stops_a_script_before_it_writes(client: redis.Redis, script: str) -> None:
    """For every key that exists, that is declared or that would be created."""
    assert [line for scenario in scenarios(script) for line in of_another_type(client, scenario)] == []


@by_script
def test_a_denied_key_stops_a_script_before_it_writes(client: redis.Redis, script: str) -> None:
    """For every key that is declared, and every other one that the call would change."""
    assert [line for scenario in scenarios(script) for line in denied(client, scenario)] == []


@by_script
def test_a_full_server_refuses_growth_and_accepts_everything_else(client: redis.Redis, script: str) -> None:
    """In every state."""
    client.config_set("maxmemory-policy", "noeviction")
    assert [line for scenario in scenarios(script) for line in on_a_full_server(client, scenario)] == []


COUNTERS = ("done", "failed", "buried", "trimmed")


@pytest.mark.parametrize("script", [name for name in names() if name.split("/")[1] in SETTLING])
def test_a_counter_that_is_not_a_number_stops_nothing(client: redis.Redis, script: str) -> None:
    """Counters are for people to read: the call does the same as with valid ones."""
    counted = False
    for scenario in scenarios(script):
        expected, before, after = run_intact(client, scenario)
        if Q + b"meta" not in before:
            continue
        scenario.build(client)
        client.hset(Q + b"meta", mapping=dict.fromkeys(COUNTERS, "many"))
        reply, now = send(client, scenario.call), everything(client)
        assert str(reply) == str(expected), scenario
        assert without(Q + b"meta", now) == without(Q + b"meta", after), scenario
        counted = counted or before[Q + b"meta"] != after[Q + b"meta"]
    assert counted


def naive(what: str, text: str, *, grows: bool) -> Scenario:
    """Return a scenario with a script that is written in the usual way."""
    keys = (Q + b"items:g", Q + b"groups", Q + b"guard")
    script = Script("naive/push", f"local items, groups, guard = KEYS[1], KEYS[2], KEYS[3]\n{text}".encode())
    return Scenario(what, (), Call(script, keys, (), int), grows)


NAIVE: list[tuple[Check, Scenario]] = [
    (
        of_another_type,
        naive("no look", "redis.call('RPUSH', items, 1) return redis.call('ZADD', groups, 1, 'g')", grows=True),
    ),
    (
        denied,
        naive("computed", "redis.call('RPUSH', items, 1) return redis.call('RPUSH', guard .. 'x', 1)", grows=True),
    ),
    (
        on_a_full_server,
        naive("frees first", "redis.call('DEL', groups) return redis.call('RPUSH', items, 1)", grows=True),
    ),
    (
        on_a_full_server,
        naive("grows first", "redis.call('RPUSH', items, 1) return redis.call('DEL', groups)", grows=False),
    ),
]


@pytest.mark.parametrize(("check", "scenario"), NAIVE, ids=[scenario.what for _, scenario in NAIVE])
def test_control_a_naive_script_is_detected(client: redis.Redis, check: Check, scenario: Scenario) -> None:
    """Each check finds a script that breaks its rule."""
    assert check(client, scenario)


@by_script
def test_a_denied_command_can_stop_a_script_in_the_middle(client: redis.Redis, script: str) -> None:
    """A limit of the guarantee: without the permission for a command that it needs, a script may stop after a write.

    So the documentation lists all commands, which `test_security.py` checks. Here: it is always an error, and a script
    that only reads changes nothing even then.
    """
    commands, half = sorted(commands_of(script)), set()
    with client_of(client, "denied") as user:
        client.acl_setuser("denied", enabled=True, nopass=True, categories=["+@all"], keys=["*"])
        for scenario in scenarios(script):
            expected, before, after = run_intact(client, scenario)
            for command in commands:
                scenario.build(client)
                plain(client, "ACL", "SETUSER", "denied", "+@all", f"-{command}")
                reply, now = send(user, scenario.call), everything(client)
                if str(reply) == str(expected):  # not needed in this scenario
                    spared = UNIMPORTANT.get(command, b"")
                    assert without(spared, now) == without(spared, after), (scenario, command)
                else:
                    assert isinstance(reply, redis.ResponseError), (scenario, command)
                    assert re.search("run this command|permissions to run|NOPERM", str(reply)), (scenario, command)
                    half |= {command} if now != before else set()
    looks = script.split("/")[1] in ("batches", "groups", "members", "peek", "state", "stats")
    assert not (looks and half)
    assert looks or half or script.endswith("/extend")  # the fault is real: this script writes with a single ZADD
