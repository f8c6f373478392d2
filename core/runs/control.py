"""What people do to runs that are under way or have ended, one at a time: cancel, pause, resume, retry."""

from __future__ import annotations

from core.audit.service import AuditService
from core.clock import Clock
from core.db.pool import Database
from core.errors import Conflict, NotFound
from core.queue.service import QueueService
from core.redis.bus import Bus
from core.runs.acts import Act, Acts
from core.runs.execution_store import parent
from core.runs.family import Family
from core.runs.model import RunView
from core.runs.service import RunService
from core.tenancy import Scope, TenantContext


class RunControl:
    """Acts on the runs of one region. Every act is an event of the run, and audited with who did it."""

    def __init__(
        self, db: Database, bus: Bus, queue: QueueService, runs: RunService, audit: AuditService, clock: Clock
    ) -> None:
        self._db = db
        self._bus = bus
        self._runs = runs
        self._acts = Acts(queue, audit, clock)
        self._family = Family(db, bus, queue, clock)

    async def cancel(self, ctx: TenantContext, run_id: str) -> RunView:
        """Cancel a run: at once when it is queued or waits, at its next step when it executes.

        Raises ``NotFound``; ``Conflict`` when it has ended.
        """
        return await self._act(ctx, Act.CANCEL, run_id)

    async def pause(self, ctx: TenantContext, run_id: str) -> RunView:
        """Hold a run until it is resumed: at once when it is queued or waits, before its next step when it executes.

        What it waits for may end meanwhile (reviews are decided, timers run out), and its duration counts on. Raises
        ``NotFound``; ``Conflict`` when it has ended, is paused already or is being cancelled.
        """
        return await self._act(ctx, Act.PAUSE, run_id)

    async def resume(self, ctx: TenantContext, run_id: str) -> RunView:
        """Let a paused run go on: from the head of its lane, unless it still waits for what it waited for.

        Raises ``NotFound``; ``Conflict`` when it is not paused.
        """
        return await self._act(ctx, Act.RESUME, run_id)

    async def retry(self, ctx: TenantContext, run_id: str) -> RunView:
        """Queue a failed, cancelled or dead run again; steps that finished are not repeated.

        Raises ``NotFound``; ``Conflict`` in any other state.
        """
        return await self._act(ctx, Act.RETRY, run_id)

    async def _act(self, ctx: TenantContext, act: Act, run_id: str) -> RunView:
        ctx.require(Scope.RUNS_WRITE)
        async with self._db.tenant_transaction(ctx) as tx:
            outcome = await self._acts.perform_in(tx, ctx, act, run_id)
        if outcome is None:
            raise NotFound("There is no such run.")
        if outcome.refusal is not None:
            raise Conflict(outcome.refusal, state=outcome.was)
        view = await self._runs.get(ctx, run_id)
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
        await self._acts.signal(act)
        if view.state.final:
            async with self._db.tenant_transaction(ctx) as tx:
                spawned_by = await parent(tx, run_id)
            await self._family.ended(ctx, view.state, spawned_by)
        return view
