"""What happens to a run, or to all of a tenant: as a list, or as a stream that is taken up again where it broke off.

The stream of a run is read from its own event log (``chat_app.feeds``), so nothing is lost; it ends with the run. The
stream of a tenant only says which runs have changed their state, and ``resync`` where it may have missed some. Before
something is told the caller is identified anew if the last time was 5 s ago, or somebody's rights have changed since:
so a revoked key or an ended session ends the stream, too.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Header, Query, Request
from fastapi.responses import StreamingResponse
from starlette.responses import Response

from chat_app.api import ApiServices, Caller, Id, Services, api_router, needs
from chat_app.feeds import COMMENT_EVERY_S, sent
from chat_app.routes.run_models import ChangeOut, EventOut, EventsOut
from core.errors import BailiwickError, NotFound
from core.redis.bus import RESYNC, Event, Events
from core.runs.log import without_content
from core.runs.model import RunEvent
from core.tenancy import Scope, TenantContext
from core.tenants.model import IDENTITY

STREAM = "text/event-stream"
_RETRY = "retry: 2000\n\n"
_COMMENT = ": still here\n\n"
_IDENTIFIED_FOR_S = 5.0
_MAX_SEQ = 2**31 - 1
_TOLD_OF_RUNS = ("run_id", "state", "cause", "batch_id", "thread_id")

router = api_router("Runs")
_AS_A_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Events after a position; with `Accept: text/event-stream`, a stream until the run ends.",
        "content": {
            STREAM: {
                "schema": {"type": "string"},
                "example": 'id: 1\nevent: submitted\ndata: {"seq":1,"at":"2026-01-05T09:00:00Z",'
                '"kind":"submitted","data":{}}\n\n',
            }
        },
    }
}
_CHANGES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A stream, without an end, of what is described here.",
        "content": {
            STREAM: {
                "schema": {"type": "string"},
                "example": 'event: run\ndata: {"run_id": "run_06g2kq8v3m4n5p6r7s8t9v0w1", "state": "succeeded"}\n\n',
            }
        },
    }
}


@router.get(
    "/runs/{run_id}/events",
    response_model=EventsOut,
    **needs(Scope.RUNS_READ, NotFound, also=_AS_A_STREAM),
)
async def get_events(
    run_id: Id,
    request: Request,
    caller: Caller,
    services: Services,
    after_seq: Annotated[int, Query(ge=0, le=_MAX_SEQ, description="Only what came after this event.")] = 0,
    last_event_id: Annotated[
        int | None,
        Header(alias="Last-Event-ID", ge=0, le=_MAX_SEQ, description="The same, as browsers send it."),
    ] = None,
) -> Response:
    """What happened to a run, from any position: up to 1,000 events, or a stream of them as they come."""
    after = after_seq if last_event_id is None else last_event_id
    if STREAM in request.headers.get("accept", ""):
        await services.platform.runs.get(caller, run_id)
        return await _streamed(services, caller, _run(services, request, caller, run_id, after))
    events = await services.platform.runs.events(caller, run_id, after)
    page = EventsOut(events=[EventOut.of(event) for event in events])
    return Response(page.model_dump_json(), media_type="application/json")


@router.get("/events", response_model=ChangeOut, **needs(Scope.RUNS_READ, also=_CHANGES))
async def follow_events(request: Request, caller: Caller, services: Services) -> Response:
    """Which runs of the tenant change their state, as it happens: no content, and nothing of what was before.

    `resync` says that changes may be missing: look at what you show again.
    """
    return await _streamed(services, caller, _changes(services, request, caller))


async def _streamed(services: ApiServices, caller: TenantContext, parts: AsyncIterator[str]) -> Response:
    """The answer, which begins with the first part: nothing that happens from then on is missed."""
    services.streams.check(caller.tenant_id)
    counted = _counted(services, caller, parts)
    first = await anext(counted)
    return StreamingResponse(_all(first, counted), media_type=STREAM, headers={"X-Accel-Buffering": "no"})


async def _all(first: str, rest: AsyncIterator[str]) -> AsyncIterator[str]:
    yield first
    async for part in rest:
        yield part


async def _counted(services: ApiServices, caller: TenantContext, parts: AsyncIterator[str]) -> AsyncIterator[str]:
    with services.streams.open(caller.tenant_id):
        try:
            async for part in parts:
                yield part
        except BailiwickError as error:
            # The answer has begun: all that can still be said is why it ends.
            yield f"event: problem\ndata: {error.code}\n\n"


async def _run(
    services: ApiServices, request: Request, caller: TenantContext, run_id: str, after: int
) -> AsyncIterator[str]:
    async with services.feeds.following(caller, run_id, after) as run:
        yield _RETRY
        allowed = _Allowed(services, request)
        async for told in run.feed.follow(after):
            if not told:
                yield _COMMENT
                continue
            ctx = await allowed(run.identities)
            page = run.feed.page
            hidden = page is not None and services.platform.runs.log.hidden(ctx, page)
            for one in told:
                yield _masked(one.event) if hidden else one.sent


def _masked(event: RunEvent) -> str:
    return sent(event, EventOut.of(without_content(event)).model_dump_json())


async def _changes(services: ApiServices, request: Request, caller: TenantContext) -> AsyncIterator[str]:
    async with services.platform.bus.subscribe(caller.tenant_id) as events:
        yield _RETRY
        allowed, identities = _Allowed(services, request), 0
        async for event in _until(services.stopping, events):
            if event is None:
                yield _COMMENT
                continue
            identities += event.kind in (RESYNC, IDENTITY)
            if event.kind in (RESYNC, "run"):
                await allowed(identities)
                told = {key: event.data[key] for key in _TOLD_OF_RUNS if event.data.get(key) is not None}
                yield f"event: {event.kind}\ndata: {json.dumps(told)}\n\n"


async def _until(stopping: asyncio.Event, events: Events) -> AsyncIterator[Event | None]:
    """The events, until the process is told to stop; None every 15 s in which none comes."""
    stop = asyncio.create_task(stopping.wait())
    coming = asyncio.create_task(_next(events))
    try:
        while not stop.done():
            await asyncio.wait({coming, stop}, timeout=COMMENT_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
            if coming.done():
                event, coming = coming.result(), asyncio.create_task(_next(events))
                yield event
            elif not stop.done():
                yield None
    finally:
        for task in (stop, coming):
            task.cancel()
        await asyncio.gather(stop, coming, return_exceptions=True)


async def _next(events: Events) -> Event:
    return await anext(events)


class _Allowed:
    """Whether the caller may still look on."""

    def __init__(self, services: ApiServices, request: Request) -> None:
        self._services = services
        self._request = request
        self._ctx: TenantContext | None = None
        self._identities = -1
        self._until = 0.0

    async def __call__(self, identities: int) -> TenantContext:
        """Who looks on. ``identities`` differs from before when rights may have changed. Raises ``Unauthenticated``."""
        now = asyncio.get_running_loop().time()
        if self._ctx is None or identities != self._identities or now >= self._until:
            self._ctx, _ = await self._services.auth.caller(self._request)
            self._ctx.require(Scope.RUNS_READ)
            self._identities, self._until = identities, now + _IDENTIFIED_FOR_S
        return self._ctx
