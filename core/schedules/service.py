"""Schedules as people edit them, and as the leading scheduler fires them.

An occurrence is fired by submitting its run under the idempotency key ``schedule_id:due time`` and then
recording it; a crash in between repeats both, with the same run as the result. Refusals that pass by
themselves (quota, load, a server that is gone) are tried again until the next occurrence takes their place;
others are recorded and the schedule moves on. Every change is audited, told to the tenant's screens, and
wakes the scheduler, so it acts at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from core.audit.service import AuditService
from core.clock import Clock
from core.db.pool import Database
from core.errors import BailiwickError, IdempotencyConflict, InvalidInput
from core.ids import RunId, ScheduleId, new_id
from core.queue.model import Topic
from core.redis.bus import Bus
from core.runs.model import RunRequest, RunView
from core.runs.service import RunService
from core.runs.submission import Catalog
from core.schedules import store
from core.schedules.editing import Editor, Rows
from core.schedules.model import (
    MAX_SCHEDULES,
    Due,
    FireView,
    ScheduleView,
    check_name,
    describe,
    found,
    passes_by_itself,
    retry_delay,
)
from core.schedules.timing import Cron, latest_fire, next_fire, next_fires, parse_cron
from core.tenancy import Scope, TenantContext

MAX_PREVIEW = 100
FIRING = frozenset({Scope.RUNS_WRITE})
"""Rights of the context in which the leading scheduler fires."""

_WORD = "schedule"
_ROWS: Rows[ScheduleView] = Rows(
    _WORD,
    MAX_SCHEDULES,
    key=lambda view: view.schedule_id,
    all=store.schedules,
    one=store.schedule,
    insert=store.insert_schedule,
    update=lambda tx, _, after, now: store.update_schedule(tx, after, now),
    delete=store.delete_schedule,
)


class ScheduleService:
    """The schedules of one region."""

    def __init__(
        self,
        db: Database,
        bus: Bus,
        runs: RunService,
        audit: AuditService,
        catalog: Catalog,
        clock: Clock,
    ) -> None:
        self._db = db
        self._bus = bus
        self._runs = runs
        self._audit = audit
        self._catalog = catalog
        self._clock = clock
        self._editor = Editor(db, audit, clock, _ROWS, self._changed)

    # Look -----------------------------------------------------------------------------------------------

    async def list(self, ctx: TenantContext) -> Sequence[ScheduleView]:
        """All of the tenant's schedules, oldest first."""
        return await self._editor.list(ctx)

    async def get(self, ctx: TenantContext, schedule_id: str) -> ScheduleView:
        """One schedule. Raises ``NotFound`` for foreign and missing alike."""
        return await self._editor.get(ctx, schedule_id)

    async def fires(self, ctx: TenantContext, schedule_id: str, limit: int = 50) -> Sequence[FireView]:
        """What became of its latest occurrences, newest first. Raises ``NotFound``."""
        ctx.require(Scope.SCHEDULES_READ)
        async with self._db.tenant_transaction(ctx) as tx:
            found(await store.schedule(tx, schedule_id), _WORD)
            return await store.fires(tx, schedule_id, max(1, min(limit, 1_000)))

    def next_fires(self, schedule: ScheduleView | Cron, n: int, now: datetime) -> Sequence[datetime]:
        """The next ``n`` (at most 100) times it would fire after ``now``, in UTC; also of one that is paused."""
        timing = schedule.timing if isinstance(schedule, ScheduleView) else schedule
        return next_fires(timing, max(0, min(n, MAX_PREVIEW)), now)

    def preview(self, cron: str, timezone: str, n: int, now: datetime) -> Sequence[datetime]:
        """The same for a text somebody is writing. Raises ``InvalidInput`` that says what is wrong with it."""
        return self.next_fires(parse_cron(cron, timezone), n, now)

    # Edit -----------------------------------------------------------------------------------------------

    async def create(
        self,
        ctx: TenantContext,
        *,
        name: str,
        cron: str,
        workflow: str,
        input: Mapping[str, Any] | None = None,  # noqa: A002 - the word of the API
        timezone: str | None = None,
    ) -> ScheduleView:
        """Start a workflow by time. ``timezone`` defaults to the policy's.

        Raises ``Forbidden``, ``InvalidInput`` (name, cron, time zone, input; it never fires),
        ``WorkflowUnknown``, ``QuotaExceeded`` at 1,000 schedules.
        """

        def make(now: datetime) -> ScheduleView:
            timing = parse_cron(cron, timezone or ctx.policy.timezone)
            return ScheduleView(
                schedule_id=ScheduleId(new_id("sch", now)),
                name=check_name(name),
                cron=timing.text,
                timezone=timing.timezone,
                workflow=workflow,
                input=self._checked_input(workflow, input or {}),
                paused=False,
                version=1,
                next_at=_first_fire(timing, now),
                retry_at=None,
                last_due_at=None,
                last_run_id=None,
                last_error=None,
                user_id=ctx.user_id,
                created_by=ctx.actor,
                created_at=now,
                updated_at=now,
            )

        return await self._editor.add(ctx, make)

    async def edit(
        self,
        ctx: TenantContext,
        schedule_id: str,
        *,
        name: str | None = None,
        cron: str | None = None,
        timezone: str | None = None,
        workflow: str | None = None,
        input: Mapping[str, Any] | None = None,  # noqa: A002 - the word of the API
        version: int | None = None,
    ) -> ScheduleView:
        """Change what is given. ``version``: the one that was edited; another by now raises ``Conflict``.

        Raises what ``create`` raises, and ``NotFound``.
        """
        now = self._clock.now()

        def change(before: ScheduleView) -> ScheduleView:
            timing = parse_cron(cron or before.cron, timezone or before.timezone)
            moved = timing != before.timing
            chosen = workflow or before.workflow
            return replace(
                before,
                name=before.name if name is None else check_name(name),
                cron=timing.text,
                timezone=timing.timezone,
                workflow=chosen,
                input=self._checked_input(chosen, before.input if input is None else input),
                next_at=_first_fire(timing, now) if moved and not before.paused else before.next_at,
                retry_at=None if moved else before.retry_at,
            )

        return await self._editor.edit(ctx, schedule_id, "edit", change, version)

    async def pause(self, ctx: TenantContext, schedule_id: str) -> ScheduleView:
        """Fire nothing until it is resumed. Raises ``NotFound``."""
        return await self._editor.edit(
            ctx, schedule_id, "pause", lambda before: replace(before, paused=True, next_at=None, retry_at=None)
        )

    async def resume(self, ctx: TenantContext, schedule_id: str) -> ScheduleView:
        """Fire again, from the next occurrence on; nothing is made up for. Raises ``NotFound``."""
        now = self._clock.now()

        def change(before: ScheduleView) -> ScheduleView:
            return replace(before, paused=False, next_at=next_fire(before.timing, now)) if before.paused else before

        return await self._editor.edit(ctx, schedule_id, "resume", change)

    async def delete(self, ctx: TenantContext, schedule_id: str) -> None:
        """Remove a schedule; its runs stay. Raises ``NotFound``."""
        await self._editor.delete(ctx, schedule_id)

    async def run_now(self, ctx: TenantContext, schedule_id: str) -> RunView:
        """Start its run now, as the caller's; its times stay. Raises ``NotFound`` and what a submission raises."""
        ctx.require(Scope.SCHEDULES_WRITE)
        view = await self.get(ctx, schedule_id)
        run, _ = await self._runs.submit(ctx, RunRequest(workflow=view.workflow, input=view.input, source="schedule"))
        await self._audit.append(ctx, "schedule.run_now", f"schedule:{schedule_id}", after={"run_id": run.run_id})
        return run

    def _checked_input(self, workflow: str, document: Mapping[str, Any]) -> dict[str, Any]:
        return self._catalog.validate(self._catalog.resolve(workflow, None), document)

    async def _changed(self, ctx: TenantContext, schedule_id: str) -> None:
        await self._bus.signal(Topic.SCHEDULER)
        await self._bus.publish(ctx.tenant_id, "schedule", {"schedule_id": schedule_id})

    # Fire -----------------------------------------------------------------------------------------------

    async def upcoming(self, before: datetime, limit: int = 10_000) -> Sequence[Due]:
        """What the leading scheduler has to do before a moment, soonest first: schedules and pollers of all tenants."""
        async with self._db.control_transaction() as tx:
            return await store.upcoming(tx, before, limit)

    async def fire(self, ctx: TenantContext, schedule_id: str) -> datetime | None:
        """Start the run of the occurrence that is due, if one is; when to look at this schedule again.

        ``ctx`` is the scheduler's own, with ``FIRING``. None: not before somebody changes the schedule. Any
        number of callers at once start one run per occurrence. Raises ``Unavailable`` when Postgres is gone.
        """
        async with self._db.tenant_transaction(ctx) as tx:
            view = await store.schedule(tx, schedule_id)
        now = self._clock.now()
        if view is None or view.next_at is None:
            return None
        if now < (at := view.retry_at or view.next_at):
            return at
        due_at = latest_fire(view.timing, view.next_at, now)
        try:
            run_id = await self._start(replace(ctx, user_id=view.user_id), view, due_at)
        except BailiwickError as error:
            if passes_by_itself(error):
                return await self._try_again(ctx, view, now, error)
            return await self._record(ctx, view, due_at, None, describe(error))
        return await self._record(ctx, view, due_at, run_id, None)

    async def _start(self, ctx: TenantContext, view: ScheduleView, due_at: datetime) -> RunId | None:
        request = RunRequest(
            workflow=view.workflow,
            input=view.input,
            idempotency_key=f"{view.schedule_id}:{due_at.isoformat()}",
            source="schedule",
        )
        return await start_once(self._runs, ctx, request)

    async def _try_again(
        self, ctx: TenantContext, view: ScheduleView, now: datetime, error: BailiwickError
    ) -> datetime:
        retry_at = now + retry_delay(error)
        async with self._db.tenant_transaction(ctx) as tx:
            await store.try_again(tx, view, retry_at, describe(error))
        await self._bus.publish(ctx.tenant_id, "schedule", {"schedule_id": view.schedule_id})
        return retry_at

    async def _record(
        self,
        ctx: TenantContext,
        view: ScheduleView,
        due_at: datetime,
        run_id: RunId | None,
        error: dict[str, Any] | None,
    ) -> datetime | None:
        missed_since = view.next_at if view.next_at != due_at else None
        next_at = next_fire(view.timing, due_at)
        fire = FireView(due_at, self._clock.now(), missed_since, run_id, error)
        async with self._db.tenant_transaction(ctx) as tx:
            await store.record_fire(tx, view, fire, next_at)
        await self._bus.publish(ctx.tenant_id, "schedule", {"schedule_id": view.schedule_id})
        return next_at


async def start_once(runs: RunService, ctx: TenantContext, request: RunRequest) -> RunId | None:
    """Submit under the request's key. None: it was started already, just before somebody edited its input."""
    try:
        return (await runs.submit(ctx, request))[0].run_id
    except IdempotencyConflict:
        return None


def _first_fire(timing: Cron, now: datetime) -> datetime:
    first = next_fire(timing, now)
    if first is None:
        raise InvalidInput(f"{timing.text!r} never fires: no such day in the next nine years.", field="cron")
    return first
