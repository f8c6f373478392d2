"""Versions of workflows, for operators: where new runs go, and which code is still needed."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from chat_app.api import Caller, Services, api_router, needs
from core.errors import Conflict, WorkflowUnknown
from core.tenancy import Scope
from core.versions.model import Changed

router = api_router("Versions")


class VersionOut(BaseModel):
    """One version of a workflow."""

    model_config = ConfigDict(from_attributes=True)

    workflow: str
    version: str
    installed: bool = Field(description="The process that answers has its code, and so may take new runs.")
    workers: int = Field(description="Live workers that have its code.")
    share: float = Field(description="Percent of the new runs that go to it.")
    tenants: list[str] = Field(description="Tenants whose new runs all go to it.")
    queued: int
    running: int
    waiting: int
    oldest_at: datetime | None = Field(description="When its oldest open run was submitted.")
    removable: bool = Field(description="Nothing of it is open and nothing new goes to it: its code may be removed.")
    stuck: bool = Field(description="Runs of it are queued, and no live worker has its code.")


class VersionsOut(BaseModel):
    """All versions that are installed, executed or open, by workflow."""

    versions: list[VersionOut]


class CanaryIn(BaseModel):
    """A version to try."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"workflow": "loan-approval", "version": "2", "percent": 5, "tenants": []}]},
    )

    workflow: str = Field(min_length=1, max_length=100)
    version: str = Field(min_length=1, max_length=100)
    percent: float = Field(0.0, ge=0, le=100, description="Share of the new runs, by the hash of their keys.")
    tenants: list[str] = Field(default_factory=list, max_length=1_000, description="All new runs of these tenants.")


class PromoteIn(BaseModel):
    """What all new runs go to."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"workflow": "loan-approval", "version": "2"}]}
    )

    workflow: str = Field(min_length=1, max_length=100)
    version: str | None = Field(None, min_length=1, max_length=100, description="Default: the canary.")


class WorkflowIn(BaseModel):
    """The workflow whose route changes."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"workflow": "loan-approval"}]})

    workflow: str = Field(min_length=1, max_length=100)


class RouteOut(BaseModel):
    """Where new runs that name no version go from now on."""

    base: str | None = Field(description="Null: to the newest version.")
    canary: str | None
    percent: float
    tenants: list[str]
    warnings: list[str] = Field(description="What to see to: code that nobody has.")

    @classmethod
    def of(cls, changed: Changed) -> Self:
        """As the API shows it."""
        route, warnings = changed.route, list(changed.warnings)
        if route is None:
            return cls(base=None, canary=None, percent=0.0, tenants=[], warnings=warnings)
        return cls(
            base=route.base,
            canary=route.canary,
            percent=route.percent,
            tenants=list(route.tenants),
            warnings=warnings,
        )


@router.get("/versions", **needs(Scope.PLATFORM_OPERATE))
async def list_versions(caller: Caller, services: Services) -> VersionsOut:
    """Every version, what of it is open, who has its code and what goes to it. For operators."""
    views = await services.platform.versions.list(caller)
    return VersionsOut(versions=[VersionOut.model_validate(view) for view in views])


@router.post("/versions/canary", **needs(Scope.PLATFORM_OPERATE, WorkflowUnknown, Conflict, body=True))
async def try_version(body: CanaryIn, caller: Caller, services: Services) -> RouteOut:
    """Send a share of the new runs, and all of some tenants, to a version. For operators."""
    versions = services.platform.versions
    return RouteOut.of(await versions.try_out(caller, body.workflow, body.version, body.percent, tuple(body.tenants)))


@router.post("/versions/promote", **needs(Scope.PLATFORM_OPERATE, WorkflowUnknown, Conflict, body=True))
async def promote_version(body: PromoteIn, caller: Caller, services: Services) -> RouteOut:
    """Send all new runs to the canary, or to the version named. For operators."""
    return RouteOut.of(await services.platform.versions.promote(caller, body.workflow, body.version))


@router.post("/versions/rollback", **needs(Scope.PLATFORM_OPERATE, Conflict, body=True))
async def roll_back_version(body: WorkflowIn, caller: Caller, services: Services) -> RouteOut:
    """End the canary; without one, send all new runs to the version before. For operators."""
    return RouteOut.of(await services.platform.versions.roll_back(caller, body.workflow))


@router.post("/versions/newest", **needs(Scope.PLATFORM_OPERATE, body=True))
async def follow_newest_version(body: WorkflowIn, caller: Caller, services: Services) -> RouteOut:
    """Send all new runs to the newest version, as without any route. For operators."""
    return RouteOut.of(await services.platform.versions.follow_newest(caller, body.workflow))
