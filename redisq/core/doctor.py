"""What is wrong with a server's settings, and what it may cost; from the replies of INFO and CONFIG GET. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

MINIMUM = "6.2"
"""The oldest Redis that runs the scripts: LPOP with a count and ZMSCORE are new in it."""


@dataclass(frozen=True)
class Finding:
    """Something that a server's settings, or the state of a queue, may cost."""

    severity: Literal["error", "warning"]
    """An error loses data or stops work; a warning may under some circumstances."""
    subject: str
    """The setting, or the queue."""
    problem: str
    remedy: str


def _set(setting: str) -> str:
    """Return the commands that change a setting, and keep it for the next start."""
    return f"redis-cli CONFIG SET {setting}; redis-cli CONFIG REWRITE"


def evicting(memory: Mapping[str, Any]) -> Finding | None:
    """Look at INFO memory: may the server throw keys of a queue away?"""
    policy = str(memory.get("maxmemory_policy", "noeviction"))
    if policy == "noeviction" or not policy:
        return None
    limit = int(memory.get("maxmemory", 0) or 0)
    if policy.startswith("allkeys"):
        return Finding(
            "error" if limit else "warning",
            f"maxmemory-policy {policy}",
            "when its memory is full the server throws keys of queues away, and what is in them"
            if limit
            else "with a maxmemory, the server would throw keys of queues away, and what is in them",
            _set("maxmemory-policy noeviction") + ": a full server then refuses pushes, and nothing is lost",
        )
    return Finding(
        "warning",
        f"maxmemory-policy {policy}",
        "when its memory is full the server forgets keys with a TTL: which calls were answered, so that one that is "
        "sent again counts twice, and what was granted, so that a rate is exceeded",
        _set("maxmemory-policy noeviction"),
    )


def server(info: Mapping[str, Any], config: Mapping[str, Any]) -> list[Finding]:
    """Look at INFO, and at CONFIG GET as far as the user may read it."""
    found = [
        _version(info),
        evicting(info),
        _persistence(info, config),
        _last_save(info),
        _replica(info),
        _idle(config),
    ]
    return [one for one in found if one is not None]


def _version(info: Mapping[str, Any]) -> Finding | None:
    said = str(info.get("redis_version", ""))
    try:
        version = tuple(int(part) for part in said.split(".")[:2])
    except ValueError:
        return None
    if "valkey_version" in info or not version or version >= tuple(map(int, MINIMUM.split("."))):
        return None
    return Finding(
        "error", f"version {said}", f"the scripts need {MINIMUM}", f"use Redis {MINIMUM} or later, or Valkey"
    )


def _persistence(info: Mapping[str, Any], config: Mapping[str, Any]) -> Finding | None:
    if int(info.get("aof_enabled", 0) or 0):
        if str(config.get("appendfsync", "everysec")) == "no":
            return Finding(
                "warning",
                "appendfsync no",
                "a crash of the machine loses what the operating system had not written yet, often half a minute",
                _set("appendfsync everysec") + ": a crash loses a second, or two while the disk is busy",
            )
        return None
    save = config.get("save")
    if save is None:
        return Finding(
            "warning",
            "appendonly no",
            "a crash loses everything since the last snapshot",
            _set("appendonly yes"),
        )
    return Finding(
        "warning" if save else "error",
        "appendonly no" if save else 'appendonly no, save ""',
        "a crash loses everything since the last snapshot" if save else "a restart loses every queue",
        _set("appendonly yes"),
    )


def _last_save(info: Mapping[str, Any]) -> Finding | None:
    for name, what in (("rdb_last_bgsave_status", "snapshot"), ("aof_last_write_status", "append-only file")):
        if str(info.get(name, "ok")) != "ok":
            return Finding(
                "error",
                name,
                f"the last write of the {what} failed",
                "see the server's log; most often the disk is full",
            )
    return None


def _replica(info: Mapping[str, Any]) -> Finding | None:
    if str(info.get("role", "master")) == "master":
        return None
    return Finding(
        "error", "role replica", "it takes no writes, so no operation but looking works", "give the URL of its master"
    )


def _idle(config: Mapping[str, Any]) -> Finding | None:
    seconds = int(config.get("timeout", 0) or 0)
    if not 0 < seconds < 10:
        return None
    return Finding(
        "warning",
        f"timeout {seconds}",
        "the server closes connections that are idle for so many seconds, and each worker that waits makes new ones",
        _set("timeout 0") + ", or at least 60",
    )
