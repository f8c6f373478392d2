"""The audit: append-only, hash-chained per tenant, sealed in batches.

An entry goes ``appended`` (no number, written without any lock) → ``sealed`` (number, hash of its content
and of the entry before). A crash between the two leaves entries unsealed; the next sealing takes them in
order. Content of an entry is facts about an act, never conversation text or secrets.
"""

from __future__ import annotations

from typing import Any

from core.audit import store
from core.audit.model import AuditEntry
from core.clock import Clock
from core.db.pool import Database, Transaction
from core.tenancy import Scope, TenantContext

_BATCH = 1_000


class AuditService:
    """Writes, seals and checks the record of acts."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def record(
        self, tx: Transaction, ctx: TenantContext, act: str, subject: str, before: Any = None, after: Any = None
    ) -> None:
        """Write an act in the transaction that performs it: both happen or neither."""
        await store.append(tx, ctx, self._clock.now(), act, subject, before, after)

    async def append(self, ctx: TenantContext, act: str, subject: str, before: Any = None, after: Any = None) -> None:
        """Write an act in a transaction of its own (refusals, model calls)."""
        async with self._db.tenant_transaction(ctx) as tx:
            await self.record(tx, ctx, act, subject, before, after)

    async def recent(self, ctx: TenantContext, limit: int = 100) -> list[AuditEntry]:
        """The newest acts of the caller's tenant, at most 1,000. Needs ``tenant:read``."""
        ctx.require(Scope.TENANT_READ)
        async with self._db.tenant_transaction(ctx) as tx:
            return await store.recent(tx, min(limit, 1_000))

    async def seal_all(self) -> int:
        """Seal what is unsealed, tenant by tenant; the number of entries sealed."""
        async with self._db.control_transaction() as tx:
            tenants = await store.pending(tx)
        total = 0
        for tenant_id in tenants:
            while True:
                async with self._db.control_transaction() as tx:
                    sealed = await store.seal(tx, tenant_id, _BATCH)
                total += sealed
                if sealed < _BATCH:
                    break
        return total

    async def verify(self, ctx: TenantContext) -> int | None:
        """Check the caller's chain; the first entry that does not fit, None when it is whole."""
        async with self._db.tenant_transaction(ctx) as tx:
            return await store.broken(tx, ctx.tenant_id)
