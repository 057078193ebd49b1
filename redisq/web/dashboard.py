"""What the pages and the JSON API of one app share: the queues that may be seen, the sampler, acts and jobs."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

from ..asyncio.runner import Client, Runner
from ..core import validate
from ..core.clients import is_cluster
from ..core.errors import InvalidArgument
from ..core.queues import QueueInfo
from .acts import Acts, Outcome, Refused, check_allowed, new_token
from .jobs import Jobs
from .names import from_segment, name_text, shown
from .reader import Reader, marked, refuse_layout
from .sampler import Sampler
from .seen import FirstSeen

_LONGEST_BODY = 1_000_000  # bytes of a form or a document


class Dashboard:
    """The state of one app."""

    def __init__(self, client: Client, prefix: str, names: Iterable[str] | None, allow: Iterable[str]) -> None:
        is_cluster(client, "asyncio")  # refuses anything but an asyncio client
        validate.prefix(prefix)
        if isinstance(names, (str, bytes)):
            raise InvalidArgument(f"queues is {names!r}: give a sequence of names, such as [{names!r}]")
        self.names = None if names is None else tuple(dict.fromkeys(names))
        for name in self.names or ():
            validate.key_prefix(prefix, name)
        self.client, self.prefix = client, prefix
        self._runner = Runner(client)
        self.sampler = Sampler(client, prefix, self.names)
        self.seen = FirstSeen()
        self.jobs = Jobs(self._job_changed)
        self.acts = Acts(check_allowed(allow if isinstance(allow, str) else tuple(allow)), self.sampler, self.jobs)

    def _job_changed(self, name: str) -> None:
        self.sampler.soon(name)
        self.sampler.changed()

    # -- queues

    async def reader(self, request: Request) -> Reader:
        """Return what reads the queue that a path names; raises 404 where there is none, or it is not to be seen."""
        name = name_text(from_segment(request.path_params["queue"]))
        found: list[QueueInfo] = []
        if name and not set(name) & set("{}") and (self.names is None or name in self.names):
            found = await marked(self._runner, self.prefix, [name])
        if not found:
            raise HTTPException(
                404,
                f"There is no queue {shown(name)}: it was never pushed to, was purged, or has been empty for a week.",
            )
        refuse_layout(found[0])
        return Reader(self.client, found[0], self.prefix)

    # -- acts

    def need(self, act: str) -> None:
        """Raise 403 unless an act is allowed."""
        try:
            self.acts.need(act)
        except Refused as error:
            raise HTTPException(error.status, str(error)) from None

    async def perform(
        self, token: Any, key: Iterable[str], act: Callable[[str], Awaitable[Outcome]]
    ) -> tuple[str, Outcome]:
        """Perform an act once, and return its id and its outcome; a refusal is an outcome too.

        `key` says what the act is: a token that is used for two acts, by going back to an older page, stands for each.
        """
        given = token if isinstance(token, str) and token else new_token()
        act_id = hashlib.sha256("\0".join([given, *key]).encode("utf-8", "surrogateescape")).hexdigest()[:32]

        async def performed() -> Outcome:
            try:
                return await act(act_id)
            except Refused as error:
                return Outcome(str(error), {"error": str(error)}, error.status)

        return act_id, await self.acts.once(act_id, performed)

    def stop(self) -> None:
        """Stop everything that goes on in the background."""
        self.sampler.stop()
        self.jobs.stop_all()


async def body_of(request: Request) -> bytes:
    """Read the body of a request; raises 413 for one that is too long."""
    parts, size = [], 0
    stream: AsyncIterator[bytes] = request.stream()
    async for part in stream:
        size += len(part)
        if size > _LONGEST_BODY:
            raise HTTPException(413, f"The request is longer than {_LONGEST_BODY:,} bytes.")
        parts.append(part)
    return b"".join(parts)


def count(request: Request, name: str, default: int, low: int, high: int) -> int:
    """Read a whole number from the query; raises 400 for anything else."""
    given = request.query_params.get(name, "")
    if not given:
        return default
    if not (given.isascii() and given.isdigit() and len(given) < 12 and low <= int(given) <= high):
        raise HTTPException(400, f"{name} is not a whole number from {low} to {high:,}.")
    return int(given)


def choice(request: Request, name: str, choices: tuple[str, ...]) -> Any:
    """Read one of some words from the query, by default the first; raises 400 for another."""
    given = request.query_params.get(name) or choices[0]
    if given not in choices:
        raise HTTPException(400, f"{name} is not one of {', '.join(choices)}.")
    return given
