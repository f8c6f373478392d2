"""The audit: append-only, hash-chained per tenant, sealed in batches.

An entry goes ``appended`` (no number, written without any lock) → ``sealed`` (number, hash of its content
and of the entry before). A crash between the two leaves entries unsealed; the next sealing takes them in
order. Content of an entry is facts about an act, never conversation text or secrets.

``sealed`` entries older than the policy's ``audit_retention_days`` are removed from the front of the chain. The hash of
the last one removed stays, so what is kept can still be checked, and the removal is an act in the audit.

Whoever owns the database can compute a whole chain anew. A head that was kept outside (``head``) shows that, and shows
that the end was cut off.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from core.audit import store
from core.audit.model import AuditEntry, Break, Chain, Fault, Head
from core.clock import Clock
from core.db.pool import Database, Transaction
from core.ids import TenantId
from core.tenancy import Scope, TenantContext

_BATCH = 1_000
_STRETCH = 20_000  # entries checked or removed by one statement, well within its time limit

_Place: TypeAlias = tuple[int, Fault]


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

    async def expired(self) -> list[TenantId]:
        """Tenants with entries that their policy keeps no longer."""
        async with self._db.control_transaction() as tx:
            return await store.expired(tx, self._clock.now())

    async def expire(self, ctx: TenantContext) -> int:
        """Remove the tenant's entries that its policy keeps no longer, oldest first; how many.

        The last entry sealed is never removed.
        """
        total = 0
        while True:
            async with self._db.tenant_transaction(ctx) as tx:
                gone = await store.expire(tx, self._clock.now(), _STRETCH)
                if gone is None:
                    return total
                after = {"removed_seq": gone.removed_seq, "hash": gone.removed_hash, "entries": gone.removed}
                await self.record(tx, ctx, "audit.expire", f"tenant:{ctx.tenant_id}", after=after)
            total += gone.removed

    async def head(self, ctx: TenantContext) -> Head:
        """The end of the tenant's chain."""
        async with self._db.tenant_transaction(ctx) as tx:
            found = await store.state(tx)
        return Head(found.head_seq, found.head_hash.hex())

    async def verify(self, ctx: TenantContext) -> int | None:
        """Check the caller's chain; the first entry that does not fit, None when it is whole."""
        broken = (await self.examine(ctx)).broken
        return None if broken is None else broken.seq

    async def examine(self, ctx: TenantContext, kept: Head | None = None) -> Chain:
        """Recompute every hash of the tenant's chain, and hold it against a head that was ``kept`` outside."""
        while True:
            async with self._db.tenant_transaction(ctx) as tx:
                found = await store.state(tx)
            fitting, place = await self._walk(ctx, found)
            async with self._db.tenant_transaction(ctx) as tx:
                if (await store.state(tx)).removed_seq == found.removed_seq:
                    break  # else retention removed entries under our eyes: once more
        compared = False
        if place is None and kept is not None:
            compared, place = await self._compare(ctx, found, kept)
        return Chain(
            tenant_id=ctx.tenant_id,
            kept_after=found.removed_seq,
            fitting=fitting,
            unsealed=found.unsealed,
            head=Head(found.head_seq, found.head_hash.hex()),
            broken=None if place is None else await self._break(ctx, *place),
            compared=compared,
        )

    async def _walk(self, ctx: TenantContext, found: store.State) -> tuple[int, _Place | None]:
        """How many entries fit, and the first that does not."""
        if not found.explained:
            return 0, (found.removed_seq + 1, Fault.UNEXPLAINED)
        if found.stray is not None and found.stray <= found.removed_seq:
            return 0, (found.stray, Fault.INSERTED)
        fitting, seq, digest = 0, found.removed_seq, found.removed_hash
        while seq < found.head_seq:
            async with self._db.tenant_transaction(ctx) as tx:
                stretch = await store.stretch(tx, seq, digest, found.head_seq, _STRETCH)
            fitting += stretch.fitting
            if stretch.broken_seq is not None:
                return fitting, (stretch.broken_seq, Fault(str(stretch.fault)))
            if stretch.last_seq is None or stretch.last_hash is None:
                return fitting, (seq + 1, Fault.REMOVED)
            seq, digest = stretch.last_seq, stretch.last_hash
        if digest != found.head_hash:
            return fitting, (seq, Fault.CHANGED)
        return fitting, None if found.stray is None else (found.stray, Fault.INSERTED)

    async def _compare(self, ctx: TenantContext, found: store.State, kept: Head) -> tuple[bool, _Place | None]:
        """Whether a head kept outside could be held against the chain, and where they differ."""
        if kept.seq < found.removed_seq:
            return False, None
        if kept.seq > found.head_seq:
            return True, (found.head_seq + 1, Fault.REMOVED)
        async with self._db.tenant_transaction(ctx) as tx:
            digest = await store.sealed_hash(tx, kept.seq)
        if kept.seq == found.removed_seq:
            digest = found.removed_hash
        return True, None if digest is not None and digest.hex() == kept.hash else (kept.seq, Fault.REWRITTEN)

    async def _break(self, ctx: TenantContext, seq: int, fault: Fault) -> Break:
        async with self._db.tenant_transaction(ctx) as tx:
            return Break(seq, fault, await store.entry(tx, seq))
