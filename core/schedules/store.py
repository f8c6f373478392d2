"""Rows of schedules and pollers."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from core.db.pool import Row, Transaction
from core.db.queries import load_queries
from core.ids import PollerId, RunId, ScheduleId, TenantId, UserId
from core.schedules.model import (
    MAX_POLLERS,
    MAX_SCHEDULES,
    Due,
    FireView,
    PollerView,
    PollStatus,
    ScheduleView,
    Seen,
    Upcoming,
)

SQL = load_queries(__file__)


# Schedules ----------------------------------------------------------------------------------------------


async def insert_schedule(tx: Transaction, view: ScheduleView) -> bool:
    """False when the tenant has as many as it may have."""
    return (
        await tx.execute(
            SQL["insert_schedule"],
            view.schedule_id,
            view.name,
            view.cron,
            view.timezone,
            view.workflow,
            view.input,
            view.next_at,
            view.user_id,
            view.created_by,
            view.created_at,
            MAX_SCHEDULES,
        )
        == 1
    )


async def schedules(tx: Transaction) -> list[ScheduleView]:
    """All, oldest first."""
    return [_schedule(row) for row in await tx.fetch(SQL["schedules"])]


async def schedule(tx: Transaction, schedule_id: str, *, lock: bool = False) -> ScheduleView | None:
    """One; ``lock``: nobody else edits it until the transaction ends."""
    row = await tx.fetchrow(SQL["schedule_for_update" if lock else "schedule"], schedule_id)
    return None if row is None else _schedule(row)


async def update_schedule(tx: Transaction, view: ScheduleView, now: datetime) -> None:
    """Write what people edit, as the next version."""
    await tx.execute(
        SQL["update_schedule"],
        view.schedule_id,
        view.name,
        view.cron,
        view.timezone,
        view.workflow,
        view.input,
        view.paused,
        view.next_at,
        view.retry_at,
        now,
    )


async def delete_schedule(tx: Transaction, schedule_id: str) -> None:
    """Remove it and the record of its occurrences."""
    await tx.execute(SQL["delete_schedule"], schedule_id)


async def record_fire(tx: Transaction, view: ScheduleView, fire: FireView, next_at: datetime | None) -> None:
    """Record what became of an occurrence and move on to the next, in one transaction."""
    await tx.execute(
        SQL["insert_fire"], view.schedule_id, fire.due_at, fire.fired_at, fire.missed_since, fire.run_id, fire.error
    )
    await tx.execute(SQL["move_on"], view.schedule_id, view.next_at, next_at, fire.due_at, fire.run_id, fire.error)


async def try_again(tx: Transaction, view: ScheduleView, retry_at: datetime, error: dict[str, Any]) -> None:
    """The occurrence started nothing yet."""
    await tx.execute(SQL["try_again"], view.schedule_id, view.next_at, retry_at, error)


async def fires(tx: Transaction, schedule_id: str, limit: int) -> list[FireView]:
    """The latest occurrences, newest first."""
    return [
        FireView(row["due_at"], row["fired_at"], row["missed_since"], _run_id(row["run_id"]), row["error"])
        for row in await tx.fetch(SQL["fires"], schedule_id, limit)
    ]


# Pollers ------------------------------------------------------------------------------------------------


async def insert_poller(tx: Transaction, view: PollerView) -> bool:
    """False when the tenant has as many as it may have."""
    return (
        await tx.execute(
            SQL["insert_poller"],
            view.poller_id,
            view.name,
            view.url,
            view.interval_s,
            view.workflow,
            view.input,
            view.next_at,
            view.user_id,
            view.created_by,
            view.created_at,
            MAX_POLLERS,
        )
        == 1
    )


async def pollers(tx: Transaction) -> list[PollerView]:
    """All, oldest first."""
    return [_poller(row) for row in await tx.fetch(SQL["pollers"])]


async def poller(tx: Transaction, poller_id: str, *, lock: bool = False) -> PollerView | None:
    """One; ``lock``: nobody else edits it until the transaction ends."""
    row = await tx.fetchrow(SQL["poller_for_update" if lock else "poller"], poller_id)
    return None if row is None else _poller(row)


async def update_poller(tx: Transaction, view: PollerView, now: datetime, *, forget: bool) -> None:
    """Write what people edit, as the next version. ``forget`` what was seen: the address is another."""
    await tx.execute(
        SQL["update_poller"],
        view.poller_id,
        view.name,
        view.url,
        view.interval_s,
        view.workflow,
        view.input,
        view.paused,
        view.next_at,
        now,
        forget,
    )


async def delete_poller(tx: Transaction, poller_id: str) -> None:
    """Remove it."""
    await tx.execute(SQL["delete_poller"], poller_id)


async def look_again_at(tx: Transaction, poller_id: str, at: datetime) -> bool:
    """False when it is paused or gone."""
    return await tx.execute(SQL["look_again_at"], poller_id, at) == 1


async def record_look(
    tx: Transaction,
    view: PollerView,
    *,
    at: datetime,
    next_at: datetime,
    status: PollStatus,
    seen: Seen,
    failures: int,
    run_id: RunId | None,
    error: dict[str, Any] | None,
) -> bool:
    """False when the poller was edited or removed meanwhile; then nothing is written."""
    return (
        await tx.execute(
            SQL["record_look"],
            view.poller_id,
            view.version,
            next_at,
            at,
            status,
            error,
            failures,
            seen.etag,
            seen.last_modified,
            seen.content_hash,
            list(seen.entry_keys),
            run_id,
        )
        == 1
    )


# Both ---------------------------------------------------------------------------------------------------


async def upcoming(tx: Transaction, before: datetime, limit: int) -> list[Due]:
    """What is due before a moment, soonest first, of all tenants; needs a control transaction."""
    return [
        Due(Upcoming(row["kind"]), row["id"], TenantId(row["tenant_id"]), row["due_at"])
        for row in await tx.fetch(SQL["upcoming"], before, limit)
    ]


def _run_id(value: str | None) -> RunId | None:
    return None if value is None else RunId(value)


def _user_id(value: str | None) -> UserId | None:
    return None if value is None else UserId(value)


def _schedule(row: Row) -> ScheduleView:
    return ScheduleView(
        schedule_id=ScheduleId(row["schedule_id"]),
        name=row["name"],
        cron=row["cron"],
        timezone=row["timezone"],
        workflow=row["workflow"],
        input=row["input"],
        paused=row["paused"],
        version=row["version"],
        next_at=row["next_at"],
        retry_at=row["retry_at"],
        last_due_at=row["last_due_at"],
        last_run_id=_run_id(row["last_run_id"]),
        last_error=row["last_error"],
        user_id=_user_id(row["user_id"]),
        created_by=row["created_by"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def _poller(row: Row) -> PollerView:
    return PollerView(
        poller_id=PollerId(row["poller_id"]),
        name=row["name"],
        url=row["url"],
        interval_s=row["interval_s"],
        workflow=row["workflow"],
        input=row["input"],
        paused=row["paused"],
        version=row["version"],
        next_at=row["next_at"],
        failures=row["failures"],
        last_status=None if row["last_status"] is None else PollStatus(row["last_status"]),
        last_error=row["last_error"],
        last_polled_at=row["last_polled_at"],
        last_changed_at=row["last_changed_at"],
        last_run_id=_run_id(row["last_run_id"]),
        seen=Seen(row["etag"], row["last_modified"], row["content_hash"], tuple(row["entry_ids"])),
        user_id=_user_id(row["user_id"]),
        created_by=row["created_by"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
