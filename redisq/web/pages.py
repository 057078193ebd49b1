"""The pages: what there is, and forms for what may be done. All of them work without scripts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any
from urllib.parse import parse_qs

from sse_starlette import EventSourceResponse
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from . import sampler
from .acts import Outcome, Refused
from .dashboard import Dashboard, body_of, choice, count
from .jobs import Job, briefly
from .names import from_segment, shown, to_segment, typed
from .reader import Direction, ListState, Reader
from .sampler import TICK
from .views import COLUMNS, SORTS, environment, ordered, thinned

PAGE = 50
_PING = 15  # seconds after which a connection without news is shown to be alive
_STATES: tuple[ListState, ...] = ("leased", "delayed", "dead")
_TEMPLATES = environment()
Handler = Callable[[Request], Awaitable[Response]]


def routes(board: Dashboard) -> list[BaseRoute]:
    """Return the routes of the pages."""
    pages = Pages(board)
    queue = "/queues/{queue}"
    gets: dict[str, Handler] = {
        "/": pages.overview,
        "/live": pages.overview_live,
        "/healthz": pages.health,
        "/livez": pages.alive,
        "/api": pages.api,
        queue: pages.queue,
        f"{queue}/live": pages.queue_live,
        f"{queue}/find": pages.find,
        f"{queue}/audit": pages.audit,
        f"{queue}/groups/{{group}}": pages.group,
        f"{queue}/members/{{member}}": pages.member,
    }
    posts: dict[str, Handler] = {
        f"{queue}/pause": pages.pause,
        f"{queue}/resume": pages.resume,
        f"{queue}/groups/{{group}}/pause": pages.pause,
        f"{queue}/groups/{{group}}/resume": pages.resume,
        f"{queue}/redrive": partial(pages.settle, "redrive"),
        f"{queue}/discard": partial(pages.settle, "discard"),
        f"{queue}/purge": pages.purge,
        f"{queue}/stop": pages.stop,
        f"{queue}/audit": pages.run_audit,
        f"{queue}/audit/stop": pages.stop_audit,
    }
    for state in _STATES:
        gets[f"{queue}/{state}"] = partial(pages.listing, state)
        gets[f"{queue}/{state}/{{id}}"] = partial(pages.batch, state)
    return [
        *(Route(path, handler, methods=["GET"]) for path, handler in gets.items()),
        *(Route(path, handler, methods=["POST"]) for path, handler in posts.items()),
    ]


class Pages:
    """The pages of one app."""

    def __init__(self, board: Dashboard) -> None:
        self._board = board
        self._rendered: dict[tuple[str, ...], str] = {}
        self._version = -1

    # -- rendering

    def render(self, request: Request, template: str, status: int = 200, **context: Any) -> Response:
        """Return a page."""
        return HTMLResponse(self._text(request, template, **context), status)

    def error(self, request: Request, status: int, message: str) -> Response:
        """Return a page that says what is wrong."""
        return HTMLResponse(self._text(request, "error.html", status=status, message=message), status)

    def _text(self, request: Request, template: str, **context: Any) -> str:
        base = str(request.scope.get("root_path", "")).rstrip("/")
        board = self._board
        return _TEMPLATES.get_template(template).render(
            base=base, sampler=board.sampler, allow=board.acts.allow, tick=TICK, notice=self._notice(request), **context
        )

    def _notice(self, request: Request) -> Outcome | None:
        return self._board.acts.outcome(request.query_params.get("outcome", ""))

    # -- all queues

    async def overview(self, request: Request) -> Response:
        """Show all queues."""
        known = self._board.sampler.answered
        await self._board.sampler.refresh(sampler.PAGE_TIMEOUT * (1 if known else 5))
        return self.render(request, "overview.html", **self._overview(request))

    def _overview(self, request: Request) -> dict[str, Any]:
        sort = choice(request, "sort", SORTS)
        samples = ordered(list(self._board.sampler.samples.values()), sort)
        return {"sort": sort, "columns": COLUMNS, "samples": samples}

    async def overview_live(self, request: Request) -> Response:
        """Send all queues again and again."""
        sort = choice(request, "sort", SORTS)
        return self._live(
            request, ("overview", sort), lambda: self._text(request, "_overview.html", **self._overview(request))
        )

    def _live(self, request: Request, key: tuple[str, ...], text: Callable[[], str]) -> Response:
        """Send a part of a page whenever there is something new; it is rendered once for all who see the same.

        Rows that a viewer has already are not sent again.
        """
        board = self._board
        key = (*key, str(request.scope.get("root_path", "")))

        def rendered() -> str:
            if self._version != board.sampler.version:
                self._rendered.clear()
                self._version = board.sampler.version
            if key not in self._rendered:
                self._rendered[key] = text()
            return self._rendered[key]

        async def events() -> AsyncIterator[dict[str, str]]:
            rows: dict[str, str] = {}
            async with board.sampler.watching() as changed:
                while True:
                    part, rows = thinned(rendered(), rows)
                    yield {"event": "part", "data": part}
                    await changed.wait()
                    changed.clear()

        return EventSourceResponse(events(), ping=_PING, send_timeout=30)

    # -- one queue

    async def _page(self, request: Request, reader: Reader, template: str, tab: str, **context: Any) -> Response:
        board, name = self._board, reader.info.name
        sample = await board.sampler.sample(reader.info, sampler.PAGE_TIMEOUT)
        return self.render(
            request,
            template,
            info=reader.info,
            sample=sample,
            tab=tab,
            job=board.jobs.of(name),
            audit=board.jobs.audit_of(name),
            **context,
        )

    async def queue(self, request: Request) -> Response:
        """Show the groups of a buffer, or the members of a priority queue that are ready."""
        reader = await self._board.reader(request)
        after = count(request, "after", 0, 0, 10**9 - 1)
        if reader.buffer is None:
            items = await reader.ready(after, PAGE)
            return await self._page(request, reader, "members.html", "members", items=items)
        state = choice(request, "state", ("waiting", "busy", "paused"))
        found = list((await reader.buffer.groups(PAGE + 1, after, state)).items())
        following = after + PAGE if len(found) > PAGE else None
        return await self._page(
            request,
            reader,
            "groups.html",
            "groups",
            groups=found[:PAGE],
            state=state,
            first=after,
            following=following,
            page=PAGE,
        )

    async def queue_live(self, request: Request) -> Response:
        """Send the head of a queue's page again and again."""
        reader = await self._board.reader(request)
        board, name = self._board, reader.info.name
        await board.sampler.sample(reader.info, sampler.PAGE_TIMEOUT)
        tab = choice(request, "tab", ("groups", "members", *_STATES, "audit"))

        def text() -> str:
            sample = board.sampler.samples.get(name)
            job, audit = board.jobs.of(name), board.jobs.audit_of(name)
            return self._text(request, "_queue.html", info=reader.info, sample=sample, tab=tab, job=job, audit=audit)

        return self._live(request, ("queue", name, tab), text)

    async def find(self, request: Request) -> Response:
        """Go to the page of the group or member that somebody typed."""
        reader = await self._board.reader(request)
        name = typed(request.query_params.get("name", ""))
        kind = "members" if reader.buffer is None else "groups"
        if not name and reader.buffer is not None:
            raise HTTPException(400, "Type the name of a group: no group has an empty one.")
        return self._to(request, f"/queues/{to_segment(reader.info.name)}/{kind}/{to_segment(name)}")

    async def group(self, request: Request) -> Response:
        """Show what waits in a group."""
        reader = await self._board.reader(request)
        name = from_segment(request.path_params["group"])
        if reader.buffer is None or not name:
            raise HTTPException(
                404, "A priority queue has members, no groups." if name else "No group has an empty name."
            )
        after = count(request, "after", 0, 0, 10**9 - 1)
        group, items = await reader.group(name), await reader.items(name, after, PAGE)
        return await self._page(request, reader, "group.html", "groups", group=group, items=items)

    async def member(self, request: Request) -> Response:
        """Show all that is known of a member."""
        reader = await self._board.reader(request)
        if reader.buffer is not None:
            raise HTTPException(404, "A buffer has groups, no members.")
        member = await reader.member(from_segment(request.path_params["member"]))
        return await self._page(
            request, reader, "member.html", "members", status=404 if member.state == "absent" else 200, member=member
        )

    async def listing(self, state: ListState, request: Request) -> Response:
        """Show what is leased, delayed or dead."""
        reader = await self._board.reader(request)
        orders: tuple[Direction, ...] = ("newest", "oldest") if state == "dead" else ("oldest", "newest")
        order = choice(request, "order", orders)
        after = request.query_params.get("after")
        found = await reader.listing(state, PAGE, None if after is None else from_segment(after), order)
        seen = self._board.seen
        if state == "leased":
            seen.note(reader.info.name, [one.id for one in found.entries])
        return await self._page(
            request,
            reader,
            "listing.html",
            state,
            found=found,
            state=state,
            order=order,
            orders=orders,
            after=after,
            seen=partial(seen.since, reader.info.name),
        )

    async def batch(self, state: ListState, request: Request) -> Response:
        """Show one batch with all its items, a page at a time."""
        reader = await self._board.reader(request)
        name = from_segment(request.path_params["id"])
        if state != "leased" and reader.buffer is None:
            return self._to(request, f"/queues/{to_segment(reader.info.name)}/members/{to_segment(name)}")
        found = await reader.batch(state, name, count(request, "after", 0, 0, 10**9 - 1), PAGE)
        if found is None:
            raise HTTPException(404, f"The batch {shown(name)} is not {state} any more.")
        batch, items = found
        if state == "leased":
            self._board.seen.note(reader.info.name, [name])
        return await self._page(
            request,
            reader,
            "batch.html",
            state,
            batch=batch,
            items=items,
            state=state,
            seen=partial(self._board.seen.since, reader.info.name),
        )

    async def audit(self, request: Request) -> Response:
        """Show the latest audit."""
        reader = await self._board.reader(request)
        return await self._page(request, reader, "audit.html", "audit")

    # -- acts

    async def _form(self, request: Request) -> dict[str, list[str]]:
        if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            raise HTTPException(415, "A form is wanted; programs use the JSON API.")
        body = (await body_of(request)).decode("utf-8", "surrogateescape")
        try:
            return parse_qs(body, keep_blank_values=True, max_num_fields=5_000, errors="surrogateescape")
        except ValueError:
            raise HTTPException(400, "The form has too many fields.") from None

    async def _do(
        self,
        request: Request,
        act: str,
        perform: Callable[[Reader, dict[str, list[str]], str], Awaitable[Outcome]],
        back: str,
    ) -> Response:
        """Perform an act once, and go back to the page that shows its outcome."""
        self._board.need(act)
        form = await self._form(request)
        token = _one(form, "token")
        key = [str(request.scope["path"]), *(f"{name}={value}" for name in sorted(form) for value in form[name])]

        async def performed(act_id: str) -> Outcome:
            # The queue is looked for here, not before: sent again after a purge, this has an outcome and no queue.
            return await perform(await self._board.reader(request), form, act_id)

        act_id, outcome = await self._board.perform(token, key, performed)
        if not outcome.ok:
            return self.error(request, outcome.status, outcome.message)
        gone = act == "purge" and outcome.document["job"]["state"] != "running"  # its page is not there any more
        return self._to(request, "/" if gone else f"/queues/{request.path_params['queue']}{back}", outcome=act_id)

    def _to(self, request: Request, path: str, **query: str) -> Response:
        base = str(request.scope.get("root_path", "")).rstrip("/")
        asked = "?" + "&".join(f"{name}={value}" for name, value in query.items()) if query else ""
        return RedirectResponse(f"{base}{path}{asked}", 303)

    async def pause(self, request: Request) -> Response:
        """Pause a queue or a group."""
        group, back = _group_of(request)
        acts = self._board.acts
        return await self._do(
            request,
            "pause",
            lambda reader, form, token: acts.pause(reader, _one(form, "duration"), _one(form, "reason"), token, group),
            back,
        )

    async def resume(self, request: Request) -> Response:
        """End the pause of a queue or a group."""
        group, back = _group_of(request)
        return await self._do(
            request, "pause", lambda reader, _, token: self._board.acts.resume(reader, token, group), back
        )

    async def settle(self, verb: Any, request: Request) -> Response:
        """Redrive or discard one dead letter, those that are chosen, or all."""

        async def perform(reader: Reader, form: dict[str, list[str]], token: str) -> Outcome:
            if _one(form, "all"):
                return await self._board.acts.settle_all(verb, reader)
            chosen = form.get("only") or form.get("id", [])
            if not chosen:
                raise Refused(400, "Nothing is chosen: tick the dead letters that are meant.")
            return await self._board.acts.settle(verb, reader, chosen, token)

        return await self._do(request, verb, perform, "/dead")

    async def purge(self, request: Request) -> Response:
        """Throw everything in a queue away."""
        return await self._do(
            request, "purge", lambda reader, form, _: self._board.acts.purge(reader, _one(form, "name")), ""
        )

    async def stop(self, request: Request) -> Response:
        """Stop what is being done to a queue."""
        reader = await self._board.reader(request)
        job: Job | None = self._board.jobs.of(reader.info.name)
        if job is not None and job.running:
            self._board.need(job.verb)
            self._board.jobs.stop(job)
            await briefly(job)
        elif not self._board.acts.allow:
            self._board.need("redrive")
        return self._to(request, f"/queues/{request.path_params['queue']}/dead")

    async def run_audit(self, request: Request) -> Response:
        """Compare a queue's keys with each other; it only reads, but it walks the server's keys."""
        reader = await self._board.reader(request)
        if job := self._board.jobs.start("audit", reader, None):
            await briefly(job)
        return self._to(request, f"/queues/{request.path_params['queue']}/audit")

    async def stop_audit(self, request: Request) -> Response:
        """Stop the audit of a queue: who may begin one may end it."""
        reader = await self._board.reader(request)
        job = self._board.jobs.audit_of(reader.info.name)
        if job is not None and job.running:
            self._board.jobs.stop(job)
            await briefly(job)
        return self._to(request, f"/queues/{request.path_params['queue']}/audit")

    # -- the rest

    async def api(self, request: Request) -> Response:
        """Document the JSON API."""
        return self.render(request, "api.html")

    async def alive(self, _: Request) -> Response:
        """Say that the process answers, whatever Redis does."""
        return PlainTextResponse("ok\n")

    async def health(self, _: Request) -> Response:
        """Say whether Redis answers, and nothing else."""
        up = await self._board.sampler.ping()
        return PlainTextResponse("ok\n") if up else PlainTextResponse("unavailable\n", 503)


def _one(form: dict[str, list[str]], name: str) -> str:
    return (form.get(name) or [""])[0]


def _group_of(request: Request) -> tuple[bytes | None, str]:
    """Return the group that a path names, and the end of the path of its page."""
    segment = request.path_params.get("group")
    return (None, "") if segment is None else (from_segment(segment), f"/groups/{segment}")
