"""`examples/node`: the scripts through ioredis and node-redis, and payloads exchanged between Node and Python."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from redisq import BYTES, JSON, Buffer, PriorityQueue, queues
from redisq.core.scripts import directory
from redisq.embedded import Server
from tests.conftest import skip_or_fail
from tests.scripts import conformance, runner_probe

FOLDER = Path(__file__).parents[2] / "examples" / "node"
CLIENTS = ["ioredis", "node-redis"]

pytestmark = pytest.mark.usefixtures("node")


def need_node() -> None:
    """Skip the test if Node is missing, or its Redis clients, which are installed when they are first needed."""
    if reason := install_clients():
        skip_or_fail(reason)


@cache
def install_clients() -> str:
    """Install the packages of `examples/node/package-lock.json` if they are not there; return what went wrong."""
    if not shutil.which("node"):
        return "node is missing: install Node 20 or newer"
    with open(FOLDER / "package-lock.json") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the tests run in several processes
        if (FOLDER / "node_modules" / ".package-lock.json").exists():  # npm writes it last
            return ""
        if not shutil.which("npm"):
            return "ioredis and node-redis are missing, and so is npm, which installs them"
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=0"]
        done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=110)
    if done.returncode == 0:
        return ""
    errors = [line.removeprefix("npm error ") for line in done.stderr.splitlines()]
    return f"cannot install ioredis and node-redis: npm ci: {', '.join(errors[:3])}"


@pytest.fixture
def node() -> None:
    """Skip the test if Node or its Redis clients are missing."""
    need_node()


def run(*arguments: str, stdin: str = "", **environment: str) -> str:
    """Run a program of the folder and return its output."""
    done = subprocess.run(
        ["node", *arguments],
        cwd=FOLDER,
        env={**os.environ, **environment},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("client", CLIENTS)
def test_every_conformance_case_passes(server: Server, client: str) -> None:
    assert run("conformance.js", "--client", client, server.socket) == (
        f"{client}: {len(conformance.cases())} cases, 0 failed\n"
    )


@pytest.mark.parametrize("client", CLIENTS)
def test_conformance_detects_each_kind_of_difference(server: Server, client: str, tmp_path: Path) -> None:
    """A case that uses the whole format passes, and fails with any one value changed."""
    file = runner_probe.write(tmp_path / "lua")
    command = ["node", "conformance.js", "--client", client, server.socket, str(tmp_path / "lua")]
    assert run(*command[1:]) == f"{client}: 1 cases, 0 failed\n"
    file.write_text(json.dumps(runner_probe.wrong()))
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=110)
    missed = [name for name in runner_probe.WRONG if f"buffer/push: {name}\n" not in done.stderr]
    assert (missed, done.returncode) == ([], 1)
    file.unlink()
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=110)
    assert (done.stdout, done.returncode) == (f"{client}: 0 cases, 0 failed\n", 1)


def test_headers_are_parsed_as_in_python() -> None:
    """Keys, arguments, packed numbers, and the limits of every script."""
    expected = runner_probe.headers()
    text = """
        import { text } from 'node:stream/consumers';
        import { Scripts } from './redisq/index.js';
        const scripts = new Scripts({ callBuffer() {} });
        const read = Object.entries(JSON.parse(await text(process.stdin))).map(([name, [, , limits]]) => {
          const { keys, args } = scripts.get(name);
          const named = keys.map(({ noun, value }) => [noun, value === 'once' ? 'id' : value ?? null]);
          const found = Object.keys(limits).map((argument) => [argument, scripts.get(name).limit(argument)]);
          return [name, [named, args.map(({ name, fields }) => [name, fields]), Object.fromEntries(found)]];
        });
        console.log(JSON.stringify(Object.fromEntries(read)));
    """
    assert json.loads(run("--input-type=module", "--eval", text, stdin=json.dumps(expected))) == expected


def test_nodes_own_tests_pass(server: Server) -> None:
    run("--test", "redisq.test.js", REDISQ_SOCKET=server.socket)


def test_the_readmes_example_runs_in_a_vendored_copy(server: Server, tmp_path: Path) -> None:
    for source in (FOLDER / "redisq", directory()):
        shutil.copytree(source, tmp_path / source.name)
    (tmp_path / "node_modules").symlink_to(FOLDER / "node_modules")
    example = (FOLDER / "README.md").read_text().split("```js\n")[1].split("```")[0]
    example = example.replace("new Redis()", f"new Redis({json.dumps(server.socket)})")
    # A function declaration is hoisted, so it can stand below the example.
    lines = (example, "async function send(group, items) { console.log(group, items); }")
    (tmp_path / "example.mjs").write_text("\n".join(lines))
    sent, popped = run(str(tmp_path / "example.mjs")).split("\n", 1)
    assert sent == "eu [ { user: 1, did: 'like' } ]"
    shown = next(line.partition(" // ")[2] for line in example.splitlines() if "index.pop()" in line)
    assert "".join(popped.split()) == "".join(shown.split())


def test_the_queues_of_a_server_are_listed_as_in_python(server: Server) -> None:
    text = """
        import { connect } from './connect.js';
        import { queues } from './redisq/index.js';
        const client = await connect('ioredis', process.argv[1]);
        console.log(JSON.stringify(await queues(client)));
        client.close();
    """
    with server.client() as client:
        Buffer(client, "mails: é").push("item")
        PriorityQueue(client, "places").push("a")
        PriorityQueue(client, "scores", order="score").push("a")
        expected = [vars(queue) for queue in queues(client)]
    assert [queue["name"] for queue in expected] == ["mails: é", "places", "scores"]
    assert json.loads(run("--input-type=module", "--eval", text, server.socket)) == expected


LONE_SURROGATES: list[Any] = ["\ud800", "a\udfffé\\", {"\udc00": ["\udbff\ue000", "\udc00\ud800"]}]
JSONS: list[Any] = [
    *LONE_SURROGATES,
    {"user": 1, "did": "like", "nested": {"list": [], "none": None, "yes": True}},
    'Grüße, 世界, \u0001, \U0001f9e6, e\u0301, \u2028, </script>, \\ and "',
    [0, -1, 2**53 - 1, 1.5, 1e-9, 1e21],
    "",
    [],
    {},
    None,
    "large " * 500_000,
]
TEXTS = ["a", "", "世界", "\U0001f9e6", "with\0zero", "long " * 50_000]
BYTE_STRINGS = [b"", bytes(range(256)), b"\xff\xfe", b"\r\n$-1\r\n", os.urandom(3_000_000)]
GROUPS = [b"default", "Größe".encode(), b"\xff\x00{}"]


@pytest.mark.parametrize("client", CLIENTS)
def test_payloads_are_exchanged_unchanged(server: Server, client: str) -> None:
    """Each side compares what it reads with the same table, which is passed to Node in ASCII."""
    table = {
        "json": JSONS,
        "texts": TEXTS,
        "bytes": [base64.b64encode(item).decode() for item in BYTE_STRINGS],
        "groups": [base64.b64encode(group).decode() for group in GROUPS],
    }
    names = [group.decode("utf-8", "surrogateescape") for group in GROUPS]
    with server.client() as redis:
        Buffer[Any](redis, "from python: json").push(*JSONS)
        PriorityQueue(redis, "from python: texts").push_many((member, 0) for member in TEXTS)
        pushed = Buffer(redis, "from python: bytes", codec=BYTES)
        for name in names:
            pushed.push(*BYTE_STRINGS, group=name)
        # Of equal lengths, the greater name comes first.
        names.sort(key=lambda name: name.encode("utf-8", "surrogateescape"), reverse=True)
        table["groups"].sort(key=base64.b64decode, reverse=True)

        run("payloads.js", "--client", client, server.socket, stdin=json.dumps(table, ensure_ascii=True))

        raw = Buffer(redis, "from node: json", codec=BYTES).pop()
        assert [JSON.decode(item) for item in raw] == JSONS
        assert raw[: len(LONE_SURROGATES)] == [JSON.encode(item) for item in LONE_SURROGATES]
        assert [item.member for item in PriorityQueue(redis, "from node: texts").pop_many(1000)] == TEXTS
        got = Buffer(redis, "from node: bytes", codec=BYTES)
        assert [got.pop(name) for name in names] == [BYTE_STRINGS] * len(names)
        assert got.groups() == {}
