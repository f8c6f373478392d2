"""Runs as people and programs use them: submit, look, send an event. What people do to runs is in ``control``.

Submission is one transaction: replays are answered, quota and load decide (``admission``), the runs and their queue
entries are written, or nothing is. Workers are woken after the commit; a lost wake-up costs time, never a run.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from core.audit.service import AuditService
from core.clock import Clock
from core.db.pool import Database, Transaction
from core.errors import (
    BudgetExceeded,
    InvalidInput,
    NotFound,
    Overloaded,
    QuotaExceeded,
)
from core.ids import RunId
from core.queue.model import Topic
from core.queue.service import QueueService
from core.redis.bus import Bus
from core.runs import store
from core.runs.entry import Entry
from core.runs.log import RunLog
from core.runs.model import (
    BatchProgress,
    Cause,
    ReasonCount,
    RunEvent,
    RunRequest,
    RunState,
    RunView,
    Standstill,
    StepView,
    check_payload,
    progress_of,
)
from core.runs.submission import Catalog, refusal_record
from core.runs.waiting import Standing, by_cause
from core.tenancy import Scope, TenantContext

MAX_BATCH = 5_000
WOKEN_AT_ONCE = 1_000
"""Runs that are woken with the event that they wait for; others are by the scheduler, some at a time."""

TOLD_AT_ONCE = 100
"""Of so many runs of a batch, screens are told one by one; of more they learn when they look."""


class RunService:
    """The runs of one region."""

    def __init__(
        self,
        db: Database,
        bus: Bus,
        queue: QueueService,
        entry: Entry,
        audit: AuditService,
        catalog: Catalog,
        clock: Clock,
    ) -> None:
        self._db = db
        self._bus = bus
        self._queue = queue
        self._entry = entry
        self._audit = audit
        self._catalog = catalog
        self._clock = clock
        self.log = RunLog(db, catalog, clock)

    # Submit ---------------------------------------------------------------------------------------------

    async def submit(self, ctx: TenantContext, request: RunRequest) -> tuple[RunView, bool]:
        """Submit one run; the run, and whether it is new (False: the idempotency key was used before).

        Raises ``Forbidden``, ``WorkflowUnknown``, ``InvalidInput``, ``PayloadTooLarge``,
        ``IdempotencyConflict``, ``QuotaExceeded``, ``BudgetExceeded``, ``Overloaded``.
        """
        views, created = await self._submit(ctx, [request])
        return views[0], bool(created)

    async def submit_many(self, ctx: TenantContext, requests: Sequence[RunRequest]) -> list[RunView]:
        """Submit up to 5,000 runs, all or none; the runs in the order of the requests."""
        return (await self._submit(ctx, requests))[0]

    async def _submit(self, ctx: TenantContext, requests: Sequence[RunRequest]) -> tuple[list[RunView], list[RunId]]:
        ctx.require(Scope.RUNS_WRITE)
        if not 1 <= len(requests) <= MAX_BATCH:
            raise InvalidInput(f"A batch has 1 to {MAX_BATCH} runs.")
        prepared = await self._entry.prepared(ctx, requests)
        try:
            async with self._db.tenant_transaction(ctx) as tx:
                run_ids, fresh = await self._entry.insert_in(tx, ctx, prepared)
        except (QuotaExceeded, BudgetExceeded, Overloaded) as refusal:
            await self._audit.append(
                ctx, "refusal", f"workflow:{requests[0].workflow}", after=refusal_record(refusal, len(requests))
            )
            raise
        if fresh:
            self._bus.news.wake(Topic.WORKERS)
            for view in fresh[:TOLD_AT_ONCE]:
                self._bus.news.say(ctx.tenant_id, "run", {"run_id": view.run_id, "state": RunState.QUEUED})
        by_id = {view.run_id: view for view in fresh}
        if replayed := [run_id for run_id in run_ids if run_id not in by_id]:
            by_id |= {view.run_id: view for view in await self._views(ctx, replayed)}
        return [by_id[run_id] for run_id in run_ids], [view.run_id for view in fresh]

    # Look -----------------------------------------------------------------------------------------------

    async def get(self, ctx: TenantContext, run_id: str) -> RunView:
        """One run. Raises ``NotFound`` for foreign and missing alike."""
        ctx.require(Scope.RUNS_READ)
        found = await self._views(ctx, [run_id])
        if not found:
            raise NotFound("There is no such run.")
        return found[0]

    async def some(self, ctx: TenantContext, run_ids: Sequence[str]) -> Sequence[RunView]:
        """These runs, newest first; what is not the tenant's is left out."""
        ctx.require(Scope.RUNS_READ)
        return await self._views(ctx, run_ids)

    async def standing(self, ctx: TenantContext, run: RunView) -> Standing:
        """What a run of the tenant has waited for until now, and when it will probably start if it is queued."""
        ctx.require(Scope.RUNS_READ)
        now = self._clock.now()
        async with self._db.tenant_transaction(ctx) as tx:
            passages = await store.passages(tx, run.run_id, now)
            waited = by_cause(passages, await store.parkings(tx, run.run_id), run.finished_at or now)
            return Standing(waited, await self._queue.starts_in(tx, run.run_id))

    async def list(
        self,
        ctx: TenantContext,
        *,
        state: str | None = None,
        workflow: str | None = None,
        batch_id: str | None = None,
        outcome: str | None = None,
        parent: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> tuple[Sequence[RunView], str | None]:
        """Runs that pass the filters, newest first, and the cursor of the next page (None: the last).

        ``parent``: the children of that run.
        """
        ctx.require(Scope.RUNS_READ)
        limit = max(1, min(limit, 1_000))
        after = _decode_cursor(cursor) if cursor else None
        async with self._db.tenant_transaction(ctx) as tx:
            standstill = await self._standstill(tx)
            views = await store.views(
                tx,
                standstill,
                state=state,
                workflow=workflow,
                batch_id=batch_id,
                outcome=outcome,
                parent=parent,
                after=after,
                limit=limit + 1,
            )
        page = [self._shown(ctx, view) for view in views[:limit]]
        return page, _encode_cursor(page[-1]) if len(views) > limit else None

    async def steps(self, ctx: TenantContext, run_id: str) -> Sequence[StepView]:
        """All attempts of all steps of a run; without their errors where its content is not the caller's.

        Raises ``NotFound``.
        """
        shown = self.shows_content(ctx, await self.get(ctx, run_id))
        async with self._db.tenant_transaction(ctx) as tx:
            found = await store.steps(tx, run_id)
        return found if shown else [replace(step, error=None) for step in found]

    async def events(self, ctx: TenantContext, run_id: str, after_seq: int = 0) -> Sequence[RunEvent]:
        """Up to 1,000 events after a position, as the caller may see them. Raises ``NotFound``."""
        return await self.log.events(ctx, run_id, after_seq)

    async def batch_progress(self, ctx: TenantContext, batch_id: str) -> BatchProgress:
        """How far a batch is. Raises ``NotFound`` when the tenant has no run of it."""
        ctx.require(Scope.RUNS_READ)
        async with self._db.tenant_transaction(ctx) as tx:
            rows = await store.batch_counts(tx, batch_id)
            standstill = await self._standstill(tx)
        if not rows:
            raise NotFound("There is no such batch.")
        return progress_of(batch_id, [dict(row) for row in rows], standstill)

    async def declined_summary(self, ctx: TenantContext, batch_id: str | None = None) -> Sequence[ReasonCount]:
        """Reasons of refused applications, most frequent first; of one batch or of all."""
        ctx.require(Scope.RUNS_READ)
        async with self._db.tenant_transaction(ctx) as tx:
            return await store.declined_reasons(tx, batch_id)

    async def _views(self, ctx: TenantContext, run_ids: Sequence[str]) -> Sequence[RunView]:
        async with self._db.tenant_transaction(ctx) as tx:
            found = await store.views_by_id(tx, await self._standstill(tx), run_ids)
        return [self._shown(ctx, view) for view in found]

    def shows_content(self, ctx: TenantContext, view: RunView) -> bool:
        """Whether this caller may see what a run of their tenant was given and returned."""
        return view.user_id in (None, ctx.user_id) or not self._catalog.is_private(view.workflow)

    def _shown(self, ctx: TenantContext, view: RunView) -> RunView:
        if self.shows_content(ctx, view):
            return view
        return replace(view, input={}, output=None, error=None, progress=None)

    async def _standstill(self, tx: Transaction) -> Standstill:
        place = await store.queue_row(tx)
        return await self._entry.standstill_at(tx, place) if place.queued else Standstill(Cause.SHARE)

    # Tell -----------------------------------------------------------------------------------------------

    async def send_event(self, ctx: TenantContext, name: str, key: str, payload: Any) -> bool:
        """Send an event to the runs that wait, or will wait, for it; False when it was sent before.

        Raises ``InvalidInput`` for a payload of None: nothing to tell apart from no event. ``PayloadTooLarge``.
        """
        ctx.require(Scope.RUNS_WRITE)
        if payload is None:
            raise InvalidInput("An event needs a payload.")
        check_payload("payload", payload)
        async with self._db.tenant_transaction(ctx) as tx:
            await store.event_line(tx, name, key)
            waiting = await store.waits_on_key(tx, Cause.EVENT, f"{name}/{key}", WOKEN_AT_ONCE)
            for run_id, step in waiting:
                await self._queue.wake_in(tx, run_id, step)
            left = len(waiting) == WOKEN_AT_ONCE and await store.waits_over(
                tx, Cause.EVENT, f"{name}/{key}", self._clock.now()
            )
            sent = await store.send_event(tx, name, key, payload, self._clock.now())
        for run_id, _ in waiting:
            self._bus.news.of_run(ctx.tenant_id, run_id)
        if waiting:
            await self._queue.signal_workers()
        if left:
            await self._bus.signal(Topic.SCHEDULER)
        return sent


def _encode_cursor(view: RunView) -> str:
    return base64.urlsafe_b64encode(json.dumps([view.submitted_at.isoformat(), view.run_id]).encode()).decode()


def _decode_cursor(cursor: str) -> tuple[datetime, str]:
    try:
        moment, run_id = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        after = datetime.fromisoformat(moment)
        if after.tzinfo is None or not run_id.isascii() or not run_id.isprintable():
            raise ValueError(cursor)
        return after, str(run_id)
    except (ValueError, TypeError, AttributeError, binascii.Error) as error:
        raise InvalidInput("The cursor is not one of ours.") from error
