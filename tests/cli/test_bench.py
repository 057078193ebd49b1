"""`redisq bench`: what it reports of each way to pop and to push, and that it cleans up."""

from __future__ import annotations

import contextlib
import json

import pytest

from redisq import bench
from redisq.cli import main
from redisq.embedded import Server

pytestmark = pytest.mark.server


def test_every_contender_is_measured_and_its_keys_are_removed(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """redisq, WATCH, the lock and the native commands make no mistakes; the keys that were there before stay."""
    with contextlib.closing(server.client()) as client:
        client.set("mine", 1)
        assert main(["bench", "--url", server.url, "--processes", "3", "--seconds", "0.2", "--json"]) == 0
        assert client.keys() == [b"mine"]
    results = json.loads(capsys.readouterr().out)["results"]
    assert [(one["kind"], one["contender"]) for one in results] == list(map(tuple, bench.CONTENDERS))
    for one in results:
        assert one["per_second"] > 0
        if "read, then" not in one["contender"]:
            assert (one["lost"], one["doubled"], one["weaker"]) == (0, 0, 0), one


def test_mistakes_are_counted(server: Server) -> None:
    """A pop that loses an item, a pop that hands one out twice, and a push that keeps the wrong score."""
    place = bench.Place(server.url, "p")
    with contextlib.closing(server.client()) as client:
        client.zadd(place.key, {"left": 1, "kept": 5})
        assert bench._check_pops(client, place, "WATCH", [b"a", b"a", b"b"], 6) == (2, 1, 0)
        pushed = [("kept", 3), ("kept", 9), ("left", 1), ("gone", 4)]
        assert bench._check_pushes(client, place, "WATCH", pushed, 0) == (1, 0, 1)


def test_a_private_server_is_the_default(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """REDIS_URL is ignored: no benchmark runs against a server that merely happens to be configured."""
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")
    assert main(["bench", "--processes", "2", "--seconds", "0.05"]) == 0
    header, columns, *rows = capsys.readouterr().out.splitlines()
    assert "private" in header
    assert columns.split()[:2] == ["operation", "with"]
    assert len(rows) == len(bench.CONTENDERS)
    with pytest.raises(SystemExit, match="2"):
        main(["bench", "--seconds", "0"])
