"""Rows of triggers and of the events whose runs are still to be started."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from core.db.pool import Row, Transaction
from core.db.queries import load_queries
from core.ids import RunId, TenantId, TriggerId, UserId
from core.triggers.model import MAX_TRIGGERS, ToStart, TriggerKind, TriggerView

SQL = load_queries(__file__)


async def insert_trigger(tx: Transaction, view: TriggerView) -> bool:
    """False when the tenant has as many as it may have."""
    return (
        await tx.execute(
            SQL["insert_trigger"],
            view.trigger_id,
            view.kind,
            view.name,
            view.event,
            view.workflow,
            view.input,
            view.user_id,
            view.created_by,
            view.created_at,
            MAX_TRIGGERS,
        )
        == 1
    )


async def triggers(tx: Transaction) -> list[TriggerView]:
    """All, oldest first."""
    return [_trigger(row) for row in await tx.fetch(SQL["triggers"])]


async def trigger(tx: Transaction, trigger_id: str, *, lock: bool = False) -> TriggerView | None:
    """One; ``lock``: nobody else edits it until the transaction ends."""
    row = await tx.fetchrow(SQL["trigger_for_update" if lock else "trigger"], trigger_id)
    return None if row is None else _trigger(row)


async def update_trigger(tx: Transaction, view: TriggerView, now: datetime) -> None:
    """Write what people edit, as the next version; a paused one starts nothing that it was still to start."""
    await tx.execute(
        SQL["update_trigger"],
        view.trigger_id,
        view.name,
        view.event,
        view.workflow,
        view.input,
        view.paused,
        view.secret_version,
        now,
    )
    if view.paused:
        await tx.execute(SQL["forget_events"], view.trigger_id)


async def delete_trigger(tx: Transaction, trigger_id: str) -> None:
    """Remove it and what it was still to start."""
    await tx.execute(SQL["delete_trigger"], trigger_id)


async def record_fire(
    tx: Transaction, trigger_id: str, at: datetime, run_id: RunId | None, error: dict[str, Any] | None
) -> None:
    """What became of a webhook or event."""
    await tx.execute(SQL["record_fire"], trigger_id, at, run_id, error)


async def webhook(tx: Transaction, trigger_id: str) -> tuple[TenantId, int] | None:
    """Whose it is and the version of its secret; needs a control transaction. None: unknown, paused, no webhook."""
    row = await tx.fetchrow(SQL["webhook"], trigger_id)
    return None if row is None else (TenantId(row["tenant_id"]), row["secret_version"])


async def payload_to_start(tx: Transaction, one: ToStart, now: datetime) -> Any:
    """The payload of the event; None when its run has been started, or is not to be started now."""
    return await tx.fetchval(SQL["to_start"], one.trigger_id, one.name, one.key, now)


async def started(tx: Transaction, one: ToStart) -> None:
    """The event has been dealt with."""
    await tx.execute(SQL["started"], one.trigger_id, one.name, one.key)


async def postpone(tx: Transaction, trigger_id: str, until: datetime, now: datetime) -> None:
    """Whatever the trigger was to start by now waits."""
    await tx.execute(SQL["postpone"], trigger_id, until, now)


async def any_to_start(tx: Transaction, name: str, key: str) -> bool:
    """Whether an event has runs to start."""
    return bool(await tx.fetchval(SQL["any_to_start"], name, key))


async def next_due(tx: Transaction) -> datetime | None:
    """When the next run of an event is to be started, of all tenants; needs a control transaction."""
    at: datetime | None = await tx.fetchval(SQL["next_due"])
    return at


async def due(tx: Transaction, now: datetime, limit: int) -> list[ToStart]:
    """Runs of events to be started now, of all tenants in turn; needs a control transaction."""
    return [
        ToStart(TenantId(row["tenant_id"]), TriggerId(row["trigger_id"]), row["name"], row["key"])
        for row in await tx.fetch(SQL["due"], now, limit)
    ]


def _trigger(row: Row) -> TriggerView:
    return TriggerView(
        trigger_id=TriggerId(row["trigger_id"]),
        kind=TriggerKind(row["kind"]),
        name=row["name"],
        event=row["event"],
        workflow=row["workflow"],
        input=row["input"],
        paused=row["paused"],
        version=row["version"],
        secret_version=row["secret_version"],
        last_fired_at=row["last_fired_at"],
        last_run_id=None if row["last_run_id"] is None else RunId(row["last_run_id"]),
        last_error=row["last_error"],
        user_id=None if row["user_id"] is None else UserId(row["user_id"]),
        created_by=row["created_by"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
