"""Rows of the audit."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from core.audit.model import AuditEntry
from core.db.pool import Row, Transaction
from core.db.queries import load_queries
from core.ids import TenantId
from core.tenancy import TenantContext

SQL = load_queries(__file__)


@dataclass(frozen=True, slots=True)
class State:
    """Where a chain begins and ends. ``stray``: a number outside of it. ``explained``: an act tells of its removals."""

    removed_seq: int
    removed_hash: bytes
    head_seq: int
    head_hash: bytes
    unsealed: int
    stray: int | None
    explained: bool


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of a chain: how many entries fit, the last of them (None: none fits), and the first that does not."""

    fitting: int
    last_seq: int | None
    last_hash: bytes | None
    broken_seq: int | None
    fault: str | None


@dataclass(frozen=True, slots=True)
class Removal:
    """What retention removed: how many entries, and the last of them."""

    removed: int
    removed_seq: int
    removed_hash: str


async def append(
    tx: Transaction, ctx: TenantContext, now: datetime, act: str, subject: str, before: Any, after: Any
) -> None:
    """Write one unsealed entry in the caller's transaction."""
    await tx.execute(SQL["append"], ctx.tenant_id, now, ctx.actor, act, subject, before, after, ctx.policy_version)


async def recent(tx: Transaction, limit: int) -> list[AuditEntry]:
    """The newest entries of the transaction's tenant."""
    return [_entry(row) for row in await tx.fetch(SQL["recent"], limit)]


async def entry(tx: Transaction, seq: int) -> AuditEntry | None:
    """The sealed entry of a number, if there is one."""
    row = await tx.fetchrow(SQL["entry"], seq)
    return None if row is None else _entry(row)


def _entry(row: Row) -> AuditEntry:
    return AuditEntry(
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


async def pending(tx: Transaction) -> list[TenantId]:
    """Tenants with unsealed entries."""
    return [TenantId(row["tenant_id"]) for row in await tx.fetch(SQL["pending"])]


async def seal(tx: Transaction, tenant_id: TenantId, limit: int) -> int:
    """Seal up to ``limit`` entries of a tenant."""
    return int(await tx.fetchval(SQL["seal"], tenant_id, limit))


async def state(tx: Transaction) -> State:
    """How the chain of the transaction's tenant stands."""
    (row,) = await tx.fetch(SQL["state"])
    return State(**row)


async def stretch(tx: Transaction, after: int, after_hash: bytes, until: int, limit: int) -> Stretch:
    """Check up to ``limit`` entries of the chain."""
    (row,) = await tx.fetch(SQL["stretch"], after, after_hash, until, limit)
    return Stretch(**row)


async def sealed_hash(tx: Transaction, seq: int) -> bytes | None:
    """The hash of the entry of a number, if there is one."""
    found: bytes | None = await tx.fetchval(SQL["sealed_hash"], seq)
    return found


async def expired(tx: Transaction, now: datetime) -> list[TenantId]:
    """Tenants with entries that their policy keeps no longer."""
    return [TenantId(row["tenant_id"]) for row in await tx.fetch(SQL["expired"], now)]


async def expire(tx: Transaction, now: datetime, limit: int) -> Removal | None:
    """Remove up to ``limit`` entries that the policy keeps no longer; None when there is none."""
    row = await tx.fetchrow(SQL["expire"], now, limit)
    return None if row is None else Removal(**row)
