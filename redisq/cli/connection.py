"""Which server, and which queue on it: the options all commands share, and what the keys tell."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import os
import shlex
from collections.abc import Iterator
from typing import Any, Literal, NoReturn
from urllib.parse import urlsplit

import redis
import redis.asyncio
from redis.backoff import ExponentialBackoff
from redis.cluster import RedisCluster
from redis.retry import Retry

from .. import embedded
from ..blocking import Buffer, PriorityQueue, queues
from ..core import validate
from ..core.clients import PASSWORD, remedy_for
from ..core.codecs import BYTES
from ..core.documents import text
from ..core.errors import InvalidArgument, RedisqError
from ..core.priority import Order
from . import sentinel
from .exit import NO, UNREACHABLE, USAGE, Failure
from .output import line

Kind = Literal["buffer", "priority"]
Queue = Buffer[bytes] | PriorityQueue[bytes]
Client = redis.Redis | RedisCluster

URLS = f"{embedded.URLS} or redis+sentinel://[[user]:password@]host:port[,host:port]/service[/db]"
_LOCAL = "redis://localhost:6379/0"
_KEYS: dict[Kind, tuple[bytes, ...]] = {  # that the other has not
    "buffer": (b"groups", b"since", b"busy", b"paused_groups"),
    "priority": (b"ready", b"held", b"rows", b"payloads"),
}
_FEW_KEYS = 100_000  # that a scan reads in well under a second
_NAMES: dict[Kind, str] = {"buffer": "a buffer", "priority": "a priority queue"}
_ORDERS: dict[str, Order] = {"fifo": "fifo", "score": "score"}


def server_options() -> argparse.ArgumentParser:
    """Return the options that name a server, as a parent for a command's parser."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--url",
        help=f"the Redis server; default: $REDIS_URL, else {_LOCAL} (a password is safer in $REDIS_URL: arguments are "
        "seen by every process of the machine)",
    )
    return parser


def prefix_options() -> argparse.ArgumentParser:
    """Return the options that name the queues of a server, as a parent for a command's parser."""
    parser = argparse.ArgumentParser(add_help=False, parents=[server_options()])
    parser.add_argument("--prefix", default="redisq", help="prefix of all keys (%(default)s)")
    return parser


def queue_options() -> argparse.ArgumentParser:
    """Return the options that name a queue and its server, as a parent for a command's parser."""
    parser = argparse.ArgumentParser(add_help=False, parents=[prefix_options()])
    parser.add_argument("queue", metavar="QUEUE", help="the queue's name")
    parser.add_argument("--kind", choices=list(_KEYS), help="which structure it is; default: detected from its keys")
    return parser


def url_of(args: argparse.Namespace) -> str:
    """Return the server's URL, from the command line or the environment."""
    return args.url or os.environ.get("REDIS_URL") or _LOCAL


def place(url: str) -> str:
    """Return a URL for people: without its password and without the query, which may have one too."""
    return embedded.redacted(url).partition("?")[0]


def hint(args: argparse.Namespace, *words: str) -> str:
    """Return a command to type next, for the server and the prefix that `args` name; a password is left out."""
    server = ["--url", place(args.url)] if args.url else []
    prefix = ["--prefix", args.prefix] if args.prefix != "redisq" else []
    return " ".join(map(_word, ["redisq", *words, *server, *prefix]))


def _word(value: str) -> str:
    """Return a word as a shell reads it."""
    if value.isprintable():
        return shlex.quote(value)
    return "$'" + line(value.replace("\\", "\\\\").replace("'", "\\'")) + "'"


@contextlib.contextmanager
def connected(url: str, **options: Any) -> Iterator[Client]:
    """Yield a client of the server or cluster at `url`, which answers; what goes wrong with it is a `Failure`.

    `options` are those of a client of redis-py, in place of the usual ones.
    """
    with explained(url), contextlib.closing(open_client(url, **options)) as client:
        try:
            yield client
        finally:
            if isinstance(client, RedisCluster):  # one that was made from a URL does not close them itself
                client.disconnect_connection_pools()  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def explained(url: str) -> Iterator[None]:
    """Turn errors of redisq and of the server at `url` into a `Failure` with the right exit code."""
    try:
        yield
    except (RedisqError, redis.RedisError) as error:
        raise failure(error, url) from error


def failure(error: Exception, url: str) -> Failure:
    """Return the `Failure` that an error of redisq or of the server at `url` stands for."""
    said = str(error).rstrip(".")
    if remedy := remedy_for(error):
        if remedy == PASSWORD:
            remedy = "REDIS_URL=redis://user:password@host"
            if "@" not in url and "password=" not in url:  # what the server says then is of its protocol
                return Failure(f"the server at {place(url)} asks for a password: {remedy}", UNREACHABLE)
            remedy = f"check the one in {remedy}"
        return Failure(f"the server at {place(url)} refuses: {said}; {remedy}", UNREACHABLE)
    if isinstance(error, (redis.ConnectionError, redis.TimeoutError)):
        remedy = "; start one, or name yours with --url or $REDIS_URL" if _never_connected(said) else ""
        return Failure(f"no server at {place(url)}: {said}{remedy}", UNREACHABLE)
    return Failure(str(error) or type(error).__name__, USAGE if isinstance(error, InvalidArgument) else NO)


def _never_connected(said: str) -> bool:
    return " connecting to " in said


def checked(url: str) -> None:
    """Raise a `Failure` if this is not the URL of a Redis server."""
    try:
        # Nothing is sent: an unknown option is found here.
        sentinel.parse(url) if sentinel.is_sentinel(url) else redis.ConnectionPool.from_url(url).make_connection()
    except (ValueError, TypeError):
        # Their own messages may quote a piece of the password.
        raise Failure(f"{place(url)} is not the URL of a Redis server{_flaw(url)}: give {URLS}", USAGE) from None


def _flaw(url: str) -> str:
    """Say what is wrong with a URL where that is known; what stands there is not quoted: it may be of a password."""
    credentials, _, _ = url.partition("://")[2].rpartition("@")
    if set(credentials) & set("/?#"):
        return "; a password's /, ? and # are written %2F, %3F and %23"
    try:
        _ = urlsplit(url).port
    except ValueError:
        return "; its port is not a number from 0 to 65535"
    return ""


def client_of(url: str, **options: Any) -> redis.Redis:
    """Return a client of the server at `url`, or of the master that Sentinels name; not connected yet."""
    return sentinel.client(url, **options) if sentinel.is_sentinel(url) else redis.Redis.from_url(url, **options)


def asyncio_client_of(url: str, **options: Any) -> redis.asyncio.Redis:
    """Return an asyncio client of the server at `url`, or of the master that Sentinels name; not connected yet."""
    if sentinel.is_sentinel(url):
        return sentinel.asyncio_client(url, **options)
    return redis.asyncio.Redis.from_url(url, **options)


def open_client(url: str, **options: Any) -> Client:
    """Return a client of the server or cluster at `url`, which has answered. Raises redis-py's errors."""
    checked(url)
    retry = Retry(ExponentialBackoff(cap=0.5, base=0.05), 3)
    options = {"socket_connect_timeout": 5, "retry": retry, **options}
    client = client_of(url, **options)
    try:
        about = client.info("cluster")
    except redis.ResponseError:  # no INFO for this user; the first real command says what may be done
        return client
    except BaseException:
        client.close()
        raise
    if not about.get("cluster_enabled") or sentinel.is_sentinel(url):
        return client
    client.close()
    return RedisCluster.from_url(url, **options)


def find(
    client: Client, args: argparse.Namespace, kind: Kind | None = None, order: Order | None = None
) -> Queue | None:
    """Return the queue that `args` name, in bytes, or None if there is none and nobody says of which kind it would be.

    `kind` and `order` are what is wanted; without, the queue's mark tells, or its keys if it has none. Raises `Failure`
    if they tell something else, or the keys are those of both structures.
    """
    wanted = kind or args.kind
    queue = validate.key_prefix(args.prefix, args.queue)
    with client.pipeline(transaction=False) as pipe:
        for names in _KEYS.values():
            pipe.exists(*(queue + name for name in names))
        pipe.exists(queue + b"ready")
        pipe.execute_command("HGET", queue + b"meta", "queue")
        buffers, priorities, plain, mark = pipe.execute(raise_on_error=False)
    for reply in (buffers, priorities, plain):
        if isinstance(reply, Exception):
            raise reply
    there: list[Kind] = [kind for kind, count in zip(_KEYS, (buffers, priorities), strict=True) if count]
    stored = _ORDERS["score"] if plain else None
    if mark is not None:
        # A `meta` of another type, or the mark of another layout, is for the scripts to refuse.
        form = mark.decode(errors="replace").partition(" ")[2] if isinstance(mark, bytes) else ""
        stored = _ORDERS.get(form)
        there = ["priority" if stored else "buffer"] if form or not there else there
    if len(there) == 2 and not wanted:
        raise Failure(f"{line(args.queue)} has keys of both structures: say --kind buffer or --kind priority")
    if there and wanted and wanted not in there:
        raise Failure(f"{line(args.queue)} is {_NAMES[there[0]]}, not {_NAMES[wanted]}")
    match wanted or next(iter(there), None):
        case "buffer":
            return open_queue(client, args.queue, args.prefix, "buffer")
        case "priority":
            if order and stored and stored != order:
                raise Failure(f"{line(args.queue)} is kept in {stored} order, not in {order}")
            return open_queue(client, args.queue, args.prefix, stored or order or "fifo")
    return None


def open_queue(client: Client, name: str, prefix: str, kind: Literal["buffer", "fifo", "score"]) -> Queue:
    """Return a queue whose items, or members and payloads, are bytes; a priority queue by its order."""
    if kind == "buffer":
        return Buffer(client, name, codec=BYTES, prefix=prefix)
    return PriorityQueue(client, name, codec=BYTES, payload_codec=BYTES, order=kind, prefix=prefix)


def existing(client: Client, args: argparse.Namespace) -> Queue:
    """Return the queue that `args` name, or raise `Failure` if there is none."""
    return find(client, args) or nowhere(client, args)


def nowhere(client: Client, args: argparse.Namespace) -> NoReturn:
    """Raise the `Failure` that there is no such queue."""
    where = f"at {place(url_of(args))}" + (f" with the prefix {line(args.prefix)}" if args.prefix != "redisq" else "")
    meant = f"did you mean {line(alike)}? " if (alike := _alike(client, args)) else ""
    raise Failure(
        f"no queue {line(args.queue)} {where}: it was never pushed to, or has been empty for seven days; {meant}"
        f"`{hint(args, 'queues')}` lists them; for one that is still to come say --kind"
    )


def _alike(client: Client, args: argparse.Namespace) -> str | None:
    """Return the name of a queue that is like the one that was given, unless too many keys would have to be read."""
    try:
        sizes: list[Any] = [node.dbsize() for _, node in nodes(client)]
        there = queues(client, args.prefix) if sum(sizes) <= _FEW_KEYS else []
    except redis.RedisError:  # not every user may read all keys
        return None
    return next(iter(difflib.get_close_matches(args.queue, [info.name for info in there], 1)), None)


def existing_buffer(client: Client, args: argparse.Namespace) -> Buffer[bytes]:
    """Return the buffer that `args` name, or raise `Failure` if there is none or it is a priority queue."""
    queue = existing(client, args)
    if isinstance(queue, Buffer):
        return queue
    raise Failure(f"{line(args.queue)} is a priority queue: only a buffer has groups")


def kind_of(queue: Queue) -> Kind:
    """Say which structure it is."""
    return "buffer" if isinstance(queue, Buffer) else "priority"


def heading(args: argparse.Namespace, queue: Queue | None) -> dict[str, str | None]:
    """Return what every JSON document about a queue begins with; None is one of an unknown kind."""
    return {"queue": text(args.queue), "kind": None if queue is None else kind_of(queue)}


def nodes(client: Client) -> Iterator[tuple[str, redis.Redis]]:
    """Yield the server under an empty name, or each master of a cluster under its own."""
    if isinstance(client, redis.Redis):
        yield "", client
        return
    cluster: Any = client
    for node in cluster.get_primaries():
        yield node.name, cluster.get_redis_connection(node)


def server_time(client: Client) -> float:
    """Return the server's clock, by which leases and pauses run, in unix seconds; of a cluster that of any node."""
    _, node = next(nodes(client))
    seconds, micros = node.time()
    return seconds + micros / 1e6
