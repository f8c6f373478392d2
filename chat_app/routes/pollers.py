"""Pollers: runs started by a change at an address."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field

from chat_app.api import PREFIX, Caller, Id, Services, api_router, needs
from core.errors import Conflict, NotFound, QuotaExceeded, WorkflowUnknown
from core.schedules.model import PollStatus
from core.tenancy import Scope

router = api_router("Pollers")


class PollerIn(BaseModel):
    """A poller to make."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "name": "Guideline updates",
                    "url": "https://example.org/feed.xml",
                    "workflow": "feed-changed",
                    "interval_s": 300,
                }
            ]
        },
    )

    name: str = Field(max_length=200)
    url: str = Field(max_length=2_000, description="http or https; not a private address.")
    workflow: str = Field(min_length=1, max_length=200, description="Its input has a field `change`.")
    interval_s: int = Field(300, ge=10, le=604_800, description="Seconds between two looks.")
    input: dict[str, Any] = Field(default_factory=dict, description="The rest of the run's input.")


class PollerEdit(BaseModel):
    """What to change; what is absent stays."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"interval_s": 600}]})

    name: str | None = Field(None, max_length=200)
    url: str | None = Field(None, max_length=2_000)
    workflow: str | None = Field(None, min_length=1, max_length=200)
    interval_s: int | None = Field(None, ge=10, le=604_800)
    input: dict[str, Any] | None = None
    version: int | None = Field(None, ge=1, description="The version that was edited: 409 when there is a newer one.")


class PollerOut(BaseModel):
    """A poller."""

    model_config = ConfigDict(from_attributes=True)

    poller_id: str
    name: str
    url: str
    interval_s: int
    workflow: str
    input: dict[str, Any]
    paused: bool
    version: int
    next_at: datetime | None = Field(description="The next look; null: it is paused.")
    failures: int = Field(description="Failed looks in a row.")
    last_status: PollStatus | None
    last_error: dict[str, Any] | None
    last_polled_at: datetime | None
    last_changed_at: datetime | None
    last_run_id: str | None
    created_by: str
    created_at: datetime
    updated_at: datetime


class PollersOut(BaseModel):
    """All pollers, the oldest first."""

    pollers: list[PollerOut]


@router.get("/pollers", **needs(Scope.SCHEDULES_READ))
async def list_pollers(caller: Caller, services: Services) -> PollersOut:
    """All pollers of the tenant."""
    views = await services.platform.pollers.list(caller)
    return PollersOut(pollers=[PollerOut.model_validate(view) for view in views])


@router.post("/pollers", status_code=201, **needs(Scope.SCHEDULES_WRITE, WorkflowUnknown, QuotaExceeded, body=True))
async def create_poller(body: PollerIn, response: Response, caller: Caller, services: Services) -> PollerOut:
    """Watch an address. The first look only remembers what is there. Needs the right runs:write as well."""
    view = await services.platform.pollers.create(caller, **body.model_dump())
    response.headers["Location"] = f"{PREFIX}/pollers/{view.poller_id}"
    return PollerOut.model_validate(view)


@router.get("/pollers/{poller_id}", **needs(Scope.SCHEDULES_READ, NotFound))
async def get_poller(poller_id: Id, caller: Caller, services: Services) -> PollerOut:
    """One poller."""
    return PollerOut.model_validate(await services.platform.pollers.get(caller, poller_id))


@router.patch("/pollers/{poller_id}", **needs(Scope.SCHEDULES_WRITE, NotFound, Conflict, WorkflowUnknown, body=True))
async def edit_poller(poller_id: Id, body: PollerEdit, caller: Caller, services: Services) -> PollerOut:
    """Change a poller; it looks at once. Another address forgets what was seen at the old one."""
    view = await services.platform.pollers.edit(caller, poller_id, **body.model_dump())
    return PollerOut.model_validate(view)


@router.delete("/pollers/{poller_id}", status_code=204, **needs(Scope.SCHEDULES_WRITE, NotFound))
async def delete_poller(poller_id: Id, caller: Caller, services: Services) -> None:
    """Remove a poller; its runs stay."""
    await services.platform.pollers.delete(caller, poller_id)


@router.post("/pollers/{poller_id}/pause", **needs(Scope.SCHEDULES_WRITE, NotFound))
async def pause_poller(poller_id: Id, caller: Caller, services: Services) -> PollerOut:
    """Do not look until it is resumed."""
    return PollerOut.model_validate(await services.platform.pollers.pause(caller, poller_id))


@router.post("/pollers/{poller_id}/resume", **needs(Scope.SCHEDULES_WRITE, NotFound))
async def resume_poller(poller_id: Id, caller: Caller, services: Services) -> PollerOut:
    """Look again, at once; what changed meanwhile counts."""
    return PollerOut.model_validate(await services.platform.pollers.resume(caller, poller_id))


@router.post("/pollers/{poller_id}/run-now", status_code=202, **needs(Scope.SCHEDULES_WRITE, NotFound, Conflict))
async def look_now(poller_id: Id, caller: Caller, services: Services) -> PollerOut:
    """Look as soon as possible; a run starts if something changed. 409: it is paused."""
    await services.platform.pollers.look_now(caller, poller_id)
    return PollerOut.model_validate(await services.platform.pollers.get(caller, poller_id))
