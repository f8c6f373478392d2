"""One act on many runs: look at what a filter finds, then apply it, once."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Self

from fastapi import Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from chat_app.api import PREFIX, Caller, Id, Services, api_router, needs
from chat_app.routes.run_models import BATCH_NAME
from core.errors import NotFound
from core.runs.acts import Act
from core.runs.bulk import Bulk, Choice
from core.runs.model import RunState
from core.tenancy import Scope

router = api_router("Bulk")


class ChoiceIn(BaseModel):
    """Which runs; what is left out does not narrow. Only those that the act fits are chosen."""

    model_config = ConfigDict(extra="forbid")

    workflow: str | None = Field(None, max_length=200)
    state: RunState | None = None
    batch_id: str | None = Field(None, pattern=BATCH_NAME)
    outcome: str | None = Field(None, max_length=200)
    error_code: str | None = Field(None, max_length=200)
    submitted_from: AwareDatetime | None = Field(None, description="Inclusive.")
    submitted_until: AwareDatetime | None = Field(None, description="Exclusive.")
    user_id: str | None = Field(None, max_length=200, description="Who submitted them.")


class BulkIn(BaseModel):
    """What is to be done to which runs."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"act": "retry", "runs": {"workflow": "loan-approval", "state": "failed"}}]},
    )

    act: Act
    runs: ChoiceIn = Field(default_factory=ChoiceIn)


class SampleOut(BaseModel):
    """One of the runs."""

    model_config = ConfigDict(from_attributes=True)

    run_id: str
    workflow: str
    version: str
    state: RunState
    outcome: str | None
    error_code: str | None
    submitted_at: datetime


class BulkOut(BaseModel):
    """A bulk and how far it is."""

    model_config = ConfigDict(from_attributes=True)

    bulk_id: str
    act: Act
    state: str = Field(description="previewed, applying or done.")
    choice: dict[str, Any] = Field(description="The filter.")
    actor: str = Field(description="Who chose the runs; since it is applied, who applied it.")
    created_at: datetime
    applied_at: datetime | None
    done_at: datetime | None
    runs: int
    by_state: dict[str, int] = Field(description="The runs by their state at the preview.")
    done: int
    skipped: int
    left: int
    reasons: dict[str, int] = Field(description="Why runs were skipped, and how many.")
    sample: list[SampleOut] = Field(description="The newest ten, as they stand.")

    @classmethod
    def of(cls, bulk: Bulk) -> Self:
        """As the API shows it."""
        return cls.model_validate(bulk)


@router.post("/bulk", status_code=201, **needs(Scope.RUNS_WRITE, body=True))
async def preview_bulk(body: BulkIn, response: Response, caller: Caller, services: Services) -> BulkOut:
    """Choose up to 10,000 runs. Nothing is done to them before `POST /bulk/{bulk_id}`, and then to these only."""
    bulk = await services.platform.bulk.preview(caller, body.act, Choice(**dict(body.runs)))
    response.headers["Location"] = f"{PREFIX}/bulk/{bulk.bulk_id}"
    return BulkOut.of(bulk)


@router.post("/bulk/{bulk_id}", status_code=202, **needs(Scope.RUNS_WRITE, NotFound))
async def apply_bulk(bulk_id: Id, caller: Caller, services: Services) -> BulkOut:
    """Do it: each run once, however often this is sent. It goes on by itself; a run whose state changed is skipped."""
    return BulkOut.of(await services.platform.bulk.apply(caller, bulk_id))


@router.get("/bulk/{bulk_id}", **needs(Scope.RUNS_READ, NotFound))
async def get_bulk(bulk_id: Id, caller: Caller, services: Services) -> BulkOut:
    """How far it is."""
    return BulkOut.of(await services.platform.bulk.get(caller, bulk_id))
