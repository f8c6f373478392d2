"""What people do to runs, one at a time: cancel, pause, resume, retry, fork, and give them another budget.

Every act answers with the run as it stands then, so it needs the right to read runs besides its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.audit.service import AuditService
from core.clock import Clock
from core.db.pool import Database, Transaction
from core.errors import Conflict, Forbidden, NotFound
from core.ids import RunId
from core.queue.service import QueueService
from core.redis.bus import Bus
from core.redis.limits import Limits
from core.runs.acts import Act, Acts, Outcome
from core.runs.budgets import Budgets
from core.runs.execution_store import parent
from core.runs.family import Family
from core.runs.model import Fork, RunRequest, RunState, RunView
from core.runs.service import RunService
from core.tenancy import Scope, TenantContext
from core.usage.service import UsageService


class RunControl:
    """Acts on the runs of one region. Every act is an event of the run, and audited with who did it."""

    def __init__(
        self,
        db: Database,
        bus: Bus,
        queue: QueueService,
        runs: RunService,
        audit: AuditService,
        usage: UsageService,
        limits: Limits,
        clock: Clock,
    ) -> None:
        self._db = db
        self._bus = bus
        self._runs = runs
        self._queue = queue
        self._acts = Acts(queue, audit, limits, clock)
        self._budgets = Budgets(queue, usage, audit, clock)
        self._family = Family(db, bus, queue, clock)

    async def cancel(self, ctx: TenantContext, run_id: str) -> RunView:
        """Cancel a run: at once when it is queued, waits or is dead, at its next step when it executes.

        One that did what can be undone is queued once more for that, and is cancelled then. Raises ``NotFound``;
        ``Conflict`` when it has ended otherwise.
        """
        return await self._act(ctx, Act.CANCEL, run_id)

    async def pause(self, ctx: TenantContext, run_id: str) -> RunView:
        """Hold a run until it is resumed: at once when it is queued or waits, before its next step when it executes.

        What it waits for may end meanwhile (reviews are decided, timers run out), and its duration counts on. Raises
        ``NotFound``; ``Conflict`` when it has ended, is paused already, is being cancelled or undoes what it did.
        """
        return await self._act(ctx, Act.PAUSE, run_id)

    async def resume(self, ctx: TenantContext, run_id: str) -> RunView:
        """Let a paused run go on: from the head of its lane, unless it still waits for what it waited for.

        Raises ``NotFound``; ``Conflict`` when it is not paused.
        """
        return await self._act(ctx, Act.RESUME, run_id)

    async def retry(self, ctx: TenantContext, run_id: str, *, from_step: int | None = None) -> RunView:
        """Queue a run that did not succeed again; steps that finished are not repeated.

        ``from_step`` (counted from 1): but that one and all after it are done again, reviews are asked again, under new
        idempotency keys where a step had been done. What they cost before stays spent; earlier steps cost nothing more.
        Raises ``NotFound``; ``Conflict`` in any other state; ``InvalidInput`` when the run has not come to that step.
        """
        return await self._act(ctx, Act.RETRY, run_id, from_step)

    async def fork(
        self,
        ctx: TenantContext,
        run_id: str,
        *,
        from_step: int,
        document: dict[str, Any] | None = None,
        idempotency_key: str | None = None,
        source: str = "api",
    ) -> tuple[RunView, bool]:
        """Submit a new run of the same workflow and version that is given the steps before ``from_step`` (from 1).

        ``document``: its input, None: the same; ``core.runs.forking`` says what another one means for the given steps.
        It is a submission like any other: quotas, validation, idempotency key. The run, and whether it is new.
        Raises what ``RunService.submit`` raises, ``NotFound``, ``InvalidInput`` with another input after a decision of
        people, and ``Forbidden`` when its content is not the caller's.
        """
        ctx.require(Scope.RUNS_WRITE)
        found = await self._runs.get(ctx, run_id)
        if not self._runs.shows_content(ctx, found):
            raise Forbidden("Only the person who submitted this run may fork it.")
        return await self._runs.submit(
            ctx,
            RunRequest(
                found.workflow,
                found.input if document is None else document,
                version=found.version,
                lane=found.lane,
                idempotency_key=idempotency_key,
                source=source,
                fork=Fork(found.run_id, from_step),
            ),
        )

    async def budget(self, ctx: TenantContext, run_id: str, budget_microusd: int) -> RunView:
        """Say what a run may spend in all, its children included, in micro-USD.

        When that changes it, what the run and those below it asked about money is withdrawn: they go on within a second
        if it covers their next step, and ask anew if not. The runs above it cover what it may spend more. Needs
        ``tenant:write``. Raises ``NotFound``; ``Conflict`` when it has succeeded; ``InvalidInput`` for less than is
        spent or promised, or more than the policy allows.
        """
        ctx.require(Scope.RUNS_READ)
        ctx.require(Scope.TENANT_WRITE)
        async with self._db.tenant_transaction(ctx) as tx:
            woken = await self._budgets.set_in(tx, ctx, run_id, budget_microusd)
        if woken:
            await self._queue.signal_workers()
            for one in woken:
                self._bus.news.unasked(ctx.tenant_id, one)
        self._bus.news.of_run(ctx.tenant_id, RunId(run_id))
        return await self._runs.get(ctx, run_id)

    async def _act(self, ctx: TenantContext, act: Act, run_id: str, from_step: int | None = None) -> RunView:
        ctx.require(Scope.RUNS_READ)  # the answer shows it: nothing is done for who may not see it
        ctx.require(Scope.RUNS_WRITE)
        async with self._db.tenant_transaction(ctx) as tx:
            if from_step is None:
                outcome = await self._acts.perform_in(tx, ctx, act, run_id)
            else:
                outcome = await self._acts.retry_from_in(tx, ctx, run_id, from_step)
            if outcome is None:
                raise NotFound("There is no such run.")
            if outcome.refusal is not None:
                raise Conflict(outcome.refusal, state=outcome.was)
        await self.tell(ctx, act, {run_id: outcome})
        return await self._runs.get(ctx, run_id)

    async def perform_in(
        self, tx: Transaction, ctx: TenantContext, act: Act, run_id: str, was: RunState, bulk_id: str
    ) -> Outcome:
        """One run of a bulk, in the caller's transaction. ``tell`` after the commit what was not refused."""
        outcome = await self._acts.perform_if_in(tx, ctx, act, run_id, was, {"bulk_id": bulk_id})
        return outcome or Outcome(was, "There is no such run.")

    async def tell(self, ctx: TenantContext, act: Act, changed: Mapping[str, Outcome]) -> None:
        """Tell screens, workers and families of runs, by their ids, on which somebody has acted."""
        if not changed:
            return
        views = await self._runs.some(ctx, list(changed))
        told = ("run_id", "state", "cause", "batch_id", "thread_id")
        for one in views:
            self._bus.news.say(ctx.tenant_id, "run", {name: getattr(one, name) for name in told})
        for run_id, outcome in changed.items():
            if outcome.closed:
                self._bus.news.unasked(ctx.tenant_id, run_id)
        await self._acts.signal(act)
        await self._acts.leave(ctx, changed)
        async with self._db.tenant_transaction(ctx) as tx:
            ended = {await parent(tx, view.run_id): view.state for view in views if view.state.final}
        for spawned_by, state in ended.items():
            await self._family.ended(ctx, state, spawned_by)
