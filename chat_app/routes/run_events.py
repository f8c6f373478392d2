"""What happens to a run: as a list, or as a stream that can be taken up again where it broke off.

The stream is read from the run's own event log, so nothing is lost: live events only say that there is
something new to read. It ends with the run. While the run is queued or waits, the stream costs a comment every
15 s and no query; while it executes, the log is read once a second. Before each reading the caller is
identified anew, so a revoked key or an ended session ends the stream too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Header, Query, Request
from fastapi.responses import StreamingResponse
from starlette.responses import Response

from chat_app.api import ApiServices, Caller, Id, Services, api_router, needs
from chat_app.routes.run_models import EventOut, EventsOut
from core.errors import BailiwickError, NotFound
from core.redis.bus import RESYNC, Event, Events
from core.runs.model import RunState
from core.tenancy import Scope, TenantContext

STREAM = "text/event-stream"
COMMENT_EVERY_S = 15.0
LOOK_EVERY_S = 1.0
_PAGE = 1_000
_MAX_SEQ = 2**31 - 1

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
        services.streams.check(caller.tenant_id)
        parts = _stream(services, request, caller, run_id, after)
        return StreamingResponse(parts, media_type=STREAM, headers={"X-Accel-Buffering": "no"})
    events = await services.platform.runs.events(caller, run_id, after)
    page = EventsOut(events=[EventOut.of(event) for event in events])
    return Response(page.model_dump_json(), media_type="application/json")


async def _stream(
    services: ApiServices, request: Request, caller: TenantContext, run_id: str, after: int
) -> AsyncIterator[str]:
    with services.streams.open(caller.tenant_id):
        # Listening begins before the first reading: what happens in between is heard.
        async with services.platform.bus.subscribe(caller.tenant_id) as events:
            ears = _Ears(events, run_id, services.stopping)
            try:
                async for part in _parts(services, request, ears, run_id, after):
                    yield part
            except BailiwickError as error:
                # The answer has begun: all that can still be said is why it ends.
                yield f"event: problem\ndata: {error.code}\n\n"
            finally:
                await ears.close()


async def _parts(services: ApiServices, request: Request, ears: _Ears, run_id: str, after: int) -> AsyncIterator[str]:
    runs = services.platform.runs
    yield "retry: 2000\n\n"
    while not services.stopping.is_set():
        ctx, _ = await services.auth.caller(request)
        # The state is read before the events: when it is final, the last event is among them.
        state = (await runs.get(ctx, run_id)).state
        page = await runs.events(ctx, run_id, after)
        for event in page:
            yield f"id: {event.seq}\nevent: {event.kind}\ndata: {EventOut.of(event).model_dump_json()}\n\n"
            after = event.seq
        if len(page) == _PAGE:
            continue
        if state.final:
            return
        look_s = LOOK_EVERY_S if state is RunState.RUNNING else None
        while not await ears.heard(look_s or COMMENT_EVERY_S) and look_s is None:
            yield ": still here\n\n"


class _Ears:
    """Hears when there may be something new about one run, and when the process stops."""

    def __init__(self, events: Events, run_id: str, stopping: asyncio.Event) -> None:
        self._events = events
        self._run_id = run_id
        self._next: asyncio.Task[Event] | None = None
        self._stop = asyncio.create_task(stopping.wait())

    async def heard(self, timeout_s: float) -> bool:
        """Wait for something about the run, at most this long; whether there was."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        while (left_s := until - loop.time()) > 0:
            self._next = self._next or asyncio.create_task(_next(self._events))
            await asyncio.wait({self._next, self._stop}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            if self._stop.done():
                return True
            if self._next.done():
                event, self._next = self._next.result(), None
                if event.kind == RESYNC or event.data.get("run_id") == self._run_id:
                    return True
        return False

    async def close(self) -> None:
        """Stop listening."""
        tasks = [task for task in (self._next, self._stop) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _next(events: Events) -> Event:
    return await anext(events)
