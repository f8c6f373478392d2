"""What a submission says, and what is made of it before anything is written. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from core.errors import BailiwickError, IdempotencyConflict
from core.ids import RunId, new_id
from core.runs.model import Lane, RunRequest, RunState, RunView, Standstill
from core.runs.store import NewRun
from core.tenancy import TenantContext


@dataclass(frozen=True, slots=True)
class WorkflowInfo:
    """What submission needs to know of a workflow. ``budget_microusd`` and ``timeout_s`` None: the policy's."""

    name: str
    version: str
    lane: Lane
    budget_microusd: int | None
    timeout_s: float | None = None


class Catalog(Protocol):
    """The registered workflows."""

    def resolve(self, name: str, version: str | None) -> WorkflowInfo:
        """The workflow of this name and version (None: the newest). Raises ``WorkflowUnknown``."""
        ...

    def is_private(self, name: str) -> bool:
        """Whether its input and output are for the submitter's eyes only."""
        ...

    def validate(self, info: WorkflowInfo, document: Mapping[str, Any]) -> dict[str, Any]:
        """The input in its canonical JSON form. Raises ``InvalidInput`` with a pointer to each fault."""
        ...


def new_run(
    ctx: TenantContext,
    request: RunRequest,
    info: WorkflowInfo,
    document: dict[str, Any],
    now: datetime,
    at_most_microusd: int | None = None,
) -> NewRun:
    """What is inserted for a request: the limits of the policy are part of it, and what its parent has left."""
    limit = ctx.policy.budget_run_microusd
    if at_most_microusd is not None:
        limit = min(limit, at_most_microusd)
    return NewRun(
        run_id=RunId(new_id("run", now)),
        request=request,
        version=info.version,
        lane=info.lane if request.lane is None else request.lane,
        input_document=document,
        budget_microusd=limit if info.budget_microusd is None else min(limit, info.budget_microusd),
        timeout_s=info.timeout_s,
    )


def queued_view(ctx: TenantContext, run: NewRun, standstill: Standstill, now: datetime) -> RunView:
    """A new run as it stands when it enters the queue."""
    return RunView(
        run_id=run.run_id,
        workflow=run.request.workflow,
        version=run.version,
        lane=run.lane,
        state=RunState.QUEUED,
        cause=standstill.of(run.request.workflow, run.version),
        source=run.request.source,
        batch_id=run.request.batch_id,
        thread_id=run.request.thread_id,
        user_id=ctx.user_id,
        input=run.input_document,
        output=None,
        outcome=None,
        error=None,
        progress=None,
        attempt=0,
        cost_microusd=0,
        budget_microusd=run.budget_microusd,
        worker_seconds=0.0,
        submitted_at=now,
        started_at=None,
        finished_at=None,
        held=False,
        forked_from=None if run.request.fork is None else run.request.fork.run_id,
        parent_run_id=run.request.parent_run_id,
    )


def replayed_id(request: RunRequest, known: tuple[RunId, bytes]) -> RunId:
    """The run of an idempotency key that was used before. Raises ``IdempotencyConflict`` for another body."""
    run_id, digest = known
    if digest != request.digest():
        raise IdempotencyConflict(
            "This idempotency key was used before with another body.", idempotency_key=request.idempotency_key
        )
    return run_id


def refusal_record(error: BailiwickError, count: int) -> dict[str, Any]:
    """What the audit keeps of a refused submission."""
    return {"code": error.code, "runs": count, **error.details}
