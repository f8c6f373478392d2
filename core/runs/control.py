"""What people do to runs that are under way or have ended: cancel, retry."""

from __future__ import annotations

from core.audit.service import AuditService
from core.clock import Clock
from core.db.pool import Database
from core.errors import Conflict, NotFound
from core.ids import RunId
from core.queue.service import QueueService
from core.redis.bus import Bus
from core.runs import store
from core.runs.model import RunState, RunView
from core.runs.service import RunService
from core.tenancy import Scope, TenantContext


class RunControl:
    """Acts on the runs of one region. Every act is audited with who did it."""

    def __init__(
        self, db: Database, bus: Bus, queue: QueueService, runs: RunService, audit: AuditService, clock: Clock
    ) -> None:
        self._db = db
        self._bus = bus
        self._queue = queue
        self._runs = runs
        self._audit = audit
        self._clock = clock

    async def cancel(self, ctx: TenantContext, run_id: str) -> RunView:
        """Cancel a run: at once when it is queued or waits, at its next step when it executes.

        Raises ``NotFound``; ``Conflict`` when it has ended.
        """
        ctx.require(Scope.RUNS_WRITE)
        async with self._db.tenant_transaction(ctx) as tx:
            was = await self._queue.cancel_in(tx, RunId(run_id))
            if was is None:
                raise NotFound("There is no such run.")
            if RunState(was).final:
                raise Conflict(f"The run has ended: {was}.", state=was)
            now = self._clock.now()
            kind = "cancel_requested" if was == RunState.RUNNING else "cancelled"
            await store.append_event(tx, run_id, now, kind, {"actor": ctx.actor})
            await self._audit.record(tx, ctx, "run.cancel", f"run:{run_id}", before={"state": was})
        view = await self._runs.get(ctx, run_id)
        await self._publish(ctx, view)
        await self._queue.signal_cancel()
        return view

    async def retry(self, ctx: TenantContext, run_id: str) -> RunView:
        """Queue a failed or cancelled run again; steps that finished are not repeated.

        Raises ``NotFound``; ``Conflict`` in any other state.
        """
        ctx.require(Scope.RUNS_WRITE)
        before = await self._runs.get(ctx, run_id)
        async with self._db.tenant_transaction(ctx) as tx:
            await self._queue.push_in(tx, [])  # locks the queue before the run, as everybody does
            if not await store.retry(tx, run_id, self._clock.now()):
                raise Conflict(f"Only a failed or cancelled run is retried; this one is {before.state}.")
            await self._queue.push_in(tx, [RunId(run_id)], head=True)
            await store.append_event(tx, run_id, self._clock.now(), "retried", {"actor": ctx.actor})
            await self._audit.record(tx, ctx, "run.retry", f"run:{run_id}", before={"state": before.state})
        await self._queue.signal_workers()
        view = await self._runs.get(ctx, run_id)
        await self._publish(ctx, view)
        return view

    async def _publish(self, ctx: TenantContext, view: RunView) -> None:
        await self._bus.publish(
            ctx.tenant_id,
            "run",
            {
                "run_id": view.run_id,
                "state": view.state,
                "cause": view.cause,
                "batch_id": view.batch_id,
                "thread_id": view.thread_id,
            },
        )
