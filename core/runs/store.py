"""Rows of runs as their tenant reads and submits them. What a worker writes is in ``execution_store``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from core.db.pool import Row, Transaction
from core.db.queries import load_queries
from core.ids import RunId, TenantId
from core.runs.model import (
    Cause,
    Lane,
    ReasonCount,
    RunRequest,
    RunState,
    RunView,
    Standstill,
    StepView,
)
from core.runs.waiting import Parking, Passage
from core.tenancy import TenantContext

SQL = load_queries(__file__)


@dataclass(frozen=True, slots=True)
class QueueRow:
    """The tenant's place in the fair queue. ``blocked``: all that is queued is at a cap of its user or workflow.

    ``full``: workflows that are at a cap of their own.
    """

    queued: int
    running: int
    cap: int
    paused: bool
    draining: bool
    blocked: bool
    full: frozenset[str]


_NO_QUEUE = QueueRow(0, 0, 0, False, False, False, frozenset())


@dataclass(frozen=True, slots=True)
class Overlong:
    """A parked run that has lasted too long, and how long its workflow lets it last (None: as long as the policy)."""

    tenant_id: TenantId
    run_id: RunId
    timeout_s: float | None


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run about to be inserted."""

    run_id: RunId
    request: RunRequest
    version: str
    lane: Lane
    input_document: dict[str, Any]
    budget_microusd: int
    timeout_s: float | None


async def insert_runs(tx: Transaction, ctx: TenantContext, new: Sequence[NewRun], now: datetime) -> int:
    """Insert runs and their first events; how many: fewer when another submission took an idempotency key."""
    requests = [run.request for run in new]
    inserted = await tx.fetch(
        SQL["insert_runs"],
        [run.run_id for run in new],
        [request.workflow for request in requests],
        [run.version for run in new],
        [int(run.lane) for run in new],
        [request.source for request in requests],
        [request.batch_id for request in requests],
        [request.thread_id for request in requests],
        [request.parent_run_id for request in requests],
        [request.idempotency_key for request in requests],
        [request.digest() for request in requests],
        ctx.user_id,
        ctx.policy_version,
        now,
        [run.input_document for run in new],
        [run.budget_microusd for run in new],
        ctx.actor,
        [request.parent_step for request in requests],
        [None if request.fork is None else request.fork.run_id for request in requests],
        [run.timeout_s for run in new],
    )
    return len(inserted)


async def by_idempotency_keys(tx: Transaction, keys: Sequence[str]) -> dict[str, tuple[RunId, bytes]]:
    """Run and digest of each key that was used before."""
    rows = await tx.fetch(SQL["by_idempotency_keys"], list(keys))
    return {row["idempotency_key"]: (RunId(row["run_id"]), row["request_hash"]) for row in rows}


async def versions_by_key(tx: Transaction, keys: Sequence[str]) -> dict[str, str]:
    """The version of the run of each key that was used before."""
    rows = await tx.fetch(SQL["versions_by_key"], list(keys))
    return {row["idempotency_key"]: row["version"] for row in rows}


async def admitted(tx: Transaction, day: date, runs: int) -> tuple[int, QueueRow]:
    """Runs admitted on this day, these included, and the tenant's queue counters before they enter it."""
    (row,) = await tx.fetch(SQL["admitted"], day, runs)
    return row["admitted"], _queue_row(row)


async def open_runs(tx: Transaction, limit: int) -> int:
    """Runs of the tenant that have not ended, counted up to a limit."""
    return int(await tx.fetchval(SQL["open_runs"], limit))


async def ended_since(tx: Transaction, since: datetime) -> int:
    """Runs of the tenant that ended since a moment."""
    return int(await tx.fetchval(SQL["ended_since"], since))


async def queue_row(tx: Transaction) -> QueueRow:
    """The tenant's queue counters; zeros for a tenant that has no queue (the platform's own)."""
    row = await tx.fetchrow(SQL["queue_row"])
    return _NO_QUEUE if row is None else _queue_row(row)


def _queue_row(row: Row) -> QueueRow:
    if row["queued"] is None:
        return _NO_QUEUE
    return QueueRow(
        row["queued"],
        row["running"],
        row["cap"],
        row["paused"],
        row["draining"],
        row["blocked"],
        frozenset(row["full"]),
    )


def _view(row: Row, standstill: Standstill) -> RunView:
    state = RunState(row["state"])
    cause = Cause(row["cause"]) if row["cause"] else None
    return RunView(
        run_id=RunId(row["run_id"]),
        workflow=row["workflow"],
        version=row["version"],
        lane=Lane(row["lane"]),
        state=state,
        cause=standstill.of(row["workflow"], row["version"]) if state is RunState.QUEUED else cause,
        source=row["source"],
        batch_id=row["batch_id"],
        thread_id=row["thread_id"],
        user_id=row["user_id"],
        input=row["input"],
        output=row["output"],
        outcome=row["outcome"],
        error=row["error"],
        progress=row["progress"],
        attempt=row["attempt"],
        cost_microusd=row["cost_microusd"],
        budget_microusd=row["budget_microusd"],
        worker_seconds=row["worker_seconds"],
        submitted_at=row["submitted_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        held=row["held"],
        forked_from=row["forked_from"],
        parent_run_id=row["parent_run_id"],
        undoing=row["undoing"],
    )


async def views(
    tx: Transaction,
    standstill: Standstill,
    *,
    state: str | None,
    workflow: str | None,
    batch_id: str | None,
    outcome: str | None,
    parent: str | None,
    after: tuple[datetime, str] | None,
    limit: int,
) -> list[RunView]:
    """Runs that pass the filters, newest first."""
    moment, run_id = after or (None, None)
    rows = await tx.fetch(SQL["views"], state, workflow, batch_id, outcome, moment, run_id, limit, parent)
    return [_view(row, standstill) for row in rows]


async def views_by_id(tx: Transaction, standstill: Standstill, run_ids: Sequence[str]) -> list[RunView]:
    """These runs of the tenant; unknown ids are left out."""
    return [_view(row, standstill) for row in await tx.fetch(SQL["views_by_id"], list(run_ids))]


async def steps(tx: Transaction, run_id: str) -> list[StepView]:
    """All attempts of all steps."""
    return [StepView(**row) for row in await tx.fetch(SQL["steps"], run_id)]


async def passages(tx: Transaction, run_id: str, now: datetime) -> list[Passage]:
    """Every time a run was in the queue and in a slot, oldest first."""
    return [Passage(**row) for row in await tx.fetch(SQL["passages"], run_id, now)]


async def parkings(tx: Transaction, run_id: str) -> list[Parking]:
    """When it was parked, what for, and when it ended; oldest first."""
    rows = await tx.fetch(SQL["parkings"], run_id)
    return [Parking(row["at"], Cause(row["cause"]) if row["kind"] == RunState.WAITING else None) for row in rows]


async def append_event(tx: Transaction, run_id: str, now: datetime, kind: str, data: dict[str, Any]) -> None:
    """Write the next event of a run."""
    await tx.execute(SQL["append_event"], run_id, now, kind, data)


async def batch_counts(tx: Transaction, batch_id: str) -> list[Row]:
    """Rows of state, cause, outcome, workflow, version, runs, cost_microusd."""
    return await tx.fetch(SQL["batch_counts"], batch_id)


async def declined_reasons(tx: Transaction, batch_id: str | None) -> list[ReasonCount]:
    """Reasons of refusals, most frequent first."""
    return [ReasonCount(r["reason"], r["runs"]) for r in await tx.fetch(SQL["declined_reasons"], batch_id)]


async def overlong(tx: Transaction, now: datetime, limit: int) -> list[Overlong]:
    """Parked runs of all tenants that have lasted too long."""
    return [Overlong(**row) for row in await tx.fetch(SQL["overlong"], now, limit)]


async def fail_cancelled(tx: Transaction, run_id: str, error: dict[str, Any]) -> None:
    """End as failed what this transaction has cancelled."""
    await tx.execute(SQL["fail_cancelled"], run_id, error)


async def event_line(tx: Transaction, name: str, key: str) -> None:
    """Wait until nobody sends this event, or begins to wait for it, and keep others from it until the end."""
    await tx.execute(SQL["event_line"], name, key)


async def send_event(tx: Transaction, name: str, key: str, payload: Any, now: datetime) -> bool:
    """False when an event of this name and key exists already."""
    return await tx.execute(SQL["send_event"], name, key, payload, now) == 1


async def waits_on_key(tx: Transaction, cause: Cause, key: str, limit: int) -> list[tuple[RunId, int]]:
    """Runs and steps that wait under a key, those that wait for the longest first."""
    rows = await tx.fetch(SQL["waits_on_key"], cause.value, key, limit)
    return [(RunId(row["run_id"]), row["step"]) for row in rows]


async def waits_over(tx: Transaction, cause: Cause, key: str, now: datetime) -> int:
    """All that wait under a key are woken by the scheduler; how many."""
    return await tx.execute(SQL["waits_over"], cause.value, key, now)
