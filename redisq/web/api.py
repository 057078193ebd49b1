"""The JSON API: what the pages show, and the same acts under the same rules."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from ..core.documents import overview_json, text, time_json
from .acts import Outcome
from .dashboard import Dashboard, body_of, choice, count
from .jobs import briefly
from .names import from_segment, to_segment
from .payloads import Payload
from .reader import Batch, Entry, Group, Items, Page, Reader
from .sampler import Sample

_PAGE, _MOST = 50, 500
Handler = Callable[[Request], Awaitable[Response]]


def routes(board: Dashboard) -> list[BaseRoute]:
    """Return the routes of the API."""
    api = _Api(board)
    queue = "/api/queues/{queue}"
    gets: dict[str, Handler] = {
        "/api/queues": api.queues,
        queue: api.queue,
        f"{queue}/groups": api.groups,
        f"{queue}/groups/{{group}}": api.group,
        f"{queue}/members": api.members,
        f"{queue}/members/{{member}}": api.member,
        f"{queue}/audit": api.audit_result,
    }
    posts: dict[str, Handler] = {
        f"{queue}/pause": api.pause,
        f"{queue}/resume": api.resume,
        f"{queue}/groups/{{group}}/pause": api.pause,
        f"{queue}/groups/{{group}}/resume": api.resume,
        f"{queue}/redrive": api.redrive,
        f"{queue}/discard": api.discard,
        f"{queue}/purge": api.purge,
        f"{queue}/audit": api.audit,
        f"{queue}/audit/stop": api.stop_audit,
        f"{queue}/stop": api.stop,
    }
    for state in ("leased", "delayed", "dead"):
        gets[f"{queue}/{state}"] = api.listing(state)
        gets[f"{queue}/{state}/{{id}}"] = api.entry(state)
    return [
        *(Route(path, handler, methods=["GET"]) for path, handler in gets.items()),
        *(Route(path, handler, methods=["POST"]) for path, handler in posts.items()),
    ]


class _Api:
    def __init__(self, board: Dashboard) -> None:
        self._board = board

    # -- what there is

    async def queues(self, _: Request) -> Response:
        sampler = self._board.sampler
        await sampler.refresh()
        condition = sampler.condition
        return JSONResponse(
            {
                "time": time_json(sampler.now),
                "outage": text(sampler.outage) or None,
                "server": condition.product or None,
                "warnings": [
                    {"severity": one.severity, "subject": one.subject, "problem": one.problem, "remedy": one.remedy}
                    for one in condition.findings
                ],
                "queues": [_sample(one) for _, one in sorted(sampler.samples.items())],
            }
        )

    async def queue(self, request: Request) -> Response:
        reader = await self._board.reader(request)
        sample = await self._board.sampler.sample(reader.info)
        if not sample.at:
            raise HTTPException(503, f"Redis does not answer: {text(self._board.sampler.outage)}")
        job = self._board.jobs.of(reader.info.name)
        return JSONResponse({**_sample(sample), "job": None if job is None else job.document()})

    async def groups(self, request: Request) -> Response:
        reader = await self._buffer(request)
        assert reader.buffer is not None
        state = choice(request, "state", ("waiting", "busy", "paused"))
        limit, after = count(request, "limit", _PAGE, 1, _MOST), count(request, "after", 0, 0, 10**9 - 1)
        found = await reader.buffer.groups(limit + 1, after, state)
        rows = [{**_name("group", name), "waiting": length, "state": state} for name, length in found.items()]
        return JSONResponse({"groups": rows[:limit], "next": after + limit if len(rows) > limit else None})

    async def group(self, request: Request) -> Response:
        reader = await self._buffer(request)
        name = from_segment(request.path_params["group"])
        limit, after = count(request, "limit", _PAGE, 1, _MOST), count(request, "after", 0, 0, 10**9 - 1)
        group, items = await reader.group(name), await reader.items(name, after, limit)
        return JSONResponse({**_group(group), **_items(items)})

    async def members(self, request: Request) -> Response:
        reader = await self._priority(request)
        limit, after = count(request, "limit", _PAGE, 1, _MOST), count(request, "after", 0, 0, 10**9 - 1)
        found = await reader.ready(after, limit)
        return JSONResponse(
            {"members": [_member(one) for one in found.entries], "total": found.total, "next": found.following}
        )

    async def member(self, request: Request) -> Response:
        reader = await self._priority(request)
        found = await reader.member(from_segment(request.path_params["member"]))
        return JSONResponse(
            {
                **_name("member", found.name),
                "state": found.state,
                "priority": found.priority,
                "rank": found.rank,
                "time": time_json(found.time),
                "attempts": found.attempts,
                "reason": text(found.reason),
                "payload": None if found.payload is None else Payload(found.payload).json,
                "meanwhile": found.again or None,
            },
            404 if found.state == "absent" else 200,
        )

    def listing(self, state: Any) -> Handler:
        async def page(request: Request) -> Response:
            reader = await self._board.reader(request)
            limit = count(request, "limit", _PAGE, 1, _MOST)
            after = request.query_params.get("after")
            order = choice(request, "order", ("oldest", "newest"))
            found = await reader.listing(state, limit, None if after is None else from_segment(after), order)
            return JSONResponse(_page(found, state))

        return page

    def entry(self, state: Any) -> Handler:
        async def page(request: Request) -> Response:
            reader = await self._board.reader(request)
            limit, after = count(request, "limit", _PAGE, 1, _MOST), count(request, "after", 0, 0, 10**9 - 1)
            found = await reader.batch(state, from_segment(request.path_params["id"]), after, limit)
            if found is None:
                raise HTTPException(404, f"It is not {state} any more.")
            batch, items = found
            return JSONResponse({**_batch(batch, state), **_items(items)})

        return page

    async def audit_result(self, request: Request) -> Response:
        return self._audit(await self._board.reader(request))

    def _audit(self, reader: Reader) -> Response:
        job = self._board.jobs.audit_of(reader.info.name)
        if job is None:
            return JSONResponse({"state": None, "findings": None}, 404)
        found = None
        if job.audit is not None:
            found = [{name: text(value) for name, value in vars(one).items()} for one in job.audit.findings]
        return JSONResponse({**job.document(), "findings": found})

    async def _buffer(self, request: Request) -> Reader:
        reader = await self._board.reader(request)
        if reader.buffer is None:
            raise HTTPException(404, "A priority queue has members, no groups.")
        return reader

    async def _priority(self, request: Request) -> Reader:
        reader = await self._board.reader(request)
        if reader.buffer is not None:
            raise HTTPException(404, "A buffer has groups, no members.")
        return reader

    # -- acts

    async def pause(self, request: Request) -> Response:
        group, given = await self._meant(request, "pause")
        seconds, reason = given.get("seconds"), given.get("reason", "")
        if group is not None and reason:
            return _refusal(Outcome("The pause of a group keeps no reason.", status=400))
        return await self._do(
            request, given, lambda reader, token: self._board.acts.pause(reader, seconds, reason, token, group)
        )

    async def resume(self, request: Request) -> Response:
        group, given = await self._meant(request, "pause")
        return await self._do(request, given, lambda reader, token: self._board.acts.resume(reader, token, group))

    async def redrive(self, request: Request) -> Response:
        return await self._settle(request, "redrive")

    async def discard(self, request: Request) -> Response:
        return await self._settle(request, "discard")

    async def _settle(self, request: Request, verb: Any) -> Response:
        _, given = await self._meant(request, verb)
        ids = given.get("ids", [])
        if given.get("all") is True and not ids:
            return await self._do(request, given, lambda reader, _: self._board.acts.settle_all(verb, reader))
        if given.get("all") or not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
            return _refusal(Outcome('Give either {"ids": [...]}, of strings, or {"all": true}.', status=400))
        return await self._do(request, given, lambda reader, token: self._board.acts.settle(verb, reader, ids, token))

    async def purge(self, request: Request) -> Response:
        _, given = await self._meant(request, "purge")
        name = given.get("name", "")
        return await self._do(request, given, lambda reader, _: self._board.acts.purge(reader, name))

    async def audit(self, request: Request) -> Response:
        reader = await self._board.reader(request)
        if job := self._board.jobs.start("audit", reader, None):
            await briefly(job)
        return self._audit(reader)

    async def stop(self, request: Request) -> Response:
        reader = await self._board.reader(request)
        job = self._board.jobs.of(reader.info.name)
        if job is None or not job.running:
            raise HTTPException(404, "Nothing is being done to this queue.")
        self._board.need(job.verb)
        self._board.jobs.stop(job)
        return JSONResponse(job.document())

    async def stop_audit(self, request: Request) -> Response:
        reader = await self._board.reader(request)
        job = self._board.jobs.audit_of(reader.info.name)
        if job is None or not job.running:
            raise HTTPException(404, "This queue is not being audited.")
        self._board.jobs.stop(job)
        await briefly(job)
        return self._audit(reader)

    async def _meant(self, request: Request, act: str) -> tuple[bytes | None, dict[str, Any]]:
        """Return the group if there is one, and the document of an act that is allowed."""
        self._board.need(act)
        body = await body_of(request)
        try:
            given = json.loads(body) if body.strip() else {}
            json.dumps(given, ensure_ascii=False).encode()  # refuses halves of surrogate pairs, which have no bytes
        except (ValueError, RecursionError):
            given = None
        if not isinstance(given, dict):
            raise HTTPException(400, "The body is not a JSON object.")
        group = request.path_params.get("group")
        return None if group is None else from_segment(group), given

    async def _do(
        self, request: Request, given: dict[str, Any], act: Callable[[Reader, str], Awaitable[Outcome]]
    ) -> Response:
        key = [request.scope["path"], json.dumps(given, sort_keys=True)]

        async def performed(act_id: str) -> Outcome:
            # The queue is looked for here, not before: sent again after a purge, this has an outcome and no queue.
            return await act(await self._board.reader(request), act_id)

        _, outcome = await self._board.perform(given.get("token"), key, performed)
        if not outcome.ok:
            return _refusal(outcome)
        return JSONResponse({"message": outcome.message, **outcome.document})


def _refusal(outcome: Outcome) -> Response:
    return JSONResponse({"error": outcome.message, **outcome.document}, outcome.status)


# -- documents


def _name(what: str, name: bytes | str) -> dict[str, Any]:
    """Return a name for people, and as a part of a path, in which nothing is lost."""
    return {what: text(name), "path": to_segment(name)}


def _sample(one: Sample) -> dict[str, Any]:
    document = overview_json(one.overview)
    used = one.used
    return {
        **document,
        "path": to_segment(one.info.name),
        "time": time_json(one.time) if one.at else None,
        "change_per_second": one.rates.change,
        "done_per_second": one.rates.done,
        "failed_per_second": one.rates.failed,
        "rates_used": None if used is None else {"granted": used.granted, "seconds": used.seconds},
        "warnings": [text(said) for said in one.warnings],
    }


def _group(group: Group) -> dict[str, Any]:
    until = group.paused_until
    return {
        **_name("group", group.name),
        "waiting": group.length,
        "state": group.state,
        "since": time_json(group.since),
        "paused_until": None if until is None or until == float("inf") else time_json(until),
        "batch": None if group.batch is None else text(group.batch),
    }


def _member(one: Entry) -> dict[str, Any]:
    return {
        **_name("member", one.data),
        "priority": one.priority,
        "attempts": one.attempts,
        "payload": None if one.payload is None else Payload(one.payload).json,
        "reason": text(one.reason),
    }


def _items(items: Items) -> dict[str, Any]:
    members = any(one.priority is not None for one in items.entries)
    return {
        "items": [_member(one) if members else Payload(one.data).json for one in items.entries],
        "total": items.total,
        "next": items.following,
    }


_TIMES = {"leased": "deadline", "delayed": "due", "dead": "died"}


def _batch(one: Batch, state: str) -> dict[str, Any]:
    return {
        **_name("id", one.id),
        _TIMES[state]: time_json(one.time),
        "group": None if one.group is None else text(one.group),
        "attempts": one.attempts,
        "holder": text(one.holder),
        "reason": text(one.reason),
        "size": one.size,
    }


def _page(page: Page, state: str) -> dict[str, Any]:
    rows = []
    for one in page.entries:
        member = len(one.entries) == 1 and one.group is None and one.entries[0].data == one.id
        if member and state != "leased":
            rows.append({**_member(one.entries[0]), _TIMES[state]: time_json(one.time)})
        else:
            first = [_member(each) if each.priority is not None else Payload(each.data).json for each in one.entries]
            rows.append({**_batch(one, state), "first": first})
    following = None if page.following is None else to_segment(page.following)
    return {state: rows, "total": page.total, "next": following}
