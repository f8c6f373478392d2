"""What is done to runs: cancel, pause, resume, retry, fork; what they may spend."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Response
from pydantic import BaseModel, ConfigDict, Field

from chat_app.api import PREFIX, Caller, Id, Services, api_router, needs
from chat_app.routes.run_models import RunOut
from chat_app.routes.runs import ADMISSION, SENT_AGAIN, IdempotencyKey
from core.errors import Conflict, NotFound
from core.tenancy import Scope

router = api_router("Runs")


class ForkIn(BaseModel):
    """From where a run is done again, as a new run."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"from_step": 2}]})

    from_step: int = Field(ge=1, le=1_000_000, description="The first step that is performed; counted from 1.")
    input: dict[str, Any] | None = Field(
        None,
        description="The new run's input; null: the same. The steps before keep what they returned for the old one.",
    )


class BudgetIn(BaseModel):
    """What a run may spend."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"budget_microusd": 2_000_000}]})

    budget_microusd: int = Field(
        ge=0, le=10**15, description="In all, with what it has spent and what its children spend. 1 USD = 1,000,000."
    )


@router.post("/runs/{run_id}/cancel", **needs(Scope.RUNS_WRITE, NotFound, Conflict))
async def cancel_run(run_id: Id, caller: Caller, services: Services) -> RunOut:
    """Cancel: at once when it is queued, waits or is dead, before its next step when it executes.

    What its finished steps did is undone first, where the workflow says how. 409: it has ended otherwise.
    """
    return RunOut.of(await services.platform.control.cancel(caller, run_id))


@router.post("/runs/{run_id}/pause", **needs(Scope.RUNS_WRITE, NotFound, Conflict))
async def pause_run(run_id: Id, caller: Caller, services: Services) -> RunOut:
    """Hold it until it is resumed: at once when it is queued or waits, before its next step when it executes.

    What it waits for may end meanwhile. 409: it has ended, is paused already, is being cancelled or undoes what it did.
    """
    return RunOut.of(await services.platform.control.pause(caller, run_id))


@router.post("/runs/{run_id}/resume", **needs(Scope.RUNS_WRITE, NotFound, Conflict))
async def resume_run(run_id: Id, caller: Caller, services: Services) -> RunOut:
    """Let a paused run go on, from the head of its lane, unless it still waits for something. 409: it is not paused."""
    return RunOut.of(await services.platform.control.resume(caller, run_id))


@router.post("/runs/{run_id}/retry", **needs(Scope.RUNS_WRITE, NotFound, Conflict))
async def retry_run(
    run_id: Id,
    caller: Caller,
    services: Services,
    from_step: Annotated[
        int | None, Query(ge=1, le=1_000_000, description="Do this step and all after it again, finished or not.")
    ] = None,
) -> RunOut:
    """Queue a failed, cancelled or dead run again; finished steps are not repeated. 409: it is in another state."""
    return RunOut.of(await services.platform.control.retry(caller, run_id, from_step=from_step))


@router.put("/runs/{run_id}/budget", **needs(Scope.TENANT_WRITE, NotFound, Conflict, body=True))
async def set_budget(run_id: Id, body: BudgetIn, caller: Caller, services: Services) -> RunOut:
    """Say what a run may spend: a run that lacked money goes on within a second when its next step is covered now.

    422: less than is spent or promised, or more than the policy allows a run. 409: it has succeeded.
    """
    return RunOut.of(await services.platform.control.budget(caller, run_id, body.budget_microusd))


@router.post(
    "/runs/{run_id}/fork",
    status_code=201,
    **needs(Scope.RUNS_WRITE, NotFound, *ADMISSION, body=True, also=SENT_AGAIN),
)
async def fork_run(
    run_id: Id,
    body: ForkIn,
    response: Response,
    caller: Caller,
    services: Services,
    idempotency_key: IdempotencyKey = None,
) -> RunOut:
    """Submit a new run of the same workflow and version that is given the steps before `from_step`, at no cost.

    A changed input does not change what these steps returned; it is refused after a step that people decided, which is
    asked again then. 200: the idempotency key was used before.
    """
    view, created = await services.platform.control.fork(
        caller, run_id, from_step=body.from_step, document=body.input, idempotency_key=idempotency_key
    )
    response.headers["Location"] = f"{PREFIX}/runs/{view.run_id}"
    if not created:
        response.status_code = 200
    return RunOut.of(view)
