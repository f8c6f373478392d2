"""Schedules: runs started by time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Self

from fastapi import Query, Response
from pydantic import BaseModel, ConfigDict, Field

from chat_app.api import PREFIX, ApiServices, Caller, Id, Services, api_router, needs
from chat_app.routes.run_models import RunOut
from chat_app.routes.runs import ADMISSION
from core.errors import Conflict, NotFound, QuotaExceeded, WorkflowUnknown
from core.schedules.model import FireView, ScheduleView
from core.tenancy import Scope

_UPCOMING = 3

router = api_router("Schedules")


class ScheduleIn(BaseModel):
    """A schedule to make."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "name": "Morning check",
                    "cron": "0 9 * * mon-fri",
                    "timezone": "Europe/Berlin",
                    "workflow": "loan-recheck",
                    "input": {},
                }
            ]
        },
    )

    name: str = Field(max_length=200)
    cron: str = Field(max_length=200, description="Minute, hour, day of month, month, day of week.")
    workflow: str = Field(min_length=1, max_length=200)
    input: dict[str, Any] = Field(default_factory=dict)
    timezone: str | None = Field(None, max_length=100, description="IANA name. Default: the tenant's.")


class ScheduleEdit(BaseModel):
    """What to change; what is absent stays."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"cron": "30 8 * * mon-fri", "version": 1}]}
    )

    name: str | None = Field(None, max_length=200)
    cron: str | None = Field(None, max_length=200)
    workflow: str | None = Field(None, min_length=1, max_length=200)
    input: dict[str, Any] | None = None
    timezone: str | None = Field(None, max_length=100)
    version: int | None = Field(None, ge=1, description="The version that was edited: 409 when there is a newer one.")


class ScheduleOut(BaseModel):
    """A schedule."""

    model_config = ConfigDict(from_attributes=True)

    schedule_id: str
    name: str
    cron: str
    timezone: str
    workflow: str
    input: dict[str, Any]
    paused: bool
    version: int
    next_at: datetime | None = Field(description="Null: it is paused, or never due again.")
    next_fires: list[datetime] = Field(description="The next three times; also of one that is paused.")
    last_due_at: datetime | None
    last_run_id: str | None
    last_error: dict[str, Any] | None = Field(description="Why the last occurrence started no run (yet).")
    created_by: str
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, services: ApiServices, view: ScheduleView) -> Self:
        """As the API shows it."""
        platform = services.platform
        upcoming = list(platform.schedules.next_fires(view, _UPCOMING, platform.clock.now()))
        shown = {name: getattr(view, name) for name in cls.model_fields if name != "next_fires"}
        return cls(next_fires=upcoming, **shown)


class SchedulesOut(BaseModel):
    """All schedules, the oldest first."""

    schedules: list[ScheduleOut]


class FireOut(BaseModel):
    """What became of one occurrence."""

    model_config = ConfigDict(from_attributes=True)

    due_at: datetime
    fired_at: datetime
    missed_since: datetime | None = Field(description="The first of the missed occurrences it stands for.")
    run_id: str | None
    error: dict[str, Any] | None


class FiresOut(BaseModel):
    """The latest occurrences, the newest first."""

    fires: list[FireOut]

    @classmethod
    def of(cls, fires: Sequence[FireView]) -> Self:
        """As the API shows them."""
        return cls(fires=[FireOut.model_validate(fire) for fire in fires])


@router.get("/schedules", **needs(Scope.SCHEDULES_READ))
async def list_schedules(caller: Caller, services: Services) -> SchedulesOut:
    """All schedules of the tenant."""
    views = await services.platform.schedules.list(caller)
    return SchedulesOut(schedules=[ScheduleOut.of(services, view) for view in views])


@router.post("/schedules", status_code=201, **needs(Scope.SCHEDULES_WRITE, WorkflowUnknown, QuotaExceeded, body=True))
async def create_schedule(body: ScheduleIn, response: Response, caller: Caller, services: Services) -> ScheduleOut:
    """Start a workflow by time. Needs the right runs:write as well."""
    view = await services.platform.schedules.create(caller, **body.model_dump())
    response.headers["Location"] = f"{PREFIX}/schedules/{view.schedule_id}"
    return ScheduleOut.of(services, view)


@router.get("/schedules/{schedule_id}", **needs(Scope.SCHEDULES_READ, NotFound))
async def get_schedule(schedule_id: Id, caller: Caller, services: Services) -> ScheduleOut:
    """One schedule."""
    return ScheduleOut.of(services, await services.platform.schedules.get(caller, schedule_id))


@router.patch(
    "/schedules/{schedule_id}", **needs(Scope.SCHEDULES_WRITE, NotFound, Conflict, WorkflowUnknown, body=True)
)
async def edit_schedule(schedule_id: Id, body: ScheduleEdit, caller: Caller, services: Services) -> ScheduleOut:
    """Change a schedule; it acts at once."""
    view = await services.platform.schedules.edit(caller, schedule_id, **body.model_dump())
    return ScheduleOut.of(services, view)


@router.delete("/schedules/{schedule_id}", status_code=204, **needs(Scope.SCHEDULES_WRITE, NotFound))
async def delete_schedule(schedule_id: Id, caller: Caller, services: Services) -> None:
    """Remove a schedule; its runs stay."""
    await services.platform.schedules.delete(caller, schedule_id)


@router.post("/schedules/{schedule_id}/pause", **needs(Scope.SCHEDULES_WRITE, NotFound))
async def pause_schedule(schedule_id: Id, caller: Caller, services: Services) -> ScheduleOut:
    """Start nothing until it is resumed."""
    return ScheduleOut.of(services, await services.platform.schedules.pause(caller, schedule_id))


@router.post("/schedules/{schedule_id}/resume", **needs(Scope.SCHEDULES_WRITE, NotFound))
async def resume_schedule(schedule_id: Id, caller: Caller, services: Services) -> ScheduleOut:
    """Go on with the next occurrence; nothing is made up for."""
    return ScheduleOut.of(services, await services.platform.schedules.resume(caller, schedule_id))


@router.post("/schedules/{schedule_id}/run-now", status_code=201, **needs(Scope.SCHEDULES_WRITE, NotFound, *ADMISSION))
async def run_schedule_now(schedule_id: Id, response: Response, caller: Caller, services: Services) -> RunOut:
    """Start its run now; its times stay. Needs the right runs:write as well."""
    view = await services.platform.schedules.run_now(caller, schedule_id)
    response.headers["Location"] = f"{PREFIX}/runs/{view.run_id}"
    return RunOut.of(view)


@router.get("/schedules/{schedule_id}/fires", **needs(Scope.SCHEDULES_READ, NotFound))
async def list_fires(
    schedule_id: Id, caller: Caller, services: Services, limit: Annotated[int, Query(ge=1, le=1_000)] = 50
) -> FiresOut:
    """What became of the latest occurrences."""
    return FiresOut.of(await services.platform.schedules.fires(caller, schedule_id, limit))
