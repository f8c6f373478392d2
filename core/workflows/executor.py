"""Executing claimed runs: from a claim to an end, a wait, or somebody else's run.

Every claim of a run is one execution. Each begins at the top of the workflow's function and is told what is done; what
becomes of it is in our own tables alone (core/decisions/0024). The queue gives a worker only runs whose code it has:
whatever is claimed is in the registry.
"""

from __future__ import annotations

import asyncio
from typing import Any

from core.clock import Clock
from core.ids import RunId
from core.queue.model import Claim
from core.redis.limits import Limits
from core.reviews.service import ReviewService
from core.runs.children import ChildRuns
from core.runs.duration import limit_s
from core.runs.execution import Executing, RunExecution
from core.runs.model import RunState
from core.runs.patches import RunPatches
from core.runs.rungs import Rungs
from core.tenancy import ROLE_SCOPES, ActorKind, Role
from core.tenants.service import TenantService
from core.usage.service import UsageService
from core.workflows.ending import executed, overlong
from core.workflows.faults import written
from core.workflows.performing import Performer
from core.workflows.registry import Definition, Registry
from core.workflows.run import Run
from core.workflows.step import Lent
from core.workflows.tools import Tools


class RunExecutor:
    """Executes the runs that one worker claimed."""

    def __init__(
        self,
        *,
        registry: Registry,
        tenants: TenantService,
        execution: RunExecution,
        reviews: ReviewService,
        usage: UsageService,
        rungs: Rungs,
        limits: Limits,
        models: Any,
        children: ChildRuns,
        patches: RunPatches,
        services: Lent,
        clock: Clock,
    ) -> None:
        self._registry = registry
        self._tenants = tenants
        self._execution = execution
        self._clock = clock
        self._tools = Tools(execution, reviews, usage, rungs, limits, models, services, clock, children, patches)
        self._executions: set[Run] = set()
        self._leaving = False

    async def execute(self, claim: Claim) -> None:
        """Execute one claimed run until its slot is given back.

        Call it in a task of its own: context variables that the workflow sets end with it. An exception of the workflow
        is an end of the run and is not raised here; what is raised broke in our own code, or on the way to a server.
        """
        on = await written(lambda: self._executing(claim))
        definition = self._registry.at(claim.workflow, claim.version)
        run = Run(Performer(self._tools, on, claim.workflow))
        left_s = limit_s(on.ctx.policy, definition.timeout_s)
        if claim.attempt > 1:
            left_s -= await self._resumed(run, definition, left_s)
        self._executions.add(run)
        if self._leaving:
            run.performer.leave()
        limit = asyncio.get_running_loop().call_later(max(0.0, left_s), run.performer.expire)
        try:
            self._execution.started(on)
            end = await executed(run, definition, claim.input)
        finally:
            limit.cancel()
            self._executions.discard(run)
        await self._conclude(run, end)

    async def _resumed(self, run: Run, definition: Definition, allowed_s: float) -> float:
        """Tell the run what was decided about it before this execution; seconds that it has lasted."""
        began = await written(lambda: self._execution.began(run.performer.on))
        now = self._clock.now()
        lasted_s = (now - (began.started_at or now)).total_seconds()
        run.performer.resume(began, overlong(run, definition) if lasted_s >= allowed_s else None)
        return lasted_s

    def cancel(self, run_id: str) -> None:
        """Stop a run that executes here; nothing happens when it does not."""
        for run in self._executions:
            if run.id == run_id:
                run.performer.cancel()

    def hand_over(self) -> None:
        """Let the current step of each run end, and hand the run back to the queue then."""
        self._leaving = True
        for run in self._executions:
            run.performer.leave()

    def cut_off(self) -> None:
        """Hand back what executes now; a step that has not ended is abandoned, and executed again elsewhere."""
        self.hand_over()
        for run in self._executions:
            run.performer.cut_off()

    async def _executing(self, claim: Claim) -> Executing:
        ctx = await self._tenants.context_for(
            claim.tenant_id,
            actor_kind=ActorKind.RUN,
            actor_id=claim.run_id,
            user_id=claim.user_id,
            scopes=ROLE_SCOPES[Role.MEMBER],
        )
        return Executing(
            ctx,
            RunId(claim.run_id),
            claim.attempt,
            claim.budget_microusd,
            claim.batch_id,
            claim.thread_id,
        )

    async def _conclude(self, run: Run, end: dict[str, Any]) -> None:
        if end["end"] is None:
            return
        on, state = run.performer.on, RunState(end["end"])
        if state is RunState.QUEUED:
            await written(lambda: self._execution.hand_back(on))
        elif state is RunState.WAITING:
            await written(lambda: self._execution.park(on))
        else:
            told = {name: end.get(name) for name in ("output", "outcome", "error")}
            await written(lambda: self._execution.end(on, state, **told))
