"""The fair queue's verbs, one call each."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from core.db.pool import Row, Transaction
from core.db.queries import load_queries
from core.ids import RunId, TenantId, UserId, WorkerId
from core.queue.estimate import Circle, Place
from core.queue.model import Claim, Claims, Held, Live, Requeued, Stopped

SQL = load_queries(__file__)


async def push(tx: Transaction, run_ids: Sequence[str], head: bool, now: datetime) -> int:
    """Queue runs of the transaction's tenant; how many entered."""
    return int(await tx.fetchval(SQL["push"], list(run_ids), head, now))


async def claim(
    tx: Transaction, worker_id: WorkerId, limit: int, headroom: float, now: datetime
) -> tuple[Claims, bool]:
    """Turn up to ``limit`` queue entries into slots of this worker, fairly; whether to wake others for what is left."""
    rows = await tx.fetch(SQL["claim"], worker_id, limit, headroom, now)
    left = rows.pop() if rows and rows[-1]["run_id"] is None else None
    again_at, others = (left["again_at"], left["others"]) if left is not None else (None, False)
    return Claims((_claimed(row) for row in rows), again_at), others


async def release(tx: Transaction, held: Held, now: datetime) -> float | None:
    """Seconds the slot was held; None when it is not this claim's any more."""
    used_s: float | None = await tx.fetchval(SQL["release"], held.run_id, held.claim, now)
    return used_s


async def wake(tx: Transaction, run_id: str, step: int, now: datetime) -> bool:
    """Whether there was such a wait."""
    return bool(await tx.fetchval(SQL["wake"], run_id, step, now))


async def wake_due(tx: Transaction, now: datetime, limit: int) -> list[Requeued]:
    """Waits whose time has come."""
    rows = await tx.fetch(SQL["wake_due"], now, limit)
    return [Requeued(TenantId(r["tenant_id"]), RunId(r["run_id"]), r["cause"]) for r in rows]


async def next_wake(tx: Transaction) -> datetime | None:
    """When the next wait is over by itself."""
    when: datetime | None = await tx.fetchval(SQL["next_wake"])
    return when


async def cancel(tx: Transaction, run_id: str, now: datetime) -> Stopped | None:
    """What that found and left; None when there is no such run."""
    row = await tx.fetchrow(SQL["cancel"], run_id, now)
    return None if row is None else Stopped(**row)


async def heartbeat(
    tx: Transaction,
    worker_id: WorkerId,
    slots: int,
    draining: bool,
    now: datetime,
    codes: Sequence[str] | None = None,
) -> int:
    """Say that a worker lives, and which code it has; how many slots it holds."""
    known = None if codes is None else sorted(codes)
    return int(await tx.fetchval(SQL["heartbeat"], worker_id, slots, draining, now, known))


async def leave(tx: Transaction, worker_id: WorkerId, now: datetime) -> bool:
    """Forget a worker that holds nothing."""
    return bool(await tx.fetchval(SQL["leave"], worker_id, now))


async def recover(
    tx: Transaction, worker_id: WorkerId | None, keep: Sequence[str], dead_before: datetime, now: datetime
) -> list[Requeued]:
    """Take back the runs of all not heard of since ``dead_before``, and of one worker those that it does not keep."""
    rows = await tx.fetch(SQL["recover"], worker_id, list(keep), dead_before, now)
    return [_lost(row, RunId(row["run_id"])) for row in rows]


async def give_back(tx: Transaction, held: Held, why: dict[str, Any] | None, now: datetime) -> Requeued | None:
    """Take a run from its worker, who cannot go on with it; None: the slot is not this claim's any more."""
    row = await tx.fetchrow(SQL["give_back"], held.run_id, held.claim, why, now)
    return None if row is None else _lost(row, held.run_id)


async def live(tx: Transaction, alive_since: datetime, idle_since: datetime) -> Live:
    """What lives; workers that hold nothing speak seldom."""
    (row,) = await tx.fetch(SQL["live"], alive_since, idle_since)
    return Live(row["slots"], None if row["codes"] is None else frozenset(row["codes"]))


async def set_platform_cap(tx: Transaction, cap: int | None) -> int | None:
    """The most slots that may be held at once; what it was."""
    was: int | None = await tx.fetchval(SQL["platform_cap"], cap)
    return was


async def faults(tx: Transaction) -> list[str]:
    """Counts that differ from what is there."""
    return [f"{row['place']}: {row['fault']}" for row in await tx.fetch(SQL["faults"])]


async def forget_flows(tx: Transaction, limit: int) -> int:
    """Forget up to ``limit`` flows of users who are as good as new; how many."""
    return int(await tx.fetchval(SQL["forget_flows"], limit))


async def depth(tx: Transaction) -> int:
    """Runs queued on the whole platform."""
    return int(await tx.fetchval(SQL["depth"]))


async def cancelled_here(tx: Transaction, worker_id: WorkerId) -> list[RunId]:
    """Runs of a worker that somebody wants to stop."""
    return [RunId(row["run_id"]) for row in await tx.fetch(SQL["cancelled_here"], worker_id)]


async def longest_silent(tx: Transaction) -> datetime | None:
    """When the worker that has been silent for the longest was heard of last; None: none holds runs."""
    heard: datetime | None = await tx.fetchval(SQL["longest_silent"])
    return heard


async def anything_moves(tx: Transaction) -> bool:
    """Whether a run is queued or holds a slot."""
    return bool(await tx.fetchval(SQL["anything_moves"]))


async def forget_uses(tx: Transaction, before: datetime, limit: int) -> int:
    """Forget up to ``limit`` uses of slots from before a moment; how many."""
    return int(await tx.fetchval(SQL["forget_uses"], before, limit))


async def forget_gaps(tx: Transaction, before: datetime, limit: int) -> int:
    """Forget up to ``limit`` gaps, in which nobody had some code, from before a moment; how many."""
    return int(await tx.fetchval(SQL["forget_gaps"], before, limit))


async def place(tx: Transaction, run_id: str, now: datetime, *, any_tenant: bool) -> Place | None:
    """Where a queued run of the transaction's tenant (operators: of any) stands; None when it is not queued."""
    row = await tx.fetchrow(SQL["op_place" if any_tenant else "place"], run_id, now)
    if row is None:
        return None
    return Place(
        code=row["code"],
        paused=row["paused"],
        weight=row["weight"],
        cap=row["cap"],
        burst_slots=row["burst_slots"],
        estimate_s=row["estimate_s"],
        older=row["older"],
        passed=row["passed"],
        tenant=Circle(row["cap"], row["ahead"], row["ahead_s"], row["running"], row["left_s"]),
        by_user=Circle(
            row["user_cap"], row["user_ahead"], row["user_ahead_s"], row["user_running"], row["user_left_s"]
        ),
        by_workflow=Circle(
            row["workflow_cap"],
            row["workflow_ahead"],
            row["workflow_ahead_s"],
            row["workflow_running"],
            row["workflow_left_s"],
        ),
    )


async def shared_slots(tx: Transaction, alive_since: datetime, idle_since: datetime, headroom: float) -> int:
    """Slots that tenants share out."""
    return int(await tx.fetchval(SQL["shared_slots"], alive_since, idle_since, headroom))


async def fair_level(tx: Transaction, slots: int) -> float | None:
    """What a tenant of weight 1 gets of so many slots; None: there is enough for all."""
    level: float | None = await tx.fetchval(SQL["fair_level"], float(slots))
    return level


async def tenant_starts(tx: Transaction, since: datetime) -> int:
    """Runs of the transaction's tenant that left the queue since a moment."""
    return int(await tx.fetchval(SQL["tenant_starts"], since))


async def platform_starts(tx: Transaction, since: datetime) -> int:
    """Runs of all tenants that left the queue since a moment."""
    return int(await tx.fetchval(SQL["platform_starts"], since))


def _lost(row: Row, run_id: RunId) -> Requeued:
    return Requeued(TenantId(row["tenant_id"]), run_id, row["worker_id"], row["state"], row["closed"])


def _claimed(row: Row) -> Claim:
    return Claim(
        run_id=RunId(row["run_id"]),
        tenant_id=TenantId(row["tenant_id"]),
        user_id=UserId(row["user_id"]) if row["user_id"] else None,
        workflow=row["workflow"],
        version=row["version"],
        input=row["input"],
        attempt=row["attempt"],
        thread_id=row["thread_id"],
        batch_id=row["batch_id"],
        budget_microusd=row["budget_microusd"],
        submitted_at=row["submitted_at"],
        burst=row["burst"],
    )
