"""Rows of the audit."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from core.audit.model import AuditEntry
from core.db.pool import Transaction
from core.db.queries import load_queries
from core.ids import TenantId
from core.tenancy import TenantContext

SQL = load_queries(__file__)


async def append(
    tx: Transaction, ctx: TenantContext, now: datetime, act: str, subject: str, before: Any, after: Any
) -> None:
    """Write one unsealed entry in the caller's transaction."""
    await tx.execute(SQL["append"], ctx.tenant_id, now, ctx.actor, act, subject, before, after, ctx.policy_version)


async def recent(tx: Transaction, limit: int) -> list[AuditEntry]:
    """The newest entries of the transaction's tenant."""
    return [
        AuditEntry(
            tenant_id=TenantId(row["tenant_id"]),
            at=row["at"],
            actor=row["actor"],
            act=row["act"],
            subject=row["subject"],
            before=row["before"],
            after=row["after"],
            policy_version=row["policy_version"],
            seq=row["seq"],
        )
        for row in await tx.fetch(SQL["recent"], limit)
    ]


async def pending(tx: Transaction) -> list[TenantId]:
    """Tenants with unsealed entries."""
    return [TenantId(row["tenant_id"]) for row in await tx.fetch(SQL["pending"])]


async def seal(tx: Transaction, tenant_id: TenantId, limit: int) -> int:
    """Seal up to ``limit`` entries of a tenant."""
    return int(await tx.fetchval(SQL["seal"], tenant_id, limit))


async def broken(tx: Transaction, tenant_id: TenantId) -> int | None:
    """Number of the first entry that does not fit its chain."""
    number = await tx.fetchval(SQL["broken"], tenant_id)
    return None if number is None else int(number)
