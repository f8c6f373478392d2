"""Runs: submit and look. What is done to them is in ``control``."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

from fastapi import Header, Query, Response

from chat_app.api import PREFIX, ApiServices, Caller, Id, Services, api_router, needs
from chat_app.routes.run_models import (
    BATCH_NAME,
    BatchIn,
    BatchOut,
    BatchSubmittedOut,
    ReasonOut,
    ReasonsOut,
    RunDetailOut,
    RunIn,
    RunOut,
    RunsOut,
    SentEventIn,
    SentEventOut,
    StepsOut,
    SubmittedOut,
)
from core.errors import (
    BudgetExceeded,
    Draining,
    IdempotencyConflict,
    InvalidInput,
    NotFound,
    Overloaded,
    QuotaExceeded,
    WorkflowUnknown,
)
from core.ids import new_id
from core.runs.history import relatives
from core.runs.model import Lane, RunRequest, RunState
from core.tenancy import Scope, TenantContext

ADMISSION = (WorkflowUnknown, IdempotencyConflict, QuotaExceeded, BudgetExceeded, Overloaded, Draining)
_MAX_FAULTS = 50

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        description="The same key with the same body answers with what the first request made.",
    ),
]

router = api_router("Runs")


SENT_AGAIN: dict[int | str, dict[str, Any]] = {
    200: {"model": RunOut, "description": "Sent again: the run that the first submission made."}
}


@router.post("/runs", status_code=201, **needs(Scope.RUNS_WRITE, *ADMISSION, body=True, also=SENT_AGAIN))
async def submit_run(
    body: RunIn, response: Response, caller: Caller, services: Services, idempotency_key: IdempotencyKey = None
) -> RunOut:
    """Submit a run. 201: it is new; 200: the idempotency key was used before, and this is the run it made."""
    view, created = await services.platform.runs.submit(caller, body.request(idempotency_key=idempotency_key))
    response.headers["Location"] = f"{PREFIX}/runs/{view.run_id}"
    if not created:
        response.status_code = 200
    return RunOut.of(view)


@router.post("/runs/batch", status_code=201, **needs(Scope.RUNS_WRITE, *ADMISSION, body=True))
async def submit_batch(
    body: BatchIn, response: Response, caller: Caller, services: Services, idempotency_key: IdempotencyKey = None
) -> BatchSubmittedOut:
    """Submit up to 1,000 runs, all or none. With a key, for the batch or for its runs, it may be sent again."""
    if idempotency_key is not None and body.batch_id is not None:
        # The name is made from the key and the number of runs: so another batch under the same key is noticed.
        raise InvalidInput("A batch with an Idempotency-Key names itself.", field="batch_id")
    batch_id = body.batch_id or _batch_id(caller, body, idempotency_key, services)
    requests = [
        RunRequest(
            workflow=item.workflow,
            input=item.input,
            version=item.version,
            lane=None if item.lane is None else Lane[item.lane.upper()],
            batch_id=batch_id,
            idempotency_key=item.idempotency_key or _item_key(idempotency_key, number),
        )
        for number, item in enumerate(body.runs)
    ]
    _check_inputs(services, requests)
    views = await services.platform.runs.submit_many(caller, requests)
    response.headers["Location"] = f"{PREFIX}/batches/{batch_id}"
    return BatchSubmittedOut(
        batch_id=batch_id, runs=[SubmittedOut(run_id=view.run_id, state=view.state) for view in views]
    )


def _batch_id(caller: TenantContext, body: BatchIn, key: str | None, services: ApiServices) -> str:
    """A new name; the same one when the same keyed batch comes again."""
    keys = [item.idempotency_key or "" for item in body.runs]
    if key is None and not any(keys):
        return new_id("bat", services.platform.clock.now())
    named = "\n".join([caller.tenant_id, key or "", *keys])
    return f"bat_{hashlib.sha256(named.encode()).hexdigest()[:32]}"


def _item_key(key: str | None, number: int) -> str | None:
    """A key of the run's own, made from the batch's; ``None`` when the batch has none."""
    if key is None:
        return None
    return f"batch:{hashlib.sha256(key.encode()).hexdigest()}:{number}"


def _check_inputs(services: ApiServices, requests: list[RunRequest]) -> None:
    """Raise ``InvalidInput`` that points at the faults of every run, not only of the first."""
    workflows = services.platform.workflows
    faults: list[dict[str, str]] = []
    for number, request in enumerate(requests):
        try:
            workflows.validate(workflows.resolve(request.workflow, request.version), request.input)
        except WorkflowUnknown as error:
            faults.append({"pointer": f"/runs/{number}/workflow", "message": error.message})
        except InvalidInput as error:
            found = error.details.get("errors", [{"pointer": "/input", "message": error.message}])
            faults += [{**fault, "pointer": f"/runs/{number}{fault['pointer']}"} for fault in found]
        if len(faults) >= _MAX_FAULTS:
            break
    if faults:
        raise InvalidInput("Not every run of the batch is acceptable; none was submitted.", errors=faults[:_MAX_FAULTS])


@router.get("/runs", **needs(Scope.RUNS_READ))
async def list_runs(
    caller: Caller,
    services: Services,
    state: Annotated[RunState | None, Query(description="Only runs in this state.")] = None,
    workflow: Annotated[str | None, Query(max_length=200)] = None,
    batch_id: Annotated[str | None, Query(pattern=BATCH_NAME)] = None,
    outcome: Annotated[str | None, Query(max_length=200, description="The workflow's own word, e.g. declined.")] = None,
    parent: Annotated[str | None, Query(max_length=100, description="Only runs that this run spawned.")] = None,
    cursor: Annotated[str | None, Query(max_length=500, description="`next_cursor` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> RunsOut:
    """Runs that pass all filters, newest first."""
    views, next_cursor = await services.platform.runs.list(
        caller,
        state=state,
        workflow=workflow,
        batch_id=batch_id,
        outcome=outcome,
        parent=parent,
        cursor=cursor,
        limit=limit,
    )
    return RunsOut(runs=[RunOut.of(view) for view in views], next_cursor=next_cursor)


@router.get("/runs/{run_id}", **needs(Scope.RUNS_READ, NotFound))
async def get_run(run_id: Id, caller: Caller, services: Services) -> RunDetailOut:
    """One run: where it stands, what it has waited for and, while it is queued, when it should start."""
    view = await services.platform.runs.get(caller, run_id)
    standing = await services.platform.runs.standing(caller, view)
    return RunDetailOut.detailed(view, standing, await relatives(services.platform.db, caller, run_id))


@router.get("/runs/{run_id}/steps", **needs(Scope.RUNS_READ, NotFound))
async def get_steps(run_id: Id, caller: Caller, services: Services) -> StepsOut:
    """All attempts of all steps of a run, with what each cost."""
    return StepsOut.of(list(await services.platform.runs.steps(caller, run_id)))


@router.post("/events", status_code=202, **needs(Scope.RUNS_WRITE, body=True))
async def send_event(body: SentEventIn, caller: Caller, services: Services) -> SentEventOut:
    """Send an event: runs that wait for it go on, a run that will wait for it does not have to, triggers start."""
    sent = await services.platform.runs.send_event(caller, body.name, body.key, body.payload)
    await services.platform.triggers.sent(caller, body.name, body.key)
    return SentEventOut(new=sent)


@router.get("/batches/{batch_id}", **needs(Scope.RUNS_READ, NotFound))
async def get_batch(batch_id: Id, caller: Caller, services: Services) -> BatchOut:
    """How far the runs of a batch are."""
    return BatchOut.of(await services.platform.runs.batch_progress(caller, batch_id))


@router.get("/batches/{batch_id}/reasons", **needs(Scope.RUNS_READ, NotFound))
async def get_reasons(batch_id: Id, caller: Caller, services: Services) -> ReasonsOut:
    """Why applications of a batch were declined, the most frequent reason first."""
    await services.platform.runs.batch_progress(caller, batch_id)
    reasons = await services.platform.runs.declined_summary(caller, batch_id)
    return ReasonsOut(reasons=[ReasonOut.model_validate(reason) for reason in reasons])
