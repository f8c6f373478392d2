"""Pollers as people edit them, and as the leading scheduler records what it saw.

Looking itself (HTTP) is the scheduler's; here is what follows from it. The first look only remembers; a later
one that finds something new starts a run under the key ``poller_id:last change:what is new`` and then
remembers it, so a crash in between starts the same run again, which is one run. A refusal that passes by
itself (quota, load) remembers nothing and is tried again with the next look.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from core.audit.service import AuditService
from core.clock import Clock
from core.db.pool import Database
from core.errors import BailiwickError, Conflict, InvalidInput
from core.http import check_url
from core.ids import PollerId, RunId, new_id
from core.queue.model import Topic
from core.redis.bus import Bus
from core.runs.model import RunRequest
from core.runs.service import RunService
from core.runs.submission import Catalog
from core.schedules import store
from core.schedules.editing import Editor, Rows
from core.schedules.feed import Comparison
from core.schedules.model import (
    CHANGE_FIELD,
    MAX_POLLERS,
    SAMPLE_CHANGE,
    FeedChange,
    PollerView,
    PollStatus,
    Seen,
    check_interval,
    check_name,
    describe,
    found,
    passes_by_itself,
    poll_delay,
    retry_delay,
)
from core.schedules.service import start_once
from core.tenancy import Scope, TenantContext

_WORD = "poller"


_ROWS: Rows[PollerView] = Rows(
    _WORD,
    MAX_POLLERS,
    key=lambda view: view.poller_id,
    all=store.pollers,
    one=store.poller,
    insert=store.insert_poller,
    update=lambda tx, before, after, now: store.update_poller(tx, after, now, forget=after.seen != before.seen),
    delete=store.delete_poller,
)


class PollerService:
    """The pollers of one region."""

    def __init__(
        self,
        db: Database,
        bus: Bus,
        runs: RunService,
        audit: AuditService,
        catalog: Catalog,
        clock: Clock,
        *,
        allowed_private_hosts: Sequence[str] = (),
    ) -> None:
        self._db = db
        self._bus = bus
        self._runs = runs
        self._audit = audit
        self._catalog = catalog
        self._clock = clock
        self._allowed = tuple(allowed_private_hosts)
        self._editor = Editor(db, audit, clock, _ROWS, self._changed)

    # Look -----------------------------------------------------------------------------------------------

    async def list(self, ctx: TenantContext) -> Sequence[PollerView]:
        """All of the tenant's pollers, oldest first."""
        return await self._editor.list(ctx)

    async def get(self, ctx: TenantContext, poller_id: str) -> PollerView:
        """One poller. Raises ``NotFound`` for foreign and missing alike."""
        return await self._editor.get(ctx, poller_id)

    # Edit -----------------------------------------------------------------------------------------------

    async def create(
        self,
        ctx: TenantContext,
        *,
        name: str,
        url: str,
        workflow: str,
        interval_s: int = 300,
        input: Mapping[str, Any] | None = None,  # noqa: A002 - the word of the API
    ) -> PollerView:
        """Watch an address and start a workflow when something new is there.

        The run's input is ``input`` with the news in field ``change`` (``FeedChange``). Raises ``Forbidden``,
        ``InvalidInput`` (name, address, interval, input), ``WorkflowUnknown``, ``QuotaExceeded`` at 200 pollers.
        """

        def make(now: datetime) -> PollerView:
            return PollerView(
                poller_id=PollerId(new_id("pol", now)),
                name=check_name(name),
                url=check_url(url, self._allowed),
                interval_s=check_interval(interval_s),
                workflow=workflow,
                input=self._checked_input(workflow, input or {}),
                paused=False,
                version=1,
                next_at=now,
                failures=0,
                last_status=None,
                last_error=None,
                last_polled_at=None,
                last_changed_at=None,
                last_run_id=None,
                seen=Seen(),
                user_id=ctx.user_id,
                created_by=ctx.actor,
                created_at=now,
                updated_at=now,
            )

        return await self._editor.add(ctx, make)

    async def edit(
        self,
        ctx: TenantContext,
        poller_id: str,
        *,
        name: str | None = None,
        url: str | None = None,
        workflow: str | None = None,
        interval_s: int | None = None,
        input: Mapping[str, Any] | None = None,  # noqa: A002 - the word of the API
        version: int | None = None,
    ) -> PollerView:
        """Change what is given and look at once. Another ``url`` forgets what was seen at the old one.

        Raises what ``create`` raises, ``NotFound``, and ``Conflict`` when ``version`` is not the current one.
        """

        def change(before: PollerView) -> PollerView:
            chosen = workflow or before.workflow
            address = before.url if url is None else check_url(url, self._allowed)
            return replace(
                before,
                name=before.name if name is None else check_name(name),
                url=address,
                workflow=chosen,
                interval_s=before.interval_s if interval_s is None else check_interval(interval_s),
                input=self._checked_input(chosen, before.input if input is None else input),
                seen=before.seen if address == before.url else Seen(),
            )

        return await self._edit(ctx, poller_id, "edit", change, version)

    async def pause(self, ctx: TenantContext, poller_id: str) -> PollerView:
        """Do not look until it is resumed. Raises ``NotFound``."""
        change = lambda before: replace(before, paused=True)  # noqa: E731 - one field
        return await self._edit(ctx, poller_id, "pause", change)

    async def resume(self, ctx: TenantContext, poller_id: str) -> PollerView:
        """Look again, at once; what changed meanwhile counts. Raises ``NotFound``."""
        change = lambda before: replace(before, paused=False)  # noqa: E731 - one field
        return await self._edit(ctx, poller_id, "resume", change)

    async def delete(self, ctx: TenantContext, poller_id: str) -> None:
        """Remove a poller; its runs stay. Raises ``NotFound``."""
        await self._editor.delete(ctx, poller_id)

    async def look_now(self, ctx: TenantContext, poller_id: str) -> None:
        """Look as soon as possible. Raises ``NotFound``; ``Conflict`` when it is paused."""
        ctx.require(Scope.SCHEDULES_WRITE)
        async with self._db.tenant_transaction(ctx) as tx:
            before = found(await store.poller(tx, poller_id), _WORD)
            if not await store.look_again_at(tx, poller_id, self._clock.now()):
                raise Conflict("A paused poller does not look. Resume it.")
        await self._changed(ctx, before.poller_id)

    async def _edit(
        self,
        ctx: TenantContext,
        poller_id: str,
        act: str,
        change: Callable[[PollerView], PollerView],
        version: int | None = None,
    ) -> PollerView:
        def looking_at_once(before: PollerView) -> PollerView:
            after = change(before)
            if after == before:
                return before
            return replace(after, next_at=None if after.paused else self._clock.now(), failures=0)

        return await self._editor.edit(ctx, poller_id, act, looking_at_once, version)

    def _checked_input(self, workflow: str, document: Mapping[str, Any]) -> dict[str, Any]:
        """The part of the input that people write, checked together with a change such as a look would add."""
        sample = {**document, CHANGE_FIELD: SAMPLE_CHANGE.model_dump(mode="json")}
        checked = self._catalog.validate(self._catalog.resolve(workflow, None), sample)
        if CHANGE_FIELD not in checked:
            raise InvalidInput(
                f"A poller cannot start workflow {workflow}: its input has no field {CHANGE_FIELD!r} (a FeedChange).",
                field="workflow",
            )
        return {key: value for key, value in checked.items() if key != CHANGE_FIELD}

    async def _changed(self, ctx: TenantContext, poller_id: str) -> None:
        await self._bus.signal(Topic.SCHEDULER)
        await self._tell(ctx, poller_id)

    async def _tell(self, ctx: TenantContext, poller_id: str) -> None:
        await self._bus.publish(ctx.tenant_id, "schedule", {"poller_id": poller_id})

    # What the scheduler saw -----------------------------------------------------------------------------

    async def armed(self, ctx: TenantContext, poller_id: str) -> PollerView | None:
        """The poller, unless it is paused or gone: it has a ``next_at``."""
        async with self._db.tenant_transaction(ctx) as tx:
            view = await store.poller(tx, poller_id)
        return None if view is None or view.next_at is None else view

    async def postpone(self, ctx: TenantContext, poller_id: str, at: datetime) -> datetime:
        """Look later (the tenant's rate limit says so); that moment."""
        async with self._db.tenant_transaction(ctx) as tx:
            await store.look_again_at(tx, poller_id, at)
        return at

    async def unchanged(self, ctx: TenantContext, view: PollerView) -> datetime:
        """The server says that nothing changed; the next look."""
        return await self._record(ctx, view, PollStatus.UNCHANGED, view.seen)

    async def failed(self, ctx: TenantContext, view: PollerView, error: BailiwickError, jitter: float) -> datetime:
        """The look failed; the next one, later with every failure. ``jitter`` in [0, 1) spreads them."""
        delay = poll_delay(view.interval_s, view.failures + 1, error.retry_after_s, jitter)
        return await self._record(
            ctx, view, PollStatus.FAILED, view.seen, error=error, next_at=self._clock.now() + delay
        )

    async def seen(self, ctx: TenantContext, view: PollerView, comparison: Comparison) -> datetime:
        """The look found a content; starts the run when it is new. The next look."""
        if comparison.first:
            return await self._record(ctx, view, PollStatus.FIRST, comparison.seen)
        if comparison.change is None:
            return await self._record(ctx, view, PollStatus.UNCHANGED, comparison.seen)
        try:
            run_id = await self._start(replace(ctx, user_id=view.user_id), view, comparison.key, comparison.change)
        except BailiwickError as error:
            if passes_by_itself(error):
                at = self._clock.now() + max(retry_delay(error), poll_delay(view.interval_s, 0, None, 0.0))
                return await self._record(ctx, view, PollStatus.REFUSED, view.seen, error=error, next_at=at)
            return await self._record(ctx, view, PollStatus.REFUSED, comparison.seen, error=error)
        return await self._record(ctx, view, PollStatus.CHANGED, comparison.seen, run_id=run_id)

    async def _start(self, ctx: TenantContext, view: PollerView, key: str, change: FeedChange) -> RunId | None:
        since = "" if view.last_changed_at is None else view.last_changed_at.isoformat()
        request = RunRequest(
            workflow=view.workflow,
            input={**view.input, CHANGE_FIELD: change.model_dump(mode="json")},
            idempotency_key=f"{view.poller_id}:{since}:{key}",
            source="poller",
        )
        return await start_once(self._runs, ctx, request)

    async def _record(
        self,
        ctx: TenantContext,
        view: PollerView,
        status: PollStatus,
        seen: Seen,
        *,
        run_id: RunId | None = None,
        error: BailiwickError | None = None,
        next_at: datetime | None = None,
    ) -> datetime:
        now = self._clock.now()
        next_at = next_at or now + poll_delay(view.interval_s, 0, None, 0.0)
        async with self._db.tenant_transaction(ctx) as tx:
            await store.record_look(
                tx,
                view,
                at=now,
                next_at=next_at,
                status=status,
                seen=seen,
                failures=view.failures + 1 if status is PollStatus.FAILED else 0,
                run_id=run_id,
                error=None if error is None else describe(error),
            )
        if status is not PollStatus.UNCHANGED or view.last_status is not PollStatus.UNCHANGED:
            await self._tell(ctx, view.poller_id)
        return next_at
