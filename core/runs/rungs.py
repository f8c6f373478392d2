"""The degradation ladder as it happened to a run: every rung taken is in the run's events and in the audit.

What is written is who (the run, or the person who answered), which step, which account, the share of it and the
threshold. A worker that lost the run writes nothing and is told by ``Lost``.
"""

from __future__ import annotations

from typing import Any

from core.audit.service import AuditService
from core.clock import Clock
from core.db.pool import Database, Transaction
from core.db.queries import load_queries
from core.runs import execution_store
from core.runs.execution import Executing, Lost
from core.runs.store import append_event
from core.tenancy import TenantContext
from core.usage.ladder import AccountKind, Taken

SQL = load_queries(__file__, "rungs.sql")

RAISED, STOPPED = "raised", "stopped"


class Rungs:
    """What the ladder does to the runs of an installation."""

    def __init__(self, db: Database, audit: AuditService, clock: Clock) -> None:
        self._db = db
        self._audit = audit
        self._clock = clock

    async def taken(self, on: Executing, step: int, name: str, taken: Taken) -> None:
        """The step is on this rung. Raises ``Lost``."""
        async with self._db.tenant_transaction(on.ctx) as tx:
            await self._tell(tx, on, taken.rung.value, _facts(step, name, taken))

    async def skip(self, on: Executing, step: int, name: str, kind: str, taken: Taken) -> None:
        """The step is skipped, for good. Raises ``Lost``."""
        async with self._db.tenant_transaction(on.ctx) as tx:
            await self._tell(tx, on, taken.rung.value, _facts(step, name, taken))
            await tx.execute(SQL["skip_step"], on.run_id, on.claim, step, name, kind, self._clock.now())

    async def answered(self, on: Executing, step: int, name: str, taken: Taken, verdict: str, by: str) -> None:
        """Somebody who was asked has answered: ``raised`` or ``stopped``. Raises ``Lost``."""
        async with self._db.tenant_transaction(on.ctx) as tx:
            await self._tell(tx, on, verdict, _facts(step, name, taken) | {"by": by})

    async def agreed(self, ctx: TenantContext, run_id: str) -> frozenset[AccountKind]:
        """The accounts about which people were asked in this run, and said to go on."""
        async with self._db.tenant_transaction(ctx) as tx:
            return frozenset(AccountKind(row["account"]) for row in await tx.fetch(SQL["agreed"], run_id))

    async def _tell(self, tx: Transaction, on: Executing, what: str, facts: dict[str, Any]) -> None:
        if not await execution_store.still_ours(tx, on.held):
            raise Lost
        await append_event(tx, on.run_id, self._clock.now(), f"budget_{what}", facts)
        await self._audit.record(tx, on.ctx, f"budget.{what}", f"run:{on.run_id}", after=facts)


def _facts(step: int, name: str, taken: Taken) -> dict[str, Any]:
    return {
        "step": step,
        "name": name,
        "account": taken.account.value,
        "share": round(taken.share, 4) if taken.share < 1e6 else None,
        "threshold": taken.threshold,
        "cause": taken.why,
    }
