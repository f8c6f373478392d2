"""The limit of a run's duration: ``max_duration_s`` of the policy, from its first start to its end, waits included.

A worker ends what it executes on the second, and at the claim what has lasted too long by then. What is parked holds
no process, so the scheduler looks for it: every minute while runs are queued or execute, else at its idle looks, so
that a sleeping database is left alone. Time in the queue before the first start does not count: it is not the run's.
"""

from __future__ import annotations

from core.clock import Clock
from core.db.pool import Database
from core.errors import BailiwickError, QuotaExceeded
from core.ids import RunId, TenantId
from core.queue.service import QueueService
from core.redis.bus import Bus
from core.runs import store
from core.runs.execution_store import parent
from core.runs.family import Family
from core.runs.model import RunState
from core.tenancy import Policy, Scope, TenantContext

QUOTA = "max_duration_s"


def too_long(policy: Policy) -> BailiwickError:
    """Why such a run fails."""
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

    async def overlong(self, limit: int = 500) -> list[tuple[TenantId, RunId]]:
        """Some that must end, of any tenant."""
        async with self._db.control_transaction() as tx:
            return await store.overlong(tx, self._clock.now(), limit)

    async def end(self, ctx: TenantContext, run_id: RunId) -> bool:
        """Fail one that is parked; what it had asked people is closed. False when it is not parked any more."""
        ctx.require(Scope.RUNS_WRITE)
        error = too_long(ctx.policy)
        document = {"code": error.code, "message": error.message, "details": dict(error.details)}
        try:
            async with self._db.tenant_transaction(ctx) as tx:
                if await self._queue.cancel_in(tx, run_id) != RunState.WAITING:
                    raise _GoesOn
                await store.fail_cancelled(tx, run_id, document)
                event = {"outcome": None, "error": document}
                await store.append_event(tx, run_id, self._clock.now(), RunState.FAILED.value, event)
                spawned_by = await parent(tx, run_id)
        except _GoesOn:
            return False
        await self._bus.publish(ctx.tenant_id, "run", {"run_id": run_id, "state": RunState.FAILED, "cause": None})
        await self._family.ended(ctx, RunState.FAILED, spawned_by)
        return True


class _GoesOn(Exception):
    """It was woken or ended meanwhile: rolls the transaction back."""
