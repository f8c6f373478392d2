"""The limit of a run's duration, from its first start to its end, waits included: ``max_duration_s`` of the policy, or
``timeout_s`` of the workflow when that is tighter.

A worker ends what it executes on the second, and at the claim what has lasted too long by then. What is parked holds
no process, so the scheduler looks for it: every minute while runs are queued or execute, else at its idle looks, so
that a sleeping database is left alone. Time in the queue before the first start does not count: it is not the run's.
"""

from __future__ import annotations

from core.clock import Clock
from core.db.pool import Database
from core.errors import BailiwickError, QuotaExceeded
from core.ids import RunId
from core.queue.service import QueueService
from core.redis.bus import Bus
from core.runs import store
from core.runs.execution_store import parent
from core.runs.family import Family
from core.runs.model import RunState
from core.runs.store import Overlong
from core.tenancy import Policy, Scope, TenantContext

QUOTA, TIMEOUT = "max_duration_s", "timeout_s"


def limit_s(policy: Policy, timeout_s: float | None) -> float:
    """Seconds that a run of a workflow with this timeout (None: it has none) may last."""
    return policy.max_duration_s if timeout_s is None else min(timeout_s, policy.max_duration_s)


def too_long(policy: Policy, timeout_s: float | None) -> BailiwickError:
    """Why such a run fails."""
    if timeout_s is not None and timeout_s < policy.max_duration_s:
        return QuotaExceeded(
            f"A run of this workflow may last {timeout_s:g} seconds from its first start, waits included. Retry it to "
            "begin anew.",
            quota=TIMEOUT,
            limit=timeout_s,
        )
    return QuotaExceeded(
        f"A run may last {policy.max_duration_s} seconds from its first start, waits included. Retry it to begin anew, "
        "or ask the operator for a longer duration.",
        quota=QUOTA,
        limit=policy.max_duration_s,
    )


class Durations:
    """Finds and ends parked runs that have lasted too long."""

    def __init__(self, db: Database, bus: Bus, queue: QueueService, clock: Clock) -> None:
        self._db = db
        self._bus = bus
        self._queue = queue
        self._clock = clock
        self._family = Family(db, bus, queue, clock)

    async def overlong(self, limit: int = 500) -> list[Overlong]:
        """Some that must end, of any tenant."""
        async with self._db.control_transaction() as tx:
            return await store.overlong(tx, self._clock.now(), limit)

    async def end(self, ctx: TenantContext, run_id: RunId, timeout_s: float | None) -> bool:
        """Fail one that is parked; what it had asked people is closed. False when it is not parked any more.

        One that did what can be undone is queued instead, and fails when that is undone.
        """
        ctx.require(Scope.RUNS_WRITE)
        error = too_long(ctx.policy, timeout_s)
        document = {"code": error.code, "message": error.message, "details": dict(error.details)}
        try:
            async with self._db.tenant_transaction(ctx) as tx:
                found = await self._queue.cancel_in(tx, run_id)
                if found is None or found.was != RunState.WAITING:
                    raise _GoesOn
                undoing, now = found.state == RunState.QUEUED, self._clock.now()
                if undoing:
                    await store.append_event(tx, run_id, now, "cancel_requested", {"actor": ctx.actor})
                else:
                    await store.fail_cancelled(tx, run_id, document)
                    event = {"outcome": None, "error": document}
                    await store.append_event(tx, run_id, now, RunState.FAILED.value, event)
                spawned_by = await parent(tx, run_id)
        except _GoesOn:
            return False
        state = RunState.QUEUED if undoing else RunState.FAILED
        await self._bus.publish(ctx.tenant_id, "run", {"run_id": run_id, "state": state, "cause": None})
        if found.closed:
            self._bus.news.unasked(ctx.tenant_id, run_id)
        if undoing:
            await self._queue.signal_workers()
        else:
            await self._family.ended(ctx, state, spawned_by)
        return True


class _GoesOn(Exception):
    """It was woken or ended meanwhile: rolls the transaction back."""
