"""Rows that a worker writes while it executes a run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from core.db.pool import Transaction
from core.db.queries import load_queries
from core.runs.model import Cause, RunState

SQL = load_queries(__file__)


@dataclass(frozen=True, slots=True)
class OpenWait:
    """Something a run is about to park on."""

    step: int
    cause: Cause
    wake_at: datetime | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of a step: started, done or failed."""

    number: int
    state: str
    result: Any


async def finish(
    tx: Transaction,
    run_id: str,
    state: RunState,
    output: Any,
    outcome: str | None,
    error: dict[str, Any] | None,
    now: datetime,
) -> bool:
    """Put a running run into a final state."""
    return await tx.execute(SQL["finish"], run_id, state.value, output, outcome, error, now) == 1


async def open_waits(tx: Transaction, run_id: str) -> list[OpenWait]:
    """What the run waits for, oldest first; empty when all of it is over."""
    rows = await tx.fetch(SQL["open_waits"], run_id)
    return [OpenWait(r["step"], Cause(r["cause"]), r["wake_at"]) for r in rows]


async def park(tx: Transaction, run_id: str, cause: Cause, resume_step: int) -> bool:
    """Put a running run into state 'waiting'."""
    return await tx.execute(SQL["park"], run_id, cause.value, resume_step) == 1


async def requeue(tx: Transaction, run_id: str, resume_step: int | None, now: datetime) -> bool:
    """Put a running run back into state 'queued'."""
    return await tx.execute(SQL["requeue"], run_id, resume_step, now) == 1


async def set_progress(tx: Transaction, run_id: str, progress: dict[str, Any]) -> None:
    """What the run says about how far it is."""
    await tx.execute(SQL["set_progress"], run_id, progress)


async def cancel_requested(tx: Transaction, run_id: str) -> bool:
    """Whether somebody wants the run to stop."""
    return bool(await tx.fetchval(SQL["cancel_requested"], run_id))


async def began(tx: Transaction, run_id: str) -> datetime | None:
    """When the run first got a slot; None: not yet."""
    moment: datetime | None = await tx.fetchval(SQL["began"], run_id)
    return moment


async def recorded_step(tx: Transaction, run_id: str, step: int) -> tuple[int, Any] | None:
    """Attempt and result of a step that finished once."""
    row = await tx.fetchrow(SQL["recorded_step"], run_id, step)
    return None if row is None else (row["attempt"], row["result"])


async def last_attempt(tx: Transaction, run_id: str, step: int) -> int:
    """How often the step was begun."""
    return int(await tx.fetchval(SQL["last_attempt"], run_id, step))


async def newest_attempt(tx: Transaction, run_id: str, step: int) -> Attempt | None:
    """The newest attempt of a step, None when it was never begun."""
    row = await tx.fetchrow(SQL["newest_attempt"], run_id, step)
    return None if row is None else Attempt(row["attempt"], row["state"], row["result"])


async def begin_step(
    tx: Transaction, run_id: str, step: int, attempt: int, name: str, kind: str, now: datetime
) -> None:
    """An attempt begins."""
    await tx.execute(SQL["begin_step"], run_id, step, attempt, name, kind, now)


async def finish_step(
    tx: Transaction,
    run_id: str,
    step: int,
    attempt: int,
    result: Any,
    cost_microusd: int,
    model: str | None,
    now: datetime,
) -> bool:
    """The attempt succeeded; False when it was not open."""
    return await tx.execute(SQL["finish_step"], run_id, step, attempt, result, cost_microusd, model, now) == 1


async def fail_step(
    tx: Transaction,
    run_id: str,
    step: int,
    attempt: int,
    error: dict[str, Any],
    cost_microusd: int,
    now: datetime,
) -> None:
    """The attempt failed."""
    await tx.execute(SQL["fail_step"], run_id, step, attempt, error, cost_microusd, now)


async def arm_wait(
    tx: Transaction,
    run_id: str,
    step: int,
    cause: Cause,
    key: str | None,
    wake_at: datetime | None,
    now: datetime,
) -> None:
    """Write what the run will park on, before it parks."""
    await tx.execute(SQL["arm_wait"], run_id, step, cause.value, key, wake_at, now)


async def wait_is_open(tx: Transaction, run_id: str, step: int) -> bool:
    """Whether the wait is still armed."""
    return bool(await tx.fetchval(SQL["wait_is_open"], run_id, step))


async def disarm_wait(tx: Transaction, run_id: str, step: int) -> None:
    """Forget a wait whose answer came before the run parked."""
    await tx.execute(SQL["disarm_wait"], run_id, step)


async def event_payload(tx: Transaction, name: str, key: str) -> dict[str, Any] | None:
    """``{"payload": …}`` of an event that was sent."""
    row = await tx.fetchrow(SQL["event_payload"], name, key)
    return None if row is None else {"payload": row["payload"]}
