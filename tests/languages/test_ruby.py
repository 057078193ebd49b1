"""`examples/ruby`: the conformance cases, Ruby's own tests, and queues that are shared with Python."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redisq import BYTES, JSON, Buffer, PriorityQueue, queues
from redisq.core.scripts import directory
from redisq.embedded import Server
from tests.conftest import skip_or_fail
from tests.scripts import runner_probe

RUBY = Path(__file__).parents[2] / "examples" / "ruby"


@pytest.fixture(scope="session")
def ruby() -> str:
    """Return the interpreter; skip the test if it or its Redis client is missing."""
    found = shutil.which("ruby")
    check = "require 'redis'; require 'minitest'"
    if not found or subprocess.run([found, "-e", check], capture_output=True).returncode != 0:
        skip_or_fail("no Ruby with a Redis client found: apt-get install ruby ruby-redis")
    return found


def run(*command: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return its output."""
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=110, env={**os.environ, **environment}
    )


def ruby_script(ruby: str, text: str, *arguments: object) -> str:
    """Run some Ruby code with both queue classes loaded."""
    done = run(ruby, "-I", RUBY, "-r", "redis_buffer", "-r", "redis_priority_queue", "-e", text, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


# Conformance


def test_every_conformance_case_passes(ruby: str, server: Server) -> None:
    """All cases run, and none is left out."""
    cases = sum(len(json.loads(path.read_text())["cases"]) for path in directory().glob("conformance/*/*.json"))
    done = run(ruby, RUBY / "conformance.rb", server.url)
    assert (done.returncode, done.stdout) == (0, f"{cases} cases, 0 differ\n"), done.stdout + done.stderr


def test_conformance_detects_a_changed_script(ruby: str, server: Server, tmp_path: Path) -> None:
    shutil.copytree(directory(), tmp_path / "lua")
    push = tmp_path / "lua/buffer/push.lua"
    text = push.read_text()
    push.write_text(text.replace("call('PERSIST', meta)", ""))
    assert push.read_text() != text
    done = run(ruby, RUBY / "conformance.rb", server.url, tmp_path / "lua")
    assert done.returncode == 1
    assert "buffer/push: " in done.stdout


def test_conformance_detects_each_kind_of_difference(ruby: str, server: Server, tmp_path: Path) -> None:
    """A case that uses the whole format passes, and fails with any one value changed."""
    file = runner_probe.write(tmp_path / "lua")
    done = run(ruby, RUBY / "conformance.rb", server.url, tmp_path / "lua")
    assert (done.returncode, done.stdout) == (0, "1 cases, 0 differ\n"), done.stdout + done.stderr
    file.write_text(json.dumps(runner_probe.wrong()))
    done = run(ruby, RUBY / "conformance.rb", server.url, tmp_path / "lua")
    missed = [name for name in runner_probe.WRONG if f"buffer/push: {name}\n" not in done.stdout]
    assert (missed, done.returncode, done.stderr) == ([], 1, "")


def test_headers_are_parsed_as_in_python(ruby: str) -> None:
    """Keys, arguments, packed numbers, and the limits of every script."""
    expected = runner_probe.headers()
    text = """
        scripts = Redisq::Scripts.new(nil)
        puts JSON.generate(JSON.parse(ARGV[0]).to_h { |name, (_, _, limits)|
          one = scripts[name]
          [name, [one.keys, one.arguments, limits.to_h { |argument, _| [argument, one.limit(argument)] }]]
        })
    """
    assert json.loads(ruby_script(ruby, text, json.dumps(expected))) == expected


def test_conformance_refuses_a_server_with_keys(ruby: str, server: Server) -> None:
    with server.client() as client:
        client.set("mine", "1")
        done = run(ruby, RUBY / "conformance.rb", server.url)
        assert (done.returncode, done.stdout) == (1, "")
        assert "has keys" in done.stderr
        assert client.get("mine") == b"1"


def test_conformance_fails_without_cases(ruby: str, server: Server, tmp_path: Path) -> None:
    done = run(ruby, RUBY / "conformance.rb", server.url, tmp_path)
    assert (done.returncode, done.stdout) == (1, "0 cases, 0 differ\n")


# The queue classes


@pytest.mark.parametrize("locale", ["C.UTF-8", "C"])
def test_rubys_own_tests_pass(ruby: str, server: Server, locale: str) -> None:
    """With any encoding that Ruby gives to strings of the client."""
    done = run(ruby, "-w", RUBY / "test.rb", server.url, LC_ALL=locale)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 failures, 0 errors, 0 skips" in done.stdout
    assert "examples/ruby" not in done.stderr, "Ruby warns"


def test_the_readmes_example_runs_in_a_vendored_copy(ruby: str, server: Server, tmp_path: Path) -> None:
    """The files that the README copies are enough, and each line returns what its comment says."""
    readme = (RUBY / "README.md").read_text()
    (copied,) = re.findall(r"^cp -r redisq/lua redisq/examples/ruby/\{(.*)\} yourapp/lib/$", readme, re.MULTILINE)
    shutil.copytree(directory(), tmp_path / "lib/lua")
    for name in copied.split(","):
        source = RUBY / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / "lib" / name)
    blocks = "\n".join(re.findall(r"```ruby\n(.*?)```", readme, re.DOTALL))
    shown = r"^((?:\w+ = )?(?:buffer|index)\.[^#]*?) +# (\[.*?\]|:\w+|nil|true)(?:[,;:].*)?$"
    program, checks = re.subn(shown, r"expect(\2) { \1 }", blocks, flags=re.MULTILINE)
    program = program.replace("timeout: 5", "timeout: 0.1").replace("loop do", "1.times do")
    (tmp_path / "app.rb").write_text(f"""
        def expect(value)
          yield.tap {{ |got| got == value or abort "#{{got}}, and not #{{value}}" }}
        end

        api = Struct.new(:sent) {{ def send_all(group, items) = (self.sent = [group, items]) && items[1..] }}.new
        items = nil
        {program}
        expect(['eu', [{{ 'user' => 1 }}, {{ 'user' => 2 }}]]) {{ api.sent }}
        expect(2) {{ buffer.reserve.attempts }}
        expect("{tmp_path}/lib/lua") {{ Redisq::FOLDER }}
    """)
    done = run(ruby, tmp_path / "app.rb", REDIS_URL=server.url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert checks == 10


# Queues shared with Python

RELAY = """
redis = Redis.new(path: ARGV[0])
given, taken = %w[given taken].map { |name| RedisBuffer.new(redis, name, codec: Redisq.const_get(ARGV[1])) }
taken.push(*given.next_batch_for.map { |item| item.is_a?(Hash) ? item.to_a.reverse.to_h : item })
"""
TEXTS = ["", "é", "日本語", "\U0001f600", "\0\r\n\t\x1f\x7f\u2028", '"\\/', "$5\r\n*3\r\n", "x" * 2_000_000]


def test_json_is_exchanged_byte_for_byte(ruby: str, server: Server) -> None:
    """Ruby reads what Python wrote, and writes the same bytes back."""
    payloads: list[Any] = [*TEXTS, None, True, 0, -1, 2**64, 1.5, -0.0, 0.1, 1e14, [], {}, [[1, [2.0]], {"a": [{}]}]]
    payloads += [{"z": 1, "a": {"é": 2, "e": 3, "日": None, "": []}, "Z": "é"}]
    with server.client() as client:
        Buffer(client, "given").push(*payloads)
        ruby_script(ruby, RELAY, server.socket, "JSON")
        assert Buffer(client, "taken", codec=BYTES).pop() == [JSON.encode(payload) for payload in payloads]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(payloads=st.lists(json_values, min_size=1, max_size=50))
def test_any_json_value_is_exchanged(ruby: str, server: Server, payloads: list[Any]) -> None:
    with server.client() as client:
        client.flushall()
        Buffer(client, "given").push(*payloads)
        ruby_script(ruby, RELAY, server.socket, "JSON")
        taken = Buffer(client, "taken").pop()
        assert repr(taken) == repr([json.loads(JSON.encode(payload)) for payload in payloads])


def test_an_item_with_a_lone_surrogate_can_be_released(ruby: str, server: Server) -> None:
    """Ruby has no such string: the error holds the bytes, and the batch can be released."""
    text = """
        buffer = RedisBuffer.new(Redis.new(path: ARGV[0]), 'q')
        2.times do
          buffer.reserve(size: 2)
        rescue Redisq::CodecError => e
          print e.raw.items.last
          buffer.release(e.raw, reason: e.message, delay: e.raw.items.first.to_i)
        end
    """
    with server.client() as client:
        buffer = Buffer[Any](client, "q")
        buffer.push(3600, ["é\udc00"], 0, "\ud800A")
        assert ruby_script(ruby, text, server.socket) == r'["é\udc00"]"\ud800A"'
        batch = buffer.reserve()
        assert batch
        assert (batch.items, batch.attempts) == ([0, "\ud800A"], 2)
        assert "lone surrogate" in batch.reason
        (delayed,) = buffer.delayed()
        assert delayed.items == [3600, ["é\udc00"]]


def test_the_queues_of_a_server_are_listed_as_in_python(ruby: str, server: Server) -> None:
    text = "puts JSON.generate(Redisq.queues(Redis.new(path: ARGV[0])).map(&:to_h))"
    with server.client() as client:
        Buffer(client, "mails: é").push("item")
        PriorityQueue(client, "places").push("a")
        PriorityQueue(client, "scores", order="score").push("a")
        expected = [vars(queue) for queue in queues(client)]
    assert [queue["name"] for queue in expected] == ["mails: é", "places", "scores"]
    assert json.loads(ruby_script(ruby, text, server.socket)) == expected


def test_bytes_are_exchanged(ruby: str, server: Server) -> None:
    payloads = [*(text.encode() for text in TEXTS), bytes(range(256)), b"\xff\xfe", os.urandom(3_000_000)]
    with server.client() as client:
        Buffer(client, "given", codec=BYTES).push(*payloads)
        ruby_script(ruby, RELAY, server.socket, "BYTES")
        assert Buffer(client, "taken", codec=BYTES).pop() == payloads


def test_any_group_name_is_exchanged(ruby: str, server: Server) -> None:
    """Python reads a name that is not valid UTF-8 with surrogates; Ruby reads the same group."""
    groups = ["é:日", "groups", "{}", b"\xff\x00".decode("utf-8", "surrogateescape")]
    with server.client() as client:
        buffer = Buffer(client, "ö")
        for name in groups:
            buffer.push("python", group=name)
        text = """
            buffer = RedisBuffer.new(Redis.new(path: ARGV[0]), 'ö')
            buffer.longest_groups(10).each { |group| buffer.push('ruby', group: group) }
        """
        ruby_script(ruby, text, server.socket)
        assert buffer.groups(10) == dict.fromkeys(groups, 2)
        assert [buffer.pop(name) for name in groups] == [["python", "ruby"]] * len(groups)


def test_members_and_scores_are_exchanged(ruby: str, server: Server) -> None:
    """Every double is unchanged, and the order is the same."""
    scores = [1.5, 0.1, 0.0, -1e300, 1.7976931348623157e308, 5e-324, 2.0**53 + 2, 1754906399.123456]
    members = {f"{i}é日\U0001f600\n": score for i, score in enumerate(scores)}
    text = """
        redis = Redis.new(path: ARGV[0])
        given, taken = %w[given taken].map { |name| RedisPriorityQueue.new(redis, name) }
        taken.add_all(given.zpop(100, with_scores: true))
    """
    with server.client() as client:
        PriorityQueue(client, "given", order="score").push_many(members)
        ruby_script(ruby, text, server.socket)
        taken = PriorityQueue(client, "taken", order="score").pop_many(100)
        assert [(item.member, item.priority) for item in taken] == sorted(members.items(), key=lambda pair: pair[1])


def test_python_and_ruby_recover_from_each_others_crashes(ruby: str, server: Server) -> None:
    """A Ruby process is killed while it holds a batch, Python releases it, Ruby finishes it."""
    crash = """
        redis = Redis.new(path: ARGV[0])
        RedisBuffer.new(redis, 'b').reserve(lease: 0.2) or abort
        RedisPriorityQueue.new(redis, 'p', order: 'fifo').reserve(lease: 0.2) or abort
        Process.kill(:KILL, $$)
    """
    finish = """
        redis = Redis.new(path: ARGV[0])
        [RedisBuffer.new(redis, 'b'), RedisPriorityQueue.new(redis, 'p', order: 'fifo')].each do |queue|
          queue.reserve(timeout: 5) { |batch| print batch.items, batch.attempts }
        end
    """
    with server.client() as client:
        queues: list[Any] = [Buffer(client, "b"), PriorityQueue(client, "p")]
        for queue in queues:
            queue.push("wörk")
        done = run(ruby, "-I", RUBY, "-r", "redis_buffer", "-r", "redis_priority_queue", "-e", crash, server.socket)
        assert done.returncode == -9, done.stderr
        for queue in queues:
            batch = queue.reserve(timeout=5)
            assert (batch.items, batch.attempts) == (["wörk"], 2)
            batch.release()
        assert ruby_script(ruby, finish, server.socket) == '["wörk"]3' * 2
        for queue in queues:
            stats = queue.stats()
            assert (stats.waiting, stats.leased, stats.delayed) == (0, 0, 0)
            assert not queue.audit().findings


@pytest.mark.parametrize("structure", ["buffer", "priority"])
def test_the_worker_of_the_interop_test(ruby: str, server: Server, structure: str) -> None:
    """It pushes all its items, and its worker prints each item once, leaves nothing, and ends with its stdin."""
    program = [ruby, str(RUBY / "interop.rb"), server.socket, "q", structure]
    done = run(*program, "push", 300, 1)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    with server.client() as client:
        queue: Any = Buffer(client, "q") if structure == "buffer" else PriorityQueue(client, "q")
        assert queue.stats().waiting == 300
        with subprocess.Popen([*program, "work", "0", "3"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
            assert worker.stdin
            assert worker.stdout
            deadline = time.monotonic() + 60
            while (stats := queue.stats()).waiting + stats.leased + stats.delayed and time.monotonic() < deadline:
                time.sleep(0.05)
            worker.stdin.close()
            lines = worker.stdout.read().decode().splitlines()
        assert not queue.audit().findings
    assert worker.returncode == 0
    batches = [json.loads(line.removeprefix("BEGIN ")) for line in lines[::2]]
    assert lines[1::2] == [f"DONE {len(items)}" for items in batches]
    expected = [{"from": "ruby", "n": n} if structure == "buffer" else f"ruby-{n}" for n in range(300)]
    assert sorted(map(str, chain(*batches))) == sorted(map(str, expected))


def test_members_of_equal_priority_leave_in_the_order_of_arrival(ruby: str, server: Server) -> None:
    """Whichever language pushed them."""
    text = "RedisPriorityQueue.new(Redis.new(path: ARGV[0]), 'q', order: 'fifo').add('ruby', 5)"
    with server.client() as client:
        queue = PriorityQueue(client, "q")
        queue.push("z", 5)
        ruby_script(ruby, text, server.socket)
        queue.push("a", 5)
        assert [item.member for item in queue.pop_many(3)] == ["z", "ruby", "a"]
