"""URLs of a master that Sentinels name: `redis+sentinel://host:port,host:port/service/db`. redis-py has none."""

from __future__ import annotations

import re
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote

import redis
import redis.asyncio
import redis.sentinel

_URL = re.compile(
    r"redis(?P<tls>s?)\+sentinel://(?:(?P<user>[^:@/]*)(?::(?P<password>[^@/]*))?@)?(?P<hosts>[^/?@]+)"
    r"/(?P<service>[^/?]+)(?:/(?P<db>\d+))?/?(?:\?(?P<query>.*))?"
)
_HOST = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[^:]+)(?::(?P<port>\d{1,5}))?")
_OF_SENTINELS = {"sentinel_username": "username", "sentinel_password": "password"}


class Sentinels(NamedTuple):
    """What such a URL says."""

    hosts: list[tuple[str, int]]
    service: str
    master: dict[str, Any]
    """Options of the connections to the master."""
    sentinels: dict[str, Any]
    """Options of the connections to the Sentinels."""


def is_sentinel(url: str) -> bool:
    """Say whether a URL is of this kind."""
    return url.startswith(("redis+sentinel://", "rediss+sentinel://"))


def parse(url: str) -> Sentinels:
    """Read a URL; raise ValueError for one that is not well formed, without quoting it: it may have a password."""
    found = _URL.fullmatch(url)
    hosts = [_HOST.fullmatch(host) for host in found["hosts"].split(",")] if found else []
    if found is None or not all(hosts):
        raise ValueError("not redis+sentinel://host:port,host:port/service/db")
    master: dict[str, Any] = {"db": int(found["db"] or 0)}
    if found["user"]:
        master["username"] = unquote(found["user"])
    if found["password"]:
        master["password"] = unquote(found["password"])
    sentinels: dict[str, Any] = {}
    for name, value in parse_qsl(found["query"] or "", strict_parsing=bool(found["query"])):
        if name not in _OF_SENTINELS:
            raise ValueError("an option that is not known")
        sentinels[_OF_SENTINELS[name]] = value
    if found["tls"]:
        master["ssl"] = sentinels["ssl"] = True
    places = [(host["host"].strip("[]"), int(host["port"] or 26379)) for host in hosts if host]
    return Sentinels(places, unquote(found["service"]), master, sentinels)


def client(url: str, **options: Any) -> redis.Redis:
    """Return a client of the master."""
    said = parse(url)
    found: Any = redis.sentinel.Sentinel(said.hosts, sentinel_kwargs=said.sentinels, socket_connect_timeout=5)  # type: ignore[no-untyped-call]
    made: redis.Redis = found.master_for(said.service, **{**said.master, **options})
    return made


def asyncio_client(url: str, **options: Any) -> redis.asyncio.Redis:
    """Return an asyncio client of the master."""
    said = parse(url)
    found: Any = redis.asyncio.Sentinel(said.hosts, sentinel_kwargs=said.sentinels, socket_connect_timeout=5)  # type: ignore[no-untyped-call]
    made: redis.asyncio.Redis = found.master_for(said.service, **{**said.master, **options})
    return made
