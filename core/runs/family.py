"""What the end of a run means for its family: its parent may go on, its open children are cancelled.

The database does what must not be lost (``core/db/migrations/0019_children.sql``): with the end itself the parent is
woken, and a run that ends other than succeeded is written down as one whose children are to be cancelled. The service
tells those who should know, and cancels; the scheduler repeats that at its looks for whatever a crash left.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog

from core.clock import Clock
from core.db.pool import Database
from core.db.queries import load_queries
from core.errors import Unavailable
from core.ids import RunId, TenantId
from core.queue.service import QueueService
from core.redis.bus import Bus
from core.runs.model import Cause, RunState
from core.tenancy import TenantContext

SQL = load_queries(__file__, "children.sql")

_AT_ONCE = 100
_TELL_EVERY = timedelta(seconds=1)
_MOST_TOLD = 1_000

log = structlog.get_logger(__name__)


class Family:
    """Parents and children, of every tenant of one region. ``progress`` of a parent is told once a second at most."""

    def __init__(self, db: Database, bus: Bus, queue: QueueService, clock: Clock) -> None:
        self._db = db
        self._bus = bus
        self._queue = queue
        self._clock = clock
        self._told: dict[str, datetime] = {}

    async def ended(self, ctx: TenantContext, state: RunState, parent: tuple[RunId, int] | None) -> None:
        """After the end of a run was committed; ``parent``: the run that spawned it, at which of its steps.

        Never raises for a database that went away: the end stands, and the scheduler looks after the rest.
        """
        try:
            if parent is not None:
                await self._tell(ctx, *parent)
            if state is not RunState.SUCCEEDED:
                await self.cancel_orphans(ctx)
        except Unavailable as error:
            log.warning("family.later", tenant_id=ctx.tenant_id, error=error.message)

    async def cancel_orphans(self, ctx: TenantContext) -> int:
        """Cancel the open children of runs of the tenant that ended other than succeeded, and theirs; how many."""
        total = 0
        while parents := await self._orphans(ctx):
            for run_id in parents:
                while stopped := await self._stop_some(ctx, run_id):
                    total += stopped
        if total:
            await self._queue.signal_cancel()
            await self._queue.signal_workers()  # some may have something to undo
        return total

    async def orphaned(self) -> list[TenantId]:
        """Tenants in which open children are still to be cancelled."""
        async with self._db.control_transaction() as tx:
            return [TenantId(row["tenant_id"]) for row in await tx.fetch(SQL["orphaned"])]

    async def _orphans(self, ctx: TenantContext) -> list[str]:
        async with self._db.tenant_transaction(ctx) as tx:
            return [row["run_id"] for row in await tx.fetch(SQL["orphans"], _AT_ONCE)]

    async def _stop_some(self, ctx: TenantContext, run_id: str) -> int:
        async with self._db.tenant_transaction(ctx) as tx:
            looked_at = await tx.fetch(SQL["cancel_orphans"], run_id, _AT_ONCE, self._clock.now())
        for child in looked_at:
            if child["state"] is not None:
                told = {"run_id": child["run_id"], "state": child["state"], "cause": None}
                self._bus.news.say(ctx.tenant_id, "run", told)
            if child["closed"]:
                self._bus.news.unasked(ctx.tenant_id, child["run_id"])
        return len(looked_at)

    async def _tell(self, ctx: TenantContext, parent: RunId, step: int) -> None:
        told = None
        async with self._db.tenant_transaction(ctx) as tx:
            woken = await tx.fetchval(SQL["parent_state"], parent) == RunState.QUEUED
            if not woken and self._due(parent):
                told = await tx.fetchrow(SQL["tell_parent"], parent, step)
        if woken:
            self._told.pop(parent, None)
            await self._queue.signal_workers()
        elif told is not None:
            data = {"run_id": parent, "state": RunState.WAITING, "cause": Cause.CHILDREN}
            await self._bus.publish(ctx.tenant_id, "run", data | dict(told))

    def _due(self, parent: RunId) -> bool:
        now = self._clock.now()
        if now - self._told.get(parent, now - _TELL_EVERY) < _TELL_EVERY:
            return False
        if len(self._told) >= _MOST_TOLD:
            self._told.clear()
        self._told[parent] = now
        return True
